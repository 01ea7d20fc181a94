//! [`Factor`]: the correlations between the inputs of a weight, for methods that compensate the change of one weight
//! in the others of its row (GPTQ, SparseGPT).

use crate::error::{Result, bail};
use rayon::prelude::*;

/// Share of the mean diagonal that is added to it, as in the paper.
const DAMPING: f64 = 0.01;

/// The correlations between the inputs of a weight, computed once for all weights with the same input.
///
/// With the inputs `X` of a layer, `H = Xᵀ X / rows + damping`. `H = R Rᵀ` with `R` upper triangular gives `U = R⁻¹`,
/// the Cholesky factor of `H⁻¹`.
pub struct Factor {
    /// Number of columns.
    pub size: usize,
    /// Indices of the columns in processing order.
    pub order: Vec<usize>,
    /// `U` for the columns in that order, row by row; zero below the diagonal.
    pub upper: Vec<f32>,
    /// Mean square of each input.
    pub importance: Vec<f32>,
}

/// The order in which columns are processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnOrder {
    /// Descending importance.
    Importance,
    /// Storage order.
    Natural,
}

impl Factor {
    /// Returns the factor of `Σ x xᵀ` over `rows` inputs, row by row. Inputs that were always zero count as average.
    pub fn new(gram: &[f32], size: usize, rows: usize, by: ColumnOrder) -> Result<Factor> {
        Factor::damped(gram, size, rows, by, DAMPING)
    }

    /// As [`Factor::new`] with another share of the mean diagonal added to it.
    pub fn damped(gram: &[f32], size: usize, rows: usize, by: ColumnOrder, damping: f64) -> Result<Factor> {
        if gram.len() != size * size {
            bail!(Internal, "a product of {} values is not a {size} x {size} matrix", gram.len());
        }
        let scale = 1.0 / rows.max(1) as f64;
        let importance: Vec<f32> = (0..size).map(|i| (f64::from(gram[i * size + i]) * scale) as f32).collect();
        let mean = importance.iter().map(|v| f64::from(*v)).sum::<f64>() / size.max(1) as f64;
        if !mean.is_finite() {
            bail!(InvalidModel, "the calibration data leads to values that are not finite");
        }
        let mean = if mean > 0.0 { mean } else { 1.0 };
        let mut order: Vec<usize> = (0..size).collect();
        if by == ColumnOrder::Importance {
            order.sort_by(|a, b| importance[*b].total_cmp(&importance[*a]));
        }
        // Reversed, so that the lower factor of the reversed matrix is the upper one of the matrix.
        let of = |i: usize, j: usize| gram[order[size - 1 - i] * size + order[size - 1 - j]];
        let at = |i: usize, j: usize| (size - 1 - i) * size + (size - 1 - j);
        for extra in [1.0, 10.0, 100.0] {
            let mut lower = vec![0f64; size * size];
            for i in 0..size {
                for j in 0..=i {
                    lower[i * size + j] = f64::from(of(i, j)) * scale;
                }
                lower[i * size + i] += damping * extra * mean;
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
        bail!(InvalidModel, "the calibration data leads to a matrix that is not positive definite")
    }

    /// Returns `U` with rows and columns in the order of the inputs; `H⁻¹ = Uᵀ U`, for the damped `H`.
    pub fn upper_as_inputs(&self) -> Vec<f32> {
        let mut upper = vec![0f32; self.size * self.size];
        for (i, row) in self.upper.chunks_exact(self.size.max(1)).enumerate() {
            row.iter().zip(&self.order).for_each(|(value, j)| upper[i * self.size + j] = *value);
        }
        upper
    }
}

/// Computes `A = L Lᵀ` in place, lower triangle; returns `false` if `A` is not positive definite.
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

/// Returns the inverse of a lower triangular matrix.
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

/// Returns a sum of products, in lanes that the compiler can vectorize.
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

#[cfg(test)]
mod tests {
    use super::ColumnOrder::{Importance, Natural};
    use super::*;

    /// Of inputs whose columns are alike, as those of real layers are: each is a mix of a few.
    fn gram(rows: usize, size: usize) -> Vec<f32> {
        let mut state = size as u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let mix: Vec<f32> = (0..12 * size).map(|_| next()).collect();
        let mut gram = vec![0f32; size * size];
        for _ in 0..rows {
            let few: Vec<f32> = (0..12).map(|_| next()).collect();
            let mut of = |c: usize| (0..12).map(|k| few[k] * mix[k * size + c]).sum::<f32>() + 0.1 * next();
            let x: Vec<f32> = (0..size).map(&mut of).collect();
            (0..size * size).for_each(|i| gram[i] += x[i / size] * x[i % size]);
        }
        gram
    }

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        for (size, by) in [1, 7, 50, 130].into_iter().flat_map(|n| [(n, Importance), (n, Natural)]) {
            let gram = gram(4 * size, size);
            let factor = Factor::new(&gram, size, 4 * size, by).unwrap();
            let mean = factor.importance.iter().sum::<f32>() / size as f32;
            // (Uᵀ U) H = 1
            for i in 0..size {
                for j in 0..size {
                    let upper = factor.upper_as_inputs();
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
    fn what_is_no_gram_matrix_is_refused() {
        assert!(Factor::new(&[0.0; 16], 4, 1, Natural).is_ok());
        assert!(Factor::new(&[f32::NAN; 16], 4, 1, Importance).is_err());
        assert!(Factor::new(&[1.0; 3], 4, 1, Importance).is_err());
    }
}
