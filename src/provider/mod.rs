//! The CPU kernels of this library as an execution provider of ONNX Runtime.
//!
//! `liboptimize.so` is a plugin: any program with ONNX Runtime 1.24 or later can register it
//! (`RegisterExecutionProviderLibrary`), and groups of a model's nodes then run on [`crate::kernels`]. The model stays
//! standard ONNX. `docs/provider.md` shows this for Python, C, C++ and C#.
//!
//! ```text
//!  ONNX Runtime           abi/                     here
//!  GetCapability  ----->  graph  ---------------->  patterns/  which nodes form a group, and what the group means
//!  Compile        ----->  graph  ---> patterns/ ->  bodies/    weights are packed, once; the originals are dropped
//!  Compute        ----->  context  -------------->  bodies/    inputs to outputs, on the session's own threads
//! ```
//!
//! A group is claimed only if its body computes the same as its nodes for inputs of any size: ONNX Runtime cannot take
//! a claimed node back. The model determines the precision; float32 products with weights run on the kernels of ONNX
//! Runtime unless the option `precision` requests a lower one ([`options`]).

pub mod abi;
mod bodies;
mod compiled;
mod faster;
mod graph;
mod memory;
pub mod options;
mod patterns;
mod session;

use std::ffi::CStr;

use crate::kernels::Class;
use patterns::Kind;

/// The name of the provider in a session.
pub const NAME: &CStr = c"OptimizeExecutionProvider";

/// Returns the version of this library and the class of processors for which compiled models are written on this
/// machine.
pub fn compiled_for() -> String {
    compiled::information()
}

/// Returns the class of this processor if sessions run quantized products on these kernels by default: products with
/// weights in blocks of few bits if `blocks`, otherwise those of int8 weights and activations.
pub fn class_for_quantized(blocks: bool) -> Option<&'static str> {
    let class = Class::detect();
    faster::is_faster(class, if blocks { Kind::Blocks } else { Kind::Quantized }).then(|| class.name())
}

/// Returns whether this library has kernels for this processor. The portable kernels in Rust are only for tests, which
/// request them with `OPTIMIZE_CPU=scalar`.
pub fn serves() -> bool {
    Class::detect() > Class::Scalar || std::env::var("OPTIMIZE_CPU").is_ok_and(|name| name == Class::Scalar.name())
}
