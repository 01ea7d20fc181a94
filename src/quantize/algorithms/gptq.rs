//! GPTQ (Frantar et al. 2022, arXiv 2210.17323): weights are rounded column by column, and the error of each is
//! compensated in the columns that follow, so that the *outputs* change least on calibration data.
//!
//! With the inputs `X` of a layer, `H = Xᵀ X / rows + damping`. `H = R Rᵀ` with `R` upper triangular gives `U = R⁻¹`,
//! the Cholesky factor of `H⁻¹` in the paper. For column `i` of a row `w`: `e = (w_i - q_i) / U_ii`, and `w_j -= e
//! U_ij` for `j > i`. Columns are processed in descending order of activation (the authors' `act-order`), and scales
//! and zero points are chosen before (`static-groups`), by the search of [`range`] with the mean squares as
//! importance.

use super::{CodedRow, Coding, range};
use crate::calibrate::Factor;
use rayon::prelude::*;

/// The number of rows per task.
const ROWS: usize = 32;
/// The number of columns after which the error is propagated to all remaining ones.
const STEP: usize = 32;

/// Returns the codes of consecutive rows, each of as many columns as the factor has. The values in `rows` are
/// overwritten.
pub fn code_rows(coding: &Coding, rows: &mut [f32], factor: &Factor) -> Vec<CodedRow> {
    rows.par_chunks_mut(ROWS * factor.size).flat_map_iter(|rows| code_tile(coding, rows, factor)).collect()
}

fn code_tile(coding: &Coding, rows: &mut [f32], factor: &Factor) -> Vec<CodedRow> {
    let n = factor.size;
    let count = rows.len() / n;
    let choose = |row: &[f32]| range::code_row(coding, row, Some(&factor.importance));
    let mut coded: Vec<CodedRow> = rows.chunks(n).map(choose).collect();
    let mut line = vec![0f32; n];
    for row in rows.chunks_mut(n) {
        line.copy_from_slice(row);
        row.iter_mut().zip(&factor.order).for_each(|(value, from)| *value = line[*from]);
    }
    let mut errors = vec![0f32; count * STEP];
    for start in (0..n).step_by(STEP) {
        let end = n.min(start + STEP);
        for (r, coded) in coded.iter_mut().enumerate() {
            let row = &mut rows[r * n..(r + 1) * n];
            for i in start..end {
                let upper = &factor.upper[i * n..(i + 1) * n];
                let (column, block) = (factor.order[i], factor.order[i] / coding.block);
                let code = coded.nearest(coding, block, row[i]);
                let error = (row[i] - coded.value(block, code)) / upper[i];
                coded.codes[column] = code;
                errors[r * STEP + i - start] = error;
                row[i + 1..end].iter_mut().zip(&upper[i + 1..end]).for_each(|(w, u)| *w -= error * u);
            }
        }
        // All later columns are updated for all rows of the tile, while the factor's rows are in the cache.
        for i in start..end {
            let upper = &factor.upper[i * n + end..(i + 1) * n];
            for r in 0..count {
                let error = errors[r * STEP + i - start];
                let rest = &mut rows[r * n + end..(r + 1) * n];
                rest.iter_mut().zip(upper).for_each(|(w, u)| *w -= error * u);
            }
        }
    }
    coded
}

#[cfg(test)]
mod tests {
    use super::super::ScaleType;
    use super::*;
    use crate::calibrate::ColumnOrder;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next() + next() + next()).collect()
    }

    /// Returns inputs with correlated columns, as those of real layers are: each column is a mix of a few.
    fn inputs(rows: usize, size: usize) -> Vec<f32> {
        let (few, mix) = (numbers(rows * 12, 3), numbers(12 * size, 4));
        let noise = numbers(rows * size, 5);
        let value = |r: usize, c: usize| -> f32 { (0..12).map(|k| few[r * 12 + k] * mix[k * size + c]).sum() };
        (0..rows * size).map(|i| value(i / size, i % size) + 0.1 * noise[i]).collect()
    }

    fn gram(x: &[f32], size: usize) -> Vec<f32> {
        let mut gram = vec![0f32; size * size];
        for row in x.chunks(size) {
            for i in 0..size {
                for j in 0..size {
                    gram[i * size + j] += row[i] * row[j];
                }
            }
        }
        gram
    }

    #[test]
    fn outputs_change_less_than_by_rounding() {
        let (size, rows, outputs) = (96, 400, 40);
        let x = inputs(rows, size);
        let factor = Factor::new(&gram(&x, size), size, rows, ColumnOrder::Importance).unwrap();
        let weights = numbers(outputs * size, 9);
        for (symmetric, scale) in [(true, ScaleType::Float32), (false, ScaleType::Uint8)] {
            let coding = Coding { bits: 4, block: 32, symmetric, scale, hqq: false };
            let error = |coded: &[CodedRow]| -> f32 {
                let difference =
                    |n: usize, k: usize| weights[n * size + k] - coded[n].value(k / coding.block, coded[n].codes[k]);
                let of = |row: &[f32], n: usize| -> f32 { (0..size).map(|k| row[k] * difference(n, k)).sum() };
                x.chunks(size).map(|row| (0..outputs).map(|n| of(row, n).powi(2)).sum::<f32>()).sum()
            };
            let rounded: Vec<CodedRow> =
                weights.chunks(size).map(|w| range::code_row(&coding, w, Some(&factor.importance))).collect();
            let spread = code_rows(&coding, &mut weights.clone(), &factor);
            let (rounded, spread) = (error(&rounded), error(&spread));
            assert!(spread < 0.5 * rounded, "{spread} {rounded}");
        }
    }

    #[test]
    fn inputs_that_are_always_zero_or_not_finite() {
        let mut x = inputs(100, 32);
        x.iter_mut().step_by(32).for_each(|v| *v = 0.0);
        let factor = Factor::new(&gram(&x, 32), 32, 100, ColumnOrder::Importance).unwrap();
        let coding = Coding { bits: 4, block: 16, symmetric: false, scale: ScaleType::Float16, hqq: false };
        let coded = code_rows(&coding, &mut numbers(64, 2), &factor);
        assert!(coded.iter().all(|c| c.scales.iter().all(|s| s.is_finite())));
    }
}
