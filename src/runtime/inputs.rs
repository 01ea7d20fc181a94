//! Checks of the inputs of a run before it starts.
//!
//! ONNX Runtime checks type, rank and fixed dimensions itself, but its messages lack details. It also accepts inputs
//! with different sizes where the model declares one symbolic size: their values may then be broadcast without an
//! error.

use super::Tensor;
use crate::error::{Error, Result, bail, error};
use crate::limits;
use crate::model::{Dim, ValueInfo};
use std::collections::HashMap;

/// Fails if `given` does not match `expected`; the message names the input, the dimension, its size and the expected
/// size. The error is [`crate::error::Kind::NotFound`] for an unknown name, `LimitExceeded` for too many inputs,
/// `Unsupported` if the model expects a sequence, a map or an optional value, and otherwise `InvalidArgument`.
pub fn check(expected: &[ValueInfo], given: &[(&str, &Tensor)]) -> Result<()> {
    if given.len() > limits::RUN_VALUES {
        bail!(LimitExceeded, "{} inputs are given; the limit is {}", given.len(), limits::RUN_VALUES);
    }
    let mut tensors = HashMap::with_capacity(given.len());
    for (name, tensor) in given {
        if !expected.iter().any(|info| info.name == *name) {
            bail!(NotFound, "there is no input {name:?}; the inputs are {}", names(expected));
        }
        if tensors.insert(*name, *tensor).is_some() {
            bail!(InvalidArgument, "input {name:?} is given twice");
        }
    }
    // Merged decoders were made of two graphs and use one name for the lengths of text and mask, so that equal names
    // have a meaning only within one input.
    let merged = expected.iter().any(|info| info.name == "use_cache_branch");
    let mut sizes = HashMap::new();
    for info in expected {
        if merged {
            sizes.clear();
        }
        let Some(tensor) = tensors.get(info.name.as_str()) else {
            bail!(InvalidArgument, "input {:?} ({}) is missing", info.name, info.describe());
        };
        fits(info, tensor, &mut sizes).map_err(|e| e.at(format_args!("input {:?}", info.name)))?;
    }
    Ok(())
}

/// Returns the names of values for messages: `"a", "b"`.
pub fn names(infos: &[ValueInfo]) -> String {
    infos.iter().map(|info| format!("{:?}", info.name)).collect::<Vec<_>>().join(", ")
}

/// Fails if the type or a dimension of an input differs from what the model expects. `sizes` has each symbolic size
/// seen so far, with the input and the dimension where it was seen.
fn fits<'a>(info: &'a ValueInfo, tensor: &Tensor, sizes: &mut HashMap<&'a str, (i64, &'a str, usize)>) -> Result<()> {
    let Some(dtype) = info.dtype else {
        bail!(Unsupported, "the input is not a tensor; sequences, maps and optional values are not supported");
    };
    if dtype != tensor.dtype() {
        bail!(InvalidArgument, "the input has type {}, but the model expects {}", tensor.dtype().name(), dtype.name());
    }
    let Some(dims) = &info.shape else { return Ok(()) };
    if dims.len() != tensor.shape().len() {
        let (rank, shape) = (tensor.shape().len(), tensor.shape());
        bail!(InvalidArgument, "the input has {rank} dimensions {shape:?}, but the model expects {}", info.describe());
    }
    for (index, (dim, &size)) in dims.iter().zip(tensor.shape()).enumerate() {
        match dim {
            Dim::Fixed(expected) if *expected != size => return Err(wrong(index, size, expected)),
            Dim::Symbolic(name) if !name.is_empty() => {
                let (first, input, at) = *sizes.entry(name).or_insert((size, &info.name, index));
                if first != size {
                    let expected = format!("{first}, the size {name:?} of input {input:?}, dimension {at}");
                    return Err(wrong(index, size, expected));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn wrong(index: usize, size: i64, expected: impl std::fmt::Display) -> Error {
    error!(InvalidArgument, "dimension {index} is {size}, but the model expects {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::onnx::dtype::DataType;

    fn infos() -> Vec<ValueInfo> {
        let symbolic = |name: &str| Dim::Symbolic(name.to_owned());
        let info = |name: &str, shape| ValueInfo { name: name.to_owned(), dtype: Some(DataType::Float32), shape };
        vec![
            info("a", Some(vec![symbolic("batch"), Dim::Fixed(2)])),
            info("b", Some(vec![symbolic("batch"), symbolic("")])),
            info("c", None),
        ]
    }

    fn tensor(shape: &[i64]) -> Tensor {
        Tensor::from_f32(shape, vec![0.0; shape.iter().product::<i64>() as usize]).unwrap()
    }

    fn message(given: &[(&str, &Tensor)]) -> String {
        check(&infos(), given).unwrap_err().to_string()
    }

    #[test]
    fn what_fits_is_taken() {
        check(&infos(), &[("c", &tensor(&[])), ("b", &tensor(&[4, 9])), ("a", &tensor(&[4, 2]))]).unwrap();
        check(&infos(), &[("a", &tensor(&[0, 2])), ("b", &tensor(&[0, 1])), ("c", &tensor(&[7]))]).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (a, b, c) = (tensor(&[4, 2]), tensor(&[4, 9]), tensor(&[1]));
        assert!(message(&[("x", &a)]).contains("no input \"x\"; the inputs are \"a\", \"b\", \"c\""));
        assert_eq!(check(&infos(), &[("x", &a)]).unwrap_err().kind(), Kind::NotFound);
        assert!(message(&[("a", &a), ("b", &b)]).contains("\"c\" (float32[...]) is missing"));
        assert!(message(&[("a", &a), ("a", &a)]).contains("twice"));
        let wrong = message(&[("a", &tensor(&[4, 3])), ("b", &b), ("c", &c)]);
        assert_eq!(wrong, "input \"a\": dimension 1 is 3, but the model expects 2");
        let wrong = message(&[("a", &a), ("b", &tensor(&[1, 9])), ("c", &c)]);
        assert!(
            wrong.contains("input \"b\": dimension 0 is 1, but the model expects 4, the size \"batch\""),
            "{wrong}"
        );
        assert!(wrong.contains("of input \"a\", dimension 0"), "{wrong}");
        let wrong = message(&[("a", &tensor(&[2])), ("b", &b), ("c", &c)]);
        assert!(wrong.contains("has 1 dimensions [2], but the model expects float32[batch, 2]"), "{wrong}");
        let ints = Tensor::from_i64(&[4, 2], vec![0; 8]).unwrap();
        assert!(message(&[("a", &ints), ("b", &b), ("c", &c)]).contains("int64, but the model expects float32"));
    }

    #[test]
    fn an_input_that_is_no_tensor_is_unsupported() {
        let infos = [ValueInfo { name: "s".into(), dtype: None, shape: None }];
        assert_eq!(check(&infos, &[("s", &tensor(&[1]))]).unwrap_err().kind(), Kind::Unsupported);
    }
}
