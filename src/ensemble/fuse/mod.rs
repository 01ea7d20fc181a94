//! The fusion of an ensemble into one model that has the members as branches ([`Ensemble::fuse`]).
//!
//! `join` combines the members' graphs over common inputs, and `heads` their outputs. The result is an ordinary model
//! of standard operators (and those of the members): it is saved, loaded, run and measured like any other. The `logits`
//! of a fused decoder or classifier are log-probabilities (those of labels that do not exclude each other the logits of
//! the combined probabilities, those of one class the combined number; scores stay scores), and the caches of a decoder
//! have the usual names, with layers numbered consecutively from member to member, so that it can be used like one
//! decoder.

mod heads;
mod join;

use super::{Ensemble, Method, name_of, place};
use crate::call::Call;
use crate::encoder::{output_of, usual_dimensions};
use crate::error::{Context, Result, bail};
use crate::graph::edit;
use crate::model::{Card, Dim, Format, Model, SideContent, SideFile, Task, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{DimensionProto, ModelProto, TensorShapeProto, ValueInfoProto};
use crate::report::Report;
use crate::source::checkpoint::sentence::Sentence;
use heads::Nodes;
use join::{Branch, Join};
use serde_json::{Map, Value, json};
use std::time::Instant;

impl Ensemble {
    /// Returns one model that consists of the members, and a report.
    ///
    /// Weights that several members have are stored once. Reports the stage `fuse` in members. Fails with
    /// [`crate::error::Kind::Unsupported`] if the members cannot be fused, because of different vocabularies, different
    /// kinds of caches, an opset that cannot be converted, outputs that are not float, or the method `rerank`. Fails
    /// with `InvalidArgument` if their inputs or outputs do not match, and with `Cancelled` or `Timeout`. If one member
    /// is the cause, the error names it.
    pub fn fuse(&self, call: &Call) -> Result<(Model, Report)> {
        let start = Instant::now();
        if let super::Vocabularies::Different(how) = &self.vocabularies {
            bail!(Unsupported, "{how}: members without common logits cannot be fused");
        }
        if self.options.method == Method::Rerank {
            bail!(Unsupported, "the method `rerank` generates whole texts and cannot be fused");
        }
        let mut join = Join::new(self, call)?;
        let members = &self.members;
        let (outputs, task) = match self.task {
            Task::Generate | Task::FillMask | Task::Classify => (logits(self, &mut join)?, self.task),
            Task::Embed => (embedding(self, &mut join)?, Task::Embed),
            Task::Unknown => (numbers(self, &mut join)?, Task::Unknown),
        };
        let left = if self.task == Task::Unknown { left_out(&join) } else { Vec::new() };
        let shared = join.share();
        let parts: Vec<u64> = members.iter().map(|member| member.model.bytes()).collect();
        let proto = join.finish(outputs);
        let card = self.card(task);
        let model = Model::from_proto(proto).with_card(card);
        let mut report = Report::of_technique("ensemble", &self.options, &["method"]);
        super::note_models(&mut report, members.iter().map(|member| &member.model));
        report.summary = [
            ("method".to_owned(), json!(name_of(self.options.method))),
            ("task".to_owned(), json!(self.task)),
            ("members".to_owned(), json!(members.len())),
            ("weights".to_owned(), json!(members.iter().map(|m| m.weight).collect::<Vec<_>>())),
            ("member_bytes".to_owned(), json!(parts)),
            ("shared_bytes".to_owned(), json!(shared)),
            ("notes".to_owned(), json!(self.notes)),
        ]
        .into_iter()
        .collect();
        report.warnings.extend(left);
        report.finish(start);
        Ok((model, report))
    }

    /// Returns the first member's card, with the shortest context of all members.
    fn card(&self, task: Task) -> Card {
        let mut card = self.members[0].model.card().clone();
        card.format = Format::Memory;
        card.contract = None;
        card.task = task;
        if task == Task::Embed {
            card.pooling = None;
            change_side_file(&mut card, "config_sentence_transformers.json", |config| {
                // Members are truncated before they are combined.
                config.remove("truncate_dim").is_some()
            });
        }
        if let Some(length) = super::shortest(&self.members, task) {
            change_side_file(&mut card, "sentence_bert_config.json", |config| {
                config.insert("max_seq_length".to_owned(), json!(length));
                true
            });
        }
        let contexts = self.members.iter().filter_map(|member| member.model.card().longest_text().ok().flatten());
        if let Some(context) = contexts.min().filter(|_| task == Task::Generate) {
            // The context in the card has already been extended, and must not be extended again.
            card.config.retain(|key, _| !matches!(key.as_str(), "rope_scaling" | "rope_parameters"));
            card.config.insert("max_position_embeddings".to_owned(), json!(context));
        }
        card
    }
}

/// Changes the object in a JSON file of a card, which is added if it is missing. `change` returns whether it changed
/// the object.
fn change_side_file(card: &mut Card, name: &str, change: impl FnOnce(&mut Map<String, Value>) -> bool) {
    let Ok(mut config) = card.object(name) else { return };
    if change(&mut config) {
        let content = SideContent::Bytes(Value::Object(config).to_string().into());
        card.side_files.retain(|file| file.name != name);
        card.side_files.push(SideFile { name: name.to_owned(), content });
    }
}

/// Adds the combined logits, and the caches of decoders. Returns the declarations of these outputs.
fn logits(ensemble: &Ensemble, join: &mut Join) -> Result<Vec<ValueInfoProto>> {
    let mut infos = Vec::new();
    for (index, branch) in join.branches.iter().enumerate() {
        infos.push(branch.logits().at(|| place(index))?);
    }
    let shape = infos[0].shape.clone();
    let rank = shape.as_ref().map_or(3, Vec::len);
    let last = |info: &ValueInfo| match info.shape.as_ref().and_then(|shape| shape.last()) {
        Some(Dim::Fixed(size)) => Some(*size),
        _ => None,
    };
    let sizes: Vec<Option<i64>> = infos.iter().map(last).collect();
    let least = sizes.iter().flatten().min().copied();
    if ensemble.task() == Task::Classify
        && let (Some(index), Some(least)) = (sizes.iter().position(|size| *size > least), least)
    {
        bail!(
            InvalidArgument,
            "{} has {:?} classes, but another member has {least}",
            place(index),
            sizes[index].unwrap_or(0)
        );
    }
    let keep = join.logits_to_keep();
    let classes = ensemble.task() == Task::Classify;
    let orders = if classes { super::classes::orders(ensemble.members())?.0 } else { vec![None; infos.len()] };
    let mut nodes = Nodes::new(join);
    let mut rows = Vec::new();
    for (index, info) in infos.iter().enumerate() {
        let mut value = nodes.float(&join.branches[index].value(&info.name), info.dtype);
        if let Some(least) = least.filter(|least| sizes[index].is_none_or(|size| size > *least)) {
            value = nodes.slice(&value, 0, least, -1);
        }
        if let Some(keep) = keep.as_deref().filter(|_| !join.branches[index].keeps()) {
            value = nodes.last_columns(&value, keep);
        }
        if let Some(order) = orders[index].as_ref().filter(|order| sizes[index].is_none_or(|n| n == order.len() as i64))
        {
            value = nodes.picked(&value, order);
        }
        rows.push(value);
    }
    let name = infos[0].name.clone();
    heads::combined(&mut nodes, ensemble, &rows, &name)?;
    let (made, constants) = nodes.into_parts();
    join.add(made, constants);
    let mut dims = shape.unwrap_or_else(|| vec![Dim::Symbolic(String::new()); rank]);
    if let (Some(dim), Some(least)) = (dims.last_mut(), least) {
        *dim = Dim::Fixed(least);
    }
    let mut outputs = vec![declared(&name, DataType::Float32, &dims)];
    outputs.extend(join.cache_outputs());
    Ok(outputs)
}

/// Adds the combined vector per text. Returns the declaration of this output.
fn embedding(ensemble: &Ensemble, join: &mut Join) -> Result<Vec<ValueInfoProto>> {
    let members = ensemble.members();
    let mask = join.mask();
    let mut nodes = Nodes::new(join);
    let (mut vectors, mut widths) = (Vec::new(), Vec::new());
    for (index, (branch, member)) in join.branches.iter().zip(members).enumerate() {
        let card = member.model.card();
        let kept = usual_dimensions(card).at(|| place(index))?.and_then(|kept| i64::try_from(kept).ok());
        let (output, pooling) = output_of(&branch.outputs, &member.model).at(|| place(index))?;
        let info = branch.outputs.iter().find(|info| info.name == output);
        let width = info.and_then(|info| info.shape.as_ref()).and_then(|shape| shape.last().cloned());
        let value = nodes.float(&branch.value(&output), info.and_then(|info| info.dtype));
        let pooled = match pooling {
            None => value,
            Some(_) if !Sentence::of(card).at(|| place(index))?.is_none_or(|s| s.only_pools()) => {
                bail!(Unsupported, "{}: modules.json has more steps than pooling", place(index))
            }
            Some(pooling) => match &mask {
                Some((mask, dtype)) => nodes.pool(&value, pooling, mask, *dtype),
                None => {
                    bail!(
                        Unsupported,
                        "{}: the output contains token vectors, but the model has no attention mask",
                        place(index)
                    )
                }
            },
        };
        widths.push(match width {
            Some(Dim::Fixed(width)) => Some(kept.map_or(width, |kept| width.min(kept))),
            _ => None,
        });
        let first = match kept {
            Some(kept) => nodes.slice(&pooled, 0, kept, -1),
            None => pooled,
        };
        vectors.push(nodes.unit(&first));
    }
    let concat = ensemble.options().method == Method::Concat;
    same_widths(&widths, concat)?;
    let weights: Vec<f64> = members.iter().map(|member| member.weight).collect();
    heads::vector(&mut nodes, concat, &weights, &vectors, "sentence_embedding");
    let (made, constants) = nodes.into_parts();
    join.add(made, constants);
    let width = match concat {
        true => widths.iter().copied().sum::<Option<i64>>(),
        false => widths[0],
    };
    let width = width.map_or(Dim::Symbolic("width".to_owned()), Dim::Fixed);
    Ok(vec![declared("sentence_embedding", DataType::Float32, &[Dim::Symbolic("batch".to_owned()), width])])
}

/// Fails with `InvalidArgument` if vectors of these numbers of elements have no mean, unless they are concatenated.
fn same_widths(widths: &[Option<i64>], concat: bool) -> Result<()> {
    if let (Some(first), false) = (widths[0], concat)
        && let Some(index) = widths.iter().position(|width| width.is_some_and(|width| width != first))
    {
        bail!(
            InvalidArgument,
            "the vectors of {} have {} elements, but those of {} have {first}, so they have no mean; use the method \
             `concat`",
            place(index),
            widths[index].unwrap_or(0),
            place(0)
        );
    }
    Ok(())
}

/// Returns a note for each output of a later member that the first one does not have, and that is therefore left out.
fn left_out(join: &Join) -> Vec<String> {
    let Some((first, others)) = join.branches.split_first() else { return Vec::new() };
    let is_only = |branch: &Branch| first.outputs.len() == 1 && branch.outputs.len() == 1;
    let mut notes = Vec::new();
    for (index, branch) in others.iter().enumerate().filter(|(_, branch)| !is_only(branch)) {
        let is_left = |info: &&ValueInfo| !first.outputs.iter().any(|other| other.name == info.name);
        let note = |info: &ValueInfo| {
            format!("{}: output {:?} is left out, because member 1 has none of that name", place(index + 1), info.name)
        };
        notes.extend(branch.outputs.iter().filter(is_left).map(note));
    }
    notes
}

/// Returns the first dimension that two outputs fix to different sizes, with these sizes.
fn differing(a: &ValueInfo, b: &ValueInfo) -> Option<(usize, [i64; 2])> {
    let pairs = a.shape.as_ref()?.iter().zip(b.shape.as_ref()?).enumerate();
    pairs.into_iter().find_map(|(axis, pair)| match pair {
        (Dim::Fixed(a), Dim::Fixed(b)) if a != b => Some((axis, [*a, *b])),
        _ => None,
    })
}

/// Adds every output of the first member, combined as numbers. Returns the declarations of these outputs.
fn numbers(ensemble: &Ensemble, join: &mut Join) -> Result<Vec<ValueInfoProto>> {
    let mut nodes = Nodes::new(join);
    let mut outputs = Vec::new();
    let infos = join.branches[0].outputs.clone();
    for info in &infos {
        let mut values = Vec::new();
        for (index, branch) in join.branches.iter().enumerate() {
            let found = match branch.outputs.iter().find(|other| other.name == info.name) {
                Some(found) => found,
                None if infos.len() == 1 && branch.outputs.len() == 1 => &branch.outputs[0],
                None => bail!(InvalidArgument, "{} has no output {:?}", place(index), info.name),
            };
            if !found.dtype.is_some_and(DataType::is_float) {
                let is = found.describe();
                bail!(
                    Unsupported,
                    "{}: output {:?} is {is}; only float outputs are combined",
                    place(index),
                    found.name
                );
            }
            let rank = |info: &ValueInfo| info.shape.as_ref().map(Vec::len);
            if rank(found) != rank(info) {
                let (a, b) = (info.describe(), found.describe());
                bail!(InvalidArgument, "{}: output {:?} is {b}, but that of member 1 is {a}", place(index), found.name);
            }
            if let Some((axis, sizes)) = differing(info, found) {
                bail!(
                    InvalidArgument,
                    "{}: dimension {axis} of output {:?} is {}, but that of member 1 is {}",
                    place(index),
                    found.name,
                    sizes[1],
                    sizes[0]
                );
            }
            values.push(nodes.float(&branch.value(&found.name), found.dtype));
        }
        heads::number(&mut nodes, ensemble, &values, &info.name);
        let dims = info.shape.clone();
        outputs.push(match dims {
            Some(dims) => declared(&info.name, DataType::Float32, &dims),
            None => edit::untyped(&info.name),
        });
    }
    let (made, constants) = nodes.into_parts();
    join.add(made, constants);
    Ok(outputs)
}

/// Returns the declaration of an input or output with these dimensions.
fn declared(name: &str, dtype: DataType, dims: &[Dim]) -> ValueInfoProto {
    let mut info = edit::value(name, dtype, dims.len());
    let tensor = info.value_type.as_deref_mut().and_then(|t| t.tensor_type.as_deref_mut());
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(size) => DimensionProto { dim_value: Some(*size), ..Default::default() },
        Dim::Symbolic(name) if name.is_empty() => DimensionProto::default(),
        Dim::Symbolic(name) => DimensionProto { dim_param: Some(name.clone()), ..Default::default() },
    };
    if let Some(tensor) = tensor {
        tensor.shape = Some(Box::new(TensorShapeProto { dim: dims.iter().map(dim).collect(), ..Default::default() }));
    }
    info
}

/// Returns a copy of a model's message without its graph.
fn frame(from: &ModelProto) -> ModelProto {
    ModelProto { graph: None, functions: Vec::new(), training_info: Vec::new(), ..from.clone() }
}

#[cfg(test)]
mod tests;
