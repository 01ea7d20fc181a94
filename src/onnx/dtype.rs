//! Element types of tensors, with the values of `onnx.proto`.

use super::proto::TensorProto;
use crate::error::{Result, bail};

/// The element type of a tensor. The values are those of ONNX and of `optimize_dtype_t` in C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(missing_docs)] // the names say it
pub enum DataType {
    Float32 = 1,
    Uint8 = 2,
    Int8 = 3,
    Uint16 = 4,
    Int16 = 5,
    Int32 = 6,
    Int64 = 7,
    String = 8,
    Bool = 9,
    Float16 = 10,
    Float64 = 11,
    Uint32 = 12,
    Uint64 = 13,
    Complex64 = 14,
    Complex128 = 15,
    Bfloat16 = 16,
    Float8E4m3fn = 17,
    Float8E4m3fnuz = 18,
    Float8E5m2 = 19,
    Float8E5m2fnuz = 20,
    Uint4 = 21,
    Int4 = 22,
    Float4E2m1 = 23,
    Float8E8m0 = 24,
    Uint2 = 25,
    Int2 = 26,
}

const ALL: [(DataType, &str, u32); 26] = {
    use DataType::*;
    [
        (Float32, "float32", 32),
        (Uint8, "uint8", 8),
        (Int8, "int8", 8),
        (Uint16, "uint16", 16),
        (Int16, "int16", 16),
        (Int32, "int32", 32),
        (Int64, "int64", 64),
        (String, "string", 0),
        (Bool, "bool", 8),
        (Float16, "float16", 16),
        (Float64, "float64", 64),
        (Uint32, "uint32", 32),
        (Uint64, "uint64", 64),
        (Complex64, "complex64", 64),
        (Complex128, "complex128", 128),
        (Bfloat16, "bfloat16", 16),
        (Float8E4m3fn, "float8e4m3fn", 8),
        (Float8E4m3fnuz, "float8e4m3fnuz", 8),
        (Float8E5m2, "float8e5m2", 8),
        (Float8E5m2fnuz, "float8e5m2fnuz", 8),
        (Uint4, "uint4", 4),
        (Int4, "int4", 4),
        (Float4E2m1, "float4e2m1", 4),
        (Float8E8m0, "float8e8m0", 8),
        (Uint2, "uint2", 2),
        (Int2, "int2", 2),
    ]
};

impl DataType {
    /// Returns the type with the value `number` in ONNX; `None` for undefined or unknown values.
    pub fn from_onnx(number: i32) -> Option<DataType> {
        usize::try_from(number).ok().and_then(|n| n.checked_sub(1)).and_then(|n| ALL.get(n)).map(|row| row.0)
    }

    /// Returns the value of the type in ONNX.
    pub fn to_onnx(self) -> i32 {
        self as i32
    }

    /// Returns the name of the type, for example `float32`.
    pub fn name(self) -> &'static str {
        ALL[self as usize - 1].1
    }

    /// Returns the size of one element in bits; 0 for strings, which have no fixed size.
    pub fn bits(self) -> u32 {
        ALL[self as usize - 1].2
    }

    /// Returns whether the type is float16, bfloat16, float32 or float64: a floating-point type that models compute
    /// with.
    pub fn is_float(self) -> bool {
        matches!(self, DataType::Float32 | DataType::Float16 | DataType::Bfloat16 | DataType::Float64)
    }

    /// Returns the size in bytes of `elements` packed elements (sub-byte types share bytes); 0 for strings. Fails with
    /// `InvalidModel` on overflow.
    pub fn bytes_of(self, elements: u64) -> Result<u64> {
        match elements.checked_mul(u64::from(self.bits())) {
            Some(bits) => Ok(bits.div_ceil(8)),
            None => bail!(InvalidModel, "{elements} elements of {} do not fit an address space", self.name()),
        }
    }
}

impl TensorProto {
    /// Returns the element type; `None` if it is absent, undefined or unknown.
    pub fn dtype(&self) -> Option<DataType> {
        DataType::from_onnx(self.data_type.unwrap_or(0))
    }
}

/// Returns the number of elements of a tensor with the shape `dims`; 1 for a scalar. Fails with `InvalidModel` for
/// negative dimensions and on overflow.
pub fn element_count(dims: &[i64]) -> Result<u64> {
    dims.iter().try_fold(1u64, |count, &dim| {
        let Ok(dim) = u64::try_from(dim) else { bail!(InvalidModel, "the dimension {dim} is negative") };
        match count.checked_mul(dim) {
            Some(count) => Ok(count),
            None => bail!(InvalidModel, "the shape {dims:?} has more elements than fit 64 bits"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree_with_the_table() {
        for (index, (dtype, name, _)) in ALL.iter().enumerate() {
            assert_eq!(dtype.to_onnx() as usize, index + 1);
            assert_eq!(DataType::from_onnx(dtype.to_onnx()), Some(*dtype));
            assert_eq!(dtype.name(), *name);
            assert_eq!(dtype.is_float(), ["float16", "bfloat16", "float32", "float64"].contains(name));
        }
        assert_eq!(DataType::from_onnx(0), None);
        assert_eq!(DataType::from_onnx(-1), None);
        assert_eq!(DataType::from_onnx(27), None);
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(DataType::Int4.bytes_of(3).unwrap(), 2);
        assert!(DataType::Float64.bytes_of(u64::MAX / 2).is_err());
        assert_eq!(element_count(&[]).unwrap(), 1);
        assert_eq!(element_count(&[2, 0, 3]).unwrap(), 0);
        assert!(element_count(&[i64::MAX, 3]).is_err());
        assert!(element_count(&[-1]).is_err());
    }
}
