//! Activation functions by the names that configurations use.

use super::Config;
use crate::error::{Result, bail};
use crate::source::builder::Builder;

/// The activation a configuration names under one of `keys`; `gelu` if none does.
pub fn activation(config: &Config<'_>, keys: &[&str]) -> Result<String> {
    for key in keys {
        if let Some(name) = config.text(key)? {
            return Ok(name.to_owned());
        }
    }
    Ok("gelu".to_owned())
}

/// Applies an activation.
///
/// `gelu` is x Φ(x) by the error function; `gelu_new`, `gelu_fast` and `gelu_pytorch_tanh` are its tanh form
/// 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))) (Hendrycks and Gimpel, arXiv 1606.08415).
pub fn activate(b: &mut Builder<'_>, name: &str, x: &str) -> Result<String> {
    b.within(name, |b| {
        Ok(match name {
            "gelu" => {
                let (root, one, half) = (b.float(std::f32::consts::SQRT_2), b.float(1.0), b.float(0.5));
                let scaled = b.op("Div", &[x, &root], &[]);
                let erf = b.op("Erf", &[&scaled], &[]);
                let sum = b.op("Add", &[&erf, &one], &[]);
                let product = b.op("Mul", &[x, &sum], &[]);
                b.op("Mul", &[&product, &half], &[])
            }
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => {
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
            "silu" | "swish" => {
                let gate = b.op("Sigmoid", &[x], &[]);
                b.op("Mul", &[x, &gate], &[])
            }
            "relu" => b.op("Relu", &[x], &[]),
            "tanh" => b.op("Tanh", &[x], &[]),
            "sigmoid" => b.op("Sigmoid", &[x], &[]),
            other => bail!(Unsupported, "the activation {other:?} cannot be built"),
        })
    })
}
