//! The vector operations that the kernels use, for every class of processors.

use super::Class;

/// A kernel, written once for all vector types.
pub trait Work {
    /// Runs the kernel. Always inlined, so that it is compiled with the instructions of `V`.
    fn run<V: Simd>(self);
}

/// Runs `work` with the vectors of a class, which the processor must support. `Scalar` has none and is not accepted.
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

/// Runs `work`, a kernel that uses only float32, with the vectors of a class: `Avx2` and `Avx2Vnni` share their code.
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

/// Runs `work`, a kernel that uses the bfloat16 dot product. The processor must support `Avx512Bf16`.
pub fn run_dot_bf16<W: Work>(work: W) {
    #[cfg(target_arch = "x86_64")]
    super::x86::Avx512::<true>::call(work);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = work;
}

/// The vectors of a class, with lanes of 32 bits. Kernels use them only within [`Simd::call`], which is called after a
/// check that the processor supports the class. Where an operation exists for float32 and for integers, the name of the
/// latter has the prefix `i`, such as `iadd`.
pub trait Simd: Copy + 'static {
    /// Number of lanes of a vector.
    const LANES: usize;
    /// Number of rows of a register block that is two vectors wide.
    const ROWS: usize;
    /// Whether [`Simd::dot_signed`] is implemented and faster than [`Simd::dot`].
    const SIGNED: bool;
    /// Whether there is a bfloat16 dot product.
    const DOT_BF16: bool;
    /// Vector of float32 lanes.
    type F: Copy;
    /// Vector of int32 lanes, or of four times as many int8 or uint8 lanes.
    type I: Copy;

    /// Calls `work` in a function that is compiled for the class.
    fn call<W: Work>(work: W);

    fn zero() -> Self::F;
    fn splat(value: f32) -> Self::F;
    fn add(a: Self::F, b: Self::F) -> Self::F;
    fn sub(a: Self::F, b: Self::F) -> Self::F;
    fn mul(a: Self::F, b: Self::F) -> Self::F;
    fn div(a: Self::F, b: Self::F) -> Self::F;
    /// Returns 1 / a within 1 ulp, for normal a below 2¹²⁶.
    fn inverse(a: Self::F) -> Self::F;
    /// Returns a · b + c, rounded once.
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Returns c - a · b, rounded once.
    fn fnma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Returns the smaller value; `b` if one of them is NaN.
    fn min(a: Self::F, b: Self::F) -> Self::F;
    /// Returns the larger value; `b` if one of them is NaN.
    fn max(a: Self::F, b: Self::F) -> Self::F;
    fn abs(a: Self::F) -> Self::F;
    /// Returns the nearest integer as float32, ties to even.
    fn round(a: Self::F) -> Self::F;
    /// Returns a · 2ⁿ for integers n from -252 to 254.
    fn scale(a: Self::F, n: Self::F) -> Self::F;
    /// Returns `yes` where a < b, and `no` elsewhere, also for NaN.
    fn if_less(a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// Returns the magnitude of `a` with the sign of `sign`.
    fn copy_sign(a: Self::F, sign: Self::F) -> Self::F;
    /// Returns the sum of the lanes.
    fn sum(a: Self::F) -> f32;

    fn izero() -> Self::I;
    fn isplat(value: i32) -> Self::I;
    fn iadd(a: Self::I, b: Self::I) -> Self::I;
    fn isub(a: Self::I, b: Self::I) -> Self::I;
    fn imul(a: Self::I, b: Self::I) -> Self::I;
    /// Returns the larger of two signed integers.
    fn imax(a: Self::I, b: Self::I) -> Self::I;
    fn iand(a: Self::I, b: Self::I) -> Self::I;
    fn ixor(a: Self::I, b: Self::I) -> Self::I;
    /// Returns 32-bit lanes shifted to the left.
    fn shl<const N: u32>(a: Self::I) -> Self::I;
    /// Returns 32-bit lanes shifted to the right, filled with zeros.
    fn shr<const N: u32>(a: Self::I) -> Self::I;
    /// Returns the sum of the lanes.
    fn isum(a: Self::I) -> i32;
    /// Returns the largest lane, as a signed integer.
    fn ilargest(a: Self::I) -> i32;
    /// Returns the bits of float32 lanes as integers.
    fn bits(a: Self::F) -> Self::I;
    /// Returns the float32 lanes with these bits.
    fn from_bits(a: Self::I) -> Self::F;
    /// Returns int32 lanes converted to float32.
    fn to_f32(a: Self::I) -> Self::F;
    /// Returns the nearest int32, ties to even.
    fn to_i32(a: Self::F) -> Self::I;
    /// Returns `sum`, to each lane of which the four products of uint8 `weights` and int8 `activations` are added,
    /// exactly.
    fn dot(sum: Self::I, weights: Self::I, activations: Self::I) -> Self::I;
    /// Adds products as [`Simd::dot`] does, for int8 `weights` of the magnitudes `sizes`, and `activations` that are
    /// not -128. Must be called only if [`Simd::SIGNED`] is true.
    fn dot_signed(sum: Self::I, weights: Self::I, sizes: Self::I, activations: Self::I) -> Self::I;
    /// Returns the magnitudes of int8 values, as uint8.
    fn magnitudes(a: Self::I) -> Self::I;
    /// Adds products as [`Simd::dot`] does, for `weights` below 16.
    fn dot_nibbles(sum: Self::I, weights: Self::I, activations: Self::I) -> Self::I;
    /// Returns `sum`, to each lane of which the two products of the pairs of bfloat16 in `a` and `b` are added.
    fn dot_bf16(sum: Self::F, a: Self::I, b: Self::I) -> Self::F;

    /// Loads `LANES` float32 values.
    /// # Safety
    /// `LANES` values can be read at `from`.
    unsafe fn load(from: *const f32) -> Self::F;
    /// Loads float16 numbers, given by their bits.
    /// # Safety
    /// `LANES` numbers can be read at `from`.
    unsafe fn load_half(from: *const u16) -> Self::F;
    /// Loads bfloat16 numbers, given by their bits.
    /// # Safety
    /// `LANES` numbers can be read at `from`.
    unsafe fn load_bf16(from: *const u16) -> Self::F;
    /// Loads the first `count` values, at most `LANES`; the other lanes are 0.
    /// # Safety
    /// `count` values can be read at `from`.
    unsafe fn load_some(from: *const f32, count: usize) -> Self::F;
    /// Stores all lanes.
    /// # Safety
    /// `LANES` values can be written at `to`.
    unsafe fn store(to: *mut f32, value: Self::F);
    /// Stores the first `count` lanes, at most `LANES`.
    /// # Safety
    /// `count` values can be written at `to`.
    unsafe fn store_some(to: *mut f32, value: Self::F, count: usize);
    /// Loads `LANES` · 4 bytes.
    /// # Safety
    /// `LANES` · 4 bytes can be read at `from`.
    unsafe fn iload(from: *const u8) -> Self::I;
    /// Loads four bytes into every lane.
    /// # Safety
    /// 4 bytes can be read at `from`.
    unsafe fn iload_splat(from: *const u8) -> Self::I;
    /// Loads `LANES` bytes, zero-extended to 32 bits.
    /// # Safety
    /// `LANES` bytes can be read at `from`.
    unsafe fn iload_u8(from: *const u8) -> Self::I;
    /// Stores the lowest byte of each lane.
    /// # Safety
    /// `LANES` bytes can be written at `to`.
    unsafe fn store_bytes(to: *mut u8, value: Self::I);
    /// Stores each lane rounded to bfloat16.
    /// # Safety
    /// `LANES` · 2 bytes can be written at `to`.
    unsafe fn store_bf16(to: *mut u16, value: Self::F);
    /// Stores the transpose of `count` rows (1 to `LANES`) of `LANES` values: `LANES` rows of `count` values.
    /// # Safety
    /// The rows can be read, and those of the result written.
    unsafe fn transpose(from: *const f32, from_stride: usize, count: usize, to: *mut f32, to_stride: usize);
    /// Prefetches the cache line at `from`; the address need not be valid.
    fn prefetch(from: *const u8);
    /// Prefetches the cache line at `to` for writing.
    fn prefetch_write(to: *mut u8);
}
