use super::{Threads, bits, classes, property};
use crate::kernels::*;

#[test]
fn float_linears_are_near_float64() {
    property(40, |random| {
        let (m, k, n) = (random.size(40), random.size(700), random.size(100));
        let stride = k + random.pick(&[0, 0, 3]);
        let mut x = random.values(m * stride);
        let weights = random.values(k * n);
        let layout = random.pick(&[Layout::KxN, Layout::NxK]);
        let (bias, residual) = (random.values(n), random.values(m * n));
        let spoiled = random.once_in(6) && !x.is_empty();
        if spoiled {
            random.spoil(&mut x);
        }
        let epilogue = Epilogue {
            bias: random.once_in(2).then_some(&bias),
            activation: random.pick(&[Activation::None, Activation::Relu]),
            residual: random.once_in(2).then_some(&residual),
        };
        let rows = Rows { values: &x, rows: m, stride };
        for (class, precision) in
            classes().into_iter().flat_map(|class| [Precision::Float32, Precision::Bfloat16].map(|p| (class, p)))
        {
            let packed = PackedLinear::from_f32(&weights, layout, (k, n), precision, class, &Threads(2)).unwrap();
            let (mut out, mut threaded) = (vec![7.0; m * n], vec![7.0; m * n]);
            linear(&rows, &packed, &epilogue, &mut out, &Serial);
            linear(&rows, &packed, &epilogue, &mut threaded, &Threads(3));
            assert_eq!(bits(&out), bits(&threaded), "{class:?} {precision:?} on three threads");
            let mut kinds = vec![(out, 0.0)];
            if class == Class::Avx512Bf16 && precision == Precision::Bfloat16 {
                let mut dot = vec![7.0; m * n];
                linear::dense_dot(&rows, &packed, &epilogue, &mut dot, &Threads(2));
                kinds.push((dot, 1.0 / 256.0));
            }
            let rounding = if precision == Precision::Bfloat16 { 1.0 / 256.0 } else { 0.0 };
            for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                let values = &x[row * stride..][..k];
                let weight =
                    |k: usize| weights[if layout == Layout::KxN { k * n + column } else { column * packed.k() + k }];
                let products = || (0..k).map(|k| f64::from(values[k]) * f64::from(weight(k)));
                let bias = epilogue.bias.map_or(0.0, |bias| f64::from(bias[column]));
                let sum = products().sum::<f64>() + bias;
                let sum = if epilogue.activation == Activation::Relu { sum.max(0.0) } else { sum };
                let residual = epilogue.residual.map_or(0.0, |it| f64::from(it[row * n + column]));
                let size = products().map(f64::abs).sum::<f64>() + bias.abs() + residual.abs();
                for (out, more) in &kinds {
                    let found = f64::from(out[row * n + column]);
                    if values.iter().any(|value| !value.is_finite()) {
                        assert!(!found.is_finite() || epilogue.activation == Activation::Relu || weight_free(&weights));
                        continue;
                    }
                    // products below the normal numbers may be lost
                    // as are those of weights that bfloat16 has no normal number for
                    let tiny = values.iter().map(|value| f64::from(value.abs())).sum::<f64>() * rounding * 1e-36;
                    let bound = size * (rounding + more + 1e-5) + 1e-33 + k as f64 * 1e-37 + tiny;
                    let difference = (found - sum - residual).abs();
                    assert!(
                        difference <= bound,
                        "{class:?} {precision:?} {m}x{k}x{n} {row},{column}: {difference} {bound}"
                    );
                }
            }
        }
    });
}

/// Returns whether weights are 0 or rounded to it, which makes an infinity NaN or hides nothing.
fn weight_free(weights: &[f32]) -> bool {
    weights.iter().all(|weight| weight.abs() < 1e-30)
}
