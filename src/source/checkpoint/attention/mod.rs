//! Attention of a decoder layer: the projections are here, the product of queries, keys and values is in one file per
//! dialect.

mod portable;
mod runtime;

use super::decoder::{Decoder, Heads, Inputs, linear, norm};
use crate::error::Result;
use crate::source::builder::{Attribute, Builder, Dialect};

pub(super) use runtime::fits as fused_kernel_fits;

/// The weights that compute queries, keys and values.
#[derive(Clone)]
pub(super) enum Projection {
    /// Three matrices, for queries, keys and values.
    Separate { query: &'static str, key: &'static str, value: &'static str },
    /// One matrix with the rows of the queries, the keys and the values.
    Packed(&'static str),
}

/// The values that all layers use, which are added once.
pub(super) enum Shared {
    Runtime(runtime::Shared),
    Portable(portable::Shared),
}

impl Shared {
    /// Adds the values that all layers use and returns them. Fails with `Internal` if the portable dialect lacks
    /// `position_ids`.
    pub fn new(b: &mut Builder<'_>, d: &Decoder, inputs: &Inputs) -> Result<Shared> {
        Ok(match b.dialect {
            Dialect::Runtime => Shared::Runtime(runtime::Shared::new(b, d, inputs)),
            Dialect::Portable => Shared::Portable(portable::Shared::new(b, d, inputs)?),
        })
    }

    /// Returns the name of the positions of the new tokens, int64 `[batch, sequence]`.
    pub fn positions(&self, b: &mut Builder<'_>, inputs: &Inputs) -> String {
        match (self, &inputs.positions) {
            (Shared::Portable(_), Some(given)) => given.clone(),
            _ => runtime::positions(b, inputs),
        }
    }
}

/// The names of queries, keys and values, `[batch, sequence, heads * size]`: separate, or concatenated in one value.
enum Projected {
    Separate([String; 3]),
    Packed(String),
}

/// Adds the attention of layer `index` over normalized hidden states `x` `[batch, sequence, width]` and returns the
/// name of its output.
pub(super) fn build(b: &mut Builder<'_>, d: &Decoder, shared: &Shared, index: usize, x: &str) -> Result<String> {
    let module = format!("{}.{}", d.layer_module(index), d.names.attention);
    let projected = project(b, d, &module, x)?;
    let seen = match shared {
        Shared::Runtime(shared) => runtime::attend(b, d, shared, index, projected),
        Shared::Portable(shared) => {
            let parts = separate(b, d.heads, projected);
            portable::attend(b, d, shared, index, &parts)
        }
    };
    let size = d.heads.query * d.heads.size;
    linear(b, d, &seen, &format!("{module}.{}", d.names.output), (size, d.width), d.bias.output)
}

fn project(b: &mut Builder<'_>, d: &Decoder, module: &str, x: &str) -> Result<Projected> {
    let (heads, bias) = (d.heads, d.bias.query_key_value);
    let (queries, keys) = (heads.query * heads.size, heads.key_value * heads.size);
    let projected = match &d.names.projection {
        Projection::Packed(name) => {
            let size = queries + 2 * keys;
            Projected::Packed(linear(b, d, x, &format!("{module}.{name}"), (d.width, size), bias)?)
        }
        Projection::Separate { query, key, value } => Projected::Separate([
            linear(b, d, x, &format!("{module}.{query}"), (d.width, queries), bias)?,
            linear(b, d, x, &format!("{module}.{key}"), (d.width, keys), bias)?,
            linear(b, d, x, &format!("{module}.{value}"), (d.width, keys), bias)?,
        ]),
    };
    if !d.head_norms {
        return Ok(projected);
    }
    let [q, k, v] = separate(b, heads, projected);
    let q = head_norm(b, d, &q, heads.query, &format!("{module}.q_norm"))?;
    let k = head_norm(b, d, &k, heads.key_value, &format!("{module}.k_norm"))?;
    Ok(Projected::Separate([q, k, v]))
}

fn separate(b: &mut Builder<'_>, heads: Heads, projected: Projected) -> [String; 3] {
    match projected {
        Projected::Separate(parts) => parts,
        Projected::Packed(packed) => {
            let (queries, keys) = (heads.query * heads.size, heads.key_value * heads.size);
            let sizes = b.ints(&[queries, keys, keys]);
            let parts = b.node("", "Split", &[&packed, &sizes], 3, &[("axis", Attribute::Int(-1))]);
            let mut parts = parts.into_iter();
            std::array::from_fn(|_| parts.next().unwrap_or_default())
        }
    }
}

/// Adds the normalization of each head of `[batch, sequence, heads * size]`, and returns the name of its output.
fn head_norm(b: &mut Builder<'_>, d: &Decoder, x: &str, heads: i64, module: &str) -> Result<String> {
    let (apart, together) = (b.ints(&[0, 0, heads, d.heads.size]), b.ints(&[0, 0, heads * d.heads.size]));
    let x = b.op("Reshape", &[x, &apart], &[]);
    let x = norm(b, d, &x, module, d.heads.size)?;
    Ok(b.op("Reshape", &[&x, &together], &[]))
}
