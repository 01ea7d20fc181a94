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
    pub matrix: Matrix,
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

/// The form of a node after quantization.
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
    pub fn is_blocks(self) -> bool {
        matches!(self, Form::BlockMatMul | Form::BlockGemm | Form::BlockTable)
    }

    pub fn is_table(self) -> bool {
        matches!(self, Form::Table | Form::BlockTable)
    }
}

/// A node that will be rewritten.
#[derive(Clone)]
pub struct Change<'a> {
    pub body: BodyId,
    pub node: usize,
    pub form: Form,
    /// Index of the weight in [`Plan::weights`].
    pub weight: usize,
    /// Index of the weight among the node's inputs.
    pub input: usize,
    pub constant: Constant<'a>,
}

/// A plan of the changes to a model. It is immutable: decisions result in a new plan, see [`Plan::decide`].
#[derive(Clone)]
pub struct Plan<'a> {
    pub weights: Vec<Weight<'a>>,
    pub changes: Vec<Change<'a>>,
    /// Weights that are stored in few bits, for nodes that compute in float.
    pub stored: Vec<Stored<'a>>,
    /// Nodes that stay unchanged, in the order of the model, with the reason.
    pub left: Vec<(BodyId, usize, NodeReport)>,
    /// Maximum magnitude of a code: 127, or 63 with a reduced range.
    pub limit: f32,
}

impl Plan<'_> {
    /// Returns the size in bytes of the float weights that will be read; weights that are read twice are counted once.
    pub fn weight_bytes(&self) -> u64 {
        let stored = self.stored.iter().map(Stored::bytes);
        self.weights.iter().map(|w| (w.matrix.elements() * w.matrix.width()) as u64).chain(stored).sum()
    }
}

/// Returns whether a `Gather` reads a weight.
pub fn is_table(plan: &Plan<'_>, index: usize) -> bool {
    plan.changes.iter().any(|c| c.weight == index && c.form == Form::BlockTable)
}
