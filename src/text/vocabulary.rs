//! The comparison of two vocabularies: the tokens of each id.

use std::collections::{BTreeMap, HashMap, HashSet};

/// The tokens of a vocabulary with their ids.
pub type Tokens = HashMap<String, u32>;

/// Returns a description of the first id that two vocabularies assign to different tokens, or of the first token with
/// different ids, or that they have no token in common; `None` if there is no such difference.
///
/// A token that only one of them has is not a difference: the other never outputs its id, or has no token for it.
pub fn difference(a: &Tokens, b: &Tokens) -> Option<String> {
    let (ids, others) = (by_id(a), by_id(b));
    let quoted = |tokens: &[&str]| tokens.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" or ");
    let clash = ids.iter().find_map(|(id, tokens)| {
        let theirs = others.get(id).filter(|theirs| !tokens.iter().any(|token| theirs.contains(token)))?;
        Some((*id, format!("id {id} is {} in one and {} in the other", quoted(tokens), quoted(theirs))))
    });
    let moved = ids.iter().find_map(|(id, tokens)| {
        let token = tokens.iter().find(|token| b.get(**token).is_some_and(|other| other != id))?;
        Some((*id, format!("{token:?} is id {id} in one and {} in the other", b[*token])))
    });
    let first = match (clash, moved) {
        (Some(clash), Some(moved)) if moved.0 < clash.0 => Some(moved),
        (clash, moved) => clash.or(moved),
    };
    let apart = || !a.is_empty() && !b.is_empty() && !a.keys().any(|token| b.contains_key(token));
    first.map(|(_, how)| how).or_else(|| apart().then(|| "the vocabularies have no token in common".to_owned()))
}

/// Returns the tokens of each id; some tokenizers assign one id to several tokens.
fn by_id(tokens: &Tokens) -> BTreeMap<u32, Vec<&str>> {
    let mut found: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    tokens.iter().for_each(|(token, id)| found.entry(*id).or_default().push(token));
    found.values_mut().for_each(|tokens| tokens.sort_unstable());
    found
}

/// Returns a description of the first token of `a` whose id `b` does not have; `None` if `b` has all ids of `a`.
pub fn missing(a: &Tokens, b: &Tokens) -> Option<String> {
    let known: HashSet<u32> = b.values().copied().collect();
    let first = a.iter().filter(|(_, id)| !known.contains(id)).min_by_key(|(token, id)| (**id, token.as_str()))?;
    Some(format!("id {} is {:?} in one, and the other does not have it", first.1, first.0))
}
