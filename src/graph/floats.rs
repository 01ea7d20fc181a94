//! Conversion of the elements of float tensors: to `f32` from raw data and typed fields, and to float32, float16 and
//! bfloat16.

use super::constants::Matrix;
use crate::error::{Result, bail};
use crate::files::Scratch;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::TensorProto;
use bytes::Bytes;
use half::{bf16, f16};

/// Returns the elements of a float32, float16 or bfloat16 tensor, in the order in which they are stored. Fails with
/// [`crate::error::Kind::Unsupported`] for other types, and with [`crate::error::Kind::InvalidModel`] if the number of
/// elements does not match the shape.
pub fn floats(tensor: &TensorProto) -> Result<Vec<f32>> {
    Ok(Matrix::flat(tensor)?.values())
}

/// Returns the elements of a tensor as little-endian bytes: its raw data, or the converted typed field of a float32,
/// float64, float16 or bfloat16 tensor. Fails with [`crate::error::Kind::Unsupported`] for typed fields of other types.
pub fn raw(tensor: &TensorProto) -> Result<Bytes> {
    if let Some(raw) = &tensor.raw_data {
        return Ok(raw.clone());
    }
    let dtype = tensor.dtype();
    Ok(match dtype {
        Some(DataType::Float32) => tensor.float_data.0.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Some(DataType::Float64) => tensor.double_data.0.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Some(DataType::Float16 | DataType::Bfloat16) => {
            tensor.int32_data.0.iter().flat_map(|v| (*v as u16).to_le_bytes()).collect()
        }
        _ => bail!(Unsupported, "the tensor is {}, not float", dtype.map_or("of an unknown type", DataType::name)),
    })
}

/// Returns `values` as little-endian elements of float16 or bfloat16, or otherwise of float32.
pub fn to_bytes(values: &[f32], dtype: DataType) -> Vec<u8> {
    match dtype {
        DataType::Float16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        DataType::Bfloat16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// Returns the bytes of [`to_bytes`] in scratch storage. Fails with `NotFound` or `Io` if the storage cannot be created
/// or written.
pub fn store(values: &[f32], dtype: DataType, scratch: &Scratch) -> Result<Bytes> {
    let bytes = to_bytes(values, dtype);
    let slot = scratch.reserve(bytes.len())?;
    slot.write_at(0, &bytes)?;
    slot.finish()
}

/// Rounds `values` to float16 or bfloat16; another type leaves them unchanged.
pub fn round(values: &mut [f32], dtype: DataType) {
    match dtype {
        DataType::Float16 => values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32()),
        DataType::Bfloat16 => values.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit;

    #[test]
    fn what_is_written_is_read_back_in_any_type() {
        let scratch = Scratch::new(&std::env::temp_dir());
        for dtype in [DataType::Float32, DataType::Float16, DataType::Bfloat16] {
            let mut values = vec![1.0, -0.3, 7e-5, 1234.5];
            let tensor = edit::tensor("w", dtype, &[2, 1, 2], store(&values, dtype, &scratch).unwrap());
            round(&mut values, dtype);
            assert_eq!(floats(&tensor).unwrap(), values, "{}", dtype.name());
        }
        assert!(floats(&edit::tensor("w", DataType::Int64, &[], vec![0; 8].into())).is_err());
    }

    #[test]
    fn typed_fields_hold_the_same_elements() {
        let halves = [1.5f32, -2.0].map(|v| i32::from(f16::from_f32(v).to_bits()));
        let mut tensor =
            TensorProto { dims: vec![2], data_type: Some(DataType::Float16.to_onnx()), ..Default::default() };
        tensor.int32_data.0 = halves.to_vec();
        assert_eq!(floats(&tensor).unwrap(), [1.5, -2.0]);
        assert_eq!(raw(&tensor).unwrap(), to_bytes(&[1.5, -2.0], DataType::Float16));
    }
}
