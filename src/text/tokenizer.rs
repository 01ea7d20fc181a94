//! The conversion of text to token ids and back, as a Hugging Face `tokenizer.json` defines it ([`Tokenizer`]).
//!
//! Many such files set truncation and padding to a fixed length (those of MiniLM: 128). Both are disabled on loading,
//! so an encoding is as long as its text; callers request padding and truncation with [`Tokenizer::encode_batch`].
//! [`Tokenizer::truncation`] returns the file's value. `settings` applies the files next to it (`tokenizer_config.json`
//! …).

use super::sentencepiece::{self, Merger};
use super::sentences::{self, Beside};
use super::settings::{Applied, Settings};
use crate::error::{Context, Error, Kind, Result, bail, error};
use crate::model::Model;
use crate::model::{SideContent, SideFile, Task};
use crate::{files, limits};
use bytes::Bytes;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tokenizers::{Model as _, OffsetType, PreTokenizer as _};

mod pairs;
mod windows;

pub(crate) use windows::{Token, Window, Windows};

/// The name of the file with the tokenizer.
const FILE: &str = "tokenizer.json";
/// The names of the files of a tokenizer. Together they define how text becomes token ids.
pub const FILES: [&str; 4] = [FILE, "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"];
/// The names of padding tokens, of which the first that the vocabulary has is used if the files name none.
const PAD_TOKENS: [&str; 4] = ["[PAD]", "<pad>", "<|pad|>", "<|endoftext|>"];

/// A tokenizer, which is immutable and can be shared between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pad_id: i64,
    pad_type_id: i64,
    truncation: Option<usize>,
    settings: Applied,
    /// Merger of characters to tokens, if the merges of the file are not enough.
    merger: Option<Merger>,
    /// Prompt that precedes every text, except in pairs and windows; empty for none.
    prompt: String,
    /// Whether the prompt replaces the default one of the model.
    own_prompt: bool,
}

/// One text as token ids. All three lists have one entry per token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Ids of the tokens.
    pub ids: Vec<i64>,
    /// Attention mask, 1 for each token (0 would be padding, which does not occur).
    pub attention_mask: Vec<i64>,
    /// Token type ids (segments) for BERT; all 0 for a single text.
    pub type_ids: Vec<i64>,
}

/// Several texts as rows of one length. The lists of numbers are row-major, `batch` × `length`, and can become int64
/// tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, padded on the right.
    pub ids: Vec<i64>,
    /// Attention mask, 1 for tokens, 0 for padding.
    pub mask: Vec<i64>,
    /// Token type ids, padded with the tokenizer's value (usually 0).
    pub type_ids: Vec<i64>,
    /// Number of texts, which are the rows.
    pub batch: usize,
    /// Length of each row in tokens, which is that of the longest text.
    pub length: usize,
    /// Number of tokens that were truncated, for each text.
    pub cut: Vec<usize>,
}

impl Tokenizer {
    /// Loads a `tokenizer.json`, or the one in a folder, and returns the tokenizer. The files next to it ([`FILES`],
    /// `config.json`) are applied if the file is named `tokenizer.json`.
    ///
    /// Fails with [`Kind::NotFound`] if there is none, [`Kind::Io`] if a file cannot be read, [`Kind::LimitExceeded`]
    /// above [`limits::SIDE_FILE_BYTES`], [`Kind::InvalidModel`] if a file is damaged; the message names the line of a
    /// syntax error.
    pub fn load(path: &Path) -> Result<Tokenizer> {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let content = files::read(&file, limits::SIDE_FILE_BYTES)?;
        let folder = files::parent_of(&file);
        let beside = |name: &str| -> Result<Option<Bytes>> {
            let path = folder.join(name);
            // A file with another name is loaded alone.
            if !file.ends_with(FILE) || !path.is_file() {
                return Ok(None);
            }
            Ok(Some(files::read(&path, limits::SIDE_FILE_BYTES)?.into()))
        };
        Tokenizer::with_files(&content, &beside).at(|| file.display())
    }

    /// Returns a tokenizer from the content of a `tokenizer.json` alone. Fails like [`Tokenizer::load`].
    pub fn from_bytes(content: &[u8]) -> Result<Tokenizer> {
        Tokenizer::with_files(content, &|_| Ok(None))
    }

    /// Returns a tokenizer from the content of a `tokenizer.json` and of the files next to it. `file` returns the
    /// content of a file by its name, which is one of [`FILES`] or `config.json`; `None` if there is none. Fails like
    /// [`Tokenizer::load`].
    pub fn with_files(content: &[u8], file: &dyn Fn(&str) -> Result<Option<Bytes>>) -> Result<Tokenizer> {
        if content.len() as u64 > limits::SIDE_FILE_BYTES {
            bail!(LimitExceeded, "has {} bytes; the limit is {}", content.len(), limits::SIDE_FILE_BYTES);
        }
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(content))
            .map_err(|e| error!(InvalidModel, "the file is not a usable {FILE}: {}", e.message()))?;
        let applied = Settings::read(file)?;
        let settings = caught(|| applied.apply(&mut inner))?;
        let merger = Merger::read(content, applied.value(sentencepiece::KEY), &inner)?;
        let padding = inner.get_padding().map(|p| (i64::from(p.pad_id), i64::from(p.pad_type_id)));
        let by_name = || PAD_TOKENS.iter().find_map(|token| inner.token_to_id(token)).map_or(0, i64::from);
        let (pad_id, pad_type_id) = padding.unwrap_or_else(|| (by_name(), 0));
        let named = settings.pad_token.as_ref().and_then(|token| inner.token_to_id(token));
        let pad_id = named.map_or(pad_id, i64::from);
        let pad_type_id = if settings.untyped { 0 } else { pad_type_id };
        let truncation = inner.get_truncation().map(|t| t.max_length).filter(|length| *length > 0);
        guarded(|| inner.with_truncation(None).map(|_| ()))?;
        inner.with_padding(None);
        Ok(Tokenizer {
            inner,
            pad_id,
            pad_type_id,
            truncation,
            settings,
            merger,
            prompt: String::new(),
            own_prompt: false,
        })
    }

    /// Returns the tokenizer of a model; `None` if it has none. For models that do not generate text, it applies the
    /// preprocessing of sentence-transformers: lower case, and a prompt before each text. Fails like
    /// [`Tokenizer::load`].
    pub fn of(model: &Model) -> Result<Option<Tokenizer>> {
        let card = model.card();
        let beside = |name: &str| card.side_file(name).map(|content| content.read().at(|| name.to_owned())).transpose();
        Tokenizer::among(card.side_file(FILE), card.task, &beside)
    }

    /// Returns the tokenizer among the files of a model that does not generate text; `None` if there is none.
    pub(crate) fn beside(files: &[SideFile]) -> Result<Option<Tokenizer>> {
        let file = |name: &str| files.iter().find(|file| file.name == name).map(|file| &file.content);
        let beside = |name: &str| file(name).map(|content| content.read().at(|| name.to_owned())).transpose();
        Tokenizer::among(file(FILE), Task::Embed, &beside)
    }

    fn among(content: Option<&SideContent>, task: Task, beside: &Beside<'_>) -> Result<Option<Tokenizer>> {
        let Some(content) = content else { return Ok(None) };
        let place = || match content {
            SideContent::Path(path) => path.display().to_string(),
            SideContent::Bytes(_) => FILE.to_owned(),
        };
        Tokenizer::for_task(task, &content.read()?, beside).at(place).map(Some)
    }

    /// Returns the tokenizer of a model for `task`, with the files next to it. The files of sentence-transformers apply
    /// to models that do not generate text.
    pub(crate) fn for_task(task: Task, content: &[u8], beside: &Beside<'_>) -> Result<Tokenizer> {
        let mut tokenizer = Tokenizer::with_files(content, beside)?;
        if task != Task::Generate {
            tokenizer.prompt = sentences::prompt(beside)?;
            if sentences::lower_case(beside)? {
                guarded(|| sentences::make_lower(&mut tokenizer.inner))?;
            }
        }
        Ok(tokenizer)
    }

    /// Returns the same tokenizer with another prompt before each text.
    pub(crate) fn with_prompt(&self, prompt: &str) -> Tokenizer {
        let (prompt, own_prompt) = (prompt.to_owned(), true);
        Tokenizer { prompt, own_prompt, ..self.clone() }
    }

    /// Returns whether the prompt replaces the default one of the model.
    pub(crate) fn has_own_prompt(&self) -> bool {
        self.own_prompt
    }

    /// Returns notes on the settings in the tokenizer's files that could change token ids and are not applied.
    pub fn notes(&self) -> &[String] {
        &self.settings.notes
    }

    /// Returns the number of tokens of the prompt before every text, with the special tokens at its beginning, but
    /// without one at its end; 0 without a prompt.
    pub(crate) fn prompt_tokens(&self) -> Result<usize> {
        if self.prompt.is_empty() {
            return Ok(0);
        }
        let ids = self.encode("", true)?.ids;
        let special = ids.last().and_then(|id| self.added_tokens().get(&u32::try_from(*id).ok()?).copied());
        Ok(ids.len() - usize::from(special == Some(true)))
    }

    /// Returns the token ids of a text, with the model's special tokens (`[CLS]` … `[SEP]`, `<s>`) if requested. The
    /// prompt of [`Tokenizer::of`], if there is one, precedes the text.
    ///
    /// Fails with [`Kind::LimitExceeded`] above [`limits::TEXT_BYTES`], or if a regular expression of the tokenizer
    /// takes too many steps; [`Kind::InvalidModel`] if the tokenizer has no token for a part of the text and no unknown
    /// token.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Encoding> {
        Ok(self.encode_within(text, add_special_tokens, None)?.0)
    }

    /// Returns the token ids of several texts, padded on the right to the longest of them.
    ///
    /// With `max_length`, longer texts are truncated at their end, or at their beginning if the tokenizer's files say
    /// so; special tokens are kept. Fails with [`Kind::InvalidArgument`] if `max_length` leaves no room for them. Other
    /// errors are those of [`Tokenizer::encode`], with the number of the text.
    pub fn encode_batch<T: AsRef<str>>(
        &self,
        texts: &[T],
        add_special_tokens: bool,
        max_length: Option<usize>,
    ) -> Result<Batch> {
        let encode = |(index, text): (usize, &T)| {
            let encoding = self.encode_within(text.as_ref(), add_special_tokens, max_length);
            encoding.at(|| format!("text {}", index + 1))
        };
        Ok(self.padded(texts.iter().enumerate().map(encode).collect::<Result<_>>()?))
    }

    /// Returns encodings as rows of one length. Each encoding comes with the number of tokens that were truncated from
    /// it.
    pub(crate) fn padded(&self, encoded: Vec<(Encoding, usize)>) -> Batch {
        let (encodings, cut): (Vec<Encoding>, Vec<usize>) = encoded.into_iter().unzip();
        let length = encodings.iter().map(|e| e.ids.len()).max().unwrap_or(0);
        let size = length * encodings.len();
        let room = || Vec::with_capacity(size);
        let mut batch = Batch { ids: room(), mask: room(), type_ids: room(), batch: encodings.len(), length, cut };
        for (row, encoding) in encodings.iter().enumerate() {
            let end = (row + 1) * length;
            batch.ids.extend(&encoding.ids);
            batch.ids.resize(end, self.pad_id);
            batch.mask.extend(&encoding.attention_mask);
            batch.mask.resize(end, 0);
            batch.type_ids.extend(&encoding.type_ids);
            batch.type_ids.resize(end, self.pad_type_id);
        }
        batch
    }

    /// Returns the text of token ids, without special tokens if `skip_special` is set.
    ///
    /// Ids beyond the vocabulary are ignored. Fails with [`Kind::InvalidArgument`] for negative ids and ids of more
    /// than 32 bits, and [`Kind::InvalidModel`] if the decoder of the tokenizer fails.
    pub fn decode(&self, ids: &[i64], skip_special: bool) -> Result<String> {
        let id = |id: &i64| u32::try_from(*id).map_err(|_| error!(InvalidArgument, "{id} is not a token id"));
        let ids = ids.iter().map(id).collect::<Result<Vec<u32>>>()?;
        guarded(|| self.inner.decode(&ids, skip_special))
    }

    /// Returns the id of a token by its exact text (`[PAD]`, `<s>`); `None` if it is not in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<i64> {
        self.inner.token_to_id(token).map(i64::from)
    }

    /// Returns the exact text of a token in the vocabulary; `None` for an unused id.
    pub fn token(&self, id: i64) -> Option<String> {
        self.inner.id_to_token(u32::try_from(id).ok()?)
    }

    /// Returns the id of the padding of [`Tokenizer::encode_batch`]; 0 if the tokenizer has no padding token.
    pub fn pad_id(&self) -> i64 {
        self.pad_id
    }

    /// Returns the truncation length in tokens that the file sets; `None` if it sets none.
    pub fn truncation(&self) -> Option<usize> {
        self.truncation
    }

    /// Returns all tokens of the vocabulary, including added ones, with their ids.
    pub fn tokens(&self) -> std::collections::HashMap<String, u32> {
        self.inner.get_vocab(true)
    }

    /// Returns the ids of the added tokens, and whether each is special.
    pub fn added_tokens(&self) -> std::collections::HashMap<u32, bool> {
        self.inner.get_added_tokens_decoder().into_iter().map(|(id, token)| (id, token.special)).collect()
    }

    /// Returns the texts of the added tokens that only one of two tokenizers has, or that they find in texts in
    /// different ways.
    pub fn unlike_added_tokens(&self, other: &Tokenizer) -> std::collections::BTreeSet<String> {
        let rules = |tokenizer: &Tokenizer| -> std::collections::HashSet<(String, [bool; 5])> {
            let added = tokenizer.inner.get_added_tokens_decoder().into_values();
            added.map(|t| (t.content, [t.single_word, t.lstrip, t.rstrip, t.normalized, t.special])).collect()
        };
        let (own, others) = (rules(self), rules(other));
        own.symmetric_difference(&others).map(|(text, _)| text.clone()).collect()
    }

    /// Returns the ids and the texts of the special tokens.
    pub(super) fn special_tokens(&self) -> std::collections::HashMap<i64, String> {
        let added = self.inner.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special);
        added.map(|(id, token)| (i64::from(id), token.content)).collect()
    }

    /// Returns the kinds of decoder steps (`ByteLevel`, `Fuse` …), unordered.
    pub(super) fn decoder_kinds(&self) -> Vec<String> {
        fn collect(value: &serde_json::Value, kinds: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(object) => {
                    kinds.extend(object.get("type").and_then(|kind| kind.as_str()).map(str::to_owned));
                    object.values().for_each(|value| collect(value, kinds));
                }
                serde_json::Value::Array(list) => list.iter().for_each(|value| collect(value, kinds)),
                _ => {}
            }
        }
        let mut kinds = Vec::new();
        collect(&serde_json::to_value(self.inner.get_decoder()).unwrap_or_default(), &mut kinds);
        kinds
    }

    /// Returns the decoder; `None` stands for joining tokens with spaces.
    pub(super) fn decoder(&self) -> Option<&tokenizers::DecoderWrapper> {
        self.inner.get_decoder()
    }

    /// Returns the token that [`Tokenizer::decode`] converts to text for an id; `None` if it ignores the id.
    pub(super) fn shown(&self, id: u32, skip_special: bool) -> Option<String> {
        let special = |token: &String| skip_special && self.inner.get_added_vocabulary().is_special_token(token);
        self.inner.id_to_token(id).filter(|token| !special(token))
    }

    /// Returns the number of tokens in the vocabulary, including added ones.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Returns the tokens of a text, without special tokens: all steps of the file except the last one, which adds
    /// them.
    fn pieces(&self, text: &str, places: OffsetType) -> tokenizers::Result<tokenizers::Encoding> {
        let inner = &self.inner;
        let mut pieces = inner.get_added_vocabulary().extract_and_normalize(inner.get_normalizer(), text);
        if let Some(step) = inner.get_pre_tokenizer() {
            step.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| match &self.merger {
            Some(merger) => Ok(merger.tokens(piece.get())),
            None => inner.get_model().tokenize(piece.get()),
        })?;
        pieces.into_encoding(None, 0, places)
    }

    /// Returns all tokens of a text.
    fn encoding_of(&self, text: &str, add_special_tokens: bool) -> Result<tokenizers::Encoding> {
        if text.len() > limits::TEXT_BYTES {
            bail!(LimitExceeded, "the text has {} bytes; the limit is {}", text.len(), limits::TEXT_BYTES);
        }
        match &self.merger {
            Some(_) => {
                guarded(|| self.inner.post_process(self.pieces(text, OffsetType::None)?, None, add_special_tokens))
            }
            None => guarded(|| self.inner.encode_fast(text, add_special_tokens)),
        }
    }

    /// Returns the tokens of a text up to `max_length`, with the prompt before it, and the number of truncated tokens.
    fn encode_within(
        &self,
        text: &str,
        add_special_tokens: bool,
        max_length: Option<usize>,
    ) -> Result<(Encoding, usize)> {
        let whole = if self.prompt.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(self.prompt.clone() + text) };
        let encoded = self.encoding_of(&whole, add_special_tokens)?;
        let most = max_length.unwrap_or(usize::MAX);
        let keep = kept(encoded.get_special_tokens_mask(), most, self.settings.cut_left)?;
        let wide = |values: &[u32]| keep.iter().map(|&index| i64::from(values[index])).collect::<Vec<i64>>();
        let encoding = Encoding {
            ids: wide(encoded.get_ids()),
            attention_mask: wide(encoded.get_attention_mask()),
            type_ids: if self.settings.untyped { vec![0; keep.len()] } else { wide(encoded.get_type_ids()) },
        };
        Ok((encoding, encoded.len() - keep.len()))
    }
}

/// Returns the indices of the tokens that remain after truncation to `max_length`, at the end or (`left`) at the
/// beginning. `special` is not 0 for special tokens, which are kept. Fails with `InvalidArgument` if they are more than
/// `max_length`.
fn kept(special: &[u32], max_length: usize, left: bool) -> Result<Vec<usize>> {
    let specials = special.iter().filter(|s| **s != 0).count();
    if max_length < specials {
        bail!(InvalidArgument, "a length of {max_length} is too short for {specials} special tokens");
    }
    let mut room = max_length - specials;
    let mut gone = if left { (special.len() - specials).saturating_sub(room) } else { 0 };
    let keep = |index: &usize| {
        let ordinary = special[*index] == 0;
        if ordinary && gone > 0 {
            gone -= 1;
            return false;
        }
        let fits = !ordinary || room > 0;
        room -= usize::from(ordinary && fits);
        fits
    };
    Ok((0..special.len()).filter(keep).collect())
}

/// Runs `work`, which calls the tokenizers crate, and returns its result. Its errors and panics (the crate panics on
/// some damaged files) become errors of the kind `InvalidModel`, or `LimitExceeded` for a regular expression that takes
/// too long.
pub(super) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    caught(|| work().map_err(|e| Error::new(Kind::InvalidModel, format!("tokenizer: {e}"))))
}

/// Runs `work`, and returns its result; a panic becomes an error of the kind `InvalidModel`, or `LimitExceeded` for a
/// regular expression that takes too long.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map_or("", String::as_str);
        match text.strip_prefix("Onig: Regex search error: ") {
            Some(why) => bail!(
                LimitExceeded,
                "tokenizer: a regular expression of {FILE} needs too many steps for this text: {why}"
            ),
            None => bail!(InvalidModel, "tokenizer: its description is inconsistent"),
        }
    })
}

#[cfg(test)]
mod tests;
