use super::{Threads, bits, classes, property};
use crate::kernels::*;

#[test]
fn float_linears_are_near_float64() {
    property(20, |random| {
        let most = random.pick(&[200, 200, 200, 700]);
        let (m, k, n) = (random.size(40), random.size(most), random.size(100));
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
        let expected = expected(&rows, &weights, layout, (k, n), &epilogue);
        for (class, precision) in
            classes().into_iter().flat_map(|class| [Precision::Float32, Precision::Bfloat16].map(|p| (class, p)))
        {
            let packed = PackedLinear::from_f32(&weights, layout, (k, n), precision, class, &Threads(2)).unwrap();
            let (mut out, mut threaded) = (vec![7.0; m * n], vec![7.0; m * n]);
            linear(&rows, &packed, &epilogue, &mut out, &Serial);
            linear(&rows, &packed, &epilogue, &mut threaded, &Threads(3));
            assert_eq!(bits(&out), bits(&threaded), "{class:?} {precision:?} on three threads");
            // The processor's bfloat16 dot product rounds the input, too, which doubles the permitted error.
            let mut kinds = vec![(out, if linear::is_dot(class, precision) { 1.0 / 256.0 } else { 0.0 })];
            if class == Class::Avx512Bf16 && precision == Precision::Bfloat16 {
                let mut dot = vec![7.0; m * n];
                linear::dense_dot(&rows, &packed, &epilogue, &mut dot, &Threads(2));
                kinds.push((dot, 1.0 / 256.0));
            }
            let rounding = if precision == Precision::Bfloat16 { 1.0 / 256.0 } else { 0.0 };
            for ((out, more), (index, wanted)) in
                kinds.iter().flat_map(|kind| expected.iter().enumerate().map(move |wanted| (kind, wanted)))
            {
                let found = f64::from(out[index]);
                if !wanted.input.is_finite() {
                    // 0 · inf is NaN only if the weight is exactly 0.
                    let relu = epilogue.activation == Activation::Relu;
                    assert!(!found.is_finite() || relu || weight_free(&weights));
                    continue;
                }
                let bound = bound(wanted, k, rounding, *more);
                let difference = (found - wanted.value).abs();
                let kind = if *more > 0.0 { "dot" } else { "sum" };
                assert!(
                    difference <= bound,
                    "{class:?} {precision:?} {kind} {m}x{k}x{n} {index}: {difference} > {bound}"
                );
            }
        }
    });
}

/// Returns the largest permitted error of a dot product of `k` terms: `rounding` is the relative error of a weight,
/// `more` that of an input.
fn bound(wanted: &Expected, k: usize, rounding: f64, more: f64) -> f64 {
    // Products below the normal numbers may be lost, like those of weights that bfloat16 cannot represent.
    let lost = 1e-33 + k as f64 * 1e-37 + wanted.input * rounding * 1e-36;
    // The dot product also treats denormals as 0.
    wanted.size * (rounding + more + 1e-5) + lost + more * 1e-35 * (wanted.weights + wanted.input)
}

struct Expected {
    value: f64,
    /// Sum of the magnitudes of all terms.
    size: f64,
    /// Sum of the magnitudes of the row.
    input: f64,
    /// Sum of the magnitudes of the column.
    weights: f64,
}

/// Returns the expected results in float64, with the sums that bound the errors.
fn expected(
    rows: &Rows<'_>,
    weights: &[f32],
    layout: Layout,
    (k, n): (usize, usize),
    epilogue: &Epilogue<'_>,
) -> Vec<Expected> {
    (0..rows.rows * n)
        .map(|index| {
            let (row, column) = (index / n, index % n);
            let values = &rows.values[row * rows.stride..][..k];
            let weight = |row: usize| weights[if layout == Layout::KxN { row * n + column } else { column * k + row }];
            let products = || (0..k).map(|k| f64::from(values[k]) * f64::from(weight(k)));
            let bias = epilogue.bias.map_or(0.0, |bias| f64::from(bias[column]));
            let sum = products().sum::<f64>() + bias;
            let residual = epilogue.residual.map_or(0.0, |it| f64::from(it[index]));
            let sum = if epilogue.activation == Activation::Relu { sum.max(0.0) } else { sum };
            let size = products().map(f64::abs).sum::<f64>() + bias.abs() + residual.abs();
            let input = values.iter().map(|value| f64::from(value.abs())).sum::<f64>();
            let weights = (0..k).map(|k| f64::from(weight(k).abs())).sum::<f64>();
            Expected { value: sum + residual, size, input, weights }
        })
        .collect()
}

/// Returns whether all weights are 0 or are rounded to 0, so that a row with an infinity may give NaN or a finite
/// result.
fn weight_free(weights: &[f32]) -> bool {
    weights.iter().all(|weight| weight.abs() < 1e-30)
}
