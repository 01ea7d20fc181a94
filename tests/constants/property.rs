//! Functions whose nodes take attributes from their calls, some nested, some with defaults, over weights that are
//! constants, parameters or optional inputs: results equal the originals for all calls and callers.

use super::*;

const K: i64 = 32;

/// A generator of pseudorandom numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn weight(&mut self, name: &str) -> TensorProto {
        let seed = self.below(1000) as f32;
        let values: Vec<f32> = smooth((K * K) as usize, seed).into_iter().map(|v| v * 0.3).collect();
        float_tensor(name, &[K, K], &values)
    }
}

/// An attribute of a function or of a call.
struct Attribute {
    name: String,
    kind: i32,
    value: AttributeProto,
    /// Default of the function; some calls omit an attribute that has one.
    default: Option<AttributeProto>,
}

fn number(random: &mut Random, name: &str, kind: i32) -> AttributeProto {
    let name = Some(name.to_owned());
    match kind {
        1 => {
            let f = Some([0.5f32, 1.0, -1.5, 0.0][random.below(4) as usize]);
            AttributeProto { name, kind: Some(1), f, ..Default::default() }
        }
        2 => AttributeProto { i: Some(random.below(2) as i64), name, kind: Some(2), ..Default::default() },
        _ => {
            let ints = if random.chance(2) { vec![0, 1] } else { vec![1, 0] };
            AttributeProto { name, kind: Some(7), ints, ..Default::default() }
        }
    }
}

/// The nodes of a function from `x` to `y`, with the attributes it takes from its calls.
struct Body {
    nodes: Vec<NodeProto>,
    attributes: Vec<Attribute>,
}

impl Body {
    /// Returns an attribute of a node, which is set in the node or taken from the call.
    fn attribute(&mut self, random: &mut Random, of: &str, kind: i32) -> AttributeProto {
        if random.chance(2) {
            return number(random, of, kind);
        }
        let name = format!("{of}_{}", self.attributes.len());
        let default = random.chance(2).then(|| number(random, &name, kind));
        let value = number(random, &name, kind);
        self.attributes.push(Attribute { name: name.clone(), kind, value, default });
        AttributeProto { name: Some(of.into()), ref_attr_name: Some(name), kind: Some(kind), ..Default::default() }
    }
}

/// Returns `y = f(x)` for `[n, K]`; `weight` is the function's second input, if it has one.
fn body(random: &mut Random, parameter: bool) -> Body {
    let mut body = Body { nodes: Vec::new(), attributes: Vec::new() };
    if !parameter {
        body.nodes.push(constant(random.weight("weight")));
    }
    match random.below(3) {
        0 => {
            let mut gemm = node("Gemm", &["x", "weight"], &["y"]);
            for (name, kind) in [("transB", 2), ("alpha", 1), ("beta", 1)] {
                if random.chance(2) {
                    let attribute = body.attribute(random, name, kind);
                    gemm.attribute.push(attribute);
                }
            }
            if random.chance(2) {
                body.nodes.push(constant(float_tensor("bias", &[K], &smooth(K as usize, 5.0))));
                gemm.input.push("bias".into());
            }
            body.nodes.push(gemm);
        }
        1 => {
            let mut turn = node("Transpose", &["weight"], &["transposed"]);
            turn.attribute = vec![body.attribute(random, "perm", 7)];
            body.nodes.extend([turn, node("MatMul", &["x", "transposed"], &["y"])]);
        }
        _ => {
            let ids: Vec<u8> = (0..K).flat_map(|i| ((i * 7) % K).to_le_bytes()).collect();
            body.nodes.push(constant(optimize::graph::edit::tensor("ids", Int64, &[K], ids.into())));
            let mut gather = node("Gather", &["weight", "ids"], &["rows"]);
            gather.attribute = vec![body.attribute(random, "axis", 2)];
            body.nodes.extend([gather, node("MatMul", &["x", "rows"], &["y"])]);
        }
    }
    if random.chance(3) {
        // The product is moved into a subgraph, which sees the function's values.
        let product = body.nodes.pop().unwrap();
        let branch = |node: NodeProto| {
            let output = vec![ValueInfoProto { name: Some(node.output[0].clone()), ..Default::default() }];
            GraphProto { name: Some("b".into()), node: vec![node], output, ..Default::default() }
        };
        let inner = NodeProto { output: vec!["inner".into()], ..product };
        let yes = constant(tensor_of_true("yes"));
        let choice = with_graph(node("If", &["yes"], &["y"]), "then_branch", branch(inner));
        body.nodes.extend([yes, with_graph(choice, "else_branch", branch(node("Neg", &["x"], &["other"])))]);
    }
    body
}

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version), ..Default::default() }
}

fn function(name: &str, body: &Body, parameter: bool) -> FunctionProto {
    let own = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let open = body.attributes.iter().filter(|a| a.default.is_none());
    FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: own(if parameter { &["x", "weight"] } else { &["x"] }),
        output: own(&["y"]),
        attribute: open.map(|a| a.name.clone()).collect(),
        attribute_proto: body.attributes.iter().filter_map(|a| a.default.clone()).collect(),
        node: body.nodes.clone(),
        opset_import: vec![import("", 17), import("local", 1)],
        ..Default::default()
    }
}

/// Returns a call of a function, with values for its attributes except for some with defaults.
fn call(random: &mut Random, name: &str, body: &Body, inputs: &[&str], output: &str) -> NodeProto {
    let mut call = NodeProto { domain: Some("local".into()), ..node(name, inputs, &[output]) };
    let said = body.attributes.iter().filter(|a| a.default.is_none() || random.chance(2));
    call.attribute = said.map(|a| a.value.clone()).collect();
    call
}

/// Returns a chain of calls and products.
fn instance(random: &mut Random) -> Model {
    let (mut nodes, mut constants, mut optional, mut functions) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let steps = 1 + random.below(3);
    let mut x = "x".to_owned();
    for step in 0..steps {
        let (y, w) = (format!("y{step}"), format!("w{step}"));
        let parameter = random.chance(3);
        if parameter || random.chance(3) {
            constants.push(random.weight(&w));
            if random.chance(2) {
                optional.push(value(&w, Float32, &[K, K]));
            }
        }
        let inputs: Vec<&str> = if parameter { vec![&x, &w] } else { vec![&x] };
        if !parameter && constants.last().is_some_and(|t: &TensorProto| t.name.as_ref() == Some(&w)) {
            nodes.push(node("MatMul", &[&x, &w], &[&y]));
            if random.chance(2) {
                // Another node also reads the weight, as float.
                nodes.push(op("ReduceMean", &[&w], &[&format!("m{step}")], &[("keepdims", 0)]));
                nodes.push(node("Add", &[&y, &format!("m{step}")], &[&format!("z{step}")]));
                x = format!("z{step}");
                continue;
            }
        } else {
            let body = body(random, parameter);
            let name = format!("f{step}");
            functions.push(function(&name, &body, parameter));
            if random.chance(3) {
                nest(random, &body, &name, parameter, &mut functions, (&mut nodes, &inputs, &y));
            } else {
                nodes.push(call(random, &name, &body, &inputs, &y));
            }
        }
        x = y;
    }
    nodes.push(node("Identity", &[&x], &["y"]));
    let mut inputs = vec![value("x", Float32, &[-1, K])];
    inputs.extend(optional);
    let graph = GraphProto {
        name: Some("g".into()),
        node: nodes,
        initializer: constants,
        input: inputs,
        output: vec![value("y", Float32, &[-1, K])],
        ..Default::default()
    };
    let mut proto = model_of(17, graph);
    proto.opset_import.push(import("local", 1));
    proto.functions = functions;
    Model::from_proto(proto)
}

/// Adds a function whose body is a call to which it passes its attributes on.
fn nest(
    random: &mut Random,
    body: &Body,
    name: &str,
    parameter: bool,
    functions: &mut Vec<FunctionProto>,
    (nodes, inputs, y): (&mut Vec<NodeProto>, &[&str], &str),
) {
    let mut inner = NodeProto {
        domain: Some("local".into()),
        ..node(name, if parameter { &["x", "weight"] } else { &["x"] }, &["y"])
    };
    inner.attribute = body.attributes.iter().map(|a| refers(&a.name, &format!("outer_{}", a.name), a.kind)).collect();
    let renamed =
        |a: &AttributeProto| AttributeProto { name: a.name.as_ref().map(|n| format!("outer_{n}")), ..a.clone() };
    let attributes = body.attributes.iter().map(|a| Attribute {
        name: format!("outer_{}", a.name),
        kind: a.kind,
        value: renamed(&a.value),
        default: a.default.as_ref().map(renamed),
    });
    let outer = Body { nodes: vec![inner], attributes: attributes.collect() };
    let around = format!("{name}_around");
    functions.push(function(&around, &outer, parameter));
    nodes.push(call(random, &around, &outer, inputs, y));
}

/// Returns the model with another default for the input `name`.
fn with_default(model: &Model, name: &str, other: &TensorProto) -> Option<Model> {
    let given = model.graph().input.iter().any(|input| input.name.as_deref() == Some(name));
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_deref_mut().unwrap();
    let tensor = graph.initializer.iter_mut().find(|t| t.name.as_deref() == Some(name)).filter(|_| given)?;
    *tensor = TensorProto { name: Some(name.to_owned()), ..other.clone() };
    Some(Model::from_proto(proto))
}

#[test]
fn results_give_what_originals_give_whatever_calls_and_callers_say() {
    let cases = std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(200u64);
    let x = rows(&[3, K], 0.4);
    let (mut quantized, mut left, mut overridden, mut gone) = (0, 0, 0, 0);
    for case in 0..cases {
        let mut random = Random(case);
        let original = instance(&mut random);
        let options = if random.chance(2) { dynamic() } else { in_blocks(8) };
        let (result, report) = match quantize(&original, &options, &Call::default()) {
            Ok(made) => made,
            Err(e) => {
                assert!(e.message().starts_with("no node could be quantized: "), "case {case}: {e}");
                left += 1;
                continue;
            }
        };
        quantized += 1;
        left += report.nodes.iter().filter(|n| n.reason.contains("is set by the call")).count();
        let same = |a: &Model, b: &Model, what: &str| {
            let expected = run(a, OptimizationLevel::Disabled, &[("x", &x)]);
            let largest = expected.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
            for level in LEVELS {
                let given = run(b, level, &[("x", &x)]);
                let apart = expected.iter().zip(&given).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(apart < 0.05 * largest, "case {case}, {what}, {level:?}: {apart} of {largest}");
            }
        };
        same(&original, &result, "as it is");
        let optional = original.graph().input.iter().skip(1).filter_map(|input| input.name.clone());
        for name in optional {
            let other = random.weight(&name);
            match with_default(&result, &name, &other) {
                Some(result) => {
                    same(&with_default(&original, &name, &other).unwrap(), &result, &name);
                    overridden += 1;
                }
                None => {
                    let warnings = report.warnings.concat();
                    assert!(warnings.contains("removed"), "case {case}: {name} was removed without a warning");
                    gone += 1;
                }
            }
        }
    }
    println!(
        "{cases} cases: {quantized} quantized, {left} nodes left to their calls, {overridden} inputs overridden, {gone} gone"
    );
    assert!(quantized * 3 > cases && left > 0 && overridden > 0 && gone > 0);
}
