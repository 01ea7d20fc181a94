//! Encoder layers in the forms in which exporters write them, which the patterns of the provider must find.

use super::common::Random;
use super::support::build::{model_of, smooth, value};
use optimize::graph::edit::{float_tensor, int_attribute, ints_attribute, node, tensor};
use optimize::model::Model;
use optimize::onnx::dtype::DataType;
use optimize::onnx::proto::*;

/// The form in which an exporter writes a layer.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub heads: usize,
    pub size: usize,
    pub inner: usize,
    /// Mask of the keys: none, an added float mask, or a boolean one with `Where`.
    pub mask: Mask,
    /// Place where the scale is applied: to the scores by `Div` or `Mul`, to the queries, or its square root to both
    /// queries and keys.
    pub scale: usize,
    /// Whether keys are transposed twice instead of once.
    pub twice: bool,
    /// Whether the shapes of `Reshape` nodes are constant or computed.
    pub constant_sizes: bool,
    /// Form of GELU, or Relu or SiLU instead.
    pub activation: usize,
    pub bias_first: bool,
    /// Whether the sum before the last normalization is also an output.
    pub sum_is_output: bool,
    pub rms: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mask {
    None,
    /// Mask of the keys: batch × 1 × 1 × keys.
    Keys,
    /// Mask of keys by query: batch × 1 × queries × keys.
    Queries,
    /// Bias of positions: 1 × heads × queries × keys.
    Heads,
    Bool,
}

impl Form {
    pub fn random(random: &mut Random) -> Self {
        let masks = [Mask::None, Mask::Keys, Mask::Queries, Mask::Heads, Mask::Bool];
        let flag = |random: &mut Random| random.below(2) == 1;
        Self {
            heads: 1 + random.below(4),
            size: [3, 8, 16, 20, 33][random.below(5)],
            inner: [7, 32, 65][random.below(3)],
            mask: masks[random.below(5)],
            scale: random.below(4),
            twice: flag(random),
            constant_sizes: flag(random),
            activation: random.below(7),
            bias_first: flag(random),
            sum_is_output: flag(random),
            rms: random.below(4) == 0,
        }
    }

    pub fn hidden(&self) -> usize {
        self.heads * self.size
    }

    /// Returns the shape of the mask in a run, if there is one.
    pub fn mask_shape(&self, batch: usize, tokens: usize) -> Option<Vec<usize>> {
        match self.mask {
            Mask::None => None,
            Mask::Keys | Mask::Bool => Some(vec![batch, 1, 1, tokens]),
            Mask::Queries => Some(vec![batch, 1, tokens, tokens]),
            Mask::Heads => Some(vec![1, self.heads, tokens, tokens]),
        }
    }
}

/// A builder of the graph.
pub struct Builder {
    pub nodes: Vec<NodeProto>,
    pub weights: Vec<TensorProto>,
    next: usize,
}

impl Builder {
    pub fn new() -> Self {
        Self { nodes: Vec::new(), weights: Vec::new(), next: 0 }
    }

    pub fn name(&mut self) -> String {
        self.next += 1;
        format!("v{}", self.next)
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.name();
        let mut made = node(op, inputs, &[&output]);
        made.attribute = attributes;
        self.nodes.push(made);
        output
    }

    pub fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.node(op, inputs, Vec::new())
    }

    pub fn floats(&mut self, shape: &[usize], values: &[f32]) -> String {
        let name = self.name();
        let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        self.weights.push(float_tensor(&name, &shape, values));
        name
    }

    pub fn number(&mut self, value: f32) -> String {
        self.floats(&[], &[value])
    }

    pub fn weight(&mut self, shape: &[usize]) -> String {
        let count = shape.iter().product();
        let scale = 1.0 / (shape[0] as f32).sqrt();
        let values: Vec<f32> = smooth(count, self.next as f32).iter().map(|value| value * scale).collect();
        self.floats(shape, &values)
    }

    pub fn integers(&mut self, values: &[i64]) -> String {
        let name = self.name();
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.weights.push(tensor(&name, DataType::Int64, &[values.len() as i64], raw));
        name
    }

    pub fn linear(&mut self, x: &str, sizes: (usize, usize), bias_first: bool) -> String {
        let weight = self.weight(&[sizes.0, sizes.1]);
        let bias = self.weight(&[sizes.1]);
        let product = self.op("MatMul", &[x, &weight]);
        if bias_first { self.op("Add", &[&bias, &product]) } else { self.op("Add", &[&product, &bias]) }
    }

    /// Adds a reshape of batch × tokens × hidden into batch × tokens × heads × size, and returns its output.
    fn split(&mut self, x: &str, form: &Form) -> String {
        let (heads, size) = (form.heads as i64, form.size as i64);
        let sizes = if form.constant_sizes {
            self.integers(&[0, 0, heads, size])
        } else {
            let shape = self.op("Shape", &[x]);
            let (first, rest) = (self.integers(&[0, 1]), self.integers(&[heads, size]));
            let outer = self.op("Gather", &[&shape, &first]);
            self.node("Concat", &[&outer, &rest], vec![int_attribute("axis", 0)])
        };
        self.op("Reshape", &[x, &sizes])
    }

    fn transpose(&mut self, x: &str, order: &[i64]) -> String {
        self.node("Transpose", &[x], vec![ints_attribute("perm", order)])
    }

    fn scaled(&mut self, x: &str, factor: f32, divide: bool) -> String {
        let number = self.number(if divide { 1.0 / factor } else { factor });
        self.op(if divide { "Div" } else { "Mul" }, &[x, &number])
    }

    fn attention(&mut self, x: &str, form: &Form) -> String {
        let hidden = form.hidden();
        let scale = 1.0 / (form.size as f32).sqrt();
        let parts: Vec<String> = (0..3)
            .map(|_| {
                let part = self.linear(x, (hidden, hidden), form.bias_first);
                self.split(&part, form)
            })
            .collect();
        let mut q = self.transpose(&parts[0], &[0, 2, 1, 3]);
        let mut k = if form.twice {
            let k = self.transpose(&parts[1], &[0, 2, 1, 3]);
            self.transpose(&k, &[0, 1, 3, 2])
        } else {
            self.transpose(&parts[1], &[0, 2, 3, 1])
        };
        let v = self.transpose(&parts[2], &[0, 2, 1, 3]);
        if form.scale == 2 {
            q = self.scaled(&q, scale, false);
        }
        if form.scale == 3 {
            q = self.scaled(&q, scale.sqrt(), false);
            k = self.scaled(&k, scale.sqrt(), false);
        }
        let mut scores = self.op("MatMul", &[&q, &k]);
        if form.scale < 2 {
            scores = self.scaled(&scores, scale, form.scale == 1);
        }
        scores = match form.mask {
            Mask::None => scores,
            Mask::Bool => {
                let low = self.number(if form.heads.is_multiple_of(2) { f32::MIN } else { -1e9 });
                self.op("Where", &["mask", &scores, &low])
            }
            _ => self.op("Add", &[&scores, "mask"]),
        };
        let probabilities = self.node("Softmax", &[&scores], vec![int_attribute("axis", -1)]);
        let mixed = self.op("MatMul", &[&probabilities, &v]);
        let mixed = self.transpose(&mixed, &[0, 2, 1, 3]);
        let sizes = self.integers(&[0, 0, hidden as i64]);
        let joined = self.op("Reshape", &[&mixed, &sizes]);
        self.linear(&joined, (hidden, hidden), form.bias_first)
    }

    fn activation(&mut self, x: &str, which: usize) -> String {
        let (one, half) = (self.number(1.0), self.number(0.5));
        match which {
            0 | 1 => {
                let inner = self.scaled(x, std::f32::consts::FRAC_1_SQRT_2, which == 0);
                let erf = self.op("Erf", &[&inner]);
                let gate = self.op("Add", &[&erf, &one]);
                if which == 0 {
                    let product = self.op("Mul", &[x, &gate]);
                    self.op("Mul", &[&product, &half])
                } else {
                    let halved = self.op("Mul", &[x, &half]);
                    self.op("Mul", &[&halved, &gate])
                }
            }
            2 => self.node("Gelu", &[x], vec![text("approximate", "tanh")]),
            3 => self.op("Gelu", &[x]),
            4 => self.op("Relu", &[x]),
            5 => {
                let gate = self.op("Sigmoid", &[x]);
                self.op("Mul", &[x, &gate])
            }
            _ => {
                let three = self.number(3.0);
                let cube = self.op("Pow", &[x, &three]);
                let small = self.scaled(&cube, 0.044_715, false);
                let sum = self.op("Add", &[x, &small]);
                let argument = self.scaled(&sum, 0.797_884_6, false);
                let tanh = self.op("Tanh", &[&argument]);
                let gate = self.op("Add", &[&tanh, &one]);
                let halved = self.op("Mul", &[x, &half]);
                self.op("Mul", &[&halved, &gate])
            }
        }
    }

    fn norm(&mut self, x: &str, form: &Form) -> String {
        let (gamma, beta) = (self.weight(&[form.hidden()]), self.weight(&[form.hidden()]));
        match form.rms {
            true => self.op("RMSNormalization", &[x, &gamma]),
            false => self.node("LayerNormalization", &[x, &gamma, &beta], vec![int_attribute("axis", -1)]),
        }
    }
}

pub fn text(name: &str, value: &str) -> AttributeProto {
    let kind = Some(attribute_kind::STRING);
    AttributeProto { name: Some(name.into()), kind, s: Some(value.as_bytes().to_vec().into()), ..Default::default() }
}

/// Returns the model of a layer: attention, sum, normalization, two linear layers with an activation between them, sum,
/// normalization.
pub fn layer(form: &Form) -> Model {
    let mut b = Builder::new();
    let mixed = b.attention("x", form);
    let sum = b.op("Add", &[&mixed, "x"]);
    let middle = b.norm(&sum, form);
    let wide = b.linear(&middle, (form.hidden(), form.inner), form.bias_first);
    let wide = b.activation(&wide, form.activation);
    let narrow = b.linear(&wide, (form.inner, form.hidden()), form.bias_first);
    let sum = b.op("Add", &[&middle, &narrow]);
    let last = b.norm(&sum, form);
    b.nodes.push(node("Identity", &[&last], &["y"]));
    let hidden = form.hidden() as i64;
    let mut inputs = vec![value("x", DataType::Float32, &[-1, -2, hidden])];
    let kind = if form.mask == Mask::Bool { DataType::Bool } else { DataType::Float32 };
    if form.mask != Mask::None {
        inputs.push(value("mask", kind, &[-1, -2, -3, -4]));
    }
    let mut outputs = vec![value("y", DataType::Float32, &[-1, -2, hidden])];
    if form.sum_is_output {
        b.nodes.push(node("Identity", &[&sum], &["sum"]));
        outputs.push(value("sum", DataType::Float32, &[-1, -2, hidden]));
    }
    of(b, inputs, outputs)
}

/// Returns the model that `builder` has built.
pub fn of(builder: Builder, inputs: Vec<ValueInfoProto>, outputs: Vec<ValueInfoProto>) -> Model {
    let (node, initializer) = (builder.nodes, builder.weights);
    let name = Some("test".to_owned());
    let graph = GraphProto { name, node, initializer, input: inputs, output: outputs, ..Default::default() };
    let mut proto = model_of(23, graph);
    let microsoft = OperatorSetIdProto { domain: Some("com.microsoft".into()), version: Some(1), ..Default::default() };
    proto.opset_import.push(microsoft);
    Model::from_proto(proto)
}
