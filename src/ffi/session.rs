//! Sessions: models ready to run.

use super::call::{self, optimize_call_t};
use super::context::{self, optimize_context_t};
use super::error::optimize_error_t;
use super::handle::{self, handle};
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::tensor::{Signature, optimize_value_info_t};
use super::{Out, buffer, guard, optional_path};
use crate::call::Call;
use crate::error::Result;
use crate::runtime::{
    Destination, Execution, Kernels, OptimizationLevel, Placement, Provider, ProviderChoice, Session, SessionOptions,
    SessionPrecision, Tensor,
};
use crate::tensorrt::Engine;
use std::ffi::c_char;
use std::sync::Mutex;

/// A session, which runs a model or a TensorRT engine. Any number of threads may run it at the same time; they share
/// the weights and the threads of the session. The runs of an engine wait for one another.
#[allow(non_camel_case_types)]
pub struct optimize_session_t(());

handle!(optimize_session_t(SessionHandle), b"opt-sess", "session");

/// The value behind a session handle.
pub struct SessionHandle {
    pub(super) ready: Ready,
    inputs: Signature,
    pub(super) outputs: Signature,
    placement: Placement,
}

/// The implementation of a session: a session of ONNX Runtime, or an engine.
pub(super) enum Ready {
    Session(Box<Session>),
    /// Engine with one execution context, so that runs wait for one another.
    Engine(Mutex<Box<Engine>>),
}

impl Ready {
    pub(super) fn run_into(
        &self,
        inputs: &[(&str, &Tensor)],
        outputs: &mut [Destination<'_>],
        call: &Call,
    ) -> Result<()> {
        match self {
            Ready::Session(session) => session.run_into(inputs, outputs, call),
            Ready::Engine(_) => {
                let names: Vec<&str> = outputs.iter().map(|output| output.name).collect();
                let made = self.run(inputs, &names, call)?;
                outputs.iter_mut().zip(&made).try_for_each(|(output, (_, tensor))| output.fill(tensor))
            }
        }
    }

    /// Runs the model, and returns the outputs named in `outputs`. A run of an engine first waits for other runs of it.
    pub(super) fn run(
        &self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
        call: &Call,
    ) -> Result<Vec<(String, Tensor)>> {
        match self {
            Ready::Session(session) => session.run(inputs, outputs, call),
            Ready::Engine(engine) => handle::wait(engine, call)?.run(inputs, outputs, call),
        }
    }
}

// `optimize_session_run` takes a pointer to const, which threads may share.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<SessionHandle>();
};

/// Level of the optimizations that ONNX Runtime applies to the graph when it creates a session. They change results
/// only by rounding. With levels other than the default, ONNX Runtime's kernels run all nodes.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_optimization_level_t {
    /// All optimizations, including changes of tensor layout for this processor.
    OPTIMIZE_OPTIMIZATION_DEFAULT = 0,
    /// No optimization.
    OPTIMIZE_OPTIMIZATION_DISABLED = 1,
    /// Constant folding and removal of redundant nodes.
    OPTIMIZE_OPTIMIZATION_BASIC = 2,
    /// Basic optimizations and node fusion.
    OPTIMIZE_OPTIMIZATION_EXTENDED = 3,
}

/// Execution provider of a session.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_provider_t {
    /// The CPU.
    OPTIMIZE_PROVIDER_CPU = 0,
    /// An NVIDIA GPU, with the CUDA kernels of ONNX Runtime; nodes without such a kernel run on the CPU.
    OPTIMIZE_PROVIDER_CUDA = 1,
    /// An NVIDIA GPU, with TensorRT engines that are built for parts of the graph; other nodes run as with
    /// OPTIMIZE_PROVIDER_CUDA.
    OPTIMIZE_PROVIDER_TENSORRT = 2,
    /// The first of TensorRT, CUDA and the CPU with which the session can be created. This value occurs only in
    /// options: a session reports the provider that it uses.
    OPTIMIZE_PROVIDER_AUTO = 3,
}

/// Kernels that run the nodes of a session on the CPU.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_kernels_t {
    /// This library's kernels for groups of nodes that are faster with them, and ONNX Runtime's kernels for all other
    /// nodes. For this, liboptimize.so is registered with ONNX Runtime as an execution provider: see docs/provider.md.
    /// In fp32, the environment variable OPTIMIZE_KERNELS=stock selects OPTIMIZE_KERNELS_STOCK instead.
    OPTIMIZE_KERNELS_AUTO = 0,
    /// ONNX Runtime's kernels only, as in programs without this library.
    OPTIMIZE_KERNELS_STOCK = 1,
}

/// Precision of matrix products of float32 inputs and constant float32 weights on the CPU.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_session_precision_t {
    /// float32.
    OPTIMIZE_SESSION_PRECISION_FP32 = 0,
    /// bfloat16, with sums in float32. It halves the memory of weights. It is faster than float32 for inputs with few
    /// rows, and on processors with AMX also for many rows.
    OPTIMIZE_SESSION_PRECISION_BF16 = 1,
    /// int8: weights have a scale for each output column, and inputs have a scale for each row, which is computed in
    /// each run.
    OPTIMIZE_SESSION_PRECISION_INT8 = 2,
}

/// The fields of an options struct that select execution provider, device, kernels and precision of a session.
pub(super) struct Where {
    pub provider: i32,
    pub device_id: u32,
    pub engine_cache: *const c_char,
    pub kernels: i32,
    pub precision: i32,
}

impl Where {
    /// Returns the fields for sessions that train, which use ONNX Runtime's kernels in fp32.
    pub fn of_training(provider: i32, device_id: u32) -> Where {
        Where { provider, device_id, engine_cache: std::ptr::null(), kernels: Kernels::Stock.code(), precision: 0 }
    }

    /// Returns the execution options that the fields select. Fails with `InvalidArgument` for unknown values.
    ///
    /// # Safety
    /// `engine_cache` is NULL or a C string.
    pub unsafe fn execution(&self) -> Result<Execution> {
        Ok(Execution {
            provider: ProviderChoice::from_code(self.provider, "provider")?,
            kernels: Kernels::from_code(self.kernels, "kernels")?,
            precision: SessionPrecision::from_code(self.precision, "precision")?,
            device_id: self.device_id,
            // SAFETY: the contract of this function.
            engine_cache: unsafe { optional_path(self.engine_cache, "engine_cache") }?,
            ..Execution::default()
        })
    }
}

/// A macro that returns the [`Where`] of an options struct.
macro_rules! where_of {
    ($given:expr) => {
        $crate::ffi::session::Where {
            provider: $given.provider,
            device_id: $given.device_id,
            engine_cache: $given.engine_cache,
            kernels: $given.kernels,
            precision: $given.precision,
        }
    };
}
pub(super) use where_of;

/// Options of `optimize_session_new`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_session_options_t {
    /// sizeof(optimize_session_options_t).
    pub struct_size: u32,
    /// Number of threads for the work of one node; 0 uses that of the context.
    pub threads: u32,
    /// Graph optimization, an optimize_optimization_level_t.
    pub optimization_level: i32,
    /// A value other than 0 disables the reordering of weights for this processor: the session takes less memory and
    /// is created faster, but runs are slower. The field is ignored for models with block-quantized weights
    /// (MatMulNBits, as in most GGUF files), whose runs would take 35 times as long.
    pub disable_prepacking: u32,
    /// A value other than 0 rounds the activations of block-quantized matrix products (MatMulNBits, from GGUF files and
    /// weight-only quantization) to 8 bits, as other engines do by default. This is faster and less exact.
    pub round_activations: u32,
    /// A value other than 0 states that you trust the source of the model. Engines inside a model (EPContext) contain
    /// code that a device runs; with 0, a session of such a model on a device returns OPTIMIZE_UNTRUSTED.
    pub trust_engines: u32,
    /// Execution provider, an optimize_provider_t. If the requested provider is not available, the call returns
    /// OPTIMIZE_BACKEND_MISSING or OPTIMIZE_DEVICE_MISSING with the reason; only OPTIMIZE_PROVIDER_AUTO selects another
    /// provider then.
    pub provider: i32,
    /// Index of the device, from 0; 0 for the CPU.
    pub device_id: u32,
    /// TensorRT: absolute path of a folder that caches engines between sessions; NULL disables the cache.
    pub engine_cache: *const c_char,
    /// Kernels that run the nodes of the model on the CPU, an optimize_kernels_t.
    pub kernels: i32,
    /// Precision of matrix products with constant float32 weights on the CPU, an optimize_session_precision_t. Any
    /// value but OPTIMIZE_SESSION_PRECISION_FP32 needs this library's kernels, and returns OPTIMIZE_BACKEND_MISSING if
    /// they cannot be used.
    pub precision: i32,
}
// SAFETY: repr(C), eight 32-bit integers, a pointer that may be NULL and two 32-bit integers: no padding, all zero is
// valid.
unsafe impl Options for optimize_session_options_t {}

/// Creates a session of a model on ONNX Runtime. The model may be freed before the session.
///
/// Returns OPTIMIZE_RUNTIME_MISSING if ONNX Runtime is not found; OPTIMIZE_INVALID_MODEL, OPTIMIZE_UNSUPPORTED or
/// OPTIMIZE_RUNTIME if ONNX Runtime refuses the model; OPTIMIZE_UNSUPPORTED also if the provider of a device runs none
/// of the nodes; OPTIMIZE_BACKEND_MISSING or OPTIMIZE_DEVICE_MISSING if the provider or the device of the options
/// cannot be used; OPTIMIZE_UNTRUSTED if a model that contains an engine is to run on a device and `trust_engines` is
/// 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_new(
    context: *const optimize_context_t,
    model: *const optimize_model_t,
    options: *const optimize_session_options_t,
    call: *const optimize_call_t,
    session: *mut *mut optimize_session_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(session, "session")?;
            let (context, model) = (handle::get(context)?, handle::get(model)?);
            let options = convert(context, options)?;
            let runtime = context.runtime()?;
            let make = |call: &Call| Session::new(runtime, &model.model, &options, call);
            let session = call::with(call, |call| context.limited(|| make(call)))?;
            out.set(new(session));
            Ok(())
        })
    }
}

/// Returns the options that a C struct describes. Fails with `InvalidArgument` for invalid values.
///
/// # Safety
/// The contract is that of [`options::read`].
pub(super) unsafe fn convert(
    context: &context::Context,
    options: *const optimize_session_options_t,
) -> Result<SessionOptions> {
    // SAFETY: the contract of this function.
    let given = unsafe { options::read(options) }?;
    // SAFETY: the contract of this function.
    let execution = unsafe { where_of!(given).execution() }?;
    Ok(SessionOptions {
        threads: context.threads(given.threads)?,
        optimization_level: OptimizationLevel::from_code(given.optimization_level, "optimization_level")?,
        disable_prepacking: given.disable_prepacking != 0,
        round_activations: given.round_activations != 0,
        execution: Execution { trust_engines: given.trust_engines != 0, ..execution },
        ..SessionOptions::default()
    })
}

pub(super) fn new(session: Session) -> *mut optimize_session_t {
    let (inputs, outputs) = (Signature::new(session.inputs()), Signature::new(session.outputs()));
    let placement = session.placement().clone();
    handle::new(SessionHandle { ready: Ready::Session(Box::new(session)), inputs, outputs, placement })
}

/// Returns a session handle of an engine.
pub(super) fn of_engine(engine: Engine) -> *mut optimize_session_t {
    let (inputs, outputs) = (Signature::new(&engine.inputs()), Signature::new(&engine.outputs()));
    let placement = engine.placement();
    handle::new(SessionHandle { ready: Ready::Engine(Mutex::new(Box::new(engine))), inputs, outputs, placement })
}

/// Returns the execution provider of a session, which is never OPTIMIZE_PROVIDER_AUTO. If `session` is NULL, returns
/// OPTIMIZE_PROVIDER_CPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_provider(session: *const optimize_session_t) -> optimize_provider_t {
    // SAFETY: the contract of `ffi`.
    let provider = unsafe { handle::get(session) }.map_or(Provider::Cpu, |s| s.placement.provider);
    match provider {
        Provider::Cpu => optimize_provider_t::OPTIMIZE_PROVIDER_CPU,
        Provider::Cuda => optimize_provider_t::OPTIMIZE_PROVIDER_CUDA,
        Provider::TensorRt => optimize_provider_t::OPTIMIZE_PROVIDER_TENSORRT,
    }
}

/// Writes the placement of a session as a JSON object. `provider` and `device_id` are always present. Unless ONNX
/// Runtime's CPU kernels run all nodes, `nodes` is the number of nodes of the optimized graph for each provider
/// (`optimize` stands for this library's kernels; nodes that a device does not support run on the CPU), and `groups` is
/// the number of groups of nodes that this library's kernels run. If these kernels were requested but run no nodes,
/// `kernels_unused` is the reason. `passed_over` lists, with reasons, the unavailable providers that
/// OPTIMIZE_PROVIDER_AUTO tried before, or the compiled variant of a package that could not be opened. `weights_copied`
/// is the reason if the weights of a package are copied instead of being read from the mapped file. Returns only
/// statuses that every function can return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_placement(
    session: *const optimize_session_t,
    json: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(json, "json")?;
            let placement = &handle::get(session)?.placement;
            out.set(buffer::new(serde_json::to_string(placement).unwrap_or_default()));
            Ok(())
        })
    }
}

/// Returns the number of inputs that a run requires, or 0 if `session` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_input_count(session: *const optimize_session_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(session) }.map_or(0, |s| s.inputs.len())
}

/// Writes name, type and shape of the input at `index` to `info`. The pointers in `info` are valid until the session is
/// freed. Returns OPTIMIZE_NOT_FOUND if there is no such input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_input(
    session: *const optimize_session_t,
    index: usize,
    info: *mut optimize_value_info_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe { guard(error, || handle::get(session)?.inputs.write(index, info)) }
}

/// Returns the number of outputs, or 0 if `session` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_output_count(session: *const optimize_session_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(session) }.map_or(0, |s| s.outputs.len())
}

/// Writes name, type and shape of the output at `index` to `info`. The pointers in `info` are valid until the session
/// is freed. Returns OPTIMIZE_NOT_FOUND if there is no such output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_output(
    session: *const optimize_session_t,
    index: usize,
    info: *mut optimize_value_info_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe { guard(error, || handle::get(session)?.outputs.write(index, info)) }
}

/// Frees a session. NULL is allowed. It must not be in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_free(session: *mut optimize_session_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(session) });
}
