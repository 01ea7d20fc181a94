//! System calls of Linux that the standard library does not offer.

/// Requests huge pages for a range of memory, as a hint: packed weights are read sequentially, and with small pages a
/// quarter of the time is spent on address translation.
pub fn advise_huge_pages(start: *mut u8, len: usize) {
    const MADVISE: usize = 28;
    const HUGE_PAGE: usize = 14;
    if len >= 2 << 20 {
        request(MADVISE, start as usize, len, HUGE_PAGE);
    }
}

/// Requests the permission to use the tile registers of AMX, which a process needs. Returns whether it is granted.
pub fn permit_tiles() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQUEST_STATE: usize = 0x1023;
    const TILE_DATA: usize = 18;
    request(ARCH_PRCTL, REQUEST_STATE, TILE_DATA, 0) == 0
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn request(number: usize, first: usize, second: usize, third: usize) -> isize {
    let result: isize;
    // SAFETY: the two requests above change no memory that the compiler knows of; the kernel keeps all registers
    // but rax, rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn request(_: usize, _: usize, _: usize, _: usize) -> isize {
    -1
}
