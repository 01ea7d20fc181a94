//! Gemma 1, 2 and 3 (text): `1 + w` norms, embeddings scaled by the root of the width, tied heads; from 2 on norms
//! after attention and feed-forward part, caps and windows; in 3 norms of queries and keys, and two ropes.

use super::activation::Activation;
use super::config::Config;
use super::decoder::{Decoder, Norm};
use super::llama::{describe, finish, windows};
use super::rope::Rope;
use crate::error::{Result, bail};
use crate::onnx::proto::ModelProto;
use crate::source::Task;
use crate::source::builder::Dialect;
use crate::source::weights::Weights;

type Built = Result<(ModelProto, Task)>;

/// Gemma 1.
pub(super) fn gemma(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    finish(&common(config, weights)?, weights, dialect)
}

/// Gemma 2.
pub(super) fn gemma2(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = around(config, weights)?;
    windows(config, &mut d, |index, _| index % 2 == 0)?;
    finish(&d, weights, dialect)
}

/// The text part of Gemma 3.
pub(super) fn gemma3(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Built {
    let mut d = around(config, weights)?;
    d.head_norms = true;
    let pattern = config.size("sliding_window_pattern")?.or(config.size("_sliding_window_pattern")?).unwrap_or(6);
    windows(config, &mut d, |index, _| (index + 1) % pattern != 0)?;
    let [full, sliding] = ropes(config, d.heads.size)?;
    d.ropes = vec![full, sliding];
    d.layers.iter_mut().for_each(|layer| layer.rope = Some(usize::from(layer.window.is_some())));
    finish(&d, weights, dialect)
}

/// What all three share.
fn common(config: &Config<'_>, weights: &dyn Weights) -> Result<Decoder> {
    if config.flag("use_bidirectional_attention", false)? {
        bail!(Unsupported, "the configuration asks for attention in both directions");
    }
    let mut d = describe(config, weights)?;
    if let Norm::Rms { plus_one, .. } = &mut d.norm {
        *plus_one = true;
    }
    // The first files say "gelu" and mean the approximation they were trained with.
    let named = config.text("hidden_activation")?.or(config.text("hidden_act")?);
    d.activation = Activation::named(named.filter(|name| *name != "gelu").unwrap_or("gelu_pytorch_tanh"))?;
    d.embedding_scale = Some((d.width as f32).sqrt());
    d.tied = config.flag("tie_word_embeddings", true)?;
    Ok(d)
}

/// What Gemma 2 and 3 share.
fn around(config: &Config<'_>, weights: &dyn Weights) -> Result<Decoder> {
    let mut d = common(config, weights)?;
    d.names.after_attention = Some("post_attention_layernorm");
    d.names.before_mlp = "pre_feedforward_layernorm";
    d.names.after_mlp = Some("post_feedforward_layernorm");
    let scalar = config.number("query_pre_attn_scalar")?.unwrap_or(256.0);
    if scalar <= 0.0 {
        bail!(InvalidModel, "query_pre_attn_scalar of the configuration is {scalar}");
    }
    d.layers.iter_mut().for_each(|layer| layer.scale = scalar.sqrt().recip() as f32);
    let cap =
        |key: &str| -> Result<Option<f32>> { Ok(config.number(key)?.filter(|cap| *cap > 0.0).map(|cap| cap as f32)) };
    (d.score_cap, d.logit_cap) = (cap("attn_logit_softcapping")?, cap("final_logit_softcapping")?);
    Ok(d)
}

/// The ropes of layers that see everything and of those with a window: nested in newer configurations, spread over
/// several keys in older ones.
fn ropes(config: &Config<'_>, head: i64) -> Result<[Rope; 2]> {
    if let Some(nested) = config.object("rope_parameters")? {
        let of = |kind: &str, theta: f64| Rope::from(config, nested.object(kind)?, head, theta);
        return Ok([of("full_attention", 1e6)?, of("sliding_attention", 1e4)?]);
    }
    let full = Rope::from(config, config.object("rope_scaling")?, head, 1e6)?;
    let theta = config.number("rope_local_base_freq")?.unwrap_or(1e4);
    Ok([full, Rope::plain(head, theta)?])
}
