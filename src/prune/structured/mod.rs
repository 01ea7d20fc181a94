//! Structured pruning: whole units go (neurons, channels, heads), tensors are cut, and the model is smaller and faster.
//!
//! The idea is that of DepGraph (Fang et al. 2023, arXiv 2301.12900), on ONNX, with its three parts apart: *what hangs
//! together* (`analysis`, with a rule for each kind of node), *what matters* (`importance`), *what is done* (`cut`).
//! A unit is a set of elements of axes that can only be removed together. Its way through the model begins in weights
//! that make it and ends in weights that sum over it; everything between works element by element. So a model without
//! some units equals the whole model with zeros in the rows of those last weights ([`Plan::masked`]), whatever lies
//! between: biases and shifts may make something of nothing, but nobody adds it up.

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

use crate::calibrate::Batch;
use crate::call::Call;
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::model::Model;
use crate::report::{NodeReport, Report, peak_rss_bytes};
use crate::runtime::{Runtime, Stop};
use analysis::Analysis;
use axes::Kept;
use known::Known;
use serde::Serialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

pub use super::options::{Importance, SparsityOverride};

/// What to cut, and how.
#[derive(Debug, Clone, Serialize)]
pub struct StructuredOptions {
    /// The part of each group's units that goes: from 0 up to, but not including, 1. Both ends of a weight may shrink,
    /// so parameters can fall by more.
    pub sparsity: f64,
    /// Other parts for some modules. The first that matches counts.
    pub overrides: Vec<SparsityOverride>,
    /// Modules whose outputs are cut (or, if they have none that can be, inputs): names or globs that match a run of the
    /// parts of a module's path, e.g. `query`, `fc*`, `layer.*.intermediate`. Empty means all that can be.
    pub target_modules: Vec<String>,
    /// Modules that are left, and whatever hangs together with them; wins over `target_modules`.
    pub exclude: Vec<String>,
    /// What says how much a unit matters.
    pub importance: Importance,
    /// For [`Importance::Random`].
    pub seed: u64,
    /// The number of units that stay is a multiple of this, as near as possible. 0 is, for the channels of
    /// two-dimensional convolutions, 16 for groups of 32 or more and 8 for groups of 16 or more: ONNX Runtime's fastest
    /// layout wants channels in sixteens where the processor has AVX-512 and in eights elsewhere, and the same model
    /// comes out on every machine. For everything else it is 16 for groups of 256 or more and 8 from 64 on; else 1.
    pub round_to: usize,
    /// Change the weights that read what is left so that their outputs stay as near as possible to what they were on
    /// calibration data (least squares).
    pub reconstruct: bool,
    /// Instead of a sparsity: the least with which the model takes at most so many bytes; 0 is none.
    pub target_size: u64,
    /// Instead of a sparsity: the least with which the model is measured to be so many times as fast; 0 is none. Needs
    /// ONNX Runtime; a decoder is measured by steps of one token.
    pub target_speedup: f64,
    /// Worker threads; 0 means all processors.
    #[serde(skip)]
    pub threads: usize,
    /// Where cut weights lie until they are saved (an unlinked file); default the system's temporary folder.
    #[serde(skip)]
    pub scratch_folder: Option<PathBuf>,
}

impl Default for StructuredOptions {
    fn default() -> Self {
        StructuredOptions {
            sparsity: 0.3,
            overrides: Vec::new(),
            target_modules: Vec::new(),
            exclude: Vec::new(),
            importance: Importance::default(),
            seed: 0,
            round_to: 0,
            reconstruct: false,
            target_size: 0,
            target_speedup: 0.0,
            threads: 0,
            scratch_folder: None,
        }
    }
}

impl StructuredOptions {
    fn check(&self, calibrated: bool) -> Result<()> {
        let all = std::iter::once(self.sparsity).chain(self.overrides.iter().map(|o| o.sparsity));
        for sparsity in all {
            if !(0.0..1.0).contains(&sparsity) {
                bail!(
                    InvalidArgument,
                    "sparsity is {sparsity}; it must be at least 0 and below 1 for structured pruning"
                );
            }
        }
        if !calibrated && (self.reconstruct || self.importance == Importance::Activation) {
            let what = if self.reconstruct { "reconstruction" } else { "importance by activation" };
            bail!(InvalidArgument, "{what} needs calibration data");
        }
        Ok(())
    }
}

/// Calibration data for [`structured`].
pub type Data<'d> = Option<(&'static Runtime, &'d [Batch])>;

/// Cuts units out of a model. The original is not changed.
///
/// Fails with `Unsupported` if nothing can be cut or the model is quantized, with `InvalidArgument` for options that
/// make no sense or match no module (the message lists those there are). Sparsity 0 gives the model back.
pub fn structured(model: &Model, options: &StructuredOptions, data: Data<'_>, call: &Call) -> Result<(Model, Report)> {
    let start = Instant::now();
    let mut plan = Plan::new(model, options, data, call)?;
    if options.target_size > 0 {
        plan = goal::size(&plan, options.target_size)?;
    } else if options.target_speedup > 0.0 {
        plan = goal::speed(&plan, options.target_speedup, data.map(|(runtime, _)| runtime), call)?;
    }
    if let (Some((runtime, batches)), true) = (data, options.reconstruct) {
        plan.reconstruct(runtime, batches, call)?;
    }
    let result = plan.cut(call)?;
    let mut report = plan.report(&result)?;
    report.seconds = start.elapsed().as_secs_f64();
    report.peak_rss_bytes = peak_rss_bytes();
    Ok((result, report))
}

/// Floating point operations of a model for a token, or a place of an image; `None` if it cannot be analysed.
pub(super) fn flops(model: &Model) -> Option<u64> {
    let known = Known::of(model, None);
    let mut analysis = Analysis::new(model, &known).ok()?;
    let kept = Kept::new(&mut analysis.axes, |_| false);
    Some(cut::counts(&analysis, &kept).flops.0)
}

/// The sizes of the values of the main graph that are known, each twice: open ones have two values.
pub(super) fn sizes_of(model: &Model) -> HashMap<String, Vec<[i64; 2]>> {
    let known = Known::of(model, None);
    let Ok(analysis) = Analysis::new(model, &known) else { return HashMap::new() };
    analysis.values.into_iter().map(|(name, value)| (name.to_owned(), value.dims)).collect()
}

/// Which units go.
pub struct Plan {
    model: Model,
    options: StructuredOptions,
    /// The classes that go, sorted.
    gone: Vec<u32>,
    nodes: Vec<NodeReport>,
    /// Units there were and are left, over all groups.
    units: (usize, usize),
    /// Weights with other values, by name.
    changed: HashMap<String, crate::onnx::proto::TensorProto>,
    notes: Vec<String>,
    /// What was known of the model before its axes were looked at.
    known: Arc<Known>,
    /// Of each unit of each group.
    scores: Arc<Vec<Vec<f64>>>,
}

impl Plan {
    /// Decides what goes.
    pub fn new(model: &Model, options: &StructuredOptions, data: Data<'_>, call: &Call) -> Result<Plan> {
        options.check(data.is_some())?;
        let mut proto = model.proto().clone();
        edit::modernize_ir(&mut proto);
        let model = model.derive(proto);
        if let Some(node) = model.graph().node.iter().find(|node| rules::is_quantized(node)) {
            bail!(
                Unsupported,
                "node {:?} ({}): the model is already quantized; prune it first",
                node.label(),
                node.op()
            );
        }
        let known = Arc::new(Known::of(&model, data.map(|(runtime, _)| runtime)));
        let mut analysis = Analysis::new(&model, &known)?;
        let groups = groups::find(&mut analysis);
        let selected = select::targets(&model, &analysis, &groups, options)?;
        let statistics = match data {
            Some((runtime, batches)) if options.importance == Importance::Activation => {
                let (stop, threads) = (Stop::new()?, options.threads);
                let inputs = importance::inputs(&analysis, &groups);
                call.drive("calibrate", inputs.len() as u64, |ticket| {
                    importance::mean_squares(runtime, &model, &inputs, batches, threads, ticket, &stop)
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
        options: StructuredOptions,
        chosen: select::Chosen,
        (known, scores): (Arc<Known>, Arc<Vec<Vec<f64>>>),
    ) -> Plan {
        let select::Chosen { gone, nodes, units } = chosen;
        Plan { model, options, gone, nodes, units, changed: HashMap::new(), notes: Vec::new(), known, scores }
    }

    /// The same for another sparsity. Overrides stay.
    fn at(&self, sparsity: f64) -> Result<Plan> {
        let options = StructuredOptions { sparsity, ..self.options.clone() };
        let mut analysis = Analysis::new(&self.model, &self.known)?;
        let groups = groups::find(&mut analysis);
        let selected = select::targets(&self.model, &analysis, &groups, &options)?;
        let chosen = select::choose(&analysis, &groups, &selected, &self.scores, &options)?;
        drop(analysis);
        Ok(Plan::of(self.model.clone(), options, chosen, (self.known.clone(), self.scores.clone())))
    }

    /// Bytes that the model will take on disk.
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

    /// The whole model with zeros where weights sum over units that go: it gives what the cut model gives.
    pub fn masked(&self) -> Result<Model> {
        let mut analysis = Analysis::new(&self.model, &self.known)?;
        let kept = self.kept(&mut analysis);
        cut::masked(self, &analysis, &kept)
    }

    /// The model without the units that go.
    pub fn cut(&self, call: &Call) -> Result<Model> {
        let mut analysis = Analysis::new(&self.model, &self.known)?;
        let kept = self.kept(&mut analysis);
        cut::cut(self, &analysis, &kept, call)
    }

    /// Moves the weights that read what is left, so that less is lost.
    pub fn reconstruct(&mut self, runtime: &'static Runtime, batches: &[Batch], call: &Call) -> Result<()> {
        let done = {
            let mut analysis = Analysis::new(&self.model, &self.known)?;
            let kept = self.kept(&mut analysis);
            reconstruct::all(self, &analysis, &kept, (runtime, batches), call)?
        };
        self.changed = done.weights;
        self.notes = done.notes;
        Ok(())
    }

    /// What was done; `result` is what [`Plan::cut`] gave.
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
