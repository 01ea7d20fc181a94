//! Cutting given tensors into batches.

use super::Batch;
use crate::error::{Context, Result, bail};
use crate::model::{Dim, Model, ValueInfo};
use crate::runtime::Tensor;
use crate::source::checkpoint::safetensors::Safetensors;
use crate::source::weights::{Form, Stored, Weights};
use bytes::Bytes;
use std::path::Path;

/// The tensors of a safetensors file, by name.
pub fn read_tensors(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let file = Safetensors::open_file(path)?;
    let one = |name: String| {
        let Stored { dims, form, bytes } = file.get(&name).at(|| path.display())?;
        let Form::Plain(dtype) = form else { bail!(Unsupported, "the tensor {name:?} is in blocks") };
        let tensor = Tensor::new(dtype, &dims, bytes).at(|| format!("{}: tensor {name:?}", path.display()))?;
        Ok((name, tensor))
    };
    file.names().into_iter().map(one).collect()
}

/// Samples of a batch, where the model does not say.
const SAMPLES: usize = 8;

/// See [`super::batches`].
pub fn cut(model: &Model, tensors: &[(String, Tensor)]) -> Result<Vec<Batch>> {
    let inputs = model.inputs();
    let mut parts = Vec::with_capacity(tensors.len());
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        let Some(info) = inputs.iter().find(|info| info.name == *name) else {
            let names: Vec<&str> = inputs.iter().map(|info| info.name.as_str()).collect();
            bail!(NotFound, "there is no input {name:?} to calibrate with; the inputs are {}", names.join(", "));
        };
        if tensors[..index].iter().any(|(other, _)| other == name) {
            bail!(InvalidArgument, "calibration data for the input {name:?} is given twice");
        }
        parts.push(Part::new(name, info, tensor).at(|| format!("calibration data for the input {name:?}"))?);
    }
    let mut counted = parts.iter().filter_map(|part| Some((part.name, part.samples?)));
    let Some((first, samples)) = counted.next() else {
        bail!(InvalidArgument, "there is no calibration data with a dimension of samples");
    };
    if let Some((other, count)) = counted.find(|(_, count)| *count != samples) {
        bail!(InvalidArgument, "calibration data has {samples} samples for {first:?}, but {count} for {other:?}");
    }
    if samples == 0 {
        bail!(InvalidArgument, "the calibration data has no samples");
    }
    let size = batch_size(&parts)?;
    let whole = parts.iter().any(|part| part.rows > 0);
    let count = if whole { samples / size } else { samples.div_ceil(size) };
    if count == 0 {
        bail!(InvalidArgument, "the calibration data has {samples} samples; the model takes {size} at a time");
    }
    let one = |batch: usize| {
        let of =
            |part: &Part<'_>| Ok((part.name.to_owned(), part.batch(batch * size, size.min(samples - batch * size))?));
        Ok(Batch { inputs: parts.iter().map(of).collect::<Result<_>>()?, mask: None })
    };
    (0..count).map(one).collect()
}

/// Samples that one run takes.
fn batch_size(parts: &[Part<'_>]) -> Result<usize> {
    let mut fixed = parts.iter().filter(|part| part.rows > 0);
    let Some(first) = fixed.next() else { return Ok(SAMPLES) };
    if let Some(other) = fixed.find(|part| part.rows != first.rows) {
        bail!(
            InvalidArgument,
            "a run takes {} samples of the input {:?}, but {} of {:?}",
            first.rows,
            first.name,
            other.rows,
            other.name
        );
    }
    Ok(first.rows)
}

/// The data of one input.
struct Part<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    /// `None` for inputs without dimensions.
    samples: Option<usize>,
    /// Samples that a run must have; 0 if any number will do.
    rows: usize,
    /// Whether the dimension of samples is none of the input's.
    extra: bool,
}

impl<'a> Part<'a> {
    fn new(name: &'a str, info: &ValueInfo, tensor: &'a Tensor) -> Result<Part<'a>> {
        if tensor.dtype().bits() < 8 {
            bail!(Unsupported, "{} cannot be cut into batches", tensor.dtype().name());
        }
        let rank = info.shape.as_ref().map_or(tensor.shape().len(), Vec::len);
        let extra = tensor.shape().len() == rank + 1;
        let samples = match (rank, extra) {
            (0, false) => None,
            _ => tensor.shape().first().and_then(|count| usize::try_from(*count).ok()),
        };
        let fixed = match info.shape.as_ref().and_then(|shape| shape.first()) {
            Some(Dim::Fixed(rows)) if samples.is_some() => usize::try_from(*rows).unwrap_or(0),
            _ => 0,
        };
        Ok(Part { name, tensor, samples, rows: if extra { 1 } else { fixed }, extra })
    }

    fn batch(&self, first: usize, count: usize) -> Result<Tensor> {
        let Some(samples) = self.samples else { return Ok(self.tensor.clone()) };
        let bytes = self.tensor.bytes();
        let one = bytes.len() / samples.max(1);
        let mut shape = self.tensor.shape().to_vec();
        if self.extra {
            shape.remove(0);
        } else if let Some(rows) = shape.first_mut() {
            *rows = count as i64;
        }
        Tensor::new(self.tensor.dtype(), &shape, Bytes::copy_from_slice(&bytes[first * one..(first + count) * one]))
    }
}
