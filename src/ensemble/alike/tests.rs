//! Random graphs with one different constant in the second model: weights are merged, everything else is rejected.

use super::super::{MergeOptions, merge};
use crate::call::Call;
use crate::error::Kind;
use crate::model::{Card, Model, Pooling, SideContent, SideFile, Task};
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::runtime::testing::{graph, model, node, value, weight};
use crate::statistics::Random;
use serde_json::json;

fn cases() -> usize {
    std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

/// A graph that is being built. For each constant it records whether it is a weight.
#[derive(Default)]
struct Made {
    nodes: Vec<NodeProto>,
    constants: Vec<(TensorProto, bool)>,
    at: String,
}

impl Made {
    fn constant(&mut self, name: &str, dims: &[i64], values: &[f32], learned: bool) -> String {
        let name = format!("{name}{}", self.constants.len());
        self.constants.push((weight(&name, dims, values), learned));
        name
    }

    fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        let output = format!("v{}", self.nodes.len());
        self.nodes.push(node(op, inputs, &output));
        output
    }

    /// Adds a random layer of a kind that exporters or this library's builder write.
    fn layer(&mut self, kind: usize, random: &mut Random) {
        let mut numbers = |count: usize| (0..count).map(|_| random.uniform() as f32 + 0.5).collect::<Vec<f32>>();
        let x = self.at.clone();
        self.at = match kind {
            0 => {
                let w = self.constant("onnx::MatMul_", &[4, 4], &numbers(16), true);
                let b = self.constant("layer.bias", &[4], &numbers(4), true);
                let product = self.op("MatMul", &[&x, &w]);
                self.op("Add", &[&product, &b])
            }
            1 => {
                let w = self.constant("norm.weight", &[4], &numbers(4), true);
                let e = self.constant("/model/Constant_output_", &[], &[1e-5], false);
                let (square, two) = (self.op("Mul", &[&x, &x]), self.op("Add", &[&x, &e]));
                let scaled = self.op("Mul", &[&square, &w]);
                self.op("Mul", &[&scaled, &two])
            }
            2 => {
                let c = self.constant("constant_", &[1], &[8.0], false);
                self.op(["Mul", "Div", "Add", "Sub", "Min", "Max"][random.index(6)], &[&x, &c])
            }
            3 => {
                let f = self.constant("val_", &[1, 4], &numbers(4), false);
                let rotated = self.op("Mul", &["positions", &f]);
                let joined = self.op("Identity", &[&rotated]);
                let (cos, sin) = (self.op("Cos", &[&joined]), self.op("Sin", &[&joined]));
                let along = self.op("Mul", &[&x, &cos]);
                self.op("Add", &[&along, &sin])
            }
            4 => {
                // Half of the cases have a table like the cosines of positions, whose first row is 1; the others have a
                // trained table.
                let waves = random.index(2) == 0;
                let mut rows = vec![1.0; 4];
                rows.extend((0..8).map(|_| random.uniform() as f32));
                let rows = if waves { rows } else { (0..12).map(|_| random.uniform() as f32).collect() };
                let t = self.constant("table", &[3, 4], &rows, !waves);
                let row = self.op("Gather", &[&t, "ids"]);
                self.op(if waves { "Mul" } else { "Add" }, &[&x, &row])
            }
            5 => {
                let s = self.constant("model.logit_scale.", &[1], &[2.5], true);
                let renamed = s.replace("logit_scale.", "x").to_owned() + ".logit_scale";
                self.constants.last_mut().unwrap().0.name = Some(renamed.clone());
                self.op("Mul", &[&x, &renamed])
            }
            6 => {
                let mean = self.constant("preprocess/mean_", &[4], &numbers(4), false);
                self.op("Sub", &[&x, &mean])
            }
            _ => {
                let p = self.constant("onnx::Pow_", &[4], &numbers(4), false);
                self.op("Pow", &[&x, &p])
            }
        };
    }

    fn model(&self) -> Model {
        let inputs = vec![value("x", 1, &["1", "4"]), value("positions", 1, &["1", "1"]), value("ids", 7, &["1"])];
        let mut made = graph(self.nodes.clone(), inputs, vec![value(&self.at, 1, &["1", "4"])]);
        made.initializer = self.constants.iter().map(|(tensor, _)| tensor.clone()).collect();
        Model::from_proto(model(made))
    }
}

fn merged(a: &Model, b: &Model) -> crate::error::Result<Model> {
    Ok(merge(&[a.clone(), b.clone()], None, &MergeOptions::default(), &Call::default())?.0)
}

fn values(tensor: &TensorProto) -> Vec<f32> {
    super::floats(tensor).unwrap()
}

#[test]
fn weights_are_merged_and_other_constants_must_be_the_same() {
    let mut random = Random::new(3);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..cases() {
        let mut made = Made { at: "x".to_owned(), ..Made::default() };
        (0..1 + random.index(6)).for_each(|_| made.layer(random.index(8), &mut random));
        let first = made.model();
        merged(&first, &first).unwrap();
        let changed = random.index(made.constants.len());
        let (tensor, learned) = &mut made.constants[changed];
        let (name, old) = (tensor.name.clone().unwrap(), values(tensor));
        let new: Vec<f32> = old.iter().map(|x| x * 1.5).collect();
        *tensor = weight(&name, &tensor.dims, &new);
        let learned = *learned;
        match merged(&first, &made.model()) {
            Ok(model) => {
                assert!(learned, "{name} was averaged");
                let found = model.graph().initializer.iter().find(|t| t.name.as_ref() == Some(&name)).unwrap();
                let mean: Vec<f32> = old.iter().zip(&new).map(|(a, b)| (a + b) / 2.0).collect();
                assert!(values(found).iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-6));
                taken += 1;
            }
            Err(e) => {
                assert!(!learned && e.kind() == Kind::InvalidArgument, "{name}: {e}");
                assert!(e.to_string().contains(&format!("{name:?}")) && e.to_string().contains("member 2"), "{e}");
                refused += 1;
            }
        }
    }
    assert!(taken > cases() / 10 && refused > cases() / 10, "{taken} {refused}");
    println!("{taken} merged, {refused} refused");
}

#[test]
fn what_numbers_mean_must_be_the_same() {
    let mut made = Made { at: "x".to_owned(), ..Made::default() };
    made.layer(0, &mut Random::new(4));
    let with = |card: Card| made.model().with_card(card);
    let labels = |names: [&str; 2]| {
        let mut card = Card { task: Task::Classify, ..Card::default() };
        card.config.insert("id2label".to_owned(), json!({ "0": names[0], "1": names[1] }));
        card
    };
    let message = |a: Card, b: Card| merged(&with(a), &with(b)).err().unwrap().to_string();
    let e = message(labels(["neg", "pos"]), labels(["pos", "neg"]));
    assert!(e.contains("another order than in member 1: class 1 is class 0 there"), "{e}");
    assert!(message(labels(["neg", "pos"]), labels(["x", "y"])).contains("those of member 2 x, y"));
    merged(&with(labels(["neg", "pos"])), &with(labels(["NEG", "pos"]))).unwrap();
    let notes = |a: Card, b: Card| super::check(&with(a), &with(b), "member 2").unwrap();
    let unnamed = notes(labels(["neg", "pos"]), labels(["LABEL_0", "LABEL_1"]));
    assert_eq!(unnamed, ["the classes of member 2 have no names: they are assumed to be in the order of member 1"]);
    assert!(notes(labels(["neg", "pos"]), labels(["NEG", "pos"])).is_empty());
    let words = |words: [&str; 3]| {
        let vocab: serde_json::Map<_, _> =
            words.iter().zip(0..).map(|(word, id)| ((*word).to_owned(), json!(id))).collect();
        let file = json!({ "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "decoder": null, "pre_tokenizer": { "type": "Whitespace" },
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": words[0] } });
        let content = SideContent::Bytes(file.to_string().into());
        Card { side_files: vec![SideFile { name: "tokenizer.json".to_owned(), content }], ..Card::default() }
    };
    let e = message(words(["?", "a", "b"]), words(["?", "b", "a"]));
    assert!(e.contains("id 1 is \"a\" in one and \"b\" in the other"), "{e}");
    let pooled = |pooling| Card { pooling: Some(pooling), ..Card::default() };
    assert!(message(pooled(Pooling::Mean), pooled(Pooling::Cls)).contains("pools token vectors"));
}

#[test]
fn operators_of_other_domains_are_others() {
    let mut made = Made { at: "x".to_owned(), ..Made::default() };
    made.layer(0, &mut Random::new(6));
    let first = made.model();
    made.nodes[0].domain = Some("ai.onnx".to_owned());
    merged(&first, &made.model()).unwrap();
    made.nodes[0].domain = Some("com.example".to_owned());
    let e = merged(&first, &made.model()).err().unwrap();
    assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains("node \"v0\" differs"), "{e}");
}

#[test]
fn the_configuration_says_why() {
    let mut made = Made { at: "x".to_owned(), ..Made::default() };
    made.layer(3, &mut Random::new(5));
    let card = |theta: f64| {
        let mut card = Card::default();
        card.config.insert("rope_theta".to_owned(), json!(theta));
        card
    };
    let first = made.model().with_card(card(1e4));
    made.constants[0].0 = weight("val_0", &[1, 4], &[1.0, 2.0, 3.0, 4.0]);
    let e = merged(&first, &made.model().with_card(card(5e5))).err().unwrap().to_string();
    assert!(e.contains("rotary angles") && e.contains("rope_theta is 500000.0 here and 10000.0 in member 1"), "{e}");
}
