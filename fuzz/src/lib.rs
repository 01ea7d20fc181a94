//! The code that the fuzz targets (`targets/*.rs`, one program each) share. Each program contains only the code that
//! its target can reach, so that libFuzzer checks few counters after each execution.

pub mod calls;
pub mod targets;

pub use libfuzzer_sys;

/// Makes every panic end the process, as a crash that libFuzzer records, except panics inside the crate `tokenizers`,
/// which the library turns into errors. Also limits `rayon` to the calling thread.
///
/// Call it in `init:` of `fuzz_target!`, which runs after libFuzzer sets its own panic hook.
pub fn prepare() {
    std::panic::set_hook(Box::new(|panic| {
        let file = panic.location().map_or("", |place| place.file());
        if !file.contains("/tokenizers-") {
            eprintln!("{panic}");
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
            std::process::abort();
        }
    }));
    // The fuzzing thread is the pool: passing work to another thread costs more than the work on a small input.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    pool.build_global().expect("the first pool of the process");
}

/// Defines the program of a target, a function of the input's bytes.
#[macro_export]
macro_rules! fuzz {
    ($target:path) => {
        $crate::libfuzzer_sys::fuzz_target!(init: $crate::prepare(), |data: &[u8]| $target(data));
    };
}
