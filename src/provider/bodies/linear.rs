//! The body of matrix products with packed weights.

use std::borrow::Cow;
use std::sync::Arc;

use super::steps::{self, Step};
use super::{Body, Making, Ports};
use crate::kernels::{
    Activation, BlockWeights, Epilogue, Int8Weights, PackedLinear, Rows, StaticInput, StaticValues, linear_static,
    linears,
};
use crate::provider::abi::{Context, Error, Result, Tensor};
use crate::provider::compiled::{Part, Reader};
use crate::provider::graph::{Element, Graph};
use crate::provider::patterns::{InputForm, LinearPart, LinearPlan, Weight};

/// The products of one input with several weights.
pub struct LinearBody {
    x: usize,
    form: InputForm,
    products: Vec<Product>,
}

/// A product with packed weights and its epilogue.
pub struct Product {
    weights: Arc<PackedLinear>,
    bias: Option<Vec<f32>>,
    activation: Activation,
    steps: Vec<Step>,
    /// Index of the output of the fused node.
    pub y: usize,
}

impl LinearBody {
    /// Returns the body of `plan`. Fails if a value of the plan is not an input or output of the fused node, or if the
    /// weights cannot be packed.
    pub fn new(plan: &LinearPlan, graph: &Graph<'_>, ports: &Ports<'_>, making: &Making<'_>) -> Result<Self> {
        let product = |part: &LinearPart| Product::new(part, graph, ports.output(part.y)?, making);
        let products = plan.parts.iter().map(product).collect::<Result<_>>()?;
        Ok(Self { x: ports.input(plan.x)?, form: plan.form, products })
    }

    /// Returns the body of products from a part that [`Body::write`] wrote. Fails if the part is damaged.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let x = reader.input()?;
        let form = match reader.number()? {
            0 => InputForm::Dynamic,
            _ => InputForm::Static {
                scale: reader.float()?,
                zero_point: reader.number()? as i32,
                signed: reader.number()? != 0,
                rounded: reader.number()? != 0,
            },
        };
        let count = reader.size()?;
        let products = (0..count).map(|_| Product::open(reader)).collect::<Result<Vec<_>>>()?;
        if products.is_empty() || products.iter().any(|product| product.k() != products[0].k()) {
            return Err(Error::new("the weights are missing or have different K"));
        }
        Ok(Self { x, form, products })
    }

    /// Writes the products of `x` with all weights to `outs`, with their epilogues but without the steps after them.
    /// Fails if `x` has another element type than expected.
    fn multiply(&self, x: &Tensor<'_>, outs: &mut [&mut [f32]], context: &Context<'_>) -> Result<()> {
        let (k, pool) = (self.products[0].k(), context.pool());
        let rows = x.element_count() / k;
        let InputForm::Static { scale, zero_point, signed, rounded } = self.form else {
            let weights: Vec<_> = self.products.iter().map(Product::with_epilogue).collect();
            linears(&Rows::dense(&x.floats()?, rows, k), &weights, outs, pool);
            return Ok(());
        };
        let floats = if rounded { Cow::Borrowed(&[][..]) } else { x.floats()? };
        let values = match (rounded, signed) {
            (false, signed) => StaticValues::Float32 { values: &floats, signed },
            (true, false) => StaticValues::Unsigned(x.bytes),
            (true, true) => StaticValues::Signed(x.bytes_signed()?),
        };
        for (product, out) in self.products.iter().zip(outs) {
            let (weights, epilogue) = product.with_epilogue();
            linear_static(&StaticInput { values, rows, scale, zero_point }, weights, &epilogue, out, pool);
        }
        Ok(())
    }
}

impl Body for LinearBody {
    fn run(&self, context: &Context<'_>) -> Result<()> {
        let x = context.input(self.x)?;
        self.products[0].check(&x)?;
        let mut outs = Vec::with_capacity(self.products.len());
        for product in &self.products {
            outs.push(context.output(product.y, &product.shape(&x)?)?);
        }
        self.multiply(&x, &mut outs, context)?;
        for (product, out) in self.products.iter().zip(outs) {
            steps::apply(&product.steps, product.n(), out, product.weights.class(), context.pool());
        }
        Ok(())
    }

    fn packed_bytes(&self) -> usize {
        self.products.iter().map(Product::packed_bytes).sum()
    }

    fn write(&self, part: &mut Part) {
        part.kind("linear");
        part.size(self.x);
        match self.form {
            InputForm::Dynamic => part.number(0),
            InputForm::Static { scale, zero_point, signed, rounded } => {
                part.number(1);
                part.float(scale);
                part.number(zero_point as u64);
                part.number(u64::from(signed));
                part.number(u64::from(rounded));
            }
        }
        part.size(self.products.len());
        self.products.iter().for_each(|product| product.write(part));
    }
}

impl Product {
    /// Returns the product of `part`, with packed weights. `y` is the index of its output. Fails if the weights cannot
    /// be packed.
    pub fn new(part: &LinearPart, graph: &Graph<'_>, y: usize, making: &Making<'_>) -> Result<Self> {
        let weights = making.shared.add(pack(part, graph, making)?);
        let (bias, activation, steps) = (part.bias.clone(), part.activation, part.steps.clone());
        Ok(Self { weights, bias, activation, steps, y })
    }

    /// Returns an error unless `x` has rows of K elements.
    pub fn check(&self, x: &Tensor<'_>) -> Result<()> {
        let k = self.k();
        if x.shape.last() == Some(&(k as i64)) {
            return Ok(());
        }
        Err(Error(format!("the input has shape {:?}; its last dimension must be {k}", x.shape)))
    }

    /// Returns the shape of the result for the input `x`. Fails if `x` is a scalar.
    pub fn shape(&self, x: &Tensor<'_>) -> Result<Vec<i64>> {
        let mut shape = x.shape.to_vec();
        *shape.last_mut().ok_or_else(|| Error::new("the input is a scalar"))? = self.n() as i64;
        Ok(shape)
    }

    /// Returns the number of inputs of the product (K).
    pub fn k(&self) -> usize {
        self.weights.k()
    }

    /// Returns the number of outputs of the product (N).
    pub fn n(&self) -> usize {
        self.weights.n()
    }

    /// Returns the size of the packed weights in bytes.
    pub fn packed_bytes(&self) -> usize {
        self.weights.bytes().len()
    }

    /// Returns the packed weights and the epilogue of the product: its bias and its activation.
    pub fn with_epilogue(&self) -> (&PackedLinear, Epilogue<'_>) {
        (&self.weights, Epilogue { bias: self.bias.as_deref(), activation: self.activation, residual: None })
    }

    /// Writes the product to `part`, from which [`Self::open`] reads it.
    pub fn write(&self, part: &mut Part) {
        part.activation(self.activation);
        part.size(self.y);
        part.floats(self.bias.as_deref());
        steps::write(&self.steps, part);
        part.weights(&self.weights);
    }

    /// Returns the product that [`Self::write`] wrote. Fails if the part is damaged.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let (activation, y, bias) = (reader.activation()?, reader.output()?, reader.floats()?);
        let steps = steps::open(reader)?;
        let weights = Arc::new(reader.weights()?);
        let fits = |row: &[f32]| row.len() == weights.n();
        let rows_fit = steps.iter().all(|step| if let Step::Bias(bias) = step { fits(bias) } else { true });
        if weights.k() == 0 || !bias.as_deref().is_none_or(fits) || !rows_fit {
            return Err(Error::new("a bias does not match the number of outputs"));
        }
        Ok(Self { weights, bias, activation, steps, y })
    }
}

/// Packs the weights of `part`, and returns them. Fails if a constant cannot be read or the weights cannot be packed.
fn pack(part: &LinearPart, graph: &Graph<'_>, making: &Making<'_>) -> Result<PackedLinear> {
    let constant = |value| graph.constant(value).ok_or_else(|| Error::new("a constant cannot be read"));
    let Making { class, parallel, .. } = *making;
    let sizes = (part.k, part.n);
    let packed = match &part.weight {
        Weight::Float { values, layout, precision } => {
            let values = constant(*values)?.floats()?;
            PackedLinear::from_f32(&values, *layout, sizes, *precision, class, parallel)
        }
        Weight::Int8 { codes, layout, zero_points, scales } => {
            let codes = constant(*codes)?;
            let signed = codes.element == Element::Int8;
            let weights = Int8Weights { codes: codes.bytes, signed, layout: *layout, zero_points, scales };
            PackedLinear::from_int8(&weights, sizes, class, parallel)
        }
        Weight::Blocks { codes, scales, zero_points, offsets, bits, block, exact } => {
            let (codes, scales) = (constant(*codes)?, constant(*scales)?.floats()?);
            let zero_points = zero_points.map(constant).transpose()?;
            let zero_points = zero_points.as_ref().map(|zero_points| zero_points.bytes);
            let offsets = offsets.map(constant).transpose()?;
            let offsets = offsets.as_ref().map(Tensor::floats).transpose()?;
            let (codes, offsets, bits, block, exact) = (codes.bytes, offsets.as_deref(), *bits, *block, *exact);
            let weights = BlockWeights { codes, scales: &scales, zero_points, offsets, bits, block, exact };
            PackedLinear::from_blocks(&weights, sizes, class, parallel)
        }
    };
    packed.map_err(|error| Error(error.to_string()))
}
