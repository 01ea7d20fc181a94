//! Tests of dropped layers, refitted convolutions, and goals.

use crate::models::outputs_of;
use crate::random::Random;
use crate::run;
use crate::support::build::{model, value};
use crate::support::runtime;
use optimize::calibrate::Batch;
use optimize::call::Call;
use optimize::error::Kind;
use optimize::graph::edit::{float_tensor, int_attribute, ints_attribute, node};
use optimize::model::Model;
use optimize::onnx::dtype::DataType::Float32;
use optimize::onnx::proto::NodeProto;
use optimize::open;
use optimize::prune::structured::{Data, Importance, PruneOptions, structured};
use optimize::prune::{PruneMethod, prune};
use optimize::runtime::Tensor;
use optimize::source::{Dialect, LoadOptions};
use optimize::text::Decoder;
use std::path::PathBuf;

fn without(model: &Model, layers: &[usize]) -> Model {
    let options = PruneOptions {
        method: PruneMethod::Structured,
        sparsity: 0.0,
        layers: layers.to_vec(),
        ..PruneOptions::default()
    };
    let (result, report) = prune(model, &options, &Call::default()).unwrap();
    assert_eq!(report.summary["layers_dropped"], serde_json::json!(layers));
    result
}

/// Returns the model with layers that add nothing, because their last weights are zero.
fn silent(model: &Model, layers: &[usize]) -> Model {
    let mut proto = model.proto().clone();
    let mut count = 0;
    for tensor in &mut proto.graph.as_deref_mut().unwrap().initializer {
        let name = tensor.name.clone().unwrap();
        let own = layers.iter().any(|l| name.contains(&format!("layers.{l}.")) || name.contains(&format!("h.{l}.")));
        if own && ["o_proj", "down_proj", "c_proj"].iter().any(|last| name.contains(last)) {
            let elements = tensor.dims.iter().product::<i64>() as usize;
            *tensor = float_tensor(&name, &tensor.dims, &vec![0.0; elements]);
            count += 1;
        }
    }
    assert!(count >= 2 * layers.len(), "{count} weights");
    model.derive(proto)
}

/// If layers add to a residual stream, a model without some of them equals the whole model in which these add zero.
#[test]
fn decoders_of_all_families_lose_layers_and_their_caches() {
    for family in ["llama", "llama-tied", "mistral", "qwen2", "qwen3", "gemma", "gemma3", "gpt2", "phi3", "smollm3"] {
        for dialect in [Dialect::Runtime, Dialect::Portable] {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(family);
            let model = open::load(&folder, &LoadOptions { dialect }).unwrap();
            let before = Decoder::of(&model).unwrap();
            let count = before.cache.len() / 2;
            for layer in 0..count {
                let what = format!("{family} {dialect:?} {layer}");
                let shorter = without(&model, &[layer]);
                let (expected, found) = (outputs_of(&silent(&model, &[layer])), outputs_of(&shorter));
                assert_eq!(expected.len(), found.len(), "{what}");
                let scale = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
                let worst = expected.iter().zip(&found).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(worst <= 1e-5 * scale, "{what}: off by {worst}");
                let all = outputs_of(&model);
                assert!(all.iter().zip(&found).any(|(a, b)| (a - b).abs() > 1e-4 * scale), "{what}: nothing changed");
                let after = Decoder::of(&shorter).unwrap();
                let names = |d: &Decoder, pairs: usize| -> Vec<(String, String)> {
                    d.cache[..pairs].iter().map(|pair| (pair.past.clone(), pair.present.clone())).collect()
                };
                assert_eq!(names(&after, after.cache.len()), names(&before, before.cache.len() - 2), "{what}");
            }
        }
    }
}

/// Returns a chain of layers, with the normalization after each block or before it.
fn chain(layers: &[usize], before: bool) -> Model {
    let (mut nodes, mut weights, mut x) = (Vec::new(), Vec::new(), "x".to_owned());
    for layer in layers {
        let mut random = Random(*layer as u64 + 7);
        let mut made = |name: &str, dims: &[i64]| {
            let name = format!("encoder.layer.{layer}.{name}");
            let count = dims.iter().product::<i64>() as usize;
            weights.push(float_tensor(&name, dims, &(0..count).map(|_| random.float()).collect::<Vec<_>>()));
            name
        };
        let (scale, shift) = (made("norm.weight", &[6]), made("norm.bias", &[6]));
        let (up, down) = (made("up.weight", &[6, 10]), made("down.weight", &[10, 6]));
        let name = |what: &str| format!("{what}_{layer}");
        let mut op = |op: &str, inputs: &[&str]| {
            let output = name(&format!("{op}{}", inputs.len() + nodes.len()));
            nodes.push(node(op, inputs, &[&output]));
            output
        };
        let given = if before { op("LayerNormalization", &[&x, &scale, &shift]) } else { x.clone() };
        let hidden = op("MatMul", &[&given, &up]);
        let hidden = op("Relu", &[&hidden]);
        let hidden = op("MatMul", &[&hidden, &down]);
        x = op("Add", &[&x, &hidden]);
        if !before {
            x = op("LayerNormalization", &[&x, &scale, &shift]);
        }
    }
    nodes.push(node("Identity", &[&x], &["y"]));
    let (input, output) = (value("x", Float32, &[-1, 5, 6]), value("y", Float32, &[-1, 5, 6]));
    model(17, vec![input], vec![output], weights, nodes)
}

#[test]
fn a_chain_without_a_layer_is_the_chain_that_never_had_it() {
    let mut random = Random(3);
    let x = Tensor::from_f32(&[2, 5, 6], (0..60).map(|_| random.float()).collect()).unwrap();
    for before in [true, false] {
        let whole = chain(&[0, 1, 2, 3], before);
        for gone in [vec![0], vec![1], vec![3], vec![1, 2], vec![0, 3], vec![0, 1, 2]] {
            let left: Vec<usize> = (0..4).filter(|layer| !gone.contains(layer)).collect();
            let expected = run(&chain(&left, before), &x);
            let shorter = without(&whole, &gone);
            assert_eq!(run(&shorter, &x), expected, "{before} {gone:?}");
            assert_eq!(shorter.graph().initializer.len(), 4 * left.len());
        }
    }
}

#[test]
fn layers_that_are_not_there_or_not_apart_are_refused() {
    let options = |layers: &[usize], drop_layers| PruneOptions {
        method: PruneMethod::Structured,
        sparsity: 0.0,
        layers: layers.to_vec(),
        drop_layers,
        ..PruneOptions::default()
    };
    let refused = |model: &Model, options: &PruneOptions| prune(model, options, &Call::default()).err().unwrap();
    let whole = chain(&[0, 1, 2], true);
    for (options, part) in [
        (options(&[3], 0), "there is no layer 3; there are 0 to 2"),
        (options(&[0, 1, 2], 0), "all 3 layers"),
        (options(&[], 3), "only 3 layers"),
        (options(&[1], 1), "exclude each other"),
    ] {
        let e = refused(&whole, &options);
        assert!(e.kind() == Kind::InvalidArgument && e.message().contains(part), "{e}");
    }
    let e = refused(&chain(&[0], true), &options(&[0], 0));
    assert!(e.kind() == Kind::Unsupported && e.message().contains("no layers"), "{e}");
    // The output of the first layer is also needed by the last.
    let mut proto = whole.proto().clone();
    let graph = proto.graph.as_deref_mut().unwrap();
    let inner = graph.node.iter().find(|n| n.op() == "Relu").unwrap().output[0].clone();
    let last = graph.node.iter().rposition(|n| n.op() == "Relu").unwrap();
    let product = graph.node[last].input[0].clone();
    graph.node[last].input[0] = "both".into();
    graph.node.push(node("Add", &[&product, &inner], &["both"]));
    let e = refused(&Model::from_proto(proto), &options(&[0], 0));
    assert!(e.kind() == Kind::Unsupported && e.message().contains("layer"), "{e}");
}

/// Returns two convolutions; the channels between them are mixtures of a few.
fn images(random: &mut Random) -> Model {
    let mut values = |count: usize| (0..count).map(|_| random.float()).collect::<Vec<f32>>();
    let (few, mix) = (values(6 * 27), values(24 * 6));
    let first: Vec<f32> =
        (0..24 * 27).map(|at| (0..6).map(|k| mix[at / 27 * 6 + k] * few[k * 27 + at % 27]).sum()).collect();
    let weights = vec![
        float_tensor("a", &[24, 3, 3, 3], &first),
        float_tensor("a_bias", &[24], &values(24)),
        float_tensor("b", &[8, 24, 3, 3], &values(8 * 24 * 9)),
        float_tensor("b_bias", &[8], &values(8)),
    ];
    let mut convolutions =
        vec![node("Conv", &["x", "a", "a_bias"], &["h"]), node("Conv", &["k", "b", "b_bias"], &["y"])];
    convolutions[1].attribute = vec![ints_attribute("strides", &[2, 2]), ints_attribute("pads", &[1, 1, 0, 0])];
    convolutions.insert(1, node("LeakyRelu", &["h"], &["k"]));
    let (x, y) = (value("x", Float32, &[-1, 3, 12, 12]), value("y", Float32, &[-1, 8, 5, 5]));
    model(17, vec![x], vec![y], weights, convolutions)
}

#[test]
fn a_convolution_makes_up_for_the_channels_that_went() {
    let mut random = Random(11);
    let model = images(&mut random);
    let mut image = |count: i64| {
        let values = (0..count * 432).map(|_| random.float()).collect();
        Tensor::from_f32(&[count, 3, 12, 12], values).unwrap()
    };
    let batches: Vec<Batch> = (0..6).map(|_| Batch::new(vec![("x".to_owned(), image(8))])).collect();
    let (other, call) = (image(4), Call::default());
    let expected = run(&model, &other);
    let lost = |reconstruct: bool| -> f32 {
        let options = PruneOptions { reconstruct, importance: Importance::Activation, ..PruneOptions::structured() };
        let (cut, report) =
            structured(&model, &options, Some(Data { runtime: runtime(), batches: &batches }), &call).unwrap();
        assert!(report.summary["units_after"].as_u64() < report.summary["units_before"].as_u64());
        assert!(!report.summary.contains_key("notes"), "{:?}", report.summary.get("notes"));
        run(&cut, &other).iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum()
    };
    let (without, with) = (lost(false), lost(true));
    assert!(with < 0.25 * without, "{with} with, {without} without");
}

/// Two convolutions with different windows read one value: the changes of each do not depend on their order.
#[test]
fn convolutions_with_different_windows_make_up_each_for_itself() {
    let mut random = Random(5);
    let mut values = |count: usize| (0..count).map(|_| random.float()).collect::<Vec<f32>>();
    let weights = vec![
        float_tensor("a", &[16, 3, 3, 3], &values(16 * 27)),
        float_tensor("wide", &[4, 16, 1, 3], &values(4 * 48)),
        float_tensor("high", &[4, 16, 3, 1], &values(4 * 48)),
    ];
    let mut image = |count: i64| Tensor::from_f32(&[count, 3, 12, 12], values(count as usize * 432)).unwrap();
    let batches: Vec<Batch> = (0..6).map(|_| Batch::new(vec![("x".to_owned(), image(8))])).collect();
    let other = image(4);
    let outputs = ["wide", "high"].map(|first| {
        let with = |weight: &str, output: &str, pads: &[i64]| {
            let mut convolution = node("Conv", &["k", weight], &[output]);
            convolution.attribute = vec![ints_attribute("pads", pads)];
            convolution
        };
        let mut both = vec![with("wide", "w", &[0, 1, 0, 1]), with("high", "h", &[1, 0, 1, 0])];
        if first == "high" {
            both.reverse();
        }
        let mut nodes = vec![node("Conv", &["x", "a"], &["c"]), node("LeakyRelu", &["c"], &["k"])];
        nodes.append(&mut both);
        nodes.push(NodeProto { attribute: vec![int_attribute("axis", 1)], ..node("Concat", &["w", "h"], &["y"]) });
        let (x, y) = (value("x", Float32, &[-1, 3, 12, 12]), value("y", Float32, &[-1, 8, 10, 10]));
        let model = model(17, vec![x], vec![y], weights.clone(), nodes);
        let options = PruneOptions { reconstruct: true, ..PruneOptions::structured() };
        let data = Some(Data { runtime: runtime(), batches: &batches });
        let (cut, report) = structured(&model, &options, data, &Call::default()).unwrap();
        assert!(report.summary["units_after"].as_u64() < report.summary["units_before"].as_u64());
        run(&cut, &other)
    });
    let scale = outputs[0].iter().fold(1f32, |most, v| most.max(v.abs()));
    for (a, b) in outputs[0].iter().zip(&outputs[1]) {
        assert!((a - b).abs() < 1e-4 * scale, "{a} and {b}");
    }
}

#[test]
fn goals_are_met_by_as_little_as_it_takes() {
    let whole = chain(&[0, 1, 2, 3, 4, 5], true);
    let options = |target_size, target_speedup| PruneOptions {
        target_size,
        target_speedup,
        round_to: 1,
        ..PruneOptions::structured()
    };
    let bytes = whole.bytes();
    let (result, report) = structured(&whole, &options(bytes * 9 / 10, 0.0), None, &Call::default()).unwrap();
    assert!(result.bytes() <= bytes * 9 / 10 && result.bytes() > bytes * 8 / 10, "{} of {bytes}", result.bytes());
    assert!(report.summary["sparsity"].as_f64().unwrap() > 0.0);
    let refused = |options: &PruneOptions| structured(&whole, options, None, &Call::default()).err().unwrap();
    let e = refused(&options(10, 0.0));
    assert!(e.kind() == Kind::GateNotMet && e.message().contains("bytes are left"), "{e}");
    runtime();
    let e = refused(&options(0, 1e6));
    assert!(e.kind() == Kind::GateNotMet && e.message().contains("times as fast"), "{e}");
}
