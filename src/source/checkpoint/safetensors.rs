//! A reader of safetensors, in one file or in several with an index. Tensors are slices of the mapped files.
//!
//! A file has 8 bytes with the length of the header (little-endian), the header (a JSON object from names to `dtype`,
//! `shape` and `data_offsets`), and the data, which the tensors fill without gap or overlap. Like the reference
//! implementation (`safetensors::SafeTensors`), this reader rejects every file whose offsets are ambiguous, so that two
//! programs cannot read different tensors from one file.
//!
//! The header is not read by that implementation, for three reasons: it accepts two tensors with the same name, it
//! rejects a whole file for one tensor of unknown type, and its errors name neither the tensor nor its offsets. The
//! element types and the description of a tensor are those of the crate `safetensors`.

use super::header::{self, Entry};
use crate::error::{Context, Result, bail, error};
use crate::onnx::dtype::{DataType, element_count};
use crate::source::weights::{Form, Stored, Weights};
use crate::{files, limits};
use ::safetensors::Dtype;
use ::safetensors::tensor::TensorInfo;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

/// The name of the file with a checkpoint in one file.
pub const FILE: &str = "model.safetensors";
/// The name of the index of a checkpoint in several files.
pub const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a checkpoint.
pub struct Safetensors {
    tensors: BTreeMap<String, Tensor>,
    files: Vec<(PathBuf, Bytes)>,
}

/// The header entry of a tensor, with its data.
struct Tensor {
    dims: Vec<i64>,
    /// Element type; `None` for an unknown type, which is an error only if the tensor is used.
    dtype: Option<DataType>,
    type_name: String,
    bytes: Bytes,
}

impl Safetensors {
    /// Opens the checkpoint in a folder, `model.safetensors` or otherwise the files that `model.safetensors.index.json`
    /// names, and returns its tensors. Fails with `NotFound` if there is neither, `Io` if a file cannot be read,
    /// `InvalidModel` if it is damaged, and `LimitExceeded` for sizes beyond the limits.
    pub fn open_folder(folder: &Path) -> Result<Safetensors> {
        if folder.join(FILE).is_file() {
            return Safetensors::open_file(&folder.join(FILE));
        }
        let index = folder.join(INDEX);
        open_index(folder, &index).at(|| index.display())
    }

    /// Opens a checkpoint in one file and returns its tensors. Fails like [`Safetensors::open_folder`].
    pub fn open_file(path: &Path) -> Result<Safetensors> {
        let bytes = map(path)?;
        let tensors = parse(&bytes).at(|| path.display())?;
        Ok(Safetensors { tensors: tensors.into_iter().collect(), files: vec![(path.to_owned(), bytes)] })
    }

    /// Returns the tensors of the checkpoint whose only file has the content `bytes`. Fails like
    /// [`Safetensors::open_folder`].
    pub fn of_bytes(bytes: Bytes) -> Result<Safetensors> {
        Ok(Safetensors { tensors: parse(&bytes)?.into_iter().collect(), files: Vec::new() })
    }

    /// Returns the paths of the files, with their content; empty for [`Safetensors::of_bytes`].
    pub fn files(&self) -> &[(PathBuf, Bytes)] {
        &self.files
    }
}

impl Weights for Safetensors {
    fn find(&self, name: &str) -> Result<Option<Stored>> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        let Some(dtype) = tensor.dtype else {
            bail!(Unsupported, "the tensor {name:?} has the type {:?}, which is not known", tensor.type_name);
        };
        Ok(Some(Stored { dims: tensor.dims.clone(), form: Form::Plain(dtype), bytes: tensor.bytes.clone() }))
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }
}

fn map(path: &Path) -> Result<Bytes> {
    // Hugging Face's download caches contain links to files elsewhere, so links are followed; the caller ensures that
    // a *name* in an index cannot leave the folder.
    let file = files::open(path)?;
    files::map(&file, limits::DATA_FILE_BYTES).at(|| path.display())
}

fn open_index(folder: &Path, index: &Path) -> Result<Safetensors> {
    let places = header::weight_map(&files::read(index, limits::SIDE_FILE_BYTES)?)?;
    let mut shards: HashMap<String, HashMap<String, Tensor>> = HashMap::new();
    let mut files = Vec::new();
    let mut tensors = BTreeMap::new();
    for (name, shard) in places {
        if !shards.contains_key(&shard) {
            if shards.len() >= limits::EXTERNAL_FILES {
                bail!(LimitExceeded, "the index names more than {} files", limits::EXTERNAL_FILES);
            }
            let path = folder.join(plain_name(&shard)?);
            let bytes = map(&path)?;
            let found = parse(&bytes).at(|| path.display())?;
            files.push((path, bytes));
            shards.insert(shard.clone(), found);
        }
        let found = shards.get_mut(&shard).and_then(|tensors| tensors.remove(&name));
        let tensor = found
            .ok_or_else(|| error!(InvalidModel, "the index places {name:?} in {shard:?}, which does not contain it"))?;
        tensors.insert(name, tensor);
    }
    Ok(Safetensors { tensors, files })
}

/// Returns the name if it is that of a file in the same folder. Fails with `InvalidModel` otherwise.
fn plain_name(name: &str) -> Result<&str> {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    if !plain || name.contains(['\\', '\0']) {
        bail!(InvalidModel, "the index names the file {name:?}, which is not the name of a file in the same folder");
    }
    Ok(name)
}

/// Returns the tensors of a file, which are checked against the file's size and against each other.
fn parse(file: &Bytes) -> Result<HashMap<String, Tensor>> {
    let Some(length) = file.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) else {
        bail!(InvalidModel, "the file has {} bytes, too few for a safetensors file", file.len());
    };
    if length > limits::SAFETENSORS_HEADER_BYTES {
        let limit = limits::SAFETENSORS_HEADER_BYTES;
        bail!(LimitExceeded, "the header claims {length} bytes (at most {limit}): perhaps not a safetensors file");
    }
    let start = 8 + length as usize;
    if start > file.len() {
        bail!(InvalidModel, "the header claims {length} bytes, but the file has only {}", file.len());
    }
    let data = file.slice(start..);
    let mut entries = header::entries(&file[8..start])?;
    entries.sort_by_key(|(_, entry)| entry.offsets);
    let mut end = 0;
    let mut tensors = HashMap::with_capacity(entries.len());
    for (name, entry) in entries {
        let tensor = place(&entry, &data, end).at(|| format!("tensor {name:?}"))?;
        end = entry.offsets[1];
        tensors.insert(name, tensor);
    }
    if end != data.len() as u64 {
        bail!(InvalidModel, "the data has {} bytes, but the tensors end at {end}", data.len());
    }
    Ok(tensors)
}

/// Returns one tensor, which must begin at `previous_end`, the end of the tensor before it.
fn place(entry: &Entry, data: &Bytes, previous_end: u64) -> Result<Tensor> {
    let [begin, end] = entry.offsets;
    if begin > end || end > data.len() as u64 {
        bail!(InvalidModel, "the tensor is at {begin}..{end}, but the data has {} bytes", data.len());
    }
    if begin != previous_end {
        let how = if begin < previous_end { "overlaps the tensor before it" } else { "leaves a gap before it" };
        bail!(InvalidModel, "the tensor is at {begin}..{end}, which {how} (ending at {previous_end})");
    }
    let dtype = data_type(&entry.dtype);
    let count = element_count(&entry.shape)?;
    if let Some(dtype) = dtype {
        let needed = dtype.bytes_of(count)?;
        if needed != end - begin {
            let (shape, type_name) = (&entry.shape, &entry.dtype);
            bail!(
                InvalidModel,
                "the tensor has {} bytes, but {type_name} of shape {shape:?} needs {needed}",
                end - begin
            );
        }
    }
    let bytes = data.slice(begin as usize..end as usize);
    Ok(Tensor { dims: entry.shape.clone(), dtype, type_name: entry.dtype.clone(), bytes })
}

/// The element types of the format that are read and written, with those of ONNX.
const TYPES: [(Dtype, DataType); 15] = [
    (Dtype::F64, DataType::Float64),
    (Dtype::F32, DataType::Float32),
    (Dtype::F16, DataType::Float16),
    (Dtype::BF16, DataType::Bfloat16),
    (Dtype::F8_E4M3, DataType::Float8E4m3fn),
    (Dtype::F8_E5M2, DataType::Float8E5m2),
    (Dtype::I64, DataType::Int64),
    (Dtype::U64, DataType::Uint64),
    (Dtype::I32, DataType::Int32),
    (Dtype::U32, DataType::Uint32),
    (Dtype::I16, DataType::Int16),
    (Dtype::U16, DataType::Uint16),
    (Dtype::I8, DataType::Int8),
    (Dtype::U8, DataType::Uint8),
    (Dtype::BOOL, DataType::Bool),
];

/// Returns the ONNX type for the name of a type in the format; `None` for a name or type that is not supported.
fn data_type(name: &str) -> Option<DataType> {
    let dtype: Dtype = serde_json::from_value(name.into()).ok()?;
    TYPES.iter().find(|(known, _)| *known == dtype).map(|(_, onnx)| *onnx)
}

/// Returns the format's type for an ONNX type; `None` if it is not supported.
pub fn dtype_of(onnx: DataType) -> Option<Dtype> {
    TYPES.iter().find(|(_, known)| *known == onnx).map(|(dtype, _)| *dtype)
}

/// Returns the bytes before the data of a file: the length of the header, and the header, padded with spaces so that
/// the data begin at a multiple of `alignment` bytes. `metadata` becomes the entry `__metadata__`. Fails with
/// `Internal` if it cannot be written as JSON.
pub fn header(metadata: Option<Value>, tensors: Vec<(String, TensorInfo)>, alignment: usize) -> Result<Vec<u8>> {
    let mut entries: Map<String, Value> = Map::new();
    entries.extend(metadata.map(|metadata| ("__metadata__".to_owned(), metadata)));
    for (name, tensor) in tensors {
        entries.insert(name, serde_json::to_value(tensor).map_err(|e| error!(Internal, "a header: {e}"))?);
    }
    let mut header = vec![0; 8];
    serde_json::to_writer(&mut header, &entries).map_err(|e| error!(Internal, "a header: {e}"))?;
    header.resize(header.len().next_multiple_of(alignment), b' ');
    let length = header.len() as u64 - 8;
    header[..8].copy_from_slice(&length.to_le_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn file(header: &str, data: usize) -> Bytes {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        Bytes::from(bytes)
    }

    fn tensor(name: &str, dtype: &str, shape: &str, from: u64, to: u64) -> String {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    }

    fn fault(header: &str, data: usize) -> String {
        parse(&file(header, data)).err().unwrap_or_else(|| panic!("{header} was taken")).to_string()
    }

    #[test]
    fn tensors_are_found_where_they_lie() {
        let b = tensor("b", "F16", "[2,3]", 4, 16);
        let header = format!(
            r#"{{"__metadata__":{{"format":"pt"}},{b},{},{}}}   "#,
            tensor("a", "F32", "[]", 0, 4),
            tensor("z", "F32", "[0,7]", 16, 16)
        );
        let whole = file(&header, 12 + 4);
        let tensors = parse(&whole).unwrap();
        assert_eq!(tensors.len(), 3);
        assert_eq!(tensors["b"].dims, [2, 3]);
        assert_eq!(tensors["b"].bytes.as_ptr(), whole[8 + header.len() + 4..].as_ptr(), "nothing is copied");
    }

    #[test]
    fn a_type_that_is_not_known_only_hurts_who_wants_it() {
        let header = format!("{{{},{}}}", tensor("a", "F6_NEW", "[4]", 0, 3), tensor("b", "U8", "[1]", 3, 4));
        let tensors = parse(&file(&header, 4)).unwrap().into_iter().collect();
        let checkpoint = Safetensors { tensors, files: Vec::new() };
        assert_eq!(checkpoint.names(), ["a", "b"]);
        assert!(checkpoint.get("b").is_ok());
        assert_eq!(checkpoint.get("a").unwrap_err().kind(), Kind::Unsupported);
        assert!(checkpoint.find("c").unwrap().is_none());
    }

    #[test]
    fn damaged_files_are_refused_with_the_reason() {
        let a = |from, to| tensor("a", "F32", "[2]", from, to);
        assert!(parse(&Bytes::from_static(b"short")).err().unwrap().to_string().contains("too few"));
        let absurd = Bytes::from([&u64::MAX.to_le_bytes()[..], b"{}"].concat());
        assert_eq!(parse(&absurd).err().unwrap().kind(), Kind::LimitExceeded);
        let cut = Bytes::from([&100u64.to_le_bytes()[..], b"{}"].concat());
        assert!(parse(&cut).err().unwrap().to_string().contains("only 10"));
        assert!(fault(" {}", 0).contains("brace"));
        assert!(fault("{\"a\":", 0).contains("damaged"));
        assert!(fault("{\"\u{0}\":1}", 0).contains("damaged"));
        assert!(fault(&format!("{{{}}}", a(0, 12)), 8).contains("has 8 bytes"));
        assert!(fault(&format!("{{{}}}", a(8, 0)), 8).contains("is at 8..0"));
        assert!(fault(&format!("{{{}}}", a(0, 8)), 9).contains("end at 8"));
        assert!(fault(&format!("{{{}}}", a(0, 4)), 4).contains("needs 8"));
        assert!(fault(&format!("{{{},{}}}", a(0, 8), a(8, 16)), 16).contains("twice"));
        let b = |from, to| tensor("b", "F32", "[2]", from, to);
        assert!(fault(&format!("{{{},{}}}", a(0, 8), b(4, 12)), 12).contains("overlaps"));
        assert!(fault(&format!("{{{},{}}}", a(0, 8), b(12, 20)), 20).contains("gap"));
        assert!(fault(&format!("{{{}}}", tensor("a", "F32", "[4294967296,4294967296,2]", 0, 8)), 8).contains("tensor"));
        assert!(fault(&format!("{{{}}}", tensor("a", "F32", "[-2]", 0, 8)), 8).contains("negative"));
        let deep = format!("[{}1]", "1,".repeat(100));
        assert!(fault(&format!("{{{}}}", tensor("a", "F32", &deep, 0, 4)), 4).contains("dimensions"));
        assert!(fault(&format!("{{\"a\":{}1{}}}", "[".repeat(500), "]".repeat(500)), 4).contains("damaged"));
        let not_text = [&10u64.to_le_bytes()[..], b"{\"\xff\xfe\":1}}"].concat();
        assert!(parse(&Bytes::from(not_text)).is_err());
    }

    fn folder(name: &str, index: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("optimize-safetensors-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(INDEX), index).unwrap();
        std::fs::write(folder.join("one"), file(&format!("{{{}}}", tensor("a", "U8", "[3]", 0, 3)), 3)).unwrap();
        let two = format!("{{{},{}}}", tensor("b", "U8", "[3]", 0, 3), tensor("c", "U8", "[3]", 3, 6));
        std::fs::write(folder.join("two"), file(&two, 6)).unwrap();
        folder
    }

    #[test]
    fn an_index_joins_files_through_links_too() {
        let folder = folder("shards", r#"{"metadata":{"total_size":6},"weight_map":{"a":"linked","b":"two"}}"#);
        std::os::unix::fs::symlink("one", folder.join("linked")).unwrap();
        let checkpoint = Safetensors::open_folder(&folder).unwrap();
        assert_eq!(checkpoint.names(), ["a", "b"]);
        assert_eq!(checkpoint.files().len(), 2);
        assert_eq!(checkpoint.get("b").unwrap().dims, [3]);
    }

    #[test]
    fn damaged_indexes_are_refused_with_the_reason() {
        let cases = [
            (r#"{"weight_map":{"a":"../one"}}"#, "not the name of a file"),
            (r#"{"weight_map":{"a":"/etc/passwd"}}"#, "not the name of a file"),
            (r#"{"weight_map":{"a":"./one"}}"#, "not the name of a file"),
            (r#"{"weight_map":{"a":""}}"#, "not the name of a file"),
            (r#"{"weight_map":{"a":"one/"}}"#, "not the name of a file"),
            (r#"{"weight_map":{"a":".."}}"#, "not the name of a file"),
            (r#"{"weight_map":{"a":"none"}}"#, "No such file"),
            (r#"{"weight_map":{"a":"two"}}"#, "does not contain it"),
            (r#"{"weight_map":{"a":"one","a":"two"}}"#, "twice"),
            (r#"{"weight_map":{"a":3}}"#, "damaged"),
            (r#"{"weight_map":[]}"#, "damaged"),
            (r#"{}"#, "damaged"),
            ("", "damaged"),
        ];
        for (index, (content, reason)) in cases.into_iter().enumerate() {
            let folder = folder(&format!("damaged-{index}"), content);
            let error = Safetensors::open_folder(&folder).err().unwrap().to_string();
            assert!(error.contains(reason) && error.contains(INDEX), "{content}: {error}");
        }
    }
}
