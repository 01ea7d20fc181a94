//! AVX2 with FMA, with or without 256-bit VNNI.

use std::arch::x86_64::*;

use crate::kernels::simd::{Simd, Work};

/// Vectors of 256 bits. With `VNNI`, the processor has the 256-bit VPDPBUSD.
#[derive(Clone, Copy)]
pub struct Avx2<const VNNI: bool>;

/// Defines methods that are compiled with the instructions of the class.
macro_rules! methods {
    ($($(#[$meta:meta])* fn $name:ident $(<const $n:ident: u32>)? ($($arg:ident: $type:ty),*) -> $out:ty $body:block)*) => {$(
        $(#[$meta])*
        #[inline(always)]
        fn $name $(<const $n: u32>)? ($($arg: $type),*) -> $out {
            // SAFETY: called within `Simd::call` only, which is entered on processors of the class.
            unsafe { $body }
        }
    )*};
}

/// Returns a mask of the first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __m256i {
    const LANES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: 8 values are read from an index between 0 and 8; called within `Simd::call` only.
    unsafe { _mm256_loadu_si256(LANES.as_ptr().add(8 - count.min(8)).cast()) }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const DOT_BF16: bool = false;
    const SIGNED: bool = !VNNI;
    type F = __m256;
    type I = __m256i;

    fn call<W: Work>(work: W) {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn plain<W: Work>(work: W) {
            work.run::<Avx2<false>>();
        }
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn with_vnni<W: Work>(work: W) {
            work.run::<Avx2<true>>();
        }
        // SAFETY: `simd::run` has chosen the class by the extensions of the processor.
        unsafe { if VNNI { with_vnni(work) } else { plain(work) } }
    }

    methods! {
        fn zero() -> __m256 { _mm256_setzero_ps() }
        fn splat(value: f32) -> __m256 { _mm256_set1_ps(value) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn inverse(a: __m256) -> __m256 { _mm256_div_ps(_mm256_set1_ps(1.0), a) }
        fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn fnma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fnmadd_ps(a, b, c) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn round(a: __m256) -> __m256 { _mm256_round_ps::<8>(a) }
        fn scale(a: __m256, n: __m256) -> __m256 {
            // The factor is split into two, each of which is a normal power of two.
            let whole = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(whole);
            let power = |n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))));
            _mm256_mul_ps(_mm256_mul_ps(a, power(half)), power(_mm256_sub_epi32(whole, half)))
        }
        fn if_less(a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        }
        fn copy_sign(a: __m256, sign: __m256) -> __m256 {
            let mask = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(mask, a), _mm256_and_ps(mask, sign))
        }
        fn sum(a: __m256) -> f32 {
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }

        fn izero() -> __m256i { _mm256_setzero_si256() }
        fn isplat(value: i32) -> __m256i { _mm256_set1_epi32(value) }
        fn iadd(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn isub(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
        fn imul(a: __m256i, b: __m256i) -> __m256i { _mm256_mullo_epi32(a, b) }
        fn imax(a: __m256i, b: __m256i) -> __m256i { _mm256_max_epi32(a, b) }
        fn iand(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn ixor(a: __m256i, b: __m256i) -> __m256i { _mm256_xor_si256(a, b) }
        fn isum(a: __m256i) -> i32 {
            let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b00_00_11_10>(a));
            _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<1>(a)))
        }
        fn ilargest(a: __m256i) -> i32 {
            let a = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_max_epi32(a, _mm_shuffle_epi32::<0b00_00_11_10>(a));
            _mm_cvtsi128_si32(_mm_max_epi32(a, _mm_shuffle_epi32::<1>(a)))
        }
        fn bits(a: __m256) -> __m256i { _mm256_castps_si256(a) }
        fn from_bits(a: __m256i) -> __m256 { _mm256_castsi256_ps(a) }
        fn to_f32(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
        fn to_i32(a: __m256) -> __m256i { _mm256_cvtps_epi32(a) }
        fn dot(sum: __m256i, weights: __m256i, activations: __m256i) -> __m256i {
            if VNNI {
                _mm256_dpbusd_avx_epi32(sum, weights, activations)
            } else {
                // VPMADDUBSW would saturate, so even and odd bytes are extended to 16 bits instead.
                let even = _mm256_and_si256(weights, _mm256_set1_epi16(255));
                let odd = _mm256_srli_epi16::<8>(weights);
                let even_activations = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(activations));
                let odd_activations = _mm256_srai_epi16::<8>(activations);
                let products = _mm256_madd_epi16(even, even_activations);
                _mm256_add_epi32(sum, _mm256_add_epi32(products, _mm256_madd_epi16(odd, odd_activations)))
            }
        }
        fn dot_signed(sum: __m256i, weights: __m256i, sizes: __m256i, activations: __m256i) -> __m256i {
            // The sum of two products of at most 128 · 127 fits into 16 bits.
            let pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(activations, weights));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
        fn magnitudes(a: __m256i) -> __m256i { _mm256_abs_epi8(a) }
        fn dot_nibbles(sum: __m256i, weights: __m256i, activations: __m256i) -> __m256i {
            if VNNI {
                _mm256_dpbusd_avx_epi32(sum, weights, activations)
            } else {
                // The sum of two products of at most 15 · 127 fits into 16 bits.
                let pairs = _mm256_maddubs_epi16(weights, activations);
                _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }
        fn prefetch(from: *const u8) -> () { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        fn prefetch_write(to: *mut u8) -> () { _mm_prefetch::<_MM_HINT_ET0>(to.cast::<i8>()) }
    }

    /// Returns `sum`: this class has no bfloat16 dot product, so no kernel calls it.
    #[inline(always)]
    fn dot_bf16(sum: __m256, _: __m256i, _: __m256i) -> __m256 {
        sum
    }

    #[inline(always)]
    fn shl<const N: u32>(a: __m256i) -> __m256i {
        // SAFETY: called within `Simd::call` only.
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(N as i32)) }
    }

    #[inline(always)]
    fn shr<const N: u32>(a: __m256i) -> __m256i {
        // SAFETY: called within `Simd::call` only.
        unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(N as i32)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m256 {
        // SAFETY: guaranteed by the caller.
        let wide = unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())) };
        Self::from_bits(Self::shl::<16>(wide))
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> __m256 {
        if count == 0 {
            // QEMU reads even what is masked off, and `from` may be the address of an empty slice.
            return Self::zero();
        }
        // SAFETY: guaranteed by the caller; lanes behind `count` are not touched.
        unsafe { _mm256_maskload_ps(from, first(count)) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m256) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn store_some(to: *mut f32, value: __m256, count: usize) {
        // SAFETY: guaranteed by the caller; lanes behind `count` are not touched.
        unsafe { _mm256_maskstore_ps(to, first(count), value) }
    }

    #[inline(always)]
    unsafe fn iload(from: *const u8) -> __m256i {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn iload_splat(from: *const u8) -> __m256i {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn iload_u8(from: *const u8) -> __m256i {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, value: __m256i) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let low = _mm256_and_si256(value, _mm256_set1_epi32(255));
            let half = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(half, half));
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, value: __m256) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let bits = _mm256_castps_si256(value);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
            let bits = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            let half = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256::<1>(bits));
            _mm_storeu_si128(to.cast(), half);
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, count: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let row = |index: usize| _mm256_loadu_ps(from.add(index.min(count - 1) * from_stride));
            let mut quads = [_mm256_setzero_ps(); 8];
            for base in [0, 4] {
                let (a, b, c, d) = (row(base), row(base + 1), row(base + 2), row(base + 3));
                let double = |x| _mm256_castps_pd(x);
                let (low, high) = (double(_mm256_unpacklo_ps(a, b)), double(_mm256_unpackhi_ps(a, b)));
                let (low2, high2) = (double(_mm256_unpacklo_ps(c, d)), double(_mm256_unpackhi_ps(c, d)));
                quads[base] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, low2));
                quads[base + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, low2));
                quads[base + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high, high2));
                quads[base + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high, high2));
            }
            for index in 0..4 {
                let (a, b) = (quads[index], quads[4 + index]);
                Self::store_some(to.add(index * to_stride), _mm256_permute2f128_ps::<0x20>(a, b), count);
                Self::store_some(to.add((4 + index) * to_stride), _mm256_permute2f128_ps::<0x31>(a, b), count);
            }
        }
    }
}
