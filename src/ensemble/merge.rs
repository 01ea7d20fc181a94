//! The merge of the weights of several models of one architecture into a model of the same size ([`merge`]).
//!
//! | method | each weight of the result | source |
//! |---|---|---|
//! | [`MergeMethod::Linear`] | `Σ w θ` | Wortsman et al. 2022 (model soups) |
//! | [`MergeMethod::Slerp`] | `(sin((1−t)φ) a + sin(tφ) b) / sin φ`, `t` the second's weight | Shoemake 1985 |
//! | [`MergeMethod::Ties`] | `base + λ mean` of the changes that agree in sign | Yadav et al. 2023 |
//!
//! Ties leaves out each member's smallest changes, and takes the sign with the larger sum. Tensors are processed one by
//! one: elements are read as float32, sums are computed in float64, and the result has the type of the first member's
//! tensor.

use super::{alike, place};
use crate::call::{Call, Stage};
use crate::choice::choice;
use crate::error::{Context, Result, bail};
use crate::files::Scratch;
use crate::graph::constants::Matrix;
use crate::graph::floats::store;
use crate::limits;
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::TensorProto;
use crate::report::Report;
use crate::statistics::dot;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

/// The magnitude of the cosine above which two tensors count as parallel, and interpolation is linear.
const PARALLEL: f64 = 0.9995;

choice! {
    /// The method of merging weights. The [documentation of the module](self) has the formulas.
    pub enum MergeMethod: optimize_merge_method_t = Linear {
        /// The mean of the weights, or their weighted mean.
        Linear = 0, "linear";
        /// The spherical interpolation between the weights of two models.
        Slerp = 1, "slerp";
        /// The base model plus the mean of those changes from it whose signs agree.
        Ties = 2, "ties";
    }
}

/// Options of [`merge`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct MergeOptions {
    /// Method of merging. Default: [`MergeMethod::Linear`].
    pub method: MergeMethod,
    /// Weights of the models, 0 or more, which are normalized to the sum 1. Empty: equal weights.
    pub weights: Vec<f64>,
    /// Ties: share of each model's changes to keep, those with the largest magnitude; above 0 and at most 1. Default:
    /// 0.2.
    pub density: f64,
    /// Ties: factor by which the mean change is multiplied, any finite number. Default: 1.
    pub scale: f64,
    /// Folder of the temporary file with the new weights until they are saved (an unlinked file); `None` selects the
    /// system's temporary folder.
    #[serde(skip)]
    pub scratch_folder: Option<PathBuf>,
}

impl Default for MergeOptions {
    fn default() -> Self {
        let (method, weights, scratch_folder) = (MergeMethod::Linear, Vec::new(), None);
        MergeOptions { method, weights, density: 0.2, scale: 1.0, scratch_folder }
    }
}

/// Merges models of one architecture into one model, and returns this model and a report. `base` is the base model of
/// [`MergeMethod::Ties`], and `None` for the other methods.
///
/// Weights that are equal in all models are unchanged. Constants that are not weights (rotary angles, scales,
/// epsilons), tokens, classes and pooling must be equal in all models. Reports the stage `merge` in tensors. Memory:
/// one tensor of each model at a time.
///
/// Fails with [`crate::error::Kind::InvalidArgument`] if there is only one model, or for Slerp more than two; if `base`
/// does not suit the method; if graphs, shapes, constants, tokens, classes or pooling differ; or if an option is out of
/// range. Fails with `LimitExceeded` for too many models, with `Unsupported` if weights that differ are not float32,
/// float16 or bfloat16 (the error names the tensor), with `NotFound` or `Io` if scratch storage cannot be created or
/// written, and with `Cancelled` or `Timeout`.
pub fn merge(models: &[Model], base: Option<&Model>, options: &MergeOptions, call: &Call) -> Result<(Model, Report)> {
    let start = Instant::now();
    let weights = check(models, base, options)?;
    let mut notes = Vec::new();
    for (index, other) in models.iter().enumerate().skip(1) {
        notes.extend(alike::check(&models[0], other, &place(index))?);
    }
    if let Some(base) = base {
        notes.extend(alike::check(&models[0], base, "the base")?);
    }
    let scratch = Scratch::new(&options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir));
    let others: Vec<HashMap<&str, &TensorProto>> = models[1..].iter().map(initializers).collect();
    let of_base = base.map(initializers);
    let mut proto = models[0].proto().clone();
    let tensors = proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    let total = models[0].graph().initializer.len() as u64;
    let (mut merged, mut same) = (0u64, 0u64);
    for (done, tensor) in tensors.enumerate() {
        call.report(Stage::MERGE, done as u64, total)?;
        let name = tensor.name.clone().unwrap_or_default();
        let all: Vec<&TensorProto> = others.iter().filter_map(|other| other.get(name.as_str()).copied()).collect();
        let ties = options.method == MergeMethod::Ties;
        let from = of_base.as_ref().and_then(|base| base.get(name.as_str()).copied()).filter(|_| ties);
        let equal = |other: &&TensorProto| content(other).is_some() && content(other) == content(tensor);
        if all.iter().all(equal) && from.iter().all(equal) {
            same += 1;
            continue;
        }
        let place = || format!("tensor {name:?}");
        let values: Vec<Vec<f32>> =
            std::iter::once(&*tensor).chain(all).map(floats).collect::<Result<_>>().at(place)?;
        let result = match options.method {
            MergeMethod::Linear => linear(&values, &weights),
            MergeMethod::Slerp => slerp(&values[0], &values[1], weights[1]),
            MergeMethod::Ties => {
                let base = from.map(floats).transpose().at(place)?.unwrap_or_default();
                ties_of(&base, &values, &weights, options)
            }
        };
        replace(tensor, &result, &scratch).at(place)?;
        merged += 1;
    }
    call.report(Stage::MERGE, total, total)?;
    let mut report = Report::of_technique("merge", options, &["method"]);
    super::note_models(&mut report, models.iter());
    match base.map(Model::path) {
        Some(Some(path)) => report.note_in_recipe("base", path.display().to_string()),
        Some(None) => report.recipe.clear(),
        None => {}
    }
    report.summary.insert("models".to_owned(), json!(models.len()));
    report.summary.insert("weights".to_owned(), json!(weights));
    report.summary.insert("merged_tensors".to_owned(), json!(merged));
    report.summary.insert("equal_tensors".to_owned(), json!(same));
    if !notes.is_empty() {
        report.summary.insert("notes".to_owned(), json!(notes));
    }
    report.finish(start);
    Ok((models[0].derive(proto), report))
}

fn check(models: &[Model], base: Option<&Model>, options: &MergeOptions) -> Result<Vec<f64>> {
    let count = models.len();
    if count < 2 {
        bail!(InvalidArgument, "merging requires at least two models; {count} was given");
    }
    if count > limits::ENSEMBLE_MEMBERS {
        bail!(LimitExceeded, "{count} models are given; the limit is {}", limits::ENSEMBLE_MEMBERS);
    }
    if options.method == MergeMethod::Slerp && count != 2 {
        bail!(InvalidArgument, "`slerp` merges two models; {count} were given");
    }
    if (options.method == MergeMethod::Ties) != base.is_some() {
        bail!(
            InvalidArgument,
            "`ties` requires `base`, the model that the others were trained from; other methods do not accept it"
        );
    }
    if !(options.density > 0.0 && options.density <= 1.0) {
        bail!(InvalidArgument, "density is {}; it must be above 0 and at most 1", options.density);
    }
    if !options.scale.is_finite() {
        bail!(InvalidArgument, "scale is {}; it must be a number", options.scale);
    }
    let weights = super::EnsembleOptions { weights: options.weights.clone(), ..Default::default() };
    super::weights(&weights, count)
}

pub(super) fn initializers(model: &Model) -> HashMap<&str, &TensorProto> {
    model.graph().initializer.iter().map(|tensor| (tensor.name.as_deref().unwrap_or(""), tensor)).collect()
}

pub(super) fn content(tensor: &TensorProto) -> Option<(i32, &[u8])> {
    Some((tensor.data_type?, tensor.raw_data.as_deref()?))
}

pub(super) fn floats(tensor: &TensorProto) -> Result<Vec<f32>> {
    let dtype = tensor.data_type.and_then(DataType::from_onnx);
    if !matches!(dtype, Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16)) {
        let shown = dtype.map_or("of an unknown type", DataType::name);
        bail!(Unsupported, "the tensor is {shown} and differs between the models: merge them before quantizing");
    }
    let matrix = Matrix::flat(tensor)?;
    let values = matrix.values();
    crate::files::release(matrix.raw());
    Ok(values)
}

fn linear(values: &[Vec<f32>], weights: &[f64]) -> Vec<f32> {
    let at = |i: usize| values.iter().zip(weights).map(|(v, w)| w * f64::from(v[i])).sum::<f64>() as f32;
    (0..values[0].len()).map(at).collect()
}

fn slerp(a: &[f32], b: &[f32], t: f64) -> Vec<f32> {
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let (left, right) = match cosine.clamp(-1.0, 1.0) {
        // For parallel, opposite or zero tensors there is no unique arc.
        cosine if cosine.abs() > PARALLEL || cosine.is_nan() => (1.0 - t, t),
        cosine => {
            let angle = cosine.acos();
            (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
        }
    };
    a.iter().zip(b).map(|(a, b)| (left * f64::from(*a) + right * f64::from(*b)) as f32).collect()
}

fn ties_of(base: &[f32], values: &[Vec<f32>], weights: &[f64], options: &MergeOptions) -> Vec<f32> {
    let changes: Vec<Vec<f32>> = values.iter().map(|value| trimmed(base, value, options.density)).collect();
    let at = |i: usize| {
        let weighted = || changes.iter().zip(weights).map(|(change, w)| (w * f64::from(change[i]), *w));
        let sign = weighted().map(|(change, _)| change).sum::<f64>().signum();
        let (mut sum, mut count) = (0.0, 0.0);
        for (change, weight) in weighted().filter(|(change, _)| *change != 0.0 && change.signum() == sign) {
            sum += change;
            count += weight;
        }
        let mean = if count > 0.0 { sum / count } else { 0.0 };
        (f64::from(base[i]) + options.scale * mean) as f32
    };
    (0..base.len()).map(at).collect()
}

/// Returns the changes from the base. Only the share `density` of largest magnitude is kept, the first of equal ones;
/// all others are 0.
fn trimmed(base: &[f32], value: &[f32], density: f64) -> Vec<f32> {
    let mut changes: Vec<f32> = value.iter().zip(base).map(|(value, base)| value - base).collect();
    let keep = (density * changes.len() as f64).ceil() as usize;
    if keep >= changes.len() || keep == 0 {
        return changes;
    }
    let mut sizes: Vec<f32> = changes.iter().map(|change| change.abs()).collect();
    let (_, bar, _) = sizes.select_nth_unstable_by(keep - 1, |a, b| b.total_cmp(a));
    let bar = *bar;
    let mut equal = keep - changes.iter().filter(|change| change.abs() > bar).count();
    for change in &mut changes {
        let stays = change.abs() > bar || (change.abs() == bar && equal > 0);
        equal -= usize::from(stays && change.abs() == bar);
        if !stays {
            *change = 0.0;
        }
    }
    changes
}

fn replace(tensor: &mut TensorProto, values: &[f32], scratch: &Scratch) -> Result<()> {
    let dtype = tensor.data_type.and_then(DataType::from_onnx).unwrap_or(DataType::Float32);
    let raw = store(values, dtype, scratch)?;
    let (name, dims, data_type) = (tensor.name.take(), std::mem::take(&mut tensor.dims), tensor.data_type);
    *tensor = TensorProto { name, dims, data_type, raw_data: Some(raw), ..Default::default() };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arc_is_an_arc() {
        // The angle between the vectors is 90 degrees. Halfway, both have equal weight, and the length stays 1.
        let half = slerp(&[1.0, 0.0], &[0.0, 1.0], 0.5);
        assert!((half[0] - 0.5f32.sqrt()).abs() < 1e-6 && (half[1] - 0.5f32.sqrt()).abs() < 1e-6);
        let third = slerp(&[2.0, 0.0], &[0.0, 2.0], 1.0 / 3.0);
        assert!((third[0] - 3f32.sqrt()).abs() < 1e-6 && (third[1] - 1.0).abs() < 1e-6, "{third:?}");
        assert_eq!(slerp(&[1.0, 1.0], &[3.0, 3.0], 0.5), [2.0, 2.0]);
        assert_eq!(slerp(&[0.0, 0.0], &[2.0, 4.0], 0.5), [1.0, 2.0]);
    }

    #[test]
    fn small_changes_go_and_signs_are_elected() {
        assert_eq!(trimmed(&[0.0; 4], &[0.1, -3.0, 2.0, 0.2], 0.5), [0.0, -3.0, 2.0, 0.0]);
        assert_eq!(trimmed(&[0.0; 4], &[1.0, -1.0, 1.0, 0.5], 0.5), [1.0, -1.0, 0.0, 0.0]);
        let options = MergeOptions { density: 1.0, ..MergeOptions::default() };
        let third = 1.0 / 3.0;
        // First element: +3 and +1 against -2, so the mean of 3 and 1. Second: only one model has a change.
        let merged = ties_of(&[1.0, 1.0], &[vec![4.0, 1.0], vec![2.0, 1.0], vec![-1.0, 0.5]], &[third; 3], &options);
        assert_eq!(merged, [3.0, 0.5]);
    }

    #[test]
    fn a_line_is_the_weighted_mean() {
        assert_eq!(linear(&[vec![1.0, 2.0], vec![3.0, 6.0]], &[0.25, 0.75]), [2.5, 5.0]);
    }
}
