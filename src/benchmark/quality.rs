//! The closeness of the outputs of two models over many inputs.

use super::report::{OutputQuality, QualityReport};
use super::rows::Sums;
use crate::error::{Result, bail};
use crate::inputs::Mask;
use crate::likelihood::{argmax, kl_divergence};
use crate::onnx::dtype::DataType;
use crate::runtime::Tensor;

/// The minimum length of rows that count as logits if they are as long as a vocabulary.
const VOCABULARY_FROM: i64 = 1000;

/// The results over all inputs compared so far.
#[derive(Debug, Default)]
pub struct Comparison {
    outputs: Vec<Tally>,
    vocabularies: Vec<i64>,
    samples: usize,
    /// Reason why an output is not compared, for the first such output; `None` if there is no such output.
    apart: Option<String>,
}

/// The results for one output.
#[derive(Debug)]
struct Tally {
    name: String,
    dtype: DataType,
    float: bool,
    rows: u64,
    /// Number of rows that were not compared, because the original has no finite value in them.
    skipped: u64,
    /// Sums over all rows.
    sums: Sums,
    /// Sum and minimum of the cosines, over rows with more than one element.
    cosines: f64,
    cosine_min: f64,
    long_rows: u64,
    agreeing: u64,
    /// Sum of the divergences, over rows that look like logits.
    kl: f64,
    kl_rows: u64,
    /// Number of equal elements, for types other than floats; `elements` is the number of all elements.
    equal: u64,
    elements: u64,
}

impl Comparison {
    /// Returns an empty comparison. Outputs whose row length is in `vocabularies` and at least 1000 count as logits,
    /// like those whose name contains `logit`.
    pub fn new(vocabularies: Vec<i64>) -> Comparison {
        Comparison { vocabularies, ..Comparison::default() }
    }

    /// Adds the outputs of one run of each model on the same inputs, which are `samples` texts or other samples.
    ///
    /// For outputs of at least three dimensions that begin with those of the mask, padding rows according to `mask` are
    /// omitted. Outputs that differ in shape, or of which only one is float, are not compared, and the report says so.
    /// Fails with `InvalidArgument` if the result lacks an output. Outputs of a decoder's cache (`present…`) may be
    /// missing or have another shape.
    pub fn add(
        &mut self,
        original: &[(String, Tensor)],
        result: &[(String, Tensor)],
        mask: Option<&Mask>,
        samples: usize,
    ) -> Result<()> {
        for (name, before) in original {
            let other = result.iter().find(|(other, _)| other == name);
            // The cache outputs of pruned heads and layers are missing.
            let same = other.is_some_and(|(_, after)| after.shape() == before.shape());
            if !same && name.starts_with("present") {
                continue;
            }
            let Some((_, after)) = other else {
                bail!(InvalidArgument, "the result has no output {name:?}: the models cannot be compared");
            };
            if before.shape() != after.shape() || before.dtype().is_float() != after.dtype().is_float() {
                let (was, is) = (before.describe(), after.describe());
                let why = || format!("the output {name:?} is {was} in the original, but {is} in the result");
                self.apart.get_or_insert_with(why);
                continue;
            }
            let index = match self.outputs.iter().position(|tally| tally.name == *name) {
                Some(index) => index,
                None => {
                    self.outputs.push(Tally::new(name, before));
                    self.outputs.len() - 1
                }
            };
            let logits = name.to_lowercase().contains("logit")
                || before.shape().last().is_some_and(|d| *d >= VOCABULARY_FROM && self.vocabularies.contains(d));
            self.outputs[index].add(before, after, mask, logits)?;
        }
        self.samples += samples;
        Ok(())
    }

    /// Returns the results over all inputs.
    pub fn finish(self) -> QualityReport {
        let names: Vec<(String, bool)> = self.outputs.iter().map(|t| (t.name.clone(), t.float)).collect();
        let judged = judged_outputs(&names);
        // A sum of divergences that is infinite or NaN is worse than any other.
        let unbounded = judged.iter().any(|i| self.outputs[*i].kl_rows > 0 && !self.outputs[*i].kl.is_finite());
        let is_void = |tally: &Tally| tally.rows == 0 && tally.skipped > 0;
        let void = judged.iter().map(|i| &self.outputs[*i]).find(|tally| is_void(tally));
        let void = void.map(|tally| format!("the output {:?} of the original has no finite value here", tally.name));
        let outputs: Vec<OutputQuality> = self.outputs.into_iter().map(Tally::finish).collect();
        let worst_of = |worse: fn(f64, f64) -> f64, figure: fn(&OutputQuality) -> Option<f64>| {
            judged.iter().filter_map(|i| figure(&outputs[*i])).reduce(worse)
        };
        let worst = judged.iter().map(|i| &outputs[*i]).min_by(|a, b| by_cosine(a).total_cmp(&by_cosine(b)));
        QualityReport {
            output: worst.or(outputs.first()).map(|o| o.name.clone()).unwrap_or_default(),
            judged: judged.iter().map(|i| outputs[*i].name.clone()).collect(),
            cosine: worst_of(f64::min, |o| o.cosine),
            max_abs_error: worst_of(f64::max, |o| o.max_abs_error),
            top1_agreement: worst_of(f64::min, |o| o.top1_agreement),
            kl: worst_of(f64::max, |o| o.kl).filter(|_| !unbounded),
            exact_match: outputs.iter().filter_map(|o| o.exact_match).reduce(f64::min),
            samples: self.samples,
            not_compared: self.apart.or(void),
            outputs,
        }
    }
}

/// Returns the cosine of an output for comparisons; one without a cosine is above all others.
fn by_cosine(output: &OutputQuality) -> f64 {
    output.cosine.unwrap_or(f64::INFINITY)
}

/// Returns the indices of the outputs by which quality is judged; empty if no output is float. Each element of
/// `outputs` is the name of an output and whether it is float.
///
/// Of the float outputs, those whose name does not contain `present` (a decoder's cache) are judged. If a name contains
/// `logit`, outputs with `hidden`, `attention` or `pool` in their names are not judged either, because the logits are
/// computed from them. Otherwise, if a name contains `sentence_embedding`, only such outputs are judged, because they
/// are computed from the vectors of tokens. If none is left, all float outputs are judged.
pub fn judged_outputs(outputs: &[(String, bool)]) -> Vec<usize> {
    let named = |index: usize, parts: &[&str]| {
        let name = outputs[index].0.to_lowercase();
        parts.iter().any(|part| name.contains(part))
    };
    let floats: Vec<usize> = (0..outputs.len()).filter(|index| outputs[*index].1).collect();
    let only = |parts: &[&str]| floats.iter().copied().filter(|i| named(*i, parts)).collect::<Vec<usize>>();
    let without = |parts: &[&str]| floats.iter().copied().filter(|i| !named(*i, parts)).collect::<Vec<usize>>();
    let (vectors, logits) = (only(&["sentence_embedding"]), only(&["logit"]));
    let judged = match (logits.is_empty(), vectors.is_empty()) {
        (false, _) => without(&["present", "hidden", "attention", "pool"]),
        (true, false) => vectors,
        (true, true) => without(&["present"]),
    };
    if judged.is_empty() { floats } else { judged }
}

impl Tally {
    fn new(name: &str, tensor: &Tensor) -> Tally {
        Tally {
            name: name.to_owned(),
            dtype: tensor.dtype(),
            float: tensor.dtype().is_float(),
            rows: 0,
            skipped: 0,
            sums: Sums::default(),
            cosines: 0.0,
            cosine_min: f64::INFINITY,
            long_rows: 0,
            agreeing: 0,
            kl: 0.0,
            kl_rows: 0,
            equal: 0,
            elements: 0,
        }
    }

    fn add(&mut self, before: &Tensor, after: &Tensor, mask: Option<&Mask>, logits: bool) -> Result<()> {
        if !self.float {
            let (equal, elements) = equal_elements(before, after);
            self.equal += equal;
            self.elements += elements;
            return Ok(());
        }
        let (a, b) = (before.to_f32_vec()?, after.to_f32_vec()?);
        let width = before.shape().last().map_or(1, |d| (*d).max(1)) as usize;
        let mask = mask.filter(|mask| before.shape().len() >= 3 && before.shape()[..2] == mask.shape);
        // The number of rows per token.
        let rows_each = mask.map_or(1, |mask| (a.len() / width / mask.keep.len().max(1)).max(1));
        for (row, (a, b)) in a.chunks_exact(width).zip(b.chunks_exact(width)).enumerate() {
            let kept = mask.is_none_or(|mask| mask.keep.get(row / rows_each).copied().unwrap_or(true));
            if kept {
                self.row(a, b, logits);
            }
        }
        Ok(())
    }

    fn row(&mut self, a: &[f32], b: &[f32], logits: bool) {
        let sums = Sums::of(a, b);
        if !a.iter().any(|a| a.is_finite()) {
            // Nothing can be compared.
            self.skipped += 1;
            self.sums.non_finite += sums.non_finite;
            return;
        }
        self.rows += 1;
        self.sums.add(&sums);
        if a.len() < 2 {
            return;
        }
        let cosine = sums.cosine();
        self.cosines += cosine;
        self.cosine_min = self.cosine_min.min(cosine);
        self.long_rows += 1;
        self.agreeing += u64::from(argmax(a).is_some_and(|best| argmax(b) == Some(best)));
        if logits {
            self.kl += kl_divergence(a, b);
            self.kl_rows += 1;
        }
    }

    fn finish(self) -> OutputQuality {
        let any = self.float && self.rows > 0;
        let share = |part: f64, of: u64| (of > 0).then(|| part / of as f64);
        // The cosine of two numbers is only the product of their signs, so all rows are compared as one vector.
        let together = (any && self.long_rows == 0).then(|| self.sums.cosine());
        OutputQuality {
            name: self.name,
            dtype: self.dtype.name(),
            rows: self.rows,
            cosine: share(self.cosines, self.long_rows).or(together),
            cosine_min: (self.long_rows > 0).then_some(self.cosine_min).or(together),
            max_abs_error: any.then_some(self.sums.largest),
            relative_rms: self.sums.relative_rms().filter(|_| any),
            top1_agreement: share(self.agreeing as f64, self.long_rows),
            // JSON has no infinity; `non_finite` explains why the figure is missing.
            kl: share(self.kl, self.kl_rows).filter(|kl| kl.is_finite()),
            exact_match: share(self.equal as f64, self.elements),
            non_finite: self.sums.non_finite,
        }
    }
}

/// Returns the number of equal elements and of all elements. Elements of different types are not equal; types smaller
/// than a byte are counted in bytes.
fn equal_elements(before: &Tensor, after: &Tensor) -> (u64, u64) {
    if let (Some(a), Some(b)) = (before.strings(), after.strings()) {
        return (a.iter().zip(b).filter(|(a, b)| a == b).count() as u64, a.len() as u64);
    }
    if before.dtype() != after.dtype() {
        return (0, before.elements() as u64);
    }
    let width = (before.dtype().bits() as usize / 8).max(1);
    let pairs = before.bytes().chunks(width).zip(after.bytes().chunks(width));
    let (mut equal, mut all) = (0, 0);
    for (a, b) in pairs {
        equal += u64::from(a == b);
        all += 1;
    }
    (equal, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(name: &str, shape: &[i64], values: &[f32]) -> (String, Tensor) {
        (name.to_owned(), Tensor::from_f32(shape, values.to_vec()).unwrap())
    }

    fn compare(a: (String, Tensor), b: (String, Tensor), mask: Option<&Mask>) -> OutputQuality {
        let mut comparison = Comparison::new(vec![1000]);
        comparison.add(&[a], &[b], mask, 1).unwrap();
        comparison.finish().outputs.remove(0)
    }

    #[test]
    fn figures_are_means_over_the_rows() {
        let a = floats("x", &[2, 2], &[3.0, 4.0, 1.0, 0.0]);
        let b = floats("x", &[2, 2], &[4.0, 3.0, 1.0, 0.0]);
        let quality = compare(a, b, None);
        assert!((quality.cosine.unwrap() - 0.98).abs() < 1e-12 && (quality.cosine_min.unwrap() - 0.96).abs() < 1e-12);
        assert_eq!((quality.rows, quality.top1_agreement, quality.max_abs_error), (2, Some(0.5), Some(1.0)));
        assert!((quality.relative_rms.unwrap() - (2.0f64 / 26.0).sqrt()).abs() < 1e-12);
        assert_eq!((quality.kl, quality.exact_match, quality.non_finite), (None, None, 0));
    }

    #[test]
    fn padding_is_left_out() {
        let mask = Mask { shape: [1, 2], keep: vec![true, false] };
        let a = |name| floats(name, &[1, 2, 2], &[1.0, 0.0, 5.0, 5.0]);
        let b = |name| floats(name, &[1, 2, 2], &[1.0, 0.0, -9.0, f32::NAN]);
        let quality = compare(a("x"), b("x"), Some(&mask));
        assert_eq!((quality.rows, quality.cosine, quality.non_finite), (1, Some(1.0), 0));
        let other = Mask { shape: [2, 2], keep: vec![false; 4] };
        assert_eq!(compare(a("x"), b("x"), Some(&other)).rows, 2);
        // An output [batch, seq] has one row per text, regardless of the mask.
        let start = compare(floats("x", &[1, 2], &[1.0, 2.0]), floats("x", &[1, 2], &[1.0, 2.0]), Some(&mask));
        assert_eq!(start.rows, 1);
    }

    #[test]
    fn logits_have_a_divergence() {
        let a = || floats("Logits", &[1, 2], &[0.0, 0.0]);
        let kl = compare(a(), floats("Logits", &[1, 2], &[0.0, 3f32.ln()]), None).kl.unwrap();
        assert!((kl - 0.143_841).abs() < 1e-5, "{kl}");
        let wide = floats("y", &[1, 1000], &[0.0; 1000]);
        assert_eq!(compare(wide.clone(), wide, None).kl, Some(0.0));
        let broken = compare(a(), floats("Logits", &[1, 2], &[0.0, f32::NAN]), None);
        assert_eq!((broken.kl, broken.non_finite, broken.cosine), (None, 1, Some(0.0)));
    }

    #[test]
    fn single_numbers_are_one_vector_and_nothing_gives_nothing() {
        let quality = compare(floats("x", &[2, 1], &[3.0, 4.0]), floats("x", &[2, 1], &[4.0, 3.0]), None);
        assert!((quality.cosine.unwrap() - 0.96).abs() < 1e-12);
        assert_eq!(quality.top1_agreement, None);
        let nothing = compare(floats("x", &[0, 4], &[]), floats("x", &[0, 4], &[]), None);
        assert_eq!((nothing.cosine, nothing.max_abs_error, nothing.relative_rms), (None, None, None));
    }

    #[test]
    fn rows_without_a_finite_value_show_nothing() {
        let nan = f32::NAN;
        let quality = compare(floats("x", &[2, 2], &[nan; 4]), floats("x", &[2, 2], &[nan; 4]), None);
        let figures = (quality.rows, quality.cosine, quality.max_abs_error, quality.top1_agreement);
        assert_eq!(figures, (0, None, None, None));
        let mut all = Comparison::new(vec![]);
        let x = floats("x", &[2, 2], &[nan; 4]);
        all.add(std::slice::from_ref(&x), std::slice::from_ref(&x), None, 1).unwrap();
        let why = all.finish().not_compared.unwrap();
        assert!(why.contains("\"x\" of the original has no finite value"), "{why}");
        let half = [nan, nan, 1.0, 2.0];
        let quality = compare(floats("x", &[2, 2], &half), floats("x", &[2, 2], &half), None);
        assert_eq!((quality.rows, quality.cosine, quality.max_abs_error), (1, Some(1.0), Some(0.0)));
        let quality = compare(floats("x", &[1, 2], &[nan; 2]), floats("x", &[1, 2], &[f32::INFINITY; 2]), None);
        assert_eq!((quality.rows, quality.non_finite), (0, 2));
    }

    #[test]
    fn what_is_not_float_matches_or_not() {
        let ints = |values: &[i64]| ("i".to_owned(), Tensor::from_i64(&[4], values.to_vec()).unwrap());
        let quality = compare(ints(&[1, 2, 3, 4]), ints(&[1, 2, 0, 4]), None);
        assert_eq!((quality.exact_match, quality.cosine, quality.dtype), (Some(0.75), None, "int64"));
        let text = |word: &str| ("s".to_owned(), Tensor::from_strings(&[1], vec![word.into()]).unwrap());
        assert_eq!(compare(text("a"), text("a"), None).exact_match, Some(1.0));
        let mut labels = Comparison::new(vec![]);
        labels.add(&[ints(&[1, 2, 3, 4])], &[ints(&[1, 2, 0, 4])], None, 1).unwrap();
        assert_eq!(labels.finish().exact_match, Some(0.75));
    }

    #[test]
    fn outputs_that_lead_to_others_are_not_judged() {
        let judged = |names: &[&str]| {
            let outputs: Vec<(String, bool)> = names.iter().map(|n| ((*n).to_owned(), *n != "ids")).collect();
            judged_outputs(&outputs).into_iter().map(|i| names[i].to_owned()).collect::<Vec<String>>()
        };
        assert_eq!(judged(&["last_hidden_state", "sentence_embedding"]), ["sentence_embedding"]);
        assert_eq!(judged(&["logits", "present.0.key", "hidden_states.1"]), ["logits"]);
        assert_eq!(judged(&["start_logits", "end_logits"]), ["start_logits", "end_logits"]);
        assert_eq!(judged(&["logits", "pred_boxes"]), ["logits", "pred_boxes"]);
        assert_eq!(judged(&["scores", "ids", "boxes"]), ["scores", "boxes"]);
        assert_eq!(judged(&["present_state"]), ["present_state"]);
        assert!(judged(&["ids"]).is_empty());
    }

    #[test]
    fn the_worst_judged_output_counts() {
        let before = [
            floats("scores", &[1, 2], &[1.0, 2.0]),
            ("ids".to_owned(), Tensor::from_i64(&[2], vec![3, 4]).unwrap()),
            floats("boxes", &[1, 2], &[3.0, 4.0]),
        ];
        let after = [
            floats("scores", &[1, 2], &[1.0, 2.25]),
            ("ids".to_owned(), Tensor::from_i64(&[2], vec![3, 5]).unwrap()),
            floats("boxes", &[1, 2], &[4.0, 3.0]),
        ];
        let mut comparison = Comparison::new(vec![]);
        comparison.add(&before, &after, None, 1).unwrap();
        let report = comparison.finish();
        assert_eq!((report.output.as_str(), report.judged.len()), ("boxes", 2));
        assert!((report.cosine.unwrap() - 0.96).abs() < 1e-9, "{report:?}");
        assert_eq!((report.max_abs_error, report.top1_agreement), (Some(1.0), Some(0.0)));
        assert_eq!((report.exact_match, report.kl), (Some(0.5), None));
    }

    #[test]
    fn an_infinite_divergence_is_not_hidden_by_a_finite_one() {
        let before = [floats("start_logits", &[1, 2], &[1.0, 2.0]), floats("end_logits", &[1, 2], &[1.0, 2.0])];
        let lost = floats("end_logits", &[1, 2], &[1.0, f32::NEG_INFINITY]);
        let mut comparison = Comparison::new(vec![]);
        comparison.add(&before, &[before[0].clone(), lost], None, 1).unwrap();
        let report = comparison.finish();
        assert_eq!((report.kl, report.outputs[0].kl, report.outputs[1].kl), (None, Some(0.0), None));
    }

    #[test]
    fn the_sentence_is_judged() {
        let all = [floats("hidden", &[1, 2], &[1.0, 2.0]), floats("sentence_embedding", &[1, 2], &[1.0, 1.0])];
        let mut comparison = Comparison::new(vec![]);
        comparison.add(&all, &all, None, 3).unwrap();
        let report = comparison.finish();
        assert_eq!((report.output.as_str(), report.samples, report.cosine), ("sentence_embedding", 3, Some(1.0)));
        let mut comparison = Comparison::new(vec![]);
        comparison.add(&all[..1], &all[..1], None, 1).unwrap();
        assert_eq!(comparison.finish().output, "hidden");
        assert_eq!(Comparison::new(vec![]).finish().cosine, None);
    }

    #[test]
    fn outputs_that_differ_in_kind_are_named() {
        let mut comparison = Comparison::new(vec![]);
        let one = floats("x", &[1, 2], &[1.0, 2.0]);
        let e = comparison.add(std::slice::from_ref(&one), &[], None, 1).unwrap_err().to_string();
        assert!(e.contains("no output \"x\""), "{e}");
        comparison.add(&[one], &[floats("x", &[2, 1], &[1.0, 2.0])], None, 1).unwrap();
        let report = comparison.finish();
        let why = report.not_compared.unwrap();
        assert!(why.contains("float32[1, 2] in the original, but float32[2, 1] in the result"), "{why}");
        assert_eq!((report.cosine, report.outputs.len()), (None, 0));
    }
}
