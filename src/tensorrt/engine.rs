//! A TensorRT engine that is loaded on a device ([`Engine`]).

use super::backend::{Choice, Library};
use super::manifest::{self, Manifest, OpenOptions};
use super::memory::{Device, Room};
use super::shim::{RawResult, RawTensor, Running, stage};
use crate::benchmark::{RunFn, Timed};
use crate::call::Call;
use crate::error::{Context, Result, bail, error};
use crate::files;
use crate::files::digest::FileIdentity;
use crate::limits;
use crate::model::contract::Contract;
use crate::model::{Dim, Model, ValueInfo};
use crate::onnx::dtype::{DataType, element_count};
use crate::onnx::proto::*;
use crate::runtime::tensor::check_contract;
use crate::runtime::{Placement, Provider, Tensor};
use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An engine loaded on a GPU. It may move between threads, and runs one call at a time.
pub struct Engine {
    runner: Runner,
    manifest: Manifest,
    slots: Vec<Slot>,
    profile: Option<i32>,
    /// Input shapes that the package of the engine accepts; `None` for all shapes of the engine's profiles.
    contract: Option<Arc<Contract>>,
    // This field is dropped after those above it, because the runner and the device memory of the slots belong to the
    // CUDA context of the device.
    device: Device,
    _bytes: bytes::Bytes,
}

/// The file of an engine that was opened once as a check: its path, GPU, inputs and outputs. The engine is not loaded.
pub struct EngineFile {
    path: PathBuf,
    options: OpenOptions,
    device_id: u32,
    signature: Model,
    bytes: u64,
    sha256: String,
}

impl EngineFile {
    /// Opens the engine once as a check, closes it, and returns the file. Fails like [`Engine::open`].
    pub fn new(path: &Path, options: &OpenOptions, device_id: u32) -> Result<EngineFile> {
        let engine = Engine::open(path, options, device_id)?;
        let signature = engine.signature();
        let (bytes, sha256) = (engine.manifest.engine_bytes, engine.manifest.engine_sha256.clone());
        Ok(EngineFile { path: path.to_owned(), options: options.clone(), device_id, signature, bytes, sha256 })
    }

    /// Returns whether a path is that of an engine: it ends in `.engine`, `.plan` or `.trt` and is not a folder.
    pub fn is_one(path: &Path) -> bool {
        path.extension().is_some_and(|e| e == "engine" || e == "plan" || e == "trt") && !path.is_dir()
    }

    /// Loads the engine on the GPU and returns it. Fails like [`Engine::open`].
    pub fn open(&self) -> Result<Engine> {
        Engine::open(&self.path, &self.options, self.device_id)
    }

    /// Returns the identity of the file for reports.
    pub fn identity(&self) -> FileIdentity {
        FileIdentity { path: Some(self.path.display().to_string()), sha256: self.sha256.clone(), bytes: self.bytes }
    }
}

impl Timed for EngineFile {
    fn signature(&self) -> &Model {
        &self.signature
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn placement(&self) -> Placement {
        placed(self.device_id)
    }

    fn run_fn(&self) -> Result<RunFn> {
        let mut engine = self.open()?;
        Ok(Box::new(move |inputs, outputs, call| engine.run(inputs, outputs, call)))
    }
}

fn placed(device_id: u32) -> Placement {
    Placement::on(Provider::TensorRt, device_id)
}

/// The engine object that TensorRT created from the file.
struct Runner {
    raw: *mut c_void,
    calls: Running,
}
// SAFETY: the objects of the library are not bound to a thread; `&mut` ensures one run at a time.
unsafe impl Send for Runner {}

impl Drop for Runner {
    fn drop(&mut self) {
        // SAFETY: the engine was opened once and is closed only here.
        unsafe { (self.calls.close)(self.raw) }
    }
}

/// An output during a run, as its index, its shape and its memory.
type Made = (usize, Vec<i64>, Vec<u8>);

/// An input or output of the engine.
struct Slot {
    info: ValueInfo,
    dtype: DataType,
    /// Name of the value, in the memory of TensorRT; valid while the runner lives.
    name: *const c_char,
    is_input: bool,
    on_host: bool,
    room: Room,
}
// SAFETY: the name belongs to the runner that moves with it.
unsafe impl Send for Slot {}

impl Engine {
    /// Loads the engine at `path` on the GPU with the index `device_id`, and returns it.
    ///
    /// Fails like [`manifest::open`], with [`crate::error::Kind::DeviceMissing`] if there is no such GPU, with
    /// `Backend` if TensorRT cannot use the engine there, and with `LimitExceeded` if the GPU is out of memory. Fails
    /// with `Unsupported` if an input or output has a type that this library lacks, and with `InvalidArgument` for a
    /// file that ONNX Runtime's provider built, which runs in a [`Session`](crate::runtime::Session) instead.
    pub fn open(path: &Path, options: &OpenOptions, device_id: u32) -> Result<Engine> {
        let manifest = manifest::open(path, options)?;
        let device = Device::open(device_id).at(|| path.display())?;
        let choice = Choice::from(manifest.key.backend);
        let library = Library::open(choice, options.library.as_deref())?;
        let bytes = files::map(&files::open(path)?, limits::DATA_FILE_BYTES).at(|| path.display())?;
        if !manifest.is_of(&bytes) {
            bail!(InvalidModel, "{}: the engine does not match its manifest (SHA-256 differs)", path.display());
        }
        let calls = library.compiled.running;
        let mut result = RawResult::empty();
        // SAFETY: the bytes live as long as the runner; the function is the library's own, and a driver exists.
        let raw =
            unsafe { (calls.open)(library.create_runtime, bytes.as_ptr().cast(), bytes.len() as u64, &mut *result) };
        if raw.is_null() {
            bail!(Backend, "{}: {} cannot run the engine: {}", path.display(), library.name(), result.message());
        }
        let runner = Runner { raw, calls };
        let slots = slots(&runner)?;
        Ok(Engine { runner, manifest, slots, profile: None, contract: None, device, _bytes: bytes })
    }

    /// Returns the engine limited to the input sizes of `contract`, which every run then checks.
    pub fn with_contract(self, contract: Arc<Contract>) -> Engine {
        let mut engine = self;
        engine.contract = Some(contract);
        engine
    }

    /// Returns the device on which the engine runs.
    pub fn placement(&self) -> Placement {
        placed(self.device.number())
    }

    /// Returns the manifest of the engine.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the inputs of the engine.
    pub fn inputs(&self) -> Vec<ValueInfo> {
        self.slots.iter().filter(|slot| slot.is_input).map(|slot| slot.info.clone()).collect()
    }

    /// Returns the outputs of the engine.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.slots.iter().filter(|slot| !slot.is_input).map(|slot| slot.info.clone()).collect()
    }

    /// Returns a model with the engine's inputs and outputs and no nodes, for code that makes inputs.
    pub fn signature(&self) -> Model {
        let values =
            |inputs: bool| self.slots.iter().filter(move |slot| slot.is_input == inputs).map(declared).collect();
        let graph = GraphProto {
            name: Some("engine".into()),
            input: values(true),
            output: values(false),
            ..Default::default()
        };
        let imports = vec![OperatorSetIdProto { version: Some(17), ..Default::default() }];
        Model::from_proto(ModelProto {
            ir_version: Some(8),
            graph: Some(Box::new(graph)),
            opset_import: imports,
            ..Default::default()
        })
    }

    /// Runs the engine: copies inputs to the GPU, computes, and returns the names and copies of the outputs that
    /// `outputs` names, in that order; of all outputs if `outputs` is empty. `call` is checked only before and after
    /// the run, because a run on a GPU is not interrupted.
    ///
    /// Fails with [`crate::error::Kind::NotFound`] for names that the engine does not have. Fails with
    /// `InvalidArgument` for an input that is missing, has another type, or has a size outside all profiles or the
    /// contract, and for a name that is given twice. Fails with `Unsupported` if the size of an output is known only
    /// after the run, with `LimitExceeded` if the memory of the GPU is exhausted, and with `Backend` for errors of
    /// TensorRT or the driver. Also fails like [`Call::check`].
    pub fn run(&mut self, inputs: &[(&str, &Tensor)], outputs: &[&str], call: &Call) -> Result<Vec<(String, Tensor)>> {
        call.check()?;
        self.check(inputs, outputs)?;
        self.device.enter()?;
        let profile = self.profile_for(inputs)?;
        if self.profile != Some(profile) {
            let mut result = RawResult::empty();
            // SAFETY: runner and stream are alive.
            let status =
                unsafe { (self.runner.calls.profile)(self.runner.raw, profile, self.device.stream(), &mut *result) };
            answer(status, &result)?;
            self.profile = Some(profile);
        }
        // SAFETY: inputs and outputs live until the device has finished, also after an error.
        let made = unsafe { self.start(inputs) };
        let waited = self.device.wait();
        let made = made?;
        waited?;
        call.check()?;
        let all = made.into_iter().map(|(index, shape, bytes)| {
            let slot = &self.slots[index];
            Ok((slot.info.name.clone(), Tensor::new(slot.dtype, &shape, bytes.into())?))
        });
        let mut all = all.collect::<Result<Vec<_>>>()?;
        if !outputs.is_empty() {
            all.retain(|(name, _)| outputs.contains(&name.as_str()));
            all.sort_by_key(|(name, _)| outputs.iter().position(|wanted| wanted == name));
        }
        Ok(all)
    }

    fn check(&self, inputs: &[(&str, &Tensor)], outputs: &[&str]) -> Result<()> {
        let is = |name: &str, input: bool| self.slots.iter().any(|s| s.is_input == input && s.info.name == name);
        if let Some((name, _)) = inputs.iter().find(|(name, _)| !is(name, true)) {
            bail!(NotFound, "the engine has no input {name:?}");
        }
        for (index, name) in outputs.iter().enumerate() {
            if !is(name, false) {
                bail!(NotFound, "the engine has no output {name:?}");
            }
            if outputs[..index].contains(name) {
                bail!(InvalidArgument, "output {name:?} is requested twice");
            }
        }
        for (index, (name, _)) in inputs.iter().enumerate() {
            if inputs[..index].iter().any(|(other, _)| other == name) {
                bail!(InvalidArgument, "input {name:?} is given twice");
            }
        }
        for slot in self.slots.iter().filter(|slot| slot.is_input) {
            let name = &slot.info.name;
            let Some((_, tensor)) = inputs.iter().find(|(given, _)| given == name) else {
                bail!(InvalidArgument, "input {name:?} is missing");
            };
            if tensor.dtype() != slot.dtype {
                let (wanted, given) = (slot.dtype.name(), tensor.dtype().name());
                bail!(InvalidArgument, "input {name:?} is {given}; the engine expects {wanted}");
            }
        }
        self.contract.as_ref().map_or(Ok(()), |contract| check_contract(contract, inputs))
    }

    /// Returns the index of the first profile that allows the shapes of these inputs. Fails with `InvalidArgument` if
    /// there is none.
    fn profile_for(&self, inputs: &[(&str, &Tensor)]) -> Result<i32> {
        let mut known = String::new();
        for profile in 0.. {
            let mut fits = true;
            for slot in self.slots.iter().filter(|slot| slot.is_input) {
                let Some((_, tensor)) = inputs.iter().find(|(name, _)| *name == slot.info.name) else { continue };
                let (Some(least), Some(most)) = (self.range(slot, profile, 0), self.range(slot, profile, 2)) else {
                    bail!(
                        InvalidArgument,
                        "no profile of the engine fits these inputs: {}; it was built for{known}",
                        inputs.iter().map(|(n, t)| format!("{n} {:?}", t.shape())).collect::<Vec<_>>().join(", ")
                    );
                };
                let shape = tensor.shape();
                let inside = shape.len() == least.len()
                    && shape
                        .iter()
                        .zip(least.iter().zip(&most))
                        .all(|(size, (low, high))| (low..=high).contains(&size));
                fits &= inside;
                known += &format!(" {} {least:?} to {most:?}", slot.info.name);
            }
            if fits {
                return Ok(profile);
            }
        }
        bail!(Internal, "the engine reports too many profiles")
    }

    fn range(&self, slot: &Slot, profile: i32, which: i32) -> Option<Vec<i64>> {
        let (mut dims, mut rank) = ([0i64; 8], 0i32);
        // SAFETY: the name is the runner's; the shim writes at most eight dimensions.
        let status = unsafe {
            (self.runner.calls.range)(self.runner.raw, slot.name, profile, which, dims.as_mut_ptr(), &mut rank)
        };
        (status == 0).then(|| dims[..rank as usize].to_vec())
    }

    /// Starts the run, and returns index, shape and memory of each output, which the GPU writes until [`Device::wait`]
    /// returns.
    ///
    /// # Safety
    /// `inputs` and the returned memory must live until [`Device::wait`] returns, also after an error.
    unsafe fn start(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<Made>> {
        let (calls, raw) = (self.runner.calls, self.runner.raw);
        let mut result = RawResult::empty();
        for slot in self.slots.iter_mut().filter(|slot| slot.is_input) {
            let Some((_, tensor)) = inputs.iter().find(|(name, _)| *name == slot.info.name) else { continue };
            let (shape, bytes) = (tensor.shape(), tensor.bytes());
            let address = if slot.on_host {
                bytes.as_ptr().cast_mut().cast()
            } else {
                self.device.room(&mut slot.room, bytes.len())?;
                // SAFETY: the caller keeps the inputs.
                unsafe { self.device.copy_in(&slot.room, bytes)? };
                slot.room.address()
            };
            // SAFETY: the runner, the name, the shape and the memory are valid during the call.
            let status =
                unsafe { (calls.place)(raw, slot.name, shape.as_ptr(), shape.len() as i32, address, &mut *result) };
            answer(status, &result).at(|| format!("input {:?}", slot.info.name))?;
        }
        let mut made = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| !slot.is_input) {
            let (mut dims, mut rank) = ([0i64; 8], 0i32);
            // SAFETY: the runner and the name are valid; the shim writes at most eight dimensions.
            let status = unsafe { (calls.shape)(raw, slot.name, dims.as_mut_ptr(), &mut rank) };
            let shape = dims[..rank as usize].to_vec();
            if status != 0 || slot.on_host || shape.iter().any(|size| *size < 0) {
                bail!(Unsupported, "output {:?}: its size is known only after the run ({shape:?})", slot.info.name);
            }
            let size = usize::try_from(slot.dtype.bytes_of(element_count(&shape)?)?);
            let size = size.map_err(|_| error!(LimitExceeded, "output {:?} is too large", slot.info.name))?;
            self.device.room(&mut slot.room, size)?;
            // SAFETY: the runner, the name and the memory are valid during the call.
            let status =
                unsafe { (calls.place)(raw, slot.name, std::ptr::null(), 0, slot.room.address(), &mut *result) };
            answer(status, &result).at(|| format!("output {:?}", slot.info.name))?;
            made.push((index, shape, vec![0u8; size]));
        }
        // SAFETY: every input and output has an address.
        answer(unsafe { (calls.enqueue)(raw, self.device.stream(), &mut *result) }, &result)?;
        for (index, _, bytes) in &mut made {
            // SAFETY: the caller keeps the returned memory.
            unsafe { self.device.copy_out(&self.slots[*index].room, bytes)? };
        }
        Ok(made)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The memory belongs to the CUDA context of the device, which must be current on the thread that frees it.
        if self.device.enter().is_ok() {
            self.slots.iter_mut().for_each(|slot| self.device.give_back(&mut slot.room));
        }
    }
}

fn answer(status: i32, result: &RawResult) -> Result<()> {
    match (status, result.stage) {
        (0, _) => Ok(()),
        (_, stage::PROFILE) => bail!(InvalidArgument, "TensorRT: {}", result.message()),
        _ => bail!(Backend, "TensorRT: {}", result.message()),
    }
}

fn slots(runner: &Runner) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for index in 0..limits::RUN_VALUES as i32 {
        let mut raw =
            RawTensor { name: std::ptr::null(), dims: [0; 8], rank: 0, data_type: 0, is_input: 0, on_host: 0 };
        // SAFETY: the runner is alive, and `raw` has the layout of the shim's structure.
        if unsafe { (runner.calls.tensor)(runner.raw, index, &mut raw) } != 0 {
            break;
        }
        // SAFETY: the name is a C string of the engine.
        let name = unsafe { CStr::from_ptr(raw.name) }.to_string_lossy().into_owned();
        let Some(dtype) = data_type(raw.data_type) else {
            bail!(Unsupported, "{name:?} of the engine has the unsupported type {}", raw.data_type);
        };
        let dim = |(index, size): (usize, &i64)| match *size {
            -1 => Dim::Symbolic(format!("{name}_{index}")),
            size => Dim::Fixed(size),
        };
        let shape = raw.dims[..raw.rank as usize].iter().enumerate().map(dim).collect();
        let info = ValueInfo { name: name.clone(), dtype: Some(dtype), shape: Some(shape) };
        let (is_input, on_host) = (raw.is_input != 0, raw.on_host != 0);
        slots.push(Slot { info, dtype, name: raw.name, is_input, on_host, room: Room::default() });
    }
    Ok(slots)
}

/// Returns the element type for a value of TensorRT's `DataType`; `None` for types that this library does not support.
fn data_type(number: i32) -> Option<DataType> {
    Some(match number {
        0 => DataType::Float32,
        1 => DataType::Float16,
        2 => DataType::Int8,
        3 => DataType::Int32,
        4 => DataType::Bool,
        5 => DataType::Uint8,
        7 => DataType::Bfloat16,
        8 => DataType::Int64,
        _ => return None,
    })
}

fn declared(slot: &Slot) -> ValueInfoProto {
    let dim = |dim: &Dim| {
        let (dim_value, dim_param) = match dim {
            Dim::Fixed(size) => (Some(*size), None),
            Dim::Symbolic(name) => (None, Some(name.clone())),
        };
        DimensionProto { dim_value, dim_param, ..Default::default() }
    };
    let dims = slot.info.shape.iter().flatten().map(dim).collect();
    let shape = Some(Box::new(TensorShapeProto { dim: dims, ..Default::default() }));
    let tensor = TensorTypeProto { elem_type: Some(slot.dtype.to_onnx()), shape, ..Default::default() };
    let value_type = TypeProto { tensor_type: Some(Box::new(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(slot.info.name.clone()), value_type: Some(Box::new(value_type)), ..Default::default() }
}
