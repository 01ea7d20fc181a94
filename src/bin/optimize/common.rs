//! Arguments and steps that several commands share.

use crate::progress::Bar;
use clap::Args;
use optimize::error::{Context, Result, bail};
use optimize::model::Model;
use optimize::report::Report;
use optimize::runtime::{Execution, Placement, ProviderChoice, Runtime};
use optimize::source::SideContent;
use optimize::tensorrt::{EngineFile, OpenOptions};
use optimize::text::Tokenizer;
use optimize::verify::{self, Kept};
use std::io::Write;
use std::path::{Path, PathBuf};

/// How a command reports.
#[derive(Args)]
pub struct Output {
    /// Print the report as JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Show no progress, no warning and no table
    #[arg(short, long)]
    pub quiet: bool,
    /// Say more: what was done to each node
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
}

/// Where work is done.
#[derive(Args)]
pub struct Machine {
    /// Threads to use [default: all processors]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// The ONNX Runtime library, if it is not found by itself
    #[arg(long, value_name = "FILE")]
    pub runtime_library: Option<PathBuf>,
}

/// What sessions run on.
#[derive(Args)]
pub struct On {
    /// What to run on: auto is TensorRT, else CUDA, else the processor
    #[arg(long, value_name = "auto|cpu|cuda|tensorrt", default_value = "cpu")]
    provider: String,
    /// Number of the device, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: u32,
    /// Folder in which TensorRT's engines are kept from call to call
    #[arg(long, value_name = "FOLDER")]
    engine_cache: Option<PathBuf>,
}

impl On {
    /// The options that the flags mean.
    pub fn execution(&self) -> Result<Execution> {
        let absolute = |folder: &PathBuf| std::path::absolute(folder).at(|| folder.display());
        Ok(Execution {
            provider: self.provider.parse()?,
            device_id: self.device,
            engine_cache: self.engine_cache.as_ref().map(absolute).transpose()?,
            ..Execution::default()
        })
    }
}

/// How engine files are looked at.
#[derive(Args)]
pub struct Engines {
    /// For an engine file (X.engine), or a model with engines in it (X_ctx.onnx): whoever made it is trusted. It is code
    /// that TensorRT runs
    #[arg(long)]
    pub trust: bool,
    /// For an engine file: the folder of TensorRT's libraries, if they are not found by themselves
    #[arg(long, value_name = "FOLDER")]
    pub tensorrt_library: Option<PathBuf>,
}

impl Engines {
    /// An engine that can be run, of that model if one is given.
    pub fn open(&self, path: &Path, device_id: u32, model_sha256: Option<String>) -> Result<EngineFile> {
        let library = self.tensorrt_library.clone();
        let options = OpenOptions { model_sha256, trust: self.trust, library, ..OpenOptions::default() };
        EngineFile::new(path, &options, device_id)
    }
}

/// Says on stderr where something runs, if the user left that open.
pub fn tell(output: &Output, execution: &Execution, placement: &Placement) {
    if output.quiet || execution.provider == ProviderChoice::Cpu {
        return;
    }
    placement.passed_over.iter().for_each(|reason| eprintln!("optimize: not {reason}"));
    let nodes: Vec<String> = placement.nodes.iter().map(|(name, count)| format!("{count} nodes on {name}")).collect();
    let nodes = if nodes.is_empty() { String::new() } else { format!(": {}", nodes.join(", ")) };
    eprintln!("optimize: runs on {}{nodes}", placement.provider.name());
}

impl Output {
    /// A progress bar on stderr, if a person is there to see it.
    pub fn bar(&self) -> Bar {
        Bar::new(!self.quiet)
    }

    /// Says on stderr what a report warns of.
    pub fn warn_of(&self, report: &Report) {
        report.warnings.iter().for_each(|text| self.warn(text));
    }

    /// Says on stderr what the user may not expect, unless they asked for quiet.
    pub fn warn(&self, text: &str) {
        if !self.quiet {
            eprintln!("optimize: warning: {text}");
        }
    }
}

impl Machine {
    /// ONNX Runtime, opened.
    pub fn runtime(&self) -> Result<&'static Runtime> {
        Runtime::open(self.runtime_library.as_deref())
    }
}

/// What a report says that the user may not expect.
pub fn notes(report: &Report) -> impl Iterator<Item = &str> {
    let notes = report.summary.get("notes").and_then(|notes| notes.as_array());
    notes.into_iter().flatten().filter_map(|note| note.as_str())
}

/// Loads the model that a flag names, and says what the user may not expect of it.
pub fn load(path: &Path, bar: &Bar) -> Result<Model> {
    let model = bar.call(|call| {
        call.report("load", 0, 0)?;
        Model::load(path)
    })?;
    model.card().warnings.iter().for_each(|warning| bar.warn(&format!("{}: {warning}", path.display())));
    Ok(model)
}

/// The tokenizer that was named, or the one that belongs to the model; `None` if there is none.
pub fn tokenizer(named: Option<&Path>, model: &Model) -> Result<Option<Tokenizer>> {
    match named {
        Some(path) => Ok(Some(Tokenizer::load(path)?)),
        None => Tokenizer::of(model),
    }
}

/// Opens and runs what a technique made before it is written, if ONNX Runtime is at hand.
pub fn examine(machine: &Machine, models: (&Model, &Model), kept: Kept, report: &mut Report, bar: &Bar) -> Result<()> {
    match machine.runtime() {
        Ok(runtime) => bar.call(|call| verify::examine(runtime, models, machine.threads, kept, report, call)),
        Err(e) => {
            report.summary.insert("not_verified".into(), e.to_string().into());
            Ok(())
        }
    }
}

/// Prints to stdout; a reader that went away (`| head`) is not an error worth words.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.at(|| "standard output"),
    }
}

/// Where a technique's result goes: `X.onnx` is that file; anything else is a folder for a whole model.
pub struct Target {
    /// The `.onnx` file to write.
    pub file: PathBuf,
    /// The folder, if a folder was asked for.
    pub folder: Option<PathBuf>,
}

impl Target {
    /// Understands `--output`, makes the folder if it has to.
    pub fn prepare(output: &Path) -> Result<Target> {
        Target::prepare_as(output, false)
    }

    /// As [`Target::prepare`]; a packed file is named `X.onnx.packed`, and `X.onnx` will do.
    pub fn prepare_as(output: &Path, packed: bool) -> Result<Target> {
        if output.as_os_str().is_empty() {
            bail!(InvalidArgument, "--output is empty");
        }
        let ends = |end: &str| output.extension().is_some_and(|e| e.eq_ignore_ascii_case(end)) && !output.is_dir();
        let mut with_end = output.as_os_str().to_owned();
        with_end.push(".packed");
        match packed {
            true if ends("packed") => return Ok(Target { file: output.to_owned(), folder: None }),
            true if ends("onnx") => return Ok(Target { file: with_end.into(), folder: None }),
            false if ends("onnx") => return Ok(Target { file: output.to_owned(), folder: None }),
            _ => {}
        }
        if output.is_file() {
            bail!(InvalidArgument, "{}: is a file that does not end in .onnx", output.display());
        }
        std::fs::create_dir_all(output).at(|| output.display())?;
        let name = if packed { "model.onnx.packed" } else { "model.onnx" };
        Ok(Target { file: output.join(name), folder: Some(output.to_owned()) })
    }

    /// The folder for scratch files: beside the result, so that nothing is written elsewhere.
    pub fn scratch(&self) -> PathBuf {
        optimize::files::parent_of(&self.file).to_owned()
    }

    /// Writes tokenizer and configuration files along, if the result is a folder.
    pub fn carry_along(&self, model: &Model) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        for file in &model.card().side_files {
            let to = folder.join(&file.name);
            if let SideContent::Path(from) = &file.content
                && same_file(from, &to)
            {
                continue;
            }
            std::fs::create_dir_all(optimize::files::parent_of(&to)).at(|| to.display())?;
            optimize::files::replace(&to, &file.content.read()?)?;
        }
        Ok(())
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Runs `body` with the bar as its progress.
pub fn with_bar<T>(output: &Output, body: impl FnOnce(&Bar) -> Result<T>) -> Result<T> {
    let bar = output.bar();
    let outcome = body(&bar);
    bar.finish();
    outcome
}

pub fn text_of(file: &Path) -> Result<String> {
    let content = optimize::files::read(file, optimize::limits::TEXT_BYTES as u64)?;
    let text = String::from_utf8(content);
    text.map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e)).at(|| file.display())
}
