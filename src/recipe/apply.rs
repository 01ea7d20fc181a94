//! The application of the steps of a recipe to a model, and the writing of the result.

use super::step::{Step, Work};
use super::{Recipe, Target, data};
use crate::call::Call;
use crate::distill::{self, DistillOptions, PREFIX, distill};
use crate::ensemble::{Ensemble, EnsembleOptions, MergeOptions, merge};
use crate::error::{Context, Result, bail};
use crate::files;
use crate::files::digest::FileIdentity;
use crate::model::Model;
use crate::onnx::save::ExternalData;
use crate::package::{self, CompileOptions};
use crate::prune::{PruneOptions, prune, prune_calibrated};
use crate::quantize::{QuantizeOptions, QuantizeType, quantize_with};
use crate::report::Report;
use crate::runtime::Runtime;
use crate::tensorrt;
use crate::verify::{self, Kept};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The options of [`apply`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ApplyOptions<'a> {
    /// Content of the text for steps that take their data from the caller (see [`Recipe::needs_data`]): calibration
    /// data, or the text to train on. At most [`crate::limits::TEXT_BYTES`] bytes. `None` if no step needs it.
    pub data: Option<&'a str>,
    /// Number of threads of each step; 0 for the default of its technique. It replaces the option `threads` of the
    /// techniques.
    pub threads: usize,
}

/// Runs the steps of a recipe on `model` one after another, and writes the result to `output`: a package if the last
/// step is `compile`, an engine if it is `tensorrt`, otherwise a model, as `X.onnx` or a folder. The original is
/// unchanged. `output` is not written before the last step; until then, only temporary files are written.
///
/// Before the next step, the model that a step returns is opened and run: on the calibration data of the step,
/// otherwise on built-in texts or generated inputs. This is omitted after `distill`, and if that model or the model
/// before it is larger than [`crate::limits::EXAMINED_BYTES`]. Returns a report, with the reports of the steps in
/// `summary.steps`. A package also contains them as its lineage, without times and lists of nodes. Fails like the
/// techniques, and with `InvalidArgument` if a step needs `options.data`, which is `None`. The place of the error
/// begins with the number and the name of the step.
pub fn apply(
    runtime: &'static Runtime,
    model: &Model,
    recipe: &Recipe,
    output: &Path,
    options: &ApplyOptions<'_>,
    call: &Call,
) -> Result<Report> {
    let start = Instant::now();
    let mut report = Report::new("apply", json!({ "threads": options.threads }));
    report.recipe = recipe.json().to_vec();
    let scratch = files::parent_of(output).to_owned();
    let on = On { runtime, original: model, options, scratch, call };
    let mut steps: Vec<Value> = Vec::new();
    let mut current = model.clone();
    for (index, step) in recipe.steps().iter().enumerate() {
        let place = || format!("step {} ({})", index + 1, step.name());
        if let Some(written) = on.write(step, &recipe.json()[index], &current, output).at(place)? {
            report.output = Some(written.output);
            report.warnings.extend(written.warnings);
            steps.extend(written.report);
            break;
        }
        let (result, made) = on.run(step, &current).at(place)?;
        report.warnings.extend(made.warnings.iter().cloned());
        current = with_lineage(result, &current, &made);
        steps.push(serde_json::to_value(made).unwrap_or_default());
    }
    if report.output.is_none() {
        let target = Target::prepare(output)?;
        report.output = Some(current.save(&target.file, ExternalData::Auto, call)?.identity());
        target.carry_along(model)?;
    }
    report.sizes(model.bytes(), report.output.as_ref().map_or(0, |output| output.bytes));
    report.summary.insert("steps".to_owned(), steps.into());
    report.input = Some(model.identity(call)?);
    report.finish(start);
    Ok(report)
}

/// Returns the result with the lineage of its original, to which `report` is added. The report is added without times
/// and memory, because packages are reproducible, and without the list of nodes, which is long.
fn with_lineage(result: Model, original: &Model, report: &Report) -> Model {
    let (nodes, input, seconds, peak_rss_bytes) = (Vec::new(), None, 0.0, 0);
    let kept = Report { nodes, input, seconds, peak_rss_bytes, ..report.clone() };
    let mut kept = serde_json::to_value(kept).unwrap_or_default();
    without_times(&mut kept["summary"]);
    let mut card = result.card().clone();
    card.lineage = original.card().lineage.clone();
    card.lineage.push(kept);
    result.with_card(card)
}

/// Removes the times of a training from a summary: the fields that end in `seconds` or `per_second`.
fn without_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !(name.ends_with("seconds") || name.ends_with("per_second")));
            fields.values_mut().for_each(without_times);
        }
        Value::Array(list) => list.iter_mut().for_each(without_times),
        _ => {}
    }
}

/// The arguments of a step except its model.
struct On<'a> {
    runtime: &'static Runtime,
    /// Model that the recipe began with.
    original: &'a Model,
    options: &'a ApplyOptions<'a>,
    scratch: PathBuf,
    call: &'a Call<'a>,
}

/// The files that the last step wrote.
struct Written {
    output: FileIdentity,
    warnings: Vec<String>,
    report: Option<Value>,
}

impl On<'_> {
    /// Returns the result of a step that returns a model, and its report.
    fn run(&self, step: &Step, model: &Model) -> Result<(Model, Report)> {
        let (result, mut report, kept) = match &step.work {
            Work::Quantize(options) => {
                let kept = (options.quantize_type != QuantizeType::Static).then_some(Kept::Rounded);
                let (result, report) = self.quantize(step, options, model)?;
                (result, report, kept)
            }
            Work::Prune(options) => {
                let (result, report) = self.prune(step, options, model)?;
                (result, report, Some(Kept::Exactly))
            }
            Work::Distill(options) => {
                let (result, report) = self.distill(step, options, model)?;
                (result, report, None)
            }
            Work::Ensemble(options) => {
                let (result, report) = self.ensemble(step, options, model)?;
                (result, report, None)
            }
            Work::Merge(options) => {
                let (result, report) = self.merge(step, options, model)?;
                (result, report, Some(Kept::Exactly))
            }
            Work::Compile(_) | Work::TensorRt(_) => bail!(Internal, "{} returns no model", step.name()),
        };
        if let Some(kept) = kept {
            let inputs = data::inputs_of_step(&step.reads.calibration, self.options.data)?;
            let threads = self.options.threads;
            verify::examine(self.runtime, (model, &result), threads, kept, &inputs, &mut report, self.call)?;
        }
        Ok((result, report))
    }

    /// Writes the result of a step that writes files, and returns the files; `None` for other steps.
    fn write(&self, step: &Step, json: &Value, model: &Model, output: &Path) -> Result<Option<Written>> {
        match &step.work {
            Work::Compile(options) => self.compile(options, json, model, output).map(Some),
            Work::TensorRt(options) => {
                let options = tensorrt::TensorRtOptions { threads: self.options.threads, ..options.clone() };
                let report = tensorrt::build(Some(self.runtime), model, output, &options, self.call)?;
                let Some(output) = report.output.clone() else { bail!(Internal, "the engine has no identity") };
                let warnings = report.warnings.clone();
                Ok(Some(Written { output, warnings, report: serde_json::to_value(report).ok() }))
            }
            _ => Ok(None),
        }
    }

    fn compile(&self, options: &CompileOptions, json: &Value, model: &Model, output: &Path) -> Result<Written> {
        let step = json!({ "operation": "compile", "library_version": env!("CARGO_PKG_VERSION"), "recipe": [json] });
        let options = &CompileOptions { lineage: vec![step], ..options.clone() };
        let made = package::compile(self.runtime, model, output, options, self.call)?;
        // The hash of the manifest stands for the package: the manifest has the hashes of all files except its own, its
        // SHA-256 file and its signature.
        let manifest = made.files.iter().find(|file| file.path.ends_with(package::manifest::OURS));
        let sha256 = manifest.or(made.files.first()).map_or(String::new(), |file| file.sha256.clone());
        let bytes = made.files.iter().map(|file| file.bytes).sum();
        let output = FileIdentity { path: Some(output.display().to_string()), bytes, sha256 };
        let report = json!({ "operation": "compile", "options": options, "files": made.files });
        Ok(Written { output, warnings: made.warnings, report: Some(report) })
    }

    fn quantize(&self, step: &Step, options: &QuantizeOptions, model: &Model) -> Result<(Model, Report)> {
        let (threads, scratch_folder) = (self.options.threads, Some(self.scratch.clone()));
        let options = QuantizeOptions { threads, scratch_folder, race: false, ..options.clone() };
        let reads = &step.reads.calibration;
        data::of_step(reads, self.options.data, model, |calibration| {
            quantize_with(self.runtime, model, &options, calibration, self.call)
        })
    }

    fn prune(&self, step: &Step, options: &PruneOptions, model: &Model) -> Result<(Model, Report)> {
        let (threads, scratch_folder) = (self.options.threads, Some(self.scratch.clone()));
        let options = PruneOptions { threads, scratch_folder, ..options.clone() };
        data::of_step(&step.reads.calibration, self.options.data, model, |calibration| match calibration {
            None => prune(model, &options, self.call),
            Some(calibration) => prune_calibrated(self.runtime, model, &options, calibration, self.call),
        })
    }

    fn distill(&self, step: &Step, options: &DistillOptions, model: &Model) -> Result<(Model, Report)> {
        let reads = &step.reads.distill;
        let (teacher, student) = match (reads.student.as_deref(), &reads.teacher) {
            (Some(_), Some(_)) => {
                bail!(InvalidArgument, "student and teacher exclude each other: the model is the other one")
            }
            (Some(layers), None) if layers.starts_with(PREFIX) => {
                (model.clone(), distill::student_of(model, layers.parse()?, self.call)?)
            }
            (Some(path), None) => (model.clone(), Model::load(path.as_ref())?),
            (None, Some(path)) => (Model::load(path)?, model.clone()),
            (None, None) => (self.original.clone(), model.clone()),
        };
        let corpus = data::corpus(reads.data.as_ref(), self.options.data)?;
        let options = DistillOptions { threads: self.options.threads, ..options.clone() };
        let watch = |_: &distill::Moment| ControlFlow::Continue(());
        let (result, mut report) = distill(self.runtime, &teacher, &student, &corpus, &options, &watch, self.call)?;
        report.recipe = Report::of_technique("distill", &options, &["epochs"]).recipe;
        for (name, value) in [("student", json!(reads.student)), ("teacher", json!(reads.teacher))] {
            if !value.is_null() {
                report.note_in_recipe(name, value);
            }
        }
        report.note_in_recipe("data", reads.data.as_ref().map_or(json!(true), |data| json!(data)));
        Ok((result, report))
    }

    fn ensemble(&self, step: &Step, options: &EnsembleOptions, model: &Model) -> Result<(Model, Report)> {
        let ensemble = Ensemble::new(self.members(step, model)?, options.clone())?;
        let (fused, mut report) = ensemble.fuse(self.call)?;
        let members: Vec<&Model> = ensemble.members().iter().map(|member| &member.model).collect();
        let (threads, alike) = (self.options.threads, ensemble.has_outputs_alike());
        verify::examine_fused(self.runtime, (&members, &fused), threads, alike, &mut report, self.call)?;
        Ok((fused, report))
    }

    fn merge(&self, step: &Step, options: &MergeOptions, model: &Model) -> Result<(Model, Report)> {
        let members = self.members(step, model)?;
        let base = step.reads.models.base.as_deref().map(Model::load).transpose()?;
        let options = MergeOptions { scratch_folder: Some(self.scratch.clone()), ..options.clone() };
        merge(&members, base.as_ref(), &options, self.call)
    }

    fn members(&self, step: &Step, model: &Model) -> Result<Vec<Model>> {
        let others = step.reads.models.models.iter().map(|path| Model::load(path));
        std::iter::once(Ok(model.clone())).chain(others).collect()
    }
}
