//! The header of a GGUF file: metadata and the location of each tensor.
//!
//! ```text
//! "GGUF"  version u32  tensors u64  keys u64
//! keys:     name, type u32, value
//! tensors:  name, rank u32, dimensions u64 (length of a row first), type u32, offset u64
//! padding to the alignment, then the data that offsets count from
//! ```
//!
//! All integers are little-endian; a string is its length (u64) and its bytes. Versions 2 and 3 are the same, except
//! that 3 also allows big-endian files, which are rejected.

use super::reader::{self, Reader};
use super::types::ElementType;
use super::values::{Keys, read_keys};
use crate::error::{Context, Result, bail};
use crate::limits;
use bytes::Bytes;
use std::collections::HashMap;

/// A tensor of the file, which was checked to be inside it.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Name of the tensor in the file.
    pub name: String,
    /// Shape of the tensor, outermost dimension first (reversed in the file).
    pub dims: Vec<i64>,
    /// Element type of the tensor.
    pub element: ElementType,
    /// Data of the tensor.
    pub bytes: Bytes,
    /// Offset of the data in the file.
    offset: u64,
}

/// The content of the header of a file.
#[derive(Debug)]
pub struct Header {
    /// Metadata of the file.
    pub keys: Keys,
    /// Tensors of the file, in its order.
    pub tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

/// The alignment of the data in bytes if the file does not set it.
const ALIGNMENT: u64 = 32;
/// The maximum rank of a tensor in this format.
const RANK: u32 = 4;
/// The minimum size of a tensor's header entry in bytes: an empty name, no dimension, type and offset.
const TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

impl Header {
    /// Returns the header of a file. Fails with `InvalidModel` if it is damaged, `Unsupported` for other versions and
    /// big-endian files, and `LimitExceeded` for sizes beyond the limits; the error names the key or tensor, if one is
    /// invalid.
    pub fn read(file: &Bytes) -> Result<Header> {
        let mut reader = Reader::new(file.clone());
        if reader.take(4)?[..] != *b"GGUF" {
            bail!(InvalidModel, "the file does not begin with \"GGUF\"");
        }
        match reader.u32()? {
            2 | 3 => {}
            1 => bail!(Unsupported, "GGUF version 1, of 2023, is not supported: convert the model again"),
            version if version.swap_bytes() < 100 => bail!(Unsupported, "the file is big-endian"),
            version => bail!(Unsupported, "GGUF version {version} is not supported; 2 and 3 are"),
        }
        let (tensors, keys) = (reader.u64()?, reader.u64()?);
        let keys = read_keys(&mut reader, keys)?;
        let alignment = alignment(&keys)?;
        let places = read_places(&mut reader, tensors)?;
        let Some(start) = (reader.position() as u64).checked_next_multiple_of(alignment) else {
            bail!(InvalidModel, "the offset of the data exceeds 64 bits");
        };
        let mut header = Header { keys, tensors: Vec::new(), by_name: HashMap::new() };
        for place in places {
            let at = || format!("tensor {:?}", place.name);
            let tensor = place.locate(file, start, alignment).at(at)?;
            if header.by_name.insert(tensor.name.clone(), header.tensors.len()).is_some() {
                return Err(crate::error::error!(InvalidModel, "two tensors have that name").at(at()));
            }
            header.tensors.push(tensor);
        }
        header.check_overlaps()?;
        Ok(header)
    }

    /// Returns the tensor with the name `name` in the file; `None` if there is none.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|index| &self.tensors[*index])
    }

    fn check_overlaps(&self) -> Result<()> {
        let mut order: Vec<&TensorInfo> = self.tensors.iter().collect();
        order.sort_by_key(|tensor| tensor.offset);
        for pair in order.windows(2) {
            if pair[0].offset + pair[0].bytes.len() as u64 > pair[1].offset {
                bail!(InvalidModel, "the tensors {:?} and {:?} overlap", pair[0].name, pair[1].name);
            }
        }
        Ok(())
    }
}

fn alignment(keys: &Keys) -> Result<u64> {
    const KEY: &str = "general.alignment";
    match keys.integer(KEY)? {
        None => Ok(ALIGNMENT),
        Some(size) if (1..=limits::GGUF_ALIGNMENT).contains(&size) && size & (size - 1) == 0 => Ok(size as u64),
        Some(size) => bail!(InvalidModel, "{KEY:?} is {size}, not a power of two up to {}", limits::GGUF_ALIGNMENT),
    }
}

/// The header entry of a tensor, not yet checked against the file.
struct Place {
    name: String,
    dims: Vec<u64>,
    element: u32,
    offset: u64,
}

fn read_places(reader: &mut Reader, count: u64) -> Result<Vec<Place>> {
    if count > limits::CHECKPOINT_TENSORS as u64 {
        let limit = limits::CHECKPOINT_TENSORS;
        bail!(LimitExceeded, "the file declares {count} tensors; the limit is {limit}");
    }
    if count * TENSOR_BYTES > reader.left() {
        bail!(InvalidModel, "the file declares {count} tensors and is too short for their names");
    }
    let mut places = Vec::with_capacity(count as usize);
    for index in 0..count {
        let name = reader.text().at(|| format!("tensor {index}"))?;
        let name = reader::name(&name).at(|| format!("tensor {index}"))?.to_owned();
        places.push(read_place(reader, &name).at(|| format!("tensor {name:?}"))?);
    }
    Ok(places)
}

fn read_place(reader: &mut Reader, name: &str) -> Result<Place> {
    let rank = reader.u32()?;
    if rank > RANK {
        bail!(InvalidModel, "it has {rank} dimensions; the limit of the format is {RANK}");
    }
    let dims = (0..rank).map(|_| reader.u64()).collect::<Result<Vec<u64>>>()?;
    let (element, offset) = (reader.u32()?, reader.u64()?);
    Ok(Place { name: name.to_owned(), dims, element, offset })
}

impl Place {
    fn locate(&self, file: &Bytes, start: u64, alignment: u64) -> Result<TensorInfo> {
        let element = ElementType::of(self.element)?;
        let dims: Option<Vec<i64>> = self.dims.iter().rev().map(|dim| i64::try_from(*dim).ok()).collect();
        let Some(dims) = dims.filter(|dims| !dims.contains(&0)) else {
            bail!(InvalidModel, "its dimensions {:?} are not sizes", self.dims);
        };
        let bytes = element.bytes_of(&self.dims)?;
        if !self.offset.is_multiple_of(alignment) {
            bail!(InvalidModel, "its offset {} is not a multiple of the alignment {alignment}", self.offset);
        }
        let length = file.len() as u64;
        let begin = start.checked_add(self.offset);
        let span = begin.and_then(|begin| Some((begin, begin.checked_add(bytes)?)));
        let Some((begin, end)) = span.filter(|(_, end)| *end <= length) else {
            let offset = self.offset;
            bail!(InvalidModel, "its {bytes} bytes at {offset} of the data exceed the file");
        };
        let bytes = file.slice(begin as usize..end as usize);
        Ok(TensorInfo { name: self.name.clone(), dims, element, bytes, offset: begin })
    }
}
