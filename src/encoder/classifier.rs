//! A classifier that computes the scores of classes for texts, or pairs of texts ([`Classifier`]).

use super::outputs::{class_of, logits_in, no_logits};
use super::scores::{Function, ScoreFunction};
use super::{Batches, TextOptions, tokenizer_of};
use crate::call::{Call, Stage, Units};
use crate::error::{Error, Result, bail, error};
use crate::model::{Card, Dim, Model, Task, ValueInfo};
use crate::runtime::{Placement, Runtime, Session};
use crate::text::Tokenizer;
use std::sync::Arc;

/// The scores of texts for classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Scores row by row, `texts × classes`.
    pub values: Vec<f32>,
    /// Number of classes, which is the number of scores of a text.
    pub classes: usize,
}

/// A model that computes the scores of classes for texts. Any number of threads may use it at the same time.
pub struct Classifier {
    model: Model,
    tokenizer: Arc<Tokenizer>,
    session: Session,
    options: TextOptions,
    output: String,
    /// Function of the scores; `None` if it depends on the number of classes.
    function: Option<Function>,
    labels: Vec<String>,
}

impl Classifier {
    /// Loads a model for classification and returns the classifier. `tokenizer` replaces the model's own.
    ///
    /// Fails with [`crate::error::Kind::Unsupported`] if the model is not a classifier or its files name an unknown
    /// function of the scores, and with `NotFound` if there is no tokenizer. Fails with `InvalidArgument` if
    /// `max_length` exceeds the positions of the model, with `InvalidModel` if a file of the model is damaged, and
    /// otherwise like [`Session::new`].
    pub fn new(
        runtime: &'static Runtime,
        model: &Model,
        tokenizer: Option<Arc<Tokenizer>>,
        function: ScoreFunction,
        options: &TextOptions,
        call: &Call,
    ) -> Result<Classifier> {
        let output = logits_of(model)?;
        let function = Function::of(model, &output, function)?;
        let tokenizer = tokenizer_of(model, tokenizer)?;
        // The options are checked before the session is created, which takes longer.
        options.length(model)?;
        let session = Session::new(runtime, model, &options.session(), call)?;
        let labels = labels(model.card(), classes_of(&session, &output));
        Ok(Classifier { model: model.clone(), tokenizer, session, options: options.clone(), output, function, labels })
    }

    /// Returns the names of the classes by index: `id2label` of the model's configuration; the index as text for a
    /// class without a name. Empty if neither the configuration nor the graph says how many classes there are.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Returns the scores of each text, in the order of the texts. With `second`, each text is read together with the
    /// text of the same index in `second`, as cross-encoders (rerankers, natural language inference) do.
    ///
    /// Texts are truncated to [`TextOptions::max_length`]; of a pair, the longer text is truncated first. Progress
    /// stage: `classify`, in texts. Fails with [`crate::error::Kind::InvalidArgument`] if there is no text, for a text
    /// without tokens, if `batch_size` is 0, or if the numbers of texts differ. Fails with `Unsupported` if the output
    /// does not have the shape `[texts, classes]`, with `Runtime` if a logit is NaN, and otherwise like
    /// [`Session::run`].
    pub fn classify<T: AsRef<str>>(&self, texts: &[T], second: Option<&[T]>, call: &Call) -> Result<Scores> {
        let owned = |from: &[T]| from.iter().map(|text| text.as_ref().to_owned()).collect::<Vec<String>>();
        let mut batches = Batches::new(&self.model, &self.tokenizer, &owned(texts), &self.options)?;
        if let Some(second) = second {
            batches = batches.with_second(owned(second))?;
        }
        let mut units = Units::new(call, Stage::CLASSIFY, texts.len());
        let mut found = logits(&batches.by_length(), &self.session, &self.output, &mut units)?;
        if let Some(broken) = found.values.iter().position(|value| value.is_nan()) {
            bail!(Runtime, "a logit of text {} is not a number", broken / found.classes + 1);
        }
        let function = self.function.unwrap_or_else(|| Function::usual(found.classes));
        found.values.chunks_exact_mut(found.classes).for_each(|row| function.apply(row));
        Ok(found)
    }

    /// Returns the provider and the device on which the model runs.
    pub fn placement(&self) -> &Placement {
        self.session.placement()
    }
}

/// Returns the logits of the texts of `batches`. `output` is the name that [`logits_of`] returns.
pub(crate) fn logits(batches: &Batches<'_>, session: &Session, output: &str, units: &mut Units<'_>) -> Result<Scores> {
    let (values, classes) = batches.rows(session, output, units, |tensor, _, texts| {
        let &[rows, classes] = tensor.shape() else {
            bail!(Unsupported, "the output {output:?} has shape {:?}, not [texts, classes]", tensor.shape());
        };
        if (rows as usize) < texts || classes < 1 {
            bail!(Unsupported, "the output {output:?} has {rows} rows of {classes} values for {texts} texts");
        }
        let mut values = tensor.to_f32_vec()?;
        values.truncate(texts * classes as usize);
        Ok(values)
    })?;
    Ok(Scores { values, classes })
}

/// Returns the number of classes that the session's output has; `None` if its last dimension is not fixed.
fn classes_of(session: &Session, output: &str) -> Option<usize> {
    let info = session.outputs().iter().find(|info| info.name == output)?;
    match info.shape.as_ref()?.last()? {
        Dim::Fixed(size) => usize::try_from(*size).ok(),
        _ => None,
    }
}

/// Returns the names of `count` classes; the indices of those that the configuration does not name. Without `count`,
/// the class with the highest index that the configuration names is the last one.
fn labels(card: &Card, count: Option<usize>) -> Vec<String> {
    let named = card.class_names();
    let count = count.unwrap_or_else(|| named.iter().map(|(index, _)| index + 1).max().unwrap_or(0));
    let name = |class: usize| named.iter().find(|(index, _)| *index == class).map(|(_, name)| name.clone());
    (0..count).map(|class| name(class).unwrap_or_else(|| class.to_string())).collect()
}

/// Returns the name of the output with the logits or scores of the classes of each text, `[texts, classes]`. Fails with
/// `Unsupported` if there is none.
pub(crate) fn logits_of(model: &Model) -> Result<String> {
    match logits_in(model, 2) {
        Some(output) => Ok(output),
        None if model.outputs().iter().any(is_of_tokens) => Err(of_tokens(model.card())),
        None => Err(no_logits(model, "two", "classifiers")),
    }
}

/// Returns the error for a model with logits of tokens, which says what the model is for.
fn of_tokens(card: &Card) -> Error {
    let class = class_of(card);
    let ends = |names: &[&str]| names.iter().any(|name| class.ends_with(name));
    let what = match card.task {
        _ if ends(&["ForMaskedLM", "ForPreTraining"]) => "it predicts masked tokens",
        _ if ends(&["ForCausalLM", "LMHeadModel", "ForConditionalGeneration"]) => "it generates text",
        _ if class.ends_with("ForTokenClassification") => "a Tagger reads them",
        Task::Classify => "a Tagger reads them",
        Task::FillMask => "it predicts masked tokens",
        _ => "it is a language model, which generates text or predicts masked tokens",
    };
    error!(Unsupported, "the logits of the model are those of tokens, not of texts: {what}")
}

/// Returns whether an output has logits for each token: its name contains `logit`, and it has three dimensions.
fn is_of_tokens(info: &ValueInfo) -> bool {
    let shape = info.shape.as_ref().map_or(0, Vec::len);
    shape == 3 && info.name.to_lowercase().contains("logit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_without_names_are_numbered() {
        let config = json!({ "id2label": { "0": "ham", "2": "spam" } }).as_object().cloned().unwrap();
        let card = Card { config, ..Card::default() };
        assert_eq!(labels(&card, None), ["ham", "1", "spam"]);
        assert_eq!(labels(&card, Some(4)), ["ham", "1", "spam", "3"]);
        assert!(labels(&Card::default(), None).is_empty());
    }

    #[test]
    fn a_model_with_logits_of_tokens_is_named_for_what_it_is() {
        let why = |class: &str, task| {
            let config = json!({ "architectures": [class] }).as_object().cloned().unwrap();
            of_tokens(&Card { config, task, ..Card::default() }).to_string()
        };
        assert!(why("LlamaForCausalLM", Task::Generate).contains("it generates text"));
        // The graph of a masked language model without token types looks like that of a decoder.
        assert!(why("RobertaForMaskedLM", Task::Generate).contains("it predicts masked tokens"));
        assert!(why("", Task::FillMask).contains("it predicts masked tokens"));
        assert!(why("", Task::Generate).contains("it is a language model"));
        assert!(why("BertForTokenClassification", Task::Unknown).contains("a Tagger reads them"));
        assert!(why("", Task::Classify).contains("a Tagger reads them"));
    }
}
