//! The subcommand `optimize prune`, which sets weights to zero, or removes neurons, channels, heads and layers.

use crate::benchmark::{AfterTechnique, Inputs};
use crate::common::{self, Machine, Output, Page, Target};
use crate::quantize::Size;
use crate::read::CalibrationData;
use crate::signals::Running;
use crate::table;
use crate::technique::{Made, Storage, external_data};
use clap::Args;
use optimize::error::Result;
use optimize::model::Model;
use optimize::prune::{Importance, Pattern, PruneMethod, PruneOptions, SparsityOverride, prune, prune_calibrated};
use optimize::report::Report;
use optimize::verify::Kept;
use std::path::PathBuf;

/// Arguments of `prune`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, or the manifest of an ensemble
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Path of the result: FILE.onnx, or a folder for model, tokenizer and configuration
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Method that selects the weights or units to prune
    #[arg(long, value_enum, default_value = "magnitude")]
    method: PruneMethod,
    /// Share of the elements of each weight to set to zero (structured: of the units of each group to remove), above
    /// 0 and below 1
    #[arg(
        long,
        required_unless_present_any = ["pattern", "drop_layers", "layers", "target_size", "target_speedup"],
        allow_negative_numbers = true
    )]
    sparsity: Option<f64>,
    /// Keep at most N of M consecutive weights, for example 2:4
    #[arg(long, value_name = "N:M")]
    pattern: Option<Pattern>,
    /// Magnitude and random: use one threshold for all weights instead of one per weight
    #[arg(long)]
    global: bool,
    /// Seed of random choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Names or globs of the modules, weights or nodes to prune, for example query key 'layer.*.mlp.*' [default: all
    /// weights of MatMul, FusedMatMul, Gemm, Conv, ConvTranspose and com.microsoft's Attention; those of LSTM, GRU and
    /// RNN must be named]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    target_modules: Vec<String>,
    /// Another sparsity for matching modules, weights or nodes; repeat for several
    #[arg(long = "override", value_name = "GLOB=SPARSITY")]
    overrides: Vec<SparsityOverride>,
    /// Glob of modules, weights or nodes to leave unchanged; repeat for several
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Also prune embedding tables, and output layers that share such a table
    #[arg(long)]
    embeddings: bool,
    /// Leave weights with fewer elements unchanged
    #[arg(long, value_name = "N", default_value_t = 1024)]
    min_elements: u64,
    /// Calibration data for wanda, sparsegpt and structured pruning (activation, --reconstruct, --drop-layers): a
    /// text (- reads standard input), or a .safetensors file with one tensor per input (first dimension: samples)
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Number of windows of the calibration text [default: 16; 64 with --reconstruct]
    #[arg(long, value_name = "N")]
    calibration_windows: Option<usize>,
    /// Number of tokens per window [default: 512, or the limit of the model if it is less]
    #[arg(long, value_name = "N")]
    calibration_length: Option<usize>,
    /// Structured: how the units (neurons, channels and heads) are ranked
    #[arg(long, value_enum, default_value = "l1")]
    importance: Importance,
    /// Structured: the remaining sizes are multiples of this [default: 16 for image channels and sizes from 256, 8
    /// from 64]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    round_to: usize,
    /// Structured, with --calibration: fit the weights that read the remaining units, to reproduce their original
    /// outputs
    #[arg(long)]
    reconstruct: bool,
    /// Structured: number of layers to remove. These are the least influential layers on the calibration data, or
    /// without data evenly spaced layers of the second half (or of a larger part, if the second half has too few)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    drop_layers: usize,
    /// Structured: indices of the layers to remove
    #[arg(long, value_name = "N", num_args = 1.., conflicts_with = "drop_layers")]
    layers: Vec<usize>,
    /// Structured, instead of --sparsity: prune as little as needed for this size, for example 50%, 20MB or 20000000
    /// (bytes)
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["sparsity", "target_speedup"])]
    target_size: Option<Size>,
    /// Structured, instead of --sparsity: prune as little as needed for this measured speed-up
    #[arg(long, value_name = "RATIO", conflicts_with = "sparsity")]
    target_speedup: Option<f64>,
    /// Store the result packed, with one bit per zero: FILE.onnx.packed, which only this library reads
    #[arg(long, conflicts_with = "external_data")]
    packed: bool,
    /// Store the weights in a file next to the .onnx, regardless of their size
    #[arg(long)]
    external_data: bool,
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

/// The note in the report of a result that is stored packed.
const PACKED: &str = "stored packed: a zero takes one bit; once loaded, the model is as large and as fast as before";

/// The note that is printed after structured pruning without data.
const UNSEEN: &str = "\nNote: units were ranked by their weights alone, which costs most models much of their quality. \
                      Calibration data recovers much of it: --calibration FILE --importance activation \
                      --reconstruct.\n";

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let calibration = arguments.calibration.as_deref().map(CalibrationData::open).transpose()?;
    let report = common::with_bar(&arguments.reporting, |bar| {
        let model = common::load(&arguments.model, bar)?;
        let _running = Running::begin();
        let target = Target::prepare_as(&arguments.output, arguments.packed)?;
        let options = options(arguments, &model, &target);
        if options.target_speedup > 0.0 {
            arguments.machine.runtime()?;
        } else if options.method == PruneMethod::Structured && arguments.machine.runtime_library.is_some() {
            // If ONNX Runtime is available, it infers shapes; without it, only this library's rules do.
            let _ = arguments.machine.runtime();
        }
        let (result, mut report) = match &calibration {
            None => bar.call(|call| prune(&model, &options, call))?,
            Some(data) => {
                let (windows, length) = (arguments.calibration_windows, arguments.calibration_length);
                let windows = (windows.unwrap_or(0), length.unwrap_or(0));
                let runtime = arguments.machine.runtime()?;
                data.with(windows, &model, |calibration| {
                    bar.call(|call| prune_calibrated(runtime, &model, &options, calibration, call))
                })?
            }
        };
        let storage = match arguments.packed {
            true => Storage::Packed,
            false => Storage::Onnx(external_data(arguments.external_data)),
        };
        let made = Made {
            original: &model,
            result: &result,
            target: &target,
            storage,
            calibration: calibration.as_ref(),
            after: &arguments.after,
            inputs: &arguments.inputs,
            machine: &arguments.machine,
            output: &arguments.reporting,
        };
        made.finish(Some(Kept::Exactly), &mut report, bar)?;
        if arguments.packed && report.summary.contains_key("note") {
            report.summary.insert("note".into(), PACKED.into());
        }
        Ok(report)
    })?;
    arguments.page.write(&report)?;
    show(arguments, &report)
}

fn options(arguments: &Arguments, model: &Model, target: &Target) -> PruneOptions {
    let only_layers = arguments.drop_layers > 0 || !arguments.layers.is_empty();
    PruneOptions {
        method: arguments.method,
        sparsity: match (arguments.sparsity, arguments.pattern) {
            (Some(sparsity), _) => sparsity,
            (None, Some(pattern)) => pattern.sparsity(),
            (None, None) if only_layers => 0.0,
            (None, None) => PruneOptions::default().sparsity,
        },
        pattern: arguments.pattern,
        global: arguments.global,
        overrides: arguments.overrides.clone(),
        seed: arguments.seed,
        target_modules: arguments.target_modules.clone(),
        exclude: arguments.exclude.clone(),
        embeddings: arguments.embeddings,
        min_elements: arguments.min_elements,
        importance: arguments.importance,
        round_to: arguments.round_to,
        reconstruct: arguments.reconstruct,
        drop_layers: arguments.drop_layers,
        layers: arguments.layers.clone(),
        target_size: arguments.target_size.map_or(0, |size| size.of(model)),
        target_speedup: arguments.target_speedup.unwrap_or(0.0),
        threads: arguments.machine.threads,
        scratch_folder: Some(target.scratch()),
    }
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
    if reporting.verbose {
        let line =
            |n: &optimize::report::NodeReport| format!("{:<10} {:<8} {}  ({})\n", n.action, n.op, n.name, n.reason);
        common::print(&report.nodes.iter().map(line).collect::<String>())?;
    }
    let path = report.output.as_ref().and_then(|o| o.path.clone()).unwrap_or_default();
    let of = |key: &str| report.summary.get(key).cloned().unwrap_or_default();
    let percent = |key: &str| 100.0 * of(key).as_f64().unwrap_or(0.0);
    if arguments.method == PruneMethod::Structured {
        return show_structured(arguments, report, &path);
    }
    common::print(&format!(
        "{path}: {} nodes pruned, {} left, in {:.2} s: {:.1} % of their weights are zero ({:.1} % requested), \
         {:.1} % of all\n\n",
        of("nodes_pruned"),
        of("nodes_left"),
        report.seconds,
        percent("sparsity"),
        percent("sparsity_asked"),
        percent("sparsity_of_all"),
    ))?;
    common::print(&sizes(report))?;
    match of("note").as_str() {
        Some(note) => common::print(&format!("\nNote: {note}.\n")),
        _ => Ok(()),
    }
}

/// Prints what structured pruning removed.
fn show_structured(arguments: &Arguments, report: &Report, path: &str) -> Result<()> {
    let of = |key: &str| report.summary.get(key).cloned().unwrap_or_default();
    let mut left = Vec::new();
    let mut part = |what: &str, after: &str, before: &str| {
        if !of(after).is_null() {
            left.push(format!("{} of {} {what}", of(after), of(before)));
        }
    };
    part("layers", "layers_after", "layers_before");
    part("units", "units_after", "units_before");
    part("parameters", "parameters_after", "parameters_before");
    part("FLOPs per token or position", "flops_per_position_after", "flops_per_position_before");
    let sparsity = match arguments.target_size.is_some() || arguments.target_speedup.is_some() {
        true => format!(" at sparsity {:.3}", of("sparsity").as_f64().unwrap_or(0.0)),
        false => String::new(),
    };
    common::print(&format!("{path}: {} left{sparsity}, in {:.2} s\n\n", left.join(", "), report.seconds))?;
    if let Some(dropped) = of("layers_dropped").as_array() {
        let list: Vec<String> = dropped.iter().map(|number| number.to_string()).collect();
        common::print(&format!("Removed layers: {}\n\n", list.join(", ")))?;
    }
    common::print(&sizes(report))?;
    let notes = of("notes");
    let notes = notes.as_array().into_iter().flatten().filter_map(|note| note.as_str());
    notes.for_each(|note| arguments.reporting.warn(note));
    let cut = of("units_after").as_u64() < of("units_before").as_u64();
    if cut && arguments.calibration.is_none() {
        common::print(UNSEEN)?;
    }
    Ok(())
}

/// Returns a table of sizes and measurements, before and after.
fn sizes(report: &Report) -> String {
    let bytes = |identity: &Option<optimize::files::digest::FileIdentity>| identity.as_ref().map_or(0, |i| i.bytes);
    table::comparison(report, bytes(&report.input), bytes(&report.output))
}
