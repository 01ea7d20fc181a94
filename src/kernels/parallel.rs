//! Division of work over the threads of the caller.

/// A pool of the caller's threads. Work may be divided into more tasks than there are threads.
pub trait Parallel: Sync {
    /// Returns the number of threads, at least 1.
    fn threads(&self) -> usize;
    /// Calls `work` once for each index below `tasks`, in any order and concurrently, and returns when all are done.
    fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync));
}

/// A pool of one thread, the calling one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Parallel for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(work);
    }
}

/// Divides `values` into pieces of `each` elements, and calls `work` with the index and the elements of every piece. A
/// task has one or more pieces.
pub(super) fn split<T: Send>(
    parallel: &dyn Parallel,
    values: &mut [T],
    each: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    if values.is_empty() || each == 0 {
        return;
    }
    let pieces = values.len().div_ceil(each);
    let tasks = pieces.min(parallel.threads().max(1) * 4);
    let (shared, len) = (Shared(values.as_mut_ptr()), values.len());
    parallel.run(tasks, &|task| {
        for piece in pieces * task / tasks..pieces * (task + 1) / tasks {
            let start = piece * each;
            // SAFETY: the piece is in bounds, and belongs to one task, which `run` calls once.
            let piece_values = unsafe { std::slice::from_raw_parts_mut(shared.at(start), each.min(len - start)) };
            work(piece, piece_values);
        }
    });
}

/// A pointer to memory of which each element is written by only one task.
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(pub *mut T);

// SAFETY: users of the pointer assign every element to one task.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Returns the pointer to value `index`, which must be in bounds.
    pub fn at(&self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}
