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
//! A *group* is a set of nodes that the provider *claims*, that is, runs in place of ONNX Runtime as one fused node;
//! its *body* is the computation. A group is claimed only if its body supports inputs of any size that the nodes
//! support, because ONNX Runtime cannot take a claimed node back. The results differ from those of ONNX Runtime by
//! rounding, and dynamically quantized products have a scale for each row of the input. The model determines the
//! precision; float32 products with weights run on the kernels of ONNX Runtime unless the option `precision` requests a
//! lower one ([`options`]).

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

/// Returns the name of the class of this processor if sessions run quantized products on these kernels by default, and
/// otherwise `None`. If `blocks` is true, these are products with weights in blocks of few bits, otherwise those of
/// int8 weights and activations.
pub fn class_for_quantized(blocks: bool) -> Option<&'static str> {
    let class = Class::detect();
    faster::is_faster(class, if blocks { Kind::Blocks } else { Kind::Quantized }).then(|| class.name())
}

/// Returns whether this library has kernels for this processor. The portable kernels in Rust count only if the
/// environment variable `OPTIMIZE_CPU=scalar` requests them, as tests do.
pub fn serves() -> bool {
    Class::detect() > Class::Scalar || std::env::var("OPTIMIZE_CPU").is_ok_and(|name| name == Class::Scalar.name())
}
