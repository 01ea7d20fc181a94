//! Packages: a model made ready ahead of time, in one folder or one file, that a program opens and runs.
//!
//! ```text
//! optimize.json            what the package is: signature, shapes, variants, lineage, hash of every file
//! optimize.json.sha256     seals it; optimize.json.sig signs it, if a key was given
//! manifest.json            the same for ONNX Runtime's own readers of packages
//! model/VARIANT/model.onnx graphs: portable ones, and ones optimized for a processor
//! shared/weights.safetensors  the weights of all of them, each once, aligned
//! assets/                  tokenizer, configuration
//! ```
//! The same as one file is a zip file whose entries are stored as they are ([`archive`]).
//!
//! [`compile`] makes one, [`Package::open`] opens it, [`shapes`] is the contract that every run keeps, `promise` tries it
//! out, [`verify`] looks at every bit, `codegen` and `triton` write what others need to use it.

pub mod archive;
mod check;
pub mod codegen;
mod engines;
pub mod manifest;
mod open;
mod promise;
pub mod shapes;
pub mod triton;
mod variants;
pub mod verify;
mod weights;
mod write;

pub use check::Check;
pub use manifest::Manifest;
pub use open::{Choice, OpenOptions, Package, is_package};
pub use write::{CompileOptions, Compiled, compile};
