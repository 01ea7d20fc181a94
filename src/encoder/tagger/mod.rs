//! A tagger that computes labelled spans of texts ([`Tagger`]): token classification, such as named entities and parts
//! of speech.

mod aggregate;
mod labels;

use super::outputs::{is_scores, logits_in, no_logits};
use super::{TextOptions, tokenizer_of};
use crate::call::{Call, Stage, Units};
use crate::error::{Context, Result, bail};
use crate::inputs::{InputOptions, Source, token_limit};
use crate::likelihood::log_sum_exp;
use crate::model::Model;
use crate::runtime::{Placement, Runtime, Session, Stop, Tensor};
use crate::text::{Tokenizer, Window, Windows};
use aggregate::Scored;
use labels::Tag;
use std::sync::Arc;

pub use aggregate::{Aggregation, Span};

/// The options of a [`Tagger`].
#[derive(Debug, Clone, Default)]
pub struct TaggerOptions {
    /// Length and number of the windows in a run, and options of the session. `max_length` is the maximum length of a
    /// window in tokens: a longer text is divided into overlapping windows.
    pub text: TextOptions,
    /// Strategy by which tokens become spans.
    pub aggregation: Aggregation,
    /// Number of tokens by which the windows of a long text overlap; 0 selects a quarter of a window.
    pub stride: usize,
    /// Whether spans with the label `O`, which belong to no entity, are also returned.
    pub keep_outside: bool,
}

/// A model that computes labelled spans of texts. Any number of threads may use it at the same time.
pub struct Tagger {
    model: Model,
    tokenizer: Arc<Tokenizer>,
    session: Session,
    options: TaggerOptions,
    /// Maximum length of a window in tokens.
    length: usize,
    output: String,
    /// Whether the output contains probabilities, and not logits.
    scored: bool,
    tags: Vec<Tag>,
}

/// The result for a token: its distance in tokens from the nearer end of its window at which the text was divided
/// (`usize::MAX` if there is no such end), and the probabilities of its labels. `None` if no window was read that
/// contains the token.
type Read = Option<(usize, Vec<f32>)>;

impl Tagger {
    /// Loads a model for token classification and returns the tagger. `tokenizer` replaces the model's own.
    ///
    /// Fails with [`crate::error::Kind::Unsupported`] if the model has no output with logits for each token or if its
    /// configuration does not name all labels, and with `NotFound` if there is no tokenizer. Fails with
    /// `InvalidArgument` if `max_length` exceeds the positions of the model or leaves no room for a text, or if
    /// `stride` is not shorter than a window, and otherwise like [`Session::new`].
    pub fn new(
        runtime: &'static Runtime,
        model: &Model,
        tokenizer: Option<Arc<Tokenizer>>,
        options: &TaggerOptions,
        call: &Call,
    ) -> Result<Tagger> {
        let output = logits_in(model, 3).ok_or_else(|| no_logits(model, "three", "token classifiers"))?;
        let tokenizer = tokenizer_of(model, tokenizer)?;
        let length = options.text.length(model)?.min(token_limit(model).unwrap_or(usize::MAX));
        // The options are checked before the session is created, which takes longer.
        tokenizer.windows("", length, options.overlap())?;
        let named = model.card().class_names();
        let count = named.iter().map(|(index, _)| index + 1).max().unwrap_or(0);
        if count == 0 || count != named.len() {
            bail!(Unsupported, "the configuration of the model does not name all labels of tokens (id2label)");
        }
        let label = |index| named.iter().find(|(known, _)| *known == index).map_or("", |(_, name)| name).to_owned();
        let tags = labels::tags(&(0..count).map(label).collect::<Vec<String>>());
        let session = Session::new(runtime, model, &options.text.session(), call)?;
        let (scored, options) = (is_scores(model, &output), options.clone());
        Ok(Tagger { model: model.clone(), tokenizer, session, options, length, output, scored, tags })
    }

    /// Returns the labels of tokens by index (`id2label`).
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(|tag| tag.label.as_str())
    }

    /// Returns the spans of each text, in the order of the texts. A text without tokens has no spans.
    ///
    /// A text that is longer than a window is divided into overlapping windows. Each of its tokens has the label from
    /// the window in which it is furthest from an end at which the text was divided. Progress stage: `tag`, in texts.
    /// Fails with [`crate::error::Kind::InvalidArgument`] if `texts` is empty; `Runtime` if a logit is NaN;
    /// `Unsupported` or `InvalidModel` if the logits do not have the shape `[texts, tokens, labels]`; and otherwise
    /// like [`Tokenizer::encode`] and [`Session::run`].
    pub fn tag<T: AsRef<str>>(&self, texts: &[T], call: &Call) -> Result<Vec<Vec<Span>>> {
        if texts.is_empty() {
            bail!(InvalidArgument, "there is no text");
        }
        let read = |(index, text): (usize, &T)| {
            let windows = self.tokenizer.windows(text.as_ref(), self.length, self.options.overlap());
            windows.at(|| format!("text {}", index + 1))
        };
        let read: Vec<Windows> = texts.iter().enumerate().map(read).collect::<Result<_>>()?;
        let mut units = Units::new(call, Stage::TAG, texts.len());
        let scores = self.scores(&read, &mut units)?;
        let spans = |((text, windows), scores): ((&T, Windows), Vec<Read>)| {
            let token = |(token, read): (crate::text::Token, Read)| {
                let (bytes, continues_word) = (token.bytes, token.continues_word);
                Scored { bytes, continues_word, scores: read.map(|(_, scores)| scores).unwrap_or_default() }
            };
            let tokens: Vec<Scored> = windows.tokens.into_iter().zip(scores).map(token).collect();
            let (aggregation, outside) = (self.options.aggregation, self.options.keep_outside);
            let spans = aggregate::spans(&tokens, &self.tags, aggregation, outside);
            spans.into_iter().map(|span| trimmed(span, text.as_ref())).collect()
        };
        Ok(texts.iter().zip(read).zip(scores).map(spans).collect())
    }

    /// Returns the provider and the device on which the model runs.
    pub fn placement(&self) -> &Placement {
        self.session.placement()
    }

    /// Returns the probabilities of the labels of each token of each text.
    fn scores(&self, texts: &[Windows], units: &mut Units<'_>) -> Result<Vec<Vec<Read>>> {
        let mut scores: Vec<Vec<Read>> = texts.iter().map(|text| vec![None; text.tokens.len()]).collect();
        // Windows of similar length are run together, so that they are padded little.
        let mut order: Vec<(usize, &Window)> =
            texts.iter().enumerate().flat_map(|(text, read)| read.windows.iter().map(move |w| (text, w))).collect();
        order.sort_by_key(|(_, window)| window.places.len());
        if order.is_empty() {
            units.add(texts.len())?;
            return Ok(scores);
        }
        let encodings = order.iter().map(|(_, window)| window.encoding.clone()).collect();
        let options = InputOptions { encodings, batch_size: self.options.text.batch_size, ..InputOptions::default() };
        let source = Source::new(&self.model, Some(&self.tokenizer), &options)?.up_to(self.length);
        let (stop, mut done) = (Stop::new()?, 0);
        stop.during(&units.quiet(), || {
            for index in 0..source.count() {
                let set = source.set(index)?;
                let (_, tensor) = self.session.run_until(&set.feed(), &[&self.output], &stop)?.remove(0);
                let logits = self.rows(&tensor, set.samples).at(|| format!("output {:?}", self.output))?;
                for (logits, (text, window)) in logits.iter().zip(&order[done..]) {
                    read_window(&mut scores[*text], window, logits, self.tags.len(), self.scored);
                }
                done += set.samples;
                units.add(texts.len() * done / order.len() - texts.len() * (done - set.samples) / order.len())?;
            }
            Ok(())
        })?;
        Ok(scores)
    }

    /// Returns the logits of each of the first `samples` windows, token by token.
    fn rows(&self, tensor: &Tensor, samples: usize) -> Result<Vec<Vec<f32>>> {
        let labels = self.tags.len();
        let &[rows, tokens, width] = tensor.shape() else {
            bail!(Unsupported, "has shape {:?}, not [texts, tokens, labels]", tensor.shape());
        };
        if (rows as usize) < samples || width != labels as i64 {
            bail!(InvalidModel, "has shape {:?} for {samples} texts and {labels} labels", tensor.shape());
        }
        let values = tensor.to_f32_vec()?;
        if values.iter().any(|value| value.is_nan()) {
            bail!(Runtime, "has a value that is not a number");
        }
        let each = (tokens as usize * labels).max(1);
        Ok(values.chunks_exact(each).take(samples).map(<[f32]>::to_vec).collect())
    }
}

impl TaggerOptions {
    fn overlap(&self) -> Option<usize> {
        (self.stride > 0).then_some(self.stride)
    }
}

/// Records the probabilities of those tokens of a window that are further from the ends at which the text was divided
/// than in the windows read before. With `scored`, the logits are probabilities already.
fn read_window(scores: &mut [Read], window: &Window, logits: &[f32], labels: usize, scored: bool) {
    let places = || window.places.iter().flatten().copied();
    let (Some(first), Some(last)) = (places().min(), places().max()) else { return };
    let (begins, ends) = (first == 0, last + 1 == scores.len());
    for (row, place) in logits.chunks_exact(labels).zip(&window.places) {
        let Some(place) = *place else { continue };
        let left = if begins { usize::MAX } else { place - first };
        let right = if ends { usize::MAX } else { last - place };
        let around = left.min(right);
        if scores[place].as_ref().is_none_or(|(before, _)| around > *before) {
            let norm = log_sum_exp(row);
            let probability = |x: &f32| if scored { *x } else { (f64::from(*x) - norm).exp() as f32 };
            scores[place] = Some((around, row.iter().map(probability).collect()));
        }
    }
}

/// Returns a span without the white space at its ends, which some tokenizers count as a part of a word. A span of only
/// white space is returned unchanged.
fn trimmed(span: Span, text: &str) -> Span {
    let Some(part) = text.get(span.bytes.clone()).filter(|part| !part.trim().is_empty()) else { return span };
    let start = span.bytes.start + part.len() - part.trim_start().len();
    Span { bytes: start..start + part.trim().len(), ..span }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Encoding;

    fn window(places: std::ops::Range<usize>) -> Window {
        let mut all = vec![None];
        all.extend(places.map(Some));
        all.push(None);
        Window { encoding: Encoding::default(), places: all }
    }

    #[test]
    fn a_token_has_the_label_of_the_window_with_most_text_around_it() {
        // Two labels; the first window sees label 0 everywhere, the second label 1.
        let logits = |window: &Window, label: usize| {
            let row: [f32; 2] = if label == 0 { [9.0, 0.0] } else { [0.0, 9.0] };
            row.repeat(window.places.len())
        };
        let mut scores: Vec<Read> = vec![None; 10];
        for (range, label) in [(0..6, 0), (3..10, 1)] {
            let window = window(range);
            read_window(&mut scores, &window, &logits(&window, label), 2, false);
        }
        let labels: Vec<usize> = scores.iter().map(|read| usize::from(read.as_ref().unwrap().1[1] > 0.5)).collect();
        // Token 4 is one token from an edge in both windows: the first one stays.
        assert_eq!(labels, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn probabilities_of_the_graph_are_not_changed() {
        let read = |scored| {
            let mut scores: Vec<Read> = vec![None];
            read_window(&mut scores, &window(0..1), &[0.0, 0.0, 0.9, 0.1, 0.0, 0.0], 2, scored);
            scores[0].take().unwrap().1
        };
        assert_eq!(read(true), [0.9, 0.1]);
        assert!((read(false)[0] - 0.69).abs() < 1e-3, "softmax(0.9, 0.1)");
    }

    #[test]
    fn spans_begin_and_end_with_letters() {
        let span = |bytes| Span { bytes, label: "PER".into(), score: 1.0 };
        assert_eq!(trimmed(span(2..9), "Je jean  à").bytes, 3..7);
        assert_eq!(trimmed(span(0..2), "  ").bytes, 0..2);
    }
}
