//! A thread that ends work inside ONNX Runtime when the caller cancels or the deadline passes ([`watched`]).

use crate::call::{Call, Cancel};
use crate::error::{Context, Error, Result};
use std::time::{Duration, Instant};

/// The interval between checks of a cancel token.
const INTERVAL: Duration = Duration::from_millis(10);

/// Runs `work` on this thread and returns its result. Meanwhile another thread waits, and calls `stop` once if `call`
/// is cancelled or its deadline passes.
///
/// `stop` should make the work end soon. If the work then fails, the error is `Cancelled` or `Timeout`. Without token
/// and deadline there is no second thread. `call.progress` is not used: the thread that may call it is busy.
pub fn watched<T>(call: &Call, stop: impl FnOnce() + Send, work: impl FnOnce() -> Result<T>) -> Result<T> {
    call.check()?;
    let Call { deadline, cancel, .. } = *call;
    if deadline.is_none() && cancel.is_none() {
        return work();
    }
    let finished = Cancel::new();
    std::thread::scope(|scope| {
        let watch = || watch(deadline, cancel, &finished, stop);
        let watcher = std::thread::Builder::new().name("optimize-watch".into()).spawn_scoped(scope, watch);
        let watcher = watcher.at(|| "starting a thread")?;
        let end = FireOnDrop(&finished);
        let result = work();
        drop(end);
        match (result, watcher.join()) {
            // Successful work is kept even if its deadline passed just before it ended.
            (Err(_), Ok(Some(reason))) => Err(reason),
            (result, _) => result,
        }
    })
}

fn watch(deadline: Option<Instant>, cancel: Option<&Cancel>, finished: &Cancel, stop: impl FnOnce()) -> Option<Error> {
    let call = Call { deadline, cancel, progress: None };
    loop {
        let left = deadline.map_or(INTERVAL, |d| d.saturating_duration_since(Instant::now()));
        if finished.wait(left.min(INTERVAL)) {
            return None;
        }
        if let Err(reason) = call.check() {
            stop();
            return Some(reason);
        }
    }
}

/// A guard that ends the watching thread on every exit, including a panic.
struct FireOnDrop<'a>(&'a Cancel);

impl Drop for FireOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fire();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, error};

    fn until(flag: &Cancel) -> Result<()> {
        while !flag.wait(Duration::from_millis(100)) {}
        Err(error!(Runtime, "stopped"))
    }

    #[test]
    fn the_deadline_stops_the_work() {
        let flag = Cancel::new();
        let call = Call { deadline: Some(Instant::now() + Duration::from_millis(5)), ..Call::default() };
        let e = watched(&call, || flag.fire(), || until(&flag)).unwrap_err();
        assert_eq!(e.kind(), Kind::Timeout);
        // If the deadline has already passed, nothing is started.
        assert!(watched(&call, || (), || -> Result<()> { panic!("was started") }).is_err());
    }

    #[test]
    fn the_token_stops_the_work() {
        let (flag, cancel) = (Cancel::new(), Cancel::new());
        let call = Call { cancel: Some(&cancel), ..Call::default() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                cancel.fire();
            });
            let e = watched(&call, || flag.fire(), || until(&flag)).unwrap_err();
            assert_eq!(e.kind(), Kind::Cancelled);
        });
    }

    #[test]
    fn results_and_errors_of_the_work_pass_through() {
        let cancel = Cancel::new();
        for call in [Call::default(), Call { cancel: Some(&cancel), ..Call::default() }] {
            assert_eq!(watched(&call, || (), || Ok(7)).unwrap(), 7);
            let e = watched(&call, || (), || -> Result<()> { Err(error!(Runtime, "no")) }).unwrap_err();
            assert_eq!(e.kind(), Kind::Runtime);
        }
    }
}
