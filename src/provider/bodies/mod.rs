//! Bodies: the computations of groups of nodes. A body is created once, and concurrent runs share it.

mod activation;
mod attention;
mod grouped;
mod linear;
mod mask;
mod mlp;
mod norm;
mod packed_attention;
mod shared;
mod steps;

use super::abi::{Context, Error, Result};
use super::compiled::Part;
use super::graph::{FusedNode, Graph, ValueId};
use super::patterns::Plan;
use crate::kernels::{Class, Parallel};

pub use activation::ActivationBody;
pub use attention::AttentionBody;
pub use grouped::GroupedBody;
pub use linear::LinearBody;
pub use mlp::MlpBody;
pub use norm::NormBody;
pub use packed_attention::PackedAttentionBody;
pub use shared::SharedWeights;

/// The computation of a group of nodes.
pub trait Body: Send + Sync {
    /// Computes the outputs of one run of the fused node from its inputs. Fails if an input has an unexpected shape or
    /// type.
    fn run(&self, context: &Context<'_>) -> Result<()>;

    /// Returns the size of the packed weights of the body in bytes; 0 if it has none.
    fn packed_bytes(&self) -> usize {
        0
    }

    /// Writes everything to `part` from which [`Opener`](super::compiled::Opener) restores the body.
    fn write(&self, part: &mut Part);
}

/// The index of each input and output of a group among those of its fused node.
pub struct Ports<'g> {
    graph: &'g Graph<'g>,
    fused: &'g FusedNode,
}

impl<'g> Ports<'g> {
    /// Returns the indices in `fused` of the values of `graph`.
    pub fn new(graph: &'g Graph<'g>, fused: &'g FusedNode) -> Self {
        Self { graph, fused }
    }

    /// Returns the index of an input of the fused node. It is found by name, because constants are omitted and ONNX
    /// Runtime chooses the order. Fails if the value is not an input.
    pub fn input(&self, value: ValueId) -> Result<usize> {
        self.find(value, &self.fused.inputs)
    }

    /// Returns the index of an output of the fused node. Fails if the value is not an output.
    pub fn output(&self, value: ValueId) -> Result<usize> {
        self.find(value, &self.fused.outputs)
    }

    fn find(&self, value: ValueId, names: &[String]) -> Result<usize> {
        let name = &self.graph.value(value).name;
        names
            .iter()
            .position(|other| other == name)
            .ok_or_else(|| Error(format!("{name} is not an input or output of the fused node")))
    }
}

/// The kernels and threads with which bodies are created.
pub struct Making<'m> {
    /// Class of the kernels.
    pub class: Class,
    /// Threads that pack weights.
    pub parallel: &'m dyn Parallel,
    /// Packed weights of the session.
    pub shared: &'m SharedWeights,
}

/// Returns the body of `plan`. Fails if a value of the plan is not an input or output of the fused node, if the weights
/// cannot be packed, and for a node that is compiled already.
pub fn build(plan: &Plan, graph: &Graph<'_>, ports: &Ports<'_>, making: &Making<'_>) -> Result<Box<dyn Body>> {
    let class = making.class;
    Ok(match plan {
        Plan::Linear(plan) => Box::new(LinearBody::new(plan, graph, ports, making)?),
        Plan::Mlp(plan) => Box::new(MlpBody::new(plan, graph, ports, making)?),
        Plan::Attention(plan) => Box::new(AttentionBody::new(plan, ports, class)?),
        Plan::PackedAttention(plan) => Box::new(PackedAttentionBody::new(plan, graph, ports, making)?),
        Plan::Grouped(plan) => Box::new(GroupedBody::new(plan, ports, class)?),
        Plan::Norm(plan) => Box::new(NormBody::new(plan, ports, class)?),
        Plan::Activation(plan) => Box::new(ActivationBody::new(plan, ports, class)?),
        Plan::Compiled(_) => return Err(Error::new("a node of a compiled model cannot be compiled again")),
    })
}

/// Returns the shape of two tensors broadcast to each other by the rules of ONNX. Fails if they do not broadcast.
pub fn broadcast(a: &[i64], b: &[i64]) -> Result<Vec<i64>> {
    let rank = a.len().max(b.len());
    let size = |shape: &[i64], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (a, b) if a == b => Ok(a),
            (1, b) => Ok(b),
            (a, 1) => Ok(a),
            _ => Err(Error(format!("shapes {a:?} and {b:?} cannot be broadcast"))),
        })
        .collect()
}

/// Returns the strides of a dense tensor of `shape` along the axes of a result with `rank` axes: 0 along axes that are
/// broadcast.
pub fn broadcast_strides(shape: &[i64], rank: usize) -> Vec<usize> {
    let mut strides = vec![0; rank];
    let mut step = 1;
    for (axis, size) in shape.iter().enumerate().rev() {
        if *size != 1 {
            strides[rank - shape.len() + axis] = step;
        }
        step *= *size as usize;
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_broadcast_as_in_onnx() {
        assert_eq!(broadcast(&[2, 1, 4], &[3, 1]).unwrap(), [2, 3, 4]);
        assert_eq!(broadcast(&[], &[5]).unwrap(), [5]);
        assert_eq!(broadcast(&[1, 0], &[3, 1]).unwrap(), [3, 0]);
        assert!(broadcast(&[2], &[3]).is_err());
        assert_eq!(broadcast_strides(&[2, 1, 4], 4), [0, 4, 0, 1]);
    }
}
