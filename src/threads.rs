//! Pools of worker threads. Every parallel iterator of the library runs in one of them: outside of any, it would start
//! the global pool of rayon, whose threads outlive the call and belong to the program.

use crate::error::{Result, error};

/// Returns a pool of worker threads; 0 for one per logical CPU. Its threads end with it.
pub(crate) fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| error!(Internal, "the worker threads could not be started: {e}"))
}

/// Returns what `work` returns, run in the pool of the calling thread, or in a new one with a thread per logical CPU
/// if that is not a worker thread. For work without an option for the number of threads.
pub(crate) fn in_pool<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    match rayon::current_thread_index() {
        Some(_) => work(),
        None => pool(0)?.install(work),
    }
}
