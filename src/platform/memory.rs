//! The memory that this process uses.

/// Returns the resident memory of this process in bytes, without the pages of shared libraries: otherwise the code of a
/// kernel would count for the first model that uses it. If the operating system does not report the memory by mapping,
/// returns all resident memory; 0 if it does not report that either.
pub fn resident_data_bytes() -> u64 {
    match std::fs::read_to_string("/proc/self/smaps") {
        Ok(maps) => data_kib(&maps) * 1024,
        Err(_) => rss_bytes(),
    }
}

/// Returns the sum in KiB of the `Rss` lines in the text of `/proc/PID/smaps` for mappings that belong to no shared
/// library.
fn data_kib(maps: &str) -> u64 {
    let (mut sum, mut counts) = (0, true);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") if counts => sum += words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0),
            // A mapping begins with a line such as `55d0-55e0 r-xp 00000000 08:01 1234 /usr/lib/libc.so.6`, whose last
            // word, the name of the file, may be missing.
            Some(first) if !first.ends_with(':') => counts = !is_code(line),
            _ => {}
        }
    }
    sum
}

/// Returns whether a line of `smaps` shows the mapping of a shared library: a file named like `x.so` or `x.so.1.2`.
fn is_code(mapping: &str) -> bool {
    let file = mapping.rsplit_once('/').map_or("", |(_, file)| file.trim_end_matches(" (deleted)"));
    let version = file.rsplit_once(".so").map(|(_, version)| version);
    version.is_some_and(|version| version.chars().all(|c| c == '.' || c.is_ascii_digit()))
}

/// Returns the peak resident memory of this process so far, in bytes; 0 if the operating system does not provide it.
pub fn peak_rss_bytes() -> u64 {
    status_kib("VmHWM:") * 1024
}

/// Returns the current resident memory of this process in bytes; 0 if the operating system does not provide it.
fn rss_bytes() -> u64 {
    status_kib("VmRSS:") * 1024
}

fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Runs `work`, and returns its result and the growth of [`resident_data_bytes`] from before it to after it; 0 if the
/// memory did not grow. Memory that other threads allocate meanwhile counts, too. Fails only with an error of `work`.
pub fn growth<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(T, u64), E> {
    trim_heap();
    let before = resident_data_bytes();
    let done = work()?;
    Ok((done, resident_data_bytes().saturating_sub(before)))
}

/// Returns freed heap memory to the kernel, so that resident memory can be compared.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function has no preconditions; it only affects free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0-55e0 r-xp 00000000 08:01 1 /usr/my lib/libonnxruntime.so.1
Size:                400 kB
Rss:                 100 kB
Pss:                  50 kB
55e0-55f0 rw-p 00000000 00:00 0 [heap]
Rss:                  30 kB
VmFlags: rd wr mr
55f0-56f0 rw-p 00000000 00:00 0
Rss:                   4 kB
57f0-58f0 r--s 00000000 08:01 2 /tmp/my model.so.onnx
Rss:                 200 kB
";

    #[test]
    fn libraries_do_not_count() {
        assert_eq!(data_kib(MAPS), 234);
        assert_eq!(data_kib(""), 0);
    }

    #[test]
    fn this_process_takes_some() {
        assert!(resident_data_bytes() > 0);
    }
}
