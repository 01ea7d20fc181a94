//! Activation functions, by their names in configurations.

use crate::error::{Result, bail};
use crate::source::builder::{Builder, Dialect};

/// An activation function, with the name by which a configuration requests it. Its nodes are named after the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activation {
    name: &'static str,
    form: Form,
}

/// The formula of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The identity, x.
    Identity,
    /// GELU, x Φ(x), by the error function (Hendrycks and Gimpel, arXiv 1606.08415).
    Gelu,
    /// The approximation of `Gelu` by the hyperbolic tangent, 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))) (same source).
    TanhGelu,
    /// SiLU, x σ(x).
    Silu,
    Relu,
    Tanh,
    Sigmoid,
}

/// The names of activation functions in configurations.
const NAMES: [(&str, Form); 11] = [
    ("gelu", Form::Gelu),
    ("gelu_new", Form::TanhGelu),
    ("gelu_fast", Form::TanhGelu),
    ("gelu_pytorch_tanh", Form::TanhGelu),
    ("silu", Form::Silu),
    ("swish", Form::Silu),
    ("relu", Form::Relu),
    ("tanh", Form::Tanh),
    ("sigmoid", Form::Sigmoid),
    ("linear", Form::Identity),
    ("identity", Form::Identity),
];

impl Activation {
    /// Returns the activation function with this name in configurations. Fails with `Unsupported` if it is unknown.
    pub fn named(name: &str) -> Result<Activation> {
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some(&(name, form)) => Ok(Activation { name, form }),
            None => bail!(Unsupported, "the activation {name:?} is not supported"),
        }
    }

    /// Adds the activation of `x` and returns the name of its output. This function never fails.
    pub fn build(self, b: &mut Builder<'_>, x: &str) -> Result<String> {
        b.within(self.name, |b| {
            Ok(match self.form {
                Form::Identity => x.to_owned(),
                Form::Gelu => gelu(b, x),
                // One fused operator if the dialect has it: ONNX Runtime would run the formula node by node.
                Form::TanhGelu if b.dialect == Dialect::Runtime => b.contrib("FastGelu", &[x], 1, &[]).swap_remove(0),
                Form::TanhGelu => tanh_gelu(b, x),
                // ONNX Runtime fuses these nodes itself.
                Form::Silu => {
                    let gate = b.op("Sigmoid", &[x], &[]);
                    b.op("Mul", &[x, &gate], &[])
                }
                Form::Relu => b.op("Relu", &[x], &[]),
                Form::Tanh => b.op("Tanh", &[x], &[]),
                Form::Sigmoid => b.op("Sigmoid", &[x], &[]),
            })
        })
    }
}

impl Activation {
    /// Returns the value of the activation function for one number, computed in Rust.
    pub fn by_hand(self, x: f64) -> f64 {
        match self.form {
            Form::Identity => x,
            Form::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            Form::TanhGelu => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
            }
            Form::Silu => x / (1.0 + (-x).exp()),
            Form::Relu => x.max(0.0),
            Form::Tanh => x.tanh(),
            Form::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }
}

/// Returns the error function of `x`, by its series without alternating signs: 2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (2n+1)!!.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

fn gelu(b: &mut Builder<'_>, x: &str) -> String {
    let (root, one, half) = (b.float(std::f32::consts::SQRT_2), b.float(1.0), b.float(0.5));
    let scaled = b.op("Div", &[x, &root], &[]);
    let erf = b.op("Erf", &[&scaled], &[]);
    let sum = b.op("Add", &[&erf, &one], &[]);
    let product = b.op("Mul", &[x, &sum], &[]);
    b.op("Mul", &[&product, &half], &[])
}

fn tanh_gelu(b: &mut Builder<'_>, x: &str) -> String {
    let (cubic, root) = (b.float(0.044_715), b.float((2.0 / std::f32::consts::PI).sqrt()));
    let (one, half, three) = (b.float(1.0), b.float(0.5), b.float(3.0));
    let cube = b.op("Pow", &[x, &three], &[]);
    let cube = b.op("Mul", &[&cube, &cubic], &[]);
    let inner = b.op("Add", &[x, &cube], &[]);
    let inner = b.op("Mul", &[&inner, &root], &[]);
    let tanh = b.op("Tanh", &[&inner], &[]);
    let sum = b.op("Add", &[&tanh, &one], &[]);
    let product = b.op("Mul", &[x, &sum], &[]);
    b.op("Mul", &[&product, &half], &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_by_hand_have_the_values_of_pytorch() {
        // torch.nn.functional in float64 at 0.7 and -1.3, printed with 17 digits.
        let values = [
            ("gelu", 0.530_625_443_443_848_9, -0.125_840_629_961_293_4),
            ("gelu_new", 0.530_570_134_705_116_7, -0.126_070_987_682_690_4),
            ("silu", 0.467_731_440_517_716_3, -0.278_414_522_044_673_8),
            ("sigmoid", 0.668_187_772_168_166_2, 0.214_165_016_957_441_4),
        ];
        for (name, first, second) in values {
            let f = Activation::named(name).unwrap();
            assert!((f.by_hand(0.7) - first).abs() < 1e-12, "{name} {}", f.by_hand(0.7));
            assert!((f.by_hand(-1.3) - second).abs() < 1e-12, "{name} {}", f.by_hand(-1.3));
        }
        assert_eq!((erf(0.0), erf(9.0), erf(-9.0)), (0.0, 1.0, -1.0));
    }

    #[test]
    fn names_that_mean_the_same_have_one_form_and_unknown_ones_are_named() {
        let form = |name| Activation::named(name).unwrap().form;
        assert_eq!((form("swish"), form("gelu_new")), (form("silu"), form("gelu_pytorch_tanh")));
        assert_ne!(form("gelu"), form("gelu_fast"));
        assert!(Activation::named("quick_gelu").unwrap_err().to_string().contains("\"quick_gelu\""));
    }
}
