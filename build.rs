//! Sets the soname of the shared library, compiles the TensorRT shim if NVIDIA's headers are found, and in a git
//! checkout writes `include/optimize.h` from `src/ffi`.

use std::path::Path;

/// Modules of `src/ffi`, in the order in which the header contains them.
const NOUNS: [&str; 29] = [
    "status",
    "error",
    "buffer",
    "call",
    "context",
    "model",
    "tensor",
    "session",
    "run",
    "tokenizer",
    "chat",
    "generator_options",
    "generator",
    "encoder",
    "tagger",
    "quantize",
    "prune",
    "distill",
    "ensemble",
    "package",
    "source",
    "sink",
    "tensorrt",
    "recipe",
    "benchmark",
    "evaluate",
    "table",
    "report",
    "generation",
];

fn main() {
    println!("cargo:rerun-if-changed=src/ffi");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=include/optimize.h");
    let soname = soname();
    println!("cargo:rustc-env=OPTIMIZE_SONAME={soname}");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{soname}");
        // Threads of ONNX Runtime call functions of the library (kernels, the log callback) whenever they run.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
    compile_shim();
    // Only a checkout has `.git`. A crate from a registry contains the header, and its folder is read-only.
    if Path::new(".git").exists() {
        write_header();
    }
}

/// Versions of TensorRT's headers with which the shim can be compiled: the name, which is also that of the folder from
/// `make deps`, and the `#define` in `NvInferVersion.h` that identifies the version.
const TENSORRT: [(&str, &str); 2] = [("rtx1", "TRT_MAJOR_RTX 1"), ("trt11", "TRT_MAJOR_ENTERPRISE 11")];

/// Compiles `shim.cc` and `run.cc` of `src/tensorrt` once for each set of headers that is found. If none is found, the
/// library is built without TensorRT, and reports this when an engine is requested.
fn compile_shim() {
    println!("cargo:rerun-if-env-changed=OPTIMIZE_TENSORRT_INCLUDE");
    println!("cargo:rerun-if-env-changed=OPTIMIZE_REQUIRE_TENSORRT");
    for file in ["shim.cc", "shim.hpp", "run.cc"] {
        println!("cargo:rerun-if-changed=src/tensorrt/{file}");
    }
    // `make deps` touches this file when it fetches the headers, so that the shim is then compiled.
    println!("cargo:rerun-if-changed=tools/deps.lock");
    for (name, version) in TENSORRT {
        println!("cargo:rustc-check-cfg=cfg(tensorrt_{name})");
        let fetched = format!("target/deps/tensorrt-headers/{name}");
        let given = std::env::var("OPTIMIZE_TENSORRT_INCLUDE").unwrap_or_default();
        let folders = [given.as_str(), &fetched, "/usr/include/x86_64-linux-gnu", "/usr/include", "/usr/local/include"];
        let fits = |folder: &&&str| {
            let text = std::fs::read_to_string(Path::new(folder).join("NvInferVersion.h")).unwrap_or_default();
            let words: Vec<&str> = version.split(' ').collect();
            let found = |line: &str| {
                let line: Vec<&str> = line.split_whitespace().collect();
                line.len() >= 3 && line[0] == "#define" && line[1..3] == words
            };
            !folder.is_empty() && text.lines().any(found) && Path::new(folder).join("NvOnnxParser.h").is_file()
        };
        let Some(folder) = folders.iter().find(fits) else { continue };
        // The shim defines the few functions of the C++ library that it needs, so that library is not linked.
        let mut compiler = cc::Build::new();
        compiler
            .cpp(true)
            .std("c++17")
            .files(["src/tensorrt/shim.cc", "src/tensorrt/run.cc"])
            .cpp_link_stdlib(None)
            .warnings(false);
        compiler.include(folder).include("target/deps/tensorrt-headers").include("/usr/local/cuda/include");
        compiler.define("nvinfer1", Some(format!("optimize_nvinfer_{name}").as_str()));
        compiler.define("nvonnxparser", Some(format!("optimize_nvonnxparser_{name}").as_str()));
        compiler.define("SHIM", Some(name)).define(if name == "rtx1" { "SHIM_RTX" } else { "SHIM_TRT" }, "1");
        for flag in ["-fno-exceptions", "-fno-rtti", "-fvisibility=hidden", "-fvisibility-inlines-hidden"] {
            compiler.flag(flag);
        }
        match compiler.try_compile(&format!("optimize_shim_{name}")) {
            Ok(()) => println!("cargo:rustc-cfg=tensorrt_{name}"),
            Err(error) if std::env::var_os("OPTIMIZE_REQUIRE_TENSORRT").is_some() => {
                println!("cargo:error=the TensorRT shim for {folder}: {error}");
            }
            Err(error) => println!("cargo:warning=the TensorRT shim for {folder} was left out: {error}"),
        }
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
        // The compiler reports a syntax error more clearly than the generator does.
        Err(cbindgen::Error::ParseSyntaxError { .. }) => return,
        Err(error) => panic!("the header could not be made from src/ffi: {error}"),
    };
    let mut header = Vec::new();
    bindings.write(&mut header);
    let header = with_tags(&String::from_utf8(header).expect("the header is text"));
    // An unchanged header is not written: its modification time stays the same, so nothing is rebuilt.
    if std::fs::read_to_string("include/optimize.h").ok().as_ref() != Some(&header) {
        std::fs::write("include/optimize.h", header).expect("include/optimize.h");
    }
}

/// Gives each struct and enum a tag equal to its name (`typedef struct NAME {`), so that programs can declare it
/// forward. (With the generator's own option for tags, `struct` would precede every use of a name.)
fn with_tags(header: &str) -> String {
    let mut name = String::new();
    let mut lines: Vec<String> = Vec::new();
    for line in header.lines().rev() {
        if let Some(end) = line.strip_prefix("} ").and_then(|rest| rest.strip_suffix(';')) {
            name = end.to_owned();
        }
        lines.push(match line {
            "typedef struct {" | "typedef enum {" => line.replace('{', &format!("{name} {{")),
            _ => line.to_owned(),
        });
    }
    lines.reverse();
    lines.join("\n") + "\n"
}

fn part(name: &str) -> u32 {
    let text = std::env::var(format!("CARGO_PKG_VERSION_{name}")).expect("a version");
    text.parse().expect("a number")
}

/// Returns the soname of the library, by which programs find it. Until 1.0, a minor version may break programs, so the
/// soname contains the minor version.
fn soname() -> String {
    match (part("MAJOR"), part("MINOR")) {
        (0, minor) => format!("liboptimize.so.0.{minor}"),
        (major, _) => format!("liboptimize.so.{major}"),
    }
}

fn version() -> String {
    let (major, minor, patch) = (part("MAJOR"), part("MINOR"), part("PATCH"));
    format!(
        "\n/* Version of this header; optimize_version() and optimize_version_number() return that of the library. */\n\
         #define OPTIMIZE_VERSION_MAJOR {major}\n#define OPTIMIZE_VERSION_MINOR {minor}\n\
         #define OPTIMIZE_VERSION_PATCH {patch}\n\
         /* As one number: major * 10000 + minor * 100 + patch. */\n\
         #define OPTIMIZE_VERSION {}\n{MACROS}",
        major * 10_000 + minor * 100 + patch
    )
}

/// Macros that precede the declarations of functions in the header.
const MACROS: &str = r#"
/* Every function is declared OPTIMIZE_API. On Windows, programs that link the static library define OPTIMIZE_STATIC. */
#ifndef OPTIMIZE_API
#if defined(_WIN32) && !defined(OPTIMIZE_STATIC)
#define OPTIMIZE_API __declspec(dllimport)
#elif defined(__GNUC__)
#define OPTIMIZE_API __attribute__((visibility("default")))
#else
#define OPTIMIZE_API
#endif
#endif

/* Marks a deprecated function; the message names its successor. OPTIMIZE_NO_DEPRECATED disables the warning. */
#if defined(OPTIMIZE_NO_DEPRECATED)
#define OPTIMIZE_DEPRECATED(message)
#elif defined(__GNUC__)
#define OPTIMIZE_DEPRECATED(message) __attribute__((deprecated(message)))
#elif defined(_MSC_VER)
#define OPTIMIZE_DEPRECATED(message) __declspec(deprecated(message))
#else
#define OPTIMIZE_DEPRECATED(message)
#endif
"#;
