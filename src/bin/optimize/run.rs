//! The subcommand `optimize run`, which runs a model once.

use crate::benchmark::{self, Inputs};
use crate::common::{self, Engines, Machine, On, Output};
use clap::Args;
use optimize::benchmark::Timed;
use optimize::error::Result;
use optimize::inputs::{Batch, InputOptions, Source, Truncation};
use optimize::model::{Model, ValueInfo};
use optimize::onnx::dtype::DataType;
use optimize::onnx::proto::ValueInfoProto;
use optimize::runtime::{Element, Execution, Session, SessionOptions, Tensor};
use optimize::tensorrt::EngineFile;
use optimize::text::Tokenizer;
use serde_json::{Map, Number, Value, json};
use std::path::PathBuf;

/// Arguments of `run`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, the manifest of an ensemble, or
    /// a TensorRT engine (X.engine, with --trust-engines)
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Text for the inputs that the model's tokenizer fills; repeat for a batch. Texts beyond the limit of the model
    /// are truncated with a warning. Other inputs are generated, unless --values or --inputs sets them
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// An output to compute; repeat for several [default: all]
    #[arg(long, alias = "only", value_name = "NAME")]
    output_names: Vec<String>,
    #[command(flatten, next_help_heading = "Inputs")]
    inputs: Inputs,
    #[command(flatten, next_help_heading = "Device")]
    on: On,
    #[command(flatten, next_help_heading = "Device")]
    engines: Engines,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    output: Output,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let execution = Execution { trust_engines: arguments.engines.trust_engines, ..arguments.on.execution()? };
    let (outputs, placement, warnings) = common::with_bar(&arguments.output, |bar| {
        let engine = match EngineFile::is_one(&arguments.model) {
            true => Some(arguments.engines.open(&arguments.model, execution.device_id, None)?),
            false => None,
        };
        let model = match &engine {
            Some(engine) => engine.signature().clone(),
            None => common::load(&arguments.model, bar)?,
        };
        let tokenizer = common::tokenizer(arguments.inputs.tokenizer.as_deref(), &model)?;
        let notes = tokenizer.as_ref().map(|tokenizer| tokenizer.notes());
        notes.into_iter().flatten().for_each(|note| arguments.output.warn(note));
        let mut options =
            benchmark::options(&arguments.inputs, &arguments.machine, arguments.text.clone(), None)?.inputs;
        options.batch_size = options.batch_size.max(arguments.text.len());
        if tokenizer.is_some() {
            fill(&mut options);
        }
        let mut source = Source::new(&model, tokenizer.as_ref(), &options)?;
        if let Some(longest) = longest(&model, tokenizer.as_ref())? {
            source = source.up_to(longest);
        }
        let (wanted, left_out) = wanted(arguments, &model)?;
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let told = |feed: &Batch| warnings(arguments, feed).into_iter().chain(left_out.clone()).collect::<Vec<_>>();
        if let Some(engine) = &engine {
            let feed = source.set(0)?;
            let mut ready = engine.open()?;
            let outputs = bar.call(|call| ready.run(&feed.feed(), &wanted, call)).map_err(|e| source.hinted(e))?;
            return Ok((outputs, engine.placement(), told(&feed)));
        }
        let (threads, execution) = (arguments.machine.threads, execution.clone());
        let session = SessionOptions { threads, execution, ..SessionOptions::default() };
        let runtime = arguments.machine.runtime()?;
        let session = bar.call(|call| Session::new(runtime, &model, &session, call))?;
        let (outputs, feed) = source.settle(|source| {
            let feed = source.set(0)?;
            let outputs = bar.call(|call| session.run(&feed.feed(), &wanted, call))?;
            Ok((outputs, feed))
        })?;
        Ok((outputs, session.placement().clone(), told(&feed)))
    })?;
    common::tell(&arguments.output, &execution, &placement);
    warnings.iter().for_each(|warning| arguments.output.warn(warning));
    if arguments.output.json {
        let object: Map<String, Value> =
            outputs.iter().map(|(name, tensor)| Ok((name.clone(), as_json(tensor)?))).collect::<Result<_>>()?;
        let text = serde_json::to_string(&json!({ "outputs": object, "placement": placement })).unwrap_or_default();
        return common::print(&format!("{text}\n"));
    }
    for (name, tensor) in &outputs {
        common::print(&format!("{name}  {}\n  {}\n", tensor.describe(), beginning(tensor)?))?;
    }
    Ok(())
}

/// Repeats the texts until there are as many as the requested batch size.
fn fill(options: &mut InputOptions) {
    let texts = options.texts();
    if texts.len() < options.batch_size {
        options.texts = texts.iter().cycle().take(options.batch_size).map(|text| (*text).to_owned()).collect();
    }
}

/// Returns the maximum number of tokens in the model's configuration or tokenizer; `None` if there is none.
fn longest(model: &Model, tokenizer: Option<&Tokenizer>) -> Result<Option<usize>> {
    let longest = model.card().longest_text()?;
    Ok(longest.or_else(|| tokenizer.and_then(Tokenizer::truncation)))
}

/// Returns warnings about texts that are omitted or truncated.
fn warnings(arguments: &Arguments, feed: &Batch) -> Vec<String> {
    let (texts, taken) = (arguments.text.len(), feed.samples);
    let left_out = (texts > taken)
        .then(|| format!("the model accepts {taken} texts at a time; the last {} are left out", texts - taken));
    // A text that is truncated to a requested length needs no warning.
    let told = texts > 0 && arguments.inputs.sequence_length.is_none();
    let cut = feed.truncated.iter().filter(|_| told).map(|Truncation { text, tokens, kept }| {
        let text = text + 1;
        format!("text {text} has {tokens} tokens, of which {kept} are used; --sequence-length sets the limit")
    });
    left_out.into_iter().chain(cut).collect()
}

/// Returns the names of the outputs to compute, and a warning about the outputs that are left out. The names are those
/// that were requested, otherwise those of all tensors; an empty list stands for all outputs.
fn wanted(arguments: &Arguments, model: &Model) -> Result<(Vec<String>, Option<String>)> {
    if !arguments.output_names.is_empty() {
        return Ok((arguments.output_names.clone(), None));
    }
    let (tensors, others): (Vec<ValueInfo>, Vec<ValueInfo>) =
        model.outputs().into_iter().partition(|output| is_tensor(model, &output.name));
    let names = |infos: &[ValueInfo]| infos.iter().map(|info| info.name.clone()).collect::<Vec<_>>();
    if tensors.is_empty() || others.is_empty() {
        return Ok((Vec::new(), None));
    }
    let (shown, left) = (names(&tensors), names(&others));
    let warning = format!(
        "{} of the model's outputs {} left out, because only tensors are printed, not sequences and maps: {}",
        left.len(),
        if left.len() == 1 { "is" } else { "are" },
        left.join(", ")
    );
    Ok((shown, Some(warning)))
}

/// Returns whether an output is a tensor, also if its type is not declared.
fn is_tensor(model: &Model, name: &str) -> bool {
    let of = |output: &&ValueInfoProto| output.name.as_deref() == Some(name);
    let declared = model.graph().output.iter().find(of).and_then(|output| output.value_type.as_deref());
    declared.is_none_or(|kind| kind.tensor_type.is_some())
}

/// Returns the type, the shape and all values of a tensor, row-major, as JSON.
fn as_json(tensor: &Tensor) -> Result<Value> {
    let values: Value = match (tensor.strings(), Numbers::of(tensor)?) {
        (Some(strings), _) => strings.into(),
        (None, Numbers::Integers(integers)) => integers.into_iter().map(Value::Number).collect(),
        // JSON has neither NaN nor infinity; they are written as null.
        (None, Numbers::Doubles(doubles)) => doubles.into(),
        (None, Numbers::Floats(floats)) => floats.into(),
    };
    Ok(json!({ "dtype": tensor.dtype().name(), "shape": tensor.shape(), "values": values }))
}

/// The elements of a tensor: integers and booleans as integers, float64 as f64, other floating-point types as f32.
/// Strings are not included.
enum Numbers {
    Integers(Vec<Number>),
    Doubles(Vec<f64>),
    Floats(Vec<f32>),
}

impl Numbers {
    fn of(tensor: &Tensor) -> Result<Numbers> {
        fn integers<T: Element + Into<Number> + Copy>(tensor: &Tensor) -> Result<Numbers> {
            Ok(Numbers::Integers(tensor.as_slice::<T>()?.iter().map(|value| (*value).into()).collect()))
        }
        match tensor.dtype() {
            DataType::String => Ok(Numbers::Floats(Vec::new())),
            DataType::Int64 => integers::<i64>(tensor),
            DataType::Int32 => integers::<i32>(tensor),
            DataType::Int16 => integers::<i16>(tensor),
            DataType::Int8 => integers::<i8>(tensor),
            DataType::Uint64 => integers::<u64>(tensor),
            DataType::Uint32 => integers::<u32>(tensor),
            DataType::Uint16 => integers::<u16>(tensor),
            DataType::Uint8 => integers::<u8>(tensor),
            DataType::Bool => Ok(Numbers::Integers(tensor.bytes().iter().map(|byte| Number::from(*byte)).collect())),
            DataType::Float64 => Ok(Numbers::Doubles(tensor.as_slice::<f64>()?.to_vec())),
            _ => Ok(Numbers::Floats(tensor.to_f32_vec()?)),
        }
    }

    /// Returns the text for the first `count` values.
    fn shown(&self, count: usize) -> Vec<String> {
        match self {
            Numbers::Integers(values) => values.iter().take(count).map(Number::to_string).collect(),
            Numbers::Doubles(values) => values.iter().take(count).map(|v| format!("{v:.9}")).collect(),
            Numbers::Floats(values) => values.iter().take(count).map(|v| format!("{v:.5}")).collect(),
        }
    }
}

/// Returns the text for the first values of a tensor.
fn beginning(tensor: &Tensor) -> Result<String> {
    const SHOWN: usize = 8;
    let more = if tensor.elements() > SHOWN { " ..." } else { "" };
    let values: Vec<String> = match tensor.strings() {
        Some(strings) => strings.iter().take(SHOWN).map(|s| format!("{s:?}")).collect(),
        None => Numbers::of(tensor)?.shown(SHOWN),
    };
    Ok(format!("{}{more}", values.join(" ")))
}
