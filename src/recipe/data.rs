//! The data of steps, which come from files or from the caller.

use super::step::{Data, OfCalibration};
use crate::calibrate::{self, Calibration};
use crate::distill::Corpus;
use crate::error::{Context, Result, bail};
use crate::files;
use crate::inputs::InputOptions;
use crate::limits;
use crate::model::Model;
use crate::text::Tokenizer;
use std::path::Path;

/// The number of lines of a calibration text on which a result is run.
const LINES: usize = 8;

/// Calls `technique` with the calibration data of a file, a text or tensors (`X.safetensors`), and returns its result.
/// `windows` and `length` are those of [`Calibration::Text`]; tensors do not use them. Fails if the file cannot be read
/// or does not fit the model, and for a text with `NotFound` if the model has no tokenizer.
pub fn calibrated<T>(
    file: &Path,
    (windows, length): (usize, usize),
    model: &Model,
    technique: impl FnOnce(&Calibration<'_>) -> Result<T>,
) -> Result<T> {
    if file.extension().is_some_and(|extension| extension == "safetensors") {
        let tensors = calibrate::read_tensors(file)?;
        let calibration = Calibration::Tensors(&tensors);
        // An error here has its cause in the calibration file, so it names the file; later errors do not.
        calibrate::batches(model, &calibration).at(|| file.display())?;
        return technique(&calibration);
    }
    let text = files::read_text(file)?;
    calibrated_on(&text, (windows, length), model, technique)
}

/// Calls `technique` with a calibration text, and returns its result. `windows` and `length` are those of
/// [`Calibration::Text`]. Fails with `NotFound` if the model has no tokenizer.
pub fn calibrated_on<T>(
    text: &str,
    (windows, length): (usize, usize),
    model: &Model,
    technique: impl FnOnce(&Calibration<'_>) -> Result<T>,
) -> Result<T> {
    let Some(tokenizer) = Tokenizer::of(model)? else {
        let path = model.path().map_or_else(|| "the model".to_owned(), |path| path.display().to_string());
        bail!(NotFound, "{path} has no tokenizer for the calibration text");
    };
    technique(&Calibration::Text { text, tokenizer: &tokenizer, windows, length })
}

/// Calls `technique` with the calibration data of a step, or with `None` if the step has none, and returns its result.
/// `given` is the text that the caller of [`super::apply`] passes. Fails like [`calibrated`], and with
/// `InvalidArgument` if that text is needed and missing.
pub(super) fn of_step<T>(
    reads: &OfCalibration,
    given: Option<&str>,
    model: &Model,
    technique: impl FnOnce(Option<&Calibration<'_>>) -> Result<T>,
) -> Result<T> {
    let how = (reads.calibration_windows, reads.calibration_length);
    match &reads.calibration {
        None => technique(None),
        Some(Data::File(file)) => calibrated(file, how, model, |calibration| technique(Some(calibration))),
        Some(Data::Given(_)) => calibrated_on(of_call(given)?, how, model, |calibration| technique(Some(calibration))),
    }
}

/// Returns the calibration data of a step as inputs of a run: the tensors, or the first lines of the text that are not
/// blank. `given` is the text that the caller of [`super::apply`] passes. Fails if a file cannot be read, and with
/// `InvalidArgument` if that text is needed and missing.
pub(super) fn inputs_of_step(reads: &OfCalibration, given: Option<&str>) -> Result<InputOptions> {
    let lines = |text: &str| {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        InputOptions { texts: lines.take(LINES).map(str::to_owned).collect(), ..InputOptions::default() }
    };
    Ok(match &reads.calibration {
        None => InputOptions::default(),
        Some(Data::File(file)) if file.extension().is_some_and(|extension| extension == "safetensors") => {
            InputOptions { tensors: calibrate::read_tensors(file)?, ..InputOptions::default() }
        }
        Some(Data::File(file)) => lines(&files::read_text(file)?),
        Some(Data::Given(_)) => lines(of_call(given)?),
    })
}

/// Returns the text on which a step trains: that of a file (`X.jsonl` as JSON lines), or `given`, the text that the
/// caller of [`super::apply`] passes. Fails if the file cannot be read or has no text, and with `InvalidArgument` if
/// `given` is needed and `None`.
pub(super) fn corpus(data: Option<&Data>, given: Option<&str>) -> Result<Corpus> {
    match data {
        Some(Data::File(file)) => {
            let text = files::read_text(file)?;
            let lines = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("jsonl"));
            let made = if lines { Corpus::from_json_lines(&text) } else { Corpus::from_text(&text) };
            made.at(|| file.display())
        }
        _ => Corpus::from_text(of_call(given)?),
    }
}

fn of_call(given: Option<&str>) -> Result<&str> {
    match given {
        Some(text) if text.len() > limits::TEXT_BYTES => {
            bail!(LimitExceeded, "the data have {} bytes; the limit is {}", text.len(), limits::TEXT_BYTES)
        }
        Some(text) => Ok(text),
        None => bail!(InvalidArgument, "the step takes its data from the caller, who passed none"),
    }
}
