//! Damaged files, as many as time allows: each must load or be rejected with an error, without a panic, excessive
//! memory or time.
//!
//! A round's input depends only on OPTIMIZE_FUZZ_SEED and on its number. It is in `target/tmp/fuzz/READER` while it
//! is read, so an input that kills the process stays there; an input that fails a check is kept next to it, and
//! `OPTIMIZE_FUZZ_INPUT=PATH` reads it again. OPTIMIZE_FUZZ_SECONDS is the time for each reader (default: 2;
//! `make fuzz`: 60). OPTIMIZE_FUZZ_ROUNDS is the maximum number of rounds of each reader, to compare two runs.

/// Only compiled: without it, a renamed function would be noticed by `make fuzz-long` alone.
#[allow(dead_code)]
#[path = "../fuzz/src/calls.rs"]
mod calls;
mod common;
#[path = "fuzz/gguf.rs"]
mod gguf;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/onnx.rs"]
mod onnx;
#[path = "fuzz/seeds.rs"]
mod seeds;
#[allow(dead_code)]
#[path = "../fuzz/src/targets.rs"]
mod targets;

use bytes::Bytes;
use common::Random;
use optimize::error::{Kind, Result};
use optimize::model::Model;
use optimize::onnx::{load, save};
use optimize::open;
use optimize::source::{Dialect, LoadOptions};
use optimize::text::chat::{ChatOptions, ChatTemplate, message};
use optimize::text::tokenizer::Tokenizer;
use seeds::Seed;
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// An allocator that tracks the heap of all threads, since several of them rearrange matrices.
struct Watching;

static HELD: AtomicI64 = AtomicI64::new(0);
static MOST: AtomicI64 = AtomicI64::new(0);
/// Lock with which only one test at a time runs, because the heap of the process is measured.
static ONE: Mutex<()> = Mutex::new(());

// SAFETY: forwards everything to the system's allocator.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(HELD.fetch_add(layout.size() as i64, Relaxed) + layout.size() as i64, Relaxed);
        // SAFETY: forwards the caller's guarantee.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: forwards the caller's guarantee.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Maximum heap in bytes while one input is read. No input is larger than 300 KB; most inputs need less than 1 MiB, and
/// none has needed more than 6 MiB.
const HEAP: i64 = 32 << 20;
/// Time after which the reading of an input is taken to be endless: any input takes milliseconds.
const SLOW: Duration = Duration::from_secs(60);

/// The cost of reading one input.
#[derive(Default)]
struct Cost {
    heap: i64,
    time: Duration,
}

/// Loads a model as a program would, and reads the files next to the weights.
fn read(path: &Path, dialect: Dialect) -> Result<Model> {
    let model = open::load(path, &LoadOptions { dialect })?;
    optimize::inspect::inspect(&model);
    let tokenizer = Tokenizer::of(&model)?;
    if let Some(tokenizer) = &tokenizer {
        let ids = tokenizer.encode("a b\u{e9} <end> 12", true)?.ids;
        tokenizer.decode(&ids, false)?;
    }
    if let Some(template) = ChatTemplate::of(&model, tokenizer.as_ref())? {
        let hello = [message("system", "short"), message("user", "hello")];
        template.render(&hello, &ChatOptions::default())?;
    }
    Ok(model)
}

/// Reads an input and checks every guarantee. Returns the name of the outcome, and the cost.
fn check(path: &Path, dialect: Dialect) -> (&'static str, Cost) {
    let (before, start) = (HELD.load(Relaxed), Instant::now());
    MOST.store(before, Relaxed);
    let result = read(path, dialect);
    let cost = Cost { heap: MOST.load(Relaxed) - before, time: start.elapsed() };
    let error = result.as_ref().err();
    assert!(cost.heap < HEAP, "{} bytes of heap were held ({error:?})", cost.heap);
    assert!(cost.time < SLOW, "it took {:?} ({error:?})", cost.time);
    let outcome = error.map_or("a model", |e| e.kind().name());
    assert!(outcome != Kind::Internal.name(), "{}", error.unwrap());
    if let Ok(model) = result {
        comes_back_equal(&model);
    }
    (outcome, cost)
}

/// Checks that an accepted model can be written and read back unchanged.
fn comes_back_equal(model: &Model) {
    let saved = Bytes::from(save::encode(model.proto()).concat());
    let second = load::from_bytes(saved.clone(), None).map_err(|e| e.to_string());
    let second = second.expect("what was saved loads, and without its folder").proto;
    // Floats are compared as bytes: NaN never equals NaN.
    let equal = *model.proto() == second || format!("{second:?}").contains("NaN");
    assert!(equal && save::encode(&second).concat() == saved, "the model comes back changed");
}

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value}: not a number")),
        Err(_) => default,
    }
}

/// Returns the dialect of a round. They alternate, so that the dialect follows from the name of a kept input.
fn dialect(round: u64) -> Dialect {
    if round.is_multiple_of(2) { Dialect::Runtime } else { Dialect::Portable }
}

/// Message of the last panic, except known panics of the crate `tokenizers`, which the library converts to errors.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Records panics instead of printing them: printing takes more heap than reading.
fn note_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let known = |file: &str| file.contains("/tokenizers-");
        if !panic.location().is_some_and(|place| known(place.file())) {
            *PANIC.lock().unwrap() = Some(panic.to_string());
        }
    }));
}

/// Runs `check`, and returns its panic as a text, even one that was caught inside.
fn checked(path: &Path, dialect: Dialect) -> std::result::Result<(&'static str, Cost), String> {
    let result = catch_unwind(AssertUnwindSafe(|| check(path, dialect)));
    match (result, PANIC.lock().unwrap().take()) {
        (Ok(found), None) => Ok(found),
        (_, what) => Err(what.unwrap_or_else(|| "a panic of a dependency was not caught".to_owned())),
    }
}

/// Overwrites a file in place: truncating it first would make some file systems wait for the disk.
fn write(path: &Path, content: &[u8]) {
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all(content).unwrap();
    file.set_len(content.len() as u64).unwrap();
}

/// Number of consecutive rounds with one seed, whose other files need not be written again.
const IN_A_ROW: u64 = 64;

/// Runs rounds of damage to `seeds` until time is up.
fn fuzz(reader: &str, seeds: &[Seed]) {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(input) = std::env::var_os("OPTIMIZE_FUZZ_INPUT") {
        for dialect in [Dialect::Runtime, Dialect::Portable] {
            println!("{dialect:?}: {}", check(Path::new(&input), dialect).0);
        }
        return;
    }
    let seed: u64 = variable("OPTIMIZE_FUZZ_SEED", 20_261_123);
    let limit = Duration::from_secs_f64(variable("OPTIMIZE_FUZZ_SECONDS", 2.0));
    let last: u64 = variable("OPTIMIZE_FUZZ_ROUNDS", u64::MAX);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz").join(reader);
    let (start, mut round, mut most) = (Instant::now(), 0, Cost::default());
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    note_panics();
    while start.elapsed() < limit && round < last {
        let mut random = Random(Random(seed ^ (round / IN_A_ROW)).next());
        let whole = &seeds[random.below(seeds.len())];
        whole.write(&folder);
        for _ in 0..IN_A_ROW {
            let mut random = Random(Random(!seed ^ round).next());
            let (name, content) = whole.damaged(&mut random);
            write(&folder.join(name), &content);
            let (outcome, cost) = checked(&folder.join(whole.model), dialect(round))
                .unwrap_or_else(|what| panic!("{}", keep(&folder, whole.model, seed, round, &what)));
            *outcomes.entry(outcome).or_default() += 1;
            most = Cost { heap: most.heap.max(cost.heap), time: most.time.max(cost.time) };
            write(&folder.join(name), &whole.files[name]);
            round += 1;
        }
    }
    drop(std::panic::take_hook());
    let _ = std::fs::remove_dir_all(&folder);
    let (heap, time) = (most.heap >> 10, most.time);
    println!("{reader}, OPTIMIZE_FUZZ_SEED={seed}: {round} rounds, {outcomes:?}, at most {heap} KiB and {time:?}");
    let count = |outcome: &str| outcomes.get(outcome).copied().unwrap_or(0);
    let tells = count("a model") > round / 50 && count("invalid_model") > round / 10;
    assert!(tells, "these mutations test little: {outcomes:?}");
}

/// Keeps a failing input, and returns how to read it again.
fn keep(folder: &Path, model: &str, seed: u64, round: u64, what: &str) -> String {
    let reader = folder.file_name().unwrap().display();
    let kept: PathBuf = folder.with_file_name(format!("{reader}-{seed}-{round}"));
    drop(std::panic::take_hook());
    let _ = std::fs::remove_dir_all(&kept);
    std::fs::rename(folder, &kept).unwrap();
    let input = kept.join(model).display().to_string();
    format!(
        "round {round} of OPTIMIZE_FUZZ_SEED={seed}: {what}\nagain: \
         OPTIMIZE_FUZZ_INPUT={} cargo test --release --test fuzz {reader} -- --nocapture",
        input.trim_end_matches('/')
    )
}

fn whole_ones_are_taken(seeds: &[Seed]) {
    let folder = common::Folder::new("fuzz-seed");
    for (number, seed) in seeds.iter().enumerate().filter(|(_, seed)| seed.sound) {
        seed.write(folder.path());
        for dialect in [Dialect::Runtime, Dialect::Portable] {
            let result = read(&folder.join(seed.model), dialect);
            assert!(result.is_ok(), "seed {number}: {:?}", result.err());
        }
    }
}

#[test]
fn gguf_files() {
    let seeds = seeds::gguf();
    whole_ones_are_taken(&seeds);
    fuzz("gguf", &seeds);
}

#[test]
fn checkpoint_folders() {
    let seeds = seeds::checkpoints();
    whole_ones_are_taken(&seeds);
    fuzz("checkpoint", &seeds);
}

#[test]
fn onnx_files() {
    let seeds = seeds::onnx();
    whole_ones_are_taken(&seeds);
    fuzz("onnx", &seeds);
}

#[test]
fn packed_files() {
    let seeds = seeds::packed();
    whole_ones_are_taken(&seeds);
    fuzz("packed", &seeds);
}

#[test]
fn an_onnx_file_cut_anywhere_does_no_harm() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = common::Folder::new("fuzz-cut");
    for seed in seeds::onnx().iter().filter(|seed| seed.sound && !seed.model.is_empty()) {
        seed.write(folder.path());
        let whole = &seed.files[seed.model];
        for end in 0..whole.len() {
            // Truncated between two fields, the model may still be valid.
            let _ = load::from_bytes(Bytes::copy_from_slice(&whole[..end]), Some(folder.path()));
        }
    }
}

/// The inputs that coverage-guided fuzzing (`tools/fuzz.sh`) kept: those that reach much code, and those that crashed
/// once.
#[test]
fn the_committed_corpus_does_no_harm() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    note_panics();
    for (name, target) in targets::TARGETS {
        let inputs: Vec<_> = std::fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "fuzz/corpus/{name} is empty");
        for path in inputs {
            let content = std::fs::read(&path).unwrap();
            let result = catch_unwind(|| target(&content));
            let panic = PANIC.lock().unwrap().take();
            assert!(result.is_ok() && panic.is_none(), "{}: {panic:?}", path.display());
        }
    }
    let _ = std::fs::remove_dir_all(&*targets::FOLDER);
    drop(std::panic::take_hook());
}
