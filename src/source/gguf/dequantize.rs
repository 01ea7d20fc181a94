//! Blocks of GGUF files as integers with scales, and as floats.
//!
//! Every form of blocks is reduced to `w = scale q + offset` with an unsigned `q` and a scale and an offset for each
//! group of 16 or 32 weights. Scales of the K forms (`Q2_K` to `Q6_K`) are products of a float16 and a 4- to 8-bit
//! integer, which float32 represents exactly; so a float weight here is rounded once at most, like in the format's own
//! reader.

use crate::source::weights::BlockForm;
use half::f16;

/// The maximum number of weights in a block.
pub const LARGEST: usize = 256;
/// The maximum number of groups in a block.
const GROUPS: usize = 16;

/// The layout of the blocks of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Number of weights in a block.
    pub elements: usize,
    /// Size of a block in bytes.
    pub bytes: usize,
    /// Number of weights that share a scale.
    pub group: usize,
    /// Number of bits of `q`.
    pub bits: u32,
    /// Middle of the range of `q`.
    pub middle: u8,
    /// Whether `q = middle` always means 0, so that offsets are redundant.
    pub symmetric: bool,
}

impl BlockForm {
    /// Returns the layout of this form.
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
            BlockForm::Q2_K => (256, 84, 16, 2, false),
            BlockForm::Q3_K => (256, 110, 16, 3, true),
            BlockForm::IQ4_NL => (32, 18, 32, 8, true),
            BlockForm::IQ4_XS => (256, 136, 32, 8, true),
            BlockForm::MXFP4 => (32, 17, 32, 5, true),
            BlockForm::TQ1_0 => (256, 54, 32, 3, true),
            BlockForm::TQ2_0 => (256, 66, 32, 3, true),
        };
        Layout { elements, bytes, group, bits, middle: 1 << (bits - 1), symmetric }
    }
}

/// An unpacked block, in which `w[i] = scale[i / group] q[i] + offset[i / group]`.
pub struct Codes {
    /// Integers of the block, of which the first [`Layout::elements`] are used.
    pub q: [u8; LARGEST],
    /// Scales of the groups.
    pub scale: [f32; GROUPS],
    /// Offsets of the groups.
    pub offset: [f32; GROUPS],
}

impl Default for Codes {
    /// Returns storage for an unpacked block of any form.
    fn default() -> Codes {
        Codes { q: [0; LARGEST], scale: [0.0; GROUPS], offset: [0.0; GROUPS] }
    }
}

impl Codes {
    /// Unpacks a block of [`Layout::bytes`] bytes. Panics if `block` is shorter.
    pub fn unpack(&mut self, form: BlockForm, block: &[u8]) {
        match form {
            BlockForm::Q4_0 => self.small(block, 2, None, 8),
            BlockForm::Q4_1 => self.small(block, 4, None, 0),
            BlockForm::Q5_0 => self.small(block, 6, Some(2), 16),
            BlockForm::Q5_1 => self.small(block, 8, Some(4), 0),
            BlockForm::Q8_0 => {
                let d = half_at(block, 0);
                (self.scale[0], self.offset[0]) = (d, -128.0 * d);
                // A signed byte plus 128.
                self.q.iter_mut().zip(&block[2..34]).for_each(|(q, byte)| *q = byte ^ 0x80);
            }
            BlockForm::Q4_K => self.grouped(block, None, 16),
            BlockForm::Q5_K => self.grouped(block, Some(16), 48),
            BlockForm::Q6_K => self.six_bits(block),
            BlockForm::Q2_K => self.two_bits(block),
            BlockForm::Q3_K => self.three_bits(block),
            BlockForm::IQ4_NL => self.listed(half_at(block, 0), 0, &block[2..18], &LIST),
            BlockForm::IQ4_XS => self.listed_groups(block),
            BlockForm::MXFP4 => self.listed(power_of_two(block[0]), 0, &block[1..17], &SMALL_FLOATS),
            BlockForm::TQ1_0 => self.base_three(block),
            BlockForm::TQ2_0 => {
                (0..256).for_each(|i| self.q[i] = 3 + pair_of_bits(&block[..64], i));
                self.even(half_at(block, 64), 4);
            }
        }
    }

    /// Unpacks 32 weights: element `i` is the low nibble of byte `i`, element `i + 16` its high nibble; the fifth bit
    /// of element `i`, if there is one, is bit `i` of the 32 bits at `fifth`. With a `middle` of 0, an offset follows
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

    /// Unpacks 256 weights in 8 groups of 32. 32 bytes of nibbles hold two groups, the even one in the low nibbles;
    /// the fifth bit of weight `i` of group `g`, if there is one, is bit `g` of byte `i` at `fifth`.
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

    /// Unpacks 256 weights in two halves of four runs of 32. The low four bits of run `r` are nibbles of 32 of the
    /// half's 64 bytes, from `32 (r % 2)` on: the low nibbles for runs 0 and 1, the high ones for runs 2 and 3. The
    /// high two bits are bits `2 r` and `2 r + 1` of the half's 32 further bytes.
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

    /// Sets one scale for 8 groups of 32 weights, in a form in which `q = middle` means 0.
    fn even(&mut self, scale: f32, middle: u8) {
        self.scale[..8].fill(scale);
        self.offset[..8].fill(-f32::from(middle) * scale);
    }

    /// Unpacks 256 weights in 16 groups of 16: the scale is in the low nibble of a group's byte, the minimum in the
    /// high one.
    fn two_bits(&mut self, block: &[u8]) {
        let (d, e) = (half_at(block, 80), half_at(block, 82));
        for (group, both) in block[..16].iter().enumerate() {
            self.scale[group] = d * f32::from(both & 15);
            self.offset[group] = -(e * f32::from(both >> 4));
        }
        (0..256).for_each(|i| self.q[i] = pair_of_bits(&block[16..80], i));
    }

    /// Unpacks 256 weights in 16 groups of 16. The third bit of weight `32 r + i` is bit `r` of byte `i`. Four bits
    /// of each scale are nibbles of 8 bytes, groups 8 to 15 in the high ones; the two bits above them are pairs of
    /// bits of 4 bytes.
    fn three_bits(&mut self, block: &[u8]) {
        let (d, packed) = (half_at(block, 108), &block[96..108]);
        for group in 0..16 {
            let low = packed[group % 8] >> (group / 8 * 4) & 15;
            let high = packed[8 + group % 4] >> (group / 4 * 2) & 3;
            let scale = d * (f32::from(low | high << 4) - 32.0);
            (self.scale[group], self.offset[group]) = (scale, -4.0 * scale);
        }
        for i in 0..256 {
            let high = block[i % 32] >> (i / 32) & 1;
            self.q[i] = pair_of_bits(&block[32..96], i) | high << 2;
        }
    }

    /// Unpacks one group of 32 weights that are indices into a list: element `i` is the low nibble of byte `i`,
    /// element `i + 16` its high nibble.
    fn listed(&mut self, scale: f32, group: usize, nibbles: &[u8], list: &[u8; 16]) {
        // The list is shifted so that its middle means 0.
        let middle = if list == &LIST { 128.0 } else { 16.0 };
        (self.scale[group], self.offset[group]) = (scale, -middle * scale);
        for (i, byte) in nibbles.iter().enumerate() {
            self.q[group * 32 + i] = list[usize::from(byte & 15)];
            self.q[group * 32 + i + 16] = list[usize::from(byte >> 4)];
        }
    }

    /// Unpacks 256 weights in 8 groups of 32 indices into a list. Four bits of a group's scale are nibbles of 4 bytes,
    /// the two above them are pairs of bits of 2 bytes.
    fn listed_groups(&mut self, block: &[u8]) {
        let d = half_at(block, 0);
        let high = u16::from_le_bytes([block[2], block[3]]);
        for group in 0..8 {
            let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
            let scale = low | ((high >> (2 * group)) as u8 & 3) << 4;
            self.listed(d * (f32::from(scale) - 32.0), group, &block[8 + 16 * group..][..16], &LIST);
        }
    }

    /// Unpacks 256 base-3 digits, of which each byte holds five (the last bytes four). A byte times `3^n`, modulo 256,
    /// is 256 times a fraction whose first base-3 digit is digit `n`: three times this number has the digit above its 8
    /// bits. The digits of 32 bytes come first, then those of 16, then those of 4.
    fn base_three(&mut self, block: &[u8]) {
        let mut at = 0;
        for (bytes, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
            let mut power = 1u8;
            for _ in 0..digits {
                for byte in bytes {
                    let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                    self.q[at] = 3 + digit as u8;
                    at += 1;
                }
                power = power.wrapping_mul(3);
            }
        }
        self.even(half_at(block, 52), 4);
    }

    /// Writes the floats of an unpacked block to `out`.
    fn write(&self, layout: &Layout, out: &mut [f32]) {
        for (index, (out, q)) in out.chunks_mut(layout.group).zip(self.q.chunks(layout.group)).enumerate() {
            let (scale, offset) = (self.scale[index], self.offset[index]);
            if layout.symmetric {
                // The signed number is scaled: the product with `q` itself may need one bit more than float32 has.
                let middle = f32::from(layout.middle);
                out.iter_mut().zip(q).for_each(|(out, q)| *out = scale * (f32::from(*q) - middle));
            } else {
                out.iter_mut().zip(q).for_each(|(out, q)| *out = scale * f32::from(*q) + offset);
            }
        }
    }
}

/// The values of `IQ4_NL` and `IQ4_XS`, plus 128.
const LIST: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// The values of the 4-bit floats of the Open Compute Project's microscaling formats, times 2, plus 16.
const SMALL_FLOATS: [u8; 16] = [16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4];

/// Returns half of `2^(e - 127)`, because the listed values that it scales are doubled.
fn power_of_two(e: u8) -> f32 {
    match e {
        0 | 1 => f32::from_bits(0x0020_0000 << e),
        _ => f32::from_bits((u32::from(e) - 1) << 23),
    }
}

/// Returns the two bits of weight `i`: 32 bytes hold four runs of 32 weights, the first in the lowest bits.
fn pair_of_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3
}

/// Returns the 6-bit scale and minimum of group `g`. Groups 0 to 3 have them in the low bits of bytes `g` and `4 + g`.
/// Groups 4 to 7 have the low four bits of both in byte `4 + g`, and the high two bits at the top of bytes `g - 4`
/// (scale) and `g` (minimum).
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

/// Converts whole blocks to floats, which are written to `out`; it must have space for all weights of the blocks.
pub fn to_floats(form: BlockForm, blocks: &[u8], out: &mut [f32]) {
    let layout = form.layout();
    let mut codes = Codes::default();
    for (block, out) in blocks.chunks_exact(layout.bytes).zip(out.chunks_mut(layout.elements)) {
        codes.unpack(form, block);
        codes.write(&layout, out);
    }
}
