//! The registration of an execution provider with a session builder, and the nodes that each provider runs in a
//! session.

use super::driver::Driver;
use super::providers::{Execution, Provider};
use super::{Runtime, SessionOptions, kernels};
use crate::error::{Error, Kind, Result, bail};
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto};
use crate::onnx::validate::{model_nodes, subgraphs};
use ort::AsPointer;
use ort::ep::{ArbitrarilyConfigurableExecutionProvider, CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};
use ort::session::builder::SessionBuilder;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::ptr;

/// Session option that makes ONNX Runtime record the provider of each node.
pub(super) const RECORD: (&str, &str) = ("session.record_ep_graph_assignment_info", "1");

/// The properties of a model that TensorRT options depend on.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether the model computes with float16. TensorRT 10 uses float16, bfloat16 and int8 only if an option says so.
    float16: bool,
    /// Whether the model computes with bfloat16.
    bfloat16: bool,
    /// Whether the model has quantized activations (`QuantizeLinear`).
    int8: bool,
    /// Folder with the cached engines of only this model.
    engines: Option<PathBuf>,
}

impl Facts {
    /// Returns the properties of a model that ONNX Runtime receives as `stub` and `weights`. Fails with `DeviceMissing`
    /// if engines are to be cached and there is no GPU with the given index.
    pub fn new<'w>(
        runtime: &Runtime,
        model: &Model,
        execution: &Execution,
        stub: &[u8],
        weights: impl Iterator<Item = &'w [u8]>,
    ) -> Result<Facts> {
        let mut facts = Facts::default();
        facts.look(model.graph());
        if let Some(folder) = &execution.engine_cache {
            let capability = Driver::get()?.capability(execution.device_id)?;
            facts.engines = Some(engines(folder, runtime.version(), capability, stub, weights));
        }
        Ok(facts)
    }

    fn look(&mut self, graph: &GraphProto) {
        graph.initializer.iter().for_each(|tensor| self.computes_with(tensor.data_type));
        graph.node.iter().for_each(|node| self.look_at(node));
    }

    fn look_at(&mut self, node: &NodeProto) {
        let to = node.attribute.iter().find(|a| a.name.as_deref() == Some("to"));
        self.computes_with(to.and_then(|to| to.i).and_then(|to| i32::try_from(to).ok()));
        self.int8 |= node.op_type.as_deref() == Some("QuantizeLinear");
        subgraphs(node).for_each(|graph| self.look(graph));
    }

    fn computes_with(&mut self, data_type: Option<i32>) {
        match data_type.and_then(DataType::from_onnx) {
            Some(DataType::Float16) => self.float16 = true,
            Some(DataType::Bfloat16) => self.bfloat16 = true,
            _ => {}
        }
    }
}

/// Returns the folder for the cached engines of one model. An engine is valid for one model, one version of ONNX
/// Runtime and one type of GPU. ONNX Runtime identifies an engine only by names in the graph: in a common folder, a
/// session can get the engine of another model, and with it wrong results.
fn engines<'w>(
    folder: &Path,
    version: &str,
    capability: i32,
    stub: &[u8],
    weights: impl Iterator<Item = &'w [u8]>,
) -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(stub);
    weights.for_each(|bytes| hash.update(bytes));
    let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    folder.join(format!("{name}-onnxruntime-{version}-sm{capability}"))
}

/// Adds the provider to `builder`, and returns the builder. Fails with `BackendMissing` or `DeviceMissing` and the
/// reason if the provider cannot be used, with `InvalidArgument` if its options contain NUL or a path that is not
/// UTF-8, and with `Io` if the folder of the engine cache cannot be created.
pub(super) fn register(
    builder: SessionBuilder,
    runtime: &Runtime,
    provider: Provider,
    execution: &Execution,
    facts: &Facts,
) -> Result<SessionBuilder> {
    let device_id = execution.device_id;
    let list = match provider {
        // No driver is opened, and none is started, for sessions on the CPU.
        Provider::Cpu => return Ok(builder),
        Provider::Cuda => {
            let options = provider_options(execution)?;
            let provider = options.fold(cuda(device_id), |cuda, (name, value)| cuda.with_arbitrary_config(name, value));
            vec![provider.build().error_on_failure()]
        }
        Provider::TensorRt => vec![tensorrt(execution, facts)?, cuda(device_id).build().error_on_failure()],
    };
    let device = Driver::get().and_then(|driver| driver.capability(device_id));
    compiled_in(runtime, provider)?;
    if provider == Provider::TensorRt {
        // On machines without a driver, TensorRT has ended the whole process, so it is only called if there is one.
        device.clone()?;
    }
    let builder = builder.with_execution_providers(list).map_err(|e| {
        // The part before ` : FAIL : ` is a location in the source of ONNX Runtime or TensorRT.
        let reason = e.message().rsplit(" : FAIL : ").next().unwrap_or_default().trim_end().to_owned();
        let mut text = format!("{}: {reason}", cannot(runtime, provider));
        if let Err(none) = &device {
            text = format!("{text}; besides, {}", none.message());
        }
        Error::new(Kind::BackendMissing, text)
    })?;
    device?;
    Ok(builder)
}

fn cannot(runtime: &Runtime, provider: Provider) -> String {
    format!("ONNX Runtime {} cannot start its provider {}", runtime.version(), provider.name())
}

fn cuda(device_id: u32) -> CUDA {
    CUDA::default().with_device_id(device_id as i32)
}

/// Returns the names and values of the options of the provider. Fails with `InvalidArgument` if one contains NUL.
fn provider_options(execution: &Execution) -> Result<impl Iterator<Item = (&str, &str)>> {
    let options = execution.provider_options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    if options.clone().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
        bail!(InvalidArgument, "an option of the provider contains a NUL byte");
    }
    Ok(options)
}

fn tensorrt(execution: &Execution, facts: &Facts) -> Result<ExecutionProviderDispatch> {
    let mut provider = TensorRT::default()
        .with_device_id(execution.device_id as i32)
        .with_fp16(facts.float16)
        .with_bf16(facts.bfloat16)
        .with_int8(facts.int8);
    if let Some(folder) = &facts.engines {
        std::fs::create_dir_all(folder).map_err(|e| Error::from(e).at(folder.display()))?;
        let Some(folder) = folder.to_str() else {
            bail!(InvalidArgument, "the engine cache {:?} is not UTF-8", folder.display());
        };
        provider = provider
            .with_engine_cache(true)
            .with_engine_cache_path(folder)
            .with_timing_cache(true)
            .with_timing_cache_path(folder);
    }
    for (name, value) in provider_options(execution)? {
        provider = provider.with_arbitrary_config(name, value);
    }
    Ok(provider.build().error_on_failure())
}

/// Fails with `Untrusted` if a model contains engines and its author is not trusted: a GPU would execute their code.
pub(super) fn refuse_engines(model: &Model, execution: &Execution) -> Result<()> {
    let is_engine = |node: &NodeProto| node.op_type.as_deref() == Some("EPContext");
    if execution.trust_engines || !model_nodes(model.proto()).any(is_engine) {
        return Ok(());
    }
    bail!(
        Untrusted,
        "this model contains an engine (operator EPContext), which is code that a device runs: trust its source, or \
         use the model that it was built from"
    )
}

/// Fails with `BackendMissing` if the open library was built without the provider.
fn compiled_in(runtime: &Runtime, provider: Provider) -> Result<()> {
    let there = match provider {
        Provider::Cpu => Ok(true),
        Provider::Cuda => CUDA::is_available(),
        Provider::TensorRt => TensorRT::is_available(),
    };
    if there? {
        return Ok(());
    }
    bail!(
        BackendMissing,
        "ONNX Runtime {} ({}) has no provider {}: it was built without it",
        runtime.version(),
        runtime.path().display(),
        provider.name()
    )
}

/// Starts a provider by adding it to a session builder. Fails like [`register`] if that is not possible.
pub(super) fn probe(runtime: &Runtime, provider: Provider, device_id: u32) -> Result<()> {
    let execution = Execution { device_id, ..Execution::default() };
    super::library::guarded("looking for providers", || {
        let builder = SessionOptions { threads: 1, ..SessionOptions::default() }.builder(runtime, provider)?;
        register(builder, runtime, provider, &execution, &Facts::default()).map(drop)
    })
}

/// The nodes of a session that one provider runs.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Placed {
    /// Number of nodes of the optimized graph that the provider runs.
    pub nodes: usize,
    /// Number of groups of these nodes that run as one; a node that runs alone is a group.
    pub groups: usize,
}

/// Returns the numbers of nodes and groups that each provider runs, by provider name. They come from ONNX Runtime's own
/// record of the optimized graph, without folded constants; this fails with `Runtime` if [`RECORD`] was not set.
pub(super) fn placement(session: &ort::session::Session) -> Result<BTreeMap<String, Placed>> {
    let api = ort::api();
    let ok = |status: ort::sys::OrtStatusPtr| -> Result<()> {
        if status.0.is_null() {
            return Ok(());
        }
        // SAFETY: a status that is not NULL belongs to the caller, has a message, and is released once.
        let text = unsafe {
            let text = CStr::from_ptr((api.GetErrorMessage)(status.0)).to_string_lossy().into_owned();
            (api.ReleaseStatus)(status.0);
            text
        };
        bail!(Runtime, "ONNX Runtime does not report where nodes run: {text}")
    };
    let mut counts = BTreeMap::new();
    let (mut subgraphs, mut count) = (ptr::null(), 0);
    // SAFETY: the session is alive; the lists belong to it and have the returned number of entries.
    unsafe {
        ok((api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut subgraphs, &mut count))?;
        for index in 0..count {
            let subgraph = *subgraphs.add(index);
            let (mut name, mut nodes, mut number) = (ptr::null(), ptr::null(), 0);
            ok((api.EpAssignedSubgraph_GetEpName)(subgraph, &mut name))?;
            ok((api.EpAssignedSubgraph_GetNodes)(subgraph, &mut nodes, &mut number))?;
            let name = CStr::from_ptr(name).to_string_lossy();
            let known = match Provider::of_runtime_name(&name) {
                Some(provider) => provider.name(),
                None if name == kernels::NAME => kernels::SHORT_NAME,
                None => &name,
            };
            let placed: &mut Placed = counts.entry(known.to_owned()).or_default();
            placed.nodes += number;
            placed.groups += 1;
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;
    use crate::onnx::proto::FunctionProto;
    use crate::runtime::testing::{graph, model, node, value};
    use crate::runtime::{ProviderChoice, Session, Tensor, available, test_runtime};

    fn product() -> Model {
        let product = graph(
            vec![node("MatMul", &["x", "x"], "y"), node("Neg", &["y"], "z")],
            vec![value("x", 1, &["n", "n"])],
            vec![value("z", 1, &["n", "n"])],
        );
        Model::from_proto(model(product))
    }

    fn session(provider: ProviderChoice) -> Result<Session> {
        let execution = Execution { provider, ..Execution::default() };
        let options = SessionOptions { threads: 1, execution, ..SessionOptions::default() };
        Session::new(test_runtime(), &product(), &options, &Call::default())
    }

    #[test]
    fn what_is_asked_for_is_had_or_refused_and_never_replaced() {
        let runtime = test_runtime();
        let found = available(runtime, 0);
        for (choice, provider) in
            [(ProviderChoice::Cuda, Provider::Cuda), (ProviderChoice::TensorRt, Provider::TensorRt)]
        {
            let reason = found.iter().find(|f| f.provider == provider).unwrap().reason.clone();
            match (session(choice), reason) {
                (Ok(session), None) => assert_eq!(session.provider(), provider),
                (Err(e), Some(reason)) => {
                    assert_eq!((e.kind(), e.message()), (reason.kind(), reason.message()));
                    assert!(e.message().contains(provider.name()) || e.kind() == Kind::DeviceMissing, "{e}");
                }
                (Ok(session), Some(reason)) => panic!("{:?} in spite of {reason}", session.provider()),
                (Err(e), None) => panic!("{provider:?} was to be had, but: {e}"),
            }
        }
    }

    #[test]
    fn auto_takes_what_there_is_and_says_why_not_the_rest() {
        let session = session(ProviderChoice::Auto).unwrap();
        let best = available(test_runtime(), 0).into_iter().find(|found| found.reason.is_none()).unwrap();
        assert_eq!(session.provider(), best.provider);
        let before = Provider::ALL.iter().position(|p| *p == best.provider).unwrap();
        let placement = session.placement().clone();
        assert_eq!(placement.passed_over.len(), before, "{placement:?}");
        for (reason, provider) in placement.passed_over.iter().zip(Provider::ALL) {
            assert!(reason.starts_with(&format!("{}: ", provider.name())), "{reason}");
        }
        // Neg may or may not be fused into the product.
        assert!((1..=2).contains(&placement.nodes[best.provider.name()]), "{placement:?}");
        let x = Tensor::from_f32(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let outputs = session.run(&[("x", &x)], &[], &Call::default()).unwrap();
        assert_eq!(outputs[0].1.as_slice::<f32>().unwrap(), [-7.0, -10.0, -15.0, -22.0]);
    }

    /// The options of a GPU's provider mean nothing to the CPU, on which `auto` may run.
    #[test]
    fn auto_does_not_give_the_options_of_a_device_to_the_cpu() {
        let provider_options = vec![("gpu_mem_limit".to_owned(), "1073741824".to_owned())];
        let execution = Execution { provider: ProviderChoice::Auto, provider_options, ..Execution::default() };
        let options = SessionOptions { threads: 1, execution, ..SessionOptions::default() };
        let made = Session::new(test_runtime(), &product(), &options, &Call::default()).unwrap();
        if made.provider() == Provider::Cpu {
            let plain = session(ProviderChoice::Cpu).unwrap();
            assert_eq!(made.placement().kernels_unused, plain.placement().kernels_unused);
        }
    }

    #[test]
    fn engines_in_models_of_strangers_are_refused() {
        let context = NodeProto { domain: Some("com.microsoft".into()), ..node("EPContext", &["x"], "y") };
        let with = |node: NodeProto| model(graph(vec![node], vec![value("x", 1, &["n"])], vec![value("y", 1, &["n"])]));
        let mut called = with(NodeProto { domain: Some("local".into()), ..node("Engine", &["x"], "y") });
        called.functions = vec![FunctionProto { node: vec![context.clone()], ..Default::default() }];
        let ready = Model::from_proto(with(context));
        let execution = Execution { provider: ProviderChoice::Cuda, ..Execution::default() };
        assert_eq!(refuse_engines(&ready, &execution).unwrap_err().kind(), Kind::Untrusted);
        let called = Model::from_proto(called);
        assert_eq!(refuse_engines(&called, &execution).unwrap_err().kind(), Kind::Untrusted);
        assert!(refuse_engines(&product(), &execution).is_ok());
        assert!(refuse_engines(&ready, &Execution { trust_engines: true, ..execution.clone() }).is_ok());
        let options = SessionOptions { execution, ..SessionOptions::default() };
        let e = Session::new(test_runtime(), &ready, &options, &Call::default()).err().unwrap();
        assert_eq!(e.kind(), Kind::Untrusted);
    }

    #[test]
    fn engines_of_one_model_are_not_found_by_another() {
        let folder = Path::new("/cache");
        let of = |version: &str, capability: i32, stub: &[u8], weights: &[u8]| {
            engines(folder, version, capability, stub, std::iter::once(weights))
        };
        let one = of("1.31.1", 89, b"graph", b"weights");
        assert_eq!(one, of("1.31.1", 89, b"graph", b"weights"));
        assert!(one.starts_with(folder) && one.to_str().unwrap().ends_with("-onnxruntime-1.31.1-sm89"), "{one:?}");
        for other in [
            of("1.32.0", 89, b"graph", b"weights"),
            of("1.31.1", 90, b"graph", b"weights"),
            of("1.31.1", 89, b"grape", b"weights"),
            of("1.31.1", 89, b"graph", b"weight5"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn tensorrt_is_told_what_the_graph_computes_with() {
        let facts = |nodes: Vec<NodeProto>| {
            let model = Model::from_proto(model(graph(nodes, Vec::new(), Vec::new())));
            Facts::new(test_runtime(), &model, &Execution::default(), b"", std::iter::empty()).unwrap()
        };
        let cast = |to: i64| {
            let mut cast = node("Cast", &["x"], "y");
            cast.attribute = vec![crate::graph::edit::int_attribute("to", to)];
            cast
        };
        assert_eq!(facts(vec![node("Neg", &["x"], "y"), cast(1)]), Facts::default());
        assert_eq!(facts(vec![cast(10)]), Facts { float16: true, ..Facts::default() });
        assert_eq!(facts(vec![cast(16)]), Facts { bfloat16: true, ..Facts::default() });
        assert_eq!(facts(vec![node("QuantizeLinear", &["x", "s"], "y")]), Facts { int8: true, ..Facts::default() });
    }
}
