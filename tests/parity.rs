//! Each function of `include/optimize.h` is called by the C++ wrapper, the Go module and the C# library, and lists its
//! statuses.

use std::path::Path;

/// Functions that a language does not need, with the reason.
const UNNEEDED: [(&str, &str, &str); 10] = [
    ("all", "optimize_error_status", "the function that failed returns the same status"),
    ("Go", "optimize_report_number", JSON),
    ("Go", "optimize_report_text", JSON),
    ("Go", "optimize_report_count", JSON),
    ("Go", "optimize_report_node", JSON),
    ("Go", "optimize_report_node_count", JSON),
    ("Go", "optimize_report_benchmark", JSON),
    ("Go", "optimize_generation_count", JSON),
    ("Go", "optimize_generation_get", JSON),
    ("Go", "optimize_generation_candidate", JSON),
];
const JSON: &str = "encoding/json of the standard library makes structs of reports";

/// Returns the names of the functions that the header declares.
fn functions(header: &str) -> Vec<String> {
    let declarations = header.split("\nOPTIMIZE_API\n").skip(1);
    let name = |declaration: &str| {
        let before = declaration.split('(').next().expect("a declaration");
        let name = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().expect("a name");
        name.to_owned()
    };
    declarations.map(name).collect()
}

/// Returns the content of the files of a folder whose names end with `ending`.
fn sources(folder: &str, ending: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = files.map(|file| file.unwrap().path());
    let wanted = paths.filter(|path| path.to_string_lossy().ends_with(ending));
    wanted.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// Returns whether a source calls a function: its name and an opening parenthesis.
fn calls(source: &str, function: &str) -> bool {
    source.match_indices(function).any(|(at, _)| {
        let before = source[..at].chars().next_back();
        let is_whole = before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
        let after = &source[at + function.len()..];
        // The type of a handle is given the function that frees it: `Handle<optimize_model_t, optimize_model_free>`.
        is_whole && (after.starts_with('(') || after.starts_with('>'))
    })
}

#[test]
fn every_function_is_called_in_every_language() {
    let functions = functions(include_str!("../include/optimize.h"));
    assert!(functions.len() > 100 && functions.iter().all(|name| name.starts_with("optimize_")), "{functions:?}");
    let mut missing = Vec::new();
    for (language, source) in [
        ("C++", sources("include/optimize", ".hpp")),
        ("Go", sources("bindings/go", ".go")),
        ("C#", sources("bindings/csharp", ".cs")),
    ] {
        for function in &functions {
            let unneeded = UNNEEDED.iter().any(|(of, name, _)| (*of == language || *of == "all") && name == function);
            if !unneeded && !calls(&source, function) {
                missing.push(format!("{language}: {function}"));
            }
        }
    }
    assert!(missing.is_empty(), "these functions are not called:\n{}", missing.join("\n"));
    for (_, name, _) in UNNEEDED {
        assert!(functions.iter().any(|function| function == name), "there is no {name}");
    }
}

#[test]
fn a_call_is_told_from_a_longer_name() {
    assert!(calls("return optimize_model_load(x);", "optimize_model_load"));
    assert!(!calls("return optimize_model_load_memory(x);", "optimize_model_load"));
    assert!(!calls("// see optimize_model_load.", "optimize_model_load"));
    assert!(calls("Handle<optimize_model_t, optimize_model_free>", "optimize_model_free"));
}

#[test]
fn every_function_that_can_fail_lists_its_statuses() {
    let header = include_str!("../include/optimize.h");
    let (mut failing, mut silent) = (0, Vec::new());
    for (at, _) in header.match_indices("\nOPTIMIZE_API\noptimize_status_t ") {
        let comment = &header[header[..at].rfind("/**").expect("a comment")..at];
        let declaration = header[at..].split(';').next().expect("a declaration");
        if !declaration.contains("optimize_error_t **error") {
            continue;
        }
        failing += 1;
        // A sentence can go over several lines.
        let words = comment.replace('*', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        let lists =
            ["eturns OPTIMIZE_", "eturns the statuses of", "Returns only statuses that every function can return."];
        if !lists.iter().any(|list| words.contains(list)) {
            silent.push(declaration.split('(').next().unwrap_or_default());
        }
    }
    assert!(failing > 60, "{failing} functions that can fail were found");
    assert!(silent.is_empty(), "without statuses: {silent:?}");
}
