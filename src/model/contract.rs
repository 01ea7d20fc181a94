//! The shape contract of a package: the element types and the allowed sizes of its inputs. Sessions of a package check
//! it before every run.

use crate::error::{Error, Result, bail, error};
use crate::onnx::dtype::DataType;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The inputs that a package allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// Inputs of the model, in the order of the model.
    pub inputs: Vec<InputShape>,
}

/// The type and the allowed sizes of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputShape {
    /// Name of the input.
    pub name: String,
    /// Name of the element type; `None` if it is not declared.
    pub dtype: Option<String>,
    /// Allowed size of each dimension; `None` if the rank is not declared.
    pub dims: Option<Vec<Size>>,
}

/// The allowed sizes of a dimension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// A fixed size.
    Fixed(i64),
    /// A range of sizes.
    Range(Range),
}

/// A named range of sizes, including both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Name of the range. Dimensions of one name must have one size in each run, also in different inputs.
    pub name: String,
    /// Minimum size; 0 by default.
    #[serde(default)]
    pub min: i64,
    /// Maximum size; `None` for no limit.
    #[serde(default)]
    pub max: Option<i64>,
}

impl Contract {
    /// Checks the inputs of a run, each given as its name, type and shape. Fails with
    /// [`crate::error::Kind::InvalidArgument`] if a type or a shape is not allowed; the error names input, dimension,
    /// value and range. Fails with `NotFound` for an input that the contract does not have. Inputs that are not in
    /// `given` are not checked.
    pub fn check(&self, given: &[(&str, DataType, &[i64])]) -> Result<()> {
        let mut sizes: HashMap<&str, (i64, &str, usize)> = HashMap::new();
        for (name, dtype, shape) in given {
            let Some(input) = self.inputs.iter().find(|input| input.name == *name) else {
                bail!(NotFound, "the package has no input {name:?}");
            };
            if let Some(wanted) = input.dtype.as_deref().filter(|wanted| *wanted != dtype.name()) {
                bail!(InvalidArgument, "input {name:?} has type {}, but the package expects {wanted}", dtype.name());
            }
            let Some(dims) = &input.dims else { continue };
            if dims.len() != shape.len() {
                let (rank, takes) = (shape.len(), dims.len());
                bail!(
                    InvalidArgument,
                    "input {name:?} has {rank} dimensions {shape:?}, but the package expects {takes}"
                );
            }
            for (index, (size, &value)) in dims.iter().zip(*shape).enumerate() {
                let wrong = |takes: String| -> Error {
                    error!(
                        InvalidArgument,
                        "input {name:?}, dimension {index} is {value}, but the package accepts {takes}"
                    )
                };
                let range = match size {
                    Size::Fixed(fixed) if *fixed == value => continue,
                    Size::Fixed(_) => return Err(wrong(describe(size))),
                    Size::Range(range) => range,
                };
                if value < range.min || range.max.is_some_and(|max| value > max) {
                    return Err(wrong(describe(size)));
                }
                let (first, other, at) = *sizes.entry(&range.name).or_insert((value, &input.name, index));
                if first != value {
                    return Err(wrong(format!(
                        "{first}, the size of {:?} in input {other:?}, dimension {at}",
                        range.name
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Returns the text for a range: `1 to 64`, or `1 or more` without a maximum.
pub fn span(range: &Range) -> String {
    match range.max {
        Some(max) => format!("{} to {max}", range.min),
        None => format!("{} or more", range.min),
    }
}

/// Returns the text for a size: `"batch": 1 to 64`, or the number.
pub fn describe(size: &Size) -> String {
    match size {
        Size::Fixed(size) => size.to_string(),
        Size::Range(range) => format!("{:?}: {}", range.name, span(range)),
    }
}
