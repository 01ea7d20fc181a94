//! The rules of operators, one file per family. A rule adds nodes to the tape and returns the gradients of the inputs:
//! the index of each input and the name of its gradient. In the documentation, `x` is the input, `y` the output, and
//! `g` the gradient of the loss with respect to `y`.
//!
//! Every rule fails with `InvalidModel` for inputs and attributes that are missing or do not fit, and with
//! `Unsupported` for attributes that it does not support. It also fails with `Unsupported` if it needs the rank of a
//! value and the rank is unknown, and with `Internal` if it needs the gradient of the first output and there is none.

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
