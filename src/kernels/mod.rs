//! CPU kernels: linear layers, attention, normalization, activations. They know nothing of graphs.
//!
//! Slices go in and out; weights are packed once ([`PackedLinear`]) for a [`Class`] of processors. Every function
//! computes the same bits for one class whatever the number of threads that [`Parallel`] offers, keeps no state
//! between calls, and accepts any size, zero rows included. Slices that are too short for the sizes given are an
//! error of the caller: a debug build asserts, a release build leaves the output as it is.

mod activation;
mod attention;
mod class;
mod linear;
mod norm;
mod pack;
mod parallel;
mod reference;
mod scratch;
mod simd;
mod system;
mod vmath;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activation::{Activation, activate};
pub use attention::{Attention, Mask, Strides, attention};
pub use class::Class;
pub use linear::{Epilogue, Rows, StaticInput, StaticValues, gated, linear, linear_static, linears};
pub use norm::{Norm, Residual, layer_norm, rms_norm};
pub use pack::{BlockWeights, Int8Weights, Layout, LinearHeader, PackError, PackedLinear, Precision, Storage};
pub use parallel::{Parallel, Serial};

#[cfg(test)]
mod tests;
