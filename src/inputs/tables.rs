//! Inputs that index the rows of a table: an id outside the table would fail the run.

use crate::graph::{BodyId, Use, View};
use crate::onnx::proto::NodeProto;
use std::collections::HashSet;

/// The operators whose output has the values of their first input, or a part of them, unchanged.
const PASSING: [&str; 9] =
    ["Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Expand", "Slice"];

/// Returns the number of rows of the smallest constant table that the graph input `name` indexes, directly or through
/// operators that pass values on (`PASSING`); `None` if it indexes none.
pub fn rows_indexed_by(view: &View, name: &str) -> Option<i64> {
    let mut queue = vec![(0, name)];
    let mut seen: HashSet<(BodyId, &str)> = queue.iter().copied().collect();
    let mut smallest = None;
    while let Some((owner, value)) = queue.pop() {
        for place in view.uses(owner, value) {
            let Use::Node { body, node, input } = *place else { continue };
            let node = view.node(body, node);
            if let Some(rows) = rows_of_table(view, body, node, input) {
                smallest = Some(smallest.map_or(rows, |s: i64| s.min(rows)));
            }
            let passed = node.output.first().filter(|_| input == 0 && PASSING.iter().any(|op| node.is(op)));
            queue.extend(passed.map(|output| (body, output.as_str())).filter(|next| seen.insert(*next)));
        }
    }
    smallest
}

/// Returns the number of rows of the constant table that the input `input` of `node` indexes; `None` if it indexes
/// none.
fn rows_of_table(view: &View, body: BodyId, node: &NodeProto, input: usize) -> Option<i64> {
    let contrib = node.domain.as_deref() == Some("com.microsoft");
    let (table, axis) = match (node.op(), input) {
        ("Gather", 1) if node.is("Gather") => (0, node.int("axis", 0)),
        ("GatherBlockQuantized", 1) if contrib => (0, node.int("gather_axis", 0)),
        // Word ids and token type ids; their tables are inputs 2 and 4.
        ("EmbedLayerNormalization" | "QEmbedLayerNormalization", 0 | 1) if contrib => (2 + 2 * input, 0),
        _ => return None,
    };
    size_along(view, body, node.input_at(table)?, axis)
}

/// Returns the size of the constant `name` along `axis`, also if nodes dequantize it first; `None` if it is not a
/// constant.
fn size_along(view: &View, body: BodyId, name: &str, axis: i64) -> Option<i64> {
    // A table that is quantized in blocks gets its shape by a Reshape at the end; its first dimension is always the
    // rows.
    let dims = reached(view, body, name, axis == 0)?;
    let axis = usize::try_from(if axis < 0 { axis + dims.len() as i64 } else { axis }).ok()?;
    dims.get(axis).copied()
}

/// Returns the dimensions of the constant `name`, also if a few nodes (`DequantizeLinear`, `Cast`, `Mul`) compute it
/// from a constant, as in quantized models; `None` if it is not a constant.
pub fn dims_of(view: &View, body: BodyId, name: &str) -> Option<Vec<i64>> {
    reached(view, body, name, false)
}

/// Returns dimensions like [`dims_of`]; with `rows`, also through `Reshape`, `Sub` and `Concat` nodes, after which only
/// the number of rows, the first dimension, is the right one.
fn reached(view: &View, body: BodyId, name: &str, rows: bool) -> Option<Vec<i64>> {
    let (mut at, mut name) = (body, name);
    for _ in 0..8 {
        if let Some(constant) = view.constant_or_default(at, name) {
            let mut dims = constant.tensor.dims.clone();
            if constant.transposed {
                dims.reverse();
            }
            return Some(dims);
        }
        let (owner, crate::graph::Producer::Node(index)) = view.producer(at, name)? else { return None };
        let node = view.node(owner, index);
        let keeps_rows = rows && ["Reshape", "Sub", "Concat"].iter().any(|op| node.is(op));
        if !["DequantizeLinear", "Cast", "Mul"].iter().any(|op| node.is(op)) && !keeps_rows {
            return None;
        }
        (at, name) = (owner, node.input_at(0)?);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit;
    use crate::onnx::proto::{GraphProto, ModelProto, TensorProto, ValueInfoProto};

    #[test]
    fn tables_are_found_through_casts_and_the_smallest_counts() {
        let table = |name: &str, dims: &[i64]| TensorProto {
            name: Some(name.into()),
            dims: dims.to_vec(),
            data_type: Some(1),
            ..Default::default()
        };
        let input = |name: &str| ValueInfoProto { name: Some(name.into()), ..Default::default() };
        let mut columns = edit::node("Gather", &["wide", "ids"], &["d"]);
        columns.attribute = vec![edit::int_attribute("axis", -1)];
        let graph = GraphProto {
            input: vec![input("ids"), input("types"), input("other")],
            initializer: vec![table("words", &[30522, 4]), table("wide", &[3, 500]), table("two", &[2, 4])],
            node: vec![
                edit::node("Cast", &["ids"], &["a"]),
                edit::node("Identity", &["a"], &["b"]),
                edit::node("Gather", &["words", "b"], &["c"]),
                columns,
                edit::node("DequantizeLinear", &["two", "scale"], &["two_float"]),
                edit::node("Gather", &["two_float", "types"], &["e"]),
                edit::node("Gather", &["other", "types"], &["f"]),
                edit::node("Add", &["other", "other"], &["g"]),
            ],
            ..Default::default()
        };
        let model = ModelProto { graph: Some(Box::new(graph)), ..Default::default() };
        let view = View::new(&model);
        assert_eq!(rows_indexed_by(&view, "ids"), Some(500));
        assert_eq!(rows_indexed_by(&view, "types"), Some(2));
        assert_eq!(rows_indexed_by(&view, "other"), None);
    }
}
