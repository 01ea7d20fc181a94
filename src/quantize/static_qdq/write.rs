//! Rewrites the graph: one `QuantizeLinear` after each quantized value, one `DequantizeLinear` before each node that
//! reads it.
//!
//! ```text
//! y = Relu(Conv(x, W, b))  ->  xq = Quantize(x)                       once for all readers
//!                              yr = Conv(Dequantize(xq), Dequantize(W8), Dequantize(b32))
//!                              yq = Quantize(yr)                      saturates where Relu did
//!                              y  = Dequantize(yq)                    for readers of floats, if there are any
//! ```

use super::operators::{self, Rule};
use super::scales::{self, BIAS_TYPE, Scale};
use super::select::{CHANNELS_OPSET, Role, Selection, Weighted};
use crate::calibrate::Range;
use crate::graph::Use;
use crate::graph::builder::NodeBuilder;
use crate::graph::constants::Constant;
use crate::graph::dead::{Policy, eliminate};
use crate::graph::edit::{self, Names, float_tensor, int_attribute};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::quantize::plan::Channel;
use crate::quantize::planner::QUANTIZED;
use crate::quantize::weights::Int8Matrix;
use crate::report::{NodeReport, report_of};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// The names of a quantized value, its scale and its zero point, with the numbers of the scale and zero point.
#[derive(Clone)]
struct Coded {
    bytes: String,
    scale: String,
    zero: String,
    values: Scale,
}

/// The names of the constants of a weight.
struct Constants {
    codes: String,
    scales: String,
    zeros: String,
}

/// Returns the rewritten model and the report on each node that is quantized or stays float for a reason. `groups` are
/// the quantized values with their ranges; the values of a group share a scale. `weights` are those of the selection.
pub fn write(
    original: &ModelProto,
    selection: &Selection<'_, '_>,
    groups: &[(Vec<String>, Range)],
    mut weights: Vec<Int8Matrix>,
) -> (ModelProto, Vec<NodeReport>) {
    let mut names = Names::of(original);
    let mut tensors = Vec::new();
    let coded = code_values(groups, &mut names, &mut tensors);
    make_room(selection, &coded, &mut weights);
    let constants: Vec<Constants> = selection
        .weights
        .iter()
        .zip(&weights)
        .map(|(w, m)| constants_of(w.name, &w.dims, m, &mut names, &mut tensors))
        .collect();
    let mut model = original.clone();
    let mut reports: Vec<(usize, usize, NodeReport)> = selection.left.clone();
    if let Some(graph) = &mut model.graph {
        let old = std::mem::take(&mut graph.node);
        let emit = NodeBuilder::replacing(names);
        let mut write = Write {
            selection,
            coded,
            weights,
            constants,
            emit,
            tensors,
            replaced: HashMap::new(),
            unread: HashSet::new(),
            reports: Vec::new(),
        };
        write.inputs(graph);
        for (index, node) in old.into_iter().enumerate() {
            write.node(index, node);
        }
        reports.append(&mut write.reports);
        graph.node = write.emit.nodes;
        graph.initializer.extend(write.tensors);
        eliminate(graph, Policy::Named(&write.unread));
    }
    edit::modernize_ir(&mut model);
    reports.sort_by_key(|(body, node, _)| (*body, *node));
    (model, reports.into_iter().map(|(_, _, report)| report).collect())
}

fn code_values(
    groups: &[(Vec<String>, Range)],
    names: &mut Names,
    tensors: &mut Vec<TensorProto>,
) -> HashMap<String, Coded> {
    let mut coded = HashMap::new();
    for (members, range) in groups {
        let values = Scale::of(*range);
        let Some(first) = members.first() else { continue };
        let (scale, zero) = (names.fresh(&format!("{first}_scale")), names.fresh(&format!("{first}_zero_point")));
        tensors.push(float_tensor(&scale, &[], &[values.scale]));
        tensors.push(edit::tensor(&zero, DataType::Uint8, &[], Bytes::from(vec![values.zero])));
        for name in members {
            let bytes = names.fresh(&format!("{name}_uint8"));
            coded.insert(name.clone(), Coded { bytes, scale: scale.clone(), zero: zero.clone(), values });
        }
    }
    coded
}

/// Increases scales of weights so that the bias of every node fits 32 bits.
fn make_room(selection: &Selection<'_, '_>, coded: &HashMap<String, Coded>, weights: &mut [Int8Matrix]) {
    for (index, role) in &selection.chosen {
        let Role::Weighted(weighted) = role else { continue };
        let node = selection.view.node(0, *index);
        let (Some(input), Some(values)) = (coded.get(&node.input[0]), selection.bias_of(*index, weighted)) else {
            continue;
        };
        let alpha = if node.is("Gemm") { node.float("alpha", 1.0) } else { 1.0 };
        let (_, channel) = selection.channels(weighted);
        let matrix = &mut weights[weighted.weight];
        // A bias of one value is added to all channels.
        let values = if values.len() == 1 { vec![values[0]; matrix.scales.len()] } else { values };
        scales::make_room(matrix, &values, input.values.scale * alpha, channel);
    }
}

fn constants_of(
    name: &str,
    dims: &[i64],
    matrix: &Int8Matrix,
    names: &mut Names,
    tensors: &mut Vec<TensorProto>,
) -> Constants {
    let [codes, scales, zeros] = ["int8", "scale", "zero_point"].map(|part| names.fresh(&format!("{name}_{part}")));
    let count = matrix.scales.len();
    let shape: &[i64] = if count == 1 { &[] } else { &[count as i64] };
    tensors.push(edit::tensor(&codes, DataType::Int8, dims, matrix.data.clone()));
    tensors.push(float_tensor(&scales, shape, &matrix.scales));
    tensors.push(edit::tensor(&zeros, DataType::Int8, shape, Bytes::from(vec![0; count])));
    Constants { codes, scales, zeros }
}

struct Write<'w, 'v, 'a> {
    selection: &'w Selection<'v, 'a>,
    coded: HashMap<String, Coded>,
    weights: Vec<Int8Matrix>,
    constants: Vec<Constants>,
    emit: NodeBuilder,
    tensors: Vec<TensorProto>,
    /// Input that is replaced in a later node, by the index of the node: the index of the input, and the name of its
    /// new value.
    replaced: HashMap<usize, (usize, String)>,
    /// Names of the constants that changed nodes no longer read.
    unread: HashSet<String>,
    reports: Vec<(usize, usize, NodeReport)>,
}

impl<'a> Write<'_, '_, 'a> {
    fn inputs(&mut self, graph: &GraphProto) {
        for name in graph.input.iter().filter_map(|input| input.name.as_deref()) {
            let of = NodeProto { name: Some(name.to_owned()), ..Default::default() };
            self.quantize(&of, name, name);
        }
    }

    fn node(&mut self, index: usize, node: NodeProto) {
        match self.selection.chosen.get(&index) {
            None => self.kept(index, node),
            Some(Role::Follower(Rule::Bound)) => {
                let reason = "the range of its output's scale replaces it".to_owned();
                self.reports.push((0, index, report_of(&node, QUANTIZED, reason)));
            }
            Some(role) => {
                let reason = self.changed(index, &node, role);
                self.reports.push((0, index, report_of(&node, QUANTIZED, reason)));
            }
        }
    }

    /// Writes a node that stays float.
    fn kept(&mut self, index: usize, mut node: NodeProto) {
        let outputs = node.output.clone();
        if let Some((input, value)) = self.replaced.remove(&index) {
            node.input[input] = value;
        }
        let otherwise = self.selection.bounds_product(index) && self.bounded(&node);
        if !otherwise && operators::pools_otherwise(&node) && self.coded.contains_key(&outputs[0]) {
            // A `Max` of one value is an identity that ONNX Runtime does not fuse. Between quantized values without it,
            // ONNX Runtime would select the integer kernel, which computes other results.
            let float = self.emit.at(&node).fresh("float");
            node.output[0].clone_from(&float);
            self.emit.nodes.push(node.clone());
            self.emit.at(&node).push("Max", &[&float], &[&outputs[0]]);
        } else if !otherwise {
            self.emit.nodes.push(node.clone());
        }
        outputs.iter().for_each(|output| self.quantize(&node, output, output));
    }

    /// Writes a `Relu` or `Clip` as `Max` and `Min`. ONNX Runtime would fuse a `Relu` or `Clip` with the product before
    /// it, and without a following `QuantizeLinear` leave both in float. Returns `false` if there are no bounds.
    fn bounded(&mut self, node: &NodeProto) -> bool {
        let Some((low, high)) = operators::bounds(self.selection.view, node) else { return false };
        let mut value = node.input[0].clone();
        let bounds: Vec<(&str, f32)> =
            [("Max", low), ("Min", high)].into_iter().filter(|(_, bound)| bound.is_finite()).collect();
        for (index, (op, bound)) in bounds.iter().enumerate() {
            let name = self.emit.names.fresh(&format!("{}_{op}_bound", node.label()));
            self.tensors.push(float_tensor(&name, &[], &[*bound]));
            value = match index + 1 == bounds.len() {
                false => self.emit.at(node).op(op, &[&value, &name]),
                true => {
                    self.emit.at(node).push(op, &[&value, &name], &[&node.output[0]]);
                    node.output[0].clone()
                }
            };
        }
        self.unread.extend(node.input.iter().skip(1).cloned());
        !bounds.is_empty()
    }

    /// Adds a `QuantizeLinear` for `value`, which is computed as `float`, if any reader uses the quantized form.
    fn quantize(&mut self, of: &NodeProto, float: &str, value: &str) {
        let Some(coded) = self.coded.get(value).cloned() else { return };
        self.emit.at(of).push("QuantizeLinear", &[float, &coded.scale, &coded.zero], &[&coded.bytes]);
    }

    fn changed(&mut self, index: usize, old: &NodeProto, role: &Role<'a>) -> String {
        if let Role::Weighted(weighted) = role
            && old.is("Conv")
            && self.selection.opset < CHANNELS_OPSET
            && self.integer_conv(old, weighted)
        {
            return self.describe(old, role, true);
        }
        if let Role::Follower(Rule::Gate) = role {
            return self.gate(old);
        }
        let mut node = old.clone();
        // The verification of kernels looks the node up by this name.
        node.name = Some(old.label().to_owned());
        for input in (0..old.input.len()).filter(|input| self.selection.reads_bytes(index, *input)) {
            let name = &old.input[input];
            node.input[input] = match self.coded.get(name).cloned() {
                Some(coded) => self.emit.at(old).op("DequantizeLinear", &[&coded.bytes, &coded.scale, &coded.zero]),
                None => self.operand(index, old, input),
            };
        }
        if let Role::Weighted(weighted) = role {
            self.weighted(index, old, &mut node, weighted);
        }
        let mut after = Vec::new();
        for (place, output) in old.output.iter().enumerate().filter(|(_, o)| !o.is_empty()) {
            if self.selection.gives_bytes(index, output) {
                let value = self.selection.value_of(output);
                node.output[place] = self.emit.names.fresh(&format!("{value}_float"));
                after.push((node.output[place].clone(), value));
            } else if self.coded.contains_key(output) {
                after.push((output.clone(), output.clone()));
            }
        }
        let integer = after.iter().any(|(float, value)| float != value);
        self.emit.nodes.push(node);
        for (float, value) in after {
            self.quantize(old, &float, &value);
            if float != value && self.has_float_readers(&value) {
                let Some(coded) = self.coded.get(&value).cloned() else { continue };
                self.emit.at(old).push("DequantizeLinear", &[&coded.bytes, &coded.scale, &coded.zero], &[&value]);
            }
        }
        self.describe(old, role, integer)
    }

    /// Adds `QLinearConv` itself, for opsets in which `DequantizeLinear` does not support channels. Returns `false`,
    /// and adds nothing, if the input or the output has no codes.
    fn integer_conv(&mut self, old: &NodeProto, weighted: &Weighted<'a>) -> bool {
        let value = self.selection.value_of(&old.output[0]);
        let (Some(x), Some(y)) = (self.coded.get(&old.input[0]).cloned(), self.coded.get(&value).cloned()) else {
            return false;
        };
        let Constants { codes, scales, zeros } = &self.constants[weighted.weight];
        let mut inputs = vec![&x.bytes, &x.scale, &x.zero, codes, scales, zeros, &y.scale, &y.zero];
        let bias = weighted.bias.as_ref().map(|(_, values)| {
            let (bytes, _) = scales::bias(values, x.values.scale, &self.weights[weighted.weight].scales);
            let name = self.emit.names.fresh(&format!("{}_int32", old.label()));
            self.tensors.push(edit::tensor(&name, BIAS_TYPE, &[values.len() as i64], bytes));
            name
        });
        inputs.extend(&bias);
        let inputs: Vec<&str> = inputs.into_iter().map(String::as_str).collect();
        let node = self.emit.at(old).push("QLinearConv", &inputs, &[&y.bytes]);
        node.name = Some(old.label().to_owned());
        node.attribute.clone_from(&old.attribute);
        if self.has_float_readers(&value) {
            self.emit.at(old).push("DequantizeLinear", &[&y.bytes, &y.scale, &y.zero], &[&value]);
        }
        self.forget(&old.input[1], &weighted.constant);
        if let Some((constant, _)) = &weighted.bias {
            self.forget(&old.input[2], constant);
        }
        true
    }

    /// Adds a quantized constant operand, and returns its name; returns the name of any other operand unchanged.
    fn operand(&mut self, index: usize, of: &NodeProto, input: usize) -> String {
        let name = &of.input[input];
        let Some((constant, scale, codes)) =
            self.selection.operand(index, input, &|name| self.coded.get(name).map(|coded| coded.values))
        else {
            return name.clone();
        };
        let [bytes, scale_name, zero] =
            ["uint8", "scale", "zero_point"].map(|p| self.emit.names.fresh(&format!("{name}_{p}")));
        self.tensors.push(edit::tensor(&bytes, DataType::Uint8, &constant.tensor.dims, codes.into()));
        self.tensors.push(float_tensor(&scale_name, &[], &[scale.scale]));
        self.tensors.push(edit::tensor(&zero, DataType::Uint8, &[], Bytes::from(vec![scale.zero])));
        self.forget(name, &constant);
        self.emit.at(of).op("DequantizeLinear", &[&bytes, &scale_name, &zero])
    }

    fn weighted(&mut self, index: usize, old: &NodeProto, node: &mut NodeProto, weighted: &Weighted<'a>) {
        let Constants { codes, scales, zeros } = &self.constants[weighted.weight];
        let per_channel = self.weights[weighted.weight].scales.len() > 1;
        let mut scales = scales.clone();
        let mut own: Vec<f32> = self.weights[weighted.weight].scales.clone();
        let alpha = if old.is("Gemm") { old.float("alpha", 1.0) } else { 1.0 };
        if alpha != 1.0 {
            own.iter_mut().for_each(|scale| *scale *= alpha);
            scales = self.emit.names.fresh(&format!("{}_scale", old.label()));
            let shape: &[i64] = if per_channel { &[own.len() as i64] } else { &[] };
            self.tensors.push(float_tensor(&scales, shape, &own));
        }
        let output = self.emit.at(old).fresh("DequantizeLinear");
        let dequantize = self.emit.at(old).push("DequantizeLinear", &[codes, &scales, zeros], &[&output]);
        if per_channel {
            dequantize.attribute = vec![int_attribute("axis", weighted.axis)];
        }
        node.input[1] = output;
        self.forget(&old.input[1], &weighted.constant);
        if old.is("Gemm") {
            node.attribute.retain(|a| !matches!(a.name.as_deref(), Some("alpha" | "beta")));
        }
        if let Some((constant, values)) = &weighted.bias {
            node.input[2] = self.bias(old, weighted, values, &own);
            self.forget(&old.input[2], constant);
        } else if let Some(addend) = self.selection.addend(index) {
            let bias = self.bias(old, weighted, &addend.values, &own);
            let name = self.selection.view.node(0, addend.node).input[addend.input].clone();
            self.replaced.insert(addend.node, (addend.input, bias));
            self.forget(&name, &addend.constant);
        }
    }

    /// Adds an int32 bias with the scales of the sums that it is added to, and returns the name of its value.
    fn bias(&mut self, old: &NodeProto, weighted: &Weighted<'a>, values: &[f32], own: &[f32]) -> String {
        let input = self.coded.get(&old.input[0]).map_or(1.0, |coded| coded.values.scale);
        let outputs = self.selection.channels(weighted).0;
        // A single value is the bias of every channel.
        let values = if values.len() == 1 { vec![values[0]; outputs] } else { values.to_vec() };
        let (bytes, scales) = scales::bias(&values, input, own);
        let [codes, scale] =
            ["int32", "bias_scale"].map(|part| self.emit.names.fresh(&format!("{}_{part}", old.label())));
        self.tensors.push(edit::tensor(&codes, BIAS_TYPE, &[values.len() as i64], bytes));
        let shape: &[i64] = if own.len() > 1 { &[scales.len() as i64] } else { &[] };
        self.tensors.push(float_tensor(&scale, shape, &scales));
        let output = self.emit.at(old).fresh("DequantizeLinear");
        let dequantize = self.emit.at(old).push("DequantizeLinear", &[&codes, &scale], &[&output]);
        if own.len() > 1 {
            dequantize.attribute = vec![int_attribute("axis", 0)];
        }
        output
    }

    /// Adds nodes that compute `HardSigmoid` as `alpha * min(max(x + beta / alpha, 0), 1 / alpha)`: a sum whose codes
    /// saturate, and whose readers scale it by `alpha`.
    fn gate(&mut self, old: &NodeProto) -> String {
        let (Some(x), Some(y)) = (self.coded.get(&old.input[0]).cloned(), self.coded.get(&old.output[0]).cloned())
        else {
            return String::new();
        };
        let (alpha, added) = operators::gate(old).unwrap_or((1.0, 0.0));
        let constant = Scale::of(Range { low: 0.0, high: added });
        let [codes, scale, zero, sum] = ["uint8", "scale", "zero_point", "sum_scale"]
            .map(|p| self.emit.names.fresh(&format!("{}_{p}", old.label())));
        self.tensors.push(edit::tensor(&codes, DataType::Uint8, &[], Bytes::from(vec![constant.code(added)])));
        self.tensors.push(float_tensor(&scale, &[], &[constant.scale]));
        self.tensors.push(edit::tensor(&zero, DataType::Uint8, &[], Bytes::from(vec![constant.zero])));
        self.tensors.push(float_tensor(&sum, &[], &[y.values.scale / alpha]));
        let first = self.emit.at(old).op("DequantizeLinear", &[&x.bytes, &x.scale, &x.zero]);
        let second = self.emit.at(old).op("DequantizeLinear", &[&codes, &scale, &zero]);
        let float = self.emit.at(old).fresh("Add");
        let mut node = edit::node("Add", &[&first, &second], &[&float]);
        node.name = Some(old.label().to_owned());
        self.emit.nodes.push(node);
        self.emit.at(old).push("QuantizeLinear", &[&float, &sum, &y.zero], &[&y.bytes]);
        if self.has_float_readers(&old.output[0]) {
            self.emit.at(old).push("DequantizeLinear", &[&y.bytes, &y.scale, &y.zero], &[&old.output[0]]);
        }
        "uint8 in and out (QLinearAdd)".to_owned()
    }

    fn forget(&mut self, name: &str, constant: &Constant<'_>) {
        self.unread.insert(name.to_owned());
        self.unread.insert(constant.name.to_owned());
        for (body, node) in constant.chain.iter().filter(|(body, _)| *body == 0) {
            self.unread.extend(self.selection.view.node(*body, *node).output.iter().cloned());
        }
    }

    fn has_float_readers(&self, value: &str) -> bool {
        let float = |place: &Use| match *place {
            Use::Node { body: 0, node, input } => !self.selection.reads_bytes(node, input),
            Use::Node { .. } | Use::Output { .. } => true,
        };
        let uses = self.selection.view.uses(0, value);
        uses.iter().any(float)
    }

    fn describe(&self, node: &NodeProto, role: &Role<'_>, integer: bool) -> String {
        let Role::Weighted(weighted) = role else {
            return match role {
                Role::Follower(Rule::Same) => "moves uint8, with the scale of its input".to_owned(),
                _ => format!("uint8 in and out (QLinear{})", node.op()),
            };
        };
        let channel = self.selection.weights[weighted.weight].channel;
        let per = if channel == Channel::All { "tensor" } else { "channel" };
        let form = match (node.op(), integer) {
            ("Conv", _) => "QLinearConv",
            ("Gemm", _) => "QGemm",
            (_, true) => "QLinearMatMul",
            (_, false) => "MatMulIntegerToFloat",
        };
        let output = if integer { "uint8" } else { "float" };
        let optional = if weighted.constant.overridable { "; the weight was also an optional input" } else { "" };
        format!("{form}, int8 weight per {per}, uint8 in, {output} out{optional}")
    }
}
