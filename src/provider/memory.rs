//! Return of the memory of freed weights to the operating system.

use std::sync::atomic::{AtomicBool, Ordering};

/// Size of packed weights in bytes above which the heap is trimmed.
const WORTH: usize = 8 << 20;

/// A single call of `malloc_trim` after weights were packed.
///
/// ONNX Runtime frees the original weights when it creates the session; if they were part of the model file, glibc
/// keeps the freed pages. The provider is not notified when the session is ready, so the heap is trimmed in the first
/// run.
pub struct Trim(AtomicBool);

impl Trim {
    /// Returns the trim that is pending after `packed` bytes of weights were packed.
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
