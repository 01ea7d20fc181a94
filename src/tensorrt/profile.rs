//! Optimization profiles: the minimum, optimum and maximum shape of each input with dynamic sizes.

use super::options::{GivenProfile, Shapes, Span, TensorRtOptions};
use crate::error::{Context, Result, bail};
use crate::inputs::{is_named_as_tokens, is_past};
use crate::limits;
use crate::model::contract::{Contract, Size};
use crate::model::names::meaningful;
use crate::model::{Dim, Model, ValueInfo};
use crate::onnx::dtype::DataType;
use std::collections::HashMap;

/// The optimization profiles of an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profiles {
    /// Names of the inputs with dynamic sizes, in the model's order, with their ranks (0 for an unknown rank).
    pub inputs: Vec<(String, usize)>,
    /// Minimum, optimum and maximum shape of each of `inputs`, for each profile; no profiles if `inputs` is empty.
    pub shapes: Vec<Vec<[Vec<i64>; 3]>>,
    /// Names of integer inputs of rank 0, 1 or unknown, which the model may use as sizes, with their minimum, optimum
    /// and maximum values.
    pub values: Vec<(String, [i64; 3])>,
}

impl Profiles {
    /// Returns the profiles that `options` describe for `model`. The size of a dynamic dimension is the first of these
    /// that is set:
    ///
    /// - the shapes that the profile has for this input,
    /// - the entry of `dimensions` with the dimension's name in the model,
    /// - the size of a dimension of the same name in other shapes of the profile,
    /// - `batch_size`, `sequence_length`, or the entries `batch`, `sequence` and `past` of `dimensions`,
    /// - the contract of a package.
    ///
    /// A past has length 0 by default if the sequence length is known.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] if a size is not set, a shape does not fit the model, or
    /// minimum, optimum and maximum do not ascend; the message names the input. Fails with `NotFound` for an input that
    /// the model does not have, and with `Unsupported` for an input of more than 8 dimensions.
    pub fn new(model: &Model, options: &TensorRtOptions) -> Result<Profiles> {
        let infos = meaningful(&model.inputs());
        let contract = model.card().contract.clone();
        let usual = [GivenProfile::default()];
        let given = if options.profiles.is_empty() { &usual[..] } else { &options.profiles };
        for (name, _) in given.iter().flat_map(|p| p.min.iter().chain(&p.opt).chain(&p.max)) {
            if !infos.iter().any(|info| info.name == *name) {
                let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
                bail!(NotFound, "there is no input {name:?}; the inputs are {}", names.join(", "));
            }
        }
        let varying: Vec<&ValueInfo> = infos.iter().filter(|info| varies(info)).collect();
        let inputs = varying.iter().map(|info| (info.name.clone(), info.shape.as_ref().map_or(0, Vec::len))).collect();
        let mut shapes = Vec::new();
        for (index, profile) in given.iter().enumerate() {
            let found = one(&varying, profile, options, contract.as_deref());
            shapes.push(found.at(|| if given.len() > 1 { format!("profile {index}") } else { "profile".to_owned() })?);
        }
        if varying.is_empty() {
            shapes.clear();
        }
        let longest = shapes.iter().flatten().flat_map(|three| &three[2]).copied().max().unwrap_or(1).max(1);
        let number = |info: &&ValueInfo| {
            matches!(info.dtype, Some(DataType::Int64 | DataType::Int32))
                && info.shape.as_ref().is_none_or(|s| s.len() < 2)
        };
        // For inputs such as `num_logits_to_keep`, the values are from 1 to the longest size.
        let three = |info: &ValueInfo| match options.dimensions.iter().find(|(name, _)| *name == info.name) {
            Some((_, span)) => (info.name.clone(), [span.min, span.opt, span.max]),
            None => (info.name.clone(), [1, 1, longest]),
        };
        let values = infos.iter().filter(number).map(three).collect();
        Ok(Profiles { inputs, shapes, values })
    }

    /// Returns the profiles as JSON: `[{"ids": {"min": [1, 16], ...}}]`.
    pub fn to_json(&self) -> serde_json::Value {
        let profile = |shapes: &Vec<[Vec<i64>; 3]>| {
            let input = |((name, _), [min, opt, max]): (&(String, usize), &[Vec<i64>; 3])| {
                (name.clone(), serde_json::json!({ "min": min, "opt": opt, "max": max }))
            };
            serde_json::Value::Object(self.inputs.iter().zip(shapes).map(input).collect())
        };
        self.shapes.iter().map(profile).collect()
    }

    /// Returns the optimum shapes of the first profile, for a sample; empty if there are no profiles.
    pub fn usual(&self) -> Shapes {
        let shapes = self.shapes.first().map_or(&[][..], Vec::as_slice);
        self.inputs.iter().zip(shapes).map(|((name, _), s)| (name.clone(), s[1].clone())).collect()
    }
}

fn varies(info: &ValueInfo) -> bool {
    info.shape.as_ref().is_none_or(|dims| dims.iter().any(|dim| matches!(dim, Dim::Symbolic(_))))
}

fn one(
    varying: &[&ValueInfo],
    given: &GivenProfile,
    options: &TensorRtOptions,
    contract: Option<&Contract>,
) -> Result<Vec<[Vec<i64>; 3]>> {
    let mut known: HashMap<String, Span> = options.dimensions.iter().cloned().collect();
    let whole = |info: &ValueInfo| -> Result<Option<[Vec<i64>; 3]>> {
        let of = |list: &Shapes| list.iter().find(|(name, _)| *name == info.name).map(|(_, shape)| shape.clone());
        let (min, opt, max) = (of(&given.min), of(&given.opt), of(&given.max));
        let Some(usual) = opt.clone().or_else(|| max.clone()).or_else(|| min.clone()) else { return Ok(None) };
        Ok(Some([min.unwrap_or_else(|| usual.clone()), usual.clone(), max.unwrap_or(usual)]))
    };
    // Given shapes come first, because all dimensions of one name have one size.
    for info in varying {
        let place = || format!("input {:?}", info.name);
        let (Some(shapes), Some(dims)) = (whole(info)?, &info.shape) else { continue };
        check(info, &shapes).at(place)?;
        for (index, dim) in dims.iter().enumerate() {
            if let Dim::Symbolic(name) = dim
                && !name.is_empty()
            {
                let [min, opt, max] = [0, 1, 2].map(|which| shapes[which][index]);
                known.entry(name.clone()).or_insert(Span { min, opt, max });
            }
        }
    }
    let mut all = Vec::new();
    for info in varying {
        let place = || format!("input {:?}", info.name);
        if let Some(shapes) = whole(info)? {
            all.push(shapes);
            continue;
        }
        let Some(dims) = &info.shape else {
            bail!(InvalidArgument, "input {:?} has no declared rank: set its shapes", info.name);
        };
        let mut shapes = [vec![], vec![], vec![]];
        for (index, dim) in dims.iter().enumerate() {
            let span = match dim {
                Dim::Fixed(size) => Span { min: *size, opt: *size, max: *size },
                Dim::Symbolic(symbol) => size_of(info, index, symbol, &known, options, contract).at(place)?,
            };
            for (shape, size) in shapes.iter_mut().zip([span.min, span.opt, span.max]) {
                shape.push(size);
            }
        }
        check(info, &shapes).at(place)?;
        all.push(shapes);
    }
    Ok(all)
}

/// The meaning of a dimension, from its name and position.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Role {
    Batch,
    Sequence,
    Past,
    Total,
    Unknown,
}

fn role(info: &ValueInfo, index: usize, symbol: &str) -> Role {
    let (symbol, input) = (symbol.to_lowercase(), info.name.to_lowercase());
    let is = |words: &[&str]| words.iter().any(|word| symbol.contains(word));
    if is(&["batch"]) {
        return Role::Batch;
    }
    if is(&["past", "cache"]) {
        return if symbol.contains('+') { Role::Total } else { Role::Past };
    }
    if is(&["total"]) {
        return Role::Total;
    }
    if index > 0 && is_past(&input) {
        return Role::Past;
    }
    if is(&["seq", "len", "time", "token"]) {
        return Role::Sequence;
    }
    if index == 0 {
        return Role::Batch;
    }
    if index == 1 && is_named_as_tokens(&input) { Role::Sequence } else { Role::Unknown }
}

fn size_of(
    info: &ValueInfo,
    index: usize,
    symbol: &str,
    known: &HashMap<String, Span>,
    options: &TensorRtOptions,
    contract: Option<&Contract>,
) -> Result<Span> {
    if let Some(span) = known.get(symbol).filter(|_| !symbol.is_empty()) {
        return Ok(*span);
    }
    let fixed = |size: i64| (size > 0).then_some(Span { min: size, opt: size, max: size });
    let batch = || fixed(options.batch_size).or_else(|| known.get("batch").copied());
    let sequence = || fixed(options.sequence_length).or_else(|| known.get("sequence").copied());
    // By default, the length of the cache is 0 if the sequence length is known.
    let past = || {
        let none = Span { min: 0, opt: 0, max: 0 };
        known.get("past").copied().or_else(|| sequence().map(|_| none))
    };
    let found = match role(info, index, symbol) {
        Role::Batch => batch(),
        Role::Sequence => sequence(),
        Role::Past => past(),
        Role::Total => {
            sequence().zip(past()).map(|(a, b)| Span { min: a.min + b.min, opt: a.opt + b.opt, max: a.max + b.max })
        }
        Role::Unknown => None,
    };
    let agreed = || {
        let input = contract?.inputs.iter().find(|input| input.name == info.name)?;
        match input.dims.as_ref()?.get(index)? {
            Size::Fixed(size) => Some(Span { min: *size, opt: *size, max: *size }),
            Size::Range(range) => range.max.map(|max| Span { min: range.min, opt: max, max }),
        }
    };
    if let Some(span) = found.or_else(agreed) {
        return Ok(span);
    }
    let named = if symbol.is_empty() { String::new() } else { format!(" ({symbol:?})") };
    let example = if symbol.is_empty() { "" } else { ", or the sizes of that name" };
    bail!(
        InvalidArgument,
        "dimension {index}{named} of {} is dynamic, and no profile sets its range: pass the batch size, the \
         sequence length, or minimum, optimal and maximum shapes{example}",
        info.describe()
    )
}

/// Fails with `InvalidArgument` for shapes that do not fit the model or do not ascend, and with `Unsupported` for more
/// than 8 dimensions.
fn check(info: &ValueInfo, [min, opt, max]: &[Vec<i64>; 3]) -> Result<()> {
    for shape in [min, opt, max] {
        let Some(dims) = &info.shape else { continue };
        let fits = |(dim, size): (&Dim, &i64)| matches!(dim, Dim::Symbolic(_)) || *dim == Dim::Fixed(*size);
        if dims.len() != shape.len() || !dims.iter().zip(shape).all(fits) {
            bail!(InvalidArgument, "the shape {shape:?} does not fit {}", info.describe());
        }
    }
    if min.len() > 8 || min.len() > limits::TENSOR_RANK {
        bail!(Unsupported, "the input has {} dimensions; TensorRT supports 8", min.len());
    }
    let up = min.len() == opt.len()
        && opt.len() == max.len()
        && (0..min.len()).all(|i| 0 <= min[i] && min[i] <= opt[i] && opt[i] <= max[i]);
    if !up {
        bail!(InvalidArgument, "the shapes {min:?}, {opt:?}, {max:?} do not ascend");
    }
    Ok(())
}
