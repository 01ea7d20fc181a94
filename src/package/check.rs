//! The check that a graph that was optimized or compiled ahead of time gives the results of the model within a
//! tolerance, and whether sessions can use its weights where they are mapped.

use super::promise::Shapes;
use crate::call::Call;
use crate::error::{Result, bail};
use crate::inputs::{InputOptions, Source};
use crate::model::{Model, Prepared};
use crate::runtime::{OptimizationLevel, Runtime, Session, SessionOptions, Tensor, has_blocks};
use serde::{Deserialize, Serialize};

/// The maximum difference, relative to the largest value, at which two float32 graphs count as equal; a different order
/// of additions usually gives about 1e-6.
const TOLERANCE: f64 = 1e-3;
/// The maximum relative difference for products that quantize their inputs, where a difference in the last bit of an
/// input may change its rounded value.
const ROUNDED: f64 = 2e-2;

/// The result of checking a graph that was optimized or compiled ahead of time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// Largest difference of an output from that of the model run without optimizers. It is relative to the largest
    /// absolute value of the model's output; for other types than floats, it is the share of elements that differ.
    /// `None` if the graphs were not compared.
    pub largest_difference: Option<f64>,
    /// Maximum difference that passes the check; for a compiled graph, the largest of the tolerances of its outputs.
    pub tolerance: f64,
    /// Reason why the graphs were not compared; `None` if they were.
    pub not_compared: Option<String>,
    /// Reason why ONNX Runtime cannot use the weights where they are mapped, so that each session has its own copy;
    /// `None` if it can.
    pub weights_copied: Option<String>,
}

/// Runs `ahead` and the model it was made from on one example, and returns the check. `rounds` says that products
/// quantize their inputs, so that the tolerance is larger. The outer error is that of an ended call (`Cancelled` or
/// `Timeout`); the inner error says that the graph does not run or gives different results.
pub fn compare(
    runtime: &'static Runtime,
    model: &Model,
    ahead: &Model,
    example: &Shapes,
    rounds: bool,
    call: &Call,
) -> Result<std::result::Result<Check, String>> {
    let tolerance = if rounds { ROUNDED } else { TOLERANCE };
    let options = SessionOptions { threads: 1, ..SessionOptions::stock() };
    let prepared = Prepared { name: "session".to_owned(), model: ahead.clone(), ahead: true, compiled: None };
    let session = Session::open_prepared(runtime, &prepared, &options, call);
    judge(session, tolerance, call, || {
        let (inputs, expected) = reference(runtime, model, example, &options, call)?;
        let tolerances = vec![tolerance; expected.len()];
        Ok(Reference { inputs, expected, tolerances })
    })
}

/// The maximum difference of a compiled graph from the original model, as a multiple of the difference of the graph
/// that it was compiled from. Both graphs compute with lower precision, but they round different numbers.
const NO_WORSE: f64 = 1.25;

/// Runs `compiled`, a session of the graph that was compiled from `made`, on one example, and compares its outputs with
/// those of the original `model`. The result and the errors are those of [`compare`]. The tolerance of an output is
/// `ROUNDED`, or `NO_WORSE` times the difference between the outputs of `made` and of `model`, whichever is larger.
pub fn compare_compiled(
    runtime: &'static Runtime,
    (model, made): (&Model, &Model),
    compiled: Result<Session>,
    example: &Shapes,
    call: &Call,
) -> Result<std::result::Result<Check, String>> {
    let options = SessionOptions { threads: 1, ..SessionOptions::stock() };
    judge(compiled, ROUNDED, call, || {
        let (inputs, expected) = reference(runtime, model, example, &options, call)?;
        let portable = Session::new(runtime, made, &options, call)?.run(&feed(&inputs), &[], call)?;
        let allowed =
            |((_, a), (_, b)): (&(String, Tensor), &(String, Tensor))| Ok(ROUNDED.max(NO_WORSE * difference(a, b)?));
        let tolerances: Vec<f64> = portable.iter().zip(&expected).map(allowed).collect::<Result<_>>()?;
        if let Some(index) = tolerances.iter().position(|tolerance| !tolerance.is_finite()) {
            let name = &expected[index].0;
            bail!(Unsupported, "the quantized model's output {name:?} is not finite where the original model's is");
        }
        Ok(Reference { inputs, expected, tolerances })
    })
}

/// The values that a graph is compared with: the inputs of a run, its outputs, and the tolerance of each output.
struct Reference {
    inputs: Values,
    expected: Values,
    tolerances: Vec<f64>,
}

/// Runs `session` on the inputs of `reference` and compares the outputs. Returns the check, or as the inner error the
/// reason why the session fails or the outputs differ too much. `tolerance` is the least tolerance of the check.
fn judge(
    session: Result<Session>,
    tolerance: f64,
    call: &Call,
    reference: impl FnOnce() -> Result<Reference>,
) -> Result<std::result::Result<Check, String>> {
    let session = match session {
        Err(e) if e.kind().ends_a_call() => return Err(e),
        Err(e) => return Ok(Err(e.to_string())),
        Ok(session) => session,
    };
    let weights_copied = session.placement().weights_copied.clone();
    let check = Check { largest_difference: None, tolerance, not_compared: None, weights_copied };
    let Reference { inputs, expected, tolerances } = match reference() {
        Err(e) if e.kind().ends_a_call() => return Err(e),
        Err(e) => return Ok(Ok(Check { not_compared: Some(e.to_string()), ..check })),
        Ok(found) => found,
    };
    if let Some(name) = void(&expected)? {
        let why = format!("the output {name:?} of the model has no finite value on the example");
        return Ok(Ok(Check { not_compared: Some(why), ..check }));
    }
    let given = match session.run(&feed(&inputs), &[], call) {
        Err(e) if e.kind().ends_a_call() => return Err(e),
        Err(e) => return Ok(Err(e.to_string())),
        Ok(given) => given,
    };
    let tolerance = tolerances.iter().copied().fold(tolerance, f64::max);
    let compared = within(&given, &expected, &tolerances)?;
    Ok(compared.map(|largest| Check { largest_difference: Some(largest), tolerance, ..check }))
}

/// Returns the name of the first float output that has elements, but no finite one; `None` if there is none.
fn void(outputs: &Values) -> Result<Option<&str>> {
    for (name, tensor) in outputs.iter().filter(|(_, tensor)| tensor.dtype().is_float() && tensor.elements() > 0) {
        if !tensor.to_f32_vec()?.iter().any(|value| value.is_finite()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn feed(values: &Values) -> Vec<(&str, &Tensor)> {
    values.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
}

/// Returns the largest difference of outputs. The inner error names the first output that exceeds its tolerance.
fn within(given: &Values, expected: &Values, tolerances: &[f64]) -> Result<std::result::Result<f64, String>> {
    let mut largest = 0.0f64;
    for (((name, a), (_, b)), tolerance) in given.iter().zip(expected).zip(tolerances) {
        let apart = difference(a, b)?;
        largest = largest.max(apart);
        if apart > *tolerance {
            let of = if b.dtype().is_float() { format!("by {apart:.1e} of its largest value") } else { share(apart) };
            return Ok(Err(format!("output {name:?} differs from that of the model {of}")));
        }
    }
    Ok(Ok(largest))
}

type Values = Vec<(String, Tensor)>;

/// Returns inputs of the shapes of `example`, and the model's outputs for them with all optimizers off. For a model
/// with block-quantized weights, the basic optimizers are on, because they fold constants.
fn reference(
    runtime: &'static Runtime,
    model: &Model,
    example: &Shapes,
    options: &SessionOptions,
    call: &Call,
) -> Result<(Values, Values)> {
    let made = InputOptions { shapes: example.clone(), ..InputOptions::default() };
    let inputs = Source::new(model, None, &made)?.timing()?.inputs;
    // Products with block-quantized weights may be correct only with constant folding: ONNX Runtime 1.32 returns
    // zeros for constant codes with computed scales.
    let optimization_level = if has_blocks(model) { OptimizationLevel::Basic } else { OptimizationLevel::Disabled };
    let plain = SessionOptions { optimization_level, ..options.clone() };
    let session = Session::new(runtime, model, &plain, call)?;
    let outputs = session.run(&feed(&inputs), &[], call)?;
    Ok((inputs, outputs))
}

/// Returns the largest difference relative to the largest absolute value of `b`; for other types than floats, the share
/// of elements that differ. Returns infinity if the types or shapes differ, or if infinities or NaNs are not in the
/// same places.
fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return Ok(f64::INFINITY);
    }
    if !a.dtype().is_float() {
        return Ok(share_of_others(a, b));
    }
    let (a, b) = (a.to_f32_vec()?, b.to_f32_vec()?);
    let largest = b.iter().filter(|v| v.is_finite()).fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let apart = |(a, b): (&f32, &f32)| match a == b || (a.is_nan() && b.is_nan()) {
        true => 0.0,
        false if (a - b).is_finite() => f64::from((a - b).abs() / largest),
        false => f64::INFINITY,
    };
    Ok(a.iter().zip(&b).map(apart).fold(0.0, f64::max))
}

fn share(of: f64) -> String {
    format!("in {:.1} % of its elements", 100.0 * of)
}

/// Returns the share of elements that differ between two tensors of one type and shape.
fn share_of_others(a: &Tensor, b: &Tensor) -> f64 {
    let (others, count) = match (a.strings(), b.strings()) {
        (Some(a), Some(b)) => (a.iter().zip(b).filter(|(a, b)| a != b).count(), a.len()),
        _ => {
            let count = a.shape().iter().map(|size| *size as usize).product::<usize>().max(1);
            let size = (a.bytes().len() / count).max(1);
            (a.bytes().chunks(size).zip(b.bytes().chunks(size)).filter(|(a, b)| a != b).count(), count)
        }
    };
    others as f64 / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::test_runtime;
    use crate::runtime::testing::{graph, model, node, value, weight};

    #[test]
    fn another_graph_is_told_from_the_model_and_the_same_one_is_not() {
        let of = |op: &str, scale: f32| {
            let mut graph = graph(
                vec![node("MatMul", &["x", "w"], "p"), node(op, &["p"], "y")],
                vec![value("x", 1, &["n", "40"])],
                vec![value("y", 1, &["n", "40"])],
            );
            let values: Vec<f32> = (0..1600).map(|i| scale * (i as f32).sin()).collect();
            graph.initializer = vec![weight("w", &[40, 40], &values)];
            Model::from_proto(model(graph))
        };
        let original = of("Tanh", 1.0);
        let example = vec![("x".to_owned(), vec![2, 40])];
        let check =
            |ahead: &Model| compare(test_runtime(), &original, ahead, &example, false, &Call::default()).unwrap();
        let same = check(&of("Tanh", 1.0)).unwrap();
        assert!(same.largest_difference.is_some_and(|d| d < 1e-6) && same.weights_copied.is_none(), "{same:?}");
        assert!(check(&of("Tanh", 1.01)).unwrap_err().contains("\"y\""));
        assert!(check(&of("Sigmoid", 1.0)).is_err() && check(&of("NoSuchOperator", 1.0)).is_err());
    }
}
