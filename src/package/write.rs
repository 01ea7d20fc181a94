//! The writing of packages.

use super::archive::{self, Entry};
use super::manifest::{ASSETS, FORMAT, FileOf, Manifest, OURS, PACKED, SEAL, SIGNATURE, THEIRS, WEIGHTS, describe};
use super::options::CompileOptions;
use super::promise::Promise;
use super::{engines, variants, verify, weights};
use crate::call::{Call, Stage, Ticket};
use crate::error::{Context, Result, bail, error};
use crate::files::digest::hex;
use crate::files::{self, AtomicFile, ScratchFolder};
use crate::inputs::is_past;
use crate::limits;
use crate::model::Model;
use crate::model::contract::Contract;
use crate::onnx::proto::ModelProto;
use crate::onnx::save::{self, Saved, SavedFile};
use crate::onnx::sink::{self, FileSink};
use crate::runtime::Runtime;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The result of [`compile`].
#[derive(Debug, serde::Serialize)]
pub struct Compiled {
    /// Files of the package; one if the package is a single file.
    pub files: Vec<SavedFile>,
    /// Warnings about requests that were not fully met.
    pub warnings: Vec<String>,
}

impl Compiled {
    /// Returns the result as JSON: `{"files": [{"path", "bytes", "sha256"}], "warnings": ["..."]}`.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The path of a file of the package, and its content in pieces.
type Part = (String, Vec<Bytes>);

/// Writes a package of `model` to `path`, a folder or one file, and returns the files. The package appears there when
/// it is complete; an existing package of the same kind (folder or file) is replaced. The same model and options with
/// the same versions of this library and of ONNX Runtime on the same machine give the same bytes. Progress stage:
/// `package`, in bytes that are hashed and written.
///
/// Unless the model has a KV cache, it is run on the example and on both ends of every range, as far as memory and time
/// allow. Fails with [`crate::error::Kind::InvalidArgument`] if it does not run on a requested size; a default range is
/// narrowed instead, with a warning. Also fails with `InvalidArgument` if another file or folder is at `path`, and for
/// no variants; with `NotFound` if the folder of `path` does not exist; and otherwise where an option does not fit the
/// model.
pub fn compile(
    runtime: &'static Runtime,
    model: &Model,
    path: &Path,
    options: &CompileOptions,
    call: &Call,
) -> Result<Compiled> {
    check_target(path, options)?;
    let Draft { parts, manifest } = draft(runtime, model, files::parent_of(path), options, call)?;
    let (warnings, total) = (manifest.warnings.clone(), 2 * size(&parts));
    let work = |ticket: &Ticket| {
        let (parts, entries) = finish(parts, manifest, options, ticket)?;
        match options.single_file {
            true => write_file(path, &parts, &entries, ticket),
            false => write_folder(path, &parts, ticket),
        }
    };
    let Saved { files } = call.drive(Stage::PACKAGE, total, work).at(|| path.display())?;
    Ok(Compiled { files, warnings })
}

/// Passes a package of `model` in one file to a sink as the file `name`, even if the options request a folder. The sink
/// is called on the caller's thread. Progress stages: `package`, in bytes that are hashed, and `save`, in bytes that
/// are written. Otherwise like [`compile`], whose errors it also has. Fails with `InvalidArgument` if `name` does not
/// name a file, and with the error of the sink.
pub fn compile_to(
    runtime: &'static Runtime,
    model: &Model,
    (sink, name): (&dyn FileSink, &str),
    options: &CompileOptions,
    call: &Call,
) -> Result<Compiled> {
    if Path::new(name).file_name().is_none() {
        bail!(InvalidArgument, "{name:?} does not name a package");
    }
    let options = &CompileOptions { single_file: true, ..options.clone() };
    let Draft { parts, manifest } = draft(runtime, model, &std::env::temp_dir(), options, call)?;
    let warnings = manifest.warnings.clone();
    let total = size(&parts);
    let (parts, entries) = call.drive(Stage::PACKAGE, total, |ticket| finish(parts, manifest, options, ticket))?;
    let work = |out: &mut (dyn Write + Send)| {
        write_archive(&parts, &entries, &mut |bytes, _| files::stream(bytes, &mut &mut *out, |_| Ok(())))
    };
    let file = sink::file(sink, name, (call, total), work).at(|| name)?;
    Ok(Compiled { files: vec![file], warnings })
}

/// A package that is not written yet: its files, and the manifest without their hashes.
struct Draft {
    parts: Vec<Part>,
    manifest: Manifest,
}

/// Makes the content of a package; `folder` is for temporary files.
fn draft(
    runtime: &'static Runtime,
    model: &Model,
    folder: &Path,
    options: &CompileOptions,
    call: &Call,
) -> Result<Draft> {
    let Promise { contract, example, mut warnings } = Promise::new(runtime, model, options, call)?;
    let ahead = (!options.portable_only && !options.packed).then_some(&example);
    let wanted = ahead.map(|example| variants::Wanted { example, contract: &contract, compiled: !options.single_file });
    let variants::All { mut made, files, warnings: more } =
        variants::make(runtime, model, &options.variants, wanted, folder, call)?;
    warnings.extend(more);
    if made.is_empty() {
        bail!(InvalidArgument, "variants is empty");
    }
    let mut lineage = model.card().lineage.clone();
    lineage.extend(options.lineage.iter().cloned());
    lineage.extend(made.iter().filter_map(|m| m.report.clone()));
    let mut parts = if options.packed { packed_parts(&mut made, folder, call)? } else { shared_parts(&made)? };
    parts.extend(files.into_iter().map(|(name, content)| (name, vec![content])));
    let engine = options.engine.as_deref().map(|path| engines::take(model, path, call)).transpose()?;
    let engine = engine.map(|(variant, files)| {
        parts.extend(files.map(|(name, content)| (name, vec![content])));
        variant
    });
    for file in &model.card().side_files {
        parts.push((format!("{ASSETS}/{}", file.name), vec![file.content.read().at(|| &file.name)?]));
    }
    let mut manifest = manifest(runtime, model, options, contract);
    manifest.variants = engine.into_iter().chain(made.into_iter().map(|m| m.variant)).collect();
    manifest.lineage = lineage;
    manifest.warnings = warnings;
    Ok(Draft { parts, manifest })
}

fn size(parts: &[Part]) -> u64 {
    parts.iter().flat_map(|part| &part.1).map(|bytes| bytes.len() as u64).sum()
}

fn check_target(path: &Path, options: &CompileOptions) -> Result<()> {
    if path.file_name().is_none() {
        bail!(InvalidArgument, "{path:?} does not name a package");
    }
    if path.exists() && !(super::is_package(path) && path.is_dir() != options.single_file) {
        return Err(crate::error::error!(InvalidArgument, "the path exists and is not a package of this kind")
            .at(path.display()));
    }
    let folder = files::parent_of(path);
    if !folder.is_dir() {
        bail!(NotFound, "the folder {folder:?} does not exist");
    }
    Ok(())
}

/// Returns the files with the weights of all variants, each stored once, and with the graphs that refer to them.
fn shared_parts(made: &[variants::Made]) -> Result<Vec<Part>> {
    let mut pool = weights::Pool::default();
    let stub = |made: &variants::Made| -> ModelProto {
        let mut stub = made.model.proto().clone();
        pool.take(&mut stub);
        stub
    };
    let mut stubs: Vec<ModelProto> = made.iter().map(stub).collect();
    let (begin, pieces) = pool.pieces()?;
    let mut parts: Vec<Part> = vec![(WEIGHTS.to_owned(), pieces)];
    for (stub, made) in stubs.iter_mut().zip(made) {
        weights::place(stub, begin);
        parts.push((made.variant.file.clone(), save::encode(stub)));
    }
    Ok(parts)
}

/// Returns a packed file of each variant, and an empty weights file, because ONNX Runtime's manifest must name one.
/// Temporary files are written to `folder`.
fn packed_parts(made: &mut [variants::Made], folder: &Path, call: &Call) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = vec![(WEIGHTS.to_owned(), weights::Pool::default().pieces()?.1)];
    for made in made {
        let folder = ScratchFolder::in_folder(folder, "packed")?;
        let file = folder.path().join("model");
        made.model.save_packed(&file, call)?;
        // The mapping remains valid after the folder has been removed.
        let bytes = files::map(&files::open(&file)?, limits::DATA_FILE_BYTES)?;
        made.variant.file.push_str(PACKED);
        parts.push((made.variant.file.clone(), vec![bytes]));
    }
    Ok(parts)
}

fn manifest(runtime: &Runtime, model: &Model, options: &CompileOptions, shapes: Contract) -> Manifest {
    let cached = model.inputs().iter().any(|input| is_past(&input.name));
    let nodes = &model.graph().node;
    let shared = nodes.iter().any(|n| n.op_type.as_deref() == Some("GroupQueryAttention"));
    let kv_scheme = cached.then(|| if shared { "in-place" } else { "concatenated" }.to_owned());
    Manifest {
        format: FORMAT,
        library_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_version: runtime.version().to_owned(),
        runtime_minimum: "1.24".to_owned(),
        inputs: describe(&model.inputs()),
        outputs: describe(&model.outputs()),
        shapes,
        card: model.card().clone(),
        kv_scheme,
        variants: Vec::new(),
        licence: options.licence.clone(),
        warnings: Vec::new(),
        lineage: Vec::new(),
        files: BTreeMap::new(),
    }
}

/// Hashes the files of a package, and returns them with the manifests, their hash and their signature, and the archive
/// entry of each file.
fn finish(
    mut parts: Vec<Part>,
    mut manifest: Manifest,
    options: &CompileOptions,
    ticket: &Ticket,
) -> Result<(Vec<Part>, Vec<Entry>)> {
    let mut entries = Vec::new();
    for (name, pieces) in &parts {
        let (entry, file) = measure(name, pieces, ticket)?;
        manifest.files.insert(name.clone(), file);
        entries.push(entry);
    }
    let mut text = |name: &str, content: Vec<u8>, manifest: Option<&mut Manifest>| -> Result<()> {
        let pieces = vec![Bytes::from(content)];
        let (entry, file) = measure(name, &pieces, &Ticket::default())?;
        if let Some(manifest) = manifest {
            manifest.files.insert(name.to_owned(), file);
        }
        parts.push((name.to_owned(), pieces));
        entries.push(entry);
        Ok(())
    };
    let theirs = manifest.to_theirs(&manifest.files[WEIGHTS]);
    text(THEIRS, theirs.into_bytes(), Some(&mut manifest))?;
    let ours = manifest.to_json().into_bytes();
    // A package that cannot be opened must not replace another one.
    Manifest::read(&ours).map_err(|e| error!(Internal, "the manifest cannot be read back: {e}"))?;
    text(SEAL, verify::seal(&ours).into_bytes(), None)?;
    if let Some(key) = &options.key {
        text(SIGNATURE, verify::sign(key, &ours).into_bytes(), None)?;
    }
    text(OURS, ours, None)?;
    Ok((parts, entries))
}

fn measure(name: &str, pieces: &[Bytes], ticket: &Ticket) -> Result<(Entry, FileOf)> {
    let (mut hash, mut crc, mut bytes) = (Sha256::new(), crc32fast::Hasher::new(), 0);
    for piece in pieces {
        files::stream(piece, &mut std::io::sink(), |part| {
            hash.update(part);
            crc.update(part);
            bytes += part.len() as u64;
            ticket.add(part.len() as u64);
            ticket.check()
        })?;
    }
    let sha256 = hex(&hash.finalize());
    Ok((Entry { name: name.to_owned(), size: bytes, crc: crc.finalize() }, FileOf { bytes, sha256 }))
}

fn write_file(path: &Path, parts: &[Part], entries: &[Entry], ticket: &Ticket) -> Result<Saved> {
    let mut out = BufWriter::new(AtomicFile::create(path)?);
    let (mut hash, mut written) = (Sha256::new(), 0);
    write_archive(parts, entries, &mut |bytes, counts| {
        files::stream(bytes, &mut out, |part| {
            hash.update(part);
            written += part.len() as u64;
            ticket.add(if counts { part.len() as u64 } else { 0 });
            ticket.check()
        })
    })?;
    out.flush()?;
    out.into_inner().map_err(|e| e.into_error())?.commit()?;
    Ok(Saved { files: vec![SavedFile { path: path.to_owned(), bytes: written, sha256: hex(&hash.finalize()) }] })
}

/// Passes the bytes of a package in one file to `put` in order, with whether they are the content of an entry.
fn write_archive(parts: &[Part], entries: &[Entry], put: &mut dyn FnMut(&[u8], bool) -> Result<()>) -> Result<()> {
    let skeleton = archive::skeleton(entries);
    for ((_, header), (_, pieces)) in skeleton.headers.iter().zip(parts) {
        put(header, false)?;
        pieces.iter().try_for_each(|piece| put(piece, true))?;
    }
    put(&skeleton.tail, false)
}

fn write_folder(path: &Path, parts: &[Part], ticket: &Ticket) -> Result<Saved> {
    // The folder is removed if the package is not finished.
    let draft = ScratchFolder::beside(path)?;
    let mut saved = Saved { files: Vec::new() };
    for (name, pieces) in parts {
        let to = draft.path().join(name);
        std::fs::create_dir_all(files::parent_of(&to))?;
        let mut out = BufWriter::new(AtomicFile::create(&to)?);
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        for piece in pieces {
            files::stream(piece, &mut out, |part| {
                hash.update(part);
                bytes += part.len() as u64;
                ticket.add(part.len() as u64);
                ticket.check()
            })?;
        }
        out.flush()?;
        out.into_inner().map_err(|e| e.into_error())?.commit()?;
        saved.files.push(SavedFile { path: path.join(name), bytes, sha256: hex(&hash.finalize()) });
    }
    ticket.check()?;
    files::replace_folder(draft.path(), path)?;
    Ok(saved)
}
