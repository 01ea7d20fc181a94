//! The table as Markdown.

use super::report::{Interval, ModelTable, Row, State, Table};
use std::fmt::Write;

/// Returns the whole table as Markdown.
pub(super) fn of(table: &Table) -> String {
    let mut text = String::new();
    for model in &table.models {
        let _ = writeln!(text, "## {}\n", model.name);
        text += &rows(model);
        text += &below(table, model);
    }
    text
}

/// Returns the rows of a model as a Markdown table.
fn rows(model: &ModelTable) -> String {
    let sizes: Vec<&str> = match model.rows.iter().find(|row| !row.speed.is_empty()) {
        Some(row) => row.speed.iter().map(|speed| speed.size.as_str()).collect(),
        None => Vec::new(),
    };
    let mut text = String::from("| technique | size |");
    sizes.iter().for_each(|size| text += &format!(" {size} |"));
    text += " load | memory | quality | promise |\n|---|---|";
    text += &"---|".repeat(sizes.len() + 4);
    text.push('\n');
    for row in &model.rows {
        let _ = writeln!(text, "| {} |{}", row.title, cells(row, sizes.len()));
    }
    text.push('\n');
    text
}

fn cells(row: &Row, sizes: usize) -> String {
    if row.state != State::Measured {
        let why = row.reason.as_deref().unwrap_or("");
        let state = if row.state == State::Failed { "failed" } else { "not measured" };
        return format!(" {state}: {} |{}", one_line(why), " |".repeat(sizes + 4));
    }
    let mut text = format!(" {} ({:+.0} %) |", bytes(row.bytes), -100.0 * row.smaller);
    row.speed.iter().for_each(|speed| text += &format!(" {} |", times(&speed.speedup)));
    text += &" |".repeat(sizes.saturating_sub(row.speed.len()));
    let load = row
        .load_ms
        .map_or(String::new(), |load| format!("{:.0} ms (from {:.0})", load.result.value, load.original.value));
    let memory = row
        .resident_bytes
        .map_or(String::new(), |[before, after]| format!("{} (from {})", bytes(after), bytes(before)));
    let quality: Vec<String> = row.quality.iter().take(2).map(|figure| named(&figure.name, &figure.value)).collect();
    let verdicts: Vec<String> = row
        .verdicts
        .iter()
        .map(|verdict| if verdict.met { format!("{} met", verdict.of) } else { one_line(&verdict.text) })
        .collect();
    text + &format!(" {load} | {memory} | {} | {} |", quality.join(", "), verdicts.join("; "))
}

/// Returns the text below the rows, which describes what was measured, and on which data.
fn below(table: &Table, model: &ModelTable) -> String {
    let machine = |key: &str| table.machine[key].as_str().unwrap_or("").to_owned();
    let threads = match table.options["threads"].as_u64() {
        Some(0) | None => "one thread per physical core".to_owned(),
        Some(1) => "one thread".to_owned(),
        Some(threads) => format!("{threads} threads"),
    };
    let mut text = format!(
        "Original: {} ({}), in ONNX Runtime {} with its own kernels. Speed-ups are medians of paired rounds, with 95 % \
         bootstrap intervals over repetitions and rounds. {}, {} processors, {threads}; liboptimize {}, kernels {}.\n\n",
        one_line(&model.path),
        bytes(model.bytes),
        table.runtime_version,
        machine("processor"),
        table.machine["threads"],
        table.library_version,
        table.kernels,
    );
    model.inputs.iter().for_each(|input| text += &format!("- {input}\n"));
    text + &format!("- quality: {}\n\n", model.data)
}

/// Returns the text for a speed-up with its interval.
pub(super) fn times(interval: &Interval) -> String {
    match (interval.low, interval.high) {
        (Some(low), Some(high)) => format!("{:.2}x [{low:.2}, {high:.2}]", interval.value),
        _ => format!("{:.2}x", interval.value),
    }
}

/// Returns the text for the measure of quality `name` with its label and interval.
fn named(name: &str, interval: &Interval) -> String {
    let (label, digits, factor) = match name {
        "perplexity_ratio" => ("perplexity x", 3, 1.0),
        "kl" => ("KL", 4, 1.0),
        "top1_agreement" => ("top-1", 3, 1.0),
        "accuracy_change" => ("accuracy, points", 2, 100.0),
        "nearest_kept" => ("nearest text kept", 3, 1.0),
        other => (other, 4, 1.0),
    };
    let value = |value: f64| format!("{:.digits$}", factor * value);
    match (interval.low, interval.high) {
        (Some(low), Some(high)) => {
            format!("{label} {} [{}, {}]", value(interval.value), value(low), value(high))
        }
        _ => format!("{label} {}", value(interval.value)),
    }
}

/// Returns the text for a size in decimal units.
fn bytes(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{:.0} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// Returns a text in a form that a cell of a table can hold: one line, with `|` escaped.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
