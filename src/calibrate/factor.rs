//! The correlations between the inputs of a weight ([`Factor`]), for methods that compensate the change of one weight
//! in the others of its row (GPTQ, SparseGPT).

use crate::error::{Result, bail};
use crate::threads::in_pool;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::{cholesky::llt::factor, matmul::matmul, triangular_solve::solve_lower_triangular_in_place};
use faer::{
    Accum, MatMut, MatRef, Par, Spec,
    reborrow::{IntoConst, ReborrowMut},
};
use rayon::prelude::*;

/// The share of the mean diagonal that is added to the diagonal, as in the GPTQ paper.
const DAMPING: f64 = 0.01;

/// The correlations between the inputs of a weight, computed once for all weights with the same input.
///
/// With the inputs `X` of a layer, `H = Xᵀ X / rows + damping`. `H = R Rᵀ` with `R` upper triangular gives `U = R⁻¹`,
/// the Cholesky factor of `H⁻¹`.
pub struct Factor {
    /// Number of columns of the weight.
    pub size: usize,
    /// Indices of the columns in the order in which they are processed.
    pub order: Vec<usize>,
    /// Matrix `U` for the columns in that order, row by row; zero below the diagonal.
    pub upper: Vec<f32>,
    /// Mean square of each input.
    pub importance: Vec<f32>,
}

/// The order in which columns are processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnOrder {
    /// The order of descending importance.
    Importance,
    /// The order in which the columns are stored.
    Natural,
}

impl Factor {
    /// Returns the factor for `gram`, the row-major sum `Σ x xᵀ` over `rows` samples `x`. The damping is 1 % of the
    /// mean of the diagonal; if `H` is not positive definite with it, 10 and 100 times as much is tried.
    ///
    /// Fails with `InvalidModel` if the values are not finite, or if no damping suffices.
    pub fn new(gram: &[f32], size: usize, rows: usize, by: ColumnOrder) -> Result<Factor> {
        Factor::damped(gram, size, rows, by, DAMPING)
    }

    /// Returns the factor like [`Factor::new`], with `damping` in place of 0.01: this share of the mean of the diagonal
    /// is added to the diagonal. Fails like [`Factor::new`].
    pub fn damped(gram: &[f32], size: usize, rows: usize, by: ColumnOrder, damping: f64) -> Result<Factor> {
        in_pool(|| Factor::computed(gram, size, rows, by, damping))
    }

    fn computed(gram: &[f32], size: usize, rows: usize, by: ColumnOrder, damping: f64) -> Result<Factor> {
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
        // The matrix is reversed, because the lower factor of a reversed matrix is the reversed upper factor.
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
                let inverse = transposed_inverse(&lower, size);
                let mut upper = vec![0f32; size * size];
                for i in 0..size {
                    for j in 0..=i {
                        upper[at(i, j)] = inverse[j * size + i] as f32;
                    }
                }
                return Ok(Factor { size, order, upper, importance });
            }
        }
        bail!(InvalidModel, "the calibration data leads to a matrix that is not positive definite")
    }

    /// Returns `U` with its columns in the order of the inputs; its rows stay in processing order, so it is not
    /// triangular. `Uᵀ U` is the inverse of the damped `H` in the order of the inputs.
    pub fn upper_as_inputs(&self) -> Vec<f32> {
        let mut upper = vec![0f32; self.size * self.size];
        for (i, row) in self.upper.chunks_exact(self.size.max(1)).enumerate() {
            row.iter().zip(&self.order).for_each(|(value, j)| upper[i * self.size + j] = *value);
        }
        upper
    }
}

/// The number of rows (of the factor) and columns (of its inverse) that one thread processes at a time. It is constant,
/// and `faer` uses one thread within a block, so results do not depend on the number of threads.
const BLOCK: usize = 192;

/// Computes `A = L Lᵀ` in place, in the lower triangle. Returns `false` if `A` is not positive definite.
fn cholesky(a: &mut [f64], n: usize) -> bool {
    let mut room = MemBuffer::new(factor::cholesky_in_place_scratch::<f64>(BLOCK, Par::Seq, Spec::default()));
    // Left-looking: the columns of a block are updated with all known columns, then finished.
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        let (block, below) = a[start * n..].split_at_mut(width * n);
        let (known, rest) = MatMut::from_row_major_slice_mut(block, width, n).split_at_col_mut(start);
        let (known, mut own) = (known.into_const(), rest.subcols_mut(0, width));
        matmul(own.rb_mut(), Accum::Add, known, known.transpose(), -1.0, Par::Seq);
        let stack = MemStack::new(&mut room);
        if factor::cholesky_in_place(own.rb_mut(), Default::default(), Par::Seq, stack, Spec::default()).is_err() {
            return false;
        }
        let own = own.into_const();
        if !(0..width).all(|i| own[(i, i)] > 0.0 && own[(i, i)].is_finite()) {
            return false;
        }
        below.par_chunks_mut(BLOCK * n).for_each(|rows| {
            let count = rows.len() / n;
            let (before, rest) = MatMut::from_row_major_slice_mut(rows, count, n).split_at_col_mut(start);
            let mut part = rest.subcols_mut(0, width);
            matmul(part.rb_mut(), Accum::Add, before.into_const(), known.transpose(), -1.0, Par::Seq);
            solve_lower_triangular_in_place(own, part.transpose_mut(), Par::Seq);
        });
    }
    true
}

/// Returns the transposed inverse of a lower triangular matrix, row by row.
fn transposed_inverse(lower: &[f64], n: usize) -> Vec<f64> {
    let lower = MatRef::from_row_major_slice(lower, n, n);
    let mut inverse = vec![0f64; n * n];
    inverse.par_chunks_mut(BLOCK * n).enumerate().for_each(|(index, columns)| {
        let (start, width) = (index * BLOCK, columns.len() / n);
        (0..width).for_each(|i| columns[i * n + start + i] = 1.0);
        // Above the diagonal, the inverse keeps its initial value of zero.
        let (_, part) = MatMut::from_row_major_slice_mut(columns, width, n).split_at_col_mut(start);
        let own = lower.submatrix(start, start, n - start, n - start);
        solve_lower_triangular_in_place(own, part.transpose_mut(), Par::Seq);
    });
    inverse
}

#[cfg(test)]
mod tests {
    use super::ColumnOrder::{Importance, Natural};
    use super::*;

    /// Returns `Σ x xᵀ` of inputs with correlated columns, as those of real layers are: each column is a mix of a few.
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
        for (size, by) in [1, 7, 50, 200].into_iter().flat_map(|n| [(n, Importance), (n, Natural)]) {
            let rows = size + 10;
            let gram = gram(rows, size);
            let factor = Factor::new(&gram, size, rows, by).unwrap();
            let mean = factor.importance.iter().sum::<f32>() / size as f32;
            let upper = factor.upper_as_inputs();
            // (Uᵀ U) H = 1
            for i in (0..size).step_by(1 + size / 20) {
                for j in 0..size {
                    let inverse = |i: usize, k: usize| -> f64 {
                        (0..size).map(|m| f64::from(upper[m * size + i]) * f64::from(upper[m * size + k])).sum()
                    };
                    let h = |k: usize, j: usize| {
                        f64::from(gram[k * size + j]) / rows as f64
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
    fn the_factor_does_not_depend_on_the_number_of_threads() {
        let (size, gram) = (450, gram(20, 450));
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Factor::new(&gram, size, 20, Importance)).unwrap().upper
        };
        let alone = with(1);
        assert!([2, 3].iter().all(|threads| with(*threads) == alone));
    }

    #[test]
    fn what_is_no_gram_matrix_is_refused() {
        assert!(Factor::new(&[0.0; 16], 4, 1, Natural).is_ok());
        assert!(Factor::new(&[f32::NAN; 16], 4, 1, Importance).is_err());
        assert!(Factor::new(&[1.0; 3], 4, 1, Importance).is_err());
        assert!(Factor::new(&[1.0, f32::NAN, f32::NAN, 1.0], 2, 1, Natural).is_err());
        assert!(Factor::new(&[1.0, 1e9, 1e9, 1.0], 2, 1, Natural).is_err());
    }
}
