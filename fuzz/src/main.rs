//! The fuzzer: OPTIMIZE_FUZZ_TARGET names one of [`targets::TARGETS`], or `calls`.
#![no_main]

mod calls;
mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static TARGET: OnceLock<targets::Target> = OnceLock::new();

/// Finds the target, and makes every panic end the process, as a crash that libFuzzer keeps, except panics inside `tokenizers`.
///
/// The library turns panics of `tokenizers` into errors; for those the hook stays silent. Call it in
/// `init:` of `fuzz_target!`, which runs after libFuzzer's own hook was set.
fn prepare() {
    let name = std::env::var("OPTIMIZE_FUZZ_TARGET").expect("OPTIMIZE_FUZZ_TARGET names a target");
    let known = targets::TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target);
    let target = known.or((name == "calls").then_some(calls::calls as targets::Target));
    TARGET.get_or_init(|| target.unwrap_or_else(|| panic!("there is no target {name}")));
    std::panic::set_hook(Box::new(|panic| {
        let file = panic.location().map_or("", |place| place.file());
        if !file.contains("/tokenizers-") {
            eprintln!("{panic}");
            eprintln!("{}", std::backtrace::Backtrace::force_capture());
            std::process::abort();
        }
    }));
}

fuzz_target!(init: prepare(), |data: &[u8]| {
    if let Some(target) = TARGET.get() {
        target(data);
    }
});
