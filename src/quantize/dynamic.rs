//! Rewrites the graph for dynamic quantization.
//!
//! ```text
//! y = MatMul(x, W)   ->   q, s, z = DynamicQuantizeLinear(x)          once for all readers of x
//!                         y = Cast<float>(MatMulInteger(q, W8, z)) * (s * sW)
//! y = Gather(T, ids) ->   y = Cast<float>(Gather(T8, ids)) * Gather(sT, ids)
//! ```
//!
//! ONNX Runtime fuses the first form into one kernel (`DynamicQuantizeMatMul` or `MatMulIntegerToFloat`).

use super::plan::Channel;
use super::planner::{Change, Form, Plan, Weight};
use super::rewrite::{self, Rewriter, Switches};
use super::weights::Int8Matrix;
use crate::graph::builder::NodeBuilder;
use crate::graph::edit::{self, Names, float_tensor};
use crate::graph::floats::to_bytes;
use crate::graph::{BodyId, View};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto};
use crate::report::NodeReport;
use std::collections::HashMap;

/// The constants that replace a weight: their names and types.
struct Replacement {
    values: String,
    scales: String,
    /// Whether the weight has a single scale, so that a `Gather` needs no scale per row.
    single: bool,
    /// Whether the scales are stored as float16.
    halved: bool,
    /// Element type of the float weight, and so of the node's output.
    dtype: i32,
}

/// Returns the rewritten model and the report on each node of the plan, in the order of the model. `weights` are the
/// quantized weights of the plan; nodes whose weight is `None` stay unchanged. For `switches` see [`rewrite::apply`].
pub fn rewrite(
    original: &ModelProto,
    plan: &Plan<'_>,
    weights: Vec<Option<Int8Matrix>>,
    switches: Option<&Switches<'_>>,
) -> (ModelProto, Vec<NodeReport>) {
    let mut names = Names::of(original);
    let done: Vec<bool> = weights.iter().map(Option::is_some).collect();
    let mut constants: HashMap<BodyId, Vec<TensorProto>> = HashMap::new();
    let replacements: Vec<Option<Replacement>> = weights
        .into_iter()
        .enumerate()
        .map(|(index, matrix)| {
            let change = plan.changes.iter().find(|c| c.weight == index)?;
            let table = change.form == Form::Table;
            let (replacement, tensors) = replace(&plan.weights[index], change, matrix?, table, &mut names);
            constants.entry(change.constant.owner).or_default().extend(tensors);
            Some(replacement)
        })
        .collect();
    let mut write = Write { replacements: &replacements, quantized: HashMap::new() };
    let model = rewrite::apply(original, plan, &done, constants, &mut names, &mut write, switches);
    let reports = rewrite::reports(&View::new(original), plan, &done, &|change| describe(plan, change));
    (model, reports)
}

fn describe(plan: &Plan<'_>, change: &Change<'_>) -> String {
    let per = if plan.weights[change.weight].channel == Channel::All { "tensor" } else { "channel" };
    match change.form {
        Form::ContribMatMul => format!("com.microsoft DynamicQuantizeMatMul, int8 weight per {per}"),
        Form::Table => format!("int8 rows, one scale per {}", if per == "tensor" { per } else { "row" }),
        _ => format!("MatMulInteger, int8 weight per {per}"),
    }
}

fn replace(
    weight: &Weight<'_>,
    change: &Change<'_>,
    matrix: Int8Matrix,
    table: bool,
    names: &mut Names,
) -> (Replacement, [TensorProto; 2]) {
    let name = change.constant.name;
    let replacement = Replacement {
        values: names.fresh(&format!("{name}_int8")),
        scales: names.fresh(&format!("{name}_scale")),
        single: weight.channel == Channel::All,
        halved: table && weight.channel != Channel::All && matrix.scales.iter().all(|s| fits_half(*s)),
        dtype: change.constant.dtype,
    };
    let (rows, columns) = match weight.transpose {
        false => (weight.matrix.rows, weight.matrix.columns),
        true => (weight.matrix.columns, weight.matrix.rows),
    };
    let count = matrix.scales.len() as i64;
    let shape: &[i64] = match (replacement.single, table) {
        (true, _) => &[],
        (false, true) => &[count, 1],
        (false, false) => &[count],
    };
    let values = edit::tensor(&replacement.values, DataType::Int8, &[rows as i64, columns as i64], matrix.data);
    let scales = match replacement.halved {
        true => edit::tensor(
            &replacement.scales,
            DataType::Float16,
            shape,
            to_bytes(&matrix.scales, DataType::Float16).into(),
        ),
        false => float_tensor(&replacement.scales, shape, &matrix.scales),
    };
    (replacement, [values, scales])
}

/// A writer of the nodes of one graph or function.
struct Write<'a> {
    replacements: &'a [Option<Replacement>],
    /// Names of the quantized values, the scale and the zero point of each activation, which are created once.
    quantized: HashMap<String, [String; 3]>,
}

const FLOAT: i32 = DataType::Float32 as i32;

impl Rewriter for Write<'_> {
    fn write(&mut self, emit: &mut NodeBuilder, node: NodeProto, change: &Change<'_>) {
        let Some(weight) = &self.replacements[change.weight] else { return emit.nodes.push(node) };
        match change.form {
            Form::Table => table(emit, &node, weight),
            Form::ContribMatMul => contrib(emit, &node, weight),
            _ => self.integer(emit, &node, weight),
        }
    }

    fn forget(&mut self) {
        self.quantized.clear();
    }
}

impl Write<'_> {
    fn activation(&mut self, emit: &mut NodeBuilder, of: &NodeProto, dtype: i32) -> [String; 3] {
        let name = of.input[0].clone();
        if let Some(known) = self.quantized.get(&name) {
            return known.clone();
        }
        let input = if dtype == FLOAT { name.clone() } else { emit.at(of).cast_to(&name, FLOAT) };
        let made = ["int8", "scale", "zero_point"].map(|part| emit.names.fresh(&format!("{name}_{part}")));
        emit.at(of).push("DynamicQuantizeLinear", &[&input], &[&made[0], &made[1], &made[2]]);
        self.quantized.insert(name, made.clone());
        made
    }

    fn integer(&mut self, emit: &mut NodeBuilder, node: &NodeProto, weight: &Replacement) {
        let [values, scale, zero_point] = self.activation(emit, node, weight.dtype);
        let sums = emit.at(node).op("MatMulInteger", &[&values, &weight.values, &zero_point]);
        let sums = emit.at(node).cast_to(&sums, FLOAT);
        let scale = emit.at(node).op("Mul", &[&scale, &weight.scales]);
        let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
        let scale = if alpha == 1.0 { scale } else { emit.at(node).times(&scale, alpha, FLOAT) };
        // With a beta of 0, the bias is not read and may contain anything.
        let Some(bias) = node.input_at(2).filter(|_| beta != 0.0) else {
            return emit.last(node, "Mul", &[&sums, &scale], weight.dtype);
        };
        let product = emit.at(node).op("Mul", &[&sums, &scale]);
        let bias = if weight.dtype == FLOAT { bias.to_owned() } else { emit.at(node).cast_to(bias, FLOAT) };
        let bias = if beta == 1.0 { bias } else { emit.at(node).times(&bias, beta, FLOAT) };
        emit.last(node, "Add", &[&product, &bias], weight.dtype);
    }
}

fn contrib(emit: &mut NodeBuilder, node: &NodeProto, weight: &Replacement) {
    let inputs = [node.input[0].as_str(), &weight.values, &weight.scales];
    let product = emit.at(node).push("DynamicQuantizeMatMul", &inputs, &[&node.output[0]]);
    product.domain = Some("com.microsoft".into());
}

/// Returns whether float16 represents a scale to 11 bits, which is much more precise than the values that it scales.
fn fits_half(scale: f32) -> bool {
    scale == 0.0 || (f32::from(half::f16::MIN_POSITIVE)..=f32::from(half::f16::MAX)).contains(&scale)
}

/// Writes the nodes for a table. Its scales are float16 if that is precise enough, because there are many; those of the
/// gathered rows are cast to float32.
fn table(emit: &mut NodeBuilder, node: &NodeProto, weight: &Replacement) {
    let ids = node.input.get(1).map_or("", String::as_str);
    let rows = emit.at(node).op("Gather", &[&weight.values, ids]);
    let rows = emit.at(node).cast_to(&rows, FLOAT);
    let scales = match weight.single {
        true => weight.scales.clone(),
        false => emit.at(node).op("Gather", &[&weight.scales, ids]),
    };
    let scales = if weight.halved { emit.at(node).cast_to(&scales, FLOAT) } else { scales };
    emit.last(node, "Mul", &[&rows, &scales], weight.dtype);
}
