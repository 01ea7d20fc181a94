//! Tests with decoders of every family in both dialects, an exported encoder, and rejected models.

use crate::support::build::{model, op, value, weight};
use crate::support::{deps, runtime};
use optimize::calibrate::{Batch, Calibration, batches};
use optimize::call::Call;
use optimize::error::Kind;
use optimize::model::{Dim, Model};
use optimize::onnx::dtype::DataType::Float32;
use optimize::open;
use optimize::prune::structured::{Data, Importance, Plan, PruneOptions, SparsityOverride, structured};
use optimize::quantize::{QuantizeOptions, quantize};
use optimize::runtime::{Session, SessionOptions, Tensor};
use optimize::source::{Dialect, LoadOptions};
use optimize::text::{Decoder, Tokenizer};
use std::path::PathBuf;

fn options(sparsity: f64, targets: &[&str]) -> PruneOptions {
    let target_modules = targets.iter().map(|t| (*t).to_owned()).collect();
    PruneOptions { sparsity, target_modules, ..PruneOptions::structured() }
}

/// Returns all float outputs except the cache for a prompt of 6 tokens. Inputs that the model does not have are
/// omitted.
pub fn outputs_of(model: &Model) -> Vec<f32> {
    let tokens = 6;
    let mut inputs = Vec::new();
    for info in model.inputs() {
        let dims = info.shape.clone().unwrap();
        let size = |(at, dim): (usize, &Dim)| match dim {
            Dim::Fixed(size) => *size,
            Dim::Symbolic(_) if at == 0 => 1,
            Dim::Symbolic(name) if name.starts_with("past") => 0,
            Dim::Symbolic(_) => tokens,
        };
        let shape: Vec<i64> = dims.iter().enumerate().map(size).collect();
        let count = shape.iter().product::<i64>() as usize;
        let tensor = match info.name.as_str() {
            "input_ids" => Tensor::from_i64(&shape, (0..count as i64).map(|i| 3 + 5 * i).collect()),
            "position_ids" => Tensor::from_i64(&shape, (0..count as i64).collect()),
            "attention_mask" => Tensor::from_i64(&shape, vec![1; count]),
            "num_logits_to_keep" | "token_type_ids" => Tensor::from_i64(&shape, vec![0; count]),
            _ => Tensor::from_f32(&shape, vec![0.0; count]),
        };
        inputs.push((info.name.clone(), tensor.unwrap()));
    }
    let fed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let threads = SessionOptions { threads: 1, ..Default::default() };
    let session = Session::new(runtime(), model, &threads, &Call::default()).unwrap();
    let outputs: Vec<String> =
        model.outputs().into_iter().map(|o| o.name).filter(|name| !name.starts_with("present")).collect();
    let asked: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let found = session.run(&fed, &asked, &Call::default()).unwrap();
    let floats = found.into_iter().filter(|(_, t)| t.dtype() == Float32);
    floats.flat_map(|(_, t)| t.to_f32_vec().unwrap()).collect()
}

/// Checks that the cut model equals the masked one, and differs from the original.
fn check(model: &Model, options: &PruneOptions, what: &str) -> Model {
    let plan = Plan::new(model, options, None, &Call::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let cut = plan.cut(&Call::default()).unwrap();
    let (expected, found) = (outputs_of(&plan.masked().unwrap()), outputs_of(&cut));
    let scale = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
    assert_eq!(expected.len(), found.len(), "{what}");
    let worst = expected.iter().zip(&found).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst <= 1e-5 * scale, "{what}: off by {worst}");
    let before = outputs_of(model);
    assert!(before.iter().zip(&found).any(|(a, b)| (a - b).abs() > 1e-4 * scale), "{what}: nothing changed");
    cut
}

#[test]
fn decoders_of_all_families_lose_neurons_and_heads() {
    for family in ["llama", "llama-tied", "mistral", "qwen2", "qwen3", "gemma", "gemma3", "gpt2", "phi3", "smollm3"] {
        for dialect in [Dialect::Runtime, Dialect::Portable] {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(family);
            let model = open::load(&folder, &LoadOptions { dialect }).unwrap();
            let cut = check(&model, &options(0.5, &[]), &format!("{family} {dialect:?}"));
            // The cache is also cut, and the model is still a decoder.
            assert_eq!(Decoder::of(&cut).unwrap().cache.len(), Decoder::of(&model).unwrap().cache.len(), "{family}");
        }
    }
}

#[test]
fn heads_of_a_decoder_take_their_cache_along() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/llama");
    for dialect in [Dialect::Runtime, Dialect::Portable] {
        let model = open::load(&folder, &LoadOptions { dialect }).unwrap();
        let cut = check(&model, &options(0.5, &["k_proj"]), "k_proj");
        let heads = |m: &Model| Decoder::of(m).unwrap().cache[0].shape[1];
        assert_eq!(heads(&cut) * 2, heads(&model), "{dialect:?}");
    }
}

#[test]
fn an_exported_encoder_with_anonymous_weights() {
    let model = Model::load(&deps("models/paraphrase-MiniLM-L3-v2/model.onnx")).unwrap();
    check(&model, &options(0.3, &[]), "all");
    let (_, report) = structured(&model, &options(0.3, &["layer.1.intermediate"]), None, &Call::default()).unwrap();
    let pruned: Vec<_> = report.nodes.iter().filter(|n| n.action == "pruned").collect();
    assert_eq!(pruned.len(), 1, "{pruned:?}");
    assert!(
        pruned[0].reason.ends_with("layer.1.intermediate.dense: 1072 of 1536 units are kept"),
        "{}",
        pruned[0].reason
    );
    let (_, report) = structured(&model, &options(0.3, &[]), None, &Call::default()).unwrap();
    let (before, after) = (&report.summary["target_parameters_before"], &report.summary["target_parameters_after"]);
    let share = after.as_f64().unwrap() / before.as_f64().unwrap();
    assert!((0.68..0.71).contains(&share), "{share}");
    let held = report.nodes.iter().find(|n| n.name.contains("layer.0/output/dense")).unwrap();
    assert!(held.action == "left" && held.reason.contains("LayerNormalization"), "{held:?}");
    // The model is cut twice, then quantized.
    let (once, _) = structured(&model, &options(0.3, &[]), None, &Call::default()).unwrap();
    let (twice, _) = structured(&once, &options(0.3, &[]), None, &Call::default()).unwrap();
    let (small, _) = quantize(&twice, &QuantizeOptions::default(), &Call::default()).unwrap();
    assert!(outputs_of(&small).iter().all(|v| v.is_finite()));
}

/// With reconstruction, outputs stay closer to the original than without, on text that the weights were not fitted to.
#[test]
fn reconstruction_brings_back_some_of_what_is_lost() {
    let folder = deps("models/paraphrase-MiniLM-L3-v2");
    let model = Model::load(&folder.join("model.onnx")).unwrap();
    let tokenizer = Tokenizer::load(&folder.join("tokenizer.json")).unwrap();
    let texts =
        [include_str!("../../README.md"), include_str!("../../docs/report.md"), include_str!("../../CHANGELOG.md")];
    let read = |text: &str, windows: usize| {
        batches(&model, &Calibration::Text { text, tokenizer: &tokenizer, windows, length: 128 }).unwrap()
    };
    let fit = read(&texts.join("\n"), 32);
    let data = Some(Data { runtime: runtime(), batches: &fit });
    let plain = PruneOptions { importance: Importance::Activation, ..options(0.3, &["intermediate"]) };
    let fitted = PruneOptions { reconstruct: true, ..plain.clone() };
    let other = read(include_str!("../../CONTRIBUTING.md"), 4);
    let expected = on_batches(&model, &other);
    let lost = |options: &PruneOptions| -> f32 {
        let (cut, _) = structured(&model, options, data, &Call::default()).unwrap();
        on_batches(&cut, &other).iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum()
    };
    let (without, with) = (lost(&plain), lost(&fitted));
    println!("squared error: {without} without, {with} with");
    assert!(with < 0.9 * without, "{with} with, {without} without");
}

/// Returns all float outputs for some batches.
fn on_batches(model: &Model, batches: &[Batch]) -> Vec<f32> {
    let threads = SessionOptions { threads: 1, ..Default::default() };
    let session = Session::new(runtime(), model, &threads, &Call::default()).unwrap();
    let mut run = |batch: &Batch| {
        let fed: Vec<(&str, &Tensor)> = batch.inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let found = session.run(&fed, &[], &Call::default()).unwrap();
        let floats = found.into_iter().filter(|(_, t)| t.dtype() == Float32);
        floats.flat_map(|(_, t)| t.to_f32_vec().unwrap()).collect::<Vec<f32>>()
    };
    batches.iter().flat_map(&mut run).collect()
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let model = Model::load(&deps("models/paraphrase-MiniLM-L3-v2/model.onnx")).unwrap();
    let refused = |options: &PruneOptions| structured(&model, options, None, &Call::default()).err().unwrap();
    for sparsity in [1.0, -0.1, f64::NAN, 30.0] {
        let e = refused(&options(sparsity, &[]));
        assert!(e.kind() == Kind::InvalidArgument && e.message().contains("sparsity is"), "{e}");
    }
    let e = refused(&options(0.3, &["q_proj"]));
    assert!(e.kind() == Kind::InvalidArgument && e.message().contains("query"), "{e}");
    let e = refused(&PruneOptions {
        overrides: vec![SparsityOverride { pattern: "nothing".into(), sparsity: 0.5 }],
        ..options(0.3, &[])
    });
    assert!(e.message().contains("\"nothing\""), "{e}");
    let e = refused(&options(0.3, &["word_embeddings"]));
    assert!(e.kind() == Kind::Unsupported && e.message().contains("it normalizes over this axis"), "{e}");
    let e = refused(&PruneOptions { reconstruct: true, ..options(0.3, &[]) });
    assert!(e.message().contains("calibration"), "{e}");
    let (int8, _) = quantize(&model, &QuantizeOptions::default(), &Call::default()).unwrap();
    let e = structured(&int8, &options(0.3, &[]), None, &Call::default()).err().unwrap();
    assert!(e.kind() == Kind::Unsupported && e.message().contains("already quantized"), "{e}");
    let (same, report) = structured(&model, &options(0.0, &[]), None, &Call::default()).unwrap();
    assert_eq!(outputs_of(&same), outputs_of(&model));
    assert_eq!(report.summary["units_before"], report.summary["units_after"]);
}

#[test]
fn an_operator_that_is_not_known_holds_what_it_touches_and_says_so() {
    let nodes = vec![
        op("MatMul", &["x", "a"], &["h"], &[]),
        op("CumProd", &["h"], &["k"], &[]),
        op("MatMul", &["k", "b"], &["y"], &[]),
    ];
    let (x, y) = (value("x", Float32, &[-1, 8]), value("y", Float32, &[-1, 4]));
    let model = model(17, vec![x], vec![y], vec![weight("a", &[8, 16]), weight("b", &[16, 4])], nodes);
    let e = structured(&model, &options(0.5, &[]), None, &Call::default()).err().unwrap();
    assert!(e.kind() == Kind::Unsupported && e.message().contains("CumProd"), "{e}");
}
