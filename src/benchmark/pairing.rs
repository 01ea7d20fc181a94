//! The relation of the token ids and classes of a result to those of the original ([`Pairing`]).

use crate::error::{Context, Result, bail};
use crate::inputs::{Mask, Source, is_past};
use crate::meaning::classes::permuted;
use crate::meaning::{Order, Reading, reading};
use crate::model::{Model, Task, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::runtime::Tensor;
use crate::text::Tokenizer;

/// The differences of the token ids and classes of a result from those of the original.
pub struct Pairing {
    /// Tokenizer of the result; `None` if it does not differ from the original's.
    pub reading: Option<Reading>,
    /// Index of the class of the same name in the result, for each class of the original; `None` if the order is the
    /// same or the models do not classify.
    order: Option<Vec<usize>>,
    /// Whether the outputs are distributions over a vocabulary, as in text generation and mask filling.
    writes: bool,
    /// Notes for the caller about these differences.
    pub notes: Vec<String>,
}

impl Pairing {
    /// Returns the differences between tokenizers and classes. Fails with `InvalidArgument` if the two models classify
    /// into different classes, and if the tokenizer of `result` cannot be read.
    pub fn new(original: &Model, result: &Model, tokenizer: Option<&Tokenizer>) -> Result<Pairing> {
        let (first, second) = ("the original", "the result");
        let (a, b) = (original.card(), result.card());
        let mut notes = Vec::new();
        let order = match (a.task, b.task) {
            (Task::Classify, Task::Classify) => {
                let order = Order::of(a, b, first, second);
                notes.extend(order.note(first, second));
                order.mapping()?
            }
            _ => None,
        };
        let reading = match tokenizer {
            Some(tokenizer) => reading(original, result, Some(tokenizer)).at(|| second)?,
            None => None,
        };
        if let Some(found) = &reading {
            let cut = || format!("for example, {} is split differently", found.cut.as_deref().unwrap_or_default());
            let how = found.ids.clone().unwrap_or_else(cut);
            notes.push(format!("{second} uses its own tokenizer, which differs from that of {first}: {how}"));
        }
        let writes = matches!(a.task, Task::Generate | Task::FillMask);
        Ok(Pairing { reading, order, writes, notes })
    }

    /// Checks that the outputs can be compared. Fails with `InvalidArgument` if the inputs are texts and the outputs
    /// are distributions over different vocabularies.
    pub fn check(&self, source: &Source) -> Result<()> {
        match &self.reading {
            Some(Reading { ids: Some(how), .. }) if self.writes && source.name() == "text" => bail!(
                InvalidArgument,
                "the original and the result have different vocabularies: {how}. Their token distributions cannot be \
                 compared"
            ),
            _ => Ok(()),
        }
    }

    /// Returns the outputs of the result. If the order of classes differs, float outputs whose names contain `logit`
    /// are reordered to that of the original, and become float32. `masks` are those of the inputs of the original and
    /// of the result. Fails with `InvalidArgument` if the tokenizers split the texts differently and an output has a
    /// vector per token.
    pub fn aligned(&self, outputs: Vec<(String, Tensor)>, masks: [Option<&Mask>; 2]) -> Result<Vec<(String, Tensor)>> {
        if let (Some(_), [Some(of_original), Some(of_result)]) = (&self.reading, masks)
            && of_original != of_result
            && let Some((name, _)) =
                outputs.iter().find(|(_, t)| t.shape().len() >= 3 && t.shape()[..2] == of_result.shape)
        {
            bail!(
                InvalidArgument,
                "the output {name:?} is per token, and the tokenizers of the two models split the texts differently: \
                 there is nothing to compare"
            );
        }
        let Some(order) = &self.order else { return Ok(outputs) };
        let one = |(name, tensor): (String, Tensor)| {
            let float = matches!(tensor.dtype(), DataType::Float32 | DataType::Float16 | DataType::Bfloat16);
            let classes = float && name.to_lowercase().contains("logit");
            let tensor = if classes { permuted(&tensor, order)? } else { tensor };
            Ok((name, tensor))
        };
        outputs.into_iter().map(one).collect()
    }
}

/// Checks that both models have the same inputs. Fails with `InvalidArgument` if only one model has an input, or if an
/// input has different types. Inputs of a decoder's cache may be missing from one of the models.
pub fn same_inputs(original: &[ValueInfo], result: &[ValueInfo]) -> Result<()> {
    let missing = |from: &[ValueInfo], of: &[ValueInfo]| {
        // A model whose layers were dropped lacks their cache inputs.
        let lacks = |info: &&ValueInfo| !is_past(&info.name) && !from.iter().any(|other| other.name == info.name);
        of.iter().find(lacks).map(|info| info.name.clone())
    };
    if let Some(name) = missing(result, original) {
        bail!(InvalidArgument, "only the original has an input {name:?}: the models cannot be compared");
    }
    if let Some(name) = missing(original, result) {
        bail!(InvalidArgument, "only the result has an input {name:?}: the models cannot be compared");
    }
    for info in original {
        let other = result.iter().find(|other| other.name == info.name && other.dtype != info.dtype);
        if let Some(other) = other {
            let (name, was, is) = (&info.name, info.describe(), other.describe());
            bail!(InvalidArgument, "the input {name:?} is {was} in the original, but {is} in the result");
        }
    }
    Ok(())
}
