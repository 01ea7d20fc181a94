//! Models: loading, inspecting and saving.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle::{self, handle};
use super::options::{self, Options};
use super::status::optimize_status_t;
use super::tensor::{Signature, optimize_value_info_t};
use super::{Out, buffer, guard, slice, text};
use crate::error::{Result, bail, error};
use crate::files::Memory;
use crate::inspect;
use crate::model::Model;
use crate::onnx::save::ExternalData;
use crate::open;
use crate::source::LoadOptions;
use crate::text::{ChatOptions, ChatTemplate, Tokenizer};
use serde_json::Value;
use std::ffi::{c_char, c_void};
use std::path::Path;

/// A loaded or created model. It is immutable, and any number of threads may use it concurrently. The weights of a
/// model that was loaded from files stay in these files, which are memory-mapped and must not be truncated or
/// overwritten while the model, or an object created from it, exists. The files may be replaced by renaming.
#[allow(non_camel_case_types)]
pub struct optimize_model_t(());

handle!(optimize_model_t(ModelHandle), b"opt-mode", "model");

/// The value behind a model handle: the model, and its signature as C strings.
pub struct ModelHandle {
    pub(super) model: Model,
    inputs: Signature,
    outputs: Signature,
}

pub(super) fn new(model: Model) -> *mut optimize_model_t {
    let (inputs, outputs) = (Signature::new(&model.inputs()), Signature::new(&model.outputs()));
    handle::new(ModelHandle { model, inputs, outputs })
}

/// Place where `optimize_model_save` stores the weights.
#[repr(C)]
#[allow(non_camel_case_types, missing_docs)]
pub enum optimize_external_data_t {
    /// In the .onnx file up to 1 GiB, above that in a file next to it.
    OPTIMIZE_EXTERNAL_DATA_AUTO = 0,
    /// In the .onnx file; OPTIMIZE_LIMIT_EXCEEDED above 2 GiB.
    OPTIMIZE_EXTERNAL_DATA_NEVER = 1,
    /// In a file next to the .onnx file.
    OPTIMIZE_EXTERNAL_DATA_ALWAYS = 2,
}

/// Options of `optimize_model_save`. Fields that are 0 or NULL have their defaults.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_save_options_t {
    /// sizeof(optimize_save_options_t).
    pub struct_size: u32,
    /// Storage of the weights, an optimize_external_data_t.
    pub external_data: i32,
    /// A value other than 0 writes a packed file, in which a zero takes one bit and other floats about 15 % less
    /// space. Only this library reads packed files: `optimize_model_load` recognizes them by their content, and
    /// restores the original bits of the weights.
    pub packed: u32,
}
// SAFETY: repr(C), three 32-bit integers: no padding, all zero is valid.
unsafe impl Options for optimize_save_options_t {}

/// Loads a model from an .onnx file, a folder that contains one (for example as model.onnx or onnx/model.onnx), a
/// Hugging Face checkpoint, a .gguf file, a package, or the manifest of an ensemble. Weights are memory-mapped and not
/// read, so that loading usually takes milliseconds for any size. Weights that must be converted, such as those of
/// packed files and block-quantized ones of GGUF files, are an exception: those larger than 1 MiB are written to an
/// unlinked file in the system's temporary folder. `optimize_model_inspect` lists unused content of the model's files
/// as `warnings`. The cancel token and the timeout of `call` are checked only before the loading begins, and no
/// progress is reported.
///
/// Returns OPTIMIZE_INVALID_MODEL for a damaged file (the error says where); OPTIMIZE_NOT_FOUND if there is nothing at
/// `path`, or no model in the folder; OPTIMIZE_UNSUPPORTED for a format, an architecture or a type of weights that is
/// not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_load(
    context: *const optimize_context_t,
    path: *const c_char,
    call: *const optimize_call_t,
    model: *mut *mut optimize_model_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(model, "model")?;
            let context = handle::get(context)?;
            let path = text(path, "path")?;
            out.set(new(call::with(call, |_| context.limited(|| Model::load(Path::new(path))))?));
            Ok(())
        })
    }
}

/// Loads a model from a copy of the `size` bytes at `data`: the content of an .onnx file, a packed file, a .gguf file
/// or a package in one file. An .onnx file with external data is refused: pass its path to `optimize_model_load`, or
/// its files to `optimize_model_load_source`. Unpacked tensors of a packed file and converted tensors of a .gguf file
/// are written to an unlinked file in the system's temporary folder if they are larger than 1 MiB. The cancel token and
/// the timeout of `call` are checked only before the loading begins, and no progress is reported.
///
/// Returns OPTIMIZE_INVALID_MODEL for a damaged model; OPTIMIZE_INVALID_ARGUMENT for a model with external data;
/// OPTIMIZE_LIMIT_EXCEEDED for an .onnx file above 2 GiB; OPTIMIZE_UNSUPPORTED for a format, an architecture or a type
/// of weights that is not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_load_memory(
    context: *const optimize_context_t,
    data: *const c_void,
    size: usize,
    call: *const optimize_call_t,
    model: *mut *mut optimize_model_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(model, "model")?;
            let context = handle::get(context)?;
            let data = slice(data.cast::<u8>(), size, "data")?;
            let load = || open::load_bytes(Memory::copy(data)?, &LoadOptions::default());
            out.set(new(call::with(call, |_| context.limited(load))?));
            Ok(())
        })
    }
}

/// Saves a model at `path` atomically: an existing file is replaced only when the new one is complete and on disk. The
/// same model gives the same bytes. `report` (may be NULL) receives JSON: {"files": [{"path", "bytes", "sha256"}]}.
/// Progress stage: "save", in bytes. Returns OPTIMIZE_NOT_FOUND if the folder does not exist; OPTIMIZE_IO if a file
/// cannot be written; OPTIMIZE_INVALID_ARGUMENT if `path` is a folder, or if options contradict each other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_save(
    model: *const optimize_model_t,
    path: *const c_char,
    options: *const optimize_save_options_t,
    call: *const optimize_call_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::optional(report);
            let model = &handle::get(model)?.model;
            let path = text(path, "path")?;
            let (external, packed) = save_options(options)?;
            let saved = call::with(call, |call| match packed {
                true => model.save_packed(Path::new(path), call),
                false => model.save(Path::new(path), external, call),
            })?;
            out.set_with(|| buffer::new(saved.to_json()));
            Ok(())
        })
    }
}

/// Returns the place where weights are stored, and whether the model is packed. Fails with `InvalidArgument` if the
/// options contradict each other.
///
/// # Safety
/// The contract is that of [`options::read`].
pub(super) unsafe fn save_options(options: *const optimize_save_options_t) -> Result<(ExternalData, bool)> {
    // SAFETY: same contract.
    let options = unsafe { options::read(options) }?;
    let external = ExternalData::from_code(options.external_data, "external_data")?;
    if options.packed != 0 && external == ExternalData::Always {
        bail!(InvalidArgument, "a packed model is one file and contains its weights");
    }
    Ok((external, options.packed != 0))
}

/// Writes a description of a model as JSON: among others format, inputs, outputs, operators, weights by type, and
/// warnings (see docs/report.md). The weights are not read. Returns only statuses that every function can return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_inspect(
    model: *const optimize_model_t,
    report: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(report, "report")?;
            out.set(buffer::new(inspect::inspect(&handle::get(model)?.model).to_json()));
            Ok(())
        })
    }
}

/// Returns the number of inputs that a run requires, or 0 if `model` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_input_count(model: *const optimize_model_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(model) }.map_or(0, |m| m.inputs.len())
}

/// Writes name, type and shape of the input at `index` to `info`. The pointers in `info` are valid until the model is
/// freed. Returns OPTIMIZE_NOT_FOUND if there is no such input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_input(
    model: *const optimize_model_t,
    index: usize,
    info: *mut optimize_value_info_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe { guard(error, || handle::get(model)?.inputs.write(index, info)) }
}

/// Returns the number of outputs, or 0 if `model` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_output_count(model: *const optimize_model_t) -> usize {
    // SAFETY: the contract of `ffi`.
    unsafe { handle::get(model) }.map_or(0, |m| m.outputs.len())
}

/// Writes name, type and shape of the output at `index` to `info`. The pointers in `info` are valid until the model is
/// freed. Returns OPTIMIZE_NOT_FOUND if there is no such output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_output(
    model: *const optimize_model_t,
    index: usize,
    info: *mut optimize_value_info_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe { guard(error, || handle::get(model)?.outputs.write(index, info)) }
}

/// Frees a model. NULL is allowed. Objects created from it, such as sessions, remain usable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_free(model: *mut optimize_model_t) {
    // SAFETY: the contract of `ffi`.
    super::guard_value((), || unsafe { handle::free(model) });
}

/// Renders a conversation with the chat template of a model, and writes the text to `rendered`. The caller frees it.
/// `messages` is JSON: [{"role": "user", "content": "..."}, ...]. The text contains special tokens: set `rendered` of
/// optimize_generate_options_t when you pass it to a generator. `optimize_model_apply_chat_template` does the same with
/// options. Returns the statuses of that function, such as OPTIMIZE_NOT_FOUND if the model has no chat template.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_render_chat(
    model: *const optimize_model_t,
    messages: *const c_char,
    rendered: *mut *mut buffer::optimize_buffer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(rendered, "rendered")?;
            let model = &handle::get(model)?.model;
            let messages = text(messages, "messages")?;
            let parsed: Value =
                serde_json::from_str(messages).map_err(|e| error!(InvalidArgument, "messages are not JSON: {e}"))?;
            let Value::Array(messages) = parsed else { bail!(InvalidArgument, "messages are not a JSON list") };
            let tokenizer = Tokenizer::of(model)?;
            let Some(template) = ChatTemplate::of(model, tokenizer.as_ref())? else {
                bail!(NotFound, "the model has no chat template");
            };
            out.set(buffer::new(template.render(&messages, &ChatOptions::default())?));
            Ok(())
        })
    }
}
