//! Short tables for terminals.

use optimize::report::{Report, milliseconds};
use serde_json::Value;

/// A table of rows of cells, whose first column is left-aligned, and the others right-aligned.
#[derive(Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// Adds a row.
    pub fn row(&mut self, cells: &[&str]) {
        self.0.push(cells.iter().map(|c| (*c).to_owned()).collect());
    }

    /// Returns the table as text, with a line under the first row.
    pub fn render(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.0.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        let mut text = String::new();
        for (index, row) in self.0.iter().enumerate() {
            let cell = |(column, cell): (usize, &String)| match column {
                0 => format!("{cell:<width$}", width = widths[0]),
                _ => format!("{cell:>width$}", width = widths[column]),
            };
            let line: Vec<String> = row.iter().enumerate().map(cell).collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
            if index == 0 {
                text.push_str(&"-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1)));
                text.push('\n');
            }
        }
        text
    }
}

/// Returns the text for a size in decimal units, such as `90.4 MB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

fn number(value: &Value, path: &str) -> Option<f64> {
    value.pointer(path)?.as_f64()
}

/// Returns a table of size, speed and quality of original and result, as far as the report has them.
pub fn comparison(report: &Report, before: u64, after: u64) -> String {
    let mut table = Table::default();
    table.row(&["", "original", "result", "change"]);
    let percent = |ratio: f64| format!("{:+.1} %", (ratio - 1.0) * 100.0);
    table.row(&["size", &bytes(before), &bytes(after), &percent(after as f64 / before.max(1) as f64)]);
    if let Some(benchmark) = &report.benchmark {
        let pair = |of: &str| {
            let side = |side: &str| number(benchmark, &of.replace("SIDE", side));
            Some((side("original")?, side("result")?))
        };
        let speed = |end: &str| number(benchmark, &format!("/speedup/{end}")).unwrap_or(f64::NAN);
        if let Some((a, b)) = pair("/latency_ms/SIDE/median") {
            let verdict = benchmark.pointer("/speedup/verdict").and_then(Value::as_str).unwrap_or("");
            let change = format!("{:.2}x [{:.2}, {:.2}] {verdict}", speed("median"), speed("low"), speed("high"));
            table.row(&["latency", &milliseconds(a), &milliseconds(b), &change]);
        }
        if let Some((a, b)) = pair("/load_ms/SIDE") {
            table.row(&["load", &format!("{a:.0} ms"), &format!("{b:.0} ms"), &format!("{:.2}x", a / b)]);
        }
        if let Some((a, b)) = pair("/resident_bytes/SIDE") {
            table.row(&["memory", &bytes(a as u64), &bytes(b as u64), &percent(b / a.max(1.0))]);
        }
    }
    if let Some(quality) = &report.quality {
        let rows = [
            ("cosine", "/cosine", 5),
            ("max error", "/max_abs_error", 4),
            ("top-1 agreement", "/top1_agreement", 4),
            ("KL (nats)", "/kl", 5),
            ("equal elements", "/exact_match", 4),
        ];
        for (label, path, digits) in rows {
            if let Some(value) = number(quality, path) {
                let of = if path == "/cosine" { lowest(quality) } else { String::new() };
                table.row(&[label, "", &format!("{value:.digits$}"), &of]);
            }
        }
    }
    if let Some(stock) = report.quality.as_ref().and_then(|quality| number(quality, "/stock/cosine")) {
        table.row(&["cosine, stock", "", &format!("{stock:.5}"), "on ONNX Runtime's kernels"]);
    }
    table.render() + &measured(report) + &remarks(report, before, after)
}

/// Returns the output with the lowest cosine, if several outputs are judged; otherwise an empty text.
fn lowest(quality: &Value) -> String {
    match (quality["output"].as_str(), quality["judged"].as_array()) {
        (Some(output), Some(judged)) if judged.len() > 1 => format!("{output}, worst of {} outputs", judged.len()),
        _ => String::new(),
    }
}

/// Returns the lines on how speed and quality were measured, or why they were not.
fn measured(report: &Report) -> String {
    let Some(benchmark) = &report.benchmark else {
        let why = report.summary.get("not_measured").and_then(Value::as_str);
        return why.map_or(String::new(), |why| format!("\nSpeed and quality were not measured: {why}.\n"));
    };
    let shape = |(name, shape): (&String, &Value)| {
        let sizes: Vec<String> = shape.as_array().into_iter().flatten().map(Value::to_string).collect();
        format!("{name} {}", if sizes.is_empty() { "scalar".to_owned() } else { sizes.join("x") })
    };
    let shapes: Vec<String> = benchmark["input_shapes"].as_object().into_iter().flatten().map(shape).collect();
    let shown = shapes.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = if shapes.len() > SHOWN { format!(" and {} more", shapes.len() - SHOWN) } else { String::new() };
    let from = benchmark["inputs"].as_str().unwrap_or("");
    let samples = report.quality.as_ref().and_then(|q| q["samples"].as_u64()).unwrap_or(0);
    let kernels = kernels(benchmark);
    let text = format!("\nTimed on {shown}{more} ({from}){kernels}; quality on {samples} samples.\n");
    match report.quality.as_ref().and_then(|q| q.get("not_compared")?.as_str()) {
        Some(why) => format!("{text}Not compared: {why}.\n"),
        None => text,
    }
}

/// Returns the number of groups of nodes of each model that run on this library's kernels, as the end of a sentence;
/// empty if there are none.
fn kernels(benchmark: &Value) -> String {
    let groups = |side| benchmark["placement"][side]["groups"].as_u64().unwrap_or(0);
    match (groups("original"), groups("result")) {
        (0, 0) => String::new(),
        (original, result) => format!(" with this library's kernels (groups of nodes: {original}, {result})"),
    }
}

/// The maximum number of inputs whose shapes are shown.
const SHOWN: usize = 6;

/// Returns notes on disadvantages of the result, such as a lower speed; empty if there are none.
fn remarks(report: &Report, before: u64, after: u64) -> String {
    let verdict = report.benchmark.as_ref().and_then(|b| b.pointer("/speedup/verdict")?.as_str());
    let cosine = report.quality.as_ref().and_then(|quality| number(quality, "/cosine"));
    let mut text = String::new();
    if report.operation != "benchmark" && verdict == Some("slower") {
        text.push_str("Note: the result is slower than the original here.\n");
    }
    let loses = cosine.is_some_and(|cosine| cosine < LITTLE_LOST);
    if report.operation == "quantize" && loses && after as f64 > before as f64 * HARDLY_SMALLER {
        text.push_str("Note: the result is hardly smaller than the original, and its outputs differ.\n");
    }
    text
}

/// The cosine from which outputs count as equal.
const LITTLE_LOST: f64 = 0.9995;
/// The size relative to the original above which a result counts as hardly smaller.
const HARDLY_SMALLER: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_to_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(90_400_000), "90.4 MB");
        assert_eq!(bytes(4_401_000_000), "4.4 GB");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.row(&["", "a"]);
        table.row(&["size", "100"]);
        assert_eq!(table.render(), "        a\n---------\nsize  100\n");
    }
}
