//! Memory of packed weights: allocated, or part of a mapped file.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::sync::Arc;

/// Alignment of packed weights in bytes, in memory and in a file.
pub const ALIGNMENT: usize = 64;
const HUGE_PAGE: usize = 2 << 20;

/// The bytes of packed weights.
pub struct Storage(Kind);

enum Kind {
    Owned { start: *mut u8, layout: Layout },
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
    /// Returns `len` zero bytes, aligned; large memory is on huge pages.
    pub fn zeroed(len: usize) -> Self {
        let align = if len >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        let Ok(layout) = Layout::from_size_align(len.max(1), align) else { panic!("{len} bytes of packed weights") };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        let storage = Self(Kind::Owned { start, layout: Layout::from_size_align(len, align).unwrap_or(layout) });
        super::super::system::advise_huge_pages(start, len);
        storage
    }

    /// Returns a view of `range` of the memory that `owner` keeps alive and never changes; `None` if the range is out
    /// of bounds.
    pub fn shared(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self(Kind::Shared { owner, range }))
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: `start` is valid for the size of the layout, and the memory was zeroed.
            Kind::Owned { start, layout } => unsafe { std::slice::from_raw_parts(*start, layout.size()) },
            Kind::Shared { owner, range } => (**owner).as_ref().get(range.clone()).unwrap_or_default(),
        }
    }

    /// Returns the bytes for writing; none if they are shared.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
            Kind::Owned { start, layout } => unsafe { std::slice::from_raw_parts_mut(*start, layout.size()) },
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
