//! Selection of groups, and of the units to remove.

use super::PruneOptions;
use super::analysis::Analysis;
use super::axes::{AxisId, Reason};
use super::groups::{Group, Groups};
use crate::error::{Result, bail};
use crate::graph::View;
use crate::graph::order::reads;
use crate::graph::select::{Fit, Pattern, Selector, names_of};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, TensorProto};
use crate::onnx::validate::subgraphs;
use crate::report::NodeReport;
use std::collections::BTreeMap;

/// The groups that the options select, before units are ranked.
pub struct Selected {
    /// Share of the units to remove, for each group; `None` if no unit is removed.
    pub sparsity: Vec<Option<f64>>,
    /// Module of each producer, and whether the targets name it.
    pub modules: Vec<(String, bool)>,
}

/// The units that are removed, with the report on them.
pub struct Chosen {
    /// Classes of the units to remove, sorted.
    pub gone: Vec<u32>,
    /// Report entries, one for each node that produces units.
    pub nodes: Vec<NodeReport>,
    /// Number of units of the selected groups, before and after.
    pub units: (usize, usize),
}

/// Returns the groups that targets, exclusions and overrides select by the names of modules. Fails with
/// `InvalidArgument` if a name matches nothing.
///
/// A group is named by a module that produces its units, or by one that sums over them if the name matches no producer
/// (`down_proj` for the neurons that it reads).
pub fn targets(model: &Model, analysis: &Analysis<'_>, groups: &Groups, options: &PruneOptions) -> Result<Selected> {
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
        false => bail!(InvalidArgument, "no module matches {:?}; the modules are {}", pattern.text, list(&paths)),
    };
    let all = options.target_modules.is_empty();
    let (mut named, mut of_group) = (vec![all; producers.len()], vec![all; groups.groups.len()]);
    for pattern in &mut Selector::new(&options.target_modules, Fit::Parts)?.0 {
        let (by, of) = meant(pattern);
        check(pattern)?;
        named.iter_mut().zip(by).for_each(|(named, by)| *named |= by);
        of_group.iter_mut().zip(of).for_each(|(group, of)| *group |= of);
    }
    for pattern in &mut Selector::new(&options.exclude, Fit::Parts)?.0 {
        let by: Vec<bool> = producers.iter().map(|names| pattern.matches(names)).collect();
        named.iter_mut().zip(&by).for_each(|(named, by)| *named &= !by);
        for (of, group) in of_group.iter_mut().zip(&groups.groups) {
            *of &= !group.producers.iter().any(|i| by[*i]);
        }
    }
    let mut sparsity: Vec<Option<f64>> = of_group.iter().map(|of| of.then_some(options.sparsity)).collect();
    // The overrides are applied in reverse, so that the first match wins.
    for other in options.overrides.iter().rev() {
        let mut pattern = Pattern::new(&other.pattern, Fit::Parts)?;
        let (_, of) = meant(&mut pattern);
        check(&pattern)?;
        sparsity.iter_mut().zip(of).filter(|(_, of)| *of).for_each(|(group, _)| {
            *group = group.map(|_| other.sparsity);
        });
    }
    Ok(Selected { sparsity, modules: paths.into_iter().zip(named).collect() })
}

/// Returns the short names of all modules, each once.
fn list(paths: &[String]) -> String {
    let mut names: Vec<&str> = paths.iter().map(|path| short(path)).collect();
    names.sort_unstable();
    names.dedup();
    match names.is_empty() {
        true => "no modules with weights".to_owned(),
        false => names.join(", "),
    }
}

/// Returns the short name of a module: the last part of its path that is not a number.
fn short(path: &str) -> &str {
    let word = |part: &&str| !part.is_empty() && !part.bytes().all(|b| b.is_ascii_digit());
    path.split('.').rfind(word).unwrap_or(path)
}

/// Returns the units to remove: the least important of each selected group. Fails with `Unsupported` if a sparsity is
/// requested, but the selected groups have fewer than two units.
pub fn choose(
    analysis: &Analysis<'_>,
    groups: &Groups,
    selected: &Selected,
    scores: &[Vec<f64>],
    options: &PruneOptions,
) -> Result<Chosen> {
    let mut gone = Vec::new();
    let (mut before, mut after) = (0, 0);
    // For each producer: its units, the units it keeps, and whether one of its groups stayed unchanged.
    let mut tally = vec![(0usize, 0usize, false); analysis.producers.len()];
    for ((group, sparsity), scores) in groups.groups.iter().zip(&selected.sparsity).zip(scores) {
        let count = group.units.len();
        let step = if options.round_to > 0 { options.round_to } else { steps(analysis, group) };
        let keep = sparsity.map_or(count, |sparsity| kept(count, sparsity, step));
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
        bail!(Unsupported, "no unit can be removed: {}", reasons(analysis, groups, selected));
    }
    let nodes = report(analysis, groups, selected, &tally);
    Ok(Chosen { gone, nodes, units: (before, after) })
}

/// Returns how many of `count` units are kept: a multiple of `step` near the requested number, and at least one unit.
fn kept(count: usize, sparsity: f64, step: usize) -> usize {
    let wanted = count as f64 * (1.0 - sparsity);
    let rounded = (wanted / step as f64).round() as usize * step;
    if sparsity == 0.0 { count } else { rounded.max(step).min(count) }
}

/// Returns the default multiple for the number of units of a group, for fast kernels.
///
/// ONNX Runtime keeps images in blocks of channels, 16 with AVX-512 and 8 without, as long as the channels that a
/// convolution reads are whole blocks. Otherwise it converts the images to the plain layout, which costs more time than
/// the removal of a third of the channels saves. The result must not depend on the machine, and multiples of 16 are
/// multiples of 8.
fn steps(analysis: &Analysis<'_>, group: &Group) -> usize {
    let count = group.units.len();
    let channels = channels_of(analysis, group);
    let blocks = match channels.map(|each| (each, each * count)) {
        Some((each, all)) if all >= 2 * BLOCK => BLOCK / common_divisor(BLOCK, each),
        Some((each, all)) if all >= BLOCK => BLOCK / 2 / common_divisor(BLOCK / 2, each),
        _ => 1,
    };
    match count {
        256.. => blocks.max(16),
        64.. => blocks.max(8),
        _ => blocks,
    }
}

/// The number of channels in a block of ONNX Runtime's layout for images.
const BLOCK: usize = 16;

/// Returns the number of image channels of one unit; `None` if no two-dimensional convolution produces or reads the
/// group's channels.
fn channels_of(analysis: &Analysis<'_>, group: &Group) -> Option<usize> {
    let image = |node: u32, constant: &str| {
        analysis.graph.node[node as usize].is("Conv") && analysis.values[constant].rank() == 4
    };
    let made = group.producers.iter().map(|i| &analysis.producers[*i]).map(|p| (p.node, p.constant, p.axis));
    let read = group.consumers.iter().map(|i| &analysis.consumers[*i]).map(|c| (c.node, c.constant, c.axis));
    let axes: Vec<AxisId> =
        made.chain(read).filter(|(node, weight, _)| image(*node, weight)).map(|(_, _, a)| a).collect();
    let first = &group.units.first()?.elements;
    axes.iter().map(|axis| first.iter().filter(|(own, _)| own == axis).count()).filter(|count| *count > 0).min()
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Returns a description of a reason with the name of the node.
pub fn explain(analysis: &Analysis<'_>, reason: Reason) -> String {
    let behind =
        if reason.lost { "; therefore the shapes of its outputs and of all later values are not known" } else { "" };
    match reason.node.and_then(|index| analysis.graph.node.get(index as usize)) {
        Some(node) => format!("{} {:?}: {}{behind}", node.op(), node.label(), reason.text),
        None => format!("{}{behind}", reason.text),
    }
}

/// Returns the three most frequent reasons why targets cannot be cut, with their counts.
fn reasons(analysis: &Analysis<'_>, groups: &Groups, selected: &Selected) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (held, (_, named)) in groups.held.iter().zip(&selected.modules) {
        if let (Some((reason, _)), true) = (held, named) {
            *counts.entry(explain(analysis, *reason)).or_default() += 1;
        }
    }
    // Nodes with weights that could not be analysed have no units that could be cut, but the report gives the reason.
    for (node, reason) in &analysis.verdicts {
        if weighs(analysis, *node) {
            *counts.entry(explain(analysis, *reason)).or_default() += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    match counts.is_empty() {
        true => "the model has no weights whose units could be removed".to_owned(),
        false => counts.iter().take(3).map(|(text, count)| format!("{count} x {text}")).collect::<Vec<_>>().join(", "),
    }
}

/// Returns whether a node, or a subgraph inside it, reads a matrix or a larger tensor.
fn weighs(analysis: &Analysis<'_>, node: u32) -> bool {
    let node = &analysis.graph.node[node as usize];
    let many = |tensor: &TensorProto| {
        let dtype = tensor.dtype();
        dtype.is_some_and(DataType::is_float) && tensor.dims.iter().filter(|size| **size > 1).count() > 1
    };
    let stored = |name: &str| {
        let constant = analysis.values.get(name).and_then(|value| value.constant);
        analysis.constants.get(constant.unwrap_or(name)).is_some_and(|tensor| many(tensor))
    };
    reads(node).into_iter().any(stored) || subgraphs(node).any(|graph| holds(graph, &many))
}

/// Returns whether a graph, or a subgraph of it, stores a tensor for which `wanted` is true.
fn holds(graph: &GraphProto, wanted: &dyn Fn(&TensorProto) -> bool) -> bool {
    graph.initializer.iter().any(wanted)
        || graph.node.iter().any(|node| {
            let value = node.attribute.iter().filter_map(|a| a.t.as_deref());
            value.into_iter().any(wanted) || subgraphs(node).any(|graph| holds(graph, wanted))
        })
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
            ("pruned", format!("{path}: {keep} of {count} units are kept"))
        } else if !named || partly && count > 0 {
            ("left", format!("{path}: not among the targets"))
        } else if count > 1 {
            ("left", format!("{path}: all {count} units are kept"))
        } else {
            let why = groups.held[index]
                .map_or_else(|| "all units depend on each other".to_owned(), |(reason, _)| explain(analysis, reason));
            ("left", format!("{path}: {why}"))
        };
        let proto = &analysis.graph.node[producer.node as usize];
        let node =
            NodeReport { name: proto.label().to_owned(), op: proto.op().to_owned(), action, reason, sensitivity: None };
        nodes.entry(producer.node).or_insert(node);
    }
    for (index, reason) in analysis.verdicts.iter().filter(|(node, _)| weighs(analysis, *node)) {
        let proto = &analysis.graph.node[*index as usize];
        let reason = explain(analysis, *reason);
        let (name, op) = (proto.label().to_owned(), proto.op().to_owned());
        nodes.entry(*index).or_insert(NodeReport { name, op, action: "left", reason, sensitivity: None });
    }
    nodes.into_values().collect()
}
