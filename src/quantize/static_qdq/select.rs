//! Which nodes compute with bytes, and which values are bytes between them.
//!
//! Nodes with a weight (`Conv`, `MatMul`, `Gemm`) are worth it by themselves. The others follow where bytes come in
//! anyway and are wanted at the other end: see [`Selection::settle`].

use super::operand;
use super::operators::{self, Rule};
use crate::error::{Result, bail};
use crate::graph::constants::{Constant, Matrix};
use crate::graph::{Producer, Use, View};
use crate::model::Model;
use crate::onnx::dtype::{DataType, element_count};
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::quantize::QuantizeOptions;
use crate::quantize::planner::{self, LEFT, QUANTIZED_ALREADY, WEIGHTED, report_of};
use crate::quantize::weights::Channel;
use crate::report::NodeReport;
use globset::GlobSet;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Why a node is left that stands where no ranges are known.
pub const INSIDE: &str = "is inside a subgraph or function";
/// `QuantizeLinear` exists from here on.
pub const OPSET: i64 = 10;
/// `DequantizeLinear` knows channels from here on.
pub const CHANNELS_OPSET: i64 = 13;

/// What a chosen node is.
#[derive(Clone)]
pub enum Role<'a> {
    /// It applies a weight.
    Weighted(Weighted<'a>),
    /// It follows.
    Follower(Rule),
}

/// A node that applies a weight to its first input.
#[derive(Clone)]
pub struct Weighted<'a> {
    /// Index in [`Selection::weights`].
    pub weight: usize,
    /// As it is reached from the node.
    pub constant: Constant<'a>,
    /// The bias and where it comes from.
    pub bias: Option<(Constant<'a>, Vec<f32>)>,
    /// The axis of output channels as the node sees the weight.
    pub axis: i64,
}

/// A weight to quantize; several nodes may share it.
pub struct Planned<'a> {
    /// `[outputs, rest]` for `Conv`, else as stored.
    pub matrix: Matrix,
    pub channel: Channel,
    pub transpose: bool,
    pub tensor: &'a TensorProto,
    pub name: &'a str,
    /// As the nodes see it.
    pub dims: Vec<i64>,
}

/// Nodes of the main graph that will compute with bytes, and why others will not.
pub struct Selection<'v, 'a> {
    pub view: &'v View<'a>,
    pub chosen: BTreeMap<usize, Role<'a>>,
    pub weights: Vec<Planned<'a>>,
    pub left: Vec<(usize, usize, NodeReport)>,
    /// Of the model.
    pub opset: i64,
    /// Products whose sum with a constant takes that as their bias, by name.
    pub biased: HashSet<String>,
    shared: HashMap<(&'a str, Channel, bool, usize), usize>,
}

/// A verdict on one node; the error is the reason for leaving it.
type Judged<T> = std::result::Result<T, String>;

/// Chooses. `banned` are nodes that turned out not to work, with the reason.
pub fn select<'v, 'a>(
    view: &'v View<'a>,
    model: &Model,
    options: &QuantizeOptions,
    banned: &HashMap<usize, String>,
) -> Result<Selection<'v, 'a>> {
    let opset = model.opset();
    let (include, exclude) = (planner::globs(&options.include)?, planner::globs(&options.exclude)?);
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
                let matches = |globs: &GlobSet| {
                    globs.is_match(node.label()) || constant.as_deref().is_some_and(|name| globs.is_match(name))
                };
                if !options.include.is_empty() && !matches(&include) {
                    return Err("not included".to_owned());
                }
                included += 1;
                if matches(&exclude) {
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
                // Operators without a weight are many, and nobody asks why one of them stayed.
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
    /// A role for a node that could have one, and the name of its weight.
    fn candidate(
        &mut self,
        body: usize,
        node: &'a NodeProto,
        options: &QuantizeOptions,
    ) -> Judged<Option<(Option<String>, Role<'a>)>> {
        if QUANTIZED_ALREADY.contains(&node.op()) {
            return Err("is already quantized".to_owned());
        }
        if !(node.is("Conv") || node.is("MatMul") || node.is("Gemm")) {
            return self.other(body, node, options);
        }
        let Some(name) = node.input_at(1) else { return Ok(None) };
        // Of a weight or a bias that is an optional input, the input goes as well.
        let Some(constant) = self.view.constant_or_default(body, name) else {
            return Err(self.why_not_constant(body, node, name));
        };
        if body != 0 {
            return Err(INSIDE.to_owned());
        }
        self.alone(&constant)?;
        if constant.dtype != DataType::Float32.to_onnx() {
            let found = DataType::from_onnx(constant.dtype).map_or("unknown", DataType::name);
            return Err(format!("activations are {found}; kernels for fixed ranges take float32"));
        }
        let elements = element_count(&constant.tensor.dims).unwrap_or(0);
        // A kernel of a convolution is used at every place of a picture: its size says nothing.
        if elements < options.min_elements.max(1) && !node.is("Conv") {
            return Err(format!("the weight has only {elements} elements"));
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
            // A scale spans zero, so it can saturate at no bound on the far side of it.
            let known = rule != Rule::Bound
                || operators::bounds(self.view, node).is_some_and(|(low, high)| low <= 0.0 && high >= 0.0);
            return Ok(known.then_some((None, Role::Follower(rule))));
        }
        let worth = |t: &TensorProto| {
            planner::is_float(t) && t.dims.len() >= 2 && element_count(&t.dims).unwrap_or(0) >= options.min_elements
        };
        let holds = WEIGHTED.contains(&node.op())
            && node.input.iter().any(|name| self.view.constant(body, name).is_some_and(|c| worth(c.tensor)));
        if holds { Err(format!("{} has no kernel for fixed ranges", node.op())) } else { Ok(None) }
    }

    fn why_not_constant(&self, body: usize, node: &NodeProto, name: &str) -> String {
        if let Some((owner, Producer::Node(index))) = self.view.producer(body, name)
            && self.view.node(owner, index).is("DequantizeLinear")
        {
            return "is already quantized".to_owned();
        }
        match (node.op(), node.input_at(0).and_then(|first| self.view.constant(body, first))) {
            ("Conv", _) => "the weight is computed".to_owned(),
            (_, Some(_)) => "the constant is the left operand".to_owned(),
            (_, None) => "both operands are computed".to_owned(),
        }
    }

    /// The weight and the axis of its output channels.
    fn planned(
        &self,
        node: &NodeProto,
        constant: &Constant<'a>,
        options: &QuantizeOptions,
    ) -> Judged<(Planned<'a>, i64)> {
        let tensor = constant.tensor;
        // `QLinearConv` knew channels before `DequantizeLinear` did.
        let per_channel = options.per_channel && (self.opset >= CHANNELS_OPSET || node.is("Conv"));
        if node.is("Conv") {
            let &[outputs, ref rest @ ..] = tensor.dims.as_slice() else {
                return Err("the weight is a scalar".to_owned());
            };
            if constant.transposed || !(2..=4).contains(&rest.len()) {
                return Err(format!("the weight has {} dimensions", tensor.dims.len()));
            }
            let flat = element_count(rest).map_err(|e| e.message().to_owned())?;
            let flat = TensorProto { dims: vec![outputs, flat as i64], ..tensor.clone() };
            let matrix = Matrix::new(&flat).map_err(|e| e.message().to_owned())?;
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

    /// Keeps the weights that a chosen node applies.
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

    /// Drops followers until each has bytes at all its inputs and gives them to somebody who wants them.
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
            // An added constant is the bias of the product before it, which is better kept in float.
            Rule::Binary if inputs().any(constant) && inputs().any(|name| self.made_by_product(name)) => false,
            _ => node.output.iter().any(|output| self.wanted(output)),
        }
    }

    /// Whether a `Relu` or `Clip` can go: nobody else sees what it is given, and it is given fresh sums.
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
        let producer = self.view.producer(0, name);
        matches!(producer, Some((0, Producer::Node(index))) if matches!(self.view.node(0, index).op(), "MatMul" | "Gemm"))
    }

    /// Whether a value is bytes: a chosen node makes it, or a node with a weight reads it.
    fn has_bytes(&self, name: &str) -> bool {
        let made = matches!(self.view.producer(0, name), Some((0, Producer::Node(i))) if self.chosen.contains_key(&i));
        made || self.readers(name).any(|(index, _)| matches!(self.chosen.get(&index), Some(Role::Weighted(_))))
    }

    /// Whether a chosen node reads a value as bytes.
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

    /// Whether input `input` of node `index` takes bytes.
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

    /// Whether an output of a chosen node is bytes. Products give floats where nobody wants bytes.
    pub fn gives_bytes(&self, index: usize, output: &str) -> bool {
        match self.chosen.get(&index) {
            Some(Role::Weighted(_)) => self.view.node(0, index).is("Conv") || self.wanted(output),
            Some(Role::Follower(_)) => true,
            None => false,
        }
    }

    /// The node that takes the bounds of a `Relu` or `Clip` upon itself by giving its output.
    pub fn bound_of(&self, output: &str) -> Option<usize> {
        let found = self.readers(output).find(|(i, _)| matches!(self.chosen.get(i), Some(Role::Follower(Rule::Bound))));
        found.map(|(index, _)| index)
    }

    /// The value that an output of a node is as bytes: that of the `Relu` or `Clip` behind it, if it takes its place.
    pub fn value_of(&self, output: &str) -> String {
        let bound = self.bound_of(output);
        bound.map_or(output, |bound| &self.view.node(0, bound).output[0]).to_owned()
    }

    /// Whether a node that is not chosen is the `Relu` or `Clip` that alone reads what a chosen product gives as floats.
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

    /// All values that are bytes, and with each the ones that share its scale.
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
