//! Log messages for the program that uses the library. The library itself prints nothing: without a [`Sink`], no
//! message is created.
//!
//! A sink receives the messages of the whole process, because ONNX Runtime has one logger per process.

use crate::choice::choice;
use std::cell::RefCell;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

choice! {
    /// The importance of a message, from errors to details.
    pub enum LogLevel: optimize_log_level_t = Warning {
        /// Errors, after which something has failed.
        Error = 1, "error";
        /// Warnings: something works, but not as well as possible, because a slower kernel is used or a file is
        /// ignored.
        Warning = 2, "warning";
        /// Events: a model was loaded, a session was created.
        Info = 3, "info";
        /// Details for developers, including those of ONNX Runtime.
        Debug = 4, "debug";
    }
}

/// A function that receives the level, the target and the text of a message. The target is `optimize` or `onnxruntime`.
pub type LogFn = dyn Fn(LogLevel, &str, &str) + Send + Sync;

/// A receiver of the messages of a level and of the more important levels, until [`Sink::close`].
pub struct Sink {
    level: LogLevel,
    function: Box<LogFn>,
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Number of calls of the sink's function that are in progress.
    active: usize,
}

/// The sinks that are open.
static SINKS: RwLock<Vec<Arc<Sink>>> = RwLock::new(Vec::new());
/// The code of the most detailed level that a sink receives; 0 without sinks.
static LEVEL: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// The sinks that are receiving a message on this thread.
    static RECEIVING: RefCell<Vec<*const Sink>> = const { RefCell::new(Vec::new()) };
}

impl Sink {
    /// Opens a sink and returns it. From now on, any thread may call `function`, also several at once.
    pub fn open(level: LogLevel, function: Box<LogFn>) -> Arc<Sink> {
        let sink = Arc::new(Sink { level, function, state: Mutex::default(), idle: Condvar::new() });
        update(|sinks| sinks.push(sink.clone()));
        sink
    }

    /// Closes the sink, which then receives no messages. It waits for calls of the sink's function on other threads, so
    /// that afterwards no other thread is in the function. A sink may be closed from its own function.
    pub fn close(self: &Arc<Sink>) {
        update(|sinks| sinks.retain(|sink| !Arc::ptr_eq(sink, self)));
        let this: *const Sink = Arc::as_ptr(self);
        let here = RECEIVING.with_borrow(|all| all.iter().filter(|sink| **sink == this).count());
        let mut state = self.state();
        state.closed = true;
        while state.active > here {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive(self: &Arc<Sink>, level: LogLevel, target: &str, text: &str) {
        {
            let mut state = self.state();
            if state.closed {
                return;
            }
            state.active += 1;
        }
        // This ends the message on every exit, including a panic of the function.
        let _end = Receiving::new(self);
        (self.function)(level, target, text);
    }
}

/// A message that is being received on this thread.
struct Receiving<'s>(&'s Sink);

impl<'s> Receiving<'s> {
    fn new(sink: &'s Sink) -> Receiving<'s> {
        RECEIVING.with_borrow_mut(|all| all.push(sink));
        Receiving(sink)
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        RECEIVING.with_borrow_mut(Vec::pop);
        self.0.state().active -= 1;
        self.0.idle.notify_all();
    }
}

/// Returns the most detailed level that a sink receives; `None` if there are no sinks.
pub fn level() -> Option<LogLevel> {
    LogLevel::from_code(LEVEL.load(Ordering::Relaxed), "level").ok()
}

/// Passes a message to all sinks that receive its level, on this thread. `text` is only called if there is such a sink.
pub fn log(level: LogLevel, target: &str, text: impl FnOnce() -> String) {
    if level.code() > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    // The lock is not held while the functions of the sinks are called, because they may open or close a sink.
    let sinks: Vec<Arc<Sink>> = {
        let all = SINKS.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|sink| sink.level.code() >= level.code()).cloned().collect()
    };
    if sinks.is_empty() {
        return;
    }
    let text = text();
    sinks.iter().for_each(|sink| sink.receive(level, target, &text));
}

/// Passes a message of this library, which has the target `optimize`, to the sinks.
pub fn ours(level: LogLevel, text: impl FnOnce() -> String) {
    log(level, "optimize", text);
}

fn update(change: impl FnOnce(&mut Vec<Arc<Sink>>)) {
    let mut sinks = SINKS.write().unwrap_or_else(PoisonError::into_inner);
    change(&mut sinks);
    LEVEL.store(sinks.iter().map(|sink| sink.level.code()).max().unwrap_or(0), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    /// Returns a sink and what it receives of these tests, whose texts begin with `mark`.
    fn sink(level: LogLevel, mark: &'static str) -> (Arc<Sink>, Arc<Mutex<Vec<String>>>) {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = heard.clone();
        let receive = move |level: LogLevel, target: &str, text: &str| {
            if text.starts_with(mark) {
                kept.lock().unwrap().push(format!("{} {target} {text}", level.name()));
            }
        };
        (Sink::open(level, Box::new(receive)), heard)
    }

    #[test]
    fn sinks_receive_what_they_asked_for() {
        let (warnings, few) = sink(LogLevel::Warning, "one:");
        let (all, many) = sink(LogLevel::Debug, "one:");
        ours(LogLevel::Error, || "one: a".into());
        log(LogLevel::Debug, "onnxruntime", || "one: b".into());
        assert_eq!(level(), Some(LogLevel::Debug));
        all.close();
        ours(LogLevel::Warning, || "one: c".into());
        warnings.close();
        ours(LogLevel::Error, || "one: d".into());
        assert_eq!(*few.lock().unwrap(), ["error optimize one: a", "warning optimize one: c"]);
        assert_eq!(*many.lock().unwrap(), ["error optimize one: a", "debug onnxruntime one: b"]);
    }

    #[test]
    fn a_closed_sink_is_not_in_use() {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        let receive = |_: LogLevel, _: &str, text: &str| {
            if text == "two" {
                BEGUN.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(30));
                ENDED.fetch_add(1, Ordering::SeqCst);
            }
        };
        let slow = Sink::open(LogLevel::Error, Box::new(receive));
        std::thread::scope(|scope| {
            scope.spawn(|| ours(LogLevel::Error, || "two".into()));
            while BEGUN.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            slow.close();
            assert_eq!(ENDED.load(Ordering::SeqCst), 1);
        });
        ours(LogLevel::Error, || "two".into());
        assert_eq!(BEGUN.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_function_may_close_its_own_sink() {
        static OWN: OnceLock<Arc<Sink>> = OnceLock::new();
        let receive = |_: LogLevel, _: &str, text: &str| {
            if text == "three" {
                OWN.get().unwrap().close();
            }
        };
        OWN.set(Sink::open(LogLevel::Error, Box::new(receive))).unwrap_or(());
        ours(LogLevel::Error, || "three".into());
        assert!(OWN.get().unwrap().state().closed);
    }
}
