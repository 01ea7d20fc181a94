//! The check that models may be merged: they must be equal except for the values of their weights.

use super::merge::{content, floats, initializers};
use super::place;
use crate::error::{Context, Result, bail};
use crate::graph::formula::formula;
use crate::meaning::{Order, reading};
use crate::model::{Model, Task};
use crate::onnx::proto::NodeProto;
use serde_json::Value;

/// The keys of a configuration that explain differences in the constants of graphs.
const NUMBERS: [&str; 16] = [
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rotary_emb_base",
    "partial_rotary_factor",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_eps",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "attention_multiplier",
    "embedding_multiplier",
    "residual_multiplier",
    "logits_scaling",
];

/// Checks that `other`, which messages call `name`, can be merged with the first model: the graphs, constants that are
/// not weights, pooling, classes and vocabularies must be equal. Returns notes for the caller: if only one of them
/// names its classes, and if the tokenizers split texts differently. Fails with `InvalidArgument` if the models cannot
/// be merged.
pub fn check(first: &Model, other: &Model, name: &str) -> Result<Vec<String>> {
    same_graph(first, other).at(|| name)?;
    same_constants(first, other).at(|| name)?;
    let (a, b) = (first.card(), other.card());
    if let (Some(left), Some(right)) = (a.pooling, b.pooling)
        && left != right
    {
        bail!(InvalidArgument, "{name} pools token vectors by {right:?}, but {} by {left:?}", place(0));
    }
    let order = Order::of(a, b, &place(0), name);
    let mut notes: Vec<String> = order.note(&place(0), name).filter(|_| a.task == Task::Classify).into_iter().collect();
    if let Some(order) = order.mapping()? {
        let (class, of_other) = order.iter().enumerate().find(|(a, b)| a != *b).unwrap_or((0, &0));
        bail!(
            InvalidArgument,
            "{name}: the classes are in another order than in {}: class {of_other} is class {class} there",
            place(0)
        );
    }
    let Some(found) = reading(first, other, None).at(|| name)? else { return Ok(notes) };
    if let Some(how) = found.ids {
        bail!(
            InvalidArgument,
            "{} and {name} have different vocabularies: {how}. Merging would mix the weights of different tokens",
            place(0)
        );
    }
    let text = found.cut.unwrap_or_default();
    notes.push(format!(
        "{name} splits texts differently from {}, whose tokenizer is kept; for example {text}",
        place(0)
    ));
    Ok(notes)
}

/// Fails with `InvalidArgument` if two models differ in their nodes (operators, inputs, outputs, attributes), functions
/// or sparse tensors, or in the names or shapes of their initializers.
fn same_graph(first: &Model, other: &Model) -> Result<()> {
    let (a, b) = (first.graph(), other.graph());
    if a.node.len() != b.node.len() {
        bail!(InvalidArgument, "the model has {} nodes, but member 1 has {}", b.node.len(), a.node.len());
    }
    for (left, right) in a.node.iter().zip(&b.node) {
        let same = operator(left) == operator(right) && left.input == right.input && left.output == right.output;
        // Constants inside nodes may be weights: they are compared, not merged.
        if !same || left.attribute != right.attribute {
            bail!(InvalidArgument, "node {:?} differs from the node of member 1{}", right.label(), why(first, other));
        }
    }
    if first.proto().functions != other.proto().functions || a.sparse_initializer != b.sparse_initializer {
        bail!(InvalidArgument, "functions or sparse tensors differ from those of member 1{}", why(first, other));
    }
    let theirs = initializers(other);
    for tensor in &a.initializer {
        let name = tensor.name.as_deref().unwrap_or("");
        match theirs.get(name) {
            None => bail!(InvalidArgument, "the model has no tensor {name:?}, which member 1 has"),
            Some(found) if found.dims != tensor.dims => {
                bail!(InvalidArgument, "tensor {name:?} is {:?}, but that of member 1 is {:?}", found.dims, tensor.dims)
            }
            Some(_) => {}
        }
    }
    let own = initializers(first);
    let mut asked = a.input.iter().filter_map(|input| input.name.as_deref()).filter(|name| !own.contains_key(name));
    if let Some(name) = asked.find(|name| theirs.contains_key(name)) {
        bail!(InvalidArgument, "the model has a tensor {name:?}, which is an input of member 1");
    }
    Ok(())
}

/// Returns domain, name and overload of the operator of a node.
fn operator(node: &NodeProto) -> [&str; 3] {
    let domain = node.domain.as_deref().filter(|domain| *domain != "ai.onnx").unwrap_or("");
    [domain, node.op(), node.overload.as_deref().unwrap_or("")]
}

/// Fails with `InvalidArgument` if constants of the architecture ([`formula`]) differ, because their mean would be
/// meaningless.
fn same_constants(first: &Model, other: &Model) -> Result<()> {
    let theirs = initializers(other);
    let formula = formula(first.graph());
    for tensor in &first.graph().initializer {
        let name = tensor.name.as_deref().unwrap_or("");
        let Some((what, found)) = formula.get(name).zip(theirs.get(name)) else { continue };
        let same = content(tensor).is_some() && content(tensor) == content(found);
        if !same && floats(tensor).at(|| name.to_owned())? != floats(found).at(|| name.to_owned())? {
            bail!(
                InvalidArgument,
                "tensor {name:?}, {what}, differs from that of member 1, and their mean would be meaningless{}",
                why(first, other)
            );
        }
    }
    Ok(())
}

/// Returns the differences of the configurations as the end of a message; empty if there are none.
fn why(first: &Model, other: &Model) -> String {
    let (a, b) = (&first.card().config, &other.card().config);
    let missing = Value::Null;
    let differs = |key: &&&str| a.get(**key).unwrap_or(&missing) != b.get(**key).unwrap_or(&missing);
    let said = |key: &&str| {
        let of =
            |config: &serde_json::Map<String, Value>| config.get(*key).map_or("absent".to_owned(), Value::to_string);
        format!("{key} is {} here and {} in member 1", of(b), of(a))
    };
    match NUMBERS.iter().filter(differs).map(said).collect::<Vec<_>>() {
        said if said.is_empty() => String::new(),
        said => format!(" ({})", said.join("; ")),
    }
}

#[cfg(test)]
mod tests;
