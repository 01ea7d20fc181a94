//! Gemma 1, 2 and 3 (text). All have norms with the factor `1 + w`, embeddings scaled by the square root of the width,
//! and by default a tied output layer. Gemma 2 and 3 also have norms after attention and feed-forward part, caps and
//! windows; Gemma 3 normalizes queries and keys, and has two rotary embeddings.

use super::activation::Activation;
use super::config::Config;
use super::decoder::{Decoder, Norm};
use super::llama::{describe, finish, windows};
use super::rope::Rope;
use crate::error::{Result, bail};
use crate::model::Task;
use crate::onnx::proto::ModelProto;
use crate::source::builder::Dialect;
use crate::source::weights::Weights;

type Built = Result<(ModelProto, Task)>;

/// Builds a Gemma 1 model from its configuration.
pub(super) fn gemma(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = common(config, weights)?;
    // The first published files contain "gelu", but the models were trained with its approximation.
    let named = config.word("hidden_act")?;
    d.activation = Activation::named(if named == "gelu" { "gelu_pytorch_tanh" } else { named })?;
    finish(&d, weights, dialect)
}

/// Builds a Gemma 2 model from its configuration.
pub(super) fn gemma2(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = around(config, weights)?;
    d.score_cap = cap(config, "attn_logit_softcapping")?;
    windows(config, &mut d, |index, _| index % 2 == 0)?;
    finish(&d, weights, dialect)
}

/// Builds the text part of a Gemma 3 model from its configuration.
pub(super) fn gemma3(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = around(config, weights)?;
    d.head_norms = true;
    let pattern = config.size_of(&["sliding_window_pattern"])?;
    windows(config, &mut d, |index, _| (index + 1) % pattern != 0)?;
    let [full, sliding] = ropes(config, d.heads.size)?;
    d.ropes = vec![full, sliding];
    d.layers.iter_mut().for_each(|layer| layer.rope = Some(usize::from(layer.window.is_some())));
    finish(&d, weights, dialect)
}

/// Returns the description that Gemma 1, 2 and 3 share.
fn common(config: &Config<'_>, weights: &dyn Weights) -> Result<Decoder> {
    let mut d = describe(config, weights)?;
    if let Norm::Rms { plus_one, .. } = &mut d.norm {
        *plus_one = true;
    }
    d.embedding_scale = Some((d.width as f32).sqrt());
    Ok(d)
}

/// Returns the description that Gemma 2 and 3 share.
fn around(config: &Config<'_>, weights: &dyn Weights) -> Result<Decoder> {
    let mut d = common(config, weights)?;
    d.names.after_attention = Some("post_attention_layernorm");
    d.names.before_mlp = "pre_feedforward_layernorm";
    d.names.after_mlp = Some("post_feedforward_layernorm");
    let scalar = config.needed("query_pre_attn_scalar")?;
    if scalar <= 0.0 {
        bail!(InvalidModel, "query_pre_attn_scalar of the configuration is {scalar}");
    }
    d.layers.iter_mut().for_each(|layer| layer.scale = scalar.sqrt().recip() as f32);
    d.logit_cap = cap(config, "final_logit_softcapping")?;
    Ok(d)
}

/// Returns the bound of scores or logits; `None` if the value is missing or not above 0.
fn cap(config: &Config<'_>, key: &str) -> Result<Option<f32>> {
    Ok(config.number(key)?.filter(|cap| *cap > 0.0).map(|cap| cap as f32))
}

/// Returns the rotary embeddings of layers without and with a window. Newer configurations contain them as nested
/// objects, and older ones as several keys. `rope_scaling` of an older configuration applies to the layers without a
/// window.
fn ropes(config: &Config<'_>, head: i64) -> Result<[Rope; 2]> {
    let nested = config.object("rope_parameters")?;
    let of = |kind: &str| nested.map_or(Ok(None), |nested| nested.object(kind));
    let mut full = of("full_attention")?.map(|full| full.map().clone()).unwrap_or_default();
    if let Some(scaling) = config.object("rope_scaling")? {
        full.extend(scaling.map().clone());
    }
    let full = Rope::from(config, Some(Config::new(&full)), head, config.needed("rope_theta")?, false)?;
    let theta = config.needed("rope_local_base_freq")?;
    Ok([full, Rope::from(config, of("sliding_attention")?, head, theta, false)?])
}
