//! Texts as vectors, and the similarity of the vectors of two models.

use super::batches::{Batches, TextOptions};
use super::progress::Units;
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::inputs::plain_name;
use crate::meaning::reading;
use crate::model::{Card, Dim, Model, Pooling, Task, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::runtime::{Runtime, Session, Tensor};
use crate::source::checkpoint::pooling::by_hand;
use crate::source::checkpoint::sentence::{Sentence, Steps};
use crate::statistics::{dot, mean, percentile, sorted};
use crate::text::Tokenizer;
use serde::Serialize;

/// Number of texts among which nearest neighbours are searched: the time grows with its square.
const NEAREST_AMONG: usize = 2000;

/// Vectors of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Values row by row, `texts × width`, as the model outputs them, not normalized.
    pub values: Vec<f32>,
    /// Elements of a vector.
    pub width: usize,
    /// The output they come from.
    pub output: String,
    /// How token vectors were pooled; `None` if the model outputs one vector per text.
    pub pooling: Option<Pooling>,
}

/// Similarity of the vectors of two models for the same texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmbeddingSimilarity {
    /// Mean of the cosines.
    pub cosine: f64,
    /// First percentile of the cosines.
    pub cosine_p1: f64,
    /// Minimum of the cosines.
    pub cosine_min: f64,
    /// Fraction of texts whose nearest other text, by cosine, is the same; over at most the first 2,000 texts.
    pub nearest_kept: f64,
    /// Number of texts compared.
    pub texts: usize,
    /// Elements of a vector.
    pub width: usize,
    /// The compared output of the original.
    pub output: String,
    /// How token vectors were pooled; `None` if the model outputs one vector per text.
    pub pooling: Option<Pooling>,
}

/// Returns the vectors of `model` for `texts`.
///
/// They come from the output `sentence_embedding`; else from `token_embeddings` or `last_hidden_state`, pooled as the
/// model's card says (default: mean); else from another output of the right shape. Texts are truncated to the
/// positions of the model. Progress stage: `evaluate`, in texts. Fails with [`crate::error::Kind::Unsupported`] if
/// the model outputs no vectors; `InvalidArgument` if there is no text, or one without tokens.
pub fn embed(
    runtime: &'static Runtime,
    model: &Model,
    tokenizer: &Tokenizer,
    texts: &[String],
    options: &TextOptions,
    call: &Call,
) -> Result<Embeddings> {
    let mut units = Units::new(call, texts.len());
    embed_counted(runtime, model, tokenizer, texts, options, &mut units)
}

/// Returns the vectors of `model` for `texts` like [`embed`], and counts the texts in `units`.
pub fn embed_counted(
    runtime: &'static Runtime,
    model: &Model,
    tokenizer: &Tokenizer,
    texts: &[String],
    options: &TextOptions,
    units: &mut Units,
) -> Result<Embeddings> {
    let batches = Batches::new(model, tokenizer, texts, options)?;
    let session = options.session();
    let mut session = Session::new(runtime, model, &session, &units.quiet())?;
    // The session's outputs, not the model's: ONNX Runtime infers shapes that a file does not contain.
    let (output, pooling) = output_of(session.outputs(), model.card())?;
    let steps = match (pooling, Sentence::of(model.card())?) {
        (Some(_), Some(sentence)) => Some(sentence.by_hand(model.card())?),
        _ => None,
    };
    let join = pooling.map(|pooling| (pooling, steps.as_ref()));
    let mut values = Vec::new();
    batches.run(&mut session, &output, units, |tensor, keep, texts| {
        let vectors = vectors(tensor, join, keep, texts).at(|| format!("output {output:?}"))?;
        values.extend(vectors);
        Ok(())
    })?;
    let width = values.len() / texts.len().max(1);
    if width == 0 || width * texts.len() != values.len() {
        bail!(Unsupported, "the output {output:?} has vectors of different lengths");
    }
    if let Some(broken) = values.iter().position(|value| !value.is_finite()) {
        bail!(Runtime, "the vector of text {} has an element that is not finite", broken / width + 1);
    }
    Ok(Embeddings { values, width, output, pooling })
}

/// Compares the vectors of two models for `texts`. One is loaded after the other. See [`embed`].
///
/// Each reads the texts with its own tokenizer: `tokenizer` is the original's.
pub fn compare_embeddings(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: &Tokenizer,
    texts: &[String],
    options: &TextOptions,
    call: &Call,
) -> Result<EmbeddingSimilarity> {
    let mut units = Units::new(call, 2 * texts.len());
    let own = reading(original, result, Some(tokenizer)).at(|| "the result")?;
    let theirs = own.as_ref().map_or(tokenizer, |own| &own.tokenizer);
    let mut of = |model, tokenizer| embed_counted(runtime, model, tokenizer, texts, options, &mut units);
    let (before, after) = (of(original, tokenizer).at(|| "the original")?, of(result, theirs).at(|| "the result")?);
    if before.width != after.width {
        let (before, after) = (before.width, after.width);
        bail!(
            InvalidArgument,
            "vectors of the original have {before} elements, those of the result {after}: they have no cosine"
        );
    }
    similarity(&before, &after, call)
}

fn similarity(before: &Embeddings, after: &Embeddings, call: &Call) -> Result<EmbeddingSimilarity> {
    let (a, b) = (before.unit(), after.unit());
    let rows = |of: &[f64]| of.chunks_exact(before.width).map(<[f64]>::to_vec).collect::<Vec<_>>();
    let (a, b) = (rows(&a), rows(&b));
    let cosines: Vec<f64> = a.iter().zip(&b).map(|(a, b)| dot(a, b).clamp(-1.0, 1.0)).collect();
    let ordered = sorted(&cosines);
    let among = a.len().min(NEAREST_AMONG);
    let mut kept = 0;
    for text in 0..among {
        call.check()?;
        kept += usize::from(nearest(&a[..among], text) == nearest(&b[..among], text));
    }
    Ok(EmbeddingSimilarity {
        cosine: mean(&cosines),
        cosine_p1: percentile(&ordered, 0.01),
        cosine_min: percentile(&ordered, 0.0),
        nearest_kept: kept as f64 / among.max(1) as f64,
        texts: cosines.len(),
        width: before.width,
        output: before.output.clone(),
        pooling: before.pooling,
    })
}

impl Embeddings {
    /// Returns the vectors normalized to length 1, row by row; a zero vector stays zero.
    pub fn unit(&self) -> Vec<f64> {
        let row = |row: &[f32]| {
            let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let norm = dot(&row, &row).sqrt();
            row.into_iter().map(|x| if norm > 0.0 { x / norm } else { 0.0 }).collect::<Vec<f64>>()
        };
        self.values.chunks_exact(self.width).flat_map(row).collect()
    }
}

/// Returns the other text whose vector is nearest to that of `text`, the first among equals.
fn nearest(units: &[Vec<f64>], text: usize) -> Option<usize> {
    let others = (0..units.len()).filter(|other| *other != text);
    let near = |best: Option<(usize, f64)>, other: usize| {
        let cosine = dot(&units[text], &units[other]);
        if best.is_some_and(|(_, most)| cosine <= most) { best } else { Some((other, cosine)) }
    };
    others.fold(None, near).map(|(other, _)| other)
}

/// Returns the output to take vectors from, and how to pool it.
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

/// Returns the vectors of the first `texts` rows: unchanged, or made of the tokens that `keep` marks, pooled or by
/// the steps of the model's folder.
fn vectors(tensor: &Tensor, join: Option<(Pooling, Option<&Steps>)>, keep: &[bool], texts: usize) -> Result<Vec<f32>> {
    let values = tensor.to_f32_vec()?;
    let Some((pooling, steps)) = join else {
        let &[rows, width] = tensor.shape() else {
            bail!(Unsupported, "has shape {:?}, not [texts, width]", tensor.shape());
        };
        if (rows as usize) < texts {
            bail!(Unsupported, "has {rows} rows for {texts} texts");
        }
        return Ok(values[..texts * width as usize].to_vec());
    };
    let &[rows, tokens, width] = tensor.shape() else {
        bail!(Unsupported, "has shape {:?}, not [texts, tokens, width]", tensor.shape());
    };
    let (rows, tokens, width) = (rows as usize, tokens as usize, width as usize);
    if rows < texts || keep.len() != rows * tokens || width == 0 {
        bail!(Unsupported, "has shape {:?} for {texts} texts, {} tokens in all", tensor.shape(), keep.len());
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

    fn embeddings(width: usize, values: &[f32]) -> Embeddings {
        Embeddings { values: values.to_vec(), width, output: "x".to_owned(), pooling: None }
    }

    #[test]
    fn cosines_and_neighbours_are_those_by_hand() {
        let a = embeddings(2, &[3.0, 4.0, 0.0, 2.0, 1.0, 0.0]);
        let b = embeddings(2, &[4.0, 3.0, 0.0, 5.0, 9.0, 0.0]);
        let found = similarity(&a, &b, &Call::default()).unwrap();
        assert!((found.cosine - (0.96 + 1.0 + 1.0) / 3.0).abs() < 1e-12, "{found:?}");
        assert!((found.cosine_min - 0.96).abs() < 1e-12);
        // The first text is nearest to the second in a, to the third in b; for the others it is the first in both.
        assert!((found.nearest_kept - 2.0 / 3.0).abs() < 1e-12);
        let zero = similarity(&embeddings(2, &[0.0, 0.0]), &embeddings(2, &[1.0, 0.0]), &Call::default()).unwrap();
        assert_eq!((zero.cosine, zero.texts, zero.nearest_kept), (0.0, 1, 1.0));
    }

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
