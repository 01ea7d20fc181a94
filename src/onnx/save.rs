//! From a model to a file: deterministic, atomic, and without building the file in memory.
//!
//! The same model gives the same bytes. Above [`limits::INLINE_WEIGHT_BYTES`] the weights go to a data file
//! beside the model, named after its content; it is in place before the `.onnx` that points to it, so a
//! crash at any moment leaves either the old model or the new one, whole.

use super::proto::{EXTERNAL, GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use super::wire::{Message, Writer};
use crate::call::{Call, Ticket};
use crate::error::{Context, Result, bail};
use crate::files::{self, AtomicFile};
use crate::limits;
use crate::model::FileIdentity;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Where the weights of a saved model go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExternalData {
    /// Into the `.onnx` file up to [`limits::INLINE_WEIGHT_BYTES`], beside it above.
    #[default]
    Auto,
    /// Into the `.onnx` file; an error above 2 GiB, where protobuf ends.
    Never,
    /// Beside the `.onnx` file, whatever their size.
    Always,
}

/// Tensors below this stay in the `.onnx` even when the weights are external: shapes, axes, scalars.
const EXTERNAL_FROM: usize = 1024;

/// What was written.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Saved {
    /// Files with name, size and SHA-256, the `.onnx` first.
    pub files: Vec<SavedFile>,
}

impl Saved {
    /// Path, size and hash of the saved model as a report names them; see [`FileIdentity`].
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

    /// The files as JSON text with a final newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// One written file.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SavedFile {
    /// Path as given, or the data file beside it.
    pub path: std::path::PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

/// Saves `model` at `path`. `Call` reports the stage `save` in bytes and can cancel: then nothing changes.
pub fn to_file(model: &ModelProto, path: &Path, external: ExternalData, call: &Call) -> Result<Saved> {
    if path.is_dir() {
        bail!(InvalidArgument, "{}: is a folder; name the file to write", path.display());
    }
    let folder = files::parent_of(path);
    if !folder.is_dir() {
        bail!(NotFound, "{}: the folder does not exist", folder.display());
    }
    let weights = weight_bytes(model);
    let outside = match external {
        ExternalData::Always => true,
        ExternalData::Never => false,
        ExternalData::Auto => weights > limits::INLINE_WEIGHT_BYTES,
    };
    let segments = encode(model);
    let total: u64 = segments.iter().map(|s| s.len() as u64).sum();
    call.drive("save", total, |ticket| {
        if outside {
            save_external(model, path, ticket)
        } else {
            Ok(Saved { files: vec![save_main(segments, path, ticket)?] })
        }
    })
    .at(|| path.display())
}

/// The model as one message, in segments that still share the memory of its weights.
pub fn encode(model: &ModelProto) -> Vec<Bytes> {
    let mut writer = Writer::default();
    model.write(&mut writer);
    writer.into_segments()
}

/// Bytes of all main-graph initializers.
pub fn weight_bytes(model: &ModelProto) -> u64 {
    let raw = |t: &TensorProto| t.raw_data.as_ref().map_or(0, |r| r.len() as u64);
    model.graph.iter().flat_map(|g| &g.initializer).map(raw).sum()
}

fn save_main(segments: Vec<Bytes>, path: &Path, ticket: &Ticket) -> Result<SavedFile> {
    let total: u64 = segments.iter().map(|s| s.len() as u64).sum();
    if total > limits::MODEL_PROTO_BYTES {
        bail!(LimitExceeded, "the model has {total} bytes without external data; protobuf ends at 2 GiB");
    }
    let (file, sha256) = write_hashed(path, segments.iter().map(|s| (0, s)), ticket)?;
    // The last moment at which a cancel still leaves the old file.
    ticket.check()?;
    file.commit()?;
    Ok(SavedFile { path: path.to_owned(), bytes: total, sha256 })
}

/// Writes `(padding, bytes)` pieces to an unnamed file and hashes them on the way.
fn write_hashed<'a>(
    path: &Path,
    pieces: impl Iterator<Item = (usize, &'a Bytes)>,
    ticket: &Ticket,
) -> Result<(AtomicFile, String)> {
    /// Bytes after which the kernel is told to begin writing them to the disk.
    const WRITEBACK: u64 = 32 << 20;
    let mut file = AtomicFile::create(path)?;
    let mut hash = Sha256::new();
    let mut pending = 0;
    for (padding, bytes) in pieces {
        let zeros = vec![0u8; padding];
        file.write_all(&zeros)?;
        hash.update(&zeros);
        let mut buffered = BufWriter::new(&mut file);
        files::stream(bytes, &mut buffered, |piece| {
            hash.update(piece);
            ticket.add(piece.len() as u64);
            ticket.check()
        })?;
        buffered.flush()?;
        drop(buffered);
        pending += bytes.len() as u64;
        if pending >= WRITEBACK {
            file.start_writeback();
            pending = 0;
        }
    }
    Ok((file, hex(&hash.finalize())))
}

fn save_external(model: &ModelProto, path: &Path, ticket: &Ticket) -> Result<Saved> {
    let Some(graph) = &model.graph else { bail!(Internal, "a model without a graph was to be saved") };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let layout = layout(graph);
    let bytes = layout.last().map_or(0, |place| place.offset + place.bytes.len() as u64);
    let mut end = 0;
    let pieces = layout.iter().map(|place| {
        let padding = (place.offset - end) as usize;
        end = place.offset + place.bytes.len() as u64;
        (padding, &place.bytes)
    });
    let (data, sha256) = write_hashed(&path.with_file_name(format!("{stem}.data")), pieces, ticket)?;
    let name = format!("{stem}.{}.data", &sha256[..16]);
    let stub = with_locations(model, &layout, &name);
    ticket.check()?;
    data.commit_as(&name)?;
    let main = match save_main(encode(&stub), path, ticket) {
        Ok(main) => main,
        Err(e) => {
            remove_unreferenced(path, &stem, None);
            return Err(e);
        }
    };
    remove_unreferenced(path, &stem, Some(&name));
    let data = SavedFile { path: path.with_file_name(&name), bytes, sha256 };
    Ok(Saved { files: vec![main, data] })
}

struct Place {
    initializer: usize,
    offset: u64,
    bytes: Bytes,
}

/// Offsets for all large initializers: on pages from 64 KiB up, so that they can be mapped, else on 64 bytes.
fn layout(graph: &GraphProto) -> Vec<Place> {
    let mut end = 0u64;
    let large = graph.initializer.iter().enumerate().filter_map(|(initializer, tensor)| {
        let bytes = tensor.raw_data.clone().filter(|raw| raw.len() >= EXTERNAL_FROM)?;
        Some((initializer, bytes))
    });
    large
        .map(|(initializer, bytes)| {
            let alignment = if bytes.len() >= 64 << 10 { 4096 } else { 64 };
            let offset = end.next_multiple_of(alignment);
            end = offset + bytes.len() as u64;
            Place { initializer, offset, bytes }
        })
        .collect()
}

fn with_locations(model: &ModelProto, layout: &[Place], name: &str) -> ModelProto {
    let mut stub = model.clone();
    let Some(graph) = &mut stub.graph else { return stub };
    for place in layout {
        let tensor = &mut graph.initializer[place.initializer];
        tensor.raw_data = None;
        tensor.data_location = Some(EXTERNAL);
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(Bytes::from(value)),
            ..Default::default()
        };
        tensor.external_data = vec![
            entry("location", name.to_owned()),
            entry("offset", place.offset.to_string()),
            entry("length", place.bytes.len().to_string()),
        ];
    }
    stub
}

/// Removes data files of earlier saves of the same model. Without `keep`, keeps what `path` points to now.
fn remove_unreferenced(path: &Path, stem: &str, keep: Option<&str>) {
    let current: Vec<u8> = match keep {
        Some(name) => name.as_bytes().to_vec(),
        None => files::read(path, limits::MODEL_PROTO_BYTES).unwrap_or_default(),
    };
    let Ok(entries) = std::fs::read_dir(files::parent_of(path)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name
            .strip_prefix(stem)
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|rest| rest.strip_suffix(".data"))
            .is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
        let referenced = current.windows(name.len()).any(|window| window == name.as_bytes());
        if ours && !referenced {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Lower-case hex of a digest.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
