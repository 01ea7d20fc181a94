//! The feed-forward part of a decoder layer.

use super::decoder::{Decoder, linear};
use crate::error::Result;
use crate::source::builder::{Attribute, Builder};

/// The names and the form of the feed-forward part.
#[derive(Clone)]
pub(super) struct Names {
    /// Name of the feed-forward part, in a layer.
    pub module: &'static str,
    /// Form of the layer before the activation.
    pub form: Form,
    /// Name of the projection back to the hidden size.
    pub down: &'static str,
}

/// The formula of the feed-forward part.
#[derive(Clone)]
pub(super) enum Form {
    /// The form `down(f(up x))`.
    Plain { up: &'static str },
    /// The form `down(f(gate x) * up x)`.
    Gated { gate: &'static str, up: &'static str },
    /// The form `Gated`, with the rows of `gate` and then those of `up` in one matrix.
    Packed { gate_up: &'static str },
}

/// Adds the feed-forward part whose names begin with `module` and returns the name of its output.
pub(super) fn build(b: &mut Builder<'_>, d: &Decoder, module: &str, x: &str) -> Result<String> {
    let name = |part: &str| format!("{module}.{part}");
    let inward = (d.width, d.inner);
    let inner = match &d.names.mlp.form {
        Form::Plain { up } => {
            let up = linear(b, d, x, &name(up), inward, d.bias.mlp)?;
            d.activation.build(b, &up)?
        }
        Form::Gated { gate, up } => {
            let gate = linear(b, d, x, &name(gate), inward, d.bias.mlp)?;
            let up = linear(b, d, x, &name(up), inward, d.bias.mlp)?;
            gated(b, d, &gate, &up)?
        }
        Form::Packed { gate_up } => {
            let both = linear(b, d, x, &name(gate_up), (d.width, 2 * d.inner), d.bias.mlp)?;
            let sizes = b.ints(&[d.inner, d.inner]);
            let parts = b.node("", "Split", &[&both, &sizes], 2, &[("axis", Attribute::Int(-1))]);
            gated(b, d, &parts[0], &parts[1])?
        }
    };
    linear(b, d, &inner, &name(d.names.mlp.down), (d.inner, d.width), d.bias.mlp)
}

fn gated(b: &mut Builder<'_>, d: &Decoder, gate: &str, up: &str) -> Result<String> {
    let gate = d.activation.build(b, gate)?;
    Ok(b.op("Mul", &[&gate, up], &[]))
}
