//! The steps of recipes, each of which is one technique with its options, its data and other models.

use crate::distill::DistillOptions;
use crate::ensemble::{EnsembleOptions, MergeOptions};
use crate::error::{Context, Result, bail, error};
use crate::package::CompileOptions;
use crate::prune::PruneOptions;
use crate::quantize::{QuantizeOptions, QuantizeType};
use crate::tensorrt::TensorRtOptions;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// A step of a recipe.
#[derive(Debug, Clone)]
pub struct Step {
    /// Technique with its options.
    pub work: Work,
    /// Data and models that the step reads besides its model.
    pub reads: Reads,
}

/// A technique with its options.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // each has the name of its operation
pub enum Work {
    Quantize(QuantizeOptions),
    Prune(PruneOptions),
    Distill(DistillOptions),
    Ensemble(EnsembleOptions),
    Merge(MergeOptions),
    Compile(CompileOptions),
    TensorRt(TensorRtOptions),
}

/// The names of the operations in recipes and reports.
pub(super) const OPERATIONS: [&str; 7] = ["quantize", "prune", "distill", "ensemble", "merge", "compile", "tensorrt"];

/// The origin of the data of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Data {
    /// Path of a file: a text, for calibration also tensors (`X.safetensors`), for training also JSON lines
    /// (`X.jsonl`).
    File(PathBuf),
    /// `true` for the data that the caller of [`super::apply`] passes; `false` is not valid.
    Given(bool),
}

/// The data and models that a step reads besides its model, which are fields of the step next to the options.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    /// Data that `quantize` and `prune` read.
    pub calibration: OfCalibration,
    /// Data and models that `distill` reads.
    pub distill: OfDistill,
    /// Models that `ensemble` and `merge` read.
    pub models: OfModels,
}

/// The calibration data of `quantize` and `prune`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct OfCalibration {
    /// Calibration data: a file, or `true` for the data of the call. Without it, the step has no calibration data.
    pub calibration: Option<Data>,
    /// Number of windows of the calibration text; 0 for the default of the technique.
    pub calibration_windows: usize,
    /// Number of tokens per window; 0 for 512, or the limit of the model if it is less.
    pub calibration_length: usize,
}

/// The text and the models of `distill`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct OfDistill {
    /// Text to train on: a file, or `true` (the default) for the data of the call.
    pub data: Option<Data>,
    /// Student that the model of the step teaches: `layers:every-other` or `layers:N` for one with some of the layers
    /// of this model, or the path of a model. Without it, the model of the step is the student.
    pub student: Option<String>,
    /// Path of the teacher of a step without `student`; `null` for the model that the recipe began with. A step has at
    /// most one of `student` and `teacher`.
    pub teacher: Option<PathBuf>,
}

/// The other models of `ensemble` and `merge`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct OfModels {
    /// Paths of the other members; the model of the step is the first.
    pub models: Vec<PathBuf>,
    /// Path of the model that the members were trained from, for `merge` with the method `ties`, which requires it;
    /// `null` for no such model.
    pub base: Option<PathBuf>,
}

impl Step {
    /// Returns the step that a JSON value describes. Fails with `InvalidArgument` for an unknown operation or option.
    pub(super) fn of(step: &Value) -> Result<Step> {
        let Some(mut fields) = step.as_object().cloned() else { bail!(InvalidArgument, "the step is not an object") };
        let Some(Value::String(operation)) = fields.shift_remove("operation") else {
            bail!(InvalidArgument, "the step has no field \"operation\" with one of {}", OPERATIONS.join(", "))
        };
        Step::of_fields(&operation, fields).at(|| operation)
    }

    fn of_fields(operation: &str, mut fields: Map<String, Value>) -> Result<Step> {
        let mut reads = Reads::default();
        let work = match operation {
            "quantize" => {
                reads.calibration = taken(&mut fields)?;
                let open = !fields.contains_key("bits");
                let mut options: QuantizeOptions = options(fields)?;
                // The command and the C interface have this default, too.
                if open && options.quantize_type == QuantizeType::WeightOnly {
                    options.bits = 4;
                }
                Work::Quantize(options)
            }
            "prune" => {
                reads.calibration = taken(&mut fields)?;
                let open = !fields.contains_key("sparsity");
                let mut options: PruneOptions = options(fields)?;
                // The command has these defaults, too: a pattern determines the sparsity, and if layers are removed,
                // nothing else is pruned.
                match options.pattern {
                    Some(pattern) if open => options.sparsity = pattern.sparsity(),
                    None if open && (options.drop_layers > 0 || !options.layers.is_empty()) => options.sparsity = 0.0,
                    _ => {}
                }
                Work::Prune(options)
            }
            "distill" => {
                reads.distill = taken(&mut fields)?;
                Work::Distill(options(fields)?)
            }
            "ensemble" => {
                reads.models = taken(&mut fields)?;
                Work::Ensemble(options(fields)?)
            }
            "merge" => {
                reads.models = taken(&mut fields)?;
                Work::Merge(options(fields)?)
            }
            "compile" => Work::Compile(options(fields)?),
            "tensorrt" => Work::TensorRt(options(fields)?),
            _ => bail!(InvalidArgument, "the operation is not one of {}", OPERATIONS.join(", ")),
        };
        let data = [&reads.calibration.calibration, &reads.distill.data];
        if data.contains(&&Some(Data::Given(false))) {
            bail!(InvalidArgument, "calibration and data are a path or true, not false");
        }
        Ok(Step { work, reads })
    }

    /// Returns the name of the operation of the step.
    pub fn name(&self) -> &'static str {
        match self.work {
            Work::Quantize(_) => "quantize",
            Work::Prune(_) => "prune",
            Work::Distill(_) => "distill",
            Work::Ensemble(_) => "ensemble",
            Work::Merge(_) => "merge",
            Work::Compile(_) => "compile",
            Work::TensorRt(_) => "tensorrt",
        }
    }

    /// Returns whether the step writes files instead of returning a model.
    pub fn writes(&self) -> bool {
        matches!(self.work, Work::Compile(_) | Work::TensorRt(_))
    }

    /// Returns whether the step needs data of the caller of [`super::apply`]: it has `true` in place of a file, or is a
    /// `distill` step without the field `data`.
    pub fn needs_data(&self) -> bool {
        let distill = matches!(self.work, Work::Distill(_)) && self.reads.distill.data.is_none();
        distill || [&self.reads.calibration.calibration, &self.reads.distill.data].contains(&&Some(Data::Given(true)))
    }
}

/// Removes the fields of the struct `T` from `fields`, and returns them as a `T`.
fn taken<T: Default + Serialize + DeserializeOwned>(fields: &mut Map<String, Value>) -> Result<T> {
    let mut own = Map::new();
    if let Ok(Value::Object(names)) = serde_json::to_value(T::default()) {
        own.extend(names.keys().filter_map(|name| fields.shift_remove_entry(name)));
    }
    options(own)
}

fn options<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T> {
    serde_json::from_value(Value::Object(fields)).map_err(|e| error!(InvalidArgument, "{e}"))
}
