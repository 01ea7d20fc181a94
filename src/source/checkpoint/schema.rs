//! The keys that a family reads of a configuration, with their defaults; keys without effect; and keys with only one
//! supported value. Any other key is named in a warning, so that no setting that may matter is ignored silently.
//!
//! Defaults are those of the configuration classes of transformers: a missing key differs from one that is `null`.
//! `tests/fixtures/configurations` has them as in transformers, with the numeric effect of each key.

use super::config::Config;
use crate::error::{Result, bail};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The keys of a family. Values are texts of JSON.
pub(super) struct Schema {
    /// Keys that are read, with their default as JSON. The default `null` means that the code that reads the key
    /// handles a missing one; `!` means the same, but that `null` is not allowed as a value. A key with another default
    /// may be `null` only if the default begins with `?`. If several groups have a key, the last one applies.
    pub reads: &'static [&'static [(&'static str, &'static str)]],
    /// Other names of keys that are read, as pairs of the alias and the key.
    pub aliases: &'static [(&'static str, &'static str)],
    /// Keys without effect in this family: any value of `key`, or only that of `key=value`.
    pub inert: &'static [&'static str],
    /// Keys whose values other than the allowed ones and `null` would change the results. For a list, each element is
    /// checked.
    pub fixed: &'static [Fixed],
}

/// A key, its allowed values (JSON), and the meaning of any other value.
pub(super) type Fixed = (&'static str, &'static [&'static str], &'static str);

/// The keys with fixed values in every family.
const FIXED: &[Fixed] = &[
    ("is_encoder_decoder", &["false"], "an encoder with a decoder"),
    ("add_cross_attention", &["false"], "attention to another model's states"),
    ("cross_attention_hidden_size", &[], "attention to another model's states"),
    ("pruned_heads", &["{}"], "layers of different sizes"),
    ("per_layer_config", &["{}"], "layers of different kinds"),
];

/// The keys without effect on the graph in all families: those for training, internals of the library transformers, and
/// keys that are read elsewhere (special tokens, class names).
const INERT: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "attn_pdrop",
    "auto_map",
    "base_model",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "custom_pipelines",
    "decoder_start_token_id",
    "directionality",
    "dropout",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "experts_implementation",
    "finetuning_task",
    "generator",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "language",
    "license",
    "mask_token_id",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pad_token",
    "pad_token_id",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "qa_dropout",
    "resid_pdrop",
    "return_dict",
    "sbert_ce_default_activation_function",
    "sentence_transformers",
    "sep_token_id",
    "seq_classif_dropout",
    "task_specific_params",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_weights_",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
];

/// The keys for generation that old configurations contain; they are read from `generation_config.json` only.
const GENERATION: &[&str] = &[
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// The prefix of keys that only this library's own readers write.
pub(in crate::source) const OWN: &str = "liboptimize.";

impl Schema {
    /// Returns the configuration with the family's defaults for missing keys and without ignored keys, and warnings
    /// about the ignored keys.
    ///
    /// Fails with [`crate::error::Kind::Unsupported`] if a key requires something unsupported, and `InvalidModel` if a
    /// value is invalid.
    pub fn complete(&self, model_type: &str, config: &Map<String, Value>) -> Result<(Map<String, Value>, Vec<String>)> {
        let mut complete = config.clone();
        for (other, own) in self.aliases {
            // If a file has both names, the value of the alias has priority, as in transformers.
            if let Some(value) = complete.remove(*other) {
                complete.insert((*own).to_owned(), value);
            }
        }
        let mut seen = HashSet::new();
        for (key, default) in self.reads.iter().rev().copied().flatten().filter(|(key, _)| seen.insert(*key)) {
            match complete.get(*key) {
                Some(Value::Null) if *default != "null" && !default.starts_with('?') => {
                    bail!(
                        InvalidModel,
                        "{key:?} of the configuration is null, which is not defined for this architecture"
                    );
                }
                None if !matches!(*default, "null" | "!") => {
                    complete.insert((*key).to_owned(), json(default.trim_start_matches('?')));
                }
                _ => {}
            }
        }
        self.refuse(&complete)?;
        let layers = complete.get("num_hidden_layers").or(complete.get("n_layer"));
        if let (Some(Value::Array(kinds)), Some(layers)) = (complete.get("layer_types"), layers)
            && layers.as_u64() != Some(kinds.len() as u64)
            && self.reads_layers()
        {
            bail!(InvalidModel, "layer_types has {} entries for {layers} layers", kinds.len());
        }
        let mut unread = Vec::new();
        // Keys that are not read are removed, so that no later code can use them by accident. With the value `null`,
        // they are not worth a warning.
        complete.retain(|key, value| {
            let known = self.knows(key, value);
            if !known && !value.is_null() {
                unread.push(format!("{key} = {}", super::config::shown(value)));
            }
            known
        });
        let warnings = match unread.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "config.json: keys that are not read for the architecture {model_type:?} are ignored: {}",
                unread.join(", ")
            )],
        };
        Ok((complete, warnings))
    }

    /// Returns whether a key is read, has a fixed value, or has no effect with the value `value`.
    fn knows(&self, key: &str, value: &Value) -> bool {
        let read = || self.reads.iter().copied().flatten().any(|(read, _)| *read == key);
        let fixed = || FIXED.iter().chain(self.fixed).any(|(fixed, ..)| *fixed == key);
        let one_value = format!("{key}={value}");
        let inert = || {
            let mut keys = [INERT, GENERATION, self.inert].into_iter().flatten();
            keys.any(|inert| *inert == key || *inert == one_value)
        };
        key.starts_with(OWN) || read() || fixed() || inert()
    }

    /// Returns whether the family reads kinds of layers, even if only one.
    fn reads_layers(&self) -> bool {
        let reads = self.reads.iter().copied().flatten().map(|(key, _)| *key);
        reads.chain(self.fixed.iter().map(|(key, ..)| *key)).any(|key| key == "layer_types")
    }

    fn refuse(&self, config: &Map<String, Value>) -> Result<()> {
        for (key, allowed, what) in FIXED.iter().chain(self.fixed) {
            let Some(value) = config.get(*key).filter(|value| !value.is_null()) else { continue };
            let allows = |value: &Value| allowed.iter().any(|text| json(text) == *value);
            let parts = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            if !allows(value) && !parts.iter().all(allows) {
                let shown = super::config::shown(value);
                bail!(Unsupported, "{key:?} of the configuration is {shown}: {what} is not supported");
            }
        }
        Ok(())
    }
}

/// Returns the value that a text in the tables, which is JSON, describes.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Fails with `Unsupported` for checkpoints that another program has quantized.
pub(super) fn refuse_quantized(config: &Config<'_>) -> Result<()> {
    for key in ["quantization_config", "compression_config", "quantization"] {
        if let Some(quantization) = config.object(key)? {
            let method = quantization.text("quant_method")?.unwrap_or("unnamed");
            bail!(Unsupported, "the checkpoint was quantized by another program (method {method}): use the original");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SCHEMA: Schema = Schema {
        reads: &[&[("size", "7"), ("cap", "1.5"), ("head", "!")], &[("cap", "null"), ("window", "?4096")]],
        aliases: &[("n", "size")],
        inert: &["noise", "quiet=false"],
        fixed: &[("kinds", &["\"full\""], "other kinds")],
    };

    fn complete(config: Value) -> Result<(Value, Vec<String>)> {
        let (map, warnings) = SCHEMA.complete("toy", config.as_object().unwrap())?;
        Ok((Value::Object(map), warnings))
    }

    #[test]
    fn absent_is_not_null_and_the_last_group_and_the_other_name_win() {
        let (config, warnings) = complete(json!({ "window": null, "n": 3, "size": 5 })).unwrap();
        assert_eq!((config, warnings.len()), (json!({ "window": null, "size": 3 }), 0));
        assert_eq!(complete(json!({})).unwrap().0, json!({ "window": 4096, "size": 7 }));
        assert!(complete(json!({ "size": null })).is_err() && complete(json!({ "head": null })).is_err());
    }

    #[test]
    fn what_is_not_read_is_named_and_what_cannot_be_built_is_refused() {
        let (config, warnings) =
            complete(json!({ "odd": false, "noise": 1, "quiet": false, "none": null, "use_cache": true })).unwrap();
        assert!(config.get("none").is_none() && !warnings[0].contains("none"), "{warnings:?}");
        assert!(
            warnings[0].contains("odd = false") && !warnings[0].contains("noise") && !warnings[0].contains("quiet"),
            "{warnings:?}"
        );
        assert!(config.get("odd").is_none() && complete(json!({ "kinds": ["full", "full"] })).is_ok());
        for wrong in [json!({ "kinds": ["full", "half"] }), json!({ "add_cross_attention": true })] {
            assert!(complete(wrong).unwrap_err().to_string().contains("is not supported"));
        }
    }
}
