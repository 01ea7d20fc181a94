//! Memory on huge pages for packed weights.
//!
//! Packed weights are read sequentially, once per run: with pages of 4 KiB, a quarter of that time is spent on address
//! translation. A page of 2 MiB is larger than most weights. Therefore the weights of all models share chunks of
//! memory, for which huge pages are requested (on Linux) before anything is written to them; only weights of more than
//! 8 MiB have a chunk of their own.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::{MmapMut, MmapOptions};

use super::ALIGNMENT;

/// Size of a huge page in bytes.
const HUGE_PAGE: usize = 2 << 20;
/// Size in bytes of a chunk that several weights share.
const CHUNK: usize = 32 << 20;

/// Chunk that the next weights are cut from, and the number of its bytes in use.
static CURRENT: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));

/// A part of a chunk. On Linux, the pages that contain only this part are returned to the operating system when it is
/// dropped. A chunk is freed with the last of its parts.
pub struct Resident {
    chunk: Arc<Chunk>,
    start: *mut u8,
    len: usize,
}

// SAFETY: the bytes belong to this value alone and are only written through `&mut`.
unsafe impl Send for Resident {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Resident {}

/// A chunk of memory: a mapping that belongs to no file.
struct Chunk {
    memory: MmapMut,
    /// Address of the first huge page.
    start: *mut u8,
}

// SAFETY: the memory is accessed through the parts alone, which do not overlap.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Returns a chunk of `len` bytes, which occupy no memory until they are written; `None` if they cannot be
    /// allocated.
    fn new(len: usize) -> Option<Self> {
        let mut memory = MmapOptions::new().len(len.checked_add(HUGE_PAGE)?).map_anon().ok()?;
        let skipped = memory.as_ptr().align_offset(HUGE_PAGE);
        let start = memory.as_mut_ptr().wrapping_add(skipped);
        #[cfg(target_os = "linux")]
        let _ = memory.advise_range(memmap2::Advice::HugePage, skipped, len);
        Some(Self { memory, start })
    }
}

impl Resident {
    /// Returns `len` zero bytes, or `None` if they cannot be allocated.
    pub fn new(len: usize) -> Option<Self> {
        let size = len.checked_next_multiple_of(ALIGNMENT)?;
        if size > CHUNK / 4 {
            let chunk = Chunk::new(size.checked_next_multiple_of(HUGE_PAGE)?)?;
            return Some(Self { start: chunk.start, chunk: Arc::new(chunk), len });
        }
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = current.0.upgrade().filter(|_| current.1 + size <= CHUNK);
        let chunk = match fits {
            Some(chunk) => chunk,
            None => {
                let chunk = Arc::new(Chunk::new(CHUNK)?);
                *current = (Arc::downgrade(&chunk), 0);
                chunk
            }
        };
        let start = chunk.start.wrapping_add(current.1);
        current.1 += size;
        Some(Self { chunk, start, len })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: in bounds of the chunk; the memory was zero when it was mapped.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; parts of a chunk do not overlap, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    /// Returns the range of the whole pages among the bytes, as offsets in the chunk.
    #[cfg(target_os = "linux")]
    fn pages(&self) -> Range<usize> {
        const PAGE: usize = 4096;
        let start = self.start as usize - self.chunk.memory.as_ptr() as usize;
        start.next_multiple_of(PAGE)..(start + self.len) / PAGE * PAGE
    }
}

#[cfg(target_os = "linux")]
impl Drop for Resident {
    fn drop(&mut self) {
        let pages = self.pages();
        if Arc::strong_count(&self.chunk) > 1 && !pages.is_empty() {
            // SAFETY: no other part has bytes in these pages, and nothing reads those of this part again.
            let _ = unsafe {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                self.chunk.memory.unchecked_advise_range(advice, pages.start, pages.len())
            };
        }
    }
}
