//! The variants compiled for this library's kernels. Groups of nodes that these kernels compute become single
//! `EPContext` nodes, whose packed weights are in a file that sessions map.

use super::check::{self, Check};
use super::manifest::{CompiledGraph, PACKED, Variant};
use super::options::BF16;
use super::variants::{self, Made, Wanted};
use crate::call::Call;
use crate::error::{Context, Result};
use crate::files::{self, ScratchFolder};
use crate::inputs::is_past;
use crate::model::contract::{Contract, Size};
use crate::model::{Model, Prepared};
use crate::onnx::proto::{DimensionProto, ModelProto, NodeProto};
use crate::onnx::save::weight_bytes;
use crate::runtime::{Runtime, Session, SessionOptions, SessionPrecision};
use crate::{limits, provider};
use bytes::Bytes;
use std::path::Path;

/// The execution provider of these variants.
pub const PROVIDER: &str = "optimize";

/// Returns `made`, the variant `name` of `model`, compiled for this processor, with the content of the file of packed
/// weights. The inner error is the reason why there is no such variant: for example, the model is too large, no node of
/// it is faster with the kernels, or the results differ. The outer error is that of an ended call, or of the temporary
/// folder.
pub fn compile(
    runtime: &'static Runtime,
    (model, made): (&Model, &Model),
    name: &str,
    wanted: &Wanted<'_>,
    call: &Call,
) -> Result<std::result::Result<(Made, Bytes), String>> {
    if weight_bytes(made.proto()) > limits::INLINE_WEIGHT_BYTES {
        return Ok(Err("the model is too large".to_owned()));
    }
    let folder = ScratchFolder::new("compiled")?;
    let path = folder.path().join("model.onnx");
    let precision = if name == BF16 { SessionPrecision::Bf16 } else { SessionPrecision::Fp32 };
    let of_fixed_sizes = match sized(made, wanted.contract) {
        Some(sized) => written(runtime, &sized, precision, &path, call),
        None => Ok(None),
    };
    let done = match of_fixed_sizes {
        Ok(Some(both)) => Ok(Some(both)),
        Err(e) if e.kind().ends_a_call() => Err(e),
        // If compiling with fixed sizes fails, for example because the graph declares others, the graph is compiled
        // unchanged.
        _ => written(runtime, made, precision, &path, call),
    };
    let (graph, weights) = match done {
        Err(e) if e.kind().ends_a_call() => return Err(e),
        Err(e) => return Ok(Err(e.to_string())),
        Ok(None) => return Ok(Err("no node of the model is faster with this library's kernels".to_owned())),
        Ok(Some(both)) => both,
    };
    // The compiled graph is run as sessions of the package run it, with its packed weights mapped from the file.
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let prepared = Prepared { name: "session".to_owned(), model: graph.clone(), ahead: true, compiled: Some(path) };
    let session = Session::open_prepared(runtime, &prepared, &options, call);
    let check = match check::compare_compiled(runtime, (model, made), session, wanted.example, call)? {
        Ok(check) => check,
        Err(why) => return Ok(Err(why)),
    };
    let variant = variant(runtime, name, check);
    Ok(Ok((Made { variant, model: graph, report: None }, weights)))
}

/// Returns `made` with the input sizes that `contract` fixes. ONNX Runtime then folds the shapes that depend on them
/// into constants, and the graph has fewer nodes. Returns `None` if the contract fixes no dimension that the model
/// leaves open, and for a model with a KV cache, whose sizes grow.
fn sized(made: &Model, contract: &Contract) -> Option<Model> {
    let mut proto = made.proto().clone();
    let graph = proto.graph.as_deref_mut()?;
    if graph.input.iter().filter_map(|input| input.name.as_deref()).any(is_past) {
        return None;
    }
    let mut changed = false;
    for input in &mut graph.input {
        let promised = contract.inputs.iter().find(|promised| input.name.as_ref() == Some(&promised.name));
        let tensor = input.value_type.as_deref_mut().and_then(|value| value.tensor_type.as_deref_mut());
        let shape = tensor.and_then(|tensor| tensor.shape.as_deref_mut());
        let (Some(shape), Some(sizes)) = (shape, promised.and_then(|promised| promised.dims.as_ref())) else {
            continue;
        };
        for (dim, size) in shape.dim.iter_mut().zip(sizes) {
            if let (None, Size::Fixed(size)) = (dim.dim_value, size) {
                *dim = DimensionProto { dim_value: Some(*size), ..Default::default() };
                changed = true;
            }
        }
    }
    graph.value_info.clear();
    changed.then(|| made.derive(proto))
}

fn variant(runtime: &Runtime, name: &str, check: Check) -> Variant {
    let ahead = variants::for_this_machine(runtime, name);
    let name = format!("{name}-compiled");
    let file = format!("model/{name}/model.onnx");
    let compiled = CompiledGraph { weights: format!("{file}{PACKED}"), made_for: provider::compiled_for() };
    // `made_for` names the class of processors. Requiring all extensions of this processor would exclude others of the
    // class.
    let features = Vec::new();
    let (provider, compiled, check) = (PROVIDER.to_owned(), Some(compiled), Some(check));
    Variant { name, file, provider, features, compiled, check, ..ahead }
}

/// Writes the compiled model to `path`, and returns its graph and its packed weights; `None` if the kernels take no
/// group of nodes.
fn written(
    runtime: &'static Runtime,
    made: &Model,
    precision: SessionPrecision,
    path: &Path,
    call: &Call,
) -> Result<Option<(Model, Bytes)>> {
    if Session::compile(runtime, made, precision, path, call)? == 0 {
        return Ok(None);
    }
    let graph = Model::from_file(path)?;
    let mut proto = graph.proto().clone();
    rename(&mut proto);
    let weights = path.with_file_name(format!("model.onnx{PACKED}"));
    let weights = files::map(&files::open(&weights)?, limits::DATA_FILE_BYTES).at(|| weights.display())?;
    Ok(Some((graph.derive(proto), weights)))
}

/// Renames the nodes of the groups to `group_0`, `group_1` and so on, because ONNX Runtime's names contain a hash that
/// differs between runs.
fn rename(proto: &mut ModelProto) {
    let is_group = |node: &&mut NodeProto| node.op_type.as_deref() == Some("EPContext");
    let nodes = proto.graph.iter_mut().flat_map(|graph| &mut graph.node);
    for (index, node) in nodes.filter(is_group).enumerate() {
        let name = format!("group_{index}");
        let texts = node.attribute.iter_mut().filter(|a| a.name.as_deref() == Some("partition_name"));
        texts.for_each(|attribute| attribute.s = Some(Bytes::from(name.clone().into_bytes())));
        node.name = Some(name);
    }
}

/// Returns the reason why a session cannot use a compiled variant on this machine; `None` if it can. `kernels` is `Ok`
/// if this library's kernels can be used, and otherwise the reason why not.
pub fn obstacle(compiled: &CompiledGraph, kernels: &std::result::Result<(), String>) -> Option<String> {
    if let Err(reason) = kernels {
        return Some(reason.clone());
    }
    let here = provider::compiled_for();
    (compiled.made_for != here).then(|| format!("it was compiled for {}; this is {here}", compiled.made_for))
}
