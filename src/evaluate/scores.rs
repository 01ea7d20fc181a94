//! The scores of class predictions: accuracy, F1 and confusion matrix.

use serde::Serialize;
use std::collections::BTreeMap;

/// The maximum number of classes for which the confusion matrix is reported: its size is the square of their number.
const CONFUSION_CLASSES: usize = 256;
/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The number of predictions of each class for each true class.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Number of texts by `(truth, prediction)`.
    counts: BTreeMap<(usize, usize), u64>,
    total: u64,
}

/// The scores of class predictions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassScores {
    /// Fraction of correct predictions.
    pub accuracy: f64,
    /// Lower end of the 95 % interval of the accuracy (Wilson, "Probable inference", 1927).
    pub accuracy_low: f64,
    /// Upper end of the 95 % interval of the accuracy.
    pub accuracy_high: f64,
    /// Mean of F1 over the classes that occur as a truth or as a prediction.
    pub macro_f1: f64,
    /// Number of predictions.
    pub samples: u64,
    /// Scores of the classes that occur as a truth or as a prediction, by their index.
    pub classes: Vec<ClassScore>,
    /// Confusion matrix: how often the class of the row (truth) was predicted as that of the column, in the order of
    /// `classes`. `None` (absent in JSON) for more than 256 classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Vec<Vec<u64>>>,
}

/// The scores of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassScore {
    /// Index of the class: in the model, or for a probe among the sorted labels.
    pub index: usize,
    /// Name of the class.
    pub name: String,
    /// Number of texts of this class.
    pub support: u64,
    /// Fraction of correct predictions among the texts predicted as this class; 0 if there are none.
    pub precision: f64,
    /// Fraction of the texts of this class that were predicted as such; 0 if there are none.
    pub recall: f64,
    /// F1 score, `2 · precision · recall / (precision + recall)`; 0 if no prediction of this class is correct.
    pub f1: f64,
}

impl Counts {
    /// Counts a text of class `truth` that was predicted as `prediction`.
    pub fn add(&mut self, truth: usize, prediction: usize) {
        *self.counts.entry((truth, prediction)).or_default() += 1;
        self.total += 1;
    }

    /// Returns the scores of the counted predictions; `name` returns the name of a class.
    pub fn scores(&self, name: impl Fn(usize) -> String) -> ClassScores {
        let mut classes: Vec<usize> =
            self.counts.keys().flat_map(|(truth, prediction)| [*truth, *prediction]).collect();
        classes.sort_unstable();
        classes.dedup();
        let scores: Vec<ClassScore> = classes.iter().map(|class| self.class(*class, name(*class))).collect();
        let right: u64 = classes.iter().map(|class| self.at(*class, *class)).sum();
        let (low, high) = wilson(right, self.total);
        let confusion = (classes.len() <= CONFUSION_CLASSES).then(|| {
            classes
                .iter()
                .map(|truth| classes.iter().map(|prediction| self.at(*truth, *prediction)).collect())
                .collect()
        });
        ClassScores {
            accuracy: right as f64 / self.total.max(1) as f64,
            accuracy_low: low,
            accuracy_high: high,
            macro_f1: scores.iter().map(|score| score.f1).sum::<f64>() / scores.len().max(1) as f64,
            samples: self.total,
            classes: scores,
            confusion,
        }
    }

    fn at(&self, truth: usize, prediction: usize) -> u64 {
        self.counts.get(&(truth, prediction)).copied().unwrap_or(0)
    }

    fn class(&self, index: usize, name: String) -> ClassScore {
        let right = self.at(index, index) as f64;
        let sum = |of: &dyn Fn(&(usize, usize)) -> bool| -> u64 {
            self.counts.iter().filter(|(pair, _)| of(pair)).map(|(_, count)| count).sum()
        };
        let (support, predicted) = (sum(&|pair| pair.0 == index), sum(&|pair| pair.1 == index));
        let share = |of: u64| if of == 0 { 0.0 } else { right / of as f64 };
        let (precision, recall) = (share(predicted), share(support));
        let f1 = if right == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
        ClassScore { index, name, support, precision, recall, f1 }
    }
}

/// Returns the 95 % Wilson interval of the fraction `right / total`; 0 and 1 if `total` is 0.
fn wilson(right: u64, total: u64) -> (f64, f64) {
    if total == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (total as f64, right as f64 / total as f64);
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + Z * Z / n;
    (((middle - half) / whole).max(0.0), ((middle + half) / whole).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn scores_are_those_by_hand() {
        // Truth 0 0 0 1 1 2, prediction 0 0 1 1 0 5; the same in scikit-learn: accuracy 0.5, macro F1 7/24.
        let mut counts = Counts::default();
        [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (2, 5)].iter().for_each(|(t, p)| counts.add(*t, *p));
        let scores = counts.scores(|class| format!("c{class}"));
        assert_eq!((scores.accuracy, scores.samples, scores.classes.len()), (0.5, 6, 4));
        let class = |index: usize| (scores.classes[index].precision, scores.classes[index].recall);
        assert!(near(class(0).0, 2.0 / 3.0) && near(class(0).1, 2.0 / 3.0));
        assert_eq!((class(1), class(2), class(3)), ((0.5, 0.5), (0.0, 0.0), (0.0, 0.0)));
        assert!(near(scores.macro_f1, (2.0 / 3.0 + 0.5) / 4.0));
        assert_eq!((scores.classes[3].name.as_str(), scores.classes[3].index), ("c5", 5));
        let confusion = [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0; 4]].map(|row| row.to_vec()).to_vec();
        assert_eq!(scores.confusion, Some(confusion));
    }

    #[test]
    fn the_interval_is_wilsons() {
        // For 8 of 10, the Wilson interval in textbooks is 0.490 to 0.943.
        let (low, high) = wilson(8, 10);
        assert!((low - 0.4902).abs() < 1e-4 && (high - 0.9433).abs() < 1e-4, "{low} {high}");
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert!(wilson(10, 10).1 > 1.0 - 1e-12 && wilson(0, 10).0 < 1e-12);
    }

    #[test]
    fn many_classes_have_no_table() {
        let mut counts = Counts::default();
        (0..300).for_each(|class| counts.add(class, class));
        let scores = counts.scores(|class| class.to_string());
        assert_eq!((scores.accuracy, scores.macro_f1, scores.confusion), (1.0, 1.0, None));
    }
}
