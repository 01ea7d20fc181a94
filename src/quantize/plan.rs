//! The content of a quantization plan: weights, the nodes that change, and the reasons why others stay unchanged.

use super::stored::Stored;
use crate::graph::BodyId;
use crate::graph::constants::{Constant, Matrix};
use crate::onnx::proto::TensorProto;
use crate::report::NodeReport;

/// The elements of the stored matrix that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Each row has its own scale.
    Row,
    /// Each column has its own scale.
    Column,
    /// All elements share one scale.
    All,
}

/// A weight to quantize; several nodes may share it.
#[derive(Clone)]
pub struct Weight<'a> {
    /// Elements of the weight, as a matrix in the stored order.
    pub matrix: Matrix,
    /// Elements that share a scale in int8; in blocks, the direction of the blocks (`Row` or `Column`).
    pub channel: Channel,
    /// Whether the quantized matrix is the transpose of the stored one.
    pub transpose: bool,
    /// Float tensor of the weight as stored.
    pub tensor: &'a TensorProto,
    /// Name of the value that is the weight.
    pub name: String,
    /// Requested bits and block size; 0 selects the default block size.
    pub bits: (u32, usize),
}

/// The operators that replace a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `MatMulInteger` on an activation that is quantized once for all its readers.
    MatMul,
    /// Like `MatMul`, with the factors and the bias of a `Gemm`.
    Gemm,
    /// `DynamicQuantizeMatMul` of com.microsoft, for opsets before 11.
    ContribMatMul,
    /// `Gather` of int8 rows and of their scales.
    Table,
    /// `MatMulNBits` of com.microsoft.
    BlockMatMul,
    /// Like `BlockMatMul`, with the factors and the bias of a `Gemm`.
    BlockGemm,
    /// `GatherBlockQuantized` of com.microsoft.
    BlockTable,
}

impl Form {
    /// Returns whether the weight is in blocks.
    pub fn is_blocks(self) -> bool {
        matches!(self, Form::BlockMatMul | Form::BlockGemm | Form::BlockTable)
    }

    /// Returns whether the node is a `Gather` of rows of the weight.
    pub fn is_table(self) -> bool {
        matches!(self, Form::Table | Form::BlockTable)
    }
}

/// A node that will be rewritten.
#[derive(Clone)]
pub struct Change<'a> {
    /// Graph or function that contains the node.
    pub body: BodyId,
    /// Index of the node in that graph or function.
    pub node: usize,
    /// Operators that replace the node.
    pub form: Form,
    /// Index of the weight in [`Plan::weights`].
    pub weight: usize,
    /// Index of the weight among the node's inputs.
    pub input: usize,
    /// Constant that is the weight, with the nodes between its definition and the node.
    pub constant: Constant<'a>,
}

/// A plan of the changes to a model. It is immutable: decisions result in a new plan, see [`Plan::decide`].
#[derive(Clone)]
pub struct Plan<'a> {
    /// Weights to quantize.
    pub weights: Vec<Weight<'a>>,
    /// Nodes that will be rewritten, each of which reads one of the weights.
    pub changes: Vec<Change<'a>>,
    /// Weights that are stored in few bits, for nodes that compute in float.
    pub stored: Vec<Stored<'a>>,
    /// Report entries of nodes that are not rewritten, in the order of the model: nodes that stay unchanged, with the
    /// reason, and nodes that read stored weights.
    pub left: Vec<(BodyId, usize, NodeReport)>,
    /// Maximum magnitude of an int8 code: 127, or 63 with a reduced range.
    pub limit: f32,
}

impl Plan<'_> {
    /// Returns the size in bytes of the float weights of the plan. A weight that several nodes share is counted once.
    pub fn weight_bytes(&self) -> u64 {
        let stored = self.stored.iter().map(Stored::bytes);
        self.weights.iter().map(|w| (w.matrix.elements() * w.matrix.width()) as u64).chain(stored).sum()
    }
}

/// Returns whether a `Gather` reads a weight as a table in blocks.
pub fn is_table(plan: &Plan<'_>, index: usize) -> bool {
    plan.changes.iter().any(|c| c.weight == index && c.form == Form::BlockTable)
}
