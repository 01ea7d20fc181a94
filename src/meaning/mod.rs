//! The comparison of two models: whether equal token ids mean equal tokens ([`tokens`]), and equal class indices equal
//! classes ([`classes`]).
//!
//! It is used where two models are combined or compared, for example in ensembles, merging, distillation, evaluation
//! against another model, and benchmarks.

pub mod classes;
pub mod tokens;

#[cfg(test)]
mod tests;

pub use classes::Order;
pub use tokens::{Reading, reading};
