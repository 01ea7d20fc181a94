//! GPTQ (Frantar et al. 2022, arXiv 2210.17323): weights are rounded column by column, and the error of each is made
//! up for by the columns that follow, so that the *outputs* change least on calibration data.
//!
//! With the inputs `X` of a layer, `H = Xᵀ X / rows + damping`. `H = R Rᵀ` with `R` upper triangular gives
//! `U = R⁻¹`, the Cholesky factor of `H⁻¹` that the paper works with. For column `i` of a row `w`:
//! `e = (w_i - q_i) / U_ii`, and `w_j -= e U_ij` for `j > i`. Columns come in falling order of what flows through them
//! (the authors' `act-order`), and scales and zero points are chosen before (`static-groups`), by the search of
//! [`range`] with the mean squares as importance.

use super::{CodedRow, Coding, range};
use crate::error::{Result, bail};
use rayon::prelude::*;

/// Part of the mean diagonal that is added to it, as in the paper.
const DAMPING: f64 = 0.01;
/// Rows handled by one task.
const ROWS: usize = 32;
/// Columns after which the error is carried to all that are left.
const STEP: usize = 32;

/// What the columns of a weight owe each other: made once for all weights with the same input.
pub struct Factor {
    size: usize,
    /// The columns in falling order of importance.
    order: Vec<usize>,
    /// `U` for the columns in that order, row after row; zero below the diagonal.
    upper: Vec<f32>,
    /// Mean square of each input.
    importance: Vec<f32>,
}

impl Factor {
    /// From `Σ x xᵀ` over `rows` inputs, row after row. Inputs that were always zero count as average.
    pub fn new(gram: &[f32], size: usize, rows: usize) -> Result<Factor> {
        if gram.len() != size * size {
            bail!(Internal, "a product of {} values is no square of {size}", gram.len());
        }
        let scale = 1.0 / rows.max(1) as f64;
        let importance: Vec<f32> = (0..size).map(|i| (f64::from(gram[i * size + i]) * scale) as f32).collect();
        let mean = importance.iter().map(|v| f64::from(*v)).sum::<f64>() / size.max(1) as f64;
        if !mean.is_finite() {
            bail!(InvalidModel, "the calibration data gives values that are not finite");
        }
        let mean = if mean > 0.0 { mean } else { 1.0 };
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|a, b| importance[*b].total_cmp(&importance[*a]));
        // Reversed, so that the lower factor of the reversed matrix is the upper one of the matrix.
        let of = |i: usize, j: usize| gram[order[size - 1 - i] * size + order[size - 1 - j]];
        let at = |i: usize, j: usize| (size - 1 - i) * size + (size - 1 - j);
        for extra in [1.0, 10.0, 100.0] {
            let mut lower = vec![0f64; size * size];
            for i in 0..size {
                for j in 0..=i {
                    lower[i * size + j] = f64::from(of(i, j)) * scale;
                }
                lower[i * size + i] += DAMPING * extra * mean;
            }
            if cholesky(&mut lower, size) {
                let inverse = invert_lower(&lower, size);
                let mut upper = vec![0f32; size * size];
                for i in 0..size {
                    for j in 0..=i {
                        upper[at(i, j)] = inverse[i * size + j] as f32;
                    }
                }
                return Ok(Factor { size, order, upper, importance });
            }
        }
        bail!(InvalidModel, "the calibration data gives no positive matrix")
    }

    /// `U` with rows and columns as the inputs are; `H⁻¹ = Uᵀ U`, for the `H` with its damping.
    pub fn upper(&self) -> Vec<f32> {
        let mut upper = vec![0f32; self.size * self.size];
        for (i, row) in self.upper.chunks_exact(self.size.max(1)).enumerate() {
            row.iter().zip(&self.order).for_each(|(value, j)| upper[i * self.size + j] = *value);
        }
        upper
    }
}

/// `A = L Lᵀ` in place, lower triangle; `false` if `A` is not positive.
fn cholesky(a: &mut [f64], n: usize) -> bool {
    // Left-looking: a panel of columns is brought up to date by all rows at once, then finished one by one.
    const PANEL: usize = 48;
    for start in (0..n).step_by(PANEL) {
        let end = n.min(start + PANEL);
        let panel: Vec<f64> = (start..end).flat_map(|j| a[j * n..j * n + start].to_vec()).collect();
        a[start * n..].par_chunks_mut(n).enumerate().for_each(|(offset, row)| {
            let (known, rest) = row.split_at_mut(start);
            for j in start..end.min(start + offset + 1) {
                rest[j - start] -= dot(known, &panel[(j - start) * start..(j - start + 1) * start]);
            }
        });
        for j in start..end {
            let (done, rest) = a.split_at_mut((j + 1) * n);
            let own = &mut done[j * n..];
            let pivot = own[j] - dot(&own[start..j], &own[start..j]);
            if pivot <= 0.0 || !pivot.is_finite() {
                return false;
            }
            own[j] = pivot.sqrt();
            let own = &*own;
            rest.par_chunks_mut(n).with_min_len(64).for_each(|row| {
                row[j] = (row[j] - dot(&row[start..j], &own[start..j])) / own[j];
            });
        }
    }
    true
}

/// The inverse of a lower triangle.
fn invert_lower(lower: &[f64], n: usize) -> Vec<f64> {
    // Column c of the inverse, kept as a row so that sums run over neighbours.
    let columns: Vec<Vec<f64>> = (0..n)
        .into_par_iter()
        .map(|c| {
            let mut x = vec![0f64; n];
            x[c] = 1.0 / lower[c * n + c];
            for i in c + 1..n {
                x[i] = -dot(&lower[i * n + c..i * n + i], &x[c..i]) / lower[i * n + i];
            }
            x
        })
        .collect();
    let mut inverse = vec![0f64; n * n];
    inverse.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
        for (c, value) in row.iter_mut().enumerate().take(i + 1) {
            *value = columns[c][i];
        }
    });
    inverse
}

/// Sums of products, in lanes that the compiler can keep side by side.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0f64; 8];
    let (a8, b8) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a8.0.iter().zip(b8.0) {
        for i in 0..8 {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum::<f64>() + a8.1.iter().zip(b8.1).map(|(a, b)| a * b).sum::<f64>()
}

/// Codes rows of `size` columns that lie one after another. Their values are used up.
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
        // All columns behind these, for all rows of the tile while the factor's rows are near.
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

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next() + next() + next()).collect()
    }

    /// Inputs whose columns are alike, as those of real layers are: each is a mix of a few.
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
    fn the_factor_is_that_of_the_inverse() {
        for size in [1, 7, 50, 130] {
            let x = inputs(4 * size, size);
            let gram = gram(&x, size);
            let factor = Factor::new(&gram, size, 4 * size).unwrap();
            let mean = factor.importance.iter().sum::<f32>() / size as f32;
            // (Uᵀ U) H = 1
            for i in 0..size {
                for j in 0..size {
                    let upper = factor.upper();
                    let inverse = |i: usize, k: usize| -> f64 {
                        (0..size).map(|m| f64::from(upper[m * size + i]) * f64::from(upper[m * size + k])).sum()
                    };
                    let h = |k: usize, j: usize| {
                        f64::from(gram[k * size + j]) / (4 * size) as f64
                            + if k == j { DAMPING * f64::from(mean) } else { 0.0 }
                    };
                    if (i + j) % 7 == 0 {
                        let found: f64 = (0..size).map(|k| inverse(i, k) * h(k, j)).sum();
                        assert!((found - f64::from(u8::from(i == j))).abs() < 1e-3, "{size}: {i} {j} {found}");
                    }
                }
            }
        }
    }

    #[test]
    fn outputs_change_less_than_by_rounding() {
        let (size, rows, outputs) = (96, 400, 40);
        let x = inputs(rows, size);
        let factor = Factor::new(&gram(&x, size), size, rows).unwrap();
        let weights = numbers(outputs * size, 9);
        for (symmetric, scale) in [(true, ScaleType::Float32), (false, ScaleType::Uint8)] {
            let coding = Coding { bits: 4, block: 32, symmetric, scale };
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
        let factor = Factor::new(&gram(&x, 32), 32, 100).unwrap();
        let coding = Coding { bits: 4, block: 16, symmetric: false, scale: ScaleType::Float16 };
        let coded = code_rows(&coding, &mut numbers(64, 2), &factor);
        assert!(coded.iter().all(|c| c.scales.iter().all(|s| s.is_finite())));
        assert!(Factor::new(&[0.0; 16], 4, 1).is_ok());
        assert!(Factor::new(&[f32::NAN; 16], 4, 1).is_err());
        assert!(Factor::new(&[1.0; 3], 4, 1).is_err());
    }
}
