//! The search for groups of nodes in a graph, and the description of the computation of each group ([`Plan`]).
//!
//! The same search runs twice: on the whole graph, to claim groups, and on each group alone, to compile it. So a
//! pattern depends only on the nodes that it claims, and on the values that are inputs or outputs of the group.

mod attention;
mod blocks;
mod contrib;
mod epilogue;
mod grouped;
mod linear;
mod mlp;
mod norm;
mod quantized;
mod static_quantized;

use super::faster;
use super::graph::{Graph, NodeId};
use super::options::Precision;
use crate::kernels::{Class, Precision as Packed};

pub use attention::{AttentionPlan, Fill, Heads, Operand, ScoresPlan};
pub use contrib::PackedAttentionPlan;
pub use epilogue::ActivationPlan;
pub use grouped::{GroupedForm, GroupedPlan};
pub use linear::{InputForm, LinearPart, LinearPlan, Step, Weight};
pub use mlp::MlpPlan;
pub use norm::NormPlan;
pub use static_quantized::Grid;

/// The description of the computation of a group, from which its body is created.
#[derive(Debug)]
pub enum Plan {
    /// Products of one input with several weights, each with a bias and an activation.
    Linear(LinearPlan),
    /// Two products; the output of the first is the input of the second.
    Mlp(MlpPlan),
    /// Attention: softmax(q·kᵀ·scale + mask)·v.
    Attention(AttentionPlan),
    /// Attention whose queries, keys and values are parts of one product.
    PackedAttention(PackedAttentionPlan),
    /// Attention of a decoder with its cache.
    Grouped(GroupedPlan),
    /// LayerNorm or RMSNorm of a sum.
    Norm(NormPlan),
    /// An activation function with the bias before it.
    Activation(ActivationPlan),
    /// A node of a compiled model.
    Compiled(NodeId),
}

/// Nodes that become one fused node of the provider, and their computation.
#[derive(Debug)]
pub struct Group {
    /// Nodes of the group.
    pub nodes: Vec<NodeId>,
    /// Computation of the group.
    pub plan: Plan,
}

impl Group {
    /// Returns whether the fused node of the group has the constants of the group as inputs. Other fused nodes read
    /// their constants once, when they are compiled.
    pub fn keeps_constants(&self) -> bool {
        matches!(self.plan, Plan::Grouped(_) | Plan::Compiled(_))
    }
}

/// A kind of group, as the option `claim` names it: products with float32 weights (`Linear`), with 8-bit weights and
/// inputs (`Quantized`) or with block-quantized weights (`Blocks`), attention, normalizations of sums, and activation
/// functions that do not follow a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // their names say it
pub enum Kind {
    Linear,
    Quantized,
    Blocks,
    Attention,
    Norm,
    Activation,
}

impl Kind {
    /// All kinds of groups.
    pub const ALL: [Self; 6] =
        [Self::Linear, Self::Quantized, Self::Blocks, Self::Attention, Self::Norm, Self::Activation];

    /// Returns the kind with this name; `None` if there is no such kind.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the name of the kind in the option `claim`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Quantized => "quantized",
            Self::Blocks => "blocks",
            Self::Attention => "attention",
            Self::Norm => "norm",
            Self::Activation => "activation",
        }
    }
}

/// The rules that decide which groups of nodes the provider claims.
#[derive(Clone, Copy)]
pub struct Rules<'r> {
    /// Precision in which products with float32 weights are computed.
    pub precision: Precision,
    /// Kinds of groups that may be claimed, or `None` for those that are faster than on ONNX Runtime's own kernels.
    pub claim: Option<&'r [Kind]>,
    /// Class of the processor's extensions.
    pub class: Class,
}

impl Rules<'_> {
    /// Returns whether groups of `kind` may be claimed.
    pub fn claims(&self, kind: Kind) -> bool {
        self.claim.map_or_else(|| faster::is_faster(self.class, kind), |kinds| kinds.contains(&kind))
    }

    /// Returns the precision to which float32 weights of products are packed; `None` if the products are not claimed.
    fn float_products(&self) -> Option<Packed> {
        let packed = match self.precision {
            Precision::Float32 => None,
            Precision::Bfloat16 => Some(Packed::Bfloat16),
            Precision::Int8 => Some(Packed::Int8),
        };
        packed.filter(|_| self.claims(Kind::Linear))
    }
}

/// The groups found so far, and whether each node belongs to one.
struct Found {
    groups: Vec<Group>,
    taken: Vec<bool>,
}

impl Found {
    fn is_free(&self, node: NodeId) -> bool {
        !self.taken[node.0]
    }

    /// Adds `group` unless one of its nodes belongs to another group.
    fn add(&mut self, group: Option<Group>) {
        if let Some(group) = group.filter(|group| group.nodes.iter().all(|node| self.is_free(*node))) {
            group.nodes.iter().for_each(|node| self.taken[node.0] = true);
            self.groups.push(group);
        }
    }
}

/// Returns the groups of `graph` that `rules` allow. Each node is in at most one of them.
pub fn find(graph: &Graph<'_>, rules: &Rules<'_>) -> Vec<Group> {
    let mut found = Found { groups: Vec::new(), taken: vec![false; graph.nodes.len()] };
    for node in graph.ids() {
        found.add(compiled(graph, node));
    }
    if rules.claims(Kind::Quantized) {
        graph.ids().for_each(|node| found.add(quantized::find(graph, node)));
        graph.ids().for_each(|node| found.add(static_quantized::find(graph, node)));
    }
    linear::find(graph, rules, &mut found);
    found.groups = mlp::join(graph, found.groups);
    if rules.claims(Kind::Attention) {
        graph.ids().for_each(|node| found.add(attention::find(graph, node)));
        graph.ids().for_each(|node| found.add(contrib::attention(graph, rules, node)));
        graph.ids().for_each(|node| found.add(grouped::find(graph, node)));
    }
    if rules.claims(Kind::Norm) {
        for node in graph.ids() {
            let group = norm::find(graph, node, &|node| found.is_free(node));
            found.add(group);
        }
    }
    if rules.claims(Kind::Activation) {
        graph.ids().for_each(|node| found.add(epilogue::find(graph, node)));
    }
    found.groups
}

/// Returns the group of an `EPContext` node that this provider wrote into a compiled model; `None` for other nodes.
fn compiled(graph: &Graph<'_>, node: NodeId) -> Option<Group> {
    let ours =
        graph.is_microsoft(node, "EPContext") && graph.text(node, "source").as_deref() == super::NAME.to_str().ok();
    ours.then(|| Group { nodes: vec![node], plan: Plan::Compiled(node) })
}
