//! External data: tensors whose elements are in other files become slices of these files, which are mapped when the
//! model is loaded, or of content that the caller gives.
//!
//! Source: the ONNX "External Data" page. Keys: `location` (relative POSIX path), `offset`, `length`, `checksum`
//! (ignored). Other keys are refused, because they may change the meaning.

use super::data_name::plain;
use super::dtype::{DataType, element_count};
use super::proto::{EXTERNAL, StringStringEntryProto, TensorProto};
use crate::error::{Context, Result, bail};
use crate::{files, limits};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A function that returns the content of an external file by its name.
pub type ReadFile<'a> = dyn Fn(&str) -> Result<Bytes> + 'a;

/// The external files of one model, each of which is mapped or read once.
pub struct Resolver<'a> {
    place: Place<'a>,
    files: BTreeMap<String, Bytes>,
}

/// The place where external files are searched for.
enum Place<'a> {
    /// Only the given files exist: the model was loaded from memory.
    Nowhere,
    Folder(&'a Path),
    /// Next to the model file, which determines where links to data may lead.
    Beside(&'a Path),
    Function(&'a ReadFile<'a>),
}

/// The recognized entries of `external_data` of a tensor.
#[derive(Default)]
struct Location {
    name: Option<String>,
    offset: Option<u64>,
    length: Option<u64>,
}

impl<'a> Resolver<'a> {
    /// Returns a resolver for data in `folder`. With `None`, for a model loaded from memory, external data is an error.
    pub fn new(folder: Option<&'a Path>) -> Self {
        Resolver { place: folder.map_or(Place::Nowhere, Place::Folder), files: BTreeMap::new() }
    }

    /// Returns a resolver for data next to the model file at `model`.
    pub fn beside(model: &'a Path) -> Self {
        Resolver { place: Place::Beside(model), files: BTreeMap::new() }
    }

    /// Returns a resolver for files whose content `read` returns.
    pub fn reading(read: &'a ReadFile<'a>) -> Self {
        Resolver { place: Place::Function(read), files: BTreeMap::new() }
    }

    /// Returns a resolver for a model whose external files are in memory: `files` are their contents by name.
    pub fn given(files: BTreeMap<String, Bytes>) -> Self {
        Resolver { place: Place::Nowhere, files }
    }

    /// Replaces the external location of `tensor`, if it has one, by its bytes. Fails with `InvalidModel` if the
    /// location is invalid or the file is too short, and with `LimitExceeded` if the model has too many external files.
    /// Fails with `InvalidArgument` if the model was loaded from memory without this file, and if the file cannot be
    /// read.
    pub fn resolve(&mut self, tensor: &mut TensorProto) -> Result<()> {
        match tensor.data_location {
            None | Some(0) if tensor.external_data.is_empty() => return Ok(()),
            None | Some(0) => bail!(InvalidModel, "external_data is present, but data_location is not EXTERNAL"),
            Some(EXTERNAL) => {}
            Some(other) => bail!(InvalidModel, "data_location {other} is unknown"),
        }
        if tensor.raw_data.is_some() {
            bail!(InvalidModel, "the tensor has both raw_data and external_data");
        }
        let location = parse(&tensor.external_data)?;
        let Some(name) = location.name else { bail!(InvalidModel, "external_data has no location") };
        let expected = match location.length {
            // The size of the elements of a type newer than this version is unknown, so the entry `length` is trusted.
            Some(length) if is_newer(tensor) => length,
            _ => stored_bytes(tensor)?,
        };
        if let Some(length) = location.length.filter(|&length| length != expected) {
            bail!(InvalidModel, "external_data has length {length}, but shape and type need {expected} bytes");
        }
        let file = self.file(&name)?;
        let (offset, size) = (location.offset.unwrap_or(0), file.len() as u64);
        let Some(end) = offset.checked_add(expected).filter(|&end| end <= size) else {
            bail!(InvalidModel, "bytes {offset}+{expected} lie outside {name:?}, which has {size}");
        };
        tensor.raw_data = Some(file.slice(offset as usize..end as usize));
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    }

    /// Returns the external files that were used, with their content, sorted by name. Paths include the folder, if
    /// there is one. Given files are included even if they were not used.
    pub fn into_files(self) -> Vec<(PathBuf, Bytes)> {
        let folder = match self.place {
            Place::Nowhere | Place::Function(_) => Path::new(""),
            Place::Folder(folder) => folder,
            Place::Beside(model) => files::parent_of(model),
        };
        self.files.into_iter().map(|(name, bytes)| (folder.join(name), bytes)).collect()
    }

    fn file(&mut self, name: &str) -> Result<Bytes> {
        // `./data` and `data` are mapped, and counted, once.
        let key = plain(name);
        if let Some(bytes) = self.files.get(&key) {
            return Ok(bytes.clone());
        }
        if name.contains("_ORT_MEM_ADDR_") {
            bail!(InvalidModel, "the location {name:?} is a memory address, which is not allowed in a file");
        }
        if self.files.len() >= limits::EXTERNAL_FILES {
            bail!(LimitExceeded, "the model has more than {} external data files", limits::EXTERNAL_FILES);
        }
        let map = |file: Result<File>| files::map(&file?, limits::DATA_FILE_BYTES).at(|| name);
        let bytes = match self.place {
            Place::Nowhere => bail!(
                InvalidArgument,
                "the tensor refers to the file {name:?}, but the model was loaded from memory without a folder"
            ),
            Place::Folder(folder) => map(files::open_beneath(folder, name))?,
            Place::Beside(model) => map(files::open_beside(model, name))?,
            Place::Function(read) => {
                files::check_inside(name)?;
                read(&key)?
            }
        };
        self.files.insert(key, bytes.clone());
        Ok(bytes)
    }
}

fn parse(entries: &[StringStringEntryProto]) -> Result<Location> {
    let mut location = Location::default();
    for entry in entries {
        let key = entry.key.as_deref().unwrap_or("");
        let value = entry.value.as_deref().unwrap_or(&[]);
        if value.len() > limits::NAME_BYTES {
            bail!(
                LimitExceeded,
                "external_data {key:?} has {} bytes; the limit is {}",
                value.len(),
                limits::NAME_BYTES
            );
        }
        let Ok(value) = std::str::from_utf8(value) else {
            bail!(InvalidModel, "external_data {key:?} is not UTF-8");
        };
        let number = || match value.parse::<u64>() {
            Ok(number) => Ok(number),
            Err(_) => bail!(InvalidModel, "external_data {key} is {value:?}, not a count of bytes"),
        };
        // Readers differ on which of two entries with the same key they use.
        let twice = match key {
            "location" => location.name.replace(value.to_owned()).is_some(),
            "offset" => location.offset.replace(number()?).is_some(),
            "length" => location.length.replace(number()?).is_some(),
            "checksum" => false,
            _ => bail!(InvalidModel, "external_data has the unknown key {key:?}"),
        };
        if twice {
            bail!(InvalidModel, "external_data has the key {key} twice");
        }
    }
    Ok(location)
}

/// Returns whether the element type is unknown to this version but may be known to a later one.
fn is_newer(tensor: &TensorProto) -> bool {
    tensor.data_type.is_some_and(|number| number > 0 && DataType::from_onnx(number).is_none())
}

/// Returns the size of a tensor's elements in raw form, in bytes. Fails with `InvalidModel` for strings and unknown
/// types.
pub fn stored_bytes(tensor: &TensorProto) -> Result<u64> {
    let number = tensor.data_type.unwrap_or(0);
    let Some(dtype) = DataType::from_onnx(number) else {
        bail!(InvalidModel, "the element type {number} is unknown");
    };
    if dtype == DataType::String {
        bail!(InvalidModel, "strings cannot be stored as raw bytes");
    }
    dtype.bytes_of(element_count(&tensor.dims)?)
}
