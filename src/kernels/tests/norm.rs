use super::{Threads, bits, classes, property};
use crate::kernels::*;

#[test]
fn norms_are_near_float64() {
    property(60, |random| {
        let (rows, width) = (random.size(20), random.size(300).max(1));
        let residual_rows = random.pick(&[1, rows.max(1)]);
        let mut x = random.values(rows * width);
        let residual = random.values(residual_rows * width);
        let (bias, gamma, beta) = (random.values(width), random.values(width), random.values(width));
        let norm = Norm {
            width,
            residual: random.once_in(2).then_some(Residual { values: &residual, rows: residual_rows }),
            bias: random.once_in(2).then_some(&bias),
            gamma: &gamma,
            beta: random.once_in(2).then_some(&beta),
            epsilon: random.pick(&[1e-12, 1e-5]),
        };
        let spoiled = random.once_in(5) && rows > 0;
        if spoiled {
            random.spoil(&mut x);
        }
        for (class, centered) in classes().into_iter().flat_map(|class| [(class, true), (class, false)]) {
            let kernel = if centered { layer_norm } else { rms_norm };
            let (mut out, mut sum) = (vec![7.0; rows * width], vec![7.0; rows * width]);
            kernel(class, &x, &norm, Some(&mut sum), &mut out, &Serial);
            let mut threaded = vec![7.0; rows * width];
            kernel(class, &x, &norm, None, &mut threaded, &Threads(3));
            assert_eq!(bits(&out), bits(&threaded));
            for row in 0..rows {
                let value = |column: usize| {
                    let residual = norm.residual.map_or(0.0, |it| it.values[row % it.rows * width + column]);
                    x[row * width + column] + residual + norm.bias.map_or(0.0, |bias| bias[column])
                };
                let values: Vec<f64> = (0..width).map(|column| f64::from(value(column))).collect();
                let found = &out[row * width..][..width];
                if values.iter().any(|value| !value.is_finite()) {
                    assert!(found.iter().all(|value| value.is_nan()) || !centered, "{class:?} {found:?}");
                    continue;
                }
                let mean = if centered { values.iter().sum::<f64>() / width as f64 } else { 0.0 };
                let size = values.iter().fold(0f64, |size, value| size.max(value.abs()));
                let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / width as f64;
                if variance > 1e36 {
                    continue; // The result is beyond float32.
                }
                let inverse = 1.0 / (variance + f64::from(norm.epsilon)).sqrt();
                for column in 0..width {
                    assert_eq!(sum[row * width + column], value(column));
                    let beta = norm.beta.map_or(0.0, |beta| f64::from(beta[column]));
                    let scaled = (values[column] - mean) * inverse * f64::from(gamma[column]);
                    // The bound covers the error of the mean, the distance of 1.4e-45 between denormals, and two
                    // roundings.
                    let lost = (size * 2e-6 + 3e-45) * inverse * f64::from(gamma[column]).abs();
                    let bound = lost + 1e-5 * scaled.abs() + 3e-7 * beta.abs() + 1e-30;
                    let difference = (f64::from(found[column]) - scaled - beta).abs();
                    assert!(difference <= bound, "{class:?} {rows}x{width} {row},{column}: {difference} > {bound}");
                }
            }
        }
    });
}
