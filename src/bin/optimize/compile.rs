//! The subcommand `optimize compile`, which writes a package.

use crate::common::{self, Machine, Output};
use crate::read;
use crate::table::bytes;
use clap::Args;
use optimize::error::{Context, Result, bail};
use optimize::package::{CompileOptions, OpenOptions, Package, codegen, compile, shapes, triton, verify};
use optimize::shapes::parse_shape;
use std::path::{Path, PathBuf};

/// Arguments of `compile`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, or the manifest of an ensemble
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// The package to write: a folder, or with --single-file a file
    #[arg(short, long, value_name = "PACKAGE")]
    output: PathBuf,
    /// Give a range to every dynamic dimension of the model; the first dimension of an input is the batch
    #[arg(long)]
    dynamic: bool,
    /// Minimum batch size
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch_min: i64,
    /// Maximum batch size
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch_max: i64,
    /// Ranges of dimensions, as JSON or a file that contains it: {"x": {"0": {"name": "batch", "min": 1, "max": 8}}}
    #[arg(long, value_name = "JSON")]
    dynamic_shapes: Option<String>,
    /// Fixed shape of an input without --dynamic, as NAME:1x128; repeat for several [default: sizes chosen by the
    /// names and positions of dynamic dimensions]
    #[arg(long, alias = "shape", value_name = "SHAPE")]
    shapes: Vec<String>,
    /// Precisions of the variants, in order of preference: fp32 (the model as given), bf16 (the model as given, with
    /// matrix products in bfloat16), int8, int4
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "fp32")]
    variants: Vec<String>,
    /// Leave out graphs that are optimized for this processor
    #[arg(long)]
    portable_only: bool,
    /// Store weights packed, with one bit per zero; opening the package unpacks them
    #[arg(long)]
    packed: bool,
    /// A TensorRT engine of the model to add as a variant (X.engine, with its manifest next to it)
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Write one file instead of a folder
    #[arg(long)]
    single_file: bool,
    /// Licence of the model, which the manifest records
    #[arg(long, value_name = "NAME")]
    licence: Option<String>,
    /// A report of a step that led to this model, to record it in the manifest; repeat for several, oldest first
    #[arg(long, alias = "step", value_name = "FILE")]
    lineage: Vec<PathBuf>,
    /// File with the secret ed25519 key that signs the package: 64 hexadecimal digits
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Write a program in this language that opens and runs the package
    #[arg(long, value_name = "LANGUAGE", requires = "codegen_output")]
    codegen: Option<codegen::Language>,
    /// Folder for the program
    #[arg(long, value_name = "FOLDER")]
    codegen_output: Option<PathBuf>,
    /// Folder of a model repository of Triton Inference Server to which the model is added
    #[arg(long, value_name = "FOLDER")]
    triton: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    out: Output,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let options = options(arguments)?;
    let (saved, of_model) = common::with_bar(&arguments.out, |bar| {
        let model = common::load(&arguments.model, bar)?;
        let runtime = arguments.machine.runtime()?;
        let saved = bar.call(|call| compile(runtime, &model, &arguments.output, &options, call))?;
        let package = Package::open(&arguments.output, &OpenOptions::default())?;
        if let (Some(language), Some(folder)) = (arguments.codegen, &arguments.codegen_output) {
            codegen::write(&package, language, folder)?;
        }
        if let Some(repository) = &arguments.triton {
            bar.call(|call| triton::export(&package, repository, &name_of(&arguments.output), call))?;
        }
        Ok((saved, model.bytes()))
    })?;
    for warning in saved.warnings.iter().filter(|_| !arguments.out.quiet) {
        eprintln!("optimize: warning: {warning}");
    }
    if arguments.out.json {
        return common::print(&saved.to_json());
    }
    if arguments.out.quiet {
        return Ok(());
    }
    let total: u64 = saved.files.iter().map(|f| f.bytes).sum();
    let times = total as f64 / of_model.max(1) as f64;
    let why = match arguments.portable_only {
        false => "; the variants for this processor repeat a part of the model; --portable-only leaves them out",
        true => "",
    };
    let times =
        if times > MUCH && total > SMALL { format!(" ({times:.1} times the model{why})") } else { String::new() };
    common::print(&format!("{}  {} in {} files{times}\n", arguments.output.display(), bytes(total), saved.files.len()))
}

/// The size of a package relative to the model above which this ratio is printed.
const MUCH: f64 = 1.2;
/// The size of a package in bytes below which its manifest dominates.
const SMALL: u64 = 256 << 10;

fn options(arguments: &Arguments) -> Result<CompileOptions> {
    let asked = match arguments.dynamic_shapes.as_deref() {
        None => shapes::Asked::new(),
        Some(json) if json.trim_start().starts_with('{') => shapes::parse(json)?,
        Some(file) => shapes::parse(&read::text(Path::new(file))?).at(|| file)?,
    };
    let lineage = arguments.lineage.iter().map(|file| {
        let text = read::text(file)?;
        match serde_json::from_str(&text) {
            Ok(report) => Ok(report),
            Err(e) => bail!(InvalidArgument, "{}: the file is not a report: {e}", file.display()),
        }
    });
    let key = match &arguments.sign {
        None => None,
        Some(file) => Some(verify::from_hex(&read::text(file)?).at(|| file.display())?),
    };
    Ok(CompileOptions {
        dynamic: arguments.dynamic,
        batch_min: arguments.batch_min,
        batch_max: arguments.batch_max,
        shapes: asked,
        example: arguments.shapes.iter().map(|text| parse_shape(text)).collect::<Result<_>>()?,
        variants: arguments.variants.clone(),
        portable_only: arguments.portable_only,
        packed: arguments.packed,
        engine: arguments.engine.clone(),
        single_file: arguments.single_file,
        key,
        licence: arguments.licence.clone(),
        lineage: lineage.collect::<Result<_>>()?,
    })
}

/// Returns the name of the package without its extension.
fn name_of(output: &Path) -> String {
    output.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
