//! Handing a model to ONNX Runtime without copying its weights.
//!
//! ONNX Runtime gets a small model in which each large weight is an external reference, and for each of them
//! a value that reads the bytes where they lie: in the mapped file, as a rule. So it never opens a file that
//! a stranger named, models above protobuf's 2 GiB need no other path, and the kernel can take back pages.

use super::mapped::{self, Lent};
use super::tensor::is_aligned;
use crate::error::{Context, Result, bail};
use crate::limits;
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{EXTERNAL, ModelProto, StringStringEntryProto, TensorProto};
use crate::onnx::save;
use bytes::Bytes;
use ort::session::builder::SessionBuilder;

/// Weights below this many bytes stay in the model: ONNX Runtime reads shapes and axes from them.
const LENT_FROM: usize = 4096;
/// What an external reference must name; no such file is ever opened.
const NOWHERE: &str = "weights-are-in-memory";

/// A model in the form ONNX Runtime takes.
pub struct Parts {
    /// The encoded model without its large weights.
    pub stub: Vec<u8>,
    /// The large weights, by name.
    pub lent: Vec<(String, Lent)>,
}

/// Takes a model apart. [`crate::error::Kind::LimitExceeded`] if what cannot be lent is above protobuf's limit.
pub fn parts(model: &Model) -> Result<Parts> {
    let mut stub: ModelProto = model.proto().clone();
    let mut lent = Vec::new();
    for tensor in stub.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        let Some((dtype, bytes)) = lendable(tensor) else { continue };
        let name = tensor.name.clone().unwrap_or_default();
        let value = mapped::lend(dtype, &tensor.dims, bytes).at(|| format!("initializer {name:?}"))?;
        refer_to_nowhere(tensor);
        lent.push((name, value));
    }
    let segments = save::encode(&stub);
    let length: u64 = segments.iter().map(|s| s.len() as u64).sum();
    if length > limits::MODEL_PROTO_BYTES {
        bail!(LimitExceeded, "{length} bytes of the model are not in large initializers; protobuf ends at 2 GiB");
    }
    Ok(Parts { stub: segments.concat(), lent })
}

/// Type and bytes of a weight that can be read where it lies.
fn lendable(tensor: &TensorProto) -> Option<(DataType, Bytes)> {
    let dtype = DataType::from_onnx(tensor.data_type?).filter(|dtype| *dtype != DataType::String)?;
    let bytes = tensor.raw_data.as_ref().filter(|raw| raw.len() >= LENT_FROM)?;
    is_aligned(bytes, dtype).then(|| (dtype, bytes.clone()))
}

fn refer_to_nowhere(tensor: &mut TensorProto) {
    tensor.raw_data = None;
    tensor.data_location = Some(EXTERNAL);
    tensor.external_data = vec![StringStringEntryProto {
        key: Some("location".to_owned()),
        value: Some(Bytes::from_static(NOWHERE.as_bytes())),
        ..Default::default()
    }];
}

/// Gives the weights to a session in the making. What comes back must outlive the session.
pub fn give(mut builder: SessionBuilder, lent: Vec<(String, Lent)>) -> Result<(SessionBuilder, Vec<Bytes>)> {
    let mut kept = Vec::with_capacity(lent.len());
    for (name, Lent { value, bytes }) in lent {
        builder = builder.with_external_initializer(&name, value)?;
        kept.push(bytes);
    }
    Ok((builder, kept))
}
