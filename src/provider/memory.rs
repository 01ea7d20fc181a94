//! Return of the memory of freed weights to the operating system.

use std::sync::atomic::{AtomicBool, Ordering};

/// The minimum size of packed weights, in bytes, for which the heap is trimmed.
const WORTH: usize = 8 << 20;

/// A call of `malloc_trim` in the first run after weights were packed.
///
/// ONNX Runtime frees the original weights when it creates the session; if they were part of the model file, glibc
/// keeps the freed pages. The provider is not notified when the session is ready, so the heap is trimmed in the first
/// run.
pub struct Trim(AtomicBool);

impl Trim {
    /// Returns the trim for `packed` bytes of packed weights. It is pending only if there are at least 8 MiB.
    pub fn new(packed: usize) -> Self {
        Self(AtomicBool::new(packed < WORTH))
    }

    /// Trims the heap if the trim is still pending.
    pub fn once(&self) {
        if !self.0.load(Ordering::Relaxed) && !self.0.swap(true, Ordering::Relaxed) {
            super::abi::trim_heap();
        }
    }
}
