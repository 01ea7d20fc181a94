//! Whether the numbers of two models mean the same: ids of tokens ([`tokens`]), numbers of classes ([`classes`]).
//!
//! Whatever puts two models side by side asks here: ensembles, merging, distillation, evaluation against another
//! model, benchmarks.

pub mod classes;
pub mod tokens;

#[cfg(test)]
mod tests;

pub use classes::Order;
pub use tokens::{Reading, reading};
