//! Tests of the inputs of models: sizes by name, within contracts, and of given tensors; and of packages that keep
//! their contract.

mod support;

#[path = "inputs/files.rs"]
mod files;

use optimize::benchmark::{BenchmarkOptions, benchmark, brief};
use optimize::call::Call;
use optimize::error::Kind;
use optimize::graph::edit::float_tensor;
use optimize::inputs::{InputOptions, Source};
use optimize::model::contract::Size;
use optimize::model::{Dim, Model};
use optimize::onnx::dtype::DataType;
use optimize::onnx::proto::*;
use optimize::package::{CompileOptions, OpenOptions, Package, compile};
use optimize::quantize::{QuantizeOptions, quantize_with};
use optimize::runtime::{Session, SessionOptions, Tensor};
use support::build::{constant, op, weight};
use support::{runtime, scratch};

/// Returns a float32 value of shape `dims`: sizes separated by spaces, where a word is the symbol of an open size.
fn value(name: &str, dims: &str) -> ValueInfoProto {
    let dim = |text: &str| match text.trim().parse::<i64>() {
        Ok(size) => DimensionProto { dim_value: Some(size), ..Default::default() },
        Err(_) => DimensionProto { dim_param: Some(text.trim().to_owned()), ..Default::default() },
    };
    let shape = TensorShapeProto { dim: dims.split_whitespace().map(dim).collect(), ..Default::default() };
    let elem_type = Some(DataType::Float32.to_onnx());
    let tensor = TensorTypeProto { elem_type, shape: Some(Box::new(shape)), ..Default::default() };
    let value_type = TypeProto { tensor_type: Some(Box::new(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), value_type: Some(Box::new(value_type)), ..Default::default() }
}

/// Returns an output of which only the type is declared.
fn output(name: &str) -> ValueInfoProto {
    let tensor = TensorTypeProto { elem_type: Some(DataType::Float32.to_onnx()), ..Default::default() };
    let value_type = TypeProto { tensor_type: Some(Box::new(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), value_type: Some(Box::new(value_type)), ..Default::default() }
}

fn model(inputs: &[(&str, &str)], nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> Model {
    let inputs = inputs.iter().map(|(name, dims)| value(name, dims)).collect();
    support::build::model(17, inputs, vec![output("y")], weights, nodes)
}

fn shapes(model: &Model) -> Vec<Vec<i64>> {
    let options = InputOptions::default();
    let set = Source::new(model, None, &options).unwrap().timing().unwrap();
    set.shapes().into_iter().map(|(_, shape)| shape).collect()
}

/// Returns `y = x w + z` for any number of rows.
fn two() -> Model {
    let nodes = vec![op("Add", &["x", "z"], &["s"], &[]), op("MatMul", &["s", "w"], &["y"], &[])];
    model(&[("x", "b 8"), ("z", "b 8")], nodes, vec![weight("w", &[8, 8])])
}

fn with(inputs: InputOptions) -> BenchmarkOptions {
    BenchmarkOptions { inputs, ..quick() }
}

fn quick() -> BenchmarkOptions {
    BenchmarkOptions { runs: 3, warmup: 0, ..BenchmarkOptions::default() }
}

#[test]
fn inputs_are_generated_within_the_contract_of_a_package() {
    let folder = scratch("inputs-contract");
    let path = folder.join("p");
    let made = two();
    let options = CompileOptions { dynamic: true, batch_min: 4, ..CompileOptions::default() };
    compile(runtime(), &made, &path, &options, &Call::default()).unwrap();
    let package = Model::load(&path).unwrap();
    assert_eq!(shapes(&package), [[4, 8], [4, 8]]);
    let (speed, quality) = benchmark(runtime(), &made, &package, None, &quick(), &Call::default()).unwrap();
    assert_eq!(speed.input_shapes[0].1, [4, 8]);
    assert!(quality.cosine.unwrap() > 0.999_99);
    // Some sizes are fixed.
    let fixed = folder.join("fixed");
    let open = model(&[("x", "b n 8")], vec![op("MatMul", &["x", "w"], &["y"], &[])], vec![weight("w", &[8, 8])]);
    compile(runtime(), &open, &fixed, &CompileOptions::default(), &Call::default()).unwrap();
    let (speed, _) =
        benchmark(runtime(), &open, &Model::load(&fixed).unwrap(), None, &quick(), &Call::default()).unwrap();
    assert_eq!(speed.input_shapes[0].1, [1, 128, 8]);
    // Larger values from the caller are rejected with the range.
    let asked = with(InputOptions { shapes: vec![("x".to_owned(), vec![2, 8])], ..Default::default() });
    let e = benchmark(runtime(), &made, &package, None, &asked, &Call::default()).err().unwrap();
    assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains("the package accepts 4 to 64"), "{e}");
}

#[test]
fn one_symbol_in_a_first_and_another_dimension_is_one_size() {
    let folder = scratch("inputs-symbols");
    let nodes = vec![op("MatMul", &["a", "x"], &["p"], &[]), op("MatMul", &["p", "w"], &["y"], &[])];
    let adjacency = model(&[("a", "n n"), ("x", "n 8")], nodes, vec![weight("w", &[8, 8])]);
    let nodes = vec![op("Add", &["x", "h"], &["y"], &[])];
    let states = model(&[("x", "t batch 4"), ("h", "batch 4")], nodes, Vec::new());
    let sums = vec![op("Concat", &["x", "z"], &["y"], &[("axis", 0)])];
    let sums = model(&[("z", "n+1 4"), ("x", "n 4")], sums, Vec::new());
    for (index, (made, wanted)) in [
        (adjacency, vec![vec![128, 128], vec![128, 8]]),
        (states, vec![vec![1, 1, 4], vec![1, 4]]),
        (sums, vec![vec![2, 4], vec![1, 4]]),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(shapes(&made), wanted);
        let path = folder.join(format!("p{index}"));
        compile(runtime(), &made, &path, &CompileOptions::default(), &Call::default()).unwrap();
        assert_eq!(shapes(&Model::load(&path).unwrap()), wanted);
    }
}

#[test]
fn names_that_mean_nothing_are_no_equal_sizes_for_packages_and_sessions() {
    let folder = scratch("inputs-nothing");
    let nodes = vec![op("Conv", &["x", "w"], &["y"], &[])];
    let paddle = model(&[("x", "? 3 ? ?")], nodes, vec![weight("w", &[4, 3, 3, 3])]);
    let path = folder.join("p");
    let options = CompileOptions { dynamic: true, ..CompileOptions::default() };
    compile(runtime(), &paddle, &path, &options, &Call::default()).unwrap();
    for model in [paddle, Model::load(&path).unwrap()] {
        let session = Session::new(runtime(), &model, &SessionOptions::default(), &Call::default()).unwrap();
        let picture = Tensor::from_f32(&[1, 3, 48, 320], vec![0.5; 3 * 48 * 320]).unwrap();
        let given = session.run(&[("x", &picture)], &[], &Call::default()).unwrap();
        assert_eq!(given[0].1.shape(), [1, 4, 46, 318]);
    }
}

#[test]
fn sizes_that_a_model_refuses_are_tried_again() {
    // The model needs rows of 32, which only a run reveals.
    let nodes = vec![op("Reshape", &["x", "s"], &["r"], &[]), op("MatMul", &["r", "w"], &["y"], &[])];
    let shape = TensorProto {
        data_type: Some(7),
        raw_data: Some([4i64, 8].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()),
        ..float_tensor("s", &[2], &[])
    };
    let made = model(&[("x", "1 f")], nodes, vec![shape, weight("w", &[8, 2])]);
    let (speed, quality) = benchmark(runtime(), &made, &made, None, &quick(), &Call::default()).unwrap();
    assert_eq!((&speed.input_shapes[0].1[..], quality.samples), (&[1i64, 32][..], 8));
    let limited = QuantizeOptions { max_quality_loss: 1.0, min_elements: 1, ..Default::default() };
    let (_, report) = quantize_with(runtime(), &made, &limited, None, &Call::default()).unwrap();
    assert!(report.summary["quality_batches"].as_u64().unwrap() > 0);
    // Sizes that the caller gives are not replaced: the error names the original, and the option to change.
    let shapes = vec![("x".to_owned(), vec![1, 5])];
    let e = benchmark(
        runtime(),
        &made,
        &made,
        None,
        &with(InputOptions { shapes, ..Default::default() }),
        &Call::default(),
    );
    let e = e.err().unwrap().to_string();
    assert!(e.starts_with("the original: ") && e.contains("`shapes`"), "{e}");
}

#[test]
fn the_model_that_refuses_is_the_one_that_is_named() {
    let plain = |side: i64| {
        let nodes = vec![op("MatMul", &["x", "w"], &["y"], &[])];
        model(&[("x", "b f")], nodes, vec![weight("w", &[side, 4])])
    };
    // The result is smaller, so it runs first.
    let e = benchmark(runtime(), &plain(64), &plain(8), None, &quick(), &Call::default()).err().unwrap();
    assert!(e.to_string().starts_with("the result: "), "{e}");
    let given = with(InputOptions { shapes: vec![("x".to_owned(), vec![1, 8])], ..Default::default() });
    let e = benchmark(runtime(), &plain(64), &plain(8), None, &given, &Call::default()).err().unwrap();
    assert!(e.to_string().starts_with("the original: "), "{e}");
}

#[test]
fn outputs_of_other_lengths_have_a_speed_and_no_quality() {
    let of = |columns| {
        model(&[("x", "b 8")], vec![op("MatMul", &["x", "w"], &["y"], &[])], vec![weight("w", &[8, columns])])
    };
    let (speed, quality) = benchmark(runtime(), &of(8), &of(4), None, &quick(), &Call::default()).unwrap();
    assert!(speed.speedup.median > 0.0 && quality.cosine.is_none());
    assert!(quality.not_compared.unwrap().contains("float32[1, 8] in the original, but float32[1, 4] in the result"));
}

#[test]
fn quality_is_measured_on_the_tensors_that_are_given() {
    let of = |values: &[f32]| {
        let nodes = vec![op("Mul", &["x", "w"], &["y"], &[])];
        model(&[("x", "b 2")], nodes, vec![float_tensor("w", &[2], values)])
    };
    // The second column of the data is always 0, so its weight does not matter.
    let (original, result) = (of(&[1.0, 1.0]), of(&[1.0, -1.0]));
    let data = Tensor::from_f32(&[6, 2], (0..12).map(|i| if i % 2 == 0 { 1.0 + i as f32 } else { 0.0 }).collect());
    let given =
        with(InputOptions { tensors: vec![("x".to_owned(), data.unwrap())], batch_size: 2, ..Default::default() });
    for way in [benchmark, brief] {
        let (speed, quality) = way(runtime(), &original, &result, None, &given, &Call::default()).unwrap();
        assert_eq!((speed.inputs, &speed.input_shapes[0].1[..]), ("given", &[2i64, 2][..]));
        assert_eq!((quality.samples, quality.cosine), (6, Some(1.0)));
        let (_, noise) = way(runtime(), &original, &result, None, &quick(), &Call::default()).unwrap();
        assert!(noise.cosine.unwrap() < 0.9);
    }
    let wrong = Tensor::from_f32(&[3, 3], vec![0.0; 9]).unwrap();
    let given = with(InputOptions { tensors: vec![("x".to_owned(), wrong)], ..Default::default() });
    let e = benchmark(runtime(), &original, &result, None, &given, &Call::default()).err().unwrap();
    assert!(e.to_string().contains("does not fit float32[b, 2]"), "{e}");
}

#[test]
fn large_constants_are_shared_and_a_variant_that_is_much_larger_is_left_out() {
    let folder = scratch("inputs-shared");
    let nodes = vec![constant(weight("w", &[64, 64])), op("MatMul", &["x", "w"], &["y"], &[])];
    let made = model(&[("x", "b 64")], nodes, Vec::new());
    let path = folder.join("p");
    compile(runtime(), &made, &path, &CompileOptions::default(), &Call::default()).unwrap();
    let graph = std::fs::metadata(path.join("model/fp32/model.onnx")).unwrap().len();
    assert!(graph < 2000, "{graph}");
    let mut session =
        Session::new(runtime(), &Model::load(&path).unwrap(), &SessionOptions::default(), &Call::default());
    let x = Tensor::from_f32(&[1, 64], vec![1.0; 64]).unwrap();
    let given = session.as_mut().unwrap().run(&[("x", &x)], &[], &Call::default()).unwrap();
    let plain = Session::new(runtime(), &made, &SessionOptions::default(), &Call::default()).unwrap();
    let wanted = plain.run(&[("x", &x)], &[], &Call::default()).unwrap();
    assert_eq!(given[0].1.bytes(), wanted[0].1.bytes());
    // A few bytes from which constant folding makes a large weight.
    let shape = TensorProto {
        data_type: Some(7),
        raw_data: Some([256i64, 256].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()),
        ..float_tensor("s", &[2], &[])
    };
    let nodes = vec![op("Expand", &["one", "s"], &["w"], &[]), op("MatMul", &["x", "w"], &["y"], &[])];
    let folded = model(&[("x", "b 256")], nodes, vec![shape, float_tensor("one", &[1, 1], &[0.1])]);
    let made = compile(runtime(), &folded, &folder.join("q"), &CompileOptions::default(), &Call::default()).unwrap();
    assert!(made.warnings.iter().any(|w| w.contains("fp32-ahead is left out: its weights")), "{:?}", made.warnings);
}

/// Returns a random graph of one or two inputs with open sizes, and the sizes that it accepts.
fn random_model(random: &mut Random) -> Model {
    let features = 2 + random.below(6) as i64;
    let mut nodes = Vec::new();
    let mut weights = vec![weight("w", &[features, 4])];
    let rows = ["b", "?", "batch", "n"][random.below(4)];
    let columns = ["f", "?", "m"][random.below(3)];
    let mut inputs = vec![("x".to_owned(), format!("{rows} {columns}"))];
    let mut at = "x";
    if random.below(2) == 0 {
        inputs.push(("z".to_owned(), format!("{rows} {features}")));
        nodes.push(op("Add", &["x", "z"], &["s"], &[]));
        at = "s";
    }
    if random.below(3) == 0 {
        nodes.push(op("Relu", &[at], &["r"], &[]));
        at = "r";
    }
    nodes.push(op("MatMul", &[at, "w"], &["p"], &[]));
    if random.below(3) == 0 {
        // The model runs only batches of one.
        weights.push(TensorProto {
            data_type: Some(7),
            raw_data: Some(4i64.to_le_bytes().to_vec().into()),
            ..float_tensor("four", &[1], &[])
        });
        nodes.push(op("Reshape", &["p", "four"], &["y"], &[]));
    } else {
        nodes.push(op("Tanh", &["p"], &["y"], &[]));
    }
    let inputs: Vec<(&str, &str)> = inputs.iter().map(|(name, dims)| (name.as_str(), dims.as_str())).collect();
    model(&inputs, nodes, weights)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Returns the ends of the ranges of a package, with their names.
fn ends(package: &Package) -> Vec<(String, i64)> {
    let sizes = package.manifest().shapes.inputs.iter().flat_map(|input| input.dims.clone().unwrap());
    let ends = |size| match size {
        Size::Range(range) => [Some(range.min), range.max].map(|end| Some((range.name.clone(), end?))),
        Size::Fixed(_) => [None, None],
    };
    sizes.flat_map(ends).flatten().collect()
}

/// Returns inputs with the shapes of an example, one size of which is at the end of its range.
fn inputs_at(package: &Package, example: &[(String, Vec<i64>)], end: Option<&(String, i64)>) -> Vec<(String, Tensor)> {
    let input = |(name, shape): &(String, Vec<i64>)| {
        let dims = package.manifest().shapes.inputs.iter().find(|i| i.name == *name).unwrap().dims.clone();
        let size = |(size, dim): (&i64, &Size)| match (dim, end) {
            (Size::Range(range), Some((name, end))) if range.name == *name => *end,
            _ => *size,
        };
        let shape: Vec<i64> = shape.iter().zip(&dims.unwrap()).map(size).collect();
        let count = shape.iter().product::<i64>() as usize;
        (name.clone(), Tensor::from_f32(&shape, vec![0.5; count]).unwrap())
    };
    example.iter().map(input).collect()
}

#[test]
fn packages_of_random_graphs_run_on_their_example_and_at_both_ends() {
    let cases = std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40u64);
    let folder = scratch("inputs-random");
    let (mut made, mut refused, mut narrowed, mut runs) = (0, 0, 0, 0);
    for case in 0..cases {
        let mut random = Random(case);
        let model = random_model(&mut random);
        let options = CompileOptions {
            dynamic: random.below(3) > 0,
            batch_min: 1 + random.below(2) as i64,
            batch_max: [64, 64, 3][random.below(3)],
            portable_only: true,
            ..CompileOptions::default()
        };
        let path = folder.join("p");
        let compiled = match compile(runtime(), &model, &path, &options, &Call::default()) {
            Ok(compiled) => compiled,
            // The model does not accept the requested batch.
            Err(e) if e.message().contains("the model does not run") => {
                assert!(options.dynamic && (options.batch_min, options.batch_max) != (1, 64), "case {case}: {e}");
                refused += 1;
                continue;
            }
            Err(e) => panic!("case {case}: {e}"),
        };
        made += 1;
        narrowed += u64::from(!compiled.warnings.is_empty());
        let package = Package::open(&path, &OpenOptions::default()).unwrap();
        let session = package.session(runtime(), &SessionOptions::default(), &Call::default()).unwrap();
        let example: Vec<(String, Vec<i64>)> = {
            let loaded = Model::load(&path).unwrap();
            let options = InputOptions::default();
            Source::new(&loaded, None, &options).unwrap().timing().unwrap().shapes()
        };
        for end in std::iter::once(None).chain(ends(&package).iter().map(Some)) {
            let inputs = inputs_at(&package, &example, end);
            let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            let outcome = session.run(&feed, &[], &Call::default());
            assert!(outcome.is_ok(), "case {case}, {end:?}: {} {example:?}", outcome.err().unwrap());
            runs += 1;
        }
    }
    println!("{cases} graphs: {made} packages ({narrowed} narrowed), {refused} refused, {runs} runs");
    assert!(made > 0 && runs > made);
}

#[test]
fn a_signature_keeps_the_names_that_the_model_has() {
    let made = model(&[("x", "unk__1 8")], vec![op("Relu", &["x"], &["y"], &[])], Vec::new());
    assert_eq!(made.inputs()[0].shape.as_ref().unwrap()[0], Dim::Symbolic("unk__1".to_owned()));
}

/// Runs the command, and returns its exit code, its output and its errors.
fn optimize(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_optimize"));
    command.env(
        "ORT_DYLIB_PATH",
        std::env::var_os("ORT_DYLIB_PATH")
            .unwrap_or_else(|| support::deps("onnxruntime/libonnxruntime.so.1").into_os_string()),
    );
    let output = command.args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn saved(model: &Model, path: &std::path::Path) -> String {
    model.save(path, optimize::onnx::save::ExternalData::Never, &Call::default()).unwrap();
    path.display().to_string()
}

#[test]
fn quantize_and_prune_say_size_speed_and_quality_without_being_asked() {
    let folder = scratch("inputs-brief");
    let nodes = vec![op("MatMul", &["x", "w"], &["y"], &[])];
    let file = saved(&model(&[("x", "b 64")], nodes, vec![weight("w", &[64, 64])]), &folder.join("m.onnx"));
    let result = folder.join("q.onnx").display().to_string();
    for technique in [&["quantize"][..], &["prune", "--sparsity", "0.3"]] {
        let arguments = [technique, &["--model", &file, "--output", &result]].concat();
        let (code, printed, said) = optimize(&arguments);
        assert_eq!(code, Some(0), "{said}");
        assert!(
            printed.contains("size  ") && printed.contains("latency  ") && printed.contains("cosine  "),
            "{printed}"
        );
        assert!(
            printed.contains("Timed on x 1x64 (generated)") && printed.contains("; quality on 8 samples."),
            "{printed}"
        );
        let (_, printed, _) = optimize(&[&arguments[..], &["--no-benchmark"]].concat());
        assert!(printed.contains("size  ") && !printed.contains("latency"), "{printed}");
        let (_, printed, _) = optimize(&[&arguments[..], &["--json"]].concat());
        let report: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(report["benchmark"]["input_shapes"]["x"], serde_json::json!([1, 64]));
        assert!(report["quality"]["cosine"].as_f64().unwrap() > 0.5 && report["benchmark"]["first_run_ms"].is_null());
    }
}

#[test]
fn without_onnx_runtime_a_result_is_made_and_the_reason_said() {
    let folder = scratch("inputs-without");
    let nodes = vec![op("MatMul", &["x", "w"], &["y"], &[])];
    let file = saved(&model(&[("x", "b 64")], nodes, vec![weight("w", &[64, 64])]), &folder.join("m.onnx"));
    let result = folder.join("q.onnx").display().to_string();
    let nowhere = folder.join("no.so").display().to_string();
    let (code, printed, _) =
        optimize(&["quantize", "--model", &file, "--output", &result, "--runtime-library", &nowhere]);
    assert_eq!(code, Some(0));
    assert!(printed.contains("Speed and quality were not measured: "), "{printed}");
}

#[test]
fn run_prints_whole_numbers_whole_and_leaves_out_what_is_no_tensor() {
    let folder = scratch("inputs-run");
    let cast = |name: &str, to| op("Cast", &["x"], &[name], &[("to", to)]);
    let mut graph = model(&[("x", "b 2")], Vec::new(), Vec::new()).proto().clone();
    let body = graph.graph.as_mut().unwrap();
    body.node = vec![cast("whole", 7), cast("double", 11), op("SequenceConstruct", &["x"], &["list"], &[])];
    let typed = |name: &str, dtype: DataType| {
        let tensor = TensorTypeProto { elem_type: Some(dtype.to_onnx()), ..Default::default() };
        let value_type = TypeProto { tensor_type: Some(Box::new(tensor)), ..Default::default() };
        ValueInfoProto { name: Some(name.into()), value_type: Some(Box::new(value_type)), ..Default::default() }
    };
    let element = typed("", DataType::Float32).value_type;
    let list = TypeProto {
        sequence_type: Some(Box::new(ElementTypeProto { elem_type: element, ..Default::default() })),
        ..Default::default()
    };
    let list = ValueInfoProto { name: Some("list".into()), value_type: Some(Box::new(list)), ..Default::default() };
    body.output = vec![typed("whole", DataType::Int64), typed("double", DataType::Float64), list];
    let file = saved(&Model::from_proto(graph), &folder.join("m.onnx"));
    let arguments = ["run", "--model", &file, "--values", "x:3,0.1", "--shapes", "x:1x2"];
    let (code, printed, said) = optimize(&arguments);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        printed.contains("int64[1, 2]\n  3 0\n")
            && said.contains("is left out, because only tensors are printed, not sequences and maps: list"),
        "{printed}{said}"
    );
    let (_, printed, _) = optimize(&[&arguments[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["outputs"]["whole"]["values"], serde_json::json!([3, 0]));
    assert_eq!(json["outputs"]["double"]["values"][1].as_f64(), Some(f64::from(0.1f32)));
}
