//! Decoding of block-quantized weights: an element is `(code - zero point) * scale`, with the zero point and the scale
//! of its block.

use super::values::{Constants, Numbers, Value};
use super::{Weight, is_table};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::NodeProto;

/// The maximum block size, with which sizes cannot overflow. This library writes no larger blocks.
const LARGEST: usize = 1 << 20;

/// Returns the weight of a `MatMulNBits`, as `[K, N]`, or of a two-dimensional `GatherBlockQuantized`. The codes of
/// both are stored in rows of blocks, with the low bits of a byte first; a row of `MatMulNBits` is a column of its
/// weight. Source: the documentation of both operators.
///
/// Returns `None` if the weight does not follow from constants, has reordered columns, other sizes than declared, or
/// unsupported attributes, such as 3 bits, a block size that is not a power of two, or scales other than float32 and
/// float16.
pub(super) fn weight(constants: &Constants<'_>, node: &NodeProto) -> Option<Weight> {
    let number = |name: &str, usual: i64| usize::try_from(node.int(name, usual)).ok();
    let (size, bits) = (number("block_size", if is_table(node) { 128 } else { 0 })?, number("bits", 4)?);
    if !matches!(bits, 2 | 4 | 8) || !size.is_power_of_two() || !(16..=LARGEST).contains(&size) {
        return None;
    }
    let at = if is_table(node) { [0, 2, 3] } else { [1, 2, 3] };
    let codes = constants.value(node.input_at(at[0])?)?;
    let scales = constants.value(node.input_at(at[1])?)?;
    let (dims, dtype) = (codes.dims, scales.dtype);
    let Numbers::Bytes(codes) = codes.numbers else { return None };
    if !matches!(dtype, DataType::Float32 | DataType::Float16) {
        return None;
    }
    let (rows, width) = if is_table(node) {
        let last = dims.len() as i64 - 1;
        if node.int("gather_axis", 0) != 0 || ![last, -1].contains(&node.int("quantize_axis", 1)) || last != 1 {
            return None;
        }
        (dims[0], dims[1].checked_mul(8)? / bits)
    } else {
        if node.input_at(4).is_some_and(|order| !order.is_empty()) {
            return None;
        }
        (number("N", 0)?, number("K", 0)?)
    };
    let blocks = width.div_ceil(size);
    let bytes = if is_table(node) { dims[1] } else { blocks.checked_mul(size * bits / 8)? };
    let scales = scales.floats()?;
    if rows == 0 || width == 0 || rows.checked_mul(bytes)? != codes.len() || rows * blocks != scales.len() {
        return None;
    }
    let zeros = match node.input_at(at[2]).filter(|name| !name.is_empty()) {
        None => vec![(1u32 << (bits - 1)) as f32; scales.len()],
        Some(name) => zeros(constants.value(name)?, rows, blocks, bits)?,
    };
    let mut values = vec![0f32; rows * width];
    for row in 0..rows {
        let own = &codes[row * bytes..][..bytes];
        for index in 0..width {
            let block = row * blocks + index / size;
            let value = (f32::from(bits_at(own, index, bits)) - zeros[block]) * scales[block];
            values[if is_table(node) { row * width + index } else { index * rows + row }] = value;
        }
    }
    let dims = if is_table(node) { [rows, width] } else { [width, rows] };
    Some(Weight { dims, dtype, values })
}

fn bits_at(bytes: &[u8], index: usize, bits: usize) -> u8 {
    let (per_byte, mask) = (8 / bits, ((1u16 << bits) - 1) as u8);
    bytes[index / per_byte] >> (index % per_byte * bits) & mask
}

/// Returns the zero points, one per block. They are stored as numbers, or packed like the codes, where each row starts
/// at a byte. Returns `None` if their number does not fit.
fn zeros(value: Value, rows: usize, blocks: usize, bits: usize) -> Option<Vec<f32>> {
    let Numbers::Bytes(packed) = value.numbers else {
        return value.floats().filter(|zeros| zeros.len() == rows * blocks);
    };
    let row = (blocks * bits).div_ceil(8);
    if packed.len() != rows * row {
        return None;
    }
    let at = |index: usize| f32::from(bits_at(&packed[index / blocks * row..], index % blocks, bits));
    Some((0..rows * blocks).map(at).collect())
}

/// Returns the output of a `DequantizeLinear` with blocks along one axis: its shape, type and elements. Returns `None`
/// if its inputs do not follow from constants, their shapes do not match, or its output is not float32 or float16.
pub(super) fn linear(constants: &Constants<'_>, node: &NodeProto) -> Option<(Vec<i64>, DataType, Vec<f32>)> {
    let codes = constants.value(node.input_at(0)?)?;
    let scales = constants.value(node.input_at(1)?)?;
    let (dims, dtype) = (codes.dims.clone(), scales.dtype);
    let size = usize::try_from(node.int("block_size", 0)).ok().filter(|size| *size > 0)?;
    let rank = dims.len() as i64;
    let axis = usize::try_from(Some(node.int("axis", 1)).map(|a| if a < 0 { a + rank } else { a })?).ok()?;
    if !matches!(dtype, DataType::Float32 | DataType::Float16) || node.int("output_dtype", 0) != 0 {
        return None;
    }
    let along = *dims.get(axis)?;
    let (inside, blocks) = (dims[axis + 1..].iter().product::<usize>(), along.div_ceil(size));
    let expected: Vec<usize> = dims.iter().enumerate().map(|(at, d)| if at == axis { blocks } else { *d }).collect();
    let zeros = match node.input_at(2).filter(|name| !name.is_empty()) {
        Some(name) => Some(constants.value(name)?).filter(|zeros| zeros.dims == expected)?.floats()?,
        None => vec![0.0; expected.iter().product()],
    };
    if scales.dims != expected {
        return None;
    }
    let (mut values, scales) = (codes.floats()?, scales.floats()?);
    for (index, value) in values.iter_mut().enumerate() {
        let (outer, place, rest) = (index / (along * inside), index / inside % along, index % inside);
        let block = (outer * blocks + place / size) * inside + rest;
        *value = (*value - zeros[block]) * scales[block];
    }
    Some((dims.iter().map(|d| *d as i64).collect(), dtype, values))
}
