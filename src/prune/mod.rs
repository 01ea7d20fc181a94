//! Pruning: setting weights to zero, or removing structures.
//!
//! [`prune`] and [`prune_calibrated`] are the entry points. `targets` selects weights; `scores` prunes by magnitude or
//! at random, in pieces; `calibrated` prunes by activations, with `sparsegpt` for the arithmetic. `weights` reads and
//! writes weights, `rewrite` puts them into the graph.
//!
//! `structured` removes neurons, channels and heads, and `layers` whole layers.
//!
//! Zeros alone make a model neither smaller nor faster: a plain `.onnx` stores them like other numbers, and ONNX
//! Runtime multiplies with them. [`crate::onnx::packed`] is a file format in which a zero takes one bit.

mod calibrated;
mod layers;
mod options;
mod rewrite;
mod scores;
mod sparsegpt;
pub mod structured;
mod targets;
mod weights;

pub use crate::report::LEFT;
pub use options::{Importance, Pattern, PruneMethod, PruneOptions, SparsityOverride};

use crate::calibrate::{self, Batch, Calibration, Data};
use crate::call::{Call, Stage, Ticket};
use crate::error::{Result, bail};
use crate::graph::{View, invariants};
use crate::model::{Model, Task};
use crate::report::{NodeReport, Report, report_of};
use crate::runtime::{Runtime, Stop};
use bytes::Bytes;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Instant;
use targets::{Plan, Target};

/// Returns the names of the outputs of a model's layers, in the order in which they run; `None` if layers or their
/// outputs are not found.
pub(crate) fn layers_of(model: &Model) -> Option<Vec<String>> {
    found(model).ok()?.layers.into_iter().map(|layer| layer.output).collect()
}

/// Returns the indices of a model's layers, in the order in which they run. Fails with `Unsupported` if they cannot
/// be distinguished.
pub(crate) fn layer_numbers(model: &Model) -> Result<Vec<usize>> {
    Ok(found(model)?.layers.iter().map(|layer| layer.number).collect())
}

fn found(model: &Model) -> Result<layers::Layers> {
    let decoder = crate::text::Decoder::of(model).ok();
    let pairs = decoder.iter().flat_map(|decoder| &decoder.cache);
    let cache = pairs.flat_map(|pair| [pair.past.as_str(), pair.present.as_str()]).collect();
    layers::find(model, &cache)
}

/// The value of `NodeReport.action` for a node whose weight was pruned.
pub const PRUNED: &str = "pruned";

/// The note in every report on pruning that sets weights to zero.
const DENSE: &str = "the zeros are stored like any other number in a plain .onnx, which is neither smaller nor \
                     faster for \
                     them; saved packed, the file is smaller";

/// The default number of calibration windows for reconstruction. Without 30 % of SmolLM2's neurons, the increase of
/// perplexity is 4 percentage points larger with 16 windows than with 64, and 3 points larger with 32.
const REFIT_WINDOWS: usize = 64;

/// A pruned weight, with the method that was used.
struct Pruned {
    /// Elements of the weight, in the layout and type of the original.
    raw: Bytes,
    zeros_before: u64,
    zeros_after: u64,
    /// Name of the method that was used; if another was requested, also the reason why it was not used.
    how: String,
}

/// The outcome of a target: the pruned weight, or the reason why it is unchanged.
type Outcome = std::result::Result<Pruned, String>;

/// Prunes a model by its weights, and returns the result and a report. The original is unchanged; the changed weights
/// of the result are in scratch storage.
///
/// Reports the stage `prune` in weight bytes. Memory: a few megabytes per thread for magnitude and random pruning, for
/// any size of model.
///
/// Fails with `InvalidArgument` if an option is invalid, if a name matches nothing (the message lists the modules), and
/// for options that need [`prune_calibrated`]: Wanda, SparseGPT, importance by activation, and reconstruction. Fails
/// with `Unsupported` if no weight could be pruned (the message counts the reasons), or, with structured pruning, if
/// the model is quantized or its layers cannot be distinguished. Fails with `GateNotMet` if no sparsity meets
/// `target_size` or `target_speedup`, with `RuntimeMissing` if `target_speedup` is set and ONNX Runtime is not found,
/// with `NotFound` or `Io` if scratch storage cannot be created or written, and with `Cancelled` or `Timeout`.
pub fn prune(model: &Model, options: &PruneOptions, call: &Call) -> Result<(Model, Report)> {
    if let PruneMethod::Wanda | PruneMethod::SparseGpt = options.method {
        options.check()?;
        bail!(InvalidArgument, "{} needs a calibration text", options.method.name());
    }
    run(model, options, None, call)
}

/// Prunes a model by activations on calibration data, with [`PruneMethod::Wanda`], [`PruneMethod::SparseGpt`] or
/// structured pruning by activations, and returns the result and a report, as [`prune`] does.
///
/// Wanda and SparseGPT prune weights in the order in which they run, each on the outputs of the pruned weights before
/// it; so does the reconstruction of structured pruning. The call needs ONNX Runtime, and reports further stages for
/// calibration. Memory: the activations of a few layers on the calibration data, a weight, and for SparseGPT about 30
/// bytes for each pair of inputs of a weight. Fails like [`prune`], except for the options that need this function.
/// Fails with `InvalidArgument` or `NotFound` for data that do not fit the model, with `InvalidArgument` for generated
/// inputs and for the methods magnitude and random, and if the model cannot be run on the data.
pub fn prune_calibrated(
    runtime: &'static Runtime,
    model: &Model,
    options: &PruneOptions,
    calibration: &Calibration<'_>,
    call: &Call,
) -> Result<(Model, Report)> {
    if let PruneMethod::Magnitude | PruneMethod::Random = options.method {
        options.check()?;
        bail!(InvalidArgument, "{} does not use a calibration text", options.method.name());
    }
    run(model, options, Some((runtime, calibration)), call)
}

fn run(
    model: &Model,
    options: &PruneOptions,
    calibration: Option<(&'static Runtime, &Calibration<'_>)>,
    call: &Call,
) -> Result<(Model, Report)> {
    let start = Instant::now();
    options.check()?;
    let model = &*invariants::hoisted(model);
    let pieces;
    let shown = match calibration {
        Some((runtime, Calibration::Text { text, tokenizer, windows, length })) => {
            // Models that generate text read the calibration text as a whole, others read it in pieces.
            pieces = match model.card().task {
                Task::Generate => Cow::Borrowed(*text),
                _ => Cow::Owned(calibrate::pieces(text)),
            };
            let windows = if *windows == 0 && options.reconstruct { REFIT_WINDOWS } else { *windows };
            Some((runtime, Calibration::Text { text: &pieces, tokenizer, windows, length: *length }))
        }
        Some((runtime, Calibration::Tensors(tensors))) => Some((runtime, Calibration::Tensors(tensors))),
        Some((_, Calibration::Generated { .. })) => {
            bail!(InvalidArgument, "generated inputs cannot rank weights")
        }
        None => None,
    };
    let mut noted = Report::of_technique("prune", options, &["method", "sparsity"]);
    if let Some((_, given)) = calibration {
        given.note(&mut noted);
    }
    let calibration = shown.as_ref().map(|(runtime, calibration)| (*runtime, calibration));
    if options.method == PruneMethod::Structured {
        let (result, report) = structured(model, options, calibration, call)?;
        return Ok((result, Report { recipe: noted.recipe, ..report }));
    }
    let view = View::new(model.proto());
    let plan = targets::plan(&view, options)?;
    let pool = crate::threads::pool(options.threads)?;
    let outcomes = match calibration {
        None => {
            let work = |ticket: &Ticket| pool.install(|| scores::all(&plan.targets, options, ticket));
            call.drive(Stage::PRUNE, plan.bytes(), work)?
        }
        Some((runtime, calibration)) => {
            let batches = calibrate::batches(model, calibration)?;
            let stop = Stop::new()?;
            let data = Data { runtime, batches: &batches };
            let work = |ticket: &Ticket| {
                let run = data.run(options.threads, ticket, &stop);
                pool.install(|| calibrated::all(&run, model, &plan.targets, options))
            };
            call.drive(Stage::PRUNE, plan.bytes(), work)?
        }
    };
    let (result, mut report) = written(model, options, &view, &plan, &outcomes)?;
    report.recipe = noted.recipe;
    report.finish(start);
    Ok((result, report))
}

/// Returns the model with the pruned weights, and the report.
fn written(
    model: &Model,
    options: &PruneOptions,
    view: &View<'_>,
    plan: &Plan<'_>,
    outcomes: &[Outcome],
) -> Result<(Model, Report)> {
    let (mut proto, nodes) = (model.proto().clone(), reports(view, plan, outcomes));
    let pruned = nodes.iter().filter(|n| n.action == PRUNED).count();
    if pruned == 0 {
        bail!(Unsupported, "no weight could be pruned: {}", targets::reasons(&nodes));
    }
    let mut report = Report::new("prune", serde_json::to_value(options).unwrap_or_default());
    report.summary.insert("nodes_pruned".into(), pruned.into());
    report.summary.insert("nodes_left".into(), (nodes.len() - pruned).into());
    summarize(&mut report, model, &plan.targets, outcomes);
    rewrite::replace(&mut proto, &plan.targets, outcomes);
    let result = model.derive(proto);
    report.sizes(model.bytes(), result.bytes());
    report.summary.insert("note".into(), DENSE.into());
    report.nodes = nodes;
    Ok((result, report))
}

/// Removes layers, neurons, channels and heads, and returns the result and a report.
fn structured(
    model: &Model,
    options: &PruneOptions,
    calibration: Option<(&'static Runtime, &Calibration<'_>)>,
    call: &Call,
) -> Result<(Model, Report)> {
    let start = Instant::now();
    let batches = |model: &Model| -> Result<Option<(&'static Runtime, Vec<Batch>)>> {
        calibration.map(|(runtime, given)| Ok((runtime, calibrate::batches(model, given)?))).transpose()
    };
    let mut dropped = None;
    let mut shorter = model.clone();
    if options.drops_layers() {
        let known = if options.layers.is_empty() { batches(model)? } else { None };
        let data = known.as_ref().map(|(runtime, batches)| Data { runtime, batches });
        let (result, what) = layers::drop(model, options, data, call)?;
        (shorter, dropped) = (result, Some(what));
    }
    let (result, mut report) = match options.sparsity > 0.0 || options.target_size > 0 || options.target_speedup > 0.0 {
        true => {
            let known = batches(&shorter)?;
            let data = known.as_ref().map(|(runtime, batches)| Data { runtime, batches });
            structured::structured(&shorter, options, data, call)?
        }
        false => {
            let mut report = Report::new("prune", Value::Null);
            report.summary.insert("parameters_after".into(), crate::inspect::inspect(&shorter).parameters.into());
            report.summary.insert("bytes_after".into(), shorter.bytes().into());
            report.summary.extend(structured::flops(&shorter).map(|f| ("flops_per_position_after".into(), f.into())));
            (shorter.clone(), report)
        }
    };
    report.options = serde_json::to_value(options).unwrap_or_default();
    if let Some(dropped) = dropped {
        dropped.describe(&mut report);
        let parameters = crate::inspect::inspect(model).parameters;
        report.summary.insert("parameters_before".into(), parameters.into());
        report.summary.insert("bytes_before".into(), model.bytes().into());
        report.summary.extend(structured::flops(model).map(|f| ("flops_per_position_before".into(), f.into())));
    }
    report.finish(start);
    Ok((result, report))
}

/// Returns the report on each node with a weight, in the order of the model.
fn reports(view: &View<'_>, plan: &Plan<'_>, outcomes: &[Outcome]) -> Vec<NodeReport> {
    let mut all = plan.left.clone();
    for (target, outcome) in plan.targets.iter().zip(outcomes) {
        for (nth, &(body, node)) in target.readers.iter().enumerate() {
            let (action, mut reason) = match outcome {
                Ok(pruned) => (PRUNED, describe(target, pruned)),
                Err(reason) => (LEFT, reason.clone()),
            };
            if nth > 0 {
                reason.push_str("; shared with the node above that reads it");
            }
            if target.overridable && nth == 0 {
                reason.push_str("; the weight is also an optional input");
            }
            all.push((body, node, report_of(view.node(body, node), action, reason)));
        }
    }
    all.sort_by_key(|(body, node, _)| (*body, *node));
    all.into_iter().map(|(_, _, report)| report).collect()
}

fn describe(target: &Target<'_>, pruned: &Pruned) -> String {
    let of = target.elements() as u64;
    let had = match pruned.zeros_before {
        0 => String::new(),
        zeros => format!(", {} % before", percent(zeros, of)),
    };
    let asked = (target.sparsity * 1000.0).round() / 10.0;
    let (reached, zeros) = (percent(pruned.zeros_after, of), pruned.zeros_after);
    format!("{reached} % are zero ({zeros} of {of}), {asked:.1} % requested{had}; {}", pruned.how)
}

fn percent(part: u64, of: u64) -> String {
    format!("{:.1}", 100.0 * part as f64 / of.max(1) as f64)
}

/// Adds the sums over all targets, and over the targets of each module, to the report.
fn summarize(report: &mut Report, model: &Model, targets: &[Target<'_>], outcomes: &[Outcome]) {
    #[derive(Default)]
    struct Sums {
        weights: u64,
        parameters: u64,
        before: u64,
        after: u64,
        asked: f64,
    }
    let mut modules: BTreeMap<&str, Sums> = BTreeMap::new();
    let mut total = Sums::default();
    for (target, outcome) in targets.iter().zip(outcomes) {
        let Ok(pruned) = outcome else { continue };
        for sums in [modules.entry(&target.module).or_default(), &mut total] {
            let elements = target.elements() as u64;
            sums.weights += 1;
            sums.parameters += elements;
            sums.before += pruned.zeros_before;
            sums.after += pruned.zeros_after;
            sums.asked += target.sparsity * elements as f64;
        }
    }
    let share = |part: f64, of: u64| json!((part / of.max(1) as f64 * 1e6).round() / 1e6);
    let of_module = |s: &Sums| {
        json!({"weights": s.weights, "parameters": s.parameters, "zeros_before": s.before, "zeros_after": s.after,
               "sparsity_asked": share(s.asked, s.parameters), "sparsity": share(s.after as f64, s.parameters)})
    };
    let all = crate::inspect::inspect(model).parameters;
    let mut put = |key: &str, value: Value| report.summary.insert(key.into(), value);
    put("weights_pruned", total.weights.into());
    put("parameters", all.into());
    put("parameters_pruned", total.parameters.into());
    put("zeros_before", total.before.into());
    put("zeros_after", total.after.into());
    put("sparsity_asked", share(total.asked, total.parameters));
    put("sparsity", share(total.after as f64, total.parameters));
    put("sparsity_of_all", share(total.after as f64, all));
    put("modules", modules.iter().map(|(name, sums)| ((*name).to_owned(), of_module(sums))).collect());
}
