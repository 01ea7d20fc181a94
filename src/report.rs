//! The report that techniques, benchmarks and evaluations return, with one JSON schema, which `docs/report.md`
//! describes.

use crate::files::digest::FileIdentity;
use crate::onnx::proto::NodeProto;
pub use crate::platform::memory::peak_rss_bytes;
use crate::platform::processor;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Instant;

/// The version of the schema. Within one version, fields are only added.
pub const SCHEMA_VERSION: u32 = 1;

/// The report on an operation: its models, its options and its results.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of the schema, [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the operation, for example `quantize`.
    pub operation: &'static str,
    /// Version of this library.
    pub library_version: &'static str,
    /// Options that were used, with defaults for missing ones.
    pub options: Value,
    /// Steps that repeat the operation, as `optimize apply` reads them (`docs/recipes.md`); empty if the operation
    /// changes no model, or if one of its models has no path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recipe: Vec<Value>,
    /// Identity of the original model; absent until its files have been hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<FileIdentity>,
    /// Identity of the result, or of the second model of a comparison; absent until its files have been hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<FileIdentity>,
    /// Duration of the operation itself in seconds of wall-clock time.
    pub seconds: f64,
    /// Peak resident memory of the process until the end of the operation, in bytes; 0 if the operating system does not
    /// provide it.
    pub peak_rss_bytes: u64,
    /// Properties of the machine on which results depend.
    pub machine: Machine,
    /// Counts, sums and other figures; the keys depend on the operation (`docs/report.md`).
    pub summary: Map<String, Value>,
    /// Unexpected properties of the result, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Reports on the nodes that could have been changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeReport>,
    /// Speed, load time, size and memory of original and result; `None` if they were not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<Value>,
    /// Closeness of the result to the original; `None` if it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<Value>,
}

/// The action of a technique on one node, and the reason for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeReport {
    /// Name of the node, or of its first output if it has none.
    pub name: String,
    /// Operator type of the node.
    pub op: String,
    /// Action on the node, for example `quantized`, `stored int8`, `pruned` or `left`; `docs/report.md` lists them.
    pub action: &'static str,
    /// Reason for the action; for a changed node, a description of what it is now.
    pub reason: String,
    /// Loss of the model if this node alone is quantized as first planned. The metric is `quality_metric` in the
    /// summary. `None` if it was not measured, because no limit on loss or size was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<f64>,
}

/// The value of [`NodeReport::action`] for a node that was not changed.
pub const LEFT: &str = "left";

/// Returns the five most frequent pairs of operator and reason among nodes as text, with their counts, the most
/// frequent first; an empty text if there are no nodes.
pub fn count_reasons<'n>(nodes: impl Iterator<Item = &'n NodeReport>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for node in nodes {
        *counts.entry(format!("{} ({})", node.op, node.reason)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().take(5).map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

/// Returns a report on a node with this action and reason, without a sensitivity.
pub fn report_of(node: &NodeProto, action: &'static str, reason: String) -> NodeReport {
    NodeReport { name: node.label().to_owned(), op: node.op().to_owned(), action, reason, sensitivity: None }
}

/// Returns a time in milliseconds as text, with two digits after the point, or four below about a tenth of a
/// millisecond.
pub fn milliseconds(time: f64) -> String {
    if time < 0.0995 { format!("{time:.4} ms") } else { format!("{time:.2} ms") }
}

/// The processor and its threads, on which results depend.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Target architecture, for example `x86_64`.
    pub architecture: &'static str,
    /// Name of the processor; empty if the operating system does not provide it.
    pub processor: String,
    /// Instruction-set extensions of the processor that affect the speed of models.
    pub features: Vec<&'static str>,
    /// Number of logical processors that this process may use.
    pub threads: usize,
}

impl Report {
    /// Returns a report of `operation` without results.
    pub fn new(operation: &'static str, options: Value) -> Report {
        Report {
            schema_version: SCHEMA_VERSION,
            operation,
            library_version: env!("CARGO_PKG_VERSION"),
            options,
            recipe: Vec::new(),
            input: None,
            output: None,
            seconds: 0.0,
            peak_rss_bytes: 0,
            machine: Machine::here(),
            summary: Map::new(),
            warnings: Vec::new(),
            nodes: Vec::new(),
            benchmark: None,
            quality: None,
        }
    }

    /// Returns a report of a technique without results. It has the options and a recipe of one step that repeats the
    /// technique: the options that differ from the defaults, and those named in `always`.
    pub fn of_technique<O: Serialize + Default>(operation: &'static str, options: &O, always: &[&str]) -> Report {
        let fields = |options: &O| match serde_json::to_value(options) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let (given, defaults) = (fields(options), fields(&O::default()));
        let shown = |name: &str, value: &Value| always.contains(&name) || defaults.get(name) != Some(value);
        let mut step = Map::from_iter([("operation".to_owned(), operation.into())]);
        step.extend(given.iter().filter(|(name, value)| shown(name, value)).map(|(n, v)| (n.clone(), v.clone())));
        Report { recipe: vec![Value::Object(step)], ..Report::new(operation, Value::Object(given)) }
    }

    /// Sets a field of the step of the recipe. It does nothing if the recipe does not have exactly one step.
    pub fn note_in_recipe(&mut self, name: &str, value: impl Into<Value>) {
        if let [Value::Object(step)] = self.recipe.as_mut_slice() {
            step.insert(name.to_owned(), value.into());
        }
    }

    /// Records the duration of the operation since `start`, and the peak memory of the process.
    pub fn finish(&mut self, start: Instant) {
        self.seconds = start.elapsed().as_secs_f64();
        self.peak_rss_bytes = peak_rss_bytes();
    }

    /// Records the sizes of a model and of its result.
    pub fn sizes(&mut self, before: u64, after: u64) {
        self.summary.insert("bytes_before".into(), before.into());
        self.summary.insert("bytes_after".into(), after.into());
    }

    /// Returns the report as JSON text with a final newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

impl Machine {
    /// Returns the properties of this machine.
    pub fn here() -> Machine {
        Machine {
            architecture: std::env::consts::ARCH,
            processor: processor::name().unwrap_or_default(),
            features: processor::features(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}
