//! Random networks: the result loads with and without ONNX Runtime's optimizers, gives the same with both, is close
//! to the original, and has the kernels that its report names.

use super::*;
use crate::faults::{given, plainly};

/// A generator of pseudorandom numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % count
    }

    fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn numbers(&mut self, count: usize, scale: f32) -> Vec<f32> {
        let seed = self.below(1 << 16) as f32 / 7.0;
        smooth(count, seed).iter().map(|v| v * scale).collect()
    }
}

/// A network that is being built.
struct Net<'d> {
    dice: &'d mut Dice,
    opset: i64,
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
    /// Names of optional inputs.
    given: Vec<String>,
    count: usize,
    last: String,
}

impl Net<'_> {
    fn fresh(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}{}", self.count)
    }

    fn floats(&mut self, dims: &[i64], values: &[f32]) -> String {
        let name = self.fresh("f");
        self.tensors.push(floats(&name, dims, values));
        name
    }

    fn random(&mut self, dims: &[i64], scale: f32) -> String {
        let values = self.dice.numbers(dims.iter().product::<i64>() as usize, scale);
        self.floats(dims, &values)
    }

    fn ints(&mut self, values: &[i64]) -> String {
        let name = self.fresh("i");
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let dims = [values.len() as i64];
        self.tensors.push(optimize::graph::edit::tensor(
            &name,
            optimize::onnx::dtype::DataType::Int64,
            &dims,
            raw.into(),
        ));
        name
    }

    /// Adds a node whose inputs are the last value and then `more`, and returns the node.
    fn push(&mut self, op_type: &str, more: &[&str], attributes: &[(&str, i64)]) -> &mut NodeProto {
        let last = self.last.clone();
        let inputs: Vec<&str> = std::iter::once(last.as_str()).chain(more.iter().copied()).collect();
        self.add(op_type, &inputs, attributes)
    }

    fn add(&mut self, op_type: &str, inputs: &[&str], attributes: &[(&str, i64)]) -> &mut NodeProto {
        let output = self.fresh("v");
        self.nodes.push(op(op_type, inputs, &[&output], attributes));
        self.last = output;
        self.nodes.last_mut().unwrap()
    }

    fn bound(&mut self) {
        match self.dice.below(6) {
            0 => drop(self.push("Relu", &[], &[]).name.take()),
            1 | 2 => {
                let (low, high) = (self.dice.pick(&[0.0, 0.0, -0.5, 0.1]), self.dice.pick(&[6.0, 1.0, 0.6]));
                let (low, high) = (self.floats(&[], &[low]), self.floats(&[], &[high]));
                if self.dice.chance(3) {
                    self.given.push(high.clone());
                }
                self.push("Clip", &[&low, &high], &[]);
            }
            3 => drop(self.push(self.dice_op(&["Tanh", "Sigmoid"]), &[], &[]).name.take()),
            4 if self.opset >= 14 => drop(self.push("HardSwish", &[], &[]).name.take()),
            _ => {}
        }
    }

    fn dice_op(&self, from: &[&'static str]) -> &'static str {
        from[self.count % from.len()]
    }

    /// Adds a bias to a value of `rank` dimensions with `size` at the end.
    fn sum_with_row(&mut self, size: i64, rank: usize) {
        let dims = match self.dice.below(4) {
            0 | 1 => vec![size],
            2 => vec![1, size],
            _ => [vec![1; rank - 1], vec![size]].concat(),
        };
        let row = self.random(&dims, 1.0);
        let last = self.last.clone();
        let both = if self.dice.chance(3) { [row.as_str(), last.as_str()] } else { [last.as_str(), row.as_str()] };
        self.add("Add", &both, &[]);
    }

    fn product(&mut self, from: i64, to: i64, rank: usize) {
        let scale = 2.0 / (from as f32).sqrt();
        if rank == 2 && self.dice.chance(2) {
            let transposed = self.dice.chance(2);
            let dims = if transposed { [to, from] } else { [from, to] };
            let weight = self.random(&dims, scale);
            let bias = self.random(self.dice_dims(to), 1.0);
            let inputs = if self.dice.chance(3) { vec![weight.as_str()] } else { vec![weight.as_str(), &bias] };
            self.push("Gemm", &inputs, &[("transB", i64::from(transposed))]);
        } else {
            let weight = self.random(&[from, to], scale);
            self.push("MatMul", &[&weight], &[]);
            if !self.dice.chance(4) {
                self.sum_with_row(to, rank);
            }
        }
    }

    fn dice_dims(&self, size: i64) -> &'static [i64] {
        match (size, self.count % 2) {
            (24, 0) => &[24],
            (24, _) => &[1, 24],
            (40, 0) => &[40],
            (40, _) => &[1, 40],
            (_, 0) => &[8],
            _ => &[1, 8],
        }
    }
}

fn perceptron(dice: &mut Dice) -> (Model, Vec<(String, Tensor)>, Vec<String>) {
    let mut size = dice.pick(&[24i64, 40]);
    let rank = dice.pick(&[2usize, 2, 3, 3, 4]);
    let sizes: Vec<i64> = (0..rank - 1).map(|_| 2 + dice.below(4) as i64).chain([size]).collect();
    let mut dims = sizes.clone();
    dims[..rank - 1].iter_mut().for_each(|dim| *dim = if dice.chance(2) { -1 } else { *dim });
    // Open sizes have one name here.
    let open = sizes[0];
    let sizes: Vec<i64> = dims.iter().map(|dim| if *dim < 0 { open } else { *dim }).collect();
    let opset = dice.pick(&[13, 17, 21]);
    let mut net = Net { dice, opset, nodes: vec![], tensors: vec![], given: vec![], count: 0, last: "x".into() };
    for _ in 0..1 + net.dice.below(3) {
        let to = net.dice.pick(&[24i64, 40, 8]);
        net.product(size, to, rank);
        net.bound();
        size = to;
    }
    let data = net.dice.numbers(sizes.iter().product::<i64>() as usize, 1.0);
    let data = vec![("x".to_owned(), Tensor::from_f32(&sizes, data).unwrap())];
    let outputs: Vec<i64> = dims[..rank - 1].iter().copied().chain([size]).collect();
    finish(net, &dims, &outputs, data)
}

fn picture_net(dice: &mut Dice) -> (Model, Vec<(String, Tensor)>, Vec<String>) {
    let opset = dice.pick(&[11, 13, 17, 19, 21]);
    let mut net = Net { dice, opset, nodes: vec![], tensors: vec![], given: vec![], count: 0, last: "x".into() };
    let mut shape = [3i64, 9, 9];
    let open = net.dice.chance(2);
    for _ in 0..1 + net.dice.below(3) {
        let before = (net.last.clone(), shape);
        let to = net.dice.pick(&[4i64, 8]);
        let weight = net.random(&[to, shape[0], 3, 3], 0.4);
        let bias = net.random(&[to], 0.5);
        let inputs = if net.dice.chance(3) { vec![weight.as_str()] } else { vec![weight.as_str(), &bias] };
        net.push("Conv", &inputs, &[]).attribute.push(ints_attribute("pads", &[1, 1, 1, 1]));
        shape[0] = to;
        net.bound();
        between_convolutions(&mut net, &mut shape, &before);
    }
    let weight = net.random(&[4, shape[0], 1, 1], 0.4);
    net.push("Conv", &[&weight], &[]);
    if net.dice.chance(2) {
        net.push("GlobalAveragePool", &[], &[]);
        net.push("Flatten", &[], &[]);
        net.product(4, 8, 2);
    }
    let rank = if net.nodes.iter().any(|n| n.op() == "Flatten") { 2 } else { 4 };
    let data = net.dice.numbers(2 * 3 * 81, 1.0);
    let data = vec![("x".to_owned(), Tensor::from_f32(&[2, 3, 9, 9], data).unwrap())];
    finish(net, &[if open { -1 } else { 2 }, 3, 9, 9], &[-1; 4][..rank], data)
}

fn between_convolutions(net: &mut Net<'_>, shape: &mut [i64; 3], before: &(String, [i64; 3])) {
    match net.dice.below(8) {
        0 => {
            let lowest = net.dice.pick(&[f32::NEG_INFINITY, f32::MIN, -1e9, -1e4, -1.0]);
            let mask: Vec<f32> = (0..shape[1] * shape[2]).map(|i| if i % 4 == 0 { lowest } else { 0.0 }).collect();
            let mask = net.floats(&[shape[1], shape[2]], &mask);
            net.push("Add", &[&mask], &[]);
            net.push("Relu", &[], &[]);
        }
        1 | 2 if shape[1].min(shape[2]) > 3 => {
            let flags = [("ceil_mode", net.dice.below(2) as i64), ("count_include_pad", net.dice.below(2) as i64)];
            let (average, dilation) = (net.dice.chance(2), 1 + net.dice.below(2) as i64);
            let dilated = !average || net.opset >= 19;
            let node = match average {
                true => net.push("AveragePool", &[], &flags),
                false => net.push("MaxPool", &[], &flags[..1]),
            };
            node.attribute.push(ints_attribute("kernel_shape", &[2, 2]));
            node.attribute.push(ints_attribute("strides", &[2, 2]));
            if dilated {
                node.attribute.push(ints_attribute("dilations", &[dilation, dilation]));
            }
            let window = if dilated { dilation + 1 } else { 2 };
            let size = |n: i64| if flags[0].1 == 1 { (n - window + 1) / 2 + 1 } else { (n - window) / 2 + 1 };
            (shape[1], shape[2]) = (size(shape[1]), size(shape[2]));
        }
        3 if net.opset >= 13 => {
            let axes = net.opset >= 18 && net.dice.chance(2);
            let scales =
                net.floats(if axes { &[2] } else { &[4] }, if axes { &[2.0, 2.0] } else { &[1.0, 1.0, 2.0, 2.0] });
            let node = net.push("Resize", &["", scales.as_str()], &[]);
            node.attribute.extend(axes.then(|| ints_attribute("axes", &[2, 3])));
            (shape[1], shape[2]) = (shape[1] * 2, shape[2] * 2);
        }
        4 => {
            let axes = net.opset >= 18 && net.dice.chance(2);
            let pads = net.ints(if axes { &[1, 0, 1, 0] } else { &[0, 0, 1, 0, 0, 0, 1, 0] });
            let which = net.ints(&[2, 3]);
            let inputs = if axes { vec![pads.as_str(), "", which.as_str()] } else { vec![pads.as_str()] };
            net.push("Pad", &inputs, &[]);
            shape[1] += 2;
        }
        5 if before.1 == *shape && before.0 != "x" => drop(net.push("Add", &[&before.0], &[]).name.take()),
        6 => {
            let factor = net.random(&[1, shape[0], 1, 1], 2.0);
            net.push(net.dice_op(&["Mul", "Add"]), &[&factor], &[]);
        }
        _ => {}
    }
}

fn finish(
    net: Net<'_>,
    dims: &[i64],
    outputs: &[i64],
    data: Vec<(String, Tensor)>,
) -> (Model, Vec<(String, Tensor)>, Vec<String>) {
    let mut nodes = net.nodes;
    let last = net.last.clone();
    nodes.last_mut().unwrap().output = vec!["y".to_owned()];
    assert_ne!(last, "x");
    let mut inputs = vec![value("x", Float32, dims)];
    inputs.extend(net.given.iter().map(|name| value(name, Float32, &[])));
    let model = model(net.opset, inputs, vec![value("y", Float32, outputs)], net.tensors, nodes);
    (model, data, net.given)
}

/// Returns the values of all nodes.
fn values(model: &Model, data: &[(String, Tensor)]) -> Vec<Vec<f32>> {
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    let inner = graph.node.iter().flat_map(|node| &node.output).filter(|name| *name != "y");
    let named = |name: &String| ValueInfoProto { name: Some(name.clone()), ..Default::default() };
    graph.output.extend(inner.map(named));
    run(&Model::from_proto(proto), data)
}

/// Returns whether a value is outside the range of the values in `usual`, by more than a twentieth of its magnitude.
fn leaves_ranges(usual: &[Vec<f32>], other: &[Vec<f32>]) -> bool {
    // Ranges include zero, like those of scales.
    let range = |values: &[f32]| {
        values.iter().filter(|v| v.is_finite()).fold((0f32, 0f32), |(low, high), v| (low.min(*v), high.max(*v)))
    };
    usual.iter().zip(other).any(|(usual, other)| {
        let ((low, high), (least, most)) = (range(usual), range(other));
        (low - least).max(most - high) > 0.05 * most.max(-least)
    })
}

#[test]
fn networks_at_random_open_agree_and_have_the_kernels_that_are_named() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let (first, cases) =
        (number("OPTIMIZE_PROPERTY_SEED").unwrap_or(0), number("OPTIMIZE_PROPERTY_CASES").unwrap_or(150u64));
    let (mut quantized, mut refused, mut worst) = (0, 0, 0f32);
    let (mut bounds, mut left_ranges) = (0u64, 0u64);
    for seed in first..first + cases {
        let mut dice = Dice(seed);
        let (model, data, optional) = if seed % 2 == 0 { perceptron(&mut dice) } else { picture_net(&mut dice) };
        let least = QuantizeOptions { min_elements: 200, ..options() };
        let (result, report) = match calibrated(&model, &data, &least) {
            Ok(made) => made,
            Err(e) => {
                assert!(e.kind() == Kind::Unsupported && e.message().starts_with("no node could"), "{seed}: {e}");
                refused += 1;
                continue;
            }
        };
        let place = || format!("case {seed}: {:?}\n{:#?}", kernels(&result), report.nodes);
        let (expected, usual, plain) = (run(&model, &data), run(&result, &data), plainly(&result, &data));
        let (lost, apart) = (error(&expected, &usual), error(&plain, &usual));
        worst = worst.max(lost);
        assert!(lost < 0.2 && error(&expected, &plain) < 0.2, "loses {lost}, {}", place());
        assert!(apart < 0.1f32.max(lost), "levels differ by {apart}, {}", place());
        let seen = kernels(&result);
        for kernel in ["QLinearConv", "QGemm", "MatMulIntegerToFloat", "QLinearMatMul"] {
            let named = report.nodes.iter().filter(|n| n.reason.split(',').next() == Some(kernel)).count();
            assert_eq!(named, count(&seen, kernel), "{kernel}, {}", place());
        }
        quantized += report.nodes.iter().filter(|n| n.action == "quantized").count();
        let largest = |outputs: &[Vec<f32>]| outputs[0].iter().fold(1e-6f32, |most, v| most.max(v.abs()));
        for name in optional {
            assert!(report.warnings.iter().any(|w| w.contains("default value")), "{:?}, {}", report.warnings, place());
            let other = given(&model, &name, 0.3);
            // Ranges were calibrated with the default value of this input: values outside of them are clipped.
            if leaves_ranges(&values(&model, &data), &values(&other, &data)) {
                left_ranges += 1;
                continue;
            }
            // Step sizes follow from the observed ranges, even if another bound is smaller.
            let (a, b) = (run(&other, &data), run(&given(&result, &name, 0.3), &data));
            let found = error(&a, &b) * (largest(&a) / largest(&expected)).min(1.0);
            assert!(found < 0.3, "another bound: {found}, {}", place());
            bounds += 1;
        }
    }
    eprintln!("{cases} networks, {quantized} nodes quantized, {refused} left, largest error {worst}");
    eprintln!("{bounds} with another bound, {left_ranges} that leave the calibrated ranges with it");
    assert!(cases < 100 || bounds >= left_ranges, "{bounds} {left_ranges}");
    assert!(cases < 100 || quantized as u64 > cases && refused < cases / 4, "{quantized} {refused}");
}
