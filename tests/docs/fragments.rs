//! Blocks of the documentation that are not run: command lines are parsed, and C fragments are compiled.

use crate::{Block, root};
use std::path::Path;
use std::process::Command;

/// What C fragments use without a declaration.
const DECLARATIONS: &str = "
static optimize_context_t *context;
static optimize_model_t *model, *teacher, *student;
static optimize_session_t *session;
static optimize_generator_t *generator;
static optimize_embedder_t *embedder;
static optimize_tagger_t *tagger;
static optimize_buffer_t *report;
static optimize_error_t *error;
static const optimize_tensor_t *inputs[2];
static optimize_tensor_t *output;
static const char *names[2], *prompts[1], *texts[2], *text;
";

/// Shell functions that take the place of the programs of a block. The command parses its arguments, and then prints
/// its help instead of running. `make` must know its target.
const PROGRAMS: &str = "
optimize() { command optimize \"$@\" --help >/dev/null; }
bin/optimize() { optimize \"$@\"; }
make() { grep -q \"^$1:\" \"$MAKEFILE\"; }
tar() { :; }
cd() { :; }
cc() { :; }
pkg-config() { :; }
";

/// Parses the command lines of a block. Panics if an option or a value of an option does not exist.
pub fn parse(page: &Path, block: &Block, folder: &Path) {
    let command = Path::new(env!("CARGO_BIN_EXE_optimize")).parent().unwrap();
    let output = Command::new("bash")
        .args(["-euc", &format!("{PROGRAMS}{}", block.text)])
        .current_dir(folder)
        .env("PATH", format!("{}:{}", command.display(), std::env::var("PATH").unwrap()))
        .env("MAKEFILE", root().join("Makefile"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{}:{}: {errors}", page.display(), block.line);
}

/// Compiles a C fragment: its directives and functions at the top of a file, and the rest in a function.
pub fn compile(page: &Path, block: &Block, folder: &Path) {
    let (mut outside, mut inside, mut function) = (String::new(), String::new(), false);
    for line in block.text.lines() {
        function |= line.starts_with("static ") && line.ends_with('{') || line.starts_with("int main");
        let part = if function || line.starts_with('#') { &mut outside } else { &mut inside };
        *part += line;
        part.push('\n');
        function &= line != "}";
    }
    let source = format!(
        "#include <optimize.h>\n#include <stdio.h>\n#include <string.h>\n{DECLARATIONS}{outside}\
         void fragment(void);\nvoid fragment(void) {{\n{inside}\n;}}\n"
    );
    let file = folder.join("fragment.c");
    std::fs::write(&file, source).unwrap();
    let output = Command::new("cc")
        .args(["-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-Wno-empty-body"])
        .arg(format!("-I{}", root().join("include").display()))
        .arg(&file)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:{}: {errors}", page.display(), block.line);
}
