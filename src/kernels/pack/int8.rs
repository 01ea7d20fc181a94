//! 8-bit weights with a scale and zero point per column. All are stored as uint8 (an int8 code plus 128, its zero
//! point too), four values of a column adjacent, in panels of columns.

use super::{Layout, LinearHeader, PackError, PackedLinear, Precision, Storage, count, expect, section, section_mut};
use crate::kernels::{Class, Parallel, parallel::split};

/// int8 or uint8 weights as a file has them.
#[derive(Clone, Copy, Debug)]
pub struct Int8Weights<'a> {
    /// K × N codes.
    pub codes: &'a [u8],
    /// If true the codes and zero points are int8, else uint8.
    pub signed: bool,
    /// The order of the codes.
    pub layout: Layout,
    /// None (then they are 0), one, or N zero points.
    pub zero_points: &'a [u8],
    /// One or N scales.
    pub scales: &'a [f32],
}

/// Where things are in the packed bytes: scales, zero points, sums of the columns' codes, codes.
#[derive(Clone, Copy, Debug)]
pub struct Int8 {
    /// Columns of a panel.
    pub panel: usize,
    /// Panels.
    pub panels: usize,
    /// Groups of four values of a column.
    pub groups: usize,
}

impl Int8 {
    pub fn of(header: &LinearHeader) -> Self {
        let (panel, multiple) = match header.class {
            Class::Scalar | Class::Avx2 | Class::Avx2Vnni => (16, 4),
            Class::Avx512Vnni | Class::Avx512Bf16 => (32, 4),
            Class::Amx => (32, 64),
        };
        Self { panel, panels: header.n.div_ceil(panel), groups: header.k.next_multiple_of(multiple) / 4 }
    }

    /// Returns the columns with those that fill the last panel.
    pub fn columns(&self) -> usize {
        self.panel * self.panels
    }

    /// Returns the bytes of a panel's codes.
    pub fn each(&self) -> usize {
        self.groups * self.panel * 4
    }

    pub fn len(&self) -> usize {
        self.columns() * 12 + self.panels * self.each()
    }

    /// Returns the columns' scales.
    pub fn scales<'a>(&self, bytes: &'a [u8]) -> &'a [f32] {
        section(bytes, 0, self.columns())
    }

    /// Returns the columns' zero points.
    pub fn zero_points<'a>(&self, bytes: &'a [u8]) -> &'a [i32] {
        section(bytes, self.columns() * 4, self.columns())
    }

    /// Returns the sums of the columns' codes.
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

    /// Returns one code.
    pub fn at(&self, bytes: &[u8], k: usize, n: usize) -> i32 {
        i32::from(self.codes(bytes)[self.index(k, n)])
    }
}

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
    let code = |row: usize, column: usize| weights.codes[weights.layout.at(row, column, (k, n))] ^ flip;
    Ok(fill((k, n), class, parallel, scale, zero_point, |column, to| {
        to.iter_mut().enumerate().for_each(|(row, to)| *to = code(row, column));
    }))
}

pub fn pack_f32(
    weights: &[f32],
    layout: Layout,
    (k, n): (usize, usize),
    class: Class,
    parallel: &dyn Parallel,
) -> Result<PackedLinear, PackError> {
    let mut scales = vec![0f32; n];
    split(parallel, &mut scales, 64, |chunk, to| {
        for (column, to) in to.iter_mut().enumerate() {
            let largest =
                (0..k).map(|row| weights[layout.at(row, chunk * 64 + column, (k, n))].abs()).fold(0.0, largest);
            *to = largest / 127.0;
        }
    });
    Ok(fill(
        (k, n),
        class,
        parallel,
        |column| scales[column],
        |_| 128,
        |column, to| {
            let inverse = inverse(scales[column]);
            for (row, to) in to.iter_mut().enumerate() {
                let value = weights[layout.at(row, column, (k, n))] * inverse;
                *to = (value.round_ties_even().clamp(-127.0, 127.0) as i32 + 128) as u8;
            }
        },
    ))
}

/// Returns the larger one, or NaN if one is.
fn largest(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// Returns what a value is multiplied with to become a code; 0 where the step is too small to divide by.
pub fn inverse(scale: f32) -> f32 {
    if scale > 1e-36 { 1.0 / scale } else { 0.0 }
}

fn fill(
    (k, n): (usize, usize),
    class: Class,
    parallel: &dyn Parallel,
    scale: impl Fn(usize) -> f32 + Sync,
    zero_point: impl Fn(usize) -> u8 + Sync,
    codes: impl Fn(usize, &mut [u8]) + Sync,
) -> PackedLinear {
    let header = LinearHeader { class, precision: Precision::Int8, k, n, bits: 8, block: 0 };
    let int8 = Int8::of(&header);
    let mut storage = Storage::zeroed(int8.len());
    let (head, body) = storage.bytes_mut().split_at_mut(int8.columns() * 12);
    split(parallel, body, int8.each(), |panel, to| {
        let mut column_codes = vec![0; k];
        for column in panel * int8.panel..((panel + 1) * int8.panel).min(n) {
            codes(column, &mut column_codes);
            for (row, code) in column_codes.iter().enumerate() {
                to[int8.index(row, column) - panel * int8.each()] = *code;
            }
        }
    });
    for column in 0..n {
        let sum: i32 = (0..k).map(|row| i32::from(body[int8.index(row, column)])).sum();
        section_mut::<f32>(head, 0, int8.columns())[column] = scale(column);
        section_mut::<i32>(head, int8.columns() * 4, int8.columns())[column] = i32::from(zero_point(column));
        section_mut::<i32>(head, int8.columns() * 8, int8.columns())[column] = sum;
    }
    PackedLinear { header, storage }
}
