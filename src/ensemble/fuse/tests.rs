//! Tests of members that take no part in a fused model, and of members that cannot be fused.

use crate::call::Call;
use crate::encoder::{Embedder, EmbedderOptions};
use crate::ensemble::combine::tests::reference;
use crate::ensemble::tests::{farthest, matrix, run};
use crate::ensemble::{Ensemble, EnsembleOptions, Method};
use crate::error::Kind;
use crate::model::{Model, SideContent, SideFile, Task};
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
