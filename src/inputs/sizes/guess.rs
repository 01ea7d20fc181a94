//! Guesses of open sizes, by their names and the axes that have them.

use super::Open;
use crate::inputs::is_past;
use crate::model::{Dim, ValueInfo};
use crate::onnx::dtype::DataType;

/// The kind of an open size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guess {
    /// A size that a constant of the graph requires.
    Hint(i64),
    /// The batch size.
    Batch,
    /// A number of tokens, or time steps.
    Length,
    /// The length of the past in a cache.
    Past,
    /// The height or the width of an image.
    Picture,
    /// A number of audio samples.
    Sound,
    /// Any other size, which has no such meaning.
    Any,
}

/// The sizes of each trial: length, audio samples, image side, other sizes, and batch. The first trials suit most
/// models; if a model rejects them, others are tried. 0 is replaced by the size in [`Wanted`].
const SIZES: [[i64; 5]; 12] = [
    [0, 16000, 224, 128, 0],
    [512, 32000, 256, 512, 0],
    [1, 8000, 32, 1, 0],
    [16, 4096, 64, 16, 0],
    [256, 1024, 128, 64, 0],
    [1024, 512, 512, 256, 0],
    [32, 65536, 320, 32, 0],
    [64, 160_000, 640, 1024, 0],
    [8, 48000, 48, 8, 0],
    [2048, 24000, 96, 4096, 0],
    [2, 480_000, 299, 2, 0],
    [128, 16000, 224, 128, 128],
];

/// The number of trials.
pub const TRIALS: usize = SIZES.len();

/// The sizes for dimensions that neither the model nor the caller determines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Size of the batch.
    pub batch: i64,
    /// Number of tokens per row.
    pub sequence: i64,
    /// Whether the caller requested `sequence`: then it is the same in each trial.
    pub asked: bool,
    /// Number of positions of the model, which limits guessed lengths other than `sequence`; `None` for no limit.
    pub longest: Option<i64>,
    /// Whether an input holds token ids, a mask or similar, whose second dimension is a length, for each input.
    pub sequential: &'a [bool],
    /// Index of the trial, less than [`TRIALS`].
    pub trial: usize,
}

impl Wanted<'_> {
    pub(super) fn size(&self, guess: Guess) -> i64 {
        let [length, sound, picture, any, batch] = SIZES[self.trial.min(TRIALS - 1)];
        match guess {
            Guess::Hint(size) => size,
            Guess::Past => 0,
            Guess::Batch => {
                if batch == 0 {
                    self.batch
                } else {
                    batch
                }
            }
            Guess::Length if self.asked || length == 0 => self.sequence,
            Guess::Length => length.min(self.longest.unwrap_or(i64::MAX)),
            Guess::Picture => picture,
            Guess::Sound => sound,
            Guess::Any => any,
        }
    }
}

/// Returns the guess for an open size: from the graph, otherwise from its name, otherwise from its places (axes of
/// inputs). The numbers are those of the first trial.
///
/// - The batch size: names with `batch`, a first dimension that nothing else identifies, and the second dimension of
///   recurrent states without a name.
/// - 0, for an empty cache: names with `past`, and dimensions that only caches have.
/// - 16000: names with `sample`, `audio`, `wave`, `signal` or `pcm`, and the last dimension of an input that is named
///   as audio.
/// - The sequence length: names with `seq`, `len`, `time` or `token`, and the second dimension of ids and masks.
/// - 224: names with `height` or `width`, the names `h` and `w`, and the image axes of an input (see [`picture`]).
/// - 128: all others, such as counts of nodes, edges or frames.
pub(super) fn of(open: &Open, infos: &[ValueInfo], wanted: &Wanted<'_>) -> Guess {
    if let Some(size) = open.hint {
        return Guess::Hint(size);
    }
    let name = open.name.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let at = |test: &dyn Fn(&ValueInfo, usize) -> bool| open.at.iter().any(|(input, axis)| test(&infos[*input], *axis));
    let rank = |info: &ValueInfo| info.shape.as_ref().map_or(0, Vec::len);
    if has(&["batch"]) {
        return Guess::Batch;
    }
    if has(&["past"]) {
        return Guess::Past;
    }
    if !open.at.is_empty() && open.at.iter().all(|(input, axis)| *axis > 0 && is_past(&infos[*input].name)) {
        return Guess::Past;
    }
    if open.name.is_empty() && at(&state) {
        return Guess::Batch;
    }
    if has(&["sample", "audio", "wave", "signal", "pcm"]) && !at(&|info, axis| axis == 0 && rank(info) > 1) {
        return Guess::Sound;
    }
    if has(&["seq", "len", "time", "token"]) {
        return Guess::Length;
    }
    if has(&["height", "width"]) || ["h", "w"].contains(&name.as_str()) {
        return Guess::Picture;
    }
    let counts = ["node", "edge", "atom", "point", "frame", "vert", "face", "bond"];
    let twice = open.at.iter().any(|a| open.at.iter().any(|b| a.0 == b.0 && a.1 != b.1));
    let counted = has(&counts) && !at(&|info, axis| axis == 0 && rank(info) > 3);
    if at(&|_, axis| axis == 0) && !twice && !counted && !at(&|info, axis| picture(info, axis)) {
        return Guess::Batch;
    }
    if open.at.iter().any(|(input, axis)| *axis == 1 && wanted.sequential.get(*input).copied().unwrap_or(false)) {
        return Guess::Length;
    }
    if at(&|info, axis| picture(info, axis)) {
        return Guess::Picture;
    }
    if at(&|info, axis| axis + 1 == rank(info) && sound(info)) {
        return Guess::Sound;
    }
    Guess::Any
}

/// Returns whether an input's axis is the height or the width of an image: two neighbouring axes of four or five
/// dimensions of which one is 1 or 3 channels, or of three dimensions (without a batch) of which only the 3 channels
/// are fixed.
fn picture(info: &ValueInfo, axis: usize) -> bool {
    let Some(dims) = &info.shape else { return false };
    let of_numbers = matches!(
        info.dtype,
        None | Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16 | DataType::Float64 | DataType::Uint8)
    );
    let channels = |axis: usize| matches!(dims.get(axis), Some(Dim::Fixed(1 | 3)));
    let open = |axis: usize| matches!(dims.get(axis), Some(Dim::Symbolic(_)));
    // The index of the first of the two axes of an image, which follows from the position of the channels.
    let first = match dims.len() {
        3 if channels(0) && open(1) && open(2) && dims[0] == Dim::Fixed(3) => 1,
        3 if channels(2) && open(0) && open(1) && dims[2] == Dim::Fixed(3) => 0,
        4 if channels(1) => 2,
        4 if channels(3) => 1,
        5 if channels(1) || channels(2) => 3,
        5 if channels(4) => 2,
        _ => return false,
    };
    of_numbers && (axis == first || axis == first + 1)
}

/// Returns whether an input's axis is the batch of a recurrent state, by its name and shape: `[layers, batch, units]`.
fn state(info: &ValueInfo, axis: usize) -> bool {
    let name = info.name.to_lowercase();
    // Hidden states of transformers are `[batch, length, units]`.
    let named = name.contains("state") && !name.contains("hidden_state")
        || ["h", "c", "h0", "c0", "h_0", "c_0", "hx", "cx", "hidden"].contains(&name.as_str());
    let Some([Dim::Fixed(_), Dim::Symbolic(_), Dim::Fixed(_)]) = info.shape.as_deref() else { return false };
    axis == 1 && named
}

/// Returns whether an input is audio, by its name and its rank, which is at most 3.
fn sound(info: &ValueInfo) -> bool {
    let name = info.name.to_lowercase();
    let named = ["waveform", "audio_signal", "audio", "wav", "signal", "pcm", "speech"];
    info.shape.as_ref().is_some_and(|dims| dims.len() <= 3) && named.contains(&name.as_str())
}
