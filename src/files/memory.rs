//! Memory for the content of files that the program provides in place of paths ([`Memory`]).

use crate::error::{Result, bail};
use crate::memory::{self, Charge};
use bytes::Bytes;
use memmap2::MmapMut;

/// Writable memory that becomes shared bytes. Above 64 KiB it has its own pages, so that weights in it are aligned and
/// the system gets it back when the last slice of it is dropped. It is charged to the memory limit of the thread
/// ([`crate::memory`]), if there is one. A failed allocation is an error and does not abort the process.
pub struct Memory(Content, Charge);

enum Content {
    Heap(Vec<u8>),
    Pages(MmapMut),
}

impl Memory {
    /// Maximum size of memory on the heap, in bytes; larger memory has its own pages.
    const SMALL: usize = 64 << 10;

    /// Returns `size` zeroed bytes. Fails with [`crate::error::Kind::LimitExceeded`] if the memory limit does not allow
    /// them, or if the system has too little memory.
    pub fn zeroed(size: u64) -> Result<Memory> {
        let failed = || crate::error::error!(LimitExceeded, "out of memory for {size} bytes");
        let size = usize::try_from(size).map_err(|_| failed())?;
        if size > isize::MAX as usize {
            bail!(LimitExceeded, "{size} bytes exceed the address space");
        }
        let charge = memory::charge(size as u64)?;
        if size > Self::SMALL {
            let pages = MmapMut::map_anon(size).map_err(|_| failed())?;
            return Ok(Memory(Content::Pages(pages), charge));
        }
        let mut heap = Vec::new();
        heap.try_reserve_exact(size).map_err(|_| failed())?;
        heap.resize(size, 0);
        Ok(Memory(Content::Heap(heap), charge))
    }

    /// Returns a copy of the bytes. Fails like [`Memory::zeroed`].
    pub fn copy(bytes: &[u8]) -> Result<Bytes> {
        let mut memory = Memory::zeroed(bytes.len() as u64)?;
        memory.bytes_mut().copy_from_slice(bytes);
        memory.finish()
    }

    /// Returns the bytes, mutable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Content::Heap(heap) => heap,
            Content::Pages(pages) => pages,
        }
    }

    /// Returns the bytes, which can no longer be changed. Fails with `Io` if their pages cannot be made read-only.
    pub fn finish(self) -> Result<Bytes> {
        Ok(match self.0 {
            Content::Heap(heap) => Bytes::from_owner(Charged(heap, self.1)),
            Content::Pages(pages) => Bytes::from_owner(Charged(pages.make_read_only()?, self.1)),
        })
    }
}

/// Bytes that are charged as long as they exist.
struct Charged<T>(T, #[allow(dead_code)] Charge);

impl<T: AsRef<[u8]>> AsRef<[u8]> for Charged<T> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn memory_keeps_what_was_written_and_absurd_sizes_are_errors() {
        for size in [0, 5, Memory::SMALL as u64, 3 << 20] {
            let mut memory = Memory::zeroed(size).unwrap();
            assert!(memory.bytes_mut().iter().all(|byte| *byte == 0));
            memory.bytes_mut().fill(7);
            let bytes = memory.finish().unwrap();
            assert!(bytes.len() as u64 == size && bytes.iter().all(|byte| *byte == 7));
        }
        for size in [1 << 62, u64::MAX] {
            assert_eq!(Memory::zeroed(size).err().unwrap().kind(), Kind::LimitExceeded);
        }
        let budget = memory::Budget::new(1 << 20);
        let kept = memory::within(Some(&budget), || {
            assert_eq!(Memory::zeroed(2 << 20).err().unwrap().kind(), Kind::LimitExceeded);
            Ok([Memory::copy(&[1; 1000])?, Memory::copy(&[2; 100_000])?])
        });
        let kept = kept.unwrap();
        assert!(kept[1].iter().all(|byte| *byte == 2) && budget.used() == 101_000);
        drop(kept);
        assert_eq!(budget.used(), 0);
    }
}
