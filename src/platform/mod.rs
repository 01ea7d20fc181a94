//! The properties of the processor and of the operating system, except for files.
//!
//! [`processor`] describes the processor, and has a macro that compiles a function for several vector widths;
//! [`memory`] measures the memory of this process; [`time`] reads clocks.

pub mod memory;
#[macro_use]
pub mod processor;
pub mod time;
