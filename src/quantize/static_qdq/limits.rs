//! The nodes that stay float because of limits on quality or speed.

use super::Ready;
use crate::benchmark::Subject;
use crate::call::Stage;
use crate::error::{Result, bail};
use crate::model::Model;
use crate::onnx::proto::NodeProto;
use crate::quantize::planner::{LEFT, QUANTIZED};
use crate::quantize::speed::{Races, SLOWER};
use crate::quantize::trial::Judge;
use crate::report::{NodeReport, Report};
use std::collections::{BTreeSet, HashMap, HashSet};

const SENSITIVE: &str = "loses more than max_quality_loss allows";
/// The number of batches of which one is held out for measuring, because ranges are fitted to the others.
const HELD_OUT: usize = 4;
/// The maximum number of results that are made until one meets the limit.
const ATTEMPTS: usize = 6;

/// The reasons why nodes stay float, by node name.
pub type Stays = HashMap<String, &'static str>;
type Made = (Model, Vec<NodeReport>);

/// The result of the search for nodes that cost too much.
#[derive(Default)]
pub struct Found {
    /// Nodes that stay float because of the limits, with the reasons.
    pub stays: Stays,
    /// Loss of the model if only this node is quantized, by node name; empty if it was not measured.
    pub sensitivities: HashMap<String, f64>,
}

/// Returns the nodes that must stay float to meet the limits. Fails with `GateNotMet` if the limits cannot be met.
pub fn run(ready: &mut Ready<'_>, report: &mut Report) -> Result<Found> {
    let (options, limit) = (ready.run.options, ready.run.options.max_quality_loss);
    let mut held_out = Vec::new();
    if limit > 0.0 {
        let all = std::mem::take(&mut ready.batches);
        let few = all.len() < 2;
        for (index, batch) in all.into_iter().enumerate() {
            if few || index % HELD_OUT == 1 {
                held_out.push(batch.clone());
            }
            if few || index % HELD_OUT != 1 {
                ready.batches.push(batch);
            }
        }
        ready.ranges.clear(); // The ranges include those of the held-out batches.
        // The report counts only the batches that are left for calibration.
        report.summary.insert("calibration_batches".into(), ready.batches.len().into());
    }
    let mut stays = Stays::new();
    if options.never_slower {
        race(ready, &mut stays, report)?;
    }
    if limit == 0.0 {
        return Ok(Found { stays, ..Found::default() });
    }
    let made = make(ready, &stays)?;
    let judge = Judge::new(ready.runtime, &ready.run, held_out)?;
    report.summary.insert("quality_metric".into(), judge.metric().into());
    report.summary.insert("quality_batches".into(), judge.batches().into());
    keep(ready, &judge, stays, made, report)
}

/// Returns the result in which the nodes of `stays` are float.
fn make(ready: &mut Ready<'_>, stays: &Stays) -> Result<Made> {
    let made = ready.make(&|node: &NodeProto| stays.get(node.label()).map(|reason| (*reason).to_owned()))?;
    Ok((ready.run.model.derive(made.proto), made.nodes))
}

/// Returns the name and the operator of the nodes with weights that a result has quantized.
fn weighted(nodes: &[NodeReport]) -> Vec<(String, String)> {
    let ours = |node: &&NodeReport| node.action == QUANTIZED && matches!(node.op.as_str(), "Conv" | "MatMul" | "Gemm");
    nodes.iter().filter(ours).map(|node| (node.name.clone(), node.op.clone())).collect()
}

/// Times the result against itself with one kind of operator in float, kind by kind, and adds the nodes of a kind to
/// `stays` if the result is faster with them in float. Then times the result against the original, and fails with
/// `GateNotMet` if the result is slower.
fn race(ready: &mut Ready<'_>, stays: &mut Stays, report: &mut Report) -> Result<()> {
    let mut races = Races::new(ready.runtime, ready.run, ready.batches.first())?;
    let (model, nodes) = make(ready, stays)?;
    let all = weighted(&nodes);
    let kinds: BTreeSet<&str> = all.iter().map(|(_, op)| op.as_str()).collect();
    let mut best: Subject = races.subject(&model)?;
    for (done, kind) in kinds.iter().enumerate() {
        ready.run.call.report(Stage::SPEED, done as u64, kinds.len() as u64 + 1)?;
        let mut without = stays.clone();
        without.extend(all.iter().filter(|(_, op)| op == kind).map(|(name, _)| (name.clone(), SLOWER)));
        if all.iter().all(|(name, _)| without.contains_key(name)) {
            continue; // This would be the original.
        }
        let (other, _) = make(ready, &without)?;
        let other = races.subject(&other)?;
        let (speedup, pair) = races.race(best, other)?;
        best = if speedup.low > 1.0 {
            *stays = without;
            pair.result
        } else {
            pair.original
        };
    }
    let original = races.subject(ready.run.model)?;
    let (speedup, _) = races.race(original, best)?;
    ready.run.call.report(Stage::SPEED, kinds.len() as u64 + 1, kinds.len() as u64 + 1)?;
    if speedup.high < 1.0 {
        bail!(
            GateNotMet,
            "the quantized model is only {:.2} times as fast as the original, whichever nodes stay float",
            speedup.median
        );
    }
    report.summary.insert("speedup".into(), serde_json::to_value(speedup).unwrap_or_default());
    Ok(())
}

/// Leaves the most sensitive nodes float until the loss is within the limit, and returns all nodes that stay float.
/// Fails with `GateNotMet` if no result is within the limit.
fn keep(ready: &mut Ready<'_>, judge: &Judge, mut stays: Stays, made: Made, report: &mut Report) -> Result<Found> {
    let limit = ready.run.options.max_quality_loss;
    let mut loss = judge.loss(&made.0, &ready.run)?;
    if loss <= limit {
        report.summary.insert("quality_loss".into(), loss.into());
        return Ok(Found { stays, ..Found::default() });
    }
    let nodes = weighted(&made.1);
    drop(made);
    let mut sensitivities = alone(ready, judge, &nodes, &stays)?;
    let by_name: HashMap<String, f64> = sensitivities.iter().cloned().collect();
    sensitivities.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (mut allowed, mut left) = (limit, 0);
    for _ in 0..ATTEMPTS {
        let sum = |from: usize| sensitivities[from..].iter().map(|(_, loss)| loss).sum::<f64>();
        left = (left + 1..sensitivities.len()).find(|from| sum(*from) <= allowed).unwrap_or(sensitivities.len());
        if left == sensitivities.len() {
            break;
        }
        let more = sensitivities[..left].iter().map(|(name, _)| name.clone());
        stays.extend(more.map(|name| (name, SENSITIVE)));
        let (model, _) = make(ready, &stays)?;
        loss = judge.loss(&model, &ready.run)?;
        if loss <= limit {
            report.summary.insert("quality_loss".into(), loss.into());
            return Ok(Found { stays, sensitivities: by_name });
        }
        // The limit on the sum is reduced by as much as this result exceeds the limit, and by another 10 %.
        allowed = (sum(left) * limit / loss).min(sum(left)) * 0.9;
    }
    bail!(GateNotMet, "max_quality_loss is {limit}, but every result that was tried loses {loss:.3e} or more")
}

/// Returns the loss of the model if only one node with a weight is quantized, for each such node, by name.
fn alone(
    ready: &mut Ready<'_>,
    judge: &Judge,
    nodes: &[(String, String)],
    stays: &Stays,
) -> Result<Vec<(String, f64)>> {
    let call = ready.run.call;
    let mut found = Vec::with_capacity(nodes.len());
    for (done, (name, _)) in nodes.iter().enumerate() {
        call.report(Stage::SENSITIVITY, done as u64, nodes.len() as u64)?;
        let others: HashSet<&str> = nodes.iter().map(|(n, _)| n.as_str()).filter(|n| n != name).collect();
        let mut only = stays.clone();
        only.extend(others.into_iter().map(|n| (n.to_owned(), LEFT)));
        let (model, _) = make(ready, &only)?;
        found.push((name.clone(), judge.loss(&model, &ready.run)?));
    }
    call.report(Stage::SENSITIVITY, nodes.len() as u64, nodes.len() as u64)?;
    Ok(found)
}
