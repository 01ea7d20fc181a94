//! Damage to bytes, to JSON and templates, and to safetensors.

use crate::common::Random;
use std::ops::Range;

/// Bytes that make integers invalid.
const BYTES: [u8; 8] = [0, 0xff, 0x7f, 0x80, 1, 3, 8, 9];

/// Sizes, counts and offsets at which arithmetic overflows.
pub const EXTREMES: [u64; 18] = [
    0,
    1,
    2,
    3,
    31,
    33,
    0x7f,
    0xff,
    0xffff,
    1 << 24,
    i32::MAX as u64,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 61,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

pub fn extreme(random: &mut Random) -> u64 {
    EXTREMES[random.below(EXTREMES.len())]
}

/// Damages bytes, most of them before `end`.
pub fn bytes(mut bytes: Vec<u8>, end: impl Fn(&[u8]) -> usize, random: &mut Random) -> Vec<u8> {
    if bytes.is_empty() {
        return vec![random.next() as u8];
    }
    let reach = if random.below(8) == 0 { bytes.len() } else { end(&bytes).clamp(1, bytes.len()) };
    let at = random.below(reach);
    match random.below(8) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = BYTES[random.below(BYTES.len())],
        3 => {
            let last = (at + 8).min(bytes.len());
            bytes[at..last].fill(BYTES[random.below(4)]);
        }
        4 => {
            bytes.truncate(if random.below(2) == 0 { at } else { bytes.len() - 1 - random.below(bytes.len().min(64)) })
        }
        5 => bytes.insert(at, random.next() as u8),
        6 => drop(bytes.remove(at)),
        _ => {
            let from = random.below(reach);
            let piece = bytes[from..(from + 1 + random.below(16)).min(bytes.len())].to_vec();
            if random.below(2) == 0 {
                bytes.splice(at..at, piece);
            } else {
                let last = (at + piece.len()).min(bytes.len());
                bytes[at..last].copy_from_slice(&piece[..last - at]);
            }
        }
    }
    bytes
}

/// Replacements of a JSON value.
const VALUES: [&str; 30] = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "64",
    "1e9",
    "2147483647",
    "2147483648",
    "-2147483649",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "1e308",
    "1e999",
    "0.5",
    "-0.0",
    "1e-320",
    "null",
    "true",
    "false",
    "\"\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[[[[[0]]]]]",
];

/// Damages JSON or Jinja: a number, a string or a name becomes another one.
pub fn text(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let words = words(&bytes);
    if words.is_empty() {
        return self::bytes(bytes, |bytes| bytes.len(), random);
    }
    let word = words[random.below(words.len())].clone();
    let other = words[random.below(words.len())].clone();
    match random.below(8) {
        0..=3 => drop(bytes.splice(word, VALUES[random.below(VALUES.len())].bytes())),
        4 => drop(bytes.splice(word, bytes[other].to_vec())),
        // The bytes between two words are removed or duplicated, which removes or duplicates entries.
        5 => drop(bytes.drain(word.start.min(other.start)..word.start.max(other.start))),
        6 => {
            let from = word.start.min(other.start);
            let piece = bytes[from..word.start.max(other.start)].to_vec();
            bytes.splice(from..from, piece);
        }
        _ => {
            let depth = [1, 10, 126, 130, 5000][random.below(5)];
            let brackets = std::iter::repeat_n(b"[{("[random.below(3)], depth);
            bytes.splice(word.start..word.start, brackets);
        }
    }
    bytes
}

/// Returns the ranges of the numbers, names and quoted strings in a text.
fn words(text: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    let belongs = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+.".contains(&byte);
    while at < text.len() {
        let start = at;
        at += 1;
        if text[start] == b'"' {
            while at < text.len() && text[at] != b'"' {
                at += 1 + usize::from(text[at] == b'\\');
            }
            at = (at + 1).min(text.len());
        } else if belongs(text[start]) {
            at += text[at..].iter().take_while(|byte| belongs(**byte)).count();
        } else {
            continue;
        }
        found.push(start..at);
    }
    found
}

/// Damages the header of a safetensors file as JSON with its length corrected; or its length, or the end of the file.
pub fn safetensors(content: Vec<u8>, blind: bool, random: &mut Random) -> Vec<u8> {
    let length = content.first_chunk::<8>().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
    let Some(header) = usize::try_from(length).ok().and_then(|length| content.get(8..length.checked_add(8)?)) else {
        return bytes(content, |bytes| bytes.len(), random);
    };
    let data = &content[8 + header.len()..];
    if blind && random.below(4) == 0 {
        return [&extreme(random).to_le_bytes()[..], header, data].concat();
    }
    let cut = if blind && random.below(4) == 0 { random.below(data.len() + 1) } else { data.len() };
    let header = match blind {
        true => bytes(header.to_vec(), |bytes| bytes.len(), random),
        false => text(header.to_vec(), random),
    };
    [&(header.len() as u64).to_le_bytes()[..], &header, &data[..cut]].concat()
}
