//! Tests of calibration: activations computed piece by piece equal those of the whole model, and calibrated weights
//! lose less than rounded ones.

mod support;

use optimize::calibrate::{Batch, Calibration, Data, Walk, batches};
use optimize::call::{Call, Cancel, Ticket};
use optimize::error::Kind;
use optimize::evaluate::{TextOptions, compare_embeddings};
use optimize::model::Model;
use optimize::onnx::proto::ValueInfoProto;
use optimize::open;
use optimize::quantize::{BitsOverride, QuantizeOptions, QuantizeType, quantize, quantize_with};
use optimize::runtime::{Session, SessionOptions, Stop, Tensor};
use optimize::source::{Dialect, LoadOptions};
use optimize::text::Tokenizer;
use std::path::PathBuf;
use support::words::{Join, numbered};
use support::{deps, runtime};

/// Returns sentences of a file of the Brown corpus, without the tags of the words.
fn brown(file: &str, count: usize) -> Vec<String> {
    let sentence = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().map(|token| token.rsplit_once('/').unwrap().0).collect();
        (words.len() > 8).then(|| words.join(" "))
    };
    let text = std::fs::read_to_string(deps("corpus/brown").join(file)).unwrap();
    text.lines().filter_map(sentence).take(count).collect()
}

fn minilm() -> (Model, Tokenizer) {
    let model = Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
    let tokenizer = Tokenizer::of(&model).unwrap().unwrap();
    (model, tokenizer)
}

fn four_bits() -> QuantizeOptions {
    QuantizeOptions { quantize_type: QuantizeType::WeightOnly, bits: 4, ..QuantizeOptions::default() }
}

fn calibrated(
    model: &Model,
    text: &str,
    tokenizer: &Tokenizer,
    options: &QuantizeOptions,
) -> optimize::error::Result<Model> {
    let calibration = Calibration::Text { text, tokenizer, windows: 4, length: 0 };
    quantize_with(runtime(), model, options, Some(&calibration), &Call::default()).map(|(result, _)| result)
}

/// Returns values inside a model, which are made outputs for this.
fn whole(model: &Model, names: &[&str], batches: &[Batch]) -> Vec<Vec<Tensor>> {
    let mut proto = model.proto().clone();
    let output = |name: &&str| ValueInfoProto { name: Some((*name).to_owned()), ..Default::default() };
    proto.graph.as_mut().unwrap().output.extend(names.iter().map(output));
    let model = Model::from_proto(proto);
    let session = Session::new(runtime(), &model, &SessionOptions::default(), &Call::default()).unwrap();
    let mut found = vec![Vec::new(); names.len()];
    for batch in batches {
        let inputs: Vec<(&str, &Tensor)> = batch.inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let values = session.run(&inputs, names, &Call::default()).unwrap();
        found.iter_mut().zip(values).for_each(|(list, (_, tensor))| list.push(tensor));
    }
    found
}

#[test]
fn a_walk_gives_what_a_run_gives() {
    let (model, tokenizer) = minilm();
    let text = brown("ca01", 20).join("\n");
    let batches =
        batches(&model, &Calibration::Text { text: &text, tokenizer: &tokenizer, windows: 2, length: 24 }).unwrap();
    assert_eq!(batches.len(), 2);
    let products = model.graph().node.iter().filter(|node| node.op() == "MatMul");
    let names: Vec<&str> = products.map(|node| node.input[0].as_str()).collect();
    let mut unique = names.clone();
    unique.dedup();
    assert!(unique.len() > 12);
    let data = Data { runtime: runtime(), batches: &batches };
    let (ticket, stop) = (Ticket::default(), Stop::new().unwrap());
    let mut walk = Walk::new(&data.run(1, &ticket, &stop), &model, &unique).unwrap();
    for (name, expected) in unique.iter().zip(whole(&model, &unique, &batches)) {
        for (found, expected) in walk.value(name, &stop).unwrap().iter().zip(expected) {
            assert_eq!(found.shape(), expected.shape(), "{name}");
            let (found, expected) = (found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
            let far = found.iter().zip(&expected).fold(0f32, |far, (a, b)| far.max((a - b).abs()));
            assert!(far < 1e-4, "{name}: {far}");
        }
    }
    assert_eq!(walk.value("nothing", &stop).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn calibrated_weights_lose_less_than_rounded_ones() {
    let (model, tokenizer) = minilm();
    let text = brown("cb01", 64).join("\n");
    let rounded = quantize(&model, &four_bits(), &Call::default()).unwrap().0;
    let spread = calibrated(&model, &text, &tokenizer, &four_bits()).unwrap();
    assert_eq!(rounded.bytes(), spread.bytes());
    let texts = brown("ca01", 40);
    let options = TextOptions { threads: 1, ..TextOptions::default() };
    let cosine = |other: &Model| {
        compare_embeddings(runtime(), &model, other, &tokenizer, &texts, &options, &Call::default()).unwrap().cosine
    };
    let (rounded, spread) = (cosine(&rounded), cosine(&spread));
    println!("cosine: rounded {rounded:.5}, calibrated {spread:.5}");
    assert!(1.0 - spread < 0.8 * (1.0 - rounded), "{spread} {rounded}");
    // Some weights get more bits, as requested.
    let overrides = vec!["*dense*=8".parse::<BitsOverride>().unwrap()];
    let mixed = cosine(&calibrated(&model, &text, &tokenizer, &QuantizeOptions { overrides, ..four_bits() }).unwrap());
    assert!(mixed > spread, "{mixed} {spread}");
}

/// Returns a tokenizer in which the word `w17` is token 17.
fn numbers(vocabulary: usize) -> Tokenizer {
    Tokenizer::from_bytes(numbered(vocabulary, Join::Fuse).as_bytes()).unwrap()
}

#[test]
fn decoders_of_every_family_and_dialect_are_calibrated() {
    let tokenizer = numbers(150);
    let text: String = (0..400).map(|i| format!("w{} ", i * 37 % 150)).collect();
    for family in ["llama-tied", "gpt2", "qwen3", "gemma3"] {
        for dialect in [Dialect::Runtime, Dialect::Portable] {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(family);
            let model = open::load(&folder, &LoadOptions { dialect }).unwrap();
            let options = QuantizeOptions { block_size: 16, min_elements: 1, threads: 1, ..four_bits() };
            let result = calibrated(&model, &text, &tokenizer, &options).unwrap_or_else(|e| panic!("{family}: {e}"));
            assert!(result.bytes() < model.bytes(), "{family}");
            Session::new(runtime(), &result, &SessionOptions::default(), &Call::default()).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_calibrated_is_said() {
    let (model, tokenizer) = minilm();
    let fails = |text: &str, options: &QuantizeOptions| calibrated(&model, text, &tokenizer, options).err().unwrap();
    assert!(fails(" \n\n", &four_bits()).to_string().contains("no lines"));
    assert_eq!(fails("a text", &QuantizeOptions::default()).kind(), Kind::InvalidArgument);
    let overrides = vec!["no such thing=8".parse().unwrap()];
    let error = fails("a text", &QuantizeOptions { overrides, ..four_bits() });
    assert!(error.to_string().contains("no such thing"), "{error}");
    for bad in ["", "=8", "a", "a=x", "a=4/x"] {
        assert!(bad.parse::<BitsOverride>().is_err(), "{bad:?}");
    }
    let overrides = vec!["*=5".parse().unwrap()];
    assert_eq!(fails("a text", &QuantizeOptions { overrides, ..four_bits() }).kind(), Kind::InvalidArgument);
    let cancel = Cancel::new();
    cancel.fire();
    let call = Call { cancel: Some(&cancel), ..Call::default() };
    let calibration = Calibration::Text { text: "a text", tokenizer: &tokenizer, windows: 1, length: 8 };
    let error = quantize_with(runtime(), &model, &four_bits(), Some(&calibration), &call).err().unwrap();
    assert_eq!(error.kind(), Kind::Cancelled);
}
