//! AVX-512 with VNNI.

use std::arch::x86_64::*;

use crate::kernels::simd::{Simd, Work};

/// Vectors of 512 bits. With `BF16`, the processor has VDPBF16PS.
#[derive(Clone, Copy)]
pub struct Avx512<const BF16: bool>;

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
fn first(count: usize) -> u16 {
    (u32::MAX >> (32 - count.clamp(1, 16)) & if count == 0 { 0 } else { 0xffff }) as u16
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    const LANES: usize = 16;
    const ROWS: usize = 12;
    const DOT_BF16: bool = BF16;
    const SIGNED: bool = false;
    type F = __m512;
    type I = __m512i;

    fn call<W: Work>(work: W) {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn plain<W: Work>(work: W) {
            work.run::<Avx512<false>>();
        }
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
        fn with_bf16<W: Work>(work: W) {
            work.run::<Avx512<true>>();
        }
        // SAFETY: `simd::run` has chosen the class by the extensions of the processor.
        unsafe { if BF16 { with_bf16(work) } else { plain(work) } }
    }

    methods! {
        fn zero() -> __m512 { _mm512_setzero_ps() }
        fn splat(value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn inverse(a: __m512) -> __m512 {
            let near = _mm512_rcp14_ps(a);
            _mm512_fmadd_ps(near, _mm512_fnmadd_ps(a, near, _mm512_set1_ps(1.0)), near)
        }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn abs(a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn round(a: __m512) -> __m512 { _mm512_roundscale_ps::<8>(a) }
        fn scale(a: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(a, n) }
        fn if_less(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes)
        }
        fn copy_sign(a: __m512, sign: __m512) -> __m512 {
            let mask = _mm512_set1_epi32(i32::MIN);
            // The bits of `sign` where `mask` is set, otherwise those of `a`.
            _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xCA>(mask, _mm512_castps_si512(sign), _mm512_castps_si512(a)))
        }
        fn sum(a: __m512) -> f32 { _mm512_reduce_add_ps(a) }

        fn izero() -> __m512i { _mm512_setzero_si512() }
        fn isplat(value: i32) -> __m512i { _mm512_set1_epi32(value) }
        fn iadd(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn isub(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn imul(a: __m512i, b: __m512i) -> __m512i { _mm512_mullo_epi32(a, b) }
        fn imax(a: __m512i, b: __m512i) -> __m512i { _mm512_max_epi32(a, b) }
        fn iand(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn ixor(a: __m512i, b: __m512i) -> __m512i { _mm512_xor_si512(a, b) }
        fn shl<const N: u32>(a: __m512i) -> __m512i { _mm512_slli_epi32::<N>(a) }
        fn shr<const N: u32>(a: __m512i) -> __m512i { _mm512_srli_epi32::<N>(a) }
        fn isum(a: __m512i) -> i32 { _mm512_reduce_add_epi32(a) }
        fn ilargest(a: __m512i) -> i32 { _mm512_reduce_max_epi32(a) }
        fn bits(a: __m512) -> __m512i { _mm512_castps_si512(a) }
        fn from_bits(a: __m512i) -> __m512 { _mm512_castsi512_ps(a) }
        fn to_f32(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn to_i32(a: __m512) -> __m512i { _mm512_cvtps_epi32(a) }
        fn dot(sum: __m512i, weights: __m512i, activations: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(sum, weights, activations)
        }
        fn dot_signed(sum: __m512i, weights: __m512i, _sizes: __m512i, activations: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(sum, weights, activations)
        }
        fn magnitudes(a: __m512i) -> __m512i { _mm512_abs_epi8(a) }
        fn dot_nibbles(sum: __m512i, weights: __m512i, activations: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(sum, weights, activations)
        }
        fn dot_bf16(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
            if BF16 {
                _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b))
            } else {
                sum
            }
        }
        fn prefetch(from: *const u8) -> () { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        fn prefetch_write(to: *mut u8) -> () { _mm_prefetch::<_MM_HINT_ET0>(to.cast::<i8>()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> __m512 {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m512 {
        // SAFETY: guaranteed by the caller.
        let wide = unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())) };
        Self::from_bits(Self::shl::<16>(wide))
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> __m512 {
        // SAFETY: guaranteed by the caller; lanes behind `count` are not touched.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn store_some(to: *mut f32, value: __m512, count: usize) {
        // SAFETY: guaranteed by the caller; lanes behind `count` are not touched.
        unsafe { _mm512_mask_storeu_ps(to, first(count), value) }
    }

    #[inline(always)]
    unsafe fn iload(from: *const u8) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn iload_splat(from: *const u8) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn iload_u8(from: *const u8) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, value: __m512i) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(value)) }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, value: __m512) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            // VCVTNEPS2BF16 is not used, because it treats denormals as 0.
            let bits = _mm512_castps_si512(value);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
            let bits = _mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(nan, rounded, quiet));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(bits));
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, count: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let row = |index: usize| _mm512_loadu_ps(from.add(index.min(count - 1) * from_stride));
            // First, 4 x 4 blocks of rows i, i + 1, i + 2, i + 3 are transposed within the 128-bit lanes.
            let mut quads = [_mm512_setzero_ps(); 16];
            for base in (0..16).step_by(4) {
                let (a, b, c, d) = (row(base), row(base + 1), row(base + 2), row(base + 3));
                let double = |x| _mm512_castps_pd(x);
                let (low, high) = (double(_mm512_unpacklo_ps(a, b)), double(_mm512_unpackhi_ps(a, b)));
                let (low2, high2) = (double(_mm512_unpacklo_ps(c, d)), double(_mm512_unpackhi_ps(c, d)));
                quads[base] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, low2));
                quads[base + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, low2));
                quads[base + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, high2));
                quads[base + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, high2));
            }
            // Then lanes are exchanged: column 4 l + i of the result is lane l of quads i, 4 + i, 8 + i, 12 + i.
            for index in 0..4 {
                let (a, b, c, d) = (quads[index], quads[4 + index], quads[8 + index], quads[12 + index]);
                let (low, low2) = (_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0x44>(c, d));
                let (high, high2) = (_mm512_shuffle_f32x4::<0xEE>(a, b), _mm512_shuffle_f32x4::<0xEE>(c, d));
                let put = |lane: usize, value| Self::store_some(to.add((4 * lane + index) * to_stride), value, count);
                put(0, _mm512_shuffle_f32x4::<0x88>(low, low2));
                put(1, _mm512_shuffle_f32x4::<0xDD>(low, low2));
                put(2, _mm512_shuffle_f32x4::<0x88>(high, high2));
                put(3, _mm512_shuffle_f32x4::<0xDD>(high, high2));
            }
        }
    }
}
