//! Vector instructions of x86-64.

mod avx2;
mod avx512;
mod tiles;

pub use avx2::Avx2;
pub use avx512::Avx512;
#[cfg(test)]
pub use tiles::Emulated;
pub use tiles::{Hardware, Tiles};
