//! Rows of tokens as inputs of a model, with empty caches: the inputs of distillation.

use super::role::Role;
use super::window::empty_cache;
use crate::error::{Result, bail};
use crate::model::{Model, Task, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::runtime::Tensor;
use crate::text::Decoder;
use crate::text::decoder::CachePair;

/// The inputs of a model that reads rows of tokens, and their roles.
pub struct Feed {
    inputs: Vec<(ValueInfo, Role)>,
    /// Inputs of the cache, which are empty.
    caches: Vec<CachePair>,
    /// Name of the input of merged exports that selects whether there is a past.
    branch: Option<String>,
    /// Input for the number of requested columns of logits.
    logits_to_keep: Option<ValueInfo>,
}

impl Feed {
    /// Returns the inputs of a model that reads rows of tokens. Fails with `Unsupported` if the model has no input of
    /// token ids, or has an input that is neither of tokens nor of the cache.
    pub fn new(model: &Model) -> Result<Feed> {
        let decoder = match model.card().task {
            Task::Generate => Some(Decoder::of(model)?),
            _ => Decoder::of(model).ok(),
        };
        let mut feed = Feed { inputs: Vec::new(), caches: Vec::new(), branch: None, logits_to_keep: None };
        let (mut cached, mut kept) = (Vec::new(), None);
        if let Some(decoder) = decoder {
            feed.branch = decoder.use_cache_branch;
            kept = decoder.logits_to_keep.map(|port| port.name);
            cached = decoder.cache;
        }
        for info in model.inputs() {
            if cached.iter().any(|pair| pair.past == info.name) || feed.branch.as_ref() == Some(&info.name) {
                continue;
            }
            match Role::of(&info) {
                _ if kept.as_ref() == Some(&info.name) => feed.logits_to_keep = Some(info),
                Some(role) => feed.inputs.push((info, role)),
                None => bail!(
                    Unsupported,
                    "the input {:?} ({}) is not an input of a text model: texts cannot be its only inputs",
                    info.name,
                    info.describe()
                ),
            }
        }
        if !feed.inputs.iter().any(|(_, role)| *role == Role::Ids) {
            bail!(Unsupported, "the model has no input of token ids, so its inputs cannot be made from texts");
        }
        feed.caches = cached;
        Ok(feed)
    }

    /// Returns the feed without the inputs whose names are not in `names`, because a graph no longer has them.
    pub fn only(mut self, names: &[&str]) -> Feed {
        let there = |name: &String| names.contains(&name.as_str());
        self.inputs.retain(|(info, _)| there(&info.name));
        self.caches.retain(|pair| there(&pair.past));
        self.branch = self.branch.filter(there);
        self.logits_to_keep = self.logits_to_keep.filter(|info| there(&info.name));
        self
    }

    /// Returns the inputs for `rows` rows of `columns` tokens each. `ids` and `keep` are row-major; `keep` says which
    /// tokens are not padding. Positions count from 0 in each row, and the logits of all columns are requested. Fails
    /// like [`Tensor::new`] for lists of another length, and with `Unsupported` for inputs of types other than int64,
    /// int32, float32 and bool.
    pub fn tensors(&self, [rows, columns]: [usize; 2], ids: &[i64], keep: &[bool]) -> Result<Vec<(String, Tensor)>> {
        let mut made = Vec::with_capacity(self.inputs.len() + self.caches.len() + 1);
        for (info, role) in &self.inputs {
            let values: Vec<i64> = match role {
                Role::Ids => ids.to_vec(),
                Role::Mask => keep.iter().map(|keep| i64::from(*keep)).collect(),
                Role::Types => vec![0; ids.len()],
                Role::Positions => (0..rows).flat_map(|_| 0..columns as i64).collect(),
            };
            made.push((info.name.clone(), of_type(info, &[rows as i64, columns as i64], values)?));
        }
        for pair in &self.caches {
            made.push((pair.past.clone(), empty_cache(pair, rows)?));
        }
        if let Some(branch) = &self.branch {
            made.push((branch.clone(), Tensor::from_bools(&[1], &[false])?));
        }
        if let Some(info) = &self.logits_to_keep {
            let shape = vec![1; info.shape.as_ref().map_or(0, Vec::len)];
            made.push((info.name.clone(), of_type(info, &shape, vec![columns as i64])?));
        }
        Ok(made)
    }
}

fn of_type(info: &ValueInfo, shape: &[i64], values: Vec<i64>) -> Result<Tensor> {
    match info.dtype {
        Some(DataType::Int32) => Tensor::from_vec(shape, values.into_iter().map(|v| v as i32).collect()),
        Some(DataType::Bool) => Tensor::from_bools(shape, &values.iter().map(|v| *v != 0).collect::<Vec<_>>()),
        Some(DataType::Float32) => Tensor::from_f32(shape, values.into_iter().map(|v| v as f32).collect()),
        Some(DataType::Int64) => Tensor::from_i64(shape, values),
        _ => bail!(Unsupported, "the input {:?} is {}, which is not supported", info.name, info.describe()),
    }
}
