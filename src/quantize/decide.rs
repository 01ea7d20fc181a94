//! Changes to a plan if some of its weights stay unchanged.

use super::planner::{Change, LEFT, Plan};
use super::rewrite::dead_values;
use crate::graph::{BodyId, View};
use crate::report::report_of;
use std::collections::{HashMap, HashSet};

/// The reason why a weight that is an optional input stays unchanged.
const OPTIONAL: &str = "the weight is an optional input that another node reads too";

/// A decision on a weight.
pub enum Decision {
    /// The weight is quantized as planned.
    AsPlanned,
    /// The weight is coded with these bits and this block size.
    Coded(u32, usize),
    /// The weight stays unchanged, for a reason.
    Left(&'static str),
}

impl<'a> Plan<'a> {
    /// Returns the plan after a decision on each weight. Weights that are optional inputs and that another node still
    /// reads as float are removed from it.
    pub fn decide(&self, view: &View<'_>, decisions: &[Decision]) -> Plan<'a> {
        self.clone().take(view, decisions).keep_inputs(view)
    }

    /// Returns the plan without the weights that are optional inputs and that another node still reads as float. A
    /// quantized weight's input is removed from the graph, so a caller who passes it gets an error. If the input were
    /// kept for the other node, part of the model would use the caller's value and the rest the default.
    pub(super) fn keep_inputs(self, view: &View<'_>) -> Plan<'a> {
        let of = |change: &Change<'_>| (change.constant.owner, change.constant.name.to_owned());
        let optional = || self.changes.iter().filter(|change| change.constant.overridable);
        if optional().next().is_none() {
            return self;
        }
        let dead = dead_values(view, &self.changes, &vec![true; self.weights.len()]);
        let dies = |(owner, name): &(BodyId, String)| dead.get(owner).is_some_and(|names| names.contains(name));
        let kept: HashSet<_> = optional().map(of).filter(|place| !dies(place)).collect();
        let decision = |weight| match self.changes.iter().any(|c| c.weight == weight && kept.contains(&of(c))) {
            true => Decision::Left(OPTIONAL),
            false => Decision::AsPlanned,
        };
        let decisions: Vec<Decision> = (0..self.weights.len()).map(decision).collect();
        self.take(view, &decisions)
    }

    /// Returns the plan after a decision on each weight.
    fn take(mut self, view: &View<'_>, decisions: &[Decision]) -> Plan<'a> {
        for change in &self.changes {
            if let Decision::Left(reason) = decisions[change.weight] {
                let report = report_of(view.node(change.body, change.node), LEFT, reason.to_owned());
                self.left.push((change.body, change.node, report));
            }
        }
        for (weight, decision) in self.weights.iter_mut().zip(decisions) {
            if let Decision::Coded(bits, block) = decision {
                weight.bits = (*bits, *block);
            }
        }
        let stays = |index: usize| !matches!(decisions[index], Decision::Left(_));
        self.changes.retain(|change| stays(change.weight));
        self.left.sort_by_key(|(body, node, _)| (*body, *node));
        self.with_weights((0..decisions.len()).filter(|index| stays(*index)).collect())
    }

    /// Returns the plan with the changes for which `keep` is true, and their weights in the order of first use.
    pub fn only(mut self, keep: impl Fn(&Change<'_>) -> bool) -> Plan<'a> {
        self.changes.retain(keep);
        let mut order: Vec<usize> = Vec::new();
        for change in &self.changes {
            if !order.contains(&change.weight) {
                order.push(change.weight);
            }
        }
        self.with_weights(order)
    }

    /// Returns the plan with these weights in this order, which must be all weights that its changes need.
    fn with_weights(mut self, order: Vec<usize>) -> Plan<'a> {
        let place: HashMap<usize, usize> = order.iter().enumerate().map(|(place, index)| (*index, place)).collect();
        self.changes.iter_mut().for_each(|change| change.weight = place[&change.weight]);
        let mut weights: Vec<_> = self.weights.into_iter().map(Some).collect();
        self.weights = order.into_iter().filter_map(|index| weights[index].take()).collect();
        self
    }
}
