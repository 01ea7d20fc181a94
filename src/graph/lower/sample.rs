//! Lowering of `GridSample`: images sampled at the points of a grid.

use super::{Lowering, input};
use crate::error::{Result, bail};
use crate::graph::edit::int_attribute;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::NodeProto;

/// The attributes of a `GridSample` node.
struct Reading {
    align: bool,
    border: bool,
    reflect: bool,
}

impl Reading {
    fn new(node: &NodeProto) -> Reading {
        let padding = text(node, "padding_mode").unwrap_or(b"zeros");
        let align = node.int("align_corners", 0) != 0;
        Reading { align, border: padding == b"border", reflect: padding == b"reflection" }
    }
}

fn text<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [u8]> {
    node.attribute(name).and_then(|attribute| attribute.s.as_deref())
}

/// Returns whether each point is the nearest element. Fails with `Unsupported` for cubic interpolation.
fn is_nearest(node: &NodeProto) -> Result<bool> {
    match text(node, "mode") {
        None | Some(b"bilinear" | b"linear") => Ok(false),
        Some(b"nearest") => Ok(true),
        Some(_) => bail!(Unsupported, "a cubic GridSample is not supported"),
    }
}

impl Lowering {
    /// Lowers `GridSample` of 2-D images: each point is the nearest element, or the sum of the four neighbouring
    /// elements, weighted by distance.
    pub(super) fn sample(&mut self, node: &NodeProto) -> Result<()> {
        let (x, grid) = (input(node, 0)?, input(node, 1)?);
        let rank = self.rank(x)?;
        if rank != 4 {
            bail!(
                Unsupported,
                "a GridSample of inputs with {rank} dimensions is not supported, only one of images (4)"
            );
        }
        let (near, reading) = (is_nearest(node)?, Reading::new(node));
        let shape = self.w.op("Shape", &[x]);
        let sizes = [self.w.slice(&shape, 3, 4, 0), self.w.slice(&shape, 2, 3, 0)];
        let floats = [self.w.cast(&sizes[0], DataType::Float32), self.w.cast(&sizes[1], DataType::Float32)];
        // Coordinates along width and height, [batch, points].
        let flat = self.w.reshaped(grid, &[0, -1, 2]);
        let axis = |axis: i64| vec![int_attribute("axis", axis)];
        let mut places = Vec::new();
        for (at, size) in floats.iter().enumerate() {
            let own = self.w.int(at as i64);
            let part = self.w.op_with("Gather", &[&flat, &own], axis(2));
            places.push(self.place(&part, size, &reading));
        }
        // Elements as rows of channels, [batch, high * wide, channels].
        let rows = self.w.reshaped(x, &[0, 0, -1]);
        let rows = self.w.permuted(&rows, &[0, 2, 1]);
        let image = Image { rows, sizes, floats };
        let one = self.w.scalar(1.0);
        let mut sum: Option<String> = None;
        let floors: Vec<String> =
            places.iter().map(|p| self.w.op(if near { "Round" } else { "Floor" }, &[p])).collect();
        let corners: &[(bool, bool)] =
            if near { &[(false, false)] } else { &[(false, false), (true, false), (false, true), (true, true)] };
        for (right, below) in corners {
            let mut weight: Option<String> = None;
            let mut at = Vec::new();
            for (axis, next) in [(0, *right), (1, *below)] {
                let corner = if next { self.w.op("Add", &[&floors[axis], &one]) } else { floors[axis].clone() };
                if !near {
                    let away = self.w.op("Sub", &[&places[axis], &floors[axis]]);
                    let share = if next { away } else { self.w.op("Sub", &[&one, &away]) };
                    weight = Some(weight.map_or(share.clone(), |w| self.w.op("Mul", &[&w, &share])));
                }
                at.push(corner);
            }
            let part = self.corner(&image, &at, weight.as_deref());
            sum = Some(sum.map_or(part.clone(), |sum| self.w.op("Add", &[&sum, &part])));
        }
        let Some(sum) = sum else { bail!(Internal, "no corner") };
        let transposed = self.w.permuted(&sum, &[0, 2, 1]);
        let grid_shape = self.w.op("Shape", &[grid]);
        let (front, back) = (self.w.slice(&shape, 0, 2, 0), self.w.slice(&grid_shape, 1, 3, 0));
        let whole = self.w.concat(&[&front, &back], 0);
        self.w.op_to("Reshape", &[&transposed, &whole], &node.output[0], Vec::new());
        Ok(())
    }

    /// Adds the conversion of coordinates from [-1, 1] to element indices, moved inside if the padding mode requires
    /// it, and returns its name.
    fn place(&mut self, part: &str, size: &str, reading: &Reading) -> String {
        let (one, half) = (self.w.scalar(1.0), self.w.scalar(0.5));
        let last = self.w.op("Sub", &[size, &one]);
        let from_zero = self.w.op("Add", &[part, &one]);
        let halved = self.w.op("Mul", &[&from_zero, &half]);
        let mut place = if reading.align {
            self.w.op("Mul", &[&halved, &last])
        } else {
            let scaled = self.w.op("Mul", &[&halved, size]);
            self.w.op("Sub", &[&scaled, &half])
        };
        if reading.reflect {
            // With `align_corners`, -1 and 1 are the centers of the outer elements, otherwise their outer edges.
            let (least, span) = match reading.align {
                true => (self.w.scalar(0.0), last.clone()),
                false => (self.w.scalar(-0.5), size.to_owned()),
            };
            let away = self.w.op("Sub", &[&place, &least]);
            let away = self.w.op("Abs", &[&away]);
            let times = self.w.op("Div", &[&away, &span]);
            let times = self.w.op("Floor", &[&times]);
            let whole = self.w.op("Mul", &[&times, &span]);
            let rest = self.w.op("Sub", &[&away, &whole]);
            let back = self.w.op("Sub", &[&span, &rest]);
            let (two, none) = (self.w.scalar(2.0), self.w.scalar(0.0));
            let odd = self.w.op_with("Mod", &[&times, &two], vec![int_attribute("fmod", 1)]);
            let even = self.w.op("Equal", &[&odd, &none]);
            let bent = self.w.op("Where", &[&even, &rest, &back]);
            place = self.w.op("Add", &[&bent, &least]);
        }
        if reading.border || reading.reflect {
            let none = self.w.scalar(0.0);
            let scalar = self.w.constant(DataType::Int64, &[0], Vec::new());
            let last = self.w.op("Reshape", &[&last, &scalar]);
            place = self.w.op("Clip", &[&place, &none, &last]);
        }
        place
    }

    /// Adds the elements at integer coordinates, times `weight`, and returns their name; they are 0 outside of the
    /// image.
    fn corner(&mut self, image: &Image, at: &[String], weight: Option<&str>) -> String {
        let (zero, one, last_axis) = (self.w.ints(&[0]), self.w.ints(&[1]), self.w.ints(&[-1]));
        let mut inside: Option<String> = None;
        let mut indices = Vec::new();
        let none = self.w.scalar(0.0);
        for (axis, place) in at.iter().enumerate() {
            let (low, high) =
                (self.w.op("GreaterOrEqual", &[place, &none]), self.w.op("Less", &[place, &image.floats[axis]]));
            let both = self.w.op("And", &[&low, &high]);
            inside = Some(inside.map_or(both.clone(), |inside| self.w.op("And", &[&inside, &both])));
            let index = self.w.cast(place, DataType::Int64);
            let last = self.w.op("Sub", &[&image.sizes[axis], &one]);
            let index = self.w.op("Max", &[&index, &zero]);
            indices.push(self.w.op("Min", &[&index, &last]));
        }
        let row = self.w.op("Mul", &[&indices[1], &image.sizes[0]]);
        let index = self.w.op("Add", &[&row, &indices[0]]);
        let index = self.w.op("Unsqueeze", &[&index, &last_axis]);
        let found = self.w.op_with("GatherND", &[&image.rows, &index], vec![int_attribute("batch_dims", 1)]);
        let inside = self.w.cast(&inside.unwrap_or_default(), DataType::Float32);
        let factor = weight.map_or(inside.clone(), |weight| self.w.op("Mul", &[&inside, weight]));
        let factor = self.w.op("Unsqueeze", &[&factor, &last_axis]);
        self.w.op("Mul", &[&found, &factor])
    }
}

/// The image that is sampled.
struct Image {
    /// Name of the elements, `[batch, height * width, channels]`.
    rows: String,
    /// Names of width and height, as tensors with one integer.
    sizes: [String; 2],
    /// Names of width and height, as tensors with one float.
    floats: [String; 2],
}
