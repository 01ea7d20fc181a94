//! Removal of whole layers: the input of a removed layer becomes the input of the next.
//!
//! The caller names the layers, or the least influential ones are removed. Influence is `1 - cosine` between input and
//! output of a layer on calibration data ("block influence", Men et al. 2024, arXiv 2403.03853). Without data, evenly
//! spread layers are removed, in the second half if that has enough of them, because the paper finds the least
//! influential ones there.

mod find;
mod remove;

use super::PruneOptions;
use crate::calibrate::{Data, Run, Walk};
use crate::call::{Call, Stage};
use crate::error::{Context, Result, bail};
use crate::model::Model;
use crate::report::{NodeReport, Report};
use crate::runtime::{Stop, Tensor};
use crate::statistics::dot;
use crate::text::Decoder;
pub use find::Layers;
pub use find::find;
use serde_json::json;
use std::collections::HashSet;

/// The removed layers, with the measured influence of all layers.
pub struct Dropped {
    before: usize,
    /// Indices of the removed layers in names, in order.
    numbers: Vec<usize>,
    /// Influence of each layer, `1 - cosine`, if it was measured.
    influence: Vec<f64>,
}

impl Dropped {
    /// Adds the removed layers and the measured influence to a report.
    pub fn describe(&self, report: &mut Report) {
        report.summary.insert("layers_before".into(), self.before.into());
        report.summary.insert("layers_after".into(), (self.before - self.numbers.len()).into());
        report.summary.insert("layers_dropped".into(), json!(self.numbers));
        if !self.influence.is_empty() {
            let rounded: Vec<f64> = self.influence.iter().map(|v| (v * 1e6).round() / 1e6).collect();
            report.summary.insert("layer_influence".into(), json!(rounded));
        }
        let node = |number: &usize| NodeReport {
            name: format!("layer {number}"),
            op: "layer".to_owned(),
            action: "dropped",
            reason: match self.influence.is_empty() {
                true => "asked".to_owned(),
                false => "has the least influence on its input".to_owned(),
            },
            sensitivity: None,
        };
        report.nodes.splice(0..0, self.numbers.iter().map(node));
    }
}

/// Removes the layers `options.layers`, or as many as `options.drop_layers`, and returns the new model and the removed
/// layers. The original is unchanged. Fails with `InvalidArgument` if a layer does not exist or all would be removed,
/// with `Unsupported` if the layers cannot be distinguished or removed, with `Cancelled` or `Timeout`, and if the model
/// cannot be run on `data`.
pub fn drop(model: &Model, options: &PruneOptions, data: Option<Data<'_>>, call: &Call) -> Result<(Model, Dropped)> {
    let decoder = Decoder::of(model).ok();
    let pairs = decoder.iter().flat_map(|decoder| &decoder.cache);
    let cache: HashSet<&str> = pairs.flat_map(|pair| [pair.past.as_str(), pair.present.as_str()]).collect();
    let found = find(model, &cache)?;
    let count = found.layers.len();
    let (mut chosen, mut measured): (Vec<usize>, Vec<f64>) = (Vec::new(), Vec::new());
    for number in &options.layers {
        match found.layers.iter().position(|layer| layer.number == *number) {
            Some(index) => chosen.push(index),
            None => bail!(InvalidArgument, "there is no layer {number}; there are {}", range(&found)),
        }
    }
    if chosen.is_empty() {
        let wanted = options.drop_layers;
        if wanted >= count {
            bail!(InvalidArgument, "drop_layers is {wanted}, but the model has only {count} layers");
        }
        chosen = match data {
            None => spread(count, wanted),
            Some(data) => {
                let stop = Stop::new()?;
                measured = call.drive(Stage::INFLUENCE, count as u64, |ticket| {
                    influence(&data.run(options.threads, ticket, &stop), model, &found)
                })?;
                let mut order: Vec<usize> = (0..count).collect();
                order.sort_by(|a, b| measured[*a].total_cmp(&measured[*b]).then(b.cmp(a)));
                order.truncate(wanted);
                order
            }
        };
    }
    chosen.sort_unstable();
    chosen.dedup();
    if chosen.len() == count {
        bail!(InvalidArgument, "all {count} layers would be removed");
    }
    let result = remove::remove(model, &found, &chosen, decoder.as_ref())?;
    let numbers = chosen.iter().map(|index| found.layers[*index].number).collect();
    Ok((result, Dropped { before: count, numbers, influence: measured }))
}

fn range(found: &Layers) -> String {
    let numbers = || found.layers.iter().map(|layer| layer.number);
    format!("{} to {}", numbers().min().unwrap_or(0), numbers().max().unwrap_or(0))
}

/// Returns `wanted` of `count` indices, evenly spread over the first of these ranges that is long enough: the second
/// half, the last three quarters, all but the first, all. The last index is excepted unless all are wanted.
fn spread(count: usize, wanted: usize) -> Vec<usize> {
    let from = [count / 2, count / 4, 1, 0].into_iter().find(|from| count.saturating_sub(from + 1) >= wanted);
    let (from, to) = (from.unwrap_or(0), if wanted < count { count - 1 } else { count });
    (0..wanted).map(|nth| from + (2 * nth + 1) * (to - from) / (2 * wanted)).collect()
}

/// Returns the mean over all tokens of `1 - cosine` between input and output, for each layer. It is infinity for a
/// layer with an unknown output, which is therefore the last to be removed.
fn influence(run: &Run<'_>, model: &Model, found: &Layers) -> Result<Vec<f64>> {
    let ends = found.layers.iter().filter_map(|layer| layer.output.as_deref());
    let asked: Vec<&str> = found.layers.iter().map(|layer| layer.input.as_str()).chain(ends).collect();
    let Run { batches, ticket, stop, .. } = *run;
    let mut walk = Walk::new(run, model, &asked)?;
    let mut before: Vec<Tensor> = walk.value(asked[0], stop)?;
    let mut all = Vec::with_capacity(found.layers.len());
    for layer in &found.layers {
        ticket.check()?;
        ticket.add(1);
        let Some(output) = &layer.output else {
            all.push(f64::INFINITY);
            continue;
        };
        let after = walk.value(output, stop)?;
        let (mut sum, mut rows) = (0f64, 0usize);
        for ((before, after), batch) in before.iter().zip(&after).zip(batches) {
            let of = |tensor: &Tensor| {
                let size = tensor.shape().last().map_or(0, |size| *size as usize);
                batch.rows(tensor, size).at(|| format!("value {output:?}"))
            };
            let (a, b) = (of(before)?, of(after)?);
            let size = a.shape()[1] as usize;
            for (a, b) in a.as_slice::<f32>()?.chunks_exact(size).zip(b.as_slice::<f32>()?.chunks_exact(size)) {
                sum += 1.0 - cosine(a, b);
                rows += 1;
            }
        }
        all.push(sum / rows.max(1) as f64);
        before = after;
    }
    Ok(all)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn layers_are_spread_over_the_later_middle() {
        assert_eq!(spread(12, 1), [8]);
        assert_eq!(spread(12, 2), [7, 9]);
        assert_eq!(spread(30, 4), [16, 20, 23, 27]);
        for count in 2..20 {
            for wanted in 1..count {
                let mut chosen = spread(count, wanted);
                chosen.dedup();
                assert!(chosen.len() == wanted && chosen.iter().all(|l| *l < count), "{count} {wanted} {chosen:?}");
            }
        }
    }
}
