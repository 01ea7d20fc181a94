//! Detection of layers by name, and of the value in the graph where each begins and ends.
//!
//! The values that depend on the tokens (or on another float input) are followed through the layers in the order of the
//! nodes. A position where only one such value is live is a *joint*: no other value passes it. A layer begins at the
//! last joint before its first weight, and ends where the next layer begins.

use crate::error::{Result, bail};
use crate::graph::order::{producers, reads, topological};
use crate::graph::{View, modules};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Words that precede the index of a layer without a dot.
const WORDS: [&str; 5] = ["layer", "layers", "block", "blk", "h"];

/// One of the repeated layers of a model, for example a transformer block.
pub struct Layer {
    /// Index of the layer in names.
    pub number: usize,
    /// Name of the value that is the input of the layer.
    pub input: String,
    /// Name of the value that is the output of the layer; `None` if it is not known.
    pub output: Option<String>,
}

/// The layers of a model, and the layer of each node.
pub struct Layers {
    /// The layers in the order in which they run.
    pub layers: Vec<Layer>,
    /// Index in `layers` of the layer whose weight a node reads, for each node of the main graph; `None` if it reads
    /// none.
    pub own: Vec<Option<usize>>,
    /// Index in `layers` of the last layer whose weight a node reads or that its inputs depend on, for each node.
    pub last: Vec<Option<usize>>,
}

/// Returns the layers of a model. `cache` has the names of the inputs and outputs of a decoder's cache. Fails with
/// `Unsupported` and the reason if the layers cannot be distinguished.
pub fn find(model: &Model, cache: &HashSet<&str>) -> Result<Layers> {
    let graph = model.graph();
    let (numbers, own) = named(model);
    if numbers.len() < 2 {
        bail!(Unsupported, "no layers were found: no weights or nodes have numbered names like layers.0, layers.1");
    }
    let order = topological(&graph.node)?;
    let mut place = vec![0usize; graph.node.len()];
    order.iter().enumerate().for_each(|(at, node)| place[*node] = at);
    // Places are positions in the order of nodes, from 1; place 0 is that of the inputs.
    let joints = joints(graph, &order, &place, &own, cache);
    let bounds = |layer: usize| {
        let places = own.iter().enumerate().filter(|(_, of)| **of == Some(layer)).map(|(node, _)| place[node] + 1);
        places.fold((usize::MAX, 0), |(first, last), at| (first.min(at), last.max(at)))
    };
    let bounds: Vec<(usize, usize)> = (0..numbers.len()).map(bounds).collect();
    let mut begins: Vec<usize> = Vec::new();
    for (layer, (first, _)) in bounds.iter().enumerate() {
        let joint = joints.partition_point(|(at, _)| at < first).checked_sub(1);
        let apart = |joint: &usize| layer == 0 || joints[*joint].0 >= bounds[layer - 1].1;
        match joint.filter(apart) {
            Some(joint) => begins.push(joint),
            None => bail!(Unsupported, "layer {}: more than one value flows into it", numbers[layer]),
        }
    }
    // The last layer is assumed to have as many joints as the one before it.
    let count = numbers.len();
    let end = begins[count - 1] + (begins[count - 1] - begins[count - 2]);
    let end = Some(end).filter(|end| joints.get(*end).is_some_and(|(at, _)| *at >= bounds[count - 1].1));
    let value = |joint: usize| joints[joint].1.to_owned();
    let layers = numbers.iter().enumerate().map(|(layer, number)| Layer {
        number: *number,
        input: value(begins[layer]),
        output: begins.get(layer + 1).copied().or(end).map(value),
    });
    Ok(Layers { layers: layers.collect(), last: last(graph, &order, &own), own })
}

/// Returns the numbers of the layers in ascending order, and for each node of the main graph that reads the weight of a
/// layer the position of that layer's number among them.
fn named(model: &Model) -> (Vec<usize>, Vec<Option<usize>>) {
    let view = View::new(model.proto());
    let nodes = &model.graph().node;
    // Names are grouped by the text before the number; each group has the numbers and their nodes.
    let mut families: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| node.op() != "Gather") {
        let constants = node.input.iter().filter_map(|name| view.constant_or_default(0, name));
        let Some(weight) = constants.filter(|c| c.tensor.dims.len() > 1).map(|c| c.name).next() else { continue };
        for path in modules::paths(&view, 0, index, weight).into_iter().take(1) {
            numbered(&path).into_iter().for_each(|(family, number)| {
                families.entry(family).or_default().push((number, index));
            });
        }
    }
    let distinct = |list: &[(usize, usize)]| list.iter().map(|(number, _)| *number).collect::<BTreeSet<_>>();
    let mut own = vec![None; nodes.len()];
    let best = families.values().max_by_key(|list| (distinct(list).len(), list.len()));
    let Some(list) = best else { return (Vec::new(), own) };
    let numbers: Vec<usize> = distinct(list).into_iter().collect();
    list.iter().for_each(|(number, node)| own[*node] = numbers.iter().position(|n| n == number));
    (numbers, own)
}

/// Returns the numbers in a path, each with the text before it: those of whole parts, and those after one of [`WORDS`].
fn numbered(path: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut before = String::new();
    for part in path.split('.') {
        let word = part.trim_end_matches(|c: char| c.is_ascii_digit());
        let known = word.is_empty() || WORDS.contains(&word.trim_end_matches('_'));
        if let (Ok(number), true) = (part[word.len()..].parse(), known) {
            found.push((format!("{before}.{word}"), number));
        }
        before = format!("{before}.{part}");
    }
    found
}

/// Returns the positions in the order of nodes after which only one value is live, and that value.
fn joints<'g>(
    graph: &'g GraphProto,
    order: &[usize],
    place: &[usize],
    own: &[Option<usize>],
    cache: &HashSet<&str>,
) -> Vec<(usize, &'g str)> {
    // Position 0 is that of the inputs.
    let end = order.len() + 1;
    let mut until: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for name in reads(node) {
            let last = until.entry(name).or_default();
            *last = (place[index] + 1).max(*last);
        }
    }
    // Values that only the caller reads are live until the end.
    for name in graph.output.iter().filter_map(|o| o.name.as_deref()).filter(|name| !cache.contains(name)) {
        until.entry(name).or_insert(end);
    }
    let producer = producers(&graph.node);
    let mut flows: HashSet<&str> = sources(graph, cache);
    let mut change = vec![0i64; end + 1];
    let mut made: Vec<(usize, &str)> = Vec::new();
    let mut given: Vec<&str> = flows.iter().copied().collect();
    given.sort_unstable();
    for name in given {
        if let Some(last) = until.get(name) {
            change[0] += 1;
            change[*last] -= 1;
            made.push((0, name));
        }
    }
    for (at, index) in order.iter().enumerate().map(|(at, index)| (at + 1, index)) {
        let node = &graph.node[*index];
        // Sizes do not depend on the layers, so they are not followed.
        let carries = !matches!(node.op(), "Shape" | "Size") && reads(node).iter().any(|name| flows.contains(name));
        if !carries && own[*index].is_none() && !looks_up(graph, &producer, node) {
            continue;
        }
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            flows.insert(output);
            if let Some(last) = until.get(output.as_str()).filter(|last| **last > at) {
                change[at] += 1;
                change[*last] -= 1;
                made.push((at, output));
            }
        }
    }
    let mut alive = 0;
    let counts: Vec<i64> = change
        .iter()
        .map(|change| {
            alive += change;
            alive
        })
        .collect();
    made.into_iter().filter(|(at, _)| counts[*at] == 1).collect()
}

/// Returns the names of the float inputs of a graph with at least three dimensions (or of unknown rank) that do not
/// belong to the cache.
fn sources<'g>(graph: &'g GraphProto, cache: &HashSet<&str>) -> HashSet<&'g str> {
    let floats = [DataType::Float32, DataType::Float16, DataType::Bfloat16].map(|dtype| Some(dtype.to_onnx()));
    let of = |info: &'g crate::onnx::proto::ValueInfoProto| {
        let tensor = info.value_type.as_deref()?.tensor_type.as_deref()?;
        let large = tensor.shape.as_deref().is_none_or(|shape| shape.dim.len() >= 3);
        let name = info.name.as_deref()?;
        (floats.contains(&tensor.elem_type) && large && !cache.contains(name)).then_some(name)
    };
    graph.input.iter().filter_map(of).collect()
}

/// Returns whether a node gathers the vectors of tokens from a table, and not those of positions or token types.
fn looks_up(graph: &GraphProto, producer: &HashMap<&str, usize>, node: &NodeProto) -> bool {
    let Some(mut ids) = node.input_at(1).filter(|_| node.op() == "Gather") else { return false };
    while let Some(before) = producer.get(ids) {
        match graph.node[*before].input.as_slice() {
            [one] => ids = one,
            _ => return false,
        }
    }
    let given = graph.input.iter().any(|input| input.name.as_deref() == Some(ids));
    given && !["position", "type", "mask", "past"].iter().any(|word| ids.contains(word))
}

fn last(graph: &GraphProto, order: &[usize], own: &[Option<usize>]) -> Vec<Option<usize>> {
    let mut of_value: HashMap<&str, usize> = HashMap::new();
    let mut last = vec![None; graph.node.len()];
    for index in order {
        let node = &graph.node[*index];
        let before = reads(node).into_iter().filter_map(|name| of_value.get(name).copied()).max();
        last[*index] = own[*index].max(before);
        if let Some(layer) = last[*index] {
            of_value.extend(node.output.iter().map(|output| (output.as_str(), layer)));
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_paths() {
        let of = |path: &str| numbered(path).into_iter().map(|(f, n)| format!("{f}:{n}")).collect::<Vec<_>>().join(" ");
        assert_eq!(of("model.layers.11.mlp.fc1"), ".model.layers.:11");
        assert_eq!(of("encoder.layer_3.dense"), ".encoder.layer_:3");
        assert_eq!(of("stages.1.blocks.2.conv1"), ".stages.:1 .stages.1.blocks.:2");
        assert_eq!(of("transformer.h.0.attn"), ".transformer.h.:0");
        assert_eq!(of("fc2"), "");
    }
}
