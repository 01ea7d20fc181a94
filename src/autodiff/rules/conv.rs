//! Rules for convolutions.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::onnx::proto::NodeProto;

/// The attributes of a convolution or pooling, with defaults for missing ones.
pub(super) struct Window {
    /// Stride along each dimension.
    pub strides: Vec<i64>,
    /// Distance between elements of the kernel along each dimension.
    pub dilations: Vec<i64>,
    /// Padding before each dimension, followed by padding after each dimension.
    pub pads: Vec<i64>,
    /// Number of groups of channels.
    pub group: i64,
}

impl Window {
    /// Returns the attributes of a node over `spatial` dimensions. Fails with `Unsupported` for an `auto_pad` other
    /// than `NOTSET` and `VALID`.
    pub fn of(node: &NodeProto, spatial: usize) -> Result<Window> {
        let auto = node.attribute("auto_pad").and_then(|a| a.s.as_deref());
        if !matches!(auto, None | Some(b"NOTSET" | b"VALID")) {
            bail!(Unsupported, "automatic padding (auto_pad) is not supported: export the model with explicit pads");
        }
        let list = |name: &str, default: i64, count: usize| match node.attribute(name) {
            Some(attribute) if attribute.ints.len() == count => attribute.ints.clone(),
            _ => vec![default; count],
        };
        Ok(Window {
            strides: list("strides", 1, spatial),
            dilations: list("dilations", 1, spatial),
            pads: list("pads", 0, 2 * spatial),
            group: node.int("group", 1),
        })
    }
}

/// Adds nodes for the gradient of the input `x` of a convolution with `kernel`, and returns its name. The gradient is
/// the transposed convolution, cropped or padded to the sizes of the input (no window may reach its last elements).
pub(super) fn back(t: &mut Tape, g: &str, kernel: &str, x: &str, window: &Window, group: i64) -> Result<String> {
    let spatial = window.strides.len();
    let mut pads = window.pads[..spatial].to_vec();
    pads.resize(2 * spatial, 0);
    let attributes = vec![
        edit::ints_attribute("strides", &window.strides),
        edit::ints_attribute("dilations", &window.dilations),
        edit::ints_attribute("pads", &pads),
        edit::int_attribute("group", group),
    ];
    let reach = t.op_with("ConvTranspose", &[g, kernel], attributes);
    // At most a stride minus one elements remain after the last window.
    let mut room = vec![0; 2 * (spatial + 2)];
    for (at, stride) in window.strides.iter().enumerate() {
        room[spatial + 4 + at] = stride - 1;
    }
    let room = t.ints(&room);
    let filled = t.op("Pad", &[&reach, &room]);
    let axes: Vec<i64> = (2..spatial as i64 + 2).collect();
    let sizes: Vec<String> = axes.iter().map(|axis| t.size(x, *axis as usize)).collect();
    let names: Vec<&str> = sizes.iter().map(String::as_str).collect();
    let sizes = t.op_with("Concat", &names, vec![edit::int_attribute("axis", 0)]);
    let (zeros, axes) = (t.ints(&vec![0; spatial]), t.ints(&axes));
    Ok(t.op("Slice", &[&filled, &zeros, &sizes, &axes]))
}

/// Adds nodes for the gradient of a kernel, and returns its name. The gradient is the convolution of `input` with `g`,
/// with batch and channels exchanged. `input` has `window.group` groups of channels.
fn of_kernel(t: &mut Tape, input: &str, g: &str, kernel: &str, window: &Window) -> Result<String> {
    let spatial = window.strides.len();
    let rank = spatial + 2;
    let rest = |from: usize| (from as i64..(from + spatial) as i64).collect::<Vec<i64>>();
    let perm = |front: &[i64], from: usize| {
        vec![edit::ints_attribute("perm", &front.iter().copied().chain(rest(from)).collect::<Vec<i64>>())]
    };
    // [n, group c, ...] -> [c, group n, ...].
    let channels = t.size(kernel, 1);
    let (shape, group, same) = (t.op("Shape", &[input]), t.ints(&[window.group]), t.ints(&[0]));
    let (two, end, all) = (t.ints(&[2]), t.ints(&[rank as i64]), t.ints(&[-1]));
    let sizes = t.op("Slice", &[&shape, &two, &end]);
    let axis = || vec![edit::int_attribute("axis", 0)];
    let apart = t.op_with("Concat", &[&same, &group, &channels, &sizes], axis());
    let together = t.op_with("Concat", &[&channels, &all, &sizes], axis());
    let grouped = t.op("Reshape", &[input, &apart]);
    let transposed = t.op_with("Transpose", &[&grouped], perm(&[2, 1, 0], 3));
    let transposed = t.op("Reshape", &[&transposed, &together]);
    let filter = t.op_with("Transpose", &[g], perm(&[1, 0], 2));
    let attributes = vec![
        edit::ints_attribute("strides", &window.dilations),
        edit::ints_attribute("dilations", &window.strides),
        edit::ints_attribute("pads", &window.pads),
        edit::int_attribute("group", window.group),
    ];
    let found = t.op_with("Conv", &[&transposed, &filter], attributes);
    // If the strides do not divide the input evenly, the result is larger than the kernel.
    let axes: Vec<i64> = (2..rank as i64).collect();
    let kernel_shape = t.shape(kernel);
    let sizes = t.op("Slice", &[&kernel_shape, &two, &end]);
    let (zeros, axes) = (t.ints(&vec![0; spatial]), t.ints(&axes));
    let found = t.op("Slice", &[&found, &zeros, &sizes, &axes]);
    Ok(t.op_with("Transpose", &[&found], perm(&[1, 0], 2)))
}

/// Adds a node that sums `g` over all dimensions except the channels, and returns the name of the sum.
fn of_bias(t: &mut Tape, g: &str, rank: usize) -> String {
    let axes: Vec<i64> = (0..rank as i64).filter(|axis| *axis != 1).collect();
    t.sum(g, &axes, false)
}

/// Returns the gradients of a convolution with respect to input, kernel and bias, as far as they are needed. Fails like
/// [`Window::of`]. Also fails like [every rule](super).
pub fn conv(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, kernel) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let rank = t.rank(x)?;
    let window = Window::of(&step.node, rank.saturating_sub(2))?;
    let mut parts = Vec::new();
    if t.wants(&step.node, 0) {
        parts.push((0, back(t, g, kernel, x, &window, window.group)?));
    }
    if t.wants(&step.node, 1) {
        parts.push((1, of_kernel(t, x, g, kernel, &window)?));
    }
    if t.wants(&step.node, 2) {
        parts.push((2, of_bias(t, g, rank)));
    }
    Ok(parts)
}

/// Returns the gradients of a transposed convolution, in which input and gradient exchange roles. Fails with
/// `Unsupported` for `output_shape`, and like [`Window::of`]. Also fails like [every rule](super).
pub fn transposed(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, x, kernel) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let rank = t.rank(x)?;
    let window = Window::of(&step.node, rank.saturating_sub(2))?;
    if step.node.attribute("output_shape").is_some() {
        bail!(Unsupported, "a ConvTranspose with an output_shape is not supported");
    }
    let mut parts = Vec::new();
    if t.wants(&step.node, 0) {
        let attributes = vec![
            edit::ints_attribute("strides", &window.strides),
            edit::ints_attribute("dilations", &window.dilations),
            edit::ints_attribute("pads", &window.pads),
            edit::int_attribute("group", window.group),
        ];
        let whole = t.op_with("Conv", &[g, kernel], attributes);
        let (shape, zeros) = (t.shape(x), t.ints(&vec![0; rank]));
        parts.push((0, t.op("Slice", &[&whole, &zeros, &shape])));
    }
    if t.wants(&step.node, 1) {
        parts.push((1, of_kernel(t, g, x, kernel, &window)?));
    }
    if t.wants(&step.node, 2) {
        parts.push((2, of_bias(t, g, rank)));
    }
    Ok(parts)
}

/// Adds a constant kernel of one channel, of the spatial `sizes`, filled with `value`, and returns its name.
pub(super) fn flat_kernel(t: &mut Tape, sizes: &[i64], value: f32) -> String {
    let count = sizes.iter().product::<i64>().max(0) as usize;
    let dims: Vec<i64> = [1, 1].iter().chain(sizes).copied().collect();
    let raw = std::iter::repeat_n(value.to_le_bytes(), count).flatten().collect();
    t.constant(crate::onnx::dtype::DataType::Float32, &dims, raw)
}
