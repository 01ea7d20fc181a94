//! The files next to a `tokenizer.json`, which are applied like in transformers 5 ([`Settings`]).
//!
//! `tokenizer_config.json` (and `added_tokens.json`, `special_tokens_map.json` of older folders) may add tokens that
//! `tokenizer.json` lacks, make tokens special, and change settings. [`Settings::apply`] first applies the settings of
//! the tokenizer's class ([`family`]), and then adds the tokens.

mod around;
mod family;

use crate::error::{Context, Error, Kind, Result, bail, error};
use crate::limits;
use bytes::Bytes;
use family::Family;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

/// The names of special tokens, in the order in which they are added.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The content of the files next to a `tokenizer.json` that change the tokenizer.
#[derive(Default)]
pub struct Settings {
    config: Option<Map<String, Value>>,
    added: Option<Map<String, Value>>,
    special: Option<Map<String, Value>>,
    /// Value of `model_type` in the model's configuration.
    model_type: Option<String>,
    /// Value of `tokenizer_class` in the model's configuration.
    model_class: Option<String>,
}

/// The results of applying the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Text of the padding token; `None` if the files name none.
    pub pad_token: Option<String>,
    /// Text of the unknown token; `None` if the files name none.
    pub unk_token: Option<String>,
    /// Whether a text that is too long is truncated at its beginning (`truncation_side`) instead of its end.
    pub cut_left: bool,
    /// Whether the tokenizer returns no token types (`model_input_names`), so that the model gets zeros.
    pub untyped: bool,
    /// Notes on settings that could change token ids and were not applied.
    pub notes: Vec<String>,
}

impl Settings {
    /// Returns the settings in the files that exist. `file` returns the content of a file by its name.
    ///
    /// Fails with [`Kind::InvalidModel`] if a file is damaged, and with [`Kind::LimitExceeded`] if it is too large; the
    /// message names the file.
    pub fn read(file: &dyn Fn(&str) -> Result<Option<Bytes>>) -> Result<Settings> {
        let object = |name: &str| -> Result<Option<Map<String, Value>>> {
            let Some(content) = file(name)? else { return Ok(None) };
            if content.len() as u64 > limits::SIDE_FILE_BYTES {
                bail!(LimitExceeded, "{name} has {} bytes; the limit is {}", content.len(), limits::SIDE_FILE_BYTES);
            }
            let parsed = serde_json::from_slice(&content).map_err(|e| error!(InvalidModel, "the file is damaged: {e}"));
            parsed.at(|| name.to_owned()).map(Some)
        };
        let config = object("tokenizer_config.json")?;
        // If the added tokens are listed, the older files are not read.
        let older = !config.as_ref().is_some_and(|config| config.contains_key("added_tokens_decoder"));
        let of = |name: &str| if older { object(name) } else { Ok(None) };
        let model = object("config.json")?;
        let of_model = |key: &str| model.as_ref().and_then(|model| model.get(key)?.as_str().map(str::to_owned));
        Ok(Settings {
            config,
            added: of("added_tokens.json")?,
            special: of("special_tokens_map.json")?,
            model_type: of_model("model_type"),
            model_class: of_model("tokenizer_class"),
        })
    }

    /// Changes a tokenizer according to the settings, and returns the results.
    ///
    /// Fails with [`Kind::InvalidModel`] if the description of a token is invalid, or if a setting cannot be applied to
    /// the tokenizer.
    pub fn apply(&self, inner: &mut Tokenizer) -> Result<Applied> {
        let family = Family::of(self.class(), self.model_type.as_deref());
        let mut notes = family.apply(inner, &|key| self.value(key))?;
        let tokens = self.tokens(inner, &family)?;
        if !tokens.is_empty() {
            inner.add_tokens(tokens).map_err(|e| Error::new(Kind::InvalidModel, format!("added tokens: {e}")))?;
        }
        notes.extend(family.complete(inner, &|key| self.value(key))?);
        if self.value("split_special_tokens") == Some(&Value::Bool(true)) {
            inner.set_encode_special_tokens(true);
        }
        notes.extend(self.unapplied());
        let pad_token = self.named("pad_token")?.map(|token| token.content);
        let unk_token = self.named("unk_token")?.map(|token| token.content);
        let cut_left = self.text("truncation_side") == Some("left");
        Ok(Applied { pad_token, unk_token, cut_left, untyped: !self.gives_types(), notes })
    }

    /// Returns the class of the tokenizer; `None` if neither its own files nor the model's configuration name it.
    fn class(&self) -> Option<&str> {
        self.text("tokenizer_class").or(self.model_class.as_deref())
    }

    /// Returns whether the tokenizer returns token types: `model_input_names`, or the default of the class. The
    /// defaults of a class with custom code are unknown: its token types are used.
    fn gives_types(&self) -> bool {
        match self.value("model_input_names").and_then(Value::as_array) {
            Some(names) => names.iter().any(|name| name.as_str() == Some("token_type_ids")),
            None => self.value("auto_map").is_some() || family::gives_types(self.class(), self.model_type.as_deref()),
        }
    }

    /// Returns the value of a setting; `None` if it does not exist or is null. The values in `special_tokens_map.json`
    /// have priority, like in transformers.
    pub fn value(&self, key: &str) -> Option<&Value> {
        let special = self.special.as_ref().and_then(|map| map.get(key));
        special.or_else(|| self.config.as_ref()?.get(key)).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.value(key)?.as_str()
    }

    /// Returns the special token with the name `key`, such as `pad_token`; `None` if there is none.
    fn named(&self, key: &str) -> Result<Option<AddedToken>> {
        self.value(key).map(|value| token(value, true).at(|| key.to_owned())).transpose()
    }

    /// Returns the tokens to add: those that the files list, in the order of their ids, and then the other special
    /// tokens. Listed tokens that the tokenizer already has are included, because they may become special.
    fn tokens(&self, inner: &Tokenizer, family: &Family) -> Result<Vec<AddedToken>> {
        let named = self.all_named()?;
        let mut tokens = self.listed(&named)?;
        let there = inner.get_added_tokens_decoder();
        let known = |tokens: &[AddedToken], content: &str| {
            tokens.iter().any(|token| token.content == content) || there.values().any(|token| token.content == content)
        };
        for special in &named {
            if !known(&tokens, &special.content) {
                tokens.push(special.clone());
            }
        }
        // Default tokens of the class that the tokenizer lacks are not added: models have no rows for them.
        for content in family.usual_tokens() {
            if !known(&tokens, content) && inner.token_to_id(content).is_some() {
                tokens.push(AddedToken::from(*content, true));
            }
        }
        for token in &mut tokens {
            token.special |= named.iter().any(|special| special.content == token.content);
        }
        Ok(tokens)
    }

    /// Returns the special tokens: those with the usual names, those with other names (`image_token`), and those
    /// without a name.
    fn all_named(&self) -> Result<Vec<AddedToken>> {
        let mut found = Vec::new();
        for key in NAMED {
            found.extend(self.named(key)?);
        }
        // An object of `tokenizer_config.json` is a token only if it says so.
        let marked = |value: &Value| value.get("__type").and_then(Value::as_str) == Some("AddedToken");
        let own = self.config.iter().flatten().filter(|(_, value)| value.is_string() || marked(value));
        let older =
            self.special.iter().flatten().filter(|(_, value)| value.is_string() || value.get("content").is_some());
        for (key, value) in own.chain(older).filter(|(key, _)| key.ends_with("_token")) {
            if !NAMED.contains(&key.as_str()) {
                found.push(token(value, true).at(|| key.clone())?);
            }
        }
        let extra = self.value("extra_special_tokens");
        let named = [self.value("model_specific_special_tokens"), extra];
        let mut values: Vec<&Value> =
            named.into_iter().flatten().filter_map(Value::as_object).flat_map(Map::values).collect();
        // A filled list replaces the older name; an object has names of tokens and replaces nothing.
        let list = extra.and_then(Value::as_array).filter(|list| !list.is_empty());
        let list = list.or_else(|| self.value("additional_special_tokens")?.as_array());
        values.extend(list.into_iter().flatten());
        for value in values {
            found.push(token(value, true).at(|| "extra_special_tokens")?);
        }
        Ok(found)
    }

    /// Returns the tokens of `added_tokens_decoder`, or of the older `added_tokens.json`, by id.
    fn listed(&self, named: &[AddedToken]) -> Result<Vec<AddedToken>> {
        let mut found: Vec<(i64, AddedToken)> = Vec::new();
        if let Some(list) = self.config.as_ref().and_then(|config| config.get("added_tokens_decoder")) {
            let place = || "added_tokens_decoder".to_owned();
            let Some(list) = list.as_object() else {
                return Err(error!(InvalidModel, "the value is not an object").at(place()));
            };
            for (id, value) in list {
                let id = id.parse().map_err(|_| error!(InvalidModel, "{id:?} is not an id")).at(place)?;
                found.push((id, token(value, false).at(place)?));
            }
        }
        for (content, id) in self.added.iter().flatten() {
            let Some(id) = id.as_i64() else {
                bail!(InvalidModel, "added_tokens.json: the id of {content:?} is not a number");
            };
            let special = named.iter().any(|token| token.content == *content);
            found.push((id, AddedToken::from(content.as_str(), special)));
        }
        found.sort_by_key(|(id, _)| *id);
        Ok(found.into_iter().map(|(_, token)| token).collect())
    }

    /// Returns notes on the settings that could change token ids and are not applied.
    fn unapplied(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let code = self.value("auto_map").and_then(|map| map.as_object()?.get("AutoTokenizer"));
        if code.is_some_and(|code| !code.is_null()) {
            notes.push("the tokenizer has custom code (`auto_map`), which is not run".to_owned());
        }
        if self.value("fix_mistral_regex") == Some(&Value::Bool(true)) {
            notes.push("`fix_mistral_regex` is not applied: texts are split as in tokenizer.json".to_owned());
        }
        if self.value("never_split").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
            notes.push("`never_split` is not applied".to_owned());
        }
        if self.value("sp_model_kwargs").and_then(|map| map.get("enable_sampling")) == Some(&Value::Bool(true)) {
            notes.push("tokens are not sampled (`sp_model_kwargs`): the best ones are used".to_owned());
        }
        notes
    }
}

/// Returns the token of a description: a text, or an object with the text as `content` and further fields.
fn token(value: &Value, special: bool) -> Result<AddedToken> {
    let content = value.as_str().or_else(|| value.get("content")?.as_str());
    let Some(content) = content else { bail!(InvalidModel, "{value} is not a token: it has no text") };
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let special = special || flag("special").unwrap_or(false);
    let token = AddedToken::from(content, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false));
    let normalized = flag("normalized").unwrap_or(token.normalized);
    Ok(token.normalized(normalized))
}
