//! The graphs of the members over common inputs ([`Join`]).

use super::{declared, frame};
use crate::call::{Call, Stage};
use crate::ensemble::{Ensemble, Member, place};
use crate::error::{Context, Result, bail, error};
use crate::graph::edit::{import_domain, int_attribute, modernize_ir, node};
use crate::graph::opset;
use crate::inputs::Role;
use crate::model::{Dim, Task, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::text::Decoder;
use crate::text::decoder::layer_of;
use std::collections::HashMap;

/// The minimum size of a weight to share, in bytes.
const SHARED_FROM: usize = 1024;

/// The combined graph of the members.
pub struct Join {
    proto: ModelProto,
    graph: GraphProto,
    inputs: Vec<ValueInfo>,
    /// Parts of the graph, one per member.
    pub branches: Vec<Branch>,
}

/// A member's part of the graph.
pub struct Branch {
    /// Prefix of the names of the member.
    prefix: String,
    /// Outputs of the member, under its own names.
    pub outputs: Vec<ValueInfo>,
    decoder: Option<Decoder>,
    /// Outputs of the member's cache, with the member's name and the declaration in the graph.
    caches: Vec<(String, ValueInfoProto)>,
}

impl Branch {
    /// Returns the name in the graph of a value of the member.
    pub fn value(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns the name and type of the output with logits, or of the only output. Fails with `Unsupported` if there is
    /// neither.
    pub fn logits(&self) -> Result<ValueInfo> {
        let named = self.decoder.as_ref().map_or("logits", |decoder| &decoder.logits);
        let found = self.outputs.iter().find(|info| info.name == named);
        let only = || self.outputs.first().filter(|_| self.outputs.len() == 1);
        found.or_else(only).cloned().ok_or_else(|| error!(Unsupported, "the model has no output {named:?}"))
    }

    /// Returns whether the member has an input for the requested number of columns of logits.
    pub fn keeps(&self) -> bool {
        self.decoder.as_ref().is_some_and(|decoder| decoder.logits_to_keep.is_some())
    }
}

impl Join {
    /// Returns the members' graphs as one, whose outputs are not combined yet. Fails with `Unsupported` if the members
    /// have different kinds of caches or an opset that cannot be converted, with `InvalidArgument` if their inputs
    /// differ, and with `Cancelled` or `Timeout`.
    pub fn new(ensemble: &Ensemble, call: &Call) -> Result<Join> {
        let members = ensemble.members();
        let decoders = decoders(ensemble)?;
        let version = members.iter().map(|member| opset::version(member.model.proto())).max().unwrap_or(0);
        let proto = frame(members[0].model.proto());
        let graph = GraphProto { name: Some("ensemble".to_owned()), ..Default::default() };
        let mut join = Join { proto, graph, inputs: Vec::new(), branches: Vec::new() };
        let mut layers = 0;
        for (index, (member, decoder)) in members.iter().zip(decoders).enumerate() {
            call.report(Stage::FUSE, index as u64, members.len() as u64)?;
            join.branch(index, member, decoder, version.max(opset::OLDEST), &mut layers).at(|| place(index))?;
        }
        call.report(Stage::FUSE, members.len() as u64, members.len() as u64)?;
        Ok(join)
    }

    fn branch(
        &mut self,
        index: usize,
        member: &Member,
        decoder: Option<Decoder>,
        version: i64,
        layers: &mut u32,
    ) -> Result<()> {
        let mut proto = member.model.proto().clone();
        modernize_ir(&mut proto);
        opset::raise(&mut proto, version)?;
        let prefix = format!("member{}/", index + 1);
        let inputs = member.model.inputs();
        // Maps names of the member to names in the graph.
        let mut names: HashMap<String, String> = HashMap::new();
        let caches = match &decoder {
            Some(decoder) => self.cache_inputs(decoder, &inputs, layers, &mut names)?,
            None => Vec::new(),
        };
        let mut casts = Vec::new();
        for info in inputs.iter().filter(|info| !names.contains_key(&info.name)).cloned().collect::<Vec<_>>() {
            let common = self.common_name(index, &info, &inputs, decoder.as_ref())?;
            let dtype = self.unite(&common, &info)?;
            if dtype == info.dtype {
                names.insert(info.name.clone(), common);
            } else if let Some(own) = info.dtype {
                let to = int_attribute("to", own.to_onnx().into());
                let cast = node("Cast", &[&common], &[&format!("{prefix}{}", info.name)]);
                casts.push(NodeProto { attribute: vec![to], ..cast });
            }
        }
        let mut graph = proto.graph.take().map(|graph| *graph).unwrap_or_default();
        rename_graph(&mut graph, &prefix, &names);
        // An output that passes an input through would have the name of the input; it gets a name of its own.
        for output in &member.model.outputs() {
            let passed = inputs.iter().any(|input| input.name == output.name);
            if let Some(common) = names.get(&output.name).filter(|_| passed) {
                casts.push(node("Identity", &[common], &[&format!("{prefix}{}", output.name)]));
            }
        }
        for import in &proto.opset_import {
            import_domain(
                &mut self.proto.opset_import,
                import.domain.as_deref().unwrap_or(""),
                import.version.unwrap_or(1),
            );
        }
        opset_to(&mut self.proto, version);
        self.proto.ir_version = self.proto.ir_version.max(proto.ir_version);
        self.functions(&mut graph, proto.functions, index);
        self.graph.node.append(&mut casts);
        self.graph.node.append(&mut graph.node);
        self.graph.initializer.append(&mut graph.initializer);
        self.graph.sparse_initializer.append(&mut graph.sparse_initializer);
        self.graph.value_info.append(&mut graph.value_info);
        let outputs = member.model.outputs();
        self.branches.push(Branch { prefix, outputs, decoder, caches });
        Ok(())
    }

    /// Adds the inputs of a decoder's caches, with the numbers of further layers, and returns the cache outputs.
    fn cache_inputs(
        &mut self,
        decoder: &Decoder,
        inputs: &[ValueInfo],
        layers: &mut u32,
        names: &mut HashMap<String, String>,
    ) -> Result<Vec<(String, ValueInfoProto)>> {
        let first = *layers;
        let mut outputs = Vec::with_capacity(decoder.cache.len());
        for pair in &decoder.cache {
            let Some((layer, keys)) = layer_of(&pair.past) else {
                bail!(Unsupported, "the name of the cache input {:?} has no layer index", pair.past);
            };
            let layer = first + layer;
            *layers = (*layers).max(layer + 1);
            let name = |word: &str, both: &str| match keys {
                Some(keys) => format!("{word}.{layer}.{}", if keys { "key" } else { "value" }),
                None => format!("{both}_{layer}"),
            };
            let (past, present) = (name("past_key_values", "past"), name("present", "present"));
            let Some(info) = inputs.iter().find(|info| info.name == pair.past) else { continue };
            let declared_dims = info.shape.clone().unwrap_or_default();
            // Sizes that the graph leaves open come from the member's own configuration.
            let dims: Vec<Dim> = declared_dims
                .iter()
                .zip(&pair.shape)
                .map(|(dim, size)| if *size > 0 { Dim::Fixed(*size) } else { dim.clone() })
                .collect();
            let mut grown = dims.clone();
            grown[pair.sequence] = Dim::Symbolic("total_sequence_length".to_owned());
            self.inputs.push(ValueInfo { name: past.clone(), dtype: Some(pair.dtype), shape: Some(dims) });
            names.insert(pair.past.clone(), past);
            names.insert(pair.present.clone(), present.clone());
            outputs.push((pair.present.clone(), declared(&present, pair.dtype, &grown)));
        }
        Ok(outputs)
    }

    /// Returns the name in the graph of a member's input, which is that of the first member's input with the same role.
    /// Fails with `InvalidArgument` if the first member has no such input; an input of a decoder keeps its own name
    /// instead.
    fn common_name(
        &self,
        index: usize,
        info: &ValueInfo,
        inputs: &[ValueInfo],
        decoder: Option<&Decoder>,
    ) -> Result<String> {
        if index == 0 || self.inputs.iter().any(|input| input.name == info.name) {
            return Ok(info.name.clone());
        }
        if let (Some(decoder), Some(first)) = (decoder, self.branches[0].decoder.as_ref()) {
            let ports = |d: &Decoder| {
                let name = |port: &Option<crate::text::decoder::Port>| port.as_ref().map(|port| port.name.clone());
                [
                    Some(d.input_ids.name.clone()),
                    name(&d.attention_mask),
                    name(&d.position_ids),
                    name(&d.logits_to_keep),
                    d.use_cache_branch.clone(),
                ]
            };
            let same = ports(decoder).into_iter().zip(ports(first)).find(|(own, _)| own.as_ref() == Some(&info.name));
            // An input that the first member does not have becomes a separate input.
            return Ok(same.and_then(|(_, first)| first).unwrap_or_else(|| info.name.clone()));
        }
        if let Some(role) = Role::of(info) {
            let same = self.inputs.iter().find(|input| Role::of(input) == Some(role));
            return Ok(same.map_or_else(|| info.name.clone(), |input| input.name.clone()));
        }
        if inputs.len() == 1 && self.inputs.len() == 1 {
            return Ok(self.inputs[0].name.clone());
        }
        let names: Vec<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        bail!(InvalidArgument, "the input {:?} is not an input of member 1, which has {}", info.name, names.join(", "))
    }

    /// Declares an input, or checks that it matches the input of that name. Returns its element type in the graph, if
    /// it is known.
    fn unite(&mut self, name: &str, info: &ValueInfo) -> Result<Option<DataType>> {
        let Some(known) = self.inputs.iter_mut().find(|input| input.name == name) else {
            self.inputs.push(ValueInfo { name: name.to_owned(), ..info.clone() });
            return Ok(info.dtype);
        };
        let fits = match (&mut known.shape, &info.shape) {
            (Some(dims), Some(other)) if dims.len() == other.len() => {
                dims.iter_mut().zip(other).all(|(dim, other)| match (&*dim, other) {
                    (Dim::Fixed(a), Dim::Fixed(b)) => a == b,
                    (Dim::Symbolic(_), Dim::Fixed(size)) => {
                        *dim = Dim::Fixed(*size);
                        true
                    }
                    _ => true,
                })
            }
            (Some(_), Some(_)) => false,
            (known, other) => {
                *known = known.take().or_else(|| other.clone());
                true
            }
        };
        if !fits {
            let (a, b) = (known.describe(), info.describe());
            bail!(InvalidArgument, "the input {:?} is {b}, but {a} in another member", info.name);
        }
        Ok(known.dtype)
    }

    /// Adds a member's functions under new names.
    fn functions(
        &mut self,
        graph: &mut GraphProto,
        mut functions: Vec<crate::onnx::proto::FunctionProto>,
        index: usize,
    ) {
        let key =
            |domain: Option<&str>, name: Option<&str>| (domain.unwrap_or("").to_owned(), name.unwrap_or("").to_owned());
        let own: Vec<(String, String)> =
            functions.iter().map(|f| key(f.domain.as_deref(), f.name.as_deref())).collect();
        let renamed = |name: &str| format!("{name}_member{}", index + 1);
        let mut call = |node: &mut NodeProto| {
            if own.contains(&key(node.domain.as_deref(), node.op_type.as_deref())) {
                node.op_type = node.op_type.as_deref().map(renamed);
            }
        };
        if own.is_empty() {
            return;
        }
        for_each_node(&mut graph.node, &mut call);
        for function in &mut functions {
            for_each_node(&mut function.node, &mut call);
            function.name = function.name.as_deref().map(renamed);
        }
        self.proto.functions.append(&mut functions);
    }

    /// Returns the name of the input with the requested number of columns of logits, if a member has it.
    pub fn logits_to_keep(&self) -> Option<String> {
        let ports = self.branches.iter().filter_map(|branch| branch.decoder.as_ref()?.logits_to_keep.as_ref());
        let name = ports.map(|port| port.name.clone()).next()?;
        self.inputs.iter().any(|input| input.name == name).then_some(name)
    }

    /// Returns the name and the element type of the attention mask input; `None` if there is no such input.
    pub fn mask(&self) -> Option<(String, Option<DataType>)> {
        let mask = self.inputs.iter().find(|input| Role::of(input) == Some(Role::Mask))?;
        Some((mask.name.clone(), mask.dtype))
    }

    /// Returns the declarations of the outputs of all caches.
    pub fn cache_outputs(&self) -> Vec<ValueInfoProto> {
        self.branches.iter().flat_map(|branch| branch.caches.iter().map(|(_, info)| info.clone())).collect()
    }

    /// Returns the opset version of the default domain.
    pub fn version(&self) -> i64 {
        opset::version(&self.proto)
    }

    /// Adds nodes after all others, and constants.
    pub fn add(&mut self, nodes: Vec<NodeProto>, constants: Vec<TensorProto>) {
        self.graph.node.extend(nodes);
        self.graph.initializer.extend(constants);
    }

    /// Merges equal weights of at least 1,024 bytes, and returns the number of bytes saved.
    pub fn share(&mut self) -> u64 {
        let mut kept: HashMap<(i32, Vec<i64>), Vec<usize>> = HashMap::new();
        let mut same: HashMap<String, String> = HashMap::new();
        let initializers = &self.graph.initializer;
        let mut saved = 0;
        for (index, tensor) in initializers.iter().enumerate() {
            let Some(raw) = tensor.raw_data.as_ref().filter(|raw| raw.len() >= SHARED_FROM) else { continue };
            let alike = kept.entry((tensor.data_type.unwrap_or(0), tensor.dims.clone())).or_default();
            let is_same = |other: &&usize| {
                initializers[**other]
                    .raw_data
                    .as_ref()
                    .is_some_and(|bytes| (bytes.as_ptr() == raw.as_ptr() && bytes.len() == raw.len()) || bytes == raw)
            };
            match alike.iter().find(is_same) {
                Some(other) => {
                    let name = |index: usize| initializers[index].name.clone().unwrap_or_default();
                    same.insert(name(index), name(*other));
                    saved += raw.len() as u64;
                }
                None => alike.push(index),
            }
        }
        self.graph.initializer.retain(|tensor| !same.contains_key(tensor.name.as_deref().unwrap_or("")));
        if !same.is_empty() {
            for_each_node(&mut self.graph.node, &mut |node| {
                for input in &mut node.input {
                    if let Some(other) = same.get(input) {
                        input.clone_from(other);
                    }
                }
            });
        }
        saved
    }

    /// Returns the model with the outputs `outputs`.
    pub fn finish(mut self, outputs: Vec<ValueInfoProto>) -> ModelProto {
        let input = |info: &ValueInfo| match (info.dtype, &info.shape) {
            (Some(dtype), Some(dims)) => declared(&info.name, dtype, dims),
            (Some(dtype), None) => {
                let mut bare = declared(&info.name, dtype, &[]);
                if let Some(tensor) = bare.value_type.as_deref_mut().and_then(|t| t.tensor_type.as_deref_mut()) {
                    tensor.shape = None;
                }
                bare
            }
            _ => crate::graph::edit::untyped(&info.name),
        };
        self.graph.input = self.inputs.iter().map(input).collect();
        self.graph.output = outputs;
        self.proto.graph = Some(Box::new(self.graph));
        self.proto
    }
}

/// Returns the decoder of each member, which has its inputs and outputs by role; `None` for members that do not
/// generate text. Fails with `Unsupported` if the members have different kinds of caches.
fn decoders(ensemble: &Ensemble) -> Result<Vec<Option<Decoder>>> {
    let members = ensemble.members();
    if ensemble.task() != Task::Generate {
        return Ok(members.iter().map(|_| None).collect());
    }
    let decoders: Vec<Decoder> = members
        .iter()
        .enumerate()
        .map(|(index, member)| Decoder::of(&member.model).at(|| place(index)))
        .collect::<Result<_>>()?;
    if let Some(index) = decoders.iter().position(|decoder| decoder.kind != decoders[0].kind) {
        let (a, b) = (decoders[0].kind, decoders[index].kind);
        bail!(Unsupported, "the cache of member 1 is {a:?}, that of {} is {b:?}: they cannot be fused", place(index));
    }
    Ok(decoders.into_iter().map(Some).collect())
}

fn opset_to(proto: &mut ModelProto, version: i64) {
    for import in &mut proto.opset_import {
        if matches!(import.domain.as_deref(), None | Some("" | "ai.onnx")) {
            import.version = Some(version);
        }
    }
}

/// Renames every name in a graph and its subgraphs to the name in `names`, or adds the prefix.
fn rename_graph(graph: &mut GraphProto, prefix: &str, names: &HashMap<String, String>) {
    let renamed = |name: &str| match names.get(name) {
        _ if name.is_empty() => String::new(),
        Some(other) => other.clone(),
        None => format!("{prefix}{name}"),
    };
    let rename = |name: &mut Option<String>| {
        if let Some(name) = name {
            *name = renamed(name);
        }
    };
    for node in &mut graph.node {
        node.name = node.name.take().filter(|name| !name.is_empty()).map(|name| format!("{prefix}{name}"));
        node.input.iter_mut().chain(&mut node.output).for_each(|name| *name = renamed(name));
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().map(|g| &mut **g).chain(&mut attribute.graphs) {
                rename_graph(inner, prefix, names);
            }
        }
    }
    graph.initializer.iter_mut().for_each(|tensor| rename(&mut tensor.name));
    graph.sparse_initializer.iter_mut().filter_map(|s| s.values.as_mut()).for_each(|tensor| rename(&mut tensor.name));
    let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    infos.for_each(|info| rename(&mut info.name));
}

/// Calls `visit` for nodes and for those of their subgraphs.
fn for_each_node(nodes: &mut [NodeProto], visit: &mut dyn FnMut(&mut NodeProto)) {
    for node in nodes {
        visit(node);
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().map(|g| &mut **g).chain(&mut attribute.graphs) {
                for_each_node(&mut inner.node, visit);
            }
        }
    }
}
