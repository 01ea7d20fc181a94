//! The ONNX file format: its messages, and the loading, checking and saving of models.
//!
//! [`load`] reads a model and [`save`] writes it. In between, the elements of every tensor are in `raw_data` (for
//! example a slice of the mapped file) or in the typed fields, never "external".

mod data_name;
pub mod dtype;
mod external_data;
pub mod fields;
mod functions;
pub mod load;
pub(crate) mod order;
pub mod packed;
pub mod proto;
pub mod save;
pub mod sink;
pub mod tensors;
pub mod validate;
pub mod wire;
