//! Tests of prompt look-up, of the number of drafted tokens, and of the comparison of vocabularies.

use super::*;
use crate::text::vocabulary::{Tokens, missing};

#[test]
fn look_up_finds_the_longest_match_and_of_these_the_latest() {
    assert_eq!(look_up(&[1, 2, 3, 9, 1, 2], 3), [3, 9, 1]);
    assert_eq!(look_up(&[1, 2, 3, 7, 1, 2, 4, 7, 1, 2], 2), [4, 7]);
    // The match `5 1 2` at the beginning is longer than the later match `1 2`.
    assert_eq!(look_up(&[5, 1, 2, 3, 1, 2, 4, 5, 1, 2], 1), [3]);
    // One equal token is not enough, nor is a text that is its own match.
    assert!(look_up(&[1, 2, 3, 1], 4).is_empty());
    assert!(look_up(&[1, 2], 4).is_empty());
    assert!(look_up(&[], 4).is_empty());
}

#[test]
fn look_up_repeats_a_repeated_text() {
    assert_eq!(look_up(&[7, 8, 7, 8], 5), [7, 8, 7, 8, 7]);
    assert_eq!(look_up(&[3, 3, 3], 4), [3, 3, 3, 3]);
    let long: Vec<i64> = (0..40).chain(0..20).collect();
    assert_eq!(look_up(&long, 3), [20, 21, 22]);
}

#[test]
fn the_number_of_tokens_follows_their_acceptance() {
    let mut pace = Pace::new(8);
    assert_eq!(pace.length(), FIRST);
    pace.learn(4, 4);
    assert_eq!(pace.length(), 8);
    pace.learn(8, 8);
    assert_eq!(pace.length(), 8, "the maximum is kept");
    pace.learn(8, 5);
    assert_eq!(pace.length(), 5);
    pace.learn(5, 0);
    assert_eq!(pace.length(), 2, "one miss is no reason to pause");
    pace.learn(2, 0);
    assert_eq!((pace.length(), pace.length()), (0, 1));
    for pause in [3, 7, LONGEST_PAUSE, LONGEST_PAUSE] {
        pace.learn(1, 0);
        assert!((0..pause).all(|_| pace.length() == 0));
        assert_eq!(pace.length(), 1);
    }
    pace.learn(1, 1);
    assert_eq!(pace.length(), 2);
    assert_eq!(Pace::new(1).length(), 1);
}

#[test]
fn a_vocabulary_that_lacks_a_token_is_found() {
    let tokens = |list: &[(&str, u32)]| list.iter().map(|(token, id)| ((*token).to_owned(), *id)).collect::<Tokens>();
    let (all, some) = (tokens(&[("a", 0), ("b", 1), ("c", 2)]), tokens(&[("a", 0), ("b", 1)]));
    assert_eq!(missing(&all, &some).unwrap(), "id 2 is \"c\" in one, and the other does not have it");
    assert_eq!(missing(&some, &all), None);
}
