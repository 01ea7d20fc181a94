//! The comparison of the classes of two classifiers, by name (`id2label`).

use crate::error::{Result, bail};
use crate::graph::edit::{self, Names};
use crate::model::{Card, Dim, Model};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto};
use crate::runtime::Tensor;
use serde_json::{Map, Value};

/// The number of class names in a message after which the others are omitted.
const SHOWN: usize = 12;

/// The order of the classes of one model (the other) relative to those of another (the first).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The order is the same, or neither model names its classes, or both have a single class.
    Same,
    /// Only one of the two names its classes: the order is assumed to be the same. The text says which model has no
    /// names.
    Unnamed(String),
    /// The same classes in another order: class `i` of the first model is class `order[i]` of the other.
    Other(Vec<usize>),
    /// The models have different classes; the text lists both.
    Different(String),
}

impl Order {
    /// Returns the relation of the class names of two models, whose cards are `a` (the first model) and `b` (the
    /// other). `first` and `other` name the models in messages.
    ///
    /// A model counts as one without names if a name is missing or repeated, or if each name is the index of its class
    /// (`0`, `LABEL_0`). Names that differ only in case or in white space at their ends are equal. Two models with a
    /// single class each have the same order.
    pub fn of(a: &Card, b: &Card, first: &str, other: &str) -> Order {
        let (left, right) = (names(a), names(b));
        let (left, right) = match (left, right) {
            (None, None) => return Order::Same,
            (Some(left), Some(right)) => (left, right),
            (left, _) => {
                let (named, unnamed) = if left.is_some() { (first, other) } else { (other, first) };
                return Order::Unnamed(format!(
                    "the classes of {unnamed} have no names: they are assumed to be in the order of {named}"
                ));
            }
        };
        if left.len() == 1 && right.len() == 1 {
            return Order::Same;
        }
        let lowered = |names: &[String]| names.iter().map(|name| plain(name)).collect::<Vec<_>>();
        let found = matched(&left, &right).or_else(|| matched(&lowered(&left), &lowered(&right)));
        match found {
            Some(order) if order.iter().enumerate().all(|(a, b)| a == *b) => Order::Same,
            Some(order) => Order::Other(order),
            None => Order::Different(format!(
                "the classes of {first} are {}, those of {other} {}",
                shown(&left),
                shown(&right)
            )),
        }
    }

    /// Returns for each class of the first model the index of the same class of the other; `None` if the order is the
    /// same or assumed to be.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] if the classes differ.
    pub fn mapping(self) -> Result<Option<Vec<usize>>> {
        match self {
            Order::Same | Order::Unnamed(_) => Ok(None),
            Order::Other(order) => Ok(Some(order)),
            Order::Different(how) => {
                bail!(InvalidArgument, "{how}: equal classes must have equal names (`id2label` in config.json)")
            }
        }
    }

    /// Returns a note for the user; `None` if the order needs no explanation. `first` and `other` name the models.
    pub fn note(&self, first: &str, other: &str) -> Option<String> {
        match self {
            Order::Unnamed(how) => Some(how.clone()),
            Order::Other(_) => {
                Some(format!("the classes of {other} are in another order: they are reordered to match {first}"))
            }
            Order::Same | Order::Different(_) => None,
        }
    }
}

/// Returns the inverse of `order`: the index of the first model's class for each class of the other model.
pub fn inverse(order: &[usize]) -> Vec<usize> {
    let mut found = vec![0; order.len()];
    order.iter().enumerate().filter(|(_, class)| **class < order.len()).for_each(|(of, class)| found[*class] = of);
    found
}

/// Returns the other model's values in the class order of the first, along the last dimension, as float32. If the last
/// dimension does not have as many elements as there are classes, the tensor is returned unchanged. Fails like
/// [`Tensor::to_f32_vec`].
pub fn permuted(tensor: &Tensor, order: &[usize]) -> Result<Tensor> {
    if tensor.shape().last().and_then(|size| usize::try_from(*size).ok()) != Some(order.len()) {
        return Ok(tensor.clone());
    }
    let values = tensor.to_f32_vec()?;
    let row = |row: &[f32]| order.iter().map(|class| row[*class]).collect::<Vec<f32>>();
    Tensor::from_f32(tensor.shape(), values.chunks_exact(order.len().max(1)).flat_map(row).collect())
}

/// Returns the model with the classes of its output `output` (along the last dimension) and its `id2label` reordered:
/// class `i` of the result is class `order[i]` of `model`. Fails with `InvalidArgument` if the output declares another
/// number of classes.
pub fn reordered(model: &Model, output: &str, order: &[usize]) -> Result<Model> {
    let shape = model.outputs().into_iter().find(|info| info.name == output).and_then(|info| info.shape);
    if let Some(Dim::Fixed(size)) = shape.as_ref().and_then(|shape| shape.last())
        && *size != order.len() as i64
    {
        bail!(InvalidArgument, "the output {output:?} has {size} classes; the configuration has {}", order.len());
    }
    let mut proto = model.proto().clone();
    let mut names = Names::of(&proto);
    let (own, indices) = (names.fresh(&format!("{output}_in_own_order")), names.fresh("order_of_classes"));
    let Some(graph) = proto.graph.as_deref_mut() else { bail!(InvalidModel, "the model has no graph") };
    rename(graph, output, &own);
    let raw = order.iter().flat_map(|class| (*class as i64).to_le_bytes()).collect();
    graph.initializer.push(edit::tensor(&indices, DataType::Int64, &[order.len() as i64], raw));
    let gather = edit::node("Gather", &[&own, &indices], &[output]);
    graph.node.push(NodeProto { attribute: vec![edit::int_attribute("axis", -1)], ..gather });
    let mut card = model.card().clone();
    if let Some(labels) = names_of(&card) {
        let entry =
            |(index, class): (usize, &usize)| Some((index.to_string(), Value::from(labels.get(*class)?.clone())));
        let map: Map<String, Value> = order.iter().enumerate().filter_map(entry).collect();
        card.config.insert("id2label".to_owned(), Value::Object(map));
    }
    Ok(model.derive(proto).with_card(card))
}

/// Renames a value wherever nodes produce or read it, also in their subgraphs; inputs and outputs of the graph keep
/// their names.
fn rename(graph: &mut GraphProto, from: &str, to: &str) {
    let change = |name: &mut String| {
        if name == from {
            to.clone_into(name);
        }
    };
    for node in &mut graph.node {
        node.input.iter_mut().chain(&mut node.output).for_each(change);
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().map(|g| &mut **g).chain(&mut attribute.graphs) {
                rename(inner, from, to);
            }
        }
    }
}

/// Returns the names of all classes in order; `None` if [`names_of`] finds none, or if each is only the index of its
/// class (`LABEL_0`).
fn names(card: &Card) -> Option<Vec<String>> {
    let names = names_of(card)?;
    let generic = |(index, name): (usize, &String)| {
        let name = plain(name);
        let number = name.strip_prefix("label").unwrap_or(&name).trim_start_matches(['_', '-', ' ']);
        number.parse::<usize>() == Ok(index)
    };
    (!names.iter().enumerate().all(generic)).then_some(names)
}

/// Returns the names of all classes in order; `None` if one is missing, or two are equal.
fn names_of(card: &Card) -> Option<Vec<String>> {
    let mut named = card.class_names();
    named.sort();
    let whole = named.iter().enumerate().all(|(index, (class, _))| index == *class);
    let names: Vec<String> = named.into_iter().map(|(_, name)| name).collect();
    let mut distinct = names.clone();
    distinct.sort();
    distinct.dedup();
    (whole && !names.is_empty() && distinct.len() == names.len()).then_some(names)
}

fn plain(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Returns the index in `b` of each name of `a`; `None` if the names differ.
fn matched(a: &[String], b: &[String]) -> Option<Vec<usize>> {
    if a.len() != b.len() {
        return None;
    }
    let order: Option<Vec<usize>> = a.iter().map(|name| b.iter().position(|other| other == name)).collect();
    let order = order?;
    let mut seen = order.clone();
    seen.sort_unstable();
    seen.dedup();
    (seen.len() == a.len()).then_some(order)
}

fn shown(names: &[String]) -> String {
    let listed: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    let more = if names.len() > SHOWN { " …" } else { "" };
    format!("{}{more}", listed.join(", "))
}
