//! The content of a page: the texts, tables and pictures that are made from the JSON of a report or a table, as a JSON
//! value for the template `page.html`.

use super::bars::{Bar, bars};
use super::lines::lines;
use super::scatter::{Colour, Point, scatter};
use serde_json::{Value, json};

/// The maximum number of nodes whose sensitivity is drawn.
const DRAWN: usize = 20;
/// The maximum number of nodes that are listed.
const LISTED: usize = 400;

/// Returns the content of the page of a report.
pub fn report(report: &Value) -> Value {
    let operation = text(&report["operation"]);
    let sections: Vec<Value> = [overview(report), training(report), nodes(report), evaluation(report), origin(report)]
        .into_iter()
        .flatten()
        .collect();
    json!({
        "title": format!("optimize {operation}"),
        "subtitle": files(report),
        "sections": sections,
    })
}

/// Returns the content of the page of a table.
pub fn table(table: &Value) -> Value {
    let models = list(&table["models"]);
    let names: Vec<&str> = models.iter().map(|model| text(&model["name"])).collect();
    let mut sections: Vec<Value> = models.iter().map(model).collect();
    sections.push(machine(table));
    json!({
        "title": "The techniques, measured",
        "subtitle": format!("{}: each technique as shipped, against the original on ONNX Runtime {}'s own kernels",
                            names.join(", "), text(&table["runtime_version"])),
        "sections": sections,
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn cell(text: impl Into<String>) -> Value {
    json!({ "text": text.into(), "lines": [] })
}

fn bytes(count: f64) -> String {
    match count {
        ..1e6 => format!("{:.0} kB", count / 1e3),
        ..1e9 => format!("{:.1} MB", count / 1e6),
        _ => format!("{:.2} GB", count / 1e9),
    }
}

/// Returns the paths and sizes of the input and output file, joined by an arrow; empty if the report has none.
fn files(report: &Value) -> String {
    let one = |side: &str| {
        let identity = report.get(side)?;
        let size = bytes(identity["bytes"].as_f64()?);
        let path = identity["path"].as_str().unwrap_or("a model in memory");
        Some(format!("{path} ({size})"))
    };
    [one("input"), one("output")].into_iter().flatten().collect::<Vec<_>>().join(" \u{2192} ")
}

/// Returns the size, speed and quality before and after; `None` if nothing was measured.
fn overview(report: &Value) -> Option<Value> {
    let benchmark = &report["benchmark"];
    let both = |path: &str| {
        let side = |side: &str| benchmark.pointer(&path.replace("SIDE", side)).and_then(Value::as_f64);
        Some((side("original")?, side("result")?))
    };
    let mut rows: Vec<Value> = Vec::new();
    let mut row = |name: &str, before: String, after: String, change: String| {
        rows.push(json!([cell(name), cell(before), cell(after), cell(change)]));
    };
    let sizes = (report["input"]["bytes"].as_f64(), report["output"]["bytes"].as_f64());
    if let (Some(before), Some(after)) = sizes {
        row("size", bytes(before), bytes(after), format!("{:+.1} %", 100.0 * (after / before.max(1.0) - 1.0)));
    }
    if let Some((before, after)) = both("/latency_ms/SIDE/median") {
        let speed = |end: &str| benchmark["speedup"][end].as_f64().unwrap_or(f64::NAN);
        let verdict = text(&benchmark["speedup"]["verdict"]);
        let change = format!("{:.2}x [{:.2}, {:.2}] {verdict}", speed("median"), speed("low"), speed("high"));
        row("latency", crate::report::milliseconds(before), crate::report::milliseconds(after), change);
    }
    if let Some((before, after)) = both("/load_ms/SIDE") {
        row("load", format!("{before:.0} ms"), format!("{after:.0} ms"), format!("{:.2}x", before / after));
    }
    if let Some((before, after)) = both("/resident_bytes/SIDE") {
        row("memory", bytes(before), bytes(after), format!("{:+.1} %", 100.0 * (after / before.max(1.0) - 1.0)));
    }
    let quality = &report["quality"];
    for (key, name) in [("cosine", "cosine"), ("top1_agreement", "top-1 agreement"), ("kl", "KL, nats")] {
        if let Some(value) = quality[key].as_f64() {
            row(name, String::new(), format!("{value:.4}"), String::new());
        }
    }
    let pictures: Vec<Value> = latency(benchmark).into_iter().collect();
    if rows.is_empty() {
        return None;
    }
    let shapes = benchmark["input_shapes"].as_object().into_iter().flatten();
    let shapes: Vec<String> = shapes.map(|(name, dims)| format!("{name} {dims}")).collect();
    let paragraphs = if shapes.is_empty() { Vec::new() } else { vec![format!("Timed on {}.", shapes.join(", "))] };
    Some(json!({
        "paragraphs": paragraphs,
        "notes": report["warnings"],
        "table": { "head": ["", "original", "result", "change"], "rows": rows },
        "pictures": pictures,
    }))
}

/// Returns the latencies as bars: median, and interval from minimum to 90th percentile; `None` if there are none.
fn latency(benchmark: &Value) -> Option<Value> {
    let bar = |side: &str, class| {
        let times = &benchmark["latency_ms"][side];
        let (median, low, high) = (times["median"].as_f64()?, times["min"].as_f64()?, times["p90"].as_f64()?);
        let text = crate::report::milliseconds(median);
        Some(Bar { label: side.to_owned(), value: median, interval: Some((low, high)), text, class })
    };
    let both = [bar("original", "bar-plain")?, bar("result", "bar")?];
    let svg = bars(&both, "milliseconds per run: median, minimum to 90th percentile", None);
    Some(json!({ "title": "Latency", "svg": svg }))
}

/// Returns the curve of the validation loss of a training; `None` if the report has fewer than two points of it.
fn training(report: &Value) -> Option<Value> {
    let history = list(&report["summary"]["history"]);
    let points: Vec<(f64, f64)> =
        history.iter().filter_map(|at| Some((at["step"].as_f64()?, at["loss"].as_f64()?))).collect();
    if points.len() < 2 {
        return None;
    }
    let picture = json!({ "title": "Validation loss", "svg": lines(&points, "step", "validation loss") });
    Some(json!({ "title": "Training", "pictures": [picture] }))
}

/// Returns the action on each node, and the loss that the node causes if it alone is changed, if that was measured;
/// `None` if the report has no nodes.
fn nodes(report: &Value) -> Option<Value> {
    // The report of a recipe has the nodes in the reports of its steps.
    let steps = list(&report["summary"]["steps"]).iter().flat_map(|step| list(&step["nodes"]));
    let nodes: Vec<Value> = list(&report["nodes"]).iter().chain(steps).cloned().collect();
    if nodes.is_empty() {
        return None;
    }
    let mut counts: Vec<(String, u64)> = Vec::new();
    for action in nodes.iter().map(|node| text(&node["action"])) {
        match counts.iter_mut().find(|(name, _)| name == action) {
            Some((_, count)) => *count += 1,
            None => counts.push((action.to_owned(), 1)),
        }
    }
    let mut pictures = vec![json!({ "title": "What was done to the nodes", "svg": actions(&counts) })];
    pictures.extend(sensitivity(&nodes));
    let row = |node: &Value| {
        let cost = node["sensitivity"].as_f64().map_or(String::new(), |loss| format!("{loss:.2e}"));
        let of = |key: &str| cell(text(&node[key]));
        json!([of("name"), of("op"), of("action"), of("reason"), cell(cost)])
    };
    let rows: Vec<Value> = nodes.iter().take(LISTED).map(row).collect();
    let more = if nodes.len() > LISTED { format!(", the first {LISTED}") } else { String::new() };
    let head = ["node", "operator", "action", "reason", "loss alone"];
    Some(json!({
        "title": "Nodes",
        "pictures": pictures,
        "blocks": [{ "title": format!("All {} nodes{more}", nodes.len()), "table": { "head": head, "rows": rows } }],
    }))
}

fn actions(counts: &[(String, u64)]) -> String {
    let class = |name: &str| if name == "left" { "bar-plain" } else { "bar" };
    let bar = |(name, count): &(String, u64)| Bar {
        label: name.clone(),
        value: *count as f64,
        interval: None,
        text: count.to_string(),
        class: class(name),
    };
    bars(&counts.iter().map(bar).collect::<Vec<_>>(), "nodes", None)
}

/// Returns the loss that each node causes if it alone is changed, largest first; `None` for fewer than two nodes.
fn sensitivity(nodes: &[Value]) -> Option<Value> {
    let mut found: Vec<(&str, f64)> =
        nodes.iter().filter_map(|node| Some((text(&node["name"]), node["sensitivity"].as_f64()?))).collect();
    if found.len() < 2 {
        return None;
    }
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    let bar = |(name, loss): &(&str, f64)| Bar {
        label: (*name).to_owned(),
        value: loss.max(0.0),
        interval: None,
        text: format!("{loss:.1e}"),
        class: "bar",
    };
    let drawn: Vec<Bar> = found.iter().take(DRAWN).map(bar).collect();
    let title = format!("Sensitivity: the {} nodes that cost most", drawn.len());
    Some(json!({ "title": title, "svg": bars(&drawn, "loss of the model with this node alone changed", None) }))
}

/// Returns the results of an evaluation; `None` if the report has none.
fn evaluation(report: &Value) -> Option<Value> {
    if report["operation"] != "evaluate" && report["operation"] != "distill" {
        return None;
    }
    let mut rows = Vec::new();
    flat("", &report["quality"], &mut rows);
    if rows.is_empty() {
        return None;
    }
    let task = text(&report["quality"]["task"]);
    let title = if task.is_empty() { "Quality".to_owned() } else { format!("Quality: {task}") };
    Some(json!({ "title": title, "table": { "head": ["figure", "value"], "rows": rows } }))
}

/// Adds the numbers of an object, with their paths, to `rows`.
fn flat(path: &str, value: &Value, rows: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flat(&path, value, rows);
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            let shown = if number.fract() == 0.0 { format!("{number}") } else { format!("{number:.5}") };
            rows.push(json!([cell(path), cell(shown)]));
        }
        _ => {}
    }
}

/// Returns the section with the machine, the recipe, the options and the summary; never `None`.
fn origin(report: &Value) -> Option<Value> {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let mut blocks = Vec::new();
    if !list(&report["recipe"]).is_empty() {
        let recipe = steps(&report["recipe"]);
        blocks.push(json!({ "title": "Recipe: repeats this with optimize apply", "text": recipe, "open": true }));
    }
    for (key, title) in [("options", "Options"), ("summary", "Summary")] {
        if report[key].as_object().is_some_and(|fields| !fields.is_empty()) {
            blocks.push(json!({ "title": title, "text": pretty(&report[key]) }));
        }
    }
    let mut section = machine(report);
    section["blocks"] = blocks.into();
    Some(section)
}

/// Returns the text of a recipe, with one step per line.
fn steps(recipe: &Value) -> String {
    let lines: Vec<String> = list(recipe).iter().map(|step| format!("  {step}")).collect();
    format!("[\n{}\n]", lines.join(",\n"))
}

fn machine(report: &Value) -> Value {
    let machine = &report["machine"];
    let features: Vec<&str> = list(&machine["features"]).iter().map(text).collect();
    let mut paragraphs = vec![format!(
        "{}, {}, {} processors. liboptimize {}.",
        text(&machine["processor"]),
        text(&machine["architecture"]),
        machine["threads"],
        text(&report["library_version"])
    )];
    if !features.is_empty() {
        paragraphs.push(format!("Extensions: {}.", features.join(", ")));
    }
    json!({ "title": "Machine and recipe", "paragraphs": paragraphs })
}

/// Returns the section for a model of the table.
fn model(model: &Value) -> Value {
    let rows = list(&model["rows"]);
    let measured: Vec<&Value> = rows.iter().filter(|row| row["state"] == "measured").collect();
    let sizes: Vec<&str> = measured
        .first()
        .map_or(Vec::new(), |row| list(&row["speed"]).iter().map(|speed| text(&speed["size"])).collect());
    let mut head = vec!["technique", "size"];
    head.extend(&sizes);
    head.extend(["load", "memory", "quality", "promise"]);
    let original = format!(
        "Original: {}, {}; SHA-256 {}.",
        text(&model["path"]),
        bytes(model["bytes"].as_f64().unwrap_or(0.0)),
        text(&model["sha256"]).chars().take(12).collect::<String>()
    );
    let inputs: Vec<String> = list(&model["inputs"]).iter().map(|input| text(input).to_owned()).collect();
    let inputs = format!("Inputs: {}. Quality: {}.", inputs.join("; "), text(&model["data"]));
    let blocks: Vec<Value> = rows.iter().map(details).collect();
    json!({
        "title": text(&model["name"]),
        "paragraphs": [original, inputs],
        "table": { "head": head, "rows": rows.iter().map(|row| cells(row, sizes.len())).collect::<Vec<_>>() },
        "pictures": pictures(model, &measured),
        "blocks": blocks,
    })
}

/// Returns the points of a model of the table, and the name of the vertical axis; `None` if no quality was measured.
pub fn points(model: &Value) -> Option<(Vec<Point>, String)> {
    let measured: Vec<&Value> = list(&model["rows"]).iter().filter(|row| row["state"] == "measured").collect();
    let name = text(&measured.iter().find_map(|row| list(&row["quality"]).first())?["name"]);
    let same = if name.ends_with("_ratio") || name == "cosine" { 1.0 } else { 0.0 };
    let (label, colour) = ("original".to_owned(), Colour::Speedup(Some(1.0)));
    let original = Point { label, size: model["bytes"].as_f64().unwrap_or(0.0) / 1e6, quality: same, colour };
    let point = |row: &&Value| {
        let figure = list(&row["quality"]).iter().find(|figure| figure["name"] == name)?;
        let speedup = headline(row).and_then(|speed| speed["speedup"]["value"].as_f64());
        let (label, size) = (text(&row["name"]).to_owned(), row["bytes"].as_f64()? / 1e6);
        Some(Point { label, size, quality: figure["value"]["value"].as_f64()?, colour: Colour::Speedup(speedup) })
    };
    let axis = match name {
        "perplexity_ratio" => "perplexity, relative to the original (lower is better)",
        "cosine" => "cosine to the original (higher is better)",
        other => other,
    };
    Some((std::iter::once(original).chain(measured.iter().filter_map(point)).collect(), axis.to_owned()))
}

/// Returns the pictures for a model: size against quality, and speed.
fn pictures(model: &Value, measured: &[&Value]) -> Vec<Value> {
    let mut pictures = Vec::new();
    if let Some((points, axis)) = points(model) {
        pictures.push(json!({ "title": "Size against quality", "svg": scatter(&points, &axis, &[]) }));
    }
    let bar = |row: &&Value| {
        let speedup = &headline(row)?["speedup"];
        let (value, low, high) = (speedup["value"].as_f64()?, speedup["low"].as_f64(), speedup["high"].as_f64());
        let class = match (low, high) {
            (Some(low), _) if low > 1.0 => "bar-good",
            (_, Some(high)) if high < 1.0 => "bar-bad",
            _ => "bar-plain",
        };
        let text = match (low, high) {
            (Some(low), Some(high)) => format!("{value:.2}x [{low:.2}, {high:.2}]"),
            _ => format!("{value:.2}x"),
        };
        let interval = low.zip(high);
        Some(Bar { label: self::text(&row["title"]).to_owned(), value, interval, text, class })
    };
    let speeds: Vec<Bar> = measured.iter().filter_map(bar).collect();
    if !speeds.is_empty() {
        let size = measured.iter().find_map(|row| headline(row)).map_or("", |speed| text(&speed["size"]));
        let svg = bars(&speeds, &format!("speed-up at {size}, with 95 % interval"), Some(1.0));
        pictures.push(json!({ "title": "Speed", "svg": svg }));
    }
    pictures
}

/// Returns the speed of a row that is compared with its promise; `None` if there is none.
fn headline(row: &Value) -> Option<&Value> {
    let speeds = list(&row["speed"]);
    let named = |name: &str| speeds.iter().find(|speed| speed["size"] == name);
    named("decode").or_else(|| named("1x128")).or(speeds.first())
}

/// Returns the cells of a row.
fn cells(row: &Value, sizes: usize) -> Vec<Value> {
    let title = json!({ "text": text(&row["title"]), "lines": [{ "text": text(&row["name"]) }] });
    if row["state"] != "measured" {
        let state = if row["state"] == "failed" { "failed" } else { "not measured" };
        let why = format!("{state}: {}", text(&row["reason"]));
        return vec![title, json!({ "text": why, "class": "muted", "span": sizes + 5, "lines": [] })];
    }
    let line = |text: String| json!([{ "text": text }]);
    let size = format!("{:+.0} %", -100.0 * row["smaller"].as_f64().unwrap_or(0.0));
    let mut cells = vec![
        title,
        json!({ "text": bytes(row["bytes"].as_f64().unwrap_or(0.0)), "class": "plain", "lines": line(size) }),
    ];
    for speed in list(&row["speed"]) {
        let of = |key: &str| speed["speedup"][key].as_f64();
        let ends = match (of("low"), of("high")) {
            (Some(low), Some(high)) => format!("[{low:.2}, {high:.2}]"),
            _ => String::new(),
        };
        let ms = |side: &str| speed["latency_ms"][side]["value"].as_f64().unwrap_or(f64::NAN);
        let class = match (of("low"), of("high")) {
            (Some(low), _) if low > 1.0 => "good",
            (_, Some(high)) if high < 1.0 => "bad",
            _ => "",
        };
        let times = format!("{:.1} from {:.1} ms", ms("result"), ms("original"));
        cells.push(json!({ "text": format!("{:.2}x", of("value").unwrap_or(f64::NAN)), "class": class,
                           "lines": [{ "text": ends }, { "text": times }] }));
    }
    cells.extend(std::iter::repeat_n(cell(""), sizes.saturating_sub(list(&row["speed"]).len())));
    let load = |side: &str| row["load_ms"][side]["value"].as_f64().unwrap_or(f64::NAN);
    cells.push(
        json!({ "text": format!("{:.0} ms", load("result")), "lines": line(format!("from {:.0}", load("original"))) }),
    );
    let memory = list(&row["resident_bytes"]);
    let memory = |index: usize| memory.get(index).and_then(Value::as_f64).map_or(String::new(), bytes);
    cells.push(json!({ "text": memory(1), "lines": line(format!("from {}", memory(0))) }));
    let figures: Vec<Value> = list(&row["quality"]).iter().map(|figure| json!({ "text": quality(figure) })).collect();
    cells.push(json!({ "text": "", "lines": figures }));
    let verdict = |verdict: &Value| {
        let met = verdict["met"] == true;
        let text = if met { format!("{}: met", text(&verdict["of"])) } else { text(&verdict["text"]).to_owned() };
        json!({ "text": text, "class": if met { "good" } else { "bad" } })
    };
    let verdicts: Vec<Value> = list(&row["verdicts"]).iter().map(verdict).collect();
    cells.push(json!({ "text": "", "lines": verdicts, "class": "verdicts" }));
    cells
}

/// Returns the text for a measure of quality, with its name and interval.
fn quality(figure: &Value) -> String {
    let (label, digits, factor) = match text(&figure["name"]) {
        "perplexity_ratio" => ("perplexity \u{d7}", 3, 1.0),
        "kl" => ("KL", 4, 1.0),
        "top1_agreement" => ("top-1", 3, 1.0),
        "nearest_kept" => ("nearest kept", 3, 1.0),
        "accuracy_change" => ("accuracy, points", 2, 100.0),
        other => (other, 4, 1.0),
    };
    let value = |value: f64| format!("{:.digits$}", factor * value);
    let of = |key: &str| figure["value"][key].as_f64();
    let ends = match (of("low"), of("high")) {
        (Some(low), Some(high)) => format!(" [{}, {}]", value(low), value(high)),
        _ => String::new(),
    };
    format!("{label} {}{ends}", value(of("value").unwrap_or(f64::NAN)))
}

/// Returns the details of a row: its recipe, the actions on the nodes, its warnings.
fn details(row: &Value) -> Value {
    let mut text = format!("{}\n", steps(&row["recipe"]));
    if row["state"] == "measured" {
        text += &format!("\nmade in {:.1} s\n", row["made_seconds"].as_f64().unwrap_or(0.0));
        for action in list(&row["actions"]) {
            text += &format!("{} nodes {}\n", action[1], self::text(&action[0]));
        }
    }
    list(&row["notes"]).iter().for_each(|note| text += &format!("note: {}\n", self::text(note)));
    json!({ "title": format!("{}: recipe", self::text(&row["title"])), "text": text })
}
