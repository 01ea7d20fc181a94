//! The immutable model that techniques take and return ([`Model`]).

pub mod card;
pub mod contract;
pub mod expression;
pub mod longest;
pub mod names;
mod value;

pub use card::{Card, Format, GenerationDefaults, Pooling, SideContent, SideFile, Task};
pub use value::{Dim, ValueInfo};

use crate::call::{Call, Stage};
use crate::error::Result;
use crate::files;
use crate::files::digest::{FileIdentity, hex};
use crate::onnx::load;
use crate::onnx::packed;
use crate::onnx::proto::{GraphProto, ModelProto, ValueInfoProto};
use crate::onnx::save::{self, ExternalData, Saved};
use crate::onnx::sink::FileSink;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A model that was loaded or made by a technique. It is immutable and cheap to clone, and threads can share it.
#[derive(Clone)]
pub struct Model {
    proto: Arc<ModelProto>,
    origin: Arc<Origin>,
    card: Arc<Card>,
    ready: Option<Arc<Ready>>,
    /// Size of all files of the package that the model is in; `None` outside of a package.
    shipped: Option<u64>,
}

/// A variant of a model that sessions are created from in place of the model itself, for example a graph in a package
/// that was optimized or compiled for this processor.
pub struct Prepared {
    /// Name of the variant in messages.
    pub name: String,
    /// Graph and weights of the variant.
    pub model: Model,
    /// Whether the graph has already been optimized for this processor.
    pub ahead: bool,
    /// Path of the compiled graph, if the variant is compiled for this library's kernels; the file of its packed
    /// weights is in the same folder. `None` for other variants.
    pub compiled: Option<PathBuf>,
}

/// A function that returns the variant to create sessions from; `None` if they are created from the model itself. Its
/// arguments are the version of ONNX Runtime, and `Ok` if this library's kernels can be used, or else the reason why
/// not.
pub type Ready = dyn Fn(&str, &std::result::Result<(), String>) -> Result<Option<Prepared>> + Send + Sync;

/// The files that a model came from.
#[derive(Default)]
struct Origin {
    /// Path of the file or folder that the user named.
    path: Option<PathBuf>,
    /// Paths (names, for files that came from memory) of all files of the model with their content, the `.onnx` file
    /// first; empty for the result of a technique.
    files: Vec<(PathBuf, Bytes)>,
}

impl Model {
    /// Loads one `.onnx` file with its weights, and returns the model; other files next to it are ignored. It is meant
    /// for files that this library or ONNX Runtime wrote; use [`Model::load`] for a path from a user. Fails with
    /// `NotFound` or `Io` if the file cannot be read, and with `InvalidModel`, `LimitExceeded` or `Unsupported` if it
    /// is not a valid model.
    pub fn from_file(path: &Path) -> Result<Model> {
        let loaded = load::from_file(path)?;
        Ok(Model::assemble(loaded.proto, Card::default(), path, loaded.files))
    }

    /// Loads a model from the bytes of an `.onnx` or packed file and returns it. Fails with `InvalidModel`,
    /// `LimitExceeded` or `Unsupported` if the bytes are not a valid model, and with `InvalidArgument` if the model has
    /// external data, because there is no folder to read it from.
    pub fn from_bytes(bytes: Bytes) -> Result<Model> {
        let loaded = load::from_bytes(bytes.clone(), None)?;
        Ok(Model::from_memory(loaded.proto, Card::default(), vec![(PathBuf::new(), bytes)]))
    }

    /// Returns a model in memory. `proto` must not have external tensors.
    pub fn from_proto(proto: ModelProto) -> Model {
        let card = Card { format: Format::Memory, ..Card::default() };
        Model { proto: Arc::new(proto), origin: Arc::default(), card: Arc::new(card), ready: None, shipped: None }
    }

    /// Returns a model that a reader of [`crate::source`] built. `files` are the paths of all its files with their
    /// content.
    pub fn assemble(proto: ModelProto, card: Card, path: &Path, files: Vec<(PathBuf, Bytes)>) -> Model {
        let origin = Origin { path: Some(path.to_owned()), files };
        Model { proto: Arc::new(proto), origin: Arc::new(origin), card: Arc::new(card), ready: None, shipped: None }
    }

    /// Returns a model like [`Model::assemble`] without a path. `files` are the names and contents of its files, which
    /// the program provided in memory.
    pub fn from_memory(proto: ModelProto, card: Card, files: Vec<(PathBuf, Bytes)>) -> Model {
        let origin = Origin { path: None, files };
        Model { proto: Arc::new(proto), origin: Arc::new(origin), card: Arc::new(card), ready: None, shipped: None }
    }

    /// Returns the same model with another card.
    pub fn with_card(self, card: Card) -> Model {
        Model { card: Arc::new(card), ..self }
    }

    /// Returns a model with the graph of `proto` and the card of this one, for the result of a technique. It has no
    /// path and no files.
    pub fn derive(&self, proto: ModelProto) -> Model {
        Model { proto: Arc::new(proto), origin: Arc::default(), card: self.card.clone(), ready: None, shipped: None }
    }

    /// Returns the same model with a function that chooses the variant for its sessions. Results of techniques
    /// ([`Model::derive`]) do not inherit the function.
    pub fn with_ready(self, ready: Arc<Ready>) -> Model {
        Model { ready: Some(ready), ..self }
    }

    /// Returns the variant from which sessions are created instead of this model, such as the compiled variant of a
    /// package; `None` if they are created from this model. [`Ready`] describes the arguments. Fails if that function
    /// fails, for example because a file of the package is damaged (`InvalidModel`).
    pub fn ready(&self, runtime_version: &str, kernels: &std::result::Result<(), String>) -> Result<Option<Prepared>> {
        self.ready.as_ref().map_or(Ok(None), |ready| ready(runtime_version, kernels))
    }

    /// Returns the facts about the model that are not in its graph.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Returns the protobuf message of the model. Weights are in `raw_data` or the typed fields, never external.
    pub fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// Returns the main graph; an empty one if the message has none.
    pub fn graph(&self) -> &GraphProto {
        static EMPTY: std::sync::LazyLock<GraphProto> = std::sync::LazyLock::new(GraphProto::default);
        self.proto.graph.as_deref().unwrap_or(&EMPTY)
    }

    /// Returns the path that the user named; `None` for a model from memory and for the result of a technique.
    pub fn path(&self) -> Option<&Path> {
        self.origin.path.as_deref()
    }

    /// Returns the content of the file from which the model was loaded; `None` if it has several files, or none.
    pub(crate) fn file(&self) -> Option<&Bytes> {
        match self.origin.files.as_slice() {
            [(_, bytes)] => Some(bytes),
            _ => None,
        }
    }

    /// Returns the inputs that a run requires, in the order of the graph: the graph's inputs without those that have a
    /// default value (an initializer).
    pub fn inputs(&self) -> Vec<ValueInfo> {
        let graph = self.graph();
        let constants: std::collections::HashSet<&str> = graph
            .initializer
            .iter()
            .chain(graph.sparse_initializer.iter().filter_map(|s| s.values.as_deref()))
            .filter_map(|t| t.name.as_deref())
            .collect();
        let fed = |v: &&ValueInfoProto| !constants.contains(v.name.as_deref().unwrap_or(""));
        graph.input.iter().filter(fed).map(ValueInfo::from).collect()
    }

    /// Returns the outputs of the graph, in its order.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.graph().output.iter().map(ValueInfo::from).collect()
    }

    /// Returns the opset version of the default domain (`ai.onnx`); 0 if the model imports none.
    pub fn opset(&self) -> i64 {
        let default = |domain: Option<&str>| matches!(domain, None | Some("" | "ai.onnx"));
        let import = self.proto.opset_import.iter().find(|o| default(o.domain.as_deref()));
        import.and_then(|o| o.version).unwrap_or(0)
    }

    /// Returns the size of the model's files in bytes, including external data; for a model without files, the size
    /// that it would have as an ONNX file.
    pub fn bytes(&self) -> u64 {
        if self.origin.files.is_empty() {
            return self.onnx_bytes();
        }
        self.origin.files.iter().map(|f| f.1.len() as u64).sum()
    }

    /// Returns the size in bytes of the files with which the model is shipped: for a model in a package, of all files
    /// of the package, which can contain several variants of the graph; otherwise [`Model::bytes`].
    pub fn shipped_bytes(&self) -> u64 {
        self.shipped.unwrap_or_else(|| self.bytes())
    }

    /// Returns the model with `bytes` as [`Model::shipped_bytes`].
    pub(crate) fn shipped_in(self, bytes: u64) -> Model {
        Model { shipped: Some(bytes), ..self }
    }

    /// Returns the size of the model as an ONNX file in bytes, whatever its file format is.
    pub(crate) fn onnx_bytes(&self) -> u64 {
        save::encode(&self.proto).iter().map(|s| s.len() as u64).sum()
    }

    /// Returns whether two models are the same: if they share their message in memory, or if the contents of their
    /// files and their configurations are equal. Models without files are equal only in the first case.
    pub fn same_as(&self, other: &Model) -> bool {
        if Arc::ptr_eq(&self.proto, &other.proto) {
            return true;
        }
        let (a, b) = (&self.origin.files, &other.origin.files);
        let same = |((_, a), (_, b)): (&(PathBuf, Bytes), &(PathBuf, Bytes))| a.len() == b.len() && a == b;
        !a.is_empty()
            && self.card.config == other.card.config
            && a.len() == b.len()
            && self.bytes() == other.bytes()
            && a.iter().zip(b).all(same)
    }

    /// Returns whether the weights come from a packed file.
    pub fn is_packed(&self) -> bool {
        self.origin.files.first().is_some_and(|(_, bytes)| packed::is_packed(bytes))
    }

    /// Returns the path, the size ([`Model::shipped_bytes`]) and the SHA-256 of the model's files, all of which are
    /// read. [`FileIdentity`] describes the values. `call` receives the stage `hash` and can cancel. Fails only like
    /// [`Call::check`].
    pub fn identity(&self, call: &Call) -> Result<FileIdentity> {
        let path = self.path().map(|p| p.display().to_string());
        let bytes = self.shipped_bytes();
        let sha256 = call.drive(Stage::HASH, self.bytes(), |ticket| {
            let digest = |pieces: &[Bytes]| -> Result<Vec<u8>> {
                let mut hash = Sha256::new();
                for piece in pieces {
                    files::stream(piece, &mut std::io::sink(), |part| {
                        hash.update(part);
                        ticket.add(part.len() as u64);
                        ticket.check()
                    })?;
                }
                Ok(hash.finalize().to_vec())
            };
            match self.origin.files.as_slice() {
                [] => digest(&save::encode(&self.proto)),
                [(_, only)] => digest(std::slice::from_ref(only)),
                many => {
                    let each: Result<String> =
                        many.iter().map(|f| Ok(hex(&digest(std::slice::from_ref(&f.1))?))).collect();
                    Ok(Sha256::digest(each?).to_vec())
                }
            }
        })?;
        Ok(FileIdentity { path, bytes, sha256: hex(&sha256) })
    }

    /// Saves the model at `path`, and returns the files that were written. Fails like [`save::to_file`], which
    /// describes the arguments.
    pub fn save(&self, path: &Path, external: ExternalData, call: &Call) -> Result<Saved> {
        save::to_file(&self.proto, path, external, call)
    }

    /// Saves the model as a packed file, in which weights that are zero take one bit each, and returns the files that
    /// were written; see [`packed`]. Fails like [`Model::save`].
    pub fn save_packed(&self, path: &Path, call: &Call) -> Result<Saved> {
        packed::to_file(&self.proto, path, call)
    }

    /// Passes the model to a sink as the file `name`, and returns the files that were passed. Fails like
    /// [`save::to_sink`], which describes the arguments.
    pub fn save_to(&self, sink: &dyn FileSink, name: &str, external: ExternalData, call: &Call) -> Result<Saved> {
        save::to_sink(&self.proto, sink, name, external, call)
    }

    /// Passes the model to a sink as the packed file `name`, and returns the files that were passed. Fails like
    /// [`packed::to_sink`], which describes the arguments.
    pub fn save_packed_to(&self, sink: &dyn FileSink, name: &str, call: &Call) -> Result<Saved> {
        packed::to_sink(&self.proto, sink, name, call)
    }
}
