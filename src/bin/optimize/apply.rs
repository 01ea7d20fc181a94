//! The subcommand `optimize apply`, which runs a recipe.

use crate::benchmark::{AfterTechnique, Inputs};
use crate::common::{self, Machine, Output, Page, Target};
use crate::read;
use crate::table;
use crate::technique::{Made, Storage};
use clap::Args;
use optimize::error::{Context, Result, bail};
use optimize::onnx::save::ExternalData;
use optimize::open;
use optimize::recipe::{ApplyOptions, Recipe, Work, apply, schema};
use optimize::report::Report;
use optimize::source::LoadOptions;
use serde_json::Value;
use std::path::PathBuf;

/// Arguments of `apply`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, or the manifest of an ensemble
    #[arg(short, long, value_name = "MODEL", required_unless_present = "schema")]
    model: Option<PathBuf>,
    /// The recipe: a JSON file with a list of steps, or the report of a technique; - reads standard input
    #[arg(short, long, value_name = "FILE", required_unless_present = "schema")]
    recipe: Option<PathBuf>,
    /// Path of the result: a package if the last step is compile, an engine if it is tensorrt, otherwise
    /// FILE.onnx, or a folder for model, tokenizer and configuration
    #[arg(short, long, value_name = "PATH", required_unless_present = "schema")]
    output: Option<PathBuf>,
    /// The text for steps whose data or calibration data is `true` in the recipe; - reads standard input
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Only print the JSON schema of recipes
    #[arg(long, conflicts_with_all = ["model", "recipe", "output", "data"])]
    schema: bool,
    #[command(flatten, next_help_heading = "Measurement")]
    after: AfterTechnique,
    #[command(flatten, next_help_heading = "Inputs")]
    inputs: Inputs,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    page: Page,
    #[command(flatten, next_help_heading = "Output")]
    reporting: Output,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (Some(path), Some(file), Some(output)) = (&arguments.model, &arguments.recipe, &arguments.output) else {
        let text = serde_json::to_string_pretty(&schema()).unwrap_or_default();
        return common::print(&(text + "\n"));
    };
    let recipe = Recipe::parse(&read::text(file)?).at(|| file.display())?;
    let report = common::with_bar(&arguments.reporting, |bar| {
        let model = open::load(path, &LoadOptions { dialect: recipe.dialect() })?;
        let data = arguments.data.as_deref().map(read::text).transpose()?;
        if recipe.needs_data() && data.is_none() {
            bail!(InvalidArgument, "{}: a step takes its data from the caller: --data is required", file.display());
        }
        let options = ApplyOptions { data: data.as_deref(), threads: arguments.machine.threads };
        let runtime = arguments.machine.runtime()?;
        let mut report = bar.call(|call| apply(runtime, &model, &recipe, output, &options, call))?;
        let is_engine = recipe.steps().iter().any(|step| matches!(step.work, Work::TensorRt(_)));
        if !is_engine {
            let target = Target::of_file(output.clone());
            let made = Made {
                original: &model,
                result: &model,
                target: &target,
                storage: Storage::Onnx(ExternalData::Auto),
                calibration: None,
                after: &arguments.after,
                inputs: &arguments.inputs,
                machine: &arguments.machine,
                output: &arguments.reporting,
            };
            arguments.after.measure(&made, made.measured_on()?, &mut report, bar)?;
        }
        Ok(report)
    })?;
    arguments.page.write(&report)?;
    show(arguments, &report)
}

fn show(arguments: &Arguments, report: &Report) -> Result<()> {
    let reporting = &arguments.reporting;
    reporting.warn_of(report);
    if reporting.json {
        return common::print(&report.to_json());
    }
    if reporting.quiet {
        return Ok(());
    }
    let steps: Vec<&str> = report.recipe.iter().filter_map(|step| step["operation"].as_str()).collect();
    let path = report.output.as_ref().and_then(|o| o.path.clone()).unwrap_or_default();
    common::print(&format!("{path}: {}, in {:.2} s\n\n", steps.join(", "), report.seconds))?;
    let size = |key: &str| report.summary.get(key).and_then(Value::as_u64).unwrap_or(0);
    common::print(&table::comparison(report, size("bytes_before"), size("bytes_after")))
}
