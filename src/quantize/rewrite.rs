//! The parts that the rewriters share: unused values, the report, and new nodes of a graph or function.

use super::planner::{Change, LEFT, Plan, QUANTIZED};
use crate::graph::builder::NodeBuilder;
use crate::graph::edit::{self, Names, int_attribute};
use crate::graph::{BodyId, View, dead};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::report::{NodeReport, report_of};
use std::collections::{HashMap, HashSet};

/// Returns the values that are unused after the changes whose weights are `done`: the float weights, and the values
/// that they were computed from.
pub fn dead_values(view: &View<'_>, changes: &[Change<'_>], done: &[bool]) -> HashMap<BodyId, HashSet<String>> {
    let changed: HashSet<(BodyId, usize, usize)> =
        changes.iter().filter(|c| done[c.weight]).map(|c| (c.body, c.node, c.input)).collect();
    dead::unread_without(view, &changed, changes.iter().filter(|c| done[c.weight]).map(|c| &c.constant))
}

/// A writer of the new nodes of one type of quantization (dynamic or weight-only).
pub trait Rewriter {
    /// Adds the nodes that replace `node`.
    fn write(&mut self, emit: &mut NodeBuilder, node: NodeProto, change: &Change<'_>);

    /// Clears cached names of values that following nodes cannot read.
    fn forget(&mut self);
}

/// Switches for trials: each selects whether the nodes that read some weights run quantized or as in the original.
pub struct Switches<'s> {
    /// Name of the input with the switches, one bool each.
    pub input: &'s str,
    /// Index of the switch of each weight of the plan.
    pub of: &'s [usize],
    /// Number of switches of the model.
    pub count: usize,
}

/// Returns the model with the changes of the plan whose weights are `done`, that is, were quantized. `constants` are
/// the new constants of each graph or function.
///
/// With `switches`, the original and the new nodes are kept in the branches of an `If`, for nodes of the main graph;
/// other nodes stay unchanged.
pub fn apply(
    original: &ModelProto,
    plan: &Plan<'_>,
    done: &[bool],
    mut constants: HashMap<BodyId, Vec<TensorProto>>,
    names: &mut Names,
    writer: &mut dyn Rewriter,
    switches: Option<&Switches<'_>>,
) -> ModelProto {
    let view = View::new(original);
    let dead = match switches {
        None => dead_values(&view, &plan.changes, done),
        Some(_) => HashMap::new(),
    };
    let by_place: HashMap<(BodyId, usize), &Change<'_>> = (plan.changes.iter())
        .filter(|c| done[c.weight] && (switches.is_none() || c.body == 0))
        .map(|c| ((c.body, c.node), c))
        .collect();
    let mut model = original.clone();
    edit::for_each_body(&mut model, &mut |body, mut content| {
        let old = std::mem::take(content.nodes);
        let mut emit = NodeBuilder::replacing(std::mem::take(names));
        emit.nodes.reserve(old.len());
        writer.forget();
        let conditions = switches.filter(|_| body == 0).map(|s| (s, emit.conditions(s)));
        for (index, node) in old.into_iter().enumerate() {
            match (by_place.get(&(body, index)), &conditions) {
                (None, _) => emit.nodes.push(node),
                (Some(change), None) => writer.write(&mut emit, node, change),
                (Some(change), Some((switches, conditions))) => {
                    writer.forget();
                    emit.either(writer, &node, change, &conditions[switches.of[change.weight]]);
                }
            }
        }
        *names = emit.names;
        *content.nodes = emit.nodes;
        if let (Some((switches, _)), Some(inputs)) = (&conditions, &mut content.inputs) {
            inputs.push(edit::value(switches.input, DataType::Bool, 1));
        }
        if let Some(names) = dead.get(&body) {
            content.remove_values(names);
        }
        constants.remove(&body).into_iter().flatten().for_each(|tensor| content.add_constant(tensor));
    });
    edit::modernize_ir(&mut model);
    edit::import_where_used(&mut model, "com.microsoft", 1);
    model
}

/// Returns the report on every node of the plan, in the order of the model. `reason` describes the operators that
/// replace a changed node.
pub fn reports(
    view: &View<'_>,
    plan: &Plan<'_>,
    done: &[bool],
    reason: &dyn Fn(&Change<'_>) -> String,
) -> Vec<NodeReport> {
    let dead = dead_values(view, &plan.changes, done);
    let mut all: Vec<(BodyId, usize, NodeReport)> = plan.left.clone();
    for change in &plan.changes {
        let node = view.node(change.body, change.node);
        let report = if done[change.weight] {
            let mut reason = reason(change);
            if !dead.get(&change.constant.owner).is_some_and(|names| names.contains(change.constant.name)) {
                reason.push_str("; the float weight is kept for another node");
            }
            if change.constant.overridable {
                reason.push_str("; the weight was also an optional input");
            }
            report_of(node, QUANTIZED, reason)
        } else {
            report_of(node, LEFT, "the weight has values that are not finite, or too large".to_owned())
        };
        all.push((change.body, change.node, report));
    }
    all.sort_by_key(|(body, node, _)| (*body, *node));
    all.into_iter().map(|(_, _, report)| report).collect()
}

const FLOAT: i32 = DataType::Float32 as i32;

/// Methods that the rewriters add to a builder of nodes.
impl NodeBuilder {
    /// Adds the last node of a change, which produces the first output of `of`: the operator `op`, followed by a `Cast`
    /// if `dtype` is not float32.
    pub fn last(&mut self, of: &NodeProto, op: &str, inputs: &[&str], dtype: i32) {
        if dtype == FLOAT {
            self.at(of).push(op, inputs, &[&of.output[0]]);
        } else {
            let value = self.at(of).op(op, inputs);
            self.op_to("Cast", &[&value], &of.output[0], vec![int_attribute("to", dtype.into())]);
        }
    }

    /// Adds a product of a value and a constant factor, both of type `dtype`, and returns the name of its output.
    pub fn times(&mut self, value: &str, factor: f32, dtype: i32) -> String {
        let factor = self.factor(factor, dtype);
        self.op("Mul", &[value, &factor])
    }

    /// Adds a product of a value and a constant factor, both of type `dtype`, whose output replaces the first output of
    /// `of`.
    pub fn times_to(&mut self, of: &NodeProto, value: &str, factor: f32, dtype: i32) {
        let factor = self.at(of).factor(factor, dtype);
        self.push("Mul", &[value, &factor], &[&of.output[0]]);
    }

    fn factor(&mut self, factor: f32, dtype: i32) -> String {
        let factor = self.scalar(factor);
        if dtype == FLOAT { factor } else { self.cast_to(&factor, dtype) }
    }

    /// Adds a scalar for each switch, and returns their names.
    fn conditions(&mut self, switches: &Switches<'_>) -> Vec<String> {
        self.at(&edit::node("Switch", &[], &["switch"]));
        let one = |index: usize| {
            let index = self.int(index as i64);
            self.op("Gather", &[switches.input, &index])
        };
        (0..switches.count).map(one).collect()
    }

    /// Adds an `If` with the writer's nodes in one branch, and the original node in the other.
    fn either(&mut self, writer: &mut dyn Rewriter, node: &NodeProto, change: &Change<'_>, condition: &str) {
        let mark = self.nodes.len();
        let branch = |emit: &mut NodeBuilder, name: &str, write: &mut dyn FnMut(&mut NodeBuilder, NodeProto)| {
            let mut node = node.clone();
            node.output[0] = emit.at(&node).fresh(name);
            let output = vec![edit::untyped(&node.output[0])];
            write(emit, node);
            let graph =
                GraphProto { name: Some(name.into()), node: emit.nodes.split_off(mark), output, ..Default::default() };
            edit::graph_attribute(&format!("{name}_branch"), graph)
        };
        let then = branch(self, "then", &mut |emit, node| writer.write(emit, node, change));
        let otherwise = branch(self, "else", &mut |emit, node| emit.nodes.push(node));
        self.at(node).push("If", &[condition], &[&node.output[0]]).attribute = vec![then, otherwise];
    }
}

/// Renames constants to the names of the constants that they replaced, if these names are free: users' globs match by
/// name. Each pair is the present and the replaced name.
pub fn take_names(graph: &mut GraphProto, replaced: &[(String, String)]) {
    let mut taken: HashSet<&str> = graph.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
    taken.extend(graph.node.iter().flat_map(|node| &node.output).map(String::as_str));
    taken.extend(graph.input.iter().filter_map(|input| input.name.as_deref()));
    let free = replaced.iter().filter(|(_, old)| !taken.contains(old.as_str()));
    let names: HashMap<String, String> = free.cloned().collect();
    for name in graph
        .node
        .iter_mut()
        .flat_map(|node| &mut node.input)
        .chain(graph.initializer.iter_mut().filter_map(|t| t.name.as_mut()))
    {
        if let Some(old) = names.get(name) {
            name.clone_from(old);
        }
    }
}
