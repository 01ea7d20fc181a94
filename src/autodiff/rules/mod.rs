//! The rules of operators, one file per family. A rule adds nodes to the tape and returns the gradients of the inputs:
//! the index of each input and the name of its gradient. In all of them, `g` is the gradient of the output `y`.

pub mod conv;
pub mod einsum;
pub mod elementwise;
pub mod gather;
pub mod matmul;
pub mod movement;
pub mod normalization;
pub mod pool;
pub mod power;
pub mod reduce;
pub mod resize;
pub mod shape;
pub mod softmax;

pub(crate) use gather::adding;
