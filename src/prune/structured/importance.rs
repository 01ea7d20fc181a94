//! The importance of units, by which the units to remove are selected.

use super::analysis::Analysis;
use super::axes::Axis;
use super::groups::{Group, Groups};
use super::{Importance, PruneOptions, analysis, tensors};
use crate::calibrate::{Run, Walk};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::runtime::Tensor;
use crate::statistics::Random;
use std::collections::HashMap;

/// The mean squares of the elements of a dimension of a value, for each value and dimension.
pub type Statistics = HashMap<(String, usize), Vec<f64>>;

/// Returns the values that consumers of units read, with the dimension that is summed over, in the order in which
/// they are computed.
pub fn inputs(analysis: &Analysis<'_>, groups: &Groups) -> Vec<(String, usize)> {
    let place = analysis.places();
    let mut chosen: Vec<&analysis::Consumer<'_>> =
        groups.groups.iter().flat_map(|g| &g.consumers).map(|i| &analysis.consumers[*i]).collect();
    chosen.sort_by_key(|c| (place[c.node as usize], c.dimension));
    let mut list: Vec<(String, usize)> = Vec::new();
    for consumer in chosen {
        let entry = (consumer.input.to_owned(), consumer.dimension);
        if !list.contains(&entry) {
            list.push(entry);
        }
    }
    list
}

/// Returns the mean squares of the values and dimensions `stages` ([`inputs`]) on calibration data. Fails like
/// [`Walk::new`] and [`Walk::value`], and with `Cancelled` or `Timeout`.
pub fn mean_squares(run: &Run<'_>, model: &Model, stages: &[(String, usize)]) -> Result<Statistics> {
    let asked: Vec<&str> = stages.iter().map(|(name, _)| name.as_str()).collect();
    let Run { batches, ticket, stop, .. } = *run;
    let mut walk = Walk::new(run, model, &asked)?;
    let mut found = Statistics::new();
    for (name, dimension) in stages {
        ticket.check()?;
        let mut sums: Vec<f64> = Vec::new();
        let mut rows = 0usize;
        for (tensor, batch) in walk.value(name, stop)?.iter().zip(batches) {
            let size = tensor.shape().last().map_or(0, |size| *size as usize);
            rows += match *dimension + 1 == tensor.shape().len() && size > 0 {
                true => add_squares(&batch.rows(tensor, size)?, 1, &mut sums)?,
                false => add_squares(tensor, *dimension, &mut sums)?,
            };
        }
        sums.iter_mut().for_each(|sum| *sum /= rows.max(1) as f64);
        found.insert((name.clone(), *dimension), sums);
        ticket.add(batches.len() as u64);
    }
    Ok(found)
}

fn add_squares(tensor: &Tensor, dimension: usize, sums: &mut Vec<f64>) -> Result<usize> {
    let shape: Vec<usize> = tensor.shape().iter().map(|d| *d as usize).collect();
    let Some(&size) = shape.get(dimension) else { return Ok(0) };
    let inner: usize = shape[dimension + 1..].iter().product();
    sums.resize(size.max(sums.len()), 0.0);
    let values = tensor.to_f32_vec()?;
    for (index, part) in values.chunks_exact(inner.max(1)).enumerate() {
        sums[index % size] += part.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
    }
    Ok(values.len() / size.max(1))
}

/// Returns a score for each unit of each group; the lowest is removed first. Fails like [`tensors::sums`], and if the
/// mean squares are not finite.
pub fn scores(
    analysis: &Analysis<'_>,
    groups: &Groups,
    options: &PruneOptions,
    statistics: &Statistics,
) -> Result<Vec<Vec<f64>>> {
    let mut random = Random::new(options.seed ^ 0x9e37_79b9_7f4a_7c15);
    let one = |group: &Group| match options.importance {
        Importance::Random => Ok(group.units.iter().map(|_| random.uniform()).collect()),
        Importance::L1 => by_weights(analysis, group, f64::abs),
        Importance::L2 => by_weights(analysis, group, |v| v * v),
        Importance::Activation => by_activations(analysis, group, statistics),
    };
    groups.groups.iter().map(one).collect()
}

/// Returns for each unit the sum of `of` over its weights, over all tensors that contain it, with the sums of each
/// tensor scaled to a mean of 1.
fn by_weights(analysis: &Analysis<'_>, group: &Group, of: fn(f64) -> f64) -> Result<Vec<f64>> {
    let mut scores = vec![0f64; group.units.len()];
    let mut names: Vec<&str> = analysis.constants.keys().copied().collect();
    names.sort_unstable();
    for name in names {
        let (tensor, value) = (analysis.constants[name], &analysis.values[name]);
        // Vectors do not count: biases have little influence.
        if value.rank() < 2 {
            continue;
        }
        for (at, axis) in value.axes.iter().enumerate() {
            let Axis::Units(id) = axis else { continue };
            if group.axes.binary_search(id).is_err() {
                continue;
            }
            let sums = tensors::sums(tensor, at, of)?;
            add(group, *id, &sums, &mut scores);
        }
    }
    Ok(scores)
}

/// Returns the energy that each unit of a group contributes to its consumers.
fn by_activations(analysis: &Analysis<'_>, group: &Group, statistics: &Statistics) -> Result<Vec<f64>> {
    let mut scores = vec![0f64; group.units.len()];
    for consumer in group.consumers.iter().map(|i| &analysis.consumers[*i]) {
        let (tensor, value) = (analysis.constants[consumer.constant], &analysis.values[consumer.constant]);
        let means = statistics.get(&(consumer.input.to_owned(), consumer.dimension));
        let holds = |axis: &Axis| matches!(axis, Axis::Units(id) if *id == consumer.axis);
        let (Some(means), Some(at)) = (means, value.axes.iter().position(holds)) else { continue };
        let mut sums = tensors::sums(tensor, at, |v| v * v)?;
        // The groups of a grouped convolution share the positions of the axis, so their means are added.
        let size = sums.len();
        let shared: Vec<f64> = (0..size).map(|i| means.iter().skip(i).step_by(size).sum()).collect();
        sums.iter_mut().zip(shared).for_each(|(sum, mean)| *sum *= mean);
        add(group, consumer.axis, &sums, &mut scores);
    }
    match scores.iter().all(|s| s.is_finite()) {
        true => Ok(scores),
        false => Err(Error::new(
            crate::error::Kind::InvalidModel,
            "the calibration data leads to values that are not finite",
        )),
    }
}

/// Adds the sums of an axis to the scores of the units, scaled to a mean of 1.
fn add(group: &Group, axis: u32, sums: &[f64], scores: &mut [f64]) {
    let of = |unit: &super::groups::Unit| -> f64 {
        let own = unit.elements.iter().filter(|(id, _)| *id == axis);
        own.map(|(_, index)| sums[*index as usize]).sum()
    };
    let values: Vec<f64> = group.units.iter().map(of).collect();
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    if mean > 0.0 {
        scores.iter_mut().zip(values).for_each(|(score, value)| *score += value / mean);
    }
}
