//! Elementwise operations on a product after the epilogue of the kernel.

use std::sync::Mutex;

use crate::kernels::{Class, Parallel, activate};
use crate::provider::abi::{Error, Result};
use crate::provider::compiled::{Part, Reader};
use crate::provider::patterns::Grid;
pub use crate::provider::patterns::Step;

/// Approximate number of elements per task.
const CHUNK: usize = 16 << 10;

/// Applies `steps` to `out`, which has rows of `n` elements.
pub fn apply(steps: &[Step], n: usize, out: &mut [f32], class: Class, parallel: &dyn Parallel) {
    for step in steps {
        match step {
            Step::Round(grid) => by_rows(n, out, parallel, &|row| round(grid, row)),
            Step::Bias(bias) => by_rows(n, out, parallel, &|row| {
                row.chunks_exact_mut(n)
                    .for_each(|row| row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias));
            }),
            Step::Activation(activation) => {
                let before = out.to_vec();
                activate(class, &before, None, *activation, out, parallel);
            }
        }
    }
}

/// Calls `work` with pieces of `out` that consist of whole rows.
fn by_rows(n: usize, out: &mut [f32], parallel: &dyn Parallel, work: &(dyn Fn(&mut [f32]) + Sync)) {
    let each = (CHUNK / n.max(1)).max(1) * n.max(1);
    let pieces: Vec<_> = out.chunks_mut(each).map(Mutex::new).collect();
    parallel.run(pieces.len(), &|index| {
        if let Ok(mut piece) = pieces[index].lock() {
            work(&mut piece);
        }
    });
}

/// Quantizes and dequantizes `values` with `grid`, like `QuantizeLinear` and `DequantizeLinear`.
fn round(grid: &Grid, values: &mut [f32]) {
    // Adding and then subtracting 1.5 · 2²³ rounds a small number to the nearest integer, ties to even.
    const ROUND: f32 = 12_582_912.0;
    let Grid { scale, zero_point, signed } = *grid;
    let (least, most) = if signed { (-128, 127) } else { (0, 255) };
    let (least, most) = ((least - zero_point) as f32, (most - zero_point) as f32);
    for value in values {
        let steps = *value / scale;
        // `clamp` is not used, because NaN must become a number here, as in ONNX Runtime.
        let steps = if steps > least { steps } else { least };
        let steps = if steps < most { steps } else { most };
        *value = (steps + ROUND - ROUND) * scale;
    }
}

/// Writes `steps` to a part of a compiled model.
pub fn write(steps: &[Step], part: &mut Part) {
    part.size(steps.len());
    for step in steps {
        match step {
            Step::Round(Grid { scale, zero_point, signed }) => {
                part.number(0);
                part.float(*scale);
                part.number(*zero_point as u64);
                part.number(u64::from(*signed));
            }
            Step::Bias(bias) => {
                part.number(1);
                part.floats(Some(bias));
            }
            Step::Activation(activation) => {
                part.number(2);
                part.activation(*activation);
            }
        }
    }
}

/// Returns the operations that [`write`] wrote. Fails if the part is damaged.
pub fn open(reader: &mut Reader<'_>) -> Result<Vec<Step>> {
    let count = reader.size()?;
    let step = |_| {
        Ok(match reader.number()? {
            0 => {
                let (scale, zero_point, signed) = (reader.float()?, reader.number()? as i32, reader.number()? != 0);
                Step::Round(Grid { scale, zero_point, signed })
            }
            1 => Step::Bias(reader.floats()?.unwrap_or_default()),
            2 => Step::Activation(reader.activation()?),
            _ => return Err(Error::new("the kind of a step is unknown")),
        })
    };
    (0..count).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Serial;

    #[test]
    fn a_grid_rounds_half_to_even_and_cuts_off() {
        let grid = Grid { scale: 0.5, zero_point: 10, signed: false };
        let mut values = [0.25, 0.75, -0.26, 1e9, -1e9, f32::INFINITY];
        apply(&[Step::Round(grid)], 3, &mut values, Class::Scalar, &Serial);
        assert_eq!(values, [0.0, 1.0, -0.5, 122.5, -5.0, 122.5]);
    }

    #[test]
    fn steps_are_applied_in_order_to_whole_rows() {
        let steps = [Step::Bias(vec![1.0, -2.0]), Step::Activation(crate::kernels::Activation::Relu)];
        let mut values = [0.0, 0.0, 1.0, 5.0];
        apply(&steps, 2, &mut values, Class::Scalar, &Serial);
        assert_eq!(values, [1.0, 0.0, 2.0, 3.0]);
    }
}
