//! The meaning of the outputs and inputs of two models, which may be the same or not: token ids ([`tokens`]) and class
//! indices ([`classes`]).
//!
//! Everything that combines or compares two models uses it: ensembles, merging, distillation, evaluation against
//! another model, benchmarks.

pub mod classes;
pub mod tokens;

#[cfg(test)]
mod tests;

pub use classes::Order;
pub use tokens::{Reading, reading};
