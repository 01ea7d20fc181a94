//! What the kernels ask of a class's vector registers.

use super::Class;

/// A kernel, written once for any vectors.
pub trait Work {
    /// Does the work. Always inlined, so that it is compiled with the instructions of `V`.
    fn run<V: Simd>(self);
}

/// Runs `work` with the vectors of the class, which the processor must support; `Scalar` has none.
pub fn run<W: Work>(class: Class, work: W) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::x86::{Avx2, Avx512};
        match class {
            Class::Scalar => debug_assert!(false, "the scalar class has no vectors"),
            Class::Avx2 => Avx2::<false>::call(work),
            Class::Avx2Vnni => Avx2::<true>::call(work),
            Class::Avx512Vnni | Class::Avx512Bf16 | Class::Amx => Avx512::<false>::call(work),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (class, work);
}

/// As [`run`], for work in float32 alone: the same code serves `Avx2` and `Avx2Vnni`.
pub fn run_float<W: Work>(class: Class, work: W) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::x86::{Avx2, Avx512};
        match class {
            Class::Scalar => debug_assert!(false, "the scalar class has no vectors"),
            Class::Avx2 | Class::Avx2Vnni => Avx2::<false>::call(work),
            Class::Avx512Vnni | Class::Avx512Bf16 | Class::Amx => Avx512::<false>::call(work),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (class, work);
}

/// As [`run`], for work with the bfloat16 dot product (`Avx512Bf16` and `Amx` have it).
pub fn run_dot_bf16<W: Work>(work: W) {
    #[cfg(target_arch = "x86_64")]
    super::x86::Avx512::<true>::call(work);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = work;
}

/// Vectors of 32-bit lanes. Values of `F` and `I` exist only where the class runs: kernels get them through
/// [`Simd::call`], which is entered after the processor was asked.
pub trait Simd: Copy + 'static {
    /// Lanes of a vector.
    const LANES: usize;
    /// Rows of a register block of two vectors.
    const ROWS: usize;
    /// Whether there is a bfloat16 dot product.
    const DOT_BF16: bool;
    /// float32 lanes.
    type F: Copy;
    /// int32 lanes, or four times as many bytes.
    type I: Copy;

    /// Calls `work` in a function that is compiled for the class.
    fn call<W: Work>(work: W);

    fn zero() -> Self::F;
    fn splat(value: f32) -> Self::F;
    fn add(a: Self::F, b: Self::F) -> Self::F;
    fn sub(a: Self::F, b: Self::F) -> Self::F;
    fn mul(a: Self::F, b: Self::F) -> Self::F;
    fn div(a: Self::F, b: Self::F) -> Self::F;
    /// 1 / a within 1 ulp, for normal a below 2¹²⁶.
    fn inverse(a: Self::F) -> Self::F;
    /// a · b + c, rounded once.
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// c - a · b, rounded once.
    fn fnma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; `b` if one is NaN.
    fn min(a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` if one is NaN.
    fn max(a: Self::F, b: Self::F) -> Self::F;
    fn abs(a: Self::F) -> Self::F;
    /// The nearest whole number, ties to even.
    fn round(a: Self::F) -> Self::F;
    /// a · 2ⁿ for whole n between -252 and 254.
    fn scale(a: Self::F, n: Self::F) -> Self::F;
    /// `yes` where a < b, `no` elsewhere (also for NaN).
    fn if_less(a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// The magnitude of `a` with the sign of `sign`.
    fn copy_sign(a: Self::F, sign: Self::F) -> Self::F;
    fn sum(a: Self::F) -> f32;

    fn izero() -> Self::I;
    fn isplat(value: i32) -> Self::I;
    fn iadd(a: Self::I, b: Self::I) -> Self::I;
    fn isub(a: Self::I, b: Self::I) -> Self::I;
    fn imul(a: Self::I, b: Self::I) -> Self::I;
    /// The larger, as signed numbers.
    fn imax(a: Self::I, b: Self::I) -> Self::I;
    fn iand(a: Self::I, b: Self::I) -> Self::I;
    /// Shifts 32-bit lanes to the left.
    fn shl<const N: u32>(a: Self::I) -> Self::I;
    /// Shifts 32-bit lanes to the right, zeros come in.
    fn shr<const N: u32>(a: Self::I) -> Self::I;
    fn isum(a: Self::I) -> i32;
    fn ilargest(a: Self::I) -> i32;
    /// The same bits.
    fn bits(a: Self::F) -> Self::I;
    /// The same bits.
    fn from_bits(a: Self::I) -> Self::F;
    fn to_f32(a: Self::I) -> Self::F;
    /// The nearest integer, ties to even.
    fn to_i32(a: Self::F) -> Self::I;
    /// Adds to each lane the four products of its uint8 `weights` and int8 `activations`, exactly.
    fn dot(sum: Self::I, weights: Self::I, activations: Self::I) -> Self::I;
    /// As [`Simd::dot`] for `weights` below 16.
    fn dot_nibbles(sum: Self::I, weights: Self::I, activations: Self::I) -> Self::I;
    /// Adds to each lane the two products of its bfloat16 pairs.
    fn dot_bf16(sum: Self::F, a: Self::I, b: Self::I) -> Self::F;

    /// # Safety
    /// `LANES` values can be read at `from`.
    unsafe fn load(from: *const f32) -> Self::F;
    /// The first `count` (at most `LANES`) values, zeros behind.
    /// # Safety
    /// `count` values can be read at `from`.
    unsafe fn load_some(from: *const f32, count: usize) -> Self::F;
    /// # Safety
    /// `LANES` values can be written at `to`.
    unsafe fn store(to: *mut f32, value: Self::F);
    /// # Safety
    /// `count` values (at most `LANES`) can be written at `to`.
    unsafe fn store_some(to: *mut f32, value: Self::F, count: usize);
    /// # Safety
    /// `LANES` · 4 bytes can be read at `from`.
    unsafe fn iload(from: *const u8) -> Self::I;
    /// Four bytes, repeated.
    /// # Safety
    /// 4 bytes can be read at `from`.
    unsafe fn iload_splat(from: *const u8) -> Self::I;
    /// `LANES` bytes, widened as unsigned numbers.
    /// # Safety
    /// `LANES` bytes can be read at `from`.
    unsafe fn iload_u8(from: *const u8) -> Self::I;
    /// Writes the lowest byte of each lane.
    /// # Safety
    /// `LANES` bytes can be written at `to`.
    unsafe fn store_bytes(to: *mut u8, value: Self::I);
    /// Writes each lane rounded to bfloat16.
    /// # Safety
    /// `LANES` · 2 bytes can be written at `to`.
    unsafe fn store_bf16(to: *mut u16, value: Self::F);
    /// Writes the transpose of `count` rows (1 to `LANES`) of `LANES` values: `LANES` rows of `count` values.
    /// # Safety
    /// Both are there to be read and written.
    unsafe fn transpose(from: *const f32, from_stride: usize, count: usize, to: *mut f32, to_stride: usize);
    /// Asks for the cache line at `from`, which need not exist.
    fn prefetch(from: *const u8);
    /// Asks for the cache line at `to`, to write it.
    fn prefetch_write(to: *mut u8);
}
