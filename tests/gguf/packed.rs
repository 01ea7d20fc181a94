//! Tests of `MatMul` and `Gather` with blocks of every form, against the same weights in float.

use super::{largest_difference, runtime};
use bytes::Bytes;
use optimize::call::Call;
use optimize::error::Result;
use optimize::model::Model;
use optimize::onnx::dtype::DataType;
use optimize::runtime::{Session, SessionOptions, Tensor};
use optimize::source::Dialect;
use optimize::source::builder::Builder;
use optimize::source::gguf::dequantize;
use optimize::source::weights::{BlockForm, Form, Stored, Weights};

const ROWS: usize = 70;
const COLUMNS: usize = 512;

const FORMS: [BlockForm; 15] = [
    BlockForm::Q4_0,
    BlockForm::Q4_1,
    BlockForm::Q5_0,
    BlockForm::Q5_1,
    BlockForm::Q8_0,
    BlockForm::Q4_K,
    BlockForm::Q5_K,
    BlockForm::Q6_K,
    BlockForm::Q2_K,
    BlockForm::Q3_K,
    BlockForm::IQ4_NL,
    BlockForm::IQ4_XS,
    BlockForm::MXFP4,
    BlockForm::TQ1_0,
    BlockForm::TQ2_0,
];

/// A checkpoint of one matrix, with codes in random order and scales between 2^-8 and 2^-6 of either sign.
struct One(Stored);

impl Weights for One {
    fn find(&self, name: &str) -> Result<Option<Stored>> {
        Ok((name == "w").then(|| self.0.clone()))
    }

    fn names(&self) -> Vec<String> {
        vec!["w".to_owned()]
    }
}

fn matrix(form: BlockForm) -> One {
    let layout = form.layout();
    let mut state = 12_345u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut bytes: Vec<u8> = (0..ROWS * COLUMNS / layout.elements * layout.bytes).map(|_| next()).collect();
    for block in bytes.chunks_mut(layout.bytes) {
        let scales: &[usize] = match form {
            BlockForm::Q6_K => &[209],
            BlockForm::Q2_K => &[81, 83],
            BlockForm::Q3_K => &[109],
            BlockForm::TQ1_0 => &[53],
            BlockForm::TQ2_0 => &[65],
            BlockForm::MXFP4 => {
                block[0] = 119 + block[0] % 3;
                &[]
            }
            _ if layout.symmetric => &[1],
            _ => &[1, 3],
        };
        scales.iter().for_each(|at| block[*at] = block[*at] & 0x87 | 0x1c);
    }
    let dims = vec![ROWS as i64, COLUMNS as i64];
    One(Stored { dims, form: Form::Blocks(form), bytes: Bytes::from(bytes) })
}

fn run(model: &Model, x: &Tensor, ids: &Tensor) -> (Vec<f32>, Vec<f32>) {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let session = Session::new(runtime(), model, &options, &Call::default()).unwrap();
    let outputs = session.run(&[("x", x), ("ids", ids)], &["product", "rows"], &Call::default()).unwrap();
    assert_eq!(outputs[0].1.shape(), [1, 5, ROWS as i64]);
    assert_eq!(outputs[1].1.shape(), [1, 3, COLUMNS as i64]);
    (outputs[0].1.to_f32_vec().unwrap(), outputs[1].1.to_f32_vec().unwrap())
}

#[test]
fn blocks_of_every_form_multiply_and_look_up_like_the_floats_they_stand_for() {
    let given: Vec<f32> = (0..5 * COLUMNS).map(|i| (i as f32 * 12.9898).sin()).collect();
    let x = Tensor::from_f32(&[1, 5, COLUMNS as i64], given.clone()).unwrap();
    let ids = Tensor::from_i64(&[1, 3], vec![0, 69, 33]).unwrap();
    for form in FORMS {
        let weights = matrix(form);
        let mut floats = vec![0f32; ROWS * COLUMNS];
        dequantize::to_floats(form, &weights.0.bytes, &mut floats);
        let row = |i: usize| &floats[i * COLUMNS..(i + 1) * COLUMNS];
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32;
        let expected: Vec<f32> =
            given.chunks(COLUMNS).flat_map(|x| (0..ROWS).map(|i| dot(x, row(i))).collect::<Vec<_>>()).collect();
        let looked_up = [row(0), row(69), row(33)].concat();
        let scale = looked_up.iter().fold(0f32, |most, value| most.max(value.abs()));
        for dialect in [Dialect::Runtime, Dialect::Portable] {
            let mut b = Builder::new("test", &weights, dialect);
            b.input("x", DataType::Float32, &["batch", "sequence", "512"]);
            b.input("ids", DataType::Int64, &["batch", "count"]);
            let product = b.product("x", "w", COLUMNS as i64, ROWS as i64).unwrap();
            let rows = b.embedding("ids", "w", ROWS as i64, COLUMNS as i64).unwrap();
            b.output("product", &product, DataType::Float32, &["batch", "sequence", "70"]);
            b.output("rows", &rows, DataType::Float32, &["batch", "count", "512"]);
            let proto = b.finish();
            let constants = &proto.graph.as_ref().unwrap().initializer;
            let bytes: usize = constants.iter().filter_map(|t| t.raw_data.as_ref()).map(Bytes::len).sum();
            let (products, found) = run(&Model::from_proto(proto), &x, &ids);
            let difference = largest_difference(&products, &expected);
            assert!(difference < 2e-4 * scale, "{form:?}, {dialect:?}: {difference} of {scale}");
            let difference = largest_difference(&found, &looked_up);
            let exact = form.layout().symmetric || dialect == Dialect::Portable;
            assert!(difference <= if exact { 0.0 } else { 1e-6 * scale }, "{form:?}, {dialect:?}: {difference}");
            let most = if dialect == Dialect::Portable { 4.1 } else { 1.7 };
            assert!(bytes as f64 <= most * (ROWS * COLUMNS) as f64, "{form:?}, {dialect:?}: {bytes} bytes");
        }
    }
}
