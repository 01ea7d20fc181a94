//! A classifier that computes the scores of classes for texts, or pairs of texts ([`Classifier`]).

use super::{Batches, TextOptions, logits_in, no_logits, tokenizer_of};
use crate::call::{Call, Stage, Units};
use crate::choice::choice;
use crate::error::{Result, bail};
use crate::likelihood::log_sum_exp;
use crate::model::{Card, Dim, Model, ValueInfo};
use crate::runtime::{Placement, Runtime, Session};
use crate::text::Tokenizer;
use std::sync::Arc;

choice! {
    /// The function that converts the logits of a classifier to scores.
    pub enum ScoreFunction: optimize_score_function_t = Auto {
        /// The function that the configuration of the model selects by `problem_type`: none for `regression`, sigmoid
        /// for `multi_label_classification` (classes do not exclude each other). With any other type or none: sigmoid
        /// if the model has one class, softmax if it has several.
        Auto = 0, "auto";
        /// Softmax: the scores of a text are at least 0, and their sum is 1.
        Softmax = 1, "softmax";
        /// Sigmoid: each score is between 0 and 1.
        Sigmoid = 2, "sigmoid";
        /// No function: the scores are the logits.
        None = 3, "none";
    }
}

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
    function: ScoreFunction,
    labels: Vec<String>,
}

impl Classifier {
    /// Loads a model for classification and returns the classifier. `tokenizer` replaces the model's own.
    ///
    /// Fails with [`crate::error::Kind::Unsupported`] if the model is not a classifier, `NotFound` if there is no
    /// tokenizer, `InvalidArgument` if `max_length` exceeds the positions of the model, and otherwise like
    /// [`Session::new`].
    pub fn new(
        runtime: &'static Runtime,
        model: &Model,
        tokenizer: Option<Arc<Tokenizer>>,
        function: ScoreFunction,
        options: &TextOptions,
        call: &Call,
    ) -> Result<Classifier> {
        let output = logits_of(model)?;
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
    /// text of the same index there, as cross-encoders (rerankers, natural language inference) do.
    ///
    /// Texts are truncated to [`TextOptions::max_length`]; of a pair, the longer text first. Progress stage:
    /// `classify`, in texts. Fails with [`crate::error::Kind::InvalidArgument`] if there is no text, or if the numbers
    /// of texts differ; `Unsupported` if the output does not have the shape `[texts, classes]`; `Runtime` if a logit is
    /// NaN; and otherwise like [`Session::run`].
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
        let function = self.function_for(found.classes);
        found.values.chunks_exact_mut(found.classes).for_each(|row| scores(function, row));
        Ok(found)
    }

    /// Returns the provider and the device on which the model runs.
    pub fn placement(&self) -> &Placement {
        self.session.placement()
    }

    fn function_for(&self, classes: usize) -> ScoreFunction {
        let problem = self.model.card().config.get("problem_type").and_then(|value| value.as_str());
        match (self.function, problem) {
            (ScoreFunction::Auto, Some("regression")) => ScoreFunction::None,
            (ScoreFunction::Auto, Some("multi_label_classification")) => ScoreFunction::Sigmoid,
            (ScoreFunction::Auto, _) if classes == 1 => ScoreFunction::Sigmoid,
            (ScoreFunction::Auto, _) => ScoreFunction::Softmax,
            (given, _) => given,
        }
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

/// Converts the logits of a text to scores, in place. `Auto` is treated as `Softmax`.
fn scores(function: ScoreFunction, row: &mut [f32]) {
    match function {
        ScoreFunction::None => {}
        ScoreFunction::Sigmoid => row.iter_mut().for_each(|x| *x = (1.0 / (1.0 + (-f64::from(*x)).exp())) as f32),
        ScoreFunction::Auto | ScoreFunction::Softmax => {
            let norm = log_sum_exp(row);
            row.iter_mut().for_each(|x| *x = (f64::from(*x) - norm).exp() as f32);
        }
    }
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

/// Returns the name of the output with the logits of the classes of each text, `[texts, classes]`. Fails with
/// `Unsupported` if there is none.
pub(crate) fn logits_of(model: &Model) -> Result<String> {
    match logits_in(model, 2) {
        Some(output) => Ok(output),
        None if model.outputs().iter().any(is_of_tokens) => {
            bail!(Unsupported, "the logits of the model are those of tokens, not of texts: a Tagger reads them")
        }
        None => Err(no_logits(model, "two", "classifiers")),
    }
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
    fn scores_are_those_by_hand() {
        let of = |function, logits: &[f32]| {
            let mut row = logits.to_vec();
            scores(function, &mut row);
            row
        };
        assert_eq!(of(ScoreFunction::None, &[2.0, -1.0]), [2.0, -1.0]);
        assert_eq!(of(ScoreFunction::Sigmoid, &[0.0, f32::NEG_INFINITY]), [0.5, 0.0]);
        let softmax = of(ScoreFunction::Softmax, &[1000.0, 1000.0 + 3f32.ln()]);
        assert!((softmax[0] - 0.25).abs() < 1e-4 && (softmax[1] - 0.75).abs() < 1e-4, "{softmax:?}");
    }

    #[test]
    fn classes_without_names_are_numbered() {
        let config = json!({ "id2label": { "0": "ham", "2": "spam" } }).as_object().cloned().unwrap();
        let card = Card { config, ..Card::default() };
        assert_eq!(labels(&card, None), ["ham", "1", "spam"]);
        assert_eq!(labels(&card, Some(4)), ["ham", "1", "spam", "3"]);
        assert!(labels(&Card::default(), None).is_empty());
    }
}
