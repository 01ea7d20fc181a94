//! What depends on the processor and the operating system, apart from files.
//!
//! [`processor`] says what the processor is and can, and compiles a loop for each of its vector widths; [`memory`] says
//! what this process takes; [`time`] reads clocks.

pub mod memory;
#[macro_use]
pub mod processor;
pub mod time;
