//! The body of two products with packed weights; the output of the first is the input of the second.

use super::linear::Product;
use super::{Body, Making, Ports};
use crate::kernels::{Rows, mlp};
use crate::provider::abi::{Context, Error, Result};
use crate::provider::compiled::{Part, Reader};
use crate::provider::graph::Graph;
use crate::provider::patterns::MlpPlan;

/// Two products, computed one after the other. The values between them are not in a tensor of the graph.
pub struct MlpBody {
    x: usize,
    layers: [Product; 2],
}

impl MlpBody {
    /// Returns the body of `plan`. Fails if a value of the plan is not an input or output of the fused node, or if the
    /// weights cannot be packed.
    pub fn new(plan: &MlpPlan, graph: &Graph<'_>, ports: &Ports<'_>, making: &Making<'_>) -> Result<Self> {
        let [first, second] = &plan.layers;
        let y = ports.output(second.y)?;
        let layers = [Product::new(first, graph, y, making)?, Product::new(second, graph, y, making)?];
        Ok(Self { x: ports.input(plan.x)?, layers })
    }

    /// Returns the body of two products from a part that [`Body::write`] wrote. Fails if the part is damaged.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let x = reader.input()?;
        let layers = [Product::open(reader)?, Product::open(reader)?];
        if layers[0].n() != layers[1].k() {
            return Err(Error::new("the second product does not have as many inputs as the first has outputs"));
        }
        Ok(Self { x, layers })
    }
}

impl Body for MlpBody {
    fn run(&self, context: &Context<'_>) -> Result<()> {
        let x = context.input(self.x)?;
        let [first, second] = &self.layers;
        first.check(&x)?;
        let rows = x.element_count() / first.k();
        let out = context.output(second.y, &second.shape(&x)?)?;
        mlp(
            &Rows::dense(&x.floats()?, rows, first.k()),
            &[first.with_epilogue(), second.with_epilogue()],
            out,
            context.pool(),
        );
        Ok(())
    }

    fn packed_bytes(&self) -> usize {
        self.layers.iter().map(Product::packed_bytes).sum()
    }

    fn write(&self, part: &mut Part) {
        part.kind("mlp");
        part.size(self.x);
        self.layers.iter().for_each(|product| product.write(part));
    }
}
