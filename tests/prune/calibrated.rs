//! Wanda and SparseGPT on a real encoder: the right weights by the paper's own formula, and less loss than by
//! magnitude.

use super::*;
use optimize::calibrate::{Calibration, batches, pieces};
use optimize::evaluate::{TextOptions, compare_embeddings};
use optimize::prune::prune_calibrated;
use optimize::runtime::{Session, SessionOptions};
use optimize::text::Tokenizer;
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

fn calibrated(model: &Model, tokenizer: &Tokenizer, text: &str, options: &PruneOptions) -> (Model, Report) {
    let calibration = Calibration::Text { text, tokenizer, windows: 4, length: 0 };
    prune_calibrated(runtime(), model, options, &calibration, &Call::default()).unwrap()
}

/// Returns the products of a model: the name of the input, and the weight as `[outputs][inputs]`.
fn products(model: &Model) -> Vec<(String, String, Vec<Vec<f32>>)> {
    let graph = model.graph();
    let weight = |name: &str| graph.initializer.iter().find(|t| t.name.as_deref() == Some(name) && t.dims.len() == 2);
    let of = |node: &NodeProto| {
        let tensor = weight(node.input.get(1)?)?;
        let (k, n) = (tensor.dims[0] as usize, tensor.dims[1] as usize);
        let values = numbers(tensor);
        let rows = (0..n).map(|o| (0..k).map(|i| values[i * n + o]).collect()).collect();
        Some((node.input[0].clone(), node.input[1].clone(), rows))
    };
    graph.node.iter().filter(|n| n.op() == "MatMul").filter_map(of).collect()
}

#[test]
fn wanda_takes_the_weights_that_its_formula_says() {
    let (model, tokenizer) = minilm();
    let text = brown("cb01", 32).join("\n");
    let (result, report) = calibrated(&model, &tokenizer, &text, &options(PruneMethod::Wanda, 0.3));
    assert_eq!(report.summary["nodes_pruned"], 18);
    // Lines longer than usual are split; padding has no effect.
    let text = pieces(&text);
    // The criterion uses the inputs that the layers of the *pruned* model have.
    let (before, after) = (products(&model), products(&result));
    let calibration = Calibration::Text { text: &text, tokenizer: &tokenizer, windows: 4, length: 0 };
    let mut proto = result.proto().clone();
    let names: Vec<&str> = after.iter().map(|(input, ..)| input.as_str()).collect();
    let output = |name: &&str| ValueInfoProto { name: Some((*name).to_owned()), ..Default::default() };
    let mut unique = names.clone();
    unique.dedup();
    proto.graph.as_mut().unwrap().output.extend(unique.iter().map(output));
    let whole = Model::from_proto(proto);
    let session = Session::new(runtime(), &whole, &SessionOptions::default(), &Call::default()).unwrap();
    let mut squares = vec![Vec::new(); names.len()];
    for batch in batches(&model, &calibration).unwrap() {
        let feed: Vec<_> = batch.inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let found = session.run(&feed, &unique, &Call::default()).unwrap();
        for (name, squares) in names.iter().zip(&mut squares) {
            let tensor = &found.iter().find(|(n, _)| n == name).unwrap().1;
            let width = *tensor.shape().last().unwrap() as usize;
            squares.resize(width, 0f64);
            let all = tensor.to_f32_vec().unwrap();
            assert_eq!(tensor.shape()[..2], batch.mask.as_ref().unwrap().shape);
            let tokens = all.chunks(width).zip(&batch.mask.as_ref().unwrap().keep);
            let all: Vec<f32> = tokens.filter(|(_, keep)| **keep).flat_map(|(token, _)| token).copied().collect();
            all.iter().enumerate().for_each(|(i, v)| squares[i % width] += f64::from(*v).powi(2));
        }
    }
    for (((_, name, before), (.., after)), squares) in before.iter().zip(&after).zip(&squares) {
        let wanted = (0.3 * squares.len() as f64).round() as usize;
        for (before, after) in before.iter().zip(after) {
            assert_eq!(zeros(after), wanted, "{name}: every output loses the same share");
            let score = |k: &usize| f64::from(before[*k].abs()) * squares[*k].sqrt();
            let gone = (0..before.len()).filter(|k| after[*k] == 0.0).map(|k| score(&k)).fold(0.0, f64::max);
            let kept = (0..before.len()).filter(|k| after[*k] != 0.0).map(|k| score(&k)).fold(f64::MAX, f64::min);
            // Sums in another order differ slightly, hence the tolerance.
            assert!(gone <= kept * 1.0001, "{name}: {gone} gone, {kept} kept");
            assert!(before.iter().zip(after).all(|(b, a)| *a == 0.0 || a.to_bits() == b.to_bits()));
        }
    }
}

#[test]
fn embeddings_stay_closer_than_by_magnitude() {
    let (model, tokenizer) = minilm();
    let (text, texts) = (brown("cb01", 64).join("\n"), brown("ca01", 40));
    let options_of = TextOptions { threads: 1, ..TextOptions::default() };
    let cosine = |other: &Model| {
        compare_embeddings(runtime(), &model, other, &tokenizer, &texts, &options_of, &Call::default()).unwrap().cosine
    };
    let pattern = Some("2:4".parse().unwrap());
    for pattern in [None, pattern] {
        let with = |method| PruneOptions { pattern, ..options(method, 0.5) };
        let magnitude = cosine(&pruned(&model, &with(PruneMethod::Magnitude)).0);
        let (by_wanda, _) = calibrated(&model, &tokenizer, &text, &with(PruneMethod::Wanda));
        let (by_sparsegpt, report) = calibrated(&model, &tokenizer, &text, &with(PruneMethod::SparseGpt));
        let (wanda, sparsegpt) = (cosine(&by_wanda), cosine(&by_sparsegpt));
        println!("cosine at 50 %, pattern {pattern:?}: {magnitude:.4}, wanda {wanda:.4}, sparsegpt {sparsegpt:.4}");
        assert!(wanda > magnitude && sparsegpt > wanda, "{magnitude} {wanda} {sparsegpt}");
        for result in [&by_wanda, &by_sparsegpt] {
            for (_, name, rows) in products(result) {
                let count: usize = rows.iter().map(|row| zeros(row)).sum();
                assert_eq!(count * 2, rows.len() * rows[0].len(), "{name}");
                let held = |row: &Vec<f32>| row.chunks(4).all(|four| zeros(four) == 2);
                assert!(pattern.is_none() || rows.iter().all(held), "{name}");
            }
        }
        assert_eq!(report.summary["sparsity"], 0.5);
    }
}

/// Fitting to a few tokens of a long text, which are similar and contain little information, would ruin short texts (a
/// cosine of 0.1, where it is 0.8 without fitting).
#[test]
fn what_is_refitted_on_a_few_long_lines_serves_short_ones() {
    let (model, tokenizer) = minilm();
    let sentences: Vec<String> = ["cb01", "cb02", "cb03", "cb04"].iter().flat_map(|file| brown(file, 200)).collect();
    let long: Vec<String> = sentences.chunks(sentences.len().div_ceil(12)).map(|some| some.join(" ")).collect();
    let (short, texts) = (sentences.iter().step_by(3).cloned().collect::<Vec<_>>().join("\n"), brown("ca01", 40));
    let options_of = TextOptions { threads: 1, ..TextOptions::default() };
    let cosine = |other: &Model| {
        compare_embeddings(runtime(), &model, other, &tokenizer, &texts, &options_of, &Call::default()).unwrap().cosine
    };
    let long = long.join("\n");
    for (importance, text) in
        [(Importance::L1, &long), (Importance::Activation, &long), (Importance::Activation, &short)]
    {
        let with = |reconstruct| {
            let options = PruneOptions { importance, reconstruct, ..options(PruneMethod::Structured, 0.3) };
            let calibration = Calibration::Text { text, tokenizer: &tokenizer, windows: 16, length: 0 };
            cosine(&prune_calibrated(runtime(), &model, &options, &calibration, &Call::default()).unwrap().0)
        };
        let (only, refitted) = (with(false), with(true));
        println!(
            "{importance:?}, {} characters in {} lines: {only:.4}, refitted {refitted:.4}",
            text.len(),
            text.lines().count()
        );
        assert!(refitted > only + 0.02, "{importance:?}: {only}, refitted {refitted}");
    }
}

#[test]
fn methods_and_texts_that_do_not_fit_are_refused() {
    let (model, tokenizer) = minilm();
    let fails = |text: &str, options: &PruneOptions| {
        let calibration = Calibration::Text { text, tokenizer: &tokenizer, windows: 1, length: 8 };
        prune_calibrated(runtime(), &model, options, &calibration, &Call::default()).err().unwrap()
    };
    let error = fails("a text", &magnitude(0.5));
    assert!(error.to_string().contains("magnitude does not use a calibration text"), "{error}");
    assert!(fails(" \n", &options(PruneMethod::Wanda, 0.5)).to_string().contains("no lines"));
    let global = PruneOptions { global: true, ..options(PruneMethod::Wanda, 0.5) };
    assert!(fails("a text", &global).to_string().contains("no global threshold"));
    let targets = PruneOptions { target_modules: vec!["qery".into()], ..options(PruneMethod::SparseGpt, 0.5) };
    assert!(fails("a text", &targets).to_string().contains("query (3)"));
}
