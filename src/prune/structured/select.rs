//! Which groups are meant, and which of their units go.

use super::StructuredOptions;
use super::analysis::Analysis;
use super::axes::Reason;
use super::groups::{Group, Groups};
use super::names::{self, Patterns};
use crate::error::{Result, bail};
use crate::report::NodeReport;
use std::collections::BTreeMap;

/// What was decided about the groups, before units are looked at.
pub struct Selected {
    /// For each group the part of its units that goes; `None` if it is left.
    pub sparsity: Vec<Option<f64>>,
    /// For each producer its module, and whether the targets name it.
    pub modules: Vec<(String, bool)>,
}

/// What was decided about units.
pub struct Chosen {
    /// Classes that go, sorted.
    pub gone: Vec<u32>,
    /// One for each node that makes units.
    pub nodes: Vec<NodeReport>,
    /// Units of the groups that were meant, before and after.
    pub units: (usize, usize),
}

/// Matches targets, exclusions and overrides against the modules.
pub fn targets(analysis: &Analysis<'_>, groups: &Groups, options: &StructuredOptions) -> Result<Selected> {
    let (wanted, left) = (Patterns::new(&options.target_modules)?, Patterns::new(&options.exclude)?);
    let other = Patterns::new(&options.overrides.iter().map(|o| o.pattern.clone()).collect::<Vec<_>>())?;
    let mut modules = Vec::with_capacity(analysis.producers.len());
    let (mut used, mut used_others) = (vec![false; options.target_modules.len()], vec![false; options.overrides.len()]);
    let mut facts = Vec::with_capacity(analysis.producers.len());
    for producer in &analysis.producers {
        let path = names::path(analysis, producer.node, producer.constant);
        let names = [analysis.graph.node[producer.node as usize].label(), producer.constant];
        let hits = wanted.matching(&path, names);
        let others = other.matching(&path, names);
        hits.iter().for_each(|i| used[*i] = true);
        others.iter().for_each(|i| used_others[*i] = true);
        let named = wanted.is_empty() || !hits.is_empty();
        let excluded = !left.matching(&path, names).is_empty();
        facts.push((named, excluded, others.first().copied()));
        modules.push((path, named && !excluded));
    }
    let unused = used.iter().position(|u| !u).map(|i| &options.target_modules[i]);
    let unused = unused.or(used_others.iter().position(|u| !u).map(|i| &options.overrides[i].pattern));
    if let Some(pattern) = unused {
        bail!(InvalidArgument, "no module matches {pattern:?}; there are {}", list(&modules));
    }
    let of_group = |group: &Group| {
        let mut of = group.producers.iter().map(|i| facts[*i]);
        let named = of.clone().any(|f| f.0) && !of.clone().any(|f| f.1);
        let other = of.find_map(|f| f.2).map(|i| options.overrides[i].sparsity);
        named.then(|| other.unwrap_or(options.sparsity))
    };
    Ok(Selected { sparsity: groups.groups.iter().map(of_group).collect(), modules })
}

/// The short names of all modules, each once.
fn list(modules: &[(String, bool)]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    modules.iter().for_each(|(path, _)| *counts.entry(names::short(path)).or_default() += 1);
    match counts.is_empty() {
        true => "no modules with weights".to_owned(),
        false => counts.keys().copied().collect::<Vec<_>>().join(", "),
    }
}

/// Takes the least important units of each group.
pub fn choose(
    analysis: &Analysis<'_>,
    groups: &Groups,
    selected: &Selected,
    scores: &[Vec<f64>],
    options: &StructuredOptions,
) -> Result<Chosen> {
    let mut gone = Vec::new();
    let (mut before, mut after) = (0, 0);
    // For each producer: units it makes, units it keeps, whether a group of its was left.
    let mut tally = vec![(0usize, 0usize, false); analysis.producers.len()];
    for ((group, sparsity), scores) in groups.groups.iter().zip(&selected.sparsity).zip(scores) {
        let count = group.units.len();
        let keep = sparsity.map_or(count, |sparsity| kept(count, sparsity, options.round_to));
        if sparsity.is_some() {
            (before, after) = (before + count, after + keep);
        }
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        gone.extend(order[keep..].iter().map(|i| group.units[*i].class));
        for producer in &group.producers {
            let entry = &mut tally[*producer];
            *entry = (entry.0 + count, entry.1 + keep, entry.2 || sparsity.is_none());
        }
    }
    gone.sort_unstable();
    let asked = options.sparsity > 0.0 || options.overrides.iter().any(|o| o.sparsity > 0.0);
    if gone.is_empty() && asked && before < 2 {
        bail!(Unsupported, "nothing can be cut: {}", reasons(analysis, groups, selected));
    }
    let nodes = report(analysis, groups, selected, &tally);
    Ok(Chosen { gone, nodes, units: (before, after) })
}

/// How many of `count` units stay: the multiple of `round_to` nearest to what is asked, and at least one.
fn kept(count: usize, sparsity: f64, round_to: usize) -> usize {
    let step = match round_to {
        0 if count >= 256 => 16,
        0 if count >= 64 => 8,
        0 => 1,
        given => given,
    };
    let wanted = count as f64 * (1.0 - sparsity);
    let rounded = (wanted / step as f64).round() as usize * step;
    if sparsity == 0.0 { count } else { rounded.max(step).min(count) }
}

/// Why a reason holds, in words.
pub fn explain(analysis: &Analysis<'_>, reason: Reason) -> String {
    match reason.node.and_then(|index| analysis.graph.node.get(index as usize)) {
        Some(node) => format!("{} {:?}: {}", node.op(), node.label(), reason.text),
        None => reason.text.to_owned(),
    }
}

/// The reasons why targets cannot be cut, most frequent first.
fn reasons(analysis: &Analysis<'_>, groups: &Groups, selected: &Selected) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (held, (_, named)) in groups.held.iter().zip(&selected.modules) {
        if let (Some((reason, _)), true) = (held, named) {
            *counts.entry(explain(analysis, *reason)).or_default() += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    match counts.is_empty() {
        true => "the model has no weights whose units could be cut".to_owned(),
        false => counts.iter().take(3).map(|(text, count)| format!("{count} x {text}")).collect::<Vec<_>>().join(", "),
    }
}

fn report(
    analysis: &Analysis<'_>,
    groups: &Groups,
    selected: &Selected,
    tally: &[(usize, usize, bool)],
) -> Vec<NodeReport> {
    let mut nodes: BTreeMap<u32, NodeReport> = BTreeMap::new();
    for (index, producer) in analysis.producers.iter().enumerate() {
        let (count, keep, partly) = tally[index];
        let (path, named) = &selected.modules[index];
        let (action, reason) = if keep < count {
            ("pruned", format!("{path}: {keep} of {count} units stay"))
        } else if !named || partly && count > 0 {
            ("left", format!("{path}: not among the targets"))
        } else if count > 1 {
            ("left", format!("{path}: all {count} units stay"))
        } else {
            let why = groups.held[index]
                .map_or_else(|| "all of it hangs together".to_owned(), |(reason, _)| explain(analysis, reason));
            ("left", format!("{path}: {why}"))
        };
        let proto = &analysis.graph.node[producer.node as usize];
        let node =
            NodeReport { name: proto.label().to_owned(), op: proto.op().to_owned(), action, reason, sensitivity: None };
        nodes.entry(producer.node).or_insert(node);
    }
    nodes.into_values().collect()
}
