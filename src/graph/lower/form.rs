//! The attributes and sizes of a `GroupQueryAttention` node ([`Form`]), and the check whether it can be lowered.

use super::grouped::Past;
use crate::error::{Result, bail};
use crate::model::{Dim, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto};

/// The oldest opset that has the standard operators as they are used here, with `axes` as an input, for example.
pub const OLDEST: i64 = 13;
/// The reason why a node is not lowered before [`OLDEST`].
pub const TOO_OLD: &str = "it is lowered from opset 13 on";

/// The largest accepted number of heads, and of elements per head.
const LARGEST: i64 = 1 << 20;

/// The attributes of a `GroupQueryAttention` node, and sizes that follow from its inputs.
pub(super) struct Form {
    /// Number of query heads.
    pub many: i64,
    /// Number of key and value heads.
    pub few: i64,
    /// Size of a head in elements.
    pub size: i64,
    /// Number of elements of a head that are rotated; 0 for none.
    pub width: i64,
    /// Number of tokens that a token attends to, with itself (`local_window_size`); 0 or less for no limit.
    pub window: i64,
    /// Factor of the scores.
    pub scale: f32,
    /// Limit of the magnitude of the scores (`softcap`); 0 for none.
    pub cap: f32,
    /// Name of the past's token dimension, if it has one. The pasts of layers with the same name have the same length.
    pub tokens: Option<String>,
}

impl Form {
    /// Returns the attributes of a node. Fails with [`crate::error::Kind::Unsupported`] if the node cannot be lowered,
    /// and with [`crate::error::Kind::InvalidModel`] if it lacks inputs or its numbers of heads do not match.
    pub fn of(graph: &GraphProto, node: &NodeProto, opset: i64, past: Past) -> Result<Form> {
        if opset < OLDEST {
            bail!(Unsupported, "{TOO_OLD}");
        }
        let (many, few) = (node.int("num_heads", 0), node.int("kv_num_heads", 0));
        if !(1..=LARGEST).contains(&many) || few < 1 || many % few != 0 {
            bail!(InvalidModel, "node {:?}: {many} query heads cannot share {few} key and value heads", node.label());
        }
        let more = node.input.iter().skip(9).any(|name| !name.is_empty());
        let scores = node.output.iter().skip(3).any(|name| !name.is_empty());
        if more || scores || node.int("smooth_softmax", 0) > 0 {
            bail!(Unsupported, "it has position ids, an attention bias, sinks or scales, or returns its scores");
        }
        if node.input_at(1).is_some() != node.input_at(2).is_some()
            || past == Past::Cache && [5, 6].iter().any(|i| node.input_at(*i).is_none())
        {
            bail!(InvalidModel, "node {:?} lacks inputs", node.label());
        }
        let (tokens, size) = of_past(graph, node, past)?;
        let tables = node.int("do_rotary", 0) != 0;
        if tables && [7, 8].iter().any(|i| node.input_at(*i).is_none()) {
            bail!(InvalidModel, "node {:?} has do_rotary, but no cos and sin caches", node.label());
        }
        let half = graph.initializer.iter().find(|t| t.name.as_deref() == node.input_at(7)).and_then(|t| t.dims.last());
        let said = node.int("rotary_embedding_dim", 0);
        Ok(Form {
            many,
            few,
            size,
            width: match half {
                _ if !tables => 0,
                Some(half) => 2 * half,
                None if said > 0 => said,
                None => size,
            },
            window: node.int("local_window_size", -1),
            scale: match node.float("scale", 0.0) {
                0.0 => 1.0 / (size as f32).sqrt(),
                scale => scale,
            },
            cap: node.float("softcap", 0.0),
            tokens,
        })
    }
}

/// Returns the name of the past's token dimension, and the size of a head. Fails with `Unsupported` if the past is not
/// a float32 input of the model (of any type for [`Past::Nothing`]), or does not declare the size.
fn of_past(graph: &GraphProto, node: &NodeProto, past: Past) -> Result<(Option<String>, i64)> {
    let name = node.input_at(3).filter(|_| past == Past::Nothing || node.input_at(4).is_some());
    let info = graph.input.iter().find(|i| name.is_some() && i.name.as_deref() == name).map(ValueInfo::from);
    let float = |info: &ValueInfo| past == Past::Nothing || info.dtype == Some(DataType::Float32);
    let Some(shape) = info.filter(float).and_then(|info| info.shape) else {
        bail!(Unsupported, "its past is not a float32 input of the model");
    };
    match shape.as_slice() {
        [_, _, tokens, Dim::Fixed(size)] if (1..=LARGEST).contains(size) => match tokens {
            Dim::Symbolic(name) if !name.is_empty() => Ok((Some(name.clone()), *size)),
            _ => Ok((None, *size)),
        },
        _ => bail!(Unsupported, "its past does not declare the head size"),
    }
}
