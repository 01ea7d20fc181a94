//! The size ranges requested for a package, and the [`Contract`] that is made of them for a model. The format follows
//! the dynamic shapes of `torch.export`: `{input: {dimension: {name, min, max}}}`. Dimensions with equal names have
//! equal sizes. Both bounds are inclusive.

use crate::error::{Context, Result, bail, error};
use crate::inputs::{is_named_as_tokens, is_past};
use crate::limits;
use crate::model::contract::{Contract, InputShape, Range, Size, describe, span};
use crate::model::names::meaningful;
use crate::model::{Dim, ValueInfo};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// The requested ranges by input (name, or index as a text) and index of the dimension.
pub type Asked = BTreeMap<String, BTreeMap<usize, Range>>;

/// Returns the ranges in a text like `{"x": {"0": {"name": "batch", "min": 1, "max": 8}}}`. Fails with
/// [`crate::error::Kind::InvalidArgument`] for other texts. Names and bounds are checked by [`contract`].
pub fn parse(json: &str) -> Result<Asked> {
    let damaged = |what: String| error!(InvalidArgument, "dynamic shapes: {what}");
    let value: Value = serde_json::from_str(json).map_err(|e| damaged(format!("not JSON: {e}")))?;
    let Some(inputs) = value.as_object() else { return Err(damaged("not an object with inputs".to_owned())) };
    let mut asked = Asked::new();
    for (input, dims) in inputs {
        let place = || format!("dynamic shapes of input {input:?}");
        let Some(dims) = dims.as_object() else {
            return Err(error!(InvalidArgument, "the value is not an object with dimensions").at(place()));
        };
        for (dim, range) in dims {
            let index =
                dim.parse().map_err(|_| error!(InvalidArgument, "{dim:?} is not the index of a dimension (0, 1, ...)"));
            let range = serde_json::from_value(range.clone())
                .map_err(|e| error!(InvalidArgument, "dimension {dim} is not {{name, min, max}}: {e}"));
            asked.entry(input.clone()).or_default().insert(index.at(place)?, range.at(place)?);
        }
    }
    Ok(asked)
}

/// Checks a range. Fails with `InvalidArgument` if its name is invalid, its minimum is negative, or it is empty.
fn check_range(range: &Range) -> Result<()> {
    let mut letters = range.name.chars();
    let begins = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !begins || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') || range.name.len() > limits::NAME_BYTES {
        bail!(InvalidArgument, "{:?} is not a valid dimension name: use letters, digits and _", range.name);
    }
    if range.min < 0 {
        bail!(InvalidArgument, "the minimum size of {:?} is {}, below 0", range.name, range.min);
    }
    if let Some(max) = range.max.filter(|max| *max < range.min) {
        bail!(InvalidArgument, "{:?} has the empty range from {} to {max}", range.name, range.min);
    }
    Ok(())
}

/// Returns a contract of the requested ranges for the model inputs `infos`. Dimensions without a request have the size
/// that the model fixes or, if it fixes none, their size in `example`, which holds shapes by input.
///
/// Fails with [`crate::error::Kind::NotFound`] for an input that the model does not have, and with `InvalidArgument`
/// for other requests that do not fit. These are, for example, a dimension beyond the rank of the input, a range for a
/// size that the model fixes, and two ranges of one name. Others are different ranges for sizes that the model requires
/// to be equal, and an example outside its range.
pub fn contract(infos: &[ValueInfo], asked: &Asked, example: &HashMap<String, Vec<i64>>) -> Result<Contract> {
    let asked = by_name(infos, asked)?;
    let mut ranges: HashMap<&str, &Range> = HashMap::new();
    for (input, dims) in &asked {
        for (index, range) in *dims {
            let place = || format!("dynamic shapes of input {input:?}, dimension {index}");
            check_range(range).at(place)?;
            let first = *ranges.entry(&range.name).or_insert(range);
            if first != range {
                let error = error!(
                    InvalidArgument,
                    "{:?} is {} here and {} elsewhere: a name must have one range",
                    range.name,
                    span(range),
                    span(first)
                );
                return Err(error.at(place()));
            }
        }
    }
    let input = |info: &ValueInfo| {
        let dims = asked.get(info.name.as_str()).copied();
        input_shape(info, dims, example.get(&info.name)).at(|| format!("input {:?}", info.name))
    };
    let contract = Contract { inputs: infos.iter().map(input).collect::<Result<_>>()? };
    agrees(&contract, infos)?;
    Ok(contract)
}

/// Checks that dimensions with one name in the model have one size or range in the contract. Fails with
/// `InvalidArgument` if they do not. Models with the input `use_cache_branch` are not checked.
fn agrees(contract: &Contract, infos: &[ValueInfo]) -> Result<()> {
    if infos.iter().any(|info| info.name == "use_cache_branch") {
        return Ok(());
    }
    let infos = meaningful(infos);
    let mut seen: HashMap<&str, (&Size, &str, usize)> = HashMap::new();
    for (info, input) in infos.iter().zip(&contract.inputs) {
        let (Some(dims), Some(sizes)) = (&info.shape, &input.dims) else { continue };
        for (index, (dim, size)) in dims.iter().zip(sizes).enumerate() {
            let Dim::Symbolic(name) = dim else { continue };
            if name.is_empty() {
                continue;
            }
            let (first, other, at) = *seen.entry(name).or_insert((size, &input.name, index));
            if first != size {
                bail!(
                    InvalidArgument,
                    "the model requires dimension {index} of input {:?} and dimension {at} of input {other:?} to be \
                     equal ({name:?}), but one is {} and the other {}",
                    input.name,
                    describe(size),
                    describe(first)
                );
            }
        }
    }
    Ok(())
}

/// Returns the requested ranges by the name of the input.
fn by_name<'a>(infos: &'a [ValueInfo], asked: &'a Asked) -> Result<BTreeMap<&'a str, &'a BTreeMap<usize, Range>>> {
    let mut named = BTreeMap::new();
    for (key, dims) in asked {
        let found = infos.iter().find(|info| info.name == *key);
        let found = found.or_else(|| key.parse::<usize>().ok().and_then(|index| infos.get(index)));
        let Some(info) = found else {
            let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
            bail!(NotFound, "dynamic shapes: there is no input {key:?}; the inputs are {}", names.join(", "));
        };
        if named.insert(info.name.as_str(), dims).is_some() {
            bail!(InvalidArgument, "dynamic shapes: input {:?} is given by name and by position", info.name);
        }
    }
    Ok(named)
}

fn input_shape(
    info: &ValueInfo,
    asked: Option<&BTreeMap<usize, Range>>,
    example: Option<&Vec<i64>>,
) -> Result<InputShape> {
    let dtype = info.dtype.map(|dtype| dtype.name().to_owned());
    let Some(shape) = &info.shape else {
        if asked.is_some_and(|asked| !asked.is_empty()) {
            bail!(InvalidArgument, "the model does not declare the rank, so dimensions cannot have ranges");
        }
        return Ok(InputShape { name: info.name.clone(), dtype, dims: None });
    };
    if let Some(index) = asked.and_then(|asked| asked.keys().find(|index| **index >= shape.len())) {
        bail!(InvalidArgument, "dimension {index} does not exist; there are {} (from 0)", shape.len());
    }
    if example.is_some_and(|example| example.len() != shape.len()) {
        bail!(InvalidArgument, "the example has another number of dimensions than the model's {}", shape.len());
    }
    let size = |(index, dim): (usize, &Dim)| -> Result<Size> {
        let value = example.map(|example| example[index]);
        let Some(range) = asked.and_then(|asked| asked.get(&index)) else {
            return match (dim, value) {
                (Dim::Fixed(size), None) => Ok(Size::Fixed(*size)),
                (Dim::Fixed(size), Some(value)) if *size != value => {
                    bail!(
                        InvalidArgument,
                        "dimension {index} of the example is {value}, but the model fixes it at {size}"
                    )
                }
                (_, Some(value)) => Ok(Size::Fixed(value)),
                (Dim::Symbolic(_), None) => {
                    bail!(InvalidArgument, "dimension {index} has neither a range nor a size in the example")
                }
            };
        };
        if let Dim::Fixed(size) = dim {
            bail!(InvalidArgument, "dimension {index} cannot be {}: the model fixes it at {size}", span(range));
        }
        if let Some(value) = value.filter(|v| *v < range.min || range.max.is_some_and(|max| *v > max)) {
            bail!(InvalidArgument, "dimension {index} of the example is {value}, outside {}", span(range));
        }
        Ok(Size::Range(range.clone()))
    };
    let dims = shape.iter().enumerate().map(size).collect::<Result<_>>()?;
    Ok(InputShape { name: info.name.clone(), dtype, dims: Some(dims) })
}

/// Returns the ranges for `--dynamic`. A dimension that the model leaves open becomes `batch`, from `batch.0` to
/// `batch.1`, if it is an unnamed first dimension, or has the name of the first dimension of the first input in which
/// that dimension is open. Other open dimensions accept sizes from 1, or 0 in a KV cache. In token inputs and KV
/// caches, their maximum is `longest`, the maximum length of a text (`None` for no limit); in other inputs, they have
/// no maximum. Inputs with ranges in `given` get no further ranges. Ranges of one name, except `batch`, are widened to
/// one range.
pub fn all_open(infos: &[ValueInfo], batch: (i64, i64), longest: Option<i64>, given: &Asked) -> Asked {
    let infos = &meaningful(infos)[..];
    let first = |info: &ValueInfo| match info.shape.as_ref().and_then(|s| s.first()) {
        Some(Dim::Symbolic(name)) => Some(name.clone()),
        _ => None,
    };
    let rows: Vec<String> = infos.iter().filter_map(first).take(1).filter(|name| !name.is_empty()).collect();
    let mut asked = given.clone();
    for (position, info) in infos.iter().enumerate() {
        if given.contains_key(&info.name) || given.contains_key(&position.to_string()) {
            continue;
        }
        for (index, dim) in info.shape.iter().flatten().enumerate() {
            let Dim::Symbolic(symbol) = dim else { continue };
            let is_batch = rows.contains(symbol) || (symbol.is_empty() && index == 0);
            let range = if is_batch {
                Range { name: "batch".to_owned(), min: batch.0, max: Some(batch.1) }
            } else {
                let name = identifier(symbol, position, index);
                let cache = is_past(&info.name);
                let text = is_named_as_tokens(&info.name);
                let min = if cache { 0 } else { 1 };
                Range { name, min, max: longest.filter(|_| text || cache) }
            };
            asked.entry(info.name.clone()).or_default().insert(index, range);
        }
    }
    level(infos, &mut asked);
    asked
}

/// Gives all dimensions with one name, except `batch`, one range that contains all their ranges. A length, for example,
/// may belong to texts and to caches, with different limits.
fn level(infos: &[ValueInfo], asked: &mut Asked) {
    let mut widest: HashMap<String, Range> = HashMap::new();
    for range in asked.values().flat_map(BTreeMap::values) {
        let known = widest.entry(range.name.clone()).or_insert_with(|| range.clone());
        known.min = known.min.min(range.min);
        known.max = known.max.zip(range.max).map(|(a, b)| a.max(b));
    }
    let open = |name: &String| infos.iter().any(|info| info.name == *name);
    for (_, dims) in asked.iter_mut().filter(|(name, _)| open(name)) {
        for range in dims.values_mut() {
            if let Some(known) = widest.get(&range.name).filter(|_| range.name != "batch") {
                *range = known.clone();
            }
        }
    }
}

/// Returns a symbol of the model as a valid name in a contract: `past_length + 1` becomes `past_length___1`. An empty
/// symbol is named after the position of the input and the index of the dimension, and `batch` becomes `batch_`.
fn identifier(symbol: &str, position: usize, index: usize) -> String {
    let clean: String = symbol.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match clean.chars().next() {
        None => format!("input{position}_dim{index}"),
        Some(c) if c.is_ascii_digit() => format!("_{clean}"),
        Some(_) if clean == "batch" => "batch_".to_owned(),
        Some(_) => clean,
    }
}
