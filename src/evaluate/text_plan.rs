//! The plan by which a model reads a text: its tokens, divided into windows ([`Plan`]).

use super::options::{Bos, PerplexityOptions};
use super::windows::{Window, windows};
use crate::error::{Result, bail};
use crate::model::Model;
use crate::text::Tokenizer;

/// The length of a window in tokens if neither the caller nor the model sets one.
const CONTEXT: usize = 512;
/// The number of bytes per token to which a text is truncated before it is tokenized, if only some tokens are wanted.
/// If that is not enough, it is truncated to twice as many.
const BYTES_PER_TOKEN: usize = 16;
/// The number of tokens at the end of a truncated text that the truncation may have changed.
const DISTURBED: usize = 64;

/// The text that a model reads, window by window.
#[derive(Debug)]
pub struct Plan {
    /// Tokens before every window, which are never scored.
    prefix: Vec<i64>,
    tokens: Vec<i64>,
    /// Windows of the text that have scored tokens.
    pub windows: Vec<Window>,
    /// Length of a window in tokens, including the prefix.
    pub context_length: usize,
    /// Distance between the beginnings of two windows in tokens.
    pub stride: usize,
    /// Number of bytes of text of the scored tokens.
    pub bytes: usize,
}

impl Plan {
    /// Returns the plan by which all `models` read a text. Fails with `InvalidArgument` if the context length or the
    /// stride does not fit, or the text has too few tokens.
    pub fn new(models: &[&Model], tokenizer: &Tokenizer, text: &str, options: &PerplexityOptions) -> Result<Plan> {
        let context_length = context_length(models, options.context_length)?;
        let (prefix, tokens) = tokenize(tokenizer, text, options)?;
        let Some(room) = context_length.checked_sub(prefix.len()).filter(|room| *room > 0) else {
            bail!(InvalidArgument, "context_length is {context_length}, which leaves no room for text");
        };
        let stride = if options.stride == 0 { (context_length / 2).clamp(1, room) } else { options.stride };
        if stride > room {
            bail!(InvalidArgument, "stride is {stride}; it must be at most {room}, the text in a window");
        }
        let has_prefix = !prefix.is_empty();
        let windows: Vec<Window> =
            windows(tokens.len(), room, stride, has_prefix).filter(|window| window.scored > 0).collect();
        let Some(first) = windows.first() else {
            bail!(InvalidArgument, "the text has {} tokens, too few to predict one from another", tokens.len());
        };
        let from = &tokens[first.tokens.end - first.scored..];
        let scored: usize = windows.iter().map(|window| window.scored).sum();
        // If windows do not overlap, some tokens in between are not scored. Special tokens inside the text are text:
        // they are predicted like all others.
        let bytes = (tokenizer.decode(from, false)?.len() as f64 * scored as f64 / from.len() as f64).round() as usize;
        Ok(Plan { prefix, tokens, windows, context_length, stride, bytes })
    }

    /// Returns the tokens of a window for the model: the prefix, followed by those of the text.
    pub fn ids(&self, window: &Window) -> Vec<i64> {
        [self.prefix.as_slice(), &self.tokens[window.tokens.clone()]].concat()
    }

    /// Returns a plan of `count` tokens without a prefix, for tests.
    #[cfg(test)]
    pub fn with_windows(count: usize, context_length: usize, stride: usize, bytes: usize) -> Plan {
        let windows = windows(count, context_length, stride, false).collect();
        Plan { prefix: Vec::new(), tokens: vec![0; count], windows, context_length, stride, bytes }
    }

    /// Returns the number of scored tokens of all windows.
    pub fn scored(&self) -> usize {
        self.windows.iter().map(|window| window.scored).sum()
    }

    /// Returns whether every window begins with tokens that are not text.
    pub fn has_prefix(&self) -> bool {
        !self.prefix.is_empty()
    }
}

/// Returns the context length `asked` for, after checking that the models have so many positions. If it is 0, returns
/// the smallest number of positions of a model, or [`CONTEXT`] if that is less or no number is known.
fn context_length(models: &[&Model], asked: usize) -> Result<usize> {
    let mut longest = None;
    for model in models {
        longest = longest.into_iter().chain(model.card().longest_text()?).min();
    }
    match (asked, longest) {
        (0, longest) => Ok(longest.unwrap_or(CONTEXT).min(CONTEXT)),
        (1, _) => bail!(InvalidArgument, "context_length is 1; it is at least 2"),
        (asked, Some(longest)) if asked > longest => {
            bail!(InvalidArgument, "context_length is {asked}; the model has positions for {longest} tokens")
        }
        (asked, _) => Ok(asked),
    }
}

/// Returns the prefix of every window, and the tokens of the text.
fn tokenize(tokenizer: &Tokenizer, text: &str, options: &PerplexityOptions) -> Result<(Vec<i64>, Vec<i64>)> {
    let beginning = if options.bos == Bos::Never { Vec::new() } else { beginning(tokenizer)? };
    let mut tokens = match options.bos {
        Bos::FirstWindow => beginning.clone(),
        _ => Vec::new(),
    };
    let wanted = if options.max_tokens == 0 { usize::MAX } else { options.max_tokens };
    let mut bytes = wanted.saturating_add(DISTURBED).saturating_mul(BYTES_PER_TOKEN);
    loop {
        let part = &text[..text.floor_char_boundary(bytes)];
        let ids = tokenizer.encode(part, false)?.ids;
        if part.len() == text.len() || ids.len() >= wanted.saturating_add(DISTURBED) {
            tokens.extend(ids.into_iter().take(wanted));
            break;
        }
        bytes = bytes.saturating_mul(2);
    }
    let prefix = if options.bos == Bos::EveryWindow { beginning } else { Vec::new() };
    Ok((prefix, tokens))
}

/// Returns the tokens that the tokenizer puts before a text (`<s>`); empty if there are none.
fn beginning(tokenizer: &Tokenizer) -> Result<Vec<i64>> {
    const SAMPLE: &str = "a";
    let (with, without) = (tokenizer.encode(SAMPLE, true)?.ids, tokenizer.encode(SAMPLE, false)?.ids);
    let at = with.windows(without.len().max(1)).position(|part| part == without);
    Ok(with[..at.unwrap_or(0)].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Card;
    use crate::onnx::proto::ModelProto;
    use serde_json::json;

    /// Returns a word tokenizer, optionally with `<s>` before a text.
    fn tokenizer(bos: bool) -> Tokenizer {
        let processor = if bos {
            let piece = |kind: &str, id: &str| json!({ kind: { "id": id, "type_id": 0 } });
            let sequence = [piece("SpecialToken", "<s>"), piece("Sequence", "A")];
            let specials = json!({ "<s>": { "id": "<s>", "ids": [9], "tokens": ["<s>"] } });
            json!({ "type": "TemplateProcessing", "pair": [], "single": sequence, "special_tokens": specials })
        } else {
            json!(null)
        };
        let vocabulary: serde_json::Map<_, _> =
            "abcdefgh".chars().zip(0..).map(|(c, i)| (c.into(), json!(i))).collect();
        let file = json!({ "version": "1.0", "added_tokens": [], "normalizer": null, "decoder": { "type": "Fuse" },
            "pre_tokenizer": { "type": "Whitespace" }, "post_processor": processor,
            "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "a" } });
        Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
    }

    fn model(positions: i64) -> Model {
        let config = json!({ "max_position_embeddings": positions }).as_object().cloned().unwrap();
        Model::assemble(ModelProto::default(), Card { config, ..Card::default() }, "m".as_ref(), Vec::new())
    }

    #[test]
    fn special_tokens_in_the_text_count_among_its_bytes() {
        let file = json!({ "version": "1.0", "normalizer": null, "decoder": { "type": "Fuse" }, "post_processor": null,
            "added_tokens": [{ "id": 2, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true }],
            "pre_tokenizer": { "type": "Whitespace" },
            "model": { "type": "WordLevel", "vocab": { "a": 0, "b": 1, "<end>": 2 }, "unk_token": "a" } });
        let tokenizer = Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap();
        let options = PerplexityOptions::default();
        let plan = Plan::new(&[&model(600)], &tokenizer, "a b<end>b", &options).unwrap();
        // All but the first token are scored.
        assert_eq!((plan.scored(), plan.bytes), (3, "b<end>b".len()));
    }

    fn plan(bos: bool, options: PerplexityOptions) -> Result<Plan> {
        Plan::new(&[&model(600)], &tokenizer(bos), "a b c d e f g h", &options)
    }

    fn options(context_length: usize, stride: usize) -> PerplexityOptions {
        PerplexityOptions { context_length, stride, ..PerplexityOptions::default() }
    }

    #[test]
    fn the_beginning_stands_where_it_is_asked_to() {
        let every = plan(true, options(4, 2)).unwrap();
        assert_eq!(every.ids(&every.windows[1]), [9, 2, 3, 4]);
        assert_eq!((every.scored(), every.has_prefix(), every.bytes), (8, true, 8));
        let first = plan(true, PerplexityOptions { bos: Bos::FirstWindow, ..options(4, 2) }).unwrap();
        assert_eq!((first.ids(&first.windows[0]), first.ids(&first.windows[1])), (vec![9, 0, 1, 2], vec![1, 2, 3, 4]));
        assert_eq!((first.scored(), first.has_prefix()), (8, false));
        let never = plan(true, PerplexityOptions { bos: Bos::Never, ..options(4, 2) }).unwrap();
        assert_eq!((never.ids(&never.windows[0]), never.scored(), never.bytes), (vec![0, 1, 2, 3], 7, 7));
        let none = plan(false, options(4, 2)).unwrap();
        assert_eq!((none.ids(&none.windows[0]), none.has_prefix()), (vec![0, 1, 2, 3], false));
    }

    #[test]
    fn defaults_are_the_models_length_up_to_512_and_half_of_it() {
        let of = |positions| {
            let plan = Plan::new(&[&model(positions), &model(400)], &tokenizer(false), "a b", &options(0, 0)).unwrap();
            (plan.context_length, plan.stride)
        };
        assert_eq!((of(20), of(9999)), ((20, 10), (400, 200)));
        let plan = plan(false, options(0, 0)).unwrap();
        assert_eq!((plan.context_length, plan.stride, plan.windows.len()), (512, 256, 1));
    }

    #[test]
    fn a_text_is_cut_to_the_tokens_that_are_wanted() {
        let text = "c d ".repeat(10_000);
        let options = PerplexityOptions { max_tokens: 1000, ..options(0, 0) };
        let plan = Plan::new(&[&model(600)], &tokenizer(true), &text, &options).unwrap();
        assert_eq!((plan.scored(), plan.bytes), (1000, 1000));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let message = |context, stride| plan(true, options(context, stride)).unwrap_err().to_string();
        assert!(message(601, 0).contains("600"));
        assert!(message(4, 4).contains("at most 3"));
        assert!(message(1, 0).contains("at least 2"));
        let e = Plan::new(&[], &tokenizer(false), "a", &options(0, 0)).unwrap_err().to_string();
        assert!(e.contains("1 tokens"), "{e}");
        assert!(Plan::new(&[], &tokenizer(true), "", &options(0, 0)).is_err());
    }
}
