//! The content of a model, which is determined without reading its weights.

mod parameters;

use crate::graph::View;
use crate::graph::modules::modules;
use crate::model::{Dim, Format, Model, Task, ValueInfo};
use crate::onnx::dtype::{DataType, element_count};
use crate::onnx::proto::{TensorProto, attribute_kind};
use serde::Serialize;
use std::collections::BTreeMap;

/// The result of `optimize inspect` and `optimize_model_inspect`; `docs/report.md` describes its fields.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Version of the schema; see [`crate::report::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Operation, always `inspect`.
    pub operation: &'static str,
    /// Path of the model; `None` for a model in memory.
    pub path: Option<String>,
    /// Kind of file or folder that the model came from.
    pub format: Format,
    /// Whether the model was read from a packed file (`.onnx.packed`).
    pub packed: bool,
    /// Task of the model, as far as its signature and configuration determine it.
    pub task: Task,
    /// Architecture of the model; `None` if its configuration names none.
    pub architecture: Option<String>,
    /// Maximum number of tokens of a text; `None` if the configuration does not give it.
    pub context_length: Option<i64>,
    /// Whether the model has a tokenizer.
    pub tokenizer: bool,
    /// Whether the model has a chat template.
    pub chat_template: bool,
    /// Size of all files of the model in bytes; for a model without files, the size that it would have as an ONNX file.
    pub bytes: u64,
    /// Version of the ONNX file format; 0 if the model has none.
    pub ir_version: i64,
    /// Version of each operator set, by domain; the default domain is `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// Program that wrote the model, with its version; empty if the model does not name it.
    pub producer: String,
    /// Inputs that a run requires.
    pub inputs: Vec<Value>,
    /// Outputs of a run.
    pub outputs: Vec<Value>,
    /// Number of nodes in all graphs and functions.
    pub nodes: usize,
    /// Number of subgraphs (`If`, `Loop`, `Scan`).
    pub subgraphs: usize,
    /// Number of functions defined in the model.
    pub functions: usize,
    /// Number of nodes by operator; operators outside the default domain as `domain.Op`.
    pub operators: BTreeMap<String, usize>,
    /// Number of nodes with a weight matrix, by the short name of their module, such as `query`.
    pub modules: BTreeMap<String, usize>,
    /// Numbers and sizes of constant tensors (initializers and tensor attributes), by element type; `unknown` stands
    /// for types that this library does not know.
    pub weights: BTreeMap<&'static str, Weights>,
    /// Number of weights: the elements of all constant tensors except the scales and zero points of quantization.
    /// Weights that share a byte are counted one by one.
    pub parameters: u64,
    /// Unexpected properties of the model, such as content of its files that is not used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Keys of the model's metadata, with the first 200 characters of the values.
    pub metadata: BTreeMap<String, String>,
}

/// An input or output of a model.
#[derive(Debug, Clone, Serialize)]
pub struct Value {
    /// Name of the input or output in a run.
    pub name: String,
    /// Element type; `null` if the value is not a tensor or its type is not declared.
    pub dtype: Option<&'static str>,
    /// Sizes of the dimensions; dimensions without a fixed size have their name, or an empty text. `null` if the rank
    /// is not declared.
    pub shape: Option<Vec<serde_json::Value>>,
}

/// The number and the size of the constant tensors of one type.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Weights {
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements of the tensors.
    pub elements: u64,
    /// Size of the elements in bytes; 0 for an unknown type.
    pub bytes: u64,
}

/// Returns the content of a model, without reading its weights.
pub fn inspect(model: &Model) -> Inspection {
    let proto = model.proto();
    let view = View::new(proto);
    let card = model.card();
    let mut found = Inspection {
        schema_version: crate::report::SCHEMA_VERSION,
        operation: "inspect",
        path: model.path().map(|p| p.display().to_string()),
        format: card.format,
        packed: model.is_packed(),
        task: card.task,
        architecture: card.architecture.clone(),
        context_length: card.context().map(|tokens| tokens as i64).or_else(|| card.integer("n_positions")),
        tokenizer: card.side_file("tokenizer.json").is_some(),
        chat_template: card.chat_template.is_some(),
        bytes: model.bytes(),
        ir_version: proto.ir_version.unwrap_or(0),
        opsets: BTreeMap::new(),
        producer: [&proto.producer_name, &proto.producer_version]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(" "),
        inputs: model.inputs().iter().map(Value::from).collect(),
        outputs: model.outputs().iter().map(Value::from).collect(),
        nodes: 0,
        subgraphs: view.bodies.iter().filter(|b| b.parent.is_some()).count(),
        functions: proto.functions.len(),
        operators: BTreeMap::new(),
        modules: modules(&view),
        weights: BTreeMap::new(),
        parameters: parameters::count(&view),
        warnings: card.warnings.clone(),
        metadata: proto.metadata_props.iter().map(metadata).collect(),
    };
    for import in &proto.opset_import {
        let domain = import.domain.as_deref().filter(|d| !d.is_empty()).unwrap_or("ai.onnx");
        found.opsets.insert(domain.to_owned(), import.version.unwrap_or(0));
    }
    for body in &view.bodies {
        found.nodes += body.nodes.len();
        for node in body.nodes {
            *found.operators.entry(operator(node)).or_default() += 1;
            let constants = node.attribute.iter().filter(|a| a.kind == Some(attribute_kind::TENSOR));
            constants.filter_map(|a| a.t.as_deref()).for_each(|t| found.count(t));
        }
        body.graph.iter().flat_map(|g| &g.initializer).for_each(|t| found.count(t));
    }
    found
}

fn operator(node: &crate::onnx::proto::NodeProto) -> String {
    match node.domain.as_deref() {
        None | Some("" | "ai.onnx") => node.op().to_owned(),
        Some(domain) => format!("{domain}.{}", node.op()),
    }
}

fn metadata(entry: &crate::onnx::proto::StringStringEntryProto) -> (String, String) {
    let value = String::from_utf8_lossy(entry.value.as_deref().unwrap_or(&[]));
    (entry.key.clone().unwrap_or_default(), value.chars().take(200).collect())
}

impl Inspection {
    fn count(&mut self, tensor: &TensorProto) {
        let dtype = tensor.dtype();
        let elements = element_count(&tensor.dims).unwrap_or(0);
        let entry = self.weights.entry(dtype.map_or("unknown", DataType::name)).or_default();
        entry.tensors += 1;
        entry.elements += elements;
        entry.bytes += dtype.and_then(|d| d.bytes_of(elements).ok()).unwrap_or(0);
    }

    /// Returns the result as JSON text with a final newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

impl From<&ValueInfo> for Value {
    fn from(value: &ValueInfo) -> Self {
        let dim = |d: &Dim| match d {
            Dim::Fixed(size) => (*size).into(),
            Dim::Symbolic(name) => name.as_str().into(),
        };
        Value {
            name: value.name.clone(),
            dtype: value.dtype.map(DataType::name),
            shape: value.shape.as_ref().map(|dims| dims.iter().map(dim).collect()),
        }
    }
}
