//! Tests of members that take no part in a fused model, and of members that cannot be fused.

use crate::call::Call;
use crate::encoder::{Embedder, EmbedderOptions};
use crate::ensemble::combine::tests::reference;
use crate::ensemble::tests::{farthest, matrix, run};
use crate::ensemble::{Ensemble, EnsembleOptions, Method};
use crate::error::Kind;
use crate::model::{Card, Model, SideContent, SideFile, Task};
use crate::onnx::proto::GraphProto;
use crate::onnx::save::ExternalData;
use crate::runtime::test_runtime;
use crate::runtime::testing::{graph, node, value, weight};
use std::path::Path;

#[test]
fn a_member_of_weight_zero_takes_no_part() {
    let ruled_out = {
        let mut model = matrix(1.3, "all", 5).proto().clone();
        let graph = model.graph.as_deref_mut().unwrap();
        let mask = [0.0, f32::NEG_INFINITY, 0.0, 0.0, f32::NEG_INFINITY];
        graph.initializer.push(weight("mask", &[5], &mask));
        graph.node.push(node("Add", &["all", "mask"], "logits"));
        graph.output = vec![value("logits", 1, &["batch", "5"])];
        Model::from_proto(model)
    };
    let first = matrix(0.7, "logits", 5);
    let rows = run(&first);
    for (method, weight) in [(Method::Mean, 1.0), (Method::Logits, 1.0), (Method::Product, 2.0), (Method::Vote, 1.0)] {
        let options = EnsembleOptions { method, task: Some(Task::Classify), ..EnsembleOptions::default() };
        let both = Ensemble::new(vec![first.clone(), ruled_out.clone()], options).unwrap();
        let got = run(&both.with_weights(&[1.0, 0.0]).unwrap().fuse(&Call::default()).unwrap().0);
        for row in [0, 5] {
            // A weighted product is `softmax(M Σ w ln p)`: with two members of the weights 1 and 0, the normalized
            // square of the first member's distribution.
            let expected = reference(method, &[rows[row..row + 5].to_vec()], &[weight], &[1.0]);
            assert!(farthest(&got[row..row + 5], &expected) < 1e-6, "{method:?}: {got:?}");
        }
    }
}

/// Returns a classifier of two texts of four numbers.
fn classifier(scale: f32, classes: usize, problem: Option<&str>) -> Model {
    let config = serde_json::json!({ "problem_type": problem }).as_object().cloned().unwrap();
    matrix(scale, "logits", classes).with_card(Card { task: Task::Classify, config, ..Card::default() })
}

const SCALES: [f32; 3] = [0.7, 1.3, 2.1];
const TEMPERATURES: [f64; 3] = [1.0, 0.5, 2.0];

/// Checks the outputs of an ensemble of the first `count` classifiers with these properties: `expected` computes an
/// output from the members' logits, each divided by the temperature, and the weights.
fn check(
    (method, count): (Method, usize),
    (classes, problem): (usize, Option<&str>),
    read: fn(f64) -> f64,
    expected: &dyn Fn(Vec<f64>, &[f64]) -> f64,
) {
    let models: Vec<Model> = SCALES[..count].iter().map(|scale| classifier(*scale, classes, problem)).collect();
    let logits: Vec<Vec<f32>> = models.iter().map(run).collect();
    let given = match method {
        Method::Max | Method::Median => Vec::new(),
        _ => vec![0.5, 0.3, 0.2][..count].to_vec(),
    };
    let temperatures = TEMPERATURES[..count].to_vec();
    let options = EnsembleOptions { method, weights: given, temperatures, ..EnsembleOptions::default() };
    let ensemble = Ensemble::new(models, options).unwrap();
    let weights: Vec<f64> = ensemble.members().iter().map(|member| member.weight).collect();
    let found = run(&ensemble.fuse(&Call::default()).unwrap().0);
    assert_eq!(found.len(), 2 * classes);
    for (index, found) in found.iter().enumerate() {
        let column = logits.iter().zip(TEMPERATURES).map(|(row, t)| f64::from(row[index]) / t).collect();
        let (found, expected) = (read(f64::from(*found)), expected(column, &weights));
        assert!((found - expected).abs() < 1e-5, "{method:?}, {count} members: {found} and {expected}");
    }
}

fn weighted(values: &[f64], weights: &[f64]) -> f64 {
    values.iter().zip(weights).map(|(value, weight)| value * weight).sum()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

#[test]
fn one_logit_and_a_regression_are_combined_as_numbers() {
    for like in [(1, None), (1, Some("single_label_classification")), (1, Some("regression")), (3, Some("regression"))]
    {
        let check = |method, count, expected: &dyn Fn(Vec<f64>, &[f64]) -> f64| {
            check((method, count), like, |logit| logit, expected);
        };
        for method in [Method::Mean, Method::Weighted, Method::Logits] {
            check(method, 3, &|values, weights| weighted(&values, weights));
        }
        check(Method::Max, 3, &|values, _| values.into_iter().fold(f64::MIN, f64::max));
        for count in [2, 3] {
            check(Method::Median, count, &|values, _| middle(values));
        }
        for method in [Method::Product, Method::Vote] {
            let models = SCALES.map(|scale| classifier(scale, like.0, like.1)).to_vec();
            let options = EnsembleOptions { method, ..EnsembleOptions::default() };
            let e = Ensemble::new(models, options).err().unwrap();
            let says = "combines classes, but the outputs of the members are numbers";
            assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains(says), "{e}");
        }
    }
}

#[test]
fn labels_that_do_not_exclude_each_other_are_combined_one_by_one() {
    let sigmoid: fn(f64) -> f64 = |logit| 1.0 / (1.0 + (-logit).exp());
    let all = move |values: Vec<f64>| values.into_iter().map(sigmoid).collect::<Vec<f64>>();
    for classes in [3, 5] {
        let check = |method, count, expected: &dyn Fn(Vec<f64>, &[f64]) -> f64| {
            check((method, count), (classes, Some("multi_label_classification")), sigmoid, expected);
        };
        for method in [Method::Mean, Method::Weighted] {
            check(method, 3, &|values, weights| weighted(&all(values), weights));
        }
        check(Method::Logits, 3, &|values, weights| sigmoid(weighted(&values, weights)));
        check(Method::Product, 3, &|values, weights| sigmoid(3.0 * weighted(&values, weights)));
        check(Method::Max, 3, &|values, _| all(values).into_iter().fold(0.0, f64::max));
        check(Method::Vote, 3, &|values, weights| {
            weighted(&values.iter().map(|value| f64::from(u8::from(*value > 0.0))).collect::<Vec<f64>>(), weights)
        });
        for count in [2, 3] {
            check(Method::Median, count, &|values, _| middle(all(values)));
        }
    }
    let models = vec![classifier(0.7, 3, Some("multi_label_classification")), classifier(1.3, 3, None)];
    let e = Ensemble::new(models, EnsembleOptions::default()).err().unwrap();
    assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains("but member 2 has logits of classes"), "{e}");
}

/// Returns a classifier whose output `output` has the logits, or the scores that an operator computes from them.
fn scoring(scale: f32, operator: &str, output: &str) -> Model {
    let mut model = matrix(scale, "all", 3).proto().clone();
    let graph = model.graph.as_deref_mut().unwrap();
    graph.node.push(node(operator, &["all"], output));
    graph.output = vec![value(output, 1, &["batch", "3"])];
    Model::from_proto(model).with_card(Card { task: Task::Classify, ..Card::default() })
}

#[test]
fn scores_are_combined_to_scores() {
    // The mean of scores is their mean in every kind of output, whether an operator or a name tells what it has.
    for (operator, output) in [("Softmax", "logits"), ("Sigmoid", "logits"), ("Softmax", "probs"), ("Tanh", "scores")] {
        let models = [scoring(0.7, operator, output), scoring(1.3, operator, output)];
        let [a, b] = models.each_ref().map(run);
        let options = EnsembleOptions { weights: vec![0.25, 0.75], ..EnsembleOptions::default() };
        let fused = Ensemble::new(models.to_vec(), options).unwrap().fuse(&Call::default()).unwrap().0;
        for (found, (a, b)) in run(&fused).iter().zip(a.iter().zip(&b)) {
            assert!((found - (0.25 * a + 0.75 * b)).abs() < 1e-6, "{operator} {output}: {found}, {a} and {b}");
        }
    }
    let models = vec![scoring(0.7, "Softmax", "logits"), scoring(1.3, "Identity", "logits")];
    let e = Ensemble::new(models, EnsembleOptions::default()).err().unwrap();
    assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains("member 1 has scores of classes"), "{e}");
}

#[test]
fn a_manifest_that_could_not_be_loaded_is_not_written() {
    let folder = std::env::temp_dir().join(format!("optimize-labels-{}", std::process::id()));
    let labels = GraphProto {
        output: vec![value("label", 7, &["1", "4"])],
        node: vec![node("ArgMax", &["x"], "label")],
        ..graph(Vec::new(), vec![value("x", 1, &["batch", "4"])], Vec::new())
    };
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("labels.onnx");
    Model::from_proto(crate::runtime::testing::model(labels))
        .save(&path, ExternalData::Auto, &Call::default())
        .unwrap();
    let models = vec![Model::load(&path).unwrap(), Model::load(&path).unwrap()];
    let e = Ensemble::new(models, EnsembleOptions::default()).unwrap().save(&folder.join("both")).err().unwrap();
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("only float outputs are combined"), "{e}");
    assert!(!folder.join("both").exists());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn outputs_of_other_sizes_are_refused_and_others_named() {
    let fuse = |models: [Model; 2]| {
        let options = EnsembleOptions { task: Some(Task::Unknown), ..EnsembleOptions::default() };
        Ensemble::new(models.to_vec(), options).unwrap().fuse(&Call::default())
    };
    // Without a check, a size of 1 would be broadcast.
    for outputs in [1, 4] {
        let e = fuse([matrix(1.0, "y", 3), matrix(1.0, "y", outputs)]).err().unwrap();
        let text = format!("dimension 1 of output \"y\" is {outputs}, but that of member 1 is 3");
        assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains(&text), "{e}");
    }
    let mut more = matrix(1.0, "y", 3).proto().clone();
    let graph = more.graph.as_deref_mut().unwrap();
    graph.node.push(node("Relu", &["y"], "z"));
    graph.output.push(value("z", 1, &["batch", "3"]));
    let (_, report) = fuse([matrix(1.0, "y", 3), Model::from_proto(more)]).unwrap();
    assert!(report.warnings.concat().contains("member 2: output \"z\" is left out"), "{:?}", report.warnings);
}

/// Returns a tiny embedder of sentences with a file next to it.
fn beside(name: &str, content: &'static str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentences/model");
    let model = Model::load(&folder).unwrap();
    let mut card = model.card().clone();
    card.side_files.retain(|file| file.name != name);
    card.side_files.push(SideFile { name: name.to_owned(), content: SideContent::Bytes(content.as_bytes().into()) });
    model.with_card(card)
}

/// Returns the normalized vectors of two texts, and their number of elements.
fn vectors(model: &Model) -> (Vec<f32>, usize) {
    let options = EmbedderOptions { normalize: true, ..EmbedderOptions::default() };
    let embedder = Embedder::new(test_runtime(), model, None, &options, &Call::default()).unwrap();
    let found = embedder.embed(&["Hello World ab ruty", "hello"], &Call::default()).unwrap();
    (found.values, found.width)
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn embedders_keep_their_numbers_of_elements_and_the_least_of_their_lengths() {
    let whole = beside("config_sentence_transformers.json", "{}");
    let cut = beside("config_sentence_transformers.json", r#"{"truncate_dim": 5}"#);
    let short = beside("sentence_bert_config.json", r#"{"max_seq_length": 4}"#);
    let of = |method, models: [&Model; 2]| {
        let options = EnsembleOptions { method, ..EnsembleOptions::default() };
        Ensemble::new(models.map(Model::clone).to_vec(), options).unwrap()
    };
    let ((a, a_width), (b, b_width)) = (vectors(&whole), vectors(&cut));
    assert_eq!((a_width, b_width), (8, 5));
    for (models, rows) in [([&whole, &cut], [(&a, 8), (&b, 5)]), ([&cut, &whole], [(&b, 5), (&a, 8)])] {
        let (found, width) = vectors(&of(Method::Concat, models).fuse(&Call::default()).unwrap().0);
        let part = |row: usize| rows.map(|(values, width)| values[row * width..(row + 1) * width].to_vec()).concat();
        let expected: Vec<f32> = [part(0), part(1)].concat().iter().map(|x| x * 0.5f32.sqrt()).collect();
        assert!(width == 13 && near(&found, &expected), "{found:?} {expected:?}");
    }
    assert!(of(Method::Concat, [&whole, &cut]).notes().is_empty());
    let error = of(Method::Mean, [&whole, &cut]).fuse(&Call::default()).err().unwrap();
    assert!(error.to_string().contains("the vectors of member 2 have 5 elements"), "{error}");

    let expected = vectors(&short).0;
    assert!(!near(&a, &expected));
    for models in [[&whole, &short], [&short, &whole]] {
        let ensemble = of(Method::Mean, models);
        assert!(ensemble.notes()[0].contains("texts are truncated to 4 tokens"), "{:?}", ensemble.notes());
        assert!(near(&vectors(&ensemble.fuse(&Call::default()).unwrap().0).0, &expected));
    }
}
