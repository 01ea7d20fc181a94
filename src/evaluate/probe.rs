//! A linear probe, which measures how well a linear classifier separates classes by a model's embeddings.
//!
//! For embedding models, it shows whether a change of the vectors matters.

use super::embedding::embed_counted;
use super::labelled::Labelled;
use super::minimize::minimize;
use super::paired::Interval;
use super::scores::{ClassScores, Counts};
use crate::benchmark::Both;
use crate::call::{Call, Stage, Units};
use crate::encoder::{Embeddings, TextOptions};
use crate::error::{Context, Result, bail};
use crate::likelihood::log_sum_exp;
use crate::meaning::reading;
use crate::model::Model;
use crate::runtime::Runtime;
use crate::statistics::Random;
use crate::text::Tokenizer;
use serde::Serialize;

/// The maximum number of steps of the training.
const STEPS: usize = 500;
/// The size of the largest element of the gradient at which the training ends.
const TOLERANCE: f64 = 1e-5;

/// The options for training and testing a probe.
#[derive(Debug, Clone, Serialize)]
pub struct ProbeOptions {
    /// Options for passing texts to the model.
    #[serde(flatten)]
    pub text: TextOptions,
    /// Fraction of each class's texts held out for the test, above 0 and below 1. Default: 0.2.
    pub test_share: f64,
    /// Seed of the split into training and test. Default: 0.
    pub seed: u64,
    /// Factor, 0 or more, of the penalty `penalty / 2 · |W|²` on the weights `W`, which is added to the mean
    /// cross-entropy. Default: 0.5.
    pub penalty: f64,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        ProbeOptions { text: TextOptions::default(), test_share: 0.2, seed: 0, penalty: 0.5 }
    }
}

/// The accuracy of a linear classifier on a model's vectors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbeReport {
    /// Scores on the held-out texts.
    #[serde(flatten)]
    pub scores: ClassScores,
    /// Number of training texts.
    pub train_samples: usize,
    /// Accuracy on the training texts.
    pub train_accuracy: f64,
    /// Number of training steps.
    pub iterations: usize,
    /// Whether the training converged; if not, the classes are hard to separate or the penalty is small.
    pub converged: bool,
    /// Number of elements of a vector.
    pub width: usize,
}

/// The probes of two models on the same split.
#[derive(Debug, Clone, Serialize)]
pub struct PairedProbe {
    /// Probe of each of the models.
    #[serde(flatten)]
    pub probes: Both<ProbeReport>,
    /// Test accuracy of the result minus that of the original, with a bootstrap interval over the texts.
    pub accuracy_change: Interval,
}

/// Trains multinomial logistic regression on the vectors of some of the texts, tests it on the rest, and returns its
/// accuracy.
///
/// Vectors ([`super::embed`]) are normalized to length 1, then each element to mean 0 and variance 1 over the training
/// texts. The split is stratified by class; the same seed and rows give the same split. The training is deterministic.
/// Reports the stage `evaluate`, in texts. Fails with [`crate::error::Kind::InvalidArgument`] if an option is out of
/// range, there are fewer than two classes, or a class has only one text; otherwise like [`super::embed`].
pub fn probe_accuracy(
    runtime: &'static Runtime,
    model: &Model,
    tokenizer: &Tokenizer,
    rows: &[Labelled],
    options: &ProbeOptions,
    call: &Call,
) -> Result<ProbeReport> {
    let split = Split::new(rows, options)?;
    let mut units = Units::new(call, Stage::EVALUATE_TEXTS, rows.len());
    let vectors = embed_counted(runtime, model, tokenizer, &texts(rows), &options.text, &mut units)?;
    Ok(probe(&vectors, &split, options, call)?.0)
}

/// Returns the probes of two models on the same split. One is loaded after the other. Fails like [`probe_accuracy`].
///
/// Each model reads the texts with its own tokenizer: `tokenizer` is the original's.
pub fn compare_probes(
    runtime: &'static Runtime,
    original: &Model,
    result: &Model,
    tokenizer: &Tokenizer,
    rows: &[Labelled],
    options: &ProbeOptions,
    call: &Call,
) -> Result<PairedProbe> {
    let split = Split::new(rows, options)?;
    let mut units = Units::new(call, Stage::EVALUATE_TEXTS, 2 * rows.len());
    let own = reading(original, result, Some(tokenizer)).at(|| "the result")?;
    let theirs = own.as_ref().map_or(tokenizer, |own| &own.tokenizer);
    let mut of = |model, tokenizer| {
        let vectors = embed_counted(runtime, model, tokenizer, &texts(rows), &options.text, &mut units)?;
        probe(&vectors, &split, options, call)
    };
    let (before, right_before) = of(original, tokenizer).at(|| "the original")?;
    let (after, right_after) = of(result, theirs).at(|| "the result")?;
    let number = |right: bool| f64::from(u8::from(right));
    let changes: Vec<f64> = right_before.iter().zip(&right_after).map(|(a, b)| number(*b) - number(*a)).collect();
    Ok(PairedProbe { probes: Both { original: before, result: after }, accuracy_change: Interval::of(&changes, 1) })
}

fn texts(rows: &[Labelled]) -> Vec<String> {
    rows.iter().map(|row| row.text.clone()).collect()
}

/// The texts for training and for the test, and their classes.
struct Split {
    /// Names of the classes, sorted.
    names: Vec<String>,
    /// Index of the class of each text.
    classes: Vec<usize>,
    train: Vec<usize>,
    test: Vec<usize>,
}

impl Split {
    fn new(rows: &[Labelled], options: &ProbeOptions) -> Result<Split> {
        if !(options.test_share > 0.0 && options.test_share < 1.0) {
            bail!(InvalidArgument, "test_share is {}; it must be above 0 and below 1", options.test_share);
        }
        if !(options.penalty >= 0.0 && options.penalty.is_finite()) {
            bail!(InvalidArgument, "penalty is {}; it must be 0 or more", options.penalty);
        }
        let mut names: Vec<String> = rows.iter().map(|row| row.label.clone()).collect();
        names.sort();
        names.dedup();
        if names.len() < 2 {
            bail!(InvalidArgument, "the texts have only one class, or there are none: there is nothing to classify");
        }
        let classes: Vec<usize> = rows.iter().map(|row| names.partition_point(|name| *name < row.label)).collect();
        let mut members = vec![Vec::new(); names.len()];
        classes.iter().enumerate().for_each(|(text, class)| members[*class].push(text));
        let mut random = Random::new(options.seed);
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for (name, mut texts) in names.iter().zip(members) {
            if texts.len() < 2 {
                bail!(InvalidArgument, "the class {name:?} has one text; training and test require one each");
            }
            random.shuffle(&mut texts);
            let kept = ((texts.len() as f64 * options.test_share).round() as usize).clamp(1, texts.len() - 1);
            test.extend(texts.drain(..kept));
            train.extend(texts);
        }
        train.sort_unstable();
        test.sort_unstable();
        Ok(Split { names, classes, train, test })
    }
}

/// Trains and tests a classifier. Returns the report, and for each test text whether its class was predicted.
fn probe(vectors: &Embeddings, split: &Split, options: &ProbeOptions, call: &Call) -> Result<(ProbeReport, Vec<bool>)> {
    let features = standardized(vectors, &split.train);
    let linear = Linear::train(&features, vectors.width, split, options.penalty, call)?;
    let predict = |text: &usize| linear.predict(&features[text * vectors.width..(text + 1) * vectors.width]);
    let mut counts = Counts::default();
    let mut right = Vec::with_capacity(split.test.len());
    for text in &split.test {
        let (truth, prediction) = (split.classes[*text], predict(text));
        counts.add(truth, prediction);
        right.push(truth == prediction);
    }
    let trained = split.train.iter().filter(|text| predict(text) == split.classes[**text]).count();
    let report = ProbeReport {
        scores: counts.scores(|class| split.names[class].clone()),
        train_samples: split.train.len(),
        train_accuracy: trained as f64 / split.train.len() as f64,
        iterations: linear.iterations,
        converged: linear.converged,
        width: vectors.width,
    };
    Ok((report, right))
}

/// Returns the vectors normalized to length 1, then each element to mean 0 and variance 1 over the training texts.
fn standardized(vectors: &Embeddings, train: &[usize]) -> Vec<f64> {
    let width = vectors.width;
    let mut features = vectors.unit();
    let count = train.len() as f64;
    for element in 0..width {
        let mean = train.iter().map(|text| features[text * width + element]).sum::<f64>() / count;
        let squares = train.iter().map(|text| (features[text * width + element] - mean).powi(2)).sum::<f64>();
        // A constant element contains no information.
        let scale = if squares > 0.0 { 1.0 / (squares / count).sqrt() } else { 0.0 };
        features.iter_mut().skip(element).step_by(width).for_each(|x| *x = (*x - mean) * scale);
    }
    features
}

/// A multinomial logistic regression, with a row of `width` weights and a bias for each class.
struct Linear {
    weights: Vec<f64>,
    width: usize,
    classes: usize,
    iterations: usize,
    converged: bool,
}

impl Linear {
    /// Returns the classifier that minimizes the mean cross-entropy and the penalty on the weights (not the biases).
    fn train(features: &[f64], width: usize, split: &Split, penalty: f64, call: &Call) -> Result<Linear> {
        let classes = split.names.len();
        let start = vec![0.0; classes * (width + 1)];
        let share = 1.0 / split.train.len() as f64;
        let found = minimize(start, STEPS, TOLERANCE, |weights, gradient| {
            call.check()?;
            gradient.fill(0.0);
            let mut loss = 0.0;
            for text in &split.train {
                let x = &features[text * width..(text + 1) * width];
                let mut odds = scores(weights, x, classes);
                let norm = log_sum_exp(&odds);
                loss += share * (norm - odds[split.classes[*text]]);
                odds.iter_mut().for_each(|odd| *odd = share * (*odd - norm).exp());
                odds[split.classes[*text]] -= share;
                for (row, pull) in gradient.chunks_exact_mut(width + 1).zip(&odds) {
                    row.iter_mut().zip(x).for_each(|(g, x)| *g += pull * x);
                    row[width] += pull;
                }
            }
            for (row, pull) in weights.chunks_exact(width + 1).zip(gradient.chunks_exact_mut(width + 1)) {
                for (weight, pull) in row[..width].iter().zip(pull) {
                    loss += penalty / 2.0 * weight * weight;
                    *pull += penalty * weight;
                }
            }
            Ok(loss)
        })?;
        Ok(Linear { weights: found.x, width, classes, iterations: found.iterations, converged: found.converged })
    }

    fn predict(&self, x: &[f64]) -> usize {
        debug_assert_eq!(x.len(), self.width);
        let scores = scores(&self.weights, x, self.classes);
        let better = |best: usize, class: usize| if scores[class] > scores[best] { class } else { best };
        (0..self.classes).fold(0, better)
    }
}

fn scores(weights: &[f64], x: &[f64], classes: usize) -> Vec<f64> {
    let width = weights.len() / classes;
    let score = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + row[width - 1];
    weights.chunks_exact(width).map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(labels: &[&str]) -> Vec<Labelled> {
        labels.iter().zip(1..).map(|(l, line)| Labelled { label: (*l).into(), text: "x".into(), line }).collect()
    }

    /// Returns the vectors and labels of three classes around three corners. Each element of a vector is at most
    /// `noise` away from that of its corner.
    fn clouds(count: usize, noise: f64) -> (Embeddings, Vec<Labelled>) {
        let mut random = Random::new(5);
        let mut value = || (random.below(2001) as f64 - 1000.0) / 1000.0 * noise;
        let mut values = Vec::new();
        for text in 0..count {
            let mut vector = [value(), value(), value(), value()];
            vector[text % 3] += 1.0;
            values.extend(vector.map(|x| x as f32));
        }
        let labels: Vec<&str> = (0..count).map(|text| ["a", "b", "c"][text % 3]).collect();
        (Embeddings { values, width: 4, output: "x".into(), pooling: None }, rows(&labels))
    }

    fn run(count: usize, noise: f64, options: &ProbeOptions) -> ProbeReport {
        let (vectors, rows) = clouds(count, noise);
        probe(&vectors, &Split::new(&rows, options).unwrap(), options, &Call::default()).unwrap().0
    }

    #[test]
    fn what_is_apart_is_told_apart_and_noise_is_not() {
        let options = ProbeOptions::default();
        let clear = run(300, 0.3, &options);
        assert_eq!((clear.scores.accuracy, clear.scores.samples, clear.train_samples), (1.0, 60, 240));
        assert_eq!(clear.scores.classes.iter().map(|c| c.support).collect::<Vec<_>>(), [20, 20, 20]);
        let hard = run(300, 1.5, &options);
        assert!(hard.scores.accuracy > 0.4 && hard.scores.accuracy < 0.95, "{hard:?}");
        assert!(hard.iterations > 2 && hard.iterations < STEPS);
        assert_eq!(hard, run(300, 1.5, &options));
        assert_ne!(hard.scores, run(300, 1.5, &ProbeOptions { seed: 1, ..options }).scores);
    }

    #[test]
    fn the_optimum_is_the_one_that_can_be_worked_out() {
        // The only feature is 1 for half of the texts and -1 for the others. The class "b" has a share of p = 3/4 of
        // the first half and of 1 - p of the second: without a penalty, its optimal odds at 1 are p / (1 - p) = 3.
        let labels: Vec<&str> = (0..40).map(|i| if (i % 4 == 0) == (i < 20) { "a" } else { "b" }).collect();
        let split = Split {
            names: vec!["a".into(), "b".into()],
            classes: labels.iter().map(|l| usize::from(*l == "b")).collect(),
            train: (0..40).collect(),
            test: vec![0],
        };
        let features: Vec<f64> = (0..40).map(|i| if i < 20 { 1.0 } else { -1.0 }).collect();
        let linear = Linear::train(&features, 1, &split, 0.0, &Call::default()).unwrap();
        let odds = scores(&linear.weights, &[1.0], 2);
        // Of the first twenty, five are "a" and fifteen "b".
        assert!((odds[1] - odds[0] - 3f64.ln()).abs() < 1e-3, "{odds:?}");
        assert_eq!((linear.predict(&[1.0]), linear.predict(&[-1.0])), (1, 0));
        let tamed = Linear::train(&features, 1, &split, 1.0, &Call::default()).unwrap();
        assert!(tamed.weights[0].abs() < linear.weights[0].abs());
    }

    #[test]
    fn splits_keep_every_class_in_both_parts() {
        let split = Split::new(&rows(&["b", "a", "b", "a", "b", "b", "b"]), &ProbeOptions::default()).unwrap();
        assert_eq!((split.names, split.test.len(), split.train.len()), (vec!["a".into(), "b".into()], 2, 5));
        let message = |labels: &[&str], options| Split::new(&rows(labels), &options).err().unwrap().to_string();
        assert!(message(&["a", "a"], ProbeOptions::default()).contains("one class"));
        assert!(message(&["a", "a", "b"], ProbeOptions::default()).contains("\"b\" has one text"));
        let share = ProbeOptions { test_share: 1.0, ..ProbeOptions::default() };
        assert!(message(&["a", "b"], share).contains("test_share is 1"));
    }
}
