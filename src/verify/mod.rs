//! The verification of results: the model that a technique made is opened, run and compared before it is returned.
//!
//! A graph can be right node by node and still be refused by ONNX Runtime, or be changed by its optimizers.
//! [`Examiner`] runs the result at the default optimization level and without optimizers (the two *levels*), on inputs
//! that the original runs on, and compares the outputs with each other and with those of the original. [`kernels()`]
//! returns the kernel of each node.

mod kernels;
mod report;

pub use kernels::{Kernel, kernels};
pub use report::{examine, examine_fused, note, note_stock, race, warn_of_size, warn_of_speed};

use crate::benchmark::Subject;
use crate::benchmark::rows::Sums;
use crate::call::Call;
use crate::error::Result;
use crate::inputs::Batch;
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::runtime::{OptimizationLevel, Runtime, SessionOptions, Tensor};
use serde::Serialize;
use std::time::{Duration, Instant};

/// The maximum relative difference between the outputs with and without optimizers (root mean squares) that rounding
/// explains: integer kernels round where the graph as written does not.
const ROUNDED: f64 = 2e-2;
/// The maximum relative difference between the outputs with and without optimizers if both are computed in float.
const EXACT: f64 = 1e-2;
/// The relative perturbation of an input whose effect equals that of rounding within a model of a hundred layers.
const PERTURBATION: f32 = 1e-6;
/// The allowed difference between the outputs with and without optimizers, as a multiple of the effect of the
/// perturbation: optimizers change where values are rounded, and so the error, but not its magnitude.
const CONDITIONED: f64 = 4.0;

/// The facts about a valid result. ONNX Runtime opens and runs such a result with and without its optimizers, and the
/// outputs of the two differ by no more than rounding explains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Facts {
    /// Relative difference between the outputs at the default level and without optimizers (root mean squares). `None`
    /// if there were no outputs to compare.
    pub levels_differ: Option<f64>,
    /// Relative difference between the outputs at the default level and those of the original (root mean squares).
    /// `None` if there were no outputs to compare.
    pub original_differs: Option<f64>,
}

/// The fault of an invalid result.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Description of the fault.
    pub text: String,
    /// Relative difference between the output with ONNX Runtime's optimizers and that of the original, if the fault is
    /// a difference between the outputs with and without optimizers. `None` for other faults, and if the original has
    /// no such output.
    pub usual_differs: Option<f64>,
}

impl Fault {
    fn new(text: String) -> Fault {
        Fault { text, usual_differs: None }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The facts about a valid result, or the fault of an invalid one.
pub type Finding = std::result::Result<Facts, Fault>;

/// The degree to which a technique preserves what the model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Values are rounded, so kernels may round differently from the graph as written.
    Rounded,
    /// The arithmetic is that of the original, with other weights.
    Exactly,
}

type Values = Vec<(String, Tensor)>;

/// An examiner of results, which runs them on inputs that the original runs on.
pub struct Examiner<'e> {
    runtime: &'static Runtime,
    threads: usize,
    inputs: &'e [(String, Tensor)],
    /// Outputs of the original at the default level.
    reference: Values,
    /// Duration of a run of the original, without loading.
    took: Duration,
    kept: Kept,
}

impl<'e> Examiner<'e> {
    /// Runs the original on a batch, and returns an examiner. Fails if the original does not run: then nothing can be
    /// expected of a result.
    pub fn new(
        runtime: &'static Runtime,
        original: &Model,
        batch: &'e Batch,
        threads: usize,
        kept: Kept,
        call: &Call,
    ) -> Result<Examiner<'e>> {
        let (reference, took) = (Vec::new(), Duration::ZERO);
        let mut examiner = Examiner { runtime, threads, inputs: &batch.inputs, reference, took, kept };
        (examiner.reference, examiner.took) = examiner.run(original, OptimizationLevel::All, call)?;
        Ok(examiner)
    }

    /// Returns the duration of a run of the original.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Opens a result with and without ONNX Runtime's optimizers, runs it and compares the outputs. Returns the facts
    /// or the fault. Fails if the caller ended the work; a result that does not run is a fault, not an error.
    pub fn examine(&self, result: &Model, call: &Call) -> Result<Finding> {
        let plainly = match self.ran(self.run(result, OptimizationLevel::Disabled, call), "without optimizers")? {
            Ok(values) => values,
            Err(fault) => return Ok(Err(fault)),
        };
        let usually = match self.ran(self.run(result, OptimizationLevel::All, call), "at its default level")? {
            Ok(values) => values,
            Err(fault) => return Ok(Err(fault)),
        };
        let found = self.compare(&plainly, &usually, None);
        if found.is_ok() {
            return Ok(found);
        }
        // Rounding may be the cause: a run on perturbed inputs shows how sensitive the outputs are.
        let Some(inputs) = perturbed(self.inputs)? else { return Ok(found) };
        let moved = self.run_on(&inputs, result, OptimizationLevel::Disabled, call);
        match self.ran(moved, "on inputs that differ in their last digits")? {
            Ok(moved) => Ok(self.compare(&plainly, &usually, Some(&moved))),
            Err(_) => Ok(found),
        }
    }

    fn ran(&self, made: Result<(Values, Duration)>, how: &str) -> Result<std::result::Result<Values, Fault>> {
        match made {
            Ok((values, _)) => Ok(Ok(values)),
            Err(e) if e.kind().ends_a_call() => Err(e),
            Err(e) => {
                let text = format!("ONNX Runtime does not run the result {how}: {}", first_line(e.message()));
                Ok(Err(Fault::new(text)))
            }
        }
    }

    fn run(&self, model: &Model, level: OptimizationLevel, call: &Call) -> Result<(Values, Duration)> {
        self.run_on(self.inputs, model, level, call)
    }

    fn run_on(
        &self,
        inputs: &[(String, Tensor)],
        model: &Model,
        level: OptimizationLevel,
        call: &Call,
    ) -> Result<(Values, Duration)> {
        let options = SessionOptions {
            threads: self.threads,
            optimization_level: level,
            varying_sizes: true,
            ..SessionOptions::stock()
        };
        let call = &Call { progress: None, ..*call };
        let mut subject = Subject::new(self.runtime, model, &options, call)?;
        let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let start = Instant::now();
        let values = subject.run(&feed, call)?;
        Ok((values, start.elapsed()))
    }

    /// Returns the finding from the outputs at both levels and those of the original. `moved` holds the outputs without
    /// optimizers for inputs that differ in their last digits: an output may differ by as much as it changed there.
    /// Probabilities near zero, of detectors on noise, are so ill-conditioned that rounding alone makes the levels
    /// differ.
    fn compare(&self, plainly: &Values, usually: &Values, moved: Option<&Values>) -> Finding {
        let mut facts = Facts::default();
        let raise = |most: &mut Option<f64>, found: f64| *most = Some(most.unwrap_or(0.0).max(found));
        for ((name, plain), (_, usual)) in plainly.iter().zip(usually) {
            let Some(apart) = difference(plain, usual) else {
                // Another shape is a fault only if the outputs must be exact: otherwise, rounding may change the number
                // of elements that operators such as NonZero return.
                if self.kept == Kept::Exactly && plain.shape() != usual.shape() {
                    let text = format!("output {name:?} has another shape without ONNX Runtime's optimizers");
                    return Err(Fault::new(text));
                }
                continue;
            };
            let original = self.reference.iter().find(|(other, _)| other == name).map(|(_, tensor)| tensor);
            let lost = original.and_then(|tensor| Some([difference(tensor, plain)?, difference(tensor, usual)?]));
            if lost.is_some_and(|lost| lost.iter().any(|lost| lost.is_infinite())) {
                return Err(Fault::new(format!("output {name:?} has values that are not finite")));
            }
            let moved = moved.and_then(|values| values.iter().find(|(other, _)| other == name));
            let moved = moved.and_then(|(_, tensor)| difference(plain, tensor)).filter(|moved| moved.is_finite());
            let apart_at_most = match (self.kept, lost) {
                (Kept::Exactly, _) => EXACT,
                (Kept::Rounded, Some([plain, usual])) => ROUNDED.max(plain.min(usual)),
                (Kept::Rounded, None) => ROUNDED,
            };
            if apart > apart_at_most.max(CONDITIONED * moved.unwrap_or(0.0)) {
                let text =
                    format!("output {name:?} differs by {apart:.1e} between ONNX Runtime's default level and none");
                return Err(Fault { text, usual_differs: lost.map(|[_, usual]| usual) });
            }
            raise(&mut facts.levels_differ, apart);
            if let Some([_, usual]) = lost {
                raise(&mut facts.original_differs, usual);
            }
        }
        Ok(facts)
    }
}

fn first_line(text: &str) -> &str {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("").trim();
    line.char_indices().nth(300).map_or(line, |(end, _)| &line[..end])
}

/// Returns the inputs with every float32 value multiplied by 1 + [`PERTURBATION`] (every third value) or
/// 1 - [`PERTURBATION`] (the others); `None` if no input is float32.
fn perturbed(inputs: &[(String, Tensor)]) -> Result<Option<Vec<(String, Tensor)>>> {
    if !inputs.iter().any(|(_, tensor)| tensor.dtype() == DataType::Float32) {
        return Ok(None);
    }
    let moved = inputs.iter().map(|(name, tensor)| {
        let tensor = match tensor.dtype() {
            DataType::Float32 => {
                let values = tensor.to_f32_vec()?.into_iter().enumerate();
                let step = |index: usize| if index.is_multiple_of(3) { PERTURBATION } else { -PERTURBATION };
                Tensor::from_f32(tensor.shape(), values.map(|(index, x)| x * (1.0 + step(index))).collect())?
            }
            _ => tensor.clone(),
        };
        Ok((name.clone(), tensor))
    });
    moved.collect::<Result<Vec<_>>>().map(Some)
}

/// Returns the root mean square of the difference divided by that of `a`; infinite if `b` has a value that is not
/// finite where `a` does not have the same. If `a` is zero, returns 0 if `b` is zero, too, and otherwise 1. Returns
/// `None` if the tensors are not floats of one shape.
fn difference(a: &Tensor, b: &Tensor) -> Option<f64> {
    if a.shape() != b.shape() || !a.dtype().is_float() || !b.dtype().is_float() {
        return None;
    }
    let sums = Sums::of(&a.to_f32_vec().ok()?, &b.to_f32_vec().ok()?);
    Some(match (sums.non_finite, sums.aa) {
        (0, aa) if aa > 0.0 => (sums.squares / aa).sqrt(),
        (0, _) => f64::from(u8::from(sums.squares > 0.0)),
        _ => f64::INFINITY,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::inputs::InputOptions;
    use crate::report::Report;
    use crate::runtime::test_runtime;
    use crate::runtime::testing::{graph, model, node, value, weight};

    fn of(op: &str, factor: f32) -> Model {
        let mut graph = graph(
            vec![node("MatMul", &["x", "w"], "p"), node(op, &["p"], "y")],
            vec![value("x", 1, &["n", "8"])],
            vec![value("y", 1, &["n", "8"])],
        );
        graph.initializer = vec![weight("w", &[8, 8], &(0..64).map(|i| factor * (i as f32).sin()).collect::<Vec<_>>())];
        Model::from_proto(model(graph))
    }

    fn batch(value: f32) -> Batch {
        Batch::new(vec![("x".into(), Tensor::from_f32(&[2, 8], vec![value; 16]).unwrap())])
    }

    #[test]
    fn what_opens_is_told_from_what_does_not_and_from_what_is_not_finite() {
        let (batch, call) = (batch(0.5), Call::default());
        let examiner = Examiner::new(test_runtime(), &of("Tanh", 1.0), &batch, 1, Kept::Exactly, &call).unwrap();
        let facts = examiner.examine(&of("Tanh", 1.01), &call).unwrap().unwrap();
        assert!(facts.levels_differ.unwrap() < 1e-5, "{facts:?}");
        assert!((1e-3..0.1).contains(&facts.original_differs.unwrap()), "{facts:?}");
        let fault = examiner.examine(&of("NoSuchOperator", 1.0), &call).unwrap().unwrap_err().text;
        assert!(fault.contains("does not run the result") && fault.contains("NoSuchOperator"), "{fault}");
        let fault = examiner.examine(&of("Log", 1.0), &call).unwrap().unwrap_err().text;
        assert!(fault.contains("not finite"), "{fault}");
        assert!(Examiner::new(test_runtime(), &of("NoSuchOperator", 1.0), &batch, 1, Kept::Exactly, &call).is_err());
    }

    #[test]
    fn reports_say_what_was_seen_and_what_does_not_open_is_refused() {
        let look = |original: &Model, result: &Model| {
            let mut report = Report::new("quantize", serde_json::Value::Null);
            let models = (original, result);
            let inputs = InputOptions::default();
            let done = examine(test_runtime(), models, 1, Kept::Exactly, &inputs, &mut report, &Call::default());
            done.map(|()| report).map_err(|e| e.kind())
        };
        let report = look(&of("Tanh", 1.0), &of("Tanh", 1.01)).unwrap();
        assert!(report.summary["verified"]["levels_differ"].as_f64().unwrap() < 1e-5, "{:?}", report.summary);
        let report = look(&of("Tanh", 1.0), &of("Tanh", -1.0)).unwrap();
        let warning = "differ from the original's by 200 % (root mean squares) on generated inputs";
        assert!(report.warnings[0].contains(warning), "{:?}", report.warnings);
        assert_eq!(look(&of("Tanh", 1.0), &of("NoSuchOperator", 1.0)).err(), Some(Kind::Unsupported));
        // If the original does not run, nothing is expected of the result.
        let report = look(&of("NoSuchOperator", 1.0), &of("NoSuchOperator", 2.0)).unwrap();
        assert!(report.summary["not_verified"].as_str().unwrap().contains("NoSuchOperator"), "{:?}", report.summary);
        // The original does not run on generated inputs, but it can be loaded; the result cannot.
        let mut proto = of("Tanh", 1.0).proto().clone();
        let graph = proto.graph.as_mut().unwrap();
        graph.node.insert(0, node("Reshape", &["x", "odd"], "z"));
        graph.node[1].input[0] = "z".into();
        let sizes: Vec<u8> = [3i64, 8].iter().flat_map(|size| size.to_le_bytes()).collect();
        graph.initializer.push(crate::graph::edit::tensor("odd", DataType::Int64, &[2], sizes.into()));
        graph.input[0] = value("x", 1, &["n", "m"]);
        let odd = Model::from_proto(proto);
        assert!(look(&odd, &odd).unwrap().summary.contains_key("not_verified"));
        assert_eq!(look(&odd, &of("NoSuchOperator", 1.0)).err(), Some(Kind::Unsupported));
    }

    #[test]
    fn given_inputs_are_used() {
        // The outputs differ where a product is negative: for generated inputs, but not for zeros.
        let (original, result) = (of("Relu", 1.0), of("Abs", 1.0));
        let look = |tensors: Vec<(String, Tensor)>| {
            let mut report = Report::new("quantize", serde_json::Value::Null);
            let (inputs, call) = (InputOptions { tensors, ..InputOptions::default() }, Call::default());
            examine(test_runtime(), (&original, &result), 1, Kept::Exactly, &inputs, &mut report, &call).unwrap();
            report.summary["verified"]["original_differs"].as_f64().unwrap()
        };
        assert!(look(Vec::new()) > 0.1);
        assert_eq!(look(vec![("x".to_owned(), Tensor::from_f32(&[1, 8], vec![0.0; 8]).unwrap())]), 0.0);
    }

    #[test]
    fn a_fused_model_runs_where_its_members_do() {
        let (one, two) = (of("Tanh", 1.0), of("Relu", 1.0));
        let check = |members: [&Model; 2], fused: &Model, alike| {
            let mut report = Report::new("ensemble", serde_json::Value::Null);
            examine_fused(test_runtime(), (&members, fused), 1, alike, &mut report, &Call::default())
        };
        check([&one, &two], &of("Sigmoid", 1.0), true).unwrap();
        let e = check([&one, &two], &of("NoSuchOperator", 1.0), true).unwrap_err();
        assert!(e.kind() == Kind::Unsupported && e.to_string().contains("the members run, but not"), "{e}");
        let wide = {
            let mut graph = graph(
                vec![node("Concat", &["x", "x"], "y")],
                vec![value("x", 1, &["n", "8"])],
                vec![value("y", 1, &["n", "m"])],
            );
            graph.node[0].attribute = vec![crate::graph::edit::int_attribute("axis", 1)];
            Model::from_proto(model(graph))
        };
        let e = check([&one, &wide], &one, true).unwrap_err();
        assert!(e.kind() == Kind::InvalidArgument && e.place() == "member 2", "{e}");
        assert!(e.message().contains("16], but that of member 1 is"), "{e}");
        check([&one, &wide], &one, false).unwrap();
        // If a member does not run on generated inputs, nothing is expected.
        check([&one, &of("NoSuchOperator", 1.0)], &of("NoSuchOperator", 1.0), true).unwrap();
    }

    #[test]
    fn a_larger_loss_on_other_kernels_is_a_warning() {
        let quality = |cosine: f64| crate::benchmark::QualityReport {
            output: "y".into(),
            judged: vec!["y".into()],
            cosine: Some(cosine),
            max_abs_error: None,
            top1_agreement: None,
            kl: None,
            exact_match: None,
            samples: 1,
            not_compared: None,
            outputs: Vec::new(),
        };
        let warned = |here: f64, there: f64| {
            let mut report = Report::new("quantize", serde_json::Value::Null);
            report.quality = serde_json::to_value(quality(here)).ok();
            note_stock(&mut report, &quality(here), &quality(there));
            assert_eq!(report.quality.unwrap()["stock"]["cosine"], there);
            report.warnings
        };
        assert!(warned(0.999, 0.868)[0].contains("the cosine is 0.86800 instead of 0.99900"));
        assert!(warned(0.999, 0.998).is_empty());
    }

    #[test]
    fn what_rounding_decides_is_no_fault() {
        // The last digits of a large number determine its sine.
        let (batch, call) = (batch(0.5), Call::default());
        let (steep, flat) = (of("Sin", 1e5), of("Sin", 0.01));
        let examiner = Examiner::new(test_runtime(), &steep, &batch, 1, Kept::Exactly, &call).unwrap();
        let judge = |model: &Model, apart: f32| {
            let run = |inputs: &[(String, Tensor)]| examiner.run_on(inputs, model, OptimizationLevel::Disabled, &call);
            let (plain, moved) = (run(&batch.inputs), run(&perturbed(&batch.inputs).unwrap().unwrap()));
            let (plain, moved) = (plain.unwrap().0, moved.unwrap().0);
            let scaled = plain[0].1.to_f32_vec().unwrap().iter().map(|value| value * (1.0 + apart)).collect();
            let usual = vec![(plain[0].0.clone(), Tensor::from_f32(plain[0].1.shape(), scaled).unwrap())];
            assert!(examiner.compare(&plain, &usual, None).is_err());
            examiner.compare(&plain, &usual, Some(&moved))
        };
        assert!(judge(&steep, 0.02).is_ok());
        assert!(judge(&flat, 0.02).is_err());
        assert!(judge(&steep, 5.0).is_err());
        // A fault of another kind is still a fault.
        let other = Examiner::new(test_runtime(), &flat, &batch, 1, Kept::Exactly, &call).unwrap();
        assert!(other.examine(&of("Log", 1.0), &call).unwrap().unwrap_err().text.contains("not finite"));
    }

    #[test]
    fn levels_that_differ_are_a_fault_unless_rounding_explains_it() {
        let (batch, call) = (batch(0.5), Call::default());
        let mut examiner = Examiner::new(test_runtime(), &of("Tanh", 1.0), &batch, 1, Kept::Rounded, &call).unwrap();
        let at = |factor: f32| vec![("y".to_owned(), Tensor::from_f32(&[1, 4], vec![factor; 4]).unwrap())];
        examiner.reference = at(1.0);
        // The outputs at the default level differ strongly from the original, those of the unoptimized graph do not:
        // that is not rounding.
        let fault = examiner.compare(&at(1.01), &at(1.4), None).unwrap_err();
        assert!(fault.text.contains("differs by") && (fault.usual_differs.unwrap() - 0.4).abs() < 1e-3, "{fault}");
        assert!(examiner.compare(&at(1.4), &at(1.01), None).is_err());
        // Both levels differ from the original by the same amount, and are close to each other.
        assert!(examiner.compare(&at(1.4), &at(1.35), None).is_ok());
        examiner.kept = Kept::Exactly;
        assert!(examiner.compare(&at(1.4), &at(1.35), None).is_err());
    }
}
