//! # liboptimize
//!
//! liboptimize makes trained models smaller and faster, measures what that costs, and runs the result: from C, C++, Go,
//! C#, Rust or the command line, without Python.
//!
//! ```text
//!  a path             a model           a technique                     what comes out
//!  open, source/ -->  model::Model -->  quantize::quantize         -->  onnx::save  (a file)
//!                        |              (&Model, &Options, &Call)       runtime/    (a session)
//!                        |               -> (Model, Report)             benchmark/  (A against B)
//!                        +--> inspect   inputs/ calibrate/ (data)       text/       (generation)
//!                                                                       evaluate/   (quality on data)
//! ```
//!
//! A [`model::Model`] is an immutable snapshot whose weights are slices of mapped files or of memory. Most techniques
//! take one or several models and return a new one with a [`report::Report`], so that they can be chained; [`package`]
//! and [`tensorrt`] write files instead. Techniques print nothing, and do not know about C.
//!
//! ## Layers
//!
//! A module of `src/` (a folder or a file) imports only modules to its right or below. `tests/layers.rs` reads this
//! picture and checks the imports.
//!
//! ```text
//! 7  ffi                                                the C interface; src/bin/optimize is the command
//! 6  table recipe open                                  recipes of techniques; loading of any model from a path
//! 5  package ensemble distill tensorrt prune quantize   the techniques
//! 4  provider                                           own kernels as an execution provider of ONNX Runtime
//! 4  verify evaluate benchmark calibrate autodiff       measuring and fitting
//! 4  encoder                                            texts to vectors and to classes
//! 3  inputs meaning                                     inputs of runs; meaning of tokens and classes
//! 2  source text runtime page                           formats; generation; sessions; reports as pages
//! 1  inspect graph model report                         a model, its inspection and its changes
//! 0  onnx shapes call files platform                    the file format; foundations
//! 0  counters log choice threads limits memory error statistics likelihood kernels
//! ```
//!
//! Where to start reading: [`quantize`] for a technique, [`graph`] for the analysis and editing of a model, [`open`],
//! [`source`] and [`onnx`] for loading and saving, [`inputs`] for the inputs of runs, [`text`] for generation,
//! [`ensemble`] for combining models, [`ffi`] for the C interface (`include/optimize.h` is generated from it),
//! `src/bin/optimize` for the command. Limits on untrusted files are in [`limits`]; the opening of files that a model
//! names, the mapping of files and their atomic replacement are in [`files`].
//!
//! ```no_run
//! use optimize::{call::Call, model::Model, onnx::save::ExternalData, quantize};
//!
//! # fn main() -> optimize::error::Result<()> {
//! let model = Model::load("model.onnx".as_ref())?;
//! let (small, report) = quantize::quantize(&model, &Default::default(), &Call::default())?;
//! small.save("small.onnx".as_ref(), ExternalData::Auto, &Call::default())?;
//! println!("{}", report.to_json());
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod autodiff;
pub mod benchmark;
pub mod calibrate;
pub mod call;
mod choice;
pub mod counters;
pub mod distill;
pub mod encoder;
pub mod ensemble;
pub mod error;
pub mod evaluate;
pub mod ffi;
pub mod files;
pub mod graph;
pub mod inputs;
pub mod inspect;
pub mod kernels;
mod likelihood;
pub mod limits;
pub mod log;
mod meaning;
pub mod memory;
pub mod model;
pub mod onnx;
pub mod open;
pub mod package;
#[cfg(feature = "cli")]
pub mod page;
pub mod platform;
pub mod provider;
pub mod prune;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod runtime;
pub mod shapes;
pub mod source;
mod statistics;
pub mod table;
pub mod tensorrt;
pub mod text;
mod threads;
pub mod verify;
