//! # liboptimize
//!
//! Take a trained model, make it smaller or faster, measure what that cost, run it: from C, C++, Go, C#, Rust
//! or the command line, with no Python on the machine.
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
//! A [`model::Model`] is an immutable snapshot whose weights are slices of mapped files. A technique takes one
//! and gives a new one with a [`report::Report`]; techniques chain. None writes files, prints, or knows of C.
//!
//! ## Floors
//!
//! A room is a folder or a file of `src/`. It imports only rooms to its right or below: `tests/layers.rs` reads this
//! picture and holds it.
//!
//! ```text
//! 7  ffi                                                the C interface; beside it src/bin/optimize, the command
//! 6  open                                               the front door: a path becomes a model, whatever lies there
//! 5  package ensemble distill tensorrt prune quantize   the techniques
//! 4  provider                                           our kernels as an execution provider of ONNX Runtime
//! 4  verify calibrate evaluate benchmark autodiff       measuring and fitting
//! 3  inputs meaning                                     what a run is fed; whether two models mean the same
//! 2  source text runtime                                formats; generation; sessions
//! 1  inspect graph model report                         a model, and how it is looked at and changed
//! 0  onnx shapes call files platform                    the file format; what everything stands on
//! 0  limits error statistics likelihood kernels
//! ```
//!
//! Where to start reading: [`quantize`] for what a technique looks like, [`graph`] for how one looks at and changes a
//! model, [`open`], [`source`] and [`onnx`] for how models come in and go out, [`text`] for generation, [`ensemble`] for several
//! models that answer as one, [`ffi`] for the C interface (`include/optimize.h` is made from it), `src/bin/optimize`
//! for the command. Numbers that bound what a stranger's file may ask for are in [`limits`]; everything that touches
//! the file system is in [`files`].
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
pub mod distill;
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
mod meaning;
pub mod model;
pub mod onnx;
pub mod open;
pub mod package;
pub mod prune;
pub mod quantize;
pub mod report;
pub mod runtime;
pub mod shapes;
pub mod source;
mod statistics;
pub mod tensorrt;
pub mod text;
pub mod verify;
