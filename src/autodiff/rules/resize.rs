//! The rule for `Resize`, which interpolates.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::{Result, bail};
use crate::model::Dim;
use crate::onnx::proto::NodeProto;

/// Returns the gradient of `Resize`. Interpolation is a product with one matrix per dimension, which the node itself
/// returns when it resizes the rows of an identity matrix. The gradient is the product with the transposed matrices.
/// Fails with `Unsupported` for a `Resize` that crops or keeps the aspect ratio, and with `InvalidModel` if it has
/// neither scales nor sizes. Also fails like [every rule](super).
pub fn resize(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, node) = (step.gradient()?, step.input(0)?, &step.node);
    let text = |name: &str| node.attribute(name).and_then(|a| a.s.clone());
    let policy = text("keep_aspect_ratio_policy");
    if text("coordinate_transformation_mode").as_deref() == Some(b"tf_crop_and_resize")
        || !matches!(policy.as_deref(), None | Some(b"stretch"))
    {
        bail!(Unsupported, "a Resize that crops or keeps the aspect ratio is not supported");
    }
    let rank = t.rank(x)?;
    let given = node.attribute("axes").map(|a| a.ints.clone()).unwrap_or_default();
    let axes: Vec<usize> = match given.as_slice() {
        [] => (0..rank).collect(),
        axes => axes.iter().map(|axis| t.axis(*axis, rank)).collect::<Result<_>>()?,
    };
    let scales = node.input_at(2).map(|name| (name, t.numbers(name)));
    let Some(factors) = scales.as_ref().map(|(name, _)| (*name, 2)).or(node.input_at(3).map(|name| (name, 3))) else {
        bail!(InvalidModel, "the node has neither scales nor sizes");
    };
    let mut gradient = g.to_owned();
    for (at, axis) in axes.iter().enumerate() {
        let kept = match scales.as_ref().map(|(_, known)| known) {
            Some(Some(known)) => known.get(at) == Some(&1.0),
            _ => same(t, x, step.output(), *axis),
        };
        if !kept {
            gradient = along(t, (node, factors, at), &gradient, x, *axis, rank);
        }
    }
    Ok(vec![(0, gradient)])
}

fn same(t: &Tape, x: &str, y: &str, axis: usize) -> bool {
    let dim = |value: &str| t.dims(value).and_then(|dims| dims.get(axis)).cloned();
    matches!((dim(x), dim(y)), (Some(Dim::Fixed(a)), Some(Dim::Fixed(b))) if a == b)
}

/// Adds nodes that multiply `gradient` by the transposed matrix of `axis`, and returns the name of the product, which
/// has the size of `x` along `axis`. The axis has index `at` among the factors (scales or sizes).
fn along(
    t: &mut Tape,
    (node, (factors, input), at): (&NodeProto, (&str, usize), usize),
    gradient: &str,
    x: &str,
    axis: usize,
    rank: usize,
) -> String {
    let size = t.size(x, axis);
    let square = t.concat(&[&size, &size], 0);
    let zeros = t.zeros(&square);
    let unit = t.op("EyeLike", &[&zeros]);
    let unit = {
        let front = t.ints(&[1, 1]);
        let sizes = t.concat(&[&front, &square], 0);
        t.op("Reshape", &[&unit, &sizes])
    };
    let own = t.ints(&[at as i64]);
    let own = t.op("Gather", &[factors, &own]);
    let stay = match input {
        2 => t.constant(crate::onnx::dtype::DataType::Float32, &[3], [1.0f32; 3].map(f32::to_le_bytes).concat()),
        _ => {
            let ones = t.ints(&[1, 1]);
            t.concat(&[&ones, &size], 0)
        }
    };
    let own = t.concat(&[&stay, &own], 0);
    let inputs = if input == 2 { vec![unit.as_str(), "", &own] } else { vec![unit.as_str(), "", "", &own] };
    let attributes = node.attribute.iter().filter(|a| a.name.as_deref() != Some("axes")).cloned().collect();
    let weights = t.op_with("Resize", &inputs, attributes);
    // The weights of the shape [1, 1, before, after] become the matrix [after, before].
    let weights = t.permuted(&weights, &[0, 1, 3, 2]);
    let first = t.ints(&[-1]);
    let sizes = t.concat(&[&first, &size], 0);
    let weights = t.op("Reshape", &[&weights, &sizes]);
    let mut order: Vec<i64> = (0..rank as i64).collect();
    order.swap(axis, rank - 1);
    let transposed = t.permuted(gradient, &order);
    let product = t.op("MatMul", &[&transposed, &weights]);
    t.permuted(&product, &order)
}
