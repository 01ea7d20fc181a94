//! `optimize compile`: a package.

use crate::common::{self, Machine, Output};
use crate::table::bytes;
use clap::{Args, ValueEnum};
use optimize::error::{Context, Result, bail};
use optimize::package::{CompileOptions, OpenOptions, Package, codegen, compile, shapes, triton, verify};
use optimize::shapes::parse_shape;
use std::path::{Path, PathBuf};

/// Languages of `--codegen`.
#[derive(Clone, Copy, ValueEnum)]
enum Language {
    C,
    Cpp,
    Go,
    Csharp,
}

/// Arguments of `compile`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx file, a folder that holds one, a checkpoint, a .gguf file or a package
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// The package to write: a folder, or with --single-file a file
    #[arg(long, value_name = "PACKAGE")]
    output: PathBuf,
    /// Take any size where the model does: the first dimension is the batch
    #[arg(long)]
    dynamic: bool,
    /// Least size of the batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch_min: i64,
    /// Largest size of the batch
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch_max: i64,
    /// Ranges of dimensions, as JSON or a file of it: {"x": {"0": {"name": "batch", "min": 1, "max": 8}}}
    #[arg(long, value_name = "JSON")]
    dynamic_shapes: Option<String>,
    /// Sizes of an input where they may not vary: NAME:1x128; repeat for several [default: by the names and places of
    /// what the model leaves open, one size for one name]
    #[arg(long, value_name = "SHAPE")]
    shape: Vec<String>,
    /// Best first: fp32 is the model as it is, int8 and int4 are made of it
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "fp32")]
    variants: Vec<String>,
    /// No graph optimized for the processor here
    #[arg(long)]
    portable_only: bool,
    /// Store the weights packed, so that zeros take next to nothing; opening unpacks them
    #[arg(long)]
    packed: bool,
    /// A TensorRT engine of the model (X.engine, with its manifest beside it), for those who have the device
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// One file, used where it is mapped
    #[arg(long)]
    single_file: bool,
    /// Licence of the model, to be written down
    #[arg(long, value_name = "NAME")]
    licence: Option<String>,
    /// The report of a step that led to this model; repeat for several, oldest first
    #[arg(long, value_name = "FILE")]
    step: Vec<PathBuf>,
    /// Sign with the ed25519 key in this file: 64 hexadecimal digits
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Write a program that opens and runs the package
    #[arg(long, value_name = "LANGUAGE", requires = "codegen_output")]
    codegen: Option<Language>,
    /// Folder for that program
    #[arg(long, value_name = "FOLDER")]
    codegen_output: Option<PathBuf>,
    /// Add the model to this repository of Triton Inference Server
    #[arg(long, value_name = "FOLDER")]
    triton: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
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
            let language = match language {
                Language::C => codegen::Language::C,
                Language::Cpp => codegen::Language::Cpp,
                Language::Go => codegen::Language::Go,
                Language::Csharp => codegen::Language::Csharp,
            };
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
        false => "; what is rearranged for this processor is there twice, and --portable-only leaves it out",
        true => "",
    };
    let times =
        if times > MUCH && total > SMALL { format!(" ({times:.1} times the model{why})") } else { String::new() };
    common::print(&format!("{}  {} in {} files{times}\n", arguments.output.display(), bytes(total), saved.files.len()))
}

/// How many times the model a package may be without a word.
const MUCH: f64 = 1.2;
/// Bytes of a package below which its manifest is most of it.
const SMALL: u64 = 256 << 10;

fn options(arguments: &Arguments) -> Result<CompileOptions> {
    let asked = match arguments.dynamic_shapes.as_deref() {
        None => shapes::Asked::new(),
        Some(json) if json.trim_start().starts_with('{') => shapes::parse(json)?,
        Some(file) => shapes::parse(&common::text_of(Path::new(file))?).at(|| file)?,
    };
    let lineage = arguments.step.iter().map(|file| {
        let text = common::text_of(file)?;
        match serde_json::from_str(&text) {
            Ok(report) => Ok(report),
            Err(e) => bail!(InvalidArgument, "{}: is no report: {e}", file.display()),
        }
    });
    let key = match &arguments.sign {
        None => None,
        Some(file) => Some(verify::from_hex(&common::text_of(file)?).at(|| file.display())?),
    };
    Ok(CompileOptions {
        dynamic: arguments.dynamic,
        batch_min: arguments.batch_min,
        batch_max: arguments.batch_max,
        shapes: asked,
        example: arguments.shape.iter().map(|text| parse_shape(text)).collect::<Result<_>>()?,
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

/// The package's name without its end.
fn name_of(output: &Path) -> String {
    output.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
