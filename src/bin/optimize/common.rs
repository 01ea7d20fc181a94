//! The arguments and steps that several commands share.

use crate::progress::{Bar, Form};
use clap::Args;
use optimize::call::Stage;
use optimize::error::{Context, Result};
use optimize::inputs::InputOptions;
use optimize::model::Model;
pub use optimize::recipe::Target;
use optimize::report::Report;
use optimize::runtime::{Execution, Kernels, KvCacheType, Placement, ProviderChoice, Runtime, SessionPrecision};
use optimize::tensorrt::{EngineFile, OpenOptions};
use optimize::text::Tokenizer;
use optimize::verify::{self, Kept};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments for the output of a command.
#[derive(Args)]
pub struct Output {
    /// Print the report as JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Print no warning and no table, and no progress unless --progress json is given
    #[arg(short, long)]
    pub quiet: bool,
    /// Form of the progress on stderr
    #[arg(long, value_enum, default_value_t)]
    pub progress: Form,
    /// Print details, such as what was done to each node
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
}

/// Arguments for reports as HTML pages.
#[derive(Args)]
pub struct Page {
    /// Also write the report as one HTML file with pictures
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Page {
    /// Writes the page, if one is requested.
    pub fn write(&self, report: &Report) -> Result<()> {
        let Some(file) = &self.html else { return Ok(()) };
        let report = serde_json::to_value(report).unwrap_or_default();
        optimize::files::replace(file, optimize::page::of_report(&report)?.as_bytes())
    }
}

/// Arguments for threads and the ONNX Runtime library.
#[derive(Args)]
pub struct Machine {
    /// Number of threads [default: one per physical core in sessions, one per logical processor in techniques]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// Path of the ONNX Runtime library, if it is not found automatically [env: ORT_DYLIB_PATH]
    #[arg(long, value_name = "FILE")]
    pub runtime_library: Option<PathBuf>,
}

/// Arguments for the execution provider and the kernels of sessions.
#[derive(Args)]
pub struct On {
    #[command(flatten)]
    device: Device,
    /// Kernels of sessions on the CPU [env: OPTIMIZE_KERNELS]
    #[arg(long, value_enum, default_value_t)]
    kernels: Kernels,
    /// Precision of matrix products of float32 inputs and weights on the CPU; bf16 and int8 need this library's
    /// kernels
    #[arg(long, value_enum, default_value_t)]
    precision: SessionPrecision,
}

/// Arguments for the KV cache of decoders.
#[derive(Args)]
pub struct KvCache {
    /// Element type of the KV cache of a decoder; bfloat16 takes half the memory and needs this library's kernels
    #[arg(long, value_enum, default_value_t)]
    kv_cache_type: KvCacheType,
}

impl On {
    /// Returns the options that the flags describe.
    pub fn execution(&self) -> Result<Execution> {
        self.with_cache(&KvCache { kv_cache_type: KvCacheType::default() })
    }

    /// Returns the options that the flags describe.
    pub fn with_cache(&self, cache: &KvCache) -> Result<Execution> {
        Ok(Execution {
            kernels: self.kernels,
            precision: self.precision,
            kv_cache_type: cache.kv_cache_type,
            ..self.device.execution()?
        })
    }
}

/// Arguments for the execution provider of sessions.
#[derive(Args)]
pub struct Device {
    /// Execution provider; auto selects the first available of TensorRT (which `distill` cannot use), CUDA and CPU
    #[arg(long, value_name = "auto|cpu|cuda|tensorrt", default_value = "cpu")]
    provider: String,
    /// Index of the device, from 0
    #[arg(long, alias = "device", value_name = "N", default_value_t = 0)]
    device_id: u32,
    /// Folder in which TensorRT engines are cached between calls
    #[arg(long, value_name = "FOLDER")]
    engine_cache: Option<PathBuf>,
}

impl Device {
    /// Returns the options that the flags describe.
    pub fn execution(&self) -> Result<Execution> {
        let absolute = |folder: &PathBuf| std::path::absolute(folder).at(|| folder.display());
        Ok(Execution {
            provider: self.provider.parse()?,
            device_id: self.device_id,
            engine_cache: self.engine_cache.as_ref().map(absolute).transpose()?,
            ..Execution::default()
        })
    }
}

/// Arguments for engine files.
#[derive(Args)]
pub struct Engines {
    /// Trust the source of an engine file (X.engine), or of a model that contains engines (X_ctx.onnx): engines
    /// contain code that TensorRT runs
    #[arg(long, alias = "trust")]
    pub trust_engines: bool,
    /// Folder of TensorRT's libraries for an engine file, if they are not found automatically [env:
    /// OPTIMIZE_TENSORRT_PATH]
    #[arg(long, value_name = "FOLDER")]
    pub tensorrt_library: Option<PathBuf>,
}

impl Engines {
    /// Opens an engine and returns it. Fails with `Mismatch` if `model_sha256` is given and the engine was built from
    /// another model, with `Untrusted` without `--trust-engines`, and otherwise like [`EngineFile::new`].
    pub fn open(&self, path: &Path, device_id: u32, model_sha256: Option<String>) -> Result<EngineFile> {
        let library = self.tensorrt_library.clone();
        let options = OpenOptions { model_sha256, trust: self.trust_engines, library, ..OpenOptions::default() };
        EngineFile::new(path, &options, device_id)
    }
}

/// Prints on stderr on which device and kernels a model runs. Prints nothing with `--quiet`, and for the provider `cpu`
/// only with `--verbose`.
pub fn tell(output: &Output, execution: &Execution, placement: &Placement) {
    if output.quiet || (execution.provider == ProviderChoice::Cpu && !output.verbose) {
        return;
    }
    placement.passed_over.iter().for_each(|reason| eprintln!("optimize: not used: {reason}"));
    let nodes: Vec<String> = placement.nodes.iter().map(|(name, count)| format!("{count} nodes on {name}")).collect();
    let nodes = if nodes.is_empty() { String::new() } else { format!(": {}", nodes.join(", ")) };
    eprintln!("optimize: runs on {}{nodes}", placement.provider.name());
    if placement.groups > 0 {
        eprintln!("optimize: {} groups of nodes on this library's kernels (optimize)", placement.groups);
    }
    if let Some(reason) = &placement.kernels_unused {
        eprintln!("optimize: this library's kernels are not used: {reason}");
    }
}

impl Output {
    /// Returns the progress that the flags `--progress` and `--quiet` select.
    pub fn bar(&self) -> Bar {
        Bar::new(self.progress, self.quiet)
    }

    /// Prints the warnings of a report on stderr, unless `--quiet` is given.
    pub fn warn_of(&self, report: &Report) {
        report.warnings.iter().for_each(|text| self.warn(text));
    }

    /// Prints a warning on stderr, unless `--quiet` is given.
    pub fn warn(&self, text: &str) {
        if !self.quiet {
            eprintln!("optimize: warning: {text}");
        }
    }
}

impl Machine {
    /// Opens ONNX Runtime and returns it.
    pub fn runtime(&self) -> Result<&'static Runtime> {
        Runtime::open(self.runtime_library.as_deref())
    }
}

/// Returns the texts in the list `notes` of a report's summary; none if there is no such list.
pub fn notes(report: &Report) -> impl Iterator<Item = &str> {
    let notes = report.summary.get("notes").and_then(|notes| notes.as_array());
    notes.into_iter().flatten().filter_map(|note| note.as_str())
}

/// Loads the model that a flag names, prints its warnings, and returns it. Fails like [`Model::load`].
pub fn load(path: &Path, bar: &Bar) -> Result<Model> {
    let model = bar.call(|call| {
        call.report(Stage::LOAD, 0, 0)?;
        Model::load(path)
    })?;
    model.card().warnings.iter().for_each(|warning| bar.warn(&format!("{}: {warning}", path.display())));
    Ok(model)
}

/// Returns the tokenizer at `named`, or otherwise that of the model; `None` if the model has none.
pub fn tokenizer(named: Option<&Path>, model: &Model) -> Result<Option<Tokenizer>> {
    match named {
        Some(path) => Ok(Some(Tokenizer::load(path)?)),
        None => Tokenizer::of(model),
    }
}

/// Opens and runs the result of a technique on `inputs` before it is written, and records the findings in its report.
/// `models` are the original and the result. If ONNX Runtime is not found, the report gets the reason in `not_verified`
/// instead.
pub fn examine(
    machine: &Machine,
    models: (&Model, &Model),
    kept: Kept,
    inputs: &InputOptions,
    report: &mut Report,
    bar: &Bar,
) -> Result<()> {
    match machine.runtime() {
        Ok(runtime) => bar.call(|call| verify::examine(runtime, models, machine.threads, kept, inputs, report, call)),
        Err(e) => {
            report.summary.insert("not_verified".into(), e.to_string().into());
            Ok(())
        }
    }
}

/// Prints a text to stdout. A closed pipe (`| head`) ends the process without an error.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.at(|| "standard output"),
    }
}

/// Runs `body` with a progress bar, and returns its result.
pub fn with_bar<T>(output: &Output, body: impl FnOnce(&Bar) -> Result<T>) -> Result<T> {
    let bar = output.bar();
    let outcome = body(&bar);
    bar.finish();
    outcome
}
