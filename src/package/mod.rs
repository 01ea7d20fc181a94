//! Packages: a model prepared ahead of time, in one folder or one file, that a program opens and runs.
//!
//! ```text
//! optimize.json               description: signature, shapes, variants, lineage, hash of every file
//! optimize.json.sha256        its SHA-256
//! optimize.json.sig           its signature, if a key was given
//! manifest.json               the variants of ONNX Runtime's CPU provider, in ONNX Runtime's package layout
//! model/VARIANT/model.onnx    graphs: portable ones, and ones optimized for a processor; next to the graph of a
//!                             compiled variant its packed weights, and in place of a graph a packed model or an engine
//! shared/weights.safetensors  the weights of the graphs, each stored once, aligned
//! assets/                     the model's other files, such as its tokenizer and configuration
//! ```
//!
//! A package in one file is a zip file with uncompressed entries ([`archive`]).
//!
//! [`compile`] makes a package and [`Package::open`] opens it. [`shapes`] makes the contract, which is the input sizes
//! that runs accept, and `promise` tests it before it is written. [`Package::verify`] checks every byte of a package.
//! [`codegen`] writes a program that runs a package, and [`triton`] a model repository.

pub mod archive;
mod check;
pub mod codegen;
mod compiled;
mod engines;
pub mod manifest;
mod open;
mod options;
mod promise;
pub mod shapes;
pub mod triton;
mod variants;
pub mod verify;
mod weights;
mod write;

pub use check::Check;
pub use manifest::Manifest;
pub use open::{Choice, OpenOptions, Package, is_package, is_package_file};
pub use options::CompileOptions;
pub use write::{Compiled, compile, compile_to};
