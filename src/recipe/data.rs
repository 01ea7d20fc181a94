//! The data of steps, which come from files or from the caller.

use super::step::{Data, OfCalibration};
use crate::calibrate::{self, Calibration};
use crate::distill::Corpus;
use crate::error::{Context, Result, bail};
use crate::files;
use crate::limits;
use crate::model::Model;
use crate::text::Tokenizer;
use std::path::Path;

/// Returns the result of `technique` on the calibration data of a file: a text, or tensors (`X.safetensors`). `windows`
/// and `length` are those of [`Calibration::Text`].
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

/// Returns the result of `technique` on a calibration text, in `windows` windows of `length` tokens.
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

/// Returns the result of `technique` on the calibration data of a step, or on `None` if it has none.
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

/// Returns the text on which a step trains.
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
