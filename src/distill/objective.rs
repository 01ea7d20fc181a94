//! The parts of the loss, as nodes of a graph.
//!
//! The parts for hidden states and relations are ordinary nodes after those of the student, and are differentiated with
//! them. The parts for logits have a gradient in closed form, to avoid passes over tensors as wide as a vocabulary.

use super::options::{Divergence, Weights};
use super::relations::Attention;
use crate::autodiff::{NodeBuilder, Tape};
use crate::encoder::LogitKind;
use crate::error::{Result, bail};
use crate::graph::edit::{int_attribute, ints_attribute};
use crate::onnx::dtype::DataType;

/// Names of the inputs of the graph that the student does not have.
pub mod input {
    /// Logits of the teacher, in the shape of the student's logits.
    pub const LOGITS: &str = "teacher/logits";
    /// Weight of each token for divergences: `[batch, token]`, 0 for padding. The sum over all runs of a step is 1.
    pub const WEIGHTS: &str = "distill/weights";
    /// Weight of each row: `[batch]`. The sum over all runs of a step is 1.
    pub const ROWS: &str = "distill/rows";
    /// Next token of each position, `[batch, token]`, or class of each row, `[batch]`.
    pub const LABELS: &str = "distill/labels";
    /// Weight of each label, in the shape of [`LABELS`]; 0 where there is no label.
    pub const LABEL_WEIGHTS: &str = "distill/label_weights";
    /// Mask, 1 for tokens, 0 for padding: `[batch, token]`.
    pub const KEEP: &str = "distill/keep";
}

/// Returns the name of the input for a hidden state of the teacher.
pub fn hidden_input(index: usize) -> String {
    format!("teacher/hidden.{index}")
}

/// The names of the inputs for the teacher's queries, keys and values.
pub const RELATIONS: [&str; 3] = ["teacher/query", "teacher/key", "teacher/value"];

/// The sizes of a hidden state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    /// Number of elements of the teacher's vectors.
    pub teacher: i64,
    /// Number of elements of the student's vectors.
    pub student: i64,
    /// Rank of the hidden state: 3 for `[batch, token, width]`, 2 for `[batch, width]`.
    pub rank: usize,
}

/// Adds the mean squared difference and 1 - cosine of one hidden state, and returns the names of both. `projection`
/// `[student, teacher]` maps the student's vectors to the width of the teacher's.
pub fn hidden(
    w: &mut NodeBuilder,
    student: &str,
    teacher: &str,
    sizes: Sizes,
    projection: Option<&str>,
) -> [String; 2] {
    let student = match projection {
        Some(matrix) => w.op("MatMul", &[student, matrix]),
        None => student.to_owned(),
    };
    let weights = if sizes.rank == 3 { input::WEIGHTS } else { input::ROWS };
    let difference = w.op("Sub", &[&student, teacher]);
    let square = w.op("Mul", &[&difference, &difference]);
    let square = w.total(&square, &[-1]);
    let share = w.scalar(1.0 / sizes.teacher as f32);
    let square = w.op("Mul", &[&square, &share]);
    let square = w.op("Mul", &[&square, weights]);
    let square = w.total(&square, &[]);
    let small = w.scalar(1e-12);
    let mut dot = |a: &str, b: &str| {
        let product = w.op("Mul", &[a, b]);
        w.total(&product, &[-1])
    };
    let (both, own, other) = (dot(&student, teacher), dot(&student, &student), dot(teacher, teacher));
    let norms = w.op("Mul", &[&own, &other]);
    let norms = w.op("Add", &[&norms, &small]);
    let norms = w.op("Sqrt", &[&norms]);
    let cosine = w.op("Div", &[&both, &norms]);
    let one = w.scalar(1.0);
    let apart = w.op("Sub", &[&one, &cosine]);
    let apart = w.op("Mul", &[&apart, weights]);
    [square, w.total(&apart, &[])]
}

/// Adds the divergence of the relations between queries, keys and values, and returns its name (Wang et al. 2020, arXiv
/// 2012.15828, equation 5). `sizes` are the total widths of all heads of the teacher and of the student; `heads` is the
/// number of the teacher's heads.
///
/// Fails only with `Internal`, for a defect of this library.
pub fn relations(w: &mut NodeBuilder, of: (&Attention, &Attention), sizes: (i64, i64), heads: i64) -> Result<String> {
    let (teacher, student) = of;
    let fits = |count: &i64| sizes.0 % count == 0 && sizes.1 % count == 0;
    let Some(heads) = (1..=heads.max(1)).rev().find(fits) else { bail!(Internal, "1 divides every number") };
    let (one, two, large) = (w.scalar(1.0), w.ints(&[1, 2]), w.scalar(1e4));
    let bias = w.op("Sub", &[input::KEEP, &one]);
    let bias = w.op("Mul", &[&bias, &large]);
    let bias = w.op("Unsqueeze", &[&bias, &two]);
    let names = |a: &Attention| [a.query.clone(), a.key.clone(), a.value.clone()];
    let mut total: Option<String> = None;
    for (index, own) in names(student).iter().enumerate() {
        let transposed = |a: &Attention| index == 1 && a.key_is_transposed;
        let own = logs(w, own, transposed(student), (sizes.1, heads), &bias);
        let other = logs(w, RELATIONS[index], transposed(teacher), (sizes.0, heads), &bias);
        let likely = w.op("Exp", &[&other]);
        let difference = w.op("Sub", &[&other, &own]);
        let product = w.op("Mul", &[&likely, &difference]);
        let each = w.total(&product, &[1, 3]);
        let each = w.op("Mul", &[&each, input::WEIGHTS]);
        let sum = w.total(&each, &[]);
        total = Some(total.map_or(sum.clone(), |before| w.op("Add", &[&before, &sum])));
    }
    let Some(total) = total else { bail!(Internal, "three parts") };
    let share = w.scalar(1.0 / (3 * heads) as f32);
    Ok(w.op("Mul", &[&total, &share]))
}

/// Adds `log softmax(X Xᵀ / √size)` over `heads` parts of the width, and returns its name: `[batch, heads, token,
/// token]`.
fn logs(w: &mut NodeBuilder, x: &str, transposed: bool, (width, heads): (i64, i64), bias: &str) -> String {
    let together = if transposed { [0, 3, 1, 2] } else { [0, 2, 1, 3] };
    let x = w.op_with("Transpose", &[x], vec![ints_attribute("perm", &together)]);
    let shape = w.ints(&[0, 0, heads, width / heads]);
    let x = w.op("Reshape", &[&x, &shape]);
    let x = w.op_with("Transpose", &[&x], vec![ints_attribute("perm", &[0, 2, 1, 3])]);
    let transposed = w.op_with("Transpose", &[&x], vec![ints_attribute("perm", &[0, 1, 3, 2])]);
    let scores = w.op("MatMul", &[&x, &transposed]);
    let scale = w.scalar(1.0 / ((width / heads) as f32).sqrt());
    let scores = w.op("Mul", &[&scores, &scale]);
    let scores = w.op("Add", &[&scores, bias]);
    w.op_with("LogSoftmax", &[&scores], vec![int_attribute("axis", -1)])
}

/// The names of the values that [`logits`] has added.
pub struct LogitsLoss {
    /// Name of the value of the divergence; `None` if its weight is 0.
    pub divergence: Option<String>,
    /// Name of the value of the cross-entropy with the text; `None` if its weight is 0.
    pub surprise: Option<String>,
    /// Name of the gradient of the student's logits.
    pub gradient: String,
}

/// Options of the loss on logits.
pub struct LogitsOptions {
    /// What the logits are, which selects the loss: for numbers the squared difference, for labels the divergence of
    /// the two outcomes of each label.
    pub kind: LogitKind,
    /// Divergence between the distributions of teacher and student.
    pub divergence: Divergence,
    /// Temperature of both distributions.
    pub temperature: f32,
    /// Weight of each part.
    pub weights: Weights,
    /// Numbers of tokens or classes of teacher and student, if they differ; only the first ones are compared.
    pub sizes: Option<(i64, i64)>,
    /// Rank of the logits.
    pub rank: usize,
}

/// Adds divergence and cross-entropy to a tape, with their gradient, and returns their names.
///
/// Let `z` be the student's logits, `p` its distribution at the temperature `T`, and `q` the teacher's. The gradient of
/// `T² D` with respect to `z` is `T (p - q)` for `KL(q ‖ p)`, `T p (log p/q - KL(p ‖ q))` for the reverse, and `T/2 p
/// (log p/m - KL(p ‖ m))` with `m = (p + q) / 2` for the mean of both. The gradient of the cross-entropy is the
/// student's distribution at temperature 1, minus 1 at the token. For labels that do not exclude each other, `D` is the
/// sum over the labels, each with the distribution of its two outcomes. For numbers it is the sum of `(z - t)²`, where
/// `t` are those of the teacher, with no temperature, and its gradient is `2 (z - t)`.
pub fn logits(t: &mut Tape, student: &str, options: &LogitsOptions) -> LogitsLoss {
    let (mut z, mut teacher) = (student.to_owned(), input::LOGITS.to_owned());
    if let Some((of_teacher, of_student)) = options.sizes {
        let (zero, end, axis) = (t.ints(&[0]), t.ints(&[of_teacher.min(of_student)]), t.ints(&[-1]));
        z = t.op("Slice", &[&z, &zero, &end, &axis]);
        teacher = t.op("Slice", &[&teacher, &zero, &end, &axis]);
    }
    let weights = if options.rank == 3 { input::WEIGHTS } else { input::ROWS };
    let last = t.ints(&[-1]);
    let mut gradient: Option<String> = None;
    let mut made = LogitsLoss { divergence: None, surprise: None, gradient: String::new() };
    if options.weights.logits > 0.0 {
        let ((loss, slope), warmth) = match options.kind {
            LogitKind::Classes => (divergence(t, &z, &teacher, options), options.temperature),
            LogitKind::Labels => (of_labels(t, &z, &teacher, options), options.temperature),
            LogitKind::Numbers => (square(t, &z, &teacher), 1.0),
        };
        let temperature = t.scalar(warmth * warmth);
        let each = t.op("Mul", &[&loss, weights]);
        let sum = total(t, &each);
        made.divergence = Some(t.op("Mul", &[&sum, &temperature]));
        let factor = t.scalar(warmth * options.weights.logits);
        let counts = t.op("Mul", &[weights, &factor]);
        let counts = t.op("Unsqueeze", &[&counts, &last]);
        gradient = Some(t.op("Mul", &[&slope, &counts]));
    }
    if options.weights.labels > 0.0 {
        let (loss, slope) = surprise(t, &z, options.weights.labels);
        made.surprise = Some(loss);
        gradient = Some(match gradient {
            Some(first) => t.op("Add", &[&first, &slope]),
            None => slope,
        });
    }
    let mut gradient = gradient.unwrap_or_default();
    if let Some((of_teacher, of_student)) = options.sizes.filter(|(teacher, student)| student > teacher) {
        let mut pads = vec![0; 2 * options.rank];
        pads[2 * options.rank - 1] = of_student - of_teacher;
        let pads = t.ints(&pads);
        gradient = t.op("Pad", &[&gradient, &pads]);
    }
    made.gradient = gradient;
    made
}

fn total(t: &mut Tape, value: &str) -> String {
    t.op_with("ReduceSum", &[value], vec![int_attribute("keepdims", 0)])
}

/// Adds the divergence of each token, and its gradient with respect to `z / T`, for the student's logits `z` and the
/// temperature `T`. Returns the names of both.
fn divergence(t: &mut Tape, z: &str, teacher: &str, options: &LogitsOptions) -> (String, String) {
    let cold = t.scalar(1.0 / options.temperature);
    let logs = |t: &mut Tape, x: &str| {
        let x = if options.temperature == 1.0 { x.to_owned() } else { t.op("Mul", &[x, &cold]) };
        t.op_with("LogSoftmax", &[&x], vec![int_attribute("axis", -1)])
    };
    let (log_p, log_q) = (logs(t, z), logs(t, teacher));
    let (p, q) = (t.op("Exp", &[&log_p]), t.op("Exp", &[&log_q]));
    let expected = |t: &mut Tape, likely: &str, value: &str, keep: bool| {
        let product = t.op("Mul", &[likely, value]);
        t.sum(&product, &[-1], keep)
    };
    if options.divergence == Divergence::Forward {
        let apart = t.op("Sub", &[&log_q, &log_p]);
        let loss = expected(t, &q, &apart, false);
        return (loss, t.op("Sub", &[&p, &q]));
    }
    // Adds the divergence of p from another distribution and its gradient with respect to the logits of p.
    let away = |t: &mut Tape, log_other: &str| {
        let apart = t.op("Sub", &[&log_p, log_other]);
        let mean = expected(t, &p, &apart, true);
        let rest = t.op("Sub", &[&apart, &mean]);
        (mean, t.op("Mul", &[&p, &rest]))
    };
    let last = t.ints(&[-1]);
    if options.divergence == Divergence::Reverse {
        let (mean, slope) = away(t, &log_q);
        return (t.op("Squeeze", &[&mean, &last]), slope);
    }
    let half = t.scalar(0.5);
    let middle = t.op("Add", &[&p, &q]);
    let middle = t.op("Mul", &[&middle, &half]);
    // The mean of two probabilities that are 0 in float32 is 0, and has no logarithm.
    let least = t.scalar(f32::MIN_POSITIVE);
    let middle = t.op("Max", &[&middle, &least]);
    let log_middle = t.op("Log", &[&middle]);
    let (mean, slope) = away(t, &log_middle);
    let mean = t.op("Squeeze", &[&mean, &last]);
    let apart = t.op("Sub", &[&log_q, &log_middle]);
    let other = expected(t, &q, &apart, false);
    let loss = t.op("Add", &[&mean, &other]);
    (t.op("Mul", &[&loss, &half]), t.op("Mul", &[&slope, &half]))
}

/// Adds the sum of the divergences of the labels of each text, and its gradient like [`divergence`]. Returns the names
/// of both. The sigmoid of a logit `z` is the first probability of the softmax of `z / 2` and `-z / 2`.
fn of_labels(t: &mut Tape, z: &str, teacher: &str, options: &LogitsOptions) -> (String, String) {
    let (half, last) = (t.scalar(0.5), t.ints(&[-1]));
    let outcomes = |t: &mut Tape, x: &str| {
        let yes = t.op("Mul", &[x, &half]);
        let no = t.op("Neg", &[&yes]);
        let (yes, no) = (t.op("Unsqueeze", &[&yes, &last]), t.op("Unsqueeze", &[&no, &last]));
        t.op_with("Concat", &[&yes, &no], vec![int_attribute("axis", -1)])
    };
    let (student, teacher) = (outcomes(t, z), outcomes(t, teacher));
    let (loss, slope) = divergence(t, &student, &teacher, options);
    // The gradients of the two outcomes are opposite, and each has half of the logit: that of the logit is the first.
    let (zero, one) = (t.ints(&[0]), t.ints(&[1]));
    let first = t.op("Slice", &[&slope, &zero, &one, &last]);
    (t.sum(&loss, &[-1], false), t.op("Squeeze", &[&first, &last]))
}

/// Adds the squared difference of the numbers of each text, and its gradient. Returns the names of both.
fn square(t: &mut Tape, z: &str, teacher: &str) -> (String, String) {
    let difference = t.op("Sub", &[z, teacher]);
    let squares = t.op("Mul", &[&difference, &difference]);
    (t.sum(&squares, &[-1], false), t.op("Add", &[&difference, &difference]))
}

/// Adds the sum of the cross-entropies with the text, and its gradient times `weight`. Returns the names of both.
fn surprise(t: &mut Tape, z: &str, weight: f32) -> (String, String) {
    let log_p = t.op_with("LogSoftmax", &[z], vec![int_attribute("axis", -1)]);
    let (last, minus, weight) = (t.ints(&[-1]), t.scalar(-1.0), t.scalar(weight));
    let labels = t.op("Unsqueeze", &[input::LABELS, &last]);
    let found = t.op_with("GatherElements", &[&log_p, &labels], vec![int_attribute("axis", -1)]);
    let counts = t.op("Unsqueeze", &[input::LABEL_WEIGHTS, &last]);
    let each = t.op("Mul", &[&found, &counts]);
    let sum = total(t, &each);
    let loss = t.op("Mul", &[&sum, &minus]);
    let p = t.op("Exp", &[&log_p]);
    let counts = t.op("Mul", &[&counts, &weight]);
    let slope = t.op("Mul", &[&p, &counts]);
    let less = t.op("Mul", &[&counts, &minus]);
    let mut attributes = crate::autodiff::adding();
    attributes.push(int_attribute("axis", -1));
    (loss, t.op_with("ScatterElements", &[&slope, &labels, &less], attributes))
}

/// The type of all inputs except the labels.
pub const FLOAT: DataType = DataType::Float32;

#[cfg(test)]
mod tests {
    use super::super::data::Batch;
    use super::super::graph::build;
    use super::super::options::LossWeights;
    use super::super::signals::Signals;
    use super::super::teacher::Teacher;
    use super::super::{DistillOptions, tests::run};
    use super::*;
    use crate::call::Call;
    use crate::error::Kind;
    use crate::model::{Card, Model, Task};
    use crate::runtime::testing::{graph, model, node, value, weight};
    use crate::runtime::{Tensor, test_runtime};

    /// The token ids of two texts.
    const IDS: [[usize; 3]; 2] = [[1, 4, 2], [0, 3, 3]];
    const TEACHER: [f32; 6] = [1.5, -0.5, 0.25, -2.0, 0.75, 3.0];
    const ROWS: [f32; 2] = [0.75, 0.25];

    fn number(index: usize) -> f32 {
        ((index * 7919 + 13) % 1009) as f32 / 500.0 - 1.0
    }

    /// Returns a classifier: the mean of the vectors of the tokens, times a matrix.
    fn classifier(classes: usize, problem: Option<&str>) -> Model {
        let mut mean = node("ReduceMean", &["vectors"], "mean");
        mean.attribute = vec![ints_attribute("axes", &[1]), int_attribute("keepdims", 0)];
        let nodes =
            vec![node("Gather", &["table", "input_ids"], "vectors"), mean, node("MatMul", &["mean", "head"], "logits")];
        let ids = value("input_ids", 7, &["batch", "sequence"]);
        let mut graph = graph(nodes, vec![ids], vec![value("logits", 1, &["batch", &classes.to_string()])]);
        let numbers = |count: usize, from: usize| (from..from + count).map(number).collect::<Vec<f32>>();
        graph.initializer = vec![
            weight("table", &[5, 4], &numbers(20, 0)),
            weight("head", &[4, classes as i64], &numbers(4 * classes, 20)),
        ];
        let config = serde_json::json!({ "problem_type": problem }).as_object().cloned().unwrap();
        Model::from_proto(model(graph)).with_card(Card { task: Task::Classify, config, ..Card::default() })
    }

    /// Returns the mean vector of each text.
    fn means() -> [[f64; 4]; 2] {
        let column = |ids: &[usize; 3], at: usize| ids.iter().map(|id| f64::from(number(4 * id + at))).sum::<f64>();
        IDS.map(|ids| [0, 1, 2, 3].map(|at| column(&ids, at) / 3.0))
    }

    /// Checks the loss of a classifier and the gradient of its matrix, where `of` is the loss of one logit of student
    /// and teacher.
    fn check(like: (usize, Option<&str>), divergence: Divergence, of: &dyn Fn(f64, f64) -> f64) {
        let (student, classes) = (classifier(like.0, like.1), like.0);
        let call = Call::default();
        let options = DistillOptions { divergence, threads: 1, ..DistillOptions::default() };
        let signals = Signals::find(&student, &student, LossWeights::default(), false).unwrap();
        let (_, known) = Teacher::new(test_runtime(), &student, &signals, &options, &call).unwrap();
        let graphs = build(test_runtime(), &student, &known, &signals, &options, &call).unwrap();
        let ids = IDS.concat().into_iter().map(|id| id as i64).collect();
        let batch = Batch { rows: 2, columns: 3, ids, keep: vec![true; 6], ..Batch::default() };
        let more = [
            (input::LOGITS, Tensor::from_f32(&[2, classes as i64], TEACHER[..2 * classes].to_vec()).unwrap()),
            (input::ROWS, Tensor::from_f32(&[2], ROWS.to_vec()).unwrap()),
        ];
        let (losses, found) = run(&graphs, &student, &batch, &more);
        let (mut loss, mut slopes) = (0.0, vec![0.0; 4 * classes]);
        for (row, mean) in means().iter().enumerate() {
            for class in 0..classes {
                let z: f64 = (0..4).map(|at| mean[at] * f64::from(number(20 + at * classes + class))).sum();
                let of = |z: f64| f64::from(ROWS[row]) * of(z, f64::from(TEACHER[row * classes + class]));
                loss += of(z);
                let slope = (of(z + 1e-5) - of(z - 1e-5)) / 2e-5;
                (0..4).for_each(|at| slopes[at * classes + class] += mean[at] * slope);
            }
        }
        assert!((f64::from(losses[0]) - loss).abs() < 1e-5, "{like:?}, {divergence:?}: {losses:?} and {loss}");
        for (found, slope) in found["head"].iter().zip(&slopes) {
            assert!((f64::from(*found) - slope).abs() < 1e-5, "{like:?}, {divergence:?}: {found} and {slope}");
        }
    }

    #[test]
    fn numbers_have_the_squared_difference_and_labels_a_divergence_each() {
        for like in [(1, None), (1, Some("regression")), (3, Some("regression"))] {
            check(like, Divergence::Forward, &|z, teacher| (z - teacher) * (z - teacher));
        }
        // The default temperature is 2.
        let p = |z: f64| 1.0 / (1.0 + (-z / 2.0).exp());
        let apart = |p: f64, q: f64| 4.0 * (p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln());
        let like = (3, Some("multi_label_classification"));
        check(like, Divergence::Forward, &|z, teacher| apart(p(teacher), p(z)));
        check(like, Divergence::Reverse, &|z, teacher| apart(p(z), p(teacher)));
        check(like, Divergence::JensenShannon, &|z, teacher| {
            let middle = (p(z) + p(teacher)) / 2.0;
            (apart(p(z), middle) + apart(p(teacher), middle)) / 2.0
        });
    }

    #[test]
    fn labels_of_one_class_and_logits_of_another_kind_are_refused() {
        let find = |teacher: (usize, Option<&str>), student: (usize, Option<&str>), asked| {
            Signals::find(&classifier(teacher.0, teacher.1), &classifier(student.0, student.1), asked, true)
        };
        let (many, regression) = ((3, Some("multi_label_classification")), (3, Some("regression")));
        let labels = LossWeights { labels: Some(1.0), ..LossWeights::default() };
        for like in [(1, None), many, regression] {
            let e = find(like, like, labels).err().unwrap();
            assert!(e.kind() == Kind::Unsupported && e.to_string().contains("labels_weight: a label"), "{e}");
        }
        for (teacher, student) in [((3, None), many), (many, regression), (regression, (3, None))] {
            let e = find(teacher, student, LossWeights::default()).err().unwrap();
            assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains("but those of the student"), "{e}");
        }
        assert_eq!(find((3, None), (3, None), labels).unwrap().kind, LogitKind::Classes);
    }
}
