//! The progress of a benchmark, which is reported on the caller's thread.

use crate::call::{Call, REPORTS_PER_SECOND, Stage};
use crate::error::Result;
use std::time::{Duration, Instant};

/// The progress over all parts of a benchmark, reported at most [`REPORTS_PER_SECOND`] times a second and at the end.
pub struct Steps<'a> {
    call: &'a Call<'a>,
    done: u64,
    total: u64,
    reported: Option<Instant>,
}

impl<'a> Steps<'a> {
    /// Returns a counter of `total` steps, none of them done.
    pub fn new(call: &'a Call<'a>, total: usize) -> Steps<'a> {
        Steps { call, done: 0, total: total as u64, reported: None }
    }

    /// Counts one step as done. Fails if the call was cancelled or its deadline passed.
    pub fn next(&mut self) -> Result<()> {
        self.skip(1)
    }

    /// Counts several steps as done or as not needed. Fails like [`Self::next`].
    pub fn skip(&mut self, steps: usize) -> Result<()> {
        self.done += steps as u64;
        let gap = Duration::from_secs(1) / REPORTS_PER_SECOND;
        if self.done < self.total && self.reported.is_some_and(|at| at.elapsed() < gap) {
            return self.call.check();
        }
        self.reported = Some(Instant::now());
        self.call.report(Stage::BENCHMARK, self.done, self.total)
    }

    /// Returns the call for a run inside a step: it can be cancelled, and does not report progress itself.
    pub fn quiet(&self) -> Call<'a> {
        Call { progress: None, ..*self.call }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::ops::ControlFlow;

    #[test]
    fn steps_are_reported_seldom_and_the_last_always() {
        let seen = RefCell::new(Vec::new());
        let progress = |p: crate::call::Progress<'_>| {
            seen.borrow_mut().push((p.done, p.total));
            ControlFlow::Continue(())
        };
        let call = Call { progress: Some(&progress), ..Call::default() };
        let mut steps = Steps::new(&call, 1000);
        (0..998).for_each(|_| steps.next().unwrap());
        steps.skip(2).unwrap();
        let seen = seen.borrow();
        assert!(seen.len() < 100 && seen.last() == Some(&(1000, 1000)), "{seen:?}");
    }
}
