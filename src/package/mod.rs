//! Packages: a model prepared ahead of time, in one folder or one file, that a program opens and runs.
//!
//! ```text
//! optimize.json               description: signature, shapes, variants, lineage, hash of every file
//! optimize.json.sha256        its SHA-256
//! optimize.json.sig           its signature, if a key was given
//! manifest.json               the same content in ONNX Runtime's package layout
//! model/VARIANT/model.onnx    graphs: portable ones, and ones optimized for a processor
//! shared/weights.safetensors  the weights of all variants, each stored once, aligned
//! assets/                     tokenizer, configuration
//! ```
//!
//! A package in one file is a zip file with uncompressed entries ([`archive`]).
//!
//! [`compile`] makes a package and [`Package::open`] opens it. [`shapes`] is the contract that every run checks;
//! `promise` tests it beforehand. [`verify`] checks every byte. `codegen` and `triton` write what other programs need.

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
