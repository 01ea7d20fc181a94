//! The comparison of the members' vocabularies.

use super::{Member, place};
use crate::error::{Context, Result, bail};
use crate::inputs::Role;
use crate::meaning::tokens;
use crate::model::Task;
use crate::text::{Decoder, Tokenizer};
use std::sync::Arc;

/// The minimum ratio of the sizes of two vocabularies that may be equal except for padding, if there is no tokenizer.
const PADDED: f64 = 0.95;

/// The relation of the members' vocabularies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vocabularies {
    /// The members have the same tokens with the same ids, as far as all of them have these ids. The text, if there is
    /// one, explains differences that are ignored: a vocabulary or row of logits that is longer than the shortest,
    /// texts that are split differently, or a member without a tokenizer.
    Same(Option<String>),
    /// The members have different tokens; the text names the first.
    Different(String),
}

impl Vocabularies {
    /// Returns the note for the caller; `None` if there is none.
    pub fn note(&self) -> Option<String> {
        match self {
            Vocabularies::Same(note) => note.clone(),
            Vocabularies::Different(how) => {
                Some(format!("{how}: the members are combined by the text of their tokens"))
            }
        }
    }
}

/// Returns the relation of the members' tokenizers and of their numbers of logits.
///
/// Fails with [`crate::error::Kind::InvalidArgument`] if the tokens of ids that all members have differ, unless the
/// members generate text and different vocabularies are `allowed`. Fails also if the numbers of logits differ by more
/// than padding, and a member has no tokenizer.
pub fn compare(members: &[Member], task: Task, allowed: bool) -> Result<Vocabularies> {
    let writes = task == Task::Generate;
    if !writes && !members.iter().any(|member| Role::ids(&member.model.inputs()).is_some()) {
        return Ok(Vocabularies::Same(None));
    }
    let mut tokenizers: Vec<Option<Arc<Tokenizer>>> = Vec::with_capacity(members.len());
    for (index, member) in members.iter().enumerate() {
        // Members with the same tokenizer files share one tokenizer.
        let mut same = None;
        for (place, other) in members[..index].iter().enumerate() {
            if same.is_none() && tokens::same_files(other.model.card(), member.model.card())? {
                same = Some(place);
            }
        }
        tokenizers.push(match same {
            Some(same) => tokenizers[same].clone(),
            None => Tokenizer::of(&member.model).at(|| place(index))?.map(Arc::new),
        });
    }
    let known: Vec<(usize, &Arc<Tokenizer>)> =
        tokenizers.iter().enumerate().filter_map(|(index, tokenizer)| Some((index, tokenizer.as_ref()?))).collect();
    let mut notes = Vec::new();
    for (index, other) in known.iter().skip(1).filter(|(_, other)| !Arc::ptr_eq(other, known[0].1)) {
        let (first, base) = known[0];
        match tokens::compare(base, other)? {
            Some((Some(how), _)) => {
                let how = format!("{} and {} have different vocabularies: {how}", place(first), place(*index));
                if allowed && writes {
                    return Ok(Vocabularies::Different(how));
                }
                refuse(&how, writes)?;
            }
            Some((None, Some(text))) => notes.push(format!(
                "{} splits texts differently from {}, whose tokenizer is used; for example {text}",
                place(*index),
                place(first)
            )),
            _ => {}
        }
        let (size, of_other) = (base.vocabulary_size(), other.vocabulary_size());
        if writes && size != of_other {
            notes.push(format!("{} has {size} tokens, but {} has {of_other}", place(first), place(*index)));
        }
    }
    if let Some((first, _)) = known.first() {
        let without = tokenizers.iter().enumerate().filter(|(_, tokenizer)| tokenizer.is_none());
        notes.extend(
            without.map(|(index, _)| {
                format!("{} has no tokenizer and reads the tokens of {}", place(index), place(*first))
            }),
        );
    }
    if writes {
        widths(members, known.len() == members.len(), &mut notes)?;
    }
    Ok(Vocabularies::Same((!notes.is_empty()).then(|| notes.join("; "))))
}

fn refuse(how: &str, writes: bool) -> Result<()> {
    if writes {
        bail!(
            InvalidArgument,
            "{how}. Their distributions cannot be combined token by token; allow different vocabularies to combine \
             them by the text of tokens"
        );
    }
    bail!(InvalidArgument, "{how}. All members read the same ids, so their vocabularies must be equal")
}

/// Fails if the members have different numbers of logits and that is not padding; adds notes.
fn widths(members: &[Member], all_known: bool, notes: &mut Vec<String>) -> Result<()> {
    let width = |member: &Member| Decoder::of(&member.model).ok()?.vocabulary;
    let widths: Vec<Option<usize>> = members.iter().map(width).collect();
    let least = widths.iter().flatten().min();
    if let (Some(least), Some(most)) = (least, widths.iter().flatten().max())
        && !all_known
        && (*least as f64) < PADDED * *most as f64
    {
        bail!(
            InvalidArgument,
            "one member has {most} logits and another {least}, and their tokens cannot be compared, because not all \
             members have a tokenizer.json"
        );
    }
    for (index, width) in widths.iter().enumerate() {
        if let (Some(width), Some(least)) = (width, least)
            && width > least
        {
            notes.push(format!("{} has {width} logits, of which the first {least} are used", place(index)));
        }
    }
    Ok(())
}
