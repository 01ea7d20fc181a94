//! The provider and the kernels on which a session runs ([`Placement`]).

use super::kernels;
use super::providers::{Execution, Provider, ProviderChoice};
use super::register;
use crate::error::{Error, Kind, Result};
use crate::log::{self, LogLevel};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// The provider, device and kernels on which a session runs.
#[derive(Debug, Clone, Serialize)]
pub struct Placement {
    /// Execution provider of the session.
    pub provider: Provider,
    /// Index of the GPU; 0 for the CPU.
    pub device_id: u32,
    /// Number of nodes of the optimized graph on each provider, by provider name; `optimize` stands for this library's
    /// kernels. Nodes that a TensorRT engine replaces are counted one by one. Empty if the provider `cpu` was requested
    /// and the session was created without this library's kernels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, usize>,
    /// Number of groups of nodes that run on this library's kernels.
    #[serde(skip_serializing_if = "is_zero")]
    pub groups: usize,
    /// Reason why this library's kernels, which the options allow, run no nodes; `None` if they run some, or if the
    /// options exclude them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels_unused: Option<String>,
    /// Providers, and compiled variants of a package, that were tried before and not used, each with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
    /// Message with which ONNX Runtime refused to read the weights of a graph optimized ahead of time where they are
    /// mapped, so that the session has its own copy of them; `None` if they are read in place, and for other graphs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights_copied: Option<String>,
}

impl Placement {
    /// Returns a placement without numbers of nodes, for a session for which ONNX Runtime records none.
    pub(crate) fn on(provider: Provider, device_id: u32) -> Placement {
        let nodes = BTreeMap::new();
        let (passed_over, kernels_unused, weights_copied) = (Vec::new(), None, None);
        Placement { provider, device_id, nodes, groups: 0, kernels_unused, passed_over, weights_copied }
    }

    /// Returns the placement of a session on `provider`. Fails with `Unsupported` if that is a provider on the GPU that
    /// runs none of the session's nodes.
    pub(super) fn of(
        session: &ort::session::Session,
        provider: Provider,
        execution: &Execution,
        our_kernels: bool,
    ) -> Result<Placement> {
        let (mut nodes, mut groups) = (BTreeMap::new(), 0);
        if execution.provider != ProviderChoice::Cpu || our_kernels {
            let placed = register::placement(session)?;
            groups = placed.get(kernels::SHORT_NAME).map_or(0, |on| on.groups);
            nodes = placed.into_iter().map(|(name, on)| (name, on.nodes)).collect();
        }
        let all: usize = nodes.values().sum();
        if provider != Provider::Cpu && all > 0 && !nodes.contains_key(provider.name()) {
            let name = provider.name();
            return Err(Error::new(
                Kind::Unsupported,
                format!("{name} supports none of the {all} nodes of this model"),
            ));
        }
        let device_id = if provider == Provider::Cpu { 0 } else { execution.device_id };
        let unused = our_kernels && groups == 0;
        let kernels_unused = unused.then(|| "they are not faster for any node of this model".to_owned());
        Ok(Placement { nodes, groups, kernels_unused, ..Placement::on(provider, device_id) })
    }

    /// Logs on which provider a session runs, why other providers or kernels were not used, and the time since `start`.
    /// `place` is the name of the model in the messages.
    pub(super) fn log(&self, place: &str, start: Instant) {
        let (passed_over, copied) = (self.passed_over.iter(), self.weights_copied.iter());
        for reason in passed_over.chain(copied) {
            log::ours(LogLevel::Warning, || format!("{place}: {reason}"));
        }
        if let Some(reason) = &self.kernels_unused {
            log::ours(LogLevel::Info, || format!("{place}: own kernels are not used: {reason}"));
        }
        let (provider, milliseconds) = (self.provider.name(), start.elapsed().as_secs_f64() * 1e3);
        log::ours(LogLevel::Info, || format!("{place}: session on {provider} created in {milliseconds:.1} ms"));
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
