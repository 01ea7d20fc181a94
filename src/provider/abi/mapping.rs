//! Files that are mapped into memory.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use super::status::{Error, Result};

/// A file mapped for reading.
pub struct Mapping(Mmap);

impl Mapping {
    /// Maps the file at `path` into memory, and returns it. Fails if it is not a regular file, or cannot be opened or
    /// mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let wrong = |error: std::io::Error| Error(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(wrong)?;
        if !file.metadata().map_err(wrong)?.is_file() {
            return Err(Error(format!("{}: is not a file", path.display())));
        }
        // SAFETY: programs that write such a file replace it as a whole (`compiled::Writer` renames it into place), so
        // a mapped one does not change. If it is truncated while it is mapped, the process ends with SIGBUS, as with
        // every mapped file.
        unsafe { Mmap::map(&file).map(Self).map_err(wrong) }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
