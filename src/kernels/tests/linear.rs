use std::sync::Arc;

use super::{Random, Threads, bits, classes, property};
use crate::kernels::reference;
use crate::kernels::*;

const PRECISIONS: [Precision; 3] = [Precision::Float32, Precision::Bfloat16, Precision::Int8];

fn packed(random: &mut Random, (k, n): (usize, usize), class: Class) -> PackedLinear {
    let weights = random.values(k * n);
    PackedLinear::from_f32(&weights, Layout::NxK, (k, n), random.pick(&PRECISIONS), class, &Serial).unwrap()
}

#[test]
fn several_linears_are_the_same_as_one_after_another() {
    property(40, |random| {
        let (m, k) = (random.size(20), random.size(100));
        let (x, class) = (random.values(m * k), random.pick(&classes()));
        let rows = Rows::dense(&x, m, k);
        let weights: Vec<_> = (0..random.below(5)).map(|_| random.size(70)).collect();
        let weights: Vec<_> = weights.into_iter().map(|n| packed(random, (k, n), class)).collect();
        let all: Vec<_> = weights.iter().map(|packed| (packed, Epilogue::default())).collect();
        let mut outs: Vec<_> = weights.iter().map(|packed| vec![7.0; m * packed.n()]).collect();
        linears(&rows, &all, &mut outs.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(), &Threads(3));
        for (packed, out) in weights.iter().zip(&outs) {
            let mut alone = vec![7.0; out.len()];
            linear(&rows, packed, &Epilogue::default(), &mut alone, &Serial);
            assert_eq!(bits(out), bits(&alone), "{class:?}");
        }
    });
}

#[test]
fn an_mlp_is_one_linear_after_another() {
    property(30, |random| {
        // One case in three is large enough to be divided.
        let m = if random.once_in(3) { 90 + random.below(200) } else { random.size(60) };
        let (k, inner, n) = (random.size(70), random.size(100), random.size(70));
        let stride = k + random.pick(&[0, 0, 3]);
        let (mut x, class) = (random.values(m * stride), random.pick(&classes()));
        if random.once_in(5) && !x.is_empty() {
            random.spoil(&mut x);
        }
        let rows = Rows { values: &x, rows: m, stride };
        let (first, second) = (packed(random, (k, inner), class), packed(random, (inner, n), class));
        let bias = random.values(inner);
        let activation = random.pick(&[Activation::None, Activation::Relu, Activation::Gelu, Activation::GeluTanh]);
        let layers = [
            (&first, Epilogue { bias: random.once_in(2).then_some(&bias), activation, residual: None }),
            (
                &second,
                Epilogue { activation: random.pick(&[Activation::None, Activation::Silu]), ..Default::default() },
            ),
        ];
        let (mut between, mut expected, mut out) = (vec![7.0; m * inner], vec![7.0; m * n], vec![7.0; m * n]);
        linear(&rows, &first, &layers[0].1, &mut between, &Serial);
        linear(&Rows::dense(&between, m, inner), &second, &layers[1].1, &mut expected, &Serial);
        for threads in [1, 2, 3] {
            mlp(&rows, &layers, &mut out, &Threads(threads));
            assert_eq!(bits(&out), bits(&expected), "{class:?} {m}x{k}x{inner}x{n} on {threads} threads");
        }
    });
}

#[test]
fn static_int8_is_the_same_in_every_class_and_near_float64() {
    property(60, |random| {
        let (m, k, n) = (random.size(20), random.size(200), random.size(80));
        let bytes = |random: &mut Random, count: usize| (0..count).map(|_| random.next() as u8).collect::<Vec<_>>();
        let (codes, zero_points, weights) = (bytes(random, m * k), bytes(random, n), bytes(random, k * n));
        let signed_codes: Vec<i8> = codes.iter().map(|code| *code as i8).collect();
        let mut values = random.values(m * k);
        if random.once_in(4) && !values.is_empty() {
            random.spoil(&mut values);
        }
        let signed = random.once_in(2);
        let values = match random.below(3) {
            0 => StaticValues::Float32 { values: &values, signed },
            1 => StaticValues::Unsigned(&codes),
            _ => StaticValues::Signed(&signed_codes),
        };
        let signed = matches!(values, StaticValues::Signed(_) | StaticValues::Float32 { signed: true, .. });
        let zero_point = random.below(256) as i32 - if signed { 128 } else { 0 };
        let x = StaticInput { values, rows: m, scale: 0.02, zero_point };
        let weights = Int8Weights {
            codes: &weights,
            signed: true,
            layout: Layout::KxN,
            zero_points: &zero_points,
            scales: &[0.01],
        };
        let bias = random.values(n);
        let epilogue = Epilogue { bias: random.once_in(2).then_some(&bias), ..Default::default() };
        let mut expected = vec![7.0; m * n];
        let scalar = PackedLinear::from_int8(&weights, (k, n), Class::Scalar, &Serial).unwrap();
        reference::linear_static(&x, &scalar, &epilogue, &mut expected);
        for class in classes() {
            let packed = PackedLinear::from_int8(&weights, (k, n), class, &Serial).unwrap();
            let mut out = vec![7.0; m * n];
            linear_static(&x, &packed, &epilogue, &mut out, &Threads(2));
            assert_eq!(bits(&out), bits(&expected), "{class:?} {m}x{k}x{n} {x:?}");
        }
        for (index, found) in expected.iter().enumerate() {
            let (row, column) = (index / n, index % n);
            let code = |k_index: usize| match x.values {
                StaticValues::Unsigned(codes) => f64::from(codes[row * k + k_index]),
                StaticValues::Signed(codes) => f64::from(codes[row * k + k_index]),
                StaticValues::Float32 { values, signed } => {
                    let rounded = (values[row * k + k_index] / x.scale).round_ties_even() + zero_point as f32;
                    let (low, high) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
                    if rounded.is_nan() { 0.0 } else { f64::from(rounded.clamp(low, high)) }
                }
            };
            let weight =
                |k: usize| f64::from(weights.codes[k * n + column] as i8) - f64::from(zero_points[column] as i8);
            let sum: f64 = (0..k).map(|k| (code(k) - f64::from(zero_point)) * weight(k)).sum();
            let bias = epilogue.bias.map_or(0.0, |bias| f64::from(bias[column]));
            let wanted = sum * 0.0002 + bias;
            let bound = (sum.abs() * 0.0002 + bias.abs()) * 1e-6 + 1e-9;
            assert!((f64::from(*found) - wanted).abs() <= bound, "{m}x{k}x{n} {index}: {found} {wanted}");
        }
    });
}

#[test]
fn packed_bytes_are_opened_from_a_file() {
    property(20, |random| {
        let (m, k, n) = (3, random.size(100), random.size(70));
        let (x, class) = (random.values(m * k), random.pick(&classes()));
        let packed = packed(random, (k, n), class);
        let header = LinearHeader::from_bytes(&packed.header().to_bytes()).unwrap();
        assert_eq!(header, packed.header());
        let mut file = Storage::zeroed(packed.bytes().len() + 64);
        file.bytes_mut()[64..].copy_from_slice(packed.bytes());
        let file: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(File(file));
        let all = (*file).as_ref().len();
        let opened = PackedLinear::open(header, Storage::shared(file.clone(), 64..all).unwrap()).unwrap();
        let rows = Rows::dense(&x, m, k);
        let (mut out, mut expected) = (vec![7.0; m * n], vec![7.0; m * n]);
        linear(&rows, &opened, &Epilogue::default(), &mut out, &Serial);
        linear(&rows, &packed, &Epilogue::default(), &mut expected, &Serial);
        assert_eq!(bits(&out), bits(&expected));
        assert!(Storage::shared(file.clone(), 64..all + 1).is_none());
        let longer = Storage::shared(file.clone(), 0..all).unwrap();
        assert!(matches!(PackedLinear::open(header, longer), Err(PackError::Length { .. })));
        if all > 64 {
            let crooked = Storage::shared(file, 1..all - 63).unwrap();
            assert_eq!(PackedLinear::open(header, crooked).err(), Some(PackError::Alignment));
        }
    });
}

struct File(Storage);

impl AsRef<[u8]> for File {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

#[test]
fn damaged_headers_and_wrong_lengths_are_refused() {
    property(300, |random| {
        let class = random.pick(&classes());
        let mut bytes = packed(random, (8, 8), class).header().to_bytes();
        for _ in 0..1 + random.below(3) {
            bytes[random.below(LinearHeader::LEN)] = random.next() as u8;
        }
        if let Ok(header) = LinearHeader::from_bytes(&bytes) {
            assert!(header.bytes().is_ok());
        }
    });
    let weights = [1.0; 6];
    let pack = |sizes| PackedLinear::from_f32(&weights, Layout::KxN, sizes, Precision::Int8, Class::Scalar, &Serial);
    assert!(pack((2, 3)).is_ok());
    assert!(matches!(pack((2, 4)), Err(PackError::Length { what: "weights", found: 6, expected: 8 })));
    assert!(matches!(pack((1 << 40, 4)), Err(PackError::Size("K"))));
    assert!(matches!(pack((4, usize::MAX)), Err(PackError::Size("N"))));
}

#[test]
fn classes_have_names_and_fall_back() {
    for class in Class::ALL {
        assert_eq!(Class::from_name(class.name()), Some(class));
        assert!(class.usable() <= class && class.usable().supported());
    }
    assert!(Class::detect().supported());
}
