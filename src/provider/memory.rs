//! Giving back the memory of weights that were packed.

use std::sync::atomic::{AtomicBool, Ordering};

/// Below this many packed bytes it is not worth the walk over the heap.
const WORTH: usize = 8 << 20;

/// The one call of `malloc_trim` after weights were packed.
///
/// ONNX Runtime frees the originals when the session is made, but where they came inside the model file glibc keeps
/// the pages. Nothing tells the provider that the session is ready before its first run, so that is where it is done.
pub struct Trim(AtomicBool);

impl Trim {
    /// Returns what is due after `packed` bytes of weights were packed.
    pub fn new(packed: usize) -> Self {
        Self(AtomicBool::new(packed < WORTH))
    }

    /// Trims the heap if that is still due.
    pub fn once(&self) {
        if !self.0.load(Ordering::Relaxed) && !self.0.swap(true, Ordering::Relaxed) {
            super::abi::trim_heap();
        }
    }
}
