//! The body of attention whose queries, keys and values are computed by one matrix product.

use std::borrow::Cow;
use std::cell::Cell;

use super::attention::{Scores, Sizes, View};
use super::linear::Product;
use super::{Body, Making, Ports};
use crate::kernels::{Rows, Strides, linears};
use crate::provider::abi::{Context, Error, Result};
use crate::provider::compiled::{Part, Reader};
use crate::provider::graph::Graph;
use crate::provider::patterns::PackedAttentionPlan;

thread_local! {
    /// Memory for the queries, keys and values of a run, one per thread. A run takes it out instead of borrowing it: a
    /// thread that waits for tasks may begin another run.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// The product that computes queries, keys and values, and their attention.
pub struct PackedAttentionBody {
    x: usize,
    product: Product,
    heads: usize,
    scores: Scores,
}

impl PackedAttentionBody {
    /// Returns the body of `plan`. Fails if a value of the plan is not an input or output of the fused node, or if the
    /// weights cannot be packed.
    pub fn new(plan: &PackedAttentionPlan, graph: &Graph<'_>, ports: &Ports<'_>, making: &Making<'_>) -> Result<Self> {
        Ok(Self {
            x: ports.input(plan.x)?,
            product: Product::new(&plan.product, graph, ports.output(plan.product.y)?, making)?,
            heads: plan.heads,
            scores: Scores::new(&plan.scores, ports, making.class)?,
        })
    }

    /// Returns the body of attention with packed weights from a part that [`Body::write`] wrote. Fails if the part is
    /// damaged.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let (x, heads) = (reader.input()?, reader.size()?);
        let product = Product::open(reader)?;
        if heads == 0 || !product.n().is_multiple_of(3 * heads) {
            return Err(Error(format!("{} outputs cannot be split into {heads} heads", product.n())));
        }
        Ok(Self { x, product, heads, scores: Scores::open(reader)? })
    }
}

impl Body for PackedAttentionBody {
    fn run(&self, context: &Context<'_>) -> Result<()> {
        let x = context.input(self.x)?;
        let (k, n) = (self.product.k(), self.product.n());
        let [batch, tokens, last] = x.shape[..] else {
            return Err(Error(format!("the input has shape {:?}; it must have three dimensions", x.shape)));
        };
        if last != k as i64 {
            return Err(Error(format!("the input has shape {:?}; its last dimension must be {k}", x.shape)));
        }
        let (hidden, rows) = (n / 3, x.element_count() / k);
        let out = context.output(self.product.y, &[batch, tokens, hidden as i64])?;
        let mut scratch = SCRATCH.take();
        scratch.resize(rows * n, 0.0);
        let floats = x.floats()?;
        let product = [self.product.with_epilogue()];
        linears(&Rows::dense(&floats, rows, k), &product, &mut [&mut scratch], context.pool());
        let (batch, tokens, heads) = (batch as usize, tokens as usize, self.heads);
        let sizes = Sizes { batch, tokens, heads, size: hidden / heads };
        let third = |index: usize| View {
            values: Cow::Borrowed(scratch.get(index * hidden..).unwrap_or_default()),
            sizes,
            strides: Strides { batch: tokens * n, head: sizes.size, token: n },
        };
        let (q, k, v) = (third(0), third(1), third(2));
        let done = self.scores.run(context, (&q, &k, &v), Strides::tokens_first(tokens, heads, sizes.size), out);
        SCRATCH.set(scratch);
        done
    }

    fn packed_bytes(&self) -> usize {
        self.product.packed_bytes()
    }

    fn write(&self, part: &mut Part) {
        part.kind("packed attention");
        part.size(self.x);
        part.size(self.heads);
        self.product.write(part);
        self.scores.write(part);
    }
}
