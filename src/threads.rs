//! Worker threads.

use crate::error::{Result, error};

/// Returns a pool of worker threads; 0 for one per logical CPU.
pub(crate) fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| error!(Internal, "the worker threads could not be started: {e}"))
}
