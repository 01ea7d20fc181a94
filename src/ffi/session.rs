//! Sessions: a model made ready to run.

use super::call::{self, optimize_call_t};
use super::context::{self, optimize_context_t};
use super::error::optimize_error_t;
use super::handle::{self, handle};
use super::model::optimize_model_t;
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::tensor::{Signature, optimize_tensor_t, optimize_value_info_t};
use super::{Out, buffer, guard, slice, text, texts};
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::limits;
use crate::runtime::{
    Execution, OptimizationLevel, Placement, Provider, ProviderChoice, Session, SessionOptions, Tensor,
};
use crate::tensorrt::Engine;
use std::ffi::c_char;
use std::path::PathBuf;
use std::sync::{Mutex, TryLockError};

/// A model, or a TensorRT engine of one, made ready to run. May move between threads, but takes one run at a time: a
/// second one meanwhile answers OPTIMIZE_BUSY. Make one session for each thread; they share the model's weights in memory.
#[allow(non_camel_case_types)]
pub struct optimize_session_t(());

handle!(optimize_session_t(SessionHandle), b"opt-sess", "session");

/// Behind a session handle.
pub struct SessionHandle {
    ready: Mutex<Ready>,
    inputs: Signature,
    outputs: Signature,
    placement: Placement,
}

/// What does the work of a session: C programs need not care.
enum Ready {
    Session(Box<Session>),
    Engine(Box<Engine>),
}

impl Ready {
    fn run(&mut self, inputs: &[(&str, &Tensor)], outputs: &[&str], call: &Call) -> Result<Vec<(String, Tensor)>> {
        match self {
            Ready::Session(session) => session.run(inputs, outputs, call),
            Ready::Engine(engine) => engine.run(inputs, outputs, call),
        }
    }
}

/// How much ONNX Runtime rewrites the graph before it runs it. Never changes what the model means.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_optimization_level_t {
    /// All of it.
    OPTIMIZE_OPTIMIZATION_DEFAULT = 0,
    /// The graph as it is.
    OPTIMIZE_OPTIMIZATION_DISABLED = 1,
    /// Constants folded, idle nodes dropped.
    OPTIMIZE_OPTIMIZATION_BASIC = 2,
    /// Nodes fused as well.
    OPTIMIZE_OPTIMIZATION_EXTENDED = 3,
}

/// What a session runs on.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_provider_t {
    /// The processor.
    OPTIMIZE_PROVIDER_CPU = 0,
    /// An NVIDIA device, with the kernels of ONNX Runtime.
    OPTIMIZE_PROVIDER_CUDA = 1,
    /// An NVIDIA device, with engines that TensorRT builds of parts of the graph; what it does not take runs on CUDA.
    OPTIMIZE_PROVIDER_TENSORRT = 2,
    /// To ask with: TensorRT, else CUDA, else the processor. The session says which it is.
    OPTIMIZE_PROVIDER_AUTO = 3,
}

/// # Safety
/// `engine_cache` is NULL or a C string.
pub(super) unsafe fn execution(provider: i32, device_id: u32, engine_cache: *const c_char) -> Result<Execution> {
    let provider = match provider {
        0 => ProviderChoice::Cpu,
        1 => ProviderChoice::Cuda,
        2 => ProviderChoice::TensorRt,
        3 => ProviderChoice::Auto,
        other => bail!(InvalidArgument, "provider is {other}, which is no optimize_provider_t"),
    };
    let engine_cache = match engine_cache.is_null() {
        true => None,
        // SAFETY: same contract.
        false => Some(PathBuf::from(unsafe { text(engine_cache, "engine_cache") }?)),
    };
    Ok(Execution { provider, device_id, engine_cache, ..Execution::default() })
}

/// Options of `optimize_session_new`. All zero means the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_session_options_t {
    /// sizeof(optimize_session_options_t).
    pub struct_size: u32,
    /// Threads for the work of one node; 0 is as the context says.
    pub threads: u32,
    /// An optimize_optimization_level_t.
    pub optimization_level: i32,
    /// Not 0: leave weights where they are instead of rearranging them for this processor. Less memory and a
    /// faster start, slower runs. Does nothing for models with weights in blocks of a few bits (MatMulNBits; most
    /// GGUF files), which would take 35 times as long.
    pub disable_prepacking: u32,
    /// Not 0: products of weights in blocks (MatMulNBits: GGUF files, weight-only quantization) may round what they
    /// are multiplied with to 8 bits, as other engines do unasked: faster, not as exact.
    pub round_activations: u32,
    /// Not 0: the model's maker is trusted. Engines that are ready in a model (EPContext) are code that a device runs, and
    /// are OPTIMIZE_UNTRUSTED without.
    pub trust_engines: u32,
    /// An optimize_provider_t: what it runs on. A provider that is asked for and cannot be had is
    /// OPTIMIZE_BACKEND_MISSING or OPTIMIZE_DEVICE_MISSING, with ONNX Runtime's own reason; never another one in its place.
    pub provider: i32,
    /// Number of the device, from 0; for the processor 0.
    pub device_id: u32,
    /// TensorRT: absolute path of a folder in which engines are kept from session to session; NULL keeps none.
    pub engine_cache: *const c_char,
}
// SAFETY: repr(C), eight 32-bit integers and a pointer that may be NULL.
unsafe impl Options for optimize_session_options_t {}

/// Makes a model ready to run on ONNX Runtime. The model may be freed before the session.
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
            let session = call::with(call, |call| Session::new(runtime, &model.model, &options, call))?;
            out.set(new(session));
            Ok(())
        })
    }
}

/// # Safety
/// As [`options::read`].
pub(super) unsafe fn convert(
    context: &context::Context,
    options: *const optimize_session_options_t,
) -> Result<SessionOptions> {
    // SAFETY: same contract.
    let given = unsafe { options::read(options) }?;
    // SAFETY: same contract.
    let execution = unsafe { execution(given.provider, given.device_id, given.engine_cache) }?;
    Ok(SessionOptions {
        threads: context.threads(given.threads)?,
        optimization_level: level(given.optimization_level)?,
        disable_prepacking: given.disable_prepacking != 0,
        round_activations: given.round_activations != 0,
        execution: Execution { trust_engines: given.trust_engines != 0, ..execution },
        ..SessionOptions::default()
    })
}

pub(super) fn new(session: Session) -> *mut optimize_session_t {
    let (inputs, outputs) = (Signature::new(session.inputs()), Signature::new(session.outputs()));
    let placement = session.placement().clone();
    handle::new(SessionHandle { ready: Mutex::new(Ready::Session(Box::new(session))), inputs, outputs, placement })
}

/// A session that is an engine.
pub(super) fn of_engine(engine: Engine) -> *mut optimize_session_t {
    let (inputs, outputs) = (Signature::new(&engine.inputs()), Signature::new(&engine.outputs()));
    let placement = engine.placement();
    handle::new(SessionHandle { ready: Mutex::new(Ready::Engine(Box::new(engine))), inputs, outputs, placement })
}

fn level(number: i32) -> Result<OptimizationLevel> {
    Ok(match number {
        0 => OptimizationLevel::All,
        1 => OptimizationLevel::Disabled,
        2 => OptimizationLevel::Basic,
        3 => OptimizationLevel::Extended,
        other => bail!(InvalidArgument, "optimization_level is {other}, which is no optimize_optimization_level_t"),
    })
}

/// Runs a session. `input_names` and `inputs` have `input_count` entries; every input without a default must
/// be there. `outputs` has `output_count` places: for the outputs named in `output_names`, in that order, or,
/// if `output_names` is NULL, for all outputs in the model's order. Each is freed by the caller. Names, types and
/// shapes are checked before the run: OPTIMIZE_NOT_FOUND names an input or output that the model does not have,
/// OPTIMIZE_INVALID_ARGUMENT an input that is missing or does not fit, with dimension and sizes. An engine is not
/// ended halfway: a cancel is answered when its run is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_run(
    session: *mut optimize_session_t,
    input_names: *const *const c_char,
    inputs: *const *const optimize_tensor_t,
    input_count: usize,
    output_names: *const *const c_char,
    output_count: usize,
    call: *const optimize_call_t,
    outputs: *mut *mut optimize_tensor_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            if output_count > limits::RUN_VALUES {
                bail!(InvalidArgument, "output_count is {output_count}, at most {} are possible", limits::RUN_VALUES);
            }
            if outputs.is_null() {
                bail!(InvalidArgument, "outputs is NULL, there is no place for the results");
            }
            let mut places = Vec::with_capacity(output_count);
            for index in 0..output_count {
                places.push(Out::new(outputs.add(index), "outputs")?);
            }
            if input_count > limits::RUN_VALUES {
                bail!(InvalidArgument, "input_count is {input_count}, at most {} are possible", limits::RUN_VALUES);
            }
            let handle = handle::get(session.cast_const())?;
            let names = texts(input_names, input_count, "input_names")?;
            let tensors = slice(inputs, input_count, "inputs")?;
            let one = |(name, tensor): (_, &*const optimize_tensor_t)| {
                Ok((name, handle::get(*tensor).at(|| format!("input {name:?}"))?))
            };
            let inputs = names.into_iter().zip(tensors).map(one).collect::<Result<Vec<_>>>()?;
            let names = wanted(handle, output_names, output_count)?;
            let mut ready = match handle.ready.try_lock() {
                Ok(ready) => ready,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => bail!(Busy, "another thread is running this session"),
            };
            let results = call::with(call, |call| ready.run(&inputs, &names, call))?;
            for (place, (_, tensor)) in places.into_iter().zip(results) {
                place.set(handle::new(tensor));
            }
            Ok(())
        })
    }
}

unsafe fn wanted<'a>(handle: &SessionHandle, names: *const *const c_char, count: usize) -> Result<Vec<&'a str>> {
    if !names.is_null() {
        if count == 0 {
            bail!(InvalidArgument, "output_count is 0: no output is asked for");
        }
        // SAFETY: the contract of `ffi`.
        return unsafe { texts(names, count, "output_names") };
    }
    if count != handle.outputs.len() {
        bail!(InvalidArgument, "output_count is {count}, but the model has {} outputs", handle.outputs.len());
    }
    Ok(Vec::new())
}

/// What a session runs on: never OPTIMIZE_PROVIDER_AUTO. The processor if `session` is NULL.
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

/// Where a session runs, as JSON: `provider`, `device_id`; unless the processor was asked for also `nodes`, how many nodes of
/// the optimized graph each provider has (what a device cannot do stays with the processor); and after
/// OPTIMIZE_PROVIDER_AUTO `passed_over`, what comes first and why it was not taken. `weights_copied`, for a variant of a
/// package that was optimized ahead, says why its weights are not read where they are mapped, if they are not.
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

/// Number of inputs a run must feed; 0 if `session` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_input_count(session: *const optimize_session_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(session) }.map_or(0, |s| s.inputs.len())
}

/// Name, type and shape of the input at `index`. What `info` points to lives as long as the session.
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

/// Number of outputs; 0 if `session` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_output_count(session: *const optimize_session_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(session) }.map_or(0, |s| s.outputs.len())
}

/// Name, type and shape of the output at `index`. What `info` points to lives as long as the session.
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

/// Frees a session. NULL is fine. Not while a run is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_session_free(session: *mut optimize_session_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(session) });
}
