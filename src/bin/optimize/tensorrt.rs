//! The subcommand `optimize tensorrt`, which builds a TensorRT engine.

use crate::common::{self, Machine, Output};
use crate::read;
use crate::table::bytes;
use clap::Args;
use optimize::error::{Result, bail};
use optimize::model::Model;
use optimize::open;
use optimize::report::Report;
use optimize::source::{Dialect, LoadOptions};
use optimize::tensorrt::{
    self, Choice, GivenProfile, OpenOptions, Precision, Shapes, TensorRtOptions, parse_dimensions, parse_profiles,
    parse_shapes,
};
use std::path::{Path, PathBuf};

/// Arguments of `tensorrt`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, or the manifest of an ensemble
    #[arg(short, long, visible_alias = "onnx", value_name = "MODEL", required_unless_present = "check")]
    model: Option<PathBuf>,
    /// The engine to write: FILE.engine, or a folder for model.engine; with --graph-only FILE.onnx
    #[arg(short, long, visible_alias = "save-engine", value_name = "PATH", required_unless_present = "check")]
    output: Option<PathBuf>,
    /// Precision of the engine; inputs and outputs keep their types
    #[arg(long, value_enum, default_value = "fp32")]
    precision: Precision,
    /// Batch size, if it is dynamic in the model
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    batch_size: i64,
    /// Sequence length, if it is dynamic in the model
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    sequence_length: i64,
    /// Minimum, optimal and maximum sizes by the name of the dimension, or by batch, sequence and past, for example
    /// batch=1:8:32,sequence=16:128:512
    #[arg(long, value_name = "SIZES", default_value = "", hide_default_value = true)]
    dimensions: String,
    /// Minimum shapes of inputs, for example ids:1x16,mask:1x16
    #[arg(long, value_name = "SHAPES", default_value = "", hide_default_value = true)]
    min_shapes: String,
    /// Optimal shapes of inputs, for which TensorRT tunes the engine
    #[arg(long, visible_alias = "shapes", value_name = "SHAPES", default_value = "", hide_default_value = true)]
    opt_shapes: String,
    /// Maximum shapes of inputs
    #[arg(long, value_name = "SHAPES", default_value = "", hide_default_value = true)]
    max_shapes: String,
    /// Several profiles, as JSON or a file that contains it: [{"ids": {"min": [1, 16], "opt": [1, 64], "max": [1,
    /// 128]}}]
    #[arg(long, value_name = "JSON", conflicts_with_all = ["min_shapes", "opt_shapes", "max_shapes"])]
    profiles: Option<String>,
    /// Library that builds the engine
    #[arg(long, value_enum, default_value = "auto")]
    backend: Choice,
    /// Folder of TensorRT's libraries, if they are not found automatically [env: OPTIMIZE_TENSORRT_PATH]
    #[arg(long, value_name = "FOLDER")]
    tensorrt_library: Option<PathBuf>,
    /// Maximum device memory for TensorRT's workspace, in MiB [default: no limit]
    #[arg(long, visible_alias = "workspace", value_name = "MIB", default_value_t = 0, hide_default_value = true)]
    workspace_size: u64,
    /// Builder optimization level: 0 to 5 [default: that of TensorRT]
    #[arg(long, visible_alias = "builder-optimization-level", value_name = "LEVEL")]
    optimization_level: Option<i32>,
    /// Path of TensorRT's timing cache (TensorRT)
    #[arg(long, visible_alias = "timing-cache-file", value_name = "FILE")]
    timing_cache: Option<PathBuf>,
    /// Build an engine that also runs with later versions of the library
    #[arg(long)]
    version_compatible: bool,
    /// Build an engine that runs on all devices from Ampere on (TensorRT)
    #[arg(long)]
    hardware_compatible: bool,
    /// Strip the weights from the engine
    #[arg(long, visible_alias = "strip-weights")]
    strip: bool,
    /// Allow the weights to be replaced later (refit)
    #[arg(long)]
    refit: bool,
    /// Use weights with a 2:4 pattern as sparse weights
    #[arg(long)]
    sparsity: bool,
    /// Keep detailed information on layers, for profilers
    #[arg(long)]
    detailed: bool,
    /// Disable TensorFloat-32
    #[arg(long)]
    no_tf32: bool,
    /// TensorRT-RTX: compute capability for which to build, for example 89 for 8.9; repeat for several
    #[arg(long, value_name = "NN")]
    compute_capability: Vec<i32>,
    /// Maximum error of an output relative to fp32; nodes stay fp32 until it is met [default: 0.01 for fp16, 0.08 for
    /// bf16, 0.15 for int8 and fp8]
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true)]
    max_error: f64,
    /// Name of a node or operator that stays fp32; repeat for several
    #[arg(long, value_name = "NAME")]
    keep_fp32: Vec<String>,
    /// int8 and fp8: calibration data that determines the scales: a text file (- reads standard input), or tensors
    /// for the inputs (X.safetensors) [default: built-in sentences, or generated numbers]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Only write the graph that TensorRT would receive, as an .onnx file
    #[arg(long)]
    graph_only: bool,
    /// Build the engine even if the existing one matches the options
    #[arg(long)]
    force: bool,
    /// Fail if the existing engine does not match, instead of replacing it
    #[arg(long)]
    refuse_mismatch: bool,
    /// Only check whether this engine can be used on this machine and, with --model, whether it was built from that
    /// model
    #[arg(long, value_name = "ENGINE", conflicts_with_all = ["output", "graph_only"])]
    check: Option<PathBuf>,
    /// With --check: trust the source of the engine, which contains code
    #[arg(long, requires = "check")]
    trust: bool,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    out: Output,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(engine) = &arguments.check {
        return check(arguments, engine);
    }
    let (Some(path), Some(output)) = (&arguments.model, &arguments.output) else {
        bail!(InvalidArgument, "--model and --output are required");
    };
    let options = options(arguments)?;
    let report = common::with_bar(&arguments.out, |bar| {
        let model = load(path)?;
        let runtime = match options.precision {
            // ONNX Runtime only infers shapes here, which few replacements of operators need, so it may be missing.
            Precision::Fp32 if options.backend != Choice::OnnxRuntime => arguments.machine.runtime().ok(),
            _ => Some(arguments.machine.runtime()?),
        };
        if !arguments.graph_only {
            return bar.call(|call| tensorrt::build(runtime, &model, output, &options, call));
        }
        let (graph, mut report) = bar.call(|call| tensorrt::graph(runtime, &model, &options, call))?;
        report.input = Some(bar.call(|call| model.identity(call))?);
        report.output = Some(bar.call(|call| tensorrt::save_graph(&graph, output, call))?);
        Ok(report)
    })?;
    show(arguments, &report)
}

/// Loads the model with operators that TensorRT supports, and returns it.
fn load(path: &Path) -> Result<Model> {
    open::load(path, &LoadOptions { dialect: Dialect::Portable })
}

fn check(arguments: &Arguments, engine: &Path) -> Result<()> {
    let manifest = common::with_bar(&arguments.out, |bar| {
        let model_sha256 = match &arguments.model {
            None => None,
            Some(path) => Some(bar.call(|call| load(path)?.identity(call))?.sha256),
        };
        let options = OpenOptions {
            model_sha256,
            trust: arguments.trust,
            backend: arguments.backend,
            library: arguments.tensorrt_library.clone(),
        };
        tensorrt::open(engine, &options)
    })?;
    match arguments.out.quiet {
        true => Ok(()),
        false => common::print(&manifest.to_json()),
    }
}

fn options(arguments: &Arguments) -> Result<TensorRtOptions> {
    let shapes = |text: &str| -> Result<Shapes> { parse_shapes(text) };
    let one = GivenProfile {
        min: shapes(&arguments.min_shapes)?,
        opt: shapes(&arguments.opt_shapes)?,
        max: shapes(&arguments.max_shapes)?,
    };
    let profiles = match &arguments.profiles {
        None if one == GivenProfile::default() => Vec::new(),
        None => vec![one],
        Some(json) if json.trim_start().starts_with('[') => parse_profiles(json)?,
        Some(file) => parse_profiles(&read::text(Path::new(file))?)?,
    };
    let stream = arguments.calibration.as_deref().filter(|file| read::is_stream(file));
    let calibration_text = stream.map(read::text).transpose()?;
    Ok(TensorRtOptions {
        precision: arguments.precision,
        backend: arguments.backend,
        library: arguments.tensorrt_library.clone(),
        batch_size: arguments.batch_size,
        sequence_length: arguments.sequence_length,
        dimensions: parse_dimensions(&arguments.dimensions)?,
        profiles,
        workspace: arguments.workspace_size.saturating_mul(1 << 20),
        optimization_level: arguments.optimization_level,
        timing_cache: arguments.timing_cache.clone(),
        version_compatible: arguments.version_compatible,
        hardware_compatible: arguments.hardware_compatible,
        strip: arguments.strip,
        refit: arguments.refit,
        sparsity: arguments.sparsity,
        detailed: arguments.detailed,
        no_tf32: arguments.no_tf32,
        compute_capabilities: arguments.compute_capability.clone(),
        max_error: arguments.max_error,
        keep_fp32: arguments.keep_fp32.clone(),
        calibration: arguments.calibration.clone().filter(|_| calibration_text.is_none()),
        calibration_text,
        force: arguments.force,
        refuse_mismatch: arguments.refuse_mismatch,
        threads: arguments.machine.threads,
        by_file: false,
    })
}

fn show(arguments: &Arguments, report: &Report) -> Result<()> {
    let out = &arguments.out;
    if out.json {
        return common::print(&report.to_json());
    }
    if out.quiet {
        return Ok(());
    }
    if out.verbose {
        let line =
            |n: &optimize::report::NodeReport| format!("{:<8} {:<20} {}  ({})\n", n.action, n.op, n.name, n.reason);
        common::print(&report.nodes.iter().map(line).collect::<String>())?;
    }
    let of = |key: &str| report.summary.get(key).cloned().unwrap_or_default();
    let text = |key: &str| of(key).as_str().unwrap_or("").to_owned();
    let size = report.output.as_ref().map_or(0, |o| o.bytes);
    let path = report.output.as_ref().and_then(|o| o.path.clone()).unwrap_or_default();
    let mut lines = format!("{path}  {} ({}), in {:.2} s\n", bytes(size), text("precision"), report.seconds);
    if !arguments.graph_only {
        lines += &format!("{} {}: {}\n", text("backend"), text("backend_version"), text("backend_reason"));
        let done = if of("reused") == true { "reused" } else { "built" };
        lines += &format!("{done}: {}\n", text("reason"));
        lines += &format!("profiles: {}\n", of("profiles"));
    }
    if let Some(relative) = of("error").get("relative").and_then(|e| e.as_f64()) {
        let error = of("error");
        let on = error.get("measured_on").and_then(|m| m.as_str()).unwrap_or("");
        let (low, kept) = (of("nodes_lower_precision"), of("nodes_fp32"));
        lines += &format!("error against fp32: {relative:.2e} (on {on})");
        lines += &if low.is_null() { "\n".to_owned() } else { format!("; {low} nodes lowered, {kept} stay fp32\n") };
    }
    common::print(&lines)
}
