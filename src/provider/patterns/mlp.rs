//! Pairs of products, the second of which alone reads the output of the first: an MLP.

use std::collections::BTreeMap;

use super::linear::{InputForm, LinearPart, LinearPlan};
use super::{Group, Plan};
use crate::provider::graph::{Graph, ValueId};

/// Two products; the output of the first is the input of the second.
#[derive(Debug)]
pub struct MlpPlan {
    /// Input of the first product: rows of K values.
    pub x: ValueId,
    /// Weights, sizes and outputs of the two products.
    pub layers: [LinearPart; 2],
}

/// Returns `groups`, in which each pair of groups of one product is joined if only the second reads the output of the
/// first.
pub fn join(graph: &Graph<'_>, groups: Vec<Group>) -> Vec<Group> {
    let by_input: BTreeMap<ValueId, usize> =
        groups.iter().enumerate().filter_map(|(index, group)| Some((single(group)?.0, index))).collect();
    let mut groups: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    let mut joined = Vec::new();
    for first in 0..groups.len() {
        let Some((_, between)) = groups[first].as_ref().and_then(single) else { continue };
        let Some(second) = by_input.get(&between).copied().filter(|second| *second != first) else { continue };
        let reads_all = |group: &Group| {
            let value = graph.value(between);
            !value.is_output && value.consumers.iter().all(|consumer| group.nodes.contains(consumer))
        };
        if groups[second].as_ref().is_some_and(reads_all) {
            let pair = groups[first].take().zip(groups[second].take());
            joined.extend(pair.and_then(|(first, second)| of_two(first, second)));
        }
    }
    groups.into_iter().flatten().chain(joined).collect()
}

/// Returns the input and the output of a group of one product without operations after the activation; `None` for other
/// groups.
fn single(group: &Group) -> Option<(ValueId, ValueId)> {
    let Plan::Linear(LinearPlan { x, form: InputForm::Dynamic, parts }) = &group.plan else { return None };
    let [part] = &parts[..] else { return None };
    part.steps.is_empty().then_some((*x, part.y))
}

/// Returns the group of two products from two groups of one product.
fn of_two(first: Group, second: Group) -> Option<Group> {
    let (Plan::Linear(head), Plan::Linear(tail)) = (first.plan, second.plan) else { return None };
    let nodes = first.nodes.into_iter().chain(second.nodes).collect();
    let layers = [head.parts.into_iter().next()?, tail.parts.into_iter().next()?];
    Some(Group { nodes, plan: Plan::Mlp(MlpPlan { x: head.x, layers }) })
}
