//! The metadata of a GGUF file with the keys of a Hugging Face `config.json`.
//!
//! The sizes of vocabulary, hidden states and heads must agree with the tensors, and the others are limited, so that a
//! damaged file cannot request much memory.

use super::header::Header;
use super::names::Architecture;
use super::rope;
use super::scope::{Scope, Sizes, extend};
use crate::error::{Result, bail};
use crate::limits;
use crate::source::checkpoint::TRANSPOSED;
use serde_json::{Map, Value, json};

/// The configuration of a file, and what reading the weights needs.
#[derive(Debug)]
pub struct Configured {
    /// Configuration with the keys of a `config.json`.
    pub config: Map<String, Value>,
    /// Number of query heads.
    pub heads: i64,
    /// Number of key and value heads.
    pub key_value_heads: i64,
}

/// Returns the configuration of a file. Fails with `Unsupported` for settings that the graph of the architecture does
/// not support, and `InvalidModel` for invalid sizes.
pub fn configure(header: &Header, architecture: &Architecture) -> Result<Configured> {
    let scope = Scope { keys: &header.keys, prefix: architecture.name };
    refuse_experts(&scope)?;
    let sizes = sizes(header, &scope)?;
    refuse_switches(&scope, architecture, &sizes)?;
    let mut config = Map::new();
    config.insert("architectures".into(), json!([architecture.class]));
    config.insert("model_type".into(), architecture.model_type.into());
    match architecture.name {
        "gpt2" => gpt2(&mut config, &scope, &sizes)?,
        _ => llama_like(&mut config, header, architecture, &scope, &sizes)?,
    }
    let tied = header.tensor("output.weight").is_none();
    config.insert("vocab_size".into(), sizes.vocabulary.into());
    config.insert("tie_word_embeddings".into(), tied.into());
    Ok(Configured { config, heads: sizes.heads, key_value_heads: sizes.key_value_heads })
}

fn refuse_experts(scope: &Scope<'_>) -> Result<()> {
    match scope.keys.integer(&scope.key("expert_count"))? {
        Some(count) if count > 0 => {
            bail!(Unsupported, "mixture-of-experts models ({count} experts here) are not supported")
        }
        _ => Ok(()),
    }
}

/// Fails with `Unsupported` for keys of the format that change the computation in a way that this architecture's graph
/// does not support, unless they have their default value.
fn refuse_switches(scope: &Scope<'_>, architecture: &Architecture, sizes: &Sizes) -> Result<()> {
    let refuse = |name: &str, value: String| -> Result<()> {
        let (key, architecture) = (scope.key(name), architecture.name);
        bail!(Unsupported, "{key:?} is {value}, which the graph of {architecture:?} does not support")
    };
    if scope.keys.flag(&scope.key("attention.causal"))? == Some(false) {
        return refuse("attention.causal", "false".into());
    }
    for name in ["use_parallel_residual", "swin_norm"] {
        if scope.keys.flag(&scope.key(name))? == Some(true) {
            return refuse(name, "true".into());
        }
    }
    let capped = matches!(architecture.name, "gemma2" | "gemma3");
    // The largest models of Gemma 2 and 3 use another scale than the head size, which the built graph takes into
    // account.
    let by = |size: i64| 1.0 / (size.max(1) as f64).sqrt();
    let (usual, largest) = (by(sizes.head), by(if capped { sizes.width / sizes.heads } else { sizes.head }));
    let numbers: [(&str, &[f64], bool); 9] = [
        ("attention.clamp_kqv", &[0.0], true),
        ("attention.max_alibi_bias", &[0.0], true),
        ("attention.scale", &[0.0, usual, largest], true),
        ("logit_scale", &[0.0, 1.0], true),
        ("residual_scale", &[0.0, 1.0], true),
        ("embedding_scale", &[0.0, 1.0], true),
        ("router_logit_softcapping", &[0.0], true),
        ("attn_logit_softcapping", &[0.0], !capped),
        ("final_logit_softcapping", &[0.0], !capped),
    ];
    for (name, neutral, _) in numbers.iter().filter(|(_, _, refused)| *refused) {
        if let Some(value) = scope.number(name)?
            && !neutral.iter().any(|same| (value - same).abs() <= 1e-6 * same.abs())
        {
            return refuse(name, value.to_string());
        }
    }
    Ok(())
}

fn sizes(header: &Header, scope: &Scope<'_>) -> Result<Sizes> {
    let table = matrix(header, "token_embd.weight")?;
    let (vocabulary, width) = (table[0], table[1]);
    let said = scope.size("embedding_length", limits::CONFIG_SIZE)?;
    if said != width {
        let key = scope.key("embedding_length");
        bail!(InvalidModel, "{key:?} is {said}, and the rows of \"token_embd.weight\" have {width} elements");
    }
    if let Some(said) = scope.optional_size("vocab_size", limits::CONFIG_SIZE)?
        && said != vocabulary
    {
        let key = scope.key("vocab_size");
        bail!(InvalidModel, "{key:?} is {said}, and \"token_embd.weight\" has {vocabulary} rows");
    }
    let layers = scope.size("block_count", limits::LAYERS)?;
    let heads = scope.size("attention.head_count", width)?;
    let key_value_heads = scope.optional_size("attention.head_count_kv", heads)?.unwrap_or(heads);
    let (head, inner) =
        (head_size(header, scope, width, heads)?, scope.size("feed_forward_length", limits::CONFIG_SIZE)?);
    let positions = scope.size("context_length", limits::CONFIG_SIZE)?;
    Ok(Sizes { vocabulary, width, layers, heads, key_value_heads, head, inner, positions })
}

/// Returns the dimensions of a required matrix: rows and columns.
fn matrix(header: &Header, name: &str) -> Result<[i64; 2]> {
    match header.tensor(name).map(|tensor| &tensor.dims[..]) {
        Some([rows, columns]) => Ok([*rows, *columns]),
        Some(dims) => bail!(InvalidModel, "the tensor {name:?} has shape {dims:?}, not that of a matrix"),
        None => bail!(InvalidModel, "the file has no tensor {name:?}"),
    }
}

fn head_size(header: &Header, scope: &Scope<'_>, width: i64, heads: i64) -> Result<i64> {
    // The output of attention has as many elements as all heads together, which is the length of the rows of the output
    // projection.
    let [_, all] = matrix(header, "blk.0.attn_output.weight")?;
    let size = match scope.optional_size("attention.key_length", all)? {
        Some(size) => size,
        None if width % heads == 0 => width / heads,
        None => bail!(InvalidModel, "{width} elements are not a multiple of {heads} heads"),
    };
    if heads.checked_mul(size) != Some(all) {
        bail!(InvalidModel, "{heads} heads of {size} elements do not make the {all} of \"blk.0.attn_output.weight\"");
    }
    let value = scope.optional_size("attention.value_length", limits::CONFIG_SIZE)?.unwrap_or(size);
    if value != size {
        bail!(Unsupported, "attention keys of {size} elements with values of {value} elements are not supported");
    }
    Ok(size)
}

fn gpt2(config: &mut Map<String, Value>, scope: &Scope<'_>, sizes: &Sizes) -> Result<()> {
    let entries = json!({
        "n_embd": sizes.width,
        "n_layer": sizes.layers,
        "n_head": sizes.heads,
        "n_inner": sizes.inner,
        "n_positions": sizes.positions,
        "layer_norm_epsilon": scope.number_needed("attention.layer_norm_epsilon")?,
        "activation_function": "gelu_new",
    });
    extend(config, entries);
    // GGUF stores the matrices of GPT-2 as `[out, in]`, like all others; checkpoints have them as `[in, out]`.
    config.insert(TRANSPOSED.into(), false.into());
    Ok(())
}

fn llama_like(
    config: &mut Map<String, Value>,
    header: &Header,
    architecture: &Architecture,
    scope: &Scope<'_>,
    sizes: &Sizes,
) -> Result<()> {
    let bias = |module: &str| header.tensor(&format!("blk.0.{module}.bias")).is_some();
    let entries = json!({
        "hidden_size": sizes.width,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_value_heads,
        "head_dim": sizes.head,
        "max_position_embeddings": sizes.positions,
        "rms_norm_eps": scope.number_needed("attention.layer_norm_rms_epsilon")?,
        "hidden_act": if architecture.norms_plus_one { "gelu_pytorch_tanh" } else { "silu" },
    });
    extend(config, entries);
    if matches!(architecture.name, "llama" | "smollm3") {
        if bias("attn_q") != bias("attn_output") {
            bail!(
                Unsupported,
                "biases of query, key and value without a bias of the attention output are not supported"
            );
        }
        extend(config, json!({ "attention_bias": bias("attn_q"), "mlp_bias": bias("ffn_up") }));
    }
    rope::add(config, header, scope, sizes)?;
    if architecture.norms_plus_one {
        gemma(config, architecture, scope, sizes)?;
    }
    if let ("phi3", Some(window)) = (architecture.name, window(scope)?) {
        config.insert("sliding_window".into(), window.into());
    }
    Ok(())
}

/// Returns the size of the attention window; `None` if the file has none or 0.
fn window(scope: &Scope<'_>) -> Result<Option<i64>> {
    match scope.keys.integer(&scope.key("attention.sliding_window"))? {
        Some(size) if size > 0 => Ok(Some(size.min(limits::CONFIG_SIZE))),
        _ => Ok(None),
    }
}

/// Adds the keys of Gemma. The activation and the scale of the scores are not in the file; the scale follows from the
/// architecture and the number of layers. So do the layers that have a window, unless the file has their pattern.
fn gemma(config: &mut Map<String, Value>, architecture: &Architecture, scope: &Scope<'_>, s: &Sizes) -> Result<()> {
    config.insert("hidden_activation".into(), "gelu_pytorch_tanh".into());
    let (pattern, largest) = match architecture.name {
        "gemma2" => (2, 46),
        "gemma3" => (6, 62),
        _ => return Ok(()),
    };
    // The largest model of each generation scales by another size than that of a head.
    let scalar = if s.layers == largest { s.width / s.heads } else { s.head };
    let window = match window(scope)? {
        None if architecture.name == "gemma2" => Some(4096),
        found => found,
    };
    let pattern = scope.optional_size("attention.sliding_window_pattern", limits::LAYERS)?.unwrap_or(pattern);
    let kind = |layer: i64| match window.is_some() && (layer + 1) % pattern != 0 {
        true => "sliding_attention",
        false => "full_attention",
    };
    let kinds: Vec<&str> = (0..s.layers).map(kind).collect();
    extend(
        config,
        json!({
            "query_pre_attn_scalar": scalar,
            "sliding_window": window,
            "layer_types": kinds,
            "attn_logit_softcapping": scope.number("attn_logit_softcapping")?,
            "final_logit_softcapping": scope.number("final_logit_softcapping")?,
        }),
    );
    Ok(())
}
