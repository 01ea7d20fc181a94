//! Memory of packed weights and of working buffers: allocated, or part of a mapped file.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::sync::Arc;

use super::resident::Resident;

/// Alignment of packed weights in bytes, in memory and in a file.
pub const ALIGNMENT: usize = 64;

/// The bytes of packed weights or of a buffer.
pub struct Storage(Kind);

enum Kind {
    Owned { start: *mut u8, layout: Layout },
    Resident(Resident),
    Shared { owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize> },
}

// SAFETY: the owned memory belongs to this value alone and is only written through `&mut`.
unsafe impl Send for Storage {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Storage {}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Storage({} bytes)", self.bytes().len())
    }
}

impl Storage {
    /// Returns `len` zero bytes for weights, aligned to `ALIGNMENT`, on huge pages if the operating system provides
    /// them. Ends the process if there is not enough memory.
    pub fn resident(len: usize) -> Self {
        Resident::new(len).map_or_else(|| Self::zeroed(len), |resident| Self(Kind::Resident(resident)))
    }

    /// Returns `len` zero bytes, aligned to `ALIGNMENT`. Ends the process if there is not enough memory.
    pub fn zeroed(len: usize) -> Self {
        let Ok(layout) = Layout::from_size_align(len.max(1), ALIGNMENT) else {
            panic!("{len} bytes of packed weights")
        };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        Self(Kind::Owned { start, layout: Layout::from_size_align(len, ALIGNMENT).unwrap_or(layout) })
    }

    /// Returns a view of `range` of the memory that `owner` keeps alive and never changes; `None` if the range is out
    /// of bounds.
    pub fn shared(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self(Kind::Shared { owner, range }))
    }

    /// Returns the bytes for reading.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: `start` is valid for the size of the layout, and the memory was zeroed.
            Kind::Owned { start, layout } => unsafe { std::slice::from_raw_parts(*start, layout.size()) },
            Kind::Resident(resident) => resident.bytes(),
            Kind::Shared { owner, range } => (**owner).as_ref().get(range.clone()).unwrap_or_default(),
        }
    }

    /// Returns the bytes for writing, or an empty slice if they are shared.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
            Kind::Owned { start, layout } => unsafe { std::slice::from_raw_parts_mut(*start, layout.size()) },
            Kind::Resident(resident) => resident.bytes_mut(),
            Kind::Shared { .. } => &mut [],
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Kind::Owned { start, layout } = &self.0 {
            let Ok(layout) = Layout::from_size_align(layout.size().max(1), layout.align()) else { return };
            // SAFETY: the memory was allocated in `zeroed` with this layout.
            unsafe { dealloc(*start, layout) };
        }
    }
}
