//! Steps that the commands of techniques share: storing and measuring results.

use crate::benchmark::{self, AfterTechnique, Inputs};
use crate::common::{self, Machine, Output, Target};
use crate::progress::Bar;
use crate::read::{self, CalibrationData};
use optimize::benchmark::BenchmarkOptions;
use optimize::calibrate::read_tensors;
use optimize::error::Result;
use optimize::model::Model;
use optimize::onnx::save::ExternalData;
use optimize::report::Report;
use optimize::verify::Kept;

/// The file format in which a result is stored.
pub enum Storage {
    /// ONNX, with the weights in the same file or next to it.
    Onnx(ExternalData),
    /// Packed, with one bit per zero.
    Packed,
}

/// The result of a technique with its original, and the flags for its handling.
pub struct Made<'a> {
    /// Original model.
    pub original: &'a Model,
    /// Model that the technique returned.
    pub result: &'a Model,
    /// Place where the result is written.
    pub target: &'a Target,
    /// File format in which the result is written.
    pub storage: Storage,
    /// Calibration data that was used for the result; `None` if there was none.
    pub calibration: Option<&'a CalibrationData>,
    /// Flags for the measurements.
    pub after: &'a AfterTechnique,
    /// Flags for the inputs of the measurements.
    pub inputs: &'a Inputs,
    /// Flags for the threads and the ONNX Runtime library.
    pub machine: &'a Machine,
    /// Flags for the output of the command.
    pub output: &'a Output,
}

impl Made<'_> {
    /// Returns the options of measurements, whose inputs are those of the flags, or otherwise the calibration data.
    /// Fails if the calibration data or the flags of the inputs cannot be read.
    pub fn measured_on(&self) -> Result<BenchmarkOptions> {
        let AfterTechnique { benchmark_text, benchmark_runs, .. } = self.after;
        let mut options = benchmark::options(self.inputs, self.machine, benchmark_text.clone(), *benchmark_runs)?;
        let free = options.inputs.texts.is_empty() && options.inputs.tensors.is_empty();
        if let Some(data) = self.calibration.filter(|_| free) {
            match data.lines()? {
                None => options.inputs.tensors = read_tensors(&data.file)?,
                Some(lines) => options.inputs.texts = some(lines),
            }
        }
        Ok(options)
    }

    /// Checks the result (unless `kept` is `None`), writes it, and benchmarks it against its original as far as the
    /// flags request it. Records the files and the findings in `report`. Fails if the result cannot be written or run.
    pub fn finish(&self, kept: Option<Kept>, report: &mut Report, bar: &Bar) -> Result<()> {
        let on = self.measured_on()?;
        if let Some(kept) = kept {
            common::examine(self.machine, (self.original, self.result), kept, &on.inputs, report, bar)?;
        }
        // The tensors of the calibration data can be large. They are read again after the model has been saved.
        drop(on);
        if let Some(data) = self.calibration {
            report.note_in_recipe("calibration", read::noted(&data.file));
        }
        report.input = Some(bar.call(|call| self.original.identity(call))?);
        let saved = bar.call(|call| match self.storage {
            Storage::Packed => self.result.save_packed(&self.target.file, call),
            Storage::Onnx(external) => self.result.save(&self.target.file, external, call),
        })?;
        report.output = Some(saved.identity());
        self.target.carry_along(self.original)?;
        if self.after.measures(self.output) {
            self.after.measure(self, self.measured_on()?, report, bar)?;
        }
        report.peak_rss_bytes = optimize::report::peak_rss_bytes();
        Ok(())
    }
}

/// The maximum number of texts of the calibration data on which the models are compared.
const TEXTS: usize = 32;

/// Returns at most [`TEXTS`] lines, evenly spaced over all lines.
fn some(all: Vec<String>) -> Vec<String> {
    let step = all.len().div_ceil(TEXTS).max(1);
    all.into_iter().step_by(step).collect()
}

/// Returns the place of the weights that `--external-data` selects.
pub fn external_data(always: bool) -> ExternalData {
    if always { ExternalData::Always } else { ExternalData::Auto }
}
