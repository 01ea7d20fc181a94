//! The subcommand `optimize quantize`, which stores the weights of a model in fewer bits.

use crate::benchmark::{AfterTechnique, Inputs};
use crate::common::{self, Machine, Output, Page, Target};
use crate::read::CalibrationData;
use crate::signals::Running;
use crate::table;
use crate::technique::{Made, Storage, external_data};
use clap::Args;
use optimize::calibrate::Calibration;
use optimize::error::Result;
use optimize::model::Model;
use optimize::quantize::{
    Algorithm, BitsOverride, CalibrationMethod, QuantizeOptions, QuantizeType, ReduceRange, ScaleType, quantize,
    quantize_with,
};
use optimize::report::Report;
use optimize::shapes::{parse_shape, parse_values};
use optimize::verify::Kept;
use std::path::PathBuf;

/// Arguments of `quantize`.
#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx or .gguf file, a checkpoint or exported folder, a package, or the manifest of an ensemble
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Path of the result: FILE.onnx, or a folder for model, tokenizer and configuration
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Kind of quantization
    #[arg(long = "type", value_enum, default_value = "dynamic")]
    quantize_type: QuantizeType,
    /// Bits per weight: 8, 4 or 2 [default: 8; 4 for weight-only]
    #[arg(long)]
    bits: Option<u32>,
    /// Weight-only: number of elements of a row that share a scale: 16, 32, 64, 128 or 256 [default: 32]
    #[arg(long, value_name = "N")]
    block_size: Option<usize>,
    /// Weight-only: other bits (and block size N) for matching nodes or weights; repeat for several
    #[arg(long = "override", value_name = "GLOB=BITS[/N]")]
    overrides: Vec<BitsOverride>,
    /// Weight-only: quantize symmetrically, without zero points
    #[arg(long)]
    symmetric: bool,
    /// Weight-only: type of the stored scales
    #[arg(long, value_enum, default_value = "uint8")]
    scale_type: ScaleType,
    /// Weight-only: 4 rounds activations to 8 bits, which is faster; 1 keeps them float
    #[arg(long, value_name = "N", default_value_t = 4)]
    accuracy_level: u32,
    /// Calibration data: a text (- reads standard input), or a .safetensors file with one tensor per input (first
    /// dimension: samples). Static: determines the ranges of activations. Weight-only: selects GPTQ, which keeps the
    /// outputs of layers on this data close to the original ones
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Number of windows of the calibration text
    #[arg(long, value_name = "N", default_value_t = 16)]
    calibration_windows: usize,
    /// Number of tokens per window [default: 512, or the limit of the model if it is less]
    #[arg(long, value_name = "N")]
    calibration_length: Option<usize>,
    /// Weight-only: algorithm that chooses the codes of weights
    #[arg(long, value_enum, default_value = "auto")]
    algorithm: Algorithm,
    /// Static: how the range of an activation is determined from the calibration data
    #[arg(long, value_enum, default_value = "min-max")]
    calibration_method: CalibrationMethod,
    /// Static: percentage of the values that --calibration-method percentile keeps
    #[arg(long, value_name = "PER CENT", default_value_t = 99.99)]
    percentile: f64,
    /// Static and dynamic: alpha of SmoothQuant, from 0 to 1, which moves outliers of activations into the weights;
    /// measured on --calibration or, for dynamic with a tokenizer, on built-in sentences
    #[arg(long, value_name = "ALPHA", default_value_t = 0.0)]
    smooth_quant: f64,
    /// Maximum loss of quality: KL divergence in nats for logits, otherwise 1 - cosine; the most sensitive nodes stay
    /// float
    #[arg(long, value_name = "LOSS")]
    max_quality_loss: Option<f64>,
    /// Maximum size of the result: bytes, 20MB, or 20% of the original; the bits of each weight are chosen for it,
    /// from --bits up
    #[arg(long, value_name = "SIZE")]
    target_size: Option<Size>,
    /// Compare the speed with products or tables of one shape (static: nodes of one operator) in float, and keep those
    /// float that are slower quantized; exit code 3 if a static result is still slower than the model
    #[arg(long)]
    never_slower: bool,
    /// Static and dynamic: whether 8-bit weights use only 7 bits, as x86 processors without VNNI require
    #[arg(long, value_enum, default_value = "auto")]
    reduce_range: ReduceRange,
    /// Use one scale per weight instead of one per output channel
    #[arg(long)]
    per_tensor: bool,
    /// Keep embedding tables float
    #[arg(long)]
    keep_embeddings: bool,
    /// Glob of nodes or weights to quantize, while all others stay float; repeat for several
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Glob of nodes or weights to leave unchanged; repeat for several
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Leave weights with fewer elements unchanged
    #[arg(long, value_name = "N", default_value_t = 1024)]
    min_elements: u64,
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

/// A size in bytes, or as a share of the original.
#[derive(Clone, Copy)]
pub enum Size {
    /// An absolute size in bytes.
    Bytes(u64),
    /// A share of the original size, between 0 and 1.
    Share(f64),
}

impl Size {
    /// Returns the size in bytes for a model.
    pub fn of(self, model: &Model) -> u64 {
        match self {
            Size::Bytes(bytes) => bytes,
            Size::Share(share) => (model.bytes() as f64 * share) as u64,
        }
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Size, String> {
        let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = (text[..split].parse::<f64>(), text[split..].trim());
        let factor = match unit {
            "%" => 0.01,
            "" | "B" => 1.0,
            "kB" | "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(format!("{unit:?} is not a unit; units are %, B, kB, MB, GB, KiB, MiB, GiB")),
        };
        match number {
            Ok(number) if number > 0.0 && unit == "%" => Ok(Size::Share(number * factor)),
            Ok(number) if number > 0.0 => Ok(Size::Bytes((number * factor) as u64)),
            _ => Err("not a size: a size is a number above 0 and a unit".to_owned()),
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let calibration = arguments.calibration.as_deref().map(CalibrationData::open).transpose()?;
    let report = common::with_bar(&arguments.reporting, |bar| {
        let model = common::load(&arguments.model, bar)?;
        let _running = Running::begin();
        let target = Target::prepare(&arguments.output)?;
        let options = options(arguments, &model, &target);
        let (result, mut report) = match &calibration {
            None if options.needs_runtime() => {
                let runtime = arguments.machine.runtime()?;
                let inputs = &arguments.inputs;
                let shapes = inputs.shapes.iter().map(|s| parse_shape(s)).collect::<Result<Vec<_>>>()?;
                let values = inputs.values.iter().map(|v| parse_values(v)).collect::<Result<Vec<_>>>()?;
                let generated = Calibration::Generated { shapes: &shapes, values: &values };
                bar.call(|call| quantize_with(runtime, &model, &options, Some(&generated), call))?
            }
            None => bar.call(|call| quantize(&model, &options, call))?,
            Some(data) => {
                let windows = (arguments.calibration_windows, arguments.calibration_length.unwrap_or(0));
                let runtime = arguments.machine.runtime()?;
                data.with(windows, &model, |calibration| {
                    bar.call(|call| quantize_with(runtime, &model, &options, Some(calibration), call))
                })?
            }
        };
        let made = Made {
            original: &model,
            result: &result,
            target: &target,
            storage: Storage::Onnx(external_data(arguments.external_data)),
            calibration: calibration.as_ref(),
            after: &arguments.after,
            inputs: &arguments.inputs,
            machine: &arguments.machine,
            output: &arguments.reporting,
        };
        let kept = (options.quantize_type != QuantizeType::Static).then_some(Kept::Rounded);
        made.finish(kept, &mut report, bar)?;
        Ok(report)
    })?;
    arguments.page.write(&report)?;
    show(arguments, &report)
}

fn options(arguments: &Arguments, model: &Model, target: &Target) -> QuantizeOptions {
    // `--type dynamic --bits 4` means `--type weight-only --bits 4`, whose products round activations in each run, unless
    // `--accuracy-level` selects otherwise.
    let quantize_type = match arguments.quantize_type {
        QuantizeType::Dynamic if arguments.bits == Some(4) => QuantizeType::WeightOnly,
        given => given,
    };
    let weight_only = quantize_type == QuantizeType::WeightOnly;
    QuantizeOptions {
        quantize_type,
        bits: arguments.bits.unwrap_or(if weight_only { 4 } else { 8 }),
        block_size: arguments.block_size.unwrap_or(0),
        overrides: arguments.overrides.clone(),
        symmetric: arguments.symmetric,
        scale_type: arguments.scale_type,
        accuracy_level: arguments.accuracy_level,
        algorithm: arguments.algorithm,
        calibration_method: arguments.calibration_method,
        percentile: arguments.percentile,
        smooth_quant: arguments.smooth_quant,
        max_quality_loss: arguments.max_quality_loss.unwrap_or(0.0),
        target_size: arguments.target_size.map_or(0, |size| size.of(model)),
        never_slower: arguments.never_slower,
        per_channel: !arguments.per_tensor,
        reduce_range: arguments.reduce_range,
        embeddings: !arguments.keep_embeddings,
        include: arguments.include.clone(),
        exclude: arguments.exclude.clone(),
        min_elements: arguments.min_elements,
        race: !arguments.after.measures(&arguments.reporting),
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
        let line = |n: &optimize::report::NodeReport| {
            let cost = n.sensitivity.map_or(String::new(), |loss| format!("; loss of this node alone {loss:.2e}"));
            format!("{:<11} {:<8} {}  ({}{cost})\n", n.action, n.op, n.name, n.reason)
        };
        common::print(&report.nodes.iter().map(line).collect::<String>())?;
    }
    let (quantized, left) = (&report.summary["nodes_quantized"], &report.summary["nodes_left"]);
    let path = report.output.as_ref().and_then(|o| o.path.clone()).unwrap_or_default();
    let seconds = report.seconds;
    let stored = ["stored int8", "stored int4"].map(|action| {
        let count = report.nodes.iter().filter(|node| node.action == action).count();
        if count > 0 { format!(", {count} {action}") } else { String::new() }
    });
    let stored = stored.concat();
    common::print(&format!("{path}: {quantized} nodes quantized{stored}, {left} left, in {seconds:.2} s\n\n"))?;
    let bytes = |identity: &Option<optimize::files::digest::FileIdentity>| identity.as_ref().map_or(0, |i| i.bytes);
    common::print(&table::comparison(report, bytes(&report.input), bytes(&report.output)))
}
