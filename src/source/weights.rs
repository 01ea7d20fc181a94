//! The named tensors of a checkpoint, in any stored form.

use crate::error::{Result, error};
use crate::onnx::dtype::DataType;
use bytes::Bytes;

/// A tensor as it is stored. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Shape of the tensor, outermost dimension first (as in PyTorch).
    pub dims: Vec<i64>,
    /// Form in which the elements are stored.
    pub form: Form,
    /// Bytes of the elements; a slice of the mapped file if the elements are unchanged.
    pub bytes: Bytes,
}

/// The form in which the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Elements one after another, row-major.
    Plain(DataType),
    /// Rows that are divided into blocks of integers with scales: a matrix `[N, K]` that is quantized along `K`.
    Blocks(BlockForm),
}

/// The form of a block in GGUF files: integers `q` with scales, `w = scale q + offset`. The graphs of [`super::blocks`]
/// represent each form without loss, with `com.microsoft.MatMulNBits`. The bytes of a block are listed in order; `d`,
/// `e`, `m` are float16, and `w` is the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)] // the names users know
pub enum BlockForm {
    /// 32 weights: scale `d`, 16 bytes of nibbles `q`; `w = d (q - 8)`.
    Q4_0,
    /// 32 weights: `d`, `m`, 16 bytes of nibbles; `w = d q + m`.
    Q4_1,
    /// 32 weights: `d`, 4 bytes of fifth bits, 16 bytes of nibbles; `w = d (q - 16)`.
    Q5_0,
    /// 32 weights: `d`, `m`, 4 bytes of fifth bits, 16 bytes of nibbles; `w = d q + m`.
    Q5_1,
    /// 32 weights: `d`, 32 signed bytes `q`; `w = d q`.
    Q8_0,
    /// 256 weights in 8 groups, `w = d s q - e t`: `d`, `e`, 12 bytes of 6-bit scales `s` and `t`, 128 bytes of
    /// nibbles.
    Q4_K,
    /// 256 weights in 8 groups: like `Q4_K`, with 32 bytes of fifth bits before the nibbles.
    Q5_K,
    /// 256 weights in 16 groups, `w = d s (q - 32)`: 128 bytes of low nibbles, 64 of two high bits, 16 signed scales
    /// `s`, `d`.
    Q6_K,
    /// 256 weights in 16 groups, `w = d s q - e t`: 16 bytes of 4-bit scales `s` and `t`, 64 bytes of pairs of bits,
    /// `d`, `e`.
    Q2_K,
    /// 256 weights in 16 groups, `w = d (s - 32) (q - 4)`: 32 bytes of third bits, 64 of the two bits below, 12 of
    /// 6-bit scales `s`, `d`.
    Q3_K,
    /// 32 weights: `d`, 16 bytes of nibbles, each an index into a list of 16 signed bytes `v`; `w = d v`.
    IQ4_NL,
    /// 256 weights in 8 groups, `w = d (s - 32) v`: `d`, 6 bytes of 6-bit scales `s`, 128 bytes of nibbles as in
    /// `IQ4_NL`.
    IQ4_XS,
    /// 32 weights: the exponent of a power of two, 16 bytes of nibbles, each a 4-bit float (E2M1) that is multiplied by
    /// that power.
    MXFP4,
    /// 256 weights: 52 bytes of up to five base-3 digits, `d`; `w = d (q - 1)`.
    TQ1_0,
    /// 256 weights: 64 bytes of pairs of bits, `d`; `w = d (q - 1)`.
    TQ2_0,
}

/// A set of tensors under the names of Hugging Face checkpoints.
pub trait Weights {
    /// Returns the tensor with the name `name`; `None` if it does not exist. Fails with `InvalidModel` if it is
    /// damaged, and with `Unsupported` if its type is unknown.
    fn find(&self, name: &str) -> Result<Option<Stored>>;

    /// Returns the names of all tensors, sorted.
    fn names(&self) -> Vec<String>;

    /// Returns the tensor with the name `name`. Fails with `InvalidModel` if it does not exist; the error names it.
    fn get(&self, name: &str) -> Result<Stored> {
        self.find(name)?.ok_or_else(|| error!(InvalidModel, "the checkpoint has no tensor {name:?}"))
    }

    /// Returns the tensor with the name `name`. Fails with `InvalidModel` if it does not exist or its shape is not
    /// `dims`.
    fn shaped(&self, name: &str, dims: &[i64]) -> Result<Stored> {
        of_shape(self.get(name)?, name, dims)
    }
}

/// Returns the tensor `stored`, whose name is `name`. Fails with `InvalidModel` if its shape is not `dims`, which the
/// configuration requires.
pub fn of_shape(stored: Stored, name: &str, dims: &[i64]) -> Result<Stored> {
    if stored.dims != dims {
        let found = &stored.dims;
        return Err(error!(
            InvalidModel,
            "the tensor {name:?} has shape {found:?}, but the configuration requires {dims:?}"
        ));
    }
    Ok(stored)
}
