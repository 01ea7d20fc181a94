//! The input of a convolution, as rows of the matrix product that it is equivalent to.

use crate::error::{Result, bail};
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::runtime::Tensor;

/// The number of rows over all batches, per element that is summed over. More rows would hardly change the result.
const ROWS_PER_ELEMENT: usize = 8;

/// The window of a convolution, for each spatial dimension.
#[derive(Clone, PartialEq, Eq)]
pub struct Window {
    sizes: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    before: Vec<usize>,
    after: Vec<usize>,
}

impl Window {
    /// Returns the window of a `Conv`; `None` if it has several groups, or its padding depends on sizes.
    pub fn of(node: &NodeProto, weight: &TensorProto) -> Option<Window> {
        let auto = node.attribute("auto_pad").and_then(|a| a.s.as_deref());
        if node.int("group", 1) != 1 || !matches!(auto, None | Some(b"" | b"NOTSET" | b"VALID")) {
            return None;
        }
        let all = |list: &[i64]| -> Option<Vec<usize>> { list.iter().map(|v| usize::try_from(*v).ok()).collect() };
        let sizes = all(weight.dims.get(2..)?)?;
        let given = |name: &str, count: usize, default: usize| -> Option<Vec<usize>> {
            let list = all(node.attribute(name).map_or(&[], |a| &a.ints))?;
            if list.is_empty() { Some(vec![default; count]) } else { Some(list).filter(|list| list.len() == count) }
        };
        let spatial = sizes.len();
        let pads = given("pads", 2 * spatial, 0)?;
        Some(Window {
            strides: given("strides", spatial, 1)?,
            dilations: given("dilations", spatial, 1)?,
            before: pads[..spatial].to_vec(),
            after: pads[spatial..].to_vec(),
            sizes,
        })
    }

    /// Returns the number of taps of the window.
    pub fn taps(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Returns rows of `size` elements (channels, then taps) at positions spread evenly over a value `[batch, channels,
    /// …]`. It is one of `batches` values, which share the number of rows. Fails with `InvalidModel` if the value does
    /// not fit the convolution.
    pub fn rows(&self, value: &Tensor, size: usize, batches: usize) -> Result<Tensor> {
        let shape: Vec<usize> = value.shape().iter().map(|d| *d as usize).collect();
        let spatial = self.sizes.len();
        if shape.len() != spatial + 2 || shape[1] * self.taps() != size || size == 0 {
            bail!(InvalidModel, "the value is {}, which the convolution does not fit", value.describe());
        }
        let mut places = Vec::with_capacity(spatial);
        for d in 0..spatial {
            let room = shape[d + 2] + self.before[d] + self.after[d];
            let reach = self.dilations[d] * self.sizes[d].saturating_sub(1) + 1;
            places.push(if room < reach { 0 } else { (room - reach) / self.strides[d].max(1) + 1 });
        }
        let each: usize = places.iter().product();
        let all = each * shape[0];
        let wanted = (ROWS_PER_ELEMENT * size).div_ceil(batches.max(1)).clamp(1, all.max(1)).min(all);
        let values = value.to_f32_vec()?;
        let image: usize = shape[2..].iter().product();
        let mut rows = Vec::with_capacity(wanted * size);
        for nth in 0..wanted {
            // The positions are spread over all images of the value, so they differ from image to image.
            let place = (nth as u128 * all as u128 / wanted.max(1) as u128) as usize;
            let of = unravel(place % each.max(1), &places);
            let first = place / each.max(1) * shape[1] * image;
            let taps: Vec<Option<usize>> = (0..self.taps()).map(|tap| self.at(&shape[2..], &of, tap)).collect();
            for channel in values[first..first + shape[1] * image].chunks_exact(image.max(1)) {
                rows.extend(taps.iter().map(|at| at.map_or(0.0, |at| channel[at])));
            }
        }
        Tensor::from_f32(&[wanted as i64, size as i64], rows)
    }

    /// Returns the index of the element of a channel under a tap of the window at a position; `None` in the padding.
    fn at(&self, sizes: &[usize], place: &[usize], tap: usize) -> Option<usize> {
        let taps = unravel(tap, &self.sizes);
        let mut index = 0;
        for d in 0..sizes.len() {
            let at = (place[d] * self.strides[d] + taps[d] * self.dilations[d]).checked_sub(self.before[d])?;
            index = index * sizes[d] + Some(at).filter(|at| *at < sizes[d])?;
        }
        Some(index)
    }
}

fn unravel(mut index: usize, sizes: &[usize]) -> Vec<usize> {
    let mut place = vec![0; sizes.len()];
    for d in (0..sizes.len()).rev() {
        (place[d], index) = (index % sizes[d].max(1), index / sizes[d].max(1));
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit;

    #[test]
    fn rows_times_the_weight_are_the_convolution() {
        // The value is one image of two channels 3 x 3. The window is 2 x 2, with a stride of 2 and padding before the
        // image.
        let mut node = edit::node("Conv", &["x", "w"], &["y"]);
        node.attribute = vec![edit::ints_attribute("pads", &[1, 1, 0, 0]), edit::ints_attribute("strides", &[2, 2])];
        let weight = TensorProto { dims: vec![1, 2, 2, 2], ..Default::default() };
        let window = Window::of(&node, &weight).unwrap();
        let x = Tensor::from_f32(&[1, 2, 3, 3], (1..=18).map(|v| v as f32).collect()).unwrap();
        let rows = window.rows(&x, 8, 1).unwrap();
        assert_eq!(rows.shape(), [4, 8]);
        let rows = rows.as_slice::<f32>().unwrap();
        assert_eq!(rows[..8], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 10.0]);
        assert_eq!(rows[24..], [5.0, 6.0, 8.0, 9.0, 14.0, 15.0, 17.0, 18.0]);
    }
}
