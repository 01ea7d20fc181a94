//! Our CPU kernels as an execution provider of ONNX Runtime.
//!
//! `liboptimize.so` is a plugin: any program with ONNX Runtime 1.24 or later can register it
//! (`RegisterExecutionProviderLibrary`) and have groups of a model's nodes run on [`crate::kernels`]. The model stays
//! standard ONNX. See `docs/provider.md` for how that is done from Python, C, C++ and C#.
//!
//! ```text
//!  ONNX Runtime           abi/                     here
//!  GetCapability  ----->  graph  ---------------->  patterns/  which nodes form a group, and what the group means
//!  Compile        ----->  graph  ---> patterns/ ->  bodies/    weights are packed, once; the originals are dropped
//!  Compute        ----->  context  -------------->  bodies/    inputs to outputs, on the session's own threads
//! ```
//!
//! A group is claimed only if its body surely computes what its nodes do, whatever the sizes of a run: ONNX Runtime
//! cannot take a node back. The precision is what the file says; float32 products stay ONNX Runtime's own unless the
//! option `precision` asks for less ([`options`]).

pub mod abi;
mod bodies;
mod compiled;
mod graph;
mod memory;
pub mod options;
mod patterns;
mod session;

use std::ffi::CStr;

use crate::kernels::Class;

/// The provider's name, as sessions list it.
pub const NAME: &CStr = c"OptimizeExecutionProvider";

/// Returns true if the kernels are made for this processor. The plain Rust ones are only for tests, which ask for
/// them by `OPTIMIZE_CPU=scalar`.
pub fn serves() -> bool {
    Class::detect() > Class::Scalar || std::env::var("OPTIMIZE_CPU").is_ok_and(|name| name == Class::Scalar.name())
}
