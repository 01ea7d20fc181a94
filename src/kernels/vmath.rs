//! exp, erf and the activation functions, for the vectors of every class.
//!
//! Errors against float64, measured over all magnitudes: `exp` 1 ulp, sigmoid and tanh 3, GELU 5 in its negative
//! tail and 2 elsewhere (`tests/activation.rs` holds them to that).

use super::Activation;
use super::simd::Simd;

/// Returns c₀ + c₁x + c₂x² + …
#[inline(always)]
fn polynomial<V: Simd, const N: usize>(x: V::F, coefficients: [f32; N]) -> V::F {
    let mut sum = V::splat(coefficients[N - 1]);
    for index in (0..N - 1).rev() {
        sum = V::fma(sum, x, V::splat(coefficients[index]));
    }
    sum
}

/// Bounds of exponents whose exponentials are normal numbers, with a margin: denormals are a hundred times slower.
const LOWEST: f32 = -87.0;
const HIGHEST: f32 = 87.0;

/// Returns eˣ for x limited to `LOWEST` … `HIGHEST`.
#[inline(always)]
fn exp<V: Simd>(x: V::F) -> V::F {
    // NaN is the second operand, and so the result
    exp_below::<V>(V::min(V::splat(HIGHEST), x))
}

/// Returns eˣ for x from `LOWEST` to `HIGHEST`; for smaller x, that of `LOWEST`.
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

/// Returns 1 / (1 + e⁻ˣ).
#[inline(always)]
fn sigmoid<V: Simd>(x: V::F) -> V::F {
    V::inverse(V::add(V::splat(1.0), exp::<V>(V::sub(V::zero(), x))))
}

/// Returns x · sigmoid(y); 0 where that would be tiny.
#[inline(always)]
fn gate<V: Simd>(x: V::F, y: V::F) -> V::F {
    V::if_less(y, V::splat(LOWEST), V::zero(), V::mul(x, sigmoid::<V>(y)))
}

#[inline(always)]
fn gelu<V: Simd>(x: V::F) -> V::F {
    let x = V::max(V::splat(f32::MIN), x);
    // x²/2 in two parts, because exp amplifies the rounding error
    let half = V::mul(x, V::splat(0.5));
    let square = V::mul(half, x);
    let lost = V::fnma(half, x, square);
    let size = V::mul(V::abs(x), V::splat(std::f32::consts::FRAC_1_SQRT_2));
    let inverse = V::inverse(V::add(size, V::splat(3.0)));
    // erfc(z) = e⁻ᶻ² g(t) / (z + 3), t = (z - 3) / (z + 3)
    let t = V::mul(V::sub(size, V::splat(3.0)), inverse);
    let g = polynomial::<V, 10>(t, ERFC);
    let power = exp_below::<V>(V::sub(V::zero(), square));
    let power = V::if_less(V::splat(80.0), square, V::zero(), V::fma(power, lost, power));
    let upper = V::mul(V::mul(g, inverse), power);
    // half · erfc(-x/√2)
    let negative = V::mul(half, upper);
    V::if_less(x, V::zero(), negative, V::sub(x, negative))
}

const ERFC: [f32; 10] = [
    1.074_006_9,
    -0.883_394_5,
    0.590_228_2,
    -0.310_466_33,
    0.119_526_9,
    -0.026_838_795,
    -0.001_217_948_7,
    0.003_082_171,
    -0.000_493_628_45,
    -0.000_331_862_82,
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
            let cube = V::mul(V::mul(x, x), V::mul(x, V::splat(0.044715)));
            gate::<V>(x, V::mul(V::add(x, cube), V::splat(1.595_769)))
        }
        Activation::Silu => gate::<V>(x, x),
        Activation::Sigmoid => sigmoid::<V>(x),
        Activation::Tanh => tanh::<V>(x),
        Activation::QuickGelu => gate::<V>(x, V::mul(x, V::splat(1.702))),
    }
}

/// Applies the activation to `count` values at `at`, and adds those at `residual` if it is not null.
///
/// # Safety
/// `count` values can be read and written at `at`, and read at `residual` if it is not null.
#[inline(always)]
pub unsafe fn finish<V: Simd>(activation: Activation, at: *mut f32, residual: *const f32, count: usize) {
    // SAFETY: the caller's.
    unsafe { apply_to::<V>(activation, at, at, residual, count) };
}

/// Writes the function of each of `count` values at `from`, plus what stands at `residual` if anything does, to `at`.
///
/// # Safety
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
            // SAFETY: the caller's.
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
    // SAFETY: the caller's; no more than `count`.
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
