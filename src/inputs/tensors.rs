//! The division of given tensors into batches.

use crate::error::{Context, Result, bail};
use crate::model::{Dim, ValueInfo};
use crate::runtime::Tensor;
use crate::source::checkpoint::safetensors::Safetensors;
use crate::source::weights::{Form, Stored, Weights};
use bytes::Bytes;
use std::path::Path;

/// Returns the tensors of a safetensors file, by name. Fails with `Unsupported` for a tensor that is quantized in
/// blocks, and if the file cannot be read or is invalid.
pub fn read_tensors(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let file = Safetensors::open_file(path)?;
    let one = |name: String| {
        let Stored { dims, form, bytes } = file.get(&name).at(|| path.display())?;
        let Form::Plain(dtype) = form else { bail!(Unsupported, "the tensor {name:?} is quantized in blocks") };
        let tensor = Tensor::new(dtype, &dims, bytes).at(|| format!("{}: tensor {name:?}", path.display()))?;
        Ok((name, tensor))
    };
    file.names().into_iter().map(one).collect()
}

/// The inputs of one run: names and tensors.
pub type Run = Vec<(String, Tensor)>;

/// Returns tensors divided into runs of `samples` samples each, or of as many as the model requires. The last run may
/// have fewer; if the model requires a number, samples that do not fill a run are omitted. `what` names the tensors in
/// messages.
///
/// The first dimension of given tensors counts samples, the same number in each. A tensor with one dimension more than
/// its input is split along the first one, one sample per run. Tensors of inputs without dimensions are part of every
/// run. Fails with `NotFound` for a tensor without an input, `Unsupported` for elements of fewer than 8 bits, and
/// `InvalidArgument` if the tensors do not fit each other or the model.
pub fn cut(inputs: &[ValueInfo], tensors: &[(String, Tensor)], samples: usize, what: &str) -> Result<Vec<Run>> {
    let mut parts = Vec::with_capacity(tensors.len());
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        let Some(info) = inputs.iter().find(|info| info.name == *name) else {
            let names: Vec<&str> = inputs.iter().map(|info| info.name.as_str()).collect();
            bail!(NotFound, "{what}: there is no input {name:?}; the inputs are {}", names.join(", "));
        };
        if tensors[..index].iter().any(|(other, _)| other == name) {
            bail!(InvalidArgument, "{what} for the input {name:?} is given twice");
        }
        parts.push(Part::new(name, info, tensor).at(|| format!("{what} for the input {name:?}"))?);
    }
    let mut counted = parts.iter().filter_map(|part| Some((part.name, part.samples?)));
    let Some((first, all)) = counted.next() else {
        bail!(InvalidArgument, "no {what} has a dimension of samples");
    };
    if let Some((other, count)) = counted.find(|(_, count)| *count != all) {
        bail!(InvalidArgument, "{what} has {all} samples for {first:?}, but {count} for {other:?}");
    }
    if all == 0 {
        bail!(InvalidArgument, "the {what} has no samples");
    }
    let size = batch_size(&parts, samples)?;
    let whole = parts.iter().any(|part| part.rows > 0);
    let count = if whole { all / size } else { all.div_ceil(size) };
    if count == 0 {
        bail!(InvalidArgument, "the {what} has {all} samples; the model accepts {size} at a time");
    }
    let one = |run: usize| {
        let of = |part: &Part<'_>| Ok((part.name.to_owned(), part.batch(run * size, size.min(all - run * size))?));
        parts.iter().map(of).collect()
    };
    (0..count).map(one).collect()
}

/// Returns the number of samples per run: that which inputs require, otherwise `samples`. Fails with `InvalidArgument`
/// if two inputs require different numbers.
fn batch_size(parts: &[Part<'_>], samples: usize) -> Result<usize> {
    let mut fixed = parts.iter().filter(|part| part.rows > 0);
    let Some(first) = fixed.next() else { return Ok(samples.max(1)) };
    if let Some(other) = fixed.find(|part| part.rows != first.rows) {
        bail!(
            InvalidArgument,
            "a run uses {} samples of the input {:?}, but {} of {:?}",
            first.rows,
            first.name,
            other.rows,
            other.name
        );
    }
    Ok(first.rows)
}

/// The tensor for one input, and its division into samples.
struct Part<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    /// Number of samples in the tensor; `None` if the input has no dimensions.
    samples: Option<usize>,
    /// Number of samples that a run requires; 0 for any number.
    rows: usize,
    /// Whether the tensor has a dimension of samples that the input lacks.
    extra: bool,
}

impl<'a> Part<'a> {
    fn new(name: &'a str, info: &ValueInfo, tensor: &'a Tensor) -> Result<Part<'a>> {
        if tensor.dtype().bits() < 8 {
            bail!(Unsupported, "a tensor of type {} cannot be split into batches", tensor.dtype().name());
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
