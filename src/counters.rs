//! Counters of the process: what the library has done so far, and what it is doing.

use crate::choice::choice;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

choice! {
    /// Format of a text with the counters.
    pub enum CountersFormat: optimize_counters_format_t = Json {
        /// A JSON object.
        Json = 0, "json";
        /// The text format of Prometheus.
        Prometheus = 1, "prometheus";
    }
}

/// The values of the counters at one moment. They count for the whole process: all models, sessions and threads
/// together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counters {
    /// Models that were loaded from files or memory.
    pub models_loaded: u64,
    /// Size of these models in bytes; mapped, not necessarily read.
    pub bytes_loaded: u64,
    /// Seconds that loading took.
    pub load_seconds: f64,
    /// Sessions that were created.
    pub sessions_created: u64,
    /// Seconds that creating sessions took.
    pub session_seconds: f64,
    /// Runs of sessions that ended, failed ones included.
    pub runs: u64,
    /// Runs that failed, cancelled ones included.
    pub failed_runs: u64,
    /// Seconds that runs took, summed over threads.
    pub run_seconds: f64,
    /// Runs that are in progress now.
    pub active_runs: u64,
    /// Calls that wait for another call of the same engine now.
    pub waiting_calls: u64,
    /// Tokens that the models of generators have read: those of prompts, and generated ones.
    pub read_tokens: u64,
    /// Tokens that generators have generated.
    pub generated_tokens: u64,
}

/// A counter of events, or of operations in progress.
pub struct Counter(AtomicU64);

/// A sum of seconds.
pub struct Seconds(AtomicU64);

impl Counter {
    const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds a number of events.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds 1 until the returned guard is dropped.
    pub fn hold(&self) -> Held<'_> {
        self.add(1);
        Held(self)
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Seconds {
    const fn new() -> Seconds {
        Seconds(AtomicU64::new(0))
    }

    /// Adds the time since `start`.
    pub fn add(&self, start: Instant) {
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn get(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1e9
    }
}

/// The guard of [`Counter::hold`], which subtracts 1 when it is dropped.
pub struct Held<'c>(&'c Counter);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counters to which the code of the library adds.
pub struct Process {
    /// See [`Counters::models_loaded`].
    pub models_loaded: Counter,
    /// See [`Counters::bytes_loaded`].
    pub bytes_loaded: Counter,
    /// See [`Counters::load_seconds`].
    pub load_seconds: Seconds,
    /// See [`Counters::sessions_created`].
    pub sessions_created: Counter,
    /// See [`Counters::session_seconds`].
    pub session_seconds: Seconds,
    /// See [`Counters::runs`].
    pub runs: Counter,
    /// See [`Counters::failed_runs`].
    pub failed_runs: Counter,
    /// See [`Counters::run_seconds`].
    pub run_seconds: Seconds,
    /// See [`Counters::active_runs`].
    pub active_runs: Counter,
    /// See [`Counters::waiting_calls`].
    pub waiting_calls: Counter,
    /// See [`Counters::read_tokens`].
    pub read_tokens: Counter,
    /// See [`Counters::generated_tokens`].
    pub generated_tokens: Counter,
}

/// The counters of this process.
pub static PROCESS: Process = Process {
    models_loaded: Counter::new(),
    bytes_loaded: Counter::new(),
    load_seconds: Seconds::new(),
    sessions_created: Counter::new(),
    session_seconds: Seconds::new(),
    runs: Counter::new(),
    failed_runs: Counter::new(),
    run_seconds: Seconds::new(),
    active_runs: Counter::new(),
    waiting_calls: Counter::new(),
    read_tokens: Counter::new(),
    generated_tokens: Counter::new(),
};

/// Runs `work`, counts it as a run of a session with its time and whether it failed, and returns its result.
pub fn run<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let (_active, start) = (PROCESS.active_runs.hold(), Instant::now());
    let done = work();
    PROCESS.run_seconds.add(start);
    PROCESS.runs.add(1);
    PROCESS.failed_runs.add(u64::from(done.is_err()));
    done
}

impl Counters {
    /// Returns the counters of this process now.
    pub fn now() -> Counters {
        let all = &PROCESS;
        Counters {
            models_loaded: all.models_loaded.get(),
            bytes_loaded: all.bytes_loaded.get(),
            load_seconds: all.load_seconds.get(),
            sessions_created: all.sessions_created.get(),
            session_seconds: all.session_seconds.get(),
            runs: all.runs.get(),
            failed_runs: all.failed_runs.get(),
            run_seconds: all.run_seconds.get(),
            active_runs: all.active_runs.get(),
            waiting_calls: all.waiting_calls.get(),
            read_tokens: all.read_tokens.get(),
            generated_tokens: all.generated_tokens.get(),
        }
    }

    /// Returns the counters in the text format of Prometheus.
    pub fn prometheus(&self) -> String {
        let rows: [(&str, &str, &str, f64); 12] = [
            ("models_loaded_total", "counter", "Models loaded.", self.models_loaded as f64),
            ("loaded_bytes_total", "counter", "Size of the loaded models.", self.bytes_loaded as f64),
            ("load_seconds_total", "counter", "Time to load models.", self.load_seconds),
            ("sessions_created_total", "counter", "Sessions created.", self.sessions_created as f64),
            ("session_seconds_total", "counter", "Time to create sessions.", self.session_seconds),
            ("runs_total", "counter", "Runs of sessions.", self.runs as f64),
            ("failed_runs_total", "counter", "Runs that failed or were cancelled.", self.failed_runs as f64),
            ("run_seconds_total", "counter", "Time of runs, summed over threads.", self.run_seconds),
            ("active_runs", "gauge", "Runs in progress.", self.active_runs as f64),
            ("waiting_calls", "gauge", "Calls that wait for an engine.", self.waiting_calls as f64),
            ("read_tokens_total", "counter", "Tokens that models of generators have read.", self.read_tokens as f64),
            ("generated_tokens_total", "counter", "Tokens generated.", self.generated_tokens as f64),
        ];
        let row = |(name, kind, help, value): (&str, &str, &str, f64)| {
            format!("# HELP optimize_{name} {help}\n# TYPE optimize_{name} {kind}\noptimize_{name} {value}\n")
        };
        rows.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_with_their_failures() {
        let before = Counters::now();
        assert_eq!(run(|| Ok::<_, ()>(Counters::now().active_runs)).map(|active| active > 0), Ok(true));
        assert_eq!(run(|| Err::<(), _>("no")), Err("no"));
        let after = Counters::now();
        assert!(after.runs >= before.runs + 2 && after.failed_runs > before.failed_runs);
        assert!(after.run_seconds > before.run_seconds);
    }

    #[test]
    fn the_text_for_prometheus_has_a_value_for_each_counter() {
        let text = Counters { runs: 7, run_seconds: 0.25, ..Counters::default() }.prometheus();
        assert!(text.contains("# TYPE optimize_runs_total counter\noptimize_runs_total 7\n"), "{text}");
        assert!(text.contains("optimize_run_seconds_total 0.25\n"));
        let fields = serde_json::to_value(Counters::default()).unwrap();
        let values = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(values, fields.as_object().unwrap().len());
    }
}
