//! SparseGPT (Frantar & Alistarh 2023, arXiv 2301.00774): weights are set to zero column by column, and the weights
//! after them in the row compensate the error, so that outputs change least on calibration data.
//!
//! With `U` of [`Factor`], setting `w_i` to zero costs `w_i² / U_ii²`. Columns are processed in blocks of 128. When a
//! block is reached, its weights with the smallest cost over all rows are selected (the paper's adaptive mask); with a
//! pattern `n:m`, those of each group when the group is reached. Each selected weight has the error `e = w_i / U_ii`,
//! and `w_j -= e U_ij` for `j > i`.

use super::options::Pattern;
use crate::calibrate::Factor;
use crate::call::Ticket;
use crate::error::Result;
use rayon::prelude::*;

/// The number of columns that are ranked together.
const BLOCK: usize = 128;
/// The number of rows per task.
const ROWS: usize = 32;

/// Prunes a weight in place. `values` holds its rows of `factor.size` elements; the columns of `factor` must be in
/// [`ColumnOrder::Natural`](crate::calibrate::ColumnOrder::Natural). `sparsity` is the share of elements to set to
/// zero; with a `pattern`, it is ignored. Fails if the call was cancelled or its deadline passed.
pub fn prune(
    values: &mut [f32],
    factor: &Factor,
    sparsity: f64,
    pattern: Option<Pattern>,
    ticket: &Ticket,
) -> Result<()> {
    let n = factor.size;
    let rows = values.len() / n.max(1);
    // The number of zeros up to a column is rounded, so that the zeros of all blocks add up to the requested number.
    let upto = |column: usize| (sparsity * (rows * column) as f64).round() as usize;
    // Groups of a pattern do not cross blocks.
    let block = pattern.map_or(BLOCK, |pattern| BLOCK.next_multiple_of(pattern.of));
    for start in (0..n).step_by(block) {
        let end = n.min(start + block);
        let zeroed = match pattern {
            None => Some(cheapest(values, factor, start..end, upto(end) - upto(start))),
            Some(_) => None,
        };
        let width = end - start;
        values.par_chunks_mut(ROWS * n).enumerate().try_for_each(|(task, rows)| -> Result<()> {
            ticket.check()?;
            let count = rows.len() / n;
            let mut errors = vec![0f32; count * width];
            for (r, errors) in errors.chunks_mut(width).enumerate() {
                let row = &mut rows[r * n..(r + 1) * n];
                match (&zeroed, pattern) {
                    (Some(zeroed), _) => {
                        let zeroed = &zeroed[(task * ROWS + r) * width..][..width];
                        clear(row, factor, start..end, errors, &mut |i, _| zeroed[i - start]);
                    }
                    (None, Some(pattern)) => {
                        let mut chosen = Vec::new();
                        clear(row, factor, start..end, errors, &mut |i, row| {
                            if (i - start).is_multiple_of(pattern.of) {
                                choose(&mut chosen, row, factor, i..end.min(i + pattern.of), pattern.keep);
                            }
                            chosen.contains(&i)
                        });
                    }
                    (None, None) => {}
                }
            }
            // All columns after the block are updated for all rows of the task, while the factor's rows are in the
            // cache.
            for i in start..end {
                let upper = &factor.upper[i * n + end..(i + 1) * n];
                for r in 0..count {
                    let error = errors[r * width + i - start];
                    if error != 0.0 {
                        let rest = &mut rows[r * n + end..(r + 1) * n];
                        rest.iter_mut().zip(upper).for_each(|(w, u)| *w -= error * u);
                    }
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Sets the weights of one row for which `is_zeroed` is true to zero, and propagates the error within the block.
/// Records the errors for later columns in `errors`.
fn clear(
    row: &mut [f32],
    factor: &Factor,
    columns: std::ops::Range<usize>,
    errors: &mut [f32],
    is_zeroed: &mut dyn FnMut(usize, &[f32]) -> bool,
) {
    let (n, start, end) = (factor.size, columns.start, columns.end);
    for i in columns {
        if is_zeroed(i, row) {
            let upper = &factor.upper[i * n..(i + 1) * n];
            let error = row[i] / upper[i];
            row[i] = 0.0;
            row[i + 1..end].iter_mut().zip(&upper[i + 1..end]).for_each(|(w, u)| *w -= error * u);
            errors[i - start] = error;
        }
    }
}

/// Returns the cost of setting a weight to zero.
fn cost(value: f32, factor: &Factor, column: usize) -> f32 {
    (value / factor.upper[column * factor.size + column]).powi(2)
}

/// Returns which weights of a block `[rows, columns]` are the `wanted` cheapest; among equal costs, the first are.
fn cheapest(values: &[f32], factor: &Factor, columns: std::ops::Range<usize>, wanted: usize) -> Vec<bool> {
    let width = columns.len();
    let mut order: Vec<(f32, u32)> = values
        .par_chunks(factor.size)
        .enumerate()
        .flat_map_iter(|(r, row)| {
            let place = (r * width) as u32;
            let of = |(i, value): (usize, &f32)| (cost(*value, factor, columns.start + i), place + i as u32);
            row[columns.clone()].iter().enumerate().map(of).collect::<Vec<_>>()
        })
        .collect();
    if wanted > 0 && wanted < order.len() {
        order.select_nth_unstable_by(wanted - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    }
    let mut zeroed = vec![false; order.len()];
    order.iter().take(wanted).for_each(|(_, place)| zeroed[*place as usize] = true);
    zeroed
}

/// Replaces the content of `chosen` by the columns of a group that become zero: all except the `keep` most expensive.
fn choose(chosen: &mut Vec<usize>, row: &[f32], factor: &Factor, group: std::ops::Range<usize>, keep: usize) {
    let count = group.len().saturating_sub(keep);
    let mut order: Vec<(f32, usize)> = group.map(|i| (cost(row[i], factor, i), i)).collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    chosen.clear();
    chosen.extend(order.iter().take(count).map(|(_, i)| *i));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::ColumnOrder;

    /// Returns inputs with correlated columns, as those of real layers are: each column is a mix of a few.
    fn inputs(rows: usize, size: usize, next: &mut impl FnMut() -> f32) -> Vec<f32> {
        let mix: Vec<f32> = (0..12 * size).map(|_| next()).collect();
        let mut x = Vec::new();
        for _ in 0..rows {
            let few: Vec<f32> = (0..12).map(|_| next()).collect();
            x.extend((0..size).map(|c| (0..12).map(|k| few[k] * mix[k * size + c]).sum::<f32>() + 0.1 * next()));
        }
        x
    }

    #[test]
    fn outputs_change_less_than_when_weights_only_go_and_counts_are_exact() {
        let (size, rows, outputs) = (300, 900, 50);
        let mut state = 5u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let x = inputs(rows, size, &mut next);
        let weights: Vec<f32> = (0..outputs * size).map(|_| next()).collect();
        let mut gram = vec![0f32; size * size];
        for row in x.chunks(size) {
            (0..size * size).for_each(|i| gram[i] += row[i / size] * row[i % size]);
        }
        let factor = Factor::new(&gram, size, rows, ColumnOrder::Natural).unwrap();
        let error = |pruned: &[f32]| -> f32 {
            let of = |row: &[f32], o: usize| -> f32 {
                (0..size).map(|k| row[k] * (weights[o * size + k] - pruned[o * size + k])).sum()
            };
            x.chunks(size).map(|row| (0..outputs).map(|o| of(row, o).powi(2)).sum::<f32>()).sum()
        };
        for (sparsity, pattern) in [(0.3, None), (0.5, None), (0.5, Some(Pattern { keep: 2, of: 4 }))] {
            let mut pruned = weights.clone();
            prune(&mut pruned, &factor, sparsity, pattern, &Ticket::default()).unwrap();
            let gone = pruned.iter().filter(|v| **v == 0.0).count();
            assert_eq!(gone, (sparsity * weights.len() as f64).round() as usize);
            let held = |four: &[f32]| four.iter().filter(|v| **v == 0.0).count() == 2;
            assert!(pattern.is_none() || pruned.chunks(4).all(held));
            // For comparison, the same weights are set to zero and the others are unchanged.
            let only: Vec<f32> = weights.iter().zip(&pruned).map(|(w, p)| if *p == 0.0 { 0.0 } else { *w }).collect();
            assert!(error(&pruned) < 0.5 * error(&only), "{} {}", error(&pruned), error(&only));
        }
    }
}
