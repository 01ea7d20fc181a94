//! Progress, deadline and cancellation of a long operation.
//!
//! Most work runs on worker threads ([`Call::drive`]) and calls [`Ticket::check`] often (every few milliseconds of
//! work), while the thread that called the library waits, reports progress, and passes a cancel on. Other work runs on
//! the thread of the caller, and reports from there ([`Call::report`], [`Units`]). So the progress callback always runs
//! on the thread that called the library.

mod seldom;
mod stage;
mod units;

pub use seldom::Seldom;
pub use stage::Stage;
pub use units::Units;

use crate::error::{Error, Kind, Result};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The maximum number of progress reports per second in one stage; the last report of a stage may come sooner.
pub const REPORTS_PER_SECOND: u32 = 20;

/// The progress of an operation.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Name of the current stage: one of [`Stage::ALL`], or for a table of techniques `table: ROW of MODEL`.
    pub stage: &'a str,
    /// Number of units done in this stage.
    pub done: u64,
    /// Total number of units; 0 if unknown.
    pub total: u64,
    /// Unit of `done` and `total`, such as `bytes` or `tokens`.
    pub unit: &'static str,
}

/// A cancel token, which any thread may fire to stop operations. A fired token stays fired. All clones of a token are
/// the same token.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    fired: AtomicBool,
    /// Lock of `wake`, the condition variable of the threads that wait for `fired`.
    lock: Mutex<()>,
    wake: Condvar,
}

impl Cancel {
    /// Returns a token that has not been fired.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels all operations that the token was or will be passed to. Any thread may call this function, any number of
    /// times.
    pub fn fire(&self) {
        self.0.fired.store(true, Ordering::Release);
        let _guard = self.0.lock.lock().unwrap_or_else(|e| e.into_inner());
        self.0.wake.notify_all();
    }

    /// Returns whether [`Cancel::fire`] was called.
    pub fn is_fired(&self) -> bool {
        self.0.fired.load(Ordering::Acquire)
    }

    /// Waits until the token is fired or `limit` has passed, and returns whether it is fired.
    pub fn wait(&self, limit: Duration) -> bool {
        let guard = self.0.lock.lock().unwrap_or_else(|e| e.into_inner());
        drop(self.0.wake.wait_timeout_while(guard, limit, |_| !self.is_fired()));
        self.is_fired()
    }
}

/// A progress callback; `Break` cancels the operation.
pub type ProgressFn<'a> = dyn Fn(Progress<'_>) -> ControlFlow<()> + 'a;

/// The options of the caller for one operation: progress callback, deadline and cancel token. With `Call::default()`,
/// nothing is reported and the operation is not ended early.
#[derive(Default, Clone, Copy)]
pub struct Call<'a> {
    /// Progress callback, called on the thread that called the library; `None` for no reports.
    pub progress: Option<&'a ProgressFn<'a>>,
    /// Deadline: the first check after it ends the operation with [`Kind::Timeout`]. `None` for no deadline.
    pub deadline: Option<Instant>,
    /// Cancel token: the first check after it is fired ends the operation with [`Kind::Cancelled`]. `None` for no
    /// token.
    pub cancel: Option<&'a Cancel>,
}

impl Call<'_> {
    /// Checks whether the operation must end. Fails with [`Kind::Cancelled`] if the token is fired, or with
    /// [`Kind::Timeout`] if the deadline has passed.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_some_and(Cancel::is_fired) {
            return Err(cancelled());
        }
        if self.deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(timed_out());
        }
        Ok(())
    }

    /// Returns whether there is no callback, deadline or token, so that no thread needs to watch the operation.
    pub fn is_passive(&self) -> bool {
        self.progress.is_none() && self.deadline.is_none() && self.cancel.is_none()
    }

    /// Calls the progress callback on this thread, at once. Fails with [`Kind::Cancelled`] if the callback returns
    /// `Break`, and otherwise like [`Call::check`]. It is meant for slow loops that run on the caller's thread.
    pub fn report(&self, stage: Stage, done: u64, total: u64) -> Result<()> {
        if let Some(progress) = self.progress
            && progress(Progress { stage: stage.name, done, total, unit: stage.unit }).is_break()
        {
            return Err(cancelled());
        }
        self.check()
    }

    /// Runs `work` on another thread and returns its result. Meanwhile this thread reports progress, and watches the
    /// token and the deadline. If the call is passive ([`Call::is_passive`]), `work` runs on this thread.
    ///
    /// `work` calls [`Ticket::check`] and [`Ticket::add`]. After a cancel or the deadline, the next `check` fails, and
    /// `work` should return that error. If the token is fired or the deadline has passed already, `work` is not run. A
    /// panic of `work` continues on this thread.
    pub fn drive<T: Send>(
        &self,
        stage: Stage,
        total: u64,
        work: impl FnOnce(&Ticket) -> Result<T> + Send,
    ) -> Result<T> {
        self.check()?;
        let ticket = Ticket::default();
        if self.is_passive() {
            return work(&ticket);
        }
        let finished = Cancel::new();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                // Dropping `_end` fires `finished`, also on unwinding, so that the watching loop below always ends.
                let _end = FireOnDrop(&finished);
                work(&ticket)
            });
            self.watch(stage, total, &ticket, &finished);
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn watch(&self, stage: Stage, total: u64, ticket: &Ticket, finished: &Cancel) {
        let mut reported = u64::MAX;
        let mut refused = false;
        let mut next = Instant::now();
        loop {
            let done = finished.wait(Duration::from_millis(10));
            if let Err(e) = self.check() {
                ticket.stop(e.kind());
            }
            let count = ticket.done.load(Ordering::Relaxed);
            let due = Instant::now() >= next || done;
            if let Some(progress) = self.progress.filter(|_| due && count != reported && !refused) {
                reported = count;
                next = Instant::now() + Duration::from_secs(1) / REPORTS_PER_SECOND;
                let of_total = if total > 0 { count.min(total) } else { count };
                if progress(Progress { stage: stage.name, done: of_total, total, unit: stage.unit }).is_break() {
                    ticket.stop(Kind::Cancelled);
                    refused = true;
                }
            }
            if done {
                return;
            }
        }
    }
}

/// The part of a running operation that all its worker threads share.
#[derive(Debug, Default)]
pub struct Ticket {
    done: AtomicU64,
    stopped: AtomicU64,
}

impl Ticket {
    /// Checks whether the operation must end. Fails with [`Kind::Cancelled`] if the caller has cancelled, and with
    /// [`Kind::Timeout`] if the deadline has passed. The check is one atomic load, so it can be called often.
    pub fn check(&self) -> Result<()> {
        match self.stopped.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err(timed_out()),
            _ => Err(cancelled()),
        }
    }

    /// Adds to the number of units that are done.
    pub fn add(&self, units: u64) {
        self.done.fetch_add(units, Ordering::Relaxed);
    }

    fn stop(&self, kind: Kind) {
        let code = if kind == Kind::Timeout { 1 } else { 2 };
        let _ = self.stopped.compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed);
    }
}

struct FireOnDrop<'a>(&'a Cancel);

impl Drop for FireOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fire();
    }
}

/// Returns the error of a cancelled call.
pub(crate) fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "cancelled by the caller")
}

/// Returns the error of a call whose deadline has passed.
pub(crate) fn timed_out() -> Error {
    Error::new(Kind::Timeout, "the timeout of this call has expired")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_passive_call_runs_the_work_and_returns_its_value() {
        assert_eq!(Call::default().drive(Stage::SAVE, 1, |_| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn cancel_from_another_thread_stops_the_work() {
        let cancel = Cancel::new();
        let call = Call { cancel: Some(&cancel), ..Call::default() };
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                cancel.fire();
            });
            let result: Result<()> = call.drive(Stage::SAVE, 0, |t| {
                loop {
                    t.check()?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            assert_eq!(result.unwrap_err().kind(), Kind::Cancelled);
        });
    }

    #[test]
    fn the_deadline_stops_the_work() {
        let call = Call { deadline: Some(Instant::now() + Duration::from_millis(20)), ..Call::default() };
        let result: Result<()> = call.drive(Stage::SAVE, 0, |t| {
            loop {
                t.check()?;
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(result.unwrap_err().kind(), Kind::Timeout);
    }

    #[test]
    fn progress_runs_on_the_calling_thread_and_can_cancel() {
        let here = std::thread::current().id();
        let seen = RefCell::new(Vec::new());
        let progress = |p: Progress<'_>| {
            assert_eq!(std::thread::current().id(), here);
            seen.borrow_mut().push(p.done);
            if p.done >= 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let call = Call { progress: Some(&progress), ..Call::default() };
        let result: Result<()> = call.drive(Stage::SAVE, 10, |t| {
            loop {
                t.check()?;
                t.add(1);
                std::thread::sleep(Duration::from_millis(40));
            }
        });
        assert_eq!(result.unwrap_err().kind(), Kind::Cancelled);
        assert!(seen.borrow().iter().any(|d| *d >= 3));
    }

    #[test]
    fn a_panic_in_the_work_reaches_the_caller_and_does_not_hang() {
        let cancel = Cancel::new();
        let call = Call { cancel: Some(&cancel), ..Call::default() };
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _: Result<()> = call.drive(Stage::SAVE, 0, |_| panic!("boom"));
        }));
        assert!(caught.is_err());
    }
}
