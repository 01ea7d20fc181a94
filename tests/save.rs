//! Tests of saving: the same bytes every time; at every moment, either the old or the new file; and little memory.

mod common;
#[path = "save/targets.rs"]
mod targets;

use bytes::Bytes;
use common::*;
use optimize::call::{Call, Progress};
use optimize::error::{Error, Kind};
use optimize::files;
use optimize::files::digest::hex;
use optimize::model::Model;
use optimize::onnx::proto::{ModelProto, TensorProto};
use optimize::onnx::save::{self, ExternalData, Saved};
use optimize::onnx::wire::Reader;
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const LAYOUTS: [ExternalData; 3] = [ExternalData::Auto, ExternalData::Never, ExternalData::Always];

fn parse(bytes: impl Into<Vec<u8>>) -> Model {
    Model::from_bytes(Bytes::from(bytes.into())).unwrap()
}

fn encoded(model: &Model) -> Vec<u8> {
    save::encode(model.proto()).concat()
}

fn saved(model: &Model, path: &Path, external: ExternalData) -> Result<Saved, Error> {
    model.save(path, external, &Call::default())
}

/// Returns a model with these initializers, of type uint8.
fn with_weights(weights: &[(&str, Vec<u8>)]) -> Model {
    let tensor = |(name, bytes): &(&str, Vec<u8>)| tensor(name, UINT8, &[bytes.len() as i64]).bytes(9, bytes);
    parse(model(identity_graph().all(5, weights.iter().map(tensor))).0)
}

/// Returns a model with all fields in the order of their numbers, unknown ones last, including values that equal the
/// default.
fn complete() -> Proto {
    let attribute = |name: &str| Proto::new().text(1, name);
    let attributes = [
        attribute("f").float(2, 0.0).int(20, 1),
        attribute("i").int(3, 0).text(13, "doc").int(20, 2),
        attribute("s").bytes(4, b"\xff\x00").int(20, 3),
        attribute("t").message(5, Proto::new().int(1, 0).int(2, FLOAT).text(8, "").int(14, 0)).int(20, 4),
        attribute("fs").float(7, f32::MIN_POSITIVE).float(7, -0.0).int(20, 6),
        attribute("is").int(8, -1).int(8, i64::MIN).int(20, 7),
        attribute("ss").bytes(9, b"").bytes(9, b"text").int(20, 8),
        attribute("type").int(20, 13).message(14, Proto::new().message(7, Proto::new().text(2, "opaque"))),
        attribute("ref").text(21, "alpha"),
    ];
    let everything = node("Everything", &["x", ""], &["y"]).all(5, attributes).text(6, "").text(7, "custom");
    let two = |dtype| Proto::new().int(1, 2).int(2, dtype);
    let tensors = [
        two(FLOAT).bytes(4, &[0, 0, 128, 63, 0, 0, 0, 128]).text(8, "floats"),
        two(INT64).bytes(7, &[0, 1]).text(8, "integers").text(12, "doc"),
        two(8).bytes(6, b"a").bytes(6, b"").text(8, "texts"),
        two(UINT8).text(8, "raw").bytes(9, b"ab").int(14, 0),
        two(99).text(8, "of a later type").bytes(9, b"abc"),
    ];
    let graph = Proto::new()
        .message(1, everything)
        .text(2, "")
        .all(5, tensors)
        .text(10, "graph")
        .message(11, value("x", &[-1, 0]))
        .message(12, value("y", &[]))
        .message(13, Proto::new().text(1, "q").message(4, Proto::new().text(1, "k").text(2, "v")))
        .message(16, Proto::new().text(1, "k").text(2, ""))
        .message(14, Proto::new().text(1, "annotated"));
    Proto::new()
        .int(1, 10)
        .text(2, "")
        .text(3, "1.0")
        .int(5, 0)
        .text(6, "documentation")
        .message(7, graph)
        .all(8, [opset("", 21), opset("custom", 1)])
        .message(14, Proto::new().text(1, "key").text(2, "value"))
        .message(26, Proto::new().text(1, "device").int(2, 0))
        .float(100, 1.5)
        .raw(&[0xab, 0x06, 0x08, 0x00, 0xac, 0x06]) // field 101, a group
}

#[test]
fn nothing_is_lost_and_the_bytes_are_the_same_every_time() {
    let original = complete().0;
    let model = parse(original.clone());
    assert!(encoded(&model) == original, "written otherwise than it was read");
    let folder = Folder::new("same");
    for external in LAYOUTS {
        let (one, two) = (folder.join("one.onnx"), folder.join("two.onnx"));
        let report = saved(&model, &one, external).unwrap();
        saved(&Model::load(&one).unwrap(), &two, external).unwrap();
        assert_eq!(std::fs::read(&one).unwrap(), original);
        assert_eq!(std::fs::read(&two).unwrap(), original);
        assert_eq!(Model::load(&one).unwrap().proto(), model.proto());
        assert_eq!((report.files.len(), report.files[0].bytes), (1, original.len() as u64), "nothing large in it");
        assert_eq!(report.files[0].sha256, hex(&Sha256::digest(&original)));
    }
    assert_eq!(folder.names(), ["one.onnx", "two.onnx"]);
}

#[test]
fn other_spellings_of_the_same_model_become_one() {
    // Fields are out of order, a message is in two parts, and numbers are packed where ONNX does not pack them and vice
    // versa.
    let head = Proto::new().message(8, opset("", 21)).int(1, 9).int(1, 10);
    let tensor = Proto::new().text(8, "w").bytes(1, &[2, 1]).float(4, 1.0).float(4, 2.0).int(2, FLOAT);
    let graph = [identity_graph(), Proto::new().message(5, tensor)];
    let model = parse(head.all(7, graph).0);
    let plain = Proto::new().int(1, 2).int(1, 1).int(2, FLOAT).bytes(4, &[0, 0, 128, 63, 0, 0, 0, 64]).text(8, "w");
    let sorted = Proto::new()
        .message(1, node("Identity", &["x"], &["y"]))
        .text(2, "main")
        .message(5, plain)
        .message(11, value("x", &[1]))
        .message(12, value("y", &[1]));
    assert_eq!(encoded(&model), Proto::new().int(1, 10).message(7, sorted).message(8, opset("", 21)).0);
}

/// Returns the location, the offset and the length of external data as in the file.
fn placed(tensor: &TensorProto) -> Option<(String, usize, usize)> {
    let text = |i: usize| String::from_utf8(tensor.external_data[i].value.clone().unwrap().to_vec()).unwrap();
    (!tensor.external_data.is_empty()).then(|| (text(0), text(1).parse().unwrap(), text(2).parse().unwrap()))
}

fn unresolved(path: &Path) -> ModelProto {
    Reader::new(Bytes::from(std::fs::read(path).unwrap())).read_message().unwrap()
}

#[test]
fn external_data_lies_aligned_in_a_file_named_after_its_content() {
    let mut random = Random(1);
    let weights: Vec<_> = [("a", 100), ("b", 1500), ("c", 70_001), ("d", 1024), ("e", 65_536)]
        .map(|(name, count)| (name, random.bytes(count)))
        .into();
    let inner = branch("v", [node("Neg", &["x"], &["v"])]).message(5, bytes_tensor("k", 5000));
    let choose = node("If", &["x"], &["z"]).message(5, graph_attribute("then_branch", inner));
    let tensors = weights.iter().map(|(name, bytes)| tensor(name, UINT8, &[bytes.len() as i64]).bytes(9, bytes));
    let model = parse(model(identity_graph().message(1, choose).all(5, tensors)).0);
    let folder = Folder::new("layout");
    let path = folder.join("m.onnx");
    let report = saved(&model, &path, ExternalData::Always).unwrap();
    let data = &report.files[1];
    let content = std::fs::read(&data.path).unwrap();
    assert_eq!((content.len() as u64, hex(&Sha256::digest(&content))), (data.bytes, data.sha256.clone()));
    let name = format!("m.onnx.{}.data", &data.sha256[..16]);
    assert_eq!(folder.names(), ["m.onnx".to_owned(), name.clone()]);
    let graph = unresolved(&path).graph.unwrap();
    let places: Vec<_> = graph.initializer.iter().map(placed).collect();
    let at = |offset, length| Some((name.clone(), offset, length));
    assert_eq!(places, [None, at(0, 1500), at(4096, 70_001), at(74_112, 1024), at(77_824, 65_536)]);
    let inner = graph.node[1].attribute[0].g.as_ref().unwrap();
    assert_eq!(placed(&inner.initializer[0]), at(143_360, 5000), "weights of subgraphs too");
    assert_eq!(Model::load(&path).unwrap().proto(), model.proto());
    // A copy of the folder is a valid model. Without the data file it is not, and the error names the missing file.
    let copy = Folder::new("copy");
    for name in folder.names() {
        std::fs::copy(folder.join(&name), copy.join(&name)).unwrap();
    }
    assert_eq!(Model::load(&copy.join("m.onnx")).unwrap().proto(), model.proto());
    std::fs::remove_file(copy.join(&name)).unwrap();
    let error = Model::load(&copy.join("m.onnx")).err().unwrap();
    assert!(error.kind() == Kind::NotFound && error.to_string().contains(&name), "{error}");
    // Saving again gives the same bytes. Saving inline puts all into one file, and leaves no data file.
    let before = std::fs::read(&path).unwrap();
    saved(&Model::load(&path).unwrap(), &path, ExternalData::Always).unwrap();
    assert_eq!((std::fs::read(&path).unwrap(), folder.names().len()), (before, 2));
    saved(&Model::load(&path).unwrap(), &path, ExternalData::Auto).unwrap();
    assert_eq!(folder.names(), ["m.onnx"]);
    assert_eq!(std::fs::read(&path).unwrap(), encoded(&model));
}

#[test]
fn data_files_stay_as_long_as_a_model_of_the_folder_uses_them() {
    let folder = Folder::new("stale");
    let model = |seed| with_weights(&[("w", Random(seed).bytes(5000))]);
    let path = folder.join("m.onnx");
    let data = |model: &Model| saved(model, &path, ExternalData::Always).unwrap().files[1].path.clone();
    let first = data(&model(1));
    std::fs::copy(&path, folder.join("copy.onnx")).unwrap();
    std::fs::write(folder.join("m.onnx.0123456789abcdef.data"), "of a save that was killed").unwrap();
    std::fs::write(folder.join("m.onnx.data"), "of somebody else").unwrap();
    std::fs::write(folder.join("m.onnx.2.0123456789abcdef.data"), "of somebody else").unwrap();
    let second = data(&model(2));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut expected =
        ["copy.onnx", "m.onnx", "m.onnx.2.0123456789abcdef.data", "m.onnx.data"].map(String::from).to_vec();
    expected.extend([name(&first), name(&second)]);
    expected.sort();
    assert_eq!(folder.names(), expected);
    assert_eq!(Model::load(&folder.join("copy.onnx")).unwrap().proto(), model(1).proto());
    std::fs::remove_file(folder.join("copy.onnx")).unwrap();
    saved(&model(3), &path, ExternalData::Never).unwrap();
    assert_eq!(folder.names(), ["m.onnx", "m.onnx.2.0123456789abcdef.data", "m.onnx.data"]);
}

#[test]
fn names_that_are_hard_on_file_systems() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new("names");
    let long = format!("{}.onnx", "n".repeat(250));
    let names: [&[u8]; 6] = [b"a\\b.onnx", b"\xff.onnx", b".onnx", b"no extension", b"new\nline.onnx", long.as_bytes()];
    let model = with_weights(&[("w", vec![1; 5000])]);
    for name in names {
        let path = folder.path().join(std::ffi::OsStr::from_bytes(name));
        for external in LAYOUTS {
            saved(&model, &path, external).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            assert_eq!(Model::load(&path).unwrap().proto(), model.proto(), "{path:?}");
            assert_eq!(
                std::fs::read_dir(folder.path()).unwrap().count(),
                1 + (external == ExternalData::Always) as usize
            );
        }
        saved(&model, &path, ExternalData::Never).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}

/// Lock for tests that keep the disk busy: the kill must happen during a save, not during a wait for other writes.
static DISK: Mutex<()> = Mutex::new(());

/// Starts this program again, running only [`child`] with `task`.
fn start(task: &str, folder: &Folder) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env("OPTIMIZE_TEST_CHILD", task).current_dir(folder.path());
    command
}

/// Not a test: run by [`start`].
#[test]
fn child() {
    match std::env::var("OPTIMIZE_TEST_CHILD").as_deref() {
        Ok("save for ever") => save_for_ever(),
        Ok("save again") => save_again(),
        _ => {}
    }
}

const CRASH_BYTES: usize = 20 << 20;

fn crash_model(seed: u64) -> Model {
    let mut random = Random(seed);
    let names = ["a", "b", "c", "d"];
    with_weights(&names.map(|name| (name, random.bytes(CRASH_BYTES / names.len()))))
}

fn weights_digest(model: &Model) -> String {
    let mut hash = Sha256::new();
    model.graph().initializer.iter().for_each(|tensor| hash.update(tensor.raw_data.as_ref().unwrap()));
    hex(&hash.finalize())
}

fn save_for_ever() {
    let mut models = [crash_model(1), crash_model(2)];
    if weights_digest(&Model::load(Path::new("m.onnx")).unwrap()) == weights_digest(&models[0]) {
        models.reverse();
    }
    std::fs::write("ready", "").unwrap();
    loop {
        for external in [ExternalData::Always, ExternalData::Never] {
            for model in &models {
                saved(model, Path::new("m.onnx"), external).unwrap();
            }
        }
    }
}

#[test]
fn a_save_that_is_killed_leaves_the_old_file_or_the_new_one() {
    const ROUNDS: usize = 30;
    let _alone = DISK.lock().unwrap();
    let folder = Folder::new("killed");
    let models = [crash_model(1), crash_model(2)];
    let digests = models.each_ref().map(weights_digest);
    saved(&models[0], &folder.join("m.onnx"), ExternalData::Always).unwrap();
    let mut random = Random(5);
    let (mut found, mut changed, mut last) = ([0, 0], 0, 0);
    for round in 0..ROUNDS {
        let mut process = start("save for ever", &folder).stdout(Stdio::null()).spawn().unwrap();
        while std::fs::remove_file(folder.join("ready")).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "the child ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Most kills are within the first save, some between two saves.
        let longest = if round % 3 == 0 { 400 } else { 60 };
        std::thread::sleep(Duration::from_millis(1 + random.below(longest) as u64));
        process.kill().unwrap();
        process.wait().unwrap();
        let model = Model::load(&folder.join("m.onnx")).unwrap_or_else(|e| panic!("round {round}: {e}"));
        let digest = weights_digest(&model);
        let which = digests.iter().position(|d| *d == digest).unwrap_or_else(|| panic!("round {round}: neither"));
        found[which] += 1;
        changed += usize::from(which != last);
        last = which;
    }
    println!("{ROUNDS} kills: {found:?} times the one and the other, {changed} new; left: {:?}", folder.names());
    let report = saved(&models[1], &folder.join("m.onnx"), ExternalData::Always).unwrap();
    let visible: Vec<_> = folder.names().into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(visible.len(), report.files.len(), "data files of killed saves are removed: {visible:?}");
}

/// Number of the matrices of the large model.
const MATRICES: usize = 8;
/// Sizes of such a matrix, which has 512 MiB.
const SIDES: [i64; 2] = [8192, 16384];

/// Returns the peak memory of this process so far, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn save_again() {
    let start = Instant::now();
    let model = Model::load(Path::new("large.onnx")).unwrap();
    assert_eq!((model.inputs().len(), model.outputs().len(), model.graph().initializer.len()), (1, 1, MATRICES));
    println!("loaded in {:?}, peak {} MiB", start.elapsed(), peak_memory() >> 20);
    let error = saved(&model, Path::new("again.onnx"), ExternalData::Never).err().unwrap();
    assert_eq!(error.kind(), Kind::LimitExceeded, "{error}");
    let start = Instant::now();
    let report = saved(&model, Path::new("again.onnx"), ExternalData::Auto).unwrap();
    println!("saved {:?} bytes in {:?}", report.files.iter().map(|f| f.bytes).collect::<Vec<_>>(), start.elapsed());
    assert_eq!(report.files[1].bytes, (MATRICES as u64) << 29);
    assert_eq!(
        Model::load(Path::new("again.onnx")).unwrap().bytes(),
        report.files.iter().map(|f| f.bytes).sum::<u64>()
    );
    println!("peak {} MiB", peak_memory() >> 20);
    assert!(peak_memory() < 300 << 20, "{} bytes", peak_memory());
}

#[test]
fn four_gigabytes_are_loaded_and_saved_in_little_memory() {
    let _alone = DISK.lock().unwrap();
    let folder = Folder::new("large");
    let room = rustix::fs::statvfs(folder.path()).unwrap();
    if room.f_bavail * room.f_frsize < 6 << 30 {
        println!("SKIPPED: {} has no room for 6 GiB; OPTIMIZE_TEST_TMP names another folder", folder.path().display());
        return;
    }
    let bytes = SIDES[0] * SIDES[1] * 4;
    let data = std::fs::File::create(folder.join("large.data")).unwrap();
    data.set_len(bytes as u64 * MATRICES as u64).unwrap();
    let matrix = |i: usize| {
        let entry = |key: &str, value: &str| Proto::new().text(1, key).text(2, value);
        let offset = (bytes * i as i64).to_string();
        tensor(&format!("w{i}"), FLOAT, &[SIDES[i % 2], SIDES[1 - i % 2]])
            .all(13, [entry("location", "large.data"), entry("offset", &offset), entry("length", &bytes.to_string())])
            .int(14, 1)
    };
    let value_name = |i: usize| format!("v{i}");
    let multiply = |i: usize| node("MatMul", &[&value_name(i), &format!("w{i}")], &[&value_name(i + 1)]);
    let graph = Proto::new()
        .all(1, (0..MATRICES).map(multiply))
        .all(5, (0..MATRICES).map(matrix))
        .message(11, value("v0", &[-1, SIDES[0]]))
        .message(12, value(&value_name(MATRICES), &[-1, SIDES[0]]));
    std::fs::write(folder.join("large.onnx"), model(graph).0).unwrap();
    let output = start("save again", &folder).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
