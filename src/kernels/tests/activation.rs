use super::{Threads, bits, classes, property};
use crate::kernels::reference;
use crate::kernels::*;

const ALL: [Activation; 8] = [
    Activation::None,
    Activation::Relu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::QuickGelu,
];

#[test]
fn activations_are_within_some_ulp_of_float64() {
    // float32 values of all magnitudes at equal distances; a larger OPTIMIZE_PROPERTY_CASES makes them denser.
    let often = std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|count| count.parse::<u32>().ok()).unwrap_or(40);
    let step = (2_000_003 / often.max(1)).max(401);
    let mut x: Vec<f32> = (0..=u32::MAX / step).map(|index| f32::from_bits(index * step)).collect();
    // Values at which pieces of the functions meet are tested as well.
    let edges = [0.0, 5.5, 0.625, 87.0, 126.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY];
    x.extend(edges.iter().flat_map(|x| [*x, -x, x.next_up(), -x.next_down()]));
    for (class, activation) in classes().into_iter().flat_map(|class| ALL.map(|activation| (class, activation))) {
        if class == Class::Scalar {
            continue;
        }
        let mut out = vec![7.0; x.len()];
        activate(class, &x, None, activation, &mut out, &Threads(2));
        let mut worst = (0.0, 0.0);
        for (x, found) in x.iter().zip(&out) {
            let wanted = reference::activation(activation, *x);
            if x.is_nan() || found.is_nan() || wanted.is_nan() {
                assert!(found.is_nan() && wanted.is_nan(), "{class:?} {activation:?} {x}: {found} not {wanted}");
                continue;
            }
            if found == &wanted {
                continue;
            }
            // The bound of GELU is relative to its argument, by which an approximation of Φ with an absolute error is
            // multiplied.
            let size = if activation == Activation::Gelu { x } else { &wanted };
            let ulp = f64::from(f32::EPSILON) * f64::from(size.abs());
            let error = (f64::from(*found) - f64::from(wanted)).abs();
            // Results near the denormal numbers may become 0.
            let error = if error < 1e-33 { 0.0 } else { error / ulp };
            if error > worst.0 {
                worst = (error, *x);
            }
        }
        println!("{class:?} {activation:?}: {:.2} ulp at {}", worst.0, worst.1);
        let bound = match activation {
            Activation::None | Activation::Relu => 0.0,
            Activation::Gelu => 1.5,
            Activation::Tanh | Activation::Sigmoid => 4.0,
            // The argument of the exponential, up to 87, is itself rounded a few times.
            Activation::GeluTanh | Activation::QuickGelu => 200.0,
            _ => 8.0,
        };
        assert!(worst.0 <= bound, "{class:?} {activation:?}: {} ulp at {}", worst.0, worst.1);
    }
}

#[test]
fn activations_add_a_bias_to_each_row() {
    property(30, |random| {
        let (rows, width) = (random.size(30), random.size(200).max(1));
        let (x, bias) = (random.values(rows * width), random.values(width));
        let activation = random.pick(&ALL);
        for class in classes() {
            let sums: Vec<f32> = x.iter().enumerate().map(|(index, x)| x + bias[index % width]).collect();
            let (mut out, mut expected) = (vec![7.0; x.len()], vec![7.0; x.len()]);
            activate(class, &x, Some(&bias), activation, &mut out, &Threads(2));
            activate(class, &sums, None, activation, &mut expected, &Serial);
            assert_eq!(bits(&out), bits(&expected));
        }
    });
}
