//! The session in which a model runs ([`Session`]).

use super::kernels;
use super::kv_cache::{self, KvCacheType};
use super::library::guarded;
use super::mapped::{self, Lent};
use super::placement::Placement;
use super::providers::Provider;
use super::register::{self, Facts};
use super::tensor::check_contract;
use super::watch::watched;
use super::{OptimizationLevel, Runtime, SessionOptions, Stop, Tensor, inputs, weights};
use crate::call::Call;
use crate::counters::{self, PROCESS};
use crate::error::{Context, Result, bail};
use crate::memory::{self, Budget, Charge};
use crate::model::contract::Contract;
use crate::model::names::meaningful;
use crate::model::{Dim, Model, ValueInfo};
use bytes::Bytes;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::value::{DynValue, Outlet, ValueType};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A model loaded for running. Any number of threads may call [`Session::run`] at the same time; their runs share the
/// session's threads and weights.
pub struct Session {
    // The session is dropped before the weights, which it reads until then: fields are dropped in this order.
    pub(super) inner: ort::session::Session,
    /// Weights that `inner` reads in place, and the charge for those that it has copied.
    _weights: (Vec<Bytes>, Charge),
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    /// Inputs of the model. A symbolic dimension keeps its name only if equal names mean equal sizes.
    signature: Vec<ValueInfo>,
    /// Types and shapes of inputs that the model's package accepts; `None` for other models.
    contract: Option<Arc<Contract>>,
    placement: Placement,
    /// Budget to which the allocations of runs are charged; `None` if there is no limit.
    pub(super) memory: Option<Arc<Budget>>,
    id: usize,
}

/// The id of the next session.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Session {
    /// Loads `model` for running and returns the session.
    ///
    /// The session has its own copy of the weights, in which those of matrix products are rearranged for the processor.
    /// A graph of a package that was optimized ahead of time or compiled is an exception: its weights are read where
    /// they are mapped, if ONNX Runtime accepts that. During loading, the model's pages are in memory as well, and are
    /// then released. The model's files stay mapped while the session lives. The memory that the session allocates, now
    /// and in its runs, is charged to the memory limit of this thread.
    ///
    /// `call` can cancel and limit the time: ONNX Runtime then ends at its next stage, for models of gigabytes one or
    /// two seconds later. Fails with [`crate::error::Kind::InvalidModel`] or `Unsupported` if ONNX Runtime rejects the
    /// model or has no kernel for a node, and with `InvalidArgument` for invalid options. Fails with `BackendMissing`
    /// or `DeviceMissing` if a requested provider is not available, and with `Untrusted` for a model that contains an
    /// engine, on a GPU, unless `trust_engines` is set. Fails with `LimitExceeded` beyond the memory limit, with
    /// `Cancelled` or `Timeout`, with `Io` if a file cannot be written, and with `Runtime` if ONNX Runtime fails
    /// otherwise.
    pub fn new(runtime: &'static Runtime, model: &Model, options: &SessionOptions, call: &Call) -> Result<Session> {
        let place = || model.path().map_or_else(|| "session".to_owned(), |path| path.display().to_string());
        let start = Instant::now();
        let make = || match options.execution.kv_cache_type {
            KvCacheType::Float32 => Session::make(runtime, model, options, call),
            kind => {
                let narrowed = kv_cache::narrowed(runtime, model, options)?;
                Session::make(runtime, &narrowed, options, call).at(|| format!("kv_cache_type {}", kind.name()))
            }
        };
        let session = guarded("making a session", make).at(place)?;
        PROCESS.sessions_created.add(1);
        PROCESS.session_seconds.add(start);
        session.placement.log(&place(), start);
        Ok(session)
    }

    /// Returns a session on the first candidate of the requested provider with which one can be created.
    pub(super) fn make(
        runtime: &'static Runtime,
        model: &Model,
        options: &SessionOptions,
        call: &Call,
    ) -> Result<Session> {
        let mut passed_over = Vec::new();
        let candidates = options.execution.provider.candidates();
        for (index, &provider) in candidates.iter().enumerate() {
            match Session::make_on(runtime, model, options, provider, call) {
                Ok(mut session) => {
                    session.placement.passed_over.splice(..0, passed_over);
                    return Ok(session);
                }
                Err(e) if index + 1 == candidates.len() || e.kind().ends_a_call() => return Err(e),
                Err(e) => passed_over.push(format!("{}: {e}", provider.name())),
            }
        }
        bail!(Internal, "there is no provider to try")
    }

    fn make_on(
        runtime: &'static Runtime,
        model: &Model,
        options: &SessionOptions,
        provider: Provider,
        call: &Call,
    ) -> Result<Session> {
        let itself = || Session::make_of(runtime, model, false, options, provider, call);
        // A graph optimized ahead of time is for the CPU only.
        if options.refers_to_original_graph() || provider != Provider::Cpu {
            return itself();
        }
        let ready = |kernels: &_| model.ready(runtime.version(), kernels);
        Session::make_prepared(runtime, &ready, &itself, options, call)
    }

    pub(super) fn make_of(
        runtime: &'static Runtime,
        model: &Model,
        ahead: bool,
        options: &SessionOptions,
        provider: Provider,
        call: &Call,
    ) -> Result<Session> {
        call.check()?;
        options.execution.check()?;
        let mut options = options.for_model(model);
        if ahead {
            options.optimization_level = OptimizationLevel::Disabled;
        }
        let original = options.refers_to_original_graph();
        if !options.execution.precision.is_fp32() && original && !ahead && provider == Provider::Cpu {
            let name = options.execution.precision.name();
            bail!(Unsupported, "precision {name} needs all optimizations, and no file for the optimized graph");
        }
        if !kernels::wanted(&options, provider, ahead) {
            return Session::make_shared(runtime, model, ahead, &options, On(provider, false), call);
        }
        match Session::make_shared(runtime, model, ahead, &options, On(provider, true), call) {
            Err(e) if e.kind().ends_a_call() || options.execution.needs_kernels() => Err(e),
            Err(e) => {
                let mut session = Session::make_shared(runtime, model, ahead, &options, On(provider, false), call)?;
                session.placement.kernels_unused = Some(e.to_string());
                Ok(session)
            }
            made => made,
        }
    }

    /// Returns a session of a graph. If the graph was optimized `ahead` of time, its weights are read in place; if ONNX
    /// Runtime refuses that, they are copied.
    pub(super) fn make_shared(
        runtime: &'static Runtime,
        model: &Model,
        ahead: bool,
        options: &SessionOptions,
        on: On,
        call: &Call,
    ) -> Result<Session> {
        let in_place = |shared| Session::make_with(runtime, model, shared, options, on, call);
        if !ahead {
            return in_place(false);
        }
        match in_place(true) {
            Err(e) if e.kind().ends_a_call() => Err(e),
            // Versions of ONNX Runtime differ in how they handle weights outside the model.
            Err(e) => in_place(false).map(|mut session| {
                session.placement.weights_copied = Some(e.to_string());
                session
            }),
            made => made,
        }
    }

    fn make_with(
        runtime: &'static Runtime,
        model: &Model,
        in_place: bool,
        options: &SessionOptions,
        On(provider, our_kernels): On,
        call: &Call,
    ) -> Result<Session> {
        let execution = &options.execution;
        if provider != Provider::Cpu {
            register::refuse_engines(model, execution)?;
        }
        let builder = options.builder(runtime, provider)?;
        let builder = match provider {
            Provider::Cpu if our_kernels => kernels::add(builder, runtime, options)?,
            Provider::Cpu => kernels::leave_out(builder, runtime)?,
            _ => builder,
        };
        // An unavailable provider is reported before the model is split.
        let builder = match provider {
            Provider::TensorRt => builder,
            _ => register::register(builder, runtime, provider, execution, &Facts::default())?,
        };
        let parts = weights::parts(model, options.round_activations, in_place)?;
        let builder = match provider {
            Provider::TensorRt => {
                let weights = parts.lent.iter().map(|(_, lent)| &lent.bytes[..]);
                let facts = Facts::new(runtime, model, execution, &parts.stub, weights)?;
                register::register(builder, runtime, provider, execution, &facts)?
            }
            _ => builder,
        };
        let (mut builder, kept) = weights::give(builder, parts.lent, in_place)?;
        let canceler = builder.canceler();
        let stop = || drop(canceler.cancel());
        let stub = parts.stub.len() as u64;
        let lent = if in_place { 0 } else { kept.iter().map(|bytes| bytes.len() as u64).sum() };
        let _encoded = memory::charge(stub)?;
        let commit = || watched(call, stop, || Ok(builder.commit_from_memory(&parts.stub)?));
        let inner = memory::reserved(stub + lent, commit);
        if !in_place {
            weights::release(model);
        }
        let (inner, charge) = inner?;
        let inputs: Vec<ValueInfo> = inner.inputs().iter().map(info).collect();
        let signature = meaningful(&inputs);
        let outputs = inner.outputs().iter().map(info).collect();
        let contract = model.card().contract.clone();
        let placement = Placement::of(&inner, provider, execution, our_kernels)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let memory = memory::current();
        let _weights = (kept, charge);
        Ok(Session { inner, _weights, inputs, outputs, signature, contract, placement, memory, id })
    }

    /// Returns the provider on which the session runs.
    pub fn provider(&self) -> Provider {
        self.placement.provider
    }

    /// Returns the placement of the session: the provider of its nodes, and the reasons why others were not selected.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Adds to the placement the reason why a variant of the model could not be used; `None` adds nothing.
    pub(crate) fn pass_over(&mut self, reason: Option<String>) {
        self.placement.passed_over.extend(reason);
    }

    /// Returns the description of the memory of the session's GPU, for allocations; `None` for the CPU.
    pub(super) fn device_memory(&self) -> Result<Option<MemoryInfo<'static>>> {
        let device_id = i32::try_from(self.placement.device_id).unwrap_or(i32::MAX);
        match self.placement.provider {
            Provider::Cpu => Ok(None),
            Provider::Cuda | Provider::TensorRt => Ok(Some(MemoryInfo::new(
                AllocationDevice::CUDA,
                device_id,
                AllocatorType::Device,
                MemoryType::Default,
            )?)),
        }
    }

    /// Returns the required inputs, which have no default in the model, in the order of the model.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// Returns the outputs in the order of the model.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// Runs the model and returns the outputs with the names `outputs` in this order, or all outputs if `outputs` is
    /// empty.
    ///
    /// On the CPU, inputs are read in place and outputs are returned without a copy, except strings. `call` can cancel
    /// and limit the time: the run then ends at the next node, and the session stays usable.
    ///
    /// Fails with [`crate::error::Kind::NotFound`] for an input or output name that the model does not have. Fails with
    /// `InvalidArgument` if an output is requested twice, or if an input is missing, is given twice or does not match
    /// the model or the contract of its package. An input matches if type, rank and fixed dimensions are equal, and
    /// symbolic dimensions of one name have one size. Fails with `Unsupported` for an input or output that is not a
    /// tensor, with `LimitExceeded` beyond the memory limit or [`crate::limits::RUN_VALUES`] inputs, with `Cancelled`
    /// or `Timeout`, and with `Runtime` otherwise.
    pub fn run(&self, inputs: &[(&str, &Tensor)], outputs: &[&str], call: &Call) -> Result<Vec<(String, Tensor)>> {
        let stop = Stop::new()?;
        stop.during(call, || self.run_until(inputs, outputs, &stop))
    }

    /// Runs the model and returns outputs like [`Session::run`]. `stop` ends the run, so that many runs can have one
    /// deadline; the error is then `Runtime`, which [`Stop::during`] replaces by `Cancelled` or `Timeout`.
    pub fn run_until(
        &self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
        stop: &Stop,
    ) -> Result<Vec<(String, Tensor)>> {
        self.check_inputs(inputs)?;
        let wanted = self.wanted(outputs)?;
        let lent: Result<Vec<Lent>> = inputs.iter().map(|(name, tensor)| lend(tensor).at(|| place_of(name))).collect();
        let lent = lent?;
        let fed: Vec<_> = inputs.iter().zip(&lent).map(|((name, _), lent)| (*name, &lent.value)).collect();
        let run = || guarded("running a model", || mapped::run(&self.inner, &fed, &wanted, &stop.options));
        let values = counters::run(|| self.limited(run))?;
        let take = |(name, value)| {
            let tensor = take(value, lent.iter()).at(|| format!("output {name:?}"))?;
            Ok((name, tensor))
        };
        wanted.into_iter().zip(values).map(take).collect()
    }

    /// Returns the inputs, in which a symbolic dimension has a name only if equal names mean equal sizes.
    pub(super) fn signature(&self) -> &[ValueInfo] {
        &self.signature
    }

    /// Fails if the contract of the model's package does not allow the types or sizes of the inputs.
    pub(super) fn keep(&self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        self.contract.as_ref().map_or(Ok(()), |contract| check_contract(contract, inputs))
    }

    /// Runs `work`, whose allocations are charged to the memory limit of the session, and returns its result.
    pub(super) fn limited<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        memory::within(self.memory.as_ref(), work)
    }

    /// Returns an id that is unique among sessions.
    pub(super) fn id(&self) -> usize {
        self.id
    }

    pub(super) fn wanted(&self, asked: &[&str]) -> Result<Vec<String>> {
        for (index, name) in asked.iter().enumerate() {
            if !self.outputs.iter().any(|info| info.name == *name) {
                bail!(NotFound, "there is no output {name:?}; the outputs are {}", inputs::names(&self.outputs));
            }
            if asked[..index].contains(name) {
                bail!(InvalidArgument, "output {name:?} is requested twice");
            }
        }
        let chosen = |info: &&ValueInfo| asked.is_empty() || asked.contains(&info.name.as_str());
        if let Some(other) = self.outputs.iter().filter(chosen).find(|info| info.dtype.is_none()) {
            bail!(Unsupported, "output {:?} is not a tensor but a sequence, map or optional value", other.name);
        }
        Ok(match asked {
            [] => self.outputs.iter().map(|info| info.name.clone()).collect(),
            asked => asked.iter().map(|name| (*name).to_owned()).collect(),
        })
    }
}

/// The provider of a new session, and whether the session uses this library's kernels.
#[derive(Clone, Copy)]
pub(super) struct On(pub Provider, pub bool);

pub(super) fn place_of(input: &str) -> String {
    format!("input {input:?}")
}

/// Returns the name, type and shape of an input or output of a session.
fn info(outlet: &Outlet) -> ValueInfo {
    let name = outlet.name().to_owned();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return ValueInfo { name, dtype: None, shape: None };
    };
    let dim = |(size, symbol): (&i64, &String)| match *size {
        size if size >= 0 => Dim::Fixed(size),
        _ => Dim::Symbolic(symbol.clone()),
    };
    let shape = shape.iter().zip(dimension_symbols.iter()).map(dim).collect();
    ValueInfo { name, dtype: mapped::data_type(*ty), shape: Some(shape) }
}

pub(super) fn lend(tensor: &Tensor) -> Result<Lent> {
    match tensor.strings() {
        None => mapped::lend(tensor.dtype(), tensor.shape(), tensor.shared_bytes()),
        Some(strings) => {
            let value = ort::value::Tensor::from_string_array((tensor.shape(), strings))?;
            Ok(Lent { value: value.into_dyn(), bytes: Bytes::new() })
        }
    }
}

/// Returns an output as a tensor of this library. `inputs` are the inputs of the run that created the output. Fails
/// with `Unsupported` if the value is not a dense tensor or its type is unknown.
pub(super) fn take<'a>(value: DynValue, mut inputs: impl Iterator<Item = &'a Lent>) -> Result<Tensor> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype().clone() else {
        bail!(Unsupported, "the value is not a tensor but a sequence, map or optional value");
    };
    let Some(dtype) = mapped::data_type(ty) else { bail!(Unsupported, "the element type of the value is unknown") };
    if dtype == crate::onnx::dtype::DataType::String {
        // ONNX Runtime reports an error for the content of zero strings.
        let empty = shape.num_elements() == 0;
        let strings = if empty { Vec::new() } else { value.try_extract_strings()?.1 };
        return Tensor::from_strings(&shape, strings);
    }
    let bytes = mapped::output_bytes(value)?;
    // An output that passes an input through uses that input's memory, which ONNX Runtime does not own.
    let lender = inputs.find(|lent| lent.bytes.as_ptr_range().contains(&bytes.as_ptr()) && !bytes.is_empty());
    let bytes = match lender {
        Some(lent) => lent.bytes.slice_ref(&lent.bytes[offset(&lent.bytes, &bytes)..][..bytes.len()]),
        None => bytes,
    };
    Tensor::new(dtype, &shape, bytes)
}

fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

#[cfg(test)]
mod tests;
