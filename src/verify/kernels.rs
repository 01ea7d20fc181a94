//! The kernels that ONNX Runtime selects for nodes, read from the graph that it optimized for this processor.

use crate::call::Call;
use crate::error::{Context, Result};
use crate::files::ScratchFolder;
use crate::model::Model;
use crate::onnx::proto::GraphProto;
use crate::runtime::{Runtime, Session, SessionOptions};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// The kernel that runs a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Operator in the optimized graph.
    pub op: String,
    /// Whether the first input of the kernel is the output of a `DequantizeLinear`, so that the kernel computes in
    /// float.
    pub dequantized: bool,
}

impl Kernel {
    /// Returns whether the kernel multiplies integers.
    pub fn is_integer_product(&self) -> bool {
        matches!(
            self.op.as_str(),
            "QLinearConv" | "QLinearMatMul" | "QGemm" | "MatMulIntegerToFloat" | "MatMulInteger" | "ConvInteger"
        )
    }
}

/// Returns the kernels of the nodes of the main graph, by node name; nodes without a name, and those that ONNX
/// Runtime removes, are absent. If several kernels have the name of one node, the least quantized is returned.
///
/// Creates one session; the optimized graph is written to a file in `folder`, which is removed again. Fails like
/// [`Session::new`] and [`Model::from_file`].
pub fn kernels(
    runtime: &'static Runtime,
    model: &Model,
    folder: &Path,
    call: &Call,
) -> Result<HashMap<String, Kernel>> {
    let mut proto = model.proto().clone();
    let mut names: Vec<String> = Vec::new();
    // The nodes get delimited numbers as names: original names may be missing, or one may be a part of another.
    for node in proto.graph.iter_mut().flat_map(|graph| &mut graph.node) {
        names.push(node.name.clone().unwrap_or_default());
        node.name = Some(mark(names.len() - 1));
    }
    let marked = model.derive(proto);
    let folder = ScratchFolder::in_folder(folder, "kernels")?;
    let path = folder.path().join("model.onnx");
    let options = SessionOptions { threads: 1, optimized_model: Some(path.clone()), ..SessionOptions::stock() };
    let made = Session::new(runtime, &marked, &options, &Call { progress: None, ..*call });
    let optimized = made.and_then(|session| {
        drop(session);
        Model::from_file(&path)
    });
    let optimized = optimized.at(|| "the graph as ONNX Runtime optimizes it")?;
    Ok(found(optimized.graph(), &names))
}

fn mark(index: usize) -> String {
    format!("<{index}>")
}

fn found(graph: &GraphProto, names: &[String]) -> HashMap<String, Kernel> {
    let dequantized: HashSet<&str> = graph
        .node
        .iter()
        .filter(|node| node.op() == "DequantizeLinear")
        .flat_map(|node| &node.output)
        .map(String::as_str)
        .collect();
    let mut kernels: HashMap<String, Kernel> = HashMap::new();
    for node in &graph.node {
        // A fused node has the name of one of its nodes with something added.
        let Some(index) = index_in(node.name.as_deref().unwrap_or("")) else { continue };
        let Some(name) = names.get(index).filter(|name| !name.is_empty()) else { continue };
        let first = node.input.first().map_or("", String::as_str);
        let kernel = Kernel { op: node.op().to_owned(), dequantized: dequantized.contains(first) };
        match kernels.get(name) {
            Some(known) if known.dequantized || !known.is_integer_product() && kernel.is_integer_product() => {}
            _ => drop(kernels.insert(name.clone(), kernel)),
        }
    }
    kernels
}

fn index_in(name: &str) -> Option<usize> {
    let (_, rest) = name.split_once('<')?;
    rest.split_once('>')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_the_names_that_onnx_runtime_makes_of_them() {
        let index = |name: &str| index_in(name);
        assert_eq!(index(&mark(17)), Some(17));
        assert_eq!(index("fused <3>/MatMulAddFusion"), Some(3));
        assert_eq!((index("<12>_token_4"), index("gemm_input_reshape"), index("<x>")), (Some(12), None, None));
    }
}
