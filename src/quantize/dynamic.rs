//! Rewriting the graph into dynamically quantized form.
//!
//! ```text
//! y = MatMul(x, W)   ->   q, s, z = DynamicQuantizeLinear(x)          once for all readers of x
//!                         y = Cast<float>(MatMulInteger(q, W8, z)) * (s * sW)
//! y = Gather(T, ids) ->   y = Cast<float>(Gather(T8, ids)) * Gather(sT, ids)
//! ```
//! ONNX Runtime fuses the first into one kernel (`DynamicQuantizeMatMul` or `MatMulIntegerToFloat`).

use super::planner::{Change, Form, LEFT, Plan, QUANTIZED, Weight, report_of};
use super::weights::{Channel, Int8Matrix};
use crate::error::Result;
use crate::graph::edit::{self, Names, float_tensor, int_attribute};
use crate::graph::{BodyId, Use, View};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto};
use crate::report::NodeReport;
use std::collections::{HashMap, HashSet};

/// Names of the constants that replace a weight.
struct Replacement {
    values: String,
    scales: String,
    /// One scale for all, so there is nothing to gather.
    single: bool,
    /// Element type of the float weight, and so of what the node gives.
    dtype: i32,
}

/// The rewritten model and what was done to each node, in the order of the model.
pub fn rewrite(
    original: &ModelProto,
    plan: Plan<'_>,
    weights: Vec<Option<Int8Matrix>>,
) -> Result<(ModelProto, Vec<NodeReport>)> {
    let view = View::new(original);
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
    let dead = dead_values(&view, &plan.changes, &done);
    let reports = reports(&view, &plan, &done, &dead);
    let by_place: HashMap<(BodyId, usize), &Change<'_>> =
        plan.changes.iter().filter(|c| done[c.weight]).map(|c| ((c.body, c.node), c)).collect();

    let mut model = original.clone();
    edit::for_each_body(&mut model, &mut |body, mut content| {
        let old = std::mem::take(content.nodes);
        let mut emit = Emit { nodes: Vec::with_capacity(old.len()), names: &mut names, quantized: HashMap::new() };
        for (index, node) in old.into_iter().enumerate() {
            let change = by_place.get(&(body, index)).copied();
            match change.and_then(|c| Some((c, replacements[c.weight].as_ref()?))) {
                Some((change, replacement)) => emit.change(node, change, replacement),
                None => emit.nodes.push(node),
            }
        }
        *content.nodes = emit.nodes;
        if let Some(names) = dead.get(&body) {
            content.remove_values(names);
        }
        constants.remove(&body).into_iter().flatten().for_each(|tensor| content.add_constant(tensor));
    });
    edit::modernize_ir(&mut model);
    if plan.changes.iter().any(|c| c.form == Form::ContribMatMul) {
        edit::import_domain(&mut model.opset_import, "com.microsoft", 1);
    }
    Ok((model, reports))
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
        dtype: weight.tensor.data_type.unwrap_or(0),
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
    let scales = float_tensor(&replacement.scales, shape, &matrix.scales);
    (replacement, [values, scales])
}

/// Values nobody reads once the changes are made: the float weights, and the nodes that led to them.
fn dead_values(view: &View<'_>, changes: &[Change<'_>], done: &[bool]) -> HashMap<BodyId, HashSet<String>> {
    let changed: HashSet<(BodyId, usize, usize)> =
        changes.iter().filter(|c| done[c.weight]).map(|c| (c.body, c.node, c.input)).collect();
    let mut dead: HashMap<BodyId, HashSet<String>> = HashMap::new();
    let mut dead_nodes: HashSet<(BodyId, usize)> = HashSet::new();
    // Shared chains die from the reader's end; each round can free the next link of another change.
    loop {
        let before = dead_nodes.len() + dead.values().map(HashSet::len).sum::<usize>();
        let unread = |dead_nodes: &HashSet<(BodyId, usize)>, owner: BodyId, name: &str| {
            view.uses(owner, name).iter().all(|place| match *place {
                Use::Output { .. } => false,
                Use::Node { body, node, input } => {
                    changed.contains(&(body, node, input)) || dead_nodes.contains(&(body, node))
                }
            })
        };
        for change in changes.iter().filter(|c| done[c.weight]) {
            for &(body, node) in &change.constant.chain {
                let outputs = &view.node(body, node).output;
                if outputs.iter().all(|output| unread(&dead_nodes, body, output)) {
                    dead_nodes.insert((body, node));
                    dead.entry(body).or_default().extend(outputs.iter().cloned());
                }
            }
            let (owner, name) = (change.constant.owner, change.constant.name);
            if unread(&dead_nodes, owner, name) {
                dead.entry(owner).or_default().insert(name.to_owned());
            }
        }
        if dead_nodes.len() + dead.values().map(HashSet::len).sum::<usize>() == before {
            return dead;
        }
    }
}

fn reports(
    view: &View<'_>,
    plan: &Plan<'_>,
    done: &[bool],
    dead: &HashMap<BodyId, HashSet<String>>,
) -> Vec<NodeReport> {
    let mut all: Vec<(BodyId, usize, NodeReport)> = plan.left.clone();
    for change in &plan.changes {
        let node = view.node(change.body, change.node);
        let report = if done[change.weight] {
            let per = if plan.weights[change.weight].channel == Channel::All { "tensor" } else { "channel" };
            let mut reason = match change.form {
                Form::MatMul | Form::Gemm => format!("MatMulInteger, int8 weight per {per}"),
                Form::ContribMatMul => format!("com.microsoft DynamicQuantizeMatMul, int8 weight per {per}"),
                Form::Table => format!("int8 rows, one scale per {}", if per == "tensor" { per } else { "row" }),
            };
            if !dead.get(&change.constant.owner).is_some_and(|names| names.contains(change.constant.name)) {
                reason.push_str("; the float weight stays for another reader");
            }
            if change.constant.overridable {
                reason.push_str("; the weight was also an optional input");
            }
            report_of(node, QUANTIZED, reason)
        } else {
            report_of(node, LEFT, "the weight holds values that are not finite".to_owned())
        };
        all.push((change.body, change.node, report));
    }
    all.sort_by_key(|(body, node, _)| (*body, *node));
    all.into_iter().map(|(_, _, report)| report).collect()
}

/// Builds the new node list of one body.
struct Emit<'a> {
    nodes: Vec<NodeProto>,
    names: &'a mut Names,
    /// Activation -> its quantized values, scale and zero point, made once.
    quantized: HashMap<String, [String; 3]>,
}

const FLOAT: i32 = DataType::Float32 as i32;

impl Emit<'_> {
    fn change(&mut self, node: NodeProto, change: &Change<'_>, weight: &Replacement) {
        match change.form {
            Form::Table => self.table(&node, weight),
            Form::ContribMatMul => self.contrib(&node, weight),
            Form::MatMul | Form::Gemm => self.integer(&node, weight),
        }
    }

    /// Adds a node named after the one it replaces.
    fn push(&mut self, of: &NodeProto, op: &str, inputs: &[&str], outputs: &[&str]) -> &mut NodeProto {
        let mut node = edit::node(op, inputs, outputs);
        node.name = Some(self.names.fresh(&format!("{}_{op}", of.label())));
        node.metadata_props = of.metadata_props.clone();
        self.nodes.push(node);
        let last = self.nodes.len() - 1;
        &mut self.nodes[last]
    }

    /// Adds a node with one new output and returns its name.
    fn step(&mut self, of: &NodeProto, op: &str, inputs: &[&str]) -> String {
        let output = self.names.fresh(&format!("{}_{op}_output", of.label()));
        self.push(of, op, inputs, &[&output]);
        output
    }

    fn cast(&mut self, of: &NodeProto, input: &str, to: i32, output: &str) {
        self.push(of, "Cast", &[input], &[output]).attribute = vec![int_attribute("to", i64::from(to))];
    }

    fn cast_to_float(&mut self, of: &NodeProto, input: &str) -> String {
        let output = self.names.fresh(&format!("{}_Cast_output", of.label()));
        self.cast(of, input, FLOAT, &output);
        output
    }

    /// The last step of a change: `op` gives the node's own output, through a Cast if it is not float32.
    fn last(&mut self, of: &NodeProto, op: &str, inputs: &[&str], dtype: i32) {
        if dtype == FLOAT {
            self.push(of, op, inputs, &[&of.output[0]]);
        } else {
            let value = self.step(of, op, inputs);
            self.cast(of, &value, dtype, &of.output[0]);
        }
    }

    fn activation(&mut self, of: &NodeProto, dtype: i32) -> [String; 3] {
        let name = of.input[0].clone();
        if let Some(known) = self.quantized.get(&name) {
            return known.clone();
        }
        let input = if dtype == FLOAT { name.clone() } else { self.cast_to_float(of, &name) };
        let made = ["int8", "scale", "zero_point"].map(|part| self.names.fresh(&format!("{name}_{part}")));
        self.push(of, "DynamicQuantizeLinear", &[&input], &[&made[0], &made[1], &made[2]]);
        self.quantized.insert(name, made.clone());
        made
    }

    fn integer(&mut self, node: &NodeProto, weight: &Replacement) {
        let [values, scale, zero_point] = self.activation(node, weight.dtype);
        let sums = self.step(node, "MatMulInteger", &[&values, &weight.values, &zero_point]);
        let sums = self.cast_to_float(node, &sums);
        let scale = self.step(node, "Mul", &[&scale, &weight.scales]);
        let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
        let scale = if alpha == 1.0 { scale } else { self.times(node, &scale, alpha) };
        let Some(bias) = node.input_at(2) else {
            return self.last(node, "Mul", &[&sums, &scale], weight.dtype);
        };
        let product = self.step(node, "Mul", &[&sums, &scale]);
        let bias = if weight.dtype == FLOAT { bias.to_owned() } else { self.cast_to_float(node, bias) };
        let bias = if beta == 1.0 { bias } else { self.times(node, &bias, beta) };
        self.last(node, "Add", &[&product, &bias], weight.dtype);
    }

    fn times(&mut self, of: &NodeProto, value: &str, factor: f32) -> String {
        let constant = self.names.fresh(&format!("{}_factor", of.label()));
        self.push(of, "Constant", &[], &[&constant]).attribute = vec![crate::onnx::proto::AttributeProto {
            name: Some("value".into()),
            kind: Some(crate::onnx::proto::attribute_kind::TENSOR),
            t: Some(Box::new(float_tensor("", &[], &[factor]))),
            ..Default::default()
        }];
        self.step(of, "Mul", &[value, &constant])
    }

    fn contrib(&mut self, node: &NodeProto, weight: &Replacement) {
        let inputs = [node.input[0].as_str(), &weight.values, &weight.scales];
        self.push(node, "DynamicQuantizeMatMul", &inputs, &[&node.output[0]]).domain = Some("com.microsoft".into());
    }

    fn table(&mut self, node: &NodeProto, weight: &Replacement) {
        let ids = node.input.get(1).map_or("", String::as_str);
        let rows = self.step(node, "Gather", &[&weight.values, ids]);
        let rows = self.cast_to_float(node, &rows);
        let scales = match weight.single {
            true => weight.scales.clone(),
            false => self.step(node, "Gather", &[&weight.scales, ids]),
        };
        self.last(node, "Mul", &[&rows, &scales], weight.dtype);
    }
}
