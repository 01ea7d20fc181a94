//! The classes of two classifiers, by their names (`id2label`).

use crate::error::{Result, bail};
use crate::graph::edit::{self, Names};
use crate::model::{Card, Dim, Model};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto};
use crate::runtime::Tensor;
use serde_json::{Map, Value};

/// Names of classes in messages, at most.
const SHOWN: usize = 12;

/// How the classes of another model stand to those of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// They are in the same order, as far as anything says.
    Same,
    /// Only one of the two names them: they are taken to be in the same order. The words say so.
    Unnamed(String),
    /// The same classes in another order: the first's class `i` is the other's class `order[i]`.
    Other(Vec<usize>),
    /// Other classes; the words name them.
    Different(String),
}

impl Order {
    /// Compares the names of the classes of two models. `first` and `other` are what messages call them.
    ///
    /// Names that are numbers or `LABEL_0`, `LABEL_1` … say nothing, and a single class has nothing to be confused
    /// with. Names may differ in upper and lower case.
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

    /// The order in which the other's classes must be taken to be those of the first; `None` if they are already.
    ///
    /// [`crate::error::Kind::InvalidArgument`] if they are other classes.
    pub fn mapping(self) -> Result<Option<Vec<usize>>> {
        match self {
            Order::Same | Order::Unnamed(_) => Ok(None),
            Order::Other(order) => Ok(Some(order)),
            Order::Different(how) => {
                bail!(InvalidArgument, "{how}: equal classes must have equal names (`id2label` in config.json)")
            }
        }
    }

    /// What the caller should be told.
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

/// The class of the first model that each class of the other is.
pub fn inverse(order: &[usize]) -> Vec<usize> {
    let mut found = vec![0; order.len()];
    order.iter().enumerate().filter(|(_, class)| **class < order.len()).for_each(|(of, class)| found[*class] = of);
    found
}

/// Values of the other model in the order of the first, along the last dimension; as they are if there are not as many
/// as classes.
pub fn permuted(tensor: &Tensor, order: &[usize]) -> Result<Tensor> {
    if tensor.shape().last().and_then(|size| usize::try_from(*size).ok()) != Some(order.len()) {
        return Ok(tensor.clone());
    }
    let values = tensor.to_f32_vec()?;
    let row = |row: &[f32]| order.iter().map(|class| row[*class]).collect::<Vec<f32>>();
    Tensor::from_f32(tensor.shape(), values.chunks_exact(order.len().max(1)).flat_map(row).collect())
}

/// The model with its output `logits` and the names of its classes in another order: the result's class `i` is its
/// class `order[i]`. `InvalidArgument` if the output is of another number of classes.
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

/// Gives a value another name wherever nodes make or read it; inputs and outputs of the graph keep theirs.
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

/// The names of all classes, in their order, if they say what the classes are.
fn names(card: &Card) -> Option<Vec<String>> {
    let names = names_of(card)?;
    let generic = |(index, name): (usize, &String)| {
        let name = plain(name);
        let number = name.strip_prefix("label").unwrap_or(&name).trim_start_matches(['_', '-', ' ']);
        number.parse::<usize>() == Ok(index)
    };
    (!names.iter().enumerate().all(generic)).then_some(names)
}

/// The names of all classes, in their order; `None` if one is missing, or two are the same.
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

/// Where each name of `a` is in `b`; `None` if they are not the same names.
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
