//! TensorRT: engines for NVIDIA GPUs.
//!
//! [`build`] is the entry point: it builds an engine file and its manifest from a model. [`graph`] returns only the
//! graph that the library would receive. `portable` lowers operators that its parser does not support, `precision`
//! writes a lower precision into the graph (with `casts` and `quantized`; `sample` measures), `sparsity` counts 2:4
//! patterns, `unranked` finds values without a rank, `profile` makes optimization profiles, `backend` finds the
//! libraries (`context` is ONNX Runtime's provider as one), `shim` calls them on the thread of `work`, and
//! [`manifest`] identifies an engine. [`Engine`] runs one, with device memory from `memory`.
//!
//! TensorRT's own interface consists of C++ classes; `shim.cc` wraps them in C functions. It is compiled where NVIDIA's
//! headers are available (`make deps`), and the libraries are opened at run time: building or loading this library
//! requires nothing from NVIDIA.

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
pub use options::{
    GivenProfile, Precision, Shapes, Span, TensorRtOptions, parse_dimensions, parse_profiles, parse_shapes,
};
pub use precision::{KEPT, LOWERED};
pub use profile::Profiles;
