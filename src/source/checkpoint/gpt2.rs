//! GPT-2, which has learned positions, `LayerNormalization`, packed query, key and value, and matrices stored as `[in,
//! out]`.

use super::activation::Activation;
use super::attention::Projection;
use super::config::Config;
use super::decoder::{self, Bias, Decoder, Heads, Layer, Names, Norm, find_root};
use super::mlp;
use crate::error::{Result, bail};
use crate::limits;
use crate::model::Task;
use crate::onnx::proto::ModelProto;
use crate::source::builder::Dialect;
use crate::source::weights::Weights;

const NAMES: Names = Names {
    embedding: "wte",
    positions: Some("wpe"),
    layers: "h",
    before_attention: "ln_1",
    after_attention: None,
    before_mlp: "ln_2",
    after_mlp: None,
    last_norm: "ln_f",
    attention: "attn",
    projection: Projection::Packed("c_attn"),
    output: "c_proj",
    mlp: mlp::Names { module: "mlp", form: mlp::Form::Plain { up: "c_fc" }, down: "c_proj" },
};

/// The configuration key for whether matrices are stored as `[in, out]`, as in checkpoints.
pub(in crate::source) const TRANSPOSED: &str = "liboptimize.conv1d";

/// Builds a GPT-2 model from its configuration.
///
/// This library's own key [`TRANSPOSED`] is `false` for matrices stored as `[out, in]`, as in GGUF files.
pub(super) fn gpt2(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Result<(ModelProto, Task)> {
    let d = describe(config, weights)?;
    Ok((decoder::build(&d, weights, dialect)?, Task::Generate))
}

fn describe(config: &Config<'_>, weights: &dyn Weights) -> Result<Decoder> {
    let width = config.size_of(&["n_embd"])?;
    let heads = config.size_of(&["n_head"])?;
    if width % heads != 0 {
        bail!(InvalidModel, "the hidden size {width} is not a multiple of the {heads} attention heads");
    }
    let count = config.size_of(&["n_layer"])?;
    if count > limits::LAYERS {
        bail!(LimitExceeded, "the configuration has {count} layers; the limit is {}", limits::LAYERS);
    }
    let size = width / heads;
    let scaled = config.flag("scale_attn_weights", true)?;
    let by_depth = config.flag("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |index: i64| {
        let scale = if scaled { (size as f32).sqrt().recip() } else { 1.0 };
        let depth = if by_depth { index as f32 + 1.0 } else { 1.0 };
        Layer { rope: None, window: None, scale: scale / depth }
    };
    Ok(Decoder {
        names: NAMES,
        // The files of the first release contain only the body.
        root: find_root(weights, &["transformer.", ""], &NAMES)?,
        vocabulary: config.size_of(&["vocab_size"])?,
        width,
        heads: Heads { query: heads, key_value: heads, size },
        inner: config.size("n_inner")?.unwrap_or(4 * width),
        positions: config.size_of(&["n_positions"])?,
        norm: Norm::Layer { epsilon: config.needed("layer_norm_epsilon")? as f32 },
        activation: Activation::named(config.word("activation_function")?)?,
        bias: Bias { query_key_value: true, output: true, mlp: true },
        transposed: config.flag(TRANSPOSED, true)?,
        head_norms: false,
        score_cap: None,
        logit_cap: None,
        embedding_scale: None,
        ropes: Vec::new(),
        layers: (0..count).map(layer).collect(),
        tied: config.flag("tie_word_embeddings", true)?,
    })
}
