//! The tensors of a GGUF file under the names and with the content of a Hugging Face checkpoint.
//!
//! Plain tensors and blocks stay slices of the mapped file, except where the format and a checkpoint differ. The row
//! order of query and key in the Llama family is restored, 1 is subtracted from norms of the Gemma family, and blocks
//! of tensors that are not matrices become float32.

use super::header::{Header, TensorInfo};
use super::names::Architecture;
use super::types::ElementType;
use crate::error::{Context, Result, bail};
use crate::files::Scratch;
use crate::onnx::dtype::DataType;
use crate::source::blocks;
use crate::source::weights::{Form, Stored, Weights};
use bytes::Bytes;
use half::{bf16, f16};
use std::collections::HashMap;

/// The name of the factors of the rotary frequencies, which belong to the configuration, not to the weights.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The tensors of a file under the names of a checkpoint.
pub struct GgufWeights<'h> {
    header: &'h Header,
    by_name: HashMap<String, (usize, Change)>,
    scratch: Scratch,
    /// Whether blocks are converted to float32, to be quantized again.
    floats: bool,
}

/// The change that makes a tensor of the file one of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// The row order of a tensor with this number of heads is restored.
    Rows {
        heads: usize,
    },
    MinusOne,
}

impl<'h> GgufWeights<'h> {
    /// Returns the tensors of a file. `heads` is the number of query heads, `key_value_heads` that of key heads.
    ///
    /// Fails with `Unsupported` for a tensor that the architecture does not have, and for an element type that is not
    /// supported.
    pub fn new(
        header: &'h Header,
        architecture: &Architecture,
        heads: usize,
        key_value_heads: usize,
    ) -> Result<GgufWeights<'h>> {
        let mut by_name = HashMap::new();
        for (index, tensor) in header.tensors.iter().enumerate() {
            if tensor.name == ROPE_FACTORS {
                continue;
            }
            let name = architecture.checkpoint_name(&tensor.name)?;
            if tensor.element.form.is_none() {
                let (wanted, known) = (tensor.element.name, ElementType::readable());
                bail!(Unsupported, "the tensor {:?} is {wanted}, which is not supported; {known} are", tensor.name);
            }
            let change = match tensor.name.rsplit('.').nth(1) {
                Some("attn_q") if architecture.interleaved => Change::Rows { heads },
                Some("attn_k") if architecture.interleaved => Change::Rows { heads: key_value_heads },
                Some(module) if architecture.norms_plus_one && module.ends_with("norm") => Change::MinusOne,
                _ => Change::None,
            };
            by_name.insert(name, (index, change));
        }
        Ok(GgufWeights { header, by_name, scratch: Scratch::new(&std::env::temp_dir()), floats: false })
    }

    /// Returns the same tensors, with blocks converted to float32.
    pub fn floats(self) -> GgufWeights<'h> {
        GgufWeights { floats: true, ..self }
    }

    fn stored(&self, tensor: &TensorInfo, change: Change) -> Result<Stored> {
        let Some(form) = tensor.element.form else { bail!(Internal, "its type is not supported") };
        let mut stored = Stored { dims: tensor.dims.clone(), form, bytes: tensor.bytes.clone() };
        match change {
            Change::None => {}
            Change::Rows { heads } => stored.bytes = self.rows_in_order(&stored, heads)?,
            Change::MinusOne => stored = self.minus_one(stored)?,
        }
        match stored.form {
            // Tensors other than matrices are small and not used in block products.
            Form::Blocks(form) if self.floats || stored.dims.len() != 2 => {
                let bytes = blocks::dequantized(&self.scratch, &stored, form)?;
                Ok(Stored { form: Form::Plain(DataType::Float32), bytes, ..stored })
            }
            _ => Ok(stored),
        }
    }

    /// Returns the bytes of a weight in which rows `2 i` and `2 i + 1` of each head are moved to rows `i` of its first
    /// and its second half.
    ///
    /// Rotary embeddings rotate adjacent elements in this format, but elements of the two halves in a checkpoint; so
    /// converters to GGUF interleave the halves.
    fn rows_in_order(&self, stored: &Stored, heads: usize) -> Result<Bytes> {
        let rows = stored.dims.first().map_or(0, |rows| *rows as usize);
        if heads == 0 || !rows.is_multiple_of(2 * heads) {
            bail!(InvalidModel, "its {rows} rows are not {heads} heads of even size");
        }
        let (size, width) = (rows / heads, stored.bytes.len() / rows);
        let slot = self.scratch.reserve(stored.bytes.len())?;
        let mut head_bytes = vec![0u8; size * width];
        for head in 0..heads {
            let source = &stored.bytes[head * size * width..][..size * width];
            for (row, target) in head_bytes.chunks_mut(width).enumerate() {
                let (half, i) = (row / (size / 2), row % (size / 2));
                target.copy_from_slice(&source[(2 * i + half) * width..][..width]);
            }
            slot.write_at(head * size * width, &head_bytes)?;
        }
        slot.finish()
    }

    fn minus_one(&self, stored: Stored) -> Result<Stored> {
        let bytes = &stored.bytes;
        let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        let values: Vec<f32> = match stored.form {
            Form::Plain(DataType::Float32) => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Form::Plain(DataType::Float16) => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            Form::Plain(DataType::Bfloat16) => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            _ => bail!(Unsupported, "the weight of a normalization is quantized, which is not supported"),
        };
        let bytes: Vec<u8> = values.iter().flat_map(|value| (value - 1.0).to_le_bytes()).collect();
        Ok(Stored { form: Form::Plain(DataType::Float32), bytes: bytes.into(), ..stored })
    }
}

impl Weights for GgufWeights<'_> {
    fn find(&self, name: &str) -> Result<Option<Stored>> {
        let Some((index, change)) = self.by_name.get(name) else { return Ok(None) };
        let tensor = &self.header.tensors[*index];
        self.stored(tensor, *change).at(|| format!("tensor {:?}", tensor.name)).map(Some)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.by_name.keys().cloned().collect();
        names.sort();
        names
    }
}
