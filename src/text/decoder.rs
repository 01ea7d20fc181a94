//! The inputs and outputs of a model that generates text, derived from its graph ([`Decoder`]).
//!
//! Exporters differ in names and in how they keep the KV cache. Supported are models of optimum and transformers.js
//! (`past_key_values.N.key` → `present.N.key`, in merged files with `use_cache_branch`), of onnxruntime-genai (names
//! from `genai_config.json`), and older exports (`past_N` → `present_N`). Graphs that this library builds are also
//! supported, and models without a cache, which read the whole text again for every token.

use crate::error::{Result, bail};
use crate::graph::{Producer, View};
use crate::model::{Card, Dim, Model, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::runtime::{Session, Tensor};
use serde_json::Value;
use std::collections::HashSet;

/// The way in which a model keeps its KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// A shared buffer: past and present are one buffer with spare capacity, and each run appends to it in place
    /// (GroupQueryAttention). Rows are padded on the right.
    Shared,
    /// A concatenated cache: each run outputs a new, longer cache, which is the next run's past. Rows are padded on the
    /// left.
    Concatenated,
    /// No cache: every run reads the text from the beginning.
    Recompute,
}

/// An integer input of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Name of the input.
    pub name: String,
    /// Element type of the input: int64 or int32.
    pub dtype: DataType,
    /// Number of dimensions of the input.
    pub rank: usize,
}

impl Port {
    /// Returns a tensor for this input, with its element type and the last [`Port::rank`] dimensions of `shape`. Fails
    /// with `InvalidArgument` if `values` does not have as many elements.
    pub fn tensor(&self, shape: &[i64], values: Vec<i64>) -> Result<Tensor> {
        let shape = &shape[shape.len() - self.rank.min(shape.len())..];
        match self.dtype {
            DataType::Int32 => Tensor::from_vec(shape, values.into_iter().map(|v| v as i32).collect()),
            _ => Tensor::from_i64(shape, values),
        }
    }
}

/// An input of the cache, and the output that updates it.
#[derive(Debug, Clone, PartialEq)]
pub struct CachePair {
    /// Name of the input, which is the past.
    pub past: String,
    /// Name of the output, which has the past and the new tokens.
    pub present: String,
    /// Element type of both: float32, float16, bfloat16 or int8.
    pub dtype: DataType,
    /// Shape of the input; the dimensions [`CachePair::batch`] and [`CachePair::sequence`] are 0.
    pub shape: Vec<i64>,
    /// Index of the batch dimension.
    pub batch: usize,
    /// Index of the token dimension.
    pub sequence: usize,
}

/// The inputs and outputs of a model that generates text.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoder {
    /// Input for the ids of the new tokens, `[batch, sequence]`.
    pub input_ids: Port,
    /// Input for the mask, 1 for tokens, 0 for padding, `[batch, past + sequence]`; `None` if the model has none.
    pub attention_mask: Option<Port>,
    /// Input for the positions of the new tokens in their rows, `[batch, sequence]`; `None` if the model has none.
    pub position_ids: Option<Port>,
    /// Input for the number of columns of logits to output, counted from the end; `None` if the model has none.
    pub logits_to_keep: Option<Port>,
    /// Name of the input that says whether there is a past (merged exports); `None` if the model has none.
    pub use_cache_branch: Option<String>,
    /// Name of the output with logits, `[batch, columns, vocabulary]`.
    pub logits: String,
    /// Inputs and outputs of the cache, in the model's order; empty if the model has no cache.
    pub cache: Vec<CachePair>,
    /// Kind of the cache.
    pub kind: CacheKind,
    /// Whether rows of different lengths can be run together with padding. If not, they are run one by one.
    pub pads: bool,
    /// Maximum number of tokens in a row; `None` if unknown.
    pub context: Option<usize>,
    /// Number of logits of a token; `None` if the graph does not declare it.
    pub vocabulary: Option<usize>,
}

/// The keys of a configuration that hold the maximum length, in addition to those of [`Card::context`].
const CONTEXT_KEYS: [&str; 5] = ["n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length"];

impl Decoder {
    /// Returns the inputs and outputs of a model that generates text.
    ///
    /// Fails with [`crate::error::Kind::Unsupported`] if the model is not a decoder, has an unknown input, or keeps its
    /// cache in an unsupported way; the message names the input. Fails with `InvalidModel` if its `genai_config.json`
    /// is damaged.
    pub fn of(model: &Model) -> Result<Decoder> {
        let (inputs, outputs) = (model.inputs(), model.outputs());
        let genai = genai_decoder(model.card())?;
        let named = |group: &str, key: &str| genai.as_ref()?.get(group)?.get(key)?.as_str();
        let mut left: Vec<&ValueInfo> = inputs.iter().collect();
        let mut port = |names: &[&str], ranks: std::ops::RangeInclusive<usize>| {
            let at = left.iter().position(|i| names.contains(&i.name.as_str()));
            at.map(|at| integer(left.remove(at), ranks)).transpose()
        };
        let Some(input_ids) = port(&["input_ids", named("inputs", "input_ids").unwrap_or("")], 2..=2)? else {
            let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
            bail!(
                Unsupported,
                "the model has no input input_ids and cannot generate text; its inputs are {}",
                names.join(", ")
            );
        };
        let attention_mask = port(&["attention_mask", named("inputs", "attention_mask").unwrap_or("")], 2..=2)?;
        let position_ids = port(&["position_ids", named("inputs", "position_ids").unwrap_or("")], 2..=2)?;
        let logits_to_keep = port(&["num_logits_to_keep", "logits_to_keep"], 0..=1)?;
        let branch = left.iter().position(|i| i.name == "use_cache_branch" && i.dtype == Some(DataType::Bool));
        let use_cache_branch = branch.map(|at| left.remove(at).name.clone());
        let (logits, vocabulary) = logits_of(&outputs, named("outputs", "logits"))?;
        let templates = Templates::new(genai.as_ref());
        let mut cache = Vec::with_capacity(left.len());
        for input in left {
            cache.push(pair(input, &outputs, &templates, &Sizes { card: model.card(), genai: genai.as_ref() })?);
        }
        let (kind, table) = kind_of(model, &cache);
        // Rows of different lengths require a mask and, with a concatenated cache, positions.
        let pads = match kind {
            CacheKind::Shared => attention_mask.is_some(),
            CacheKind::Concatenated => attention_mask.is_some() && position_ids.is_some() && table.is_none(),
            CacheKind::Recompute => false,
        };
        let context = [table, context_of(model.card(), genai.as_ref())].into_iter().flatten().min();
        Ok(Decoder {
            input_ids,
            attention_mask,
            position_ids,
            logits_to_keep,
            use_cache_branch,
            logits,
            cache,
            kind,
            pads,
            context,
            vocabulary,
        })
    }
}

impl Decoder {
    /// Sets the element types of the cache to those of a session of the model, which may differ from those in the
    /// graph: see [`crate::runtime::Execution::kv_cache_type`].
    pub fn set_cache_types(&mut self, session: &Session) {
        for pair in &mut self.cache {
            let input = session.inputs().iter().find(|input| input.name == pair.past);
            pair.dtype = input.and_then(|input| input.dtype).unwrap_or(pair.dtype);
        }
    }
}

fn integer(info: &ValueInfo, ranks: std::ops::RangeInclusive<usize>) -> Result<Port> {
    let rank = info.shape.as_ref().map_or(*ranks.end(), Vec::len);
    match info.dtype {
        Some(dtype @ (DataType::Int64 | DataType::Int32)) if ranks.contains(&rank) => {
            Ok(Port { name: info.name.clone(), dtype, rank })
        }
        _ => bail!(Unsupported, "input {:?} is {}, which text generation does not support", info.name, info.describe()),
    }
}

/// Returns the name of the output with the logits, and the number of logits of a token if the graph declares it.
fn logits_of(outputs: &[ValueInfo], named: Option<&str>) -> Result<(String, Option<usize>)> {
    if let Some(output) = outputs.iter().find(|o| o.name == named.unwrap_or("logits")) {
        let size = match output.shape.as_ref().and_then(|shape| shape.last()) {
            Some(Dim::Fixed(size)) => usize::try_from(*size).ok(),
            _ => None,
        };
        return Ok((output.name.clone(), size));
    }
    let names: Vec<&str> = outputs.iter().map(|o| o.name.as_str()).collect();
    bail!(
        Unsupported,
        "the model has no output \"logits\" and cannot generate text; its outputs are {}",
        names.join(", ")
    )
}

/// Returns the value of `model.decoder` in a `genai_config.json`; `None` if there is no such file or no such value.
fn genai_decoder(card: &Card) -> Result<Option<Value>> {
    let Some(file) = card.side_file("genai_config.json") else { return Ok(None) };
    match serde_json::from_slice::<Value>(&file.read()?) {
        Ok(mut config) => Ok(config.pointer_mut("/model/decoder").map(Value::take)),
        Err(e) => bail!(InvalidModel, "genai_config.json: {e}"),
    }
}

fn context_of(card: &Card, genai: Option<&Value>) -> Option<usize> {
    let genai = genai.and_then(|g| g.get("context_length")).and_then(Value::as_i64);
    // This is a list instead of a chain of options, because the code that the compiler generates for a chain reads
    // uninitialized values, which is harmless but reported by valgrind.
    let mut sizes: Vec<usize> = Vec::new();
    for size in CONTEXT_KEYS.iter().map(|key| card.integer(key)).chain([genai]).flatten() {
        sizes.extend(usize::try_from(size).ok().filter(|size| *size > 0));
    }
    sizes.extend(card.context());
    sizes.into_iter().min()
}

/// The part of the cache that an input or output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Key,
    Value,
    Both,
}

/// The names of cache inputs and outputs in `genai_config.json`, keys first, with `%d` for the layer.
struct Templates {
    past: [Option<String>; 2],
    present: [Option<String>; 2],
}

impl Templates {
    fn new(genai: Option<&Value>) -> Templates {
        let get = |group: &str, key: &str| Some(genai?.get(group)?.get(key)?.as_str()?.to_owned());
        Templates {
            past: [get("inputs", "past_key_names"), get("inputs", "past_value_names")],
            present: [get("outputs", "present_key_names"), get("outputs", "present_value_names")],
        }
    }

    fn role(templates: &[Option<String>; 2], name: &str) -> Option<(u32, Part)> {
        for (template, part) in templates.iter().zip([Part::Key, Part::Value]) {
            let Some((before, after)) = template.as_deref().and_then(|t| t.split_once("%d")) else { continue };
            let layer = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            if let Some(layer) = layer.and_then(|digits| digits.parse().ok()) {
                return Some((layer, part));
            }
        }
        None
    }
}

/// Returns the layer index in the name of a cache input, and the part of the cache: `Some(true)` for the keys,
/// `Some(false)` for the values, `None` for both. Returns `None` if the name is not that of a cache input.
pub(crate) fn layer_of(past: &str) -> Option<(u32, Option<bool>)> {
    let (layer, part) = role(past, "past")?;
    let keys = match part {
        Part::Key => Some(true),
        Part::Value => Some(false),
        Part::Both => None,
    };
    Some((layer, keys))
}

/// Returns the layer and the part of a cache value by its name, which begins with `word`: `past_key_values.3.key`,
/// `present_3`, `past_key_3` …; `None` for other names.
fn role(name: &str, word: &str) -> Option<(u32, Part)> {
    if !name.starts_with(word) {
        return None;
    }
    let digits: String = name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    // `past_key_values` does not name the part.
    let rest = name.replace("key_values", "");
    let part = match (rest.contains("key"), rest.contains("value")) {
        (true, false) => Part::Key,
        (false, true) => Part::Value,
        _ => Part::Both,
    };
    Some((digits.parse().ok()?, part))
}

fn pair(input: &ValueInfo, outputs: &[ValueInfo], templates: &Templates, sizes: &Sizes<'_>) -> Result<CachePair> {
    let name = &input.name;
    if name.contains("encoder") {
        bail!(Unsupported, "input {name:?}: encoder-decoder models are not supported for text generation yet");
    }
    let wanted = Templates::role(&templates.past, name).or_else(|| role(name, "past"));
    let Some(wanted) = wanted else {
        bail!(Unsupported, "input {name:?} ({}) is not known; text generation is not possible", input.describe());
    };
    let of_output = |o: &&ValueInfo| Templates::role(&templates.present, &o.name).or_else(|| role(&o.name, "present"));
    let Some(output) = outputs.iter().find(|o| of_output(o) == Some(wanted)) else {
        bail!(Unsupported, "input {name:?} has no matching output with its next value (\"present…\")");
    };
    let dtype = match input.dtype {
        Some(dtype @ (DataType::Float32 | DataType::Float16 | DataType::Bfloat16 | DataType::Int8)) => dtype,
        _ => bail!(Unsupported, "input {name:?} is {}; a cache of that type is not supported", input.describe()),
    };
    let dims = input.shape.as_deref().unwrap_or_default();
    let (batch, sequence) = match dims.len() {
        4 => (0, 2),
        // Keys and values in one: [2, batch, heads, tokens, size].
        5 => (1, 3),
        _ => bail!(Unsupported, "input {name:?} is {}; a cache of that shape is not supported", input.describe()),
    };
    let mut shape = Vec::with_capacity(dims.len());
    for (index, dim) in dims.iter().enumerate() {
        shape.push(match dim {
            Dim::Symbolic(_) if index == batch || index == sequence => 0,
            Dim::Fixed(_) if index == sequence => {
                bail!(Unsupported, "input {name:?} is {}: a cache of fixed length is not supported", input.describe())
            }
            Dim::Fixed(_) if index == batch => 0,
            Dim::Fixed(size) => *size,
            Dim::Symbolic(_) => sizes.of(dims.len() - index, name)?,
        });
    }
    Ok(CachePair { past: name.clone(), present: output.name.clone(), dtype, shape, batch, sequence })
}

/// The configurations that have the sizes that a graph does not fix.
struct Sizes<'a> {
    card: &'a Card,
    genai: Option<&'a Value>,
}

impl Sizes<'_> {
    fn first(&self, keys: &[&str]) -> Option<i64> {
        let genai = |key: &str| self.genai?.get(key)?.as_i64();
        keys.iter().find_map(|key| genai(key).or_else(|| self.card.integer(key))).filter(|size| *size > 0)
    }

    /// Returns the size of a dimension of the cache input `name`. `from_end` counts dimensions from the end: 1 is the
    /// size of a head, 3 the number of heads, and 5 the dimension that separates keys from values, whose size is 2.
    /// Fails with `Unsupported` if it is unknown.
    fn of(&self, from_end: usize, name: &str) -> Result<i64> {
        let heads = || self.first(&["num_attention_heads", "n_head", "num_heads"]);
        let whole = || self.first(&["hidden_size", "n_embd", "d_model"]);
        let size = match from_end {
            3 => self.first(&["num_key_value_heads", "num_kv_heads"]).or_else(heads),
            1 => self.first(&["head_size", "head_dim"]).or_else(|| Some(whole()? / heads()?)).filter(|size| *size > 0),
            5 => Some(2),
            _ => None,
        };
        match size {
            Some(size) => Ok(size),
            None => {
                bail!(Unsupported, "input {name:?}: neither the graph nor a configuration has its head size")
            }
        }
    }
}

/// Returns the kind of the cache, and the number of positions in the shortest rotary table of the GroupQueryAttention
/// nodes: `usize::MAX` if it cannot be derived, `None` without such nodes or without a cache.
fn kind_of(model: &Model, cache: &[CachePair]) -> (CacheKind, Option<usize>) {
    let fused = |domain: Option<&str>, op: &str| domain == Some("com.microsoft") && op == "GroupQueryAttention";
    let nodes: Vec<_> = model.graph().node.iter().filter(|n| fused(n.domain.as_deref(), n.op())).collect();
    if cache.is_empty() {
        return (CacheKind::Recompute, None);
    }
    if nodes.is_empty() {
        return (CacheKind::Concatenated, None);
    }
    let view = View::new(model.proto());
    let shortest = nodes.iter().filter_map(|n| table_rows(&view, n.input_at(7)?)).min();
    let taken: HashSet<&str> = nodes.iter().flat_map(|n| [n.input_at(3), n.input_at(4)]).flatten().collect();
    let given: HashSet<&str> = nodes.iter().flat_map(|n| n.output.iter().skip(1)).map(String::as_str).collect();
    let in_place = |p: &CachePair| taken.contains(p.past.as_str()) && given.contains(p.present.as_str());
    let kind = if cache.iter().all(in_place) { CacheKind::Shared } else { CacheKind::Concatenated };
    (kind, Some(shortest.unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests;

/// Returns the number of rows of a rotary table, which is a constant or is computed from a `Range` of positions, as in
/// the graphs that this library builds; `None` if it cannot be derived.
fn table_rows(view: &View<'_>, table: &str) -> Option<usize> {
    let mut name = table;
    // From the table back to its positions there are at most five nodes: Mul, Cos or Sin, Mul, Unsqueeze, Range.
    for _ in 0..5 {
        if let Some(constant) = view.constant_or_default(0, name) {
            return usize::try_from(*constant.tensor.dims.first()?).ok();
        }
        let (0, Producer::Node(index)) = view.producer(0, name)? else { return None };
        let node = view.node(0, index);
        match node.op() {
            "Range" => return Some(view.constant(0, node.input_at(1)?)?.floats()?.first().copied()? as usize),
            "Mul" | "Cos" | "Sin" | "Unsqueeze" => name = node.input_at(0)?,
            _ => return None,
        }
    }
    None
}
