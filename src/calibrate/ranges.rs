//! The ranges of the values inside a model.

use super::Run;
use super::histogram::{Histogram, Range};
use crate::call::Call;
use crate::error::{Context, Result};
use crate::graph::edit;
use crate::model::Model;
use crate::runtime::{Session, SessionOptions, Tensor};
use std::collections::{HashMap, HashSet};

/// The maximum number of values that one run computes, all of which are in memory at once.
const AT_A_TIME: usize = 32;

/// The method by which ranges are determined; the formulas are in `histogram`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// The range from the minimum to the maximum value.
    MinMax,
    /// The range that contains this percentage of the values.
    Percentile(f64),
    /// The range with the smallest divergence.
    Entropy,
    /// The range with the smallest squared error.
    LeastSquares,
}

/// Returns the range of each of `values`, which name values of the main graph, over all batches, by name. Each range
/// contains zero. Elements that are not finite are ignored.
///
/// Runs the model once per batch and 32 values; twice unless the method is [`Method::MinMax`]. Inputs of the model need
/// no run. Adds [`runs`] units to the ticket. Fails if the model cannot be run on the batches, also because the call
/// ended.
pub fn ranges(run: &Run<'_>, model: &Model, values: &[String], method: Method) -> Result<HashMap<String, Range>> {
    let mut found = HashMap::new();
    let inputs: HashSet<String> = model.inputs().into_iter().map(|info| info.name).collect();
    let (given, made): (Vec<&String>, Vec<&String>) = values.iter().partition(|name| inputs.contains(*name));
    let mut groups: Vec<&[&String]> = made.chunks(AT_A_TIME).collect();
    groups.extend((!given.is_empty()).then_some(&given[..]));
    for group in groups {
        let mut source = Values::new(run, model, group, &inputs)?;
        let mut ranges = vec![Range::ZERO; group.len()];
        source.each(run, |index, tensor| {
            ranges[index] = ranges[index].with(on_floats(tensor, range_of)?);
            Ok(())
        })?;
        if method != Method::MinMax {
            let mut histograms: Vec<Histogram> = ranges.iter().map(|range| Histogram::new(*range)).collect();
            source.each(run, |index, tensor| on_floats(tensor, |v| histograms[index].add(v)))?;
            let choose = |histogram: &Histogram| match method {
                Method::Percentile(percent) => histogram.percentile(percent),
                Method::Entropy => histogram.entropy(),
                Method::MinMax | Method::LeastSquares => histogram.least_squares(),
            };
            for (range, histogram) in ranges.iter_mut().zip(&histograms).filter(|(range, _)| **range != Range::ZERO) {
                *range = Range::ZERO.with(choose(histogram));
            }
        }
        found.extend(group.iter().map(|name| (*name).clone()).zip(ranges));
    }
    Ok(found)
}

/// Calls `take` for each of `values`, which name values of the main graph, and every batch, with the index in `values`
/// and the tensor. Runs the model, and counts units, like [`ranges`] with [`Method::MinMax`]. Fails like [`ranges`],
/// and with an error of `take`.
pub fn each_value(
    run: &Run<'_>,
    model: &Model,
    values: &[String],
    mut take: impl FnMut(usize, &Tensor) -> Result<()>,
) -> Result<()> {
    let inputs: HashSet<String> = model.inputs().into_iter().map(|info| info.name).collect();
    let (given, made): (Vec<usize>, Vec<usize>) = (0..values.len()).partition(|index| inputs.contains(&values[*index]));
    for group in made.chunks(AT_A_TIME).chain((!given.is_empty()).then_some(&given[..])) {
        let names: Vec<&String> = group.iter().map(|index| &values[*index]).collect();
        let mut source = Values::new(run, model, &names, &inputs)?;
        source.each(run, |index, tensor| take(group[index], tensor))?;
    }
    Ok(())
}

/// Returns the result of `what` for the values of a tensor, which are converted to float32 if necessary.
fn on_floats<T>(tensor: &Tensor, mut what: impl FnMut(&[f32]) -> T) -> Result<T> {
    match tensor.as_slice::<f32>() {
        Ok(values) => Ok(what(values)),
        Err(_) => Ok(what(&tensor.to_f32_vec()?)),
    }
}

/// Returns the number of units that [`ranges`] adds to its ticket.
pub fn runs(model: &Model, values: &[String], batches: usize, method: Method) -> u64 {
    let inputs: HashSet<String> = model.inputs().into_iter().map(|info| info.name).collect();
    let given = values.iter().filter(|name| inputs.contains(*name)).count();
    let groups = (values.len() - given).div_ceil(AT_A_TIME) + given.min(1);
    let passes = if method == Method::MinMax { 1 } else { 2 };
    (groups * batches * passes) as u64
}

fn range_of(values: &[f32]) -> Range {
    let finite = values.iter().filter(|v| v.is_finite());
    finite.fold(Range::ZERO, |range, &v| Range { low: range.low.min(v), high: range.high.max(v) })
}

/// Some values of a model, which one session computes or which are inputs.
struct Values<'v> {
    names: &'v [&'v String],
    /// Session that computes the values; `None` if all values are inputs.
    session: Option<Session>,
}

impl<'v> Values<'v> {
    fn new(run: &Run<'_>, model: &Model, names: &'v [&'v String], inputs: &HashSet<String>) -> Result<Values<'v>> {
        if names.iter().all(|name| inputs.contains(*name)) {
            return Ok(Values { names, session: None });
        }
        let mut proto = model.proto().clone();
        if let Some(graph) = &mut proto.graph {
            graph.output = names.iter().map(|name| edit::untyped(name)).collect();
        }
        let options = SessionOptions { threads: run.threads, varying_sizes: true, ..SessionOptions::stock() };
        let session = Session::new(run.runtime, &Model::from_proto(proto), &options, &Call::default());
        Ok(Values { names, session: Some(session.at(|| "the model with its inner values as outputs")?) })
    }

    fn each(&mut self, run: &Run<'_>, mut take: impl FnMut(usize, &Tensor) -> Result<()>) -> Result<()> {
        let names: Vec<&str> = self.names.iter().map(|name| name.as_str()).collect();
        for batch in run.batches {
            run.ticket.check()?;
            let feed: Vec<(&str, &Tensor)> = batch.inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
            let values: Vec<Tensor> = match &mut self.session {
                Some(session) => session.run_until(&feed, &names, run.stop)?.into_iter().map(|(_, t)| t).collect(),
                None => {
                    let of = |name: &&str| feed.iter().find(|(n, _)| n == name).map(|(_, t)| (*t).clone());
                    names.iter().filter_map(of).collect()
                }
            };
            for (index, tensor) in values.iter().enumerate() {
                take(index, tensor)?;
            }
            run.ticket.add(1);
        }
        Ok(())
    }
}
