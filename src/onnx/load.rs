//! From a file to a checked [`ModelProto`] whose weights lie where the file is mapped.

use super::external_data::Resolver;
use super::proto::ModelProto;
use super::wire::Reader;
use super::{tensors, validate};
use crate::error::{Context, Error, Kind, Result, bail};
use crate::{files, limits};
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// A loaded model and the files it came from.
pub struct Loaded {
    /// The model; no tensor in it is external any more.
    pub proto: ModelProto,
    /// The `.onnx` file first, then its external data in name order.
    pub files: Vec<(PathBuf, Bytes)>,
}

/// Loads an `.onnx` file. Weights are mapped, not read.
pub fn from_file(path: &Path) -> Result<Loaded> {
    let file = files::open(path)?;
    let bytes = files::map(&file, limits::MODEL_PROTO_BYTES).at(|| path.display())?;
    let folder = files::parent_of(path);
    let mut loaded = from_bytes(bytes.clone(), Some(folder)).at(|| path.display())?;
    loaded.files.insert(0, (path.to_owned(), bytes));
    Ok(loaded)
}

/// Loads a model from bytes; external data, if any, is looked for in `folder`.
pub fn from_bytes(bytes: Bytes, folder: Option<&Path>) -> Result<Loaded> {
    if bytes.is_empty() {
        bail!(InvalidModel, "is empty");
    }
    if let Some(what) = recognise_foreign(&bytes) {
        return Err(Error::new(Kind::InvalidModel, format!("is not an ONNX model but {what}")));
    }
    let mut proto: ModelProto = Reader::new(bytes).read_message()?;
    let mut resolver = Resolver::new(folder);
    tensors::for_each_tensor(&mut proto, &mut |tensor| {
        if tensor.dims.len() <= limits::TENSOR_RANK {
            resolver.resolve(tensor)?;
        }
        validate::tensor(tensor)
    })?;
    validate::model(&proto)?;
    Ok(Loaded { proto, files: resolver.into_files() })
}

/// Names a few file kinds people give by mistake, so that the error is about their mistake.
fn recognise_foreign(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'G', b'G', b'U', b'F', ..] => Some("a GGUF file"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive (a PyTorch checkpoint, perhaps)"),
        [0x1f, 0x8b, ..] => Some("a gzip archive"),
        [_, _, _, _, b'O', b'R', b'T', b'M', ..] => Some("an ONNX Runtime .ort file"),
        [0x89, b'H', b'D', b'F', ..] => Some("an HDF5 file"),
        [_, _, _, _, _, _, _, 0, b'{', b'"', ..] => Some("a safetensors file"),
        [b'<', ..] => Some("a text (HTML or XML) file"),
        _ if bytes.starts_with(b"version https://git-lfs") => {
            Some("a Git LFS pointer: the model itself was not downloaded")
        }
        _ => None,
    }
}
