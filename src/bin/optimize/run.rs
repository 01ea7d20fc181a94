//! `optimize run`: a model, once.

use crate::benchmark::{self, Inputs};
use crate::common::{self, Engines, Machine, On, Output};
use clap::Args;
use optimize::benchmark::BenchmarkOptions;
use optimize::benchmark::inputs::{self, Cut, InputSet, Source};
use optimize::error::Result;
use optimize::model::Model;
use optimize::runtime::{Execution, Session, SessionOptions, Tensor};
use optimize::tensorrt::EngineFile;
use optimize::text::Tokenizer;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Arguments of `run`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx file or a folder that holds one; or a TensorRT engine (X.engine, with --trust)
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Text for the model, through its tokenizer; repeat for a batch. What is longer than the model takes is cut,
    /// with a warning. Inputs that neither text nor --values fill are generated
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// An output to compute; repeat for several [default: all]
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    engines: Engines,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let execution = Execution { trust_engines: arguments.engines.trust, ..arguments.on.execution()? };
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
        let mut options = benchmark::options(&arguments.inputs, &arguments.machine, arguments.text.clone(), None)?;
        options.batch_size = options.batch_size.max(arguments.text.len());
        if tokenizer.is_some() {
            fill(&mut options);
        }
        let mut source = Source::new(&model, &model, tokenizer.as_ref(), &options)?;
        if let Some(longest) = longest(&model, tokenizer.as_ref())? {
            source = source.up_to(longest);
        }
        let feed = source.set(0)?;
        let wanted: Vec<&str> = arguments.only.iter().map(String::as_str).collect();
        if let Some(engine) = &engine {
            let mut ready = engine.open()?;
            let outputs = bar.call(|call| ready.run(&feed.feed(), &wanted, call))?;
            return Ok((outputs, engine.placement(), warnings(arguments, &feed)));
        }
        let (threads, execution) = (arguments.machine.threads, execution.clone());
        let session = SessionOptions { threads, execution, ..SessionOptions::default() };
        let runtime = arguments.machine.runtime()?;
        let mut session = bar.call(|call| Session::new(runtime, &model, &session, call))?;
        let outputs = bar.call(|call| session.run(&feed.feed(), &wanted, call))?;
        Ok((outputs, session.placement().clone(), warnings(arguments, &feed)))
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

/// A batch that was asked for is made: of the texts there are, again from the first if they are fewer.
fn fill(options: &mut BenchmarkOptions) {
    let texts = inputs::texts(options);
    if texts.len() < options.batch_size {
        options.texts = texts.iter().cycle().take(options.batch_size).map(|text| (*text).to_owned()).collect();
    }
}

/// Tokens that the model takes, if its configuration or its tokenizer says.
fn longest(model: &Model, tokenizer: Option<&Tokenizer>) -> Result<Option<usize>> {
    let longest = model.card().longest_text()?;
    Ok(longest.or_else(|| tokenizer.and_then(Tokenizer::truncation)))
}

/// What the model is not given of the user's texts.
fn warnings(arguments: &Arguments, feed: &InputSet) -> Vec<String> {
    let (texts, taken) = (arguments.text.len(), feed.samples);
    let left_out = (texts > taken)
        .then(|| format!("the model takes {taken} texts at a time: the last {} are left out", texts - taken));
    // A length that was asked for is no surprise.
    let told = texts > 0 && arguments.inputs.sequence_length.is_none();
    let cut = feed.cut.iter().filter(|_| told).map(|Cut { text, tokens, kept }| {
        let text = text + 1;
        format!("text {text} has {tokens} tokens, of which {kept} are used: --sequence-length says how many")
    });
    left_out.into_iter().chain(cut).collect()
}

/// Shape, type and all values, row-major.
fn as_json(tensor: &Tensor) -> Result<Value> {
    let values: Value = match tensor.strings() {
        Some(strings) => strings.into(),
        None => match tensor.as_slice::<i64>() {
            Ok(integers) => integers.into(),
            // JSON has no NaN and no infinity: they come out as null.
            Err(_) => tensor.to_f32_vec()?.into(),
        },
    };
    Ok(json!({ "dtype": tensor.dtype().name(), "shape": tensor.shape(), "values": values }))
}

/// The first values, for a look.
fn beginning(tensor: &Tensor) -> Result<String> {
    const SHOWN: usize = 8;
    let more = if tensor.elements() > SHOWN { " ..." } else { "" };
    let values: Vec<String> = match tensor.strings() {
        Some(strings) => strings.iter().take(SHOWN).map(|s| format!("{s:?}")).collect(),
        None => tensor.to_f32_vec()?.iter().take(SHOWN).map(|v| format!("{v:.5}")).collect(),
    };
    Ok(format!("{}{more}", values.join(" ")))
}
