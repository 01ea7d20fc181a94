//! The body of normalizations of a sum.

use std::borrow::Cow;

use super::{Body, Ports, broadcast, broadcast_strides};
use crate::kernels::{Class, Norm, Residual, layer_norm, rms_norm};
use crate::provider::abi::{Context, Error, Result, Tensor};
use crate::provider::compiled::{Part, Reader};
use crate::provider::patterns::NormPlan;

/// A LayerNorm or RMSNorm of a sum.
pub struct NormBody {
    x: usize,
    residual: Option<usize>,
    bias: Option<Vec<f32>>,
    gamma: Vec<f32>,
    beta: Option<Vec<f32>>,
    epsilon: f32,
    rms: bool,
    y: usize,
    sum: Option<usize>,
    class: Class,
}

impl NormBody {
    /// Returns the body of `plan`. Fails if a value of the plan is not an input or output of the fused node.
    pub fn new(plan: &NormPlan, ports: &Ports<'_>, class: Class) -> Result<Self> {
        Ok(Self {
            x: ports.input(plan.x)?,
            residual: plan.residual.map(|value| ports.input(value)).transpose()?,
            bias: plan.bias.clone(),
            gamma: plan.gamma.clone(),
            beta: plan.beta.clone(),
            epsilon: plan.epsilon,
            rms: plan.rms,
            y: ports.output(plan.y)?,
            sum: plan.sum.map(|value| ports.output(value)).transpose()?,
            class,
        })
    }

    /// Returns the body of a normalization from a part that [`Body::write`] wrote. Fails if the part is damaged.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let x = reader.input()?;
        let (residual, y, sum) = (reader.optional_input()?, reader.output()?, reader.optional_output()?);
        let (epsilon, rms) = (reader.float()?, reader.number()? != 0);
        let gamma = reader.floats()?.ok_or_else(|| Error::new("a normalization has no scale"))?;
        let (bias, beta) = (reader.floats()?, reader.floats()?);
        let fits = |vector: &Option<Vec<f32>>| vector.as_ref().is_none_or(|vector| vector.len() == gamma.len());
        if gamma.is_empty() || !fits(&bias) || !fits(&beta) {
            return Err(Error::new("scale and bias of a normalization have different lengths"));
        }
        Ok(Self { x, residual, bias, gamma, beta, epsilon, rms, y, sum, class: reader.class() })
    }

    fn normalize(
        &self,
        x: &[f32],
        residual: Option<Residual<'_>>,
        sum: Option<&mut [f32]>,
        out: &mut [f32],
        context: &Context<'_>,
    ) {
        let norm = Norm {
            width: self.gamma.len(),
            residual,
            bias: self.bias.as_deref(),
            gamma: &self.gamma,
            beta: self.beta.as_deref(),
            epsilon: self.epsilon,
        };
        let kernel = if self.rms { rms_norm } else { layer_norm };
        kernel(self.class, x, &norm, sum, out, context.pool());
    }
}

impl Body for NormBody {
    fn run(&self, context: &Context<'_>) -> Result<()> {
        let a = context.input(self.x)?;
        let b = self.residual.map(|index| context.input(index)).transpose()?;
        let shape = match &b {
            Some(b) => broadcast(a.shape, b.shape)?,
            None => a.shape.to_vec(),
        };
        let width = self.gamma.len();
        if shape.last() != Some(&(width as i64)) {
            return Err(Error(format!("the input has shape {shape:?}; its last dimension must be {width}")));
        }
        let out = context.output(self.y, &shape)?;
        let sum = self.sum.map(|index| context.output(index, &shape)).transpose()?;
        let Some(b) = b else {
            self.normalize(&a.floats()?, None, sum, out, context);
            return Ok(());
        };
        // The sizes are known only here: one of the two may have to be broadcast.
        for (whole, part) in [(&a, &b), (&b, &a)] {
            if whole.shape == shape && repeats(&shape, part.shape) {
                let (values, part) = (whole.floats()?, part.floats()?);
                let residual = Residual { values: &part, rows: part.len() / width };
                self.normalize(&values, Some(residual), sum, out, context);
                return Ok(());
            }
        }
        let (a, b) = (expand(&a, &shape)?, expand(&b, &shape)?);
        let residual = Residual { values: &b, rows: b.len() / width };
        self.normalize(&a, Some(residual), sum, out, context);
        Ok(())
    }

    fn write(&self, part: &mut Part) {
        part.kind("norm");
        part.size(self.x);
        part.optional(self.residual);
        part.size(self.y);
        part.optional(self.sum);
        part.float(self.epsilon);
        part.number(u64::from(self.rms));
        part.floats(Some(&self.gamma));
        part.floats(self.bias.as_deref());
        part.floats(self.beta.as_deref());
    }
}

/// Returns whether a tensor of shape `part` is broadcast to `shape` by repeating it as a whole.
fn repeats(shape: &[i64], part: &[i64]) -> bool {
    let ones = part.iter().take_while(|size| **size == 1).count();
    !part.is_empty() && shape.ends_with(&part[ones.min(part.len() - 1)..])
}

/// Returns the elements of `tensor`, broadcast to `shape`. Fails if they are not float32.
fn expand<'a>(tensor: &Tensor<'a>, shape: &[i64]) -> Result<Cow<'a, [f32]>> {
    let values = tensor.floats()?;
    if tensor.shape == shape {
        return Ok(values);
    }
    let strides = broadcast_strides(tensor.shape, shape.len());
    let count: usize = shape.iter().map(|size| *size as usize).product();
    let expanded = (0..count).map(|mut index| {
        let mut place = 0;
        for (size, stride) in shape.iter().zip(&strides).rev() {
            place += index % *size as usize * stride;
            index /= *size as usize;
        }
        values[place]
    });
    Ok(Cow::Owned(expanded.collect()))
}

#[cfg(test)]
mod tests {
    use super::repeats;

    #[test]
    fn a_part_repeats_along_the_first_axes_only() {
        assert!(repeats(&[2, 3, 4], &[2, 3, 4]));
        assert!(repeats(&[2, 3, 4], &[1, 3, 4]));
        assert!(repeats(&[2, 3, 4], &[4]));
        assert!(repeats(&[2, 3, 4], &[1, 1, 4]));
        assert!(!repeats(&[2, 3, 4], &[2, 1, 4]));
        assert!(!repeats(&[2, 3, 4], &[3, 1]));
        assert!(!repeats(&[2, 3, 4], &[1]));
        assert!(repeats(&[2, 3, 1], &[1]));
    }
}
