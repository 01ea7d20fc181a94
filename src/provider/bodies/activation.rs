//! The body of an activation function that is not computed together with a product.

use super::{Body, Ports};
use crate::kernels::{Activation, Class, activate};
use crate::provider::abi::{Context, Error, Result};
use crate::provider::compiled::{Part, Reader};
use crate::provider::patterns::ActivationPlan;

/// An activation function, with an optional bias before it.
pub struct ActivationBody {
    x: usize,
    bias: Option<Vec<f32>>,
    activation: Activation,
    y: usize,
    class: Class,
}

impl ActivationBody {
    /// Returns the body of `plan`. Fails if a value of the plan is not an input or output of the fused node.
    pub fn new(plan: &ActivationPlan, ports: &Ports<'_>, class: Class) -> Result<Self> {
        let (bias, activation) = (plan.bias.clone(), plan.activation);
        Ok(Self { x: ports.input(plan.x)?, bias, activation, y: ports.output(plan.y)?, class })
    }

    /// Returns the body of an activation from a part that [`Body::write`] wrote. Fails if the part is damaged.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let (x, y) = (reader.input()?, reader.output()?);
        Ok(Self { x, y, activation: reader.activation()?, bias: reader.floats()?, class: reader.class() })
    }
}

impl Body for ActivationBody {
    fn run(&self, context: &Context<'_>) -> Result<()> {
        let x = context.input(self.x)?;
        if let Some(bias) = self.bias.as_ref().filter(|bias| x.shape.last() != Some(&(bias.len() as i64))) {
            return Err(Error(format!("the input has shape {:?}; its last dimension must be {}", x.shape, bias.len())));
        }
        let out = context.output(self.y, x.shape)?;
        activate(self.class, &x.floats()?, self.bias.as_deref(), self.activation, out, context.pool());
        Ok(())
    }

    fn write(&self, part: &mut Part) {
        part.kind("activation");
        part.size(self.x);
        part.size(self.y);
        part.activation(self.activation);
        part.floats(self.bias.as_deref());
    }
}
