//! Selection of the nodes that compute with bytes (uint8 activations), and of the quantized values between them.
//!
//! Nodes with a weight (`Conv`, `MatMul`, `Gemm`) are selected by themselves. Others are selected where their inputs
//! are quantized anyway and selected nodes read their outputs: see [`Selection::settle`].

use super::operand;
use super::operators::{self, Rule};
use crate::error::{Result, bail};
use crate::graph::constants::{Constant, Matrix};
use crate::graph::quantized::has_quantized_weights;
use crate::graph::select::{Fit, Selector};
use crate::graph::{Producer, Use, View};
use crate::model::Model;
use crate::onnx::dtype::{DataType, element_count};
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::quantize::QuantizeOptions;
use crate::quantize::logarithm;
use crate::quantize::plan::Channel;
use crate::quantize::planner::{self, LEFT, WEIGHTED};
use crate::quantize::stored;
use crate::report::{NodeReport, report_of};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The reason why a node inside a subgraph or function stays float.
pub const INSIDE: &str = "is inside a subgraph or function";
/// The opset from which on `QuantizeLinear` exists.
pub const OPSET: i64 = 10;
/// The opset from which on `DequantizeLinear` supports channels.
pub const CHANNELS_OPSET: i64 = 13;

/// The role of a selected node.
#[derive(Clone)]
pub enum Role<'a> {
    /// The node applies a weight.
    Weighted(Weighted<'a>),
    /// The node has no weight; it computes with bytes because its neighbours do.
    Follower(Rule),
}

/// A node that applies a weight to its first input.
#[derive(Clone)]
pub struct Weighted<'a> {
    /// Index of the weight in [`Selection::weights`].
    pub weight: usize,
    /// Weight in the form in which the node reads it.
    pub constant: Constant<'a>,
    /// Constant with the bias, and its values.
    pub bias: Option<(Constant<'a>, Vec<f32>)>,
    /// Axis of the output channels of the weight as the node reads it.
    pub axis: i64,
}

/// A weight to quantize; several nodes may share it. Fields without documentation are as in `plan::Weight`.
pub struct Planned<'a> {
    /// Weight as a matrix: `[outputs, rest]` for `Conv`, otherwise as stored.
    pub matrix: Matrix,
    pub channel: Channel,
    pub transpose: bool,
    pub tensor: &'a TensorProto,
    pub name: &'a str,
    /// Dimensions of the weight as the nodes read it.
    pub dims: Vec<i64>,
}

/// The nodes of the main graph that will compute with bytes (`chosen`, by index), and the reasons why other nodes will
/// not (`left`).
pub struct Selection<'v, 'a> {
    pub view: &'v View<'a>,
    pub chosen: BTreeMap<usize, Role<'a>>,
    pub weights: Vec<Planned<'a>>,
    pub left: Vec<(usize, usize, NodeReport)>,
    /// Opset of the model.
    pub opset: i64,
    /// Names of `MatMul` nodes whose bias is the constant that the following `Add` adds.
    pub biased: HashSet<String>,
    shared: HashMap<(&'a str, Channel, bool, usize), usize>,
}

/// The decision on a node. The error is the reason why it stays float.
type Judged<T> = std::result::Result<T, String>;

/// Returns the selected nodes. `banned` are nodes that cannot be quantized, each with the reason. Fails with
/// `InvalidArgument` for an invalid pattern, or if nothing that can be quantized matches `include`, and with
/// `Unsupported` for an old opset.
pub fn select<'v, 'a>(
    view: &'v View<'a>,
    model: &Model,
    options: &QuantizeOptions,
    banned: &HashMap<usize, String>,
) -> Result<Selection<'v, 'a>> {
    let opset = model.opset();
    let (include, exclude) = (Selector::new(&options.include, Fit::Name)?, Selector::new(&options.exclude, Fit::Name)?);
    let mut selection = Selection {
        view,
        chosen: BTreeMap::new(),
        weights: Vec::new(),
        left: Vec::new(),
        opset,
        biased: HashSet::new(),
        shared: HashMap::new(),
    };
    let mut included = 0;
    for (body, content) in view.bodies.iter().enumerate() {
        for (index, node) in content.nodes.iter().enumerate() {
            let mut verdict = |selection: &mut Selection<'v, 'a>| {
                let Some((constant, weighted)) = selection.candidate(body, node, options)? else { return Ok(None) };
                let names = [Some(node.label()), constant.as_deref()].into_iter().flatten().collect::<Vec<_>>();
                if !include.is_empty() && !include.matches(&names) {
                    return Err("not included".to_owned());
                }
                included += 1;
                if exclude.matches(&names) {
                    return Err("excluded".to_owned());
                }
                match banned.get(&index).filter(|_| body == 0) {
                    Some(reason) => Err(reason.clone()),
                    None => Ok(Some(weighted)),
                }
            };
            match verdict(&mut selection) {
                Ok(Some(role)) => {
                    selection.chosen.insert(index, role);
                }
                Ok(None) => {}
                // Operators without a weight are many, and the reason why one of them stayed float is of little use.
                Err(_) if operators::rule(node, opset).is_some() && !banned.contains_key(&index) => {}
                Err(reason) => selection.left.push((body, index, report_of(node, LEFT, reason))),
            }
        }
    }
    if included == 0 && !options.include.is_empty() {
        bail!(InvalidArgument, "no node that can be quantized matches {}", options.include.join(", "));
    }
    if opset < OPSET && !selection.weights.is_empty() {
        bail!(Unsupported, "static quantization needs opset {OPSET}; the model has {opset}");
    }
    selection.settle();
    selection.forget_unused();
    Ok(selection)
}

impl<'a> Selection<'_, 'a> {
    /// Returns the possible role of a node, and the name of its weight if it has one; `None` for a node without a role.
    fn candidate(
        &mut self,
        body: usize,
        node: &'a NodeProto,
        options: &QuantizeOptions,
    ) -> Judged<Option<(Option<String>, Role<'a>)>> {
        if has_quantized_weights(node) {
            return Err("is already quantized".to_owned());
        }
        if !(node.is("Conv") || node.is("MatMul") || node.is("Gemm")) {
            return self.other(body, node, options);
        }
        let Some(name) = node.input_at(1) else { return Ok(None) };
        // If the weight or bias is an optional input, the input is removed as well.
        let Some(constant) = self.view.constant_or_default(body, name) else {
            return Err(self.why_not_constant(body, node, name));
        };
        if body != 0 {
            return Err(INSIDE.to_owned());
        }
        self.alone(&constant)?;
        if constant.dtype != DataType::Float32.to_onnx() {
            let found = DataType::from_onnx(constant.dtype).map_or("unknown", DataType::name);
            return Err(format!("the activations are {found}; integer kernels with fixed scales accept only float32"));
        }
        let elements = element_count(&constant.tensor.dims).unwrap_or(0);
        // The kernel of a convolution is used at every position of an image: its size does not indicate its cost.
        if elements < options.min_elements.max(1) && !node.is("Conv") {
            return Err(format!("the weight has only {elements} elements"));
        }
        if logarithm::leaves(self.view, body, node, options) {
            return Err(logarithm::REASON.to_owned());
        }
        let bias = self.bias(body, node)?;
        let (planned, axis) = self.planned(node, &constant, options)?;
        let key = (constant.name, planned.channel, planned.transpose, planned.dims.len());
        let weights = &mut self.weights;
        let weight = *self.shared.entry(key).or_insert_with(|| {
            weights.push(planned);
            weights.len() - 1
        });
        let name = Some(constant.name.to_owned());
        Ok(Some((name, Role::Weighted(Weighted { weight, constant, bias, axis }))))
    }

    fn other(
        &self,
        body: usize,
        node: &'a NodeProto,
        options: &QuantizeOptions,
    ) -> Judged<Option<(Option<String>, Role<'a>)>> {
        if let Some(rule) = operators::rule(node, self.opset).filter(|_| body == 0) {
            // Every range includes zero: codes cannot saturate at a lower bound above or an upper bound below zero.
            let known = rule != Rule::Bound
                || operators::bounds(self.view, node).is_some_and(|(low, high)| low <= 0.0 && high >= 0.0);
            return Ok(known.then_some((None, Role::Follower(rule))));
        }
        let worth = |t: &TensorProto| {
            planner::is_float(t) && t.dims.len() >= 2 && element_count(&t.dims).unwrap_or(0) >= options.min_elements
        };
        let holds = WEIGHTED.contains(&node.op())
            && node.input.iter().any(|name| self.view.constant(body, name).is_some_and(|c| worth(c.tensor)));
        if holds { Err(format!("{} has no integer kernel with fixed scales", node.op())) } else { Ok(None) }
    }

    fn why_not_constant(&self, body: usize, node: &NodeProto, name: &str) -> String {
        if let Some((owner, Producer::Node(index))) = self.view.producer(body, name)
            && self.view.node(owner, index).is("DequantizeLinear")
        {
            return "is already quantized".to_owned();
        }
        if stored::already(self.view, body, name) {
            return stored::ALREADY.to_owned();
        }
        self.view.why_not_constant(body, node)
    }

    /// Returns the planned weight and the axis of its output channels.
    fn planned(
        &self,
        node: &NodeProto,
        constant: &Constant<'a>,
        options: &QuantizeOptions,
    ) -> Judged<(Planned<'a>, i64)> {
        let tensor = constant.tensor;
        // `QLinearConv` supported channels earlier than `DequantizeLinear`.
        let per_channel = options.per_channel && (self.opset >= CHANNELS_OPSET || node.is("Conv"));
        if node.is("Conv") {
            let &[outputs, ref rest @ ..] = tensor.dims.as_slice() else {
                return Err("the weight is a scalar".to_owned());
            };
            if constant.transposed || !(2..=4).contains(&rest.len()) {
                return Err(format!("the weight has {} dimensions", tensor.dims.len()));
            }
            let flat = element_count(rest).map_err(|e| e.message().to_owned())?;
            let matrix = Matrix::shaped(tensor, outputs, flat as i64).map_err(|e| e.message().to_owned())?;
            let channel = if per_channel { Channel::Row } else { Channel::All };
            let dims = tensor.dims.clone();
            return Ok((Planned { matrix, channel, transpose: false, tensor, name: constant.name, dims }, 0));
        }
        let matrix = Matrix::new(tensor).map_err(|e| e.message().to_owned())?;
        let axis = if node.is("Gemm") && node.int("transB", 0) != 0 { 0 } else { 1 };
        let channel = match (per_channel, (axis == 0) != constant.transposed) {
            (false, _) => Channel::All,
            (true, true) => Channel::Row,
            (true, false) => Channel::Column,
        };
        let mut dims = tensor.dims.clone();
        if constant.transposed {
            dims.reverse();
        }
        let transpose = constant.transposed;
        Ok((Planned { matrix, channel, transpose, tensor, name: constant.name, dims }, axis))
    }

    /// Removes weights that no selected node applies.
    fn forget_unused(&mut self) {
        let mut places: HashMap<usize, usize> = HashMap::new();
        for role in self.chosen.values_mut() {
            if let Role::Weighted(weighted) = role {
                let next = places.len();
                weighted.weight = *places.entry(weighted.weight).or_insert(next);
            }
        }
        let mut kept: Vec<(usize, Planned<'a>)> = std::mem::take(&mut self.weights)
            .into_iter()
            .enumerate()
            .filter_map(|(old, planned)| Some((*places.get(&old)?, planned)))
            .collect();
        kept.sort_by_key(|(place, _)| *place);
        self.weights = kept.into_iter().map(|(_, planned)| planned).collect();
    }

    /// Removes followers until each has quantized inputs and a reader of its quantized output.
    fn settle(&mut self) {
        loop {
            let drop: Vec<usize> =
                self.chosen.iter().filter(|(i, role)| !self.holds(**i, role)).map(|(i, _)| *i).collect();
            if drop.is_empty() {
                return;
            }
            drop.iter().for_each(|index| drop_node(&mut self.chosen, *index));
        }
    }

    fn holds(&self, index: usize, role: &Role<'a>) -> bool {
        let Role::Follower(rule) = role else { return true };
        let node = self.view.node(0, index);
        let inputs = || operators::data_inputs(node, *rule).map(|input| node.input[input].as_str());
        let constant = |name: &str| operand::constant(self.view, node, name).is_some();
        let given = inputs().all(|name| self.has_bytes(name) || *rule == Rule::Binary && constant(name));
        let some = inputs().any(|name| self.has_bytes(name));
        if !(given && some) {
            return false;
        }
        match rule {
            Rule::Bound => self.is_bound(index),
            // An added constant is the bias of the preceding product, which is better kept in float.
            Rule::Binary if inputs().any(constant) && inputs().any(|name| self.made_by_product(name)) => false,
            _ => node.output.iter().any(|output| self.wanted(output)),
        }
    }

    /// Returns whether a `Relu` or `Clip` can be removed: a selected node that computes new codes (not with
    /// [`Rule::Same`] or [`Rule::Bound`]) must produce its input, and no other node may read this input. Unless the
    /// producer is a `Conv`, a selected node must also read the output in quantized form.
    fn is_bound(&self, index: usize) -> bool {
        let node = self.view.node(0, index);
        let alone = self.view.uses(0, &node.input[0]).len() == 1;
        let Some((0, Producer::Node(before))) = self.view.producer(0, &node.input[0]) else { return false };
        match self.chosen.get(&before) {
            Some(Role::Follower(Rule::Same | Rule::Bound)) | None => false,
            Some(Role::Weighted(_)) if self.view.node(0, before).is("Conv") => alone,
            Some(_) => alone && self.wanted(&node.output[0]),
        }
    }

    fn made_by_product(&self, name: &str) -> bool {
        let is_product = |index| matches!(self.view.node(0, index).op(), "MatMul" | "Gemm");
        matches!(self.view.producer(0, name), Some((0, Producer::Node(index))) if is_product(index))
    }

    /// Returns whether a value is quantized, because a selected node produces it, or a node with a weight reads it.
    fn has_bytes(&self, name: &str) -> bool {
        let made = matches!(self.view.producer(0, name), Some((0, Producer::Node(i))) if self.chosen.contains_key(&i));
        made || self.readers(name).any(|(index, _)| matches!(self.chosen.get(&index), Some(Role::Weighted(_))))
    }

    /// Returns whether a selected node reads a value in quantized form. A `Relu` or `Clip` with [`Rule::Bound`] counts
    /// only if its output is wanted.
    pub fn wanted(&self, name: &str) -> bool {
        self.readers(name).any(|(index, input)| {
            self.reads_bytes(index, input)
                && match self.chosen.get(&index) {
                    Some(Role::Follower(Rule::Bound)) => {
                        self.view.node(0, index).output.iter().any(|output| self.wanted(output))
                    }
                    _ => true,
                }
        })
    }

    /// Returns whether the input `input` of the node `index` is read in quantized form.
    pub fn reads_bytes(&self, index: usize, input: usize) -> bool {
        match self.chosen.get(&index) {
            None => false,
            Some(Role::Weighted(_)) => input == 0,
            Some(Role::Follower(rule)) => operators::data_inputs(self.view.node(0, index), *rule).contains(&input),
        }
    }

    fn readers(&self, name: &str) -> impl Iterator<Item = (usize, usize)> {
        self.view.uses(0, name).iter().filter_map(|place| match *place {
            Use::Node { body: 0, node, input } => Some((node, input)),
            _ => None,
        })
    }

    /// Returns whether an output of a selected node is quantized. `MatMul` and `Gemm` return floats if no reader needs
    /// bytes.
    pub fn gives_bytes(&self, index: usize, output: &str) -> bool {
        match self.chosen.get(&index) {
            Some(Role::Weighted(_)) => self.view.node(0, index).is("Conv") || self.wanted(output),
            Some(Role::Follower(_)) => true,
            None => false,
        }
    }

    /// Returns the selected `Relu` or `Clip` that reads `output` and is removed; `None` if there is none.
    pub fn bound_of(&self, output: &str) -> Option<usize> {
        let found = self.readers(output).find(|(i, _)| matches!(self.chosen.get(i), Some(Role::Follower(Rule::Bound))));
        found.map(|(index, _)| index)
    }

    /// Returns the quantized value for a node's output: the output of the `Relu` or `Clip` after it, if that is
    /// removed.
    pub fn value_of(&self, output: &str) -> String {
        let bound = self.bound_of(output);
        bound.map_or(output, |bound| &self.view.node(0, bound).output[0]).to_owned()
    }

    /// Returns whether an unselected node is the `Relu` or `Clip` that alone reads the float output of a selected
    /// product.
    pub fn bounds_product(&self, index: usize) -> bool {
        let node = self.view.node(0, index);
        if !(node.is("Relu") || node.is("Clip")) || self.view.uses(0, &node.input[0]).len() != 1 {
            return false;
        }
        let Some((0, Producer::Node(before))) = self.view.producer(0, &node.input[0]) else { return false };
        let product = self.view.node(0, before);
        matches!(self.chosen.get(&before), Some(Role::Weighted(_)))
            && !product.is("Conv")
            && !self.gives_bytes(before, &node.input[0])
    }

    /// Returns the names of all quantized values, in groups of values that share a scale.
    pub fn values(&self) -> Vec<Vec<String>> {
        let mut names: HashSet<&str> = HashSet::new();
        let mut same: Vec<(&str, &str)> = Vec::new();
        for (index, role) in &self.chosen {
            let node = self.view.node(0, *index);
            let constant = |name: &str| self.view.constant(0, name).is_some();
            if matches!(role, Role::Follower(Rule::Bound)) {
                names.extend(node.output.first().map(String::as_str));
                continue;
            }
            names.extend(
                (0..node.input.len())
                    .filter(|i| self.reads_bytes(*index, *i))
                    .map(|i| node.input[i].as_str())
                    .filter(|n| !constant(n)),
            );
            let outputs = node
                .output
                .iter()
                .filter(|o| !o.is_empty() && self.gives_bytes(*index, o) && self.bound_of(o).is_none());
            names.extend(outputs.map(String::as_str));
            if matches!(role, Role::Follower(Rule::Same)) {
                same.extend(node.output.iter().filter(|o| !o.is_empty()).map(|o| (node.input[0].as_str(), o.as_str())));
            }
        }
        let mut sorted: Vec<&str> = names.into_iter().collect();
        sorted.sort_unstable();
        let place: HashMap<&str, usize> = sorted.iter().enumerate().map(|(i, n)| (*n, i)).collect();
        let mut root: Vec<usize> = (0..sorted.len()).collect();
        let find = |root: &[usize], mut i: usize| {
            while root[i] != i {
                i = root[i];
            }
            i
        };
        for (a, b) in same {
            let (Some(a), Some(b)) = (place.get(a), place.get(b)) else { continue };
            let (a, b) = (find(&root, *a), find(&root, *b));
            root[a.max(b)] = a.min(b);
        }
        let mut groups: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (index, name) in sorted.iter().enumerate() {
            groups.entry(find(&root, index)).or_default().push((*name).to_owned());
        }
        groups.into_values().collect()
    }
}

fn drop_node(chosen: &mut BTreeMap<usize, Role<'_>>, index: usize) {
    chosen.remove(&index);
}
