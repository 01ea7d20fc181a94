//! float32 and bfloat16 weights in panels of columns. A panel has groups along K, with one (float32) or two (bfloat16)
//! values of each column.

use super::{
    Layout, LinearHeader, PackError, PackedLinear, Precision, Storage, WIDEST, copy_row, section, section_mut,
};
use crate::kernels::{Class, Parallel, parallel::split};

/// The layout of the packed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Dense {
    /// Number of columns of a panel.
    pub panel: usize,
    /// Number of panels.
    pub panels: usize,
    /// Number of adjacent values of a column.
    pub group: usize,
    /// Number of groups of a column.
    pub groups: usize,
    wide: bool,
}

impl Dense {
    /// Returns the layout of the packed bytes that a header describes.
    pub fn of(header: &LinearHeader) -> Self {
        let wide = header.precision == Precision::Float32;
        let (panel, multiple) = match (header.class, wide) {
            (Class::Scalar | Class::Avx2 | Class::Avx2Vnni, _) => (16, 2),
            (Class::Amx, false) => (32, 32),
            _ => (32, 2),
        };
        let group = if wide { 1 } else { 2 };
        let groups = if wide { header.k } else { header.k.next_multiple_of(multiple) / 2 };
        Self { panel, panels: header.n.div_ceil(panel), group, groups, wide }
    }

    /// Returns the number of values in the packed bytes, including those that fill the last panel and group.
    fn values(&self) -> usize {
        self.panels * self.groups * self.group * self.panel
    }

    /// Returns the number of packed bytes.
    pub fn len(&self) -> usize {
        self.values() * if self.wide { 4 } else { 2 }
    }

    /// Returns the size of a panel in bytes.
    pub fn each(&self) -> usize {
        self.len() / self.panels.max(1)
    }

    #[inline]
    fn index(&self, k: usize, n: usize) -> usize {
        ((n / self.panel * self.groups + k / self.group) * self.panel + n % self.panel) * self.group + k % self.group
    }

    /// Returns the weight in row `k` and column `n`.
    pub fn at(&self, bytes: &[u8], k: usize, n: usize) -> f32 {
        let index = self.index(k, n);
        if self.wide {
            section::<f32>(bytes, 0, self.values())[index]
        } else {
            from_bfloat16(section::<u16>(bytes, 0, self.values())[index])
        }
    }
}

/// Returns the bfloat16 nearest to `value`, ties to even.
pub fn to_bfloat16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Returns the value of a bfloat16.
pub fn from_bfloat16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Packs float32 weights in `precision` (`Float32` or `Bfloat16`), for `class`, and returns them. The caller checks the
/// sizes; this function never fails.
pub fn pack(
    weights: &[f32],
    layout: Layout,
    (k, n): (usize, usize),
    precision: Precision,
    class: Class,
    parallel: &dyn Parallel,
) -> Result<PackedLinear, PackError> {
    let header = LinearHeader { class, precision, k, n, blocks: Default::default() };
    let dense = Dense::of(&header);
    let mut storage = Storage::resident(dense.len());
    let each = dense.groups * dense.group * dense.panel;
    let start = |panel: usize| panel * dense.panel;
    let count = |panel: usize| dense.panel.min(n - start(panel));
    if precision == Precision::Float32 {
        let values = section_mut::<f32>(storage.bytes_mut(), 0, dense.values());
        split(parallel, values, each, |panel, to| {
            for (row, to) in to.chunks_exact_mut(dense.panel).enumerate().take(k) {
                copy_row(weights, layout, (row, start(panel)), (k, n), &mut to[..count(panel)]);
            }
        });
    } else {
        let values = section_mut::<u16>(storage.bytes_mut(), 0, dense.values());
        split(parallel, values, each, |panel, to| {
            let mut values = [0f32; WIDEST];
            let values = &mut values[..count(panel)];
            for row in 0..k {
                copy_row(weights, layout, (row, start(panel)), (k, n), values);
                let pairs = to[row / 2 * dense.panel * 2..].chunks_exact_mut(2);
                pairs.zip(values.iter()).for_each(|(pair, value)| pair[row % 2] = to_bfloat16(*value));
            }
        });
    }
    Ok(PackedLinear { header, storage })
}
