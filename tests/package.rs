//! Tests of packages: making, moving, opening and running them, what is rejected, shapes against a reference, and
//! damage of every kind.

mod common;
#[path = "package/compiled.rs"]
mod compiled;
#[path = "package/threads.rs"]
mod threads;

use common::{Folder, Random};
use optimize::call::Call;
use optimize::error::Kind;
use optimize::model::contract::Size;
use optimize::model::{Dim, Model, ValueInfo};
use optimize::onnx::dtype::DataType;
use optimize::package::shapes::{self, parse};
use optimize::package::{CompileOptions, OpenOptions, Package, compile, triton, verify};
use optimize::runtime::{Placement, Provider, Runtime, Session, SessionOptions, Tensor, available};
use optimize::text::{GenerateOptions, Generator, Prompt, Rows};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn deps(name: &str) -> PathBuf {
    let folder = std::env::var_os("OPTIMIZE_TEST_DEPS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/deps"), PathBuf::from);
    folder.join(name)
}

fn runtime() -> &'static Runtime {
    let path =
        std::env::var_os("ORT_DYLIB_PATH").map_or_else(|| deps("onnxruntime/libonnxruntime.so.1"), PathBuf::from);
    Runtime::open(Some(&path)).unwrap()
}

fn minilm() -> Model {
    Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap()
}

fn dynamic() -> CompileOptions {
    CompileOptions { dynamic: true, batch_max: 4, ..CompileOptions::default() }
}

/// Returns `y = x * w` of float32 `[n, 32]`.
fn small() -> Model {
    Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/package/model.onnx")).unwrap()
}

fn feed(rows: i64, length: i64) -> Vec<(&'static str, Tensor)> {
    let count = (rows * length) as usize;
    let ids = (0..count).map(|i| 1000 + 37 * i as i64).collect();
    vec![
        ("input_ids", Tensor::from_i64(&[rows, length], ids).unwrap()),
        ("attention_mask", Tensor::from_i64(&[rows, length], vec![1; count]).unwrap()),
    ]
}

fn run(session: &mut Session, rows: i64, length: i64) -> optimize::error::Result<Vec<(String, Tensor)>> {
    let feed = feed(rows, length);
    let feed: Vec<(&str, &Tensor)> = feed.iter().map(|(name, tensor)| (*name, tensor)).collect();
    session.run(&feed, &[], &Call::default())
}

#[test]
fn a_package_gives_what_the_model_gives_in_both_layouts_and_keeps_its_contract() {
    let folder = Folder::new("package-layouts");
    let model = minilm();
    let options = SessionOptions::default();
    let mut plain = Session::new(runtime(), &model, &options, &Call::default()).unwrap();
    let wanted = run(&mut plain, 2, 9).unwrap();
    for single_file in [false, true] {
        let path = folder.join(if single_file { "one.package" } else { "folder" });
        compile(runtime(), &model, &path, &CompileOptions { single_file, ..dynamic() }, &Call::default()).unwrap();
        let moved = folder.join(if single_file { "moved.package" } else { "moved" });
        std::fs::rename(&path, &moved).unwrap();
        let package = Package::open(&moved, &OpenOptions::default()).unwrap();
        package.verify(None, &Call::default()).unwrap();
        assert!(package.choose(Some(runtime())).unwrap().reason.contains("fp32-ahead"));
        let made = package.session(runtime(), &options, &Call::default()).unwrap();
        let loaded = Model::load(&moved).unwrap();
        let by_model = Session::new(runtime(), &loaded, &options, &Call::default()).unwrap();
        for mut session in [made, by_model] {
            let given = run(&mut session, 2, 9).unwrap();
            assert_eq!(given.len(), wanted.len());
            for ((name, a), (other, b)) in given.iter().zip(&wanted) {
                let far =
                    a.to_f32_vec().unwrap().iter().zip(b.to_f32_vec().unwrap()).any(|(a, b)| (a - b).abs() > 1e-4);
                assert!(name == other && a.shape() == b.shape() && !far, "{name}");
            }
            let e = run(&mut session, 5, 9).unwrap_err();
            assert_eq!(e.kind(), Kind::InvalidArgument);
            let text = e.to_string();
            assert!(text.contains("dimension 0 is 5") && text.contains("\"batch\": 1 to 4"), "{text}");
        }
        assert!(package.tokenizer().unwrap().encode("a", true).unwrap().ids.len() == 3);
    }
    // A technique uses the portable graph, and its result keeps the contract.
    let loaded = Model::load(&folder.join("moved.package")).unwrap();
    let (int8, _) = optimize::quantize::quantize(&loaded, &Default::default(), &Call::default()).unwrap();
    let mut session = Session::new(runtime(), &int8, &options, &Call::default()).unwrap();
    assert!(run(&mut session, 4, 3).is_ok() && run(&mut session, 5, 3).is_err());
}

#[test]
fn variants_share_weights_and_are_chosen_with_a_reason() {
    let folder = Folder::new("package-variants");
    let path = folder.join("p");
    let variants = vec!["fp32".to_owned(), "int8".to_owned()];
    let options = CompileOptions { variants, licence: Some("MIT".to_owned()), ..dynamic() };
    compile(runtime(), &minilm(), &path, &options, &Call::default()).unwrap();
    let names: Vec<String> = Package::open(&path, &OpenOptions::default())
        .unwrap()
        .manifest()
        .variants
        .iter()
        .map(|v| v.name.clone())
        .collect();
    let prepared = if kernels() { "int8-compiled" } else { "int8-ahead" };
    assert_eq!(names, ["fp32-ahead", "fp32", prepared, "int8"]);
    let open = |variant: &str| Package::open(&path, &OpenOptions { variant: Some(variant.to_owned()), key: None });
    assert_eq!(open("int8").unwrap().choose(Some(runtime())).unwrap().index, 2);
    assert!(open("int8").unwrap().inspect(Some(runtime())).unwrap().contains("asked for"));
    // A prepared graph can be named as well; until a session is created, the portable graph stands for it.
    for (name, index) in [("fp32-ahead", 0), (prepared, 2)] {
        let named = open(name).unwrap();
        assert_eq!(named.choose(Some(runtime())).unwrap().index, index);
        assert!(named.model().is_ok(), "{name}");
        named.session(runtime(), &SessionOptions::default(), &Call::default()).unwrap();
    }
    assert_eq!(open("int4").err().unwrap().kind(), Kind::NotFound);
    assert_eq!(open("fp32").unwrap().manifest().lineage.len(), 1, "the step that made int8");
    let file = std::fs::read(path.join("optimize.json")).unwrap();
    // On another processor, the portable variant is used, and the reason is given.
    let other = String::from_utf8(file).unwrap().replace(&format!("\"{}\"", std::env::consts::ARCH), "\"vax\"");
    reseal(&path, other.as_bytes());
    let choice = Package::open(&path, &OpenOptions::default()).unwrap().choose(Some(runtime())).unwrap();
    assert!(choice.index == 1 && choice.reason.contains("it is for vax"), "{}", choice.reason);
    let newer = other.replacen("\"format\": 1", "\"format\": 99", 1);
    reseal(&path, newer.as_bytes());
    let e = Package::open(&path, &OpenOptions::default()).err().unwrap();
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("format 99"), "{e}");
}

/// Returns whether this library has kernels for this processor.
fn kernels() -> bool {
    available(runtime(), 0).iter().any(|found| found.provider == Provider::Cpu && found.kernels_unused.is_none())
}

fn reseal(path: &Path, manifest: &[u8]) {
    std::fs::write(path.join("optimize.json"), manifest).unwrap();
    std::fs::write(path.join("optimize.json.sha256"), verify::seal(manifest)).unwrap();
}

fn info(name: &str, dims: &[&str]) -> ValueInfo {
    let dim = |d: &&str| d.parse().map_or_else(|_| Dim::Symbolic((*d).to_owned()), Dim::Fixed);
    ValueInfo { name: name.into(), dtype: Some(DataType::Float32), shape: Some(dims.iter().map(dim).collect()) }
}

#[test]
fn the_table_of_torch_export() {
    let infos = [info("x", &["", "4"]), info("y", &["", ""])];
    let example = HashMap::from([("x".to_owned(), vec![2, 4]), ("y".to_owned(), vec![2, 3])]);
    let make = |json: &str| shapes::contract(&infos, &parse(json)?, &example);
    let batch = r#"{"name": "batch", "min": 2, "max": 8}"#;
    let contract = make(&format!(r#"{{"x": {{"0": {batch}}}, "1": {{"0": {batch}}}}}"#)).unwrap();
    let check = |x: &[i64], y: &[i64]| {
        let f = DataType::Float32;
        contract.check(&[("x", f, x), ("y", f, y)]).map_err(|e| e.to_string())
    };
    check(&[8, 4], &[8, 3]).unwrap();
    let says = |outcome: Result<(), String>, parts: &[&str]| {
        let text = outcome.unwrap_err();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    };
    says(check(&[9, 4], &[9, 3]), &["\"x\"", "dimension 0 is 9", "2 to 8"]);
    says(check(&[3, 4], &[4, 3]), &["\"y\"", "dimension 0 is 4", "accepts 3", "\"batch\"", "\"x\""]);
    // torch accepts a size of 1 below a minimum of 2; here, bounds are exact.
    says(check(&[1, 4], &[1, 3]), &["dimension 0 is 1", "2 to 8"]);
    says(check(&[2, 5], &[2, 3]), &["dimension 1 is 5", "accepts 4"]);
    says(check(&[2, 4], &[2, 4]), &["\"y\"", "dimension 1 is 4", "accepts 3"]);
    says(check(&[2, 4, 1], &[2, 3]), &["3 dimensions"]);
    let wrong = contract.check(&[("x", DataType::Int64, &[2, 4])]).unwrap_err();
    assert!(wrong.to_string().contains("int64"));
    let refused = [
        (
            r#"{"x": {"0": {"name": "b", "min": 2, "max": 8}}, "y": {"0": {"name": "b", "min": 2, "max": 9}}}"#,
            "one range",
        ),
        (r#"{"x": {"0": {"name": "b", "min": 8, "max": 2}}}"#, "empty range"),
        (r#"{"x": {"0": {"name": "b", "min": -1}}}"#, "below 0"),
        (r#"{"x": {"0": {"name": "1b"}}}"#, "not a valid dimension name"),
        (r#"{"x": {"0": {"name": ""}}}"#, "not a valid dimension name"),
        (r#"{"x": {"2": {"name": "b"}}}"#, "dimension 2 does not exist"),
        (r#"{"x": {"1": {"name": "b"}}}"#, "fixes it at 4"),
        (r#"{"x": {"0": {"name": "b", "min": 3}}}"#, "outside 3 or more"),
        (r#"{"z": {"0": {"name": "b"}}}"#, "no input"),
        (r#"{"x": {"0": {"name": "b"}}, "0": {"0": {"name": "b"}}}"#, "by name and by position"),
        (r#"{"x": {"a": {"name": "b"}}}"#, "not the index of a dimension"),
        (r#"{"x": {"0": {"name": "b", "mix": 1}}}"#, "mix"),
        (r#"{"x": 3}"#, "not an object"),
        ("[]", "not an object"),
        ("{", "not JSON"),
    ];
    for (json, part) in refused {
        let e = make(json).unwrap_err().to_string();
        assert!(e.contains(part), "{json}: {e}");
    }
    let same = [info("x", &["n"]), info("y", &["n"])];
    let example = HashMap::from([("x".to_owned(), vec![2]), ("y".to_owned(), vec![2])]);
    let e = shapes::contract(&same, &parse(r#"{"x": {"0": {"name": "b"}}}"#).unwrap(), &example).unwrap_err();
    assert!(e.to_string().contains("equal"), "{e}");
}

/// Changes one of the shapes, which gets one dimension more or fewer, or another size.
fn disturb(random: &mut Random, shapes: &mut [Vec<i64>]) {
    let at = random.below(shapes.len());
    match random.below(5) {
        0 => shapes[at].push(1),
        1 => drop(shapes[at].pop()),
        _ if !shapes[at].is_empty() => {
            let d = random.below(shapes[at].len());
            shapes[at][d] = random.below(9) as i64;
        }
        _ => {}
    }
}

#[test]
fn ten_thousand_random_shapes_against_a_reference() {
    let mut random = Random(20261124);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..1000 {
        let names = ["a", "b", "c"];
        let ranges: Vec<(i64, i64)> = names
            .iter()
            .map(|_| {
                let min = random.below(4) as i64;
                (min, min + random.below(4) as i64)
            })
            .collect();
        let mut plan: Vec<Vec<Option<usize>>> = Vec::new();
        for _ in 0..1 + random.below(3) {
            plan.push((0..random.below(4)).map(|_| Some(random.below(4)).filter(|n| *n < 3)).collect());
        }
        let (mut infos, mut example, mut json) = (Vec::new(), HashMap::new(), serde_json::Map::new());
        for (index, dims) in plan.iter().enumerate() {
            let name = format!("in{index}");
            infos.push(info(&name, &vec![""; dims.len()]));
            let sizes: Vec<i64> = dims.iter().map(|d| d.map_or(3, |n| ranges[n].0)).collect();
            example.insert(name.clone(), sizes);
            let object: serde_json::Map<String, serde_json::Value> = dims
                .iter()
                .enumerate()
                .filter_map(|(at, d)| {
                    d.map(|n| {
                        (at.to_string(), serde_json::json!({"name": names[n], "min": ranges[n].0, "max": ranges[n].1}))
                    })
                })
                .collect();
            json.insert(name, object.into());
        }
        let asked = parse(&serde_json::Value::from(json).to_string()).unwrap();
        let contract = shapes::contract(&infos, &asked, &example).unwrap();
        for _ in 0..10 {
            // The shapes are near valid ones, so that both outcomes are frequent.
            let chosen: Vec<i64> = ranges.iter().map(|r| r.0 + random.below((r.1 - r.0 + 1) as usize) as i64).collect();
            let mut shapes: Vec<Vec<i64>> =
                plan.iter().map(|dims| dims.iter().map(|d| d.map_or(3, |n| chosen[n])).collect()).collect();
            if random.below(2) == 0 {
                disturb(&mut random, &mut shapes);
            }
            let fits = reference(&plan, &ranges, &shapes);
            let given: Vec<(&str, DataType, &[i64])> =
                infos.iter().zip(&shapes).map(|(i, s)| (i.name.as_str(), DataType::Float32, &s[..])).collect();
            assert_eq!(contract.check(&given).is_ok(), fits, "round {round}: {plan:?} {ranges:?} {shapes:?}");
            if fits { taken += 1 } else { refused += 1 }
        }
    }
    assert!(taken + refused == 10_000 && taken > 1000 && refused > 1000, "{taken} {refused}");
}

/// Returns whether there are sizes of the three names that give all of the shapes, by trying all sizes.
fn reference(plan: &[Vec<Option<usize>>], ranges: &[(i64, i64)], shapes: &[Vec<i64>]) -> bool {
    let all = |n: usize| ranges[n].0..=ranges[n].1;
    all(0).any(|a| {
        all(1).any(|b| {
            all(2).any(|c| {
                let size = |d: &Option<usize>| d.map_or(3, |n| [a, b, c][n]);
                plan.iter().zip(shapes).all(|(dims, shape)| dims.iter().map(size).eq(shape.iter().copied()))
            })
        })
    })
}

#[test]
fn a_thousand_flipped_bits_are_all_found_and_no_opening_panics() {
    let folder = Folder::new("package-flips");
    let path = folder.join("one.package");
    let key = [7u8; 32];
    let options = CompileOptions { single_file: true, key: Some(key), portable_only: true, ..dynamic() };
    compile(runtime(), &small(), &path, &options, &Call::default()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut random = Random(7);
    let damaged = folder.join("damaged.package");
    for _ in 0..1000 {
        let (at, bit) = (random.below(whole.len()), random.below(8));
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        std::fs::write(&damaged, &bytes).unwrap();
        let outcome = Package::open(&damaged, &OpenOptions::default()).and_then(|package| {
            let _ = package.model();
            package.verify(None, &Call::default())
        });
        assert!(outcome.is_err(), "bit {bit} of byte {at}");
    }
    Package::open(&path, &OpenOptions::default())
        .unwrap()
        .verify(Some(&verify::public_key(&key)), &Call::default())
        .unwrap();
    let stranger = OpenOptions { key: Some(verify::public_key(&[8; 32])), ..OpenOptions::default() };
    assert!(Package::open(&path, &stranger).err().unwrap().to_string().contains("another key"));
    for cut in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&damaged, &whole[..cut]).unwrap();
        assert!(Package::open(&damaged, &OpenOptions::default()).is_err(), "{cut}");
    }
}

#[test]
fn every_file_of_a_folder_is_looked_at() {
    let folder = Folder::new("package-folder");
    let path = folder.join("p");
    compile(runtime(), &small(), &path, &dynamic(), &Call::default()).unwrap();
    let again = folder.join("again");
    compile(runtime(), &small(), &again, &dynamic(), &Call::default()).unwrap();
    let package = Package::open(&path, &OpenOptions::default()).unwrap();
    let mut files: Vec<String> = package.manifest().files.keys().cloned().collect();
    files.extend(["optimize.json".to_owned(), "optimize.json.sha256".to_owned()]);
    for name in files {
        let file = path.join(&name);
        let whole = std::fs::read(&file).unwrap();
        assert_eq!(whole, std::fs::read(again.join(&name)).unwrap(), "{name} is the same whenever it is made");
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 4;
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, bytes).unwrap();
        let verified = Package::open(&path, &OpenOptions::default()).and_then(|p| p.verify(None, &Call::default()));
        assert!(verified.is_err(), "{name}");
        std::fs::write(&file, whole).unwrap();
    }
    package.verify(None, &Call::default()).unwrap();
    // An existing folder that is not a package is kept.
    std::fs::create_dir(folder.join("mine")).unwrap();
    let e = compile(runtime(), &small(), &folder.join("mine"), &dynamic(), &Call::default()).unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert_eq!(folder.names(), ["again", "mine", "p"]);
}

#[test]
fn a_package_of_the_first_version_opens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/package/first.package");
    let package = Package::open(&path, &OpenOptions::default()).unwrap();
    package.verify(None, &Call::default()).unwrap();
    assert!(matches!(package.manifest().shapes.inputs[0].dims.as_ref().unwrap()[0], Size::Range(_)));
    let session = package.session(runtime(), &SessionOptions::default(), &Call::default()).unwrap();
    let x = Tensor::from_f32(&[2, 32], vec![1.0; 64]).unwrap();
    let outputs = session.run(&[("x", &x)], &[], &Call::default()).unwrap();
    let expected: Vec<f32> = (0..64).map(|i| (i % 32) as f32 * 8.0).collect();
    assert_eq!(outputs[0].1.to_f32_vec().unwrap(), expected);
}

#[test]
fn a_repository_for_triton_has_the_contract_in_it() {
    let folder = Folder::new("package-triton");
    let path = folder.join("p");
    compile(runtime(), &small(), &path, &dynamic(), &Call::default()).unwrap();
    let package = Package::open(&path, &OpenOptions::default()).unwrap();
    triton::export(&package, &folder.join("repository"), "scale", &Call::default()).unwrap();
    let config = std::fs::read_to_string(folder.join("repository/scale/config.pbtxt")).unwrap();
    assert!(config.contains("max_batch_size: 4") && config.contains("dynamic_batching"), "{config}");
    assert!(config.contains(r#"input { name: "x" data_type: TYPE_FP32 dims: [ 32 ] }"#), "{config}");
    assert!(Model::load(&folder.join("repository/scale/1/model.onnx")).is_ok());
    assert!(triton::export(&package, &folder.join("repository"), "../x", &Call::default()).is_err());
}

#[test]
fn zeros_of_a_packed_package_take_next_to_nothing() {
    let folder = Folder::new("package-packed");
    let mut proto = minilm().proto().clone();
    for tensor in &mut proto.graph.as_mut().unwrap().initializer {
        if let Some(raw) = tensor.raw_data.as_mut().filter(|raw| raw.len() > 1 << 16) {
            let half: Vec<u8> =
                raw.chunks(4).enumerate().flat_map(|(i, v)| if i % 2 == 0 { &[0; 4] } else { v }).copied().collect();
            *raw = half.into();
        }
    }
    let model = minilm().derive(proto);
    let options = SessionOptions::default();
    let wanted = run(&mut Session::new(runtime(), &model, &options, &Call::default()).unwrap(), 2, 9).unwrap();
    for single_file in [false, true] {
        let path = folder.join(if single_file { "one" } else { "folder" });
        let packed = CompileOptions { packed: true, single_file, ..dynamic() };
        let made = compile(runtime(), &model, &path, &packed, &Call::default()).unwrap();
        let bytes: u64 = made.files.iter().map(|f| f.bytes).sum();
        assert!(bytes < model.bytes() * 6 / 10, "{bytes} of {}", model.bytes());
        let package = Package::open(&path, &OpenOptions::default()).unwrap();
        package.verify(None, &Call::default()).unwrap();
        let mut session = package.session(runtime(), &options, &Call::default()).unwrap();
        let given = run(&mut session, 2, 9).unwrap();
        assert!(given.iter().zip(&wanted).all(|(a, b)| a.1.bytes() == b.1.bytes()));
        assert!(run(&mut session, 5, 9).is_err(), "the contract");
        let text = folder.join("folder/manifest.json");
        assert!(!std::fs::read_to_string(text).unwrap().contains("model_file"), "others cannot read it");
    }
    assert_eq!(folder.names(), ["folder", "one"]);
}

#[test]
fn a_variant_for_a_provider_that_is_not_there_leaves_the_portable_one_and_its_check_is_written_down() {
    let folder = Folder::new("package-provider");
    let path = folder.join("p");
    let made = compile(runtime(), &minilm(), &path, &dynamic(), &Call::default()).unwrap();
    assert!(made.warnings.is_empty() && made.to_json().contains("\"warnings\": []"));
    let package = Package::open(&path, &OpenOptions::default()).unwrap();
    let check = package.manifest().variants[0].check.clone().unwrap();
    assert!(check.largest_difference.is_some_and(|d| d < 1e-4) && check.weights_copied.is_none(), "{check:?}");
    let session = package.session(runtime(), &SessionOptions::default(), &Call::default()).unwrap();
    assert_eq!(session.placement().weights_copied, None);
    let text = std::fs::read_to_string(path.join("optimize.json")).unwrap();
    reseal(&path, text.replacen("\"provider\": \"cpu\"", "\"provider\": \"webgpu\"", 1).as_bytes());
    let package = Package::open(&path, &OpenOptions::default()).unwrap();
    let choice = package.choose(Some(runtime())).unwrap();
    assert!(choice.index == 1 && choice.reason.contains("the provider \"webgpu\""), "{}", choice.reason);
}
