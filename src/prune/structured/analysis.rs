//! The dependencies between axes in a model's main graph ([`Analysis`]).
//!
//! Every value has dimensions and axes ([`super::axes`]). A rule for a kind of node joins the elements of axes that can
//! only be removed together, and blocks the axes that it does not support. A node without a rule blocks all of its
//! axes.

use super::axes::{Axes, Axis, AxisId, Dim, Int, Reason};
use super::known::Known;
use super::rules;
use super::sizes::Sizes;
use crate::error::{Result, bail};
use crate::graph::order::{self, reads, topological};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto, attribute_kind};
use crate::onnx::validate::subgraphs;
use std::collections::HashMap;

/// The dimensions, axes and content of a value, as far as they are known.
#[derive(Clone)]
pub struct Value<'m> {
    /// Dimensions of the value.
    pub dims: Vec<Dim>,
    /// Axes of the value, one per dimension.
    pub axes: Vec<Axis>,
    /// Elements of the value, if they are few integers that are computed from shapes and constants; `None` otherwise.
    pub ints: Option<Vec<Int>>,
    /// Name of the constant whose elements the value has, if it is computed by nodes that only move or cast them.
    pub constant: Option<&'m str>,
}

impl Value<'_> {
    /// Returns the number of dimensions of the value.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }
}

/// A weight that produces the elements of an axis.
pub struct Producer<'m> {
    /// Index of the node that applies the weight.
    pub node: u32,
    /// Name of the weight.
    pub constant: &'m str,
    /// Axis of the outputs of the weight.
    pub axis: AxisId,
}

/// A weight that sums over the elements of an axis: the end of a unit's path through the model.
pub struct Consumer<'m> {
    /// Index of the node that applies the weight.
    pub node: u32,
    /// Name of the weight.
    pub constant: &'m str,
    /// Axis of the weight that is summed over.
    pub axis: AxisId,
    /// Name of the other operand of the product.
    pub input: &'m str,
    /// Dimension of the other operand that is summed over.
    pub dimension: usize,
}

/// A number in the graph that must be updated after a cut.
pub enum Follow<'m> {
    /// Elements of an integer input that must be the sizes of axes, with their values and axes.
    Sizes { node: u32, input: usize, ints: Vec<Int>, axes: Vec<Option<AxisId>> },
    /// An attribute list with the sizes of axes.
    List { node: u32, name: &'static str, axes: Vec<Option<AxisId>> },
    /// An equal `Split`, which may become unequal, with the axes of its outputs.
    EqualSplit { node: u32, axes: Vec<AxisId> },
    /// A `Slice` that selects `range` of `axis`, by element `at` of its starts and ends.
    Range { node: u32, at: usize, axis: AxisId, range: (usize, usize) },
    /// Elements of an integer input that are used as values and must not change.
    Numbers { node: u32, input: usize, ints: Vec<Int> },
    /// An integer attribute that is the size of an axis divided by `per`.
    Attribute { node: u32, name: &'static str, axis: AxisId, per: i64 },
    /// A model input or output whose declared shape contains sizes of axes.
    #[allow(missing_docs)]
    Declared { value: &'m str },
}

/// The result of a rule. The error is the reason why no axis can be cut through the node.
pub type Judged<T> = std::result::Result<T, &'static str>;

/// The error of a rule for a node that reads a value of unknown shape; the reason names the node that lost the shape.
pub const LOST: &str = "it reads a value of unknown shape";
/// The error of a rule for a node whose integer parameters are not known (see [`Analysis::list`]).
pub const COMPUTED: &str = "its parameters are computed";

/// The dependencies between the axes of a model.
pub struct Analysis<'m> {
    /// Main graph of the model.
    pub graph: &'m GraphProto,
    /// Axes of all values, and which of them are linked.
    pub axes: Axes,
    /// Axes and elements of each value, by its name.
    pub values: HashMap<&'m str, Value<'m>>,
    /// Constant tensors of the main graph, by their value names.
    pub constants: HashMap<&'m str, &'m TensorProto>,
    /// Stored weights that produce the elements of axes.
    pub producers: Vec<Producer<'m>>,
    /// Stored weights that sum over axes.
    pub consumers: Vec<Consumer<'m>>,
    /// Numbers in the graph that must be updated after a cut.
    pub follows: Vec<Follow<'m>>,
    /// Opset version of the default domain.
    pub opset: i64,
    /// Index of the current node.
    pub at: u32,
    /// Indices of the nodes without a rule or whose rule failed, with the reasons.
    pub verdicts: Vec<(u32, Reason)>,
    /// Reason why the shape of a value is unknown, for each such value.
    pub lost: HashMap<&'m str, Reason>,
    /// Indices of the nodes in topological order.
    pub order: Vec<usize>,
    /// Index of the node that produces each value.
    pub producers_of: HashMap<&'m str, usize>,
    /// Indices of the nodes that read each value.
    pub consumers_of: HashMap<&'m str, Vec<usize>>,
    /// Additional knowledge about the model.
    pub(super) known: &'m Known,
    pub(super) sizes: Sizes<'m>,
}

impl<'m> Analysis<'m> {
    /// Returns the position of each node in topological order.
    pub fn places(&self) -> Vec<usize> {
        let mut place = vec![0usize; self.order.len()];
        self.order.iter().enumerate().for_each(|(at, node)| place[*node] = at);
        place
    }

    /// Returns the dependencies of the main graph, with additional knowledge in `known`. The time is linear in the
    /// sizes of the axes; weights are not read. Fails with `Unsupported` for opsets before 7, and if the nodes form a
    /// cycle.
    pub fn new(model: &'m Model, known: &'m Known) -> Result<Analysis<'m>> {
        let graph = model.graph();
        let opset = model.opset();
        if opset < 7 {
            bail!(Unsupported, "opset {opset} is too old for structured pruning; 7 or later is required");
        }
        let mut analysis = Analysis {
            graph,
            axes: Axes::default(),
            values: HashMap::new(),
            constants: HashMap::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            follows: Vec::new(),
            opset,
            at: 0,
            verdicts: Vec::new(),
            lost: HashMap::new(),
            order: topological(&graph.node)?,
            producers_of: order::producers(&graph.node),
            consumers_of: order::consumers(&graph.node),
            known,
            sizes: Sizes::new(model, known.long),
        };
        let inputs = analysis.inputs();
        analysis.initializers(&inputs);
        for at in 0..analysis.order.len() {
            analysis.node(analysis.order[at]);
        }
        analysis.outputs();
        analysis.shapes_that_vary();
        Ok(analysis)
    }

    /// Adds the inputs of the graph, and returns their names.
    fn inputs(&mut self) -> Vec<&'m str> {
        let fixed = Axis::Fixed(Reason::new(None, "the axis belongs to an input of the model"));
        let mut names = Vec::new();
        for info in &self.graph.input {
            let Some(name) = info.name.as_deref() else { continue };
            names.push(name);
            let Some(dims) = self.sizes.of(info) else {
                let reason = Reason { node: None, text: "an input of the model has no shape", lost: true };
                self.lost.insert(name, reason);
                continue;
            };
            let heads = self.sizes.cache(name);
            let mut axes = vec![fixed; dims.len()];
            if let Some(heads) = heads.filter(|heads| *heads < dims.len()) {
                axes[heads] = self.axes.add(dims[heads], None);
                self.follows.push(Follow::Declared { value: name });
            }
            self.values.insert(name, Value { dims, axes, ints: None, constant: None });
        }
        names
    }

    fn initializers(&mut self, inputs: &[&str]) {
        for tensor in &self.graph.initializer {
            let Some(name) = tensor.name.as_deref() else { continue };
            let overridable = inputs.contains(&name);
            self.constant(name, tensor, overridable);
        }
    }

    /// Adds a constant with its name. Every axis of a float constant can be cut, unless the constant is `overridable`,
    /// which means that a caller may give it another value.
    pub fn constant(&mut self, name: &'m str, tensor: &'m TensorProto, overridable: bool) {
        let dims: Vec<Dim> = tensor.dims.iter().map(|size| [*size; 2]).collect();
        let dtype = tensor.dtype();
        let cut = dtype.is_some_and(DataType::is_float) && !overridable;
        let text = if overridable {
            "a caller may give it another value"
        } else {
            "a constant is not float, like the weights of a quantized model"
        };
        let fixed = Axis::Fixed(Reason::new(None, text));
        let axes = dims.iter().map(|dim| if cut { self.axes.add(*dim, None) } else { fixed }).collect();
        let ints = if overridable { None } else { super::sizes::ints_of(tensor) };
        self.constants.insert(name, tensor);
        self.values.insert(name, Value { dims, axes, ints, constant: Some(name) });
    }

    fn node(&mut self, index: usize) {
        let node = &self.graph.node[index];
        self.at = index as u32;
        if node.is("Constant") && self.constant_node(node) {
            return;
        }
        let known = self.follows.len();
        let verdict = if subgraphs(node).next().is_some() {
            Err("it has a subgraph, and subgraphs are not pruned")
        } else {
            rules::judge(self, node)
        };
        if let Err(text) = verdict {
            self.give_up(node, text);
        }
        self.numbers(node, known);
        self.told(node);
    }

    /// Adds a `Constant` node with a tensor or integers. Returns `false` if the node has neither.
    fn constant_node(&mut self, node: &'m NodeProto) -> bool {
        let Some(name) = node.output.first() else { return false };
        let value = node.attribute.iter().find(|a| a.kind == Some(attribute_kind::TENSOR));
        if let Some(tensor) = value.and_then(|v| v.t.as_deref()) {
            self.constant(name, tensor, false);
            return true;
        }
        let ints = match (node.attribute("value_ints"), node.attribute("value_int")) {
            (Some(list), _) => list.ints.clone(),
            (None, Some(one)) => vec![one.i.unwrap_or(0)],
            _ => return false,
        };
        let list = node.attribute("value_ints").is_some();
        let why = self.fixed("it is a list of integers");
        let ints: Vec<Int> = ints.iter().map(|v| Int::constant([*v; 2])).collect();
        let (dims, axes) = if list { (vec![[ints.len() as i64; 2]], vec![why]) } else { (Vec::new(), Vec::new()) };
        self.values.insert(name, Value { dims, axes, ints: Some(ints), constant: None });
        true
    }

    /// Blocks all values that a node reads. The shapes of its outputs are those that the model declares or ONNX Runtime
    /// infers.
    fn give_up(&mut self, node: &'m NodeProto, text: &'static str) {
        let before = reads(node).into_iter().find_map(|name| self.lost.get(name).copied());
        let reason = before.filter(|_| text == LOST).unwrap_or_else(|| self.reason(text));
        self.verdicts.push((self.at, reason));
        for name in reads(node).into_iter().chain(node.output.iter().map(String::as_str)) {
            self.block_all(name, reason);
        }
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            match self.sizes.declared(name).or_else(|| self.known.shape(name)) {
                Some(dims) => {
                    let axes = vec![Axis::Fixed(reason); dims.len()];
                    self.values.insert(name, Value { dims, axes, ints: None, constant: None });
                }
                None => {
                    self.values.remove(name.as_str());
                    self.lost.insert(name, Reason { lost: true, ..reason });
                }
            }
        }
    }

    /// Sets the integers that ONNX Runtime inferred for the outputs of a node.
    fn told(&mut self, node: &'m NodeProto) {
        for name in &node.output {
            if let (Some(value), Some(ints)) = (self.values.get_mut(name.as_str()), self.known.ints(name))
                && value.ints.is_none()
            {
                value.ints = Some(ints);
            }
        }
    }

    /// Blocks all values that the current node reads, and records the reason. Its outputs are not blocked.
    pub fn refuse(&mut self, node: &'m NodeProto, text: &'static str) {
        let reason = self.reason(text);
        self.verdicts.push((self.at, reason));
        reads(node).into_iter().for_each(|name| self.block_all(name, reason));
    }

    fn block_all(&mut self, name: &str, reason: Reason) {
        if let Some(value) = self.values.get(name) {
            value.axes.iter().for_each(|axis| self.axes.block(*axis, reason));
        }
    }

    /// Blocks the axes of the model's outputs, except the heads of a decoder's cache.
    fn outputs(&mut self) {
        let reason = Reason::new(None, "the axis belongs to an output of the model");
        for output in &self.graph.output {
            let Some(name) = output.name.as_deref() else { continue };
            let cache = self.sizes.cache(name);
            self.hold(name, reason);
            let Some(value) = self.values.get(name) else { continue };
            for (index, axis) in value.axes.iter().enumerate() {
                if cache != Some(index) {
                    self.axes.block(*axis, reason);
                }
            }
            if cache.is_some() {
                self.follows.push(Follow::Declared { value: name });
            }
        }
    }

    /// Returns a reason that names the current node.
    pub fn reason(&self, text: &'static str) -> Reason {
        Reason::new(Some(self.at), text)
    }

    /// Returns an axis that cannot be cut because of the current node.
    pub fn fixed(&self, text: &'static str) -> Axis {
        Axis::Fixed(self.reason(text))
    }

    /// Blocks an axis because of the current node.
    pub fn block(&mut self, axis: Axis, text: &'static str) {
        let reason = self.reason(text);
        self.axes.block(axis, reason);
    }

    /// Links two axes of the current node, and returns the axis that stands for both.
    pub fn link(&mut self, a: Axis, b: Axis) -> Axis {
        let reason = self.reason("it joins axes of different sizes");
        self.axes.link(a, b, reason)
    }

    /// Returns the value of the input `index`. Fails if its shape is unknown.
    pub fn input(&self, node: &'m NodeProto, index: usize) -> Judged<&Value<'m>> {
        let name = node.input_at(index).ok_or("it lacks an input")?;
        self.values.get(name).ok_or(LOST)
    }

    /// Returns the value of the input `index`; `None` if the input is omitted. Fails if its shape is unknown.
    pub fn optional(&self, node: &'m NodeProto, index: usize) -> Judged<Option<Value<'m>>> {
        match node.input_at(index) {
            None => Ok(None),
            Some(_) => self.input(node, index).map(|value| Some(value.clone())),
        }
    }

    /// Returns the integers that are the attribute `name` of a node in older opsets, and its input `index` in newer
    /// ones; `None` if it has neither. Fails if the elements of the input are not known.
    pub fn list(&self, node: &'m NodeProto, name: &str, index: usize) -> Judged<Option<Vec<Int>>> {
        if let Some(attribute) = node.attribute(name) {
            return Ok(Some(attribute.ints.iter().map(|v| Int::constant([*v; 2])).collect()));
        }
        match self.optional(node, index)? {
            None => Ok(None),
            Some(value) => value.ints.map(Some).ok_or(COMPUTED),
        }
    }

    /// Returns the integers of [`Analysis::list`]. Fails if they depend on the inputs of a run.
    pub fn fixed_list(&self, node: &'m NodeProto, name: &str, index: usize) -> Judged<Option<Vec<i64>>> {
        let Some(list) = self.list(node, name, index)? else { return Ok(None) };
        let one = |int: &Int| {
            if int.values[0] == int.values[1] { Ok(int.values[0]) } else { Err("its parameters are not constant") }
        };
        list.iter().map(one).collect::<Judged<_>>().map(Some)
    }

    /// Sets the dimensions and axes of the output `index` of a node.
    pub fn set(&mut self, node: &'m NodeProto, index: usize, dims: Vec<Dim>, axes: Vec<Axis>) {
        if let Some(name) = node.output.get(index).filter(|name| !name.is_empty()) {
            self.values.insert(name, Value { dims, axes, ints: None, constant: None });
        }
    }

    /// Sets the elements of the first output of a node, whose dimensions are already set.
    pub fn set_ints(&mut self, node: &'m NodeProto, ints: Option<Vec<Int>>) {
        if let Some(value) = node.output.first().and_then(|name| self.values.get_mut(name.as_str())) {
            value.ints = ints;
        }
    }
}

/// Returns the index of a dimension; a negative `axis` counts from the end.
pub fn axis_at(axis: i64, rank: usize) -> Judged<usize> {
    let at = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(at).ok().filter(|at| *at < rank).ok_or("its axis does not exist")
}
