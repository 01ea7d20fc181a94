//! [`Session`]: a model made ready to run.

use super::library::guarded;
use super::mapped::{self, Lent};
use super::providers::{Execution, Provider, ProviderChoice};
use super::register::{self, Facts};
use super::watch::watched;
use super::{OptimizationLevel, Runtime, SessionOptions, Stop, Tensor, inputs, weights};
use crate::call::Call;
use crate::error::{Context, Error, Kind, Result, bail};
use crate::model::{Dim, Model, ValueInfo};
use crate::package::shapes::Contract;
use bytes::Bytes;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::value::{DynValue, Outlet, ValueType};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A model made ready to run. May move between threads; one run at a time.
pub struct Session {
    // Before the weights, which it reads until it is dropped: fields are dropped in this order.
    pub(super) inner: ort::session::Session,
    /// Weights that `inner` reads in place.
    _weights: Vec<Bytes>,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    /// The shapes that a package takes.
    contract: Option<Arc<Contract>>,
    /// Why weights that could have been read in place were copied.
    copied: Option<String>,
    placement: Placement,
    id: usize,
}

/// Where a session runs.
#[derive(Debug, Clone, Serialize)]
pub struct Placement {
    /// What it runs on.
    pub provider: Provider,
    /// Number of the device; 0 for the processor.
    pub device_id: u32,
    /// Nodes of the optimized graph that each provider has, by its name; a part that TensorRT made an engine of counts
    /// as its nodes. Empty where the processor was asked for: it has all.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, usize>,
    /// Where it was to choose: what comes before `provider`, and why it was not taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

/// Number of the next session.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Session {
    /// Makes `model` ready to run.
    ///
    /// The session holds its own copy of the weights, those of matrix products rearranged for the processor.
    /// While it is made, the model's pages are read once more beside it and then given back. The model's
    /// files stay mapped while the session lives. `call` can cancel and limit the time: ONNX Runtime then
    /// ends at the next of its stages, for models of gigabytes a second or two later.
    /// [`crate::error::Kind::InvalidModel`] or `Unsupported` if it refuses the model or has no kernel for a
    /// node, `Runtime` if it fails otherwise.
    pub fn new(runtime: &'static Runtime, model: &Model, options: &SessionOptions, call: &Call) -> Result<Session> {
        let place = || model.path().map_or_else(|| "session".to_owned(), |path| path.display().to_string());
        guarded("making a session", || Session::make(runtime, model, options, call)).at(place)
    }

    /// As [`Session::new`] of a graph that may be optimized for this processor already (`ahead`): then it is run as it
    /// is, and its weights are read where they are mapped, shared by all processes that open the same file.
    pub fn of_variant(
        runtime: &'static Runtime,
        model: &Model,
        ahead: bool,
        options: &SessionOptions,
        call: &Call,
    ) -> Result<Session> {
        let place = || model.path().map_or_else(|| "session".to_owned(), |path| path.display().to_string());
        guarded("making a session", || match options.execution.provider {
            ProviderChoice::Cpu => Session::make_of(runtime, model, ahead, options, Provider::Cpu, call),
            other if ahead => {
                bail!(Unsupported, "this graph was optimized ahead for a processor; {} cannot run it", other.name())
            }
            _ => Session::make(runtime, model, options, call),
        })
        .at(place)
    }

    /// On the first of the providers asked for that can be had.
    fn make(runtime: &'static Runtime, model: &Model, options: &SessionOptions, call: &Call) -> Result<Session> {
        let mut passed_over = Vec::new();
        let candidates = options.execution.provider.candidates();
        for (index, &provider) in candidates.iter().enumerate() {
            match Session::make_on(runtime, model, options, provider, call) {
                Ok(mut session) => {
                    session.placement.passed_over = passed_over;
                    return Ok(session);
                }
                Err(e) if index + 1 == candidates.len() || e.kind().ends_a_call() => return Err(e),
                Err(e) => passed_over.push(format!("{}: {e}", provider.name())),
            }
        }
        bail!(Internal, "there is no provider to try")
    }

    fn make_on(
        runtime: &'static Runtime,
        model: &Model,
        options: &SessionOptions,
        provider: Provider,
        call: &Call,
    ) -> Result<Session> {
        // Whoever asks for the graph as it is, or for another form of it, means the one they have; and a graph that was
        // made ready is ready for a processor.
        let plain = options.optimization_level != OptimizationLevel::All
            || options.optimized_model.is_some()
            || provider != Provider::Cpu;
        match if plain { None } else { model.ready(runtime)? } {
            Some((ready, ahead)) => Session::make_of(runtime, &ready, ahead, options, provider, call),
            None => Session::make_of(runtime, model, false, options, provider, call),
        }
    }

    fn make_of(
        runtime: &'static Runtime,
        model: &Model,
        ahead: bool,
        options: &SessionOptions,
        provider: Provider,
        call: &Call,
    ) -> Result<Session> {
        call.check()?;
        options.execution.check()?;
        let mut options = options.for_model(model);
        if ahead {
            options.optimization_level = OptimizationLevel::Disabled;
        }
        let in_place = |shared| Session::make_with(runtime, model, shared, &options, provider, call);
        if !ahead {
            return in_place(false);
        }
        match in_place(true) {
            Err(e) if e.kind().ends_a_call() => Err(e),
            // Versions of ONNX Runtime differ in how they look at weights that are not in the model.
            Err(e) => in_place(false).map(|session| Session { copied: Some(e.to_string()), ..session }),
            made => made,
        }
    }

    fn make_with(
        runtime: &'static Runtime,
        model: &Model,
        in_place: bool,
        options: &SessionOptions,
        provider: Provider,
        call: &Call,
    ) -> Result<Session> {
        let execution = &options.execution;
        if provider != Provider::Cpu {
            register::refuse_engines(model, execution)?;
        }
        let builder = options.builder(runtime, provider)?;
        // What cannot be had is known before the model is taken apart.
        let builder = match provider {
            Provider::TensorRt => builder,
            _ => register::register(builder, runtime, provider, execution, &Facts::default())?,
        };
        let parts = weights::parts(model, options.round_activations, in_place)?;
        let builder = match provider {
            Provider::TensorRt => {
                let weights = parts.lent.iter().map(|(_, lent)| &lent.bytes[..]);
                let facts = Facts::new(runtime, model, execution, &parts.stub, weights)?;
                register::register(builder, runtime, provider, execution, &facts)?
            }
            _ => builder,
        };
        let (mut builder, kept) = weights::give(builder, parts.lent, in_place)?;
        let canceler = builder.canceler();
        let stop = || drop(canceler.cancel());
        let inner = watched(call, stop, || Ok(builder.commit_from_memory(&parts.stub)?));
        if !in_place {
            weights::release(model);
        }
        let inner = inner?;
        let inputs = inner.inputs().iter().map(info).collect();
        let outputs = inner.outputs().iter().map(info).collect();
        let contract = model.card().contract.clone();
        let placement = Placement::of(&inner, provider, execution)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Session { inner, _weights: kept, inputs, outputs, contract, copied: None, placement, id })
    }

    /// What it runs on.
    pub fn provider(&self) -> Provider {
        self.placement.provider
    }

    /// What it runs on, node by node, and why not on what comes before.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Why this session of a graph optimized ahead has its own copy of the weights, if it has: what ONNX Runtime said to
    /// reading them where they are mapped.
    pub fn copied_because(&self) -> Option<&str> {
        self.copied.as_deref()
    }

    /// Where memory of the session's device is taken; `None` is the processor's.
    pub(super) fn device_memory(&self) -> Result<Option<MemoryInfo<'static>>> {
        let device_id = i32::try_from(self.placement.device_id).unwrap_or(i32::MAX);
        match self.placement.provider {
            Provider::Cpu => Ok(None),
            Provider::Cuda | Provider::TensorRt => Ok(Some(MemoryInfo::new(
                AllocationDevice::CUDA,
                device_id,
                AllocatorType::Device,
                MemoryType::Default,
            )?)),
        }
    }

    /// What a run must be given, in the model's order: inputs without a default in the model.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// What a run can give, in the model's order.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// Runs the model and gives the named `outputs` in the order asked for; all of them if none is named.
    ///
    /// Inputs are read in place and outputs handed over without a copy. [`crate::error::Kind::NotFound`] for the
    /// name of an input or output that the model does not have; `InvalidArgument` if an input is missing or does
    /// not fit the model: type, rank, fixed dimensions, and equal symbolic dimensions must be equal sizes.
    /// `Unsupported` for an output that is not a tensor. `call` can cancel and limit the time: the run then ends
    /// at the next node, and the session stays usable.
    pub fn run(&mut self, inputs: &[(&str, &Tensor)], outputs: &[&str], call: &Call) -> Result<Vec<(String, Tensor)>> {
        let stop = Stop::new()?;
        stop.during(call, || self.run_until(inputs, outputs, &stop))
    }

    /// As [`Session::run`], ended by `stop`: for many runs under one deadline.
    pub fn run_until(
        &mut self,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
        stop: &Stop,
    ) -> Result<Vec<(String, Tensor)>> {
        inputs::check(&self.inputs, inputs)?;
        self.keep(inputs)?;
        let wanted = self.wanted(outputs)?;
        let lent: Result<Vec<Lent>> = inputs.iter().map(|(name, tensor)| lend(tensor).at(|| place_of(name))).collect();
        let lent = lent?;
        let values = guarded("running a model", || self.run_values(inputs, &lent, &wanted, stop))?;
        let take = |(name, value)| {
            let tensor = take(value, lent.iter()).at(|| format!("output {name:?}"))?;
            Ok((name, tensor))
        };
        values.into_iter().map(take).collect()
    }

    /// Refuses sizes that the package the model is from does not allow.
    pub(super) fn keep(&self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        let Some(contract) = &self.contract else { return Ok(()) };
        let given: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor.dtype(), tensor.shape())).collect();
        contract.check(&given)
    }

    /// Tells sessions apart.
    pub(super) fn id(&self) -> usize {
        self.id
    }

    fn run_values(
        &mut self,
        inputs: &[(&str, &Tensor)],
        lent: &[Lent],
        wanted: &[String],
        stop: &Stop,
    ) -> Result<Vec<(String, DynValue)>> {
        let mut binding = self.inner.create_binding()?;
        for ((name, _), lent) in inputs.iter().zip(lent) {
            binding.bind_input(*name, &lent.value)?;
        }
        let memory = MemoryInfo::default();
        for name in wanted {
            binding.bind_output_to_device(name.as_str(), &memory)?;
        }
        if self.placement.provider != Provider::Cpu {
            binding.synchronize_inputs()?;
        }
        let outputs = self.inner.run_binding_with_options(&binding, &stop.options)?;
        if self.placement.provider != Provider::Cpu {
            binding.synchronize_outputs()?;
        }
        Ok(outputs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn wanted(&self, asked: &[&str]) -> Result<Vec<String>> {
        for (index, name) in asked.iter().enumerate() {
            if !self.outputs.iter().any(|info| info.name == *name) {
                bail!(NotFound, "there is no output {name:?}; the outputs are {}", inputs::names(&self.outputs));
            }
            if asked[..index].contains(name) {
                bail!(InvalidArgument, "output {name:?} is asked for twice");
            }
        }
        let chosen = |info: &&ValueInfo| asked.is_empty() || asked.contains(&info.name.as_str());
        if let Some(other) = self.outputs.iter().filter(chosen).find(|info| info.dtype.is_none()) {
            bail!(Unsupported, "output {:?} is not a tensor but a sequence, map or optional value", other.name);
        }
        Ok(match asked {
            [] => self.outputs.iter().map(|info| info.name.clone()).collect(),
            asked => asked.iter().map(|name| (*name).to_owned()).collect(),
        })
    }
}

impl Placement {
    /// Refuses a session that was given to a provider which then took nothing of it.
    fn of(session: &ort::session::Session, provider: Provider, execution: &Execution) -> Result<Placement> {
        let mut nodes = BTreeMap::new();
        if execution.provider != ProviderChoice::Cpu {
            nodes = register::placement(session)?;
        }
        let all: usize = nodes.values().sum();
        if provider != Provider::Cpu && all > 0 && !nodes.contains_key(provider.name()) {
            let name = provider.name();
            return Err(Error::new(Kind::Unsupported, format!("{name} takes none of the {all} nodes of this model")));
        }
        let device_id = if provider == Provider::Cpu { 0 } else { execution.device_id };
        Ok(Placement { provider, device_id, nodes, passed_over: Vec::new() })
    }
}

pub(super) fn place_of(input: &str) -> String {
    format!("input {input:?}")
}

/// Name, type and shape of an input or output as the session has it.
fn info(outlet: &Outlet) -> ValueInfo {
    let name = outlet.name().to_owned();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return ValueInfo { name, dtype: None, shape: None };
    };
    let dim = |(size, symbol): (&i64, &String)| match *size {
        size if size >= 0 => Dim::Fixed(size),
        _ => Dim::Symbolic(symbol.clone()),
    };
    let shape = shape.iter().zip(dimension_symbols.iter()).map(dim).collect();
    ValueInfo { name, dtype: mapped::data_type(*ty), shape: Some(shape) }
}

pub(super) fn lend(tensor: &Tensor) -> Result<Lent> {
    match tensor.strings() {
        None => mapped::lend(tensor.dtype(), tensor.shape(), tensor.shared_bytes()),
        Some(strings) => {
            let value = ort::value::Tensor::from_string_array((tensor.shape(), strings))?;
            Ok(Lent { value: value.into_dyn(), bytes: Bytes::new() })
        }
    }
}

/// An output as a tensor of ours. `inputs` are those of the run that made it.
pub(super) fn take<'a>(value: DynValue, mut inputs: impl Iterator<Item = &'a Lent>) -> Result<Tensor> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype().clone() else {
        bail!(Unsupported, "it is not a tensor but a sequence, map or optional value");
    };
    let Some(dtype) = mapped::data_type(ty) else { bail!(Unsupported, "its element type is unknown") };
    if dtype == crate::onnx::dtype::DataType::String {
        // ONNX Runtime has no content to give for no strings, and says so with an error.
        let empty = shape.num_elements() == 0;
        let strings = if empty { Vec::new() } else { value.try_extract_strings()?.1 };
        return Tensor::from_strings(&shape, strings);
    }
    let bytes = mapped::output_bytes(value)?;
    // An output that is an input passed through is that input's memory, which ONNX Runtime does not own.
    let lender = inputs.find(|lent| lent.bytes.as_ptr_range().contains(&bytes.as_ptr()) && !bytes.is_empty());
    let bytes = match lender {
        Some(lent) => lent.bytes.slice_ref(&lent.bytes[offset(&lent.bytes, &bytes)..][..bytes.len()]),
        None => bytes,
    };
    Tensor::new(dtype, &shape, bytes)
}

fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Cancel;
    use crate::error::Kind;
    use crate::onnx::proto::GraphProto;
    use crate::runtime::testing::*;
    use crate::runtime::{OptimizationLevel, test_deps, test_runtime};
    use crate::text::Tokenizer;
    use std::time::{Duration, Instant};

    fn session(graph: GraphProto) -> Session {
        let model = Model::from_proto(model(graph));
        Session::new(test_runtime(), &model, &SessionOptions::default(), &Call::default()).unwrap()
    }

    fn floats(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.37).sin()).collect()
    }

    #[test]
    fn a_session_is_send() {
        fn send<T: Send>() {}
        send::<Session>();
    }

    #[test]
    fn outputs_come_in_the_order_asked_for() {
        let mut session = session(graph(
            vec![node("Add", &["x", "y"], "sum"), node("Mul", &["x", "y"], "product")],
            vec![value("x", 1, &["n"]), value("y", 1, &["n"])],
            vec![value("sum", 1, &["n"]), value("product", 1, &["n"])],
        ));
        assert_eq!(session.inputs()[0].describe(), "float32[n]");
        assert_eq!(session.outputs()[1].name, "product");
        let x = Tensor::from_f32(&[2], vec![1.0, 2.0]).unwrap();
        let y = Tensor::from_f32(&[2], vec![3.0, 5.0]).unwrap();
        let all = session.run(&[("y", &y), ("x", &x)], &[], &Call::default()).unwrap();
        let shown: Vec<_> =
            all.iter().map(|(name, t)| (name.as_str(), t.as_slice::<f32>().unwrap().to_vec())).collect();
        assert_eq!(shown, [("sum", vec![4.0, 7.0]), ("product", vec![3.0, 10.0])]);
        let swapped = session.run(&[("x", &x), ("y", &y)], &["product", "sum"], &Call::default()).unwrap();
        assert_eq!((swapped[0].0.as_str(), swapped[1].0.as_str()), ("product", "sum"));
        let one = session.run(&[("x", &x), ("y", &y)], &["product"], &Call::default()).unwrap();
        assert_eq!(one.len(), 1);
        drop(session);
        assert_eq!(one[0].1.as_slice::<f32>().unwrap(), [3.0, 10.0], "outputs must outlive the session");
    }

    #[test]
    fn what_the_model_does_not_take_is_refused_before_it_runs() {
        let mut session = session(graph(
            vec![node("Add", &["x", "y"], "sum")],
            vec![value("x", 1, &["n"]), value("y", 1, &["n"])],
            vec![value("sum", 1, &["n"])],
        ));
        let (x, y) = (Tensor::from_f32(&[4], floats(4)).unwrap(), Tensor::from_f32(&[1], floats(1)).unwrap());
        // ONNX Runtime itself would broadcast this one.
        let e = session.run(&[("x", &x), ("y", &y)], &[], &Call::default()).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
        assert!(e.to_string().contains("dimension 0 is 1") && e.to_string().contains("expects 4"), "{e}");
        let e = session.run(&[("x", &x), ("y", &x)], &["z"], &Call::default()).unwrap_err();
        assert!(e.message().contains("no output \"z\"; the outputs are \"sum\""), "{e}");
        assert_eq!(e.kind(), Kind::NotFound);
        assert!(session.run(&[("x", &x), ("y", &x)], &["sum", "sum"], &Call::default()).is_err());
    }

    #[test]
    fn inputs_passed_through_and_strings_and_nothing_come_back() {
        let mut session = session(graph(
            vec![node("Identity", &["x"], "same"), node("Identity", &["s"], "text")],
            vec![value("x", 1, &["n"]), value("s", 8, &["m"])],
            vec![value("same", 1, &["n"]), value("text", 8, &["m"]), value("x", 1, &["n"])],
        ));
        let strings = vec!["a".to_owned(), "äöü".to_owned()];
        let text = Tensor::from_strings(&[2], strings.clone()).unwrap();
        let x = Tensor::from_f32(&[64], floats(64)).unwrap();
        let outputs = session.run(&[("x", &x), ("s", &text)], &[], &Call::default()).unwrap();
        drop((x, session.inputs()));
        assert_eq!(outputs[0].1.as_slice::<f32>().unwrap(), floats(64));
        assert_eq!(outputs[1].1.strings().unwrap(), strings);
        assert_eq!(outputs[2].1.as_slice::<f32>().unwrap(), floats(64));
        let nothing = (Tensor::from_f32(&[0], vec![]).unwrap(), Tensor::from_strings(&[0], vec![]).unwrap());
        let outputs = session.run(&[("x", &nothing.0), ("s", &nothing.1)], &[], &Call::default()).unwrap();
        assert!(outputs.iter().all(|(_, tensor)| tensor.elements() == 0));
    }

    #[test]
    fn an_output_that_is_no_tensor_is_named() {
        let mut session = session(graph(
            vec![node("SequenceConstruct", &["x"], "list"), node("Neg", &["x"], "minus")],
            vec![value("x", 1, &["n"])],
            vec![sequence("list", 1), value("minus", 1, &["n"])],
        ));
        let x = Tensor::from_f32(&[1], vec![1.0]).unwrap();
        let e = session.run(&[("x", &x)], &[], &Call::default()).unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(e.message().contains("\"list\""), "{e}");
        assert_eq!(session.run(&[("x", &x)], &["minus"], &Call::default()).unwrap()[0].1.to_f32_vec().unwrap(), [-1.0]);
    }

    #[test]
    fn weights_that_are_outputs_outlive_the_session() {
        let mut graph = graph(
            vec![node("Add", &["x", "w"], "sum")],
            vec![value("x", 1, &["n"])],
            vec![value("sum", 1, &["n"]), value("w", 1, &["n"])],
        );
        graph.initializer = vec![weight("w", &[2048], &floats(2048))];
        let mut session = session(graph);
        let x = Tensor::from_f32(&[2048], vec![0.0; 2048]).unwrap();
        let outputs = session.run(&[("x", &x)], &[], &Call::default()).unwrap();
        drop(session);
        for (_, tensor) in outputs {
            assert_eq!(tensor.as_slice::<f32>().unwrap(), floats(2048));
        }
    }

    #[test]
    fn a_model_without_a_kernel_or_a_meaning_is_refused() {
        let refuse = |graph| {
            let model = Model::from_proto(model(graph));
            Session::new(test_runtime(), &model, &SessionOptions::default(), &Call::default()).err().unwrap().kind()
        };
        let x = || vec![value("x", 1, &["n"])];
        let y = || vec![value("y", 1, &["n"])];
        assert_ne!(refuse(graph(vec![node("NoSuchOperator", &["x"], "y")], x(), y())), Kind::Internal);
        assert_ne!(refuse(graph(vec![node("Neg", &["nowhere"], "y")], x(), y())), Kind::Internal);
    }

    /// Products of matrices, one after the other: seconds of work in many nodes.
    fn slow() -> (Session, Tensor) {
        let nodes = (0..400).map(|i| node("MatMul", &[&format!("v{i}"), "v0"], &format!("v{}", i + 1))).collect();
        let graph = graph(nodes, vec![value("v0", 1, &["n", "n"])], vec![value("v400", 1, &["n", "n"])]);
        (session(graph), Tensor::from_f32(&[700, 700], vec![1e-3; 490_000]).unwrap())
    }

    #[test]
    fn a_run_ends_at_its_deadline_or_when_cancelled_and_the_session_stays_usable() {
        let (mut session, input) = slow();
        let started = Instant::now();
        let call = Call { deadline: Some(started + Duration::from_millis(50)), ..Call::default() };
        let e = session.run(&[("v0", &input)], &[], &call).unwrap_err();
        assert_eq!(e.kind(), Kind::Timeout, "{e}");
        let cancel = Cancel::new();
        let call = Call { cancel: Some(&cancel), ..Call::default() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                cancel.fire();
            });
            let e = session.run(&[("v0", &input)], &[], &call).unwrap_err();
            assert_eq!(e.kind(), Kind::Cancelled, "{e}");
        });
        let small = Tensor::from_f32(&[1, 1], vec![1.0]).unwrap();
        let open = Cancel::new();
        let call = Call { cancel: Some(&open), ..Call::default() };
        let outputs = session.run(&[("v0", &small)], &[], &call).unwrap();
        assert_eq!(outputs[0].1.to_f32_vec().unwrap(), [1.0]);
    }

    #[test]
    fn a_cancelled_load_makes_no_session() {
        let model = Model::load(&test_deps("models/paraphrase-MiniLM-L3-v2/model.onnx")).unwrap();
        let cancel = Cancel::new();
        cancel.fire();
        let call = Call { cancel: Some(&cancel), ..Call::default() };
        let e = Session::new(test_runtime(), &model, &SessionOptions::default(), &call).err().unwrap();
        assert_eq!(e.kind(), Kind::Cancelled);
    }

    #[test]
    fn a_real_model_knows_which_sentences_are_alike() {
        let folder = test_deps("models/paraphrase-MiniLM-L3-v2");
        let tokenizer = Tokenizer::load(&folder).unwrap();
        let texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell sharply."];
        let batch = tokenizer.encode_batch(&texts, true, None).unwrap();
        let shape = [batch.batch as i64, batch.length as i64];
        let tensor = |values: &[i64]| Tensor::from_i64(&shape, values.to_vec()).unwrap();
        let (ids, mask, types) = (tensor(&batch.ids), tensor(&batch.mask), tensor(&batch.type_ids));
        let model = Model::load(&folder).unwrap();
        let options = SessionOptions { optimization_level: OptimizationLevel::All, ..SessionOptions::default() };
        let mut session = Session::new(test_runtime(), &model, &options, &Call::default()).unwrap();
        let given = [("input_ids", &ids), ("attention_mask", &mask), ("token_type_ids", &types)];
        let given: Vec<_> = given.into_iter().filter(|g| session.inputs().iter().any(|i| i.name == g.0)).collect();
        // What this export calls the pooled embedding.
        let outputs = session.run(&given, &["461"], &Call::default()).unwrap();
        let (_, sentences) = &outputs[0];
        assert_eq!(sentences.shape(), [3, 384]);
        let rows: Vec<&[f32]> = sentences.as_slice::<f32>().unwrap().chunks(384).collect();
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let (alike, unlike) = (cosine(rows[0], rows[1]), cosine(rows[0], rows[2]));
        assert!(alike > unlike + 0.3, "{alike} {unlike}");
    }
}
