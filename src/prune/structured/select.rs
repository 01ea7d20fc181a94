//! Which groups are meant, and which of their units go.

use super::StructuredOptions;
use super::analysis::Analysis;
use super::axes::Reason;
use super::groups::Groups;
use crate::error::{Result, bail};
use crate::graph::View;
use crate::model::Model;
use crate::prune::names::{Pattern, names_of};
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
///
/// A group is named by a module that makes its units, and by one that sums over them if the name stands for none that
/// makes any (`down_proj` for the neurons that it reads).
pub fn targets(
    model: &Model,
    analysis: &Analysis<'_>,
    groups: &Groups,
    options: &StructuredOptions,
) -> Result<Selected> {
    let view = View::new(model.proto());
    let names = |node: u32, constant: &str| names_of(&view, 0, node as usize, constant);
    let producers: Vec<Vec<String>> = analysis.producers.iter().map(|p| names(p.node, p.constant)).collect();
    let consumers: Vec<Vec<String>> = analysis.consumers.iter().map(|c| names(c.node, c.constant)).collect();
    let meant = |pattern: &mut Pattern| -> (Vec<bool>, Vec<bool>) {
        let by: Vec<bool> = producers.iter().map(|names| pattern.matches(names)).collect();
        let mut of: Vec<bool> = groups.groups.iter().map(|g| g.producers.iter().any(|i| by[*i])).collect();
        if !of.contains(&true) {
            let by: Vec<bool> = consumers.iter().map(|names| pattern.matches(names)).collect();
            of = groups.groups.iter().map(|g| g.consumers.iter().any(|i| by[*i])).collect();
        }
        (by, of)
    };
    let paths: Vec<String> = producers.iter().map(|names| names.first().cloned().unwrap_or_default()).collect();
    let check = |pattern: &Pattern| match pattern.used {
        true => Ok(()),
        false => bail!(InvalidArgument, "no module matches {:?}; there are {}", pattern.text, list(&paths)),
    };
    let all = options.target_modules.is_empty();
    let (mut named, mut of_group) = (vec![all; producers.len()], vec![all; groups.groups.len()]);
    for pattern in &mut Pattern::all(&options.target_modules)? {
        let (by, of) = meant(pattern);
        check(pattern)?;
        named.iter_mut().zip(by).for_each(|(named, by)| *named |= by);
        of_group.iter_mut().zip(of).for_each(|(group, of)| *group |= of);
    }
    for pattern in &mut Pattern::all(&options.exclude)? {
        let by: Vec<bool> = producers.iter().map(|names| pattern.matches(names)).collect();
        named.iter_mut().zip(&by).for_each(|(named, by)| *named &= !by);
        for (of, group) in of_group.iter_mut().zip(&groups.groups) {
            *of &= !group.producers.iter().any(|i| by[*i]);
        }
    }
    let mut sparsity: Vec<Option<f64>> = of_group.iter().map(|of| of.then_some(options.sparsity)).collect();
    // The first that matches counts.
    for other in options.overrides.iter().rev() {
        let mut pattern = Pattern::new(&other.pattern)?;
        let (_, of) = meant(&mut pattern);
        check(&pattern)?;
        sparsity.iter_mut().zip(of).filter(|(_, of)| *of).for_each(|(group, _)| {
            *group = group.map(|_| other.sparsity);
        });
    }
    Ok(Selected { sparsity, modules: paths.into_iter().zip(named).collect() })
}

/// The short names of all modules, each once.
fn list(paths: &[String]) -> String {
    let mut names: Vec<&str> = paths.iter().map(|path| short(path)).collect();
    names.sort_unstable();
    names.dedup();
    match names.is_empty() {
        true => "no modules with weights".to_owned(),
        false => names.join(", "),
    }
}

/// The short name that people know a module by: the last part of its path that is a word.
fn short(path: &str) -> &str {
    let word = |part: &&str| !part.is_empty() && !part.bytes().all(|b| b.is_ascii_digit());
    path.split('.').rfind(word).unwrap_or(path)
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
