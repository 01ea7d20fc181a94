//! Weights stored in few bits and converted to float when a session is created, for nodes without an integer kernel
//! or a kernel for blocks.
//!
//! ```text
//! W   ->   W = Mul(Cast<float>(W8), scales)                                        8 bits
//!          W = Reshape(Mul(Sub(Concat(low, high), zero points), scales), shape)     4 bits in blocks
//! ```
//!
//! The value keeps its name, so its readers do not change: several nodes, subgraphs, functions. ONNX Runtime computes
//! nodes over constants once, when it creates a session, and then uses the kernels of the float model. It does not do
//! so for `DequantizeLinear`, which it keeps for integer kernels and runs each time; hence `Cast` and `Mul` (before
//! opset 7 `Conv`), which also support scales along several axes at once.
//!
//! `find` finds the constants that are weights, and their axes; `code` is the arithmetic; `write` changes the graph.

mod blocks;
mod code;
mod expect;
mod find;
mod roles;
mod write;

pub use code::{Coded, all};
pub use expect::expect;
pub use find::{Asked, Found, find};
pub use roles::already;
pub use write::{Switched, apply};

use super::allocate::Choice;
use super::planner::{LEFT, Plan};
use crate::graph::{BodyId, View};
use crate::onnx::dtype::element_count;
use crate::onnx::proto::TensorProto;
use crate::report::report_of;
use std::collections::BTreeMap;

/// The value of `NodeReport.action` for a node with a weight of 8 bits that is computed in float.
pub const STORED_INT8: &str = "stored int8";
/// The value of `NodeReport.action` for a node with a weight of 4 bits that is computed in float.
pub const STORED_INT4: &str = "stored int4";

/// The reason why a weight that is already stored in few bits stays unchanged.
pub const ALREADY: &str = "is already quantized: its weight is stored in few bits";

const COMPUTED: &str = "computed in float";

/// A weight to store in few bits.
#[derive(Clone)]
pub struct Stored<'a> {
    /// Graph or function that defines the weight.
    pub owner: BodyId,
    /// Name of the value in that graph or function: that of the initializer, or of the output of its `Constant` node.
    pub name: &'a str,
    /// Float tensor of the weight.
    pub tensor: &'a TensorProto,
    /// Mask of the axes with their own scales; `None` if they are to be found by trial.
    pub keep: Option<Vec<bool>>,
    /// Nodes that use the value as a weight.
    pub readers: Vec<(BodyId, usize)>,
    /// Requested number of bits, and block size for fewer than 8 bits; 0 selects 32.
    pub bits: (u32, usize),
    /// Whether 4 bits require channels with many inputs, over which errors average out.
    pub cautious: bool,
    /// Opset version of the graph or function that defines the weight.
    pub opset: i64,
}

impl Stored<'_> {
    /// Returns the `NodeReport.action` of the nodes that read the weight, if it can be coded.
    pub fn action(&self) -> &'static str {
        if self.bits.0 < 8 { STORED_INT4 } else { STORED_INT8 }
    }

    /// Returns the number of elements of the weight.
    pub fn elements(&self) -> u64 {
        element_count(&self.tensor.dims).unwrap_or(0)
    }

    /// Returns the size of the float tensor in bytes.
    pub fn bytes(&self) -> u64 {
        let dtype = self.tensor.dtype();
        self.elements() * u64::from(dtype.map_or(4, |d| d.bits() / 8))
    }

    /// Returns the approximate size in bytes of the weight stored in `bits` bits, with the nodes that convert it.
    pub fn stored_bytes(&self, bits: u32) -> u64 {
        let scales = match (bits, &self.keep) {
            (4, _) => self.elements() / self.bits.1.max(16) as u64 * 3,
            (_, Some(keep)) => 4 * code::scale_count(&self.tensor.dims, keep),
            (_, None) => self.elements() / 16,
        };
        self.elements() * u64::from(bits) / 8 + scales + self.node_bytes(bits)
    }

    /// Returns the size of the nodes and names around a stored weight in bytes.
    fn node_bytes(&self, bits: u32) -> u64 {
        let (fixed, names) = match bits {
            4 => (600, 6),
            _ if self.opset < find::MUL_OPSET => (350, 4),
            _ => (150, 4),
        };
        fixed + names * self.name.len() as u64
    }
}

/// Adds the weights that [`find`] found, and the report entries of the nodes that read them, to a plan.
pub fn record<'a>(plan: &mut Plan<'a>, view: &View<'a>, found: Found<'a>) {
    for (body, node, reason) in found.left {
        put(plan, (body, node), report_of(view.node(body, node), LEFT, reason));
    }
    for stored in &found.stored {
        for (body, node) in &stored.readers {
            let report = report_of(view.node(*body, *node), stored.action(), COMPUTED.to_owned());
            put(plan, (*body, *node), report);
        }
    }
    plan.stored = found.stored;
}

/// The outcome for a weight: the coded weight, or the reason why it stays unchanged.
pub type Outcome = std::result::Result<Coded, String>;

/// Returns the plan after a decision on each stored weight: the bits and the block size, or float. `reason` is the
/// reason why weights stay float.
pub fn decide<'a>(mut plan: Plan<'a>, view: &View<'_>, choices: &[Choice], reason: &str) -> Plan<'a> {
    let mut at = 0;
    let mut floats: Vec<(BodyId, usize)> = Vec::new();
    plan.stored.retain_mut(|stored| {
        at += 1;
        match choices[at - 1] {
            Choice::Coded(bits, block) => stored.bits = (bits, block),
            Choice::Float => floats.extend(&stored.readers),
        }
        choices[at - 1] != Choice::Float
    });
    for (body, node) in floats {
        // A node that also reads another stored weight gets its final entry from [`settle`].
        put(&mut plan, (body, node), report_of(view.node(body, node), LEFT, reason.to_owned()));
    }
    plan
}

/// The form of a weight in the report: its bits and description, or the reason why it stays unchanged.
type Form = std::result::Result<(u32, String), String>;

/// Returns the form of a weight in the report from its outcome.
fn form(outcome: &Outcome) -> Form {
    match outcome {
        Ok(coded) => Ok((coded.bits(), coded.describe())),
        Err(reason) => Err(reason.clone()),
    }
}

/// Returns the plan with the reports on the nodes that read its stored weights.
pub fn settle<'a>(plan: &Plan<'a>, view: &View<'_>, outcomes: &[Outcome]) -> Plan<'a> {
    reported(plan, view, &outcomes.iter().map(form).collect::<Vec<Form>>())
}

/// Returns the plan with the reports on the nodes that read its stored weights; `forms` are the forms of the weights.
fn reported<'a>(plan: &Plan<'a>, view: &View<'_>, forms: &[Form]) -> Plan<'a> {
    let mut plan = plan.clone();
    let mut by_node: BTreeMap<(BodyId, usize), Vec<(&str, &Form)>> = BTreeMap::new();
    for (stored, form) in plan.stored.iter().zip(forms) {
        for reader in &stored.readers {
            by_node.entry(*reader).or_default().push((stored.name, form));
        }
    }
    for ((body, node), found) in by_node {
        let bits = found.iter().filter_map(|(_, form)| form.as_ref().ok()).map(|(bits, _)| *bits).min();
        let action = match bits {
            None => LEFT,
            Some(8) => STORED_INT8,
            Some(_) => STORED_INT4,
        };
        let several = found.len() > 1;
        let mut reasons: Vec<String> = Vec::new();
        for (name, form) in found {
            let (Ok((_, what)) | Err(what)) = form;
            reasons.push(if several { format!("{name}: {what}") } else { what.clone() });
        }
        if bits.is_some() {
            reasons.push(COMPUTED.to_owned());
        }
        put(&mut plan, (body, node), report_of(view.node(body, node), action, reasons.join("; ")));
    }
    plan.left.sort_by_key(|(body, node, _)| (*body, *node));
    plan
}

/// Sets the report entry of a node, and replaces an existing one. Nodes that change are not recorded here.
fn put(plan: &mut Plan<'_>, (body, node): (BodyId, usize), report: crate::report::NodeReport) {
    if plan.changes.iter().any(|c| (c.body, c.node) == (body, node)) {
        return;
    }
    match plan.left.iter_mut().find(|(b, n, _)| (*b, *n) == (body, node)) {
        Some(known) => known.2 = report,
        None => plan.left.push((body, node, report)),
    }
}
