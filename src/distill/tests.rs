//! Tests of whole models against PyTorch, and of whole runs.

use super::data::Batch;
use super::graph::{Graphs, Known, build};
use super::objective::input;
use super::options::Weights;
use super::signals::{Pair, Signals};
use super::*;
use crate::calibrate::read_tensors;
use crate::open;
use crate::runtime::{Session, SessionOptions, Tensor, test_runtime};
use crate::source::{Dialect, LoadOptions};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn tiny(path: &str, dialect: Dialect) -> Model {
    open::load(&fixtures().join(path), &LoadOptions { dialect }).unwrap()
}

fn graphs_of(model: &Model, signals: &Signals, known: &Known) -> Graphs {
    build(test_runtime(), model, known, signals, &DistillOptions::default(), &Call::default()).unwrap()
}

fn one_thread() -> DistillOptions {
    DistillOptions { threads: 1, ..DistillOptions::default() }
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
    Batch { rows, columns, ids: ids.as_slice::<i64>().unwrap().to_vec(), keep, ..Batch::default() }
}

/// Returns losses and gradients of the training graph, by name of the weight.
pub(super) fn run(
    graphs: &Graphs,
    model: &Model,
    batch: &Batch,
    more: &[(&str, Tensor)],
) -> (Vec<f32>, HashMap<String, Vec<f32>>) {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let proto = Model::from_proto(graphs.train.clone());
    let session = Session::new(test_runtime(), &proto, &options, &Call::default()).unwrap();
    let there: Vec<String> = session.inputs().iter().map(|info| info.name.clone()).collect();
    let names: Vec<&str> = there.iter().map(String::as_str).collect();
    let mut inputs =
        Feed::new(model).unwrap().only(&names).tensors([batch.rows, batch.columns], &batch.ids, &batch.keep).unwrap();
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
            let labels = batch.next().map(|label| label.unwrap_or(0)).collect();
            let counts = batch.next().map(|label| if label.is_some() { share } else { 0.0 }).collect();
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

fn check_parts(prefix: &str, tensors: &HashMap<String, Tensor>, found: &HashMap<String, Vec<f32>>) {
    let mut seen = 0;
    for (key, tensor) in tensors {
        let Some(weight) = key.strip_prefix(&format!("{prefix}.gradient.")) else { continue };
        let expected = tensor.as_slice::<f64>().unwrap();
        let found = found.iter().find(|(n, _)| n.ends_with(weight)).map(|(_, values)| values);
        let found = found.unwrap_or_else(|| panic!("{prefix}: no gradient of {weight}"));
        let largest = expected.iter().fold(1e-12f64, |m, v| m.max(v.abs()));
        let differ = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(differ / largest <= 2e-5, "{prefix}: {weight} is off by {:.1e}", differ / largest);
        seen += 1;
    }
    assert!(seen >= 2);
}

/// Returns teacher and student of the fixture `training`, and their pairs of values.
fn decoders() -> (Model, Model, Pair) {
    let model = |name: &str| tiny(&format!("checkpoints/{name}"), Dialect::Runtime);
    (model("llama-yarn"), model("llama"), Pair { teacher: "logits".into(), student: "logits".into() })
}

#[test]
fn divergences_have_the_loss_and_gradients_that_pytorch_gives() {
    let tensors = reference("training");
    let ids = tensors["ids"].as_slice::<i64>().unwrap()[..48].to_vec();
    let batch = Batch { rows: 4, columns: 12, ids, keep: vec![true; 48], ..Batch::default() };
    let (teacher, student, pair) = decoders();
    for (name, divergence) in [
        ("forward", Divergence::Forward),
        ("reverse", Divergence::Reverse),
        ("jensen-shannon", Divergence::JensenShannon),
    ] {
        let weights = Weights { logits: 1.0, ..Weights::default() };
        let signals = Signals { logits: Some(pair.clone()), weights, ..Signals::default() };
        let options = DistillOptions { divergence, ..DistillOptions::default() };
        let call = Call::default();
        let (mut asked, known) = Teacher::new(test_runtime(), &teacher, &signals, &one_thread(), &call).unwrap();
        let graphs = build(test_runtime(), &student, &known, &signals, &options, &call).unwrap();
        let said = asked.say(&batch, &crate::runtime::Stop::new().unwrap()).unwrap();
        let mut more: Vec<(&str, Tensor)> = said.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        more.push((input::WEIGHTS, Tensor::from_f32(&[4, 12], vec![1.0 / 48.0; 48]).unwrap()));
        let (losses, found) = run(&graphs, &student, &batch, &more);
        let expected = tensors[&format!("{name}.loss")].as_slice::<f64>().unwrap()[0];
        assert!((f64::from(losses[0]) - expected).abs() < 2e-5 * expected, "{name}: {losses:?} and {expected}");
        check_parts(name, &tensors, &found);
    }
}

#[test]
fn hidden_states_and_relations_have_the_loss_and_gradients_that_pytorch_gives() {
    let tensors = reference("encoders");
    let batch = batch(&tensors);
    let (teacher, student) = (tiny("encoders/bert-tanh", Dialect::Runtime), tiny("encoders/bert", Dialect::Runtime));
    for name in ["hidden", "cosine", "relations"] {
        let one = |part: &str| Some(f32::from(part == name));
        let asked = LossWeights {
            logits: Some(0.0),
            labels: Some(0.0),
            hidden: one("hidden"),
            cosine: one("cosine"),
            relations: one("relations"),
        };
        let mut signals = Signals::find(&teacher, &student, asked, false).unwrap();
        // The reference covers only the outputs.
        signals.hidden.truncate(1);
        let call = Call::default();
        let (mut asked, known) = Teacher::new(test_runtime(), &teacher, &signals, &one_thread(), &call).unwrap();
        let options = DistillOptions::default();
        let graphs = build(test_runtime(), &student, &known, &signals, &options, &call).unwrap();
        let said = asked.say(&batch, &crate::runtime::Stop::new().unwrap()).unwrap();
        let mut more: Vec<(&str, Tensor)> = said.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        let kept = |value: f32| batch.keep.iter().map(|k| if *k { value } else { 0.0 }).collect::<Vec<f32>>();
        let both = [batch.rows as i64, batch.columns as i64];
        more.push((input::WEIGHTS, Tensor::from_f32(&both, kept(1.0 / batch.tokens() as f32)).unwrap()));
        more.push((input::KEEP, Tensor::from_f32(&both, kept(1.0)).unwrap()));
        let (losses, found) = run(&graphs, &student, &batch, &more);
        let at = graphs.parts.iter().position(|part| part.name == name).unwrap();
        let expected = tensors[&format!("{name}.loss")].as_slice::<f64>().unwrap()[0];
        assert!((f64::from(losses[at]) - expected).abs() < 2e-5 * expected, "{name}: {losses:?} and {expected}");
        check_parts(name, &tensors, &found);
    }
}

#[test]
fn classes_are_labels_where_they_are_known() {
    let model = tiny("encoders/bert-classify", Dialect::Runtime);
    let asked = LossWeights { labels: Some(1.0), logits: Some(0.0), ..LossWeights::default() };
    let refused = Signals::find(&model, &model, asked, false).err().unwrap().to_string();
    assert!(refused.contains("has no classes"), "{refused}");
    let signals = Signals::find(&model, &model, asked, true).unwrap();
    let (_, known) = Teacher::new(test_runtime(), &model, &signals, &one_thread(), &Call::default()).unwrap();
    let graphs = graphs_of(&model, &signals, &known);
    let batch = Batch { rows: 3, columns: 4, ids: (4..16).collect(), keep: vec![true; 12], ..Batch::default() };
    let labels = Tensor::from_i64(&[3], vec![1, 0, 0]).unwrap();
    let counts = Tensor::from_f32(&[3], vec![0.5, 0.0, 0.5]).unwrap();
    let (losses, found) = run(&graphs, &model, &batch, &[(input::LABELS, labels), (input::LABEL_WEIGHTS, counts)]);
    let session = Session::new(test_runtime(), &model, &SessionOptions::default(), &Call::default()).unwrap();
    let inputs = Feed::new(&model).unwrap().tensors([batch.rows, batch.columns], &batch.ids, &batch.keep).unwrap();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let logits = session.run(&inputs, &["logits"], &Call::default()).unwrap().remove(0).1;
    let rows: Vec<&[f32]> = logits.as_slice::<f32>().unwrap().chunks(logits.shape()[1] as usize).collect();
    let surprise =
        |row: &[f32], class: usize| row.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln() - f64::from(row[class]);
    let expected = 0.5 * (surprise(rows[0], 1) + surprise(rows[2], 0));
    assert!((f64::from(losses[0]) - expected).abs() < 1e-5, "{losses:?} and {expected}");
    let bias = found.iter().find(|(name, _)| name.ends_with("classifier.bias")).unwrap().1;
    let share = |row: &[f32], class: usize| (-surprise(row, class)).exp();
    for (class, slope) in bias.iter().enumerate() {
        let right = f64::from(u8::from(class == 1)) + f64::from(u8::from(class == 0));
        let expected = 0.5 * (share(rows[0], class) + share(rows[2], class) - right);
        assert!((f64::from(*slope) - expected).abs() < 1e-5, "{class}: {slope} and {expected}");
    }
}

/// Returns a trainer of the fixture `training`, its batches and the expected losses.
fn trainer(options: &DistillOptions) -> (Trainer, Vec<Batch>, Vec<f64>) {
    trainer_on(options, None)
}

fn trainer_on(options: &DistillOptions, on_device: Option<bool>) -> (Trainer, Vec<Batch>, Vec<f64>) {
    let tensors = reference("training");
    let (teacher, student, pair) = decoders();
    let weights = Weights { logits: 1.0, labels: 0.5, ..Weights::default() };
    let signals = Signals { logits: Some(pair), weights, ..Signals::default() };
    let call = Call::default();
    let (asked, known) = Teacher::new(test_runtime(), &teacher, &signals, options, &call).unwrap();
    let graphs = build(test_runtime(), &student, &known, &signals, options, &call).unwrap();
    let trainer = Trainer::with_learner(test_runtime(), &graphs, &student, asked, options, on_device, &call).unwrap();
    let ids = tensors["ids"].as_slice::<i64>().unwrap();
    let batch =
        |ids: &[i64]| Batch { rows: 4, columns: 12, ids: ids.to_vec(), keep: vec![true; 48], ..Batch::default() };
    (trainer, ids.chunks(48).map(batch).collect(), tensors["losses"].as_slice::<f64>().unwrap().to_vec())
}

#[test]
fn ten_steps_have_the_losses_that_pytorch_has() {
    for threads in [1, 2] {
        let options = DistillOptions { threads, weight_decay: 0.1, ..DistillOptions::default() };
        let (mut trainer, batches, expected) = trainer(&options);
        let stop = crate::runtime::Stop::new().unwrap();
        for (index, (batch, expected)) in batches.iter().zip(&expected).enumerate() {
            let batch = std::slice::from_ref(batch);
            let done = trainer.step(batch, &options, index as u64 + 1, 2e-3, &stop).unwrap();
            assert!((done.loss - expected).abs() < 1e-4 * expected, "step {index}: {} and {expected}", done.loss);
        }
        assert!(expected[9] < expected[0]);
    }
}

/// Updates of the rows that were read give the same bits as updates by whole gradients, except for the order of sums if
/// a step consists of two runs.
#[test]
fn tables_learn_the_same_row_by_row() {
    let (teacher, student) = (tiny("encoders/bert-tanh", Dialect::Runtime), tiny("encoders/bert", Dialect::Runtime));
    let asked = LossWeights { logits: Some(0.0), labels: Some(0.0), ..LossWeights::default() };
    let signals = Signals::find(&teacher, &student, asked, false).unwrap();
    let options = DistillOptions { max_grad_norm: 0.0, ..one_thread() };
    let call = Call::default();
    let trainer = |by_rows: bool| {
        let (asked, known) = Teacher::new(test_runtime(), &teacher, &signals, &options, &call).unwrap();
        let mut graphs = build(test_runtime(), &student, &known, &signals, &options, &call).unwrap();
        let found: Vec<&str> = graphs.lookups.iter().flatten().map(|lookup| lookup.ids.as_str()).collect();
        assert!(found.contains(&"input_ids"), "{found:?}");
        if !by_rows {
            graphs.lookups.iter_mut().for_each(|lookup| *lookup = None);
            graphs.train_by_rows = graphs.train.clone();
        }
        Trainer::new(test_runtime(), &graphs, &student, asked, &options, &call).unwrap()
    };
    for (runs, tolerance) in [(1, 0.0), (2, 1e-4f32)] {
        let (mut rows, mut whole) = (trainer(true), trainer(false));
        let stop = crate::runtime::Stop::new().unwrap();
        let mut batch = batch(&reference("encoders"));
        let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        for count in 1..=6 {
            let batches = vec![batch.clone(); runs];
            let a = rows.step(&batches, &options, count, 1e-3, &stop).unwrap();
            let b = whole.step(&batches, &options, count, 1e-3, &stop).unwrap();
            assert!((a.loss - b.loss).abs() <= f64::from(tolerance) * b.loss, "step {count}: {a:?} {b:?}");
            assert!((a.norm - b.norm).abs() <= 1e-4 * b.norm, "step {count}: {a:?} {b:?}");
            // The next step reads other tokens, so that rows of the table are not read for several steps.
            batch.ids.iter_mut().for_each(|id| *id = (*id + 1) % 20);
            // The weights are not compared after each step, so that some rows have several steps to catch up.
            if count % 3 == 0 {
                let (a, b) = (rows.snapshot().unwrap(), whole.snapshot().unwrap());
                let worst = a.iter().zip(&b).map(|(a, b)| apart(a, b)).fold(0f32, f32::max);
                assert!(worst <= tolerance, "step {count}: {worst}");
            }
        }
        let (a, b) = (rows.state().unwrap(), whole.state().unwrap());
        for (a, b) in a.1.iter().zip(b.1.iter()) {
            assert!(apart(&a.first, &b.first) <= tolerance && apart(&a.second, &b.second) <= tolerance);
        }
    }
}

#[test]
fn weights_that_stay_on_a_device_learn_the_same() {
    for gradient_accumulation_steps in [1, 2] {
        let options =
            DistillOptions { threads: 1, weight_decay: 0.1, gradient_accumulation_steps, ..DistillOptions::default() };
        let (mut host, batches, _) = trainer(&options);
        let (mut device, ..) = trainer_on(&options, Some(true));
        let stop = crate::runtime::Stop::new().unwrap();
        for (step, batches) in batches.chunks(gradient_accumulation_steps).enumerate() {
            let count = step as u64 + 1;
            let a = host.step(batches, &options, count, 2e-3, &stop).unwrap();
            let b = device.step(batches, &options, count, 2e-3, &stop).unwrap();
            assert!((a.loss - b.loss).abs() < 1e-4 * a.loss, "step {step}: {a:?} {b:?}");
            assert!((a.norm - b.norm).abs() < 1e-3 * a.norm && !b.skipped, "step {step}: {a:?} {b:?}");
        }
        let (a, b) = (host.snapshot().unwrap(), device.snapshot().unwrap());
        let largest = |lists: &[Vec<f32>]| lists.iter().flatten().fold(0f32, |m, v| m.max(v.abs()));
        let apart = a.iter().zip(&b).flat_map(|(a, b)| a.iter().zip(b)).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart < 1e-3 * largest(&a), "{apart}");
        let (loss, _) = host.measure(&batches, &stop).unwrap();
        let (again, _) = device.measure(&batches, &stop).unwrap();
        assert!((loss - again).abs() < 1e-4 * loss, "{loss} {again}");
        // If the loss is NaN, an update changes nothing.
        let before = device.snapshot().unwrap();
        let mut broken = before.clone();
        broken[0].fill(f32::NAN);
        let moments = device.state().unwrap().1.into_owned();
        device.restore(&broken, moments.clone()).unwrap();
        let done = device.step(&batches[..gradient_accumulation_steps], &options, 11, 1e-3, &stop).unwrap();
        assert!(done.skipped);
        let after = device.snapshot().unwrap();
        assert_eq!(before[1..], after[1..]);
        device.restore(&before, moments).unwrap();
        let done = device.step(&batches[..gradient_accumulation_steps], &options, 11, 1e-3, &stop).unwrap();
        assert!(!done.skipped, "what was not finite is gone");
    }
}

#[test]
fn two_runs_make_the_step_of_one_that_reads_both() {
    let options = DistillOptions { threads: 1, ..DistillOptions::default() };
    let ((mut once, batches, _), (mut twice, ..)) = (trainer(&options), trainer(&options));
    let stop = crate::runtime::Stop::new().unwrap();
    let both = Batch {
        rows: 8,
        columns: 12,
        ids: [batches[0].ids.clone(), batches[1].ids.clone()].concat(),
        keep: vec![true; 96],
        ..Batch::default()
    };
    let a = once.step(&[both], &options, 1, 1e-3, &stop).unwrap();
    let b = twice.step(&batches[..2], &options, 1, 1e-3, &stop).unwrap();
    assert!((a.loss - b.loss).abs() < 1e-5 * a.loss && (a.norm - b.norm).abs() < 1e-4 * a.norm, "{a:?} {b:?}");
    assert_eq!(a.tokens, b.tokens);
}

#[test]
fn weights_that_no_training_made_one_are_parted_and_those_that_are_one_stay_so() {
    let shared = edit::float_tensor("zeros", &[4], &[0.0; 4]);
    let table = edit::float_tensor("table", &[3, 4], &(0..12).map(|i| i as f32).collect::<Vec<f32>>());
    let transposed: Vec<f32> = (0..4).flat_map(|c| (0..3).map(move |r| (4 * r + c) as f32)).collect();
    let head = edit::float_tensor("head", &[4, 3], &transposed);
    let nodes = vec![
        edit::node("Gather", &["table", "ids"], &["x"]),
        edit::node("Add", &["x", "zeros"], &["y"]),
        edit::node("Add", &["y", "zeros"], &["z"]),
        edit::node("MatMul", &["z", "head"], &["logits"]),
    ];
    let graph = crate::onnx::proto::GraphProto {
        node: nodes,
        initializer: vec![shared, table, head],
        input: vec![edit::value("ids", crate::onnx::dtype::DataType::Int64, 2)],
        output: vec![edit::untyped("logits")],
        ..Default::default()
    };
    let proto = crate::onnx::proto::ModelProto { graph: Some(Box::new(graph)), ..Default::default() };
    let ready = student::ready(&Model::from_proto(proto)).unwrap().0;
    let graph = ready.graph();
    let names: Vec<&str> = graph.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
    assert_eq!(names, ["zeros", "table", "zeros_2"]);
    let adds: Vec<&str> = graph.node.iter().filter(|n| n.is("Add")).map(|n| n.input[1].as_str()).collect();
    assert_eq!(adds, ["zeros", "zeros_2"]);
    let transposed = graph.node.iter().find(|node| node.is("Transpose")).unwrap();
    assert_eq!(transposed.input[0], "table");
}

#[test]
fn weights_in_blocks_become_what_they_stand_for() {
    let model = tiny("checkpoints/llama", Dialect::Runtime);
    for bits in [4, 8] {
        let quantization = crate::quantize::QuantizeOptions {
            quantize_type: crate::quantize::QuantizeType::WeightOnly,
            bits,
            accuracy_level: 1,
            ..crate::quantize::QuantizeOptions::default()
        };
        let (quantized, _) = crate::quantize::quantize(&model, &quantization, &Call::default()).unwrap();
        let (ready, count) = student::ready(&quantized).unwrap();
        assert!(count > 5, "{count} nodes");
        let graph = ready.graph();
        assert!(!graph.node.iter().any(|node| node.op().ends_with("NBits") || node.op() == "GatherBlockQuantized"));
        let logits = |model: &Model| {
            let session = Session::new(test_runtime(), model, &SessionOptions::default(), &Call::default()).unwrap();
            let batch = Batch { rows: 2, columns: 5, ids: (3..13).collect(), keep: vec![true; 10], ..Batch::default() };
            let inputs =
                Feed::new(model).unwrap().tensors([batch.rows, batch.columns], &batch.ids, &batch.keep).unwrap();
            let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            session.run(&inputs, &["logits"], &Call::default()).unwrap().remove(0).1.to_f32_vec().unwrap()
        };
        let (a, b) = (logits(&quantized), logits(&ready));
        let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
        let apart = a.iter().zip(&b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart < 1e-4 * largest, "{bits} bits: {apart} of {largest}");
    }
}

#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let corpus = Corpus::from_text(&"Some words of a line.\n".repeat(60)).unwrap();
    let teacher = Model::load(&crate::runtime::test_deps("models/all-MiniLM-L6-v2")).unwrap();
    let tried = |student: &Model, options: &DistillOptions| {
        distill(test_runtime(), &teacher, student, &corpus, options, &|_| ControlFlow::Continue(()), &Call::default())
            .err()
            .unwrap()
            .to_string()
    };
    let options = DistillOptions { max_steps: 1, ..DistillOptions::default() };
    let (quantized, _) = crate::quantize::quantize(&teacher, &Default::default(), &Call::default()).unwrap();
    let text = tried(&quantized, &options);
    assert!(text.contains("no gradient exists for") || text.contains("no float32 weights"), "{text}");
    let vad = Model::load(&crate::runtime::test_deps("models/silero-vad/silero_vad.onnx")).unwrap();
    let text = tried(&vad, &options);
    assert!(text.contains("not an input of a text model"), "a model of sound: {text}");
    let frozen = DistillOptions { freeze: vec!["nothing.*".into()], ..options.clone() };
    assert!(tried(&teacher, &frozen).contains("matches no weight"));
}
