//! CPU kernels for linear layers, attention, normalization and activations. They know nothing of graphs.
//!
//! Inputs and outputs are slices; weights are packed once ([`PackedLinear`]), that is, arranged in the order in which
//! the kernels for one [`Class`] of processors read them. For one class, every function gives the same bits for any
//! number of threads of [`Parallel`], does not depend on earlier calls, and accepts any number of rows, including zero.
//! Slices that are too short for the given sizes are an error of the caller: a debug build panics, a release build does
//! not change the output ([`Cache::copy`] panics in both).

mod activation;
mod attention;
mod class;
mod linear;
mod mlp;
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
pub use attention::{
    Attention, Cache, GroupedAttention, Mask, Rotary, Stored, StoredMut, Strides, attention, grouped_attention,
};
pub use class::Class;
pub use linear::{Epilogue, Rows, StaticInput, StaticValues, linear, linear_static, linears};
pub use mlp::{Layer, mlp};
pub use norm::{Norm, Residual, layer_norm, rms_norm};
pub use pack::{BlockWeights, Int8Weights, Layout, LinearHeader, PackError, PackedLinear, Precision, Storage};
pub use parallel::{Parallel, Serial};

#[cfg(test)]
mod tests;
