//! Random models of every family of operators whose weights are stored.

use super::support::build::*;
use optimize::graph::edit::{float_tensor, ints_attribute, tensor};
use optimize::model::Model;
use optimize::onnx::dtype::DataType::{Float16, Float32, Int64};
use optimize::onnx::proto::*;
use optimize::runtime::Tensor;

/// A generator of reproducible numbers (splitmix64).
pub struct Random(u64);

impl Random {
    /// Returns a generator whose numbers depend on the seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Returns a number below `n`.
    pub fn index(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Returns an approximately normal number: the sum of twelve uniform ones.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
    }
}

/// A model, its inputs, and the type of its weights.
pub struct Case {
    pub name: String,
    pub model: Model,
    pub inputs: Vec<(String, Tensor)>,
    /// Whether weights are float16, before a `Cast`.
    pub half: bool,
    pub opset: i64,
}

pub const FAMILIES: [&str; 15] = [
    "Conv",
    "Conv of one dimension",
    "Conv of three dimensions",
    "depthwise Conv",
    "ConvTranspose",
    "LSTM",
    "GRU",
    "RNN",
    "MatMul of matrices",
    "left operand",
    "Gemm, transposed",
    "Einsum",
    "Gather of columns",
    "two readers",
    "a function",
];

/// The graph that is being built.
#[derive(Default)]
struct Parts {
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
    functions: Vec<FunctionProto>,
    x: Vec<i64>,
    rank: usize,
}

fn normal(random: &mut Random, dims: &[i64], deviation: f64) -> Vec<f32> {
    (0..dims.iter().product::<i64>()).map(|_| (random.normal() * deviation) as f32).collect()
}

fn pick(random: &mut Random, of: &[i64]) -> i64 {
    of[random.index(of.len())]
}

/// Returns a random model of a family; with `large`, its weights have some thousand elements.
pub fn case(family: &str, random: &mut Random, large: bool) -> Case {
    let opset = 7 + random.index(17) as i64;
    let opset = if matches!(family, "Einsum" | "a function") { opset.max(13) } else { opset };
    let half = random.index(4) == 0 && family != "a function";
    let mut parts = parts(family, random, large, opset);
    for tensor in &mut parts.weights {
        if half && tensor.name.as_deref() == Some("w") {
            let values = tensor.raw_data.as_ref().unwrap().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            let raw = values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect();
            *tensor = self::tensor("stored", Float16, &tensor.dims.clone(), raw);
            parts.nodes.insert(0, op("Cast", &["stored"], &["w"], &[("to", 1)]));
        }
    }
    // A third of the weights are `Constant` nodes, as in some exporters.
    if random.index(3) == 0 && !half {
        let at = parts.weights.iter().position(|t| t.name.as_deref() == Some("w"));
        if let Some(at) = at {
            parts.nodes.insert(0, constant(parts.weights.remove(at)));
        }
    }
    let values = normal(random, &parts.x, 1.0);
    let graph = GraphProto {
        name: Some("test".into()),
        node: parts.nodes,
        initializer: parts.weights,
        input: vec![value("x", Float32, &parts.x)],
        output: vec![value("y", Float32, &vec![-1; parts.rank]).without_sizes()],
        ..Default::default()
    };
    let mut proto = model_of(opset, graph);
    if !parts.functions.is_empty() {
        let domain = Some("own".to_owned());
        proto.opset_import.push(OperatorSetIdProto { domain, version: Some(1), ..Default::default() });
        proto.functions = parts.functions;
    }
    let inputs = vec![("x".to_owned(), Tensor::from_f32(&parts.x, values).unwrap())];
    Case { name: format!("{family}, opset {opset}"), model: Model::from_proto(proto), inputs, half, opset }
}

trait WithoutSizes {
    /// Removes the sizes that shape inference finds.
    fn without_sizes(self) -> Self;
}

impl WithoutSizes for ValueInfoProto {
    fn without_sizes(mut self) -> Self {
        if let Some(tensor) = self.value_type.as_mut().and_then(|t| t.tensor_type.as_mut()) {
            tensor.shape = None;
        }
        self
    }
}

fn parts(family: &str, random: &mut Random, large: bool, opset: i64) -> Parts {
    match family {
        "Conv" => conv(random, 2, large),
        "Conv of one dimension" => conv(random, 1, large),
        "Conv of three dimensions" => conv(random, 3, large),
        "depthwise Conv" => depthwise(random, large),
        "ConvTranspose" => transposed(random, large),
        "LSTM" | "GRU" | "RNN" => recurrent(family, random, large),
        "MatMul of matrices" => matrices(random, large),
        "left operand" => left(random, large),
        "Gemm, transposed" => gemm(random, large),
        "Einsum" => einsum(random, large),
        "Gather of columns" => columns(random, large),
        "two readers" => readers(random, large),
        _ => function(random, large, opset),
    }
}

fn w(random: &mut Random, name: &str, dims: &[i64]) -> TensorProto {
    let deviation = [0.02, 0.1, 0.5][random.index(3)];
    float_tensor(name, dims, &normal(random, dims, deviation))
}

fn conv(random: &mut Random, spatial: usize, large: bool) -> Parts {
    let group = pick(random, &[1, 1, 2, 4]);
    let (inputs, outputs) = if large { (16, 32) } else { (pick(random, &[1, 2, 3, 8]), pick(random, &[4, 8, 16])) };
    let kernel = if large { 3 } else { pick(random, &[1, 2, 3, 5]) };
    let dims: Vec<i64> = [outputs * group, inputs].into_iter().chain(vec![kernel; spatial]).collect();
    Parts {
        nodes: vec![op("Conv", &["x", "w"], &["y"], &[("group", group)])],
        weights: vec![w(random, "w", &dims)],
        x: [2, inputs * group].into_iter().chain(vec![6; spatial]).collect(),
        rank: spatial + 2,
        ..Parts::default()
    }
}

fn depthwise(random: &mut Random, large: bool) -> Parts {
    let channels = if large { 512 } else { pick(random, &[16, 32, 64]) };
    Parts {
        nodes: vec![op("Conv", &["x", "w"], &["y"], &[("group", channels)])],
        weights: vec![w(random, "w", &[channels, 1, 5, 5])],
        x: vec![1, channels, 7, 7],
        rank: 4,
        ..Parts::default()
    }
}

fn transposed(random: &mut Random, large: bool) -> Parts {
    let group = pick(random, &[1, 1, 2, 4]);
    let each = if large { 16 } else { pick(random, &[1, 2, 5, 8]) };
    let inputs = if large { 32 } else { pick(random, &[2, 4, 8]) } * group;
    let kernel = pick(random, &[2, 3, 4]);
    Parts {
        nodes: vec![op("ConvTranspose", &["x", "w"], &["y"], &[("group", group)])],
        weights: vec![w(random, "w", &[inputs, each, kernel, kernel])],
        x: vec![2, inputs, 5, 5],
        rank: 4,
        ..Parts::default()
    }
}

fn recurrent(family: &str, random: &mut Random, large: bool) -> Parts {
    let gates = [("LSTM", 4), ("GRU", 3), ("RNN", 1)].iter().find(|(op, _)| *op == family).unwrap().1;
    let both = random.index(2) == 1;
    let directions = 1 + i64::from(both);
    let hidden = if large { 64 } else { pick(random, &[8, 17, 32]) };
    let inputs = if large { 96 } else { pick(random, &[5, 16, 33]) };
    let mut node = op(family, &["x", "w", "r", "b"], &["y"], &[("hidden_size", hidden)]);
    let direction = if both { "bidirectional" } else { "forward" };
    node.attribute.push(AttributeProto {
        name: Some("direction".into()),
        kind: Some(attribute_kind::STRING),
        s: Some(direction.into()),
        ..Default::default()
    });
    Parts {
        nodes: vec![node],
        weights: vec![
            float_tensor(
                "w",
                &[directions, gates * hidden, inputs],
                &normal(random, &[directions, gates * hidden, inputs], 0.2),
            ),
            float_tensor(
                "r",
                &[directions, gates * hidden, hidden],
                &normal(random, &[directions, gates * hidden, hidden], 0.1),
            ),
            float_tensor(
                "b",
                &[directions, 2 * gates * hidden],
                &normal(random, &[directions, 2 * gates * hidden], 0.1),
            ),
        ],
        x: vec![4, 2, inputs],
        rank: 4,
        ..Parts::default()
    }
}

fn matrices(random: &mut Random, large: bool) -> Parts {
    let count = if large { 3 } else { pick(random, &[1, 2, 5]) };
    let (rows, columns) = if large { (64, 48) } else { (pick(random, &[16, 33, 64]), pick(random, &[8, 24, 40])) };
    Parts {
        nodes: vec![op("MatMul", &["x", "w"], &["y"], &[])],
        weights: vec![w(random, "w", &[count, rows, columns])],
        x: vec![count, 3, rows],
        rank: 3,
        ..Parts::default()
    }
}

fn left(random: &mut Random, large: bool) -> Parts {
    let (rows, columns) = if large { (96, 64) } else { (pick(random, &[16, 30]), pick(random, &[32, 48])) };
    let lead: Vec<i64> = if random.index(2) == 1 { vec![2] } else { vec![] };
    let of = |last: [i64; 2]| lead.iter().copied().chain(last).collect::<Vec<i64>>();
    Parts {
        nodes: vec![op("MatMul", &["w", "x"], &["y"], &[])],
        weights: vec![w(random, "w", &of([rows, columns]))],
        x: of([columns, 5]),
        rank: lead.len() + 2,
        ..Parts::default()
    }
}

fn gemm(random: &mut Random, large: bool) -> Parts {
    let (rows, columns) = if large { (96, 64) } else { (pick(random, &[16, 30]), pick(random, &[32, 48])) };
    let transposed = random.index(2) as i64;
    let dims = if transposed == 1 { [rows, columns] } else { [columns, rows] };
    Parts {
        nodes: vec![op("Gemm", &["x", "w", "b"], &["y"], &[("transA", 1), ("transB", transposed)])],
        weights: vec![w(random, "w", &dims), w(random, "b", &[rows])],
        x: vec![columns, 4],
        rank: 2,
        ..Parts::default()
    }
}

fn einsum(random: &mut Random, large: bool) -> Parts {
    let heads = if large { 8 } else { 4 };
    let mut node = op("Einsum", &["x", "w"], &["y"], &[]);
    node.attribute.push(AttributeProto {
        name: Some("equation".into()),
        kind: Some(attribute_kind::STRING),
        s: Some("bhi,hio->bho".into()),
        ..Default::default()
    });
    Parts {
        nodes: vec![node],
        weights: vec![w(random, "w", &[heads, 32, 24])],
        x: vec![3, heads, 32],
        rank: 3,
        ..Parts::default()
    }
}

fn columns(random: &mut Random, large: bool) -> Parts {
    let (rows, width) = (if large { 96 } else { 40 }, if large { 64 } else { 33 });
    let at: Vec<u8> = [3i64, 0, 7, 31].iter().flat_map(|v| v.to_le_bytes()).collect();
    Parts {
        nodes: vec![op("Gather", &["w", "at"], &["t"], &[("axis", 1)]), op("MatMul", &["t", "x"], &["y"], &[])],
        weights: vec![w(random, "w", &[rows, width]), tensor("at", Int64, &[4], at.into())],
        x: vec![4, 3],
        rank: 2,
        ..Parts::default()
    }
}

/// Returns a model with a matrix that is also the kernel of a convolution.
fn readers(random: &mut Random, large: bool) -> Parts {
    let width = if large { 64 } else { pick(random, &[16, 24, 32]) };
    let shape: Vec<u8> = [width, width].iter().flat_map(|v| v.to_le_bytes()).collect();
    let turn = |input: &str, output: &str, order: &[i64]| NodeProto {
        attribute: vec![ints_attribute("perm", order)],
        ..op("Transpose", &[input], &[output], &[])
    };
    Parts {
        nodes: vec![
            op("Conv", &["x", "w"], &["a"], &[]),
            op("Conv", &["a", "w"], &["b"], &[]),
            op("Reshape", &["w", "shape"], &["w2"], &[]),
            turn("w2", "w3", &[1, 0]),
            turn("b", "c", &[0, 2, 3, 1]),
            op("MatMul", &["c", "w3"], &["y"], &[]),
        ],
        weights: vec![w(random, "w", &[width, width, 1, 1]), tensor("shape", Int64, &[2], shape.into())],
        x: vec![1, width, 4, 4],
        rank: 4,
        ..Parts::default()
    }
}

fn function(random: &mut Random, large: bool, opset: i64) -> Parts {
    let outputs = if large { 64 } else { 16 };
    let inside = random.index(2) == 1;
    let kernel = w(random, "w", &[outputs, 8, 3, 3]);
    let mut nodes = vec![op("Conv", &["a", "k"], &["o"], &[])];
    if inside {
        nodes.insert(0, constant(TensorProto { name: Some("k".into()), ..kernel.clone() }));
    }
    let parameters: &[&str] = if inside { &["a"] } else { &["a", "k"] };
    let function = FunctionProto {
        name: Some("Layer".into()),
        domain: Some("own".into()),
        input: parameters.iter().map(|name| (*name).to_owned()).collect(),
        output: vec!["o".into()],
        node: nodes,
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(opset),
            ..Default::default()
        }],
        ..Default::default()
    };
    let inputs: &[&str] = if inside { &["x"] } else { &["x", "w"] };
    let call = NodeProto { domain: Some("own".into()), ..op("Layer", inputs, &["y"], &[]) };
    Parts {
        nodes: vec![call],
        weights: if inside { vec![] } else { vec![kernel] },
        functions: vec![function],
        x: vec![1, 8, 6, 6],
        rank: 4,
    }
}
