//! Rules for operators that move, drop or repeat elements: the gradient of each element goes to its origin.

use super::gather::adding;
use crate::autodiff::{Parts, Step, Tape};
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::NodeProto;

/// Returns the gradient of an operator that moves, drops or repeats elements. The operator is also applied to the
/// indices of the elements of its first input, which gives the origin of each element of the output. Indices start at
/// 1; 0 marks elements that the operator inserts. Fails like [every rule](super).
pub fn by_place(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let (flat, column) = (t.ints(&[-1]), t.ints(&[-1, 1]));
    let (shape, count, one) = (t.shape(x), t.op("Size", &[x]), t.int(1));
    let count = t.op("Reshape", &[&count, &flat]);
    let places = t.count_to(&count);
    let places = t.op("Add", &[&places, &one]);
    let places = t.op("Reshape", &[&places, &shape]);
    // Not all of these operators support integers; float64 is exact for all possible indices.
    let places = t.cast(&places, DataType::Float64);
    let moved = t.fresh("places");
    let mut node = NodeProto { name: Some(moved.clone()), output: vec![moved.clone()], ..step.node.clone() };
    node.input[0] = places;
    if node.is("Pad") && node.input.len() > 2 {
        node.input[2] = String::new();
    }
    t.nodes.push(node);
    let places = t.cast(&moved, DataType::Int64);
    let (places, parts) = (t.op("Reshape", &[&places, &column]), t.op("Reshape", &[g, &flat]));
    let room = t.ints(&[1]);
    let size = t.op("Add", &[&count, &room]);
    let zeros = t.zeros(&size);
    let sum = t.op_with("ScatterND", &[&zeros, &places, &parts], adding());
    let all = t.ints(&[i64::MAX]);
    let sum = t.op("Slice", &[&sum, &room, &all]);
    Ok(vec![(0, t.op("Reshape", &[&sum, &shape]))])
}

/// Returns the gradient of `DepthToSpace`, which moves the plane back into blocks of channels. Fails like [every
/// rule](super).
pub fn depth_to_space(t: &mut Tape, step: &Step) -> Result<Parts> {
    let block = step.node.int("blocksize", 1);
    let attributes = vec![edit::int_attribute("blocksize", block)];
    match step.node.attribute("mode").and_then(|a| a.s.as_deref()) {
        Some(b"CRD") => {
            let x = step.input(0)?;
            let (same, sizes, shape) = (t.ints(&[0, -1]), t.ints(&[block]), t.shape(x));
            let (high, wide) = (t.size(x, 2), t.size(x, 3));
            let apart = t.concat(&[&same, &high, &sizes, &wide, &sizes], 0);
            let apart = t.op("Reshape", &[step.gradient()?, &apart]);
            let transposed = t.permuted(&apart, &[0, 1, 3, 5, 2, 4]);
            Ok(vec![(0, t.op("Reshape", &[&transposed, &shape]))])
        }
        _ => Ok(vec![(0, t.op_with("SpaceToDepth", &[step.gradient()?], attributes))]),
    }
}

/// Returns the gradient of `SpaceToDepth`, which moves the blocks of channels back into the plane. Fails like [every
/// rule](super).
pub fn space_to_depth(t: &mut Tape, step: &Step) -> Result<Parts> {
    let attributes = vec![edit::int_attribute("blocksize", step.node.int("blocksize", 1))];
    Ok(vec![(0, t.op_with("DepthToSpace", &[step.gradient()?], attributes))])
}

/// Returns the gradient of `Trilu`: the same triangle of `g`. Fails like [every rule](super).
pub fn triangle(t: &mut Tape, step: &Step) -> Result<Parts> {
    let mut inputs = vec![step.gradient()?];
    inputs.extend(step.node.input_at(1));
    let attributes = vec![edit::int_attribute("upper", step.node.int("upper", 1))];
    Ok(vec![(0, t.op_with("Trilu", &inputs, attributes))])
}

/// Returns the gradient of `TopK`: `g` goes to the selected elements. Fails like [every rule](super).
pub fn top(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let places = t.extra_output(step.index, 1);
    let shape = t.shape(x);
    let zeros = t.zeros(&shape);
    let axis = vec![edit::int_attribute("axis", step.node.int("axis", -1))];
    Ok(vec![(0, t.op_with("ScatterElements", &[&zeros, &places, g], axis))])
}

/// Returns the gradients of `ScatterElements`, which replaces elements of `x` or adds to them. The updates receive `g`
/// at their positions. The gradient of `x` is `g`, with zeros at the replaced positions. Fails with `Unsupported` for
/// the reductions `mul`, `min` and `max`. Also fails like [every rule](super).
pub fn scatter_elements(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, places, updates) = (step.gradient()?, step.input(1)?, step.input(2)?);
    let adds = match step.node.attribute("reduction").and_then(|a| a.s.as_deref()) {
        None | Some(b"none") => false,
        Some(b"add") => true,
        Some(_) => bail!(Unsupported, "a ScatterElements with the reduction mul, min or max is not supported"),
    };
    let axis = || vec![edit::int_attribute("axis", step.node.int("axis", 0))];
    let mut parts = Vec::new();
    if t.wants(&step.node, 0) && adds {
        parts.push((0, g.to_owned()));
    } else if t.wants(&step.node, 0) {
        let shape = t.shape(updates);
        let zeros = t.zeros(&shape);
        parts.push((0, t.op_with("ScatterElements", &[g, places, &zeros], axis())));
    }
    if t.wants(&step.node, 2) {
        parts.push((2, t.op_with("GatherElements", &[g, places], axis())));
    }
    Ok(parts)
}

/// Returns the gradient of `CumSum`: the cumulative sum of `g` from the other end. Fails like [every rule](super).
pub fn running_sum(t: &mut Tape, step: &Step) -> Result<Parts> {
    let attributes = vec![
        edit::int_attribute("exclusive", step.node.int("exclusive", 0)),
        edit::int_attribute("reverse", 1 - step.node.int("reverse", 0)),
    ];
    Ok(vec![(0, t.op_with("CumSum", &[step.gradient()?, step.input(1)?], attributes))])
}
