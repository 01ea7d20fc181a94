//! The C interface of ONNX Runtime: its function tables, views of its objects, and the conversion of errors and panics
//! to a status. All `unsafe` code of the provider is here.

mod api;
mod context;
mod ep;
pub mod factory;
mod graph;
mod heap;
mod mapping;
mod node;
mod options;
mod status;
mod tables;
mod tensor;

pub use context::{Context, Pool};
pub use heap::trim_heap;
pub use mapping::Mapping;
pub use node::ContextNode;
pub use status::{Error, Result};
pub use tensor::Tensor;
