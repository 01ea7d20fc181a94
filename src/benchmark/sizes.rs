//! Which sizes the inputs have: what the model leaves open gets a number, the same one for equal names.

use crate::error::{Context, Error, Kind, Result, bail};
use crate::limits;
use crate::model::{Dim, ValueInfo};
use crate::onnx::dtype::element_count;
use std::collections::HashMap;

/// Height and width of pictures whose size the model leaves open: what most classifiers were trained on.
const PICTURE: i64 = 224;

/// Sizes of symbolic dimensions.
#[derive(Debug, Clone, Default)]
pub struct Sizes {
    batch: i64,
    sequence: i64,
    known: HashMap<String, i64>,
}

impl Sizes {
    /// No names known yet; `batch` and `sequence` are for the names that look like them.
    pub fn new(batch: usize, sequence: usize) -> Sizes {
        Sizes { batch: batch as i64, sequence: sequence as i64, known: HashMap::new() }
    }

    /// Takes `shape` as the shape of `info`; its names have these sizes from now on. An error if it does not fit.
    pub fn bind(&mut self, info: &ValueInfo, shape: &[i64]) -> Result<()> {
        self.bind_inner(info, shape).at(|| format!("input {:?}", info.name))
    }

    fn bind_inner(&mut self, info: &ValueInfo, shape: &[i64]) -> Result<()> {
        let Some(dims) = &info.shape else { return checked(shape) };
        if dims.len() != shape.len() {
            bail!(InvalidArgument, "the shape {shape:?} does not fit {}", info.describe());
        }
        for (dim, &size) in dims.iter().zip(shape) {
            match dim {
                Dim::Fixed(fixed) if *fixed != size => {
                    bail!(InvalidArgument, "the shape {shape:?} does not fit {}", info.describe())
                }
                Dim::Symbolic(name) if !name.is_empty() => {
                    let known = *self.known.entry(name.clone()).or_insert(size);
                    if known != size {
                        bail!(
                            InvalidArgument,
                            "the shape {shape:?} gives {name:?} the size {size}; elsewhere it is {known}"
                        );
                    }
                }
                _ => {}
            }
        }
        checked(shape)
    }

    /// The shape of `info`: fixed sizes, those known by name, and a guess for the others:
    ///
    /// - a first dimension that is no length: the batch size; so is any name with `batch`;
    /// - names with `seq`, `len`, `time` or `token`: the sequence length;
    /// - `past` lengths: 0, a cache with nothing in it; sums of names (`past + 1`): their sum;
    /// - `height`, `width`: 224; all else: 1.
    ///
    /// `sequential` inputs (ids, masks) have the sequence length in their second dimension, named or not.
    pub fn resolve(&mut self, info: &ValueInfo, sequential: bool) -> Result<Vec<i64>> {
        let Some(dims) = &info.shape else {
            bail!(
                InvalidArgument,
                "the model does not say what shape the input {:?} has: give it with the option `shapes`",
                info.name
            );
        };
        let past = is_past(&info.name);
        let shape: Vec<i64> = dims
            .iter()
            .enumerate()
            .map(|(index, dim)| match dim {
                Dim::Fixed(size) => *size,
                Dim::Symbolic(name) => self.size(name, index, past, sequential),
            })
            .collect();
        checked(&shape).at(|| format!("input {:?}", info.name))?;
        Ok(shape)
    }

    fn size(&mut self, name: &str, index: usize, past: bool, sequential: bool) -> i64 {
        if let Some(size) = self.known.get(name) {
            return *size;
        }
        let terms = name.split('+').map(str::trim).map(|term| match (term.parse(), self.known.get(term)) {
            (Ok(number), _) => number,
            (_, Some(size)) => *size,
            _ => self.guess(&term.to_lowercase(), index, past, sequential),
        });
        let size = terms.fold(0i64, i64::saturating_add);
        if !name.is_empty() {
            self.known.insert(name.to_owned(), size);
        }
        size
    }

    fn guess(&self, name: &str, index: usize, past: bool, sequential: bool) -> i64 {
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        let length = has(&["seq", "len", "time", "token"]);
        if has(&["batch"]) || (index == 0 && !length && !has(&["past"])) {
            self.batch
        } else if has(&["past"]) || past {
            0
        } else if length || (sequential && index == 1) {
            self.sequence
        } else if has(&["height", "width"]) {
            PICTURE
        } else {
            1
        }
    }
}

/// Whether an input holds what earlier runs left behind: keys and values of attention.
pub fn is_past(name: &str) -> bool {
    let name = name.to_lowercase();
    let marks = ["past_key", "past_value", "key_cache", "value_cache", "kv_cache", "cache_k", "cache_v"];
    name.starts_with("past") || marks.iter().any(|mark| name.contains(mark))
}

fn checked(shape: &[i64]) -> Result<()> {
    // The same check guards model files; here the shape is the caller's, or ours.
    let count = element_count(shape).map_err(|e| Error::new(Kind::InvalidArgument, e.message()))?;
    if count > limits::GENERATED_ELEMENTS {
        bail!(
            LimitExceeded,
            "the shape {shape:?} has {count} elements; a benchmark makes inputs of up to {}",
            limits::GENERATED_ELEMENTS
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::dtype::DataType;

    /// `"batch, 3, height"` as a signature; `?` is a dimension without a name.
    fn info(name: &str, dims: &str) -> ValueInfo {
        let dim = |text: &str| match text.trim() {
            "?" => Dim::Symbolic(String::new()),
            text => text.parse().map_or_else(|_| Dim::Symbolic(text.into()), Dim::Fixed),
        };
        let shape = dims.split(',').filter(|d| !d.trim().is_empty()).map(dim).collect();
        ValueInfo { name: name.into(), dtype: Some(DataType::Float32), shape: Some(shape) }
    }

    fn shape(dims: &str) -> Vec<i64> {
        Sizes::new(4, 128).resolve(&info("x", dims), false).unwrap()
    }

    #[test]
    fn names_say_what_size_they_are() {
        assert_eq!(shape("batch, 3, height, width"), [4, 3, 224, 224]);
        assert_eq!(shape("N, sequence_length, 768"), [4, 128, 768]);
        assert_eq!(shape("?, ?"), [4, 1]);
        assert_eq!(shape("time, batch_size, anything"), [128, 4, 1]);
        assert_eq!(shape("batch, past_sequence_length + sequence_length"), [4, 128]);
        assert_eq!(shape("batch, past_length + 1"), [4, 1]);
        assert_eq!(shape(""), [0i64; 0]);
        let ids = Sizes::new(2, 9).resolve(&info("input_ids", "?, ?"), true).unwrap();
        assert_eq!(ids, [2, 9]);
    }

    #[test]
    fn a_cache_begins_empty() {
        let mut sizes = Sizes::new(2, 16);
        for dims in ["batch, 12, past_sequence_length, 64", "?, 12, ?, 64"] {
            assert_eq!(sizes.resolve(&info("past_key_values.0.key", dims), false).unwrap(), [2, 12, 0, 64]);
        }
    }

    #[test]
    fn equal_names_are_equal_sizes() {
        let mut sizes = Sizes::new(1, 128);
        sizes.bind(&info("a", "b, s"), &[3, 77]).unwrap();
        assert_eq!(sizes.resolve(&info("b", "b, s, 5"), false).unwrap(), [3, 77, 5]);
        let e = sizes.bind(&info("c", "b, 4"), &[2, 4]).unwrap_err().to_string();
        assert_eq!(e, "input \"c\": the shape [2, 4] gives \"b\" the size 2; elsewhere it is 3");
        assert!(sizes.bind(&info("c", "b, 4"), &[3, 5]).unwrap_err().to_string().contains("float32[b, 4]"));
        assert!(sizes.bind(&info("c", "b, 4"), &[3]).is_err());
    }

    #[test]
    fn shapes_that_are_unknown_or_too_large_are_refused() {
        let unknown = ValueInfo { name: "x".into(), dtype: None, shape: None };
        let e = Sizes::new(1, 1).resolve(&unknown, false).unwrap_err().to_string();
        assert!(e.contains("\"x\"") && e.contains("`shapes`"), "{e}");
        assert!(Sizes::new(1, 1).resolve(&info("x", "1099511627776, 2"), false).is_err());
        assert!(Sizes::new(1, 1).bind(&unknown, &[-1]).is_err());
    }
}
