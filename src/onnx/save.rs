//! The saving of a model: deterministic, atomic, and without building the file in memory.
//!
//! The same model gives the same bytes. Above [`limits::INLINE_WEIGHT_BYTES`] the weights are stored by default in a
//! data file next to the model, `model.onnx.<hash>.data`, named after its content. The data file is complete before the
//! `.onnx` that refers to it replaces the old one, so a crash at any moment leaves either the complete old model or the
//! complete new one. Data files of earlier saves under the same name are removed last. Concurrent saves to one path are
//! not ordered.

use super::data_name::{self, HASH_DIGITS};
use super::proto::{EXTERNAL, GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use super::sink::{self, FileSink};
use super::tensors::{any_external, for_each_initializer};
use super::validate::subgraphs;
use super::wire::{Message, Writer};
use crate::call::{Call, Stage, Ticket};
use crate::choice::choice;
use crate::error::{Context, Result, bail};
use crate::files::digest::{FileIdentity, hex};
use crate::files::{self, AtomicFile};
use crate::limits;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

choice! {
    /// The place where the weights of a saved model are stored.
    pub enum ExternalData: optimize_external_data_t = Auto {
        /// The `.onnx` file for up to 1 GiB of weights, above that a file next to it.
        Auto = 0, "auto";
        /// The `.onnx` file; saving fails above 2 GiB, the limit of protobuf.
        Never = 1, "never";
        /// A file next to the `.onnx` file, for any size.
        Always = 2, "always";
    }
}

/// The size in bytes from which on a tensor is stored in the data file; smaller ones (shapes, axes, scalars) stay in
/// the `.onnx` file.
const EXTERNAL_FROM: usize = 1024;

/// The files that saving wrote.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Saved {
    /// Files with name, size and SHA-256, the `.onnx` or packed file first.
    pub files: Vec<SavedFile>,
}

impl Saved {
    /// Returns the path of the first file, the size of all files, and a hash, as in a report: the SHA-256 of the only
    /// file, or that of the concatenated hexadecimal SHA-256 of all files.
    pub fn identity(&self) -> FileIdentity {
        let digests: String = self.files.iter().map(|f| f.sha256.as_str()).collect();
        FileIdentity {
            path: self.files.first().map(|f| f.path.display().to_string()),
            bytes: self.files.iter().map(|f| f.bytes).sum(),
            sha256: match self.files.as_slice() {
                [only] => only.sha256.clone(),
                _ => hex(&Sha256::digest(digests)),
            },
        }
    }

    /// Returns the files as JSON text with a final newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// A file that saving wrote.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SavedFile {
    /// Path of the file: the given one, or that of the data file next to it; the given names if a sink received the
    /// files.
    pub path: PathBuf,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file in lower-case hexadecimal digits.
    pub sha256: String,
}

/// Saves `model` at `path` and returns what was written. `external` says where the weights are stored. `call` receives
/// the stage `save` in bytes and can cancel, which changes nothing on disk.
///
/// Fails with `InvalidArgument` if `path` does not name a file, with `NotFound` if its folder does not exist, and with
/// `Io` if a file cannot be written. Fails with `LimitExceeded` if the `.onnx` file would exceed 2 GiB, and with
/// `InvalidModel` if a tensor of the model is external.
pub fn to_file(model: &ModelProto, path: &Path, external: ExternalData, call: &Call) -> Result<Saved> {
    let place = |e: crate::error::Error| if e.place().is_empty() { e.at(path.display()) } else { e };
    check(model, path).map_err(place)?;
    let (data, segments) = split(model, path, external).map_err(place)?;
    let total = size(&segments) + data.as_ref().map_or(0, Data::bytes);
    call.drive(Stage::SAVE, total, |ticket| match data {
        Some(data) => save_external(data, path, ticket),
        None => Ok(Saved { files: vec![save_main(&segments, path, ticket)?] }),
    })
    .inspect(|saved| data_name::remove_stale(path, saved.files.get(1).map(|data| data.path.as_path())))
    .map_err(place)
}

/// Passes `model` to a sink as the file `name`, after the file with its external data if there is one, and returns what
/// was written: the same bytes under the same names as [`to_file`] writes. The sink is called on the caller's thread.
/// `call` receives the stages `hash`, for external data, and `save`, in bytes of one file, and can cancel. Fails like
/// [`to_file`] for the model and the name, and with the error of the sink.
pub fn to_sink(
    model: &ModelProto,
    sink: &dyn FileSink,
    name: &str,
    external: ExternalData,
    call: &Call,
) -> Result<Saved> {
    let path = Path::new(name);
    check_sink(model, path).at(|| name)?;
    let (data, segments) = split(model, path, external).at(|| name)?;
    let pass = |name: &str, size: u64, pieces: &[(usize, &Bytes)]| {
        let work = |out: &mut (dyn Write + Send)| put(pieces.iter().copied(), &mut &mut *out, |_| Ok(()));
        sink::file(sink, name, (call, size), work).at(|| name)
    };
    let main = |segments: &[Bytes]| {
        let pieces: Vec<_> = segments.iter().map(|segment| (0, segment)).collect();
        pass(name, size(segments), &pieces)
    };
    let Some(mut data) = data else { return Ok(Saved { files: vec![main(&segments)?] }) };
    // The name of the data file contains the hash of its content, which is therefore read twice.
    let sha256 = call.drive(Stage::HASH, data.bytes(), |ticket| {
        let mut hash = Sha256::new();
        put(data.pieces(), &mut std::io::sink(), |piece| {
            hash.update(piece);
            ticket.add(piece.len() as u64);
            ticket.check()
        })?;
        Ok(hex(&hash.finalize()))
    })?;
    let file = data_name::of(path, &sha256[..HASH_DIGITS]);
    data.rename(&file);
    let file = path.with_file_name(file).to_string_lossy().into_owned();
    let saved = pass(&file, data.bytes(), &data.pieces().collect::<Vec<_>>())?;
    Ok(Saved { files: vec![main(&encode(&data.stub))?, saved] })
}

/// Returns the external weights (`None` if there are none), and the segments of the encoded model without them. Fails
/// with `LimitExceeded` if the encoded model exceeds 2 GiB.
fn split(model: &ModelProto, path: &Path, external: ExternalData) -> Result<(Option<Data>, Vec<Bytes>)> {
    let outside = match external {
        ExternalData::Always => true,
        ExternalData::Never => false,
        ExternalData::Auto => weight_bytes(model) > limits::INLINE_WEIGHT_BYTES,
    };
    let data = if outside { Some(Data::take(model, path)).filter(|d| !d.places.is_empty()) } else { None };
    let segments = encode(data.as_ref().map_or(model, |d| &d.stub));
    let main = size(&segments);
    if main > limits::MODEL_PROTO_BYTES {
        bail!(LimitExceeded, "the model has {main} bytes without external data; the limit of protobuf is 2 GiB");
    }
    Ok((data, segments))
}

fn size(segments: &[Bytes]) -> u64 {
    segments.iter().map(|segment| segment.len() as u64).sum()
}

/// Checks a model before it is passed to a sink. Fails with `InvalidArgument` if `path` does not name a file, and with
/// `InvalidModel` if a tensor of the model is external.
pub(super) fn check_sink(model: &ModelProto, path: &Path) -> Result<()> {
    if path.file_name().is_none() {
        bail!(InvalidArgument, "the name does not name a file");
    }
    if any_external(model) {
        bail!(InvalidModel, "the tensor refers to external data, which only a loaded file may have");
    }
    Ok(())
}

/// Checks a model and its path before a file is written. Fails with `InvalidArgument` if `path` is a folder or does not
/// name a file, with `NotFound` if its folder does not exist, and with `InvalidModel` if a tensor of the model is
/// external.
pub(super) fn check(model: &ModelProto, path: &Path) -> Result<()> {
    if path.is_dir() {
        bail!(InvalidArgument, "the path is a folder; name the file to write");
    }
    if path.file_name().is_none() {
        bail!(InvalidArgument, "the path {path:?} does not name a file");
    }
    let folder = files::parent_of(path);
    if !folder.is_dir() {
        bail!(NotFound, "the folder {folder:?} does not exist");
    }
    if any_external(model) {
        bail!(InvalidModel, "the tensor refers to external data, which only a loaded file may have");
    }
    Ok(())
}

/// Returns the encoding of the model as one message, in segments that share the memory of its weights.
pub fn encode(model: &ModelProto) -> Vec<Bytes> {
    let mut writer = Writer::default();
    model.write(&mut writer);
    writer.into_segments()
}

/// Returns the size of the raw data of the initializers that may be stored externally, in bytes: those of the main
/// graph and of subgraphs of its nodes.
pub fn weight_bytes(model: &ModelProto) -> u64 {
    fn of_graph(graph: &GraphProto) -> u64 {
        let raw = |t: &TensorProto| t.raw_data.as_ref().map_or(0, |r| r.len() as u64);
        graph.initializer.iter().map(raw).sum::<u64>()
            + graph.node.iter().flat_map(subgraphs).map(of_graph).sum::<u64>()
    }
    model.graph.as_deref().map_or(0, of_graph)
}

fn save_main(segments: &[Bytes], path: &Path, ticket: &Ticket) -> Result<SavedFile> {
    let (file, sha256) = write_hashed(path, segments.iter().map(|s| (0, s)), ticket)?;
    // This is the last moment at which a cancel still keeps the old file.
    ticket.check()?;
    file.commit()?;
    Ok(SavedFile { path: path.to_owned(), bytes: segments.iter().map(|s| s.len() as u64).sum(), sha256 })
}

/// Writes `(padding, bytes)` pieces to a file that is not visible at `path` yet, and returns the file and the SHA-256
/// of its content.
fn write_hashed<'a>(
    path: &Path,
    pieces: impl Iterator<Item = (usize, &'a Bytes)>,
    ticket: &Ticket,
) -> Result<(AtomicFile, String)> {
    let mut file = BufWriter::new(AtomicFile::create(path)?);
    let mut hash = Sha256::new();
    put(pieces, &mut file, |piece| {
        hash.update(piece);
        ticket.add(piece.len() as u64);
        ticket.check()
    })?;
    file.flush()?;
    let file = file.into_inner().map_err(|e| e.into_error())?;
    Ok((file, hex(&hash.finalize())))
}

/// Writes `(padding, bytes)` pieces, each as `padding` zeros and the bytes. `step` is called with each part after it is
/// written.
fn put<'a>(
    pieces: impl Iterator<Item = (usize, &'a Bytes)>,
    out: &mut impl Write,
    mut step: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for (padding, bytes) in pieces {
        let zeros = vec![0u8; padding];
        out.write_all(&zeros)?;
        step(&zeros)?;
        files::stream(bytes, out, &mut step)?;
    }
    Ok(())
}

fn save_external(mut data: Data, path: &Path, ticket: &Ticket) -> Result<Saved> {
    let (file, sha256) = write_hashed(path, data.pieces(), ticket)?;
    let name = data_name::of(path, &sha256[..HASH_DIGITS]);
    data.rename(&name);
    let target = path.with_file_name(&name);
    let existed = target.exists();
    ticket.check()?;
    file.commit_as(&name)?;
    let main = save_main(&encode(&data.stub), path, ticket).inspect_err(|_| {
        // A data file that existed before has the same content, and the old model may refer to it.
        if !existed {
            let _ = std::fs::remove_file(&target);
        }
    })?;
    Ok(Saved { files: vec![main, SavedFile { path: target, bytes: data.bytes(), sha256 }] })
}

/// The external weights of a model, and the model without them.
struct Data {
    stub: ModelProto,
    places: Vec<Place>,
}

/// The location of an initializer in the data file.
struct Place {
    offset: u64,
    bytes: Bytes,
}

impl Data {
    /// Moves all large initializers out of a copy of the model. They are stored one after another, each at a multiple
    /// of 4096 bytes if it has 64 KiB or more, so that it can be mapped, and otherwise at a multiple of 64 bytes.
    ///
    /// The name of the data file is not known yet: the model refers to a placeholder of the same length, so that its
    /// size is correct.
    fn take(model: &ModelProto, path: &Path) -> Data {
        let mut data = Data { stub: model.clone(), places: Vec::new() };
        let name = Bytes::from(data_name::of(path, &"0".repeat(HASH_DIGITS)));
        let mut end = 0u64;
        let places = &mut data.places;
        let mut take = |tensor: &mut TensorProto| {
            let Some(bytes) = tensor.raw_data.take_if(|raw| raw.len() >= EXTERNAL_FROM) else { return };
            let alignment = if bytes.len() >= 64 << 10 { 4096 } else { 64 };
            let offset = end.next_multiple_of(alignment);
            end = offset + bytes.len() as u64;
            tensor.data_location = Some(EXTERNAL);
            tensor.external_data = vec![
                entry("location", name.clone()),
                entry("offset", offset.to_string()),
                entry("length", bytes.len().to_string()),
            ];
            places.push(Place { offset, bytes });
        };
        if let Some(graph) = data.stub.graph.as_deref_mut() {
            for_each_initializer(graph, &mut take);
        }
        data
    }

    fn rename(&mut self, name: &str) {
        let name = Bytes::from(name.to_owned());
        if let Some(graph) = self.stub.graph.as_deref_mut() {
            for_each_initializer(graph, &mut |tensor| {
                if let Some(location) = tensor.external_data.first_mut() {
                    location.value = Some(name.clone());
                }
            });
        }
    }

    /// Returns the content of the data file as `(padding, bytes)` pieces.
    fn pieces(&self) -> impl Iterator<Item = (usize, &Bytes)> {
        let mut end = 0;
        self.places.iter().map(move |place| {
            let padding = (place.offset - end) as usize;
            end = place.offset + place.bytes.len() as u64;
            (padding, &place.bytes)
        })
    }

    fn bytes(&self) -> u64 {
        self.places.last().map_or(0, |place| place.offset + place.bytes.len() as u64)
    }
}

fn entry(key: &str, value: impl Into<Bytes>) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.into()), ..Default::default() }
}
