//! Whether members speak of the same tokens.

use super::{Member, place};
use crate::error::{Context, Result, bail};
use crate::model::{Dim, Model};
use crate::text::{Decoder, Tokenizer};
use std::collections::HashMap;

/// Where no tokenizer says more, a vocabulary this many times as large as another may be the same with padding less.
const PADDED: f64 = 0.95;

/// How the members' vocabularies stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vocabularies {
    /// The same tokens under the same ids. `Some`: one vocabulary or row of logits is longer than the shortest; what is
    /// beyond is padding or tokens that the others lack, and is cut. The words say so.
    Same(Option<String>),
    /// Different tokens; the words name the first.
    Different(String),
}

impl Vocabularies {
    /// What the caller should be told.
    pub fn note(&self) -> Option<String> {
        match self {
            Vocabularies::Same(note) => note.clone(),
            Vocabularies::Different(how) => {
                Some(format!("{how}: the members are combined by the text of their tokens"))
            }
        }
    }
}

/// Tokens and their ids.
type Tokens = HashMap<String, u32>;

/// Compares what the members' tokenizers know, and how many logits they give.
///
/// [`crate::error::Kind::InvalidArgument`] if they differ in the ids that all of them have and that is not `allowed`.
pub fn compare(members: &[Member], allowed: bool) -> Result<Vocabularies> {
    let mut tokens: Vec<Option<Tokens>> = Vec::with_capacity(members.len());
    for (index, member) in members.iter().enumerate() {
        // The same model again needs no second reading.
        let same = members[..index].iter().position(|other| other.model.same_as(&member.model));
        tokens.push(match same {
            Some(same) => tokens[same].clone(),
            None => Tokenizer::of(&member.model).at(|| place(index))?.map(|tokenizer| tokenizer.tokens()),
        });
    }
    let known: Vec<(usize, &Tokens)> = tokens.iter().enumerate().filter_map(|(i, t)| Some((i, t.as_ref()?))).collect();
    let mut notes = Vec::new();
    for (index, other) in known.iter().skip(1) {
        let (first, base) = known[0];
        if let Some(how) = difference(base, other) {
            let how = format!("{} and {} have different vocabularies: {how}", place(first), place(*index));
            if allowed {
                return Ok(Vocabularies::Different(how));
            }
            bail!(
                InvalidArgument,
                "{how}. Their distributions cannot be added token by token; to combine them by the text that tokens \
                 stand for, allow different vocabularies"
            );
        }
        if base.len() != other.len() {
            notes.push(format!("{} knows {} tokens, {} {}", place(first), base.len(), place(*index), other.len()));
        }
    }
    let widths: Vec<Option<i64>> = members.iter().map(|member| width(&member.model)).collect();
    let least = widths.iter().flatten().min();
    if let (Some(least), Some(most)) = (least, widths.iter().flatten().max())
        && known.len() < members.len()
        && (*least as f64) < PADDED * *most as f64
    {
        bail!(
            InvalidArgument,
            "a member gives {most} logits, another {least}, and not all have a tokenizer.json that would say whether \
             they speak of the same tokens"
        );
    }
    for (index, width) in widths.iter().enumerate() {
        if let (Some(width), Some(least)) = (width, least)
            && width > least
        {
            notes.push(format!("{} gives {width} logits, of which the first {least} are used", place(index)));
        }
    }
    Ok(Vocabularies::Same((!notes.is_empty()).then(|| notes.join("; "))))
}

/// The first id that two vocabularies give to different tokens, in words; `None` if one is the beginning of the other.
fn difference(a: &Tokens, b: &Tokens) -> Option<String> {
    let by_id =
        |tokens: &Tokens| -> HashMap<u32, String> { tokens.iter().map(|(token, id)| (*id, token.clone())).collect() };
    let (a, b) = (by_id(a), by_id(b));
    let end = a.keys().max().min(b.keys().max()).map_or(0, |last| last + 1);
    let id = (0..end).find(|id| a.get(id) != b.get(id))?;
    let shown = |tokens: &HashMap<u32, String>| tokens.get(&id).map_or("nothing".to_owned(), |t| format!("{t:?}"));
    Some(format!("id {id} is {} in one and {} in the other", shown(&a), shown(&b)))
}

/// Logits of a model, if its graph says how many.
fn width(model: &Model) -> Option<i64> {
    let logits = Decoder::of(model).ok()?.logits;
    let output = model.outputs().into_iter().find(|output| output.name == logits)?;
    match output.shape?.last()? {
        Dim::Fixed(width) => Some(*width),
        Dim::Symbolic(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_are_the_same_up_to_the_shorter_end() {
        let tokens = |words: &[&str]| words.iter().enumerate().map(|(i, w)| ((*w).to_owned(), i as u32)).collect();
        let base: Tokens = tokens(&["a", "b", "c"]);
        assert_eq!(difference(&base, &base), None);
        assert_eq!(difference(&base, &tokens(&["a", "b", "c", "d"])), None);
        let how = difference(&base, &tokens(&["a", "x", "c", "d"])).unwrap();
        assert_eq!(how, "id 1 is \"b\" in one and \"x\" in the other");
    }
}
