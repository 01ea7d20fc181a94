//! The name, the extensions and the cores of the processor, and functions compiled for its vector widths.

use std::sync::LazyLock;

/// Returns the name of the processor; `None` if the operating system does not provide it.
pub fn name() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Returns the names of the instruction-set extensions of the processor that affect the speed of models, as
/// `is_x86_feature_detected` spells them.
#[cfg(target_arch = "x86_64")]
pub fn features() -> Vec<&'static str> {
    let mut features = Vec::new();
    // The macro accepts only literals, hence a macro to list them.
    macro_rules! detect {
        ($($name:tt),*) => {$(
            if std::arch::is_x86_feature_detected!($name) {
                features.push($name);
            }
        )*};
    }
    detect!("avx2", "fma", "avx512f", "avx512bw", "avxvnni", "avx512vnni", "avx512bf16");
    features
}

/// Returns an empty list, because no extensions are known on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub fn features() -> Vec<&'static str> {
    Vec::new()
}

/// Returns whether sums of int8 products can saturate on this processor: an x86-64 processor that has neither AVX-512
/// VNNI nor AVX-VNNI adds pairs of products in 16 bits.
pub fn int8_saturates() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !(std::arch::is_x86_feature_detected!("avx512vnni") || std::arch::is_x86_feature_detected!("avxvnni"));
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Returns the number of threads that use the CPU fully: one per physical core that this process may run on, but no
/// more than [`std::thread::available_parallelism`], which also observes limits of a container.
///
/// A second thread on a core shares its arithmetic units and slows down matrix products.
pub fn cpu_threads() -> usize {
    static COUNT: LazyLock<usize> = LazyLock::new(|| {
        let allowed = std::thread::available_parallelism().map_or(1, usize::from);
        physical_cores().map_or(allowed, |cores| cores.clamp(1, allowed))
    });
    *COUNT
}

/// Returns the number of distinct cores among the logical CPUs that this process may run on; `None` if the operating
/// system does not report it.
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

/// A macro that defines a function that calls `$body`, which must be `#[inline(always)]`. The call is compiled for
/// AVX-512, for AVX2 and for the baseline, and the widest version that the processor supports is used. The result has
/// the same bits for every width if the order of additions in `$body` does not depend on the width.
macro_rules! for_widest_vectors {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $returns:ty = $body:ident) => {
        $(#[$doc])*
        fn $name($($argument: $type),*) -> $returns {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512($($argument: $type),*) -> $returns {
                    $body($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) -> $returns {
                    $body($($argument),*)
                }
                if std::arch::is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has the extensions that the function is compiled for.
                    return unsafe { avx512($($argument),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has the extensions that the function is compiled for.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $body($($argument),*)
        }
    };
}
pub(crate) use for_widest_vectors;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_thread_for_each_core_and_no_more() {
        let logical = std::thread::available_parallelism().unwrap().get();
        assert!((1..=logical).contains(&cpu_threads()));
    }
}
