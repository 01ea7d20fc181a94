//! Helpers of several tests: real models, ONNX Runtime, scratch folders. Nothing here skips: a missing dependency fails
//! the test with the command that fetches it.
#![allow(dead_code)] // not every test file uses all of it

pub mod build;
pub mod quantized;
pub mod words;

use optimize::runtime::Runtime;
use std::path::{Path, PathBuf};

/// Returns a path in the folder of the fetched dependencies.
pub fn deps(name: &str) -> PathBuf {
    let root = std::env::var_os("OPTIMIZE_TEST_DEPS").map(PathBuf::from);
    let root = root.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/deps"));
    let path = root.join(name);
    assert!(path.exists(), "{} is missing: run `tools/deps.sh test`", path.display());
    path
}

/// Returns whether an optional fetched dependency is missing. Prints its name, and fails if nothing may be skipped
/// (`CI=true`, `LIBOPTIMIZE_REQUIRE_ALL=1`).
#[allow(dead_code)]
pub fn lacks(name: &str) -> bool {
    let root = std::env::var_os("OPTIMIZE_TEST_DEPS").map(PathBuf::from);
    let path = root.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/deps")).join(name);
    let set = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|v| v == value);
    let required = set("CI", "true") || set("LIBOPTIMIZE_REQUIRE_ALL", "1");
    assert!(path.exists() || !required, "{} is missing, where nothing may be skipped", path.display());
    if !path.exists() {
        eprintln!("skipped: {} is missing: run `tools/deps.sh tensorrt`", path.display());
    }
    !path.exists()
}

/// Returns ONNX Runtime from ORT_DYLIB_PATH, otherwise from the fetched dependencies.
pub fn runtime() -> &'static Runtime {
    match std::env::var_os("ORT_DYLIB_PATH") {
        Some(_) => Runtime::open(None).unwrap(),
        None => Runtime::open(Some(&deps("onnxruntime/libonnxruntime.so.1"))).unwrap(),
    }
}

/// An empty folder of one test, which is removed at the end of the test.
pub struct Scratch(PathBuf);

impl std::ops::Deref for Scratch {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns an empty folder for one test.
pub fn scratch(name: &str) -> Scratch {
    let root = std::env::var_os("OPTIMIZE_TEST_TMP").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = root.join(format!("optimize-test-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    Scratch(path)
}
