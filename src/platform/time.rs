//! The clocks for measuring.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Returns the CPU time that this thread has used.
pub fn of_this_thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Returns the time of a monotonic clock.
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
