//! Lower precision in the graph: the nodes that can use it, the error that it causes, and the nodes that return to
//! fp32.
//!
//! In fp16 and bf16, products and the nodes around them use the low-precision type. Operators that square, divide by
//! roots, sum or exponentiate stay float32, and so do the nodes that read their results, up to the next product: a
//! layer norm of values of 1e4 squares them to 1e8, which float16 cannot represent. In fp16, nodes with large values on
//! a sample or with tiny constants stay float32 as well. In int8 and fp8, only products with weights use the
//! low-precision type.
//!
//! Then the outputs are compared with those of float32 in ONNX Runtime, and the nodes that add the largest errors
//! return to float32 until the limit is met, in at most [`ROUNDS`] rounds.

use super::casts::{self, Form, Rewritten};
use super::options::{Precision, TensorRtOptions};
use super::quantized;
use super::sample::{self, Sample};
use crate::call::{Call, Stage};
use crate::error::{Context, Result, bail};
use crate::files::Scratch;
use crate::graph::floats::floats;
use crate::graph::select::{Fit, Selector};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto};
use crate::onnx::validate::subgraphs;
use crate::report::NodeReport;
use crate::runtime::{Runtime, Session, Tensor};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

/// The value of `NodeReport.action` for a node in lower precision.
pub const LOWERED: &str = "lowered";
/// The value of `NodeReport.action` for a node that stays float32.
pub const KEPT: &str = "fp32";
/// The prefix of the reason of a node that returned to fp32 because of its error.
pub const BACK: &str = "back to fp32";

/// The operators for which lower precision is worth a cast.
const HEAVY: [&str; 5] = ["MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"];
/// The operators that use the lower precision unless they read a float32 result, because they are cheap or only move
/// values.
#[rustfmt::skip]
const LIGHT: [&str; 60] = [
    "Abs", "Add", "AveragePool", "BatchNormalization", "Ceil", "Celu", "Clip", "Concat", "DepthToSpace", "Div", "Elu",
    "Equal", "Erf", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "GlobalMaxPool",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Max",
    "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Relu", "Reshape", "Round", "ScatterElements", "ScatterND", "Selu",
    "Sigmoid", "Sign", "Slice", "Softplus", "Softsign", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum", "Tanh",
    "ThresholdedRelu", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Mish",
];
/// The operators that read a value of any type and do not output that type.
const EITHER: [&str; 2] = ["Shape", "Size"];
/// The operators that stay float32 because they lose accuracy with few bits or a small range.
#[rustfmt::skip]
const DELICATE: [&str; 34] = [
    "Acos", "Asin", "Atan", "Cos", "CumSum", "Exp", "GRU", "GlobalAveragePool", "GroupNormalization",
    "InstanceNormalization", "LSTM", "LRN", "LayerNormalization", "Log", "LogSoftmax", "LpNormalization",
    "MeanVarianceNormalization", "Pow", "RMSNormalization", "RNN", "Reciprocal", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Sin", "Softmax", "Sqrt",
];
/// The largest magnitude on the sample that is converted to float16, whose maximum is 65504: other data may have larger
/// values.
const LARGEST: f32 = 32768.0;
/// The magnitude below which values become zero in float16.
const LEAST: f32 = 2.98e-8;
/// The maximum number of elements of a constant that counts as a parameter, for example an epsilon, and not as a
/// weight.
const NUMBER: usize = 16;
/// The maximum number of rounds in which nodes return to fp32.
const ROUNDS: usize = 6;

/// A graph in lower precision.
pub(super) struct Lowered {
    pub proto: ModelProto,
    /// Reports on nodes that read or write float32; for int8 and fp8 only on products with weights and on nodes that
    /// `keep_fp32` selects.
    pub nodes: Vec<NodeReport>,
    /// Error of the lower precision, as in the report.
    pub error: Value,
}

/// The type in which a node computes, and the reason for it; the reason is empty if the node is not reported.
type Decision = (Form, String);

struct Work<'w> {
    runtime: &'static Runtime,
    model: &'w Model,
    options: &'w TensorRtOptions,
    call: &'w Call<'w>,
    sample: Sample,
    /// Names of the float32 values of the main graph.
    floats: HashSet<String>,
    constants: HashMap<&'w str, &'w TensorProto>,
    /// Magnitudes of the inputs of products, for int8 and fp8.
    ranges: HashMap<String, f32>,
    /// Names of nodes and operators that stay float32.
    keep_fp32: Selector,
    scratch: Scratch,
}

/// The error of a rewritten graph against float32.
struct Measured {
    /// Relative error of the worst float output.
    worst: f64,
    outputs: Map<String, Value>,
}

/// Lowers the precision of `model`, measures the error on a sample with the input `shapes`, and returns the graph and
/// the error. Progress stages: `calibrate` for int8 and fp8, in runs, and `precision`, in measurements.
///
/// Fails with [`crate::error::Kind::Unsupported`] if no node can use the lower precision, with `GateNotMet` if the
/// error stays above the limit, and like [`Sample::take`] and [`quantized::ranges`].
pub(super) fn lower(
    runtime: &'static Runtime,
    model: &Model,
    shapes: &[(String, Vec<i64>)],
    options: &TensorRtOptions,
    call: &Call,
) -> Result<Lowered> {
    call.report(Stage::PRECISION, 0, 0)?;
    let sample = Sample::take(runtime, model, shapes, options.threads, call)?;
    let graph = model.graph();
    let float = |(_, t): &(&str, &TensorProto)| t.data_type == Some(DataType::Float32.to_onnx());
    let constants: HashMap<&str, &TensorProto> = graph.initializers().filter(float).collect();
    let made = sample.types.iter().filter(|(_, dtype)| **dtype == DataType::Float32).map(|(name, _)| name.clone());
    let given = model.inputs().into_iter().filter(|i| i.dtype == Some(DataType::Float32)).map(|i| i.name);
    let floats = made.chain(given).chain(constants.keys().map(|name| (*name).to_owned())).collect();
    let scratch = Scratch::new(&std::env::temp_dir());
    let keep_fp32 = Selector::new(&options.keep_fp32, Fit::Literal)?;
    let ranges = HashMap::new();
    let mut work = Work { runtime, model, options, call, sample, floats, constants, ranges, keep_fp32, scratch };
    let batches = work.find_ranges()?;
    let mut back: HashMap<usize, String> = HashMap::new();
    let allowed = options.error_allowed();
    for round in 0..=ROUNDS {
        let plan = work.plan(&back);
        let forms: Vec<Form> = plan.iter().map(|(form, _)| *form).collect();
        let short = forms.iter().filter(|form| **form == Form::Short).count();
        if short == 0 {
            if back.is_empty() {
                bail!(Unsupported, "no node can be {}: {}", options.precision.name(), reasons(&plan));
            }
            bail!(GateNotMet, "no node can be {} with an error below {allowed}", options.precision.name());
        }
        let measured = work.measure(&forms)?;
        call.report(Stage::PRECISION, round as u64 + 1, 0)?;
        if measured.worst <= allowed {
            let how = if batches > 0 { "cpu, the graph itself" } else { "cpu, rounding emulated" };
            let mut error = json!({
                "relative": measured.worst, "allowed": allowed, "outputs": measured.outputs,
                "measured_on": how, "rounds": round,
            });
            if batches > 0 {
                error["calibration_batches"] = batches.into();
            }
            return Ok(Lowered { nodes: work.reports(&plan), proto: work.rewrite(&forms, false)?.proto, error });
        }
        let costs = work.costs(&forms)?;
        let count = (short >> (ROUNDS - round).min(5)).max(1);
        for (index, cost) in costs.into_iter().take(count) {
            back.insert(
                index,
                format!("{BACK}: it adds {cost:.2e} to the error of the outputs ({:.2e})", measured.worst),
            );
        }
    }
    bail!(GateNotMet, "the error of {} stays above {allowed}", options.precision.name())
}

impl Work<'_> {
    /// For int8 and fp8, finds the magnitudes with the smallest error when all possible nodes are quantized, and
    /// returns the number of batches of calibration data. For other precisions, does nothing and returns 0.
    fn find_ranges(&mut self) -> Result<usize> {
        let (mut best, mut count) = (f64::INFINITY, 0);
        let precision = self.options.precision;
        for method in quantized::methods(precision).iter().filter(|_| precision.is_quantized()) {
            let (runtime, model) = (self.runtime, self.model);
            let found = quantized::ranges(runtime, model, &self.constants, self.options, *method, self.call)?;
            let before = std::mem::replace(&mut self.ranges, found.0);
            count = found.1;
            let forms: Vec<Form> = self.plan(&HashMap::new()).iter().map(|(form, _)| *form).collect();
            let error = self.measure(&forms)?.worst;
            if error < best {
                best = error;
            } else {
                self.ranges = before;
            }
        }
        Ok(count)
    }

    fn is_float(&self, name: &str) -> bool {
        self.floats.contains(name)
    }

    fn plan(&self, back: &HashMap<usize, String>) -> Vec<Decision> {
        // The values that nodes in float32 output: light nodes that read them stay float32 too.
        let mut full: HashSet<&str> = HashSet::new();
        let mut plan = Vec::new();
        for (index, node) in self.model.graph().node.iter().enumerate() {
            let decision = match back.get(&index) {
                Some(reason) => (Form::Full, reason.clone()),
                None => self.decide(node, &full),
            };
            let joins = !matches!(node.op(), "Constant" | "ConstantOfShape" | "Cast" | "Range");
            if decision.0 == Form::Full && joins {
                full.extend(node.output.iter().map(String::as_str).filter(|o| self.is_float(o)));
            }
            plan.push(decision);
        }
        plan
    }

    fn decide(&self, node: &NodeProto, full: &HashSet<&str>) -> Decision {
        let kept = |reason: String| (Form::Full, reason);
        let default = matches!(node.domain.as_deref(), None | Some("" | "ai.onnx"));
        let op = node.op();
        if default && EITHER.contains(&op) {
            return (Form::Either, String::new());
        }
        let floats = || node.input.iter().chain(&node.output).filter(|name| self.is_float(name));
        if floats().next().is_none() || op == "Constant" {
            return kept(String::new());
        }
        if self.keep_fp32.matches(&[op, node.label()]) {
            return kept("kept by keep_fp32".to_owned());
        }
        if self.options.precision.is_quantized() {
            return self.decide_quantized(node);
        }
        if !default || subgraphs(node).next().is_some() {
            return kept("an operator of another domain, or with a subgraph".to_owned());
        }
        if DELICATE.contains(&op) {
            return kept("delicate".to_owned());
        }
        let heavy = HEAVY.contains(&op);
        if !heavy && !LIGHT.contains(&op) {
            return kept(format!("{op} has no lower precision here"));
        }
        // The ratio or the scales of these operators are float32 by definition.
        if node.input.iter().skip(1).any(|i| self.is_float(i)) && matches!(op, "Dropout" | "Resize" | "Upsample") {
            return kept("an input is float32 by definition".to_owned());
        }
        if self.options.precision == Precision::Fp16 {
            if let Some((name, most)) = floats().find_map(|name| self.out_of_range(name)) {
                return kept(format!("{name} has values up to {most:.3e}; the largest float16 is 65504"));
            }
            if let Some((name, value)) = node.input.iter().find_map(|name| self.vanishing(name)) {
                return kept(format!("{name} is {value:.1e}, which is 0 in float16"));
            }
        }
        if !heavy && node.input.iter().any(|name| full.contains(name.as_str())) {
            return kept("connected to nodes that stay float32".to_owned());
        }
        (Form::Short, format!("{op} in {}", self.options.precision.name()))
    }

    fn decide_quantized(&self, node: &NodeProto) -> Decision {
        let default = matches!(node.domain.as_deref(), None | Some("" | "ai.onnx"));
        match quantized::weight_of(node, &self.constants).filter(|_| default) {
            None => (Form::Full, String::new()),
            Some(Err(reason)) => (Form::Full, reason.to_owned()),
            Some(Ok(_)) => match node.input_at(0).and_then(|x| self.ranges.get(x)) {
                Some(most) if most.is_finite() && *most > 0.0 => {
                    (Form::Short, format!("{} in {}", node.op(), self.options.precision.name()))
                }
                _ => (Form::Full, "its operand has no range on the data".to_owned()),
            },
        }
    }

    fn out_of_range<'n>(&self, name: &'n str) -> Option<(&'n str, f32)> {
        let most = match (self.sample.largest.get(name), self.constants.get(name)) {
            (Some(most), _) => *most,
            (None, Some(constant)) => {
                let values = floats(constant).ok()?;
                values.iter().filter(|v| v.is_finite()).fold(0.0f32, |most, v| most.max(v.abs()))
            }
            _ => return None,
        };
        (most > LARGEST).then_some((name, most))
    }

    fn vanishing<'n>(&self, name: &'n str) -> Option<(&'n str, f32)> {
        let constant = self.constants.get(name)?;
        let count: i64 = constant.dims.iter().product();
        if count > NUMBER as i64 {
            return None;
        }
        floats(constant).ok()?.into_iter().find(|v| *v != 0.0 && v.abs() < LEAST).map(|value| (name, value))
    }

    fn rewrite(&self, forms: &[Form], emulated: bool) -> Result<Rewritten> {
        let (model, precision) = (self.model.proto(), self.options.precision);
        if precision.is_quantized() {
            return quantized::rewrite(model, forms, precision, &self.ranges, &self.scratch);
        }
        casts::rewrite(model, &self.floats, forms, precision, emulated, &self.scratch)
    }

    /// Returns a session that rounds each value like the rewritten graph, but computes in float32. The rewritten graph
    /// itself would show smaller errors: where ONNX Runtime has no low-precision kernel, it computes in float32 and
    /// removes the casts on both sides. For int8 and fp8, the session runs the rewritten graph itself.
    fn session(&self, forms: &[Form]) -> Result<Session> {
        let make = |proto: ModelProto| {
            let model = Model::from_proto(proto);
            sample::session(self.runtime, &model, &[], self.options.threads, self.call)
        };
        make(self.rewrite(forms, true)?.proto).at(|| "the graph in lower precision")
    }

    /// Returns the relative error of each float32 output on the sample, and the largest.
    fn measure(&self, forms: &[Form]) -> Result<Measured> {
        let session = self.session(forms)?;
        let names: Vec<String> = self.sample.outputs.iter().map(|(name, _)| name.clone()).collect();
        let (mut worst, mut outputs) = (0.0f64, Map::new());
        let mut look = |name: &str, low: &Tensor| {
            let Some((_, plain)) = self.sample.outputs.iter().find(|(n, _)| n == name) else { return Ok(()) };
            if plain.dtype() == DataType::Float32 {
                let far = sample::distance(plain, low)?;
                worst = worst.max(far);
                outputs.insert(name.to_owned(), json!(far));
            }
            Ok(())
        };
        sample::values(&session, &self.sample.inputs, &names, self.call, &mut look)?;
        Ok(Measured { worst, outputs })
    }

    /// Returns the index of each node in lower precision with the error that it adds to the largest error of its
    /// inputs, largest first.
    fn costs(&self, forms: &[Form]) -> Result<Vec<(usize, f64)>> {
        let nodes = &self.model.graph().node;
        let rewritten = self.rewrite(forms, true)?;
        let of =
            |node: &NodeProto| -> Vec<String> { node.output.iter().filter(|o| self.is_float(o)).cloned().collect() };
        let lowered = nodes.iter().zip(forms).filter(|(_, form)| **form == Form::Short);
        let mut names: Vec<String> = lowered.clone().flat_map(|(node, _)| of(node)).collect();
        if self.options.precision.is_quantized() {
            // The inputs of these nodes are float32 and contain the errors of earlier nodes. These errors are measured,
            // too, because they are subtracted.
            let read = lowered.filter_map(|(node, _)| node.input_at(0));
            names.extend(read.filter(|name| self.sample.types.contains_key(*name)).map(str::to_owned));
            names.sort();
            names.dedup();
        }
        let short: Vec<String> =
            names.iter().map(|n| rewritten.short.get(n).cloned().unwrap_or_else(|| n.clone())).collect();
        let model = Model::from_proto(rewritten.proto.clone());
        let threads = self.options.threads;
        let low = sample::session(self.runtime, &model, &short, threads, self.call)?;
        let plain = sample::session(self.runtime, self.model, &names, threads, self.call)?;
        let mut far: HashMap<String, f64> = HashMap::new();
        for (some, theirs) in names.chunks(32).zip(short.chunks(32)) {
            let mut exact = HashMap::new();
            let mut keep = |name: &str, tensor: &Tensor| {
                exact.insert(name.to_owned(), tensor.clone());
                Ok(())
            };
            sample::values(&plain, &self.sample.inputs, some, self.call, &mut keep)?;
            let original: HashMap<&str, &str> =
                theirs.iter().zip(some).map(|(short, name)| (short.as_str(), name.as_str())).collect();
            let mut look = |name: &str, tensor: &Tensor| {
                if let Some((name, exact)) = original.get(name).and_then(|n| Some((*n, exact.get(*n)?))) {
                    far.insert(name.to_owned(), sample::distance(exact, tensor)?);
                }
                Ok(())
            };
            sample::values(&low, &self.sample.inputs, theirs, self.call, &mut look)?;
        }
        let at = |name: &String| far.get(name).copied().unwrap_or(0.0);
        let mut costs: Vec<(usize, f64)> = Vec::new();
        for (index, node) in nodes.iter().enumerate().filter(|(index, _)| forms[*index] == Form::Short) {
            let before = node.input.iter().map(at).filter(|f| f.is_finite()).fold(0.0f64, f64::max);
            let after = node.output.iter().map(at).fold(0.0f64, f64::max);
            costs.push((index, after - before));
        }
        costs.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        Ok(costs)
    }

    fn reports(&self, plan: &[Decision]) -> Vec<NodeReport> {
        let report = |(node, (form, reason)): (&NodeProto, &Decision)| NodeReport {
            name: node.label().to_owned(),
            op: node.op().to_owned(),
            action: if *form == Form::Short { LOWERED } else { KEPT },
            reason: reason.clone(),
            sensitivity: None,
        };
        let all = self.model.graph().node.iter().zip(plan);
        all.filter(|(_, (_, reason))| !reason.is_empty()).map(report).collect()
    }
}

/// Returns the reasons of a plan with their counts, for a message.
fn reasons(plan: &[Decision]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for (_, reason) in plan.iter().filter(|(_, reason)| !reason.is_empty()) {
        match counts.iter_mut().find(|(known, _)| known == reason) {
            Some((_, count)) => *count += 1,
            None => counts.push((reason, 1)),
        }
    }
    let text: Vec<String> = counts.iter().take(6).map(|(reason, count)| format!("{reason} ({count})")).collect();
    if text.is_empty() { "it computes nothing in float32".to_owned() } else { text.join(", ") }
}
