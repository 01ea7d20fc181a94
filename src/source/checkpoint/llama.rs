//! Llama, and the families that differ from it by a few switches: Mistral, Ministral, Qwen2, Qwen3, SmolLM3, Phi-3.
//! Gemma (`gemma.rs`) begins with the same description.
//!
//! SmolLM and SmolLM2 have the `model_type` of Llama.

use super::activation::Activation;
use super::attention::Projection;
use super::config::Config;
use super::decoder::{self, Bias, Decoder, Heads, Layer, Names, Norm, find_root};
use super::mlp;
use super::rope::Rope;
use crate::error::{Result, bail};
use crate::limits;
use crate::model::Task;
use crate::model::longest;
use crate::onnx::proto::ModelProto;
use crate::source::builder::Dialect;
use crate::source::weights::Weights;

/// The prefixes of tensor names: the usual one, that of a body saved alone, and those of a text model inside a larger
/// one.
const ROOTS: &[&str] = &["model.", "", "language_model.model.", "model.language_model."];

const NAMES: Names = Names {
    embedding: "embed_tokens",
    positions: None,
    layers: "layers",
    before_attention: "input_layernorm",
    after_attention: None,
    before_mlp: "post_attention_layernorm",
    after_mlp: None,
    last_norm: "norm",
    attention: "self_attn",
    projection: Projection::Separate { query: "q_proj", key: "k_proj", value: "v_proj" },
    output: "o_proj",
    mlp: mlp::Names { module: "mlp", form: mlp::Form::Gated { gate: "gate_proj", up: "up_proj" }, down: "down_proj" },
};

type Built = Result<(ModelProto, Task)>;

/// Builds a Llama 1 to 3, SmolLM 1 or 2, or a model with the same `model_type`, from its configuration.
pub(super) fn llama(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    finish(&describe(config, weights)?, weights, dialect)
}

/// Builds a Mistral model, which has a window in all layers.
pub(super) fn mistral(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = describe(config, weights)?;
    let window = config.size("sliding_window")?;
    d.layers.iter_mut().for_each(|layer| layer.window = window);
    finish(&d, weights, dialect)
}

/// Builds a Ministral model, which has a window in the layers that the configuration names, or in all.
pub(super) fn ministral(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = describe(config, weights)?;
    let any = config.size("sliding_window")?.is_some();
    windows(config, &mut d, |_, _| any)?;
    finish(&d, weights, dialect)
}

/// Builds a Qwen2 model, which has biases on query, key and value, and a window in the upper layers if it is enabled.
pub(super) fn qwen2(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = describe(config, weights)?;
    d.bias.query_key_value = true;
    upper_windows(config, &mut d)?;
    finish(&d, weights, dialect)
}

/// Builds a Qwen3 model, in which queries and keys are normalized per head.
pub(super) fn qwen3(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = describe(config, weights)?;
    d.head_norms = true;
    upper_windows(config, &mut d)?;
    finish(&d, weights, dialect)
}

/// Builds a SmolLM3 model, which has some layers without positions.
pub(super) fn smollm3(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = describe(config, weights)?;
    let interval = config.size_of(&["no_rope_layer_interval"])?;
    let list = config.list("no_rope_layers")?;
    for (index, layer) in d.layers.iter_mut().enumerate() {
        // Despite its name, a 1 in the list is a layer *with* positions.
        let has_positions = match list {
            Some(list) => list.get(index).and_then(|v| v.as_i64()).unwrap_or(1) != 0,
            None => (index as i64 + 1) % interval != 0,
        };
        layer.rope = has_positions.then_some(0);
    }
    let used = config.flag("use_sliding_window", false)? && config.size("sliding_window")?.is_some();
    windows(config, &mut d, |_, layer| used && layer.rope.is_none())?;
    finish(&d, weights, dialect)
}

/// Builds a Phi-3 model, which has packed matrices and a window in all layers.
pub(super) fn phi3(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = describe(config, weights)?;
    // Configurations of this family use the names yarn and su for longrope.
    if let Some(kind) = Rope::kind(config)?.filter(|kind| *kind != "default") {
        bail!(Unsupported, "rotary positions of type {kind:?} are not supported for Phi-3; supported: default");
    }
    d.names.projection = Projection::Packed("qkv_proj");
    d.names.mlp.form = mlp::Form::Packed { gate_up: "gate_up_proj" };
    let window = config.size("sliding_window")?;
    d.layers.iter_mut().for_each(|layer| layer.window = window);
    d.ropes = vec![Rope::read(config, d.heads.size, true)?];
    finish(&d, weights, dialect)
}

/// Returns the description that all models of this file and the Gemma models share, from the configuration.
pub(super) fn describe(config: &Config<'_>, weights: &dyn Weights) -> Result<Decoder> {
    let width = config.size_of(&["hidden_size"])?;
    let heads = heads(config, width)?;
    let count = config.size_of(&["num_hidden_layers"])?;
    if count > limits::LAYERS {
        bail!(LimitExceeded, "the configuration has {count} layers; the limit is {}", limits::LAYERS);
    }
    let attention_bias = config.flag("attention_bias", false)?;
    let layer = Layer { rope: Some(0), window: None, scale: (heads.size as f32).sqrt().recip() };
    Ok(Decoder {
        names: NAMES,
        root: find_root(weights, ROOTS, &NAMES)?,
        vocabulary: config.size_of(&["vocab_size"])?,
        width,
        heads,
        inner: config.size_of(&["intermediate_size"])?,
        positions: positions(config)?,
        norm: Norm::Rms { epsilon: config.needed("rms_norm_eps")? as f32, plus_one: false },
        activation: activation(config)?,
        bias: Bias { query_key_value: attention_bias, output: attention_bias, mlp: config.flag("mlp_bias", false)? },
        transposed: false,
        head_norms: false,
        score_cap: None,
        logit_cap: None,
        embedding_scale: None,
        ropes: vec![Rope::read(config, heads.size, false)?],
        layers: vec![layer; count as usize],
        tied: config.flag("tie_word_embeddings", false)?,
    })
}

/// Returns the activation: `hidden_activation` in families that read this key, otherwise `hidden_act`.
fn activation(config: &Config<'_>) -> Result<Activation> {
    let own = config.text("hidden_activation")?;
    Activation::named(own.map_or_else(|| config.word("hidden_act"), Ok)?)
}

/// Returns the number of positions, including a context extended by scaling.
fn positions(config: &Config<'_>) -> Result<i64> {
    let trained = config.size_of(&["max_position_embeddings"])?;
    let stretched = longest::context(config.map()).and_then(|tokens| i64::try_from(tokens).ok());
    Ok(stretched.unwrap_or(trained).clamp(trained, limits::CONFIG_SIZE))
}

fn heads(config: &Config<'_>, width: i64) -> Result<Heads> {
    let query = config.size_of(&["num_attention_heads"])?;
    let key_value = config.size("num_key_value_heads")?.unwrap_or(query);
    if query % key_value != 0 {
        bail!(InvalidModel, "{query} attention heads cannot share {key_value} key and value heads");
    }
    let size = match config.size("head_dim")? {
        Some(size) => size,
        None if width % query == 0 => width / query,
        None => bail!(InvalidModel, "the hidden size {width} is not a multiple of the {query} attention heads"),
    };
    // The size is checked before anything of that size is made, because rotary angles are computed before the first
    // tensor is read.
    if size > limits::HEAD_SIZE {
        bail!(LimitExceeded, "attention heads of {size} elements; the limit is {}", limits::HEAD_SIZE);
    }
    Ok(Heads { query, key_value, size })
}

/// Sets the window of each layer. A window has the size `sliding_window` of the configuration. The layers with a window
/// are those of the kind `sliding_attention` in `layer_types` of the configuration or, without such a list, those for
/// which `default` returns `true`.
pub(super) fn windows(config: &Config<'_>, d: &mut Decoder, default: impl Fn(i64, &Layer) -> bool) -> Result<()> {
    of_layers(config, d, config.size("sliding_window")?, default)
}

/// Sets the window of each layer like [`windows`], of the size `window`.
fn of_layers(
    config: &Config<'_>,
    d: &mut Decoder,
    window: Option<i64>,
    default: impl Fn(i64, &Layer) -> bool,
) -> Result<()> {
    let types = config.list("layer_types")?;
    for (index, layer) in d.layers.iter_mut().enumerate() {
        let local = match types.map(|types| types.get(index).and_then(|v| v.as_str())) {
            None => default(index as i64, layer),
            Some(Some("sliding_attention")) => true,
            // "attention" is an older name.
            Some(Some("full_attention" | "attention")) => false,
            Some(other) => bail!(Unsupported, "layer {index} has attention of the type {:?}", other.unwrap_or("")),
        };
        layer.window = window.filter(|_| local);
        if local && window.is_none() {
            bail!(InvalidModel, "layer {index} has a window, but sliding_window is null or switched off");
        }
    }
    Ok(())
}

/// Sets Qwen's windows: those of the upper layers, if windows are enabled. Its configurations contain the size of a
/// window even if windows are disabled, which is their default.
fn upper_windows(config: &Config<'_>, d: &mut Decoder) -> Result<()> {
    let used = config.flag("use_sliding_window", false)?;
    let window = config.size("sliding_window")?.filter(|_| used);
    let from = config.integer("max_window_layers")?.unwrap_or(28);
    of_layers(config, d, window, |index, _| window.is_some() && index >= from)
}

/// Builds the graph of a decoder from its description.
pub(super) fn finish(d: &Decoder, weights: &dyn Weights, dialect: Dialect) -> Built {
    Ok((decoder::build(d, weights, dialect)?, Task::Generate))
}
