//! The steps of sentence-transformers, computed in memory, for exported graphs that end at the token vectors.

use super::activation::Activation;
use super::pooling;
use super::sentence::fits;
use crate::error::{Result, bail};
use crate::model::Pooling;
use crate::onnx::dtype::DataType;
use crate::runtime::Tensor;
use crate::source::weights::{Form, Weights};

/// The steps from the vectors of tokens to one vector per text.
pub struct Steps {
    pub(super) steps: Vec<Step>,
}

/// A step of the computation.
pub(super) enum Step {
    /// The concatenation of these poolings. The number is that of the tokens at the beginning of a text that are not
    /// pooled.
    Pool(Vec<Pooling>, usize),
    Dense(Dense),
    LayerNorm {
        scale: Vec<f32>,
        bias: Vec<f32>,
    },
    Normalize,
}

/// A Dense layer: a product, a bias and an activation.
pub(super) struct Dense {
    /// Weight of the layer, `[out, in]`.
    matrix: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
    activation: Activation,
    residual: bool,
    /// Weight of the residual connection, if sizes differ.
    around: Option<Vec<f32>>,
}

impl Step {
    /// Returns a Dense step over `weights`. `form` has the sizes of its input and output, its activation, and whether
    /// it has a residual connection. Fails with `InvalidModel` if a weight is missing or has another shape, and with
    /// `Unsupported` if it is not float.
    pub fn dense(weights: &dyn Weights, form: (i64, i64, Activation, bool)) -> Result<Step> {
        let (inputs, outputs, activation, residual) = form;
        let bias = match weights.find("linear.bias")? {
            Some(_) => floats(weights, "linear.bias", &[outputs])?,
            None => vec![0.0; outputs as usize],
        };
        let around = (residual && inputs != outputs).then(|| floats(weights, "residual.weight", &[outputs, inputs]));
        Ok(Step::Dense(Dense {
            matrix: floats(weights, "linear.weight", &[outputs, inputs])?,
            bias,
            inputs: inputs as usize,
            activation,
            residual,
            around: around.transpose()?,
        }))
    }

    /// Returns the step that normalizes a vector as LayerNorm does, with the weights of the module. Fails with
    /// `InvalidModel` if a weight is missing or has another shape, and with `Unsupported` if it is not float.
    pub fn layer_norm(weights: &dyn Weights) -> Result<Step> {
        let width = weights.get("norm.weight")?.dims;
        Ok(Step::LayerNorm {
            scale: floats(weights, "norm.weight", &width)?,
            bias: floats(weights, "norm.bias", &width)?,
        })
    }
}

/// Returns the elements of a tensor of a step as floats. Fails with `Unsupported` if it is not float.
fn floats(weights: &dyn Weights, name: &str, dims: &[i64]) -> Result<Vec<f32>> {
    let stored = weights.shaped(name, dims)?;
    match stored.form {
        Form::Plain(dtype @ (DataType::Float32 | DataType::Float16 | DataType::Bfloat16)) => {
            Tensor::new(dtype, dims, stored.bytes)?.to_f32_vec()
        }
        _ => bail!(Unsupported, "the tensor {name:?} is not float"),
    }
}

impl Steps {
    /// Returns one vector from the vectors of a text's tokens, each of `width` elements, without padding. Fails with
    /// `InvalidModel` if the sizes of the steps do not fit each other.
    pub fn run(&self, tokens: &[&[f32]], width: usize) -> Result<Vec<f32>> {
        let mut x: Vec<f32> = Vec::new();
        for step in &self.steps {
            x = match step {
                Step::Pool(kinds, prompt) => {
                    kinds.iter().flat_map(|kind| pooling::by_hand(*kind, tokens, *prompt, width)).collect()
                }
                Step::Dense(dense) => dense.run(&x)?,
                Step::LayerNorm { scale, bias } => {
                    fits("LayerNorm", scale.len() as i64, x.len() as i64)?;
                    let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / x.len() as f64;
                    let variance = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / x.len() as f64;
                    let unit = |v: &f32| (f64::from(*v) - mean) / (variance + 1e-5).sqrt();
                    let terms = x.iter().zip(scale).zip(bias);
                    terms.map(|((v, s), b)| (unit(v) * f64::from(*s) + f64::from(*b)) as f32).collect()
                }
                Step::Normalize => {
                    let norm = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
                    x.iter().map(|v| (f64::from(*v) / norm) as f32).collect()
                }
            };
        }
        Ok(x)
    }
}

impl Dense {
    fn run(&self, x: &[f32]) -> Result<Vec<f32>> {
        fits("Dense", self.inputs as i64, x.len() as i64)?;
        let product = |matrix: &[f32]| -> Vec<f64> {
            let row = |row: &[f32]| row.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            matrix.chunks_exact(self.inputs).map(row).collect()
        };
        let mut made: Vec<f64> = product(&self.matrix);
        for (value, bias) in made.iter_mut().zip(&self.bias) {
            *value = self.activation.by_hand(*value + f64::from(*bias));
        }
        if self.residual {
            let past = self.around.as_deref().map_or_else(|| x.iter().map(|v| f64::from(*v)).collect(), product);
            made.iter_mut().zip(past).for_each(|(value, past)| *value += past);
        }
        Ok(made.into_iter().map(|value| value as f32).collect())
    }
}
