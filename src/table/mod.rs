//! The table of techniques: each technique is applied to each model as a recipe, and the resulting package is measured
//! against the original in ONNX Runtime with its own kernels.
//!
//! [`table`] is the entry point. `rows` lists the techniques with what is commonly promised of them, `measure` measures
//! the speed, load time and memory, `quality` measures the quality, and `promise` compares the promises with the
//! measurements. `store` keeps each measured row in a file, under a hash of everything that the row depends on, so that
//! later runs read it instead of measuring again. [`report`] has the types of the result; `markdown` and the pages of
//! the command write it.

mod facts;
mod markdown;
mod measure;
mod promise;
mod quality;
pub mod report;
mod rows;
mod run;
mod store;

pub use report::{Figure, Interval, ModelTable, Promise, Row, Speed, State, Table, Verdict};
pub use rows::names;
pub use run::{More, TableOptions, table};
