//! Calibration: the inputs of a model's layers on real data, layer by layer.
//!
//! [`Batch`]es come from a text or from tensors, or are generated. A [`Walk`] computes requested values step by step,
//! so that a layer can be changed before those after it run. [`Products`] computes matrix products with ONNX Runtime. A
//! [`Factor`] holds the correlations of a layer's inputs, for compensating the change of one weight in the others.
//! [`ranges()`] finds the bounds of values. [`Data`] and [`Run`] are arguments of functions that work on calibration
//! data.

mod factor;
mod histogram;
mod inputs;
mod pieces;
mod products;
mod ranges;
mod run;
mod walk;

pub use crate::inputs::{Batch, read_tensors};
pub use factor::{ColumnOrder, Factor};
pub use histogram::Range;
pub use inputs::{Calibration, batches, without_data};
pub use pieces::pieces;
pub use products::Products;
pub use ranges::{Method, each_value, ranges, runs};
pub use run::{Data, Run};
pub use walk::Walk;
