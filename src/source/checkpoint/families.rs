//! The supported families, with the keys that each reads of a configuration.

use super::schema::{Fixed, Schema};
use super::{Build, Family, gemma, gpt2, llama};
use serde_json::{Map, Value};

type Keys = &'static [(&'static str, &'static str)];

/// The keys of sizes and switches of decoders, with Llama's defaults. See [`Schema::reads`] for the notation of the
/// defaults here and below.
const DECODER: Keys = &[
    ("vocab_size", "32000"),
    ("hidden_size", "4096"),
    ("intermediate_size", "11008"),
    ("num_hidden_layers", "32"),
    ("num_attention_heads", "32"),
    ("num_key_value_heads", "null"),
    ("head_dim", "null"),
    ("hidden_act", "\"silu\""),
    ("max_position_embeddings", "2048"),
    ("rms_norm_eps", "1e-6"),
    ("tie_word_embeddings", "false"),
    ("rope_theta", "10000.0"),
    ("rope_parameters", "null"),
    ("rope_scaling", "null"),
    ("original_max_position_embeddings", "null"),
];
const BIASES: Keys = &[("attention_bias", "false"), ("mlp_bias", "false")];
const MISTRAL: Keys = &[
    ("intermediate_size", "14336"),
    ("num_key_value_heads", "8"),
    ("max_position_embeddings", "131072"),
    ("sliding_window", "?4096"),
    ("layer_types", "null"),
];
const MINISTRAL: Keys = &[("head_dim", "!")];
const QWEN: Keys = &[
    ("vocab_size", "151936"),
    ("intermediate_size", "22016"),
    ("num_key_value_heads", "?32"),
    ("head_dim", "!"),
    ("max_position_embeddings", "32768"),
    ("use_sliding_window", "false"),
    ("sliding_window", "?4096"),
    ("max_window_layers", "28"),
    ("layer_types", "null"),
];
const QWEN3: Keys = &[("head_dim", "128"), ("attention_bias", "false")];
const SMOLLM3: Keys = &[
    ("vocab_size", "128256"),
    ("hidden_size", "2048"),
    ("num_hidden_layers", "36"),
    ("num_attention_heads", "16"),
    ("num_key_value_heads", "?4"),
    ("head_dim", "!"),
    ("max_position_embeddings", "32768"),
    ("tie_word_embeddings", "true"),
    ("rope_theta", "2000000.0"),
    ("use_sliding_window", "false"),
    ("sliding_window", "null"),
    ("no_rope_layers", "null"),
    ("no_rope_layer_interval", "4"),
    ("layer_types", "null"),
];
const PHI3: Keys = &[
    ("head_dim", "!"),
    ("vocab_size", "32064"),
    ("hidden_size", "3072"),
    ("intermediate_size", "8192"),
    ("max_position_embeddings", "4096"),
    ("rms_norm_eps", "1e-5"),
    ("partial_rotary_factor", "null"),
    ("sliding_window", "null"),
];
const GEMMA: Keys = &[
    ("vocab_size", "256000"),
    ("hidden_size", "3072"),
    ("intermediate_size", "24576"),
    ("num_hidden_layers", "28"),
    ("num_attention_heads", "16"),
    ("num_key_value_heads", "16"),
    ("head_dim", "256"),
    ("hidden_act", "\"gelu_pytorch_tanh\""),
    ("max_position_embeddings", "8192"),
    ("tie_word_embeddings", "true"),
    ("attention_bias", "false"),
];
const GEMMA2: Keys = &[
    ("hidden_size", "2304"),
    ("intermediate_size", "9216"),
    ("num_hidden_layers", "26"),
    ("num_attention_heads", "8"),
    ("num_key_value_heads", "4"),
    // The activation is `hidden_activation`.
    ("hidden_act", "null"),
    ("hidden_activation", "\"gelu_pytorch_tanh\""),
    ("query_pre_attn_scalar", "256"),
    ("sliding_window", "?4096"),
    ("layer_types", "null"),
    ("final_logit_softcapping", "?30.0"),
];
const GEMMA2_CAP: Keys = &[("attn_logit_softcapping", "?50.0")];
const GEMMA3: Keys = &[
    ("vocab_size", "262208"),
    ("max_position_embeddings", "131072"),
    ("rope_theta", "1000000.0"),
    ("rope_local_base_freq", "10000.0"),
    ("sliding_window_pattern", "6"),
    ("final_logit_softcapping", "null"),
];
const GPT2: Keys = &[
    ("vocab_size", "50257"),
    ("n_positions", "1024"),
    ("n_embd", "768"),
    ("n_layer", "12"),
    ("n_head", "12"),
    ("n_inner", "null"),
    ("activation_function", "\"gelu_new\""),
    ("layer_norm_epsilon", "1e-5"),
    ("scale_attn_weights", "true"),
    ("scale_attn_by_inverse_layer_idx", "false"),
    ("tie_word_embeddings", "true"),
];
const BERT: Keys = &[
    ("vocab_size", "30522"),
    ("hidden_size", "768"),
    ("num_hidden_layers", "12"),
    ("num_attention_heads", "12"),
    ("intermediate_size", "3072"),
    ("hidden_act", "\"gelu\""),
    ("max_position_embeddings", "512"),
    ("layer_norm_eps", "1e-12"),
    ("tie_word_embeddings", "true"),
];
const DECODES: Keys = &[("type_vocab_size", "2"), ("is_decoder", "false")];
const ROBERTA: Keys = &[("pad_token_id", "1")];
const LARGE: Keys = &[("vocab_size", "50265")];
const DISTILBERT: Keys = &[
    ("vocab_size", "30522"),
    ("dim", "768"),
    ("n_layers", "6"),
    ("n_heads", "12"),
    ("hidden_dim", "3072"),
    ("activation", "\"gelu\""),
    ("max_position_embeddings", "512"),
    ("tie_word_embeddings", "true"),
];
const MPNET: Keys = &[("vocab_size", "30527"), ("relative_attention_num_buckets", "32")];

const BOTH_WAYS: &str = "attention in both directions";
const CAUSAL: Fixed = ("is_causal", &["true"], BOTH_WAYS);
const ONE_KIND: Fixed = ("layer_types", &["\"full_attention\""], "attention of another kind than the family's");
const LOOKS_BACK: Fixed = ("use_bidirectional_attention", &["false"], BOTH_WAYS);
const ABSOLUTE: Fixed = ("position_embedding_type", &["\"absolute\""], "attention to relative positions");

/// The keys of Llama, which many other families share.
const LLAMA: Schema = Schema {
    reads: &[DECODER, BIASES],
    aliases: &[],
    inert: &["rope_interleaved=false", "partial_rotary_factor=1.0"],
    fixed: &[CAUSAL, ONE_KIND],
};
const ENCODER: Schema =
    Schema { reads: &[BERT, DECODES], aliases: &[], inert: &["position_embedding"], fixed: &[ABSOLUTE] };

/// The supported families by `model_type`.
pub(super) const FAMILIES: &[Family] = &[
    Family { name: "llama", classes: &["Llama"], build: Build::Decoder(llama::llama), schema: LLAMA },
    Family {
        name: "mistral",
        classes: &["Mistral"],
        build: Build::Decoder(llama::mistral),
        schema: Schema { reads: &[DECODER, MISTRAL], fixed: &[CAUSAL], ..LLAMA },
    },
    Family {
        name: "ministral",
        classes: &["Ministral", "Mistral"],
        build: Build::Decoder(llama::ministral),
        schema: Schema { reads: &[DECODER, MISTRAL, MINISTRAL], fixed: &[CAUSAL], ..LLAMA },
    },
    Family {
        name: "qwen2",
        classes: &["Qwen2"],
        build: Build::Decoder(llama::qwen2),
        schema: Schema { reads: &[DECODER, QWEN], fixed: &[CAUSAL], ..LLAMA },
    },
    Family {
        name: "qwen3",
        classes: &["Qwen3"],
        build: Build::Decoder(llama::qwen3),
        schema: Schema { reads: &[DECODER, QWEN, QWEN3], fixed: &[CAUSAL], ..LLAMA },
    },
    Family {
        name: "smollm3",
        classes: &["SmolLM3"],
        build: Build::Decoder(llama::smollm3),
        schema: Schema { reads: &[DECODER, BIASES, SMOLLM3], fixed: &[CAUSAL], ..LLAMA },
    },
    Family {
        name: "phi3",
        classes: &["Phi3"],
        build: Build::Decoder(llama::phi3),
        schema: Schema { reads: &[DECODER, PHI3], ..LLAMA },
    },
    Family {
        name: "gemma",
        classes: &["Gemma"],
        build: Build::Decoder(gemma::gemma),
        schema: Schema {
            reads: &[DECODER, GEMMA],
            inert: &["hidden_activation=\"gelu_pytorch_tanh\""],
            fixed: &[CAUSAL, ONE_KIND, LOOKS_BACK],
            ..LLAMA
        },
    },
    Family {
        name: "gemma2",
        classes: &["Gemma2"],
        build: Build::Decoder(gemma::gemma2),
        schema: Schema { reads: &[DECODER, GEMMA, GEMMA2, GEMMA2_CAP], fixed: &[CAUSAL, LOOKS_BACK], ..LLAMA },
    },
    Family {
        name: "gemma3_text",
        classes: &["Gemma3"],
        build: Build::Decoder(gemma::gemma3),
        schema: Schema {
            reads: &[DECODER, GEMMA, GEMMA2, GEMMA3],
            // The layers of the pattern are listed in `layer_types`, or the pattern is the default.
            inert: &["_sliding_window_pattern=6"],
            fixed: &[CAUSAL, LOOKS_BACK],
            ..LLAMA
        },
    },
    Family {
        name: "gpt2",
        classes: &["GPT2"],
        build: Build::Decoder(gpt2::gpt2),
        schema: Schema {
            reads: &[GPT2],
            aliases: &[
                ("hidden_size", "n_embd"),
                ("max_position_embeddings", "n_positions"),
                ("num_attention_heads", "n_head"),
                ("num_hidden_layers", "n_layer"),
            ],
            inert: &[
                "n_ctx",
                "reorder_and_upcast_attn",
                "summary_activation",
                "summary_first_dropout",
                "summary_proj_to_labels",
                "summary_type",
                "summary_use_proj",
            ],
            fixed: &[CAUSAL, ONE_KIND],
        },
    },
    Family { name: "bert", classes: &["Bert"], build: Build::Encoder, schema: ENCODER },
    Family {
        name: "roberta",
        classes: &["Roberta"],
        build: Build::Encoder,
        schema: Schema { reads: &[BERT, DECODES, ROBERTA, LARGE], ..ENCODER },
    },
    Family {
        name: "xlm-roberta",
        classes: &["XLMRoberta", "Roberta"],
        build: Build::Encoder,
        schema: Schema { reads: &[BERT, DECODES, ROBERTA], ..ENCODER },
    },
    Family {
        name: "camembert",
        classes: &["Camembert", "CamemBERT", "Roberta", "XLMRoberta"],
        build: Build::Encoder,
        schema: Schema { reads: &[BERT, DECODES, ROBERTA], ..ENCODER },
    },
    Family {
        name: "distilbert",
        classes: &["DistilBert"],
        build: Build::Encoder,
        schema: Schema {
            reads: &[DISTILBERT],
            aliases: &[("hidden_size", "dim"), ("num_attention_heads", "n_heads"), ("num_hidden_layers", "n_layers")],
            // The file contains the table of positions, so it does not matter how it was computed.
            inert: &["sinusoidal_pos_embds"],
            ..ENCODER
        },
    },
    Family {
        name: "mpnet",
        classes: &["MPNet"],
        build: Build::Encoder,
        schema: Schema { reads: &[BERT, MPNET], ..ENCODER },
    },
];

/// Returns the family of a configuration; `None` if it is unknown.
pub(super) fn of(config: &Map<String, Value>) -> Option<&'static Family> {
    let name = match config.get("model_type").and_then(Value::as_str) {
        // A Mistral configuration with kinds of layers is one of Ministral, which transformers has split from Mistral.
        Some("mistral") if config.contains_key("layer_types") => "ministral",
        name => name.unwrap_or(""),
    };
    FAMILIES.iter().find(|family| family.name == name)
}

/// Returns the names of all families, separated by commas, for messages.
pub(super) fn names() -> String {
    FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ")
}

/// Adds the family's default number of positions to a configuration, if the family is known and the configuration has
/// none.
pub(super) fn add_context(config: &mut Map<String, Value>) {
    let Some(family) = of(config) else { return };
    let (complete, _) = family.schema.complete(family.name, config).unwrap_or_default();
    for key in ["max_position_embeddings", "n_positions"] {
        if let (false, Some(value)) = (config.contains_key(key), complete.get(key)) {
            config.insert(key.to_owned(), value.clone());
        }
    }
}
