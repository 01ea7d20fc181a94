//! Operations on stored tensors along an axis: cutting, zeroing and summing.

use crate::error::Result;
use crate::files::Scratch;
use crate::graph::floats::raw;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::TensorProto;
use bytes::Bytes;

/// The number of bytes that are written at a time.
const PIECE: usize = 1 << 20;

/// Returns the size of an element of a tensor in bytes.
pub fn width(tensor: &TensorProto) -> usize {
    tensor.dtype().map_or(0, |dtype| dtype.bits() as usize / 8)
}

/// Returns the dimensions of a tensor as `usize`.
pub fn sizes(tensor: &TensorProto) -> Vec<usize> {
    tensor.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect()
}

/// Returns a tensor of the same name and type with other dimensions and elements.
pub fn with(tensor: &TensorProto, dims: Vec<i64>, raw: Bytes) -> TensorProto {
    TensorProto {
        name: tensor.name.clone(),
        data_type: tensor.data_type,
        doc_string: tensor.doc_string.clone(),
        dims,
        raw_data: Some(raw),
        ..Default::default()
    }
}

/// Returns the tensor with only the `kept` elements of each dimension; `None` keeps all elements. Fails like [`raw`]
/// and [`Scratch::reserve`].
pub fn cut(tensor: &TensorProto, kept: &[Option<&[u32]>], scratch: &Scratch) -> Result<TensorProto> {
    let (sizes, width, raw) = (sizes(tensor), width(tensor), raw(tensor)?);
    let after: Vec<usize> = sizes.iter().zip(kept).map(|(size, kept)| kept.map_or(*size, <[u32]>::len)).collect();
    // Everything after the last cut dimension moves in one piece.
    let deepest = kept.iter().rposition(Option::is_some).unwrap_or(0);
    let strides: Vec<usize> = (0..sizes.len()).map(|d| sizes[d + 1..].iter().product::<usize>() * width).collect();
    let slot = scratch.reserve(after.iter().product::<usize>() * width)?;
    let mut writer = Writer { buffer: Vec::with_capacity(PIECE), at: 0, slot: &slot };
    let mut place = vec![0usize; deepest + 1];
    let pick = |d: usize, i: usize| kept[d].map_or(i, |list| list[i] as usize);
    if after.iter().all(|size| *size > 0) {
        'all: loop {
            let from: usize = (0..=deepest).map(|d| pick(d, place[d]) * strides[d]).sum();
            writer.put(&raw[from..from + strides[deepest]])?;
            for d in (0..=deepest).rev() {
                place[d] += 1;
                if place[d] < after[d] {
                    continue 'all;
                }
                place[d] = 0;
            }
            break;
        }
    }
    writer.flush()?;
    crate::files::release(&raw);
    Ok(with(tensor, after.iter().map(|d| *d as i64).collect(), slot.finish()?))
}

struct Writer<'s> {
    buffer: Vec<u8>,
    at: usize,
    slot: &'s crate::files::ScratchSlot,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > PIECE {
            self.flush()?;
        }
        if bytes.len() > PIECE {
            self.slot.write_at(self.at, bytes)?;
            self.at += bytes.len();
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.slot.write_at(self.at, &self.buffer)?;
        self.at += self.buffer.len();
        self.buffer.clear();
        Ok(())
    }
}

/// Returns the tensor with zeros for the elements of dimension `at` that are not in `kept`. Fails like [`raw`].
pub fn zeroed(tensor: &TensorProto, at: usize, kept: &[u32]) -> Result<TensorProto> {
    let (sizes, width) = (sizes(tensor), width(tensor));
    let mut bytes = raw(tensor)?.to_vec();
    let inner = sizes[at + 1..].iter().product::<usize>() * width;
    for (index, part) in bytes.chunks_exact_mut(inner.max(1)).enumerate() {
        if kept.binary_search(&((index % sizes[at]) as u32)).is_err() {
            part.fill(0);
        }
    }
    Ok(with(tensor, tensor.dims.clone(), bytes.into()))
}

/// Returns for each index of dimension `at` the sum of `of(value)` over all elements with this index. Fails like
/// [`raw`].
pub fn sums(tensor: &TensorProto, at: usize, of: fn(f64) -> f64) -> Result<Vec<f64>> {
    let (sizes, width, raw) = (sizes(tensor), width(tensor), raw(tensor)?);
    let mut sums = vec![0f64; sizes[at]];
    let inner = sizes[at + 1..].iter().product::<usize>() * width;
    let dtype = tensor.dtype();
    for (index, part) in raw.chunks_exact(inner.max(1)).enumerate() {
        let sum: f64 = part.chunks_exact(width.max(1)).map(|bytes| of(number(dtype, bytes))).sum();
        sums[index % sizes[at]] += sum;
    }
    crate::files::release(&raw);
    Ok(sums)
}

fn number(dtype: Option<DataType>, bytes: &[u8]) -> f64 {
    match (dtype, bytes) {
        (Some(DataType::Float32), &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        (Some(DataType::Float16), &[a, b]) => half::f16::from_le_bytes([a, b]).to_f64(),
        (Some(DataType::Bfloat16), &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f64(),
        (Some(DataType::Float64), bytes) => bytes.try_into().map_or(0.0, f64::from_le_bytes),
        _ => 0.0,
    }
}
