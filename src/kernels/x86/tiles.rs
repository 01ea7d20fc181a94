//! The tile registers of AMX: those of the hardware, and an emulation for tests on any machine.

/// A set of eight tiles of 16 rows of 64 bytes.
pub trait Tiles {
    /// Returns a set of tiles that the current thread can use.
    fn new() -> Self;
    /// Sets all elements of tile `T` to 0.
    fn zero<const T: usize>(&mut self);
    /// Loads tile `T` from memory.
    ///
    /// # Safety
    /// 16 rows of 64 bytes, `stride` bytes apart, can be read at `from`.
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize);
    /// Stores tile `T` in memory.
    ///
    /// # Safety
    /// 16 rows of 64 bytes, `stride` bytes apart, can be written at `to`.
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize);
    /// Adds the products of the int8 rows of tile `A` and the uint8 groups of tile `B` to the int32 values of tile `C`
    /// (TDPBSUD).
    fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self);
    /// Adds the products of the bfloat16 pairs of tiles `A` and `B` to the float32 values of tile `C` (TDPBF16PS).
    fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// The tile registers of the current thread. This type is used only if the processor has tiles and the process may use
/// them.
pub struct Hardware(());

#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const FULL: Configuration = Configuration {
    palette: 1,
    start: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

impl Tiles for Hardware {
    #[inline(always)]
    fn new() -> Self {
        static CONFIGURATION: Configuration = FULL;
        // SAFETY: values are created only on processors with AMX, after the permission (`Class::supported`). The
        // compiler itself uses no tiles, so their contents last from one statement to the next.
        unsafe { std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, readonly)) };
        Self(())
    }

    #[inline(always)]
    fn zero<const T: usize>(&mut self) {
        // SAFETY: the tiles are configured.
        unsafe { std::arch::asm!("tilezero tmm{t}", t = const T, options(nostack, nomem)) };
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: guaranteed by the caller; the tiles are configured.
        unsafe {
            std::arch::asm!("tileloadd tmm{t}, [{from} + {stride}*1]", t = const T, from = in(reg) from,
                stride = in(reg) stride, options(nostack, readonly));
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: guaranteed by the caller; the tiles are configured.
        unsafe {
            std::arch::asm!("tilestored [{to} + {stride}*1], tmm{t}", t = const T, to = in(reg) to,
                stride = in(reg) stride, options(nostack));
        }
    }

    #[inline(always)]
    fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the tiles are configured.
        unsafe {
            std::arch::asm!("tdpbsud tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, nomem));
        }
    }

    #[inline(always)]
    fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the tiles are configured.
        unsafe {
            std::arch::asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, nomem));
        }
    }
}

impl Drop for Hardware {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the tiles are configured.
        unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// An emulation of the tiles in portable Rust.
#[cfg(test)]
pub struct Emulated([[u8; 1024]; 8]);

#[cfg(test)]
impl Emulated {
    fn word(&self, tile: usize, row: usize, column: usize) -> [u8; 4] {
        std::array::from_fn(|byte| self.0[tile][row * 64 + column * 4 + byte])
    }

    fn set(&mut self, tile: usize, row: usize, column: usize, word: [u8; 4]) {
        self.0[tile][row * 64 + column * 4..][..4].copy_from_slice(&word);
    }
}

#[cfg(test)]
impl Tiles for Emulated {
    fn new() -> Self {
        Self([[0x5a; 1024]; 8])
    }

    fn zero<const T: usize>(&mut self) {
        self.0[T] = [0; 1024];
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        for row in 0..16 {
            // SAFETY: guaranteed by the caller.
            let bytes = unsafe { std::slice::from_raw_parts(from.add(row * stride), 64) };
            self.0[T][row * 64..][..64].copy_from_slice(bytes);
        }
    }

    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        for row in 0..16 {
            // SAFETY: guaranteed by the caller.
            unsafe { std::ptr::copy_nonoverlapping(self.0[T][row * 64..].as_ptr(), to.add(row * stride), 64) };
        }
    }

    fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self) {
        for (row, column) in (0..16).flat_map(|row| (0..16).map(move |column| (row, column))) {
            let mut sum = i32::from_le_bytes(self.word(C, row, column));
            for group in 0..16 {
                let (a, b) = (self.word(A, row, group), self.word(B, group, column));
                let product = |byte: usize| i32::from(a[byte] as i8) * i32::from(b[byte]);
                sum = sum.wrapping_add((0..4).map(product).sum());
            }
            self.set(C, row, column, sum.to_le_bytes());
        }
    }

    fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        // Denormals are treated as 0, in inputs and results.
        let flush = |value: f32| if value.is_normal() || !value.is_finite() { value } else { 0.0 };
        let half = |word: [u8; 4], part: usize| {
            flush(f32::from_bits(u32::from(u16::from_le_bytes([word[part * 2], word[part * 2 + 1]])) << 16))
        };
        for (row, column) in (0..16).flat_map(|row| (0..16).map(move |column| (row, column))) {
            let mut sums = [0f32; 2];
            for group in 0..16 {
                let (a, b) = (self.word(A, row, group), self.word(B, group, column));
                for (part, sum) in sums.iter_mut().enumerate() {
                    *sum = flush(half(a, part).mul_add(half(b, part), *sum));
                }
            }
            let before = flush(f32::from_le_bytes(self.word(C, row, column)));
            self.set(C, row, column, flush(before + flush(sums[0] + sums[1])).to_le_bytes());
        }
    }
}
