//! Sources: files that the program provides by callbacks.

use super::call::{self, optimize_call_t};
use super::context::optimize_context_t;
use super::error::optimize_error_t;
use super::handle;
use super::model::{self, optimize_model_t};
use super::options::{self, Options};
use super::package::{open_options, optimize_package_open_options_t, optimize_package_t};
use super::status::optimize_status_t;
use super::tokenizer::optimize_tokenizer_t;
use super::{Out, guard, text};
use crate::call::{Call, cancelled};
use crate::error::{Context, Kind, Result, bail, error};
use crate::limits;
use crate::open;
use crate::package::Package;
use crate::source::LoadOptions;
use crate::source::provided::{FileSource, Provided};
use crate::text::Tokenizer;
use std::ffi::{CString, c_char, c_void};

/// Size callback of a source. It writes the size of the file `name` in bytes to `size` and returns OPTIMIZE_OK, or
/// returns OPTIMIZE_NOT_FOUND if there is no such file. The value OPTIMIZE_CANCELLED ends the call of the library with
/// this status; any other value ends it with OPTIMIZE_IO.
#[allow(non_camel_case_types)]
pub type optimize_size_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, name: *const c_char, size: *mut u64) -> i32>;

/// Read callback of a source. It copies the `size` bytes of the file `name` that begin at `offset` to `buffer`, and
/// returns OPTIMIZE_OK. The value OPTIMIZE_CANCELLED ends the call of the library with this status; any other value
/// ends it with OPTIMIZE_IO. The bytes lie inside the size that the size callback returned; `size` is at most 4 MiB.
#[allow(non_camel_case_types)]
pub type optimize_read_fn = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        name: *const c_char,
        offset: u64,
        buffer: *mut c_void,
        size: usize,
    ) -> i32,
>;

/// A source: the files of a model, which the program provides by callbacks, for example decrypted or from an archive.
/// Both callbacks are required. They are called only during the call of the library to which the source is passed, on
/// the thread that made this call. A name is a relative path with '/'; the program chooses to which folder it is
/// relative. Names from model files that are absolute or contain ".." are refused before a callback is called.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct optimize_source_t {
    /// sizeof(optimize_source_t).
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Size callback.
    pub size: optimize_size_fn,
    /// Read callback.
    pub read: optimize_read_fn,
    /// User data passed to the callbacks.
    pub user_data: *mut c_void,
}
// SAFETY: repr(C), two u32 and three pointers that may be NULL: no padding, all zero is valid.
unsafe impl Options for optimize_source_t {}

/// The callbacks of a source.
struct Callbacks {
    size: unsafe extern "C" fn(*mut c_void, *const c_char, *mut u64) -> i32,
    read: unsafe extern "C" fn(*mut c_void, *const c_char, u64, *mut c_void, usize) -> i32,
    user_data: *mut c_void,
}

impl Callbacks {
    /// Returns the callbacks of a source. Fails with `InvalidArgument` if the source or a callback is NULL.
    ///
    /// # Safety
    /// The contract is that of [`options::read`]; the callbacks do what their types require for as long as the result
    /// is used.
    unsafe fn new(source: *const optimize_source_t) -> Result<Callbacks> {
        if source.is_null() {
            bail!(InvalidArgument, "source is NULL");
        }
        // SAFETY: same contract.
        let given = unsafe { options::read(source) }?;
        if given.reserved != 0 {
            bail!(InvalidArgument, "reserved is not 0");
        }
        match (given.size, given.read) {
            (Some(size), Some(read)) => Ok(Callbacks { size, read, user_data: given.user_data }),
            _ => bail!(InvalidArgument, "a callback of the source is NULL"),
        }
    }
}

impl FileSource for Callbacks {
    fn size(&self, name: &str) -> Result<Option<u64>> {
        let name = c_name(name)?;
        let mut size = 0;
        // SAFETY: the program's function with the program's data.
        match unsafe { (self.size)(self.user_data, name.as_ptr(), &mut size) } {
            0 => Ok(Some(size)),
            code if code == Kind::NotFound as i32 => Ok(None),
            code => Err(failure("size", code)),
        }
    }

    fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let name = c_name(name)?;
        // SAFETY: the program's function with the program's data, and a buffer of the size that is passed.
        match unsafe { (self.read)(self.user_data, name.as_ptr(), offset, buffer.as_mut_ptr().cast(), buffer.len()) } {
            0 => Ok(()),
            code => Err(failure("read", code)),
        }
    }
}

/// Returns a file name as a C string. Fails with `InvalidModel` if it contains NUL.
pub(super) fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| error!(InvalidModel, "the file name {name:?} contains NUL"))
}

/// Returns the error for a callback (`size`, `read` or `write`) that returned `code`: `Cancelled` for
/// OPTIMIZE_CANCELLED, otherwise `Io`.
pub(super) fn failure(callback: &str, code: i32) -> crate::error::Error {
    match code {
        code if code == Kind::Cancelled as i32 => cancelled(),
        code => error!(Io, "the {callback} callback returned {code}"),
    }
}

/// Loads a model from the file `name` of a source: an .onnx file, a packed file, a .gguf file, or a package in one
/// file. External data of an .onnx file, and the files next to it (tokenizer.json, config.json ...), are read from the
/// source, by names in the folder of `name`. The files are read during this call, into memory that the model and its
/// sessions keep. Only unpacked tensors of a packed file and converted tensors of a .gguf file are written to an
/// unlinked file in the system's temporary folder, if they are larger than 1 MiB. Progress stage: "load", in bytes of
/// one file. Returns OPTIMIZE_NOT_FOUND if there is no file `name` or no file with its external data; OPTIMIZE_IO if a
/// callback fails; OPTIMIZE_INVALID_MODEL for a damaged file; OPTIMIZE_LIMIT_EXCEEDED for an .onnx file above 2 GiB;
/// OPTIMIZE_UNSUPPORTED for a format, an architecture or a type of weights that is not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_model_load_source(
    context: *const optimize_context_t,
    source: *const optimize_source_t,
    name: *const c_char,
    call: *const optimize_call_t,
    model: *mut *mut optimize_model_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(model, "model")?;
            let context = handle::get(context)?;
            let (source, name) = (Callbacks::new(source)?, text(name, "name")?);
            let load = |call: &Call| open::load_provided(&source, name, &LoadOptions::default(), call);
            out.set(model::new(call::with(call, |call| context.limited(|| load(call)))?));
            Ok(())
        })
    }
}

/// Opens a package like `optimize_package_open`, but from the file `name` of a source. It must be a package in one
/// file. The file is read during this call, into memory that the package and the objects created from it keep. Progress
/// stage: "load", in bytes. Returns OPTIMIZE_IO if a callback fails, and the statuses of `optimize_package_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_package_open_source(
    context: *const optimize_context_t,
    source: *const optimize_source_t,
    name: *const c_char,
    options: *const optimize_package_open_options_t,
    call: *const optimize_call_t,
    package: *mut *mut optimize_package_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(package, "package")?;
            let context = handle::get(context)?;
            let (source, name, options) = (Callbacks::new(source)?, text(name, "name")?, open_options(options)?);
            let read = |call: &Call| Provided::new(&source, name, call)?.content(limits::DATA_FILE_BYTES);
            let content = call::with(call, |call| context.limited(|| read(call)))?;
            out.set(handle::new(Package::from_bytes(content, name, &options)?));
            Ok(())
        })
    }
}

/// Loads a tokenizer from the file `name` of a source, which has the format of tokenizer.json. If it is also named
/// tokenizer.json, the settings of the files next to it are applied, as in `optimize_tokenizer_load`. Returns
/// OPTIMIZE_NOT_FOUND if there is no file `name`; OPTIMIZE_IO if a callback fails; OPTIMIZE_INVALID_MODEL if a file is
/// damaged or describes a tokenizer that is not supported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn optimize_tokenizer_load_source(
    source: *const optimize_source_t,
    name: *const c_char,
    tokenizer: *mut *mut optimize_tokenizer_t,
    error: *mut *mut optimize_error_t,
) -> optimize_status_t {
    // SAFETY: the contract of `ffi`.
    unsafe {
        guard(error, || {
            let out = Out::new(tokenizer, "tokenizer")?;
            let (source, name) = (Callbacks::new(source)?, text(name, "name")?);
            let call = Call::default();
            let file = Provided::new(&source, name, &call)?;
            let content = file.content(limits::SIDE_FILE_BYTES)?;
            let alone = !std::path::Path::new(name).ends_with("tokenizer.json");
            let beside = |other: &str| if alone { Ok(None) } else { file.found_beside(other) };
            out.set(handle::new(Tokenizer::with_files(&content, &beside).at(|| name)?));
            Ok(())
        })
    }
}
