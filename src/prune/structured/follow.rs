//! Updates of the graph after a cut, besides the weights: shapes, sizes of splits, ranges, attributes and declared
//! shapes.

use super::analysis::{Analysis, Follow};
use super::axes::{Axis, AxisId, Dim, Int, Kept, is_fixed};
use crate::error::{Result, bail};
use crate::graph::dead::{Policy, eliminate, read_values};
use crate::graph::edit::{self, Names};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::*;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// The state of the updates of a graph after a cut.
pub struct Follower<'a, 'm> {
    analysis: &'a Analysis<'m>,
    kept: &'a Kept,
    /// Graph that is changed; its nodes have the indices of the analysis.
    graph: &'a mut GraphProto,
    names: Names,
    /// New nodes, with the index of the node that they precede.
    added: Vec<(usize, NodeProto)>,
    /// Names of the values created so far, by their source and the changed elements.
    made: HashMap<(String, Vec<Option<i64>>), String>,
}

impl<'a, 'm> Follower<'a, 'm> {
    /// Returns the state for updating `graph`. `names` are the names of the whole model.
    pub fn new(analysis: &'a Analysis<'m>, kept: &'a Kept, graph: &'a mut GraphProto, names: Names) -> Self {
        Follower { analysis, kept, graph, names, added: Vec::new(), made: HashMap::new() }
    }

    /// Makes all updates that the analysis has recorded, and inserts the new nodes into the graph. Fails with
    /// `Unsupported` if it is not known how a number depends on a size, and with `Internal` if a node lacks an input
    /// that is to be changed.
    pub fn all(mut self) -> Result<()> {
        let analysis = self.analysis;
        let mut ranges: BTreeMap<(usize, usize), Vec<Option<i64>>> = BTreeMap::new();
        for follow in &analysis.follows {
            match follow {
                Follow::Sizes { node, input, ints, axes } => self.sizes(*node as usize, *input, ints, axes)?,
                Follow::List { node, name, axes } => self.list(*node as usize, name, axes),
                Follow::EqualSplit { node, axes } => self.equal_split(*node as usize, axes),
                Follow::Range { node, at, axis, range } => {
                    self.range(*node as usize, *at, *axis, *range, &mut ranges);
                }
                Follow::Attribute { node, name, axis, per } => {
                    if let Some(size) = self.kept.size(*axis) {
                        self.set_int(*node as usize, name, size / per);
                    }
                }
                Follow::Declared { value } => self.declared(value),
                // Numbers are updated after this loop, because ranges of the same node have priority.
                Follow::Numbers { .. } => {}
            }
        }
        for follow in &analysis.follows {
            if let Follow::Numbers { node, input, ints } = follow {
                self.numbers(*node as usize, *input, ints, &mut ranges)?;
            }
        }
        for ((node, input), changes) in ranges {
            self.change(node, input, &changes)?;
        }
        self.forget_shapes();
        let mut nodes = Vec::with_capacity(self.graph.node.len() + self.added.len());
        let mut before: HashMap<usize, Vec<NodeProto>> = HashMap::new();
        self.added.into_iter().for_each(|(at, node)| before.entry(at).or_default().push(node));
        for (index, node) in std::mem::take(&mut self.graph.node).into_iter().enumerate() {
            nodes.extend(before.remove(&index).unwrap_or_default());
            nodes.push(node);
        }
        self.graph.node = nodes;
        // Nodes are removed only if their outputs were read before the cut: nodes that nothing read stay in the model.
        eliminate(self.graph, Policy::Named(&read_values(self.analysis.graph)));
        Ok(())
    }

    /// Returns the size of an axis after the cut.
    fn size(&self, axis: AxisId) -> i64 {
        self.kept.size(axis).unwrap_or(self.analysis.axes.size(axis) as i64)
    }

    fn sizes(&mut self, node: usize, input: usize, ints: &[Int], axes: &[Option<AxisId>]) -> Result<()> {
        let mut changes = vec![None; ints.len()];
        for (index, int) in ints.iter().enumerate() {
            let wanted: Dim = axes[index].map_or(int.values, |axis| [self.size(axis); 2]);
            if int.after(self.kept) == wanted {
                continue;
            }
            if !is_fixed(wanted) {
                let label = self.graph.node[node].label();
                bail!(
                    Unsupported,
                    "node {label:?}: it is not known how its shape depends on a size that pruning changes"
                );
            }
            changes[index] = Some(wanted[0]);
        }
        self.change(node, input, &changes)
    }

    /// Records the elements of an input that are used as values, and must be written as constants because the cut would
    /// change them.
    fn numbers(
        &mut self,
        node: usize,
        input: usize,
        ints: &[Int],
        changes: &mut BTreeMap<(usize, usize), Vec<Option<i64>>>,
    ) -> Result<()> {
        let kept = self.kept;
        for (index, int) in ints.iter().enumerate().filter(|(_, int)| int.after(kept) != int.values) {
            let list = changes.entry((node, input)).or_default();
            list.resize(list.len().max(ints.len()), None);
            if list[index].is_some() {
                continue;
            }
            if !is_fixed(int.values) {
                changes.remove(&(node, input));
                return self.products(node, input, ints);
            }
            list[index] = Some(int.values[0]);
        }
        Ok(())
    }

    /// Multiplies an input with products of open sizes by the old factors and divides it by the new ones, so that its
    /// value is unchanged.
    fn products(&mut self, node: usize, input: usize, ints: &[Int]) -> Result<()> {
        let factors: Option<Vec<(i64, i64)>> =
            ints.iter().map(|int| int.factors(&|axis| self.kept.size(axis))).collect();
        let (Some(factors), Some(name)) = (factors, self.analysis.graph.node[node].input_at(input)) else {
            let label = self.graph.node[node].label();
            bail!(Unsupported, "node {label:?}: it is not known how its values depend on a size that pruning changes");
        };
        let (dtype, dims) = self.form(name, ints.len());
        let [were, are] = [factors.iter().map(|f| f.0).collect::<Vec<_>>(), factors.iter().map(|f| f.1).collect()]
            .map(|values| self.constant(name, dtype, &dims, &values));
        let product = self.add(node, edit::node("Mul", &[name, &were], &[name]));
        let quotient = self.add(node, edit::node("Div", &[&product, &are], &[name]));
        self.graph.node[node].input[input] = quotient;
        Ok(())
    }

    /// Returns the element type and the dimensions of a value with `count` integers.
    fn form(&self, name: &str, count: usize) -> (Option<i32>, Vec<i64>) {
        let dims = self.analysis.values.get(name).map(|value| value.dims.iter().map(|dim| dim[0]).collect());
        (self.analysis.dtype_of(name).map(DataType::to_onnx), dims.unwrap_or_else(|| vec![count as i64]))
    }

    /// Changes elements of an integer input of a node; elements for which `changes` has `None` stay the same.
    fn change(&mut self, node: usize, input: usize, changes: &[Option<i64>]) -> Result<()> {
        if changes.iter().all(Option::is_none) {
            return Ok(());
        }
        let attribute = match (self.graph.node[node].op(), input) {
            ("Reshape", 1) => "shape",
            ("Slice", 1) => "starts",
            ("Slice", 2) => "ends",
            _ => "",
        };
        if let Some(list) = self.graph.node[node].attribute.iter_mut().find(|a| a.name.as_deref() == Some(attribute)) {
            list.ints.iter_mut().zip(changes).for_each(|(value, change)| *value = change.unwrap_or(*value));
            return Ok(());
        }
        let Some(name) = self.analysis.graph.node[node].input_at(input) else {
            bail!(Internal, "a node has no input {input} to change");
        };
        let changed = self.changed(node, name, changes);
        self.graph.node[node].input[input] = changed;
        Ok(())
    }

    /// Returns the name of the value `name` with some elements changed. The nodes that compute it are inserted before
    /// node `at`.
    fn changed(&mut self, at: usize, name: &'m str, changes: &[Option<i64>]) -> String {
        if changes.iter().all(Option::is_none) {
            return name.to_owned();
        }
        if let Some(constant) = self.analysis.constants.get(name)
            && let Some(values) = crate::graph::constants::whole_numbers(constant)
        {
            let key = (name.to_owned(), changes.to_vec());
            if let Some(made) = self.made.get(&key) {
                return made.clone();
            }
            let values: Vec<i64> = values.iter().zip(changes).map(|(v, c)| c.unwrap_or(*v)).collect();
            let made = self.constant(name, constant.data_type, &constant.dims, &values);
            self.made.insert(key, made.clone());
            return made;
        }
        let (dtype, dims) = self.form(name, changes.len());
        if let Some(values) = changes.iter().copied().collect::<Option<Vec<i64>>>() {
            return self.constant(name, dtype, &dims, &values);
        }
        let node = self.analysis.producers_of.get(name).map(|index| &self.analysis.graph.node[*index]);
        if let Some(node) = node {
            let mut copy = node.clone();
            if node.is("Concat") && dims.len() == 1 {
                let mut start = 0;
                for (index, input) in node.input.iter().enumerate() {
                    let count =
                        self.analysis.values.get(input.as_str()).and_then(|v| v.ints.as_ref()).map_or(0, Vec::len);
                    copy.input[index] = self.changed(at, input, &changes[start..start + count]);
                    start += count;
                }
                return self.add(at, copy);
            }
            if (node.is("Unsqueeze") || node.is("Squeeze") || node.is("Identity")) && !node.input.is_empty() {
                copy.input[0] = self.changed(at, &node.input[0], changes);
                return self.add(at, copy);
            }
        }
        self.arithmetic(at, name, (dtype, &dims), changes)
    }

    /// Adds nodes that compute what [`Follower::changed`] returns for a value that is not a constant: `x * (0 or 1) +
    /// (new or 0)`. Returns the name of the result.
    fn arithmetic(
        &mut self,
        at: usize,
        name: &str,
        (dtype, dims): (Option<i32>, &[i64]),
        changes: &[Option<i64>],
    ) -> String {
        let factors: Vec<i64> = changes.iter().map(|c| i64::from(c.is_none())).collect();
        let terms: Vec<i64> = changes.iter().map(|c| c.unwrap_or(0)).collect();
        let (factors, terms) = (self.constant(name, dtype, dims, &factors), self.constant(name, dtype, dims, &terms));
        let product = self.add(at, edit::node("Mul", &[name, &factors], &[name]));
        self.add(at, edit::node("Add", &[&product, &terms], &[name]))
    }

    /// Adds a node with new names, and returns the name of its output.
    fn add(&mut self, at: usize, mut node: NodeProto) -> String {
        let output = self.names.fresh(&format!("{}_cut", node.output.first().map_or("", String::as_str)));
        if let Some(name) = node.name.take().filter(|name| !name.is_empty()) {
            node.name = Some(self.names.fresh(&format!("{name}_cut")));
        }
        node.output = vec![output.clone()];
        self.added.push((at, node));
        output
    }

    fn constant(&mut self, name: &str, dtype: Option<i32>, dims: &[i64], values: &[i64]) -> String {
        let name = self.names.fresh(&format!("{name}_cut"));
        let (dtype, raw): (DataType, Bytes) = match dtype.and_then(DataType::from_onnx) {
            Some(DataType::Int32) => (DataType::Int32, values.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect()),
            Some(DataType::Bool) => (DataType::Bool, values.iter().map(|v| u8::from(*v != 0)).collect()),
            _ => (DataType::Int64, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        self.graph.initializer.push(edit::tensor(&name, dtype, dims, raw));
        name
    }

    fn list(&mut self, node: usize, name: &str, axes: &[Option<AxisId>]) {
        let sizes: Vec<Option<i64>> = axes.iter().map(|axis| axis.map(|axis| self.size(axis))).collect();
        if let Some(list) = self.graph.node[node].attribute.iter_mut().find(|a| a.name.as_deref() == Some(name)) {
            list.ints.iter_mut().zip(sizes).for_each(|(value, size)| *value = size.unwrap_or(*value));
        }
    }

    fn equal_split(&mut self, node: usize, axes: &[AxisId]) {
        if axes.iter().all(|axis| self.kept.size(*axis).is_none()) {
            return;
        }
        let sizes: Vec<i64> = axes.iter().map(|axis| self.size(*axis)).collect();
        if self.analysis.opset < 13 {
            self.graph.node[node].attribute.push(edit::ints_attribute("split", &sizes));
            return;
        }
        let label = self.graph.node[node].label().to_owned();
        let name = self.constant(&format!("{label}_split"), None, &[sizes.len() as i64], &sizes);
        let proto = &mut self.graph.node[node];
        proto.attribute.retain(|a| a.name.as_deref() != Some("num_outputs"));
        proto.input.truncate(1);
        proto.input.push(name);
    }

    /// Records the new bounds of a `Slice`. They are written later, because all axes of one node must change together.
    fn range(
        &self,
        node: usize,
        at: usize,
        axis: AxisId,
        range: (usize, usize),
        changes: &mut BTreeMap<(usize, usize), Vec<Option<i64>>>,
    ) {
        let Some(kept) = self.kept.of(Axis::Units(axis)) else { return };
        let before = |end: usize| kept.partition_point(|index| (*index as usize) < end) as i64;
        for (input, value) in [(1, before(range.0)), (2, before(range.1))] {
            let given = self.analysis.graph.node[node].input_at(input).and_then(|name| self.analysis.values.get(name));
            let count = given.and_then(|v| v.ints.as_ref()).map_or(at + 1, Vec::len);
            let list = changes.entry((node, input)).or_default();
            list.resize(count.max(at + 1).max(list.len()), None);
            list[at] = Some(value);
        }
    }

    fn set_int(&mut self, node: usize, name: &str, value: i64) {
        let attributes = &mut self.graph.node[node].attribute;
        match attributes.iter_mut().find(|a| a.name.as_deref() == Some(name)) {
            Some(attribute) => attribute.i = Some(value),
            None => attributes.push(edit::int_attribute(name, value)),
        }
    }

    /// Updates the declared shape of an input or output.
    fn declared(&mut self, name: &str) {
        let Some(value) = self.analysis.values.get(name) else { return };
        let infos = self.graph.input.iter_mut().chain(&mut self.graph.output);
        for info in infos.filter(|info| info.name.as_deref() == Some(name)) {
            let tensor = info.value_type.as_deref_mut().and_then(|t| t.tensor_type.as_deref_mut());
            let Some(shape) = tensor.and_then(|t| t.shape.as_deref_mut()) else { continue };
            for (dim, axis) in shape.dim.iter_mut().zip(&value.axes) {
                if let Axis::Units(id) = axis
                    && let (Some(size), true) = (self.kept.size(*id), dim.dim_value.is_some())
                {
                    dim.dim_value = Some(size);
                }
            }
        }
    }

    /// Removes the declared shapes of intermediate values, which the cut may have changed.
    fn forget_shapes(&mut self) {
        let (analysis, kept) = (self.analysis, self.kept);
        let cut = |info: &ValueInfoProto| {
            let value = info.name.as_deref().and_then(|name| analysis.values.get(name));
            value.is_none_or(|v| v.axes.iter().any(|axis| kept.of(*axis).is_some()))
        };
        self.graph.value_info.retain(|info| !cut(info));
    }
}
