//! Tests of untrusted files: each is rejected with its own message; none causes a crash, a hang or large allocations.

mod common;
#[path = "corpus/generate.rs"]
mod generate;

use bytes::Bytes;
use common::*;
use optimize::error::{Error, Kind};
use optimize::limits;
use optimize::model::Model;
use optimize::onnx::{load, save};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An allocator that counts the allocations of the current thread: loading uses only the calling thread.
struct Counting;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: forwards everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.with(|taken| taken.set(taken.get() + layout.size()));
        // SAFETY: forwards the caller's guarantee.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: forwards the caller's guarantee.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Loads a file as ONNX, and returns the result with the total of heap allocations in bytes.
fn load_counting(path: &Path) -> (Result<load::Loaded, Error>, usize) {
    let before = TAKEN.with(Cell::get);
    let result = load::from_file(path);
    (result, TAKEN.with(Cell::get) - before)
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn files_below(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.insert(path);
        }
    }
}

#[test]
fn the_corpus_is_what_the_builder_makes() {
    let mut expected: BTreeSet<PathBuf> = ["generate.rs", "index.txt"].map(|name| corpus().join(name)).into();
    if std::env::var_os("OPTIMIZE_WRITE_CORPUS").is_some() {
        for (name, content) in generate::cases().iter().flat_map(|case| &case.files) {
            std::fs::create_dir_all(corpus().join(name).parent().unwrap()).unwrap();
            std::fs::write(corpus().join(name), content).unwrap();
        }
        std::fs::write(corpus().join("index.txt"), generate::index()).unwrap();
    }
    for (name, content) in generate::cases().into_iter().flat_map(|case| case.files) {
        let path = corpus().join(&name);
        assert!(content.len() < 4096, "{name} has {} bytes", content.len());
        assert!(std::fs::read(&path).ok() == Some(content), "{name} is stale: see tests/corpus/generate.rs");
        assert!(expected.insert(path) || !name.ends_with(".onnx"), "{name} is there twice");
    }
    assert_eq!(std::fs::read_to_string(corpus().join("index.txt")).unwrap(), generate::index());
    let mut found = BTreeSet::new();
    files_below(&corpus(), &mut found);
    assert_eq!(found, expected, "a file in tests/corpus that nothing makes, or the other way round");
}

#[test]
fn every_hostile_file_is_refused_with_its_own_message() {
    let index = std::fs::read_to_string(corpus().join("index.txt")).unwrap();
    let mut messages = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in index.lines() {
        let [name, kind, phrase] = line.splitn(3, " | ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        let path = corpus().join(name);
        assert!(Model::load(&path).is_err(), "{name}: was loaded as something else");
        let (result, taken) = load_counting(&path);
        let Err(error) = result else {
            wrong.push(format!("{name}: was loaded"));
            continue;
        };
        let folder = format!("{}/", path.parent().unwrap().display());
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let message = error.to_string().replace(&folder, "").replace(&format!("{file}: "), "");
        println!("{name}: {} ({}) [{taken} bytes]", message, error.kind().name());
        if error.kind().name() != kind || !message.contains(phrase) {
            wrong.push(format!("{name}: expected {kind} with {phrase:?}, got {} {message:?}", error.kind().name()));
        }
        if !messages.insert(message.clone()) {
            wrong.push(format!("{name}: not the first to say {message:?}"));
        }
        assert!(taken < 1 << 20, "{name}: took {taken} bytes of heap");
    }
    assert!(messages.len() >= 90 && wrong.is_empty(), "{} messages\n{}", messages.len(), wrong.join("\n"));
}

/// Loads a model whose initializer is at `location`, in a folder that `prepare` fills, and returns the error.
fn refused(location: &str, prepare: impl FnOnce(&Folder)) -> Error {
    let folder = Folder::new("hostile");
    std::fs::create_dir(folder.join("real")).unwrap();
    std::fs::write(folder.join("real/data.bin"), [7; 8]).unwrap();
    prepare(&folder);
    let model = model(identity_graph().message(5, external_tensor("w", &[("location", location)])));
    std::fs::write(folder.join("model.onnx"), model.0).unwrap();
    let before = Instant::now();
    let error = Model::load(&folder.join("model.onnx")).err().expect(location);
    assert!(before.elapsed() < Duration::from_secs(2), "{location}");
    error
}

#[test]
fn links_and_pipes_are_not_followed() {
    use std::os::unix::fs::symlink;
    let outside = Folder::new("outside");
    std::fs::write(outside.join("data.bin"), [7; 8]).unwrap();
    let check = |location: &str, kind: Kind, phrase: &str, prepare: &dyn Fn(&Folder)| {
        let error = refused(location, prepare);
        assert!(error.kind() == kind && error.to_string().contains(phrase), "{location}: {error}");
    };
    let (invalid, symbolic) = (Kind::InvalidModel, "is a symbolic link");
    check("link", invalid, symbolic, &|f| symlink(outside.join("data.bin"), f.join("link")).unwrap());
    check("link", invalid, symbolic, &|f| symlink("/proc/self/exe", f.join("link")).unwrap());
    check("nowhere", invalid, "is a dangling symbolic link", &|f| symlink("nothing", f.join("nowhere")).unwrap());
    check("dir/data.bin", invalid, symbolic, &|f| symlink(outside.path(), f.join("dir")).unwrap());
    check("loop", invalid, "is a dangling symbolic link", &|f| symlink("loop", f.join("loop")).unwrap());
    check("hard", invalid, "is a hard link", &|f| {
        std::fs::hard_link(outside.join("data.bin"), f.join("hard")).unwrap()
    });
    check("pipe", invalid, "is not a regular file", &|f| make_pipe(&f.join("pipe")));
    check("socket", Kind::Io, "socket", &|f| {
        drop(std::os::unix::net::UnixListener::bind(f.join("socket")).unwrap());
    });
    // The same folder without such links is accepted, and so are links inside it, as in ONNX Runtime.
    let folder = Folder::new("plain");
    std::fs::create_dir(folder.join("real")).unwrap();
    std::fs::write(folder.join("real/data.bin"), [7; 8]).unwrap();
    symlink("real/data.bin", folder.join("link")).unwrap();
    symlink("real", folder.join("dir")).unwrap();
    for location in ["link", "dir/data.bin"] {
        let linked = model(identity_graph().message(5, external_tensor("w", &[("location", location)])));
        std::fs::write(folder.join("linked.onnx"), linked.0).unwrap();
        let model = Model::load(&folder.join("linked.onnx")).unwrap();
        assert_eq!(model.graph().initializer[0].raw_data.as_deref(), Some([7; 8].as_slice()), "{location}");
    }
    std::fs::remove_file(folder.join("linked.onnx")).unwrap();
    let both = [("location", "real/data.bin"), ("checksum", "unread")];
    let twice = [external_tensor("v", &[("location", "./real/data.bin")]), external_tensor("w", &both)];
    std::fs::write(folder.join("model.onnx"), model(identity_graph().all(5, twice)).0).unwrap();
    let model = Model::load(folder.path()).unwrap();
    assert_eq!(model.graph().initializer[1].raw_data.as_deref(), Some([7; 8].as_slice()));
    assert_eq!(model.bytes(), 8 + std::fs::metadata(folder.join("model.onnx")).unwrap().len(), "counted once");
}

fn make_pipe(path: &Path) {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a plain system call with a NUL-terminated name.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

#[test]
fn a_model_that_is_no_plain_file_is_refused() {
    let folder = Folder::new("kinds");
    let kind = |path: &Path| Model::load(path).err().map(|e| e.kind());
    assert_eq!(kind(&folder.join("absent.onnx")), Some(Kind::NotFound));
    assert_eq!(kind(folder.path()), Some(Kind::NotFound));
    make_pipe(&folder.join("pipe.onnx"));
    assert_eq!(kind(&folder.join("pipe.onnx")), Some(Kind::InvalidArgument));
    assert_eq!(kind(Path::new("/dev/zero")), Some(Kind::InvalidArgument));
    for name in ["a.onnx", "b.onnx"] {
        std::fs::write(folder.join(name), []).unwrap();
    }
    assert_eq!(kind(folder.path()), Some(Kind::InvalidArgument), "three to choose from");
}

#[test]
fn what_is_too_large_to_keep_in_the_corpus() {
    let folder = Folder::new("large");
    let check = |model: Proto, kind: Kind, phrase: &str| {
        std::fs::write(folder.join("m.onnx"), model.0).unwrap();
        let error = Model::load(&folder.join("m.onnx")).err().expect(phrase);
        assert!(error.kind() == kind && error.to_string().contains(phrase), "{error}");
        assert!(error.to_string().len() < 1000, "{} bytes of message", error.to_string().len());
    };
    let long = "n".repeat(limits::NAME_BYTES + 1);
    let weights = |tensor: Proto| model(identity_graph().message(5, tensor));
    check(model(graph().text(2, &long)), Kind::LimitExceeded, "a name of 65537 bytes");
    let location = [("location", long.as_str())];
    check(weights(external_tensor("w", &location)), Kind::LimitExceeded, "\"location\" has 65537 bytes");
    let many: Vec<String> = (0..=limits::EXTERNAL_FILES).map(|i| format!("{i}.bin")).collect();
    many.iter().for_each(|name| std::fs::write(folder.join(name), [0; 8]).unwrap());
    let tensors = many.iter().map(|name| external_tensor(name, &[("location", name)]));
    check(model(identity_graph().all(5, tensors)), Kind::LimitExceeded, "more than 4096 external data files");
    // These files are sparse: their content must not be read.
    let size = limits::MODEL_PROTO_BYTES + 1;
    std::fs::File::create(folder.join("m.onnx")).unwrap().set_len(size).unwrap();
    let error = Model::load(&folder.join("m.onnx")).err().unwrap();
    assert!(error.kind() == Kind::LimitExceeded && error.to_string().contains("has 2147483648 bytes"), "{error}");
    std::fs::write(folder.join("m.gguf"), b"GGUF\x03").unwrap();
    std::fs::File::options().append(true).open(folder.join("m.gguf")).unwrap().set_len(size).unwrap();
    let error = load::from_file(&folder.join("m.gguf")).err().unwrap();
    assert!(error.kind() == Kind::InvalidModel && error.to_string().contains("a GGUF file"), "{error}");
}

#[test]
fn deep_models_fit_a_small_stack() {
    let deep = (0..16).fold(branch("v", [node("Relu", &["x"], &["v"])]), |inner, _| {
        branch("v", [node("If", &["x"], &["v"]).message(5, graph_attribute("then_branch", inner))])
    });
    let top = node("If", &["x"], &["y"]).message(5, graph_attribute("then_branch", deep));
    let too_deep = Bytes::from(model(graph().message(1, top)).0);
    let types = (0..40).fold(Proto::new(), |inner, _| Proto::new().message(4, Proto::new().message(1, inner)));
    let types = Bytes::from(model(identity_graph().message(13, Proto::new().text(1, "t").message(2, types))).0);
    let work = move || {
        assert_eq!(Model::from_bytes(too_deep).err().unwrap().kind(), Kind::LimitExceeded);
        let model = Model::from_bytes(types).unwrap();
        assert_eq!(
            Model::from_bytes(Bytes::from(save::encode(model.proto()).concat())).unwrap().proto(),
            model.proto()
        );
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
}

#[test]
fn external_data_needs_a_folder() {
    let bytes = model(identity_graph().message(5, external_tensor("w", &[("location", "data.bin")]))).0;
    let error = Model::from_bytes(Bytes::from(bytes)).err().unwrap();
    assert!(error.kind() == Kind::InvalidArgument && error.to_string().contains("loaded from memory"), "{error}");
}
