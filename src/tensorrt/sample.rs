//! The run of a model on a sample, which yields the types of its intermediate values, the largest magnitudes of those
//! in float32, and the outputs.

use crate::call::Call;
use crate::error::{Error, Result, bail, error};
use crate::graph::edit;
use crate::inputs::{InputOptions, Source};
use crate::model::{Model, Task};
use crate::onnx::dtype::DataType;
use crate::runtime::{OptimizationLevel, Runtime, Session, SessionOptions, Tensor};
use crate::text::Tokenizer;
use std::collections::{HashMap, HashSet};

/// The length of a text sample in tokens. It is short, because every intermediate value is read.
const TOKENS: usize = 32;
/// The number of values that one run outputs. Each stays in memory until it has been read.
const AT_ONCE: usize = 48;

/// The names and values of the inputs of a run.
pub(super) type Inputs = Vec<(String, Tensor)>;

/// The inputs and outputs of a run, and the types and magnitudes of its intermediate values.
pub(super) struct Sample {
    pub inputs: Inputs,
    /// Element type of each value that a node of the main graph outputs.
    pub types: HashMap<String, DataType>,
    /// Largest finite magnitude of each float32 value that a node outputs, and largest magnitude of each float32 input.
    pub largest: HashMap<String, f32>,
    /// Names and values of the outputs of the model.
    pub outputs: Vec<(String, Tensor)>,
}

/// Returns a session that runs `model` without optimization, with the values `more` as additional outputs. Fails like
/// [`Session::new`].
pub(super) fn session(
    runtime: &'static Runtime,
    model: &Model,
    more: &[String],
    threads: usize,
    call: &Call,
) -> Result<Session> {
    let mut proto = model.proto().clone();
    if let Some(graph) = proto.graph.as_deref_mut() {
        let known: HashSet<String> = graph.output.iter().filter_map(|o| o.name.clone()).collect();
        graph.output.extend(more.iter().filter(|name| !known.contains(*name)).map(|name| edit::untyped(name)));
    }
    let options = SessionOptions {
        threads,
        optimization_level: OptimizationLevel::Disabled,
        disable_prepacking: true,
        ..SessionOptions::stock()
    };
    Session::new(runtime, &Model::from_proto(proto), &options, call)
}

/// Runs the model on `inputs` and passes the values of the outputs `wanted` to `look`. Each run has at most [`AT_ONCE`]
/// outputs, so there may be several runs. Outputs that are not tensors are skipped. Fails if a run or `look` fails.
pub(super) fn values(
    session: &Session,
    inputs: &Inputs,
    wanted: &[String],
    call: &Call,
    look: &mut dyn FnMut(&str, &Tensor) -> Result<()>,
) -> Result<()> {
    let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let tensors: HashSet<String> =
        session.outputs().iter().filter(|info| info.dtype.is_some()).map(|info| info.name.clone()).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).filter(|name| tensors.contains(*name)).collect();
    for some in wanted.chunks(AT_ONCE) {
        for (name, tensor) in session.run(&feed, some, call)? {
            look(&name, &tensor)?;
        }
    }
    Ok(())
}

impl Sample {
    /// Runs `model` on the first of its [`candidates`] on which it can run, and returns the sample. If it runs on none
    /// of them, fails with the error of the last run, for example `Runtime`; with `Unsupported` if all its float32
    /// outputs were NaN or infinite in the last run.
    pub fn take(
        runtime: &'static Runtime,
        model: &Model,
        shapes: &[(String, Vec<i64>)],
        threads: usize,
        call: &Call,
    ) -> Result<Sample> {
        let names: Vec<String> =
            model.graph().node.iter().flat_map(|n| &n.output).filter(|o| !o.is_empty()).cloned().collect();
        let session = session(runtime, model, &names, threads, call)?;
        let types = session.outputs().iter().filter_map(|info| Some((info.name.clone(), info.dtype?))).collect();
        let outputs: Vec<String> = model.outputs().into_iter().map(|info| info.name).collect();
        let mut refused: Option<Error> = None;
        for inputs in candidates(model, shapes)? {
            let mut found = Vec::new();
            let mut keep = |name: &str, tensor: &Tensor| {
                found.push((name.to_owned(), tensor.clone()));
                Ok(())
            };
            match values(&session, &inputs, &outputs, call, &mut keep) {
                Ok(()) if has_only_non_finite(&found)? => {
                    refused =
                        Some(error!(Unsupported, "the outputs have no finite value, so an error cannot be measured"));
                }
                Ok(()) => {
                    let mut sample = Sample { inputs, types, largest: HashMap::new(), outputs: found };
                    sample.measure(&session, &names, call)?;
                    return Ok(sample);
                }
                Err(e) => refused = Some(e),
            }
            call.check()?;
        }
        match refused {
            Some(e) => Err(e.at("the sample that precision is measured on")),
            None => bail!(Unsupported, "there are no inputs on which the model could be run"),
        }
    }

    fn measure(&mut self, session: &Session, names: &[String], call: &Call) -> Result<()> {
        let floats: Vec<String> =
            names.iter().filter(|name| self.types.get(*name) == Some(&DataType::Float32)).cloned().collect();
        let mut largest = HashMap::new();
        let mut look = |name: &str, tensor: &Tensor| {
            let values = tensor.as_slice::<f32>()?;
            let most = values.iter().filter(|v| v.is_finite()).fold(0.0f32, |most, v| most.max(v.abs()));
            largest.insert(name.to_owned(), most);
            Ok(())
        };
        let inputs = std::mem::take(&mut self.inputs);
        values(session, &inputs, &floats, call, &mut look)?;
        for (name, tensor) in &inputs {
            if let Ok(values) = tensor.as_slice::<f32>() {
                largest.insert(name.clone(), values.iter().fold(0.0f32, |most, v| most.max(v.abs())));
            }
        }
        (self.inputs, self.largest) = (inputs, largest);
        Ok(())
    }
}

/// Returns whether there are float32 outputs with elements, but no finite element.
fn has_only_non_finite(outputs: &[(String, Tensor)]) -> Result<bool> {
    let mut any = false;
    for (_, tensor) in outputs.iter().filter(|(_, tensor)| tensor.dtype() == DataType::Float32) {
        let values = tensor.as_slice::<f32>()?;
        if values.iter().any(|value| value.is_finite()) {
            return Ok(false);
        }
        any |= !values.is_empty();
    }
    Ok(any)
}

/// Returns inputs to try, in order: a text, numbers in the sizes of `shapes`, and numbers in sizes that fit the model.
/// The text is omitted without a tokenizer; it is the second one if the model is not for generation or embeddings and
/// `shapes` is not empty. Fails if no inputs can be made.
fn candidates(model: &Model, shapes: &[(String, Vec<i64>)]) -> Result<Vec<Inputs>> {
    let tokenizer = Tokenizer::of(model).ok().flatten();
    let plain = InputOptions { sequence_length: TOKENS, ..InputOptions::default() };
    let sized = InputOptions { shapes: shapes.to_vec(), ..plain.clone() };
    let mut found: Vec<Inputs> = Vec::new();
    let mut refused = None;
    let text = tokenizer.as_ref().map(|tokenizer| (Some(tokenizer), &plain));
    let is_first = matches!(model.card().task, Task::Generate | Task::Embed) || shapes.is_empty();
    let order = if is_first { [text, Some((None, &sized))] } else { [Some((None, &sized)), text] };
    for (reader, options) in order.into_iter().flatten().chain([(None, &plain)]) {
        let made = Source::new(model, reader, options).and_then(|source| source.timing());
        match made {
            Ok(set) => found.push(set.inputs),
            Err(e) => refused = Some(e),
        }
    }
    match (found.is_empty(), refused) {
        (true, Some(e)) => Err(e),
        _ => Ok(found),
    }
}

/// Returns the relative distance of `low` from `plain`, `‖low − plain‖ / ‖plain‖` over the elements that are finite in
/// both; infinite if the numbers of elements differ, or if an element is finite only in `plain`. Fails if a tensor
/// cannot be converted to float32.
pub(super) fn distance(plain: &Tensor, low: &Tensor) -> Result<f64> {
    let (a, b) = (plain.to_f32_vec()?, low.to_f32_vec()?);
    if a.len() != b.len() {
        return Ok(f64::INFINITY);
    }
    let (mut apart, mut size) = (0.0f64, 0.0f64);
    for (a, b) in a.iter().zip(&b) {
        match (a.is_finite(), b.is_finite()) {
            (true, true) => {
                apart += f64::from(a - b).powi(2);
                size += f64::from(*a).powi(2);
            }
            (true, false) => return Ok(f64::INFINITY),
            _ => {}
        }
    }
    Ok(if apart == 0.0 { 0.0 } else { (apart / size.max(f64::MIN_POSITIVE)).sqrt() })
}
