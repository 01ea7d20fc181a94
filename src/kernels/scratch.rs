//! Working memory that a thread keeps between calls.

use std::cell::RefCell;

use super::pack::Storage;

thread_local! {
    static SPARE: RefCell<Vec<Storage>> = const { RefCell::new(Vec::new()) };
}

/// Maximum number of buffers that a thread keeps.
const KEPT: usize = 4;
/// Maximum size in bytes of a buffer that a thread keeps.
const KEPT_BYTES: usize = 32 << 20;

/// Working memory: bytes aligned to a cache line, with arbitrary content. They are taken out of the buffers of the
/// thread instead of borrowed, so that another task that meanwhile runs on this thread takes other bytes.
pub struct Scratch(Option<Storage>);

impl Scratch {
    /// Returns working memory of at least `len` bytes.
    pub fn take(len: usize) -> Self {
        let spare = SPARE.try_with(|spare| {
            let mut spare = spare.try_borrow_mut().ok()?;
            let fits = spare.iter().position(|storage| storage.bytes().len() >= len)?;
            Some(spare.swap_remove(fits))
        });
        let storage = spare.ok().flatten();
        Self(Some(storage.unwrap_or_else(|| Storage::zeroed(len.next_multiple_of(4096)))))
    }

    /// Returns the address of the first byte.
    pub fn start(&mut self) -> *mut u8 {
        self.0.as_mut().map_or(std::ptr::null_mut(), |storage| storage.bytes_mut().as_mut_ptr())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(storage) = self.0.take().filter(|storage| storage.bytes().len() <= KEPT_BYTES) else { return };
        let _ = SPARE.try_with(|spare| {
            let Ok(mut spare) = spare.try_borrow_mut() else { return };
            if spare.len() >= KEPT {
                // The smallest buffer is freed, because it is the cheapest to allocate again.
                let smallest = (0..spare.len()).min_by_key(|index| spare[*index].bytes().len()).unwrap_or(0);
                spare.swap_remove(smallest);
            }
            spare.push(storage);
        });
    }
}
