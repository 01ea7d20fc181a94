//! The progress of work on the caller's thread ([`Units`]).

use super::{Call, REPORTS_PER_SECOND, Stage};
use crate::error::Result;
use std::time::{Duration, Instant};

/// A counter of the units (such as tokens or texts) that are done in a stage. It reports progress at most
/// [`REPORTS_PER_SECOND`] times a second until all units are done.
pub struct Units<'a> {
    call: &'a Call<'a>,
    stage: Stage,
    done: u64,
    total: u64,
    reported: Option<Instant>,
}

impl<'a> Units<'a> {
    /// Returns a counter of the `total` units of a stage, none of them done.
    pub fn new(call: &'a Call<'a>, stage: Stage, total: usize) -> Units<'a> {
        Units { call, stage, done: 0, total: total as u64, reported: None }
    }

    /// Counts `units` more units as done, and reports them if a report is due. Fails like [`Call::report`] if the call
    /// is cancelled or its deadline has passed.
    pub fn add(&mut self, units: usize) -> Result<()> {
        self.done += units as u64;
        let gap = Duration::from_secs(1) / REPORTS_PER_SECOND;
        if self.done < self.total && self.reported.is_some_and(|at| at.elapsed() < gap) {
            return self.call.check();
        }
        self.reported = Some(Instant::now());
        self.call.report(self.stage, self.done, self.total)
    }

    /// Returns the options for a part of the work: the same deadline and token, without a progress callback.
    pub fn quiet(&self) -> Call<'a> {
        Call { progress: None, ..*self.call }
    }
}
