//! The handling of signals. The first SIGINT or SIGTERM cancels the running calls, so that no file is left half-written
//! and distillation writes a checkpoint. The second signal ends the process at once.

use optimize::call::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::{emulate_default_handler, exit, pipe};
use std::io::{IsTerminal, PipeReader, Read};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// The cancel token of all calls of the process.
static CANCEL: LazyLock<Cancel> = LazyLock::new(Cancel::new);
/// The signal that arrived first; 0 if none has arrived.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The number of values of [`Running`]: of calls that [`CANCEL`] can cancel, and of commands.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Installs the signal handlers. If that fails, signals end the process, as without this function.
pub fn install() {
    for signal in [SIGINT, SIGTERM] {
        let registered = std::io::pipe().and_then(|(reader, writer)| {
            pipe::register(signal, writer)?;
            Ok(reader)
        });
        if let Ok(reader) = registered {
            std::thread::spawn(move || wait(signal, reader));
        }
    }
}

/// Waits for the bytes that the handler of `signal` writes, one for each signal, and acts on each: the first signal of
/// the process cancels the running calls, or ends the process if there are none; a later one has its default effect.
fn wait(signal: i32, mut reader: PipeReader) {
    while reader.read_exact(&mut [0]).is_ok() {
        let is_first = SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        CANCEL.fire();
        if !is_first {
            // This fails only for signals that do not exist.
            drop(emulate_default_handler(signal));
        }
        if CALLS.load(Ordering::SeqCst) == 0 {
            // `exit` does not run destructors of libraries, which other threads may still use.
            exit(128 + signal);
        }
        if std::io::stderr().is_terminal() {
            eprintln!("\noptimize: cancelling; a second signal ends the command at once");
        }
    }
}

/// While a value of this type exists, the first signal does not end the process at once, but cancels calls, also those
/// that begin later. A command that has something to remove at its end creates one before.
pub struct Running(());

impl Running {
    /// Returns a new value.
    pub fn begin() -> Running {
        CALLS.fetch_add(1, Ordering::SeqCst);
        Running(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Calls `body` with a cancel token that the first signal fires, and returns its result.
pub fn cancelling<T>(body: impl FnOnce(&Cancel) -> T) -> T {
    let _running = Running::begin();
    body(&CANCEL)
}

/// Returns the exit code of a process that a signal ended, 130 for SIGINT; `None` if there was no signal.
pub fn exit_code() -> Option<u8> {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(128 + signal as u8),
    }
}
