//! A filter that limits how often progress reports are passed on to the caller ([`Seldom`]).

use super::{Progress, REPORTS_PER_SECOND};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// A filter that passes at most [`REPORTS_PER_SECOND`] reports of a stage per second, and in addition the first report
/// of a stage and the one in which all units are done. A report with the same numbers as the last one is not passed.
#[derive(Debug, Default)]
pub struct Seldom(RefCell<Option<Passed>>);

/// The last report that was passed on.
#[derive(Debug)]
struct Passed {
    stage: String,
    done: u64,
    total: u64,
    at: Instant,
}

impl Seldom {
    /// Returns whether a report is passed on, and remembers it if so.
    pub fn passes(&self, progress: &Progress<'_>) -> bool {
        let mut last = self.0.borrow_mut();
        let passes = match &*last {
            Some(last) if last.stage == progress.stage && progress.done >= last.done => {
                let is_new = (last.done, last.total) != (progress.done, progress.total);
                let is_end = progress.total > 0 && progress.done >= progress.total;
                let is_due = last.at.elapsed() >= Duration::from_secs(1) / REPORTS_PER_SECOND;
                is_new && (is_end || is_due)
            }
            _ => true,
        };
        if passes {
            let (stage, at) = (progress.stage.to_owned(), Instant::now());
            *last = Some(Passed { stage, done: progress.done, total: progress.total, at });
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_report_of_a_stage_pass_and_few_between_them() {
        let seldom = Seldom::default();
        let passes = |stage, done| seldom.passes(&Progress { stage, done, total: 1000, unit: "bytes" });
        let start = Instant::now();
        let between = (1..1000).filter(|done| passes("save", *done)).count();
        let most = 1 + (start.elapsed().as_secs_f64() * f64::from(REPORTS_PER_SECOND)) as usize;
        assert!((1..=most).contains(&between), "{between} reports");
        assert!(passes("save", 1000));
        assert!(!passes("save", 1000), "the same report passes twice");
        assert!(passes("save", 0), "a second pass of a stage begins");
        assert!(passes("hash", 0));
        std::thread::sleep(Duration::from_secs(1) / REPORTS_PER_SECOND);
        assert!(passes("hash", 1));
    }
}
