//! Structured pruning: whole units (neurons, channels, heads) are removed, tensors are cut, and the model is smaller
//! and faster.
//!
//! The method is that of DepGraph (Fang et al. 2023, arXiv 2301.12900) on ONNX, with three separate parts:
//! *dependencies* (`analysis`, with a rule for each kind of node), *importance* (`importance`), and *cutting*
//! (`cut`). A unit is a set of elements of axes that can only be removed together. Its path through the model begins
//! in weights that produce it and ends in weights that sum over it; all nodes between them are elementwise. So a model
//! without some units equals the whole model with zeros in the rows of those last weights ([`Plan::masked`]): a bias
//! between them can turn zeros into other values, but all consumers of the unit have zeros in its rows.

mod analysis;
mod axes;
mod cut;
mod follow;
mod goal;
mod groups;
mod importance;
mod known;
mod numbers;
mod reconstruct;
mod rules;
mod select;
mod sizes;
mod tensors;

pub use crate::calibrate::Data;
use crate::call::{Call, Stage};
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::graph::quantized::is_quantized;
use crate::model::Model;
use crate::report::{NodeReport, Report};
use crate::runtime::Stop;
use analysis::Analysis;
use axes::Kept;
use known::Known;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

pub use super::options::{Importance, PruneOptions, SparsityOverride};

/// Fails with `InvalidArgument` for options that only structured pruning rejects; [`super::prune`] checks
/// [`PruneOptions`] as a whole.
fn check(options: &PruneOptions, calibrated: bool) -> Result<()> {
    for sparsity in std::iter::once(options.sparsity).chain(options.overrides.iter().map(|o| o.sparsity)) {
        if !(0.0..1.0).contains(&sparsity) {
            bail!(InvalidArgument, "sparsity is {sparsity}; it must be at least 0 and below 1 for structured pruning");
        }
    }
    if !calibrated && (options.reconstruct || options.importance == Importance::Activation) {
        let what = if options.reconstruct { "reconstruction" } else { "importance by activation" };
        bail!(InvalidArgument, "{what} needs calibration data");
    }
    Ok(())
}

/// Removes units from a model, and returns the new model and a report. The original is unchanged.
///
/// Ignores [`PruneOptions::method`] and options of other methods. With a sparsity of 0, and neither overrides nor
/// targets, no unit is removed. Fails with `Unsupported` if no unit can be removed or the model is quantized, with
/// `InvalidArgument` for invalid options or names that match no module (the message lists the existing ones), and with
/// `GateNotMet` if no sparsity meets `target_size` or `target_speedup`.
pub fn structured(
    model: &Model,
    options: &PruneOptions,
    data: Option<Data<'_>>,
    call: &Call,
) -> Result<(Model, Report)> {
    let start = Instant::now();
    let mut plan = Plan::new(model, options, data, call)?;
    if options.target_size > 0 {
        plan = goal::size(&plan, options.target_size)?;
    } else if options.target_speedup > 0.0 {
        plan = goal::speed(&plan, options.target_speedup, data.map(|data| data.runtime), call)?;
    }
    if let (Some(data), true) = (data, options.reconstruct) {
        plan.reconstruct(data, call)?;
    }
    let result = plan.cut(call)?;
    let mut report = plan.report(&result)?;
    report.finish(start);
    Ok((result, report))
}

/// Returns the FLOPs of a model for a token, or for a position of an image; `None` if it cannot be analysed.
pub(super) fn flops(model: &Model) -> Option<u64> {
    let known = Known::of(model, None);
    let mut analysis = Analysis::new(model, &known).ok()?;
    let kept = Kept::new(&mut analysis.axes, |_| false);
    Some(cut::counts(&analysis, &kept).flops.0)
}

/// Returns the known sizes of the values of the main graph, under two assignments of the open sizes.
pub(super) fn sizes_of(model: &Model) -> HashMap<String, Vec<[i64; 2]>> {
    let known = Known::of(model, None);
    let Ok(analysis) = Analysis::new(model, &known) else { return HashMap::new() };
    analysis.values.into_iter().map(|(name, value)| (name.to_owned(), value.dims)).collect()
}

/// The units to remove, and everything that was computed to select them.
pub struct Plan {
    model: Model,
    options: PruneOptions,
    /// Classes of the units to remove, sorted.
    gone: Vec<u32>,
    nodes: Vec<NodeReport>,
    /// Number of units before and after, over all groups.
    units: (usize, usize),
    /// Weights with changed values, by name.
    changed: HashMap<String, crate::onnx::proto::TensorProto>,
    notes: Vec<String>,
    /// Facts about the model that were known before its axes were analysed.
    known: Arc<Known>,
    /// Score of each unit of each group.
    scores: Arc<Vec<Vec<f64>>>,
}

impl Plan {
    /// Returns a plan with the units to remove from `model`. Fails as [`structured`] does, except with `GateNotMet`.
    pub fn new(model: &Model, options: &PruneOptions, data: Option<Data<'_>>, call: &Call) -> Result<Plan> {
        check(options, data.is_some())?;
        let mut proto = model.proto().clone();
        edit::modernize_ir(&mut proto);
        let model = model.derive(proto);
        if let Some(node) = model.graph().node.iter().find(|node| is_quantized(node)) {
            bail!(
                Unsupported,
                "node {:?} ({}): the model is already quantized; prune the float model, and quantize the result",
                node.label(),
                node.op()
            );
        }
        let known = Arc::new(Known::of(&model, data.map(|data| data.runtime)));
        let mut analysis = Analysis::new(&model, &known)?;
        let groups = groups::find(&mut analysis);
        let selected = select::targets(&model, &analysis, &groups, options)?;
        let statistics = match data {
            Some(data) if options.importance == Importance::Activation => {
                let stop = Stop::new()?;
                let inputs = importance::inputs(&analysis, &groups);
                call.drive(Stage::CALIBRATE, (inputs.len() * data.batches.len()) as u64, |ticket| {
                    importance::mean_squares(&data.run(options.threads, ticket, &stop), &model, &inputs)
                })?
            }
            _ => HashMap::new(),
        };
        let scores = importance::scores(&analysis, &groups, options, &statistics)?;
        let chosen = select::choose(&analysis, &groups, &selected, &scores, options)?;
        drop(analysis);
        Ok(Plan::of(model, options.clone(), chosen, (known, Arc::new(scores))))
    }

    fn of(
        model: Model,
        options: PruneOptions,
        chosen: select::Chosen,
        (known, scores): (Arc<Known>, Arc<Vec<Vec<f64>>>),
    ) -> Plan {
        let select::Chosen { gone, nodes, units } = chosen;
        Plan { model, options, gone, nodes, units, changed: HashMap::new(), notes: Vec::new(), known, scores }
    }

    /// Returns the plan for another sparsity. The overrides are unchanged.
    fn at(&self, sparsity: f64) -> Result<Plan> {
        let options = PruneOptions { sparsity, ..self.options.clone() };
        let mut analysis = Analysis::new(&self.model, &self.known)?;
        let groups = groups::find(&mut analysis);
        let selected = select::targets(&self.model, &analysis, &groups, &options)?;
        let chosen = select::choose(&analysis, &groups, &selected, &self.scores, &options)?;
        drop(analysis);
        Ok(Plan::of(self.model.clone(), options, chosen, (self.known.clone(), self.scores.clone())))
    }

    /// Returns the size in bytes that the resulting model will have on disk, without the small changes of its graph.
    fn bytes(&self) -> Result<u64> {
        let mut analysis = Analysis::new(&self.model, &self.known)?;
        let kept = self.kept(&mut analysis);
        let (before, after) = cut::counts(&analysis, &kept).bytes;
        let now = Model::from_proto(self.model.proto().clone()).bytes();
        Ok(now.saturating_sub(before.saturating_sub(after)))
    }

    fn kept(&self, analysis: &mut Analysis<'_>) -> Kept {
        Kept::new(&mut analysis.axes, |class| self.gone.binary_search(&class).is_ok())
    }

    /// Returns the whole model with zeros where weights sum over removed units. Its outputs are those of the cut model,
    /// except for differences by the order of sums. Fails with `Unsupported` for opsets before 7, if the nodes form a
    /// cycle, or if a weight is not float.
    pub fn masked(&self) -> Result<Model> {
        let mut analysis = Analysis::new(&self.model, &self.known)?;
        let kept = self.kept(&mut analysis);
        cut::masked(self, &analysis, &kept)
    }

    /// Returns the model without the removed units. Fails like [`Plan::masked`], with `Io` if scratch storage cannot be
    /// written, and with `Cancelled` or `Timeout`.
    pub fn cut(&self, call: &Call) -> Result<Model> {
        let mut analysis = Analysis::new(&self.model, &self.known)?;
        let kept = self.kept(&mut analysis);
        cut::cut(self, &analysis, &kept, call)
    }

    /// Changes the weights that read the kept units so that they compensate the removed ones on calibration data. Fails
    /// if the model does not run on the data.
    pub fn reconstruct(&mut self, data: Data<'_>, call: &Call) -> Result<()> {
        let done = {
            let mut analysis = Analysis::new(&self.model, &self.known)?;
            let kept = self.kept(&mut analysis);
            reconstruct::all(self, &analysis, &kept, data, call)?
        };
        self.changed = done.weights;
        self.notes = done.notes;
        Ok(())
    }

    /// Returns the report; `result` is the result of [`Plan::cut`]. Fails with `Unsupported` for opsets before 7, or if
    /// the nodes form a cycle.
    pub fn report(&self, result: &Model) -> Result<Report> {
        let mut report = Report::new("prune", serde_json::to_value(&self.options).unwrap_or_default());
        let mut analysis = Analysis::new(&self.model, &self.known)?;
        let kept = self.kept(&mut analysis);
        let counts = cut::counts(&analysis, &kept);
        let mut put = |name: &str, value: serde_json::Value| report.summary.insert(name.to_owned(), value);
        put("sparsity", self.options.sparsity.into());
        put("units_before", self.units.0.into());
        put("units_after", self.units.1.into());
        put("target_parameters_before", counts.targets.0.into());
        put("target_parameters_after", counts.targets.1.into());
        put("parameters_before", counts.parameters.0.into());
        put("parameters_after", counts.parameters.1.into());
        put("flops_per_position_before", counts.flops.0.into());
        put("flops_per_position_after", counts.flops.1.into());
        put("bytes_before", self.model.bytes().into());
        put("bytes_after", result.bytes().into());
        if !self.notes.is_empty() {
            put("notes", self.notes.clone().into());
        }
        report.nodes = self.nodes.clone();
        Ok(report)
    }
}
