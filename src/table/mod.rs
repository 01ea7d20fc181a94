//! The table of techniques: each technique is applied to each model as a recipe, and the resulting package is measured
//! against the original in ONNX Runtime with its own kernels.
//!
//! [`table`] is the entry point. `rows` has the techniques with what is commonly promised of them, `measure` the speed,
//! load time and memory, `quality` the loss. `store` keeps each finished row in a file under a key of everything that
//! it depends on, so that a row is measured once. [`report`] is the result; `markdown` and the pages of the command
//! write it.

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
