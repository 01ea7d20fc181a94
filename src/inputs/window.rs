//! The inputs of a decoder that reads a row of tokens from the start, with an empty cache.

use crate::error::{Context, Result};
use crate::runtime::Tensor;
use crate::text::Decoder;
use crate::text::decoder::CachePair;
use bytes::Bytes;

/// Returns all inputs for one row that is read from the start, including empty caches. See [`without_caches`] for the
/// arguments. Fails like [`Tensor::new`].
pub fn whole(decoder: &Decoder, tokens: &[i64], keep: usize) -> Result<Vec<(String, Tensor)>> {
    let given = without_caches(decoder, tokens, keep)?.into_iter().map(|(name, tensor)| (name.to_owned(), tensor));
    let caches = decoder.cache.iter().map(|pair| Ok((pair.past.clone(), empty_cache(pair, 1)?)));
    given.map(Ok).chain(caches).collect()
}

/// Returns all inputs except the caches, for one row `tokens` that is read from the start. The logits of the last
/// `keep` tokens are requested, if the model has an input for their number; otherwise it computes those of all tokens.
/// Fails like [`Tensor::new`].
pub fn without_caches<'d>(decoder: &'d Decoder, tokens: &[i64], keep: usize) -> Result<Vec<(&'d str, Tensor)>> {
    let count = tokens.len() as i64;
    let row = [1, count];
    let mut inputs = vec![(decoder.input_ids.name.as_str(), decoder.input_ids.tensor(&row, tokens.to_vec())?)];
    if let Some(mask) = &decoder.attention_mask {
        inputs.push((&mask.name, mask.tensor(&row, vec![1; tokens.len()])?));
    }
    if let Some(positions) = &decoder.position_ids {
        inputs.push((&positions.name, positions.tensor(&row, (0..count).collect())?));
    }
    if let Some(last) = &decoder.logits_to_keep {
        inputs.push((&last.name, last.tensor(&[1], vec![keep.min(tokens.len()) as i64])?));
    }
    if let Some(branch) = &decoder.use_cache_branch {
        inputs.push((branch, Tensor::from_bools(&[1], &[false])?));
    }
    Ok(inputs)
}

/// Returns an empty past for the cache `pair`: a tensor for `rows` rows and 0 tokens. Fails like [`Tensor::new`].
pub fn empty_cache(pair: &CachePair, rows: usize) -> Result<Tensor> {
    let mut shape = pair.shape.clone();
    (shape[pair.batch], shape[pair.sequence]) = (rows as i64, 0);
    Tensor::new(pair.dtype, &shape, Bytes::new()).at(|| format!("input {:?}", pair.past))
}
