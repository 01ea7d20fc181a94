//! Two assignments of sizes to the open (dynamic) dimensions of a model.

use super::axes::{Dim, Int};
use crate::graph::constants;
use crate::model::Model;
use crate::model::names::says_nothing;
use crate::onnx::proto::{GraphProto, TensorProto, ValueInfoProto};
use crate::text::Decoder;
use std::collections::{HashMap, HashSet};

/// The pairs of primes for open sizes: large enough for convolutions, and with distinct products.
const PRIMES: [Dim; 12] = [
    [67, 71],
    [73, 79],
    [83, 89],
    [97, 101],
    [103, 107],
    [109, 113],
    [127, 131],
    [137, 139],
    [149, 151],
    [157, 163],
    [167, 173],
    [179, 181],
];

/// The pairs of larger primes for open sizes, for models with larger windows, such as those of raw audio.
const LONG: [Dim; 12] = [
    [100_003, 100_019],
    [100_043, 100_049],
    [100_057, 100_069],
    [100_103, 100_109],
    [100_129, 100_151],
    [100_153, 100_169],
    [100_183, 100_189],
    [100_193, 100_207],
    [100_213, 100_237],
    [100_267, 100_271],
    [100_279, 100_291],
    [100_297, 100_313],
];

/// The maximum number of elements of an integer value that are followed.
pub const INTS: usize = 64;

/// The sizes of open dimensions chosen so far, by name.
pub struct Sizes<'m> {
    graph: &'m GraphProto,
    declared: HashMap<&'m str, &'m ValueInfoProto>,
    named: HashMap<String, Dim>,
    next: usize,
    /// Whether the sizes are those of [`LONG`]. First dimensions are excepted, because they are mostly a batch.
    long: bool,
    /// Names of open dimensions other than the first.
    inner: HashSet<String>,
    /// Names of the values of a decoder's cache, with the dimension of their heads.
    cache: HashMap<String, usize>,
}

impl<'m> Sizes<'m> {
    /// Returns an assignment in which only the sizes of a decoder's cache are chosen.
    pub fn new(model: &'m Model, long: bool) -> Sizes<'m> {
        let graph = model.graph();
        let infos = graph.value_info.iter().chain(&graph.output);
        let declared = infos.filter_map(|info| Some((info.name.as_deref()?, info))).collect();
        let inner = graph.input.iter().filter_map(dims_of).flat_map(|dims| dims.into_iter().skip(1));
        let inner = inner.filter_map(|(_, name)| name).collect();
        let mut sizes = Sizes { graph, declared, named: HashMap::new(), next: 0, long, inner, cache: HashMap::new() };
        if let Ok(decoder) = Decoder::of(model) {
            sizes.decoder(&decoder);
        }
        sizes
    }

    /// Records the values of a decoder's cache, and sets the length of its attention mask to the sum of the lengths of
    /// the past and the new tokens, whatever the name of that dimension is.
    fn decoder(&mut self, decoder: &Decoder) {
        for pair in &decoder.cache {
            self.cache.insert(pair.past.clone(), pair.batch + 1);
            self.cache.insert(pair.present.clone(), pair.batch + 1);
        }
        let param = |name: &str, at: usize| {
            let info = self.graph.input.iter().find(|i| i.name.as_deref() == Some(name))?;
            dims_of(info)?.get(at)?.1.clone()
        };
        let new = param(&decoder.input_ids.name, 1);
        let past = decoder.cache.first().and_then(|pair| param(&pair.past, pair.sequence));
        let all = decoder.attention_mask.as_ref().and_then(|mask| param(&mask.name, 1));
        if let (Some(new), Some(past), Some(all)) = (new, past, all) {
            let (a, b) = (self.named(&new, 1), self.named(&past, 1));
            if all != new && all != past {
                self.named.insert(all, [a[0] + b[0], a[1] + b[1]]);
            }
        }
    }

    /// Returns the dimension of the heads of a value; `None` if it does not belong to a decoder's cache.
    pub fn cache(&self, name: &str) -> Option<usize> {
        self.cache.get(name).copied()
    }

    /// Returns the sizes of an intermediate value or output as the model declares them; `None` if the model does not
    /// declare them.
    pub fn declared(&mut self, name: &str) -> Option<Vec<Dim>> {
        let info = *self.declared.get(name)?;
        self.of(info)
    }

    /// Returns the sizes of a declaration; `None` if it has no shape.
    pub fn of(&mut self, info: &ValueInfoProto) -> Option<Vec<Dim>> {
        let dims = dims_of(info)?;
        let one = |(at, (size, name)): (usize, (Option<i64>, Option<String>))| match (size, name) {
            (Some(size), _) => [size, size],
            (None, Some(name)) if !means_nothing(&name) => self.sum(&name, at),
            (None, _) => self.fresh(at),
        };
        Some(dims.into_iter().enumerate().map(one).collect())
    }

    /// Returns the size of a name, or the sum of the sizes for a name of the form `a + b`, as some exporters write.
    fn sum(&mut self, name: &str, at: usize) -> Dim {
        if self.named.contains_key(name) || !name.contains('+') {
            return self.named(name, at);
        }
        let mut sum = [0, 0];
        for part in name.split('+').map(str::trim) {
            let part = part.parse().map_or_else(|_| self.named(part, at), |size: i64| [size, size]);
            sum = [sum[0] + part[0], sum[1] + part[1]];
        }
        sum
    }

    fn named(&mut self, name: &str, at: usize) -> Dim {
        if let Some(known) = self.named.get(name) {
            return *known;
        }
        let dim = self.fresh(if self.inner.contains(name) { at.max(1) } else { at });
        self.named.insert(name.to_owned(), dim);
        dim
    }

    /// Returns a pair of sizes that is not used yet, as long as there are primes, for dimension `at` of a value.
    fn fresh(&mut self, at: usize) -> Dim {
        self.next += 1;
        let primes = if self.long && at > 0 { &LONG } else { &PRIMES };
        primes[(self.next - 1) % primes.len()]
    }
}

/// Returns whether a name is one that some exporters give to every open dimension, so that it does not mean equal
/// sizes.
fn means_nothing(name: &str) -> bool {
    matches!(name.trim(), "" | "?" | "-1" | "None" | "none" | "unk" | "dynamic")
}

/// Returns the size or the name of each dimension; `None` if no shape is declared.
fn dims_of(info: &ValueInfoProto) -> Option<Vec<(Option<i64>, Option<String>)>> {
    let tensor = info.value_type.as_deref()?.tensor_type.as_deref()?;
    let dim = |d: &crate::onnx::proto::DimensionProto| {
        (d.dim_value.filter(|v| *v >= 0), d.dim_param.clone().filter(|name| !says_nothing(name)))
    };
    Some(tensor.shape.as_deref()?.dim.iter().map(dim).collect())
}

/// Returns the elements of a small integer tensor; `None` for others.
pub fn ints_of(tensor: &TensorProto) -> Option<Vec<Int>> {
    let count: i64 = tensor.dims.iter().try_fold(1i64, |n, d| n.checked_mul(*d))?;
    if !(0..=INTS as i64).contains(&count) {
        return None;
    }
    let values = constants::whole_numbers(tensor)?;
    Some(values.into_iter().map(|v| Int::constant([v, v])).collect())
}
