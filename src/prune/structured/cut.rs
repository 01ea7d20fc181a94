//! Cutting of a model, and masking: zeros in the place of the removed units, with the same results.

use super::Plan;
use super::analysis::Analysis;
use super::axes::{Axis, Kept};
use super::follow::Follower;
use super::tensors;
use crate::call::{Call, Stage};
use crate::error::{Context, Result};
use crate::files::Scratch;
use crate::graph::edit::Names;
use crate::model::Model;
use crate::onnx::proto::{GraphProto, ModelProto, TensorProto, attribute_kind};
use std::collections::HashMap;

/// Replaces constants of the main graph that have the names of `tensors`.
fn replace(graph: &mut GraphProto, mut tensors: HashMap<String, TensorProto>) {
    for tensor in &mut graph.initializer {
        if let Some(new) = tensor.name.as_ref().and_then(|name| tensors.remove(name)) {
            *tensor = new;
        }
    }
    for node in graph.node.iter_mut().filter(|node| node.is("Constant")) {
        let Some(new) = node.output.first().and_then(|name| tensors.remove(name)) else { continue };
        let value = node.attribute.iter_mut().find(|a| a.kind == Some(attribute_kind::TENSOR));
        if let Some(value) = value {
            value.t = Some(Box::new(new));
        }
    }
}

/// Returns the model with zeros where weights sum over removed units. Fails like [`tensors::zeroed`].
pub fn masked(plan: &Plan, analysis: &Analysis<'_>, kept: &Kept) -> Result<Model> {
    let mut proto = plan.model.proto().clone();
    let mut changed: HashMap<String, TensorProto> = plan.changed.clone();
    for (name, at, list) in consumed(analysis, kept) {
        let tensor = changed.get(name).unwrap_or(analysis.constants[name]);
        let zeroed = tensors::zeroed(tensor, at, list)?;
        changed.insert(name.to_owned(), zeroed);
    }
    if let Some(graph) = proto.graph.as_deref_mut() {
        replace(graph, changed);
    }
    Ok(plan.model.derive(proto))
}

/// Returns the names of the weights that sum over an axis that is cut, each with the dimension and its kept elements.
pub fn consumed<'k, 'm>(analysis: &Analysis<'m>, kept: &'k Kept) -> Vec<(&'m str, usize, &'k [u32])> {
    let mut found: Vec<(&str, usize, &[u32])> = Vec::new();
    for consumer in &analysis.consumers {
        let Some(list) = kept.of(Axis::Units(consumer.axis)) else { continue };
        for (at, axis) in analysis.values[consumer.constant].axes.iter().enumerate() {
            let own = matches!(axis, Axis::Units(id) if *id == consumer.axis);
            if own && !found.iter().any(|(name, other, _)| *name == consumer.constant && *other == at) {
                found.push((consumer.constant, at, list));
            }
        }
    }
    found
}

/// Returns the model without the removed units. Fails like [`tensors::cut`], with `Unsupported` if a number in the
/// graph cannot be updated, and with `Cancelled` or `Timeout`.
pub fn cut(plan: &Plan, analysis: &Analysis<'_>, kept: &Kept, call: &Call) -> Result<Model> {
    let mut proto: ModelProto = plan.model.proto().clone();
    let names = Names::of(&proto);
    let folder = plan.options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&folder);
    let mut list: Vec<&str> = analysis.constants.keys().copied().collect();
    list.sort_unstable();
    let keeps =
        |name: &str| -> Vec<Option<&[u32]>> { analysis.values[name].axes.iter().map(|axis| kept.of(*axis)).collect() };
    list.retain(|name| plan.changed.contains_key(*name) || keeps(name).iter().any(Option::is_some));
    let constants: HashMap<&str, &TensorProto> = list.iter().map(|name| (*name, analysis.constants[name])).collect();
    let keeps: Vec<Vec<Option<&[u32]>>> = list.iter().map(|name| keeps(name)).collect();
    let bytes =
        |tensor: &TensorProto| (tensors::sizes(tensor).iter().product::<usize>() * tensors::width(tensor)) as u64;
    let total = constants.values().map(|tensor| bytes(tensor)).sum();
    let new = call.drive(Stage::PRUNE, total, |ticket| {
        let mut new = HashMap::new();
        for (name, kept) in list.iter().zip(&keeps) {
            ticket.check()?;
            let tensor = plan.changed.get(*name).unwrap_or(constants[name]);
            let tensor = if kept.iter().any(Option::is_some) {
                tensors::cut(tensor, kept, &scratch).at(|| format!("tensor {name:?}"))?
            } else {
                tensor.clone()
            };
            new.insert((*name).to_owned(), tensor);
            ticket.add(bytes(constants[name]));
        }
        Ok(new)
    })?;
    if let Some(graph) = proto.graph.as_deref_mut() {
        replace(graph, new);
        Follower::new(analysis, kept, graph, names).all()?;
    }
    Ok(plan.model.derive(proto))
}

/// The sums over a model, each before and after a cut.
#[derive(Default)]
pub struct Counts {
    /// Number of elements of float constants.
    pub parameters: (u64, u64),
    /// Number of elements of the float constants that were cut.
    pub targets: (u64, u64),
    /// Size of float constants in bytes.
    pub bytes: (u64, u64),
    /// Number of FLOPs of one token, or one position of an image: two per element of an applied weight.
    pub flops: (u64, u64),
}

/// Returns the sums over the model of `analysis`, before and after the cut that `kept` describes.
pub fn counts(analysis: &Analysis<'_>, kept: &Kept) -> Counts {
    let mut counts = Counts::default();
    let sizes = |name: &str| {
        let value = &analysis.values[name];
        let before: u64 = value.dims.iter().map(|d| d[0].max(0) as u64).product();
        let left = |(dim, axis): (&[i64; 2], &Axis)| kept.of(*axis).map_or(dim[0].max(0) as u64, |k| k.len() as u64);
        let after: u64 = value.dims.iter().zip(&value.axes).map(left).product();
        (before, after)
    };
    for name in analysis.constants.keys().filter(|name| analysis.values[*name].ints.is_none()) {
        let (before, after) = sizes(name);
        counts.parameters = (counts.parameters.0 + before, counts.parameters.1 + after);
        let width = tensors::width(analysis.constants[name]) as u64;
        counts.bytes = (counts.bytes.0 + before * width, counts.bytes.1 + after * width);
        if after < before {
            counts.targets = (counts.targets.0 + before, counts.targets.1 + after);
        }
    }
    let mut applied: Vec<(u32, &str)> = analysis.consumers.iter().map(|c| (c.node, c.constant)).collect();
    applied.sort_unstable();
    applied.dedup();
    for (_, name) in applied {
        let (before, after) = sizes(name);
        counts.flops = (counts.flops.0 + 2 * before, counts.flops.1 + 2 * after);
    }
    counts
}
