//! Tests of real models: accuracy, size, reproducible bytes, and ONNX Runtime's graph.

use super::*;
use std::collections::HashSet;

const SENTENCE: &str = "The stock market fell sharply on Monday after three days of losses.";

fn minilm_l3() -> Model {
    Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap()
}

/// Returns the vector of a sentence.
fn embed(model: &Model, tokenizer: &Tokenizer) -> Vec<f32> {
    let batch = tokenizer.encode_batch(&[SENTENCE], true, None).unwrap();
    let shape = [1, batch.length as i64];
    let tensor = |values: &[i64]| Tensor::from_i64(&shape, values.to_vec()).unwrap();
    let all = [("input_ids", &batch.ids), ("attention_mask", &batch.mask), ("token_type_ids", &batch.type_ids)];
    let all = all.map(|(name, values)| (name, tensor(values)));
    let names: Vec<String> = model.inputs().into_iter().map(|input| input.name).collect();
    let feed: Vec<_> = all.iter().filter(|(name, _)| names.iter().any(|n| n == name)).map(|(n, t)| (*n, t)).collect();
    let vector = |(_, output): &&(String, Tensor)| output.dtype() == Float32 && output.shape() == [1, 384];
    run(model, &feed).iter().find(vector).unwrap().1.to_f32_vec().unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Checks a result after saving and loading it: it is close to the original, and its file is small.
fn close_and_small(model: &Model, options: &QuantizeOptions, least: f64, largest: f64) {
    let folder = scratch("weight-only");
    let file = folder.join("model.onnx");
    let (result, report) = quantize(model, options, &Call::default()).unwrap();
    let saved = result.save(&file, ExternalData::Auto, &Call::default()).unwrap().identity();
    let loaded = Model::load(&file).unwrap();
    let tokenizer = Tokenizer::of(model).unwrap().unwrap();
    let found = cosine(&embed(model, &tokenizer), &embed(&loaded, &tokenizer));
    let ratio = saved.bytes as f64 / model.bytes() as f64;
    println!("{} bits: cosine {found:.5}, {ratio:.4} of the size, {} s", options.bits, report.seconds);
    assert!(found > least, "{} bits: cosine {found}", options.bits);
    assert!(ratio < largest, "{} bits: {ratio} of the size", options.bits);
}

#[test]
fn sentence_embeddings_stay_close() {
    let level = |bits, accuracy_level| QuantizeOptions { accuracy_level, min_elements: 1024, ..options(bits) };
    // A block of 32 weights has 32 codes and a zero point of 4 bits each, and a scale of 8 bits: 4.4 bits per weight
    // instead of 32. The table of positions is quantized, too.
    for model in [minilm_l3(), Model::load(&deps("models/all-MiniLM-L6-v2")).unwrap()] {
        for accuracy_level in LEVELS {
            close_and_small(&model, &level(8, accuracy_level), 0.999, 0.28);
            close_and_small(&model, &level(4, accuracy_level), 0.95, 0.15);
        }
    }
}

#[test]
fn the_same_options_give_the_same_bytes_with_any_number_of_threads() {
    let model = minilm_l3();
    let before = model.identity(&Call::default()).unwrap().sha256;
    for form in [options(4), QuantizeOptions { symmetric: true, scale_type: ScaleType::Float32, ..options(8) }] {
        let bytes = |threads| {
            let options = QuantizeOptions { threads, ..form.clone() };
            save::encode(quantize(&model, &options, &Call::default()).unwrap().0.proto()).concat()
        };
        let one = bytes(1);
        [2, 5].into_iter().for_each(|threads| assert!(one == bytes(threads), "{threads} threads"));
    }
    assert_eq!(before, model.identity(&Call::default()).unwrap().sha256);
}

/// Returns the graph that ONNX Runtime runs.
fn optimized(model: &Model, inputs: &[(&str, &Tensor)]) -> Model {
    let folder = scratch("weight-only-optimized");
    let file = folder.join("optimized.onnx");
    run_with(model, &SessionOptions { optimized_model: Some(file.clone()), ..Default::default() }, inputs);
    let made = Model::load(&file).unwrap();
    Model::from_proto(made.proto().clone())
}

/// Returns the number of block-quantized operators, including those in branches, and checks that nothing remains to be
/// computed before them.
fn blocks_of(graph: &GraphProto, around: &HashSet<&str>) -> usize {
    let own = graph.initializer.iter().filter_map(|t| t.name.as_deref());
    let constants: HashSet<&str> = own.chain(around.iter().copied()).collect();
    let mut blocks = 0;
    for node in &graph.node {
        let (first, count) = match node.op() {
            "MatMulNBits" => (1, 1),
            "GatherBlockQuantized" => (2, 1),
            _ => (node.input.len(), 0),
        };
        blocks += count;
        // The codes of the table are input 0, the indices input 1.
        let table = (node.op() == "GatherBlockQuantized").then(|| node.input[0].as_str());
        for input in node.input[first..].iter().map(String::as_str).chain(table).filter(|name| !name.is_empty()) {
            assert!(constants.contains(input), "{input} of {} is computed in each run", node.label());
        }
        let inner = node.attribute.iter().filter_map(|a| a.g.as_deref());
        blocks += inner.map(|graph| blocks_of(graph, &constants)).sum::<usize>();
    }
    blocks
}

#[test]
fn the_runtime_computes_scales_once() {
    let (ids, mask) = (Tensor::from_i64(&[1, 5], vec![101, 7592, 2088, 999, 102]), vec![1; 5]);
    let (ids, mask) = (ids.unwrap(), Tensor::from_i64(&[1, 5], mask).unwrap());
    let (x, c) = (uniform(&[3, 96], 0.5), Tensor::from_bools(&[], &[true]).unwrap());
    for scale_type in SCALES {
        let form = QuantizeOptions { scale_type, ..options(4) };
        for (model, inputs) in [
            (minilm_l3(), vec![("input_ids", &ids), ("attention_mask", &mask)]),
            (branching(), vec![("x", &x), ("c", &c)]),
            (calling(), vec![("x", &x), ("x2", &x)]),
            (behind_a_cast(Bfloat16, true), vec![("x", &x)]),
        ] {
            let (result, report) = quantize(&model, &form, &Call::default()).unwrap();
            let made = optimized(&result, &inputs);
            let blocks = blocks_of(made.graph(), &HashSet::new());
            let calls = model.proto().functions.len().max(1) + usize::from(!model.proto().functions.is_empty());
            assert_eq!(blocks, calls * report.summary["nodes_quantized"].as_u64().unwrap() as usize);
        }
    }
}
