//! Conversion of the scores of tokens to spans of a text, by the strategies of the token classification pipeline of
//! transformers.

use super::labels::Tag;
use crate::choice::choice;
use std::ops::Range;

choice! {
    /// The strategy by which tokens become spans.
    ///
    /// Except with `none`, adjacent tokens or words of one class form one span, unless a prefix of a label (`B-`; `L-`,
    /// `E-`, `U-` or `S-` of BILOU and BIOES) begins a new entity or ends the one before. A word is a token and the
    /// tokens after it that the tokenizer marks as continuations (`##`); without such marks, a word begins at a space.
    pub enum Aggregation: optimize_aggregation_t = Simple {
        /// Adjacent tokens of one class become a span, whose score is the mean of their scores.
        Simple = 0, "simple";
        /// Each token is a span, with its label unchanged.
        None = 1, "none";
        /// A word has the class of its first token; adjacent words of one class become a span.
        First = 2, "first";
        /// A word has the class with the highest mean score over its tokens.
        Average = 3, "average";
        /// A word has the class of its token with the highest score.
        Max = 4, "max";
    }
}

/// A part of a text with a label.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Range of the span's bytes in the text.
    pub bytes: Range<usize>,
    /// The class of the entity, for example `PER`; with [`Aggregation::None`] the label of the token, for example
    /// `B-PER`.
    pub label: String,
    /// Probability of the label: the mean over the tokens or words of the span.
    pub score: f32,
}

/// A token with the probabilities of its labels.
#[derive(Debug, Clone)]
pub struct Scored {
    /// Range of the token's bytes in the text.
    pub bytes: Range<usize>,
    /// Whether the token is a part of the word of the token before it.
    pub continues_word: bool,
    /// Probability of each label; empty if no window contains the token.
    pub scores: Vec<f32>,
}

/// A token or word with its label.
struct Labelled {
    bytes: Range<usize>,
    tag: usize,
    score: f32,
}

/// Returns the spans of a text. `tags` describes the labels by index. Spans with the label `O` are omitted unless
/// `keep_outside` is set.
pub fn spans(tokens: &[Scored], tags: &[Tag], aggregation: Aggregation, keep_outside: bool) -> Vec<Span> {
    let one = |token: &Scored| {
        let (tag, score) = best(&token.scores);
        Labelled { bytes: token.bytes.clone(), tag, score }
    };
    let labelled: Vec<Labelled> = match aggregation {
        Aggregation::None | Aggregation::Simple => tokens.iter().map(one).collect(),
        _ => words(tokens).map(|word| of_word(word, aggregation)).collect(),
    };
    let wanted = |tag: usize| keep_outside || !tags[tag].is_outside();
    if aggregation == Aggregation::None {
        let span =
            |token: Labelled| Span { bytes: token.bytes, label: tags[token.tag].label.clone(), score: token.score };
        return labelled.into_iter().filter(|token| wanted(token.tag)).map(span).collect();
    }
    let groups = labelled.chunk_by(|before, token| tags[token.tag].continues(&tags[before.tag]));
    let span = |group: &[Labelled]| {
        let sum: f64 = group.iter().map(|part| f64::from(part.score)).sum();
        Span {
            bytes: group[0].bytes.start..group[group.len() - 1].bytes.end,
            label: tags[group[0].tag].class.clone(),
            score: (sum / group.len() as f64) as f32,
        }
    };
    groups.filter(|group| wanted(group[0].tag)).map(span).collect()
}

/// Returns an iterator over the words of a text, each as the slice of its tokens.
fn words(tokens: &[Scored]) -> impl Iterator<Item = &[Scored]> {
    tokens.chunk_by(|_, token| token.continues_word)
}

/// Returns a word with the label that `aggregation` (`First`, `Average` or `Max`) selects, and the score of the label.
fn of_word(word: &[Scored], aggregation: Aggregation) -> Labelled {
    let (tag, score) = match aggregation {
        Aggregation::Average => best(&mean(word)),
        Aggregation::Max => {
            let bests = word.iter().map(|token| best(&token.scores));
            bests.reduce(|highest, next| if next.1 > highest.1 { next } else { highest }).unwrap_or((0, 0.0))
        }
        _ => best(&word[0].scores),
    };
    Labelled { bytes: word[0].bytes.start..word[word.len() - 1].bytes.end, tag, score }
}

/// Returns the mean of each score over the tokens of a word.
fn mean(word: &[Scored]) -> Vec<f32> {
    let sum = |label: usize| word.iter().map(|token| f64::from(token.scores[label])).sum::<f64>();
    (0..word[0].scores.len()).map(|label| (sum(label) / word.len() as f64) as f32).collect()
}

/// Returns the index of the highest score (the first of equal ones) and the score.
fn best(scores: &[f32]) -> (usize, f32) {
    let enumerated = scores.iter().copied().enumerate();
    enumerated.reduce(|highest, next| if next.1 > highest.1 { next } else { highest }).unwrap_or((0, 0.0))
}

#[cfg(test)]
mod tests {
    use super::super::labels::tags;
    use super::*;

    /// The example of the documentation of transformers: micro|soft| com|pany.
    fn example() -> (Vec<Scored>, Vec<Tag>) {
        let labels = ["O", "B-ENT", "I-NAME", "I-ENT"].map(str::to_owned);
        let token = |bytes: Range<usize>, continues_word, scores: [f32; 4]| Scored {
            bytes,
            continues_word,
            scores: scores.to_vec(),
        };
        let tokens = vec![
            token(0..5, false, [0.1, 0.6, 0.2, 0.1]),
            token(5..9, true, [0.0, 0.1, 0.8, 0.1]),
            token(10..13, false, [0.1, 0.1, 0.1, 0.7]),
            token(13..17, true, [0.5, 0.1, 0.1, 0.3]),
        ];
        (tokens, tags(&labels))
    }

    #[test]
    fn words_have_the_label_that_the_strategy_selects() {
        let (tokens, tags) = example();
        let of = |aggregation, outside| {
            let found = spans(&tokens, &tags, aggregation, outside);
            found.into_iter().map(|s| (s.bytes, s.label, (s.score * 100.0).round() as i32)).collect::<Vec<_>>()
        };
        let entry = |bytes, label: &str, percent| (bytes, label.to_owned(), percent);
        let none = [entry(0..5, "B-ENT", 60), entry(5..9, "I-NAME", 80), entry(10..13, "I-ENT", 70)];
        assert_eq!(of(Aggregation::None, false), none);
        assert_eq!(of(Aggregation::None, true)[3], entry(13..17, "O", 50));
        let simple = [entry(0..5, "ENT", 60), entry(5..9, "NAME", 80), entry(10..13, "ENT", 70)];
        assert_eq!(of(Aggregation::Simple, false), simple);
        assert_eq!(of(Aggregation::First, false), [entry(0..17, "ENT", 65)]);
        assert_eq!(of(Aggregation::Average, false), [entry(0..9, "NAME", 50), entry(10..17, "ENT", 50)]);
        assert_eq!(of(Aggregation::Max, false), [entry(0..9, "NAME", 80), entry(10..17, "ENT", 70)]);
        assert!(spans(&[], &tags, Aggregation::Max, true).is_empty());
    }
}
