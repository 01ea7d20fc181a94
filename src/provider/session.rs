//! The provider in one session: claims groups of a graph and compiles them, independently of the C interface.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::abi::{Error, Result};
use super::bodies::{self, Body, Making, Ports, SharedWeights};
use super::compiled::{Opener, Writer};
use super::graph::{FusedNode, Graph, NodeId};
use super::options::Options;
use super::patterns::{self, Plan, Rules};
use crate::kernels::{Class, Parallel};
use crate::memory::{self, Charge};

/// The state of the provider in a session: its options, its open files, and the weights that bodies share.
pub struct Session {
    options: Options,
    class: Class,
    opener: Opener,
    shared: SharedWeights,
    model_path: PathBuf,
}

impl Session {
    /// Returns the state of a session with `options`.
    pub fn new(options: Options) -> Self {
        let (opener, shared) = (Opener::default(), SharedWeights::default());
        Self { options, class: Class::detect(), opener, shared, model_path: PathBuf::new() }
    }

    /// Returns the number of threads of the session, which is an option of the provider.
    pub fn threads(&self) -> usize {
        self.options.threads
    }

    fn rules(&self) -> Rules<'_> {
        Rules { precision: self.options.precision, claim: self.options.claim.as_deref(), class: self.class }
    }

    /// Returns the groups of nodes to claim, and whether each keeps its constants as inputs.
    pub fn claims(&self, graph: &Graph<'_>) -> Vec<(Vec<NodeId>, bool)> {
        // ONNX Runtime writes all nodes of a compiled model into the main graph; a node from the body of an If or a
        // Loop would make the file invalid (observed with 1.32).
        if graph.nested && self.options.compile_to.is_some() {
            return Vec::new();
        }
        let mut groups = patterns::find(graph, &self.rules());
        groups.retain(|group| {
            let readable = group.keeps_constants() || constants_are_readable(graph, &group.nodes);
            readable && self.is_found_again(graph, &group.nodes)
        });
        let claim = |group: patterns::Group| {
            let keeps_constants = group.keeps_constants();
            (group.nodes, keeps_constants)
        };
        groups.into_iter().map(claim).collect()
    }

    /// Returns whether the search finds `nodes` as a group without the rest of the graph. `Compile` receives only these
    /// nodes, and if it does not find the group again, the session cannot be created.
    fn is_found_again(&self, graph: &Graph<'_>, nodes: &[NodeId]) -> bool {
        let mut groups = patterns::find(&graph.part(nodes), &self.rules());
        groups.pop().is_some_and(|group| groups.is_empty() && group.nodes.len() == nodes.len())
    }

    /// Returns the body of the group that `graph` consists of, and the charge for those of its packed weights that no
    /// other body has. `fused` is the node that replaces the group, and `model` the path of the model.
    ///
    /// Fails if the nodes do not form a single group, if the body cannot be built or opened, or if the memory limit
    /// does not allow the weights.
    pub fn compile(&mut self, graph: &Graph<'_>, fused: &FusedNode, model: &Path) -> Result<(Box<dyn Body>, Charge)> {
        self.model_path = model.to_path_buf();
        let mut groups = patterns::find(graph, &self.rules());
        let group = groups.pop().filter(|group| groups.is_empty() && group.nodes.len() == graph.nodes.len());
        let group =
            group.ok_or_else(|| Error(format!("{}: its nodes do not form the group that was claimed", fused.name)))?;
        let ports = Ports::new(graph, fused);
        if let Plan::Compiled(node) = &group.plan {
            let folder = self.folder(model);
            return Ok((self.opener.open(graph, *node, &ports, &folder)?, Charge::default()));
        }
        let making = Making { class: self.class, parallel: &Workers(self.options.threads), shared: &self.shared };
        let before = self.shared.bytes();
        let named = |error: &dyn std::fmt::Display| Error(format!("{}: {error}", fused.name));
        let body = bodies::build(&group.plan, graph, &ports, &making).map_err(|error| named(&error))?;
        // The size is known only after packing, so the limit is checked after the memory is used. The weights of one
        // group are a small part of a model.
        let charge = memory::charge_anyway((self.shared.bytes() - before) as u64);
        memory::check().map_err(|error| named(&error))?;
        Ok((body, charge))
    }

    /// Returns the folder of the files of a compiled model. A path in the options has priority over `model`: the path
    /// that ONNX Runtime passes may be that of other files, such as external initializers.
    fn folder(&self, model: &Path) -> PathBuf {
        let given = &self.options.context_path;
        let path = if given.as_os_str().is_empty() { model } else { given };
        path.parent().unwrap_or(Path::new("")).to_path_buf()
    }

    /// Returns the writer of a compiled model; `None` if none is to be written.
    pub fn context_writer(&self) -> Option<Writer> {
        self.options.compile_to.as_ref().map(|path| Writer::new(path, &self.model_path))
    }
}

/// Returns whether the content of all constants that `nodes` read is accessible. The content of initializers that a
/// program adds to the session options (`AddInitializer`) is not.
fn constants_are_readable(graph: &Graph<'_>, nodes: &[NodeId]) -> bool {
    let mut inputs = nodes.iter().flat_map(|node| graph.node(*node).inputs.iter().flatten());
    inputs.all(|value| !graph.value(*value).is_constant || graph.constant(*value).is_some())
}

/// Number of threads that pack weights while a session is created: ONNX Runtime provides its threads only to runs.
struct Workers(usize);

impl Parallel for Workers {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let worker = || {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                work(task);
            }
        };
        std::thread::scope(|scope| {
            (1..self.0.min(tasks)).for_each(|_| drop(scope.spawn(worker)));
            worker();
        });
    }
}
