//! Training on a device: weights, gradients and moments stay in the memory of the device. The optimizer is a separate
//! graph, AdamW in standard operators, whose outputs overwrite its inputs. That is safe because each output depends on
//! the norm of all gradients, and so on every node that reads the weights.

use super::DistillOptions;
use super::graph::{Graphs, fixed};
use super::learner::{Feeding, Learner, Update, Updated, Weights};
use super::optimizer::Moments;
use crate::autodiff::NodeBuilder;
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::graph::edit::{self, int_attribute};
use crate::model::{Model, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto};
use crate::runtime::{Bound, Resident, Runtime, Session, SessionOptions, Stop, Tensor};
use std::borrow::Cow;

/// The training state in the memory of a device.
pub struct Device {
    // Fields are dropped in this order: bindings, the memory that they bind, the sessions of that memory.
    training: Bound,
    measuring: Bound,
    adding: Option<Bound>,
    updating: Bound,
    memory: Resident,
    train: Session,
    measure: Session,
    add: Option<Session>,
    optimize: Session,
    /// Number of elements of each weight, and whether weight decay applies to it.
    parameters: Vec<(usize, bool)>,
}

/// The names of the scalar inputs of the optimizer's graph, whose values change with each step, and of its scalar
/// output.
mod number {
    /// Learning rate divided by the bias correction of the first moment.
    pub const RATE: &str = "rate";
    /// Reciprocal square root of the bias correction of the second moment.
    pub const ROOT: &str = "root";
    /// Factor of weights to which weight decay applies.
    pub const KEEP: &str = "keep";
    /// 1 if the loss is finite, otherwise 0.
    pub const LOSS_IS_FINITE: &str = "loss_is_finite";
    /// Name of the output with the norm of all gradients.
    pub const NORM: &str = "norm";
}

/// The location in the device's memory of the values of `count` parameters.
#[derive(Clone, Copy)]
struct Layout {
    count: usize,
}

impl Layout {
    fn weight(self, index: usize) -> usize {
        index
    }
    fn gradient(self, index: usize) -> usize {
        self.count + index
    }
    fn first(self, index: usize) -> usize {
        2 * self.count + index
    }
    fn second(self, index: usize) -> usize {
        3 * self.count + index
    }
    /// Returns the location of the sum of the gradients of a parameter, for steps of several runs.
    fn sum(self, index: usize) -> usize {
        4 * self.count + index
    }
}

impl Device {
    /// Returns the state with the initial weights of the student. `session` has the options with which further sessions
    /// are created on the device of `train`. Fails like [`Session::new`] for the graphs of the optimizer, and with
    /// `Runtime` if the memory of the device does not suffice.
    pub fn new(
        runtime: &'static Runtime,
        train: Session,
        measure: Session,
        graphs: &Graphs,
        (options, session): (&DistillOptions, &SessionOptions),
        call: &Call,
    ) -> Result<Device> {
        let at = Layout { count: graphs.parameters.len() };
        let sums = options.gradient_accumulation_steps > 1;
        let copies = if sums { 5 } else { 4 };
        let shapes: Vec<Vec<i64>> =
            (0..copies).flat_map(|_| graphs.parameters.iter().map(|p| p.dims.clone())).collect();
        let mut memory = train.resident(&shapes)?;
        for (index, values) in graphs.initial.iter().enumerate() {
            memory.put(at.weight(index), values)?;
        }
        let losses: Vec<&str> = graphs.parts.iter().map(|part| part.output.as_str()).collect();
        let weights: Vec<(&str, usize)> =
            graphs.parameters.iter().enumerate().map(|(i, p)| (p.name.as_str(), at.weight(i))).collect();
        let gradients: Vec<(&str, usize)> =
            graphs.gradients.iter().enumerate().map(|(i, name)| (name.as_str(), at.gradient(i))).collect();
        let training = train.bind(&mut memory, &weights, &gradients, &losses)?;
        let there = |name: &str| measure.inputs().iter().any(|info| info.name == name);
        let measured: Vec<(&str, usize)> = weights.iter().copied().filter(|(name, _)| there(name)).collect();
        let measuring = measure.bind(&mut memory, &measured, &[], &losses)?;
        let make = |proto| Session::new(runtime, &Model::from_proto(proto), session, call).at(|| "the optimizer");
        let bind = |session: &Session, memory: &mut Resident, reads: &Names, writes: &Names, given: &[&str]| {
            session.bind(memory, &reads.borrowed(), &writes.borrowed(), given)
        };
        let (mut add, mut adding) = (None, None);
        if sums {
            let made = make(sum_graph(graphs))?;
            let reads = Names::of(at.count, &[("gradient", &|i| at.gradient(i)), ("sum", &|i| at.sum(i))]);
            let writes = Names::of(at.count, &[("new_sum", &|i| at.sum(i))]);
            adding = Some(bind(&made, &mut memory, &reads, &writes, &[])?);
            add = Some(made);
        }
        let optimize = make(update_graph(graphs, options))?;
        let of_step: &dyn Fn(usize) -> usize = if sums { &|i| at.sum(i) } else { &|i| at.gradient(i) };
        let kept: [(&str, &dyn Fn(usize) -> usize); 3] =
            [("weight", &|i| at.weight(i)), ("first", &|i| at.first(i)), ("second", &|i| at.second(i))];
        let reads = Names::of(at.count, &[kept[0], kept[1], kept[2], ("gradient", of_step)]);
        let written = [("new_weight", kept[0].1), ("new_first", kept[1].1), ("new_second", kept[2].1)];
        let writes = Names::of(at.count, &written);
        let updating = bind(&optimize, &mut memory, &reads, &writes, &[number::NORM])?;
        let parameters = graphs.parameters.iter().map(|p| (p.elements(), p.dims.len() > 1)).collect();
        Ok(Device { training, measuring, adding, updating, memory, train, measure, add, optimize, parameters })
    }

    fn layout(&self) -> Layout {
        Layout { count: self.parameters.len() }
    }
}

/// The names of inputs or outputs of a graph, each with its location in the device's memory.
struct Names(Vec<(String, usize)>);

impl Names {
    fn of(count: usize, kinds: &[(&str, &dyn Fn(usize) -> usize)]) -> Names {
        let all = kinds.iter().flat_map(|(kind, at)| (0..count).map(move |i| (format!("{kind}.{i}"), at(i))));
        Names(all.collect())
    }

    fn borrowed(&self) -> Vec<(&str, usize)> {
        self.0.iter().map(|(name, at)| (name.as_str(), *at)).collect()
    }
}

impl Learner for Device {
    fn inputs(&self) -> &[ValueInfo] {
        self.train.inputs()
    }

    fn gradients(&mut self, feed: &[(&str, &Tensor)], first: bool, stop: &Stop) -> Result<Vec<Tensor>> {
        let losses = self.train.run_bound(&mut self.training, feed, stop).at(|| "the student")?;
        if let (Some(add), Some(adding)) = (&mut self.add, &mut self.adding) {
            let first = Tensor::from_bools(&[], &[first])?;
            add.run_bound(adding, &[("is_first", &first)], stop)?;
        }
        Ok(losses)
    }

    fn update(&mut self, update: &Update<'_>, stop: &Stop) -> Result<Updated> {
        let options = update.options;
        let short = |beta: f32| 1.0 - f64::from(beta).powf(update.count as f64);
        let numbers = [
            (number::RATE, (f64::from(update.learning_rate) / short(options.beta1)) as f32),
            (number::ROOT, (1.0 / short(options.beta2).sqrt()) as f32),
            (number::KEEP, 1.0 - update.learning_rate * options.weight_decay),
            (number::LOSS_IS_FINITE, f32::from(u8::from(update.loss_is_finite))),
        ];
        let made = numbers.iter().map(|(name, value)| Ok((*name, Tensor::from_f32(&[], vec![*value])?)));
        let made = made.collect::<Result<Vec<_>>>()?;
        let feed: Vec<(&str, &Tensor)> = made.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let given = self.optimize.run_bound(&mut self.updating, &feed, stop).at(|| "the optimizer")?;
        let norm = given.first().and_then(|norm| norm.as_slice::<f32>().ok()?.first().copied());
        let norm = f64::from(norm.unwrap_or(f32::NAN));
        Ok(Updated { norm, skipped: !(norm.is_finite() && update.loss_is_finite) })
    }

    fn losses(&mut self, feeds: &mut dyn Iterator<Item = Result<Feeding>>, stop: &Stop) -> Result<Vec<Vec<Tensor>>> {
        let mut all = Vec::new();
        for feed in feeds {
            let feed = feed?;
            let there = self.measure.inputs();
            let inputs = feed.iter().filter(|(name, _)| there.iter().any(|info| info.name == *name));
            let inputs: Vec<(&str, &Tensor)> = inputs.map(|(name, tensor)| (name.as_str(), tensor)).collect();
            all.push(self.measure.run_bound(&mut self.measuring, &inputs, stop).at(|| "the student")?);
        }
        Ok(all)
    }

    fn weights(&self) -> Result<Weights<'_>> {
        let at = self.layout();
        (0..at.count).map(|index| Ok(Cow::Owned(self.memory.get(at.weight(index))?))).collect()
    }

    fn moments(&self) -> Result<Cow<'_, [Moments]>> {
        let at = self.layout();
        let one = |(index, (_, decays)): (usize, &(usize, bool))| {
            let (first, second) = (self.memory.get(at.first(index))?, self.memory.get(at.second(index))?);
            Ok(Moments { first, second, decays: *decays })
        };
        Ok(Cow::Owned(self.parameters.iter().enumerate().map(one).collect::<Result<_>>()?))
    }

    fn restore(&mut self, weights: &[Vec<f32>], moments: Vec<Moments>) -> Result<()> {
        let at = self.layout();
        if weights.len() != at.count || moments.len() != at.count {
            bail!(Internal, "the state belongs to other parameters");
        }
        for (index, (values, moments)) in weights.iter().zip(&moments).enumerate() {
            self.memory.put(at.weight(index), values)?;
            self.memory.put(at.first(index), &moments.first)?;
            self.memory.put(at.second(index), &moments.second)?;
        }
        Ok(())
    }
}

/// Returns a graph of the nodes and constants of `writer`. For each of `kinds`, the graph has an input per parameter,
/// with the shape of the parameter. `more` are further inputs, all scalars; `outputs` are the names of the outputs.
fn graph_of(
    graphs: &Graphs,
    writer: NodeBuilder,
    kinds: &[&str],
    more: &[(&str, DataType)],
    outputs: Vec<String>,
) -> ModelProto {
    let mut graph = GraphProto { name: Some("optimizer".into()), node: writer.nodes, ..Default::default() };
    graph.initializer = writer.constants;
    for kind in kinds {
        let inputs = graphs.parameters.iter().enumerate().map(|(i, p)| fixed(&format!("{kind}.{i}"), &p.dims));
        graph.input.extend(inputs);
    }
    graph.input.extend(more.iter().map(|(name, dtype)| edit::value(name, *dtype, 0)));
    graph.output = outputs.iter().map(|name| edit::untyped(name)).collect();
    let standard = OperatorSetIdProto { domain: Some(String::new()), version: Some(17), ..Default::default() };
    ModelProto { ir_version: Some(8), opset_import: vec![standard], graph: Some(Box::new(graph)), ..Default::default() }
}

/// Returns the graph that adds gradients: `new_sum = gradient` in the first run of a step, then `sum + gradient`.
fn sum_graph(graphs: &Graphs) -> ModelProto {
    let mut w = NodeBuilder::new(&ModelProto::default(), "sum");
    let mut outputs = Vec::new();
    for index in 0..graphs.parameters.len() {
        let (gradient, sum, output) = (format!("gradient.{index}"), format!("sum.{index}"), format!("new_sum.{index}"));
        let more = w.op("Add", &[&sum, &gradient]);
        w.op_to("Where", &["is_first", &gradient, &more], &output, Vec::new());
        outputs.push(output);
    }
    graph_of(graphs, w, &["gradient", "sum"], &[("is_first", DataType::Bool)], outputs)
}

/// Returns the graph of one step of AdamW, with the formulas of [`super::optimizer`], for all parameters. A non-finite
/// gradient or loss changes nothing.
fn update_graph(graphs: &Graphs, options: &DistillOptions) -> ModelProto {
    let mut w = NodeBuilder::new(&ModelProto::default(), "optimizer");
    let count = graphs.parameters.len();
    let flat = || vec![int_attribute("keepdims", 0)];
    let squares: Vec<String> =
        (0..count).map(|i| w.op_with("ReduceSumSquare", &[&format!("gradient.{i}")], flat())).collect();
    let squares: Vec<&str> = squares.iter().map(String::as_str).collect();
    let sum = w.op("Sum", &squares);
    w.op_to("Sqrt", &[&sum], number::NORM, Vec::new());
    let (zero, half) = (w.scalar(0.0), w.scalar(0.5));
    // x - x is 0 unless x is not finite.
    let less = w.op("Sub", &[number::NORM, number::NORM]);
    let is_finite = w.op("Equal", &[&less, &zero]);
    let loss_is = w.op("Greater", &[number::LOSS_IS_FINITE, &half]);
    let good = w.op("And", &[&is_finite, &loss_is]);
    let scale = match options.max_grad_norm > 0.0 {
        true => {
            let (limit, small, one) = (w.scalar(options.max_grad_norm), w.scalar(1e-6), w.scalar(1.0));
            let norm = w.op("Add", &[number::NORM, &small]);
            let share = w.op("Div", &[&limit, &norm]);
            w.op("Min", &[&share, &one])
        }
        false => w.scalar(1.0),
    };
    let mut outputs = vec![number::NORM.to_owned()];
    for (index, parameter) in graphs.parameters.iter().enumerate() {
        let name = |kind: &str| format!("{kind}.{index}");
        let gradient = w.op("Mul", &[&name("gradient"), &scale]);
        let square = w.op("Mul", &[&gradient, &gradient]);
        let mut mean = |beta: f32, old: &str, new: &str| {
            let (beta, rest) = (w.scalar(beta), w.scalar(1.0 - beta));
            let (old, new) = (w.op("Mul", &[old, &beta]), w.op("Mul", &[new, &rest]));
            w.op("Add", &[&old, &new])
        };
        let first = mean(options.beta1, &name("first"), &gradient);
        let second = mean(options.beta2, &name("second"), &square);
        let root = w.op("Sqrt", &[&second]);
        let root = w.op("Mul", &[&root, number::ROOT]);
        let epsilon = w.scalar(options.epsilon);
        let root = w.op("Add", &[&root, &epsilon]);
        let step = w.op("Mul", &[&first, number::RATE]);
        let step = w.op("Div", &[&step, &root]);
        let kept = match parameter.dims.len() > 1 {
            true => w.op("Mul", &[&name("weight"), number::KEEP]),
            false => name("weight"),
        };
        let weight = w.op("Sub", &[&kept, &step]);
        for (kind, made) in [("weight", weight), ("first", first), ("second", second)] {
            w.op_to("Where", &[&good, &made, &name(kind)], &name(&format!("new_{kind}")), Vec::new());
            outputs.push(name(&format!("new_{kind}")));
        }
    }
    let floats =
        [number::RATE, number::ROOT, number::KEEP, number::LOSS_IS_FINITE].map(|name| (name, DataType::Float32));
    graph_of(graphs, w, &["weight", "gradient", "first", "second"], &floats, outputs)
}
