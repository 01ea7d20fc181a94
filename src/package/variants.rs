//! The graphs of a package: each requested precision as a portable graph and, where possible, as one prepared for this
//! processor; and the selection of one of them when the package is opened.

use super::manifest::{Manifest, Variant};
use super::options::{BF16, ORIGINAL};
use super::promise::Shapes;
use super::{check, compiled, engines};
use crate::call::Call;
use crate::error::{Context, Result, bail, error};
use crate::files::ScratchFolder;
use crate::limits;
use crate::model::Model;
use crate::model::contract::Contract;
use crate::onnx::dtype::{DataType, element_count};
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use crate::onnx::save::weight_bytes;
use crate::onnx::validate::subgraphs;
use crate::quantize::{self, QuantizeOptions, QuantizeType};
use crate::report::Machine;
use crate::runtime::{Runtime, Session, SessionOptions, kernels_usable};
use bytes::Bytes;
use serde_json::Value;
use std::path::Path;

/// The x86-64 processor extensions (VNNI) of which int8 needs one to be faster than float32.
const INT8_NEEDS: [&str; 2] = ["avx512vnni", "avxvnni"];

/// The maximum size of the weights of a graph optimized ahead of time, relative to those of the portable graph.
/// Reordered weights keep their size; graphs whose weights were expanded or converted to wider types are omitted.
const MOST: f64 = 1.5;
/// The size in bytes up to which the weights of a graph optimized ahead of time may have any ratio to the portable
/// ones.
const LARGE: u64 = 64 << 10;

/// A variant with its graph.
pub struct Made {
    /// Entry of the variant in the manifest.
    pub variant: Variant,
    /// Graph of the variant.
    pub model: Model,
    /// Report of the quantization that produced the graph; `None` for other graphs.
    pub report: Option<Value>,
}

/// The graphs of a package, with their files.
#[derive(Default)]
pub struct All {
    /// Variants of the package, best first.
    pub made: Vec<Made>,
    /// Paths and contents of files that belong to variants.
    pub files: Vec<(String, Bytes)>,
    /// Warnings about graphs that are omitted or are not what was requested.
    pub warnings: Vec<String>,
}

/// The parameters with which [`make`] produces graphs for this processor in addition to portable ones.
pub struct Wanted<'a> {
    /// Sizes of the example on which graphs are compared.
    pub example: &'a Shapes,
    /// Sizes that runs may have.
    pub contract: &'a Contract,
    /// Whether compiled graphs may be produced: a session maps their packed weights from a file of a package folder.
    pub compiled: bool,
}

/// Returns portable graphs of the precisions `names`. With `wanted`, also returns a graph of each precision that is
/// prepared for this processor and compared with the model. Precisions other than `fp32` are compiled for this
/// library's kernels, if these can be used. A precision that was not compiled is optimized by ONNX Runtime, except
/// `bf16`. Prepared graphs with different results are left out with a warning. `scratch` is a folder for temporary
/// files.
///
/// Fails with [`crate::error::Kind::InvalidArgument`] for an unknown name and one that is repeated, and with
/// `Unsupported` for `tensorrt`.
pub fn make(
    runtime: &'static Runtime,
    model: &Model,
    names: &[String],
    wanted: Option<Wanted<'_>>,
    scratch: &Path,
    call: &Call,
) -> Result<All> {
    let mut all = All::default();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            bail!(InvalidArgument, "the variant {name:?} is named twice");
        }
        let (made, report) = precision(runtime, model, name, call).at(|| format!("variant {name:?}"))?;
        if let Some(wanted) = &wanted {
            let compiles = wanted.compiled && name != ORIGINAL && kernels_usable(runtime, &Default::default()).is_ok();
            let compiled = compiles && add_compiled(runtime, (model, &made), name, wanted, &mut all, call)?;
            // The graph of bf16 is the original one: only compiling makes a difference.
            if !compiled && name != BF16 {
                add_ahead(runtime, &made, name, wanted.example, scratch, &mut all, call)?;
            }
        }
        all.made.push(Made { variant: plain(name, false), model: made, report });
    }
    Ok(all)
}

/// Adds the graph of `models`, which are the original model and the model in the precision `name`, compiled for this
/// library's kernels. Returns whether there is one.
fn add_compiled(
    runtime: &'static Runtime,
    models: (&Model, &Model),
    name: &str,
    wanted: &Wanted<'_>,
    all: &mut All,
    call: &Call,
) -> Result<bool> {
    let (made, weights) = match compiled::compile(runtime, models, name, wanted, call)? {
        Ok(both) => both,
        Err(why) => {
            all.warnings.push(format!("{name}-compiled is left out: {why}"));
            return Ok(false);
        }
    };
    all.warn_of(&made.variant);
    all.files.extend(made.variant.compiled.iter().map(|compiled| (compiled.weights.clone(), weights.clone())));
    all.made.push(made);
    Ok(true)
}

/// Adds a graph that ONNX Runtime optimized for this processor, unless its weights are too large or its results differ.
fn add_ahead(
    runtime: &'static Runtime,
    made: &Model,
    name: &str,
    example: &Shapes,
    scratch: &Path,
    all: &mut All,
    call: &Call,
) -> Result<()> {
    let Some(ready) = optimized(runtime, made, scratch, call)? else { return Ok(()) };
    match compared(runtime, made, &ready, example, name, call)? {
        Ok(check) => {
            let variant = Variant { check: Some(check), ..for_this_machine(runtime, name) };
            all.warn_of(&variant);
            all.made.push(Made { variant, model: ready, report: None });
        }
        Err(why) => all.warnings.push(format!("{name}-ahead is left out: {why}")),
    }
    Ok(())
}

impl All {
    /// Adds warnings if a variant was not compared, or if its weights cannot be used where they are mapped.
    fn warn_of(&mut self, variant: &Variant) {
        let Variant { name, check: Some(check), .. } = variant else { return };
        if let Some(why) = &check.not_compared {
            self.warnings.push(format!("{name} was not compared with the model: {why}"));
        }
        if let Some(why) = &check.weights_copied {
            self.warnings.push(format!("sessions of {name} copy the weights: {why}"));
        }
    }
}

/// Returns the check of `ready`, the graph optimized ahead of time. The inner error is the reason to omit it: its
/// weights are too large, or its results differ from those of the model.
fn compared(
    runtime: &'static Runtime,
    made: &Model,
    ready: &Model,
    example: &Shapes,
    name: &str,
    call: &Call,
) -> Result<std::result::Result<check::Check, String>> {
    let (portable, ahead) = (weights(made), weights(ready));
    if ahead > LARGE && ahead as f64 > portable as f64 * MOST {
        let times = ahead as f64 / portable.max(1) as f64;
        return Ok(Err(format!(
            "its weights would take {times:.1} times the space of the model's ({ahead} bytes instead of {portable})"
        )));
    }
    check::compare(runtime, made, ready, example, name != ORIGINAL, call)
}

/// Returns the size of all weights in bytes, in initializers and in `Constant` nodes, also of subgraphs and functions.
fn weights(model: &Model) -> u64 {
    let proto = model.proto();
    let functions = proto.functions.iter().map(|function| bytes_of_nodes(&function.node));
    proto.graph.as_deref().map_or(0, bytes_of_graph) + functions.sum::<u64>()
}

fn bytes_of_graph(graph: &GraphProto) -> u64 {
    graph.initializer.iter().map(bytes_of_tensor).sum::<u64>() + bytes_of_nodes(&graph.node)
}

fn bytes_of_nodes(nodes: &[NodeProto]) -> u64 {
    let tensors = nodes.iter().flat_map(|node| &node.attribute).filter_map(|attribute| attribute.t.as_deref());
    tensors.map(bytes_of_tensor).sum::<u64>() + nodes.iter().flat_map(subgraphs).map(bytes_of_graph).sum::<u64>()
}

/// Returns the size of the elements of a tensor in bytes, in whichever field they are; 0 for strings.
fn bytes_of_tensor(tensor: &TensorProto) -> u64 {
    let dtype = tensor.data_type.and_then(DataType::from_onnx);
    let count = element_count(&tensor.dims).unwrap_or(0);
    dtype.filter(|dtype| *dtype != DataType::String).and_then(|dtype| dtype.bytes_of(count).ok()).unwrap_or(0)
}

/// Returns the description of a variant in `precision` for the processor of this machine and this ONNX Runtime.
pub fn for_this_machine(runtime: &Runtime, precision: &str) -> Variant {
    let machine = Machine::here();
    Variant {
        architecture: Some(machine.architecture.to_owned()),
        features: machine.features.iter().map(|f| (*f).to_owned()).collect(),
        runtime: Some(minor(runtime.version())),
        ..plain(precision, true)
    }
}

fn plain(precision: &str, ahead: bool) -> Variant {
    let name = if ahead { format!("{precision}-ahead") } else { precision.to_owned() };
    let file = format!("model/{name}/model.onnx");
    let provider = "cpu".to_owned();
    let precision = precision.to_owned();
    let (architecture, features, runtime, compiled, check) = (None, Vec::new(), None, None, None);
    Variant { name, precision, ahead, file, provider, architecture, features, runtime, compiled, check }
}

fn precision(runtime: &'static Runtime, model: &Model, name: &str, call: &Call) -> Result<(Model, Option<Value>)> {
    let options = match name {
        ORIGINAL | BF16 => return Ok((model.clone(), None)),
        "int8" => QuantizeOptions::default(),
        "int4" => QuantizeOptions { quantize_type: QuantizeType::WeightOnly, bits: 4, ..QuantizeOptions::default() },
        "tensorrt" => bail!(
            Unsupported,
            "a package does not build engines: build the engine first, and pass its path as `engine`"
        ),
        other => bail!(InvalidArgument, "{other:?} is not one of fp32, bf16, int8, int4"),
    };
    let (made, mut report) = quantize::quantize_with(runtime, model, &options, None, call)?;
    // Packages are reproducible, so the report has no times; nor does it have the list of nodes, which is long.
    (report.nodes, report.seconds, report.peak_rss_bytes) = (Vec::new(), 0.0, 0);
    Ok((made, serde_json::to_value(report).ok()))
}

/// Returns the graph that ONNX Runtime optimized for this processor; `None` if the model is too large, or if the
/// optimized graph has other inputs or outputs.
fn optimized(runtime: &'static Runtime, model: &Model, scratch: &Path, call: &Call) -> Result<Option<Model>> {
    if weight_bytes(model.proto()) > limits::INLINE_WEIGHT_BYTES {
        return Ok(None);
    }
    // ONNX Runtime's file is mapped: another thread must not write to it.
    let folder = ScratchFolder::in_folder(scratch, "ahead")?;
    let file = folder.path().join("model.onnx");
    let options = SessionOptions { optimized_model: Some(file.clone()), ..SessionOptions::stock() };
    // The mapping remains valid after the folder has been removed.
    let made = Session::new(runtime, model, &options, call).and_then(|_| Model::from_file(&file))?;
    // Optimizers may change the inputs of the graph; then only the portable graph is used.
    let names = |m: &Model| m.inputs().into_iter().chain(m.outputs()).map(|v| v.name).collect::<Vec<_>>();
    Ok((names(&made) == names(model)).then_some(made))
}

/// Returns the major and minor version, for example `1.32` of `1.32.0`.
pub fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Returns the index of the variant to use, and the reason for it. `wanted` is the name or the precision of a variant;
/// `None` allows all. `runtime` is the version of ONNX Runtime; if it is `None` (not yet known), a portable graph is
/// selected. `kernels` is `Ok` if the session can use this library's kernels, and otherwise the reason why not.
///
/// Fails with [`crate::error::Kind::NotFound`] if no variant has the name or precision `wanted`, and with `Unsupported`
/// if none can run on this machine.
pub fn choose(
    manifest: &Manifest,
    wanted: Option<&str>,
    runtime: Option<&str>,
    kernels: &std::result::Result<(), String>,
) -> Result<(usize, String)> {
    let machine = Machine::here();
    let named = |v: &&Variant| wanted.is_none_or(|wanted| wanted == v.name || wanted == v.precision);
    if let Some(wanted) = wanted
        && !manifest.variants.iter().any(|v| named(&v))
    {
        let names: Vec<&str> = manifest.variants.iter().map(|v| v.name.as_str()).collect();
        bail!(NotFound, "the package has no variant {wanted:?}; it has {}", names.join(", "));
    }
    let mut passed = Vec::new();
    for (index, variant) in manifest.variants.iter().enumerate().filter(|(_, v)| named(v)) {
        match obstacle(variant, &machine, runtime, kernels, wanted.is_some()) {
            None => {
                let why = if wanted.is_some() { "asked for" } else { "the first in order of preference that fits" };
                let form = match (&variant.compiled, variant.ahead) {
                    (Some(_), _) => ", compiled for this library's kernels",
                    (None, true) => ", optimized for this processor",
                    (None, false) => ", portable",
                };
                let past: String = passed.iter().map(|p| format!("; {p}")).collect();
                return Ok((index, format!("{}: {why}{form}{past}", variant.name)));
            }
            Some(what) => passed.push(format!("not {}: {what}", variant.name)),
        }
    }
    // A portable variant is better than none, even if it is fast only on other processors. While the runtime is not
    // known, the portable graph of the same precision replaces a graph requested by name that needs a runtime.
    let meant = manifest.variants.iter().find(|v| runtime.is_none() && wanted == Some(&v.name)).map(|v| &v.precision);
    let portable = |v: &&Variant| !v.ahead && v.provider == "cpu" && (named(v) || meant == Some(&v.precision));
    match manifest.variants.iter().position(|v| portable(&v)) {
        Some(index) => {
            Ok((index, format!("{}: the portable variant; {}", manifest.variants[index].name, passed.join("; "))))
        }
        None => Err(error!(Unsupported, "no variant of the package can run here: {}", passed.join("; "))),
    }
}

/// Returns the reason why a variant is not used on this machine; `None` if it may be used. Variants that would not be
/// faster than others on this machine are refused unless the caller `asked` for them.
fn obstacle(
    variant: &Variant,
    machine: &Machine,
    runtime: Option<&str>,
    kernels: &std::result::Result<(), String>,
    asked: bool,
) -> Option<String> {
    match &variant.compiled {
        Some(compiled) if variant.provider == compiled::PROVIDER => {
            if let Some(why) = compiled::obstacle(compiled, kernels) {
                return Some(why);
            }
        }
        _ if variant.provider != "cpu" => return Some(engines::obstacle(&variant.provider)),
        _ => {}
    }
    if let Some(architecture) = variant.architecture.as_deref().filter(|a| *a != machine.architecture) {
        return Some(format!("it is for {architecture}; this is {}", machine.architecture));
    }
    if let Some(feature) = variant.features.iter().find(|f| !machine.features.contains(&f.as_str())) {
        return Some(format!("it needs {feature}, which this processor lacks"));
    }
    if variant.ahead {
        match (variant.runtime.as_deref(), runtime) {
            (Some(needed), Some(there)) if needed != minor(there) => {
                return Some(format!("it is for ONNX Runtime {needed}; this is {there}"));
            }
            (_, None) => return Some("ONNX Runtime is not open".to_owned()),
            _ => {}
        }
    }
    if !asked && variant.precision == BF16 && variant.compiled.is_none() {
        return Some("its portable graph computes in float32".to_owned());
    }
    let vnni = machine.architecture != "x86_64" || INT8_NEEDS.iter().any(|f| machine.features.contains(f));
    (!asked && variant.precision == "int8" && !vnni).then(|| "int8 is not faster without VNNI".to_owned())
}
