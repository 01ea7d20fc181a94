//! The pages of reports and tables. A page is one HTML file that contains its pictures, and needs neither scripts nor
//! the network.
//!
//! [`of_report`] and [`of_table`] take the JSON of a report or a table, so a page can be made from a saved file, too.
//! `view` turns the JSON into text and pictures, and `page.html` is the template. The pictures are SVG, whose colours
//! follow the reader's choice of light or dark. `scatter`, `bars` and `lines` draw them from the elements in `svg`.

mod bars;
mod lines;
mod scatter;
mod svg;
mod view;

pub use scatter::{Colour, Point};

use crate::error::{Result, error};
use minijinja::Environment;
use serde_json::Value;

/// Returns the page of a report of a technique, of `benchmark`, `evaluate` or `apply`, as HTML. Fields that the report
/// lacks are omitted. Fails with `Internal` if the page cannot be rendered.
pub fn of_report(report: &Value) -> Result<String> {
    render(&view::report(report))
}

/// Returns the page of a table as HTML ([`crate::table`] writes the JSON). Fails like [`of_report`].
pub fn of_table(table: &Value) -> Result<String> {
    render(&view::table(table))
}

/// Returns the names and contents of the files that show a table: `table.html`, and for each model whose quality was
/// measured a picture of size against quality, `MODEL.svg`. Fails like [`of_report`].
pub fn files_of_table(table: &Value) -> Result<Vec<(String, String)>> {
    let models = table["models"].as_array().into_iter().flatten();
    let pictures = models.filter_map(|model| Some((format!("{}.svg", model["name"].as_str()?), picture(model)?)));
    let page = ("table.html".to_owned(), of_table(table)?);
    Ok(std::iter::once(page).chain(pictures).collect())
}

/// Returns the picture of size against quality of one model of a table, as an SVG file; `None` if no quality was
/// measured.
fn picture(model: &Value) -> Option<String> {
    let (points, axis) = view::points(model)?;
    Some(scatter::standalone(&points, &axis, &[]))
}

/// Returns the picture of size against quality of any points, as an SVG file. `axis` is the name of the vertical axis,
/// which is logarithmic if the largest quality is more than five times the smallest. `groups` are the names of the
/// groups that the colours show, and are empty if these show speed-ups.
pub fn of_points(points: &[Point], axis: &str, groups: &[&str]) -> String {
    scatter::standalone(points, axis, groups)
}

fn render(view: &Value) -> Result<String> {
    let failed = |e: minijinja::Error| error!(Internal, "the page cannot be written: {e:#}");
    let mut environment = Environment::new();
    environment.add_template("page.html", include_str!("page.html")).map_err(failed)?;
    environment.get_template("page.html").and_then(|page| page.render(view)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn is_self_contained(page: &str) {
        assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
        for forbidden in ["<script", "http://", "<link", "@import", "url("] {
            assert!(!page.contains(forbidden), "{forbidden} is in the page");
        }
        assert!(page.replace("http://www.w3.org/2000/svg", "").matches("https://").count() == 0);
        for element in ["svg", "table", "section", "div", "g", "text"] {
            let (open, close) =
                (page.matches(&format!("<{element}")).count(), page.matches(&format!("</{element}>")).count());
            assert!(open >= close && close > 0 || open == 0, "{element}: {open} opened, {close} closed");
        }
    }

    #[test]
    fn a_report_becomes_a_page_with_its_text_escaped() {
        let report = json!({
            "operation": "quantize", "library_version": "0.1.0", "seconds": 1.5, "peak_rss_bytes": 1_000_000,
            "machine": { "processor": "CPU <1>", "architecture": "x86_64", "threads": 2, "features": ["avx2"] },
            "input": { "path": "a & b.onnx", "bytes": 4_000_000, "sha256": "ab" },
            "output": { "path": "c.onnx", "bytes": 1_000_000, "sha256": "cd" },
            "recipe": [{ "operation": "quantize", "type": "dynamic" }], "options": { "bits": 8 },
            "summary": { "nodes_quantized": 2 }, "warnings": ["<b>careful</b>"],
            "nodes": [
                { "name": "one", "op": "MatMul", "action": "quantized", "reason": "int8", "sensitivity": 0.001 },
                { "name": "two", "op": "MatMul", "action": "left", "reason": "small", "sensitivity": 0.5 },
            ],
            "benchmark": {
                "latency_ms": { "original": { "median": 4.0, "min": 3.9, "p90": 4.2 },
                                "result": { "median": 2.0, "min": 1.9, "p90": 2.2 } },
                "speedup": { "median": 2.0, "low": 1.9, "high": 2.1, "verdict": "faster" },
            },
            "quality": { "cosine": 0.998 },
        });
        let page = of_report(&report).unwrap();
        is_self_contained(&page);
        assert!(page.contains("a &amp; b.onnx") && page.contains("CPU &lt;1&gt;"), "{page}");
        assert!(!page.contains("<b>careful") && page.contains("careful"));
        assert!(page.contains("Sensitivity") && page.contains("quantized") && page.contains("2.00x"));
    }

    #[test]
    fn training_has_a_curve_and_evaluation_its_figures() {
        let history: Vec<Value> =
            (1..6).map(|step| json!({ "step": 10 * step, "loss": 1.0 / f64::from(step) })).collect();
        let page = of_report(&json!({ "operation": "distill", "summary": { "history": history, "loss_after": 0.2 } }))
            .unwrap();
        is_self_contained(&page);
        assert!(page.contains("Validation loss") && page.contains("<polyline"), "{page}");
        let quality = json!({ "task": "perplexity", "ratio": { "value": 1.01, "low": 1.0, "high": 1.02 } });
        let page = of_report(&json!({ "operation": "evaluate", "quality": quality })).unwrap();
        assert!(page.contains("1.01") && page.contains("perplexity"), "{page}");
    }
}
