//! The comparison of the tokens of two models.

use crate::error::{Context, Result};
use crate::model::Model;
use crate::model::{Card, SideContent};
use crate::text::Tokenizer;
pub use crate::text::vocabulary::difference;

/// The texts on which tokenizers with equal vocabularies are compared, besides texts with the added tokens in which
/// they differ: case, accents, numbers, white space, other scripts and punctuation.
const SAMPLES: [&str; 10] = [
    "The quick brown fox jumps over the lazy dog.",
    "UPPER lower MiXeD, caf\u{e9} na\u{ef}ve \u{c5}ngstr\u{f6}m",
    " leading, trailing ",
    "12 345 6789012 3.14 1,000",
    "it's they'll WE'RE don't",
    "two  spaces\tand\n\nlines\r\nend",
    "\u{4f60}\u{597d}\u{4e16}\u{754c} \u{3053}\u{3093}\u{306b}\u{3061}\u{306f} \u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}",
    "x=f(y)*[z]; // a_b-c@d.e #1 $5 50%",
    "\u{1f600}\u{1f469}\u{200d}\u{1f680} \u{fb01} \u{ff21}\u{ff22}",
    "re\u{301}sume\u{301} \u{2019}quoted\u{2019} \u{2014} \u{2026}",
];

/// The tokenizer of one model (the other), which differs from that of the model it is compared with (the first), and
/// the difference.
pub struct Reading {
    /// Tokenizer of the other model.
    pub tokenizer: Tokenizer,
    /// Description of the first difference of the vocabularies; `None` if they agree.
    pub ids: Option<String>,
    /// Sample text, quoted, that is tokenized differently, if the vocabularies agree; otherwise `None`.
    pub cut: Option<String>,
}

/// Returns the tokenizer of `other` if it differs from that of `model`, or from `given` if `model` has none. `None` if
/// no difference was found, if `other` has no tokenizer, or if there is none to compare it with. Fails if a tokenizer
/// cannot be read.
pub fn reading(model: &Model, other: &Model, given: Option<&Tokenizer>) -> Result<Option<Reading>> {
    if same_files(model.card(), other.card())? {
        return Ok(None);
    }
    let Some(theirs) = Tokenizer::of(other)? else { return Ok(None) };
    let own = Tokenizer::of(model)?;
    let Some(base) = own.as_ref().or(given) else { return Ok(None) };
    let found = compare(base, &theirs)?;
    Ok(found.map(|(ids, cut)| Reading { tokenizer: theirs, ids, cut }))
}

/// Returns the first difference of two tokenizers, as text: either a difference of the vocabularies (first element, see
/// [`difference`]), or a sample that they tokenize differently (second element). `None` if no difference was found.
/// This function never fails.
pub fn compare(a: &Tokenizer, b: &Tokenizer) -> Result<Option<(Option<String>, Option<String>)>> {
    if let Some(how) = difference(&a.tokens(), &b.tokens()) {
        return Ok(Some((Some(how), None)));
    }
    let added = a.unlike_added_tokens(b).into_iter().map(|text| format!("a{text} {text} b{text}c"));
    for sample in SAMPLES.into_iter().map(str::to_owned).chain(added) {
        // A tokenizer without an unknown token cannot read every sample.
        let (left, right) = (a.encode(&sample, true).ok(), b.encode(&sample, true).ok());
        if left.map(|e| e.ids) != right.map(|e| e.ids) {
            return Ok(Some((None, Some(format!("{sample:?}")))));
        }
    }
    Ok(None)
}

/// Returns whether two models have the same tokenizer files; also if neither has any. Fails if a file cannot be read.
pub fn same_files(a: &Card, b: &Card) -> Result<bool> {
    for name in crate::text::TOKENIZER_FILES {
        let (left, right) = (a.side_file(name), b.side_file(name));
        let same = match (left, right) {
            (None, None) => true,
            (Some(SideContent::Path(left)), Some(SideContent::Path(right))) if left == right => true,
            (Some(left), Some(right)) => left.read().at(|| name)? == right.read().at(|| name)?,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
