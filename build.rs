//! Gives the shared library its soname and, in a git checkout, writes `include/optimize.h` from `src/ffi`.

use std::path::Path;

/// Parts of `src/ffi` in the order the header has them.
const NOUNS: [&str; 17] = [
    "status",
    "error",
    "buffer",
    "call",
    "context",
    "model",
    "tensor",
    "session",
    "tokenizer",
    "generator",
    "quantize",
    "prune",
    "distill",
    "ensemble",
    "package",
    "benchmark",
    "evaluate",
];

fn main() {
    println!("cargo:rerun-if-changed=src/ffi");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=include/optimize.h");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liboptimize.so.0");
    }
    // A crate unpacked from a registry is read-only and carries the header already.
    if Path::new(".git").exists() {
        write_header();
    }
}

fn write_header() {
    let config = cbindgen::Config::from_file("cbindgen.toml").expect("cbindgen.toml");
    let mut builder = cbindgen::Builder::new().with_config(config).with_after_include(version());
    for noun in NOUNS {
        builder = builder.with_src(format!("src/ffi/{noun}.rs"));
    }
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        // The compiler explains a syntax error better than the generator does.
        Err(cbindgen::Error::ParseSyntaxError { .. }) => return,
        Err(error) => panic!("the header could not be made from src/ffi: {error}"),
    };
    bindings.write_to_file("include/optimize.h");
}

fn version() -> String {
    let part = |name: &str| std::env::var(format!("CARGO_PKG_VERSION_{name}")).unwrap_or_default();
    let (major, minor, patch) = (part("MAJOR"), part("MINOR"), part("PATCH"));
    format!(
        "\n/* Version of this header; optimize_version() gives that of the library. */\n\
         #define OPTIMIZE_VERSION_MAJOR {major}\n#define OPTIMIZE_VERSION_MINOR {minor}\n\
         #define OPTIMIZE_VERSION_PATCH {patch}\n"
    )
}
