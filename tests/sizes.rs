//! Files and functions stay small: no file over 450 lines, no function over 60.
//!
//! Lines are counted in rustfmt's layout: a function ends with a brace in the column of its first letter.

use std::path::{Path, PathBuf};

const FILE_LINES: usize = 450;
const FUNCTION_LINES: usize = 60;

/// Folders whose Rust files are measured.
const FOLDERS: [&str; 4] = ["src", "tests", "benches", "fuzz/targets"];

/// Returns the Rust files below a folder, with their content.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry of the folder").path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a text");
            found.push((path, text));
        }
    }
    found
}

/// Returns the name of the function that begins in a line, with the white space before it.
fn function(line: &str) -> Option<(&str, &str)> {
    let code = line.trim_start();
    let indent = &line[..line.len() - code.len()];
    let mut words = code.split(|c: char| c.is_whitespace()).filter(|word| !word.is_empty());
    let prefixes = ["pub", "const", "async", "unsafe", "extern", "\"C\"", "safe"];
    let word = words.find(|word| !prefixes.contains(word) && !word.starts_with("pub("))?;
    let name = (word == "fn").then(|| words.next())??;
    Some((name.split(['(', '<']).next().unwrap_or(name), indent))
}

/// Returns the functions of a text that are too long: name, first line and number of lines.
fn long_functions(text: &str) -> Vec<(&str, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some((name, indent)) = function(line) else { continue };
        let ends = |line: &&str| line.strip_prefix(indent).is_some_and(|rest| rest == "}");
        let one_line = line.ends_with('}') || line.ends_with(';');
        let length = if one_line { 1 } else { 1 + lines[start..].iter().position(ends).unwrap_or(0) };
        if length > FUNCTION_LINES {
            found.push((name, start + 1, length));
        }
    }
    found
}

#[test]
fn files_and_functions_are_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for (path, text) in FOLDERS.iter().flat_map(|folder| files(&root.join(folder))) {
        let name = path.strip_prefix(root).expect("a path below the root").display();
        let count = text.lines().count();
        if count > FILE_LINES {
            faults.push(format!("{name}: {count} lines, at most {FILE_LINES}"));
        }
        for (function, line, length) in long_functions(&text) {
            faults.push(format!("{name}:{line}: fn {function} has {length} lines, at most {FUNCTION_LINES}"));
        }
    }
    assert!(faults.is_empty(), "split:\n{}", faults.join("\n"));
}

#[test]
fn a_long_function_is_seen() {
    let body = |count: usize| "        let x = 1;\n".repeat(count);
    let text = format!(
        "impl A {{\n    pub(crate) unsafe fn long<T>(a: T) {{\n{}    }}\n\n    fn short() {{\n{}    }}\n    fn one() {{}}\n}}\n",
        body(59),
        body(58)
    );
    assert_eq!(long_functions(&text), [("long", 2, 61)]);
}
