//! Sizes of axes that are used as numbers: the head size in the scale of attention scores, the count in a mean.
//!
//! A graph computes shapes with the sizes of axes, and those must be updated after a cut. Other numbers must not
//! change: a model without some units equals the whole model with zeros in their place, in which every number is what
//! it was. So an integer that is used for anything but shapes and computations of integers is replaced by its old
//! value. Where it also depends on the inputs of a run, the axes it depends on are blocked.

use super::analysis::{Analysis, Follow};
use super::axes::{Int, Reason, is_fixed};
use crate::graph::order::reads;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::NodeProto;

const NUMBER: &str = "it uses the size of this axis as a value";

/// Returns whether the integers of a node's first output are those of an input.
fn carries(node: &NodeProto, input: usize) -> bool {
    match node.op() {
        "Gather" | "Slice" | "Squeeze" | "Unsqueeze" | "Reshape" | "Transpose" | "Cast" | "Identity" | "Neg"
        | "Tile" | "Expand" => input == 0,
        "Where" => input > 0,
        _ => true,
    }
}

impl<'m> Analysis<'m> {
    /// Records the integer inputs of the current node that must keep their values. The rule of the node has already
    /// recorded its updates in [`Analysis::follows`], from index `first` on.
    pub(super) fn numbers(&mut self, node: &'m NodeProto, first: usize) {
        let tracked = node.output.first().and_then(|name| self.values.get(name.as_str()));
        let tracked = tracked.is_some_and(|value| value.ints.is_some());
        for (index, name) in node.input.iter().enumerate() {
            let value = self.values.get(name.as_str());
            let Some(ints) = value.and_then(|value| value.ints.as_ref()).filter(|list| list.iter().any(Int::follows))
            else {
                continue;
            };
            let sizes = |follow: &Follow<'_>| matches!(follow, Follow::Sizes { input, .. } if *input == index);
            if tracked && carries(node, index) || self.follows[first..].iter().any(sizes) {
                continue;
            }
            let ints = ints.clone();
            self.number(name, index, ints);
        }
        // A subgraph reads values of the main graph by name, and its nodes are not changed, so these values must stay
        // the same.
        let reason = self.reason(NUMBER);
        for name in reads(node).into_iter().skip(node.input.iter().filter(|name| !name.is_empty()).count()) {
            self.hold(name, reason);
        }
    }

    /// Requires an input of the current node to keep its value.
    fn number(&mut self, name: &str, input: usize, ints: Vec<Int>) {
        let whole = matches!(self.dtype_of(name), Some(DataType::Int64 | DataType::Int32));
        let reason = self.reason(NUMBER);
        // A product with an open size can be restored: it is divided by the new factors and multiplied by the old ones.
        // Other functions of an open size cannot.
        let open = |int: &&Int| int.follows() && !is_fixed(int.values);
        let products = ints.iter().filter(open).all(|int| int.factors(&|_| None).is_some());
        let mixed = ints.iter().any(|int| int.follows() && is_fixed(int.values)) && ints.iter().any(|int| open(&int));
        for int in ints.iter().filter(|int| !whole || !is_fixed(int.values) && (!products || mixed)) {
            self.keep(int, reason);
        }
        self.follows.push(Follow::Numbers { node: self.at, input, ints });
    }

    /// Blocks the axes that the integers of a value depend on.
    pub(super) fn hold(&mut self, name: &str, reason: Reason) {
        let ints = self.values.get(name).and_then(|value| value.ints.clone()).unwrap_or_default();
        ints.iter().for_each(|int| self.keep(int, reason));
    }

    /// Blocks the axes that an integer depends on.
    pub(super) fn keep(&mut self, int: &Int, reason: Reason) {
        for axis in int.depends_on(&self.axes) {
            self.axes.block(super::axes::Axis::Units(axis), reason);
        }
    }

    /// Blocks shapes whose sizes depend both on the inputs of a run and on a cut, which no constant can express.
    pub(super) fn shapes_that_vary(&mut self) {
        let mut found: Vec<(u32, Int)> = Vec::new();
        for follow in &self.follows {
            let Follow::Sizes { node, ints, axes, .. } = follow else { continue };
            let vary = ints.iter().zip(axes).filter(|(int, axis)| axis.is_none() && int.follows());
            found.extend(vary.filter(|(int, _)| !is_fixed(int.values)).map(|(int, _)| (*node, int.clone())));
        }
        for (node, int) in found {
            self.keep(
                &int,
                Reason::new(Some(node), "its shape depends on the size of this axis and on a size that is not fixed"),
            );
        }
    }

    /// Returns the element type of an integer value, found through the nodes that pass it on; `None` if it is unknown.
    pub(super) fn dtype_of(&self, name: &str) -> Option<DataType> {
        let mut name = name;
        // The model has no cycles; the limit keeps long chains cheap.
        for _ in 0..64 {
            if let Some(tensor) = self.constants.get(name) {
                return DataType::from_onnx(tensor.data_type?);
            }
            let node = &self.graph.node[*self.producers_of.get(name)?];
            name = match node.op() {
                "Shape" | "Size" => return Some(DataType::Int64),
                "Constant" => return Some(DataType::Int64),
                "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "Not" | "And" | "Or" => {
                    return Some(DataType::Bool);
                }
                "Cast" => return DataType::from_onnx(i32::try_from(node.int("to", 0)).ok()?),
                "ConstantOfShape" => {
                    let fill = node.attribute("value").and_then(|a| a.t.as_deref())?;
                    return DataType::from_onnx(fill.data_type?);
                }
                "Where" => node.input_at(1)?,
                _ => node.input_at(0)?,
            };
        }
        None
    }
}
