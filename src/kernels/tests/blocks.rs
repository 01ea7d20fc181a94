use super::{Random, Threads, bits, classes, property};
use crate::kernels::pack::ScaleFormat;
use crate::kernels::reference;
use crate::kernels::*;

/// Returns a bound of the error from rounding `values` to 8 bits in blocks of `size`: the sum over the values of the
/// largest magnitude in their block times the magnitude of their weight.
fn lost(values: &[f32], size: usize, weight: impl Fn(usize) -> f64) -> f64 {
    let of = |k: usize| {
        let block = &values[k / size * size..(k / size * size + size).min(values.len())];
        let largest = block.iter().fold(0f64, |largest, value| largest.max(f64::from(value.abs())));
        // A block of tiny values is rounded to 0.
        largest * weight(k).abs() * if largest < 1.3e-34 { 300.0 } else { 1.0 }
    };
    (0..values.len()).map(of).sum()
}

/// Returns the sum of the magnitudes of an output's terms: values times the largest code, without zero points.
fn added(values: &[f32], block: usize, scale: impl Fn(usize) -> f32, bits: usize) -> f64 {
    let of = |(k, value): (usize, &f32)| f64::from(scale(k / block)).abs() * f64::from(value.abs());
    values.iter().enumerate().map(of).sum::<f64>() * [15.0, 255.0][bits / 8]
}

/// Returns random scales for `n` columns of `blocks` blocks, with the format in which they are packed.
fn scales_of(random: &mut Random, n: usize, blocks: usize) -> (ScaleFormat, Vec<f32>) {
    let format = random.pick(&ScaleFormat::ALL);
    let scale = |column: usize, block: usize| match format {
        ScaleFormat::Float32 => random.normal() * 0.01,
        ScaleFormat::Float16 => half::f16::from_f32(random.normal() * 0.01).to_f32(),
        ScaleFormat::Uint8 => {
            let byte = if block == column % blocks { 255 } else { 1 + random.below(255) };
            byte as f32 * (1e-4 + column as f32 * 1.7e-8)
        }
    };
    let mut scale = scale;
    (format, (0..n * blocks).map(|index| scale(index / blocks, index % blocks)).collect())
}

/// The product that is expected, in float64.
struct Wanted<'a> {
    x: &'a [f32],
    sizes: (usize, usize, usize),
    given: &'a BlockWeights<'a>,
    bias: Option<&'a [f32]>,
}

impl Wanted<'_> {
    /// Fails if `found` is further from the product than rounding explains.
    fn compare(&self, found: &[f32], weight: impl Fn(usize, usize) -> f64) {
        let (m, k, n) = self.sizes;
        let BlockWeights { scales, offsets, bits, block, exact, .. } = *self.given;
        let blocks = k.div_ceil(block);
        for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
            let (values, found) = (&self.x[row * k..][..k], f64::from(found[row * n + column]));
            if values.iter().any(|value| !value.is_finite()) {
                assert!(exact || found.is_nan());
                continue;
            }
            let bias = self.bias.map_or(0.0, |bias| f64::from(bias[column]));
            let wanted = (0..k).map(|k| f64::from(values[k]) * weight(k, column)).sum::<f64>() + bias;
            let offset = |k: usize| offsets.map_or(0.0, |offsets| f64::from(offsets[k / block * n + column]).abs());
            let shifted: f64 = (0..k).map(|k| f64::from(values[k].abs()) * offset(k)).sum();
            let bound = match exact {
                true => (added(values, block, |index| scales[column * blocks + index], bits) + bias.abs()) * 4e-6,
                false => {
                    lost(values, block.min(64), |k| weight(k, column)) * (0.5001 / 127.0 + 1e-5) + bias.abs() * 1e-6
                }
            } + shifted * 4e-6
                + 1e-36;
            assert!((found - wanted).abs() <= bound, "{m}x{k}x{n} {row},{column}: {found} {wanted} {bound}");
        }
    }
}

#[test]
fn blocks_are_the_same_in_every_class_and_near_float64() {
    property(20, |random| {
        let (m, k, n) = (random.size(30), random.size(300).max(1), random.size(80));
        let (bits_, block) = (random.pick(&[4, 8]), random.pick(&[16, 32, 64, 128, 256]));
        let (blocks, exact) = (k.div_ceil(block), random.once_in(2));
        let mut x = random.values(m * k);
        if random.once_in(6) && !x.is_empty() {
            random.spoil(&mut x);
        }
        let mut bytes = |count: usize| (0..count).map(|_| random.next() as u8).collect::<Vec<_>>();
        let codes = bytes(n * blocks * block * bits_ / 8);
        let zero_row = (blocks * bits_).div_ceil(8);
        let zero_points = bytes(n * zero_row);
        let (format, scales) = scales_of(random, n, blocks);
        let zero_points = random.once_in(2).then_some(&zero_points[..]);
        let offsets: Vec<f32> = (0..n * blocks).map(|_| random.normal() * 0.05).collect();
        let offsets = (bits_ == 4 && random.once_in(2)).then_some(&offsets[..]);
        let scales: Vec<f32> = scales
            .into_iter()
            .map(|scale| if offsets.is_some() && random.once_in(9) { random.pick(&[0.0, 1e-20]) } else { scale })
            .collect();
        let weights = BlockWeights { codes: &codes, scales: &scales, zero_points, offsets, bits: bits_, block, exact };
        let read = |bytes: &[u8], index: usize| {
            f64::from(if bits_ == 8 { bytes[index] } else { bytes[index / 2] >> (index % 2 * 4) & 15 })
        };
        let weight = |k: usize, column: usize| {
            let index = k / block;
            let zero_point = zero_points.map_or([8.0, 128.0][bits_ / 8], |it| read(&it[column * zero_row..], index));
            let code = read(&codes[column * blocks * block * bits_ / 8..], k);
            let offset = offsets.map_or(0.0, |offsets| f64::from(offsets[index * n + column]));
            (code - zero_point) * f64::from(scales[column * blocks + index]) + offset
        };
        let (bias, rows) = (random.values(n), Rows::dense(&x, m, k));
        let epilogue = Epilogue { bias: random.once_in(2).then_some(&bias), ..Default::default() };
        let mut expected = vec![0.0; m * n];
        let scalar = PackedLinear::from_blocks(&weights, (k, n), Class::Scalar, &Serial).unwrap();
        reference::linear(&rows, &scalar, &epilogue, &mut expected);
        for class in classes() {
            let packed = PackedLinear::from_blocks(&weights, (k, n), class, &Threads(2)).unwrap();
            assert!(n * blocks < 8 || offsets.is_some() || packed.header().blocks.scales == format);
            let (mut out, mut threaded) = (vec![7.0; m * n], vec![7.0; m * n]);
            linear(&rows, &packed, &epilogue, &mut out, &Serial);
            linear(&rows, &packed, &epilogue, &mut threaded, &Threads(3));
            assert_eq!(bits(&out), bits(&threaded));
            assert_eq!(bits(&out), bits(&expected), "{class:?} {m}x{k}x{n} {bits_} bits in blocks of {block}");
        }
        let wanted = Wanted { x: &x, sizes: (m, k, n), given: &weights, bias: epilogue.bias };
        wanted.compare(&expected, weight);
    });
}
