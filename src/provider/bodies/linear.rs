//! Products with packed weights.

use std::borrow::Cow;

use super::{Body, Ports};
use crate::kernels::{
    Activation, BlockWeights, Class, Epilogue, Int8Weights, PackedLinear, Parallel, Rows, StaticInput, StaticValues,
    linear_static, linears,
};
use crate::provider::abi::{Context, Error, Result, Tensor};
use crate::provider::compiled::{Part, Reader};
use crate::provider::graph::{Element, Graph};
use crate::provider::patterns::{InputForm, LinearPart, LinearPlan, Weight};

/// One input times several weights.
pub struct LinearBody {
    x: usize,
    form: InputForm,
    products: Vec<Product>,
}

/// A product.
struct Product {
    weights: PackedLinear,
    bias: Option<Vec<f32>>,
    activation: Activation,
    y: usize,
}

impl LinearBody {
    /// Returns the body of `plan`.
    pub fn new(
        plan: &LinearPlan,
        graph: &Graph<'_>,
        ports: &Ports<'_>,
        class: Class,
        parallel: &dyn Parallel,
    ) -> Result<Self> {
        let product = |part: &LinearPart| {
            let weights = pack(part, graph, class, parallel)?;
            let (bias, activation, y) = (part.bias.clone(), part.activation, ports.output(part.y)?);
            Ok(Product { weights, bias, activation, y })
        };
        let products = plan.parts.iter().map(product).collect::<Result<_>>()?;
        Ok(Self { x: ports.input(plan.x)?, form: plan.form, products })
    }

    /// Returns the body that [`Body::write`] wrote.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let x = reader.size()?;
        let form = match reader.number()? {
            0 => InputForm::Dynamic,
            _ => InputForm::Static {
                scale: f32::from_bits(reader.number()? as u32),
                zero_point: reader.number()? as i32,
                signed: reader.number()? != 0,
                rounded: reader.number()? != 0,
            },
        };
        let count = reader.size()?;
        let product = |_| {
            let activation = reader.activation()?;
            let (y, bias) = (reader.size()?, reader.floats()?);
            let weights = reader.weights()?;
            if bias.as_ref().is_some_and(|bias| bias.len() != weights.n()) {
                return Err(Error::new("a bias of another size"));
            }
            Ok(Product { weights, bias, activation, y })
        };
        Ok(Self { x, form, products: (0..count).map(product).collect::<Result<_>>()? })
    }

    fn run_static(&self, x: &Tensor<'_>, outs: &mut [&mut [f32]], context: &Context<'_>) -> Result<()> {
        let InputForm::Static { scale, zero_point, signed, rounded } = self.form else { return Ok(()) };
        let floats = if rounded { Cow::Borrowed(&[][..]) } else { x.floats()? };
        let values = match (rounded, signed) {
            (false, signed) => StaticValues::Float32 { values: &floats, signed },
            (true, false) => StaticValues::Unsigned(x.bytes),
            (true, true) => StaticValues::Signed(x.bytes_signed()?),
        };
        for (product, out) in self.products.iter().zip(outs) {
            let input = StaticInput { values, rows: x.len() / product.weights.k(), scale, zero_point };
            linear_static(&input, &product.weights, &product.epilogue(), out, context.pool());
        }
        Ok(())
    }
}

impl Product {
    fn epilogue(&self) -> Epilogue<'_> {
        Epilogue { bias: self.bias.as_deref(), activation: self.activation, residual: None }
    }
}

impl Body for LinearBody {
    fn run(&self, context: &Context<'_>) -> Result<()> {
        let x = context.input(self.x)?;
        let k = self.products[0].weights.k();
        if x.shape.last() != Some(&(k as i64)) {
            return Err(Error(format!("an input of sizes {:?}; its rows should have {k} values", x.shape)));
        }
        let mut outs = Vec::with_capacity(self.products.len());
        for product in &self.products {
            let mut shape = x.shape.to_vec();
            *shape.last_mut().ok_or_else(|| Error::new("an input without axes"))? = product.weights.n() as i64;
            outs.push(context.output(product.y, &shape)?);
        }
        if self.form != InputForm::Dynamic {
            return self.run_static(&x, &mut outs, context);
        }
        let (floats, rows) = (x.floats()?, x.len() / k);
        let weights: Vec<_> = self.products.iter().map(|product| (&product.weights, product.epilogue())).collect();
        linears(&Rows::dense(&floats, rows, k), &weights, &mut outs, context.pool());
        Ok(())
    }

    fn packed_bytes(&self) -> usize {
        self.products.iter().map(|product| product.weights.bytes().len()).sum()
    }

    fn write(&self, part: &mut Part) {
        part.kind("linear");
        part.size(self.x);
        match self.form {
            InputForm::Dynamic => part.number(0),
            InputForm::Static { scale, zero_point, signed, rounded } => {
                part.number(1);
                part.number(u64::from(scale.to_bits()));
                part.number(zero_point as u64);
                part.number(u64::from(signed));
                part.number(u64::from(rounded));
            }
        }
        part.size(self.products.len());
        for product in &self.products {
            part.activation(product.activation);
            part.size(product.y);
            part.floats(product.bias.as_deref());
            part.weights(&product.weights);
        }
    }
}

/// Returns the weights of `part`, packed for `class`.
fn pack(part: &LinearPart, graph: &Graph<'_>, class: Class, parallel: &dyn Parallel) -> Result<PackedLinear> {
    let constant = |value| graph.constant(value).ok_or_else(|| Error::new("a constant that cannot be read"));
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
        Weight::Blocks { codes, scales, zero_points, bits, block } => {
            let (codes, scales) = (constant(*codes)?, constant(*scales)?.floats()?);
            let zero_points = zero_points.map(constant).transpose()?;
            let zero_points = zero_points.as_ref().map(|zero_points| zero_points.bytes);
            let weights = BlockWeights { codes: codes.bytes, scales: &scales, zero_points, bits: *bits, block: *block };
            PackedLinear::from_blocks(&weights, sizes, class, parallel)
        }
    };
    packed.map_err(|error| Error(error.to_string()))
}
