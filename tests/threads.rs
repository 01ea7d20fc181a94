//! Tests that the library does not start rayon's global pool of threads, which would outlive every call, and which only
//! the program may configure.

mod support;

use optimize::calibrate::Calibration;
use optimize::call::Call;
use optimize::distill::{Corpus, DistillOptions, StudentLayers, distill, student_of};
use optimize::ensemble::{Ensemble, EnsembleOptions, Method};
use optimize::evaluate::{PerplexityOptions, compare_perplexity, perplexity};
use optimize::model::{Model, SideContent, SideFile};
use optimize::open;
use optimize::package::{CompileOptions, OpenOptions, Package, compile};
use optimize::prune::{PruneMethod, PruneOptions, prune, prune_calibrated};
use optimize::quantize::{Algorithm, QuantizeOptions, QuantizeType, quantize, quantize_with};
use optimize::source::{Dialect, LoadOptions};
use optimize::text::Tokenizer;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use support::words::{Join, numbered};
use support::{runtime, scratch};

const THREADS: usize = 2;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Returns a small decoder with a tokenizer in which the word `w17` is token 17.
fn decoder() -> Model {
    let load = LoadOptions { dialect: Dialect::Portable };
    let model = open::load(&fixture("checkpoints/llama-tied"), &load).unwrap();
    let mut card = model.card().clone();
    let content = SideContent::Bytes(numbered(150, Join::Fuse).into());
    card.side_files.push(SideFile { name: "tokenizer.json".into(), content });
    model.with_card(card)
}

fn quantized(model: &Model, calibration: &Calibration<'_>) {
    let call = Call::default();
    let default = QuantizeOptions { threads: THREADS, min_elements: 1, ..QuantizeOptions::default() };
    let (quantize_type, block_size) = (QuantizeType::WeightOnly, 16);
    let blocks = QuantizeOptions { quantize_type, bits: 4, block_size, ..default.clone() };
    for options in [&default, &blocks] {
        quantize(model, options, &call).unwrap();
        let measured = QuantizeOptions { max_quality_loss: 0.5, ..options.clone() };
        quantize_with(runtime(), model, &measured, None, &call).unwrap();
    }
    let fixed = QuantizeOptions { quantize_type: QuantizeType::Static, max_quality_loss: 0.5, ..default.clone() };
    let scaled = QuantizeOptions { smooth_quant: 0.5, ..default };
    let algorithms = [Algorithm::Gptq, Algorithm::Awq].map(|algorithm| QuantizeOptions { algorithm, ..blocks.clone() });
    for options in algorithms.iter().chain([&fixed, &scaled]) {
        quantize_with(runtime(), model, options, Some(calibration), &call).unwrap();
    }
}

fn pruned(model: &Model, calibration: &Calibration<'_>) {
    let call = Call::default();
    let options = |method, reconstruct| PruneOptions {
        method,
        reconstruct,
        sparsity: 0.5,
        min_elements: 1,
        threads: THREADS,
        ..PruneOptions::default()
    };
    for method in [PruneMethod::Magnitude, PruneMethod::Random, PruneMethod::Structured] {
        prune(model, &options(method, false), &call).unwrap();
    }
    for method in [PruneMethod::Wanda, PruneMethod::SparseGpt, PruneMethod::Structured] {
        let reconstruct = method == PruneMethod::Structured;
        prune_calibrated(runtime(), model, &options(method, reconstruct), calibration, &call).unwrap();
    }
}

fn measured(model: &Model, tokenizer: &Tokenizer, text: &str) {
    let options = PerplexityOptions { threads: THREADS, ..PerplexityOptions::default() };
    perplexity(runtime(), model, tokenizer, text, &options, &Call::default()).unwrap();
    compare_perplexity(runtime(), model, model, tokenizer, text, &options, &Call::default()).unwrap();
}

fn fitted(model: &Model, text: &str) {
    for method in [Method::Mean, Method::Logits] {
        let options = EnsembleOptions { method, ..EnsembleOptions::default() };
        let ensemble = Ensemble::new(vec![model.clone(), model.clone()], options).unwrap();
        let options = PerplexityOptions { threads: THREADS, ..PerplexityOptions::default() };
        ensemble.fit(runtime(), text, &options, &Call::default()).unwrap();
    }
}

fn distilled(model: &Model, text: &str) {
    let call = Call::default();
    let student = student_of(model, StudentLayers::Count(1), &call).unwrap();
    let options = DistillOptions { max_steps: 3, sequence_length: 16, threads: THREADS, ..DistillOptions::default() };
    distill(
        runtime(),
        model,
        &student,
        &Corpus::from_text(text).unwrap(),
        &options,
        &|_| ControlFlow::Continue(()),
        &call,
    )
    .unwrap();
}

fn packed(model: &Model) {
    let (folder, call) = (scratch("threads"), Call::default());
    let file = folder.join("packed.onnx");
    model.save_packed(&file, &call).unwrap();
    Model::load(&file).unwrap();
    let options = CompileOptions { packed: true, ..CompileOptions::default() };
    let package = folder.join("model.package");
    compile(runtime(), model, &package, &options, &call).unwrap();
    Package::open(&package, &OpenOptions::default()).unwrap().model().unwrap();
}

#[test]
fn no_global_pool_is_left() {
    let model = decoder();
    let tokenizer = Tokenizer::of(&model).unwrap().unwrap();
    let text: String = (0..2000).map(|i| format!("w{} ", i * i * 37 % 150)).collect();
    let calibration = Calibration::Text { text: &text, tokenizer: &tokenizer, windows: 4, length: 32 };
    quantized(&model, &calibration);
    pruned(&model, &calibration);
    measured(&model, &tokenizer, &text);
    fitted(&model, &text);
    distilled(&model, &text);
    packed(&model);
    let blocks = Model::load(&fixture("gguf/llama.gguf")).unwrap();
    let fewer = QuantizeOptions { quantize_type: QuantizeType::WeightOnly, bits: 4, ..QuantizeOptions::default() };
    // The blocks of the file are converted to floats first; quantizing them again may fail, because nothing is gained.
    let _ = quantize(&blocks, &QuantizeOptions { threads: THREADS, min_elements: 1, ..fewer }, &Call::default());
    // This fails if the library has started the global pool.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
}
