//! Rules for normalizations. Channels can be removed if each is normalized by itself, but not if a mean is taken over
//! them, because it would change.

use super::super::analysis::{Analysis, Judged, axis_at};
use super::elementwise::{meet, together};
use crate::onnx::proto::NodeProto;

const MEAN: &str = "it normalizes over this axis";

/// Links the channels of an image with the vectors among the inputs `vectors` (scale, bias, mean ...).
fn per_channel<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, vectors: std::ops::Range<usize>) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    if x.rank() < 2 {
        return Err("its input has no channels");
    }
    let mut channels = (x.dims[1], x.axes[1]);
    for index in vectors {
        let vector = cx.input(node, index)?.clone();
        if vector.rank() != 1 {
            return Err("its parameters are not vectors");
        }
        channels = meet(cx, channels, (vector.dims[0], vector.axes[0]))?;
    }
    let mut axes = x.axes.clone();
    axes[1] = channels.1;
    cx.set(node, 0, x.dims, axes);
    Ok(())
}

/// Rule for `BatchNormalization` in inference mode.
pub fn batch<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    if node.int("training_mode", 0) != 0 || node.output.iter().skip(1).any(|name| !name.is_empty()) {
        return Err("it is in training mode");
    }
    per_channel(cx, node, 1..5)
}

/// Rule for `InstanceNormalization`: channels can be cut, because each is normalized by itself, over all dimensions
/// after it.
pub fn instance<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    x.axes.iter().skip(2).for_each(|axis| cx.block(*axis, MEAN));
    per_channel(cx, node, 1..3)
}

/// Rule for normalizations over the axes from `axis` on.
pub fn layer<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let first = axis_at(node.int("axis", -1), x.rank())?;
    for index in 1..node.input.len() {
        if let Some(vector) = cx.optional(node, index)? {
            vector.axes.iter().for_each(|axis| cx.block(*axis, MEAN));
        }
    }
    let mut axes = x.axes.clone();
    for axis in &mut axes[first..] {
        cx.block(*axis, MEAN);
        *axis = cx.fixed(MEAN);
    }
    cx.set(node, 0, x.dims, axes);
    // The outputs with mean and deviation are used only in training.
    Ok(())
}

/// Rule for `SkipLayerNormalization` and its variants, which normalize the sum of two or three values over the last
/// axis. The sum is also the fourth output.
pub fn skip<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let (x, skip) = (cx.input(node, 0)?.clone(), cx.input(node, 1)?.clone());
    let (dims, mut axes) = together(cx, &[x, skip])?;
    for index in 2..node.input.len() {
        if let Some(vector) = cx.optional(node, index)? {
            vector.axes.iter().for_each(|axis| cx.block(*axis, MEAN));
        }
    }
    if let Some(last) = axes.last_mut() {
        cx.block(*last, MEAN);
        *last = cx.fixed(MEAN);
    }
    cx.set(node, 0, dims.clone(), axes.clone());
    cx.set(node, 3, dims, axes);
    Ok(())
}

/// Rule for `GroupNormalization`: channels cannot be cut, because they are normalized together.
pub fn group<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    for index in 1..3 {
        let vector = cx.input(node, index)?.clone();
        vector.axes.iter().for_each(|axis| cx.block(*axis, MEAN));
    }
    all_but_first(cx, node)
}

/// Rule for normalizations over several channels, or over selected axes.
pub fn channel<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    all_but_first(cx, node)
}

fn all_but_first<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let mut axes = x.axes.clone();
    let first = usize::from(!matches!(node.op(), "LpNormalization" | "MeanVarianceNormalization"));
    for axis in axes.iter_mut().skip(first) {
        cx.block(*axis, MEAN);
        *axis = cx.fixed(MEAN);
    }
    cx.set(node, 0, x.dims, axes);
    Ok(())
}

/// Rule for `Softmax`, which is over one axis; before opset 13, over all axes from that one on.
pub fn softmax<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let old = cx.opset < 13;
    let first = axis_at(node.int("axis", if old { 1 } else { -1 }), x.rank())?;
    let end = if old { x.rank() } else { first + 1 };
    let mut axes = x.axes.clone();
    for axis in &mut axes[first..end] {
        cx.block(*axis, "it computes a distribution over this axis");
        *axis = cx.fixed("it computes a distribution over this axis");
    }
    cx.set(node, 0, x.dims, axes);
    Ok(())
}
