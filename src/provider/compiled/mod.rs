//! Compiled models: bodies with their packed weights in one file, which is mapped into memory, so that weights are not
//! packed again.
//!
//! ONNX Runtime writes the model (`ep.context_enable`, `ModelCompiler`), in which an `EPContext` node represents each
//! group. The provider writes the file next to it, `NAME.packed`. Both files are for one version of this library and
//! one class of processors; they are a cache of the standard model, which must be kept.
//!
//! The layout of the file, with the offset of each item in bytes (numbers are little-endian, with 64 bits):
//!
//! ```text
//!  0       MAGIC, length of the file, checksum of everything after these 64 bytes, number of parts, offset of table
//!  4096    packed weights, each at a multiple of 64
//!  ...     the parts: the numbers from which a body is restored, and the offsets of its weights
//!  table   offset and length of each part
//! ```

mod file;
mod part;

use std::path::{Path, PathBuf};

use super::abi::{ContextNode, Error, Result};
use super::bodies::{
    ActivationBody, AttentionBody, Body, GroupedBody, LinearBody, MlpBody, NormBody, PackedAttentionBody, Ports,
};
use super::graph::{FusedNode, Graph, Node, NodeId, ValueId};
use crate::kernels::Class;

use file::Packed;
pub use part::{Part, Reader};

/// Returns the description of compiled models that this library writes on this processor: its version and the class of
/// the processor.
pub fn information() -> String {
    format!("liboptimize {} {}", env!("CARGO_PKG_VERSION"), Class::detect().name())
}

/// Returns whether a compiled model with this description can be opened here.
pub fn is_ours(information: &str) -> bool {
    information == self::information()
}

/// A writer of the file of a compiled model.
pub struct Writer {
    path: PathBuf,
}

impl Writer {
    /// Returns the writer for the compiled model at `target`; if that is empty, the compiled model is `NAME_ctx.onnx`
    /// next to `model`.
    pub fn new(target: &Path, model: &Path) -> Self {
        let beside = || {
            let name = model.file_stem().unwrap_or(std::ffi::OsStr::new("model"));
            let mut name = name.to_os_string();
            name.push("_ctx.onnx");
            model.with_file_name(name)
        };
        let target = if target.as_os_str().is_empty() { beside() } else { target.to_path_buf() };
        let mut path = target.into_os_string();
        path.push(".packed");
        Self { path: path.into() }
    }

    /// Writes the file, and returns the nodes that represent `bodies` in the model. Fails if the file cannot be
    /// written, or if its name is not UTF-8.
    pub fn write(&self, bodies: &[(Box<dyn Body>, FusedNode)]) -> Result<Vec<ContextNode>> {
        file::write(&self.path, bodies.iter().map(|(body, _)| body.as_ref()))?;
        let name = self.path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error(format!("{}: the name is not UTF-8", self.path.display())))?;
        let node = |(index, (_, fused)): (usize, &(Box<dyn Body>, FusedNode))| ContextNode {
            fused: fused.clone(),
            texts: vec![
                ("ep_cache_context", name.to_owned()),
                ("source", super::NAME.to_string_lossy().into_owned()),
                ("notes", format!("part {index}")),
                ("ep_sdk_version", information()),
                ("partition_name", fused.name.clone()),
            ],
            numbers: vec![("embed_mode", 0), ("main_context", i64::from(index == 0))],
        };
        Ok(bodies.iter().enumerate().map(node).collect())
    }
}

/// A reader that restores bodies from the file of a compiled model, which stays mapped as long as one of them exists.
#[derive(Default)]
pub struct Opener {
    open: Vec<(PathBuf, Packed)>,
}

impl Opener {
    /// Returns the body that the `EPContext` `node` represents, from the file in `folder` that it names. `ports` are
    /// the indices of its inputs and outputs in the fused node that runs. Fails if the model was compiled for another
    /// version or class of processors, or if the file cannot be read or is damaged.
    pub fn open(&mut self, graph: &Graph<'_>, node: NodeId, ports: &Ports<'_>, folder: &Path) -> Result<Box<dyn Body>> {
        let made_for = graph.text(node, "ep_sdk_version").unwrap_or_default();
        if !is_ours(&made_for) {
            return Err(Error(format!("the model was compiled for {made_for}, but this is {}", information())));
        }
        let name = graph.text(node, "ep_cache_context").unwrap_or_default();
        let is_plain = !name.is_empty() && Path::new(&name).file_name() == Some(name.as_ref());
        if !is_plain || graph.int(node, "embed_mode", 0) != 0 {
            return Err(Error(format!("{name:?} is not the name of a file next to the model")));
        }
        let notes = graph.text(node, "notes").unwrap_or_default();
        let index = notes.strip_prefix("part ").and_then(|index| index.parse().ok());
        let index = index.ok_or_else(|| Error(format!("a node has no part number: {notes:?}")))?;
        let path = folder.join(name);
        let place = match self.open.iter().position(|(open, _)| *open == path) {
            Some(place) => place,
            None => {
                self.open.push((path.clone(), Packed::open(&path)?));
                self.open.len() - 1
            }
        };
        let outside = |value: &Option<ValueId>| value.ok_or_else(|| Error::new("an input of a node is omitted"));
        let Node { inputs, outputs, .. } = graph.node(node);
        let inputs = inputs.iter().map(|value| ports.input(outside(value)?)).collect::<Result<_>>()?;
        let outputs = outputs.iter().map(|value| ports.output(outside(value)?)).collect::<Result<_>>()?;
        let places = [inputs, outputs];
        let body = self.open[place].1.part(index, &places).and_then(|mut reader| body(&mut reader));
        body.map_err(|error| Error(format!("{}: part {index}: {error}", path.display())))
    }
}

/// Returns the body of a part. Fails if the part is damaged.
fn body(reader: &mut Reader<'_>) -> Result<Box<dyn Body>> {
    Ok(match reader.kind()? {
        "linear" => Box::new(LinearBody::open(reader)?),
        "attention" => Box::new(AttentionBody::open(reader)?),
        "packed attention" => Box::new(PackedAttentionBody::open(reader)?),
        "grouped attention" => Box::new(GroupedBody::open(reader)?),
        "norm" => Box::new(NormBody::open(reader)?),
        "activation" => Box::new(ActivationBody::open(reader)?),
        "mlp" => Box::new(MlpBody::open(reader)?),
        kind => return Err(Error(format!("the kind {kind:?} of a part is not supported here"))),
    })
}
