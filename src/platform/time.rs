//! The clocks for measuring.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Returns the CPU time that the calling thread has used.
pub fn of_this_thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Returns the time of the monotonic clock, which counts from an unspecified point: only differences have a meaning.
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
