//! The inputs of one run of a model ([`Batch`]).

use crate::error::{Result, bail};
use crate::runtime::Tensor;

/// The inputs of one run of a model.
#[derive(Clone, Default)]
pub struct Batch {
    /// Names and values of the inputs, in the model's order.
    pub inputs: Vec<(String, Tensor)>,
    /// Positions that hold a token and not padding, if the inputs are texts; otherwise `None`.
    pub mask: Option<Mask>,
    /// Number of samples: texts, rows of given tensors, or 1 for generated inputs. The inputs may have further rows
    /// after those of the samples, if the model fixes the batch size.
    pub samples: usize,
    /// Texts that were truncated, with their lengths.
    pub truncated: Vec<Truncation>,
}

/// The lengths of a text that was truncated, with its special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    /// Index of the text in its batch.
    pub text: usize,
    /// Length of the whole text in tokens.
    pub tokens: usize,
    /// Number of tokens that the model receives.
    pub kept: usize,
}

/// The positions of `[batch, length]` that hold a token, not padding.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// Batch size and length of the rows.
    pub shape: [i64; 2],
    /// Whether a position holds a token, for each position, row-major.
    pub keep: Vec<bool>,
}

impl Batch {
    /// Returns a batch of one sample in which nothing is padded.
    pub fn new(inputs: Vec<(String, Tensor)>) -> Batch {
        Batch { inputs, mask: None, samples: 1, truncated: Vec::new() }
    }

    /// Returns the inputs as a run takes them: names with references to values.
    pub fn feed(&self) -> Vec<(&str, &Tensor)> {
        self.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }

    /// Returns the names and the shapes of the inputs.
    pub fn shapes(&self) -> Vec<(String, Vec<i64>)> {
        self.inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect()
    }

    /// Returns a value that a run with these inputs computed, as rows along its last dimension: float32 of the shape
    /// `[rows, size]`. Rows of padding are left out of values that begin with the dimensions of the mask
    /// (`[batch, length, size]`, or flattened to `[batch * length, size]`). Fails with `InvalidModel` if the last
    /// dimension of the value is not `size`.
    pub fn rows(&self, value: &Tensor, size: usize) -> Result<Tensor> {
        if size == 0 || value.shape().last() != Some(&(size as i64)) {
            bail!(InvalidModel, "the value is {}, which has no rows of {size} elements", value.describe());
        }
        let mut values = value.to_f32_vec()?;
        if let Some(each) = self.elements_of_a_token(value) {
            let keep = self.mask.iter().flat_map(|mask| &mask.keep);
            let tokens = values.chunks_exact(each).zip(keep).filter(|(_, keep)| **keep);
            values = tokens.flat_map(|(token, _)| token).copied().collect();
        }
        Tensor::from_f32(&[(values.len() / size) as i64, size as i64], values)
    }

    /// Returns the number of elements per token of a value; `None` if the value is not per token (batch, token and
    /// more, or both flattened to one), or if nothing is padded.
    fn elements_of_a_token(&self, value: &Tensor) -> Option<usize> {
        let mask = self.mask.as_ref().filter(|mask| mask.keep.contains(&false))?;
        let tokens = mask.keep.len();
        let shape = value.shape();
        let of_tokens = shape.len() >= 3 && shape[..2] == mask.shape || shape.len() == 2 && shape[0] == tokens as i64;
        of_tokens.then(|| value.elements() / tokens).filter(|each| *each > 0)
    }

    /// Returns the batch size according to the shapes: the median of the inputs' first dimensions; 1 if no input has
    /// dimensions.
    pub fn batch_size(&self) -> u64 {
        let mut firsts: Vec<i64> =
            self.inputs.iter().filter_map(|(_, tensor)| tensor.shape().first().copied()).collect();
        firsts.sort_unstable();
        firsts.get(firsts.len() / 2).map_or(1, |count| u64::try_from(*count).unwrap_or(1))
    }
}
