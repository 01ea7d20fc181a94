//! Immutable elements with a type and a shape ([`Tensor`]).

use super::mapped;
use crate::error::{Error, Kind, Result, bail, error};
use crate::limits;
use crate::model::contract::Contract;
use crate::onnx::dtype::{DataType, element_count};
use bytes::Bytes;
use half::{bf16, f16};
use ndarray::ArrayViewD;
use std::sync::Arc;

/// The alignment of copies in bytes: a cache line, and enough for the widest vector load.
const ALIGNMENT: usize = 64;

/// Elements with their type and shape. A tensor is immutable, cheap to clone (clones share the elements), and can be
/// shared between threads.
#[derive(Clone)]
pub struct Tensor {
    dtype: DataType,
    shape: Arc<[i64]>,
    data: Data,
}

#[derive(Clone)]
enum Data {
    /// Elements in row-major order and native byte order; types below a byte are packed, low bits first. The bytes are
    /// aligned for the type.
    Fixed(Bytes),
    Text(Arc<[String]>),
}

/// Fails if a contract does not allow the sizes of the inputs of a run; see [`Contract::check`].
pub(crate) fn check_contract(contract: &Contract, inputs: &[(&str, &Tensor)]) -> Result<()> {
    let given: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor.dtype(), tensor.shape())).collect();
    contract.check(&given)
}

/// A Rust type of which tensors can be made and as which they can be read: floats of 16, 32 and 64 bits, bfloat16, and
/// integers of 8 to 64 bits. The trait is sealed, because any bit pattern must be a valid value.
pub trait Element: mapped::Plain {
    /// Element type of tensors of this Rust type.
    const DTYPE: DataType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),+ $(,)?) => {
        $(impl Element for $rust {
            const DTYPE: DataType = DataType::$dtype;
        })+
    };
}

elements! {
    f32 => Float32, f64 => Float64, f16 => Float16, bf16 => Bfloat16,
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
}

impl Tensor {
    /// Returns a tensor of `dtype` and `shape` over `bytes` (row-major, native byte order, types below a byte
    /// packed).
    ///
    /// The bytes are shared, not copied, unless they are not aligned for the type. Fails with
    /// [`Kind::InvalidArgument`] if the number of bytes does not match type and shape, a dimension is negative, the
    /// type is string, or a boolean is neither 0 nor 1; [`Kind::LimitExceeded`] above [`limits::TENSOR_ELEMENTS`] or
    /// [`limits::TENSOR_RANK`].
    pub fn new(dtype: DataType, shape: &[i64], bytes: Bytes) -> Result<Tensor> {
        let count = checked_count(shape)?;
        if dtype == DataType::String {
            bail!(InvalidArgument, "a tensor of strings cannot be made from bytes");
        }
        let needed = dtype.bytes_of(count)?;
        if needed != bytes.len() as u64 {
            let (name, given) = (dtype.name(), bytes.len());
            bail!(InvalidArgument, "{name}{shape:?} needs {needed} bytes, but {given} were given");
        }
        if dtype == DataType::Bool && bytes.iter().any(|b| *b > 1) {
            bail!(InvalidArgument, "a boolean is neither 0 nor 1");
        }
        let bytes = if is_aligned(&bytes, dtype) { bytes } else { aligned_copy(&bytes) };
        Ok(Tensor { dtype, shape: shape.into(), data: Data::Fixed(bytes) })
    }

    /// Returns a tensor of the elements of a vector, row-major, without a copy. Fails like [`Tensor::new`].
    pub fn from_vec<T: Element>(shape: &[i64], elements: Vec<T>) -> Result<Tensor> {
        Tensor::new(T::DTYPE, shape, mapped::bytes_from_vec(elements))
    }

    /// Returns a float32 tensor with these elements. Fails like [`Tensor::from_vec`].
    pub fn from_f32(shape: &[i64], elements: Vec<f32>) -> Result<Tensor> {
        Tensor::from_vec(shape, elements)
    }

    /// Returns an int64 tensor with these elements. Fails like [`Tensor::from_vec`].
    pub fn from_i64(shape: &[i64], elements: Vec<i64>) -> Result<Tensor> {
        Tensor::from_vec(shape, elements)
    }

    /// Returns a bool tensor with a copy of the elements, row-major. Fails like [`Tensor::new`].
    pub fn from_bools(shape: &[i64], elements: &[bool]) -> Result<Tensor> {
        let bytes: Vec<u8> = elements.iter().map(|b| u8::from(*b)).collect();
        Tensor::new(DataType::Bool, shape, Bytes::from(bytes))
    }

    /// Returns a string tensor, row-major. Fails like [`Tensor::new`] if the number of strings or the shape is wrong.
    pub fn from_strings(shape: &[i64], elements: Vec<String>) -> Result<Tensor> {
        let needed = checked_count(shape)?;
        if needed != elements.len() as u64 {
            bail!(InvalidArgument, "string{shape:?} needs {needed} strings, but {} were given", elements.len());
        }
        Ok(Tensor { dtype: DataType::String, shape: shape.into(), data: Data::Text(elements.into()) })
    }

    /// Returns the element type of the tensor.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Returns the shape of the tensor; empty for a scalar.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Returns the number of elements of the tensor; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.shape.iter().map(|d| *d as usize).product()
    }

    /// Returns the elements as bytes, row-major, in native byte order; empty for strings.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Fixed(bytes) => bytes,
            Data::Text(_) => &[],
        }
    }

    /// Returns the elements of a string tensor; `None` for any other.
    pub fn strings(&self) -> Option<&[String]> {
        match &self.data {
            Data::Fixed(_) => None,
            Data::Text(strings) => Some(strings),
        }
    }

    /// Returns the elements if they have type `T`; otherwise fails with [`Kind::InvalidArgument`].
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        if self.dtype != T::DTYPE {
            bail!(InvalidArgument, "the tensor holds {}, not {}", self.dtype.name(), T::DTYPE.name());
        }
        match mapped::slice_of(self.bytes()) {
            Some(elements) => Ok(elements),
            None => bail!(Internal, "a tensor of {} is not aligned", self.dtype.name()),
        }
    }

    /// Returns the elements as an array of `ndarray` with the shape of the tensor. Fails with [`Kind::InvalidArgument`]
    /// if they are not of type `T`.
    ///
    /// The array is a view: nothing is copied, and what `ndarray` makes of it with `into_dimensionality`, `outer_iter`
    /// or `slice` are views as well.
    pub fn view<T: Element>(&self) -> Result<ArrayViewD<'_, T>> {
        let shape: Vec<usize> = self.shape.iter().map(|size| *size as usize).collect();
        ArrayViewD::from_shape(shape, self.as_slice()?).map_err(|e| error!(Internal, "{}: {e}", self.describe()))
    }

    /// Returns the elements converted to float32, rounded if they have more precision; booleans become 0 and 1.
    ///
    /// Fails with [`Kind::Unsupported`] for strings, complex numbers, 8-bit floats and types below a byte.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>> {
        fn all<T: Element>(tensor: &Tensor, convert: impl Fn(T) -> f32) -> Result<Vec<f32>> {
            Ok(tensor.as_slice::<T>()?.iter().map(|element| convert(*element)).collect())
        }
        match self.dtype {
            DataType::Float32 => Ok(self.as_slice::<f32>()?.to_vec()),
            DataType::Float64 => all(self, |x: f64| x as f32),
            DataType::Float16 => all(self, f16::to_f32),
            DataType::Bfloat16 => all(self, bf16::to_f32),
            DataType::Uint8 => all(self, |x: u8| x.into()),
            DataType::Uint16 => all(self, |x: u16| x.into()),
            DataType::Uint32 => all(self, |x: u32| x as f32),
            DataType::Uint64 => all(self, |x: u64| x as f32),
            DataType::Int8 => all(self, |x: i8| x.into()),
            DataType::Int16 => all(self, |x: i16| x.into()),
            DataType::Int32 => all(self, |x: i32| x as f32),
            DataType::Int64 => all(self, |x: i64| x as f32),
            DataType::Bool => Ok(self.bytes().iter().map(|b| f32::from(*b)).collect()),
            other => bail!(Unsupported, "{} cannot be converted to float32", other.name()),
        }
    }

    /// Returns the type and the shape for messages: `float32[2, 3]`.
    pub fn describe(&self) -> String {
        format!("{}{:?}", self.dtype.name(), self.shape)
    }

    /// Returns the bytes of the elements, shared with the tensor; empty for strings.
    pub(super) fn shared_bytes(&self) -> Bytes {
        match &self.data {
            Data::Fixed(bytes) => bytes.clone(),
            Data::Text(_) => Bytes::new(),
        }
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

fn checked_count(shape: &[i64]) -> Result<u64> {
    if shape.len() > limits::TENSOR_RANK {
        bail!(LimitExceeded, "the tensor has {} dimensions; the limit is {}", shape.len(), limits::TENSOR_RANK);
    }
    // The same check is used for model files; here the caller's shape is invalid.
    let count = element_count(shape).map_err(|e| Error::new(Kind::InvalidArgument, e.message()))?;
    if count > limits::TENSOR_ELEMENTS {
        bail!(LimitExceeded, "the tensor has {count} elements; the limit is {}", limits::TENSOR_ELEMENTS);
    }
    Ok(count)
}

/// Returns whether the bytes are aligned for elements of the type: by its size, at most 8 bytes.
pub(super) fn is_aligned(bytes: &[u8], dtype: DataType) -> bool {
    let alignment = (dtype.bits() as usize / 8).clamp(1, 8);
    (bytes.as_ptr() as usize).is_multiple_of(alignment)
}

/// Returns a copy of the bytes that is aligned for elements of any type.
pub(super) fn aligned_copy(bytes: &[u8]) -> Bytes {
    let mut room = vec![0u8; bytes.len() + ALIGNMENT];
    let start = room.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    room[start..start + bytes.len()].copy_from_slice(bytes);
    Bytes::from(room).slice(start..start + bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_has_the_shape_and_shares_the_elements() {
        let tensor = Tensor::from_f32(&[2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let view = tensor.view::<f32>().unwrap();
        assert_eq!((view.shape(), view[[1, 2]]), (&[2, 3][..], 5.0));
        assert_eq!(view.as_ptr().cast::<u8>(), tensor.bytes().as_ptr());
        assert_eq!(tensor.view::<i64>().unwrap_err().kind(), Kind::InvalidArgument);
        let empty = Tensor::from_i64(&[0, 4], Vec::new()).unwrap();
        assert_eq!(empty.view::<i64>().unwrap().shape(), [0, 4]);
        assert_eq!(Tensor::from_f32(&[], vec![7.0]).unwrap().view::<f32>().unwrap().sum(), 7.0);
    }

    #[test]
    fn elements_come_back_as_they_went_in() {
        let tensor = Tensor::from_f32(&[2, 2], vec![1.0, -2.0, 0.5, f32::NAN]).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape(), tensor.elements()), (DataType::Float32, &[2i64, 2][..], 4));
        assert_eq!(tensor.as_slice::<f32>().unwrap()[..3], [1.0, -2.0, 0.5]);
        assert_eq!(tensor.bytes()[..4], 1.0f32.to_ne_bytes());
        assert!(tensor.as_slice::<i32>().unwrap_err().message().contains("float32, not int32"));
        let text = Tensor::from_strings(&[1], vec!["a".into()]).unwrap();
        assert_eq!(text.strings().unwrap(), ["a"]);
        assert!(tensor.strings().is_none() && text.bytes().is_empty());
        assert_eq!(format!("{tensor:?}"), "float32[2, 2]");
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let kind = |r: Result<Tensor>| r.unwrap_err().kind();
        assert_eq!(kind(Tensor::from_f32(&[3], vec![1.0])), Kind::InvalidArgument);
        assert_eq!(kind(Tensor::from_i64(&[-1], vec![])), Kind::InvalidArgument);
        assert_eq!(kind(Tensor::from_i64(&[i64::MAX, 4], vec![])), Kind::InvalidArgument);
        assert_eq!(kind(Tensor::new(DataType::Int2, &[1 << 41], Bytes::new())), Kind::LimitExceeded);
        assert_eq!(kind(Tensor::new(DataType::Int2, &[1; 65], Bytes::from(vec![0]))), Kind::LimitExceeded);
        assert_eq!(kind(Tensor::new(DataType::String, &[0], Bytes::new())), Kind::InvalidArgument);
        assert_eq!(kind(Tensor::new(DataType::Bool, &[1], Bytes::from(vec![2]))), Kind::InvalidArgument);
        assert_eq!(kind(Tensor::from_strings(&[2], vec![])), Kind::InvalidArgument);
        assert_eq!(Tensor::new(DataType::Int4, &[3], Bytes::from(vec![0, 0])).unwrap().elements(), 3);
    }

    #[test]
    fn misaligned_bytes_are_copied_and_aligned_ones_shared() {
        let odd = aligned_copy(&[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        for start in 0..8 {
            let given = odd.slice(start..start + 8);
            let tensor = Tensor::new(DataType::Int64, &[1], given.clone()).unwrap();
            assert_eq!(tensor.bytes(), given);
            assert_eq!(tensor.bytes().as_ptr() == given.as_ptr(), start == 0);
            assert!(tensor.as_slice::<i64>().is_ok());
        }
        assert!(Tensor::from_f32(&[0], vec![]).unwrap().as_slice::<f32>().unwrap().is_empty());
    }

    #[test]
    fn every_number_converts_to_float() {
        let floats = |t: Result<Tensor>| t.unwrap().to_f32_vec().unwrap();
        assert_eq!(floats(Tensor::from_vec(&[1], vec![f16::from_f32(1.5)])), [1.5]);
        assert_eq!(floats(Tensor::from_vec(&[1], vec![bf16::from_f32(-2.0)])), [-2.0]);
        assert_eq!(floats(Tensor::from_vec(&[2], vec![-3i8, 4])), [-3.0, 4.0]);
        assert_eq!(floats(Tensor::from_vec(&[1], vec![u64::MAX])), [u64::MAX as f32]);
        assert_eq!(floats(Tensor::from_vec(&[1], vec![0.1f64])), [0.1]);
        assert_eq!(floats(Tensor::from_bools(&[2], &[true, false])), [1.0, 0.0]);
        let e = Tensor::from_strings(&[0], vec![]).unwrap().to_f32_vec().unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
    }
}
