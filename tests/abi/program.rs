//! Makes a C program of cases, compiles it against the shared library, and runs it.

use crate::cases::Case;
use crate::{PRELUDE, fixtures};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the cases to a program and runs it. Panics with the errors of all cases, if there are any.
pub fn run(name: &str, cases: &[Case]) {
    let folder = new_folder(name);
    fixtures::write(&folder, &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
    std::fs::write(folder.join("prelude.h"), PRELUDE).expect("prelude.h");
    let program = compile(&folder, &source(cases));
    let failures = run_all(&program, &folder, cases);
    assert!(failures.is_empty(), "{} of {} calls:\n{}", failures.len(), cases.len(), failures.join("\n"));
    println!("{name}: {} calls", cases.len());
    drop(std::fs::remove_dir_all(&folder));
}

fn source(cases: &[Case]) -> String {
    let mut code = String::from("#include \"prelude.h\"\n\n");
    for (index, case) in cases.iter().enumerate() {
        write!(code, "static void case_{index}(void) {{\n    title = {:?};\n{}}}\n\n", case.title, case.body).unwrap();
    }
    let names: Vec<String> = (0..cases.len()).map(|index| format!("case_{index}")).collect();
    write!(
        code,
        "static void (*const all[])(void) = {{{}}};\n\n\
         int main(int argc, char **argv) {{\n    \
             int index = argc > 1 ? atoi(argv[1]) : 0;\n    \
             title = \"the program\";\n    \
             read_memory();\n    \
             write_manifest();\n    \
             write_package();\n    \
             write_engine();\n    \
             for (; index < {}; index++) {{\n        \
                 printf(\"CASE %d\\n\", index);\n        \
                 fflush(stdout);\n        \
                 all[index]();\n    \
             }}\n    \
             return failures != 0;\n}}\n",
        names.join(", "),
        cases.len()
    )
    .unwrap();
    code
}

/// Returns the path of the library of the tested profile, which cargo builds next to the test.
fn library() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this test");
    let library = this.parent().expect("a folder").join("liboptimize.so");
    assert!(
        library.is_file(),
        "{} is not there: the tests of the C interface need the shared library, which `cargo test` builds",
        library.display()
    );
    library
}

/// Creates an empty folder with this name for a program.
pub fn new_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("abi-{name}"));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).expect("a folder for the program");
    folder
}

/// Compiles a program with this source, links it with the library, and returns its path.
pub fn compile(folder: &Path, source: &str) -> PathBuf {
    std::fs::write(folder.join("cases.c"), source).expect("cases.c");
    // Programs are linked to the soname.
    for name in ["liboptimize.so", env!("OPTIMIZE_SONAME")] {
        std::os::unix::fs::symlink(library(), folder.join(name)).expect("a link to the library");
    }
    let program = folder.join("cases");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut command = Command::new(&compiler);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Wno-unused", "-Werror", "-g", "-I"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
    command.arg(folder.join("cases.c")).arg("-o").arg(&program).arg("-L").arg(folder).arg("-loptimize");
    let output = command.output().unwrap_or_else(|e| panic!("{compiler} is needed to test the C interface: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// Runs all cases, and returns their errors. If a case ends the program, this is recorded, and the program continues
/// after it.
fn run_all(program: &Path, folder: &Path, cases: &[Case]) -> Vec<String> {
    let mut failures = Vec::new();
    let mut next = 0;
    while next < cases.len() {
        let mut command = Command::new(program);
        command.arg(next.to_string()).current_dir(folder).env("LD_LIBRARY_PATH", folder);
        let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/deps/onnxruntime/libonnxruntime.so.1");
        if std::env::var_os("ORT_DYLIB_PATH").is_none() && runtime.is_file() {
            command.env("ORT_DYLIB_PATH", runtime);
        }
        let tensorrt = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/deps/tensorrt-rtx");
        command.env("OPTIMIZE_TENSORRT_PATH", tensorrt);
        let output = command.output().expect("the program runs");
        let text = String::from_utf8_lossy(&output.stdout);
        failures.extend(text.lines().filter(|l| l.starts_with("FAIL ") || l.starts_with("# ")).map(str::to_owned));
        let last = text.lines().rev().find_map(|line| line.strip_prefix("CASE ")?.parse::<usize>().ok());
        if matches!(output.status.code(), Some(0 | 1)) {
            break;
        }
        let last = last.unwrap_or(next);
        let errors = String::from_utf8_lossy(&output.stderr);
        failures.push(format!("CRASH {}: {} {}", cases[last].title, output.status, errors.trim()));
        next = last + 1;
    }
    failures
}
