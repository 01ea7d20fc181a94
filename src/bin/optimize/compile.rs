//! `optimize compile`: a package for programs that run a model. `optimize verify`: whether it is what it was.

use crate::common::{self, Output};
use crate::table::Table;
use clap::Args;
use optimize::call::Call;
use optimize::error::Result;
use optimize::package::{CompileOptions, DynamicShapes, Size, compile, manifest::Manifest, verify};
use optimize::shapes::parse_shape;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `compile`.
#[derive(Args)]
pub struct Arguments {
    /// The model
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// The package: a folder, which appears when it is complete
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// Inputs keep the sizes that the model leaves open; else they have those of an example
    #[arg(long)]
    dynamic: bool,
    /// The fewest rows of a batch
    #[arg(long, value_name = "N", requires = "dynamic")]
    batch_min: Option<i64>,
    /// The most rows of a batch
    #[arg(long, value_name = "N", requires = "dynamic")]
    batch_max: Option<i64>,
    /// Ranges of dimensions, as {"input_ids": {"0": {"name": "batch", "min": 1, "max": 64}}}, or a file with that
    #[arg(long, value_name = "JSON|FILE")]
    dynamic_shapes: Option<String>,
    /// A shape of the example, NAME:1x128; repeat for several inputs
    #[arg(long, value_name = "NAME:SHAPE")]
    example: Vec<String>,
    #[command(flatten)]
    report: Output,
}

/// Arguments of `verify`.
#[derive(Args)]
pub struct VerifyArguments {
    /// The package
    #[arg(long, value_name = "FOLDER")]
    package: PathBuf,
    #[command(flatten)]
    report: Output,
}

/// Runs `compile`.
pub fn run(arguments: &Arguments) -> Result<()> {
    let shapes = match &arguments.dynamic_shapes {
        Some(text) if text.trim_start().starts_with('{') => DynamicShapes::from_json(text)?,
        Some(file) => DynamicShapes::from_json(&common::text_of(file.as_ref())?)?,
        None => DynamicShapes::default(),
    };
    let asked = arguments.batch_min.is_some() || arguments.batch_max.is_some();
    let options = CompileOptions {
        dynamic: arguments.dynamic,
        dynamic_shapes: shapes,
        batch: asked.then_some((arguments.batch_min.unwrap_or(1), arguments.batch_max)),
        example: arguments.example.iter().map(|text| parse_shape(text)).collect::<Result<_>>()?,
    };
    let report = common::with_bar(&arguments.report, |bar| {
        let model = common::load(&arguments.model, bar)?;
        bar.call(|call| compile(&model, &options, &arguments.output, call))
    })?;
    if arguments.report.json {
        return common::print(&report.to_json());
    }
    if arguments.report.quiet {
        return Ok(());
    }
    let manifest = Manifest::read(&arguments.output)?;
    let mut table = Table::default();
    table.row(&["input", "type", "shape"]);
    for input in &manifest.package.contract.inputs {
        let shown = |size: &Size| match size {
            Size::Fixed(size) => size.to_string(),
            Size::Dynamic(range) => {
                let most = range.max.map_or("...".to_owned(), |max| max.to_string());
                format!("{}={}..{most}", if range.name.is_empty() { "?" } else { &range.name }, range.min)
            }
        };
        let dims =
            input.dims.as_ref().map_or("...".to_owned(), |dims| dims.iter().map(shown).collect::<Vec<_>>().join(", "));
        table.row(&[&input.name, &input.dtype, &format!("[{dims}]")]);
    }
    let bytes: u64 = manifest.package.files.iter().map(|entry| entry.bytes).sum();
    let files = manifest.package.files.len();
    common::print(&format!("{}\n{}: {files} files, {bytes} bytes\n", table.render(), arguments.output.display()))
}

/// Runs `verify`.
pub fn run_verify(arguments: &VerifyArguments) -> Result<()> {
    let verified = common::with_bar(&arguments.report, |bar| bar.call(|call: &Call| verify(&arguments.package, call)))?;
    match (arguments.report.json, arguments.report.quiet) {
        (true, _) => common::print(&format!("{}\n", json!(verified))),
        (false, true) => Ok(()),
        (false, false) => common::print(&format!(
            "{}: {} files, {} bytes, all as they were written\n",
            arguments.package.display(),
            verified.files,
            verified.bytes
        )),
    }
}
