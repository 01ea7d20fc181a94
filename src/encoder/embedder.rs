//! An embedder that computes vectors of texts ([`Embedder`]).

use super::{Batches, Embeddings, TextOptions, Vectors, tokenizer_of};
use crate::call::{Call, Stage, Units};
use crate::error::{Context, Result, bail};
use crate::model::Model;
use crate::runtime::{Placement, Runtime, Session};
use crate::text::Tokenizer;
use std::sync::Arc;

/// The options of an [`Embedder`].
#[derive(Debug, Clone, Default)]
pub struct EmbedderOptions {
    /// Length and number of the texts in a run, and options of the session. See [`TextOptions`].
    pub text: TextOptions,
    /// Whether vectors are normalized to length 1, also if the model does not do so.
    pub normalize: bool,
    /// Number of elements to keep of each vector, its first ones, for models that were trained with Matryoshka loss; 0
    /// keeps as many as `truncate_dim` of the model's `config_sentence_transformers.json` says, or all if that is not
    /// set. Truncated vectors are normalized again only if `normalize` is set.
    pub dimensions: usize,
    /// Text that precedes every text, in place of the default prompt of the model. `None` keeps the default prompt,
    /// unless `prompt_name` is given.
    pub prompt: Option<String>,
    /// Name of one of the prompts of the model's `config_sentence_transformers.json` (`query`, `passage` ...), in place
    /// of the default prompt. It cannot be given together with `prompt`.
    pub prompt_name: Option<String>,
}

/// A model that computes vectors of texts. Any number of threads may use it at the same time.
pub struct Embedder {
    model: Model,
    tokenizer: Arc<Tokenizer>,
    session: Session,
    vectors: Vectors,
    options: EmbedderOptions,
}

impl Embedder {
    /// Loads a model for embedding and returns the embedder. `tokenizer` replaces the model's own.
    ///
    /// The vectors are those of the output `sentence_embedding`; otherwise of `token_embeddings` or
    /// `last_hidden_state`, pooled as the model's folder says (default: mean); otherwise of the first other output with
    /// the shape of vectors that does not contain scores (see [`super::ScoreFunction::Auto`]). If the configuration
    /// names a class for classification, the name of that output must contain `embed`; if the model outputs logits of
    /// classes, that output must have token vectors.
    ///
    /// If the model's folder leaves the tokens of the prompt out of the pooling, those of a prompt of the options are
    /// left out, too; for this, a graph that pools must also output its token vectors.
    ///
    /// Fails with [`crate::error::Kind::Unsupported`] if the model outputs no vectors, or no token vectors where they
    /// are needed for a prompt. Fails with `NotFound` if there is no tokenizer or no prompt of that name, and with
    /// `InvalidArgument` if both prompts are given or `max_length` exceeds the positions of the model. Fails with
    /// `InvalidModel` if a file of the model is damaged, and otherwise like [`Session::new`].
    pub fn new(
        runtime: &'static Runtime,
        model: &Model,
        tokenizer: Option<Arc<Tokenizer>>,
        options: &EmbedderOptions,
        call: &Call,
    ) -> Result<Embedder> {
        let mut tokenizer = tokenizer_of(model, tokenizer)?;
        if let Some(prompt) = prompt(model, options)? {
            tokenizer = Arc::new(tokenizer.with_prompt(&prompt));
        }
        // The options are checked before the session is created, which takes longer.
        options.text.length(model)?;
        let session = Session::new(runtime, model, &options.text.session(), call)?;
        let vectors = Vectors::of(&session, model, &tokenizer)?.with_dimensions(options.dimensions);
        Ok(Embedder { model: model.clone(), tokenizer, session, vectors, options: options.clone() })
    }

    /// Returns the vector of each text, in the order of the texts.
    ///
    /// Texts are truncated to [`TextOptions::max_length`]. Progress stage: `embed`, in texts. Fails with
    /// [`crate::error::Kind::InvalidArgument`] if there is no text, for a text without tokens, if `batch_size` is 0, or
    /// if `dimensions` exceeds the width of the vectors. Fails with `Unsupported` if the output does not have the shape
    /// of vectors, with `Runtime` if an element is not finite, and otherwise like [`Session::run`].
    pub fn embed<T: AsRef<str>>(&self, texts: &[T], call: &Call) -> Result<Embeddings> {
        let texts: Vec<String> = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        let batches = Batches::new(&self.model, &self.tokenizer, &texts, &self.options.text)?.by_length();
        let mut units = Units::new(call, Stage::EMBED, texts.len());
        let mut found = self.vectors.run(&batches, &self.session, &mut units)?;
        if self.options.normalize {
            found.values = found.unit().into_iter().map(|value| value as f32).collect();
        }
        Ok(found)
    }

    /// Returns the provider and the device on which the model runs.
    pub fn placement(&self) -> &Placement {
        self.session.placement()
    }
}

/// Returns the prompt that the options select, by its text or its name; `None` for the default prompt.
fn prompt(model: &Model, options: &EmbedderOptions) -> Result<Option<String>> {
    match (&options.prompt, &options.prompt_name) {
        (Some(_), Some(_)) => bail!(InvalidArgument, "prompt and prompt_name are both given"),
        (Some(prompt), None) => Ok(Some(prompt.clone())),
        (None, Some(name)) => {
            let card = model.card();
            let beside =
                |file: &str| card.side_file(file).map(|content| content.read().at(|| file.to_owned())).transpose();
            crate::text::named_prompt(&beside, name).map(Some)
        }
        (None, None) => Ok(None),
    }
}
