//! Inputs for calibration.

use crate::benchmark::BenchmarkOptions;
use crate::benchmark::inputs::{InputSet, Mask, Source, texts};
use crate::error::{Result, bail};
use crate::evaluate::reader;
use crate::limits;
use crate::model::Model;
use crate::runtime::Tensor;
use crate::source::Task;
use crate::text::{Decoder, Tokenizer};

/// Data that the inputs of layers are taken from.
pub struct Calibration<'a> {
    /// The text; for models that write text it is read as a whole, for others line by line.
    pub text: &'a str,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Windows of the text, taken evenly from all of it; 0 is 16. For models that read lines: batches of 8 of them.
    pub windows: usize,
    /// Tokens of a window; 0 is 512, or as many as the model takes.
    pub length: usize,
}

/// One run's inputs by name.
pub struct Batch {
    /// Each with its name.
    pub inputs: Vec<(String, Tensor)>,
    /// Which tokens are no padding; `None` if nothing is padded.
    pub mask: Option<Mask>,
}

impl From<InputSet> for Batch {
    fn from(set: InputSet) -> Batch {
        Batch { inputs: set.tensors, mask: set.mask }
    }
}

const WINDOWS: usize = 16;
const LINES: usize = 8;

/// Inputs for `model`. `InvalidArgument` if the text is too short for one window.
pub fn batches(model: &Model, calibration: &Calibration<'_>) -> Result<Vec<Batch>> {
    let windows = if calibration.windows == 0 { WINDOWS } else { calibration.windows };
    let longest = model.card().longest_text()?.unwrap_or(limits::DEFAULT_TEXT_TOKENS);
    let length = match calibration.length {
        0 => limits::DEFAULT_TEXT_TOKENS.min(longest),
        asked if asked > longest => bail!(InvalidArgument, "windows of {asked} tokens; the model takes {longest}"),
        asked => asked,
    };
    match model.card().task {
        Task::Generate => windows_of(model, calibration, windows, length),
        _ => lines_of(model, calibration, windows, length),
    }
}

fn windows_of(model: &Model, calibration: &Calibration<'_>, windows: usize, length: usize) -> Result<Vec<Batch>> {
    let ids = calibration.tokenizer.encode(calibration.text, false)?.ids;
    let windows = windows.min(ids.len() / length);
    if windows == 0 {
        bail!(InvalidArgument, "the calibration text has {} tokens; a window takes {length}", ids.len());
    }
    let decoder = Decoder::of(model)?;
    let between = (ids.len() - length) / windows.max(2).saturating_sub(1).max(1);
    let one = |window: usize| {
        let start = (window * between).min(ids.len() - length);
        let inputs = reader::whole(&decoder, &ids[start..start + length], length)?;
        Ok(Batch { inputs, mask: None })
    };
    (0..windows).map(one).collect()
}

fn lines_of(model: &Model, calibration: &Calibration<'_>, windows: usize, length: usize) -> Result<Vec<Batch>> {
    let lines: Vec<String> =
        calibration.text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        bail!(InvalidArgument, "the calibration text has no lines");
    }
    let (wanted, batch_size) = (windows * LINES, LINES.min(lines.len()));
    let step = (lines.len() / wanted).max(1);
    let texts: Vec<String> = lines.into_iter().step_by(step).take(wanted).collect();
    let options = BenchmarkOptions { texts, batch_size, ..BenchmarkOptions::default() };
    let source = Source::new(model, model, Some(calibration.tokenizer), &options)?.up_to(length);
    (0..source.count()).map(|index| Ok(source.set(index)?.into())).collect()
}

/// Inputs for `model` where there is no data: built-in sentences if it takes text, else generated.
pub fn without_data(model: &Model) -> Result<Vec<Batch>> {
    let tokenizer = Tokenizer::of(model)?;
    if let (Task::Generate, Some(tokenizer)) = (&model.card().task, &tokenizer) {
        let text = texts(&BenchmarkOptions::default()).join(" ");
        let tokens = tokenizer.encode(&text, false)?.ids.len();
        let longest = model.card().longest_text()?.unwrap_or(limits::DEFAULT_TEXT_TOKENS);
        let calibration = Calibration { text: &text, tokenizer, windows: 1, length: tokens.min(longest) };
        return batches(model, &calibration);
    }
    let options = BenchmarkOptions { batch_size: LINES, ..BenchmarkOptions::default() };
    let source = Source::new(model, model, tokenizer.as_ref(), &options)?;
    (0..source.count()).map(|index| Ok(source.set(index)?.into())).collect()
}
