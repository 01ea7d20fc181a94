//! The common part of decoders: the description ([`Decoder`]) and the graph built from it, in both dialects.
//!
//! A family fills in the description; this file and those that it uses do not depend on the family. Inputs and outputs
//! of the graph (`batch` rows; `sequence` new tokens after `past_sequence` earlier ones; `total_sequence` is their
//! sum):
//!
//! | name | type and shape | meaning |
//! |---|---|---|
//! | `input_ids` | int64 `[batch, sequence]` | the new tokens |
//! | `attention_mask` | int64 `[batch, total_sequence]` | 1 for tokens, 0 for padding |
//! | `position_ids` | int64 `[batch, sequence]` | portable dialect only |
//! | `num_logits_to_keep` | int64 | number of columns, counted from the end, with logits; 0 for all |
//! | `past_key_values.N.key`, `.value` | float32 `[batch, kv_heads, past_sequence, head_size]` | the cache |
//! | `logits` | float32 `[batch, kept, vocabulary]` | |
//! | `present.N.key`, `.value` | float32 `[batch, kv_heads, total_sequence, head_size]` | the updated cache |
//!
//! **Runtime dialect**: rows are padded on the *right*; the mask gives the number of a row's tokens, not their
//! positions. A cache with more capacity than `total_sequence` is written in place (bind it as both past and
//! present), and the length of the mask is the part in use. With several rows, a step with a past reads one token per
//! row. **Portable dialect**: rows are padded on the *left*, and positions are inputs.

use super::activation::Activation;
use super::rope::Rope;
use super::weights::{WithTable, head_or_table};
use super::{attention, mlp};
use crate::error::{Result, bail};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::ModelProto;
use crate::source::builder::{Attribute, Builder, Dialect};
use crate::source::weights::Weights;

/// The description of a decoder.
pub(super) struct Decoder {
    /// Names of the parts of the decoder in the checkpoint.
    pub names: Names,
    /// Prefix of every name except that of the output layer (`model.`).
    pub root: String,
    /// Size of the vocabulary.
    pub vocabulary: i64,
    /// Number of elements of a hidden state.
    pub width: i64,
    /// Numbers and size of the attention heads.
    pub heads: Heads,
    /// Number of elements between the two products of the feed-forward part.
    pub inner: i64,
    /// Maximum number of positions.
    pub positions: i64,
    /// Normalization of hidden states.
    pub norm: Norm,
    /// Activation of the feed-forward part.
    pub activation: Activation,
    /// Linear layers that have a bias.
    pub bias: Bias,
    /// Whether matrices are `[in, out]` (GPT-2's `Conv1D`) instead of `[out, in]`.
    pub transposed: bool,
    /// Whether queries and keys are normalized per head.
    pub head_norms: bool,
    /// Bound of attention scores: a score `s` becomes `cap tanh(s / cap)`; `None` for no bound.
    pub score_cap: Option<f32>,
    /// Bound of logits: a logit `l` becomes `cap tanh(l / cap)`; `None` for no bound.
    pub logit_cap: Option<f32>,
    /// Factor by which embeddings are multiplied; `None` for 1.
    pub embedding_scale: Option<f32>,
    /// Kinds of rotary embedding that layers refer to.
    pub ropes: Vec<Rope>,
    /// Settings of each layer.
    pub layers: Vec<Layer>,
    /// Whether the output layer is the embedding table.
    pub tied: bool,
}

/// The numbers and the size of the attention heads; `key_value` divides `query`.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// Number of query heads.
    pub query: i64,
    /// Number of key and value heads; each serves `query / key_value` query heads.
    pub key_value: i64,
    /// Number of elements of a head.
    pub size: i64,
}

/// The settings of a layer.
#[derive(Clone)]
pub(super) struct Layer {
    /// Index of the rotary embedding in `ropes` that rotates queries and keys; `None` if they are not rotated.
    pub rope: Option<usize>,
    /// Attention window in tokens, including the token itself; `None` for all earlier tokens.
    pub window: Option<i64>,
    /// Factor by which attention scores are multiplied.
    pub scale: f32,
}

/// The normalization of hidden states.
#[derive(Clone, Copy)]
pub(super) enum Norm {
    /// RMS normalization, times `weight`, or times `1 + weight` (Gemma).
    Rms { epsilon: f32, plus_one: bool },
    /// `LayerNormalization` with a bias.
    Layer { epsilon: f32 },
}

/// The linear layers that have a bias.
#[derive(Clone, Copy, Default)]
pub(super) struct Bias {
    /// Whether the projections of query, key and value have a bias.
    pub query_key_value: bool,
    /// Whether the output projection of attention has a bias.
    pub output: bool,
    /// Whether the layers of the feed-forward part have a bias.
    pub mlp: bool,
}

/// The names of the parts of a decoder in the checkpoint, without `weight` and `bias`.
#[derive(Clone)]
pub(super) struct Names {
    /// Name of the token table.
    pub embedding: &'static str,
    /// Name of the table of learned positions; `None` if there is none.
    pub positions: Option<&'static str>,
    /// Name of the list of layers: layer 0 is `{layers}.0`.
    pub layers: &'static str,
    /// Name of the norm before attention, in a layer.
    pub before_attention: &'static str,
    /// Name of the norm after attention, in a layer; `None` if there is none.
    pub after_attention: Option<&'static str>,
    /// Name of the norm before the feed-forward part, in a layer.
    pub before_mlp: &'static str,
    /// Name of the norm after the feed-forward part, in a layer; `None` if there is none.
    pub after_mlp: Option<&'static str>,
    /// Name of the norm after the last layer.
    pub last_norm: &'static str,
    /// Name of attention, in a layer.
    pub attention: &'static str,
    /// Weights of the queries, keys and values.
    pub projection: attention::Projection,
    /// Name of the output projection of attention.
    pub output: &'static str,
    /// Names of the feed-forward part.
    pub mlp: mlp::Names,
}

impl Decoder {
    /// Returns `{root}{layers}.{index}`, the prefix of a layer's names.
    pub fn layer_module(&self, index: usize) -> String {
        format!("{}{}.{index}", self.root, self.names.layers)
    }

    /// Returns the name of the embedding table.
    fn table(&self) -> String {
        format!("{}{}.weight", self.root, self.names.embedding)
    }

    /// Returns the dialect in which the decoder is built: portable if ONNX Runtime's fused attention has no kernel for
    /// the heads.
    fn dialect(&self, wanted: Dialect) -> Dialect {
        let fits = attention::fused_kernel_fits(self);
        if fits { wanted } else { Dialect::Portable }
    }
}

/// Returns the first of several prefixes under which the embedding table exists, otherwise the last norm (a tied model
/// may lack the table), or the first prefix if there is neither.
pub(super) fn find_root(weights: &dyn Weights, roots: &[&str], names: &Names) -> Result<String> {
    for part in [names.embedding, names.last_norm] {
        for root in roots {
            if weights.find(&format!("{root}{part}.weight"))?.is_some() {
                return Ok((*root).to_owned());
            }
        }
    }
    Ok(roots.first().copied().unwrap_or_default().to_owned())
}

/// Builds the graph of a decoder.
pub(super) fn build(d: &Decoder, weights: &dyn Weights, dialect: Dialect) -> Result<ModelProto> {
    let weights = WithTable::new(weights, d.table(), &own_head(weights, d)?, d.tied)?;
    let mut b = Builder::new("decoder", &weights, d.dialect(dialect));
    let inputs = Inputs::declare(&mut b, d);
    let shared = attention::Shared::new(&mut b, d, &inputs)?;
    let hidden = scoped(&mut b, d.root.trim_end_matches('.'), |b| {
        let mut x = embed(b, d, &inputs, &shared)?;
        for index in 0..d.layers.len() {
            x = b.within(&format!("{}.{index}", d.names.layers), |b| layer(b, d, &shared, index, &x))?;
        }
        let x = keep_last(b, &x, &inputs.keep);
        norm(b, d, &x, &format!("{}{}", d.root, d.names.last_norm), d.width)
    })?;
    let logits = head(&mut b, d, &hidden)?;
    b.output("logits", &logits, DataType::Float32, &["batch", "kept", &d.vocabulary.to_string()]);
    let (heads, size) = (d.heads.key_value.to_string(), d.heads.size.to_string());
    for index in 0..d.layers.len() {
        for part in ["key", "value"] {
            let dims = ["batch", &heads, "total_sequence", &size];
            b.output_as_is(&format!("present.{index}.{part}"), DataType::Float32, &dims);
        }
    }
    Ok(b.finish())
}

/// The names of the graph's inputs.
pub(super) struct Inputs {
    /// Name of the input with token ids.
    pub ids: String,
    /// Name of the input with the attention mask.
    pub mask: String,
    /// Name of the input with positions; `None` in the runtime dialect.
    pub positions: Option<String>,
    keep: String,
}

impl Inputs {
    fn declare(b: &mut Builder<'_>, d: &Decoder) -> Inputs {
        let ids = b.input("input_ids", DataType::Int64, &["batch", "sequence"]);
        let mask = b.input("attention_mask", DataType::Int64, &["batch", "total_sequence"]);
        let portable = b.dialect == Dialect::Portable;
        let positions = portable.then(|| b.input("position_ids", DataType::Int64, &["batch", "sequence"]));
        let keep = b.input("num_logits_to_keep", DataType::Int64, &[]);
        let (heads, size) = (d.heads.key_value.to_string(), d.heads.size.to_string());
        for index in 0..d.layers.len() {
            for part in ["key", "value"] {
                let dims = ["batch", &heads, "past_sequence", &size];
                b.input(&format!("past_key_values.{index}.{part}"), DataType::Float32, &dims);
            }
        }
        Inputs { ids, mask, positions, keep }
    }
}

/// Runs `body` like [`Builder::within`], but without a module if the name is empty.
fn scoped<T>(b: &mut Builder<'_>, name: &str, body: impl FnOnce(&mut Builder<'_>) -> Result<T>) -> Result<T> {
    if name.is_empty() { body(b) } else { b.within(name, body) }
}

fn embed(b: &mut Builder<'_>, d: &Decoder, inputs: &Inputs, shared: &attention::Shared) -> Result<String> {
    let table = d.table();
    let mut x = b.within(d.names.embedding, |b| {
        let x = b.embedding(&inputs.ids, &table, d.vocabulary, d.width)?;
        let Some(scale) = d.embedding_scale else { return Ok(x) };
        let scale = b.float(scale);
        Ok(b.op("Mul", &[&x, &scale], &[]))
    })?;
    if let Some(name) = d.names.positions {
        let positions = shared.positions(b, inputs);
        let learned =
            b.within(name, |b| b.embedding(&positions, &format!("{}{name}.weight", d.root), d.positions, d.width))?;
        x = b.op("Add", &[&x, &learned], &[]);
    }
    Ok(x)
}

fn layer(b: &mut Builder<'_>, d: &Decoder, shared: &attention::Shared, index: usize, x: &str) -> Result<String> {
    let (n, module) = (&d.names, d.layer_module(index));
    let maybe_norm = |b: &mut Builder<'_>, name: Option<&str>, x: String| match name {
        Some(name) => norm(b, d, &x, &format!("{module}.{name}"), d.width),
        None => Ok(x),
    };
    let normed = norm(b, d, x, &format!("{module}.{}", n.before_attention), d.width)?;
    let seen = b.within(n.attention, |b| attention::build(b, d, shared, index, &normed))?;
    let seen = maybe_norm(b, n.after_attention, seen)?;
    let x = b.op("Add", &[x, &seen], &[]);
    let normed = norm(b, d, &x, &format!("{module}.{}", n.before_mlp), d.width)?;
    let thought = b.within(n.mlp.module, |b| mlp::build(b, d, &format!("{module}.{}", n.mlp.module), &normed))?;
    let thought = maybe_norm(b, n.after_mlp, thought)?;
    Ok(b.op("Add", &[&x, &thought], &[]))
}

/// Adds a slice with the last `keep` columns of `[batch, sequence, width]`, and returns its name. The slice begins at
/// column `-keep`, which for 0 is the first one, so that all columns remain.
///
/// It comes before the output layer, so that a prompt does not compute unused logits.
fn keep_last(b: &mut Builder<'_>, x: &str, keep: &str) -> String {
    let first = b.ints(&[0]);
    let start = b.op("Neg", &[keep], &[]);
    let start = b.op("Unsqueeze", &[&start, &first], &[]);
    let (end, axis) = (b.ints(&[i64::MAX]), b.ints(&[1]));
    b.op("Slice", &[x, &start, &end, &axis], &[])
}

fn head(b: &mut Builder<'_>, d: &Decoder, x: &str) -> Result<String> {
    let (embedding, own) = (d.table(), own_head(b.weights, d)?);
    if !d.tied && b.weights.find(&own)?.is_none() {
        bail!(
            InvalidModel,
            "the checkpoint has no tensor {own:?}: a decoder without an output layer cannot generate text, and other \
             uses of decoders are not supported"
        );
    }
    // An output layer in the file has priority even if the configuration ties it to the table, unless both are equal.
    let weight = if d.tied { head_or_table(b.weights, &own, &embedding)? } else { &own }.to_owned();
    b.within("lm_head", |b| {
        let logits = b.product(x, &weight, d.width, d.vocabulary)?;
        Ok(match d.logit_cap {
            Some(cap) => soft_cap(b, &logits, cap),
            None => logits,
        })
    })
}

/// Returns the name that a separate output layer has in the checkpoint, even if there is none: `lm_head.weight`, or a
/// longer name that a larger model gives to its text part.
fn own_head(weights: &dyn Weights, d: &Decoder) -> Result<String> {
    let (usual, inside) = ("lm_head.weight", format!("{}lm_head.weight", d.root.strip_suffix("model.").unwrap_or("")));
    let found = weights.find(usual)?.is_none() && weights.find(&inside)?.is_some();
    Ok(if found { inside } else { usual.to_owned() })
}

/// Adds `cap tanh(x / cap)`, and returns the name of the result.
pub(super) fn soft_cap(b: &mut Builder<'_>, x: &str, cap: f32) -> String {
    let cap = b.float(cap);
    let x = b.op("Div", &[x, &cap], &[]);
    let x = b.op("Tanh", &[&x], &[]);
    b.op("Mul", &[&x, &cap], &[])
}

/// Adds the normalization of `x` over its last dimension, of size `width`, with `{module}.weight`, and returns the name
/// of its output.
///
/// ONNX Runtime's `SimplifiedLayerNormalization` (which it registers in the standard domain) is the RMS norm. The
/// variant fused with the preceding addition (`SkipSimplifiedLayerNormalization`) is not faster on the CPU.
pub(super) fn norm(b: &mut Builder<'_>, d: &Decoder, x: &str, module: &str, width: i64) -> Result<String> {
    let (epsilon, plus_one) = match d.norm {
        Norm::Layer { epsilon } => return b.layer_norm(x, module, width, epsilon),
        Norm::Rms { epsilon, plus_one } => (epsilon, plus_one),
    };
    let short = module.rsplit_once('.').map_or(module, |(_, last)| last);
    b.within(short, |b| {
        let mut scale = b.weight(&format!("{module}.weight"), &[width])?;
        if plus_one {
            let one = b.float(1.0);
            scale = b.op("Add", &[&scale, &one], &[]);
        }
        if b.dialect == Dialect::Runtime {
            let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
            return Ok(b.op("SimplifiedLayerNormalization", &[x, &scale], &attributes));
        }
        let (two, axis, epsilon) = (b.float(2.0), b.ints(&[-1]), b.float(epsilon));
        let square = b.op("Pow", &[x, &two], &[]);
        let mean = b.op("ReduceMean", &[&square, &axis], &[("keepdims", Attribute::Int(1))]);
        let mean = b.op("Add", &[&mean, &epsilon], &[]);
        let root = b.op("Sqrt", &[&mean], &[]);
        let x = b.op("Div", &[x, &root], &[]);
        Ok(b.op("Mul", &[&x, &scale], &[]))
    })
}

/// Adds the linear layer `{module}` of the checkpoint, applied to `x`, from size `from` to size `to`, and returns the
/// name of its output.
pub(super) fn linear(
    b: &mut Builder<'_>,
    d: &Decoder,
    x: &str,
    module: &str,
    (from, to): (i64, i64),
    bias: bool,
) -> Result<String> {
    let short = module.rsplit_once('.').map_or(module, |(_, last)| last);
    let weight = format!("{module}.weight");
    b.within(short, |b| {
        let product = if d.transposed {
            let matrix = b.weight(&weight, &[from, to])?;
            b.op("MatMul", &[x, &matrix], &[])
        } else {
            b.product(x, &weight, from, to)?
        };
        if !bias {
            return Ok(product);
        }
        let bias = b.weight(&format!("{module}.bias"), &[to])?;
        Ok(b.op("Add", &[&product, &bias], &[]))
    })
}
