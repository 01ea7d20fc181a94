//! Static quantization: scales of activations are found on data and written into the model.
//!
//! `fold` takes what follows a convolution into its weight, `select` says which nodes compute with bytes, `operators`
//! what ONNX Runtime has kernels for, `scales` how ranges become scales, `write` the new graph; `limits` leaves nodes in
//! float that cost too much. Ranges come from [`crate::calibrate::ranges`].

mod fold;
mod limits;
mod operators;
mod scales;
mod select;
mod write;

use super::planner::{self, Form, Plan, Weight};
use super::scaling::smooth;
use super::{Algorithm, CalibrationMethod, QuantizeOptions, QuantizeType, Work, dynamic, weights};
use crate::calibrate::{self, Batch, Method, Range};
use crate::call::{Call, Ticket};
use crate::error::{Result, bail, error};
use crate::graph::View;
use crate::model::Model;
use crate::onnx::proto::{ModelProto, NodeProto};
use crate::report::{NodeReport, Report};
use crate::runtime::{Runtime, Stop};
use select::Selection;
use std::collections::HashMap;
use weights::Int8Matrix;

/// Beyond this an activation has values that mean "nothing at all", such as those of a mask.
const WIDEST: f32 = 1e15;

/// What came of it.
pub struct Made {
    /// The new model.
    pub proto: ModelProto,
    /// What was done to each node.
    pub nodes: Vec<NodeReport>,
}

/// A model made ready, and what is known of its values.
pub struct Ready<'w> {
    work: &'w Work<'w>,
    runtime: &'static Runtime,
    /// Normalizations folded and activations smoothed; `None` if there was nothing of the kind.
    model: Option<Model>,
    /// Of nodes that are folded away.
    gone: Vec<NodeReport>,
    batches: Vec<Batch>,
    ranges: HashMap<String, Range>,
}

/// Quantizes, within the limits that are asked for. Reports the stages `calibrate` in runs and `quantize` in weight bytes.
pub fn run(
    work: &Work<'_>,
    runtime: &'static Runtime,
    batches: Vec<Batch>,
    report: &mut Report,
) -> Result<(Model, Vec<NodeReport>)> {
    let method = serde_json::to_value(work.options.calibration_method).unwrap_or_default();
    report.summary.insert("calibration_method".into(), method);
    let mut ready = Ready::new(work, runtime, batches)?;
    if work.options.never_slower || work.options.max_quality_loss > 0.0 {
        return limits::run(&mut ready, report);
    }
    let made = ready.make(&|_| None)?;
    Ok((work.model.derive(made.proto), made.nodes))
}

impl<'w> Ready<'w> {
    fn new(work: &'w Work<'w>, runtime: &'static Runtime, batches: Vec<Batch>) -> Result<Ready<'w>> {
        let folded = fold::fold(work.model);
        let (model, gone) = folded.map_or((None, Vec::new()), |(model, gone)| (Some(model), gone));
        let smoothed = smoothed(model.as_ref().unwrap_or(work.model), work.options, (runtime, &batches), work.call)?;
        Ok(Ready { work, runtime, model: smoothed.or(model), gone, batches, ranges: HashMap::new() })
    }

    fn model(&self) -> &Model {
        self.model.as_ref().unwrap_or(self.work.model)
    }

    /// Quantizes all nodes for which `stays` has no reason to leave them in float.
    fn make(&mut self, stays: &dyn Fn(&NodeProto) -> Option<&'static str>) -> Result<Made> {
        let model = self.model().clone();
        let (options, call) = (self.work.options, self.work.call);
        let view = View::new(model.proto());
        let reason = |(index, node): (usize, &NodeProto)| Some((index, stays(node)?.to_owned()));
        let mut banned: HashMap<usize, String> = view.bodies[0].nodes.iter().enumerate().filter_map(reason).collect();
        let selection = select::select(&view, &model, options, &banned)?;
        if selection.chosen.is_empty() {
            bail!(Unsupported, "no node could be quantized: {}", reasons(&selection));
        }
        self.find_ranges(&model, &selection)?;
        let too_wide = |name: &str| self.ranges.get(name).is_some_and(|r| r.high - r.low > WIDEST);
        ban(&selection, &mut banned, "an activation has values that are too far apart", |names| {
            names.iter().any(|n| too_wide(n))
        });
        let mut selection = select::select(&view, &model, options, &banned)?;
        let mut weights = code(&selection, options, call)?;
        for (index, role) in &selection.chosen {
            if matches!(role, select::Role::Weighted(w) if weights[w.weight].is_none()) {
                banned.insert(*index, "the weight holds values that are not finite".to_owned());
            }
        }
        if !weights.iter().all(Option::is_some) {
            selection = select::select(&view, &model, options, &banned)?;
            weights = code(&selection, options, call)?;
        }
        if selection.chosen.is_empty() {
            bail!(Unsupported, "no node could be quantized: {}", reasons(&selection));
        }
        self.find_ranges(&model, &selection)?;
        let range_of = |names: &[String]| {
            let own = names.iter().filter_map(|name| self.ranges.get(name));
            own.fold(Range::ZERO, |all, one| all.with(*one))
        };
        let groups: Vec<(Vec<String>, Range)> =
            selection.values().into_iter().map(|names| (names.clone(), range_of(&names))).collect();
        let weights: Vec<Int8Matrix> = weights.into_iter().flatten().collect();
        let (proto, nodes) = write::write(model.proto(), &selection, &groups, weights);
        let nodes = self.gone.iter().cloned().chain(nodes).collect();
        tables(model.derive(proto), nodes, options, call)
    }

    /// Of the values of a selection that have none yet.
    fn find_ranges(&mut self, model: &Model, selection: &Selection<'_, '_>) -> Result<()> {
        let mut values: Vec<String> = selection.values().into_iter().flatten().collect();
        values.retain(|name| !self.ranges.contains_key(name));
        if values.is_empty() {
            return Ok(());
        }
        let options = self.work.options;
        let method = match options.calibration_method {
            CalibrationMethod::MinMax => Method::MinMax,
            CalibrationMethod::Percentile => Method::Percentile(options.percentile),
            CalibrationMethod::Entropy => Method::Entropy,
            CalibrationMethod::Mse => Method::LeastSquares,
        };
        let total = calibrate::runs(values.len(), self.batches.len(), method);
        let found = self.work.call.drive("calibrate", total, |ticket| {
            let stop = Stop::new()?;
            let data = (&self.batches[..], &values[..]);
            calibrate::ranges(self.runtime, model, options.threads, data, method, (ticket, &stop))
        })?;
        self.ranges.extend(found);
        Ok(())
    }
}

/// The model with smoother activations, if that was asked for.
fn smoothed(
    model: &Model,
    options: &QuantizeOptions,
    data: (&'static Runtime, &[Batch]),
    call: &Call,
) -> Result<Option<Model>> {
    if options.smooth_quant == 0.0 {
        return Ok(None);
    }
    let view = View::new(model.proto());
    let selection = select::select(&view, model, options, &HashMap::new())?;
    let weighted = selection.chosen.iter().filter(|(_, role)| matches!(role, select::Role::Weighted(_)));
    let nodes: Vec<usize> = weighted.map(|(index, _)| *index).collect();
    smooth::smooth(model, &nodes, options, data, call).map(Some)
}

fn reasons(selection: &Selection<'_, '_>) -> String {
    let nodes: Vec<NodeReport> = selection.left.iter().map(|(_, _, node)| node.clone()).collect();
    if nodes.is_empty() {
        return "the model has no Conv, MatMul or Gemm with a constant weight".to_owned();
    }
    planner::reasons(&nodes)
}

/// Bans the nodes with a weight that read or make values of which `bad` is true.
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

fn code(selection: &Selection<'_, '_>, options: &QuantizeOptions, call: &Call) -> Result<Vec<Option<Int8Matrix>>> {
    let weights = selection.weights.iter().map(weight_of).collect();
    code_plan(&Plan { weights, changes: Vec::new(), left: Vec::new(), limit: planner::limit(options) }, options, call)
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
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| error!(Internal, "the worker threads could not be started: {e}"))?;
    let work = |ticket: &Ticket| pool.install(|| weights::all(plan, options, ticket));
    call.drive("quantize", plan.weight_bytes(), work)
}

/// Embedding tables, which are rows of int8 in either form.
fn tables(model: Model, mut nodes: Vec<NodeReport>, options: &QuantizeOptions, call: &Call) -> Result<Made> {
    let of_tables = QuantizeOptions {
        quantize_type: QuantizeType::Dynamic,
        algorithm: Algorithm::Auto,
        include: Vec::new(),
        ..options.clone()
    };
    let view = View::new(model.proto());
    let mut plan = planner::plan(&view, &model, &of_tables)?;
    plan.changes.retain(|change| change.form == Form::Table);
    plan.left.retain(|(_, _, node)| node.op == "Gather");
    if plan.changes.is_empty() && plan.left.is_empty() {
        drop(plan);
        let proto = model.proto().clone();
        return Ok(Made { proto, nodes });
    }
    let mut place: HashMap<usize, usize> = HashMap::new();
    for change in &mut plan.changes {
        let next = place.len();
        change.weight = *place.entry(change.weight).or_insert(next);
    }
    let mut kept: Vec<(usize, Weight<'_>)> = std::mem::take(&mut plan.weights)
        .into_iter()
        .enumerate()
        .filter_map(|(i, w)| Some((*place.get(&i)?, w)))
        .collect();
    kept.sort_by_key(|(place, _)| *place);
    plan.weights = kept.into_iter().map(|(_, weight)| weight).collect();
    let coded = code_plan(&plan, options, call)?;
    let (proto, more) = dynamic::rewrite(model.proto(), &plan, coded, None);
    nodes.extend(more);
    Ok(Made { proto, nodes })
}
