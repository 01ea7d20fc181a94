//! Damage to GGUF files at critical places: counts, lengths, types, dimensions, offsets and values.

#[path = "../gguf/writer.rs"]
#[allow(dead_code)] // the tests of GGUF use the rest
mod writer;

use crate::common::Random;
use crate::mutate;
use writer::{File, floats, integers, text, texts};

/// Returns a model of one layer.
pub fn small() -> Vec<u8> {
    writer::small().write().0.to_vec()
}

/// Returns the same model with a tokenizer of the other kind.
pub fn scored() -> Vec<u8> {
    let mut file: File = writer::small();
    file.set("tokenizer.ggml.model", text("llama"))
        .set("tokenizer.ggml.scores", floats(&[0.0, -1.0, -2.0, -3.0, -4.0]))
        .set("tokenizer.ggml.tokens", texts(&["<unk>", "a", "b", "ab", "\u{2581}"]))
        .set("tokenizer.ggml.token_type", integers(&[2, 1, 1, 1, 1]));
    file.write().0.to_vec()
}

/// Offset and bytes of an integer in the header.
type Spot = (usize, usize);

/// A walk through a header, field by field. Where the file is invalid, it stops without an error: many files are
/// already damaged.
struct Walk<'a> {
    file: &'a [u8],
    at: usize,
    spots: Vec<Spot>,
}

impl Walk<'_> {
    fn number(&mut self, width: usize) -> Option<u64> {
        let bytes = self.file.get(self.at..self.at.checked_add(width)?)?;
        self.spots.push((self.at, width));
        self.at += width;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn text(&mut self) -> Option<()> {
        let length = usize::try_from(self.number(8)?).ok()?;
        self.at = self.at.checked_add(length).filter(|end| *end <= self.file.len())?;
        Some(())
    }

    fn value(&mut self, kind: u64, depth: usize) -> Option<()> {
        match kind {
            0 | 1 | 7 => self.number(1).map(drop),
            2 | 3 => self.number(2).map(drop),
            4..=6 => self.number(4).map(drop),
            10..=12 => self.number(8).map(drop),
            8 => self.text(),
            9 if depth < 3 => {
                let kind = self.number(4)?;
                let count = self.number(8)?;
                (0..count).try_for_each(|_| self.value(kind, depth + 1))
            }
            _ => None,
        }
    }

    fn tensor(&mut self) -> Option<()> {
        self.text()?;
        let rank = self.number(4)?;
        (0..rank).try_for_each(|_| self.number(8).map(drop))?;
        self.number(4)?;
        self.number(8).map(drop)
    }

    fn header(&mut self) -> Option<()> {
        self.number(4)?;
        self.number(4)?;
        let tensors = self.number(8)?;
        let keys = self.number(8)?;
        for _ in 0..keys {
            self.text()?;
            let kind = self.number(4)?;
            self.value(kind, 0)?;
        }
        (0..tensors).try_for_each(|_| self.tensor())
    }
}

fn walk(file: &[u8]) -> Walk<'_> {
    let mut walk = Walk { file, at: 0, spots: Vec::new() };
    walk.header();
    walk
}

/// Returns the offset at which the header ends or becomes invalid.
pub fn header_end(file: &[u8]) -> usize {
    walk(file).at
}

/// Returns the file with an integer replaced by an extreme value, a neighbouring value, or another of the integers.
pub fn mutate(mut file: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let spots = walk(&file).spots;
    if spots.is_empty() {
        return mutate::bytes(file, |bytes| bytes.len(), random);
    }
    let (at, width) = spots[random.below(spots.len())];
    let mut eight = [0; 8];
    eight[..width].copy_from_slice(&file[at..at + width]);
    let old = u64::from_le_bytes(eight);
    let (other, other_width) = spots[random.below(spots.len())];
    let new = match random.below(8) {
        0..=2 => mutate::extreme(random),
        3 => old.wrapping_add(1),
        4 => old.wrapping_sub(1),
        5 => old.wrapping_mul(2),
        // Small numbers cover all kinds, types and ranks.
        6 => random.below(40) as u64,
        _ => file[other..other + other_width].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
    };
    file[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
    file
}
