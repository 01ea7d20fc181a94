//! Functions that split the data of a table and compute names, sizes and counts for its rows.

use super::report::ModelTable;
use crate::model::Model;
use crate::report::Report;
use serde_json::Value;
use std::path::Path;

/// Returns the part of the data to which results are fitted, and the part on which quality is measured: the last
/// quarter of the lines, or every fourth line if they are labelled. Blank lines are omitted. Data of fewer than four
/// lines are not split: both parts are the whole data.
pub fn split(data: &str) -> (String, String) {
    let lines: Vec<&str> = data.lines().filter(|line| !line.trim().is_empty()).collect();
    // Labelled lines are often sorted by label, so their last quarter could lack some labels.
    let labelled = lines.first().is_some_and(|line| line.contains('\t'));
    let is_held = |index: usize| if labelled { index % 4 == 3 } else { 4 * index >= 3 * lines.len() };
    let part = |held: bool| {
        let part = lines.iter().enumerate().filter(|(index, _)| is_held(*index) == held);
        part.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    match lines.len() {
        0..4 => (data.to_owned(), data.to_owned()),
        _ => (part(false), part(true)),
    }
}

/// Returns the number of nodes for each action of a technique on them (such as `quantized`), over all steps of the
/// report of a recipe.
pub fn actions(report: &Report) -> Vec<(String, u64)> {
    let steps = report.summary.get("steps").and_then(Value::as_array);
    let nodes = steps.into_iter().flatten().filter_map(|step| step["nodes"].as_array()).flatten();
    let mut counts: Vec<(String, u64)> = Vec::new();
    for action in nodes.filter_map(|node| node["action"].as_str()) {
        match counts.iter_mut().find(|(name, _)| name == action) {
            Some((_, count)) => *count += 1,
            None => counts.push((action.to_owned(), 1)),
        }
    }
    counts
}

/// Returns the size of a file, or of all files in a folder and its subfolders, in bytes. Files that cannot be read
/// count as 0.
pub fn size_of(path: &Path) -> u64 {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size_of(&entry.path())).sum(),
        Err(_) => std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
    }
}

/// Returns a name for a model that no other model of the table has: the name of its folder, or of its file without the
/// extension, in ASCII letters, digits, `-`, `_` and `.`, with a number such as `-2` if the name is taken.
pub fn name_of(model: &Model, others: &[ModelTable]) -> String {
    let path = model.path().unwrap_or(Path::new("model"));
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut name = match path.file_name().and_then(|name| name.to_str()) {
        Some("model.onnx" | "model.safetensors" | "config.json") => path.parent().and_then(Path::file_name),
        _ if path.is_dir() => path.file_name(),
        _ => None,
    }
    .map_or_else(|| stem(path), |name| name.to_string_lossy().into_owned());
    name.retain(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let name = name.trim_start_matches('.').to_owned();
    let base = if name.is_empty() { "model".to_owned() } else { name };
    let taken = |name: &str| others.iter().any(|other| other.name == name);
    let numbered = (2..).map(|number| format!("{base}-{number}"));
    std::iter::once(base.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_is_measured_on_lines_that_nothing_is_fitted_to() {
        let (fit, held) = split("a\nb\n\nc\nd\n");
        assert_eq!((fit.as_str(), held.as_str()), ("a\nb\nc\n", "d\n"));
        let (fit, held) = split("x\ta\nx\tb\nx\tc\nx\td\ny\te\n");
        assert_eq!((fit.as_str(), held.as_str()), ("x\ta\nx\tb\nx\tc\ny\te\n", "x\td\n"));
        assert_eq!(split("one line").1, "one line");
    }

    #[test]
    fn models_have_names_of_their_own() {
        let model = Model::from_proto(Default::default());
        assert_eq!(name_of(&model, &[]), "model");
    }
}
