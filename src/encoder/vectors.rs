//! The vectors of texts: an output of the model, or pooled from an output with token vectors.

use super::batches::Batches;
use crate::call::Units;
use crate::error::{Context, Result, bail};
use crate::inputs::plain_name;
use crate::model::{Card, Dim, Pooling, Task, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::runtime::{Session, Tensor};
use crate::source::checkpoint::pooling::by_hand;
use crate::source::checkpoint::sentence::{Sentence, Steps};
use crate::statistics::dot;
use crate::text::Tokenizer;

/// The vectors of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Elements of the vectors row by row, `texts × width`; normalized only if the model does so, or the options of an
    /// [`Embedder`](super::Embedder) request it.
    pub values: Vec<f32>,
    /// Number of elements of a vector.
    pub width: usize,
    /// Name of the model's output from which the vectors were computed.
    pub output: String,
    /// Pooling of the token vectors; `None` if the model outputs one vector per text.
    pub pooling: Option<Pooling>,
}

/// The output of a model from which vectors are computed, and the steps of the computation.
pub struct Vectors {
    output: String,
    /// Pooling of the output; `None` if it has one vector per text.
    pooling: Option<Pooling>,
    /// Steps that the model's folder declares for its token vectors (pooling, dense layers, normalization); `None` if
    /// it declares none, or if the output has one vector per text.
    steps: Option<Steps>,
}

impl Vectors {
    /// Returns the output of a session's model from which vectors are computed, and the steps. See [`output_of`] for
    /// the selection of the output.
    ///
    /// Fails with [`crate::error::Kind::Unsupported`] if the model outputs no vectors, or if its graph excludes the
    /// tokens of the default prompt and `tokenizer` has another prompt.
    pub fn of(session: &Session, card: &Card, tokenizer: &Tokenizer) -> Result<Vectors> {
        // The session's outputs are used, because ONNX Runtime infers shapes that the model does not declare.
        let (output, pooling) = output_of(session.outputs(), card)?;
        let sentence = Sentence::of(card)?;
        let excluded = sentence.as_ref().is_some_and(Sentence::excludes_prompt);
        if excluded && pooling.is_none() && tokenizer.has_own_prompt() {
            bail!(
                Unsupported,
                "the prompt cannot be chosen: the graph leaves the tokens of the default prompt out when it pools"
            );
        }
        let steps = match (pooling, sentence) {
            (Some(_), Some(sentence)) => Some(sentence.with_prompt_of(tokenizer)?.by_hand(card)?),
            _ => None,
        };
        Ok(Vectors { output, pooling, steps })
    }

    /// Returns the vectors of the texts of `batches`, and counts the texts in `units`. Fails with `Unsupported` if the
    /// output does not have the shape of vectors, `Runtime` if an element is not finite.
    pub fn run(&self, batches: &Batches<'_>, session: &Session, units: &mut Units<'_>) -> Result<Embeddings> {
        let Vectors { output, pooling, steps } = self;
        let join = pooling.map(|pooling| (pooling, steps.as_ref()));
        let (values, width) = batches.rows(session, output, units, |tensor, keep, texts| {
            vectors(tensor, join, keep, texts).at(|| format!("output {output:?}"))
        })?;
        if let Some(broken) = values.iter().position(|value| !value.is_finite()) {
            bail!(Runtime, "the vector of text {} has an element that is not finite", broken / width + 1);
        }
        Ok(Embeddings { values, width, output: output.clone(), pooling: *pooling })
    }
}

impl Embeddings {
    /// Keeps only the first `dimensions` elements of each vector; 0 keeps all. Fails with `InvalidArgument` if a vector
    /// has fewer.
    pub(super) fn shorten(&mut self, dimensions: usize) -> Result<()> {
        if dimensions > self.width {
            bail!(InvalidArgument, "dimensions is {dimensions}, but the vectors have {} elements", self.width);
        }
        if dimensions != 0 {
            self.values = self.values.chunks_exact(self.width).flat_map(|row| &row[..dimensions]).copied().collect();
            self.width = dimensions;
        }
        Ok(())
    }

    /// Returns the elements of the vectors normalized to length 1, row by row; a zero vector stays zero.
    pub fn unit(&self) -> Vec<f64> {
        let row = |row: &[f32]| {
            let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let norm = dot(&row, &row).sqrt();
            row.into_iter().map(|x| if norm > 0.0 { x / norm } else { 0.0 }).collect::<Vec<f64>>()
        };
        self.values.chunks_exact(self.width).flat_map(row).collect()
    }
}

/// Returns the name of the output from which vectors are computed, and the pooling of the output: that of the card
/// (default: mean); `None` if the output has one vector per text.
///
/// The output is `sentence_embedding`; otherwise `token_embeddings` or `last_hidden_state`; otherwise the first with
/// two (unless the model is a classifier) or else three dimensions, of which the last is fixed and above 1, whose name
/// contains neither `logits` nor `pooler`. Fails with `Unsupported` if there is none.
pub(crate) fn output_of(outputs: &[ValueInfo], card: &Card) -> Result<(String, Option<Pooling>)> {
    let rank = |info: &ValueInfo| info.shape.as_ref().map_or(0, Vec::len);
    let float =
        |info: &&ValueInfo| matches!(info.dtype, Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16));
    let named = |names: &[&str]| outputs.iter().filter(float).find(|info| names.contains(&plain_name(&info.name)));
    // Vectors have a fixed last dimension; lengths and scores do not.
    let wide =
        |info: &ValueInfo| info.shape.as_ref().is_some_and(|s| matches!(s.last(), Some(Dim::Fixed(n)) if *n > 1));
    let shaped = |wanted: usize| {
        let other = |info: &&ValueInfo| !info.name.contains("logits") && !info.name.contains("pooler");
        outputs.iter().filter(float).filter(other).find(|info| rank(info) == wanted && wide(info))
    };
    let pooling = Some(card.pooling.unwrap_or_default());
    if let Some(info) = named(&["sentence_embedding"]) {
        return Ok((info.name.clone(), None));
    }
    if let Some(info) = named(&["token_embeddings", "last_hidden_state"]) {
        return Ok((info.name.clone(), pooling));
    }
    if let Some(info) = shaped(2).filter(|_| card.task != Task::Classify) {
        return Ok((info.name.clone(), None));
    }
    if let Some(info) = shaped(3) {
        return Ok((info.name.clone(), pooling));
    }
    let names: Vec<&str> = outputs.iter().map(|info| info.name.as_str()).take(8).collect();
    bail!(
        Unsupported,
        "the model has no output with vectors of texts (`sentence_embedding`, `last_hidden_state`); its outputs are {}",
        names.join(", ")
    )
}

/// Returns the vectors of the first `texts` rows of an output: unchanged without `join`, otherwise computed from the
/// tokens that `keep` marks, by the steps of the model's folder, or by pooling if there are no steps.
fn vectors(tensor: &Tensor, join: Option<(Pooling, Option<&Steps>)>, keep: &[bool], texts: usize) -> Result<Vec<f32>> {
    let values = tensor.to_f32_vec()?;
    let Some((pooling, steps)) = join else {
        let &[rows, width] = tensor.shape() else {
            bail!(Unsupported, "the output has shape {:?}, not [texts, width]", tensor.shape());
        };
        if (rows as usize) < texts {
            bail!(Unsupported, "the output has {rows} rows for {texts} texts");
        }
        return Ok(values[..texts * width as usize].to_vec());
    };
    let &[rows, tokens, width] = tensor.shape() else {
        bail!(Unsupported, "the output has shape {:?}, not [texts, tokens, width]", tensor.shape());
    };
    let (rows, tokens, width) = (rows as usize, tokens as usize, width as usize);
    if rows < texts || keep.len() != rows * tokens || width == 0 {
        bail!(
            Unsupported,
            "the output has shape {:?} for {texts} texts of {} tokens in all",
            tensor.shape(),
            keep.len()
        );
    }
    let row = |text: usize| {
        let kept: Vec<&[f32]> = (text * tokens..(text + 1) * tokens)
            .filter(|token| keep[*token])
            .map(|token| &values[token * width..(token + 1) * width])
            .collect();
        match steps {
            Some(steps) => steps.run(&kept, width),
            None => Ok(by_hand(pooling, &kept, 0, width)),
        }
    };
    Ok((0..texts).map(row).collect::<Result<Vec<_>>>()?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_pooled_without_padding() {
        let tensor = Tensor::from_f32(&[2, 2, 2], vec![1.0, 2.0, 3.0, 6.0, 5.0, 4.0, 9.0, 9.0]).unwrap();
        let keep = [true, true, true, false];
        let of = |pooling| vectors(&tensor, Some((pooling, None)), &keep, 2).unwrap();
        assert_eq!(of(Pooling::Mean), [2.0, 4.0, 5.0, 4.0]);
        assert_eq!(of(Pooling::Cls), [1.0, 2.0, 5.0, 4.0]);
        assert_eq!(of(Pooling::LastToken), [3.0, 6.0, 5.0, 4.0]);
        assert_eq!(of(Pooling::Max), [3.0, 6.0, 5.0, 4.0]);
        assert!(
            vectors(&tensor, None, &keep, 2).is_err()
                && vectors(&tensor, Some((Pooling::Mean, None)), &keep[..3], 2).is_err()
        );
        let flat = Tensor::from_f32(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(vectors(&flat, None, &[], 1).unwrap(), [1.0, 2.0]);
    }
}
