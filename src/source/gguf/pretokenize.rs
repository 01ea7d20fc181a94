//! The division of text into pieces before byte-pair merges, by the name in a GGUF file (`tokenizer.ggml.pre`).
//!
//! The patterns are those of the tokenizers that these models were published with. Each pattern divides what the
//! previous one left; a match is a piece, and so is the text between two matches.

use crate::error::{Result, bail};

/// The rules by which a tokenizer divides text into pieces.
#[derive(Debug, PartialEq, Eq)]
pub struct Cutting {
    /// Regular expressions that are applied one after the other.
    pub patterns: &'static [&'static str],
    /// Whether a piece that is a token becomes that token, regardless of merges.
    pub whole_pieces_first: bool,
    /// Whether a text begins with the beginning-of-sequence token if the file does not say.
    pub add_bos: bool,
    /// Whether text is first converted to composed Unicode form (NFC).
    pub composed: bool,
}

const GPT2_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const GPT2: Cutting = Cutting { patterns: &[GPT2_PATTERN], whole_pieces_first: false, add_bos: false, composed: false };
const DIGITS: Cutting = Cutting { patterns: &[r"\p{N}", GPT2_PATTERN], ..GPT2 };
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: Cutting =
    Cutting { patterns: &[LLAMA3_PATTERN], whole_pieces_first: true, add_bos: true, composed: false };
const DBRX: Cutting = Cutting { patterns: &[LLAMA3_PATTERN], ..GPT2 };
const STABLELM2: Cutting = Cutting {
    patterns: &[
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ],
    ..GPT2
};
const QWEN2: Cutting = Cutting { composed: true, ..STABLELM2 };
const TEKKEN: Cutting = Cutting {
    patterns: &[
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ],
    ..LLAMA3
};
const GPT4O: Cutting = Cutting {
    patterns: &[
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ],
    ..GPT2
};
const FALCON: Cutting = Cutting { patterns: &[r"[\p{P}$+<=>^~|`]+", GPT2_PATTERN, "[0-9][0-9][0-9]"], ..GPT2 };
const DEEPSEEK_CODER: Cutting =
    Cutting { patterns: &["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"], ..GPT2 };
/// The rules for files that name no kind or the kind "default".
const DEFAULT: Cutting =
    Cutting { patterns: &[r"[\p{P}$+<=>^~|]+", GPT2_PATTERN, r"\p{N}+", "[0-9][0-9][0-9]"], ..GPT2 };

const KNOWN: &[(&str, Cutting)] = &[
    ("default", DEFAULT),
    ("gpt-2", GPT2),
    ("phi-2", GPT2),
    ("mpt", GPT2),
    ("olmo", GPT2),
    ("smollm", DIGITS),
    ("starcoder", DIGITS),
    ("refact", DIGITS),
    ("command-r", DIGITS),
    ("codeshell", DIGITS),
    ("minerva-7b", DIGITS),
    ("llama-bpe", LLAMA3),
    ("llama3", LLAMA3),
    ("llama-v3", LLAMA3),
    ("falcon3", LLAMA3),
    ("pixtral", LLAMA3),
    ("dbrx", DBRX),
    ("smaug-bpe", DBRX),
    ("qwen2", QWEN2),
    ("deepseek-r1-qwen", QWEN2),
    ("megrez", QWEN2),
    ("stablelm2", STABLELM2),
    ("tekken", TEKKEN),
    ("gpt-4o", GPT4O),
    ("falcon", FALCON),
    ("deepseek-coder", DEEPSEEK_CODER),
];

impl Cutting {
    /// Returns the rules with the name `name`. Fails with `Unsupported` for other names; the error lists the supported
    /// ones.
    pub fn named(name: &str) -> Result<&'static Cutting> {
        match KNOWN.iter().find(|(known, _)| *known == name) {
            Some((_, cutting)) => Ok(cutting),
            None => {
                let known: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
                bail!(Unsupported, "the pre-tokenizer {name:?} is not supported; supported: {}", known.join(", "))
            }
        }
    }
}
