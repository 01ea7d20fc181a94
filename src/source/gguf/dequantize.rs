//! Blocks of GGUF files as integers with scales, and as floats.
//!
//! Every form comes down to `w = scale q + offset` with an unsigned `q` and a scale and an offset for each group
//! of 16 or 32 weights. Scales of the K forms are products of a float16 and a 6- or 8-bit integer, which float32
//! holds exactly; so a float weight here is rounded once at most, like that of the format's own reader.

use crate::source::weights::BlockForm;
use half::f16;

/// Most weights in a block.
pub const LARGEST: usize = 256;
/// Most groups in a block.
const GROUPS: usize = 16;

/// How a form lays its weights out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Weights in a block.
    pub elements: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Weights that share a scale.
    pub group: usize,
    /// Bits of `q`.
    pub bits: u32,
    /// The middle of the range of `q`.
    pub middle: u8,
    /// Whether `q = middle` always means 0, so that offsets say nothing new.
    pub symmetric: bool,
}

impl BlockForm {
    /// Sizes of this form.
    pub const fn layout(self) -> Layout {
        let (elements, bytes, group, bits, symmetric) = match self {
            BlockForm::Q4_0 => (32, 18, 32, 4, true),
            BlockForm::Q4_1 => (32, 20, 32, 4, false),
            BlockForm::Q5_0 => (32, 22, 32, 5, true),
            BlockForm::Q5_1 => (32, 24, 32, 5, false),
            BlockForm::Q8_0 => (32, 34, 32, 8, true),
            BlockForm::Q4_K => (256, 144, 32, 4, false),
            BlockForm::Q5_K => (256, 176, 32, 5, false),
            BlockForm::Q6_K => (256, 210, 16, 6, true),
        };
        Layout { elements, bytes, group, bits, middle: 1 << (bits - 1), symmetric }
    }
}

/// One block taken apart: `w[i] = scale[i / group] q[i] + offset[i / group]`.
pub struct Codes {
    /// Integers, the first [`Layout::elements`] of them.
    pub q: [u8; LARGEST],
    /// Scales of the groups.
    pub scale: [f32; GROUPS],
    /// Offsets of the groups.
    pub offset: [f32; GROUPS],
}

impl Default for Codes {
    /// Room for a block of any form.
    fn default() -> Codes {
        Codes { q: [0; LARGEST], scale: [0.0; GROUPS], offset: [0.0; GROUPS] }
    }
}

impl Codes {
    /// Takes a block of [`Layout::bytes`] bytes apart.
    pub fn unpack(&mut self, form: BlockForm, block: &[u8]) {
        match form {
            BlockForm::Q4_0 => self.small(block, 2, None, 8),
            BlockForm::Q4_1 => self.small(block, 4, None, 0),
            BlockForm::Q5_0 => self.small(block, 6, Some(2), 16),
            BlockForm::Q5_1 => self.small(block, 8, Some(4), 0),
            BlockForm::Q8_0 => {
                let d = half_at(block, 0);
                (self.scale[0], self.offset[0]) = (d, -128.0 * d);
                // Signed bytes plus 128.
                self.q.iter_mut().zip(&block[2..34]).for_each(|(q, byte)| *q = byte ^ 0x80);
            }
            BlockForm::Q4_K => self.grouped(block, None, 16),
            BlockForm::Q5_K => self.grouped(block, Some(16), 48),
            BlockForm::Q6_K => self.six_bits(block),
        }
    }

    /// 32 weights: element `i` is the low nibble of byte `i`, element `i + 16` its high nibble; element `i` has
    /// its fifth bit, if there are any, in bit `i` of the 32 bits at `fifth`. `middle` of 0: an offset follows
    /// the scale.
    fn small(&mut self, block: &[u8], nibbles: usize, fifth: Option<usize>, middle: u8) {
        let d = half_at(block, 0);
        self.scale[0] = d;
        self.offset[0] = if middle == 0 { half_at(block, 2) } else { -f32::from(middle) * d };
        for i in 0..16 {
            let byte = block[nibbles + i];
            (self.q[i], self.q[i + 16]) = (byte & 15, byte >> 4);
        }
        if let Some(at) = fifth {
            let high = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            (0..32).for_each(|i| self.q[i] |= ((high >> i) as u8 & 1) << 4);
        }
    }

    /// 256 weights in 8 groups of 32. 32 bytes of nibbles hold two groups, the even one in the low nibbles; the
    /// fifth bit of weight `i` of group `g`, if there are any, is bit `g` of byte `i` at `fifth`.
    fn grouped(&mut self, block: &[u8], fifth: Option<usize>, nibbles: usize) {
        let (d, e) = (half_at(block, 0), half_at(block, 2));
        for g in 0..8 {
            let (scale, minimum) = six_bit_scales(&block[4..16], g);
            self.scale[g] = d * f32::from(scale);
            self.offset[g] = -(e * f32::from(minimum));
            for i in 0..32 {
                let byte = block[nibbles + g / 2 * 32 + i];
                let low = if g % 2 == 0 { byte & 15 } else { byte >> 4 };
                let high = fifth.map_or(0, |at| (block[at + i] >> g & 1) << 4);
                self.q[g * 32 + i] = low | high;
            }
        }
    }

    /// 256 weights in two halves of four runs of 32: run `r` of a half has its low nibbles in bytes `32 (r % 2)`
    /// on of the half's 64, low nibbles of them first, and its two high bits in bits `2 r` on of the half's 32.
    fn six_bits(&mut self, block: &[u8]) {
        let d = half_at(block, 208);
        for (group, scale) in block[192..208].iter().enumerate() {
            let scale = d * f32::from(*scale as i8);
            (self.scale[group], self.offset[group]) = (scale, -32.0 * scale);
        }
        for run in 0..8 {
            let (half, r) = (run / 4, run % 4);
            for i in 0..32 {
                let low = block[half * 64 + r % 2 * 32 + i] >> (r / 2 * 4) & 15;
                let high = block[128 + half * 32 + i] >> (2 * r) & 3;
                self.q[run * 32 + i] = low | high << 4;
            }
        }
    }

    /// Writes the floats of a block just taken apart.
    fn write(&self, group: usize, out: &mut [f32]) {
        for (index, (out, q)) in out.chunks_mut(group).zip(self.q.chunks(group)).enumerate() {
            let (scale, offset) = (self.scale[index], self.offset[index]);
            out.iter_mut().zip(q).for_each(|(out, q)| *out = scale * f32::from(*q) + offset);
        }
    }
}

/// The 6-bit scale and minimum of group `g`: groups 0 to 3 have theirs in bytes `g` and `4 + g`, low bits; groups
/// 4 to 7 have four bits in byte `4 + g` and the two above them at the top of the bytes of group `g - 4`.
fn six_bit_scales(packed: &[u8], g: usize) -> (u8, u8) {
    match g {
        0..4 => (packed[g] & 63, packed[g + 4] & 63),
        _ => {
            let both = packed[g + 4];
            (both & 15 | (packed[g - 4] >> 6) << 4, both >> 4 | (packed[g] >> 6) << 4)
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Whole blocks as floats; `out` has room for as many as `blocks` hold.
pub fn to_floats(form: BlockForm, blocks: &[u8], out: &mut [f32]) {
    let layout = form.layout();
    let mut codes = Codes::default();
    for (block, out) in blocks.chunks_exact(layout.bytes).zip(out.chunks_mut(layout.elements)) {
        codes.unpack(form, block);
        codes.write(layout.group, out);
    }
}
