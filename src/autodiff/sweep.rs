//! Tests with all float models that the `onnx` wheel contains for tests: counts the models that have gradients, and
//! compares the gradients with finite differences.

use super::tests::gradients;
use super::*;
use crate::call::Call;
use crate::graph::edit;
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, TensorProto};
use crate::onnx::wire::Reader;
use crate::runtime::{Session, SessionOptions, Tensor, test_deps, test_runtime};
use crate::statistics::Random;
use crate::statistics::dot;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The lengths of steps relative to the values that are moved. Long steps may cross a kink of the function, and short
/// ones suffer from rounding, so only one of the lengths must agree.
const STEPS: [f64; 3] = [1e-2, 1e-3, 1e-4];
/// The maximum difference between a slope and the finite difference, relative to the larger of them.
const BOUND: f64 = 0.05;
/// A model whose input contains a 0, at which the function jumps.
const JUMPS: &str = "test_sign_model";

fn tensor(proto: &TensorProto) -> Option<Tensor> {
    let dtype = DataType::from_onnx(proto.data_type?)?;
    let bytes: Vec<u8> = match &proto.raw_data {
        Some(raw) => raw.to_vec(),
        None => match dtype {
            DataType::Float32 => proto.float_data.0.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DataType::Int64 => proto.int64_data.0.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DataType::Int32 => proto.int32_data.0.iter().flat_map(|v| v.to_le_bytes()).collect(),
            _ => return None,
        },
    };
    Tensor::new(dtype, &proto.dims, bytes.into()).ok()
}

/// A model with the inputs of its test. All float values are inputs.
struct Case {
    proto: ModelProto,
    values: Vec<(String, Tensor)>,
    learned: Vec<String>,
}

fn case(folder: &Path) -> Option<Case> {
    let model = Model::load(&folder.join("model.onnx")).ok()?;
    let mut proto = model.proto().clone();
    let mut values = Vec::new();
    for (index, info) in model.inputs().into_iter().enumerate() {
        let content = std::fs::read(folder.join(format!("test_data_set_0/input_{index}.pb"))).ok()?;
        let found: TensorProto = Reader::new(content.into()).read_message().ok()?;
        values.push((info.name, tensor(&found)?));
    }
    let graph = proto.graph.as_deref_mut()?;
    let fixed: Vec<String> = graph
        .node
        .iter()
        .filter(|node| node.is("BatchNormalization"))
        .flat_map(|node| node.input.iter().skip(3).cloned())
        .collect();
    let (open, rest): (Vec<TensorProto>, Vec<TensorProto>) =
        std::mem::take(&mut graph.initializer).into_iter().partition(|t| {
            t.data_type == Some(DataType::Float32.to_onnx())
                && !t.dims.is_empty()
                && !fixed.contains(t.name.as_ref().unwrap_or(&String::new()))
        });
    graph.initializer = rest;
    for found in &open {
        let name = found.name.clone()?;
        values.retain(|(other, _)| *other != name);
        if !graph.input.iter().any(|i| i.name.as_ref() == Some(&name)) {
            graph.input.push(edit::value(&name, DataType::Float32, found.dims.len()));
        }
        values.push((name, tensor(found)?));
    }
    let is_learned = |(name, value): &(String, Tensor)| {
        (value.dtype() == DataType::Float32 && !fixed.contains(name)).then(|| name.clone())
    };
    let learned = values.iter().filter_map(is_learned).collect();
    graph.output.truncate(1);
    Some(Case { proto, values, learned })
}

/// Returns the first output of a run.
fn run(session: &Session, values: &[(String, Tensor)]) -> Option<Tensor> {
    let fed: Vec<(&str, &Tensor)> = values.iter().map(|(name, value)| (name.as_str(), value)).collect();
    Some(session.run(&fed, &[], &Call::default()).ok()?.swap_remove(0).1)
}

/// Returns the difference between the slope along a random direction and the central finite difference, relative to the
/// larger of them; `None` if one of them is not finite.
fn off(case: &Case, random: &mut Random) -> Result<Option<f64>> {
    let model = Model::from_proto(case.proto.clone());
    let Ok(session) = Session::new(test_runtime(), &model, &SessionOptions::default(), &Call::default()) else {
        return Ok(None);
    };
    let Some(y) = run(&session, &case.values).filter(|y| y.dtype() == DataType::Float32) else { return Ok(None) };
    // The square root of a negative number has no slope.
    if y.to_f32_vec()?.iter().any(|v| !v.is_finite()) {
        return Ok(None);
    }
    let weights: Vec<f32> = (0..y.elements()).map(|_| random.normal() as f32).collect();
    let direction = Tensor::from_f32(y.shape(), weights.clone())?;
    let fed: Vec<(&str, &Tensor)> = case.values.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut proto = case.proto.clone();
    if let Some(graph) = proto.graph.as_deref_mut() {
        graph.value_info.clear();
    }
    let found = gradients(proto, &case.learned, &fed, &direction)?;
    let (mut slope, mut size, mut steps) = (0.0, 0.0, Vec::new());
    for (name, gradient) in case.learned.iter().zip(&found) {
        let at = case.values.iter().position(|(other, _)| other == name).unwrap();
        let value = case.values[at].1.to_f32_vec()?;
        let mean = value.iter().map(|v| f64::from(v.abs())).sum::<f64>() / value.len().max(1) as f64;
        let step: Vec<f32> = value.iter().map(|_| (random.normal() * mean) as f32).collect();
        let part = dot(gradient.as_slice::<f32>()?, &step);
        slope += part;
        size += part * part;
        steps.push((at, value, step));
    }
    let mut best = f64::INFINITY;
    for length in STEPS {
        let mut ends = Vec::new();
        for sign in [length, -length] {
            let mut side = case.values.clone();
            for (at, value, step) in &steps {
                let moved = value.iter().zip(step).map(|(v, s)| (f64::from(*v) + sign * f64::from(*s)) as f32);
                side[*at].1 = Tensor::from_f32(case.values[*at].1.shape(), moved.collect())?;
            }
            let Some(y) = run(&session, &side) else { return Ok(None) };
            ends.push(y.to_f32_vec()?);
        }
        let moved: Vec<f32> = ends[0].iter().zip(&ends[1]).map(|(a, b)| a - b).collect();
        let measured = dot(&moved, &weights) / (2.0 * length);
        let off = (slope - measured).abs() / slope.abs().max(measured.abs()).max(size.sqrt()).max(1e-6);
        best = if off.is_nan() { off } else { best.min(off) };
    }
    Ok(Some(best))
}

fn folders() -> Vec<PathBuf> {
    let groups = ["pytorch-converted", "pytorch-operator", "simple"].map(|group| test_deps("onnx-tests").join(group));
    let mut found: Vec<PathBuf> =
        groups.iter().flat_map(|group| std::fs::read_dir(group).unwrap().flatten()).map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[test]
fn gradients_of_the_models_of_the_onnx_wheel_say_what_a_step_does() {
    let mut random = Random::part(1, 0);
    let (mut models, mut covered, mut nodes, mut agree) = (0, 0, 0, 0);
    let (mut missing, mut wrong): (BTreeMap<String, usize>, Vec<String>) = (BTreeMap::new(), Vec::new());
    for folder in folders() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let Some(case) = case(&folder).filter(|case| !case.learned.is_empty()) else { continue };
        let graph = case.proto.graph.as_deref().unwrap();
        let count = graph.node.len();
        match off(&case, &mut random) {
            // The model does not compute with floats, or ONNX Runtime cannot run it.
            Ok(None) => continue,
            Ok(Some(_)) if name == JUMPS => continue,
            Ok(Some(off)) => {
                covered += 1;
                agree += usize::from(off <= BOUND);
                if off > BOUND || off.is_nan() {
                    wrong.push(format!("{name} is off by {off:.1e}"));
                }
            }
            Err(e) => {
                println!("{name}: {e}");
                *missing.entry(e.to_string()).or_default() += 1;
            }
        }
        models += 1;
        nodes += count;
    }
    println!("{covered} of {models} models ({nodes} nodes) have gradients, {agree} agree with steps");
    println!("{missing:#?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(models > 80 && models - covered <= 5, "{covered} of {models}");
}
