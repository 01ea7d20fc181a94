//! The graphs that training runs: one with losses and gradients, one with losses only.

use super::objective::{self, LogitsOptions, Sizes, input};
use super::parameters::{self, Parameter};
use super::signals::Signals;
use super::table::{Lookup, lookup};
use super::{DistillOptions, student};
use crate::autodiff::{self, NodeBuilder, Tape, Type};
use crate::call::Call;
use crate::error::{Result, bail};
use crate::graph::dead::{Policy, eliminate, read_values};
use crate::graph::edit::{self, import_domain};
use crate::graph::lower::Left;
use crate::graph::order::{reads, sorted};
use crate::model::{Dim, Model};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use crate::runtime::Runtime;
use crate::statistics::Random;
use std::collections::{HashMap, HashSet};

/// A part of the loss.
#[derive(Debug, Clone)]
pub struct Part {
    /// Name of the part: `logits`, `labels`, `hidden`, `cosine` or `relations`.
    pub name: &'static str,
    /// Name of the output with the value of the part.
    pub output: String,
    /// Weight of the part in the loss.
    pub weight: f32,
}

/// The graphs for training, which have the trained weights as inputs.
pub struct Graphs {
    /// Graph with losses and gradients.
    pub train: ModelProto,
    /// Graph like `train`, with gradients of the rows that a `Gather` reads instead of gradients of whole tables.
    pub train_by_rows: ModelProto,
    /// Graph with the losses, without gradients.
    pub measure: ModelProto,
    /// Trained parameters. The parameters from index `of_student` on are projections, which are dropped at the end.
    pub parameters: Vec<Parameter>,
    /// Number of parameters of the student.
    pub of_student: usize,
    /// Initial value of each parameter.
    pub initial: Vec<Vec<f32>>,
    /// Name of the output with the gradient of each parameter.
    pub gradients: Vec<String>,
    /// Input with the row ids and output with the gradients of these rows, for each parameter of which only rows are
    /// read; otherwise `None`.
    pub lookups: Vec<Option<Lookup>>,
    /// Parts of the loss.
    pub parts: Vec<Part>,
    /// Student with float32 weights, into which the trained weights are written at the end.
    pub student: Model,
    /// Number of nodes of the student whose weights were block-quantized.
    pub in_blocks: usize,
    /// Numbers of tokens or classes of teacher and student; `None` if they are equal, unknown, or no logits are
    /// compared.
    pub sizes: Option<(i64, i64)>,
}

/// The element types and dimensions of values of a model, by name.
pub type Known = HashMap<String, Type>;

/// Returns the graphs for training `model`. `teacher` has the types of the teacher's values that `signals` name.
///
/// Fails with `Unsupported` if nodes between a weight and the loss have no gradient (the message names up to eight of
/// them), if the student has no float32 weights on which the loss depends, or if hidden states have other ranks or
/// unknown widths.
pub fn build(
    runtime: &'static Runtime,
    model: &Model,
    teacher: &Known,
    signals: &Signals,
    options: &DistillOptions,
    call: &Call,
) -> Result<Graphs> {
    let (ready, in_blocks) = student::ready(model)?;
    let mut proto = ready.proto().clone();
    let lowered = autodiff::lower(runtime, &mut proto, call)?;
    autodiff::upgrade(&mut proto)?;
    let mut weights = parameters::find(&ready, &lowered.tables, &options.freeze)?;
    let types = known_student(runtime, &proto, signals, call)?;
    let mut work = Work { proto, parts: Vec::new(), initial: Vec::new(), projections: Vec::new() };
    work.add_hidden(&types, teacher, signals, options)?;
    work.add_relations(&types, teacher, signals)?;
    let ends: Vec<String> = signals.logits.iter().map(|pair| pair.student.clone()).collect();
    work.cut(&ends);
    let outputs: Vec<&str> =
        work.parts.iter().map(|p| p.output.as_str()).chain(ends.iter().map(String::as_str)).collect();
    let there = used(&work.proto);
    weights.retain(|p| there.contains(&p.name));
    refuse_uncovered(&work.proto, &weights, &outputs, &lowered.left)?;
    if weights.is_empty() {
        bail!(Unsupported, "the student has no float32 weights to train");
    }
    let types = autodiff::infer(runtime, &work.proto, call)?;
    let logits = logits_options(&types, teacher, signals, options)?;
    let of_student = weights.len();
    weights.extend(work.projections.iter().cloned());
    let mut graphs = assemble(&work, types, signals, &weights, logits.as_ref())?;
    let graph = ready.graph();
    let of_model = |p: &Parameter| parameters::values(graph, &p.name);
    let kept: HashSet<&str> = graphs.parameters.iter().map(|p| p.name.as_str()).collect();
    graphs.of_student = weights[..of_student].iter().filter(|p| kept.contains(p.name.as_str())).count();
    let own = graphs.parameters[..graphs.of_student].iter().map(of_model).collect::<Result<Vec<_>>>()?;
    graphs.initial = own.into_iter().chain(std::mem::take(&mut work.initial)).collect();
    graphs.student = ready;
    graphs.in_blocks = in_blocks;
    Ok(graphs)
}

/// Returns the types of the student's values if hidden states or relations are compared; otherwise returns no types.
fn known_student(runtime: &'static Runtime, proto: &ModelProto, signals: &Signals, call: &Call) -> Result<Known> {
    if signals.hidden.is_empty() && signals.relations.is_none() {
        return Ok(Known::new());
    }
    autodiff::infer(runtime, proto, call)
}

struct Work {
    proto: ModelProto,
    parts: Vec<Part>,
    projections: Vec<Parameter>,
    /// Initial values of the projections.
    initial: Vec<Vec<f32>>,
}

impl Work {
    /// Adds the nodes and constants of a writer, and those of `inputs` that the graph does not have yet.
    fn add(&mut self, writer: NodeBuilder, inputs: &[(String, DataType, usize)]) {
        let Some(graph) = self.proto.graph.as_deref_mut() else { return };
        graph.node.extend(writer.nodes);
        graph.initializer.extend(writer.constants);
        for (name, dtype, rank) in inputs {
            if !graph.input.iter().any(|i| i.name.as_ref() == Some(name)) {
                graph.input.push(edit::value(name, *dtype, *rank));
            }
        }
    }

    fn add_hidden(
        &mut self,
        types: &Known,
        teacher: &Known,
        signals: &Signals,
        options: &DistillOptions,
    ) -> Result<()> {
        for (index, pair) in signals.hidden.iter().enumerate() {
            let among = if index < signals.outputs { signals.outputs } else { signals.hidden.len() - signals.outputs };
            let (t, s) = (size(teacher, &pair.teacher, "teacher")?, size(types, &pair.student, "student")?);
            if t.1 != s.1 {
                bail!(
                    Unsupported,
                    "{:?} of the teacher has {} dimensions, {:?} of the student {}",
                    pair.teacher,
                    t.1,
                    pair.student,
                    s.1
                );
            }
            let sizes = Sizes { teacher: t.0, student: s.0, rank: s.1 };
            let mut writer = NodeBuilder::new(&self.proto, "distill");
            let projection = (t.0 != s.0).then(|| writer.fresh(&format!("projection.{index}")));
            let name = objective::hidden_input(index);
            let [square, cosine] = objective::hidden(&mut writer, &pair.student, &name, sizes, projection.as_deref());
            let mut inputs = vec![(name, objective::FLOAT, sizes.rank)];
            inputs.push((input::WEIGHTS.to_owned(), objective::FLOAT, 2));
            inputs.push((input::ROWS.to_owned(), objective::FLOAT, 1));
            self.add(writer, &inputs);
            if let Some(name) = projection {
                self.project(name, sizes, options.seed, index)?;
            }
            let weights = signals.weights;
            for (name, output, weight) in [("hidden", square, weights.hidden), ("cosine", cosine, weights.cosine)] {
                self.parts.push(Part { name, output, weight: weight / among as f32 });
            }
        }
        Ok(())
    }

    /// Adds a trained matrix whose initial values are normally distributed with variance `1 / student`.
    fn project(&mut self, name: String, sizes: Sizes, seed: u64, index: usize) -> Result<()> {
        let mut random = Random::part(seed, 0x7072_6f6a + index as u64);
        let scale = 1.0 / (sizes.student as f64).sqrt();
        let values: Vec<f32> = (0..sizes.student * sizes.teacher).map(|_| (random.normal() * scale) as f32).collect();
        let dims = vec![sizes.student, sizes.teacher];
        let Some(graph) = self.proto.graph.as_deref_mut() else { bail!(Internal, "no graph") };
        graph.initializer.push(edit::float_tensor(&name, &dims, &values));
        self.projections.push(Parameter { name, dims });
        self.initial.push(values);
        Ok(())
    }

    fn add_relations(&mut self, types: &Known, teacher: &Known, signals: &Signals) -> Result<()> {
        let Some((of_teacher, of_student)) = &signals.relations else { return Ok(()) };
        let ((wide, heads), (narrow, _)) =
            (heads(teacher, &of_teacher.query, "teacher")?, heads(types, &of_student.query, "student")?);
        let mut writer = NodeBuilder::new(&self.proto, "distill");
        let sum = objective::relations(&mut writer, (of_teacher, of_student), (wide, narrow), heads)?;
        let mut inputs: Vec<_> = objective::RELATIONS.iter().map(|n| ((*n).to_owned(), objective::FLOAT, 4)).collect();
        inputs.push((input::WEIGHTS.to_owned(), objective::FLOAT, 2));
        inputs.push((input::KEEP.to_owned(), objective::FLOAT, 2));
        self.add(writer, &inputs);
        self.parts.push(Part { name: "relations", output: sum, weight: signals.weights.relations });
        Ok(())
    }

    /// Removes everything on which neither the parts of the loss nor `more` depend. The parts and `more` become the
    /// outputs.
    fn cut(&mut self, more: &[String]) {
        let ends: Vec<String> = self.parts.iter().map(|p| p.output.clone()).chain(more.iter().cloned()).collect();
        if let Some(graph) = self.proto.graph.as_deref_mut() {
            cut(graph, &ends);
        }
    }
}

/// Removes the nodes, constants and inputs on which no value of `ends` depends. The values `ends` become the outputs.
fn cut(graph: &mut GraphProto, ends: &[String]) {
    graph.output = ends.iter().map(|name| edit::untyped(name)).collect();
    graph.value_info.clear();
    eliminate(graph, Policy::All);
    let read = read_values(graph);
    graph.input.retain(|i| i.name.as_ref().is_some_and(|n| read.contains(n)));
}

/// Returns the names of the values that nodes read.
fn used(proto: &ModelProto) -> HashSet<String> {
    let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
    nodes.flat_map(|node| reads(node).into_iter().map(str::to_owned)).collect()
}

/// Returns the width and the number of dimensions of a hidden state. Fails with `Unsupported` if the value is not a
/// hidden state of known width.
fn size(types: &Known, name: &str, whose: &str) -> Result<(i64, usize)> {
    let dims = types.get(name).and_then(|t| t.dims.as_deref());
    match dims {
        Some(dims @ ([_, _, Dim::Fixed(width)] | [_, Dim::Fixed(width)])) => Ok((*width, dims.len())),
        _ => bail!(Unsupported, "{name:?} of the {whose} is not a hidden state of known width"),
    }
}

/// Returns the total width of all heads, and the number of heads. Fails with `Unsupported` if they are not known.
fn heads(types: &Known, name: &str, whose: &str) -> Result<(i64, i64)> {
    match types.get(name).and_then(|t| t.dims.as_deref()) {
        Some([_, Dim::Fixed(heads), _, Dim::Fixed(size)]) => Ok((heads * size, *heads)),
        _ => bail!(Unsupported, "the head size of {name:?} of the {whose} is not known"),
    }
}

fn refuse_uncovered(proto: &ModelProto, weights: &[Parameter], outputs: &[&str], reasons: &[Left]) -> Result<()> {
    let Some(graph) = proto.graph.as_deref() else { return Ok(()) };
    let nodes = sorted(&graph.node)?;
    let names: Vec<String> = weights.iter().map(|p| p.name.clone()).collect();
    let found = autodiff::uncovered(&nodes, &names, outputs);
    if found.is_empty() {
        return Ok(());
    }
    let why =
        |node: &autodiff::Uncovered| match reasons.iter().find(|left| left.name == node.name && left.op == node.op) {
            Some(left) => format!(", {}", left.reason),
            None => String::new(),
        };
    let shown: Vec<String> =
        found.iter().take(8).map(|node| format!("{:?} ({}{})", node.name, node.op, why(node))).collect();
    let more = if found.len() > 8 { format!(" and {} more", found.len() - 8) } else { String::new() };
    bail!(Unsupported, "the student cannot be trained: no gradient exists for {}{more}", shown.join(", "))
}

fn logits_options(
    types: &Known,
    teacher: &Known,
    signals: &Signals,
    options: &DistillOptions,
) -> Result<Option<LogitsOptions>> {
    let Some(pair) = signals.logits.as_ref().filter(|_| signals.weights.logits + signals.weights.labels > 0.0) else {
        return Ok(None);
    };
    let last = |known: &Known, name: &str| match known.get(name).and_then(|t| t.dims.as_ref()?.last()) {
        Some(Dim::Fixed(size)) => Some(*size),
        _ => None,
    };
    let sizes = match (last(teacher, &pair.teacher), last(types, &pair.student)) {
        (Some(a), Some(b)) if a != b => Some((a, b)),
        _ => None,
    };
    let rank = types.get(&pair.student).and_then(|t| t.dims.as_ref()).map_or(3, Vec::len);
    if !(2..=3).contains(&rank) {
        bail!(Unsupported, "the logits of the student have {rank} dimensions");
    }
    let (divergence, temperature) = (options.divergence, options.temperature);
    let (kind, weights) = (signals.kind, signals.weights);
    Ok(Some(LogitsOptions { kind, divergence, temperature, weights, sizes, rank }))
}

/// Returns the graphs of `work`, with gradients added and weights as inputs.
fn assemble(
    work: &Work,
    types: Known,
    signals: &Signals,
    weights: &[Parameter],
    logits: Option<&LogitsOptions>,
) -> Result<Graphs> {
    let mut tape = Tape::new(&work.proto, types)?;
    let mut parts = work.parts.clone();
    let mut seeds: Vec<(String, String)> = Vec::new();
    for part in parts.iter().filter(|part| part.weight > 0.0) {
        let weight = tape.scalar(part.weight);
        seeds.push((part.output.clone(), weight));
    }
    if let (Some(options), Some(pair)) = (logits, &signals.logits) {
        let made = objective::logits(&mut tape, &pair.student, options);
        let named =
            [("logits", made.divergence, options.weights.logits), ("labels", made.surprise, options.weights.labels)];
        let found = named.into_iter().filter_map(|(name, output, weight)| Some(Part { name, output: output?, weight }));
        parts.splice(0..0, found);
        seeds.push((pair.student.clone(), made.gradient));
    }
    let names: Vec<String> = weights.iter().map(|p| p.name.clone()).collect();
    let found = autodiff::differentiate(&mut tape, &seeds, &names)?;
    let kept: Vec<Parameter> = weights.iter().filter(|p| found.contains_key(&p.name)).cloned().collect();
    if kept.is_empty() {
        bail!(Unsupported, "the loss does not depend on any weight of the student");
    }
    let (gradients, lookups) = named_gradients(work, &mut tape, &kept, &found);
    let outputs: Vec<String> = parts.iter().map(|part| part.output.clone()).collect();
    let all: Vec<String> = outputs.iter().chain(&gradients).cloned().collect();
    let of_rows = |(gradient, lookup): (&String, &Option<Lookup>)| match lookup {
        Some(lookup) => lookup.rows.clone(),
        None => gradient.clone(),
    };
    let by_rows: Vec<String> = outputs.iter().cloned().chain(gradients.iter().zip(&lookups).map(of_rows)).collect();
    let make = |ends: &[String]| whole(work, &tape, signals, logits, &kept, ends);
    Ok(Graphs {
        train: make(&all),
        train_by_rows: make(&by_rows),
        measure: make(&outputs),
        parameters: kept,
        of_student: 0,
        initial: Vec::new(),
        gradients,
        lookups,
        parts,
        student: Model::from_proto(ModelProto::default()),
        in_blocks: 0,
        sizes: logits.and_then(|options| options.sizes),
    })
}

/// Gives a name to the gradient of each parameter, and to the gradients of its rows if a `Gather` reads only some rows;
/// returns both.
fn named_gradients(
    work: &Work,
    tape: &mut Tape,
    kept: &[Parameter],
    found: &HashMap<String, String>,
) -> (Vec<String>, Vec<Option<Lookup>>) {
    let inputs = work.proto.graph.as_deref().map_or(&[][..], |graph| &graph.input);
    let (mut gradients, mut lookups) = (Vec::with_capacity(kept.len()), Vec::with_capacity(kept.len()));
    for parameter in kept {
        let found = &found[&parameter.name];
        let lookup = lookup(tape, inputs, found);
        let mut named = |value: &str, prefix: &str| {
            let name = tape.fresh(&format!("{prefix}/{}", parameter.name));
            tape.nodes.push(edit::node("Identity", &[value], &[&name]));
            name
        };
        gradients.push(named(found, "of"));
        lookups.push(lookup.map(|lookup| Lookup { rows: named(&lookup.rows, "rows"), ..lookup }));
    }
    (gradients, lookups)
}

fn whole(
    work: &Work,
    tape: &Tape,
    signals: &Signals,
    logits: Option<&LogitsOptions>,
    parameters: &[Parameter],
    ends: &[String],
) -> ModelProto {
    let mut proto = work.proto.clone();
    import_domain(&mut proto.opset_import, "com.microsoft", 1);
    let Some(graph) = proto.graph.as_deref_mut() else { return proto };
    graph.node = tape.forward.iter().chain(&tape.nodes).cloned().collect();
    graph.initializer.extend(tape.constants.iter().cloned());
    if let (Some(options), Some(_)) = (logits, &signals.logits) {
        let (weights, rank) = if options.rank == 3 { (input::WEIGHTS, 2) } else { (input::ROWS, 1) };
        let mut more = vec![(input::LOGITS, DataType::Float32, options.rank), (weights, DataType::Float32, rank)];
        more.push((input::LABELS, DataType::Int64, rank));
        more.push((input::LABEL_WEIGHTS, DataType::Float32, rank));
        for (name, dtype, rank) in more {
            if !graph.input.iter().any(|i| i.name.as_deref() == Some(name)) {
                graph.input.push(edit::value(name, dtype, rank));
            }
        }
    }
    let learned: HashSet<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    let is_learned = |name: &Option<String>| name.as_deref().is_some_and(|n| learned.contains(n));
    graph.initializer.retain(|t| !is_learned(&t.name));
    graph.input.retain(|i| !is_learned(&i.name));
    let as_input = |p: &Parameter| fixed(&p.name, &p.dims);
    graph.input.extend(parameters.iter().map(as_input));
    let nodes: &mut Vec<NodeProto> = &mut graph.node;
    for (index, node) in nodes.iter_mut().enumerate() {
        if node.name.as_deref().unwrap_or("").is_empty() {
            node.name = Some(format!("distill/node.{index}"));
        }
    }
    cut(graph, ends);
    proto
}

/// Returns the declaration of a float input of fixed sizes.
pub fn fixed(name: &str, dims: &[i64]) -> ValueInfoProto {
    let mut info = edit::value(name, DataType::Float32, dims.len());
    let shape =
        info.value_type.as_deref_mut().and_then(|t| t.tensor_type.as_deref_mut()).and_then(|t| t.shape.as_deref_mut());
    for (dim, size) in shape.into_iter().flat_map(|shape| &mut shape.dim).zip(dims) {
        dim.dim_value = Some(*size);
    }
    info
}
