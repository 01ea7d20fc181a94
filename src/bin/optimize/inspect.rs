//! The subcommand `optimize inspect`, which shows the content of a model.

use crate::benchmark::Inputs;
use crate::common::{self, Machine, Output};
use crate::plan;
use crate::read;
use crate::table::{Table, bytes};
use clap::Args;
use optimize::error::{Context, Result, bail};
use optimize::inspect::{Inspection, inspect};
use optimize::model::contract::describe as describe_size;
use optimize::package::manifest::Variant;
use optimize::package::{OpenOptions, Package, verify};
use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;

/// Arguments of `inspect`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, or the manifest of an ensemble
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Package: verify the hash of every file
    #[arg(long)]
    verify: bool,
    /// Package: verify the hash of every file, and the signature with the public ed25519 key in this file (64
    /// hexadecimal digits)
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Estimate the results of quantizing the model: bytes, seconds, memory, kernels
    #[arg(long)]
    plan: bool,
    /// Plan: also quantize in memory, and compare speed and quality of each result with the model
    #[arg(long, requires = "plan")]
    benchmark: bool,
    #[command(flatten, next_help_heading = "Inputs")]
    inputs: Inputs,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    output: Output,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let model = common::with_bar(&arguments.output, |bar| common::load(&arguments.model, bar))?;
    let is_package = optimize::package::is_package(&arguments.model);
    if !is_package && (arguments.verify || arguments.public_key.is_some()) {
        bail!(InvalidArgument, "{}: the model is not a package, so it cannot be verified", arguments.model.display());
    }
    if is_package && !arguments.plan {
        return package(arguments);
    }
    if arguments.plan {
        let measuring = arguments.benchmark.then_some((&arguments.inputs, &arguments.machine));
        return plan::run(&model, measuring, &arguments.output);
    }
    let found = inspect(&model);
    if arguments.output.json {
        return common::print(&found.to_json());
    }
    let signature = |values: &[optimize::model::ValueInfo]| -> String {
        values.iter().map(|v| format!("  {}  {}\n", v.name, v.describe())).collect()
    };
    let text = describe(&found, arguments.output.verbose);
    common::print(&format!("{text}\ninputs\n{}outputs\n{}", signature(&model.inputs()), signature(&model.outputs())))
}

/// Prints the content of a package and the variant that is used on this machine. Without ONNX Runtime, only portable
/// variants can be used.
fn package(arguments: &Arguments) -> Result<()> {
    let package = Package::open(&arguments.model, &OpenOptions::default())?;
    let runtime = arguments.machine.runtime().ok();
    let manifest = package.manifest();
    let mut verified = None;
    if arguments.verify || arguments.public_key.is_some() {
        let key = arguments.public_key.as_ref().map(|file| verify::from_hex(&read::text(file)?).at(|| file.display()));
        let key = key.transpose()?;
        common::with_bar(&arguments.output, |bar| bar.call(|call| package.verify(key.as_ref(), call)))?;
        verified = Some(if key.is_some() { "hashes and signature" } else { "hashes" });
    }
    if arguments.output.json {
        return common::print(&with_verified(package.inspect(runtime)?, verified));
    }
    let mut text = format!(
        "package, format {}, by liboptimize {}\nselected  {}\nlicence  {}\n\nvariants\n",
        manifest.format,
        manifest.library_version,
        package.choose(runtime)?.reason,
        manifest.licence.as_deref().unwrap_or("not given")
    );
    for variant in &manifest.variants {
        let _ = writeln!(text, "  {}  {}", variant.name, describe_variant(variant));
    }
    manifest.warnings.iter().for_each(|warning| text.push_str(&format!("  {warning}\n")));
    text.push_str("inputs\n");
    for input in &manifest.shapes.inputs {
        let sizes = input.dims.iter().flatten().map(describe_size).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "  {}  {}[{sizes}]", input.name, input.dtype.as_deref().unwrap_or("?"));
    }
    text.push_str("outputs\n");
    manifest.outputs.iter().for_each(|output| text.push_str(&format!("  {output}\n")));
    text.push_str("lineage\n");
    for step in &manifest.lineage {
        let _ = writeln!(text, "  {}", step.get("operation").and_then(|v| v.as_str()).unwrap_or("?"));
    }
    if let Some(verified) = verified {
        let _ = writeln!(text, "verified\n  {verified}");
    }
    common::print(&text)
}

/// Returns the JSON object `json`, to which the field `verified` is added if something was verified.
fn with_verified(json: String, verified: Option<&str>) -> String {
    match (verified, serde_json::from_str(&json)) {
        (Some(verified), Ok(Value::Object(mut object))) => {
            object.insert("verified".to_owned(), verified.into());
            serde_json::to_string_pretty(&object).unwrap_or_default() + "\n"
        }
        _ => json,
    }
}

/// Returns the processor features that a variant needs, and how much its outputs differ from those of the model.
fn describe_variant(variant: &Variant) -> String {
    let compiled = variant.compiled.as_ref().map(|compiled| compiled.made_for.clone());
    let mut text = match (variant.ahead, variant.is_packed()) {
        _ if compiled.is_some() => compiled.unwrap_or_default(),
        (true, _) => variant.features.join(" "),
        (false, true) => "portable, packed".to_owned(),
        (false, false) => "portable".to_owned(),
    };
    let Some(check) = &variant.check else { return text };
    match (&check.largest_difference, &check.not_compared) {
        (Some(difference), _) => text.push_str(&format!("; {difference:.0e} from the model")),
        (None, why) => text.push_str(&format!("; not compared: {}", why.as_deref().unwrap_or("?"))),
    }
    if let Some(why) = &check.weights_copied {
        text.push_str(&format!("; weights are copied: {why}"));
    }
    text
}

fn describe(found: &Inspection, verbose: bool) -> String {
    let mut text = String::new();
    let opsets: Vec<String> = found.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
    let packed = if found.packed { " (packed)" } else { "" };
    let lines = [
        ("model", found.path.clone().unwrap_or_default()),
        ("format", format!("{}{packed}, IR version {}, {}", name(&found.format), found.ir_version, opsets.join(", "))),
        ("task", task(found)),
        ("made by", found.producer.clone()),
        ("size", bytes(found.bytes)),
        ("parameters", found.parameters.to_string()),
        ("nodes", format!("{}, {} subgraphs, {} functions", found.nodes, found.subgraphs, found.functions)),
    ];
    for (label, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{label:<11} {value}");
    }
    text.push('\n');
    let mut weights = Table::default();
    weights.row(&["weights", "tensors", "elements", "size"]);
    for (dtype, w) in &found.weights {
        weights.row(&[dtype, &w.tensors.to_string(), &w.elements.to_string(), &bytes(w.bytes)]);
    }
    text.push_str(&weights.render());
    text.push('\n');
    let modules: Vec<String> = found.modules.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if !modules.is_empty() {
        let _ = writeln!(text, "modules     {}", modules.join(", "));
    }
    let mut operators: Vec<_> = found.operators.iter().collect();
    operators.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let shown = if verbose { operators.len() } else { 12 };
    let listed: Vec<String> = operators.iter().take(shown).map(|(op, count)| format!("{count} {op}")).collect();
    let more = operators.len().saturating_sub(shown);
    let rest = if more > 0 { format!(", and {more} more kinds (-v lists them)") } else { String::new() };
    let _ = writeln!(text, "operators   {}{rest}", listed.join(", "));
    text
}

/// Returns the name of an enum value in JSON.
fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn task(found: &Inspection) -> String {
    let mut parts = vec![name(&found.task)];
    parts.extend(found.architecture.clone());
    parts.extend(found.context_length.map(|length| format!("context of {length} tokens")));
    parts.extend(found.tokenizer.then(|| "tokenizer".to_owned()));
    parts.extend(found.chat_template.then(|| "chat template".to_owned()));
    parts.join(", ")
}
