//! The pools of worker threads in which the parallel iterators of the library run. Without a pool, rayon would start
//! its global one, whose threads belong to the whole program and outlive the call.

use crate::error::{Result, error};

/// Returns a pool of `threads` worker threads, or of one per logical CPU if `threads` is 0. The threads end when the
/// pool is dropped. Fails with `Internal` if they cannot be started.
pub(crate) fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| error!(Internal, "the worker threads could not be started: {e}"))
}

/// Runs `work` in a thread pool and returns its result. If the calling thread is a worker of a rayon pool, that pool is
/// used, otherwise a new one with a thread per logical CPU. The function is for work without an option for the number
/// of threads. Fails like `work`, and with `Internal` if the threads cannot be started.
pub(crate) fn in_pool<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    match rayon::current_thread_index() {
        Some(_) => work(),
        None => pool(0)?.install(work),
    }
}
