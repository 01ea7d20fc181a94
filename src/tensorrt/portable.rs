//! Lowering to what the parser of TensorRT takes: the default operators up to opset 20.

use super::blocks::{self, Weight};
use crate::error::{Result, bail};
use crate::files::Scratch;
use crate::graph::edit::{Names, float_tensor, int_attribute, ints_attribute, modernize_ir, node, tensor};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::order::reads;
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use crate::onnx::validate::subgraphs;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The newest version of the default operators that is given to the parser.
pub const NEWEST: i64 = 20;

/// Operators that came after [`NEWEST`], as far as they are not lowered here.
const LATER: [&str; 5] = ["Attention", "RotaryEmbedding", "TensorScatter", "BitCast", "CumProd"];

/// The model with every operator lowered, and the number of nodes that were. `Unsupported` names those that cannot be.
pub(super) fn lower(model: &Model) -> Result<(ModelProto, usize)> {
    let mut proto = model.proto().clone();
    // Before IR 4 constants were listed as inputs.
    modernize_ir(&mut proto);
    let mut names = Names::of(&proto);
    let opset = model.opset();
    let mut lowered = 0;
    let mut constants = Vec::new();
    let scratch = Scratch::new(&std::env::temp_dir());
    let known = constants_of(model);
    if let Some(graph) = proto.graph.as_deref_mut() {
        let nodes = std::mem::take(&mut graph.node);
        for node in nodes {
            match parts(&node, opset, &mut names, &mut constants, (&known, &scratch)) {
                Some(parts) => {
                    lowered += 1;
                    graph.node.extend(parts?);
                }
                None => graph.node.push(node),
            }
        }
        graph.initializer.extend(constants);
        drop_unread(graph, &known);
    }
    let functions: Vec<(String, String)> = proto
        .functions
        .iter()
        .map(|f| (f.domain.clone().unwrap_or_default(), f.name.clone().unwrap_or_default()))
        .collect();
    let mut left: BTreeMap<String, String> = BTreeMap::new();
    if let Some(graph) = proto.graph.as_deref() {
        find(&graph.node, &functions, &mut left);
    }
    if !left.is_empty() {
        let list: Vec<String> = left.iter().map(|(op, node)| format!("{op} (node {node:?})")).collect();
        bail!(
            Unsupported,
            "TensorRT has no operator for, and none of it is lowered: {}; a checkpoint or GGUF file loaded with portable \
             operators has none of these",
            list.join(", ")
        );
    }
    for import in &mut proto.opset_import {
        let default = matches!(import.domain.as_deref(), None | Some("" | "ai.onnx"));
        if default && import.version > Some(NEWEST) {
            import.version = Some(NEWEST);
        }
    }
    // Domains that no node is of any more: parsers look for their operators.
    if functions.is_empty() {
        proto.opset_import.retain(|import| matches!(import.domain.as_deref(), None | Some("" | "ai.onnx")));
    }
    Ok((proto, lowered))
}

type Known<'m> = HashMap<&'m str, &'m TensorProto>;

/// The constants of a model, also by the names of their casts: scales of blocks are stored as float16.
fn constants_of(model: &Model) -> Known<'_> {
    let graph = model.graph();
    let mut known: Known<'_> = graph.initializer.iter().filter_map(|t| Some((t.name.as_deref()?, t))).collect();
    for node in graph.node.iter().filter(|node| node.op() == "Cast") {
        let of = node.input_at(0).and_then(|name| known.get(name).copied());
        let float = |t: &&TensorProto| {
            [DataType::Float16, DataType::Float32].iter().any(|dtype| t.data_type == Some(dtype.to_onnx()))
        };
        if let (Some(constant), Some(name)) = (of.filter(float), node.output.first()) {
            known.insert(name, constant);
        }
    }
    known
}

/// Constants of the model that were read and are not any more: weights in blocks that became others.
fn drop_unread(graph: &mut GraphProto, known: &Known<'_>) {
    let read: HashSet<&str> = graph.node.iter().flat_map(reads).collect();
    let outputs: HashSet<&str> = graph.output.iter().filter_map(|o| o.name.as_deref()).collect();
    let blocks = |t: &TensorProto| t.data_type == Some(DataType::Uint8.to_onnx());
    let gone: HashSet<String> = (graph.initializer.iter())
        .filter_map(|t| t.name.clone().filter(|name| blocks(t) && known.contains_key(name.as_str())))
        .filter(|name| !read.contains(name.as_str()) && !outputs.contains(name.as_str()))
        .collect();
    graph.initializer.retain(|t| !t.name.as_ref().is_some_and(|name| gone.contains(name)));
}

/// What is neither a default operator up to [`NEWEST`] nor a function of the model, with the first node of each.
fn find(nodes: &[NodeProto], functions: &[(String, String)], left: &mut BTreeMap<String, String>) {
    for node in nodes {
        let domain = node.domain.as_deref().unwrap_or("");
        let is_default = matches!(domain, "" | "ai.onnx");
        let own = functions.iter().any(|(d, name)| d == domain && name == node.op());
        let in_blocks = matches!(node.op(), "DequantizeLinear" | "QuantizeLinear") && node.int("block_size", 0) > 0;
        if !own && (!is_default || LATER.contains(&node.op()) || in_blocks) {
            let blocks = if in_blocks { " in blocks" } else { "" };
            let op = if is_default { format!("{}{blocks}", node.op()) } else { format!("{domain}.{}", node.op()) };
            left.entry(op).or_insert_with(|| node.label().to_owned());
        }
        for graph in subgraphs(node) {
            find(&graph.node, functions, left);
        }
    }
}

/// Nodes that do what one does which the parser does not know; `None` if it does, or nothing is known about it.
fn parts(
    original: &NodeProto,
    opset: i64,
    names: &mut Names,
    constants: &mut Vec<TensorProto>,
    (known, scratch): (&Known<'_>, &Scratch),
) -> Option<Result<Vec<NodeProto>>> {
    let contrib = matches!(original.domain.as_deref(), Some("com.microsoft"));
    let default = matches!(original.domain.as_deref(), None | Some("" | "ai.onnx"));
    let mut b = Parts { opset, names, constants, nodes: Vec::new(), label: original.label().to_owned() };
    let x = original.input_at(0)?;
    let y = original.output.first()?.clone();
    match original.op() {
        "Gelu" if contrib => b.gelu(x, &y),
        "BiasGelu" if contrib => {
            let sum = b.op("Add", &[x, original.input_at(1)?]);
            b.gelu(&sum, &y);
        }
        "FastGelu" if contrib => {
            let sum = original.input_at(1).map(|bias| b.op("Add", &[x, bias]));
            b.fast_gelu(sum.as_deref().unwrap_or(x), &y);
        }
        "QuickGelu" if contrib => {
            let alpha = b.number(original.float("alpha", 1.702));
            let scaled = b.op("Mul", &[x, &alpha]);
            let gate = b.op("Sigmoid", &[&scaled]);
            b.give("Mul", &[x, &gate], &y);
        }
        "Swish" if default => {
            let alpha = b.number(original.float("alpha", 1.0));
            let scaled = b.op("Mul", &[x, &alpha]);
            let gate = b.op("Sigmoid", &[&scaled]);
            b.give("Mul", &[x, &gate], &y);
        }
        "MatMulNBits" if contrib => match blocks::weight(original, known, scratch)? {
            Ok(weight) => b.product_of_blocks(weight, x, &y),
            Err(e) => return Some(Err(e)),
        },
        "FusedMatMul" if contrib => b.fused_product(original, x, &y)?,
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" if contrib => b.skip_norm(original, x, &y)?,
        // ONNX Runtime has these in the default domain, too.
        "SimplifiedLayerNormalization" | "RMSNormalization" if original.output.len() == 1 => {
            b.rms_norm(x, original.input_at(1)?, original.float("epsilon", 1e-5), original.int("axis", -1), &y)?;
        }
        _ => return None,
    }
    Some(Ok(b.nodes))
}

struct Parts<'p> {
    opset: i64,
    names: &'p mut Names,
    constants: &'p mut Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    label: String,
}

impl Parts<'_> {
    fn give(&mut self, op: &str, inputs: &[&str], output: &str) {
        self.with(op, inputs, output, Vec::new());
    }

    fn with(&mut self, op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) {
        let name = Some(self.names.fresh(&format!("{}/{op}", self.label)));
        self.nodes.push(NodeProto { name, attribute, ..node(op, inputs, &[output]) });
    }

    fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        let output = self.names.fresh(&format!("{}/{op}_out", self.label));
        self.give(op, inputs, &output);
        output
    }

    fn number(&mut self, value: f32) -> String {
        let name = self.names.fresh(&format!("{}/number", self.label));
        self.constants.push(float_tensor(&name, &[], &[value]));
        name
    }

    /// `x/2 (1 + erf(x/√2))`.
    fn gelu(&mut self, x: &str, y: &str) {
        let (root, one, half) = (self.number(std::f32::consts::FRAC_1_SQRT_2), self.number(1.0), self.number(0.5));
        let scaled = self.op("Mul", &[x, &root]);
        let erf = self.op("Erf", &[&scaled]);
        let sum = self.op("Add", &[&erf, &one]);
        let product = self.op("Mul", &[x, &sum]);
        self.give("Mul", &[&product, &half], y);
    }

    /// `x/2 (1 + tanh(0.7978845608 (x + 0.044715 x³)))`.
    fn fast_gelu(&mut self, x: &str, y: &str) {
        let (cubic, root) = (self.number(0.044_715), self.number(0.797_884_6));
        let (one, half) = (self.number(1.0), self.number(0.5));
        let square = self.op("Mul", &[x, x]);
        let factor = self.op("Mul", &[&square, &cubic]);
        let more = self.op("Add", &[&factor, &one]);
        let inner = self.op("Mul", &[x, &more]);
        let scaled = self.op("Mul", &[&inner, &root]);
        let tanh = self.op("Tanh", &[&scaled]);
        let sum = self.op("Add", &[&tanh, &one]);
        let product = self.op("Mul", &[x, &sum]);
        self.give("Mul", &[&product, &half], y);
    }

    /// `A W + bias`, with the weight as numbers again.
    fn product_of_blocks(&mut self, weight: Weight, x: &str, y: &str) {
        let name = self.names.fresh(&format!("{}/weight", self.label));
        let dims = [weight.inner as i64, weight.columns as i64];
        self.constants.push(tensor(&name, DataType::Float32, &dims, weight.raw));
        match weight.bias {
            None => self.give("MatMul", &[x, &name], y),
            Some(bias) => {
                let product = self.op("MatMul", &[x, &name]);
                self.give("Add", &[&product, &bias], y);
            }
        }
    }

    /// `alpha AᵗB`, where either may be turned in its last two dimensions: by Einsum, which needs no rank.
    fn fused_product(&mut self, original: &NodeProto, x: &str, y: &str) -> Option<()> {
        if original.int("transBatchA", 0) != 0 || original.int("transBatchB", 0) != 0 {
            return None;
        }
        let other = original.input_at(1)?;
        let (a, b) = (original.int("transA", 0) != 0, original.int("transB", 0) != 0);
        let alpha = original.float("alpha", 1.0);
        let target = if alpha == 1.0 { y.to_owned() } else { self.names.fresh(&format!("{}/product", self.label)) };
        if !a && !b {
            self.give("MatMul", &[x, other], &target);
        } else {
            let equation = format!("...{},...{}->...mn", if a { "km" } else { "mk" }, if b { "nk" } else { "kn" });
            let attribute = AttributeProto {
                name: Some("equation".to_owned()),
                kind: Some(crate::onnx::proto::attribute_kind::STRING),
                s: Some(equation.into()),
                ..Default::default()
            };
            self.with("Einsum", &[x, other], &target, vec![attribute]);
        }
        if alpha != 1.0 {
            let alpha = self.number(alpha);
            self.give("Mul", &[&target, &alpha], y);
        }
        Some(())
    }

    /// `norm(x + skip + bias)`; the sum is the fourth output, if it is wanted.
    fn skip_norm(&mut self, original: &NodeProto, x: &str, y: &str) -> Option<()> {
        if [1, 2].iter().any(|i| original.output.get(*i).is_some_and(|o| !o.is_empty())) {
            return None;
        }
        let simple = original.op() == "SkipSimplifiedLayerNormalization";
        let bias = original.input_at(if simple { 3 } else { 4 });
        let sum = match original.output.get(3).filter(|o| !o.is_empty()) {
            Some(name) => name.clone(),
            None => self.names.fresh(&format!("{}/sum", self.label)),
        };
        let skip = original.input_at(1)?;
        match bias {
            None => self.give("Add", &[x, skip], &sum),
            Some(bias) => {
                let part = self.op("Add", &[x, skip]);
                self.give("Add", &[&part, bias], &sum);
            }
        }
        let (scale, epsilon) = (original.input_at(2)?, original.float("epsilon", 1e-12));
        if simple {
            return self.rms_norm(&sum, scale, epsilon, -1, y);
        }
        let mut inputs = vec![sum.as_str(), scale];
        inputs.extend(original.input_at(3));
        let epsilon = AttributeProto {
            name: Some("epsilon".to_owned()),
            kind: Some(crate::onnx::proto::attribute_kind::FLOAT),
            f: Some(epsilon),
            ..Default::default()
        };
        self.with("LayerNormalization", &inputs, y, vec![int_attribute("axis", -1), epsilon]);
        Some(())
    }

    /// `scale x / √(mean(x²) + epsilon)`, over the last dimension.
    fn rms_norm(&mut self, x: &str, scale: &str, epsilon: f32, axis: i64, y: &str) -> Option<()> {
        if axis != -1 {
            return None;
        }
        let epsilon = self.number(epsilon);
        let square = self.op("Mul", &[x, x]);
        let mean = self.names.fresh(&format!("{}/mean", self.label));
        if self.opset < 18 {
            self.with("ReduceMean", &[&square], &mean, vec![ints_attribute("axes", &[-1])]);
        } else {
            let axes = self.names.fresh(&format!("{}/axes", self.label));
            self.constants.push(tensor(&axes, DataType::Int64, &[1], (-1i64).to_le_bytes().to_vec().into()));
            self.give("ReduceMean", &[&square, &axes], &mean);
        }
        let sum = self.op("Add", &[&mean, &epsilon]);
        let root = self.op("Sqrt", &[&sum]);
        let norm = self.op("Div", &[x, &root]);
        self.give("Mul", &[&norm, scale], y);
        Some(())
    }
}
