//! A package as one file: a zip file whose entries are stored uncompressed and aligned, so that they can be
//! memory-mapped. Zip tools that support zip64 can list and unpack it. All bytes outside the content of the entries
//! follow from the names, sizes and checksums of the entries; verification computes them again and compares.
//!
//! Format: PKWARE APPNOTE 6.3.9, sections 4.3 to 4.5; the zip64 fields are always present.

use crate::error::{Result, bail};
use crate::limits;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The alignment of the content of entries in bytes; safetensors files are aligned to [`PAGE`] bytes.
const ALIGNMENT: u64 = 64;
const PAGE: u64 = 4096;
/// The ID of the extra field that pads an entry.
const FILL: u16 = 0xd935;
const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR: u32 = 0x0706_4b50;
/// The size of the three records at the end of the file, in bytes.
const TAIL: usize = 56 + 20 + 22;
/// The maximum number of entries.
const ENTRIES: usize = 4096;

/// An entry that is written to an archive.
pub struct Entry {
    /// Path of the entry in the package.
    pub name: String,
    /// Size of the content in bytes.
    pub size: u64,
    /// CRC-32 (IEEE 802.3) of the content.
    pub crc: u32,
}

/// The bytes of a zip file other than the content of its entries.
pub struct Skeleton {
    /// Bytes in front of each entry's content, with their offset in the file.
    pub headers: Vec<(u64, Vec<u8>)>,
    /// Bytes after the last entry.
    pub tail: Vec<u8>,
    /// Offset of `tail` in the file.
    pub end: u64,
}

/// Returns the layout of an archive of these entries.
pub fn skeleton(entries: &[Entry]) -> Skeleton {
    let (mut headers, mut central, mut at) = (Vec::new(), Vec::new(), 0u64);
    for entry in entries {
        let fixed = at + 30 + entry.name.len() as u64 + 20 + 4;
        let alignment = if entry.name.ends_with(".safetensors") { PAGE } else { ALIGNMENT };
        let fill = (fixed.next_multiple_of(alignment) - fixed) as u16;
        let mut header = Vec::new();
        put32(&mut header, LOCAL);
        common(&mut header, entry);
        put16(&mut header, 20 + 4 + fill);
        header.extend(entry.name.as_bytes());
        sizes(&mut header, 16, entry);
        put16(&mut header, FILL);
        put16(&mut header, fill);
        header.resize(header.len() + fill as usize, 0);
        put32(&mut central, CENTRAL);
        put16(&mut central, 45 | 3 << 8);
        common(&mut central, entry);
        put16(&mut central, 28);
        // No comment, first disk, no internal attributes; the external ones are those of a regular file, rw-r--r--.
        central.extend([0; 6]);
        put32(&mut central, 0o100_644 << 16);
        put32(&mut central, u32::MAX);
        central.extend(entry.name.as_bytes());
        sizes(&mut central, 24, entry);
        put64(&mut central, at);
        let begin = at;
        at += header.len() as u64 + entry.size;
        headers.push((begin, header));
    }
    Skeleton { headers, tail: tail(central, entries.len() as u64, at), end: at }
}

/// Appends the fields that the local and the central header of an entry share to `out`.
fn common(out: &mut Vec<u8>, entry: &Entry) {
    put16(out, 45);
    // Names are UTF-8, entries are uncompressed, and all have the date 1 January 1980.
    put16(out, 1 << 11);
    put16(out, 0);
    put16(out, 0);
    put16(out, 33);
    put32(out, entry.crc);
    put32(out, u32::MAX);
    put32(out, u32::MAX);
    put16(out, entry.name.len() as u16);
}

fn sizes(out: &mut Vec<u8>, length: u16, entry: &Entry) {
    put16(out, 1);
    put16(out, length);
    put64(out, entry.size);
    put64(out, entry.size);
}

fn tail(mut central: Vec<u8>, count: u64, at: u64) -> Vec<u8> {
    let size = central.len() as u64;
    put32(&mut central, END64);
    put64(&mut central, 44);
    put16(&mut central, 45 | 3 << 8);
    put16(&mut central, 45);
    put64(&mut central, 0);
    put64(&mut central, count);
    put64(&mut central, count);
    put64(&mut central, size);
    put64(&mut central, at);
    put32(&mut central, LOCATOR);
    put32(&mut central, 0);
    put64(&mut central, at + size);
    put32(&mut central, 1);
    put32(&mut central, END);
    put32(&mut central, 0);
    put16(&mut central, u16::MAX);
    put16(&mut central, u16::MAX);
    put32(&mut central, u32::MAX);
    put32(&mut central, u32::MAX);
    put16(&mut central, 0);
    central
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_le_bytes());
}
fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_le_bytes());
}
fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_le_bytes());
}

/// Returns whether `start`, the beginning of a file, is that of a zip file with entries.
pub fn is_archive(start: &[u8]) -> bool {
    start.starts_with(&LOCAL.to_le_bytes())
}

/// Returns the names and contents of the entries of an archive in order, as slices of it. No content is read.
///
/// Fails with [`crate::error::Kind::InvalidModel`] for a file that is truncated or does not have this module's format,
/// and for names that are invalid ([`check_name`]) or occur twice; with `LimitExceeded` for more than 4096 entries.
pub fn entries(archive: &Bytes) -> Result<Vec<(String, Bytes)>> {
    let Some(end) = archive.len().checked_sub(TAIL) else { bail!(InvalidModel, "the file is truncated") };
    let tail = Reader(&archive[end..]);
    if tail.u32(0)? != END64 || tail.u32(56)? != LOCATOR || tail.u32(76)? != END {
        bail!(
            InvalidModel,
            "the file is not a package: another kind of file, a zip file that liboptimize did not write, or truncated"
        );
    }
    let (count, size, start) = (tail.u64(32)?, tail.u64(40)?, tail.u64(48)?);
    if count > ENTRIES as u64 {
        bail!(LimitExceeded, "the file has {count} entries; the limit is {ENTRIES}");
    }
    if start.checked_add(size) != Some(end as u64) {
        bail!(InvalidModel, "the central directory is in the wrong place");
    }
    let (mut at, mut found, mut names) = (start as usize, Vec::new(), BTreeMap::new());
    for _ in 0..count {
        let record = Reader(archive.get(at..end).unwrap_or(&[]));
        let (name_size, extra) = (record.u16(28)? as usize, record.u16(30)? as usize);
        if record.u32(0)? != CENTRAL || record.u16(10)? != 0 || extra != 28 || record.u16(32)? != 0 {
            bail!(InvalidModel, "entry {} is not stored uncompressed", found.len());
        }
        let name = record.part(46, name_size)?;
        let Ok(name) = std::str::from_utf8(name) else { bail!(InvalidModel, "a name is not UTF-8") };
        check_name(name)?;
        let (length, header) = (record.u64(46 + name_size + 4)?, record.u64(46 + name_size + 20)?);
        let content = content(archive, header, length, start)?;
        if names.insert(name.to_owned(), ()).is_some() {
            bail!(InvalidModel, "the package contains {name:?} twice");
        }
        found.push((name.to_owned(), content));
        at += 46 + name_size + extra;
    }
    if at != end {
        bail!(InvalidModel, "the central directory is longer than the entries");
    }
    Ok(found)
}

fn content(archive: &Bytes, header: u64, length: u64, end: u64) -> Result<Bytes> {
    let local = Reader(usize::try_from(header).ok().and_then(|at| archive.get(at..)).unwrap_or(&[]));
    if local.u32(0)? != LOCAL {
        bail!(InvalidModel, "an entry does not begin where the central directory says");
    }
    let begin = header + 30 + u64::from(local.u16(26)?) + u64::from(local.u16(28)?);
    match begin.checked_add(length) {
        Some(stop) if stop <= end => Ok(archive.slice(begin as usize..stop as usize)),
        _ => bail!(InvalidModel, "an entry extends beyond the file"),
    }
}

/// Checks that the name of an entry is a relative path with `/` that stays in its folder. Fails with
/// [`crate::error::Kind::InvalidModel`] for a name of more than [`limits::NAME_BYTES`], with `\` or NUL, or with a part
/// that is empty, `.` or `..`.
pub fn check_name(name: &str) -> Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if name.len() > limits::NAME_BYTES || name.contains(['\\', '\0']) || !name.split('/').all(plain) {
        bail!(InvalidModel, "{name:?} is not a valid file name in a package");
    }
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn part(&self, at: usize, size: usize) -> Result<&[u8]> {
        match at.checked_add(size).and_then(|end| self.0.get(at..end)) {
            Some(part) => Ok(part),
            None => bail!(InvalidModel, "the file is truncated"),
        }
    }
    fn number(&self, at: usize, size: usize) -> Result<u64> {
        Ok(self.part(at, size)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }
    fn u16(&self, at: usize) -> Result<u16> {
        Ok(self.number(at, 2)? as u16)
    }
    fn u32(&self, at: usize) -> Result<u32> {
        Ok(self.number(at, 4)? as u32)
    }
    fn u64(&self, at: usize) -> Result<u64> {
        self.number(at, 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_out_is_found_again_and_names_that_lead_out_are_refused() {
        let contents: [(&str, &[u8]); 3] = [("a", b"one"), ("b/w.safetensors", b"weights"), ("c", b"")];
        let entry = |(name, content): &(&str, &[u8])| Entry {
            name: (*name).to_owned(),
            size: content.len() as u64,
            crc: crc32fast::hash(content),
        };
        let skeleton = skeleton(&contents.iter().map(entry).collect::<Vec<_>>());
        let mut file = Vec::new();
        for ((at, header), (_, content)) in skeleton.headers.iter().zip(&contents) {
            assert_eq!(*at, file.len() as u64);
            file.extend(header);
            file.extend(*content);
        }
        file.extend(&skeleton.tail);
        let archive = Bytes::from(file);
        let found = entries(&archive).unwrap();
        for ((name, content), (wanted, bytes)) in found.iter().zip(&contents) {
            assert_eq!((name.as_str(), &content[..]), (*wanted, *bytes));
        }
        assert_eq!((found[1].1.as_ptr() as usize - archive.as_ptr() as usize) % PAGE as usize, 0);
        for cut in 0..archive.len() {
            assert!(entries(&archive.slice(..cut)).is_err(), "{cut}");
        }
        for bad in ["", "/a", "../a", "a/../b", "a//b", "a\\b", "./a", "a/"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
