//! The values inside a model, computed in the order of requests ([`Walk`]).
//!
//! Each request runs the nodes between the known values and the requested one, as a small model of its own. Values that
//! later nodes need are kept for every batch; all others are dropped. So a weight can be replaced before the nodes that
//! use it run, and everything behind them sees the new one.

use super::Run;
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::graph::edit;
use crate::graph::order::{producers, reads, topological};
use crate::inputs::Batch;
use crate::model::Model;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::runtime::{OptimizationLevel, Runtime, Session, SessionOptions, Stop, Tensor};
use std::collections::{HashMap, HashSet};

/// The state of a model that is run step by step on all batches.
pub struct Walk<'m> {
    runtime: &'static Runtime,
    threads: usize,
    proto: &'m ModelProto,
    graph: &'m GraphProto,
    /// Index of the node that produces each value.
    producer: HashMap<&'m str, usize>,
    constants: HashMap<&'m str, &'m TensorProto>,
    /// Whether a node depends on constants alone, for each node. Such nodes run wherever they are needed, and their
    /// values are never kept.
    constant: Vec<bool>,
    /// Whether a value that will be requested depends on a node, for each node.
    wanted: Vec<bool>,
    done: Vec<bool>,
    /// Known values by name, one per batch.
    live: HashMap<String, Vec<Tensor>>,
    replaced: HashMap<String, TensorProto>,
    batches: usize,
}

impl<'m> Walk<'m> {
    /// Returns a walk that starts at the inputs of the main graph. `asked` names all values that will be requested.
    /// Fails with `InvalidArgument` if the batches do not have the same inputs, with `InvalidModel` if the model has no
    /// graph, and if its nodes form a cycle.
    pub fn new(run: &Run<'_>, model: &'m Model, asked: &[&str]) -> Result<Walk<'m>> {
        let Run { runtime, batches, threads, .. } = *run;
        let Some(graph) = model.proto().graph.as_deref() else { bail!(InvalidModel, "the model has no graph") };
        let constants = graph.initializers().collect();
        let count = graph.node.len();
        let mut walk = Walk {
            runtime,
            threads,
            proto: model.proto(),
            graph,
            producer: producers(&graph.node),
            constants,
            constant: vec![false; count],
            wanted: vec![false; count],
            done: vec![false; count],
            live: HashMap::new(),
            replaced: HashMap::new(),
            batches: batches.len(),
        };
        walk.find_constant_nodes()?;
        for index in walk.ancestors(asked, false) {
            walk.wanted[index] = true;
        }
        for (name, _) in batches.first().iter().flat_map(|batch| &batch.inputs) {
            let of = |batch: &Batch| batch.inputs.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone());
            let tensors: Option<Vec<Tensor>> = batches.iter().map(of).collect();
            let Some(tensors) = tensors else { bail!(InvalidArgument, "not every batch has the input {name:?}") };
            walk.live.insert(name.clone(), tensors);
        }
        Ok(walk)
    }

    /// Replaces a constant, an initializer or the output of a `Constant` node, for all nodes that have not run yet.
    pub fn replace(&mut self, tensor: TensorProto) {
        self.replaced.insert(tensor.name.clone().unwrap_or_default(), tensor);
    }

    /// Returns the value `name` for every batch; runs the nodes that it depends on and that have not run. Fails with
    /// `NotFound` if there is no such value, or if it was dropped: a value is kept only while nodes that have not run
    /// need it. Fails with `InvalidArgument` if the batches lack an input, and if the nodes cannot be run.
    pub fn value(&mut self, name: &str, stop: &Stop) -> Result<Vec<Tensor>> {
        if let Some(known) = self.live.get(name) {
            return Ok(known.clone());
        }
        let nodes = self.ancestors(&[name], true);
        for index in nodes.iter().filter(|index| !self.constant[**index]) {
            self.done[*index] = true;
        }
        let made: HashSet<&str> =
            nodes.iter().flat_map(|i| self.graph.node[*i].output.iter().map(String::as_str)).collect();
        let mut later: HashSet<&str> = HashSet::new();
        for (index, node) in self.graph.node.iter().enumerate() {
            if self.wanted[index] && !self.done[index] && !self.constant[index] {
                later.extend(reads(node));
            }
        }
        let keeps = |output: &&str| {
            *output == name || later.contains(output) && self.producer.get(output).is_some_and(|i| !self.constant[*i])
        };
        let mut outputs: Vec<&str> = made.iter().copied().filter(|o| !o.is_empty()).filter(keeps).collect();
        outputs.sort_unstable();
        if !outputs.contains(&name) {
            bail!(NotFound, "the model has no value {name:?}");
        }
        let (proto, inputs) = self.part(&nodes, &outputs)?;
        let options = SessionOptions {
            threads: self.threads,
            // Each part runs only a few times; expensive optimization does not pay off.
            optimization_level: OptimizationLevel::Basic,
            varying_sizes: true,
            ..SessionOptions::stock()
        };
        let part = Model::from_proto(proto);
        let session =
            Session::new(self.runtime, &part, &options, &Call::default()).at(|| format!("the part before {name:?}"))?;
        let mut found: Vec<Vec<Tensor>> = vec![Vec::with_capacity(self.batches); outputs.len()];
        for batch in 0..self.batches {
            let feed: Vec<(&str, &Tensor)> =
                inputs.iter().map(|n| (n.as_str(), &self.live[n.as_str()][batch])).collect();
            let values = session.run_until(&feed, &outputs, stop).at(|| format!("the part before {name:?}"))?;
            found.iter_mut().zip(values).for_each(|(list, (_, tensor))| list.push(tensor));
        }
        let mut asked = Vec::new();
        for (output, tensors) in outputs.iter().zip(found) {
            if *output == name {
                asked.clone_from(&tensors);
            }
            self.live.insert((*output).to_owned(), tensors);
        }
        let later: HashSet<String> = later.into_iter().map(str::to_owned).collect();
        self.live.retain(|known, _| later.contains(known));
        Ok(asked)
    }

    /// Returns the nodes that compute `names`, in the order of the file; if `open`, without those that have run.
    fn ancestors(&self, names: &[&str], open: bool) -> Vec<usize> {
        let mut seen = vec![false; self.graph.node.len()];
        let mut todo: Vec<usize> = names.iter().filter_map(|name| self.producer.get(name).copied()).collect();
        while let Some(index) = todo.pop() {
            if seen[index] || open && self.done[index] {
                continue;
            }
            seen[index] = true;
            let known = |name: &&str| !(open && self.live.contains_key(*name));
            todo.extend(reads(&self.graph.node[index]).into_iter().filter(known).filter_map(|n| self.producer.get(n)));
        }
        (0..seen.len()).filter(|index| seen[*index]).collect()
    }

    fn find_constant_nodes(&mut self) -> Result<()> {
        for index in topological(&self.graph.node)? {
            let node = &self.graph.node[index];
            let from_constants = |name: &&str| {
                self.constants.contains_key(name) || self.producer.get(name).is_some_and(|i| self.constant[*i])
            };
            let random = node.op().starts_with("Random") || matches!(node.op(), "Bernoulli" | "Multinomial");
            self.constant[index] = !random && reads(node).iter().all(from_constants);
        }
        Ok(())
    }

    /// Returns a model that consists of `nodes`, and the names of its inputs.
    fn part(&self, nodes: &[usize], outputs: &[&str]) -> Result<(ModelProto, Vec<String>)> {
        let replaced =
            |node: &NodeProto| node.is("Constant") && node.output.iter().any(|o| self.replaced.contains_key(o));
        let chosen: Vec<&NodeProto> = nodes.iter().map(|i| &self.graph.node[*i]).filter(|n| !replaced(n)).collect();
        let made: HashSet<&str> = chosen.iter().flat_map(|n| n.output.iter().map(String::as_str)).collect();
        let needed: HashSet<&str> = chosen.iter().flat_map(|n| reads(n)).filter(|name| !made.contains(name)).collect();
        let mut graph = GraphProto { name: Some("part".to_owned()), ..Default::default() };
        let mut inputs = Vec::new();
        let mut needed: Vec<&str> = needed.into_iter().collect();
        needed.sort_unstable();
        for name in needed {
            if let Some(tensor) = self.replaced.get(name) {
                graph.initializer.push(tensor.clone());
            } else if let Some(tensors) = self.live.get(name) {
                let Some(first) = tensors.first() else { bail!(InvalidArgument, "there is no calibration data") };
                graph.input.push(edit::value(name, first.dtype(), first.shape().len()));
                inputs.push(name.to_owned());
            } else if let Some(tensor) = self.constants.get(name) {
                graph.initializer.push((*tensor).clone());
            } else {
                let sparse = |s: &&crate::onnx::proto::SparseTensorProto| {
                    s.values.as_deref().and_then(|v| v.name.as_deref()) == Some(name)
                };
                match self.graph.sparse_initializer.iter().find(sparse) {
                    Some(sparse) => graph.sparse_initializer.push(sparse.clone()),
                    None => bail!(InvalidArgument, "the calibration data has no input {name:?}"),
                }
            }
        }
        graph.node = chosen.into_iter().cloned().collect();
        graph.output = outputs.iter().map(|name| edit::untyped(name)).collect();
        let proto = ModelProto {
            ir_version: self.proto.ir_version.map(|version| version.max(4)),
            opset_import: self.proto.opset_import.clone(),
            functions: self.proto.functions.clone(),
            graph: Some(Box::new(graph)),
            ..Default::default()
        };
        Ok((proto, inputs))
    }
}
