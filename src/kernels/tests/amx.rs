use super::{Threads, bits, property};
use crate::kernels::reference;
use crate::kernels::*;

#[test]
fn tiles_are_the_same_as_the_reference() {
    // Outside of the tiles, the kernels of AMX use AVX-512.
    if !Class::Avx512Vnni.supported() {
        return;
    }
    property(15, |random| {
        let (m, k, n) = (random.size(70), random.size(200), random.size(100));
        let mut x = random.values(m * k);
        if random.once_in(6) && !x.is_empty() {
            random.spoil(&mut x);
        }
        let (weights, bias, residual) = (random.values(k * n), random.values(n), random.values(m * n));
        let epilogue = Epilogue {
            bias: random.once_in(2).then_some(&bias),
            activation: random.pick(&[Activation::None, Activation::Relu]),
            residual: random.once_in(2).then_some(&residual),
        };
        let rows = Rows::dense(&x, m, k);
        for precision in [Precision::Int8, Precision::Bfloat16] {
            let packed =
                PackedLinear::from_f32_as(&weights, Layout::KxN, (k, n), precision, Class::Amx, &Threads(2)).unwrap();
            let (mut out, mut wanted, mut other) = (vec![7.0; m * n], vec![7.0; m * n], vec![7.0; m * n]);
            linear::emulated(&rows, &packed, &epilogue, &mut out, &Serial);
            linear::emulated(&rows, &packed, &epilogue, &mut other, &Threads(3));
            assert_eq!(bits(&out), bits(&other));
            reference::linear(&rows, &packed, &epilogue, &mut wanted);
            if precision == Precision::Int8 {
                assert_eq!(bits(&out), bits(&wanted), "{m}x{k}x{n}");
                continue;
            }
            for (index, (found, wanted)) in out.iter().zip(&wanted).enumerate() {
                let (row, column) = (index / n, index % n);
                let values = &x[row * k..][..k];
                let size: f32 = (0..k).map(|k| (values[k] * weights[k * n + column]).abs()).sum();
                let offset = epilogue.bias.map_or(0.0, |bias| bias[column].abs()) + residual[index].abs();
                // The tiles treat denormals as 0.
                let lost: f32 = (0..k).map(|k| values[k].abs() + weights[k * n + column].abs()).sum();
                let bound = size / 100.0 + offset * 1e-6 + 1e-30 + lost * 2e-38;
                let finite = values.iter().all(|value| value.is_finite());
                assert!(!finite || (found - wanted).abs() <= bound, "{m}x{k}x{n} {index}: {found} {wanted} {bound}");
            }
        }
    });
}
