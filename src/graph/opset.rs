//! Conversion of a graph to a newer opset, so that it can be combined with a graph of that opset.

use super::edit::{Names, int_attribute, tensor};
use crate::error::{Result, bail};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};

/// The oldest opset that is converted. Before it, `axes` and `split` of many operators were attributes.
pub const OLDEST: i64 = 13;

/// The reductions whose `axes` became an input in opset 18.
const REDUCTIONS: [&str; 9] = [
    "ReduceMax",
    "ReduceMin",
    "ReduceMean",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceSumSquare",
];

/// The operators whose meaning changes after [`OLDEST`], each with the opset from which on it has the new meaning.
const CHANGED: [(&str, i64); 5] =
    [("BatchNormalization", 14), ("RoiAlign", 16), ("GridSample", 20), ("DFT", 20), ("GroupNormalization", 21)];

/// Returns the opset version of the default domain; 0 if there is none.
pub fn version(model: &ModelProto) -> i64 {
    let default = |domain: Option<&str>| matches!(domain, None | Some("" | "ai.onnx"));
    let import = model.opset_import.iter().find(|import| default(import.domain.as_deref()));
    import.and_then(|import| import.version).unwrap_or(0)
}

/// Converts a model to the opset `to` of the default domain. Models with that opset or a newer one are unchanged.
///
/// Fails with [`crate::error::Kind::Unsupported`] for a model of an opset below [`OLDEST`] or with functions, and for a
/// node whose operator has another meaning in the opset `to`, which the message names; then the model may be converted
/// in part. Source: the changelog of the ONNX operators.
pub fn raise(model: &mut ModelProto, to: i64) -> Result<()> {
    let from = version(model);
    if from >= to {
        return Ok(());
    }
    if from < OLDEST {
        bail!(Unsupported, "opset {from} cannot be converted to {to}; {OLDEST} and later can: export the model again");
    }
    if !model.functions.is_empty() {
        bail!(Unsupported, "a model with functions cannot be converted from opset {from} to {to}");
    }
    let mut names = Names::of(model);
    let mut constants = Vec::new();
    if let Some(graph) = &mut model.graph {
        in_graph(graph, from..to, &mut names, &mut constants)?;
        graph.initializer.extend(constants);
    }
    for import in &mut model.opset_import {
        if matches!(import.domain.as_deref(), None | Some("" | "ai.onnx")) {
            import.version = Some(to);
        }
    }
    Ok(())
}

fn in_graph(
    graph: &mut GraphProto,
    versions: std::ops::Range<i64>,
    names: &mut Names,
    constants: &mut Vec<TensorProto>,
) -> Result<()> {
    let crosses = |version: i64| versions.start < version && versions.end >= version;
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().map(|g| &mut **g).chain(&mut attribute.graphs) {
                in_graph(inner, versions.clone(), names, constants)?;
            }
        }
        let changed = CHANGED.iter().find(|(op, version)| node.is(op) && crosses(*version));
        if let Some((op, version)) = changed.filter(|_| !harmless(node)) {
            bail!(Unsupported, "node {:?}: {op} has another meaning from opset {version} on", node.label());
        }
        if crosses(18) && REDUCTIONS.iter().any(|op| node.is(op)) {
            axes_to_input(node, names, constants);
        }
        if crosses(18) && node.is("Split") && node.input_at(1).is_none() {
            node.attribute.push(int_attribute("num_outputs", node.output.len() as i64));
        }
    }
    Ok(())
}

/// Returns whether a node means the same before and after the change of its operator.
fn harmless(node: &NodeProto) -> bool {
    match node.op() {
        "BatchNormalization" => node.output.len() == 1 && node.int("training_mode", 0) == 0,
        "RoiAlign" => node.attribute("coordinate_transformation_mode").is_some(),
        _ => false,
    }
}

fn axes_to_input(node: &mut NodeProto, names: &mut Names, constants: &mut Vec<TensorProto>) {
    let Some(at) = node.attribute.iter().position(|attribute| attribute.name.as_deref() == Some("axes")) else {
        return;
    };
    let axes = node.attribute.remove(at).ints;
    let name = names.fresh(&format!("{}_axes", node.label()));
    let raw = axes.iter().flat_map(|axis| axis.to_le_bytes()).collect();
    constants.push(tensor(&name, DataType::Int64, &[axes.len() as i64], raw));
    node.input.truncate(1);
    node.input.push(name);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::{ints_attribute, node, value};
    use crate::model::Model;
    use crate::onnx::proto::OperatorSetIdProto;
    use crate::runtime::{Session, SessionOptions, Tensor, test_runtime};

    fn of(nodes: Vec<NodeProto>, version: i64) -> ModelProto {
        let graph = GraphProto {
            node: nodes,
            input: vec![value("x", DataType::Float32, 2)],
            output: vec![value("y", DataType::Float32, 2)],
            ..Default::default()
        };
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { version: Some(version), ..Default::default() }],
            graph: Some(Box::new(graph)),
            ..Default::default()
        }
    }

    #[test]
    fn what_became_an_input_becomes_one_and_means_the_same() {
        let mean = NodeProto { attribute: vec![ints_attribute("axes", &[1])], ..node("ReduceMean", &["x"], &["m"]) };
        let split = NodeProto { attribute: vec![int_attribute("axis", 1)], ..node("Split", &["x"], &["a", "b"]) };
        let nodes = vec![mean, split, node("Add", &["a", "m"], &["y"])];
        let old = of(nodes, 13);
        let mut new = old.clone();
        raise(&mut new, 21).unwrap();
        assert_eq!((version(&new), new.graph.as_ref().unwrap().initializer.len()), (21, 1));
        let run = |proto: ModelProto| {
            let call = Default::default();
            let model = Model::from_proto(proto);
            let session = Session::new(test_runtime(), &model, &SessionOptions::default(), &call).unwrap();
            let x = Tensor::from_f32(&[2, 4], (0..8).map(|i| (i as f32).sin()).collect()).unwrap();
            session.run(&[("x", &x)], &[], &call).unwrap()[0].1.to_f32_vec().unwrap()
        };
        assert_eq!(run(old.clone()), run(new));
        let mut same = old.clone();
        raise(&mut same, 13).unwrap();
        assert_eq!(version(&same), 13);
    }

    #[test]
    fn what_cannot_be_lifted_is_named() {
        let grid = NodeProto { name: Some("sampler".into()), ..node("GridSample", &["x", "x"], &["y"]) };
        let e = raise(&mut of(vec![grid.clone()], 16), 20).unwrap_err();
        assert!(e.to_string().contains("sampler") && e.to_string().contains("opset 20"), "{e}");
        raise(&mut of(vec![grid], 16), 19).unwrap();
        assert!(raise(&mut of(Vec::new(), 12), 17).is_err());
    }
}
