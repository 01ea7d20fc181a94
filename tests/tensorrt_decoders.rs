//! Decoders of this library, lowered for TensorRT: attention with a cache, rotary positions and 4-bit block-quantized
//! weights. The lowered graph equals ONNX Runtime's own operators, and TensorRT-RTX builds it.

mod support;

use optimize::call::Call;
use optimize::graph::edit::{float_tensor, int_attribute, node, tensor, untyped, value};
use optimize::model::Model;
use optimize::onnx::dtype::DataType::{self, Float32, Int32, Int64};
use optimize::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto, attribute_kind,
};
use optimize::open;
use optimize::quantize::{QuantizeOptions, QuantizeType, quantize};
use optimize::runtime::{Session, SessionOptions, Tensor};
use optimize::source::{Dialect, LoadOptions};
use optimize::tensorrt::{self, Choice, Precision, TensorRtOptions, parse_dimensions};
use std::path::Path;
use support::{deps, lacks, runtime, scratch};

const SIZE: i64 = 32;

fn options(precision: Precision) -> TensorRtOptions {
    TensorRtOptions {
        precision,
        backend: Choice::TensorRtRtx,
        library: (!lacks("tensorrt-rtx")).then(|| deps("tensorrt-rtx")),
        batch_size: 1,
        threads: 1,
        ..TensorRtOptions::default()
    }
}

fn float_attribute(name: &str, value: f32) -> AttributeProto {
    let kind = Some(attribute_kind::FLOAT);
    AttributeProto { name: Some(name.into()), kind, f: Some(value), ..Default::default() }
}

fn contrib(node: NodeProto, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto { domain: Some("com.microsoft".into()), name: Some("it".into()), attribute, ..node }
}

/// Returns pseudorandom numbers.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 1.5
    };
    (0..count).map(|_| next()).collect()
}

fn floats(dims: &[i64], seed: u64) -> Tensor {
    Tensor::from_f32(dims, noise(dims.iter().product::<i64>() as usize, seed)).unwrap()
}

fn model(
    opset: i64,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    input: Vec<ValueInfoProto>,
    outputs: &[&str],
) -> Model {
    let import = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.into()),
        version: Some(version),
        ..Default::default()
    };
    let graph = GraphProto {
        name: Some("alone".into()),
        node: nodes,
        initializer: constants,
        input,
        output: outputs.iter().map(|name| untyped(name)).collect(),
        ..Default::default()
    };
    Model::from_proto(ModelProto {
        ir_version: Some(10),
        opset_import: vec![import("", opset), import("com.microsoft", 1)],
        graph: Some(Box::new(graph)),
        ..Default::default()
    })
}

fn lowered(model: &Model) -> Model {
    let (graph, _) = tensorrt::graph(Some(runtime()), model, &options(Precision::Fp32), &Call::default()).unwrap();
    assert!(graph.graph().node.iter().all(|n| matches!(n.domain.as_deref(), None | Some(""))));
    graph
}

fn run(model: &Model, inputs: &[(&str, Tensor)]) -> Vec<Tensor> {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let session = Session::new(runtime(), model, &options, &Call::default()).unwrap();
    let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    session.run(&feed, &[], &Call::default()).unwrap().into_iter().map(|(_, tensor)| tensor).collect()
}

/// Checks the largest difference of two tensors, relative to the largest number. `counts` gives the number of columns
/// of a tensor `[.., columns, size]` to compare in each row; without it, the whole tensor is compared.
fn near(what: &str, a: &Tensor, b: &Tensor, counts: Option<&[i64]>) {
    assert_eq!(a.shape(), b.shape(), "{what}");
    let (left, right) = (a.to_f32_vec().unwrap(), b.to_f32_vec().unwrap());
    let (batch, all) = (a.shape()[0] as usize, left.len());
    let (columns, size) = (a.shape()[a.shape().len() - 2] as usize, a.shape()[a.shape().len() - 1] as usize);
    let counted = |at: usize| counts.is_none_or(|c| ((at / size % columns) as i64) < c[at / (all / batch)]);
    let most = left.iter().enumerate().filter(|(at, _)| counted(*at)).fold(0f32, |most, (_, v)| most.max(v.abs()));
    let far = left.iter().zip(&right).enumerate().filter(|(at, _)| counted(*at));
    let far = far.map(|(_, (a, b))| (a - b).abs()).fold(0f32, f32::max);
    assert!(most > 0.1 && far <= 1e-5 * most, "{what}: {far:e} of {most}");
}

/// The sizes and options of one `GroupQueryAttention`.
#[derive(Clone, Copy)]
struct Grouped {
    heads: (i64, i64),
    packed: bool,
    rotary: Option<(i64, bool)>,
    window: i64,
    cap: f32,
    scale: f32,
}

const PLAIN: Grouped =
    Grouped { heads: (4, 2), packed: false, rotary: Some((SIZE, false)), window: -1, cap: 0.0, scale: 0.0 };

fn cache(name: &str, heads: i64, tokens: &str) -> ValueInfoProto {
    let mut info = value(name, Float32, 4);
    let shape = info.value_type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape.as_mut().unwrap();
    (shape.dim[1].dim_value, shape.dim[3].dim_value) = (Some(heads), Some(SIZE));
    shape.dim[0].dim_param = Some("batch".into());
    shape.dim[2].dim_param = Some(tokens.into());
    info
}

impl Grouped {
    fn model(&self) -> Model {
        let (many, few) = self.heads;
        let mut inputs = vec!["q", if self.packed { "" } else { "k" }, if self.packed { "" } else { "v" }];
        inputs.extend(["past_k", "past_v", "lengths", "total"]);
        let mut attributes = vec![int_attribute("num_heads", many), int_attribute("kv_num_heads", few)];
        attributes.push(int_attribute("local_window_size", self.window));
        attributes.extend([float_attribute("softcap", self.cap), float_attribute("scale", self.scale)]);
        let mut constants = Vec::new();
        if let Some((width, interleaved)) = self.rotary {
            inputs.extend(["cos", "sin"]);
            attributes.extend([int_attribute("do_rotary", 1), int_attribute("rotary_interleaved", interleaved.into())]);
            let half = width / 2;
            let angles: Vec<f32> =
                (0..64 * half).map(|at| (at / half) as f32 / 10f32.powf((at % half) as f32 / 3.0)).collect();
            let table = |name: &str, of: fn(f32) -> f32| {
                float_tensor(name, &[64, half], &angles.iter().map(|a| of(*a)).collect::<Vec<f32>>())
            };
            constants = vec![table("cos", f32::cos), table("sin", f32::sin)];
        }
        let mut given = vec![value("q", Float32, 3)];
        if !self.packed {
            given.extend([value("k", Float32, 3), value("v", Float32, 3)]);
        }
        given.extend([cache("past_k", few, "past"), cache("past_v", few, "past")]);
        given.extend([value("lengths", Int32, 1), value("total", Int32, 1)]);
        let it = contrib(node("GroupQueryAttention", &inputs, &["y", "key", "value"]), attributes);
        model(17, vec![it], constants, given, &["y", "key", "value"])
    }

    /// Returns `count` new tokens after a past of `room` columns; `lengths` includes the new ones.
    fn inputs(&self, count: i64, room: i64, lengths: &[i64], total: i64) -> Vec<(&'static str, Tensor)> {
        let (batch, (many, few)) = (lengths.len() as i64, self.heads);
        let mut inputs = if self.packed {
            vec![("q", floats(&[batch, count, (many + 2 * few) * SIZE], 1))]
        } else {
            let (q, kv) = ([batch, count, many * SIZE], [batch, count, few * SIZE]);
            vec![("q", floats(&q, 1)), ("k", floats(&kv, 2)), ("v", floats(&kv, 3))]
        };
        let past = [batch, few, room, SIZE];
        let less = lengths.iter().map(|length| *length as i32 - 1).collect();
        inputs.extend([("past_k", floats(&past, 4)), ("past_v", floats(&past, 5))]);
        inputs.push(("lengths", Tensor::from_vec(&[batch], less).unwrap()));
        inputs.push(("total", Tensor::from_vec(&[1], vec![total as i32]).unwrap()));
        inputs
    }
}

#[test]
fn grouped_attention_is_what_onnx_runtime_makes_of_it() {
    let forms = [
        ("plain", PLAIN),
        ("packed", Grouped { packed: true, ..PLAIN }),
        ("interleaved", Grouped { rotary: Some((SIZE, true)), ..PLAIN }),
        ("in part", Grouped { rotary: Some((SIZE / 2, false)), heads: (4, 1), ..PLAIN }),
        ("unrotated", Grouped { rotary: None, scale: 0.3, heads: (4, 4), ..PLAIN }),
        ("window", Grouped { window: 3, ..PLAIN }),
        ("cap", Grouped { cap: 2.0, scale: 0.8, ..PLAIN }),
    ];
    // Each case has a name, the number of new tokens, the columns of the past, the tokens of each row including the new
    // ones, and the total number of columns.
    let shapes: [(&str, i64, i64, &[i64], i64); 8] = [
        ("a prompt", 7, 0, &[7], 7),
        ("two prompts", 5, 0, &[5, 5], 5),
        ("prompts of different lengths", 6, 0, &[6, 4], 6),
        ("one token", 1, 9, &[10], 10),
        ("one token for two rows", 1, 6, &[7, 7], 7),
        ("rows of different lengths", 1, 6, &[7, 4], 7),
        ("several tokens after a past", 3, 5, &[8], 8),
        ("a past with more room than tokens", 1, 12, &[9], 9),
    ];
    for (name, form) in forms {
        let own = form.model();
        let low = lowered(&own);
        for (shape, count, room, lengths, total) in shapes {
            let what = format!("{name}, {shape}");
            let inputs = form.inputs(count, room, lengths, total);
            let (a, b) = (run(&own, &inputs), run(&low, &inputs));
            // The results for padding after a prompt are undefined.
            near(&what, &a[0], &b[0], (room == 0).then_some(lengths));
            near(&format!("{what}: keys"), &a[1], &b[1], Some(lengths));
            near(&format!("{what}: values"), &a[2], &b[2], Some(lengths));
        }
    }
}

#[test]
fn grouped_attention_that_is_not_lowered_says_why() {
    let mut proto = PLAIN.model().proto().clone();
    proto.graph.as_mut().unwrap().node[0].attribute.push(int_attribute("smooth_softmax", 1));
    let model = Model::from_proto(proto);
    let error = tensorrt::graph(None, &model, &options(Precision::Fp32), &Call::default()).err().unwrap();
    assert_eq!(error.kind(), optimize::error::Kind::Unsupported);
    assert!(error.message().contains("com.microsoft.GroupQueryAttention (node \"it\": it has"), "{error}");
}

fn tables(dims: &[i64]) -> Vec<TensorProto> {
    let angles = noise(dims.iter().product::<i64>() as usize, 9);
    let of =
        |name: &str, f: fn(f32) -> f32| float_tensor(name, dims, &angles.iter().map(|a| f(*a)).collect::<Vec<f32>>());
    vec![of("cos", f32::cos), of("sin", f32::sin)]
}

#[test]
fn rotary_positions_are_what_onnx_runtime_makes_of_them() {
    let given = |rank| vec![value("x", Float32, rank), value("positions", Int64, 2)];
    let positions = Tensor::from_i64(&[2, 5], vec![0, 1, 2, 3, 4, 7, 8, 9, 10, 11]).unwrap();
    for interleaved in [0, 1] {
        let attributes = vec![int_attribute("interleaved", interleaved), int_attribute("num_heads", 3)];
        let inputs = ["x", "positions", "cos", "sin"];
        let own = contrib(node("RotaryEmbedding", &inputs, &["y"]), attributes.clone());
        let own = model(17, vec![own], tables(&[32, 8]), given(3), &["y"]);
        let inputs = [("x", floats(&[2, 5, 48], 1)), ("positions", positions.clone())];
        near("of ONNX Runtime", &run(&own, &inputs)[0], &run(&lowered(&own), &inputs)[0], None);

        let mut own = node("RotaryEmbedding", &["x", "cos", "sin", "positions"], &["y"]);
        own.attribute = attributes[..1].to_vec();
        let own = model(23, vec![own], tables(&[32, 8]), given(4), &["y"]);
        let inputs = [("x", floats(&[2, 3, 5, 16], 1)), ("positions", positions.clone())];
        near("of the standard", &run(&own, &inputs)[0], &run(&lowered(&own), &inputs)[0], None);
    }
}

#[test]
fn attention_of_the_standard_and_of_many_heads_is_what_onnx_runtime_makes_of_it() {
    let past = [floats(&[2, 2, 4, SIZE], 4), floats(&[2, 2, 4, SIZE], 5)];
    let mut own = node("Attention", &["q", "k", "v", "", "pk", "pv"], &["y", "key", "value"]);
    own.attribute = vec![int_attribute("is_causal", 1)];
    let given = ["q", "k", "v", "pk", "pv"].map(|name| match name {
        "q" => cache("q", 4, "new"),
        "k" | "v" => cache(name, 2, "new"),
        _ => cache(name, 2, "past"),
    });
    let own = model(23, vec![own], vec![], given.to_vec(), &["y", "key", "value"]);
    let inputs = [
        ("q", floats(&[2, 4, 3, SIZE], 1)),
        ("k", floats(&[2, 2, 3, SIZE], 2)),
        ("v", floats(&[2, 2, 3, SIZE], 3)),
        ("pk", past[0].clone()),
        ("pv", past[1].clone()),
    ];
    for (at, (a, b)) in run(&own, &inputs).iter().zip(run(&lowered(&own), &inputs)).enumerate() {
        near(&format!("Attention, output {at}"), a, &b, None);
    }
    let attributes = vec![int_attribute("num_heads", 2), int_attribute("unidirectional", 1)];
    let own = contrib(node("MultiHeadAttention", &["q", "k", "v", "", "mask"], &["y"]), attributes);
    let given = ["q", "k", "v"].map(|name| value(name, Float32, 3)).into_iter().chain([value("mask", Int32, 2)]);
    let own = model(17, vec![own], vec![], given.collect(), &["y"]);
    let inputs = [
        ("q", floats(&[2, 5, 32], 1)),
        ("k", floats(&[2, 5, 32], 2)),
        ("v", floats(&[2, 5, 32], 3)),
        ("mask", Tensor::from_vec(&[2, 5], vec![1i32, 1, 1, 1, 1, 1, 1, 1, 0, 0]).unwrap()),
    ];
    near("MultiHeadAttention", &run(&own, &inputs)[0], &run(&lowered(&own), &inputs)[0], None);
}

#[test]
fn blocks_of_the_standard_become_numbers() {
    let codes: Vec<u8> = (0..64 * 8 / 2).map(|at| (at * 37 % 251) as u8).collect();
    let zeros: Vec<u8> = (0..8).map(|at| (at * 53 % 256) as u8).collect();
    let scales: Vec<f32> = noise(16, 3).iter().map(|s| s.abs() + 0.1).collect();
    for (dtype, axis, of) in [(DataType::Uint4, 0, [2, 8]), (DataType::Int4, 1, [8, 2])] {
        let dims = if axis == 0 { [64, 8] } else { [8, 64] };
        let constants = vec![
            tensor("codes", dtype, &dims, codes.clone().into()),
            float_tensor("scales", &of, &scales),
            tensor("zeros", dtype, &of, zeros.clone().into()),
        ];
        let mut made = node("DequantizeLinear", &["codes", "scales", "zeros"], &["w"]);
        made.attribute = vec![int_attribute("axis", axis), int_attribute("block_size", 32)];
        let nodes = vec![made, node("Mul", &["x", "w"], &["y"])];
        // A Mul reads the weight, because ONNX Runtime would convert a MatMul to a MatMulNBits, which quantizes
        // activations.
        let own = model(21, nodes, constants, vec![value("x", Float32, 2)], &["y"]);
        let low = lowered(&own);
        assert_eq!(low.graph().node.len(), 1);
        let inputs = [("x", floats(&dims, 1))];
        near("blocks", &run(&own, &inputs)[0], &run(&low, &inputs)[0], None);
    }
}

fn four_bits(model: &Model) -> Model {
    let blocks = QuantizeOptions { quantize_type: QuantizeType::WeightOnly, bits: 4, threads: 1, ..Default::default() };
    quantize(model, &blocks, &Call::default()).unwrap().0
}

#[test]
fn decoders_of_our_own_and_of_four_bits_are_built() {
    let folder = scratch("tensorrt-own-decoders");
    for name in ["llama", "gemma2", "qwen3"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name);
        let own = open::load(&path, &LoadOptions { dialect: Dialect::Runtime }).unwrap();
        assert!(own.graph().node.iter().any(|node| node.op() == "GroupQueryAttention"), "{name}");
        for (kind, model) in [("float", own.clone()), ("4 bits", four_bits(&own))] {
            for precision in [Precision::Fp32, Precision::Fp16] {
                let ranges = parse_dimensions("sequence=1:8:16,past=0:16:32").unwrap();
                let options = TensorRtOptions { dimensions: ranges, ..options(precision) };
                let (_, report) = tensorrt::graph(Some(runtime()), &model, &options, &Call::default())
                    .unwrap_or_else(|e| panic!("{name}, {kind}, {}: {e}", precision.name()));
                assert!(report.nodes.iter().all(|n| n.op != "Softmax" || n.action == tensorrt::KEPT));
                if !lacks("tensorrt-rtx") {
                    let built =
                        tensorrt::build(Some(runtime()), &model, &folder.join("d.engine"), &options, &Call::default());
                    let built = built.unwrap_or_else(|e| panic!("{name}, {kind}, {}: {e}", precision.name()));
                    println!("{name}, {kind}, {}: {}", precision.name(), built.summary["error"]);
                }
            }
        }
    }
}

#[test]
fn an_encoder_of_four_bits_is_built_and_its_error_is_against_itself() {
    let model = four_bits(&Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap());
    let has = |op: &str| model.graph().node.iter().any(|node| node.op() == op);
    assert!(has("MatMulNBits") && has("GatherBlockQuantized"));
    let sized = |precision| TensorRtOptions { sequence_length: 16, ..options(precision) };
    let (graph, _) = tensorrt::graph(None, &model, &sized(Precision::Fp32), &Call::default()).unwrap();
    assert!(graph.graph().node.iter().all(|n| matches!(n.domain.as_deref(), None | Some(""))));
    let folder = scratch("tensorrt-four-bits");
    for precision in [Precision::Fp32, Precision::Fp16] {
        let (_, report) = tensorrt::graph(Some(runtime()), &model, &sized(precision), &Call::default()).unwrap();
        if precision == Precision::Fp16 {
            let relative = report.summary["error"]["relative"].as_f64().unwrap();
            assert!(relative > 0.0 && relative <= 0.01, "{relative}");
        }
        if !lacks("tensorrt-rtx") {
            let at = folder.join("e.engine");
            let built = tensorrt::build(Some(runtime()), &model, &at, &sized(precision), &Call::default()).unwrap();
            println!("MiniLM-L3 of 4 bits, {}: {}", precision.name(), built.summary["error"]);
        }
    }
}
