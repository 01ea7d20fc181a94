//! Rules for convolution and pooling windows that slide over an image, and for changes of its size.

use super::super::analysis::{Analysis, Follow, Judged, Value};
use super::super::axes::{Axis, Dim};
use crate::graph::floats::floats;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::NodeProto;

/// The error of a rule for a window that is larger than its input, whose size may be open.
pub const TOO_SHORT: &str = "its window is larger than its input";

/// The attributes of a window of a convolution or pooling.
pub struct Window {
    kernel: Vec<i64>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
    same: bool,
}

impl Window {
    /// Returns the window of a convolution or pooling.
    pub fn of(node: &NodeProto, kernel: &[i64]) -> Judged<Window> {
        let rank = kernel.len();
        let list = |name: &str, count: usize, default: i64| {
            let given = node.attribute(name).map(|a| a.ints.clone()).filter(|list| !list.is_empty());
            let list = given.unwrap_or_else(|| vec![default; count]);
            let fits = |v: &i64| (default.min(1)..1 << 32).contains(v);
            if list.len() == count && list.iter().all(fits) { Ok(list) } else { Err("its window is not valid") }
        };
        let padding = node.attribute("auto_pad").and_then(|a| a.s.as_deref());
        let same = matches!(padding, Some(b"SAME_UPPER" | b"SAME_LOWER"));
        let pads =
            if matches!(padding, None | Some(b"NOTSET")) { list("pads", 2 * rank, 0)? } else { vec![0; 2 * rank] };
        let (strides, dilations) = (list("strides", rank, 1)?, list("dilations", rank, 1)?);
        if kernel.iter().any(|k| !(1..1 << 32).contains(k)) {
            return Err("its window is not valid");
        }
        Ok(Window { kernel: kernel.to_vec(), strides, dilations, pads, same })
    }

    fn span(&self, at: usize) -> i64 {
        (self.kernel[at] - 1).saturating_mul(self.dilations[at]) + 1
    }

    /// Returns the number of positions of the window along the spatial dimension `at`, which has the size `dim`. With
    /// `ceiling`, the last position may extend beyond the image. Fails with [`TOO_SHORT`] if there is no position.
    pub fn out(&self, at: usize, dim: Dim, ceiling: bool) -> Judged<Dim> {
        let stride = self.strides[at];
        let one = |size: i64| {
            if self.same {
                return size.div_euclid(stride) + i64::from(size.rem_euclid(stride) != 0);
            }
            let room = size.saturating_add(self.pads[at] + self.pads[at + self.kernel.len()]) - self.span(at);
            let places = room.div_euclid(stride) + 1;
            // A window that begins in the padding after the image does not count.
            let more = ceiling && room.rem_euclid(stride) != 0 && places * stride < size + self.pads[at];
            places + i64::from(more)
        };
        match [one(dim[0]), one(dim[1])] {
            [a, b] if a > 0 && b > 0 => Ok([a, b]),
            _ => Err(TOO_SHORT),
        }
    }

    /// Returns the size of the output of a transposed convolution along the spatial dimension `at`, for an input of the
    /// size `dim`; `extra` is the output padding.
    pub fn back(&self, at: usize, dim: Dim, extra: i64) -> Dim {
        let pads = self.pads[at] + self.pads[at + self.kernel.len()];
        dim.map(|size| size.saturating_sub(1).saturating_mul(self.strides[at]) + extra + self.span(at) - pads)
    }
}

/// Blocks all dimensions except the first two.
pub fn block_spatial(cx: &mut Analysis<'_>, x: &Value<'_>) {
    x.axes.iter().skip(2).for_each(|axis| cx.block(*axis, "its window slides over this axis"));
}

/// Rule for pooling: the output has the channels of the input. The indices of `MaxPool` count elements of all channels,
/// so with them no channel can be cut.
pub fn pool<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let kernel = node.attribute("kernel_shape").map(|a| a.ints.clone()).unwrap_or_default();
    if x.rank() < 3 || kernel.len() != x.rank() - 2 {
        return Err("its window is not valid");
    }
    let window = Window::of(node, &kernel)?;
    block_spatial(cx, &x);
    let mut dims = x.dims[..2].to_vec();
    for (index, dim) in x.dims[2..].iter().enumerate() {
        dims.push(window.out(index, *dim, node.int("ceil_mode", 0) != 0)?);
    }
    if node.output.iter().skip(1).any(|name| is_used(cx, name)) {
        const TEXT: &str = "its indices depend on the number of channels";
        cx.refuse(node, TEXT);
        let axes: Vec<Axis> = dims.iter().map(|_| cx.fixed(TEXT)).collect();
        (0..node.output.len()).for_each(|index| cx.set(node, index, dims.clone(), axes.clone()));
        return Ok(());
    }
    spread(cx, node, &x, dims);
    Ok(())
}

/// Returns whether a node or the caller reads a value.
fn is_used(cx: &Analysis<'_>, name: &str) -> bool {
    !name.is_empty() && cx.consumers_of.contains_key(name)
        || cx.graph.output.iter().any(|output| output.name.as_deref() == Some(name))
}

/// Rule for global pooling: the output has the channels of the input.
pub fn global_pool<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    if x.rank() < 3 {
        return Err("its input is not an image");
    }
    block_spatial(cx, &x);
    let mut dims = x.dims[..2].to_vec();
    dims.resize(x.rank(), [1, 1]);
    spread(cx, node, &x, dims);
    Ok(())
}

/// Sets the outputs of a node: the first two axes are those of `x`, all others are fixed.
fn spread<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, x: &Value<'m>, dims: Vec<Dim>) {
    let mut axes = x.axes[..2].to_vec();
    axes.resize(dims.len(), cx.fixed("its window slides over this axis"));
    for index in 0..node.output.len() {
        cx.set(node, index, dims.clone(), axes.clone());
    }
}

/// Rule for `Resize` and `Upsample` with constant scales or known sizes; the number of channels must not change.
pub fn resize<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let at = if node.is("Upsample") || cx.opset < 11 { 1 } else { 2 };
    if node.attribute("axes").is_some() {
        return Err("it changes chosen dimensions");
    }
    let scales = node
        .input_at(at)
        .and_then(|name| cx.constants.get(name))
        .filter(|t| t.data_type == Some(DataType::Float32.to_onnx()));
    let scales = scales.and_then(|tensor| floats(tensor).ok());
    let scales = scales.or_else(|| node.attribute("scales").map(|a| a.floats.clone())).filter(|s| !s.is_empty());
    let sizes = if at == 2 { cx.optional(node, 3)? } else { None };
    let dims: Vec<Dim> = match (scales, sizes) {
        (Some(scales), None) if scales.len() == x.rank() => {
            let one = |(dim, scale): (&Dim, &f32)| dim.map(|size| (size as f64 * f64::from(*scale)).floor() as i64);
            x.dims.iter().zip(&scales).map(one).collect()
        }
        (_, Some(sizes)) => {
            let ints = sizes.ints.ok_or("its sizes are computed")?;
            if ints.len() != x.rank() {
                return Err("its sizes do not match");
            }
            let axes = x.axes.iter().zip(&x.dims).zip(&ints);
            let axes = axes.map(|((axis, dim), int)| match axis {
                Axis::Units(id) if *dim == int.values => Some(*id),
                _ => None,
            });
            let follow = Follow::Sizes { node: cx.at, input: 3, ints: ints.clone(), axes: axes.collect() };
            cx.follows.push(follow);
            ints.iter().map(|int| int.values).collect()
        }
        _ => return Err("its scales are computed"),
    };
    through_where_same(cx, node, &x, dims, "it resizes it");
    Ok(())
}

/// Sets the output of a node: axes of unchanged size are those of the input; the others are fixed, and blocked in the
/// input.
fn through_where_same<'m>(
    cx: &mut Analysis<'m>,
    node: &'m NodeProto,
    x: &Value<'m>,
    dims: Vec<Dim>,
    text: &'static str,
) {
    let mut axes = Vec::with_capacity(dims.len());
    for (index, dim) in dims.iter().enumerate() {
        if *dim == x.dims[index] {
            axes.push(x.axes[index]);
        } else {
            cx.block(x.axes[index], text);
            axes.push(cx.fixed(text));
        }
    }
    cx.set(node, 0, dims, axes);
}

/// Rule for `Pad`: an axis without padding is the same axis in the output.
pub fn pad<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let pads = cx.list(node, "pads", 1)?.ok_or("its padding is not known")?;
    if pads.len() != 2 * x.rank() || node.input_at(3).is_some() {
        return Err("its padding is not known");
    }
    let mut axes = Vec::with_capacity(x.rank());
    let mut dims = Vec::with_capacity(x.rank());
    for (index, dim) in x.dims.iter().enumerate() {
        let (before, after) = (pads[index].values, pads[index + x.rank()].values);
        let padded = before != [0, 0] || after != [0, 0];
        dims.push([0, 1].map(|side| dim[side].saturating_add(before[side]).saturating_add(after[side])));
        if padded {
            cx.block(x.axes[index], "it pads it");
            axes.push(cx.fixed("it pads it"));
        } else {
            axes.push(x.axes[index]);
        }
    }
    cx.set(node, 0, dims, axes);
    Ok(())
}
