//! Inputs of runs: sizes by name, requirements of the graph, given tensors.
//!
//! [`Sizes`] determines the open dimensions of a model, for every command. [`hints`] and [`tables`] read the graph:
//! channels, features, indexed rows. [`tensors`] splits given data into runs.

pub mod hints;
pub mod sizes;
pub mod tables;
pub mod tensors;

#[cfg(test)]
mod properties;

pub use sizes::{Sizes, Wanted};
pub use tensors::read_tensors;

/// Returns whether an input holds the state of earlier runs: keys and values of attention.
pub fn is_past(name: &str) -> bool {
    let name = name.to_lowercase();
    let marks = ["past_key", "past_value", "key_cache", "value_cache", "kv_cache", "cache_k", "cache_v"];
    name.starts_with("past") || marks.iter().any(|mark| name.contains(mark))
}
