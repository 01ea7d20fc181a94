//! The use of settings by the class of a tokenizer, `tokenizer_class` ([`Family`]).
//!
//! Some classes of transformers rebuild normalizer and pre-tokenizer from settings in `tokenizer_config.json` and
//! ignore those in `tokenizer.json`. Those of BERT, XLM-RoBERTa and Llama are replaced here too; of others, only the
//! affected parts are changed.

use super::around::{BOS_EOS, CLS_SEP, Step};
use crate::error::{Error, Kind, Result};
use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::{BertNormalizer, NFC, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as Steps;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::PostProcessorWrapper;

/// The classes with the settings of BERT: `do_lower_case`, `strip_accents`, `tokenize_chinese_chars`.
const BERT: [&str; 9] = [
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "MobileBertTokenizer",
    "LayoutLMTokenizer",
    "SqueezeBertTokenizer",
    "FunnelTokenizer",
    "LxmertTokenizer",
    "SplinterTokenizer",
];
/// The classes whose tokenizers return token types.
const TYPED: [&str; 15] = [
    "BertTokenizer",
    "ElectraTokenizer",
    "MobileBertTokenizer",
    "ConvBertTokenizer",
    "LayoutLMTokenizer",
    "SqueezeBertTokenizer",
    "LxmertTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "DebertaTokenizer",
    "DebertaV2Tokenizer",
    "CanineTokenizer",
    "FNetTokenizer",
    "MarkupLMTokenizer",
    "TapasTokenizer",
];
/// The classes that insert a space before a text if and only if `add_prefix_space` is set.
const BYTE_LEVEL: [&str; 6] =
    ["GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "LEDTokenizer", "MvpTokenizer"];
/// The models whose tokenizers are used as in `tokenizer.json`, for any `tokenizer_class`.
const PLAIN: [&str; 32] = [
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
    "smolvlm",
    "arctic",
    "ernie4_5",
    "ernie4_5_moe",
    "fuyu",
    "internlm2",
    "internlm3",
    "minicpm3",
    "minimax_m2",
];

/// The parts into which tokenizers of Qwen2 split a text.
const QWEN2_PARTS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The character that replaces a space.
const MARK: char = '\u{2581}';

/// A family of tokenizer classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// WordPiece with the settings of BERT.
    Bert,
    /// WordPiece with the settings of BERT, always in lower case.
    Dpr,
    /// WordPiece with the settings of BERT and the special tokens of MPNet.
    Mpnet,
    /// Byte-level tokens, with or without a space before the text.
    ByteLevel {
        /// Whether the class has the special tokens of RoBERTa.
        roberta: bool,
    },
    /// Byte-level tokens with the settings of Qwen2.
    Qwen2,
    /// Byte-level tokens with the settings of GPT-NeoX.
    GptNeoX,
    /// SentencePiece, with the settings of Llama.
    Llama {
        /// Whether the class is that of Code Llama, which has no setting `legacy`.
        code: bool,
    },
    /// SentencePiece of the type Unigram, with the settings of XLM-RoBERTa.
    XlmRoberta,
    /// Any other class, whose tokenizers are unchanged.
    Plain,
}

impl Family {
    /// Returns the family of a tokenizer class; without a class, the family of the model type. A model type of
    /// [`PLAIN`] is always [`Family::Plain`], and `qwen2` always [`Family::Qwen2`].
    pub fn of(class: Option<&str>, model_type: Option<&str>) -> Family {
        match model_type {
            Some(kind) if PLAIN.contains(&kind) => return Family::Plain,
            Some("qwen2") => return Family::Qwen2,
            _ => {}
        }
        let class = class.or(model_type.and_then(usual_class)).unwrap_or_default();
        match class.strip_suffix("Fast").unwrap_or(class) {
            class if BERT.contains(&class) => Family::Bert,
            class if BYTE_LEVEL.contains(&class) => Family::ByteLevel { roberta: class != "GPT2Tokenizer" },
            "MPNetTokenizer" => Family::Mpnet,
            "DPRContextEncoderTokenizer" | "DPRQuestionEncoderTokenizer" | "DPRReaderTokenizer" => Family::Dpr,
            "Qwen2Tokenizer" => Family::Qwen2,
            "GPTNeoXTokenizer" => Family::GptNeoX,
            "LlamaTokenizer" => Family::Llama { code: false },
            "CodeLlamaTokenizer" => Family::Llama { code: true },
            "XLMRobertaTokenizer" | "CamembertTokenizer" => Family::XlmRoberta,
            _ => Family::Plain,
        }
    }

    /// Returns the default special tokens of the class.
    pub fn usual_tokens(&self) -> &'static [&'static str] {
        match self {
            Family::Bert | Family::Dpr => &["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"],
            Family::ByteLevel { roberta: true } => &["<s>", "</s>", "<unk>", "<pad>", "<mask>"],
            Family::ByteLevel { roberta: false } => &["<|endoftext|>"],
            Family::Mpnet => &["<s>", "</s>", "[UNK]", "<pad>", "<mask>"],
            Family::Qwen2 => &["<|endoftext|>"],
            Family::GptNeoX => &["<|endoftext|>", "<|padding|>"],
            Family::Llama { code: false } => &["<unk>", "<s>", "</s>"],
            Family::Llama { code: true } => &[
                "<unk>",
                "<s>",
                "</s>",
                "\u{2581}<PRE>",
                "\u{2581}<MID>",
                "\u{2581}<SUF>",
                "\u{2581}<EOT>",
                "<FILL_ME>",
            ],
            Family::XlmRoberta => &["<s>", "</s>", "<unk>", "<pad>", "<mask>"],
            Family::Plain => &[],
        }
    }

    /// Applies the settings of the class, and returns notes on those that could not be applied. Fails with
    /// `InvalidModel` if a setting cannot be applied to the tokenizer.
    pub fn apply(&self, inner: &mut Tokenizer, value: &Setting<'_>) -> Result<Vec<String>> {
        match self {
            Family::Bert | Family::Mpnet => bert(inner, value, flag(value, "do_lower_case").unwrap_or(true)),
            Family::Dpr => bert(inner, value, true),
            Family::Qwen2 => byte_level(inner, true, flag(value, "add_prefix_space").unwrap_or(false)),
            Family::GptNeoX => {
                // The class ignores the step of `tokenizer.json` that puts special tokens around texts.
                inner.with_post_processor(None::<PostProcessorWrapper>);
                byte_level(inner, false, flag(value, "add_prefix_space").unwrap_or(false))
            }
            Family::ByteLevel { .. } => Ok(prefix_space(inner, flag(value, "add_prefix_space").unwrap_or(false))),
            Family::Llama { code } => llama(inner, value, *code),
            Family::XlmRoberta => xlm_roberta(inner, flag(value, "add_prefix_space").unwrap_or(true)),
            Family::Plain => Ok(Vec::new()),
        }
    }

    /// Sets the step that puts special tokens around texts, if the class has one; the tokens must be added before. Most
    /// classes replace the step of `tokenizer.json`. Returns a note if the tokenizer lacks the tokens. Fails with
    /// `InvalidModel` if the step does not fit the tokenizer.
    pub fn complete(&self, inner: &mut Tokenizer, value: &Setting<'_>) -> Result<Option<String>> {
        let space = || flag(value, "add_prefix_space").unwrap_or(false);
        let (step, keys, usual) = match self {
            Family::Bert | Family::Dpr => (Step::Template { ends: true }, CLS_SEP, ["[CLS]", "[SEP]"]),
            Family::Mpnet => (Step::Roberta { space: false }, CLS_SEP, ["<s>", "</s>"]),
            Family::ByteLevel { roberta: true } => (Step::Roberta { space: space() }, CLS_SEP, ["<s>", "</s>"]),
            Family::XlmRoberta => (Step::Roberta { space: false }, BOS_EOS, ["<s>", "</s>"]),
            Family::Llama { code: true } => (Step::Template { ends: false }, BOS_EOS, ["<s>", "</s>"]),
            _ => return Ok(None),
        };
        let replaces = match self {
            Family::Llama { .. } => false,
            Family::Bert | Family::Dpr | Family::Mpnet => matches!(inner.get_model(), ModelWrapper::WordPiece(_)),
            Family::XlmRoberta => matches!(inner.get_model(), ModelWrapper::Unigram(_)),
            _ => true,
        };
        if inner.get_post_processor().is_some() && !replaces {
            return Ok(None);
        }
        step.set(inner, value, keys, usual)
    }
}

/// Returns the class of a model type.
fn usual_class(model_type: &str) -> Option<&'static str> {
    Some(match model_type {
        "bert" | "distilbert" | "electra" | "convbert" | "nomic_bert" | "mobilebert" | "ernie" | "megatron-bert"
        | "nezha" | "squeezebert" | "layoutlm" | "qdqbert" | "lxmert" => "BertTokenizer",
        "mpnet" => "MPNetTokenizer",
        "code_llama" => "CodeLlamaTokenizer",
        "qwen2_moe" | "qwen3" | "qwen3_moe" | "qwen3_next" => "Qwen2Tokenizer",
        "roberta" | "bart" | "longformer" | "roberta-prelayernorm" | "lilt" => "RobertaTokenizer",
        "gpt2" | "starcoder2" | "phi" | "gpt_neo" | "gptj" | "opt" | "codegen" => "GPT2Tokenizer",
        "deberta" => "DebertaTokenizer",
        "deberta-v2" => "DebertaV2Tokenizer",
        "dpr" => "DPRQuestionEncoderTokenizer",
        "canine" => "CanineTokenizer",
        "fnet" => "FNetTokenizer",
        "markuplm" => "MarkupLMTokenizer",
        "tapas" => "TapasTokenizer",
        _ => return None,
    })
}

/// Returns whether the tokenizers of a class return token types; without a class, those of the model type. A tokenizer
/// of which neither is known returns them.
pub fn gives_types(class: Option<&str>, model_type: Option<&str>) -> bool {
    if class.is_none() && model_type.is_none() {
        return true;
    }
    let class = class.or(model_type.and_then(usual_class)).unwrap_or_default();
    TYPED.contains(&class.strip_suffix("Fast").unwrap_or(class))
        && !model_type.is_some_and(|kind| PLAIN.contains(&kind))
}

/// A function that returns the value of a setting by its key; `None` if the setting is not set.
pub type Setting<'a> = dyn Fn(&str) -> Option<&'a Value> + 'a;

/// Returns the value of a setting that is true or false; `None` if it is not set.
pub fn flag(value: &Setting<'_>, key: &str) -> Option<bool> {
    value(key).and_then(Value::as_bool)
}

/// Sets the normalizer, with or without conversion to lower case, and the pre-tokenizer of BERT, and returns notes on
/// settings that are not applied.
fn bert(inner: &mut Tokenizer, value: &Setting<'_>, lower: bool) -> Result<Vec<String>> {
    if !matches!(inner.get_model(), ModelWrapper::WordPiece(_)) {
        let asked = ["do_lower_case", "strip_accents", "tokenize_chinese_chars"];
        let asked = asked.iter().filter(|key| value(key).is_some());
        return Ok(asked.map(|key| format!("`{key}` is not applied: the model is not WordPiece")).collect());
    }
    let chinese = flag(value, "tokenize_chinese_chars").unwrap_or(true);
    let normalizer = BertNormalizer::new(true, chinese, flag(value, "strip_accents"), lower);
    inner.with_normalizer(Some(NormalizerWrapper::BertNormalizer(normalizer))).map_err(damaged)?;
    inner.with_pre_tokenizer(Some(PreTokenizerWrapper::BertPreTokenizer(BertPreTokenizer)));
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

/// Sets the steps before and after the model of byte-level tokens: those of Qwen2 (`parts`), with or without a space
/// before each part of a text, or those of GPT-NeoX, with or without a space before the text. Returns no notes.
fn byte_level(inner: &mut Tokenizer, parts: bool, prefix: bool) -> Result<Vec<String>> {
    if !matches!(inner.get_model(), ModelWrapper::BPE(_)) {
        return Ok(Vec::new());
    }
    let bytes = serde_json::json!(
        {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": !parts});
    let split = serde_json::json!(
        {"type": "Split", "pattern": {"Regex": QWEN2_PARTS}, "behavior": "Isolated", "invert": false});
    let steps = if parts { serde_json::json!({"type": "Sequence", "pretokenizers": [split, bytes]}) } else { bytes };
    let steps: PreTokenizerWrapper = serde_json::from_value(steps).map_err(|e| damaged(e.into()))?;
    inner.with_normalizer(Some(NormalizerWrapper::NFC(NFC))).map_err(damaged)?;
    inner.with_pre_tokenizer(Some(steps));
    inner.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
    Ok(Vec::new())
}

/// Sets the replacement of spaces and the space before a text, according to `legacy` and `add_prefix_space`, for a
/// tokenizer like that of Llama, or of Code Llama (`code`). Returns no notes.
fn llama(inner: &mut Tokenizer, value: &Setting<'_>, code: bool) -> Result<Vec<String>> {
    if !matches!(inner.get_model(), ModelWrapper::BPE(_)) || !marks_spaces(inner) {
        return Ok(Vec::new());
    }
    let prefix = flag(value, "add_prefix_space").unwrap_or(true);
    let legacy = !code && flag(value, "legacy").unwrap_or(false);
    let scheme = match (prefix, legacy) {
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
    if prefix || code {
        steps.push(serde_json::json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let decoder = serde_json::json!({"type": "Sequence", "decoders": steps});
    let decoder: DecoderWrapper = serde_json::from_value(decoder).map_err(|e| damaged(e.into()))?;
    inner.with_decoder(Some(decoder));
    Ok(Vec::new())
}

/// Sets the steps of XLM-RoBERTa before and after the model, with or without a space before each word. Returns no
/// notes.
fn xlm_roberta(inner: &mut Tokenizer, prefix: bool) -> Result<Vec<String>> {
    if !matches!(inner.get_model(), ModelWrapper::Unigram(_)) {
        return Ok(Vec::new());
    }
    let precompiled = |step: &&NormalizerWrapper| matches!(step, NormalizerWrapper::Precompiled(_));
    // Like the class, it keeps the table of characters and no other step before the model.
    let kept = match inner.get_normalizer() {
        Some(NormalizerWrapper::Sequence(steps)) => steps.as_ref().iter().find(precompiled).cloned(),
        step => step.filter(precompiled).cloned(),
    };
    inner.with_normalizer(kept).map_err(damaged)?;
    let scheme = if prefix { PrependScheme::Always } else { PrependScheme::Never };
    let spaces = Metaspace::new(MARK, scheme, true);
    let steps =
        vec![PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit), PreTokenizerWrapper::Metaspace(spaces.clone())];
    inner.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Steps::new(steps))));
    inner.with_decoder(Some(DecoderWrapper::Metaspace(spaces)));
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

/// Returns the error of a step that does not fit a tokenizer.
pub fn damaged(e: tokenizers::Error) -> Error {
    Error::new(Kind::InvalidModel, format!("tokenizer: {e}"))
}
