//! The rows of a weight in the direction of its blocks.

use super::plan::Channel;
use super::plan::Weight;
use crate::graph::constants::Matrix;

/// The rows of a weight along which its blocks lie: each block is a part of one row. The weight of a product has one
/// row per output, and a table has its own rows.
#[derive(Clone, Copy)]
pub struct Rows<'w> {
    matrix: &'w Matrix,
    /// Whether the rows are the columns of the stored matrix.
    transposed: bool,
    /// Number of rows of the weight.
    pub count: usize,
    /// Number of elements of a row.
    pub columns: usize,
}

impl<'w> Rows<'w> {
    /// Returns the rows of a weight.
    pub fn of(weight: &'w Weight<'_>) -> Rows<'w> {
        let matrix = &weight.matrix;
        let transposed = weight.channel != Channel::Row;
        let (count, columns) = if transposed { (matrix.columns, matrix.rows) } else { (matrix.rows, matrix.columns) };
        Rows { matrix, transposed, count, columns }
    }

    /// Returns the elements of `count` rows from row `first` on, row by row.
    pub fn read(&self, first: usize, count: usize) -> Vec<f32> {
        let mut values = vec![0f32; count * self.columns];
        if self.transposed {
            let mut line = vec![0f32; count];
            for k in 0..self.columns {
                self.matrix.read(k, first, &mut line);
                line.iter().enumerate().for_each(|(r, v)| values[r * self.columns + k] = *v);
            }
        } else {
            let rows = values.chunks_mut(self.columns).enumerate();
            rows.for_each(|(r, row)| self.matrix.read(first + r, 0, row));
            self.matrix.release(first..first + count);
        }
        values
    }
}
