//! The loading of a file to a checked [`ModelProto`] whose weights are slices of the mapped file.

use super::external_data::{ReadFile, Resolver};
use super::proto::ModelProto;
use super::wire::Reader;
use super::{packed, tensors, validate};
use crate::error::{Context, Error, Kind, Result, bail};
use crate::{files, limits};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A loaded model, and the files from which it was loaded.
pub struct Loaded {
    /// Message of the model, in which no tensor is external.
    pub proto: ModelProto,
    /// Paths and content of the files: the `.onnx` or packed file first, unless the model was loaded from memory,
    /// followed by its external data in the order of names.
    pub files: Vec<(PathBuf, Bytes)>,
}

/// Loads an `.onnx` file or a packed file and returns the model. Weights stay in the mapped file; packed ones are
/// unpacked into a temporary file. Fails if the file cannot be read, or with `InvalidModel`, `LimitExceeded` or
/// `Unsupported` if it is not a valid model.
pub fn from_file(path: &Path) -> Result<Loaded> {
    let file = files::open(path)?;
    let bytes = files::map(&file, limits::DATA_FILE_BYTES).at(|| path.display())?;
    let mut loaded = read(bytes.clone(), Resolver::beside(path)).at(|| path.display())?;
    loaded.files.insert(0, (path.to_owned(), bytes));
    Ok(loaded)
}

/// Loads an `.onnx` file or a packed file whose content is `bytes`, and returns the model. External data is searched
/// for in `folder`; without a folder, a model with external data is refused (`InvalidArgument`). Otherwise fails like
/// [`from_file`].
pub fn from_bytes(bytes: Bytes, folder: Option<&Path>) -> Result<Loaded> {
    read(bytes, Resolver::new(folder))
}

/// Loads a model from bytes like [`from_bytes`]; `external` returns the content of each external data file by its name.
/// The files of the result are the external ones only. Fails like [`from_file`], and with the error of `external`.
pub fn from_reader(bytes: Bytes, external: &ReadFile<'_>) -> Result<Loaded> {
    read(bytes, Resolver::reading(external))
}

fn read(bytes: Bytes, resolver: Resolver<'_>) -> Result<Loaded> {
    if packed::is_packed(&bytes) {
        let mut proto = packed::read(&bytes)?;
        validate::header(&proto)?;
        tensors::for_each_tensor(&mut proto, &mut |tensor| validate::tensor(tensor))?;
        validate::model(&proto)?;
        return Ok(Loaded { proto, files: Vec::new() });
    }
    // If the bytes are another kind of file, the error says so. That is checked only after decoding has failed, so that
    // no ONNX model is mistaken for another kind of file.
    let mut proto = decode(&bytes).map_err(|e| match foreign(&bytes) {
        Some(what) => Error::new(Kind::InvalidModel, format!("the file is not an ONNX model but {what}")),
        None => e,
    })?;
    resolve(&mut proto, resolver)
}

/// Loads the content of an `.onnx` file (not a packed one) and returns the model. `data` is the content of its external
/// data files by name. Fails with `InvalidModel`, `LimitExceeded` or `Unsupported` if the content is not a valid model,
/// and with `InvalidArgument` if `data` lacks a file.
pub fn from_parts(bytes: Bytes, data: BTreeMap<String, Bytes>) -> Result<Loaded> {
    let mut proto = decode(&bytes)?;
    resolve(&mut proto, Resolver::given(data))
}

fn resolve(proto: &mut ModelProto, mut resolver: Resolver<'_>) -> Result<Loaded> {
    tensors::for_each_tensor(proto, &mut |tensor| {
        if tensor.dims.len() <= limits::TENSOR_RANK {
            resolver.resolve(tensor)?;
        }
        validate::tensor(tensor)
    })?;
    validate::model(proto)?;
    Ok(Loaded { proto: std::mem::take(proto), files: resolver.into_files() })
}

fn decode(bytes: &Bytes) -> Result<ModelProto> {
    if bytes.is_empty() {
        bail!(InvalidModel, "the file is empty");
    }
    let (length, limit) = (bytes.len() as u64, limits::MODEL_PROTO_BYTES);
    if length > limit {
        bail!(LimitExceeded, "the model has {length} bytes without external data; the limit of protobuf is {limit}");
    }
    let proto = Reader::new(bytes.clone()).read_message()?;
    validate::header(&proto)?;
    Ok(proto)
}

/// Returns the name of a file type that is often passed by mistake, for the error message; `None` if the bytes begin
/// like none of them.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(256)];
    match start {
        [b'G', b'G', b'U', b'F', ..] => Some("a GGUF file"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive (a PyTorch checkpoint, perhaps)"),
        [0x1f, 0x8b, ..] => Some("a gzip archive"),
        [0x80, 2..=5, ..] => Some("a Python pickle (an old PyTorch checkpoint, perhaps)"),
        [_, _, _, _, b'O', b'R', b'T', b'M', ..] => Some("an ONNX Runtime .ort file"),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Some("a TensorFlow Lite file"),
        [0x89, b'H', b'D', b'F', ..] => Some("an HDF5 file"),
        [_, _, _, _, _, _, 0, 0, b'{', b'"', ..] => Some("a safetensors file"),
        _ if start.starts_with(b"version https://git-lfs") => {
            Some("a Git LFS pointer: the model itself was not downloaded")
        }
        _ if start.trim_ascii_start().starts_with(b"<") => Some("a text (HTML or XML) file"),
        _ if start.iter().all(|b| matches!(b, b' '..=b'~' | b'\t' | b'\r' | b'\n')) && !start.is_empty() => {
            Some("a text file")
        }
        _ => None,
    }
}
