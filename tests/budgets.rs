//! Tests of the limits on loss, size and time: results meet them, as measured by independent code.

mod support;

use optimize::benchmark::{BenchmarkOptions, benchmark};
use optimize::calibrate::Calibration;
use optimize::call::Call;
use optimize::error::Kind;
use optimize::inputs::InputOptions;
use optimize::model::Model;
use optimize::onnx::proto::{GraphProto, NodeProto, attribute_kind};
use optimize::quantize::{QuantizeOptions, QuantizeType, quantize, quantize_with};
use optimize::report::Report;
use optimize::runtime::SessionOptions;
use optimize::text::Tokenizer;
use support::{build, deps, runtime};

fn minilm() -> Model {
    Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap()
}

fn weight_only() -> QuantizeOptions {
    QuantizeOptions { quantize_type: QuantizeType::WeightOnly, bits: 4, ..QuantizeOptions::default() }
}

fn run(model: &Model, options: &QuantizeOptions) -> optimize::error::Result<(Model, Report)> {
    quantize_with(runtime(), model, options, None, &Call::default())
}

/// Returns 1 - cosine as the benchmark computes it, on the same sentences and ONNX Runtime's kernels, but by other
/// code.
fn loss(original: &Model, result: &Model) -> f64 {
    let tokenizer = Tokenizer::of(original).unwrap();
    let options = BenchmarkOptions {
        runs: 1,
        warmup: 0,
        execution: SessionOptions::stock().execution,
        inputs: InputOptions { batch_size: 8, ..Default::default() },
        ..Default::default()
    };
    let (_, quality) = benchmark(runtime(), original, result, tokenizer.as_ref(), &options, &Call::default()).unwrap();
    1.0 - quality.cosine.unwrap()
}

fn quantized(report: &Report) -> usize {
    report.nodes.iter().filter(|node| node.action == "quantized").count()
}

#[test]
fn the_most_that_may_be_lost_is_kept_and_no_more_is_left_than_that_takes() {
    let model = minilm();
    let (freely, report) = run(&model, &QuantizeOptions { max_quality_loss: 1.0, ..Default::default() }).unwrap();
    let (plain, _) = quantize(&model, &QuantizeOptions::default(), &Call::default()).unwrap();
    assert_eq!(freely.bytes(), plain.bytes(), "a limit that nothing reaches changes nothing");
    let all = quantized(&report);
    let without = report.summary["quality_loss"].as_f64().unwrap();
    let mut counts = vec![all];
    for limit in [without / 2.0, without / 8.0] {
        let (result, report) = run(&model, &QuantizeOptions { max_quality_loss: limit, ..Default::default() }).unwrap();
        let (said, found) = (report.summary["quality_loss"].as_f64().unwrap(), loss(&model, &result));
        assert!(said <= limit && (said - found).abs() < 0.02 * limit, "{limit}: {said}, {found}");
        counts.push(quantized(&report));
        let left = report.nodes.iter().filter(|n| n.reason.contains("max_quality_loss"));
        assert_eq!(left.clone().count(), all - quantized(&report));
        // The least sensitive weight that stays unchanged is more sensitive than the least sensitive weight of all.
        let least = |nodes: Vec<f64>| nodes.into_iter().fold(f64::INFINITY, f64::min);
        let of_left = least(left.filter_map(|n| n.sensitivity).collect());
        assert!(of_left > least(report.nodes.iter().filter_map(|n| n.sensitivity).collect()));
    }
    assert!(counts.windows(2).all(|pair| pair[1] < pair[0]) && counts[2] > 0, "{counts:?}");
}

#[test]
fn a_limit_that_nothing_keeps_is_refused() {
    let model = minilm();
    let e = run(&model, &QuantizeOptions { max_quality_loss: 1e-12, ..weight_only() }).err().unwrap();
    assert_eq!(e.kind(), Kind::GateNotMet);
    assert!(e.to_string().contains("max_quality_loss"), "{e}");
    let e = run(&model, &QuantizeOptions { target_size: 1000, ..weight_only() }).err().unwrap();
    assert_eq!(e.kind(), Kind::GateNotMet);
    assert!(
        e.to_string().contains("target_size is 1000 bytes, but the smallest result with 4 bits or more has "),
        "{e}"
    );
    let both = QuantizeOptions { target_size: model.bytes() / 6, max_quality_loss: 1e-4, ..weight_only() };
    let e = run(&model, &both).err().unwrap().to_string();
    assert!(e.contains("with target_size") && e.contains("the limit is 0.0001"), "{e}");
    let e = quantize(&model, &both, &Call::default()).err().unwrap();
    assert_eq!(e.kind(), Kind::InvalidArgument);
}

#[test]
fn sizes_are_filled_with_the_bits_that_help_most() {
    let model = minilm();
    let mut losses = Vec::new();
    for share in [0.15, 0.22] {
        let target_size = (model.bytes() as f64 * share) as u64;
        let (result, report) = run(&model, &QuantizeOptions { target_size, ..weight_only() }).unwrap();
        assert!(result.bytes() <= target_size, "{} > {target_size}", result.bytes());
        assert!(result.bytes() as f64 > 0.93 * target_size as f64, "{} of {target_size}", result.bytes());
        let lost = loss(&model, &result);
        assert!((report.summary["quality_loss"].as_f64().unwrap() - lost).abs() < 1e-4);
        losses.push(lost);
    }
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
    // For comparison, the same number of bytes is spent evenly: 4 bits in blocks of 16.
    let (evenly, _) = quantize(&model, &QuantizeOptions { block_size: 16, ..weight_only() }, &Call::default()).unwrap();
    let target_size = evenly.bytes();
    let (result, _) = run(&model, &QuantizeOptions { target_size, ..weight_only() }).unwrap();
    let (even, chosen) = (loss(&model, &evenly), loss(&model, &result));
    assert!(result.bytes() <= evenly.bytes() && chosen < even, "{chosen} {even}");
}

/// The weights of silero-vad are in branches, where no switch can select them.
#[test]
fn weights_in_branches_count_as_what_they_lose() {
    let model = Model::load(&deps("models/silero-vad/silero_vad.onnx")).unwrap();
    let loss = |options: QuantizeOptions| {
        let (result, report) = run(&model, &options).unwrap();
        (result.bytes(), report.summary["quality_loss"].as_f64().unwrap())
    };
    // 4 bits alone lose more than half of it: larger forms are selected until the limit is met.
    let (_, all) = loss(QuantizeOptions { max_quality_loss: 1.0, ..weight_only() });
    let (_, kept) = loss(QuantizeOptions { max_quality_loss: all / 2.0, ..weight_only() });
    assert!(kept <= all / 2.0, "{kept} of {all}");
    let mut found = Vec::new();
    for share in [0.3, 0.6] {
        let target_size = (model.bytes() as f64 * share) as u64;
        let (bytes, lost) = loss(QuantizeOptions { target_size, ..weight_only() });
        assert!(bytes <= target_size && bytes as f64 > 0.8 * target_size as f64, "{bytes} of {target_size}");
        found.push(lost);
    }
    assert!(found[1] < found[0] && found[0] < all, "{found:?} {all}");
}

/// Returns a model with a table that is also the output layer, a product inside a branch, and a weight that two
/// products share.
fn tied() -> Model {
    let mut lookup = build::op("Gather", &["table", "ids"], &["h"], &[("axis", 0)]);
    lookup.name = Some("lookup".into());
    let turn = NodeProto { name: Some("turn".into()), ..build::op("Transpose", &["table"], &["transposed"], &[]) };
    let inside = GraphProto {
        name: Some("inside".into()),
        node: vec![NodeProto { name: Some("inner".into()), ..build::op("MatMul", &["g", "w2"], &["i"], &[]) }],
        output: vec![build::value("i", optimize::onnx::dtype::DataType::Float32, &[-1, 64])],
        ..Default::default()
    };
    let mut branch = build::with_graph(build::op("If", &["yes"], &["b"], &[]), "then_branch", inside.clone());
    let otherwise = GraphProto { name: Some("other".into()), ..inside };
    let mut other = build::with_graph(build::op("If", &["yes"], &["b"], &[]), "else_branch", otherwise);
    other.attribute.iter_mut().for_each(|a| assert_eq!(a.kind, Some(attribute_kind::GRAPH)));
    branch.attribute.append(&mut other.attribute);
    let nodes = vec![
        lookup,
        turn,
        NodeProto { name: Some("first".into()), ..build::op("MatMul", &["h", "w"], &["f"], &[]) },
        NodeProto { name: Some("second".into()), ..build::op("MatMul", &["f", "w"], &["g"], &[]) },
        branch,
        NodeProto { name: Some("head".into()), ..build::op("MatMul", &["b", "transposed"], &["logits"], &[]) },
    ];
    use optimize::onnx::dtype::DataType::{Bool, Float32, Int64};
    let graph = GraphProto {
        name: Some("tied".into()),
        node: nodes,
        initializer: vec![
            build::weight("table", &[96, 64]),
            build::weight("w", &[64, 64]),
            build::weight("w2", &[64, 64]),
        ],
        input: vec![build::value("ids", Int64, &[-1]), build::value("yes", Bool, &[])],
        output: vec![build::value("logits", Float32, &[-1, 96])],
        ..Default::default()
    };
    Model::from_proto(build::model_of(17, graph))
}

#[test]
fn what_is_stored_once_is_judged_once() {
    let model = tied();
    let options = QuantizeOptions { max_quality_loss: 1e6, min_elements: 1, ..weight_only() };
    let (_, report) = run(&model, &options).unwrap();
    let of = |name: &str| report.nodes.iter().find(|n| n.name == name).unwrap().sensitivity;
    assert_eq!(report.summary["quality_metric"], "kl");
    assert_eq!((of("lookup"), of("first")), (of("head"), of("second")));
    assert!(of("head").unwrap() > 0.0 && of("first").unwrap() > 0.0);
    assert_eq!(of("inner"), None, "nodes in branches have no sensitivity");
}

#[test]
fn races_leave_a_model_that_runs() {
    let model = minilm();
    let options = QuantizeOptions { never_slower: true, threads: 1, ..Default::default() };
    match run(&model, &options) {
        Ok((result, report)) => {
            assert!(report.summary["speedup"]["median"].as_f64().unwrap() > 0.0);
            assert!(loss(&model, &result) < 0.05);
            let left = report.nodes.iter().filter(|n| n.reason.contains("not faster")).count();
            assert_eq!(quantized(&report) + left, 20);
        }
        Err(e) => assert!(e.to_string().contains("is not faster when quantized here"), "{e}"),
    }
}

/// Texts for the scales of activations; they differ from those of the benchmark.
const LINES: &str = "A man is eating food in the kitchen.\nThe committee will meet again on Thursday morning.\n\
    Two dogs run through the wet grass.\nPrices rose faster than wages last year.\nShe plays the violin.\n\
    The train to the coast was late again.\nWho wrote this book?\nSnow fell on the hills all night.\n";

#[test]
fn static_results_keep_to_a_loss_and_are_raced() {
    let model = minilm();
    let tokenizer = Tokenizer::of(&model).unwrap().unwrap();
    let calibration = Calibration::Text { text: LINES, tokenizer: &tokenizer, windows: 0, length: 0 };
    let make = |options: QuantizeOptions| {
        let options = QuantizeOptions { quantize_type: QuantizeType::Static, ..options };
        quantize_with(runtime(), &model, &options, Some(&calibration), &Call::default())
    };
    let (plain, all) = make(QuantizeOptions { max_quality_loss: 1.0, ..Default::default() }).unwrap();
    let without = all.summary["quality_loss"].as_f64().unwrap();
    let limit = without / 3.0;
    let (kept, report) = make(QuantizeOptions { max_quality_loss: limit, ..Default::default() }).unwrap();
    assert!(report.summary["quality_loss"].as_f64().unwrap() <= limit);
    assert!(loss(&model, &kept) < 0.7 * loss(&model, &plain), "on other sentences too");
    assert!(quantized(&report) < quantized(&all) && quantized(&report) > 3);
    let left: Vec<_> = report.nodes.iter().filter(|n| n.reason.contains("max_quality_loss")).collect();
    assert_eq!(left.len(), quantized(&all) - quantized(&report));
    let e = make(QuantizeOptions { max_quality_loss: 1e-12, ..Default::default() }).err().unwrap();
    assert!(e.kind() == Kind::GateNotMet && e.to_string().contains("max_quality_loss"), "{e}");
    let (_, raced) = make(QuantizeOptions { never_slower: true, ..Default::default() }).unwrap();
    assert!(raced.summary["speedup"]["high"].as_f64().unwrap() >= 1.0);
}
