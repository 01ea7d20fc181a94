//! The plan of a quantization: the nodes that are quantized, in which form, and the reasons why others stay unchanged.

use super::logarithm;
use super::plan::Channel;
pub use super::plan::{Change, Form, Plan, Weight};
use super::stored;
use super::{QuantizeOptions, QuantizeType, ReduceRange};
use crate::error::{Result, bail};
use crate::graph::constants::{Constant, Matrix};
use crate::graph::quantized::{belongs_to_blocks, has_quantized_weights};
use crate::graph::select::{Fit, Pattern, Selector};
use crate::graph::{BodyId, Use, View};
use crate::model::Model;
use crate::onnx::dtype::{DataType, element_count};
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::platform::processor::int8_saturates;
pub use crate::report::LEFT;
use crate::report::report_of;
use std::collections::HashMap;

/// The value of `NodeReport.action` for a node that was changed.
pub const QUANTIZED: &str = "quantized";

/// The opset from which on `DynamicQuantizeLinear` and `MatMulInteger` exist; before it the fused operator of
/// com.microsoft is used.
const INTEGER_OPSET: i64 = 11;

/// The reason why a node whose attributes are not known stays unchanged.
const GIVEN: &str = "an attribute is set by the call of the function";

/// The operators with weights that are reported when they stay float.
pub(super) const WEIGHTED: [&str; 7] = ["Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Einsum", "Attention"];

/// The opset from which on `Mul` broadcasts by NumPy's rules.
const BROADCAST_OPSET: i64 = 7;

/// Returns the plan for all nodes of a model. Fails with `InvalidArgument` if the globs of `include` match no node, or
/// if an override matches no node that is quantized.
pub fn plan<'a>(view: &View<'a>, model: &Model, options: &QuantizeOptions) -> Result<Plan<'a>> {
    let mut planner = Planner {
        view,
        options,
        include: Selector::new(&options.include, Fit::Name)?,
        exclude: Selector::new(&options.exclude, Fit::Name)?,
        included: 0,
        overrides: (options.overrides.iter())
            .map(|o| Ok((Pattern::new(&o.pattern, Fit::Name)?, (o.bits, o.block_size))))
            .collect::<Result<_>>()?,
        opsets: opsets(model),
        shared: HashMap::new(),
        plan: Plan {
            weights: Vec::new(),
            changes: Vec::new(),
            stored: Vec::new(),
            left: Vec::new(),
            limit: limit(options),
        },
    };
    let mut tables = Vec::new();
    for (body, content) in view.bodies.iter().enumerate() {
        for (index, node) in content.nodes.iter().enumerate() {
            match planner.candidate(body, node) {
                Ok(Some((form, input, constant))) if form.is_table() => {
                    tables.push((body, index, form, input, constant));
                }
                Ok(Some((form, input, constant))) => planner.accept(body, index, form, input, constant),
                Ok(None) => {}
                Err(reason) => planner.leave(body, index, reason),
            }
        }
    }
    planner.tables(tables);
    planner.stored(model);
    if planner.included == 0 && !options.include.is_empty() {
        bail!(InvalidArgument, "no node matches {}; {}", options.include.join(", "), planner.examples());
    }
    if let Some(unused) = planner.overrides.iter().find(|(pattern, _)| !pattern.used) {
        let pattern = &unused.0.text;
        bail!(InvalidArgument, "no node that is quantized matches {pattern:?}; {}", planner.examples());
    }
    planner.plan.left.sort_by_key(|(body, node, _)| (*body, *node));
    Ok(planner.plan.keep_inputs(view))
}

struct Planner<'p, 'a> {
    view: &'p View<'a>,
    options: &'p QuantizeOptions,
    include: Selector,
    exclude: Selector,
    /// Number of nodes that `include` matches.
    included: usize,
    /// Bits and block size for each glob, and whether the glob matched a name.
    overrides: Vec<(Pattern, (u32, usize))>,
    /// Opset version of the model, followed by those of the functions.
    opsets: Vec<i64>,
    /// Indices of the planned weights, by the place of their definition and the elements that share a scale.
    shared: HashMap<(BodyId, &'a str, Channel, bool), usize>,
    plan: Plan<'a>,
}

/// The decision on a node. The error is the reason why it stays unchanged.
type Judged<T> = std::result::Result<T, String>;

/// A node that can be rewritten: its form, the index of the weight among its inputs, and the weight.
type Candidate<'a> = (Form, usize, Constant<'a>);

impl<'a> Planner<'_, 'a> {
    /// Returns the form of a node; `None` if there is nothing to quantize. The error is the reason why the node stays
    /// unchanged.
    fn candidate(&mut self, body: BodyId, node: &'a NodeProto) -> Judged<Option<Candidate<'a>>> {
        if !(node.is("MatMul") || node.is("Gemm") || node.is("Gather")) {
            return self.other(body, node).map(|()| None);
        }
        let input = if node.is("Gather") { 0 } else { 1 };
        // If the weight is an optional input, the input is removed as well: see `keep_inputs`.
        let Some(constant) = node.input_at(input).and_then(|name| self.view.constant_or_default(body, name)) else {
            return if node.is("Gather") { Ok(None) } else { Err(self.view.why_not_constant(body, node)) };
        };
        let table = node.is("Gather");
        if table && !is_float(constant.tensor) {
            return Ok(None);
        }
        if belongs_to_blocks(self.view, constant.owner, constant.name) {
            return Ok(None); // The constant is a part of a quantized weight, whose product is in the report.
        }
        self.selected(node, &constant)?;
        let elements = element_count(&constant.tensor.dims).unwrap_or(0);
        if elements < self.options.min_elements.max(1) {
            return Err(format!("the weight has only {elements} elements"));
        }
        Matrix::new(constant.tensor).map_err(|e| e.message().to_owned())?;
        let integer = self.options.quantize_type == QuantizeType::Dynamic && !table;
        if integer && logarithm::leaves(self.view, body, node, self.options) {
            return Err(logarithm::REASON.to_owned());
        }
        let opset = self.opset(body);
        let form = if self.options.quantize_type == QuantizeType::WeightOnly {
            self.block_form(node, &constant, opset)?
        } else if table {
            self.table_form(node, &constant, opset)?
        } else if node.is("Gemm") {
            gemm_form(node, opset)?
        } else if opset >= INTEGER_OPSET {
            Form::MatMul
        } else {
            Form::ContribMatMul
        };
        if form == Form::ContribMatMul && constant.dtype != DataType::Float32.to_onnx() {
            return Err(format!("float16 before opset {INTEGER_OPSET} has no integer form"));
        }
        Ok(Some((form, input, constant)))
    }

    fn table_form(&self, node: &NodeProto, constant: &Constant<'_>, opset: i64) -> Judged<Form> {
        if !self.options.embeddings {
            return Err("embedding tables are kept float by the options".to_owned());
        }
        if !matches!(node.int("axis", 0), 0 | -2) || constant.transposed {
            return Err("rows are not gathered along the first axis".to_owned());
        }
        if opset < BROADCAST_OPSET {
            return Err(format!("before opset {BROADCAST_OPSET} rows cannot be scaled"));
        }
        Ok(Form::Table)
    }

    fn block_form(&self, node: &NodeProto, constant: &Constant<'_>, opset: i64) -> Judged<Form> {
        if opset < BROADCAST_OPSET {
            return Err(format!("before opset {BROADCAST_OPSET} scales of blocks cannot be expanded"));
        }
        if constant.dtype == DataType::Bfloat16.to_onnx() {
            return Err("ONNX Runtime has no block operators for bfloat16 activations".to_owned());
        }
        if node.is("Gather") {
            if !self.options.embeddings {
                return Err("embedding tables are kept float by the options".to_owned());
            }
            if !matches!(node.int("axis", 0), 0 | -2) || constant.transposed {
                return Err("rows are not gathered along the first axis".to_owned());
            }
            if constant.tensor.dims.last().is_none_or(|width| width % 16 != 0) {
                return Err("the row length is not a multiple of 16, the smallest block".to_owned());
            }
            return Ok(Form::BlockTable);
        }
        if node.is("Gemm") && node.int("transA", 0) != 0 {
            return Err("the left operand is transposed".to_owned());
        }
        Ok(if node.is("Gemm") { Form::BlockGemm } else { Form::BlockMatMul })
    }

    /// Fails with a reason for a node of another operator that is already quantized or has a large enough weight,
    /// because users expect such a node in the report.
    fn other(&self, body: BodyId, node: &NodeProto) -> Judged<()> {
        let worth = |t: &TensorProto| {
            is_float(t) && t.dims.len() >= 2 && element_count(&t.dims).unwrap_or(0) >= self.options.min_elements
        };
        let given = node.refers() && ["Gemm", "Gather"].contains(&node.op());
        let holds = (given || WEIGHTED.contains(&node.op()))
            && node.input.iter().any(|name| self.view.constant_or_default(body, name).is_some_and(|c| worth(c.tensor)));
        let how = match self.options.quantize_type {
            QuantizeType::Dynamic => "dynamically",
            QuantizeType::WeightOnly => "in blocks",
            QuantizeType::Static => "with fixed ranges",
        };
        match holds {
            _ if has_quantized_weights(node) => Err("is already quantized".to_owned()),
            true if given => Err(GIVEN.to_owned()),
            true => Err(format!("{} is not quantized {how}", node.op())),
            false => Ok(()),
        }
    }

    /// Fails with a reason if the options exclude the node or its weight by name.
    fn selected(&mut self, node: &NodeProto, constant: &Constant<'_>) -> Judged<()> {
        let names = [node.label(), constant.name];
        if !self.include.is_empty() && !self.include.matches(&names) {
            return Err("not included".to_owned());
        }
        self.included += 1;
        if self.exclude.matches(&names) { Err("excluded".to_owned()) } else { Ok(()) }
    }

    fn accept(&mut self, body: BodyId, node: usize, form: Form, input: usize, constant: Constant<'a>) {
        let proto = self.view.node(body, node);
        // A Gemm may transpose its weight by attribute, in addition to a preceding Transpose.
        let transposed = constant.transposed != (proto.is("Gemm") && proto.int("transB", 0) != 0);
        let channel = match (self.options.per_channel, form) {
            // A block contains inputs of one output of a product (in a column, or in a row of a transposed weight), or
            // a part of one row of a table.
            (_, Form::BlockTable) => Channel::Row,
            (_, Form::BlockMatMul | Form::BlockGemm) if transposed => Channel::Row,
            (_, Form::BlockMatMul | Form::BlockGemm) => Channel::Column,
            (false, _) => Channel::All,
            (true, Form::Table) => Channel::Row,
            (true, _) if transposed => Channel::Row,
            (true, _) => Channel::Column,
        };
        let Ok(matrix) = Matrix::new(constant.tensor) else { return };
        let bits = self.bits(proto.label(), constant.name);
        // A table and an output layer that is the transposed table share their blocks.
        let key = (constant.owner, constant.name, channel, transposed && !form.is_blocks());
        let weight = *self.shared.entry(key).or_insert_with(|| {
            let weight = Weight {
                matrix,
                channel,
                transpose: transposed,
                tensor: constant.tensor,
                name: constant.name.to_owned(),
                bits,
            };
            self.plan.weights.push(weight);
            self.plan.weights.len() - 1
        });
        self.plan.changes.push(Change { body, node, form, weight, input, constant });
    }

    fn bits(&mut self, label: &str, constant: &str) -> (u32, usize) {
        bits(&mut self.overrides, self.options, label, constant).0
    }

    /// Adds the weights of nodes that compute in float to the plan.
    fn stored(&mut self, model: &Model) {
        let (overrides, options) = (&mut self.overrides, self.options);
        let found = stored::find(&mut stored::Asked {
            view: self.view,
            model: model.proto(),
            options,
            include: &self.include,
            exclude: &self.exclude,
            changes: &self.plan.changes,
            opsets: &self.opsets,
            bits: &mut |label, constant| bits(overrides, options, label, constant),
        });
        self.included += found.included;
        stored::record(&mut self.plan, self.view, found);
    }

    /// Adds tables to the plan. Quantizing a table makes it only smaller, not faster, so a table is quantized only if
    /// no other node needs it as float.
    fn tables(&mut self, tables: Vec<(BodyId, usize, Form, usize, Constant<'a>)>) {
        let asked: Vec<(BodyId, usize)> = tables.iter().map(|t| (t.0, t.1)).collect();
        for (body, node, form, input, constant) in tables {
            let freed = self.view.uses(constant.owner, constant.name).iter().all(|place| match *place {
                Use::Output { .. } => false,
                Use::Node { body, node, .. } => {
                    let changed = self
                        .plan
                        .changes
                        .iter()
                        .any(|c| (c.body, c.node) == (body, node) || c.constant.chain.contains(&(body, node)));
                    changed || asked.contains(&(body, node)) || constant.chain.contains(&(body, node))
                }
            });
            if freed {
                self.accept(body, node, form, input, constant);
            } else {
                self.leave(body, node, "another node needs the table as float".to_owned());
            }
        }
    }

    fn leave(&mut self, body: BodyId, node: usize, reason: String) {
        let report = report_of(self.view.node(body, node), LEFT, reason);
        self.plan.left.push((body, node, report));
    }

    fn opset(&self, body: BodyId) -> i64 {
        self.opsets[self.view.bodies[body].function.map_or(0, |f| f + 1)]
    }

    fn examples(&self) -> String {
        let changed = self.plan.changes.iter().map(|c| self.view.node(c.body, c.node).label());
        let left = self.plan.left.iter().map(|(_, _, n)| n.name.as_str());
        let names: Vec<&str> = changed.chain(left).take(8).collect();
        if names.is_empty() {
            "the model has none to choose from".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        }
    }
}

/// Returns the bits and the block size for these names, from the first matching override or by default, and whether an
/// override matches.
fn bits(
    overrides: &mut [(Pattern, (u32, usize))],
    options: &QuantizeOptions,
    label: &str,
    constant: &str,
) -> ((u32, usize), bool) {
    let found = overrides.iter_mut().find_map(|(pattern, bits)| pattern.matches(&[label, constant]).then_some(*bits));
    found.map_or(((options.bits, options.block_size), false), |bits| (bits, true))
}

fn gemm_form(node: &NodeProto, opset: i64) -> Judged<Form> {
    if node.int("transA", 0) != 0 {
        return Err("the left operand is transposed".to_owned());
    }
    if opset < INTEGER_OPSET {
        return Err(format!("Gemm before opset {INTEGER_OPSET} has no integer form"));
    }
    Ok(Form::Gemm)
}

/// Returns whether a tensor is float32, float16 or bfloat16.
pub(super) fn is_float(tensor: &TensorProto) -> bool {
    let dtype = tensor.dtype();
    matches!(dtype, Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16))
}

/// Returns the opset version of the model, followed by those of its functions (0 if a function imports none).
pub(super) fn opsets(model: &Model) -> Vec<i64> {
    let default = |imports: &[crate::onnx::proto::OperatorSetIdProto]| {
        let found = imports.iter().find(|i| matches!(i.domain.as_deref(), None | Some("" | "ai.onnx")));
        found.and_then(|i| i.version).unwrap_or(0)
    };
    std::iter::once(model.opset()).chain(model.proto().functions.iter().map(|f| default(&f.opset_import))).collect()
}

/// Returns the maximum magnitude of an int8 code: 127, or 63 with a reduced range.
pub(super) fn limit(options: &QuantizeOptions) -> f32 {
    let reduce = match options.reduce_range {
        ReduceRange::On => true,
        ReduceRange::Off => false,
        ReduceRange::Auto => int8_saturates(),
    };
    if reduce { 63.0 } else { 127.0 }
}
