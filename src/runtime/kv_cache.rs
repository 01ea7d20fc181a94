//! The element type of the KV cache of a session ([`KvCacheType`]).
//!
//! The cache consists of inputs and outputs of the graph, which `GroupQueryAttention` nodes read and write. ONNX
//! Runtime lets them have another type than the other values of these nodes, but has no CPU kernels for a bfloat16
//! cache: only this library's kernels run such a graph.

use super::{ProviderChoice, Runtime, SessionOptions, kernels};
use crate::choice::choice;
use crate::error::{Result, bail};
use crate::model::{Model, Prepared};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ValueInfoProto};
use std::collections::HashSet;
use std::sync::Arc;

choice! {
    /// The element type of the KV cache of a decoder, for sessions on the CPU.
    pub enum KvCacheType: optimize_kv_cache_type_t = Float32 {
        /// float32, or the type of the model if it declares another one.
        Float32 = 0, "float32";
        /// bfloat16: half the memory, of which half as much is read for each token. Keys and values are rounded to 8
        /// significant bits.
        Bfloat16 = 1, "bfloat16";
    }
}

impl KvCacheType {
    pub(super) fn is_float32(&self) -> bool {
        *self == KvCacheType::Float32
    }

    fn dtype(self) -> DataType {
        match self {
            KvCacheType::Float32 => DataType::Float32,
            KvCacheType::Bfloat16 => DataType::Bfloat16,
        }
    }
}

/// Returns the model with a cache of the type that the options request, which is not float32.
///
/// Fails with `BackendMissing` if this library's kernels cannot be used, and with `InvalidArgument` if `kernels` is
/// `stock` or the provider is not `cpu`. Fails with `Unsupported` if other options exclude these kernels, or if the
/// model has no float32 cache that they read and write.
pub(super) fn narrowed(runtime: &'static Runtime, model: &Model, options: &SessionOptions) -> Result<Model> {
    let kind = options.execution.kv_cache_type;
    let name = kind.name();
    options.execution.check()?;
    // `auto` could select a GPU.
    if options.execution.provider != ProviderChoice::Cpu {
        bail!(InvalidArgument, "kv_cache_type {name} needs the provider cpu");
    }
    if options.refers_to_original_graph() {
        bail!(Unsupported, "kv_cache_type {name} needs all optimizations, and no file for the optimized graph");
    }
    if let Err(reason) = kernels::usable(runtime, options) {
        bail!(BackendMissing, "kv_cache_type {name} needs this library's kernels: {reason}");
    }
    let names = cache_of(model.graph());
    if names.is_empty() {
        bail!(
            Unsupported,
            "kv_cache_type {name} needs GroupQueryAttention nodes that read the cache from inputs of the model; this \
             model has none"
        );
    }
    let (narrowed, of_variants) = (with_type(model, &names, kind)?, model.clone());
    let ready = move |version: &str, kernels: &std::result::Result<(), String>| {
        let variant = of_variants.ready(version, kernels)?;
        // A graph that was optimized ahead of time runs on ONNX Runtime's kernels.
        let Some(variant) = variant.filter(|variant| variant.compiled.is_some()) else { return Ok(None) };
        Ok(Some(Prepared { model: with_type(&variant.model, &names, kind)?, ..variant }))
    };
    Ok(narrowed.with_ready(Arc::new(ready)))
}

/// Returns the model with inputs and outputs `names` of the type `kind`. Fails with `Unsupported` if one of them has
/// another type than float32 or `kind`.
fn with_type(model: &Model, names: &HashSet<String>, kind: KvCacheType) -> Result<Model> {
    let mut proto = model.proto().clone();
    let graphs = proto.graph.as_deref_mut().into_iter();
    let values = graphs.flat_map(|g| g.input.iter_mut().chain(&mut g.output).chain(&mut g.value_info));
    for value in values.filter(|value| value.name.as_ref().is_some_and(|name| names.contains(name))) {
        let tensor = value.value_type.as_deref_mut().and_then(|value| value.tensor_type.as_deref_mut());
        let Some(tensor) = tensor else { continue };
        match tensor.elem_type.and_then(DataType::from_onnx) {
            Some(DataType::Float32) => tensor.elem_type = Some(kind.dtype().to_onnx()),
            Some(other) if other == kind.dtype() => {}
            other => {
                let (name, other) = (value.name.as_deref().unwrap_or(""), other.map_or("unknown", DataType::name));
                let kind = kind.name();
                bail!(Unsupported, "kv_cache_type {kind} needs a float32 cache, but the type of {name:?} is {other}");
            }
        }
    }
    let mut card = model.card().clone();
    if let Some(contract) = &mut card.contract {
        let inputs = Arc::make_mut(contract).inputs.iter_mut().filter(|input| names.contains(&input.name));
        inputs.for_each(|input| input.dtype = Some(kind.dtype().name().to_owned()));
    }
    Ok(model.derive(proto).with_card(card))
}

/// Returns the names of the inputs and outputs that are the cache of `GroupQueryAttention` nodes of the main graph.
fn cache_of(graph: &GraphProto) -> HashSet<String> {
    let names =
        |values: &[ValueInfoProto]| values.iter().filter_map(|value| value.name.clone()).collect::<HashSet<_>>();
    let (inputs, outputs) = (names(&graph.input), names(&graph.output));
    let mut cache = HashSet::new();
    for node in graph.node.iter().filter(|node| node.op_type.as_deref() == Some("GroupQueryAttention")) {
        let pasts = node.input.iter().skip(3).take(2);
        let presents = node.output.iter().skip(1).take(2);
        let whole =
            pasts.clone().all(|past| inputs.contains(past)) && presents.clone().all(|name| outputs.contains(name));
        if whole {
            cache.extend(pasts.chain(presents).cloned());
        }
    }
    cache
}
