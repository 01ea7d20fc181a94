//! [`Contract`]: which shapes the inputs of a packaged model may have, and the check of it.
//!
//! The meaning is that of `torch.export`'s `Dim(name, min, max)`: a dimension is one size, or any from `min` to `max`;
//! dimensions of one name have one size in a run. Other than there, `min` is kept to the letter: a size of 1 is refused
//! where the least is 2.

use crate::error::{Result, bail, error};
use crate::model::{Dim, ValueInfo};
use crate::onnx::dtype::DataType;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Longest name of a dimension.
const NAME_BYTES: usize = 64;

/// A dimension of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// Always this.
    Fixed(i64),
    /// Any size in the range.
    Dynamic(Range),
}

/// The sizes that a dimension may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Dimensions of the same name have the same size. Empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The least.
    #[serde(default)]
    pub min: i64,
    /// The most; `None` is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

/// An input and its dimensions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputContract {
    /// Its name.
    pub name: String,
    /// Type of its elements, by the name that reports use.
    pub dtype: String,
    /// Its dimensions; `None` where the model does not even say how many there are.
    pub dims: Option<Vec<Size>>,
}

/// The shapes that all inputs may have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// In the order of the model.
    pub inputs: Vec<InputContract>,
}

/// What a caller asks for: ranges by input and dimension.
///
/// As JSON `{"input_ids": {"0": {"name": "batch", "min": 1, "max": 64}}}`; an input goes by its name or its number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DynamicShapes(BTreeMap<String, BTreeMap<usize, Range>>);

impl DynamicShapes {
    /// Reads the JSON form. [`crate::error::Kind::InvalidArgument`], with the input and the dimension, if it is none.
    pub fn from_json(text: &str) -> Result<DynamicShapes> {
        let parsed: Value =
            serde_json::from_str(text).map_err(|e| error!(InvalidArgument, "dynamic shapes are not JSON: {e}"))?;
        let object = |value: &Value, what: &str| -> Result<Map<String, Value>> {
            let found = value.as_object().cloned();
            found.ok_or_else(|| error!(InvalidArgument, "dynamic shapes: {what} is not an object"))
        };
        let mut shapes = DynamicShapes::default();
        for (input, dims) in object(&parsed, "the whole")? {
            for (dim, range) in object(&dims, &format!("input {input:?}"))? {
                let Ok(index) = dim.parse::<usize>() else {
                    bail!(InvalidArgument, "dynamic shapes: input {input:?}: {dim:?} is not the number of a dimension");
                };
                let keys = object(&range, &format!("input {input:?}, dimension {index}"))?;
                if let Some(key) = keys.keys().find(|key| !["name", "min", "max"].contains(&key.as_str())) {
                    bail!(InvalidArgument, "dynamic shapes: input {input:?}, dimension {index}: {key:?} is not known");
                }
                let range: Range = serde_json::from_value(range)
                    .map_err(|e| error!(InvalidArgument, "dynamic shapes: input {input:?}, dimension {index}: {e}"))?;
                shapes.set(&input, index, range);
            }
        }
        Ok(shapes)
    }

    /// Lets a dimension be any size of a range. `input` is a name, or a number in the model's order.
    pub fn set(&mut self, input: &str, dim: usize, range: Range) {
        self.0.entry(input.to_owned()).or_default().insert(dim, range);
    }
}

impl Contract {
    /// The shapes that `inputs` allow of themselves: what they leave open is any size, by the names they give.
    pub fn open(inputs: &[ValueInfo]) -> Contract {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => Size::Fixed(*size),
            Dim::Symbolic(name) => Size::Dynamic(Range { name: name.clone(), min: 0, max: None }),
        };
        let input = |info: &ValueInfo| InputContract {
            name: info.name.clone(),
            dtype: info.dtype.map_or("unknown", DataType::name).to_owned(),
            dims: info.shape.as_ref().map(|dims| dims.iter().map(size).collect()),
        };
        Contract { inputs: inputs.iter().map(input).collect() }
    }

    /// Narrows the shapes to what is asked for. A dimension that the model calls by the same name as one that is asked
    /// for gets its range, too.
    ///
    /// [`crate::error::Kind::InvalidArgument`] for an input or dimension that is not there, a name that is none, a range
    /// without a size, one name with two ranges, and a range for a dimension that is always one size.
    pub fn narrow(&mut self, asked: &DynamicShapes) -> Result<()> {
        let mut by_name: BTreeMap<String, Range> = BTreeMap::new();
        // What the model calls a dimension, and the range that it got.
        let mut of_symbol: BTreeMap<String, Range> = BTreeMap::new();
        for (input, dims) in &asked.0 {
            let at = self.position(input)?;
            for (index, range) in dims {
                let place = || format!("input {:?}, dimension {index}", self.inputs[at].name);
                check_range(range).map_err(|e| e.at(place()))?;
                if !range.name.is_empty() {
                    let known = by_name.entry(range.name.clone()).or_insert_with(|| range.clone());
                    if known != range {
                        let (a, b) = (known.shown(), range.shown());
                        bail!(InvalidArgument, "{}: {:?} is {b} here and {a} elsewhere", place(), range.name);
                    }
                }
                match self.size(at, *index)? {
                    Size::Fixed(size) => {
                        bail!(InvalidArgument, "{}: the model always has {size} there", place());
                    }
                    Size::Dynamic(symbol) if !symbol.name.is_empty() => {
                        let known = of_symbol.entry(symbol.name.clone()).or_insert_with(|| range.clone());
                        if known != range {
                            bail!(
                                InvalidArgument,
                                "{}: the model calls it {:?} and has it equal to another dimension, which is {} here",
                                place(),
                                symbol.name,
                                known.shown()
                            );
                        }
                    }
                    Size::Dynamic(_) => {}
                }
            }
        }
        for (input, dims) in &asked.0 {
            let at = self.position(input)?;
            for (index, range) in dims {
                if let Some(sizes) = &mut self.inputs[at].dims {
                    sizes[*index] = Size::Dynamic(range.clone());
                }
            }
        }
        for size in self.inputs.iter_mut().filter_map(|input| input.dims.as_mut()).flatten() {
            if let Size::Dynamic(open) = size
                && let Some(range) = of_symbol.get(&open.name)
            {
                *open = range.clone();
            }
        }
        Ok(())
    }

    /// Fixes every dimension that no range was asked for to the size it has in `example`, shapes by the input's name.
    pub fn fix(&mut self, example: &[(String, Vec<i64>)], asked: &DynamicShapes) -> Result<()> {
        let keep: Vec<(usize, usize)> = asked
            .0
            .iter()
            .flat_map(|(input, dims)| dims.keys().map(move |dim| (input, *dim)))
            .map(|(input, dim)| Ok((self.position(input)?, dim)))
            .collect::<Result<_>>()?;
        for (at, input) in self.inputs.iter_mut().enumerate() {
            let Some((_, shape)) = example.iter().find(|(name, _)| *name == input.name) else {
                bail!(InvalidArgument, "input {:?} is not in the example", input.name);
            };
            let dims = input.dims.get_or_insert_with(|| shape.iter().map(|size| Size::Fixed(*size)).collect());
            if dims.len() != shape.len() {
                bail!(
                    InvalidArgument,
                    "input {:?} has {} dimensions, the example {}",
                    input.name,
                    dims.len(),
                    shape.len()
                );
            }
            for (index, (size, given)) in dims.iter_mut().zip(shape).enumerate() {
                if matches!(size, Size::Dynamic(_)) && !keep.contains(&(at, index)) {
                    *size = Size::Fixed(*given);
                }
            }
        }
        Ok(())
    }

    /// Checks the shapes of a run, given by the inputs' names.
    ///
    /// [`crate::error::Kind::InvalidArgument`] naming input, dimension, size and range.
    pub fn check(&self, given: &[(&str, &[i64])]) -> Result<()> {
        let mut sizes: BTreeMap<&str, (i64, &str, usize)> = BTreeMap::new();
        for input in &self.inputs {
            let Some((_, shape)) = given.iter().find(|(name, _)| *name == input.name) else { continue };
            let Some(dims) = &input.dims else { continue };
            if dims.len() != shape.len() {
                bail!(
                    InvalidArgument,
                    "input {:?} has {} dimensions; the package takes {}",
                    input.name,
                    shape.len(),
                    dims.len()
                );
            }
            for (index, (size, got)) in dims.iter().zip(*shape).enumerate() {
                let range = match size {
                    Size::Fixed(wanted) if wanted == got => continue,
                    Size::Fixed(wanted) => {
                        let name = &input.name;
                        bail!(
                            InvalidArgument,
                            "input {name:?}: dimension {index} is {got}; the package takes {wanted}"
                        );
                    }
                    Size::Dynamic(range) => range,
                };
                if *got < range.min || range.max.is_some_and(|max| *got > max) {
                    bail!(
                        InvalidArgument,
                        "input {:?}: dimension {index} is {got}; the package takes {}",
                        input.name,
                        range.shown()
                    );
                }
                if range.name.is_empty() {
                    continue;
                }
                let (known, other, at) = *sizes.entry(&range.name).or_insert((*got, &input.name, index));
                if known != *got {
                    bail!(
                        InvalidArgument,
                        "input {:?}: dimension {index} ({}) is {got}, but dimension {at} of input {other:?} is {known}",
                        input.name,
                        range.name
                    );
                }
            }
        }
        Ok(())
    }

    fn position(&self, input: &str) -> Result<usize> {
        let by_name = self.inputs.iter().position(|known| known.name == input);
        let by_number = || input.parse::<usize>().ok().filter(|number| *number < self.inputs.len());
        by_name.or_else(by_number).ok_or_else(|| {
            let names: Vec<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
            error!(InvalidArgument, "dynamic shapes: there is no input {input:?}; the inputs are {}", names.join(", "))
        })
    }

    fn size(&self, input: usize, dim: usize) -> Result<&Size> {
        let InputContract { name, dims, .. } = &self.inputs[input];
        match dims {
            None => bail!(InvalidArgument, "input {name:?}: the model does not say how many dimensions it has"),
            Some(dims) => dims.get(dim).ok_or_else(|| {
                error!(InvalidArgument, "input {name:?} has {} dimensions, so there is no dimension {dim}", dims.len())
            }),
        }
    }
}

impl Range {
    fn shown(&self) -> String {
        match self.max {
            Some(max) if max == self.min => format!("{max}"),
            Some(max) => format!("{} to {max}", self.min),
            None => format!("{} or more", self.min),
        }
    }
}

fn check_range(range: &Range) -> Result<()> {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = &range.name;
    let named = name.is_empty()
        || (name.len() <= NAME_BYTES && name.chars().all(letters) && !name.starts_with(|c: char| c.is_ascii_digit()));
    if !named {
        bail!(InvalidArgument, "{name:?} is not a name: letters, digits and _, not beginning with a digit");
    }
    if range.min < 0 {
        bail!(InvalidArgument, "min is {}; it must be 0 or more", range.min);
    }
    if let Some(max) = range.max.filter(|max| *max < range.min) {
        bail!(InvalidArgument, "min is {} and max {max}: there is no size between", range.min);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
