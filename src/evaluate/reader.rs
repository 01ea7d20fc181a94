//! [`Reader`]: a decoder that reads a window of tokens from the start and gives logits for the last of them.

use super::config::Config;
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::model::{Dim, Model, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::runtime::{Runtime, Session, SessionOptions, Tensor};
use crate::source::Task;
use bytes::Bytes;

/// The output a language model is evaluated on.
const LOGITS: &str = "logits";

/// A loaded language model. Each read begins anew: caches, where the model takes them, go in empty.
pub struct Reader {
    session: Session,
    inputs: Vec<(ValueInfo, Role)>,
    logits: String,
    quiet: bool,
}

/// What an input of a language model is for.
#[derive(Debug, Clone, PartialEq)]
enum Role {
    /// Token ids, `[1, tokens]`.
    Ids,
    /// All tokens are there: ones, `[1, tokens]`.
    Mask,
    /// All tokens are in one segment: zeros, `[1, tokens]`.
    Types,
    /// 0, 1, 2 …; `[1, tokens]`, or `[tokens]` where the input has one dimension.
    Positions,
    /// The number of last positions that need logits; 0 for all.
    Keep,
    /// A switch of merged exports: 0, as there is no cache to read.
    UseCache,
    /// A cache with nothing in it, of this shape.
    Past(Vec<i64>),
}

/// Logits of the last positions of a window.
pub struct Logits {
    tensor: Tensor,
    vocabulary: usize,
    /// Position of the first row.
    first: usize,
}

impl Reader {
    /// Loads a model. [`crate::error::Kind::Unsupported`] if it does not write text or has an input that is not known.
    pub fn new(runtime: &'static Runtime, model: &Model, threads: usize, call: &Call) -> Result<Reader> {
        let config = Config::of(model)?;
        let logits = logits_of(model)?;
        let role = |info: ValueInfo| {
            let role = role(&info, &config).at(|| format!("input {:?}", info.name))?;
            Ok((info, role))
        };
        let inputs = model.inputs().into_iter().map(role).collect::<Result<Vec<_>>>()?;
        if !inputs.iter().any(|(_, role)| *role == Role::Ids) {
            bail!(Unsupported, "the model has no input of token ids (`input_ids`)");
        }
        let options = SessionOptions { threads, ..SessionOptions::default() };
        let session = Session::new(runtime, model, &options, call)?;
        Ok(Reader { session, inputs, logits, quiet: false })
    }

    /// Reads `tokens` and gives the logits of at least the last `keep` positions.
    pub fn read(&mut self, tokens: &[i64], keep: usize, call: &Call) -> Result<Logits> {
        let feed = |(info, role): &(ValueInfo, Role)| -> Result<Tensor> {
            fill(info, role, tokens, keep).at(|| format!("input {:?}", info.name))
        };
        let tensors = self.inputs.iter().map(feed).collect::<Result<Vec<_>>>()?;
        let feed: Vec<(&str, &Tensor)> =
            self.inputs.iter().zip(&tensors).map(|((info, _), tensor)| (info.name.as_str(), tensor)).collect();
        // A window that takes milliseconds needs nobody to watch it: the one after notices a cancel in time.
        let call = if self.quiet { &Call::default() } else { call };
        let start = std::time::Instant::now();
        let (_, tensor) = self.session.run(&feed, &[self.logits.as_str()], call)?.remove(0);
        self.quiet = start.elapsed().as_millis() < 50;
        let shape = tensor.shape();
        let &[1, rows, vocabulary] = shape else {
            bail!(Unsupported, "the output {:?} has shape {shape:?}, not [1, tokens, vocabulary]", self.logits);
        };
        let (rows, vocabulary) = (rows as usize, vocabulary as usize);
        if rows > tokens.len() || rows < keep.min(tokens.len()) || vocabulary == 0 {
            bail!(Unsupported, "the output {:?} has shape {shape:?} for {} tokens", self.logits, tokens.len());
        }
        let tensor =
            if tensor.dtype() == DataType::Float32 { tensor } else { Tensor::from_f32(shape, tensor.to_f32_vec()?)? };
        Ok(Logits { first: tokens.len() - rows, vocabulary, tensor })
    }
}

impl Logits {
    /// The number of tokens there are logits for.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The logits at a position of the window: what the model expects next after it.
    pub fn at(&self, position: usize) -> Result<&[f32]> {
        let begin = (position - self.first) * self.vocabulary;
        Ok(&self.tensor.as_slice::<f32>()?[begin..begin + self.vocabulary])
    }
}

/// The name of the output with logits over a vocabulary at each position.
fn logits_of(model: &Model) -> Result<String> {
    let task = model.card().task;
    if !matches!(task, Task::Generate | Task::Unknown) {
        bail!(Unsupported, "perplexity is for models that write text; this one is for another task ({task:?})");
    }
    let outputs = model.outputs();
    let fits = |info: &&ValueInfo| info.shape.as_ref().is_none_or(|shape| shape.len() == 3);
    match outputs.iter().filter(fits).find(|info| plain(&info.name) == LOGITS) {
        Some(info) => Ok(info.name.clone()),
        None => {
            let names: Vec<&str> = outputs.iter().map(|info| info.name.as_str()).take(8).collect();
            bail!(
                Unsupported,
                "the model has no output `{LOGITS}` of three dimensions, as models that write text have; its outputs \
                 are {}",
                names.join(", ")
            )
        }
    }
}

/// TensorFlow's exports say `input_ids:0`, others `model/input_ids`.
pub fn plain(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or("");
    name.split(':').next().unwrap_or("")
}

fn role(info: &ValueInfo, config: &Config) -> Result<Role> {
    Ok(match plain(&info.name) {
        "input_ids" => Role::Ids,
        "attention_mask" => Role::Mask,
        "token_type_ids" => Role::Types,
        "position_ids" | "cache_position" => Role::Positions,
        "num_logits_to_keep" | "logits_to_keep" => Role::Keep,
        "use_cache_branch" => Role::UseCache,
        name if name.starts_with("past") => Role::Past(empty_cache(info, config)?),
        _ => bail!(Unsupported, "is {}; it is not known what it is for", info.describe()),
    })
}

/// The shape of a cache that holds no token: `[batch, heads, 0, size]`.
fn empty_cache(info: &ValueInfo, config: &Config) -> Result<Vec<i64>> {
    let Some(dims) = info.shape.as_ref().filter(|dims| dims.len() == 4) else {
        bail!(Unsupported, "is {}, not a cache of four dimensions", info.describe());
    };
    let size = |(index, dim): (usize, &Dim)| match (index, dim) {
        (_, Dim::Fixed(size)) => Ok(*size),
        (0, _) => Ok(1),
        (2, _) => Ok(0),
        (1, _) => config.cache_heads(),
        _ => config.head_size(),
    };
    dims.iter().enumerate().map(size).collect()
}

fn fill(info: &ValueInfo, role: &Role, tokens: &[i64], keep: usize) -> Result<Tensor> {
    let count = tokens.len() as i64;
    let values: Vec<i64> = match role {
        Role::Ids => tokens.to_vec(),
        Role::Mask => vec![1; tokens.len()],
        Role::Types => vec![0; tokens.len()],
        Role::Positions => (0..count).collect(),
        Role::Keep => vec![keep as i64],
        Role::UseCache => vec![0],
        Role::Past(_) => Vec::new(),
    };
    let rank = info.shape.as_ref().map_or(2, Vec::len);
    let shape = match role {
        Role::Past(shape) => shape.clone(),
        Role::Keep | Role::UseCache => vec![1; rank],
        _ if rank == 1 => vec![count],
        _ => vec![1, count],
    };
    match info.dtype {
        Some(dtype) if values.is_empty() => Tensor::new(dtype, &shape, Bytes::new()),
        Some(DataType::Int64) => Tensor::from_i64(&shape, values),
        Some(DataType::Int32) => Tensor::from_vec(&shape, values.iter().map(|value| *value as i32).collect()),
        Some(DataType::Float32) => Tensor::from_f32(&shape, values.iter().map(|value| *value as f32).collect()),
        Some(DataType::Bool) => {
            let flags: Vec<bool> = values.iter().map(|value| *value != 0).collect();
            Tensor::from_bools(&shape, &flags)
        }
        _ => bail!(Unsupported, "is {}; no such input is known", info.describe()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn info(name: &str, dtype: DataType, shape: &[i64]) -> ValueInfo {
        let dim = |size: &i64| if *size < 0 { Dim::Symbolic("n".to_owned()) } else { Dim::Fixed(*size) };
        ValueInfo { name: name.to_owned(), dtype: Some(dtype), shape: Some(shape.iter().map(dim).collect()) }
    }

    fn filled(info: &ValueInfo, config: &Config) -> Result<Tensor> {
        fill(info, &role(info, config)?, &[7, 8, 9], 2)
    }

    #[test]
    fn inputs_are_filled_by_their_names() {
        let config = Config::from(json!({ "num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 24 }));
        let ints = |name, shape: &[i64]| {
            filled(&info(name, DataType::Int64, shape), &config).unwrap().as_slice::<i64>().unwrap().to_vec()
        };
        assert_eq!(ints("input_ids", &[-1, -1]), [7, 8, 9]);
        assert_eq!(ints("model/attention_mask:0", &[-1, -1]), [1, 1, 1]);
        assert_eq!(ints("position_ids", &[-1, -1]), [0, 1, 2]);
        assert_eq!(ints("num_logits_to_keep", &[]), [2]);
        let shape = |name, dtype, shape: &[i64]| {
            filled(&info(name, dtype, shape), &config).unwrap().shape().to_vec()
        };
        assert_eq!(shape("cache_position", DataType::Int64, &[-1]), [3]);
        assert_eq!(shape("num_logits_to_keep", DataType::Int64, &[]), [0; 0]);
        assert_eq!(shape("use_cache_branch", DataType::Bool, &[1]), [1]);
        assert_eq!(shape("past_key_values.0.key", DataType::Float16, &[-1, 5, -1, 8]), [1, 5, 0, 8]);
        assert_eq!(shape("past_key_values.0.value", DataType::Float32, &[-1, -1, -1, -1]), [1, 3, 0, 4]);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let config = Config::from(json!({}));
        let message = |name, dtype, shape: &[i64]| filled(&info(name, dtype, shape), &config).unwrap_err().to_string();
        assert!(message("pixel_values", DataType::Float32, &[-1, 3]).contains("float32[n, 3]"));
        assert!(message("past_key_values.0.key", DataType::Float32, &[2, -1]).contains("four dimensions"));
        assert!(message("past_key_values.0.key", DataType::Float32, &[-1, -1, -1, -1]).contains("heads"));
        assert!(message("input_ids", DataType::Uint8, &[-1, -1]).contains("uint8"));
    }
}
