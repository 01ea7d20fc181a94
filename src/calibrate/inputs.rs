//! The data that models are calibrated on, as batches of inputs.

use crate::error::{Result, bail};
use crate::inputs::{Batch, InputOptions, Source, tensors, window};
use crate::limits;
use crate::model::{Model, Task};
use crate::report::Report;
use crate::runtime::Tensor;
use crate::text::{Decoder, Tokenizer};

/// The data for calibration.
pub enum Calibration<'a> {
    /// A text, for text models.
    Text {
        /// Content of the text. Decoders read it as a whole, other models line by line.
        text: &'a str,
        /// Tokenizer of the model.
        tokenizer: &'a Tokenizer,
        /// Maximum number of windows, evenly spaced over the text; 0 selects 16. For models that read lines: maximum
        /// number of batches of 8 lines.
        windows: usize,
        /// Number of tokens per window, or maximum number per line; 0 selects 512, or the model's limit if it is lower.
        length: usize,
    },
    /// Values of the inputs by name; see [`batches`] for how they are divided into batches.
    Tensors(&'a [(String, Tensor)]),
    /// No data, but sizes and values of the inputs that are generated for measurements. Nothing is fitted to them,
    /// and methods that need data refuse them.
    Generated {
        /// Shapes of inputs by name.
        shapes: &'a [(String, Vec<i64>)],
        /// Values of inputs by name: one number for all elements, or one per element.
        values: &'a [(String, Vec<f64>)],
    },
}

impl Calibration<'_> {
    /// Records in the recipe of a report that the operation used data of the caller, with the number and length of
    /// windows unless they are 0. Records nothing for [`Calibration::Generated`].
    pub fn note(&self, report: &mut Report) {
        match self {
            Calibration::Generated { .. } => return,
            Calibration::Tensors(_) => {}
            Calibration::Text { windows, length, .. } => {
                for (name, value) in [("calibration_windows", windows), ("calibration_length", length)] {
                    if *value > 0 {
                        report.note_in_recipe(name, *value);
                    }
                }
            }
        }
        report.note_in_recipe("calibration", true);
    }
}

/// A text and the tokenizer that reads it.
type Text<'a> = (&'a str, &'a Tokenizer);

/// The default number of windows of a text.
const WINDOWS: usize = 16;
/// The number of lines of a text, or of given samples, per batch.
const LINES: usize = 8;

/// Returns batches of inputs for `model`. Fails with `InvalidArgument` if a text has no lines or is shorter than one
/// window, if a window is longer than the model's limit, or if tensors do not match the inputs, contain a NaN or have
/// no finite value. Fails with `NotFound` for a tensor that belongs to no input.
///
/// The first dimension of given tensors counts samples, the same number in each: a batch has as many as the model
/// requires, otherwise 8. A tensor with one dimension more than its input is split along its first dimension, one
/// sample per batch. Tensors of inputs without dimensions are part of every batch.
///
/// [`Calibration::Generated`] gives built-in sentences for a text model with a tokenizer, and otherwise generated
/// inputs. Fails if no inputs can be generated that fit the model.
pub fn batches(model: &Model, calibration: &Calibration<'_>) -> Result<Vec<Batch>> {
    let (text, tokenizer, windows, length) = match *calibration {
        Calibration::Tensors(tensors) => {
            tensors.iter().try_for_each(|(name, tensor)| is_usable(name, tensor))?;
            let runs = tensors::cut(&model.inputs(), tensors, LINES, "calibration data")?;
            return Ok(runs.into_iter().map(Batch::new).collect());
        }
        Calibration::Generated { shapes, values } => return generated(model, shapes, values),
        Calibration::Text { text, tokenizer, windows, length } => (text, tokenizer, windows, length),
    };
    let windows = if windows == 0 { WINDOWS } else { windows };
    let longest = model.card().longest_text()?.unwrap_or(limits::DEFAULT_TEXT_TOKENS);
    let length = match length {
        0 => limits::DEFAULT_TEXT_TOKENS.min(longest),
        asked if asked > longest => {
            bail!(InvalidArgument, "calibration windows of {asked} tokens exceed the model's limit of {longest}")
        }
        asked => asked,
    };
    match model.card().task {
        Task::Generate => windows_of(model, (text, tokenizer), windows, length),
        _ => lines_of(model, (text, tokenizer), windows, length),
    }
}

/// Fails with `InvalidArgument` if a tensor has a NaN or, although it has elements, no finite one. Single infinite
/// elements are possible, for example in attention masks.
fn is_usable(name: &str, tensor: &Tensor) -> Result<()> {
    if !tensor.dtype().is_float() {
        return Ok(());
    }
    let values = tensor.to_f32_vec()?;
    if let Some(index) = values.iter().position(|value| value.is_nan()) {
        let samples = tensor.shape().first().map_or(1, |count| (*count).max(1)) as usize;
        let sample = index / (values.len() / samples).max(1);
        bail!(InvalidArgument, "calibration data for the input {name:?}: sample {sample} (from 0) contains a NaN");
    }
    if !values.is_empty() && !values.iter().any(|value| value.is_finite()) {
        bail!(InvalidArgument, "calibration data for the input {name:?}: no value is finite");
    }
    Ok(())
}

fn windows_of(model: &Model, (text, tokenizer): Text<'_>, windows: usize, length: usize) -> Result<Vec<Batch>> {
    let ids = tokenizer.encode(text, false)?.ids;
    let windows = windows.min(ids.len() / length);
    if windows == 0 {
        bail!(InvalidArgument, "the calibration text has {} tokens, fewer than a window of {length}", ids.len());
    }
    let decoder = Decoder::of(model)?;
    let between = (ids.len() - length) / windows.max(2).saturating_sub(1).max(1);
    let one = |window: usize| {
        let start = (window * between).min(ids.len() - length);
        let inputs = window::whole(&decoder, &ids[start..start + length], length)?;
        Ok(Batch::new(inputs))
    };
    (0..windows).map(one).collect()
}

fn lines_of(model: &Model, (text, tokenizer): Text<'_>, windows: usize, length: usize) -> Result<Vec<Batch>> {
    let lines: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        bail!(InvalidArgument, "the calibration text has no lines");
    }
    let (wanted, batch_size) = (windows * LINES, LINES.min(lines.len()));
    let step = (lines.len() / wanted).max(1);
    let texts: Vec<String> = lines.into_iter().step_by(step).take(wanted).collect();
    let options = InputOptions { texts, batch_size, ..InputOptions::default() };
    let source = Source::new(model, Some(tokenizer), &options)?.up_to(length);
    (0..source.count()).map(|index| source.set(index)).collect()
}

/// Returns inputs for `model` without data: built-in sentences if it is a text model, otherwise generated inputs. Fails
/// if no inputs can be generated that fit the model.
pub fn without_data(model: &Model) -> Result<Vec<Batch>> {
    generated(model, &[], &[])
}

/// Returns inputs like [`without_data`], with some shapes and values given.
fn generated(model: &Model, shapes: &[(String, Vec<i64>)], values: &[(String, Vec<f64>)]) -> Result<Vec<Batch>> {
    let tokenizer = Tokenizer::of(model)?;
    if let (Task::Generate, Some(tokenizer)) = (&model.card().task, &tokenizer) {
        let text = InputOptions::default().texts().join(" ");
        let tokens = tokenizer.encode(&text, false)?.ids.len();
        let longest = model.card().longest_text()?.unwrap_or(limits::DEFAULT_TEXT_TOKENS);
        let calibration = Calibration::Text { text: &text, tokenizer, windows: 1, length: tokens.min(longest) };
        return batches(model, &calibration);
    }
    let (shapes, values) = (shapes.to_vec(), values.to_vec());
    let options = InputOptions { batch_size: LINES, shapes, values, ..InputOptions::default() };
    let source = Source::new(model, tokenizer.as_ref(), &options)?;
    (0..source.count()).map(|index| source.set(index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_without_finite_values_are_refused() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let check = |values: [f32; 6]| is_usable("x", &Tensor::from_f32(&[3, 2], values.to_vec()).unwrap());
        check([0.0, 1.0, -inf, 2.0, 3.0, 4.0]).unwrap();
        let e = check([0.0, 1.0, 2.0, nan, 3.0, 4.0]).unwrap_err().to_string();
        assert!(e.contains("input \"x\": sample 1 (from 0) contains a NaN"), "{e}");
        assert!(check([inf; 6]).unwrap_err().to_string().contains("no value is finite"));
        is_usable("x", &Tensor::from_i64(&[1], vec![3]).unwrap()).unwrap();
        is_usable("x", &Tensor::from_f32(&[0], Vec::new()).unwrap()).unwrap();
    }
}
