//! The values of inputs ([`Fill`]), given by the caller or generated.

use super::role::is_past;
use super::tables::rows_indexed_by;
use crate::error::{Context, Result, bail};
use crate::graph::View;
use crate::model::{Model, ValueInfo};
use crate::onnx::dtype::{DataType, element_count};
use crate::runtime::{Element, Tensor};
use crate::statistics::Random;
use half::{bf16, f16};

/// The number of samples of audio per second that speech models expect.
const SAMPLE_RATE: f64 = 16000.0;

/// The values of the elements of an input.
#[derive(Debug, Clone, PartialEq)]
pub enum Fill {
    /// The same value in every element.
    Constant(f64),
    /// Values from the standard normal distribution.
    Normal,
    /// Random integers from `low .. high`, all equally probable.
    Whole {
        /// Smallest value that is generated.
        low: i64,
        /// Largest value plus one.
        high: i64,
    },
    /// Integers 0, 1, 2 … along the last dimension, starting again at 0 after `period` if that is not 0.
    Positions {
        /// Number of rows of the position table; 0 for no limit.
        period: i64,
    },
    /// Given values, one per element in row-major order.
    Given(Vec<f64>),
}

impl Fill {
    /// Returns the values for an input for which none are given. `rows` is the number of rows of the table that the
    /// input indexes, if any.
    ///
    /// The first line that fits the name and the type of the input counts:
    ///
    /// - Booleans are true, except those with `use_cache` in their names: the cache is empty.
    /// - Masks are ones.
    /// - Integer positions count up.
    /// - Other integers that index a table are random rows of it.
    /// - 8-bit integers (images) are random over their whole range.
    /// - Sampling rates are 16000.
    /// - Other integers are 0 if they belong to a cache (`past`), otherwise 1.
    /// - All others are from the standard normal distribution.
    pub fn guess(info: &ValueInfo, rows: Option<i64>) -> Fill {
        use DataType::*;
        let name = info.name.to_lowercase();
        let integer = matches!(info.dtype, Some(Int64 | Int32 | Int16 | Int8 | Uint64 | Uint32 | Uint16 | Uint8));
        match info.dtype {
            Some(Bool) => Fill::Constant(if name.contains("use_cache") { 0.0 } else { 1.0 }),
            _ if name.contains("mask") => Fill::Constant(1.0),
            _ if integer && name.contains("position") => Fill::Positions { period: rows.unwrap_or(0) },
            _ if integer && rows.is_some() => Fill::Whole { low: 0, high: rows.unwrap_or(1).max(1) },
            Some(Uint8) => Fill::Whole { low: 0, high: 256 },
            Some(Int8) => Fill::Whole { low: -128, high: 128 },
            _ if integer && is_rate(&name) => Fill::Constant(SAMPLE_RATE),
            _ if integer => Fill::Constant(if is_past(&name) { 0.0 } else { 1.0 }),
            _ => Fill::Normal,
        }
    }

    /// Returns a tensor with the type of `info` and the given shape. `random` generates the random values. Fails with
    /// `Unsupported` if the type is not a number or boolean of at least 8 bits, and with `LimitExceeded` if memory is
    /// insufficient. Fails with `InvalidArgument` if an integer or boolean type cannot represent a value, or if the
    /// number of given values is not that of the elements.
    pub fn tensor(&self, info: &ValueInfo, shape: &[i64], random: &mut Random) -> Result<Tensor> {
        use DataType::*;
        let mut make = || match info.dtype {
            Some(Float32) => self.typed(shape, random, |v| v as f32, |_| None),
            Some(Float64) => self.typed(shape, random, |v| v, |_| None),
            Some(Float16) => self.typed(shape, random, f16::from_f64, |_| None),
            Some(Bfloat16) => self.typed(shape, random, bf16::from_f64, |_| None),
            Some(Int64) => self.typed(shape, random, |v| v as i64, |v| Some(v as f64)),
            Some(Int32) => self.typed(shape, random, |v| v as i32, |v| Some(v.into())),
            Some(Int16) => self.typed(shape, random, |v| v as i16, |v| Some(v.into())),
            Some(Int8) => self.typed(shape, random, |v| v as i8, |v| Some(v.into())),
            Some(Uint64) => self.typed(shape, random, |v| v as u64, |v| Some(v as f64)),
            Some(Uint32) => self.typed(shape, random, |v| v as u32, |v| Some(v.into())),
            Some(Uint16) => self.typed(shape, random, |v| v as u16, |v| Some(v.into())),
            Some(Uint8) => self.typed(shape, random, |v| v as u8, |v| Some(v.into())),
            Some(Bool) => {
                let flags = self.typed(shape, random, |v| u8::from(v != 0.0), |v| Some(v.into()))?;
                Tensor::new(Bool, shape, bytes::Bytes::copy_from_slice(flags.bytes()))
            }
            None => bail!(
                Unsupported,
                "it is not a tensor but a sequence, a map or an optional value, which is not supported here"
            ),
            _ => bail!(Unsupported, "values of type {} cannot be generated", info.describe()),
        };
        make().at(|| format!("input {:?}", info.name))
    }

    /// Returns a tensor of type `T`. `back` converts an element back to a number, to check that a number was
    /// represented exactly; it returns `None` for types that may round.
    fn typed<T: Element>(
        &self,
        shape: &[i64],
        random: &mut Random,
        convert: impl Fn(f64) -> T,
        back: impl Fn(T) -> Option<f64>,
    ) -> Result<Tensor> {
        let count = element_count(shape)? as usize;
        let mut elements: Vec<T> = Vec::new();
        if elements.try_reserve_exact(count).is_err() {
            bail!(LimitExceeded, "out of memory for {count} elements");
        }
        let last = shape.last().map_or(1, |d| (*d).max(1)) as usize;
        match self {
            Fill::Constant(value) => elements.resize(count, exact(*value, &convert, &back)?),
            Fill::Normal => elements.extend((0..count).map(|_| convert(random.normal()))),
            Fill::Whole { low, high } => {
                let span = high.saturating_sub(*low).max(1) as u64;
                elements.extend((0..count).map(|_| convert((low + random.below(span) as i64) as f64)));
            }
            Fill::Positions { period } => {
                let period = if *period > 0 { *period as usize } else { usize::MAX };
                elements.extend((0..count).map(|i| convert((i % last % period) as f64)));
            }
            Fill::Given(values) if values.len() != count => bail!(
                InvalidArgument,
                "{} values were given, but the shape {shape:?} needs {count}; the option `shapes` sets the shape",
                values.len()
            ),
            Fill::Given(values) => {
                for value in values {
                    elements.push(exact(*value, &convert, &back)?);
                }
            }
        }
        Tensor::from_vec(shape, elements)
    }
}

/// Returns whether an input of a model gets an integer or boolean that is only guessed, which may be the reason why a
/// run fails.
pub fn guesses_values(model: &Model) -> bool {
    let view = View::new(model.proto());
    model.inputs().iter().any(|info| {
        let rows = rows_indexed_by(&view, &info.name);
        matches!(Fill::guess(info, rows), Fill::Constant(_)) && !info.name.to_lowercase().contains("mask")
    })
}

/// Returns whether the name of an input is that of a sampling rate.
fn is_rate(name: &str) -> bool {
    name == "sr" || (name.contains("rate") && name.contains("sampl"))
}

/// Returns a number as an element. Fails with `InvalidArgument` if a type that does not round cannot represent it.
fn exact<T: Element>(value: f64, convert: impl Fn(f64) -> T, back: impl Fn(T) -> Option<f64>) -> Result<T> {
    let element = convert(value);
    match back(element) {
        Some(kept) if kept != value => bail!(InvalidArgument, "its type has no value {value}"),
        _ => Ok(element),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, dtype: DataType) -> ValueInfo {
        ValueInfo { name: name.into(), dtype: Some(dtype), shape: None }
    }

    fn numbers(fill: Fill, dtype: DataType, shape: &[i64]) -> Result<Vec<f32>> {
        fill.tensor(&info("x", dtype), shape, &mut Random::new(3))?.to_f32_vec()
    }

    #[test]
    fn names_and_types_say_what_goes_in() {
        use DataType::*;
        let guess = |name, dtype, rows| Fill::guess(&info(name, dtype), rows);
        assert_eq!(guess("attention_mask", Int64, Some(2)), Fill::Constant(1.0));
        assert_eq!(guess("position_ids", Int64, Some(512)), Fill::Positions { period: 512 });
        assert_eq!(guess("ids", Int32, Some(100)), Fill::Whole { low: 0, high: 100 });
        assert_eq!(guess("flag", Bool, None), Fill::Constant(1.0));
        assert_eq!(guess("use_cache_branch", Bool, None), Fill::Constant(0.0));
        assert_eq!(guess("sr", Int64, None), Fill::Constant(16000.0));
        assert_eq!(guess("k", Int64, None), Fill::Constant(1.0));
        assert_eq!(guess("past_length", Int32, None), Fill::Constant(0.0));
        assert_eq!(guess("pixels", Uint8, None), Fill::Whole { low: 0, high: 256 });
        assert_eq!(guess("x", Float16, None), Fill::Normal);
    }

    #[test]
    fn tensors_hold_what_was_asked_for() {
        use DataType::*;
        assert_eq!(numbers(Fill::Constant(1.0), Int64, &[2]).unwrap(), [1.0, 1.0]);
        let positions = numbers(Fill::Positions { period: 0 }, Int32, &[2, 3]).unwrap();
        assert_eq!(positions, [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]);
        assert_eq!(numbers(Fill::Positions { period: 2 }, Int64, &[3]).unwrap(), [0.0, 1.0, 0.0]);
        let ids = numbers(Fill::Whole { low: 0, high: 7 }, Int64, &[100]).unwrap();
        assert!(ids.iter().all(|i| (0.0..7.0).contains(i)) && ids.contains(&6.0) && ids.contains(&0.0));
        let signed = numbers(Fill::Whole { low: -128, high: 128 }, Int8, &[500]).unwrap();
        assert!(signed.iter().any(|i| *i < -100.0) && signed.iter().any(|i| *i > 100.0));
        let normal = numbers(Fill::Normal, Bfloat16, &[4, 100]).unwrap();
        assert!(normal.iter().any(|x| *x < -1.0) && normal.iter().any(|x| *x > 1.0));
        assert_eq!(numbers(Fill::Given(vec![0.0, 1.0]), Bool, &[2]).unwrap(), [0.0, 1.0]);
        assert_eq!(numbers(Fill::Given(vec![16000.0]), Int64, &[]).unwrap(), [16000.0]);
        assert_eq!(numbers(Fill::Normal, Float32, &[2, 0, 3]).unwrap(), [0f32; 0]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_name() {
        let message = |fill, dtype, shape: &[i64]| numbers(fill, dtype, shape).unwrap_err().to_string();
        assert_eq!(message(Fill::Constant(0.5), DataType::Int64, &[1]), "input \"x\": its type has no value 0.5");
        assert!(message(Fill::Constant(300.0), DataType::Uint8, &[1]).contains("no value 300"));
        assert!(message(Fill::Constant(2.0), DataType::Bool, &[1]).contains("no value 2"));
        assert!(message(Fill::Given(vec![1.0]), DataType::Float32, &[2, 2]).contains("needs 4; the option `shapes`"));
        assert!(message(Fill::Normal, DataType::String, &[1]).contains("cannot be generated"));
        let list = ValueInfo { name: "x".into(), dtype: None, shape: None };
        let e = Fill::Normal.tensor(&list, &[1], &mut Random::new(1)).unwrap_err().to_string();
        assert!(e.starts_with("input \"x\": it is not a tensor but a sequence"), "{e}");
    }
}
