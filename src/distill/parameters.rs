//! Trained parameters: the constants of a graph that are weights.

use crate::error::{Context, Result, bail};
use crate::graph::floats::floats;
use crate::graph::select::{Fit, Pattern};
use crate::graph::{View, formula, modules};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, TensorProto};
use std::collections::BTreeSet;

/// A weight of the student that is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Name of the initializer.
    pub name: String,
    /// Shape of the weight.
    pub dims: Vec<i64>,
}

impl Parameter {
    /// Returns the number of elements of the weight.
    pub fn elements(&self) -> usize {
        self.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).product()
    }
}

/// The number of elements up to which a float constant is not trained, because it may belong to the architecture.
const FEW: i64 = 2;

/// Returns the float32 weights of the main graph that are trained, in the order of the file. Those that match a pattern
/// of `freeze` are not trained. `tables` has the names of tables of rotary embeddings, which are not weights.
///
/// Fails with `InvalidArgument` if a pattern of `freeze` is invalid or matches nothing.
pub fn find(model: &Model, tables: &BTreeSet<String>, freeze: &[String]) -> Result<Vec<Parameter>> {
    let graph = model.graph();
    let frozen = frozen(model, freeze)?;
    let angles = formula::tables(graph);
    let is_weight = |t: &&TensorProto| {
        let name = t.name.as_deref().unwrap_or("");
        let float = t.data_type == Some(DataType::Float32.to_onnx());
        float
            && !t.dims.is_empty()
            && t.dims.iter().product::<i64>() > FEW
            && !tables.contains(name)
            && !angles.contains(name)
            && !frozen.contains(name)
    };
    let weights = graph.initializer.iter().filter(is_weight);
    Ok(weights.map(|t| Parameter { name: t.name.clone().unwrap_or_default(), dims: t.dims.clone() }).collect())
}

/// Returns the names of the weights that stay unchanged.
fn frozen(model: &Model, patterns: &[String]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    if patterns.is_empty() {
        return Ok(found);
    }
    let view = View::new(model.proto());
    let graph = model.graph();
    // The names of each weight: its own, and those of the modules of the nodes that read it.
    let mut known: Vec<(&str, String)> = Vec::new();
    for name in graph.initializer.iter().filter_map(|t| t.name.as_deref()) {
        known.push((name, name.to_owned()));
    }
    for (index, node) in graph.node.iter().enumerate() {
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            known.extend(modules::paths(&view, 0, index, name).into_iter().map(|path| (name.as_str(), path)));
            known.push((name, node.label().to_owned()));
        }
    }
    for text in patterns {
        let mut pattern = Pattern::new(text, Fit::NameOrPart).at(|| "freeze")?;
        let hits = known.iter().filter(|(_, path)| pattern.matches(&[path])).map(|(name, _)| (*name).to_owned());
        found.extend(hits.collect::<Vec<_>>());
        if !pattern.used {
            bail!(InvalidArgument, "freeze: {text:?} matches no weight, module or node");
        }
    }
    Ok(found)
}

/// Returns the elements of a float32 initializer. Fails with `Internal` if there is none with this name, and with
/// `Unsupported` or `InvalidModel` if it is not a float tensor of its shape.
pub fn values(graph: &GraphProto, name: &str) -> Result<Vec<f32>> {
    let Some(tensor) = graph.initializer.iter().find(|t| t.name.as_deref() == Some(name)) else {
        bail!(Internal, "there is no weight {name:?}");
    };
    floats(tensor)
}
