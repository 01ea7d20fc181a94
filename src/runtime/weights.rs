//! The passing of a model to ONNX Runtime from memory, without files that it would have to open.
//!
//! ONNX Runtime receives an encoded model in which large weights (see [`parts`]) are external references, and for each
//! of them a value that reads the bytes in place, usually in the mapped file. So it never opens a file that an
//! untrusted model names, and models above protobuf's limit of 2 GiB are passed in the same way.
//!
//! ONNX Runtime copies the weights while it creates the session (1.32 does; constant folding and fusions see the
//! weights as if they were in the model), so the pages of the file are released afterwards. The other call for sharing
//! weights, `AddInitializer`, would not copy, but gives wrong results: it replaces a weight that an optimizer has
//! transposed under the same name with the original.

use super::mapped::{self, Lent};
use super::rounding;
use super::tensor::{aligned_copy, is_aligned};
use crate::error::{Result, bail};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{EXTERNAL, GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use crate::onnx::save;
use crate::{files, limits};
use bytes::Bytes;
use ort::session::builder::SessionBuilder;
use std::collections::HashSet;

/// The size in bytes below which weights stay in the encoded model: ONNX Runtime reads shapes and axes from them.
const LENT_FROM: usize = 4096;
/// The file name in external references. No file with this name is ever opened.
const NOWHERE: &str = "weights-are-in-memory";

/// The two parts in which ONNX Runtime receives a model.
pub struct Parts {
    /// Encoded model without its large weights.
    pub stub: Vec<u8>,
    /// Large weights of the model, with their names.
    pub lent: Vec<(String, Lent)>,
}

/// Splits a model into the encoded graph and its large weights, and returns both. Large weights are initializers of the
/// main graph of at least [`LENT_FROM`] bytes that are aligned, used, and of a type of which ONNX Runtime accepts
/// values. `round_activations` and `in_place` have the meanings of [`super::SessionOptions`] and of [`give`].
///
/// Fails with [`crate::error::Kind::LimitExceeded`] if the encoded graph is above protobuf's limit.
pub fn parts(model: &Model, round_activations: bool, in_place: bool) -> Result<Parts> {
    let mut stub: ModelProto = model.proto().clone();
    if round_activations {
        rounding::round_activations(&mut stub);
    }
    let mut lent = Vec::new();
    let mut misaligned = 0;
    // ONNX Runtime drops unused initializers before it looks for the given values, and then reports them as missing.
    let mut used = HashSet::new();
    names_used(model.graph(), &mut used);
    for tensor in stub.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        if !tensor.name.as_deref().is_some_and(|name| used.contains(name)) {
            continue;
        }
        let Some((dtype, bytes)) = lendable(tensor, &mut misaligned) else { continue };
        // This version of ONNX Runtime may not accept values of the type, although it accepts the type in a model.
        let Ok(value) = mapped::lend(dtype, &tensor.dims, bytes) else { continue };
        refer_to(tensor, if in_place { files::always_empty().1 } else { NOWHERE });
        lent.push((tensor.name.clone().unwrap_or_default(), value));
    }
    let segments = save::encode(&stub);
    let length: u64 = segments.iter().map(|s| s.len() as u64).sum();
    if length > limits::MODEL_PROTO_BYTES {
        bail!(
            LimitExceeded,
            "{length} bytes of the model are outside of large initializers; the limit of protobuf is 2 GiB"
        );
    }
    Ok(Parts { stub: segments.concat(), lent })
}

/// Adds the names that nodes of a graph and of its subgraphs read, and the names of its outputs, to `used`.
fn names_used<'a>(graph: &'a GraphProto, used: &mut HashSet<&'a str>) {
    used.extend(graph.output.iter().filter_map(|output| output.name.as_deref()));
    for node in &graph.node {
        used.extend(node.input.iter().map(String::as_str));
        for attribute in &node.attribute {
            attribute.g.iter().map(|g| &**g).chain(&attribute.graphs).for_each(|inner| names_used(inner, used));
        }
    }
}

/// Returns the type and the bytes of a weight that ONNX Runtime can read through a value; `None` for a weight that must
/// stay in the encoded model.
///
/// Kernels require aligned elements. Weights inside an `.onnx` file may be unaligned: they stay in the encoded model,
/// and ONNX Runtime copies them while it loads the model. `misaligned` counts their bytes. Above
/// [`limits::INLINE_WEIGHT_BYTES`], where the encoded model would become too large, aligned copies are returned.
fn lendable(tensor: &TensorProto, misaligned: &mut u64) -> Option<(DataType, Bytes)> {
    let dtype = DataType::from_onnx(tensor.data_type?).filter(|dtype| *dtype != DataType::String)?;
    let bytes = tensor.raw_data.as_ref().filter(|raw| raw.len() >= LENT_FROM)?;
    if is_aligned(bytes, dtype) {
        return Some((dtype, bytes.clone()));
    }
    *misaligned += bytes.len() as u64;
    (*misaligned > limits::INLINE_WEIGHT_BYTES).then(|| (dtype, aligned_copy(bytes)))
}

fn refer_to(tensor: &mut TensorProto, name: &'static str) {
    tensor.raw_data = None;
    tensor.data_location = Some(EXTERNAL);
    tensor.external_data = vec![StringStringEntryProto {
        key: Some("location".to_owned()),
        value: Some(Bytes::from_static(name.as_bytes())),
        ..Default::default()
    }];
}

/// Passes the weights to a session builder, and returns the builder and the bytes of the weights. The bytes must
/// outlive the session: ONNX Runtime copies the weights in practice, but does not guarantee it.
///
/// With `in_place`, the weights are not copied; this is for graphs that no optimizer will change. Fails with `Runtime`
/// if ONNX Runtime refuses a weight.
pub fn give(
    mut builder: SessionBuilder,
    lent: Vec<(String, Lent)>,
    in_place: bool,
) -> Result<(SessionBuilder, Vec<Bytes>)> {
    let mut kept = Vec::with_capacity(lent.len());
    if in_place {
        // Weights that are not copied require an existing file in a configured folder, although it is not read.
        let folder = files::always_empty().0;
        builder = builder.with_config_entry("session.model_external_initializers_file_folder_path", folder)?;
    }
    for (name, Lent { value, bytes }) in lent {
        builder = match in_place {
            true => builder.with_initializer(&name, value)?,
            false => builder.with_external_initializer(&name, value)?,
        };
        kept.push(bytes);
    }
    Ok((builder, kept))
}

/// Releases the pages of the mapped weights that were read while a session was created; see [`files::release`].
pub fn release(model: &Model) {
    let weights = model.graph().initializer.iter().filter_map(|tensor| tensor.raw_data.as_ref());
    weights.filter(|raw| raw.len() >= LENT_FROM).for_each(|raw| files::release(raw));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;
    use crate::onnx::proto::{AttributeProto, NodeProto};
    use crate::runtime::testing::*;
    use crate::runtime::{Session, SessionOptions, Tensor, test_deps, test_runtime};
    use std::path::PathBuf;

    fn run(model: &Model, options: &SessionOptions, inputs: &[(&str, &Tensor)]) -> Vec<(String, Tensor)> {
        let session = Session::new(test_runtime(), model, options, &Call::default()).unwrap();
        session.run(inputs, &[], &Call::default()).unwrap()
    }

    /// Returns the operators of the graph after ONNX Runtime's optimization.
    fn optimized(name: &str, model: &Model, inputs: &[(&str, &Tensor)]) -> (Vec<String>, Vec<(String, Tensor)>) {
        let file: PathBuf = std::env::temp_dir().join(format!("optimize-weights-{}-{name}.onnx", std::process::id()));
        let options = SessionOptions { optimized_model: Some(file.clone()), ..SessionOptions::default() };
        let outputs = run(model, &options, inputs);
        let operators = Model::load(&file).unwrap().graph().node.iter().filter_map(|n| n.op_type.clone()).collect();
        std::fs::remove_file(&file).unwrap();
        (operators, outputs)
    }

    fn typed(name: &str, dtype: DataType, dims: &[i64], bytes: Vec<u8>) -> TensorProto {
        let mut tensor = weight(name, dims, &[]);
        tensor.data_type = Some(dtype.to_onnx());
        tensor.raw_data = Some(Bytes::from(bytes));
        tensor
    }

    fn permuted(mut node: NodeProto, order: &[i64]) -> NodeProto {
        let name = Some("perm".to_owned());
        node.attribute = vec![AttributeProto { name, ints: order.to_vec(), kind: Some(7), ..Default::default() }];
        node
    }

    #[test]
    fn a_real_model_gives_the_same_bits_as_when_it_is_loaded_whole() {
        test_runtime();
        let model = Model::load(&test_deps("models/paraphrase-MiniLM-L3-v2/model.onnx")).unwrap();
        assert!(!parts(&model, false, false).unwrap().lent.is_empty());
        let ids = Tensor::from_i64(&[2, 9], (0..18).map(|i| 1000 + 37 * i).collect()).unwrap();
        let mask = Tensor::from_i64(&[2, 9], vec![1; 18]).unwrap();
        let inputs = [("input_ids", &ids), ("attention_mask", &mask)];
        let ours = run(&model, &SessionOptions::default(), &inputs);
        // In this copy of the model, every weight is too misaligned to be lent.
        let mut whole = model.proto().clone();
        for tensor in &mut whole.graph.as_mut().unwrap().initializer {
            if let Some(raw) = &tensor.raw_data {
                let shifted = aligned_copy(&[&[0], &raw[..]].concat());
                tensor.raw_data = Some(shifted.slice(1..));
            }
        }
        let whole = Model::from_proto(whole);
        assert!(parts(&whole, false, false).unwrap().lent.is_empty());
        let theirs = run(&whole, &SessionOptions::default(), &inputs);
        assert_eq!(ours.len(), theirs.len());
        for (a, b) in ours.iter().zip(&theirs) {
            assert_eq!((&a.0, a.1.bytes()), (&b.0, b.1.bytes()));
        }
    }

    #[test]
    fn quantized_products_are_fused_all_the_same() {
        test_runtime();
        let quantize = NodeProto {
            output: vec!["xq".into(), "xs".into(), "xz".into()],
            ..node("DynamicQuantizeLinear", &["x"], "")
        };
        let cast = AttributeProto { name: Some("to".into()), i: Some(1), kind: Some(2), ..Default::default() };
        let nodes = vec![
            quantize,
            node("MatMulInteger", &["xq", "w", "xz", "wz"], "p"),
            NodeProto { attribute: vec![cast], ..node("Cast", &["p"], "pf") },
            node("Mul", &["xs", "ws"], "scale"),
            node("Mul", &["pf", "scale"], "y"),
        ];
        let mut graph = graph(nodes, vec![value("x", 1, &["n", "64"])], vec![value("y", 1, &["n", "96"])]);
        let weights: Vec<u8> = (0..64 * 96u32).map(|i| (i * 7) as u8).collect();
        graph.initializer = vec![
            typed("w", DataType::Int8, &[64, 96], weights),
            typed("wz", DataType::Int8, &[], vec![0]),
            weight("ws", &[], &[0.01]),
        ];
        let x = Tensor::from_f32(&[3, 64], (0..192).map(|i| (i as f32).sin()).collect()).unwrap();
        let model = Model::from_proto(model(graph));
        assert_eq!(parts(&model, false, false).unwrap().lent.len(), 1);
        let (operators, _) = optimized("fused", &model, &[("x", &x)]);
        assert_eq!(operators, ["DynamicQuantizeMatMul"]);
    }

    #[test]
    fn a_weight_that_an_optimizer_transposes_in_place_stays_right() {
        let nodes = vec![
            permuted(node("Transpose", &["x"], "xt"), &[0, 2, 1]),
            node("Add", &["xt", "w"], "s"),
            permuted(node("Transpose", &["s"], "st"), &[0, 2, 1]),
            node("Relu", &["st"], "y"),
        ];
        let shape = ["1", "40", "40"];
        let mut graph = graph(nodes, vec![value("x", 1, &shape)], vec![value("y", 1, &shape)]);
        let values: Vec<f32> = (0..1600).map(|i| i as f32).collect();
        graph.initializer = vec![weight("w", &[1, 40, 40], &values)];
        let x = Tensor::from_f32(&[1, 40, 40], vec![0.0; 1600]).unwrap();
        let (operators, outputs) = optimized("transposed", &Model::from_proto(model(graph)), &[("x", &x)]);
        assert_eq!(operators, ["Add", "Relu"]);
        let transposed: Vec<f32> = (0..1600).map(|i| (i % 40 * 40 + i / 40) as f32).collect();
        assert_eq!(outputs[0].1.as_slice::<f32>().unwrap(), transposed);
    }

    #[test]
    fn weights_that_nothing_or_only_a_subgraph_uses_are_no_obstacle() {
        test_runtime();
        let branch = |op: &str| {
            let body = graph(vec![node(op, &["w"], "r")], vec![], vec![value("r", 1, &["2048"])]);
            Some(Box::new(body))
        };
        let attribute = |name: &str, op: &str| AttributeProto {
            name: Some(name.to_owned()),
            g: branch(op),
            kind: Some(5),
            ..Default::default()
        };
        let attributes = vec![attribute("then_branch", "Neg"), attribute("else_branch", "Abs")];
        let choose = NodeProto { attribute: attributes, ..node("If", &["c"], "y") };
        let mut graph = graph(vec![choose], vec![value("c", 9, &[])], vec![value("y", 1, &["2048"])]);
        graph.initializer = vec![weight("w", &[2048], &[2.0; 2048]), weight("unused", &[2048], &[1.0; 2048])];
        let model = Model::from_proto(model(graph));
        assert_eq!(parts(&model, false, false).unwrap().lent.len(), 1, "what nothing uses is not lent");
        let yes = Tensor::from_bools(&[], &[true]).unwrap();
        let outputs = run(&model, &SessionOptions::default(), &[("c", &yes)]);
        assert_eq!(outputs[0].1.as_slice::<f32>().unwrap(), [-2.0; 2048]);
    }

    #[test]
    fn weights_of_every_type_arrive() {
        let types = [
            (DataType::Float16, 8192),
            (DataType::Bfloat16, 8192),
            (DataType::Int4, 2048),
            (DataType::Uint4, 2048),
            (DataType::Float8E4m3fn, 4096),
            (DataType::Int64, 32768),
            (DataType::Bool, 4096),
        ];
        for (dtype, size) in types {
            let bytes: Vec<u8> = (0..2 * size as u32).map(|i| (i % 2) as u8).collect();
            let count = bytes.len() as i64 * 8 / i64::from(dtype.bits());
            let shape = [count.to_string()];
            let shape: Vec<&str> = shape.iter().map(String::as_str).collect();
            let mut graph = graph(
                vec![node("Neg", &["x"], "z")],
                vec![value("x", 1, &["n"])],
                vec![value("w", dtype.to_onnx(), &shape), value("z", 1, &["n"])],
            );
            graph.initializer = vec![typed("w", dtype, &[count], bytes.clone())];
            let mut proto = model(graph);
            (proto.ir_version, proto.opset_import[0].version) = (Some(10), Some(21));
            let x = Tensor::from_f32(&[1], vec![1.0]).unwrap();
            let outputs = run(&Model::from_proto(proto), &SessionOptions::default(), &[("x", &x)]);
            assert_eq!((outputs[0].1.dtype(), outputs[0].1.bytes()), (dtype, &bytes[..]));
        }
    }
}
