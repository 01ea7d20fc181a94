//! Tests of sizes that are used as numbers, and of shapes that become unknown and known again.

use crate::random::{Maker, Random, open};
use crate::run;
use crate::support::build::{model, op, value};
use crate::support::runtime;
use optimize::call::Call;
use optimize::graph::edit::{float_tensor, int_attribute, ints_attribute, node, tensor};
use optimize::model::Model;
use optimize::onnx::dtype::DataType::{Float32, Int64};
use optimize::onnx::proto::{NodeProto, TensorProto};
use optimize::prune::structured::{Plan, PruneOptions, structured};
use optimize::runtime::Tensor;

const FLOAT: i64 = 1;

impl Maker {
    /// Adds the size of a dimension of `x`, as a scalar or a list with one element, and returns its name.
    fn size(&mut self, x: &str, axis: i64) -> String {
        let shape = self.op("Shape", &[x], vec![]);
        if self.random.chance() {
            let (from, to) = (self.ints(&[axis]), self.ints(&[axis + 1]));
            return self.op("Slice", &[&shape, &from, &to], vec![]);
        }
        let at = self.ints(&[axis]);
        self.op("Gather", &[&shape, &at], vec![])
    }

    fn float(&mut self, x: &str) -> String {
        self.op("Cast", &[x], vec![int_attribute("to", FLOAT)])
    }

    /// Adds the scale of the scores as exporters do: the square root of the width of all heads divided by their number.
    pub fn root_of_head_size(&mut self, queries: &str, heads: i64) -> String {
        let (width, heads) = (self.size(queries, 2), self.ints(&[heads]));
        let size = if self.random.chance() {
            let size = self.op("Div", &[&width, &heads], vec![]);
            self.float(&size)
        } else {
            let (width, heads) = (self.float(&width), self.float(&heads));
            self.op("Div", &[&width, &heads], vec![])
        };
        self.op("Sqrt", &[&size], vec![])
    }

    fn by_a_product_of_sizes(&mut self, y: &str) -> String {
        let sizes = self.op("Shape", &[y], vec![]);
        let (last, end) = (self.ints(&[2]), self.ints(&[3]));
        let last = self.op("Slice", &[&sizes, &last, &end], vec![]);
        let all = self.op("ReduceProd", &[&last], vec![int_attribute("keepdims", 0)]).pipe(|n| self.float(&n));
        self.op("Div", &[y, &all], vec![])
    }

    /// Adds two uses of the same width: once in a shape and once as a number.
    fn by_a_size_and_a_shape(&mut self, y: &str) -> String {
        let shape = self.op("Shape", &[y], vec![]);
        let (zero, two, end) = (self.ints(&[0]), self.ints(&[2]), self.ints(&[3]));
        let lead = self.op("Slice", &[&shape, &zero, &two], vec![]);
        let size = self.op("Slice", &[&shape, &two, &end], vec![]);
        let shape = self.op("Concat", &[&lead, &size], vec![int_attribute("axis", 0)]);
        let flat = self.ints(&[-1]);
        let z = self.op("Reshape", &[y, &flat], vec![]);
        let z = self.op("Reshape", &[&z, &shape], vec![]);
        let size = self.float(&size);
        self.op("Div", &[&z, &size], vec![])
    }

    /// Adds a layer that uses the cut size between its weights, in one of several ways.
    pub fn counted(&mut self, x: &str, width: i64) -> String {
        let inner = 2 * (6 + self.random.below(9)) as i64;
        let y = self.linear(x, width, inner);
        let y = match self.random.below(8) {
            0 => {
                let size = self.size(&y, 2).pipe(|size| self.float(&size));
                let y = self.op("Mul", &[&y, &size], vec![]);
                let scale = self.scalar(1.0 / inner as f32);
                self.op("Mul", &[&y, &scale], vec![])
            }
            1 => {
                // Structured pruning has no rule that computes the values of `Mod`.
                let (size, seven) = (self.size(&y, 2), self.ints(&[7]));
                let rest = self.op("Mod", &[&size, &seven], vec![]).pipe(|rest| self.float(&rest));
                self.op("Add", &[&y, &rest], vec![])
            }
            2 => self.by_a_product_of_sizes(&y),
            3 => {
                // The value is split into halves by a computed size.
                let (size, two, zero, axis) = (self.size(&y, 2), self.ints(&[2]), self.ints(&[0]), self.ints(&[2]));
                let (half, flat) = (self.op("Div", &[&size, &two], vec![]), self.ints(&[1]));
                let half = self.op("Reshape", &[&half, &flat], vec![]);
                let size = self.op("Reshape", &[&size, &flat], vec![]);
                let a = self.op("Slice", &[&y, &zero, &half, &axis], vec![]);
                let b = self.op("Slice", &[&y, &half, &size, &axis], vec![]);
                let y = self.op("Mul", &[&a, &b], vec![]);
                return self.linear(&y, inner / 2, width);
            }
            4 => {
                // A condition depends on a size.
                let (size, much) = (self.size(&y, 2), self.ints(&[inner - 1]));
                let wide = self.op("Greater", &[&size, &much], vec![]);
                let (yes, no) = (self.scalar(0.5), self.scalar(3.0));
                let scale = self.op("Where", &[&wide, &yes, &no], vec![]);
                self.op("Mul", &[&y, &scale], vec![])
            }
            5 => self.by_a_size_and_a_shape(&y),
            6 => {
                let (size, one) = (self.size(&y, 2), self.ints(&[1]));
                let size = self.op("Add", &[&size, &one], vec![]);
                let power = self.float(&size);
                let small = self.scalar(0.001);
                let power = self.op("Mul", &[&power, &small], vec![]);
                self.op("Add", &[&y, &power], vec![])
            }
            _ => {
                // The size of all dimensions, including open ones, is a factor.
                let all = self.op("Size", &[&y], vec![]).pipe(|all| self.float(&all));
                self.op("Div", &[&y, &all], vec![])
            }
        };
        let y = self.activation(&y);
        self.linear(&y, inner, width)
    }
}

trait Pipe: Sized {
    fn pipe<T>(self, f: impl FnOnce(Self) -> T) -> T {
        f(self)
    }
}

impl Pipe for String {}

fn longs(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    tensor(name, Int64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn weights(name: &str, dims: &[i64], seed: u64) -> TensorProto {
    let mut random = Random(seed);
    let count = dims.iter().product::<i64>() as usize;
    float_tensor(name, dims, &(0..count).map(|_| random.float() * 0.3).collect::<Vec<_>>())
}

fn attribute(mut made: NodeProto, name: &str, values: &[i64]) -> NodeProto {
    made.attribute.push(ints_attribute(name, values));
    made
}

/// Prunes half of a model, which must equal the masked one, and returns the number of units that the report gives.
fn halved(model: &Model, x: &Tensor) -> (u64, u64) {
    let options = PruneOptions { sparsity: 0.5, round_to: 1, ..PruneOptions::structured() };
    let plan = Plan::new(model, &options, None, &Call::default()).unwrap();
    let cut = plan.cut(&Call::default()).unwrap();
    let (expected, found) = (run(&plan.masked().unwrap(), x), run(&cut, x));
    let scale = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    assert_eq!(expected.len(), found.len());
    expected.iter().zip(&found).for_each(|(a, b)| assert!((a - b).abs() <= 1e-6 * scale, "{a} became {b}"));
    let report = plan.report(&cut).unwrap();
    let number = |name: &str| report.summary[name].as_u64().unwrap();
    (number("units_before"), number("units_after"))
}

fn sound(channels: i64, length: i64) -> Tensor {
    let mut random = Random(5);
    let count = 2 * channels * length;
    Tensor::from_f32(&[2, channels, length], (0..count).map(|_| random.float()).collect()).unwrap()
}

/// Returns `torch.nn.functional.pad` as PyTorch exports it: pairs from the last dimension on, reversed in the graph.
fn computed_pads(x: &str, pads: &[i64], weights: &mut Vec<TensorProto>) -> Vec<NodeProto> {
    weights.push(longs("pads", &[pads.len() as i64], pads));
    weights.push(longs("rest", &[1], &[6 - pads.len() as i64]));
    weights.push(longs("pairs", &[2], &[-1, 2]));
    weights.push(longs("first", &[1], &[0]));
    weights.push(longs("last", &[1], &[-1]));
    weights.push(longs("before", &[1], &[i64::MIN + 1]));
    let mut zeros = node("ConstantOfShape", &["rest"], &["zeros"]);
    let fill = longs("fill", &[1], &[0]);
    zeros.attribute.push(optimize::onnx::proto::AttributeProto {
        name: Some("value".into()),
        kind: Some(4),
        t: Some(Box::new(fill)),
        ..Default::default()
    });
    vec![
        zeros,
        op("Concat", &["pads", "zeros"], &["padding"], &[("axis", 0)]),
        node("Reshape", &["padding", "pairs"], &["table"]),
        node("Slice", &["table", "last", "before", "first", "last"], &["transposed"]),
        attribute(node("Transpose", &["transposed"], &["columns"]), "perm", &[1, 0]),
        node("Reshape", &["columns", "last"], &["list"]),
        op("Cast", &["list"], &["all"], &[("to", 7)]),
        node("Pad", &[x, "all"], &["padded"]),
    ]
}

/// Returns a convolution, nodes after which the shape is unknown, and a convolution.
fn around(between: Vec<NodeProto>, more: Vec<TensorProto>, last: &str) -> Model {
    let mut all = vec![weights("a", &[24, 3, 5], 1), weights("b", &[6, 24, 3], 2)];
    all.extend(more);
    let mut nodes = vec![node("Conv", &["x", "a"], &["h"]), node("Relu", &["h"], &["k"])];
    nodes.extend(between);
    nodes.push(node("Conv", &[last, "b"], &["y"]));
    model(17, vec![open("x", &[-1, 3, -1])], vec![open("y", &[-1, 6, -1])], all, nodes)
}

#[test]
fn padding_that_pytorch_computes_in_the_graph_blinds_nobody() {
    let mut more = Vec::new();
    let nodes = computed_pads("k", &[2, 3], &mut more);
    assert_eq!(halved(&around(nodes, more, "padded"), &sound(3, 40)), (24, 12));
}

#[test]
fn sizes_computed_from_floats_are_found_by_the_runtime() {
    runtime();
    let more = vec![
        float_tensor("two", &[1], &[2.5]),
        longs("from", &[1], &[2]),
        longs("to", &[1], &[3]),
        longs("none", &[1], &[0]),
    ];
    let nodes = vec![
        node("Shape", &["k"], &["shape"]),
        node("Slice", &["shape", "from", "to"], &["length"]),
        node("Slice", &["shape", "none", "from"], &["lead"]),
        op("Cast", &["length"], &["float"], &[("to", FLOAT)]),
        node("Mul", &["float", "two"], &["scaled"]),
        node("Floor", &["scaled"], &["floor"]),
        op("Cast", &["floor"], &["long"], &[("to", 7)]),
        op("Concat", &["lead", "long"], &["sizes"], &[("axis", 0)]),
        node("Resize", &["k", "", "", "sizes"], &["resized"]),
    ];
    assert_eq!(halved(&around(nodes, more, "resized"), &sound(3, 40)), (24, 12));
}

#[test]
fn what_follows_a_recurrent_layer_or_a_branch_is_cut() {
    runtime();
    // The time is the first dimension: [t, b, 6] through a GRU of 8, an If, and a feed-forward layer.
    let all = vec![
        weights("w", &[1, 24, 6], 1),
        weights("r", &[1, 24, 8], 2),
        weights("up", &[8, 32], 3),
        weights("down", &[32, 4], 4),
        longs("one", &[1], &[1]),
        longs("long", &[], &[3]),
        longs("at", &[], &[0]),
    ];
    let branch = |name: &str, op: &str| optimize::onnx::proto::GraphProto {
        name: Some(name.into()),
        node: vec![node(op, &["g"], &[name])],
        output: vec![optimize::graph::edit::untyped(name)],
        ..Default::default()
    };
    let mut gru = node("GRU", &["x", "w", "r"], &["all"]);
    gru.attribute.push(int_attribute("hidden_size", 8));
    let choose = node("If", &["longer"], &["h"]);
    let choose = crate::support::build::with_graph(choose, "then_branch", branch("yes", "Relu"));
    let choose = crate::support::build::with_graph(choose, "else_branch", branch("no", "Tanh"));
    let nodes = vec![
        gru,
        node("Squeeze", &["all", "one"], &["g"]),
        node("Shape", &["g"], &["shape"]),
        node("Gather", &["shape", "at"], &["steps"]),
        node("Greater", &["steps", "long"], &["longer"]),
        choose,
        node("MatMul", &["h", "up"], &["u"]),
        node("Relu", &["u"], &["v"]),
        node("MatMul", &["v", "down"], &["y"]),
    ];
    let made = model(17, vec![value("x", Float32, &[-1, 2, 6])], vec![value("y", Float32, &[-1, 2, 4])], all, nodes);
    let mut random = Random(9);
    let x = Tensor::from_f32(&[5, 2, 6], (0..60).map(|_| random.float()).collect()).unwrap();
    assert_eq!(halved(&made, &x), (32, 16));
}

#[test]
fn a_window_of_raw_sound_is_no_larger_than_an_open_length() {
    let all = vec![weights("a", &[16, 1, 400], 1), weights("b", &[4, 16, 3], 2)];
    let first = attribute(node("Conv", &["x", "a"], &["h"]), "strides", &[160]);
    let nodes = vec![first, node("Relu", &["h"], &["k"]), node("Conv", &["k", "b"], &["y"])];
    let made = model(17, vec![open("x", &[-1, 1, -1])], vec![open("y", &[-1, 4, -1])], all, nodes);
    assert_eq!(halved(&made, &sound(1, 1600)), (16, 8));
}

#[test]
fn who_lost_a_shape_is_named_and_no_weight_is_denied() {
    let refused = |model: &Model| {
        structured(model, &PruneOptions::structured(), None, &Call::default()).err().unwrap().to_string()
    };
    // The number of elements that NonZero returns depends on the data.
    let all = vec![weights("up", &[1, 16], 1), weights("down", &[16, 4], 2)];
    let nodes = vec![
        node("NonZero", &["x"], &["places"]),
        attribute(node("Transpose", &["places"], &["transposed"]), "perm", &[1, 0]),
        op("Cast", &["transposed"], &["f"], &[("to", FLOAT)]),
        node("MatMul", &["f", "up"], &["u"]),
        node("MatMul", &["u", "down"], &["y"]),
    ];
    let mut found = nodes;
    found[0].name = Some("/where".into());
    let made = model(17, vec![value("x", Float32, &[-1])], vec![value("y", Float32, &[-1, 4])], all, found);
    let text = refused(&made);
    assert!(text.contains("NonZero \"/where\"") && text.contains("shapes of its outputs"), "{text}");
    // All weights are in a branch.
    let branch = |name: &str| optimize::onnx::proto::GraphProto {
        name: Some(name.into()),
        node: vec![node("MatMul", &["x", &format!("{name}_w")], &[name])],
        initializer: vec![weights(&format!("{name}_w"), &[6, 6], 3)],
        output: vec![optimize::graph::edit::untyped(name)],
        ..Default::default()
    };
    let choose = crate::support::build::with_graph(node("If", &["c"], &["y"]), "then_branch", branch("yes"));
    let choose = crate::support::build::with_graph(choose, "else_branch", branch("no"));
    let inputs = vec![value("c", optimize::onnx::dtype::DataType::Bool, &[]), value("x", Float32, &[-1, 6])];
    let text = refused(&model(17, inputs, vec![value("y", Float32, &[-1, 6])], vec![], vec![choose]));
    assert!(text.contains("If") && text.contains("has a subgraph"), "{text}");
}

#[test]
fn channels_of_images_stay_in_whole_blocks_by_default() {
    let all = vec![weights("a", &[32, 3, 3, 3], 1), weights("b", &[24, 32, 3, 3], 2), weights("c", &[5, 24, 1, 1], 3)];
    let nodes = vec![
        node("Conv", &["x", "a"], &["h"]),
        node("Relu", &["h"], &["k"]),
        node("Conv", &["k", "b"], &["l"]),
        node("Relu", &["l"], &["m"]),
        node("Conv", &["m", "c"], &["y"]),
    ];
    let made =
        model(17, vec![value("x", Float32, &[-1, 3, 9, 9])], vec![value("y", Float32, &[-1, 5, 5, 5])], all, nodes);
    let kept = |sparsity: f64| {
        let options = PruneOptions { sparsity, ..PruneOptions::structured() };
        let (cut, _) = structured(&made, &options, None, &Call::default()).unwrap();
        let sizes =
            |name: &str| cut.graph().initializer.iter().find(|t| t.name.as_deref() == Some(name)).unwrap().dims[0];
        (sizes("a"), sizes("b"))
    };
    assert_eq!((kept(0.3), kept(0.5), kept(0.1)), ((16, 16), (16, 16), (32, 24)));
}
