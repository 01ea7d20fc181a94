//! Masks of attention, converted to the float32 mask that the kernel adds to the scores.

use std::borrow::Cow;

use super::{broadcast, broadcast_strides};
use crate::kernels::Mask;
use crate::provider::abi::{Error, Result, Tensor};
use crate::provider::patterns::Fill;

/// A mask that is added to the scores of attention, in one run.
pub struct Additive<'a> {
    values: Cow<'a, [f32]>,
    shape: Vec<i64>,
}

impl<'a> Additive<'a> {
    /// Returns the tensor `tensor` as a mask with the effect `fill`, in a run whose scores have the shape `scores`.
    /// Fails if a mask of numbers has another element type than the effect requires, or if the mask cannot be broadcast
    /// to the scores. A mask for [`Fill::Replace`] must be bool, which is not checked.
    pub fn read(tensor: &Tensor<'a>, fill: Fill, scores: [i64; 4]) -> Result<Self> {
        let (values, shape) = match fill {
            Fill::Add => (tensor.floats()?, tensor.shape.to_vec()),
            Fill::Replace { when, with } => {
                let number = |byte: &u8| if (*byte != 0) == when { with } else { 0.0 };
                (Cow::Owned(tensor.bytes.iter().map(number).collect()), tensor.shape.to_vec())
            }
            Fill::Keep { with } => {
                let number = |keep: &i32| if *keep > 0 { 0.0 } else { with };
                (Cow::Owned(tensor.integers()?.iter().map(number).collect()), pad_shape(tensor.shape)?)
            }
            Fill::Lengths { with } => (Cow::Owned(by_length(tensor, with, scores)?), vec![scores[0], 1, 1, scores[3]]),
        };
        let mask = Self { values, shape };
        // A mask may be broadcast to the scores, but not the scores to the mask.
        if broadcast(&mask.shape, &scores).ok().as_deref() != Some(&scores[..]) {
            return Err(Error(format!(
                "a mask of shape {:?} cannot be broadcast to scores of shape {scores:?}",
                mask.shape
            )));
        }
        Ok(mask)
    }

    /// Returns the sum of this mask and another, broadcast to each other. Fails if their shapes do not broadcast.
    pub fn plus(self, other: &Self) -> Result<Additive<'static>> {
        let shape = broadcast(&self.shape, &other.shape)?;
        let strides = [&self, other].map(|mask| broadcast_strides(&mask.shape, shape.len()));
        let count: usize = shape.iter().map(|size| *size as usize).product();
        let sum = (0..count).map(|mut index| {
            let mut places = [0, 0];
            for (axis, size) in shape.iter().enumerate().rev() {
                let step = index % *size as usize;
                places[0] += step * strides[0][axis];
                places[1] += step * strides[1][axis];
                index /= *size as usize;
            }
            self.values[places[0]] + other.values[places[1]]
        });
        Ok(Additive { values: Cow::Owned(sum.collect()), shape })
    }

    /// Returns a view of the mask for the kernel.
    pub fn view(&self) -> Mask<'_> {
        let strides = broadcast_strides(&self.shape, 4);
        Mask::Additive { values: &self.values, strides: [strides[0], strides[1], strides[2], strides[3]] }
    }
}

/// Returns the shape in which a mask of batch × keys or batch × queries × keys broadcasts to batch × heads × queries ×
/// keys. Fails for masks of other ranks.
fn pad_shape(shape: &[i64]) -> Result<Vec<i64>> {
    match shape[..] {
        [batch, keys] => Ok(vec![batch, 1, 1, keys]),
        [batch, queries, keys] => Ok(vec![batch, 1, queries, keys]),
        _ => Err(Error(format!("a padding mask has the unexpected shape {shape:?}"))),
    }
}

/// Returns a mask of batch × keys: 0 for visible keys, `with` for the others. `tensor` has the end of each sequence,
/// optionally followed by the beginning of each. Fails if their number does not fit the batch.
fn by_length(tensor: &Tensor<'_>, with: f32, scores: [i64; 4]) -> Result<Vec<f32>> {
    let (batch, keys) = (scores[0] as usize, scores[3]);
    let places = tensor.integers()?;
    if places.len() != batch && places.len() != 2 * batch {
        return Err(Error(format!("a mask has {} lengths for {batch} sequences", places.len())));
    }
    let row = |sequence: usize| {
        let (end, start) =
            (i64::from(places[sequence]), places.get(batch + sequence).map_or(0, |start| i64::from(*start)));
        (0..keys).map(move |key| if (start..end).contains(&key) { 0.0 } else { with })
    };
    Ok((0..batch).flat_map(row).collect())
}
