//! The boundary to ONNX Runtime: its C tables, views of its objects, errors and panics on their way out. All `unsafe`
//! of the provider is here.

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
