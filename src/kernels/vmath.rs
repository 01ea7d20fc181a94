//! exp, erf and the activation functions, for the vectors of every class.
//!
//! Errors against float64, measured over all magnitudes: `exp` 1 ulp, sigmoid and tanh 3. The error of GELU is up to
//! 1 ulp of its argument x, not of the result, as in other implementations with erf.
//! `tests/activation.rs` checks the activation functions, with wider bounds.

use super::Activation;
use super::simd::Simd;

/// Returns the polynomial c₀ + c₁x + c₂x² + …
#[inline(always)]
fn polynomial<V: Simd, const N: usize>(x: V::F, coefficients: [f32; N]) -> V::F {
    let mut sum = V::splat(coefficients[N - 1]);
    for index in (0..N - 1).rev() {
        sum = V::fma(sum, x, V::splat(coefficients[index]));
    }
    sum
}

/// Lower bound of exponents whose exponentials are normal numbers, with a margin: denormals are a hundred times slower.
const LOWEST: f32 = -87.0;
/// Upper bound of exponents whose exponentials are finite, with a margin.
const HIGHEST: f32 = 87.0;

/// Returns eˣ for x limited to `LOWEST` … `HIGHEST`.
#[inline(always)]
fn exp<V: Simd>(x: V::F) -> V::F {
    // A NaN is the second operand, which `min` returns.
    exp_below::<V>(V::min(V::splat(HIGHEST), x))
}

/// Returns eˣ for x limited to at least `LOWEST`; x is at most `HIGHEST`.
#[inline(always)]
fn exp_below<V: Simd>(x: V::F) -> V::F {
    let x = V::max(V::splat(LOWEST), x);
    let n = V::round(V::mul(x, V::splat(std::f32::consts::LOG2_E)));
    let rest = V::fnma(n, V::splat(-2.121_944_4e-4), V::fnma(n, V::splat(0.693_359_4), x));
    let tail = polynomial::<V, 5>(rest, [0.5, 0.166_665_77, 0.041_666_555, 0.008_363_173, 0.001_392_617_6]);
    let power = V::add(V::splat(1.0), V::fma(V::mul(rest, rest), tail, rest));
    V::scale(power, n)
}

/// Returns eˣ for x ≤ 0, or 0 where that would be denormal.
#[inline(always)]
pub fn exp_or_zero<V: Simd>(x: V::F) -> V::F {
    V::if_less(x, V::splat(LOWEST), V::zero(), exp_below::<V>(x))
}

/// Returns cap · tanh(x / cap).
#[inline(always)]
pub fn capped<V: Simd>(x: V::F, cap: f32) -> V::F {
    V::mul(V::splat(cap), tanh::<V>(V::div(x, V::splat(cap))))
}

/// Returns 1 / (1 + e⁻ˣ).
#[inline(always)]
fn sigmoid<V: Simd>(x: V::F) -> V::F {
    V::inverse(V::add(V::splat(1.0), exp::<V>(V::sub(V::zero(), x))))
}

/// Returns x · sigmoid(y), or 0 where that would be tiny.
#[inline(always)]
fn gate<V: Simd>(x: V::F, y: V::F) -> V::F {
    V::if_less(y, V::splat(LOWEST), V::zero(), V::mul(x, sigmoid::<V>(y)))
}

/// Returns x / (1 + 2⁻ʸ), or 0 where that would be tiny. This is cheaper than [`gate`], but y · ln 2 is rounded only
/// once: the error is up to 1 ulp of y.
#[inline(always)]
fn gate_by_two<V: Simd>(x: V::F, y: V::F) -> V::F {
    // A NaN is the second operand, which `min` and `max` return.
    let y = V::max(V::splat(-126.0), V::min(V::splat(126.0), y));
    let n = V::round(y);
    let power = polynomial::<V, 6>(V::sub(n, y), TWO);
    let power = V::scale(power, V::sub(V::zero(), n));
    V::if_less(y, V::splat(-125.5), V::zero(), V::mul(x, V::inverse(V::add(V::splat(1.0), power))))
}

/// Coefficients of the polynomial for 2ˣ with x from -½ to ½.
const TWO: [f32; 6] = [1.000_000_1, 0.693_146_94, 0.240_221_2, 0.055_507_13, 0.009_675_542, 0.001_327_647_2];

/// Argument from which on the normal distribution function Φ is 1 in float32.
const EDGE: f32 = 5.5;

/// Returns x · Φ(x), without an exponential or a division: as the epilogue of a product it takes a tenth of the
/// product's time.
#[inline(always)]
fn gelu<V: Simd>(x: V::F) -> V::F {
    // A NaN is the second operand, which `max` returns; -∞ becomes finite, because its product with 0 would be NaN.
    let x = V::max(V::splat(f32::MIN), x);
    let near = V::min(V::splat(EDGE), V::max(V::splat(-EDGE), x));
    let place = V::fma(V::mul(near, near), V::splat(2.0 / (EDGE * EDGE)), V::splat(-1.0));
    let slope = polynomial::<V, 16>(place, NORMAL);
    V::mul(x, V::max(V::zero(), V::fma(near, slope, V::splat(0.5))))
}

/// Coefficients of the polynomial of 2 (x / `EDGE`)² - 1 (which is from -1 to 1) for (Φ(x) - ½) / x, with the smallest
/// possible maximum error of Φ. At -`EDGE` the sum with ½ is at most 0.
const NORMAL: [f32; 16] = [
    0.128_551_93,
    -0.064_172_335,
    0.047_737_63,
    -0.038_792_785,
    0.032_070_26,
    -0.026_048_26,
    0.020_364_568,
    -0.014_999_079,
    0.010_227_825_5,
    -0.006_819_91,
    0.004_621_784,
    -0.002_418_65,
    0.000_720_103_8,
    -0.000_529_131_74,
    0.000_631_559_9,
    -0.000_236_417_8,
];

#[inline(always)]
fn tanh<V: Simd>(x: V::F) -> V::F {
    let size = V::abs(x);
    let square = V::mul(x, x);
    let near = polynomial::<V, 5>(square, [-0.333_332_8, 0.133_314_19, -0.053_739_71, 0.020_639_04, -0.005_704_988_7]);
    let near = V::fma(V::mul(near, square), x, x);
    let far = V::add(V::splat(1.0), exp::<V>(V::add(size, size)));
    let far = V::copy_sign(V::fnma(V::splat(2.0), V::inverse(far), V::splat(1.0)), x);
    V::if_less(size, V::splat(0.625), near, far)
}

/// Applies an activation function; `activation` is a constant in callers whose speed matters.
#[inline(always)]
fn apply<V: Simd>(activation: Activation, x: V::F) -> V::F {
    match activation {
        Activation::None => x,
        Activation::Relu => V::max(V::zero(), x),
        Activation::Gelu => gelu::<V>(x),
        Activation::GeluTanh => {
            // The factor of x is 2 √(2/π) / ln 2 · (1 + 0.044715 x²).
            let slope = V::fma(V::mul(x, x), V::splat(0.102_943_24), V::splat(2.302_208_2));
            gate_by_two::<V>(x, V::mul(x, slope))
        }
        Activation::Silu => gate::<V>(x, x),
        Activation::Sigmoid => sigmoid::<V>(x),
        Activation::Tanh => tanh::<V>(x),
        Activation::QuickGelu => gate_by_two::<V>(x, V::mul(x, V::splat(2.455_467))),
    }
}

/// Applies the activation to `count` values at `at`, and adds those at `residual` if it is not null.
///
/// # Safety
/// `count` values can be read and written at `at`, and read at `residual` if it is not null.
#[inline(always)]
pub unsafe fn finish<V: Simd>(activation: Activation, at: *mut f32, residual: *const f32, count: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe { apply_to::<V>(activation, at, at, residual, count) };
}

/// Applies the activation to `count` values at `from`, adds those at `residual` if it is not null, and writes the
/// results to `at`.
///
/// # Safety
///
/// `count` values can be read at `from`, written at `at`, and read at `residual` if it is not null.
#[inline(always)]
pub unsafe fn apply_to<V: Simd>(
    activation: Activation,
    from: *const f32,
    at: *mut f32,
    residual: *const f32,
    count: usize,
) {
    macro_rules! each {
        ($($name:ident),*) => {
            // SAFETY: guaranteed by the caller.
            match activation {
                $(Activation::$name => unsafe { apply_one::<V>(Activation::$name, from, at, residual, count) },)*
            }
        };
    }
    each!(None, Relu, Gelu, GeluTanh, Silu, Sigmoid, Tanh, QuickGelu);
}

#[inline(always)]
unsafe fn apply_one<V: Simd>(
    activation: Activation,
    from: *const f32,
    at: *mut f32,
    residual: *const f32,
    count: usize,
) {
    // SAFETY: guaranteed by the caller for `count` values, which the loop does not exceed.
    unsafe {
        let mut start = 0;
        while start + V::LANES <= count {
            let mut value = apply::<V>(activation, V::load(from.add(start)));
            if !residual.is_null() {
                value = V::add(value, V::load(residual.add(start)));
            }
            V::store(at.add(start), value);
            start += V::LANES;
        }
        if start < count {
            let mut value = apply::<V>(activation, V::load_some(from.add(start), count - start));
            if !residual.is_null() {
                value = V::add(value, V::load_some(residual.add(start), count - start));
            }
            V::store_some(at.add(start), value, count - start);
        }
    }
}
