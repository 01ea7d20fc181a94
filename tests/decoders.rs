//! Every family of decoders, in both dialects, against logits of transformers: whole prompts, padded batches, and
//! token by token through the cache. The checkpoints are tiny and random, see `fixtures/checkpoints/make.py`.

#[path = "decoders/checkpoints.rs"]
mod checkpoints;
mod support;

use optimize::call::Call;
use optimize::error::{Error, Kind};
use optimize::model::{Model, Task};
use optimize::onnx::save;
use optimize::open;
use optimize::runtime::{InPlace, Place, Session, SessionOptions, Stop, Tensor};
use optimize::source::checkpoint::{self, safetensors::Safetensors};
use optimize::source::weights::{Stored, Weights};
use optimize::source::{Dialect, LoadOptions};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

const FAMILIES: &[&str] = &[
    "llama",
    "llama-tied",
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "gpt2",
    "phi3",
    "smollm3",
];
/// Maximum accepted difference of logits, which are between -5 and 5.
const TOLERANCE: f32 = 2e-5;
const BOTH: [Dialect; 2] = [Dialect::Runtime, Dialect::Portable];

fn folder(family: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(family)
}

fn load(family: &str, dialect: Dialect) -> Model {
    open::load(&folder(family), &LoadOptions { dialect }).unwrap()
}

/// A prompt and the logits of each of its tokens.
struct Reference {
    ids: Vec<i64>,
    logits: Vec<f32>,
}

impl Reference {
    fn vocabulary(&self) -> usize {
        self.logits.len() / self.ids.len()
    }

    fn row(&self, token: usize) -> &[f32] {
        &self.logits[token * self.vocabulary()..][..self.vocabulary()]
    }
}

fn references(family: &str) -> Vec<Reference> {
    let file = Safetensors::open_file(&folder(family).join("reference.safetensors")).unwrap();
    let read = |index: usize| {
        let (ids, logits) = (file.get(&format!("ids.{index}")).unwrap(), file.get(&format!("logits.{index}")).unwrap());
        Reference {
            ids: ids.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            logits: logits.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        }
    };
    (0..2).map(read).collect()
}

/// A decoder with its cache. Its inputs are those that a generator passes.
struct Decoder {
    session: Session,
    dialect: Dialect,
    cache: Vec<(String, Tensor)>,
    /// Cache in memory that is written in place, if the test uses it.
    memory: Option<InPlace>,
    /// Mask of the tokens so far, one list per row.
    mask: Vec<Vec<i64>>,
}

impl Decoder {
    fn new(model: &Model, dialect: Dialect, rows: usize) -> Decoder {
        let options = SessionOptions { threads: 1, ..SessionOptions::default() };
        let session = Session::new(support::runtime(), model, &options, &Call::default()).unwrap();
        let empty = |info: &optimize::model::ValueInfo| {
            let dims = info.shape.as_ref().unwrap();
            let size = |index: usize| match &dims[index] {
                optimize::model::Dim::Fixed(size) => *size,
                other => panic!("{other:?}"),
            };
            let tensor = Tensor::from_f32(&[rows as i64, size(1), 0, size(3)], Vec::new()).unwrap();
            (info.name.clone(), tensor)
        };
        let past = session.inputs().iter().filter(|info| info.name.starts_with("past_key_values"));
        let cache = past.map(empty).collect();
        Decoder { session, dialect, cache, memory: None, mask: vec![Vec::new(); rows] }
    }

    /// Returns a decoder with space for `tokens` tokens per row in memory that is past and present.
    fn in_place(model: &Model, rows: usize, tokens: i64) -> Decoder {
        let mut decoder = Decoder::new(model, Dialect::Runtime, rows);
        let place = |(input, tensor): (String, Tensor)| {
            let output = input.replace("past_key_values", "present");
            let mut shape = tensor.shape().to_vec();
            shape[2] = tokens;
            Place { input: Some(input), output: Some(output), dtype: tensor.dtype(), shape }
        };
        let places: Vec<Place> = std::mem::take(&mut decoder.cache).into_iter().map(place).collect();
        decoder.memory = Some(decoder.session.in_place(&places, &["logits"]).unwrap());
        decoder
    }

    /// Runs tokens of every row, padded to the longest row as the dialect requires, and returns the logits of each
    /// row's own tokens.
    fn feed(&mut self, rows: &[&[i64]]) -> Vec<Vec<f32>> {
        let (batch, length) = (rows.len() as i64, rows.iter().map(|row| row.len()).max().unwrap());
        let right = self.dialect == Dialect::Runtime;
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for (row, mask) in rows.iter().zip(&mut self.mask) {
            let (padding, seen) = (length - row.len(), mask.iter().sum::<i64>());
            let own = seen..seen + row.len() as i64;
            if right {
                ids.extend(row.iter().copied().chain(std::iter::repeat_n(0, padding)));
                // The mask only counts the row's tokens, so new tokens directly follow the earlier ones.
                let total = mask.len() + length;
                *mask = vec![1; own.end as usize];
                mask.resize(total, 0);
            } else {
                ids.extend(std::iter::repeat_n(0, padding).chain(row.iter().copied()));
                positions.extend(std::iter::repeat_n(0, padding).chain(own));
                mask.extend(std::iter::repeat_n(0, padding).chain(std::iter::repeat_n(1, row.len())));
            }
        }
        let total = self.mask[0].len() as i64;
        let shape = [batch, length as i64];
        let mut inputs = vec![
            ("input_ids", Tensor::from_i64(&shape, ids).unwrap()),
            ("attention_mask", Tensor::from_i64(&[batch, total], self.mask.concat()).unwrap()),
            ("num_logits_to_keep", Tensor::from_i64(&[], vec![0]).unwrap()),
        ];
        if !right {
            inputs.push(("position_ids", Tensor::from_i64(&shape, positions).unwrap()));
        }
        let (logits, width) = self.run(&inputs);
        assert_eq!(logits.len(), rows.len() * length * width);
        let of_row = |(index, row): (usize, &&[i64])| {
            let start = index * length + if right { 0 } else { length - row.len() };
            logits[start * width..(start + row.len()) * width].to_vec()
        };
        rows.iter().enumerate().map(of_row).collect()
    }

    fn run(&mut self, inputs: &[(&str, Tensor)]) -> (Vec<f32>, usize) {
        let inputs = inputs.iter().map(|(name, tensor)| (*name, tensor));
        if let Some(memory) = &mut self.memory {
            let inputs: Vec<(&str, &Tensor)> = inputs.collect();
            let logits = self.session.run_in_place(memory, &inputs, &Stop::new().unwrap()).unwrap().remove(0);
            return (logits.as_slice::<f32>().unwrap().to_vec(), *logits.shape().last().unwrap() as usize);
        }
        let past = self.cache.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let all: Vec<(&str, &Tensor)> = inputs.chain(past).collect();
        let mut outputs = self.session.run(&all, &[], &Call::default()).unwrap();
        let (name, logits) = outputs.remove(0);
        assert_eq!(name, "logits");
        self.cache =
            outputs.into_iter().map(|(name, tensor)| (name.replace("present", "past_key_values"), tensor)).collect();
        (logits.as_slice::<f32>().unwrap().to_vec(), *logits.shape().last().unwrap() as usize)
    }
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |max, d| if d.is_nan() { f32::INFINITY } else { max.max(d) })
}

/// Runs `check` for every family and dialect and prints the largest difference of each.
fn every(what: &str, check: impl Fn(&Model, Dialect, &[Reference]) -> f32) {
    let mut failed = Vec::new();
    for family in FAMILIES {
        let references = references(family);
        for dialect in BOTH {
            let found = check(&load(family, dialect), dialect, &references);
            println!("{what}: {family} {dialect:?} {found:.1e}");
            if found.is_nan() || found > TOLERANCE {
                failed.push(format!("{family} {dialect:?} {found:e}"));
            }
        }
    }
    assert!(failed.is_empty(), "{what}: {failed:?}");
}

#[test]
fn whole_prompts_give_the_logits_of_the_reference() {
    every("whole", |model, dialect, references| {
        let one = |reference: &Reference| {
            let found = Decoder::new(model, dialect, 1).feed(&[&reference.ids]);
            difference(&found[0], &reference.logits)
        };
        references.iter().map(one).fold(0.0, f32::max)
    });
}

#[test]
fn a_padded_batch_gives_every_row_its_own_logits() {
    every("batch", |model, dialect, references| {
        let rows: Vec<&[i64]> = references.iter().map(|r| r.ids.as_slice()).collect();
        let found = Decoder::new(model, dialect, 2).feed(&rows);
        found.iter().zip(references).map(|(found, r)| difference(found, &r.logits)).fold(0.0, f32::max)
    });
}

#[test]
fn token_by_token_through_the_cache_is_the_same() {
    every("steps", |model, dialect, references| {
        let reference = &references[0];
        let mut decoder = Decoder::new(model, dialect, 1);
        let found = decoder.feed(&[&reference.ids[..7]]);
        let mut worst = difference(&found[0], &reference.logits[..7 * reference.vocabulary()]);
        for token in 7..reference.ids.len() {
            let found = decoder.feed(&[&reference.ids[token..token + 1]]);
            worst = worst.max(difference(&found[0], reference.row(token)));
        }
        worst
    });
}

#[test]
fn several_tokens_can_follow_a_cache() {
    every("chunks", |model, dialect, references| {
        let reference = &references[0];
        let mut decoder = Decoder::new(model, dialect, 1);
        let parts = [0..4, 4..13, 13..14, 14..reference.ids.len()];
        let one = |part: std::ops::Range<usize>| {
            let width = reference.vocabulary();
            let expected = &reference.logits[part.start * width..part.end * width];
            difference(&decoder.feed(&[&reference.ids[part]])[0], expected)
        };
        parts.into_iter().map(one).fold(0.0, f32::max)
    });
}

/// Runs two prompts of different lengths in one batch, then one token per row at a time, up to the end of the shorter
/// one. Returns the largest difference.
fn go_on_together(mut decoder: Decoder, references: &[Reference]) -> f32 {
    let [a, b] = references else { panic!("two prompts") };
    let found = decoder.feed(&[&a.ids[..6], &b.ids[..3]]);
    let mut worst = difference(&found[0], &a.logits[..6 * a.vocabulary()]);
    worst = worst.max(difference(&found[1], &b.logits[..3 * b.vocabulary()]));
    for step in 0..b.ids.len() - 3 {
        let found = decoder.feed(&[&a.ids[6 + step..7 + step], &b.ids[3 + step..4 + step]]);
        worst = worst.max(difference(&found[0], a.row(6 + step)));
        worst = worst.max(difference(&found[1], b.row(3 + step)));
    }
    worst
}

#[test]
fn rows_of_different_lengths_go_on_together() {
    every("ragged steps", |model, dialect, references| go_on_together(Decoder::new(model, dialect, 2), references));
}

#[test]
fn a_cache_that_is_written_in_place_gives_the_same_and_can_be_rewound() {
    every("in place", |model, dialect, references| {
        if dialect == Dialect::Portable {
            return 0.0;
        }
        let together = go_on_together(Decoder::in_place(model, 2, 40), references);
        let (mut decoder, reference) = (Decoder::in_place(model, 1, 40), &references[0]);
        let whole = difference(&decoder.feed(&[&reference.ids])[0], &reference.logits);
        // The cache is cut back to the first five tokens, and the same tokens are run again: in one run, and one by
        // one.
        decoder.mask[0].truncate(5);
        let mut again: f32 = 0.0;
        for part in [5..9, 9..10, 10..11] {
            let width = reference.vocabulary();
            let expected = &reference.logits[part.start * width..part.end * width];
            again = again.max(difference(&decoder.feed(&[&reference.ids[part]])[0], expected));
        }
        together.max(whole).max(again)
    });
}

#[test]
fn cards_say_what_the_checkpoints_are() {
    for family in FAMILIES {
        let model = load(family, Dialect::Runtime);
        let card = model.card();
        assert_eq!(card.task, Task::Generate);
        assert_eq!(card.format, optimize::model::Format::Checkpoint);
        assert_eq!(card.generation.eos_token_ids, [2]);
        assert_eq!((card.generation.bos_token_id, card.generation.pad_token_id), (Some(1), Some(0)));
        assert!(card.side_file("config.json").is_some() && card.side_file("generation_config.json").is_some());
        assert_eq!(model.inputs()[0].describe(), "int64[batch, sequence]");
        optimize::onnx::validate::model(model.proto()).unwrap();
    }
}

#[test]
fn only_the_logits_asked_for_are_computed() {
    for dialect in BOTH {
        let reference = &references("llama")[0];
        let mut decoder = Decoder::new(&load("llama", dialect), dialect, 1);
        let length = reference.ids.len() as i64;
        let mut inputs = vec![
            ("input_ids", Tensor::from_i64(&[1, length], reference.ids.clone()).unwrap()),
            ("attention_mask", Tensor::from_i64(&[1, length], vec![1; length as usize]).unwrap()),
            ("num_logits_to_keep", Tensor::from_i64(&[], vec![2]).unwrap()),
        ];
        if dialect == Dialect::Portable {
            inputs.push(("position_ids", Tensor::from_i64(&[1, length], (0..length).collect()).unwrap()));
        }
        let (logits, width) = decoder.run(&inputs);
        let expected = &reference.logits[(reference.ids.len() - 2) * width..];
        assert!(difference(&logits, expected) < TOLERANCE);
    }
}
