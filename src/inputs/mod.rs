//! What a run is fed: sizes by name, what a graph says of its inputs, given tensors.
//!
//! [`Sizes`] chooses the sizes that a model leaves open, the one way for every command. [`hints`] and [`tables`] read
//! the graph: channels, features, rows that are indexed. [`tensors`] cuts given data into runs.

pub mod hints;
pub mod sizes;
pub mod tables;
pub mod tensors;

#[cfg(test)]
mod properties;

pub use sizes::{Sizes, Wanted};
pub use tensors::read_tensors;

/// Whether an input holds what earlier runs left behind: keys and values of attention.
pub fn is_past(name: &str) -> bool {
    let name = name.to_lowercase();
    let marks = ["past_key", "past_value", "key_cache", "value_cache", "kv_cache", "cache_k", "cache_v"];
    name.starts_with("past") || marks.iter().any(|mark| name.contains(mark))
}
