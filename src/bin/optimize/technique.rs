//! Steps that the commands of techniques share: reading calibration data, and handling results.

use crate::benchmark::{AfterTechnique, Inputs};
use crate::common::{self, Machine, Output, Target};
use crate::progress::Bar;
use optimize::calibrate::{self, Calibration};
use optimize::error::{Context, Result, bail};
use optimize::model::Model;
use optimize::onnx::save::ExternalData;
use optimize::report::Report;
use optimize::verify::Kept;
use std::path::Path;

/// The flags for calibration data.
pub struct CalibrationFile<'a> {
    /// A text, or a `.safetensors` file.
    pub file: &'a Path,
    /// Number of windows of the text; 0 selects the technique's default.
    pub windows: usize,
    /// Number of tokens per window; 0 selects the technique's default.
    pub length: usize,
}

impl CalibrationFile<'_> {
    /// Calls `technique` with the data and returns its result. `path` is the path of the model, for messages.
    pub fn read<T>(
        &self,
        model: &Model,
        path: &Path,
        technique: impl FnOnce(&Calibration<'_>) -> Result<T>,
    ) -> Result<T> {
        if self.file.extension().is_some_and(|extension| extension == "safetensors") {
            let tensors = calibrate::read_tensors(self.file)?;
            let calibration = Calibration::Tensors(&tensors);
            // An error here is caused by the calibration file, and its message names the file; later errors are not.
            calibrate::batches(model, &calibration).at(|| self.file.display())?;
            return technique(&calibration);
        }
        let text = common::text_of(self.file)?;
        let Some(tokenizer) = common::tokenizer(None, model)? else {
            bail!(NotFound, "{}: the model has no tokenizer for the calibration text", path.display());
        };
        let (windows, length) = (self.windows, self.length);
        technique(&Calibration::Text { text: &text, tokenizer: &tokenizer, windows, length })
    }
}

/// How a result is stored.
pub enum Storage {
    /// As ONNX.
    Onnx(ExternalData),
    /// Packed.
    Packed,
}

/// The result of a technique, its original, and the flags for its handling.
pub struct Made<'a> {
    /// The original model.
    pub original: &'a Model,
    /// The result.
    pub result: &'a Model,
    /// Where to write it.
    pub target: &'a Target,
    /// How to write it.
    pub storage: Storage,
    /// The calibration data that was used for the result.
    pub calibration: Option<&'a Path>,
    /// The measurements.
    pub after: &'a AfterTechnique,
    /// The inputs of the measurements.
    pub inputs: &'a Inputs,
    /// The provider and device.
    pub machine: &'a Machine,
    /// The flags for the output of the command.
    pub output: &'a Output,
}

impl Made<'_> {
    /// Checks the result (unless `kept` is `None`), writes it, and benchmarks it against its original.
    pub fn finish(&self, kept: Option<Kept>, report: &mut Report, bar: &Bar) -> Result<()> {
        if let Some(kept) = kept {
            common::examine(self.machine, (self.original, self.result), kept, report, bar)?;
        }
        report.input = Some(bar.call(|call| self.original.identity(call))?);
        let saved = bar.call(|call| match self.storage {
            Storage::Packed => self.result.save_packed(&self.target.file, call),
            Storage::Onnx(external) => self.result.save(&self.target.file, external, call),
        })?;
        report.output = Some(saved.identity());
        self.target.carry_along(self.original)?;
        self.after.measure(self, report, bar)?;
        report.peak_rss_bytes = optimize::report::peak_rss_bytes();
        Ok(())
    }
}

/// Returns where `--external-data` puts the weights.
pub fn external_data(always: bool) -> ExternalData {
    if always { ExternalData::Always } else { ExternalData::Auto }
}
