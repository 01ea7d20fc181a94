//! Texts and times that several benchmarks use.

use optimize::error::Result;
use rustix::time::{ClockId, clock_gettime};
use std::path::{Path, PathBuf};

/// The ONNX Runtime library that `make deps` fetches, relative to the root of the repository.
pub const RUNTIME: &str = "target/deps/onnxruntime/libonnxruntime.so.1";
/// The number of texts of [`texts`].
pub const TEXTS: usize = 20;
/// The number of words of each text.
const WORDS: usize = 120;

/// Returns the first words of [`TEXTS`] texts of the Brown corpus, without their tags. `root` is the root of the
/// repository. Fails if `make deps` has not fetched the corpus.
pub fn texts(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("target/deps/corpus/brown");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let step = files.len() / TEXTS;
    let mut texts = Vec::new();
    for file in files.iter().step_by(step).take(TEXTS) {
        let content = std::fs::read_to_string(file)?;
        let words = content.split_whitespace().filter_map(|word| Some(word.rsplit_once('/')?.0)).take(WORDS);
        texts.push(words.collect::<Vec<_>>().join(" "));
    }
    Ok(texts)
}

/// Returns the processor time of this process in seconds if `processor` is true, otherwise the wall-clock time.
pub fn now(processor: bool) -> f64 {
    let time = clock_gettime(if processor { ClockId::ProcessCPUTime } else { ClockId::Monotonic });
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Returns the median; for an even number of values, the larger of the two in the middle. Panics without values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
