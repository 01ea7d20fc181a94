//! What flows through a model on real data: the inputs of its layers, layer after layer.
//!
//! [`Batch`]es come from a text or from tensors. A [`Walk`] computes the values that are asked for, piece by piece, so
//! that a layer can be changed before those behind it run. [`Products`] are matrix products, by ONNX Runtime. A
//! [`Factor`] is what the inputs of a layer say about making up for the change of one weight by the others. [`ranges`]
//! finds between which bounds values lie.

mod factor;
mod histogram;
mod inputs;
mod pieces;
mod products;
mod ranges;
mod walk;

pub use crate::inputs::read_tensors;
pub use factor::{ColumnOrder, Factor};
pub use inputs::{Batch, Calibration, batches, without_data};
pub use pieces::pieces;
pub use products::Products;
pub use ranges::{Method, Range, each_value, ranges, runs};
pub use walk::Walk;
