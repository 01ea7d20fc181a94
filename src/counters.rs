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

/// A counter of events, or of operations in progress.
pub struct Counter(AtomicU64);

/// A sum of durations, kept in nanoseconds and shown in seconds.
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

/// Defines the counters: for each its name, its type here and in [`Counters`], and its name, type and description for
/// Prometheus.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $kind:ident as $value:ident, $shown:literal $shown_as:literal $help:literal;)*) => {
        /// The values of the counters at one moment. They count for the whole process: all models, sessions and threads
        /// together.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
        pub struct Counters {
            $($(#[$doc])* pub $name: $value,)*
        }

        /// The counters to which the code of the library adds.
        pub struct Process {
            $($(#[$doc])* pub $name: $kind,)*
        }

        /// The counters of this process.
        pub static PROCESS: Process = Process { $($name: $kind::new(),)* };

        impl Counters {
            /// Returns the counters of this process now.
            pub fn now() -> Counters {
                Counters { $($name: PROCESS.$name.get(),)* }
            }

            /// Returns name, type, description and value of each counter, for Prometheus.
            fn shown(&self) -> Vec<(&'static str, &'static str, &'static str, f64)> {
                vec![$(($shown, $shown_as, $help, self.$name as f64),)*]
            }
        }
    };
}

counters! {
    /// Number of models that were loaded from files or memory.
    models_loaded: Counter as u64, "models_loaded_total" "counter" "Models loaded.";
    /// Sum of the sizes of all loaded models in bytes. Mapped weights count, even if they were never read.
    bytes_loaded: Counter as u64, "loaded_bytes_total" "counter" "Size of the loaded models.";
    /// Time in seconds that loading took.
    load_seconds: Seconds as f64, "load_seconds_total" "counter" "Time to load models.";
    /// Number of sessions that were created.
    sessions_created: Counter as u64, "sessions_created_total" "counter" "Sessions created.";
    /// Time in seconds that creating sessions took.
    session_seconds: Seconds as f64, "session_seconds_total" "counter" "Time to create sessions.";
    /// Number of runs of sessions that ended, including failed ones.
    runs: Counter as u64, "runs_total" "counter" "Runs of sessions.";
    /// Number of runs that failed, including cancelled ones.
    failed_runs: Counter as u64, "failed_runs_total" "counter" "Runs that failed or were cancelled.";
    /// Time in seconds that runs took, summed over threads.
    run_seconds: Seconds as f64, "run_seconds_total" "counter" "Time of runs, summed over threads.";
    /// Number of runs that are in progress now.
    active_runs: Counter as u64, "active_runs" "gauge" "Runs in progress.";
    /// Number of calls that wait now for another call of the same TensorRT engine to end.
    waiting_calls: Counter as u64, "waiting_calls" "gauge" "Calls that wait for an engine.";
    /// Number of tokens that the models of generators have read: those of prompts, and generated ones.
    read_tokens: Counter as u64, "read_tokens_total" "counter" "Tokens that models of generators have read.";
    /// Number of tokens that generators have generated.
    generated_tokens: Counter as u64, "generated_tokens_total" "counter" "Tokens generated.";
}

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
    /// Returns the counters in the text format of Prometheus.
    pub fn prometheus(&self) -> String {
        let row = |(name, kind, help, value): (&str, &str, &str, f64)| {
            format!("# HELP optimize_{name} {help}\n# TYPE optimize_{name} {kind}\noptimize_{name} {value}\n")
        };
        self.shown().into_iter().map(row).collect()
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
