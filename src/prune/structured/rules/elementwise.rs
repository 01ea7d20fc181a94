//! Rules for elementwise functions.

use super::super::analysis::{Analysis, Judged, Value};
use super::super::axes::{Axis, Dim, Int, is_fixed};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::NodeProto;

/// The operators that compute a function of each element of the first input. Further inputs are scalars.
pub const UNARY: [&str; 46] = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
];

/// The operators that compute a function of the elements at the same position of all inputs, with broadcasting.
pub const BROADCAST: [&str; 24] = [
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "PRelu",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];

/// Rule for unary functions: the first output, and the mask of a `Dropout`, are like the first input.
pub fn unary<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    for index in 0..node.output.len() {
        cx.set(node, index, x.dims.clone(), x.axes.clone());
    }
    let moved = matches!(node.op(), "Cast" | "Identity");
    if let Some(value) = node.output.first().and_then(|name| cx.values.get_mut(name.as_str())).filter(|_| moved) {
        value.constant = x.constant;
        // Halves of a size may be fractions as floats, so a size that is cast to float no longer counts as an integer.
        let to = i32::try_from(node.int("to", 0)).ok().and_then(DataType::from_onnx);
        let whole = !node.is("Cast") || matches!(to, Some(DataType::Int64 | DataType::Int32));
        value.ints = x.ints.clone().filter(|_| whole);
    }
    if let (Some(ints), "Neg") = (x.ints, node.op()) {
        let zero = Int::constant([0, 0]);
        cx.set_ints(node, ints.iter().map(|i| Int::of(|a, b| a.wrapping_sub(b), &zero, i)).collect());
    }
    Ok(())
}

/// Rule for elementwise functions with broadcasting.
pub fn broadcast<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let mut inputs = Vec::with_capacity(node.input.len());
    for index in 0..node.input.len() {
        inputs.extend(cx.optional(node, index)?);
    }
    let (dims, axes) = together(cx, &inputs)?;
    let ints = computed(node, &inputs);
    cx.set(node, 0, dims, axes);
    cx.set_ints(node, ints);
    Ok(())
}

/// Returns the dimensions and axes of the result of broadcasting.
pub fn together(cx: &mut Analysis<'_>, inputs: &[Value<'_>]) -> Judged<(Vec<Dim>, Vec<Axis>)> {
    let rank = inputs.iter().map(Value::rank).max().ok_or("it lacks an input")?;
    let (mut dims, mut axes) = (Vec::with_capacity(rank), Vec::with_capacity(rank));
    for place in 0..rank {
        let mut found: Option<(Dim, Axis)> = None;
        for value in inputs {
            let Some(at) = (place + value.rank()).checked_sub(rank) else { continue };
            let (dim, axis) = (value.dims[at], value.axes[at]);
            found = Some(match found {
                None => (dim, axis),
                Some(known) => meet(cx, known, (dim, axis))?,
            });
        }
        let (dim, axis) = found.ok_or("it lacks an input")?;
        dims.push(dim);
        axes.push(axis);
    }
    Ok((dims, axes))
}

/// Returns one dimension of the result of broadcasting two values.
pub fn meet(cx: &mut Analysis<'_>, a: (Dim, Axis), b: (Dim, Axis)) -> Judged<(Dim, Axis)> {
    match (a.0, b.0) {
        ([1, 1], _) => Ok(b),
        (_, [1, 1]) => Ok(a),
        (x, y) if is_fixed(x) && is_fixed(y) && x != y => Err("the shapes of its inputs do not match"),
        (x, y) if is_fixed(x) != is_fixed(y) => {
            // At run time the open size equals the fixed one, or is 1.
            let (fixed, axis) = if is_fixed(x) { a } else { b };
            cx.block(axis, "the size of its other input along this axis is not fixed");
            Ok((fixed, cx.fixed("the size of its other input along this axis is not fixed")))
        }
        (x, _) => Ok((x, cx.link(a.1, b.1))),
    }
}

/// A function of two integers, applied to each pair of elements.
type Step = dyn Fn(&Int, &Int) -> Option<Int>;

/// Returns the elements of an output that is a small list of integers; `None` if they are unknown.
fn computed(node: &NodeProto, inputs: &[Value<'_>]) -> Option<Vec<Int>> {
    let lists: Vec<&Vec<Int>> = inputs.iter().map(|v| v.ints.as_ref()).collect::<Option<_>>()?;
    let count = lists.iter().map(|l| l.len()).max()?;
    // Lists are combined only if they have equal dimensions, or one element.
    let widest = inputs.iter().max_by_key(|v| (v.ints.as_ref().map_or(0, Vec::len), v.rank()))?;
    let alike = |v: &Value<'_>| v.dims == widest.dims || v.ints.as_ref().is_some_and(|l| l.len() == 1);
    if lists.iter().any(|l| l.len() != 1 && l.len() != count) || !inputs.iter().all(alike) {
        return None;
    }
    let at = |list: &'_ Vec<Int>, i: usize| list[if list.len() == 1 { 0 } else { i }].clone();
    if node.is("Where") {
        let [condition, yes, no] = lists.as_slice() else { return None };
        let choose = |i: usize| match at(condition, i).values {
            [0, 0] => Some(at(no, i)),
            [a, b] if a != 0 && b != 0 => Some(at(yes, i)),
            _ => None,
        };
        return (0..count).map(choose).collect();
    }
    let of = |function: fn(i64, i64) -> i64| -> Box<Step> { Box::new(move |a, b| Int::of(function, a, b)) };
    let made = match node.op() {
        "Add" | "Sum" => of(|a, b| a.wrapping_add(b)),
        "Sub" => of(|a, b| a.wrapping_sub(b)),
        "Mul" => Box::new(Int::product),
        "Div" => of(|a, b| a.checked_div(b).unwrap_or(0)),
        "Max" => of(|a, b| a.max(b)),
        "Min" => of(|a, b| a.min(b)),
        "Equal" => of(|a, b| i64::from(a == b)),
        "Greater" => of(|a, b| i64::from(a > b)),
        "Less" => of(|a, b| i64::from(a < b)),
        _ => return None,
    };
    let [a, b] = lists.as_slice() else { return None };
    (0..count).map(|i| made(&at(a, i), &at(b, i))).collect()
}
