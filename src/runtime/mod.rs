//! The running of models on ONNX Runtime, which is not linked, but found and opened at run time.
//!
//! - [`library`]: finds the shared library and opens it once per process ([`Runtime`]).
//! - [`tensor`]: [`Tensor`], the immutable value that is the input and output of a run.
//! - [`session`]: [`Session`], a model loaded for running; `options` configures it, `weights` passes the model on
//!   without files to open, `prepared` opens optimized and compiled graphs, `inputs` rejects wrong inputs before a run,
//!   `watch` ends a run early.
//! - `into`: runs that write outputs to memory of the caller ([`Destination`]); `in_place`: memory that is input and
//!   output of the same run ([`InPlace`]); `resident`: memory that stays on the device of a session ([`Resident`]).
//! - [`providers`]: execution providers (CPU, CUDA, TensorRT); `register` adds one to a session, `driver` finds NVIDIA
//!   GPUs, `kernels` adds this library's CPU kernels, `kv_cache` changes the element type of a KV cache for them.
//!   `placement` tells on which provider and kernels a session runs.
//! - `inferred`, `types`: shapes and types of values as ONNX Runtime infers them.
//! - `mapped`: memory shared by this library and ONNX Runtime without a copy; `allocator`: the memory limit of
//!   sessions.
//! - `rounding`: quantization of activations in products with block-quantized weights.
//!
//! ```no_run
//! # use optimize::{call::Call, error::Result, model::Model, runtime::*};
//! # fn main() -> Result<()> {
//! let runtime = Runtime::open(None)?;
//! let model = Model::load("model.onnx".as_ref())?;
//! let mut session = Session::new(runtime, &model, &SessionOptions::default(), &Call::default())?;
//! let input = Tensor::from_f32(&[1, 2], vec![1.0, 2.0])?;
//! let outputs = session.run(&[("x", &input)], &[], &Call::default())?;
//! # Ok(()) }
//! ```

mod allocator;
pub(crate) mod driver;
mod in_place;
mod inferred;
mod inputs;
mod into;
mod kernels;
mod kv_cache;
pub mod library;
mod mapped;
mod options;
mod placement;
mod prepared;
pub mod providers;
mod register;
mod resident;
mod rounding;
pub mod session;
pub mod tensor;
#[cfg(test)]
pub(crate) mod testing;
mod types;
mod watch;
mod weights;

pub use in_place::{InPlace, Place, Stop};
pub(crate) use inferred::{inferred, resize};
pub use into::Destination;
pub use kernels::{Kernels, SessionPrecision};
pub(crate) use kernels::{REGISTRATION, auto_means_stock, usable as kernels_usable};
pub use kv_cache::KvCacheType;
pub use library::Runtime;
pub(crate) use library::follow_log_level;
pub(crate) use options::has_blocks;
pub use options::{OptimizationLevel, SessionOptions};
pub use placement::Placement;
pub use providers::{Availability, Execution, Provider, ProviderChoice, available};
pub use resident::{Bound, Resident};
pub use session::Session;
pub use tensor::{Element, Tensor};
pub use types::infer_types;

/// Returns the path of a file or folder that the tests need and `tools/deps.sh test` fetches. Panics if it is missing,
/// so that no test is skipped.
#[cfg(test)]
pub(crate) fn test_deps(name: &str) -> std::path::PathBuf {
    let folder = std::env::var_os("OPTIMIZE_TEST_DEPS")
        .map_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/deps"), std::path::PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `tools/deps.sh test`", path.display());
    path
}

/// Returns ONNX Runtime for the tests of this crate.
#[cfg(test)]
pub(crate) fn test_runtime() -> &'static Runtime {
    let path = std::env::var_os("ORT_DYLIB_PATH")
        .map_or_else(|| test_deps("onnxruntime/libonnxruntime.so.1"), std::path::PathBuf::from);
    Runtime::open(Some(&path)).unwrap()
}
