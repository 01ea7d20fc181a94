//! A decoder that reads a window of tokens from the start and returns the logits of the last positions ([`Reader`]).

use super::options::PerplexityOptions;
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::inputs::window::{empty_cache, without_caches};
use crate::model::{Model, Task};
use crate::onnx::dtype::DataType;
use crate::runtime::{Runtime, Session, SessionOptions, Stop, Tensor};
use crate::text::Decoder;

/// A loaded language model, whose cache inputs are empty for each window.
pub struct Reader {
    session: Session,
    decoder: Decoder,
    /// Cache inputs without past tokens.
    empty: Vec<Tensor>,
}

/// The logits of the last positions of a window.
pub struct Logits {
    tensor: Tensor,
    vocabulary: usize,
    /// Position of the first row of logits.
    first: usize,
}

impl Reader {
    /// Loads a model and returns a reader. Fails with [`crate::error::Kind::Unsupported`] if the model does not
    /// generate text.
    pub fn new(runtime: &'static Runtime, model: &Model, options: &PerplexityOptions, call: &Call) -> Result<Reader> {
        let task = model.card().task;
        if !matches!(task, Task::Generate | Task::Unknown) {
            bail!(Unsupported, "perplexity requires a model that generates text; the task of this one is {task:?}");
        }
        let mut decoder = Decoder::of(model)?;
        let execution = options.execution.clone();
        let options = SessionOptions { threads: options.threads, execution, ..SessionOptions::default() };
        let session = Session::new(runtime, model, &options, call)?;
        decoder.set_cache_types(&session);
        let empty = decoder.cache.iter().map(|pair| empty_cache(pair, 1)).collect::<Result<_>>()?;
        Ok(Reader { session, decoder, empty })
    }

    /// Reads `tokens` and returns the logits of at least the last `keep` positions. Fails with
    /// [`crate::error::Kind::Unsupported`] if the shape or type of the output is not that of logits.
    pub fn read(&mut self, tokens: &[i64], keep: usize, stop: &Stop) -> Result<Logits> {
        let decoder = &self.decoder;
        let inputs = without_caches(decoder, tokens, keep)?;
        let mut feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
        feed.extend(decoder.cache.iter().map(|pair| pair.past.as_str()).zip(&self.empty));
        let (name, tensor) = self.session.run_until(&feed, &[decoder.logits.as_str()], stop)?.remove(0);
        Logits::new(tensor, tokens.len(), keep).at(|| format!("output {name:?}"))
    }
}

impl Logits {
    fn new(tensor: Tensor, tokens: usize, keep: usize) -> Result<Logits> {
        let shape = tensor.shape().to_vec();
        let &[1, rows, vocabulary] = shape.as_slice() else {
            bail!(Unsupported, "the output has shape {shape:?}, not [1, tokens, vocabulary]");
        };
        let (rows, vocabulary) = (rows as usize, vocabulary as usize);
        if rows > tokens || rows < keep.min(tokens) || vocabulary == 0 {
            bail!(Unsupported, "the output has shape {shape:?} for {tokens} tokens");
        }
        let float = tensor.dtype() == DataType::Float32;
        let tensor = if float { tensor } else { Tensor::from_f32(&shape, tensor.to_f32_vec()?)? };
        Ok(Logits { first: tokens - rows, vocabulary, tensor })
    }

    /// Returns the size of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Returns the logits at a position of the window, which predict the next token. Never fails, because the logits
    /// are float32. Panics for a position that was not kept.
    pub fn at(&self, position: usize) -> Result<&[f32]> {
        let begin = (position - self.first) * self.vocabulary;
        Ok(&self.tensor.as_slice::<f32>()?[begin..begin + self.vocabulary])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_know_their_positions() {
        let tensor = Tensor::from_f32(&[1, 2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let logits = Logits::new(tensor.clone(), 5, 2).unwrap();
        assert_eq!((logits.vocabulary(), logits.at(4).unwrap()), (3, [3.0, 4.0, 5.0].as_slice()));
        assert_eq!(logits.at(3).unwrap(), [0.0, 1.0, 2.0]);
        assert!(Logits::new(tensor.clone(), 5, 3).is_err() && Logits::new(tensor, 1, 1).is_err());
        let half = Tensor::from_vec(&[1, 1, 2], vec![half::f16::ONE, half::f16::ZERO]).unwrap();
        assert_eq!(Logits::new(half.clone(), 1, 1).unwrap().at(0).unwrap(), [1.0, 0.0]);
        assert!(Logits::new(Tensor::from_f32(&[1, 2], vec![0.0; 2]).unwrap(), 1, 1).is_err());
    }
}
