//! Changes of a plan when some of its weights are left after all.

use super::planner::{Change, LEFT, Plan, report_of};
use super::rewrite::dead_values;
use crate::graph::{BodyId, View};
use std::collections::HashSet;

/// Reason for leaving a weight that is an optional input.
const OPTIONAL: &str = "the weight is an optional input that another node reads too";

/// A decision on a weight.
pub enum Decision {
    /// As planned.
    AsPlanned,
    /// Coded with these bits and this block size.
    Coded(u32, usize),
    /// Left unchanged, for a reason.
    Left(&'static str),
}

impl Plan<'_> {
    /// Leaves weights that are optional inputs if another node still reads them as float. Otherwise the input is
    /// removed with the weight, and a caller that passes it gets an error; else part of the model would use the
    /// caller's value, and the rest the default.
    pub(super) fn keep_inputs(&mut self, view: &View<'_>) {
        let of = |change: &Change<'_>| (change.constant.owner, change.constant.name.to_owned());
        let optional = || self.changes.iter().filter(|change| change.constant.overridable);
        if optional().next().is_none() {
            return;
        }
        let dead = dead_values(view, &self.changes, &vec![true; self.weights.len()]);
        let dies = |(owner, name): &(BodyId, String)| dead.get(owner).is_some_and(|names| names.contains(name));
        let kept: HashSet<_> = optional().map(of).filter(|place| !dies(place)).collect();
        let decision = |weight| match self.changes.iter().any(|c| c.weight == weight && kept.contains(&of(c))) {
            true => Decision::Left(OPTIONAL),
            false => Decision::AsPlanned,
        };
        let decisions: Vec<Decision> = (0..self.weights.len()).map(decision).collect();
        self.take(view, &decisions);
    }

    /// Applies a decision for each weight, and then leaves the optional inputs that still have a reader.
    pub fn decide(&mut self, view: &View<'_>, decisions: &[Decision]) {
        self.take(view, decisions);
        self.keep_inputs(view);
    }

    fn take(&mut self, view: &View<'_>, decisions: &[Decision]) {
        for change in &self.changes {
            if let Decision::Left(reason) = decisions[change.weight] {
                let report = report_of(view.node(change.body, change.node), LEFT, reason.to_owned());
                self.left.push((change.body, change.node, report));
            }
        }
        let stays = |index: usize| !matches!(decisions[index], Decision::Left(_));
        self.changes.retain(|change| stays(change.weight));
        let mut place = Vec::with_capacity(decisions.len());
        let mut next = 0;
        for (index, decision) in decisions.iter().enumerate() {
            place.push(next);
            next += usize::from(stays(index));
            if let Decision::Coded(bits, block) = decision {
                self.weights[index].bits = (*bits, *block);
            }
        }
        let mut index = 0;
        self.weights.retain(|_| {
            index += 1;
            stays(index - 1)
        });
        self.changes.iter_mut().for_each(|change| change.weight = place[change.weight]);
        self.left.sort_by_key(|(body, node, _)| (*body, *node));
    }
}
