//! Folding of the nodes after a convolution into its weight, before ranges are determined.
//!
//! ONNX Runtime folds these nodes itself in a float model, but not if the values between the nodes are quantized. With
//! `g` and `o` per output channel, `g (W * x + b) + o = (g W) * x + (g b + o)`: a `BatchNormalization` has `g = scale /
//! sqrt(var + epsilon)` and `o = B - g mean`, a `Mul` or `Add` of a constant has one of the two.

use super::operators::floats;
use crate::graph::constants::Constant;
use crate::graph::dead::{Policy, eliminate};
use crate::graph::edit::{self, Names, float_tensor};
use crate::graph::{Use, View};
use crate::model::Model;
use crate::onnx::proto::NodeProto;
use crate::quantize::planner::QUANTIZED;
use crate::quantize::rewrite::take_names;
use crate::report::{NodeReport, report_of};
use std::collections::{HashMap, HashSet};

/// The factor and the addend of each output channel.
struct Line {
    factors: Vec<f32>,
    addends: Vec<f32>,
}

/// A convolution, and the nodes after it that are folded.
struct Fold<'a> {
    weight: Constant<'a>,
    /// Elements of the folded weight.
    values: Vec<f32>,
    /// Factors and addends of all folded nodes; the addends are the new bias.
    line: Line,
    /// Index of the last folded node.
    last: usize,
}

/// Returns the model with the nodes after convolutions folded into the convolutions, and the report entries of the
/// removed nodes; `None` if no node can be folded.
pub fn fold(model: &Model) -> Option<(Model, Vec<NodeReport>)> {
    let view = View::new(model.proto());
    let mut folds: HashMap<usize, Fold<'_>> = HashMap::new();
    let mut gone: HashSet<usize> = HashSet::new();
    for (index, node) in view.bodies.first()?.nodes.iter().enumerate().filter(|(_, node)| node.is("Conv")) {
        let Some((fold, nodes)) = chain(&view, index, node) else { continue };
        gone.extend(nodes);
        folds.insert(index, fold);
    }
    if folds.is_empty() {
        return None;
    }
    let mut names = Names::of(model.proto());
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_deref_mut()?;
    let (mut unread, mut reports, mut replaced) = (HashSet::new(), Vec::new(), Vec::new());
    let mut kept = Vec::with_capacity(graph.node.len());
    for (index, mut node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        if gone.contains(&index) {
            reports.push(report_of(&node, QUANTIZED, "folded into the convolution before it".to_owned()));
            unread.extend(node.input);
            continue;
        }
        if let Some(Fold { weight, values, line, last }) = folds.remove(&index) {
            let [kernel, bias] = ["weight", "bias"].map(|part| names.fresh(&format!("{}_folded_{part}", node.label())));
            graph.initializer.push(float_tensor(&kernel, &weight.tensor.dims, &values));
            graph.initializer.push(float_tensor(&bias, &[line.addends.len() as i64], &line.addends));
            unread.extend(node.input.drain(1..));
            unread.insert(weight.name.to_owned());
            replaced.push((kernel.clone(), weight.name.to_owned()));
            node.input.extend([kernel, bias]);
            node.output.clone_from(&view.node(0, last).output);
            node.output.truncate(1);
        }
        kept.push(node);
    }
    graph.node = kept;
    eliminate(graph, Policy::Named(&unread));
    take_names(graph, &replaced);
    edit::modernize_ir(&mut proto);
    Some((model.derive(proto), reports))
}

/// Returns a convolution with the nodes after it folded in, and the indices of these nodes; `None` if no node can be
/// folded.
fn chain<'a>(view: &View<'a>, index: usize, node: &'a NodeProto) -> Option<(Fold<'a>, Vec<usize>)> {
    let weight = view.constant(0, node.input_at(1)?).filter(|c| !c.transposed)?;
    let mut values = floats(&weight)?;
    let outputs = usize::try_from(*weight.tensor.dims.first()?).ok().filter(|count| *count > 0)?;
    let addends = match node.input_at(2) {
        None => vec![0f32; outputs],
        Some(name) => floats(&view.constant(0, name)?).filter(|bias| bias.len() == outputs)?,
    };
    let mut line = Line { factors: vec![1f32; outputs], addends };
    let (mut last, mut gone) = (index, Vec::new());
    loop {
        let output = view.node(0, last).output.first()?;
        let [Use::Node { body: 0, node: next, input }] = view.uses(0, output) else { break };
        let Some(step) = step(view, view.node(0, *next), *input, outputs, weight.tensor.dims.len()) else { break };
        line.factors.iter_mut().zip(&step.factors).for_each(|(f, g)| *f *= g);
        let addends = line.addends.iter_mut().zip(step.factors.iter().zip(&step.addends));
        addends.for_each(|(a, (g, o))| *a = *a * g + o);
        last = *next;
        gone.push(*next);
    }
    let size = values.len() / outputs;
    values.chunks_mut(size.max(1)).zip(&line.factors).for_each(|(row, g)| row.iter_mut().for_each(|v| *v *= g));
    let finite = values.iter().chain(&line.addends).all(|v| v.is_finite());
    (!gone.is_empty() && finite).then_some((Fold { weight, values, line, last }, gone))
}

/// Returns the factors and addends of a node that reads the output of a convolution at `input`; `None` if it cannot be
/// folded. `outputs` is the number of output channels, `rank` the rank of the weight.
fn step(view: &View<'_>, node: &NodeProto, input: usize, outputs: usize, rank: usize) -> Option<Line> {
    let constant = |input: usize| view.constant(0, node.input_at(input)?).filter(|c| !c.transposed);
    if node.is("BatchNormalization") {
        let alone = node.int("training_mode", 0) == 0 && node.output.iter().skip(1).all(String::is_empty);
        let vector = |input: usize| floats(&constant(input)?).filter(|v| v.len() == outputs);
        let (scale, offset, mean, variance) = (vector(1)?, vector(2)?, vector(3)?, vector(4)?);
        let epsilon = node.float("epsilon", 1e-5);
        let factors: Vec<f32> = scale.iter().zip(&variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
        let addends = (0..outputs).map(|c| offset[c] - factors[c] * mean[c]).collect();
        return (alone && input == 0).then_some(Line { factors, addends });
    }
    if !(node.is("Mul") || node.is("Add")) || node.input.len() != 2 {
        return None;
    }
    let constant = constant(1 - input)?;
    let dims = &constant.tensor.dims;
    // The constant has one value, or one per channel; channels are the dimension after that of samples.
    let of_channels = dims.len() + 1 >= rank
        && dims.len() <= rank
        && dims.iter().rev().take(rank - 2).all(|dim| *dim == 1)
        && dims.iter().rev().nth(rank - 2) == Some(&(outputs as i64))
        && dims.first().is_some_and(|first| dims.len() < rank || *first == 1);
    let values = floats(&constant)?;
    let values = match values.as_slice() {
        [one] if dims.len() <= rank => vec![*one; outputs],
        _ if of_channels => values,
        _ => return None,
    };
    Some(match node.op() {
        "Mul" => Line { factors: values, addends: vec![0.0; outputs] },
        _ => Line { factors: vec![1.0; outputs], addends: values },
    })
}
