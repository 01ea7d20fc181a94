//! The accuracy of a classifier on labelled texts.

use super::labelled::Labelled;
use super::paired::Interval;
use super::scores::{ClassScores, Counts};
use crate::benchmark::Both;
use crate::call::{Call, Stage, Units};
use crate::encoder::{Batches, TextOptions, logits, logits_of};
use crate::error::{Context, Result, bail};
use crate::likelihood::argmax;
use crate::meaning::classes::inverse;
use crate::meaning::{Order, reading};
use crate::model::Model;
use crate::runtime::{Runtime, Session};
use crate::text::Tokenizer;
use serde::Serialize;

/// The maximum number of class names in messages.
const NAMES_SHOWN: usize = 20;

/// The scores of two classifiers on the same texts.
#[derive(Debug, Clone, Serialize)]
pub struct PairedClassification {
    /// Scores of each of the classifiers.
    #[serde(flatten)]
    pub scores: Both<ClassScores>,
    /// Fraction of texts to which both assign the same class, right or wrong.
    pub agreement: f64,
    /// Accuracy of the result minus that of the original, with a bootstrap interval over the texts.
    pub accuracy_change: Interval,
}

/// The predictions of a classifier: the class of each text, and the number of classes.
struct Predictions {
    classes: Vec<usize>,
    count: usize,
}

/// Returns the accuracy and other scores of `model` on labelled texts. The predicted class is the one with the largest
/// of the model's `logits`.
///
/// Labels are names of classes (`id2label` of the model's configuration) or their indices from 0. Texts are truncated
/// to the positions of the model. Reports the stage `evaluate`, in texts. Fails with
/// [`crate::error::Kind::Unsupported`] if the model is not a classifier; with `InvalidArgument`, with the line, for an
/// unknown label; with `Runtime` if all logits of a text are NaN.
pub fn classify(
    runtime: &'static Runtime,
    model: &Model,
    tokenizer: &Tokenizer,
    rows: &[Labelled],
    options: &TextOptions,
    call: &Call,
) -> Result<ClassScores> {
    let names = Names(model.card().class_names());
    let truths = names.truths(rows)?;
    let mut units = Units::new(call, Stage::EVALUATE_TEXTS, rows.len());
    let predictions = predict(runtime, model, tokenizer, rows, options, &mut units)?;
    score(&names, &truths, rows, &predictions)
}

/// Returns the scores of two classifiers on the same texts. One is loaded after the other. See [`classify`].
///
/// Their classes are compared by name, and each classifier reads the texts with its own tokenizer: `tokenizer` is the
/// original's. Labels are classes of the original. Fails with [`crate::error::Kind::InvalidArgument`] if the classes of
/// the two differ.
pub fn compare_classification(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: &Tokenizer,
    rows: &[Labelled],
    options: &TextOptions,
    call: &Call,
) -> Result<PairedClassification> {
    let names = Names(original.card().class_names());
    let truths = names.truths(rows)?;
    let mut units = Units::new(call, Stage::EVALUATE_TEXTS, 2 * rows.len());
    let (before, after) = both(runtime, original, result, tokenizer, rows, options, &mut units)?;
    let right = |of: &Predictions, text: usize| f64::from(u8::from(of.classes[text] == truths[text]));
    let changes: Vec<f64> = (0..rows.len()).map(|text| right(&after, text) - right(&before, text)).collect();
    let same = before.classes.iter().zip(&after.classes).filter(|(a, b)| a == b).count();
    Ok(PairedClassification {
        scores: Both {
            original: score(&names, &truths, rows, &before)?,
            result: score(&names, &truths, rows, &after)?,
        },
        agreement: same as f64 / rows.len().max(1) as f64,
        accuracy_change: Interval::of(&changes, 1),
    })
}

/// Returns the fraction of texts to which both classifiers assign the same class. One is loaded after the other, and
/// each reads the texts with its own tokenizer: `tokenizer` is the original's. Fails like [`classify`], except that
/// there are no labels, and with [`crate::error::Kind::InvalidArgument`] if there is no text or the names of the
/// classes differ.
pub fn class_agreement(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: &Tokenizer,
    texts: &[String],
    options: &TextOptions,
    call: &Call,
) -> Result<f64> {
    let row = |(index, text): (usize, &String)| Labelled { label: String::new(), text: text.clone(), line: index + 1 };
    let rows: Vec<Labelled> = texts.iter().enumerate().map(row).collect();
    let mut units = Units::new(call, Stage::EVALUATE_TEXTS, 2 * rows.len());
    let (before, after) = both(runtime, original, result, tokenizer, &rows, options, &mut units)?;
    let same = before.classes.iter().zip(&after.classes).filter(|(a, b)| a == b).count();
    Ok(same as f64 / rows.len().max(1) as f64)
}

/// Returns the predictions of two classifiers, in the classes of the original.
fn both(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: &Tokenizer,
    rows: &[Labelled],
    options: &TextOptions,
    units: &mut Units,
) -> Result<(Predictions, Predictions)> {
    let order = Order::of(original.card(), result.card(), "the original", "the result").mapping()?;
    let own = reading(original, result, Some(tokenizer)).at(|| "the result")?;
    let theirs = own.as_ref().map_or(tokenizer, |own| &own.tokenizer);
    let before = predict(runtime, original, tokenizer, rows, options, units).at(|| "the original")?;
    let mut after = predict(runtime, result, theirs, rows, options, units).at(|| "the result")?;
    if before.count != after.count {
        let (before, after) = (before.count, after.count);
        bail!(InvalidArgument, "the original has {before} classes, the result {after}: they cannot be compared");
    }
    if let Some(order) = order.filter(|order| order.len() == after.count) {
        let known = inverse(&order);
        after.classes.iter_mut().for_each(|class| *class = known[*class]);
    }
    Ok((before, after))
}

fn predict(
    runtime: &'static Runtime,
    model: &Model,
    tokenizer: &Tokenizer,
    rows: &[Labelled],
    options: &TextOptions,
    units: &mut Units,
) -> Result<Predictions> {
    let output = logits_of(model)?;
    let texts: Vec<String> = rows.iter().map(|row| row.text.clone()).collect();
    let batches = Batches::new(model, tokenizer, &texts, options)?;
    let session = options.session();
    let session = Session::new(runtime, model, &session, &units.quiet())?;
    let logits = logits(&batches, &session, &output, units)?;
    if logits.classes < 2 {
        bail!(Unsupported, "the output {output:?} has one value for a text: a score, not classes");
    }
    let class = |(text, row): (usize, &[f32])| match argmax(row) {
        Some(class) => Ok(class),
        None => bail!(Runtime, "none of the logits of text {} is a number", text + 1),
    };
    let classes = logits.values.chunks_exact(logits.classes).enumerate().map(class).collect::<Result<_>>()?;
    Ok(Predictions { classes, count: logits.classes })
}

fn score(names: &Names, truths: &[usize], rows: &[Labelled], predictions: &Predictions) -> Result<ClassScores> {
    let mut counts = Counts::default();
    for ((truth, prediction), row) in truths.iter().zip(&predictions.classes).zip(rows) {
        if *truth >= predictions.count {
            let (line, count) = (row.line, predictions.count);
            bail!(InvalidArgument, "line {line}: the label is {:?}, but the model has {count} classes", row.label);
        }
        counts.add(*truth, *prediction);
    }
    Ok(counts.scores(|class| names.name(class)))
}

/// The names of a model's classes, with their indices.
struct Names(Vec<(usize, String)>);

impl Names {
    fn name(&self, class: usize) -> String {
        self.0.iter().find(|(index, _)| *index == class).map_or_else(|| class.to_string(), |(_, name)| name.clone())
    }

    /// Returns the class of each row. A name that matches a label exactly has priority over one that differs in case,
    /// which has priority over an index.
    fn truths(&self, rows: &[Labelled]) -> Result<Vec<usize>> {
        rows.iter().map(|row| self.class(&row.label).at(|| format!("line {}", row.line))).collect()
    }

    fn class(&self, label: &str) -> Result<usize> {
        let exact = self.0.iter().find(|(_, name)| name == label);
        let found = exact.or_else(|| self.0.iter().find(|(_, name)| name.to_lowercase() == label.to_lowercase()));
        if let Some((index, _)) = found {
            return Ok(*index);
        }
        // If the classes have no names, any index may be valid; it is checked once the model has run.
        match label.parse::<usize>() {
            Ok(index) if self.0.is_empty() || self.0.iter().any(|(known, _)| *known == index) => Ok(index),
            _ if self.0.is_empty() => bail!(
                InvalidArgument,
                "the label {label:?} is not a number, and the model's configuration does not name its classes"
            ),
            _ => {
                let names: Vec<&str> = self.0.iter().map(|(_, name)| name.as_str()).take(NAMES_SHOWN).collect();
                bail!(InvalidArgument, "the model has no class {label:?}; its classes are {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_names_or_numbers() {
        let names = Names([(0, "Ham"), (1, "spam"), (2, "1")].map(|(i, name)| (i, name.to_owned())).to_vec());
        let class = |label: &str| names.class(label).unwrap();
        assert_eq!((class("Ham"), class("SPAM"), class("0"), class("1")), (0, 1, 0, 2));
        let e = names.class("eggs").unwrap_err().to_string();
        assert!(e.contains("eggs") && e.contains("Ham, spam, 1"), "{e}");
        assert!(names.class("3").is_err() && names.class("-1").is_err());
        assert_eq!((names.name(1), names.name(7)), ("spam".to_owned(), "7".to_owned()));
        let none = Names(Vec::new());
        assert_eq!(none.class("41").unwrap(), 41);
        assert!(none.class("spam").unwrap_err().to_string().contains("does not name"));
    }
}
