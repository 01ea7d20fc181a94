//! Old graphs lifted to an operator set that has what gradients are made of.

use crate::error::{Result, bail};
use crate::graph::edit;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto};
use bytes::Bytes;

/// `ScatterND` adds since 16; `LayerNormalization` is there since 17.
const WANTED: i64 = 17;
/// What is known to mean the same, but for what is changed here.
const OLDEST: i64 = 9;

/// Lifts a model of operator set 9 to 16 to 17. Newer ones stay as they are.
///
/// What changed between them: axes of `Squeeze`, `Unsqueeze`, `ReduceSum`, and sizes of `Split`, became inputs (13);
/// `Softmax` no longer flattens (13). Source: the ONNX change log, `docs/Changelog.md`.
pub fn upgrade(model: &mut ModelProto) -> Result<()> {
    edit::modernize_ir(model);
    let default = |domain: Option<&str>| matches!(domain, None | Some("" | "ai.onnx"));
    let Some(import) = model.opset_import.iter_mut().find(|o| default(o.domain.as_deref())) else { return Ok(()) };
    let from = import.version.unwrap_or(0);
    if from >= WANTED {
        return Ok(());
    }
    if from < OLDEST {
        bail!(Unsupported, "operator set {from} is too old to differentiate, at least {OLDEST} is needed");
    }
    import.version = Some(WANTED);
    model.ir_version = model.ir_version.max(Some(8));
    if from >= 13 {
        return Ok(());
    }
    let Some(graph) = model.graph.as_deref_mut() else { return Ok(()) };
    let mut added = Vec::new();
    for (index, node) in graph.node.iter_mut().enumerate() {
        lift(node, &format!("upgraded/{index}"), &mut added)?;
    }
    graph.initializer.append(&mut added);
    Ok(())
}

fn lift(node: &mut NodeProto, name: &str, added: &mut Vec<TensorProto>) -> Result<()> {
    let attribute = match node.op() {
        "Squeeze" | "Unsqueeze" | "ReduceSum" => "axes",
        "Split" => "split",
        "Softmax" | "LogSoftmax" => match node.int("axis", 1) {
            -1 => return Ok(()),
            // Where the axis is the last one nothing changes; ranks are not known here, so it is only asked for.
            axis => bail!(Unsupported, "node {:?}: {} of operator set 12 over axis {axis}", node.label(), node.op()),
        },
        _ => return Ok(()),
    };
    let Some(at) = node.attribute.iter().position(|a| a.name.as_deref() == Some(attribute)) else { return Ok(()) };
    let values = node.attribute.remove(at).ints;
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    added.push(edit::tensor(name, DataType::Int64, &[values.len() as i64], Bytes::from(raw)));
    node.input.push(name.to_owned());
    Ok(())
}
