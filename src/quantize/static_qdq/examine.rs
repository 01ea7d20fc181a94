//! Verification that ONNX Runtime computes a result as intended (see [`crate::verify`]).

use super::limits::Stays;
use super::select;
use super::{Made, Ready};
use crate::error::{Kind, Result, bail};
use crate::graph::{Producer, View};
use crate::onnx::proto::NodeProto;
use crate::quantize::planner::{LEFT, QUANTIZED};
use crate::report::NodeReport;
use crate::verify::{self, Examiner, Facts, Kernel};
use std::collections::HashMap;

/// The maximum number of results that are verified until one is correct, without those of the search for a faulty node.
const ATTEMPTS: usize = 24;
/// The reason of nodes that are float while the faulty node is searched.
const UNTRIED: &str = "is not tried";

impl Ready<'_> {
    /// Returns a result that ONNX Runtime opens, whose outputs at the default optimization level and without
    /// optimization differ by no more than rounding explains, and which runs on the kernels that its report names.
    /// Nodes that prevent this stay float. Without an examiner, the result is not verified.
    ///
    /// Fails like [`Ready::make`], and with `Unsupported` if [`ATTEMPTS`] results are faulty.
    pub fn examined(&mut self, examiner: Option<&Examiner<'_>>, stays: &Stays) -> Result<(Made, Facts)> {
        let mut strikes: HashMap<(String, String), usize> = HashMap::new();
        for _ in 0..ATTEMPTS {
            let mut made = self.make(&|node| stays.get(node.label()).map(|reason| (*reason).to_owned()))?;
            let Some(examiner) = examiner else { return Ok((made, Facts::default())) };
            let model = self.run.model.derive(made.proto.clone());
            match examiner.examine(&model, self.run.call)? {
                Err(fault) => self.blame(examiner, stays, &fault.text, &mut strikes)?,
                Ok(facts) => {
                    let folder = self.run.options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
                    let kernels = verify::kernels(self.runtime, &model, &folder, self.run.call)?;
                    if !self.take_back(&made.nodes, &kernels) {
                        made.nodes.iter_mut().for_each(|node| name_kernel(node, &kernels));
                        return Ok((made, facts));
                    }
                }
            }
        }
        bail!(
            Unsupported,
            "ONNX Runtime computes other outputs with and without optimization, whichever nodes stay float"
        )
    }

    /// Excludes the products that ONNX Runtime would run in float, or gives them a bias with which it runs them in
    /// integers, and returns whether there are any such products.
    fn take_back(&mut self, nodes: &[NodeReport], kernels: &HashMap<String, Kernel>) -> bool {
        let mut found = false;
        for node in nodes.iter().filter(|node| is_product(node)) {
            let Some(kernel) = kernels.get(&node.name).filter(|kernel| !kernel.is_integer_product()) else { continue };
            found = true;
            // ONNX Runtime may have fused a `MatMul` with the `Add` of a constant that follows. If the constant becomes
            // the bias of the product instead, an integer kernel runs both.
            if node.op == "MatMul" && self.biased.insert(node.name.clone()) {
                continue;
            }
            let reason = format!("ONNX Runtime would run it as {}, with floats", kernel.op);
            self.faulty.insert(node.name.clone(), reason);
        }
        found
    }

    /// Finds the first node that makes the result faulty, and excludes it. If it is the second faulty node of its
    /// kind (see [`kind`]), all nodes of that kind are excluded.
    fn blame(
        &mut self,
        examiner: &Examiner<'_>,
        stays: &Stays,
        fault: &str,
        strikes: &mut HashMap<(String, String), usize>,
    ) -> Result<()> {
        let model = self.model.clone();
        let view = View::new(model.proto());
        let nodes = view.bodies[0].nodes;
        let left = |index: usize| {
            let label = nodes[index].label();
            self.faulty.get(label).cloned().or_else(|| stays.get(label).map(|reason| (*reason).to_owned()))
        };
        let banned = (0..nodes.len()).filter_map(|index| Some((index, left(index)?))).collect();
        let chosen = select::select(&view, &model, self.run.options, &banned)?.chosen;
        let order: Vec<usize> = chosen.keys().copied().collect();
        // The result is correct if no node is quantized, and faulty if all are: a binary search finds the first faulty
        // one.
        let (mut works, mut fails) = (0, order.len());
        while fails - works > 1 {
            let middle = works + (fails - works) / 2;
            let first: Vec<&str> = order[..middle].iter().map(|index| nodes[*index].label()).collect();
            let all: Vec<&str> = order.iter().map(|index| nodes[*index].label()).collect();
            let trial = self.make(&|node: &NodeProto| {
                let label = node.label();
                let untried = all.contains(&label) && !first.contains(&label);
                stays.get(label).map(|reason| (*reason).to_owned()).or_else(|| untried.then(|| UNTRIED.to_owned()))
            });
            let right = match trial {
                Ok(made) => examiner.examine(&self.run.model.derive(made.proto), self.run.call)?.is_ok(),
                Err(e) if matches!(e.kind(), Kind::Unsupported | Kind::GateNotMet) => true,
                Err(e) => return Err(e),
            };
            if right { works = middle } else { fails = middle }
        }
        let Some(culprit) = order.get(fails.saturating_sub(1)) else { bail!(Unsupported, "{fault}") };
        let kind = kind(&view, *culprit);
        let count = strikes.entry(kind.clone()).or_default();
        *count += 1;
        let alike: Vec<usize> = match *count {
            1 => vec![*culprit],
            _ => order.iter().copied().filter(|index| self::kind(&view, *index) == kind).collect(),
        };
        for index in alike {
            self.faulty.insert(nodes[index].label().to_owned(), format!("with it: {fault}"));
        }
        Ok(())
    }
}

/// Returns the operator of a node, and the operator that produces its input.
fn kind(view: &View<'_>, index: usize) -> (String, String) {
    let node = view.node(0, index);
    let before = match node.input_at(0).and_then(|name| view.producer(0, name)) {
        Some((0, Producer::Node(before))) => view.node(0, before).op(),
        _ => "",
    };
    (node.op().to_owned(), before.to_owned())
}

/// Returns whether a node is a quantized `Conv`, `MatMul` or `Gemm`.
fn is_product(node: &NodeReport) -> bool {
    node.action == QUANTIZED
        && matches!(node.op.as_str(), "Conv" | "MatMul" | "Gemm")
        && node.reason.contains("uint8 in")
}

/// Replaces the expected kernel in the report of a product by the one that was found. Other quantized nodes that ONNX
/// Runtime computes in float are reported as left.
fn name_kernel(node: &mut NodeReport, kernels: &HashMap<String, Kernel>) {
    if node.action != QUANTIZED {
        return;
    }
    let kernel = kernels.get(&node.name);
    if is_product(node) {
        let rest = node.reason.split_once(", ").map_or(String::new(), |(_, rest)| format!(", {rest}"));
        node.reason = match kernel {
            Some(kernel) => format!("{}{rest}", kernel.op),
            None => format!("its kernel was not found{rest}"),
        };
    } else if let Some(kernel) = kernel.filter(|kernel| kernel.dequantized) {
        node.action = LEFT;
        node.reason = format!("ONNX Runtime runs it as {}, which converts between bytes and floats", kernel.op);
    }
}
