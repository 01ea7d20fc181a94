//! Quantization: smaller numbers for weights, and integer arithmetic where the processor has it.
//!
//! [`quantize`] is the way in. `planner` decides node by node. For int8 with activations quantized as they come,
//! `weights` does the arithmetic and `dynamic` rewrites the graph; for weights in blocks `algorithms` and
//! `weight_only` do, and `calibrated` with data. `rewrite` is what the rewriters share. Where a size, a loss or a
//! speed is asked for, `choose` gives each weight its form: by what `trial` measures of each alone (`allocate` is the
//! arithmetic), and by `speed`. Each step notes its reasons for the report.

mod algorithms;
mod allocate;
mod calibrated;
mod choose;
mod dynamic;
mod forecast;
mod options;
mod planner;
mod rewrite;
mod speed;
mod trial;
mod weight_only;
mod weights;

pub use algorithms::ScaleType;
pub use forecast::forecast;
pub use options::{Algorithm, BitsOverride, CalibrationMethod, QuantizeOptions, QuantizeType, ReduceRange};
pub(crate) use planner::QUANTIZED_ALREADY;

use crate::calibrate::{Batch, Calibration};
use crate::call::{Call, Ticket};
use crate::error::{Result, bail, error};
use crate::graph::View;
use crate::model::Model;
use crate::report::{NodeReport, Report, peak_rss_bytes};
use crate::runtime::{Runtime, Stop};
use options::BLOCK_SIZE;
use planner::Plan;
use std::time::Instant;

/// Quantizes a model. The original is not changed; the result is in memory (its weights in scratch room).
///
/// Reports the stage `quantize` in weight bytes. Fails with `Unsupported` if no node could be quantized:
/// the message counts the reasons. Memory: a few megabytes a thread, whatever the size of the model.
///
/// Weights: `q = round(w / s)`, `s = max|w| / 127` per output channel, symmetric (zero point 0).
/// Activations: ONNX `DynamicQuantizeLinear` (uint8, asymmetric, per tensor) at run time.
pub fn quantize(model: &Model, options: &QuantizeOptions, call: &Call) -> Result<(Model, Report)> {
    run(None, model, options, call)
}

/// As [`quantize`], with what only running the model can tell.
///
/// With calibration data, weights in blocks are chosen so that layers give what they gave on it: GPTQ, layer after
/// layer, each for what the coded layers before it give; see the source for the formulas. That takes minutes where
/// [`quantize`] takes seconds, and about twice the memory of the largest layer's activations on all of the data.
///
/// `max_quality_loss` and `target_size` first measure what each weight alone costs (stage `sensitivity`, in weights),
/// on the calibration data or else on built-in sentences or generated inputs, and then choose forms; the report says
/// the sensitivity of each node. With calibration data the loss of the result is measured on a quarter of it that
/// weights are not fitted to. `never_slower` races original and result (stage `speed`, in runs).
pub fn quantize_with(
    runtime: &'static Runtime,
    model: &Model,
    options: &QuantizeOptions,
    calibration: Option<&Calibration<'_>>,
    call: &Call,
) -> Result<(Model, Report)> {
    if calibration.is_some() && options.quantize_type == QuantizeType::Dynamic && options.max_quality_loss == 0.0 {
        bail!(
            InvalidArgument,
            "calibration data is given, but dynamic quantization without max_quality_loss needs none"
        );
    }
    run(Some((runtime, calibration)), model, options, call)
}

/// What quantization works on.
struct Work<'w> {
    model: &'w Model,
    options: &'w QuantizeOptions,
    view: &'w View<'w>,
    pool: rayon::ThreadPool,
    call: &'w Call<'w>,
    /// Data that weights are fitted to.
    fit: Option<(&'static Runtime, Vec<Batch>)>,
}

fn run(
    with: Option<(&'static Runtime, Option<&Calibration<'_>>)>,
    model: &Model,
    options: &QuantizeOptions,
    call: &Call,
) -> Result<(Model, Report)> {
    let start = Instant::now();
    options.check()?;
    let block_size = if options.block_size == 0 { BLOCK_SIZE } else { options.block_size };
    let options = &QuantizeOptions { block_size, ..options.clone() };
    fits_together(options, with.is_some_and(|(_, calibration)| calibration.is_some()))?;
    let measured = options.max_quality_loss > 0.0 || options.target_size > 0 || options.never_slower;
    if measured && with.is_none() {
        bail!(InvalidArgument, "max_quality_loss, target_size and never_slower need ONNX Runtime");
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| error!(Internal, "the worker threads could not be started: {e}"))?;
    let mut work = Work { model, options, view: &View::new(model.proto()), pool, call, fit: None };
    let mut report = Report::new("quantize", serde_json::to_value(options).unwrap_or_default());
    let (result, nodes) = match with {
        Some((runtime, calibration)) => choose::run(&mut work, runtime, calibration, &mut report)?,
        None => work.make(&planner::plan(work.view, model, options)?)?,
    };
    let quantized = nodes.iter().filter(|n| n.action == planner::QUANTIZED).count();
    if quantized == 0 {
        bail!(Unsupported, "no node could be quantized: {}", planner::reasons(&nodes));
    }
    report.summary.insert("nodes_quantized".into(), quantized.into());
    report.summary.insert("nodes_left".into(), (nodes.len() - quantized).into());
    report.summary.insert("bytes_before".into(), model.bytes().into());
    report.summary.insert("bytes_after".into(), result.bytes().into());
    report.nodes = nodes;
    report.seconds = start.elapsed().as_secs_f64();
    report.peak_rss_bytes = peak_rss_bytes();
    Ok((result, report))
}

/// What is asked for must be there, and must be for this type.
fn fits_together(options: &QuantizeOptions, calibrated: bool) -> Result<()> {
    let ranges = options.calibration_method != CalibrationMethod::MinMax || options.smooth_quant > 0.0;
    match (options.quantize_type, options.algorithm) {
        (QuantizeType::Static, _) => bail!(Unsupported, "static quantization is not in this version"),
        _ if ranges => bail!(InvalidArgument, "calibration_method and smooth_quant are for static quantization"),
        (QuantizeType::Dynamic, Algorithm::Auto) => Ok(()),
        (QuantizeType::Dynamic, _) => bail!(InvalidArgument, "an algorithm is for weight-only quantization"),
        (_, Algorithm::Hqq | Algorithm::Awq) => bail!(Unsupported, "this version has the algorithms rtn and gptq"),
        (_, Algorithm::Gptq) if !calibrated => bail!(InvalidArgument, "gptq needs calibration data"),
        (_, Algorithm::Rtn) if calibrated => bail!(InvalidArgument, "rtn takes no calibration data"),
        _ => Ok(()),
    }
}

impl Work<'_> {
    /// Makes what a plan says, weights fitted to data if there is some.
    fn make(&self, plan: &Plan<'_>) -> Result<(Model, Vec<NodeReport>)> {
        let Some((runtime, batches)) = &self.fit else { return self.make_plainly(plan) };
        let (stop, model, options) = (Stop::new()?, self.model, self.options);
        let fitted = |ticket: &Ticket| calibrated::all(runtime, model, plan, options, batches, ticket, &stop);
        let made = self.drive(plan, fitted)?;
        let (proto, nodes) = weight_only::rewrite(self.model.proto(), plan, &made, self.options, None);
        Ok((self.model.derive(proto), nodes))
    }

    /// As [`Work::make`], without data.
    fn make_plainly(&self, plan: &Plan<'_>) -> Result<(Model, Vec<NodeReport>)> {
        let (options, original) = (self.options, self.model.proto());
        let (proto, nodes) = match options.quantize_type {
            QuantizeType::Static => bail!(Unsupported, "static quantization"),
            QuantizeType::Dynamic => {
                let made = self.drive(plan, |ticket| weights::all(plan, options, ticket))?;
                dynamic::rewrite(original, plan, made, None)
            }
            QuantizeType::WeightOnly => {
                let made = self.drive(plan, |ticket| weight_only::all(plan, options, ticket))?;
                weight_only::rewrite(original, plan, &made, options, None)
            }
        };
        Ok((self.model.derive(proto), nodes))
    }

    fn drive<T: Send>(&self, plan: &Plan<'_>, work: impl FnOnce(&Ticket) -> Result<T> + Send) -> Result<T> {
        let pool = &self.pool;
        self.call.drive("quantize", plan.weight_bytes(), |ticket| pool.install(|| work(ticket)))
    }
}
