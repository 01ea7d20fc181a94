//! Whole models against PyTorch, and whole runs.

use super::data::Batch;
use super::graph::{Graphs, Known, build};
use super::objective::input;
use super::options::Weights;
use super::signals::{Pair, Signals};
use super::*;
use crate::calibrate::read_tensors;
use crate::runtime::{Session, SessionOptions, Tensor, test_runtime};
use crate::source::{self, Dialect, LoadOptions};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn tiny(path: &str, dialect: Dialect) -> Model {
    source::load(&fixtures().join(path), &LoadOptions { dialect }).unwrap()
}

fn graphs_of(model: &Model, signals: &Signals, known: &Known) -> Graphs {
    build(test_runtime(), model, known, signals, &DistillOptions::default(), &Call::default()).unwrap()
}

fn reference(name: &str) -> HashMap<String, Tensor> {
    read_tensors(&fixtures().join(format!("gradients/models/{name}.safetensors"))).unwrap().into_iter().collect()
}

fn batch(tensors: &HashMap<String, Tensor>) -> Batch {
    let ids = &tensors["ids"];
    let keep = match tensors.get("keep") {
        Some(keep) => keep.as_slice::<i64>().unwrap().iter().map(|k| *k != 0).collect(),
        None => vec![true; ids.elements()],
    };
    let (rows, columns) = (ids.shape()[0] as usize, ids.shape()[1] as usize);
    Batch { rows, columns, ids: ids.as_slice::<i64>().unwrap().to_vec(), keep }
}

/// Losses and gradients of the training graph, by name of the weight.
fn run(graphs: &Graphs, model: &Model, batch: &Batch, more: &[(&str, Tensor)]) -> (Vec<f32>, HashMap<String, Vec<f32>>) {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let proto = Model::from_proto(graphs.train.clone());
    let mut session = Session::new(test_runtime(), &proto, &options, &Call::default()).unwrap();
    let there: Vec<String> = session.inputs().iter().map(|info| info.name.clone()).collect();
    let names: Vec<&str> = there.iter().map(String::as_str).collect();
    let mut inputs = feed::Feed::new(model).unwrap().only(&names).tensors(batch).unwrap();
    for (parameter, values) in graphs.parameters.iter().zip(&graphs.initial) {
        inputs.push((parameter.name.clone(), Tensor::from_f32(&parameter.dims, values.clone()).unwrap()));
    }
    inputs.extend(more.iter().filter(|(n, _)| names.contains(n)).map(|(n, t)| ((*n).to_owned(), t.clone())));
    let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut asked: Vec<&str> = graphs.parts.iter().map(|part| part.output.as_str()).collect();
    asked.extend(graphs.gradients.iter().map(String::as_str));
    let made = session.run(&feed, &asked, &Call::default()).unwrap();
    let values = |index: usize| made[index].1.as_slice::<f32>().unwrap().to_vec();
    let losses = (0..graphs.parts.len()).map(|index| values(index)[0]).collect();
    let of = |(index, p): (usize, &parameters::Parameter)| (p.name.clone(), values(graphs.parts.len() + index));
    (losses, graphs.parameters.iter().enumerate().map(of).collect())
}

fn compare(name: &str, found: &HashMap<String, Vec<f32>>, tensors: &HashMap<String, Tensor>, most: f64) {
    let mut seen = 0;
    for (key, tensor) in tensors {
        let Some(weight) = key.strip_prefix("gradient.") else { continue };
        let Some(found) = found.iter().find(|(n, _)| n.ends_with(weight)).map(|(_, values)| values) else {
            panic!("{name}: no gradient of {weight} among {:?}", found.keys());
        };
        let expected = tensor.as_slice::<f32>().unwrap();
        let largest = expected.iter().fold(1e-6f64, |m, v| m.max(f64::from(v.abs())));
        let differ = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        assert!(differ / largest <= most, "{name}: {weight} is off by {:.1e}", differ / largest);
        seen += 1;
    }
    assert!(seen > 10, "{name}: only {seen} weights");
}

#[test]
fn decoders_have_the_loss_and_gradients_that_pytorch_gives() {
    for name in ["llama", "qwen3", "gpt2"] {
        let tensors = reference(name);
        let batch = batch(&tensors);
        for dialect in [Dialect::Runtime, Dialect::Portable] {
            let model = tiny(&format!("checkpoints/{name}"), dialect);
            let pair = Pair { teacher: "logits".into(), student: "logits".into() };
            let weights = Weights { labels: 1.0, ..Weights::default() };
            let signals = Signals { logits: Some(pair), weights, ..Signals::default() };
            let graphs = graphs_of(&model, &signals, &Known::new());
            let both = [batch.rows as i64, batch.columns as i64];
            let share = 1.0 / (batch.rows * (batch.columns - 1)) as f32;
            let labels = batch.next().map(|(id, _)| id).collect();
            let counts = batch.next().map(|(_, known)| if known { share } else { 0.0 }).collect();
            let more = [
                (input::LABELS, Tensor::from_i64(&both, labels).unwrap()),
                (input::LABEL_WEIGHTS, Tensor::from_f32(&both, counts).unwrap()),
            ];
            let (losses, found) = run(&graphs, &model, &batch, &more);
            let expected = tensors["loss"].as_slice::<f64>().unwrap()[0];
            assert!((f64::from(losses[0]) - expected).abs() < 1e-5 * expected, "{name}: {losses:?} and {expected}");
            compare(&format!("{name} {dialect:?}"), &found, &tensors, 1e-5);
        }
    }
}

