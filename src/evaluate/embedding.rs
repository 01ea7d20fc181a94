//! The similarity of the vectors of two models for the same texts.

use crate::call::{Call, Stage, Units};
use crate::encoder::{Batches, Embeddings, TextOptions, Vectors};
use crate::error::{Context, Result, bail};
use crate::meaning::reading;
use crate::model::{Model, Pooling};
use crate::runtime::{Runtime, Session};
use crate::statistics::{dot, mean, mean_interval, percentile, sorted};
use crate::text::Tokenizer;
use serde::Serialize;

/// The number of texts among which nearest neighbours are searched: the time grows with its square.
const NEAREST_AMONG: usize = 2000;

/// The similarity of the vectors of two models for the same texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmbeddingSimilarity {
    /// Mean of the cosines over the texts.
    pub cosine: f64,
    /// Lower end of the 95 % bootstrap interval of the mean over the texts; NaN (`null` in JSON) for one text.
    pub cosine_low: f64,
    /// Upper end of the 95 % bootstrap interval of the mean; NaN (`null` in JSON) for one text.
    pub cosine_high: f64,
    /// First percentile of the cosines over the texts.
    pub cosine_p1: f64,
    /// Minimum of the cosines over the texts.
    pub cosine_min: f64,
    /// Fraction of texts whose nearest other text, by cosine, is the same in both models; over at most the first 2,000
    /// texts.
    pub nearest_kept: f64,
    /// Number of texts that were compared.
    pub texts: usize,
    /// Number of elements of a vector.
    pub width: usize,
    /// Name of the compared output of the original.
    pub output: String,
    /// Pooling of the token vectors; `None` if the model outputs one vector per text.
    pub pooling: Option<Pooling>,
}

/// Returns the vectors of `model` for `texts`.
///
/// The vectors come from the output `sentence_embedding`; otherwise from `token_embeddings` or `last_hidden_state`,
/// pooled as the model's card says (default: mean); otherwise from another output of the right shape. Texts are
/// truncated to the positions of the model. Reports the stage `evaluate`, in texts. Fails with
/// [`crate::error::Kind::Unsupported`] if the model outputs no vectors; with `InvalidArgument` if there is no text, or
/// if a text has no tokens.
pub fn embed(
    runtime: &'static Runtime,
    model: &Model,
    tokenizer: &Tokenizer,
    texts: &[String],
    options: &TextOptions,
    call: &Call,
) -> Result<Embeddings> {
    let mut units = Units::new(call, Stage::EVALUATE_TEXTS, texts.len());
    embed_counted(runtime, model, tokenizer, texts, options, &mut units)
}

/// Returns the vectors of `model` for `texts` like [`embed`], and counts the texts in `units`. Fails like [`embed`].
pub fn embed_counted(
    runtime: &'static Runtime,
    model: &Model,
    tokenizer: &Tokenizer,
    texts: &[String],
    options: &TextOptions,
    units: &mut Units,
) -> Result<Embeddings> {
    let batches = Batches::new(model, tokenizer, texts, options)?;
    let session = Session::new(runtime, model, &options.session(), &units.quiet())?;
    Vectors::of(&session, model, tokenizer)?.run(&batches, &session, units)
}

/// Returns the similarity of the vectors of two models for `texts`. One is loaded after the other. See [`embed`].
///
/// Each model reads the texts with its own tokenizer: `tokenizer` is the original's. Also fails with
/// [`crate::error::Kind::InvalidArgument`] if the vectors have different numbers of elements.
pub fn compare_embeddings(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: &Tokenizer,
    texts: &[String],
    options: &TextOptions,
    call: &Call,
) -> Result<EmbeddingSimilarity> {
    let mut units = Units::new(call, Stage::EVALUATE_TEXTS, 2 * texts.len());
    let own = reading(original, result, Some(tokenizer)).at(|| "the result")?;
    let theirs = own.as_ref().map_or(tokenizer, |own| &own.tokenizer);
    let mut of = |model, tokenizer| embed_counted(runtime, model, tokenizer, texts, options, &mut units);
    let (before, after) = (of(original, tokenizer).at(|| "the original")?, of(result, theirs).at(|| "the result")?);
    if before.width != after.width {
        let (before, after) = (before.width, after.width);
        bail!(
            InvalidArgument,
            "the vectors of the original have {before} elements, but those of the result {after}, so there is no cosine"
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
    let (cosine_low, cosine_high) = mean_interval(&cosines, 1, 0);
    Ok(EmbeddingSimilarity {
        cosine: mean(&cosines),
        cosine_low,
        cosine_high,
        cosine_p1: percentile(&ordered, 0.01),
        cosine_min: percentile(&ordered, 0.0),
        nearest_kept: kept as f64 / among.max(1) as f64,
        texts: cosines.len(),
        width: before.width,
        output: before.output.clone(),
        pooling: before.pooling,
    })
}

/// Returns the index of the other text whose vector is nearest to that of `text`, the first of equal ones; `None` if
/// there is no other text.
fn nearest(units: &[Vec<f64>], text: usize) -> Option<usize> {
    let others = (0..units.len()).filter(|other| *other != text);
    let near = |best: Option<(usize, f64)>, other: usize| {
        let cosine = dot(&units[text], &units[other]);
        if best.is_some_and(|(_, most)| cosine <= most) { best } else { Some((other, cosine)) }
    };
    others.fold(None, near).map(|(other, _)| other)
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
        // By cosine, the first text is nearest to the second in a, and to the third in b. The others are nearest to the
        // first in both.
        assert!((found.nearest_kept - 2.0 / 3.0).abs() < 1e-12);
        let zero = similarity(&embeddings(2, &[0.0, 0.0]), &embeddings(2, &[1.0, 0.0]), &Call::default()).unwrap();
        assert_eq!((zero.cosine, zero.texts, zero.nearest_kept), (0.0, 1, 1.0));
    }
}
