//! The pools of worker threads, in which every parallel iterator of the library runs. Otherwise rayon would start its
//! global pool, whose threads belong to the whole program and outlive the call.

use crate::error::{Result, error};

/// Returns a pool of `threads` worker threads, or of one per logical CPU if `threads` is 0. The threads end with the
/// pool.
pub(crate) fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| error!(Internal, "the worker threads could not be started: {e}"))
}

/// Runs `work` in a pool and returns its result. The pool is that of the calling thread if it is a worker thread,
/// otherwise a new one with a thread per logical CPU. It is for work without an option for the number of threads.
pub(crate) fn in_pool<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    match rayon::current_thread_index() {
        Some(_) => work(),
        None => pool(0)?.install(work),
    }
}
