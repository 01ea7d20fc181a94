//! The use of settings by the class of a tokenizer, `tokenizer_class` ([`Family`]).
//!
//! Some classes of transformers rebuild normalizer and pre-tokenizer from settings in `tokenizer_config.json` and
//! ignore those in `tokenizer.json`. Here only the affected parts are changed, so that a file with additional steps
//! keeps them.

use crate::error::{Error, Kind, Result};
use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::{BertNormalizer, NormalizerWrapper, Sequence};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

/// The classes with the settings of BERT: `do_lower_case`, `strip_accents`, `tokenize_chinese_chars`.
const BERT: [&str; 11] = [
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "MobileBertTokenizer",
    "MPNetTokenizer",
    "ConvBertTokenizer",
    "LayoutLMTokenizer",
    "SqueezeBertTokenizer",
    "RetriBertTokenizer",
    "FunnelTokenizer",
    "NomicBertTokenizer",
];
/// The classes that insert a space before a text if and only if `add_prefix_space` is set.
const BYTE_LEVEL: [&str; 4] = ["GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer", "LongformerTokenizer"];
/// The models whose tokenizers are used as in `tokenizer.json`, for any `tokenizer_class`.
const PLAIN: [&str; 24] = [
    "mistral",
    "mixtral",
    "ministral",
    "ministral3",
    "mistral3",
    "pixtral",
    "phi3",
    "phimoe",
    "granite",
    "granitemoe",
    "granitemoehybrid",
    "olmo2",
    "olmo3",
    "stablelm",
    "glm",
    "glm4",
    "gpt_bigcode",
    "modernbert",
    "modernbert-decoder",
    "nemotron",
    "persimmon",
    "jamba",
    "llava",
    "qwen2",
];

/// The character that replaces a space.
const MARK: char = '\u{2581}';

/// A family of tokenizer classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// WordPiece with the settings of BERT.
    Bert,
    /// Byte-level tokens, with or without a space before the text.
    ByteLevel {
        /// Whether the class has the special tokens of RoBERTa.
        roberta: bool,
    },
    /// SentencePiece, with the settings of Llama.
    Llama,
    /// Any other class, whose tokenizers are unchanged.
    Plain,
}

impl Family {
    /// Returns the family of a tokenizer class; without a class, the family of the model type. A model type of
    /// [`PLAIN`] is always [`Family::Plain`].
    pub fn of(class: Option<&str>, model_type: Option<&str>) -> Family {
        if model_type.is_some_and(|kind| PLAIN.contains(&kind)) {
            return Family::Plain;
        }
        let by_kind = match model_type {
            Some("bert" | "distilbert" | "electra" | "convbert" | "nomic_bert" | "mobilebert") => Some("BertTokenizer"),
            Some("mpnet") => Some("MPNetTokenizer"),
            Some("roberta" | "bart" | "longformer") => Some("RobertaTokenizer"),
            Some("gpt2" | "starcoder2" | "phi") => Some("GPT2Tokenizer"),
            _ => None,
        };
        let class = class.or(by_kind).unwrap_or_default();
        match class.strip_suffix("Fast").unwrap_or(class) {
            class if BERT.contains(&class) => Family::Bert,
            class if BYTE_LEVEL.contains(&class) => Family::ByteLevel { roberta: class != "GPT2Tokenizer" },
            "LlamaTokenizer" => Family::Llama,
            _ => Family::Plain,
        }
    }

    /// Returns the default special tokens of the class.
    pub fn usual_tokens(&self) -> &'static [&'static str] {
        match self {
            Family::Bert => &["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"],
            Family::ByteLevel { roberta: true } => &["<s>", "</s>", "<unk>", "<pad>", "<mask>"],
            Family::ByteLevel { roberta: false } => &["<|endoftext|>"],
            Family::Llama => &["<unk>", "<s>", "</s>"],
            Family::Plain => &[],
        }
    }

    /// Applies the settings of the class, and returns notes on those that could not be applied. Fails with
    /// `InvalidModel` if a setting cannot be applied to the tokenizer.
    pub fn apply(&self, inner: &mut Tokenizer, value: &Setting<'_>) -> Result<Vec<String>> {
        match self {
            Family::Bert => bert(inner, value),
            Family::ByteLevel { .. } => Ok(prefix_space(inner, flag(value, "add_prefix_space").unwrap_or(false))),
            Family::Llama => llama(inner, value),
            Family::Plain => Ok(Vec::new()),
        }
    }
}

/// A function that returns the value of a setting by its key; `None` if the setting is not set.
pub type Setting<'a> = dyn Fn(&str) -> Option<&'a Value> + 'a;

fn flag(value: &Setting<'_>, key: &str) -> Option<bool> {
    value(key).and_then(Value::as_bool)
}

/// Sets case, accents and Chinese characters, with the defaults of BERT, and returns notes on settings that are not
/// applied.
fn bert(inner: &mut Tokenizer, value: &Setting<'_>) -> Result<Vec<String>> {
    let change = |old: &BertNormalizer| {
        let chinese = flag(value, "tokenize_chinese_chars").unwrap_or(true);
        let lower = flag(value, "do_lower_case").unwrap_or(true);
        BertNormalizer::new(old.clean_text, chinese, flag(value, "strip_accents"), lower)
    };
    let changed = match inner.get_normalizer() {
        Some(NormalizerWrapper::BertNormalizer(old)) => NormalizerWrapper::BertNormalizer(change(old)),
        Some(NormalizerWrapper::Sequence(steps)) => {
            let step = |step: &NormalizerWrapper| match step {
                NormalizerWrapper::BertNormalizer(old) => NormalizerWrapper::BertNormalizer(change(old)),
                other => other.clone(),
            };
            NormalizerWrapper::Sequence(Sequence::new(steps.as_ref().iter().map(step).collect()))
        }
        _ => {
            let asked = ["do_lower_case", "strip_accents", "tokenize_chinese_chars"];
            let asked = asked.iter().filter(|key| value(key).is_some());
            return Ok(asked.map(|key| format!("`{key}` is not applied: tokenizer.json has no step for it")).collect());
        }
    };
    inner.with_normalizer(Some(changed)).map_err(damaged)?;
    Ok(Vec::new())
}

/// Adds or removes the space before a text, and returns a note if the setting cannot be applied.
fn prefix_space(inner: &mut Tokenizer, wanted: bool) -> Vec<String> {
    let changed = match inner.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::ByteLevel(step)) if step.add_prefix_space != wanted => {
            PreTokenizerWrapper::ByteLevel(step.add_prefix_space(wanted))
        }
        Some(PreTokenizerWrapper::ByteLevel(_)) => return Vec::new(),
        Some(PreTokenizerWrapper::Sequence(steps)) if wanted => {
            let there = |step: &PreTokenizerWrapper| matches!(step, PreTokenizerWrapper::ByteLevel(step) if step.add_prefix_space);
            if steps.as_ref().iter().any(there) {
                return Vec::new();
            }
            // Text that is already split would get a space before every part.
            return vec!["`add_prefix_space` is not applied: tokenizer.json splits texts in several steps".to_owned()];
        }
        _ => return Vec::new(),
    };
    inner.with_pre_tokenizer(Some(changed));
    Vec::new()
}

/// Sets the replacement of spaces and the space before a text, according to `legacy` and `add_prefix_space`, for a
/// tokenizer like that of Llama. Returns no notes.
fn llama(inner: &mut Tokenizer, value: &Setting<'_>) -> Result<Vec<String>> {
    if !matches!(inner.get_model(), ModelWrapper::BPE(_)) || !marks_spaces(inner) {
        return Ok(Vec::new());
    }
    let prefix = flag(value, "add_prefix_space").unwrap_or(true);
    let scheme = match (prefix, flag(value, "legacy").unwrap_or(false)) {
        (false, _) => PrependScheme::Never,
        (true, true) => PrependScheme::Always,
        (true, false) => PrependScheme::First,
    };
    inner.with_normalizer(None::<NormalizerWrapper>).map_err(damaged)?;
    inner.with_pre_tokenizer(Some(PreTokenizerWrapper::Metaspace(Metaspace::new(MARK, scheme, false))));
    let mut steps = vec![
        serde_json::json!({"type": "Replace", "pattern": {"String": MARK}, "content": " "}),
        serde_json::json!({"type": "ByteFallback"}),
        serde_json::json!({"type": "Fuse"}),
    ];
    if prefix {
        steps.push(serde_json::json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let decoder = serde_json::json!({"type": "Sequence", "decoders": steps});
    let decoder: DecoderWrapper = serde_json::from_value(decoder).map_err(|e| damaged(e.into()))?;
    inner.with_decoder(Some(decoder));
    Ok(Vec::new())
}

/// Returns whether a tokenizer replaces spaces by U+2581 and does nothing else before its model, like those of Llama.
fn marks_spaces(inner: &Tokenizer) -> bool {
    let replaces = |step: &NormalizerWrapper| {
        let text = serde_json::to_value(step).unwrap_or_default();
        text.get("content").or_else(|| text.get("prepend")).and_then(Value::as_str) == Some("\u{2581}")
    };
    match (inner.get_normalizer(), inner.get_pre_tokenizer()) {
        (None, Some(PreTokenizerWrapper::Metaspace(_))) => true,
        (Some(NormalizerWrapper::Sequence(steps)), None) => steps.as_ref().iter().all(replaces),
        (Some(step), None) => replaces(step),
        _ => false,
    }
}

fn damaged(e: tokenizers::Error) -> Error {
    Error::new(Kind::InvalidModel, format!("tokenizer: {e}"))
}
