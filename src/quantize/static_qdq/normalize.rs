//! Equivalent changes to a model before ranges are determined, after which ONNX Runtime has integer kernels for more
//! nodes.

use super::bias::{Addend, addend};
use super::select::{self, Role};
use crate::autodiff;
use crate::calibrate::Batch;
use crate::call::Call;
use crate::error::Result;
use crate::graph::View;
use crate::graph::constants::whole_numbers;
use crate::graph::edit::{self, Names};
use crate::model::{Dim, Model};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use crate::onnx::validate::subgraphs;
use crate::quantize::QuantizeOptions;
use crate::quantize::planner::QUANTIZED;
use crate::report::{NodeReport, report_of};
use crate::runtime::{OptimizationLevel, Runtime, Session, SessionOptions};
use crate::verify::{Examiner, Kept};
use std::collections::{HashMap, HashSet};

/// The oldest opset that is converted. Broadcasting is different in older opsets.
const LIFTED: i64 = 7;
/// The maximum difference of a converted model from the original (relative root mean square).
const SAME: f64 = 1e-4;

/// The result of [`normal`].
pub struct Normal {
    /// Rewritten model.
    pub model: Model,
    /// Report entries of removed nodes.
    pub gone: Vec<NodeReport>,
    /// Names of `MatMul` nodes whose input has a fixed shape: ONNX Runtime fuses them with a following `Add` of a
    /// constant.
    pub fixed: HashSet<String>,
}

/// Returns the model converted to an opset that static quantization supports, if its opset is older and the converted
/// model gives nearly the same outputs on `sample`; otherwise `None`. Fails if the model is old enough but does not run
/// on `sample`.
pub fn lifted(model: &Model, sample: &Batch, runtime: &'static Runtime, call: &Call) -> Result<Option<Model>> {
    if !(LIFTED..select::OPSET).contains(&model.opset()) || !model.proto().functions.is_empty() {
        return Ok(None);
    }
    let plain = |node: &NodeProto| subgraphs(node).next().is_none() && node.int("spatial", 1) == 1 && !node.is("Scan");
    if !model.graph().node.iter().all(plain) {
        return Ok(None);
    }
    let mut proto = model.proto().clone();
    if autodiff::upgrade(&mut proto).is_err() {
        return Ok(None);
    }
    let lifted = model.derive(proto);
    let examiner = Examiner::new(runtime, model, sample, 1, Kept::Exactly, call)?;
    let same = |facts: crate::verify::Facts| facts.original_differs.is_none_or(|differs| differs <= SAME);
    Ok(examiner.examine(&lifted, call)?.is_ok_and(same).then_some(lifted))
}

/// Returns an equivalent model in which:
///
/// - `AveragePool` and `MaxPool` have no `dilations` if these are 1;
/// - `Pad` and `Resize` with constant `axes` apply to all dimensions, because ONNX Runtime does not move layouts
///   through others;
/// - `HardSwish` is the product of its input and a `HardSigmoid`;
/// - a `MatMul` of a 2-dimensional value and the `Add` of a constant row after it are one `Gemm`, because ONNX Runtime
///   fuses them before it looks for integer kernels.
///
/// Fails like [`select::select`], and with `Cancelled` or `Timeout`.
pub fn normal(model: &Model, options: &QuantizeOptions, runtime: &'static Runtime, call: &Call) -> Result<Normal> {
    let mut proto = model.proto().clone();
    let mut names = Names::of(&proto);
    let shapes = shapes(model, runtime, call)?;
    if let Some(graph) = proto.graph.as_deref_mut() {
        let (view, mut tensors) = (View::new(model.proto()), Vec::new());
        for node in &mut graph.node {
            undilate(node);
            let rank = node.input_at(0).and_then(|x| shapes.get(x)).map(Vec::len);
            if let Some(tensor) = rank.and_then(|rank| all_axes(node, rank, &view, &mut names)) {
                tensors.push(tensor);
            }
        }
        graph.initializer.extend(tensors);
        graph.node = std::mem::take(&mut graph.node).into_iter().flat_map(|node| parts(node, &mut names)).collect();
    }
    let model = model.derive(proto);
    let view = View::new(model.proto());
    let chosen = select::select(&view, &model, options, &HashMap::new())?.chosen;
    let weighted = chosen.iter().filter(|(_, role)| matches!(role, Role::Weighted(_))).map(|(index, _)| *index);
    let (mut joined, mut fixed) = (Vec::new(), HashSet::new());
    for index in weighted.filter(|index| view.node(0, *index).is("MatMul")) {
        let node = view.node(0, index);
        let Some(shape) = node.input_at(0).and_then(|x| shapes.get(x)) else { continue };
        match addend(&view, index) {
            Some(addend) if shape.len() == 2 => joined.push((index, addend)),
            _ if shape.iter().all(|dim| matches!(dim, Dim::Fixed(_))) => drop(fixed.insert(node.label().to_owned())),
            _ => {}
        }
    }
    let mut proto = model.proto().clone();
    let gone = proto.graph.as_deref_mut().map_or_else(Vec::new, |graph| join(graph, &joined));
    drop(view);
    Ok(Normal { model: model.derive(proto), gone, fixed })
}

/// Removes dilations of 1, because `QLinearAveragePool` does not have the attribute.
fn undilate(node: &mut NodeProto) {
    if node.is("AveragePool") || node.is("MaxPool") {
        let nothing = |a: &AttributeProto| a.name.as_deref() == Some("dilations") && a.ints.iter().all(|d| *d == 1);
        node.attribute.retain(|attribute| !nothing(attribute));
    }
}

/// Extends the input with values for some `axes` to all dimensions, and returns the constant that the node reads now;
/// `None` if nothing changed.
fn all_axes(node: &mut NodeProto, rank: usize, view: &View<'_>, names: &mut Names) -> Option<TensorProto> {
    let place = |axes: Vec<i64>| -> Option<Vec<usize>> {
        let one =
            |axis: i64| usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok().filter(|a| *a < rank);
        axes.into_iter().map(one).collect()
    };
    let fresh = |names: &mut Names, node: &NodeProto| names.fresh(&format!("{}_all_axes", node.label()));
    if node.is("Resize") {
        let at = node.attribute.iter().position(|a| a.name.as_deref() == Some("axes"))?;
        let axes = place(node.attribute[at].ints.clone())?;
        let scales = super::operators::floats(&view.constant(0, node.input_at(2)?)?)?;
        if axes.len() != scales.len() {
            return None;
        }
        let mut all = vec![1f32; rank];
        axes.iter().zip(&scales).for_each(|(axis, scale)| all[*axis] = *scale);
        node.attribute.remove(at);
        node.input[2] = fresh(names, node);
        return Some(edit::float_tensor(&node.input[2], &[rank as i64], &all));
    }
    if !node.is("Pad") {
        return None;
    }
    let axes = place(whole_numbers(view.constant(0, node.input_at(3)?)?.tensor)?)?;
    let pads = whole_numbers(view.constant(0, node.input_at(1)?)?.tensor)?;
    if pads.len() != 2 * axes.len() {
        return None;
    }
    let mut all = vec![0i64; 2 * rank];
    for (index, axis) in axes.iter().enumerate() {
        (all[*axis], all[rank + axis]) = (pads[index], pads[axes.len() + index]);
    }
    node.input[1] = fresh(names, node);
    node.input.truncate(if node.input_at(2).is_some() { 3 } else { 2 });
    let raw = all.iter().flat_map(|pad| pad.to_le_bytes()).collect();
    Some(edit::tensor(&node.input[1], DataType::Int64, &[2 * rank as i64], raw))
}

/// Returns the nodes that replace a node: for `HardSwish(x)` those of `x * HardSigmoid(x)`, which have integer kernels,
/// otherwise the node itself.
fn parts(node: NodeProto, names: &mut Names) -> Vec<NodeProto> {
    if !node.is("HardSwish") {
        return vec![node];
    }
    let [Some(x), Some(y)] = [node.input.first(), node.output.first()] else { return vec![node] };
    let gate = names.fresh(&format!("{}_gate", node.label()));
    let mut sigmoid = edit::node("HardSigmoid", &[x], &[&gate]);
    sigmoid.name = Some(names.fresh(&format!("{}_HardSigmoid", node.label())));
    sigmoid.attribute = vec![edit::float_attribute("alpha", 1.0 / 6.0), edit::float_attribute("beta", 0.5)];
    let mut product = edit::node("Mul", &[x, &gate], &[y]);
    product.name = Some(names.fresh(&format!("{}_Mul", node.label())));
    vec![sigmoid, product]
}

/// Replaces each product and the sum after it by one `Gemm`, in the place of the sum. Returns the reports on the
/// removed sums.
fn join(graph: &mut GraphProto, joined: &[(usize, Addend<'_>)]) -> Vec<NodeReport> {
    let mut gone = Vec::new();
    let mut products: HashMap<usize, NodeProto> = HashMap::new();
    for (product, addend) in joined {
        let (mut gemm, sum) = (graph.node[*product].clone(), &graph.node[addend.node]);
        gemm.name = Some(gemm.label().to_owned());
        gemm.op_type = Some("Gemm".to_owned());
        gemm.input.push(sum.input[addend.input].clone());
        gemm.output.clone_from(&sum.output);
        gone.push(report_of(sum, QUANTIZED, "the bias of the product before it".to_owned()));
        products.insert(addend.node, gemm);
    }
    let taken: HashSet<usize> = joined.iter().map(|(product, _)| *product).collect();
    graph.node = std::mem::take(&mut graph.node)
        .into_iter()
        .enumerate()
        .filter(|(index, _)| !taken.contains(index))
        .map(|(index, node)| products.remove(&index).unwrap_or(node))
        .collect();
    gone
}

/// Returns the shapes of the inputs of the model, and those that ONNX Runtime infers for the first inputs of `MatMul`,
/// and of `Pad` and `Resize` with axes. If ONNX Runtime cannot open the model, only the shapes of the inputs are
/// returned.
fn shapes(model: &Model, runtime: &'static Runtime, call: &Call) -> Result<HashMap<String, Vec<Dim>>> {
    let asks = |node: &&NodeProto| {
        node.is("MatMul")
            || node.is("Pad") && node.input_at(3).is_some()
            || node.is("Resize") && node.attribute("axes").is_some()
    };
    let inputs = model.inputs();
    let mut shapes: HashMap<String, Vec<Dim>> =
        inputs.iter().filter_map(|info| Some((info.name.clone(), info.shape.clone()?))).collect();
    let view = View::new(model.proto());
    let mut names: Vec<&str> = model.graph().node.iter().filter(asks).filter_map(|node| node.input_at(0)).collect();
    names.retain(|name| !shapes.contains_key(*name) && view.constant_or_default(0, name).is_none());
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(shapes);
    }
    let mut proto: ModelProto = model.proto().clone();
    if let Some(graph) = &mut proto.graph {
        graph.output = names.iter().map(|name| edit::untyped(name)).collect();
    }
    // Without optimizations, the session has the shapes that ONNX Runtime knows when it fuses products and sums.
    let options = SessionOptions { optimization_level: OptimizationLevel::Disabled, ..SessionOptions::stock() };
    let call = &Call { progress: None, ..*call };
    match Session::new(runtime, &model.derive(proto), &options, call) {
        Ok(session) => {
            let known = session.outputs().iter().filter_map(|info| Some((info.name.clone(), info.shape.clone()?)));
            shapes.extend(known);
            Ok(shapes)
        }
        Err(e) if e.kind().ends_a_call() => Err(e),
        // Without shapes, nothing is rewritten.
        Err(_) => Ok(shapes),
    }
}
