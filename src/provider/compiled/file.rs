//! The file of a compiled model: header, weights, parts and table.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::part::{Part, Reader};
use crate::kernels::PackedLinear;
use crate::provider::abi::{Error, Mapping, Result};
use crate::provider::bodies::Body;

/// The alignment of weights and parts in bytes, which is that of packed weights.
const ALIGNMENT: usize = 64;
const MAGIC: [u8; 8] = *b"OPTPACK1";
/// Size of the header in bytes. The checksum covers everything after it.
const HEADER: usize = 64;
/// Offset of the weights: the second page.
const START: usize = 4096;

/// A mapped file whose checksum has been verified.
pub struct Packed {
    file: Arc<Mapping>,
    parts: Vec<(usize, usize)>,
}

impl Packed {
    /// Opens the file at `path`, and returns it after verifying its length and checksum, before anything else is read.
    /// Fails if it cannot be opened, is damaged, or is not the file of a compiled model.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Mapping::open(path)?;
        let parts = check(file.as_ref()).map_err(|what| Error(format!("{}: {what}", path.display())))?;
        Ok(Self { file: Arc::new(file), parts })
    }

    /// Returns the reader of the part `index`; `ports` are the current indices of the inputs and outputs of its node.
    /// Fails if there is no such part.
    pub fn part<'a>(&'a self, index: usize, ports: &'a [Vec<usize>; 2]) -> Result<Reader<'a>> {
        let (start, length) = self.parts.get(index).ok_or_else(|| Error::new("the file has no such part"))?;
        Ok(Reader::new(&(*self.file).as_ref()[*start..start + length], &self.file, ports))
    }
}

/// Returns the ranges of the parts in `bytes`. Fails if the file is damaged.
fn check(bytes: &[u8]) -> std::result::Result<Vec<(usize, usize)>, String> {
    let header = bytes.get(..HEADER).ok_or("not a compiled model's weights")?;
    let number =
        |place: usize| header[place..place + 8].iter().rev().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    if header[..8] != MAGIC {
        return Err("not a compiled model's weights".into());
    }
    if number(8) != bytes.len() as u64 {
        return Err(format!("{} bytes instead of {}: it is truncated", bytes.len(), number(8)));
    }
    if number(16) != checksum(&bytes[HEADER..]) {
        return Err("it is damaged: its checksum does not match".into());
    }
    let (count, table) = (number(24) as usize, number(32) as usize);
    let entries =
        bytes.get(table..).and_then(|rest| rest.get(..count.checked_mul(16)?)).ok_or("its table is damaged")?;
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0usize, |all, byte| all << 8 | usize::from(*byte));
    let parts: Vec<_> = entries.chunks_exact(16).map(|entry| (word(&entry[..8]), word(&entry[8..]))).collect();
    let inside = |(start, length): &(usize, usize)| start.checked_add(*length).is_some_and(|end| end <= bytes.len());
    if parts.iter().all(inside) { Ok(parts) } else { Err("its table is damaged".into()) }
}

/// Writes `bodies` to a file at `path`, which replaces an existing file only when it is complete. Fails if the file
/// cannot be written.
pub fn write<'b>(path: &Path, bodies: impl Iterator<Item = &'b dyn Body>) -> Result<()> {
    let (file, unfinished) = create(path).map_err(|error| Error(format!("{}: {error}", path.display())))?;
    let written = write_to(file, &unfinished, bodies).and_then(|()| std::fs::rename(&unfinished, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&unfinished);
        Error(format!("{}: {error}", path.display()))
    })
}

/// Creates a file next to `path` and returns it with its path. Threads and processes that write one file at the same
/// time each create their own; the last one stays.
fn create(path: &Path) -> std::io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let mut name = path.as_os_str().to_os_string();
        name.push(format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        match File::create_new(&name) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (file, name.into())),
        }
    }
}

fn write_to<'b>(file: File, path: &Path, bodies: impl Iterator<Item = &'b dyn Body>) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    file.seek(SeekFrom::Start(START as u64))?;
    let (mut at, mut parts) = (START, Vec::new());
    // Offsets of the weights by their address: bodies share weights, and outlive this function.
    let mut offsets: HashMap<*const PackedLinear, usize> = HashMap::new();
    for body in bodies {
        let mut part = Part::default();
        body.write(&mut part);
        for (place, weights) in &part.weights {
            let offset = match offsets.entry(Arc::as_ptr(weights)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    at += pad(&mut file, at)?;
                    file.write_all(weights.bytes())?;
                    at += weights.bytes().len();
                    *new.insert(at - weights.bytes().len())
                }
            };
            part.bytes[*place..place + 8].copy_from_slice(&(offset as u64).to_le_bytes());
        }
        parts.push(part.bytes);
    }
    let mut table = Vec::new();
    for part in &parts {
        at += pad(&mut file, at)?;
        table.extend((at as u64).to_le_bytes().into_iter().chain((part.len() as u64).to_le_bytes()));
        file.write_all(part)?;
        at += part.len();
    }
    at += pad(&mut file, at)?;
    file.write_all(&table)?;
    let file = file.into_inner()?;
    // Seeking alone does not extend the file. Without this, a file without parts would end after its header.
    file.set_len((at + table.len()) as u64)?;
    file.sync_all()?;
    finish(path, [(at + table.len()) as u64, 0, parts.len() as u64, at as u64])?;
    file.sync_all()
}

/// Writes the header of the file at `path`: length, checksum, number of parts, offset of the table.
fn finish(path: &Path, mut numbers: [u64; 4]) -> std::io::Result<()> {
    let mapped = Mapping::open(path).map_err(|error| std::io::Error::other(error.0))?;
    numbers[1] = checksum(&mapped.as_ref()[HEADER..]);
    drop(mapped);
    let header: Vec<u8> = MAGIC.into_iter().chain(numbers.iter().flat_map(|number| number.to_le_bytes())).collect();
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(&header)
}

/// Writes zeros up to the next aligned offset after `at`, and returns their number.
fn pad(file: &mut impl Write, at: usize) -> std::io::Result<usize> {
    let count = at.next_multiple_of(ALIGNMENT) - at;
    file.write_all(&[0; ALIGNMENT][..count])?;
    Ok(count)
}

/// Returns a checksum of `bytes` that detects damage, but not manipulation: four independent sums of products, so that
/// it is as fast as memory.
fn checksum(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut lanes = [1u64, 2, 3, 4];
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, bytes) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            let word =
                u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]);
            *lane = (*lane ^ word).wrapping_mul(FACTOR).rotate_left(29);
        }
    }
    for (lane, bytes) in lanes.iter_mut().zip(blocks.remainder().chunks(8)) {
        *lane = (*lane ^ word(bytes)).wrapping_mul(FACTOR).rotate_left(29);
    }
    lanes.iter().fold(bytes.len() as u64, |all, lane| (all ^ lane).wrapping_mul(FACTOR).rotate_left(31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_or_missing_byte_changes_the_checksum() {
        let bytes: Vec<u8> = (0..200u8).collect();
        let whole = checksum(&bytes);
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert_ne!(checksum(&changed), whole, "{place}");
            assert_ne!(checksum(&bytes[..place]), whole, "{place}");
        }
    }

    #[test]
    fn a_file_that_is_cut_off_or_damaged_is_refused_with_the_reason() {
        let folder = std::env::temp_dir().join(format!("optimize-packed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("empty.packed");
        write(&path, std::iter::empty()).unwrap();
        assert!(Packed::open(&path).unwrap().part(0, &[vec![], vec![]]).is_err());
        let whole = std::fs::read(&path).unwrap();
        let reason = |bytes: &[u8]| check(bytes).unwrap_err();
        assert!(reason(&whole[..whole.len() - 1]).contains("truncated"));
        assert!(reason(&whole[..20]).contains("not a compiled"));
        let mut damaged = whole.clone();
        damaged[100] ^= 1;
        assert!(reason(&damaged).contains("damaged"));
        damaged[0] ^= 1;
        assert!(reason(&damaged).contains("not a compiled"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
