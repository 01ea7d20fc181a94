//! The nodes that combine the outputs of the members. Formulas are those of [`super::super::combine`], in float32.

use super::join::Join;
use crate::ensemble::{Ensemble, Method};
use crate::error::{Result, bail};
use crate::graph::edit::{float_tensor, int_attribute, ints_attribute, node, tensor};
use crate::model::Pooling;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{AttributeProto, NodeProto, TensorProto};

/// New nodes and constants. All names begin with `ensemble/`.
pub struct Nodes {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    version: i64,
}

impl Nodes {
    /// Returns a builder for the opset of `join`.
    pub fn new(join: &Join) -> Nodes {
        Nodes { nodes: Vec::new(), constants: Vec::new(), version: join.version() }
    }

    /// Returns the nodes and constants.
    pub fn into_parts(self) -> (Vec<NodeProto>, Vec<TensorProto>) {
        (self.nodes, self.constants)
    }

    fn fresh(&self, word: &str) -> String {
        format!("ensemble/{word}_{}", self.nodes.len() + self.constants.len())
    }

    fn op(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh(op);
        self.op_to(op, inputs, attributes, &output);
        output
    }

    fn op_to(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>, output: &str) {
        let made = NodeProto { attribute: attributes, ..node(op, inputs, &[output]) };
        self.nodes.push(NodeProto { name: Some(format!("ensemble/{op}_{}", self.nodes.len())), ..made });
    }

    fn number(&mut self, value: f64) -> String {
        let name = self.fresh("number");
        self.constants.push(float_tensor(&name, &[], &[value as f32]));
        name
    }

    fn ints(&mut self, values: &[i64]) -> String {
        let name = self.fresh("ints");
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constants.push(tensor(&name, DataType::Int64, &[values.len() as i64], raw));
        name
    }

    /// Adds a `Cast` of `value` to float32.
    pub fn float(&mut self, value: &str, dtype: Option<DataType>) -> String {
        match dtype {
            Some(DataType::Float32) => value.to_owned(),
            _ => self.cast(value, DataType::Float32),
        }
    }

    fn cast(&mut self, value: &str, to: DataType) -> String {
        self.op("Cast", &[value], vec![int_attribute("to", to.to_onnx().into())])
    }

    /// Adds a slice of elements from `start` to `end` of a dimension.
    pub fn slice(&mut self, value: &str, start: i64, end: i64, axis: i64) -> String {
        let (start, end, axis) = (self.ints(&[start]), self.ints(&[end]), self.ints(&[axis]));
        self.op("Slice", &[value, &start, &end, &axis], Vec::new())
    }

    /// Adds a permutation of the last dimension.
    pub fn picked(&mut self, value: &str, order: &[usize]) -> String {
        let order: Vec<i64> = order.iter().map(|index| *index as i64).collect();
        let indices = self.ints(&order);
        self.op("Gather", &[value, &indices], vec![int_attribute("axis", -1)])
    }

    /// Adds a slice of the last columns of logits, as many as the input `keep` requests; all for 0.
    pub fn last_columns(&mut self, value: &str, keep: &str) -> String {
        let keep = self.cast(keep, DataType::Int64);
        let shape = self.ints(&[1]);
        let keep = self.op("Reshape", &[&keep, &shape], Vec::new());
        let start = self.op("Neg", &[&keep], Vec::new());
        let (end, axis) = (self.ints(&[i64::MAX]), self.ints(&[1]));
        self.op("Slice", &[value, &start, &end, &axis], Vec::new())
    }

    /// Adds a reduction over one dimension. Its axes are an input from opset 18 on (for a sum from 13).
    fn reduce(&mut self, op: &str, value: &str, axis: i64, keep: bool) -> String {
        let keep = int_attribute("keepdims", keep.into());
        if self.version >= 18 || op == "ReduceSum" {
            let axes = self.ints(&[axis]);
            self.op(op, &[value, &axes], vec![keep])
        } else {
            self.op(op, &[value], vec![ints_attribute("axes", &[axis]), keep])
        }
    }

    fn unsqueeze(&mut self, value: &str, axis: i64) -> String {
        let axes = self.ints(&[axis]);
        self.op("Unsqueeze", &[value, &axes], Vec::new())
    }

    fn log_softmax(&mut self, value: &str) -> String {
        self.op("LogSoftmax", &[value], vec![int_attribute("axis", -1)])
    }

    fn scaled(&mut self, value: &str, factor: f64) -> String {
        if factor == 1.0 {
            return value.to_owned();
        }
        let factor = self.number(factor);
        self.op("Mul", &[value, &factor], Vec::new())
    }

    fn plus(&mut self, value: &str, number: f64) -> String {
        let number = self.number(number);
        self.op("Add", &[value, &number], Vec::new())
    }

    fn sum(&mut self, values: &[String]) -> String {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        if values.len() == 1 { values[0].to_owned() } else { self.op("Sum", &values, Vec::new()) }
    }

    fn stacked(&mut self, values: &[String]) -> String {
        let rows: Vec<String> = values.iter().map(|value| self.unsqueeze(value, 0)).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        self.op("Concat", &rows, vec![int_attribute("axis", 0)])
    }

    /// Adds `ln Σ exp` over values.
    fn log_sum(&mut self, values: &[String]) -> String {
        let stacked = self.stacked(values);
        self.reduce("ReduceLogSumExp", &stacked, 0, false)
    }

    fn top(&mut self, value: &str) -> String {
        self.op("ArgMax", &[value], vec![int_attribute("axis", -1), int_attribute("keepdims", 1)])
    }

    /// Adds a sort over values, and returns the middle one or two.
    fn middle(&mut self, values: &[String]) -> Vec<String> {
        let stacked = self.stacked(values);
        let count = self.ints(&[values.len() as i64]);
        let (sorted, order) = (self.fresh("sorted"), self.fresh("order"));
        let attributes = vec![int_attribute("axis", 0)];
        let made = NodeProto { attribute: attributes, ..node("TopK", &[&stacked, &count], &[&sorted, &order]) };
        self.nodes.push(NodeProto { name: Some(format!("ensemble/TopK_{}", self.nodes.len())), ..made });
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        let mut pick = |index: usize| {
            let index = self.ints(&[index as i64]);
            let row = self.op("Gather", &[&sorted, &index], vec![int_attribute("axis", 0)]);
            let axes = self.ints(&[0]);
            self.op("Squeeze", &[&row, &axes], Vec::new())
        };
        if low == high { vec![pick(low)] } else { vec![pick(low), pick(high)] }
    }

    /// Adds pooling of token vectors `[batch, tokens, width]` to one vector per text, where `mask` is not 0.
    pub fn pool(&mut self, value: &str, pooling: Pooling, mask: &str, mask_dtype: Option<DataType>) -> String {
        match pooling {
            Pooling::Cls => {
                let first = self.slice(value, 0, 1, 1);
                let axes = self.ints(&[1]);
                self.op("Squeeze", &[&first, &axes], Vec::new())
            }
            Pooling::Mean | Pooling::MeanSqrtLen | Pooling::WeightedMean => {
                let mut mask = self.float(mask, mask_dtype);
                if pooling == Pooling::WeightedMean {
                    // The places of tokens, from 1 on: how many there are up to each.
                    let axis = self.ints(&[1]);
                    let places = self.op("CumSum", &[&mask, &axis], vec![int_attribute("exclusive", 0)]);
                    mask = self.op("Mul", &[&mask, &places], Vec::new());
                }
                let column = self.unsqueeze(&mask, 2);
                let kept = self.op("Mul", &[value, &column], Vec::new());
                let (sum, count) =
                    (self.reduce("ReduceSum", &kept, 1, false), self.reduce("ReduceSum", &mask, 1, true));
                let one = self.number(1e-9);
                let mut count = self.op("Max", &[&count, &one], Vec::new());
                if pooling == Pooling::MeanSqrtLen {
                    count = self.op("Sqrt", &[&count], Vec::new());
                }
                self.op("Div", &[&sum, &count], Vec::new())
            }
            Pooling::Max => {
                let mask = self.cast(mask, DataType::Bool);
                let column = self.unsqueeze(&mask, 2);
                let least = self.number(f64::from(f32::MIN));
                let kept = self.op("Where", &[&column, value, &least], Vec::new());
                self.reduce("ReduceMax", &kept, 1, false)
            }
            Pooling::LastToken => {
                // The last place that counts: positions times the mask, the largest.
                let mask = self.cast(mask, DataType::Int64);
                let (axis, flags) = (self.ints(&[1]), vec![int_attribute("exclusive", 0)]);
                let places = self.op("CumSum", &[&mask, &axis], flags);
                let places = self.op("Mul", &[&places, &mask], Vec::new());
                let last = self.op("ArgMax", &[&places], vec![int_attribute("axis", 1), int_attribute("keepdims", 1)]);
                self.op("GatherND", &[value, &last], vec![int_attribute("batch_dims", 1)])
            }
        }
    }

    /// Adds a normalization of `value` to length 1, row by row.
    pub fn unit(&mut self, value: &str) -> String {
        let norm = self.reduce("ReduceL2", value, -1, true);
        let least = self.number(1e-12);
        let norm = self.op("Max", &[&norm, &least], Vec::new());
        self.op("Div", &[value, &norm], Vec::new())
    }
}

/// Combines logits, whose last dimension is tokens or classes, into log-probabilities: the output `name`.
pub fn distribution(nodes: &mut Nodes, ensemble: &Ensemble, rows: &[String], name: &str) -> Result<()> {
    let members = ensemble.members();
    let weights: Vec<f64> = members.iter().map(|member| member.weight).collect();
    let scaled: Vec<String> =
        rows.iter().zip(members).map(|(row, member)| nodes.scaled(row, 1.0 / member.temperature)).collect();
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
        Method::Logits => {
            let terms: Vec<String> = scaled.iter().zip(&weights).map(|(row, w)| nodes.scaled(row, *w)).collect();
            let sum = nodes.sum(&terms);
            nodes.log_softmax(&sum)
        }
        Method::Product => {
            let power = weights.len() as f64;
            let terms: Vec<String> = logs.iter().zip(&weights).map(|(log, w)| nodes.scaled(log, power * w)).collect();
            let sum = nodes.sum(&terms);
            nodes.log_softmax(&sum)
        }
        Method::Max => {
            let values: Vec<&str> = logs.iter().map(String::as_str).collect();
            let largest = nodes.op("Max", &values, Vec::new());
            nodes.log_softmax(&largest)
        }
        Method::Median => {
            let middle = nodes.middle(&logs);
            // The half of two in the middle is the same factor for all tokens.
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
        let same: Vec<String> = tops[1..].iter().map(|top| nodes.op("Equal", &[&tops[0], top], Vec::new())).collect();
        let mut all = same[0].clone();
        for same in &same[1..] {
            all = nodes.op("And", &[&all, same], Vec::new());
        }
        nodes.op_to("Where", &[&all, &own, &combined], Vec::new(), name);
    } else {
        nodes.op_to("Identity", &[&combined], Vec::new(), name);
    }
    Ok(())
}

fn vote(nodes: &mut Nodes, rows: &[String], weights: &[f64]) -> String {
    let shape = nodes.op("Shape", &[&rows[0]], Vec::new());
    let last = nodes.ints(&[-1]);
    let depth = nodes.op("Gather", &[&shape, &last], Vec::new());
    let mut votes = Vec::new();
    for (row, weight) in rows.iter().zip(weights) {
        let attributes = vec![int_attribute("axis", -1), int_attribute("keepdims", 0)];
        let top = nodes.op("ArgMax", &[row], attributes);
        let name = nodes.fresh("vote");
        nodes.constants.push(float_tensor(&name, &[2], &[0.0, *weight as f32]));
        votes.push(nodes.op("OneHot", &[&top, &depth, &name], vec![int_attribute("axis", -1)]));
    }
    let shares = nodes.sum(&votes);
    nodes.op("Log", &[&shares], Vec::new())
}

fn contrast(nodes: &mut Nodes, logs: &[String]) -> String {
    let most = nodes.reduce("ReduceMax", &logs[0], -1, true);
    let bar = nodes.plus(&most, 0.1f64.ln());
    let least = nodes.number(-708.0);
    let amateur = nodes.op("Max", &[&logs[1], &least], Vec::new());
    let score = nodes.op("Sub", &[&logs[0], &amateur], Vec::new());
    let plausible = nodes.op("GreaterOrEqual", &[&logs[0], &bar], Vec::new());
    let never = nodes.number(f64::NEG_INFINITY);
    let kept = nodes.op("Where", &[&plausible, &score, &never], Vec::new());
    nodes.log_softmax(&kept)
}

/// Combines normalized vectors into the output `name`: their weighted mean, or their concatenation.
pub fn vector(nodes: &mut Nodes, concat: bool, weights: &[f64], vectors: &[String], name: &str) {
    let factor = |w: f64| if concat { w.sqrt() } else { w };
    let terms: Vec<String> = vectors.iter().zip(weights).map(|(v, w)| nodes.scaled(v, factor(*w))).collect();
    let terms: Vec<&str> = terms.iter().map(String::as_str).collect();
    match concat {
        true => nodes.op_to("Concat", &terms, vec![int_attribute("axis", -1)], name),
        false => nodes.op_to("Sum", &terms, Vec::new(), name),
    }
}

/// Combines numbers into the output `name`.
pub fn number(nodes: &mut Nodes, ensemble: &Ensemble, values: &[String], name: &str) {
    let combined = match ensemble.options().method {
        Method::Max => {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            nodes.op("Max", &values, Vec::new())
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
    nodes.op_to("Identity", &[&combined], Vec::new(), name);
}
