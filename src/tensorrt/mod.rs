//! TensorRT: engines for NVIDIA GPUs.
//!
//! [`build`] is the entry point: it builds an engine file and its manifest from a model. [`graph`] returns only the
//! graph that TensorRT would receive. [`manifest`] identifies an engine. [`Engine`] runs an engine, with device memory
//! from `memory`.
//!
//! The graph: `portable` lowers operators that TensorRT's parser does not support. `precision` writes a lower precision
//! into the graph, with `casts` for fp16 and bf16, `quantized` for int8 and fp8, and `sample` for the measurements.
//! `sparsity` counts weights with the 2:4 pattern, `unranked` finds values without a rank, and `profile` makes
//! optimization profiles.
//!
//! The build: `backend` finds and opens the libraries, and `shim` calls them, on the thread of `work`. `context` builds
//! with ONNX Runtime's TensorRT provider instead.
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
