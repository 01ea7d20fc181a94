//! 8-bit weights with a scale and zero point per column. The codes are stored as uint8 (128 is added to int8 codes and
//! their zero points), in panels of columns; four values of a column are adjacent.

use super::{
    Layout, LinearHeader, PackError, PackedLinear, Precision, Storage, WIDEST, copy_row, count, expect, section,
    section_mut,
};
use crate::kernels::parallel::{Shared, split};
use crate::kernels::{Class, Parallel};

/// int8 or uint8 weights with their scales and zero points.
#[derive(Clone, Copy, Debug)]
pub struct Int8Weights<'a> {
    /// Codes of the weights: K × N bytes.
    pub codes: &'a [u8],
    /// Whether codes and zero points are int8, otherwise uint8.
    pub signed: bool,
    /// Layout of the codes.
    pub layout: Layout,
    /// Zero points of the weights: none (they are 0), one, or N.
    pub zero_points: &'a [u8],
    /// Scales of the weights: one, or N.
    pub scales: &'a [f32],
}

/// The layout of the packed bytes: scales, zero points, sums of the columns' codes, codes.
#[derive(Clone, Copy, Debug)]
pub struct Int8 {
    /// Number of columns of a panel.
    pub panel: usize,
    /// Number of panels.
    pub panels: usize,
    /// Number of groups of four values of a column.
    pub groups: usize,
}

impl Int8 {
    /// Returns the layout of the packed bytes that a header describes.
    pub fn of(header: &LinearHeader) -> Self {
        let (panel, multiple) = match header.class {
            Class::Scalar | Class::Avx2 | Class::Avx2Vnni => (16, 4),
            Class::Avx512Vnni | Class::Avx512Bf16 => (32, 4),
            Class::Amx => (32, 64),
        };
        Self { panel, panels: header.n.div_ceil(panel), groups: header.k.next_multiple_of(multiple) / 4 }
    }

    /// Returns the number of columns, including those that fill the last panel.
    pub fn columns(&self) -> usize {
        self.panel * self.panels
    }

    /// Returns the size in bytes of the codes of a panel.
    pub fn each(&self) -> usize {
        self.groups * self.panel * 4
    }

    /// Returns the number of packed bytes.
    pub fn len(&self) -> usize {
        self.columns() * 12 + self.panels * self.each()
    }

    /// Returns the scales of the columns.
    pub fn scales<'a>(&self, bytes: &'a [u8]) -> &'a [f32] {
        section(bytes, 0, self.columns())
    }

    /// Returns the zero points of the columns.
    pub fn zero_points<'a>(&self, bytes: &'a [u8]) -> &'a [i32] {
        section(bytes, self.columns() * 4, self.columns())
    }

    /// Returns the sums of the codes of each column.
    pub fn sums<'a>(&self, bytes: &'a [u8]) -> &'a [i32] {
        section(bytes, self.columns() * 8, self.columns())
    }

    /// Returns the codes of all panels.
    pub fn codes<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.columns() * 12..]
    }

    fn index(&self, k: usize, n: usize) -> usize {
        n / self.panel * self.each() + (k / 4 * self.panel + n % self.panel) * 4 + k % 4
    }

    /// Returns the code in row `k` and column `n`.
    pub fn at(&self, bytes: &[u8], k: usize, n: usize) -> i32 {
        i32::from(self.codes(bytes)[self.index(k, n)])
    }
}

/// Packs quantized weights, for `class`, and returns them. Fails if a size is not supported, or if a slice does not
/// have the length that follows from the sizes.
pub fn pack(
    weights: &Int8Weights<'_>,
    (k, n): (usize, usize),
    class: Class,
    parallel: &dyn Parallel,
) -> Result<PackedLinear, PackError> {
    expect("weights", weights.codes.len(), count(k, n)?)?;
    if weights.scales.len() != 1 {
        expect("scales", weights.scales.len(), n)?;
    }
    if weights.zero_points.len() > 1 {
        expect("zero points", weights.zero_points.len(), n)?;
    }
    let flip = if weights.signed { 0x80 } else { 0 };
    let zero_point = |column: usize| {
        let zero_points = weights.zero_points;
        zero_points.get(if zero_points.len() == 1 { 0 } else { column }).copied().unwrap_or(0) ^ flip
    };
    let scale = |column: usize| weights.scales[if weights.scales.len() == 1 { 0 } else { column }];
    Ok(fill((k, n), weights.layout, class, parallel, scale, zero_point, |row, start, to| {
        copy_row(weights.codes, weights.layout, (row, start), (k, n), to);
        to.iter_mut().for_each(|code| *code ^= flip);
    }))
}

/// Quantizes float32 weights to int8, with a scale per column and without zero points, packs them for `class`, and
/// returns them. The caller checks the sizes; this function never fails.
pub fn pack_f32(
    weights: &[f32],
    layout: Layout,
    (k, n): (usize, usize),
    class: Class,
    parallel: &dyn Parallel,
) -> Result<PackedLinear, PackError> {
    let mut scales = vec![0f32; n];
    let wide = columns_at_once(layout);
    split(parallel, &mut scales, wide, |chunk, to| {
        let mut values = [0f32; COLUMNS];
        let values = &mut values[..to.len()];
        for row in 0..k {
            copy_row(weights, layout, (row, chunk * wide), (k, n), values);
            to.iter_mut().zip(values.iter()).for_each(|(to, value)| *to = largest(*to, value.abs()));
        }
        to.iter_mut().for_each(|to| *to /= 127.0);
    });
    let inverses: Vec<f32> = scales.iter().map(|scale| inverse(*scale)).collect();
    Ok(fill(
        (k, n),
        layout,
        class,
        parallel,
        |column| scales[column],
        |_| 128,
        |row, start, to| {
            let mut values = [0f32; COLUMNS];
            let values = &mut values[..to.len()];
            copy_row(weights, layout, (row, start), (k, n), values);
            for ((code, value), inverse) in to.iter_mut().zip(values.iter()).zip(&inverses[start..]) {
                // Adding 1.5 · 2²³ rounds to the nearest integer, ties to even, which is then in the lowest bits.
                *code = ((value * inverse + 12_582_912.0).to_bits() as u8).wrapping_add(128);
            }
        },
    ))
}

/// Returns the larger value; NaN if one of them is NaN.
fn largest(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// Returns the inverse of a scale, by which values are multiplied, or 0 if the scale is too small to be inverted.
pub fn inverse(scale: f32) -> f32 {
    if scale > 1e-36 { 1.0 / scale } else { 0.0 }
}

/// Maximum number of columns that are packed together, so that with `KxN` their elements in a row are read
/// sequentially.
const COLUMNS: usize = 256;

fn columns_at_once(layout: Layout) -> usize {
    if layout == Layout::KxN { COLUMNS } else { WIDEST }
}

fn fill(
    (k, n): (usize, usize),
    layout: Layout,
    class: Class,
    parallel: &dyn Parallel,
    scale: impl Fn(usize) -> f32 + Sync,
    zero_point: impl Fn(usize) -> u8 + Sync,
    row_codes: impl Fn(usize, usize, &mut [u8]) + Sync,
) -> PackedLinear {
    let header = LinearHeader { class, precision: Precision::Int8, k, n, blocks: Default::default() };
    let int8 = Int8::of(&header);
    let mut storage = Storage::resident(int8.len());
    let (head, body) = storage.bytes_mut().split_at_mut(int8.columns() * 12);
    let sums = Shared(section_mut::<i32>(head, int8.columns() * 8, int8.columns()).as_mut_ptr());
    let panels = columns_at_once(layout) / int8.panel;
    split(parallel, body, int8.each() * panels, |chunk, to| {
        let start = chunk * panels * int8.panel;
        let (mut codes, mut chunk_sums) = ([0u8; COLUMNS], [0i32; COLUMNS]);
        let codes = &mut codes[..(panels * int8.panel).min(n - start)];
        for row in 0..k {
            row_codes(row, start, codes);
            chunk_sums.iter_mut().zip(codes.iter()).for_each(|(sum, code)| *sum += i32::from(*code));
            for (panel, codes) in codes.chunks(int8.panel).enumerate() {
                let to = to[panel * int8.each() + row / 4 * int8.panel * 4..].chunks_exact_mut(4);
                to.zip(codes).for_each(|(to, code)| to[row % 4] = *code);
            }
        }
        for (column, sum) in chunk_sums.into_iter().enumerate().take(codes.len()) {
            // SAFETY: a column belongs to one panel, and a panel to one task.
            unsafe { *sums.at(start + column) = sum };
        }
    });
    for column in 0..n {
        section_mut::<f32>(head, 0, int8.columns())[column] = scale(column);
        section_mut::<i32>(head, int8.columns() * 4, int8.columns())[column] = i32::from(zero_point(column));
    }
    PackedLinear { header, storage }
}
