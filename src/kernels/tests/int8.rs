use super::{Random, Threads, bits, classes, property};
use crate::kernels::reference;
use crate::kernels::*;

struct Case {
    sizes: (usize, usize, usize),
    stride: usize,
    x: Vec<f32>,
    codes: Vec<u8>,
    zero_points: Vec<u8>,
    scales: Vec<f32>,
    signed: bool,
    layout: Layout,
    bias: Option<Vec<f32>>,
    residual: Option<Vec<f32>>,
    activation: Activation,
}

impl Case {
    fn new(random: &mut Random) -> Self {
        let (m, k, n) = (random.size(40), random.size(300), random.size(100));
        let stride = k + random.pick(&[0, 0, 3]);
        let mut x = random.values(m * stride);
        if random.once_in(5) && !x.is_empty() {
            random.spoil(&mut x);
        }
        let bytes = |random: &mut Random, count: usize| (0..count).map(|_| random.next() as u8).collect::<Vec<_>>();
        let zeros = random.pick(&[0, 1, n]);
        let scales = if random.once_in(2) { 1 } else { n };
        let optional = |random: &mut Random, count: usize| random.once_in(2).then(|| random.values(count));
        Self {
            sizes: (m, k, n),
            stride,
            x,
            codes: bytes(random, k * n),
            zero_points: bytes(random, zeros),
            scales: (0..scales).map(|_| random.normal().abs() * 0.01).collect(),
            signed: random.once_in(2),
            layout: random.pick(&[Layout::KxN, Layout::NxK]),
            bias: optional(random, n),
            residual: optional(random, m * n),
            activation: random.pick(&[Activation::None, Activation::None, Activation::Relu, Activation::Gelu]),
        }
    }

    fn pack(&self, class: Class) -> PackedLinear {
        let Self { codes, zero_points, scales, signed, layout, .. } = self;
        let weights = Int8Weights { codes, signed: *signed, layout: *layout, zero_points, scales };
        PackedLinear::from_int8(&weights, (self.sizes.1, self.sizes.2), class, &Threads(2)).unwrap()
    }

    fn epilogue(&self) -> Epilogue<'_> {
        let Self { bias, residual, activation, .. } = self;
        Epilogue { bias: bias.as_deref(), activation: *activation, residual: residual.as_deref() }
    }

    fn weight(&self, k: usize, n: usize) -> f64 {
        let number = |code: u8| if self.signed { f64::from(code as i8) } else { f64::from(code) };
        let one = |len: usize| if len == 1 { 0 } else { n };
        let place = if self.layout == Layout::KxN { k * self.sizes.2 + n } else { n * self.sizes.1 + k };
        let zero_point = self.zero_points.get(one(self.zero_points.len())).copied().unwrap_or(0);
        (number(self.codes[place]) - number(zero_point)) * f64::from(self.scales[one(self.scales.len())])
    }
}

#[test]
fn dynamic_int8_is_the_same_in_every_class_and_near_float64() {
    property(60, |random| {
        let case = Case::new(random);
        let (m, k, n) = case.sizes;
        let rows = Rows { values: &case.x, rows: m, stride: case.stride };
        let plain = Epilogue { activation: Activation::None, ..case.epilogue() };
        let mut expected = vec![0.0; m * n];
        reference::linear(&rows, &case.pack(Class::Scalar), &plain, &mut expected);
        for class in classes() {
            let packed = case.pack(class);
            let mut out = vec![7.0; m * n];
            linear(&rows, &packed, &plain, &mut out, &Serial);
            assert_eq!(bits(&out), bits(&expected), "{class:?} {m}x{k}x{n}");
            let mut threaded = vec![7.0; m * n];
            linear(&rows, &packed, &case.epilogue(), &mut out, &Serial);
            linear(&rows, &packed, &case.epilogue(), &mut threaded, &Threads(3));
            assert_eq!(bits(&out), bits(&threaded), "{class:?} {m}x{k}x{n} on three threads");
        }
        for row in 0..m {
            let values = &case.x[row * case.stride..][..k];
            let largest = values.iter().fold(0f64, |largest, value| largest.max(f64::from(value.abs())));
            for column in 0..n {
                let found = f64::from(expected[row * n + column]);
                if values.iter().any(|value| !value.is_finite()) {
                    assert!(found.is_nan());
                    continue;
                }
                let added = |values: &Option<Vec<f32>>, at: usize| f64::from(values.as_ref().map_or(0.0, |v| v[at]));
                let (bias, residual) = (added(&case.bias, column), added(&case.residual, row * n + column));
                let terms: Vec<f64> = (0..k).map(|k| f64::from(values[k]) * case.weight(k, column)).collect();
                let weights: f64 = (0..k).map(|k| case.weight(k, column).abs()).sum();
                // The bound is half a step for each rounded value, plus the error of float32 sums.
                let bound = weights * largest / 127.0 * 0.5001
                    + 1e-6 * (bias.abs() + residual.abs() + weights * largest)
                    + 1e-36;
                // A row of tiny values is rounded to 0.
                let bound = if largest < 1.3e-34 { bound + weights * largest } else { bound };
                let wanted = terms.iter().sum::<f64>() + bias + residual;
                assert!(
                    (found - wanted).abs() <= bound * 1.001,
                    "{m}x{k}x{n} {row},{column}: {found} {wanted} {bound}"
                );
            }
        }
    });
}
