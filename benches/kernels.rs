//! Measures the speed of the CPU kernels, and compares it with the peak rate of the processor:
//! `cargo bench --bench kernels [-- NAME...]`.
//!
//! `NAME` is `int8`, `bf16`, `f32`, `blocks4`, `blocks8` (matrix products), `attention`, or `others` (normalization and
//! activation functions); by default, all of them run. A result is the minimum CPU time of 5 to 1,000 calls on one
//! thread. The peak rates are measured in the same run, by loops of the multiply instructions of the instruction-set
//! class ([`Class`]) on registers; products in bf16 and attention are compared with the float32 peak. The environment
//! variable `OPTIMIZE_CPU` selects a lower class.

use optimize::kernels::{
    Activation, Attention, BlockWeights, Class, Epilogue, Layout, Mask, Norm, PackedLinear, Precision, Rows, Serial,
    Strides, activate, attention, layer_norm, linear,
};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let class = Class::detect();
    let peaks = Peaks::measure(class);
    println!("{}: peaks {:.0} GFLOP/s in float32, {:.0} GOP/s in int8", class.name(), peaks.float, peaks.int8);
    for name in ["int8", "bf16", "f32", "blocks4", "blocks8", "attention", "others"] {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            match name {
                "attention" => attentions(class, &peaks),
                "others" => others(class),
                _ => linears(name, class, &peaks),
            }
        }
    }
}

fn linears(name: &str, class: Class, peaks: &Peaks) {
    let peak = if matches!(name, "bf16" | "f32") { peaks.float } else { peaks.int8 };
    for (k, n) in [(384, 1536), (768, 3072), (4096, 4096)] {
        let packed = match name {
            "blocks4" | "blocks8" => blocks(k, n, if name == "blocks4" { 4 } else { 8 }, class),
            _ => {
                let precision = match name {
                    "int8" => Precision::Int8,
                    "bf16" => Precision::Bfloat16,
                    _ => Precision::Float32,
                };
                PackedLinear::from_f32(&values(k * n), Layout::KxN, (k, n), precision, class, &Serial)
            }
        };
        let Ok(packed) = packed else { return println!("{name}: cannot be packed") };
        for m in [1, 16, 128, 1024].into_iter().filter(|m| m * k * n < 1 << 33) {
            let (x, mut out) = (values(m * k), vec![0.0; m * n]);
            let rows = Rows::dense(&x, m, k);
            let mut time = |activation| {
                let epilogue = Epilogue { activation, ..Default::default() };
                best(|| linear(&rows, &packed, &epilogue, &mut out, &Serial))
            };
            let (plain, gelu) = (time(Activation::None), time(Activation::Gelu));
            let rate = 2.0 * (m * k * n) as f64 / plain * 1e-9;
            println!(
                "{name} {m}x{k}x{n}: {:.1} us, {rate:.0} GOP/s ({:.0} % of the peak), weights at {:.1} GB/s; with GELU {:.1} us",
                plain * 1e6,
                100.0 * rate / peak,
                packed.bytes().len() as f64 / plain * 1e-9,
                gelu * 1e6,
            );
        }
    }
}

fn blocks(k: usize, n: usize, bits: usize, class: Class) -> Result<PackedLinear, optimize::kernels::PackError> {
    let codes: Vec<u8> = (0..k * n * bits / 8).map(|index| ((index * 7919) >> 3) as u8).collect();
    let scales = vec![0.01; k * n / 32];
    let (scales, zero_points, offsets) = (&scales[..], None, None);
    let weights = BlockWeights { codes: &codes, scales, zero_points, offsets, bits, block: 32, exact: false };
    PackedLinear::from_blocks(&weights, (k, n), class, &Serial)
}

fn attentions(class: Class, peaks: &Peaks) {
    for (batch, heads, tokens, size) in
        [(1, 12, 128, 32), (8, 12, 128, 32), (1, 12, 128, 64), (1, 6, 197, 64), (1, 12, 512, 64)]
    {
        let strides = Strides::tokens_first(tokens, heads, size);
        let spec = Attention {
            batch,
            queries: tokens,
            keys: tokens,
            heads,
            kv_heads: heads,
            head_size: size,
            value_size: size,
            scale: 0.125,
            causal: false,
            past: 0,
            window: None,
            q: strides,
            k: strides,
            v: strides,
            out: strides,
        };
        let x = values(batch * heads * tokens * size);
        let mut out = vec![0.0; x.len()];
        let time = best(|| attention(class, &spec, &x, &x, &x, &Mask::None, &mut out, &Serial));
        let rate = 4.0 * (batch * heads * tokens * tokens * size) as f64 / time * 1e-9;
        println!(
            "attention {batch}x{heads}x{tokens}x{size}: {:.1} us, {rate:.0} GFLOP/s ({:.0} % of float32's peak)",
            time * 1e6,
            100.0 * rate / peaks.float
        );
    }
}

fn others(class: Class) {
    let (rows, width) = (128, 768);
    let (x, weights) = (values(rows * width), values(width));
    let mut out = vec![0.0; x.len()];
    let norm = Norm { width, residual: None, bias: None, gamma: &weights, beta: Some(&weights), epsilon: 1e-5 };
    let time = best(|| layer_norm(class, &x, &norm, None, &mut out, &Serial));
    println!("layer_norm {rows}x{width}: {:.1} us", time * 1e6);
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        let time = best(|| activate(class, &x, None, activation, &mut out, &Serial));
        println!("{activation:?} {rows}x{width}: {:.1} us", time * 1e6);
    }
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index.wrapping_mul(2654435761) >> 8 & 0xffff) as f32 / 32768.0 - 1.0).collect()
}

/// Returns the minimum process CPU time of a call in seconds, after one untimed call.
fn best(mut call: impl FnMut()) -> f64 {
    call();
    let (begin, mut least, mut calls) = (seconds(), f64::MAX, 0);
    while calls < 5 || calls < 1000 && seconds() - begin < 0.3 {
        let start = seconds();
        call();
        least = least.min(seconds() - start);
        calls += 1;
    }
    least
}

/// Returns the CPU time of this process in seconds.
fn seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on Linux, and `time` may be written.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Peak rates of the multiply instructions of a class on one core, with operands in registers; NaN for the class
/// without vector instructions.
struct Peaks {
    /// In GFLOP/s, for float32.
    float: f64,
    /// In GOP/s, for int8.
    int8: f64,
}

impl Peaks {
    fn measure(class: Class) -> Self {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Class::detect` returned `class`, so the processor has its instructions.
        unsafe {
            match class {
                Class::Scalar => Self { float: f64::NAN, int8: f64::NAN },
                Class::Avx2 => Self { float: fma256(), int8: madd256() },
                Class::Avx2Vnni => Self { float: fma256(), int8: dot256() },
                _ => Self { float: fma512(), int8: dot512() },
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self { float: f64::NAN, int8: f64::NAN }
    }
}

/// Defines a function that returns the rate of one instruction on `$count` registers, in billions of operations per
/// second. One instruction performs `$operations` operations.
#[cfg(target_arch = "x86_64")]
macro_rules! peak {
    ($name:ident, $features:literal, $count:literal, $operations:literal, $zero:expr, $step:expr) => {
        #[target_feature(enable = $features)]
        fn $name() -> f64 {
            use std::arch::x86_64::*;
            let mut registers = [$zero; $count];
            let (a, b) = std::hint::black_box(($zero, $zero));
            let mut least = f64::MAX;
            for _ in 0..30 {
                let start = seconds();
                for _ in 0..20_000 {
                    for register in registers.iter_mut() {
                        *register = $step(*register, a, b);
                    }
                }
                least = least.min(seconds() - start);
            }
            std::hint::black_box(registers);
            f64::from($count * $operations) * 20_000.0 / least * 1e-9
        }
    };
}

#[cfg(target_arch = "x86_64")]
peak!(fma512, "avx512f", 24, 32, _mm512_setzero_ps(), |sum, a, b| _mm512_fmadd_ps(a, b, sum));
#[cfg(target_arch = "x86_64")]
peak!(dot512, "avx512f,avx512vnni", 24, 128, _mm512_setzero_si512(), |sum, a, b| _mm512_dpbusd_epi32(sum, a, b));
#[cfg(target_arch = "x86_64")]
peak!(fma256, "avx2,fma", 12, 16, _mm256_setzero_ps(), |sum, a, b| _mm256_fmadd_ps(a, b, sum));
#[cfg(target_arch = "x86_64")]
peak!(dot256, "avx2,avxvnni", 12, 64, _mm256_setzero_si256(), |sum, a, b| _mm256_dpbusd_avx_epi32(sum, a, b));
#[cfg(target_arch = "x86_64")]
peak!(madd256, "avx2", 12, 32, _mm256_setzero_si256(), |sum, a, b| _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)));
