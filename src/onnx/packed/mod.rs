//! A model in one file in which the zeros of large tensors take about one bit each and floats about 15 % less; the
//! elements are restored exactly.
//!
//! ```text
//! magic 8 bytes, version u32 (1), 0 u32
//! pieces of tensors, one after another (see `codec`)
//! the model without the elements of its large tensors: an ONNX file, as one zstd frame
//! padding
//! index: for each tensor its size u64, size of an element u8, and the stored size u32 of each piece of 1 MiB
//! footer: offset, stored size and size of the model; offset, size and tensors of the index, each u64;
//!         SHA-256 of everything before it
//! ```
//!
//! All integers are little-endian, all sizes in bytes. A tensor in the index is the `offset`-th external tensor of the
//! model, whose `location` is `packed`. The unpacked model is at most [`limits::PACKED_PER_BYTE`] times as large as the
//! file, if necessary with padding, so that a small file cannot request much memory.
//!
//! Reading unpacks the large tensors into an unlinked file in the system's temporary folder, which is mapped, so that
//! they take disk space and not memory.

mod codec;

use super::proto::{EXTERNAL, ModelProto, StringStringEntryProto, TensorProto};
use super::save::{self, Saved, SavedFile};
use super::sink::{self, FileSink};
use super::wire::Reader;
use super::{data_name, dtype::DataType, tensors};
use crate::call::{Call, Stage, Ticket};
use crate::error::{Context, Result, bail, error};
use crate::files::digest::hex;
use crate::files::{self, AtomicFile, Scratch};
use crate::limits;
use crate::threads::in_pool;
use bytes::Bytes;
use codec::{Cursor, PIECE, WIDEST};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::io::{BufWriter, Write};
use std::path::Path;

const MAGIC: [u8; 8] = *b"\x93ONNXPK\n";
const VERSION: u32 = 1;
const HEADER: usize = 16;
const FOOTER: usize = 6 * 8 + 32;
/// The location of packed tensors, in place of a file name.
const LOCATION: &str = "packed";
/// The size in bytes below which a tensor stays in the model, unpacked.
const PACKED_FROM: usize = 1024;
/// The number of chunks that are encoded in parallel before they are written.
const AT_ONCE: usize = 32;
/// The compression level of the model itself, which is small and repetitive.
const LEVEL: i32 = 12;

/// Returns whether `bytes` begin like a packed model.
pub fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// A large tensor that is written to a packed file.
struct Tensor {
    bytes: Bytes,
    width: usize,
}

/// Saves `model` packed at `path`, which is replaced only when the file is complete, and returns what was written. The
/// same model gives the same bytes. `call` receives the stage `save` in bytes and can cancel, which changes nothing on
/// disk. Fails like [`save::to_file`].
pub fn to_file(model: &ModelProto, path: &Path, call: &Call) -> Result<Saved> {
    let place = |e: crate::error::Error| if e.place().is_empty() { e.at(path.display()) } else { e };
    save::check(model, path).map_err(place)?;
    let (stub, large) = take(model).map_err(place)?;
    let total = stub.len() as u64 + large.iter().map(|t| t.bytes.len() as u64).sum::<u64>();
    let work = |ticket: &Ticket| in_pool(|| write_file(&stub, &large, path, ticket));
    let saved = call.drive(Stage::SAVE, total, work).map_err(place)?;
    data_name::remove_stale(path, None);
    Ok(saved)
}

/// Passes `model`, packed, to a sink as the file `name`, and returns what was written. The sink is called on the
/// caller's thread. `call` receives the stage `save` in bytes, of an unknown total, and can cancel. Fails like
/// [`save::to_sink`].
pub fn to_sink(model: &ModelProto, sink: &dyn FileSink, name: &str, call: &Call) -> Result<Saved> {
    save::check_sink(model, Path::new(name)).at(|| name)?;
    let (stub, large) = take(model).at(|| name)?;
    let work = |out: &mut (dyn Write + Send)| {
        let mut out = Out { file: out, hash: Sha256::new(), written: 0 };
        in_pool(|| write(&stub, &large, &mut out, &Ticket::default()))
    };
    Ok(Saved { files: vec![sink::file(sink, name, (call, 0), work).at(|| name)?] })
}

/// Returns the encoded model without its large tensors, and these tensors.
fn take(model: &ModelProto) -> Result<(Vec<u8>, Vec<Tensor>)> {
    let (mut stub, mut large) = (model.clone(), Vec::new());
    tensors::for_each_tensor(&mut stub, &mut |tensor| {
        if let Some(bytes) = tensor.raw_data.take_if(|raw| raw.len() >= PACKED_FROM) {
            let bits = tensor.data_type.and_then(DataType::from_onnx).map_or(8, DataType::bits) as usize;
            let width = if bytes.len().is_multiple_of((bits / 8).max(1)) { (bits / 8).max(1) } else { 1 };
            let entry = |key: &str, value: String| StringStringEntryProto {
                key: Some(key.to_owned()),
                value: Some(value.into()),
                ..Default::default()
            };
            tensor.data_location = Some(EXTERNAL);
            tensor.external_data = vec![entry("location", LOCATION.into()), entry("offset", large.len().to_string())];
            large.push(Tensor { bytes, width });
        }
        Ok(())
    })?;
    let stub: Vec<u8> = save::encode(&stub).concat();
    if stub.len() as u64 > limits::MODEL_PROTO_BYTES {
        bail!(LimitExceeded, "the model has {} bytes without its weights; the limit of protobuf is 2 GiB", stub.len());
    }
    Ok((stub, large))
}

/// An output whose content is hashed as it is written.
struct Out<W> {
    file: W,
    hash: Sha256,
    written: u64,
}

impl<W: Write> Out<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(self.file.write_all(bytes)?)
    }
}

fn write_file(stub: &[u8], large: &[Tensor], path: &Path, ticket: &Ticket) -> Result<Saved> {
    let mut out = Out { file: BufWriter::new(AtomicFile::create(path)?), hash: Sha256::new(), written: 0 };
    write(stub, large, &mut out, ticket)?;
    let Out { mut file, hash, written } = out;
    file.flush()?;
    // This is the last moment at which a cancel still keeps the old file.
    ticket.check()?;
    file.into_inner().map_err(|e| e.into_error())?.commit()?;
    let sha256 = hex(&hash.finalize());
    Ok(Saved { files: vec![SavedFile { path: path.to_owned(), bytes: written, sha256 }] })
}

fn write(stub: &[u8], large: &[Tensor], out: &mut Out<impl Write>, ticket: &Ticket) -> Result<()> {
    out.put(&MAGIC)?;
    out.put(&[VERSION.to_le_bytes(), [0; 4]].concat())?;
    let mut index = Vec::new();
    for tensor in large {
        index.extend((tensor.bytes.len() as u64).to_le_bytes());
        index.push(tensor.width as u8);
        for group in tensor.bytes.chunks(AT_ONCE * PIECE) {
            let pack = |piece: &[u8]| {
                ticket.check()?;
                let stored = codec::encode(piece, tensor.width)?;
                files::release(piece);
                ticket.add(piece.len() as u64);
                Ok(stored)
            };
            for stored in group.par_chunks(PIECE).map(pack).collect::<Result<Vec<_>>>()? {
                index.extend((stored.len() as u32).to_le_bytes());
                out.put(&stored)?;
            }
        }
    }
    let (stub_at, stored) = (out.written, zstd::bulk::compress(stub, LEVEL)?);
    out.put(&stored)?;
    let all = stub.len() as u64 + large.iter().map(|t| t.bytes.len() as u64).sum::<u64>();
    let mut short = (all / limits::PACKED_PER_BYTE).saturating_sub(out.written);
    while short > 0 {
        let zeros = vec![0u8; short.min(PIECE as u64) as usize];
        out.put(&zeros)?;
        short -= zeros.len() as u64;
    }
    let index_at = out.written;
    out.put(&index)?;
    let sizes = [stub_at, stored.len() as u64, stub.len() as u64, index_at, index.len() as u64, large.len() as u64];
    out.put(&sizes.map(u64::to_le_bytes).concat())?;
    let digest = out.hash.clone().finalize();
    out.put(&digest)?;
    ticket.add(stub.len() as u64);
    Ok(())
}

/// The parts of a packed file, still encoded.
struct Parts {
    stub: Bytes,
    stub_bytes: usize,
    tensors: Vec<Packed>,
}

/// A tensor in a packed file.
struct Packed {
    width: usize,
    bytes: usize,
    pieces: Vec<Bytes>,
}

/// Returns the model of a packed file; none of its tensors is external. Fails with `InvalidModel` if the file is
/// damaged, `Unsupported` if a later version wrote it, and `LimitExceeded` if it would expand to too many bytes.
pub fn read(bytes: &Bytes) -> Result<ModelProto> {
    let parts = parts(bytes)?;
    verify(bytes)?;
    let stub = codec::unpack(&parts.stub, true, parts.stub_bytes).at(|| "the model")?;
    let mut proto: ModelProto = Reader::new(Bytes::from(stub)).read_message()?;
    let scratch = Scratch::new(&std::env::temp_dir());
    let tensor = |(number, tensor)| unpack(tensor, &scratch).at(|| format!("packed tensor {number}")).map(Some);
    let mut unpacked: Vec<Option<Bytes>> = in_pool(|| parts.tensors.iter().enumerate().map(tensor).collect())?;
    tensors::for_each_tensor(&mut proto, &mut |tensor| resolve(tensor, &mut unpacked))?;
    match unpacked.iter().position(Option::is_some) {
        Some(number) => bail!(InvalidModel, "no tensor of the model uses packed tensor {number}"),
        None => Ok(proto),
    }
}

/// Returns the parts of a packed file. Every size is checked before memory of that size is allocated.
fn parts(file: &Bytes) -> Result<Parts> {
    let length = file.len();
    if length < HEADER + FOOTER {
        bail!(InvalidModel, "the packed model is truncated after {length} bytes");
    }
    let version = Cursor(&file[MAGIC.len()..]).u32()?;
    if version != VERSION {
        bail!(
            Unsupported,
            "the model is packed in format {version}; this version of the library supports format {VERSION}"
        );
    }
    let mut footer = Cursor(&file[length - FOOTER..]);
    let mut number = || footer.u64().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let (stub_at, stub_stored, stub_bytes) = (number()?, number()?, number()?);
    let (index_at, index_bytes, count) = (number()?, number()?, number()?);
    let stub_end = stub_at.checked_add(stub_stored).filter(|end| stub_at >= HEADER && *end <= index_at);
    let index_end = index_at.checked_add(index_bytes).filter(|end| *end == length - FOOTER);
    let (Some(stub_end), Some(index_end)) = (stub_end, index_end) else {
        bail!(InvalidModel, "the chunks of the packed file exceed its {length} bytes");
    };
    let most = (length as u64).saturating_mul(limits::PACKED_PER_BYTE).saturating_add(limits::PACKED_BYTES);
    let mut total = stub_bytes as u64;
    let too_large = |total: u64| error!(LimitExceeded, "{length} packed bytes expand to {total}; the limit is {most}");
    if total > most || total > limits::MODEL_PROTO_BYTES {
        return Err(too_large(total));
    }
    let (mut index, mut at, mut tensors) = (Cursor(&file[index_at..index_end]), HEADER, Vec::new());
    while !index.0.is_empty() {
        let (bytes, width) = (index.u64()?, usize::from(index.take(1)?[0]));
        total = total.saturating_add(bytes);
        if total > most {
            return Err(too_large(total));
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if width == 0 || width > WIDEST || !PIECE.is_multiple_of(width) || !bytes.is_multiple_of(width) {
            bail!(InvalidModel, "a packed tensor has {bytes} bytes of elements of {width}");
        }
        let mut pieces = Vec::new();
        for _ in 0..bytes.div_ceil(PIECE) {
            let end = at + index.u32()? as usize;
            if end > stub_at {
                bail!(InvalidModel, "the packed tensors exceed the space before the model, at {stub_at}");
            }
            pieces.push(file.slice(at..end));
            at = end;
        }
        tensors.push(Packed { width, bytes, pieces });
    }
    if tensors.len() != count || at != stub_at {
        bail!(InvalidModel, "the packed file has {} tensors in {at} bytes, not {count} in {stub_at}", tensors.len());
    }
    Ok(Parts { stub: file.slice(stub_at..stub_end), stub_bytes, tensors })
}

fn verify(file: &Bytes) -> Result<()> {
    let (content, digest) = file.split_at(file.len() - 32);
    let mut hash = Sha256::new();
    files::stream(content, &mut std::io::sink(), |piece| {
        hash.update(piece);
        Ok(())
    })?;
    if hash.finalize().as_slice() != digest {
        bail!(InvalidModel, "the packed model is damaged: its checksum does not match");
    }
    Ok(())
}

fn unpack(tensor: &Packed, scratch: &Scratch) -> Result<Bytes> {
    let slot = scratch.reserve(tensor.bytes)?;
    tensor.pieces.par_iter().enumerate().try_for_each(|(number, stored)| {
        let start = number * PIECE;
        let mut piece = vec![0u8; PIECE.min(tensor.bytes - start)];
        codec::decode(stored, tensor.width, &mut piece)?;
        files::release(stored);
        slot.write_at(start, &piece)
    })?;
    slot.finish()
}

/// Replaces the reference of a tensor to a packed tensor, if it has one, by the decoded elements, which are taken from
/// `unpacked`.
fn resolve(tensor: &mut TensorProto, unpacked: &mut [Option<Bytes>]) -> Result<()> {
    if tensor.data_location.unwrap_or(0) == 0 && tensor.external_data.is_empty() {
        return Ok(());
    }
    let [location, offset] = tensor.external_data.as_slice() else {
        bail!(InvalidModel, "the tensor is external, which is not allowed in a packed model");
    };
    let value = |entry: &StringStringEntryProto, key: &str| match entry.key.as_deref() == Some(key) {
        true => entry.value.as_deref().and_then(|v| std::str::from_utf8(v).ok()).map(str::to_owned),
        false => None,
    };
    let number = value(offset, "offset").and_then(|text| text.parse::<usize>().ok());
    let (Some(LOCATION), Some(number)) = (value(location, "location").as_deref(), number) else {
        bail!(InvalidModel, "the tensor is external, which is not allowed in a packed model");
    };
    let Some(bytes) = unpacked.get_mut(number).and_then(Option::take) else {
        bail!(InvalidModel, "the tensor refers to packed tensor {number}, which is missing or already used");
    };
    if tensor.raw_data.replace(bytes).is_some() {
        bail!(InvalidModel, "the tensor has both raw_data and packed elements");
    }
    tensor.external_data.clear();
    tensor.data_location = None;
    Ok(())
}
