//! Removal of layers from the graph.

use super::find::Layers;
use crate::error::{Result, bail};
use crate::graph::dead::{Policy, eliminate, read_values};
use crate::graph::edit::{self, Names};
use crate::graph::order::{leading_to, producers};
use crate::model::Model;
use crate::onnx::proto::{GraphProto, NodeProto};
use crate::prune::structured::sizes_of;
use crate::text::Decoder;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Returns the model without the layers `gone`, which are sorted indices in [`Layers::layers`]. The caches of the other
/// layers are renumbered. Fails with `Unsupported` if a layer cannot be removed, for example because later nodes use
/// one of its values.
pub fn remove(model: &Model, found: &Layers, gone: &[usize], decoder: Option<&Decoder>) -> Result<Model> {
    let mut proto = model.proto().clone();
    edit::modernize_ir(&mut proto);
    let mut names = Names::of(&proto);
    let Some(graph) = proto.graph.as_deref_mut() else { bail!(InvalidModel, "the model has no graph") };
    let sizes = sizes_of(model);
    let mut instead: HashMap<String, String> = HashMap::new();
    for index in gone {
        let layer = &found.layers[*index];
        let Some(output) = &layer.output else {
            bail!(Unsupported, "layer {}: its output is not known", layer.number);
        };
        if let (Some(a), Some(b)) = (sizes.get(&layer.input), sizes.get(output))
            && a != b
        {
            bail!(Unsupported, "layer {}: its output has another shape than its input", layer.number);
        }
        let input = instead.get(&layer.input).unwrap_or(&layer.input).clone();
        instead.insert(output.clone(), input);
    }
    let label = |node: usize| found.last[node].filter(|last| gone.binary_search(last).is_ok());
    same_sizes(graph, found, &label, &sizes);
    rename(graph, &instead);
    outputs(graph, &instead, &mut names);
    let caches = decoder.map(|decoder| caches(graph, found, gone, decoder)).unwrap_or_default();
    graph.output.retain(|output| !output.name.as_ref().is_some_and(|name| caches.gone.contains(name)));
    let left = leading_to(&graph.node, graph.output.iter().filter_map(|output| output.name.as_deref()));
    if let Some(node) = (0..left.len().min(found.own.len()))
        .find(|node| left[*node] && found.own[*node].is_some_and(|own| gone.binary_search(&own).is_ok()))
    {
        let number = found.own[node].map_or(0, |own| found.layers[own].number);
        let label = graph.node[node].label();
        bail!(Unsupported, "layer {number} cannot be removed: later nodes use the output of node {label:?}");
    }
    let before = read_values(graph);
    eliminate(graph, Policy::NodesAnd(&before));
    let read = read_values(graph);
    graph.value_info.retain(|info| !info.name.as_ref().is_some_and(|n| before.contains(n) && !read.contains(n)));
    if let Some(name) = caches.gone.iter().find(|name| read.contains(*name)) {
        bail!(Unsupported, "the layer with the cache {name:?} cannot be removed: the cache is used elsewhere");
    }
    graph.input.retain(|input| !input.name.as_ref().is_some_and(|name| caches.gone.contains(name)));
    rename(graph, &caches.renamed);
    for node in &mut graph.node {
        node.output.iter_mut().for_each(|output| replace(output, &caches.renamed));
    }
    let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    infos.filter_map(|info| info.name.as_mut()).for_each(|name| replace(name, &caches.renamed));
    Ok(model.derive(proto))
}

fn replace(name: &mut String, map: &HashMap<String, String>) {
    if let Some(new) = map.get(name) {
        name.clone_from(new);
    }
}

/// Renames the inputs of all nodes, also in subgraphs.
fn rename(graph: &mut GraphProto, map: &HashMap<String, String>) {
    for node in &mut graph.node {
        node.input.iter_mut().for_each(|input| replace(input, map));
        for attribute in &mut node.attribute {
            attribute.g.iter_mut().for_each(|graph| rename(graph, map));
            attribute.graphs.iter_mut().for_each(|graph| rename(graph, map));
        }
    }
}

/// Makes nodes that read the shape of a value inside a removed layer read the shape of the input of that layer, if both
/// have equal sizes.
fn same_sizes(
    graph: &mut GraphProto,
    found: &Layers,
    label: &dyn Fn(usize) -> Option<usize>,
    sizes: &HashMap<String, Vec<[i64; 2]>>,
) {
    let producer = producers(&graph.node);
    let before = |node: &NodeProto| {
        let name = node.input.first().filter(|_| node.op() == "Shape")?;
        let input = &found.layers[label(*producer.get(name.as_str())?)?].input;
        (sizes.contains_key(input) && sizes.get(input) == sizes.get(name)).then_some(input)
    };
    let inputs: Vec<Option<&String>> = graph.node.iter().map(before).collect();
    for (node, input) in graph.node.iter_mut().zip(inputs) {
        input.into_iter().for_each(|input| node.input[0].clone_from(input));
    }
}

/// Keeps the names of model outputs that were the output of a removed layer: an `Identity` of its input produces them.
fn outputs(graph: &mut GraphProto, instead: &HashMap<String, String>, names: &mut Names) {
    let given: Vec<String> = graph.output.iter().filter_map(|o| o.name.clone()).collect();
    for name in given {
        let Some(input) = instead.get(&name) else { continue };
        let fresh = names.fresh(&format!("{name}_dropped"));
        for output in graph.node.iter_mut().flat_map(|node| &mut node.output).filter(|output| **output == name) {
            output.clone_from(&fresh);
        }
        graph.node.push(NodeProto {
            name: Some(names.fresh(&format!("{name}_same"))),
            ..edit::node("Identity", &[input], &[&name])
        });
    }
}

/// The inputs and outputs of a decoder's cache that are removed or renamed.
#[derive(Default)]
struct Caches {
    /// Names of the inputs and outputs to remove.
    gone: BTreeSet<String>,
    /// New names of the other inputs and outputs.
    renamed: HashMap<String, String>,
}

fn caches(graph: &mut GraphProto, found: &Layers, gone: &[usize], decoder: &Decoder) -> Caches {
    let producer = producers(&graph.node);
    let layer = |present: &str| producer.get(present).and_then(|node| found.last.get(*node).copied().flatten());
    let is_removed = |present: &str| layer(present).is_some_and(|layer| gone.binary_search(&layer).is_ok());
    let (out, kept): (Vec<_>, Vec<_>) = decoder.cache.iter().partition(|pair| is_removed(&pair.present));
    let mut caches = Caches::default();
    let numbers: BTreeSet<usize> = kept.iter().filter_map(|pair| number(&pair.past)).collect();
    let new: BTreeMap<usize, usize> = numbers.into_iter().enumerate().map(|(new, old)| (old, new)).collect();
    for name in kept.iter().flat_map(|pair| [&pair.past, &pair.present]) {
        if let Some(new) = number(name).and_then(|old| new.get(&old)) {
            caches.renamed.insert(name.clone(), numbered(name, *new));
        }
    }
    // Graphs often read the length of the past from the first cache; any remaining cache has the same length.
    let sizes: HashMap<String, String> = out
        .iter()
        .filter_map(|pair| Some((pair.past.clone(), kept.iter().find(|k| k.shape == pair.shape)?.past.clone())))
        .collect();
    for node in graph.node.iter_mut().filter(|node| node.op() == "Shape") {
        node.input.iter_mut().for_each(|input| replace(input, &sizes));
    }
    caches.gone = out.into_iter().flat_map(|pair| [pair.past.clone(), pair.present.clone()]).collect();
    caches
}

/// Returns the range of the digits of the first number in a name; `None` if it has none.
fn digits(name: &str) -> Option<std::ops::Range<usize>> {
    let start = name.find(|c: char| c.is_ascii_digit())?;
    let end = name[start..].find(|c: char| !c.is_ascii_digit()).map_or(name.len(), |length| start + length);
    Some(start..end)
}

fn number(name: &str) -> Option<usize> {
    name[digits(name)?].parse().ok()
}

fn numbered(name: &str, number: usize) -> String {
    match digits(name) {
        Some(range) => format!("{}{number}{}", &name[..range.start], &name[range.end..]),
        None => name.to_owned(),
    }
}
