//! Calibration data.

use crate::benchmark::BenchmarkOptions;
use crate::benchmark::inputs::{InputSet, Mask, Source, texts};
use crate::error::{Result, bail};
use crate::evaluate::reader;
use crate::inputs::tensors;
use crate::limits;
use crate::model::{Model, Task};
use crate::runtime::Tensor;
use crate::text::{Decoder, Tokenizer};

/// Data for calibration.
pub enum Calibration<'a> {
    /// A text, for text models.
    Text {
        /// The text. Decoders read it as a whole, others line by line.
        text: &'a str,
        /// The model's tokenizer.
        tokenizer: &'a Tokenizer,
        /// Number of windows, evenly spaced over the text; 0 is 16. For models that read lines: batches of 8 lines.
        windows: usize,
        /// Tokens per window; 0 is 512, or the limit of the model.
        length: usize,
    },
    /// Values of the inputs by name; see [`batches`] for how they are split.
    Tensors(&'a [(String, Tensor)]),
    /// No data, but sizes and values of the inputs that are generated for measurements. Nothing is fitted to them,
    /// and methods that need data refuse them.
    Generated {
        /// Shapes of inputs by name.
        shapes: &'a [(String, Vec<i64>)],
        /// Values of inputs by name: one number for all elements, or one for each.
        values: &'a [(String, Vec<f64>)],
    },
}

/// The inputs of one run, by name.
#[derive(Clone)]
pub struct Batch {
    /// The inputs with their names.
    pub inputs: Vec<(String, Tensor)>,
    /// Mask of the tokens that are not padding; `None` if nothing is padded.
    pub mask: Option<Mask>,
}

impl Batch {
    /// Returns a value of a run with these inputs as rows along its last dimension in float32, without padding:
    /// `[rows, size]`. Fails with `InvalidModel` if its rows are not of `size`.
    pub fn rows(&self, value: &Tensor, size: usize) -> Result<Tensor> {
        if size == 0 || value.shape().last() != Some(&(size as i64)) {
            bail!(InvalidModel, "is {}, not rows of {size}", value.describe());
        }
        let mut values = value.to_f32_vec()?;
        if let Some(each) = self.elements_of_a_token(value) {
            let keep = self.mask.iter().flat_map(|mask| &mask.keep);
            let tokens = values.chunks_exact(each).zip(keep).filter(|(_, keep)| **keep);
            values = tokens.flat_map(|(token, _)| token).copied().collect();
        }
        Tensor::from_f32(&[(values.len() / size) as i64, size as i64], values)
    }

    /// Returns the elements per token; `None` if the value is not per token (batch, token, and more), or nothing is
    /// padded.
    fn elements_of_a_token(&self, value: &Tensor) -> Option<usize> {
        let mask = self.mask.as_ref().filter(|mask| mask.keep.contains(&false))?;
        let tokens = mask.keep.len();
        let shape = value.shape();
        let of_tokens = shape.len() >= 3 && shape[..2] == mask.shape || shape.len() == 2 && shape[0] == tokens as i64;
        of_tokens.then(|| value.elements() / tokens).filter(|each| *each > 0)
    }
}

impl From<InputSet> for Batch {
    fn from(set: InputSet) -> Batch {
        Batch { inputs: set.tensors, mask: set.mask }
    }
}

impl Batch {
    /// Returns the number of samples: the first dimension that most of the inputs have.
    pub fn samples(&self) -> u64 {
        let mut firsts: Vec<i64> =
            self.inputs.iter().filter_map(|(_, tensor)| tensor.shape().first().copied()).collect();
        firsts.sort_unstable();
        firsts.get(firsts.len() / 2).map_or(1, |count| u64::try_from(*count).unwrap_or(1))
    }
}

/// A text and its tokenizer.
type Text<'a> = (&'a str, &'a Tokenizer);

const WINDOWS: usize = 16;
const LINES: usize = 8;

/// Returns batches of inputs for `model`. Fails with `InvalidArgument` if a text is too short for one window.
///
/// The first dimension of given tensors counts samples, the same number in each: a batch has as many as the model
/// requires, otherwise 8. A tensor with one dimension more than its input is split along it, one sample per run.
/// Tensors of inputs without dimensions are part of every run.
pub fn batches(model: &Model, calibration: &Calibration<'_>) -> Result<Vec<Batch>> {
    let (text, tokenizer, windows, length) = match *calibration {
        Calibration::Tensors(tensors) => {
            let runs = tensors::cut(&model.inputs(), tensors, LINES, "calibration data")?;
            return Ok(runs.into_iter().map(|inputs| Batch { inputs, mask: None }).collect());
        }
        Calibration::Generated { shapes, values } => return generated(model, shapes, values),
        Calibration::Text { text, tokenizer, windows, length } => (text, tokenizer, windows, length),
    };
    let windows = if windows == 0 { WINDOWS } else { windows };
    let longest = model.card().longest_text()?.unwrap_or(limits::DEFAULT_TEXT_TOKENS);
    let length = match length {
        0 => limits::DEFAULT_TEXT_TOKENS.min(longest),
        asked if asked > longest => {
            bail!(InvalidArgument, "windows of {asked} tokens exceed the model's limit of {longest}")
        }
        asked => asked,
    };
    match model.card().task {
        Task::Generate => windows_of(model, (text, tokenizer), windows, length),
        _ => lines_of(model, (text, tokenizer), windows, length),
    }
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
        let inputs = reader::whole(&decoder, &ids[start..start + length], length)?;
        Ok(Batch { inputs, mask: None })
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
    let options = BenchmarkOptions { texts, batch_size, ..BenchmarkOptions::default() };
    let source = Source::new(model, model, Some(tokenizer), &options)?.up_to(length);
    (0..source.count()).map(|index| Ok(source.set(index)?.into())).collect()
}

/// Returns inputs for `model` without data: built-in sentences if it is a text model, otherwise generated.
pub fn without_data(model: &Model) -> Result<Vec<Batch>> {
    generated(model, &[], &[])
}

/// As [`without_data`], with some shapes and values given.
fn generated(model: &Model, shapes: &[(String, Vec<i64>)], values: &[(String, Vec<f64>)]) -> Result<Vec<Batch>> {
    let tokenizer = Tokenizer::of(model)?;
    if let (Task::Generate, Some(tokenizer)) = (&model.card().task, &tokenizer) {
        let text = texts(&BenchmarkOptions::default()).join(" ");
        let tokens = tokenizer.encode(&text, false)?.ids.len();
        let longest = model.card().longest_text()?.unwrap_or(limits::DEFAULT_TEXT_TOKENS);
        let calibration = Calibration::Text { text: &text, tokenizer, windows: 1, length: tokens.min(longest) };
        return batches(model, &calibration);
    }
    let (shapes, values) = (shapes.to_vec(), values.to_vec());
    let options = BenchmarkOptions { batch_size: LINES, shapes, values, ..BenchmarkOptions::default() };
    let source = Source::new(model, model, tokenizer.as_ref(), &options)?;
    (0..source.count()).map(|index| Ok(source.set(index)?.into())).collect()
}
