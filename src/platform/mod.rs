//! The properties of the processor and of the operating system, except for files.
//!
//! [`processor`] describes the processor, and compiles a loop for each of its vector widths; [`memory`] measures the
//! memory of this process; [`time`] reads clocks.

pub mod memory;
#[macro_use]
pub mod processor;
pub mod time;
