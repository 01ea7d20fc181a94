#![doc = "liboptimize"]
pub mod call;
pub mod error;
pub mod files;
pub mod limits;
pub mod model;
pub mod onnx;
