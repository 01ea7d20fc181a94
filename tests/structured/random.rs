//! Random graphs by seed: everything that structured pruning must handle, in all combinations.

#[path = "random/images.rs"]
mod images;

use crate::support::build::{model, value};
use optimize::graph::edit::{float_tensor, int_attribute, ints_attribute, node, tensor};
use optimize::model::Model;
use optimize::onnx::dtype::DataType;
use optimize::onnx::proto::*;

/// A generator of pseudorandom numbers that are the same on every platform (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    pub fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Returns a number in (-1, 1).
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A graph that is being built.
pub struct Maker {
    pub random: Random,
    pub opset: i64,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    count: usize,
    /// Whether sizes are also used as numbers.
    pub numbers: bool,
}

impl Maker {
    pub fn new(seed: u64) -> Maker {
        let mut random = Random(seed);
        let opset = random.pick(&[11, 13, 17, 18]);
        Maker { random, opset, nodes: Vec::new(), initializers: Vec::new(), count: 0, numbers: false }
    }

    fn name(&mut self, hint: &str) -> String {
        self.count += 1;
        format!("{hint}_{}", self.count)
    }

    pub fn op(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.name(op);
        let mut made = node(op, inputs, &[&output]);
        made.name = Some(format!("/block_{}/{op}", self.count));
        made.attribute = attributes;
        self.nodes.push(made);
        output
    }

    pub fn weight(&mut self, dims: &[i64]) -> String {
        let count = dims.iter().product::<i64>() as usize;
        // The scale keeps sums over the inputs of a weight near 1.
        let fan: i64 = if dims.len() > 2 { dims[1..].iter().product() } else { dims[0] };
        let scale = 1.5 / (fan.max(1) as f32).sqrt();
        let values: Vec<f32> = (0..count).map(|_| self.random.float() * scale).collect();
        let name = self.name("weight");
        self.initializers.push(float_tensor(&name, dims, &values));
        name
    }

    pub fn vector(&mut self, size: i64, around: f32) -> String {
        let values: Vec<f32> = (0..size).map(|_| around + self.random.float() * 0.3).collect();
        let name = self.name("vector");
        self.initializers.push(float_tensor(&name, &[size], &values));
        name
    }

    pub fn scalar(&mut self, value: f32) -> String {
        let name = self.name("scalar");
        self.initializers.push(float_tensor(&name, &[], &[value]));
        name
    }

    /// Adds integers as an initializer or a `Constant` node.
    pub fn ints(&mut self, values: &[i64]) -> String {
        let name = self.name("ints");
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let made = tensor(&name, DataType::Int64, &[values.len() as i64], raw.into());
        if self.random.chance() {
            self.initializers.push(made);
        } else {
            self.nodes.push(crate::support::build::constant(made));
        }
        name
    }

    fn bias(&mut self, x: &str, size: i64) -> String {
        let b = self.vector(size, 0.1);
        if self.random.chance() { self.op("Add", &[x, &b], vec![]) } else { self.op("Add", &[&b, x], vec![]) }
    }

    pub fn activation(&mut self, x: &str) -> String {
        match self.random.below(6) {
            0 => self.op("Relu", &[x], vec![]),
            1 => self.op("Sigmoid", &[x], vec![]),
            2 => self.op("Tanh", &[x], vec![]),
            3 => {
                let (half, one) = (self.scalar(0.5), self.scalar(1.0));
                let e = self.op("Erf", &[x], vec![]);
                let e = self.op("Add", &[&e, &one], vec![]);
                let x = self.op("Mul", &[x, &half], vec![]);
                self.op("Mul", &[&x, &e], vec![])
            }
            4 => {
                let s = self.op("Sigmoid", &[x], vec![]);
                self.op("Mul", &[x, &s], vec![])
            }
            _ => {
                // This function does not map 0 to 0. Zeros in the weights that produce a unit would therefore not have
                // the effect of removing the unit.
                let c = self.scalar(0.7);
                let y = self.op("Add", &[x, &c], vec![]);
                self.op("Exp", &[&y], vec![]).pipe(|e| self.op("Sigmoid", &[&e], vec![]))
            }
        }
    }

    pub fn unsqueeze(&mut self, x: &str, axis: i64) -> String {
        if self.opset < 13 {
            return self.op("Unsqueeze", &[x], vec![ints_attribute("axes", &[axis])]);
        }
        let axes = self.ints(&[axis]);
        self.op("Unsqueeze", &[x, &axes], vec![])
    }

    pub fn split(&mut self, x: &str, axis: i64, sizes: &[i64]) -> Vec<String> {
        let outputs: Vec<String> = sizes.iter().map(|_| self.name("part")).collect();
        let mut inputs = vec![x.to_owned()];
        let mut attributes = vec![int_attribute("axis", axis)];
        let equal = sizes.iter().all(|s| *s == sizes[0]) && self.random.chance();
        if equal && self.opset >= 18 {
            attributes.push(int_attribute("num_outputs", sizes.len() as i64));
        } else if !equal && self.opset < 13 {
            attributes.push(ints_attribute("split", sizes));
        } else if !equal {
            inputs.push(self.ints(sizes));
        }
        let mut made = node("Split", &[], &[]);
        (made.input, made.output, made.attribute) = (inputs, outputs.clone(), attributes);
        self.nodes.push(made);
        outputs
    }

    /// Adds a linear layer on `[.., from]`, in one of several forms.
    pub fn linear(&mut self, x: &str, from: i64, to: i64) -> String {
        match self.random.below(4) {
            0 => {
                // PyTorch exports a matrix that is stored transposed in this form.
                let w = self.weight(&[to, from]);
                let w = self.op("Transpose", &[&w], vec![ints_attribute("perm", &[1, 0])]);
                self.op("MatMul", &[x, &w], vec![])
            }
            1 => {
                let (w, b) = (self.weight(&[to, from]), self.vector(to, 0.0));
                let flat = self.ints(&[-1, from]);
                let (shape, back) = (self.op("Shape", &[x], vec![]), self.ints(&[to]));
                let (zero, two) = (self.ints(&[0]), self.ints(&[2]));
                let lead = self.op("Slice", &[&shape, &zero, &two], vec![]);
                let back = self.op("Concat", &[&lead, &back], vec![int_attribute("axis", 0)]);
                let x = self.op("Reshape", &[x, &flat], vec![]);
                let y = self.op("Gemm", &[&x, &w, &b], vec![int_attribute("transB", 1)]);
                self.op("Reshape", &[&y, &back], vec![])
            }
            2 => {
                let w = self.weight(&[from, to]);
                let y = self.op("MatMul", &[x, &w], vec![]);
                self.bias(&y, to)
            }
            _ => {
                let w = self.weight(&[from, to]);
                self.op("MatMul", &[x, &w], vec![])
            }
        }
    }

    fn layer_norm(&mut self, x: &str, width: i64) -> String {
        let (scale, shift) = (self.vector(width, 1.0), self.vector(width, 0.0));
        if self.opset >= 17 && self.random.chance() {
            return self.op("LayerNormalization", &[x, &scale, &shift], vec![int_attribute("axis", -1)]);
        }
        let mean = self.mean(x);
        let d = self.op("Sub", &[x, &mean], vec![]);
        let square = self.op("Mul", &[&d, &d], vec![]);
        let (variance, e) = (self.mean(&square), self.scalar(1e-5));
        let variance = self.op("Add", &[&variance, &e], vec![]);
        let deviation = self.op("Sqrt", &[&variance], vec![]);
        let y = self.op("Div", &[&d, &deviation], vec![]);
        let y = self.op("Mul", &[&y, &scale], vec![]);
        self.op("Add", &[&y, &shift], vec![])
    }

    fn mean(&mut self, x: &str) -> String {
        if self.opset < 18 {
            return self.op("ReduceMean", &[x], vec![ints_attribute("axes", &[-1]), int_attribute("keepdims", 1)]);
        }
        let axes = self.ints(&[-1]);
        self.op("ReduceMean", &[x, &axes], vec![int_attribute("keepdims", 1)])
    }

    /// Adds the feed-forward part of a block.
    fn feed_forward(&mut self, x: &str, width: i64) -> String {
        let inner = 8 + self.random.below(24) as i64;
        let y = match self.random.below(5) {
            0 => {
                let (gate, up) = (self.linear(x, width, inner), self.linear(x, width, inner));
                let gate = self.activation(&gate);
                self.op("Mul", &[&gate, &up], vec![])
            }
            1 => {
                let both = self.linear(x, width, 2 * inner);
                let parts = self.split(&both, -1, &[inner, inner]);
                let gate = self.activation(&parts[0]);
                self.op("Mul", &[&gate, &parts[1]], vec![])
            }
            2 => {
                // Two branches of different width are concatenated.
                let other = 4 + self.random.below(9) as i64;
                let (a, b) = (self.linear(x, width, inner), self.linear(x, width, other));
                let (a, b) = (self.activation(&a), self.activation(&b));
                let both = self.op("Concat", &[&a, &b], vec![int_attribute("axis", -1)]);
                let y = self.activation(&both);
                return self.linear(&y, inner + other, width);
            }
            3 => {
                // A slice of a wider layer and the rest of it are used separately.
                let wide = self.linear(x, width, inner + 6);
                let (zero, end, from, axis) = (self.ints(&[0]), self.ints(&[6]), self.ints(&[6]), self.ints(&[2]));
                let most = self.ints(&[i64::MAX]);
                let head = self.op("Slice", &[&wide, &zero, &end, &axis], vec![]);
                let rest = self.op("Slice", &[&wide, &from, &most, &axis], vec![]);
                let (head, rest) = (self.activation(&head), self.activation(&rest));
                let (a, b) = (self.linear(&head, 6, width), self.linear(&rest, inner, width));
                return self.op("Add", &[&a, &b], vec![]);
            }
            _ => {
                let y = self.linear(x, width, inner);
                self.activation(&y)
            }
        };
        self.linear(&y, inner, width)
    }

    /// Adds a reshape of `[batch, tokens, heads * size]` to `[batch, heads, tokens, size]`; the shape is constant or
    /// computed.
    pub fn heads(&mut self, x: &str, heads: i64, size: i64) -> String {
        let shape = match self.random.below(3) {
            0 => self.ints(&[0, 0, heads, size]),
            1 => self.ints(&[0, 0, -1, size]),
            _ => {
                let (shape, zero, two) = (self.op("Shape", &[x], vec![]), self.ints(&[0]), self.ints(&[2]));
                let lead = self.op("Slice", &[&shape, &zero, &two], vec![]);
                let (h, s) = (self.ints(&[heads]), self.ints(&[size]));
                self.op("Concat", &[&lead, &h, &s], vec![int_attribute("axis", 0)])
            }
        };
        let x = self.op("Reshape", &[x, &shape], vec![]);
        self.op("Transpose", &[&x], vec![ints_attribute("perm", &[0, 2, 1, 3])])
    }

    /// Adds attention: separate heads, or groups of heads with shared keys and values.
    fn attention(&mut self, x: &str, width: i64) -> String {
        let (kv, repeat, size) = (2 + self.random.below(3) as i64, 1 + self.random.below(3) as i64, 4);
        let heads = kv * repeat;
        let (q, k, v) = if self.random.below(3) == 0 {
            let all = self.linear(x, width, (heads + 2 * kv) * size);
            let parts = self.split(&all, -1, &[heads * size, kv * size, kv * size]);
            (parts[0].clone(), parts[1].clone(), parts[2].clone())
        } else {
            let (q, k) = (self.linear(x, width, heads * size), self.linear(x, width, kv * size));
            (q, k, self.linear(x, width, kv * size))
        };
        let whole = q.clone();
        let (q, k, v) = (self.heads(&q, heads, size), self.heads(&k, kv, size), self.heads(&v, kv, size));
        let (k, v) =
            if repeat == 1 { (k, v) } else { (self.repeat(&k, kv, repeat, size), self.repeat(&v, kv, repeat, size)) };
        let k = self.op("Transpose", &[&k], vec![ints_attribute("perm", &[0, 1, 3, 2])]);
        let scores = self.op("MatMul", &[&q, &k], vec![]);
        let scores = if self.numbers {
            let scale = self.root_of_head_size(&whole, heads);
            self.op("Div", &[&scores, &scale], vec![])
        } else {
            let scale = self.scalar(0.5);
            self.op("Mul", &[&scores, &scale], vec![])
        };
        let last = if self.opset < 13 { 3 } else { -1 };
        let shares = self.op("Softmax", &[&scores], vec![int_attribute("axis", last)]);
        let seen = self.op("MatMul", &[&shares, &v], vec![]);
        let seen = self.op("Transpose", &[&seen], vec![ints_attribute("perm", &[0, 2, 1, 3])]);
        let together = self.ints(&[0, 0, heads * size]);
        let seen = self.op("Reshape", &[&seen, &together], vec![]);
        self.linear(&seen, heads * size, width)
    }

    /// Adds nodes that repeat each of the `kv` heads `repeat` times.
    fn repeat(&mut self, x: &str, kv: i64, repeat: i64, size: i64) -> String {
        let shape = self.op("Shape", &[x], vec![]);
        let one = |m: &mut Maker, at: i64| {
            let (from, to) = (m.ints(&[at]), m.ints(&[at + 1]));
            m.op("Slice", &[&shape, &from, &to], vec![])
        };
        let (rows, tokens) = (one(self, 0), one(self, 2));
        let (h, n, s, all) = (self.ints(&[kv]), self.ints(&[repeat]), self.ints(&[size]), self.ints(&[kv * repeat]));
        let join = || vec![int_attribute("axis", 0)];
        let wide = self.op("Concat", &[&rows, &h, &n, &tokens, &s], join());
        let flat = self.op("Concat", &[&rows, &all, &tokens, &s], join());
        let x = self.unsqueeze(x, 2);
        let x = self.op("Expand", &[&x, &wide], vec![]);
        self.op("Reshape", &[&x, &flat], vec![])
    }

    /// Returns a stack of blocks over `[batch, tokens, 6]`.
    pub fn tokens(mut self) -> Model {
        let width = 8 + 2 * self.random.below(5) as i64;
        let mut x = self.linear("x", 6, width);
        let normed = self.random.chance();
        for _ in 0..1 + self.random.below(3) {
            let from = if normed { self.layer_norm(&x, width) } else { x.clone() };
            let y = match self.random.below(4) {
                0 | 1 => self.attention(&from, width),
                _ => self.feed_forward(&from, width),
            };
            x = if self.random.below(4) > 0 { self.op("Add", &[&x, &y], vec![]) } else { y };
            if self.numbers {
                x = self.counted(&x, width);
            }
        }
        if self.random.below(3) == 0 {
            x = self.shared(&x, width);
        }
        let y = self.linear(&x, width, 5);
        self.finish(&y, &[-1, -1, 6], &[-1, -1, 5])
    }

    /// Adds two products with the same square matrix.
    fn shared(&mut self, x: &str, width: i64) -> String {
        let w = self.weight(&[width, width]);
        let y = self.op("MatMul", &[x, &w], vec![]);
        let y = self.activation(&y);
        self.op("MatMul", &[&y, &w], vec![])
    }

    pub fn finish(mut self, y: &str, from: &[i64], to: &[i64]) -> Model {
        let mut last = node("Identity", &[y], &["y"]);
        last.name = Some("/out/Identity".to_owned());
        self.nodes.push(last);
        let (x, y) = (open("x", from), open("y", to));
        model(self.opset, vec![x], vec![y], self.initializers, self.nodes)
    }
}

/// Returns a value with a shape; each open size has its own symbol.
pub fn open(name: &str, dims: &[i64]) -> ValueInfoProto {
    let mut info = value(name, DataType::Float32, dims);
    let tensor = info.value_type.as_mut().unwrap().tensor_type.as_mut().unwrap();
    for (dim, name) in tensor.shape.as_mut().unwrap().dim.iter_mut().zip(["batch", "tokens"]) {
        dim.dim_param = dim.dim_value.is_none().then(|| name.to_owned());
    }
    info
}

/// A method that passes `self` to a closure in a chain of calls, so that the closure can borrow the maker again.
trait Pipe: Sized {
    fn pipe<T>(self, f: impl FnOnce(Self) -> T) -> T {
        f(self)
    }
}

impl Pipe for String {}
