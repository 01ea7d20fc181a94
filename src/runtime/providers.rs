//! The execution providers: what a session can run on.

use super::Runtime;
use std::sync::LazyLock;

/// Something a session can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// The processor; always there.
    Cpu,
}

impl Provider {
    /// The name users know it by: `cpu`.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Cpu => "cpu",
        }
    }
}

/// What sessions of `runtime` can use, best first.
pub fn available(_runtime: &Runtime) -> &'static [Provider] {
    &[Provider::Cpu]
}

/// Threads that use the processor fully: one for each physical core this process may run on.
///
/// A second thread on a core shares its arithmetic units and slows matrix products down.
pub fn cpu_threads() -> usize {
    static COUNT: LazyLock<usize> = LazyLock::new(|| {
        let allowed = std::thread::available_parallelism().map_or(1, usize::from);
        physical_cores().map_or(allowed, |cores| cores.clamp(1, allowed))
    });
    *COUNT
}

/// Distinct cores among the processors this process may run on; `None` if the system does not say.
fn physical_cores() -> Option<usize> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    let allowed = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu));
    let siblings = allowed.map(|cpu| {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        std::fs::read_to_string(file).ok()
    });
    let cores: Option<std::collections::HashSet<String>> = siblings.collect();
    cores.map(|cores| cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_processor() {
        assert_eq!(available(crate::runtime::test_runtime()), [Provider::Cpu]);
        assert_eq!(Provider::Cpu.name(), "cpu");
        let logical = std::thread::available_parallelism().unwrap().get();
        assert!((1..=logical).contains(&cpu_threads()));
    }
}
