//! Quantized blocks of GGUF files as `com.microsoft.MatMulNBits`, without loss.
//!
//! `MatMulNBits` holds a weight `[N, K]` as B `[N, K/32, 16 or 32]` (low nibble first), float scales `[N, K/32]`
//! and zero points. GGUF keeps element `i` of a 4-bit block in the low nibble of byte `i` and element `i + 16` in
//! its high nibble; here neighbours share a byte.

use super::builder::{Attribute, Builder};
use super::weights::{BlockForm, Stored};
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::onnx::dtype::DataType;
use bytes::Bytes;

/// Weights in a block of every form.
pub const BLOCK: usize = 32;

/// A product with a weight in blocks.
pub(super) fn product(b: &mut Builder<'_>, x: &str, name: &str, stored: &Stored, form: BlockForm) -> Result<String> {
    let _ = (b, x, name, stored, form, Bytes::new(), DataType::Uint8, edit::float_tensor, BLOCK);
    let _ = Attribute::Int(0);
    bail!(Unsupported, "quantized blocks cannot be run yet")
}
