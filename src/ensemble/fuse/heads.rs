//! The nodes that combine the outputs of the members. The formulas are those of [`super::super::combine`], in float32.

use super::join::Join;
use crate::encoder::LogitKind;
use crate::ensemble::{Ensemble, Method};
use crate::error::{Result, bail};
use crate::graph::builder::{Naming, NodeBuilder};
use crate::graph::edit::{Names, float_tensor, int_attribute};
use crate::model::Pooling;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{NodeProto, TensorProto};
use std::ops::{Deref, DerefMut};

/// New nodes and constants, whose names begin with `ensemble/`.
pub struct Nodes(NodeBuilder);

impl Deref for Nodes {
    type Target = NodeBuilder;

    fn deref(&self) -> &NodeBuilder {
        &self.0
    }
}

impl DerefMut for Nodes {
    fn deref_mut(&mut self) -> &mut NodeBuilder {
        &mut self.0
    }
}

impl Nodes {
    /// Returns a builder for the opset of `join`.
    pub fn new(join: &Join) -> Nodes {
        Nodes(NodeBuilder::with(Names::default(), Naming::Numbered("ensemble"), join.version()))
    }

    /// Returns the nodes and the constants.
    pub fn into_parts(self) -> (Vec<NodeProto>, Vec<TensorProto>) {
        (self.0.nodes, self.0.constants)
    }

    fn number(&mut self, value: f64) -> String {
        self.scalar(value as f32)
    }

    /// Returns the name of `value` in float32: `value` itself if it has this type, otherwise the output of a new
    /// `Cast`.
    pub fn float(&mut self, value: &str, dtype: Option<DataType>) -> String {
        match dtype {
            Some(DataType::Float32) => value.to_owned(),
            _ => self.cast(value, DataType::Float32),
        }
    }

    /// Adds a permutation of the last dimension and returns the name of its output.
    pub fn picked(&mut self, value: &str, order: &[usize]) -> String {
        let order: Vec<i64> = order.iter().map(|index| *index as i64).collect();
        let indices = self.ints(&order);
        self.op_with("Gather", &[value, &indices], vec![int_attribute("axis", -1)])
    }

    /// Adds a slice of the last columns of logits, as many as the input `keep` requests (0: all), and returns its name.
    pub fn last_columns(&mut self, value: &str, keep: &str) -> String {
        let keep = self.cast(keep, DataType::Int64);
        let shape = self.ints(&[1]);
        let keep = self.op("Reshape", &[&keep, &shape]);
        let start = self.op("Neg", &[&keep]);
        let (end, axis) = (self.ints(&[i64::MAX]), self.ints(&[1]));
        self.op("Slice", &[value, &start, &end, &axis])
    }

    fn unsqueeze(&mut self, value: &str, axis: i64) -> String {
        let axes = self.ints(&[axis]);
        self.op("Unsqueeze", &[value, &axes])
    }

    fn log_softmax(&mut self, value: &str) -> String {
        self.op_with("LogSoftmax", &[value], vec![int_attribute("axis", -1)])
    }

    /// Adds the logits of scores, which are the probabilities of classes or of labels, and returns their name.
    fn logits(&mut self, scores: &str, kind: LogitKind) -> String {
        let least = self.number(f64::from(f32::MIN_POSITIVE));
        let log = |nodes: &mut Nodes, value: &str| {
            let value = nodes.op("Max", &[value, &least]);
            nodes.op("Log", &[&value])
        };
        let yes = log(self, scores);
        if kind != LogitKind::Labels {
            return yes;
        }
        let one = self.number(1.0);
        let rest = self.op("Sub", &[&one, scores]);
        let no = log(self, &rest);
        self.op("Sub", &[&yes, &no])
    }

    fn scaled(&mut self, value: &str, factor: f64) -> String {
        if factor == 1.0 {
            return value.to_owned();
        }
        let factor = self.number(factor);
        self.op("Mul", &[value, &factor])
    }

    fn plus(&mut self, value: &str, number: f64) -> String {
        let number = self.number(number);
        self.op("Add", &[value, &number])
    }

    fn sum(&mut self, values: &[String]) -> String {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        if values.len() == 1 { values[0].to_owned() } else { self.op("Sum", &values) }
    }

    fn stacked(&mut self, values: &[String]) -> String {
        let rows: Vec<String> = values.iter().map(|value| self.unsqueeze(value, 0)).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        self.op_with("Concat", &rows, vec![int_attribute("axis", 0)])
    }

    /// Adds `ln Σ exp` over values, element by element, and returns the name of its output.
    fn log_sum(&mut self, values: &[String]) -> String {
        let stacked = self.stacked(values);
        self.reduce("ReduceLogSumExp", &stacked, &[0], false)
    }

    fn top(&mut self, value: &str) -> String {
        self.op_with("ArgMax", &[value], vec![int_attribute("axis", -1), int_attribute("keepdims", 1)])
    }

    /// Adds a sort of the values, element by element, and returns the names of the middle one or two.
    fn middle(&mut self, values: &[String]) -> Vec<String> {
        let stacked = self.stacked(values);
        let count = self.ints(&[values.len() as i64]);
        let (sorted, order) = (self.fresh("sorted"), self.fresh("order"));
        let attributes = vec![int_attribute("axis", 0)];
        self.push("TopK", &[&stacked, &count], &[&sorted, &order]).attribute = attributes;
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        let mut pick = |index: usize| {
            let index = self.ints(&[index as i64]);
            let row = self.op_with("Gather", &[&sorted, &index], vec![int_attribute("axis", 0)]);
            let axes = self.ints(&[0]);
            self.op("Squeeze", &[&row, &axes])
        };
        if low == high { vec![pick(low)] } else { vec![pick(low), pick(high)] }
    }

    /// Adds pooling of the token vectors `[batch, tokens, width]` where `mask` is not 0, and returns the name of the
    /// result: one vector per text.
    pub fn pool(&mut self, value: &str, pooling: Pooling, mask: &str, mask_dtype: Option<DataType>) -> String {
        match pooling {
            Pooling::Cls => {
                let first = self.slice(value, 0, 1, 1);
                let axes = self.ints(&[1]);
                self.op("Squeeze", &[&first, &axes])
            }
            Pooling::Mean | Pooling::MeanSqrtLen | Pooling::WeightedMean => {
                let mut mask = self.float(mask, mask_dtype);
                if pooling == Pooling::WeightedMean {
                    // Positions of the tokens, counted from 1: the number of tokens up to each.
                    let axis = self.ints(&[1]);
                    let places = self.op_with("CumSum", &[&mask, &axis], vec![int_attribute("exclusive", 0)]);
                    mask = self.op("Mul", &[&mask, &places]);
                }
                let column = self.unsqueeze(&mask, 2);
                let kept = self.op("Mul", &[value, &column]);
                let (sum, count) =
                    (self.reduce("ReduceSum", &kept, &[1], false), self.reduce("ReduceSum", &mask, &[1], true));
                let one = self.number(1e-9);
                let mut count = self.op("Max", &[&count, &one]);
                if pooling == Pooling::MeanSqrtLen {
                    count = self.op("Sqrt", &[&count]);
                }
                self.op("Div", &[&sum, &count])
            }
            Pooling::Max => {
                let mask = self.cast(mask, DataType::Bool);
                let column = self.unsqueeze(&mask, 2);
                let least = self.number(f64::from(f32::MIN));
                let kept = self.op("Where", &[&column, value, &least]);
                self.reduce("ReduceMax", &kept, &[1], false)
            }
            Pooling::LastToken => {
                // The last valid position is the maximum of position times mask.
                let mask = self.cast(mask, DataType::Int64);
                let (axis, flags) = (self.ints(&[1]), vec![int_attribute("exclusive", 0)]);
                let places = self.op_with("CumSum", &[&mask, &axis], flags);
                let places = self.op("Mul", &[&places, &mask]);
                let last =
                    self.op_with("ArgMax", &[&places], vec![int_attribute("axis", 1), int_attribute("keepdims", 1)]);
                self.op_with("GatherND", &[value, &last], vec![int_attribute("batch_dims", 1)])
            }
        }
    }

    /// Adds a normalization of each row of `value` to length 1 and returns the name of its output.
    pub fn unit(&mut self, value: &str) -> String {
        let norm = self.reduce("ReduceL2", value, &[-1], true);
        let least = self.number(1e-12);
        let norm = self.op("Max", &[&norm, &least]);
        self.op("Div", &[value, &norm])
    }
}

/// Adds the combination of the logits of tokens or classes, or of their scores, as the output `name`. Scores are
/// combined by their logits, and the output has scores again. Fails like [`distribution`].
pub fn combined(nodes: &mut Nodes, ensemble: &Ensemble, rows: &[String], name: &str) -> Result<()> {
    let (kind, scores) = ensemble.kind;
    let of_kind = |nodes: &mut Nodes, rows: &[String], name: &str| match kind {
        LogitKind::Classes => distribution(nodes, ensemble, rows, name),
        LogitKind::Labels => labels(nodes, ensemble, rows, name),
        LogitKind::Numbers => {
            let rows = scaled(nodes, ensemble, rows);
            number(nodes, ensemble, &rows, name);
            Ok(())
        }
    };
    if !scores || kind == LogitKind::Numbers {
        return of_kind(nodes, rows, name);
    }
    let logits: Vec<String> = rows.iter().map(|row| nodes.logits(row, kind)).collect();
    let inner = nodes.fresh("combined");
    of_kind(nodes, &logits, &inner)?;
    match kind {
        LogitKind::Labels => nodes.op_to("Sigmoid", &[&inner], name, Vec::new()),
        _ => nodes.op_to("Softmax", &[&inner], name, vec![int_attribute("axis", -1)]),
    }
    Ok(())
}

/// Adds the combination of logits, whose last dimension is tokens or classes, as log-probabilities: the output `name`.
/// Fails with `Internal` for the methods `rerank` and `concat`, which do not combine distributions.
fn distribution(nodes: &mut Nodes, ensemble: &Ensemble, rows: &[String], name: &str) -> Result<()> {
    let members = ensemble.members();
    let weights: Vec<f64> = members.iter().map(|member| member.weight).collect();
    let scaled = scaled(nodes, ensemble, rows);
    let method = ensemble.options().method;
    let logs: Vec<String> = match method {
        Method::Logits | Method::Vote => Vec::new(),
        _ => scaled.iter().map(|row| nodes.log_softmax(row)).collect(),
    };
    let combined = match method {
        Method::Mean | Method::Weighted => {
            let terms: Vec<String> = logs.iter().zip(&weights).map(|(log, w)| nodes.plus(log, w.ln())).collect();
            nodes.log_sum(&terms)
        }
        Method::Logits | Method::Product => {
            let (rows, power) = if method == Method::Logits { (&scaled, 1.0) } else { (&logs, weights.len() as f64) };
            // 0 times negative infinity is NaN: members with weight 0 are left out.
            let weighted = rows.iter().zip(&weights).filter(|(_, w)| **w > 0.0);
            let terms: Vec<String> = weighted.map(|(row, w)| nodes.scaled(row, power * w)).collect();
            let sum = nodes.sum(&terms);
            nodes.log_softmax(&sum)
        }
        Method::Max => {
            let values: Vec<&str> = logs.iter().map(String::as_str).collect();
            let largest = nodes.op("Max", &values);
            nodes.log_softmax(&largest)
        }
        Method::Median => {
            let middle = nodes.middle(&logs);
            // The mean of the two middle values needs no factor 1/2: it is the same for all tokens and cancels.
            let middle = if middle.len() == 1 { middle[0].clone() } else { nodes.log_sum(&middle) };
            nodes.log_softmax(&middle)
        }
        Method::Vote => vote(nodes, &scaled, &weights),
        Method::Contrastive => contrast(nodes, &logs),
        Method::Rerank | Method::Concat => bail!(Internal, "the method {method:?} does not combine distributions"),
    };
    if ensemble.options().gate {
        let own = match logs.first() {
            Some(log) => log.clone(),
            None => nodes.log_softmax(&scaled[0]),
        };
        let tops: Vec<String> = scaled.iter().map(|row| nodes.top(row)).collect();
        let same: Vec<String> = tops[1..].iter().map(|top| nodes.op("Equal", &[&tops[0], top])).collect();
        let mut all = same[0].clone();
        for same in &same[1..] {
            all = nodes.op("And", &[&all, same]);
        }
        nodes.op_to("Where", &[&all, &own, &combined], name, Vec::new());
    } else {
        nodes.op_to("Identity", &[&combined], name, Vec::new());
    }
    Ok(())
}

/// Adds a division of each member's logits by the temperature of the member, and returns the names of the quotients.
fn scaled(nodes: &mut Nodes, ensemble: &Ensemble, rows: &[String]) -> Vec<String> {
    let members = ensemble.members();
    rows.iter().zip(members).map(|(row, member)| nodes.scaled(row, 1.0 / member.temperature)).collect()
}

/// Adds the combination of logits of labels that do not exclude each other. Each label has the probabilities of two
/// classes, yes (the sigmoid of its logit) and no, which are combined by the method. The output `name` is the logit of
/// the combined probability of yes; for [`Method::Max`] that of the largest probability of yes.
///
/// Fails with `Internal` for methods that do not combine classes.
fn labels(nodes: &mut Nodes, ensemble: &Ensemble, rows: &[String], name: &str) -> Result<()> {
    let weights: Vec<f64> = ensemble.members().iter().map(|member| member.weight).collect();
    let scaled = scaled(nodes, ensemble, rows);
    let combined = match ensemble.options().method {
        Method::Mean | Method::Weighted => log_odds(nodes, &scaled, &weights),
        method @ (Method::Logits | Method::Product) => {
            let power = if method == Method::Logits { 1.0 } else { weights.len() as f64 };
            let weighted = scaled.iter().zip(&weights).filter(|(_, w)| **w > 0.0);
            let terms: Vec<String> = weighted.map(|(row, w)| nodes.scaled(row, power * w)).collect();
            nodes.sum(&terms)
        }
        Method::Max => {
            let values: Vec<&str> = scaled.iter().map(String::as_str).collect();
            nodes.op("Max", &values)
        }
        Method::Median => {
            let middle = nodes.middle(&scaled);
            if middle.len() == 1 { middle[0].clone() } else { log_odds(nodes, &middle, &[0.5, 0.5]) }
        }
        Method::Vote => {
            let zero = nodes.number(0.0);
            let (mut yes, mut no) = (Vec::new(), Vec::new());
            for (row, weight) in scaled.iter().zip(&weights) {
                let votes = nodes.op("Greater", &[row, &zero]);
                let other = nodes.op("Not", &[&votes]);
                for (votes, sums) in [(votes, &mut yes), (other, &mut no)] {
                    let votes = nodes.cast(&votes, DataType::Float32);
                    sums.push(nodes.scaled(&votes, *weight));
                }
            }
            let [yes, no] = [yes, no].map(|votes| {
                let sum = nodes.sum(&votes);
                nodes.op("Log", &[&sum])
            });
            nodes.op("Sub", &[&yes, &no])
        }
        method => bail!(Internal, "the method {method:?} does not combine labels"),
    };
    nodes.op_to("Identity", &[&combined], name, Vec::new());
    Ok(())
}

/// Adds the logit of the weighted mean of the sigmoids of logits, and returns its name.
fn log_odds(nodes: &mut Nodes, rows: &[String], weights: &[f64]) -> String {
    let (mut yes, mut no) = (Vec::new(), Vec::new());
    for (row, weight) in rows.iter().zip(weights) {
        // ln σ(z) is -softplus(-z), and ln (1 - σ(z)) is -softplus(z).
        let opposite = nodes.op("Neg", &[row]);
        for (row, logs) in [(opposite.as_str(), &mut yes), (row.as_str(), &mut no)] {
            let less = nodes.op("Softplus", &[row]);
            let log = nodes.op("Neg", &[&less]);
            logs.push(nodes.plus(&log, weight.ln()));
        }
    }
    let (yes, no) = (nodes.log_sum(&yes), nodes.log_sum(&no));
    nodes.op("Sub", &[&yes, &no])
}

fn vote(nodes: &mut Nodes, rows: &[String], weights: &[f64]) -> String {
    let shape = nodes.op("Shape", &[&rows[0]]);
    let last = nodes.ints(&[-1]);
    let depth = nodes.op("Gather", &[&shape, &last]);
    let mut votes = Vec::new();
    for (row, weight) in rows.iter().zip(weights) {
        let attributes = vec![int_attribute("axis", -1), int_attribute("keepdims", 0)];
        let top = nodes.op_with("ArgMax", &[row], attributes);
        let name = nodes.fresh("vote");
        nodes.constants.push(float_tensor(&name, &[2], &[0.0, *weight as f32]));
        votes.push(nodes.op_with("OneHot", &[&top, &depth, &name], vec![int_attribute("axis", -1)]));
    }
    let shares = nodes.sum(&votes);
    nodes.op("Log", &[&shares])
}

fn contrast(nodes: &mut Nodes, logs: &[String]) -> String {
    let most = nodes.reduce("ReduceMax", &logs[0], &[-1], true);
    let bar = nodes.plus(&most, 0.1f64.ln());
    let least = nodes.number(-708.0);
    let amateur = nodes.op("Max", &[&logs[1], &least]);
    let score = nodes.op("Sub", &[&logs[0], &amateur]);
    let plausible = nodes.op("GreaterOrEqual", &[&logs[0], &bar]);
    let never = nodes.number(f64::NEG_INFINITY);
    let kept = nodes.op("Where", &[&plausible, &score, &never]);
    nodes.log_softmax(&kept)
}

/// Adds the combination of normalized vectors as the output `name`: their weighted mean, or if `concat` is set their
/// concatenation, each multiplied by the root of its weight.
pub fn vector(nodes: &mut Nodes, concat: bool, weights: &[f64], vectors: &[String], name: &str) {
    let factor = |w: f64| if concat { w.sqrt() } else { w };
    let terms: Vec<String> = vectors.iter().zip(weights).map(|(v, w)| nodes.scaled(v, factor(*w))).collect();
    let terms: Vec<&str> = terms.iter().map(String::as_str).collect();
    match concat {
        true => nodes.op_to("Concat", &terms, name, vec![int_attribute("axis", -1)]),
        false => nodes.op_to("Sum", &terms, name, Vec::new()),
    }
}

/// Adds the combination of numbers as the output `name`: the maximum, the median, or the weighted mean.
pub fn number(nodes: &mut Nodes, ensemble: &Ensemble, values: &[String], name: &str) {
    let combined = match ensemble.options().method {
        Method::Max => {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            nodes.op("Max", &values)
        }
        Method::Median => {
            let middle = nodes.middle(values);
            let factor = 1.0 / middle.len() as f64;
            let sum = nodes.sum(&middle);
            nodes.scaled(&sum, factor)
        }
        _ => {
            let members = ensemble.members().iter();
            let terms: Vec<String> =
                values.iter().zip(members).map(|(value, member)| nodes.scaled(value, member.weight)).collect();
            nodes.sum(&terms)
        }
    };
    nodes.op_to("Identity", &[&combined], name, Vec::new());
}
