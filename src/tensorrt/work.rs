//! A build on a thread of its own, while the caller's thread reports progress. After a cancel or the deadline, the
//! caller waits for the build for at most about [`PATIENCE`].

use super::backend::Library;
use super::shim::{self, Built, Request, Step};
use crate::call::{Call, REPORTS_PER_SECOND, Stage};
use crate::error::{Result, error};
use bytes::Bytes;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The time to wait for a cancelled build. The backend checks for cancellation between steps, and a step may take
/// seconds. A build that takes longer continues on its thread, and its result is dropped.
const PATIENCE: Duration = Duration::from_millis(100);
/// The stack size of the thread in bytes. Parsers recurse on deep graphs.
const STACK: usize = 64 << 20;

/// The library and the parameters of a build. Unlike a [`Request`], it owns its data, because the caller may return
/// before the thread of the build ends. Fields without a comment are those of [`Request`].
pub(super) struct Job {
    /// TensorRT library that builds the engine.
    pub library: Library,
    /// Content of the `.onnx` file.
    pub model: Bytes,
    /// Path of a model with external weights, which is read instead of `model`.
    pub file: Option<PathBuf>,
    pub inputs: Vec<(String, usize)>,
    pub profiles: Vec<Vec<[Vec<i64>; 3]>>,
    pub values: Vec<(String, [i64; 3])>,
    pub flags: u32,
    pub optimization_level: i32,
    pub hardware_compatibility: i32,
    pub verbosity: i32,
    /// Maximum size of the workspace in bytes; 0 for all device memory.
    pub workspace: u64,
    pub capabilities: Vec<i32>,
    /// Content of the timing cache; `None` for no cache.
    pub timing: Option<Bytes>,
}

/// The progress of a build: the number of steps that are done and of those that are known so far, and whether it shall
/// stop.
#[derive(Default)]
struct Count {
    stop: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
}

/// Runs the build and returns the engine with the library that built it. Progress stage: `build`, in steps of the
/// backend; the total grows as phases begin. Fails like [`Call::report`] and [`shim::build`], and with `Internal` if
/// the thread cannot be started or panics.
pub(super) fn run(job: Job, call: &Call) -> Result<(Built, Library)> {
    call.check()?;
    let count = Arc::new(Count::default());
    let (sender, receiver) = channel();
    let theirs = count.clone();
    let thread = std::thread::Builder::new().name("optimize-build".to_owned()).stack_size(STACK);
    let work = move || {
        let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| build(&job, &theirs)));
        let built = built.unwrap_or_else(|_| Err(error!(Internal, "a panic ended the build")));
        // After a cancel, nobody receives the result.
        let _ = sender.send(built.map(|built| (built, job.library)));
    };
    let thread =
        thread.spawn(work).map_err(|e| error!(Internal, "the thread of the build could not be started: {e}"))?;
    let mut next = Instant::now();
    let mut shown = u64::MAX;
    loop {
        match receiver.recv_timeout(Duration::from_millis(10)) {
            Ok(built) => return built,
            Err(RecvTimeoutError::Disconnected) => return Err(error!(Internal, "the build ended without a result")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let (done, total) = (count.done.load(Ordering::Relaxed), count.total.load(Ordering::Relaxed));
        let due = Instant::now() >= next && done != shown;
        let outcome = if due { call.report(Stage::BUILD, done.min(total), total) } else { call.check() };
        if due {
            (next, shown) = (Instant::now() + Duration::from_secs(1) / REPORTS_PER_SECOND, done);
        }
        if let Err(ended) = outcome {
            count.stop.store(true, Ordering::Relaxed);
            if receiver.recv_timeout(PATIENCE).is_err() {
                leave(thread);
            }
            return Err(ended);
        }
    }
}

/// The threads of builds that were cancelled and have not ended.
static LEFT: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Lets a thread run to its end, for which the exit of the process waits. TensorRT frees its state at the exit, and a
/// thread that still used that state would crash the process.
fn leave(thread: JoinHandle<()>) {
    static AT_EXIT: Once = Once::new();
    // TensorRT has been opened and has registered its exit handlers. Handlers run in reverse order, so `wait` runs
    // before them.
    AT_EXIT.call_once(|| shim::at_exit(wait));
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left.retain(|thread| !thread.is_finished());
    left.push(thread);
}

/// Waits for the threads of cancelled builds.
extern "C" fn wait() {
    let left = std::mem::take(&mut *LEFT.lock().unwrap_or_else(PoisonError::into_inner));
    left.into_iter().for_each(|thread| _ = thread.join());
}

fn build(job: &Job, count: &Count) -> Result<Built> {
    let request = Request {
        model: &job.model,
        file: job.file.as_deref(),
        inputs: &job.inputs,
        profiles: &job.profiles,
        values: &job.values,
        flags: job.flags,
        optimization_level: job.optimization_level,
        hardware_compatibility: job.hardware_compatibility,
        verbosity: job.verbosity,
        workspace: job.workspace,
        capabilities: &job.capabilities,
        timing: job.timing.as_deref(),
    };
    // The remaining steps of each phase: when a phase ends early, they all count as done.
    let mut left: HashMap<String, u64> = HashMap::new();
    let mut watch = |step: Step| {
        match step {
            Step::Begin { phase, steps } => {
                *left.entry(phase).or_default() += steps;
                count.total.fetch_add(steps, Ordering::Relaxed);
            }
            Step::Done { phase } => {
                if let Some(left) = left.get_mut(&phase).filter(|left| **left > 0) {
                    *left -= 1;
                    count.done.fetch_add(1, Ordering::Relaxed);
                }
            }
            Step::End { phase } => {
                count.done.fetch_add(left.remove(&phase).unwrap_or(0), Ordering::Relaxed);
            }
        }
        !count.stop.load(Ordering::Relaxed)
    };
    if count.stop.load(Ordering::Relaxed) {
        return Err(crate::call::cancelled());
    }
    shim::build(&job.library, &request, &mut watch)
}
