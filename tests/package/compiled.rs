//! Tests of variants compiled for this library's kernels: they are made and opened, or passed over with the reason.

use super::*;
use optimize::onnx::proto::NodeProto;

fn far(a: &Tensor, b: &Tensor) -> f32 {
    let (a, b) = (a.to_f32_vec().unwrap(), b.to_f32_vec().unwrap());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn placed(generator: &Generator) -> Placement {
    generator.placements()[0].clone()
}

#[test]
fn a_quantized_variant_is_compiled_and_opened_or_passed_over_with_the_reason() {
    if !kernels() {
        return;
    }
    let folder = Folder::new("package-compiled");
    let options = CompileOptions { variants: vec!["int8".to_owned()], ..dynamic() };
    let path = folder.join("p");
    let made = compile(runtime(), &minilm(), &path, &options, &Call::default()).unwrap();
    assert!(made.warnings.iter().all(|warning| !warning.contains("left out")), "{:?}", made.warnings);
    compile(runtime(), &minilm(), &folder.join("again"), &options, &Call::default()).unwrap();
    let manifest = |name: &str| std::fs::read(folder.join(name).join("optimize.json")).unwrap();
    assert!(manifest("p") == manifest("again"), "the same model gives the same bytes");

    let session = |options: &SessionOptions| {
        Package::open(&path, &OpenOptions::default()).unwrap().session(runtime(), options, &Call::default()).unwrap()
    };
    let mut compiled = session(&SessionOptions::default());
    assert!(compiled.placement().groups > 3 && compiled.placement().passed_over.is_empty());
    assert_eq!(compiled.placement().weights_copied, None);
    let given = run(&mut compiled, 3, 9).unwrap();
    assert_eq!(run(&mut compiled, 5, 9).unwrap_err().kind(), Kind::InvalidArgument);
    let (int8, _) = optimize::quantize::quantize(&minilm(), &Default::default(), &Call::default()).unwrap();
    let mut plain = Session::new(runtime(), &int8, &SessionOptions::default(), &Call::default()).unwrap();
    let wanted = run(&mut plain, 3, 9).unwrap();
    for ((name, a), (_, b)) in given.iter().zip(&wanted) {
        assert!(far(a, b) < 1e-4, "{name}: {}", far(a, b));
    }
    let mut stock = session(&SessionOptions::stock());
    assert!(stock.placement().groups == 0 && far(&run(&mut stock, 3, 9).unwrap()[2].1, &wanted[2].1) < 0.3);

    // If the variant is for another class of processors or another version, it is not used.
    let ours = String::from_utf8(manifest("p")).unwrap();
    let other = ours.replace("\"made_for\": \"liboptimize ", "\"made_for\": \"liboptimize 9.");
    assert_ne!(other, ours);
    reseal(&path, other.as_bytes());
    let choice = Package::open(&path, &OpenOptions::default()).unwrap().choose(Some(runtime())).unwrap();
    assert!(choice.index == 1 && choice.reason.contains("it was compiled for liboptimize 9."), "{}", choice.reason);
    reseal(&path, ours.as_bytes());

    // If the file of weights is damaged, the variant is not used.
    let weights = path.join("model/int8-compiled/model.onnx.packed");
    let intact = std::fs::read(&weights).unwrap();
    let mut damaged = intact.clone();
    damaged[intact.len() / 2] ^= 4;
    for (bytes, reason) in [(&damaged[..], "checksum"), (&intact[..intact.len() - 1], "bytes, but optimize.json says")]
    {
        std::fs::write(&weights, bytes).unwrap();
        let mut session = session(&SessionOptions::default());
        let passed_over = session.placement().passed_over.concat();
        assert!(passed_over.contains("int8-compiled") && passed_over.contains(reason), "{passed_over}");
        assert!(far(&run(&mut session, 3, 9).unwrap()[2].1, &wanted[2].1) < 0.3);
        let package = Package::open(&path, &OpenOptions::default()).unwrap();
        assert!(package.verify(None, &Call::default()).unwrap_err().message().contains("model.onnx.packed"));
    }
}

#[test]
fn bf16_is_the_model_itself_compiled() {
    if !kernels() {
        return;
    }
    let folder = Folder::new("package-bf16");
    let path = folder.join("p");
    let names = ["bf16", "fp32"].map(str::to_owned);
    let options = CompileOptions { variants: names.to_vec(), ..dynamic() };
    let made = compile(runtime(), &minilm(), &path, &options, &Call::default()).unwrap();
    assert!(made.warnings.iter().all(|warning| !warning.contains("left out")), "{:?}", made.warnings);

    let package = Package::open(&path, &OpenOptions::default()).unwrap();
    let variants: Vec<&str> = package.manifest().variants.iter().map(|variant| variant.name.as_str()).collect();
    assert_eq!(variants, ["bf16-compiled", "bf16", "fp32-ahead", "fp32"]);
    let weights = |name: &str| std::fs::metadata(path.join(name)).unwrap().len();
    let packed = weights("model/bf16-compiled/model.onnx.packed") as f64;
    let floats: i64 =
        minilm().graph().initializer.iter().filter(|t| t.dims.len() == 2).map(|t| 4 * t.dims[0] * t.dims[1]).sum();
    let table = 4 * 30522 * 384;
    assert!((0.45..0.56).contains(&(packed / (floats - table) as f64)), "{packed} of {floats}");

    let mut plain = Session::new(runtime(), &minilm(), &SessionOptions::stock(), &Call::default()).unwrap();
    let wanted = run(&mut plain, 3, 9).unwrap();
    let mut compiled = package.session(runtime(), &SessionOptions::default(), &Call::default()).unwrap();
    assert!(compiled.placement().groups > 3, "{:?}", compiled.placement());
    let apart = far(&run(&mut compiled, 3, 9).unwrap()[2].1, &wanted[2].1);
    assert!(apart > 1e-6 && apart < 0.05, "{apart}");
    // Without the kernels, the graph of fp32 is the first choice.
    let mut stock = package.session(runtime(), &SessionOptions::stock(), &Call::default()).unwrap();
    assert!(far(&run(&mut stock, 3, 9).unwrap()[2].1, &wanted[2].1) < 1e-4);
    assert!(package.choose(None).unwrap().reason.contains("fp32: "), "{}", package.choose(None).unwrap().reason);
}

#[test]
fn generators_and_sessions_of_the_model_use_the_compiled_variant() {
    if !kernels() {
        return;
    }
    let folder = Folder::new("package-compiled-decoder");
    let path = folder.join("p");
    let options = CompileOptions { variants: vec!["int4".to_owned()], ..dynamic() };
    let model = Model::load(&deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let made = compile(runtime(), &model, &path, &options, &Call::default()).unwrap();
    assert!(made.warnings.iter().all(|warning| !warning.contains("left out")), "{:?}", made.warnings);

    let package = || Package::open(&path, &OpenOptions::default()).unwrap();
    let generator = |options: &SessionOptions| package().generator(runtime(), options, &Call::default()).unwrap();
    let write = |generator: &mut Generator| {
        let options = GenerateOptions { max_new_tokens: Some(12), ..GenerateOptions::default() };
        let prompts = [Prompt::Text("The capital of France is")];
        generator.generate(&prompts, &options, None, &Call::default()).unwrap().swap_remove(0).tokens
    };
    let mut compiled = generator(&SessionOptions::default());
    // The compiled file is mapped and used: the portable graph cannot give two groups of nodes per layer.
    assert!(placed(&compiled).groups >= 60 && placed(&compiled).passed_over.is_empty());
    let tokens = write(&mut compiled);
    assert_eq!(tokens.len(), 12);

    let bytes = |name: &str| std::fs::read(path.join("model/int4-compiled").join(name)).unwrap();
    let mut damaged = bytes("model.onnx.packed");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(path.join("model/int4-compiled/model.onnx.packed"), damaged).unwrap();
    let mut portable = generator(&SessionOptions::default());
    assert!(placed(&portable).passed_over.concat().starts_with("int4-compiled: "), "{:?}", placed(&portable));
    assert_eq!(write(&mut portable), tokens);
    let stock = generator(&SessionOptions::stock());
    assert!(placed(&stock).groups == 0 && placed(&stock).passed_over.is_empty());
}

#[test]
fn what_fixed_sizes_determine_is_computed_once() {
    if !kernels() {
        return;
    }
    let folder = Folder::new("package-compiled-sizes");
    let compiled = |name: &str, options: CompileOptions| {
        let options = CompileOptions { variants: vec!["int8".to_owned()], ..options };
        compile(runtime(), &minilm(), &folder.join(name), &options, &Call::default()).unwrap();
        let package = Package::open(&folder.join(name), &OpenOptions::default()).unwrap();
        package.session(runtime(), &SessionOptions::default(), &Call::default()).unwrap()
    };
    let (open, fixed) = (compiled("open", dynamic()), compiled("fixed", CompileOptions::default()));
    assert!(open.placement().groups > 0 && fixed.placement().groups > 0);
    let nodes = |session: &Session| session.placement().nodes.values().sum::<usize>();
    assert!(nodes(&fixed) < nodes(&open), "{} and {}", nodes(&fixed), nodes(&open));
}

#[test]
fn models_whose_outputs_are_classes_have_quantized_variants_that_open() {
    let mut proto = small().proto().clone();
    let graph = proto.graph.as_deref_mut().unwrap();
    let (y, classes) = (graph.output[0].name.clone().unwrap(), "classes");
    graph.node.push(NodeProto {
        op_type: Some("ArgMax".to_owned()),
        input: vec![y],
        output: vec![classes.to_owned()],
        ..NodeProto::default()
    });
    graph.output[0].name = Some(classes.to_owned());
    let tensor = graph.output[0].value_type.as_mut().and_then(|found| found.tensor_type.as_mut()).unwrap();
    (tensor.elem_type, tensor.shape) = (Some(7), None);
    let model = Model::from_proto(proto);
    let folder = Folder::new("package-classes");
    for variants in [["fp32", "int8"], ["fp32", "int4"]] {
        let path = folder.join(variants[1]);
        let options = CompileOptions { variants: variants.map(str::to_owned).to_vec(), ..dynamic() };
        compile(runtime(), &model, &path, &options, &Call::default()).unwrap();
        let package = Package::open(&path, &OpenOptions::default()).unwrap();
        assert!(package.manifest().variants.iter().any(|variant| variant.precision == variants[1]), "{variants:?}");
    }
}
