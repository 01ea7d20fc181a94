//! Weights in blocks of a few bits (`MatMulNBits`), as float32 again: TensorRT has no operator that reads them.

use crate::files::Scratch;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{NodeProto, TensorProto};
use bytes::Bytes;
use half::f16;
use std::collections::HashMap;

/// A weight `[K, N]` of a `MatMulNBits`, and the bias if there is one.
pub(super) struct Weight {
    pub inner: usize,
    pub columns: usize,
    pub raw: Bytes,
    pub bias: Option<String>,
}

/// What a node of weights in blocks multiplies with: `(q - zero) scale`, block by block, where `q` lies column by column,
/// the low bits of a byte first. Source: the documentation of `com.microsoft.MatMulNBits`. `None` for what is not of
/// constants, has columns in another order, or other sizes than it says.
pub(super) fn weight(
    node: &NodeProto,
    constants: &HashMap<&str, &TensorProto>,
    scratch: &Scratch,
) -> Option<crate::error::Result<Weight>> {
    let number = |name: &str| usize::try_from(node.int(name, 0)).ok();
    let (inner, columns, size) = (number("K")?, number("N")?, number("block_size")?);
    let bits = usize::try_from(node.int("bits", 4)).ok().filter(|bits| matches!(bits, 2 | 4 | 8))?;
    let given = |index: usize| node.input_at(index).filter(|name| !name.is_empty());
    if given(4).is_some() || inner == 0 || columns == 0 || !size.is_power_of_two() || size < 16 {
        return None;
    }
    let blocks = inner.div_ceil(size);
    let quantized = bytes_of(constants.get(given(1)?)?, DataType::Uint8)?;
    let scales = numbers(constants.get(given(2)?)?)?;
    if quantized.len() != columns * blocks * size * bits / 8 || scales.len() != columns * blocks {
        return None;
    }
    let zeros = match given(3) {
        None => vec![(1u32 << (bits - 1)) as f32; scales.len()],
        Some(name) => zeros(constants.get(name)?, columns, blocks, bits)?,
    };
    let mut values = vec![0f32; inner * columns];
    for column in 0..columns {
        for row in 0..inner {
            let block = column * blocks + row / size;
            let q = bits_at(&quantized[block * size * bits / 8..], row % size, bits);
            values[row * columns + column] = (f32::from(q) - zeros[block]) * scales[block];
        }
    }
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let kept = scratch.reserve(raw.len()).and_then(|slot| {
        slot.write_at(0, &raw)?;
        slot.finish()
    });
    let bias = given(5).map(str::to_owned);
    Some(kept.map(|raw| Weight { inner, columns, raw, bias }))
}

fn bits_at(bytes: &[u8], index: usize, bits: usize) -> u8 {
    let (per_byte, mask) = (8 / bits, ((1u16 << bits) - 1) as u8);
    bytes[index / per_byte] >> (index % per_byte * bits) & mask
}

/// Zero points: numbers, or packed as the weights are, each column's beginning with a byte.
fn zeros(tensor: &TensorProto, columns: usize, blocks: usize, bits: usize) -> Option<Vec<f32>> {
    let Some(packed) = bytes_of(tensor, DataType::Uint8) else {
        return numbers(tensor).filter(|zeros| zeros.len() == columns * blocks);
    };
    let row = (blocks * bits).div_ceil(8);
    if packed.len() != columns * row {
        return None;
    }
    let at = |index: usize| f32::from(bits_at(&packed[index / blocks * row..], index % blocks, bits));
    Some((0..columns * blocks).map(at).collect())
}

fn bytes_of(tensor: &TensorProto, dtype: DataType) -> Option<&Bytes> {
    tensor.raw_data.as_ref().filter(|_| tensor.data_type == Some(dtype.to_onnx()))
}

fn numbers(tensor: &TensorProto) -> Option<Vec<f32>> {
    if let Some(raw) = bytes_of(tensor, DataType::Float16) {
        return Some(raw.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect());
    }
    (tensor.data_type == Some(DataType::Float32.to_onnx())).then(|| super::casts::floats(tensor))
}
