//! The provider in one session, without ONNX Runtime's pointers: graphs in, claims and bodies out.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::abi::{Error, Result};
use super::bodies::{self, Body, Making, Ports};
use super::compiled::{Opener, Writer};
use super::graph::{FusedNode, Graph, NodeId};
use super::options::Options;
use super::patterns::{self, Plan, Rules};
use crate::kernels::{Class, Parallel};

/// What a session's options say, and what is open for it.
pub struct Session {
    options: Options,
    class: Class,
    opener: Opener,
    model_path: PathBuf,
}

impl Session {
    /// Returns a session with `options`.
    pub fn new(options: Options) -> Self {
        Self { options, class: Class::detect(), opener: Opener::default(), model_path: PathBuf::new() }
    }

    /// Returns how many threads the session is said to have.
    pub fn threads(&self) -> usize {
        self.options.threads
    }

    fn rules(&self) -> Rules<'_> {
        Rules { precision: self.options.precision, claim: &self.options.claim }
    }

    /// Returns the groups of nodes that are claimed.
    pub fn claims(&self, graph: &Graph<'_>) -> Vec<Vec<NodeId>> {
        // ONNX Runtime writes the nodes of a compiled model into the main graph alone: one from the body of an If or
        // a Loop would make the file invalid (seen with 1.32).
        if graph.nested && self.options.compile_to.is_some() {
            return Vec::new();
        }
        let groups = patterns::find(graph, &self.rules()).into_iter().map(|group| group.nodes);
        groups.filter(|nodes| self.is_found_again(graph, nodes)).collect()
    }

    /// Returns true if `nodes` form a group when nothing is around them: so they will be handed over, and a group that
    /// is not found then would be an error that nobody can help.
    fn is_found_again(&self, graph: &Graph<'_>, nodes: &[NodeId]) -> bool {
        let mut groups = patterns::find(&graph.part(nodes), &self.rules());
        groups.pop().is_some_and(|group| groups.is_empty() && group.nodes.len() == nodes.len())
    }

    /// Returns the body of the group that `graph` consists of; `fused` is the node that will stand for it.
    pub fn compile(&mut self, graph: &Graph<'_>, fused: &FusedNode, model: &Path) -> Result<Box<dyn Body>> {
        self.model_path = model.to_path_buf();
        let mut groups = patterns::find(graph, &self.rules());
        let group = groups.pop().filter(|group| groups.is_empty() && group.nodes.len() == graph.nodes.len());
        let group = group.ok_or_else(|| Error(format!("{}: its nodes do not form the group they did", fused.name)))?;
        let ports = Ports::new(graph, fused);
        if let Plan::Compiled(node) = &group.plan {
            let folder = self.folder(model);
            return self.opener.open(graph, *node, &ports, &folder);
        }
        let making = Making { class: self.class, parallel: &Workers(self.options.threads) };
        bodies::build(&group.plan, graph, &ports, &making).map_err(|error| Error(format!("{}: {error}", fused.name)))
    }

    /// Returns the folder that a compiled model's files lie in.
    fn folder(&self, model: &Path) -> PathBuf {
        let path = if model.as_os_str().is_empty() { &self.options.context_path } else { model };
        path.parent().unwrap_or(Path::new("")).to_path_buf()
    }

    /// Returns what writes a compiled model, if that is wanted.
    pub fn context_writer(&self) -> Option<Writer> {
        self.options.compile_to.as_ref().map(|path| Writer::new(path, &self.model_path))
    }
}

/// Threads of our own, for packing weights while a session is made: ONNX Runtime lends its own only to runs.
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
