//! Static quantization: scales of activations are found on data and written into the model.
//!
//! `fold` folds the nodes behind a convolution into its weight, `select` selects the quantized nodes, `operators`
//! lists ONNX Runtime's kernels, `scales` converts ranges to scales (`operand` and `bias` those of constants),
//! `write` writes the new graph; `limits` leaves nodes float that cost too much. `normalize` rewrites the model so
//! that kernels match, and `examine` verifies that they did. Ranges come from [`crate::calibrate::ranges`].

mod bias;
mod examine;
mod fold;
mod limits;
mod normalize;
mod operand;
mod operators;
mod scales;
mod select;
mod write;

use super::planner::{self, Form, Plan, Weight};
use super::scaling::smooth;
use super::{Algorithm, CalibrationMethod, QuantizeOptions, QuantizeType, Run};
use super::{dynamic, logarithm, outcome, stored, weights};
use crate::calibrate::{self, Batch, Data, Method, Range};
use crate::call::{Call, Stage, Ticket};
use crate::error::{Error, Result, bail};
use crate::graph::View;
use crate::model::Model;
use crate::onnx::proto::{ModelProto, NodeProto};
use crate::report::{NodeReport, Report};
use crate::runtime::{Runtime, Stop};
use crate::verify::{self, Examiner, Kept};
use scales::Scale;
use select::{Role, Selection};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use weights::Int8Matrix;

/// The width of a range beyond which an activation contains values without meaning, such as those of a mask.
const WIDEST: f32 = 1e6;
/// The reason why a node that SmoothQuant adds stays float.
const SMOOTHS: &str = "it scales activations, which are rounded only then";
/// The duration of a run above which models are not timed.
const SHORT: Duration = Duration::from_millis(250);

/// The result of static quantization.
pub struct Made {
    /// Quantized model.
    pub proto: ModelProto,
    /// Reports on the nodes.
    pub nodes: Vec<NodeReport>,
}

/// A prepared model with the ranges of its values.
pub struct Ready<'w> {
    run: Run<'w>,
    runtime: &'static Runtime,
    /// Normalized model, with folded nodes and smoothed activations.
    model: Model,
    /// Report entries of the folded nodes.
    gone: Vec<NodeReport>,
    batches: Vec<Batch>,
    ranges: HashMap<String, Range>,
    /// Names of `MatMul` nodes whose bias is the constant that the following `Add` adds.
    biased: HashSet<String>,
    /// Reasons why nodes stay float by name: ONNX Runtime computes them differently, or they smooth activations.
    faulty: HashMap<String, String>,
}

/// Quantizes the model within the requested limits, and returns the result and the reports on its nodes. Reports the
/// stages `calibrate` in runs and `quantize` in weight bytes, and with limits `speed` and `sensitivity`. Fails with
/// `InvalidArgument` if there are no batches, with `Unsupported` or `GateNotMet` if no node can be quantized, with
/// `GateNotMet` if no result meets the limits, with `Cancelled` or `Timeout`, and if the model cannot be run.
pub fn run(
    run: Run<'_>,
    runtime: &'static Runtime,
    batches: Vec<Batch>,
    report: &mut Report,
) -> Result<(Model, Vec<NodeReport>)> {
    let method = serde_json::to_value(run.options.calibration_method).unwrap_or_default();
    report.summary.insert("calibration_method".into(), method);
    let Some(sample) = batches.first().cloned() else { bail!(InvalidArgument, "there is no calibration data") };
    let mut ready = Ready::new(run, runtime, batches, report)?;
    let examiner = match Examiner::new(runtime, run.model, &sample, run.options.threads, Kept::Rounded, run.call) {
        Err(e) if e.kind().ends_a_call() => return Err(e),
        Err(e) => {
            report.summary.insert("not_verified".into(), e.to_string().into());
            None
        }
        Ok(examiner) => Some(examiner),
    };
    let (mut made, mut facts) = ready.examined(examiner.as_ref(), &HashMap::new())?;
    if run.options.never_slower || run.options.max_quality_loss > 0.0 {
        let found = limits::run(&mut ready, report)?;
        // Leaving nodes in float also changes the nodes next to them, so the result is verified again.
        (made, facts) = ready.examined(examiner.as_ref(), &found.stays)?;
        let costs = &found.sensitivities;
        made.nodes.iter_mut().for_each(|node| node.sensitivity = costs.get(&node.name).copied());
    }
    let model = run.model.derive(made.proto);
    if let Some(examiner) = &examiner {
        verify::note(report, facts, "");
        if run.options.race && examiner.took() < SHORT && !report.summary.contains_key("speedup") {
            let models = (run.model, &model);
            let speedup = verify::race(runtime, models, &sample, run.options.threads, run.call)?;
            verify::warn_of_speed(report, &speedup);
        }
    }
    verify::warn_of_size(report, run.model.bytes(), model.bytes());
    Ok((model, made.nodes))
}

impl<'w> Ready<'w> {
    fn new(run: Run<'w>, runtime: &'static Runtime, batches: Vec<Batch>, report: &mut Report) -> Result<Ready<'w>> {
        let (options, call) = (run.options, run.call);
        let lifted = normalize::lifted(run.model, &batches[0], runtime, call)?;
        if let Some(lifted) = &lifted {
            report.summary.insert("opset_before".into(), run.model.opset().into());
            report.summary.insert("opset_after".into(), lifted.opset().into());
        }
        let normal = normalize::normal(lifted.as_ref().unwrap_or(run.model), options, runtime, call)?;
        let (mut model, mut gone) = (normal.model, normal.gone);
        if let Some((folded, more)) = fold::fold(&model) {
            gone.extend(more);
            model = folded;
        }
        let (ranges, mut faulty) = (HashMap::new(), HashMap::new());
        if let Some(smoothed) = smoothed(&model, options, Data { runtime, batches: &batches }, call)? {
            let known: HashSet<Option<String>> = model.graph().node.iter().map(|node| node.name.clone()).collect();
            let added = smoothed.graph().node.iter().filter(|node| !known.contains(&node.name));
            faulty.extend(added.map(|node| (node.label().to_owned(), SMOOTHS.to_owned())));
            model = smoothed;
        }
        Ok(Ready { run, runtime, model, gone, batches, ranges, biased: normal.fixed, faulty })
    }

    /// Returns the model with all nodes quantized that can be quantized, except those that `stays` or an earlier
    /// verification excludes. `stays` returns the reason why a node stays float, and `None` for other nodes. Fails with
    /// `Unsupported` or `GateNotMet` if no node is quantized.
    fn make(&mut self, stays: &dyn Fn(&NodeProto) -> Option<String>) -> Result<Made> {
        let model = self.model.clone();
        let (options, call) = (self.run.options, self.run.call);
        let view = View::new(model.proto());
        let reason = |(index, node): (usize, &NodeProto)| {
            Some((index, self.faulty.get(node.label()).cloned().or_else(|| stays(node))?))
        };
        let mut banned: HashMap<usize, String> = view.bodies[0].nodes.iter().enumerate().filter_map(reason).collect();
        let (selection, groups, weights) = loop {
            let mut selection = select::select(&view, &model, options, &banned)?;
            selection.biased.clone_from(&self.biased);
            if selection.chosen.is_empty() {
                let left = selection.left.iter().map(|(_, _, node)| node.clone()).collect();
                let made = rest(model.clone(), left, options, call)?;
                // Stored weights make no run faster, so they do not suffice with `never_slower`.
                let stored = |node: &NodeReport| node.action == stored::STORED_INT8 && !options.never_slower;
                if made.nodes.iter().any(|node| node.action == planner::QUANTIZED || stored(node)) {
                    return Ok(made);
                }
                return Err(nothing(&selection));
            }
            self.find_ranges(&model, &selection)?;
            let before = banned.len();
            let groups = self.groups(&selection);
            self.ban_values(&selection, &groups, &mut banned);
            if banned.len() > before {
                continue;
            }
            let weights = code(&selection, options, call)?;
            ban_weights(&selection, &weights, &mut banned);
            if banned.len() == before {
                break (selection, groups, weights.into_iter().flatten().collect());
            }
        };
        let (proto, nodes) = write::write(model.proto(), &selection, &groups, weights);
        let nodes = self.gone.iter().cloned().chain(nodes).collect();
        rest(model.derive(proto), nodes, options, call)
    }

    /// Returns all quantized values with their ranges; values that share a scale are in one group.
    fn groups(&self, selection: &Selection<'_, '_>) -> Vec<(Vec<String>, Range)> {
        let range_of = |names: &[String]| {
            let own = names.iter().filter_map(|name| self.ranges.get(name));
            own.fold(Range::ZERO, |all, one| all.with(*one))
        };
        selection.values().into_iter().map(|names| (names.clone(), range_of(&names))).collect()
    }

    /// Excludes nodes with values that 8 bits cannot represent.
    fn ban_values(
        &self,
        selection: &Selection<'_, '_>,
        groups: &[(Vec<String>, Range)],
        banned: &mut HashMap<usize, String>,
    ) {
        let too_wide = |name: &str| self.ranges.get(name).is_some_and(|r| r.high - r.low > WIDEST);
        ban(selection, banned, "the range of an activation is too large", |names| names.iter().any(|n| too_wide(n)));
        let scales: HashMap<&str, Scale> =
            groups.iter().flat_map(|(names, range)| names.iter().map(|n| (n.as_str(), Scale::of(*range)))).collect();
        let scale = |name: &str| scales.get(name).copied();
        for index in selection.chosen.keys().filter(|index| selection.is_coarse(**index, &scale)) {
            let reason = "the range of the constant is too large for 8 bits".to_owned();
            banned.entry(*index).or_insert(reason);
        }
    }

    /// Determines the ranges of the values of `selection` that have no range yet.
    fn find_ranges(&mut self, model: &Model, selection: &Selection<'_, '_>) -> Result<()> {
        let mut values: Vec<String> = selection.values().into_iter().flatten().collect();
        values.retain(|name| !self.ranges.contains_key(name));
        if values.is_empty() {
            return Ok(());
        }
        let options = self.run.options;
        let method = match options.calibration_method {
            CalibrationMethod::MinMax => Method::MinMax,
            CalibrationMethod::Percentile => Method::Percentile(options.percentile),
            CalibrationMethod::Entropy => Method::Entropy,
            CalibrationMethod::Mse => Method::LeastSquares,
        };
        let total = calibrate::runs(model, &values, self.batches.len(), method);
        let found = self.run.call.drive(Stage::CALIBRATE, total, |ticket| {
            let stop = Stop::new()?;
            let data = Data { runtime: self.runtime, batches: &self.batches };
            calibrate::ranges(&data.run(options.threads, ticket, &stop), model, &values, method)
        })?;
        self.ranges.extend(found);
        Ok(())
    }
}

/// Returns the model with smoother activations; `None` if the options do not request this.
fn smoothed(model: &Model, options: &QuantizeOptions, data: Data<'_>, call: &Call) -> Result<Option<Model>> {
    if options.smooth_quant == 0.0 {
        return Ok(None);
    }
    let view = View::new(model.proto());
    let selection = select::select(&view, model, options, &HashMap::new())?;
    let weighted = selection.chosen.iter().filter(|(_, role)| matches!(role, Role::Weighted(_)));
    let nodes: Vec<usize> = weighted.map(|(index, _)| *index).collect();
    smooth::smooth(model, &nodes, options, data, call).map(Some)
}

/// Returns the error if no node was quantized.
fn nothing(selection: &Selection<'_, '_>) -> Error {
    let nodes: Vec<NodeReport> = selection.left.iter().map(|(_, _, node)| node.clone()).collect();
    let why = match nodes.is_empty() {
        true => "the model has no Conv, MatMul or Gemm with a constant weight".to_owned(),
        false => outcome::reasons(&nodes),
    };
    outcome::nothing(&nodes, why)
}

/// Excludes the selected nodes that read or produce quantized values for which `bad` is true.
fn ban(
    selection: &Selection<'_, '_>,
    banned: &mut HashMap<usize, String>,
    reason: &str,
    bad: impl Fn(&[&str]) -> bool,
) {
    for index in selection.chosen.keys() {
        let node = selection.view.node(0, *index);
        let read = (0..node.input.len()).filter(|i| selection.reads_bytes(*index, *i)).map(|i| node.input[i].as_str());
        let made = node.output.iter().filter(|o| selection.gives_bytes(*index, o)).map(String::as_str);
        if bad(&read.chain(made).collect::<Vec<_>>()) {
            banned.insert(*index, reason.to_owned());
        }
    }
}

/// Excludes nodes whose weights are unsuitable for int8 products.
fn ban_weights(selection: &Selection<'_, '_>, weights: &[Option<Int8Matrix>], banned: &mut HashMap<usize, String>) {
    for (index, role) in &selection.chosen {
        let Role::Weighted(weighted) = role else { continue };
        let reason = match &weights[weighted.weight] {
            None => "the weight has values that are not finite",
            Some(matrix) => {
                let (count, channel) = selection.channels(weighted);
                if scales::sums_fit(matrix, count, channel) {
                    continue;
                }
                "sums of its products may not fit 32 bits"
            }
        };
        banned.insert(*index, reason.to_owned());
    }
}

/// Returns the quantized weights of a selection; `None` for a weight with a value that is not finite.
fn code(selection: &Selection<'_, '_>, options: &QuantizeOptions, call: &Call) -> Result<Vec<Option<Int8Matrix>>> {
    let weights = selection.weights.iter().map(weight_of).collect();
    let (changes, stored, left) = (Vec::new(), Vec::new(), Vec::new());
    code_plan(&Plan { weights, changes, stored, left, limit: planner::limit(options) }, options, call)
}

fn weight_of<'a>(planned: &select::Planned<'a>) -> Weight<'a> {
    Weight {
        matrix: planned.matrix.clone(),
        channel: planned.channel,
        transpose: planned.transpose,
        tensor: planned.tensor,
        name: planned.name.to_owned(),
        bits: (8, 0),
    }
}

fn code_plan(plan: &Plan<'_>, options: &QuantizeOptions, call: &Call) -> Result<Vec<Option<Int8Matrix>>> {
    let pool = crate::threads::pool(options.threads)?;
    let work = |ticket: &Ticket| pool.install(|| weights::all(plan, options, ticket));
    call.drive(Stage::QUANTIZE, plan.weight_bytes(), work)
}

/// Returns the result with the nodes quantized that static quantization treats like dynamic quantization: embedding
/// tables, and nodes in subgraphs, where ranges are not known.
fn rest(model: Model, mut nodes: Vec<NodeReport>, options: &QuantizeOptions, call: &Call) -> Result<Made> {
    let dynamically = dynamic_options(options);
    let model = store(model, &mut nodes, &dynamically, call)?;
    let view = View::new(model.proto());
    let mut plan = planner::plan(&view, &model, &dynamically)?;
    let own = |body: usize, op: &str| op == "Gather" || body != 0 && matches!(op, "MatMul" | "Gemm");
    let included = options.include.is_empty();
    plan.left.retain(|(body, _, node)| own(*body, &node.op) && node.op == "Gather");
    let plan = plan.only(|change| {
        own(change.body, view.node(change.body, change.node).op()) && (included || change.form == Form::Table)
    });
    if plan.changes.is_empty() && plan.left.is_empty() {
        drop(plan);
        let proto = model.proto().clone();
        return Ok(Made { proto, nodes });
    }
    let inside: HashSet<String> =
        plan.changes.iter().filter(|c| c.body != 0).map(|c| view.node(c.body, c.node).label().to_owned()).collect();
    let coded = code_plan(&plan, options, call)?;
    let (proto, more) = dynamic::rewrite(model.proto(), &plan, coded, None);
    nodes.retain(|node| node.reason != select::INSIDE || !inside.contains(&node.name));
    nodes.extend(more);
    Ok(Made { proto, nodes })
}

fn dynamic_options(options: &QuantizeOptions) -> QuantizeOptions {
    QuantizeOptions {
        quantize_type: QuantizeType::Dynamic,
        algorithm: Algorithm::Auto,
        include: Vec::new(),
        ..options.clone()
    }
}

/// Returns the result with int8 weights for nodes in front of a logarithm, which read them as floats.
fn store(model: Model, nodes: &mut [NodeReport], options: &QuantizeOptions, call: &Call) -> Result<Model> {
    let coarse: HashSet<String> =
        nodes.iter().filter(|node| node.reason == logarithm::REASON).map(|node| node.name.clone()).collect();
    if coarse.is_empty() {
        return Ok(model);
    }
    let view = View::new(model.proto());
    let mut plan = planner::plan(&view, &model, options)?;
    plan.stored.retain(|stored| {
        stored.readers.iter().all(|(body, node)| *body == 0 && coarse.contains(view.node(*body, *node).label()))
    });
    let pool = crate::threads::pool(options.threads)?;
    let work = |ticket: &Ticket| pool.install(|| stored::all(&plan, options, ticket));
    let outcomes = call.drive(Stage::QUANTIZE, plan.stored.iter().map(stored::Stored::bytes).sum(), work)?;
    for (_, _, report) in stored::settle(&plan, &view, &outcomes).left {
        let known = nodes.iter_mut().find(|node| node.name == report.name && node.reason == logarithm::REASON);
        if let Some(node) = known.filter(|_| report.action != planner::LEFT) {
            *node = NodeReport { reason: format!("{}, as {}", report.reason, logarithm::REASON), ..report };
        }
    }
    let mut proto = model.proto().clone();
    stored::apply(&mut proto, &plan.stored, &outcomes, None);
    Ok(model.derive(proto))
}
