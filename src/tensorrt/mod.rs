//! TensorRT: engines for NVIDIA's devices.
//!
//! [`build`] is the way in: from a model to an engine file with a manifest beside it. [`graph`] gives the graph alone, as
//! the library would get it. `portable` lowers operators that its parser does not take, `precision` writes a lower
//! precision into the graph (`casts` and `quantized` do the writing, `sample` the measuring), `sparsity` looks for the pattern 2:4, `unranked` says whose rank is not known, `profile` says of which sizes inputs may
//! be, `backend` finds the libraries (`context` is ONNX Runtime's provider as one), `shim` calls them on `work`'s thread, and [`manifest`] tells one engine from
//! another. [`Engine`] runs one, with memory of the device by `memory`.
//!
//! TensorRT's own interface is C++ classes; `shim.cc` turns them into two C functions. It is compiled where NVIDIA's
//! headers are (`make deps`), and the libraries are opened at run time: nothing of theirs is needed to build or to load
//! this library.

mod backend;
mod build;
mod casts;
mod context;
pub mod engine;
pub mod manifest;
mod memory;
mod options;
mod portable;
mod precision;
mod profile;
mod quantized;
mod sample;
mod shim;
mod sparsity;
mod unranked;
mod work;

pub use backend::{Backend, Choice, Library, PATH_VARIABLE, device};
pub use build::{build, graph, save_graph};
pub use engine::{Engine, EngineFile};
pub use manifest::{Manifest, OpenOptions, open};
pub use options::{GivenProfile, Precision, Shapes, TensorRtOptions, parse_dimensions, parse_profiles, parse_shapes};
pub use precision::{KEPT, LOWERED};
pub use profile::{Profiles, Span};
