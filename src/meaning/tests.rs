//! Tests of random orders of classes and of random vocabularies.

use super::classes::{Order, inverse, permuted, reordered};
use super::tokens::{compare, difference};
use crate::call::Call;
use crate::model::{Card, Model};
use crate::runtime::testing::{graph, model, node, value};
use crate::runtime::{Session, SessionOptions, Tensor, test_runtime};
use crate::statistics::Random;
use crate::text::vocabulary::Tokens;
use serde_json::{Map, Value};

fn cases() -> usize {
    std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

fn card(names: &[String]) -> Card {
    let map: Map<String, Value> =
        names.iter().enumerate().map(|(index, name)| (index.to_string(), Value::from(name.clone()))).collect();
    let mut card = Card::default();
    card.config.insert("id2label".to_owned(), Value::Object(map));
    card
}

fn order(a: &[String], b: &[String]) -> Order {
    Order::of(&card(a), &card(b), "member 1", "member 2")
}

#[test]
fn classes_in_any_order_are_found_by_their_names() {
    let mut random = Random::new(1);
    for _ in 0..cases() {
        // There may be more than ten classes: in text order, "10" would come before "2".
        let count = 2 + random.index(14);
        let names: Vec<String> = (0..count).map(|class| format!("Class {class} of {}", random.index(9))).collect();
        let mut places: Vec<usize> = (0..count).collect();
        random.shuffle(&mut places);
        let shown = |class: &usize| match class % 3 {
            0 => names[*class].to_uppercase(),
            _ => names[*class].clone(),
        };
        let other: Vec<String> = places.iter().map(shown).collect();
        let mapping = order(&names, &other).mapping().unwrap();
        let found = mapping.clone().unwrap_or_else(|| (0..count).collect());
        assert!((0..count).all(|class| other[found[class]].to_lowercase() == names[class].to_lowercase()));
        assert_eq!(mapping.is_none(), places.is_sorted());
        assert!(inverse(&found).iter().enumerate().all(|(of_other, class)| found[*class] == of_other));
        let row: Vec<f32> = (0..count).map(|class| places[class] as f32).collect();
        let row = permuted(&Tensor::from_f32(&[1, count as i64], row).unwrap(), &found).unwrap();
        assert!(row.to_f32_vec().unwrap().is_sorted());
        // With a single unknown name, the classes are different ones.
        let mut strange = other.clone();
        strange[random.index(count)] = "something else".to_owned();
        let e = order(&names, &strange).mapping().unwrap_err().to_string();
        assert!(e.contains("id2label") && (count > 12 || e.contains("something else")), "{e}");
    }
    println!("{} orders", cases());
}

#[test]
fn names_that_say_nothing_are_no_order() {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let (named, generic) = (list(&["neg", "pos"]), list(&["LABEL_0", "LABEL_1"]));
    assert_eq!(order(&generic, &list(&["0", "1"])), Order::Same);
    for unnamed in [&generic, &list(&["a", "a"]), &Vec::new()] {
        let note = order(&named, unnamed).note("", "").unwrap();
        assert!(note.contains("the classes of member 2 have no names"), "{note}");
        assert!(order(unnamed, &named).mapping().unwrap().is_none());
    }
    // If the names are numbers in another order, the order is meaningful.
    assert_eq!(order(&list(&["LABEL_1", "LABEL_0"]), &list(&["LABEL_1", "LABEL_0"])), Order::Same);
    assert!(matches!(order(&named, &list(&["neg", "neu", "pos"])), Order::Different(_)));
    assert_eq!(order(&list(&["a"]), &list(&["b"])), Order::Same);
}

#[test]
fn a_model_with_its_classes_in_another_order_gives_them_so() {
    // Another node reads the output as well, and must see the original.
    let nodes = vec![node("Identity", &["x"], "logits"), node("Neg", &["logits"], "other")];
    let of = |name: &str| value(name, 1, &["1", "3"]);
    let model = Model::from_proto(model(graph(nodes, vec![of("x")], vec![of("logits"), of("other")])));
    let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    let transposed = reordered(&model.with_card(card(&names)), "logits", &[2, 0, 1]).unwrap();
    assert_eq!(transposed.card().config["id2label"]["0"], "c");
    let session = Session::new(test_runtime(), &transposed, &SessionOptions::default(), &Call::default()).unwrap();
    let x = Tensor::from_f32(&[1, 3], vec![1.0, 2.0, 3.0]).unwrap();
    let out = session.run(&[("x", &x)], &["logits", "other"], &Call::default()).unwrap();
    assert_eq!(out[0].1.to_f32_vec().unwrap(), [3.0, 1.0, 2.0]);
    assert_eq!(out[1].1.to_f32_vec().unwrap(), [-1.0, -2.0, -3.0]);
    assert!(reordered(&transposed, "logits", &[0, 1]).is_err());
}

#[test]
fn vocabularies_differ_where_an_id_means_another_token() {
    let tokens = |words: &[&str]| words.iter().enumerate().map(|(i, w)| ((*w).to_owned(), i as u32)).collect();
    let base: Tokens = tokens(&["a", "b", "c"]);
    assert_eq!(difference(&base, &base), None);
    // A token that only one model has is padding for the other, at the end or in between.
    assert_eq!(difference(&base, &tokens(&["a", "b", "c", "d"])), None);
    let hole: Tokens = [("a", 0), ("c", 2), ("d", 7)].map(|(token, id)| (token.to_owned(), id)).into();
    assert_eq!(difference(&base, &hole), None);
    let how = difference(&base, &tokens(&["a", "x", "c", "d"])).unwrap();
    assert_eq!(how, "id 1 is \"b\" in one and \"x\" in the other");
    let moved: Tokens = [("a", 0), ("b", 5)].map(|(token, id)| (token.to_owned(), id)).into();
    assert_eq!(difference(&base, &moved).unwrap(), "\"b\" is id 1 in one and 5 in the other");
    let apart: Tokens = [("x", 3), ("y", 4)].map(|(token, id)| (token.to_owned(), id)).into();
    assert!(difference(&base, &apart).unwrap().contains("no token in common"));
    assert_eq!(difference(&base, &Tokens::new()), None);
}

#[test]
fn any_two_vocabularies_are_judged_as_pair_by_pair() {
    let mut random = Random::new(2);
    let mut same = 0;
    for _ in 0..cases() {
        let count = 1 + random.index(12);
        let base: Tokens = (0..count).map(|id| (format!("t{id}"), id as u32)).collect();
        let mut other = base.clone();
        for _ in 0..random.index(3) {
            let (a, b) = (format!("t{}", random.index(count)), format!("t{}", random.index(count)));
            match random.index(4) {
                0 => drop(other.remove(&a)),
                1 => drop(other.insert(format!("n{a}"), count as u32 + random.index(4) as u32)),
                2 => {
                    if let (Some(x), Some(y)) = (other.get(&a).copied(), other.get(&b).copied()) {
                        other.insert(a, y);
                        other.insert(b, x);
                    }
                }
                _ => {
                    if let Some(id) = other.remove(&a) {
                        other.insert(format!("x{a}"), id);
                    }
                }
            }
        }
        let clash = base.iter().any(|(token, id)| {
            let here: Vec<&String> = other.iter().filter(|(_, of)| *of == id).map(|(token, _)| token).collect();
            (!here.is_empty() && !here.contains(&token)) || other.get(token).is_some_and(|of| of != id)
        });
        let apart = !other.is_empty() && !base.keys().any(|token| other.contains_key(token));
        assert_eq!(difference(&base, &other).is_some(), clash || apart, "{base:?} {other:?}");
        assert_eq!(difference(&other, &base).is_some(), clash || apart);
        same += usize::from(!clash);
    }
    assert!(same > cases() / 10 && same < cases());
    println!("{} vocabularies, {same} the same", cases());
}

#[test]
fn tokenizers_that_differ_in_one_added_token_are_told_apart() {
    let tokenizer = |added: serde_json::Value| {
        let file = serde_json::json!({ "version": "1.0", "added_tokens": added, "normalizer": null,
            "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "." }, "behavior": "Isolated", "invert": false },
            "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": { "?": 0, "a": 1, "Q": 2 }, "unk_token": "?" } });
        crate::text::Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
    };
    let added = |content: &str, single_word: bool| {
        serde_json::json!([{ "id": 2, "content": content, "single_word": single_word, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false }])
    };
    let (whole, part) = (tokenizer(added("Q", true)), tokenizer(added("Q", false)));
    assert!(compare(&part, &tokenizer(added("Q", false))).unwrap().is_none());
    // Both read "Q" as token 2, wherever it is: only the rules differ.
    assert!(compare(&whole, &part).unwrap().is_none());
    let spaced = |lstrip: bool| {
        let mut added = added("Q", false);
        added[0]["lstrip"] = lstrip.into();
        tokenizer(added)
    };
    let (ids, text) = compare(&spaced(true), &spaced(false)).unwrap().unwrap();
    assert_eq!((ids, text.as_deref()), (None, Some("\"aQ Q bQc\"")));
}
