//! The casts of a graph in mixed precision: each float32 value has up to two names, its own and that of its
//! low-precision form, with casts between them where both are read.

use super::options::Precision;
use crate::error::Result;
use crate::files::Scratch;
use crate::graph::edit::{Names, int_attribute, node, tensor};
use crate::graph::floats::{self, floats};
use crate::graph::order::reads;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto};
use std::collections::{HashMap, HashSet};

/// The type in which a node reads and writes floating-point values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The node reads and writes float32.
    Full,
    /// The node reads and writes the low-precision type.
    Short,
    /// The node reads either type and outputs neither.
    Either,
}

/// A graph in lower precision.
pub(super) struct Rewritten {
    pub proto: ModelProto,
    /// Low-precision name of each value that has one, by its name in the original.
    pub short: HashMap<String, String>,
}

/// Returns `original` with its main graph in lower precision. `floats` are the names of its float32 values, and `forms`
/// has one entry per node. The types of inputs and outputs of the graph do not change. `scratch` receives the converted
/// weights.
///
/// `emulated` keeps the type float32 and rounds instead, so that a runtime without kernels for the low-precision type
/// can run the graph. Fails if a constant cannot be read, or if its converted values cannot be written to `scratch`.
pub(super) fn rewrite(
    original: &ModelProto,
    floats: &HashSet<String>,
    forms: &[Form],
    precision: Precision,
    emulated: bool,
    scratch: &Scratch,
) -> Result<Rewritten> {
    let mut proto = original.clone();
    let names = Names::of(original);
    let Some(graph) = proto.graph.as_deref_mut() else { return Ok(Rewritten { proto, short: HashMap::new() }) };
    let mut writer = Writer { precision, emulated, names, short: HashMap::new(), nodes: Vec::new() };
    let nodes = std::mem::take(&mut graph.node);
    let is_float = |name: &str| floats.contains(name);
    let (mut full_read, short) = (HashSet::new(), nodes.iter().zip(forms).filter(|(_, form)| **form == Form::Short));
    let short_made: HashSet<String> =
        short.flat_map(|(node, _)| node.output.iter().filter(|o| is_float(o)).cloned()).collect();
    full_read.extend(graph.output.iter().filter_map(|o| o.name.clone()));
    for (node, form) in nodes.iter().zip(forms) {
        match form {
            Form::Full => full_read.extend(reads(node).into_iter().map(str::to_owned)),
            Form::Short => {
                for name in node.input.iter().filter(|i| is_float(i)) {
                    writer.name(name);
                }
            }
            Form::Either => full_read.extend(node.input.iter().filter(|i| !short_made.contains(*i)).cloned()),
        }
    }
    for name in &short_made {
        writer.name(name);
    }
    // A constant is converted if a node reads its low-precision form. It stays in float32 if a node reads it in
    // float32, or if it is the default value of an input.
    let defaults: HashSet<String> = graph.input.iter().filter_map(|i| i.name.clone()).collect();
    let mut initializers = Vec::with_capacity(graph.initializer.len());
    for constant in std::mem::take(&mut graph.initializer) {
        let name = constant.name.clone().unwrap_or_default();
        if let Some(short) = writer.short.get(&name) {
            initializers.push(converted(&constant, short, precision, emulated, scratch)?);
        }
        if full_read.contains(&name) || defaults.contains(&name) || !writer.short.contains_key(&name) {
            initializers.push(constant);
        }
    }
    let constants: HashSet<String> = initializers.iter().filter_map(|t| t.name.clone()).collect();
    for input in graph.input.iter().filter_map(|i| i.name.as_deref()) {
        if let Some(short) = writer.short.get(input).filter(|short| !constants.contains(*short)).cloned() {
            writer.shorten(input, &short);
        }
    }
    for (node, form) in nodes.into_iter().zip(forms) {
        writer.place(node, *form, &is_float, &short_made, &full_read);
    }
    graph.initializer = initializers;
    graph.node = writer.nodes;
    // The shapes are removed, because they may name values that no longer exist; readers of the graph infer them.
    graph.value_info.clear();
    Ok(Rewritten { proto, short: writer.short })
}

struct Writer {
    precision: Precision,
    emulated: bool,
    names: Names,
    short: HashMap<String, String>,
    nodes: Vec<NodeProto>,
}

impl Writer {
    fn dtype(&self) -> DataType {
        if self.precision == Precision::Bf16 { DataType::Bfloat16 } else { DataType::Float16 }
    }

    /// Returns the name of the low-precision form of a value.
    fn name(&mut self, value: &str) -> String {
        if let Some(known) = self.short.get(value) {
            return known.clone();
        }
        let name = self.names.fresh(&format!("{value}_{}", self.precision.name()));
        self.short.insert(value.to_owned(), name.clone());
        name
    }

    fn cast(&mut self, from: &str, to: &str, dtype: DataType) {
        let name = self.names.fresh(&format!("{to}_cast"));
        let attribute = vec![int_attribute("to", i64::from(dtype.to_onnx()))];
        self.nodes.push(NodeProto { name: Some(name), attribute, ..node("Cast", &[from], &[to]) });
    }

    /// Adds the low-precision form of a value that exists in float32.
    fn shorten(&mut self, full: &str, short: &str) {
        if !self.emulated {
            return self.cast(full, short, self.dtype());
        }
        let between = self.names.fresh(&format!("{short}_rounded"));
        self.cast(full, &between, self.dtype());
        self.cast(&between, short, DataType::Float32);
    }

    fn place(
        &mut self,
        mut node: NodeProto,
        form: Form,
        is_float: &dyn Fn(&str) -> bool,
        short_made: &HashSet<String>,
        full_read: &HashSet<String>,
    ) {
        let outputs = node.output.clone();
        if form == Form::Either {
            for input in node.input.iter_mut().filter(|i| short_made.contains(*i) && !full_read.contains(*i)) {
                input.clone_from(&self.short[input.as_str()]);
            }
        }
        if form != Form::Short {
            self.nodes.push(node);
            for output in outputs.iter().filter(|o| is_float(o)) {
                if let Some(short) = self.short.get(output).cloned() {
                    self.shorten(output, &short);
                }
            }
            return;
        }
        for input in node.input.iter_mut().filter(|i| is_float(i)) {
            input.clone_from(&self.short[input.as_str()]);
        }
        let mut rounded = Vec::new();
        for output in node.output.iter_mut().filter(|o| is_float(o)) {
            let short = self.short[output.as_str()].clone();
            *output = match self.emulated {
                false => short,
                true => {
                    let exact = self.names.fresh(&format!("{short}_exact"));
                    rounded.push((exact.clone(), short));
                    exact
                }
            };
        }
        self.nodes.push(node);
        for (exact, short) in rounded {
            self.shorten(&exact, &short);
        }
        for output in outputs.iter().filter(|o| is_float(o) && full_read.contains(*o)) {
            let short = self.short[output].clone();
            self.cast(&short, output, DataType::Float32);
        }
    }
}

fn converted(
    constant: &TensorProto,
    name: &str,
    precision: Precision,
    emulated: bool,
    scratch: &Scratch,
) -> Result<TensorProto> {
    let mut values = floats(constant)?;
    let short = if precision == Precision::Bf16 { DataType::Bfloat16 } else { DataType::Float16 };
    let dtype = if emulated { DataType::Float32 } else { short };
    floats::round(&mut values, short);
    Ok(tensor(name, dtype, &constant.dims, floats::store(&values, dtype, scratch)?))
}
