//! The encoding of a chunk of a tensor, which has at most [`PIECE`] bytes.
//!
//! ```text
//! flags u8          1: zeros are omitted
//! present u32       number of stored elements
//! section u32 …     size of each section in bytes; the highest bit is set if it is a zstd frame
//! sections          if zeros are omitted, one bit per element, 1 if it is stored, lowest bit first;
//!                   then all first bytes of the stored elements, all second bytes …
//! ```
//!
//! A zero is an element whose bits are all 0, so that decoding is exact. The bytes of floats are stored separately
//! because the last, with sign and exponent, can be compressed, and those of the fraction cannot.

use crate::error::{Result, bail};

/// The maximum size of a chunk of a tensor in bytes, which is a multiple of every element size.
pub const PIECE: usize = 1 << 20;
/// The size of the largest element type in bytes.
pub const WIDEST: usize = 16;

const ZEROS: u8 = 1;
const ZSTD: u32 = 1 << 31;
/// The compression level: it is fast, and a higher one gains nothing on bytes without repetitions.
const LEVEL: i32 = 3;

/// Returns the encoding of a chunk of elements of `width` bytes each. Fails with `Io` if compression fails.
pub fn encode(bytes: &[u8], width: usize) -> Result<Vec<u8>> {
    let count = bytes.len() / width;
    let there: Vec<bool> = bytes.chunks_exact(width).map(|element| element.iter().any(|b| *b != 0)).collect();
    let zeros = there.iter().filter(|there| !**there).count();
    // The bit per element must cost less than the zeros that it replaces.
    let sparse = zeros * width > count.div_ceil(8);
    let mut sections: Vec<Vec<u8>> = Vec::with_capacity(width + 1);
    if sparse {
        let bits =
            |eight: &[bool]| eight.iter().enumerate().fold(0, |byte, (bit, there)| byte | u8::from(*there) << bit);
        sections.push(there.chunks(8).map(bits).collect());
    }
    let present = if sparse { count - zeros } else { count };
    for place in 0..width {
        let mut plane = Vec::with_capacity(present);
        let elements = bytes.chunks_exact(width).zip(&there);
        plane.extend(elements.filter(|(_, there)| !sparse || **there).map(|(element, _)| element[place]));
        sections.push(plane);
    }
    let mut out = vec![if sparse { ZEROS } else { 0 }];
    out.extend((present as u32).to_le_bytes());
    let mut content = Vec::with_capacity(bytes.len() / 2);
    for section in sections {
        let smaller = zstd::bulk::compress(&section, LEVEL)?;
        let (stored, mark) = if smaller.len() < section.len() { (smaller, ZSTD) } else { (section, 0) };
        out.extend((stored.len() as u32 | mark).to_le_bytes());
        content.extend(stored);
    }
    out.extend(content);
    Ok(out)
}

/// A cursor over bytes that are read from the start. Reading beyond their end fails with `InvalidModel`.
pub struct Cursor<'b>(pub &'b [u8]);

impl<'b> Cursor<'b> {
    /// Returns the next `count` bytes. Fails with `InvalidModel` if fewer bytes are left.
    pub fn take(&mut self, count: usize) -> Result<&'b [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            bail!(InvalidModel, "a chunk of the packed file is {} bytes too short", count - self.0.len());
        };
        self.0 = rest;
        Ok(taken)
    }

    /// Returns the next four bytes as a little-endian integer. Fails like [`Cursor::take`].
    pub fn u32(&mut self) -> Result<u32> {
        self.take(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Returns the next eight bytes as a little-endian integer. Fails like [`Cursor::take`].
    pub fn u64(&mut self) -> Result<u64> {
        let (low, high) = (self.u32()?, self.u32()?);
        Ok(u64::from(high) << 32 | u64::from(low))
    }
}

/// Decodes a chunk of elements of `width` bytes each into `out`. Fails with `InvalidModel` if the chunk is damaged or
/// does not have exactly the size of `out`.
pub fn decode(stored: &[u8], width: usize, out: &mut [u8]) -> Result<()> {
    let (mut cursor, count) = (Cursor(stored), out.len() / width);
    let sparse = match cursor.take(1)?[0] {
        0 => false,
        ZEROS => true,
        other => bail!(InvalidModel, "a chunk has the unknown flags {other}"),
    };
    let present = cursor.u32()? as usize;
    if present > count || !sparse && present != count {
        bail!(InvalidModel, "a chunk has {present} of {count} elements");
    }
    let sizes: Vec<u32> = (0..width + usize::from(sparse)).map(|_| cursor.u32()).collect::<Result<_>>()?;
    let mut sections = sizes.iter();
    let mut section = |raw: usize, cursor: &mut Cursor<'_>| -> Result<Vec<u8>> {
        let size = sections.next().copied().unwrap_or(0);
        let stored = cursor.take((size & !ZSTD) as usize)?;
        unpack(stored, size & ZSTD != 0, raw)
    };
    let bits = if sparse { section(count.div_ceil(8), &mut cursor)? } else { Vec::new() };
    let there = |element: usize| !sparse || bits[element / 8] >> (element % 8) & 1 != 0;
    let marked = (0..bits.len() * 8).filter(|element| there(*element)).count();
    if sparse && (marked != present || (count..bits.len() * 8).any(there)) {
        bail!(InvalidModel, "the mask of a chunk does not have {present} elements");
    }
    out.fill(0);
    for place in 0..width {
        let plane = section(present, &mut cursor)?;
        let mut values = plane.iter();
        for (element, bytes) in out.chunks_exact_mut(width).enumerate() {
            if let Some(value) = there(element).then(|| values.next()).flatten() {
                bytes[place] = *value;
            }
        }
    }
    if !cursor.0.is_empty() {
        bail!(InvalidModel, "a chunk is {} bytes too long", cursor.0.len());
    }
    Ok(())
}

/// Returns the bytes of a section, decompressed if `is_zstd`. Fails with `InvalidModel` if there are not exactly `raw`
/// of them.
pub fn unpack(stored: &[u8], is_zstd: bool, raw: usize) -> Result<Vec<u8>> {
    let unpacked = match is_zstd {
        false => stored.to_vec(),
        true => match zstd::bulk::decompress(stored, raw) {
            Ok(unpacked) => unpacked,
            Err(e) => bail!(InvalidModel, "a chunk of the packed file cannot be decompressed: {e}"),
        },
    };
    if unpacked.len() != raw {
        bail!(InvalidModel, "a chunk of the packed file has {} bytes, not {raw}", unpacked.len());
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_bit_by_bit() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            state >> 16
        };
        for width in [1, 2, 4, 8, 16] {
            for zeros in [0, 10, 50, 99, 100] {
                for count in [0, 1, 7, 8, 9, 1000] {
                    let mut bytes = vec![0u8; width * count];
                    for element in bytes.chunks_mut(width) {
                        if next() % 100 >= zeros {
                            element.iter_mut().for_each(|b| *b = (next() % 7) as u8 * 37);
                        }
                    }
                    let stored = encode(&bytes, width).unwrap();
                    let mut back = vec![1u8; bytes.len()];
                    decode(&stored, width, &mut back).unwrap();
                    assert_eq!(back, bytes, "width {width}, {zeros} % zeros, {count} elements");
                    for cut in 0..stored.len() {
                        assert!(decode(&stored[..cut], width, &mut back).is_err());
                    }
                    assert!(decode(&[&stored[..], &[0]].concat(), width, &mut back).is_err());
                }
            }
        }
        // Only elements whose bits are all 0 count as zeros: -0.0 and denormals must be preserved.
        let zeros = [0.0f32, -0.0, 0.0, 0.0, f32::from_bits(1), 0.0, 0.0, 0.0].map(f32::to_le_bytes).concat();
        let mut back = vec![0u8; zeros.len()];
        decode(&encode(&zeros, 4).unwrap(), 4, &mut back).unwrap();
        assert_eq!(back, zeros);
    }

    #[test]
    fn damaged_pieces_are_refused_or_give_other_numbers() {
        let bytes: Vec<u8> =
            (0..4000u32).flat_map(|i| if i % 3 == 0 { [0; 4] } else { (i * 77).to_le_bytes() }).collect();
        let stored = encode(&bytes, 4).unwrap();
        let mut back = vec![0u8; bytes.len()];
        for at in 0..stored.len().min(3000) {
            for flip in [1u8, 0x80, 0xff] {
                let mut damaged = stored.clone();
                damaged[at] ^= flip;
                let _ = decode(&damaged, 4, &mut back);
            }
        }
    }
}
