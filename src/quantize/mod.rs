//! Quantization: weights of fewer bits, and integer arithmetic where the processor supports it.
//!
//! [`quantize`] and [`quantize_with`] are the entry points. `planner` decides for each node whether and how it is
//! quantized. For dynamic int8, `weights` quantizes the weights and `dynamic` rewrites the graph; for weights in
//! blocks, these are `algorithms` (on calibration data `calibrated`) and `weight_only`; static quantization is in
//! `static_qdq`. Weights for which none of these has an operator are stored in few bits (`stored`), for nodes that
//! compute in float. `prepare` and `scaling` change a model before quantization to reduce the rounding error. The
//! rewriters share `rewrite`. Under a limit on size, loss or speed, `choose` selects the form of each weight (its bits
//! and block size, or float): `trial` measures the loss of each weight alone, `allocate` computes the best selection,
//! and `speed` measures the time. The reasons of these decisions are part of the report.

mod algorithms;
mod allocate;
mod calibrated;
mod choose;
mod decide;
mod dynamic;
mod forecast;
mod logarithm;
mod notes;
mod options;
mod outcome;
mod plan;
mod planner;
mod prepare;
mod rewrite;
mod rows;
mod scaling;
mod speed;
mod static_qdq;
mod stored;
mod trial;
mod weight_only;
mod weights;

pub use algorithms::ScaleType;
pub use forecast::forecast;
pub use options::{Algorithm, BitsOverride, CalibrationMethod, QuantizeOptions, QuantizeType, ReduceRange};

use crate::calibrate::{self, Batch, Calibration, Data};
use crate::call::{Call, Stage, Ticket};
use crate::error::{Result, bail};
use crate::graph::{View, invariants};
use crate::model::Model;
use crate::onnx::proto::ModelProto;
use crate::report::{NodeReport, Report};
use crate::runtime::{Runtime, Stop};
use crate::source::gguf;
use options::BLOCK_SIZE;
use planner::Plan;
use std::time::Instant;

/// Quantizes a model without running it, and returns the result and a report. The original is unchanged; the result is
/// in memory, with its weights in a temporary file.
///
/// Weights for which there is no operator with int8 or block-quantized weights are stored in few bits and converted to
/// float when a session is created: the report says `stored int8` or `stored int4` for their nodes.
///
/// Reports the stage `quantize` in weight bytes. Memory: a few megabytes per thread, for any size of model.
///
/// Fails with `Unsupported` if no node could be quantized (the message counts the reasons), or if the result would not
/// be smaller than the GGUF file that the model was read from. Fails with `InvalidArgument` for invalid options, such
/// as an unsupported number of bits or an option that has no effect with the others, for names that match nothing, and
/// for options that need [`quantize_with`]: static quantization, algorithms that need calibration data,
/// `max_quality_loss`, `target_size`, `never_slower` and `smooth_quant`. Fails with `NotFound` or `Io` if the temporary
/// file cannot be created or written, and with `Cancelled` or `Timeout`.
///
/// Dynamic quantization computes the codes of weights as `q = round(w / s)` with `s = max|w| / 127` (63 instead of 127
/// with a reduced range), symmetric (zero point 0). There is one scale per output channel of a product and per row of
/// an embedding table, or one per weight without `per_channel`. Activations are quantized at run time by ONNX
/// `DynamicQuantizeLinear` (uint8, asymmetric, per tensor).
pub fn quantize(model: &Model, options: &QuantizeOptions, call: &Call) -> Result<(Model, Report)> {
    run(None, None, model, options, call)
}

/// Quantizes a model like [`quantize`], also with the methods that run the model.
///
/// With calibration data, GPTQ or AWQ (see [`Algorithm`]) chooses the codes of weights in blocks that preserve the
/// outputs of the layers on this data. GPTQ codes one layer after the other, each on the outputs of the coded layers
/// before it; the source has the formulas. Both take minutes where [`quantize`] takes seconds, and about twice the
/// memory of the largest layer's activations on all of the data.
///
/// Static quantization requires calibration data, on which the scales of activations are found; the stage `calibrate`
/// comes first, in runs of the model. Memory: 32 activations of a batch. `smooth_quant` uses the data if there is any,
/// otherwise built-in sentences, which need a tokenizer.
///
/// `max_quality_loss` and `target_size` measure the loss of each weight alone (stage `sensitivity`, in weights), on the
/// calibration data, otherwise on built-in sentences or generated inputs, and then choose the bits of each weight (with
/// static quantization, the nodes that stay float). The report has the sensitivities that were measured.
/// [`Calibration::Generated`] sets the generated inputs. If weights or ranges are fitted to the calibration data, the
/// loss is measured on a quarter of its batches that they are not fitted to (if there are at least two batches).
///
/// `never_slower` compares the speed of original and result (stage `speed`, in comparisons).
///
/// Fails like [`quantize`], with `GateNotMet` if no result meets the limits of the options, with `InvalidArgument` or
/// `NotFound` for calibration data that does not fit the model or that the options do not use, and if the model cannot
/// be run.
pub fn quantize_with(
    runtime: &'static Runtime,
    model: &Model,
    options: &QuantizeOptions,
    calibration: Option<&Calibration<'_>>,
    call: &Call,
) -> Result<(Model, Report)> {
    run(Some(runtime), calibration, model, options, call)
}

/// A quantization: the model, the options, and the generated inputs, if there are any.
#[derive(Clone, Copy)]
struct Run<'r> {
    model: &'r Model,
    options: &'r QuantizeOptions,
    call: &'r Call<'r>,
    generated: Generated<'r>,
}

/// The shapes and values of generated inputs.
#[derive(Clone, Copy, Default)]
struct Generated<'g> {
    /// Shapes of inputs by name.
    shapes: &'g [(String, Vec<i64>)],
    /// Values of inputs by name.
    values: &'g [(String, Vec<f64>)],
}

/// The form of the quantized weights. It has no value for static quantization ([`static_qdq`]), which also changes
/// activations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WeightForm {
    /// int8 weights, for activations that are quantized at run time.
    Int8,
    /// Weights in blocks of few bits.
    Blocks,
}

/// The arguments of weight quantization.
struct Work<'w> {
    run: Run<'w>,
    form: WeightForm,
    view: &'w View<'w>,
    /// Plan for which no limit has been considered.
    plan: Plan<'w>,
    pool: rayon::ThreadPool,
    /// Runtime and batches that weights are fitted to, if there are any.
    fit: Option<Fit>,
}

/// The ONNX Runtime and the data to run models on.
struct Fit {
    runtime: &'static Runtime,
    batches: Vec<Batch>,
}

/// The new model, and the report on each node.
type Made = (Model, Vec<NodeReport>);

fn run(
    runtime: Option<&'static Runtime>,
    calibration: Option<&Calibration<'_>>,
    model: &Model,
    options: &QuantizeOptions,
    call: &Call,
) -> Result<(Model, Report)> {
    let start = Instant::now();
    options.check()?;
    let mut report = Report::of_technique("quantize", options, &["type", "bits"]);
    let block_size = if options.block_size == 0 { BLOCK_SIZE } else { options.block_size };
    let options = &QuantizeOptions { block_size, ..options.clone() };
    let (given, generated) = match calibration {
        Some(&Calibration::Generated { shapes, values }) => (None, Generated { shapes, values }),
        other => (other, Generated::default()),
    };
    options.fits_data(given.is_some())?;
    if options.needs_runtime() && runtime.is_none() {
        bail!(InvalidArgument, "max_quality_loss, target_size, never_slower and smooth_quant need ONNX Runtime");
    }
    report.options = serde_json::to_value(options).unwrap_or_default();
    if let Some(calibration) = given {
        calibration.note(&mut report);
    }
    let model = &*invariants::hoisted(model);
    let floats = recoded(model, options)?;
    let source = floats.as_ref().map_or(model, |floats| &floats.model);
    let data = given.map(|calibration| calibrate::batches(source, calibration)).transpose()?;
    if let Some(batches) = &data {
        report.summary.insert("calibration_batches".into(), batches.len().into());
        report.summary.insert("calibration_samples".into(), batches.iter().map(Batch::batch_size).sum::<u64>().into());
    }
    let run = Run { model: source, options, call, generated };
    let (result, nodes) = match (options.quantize_type, runtime, data) {
        (QuantizeType::Static, Some(runtime), Some(batches)) => static_qdq::run(run, runtime, batches, &mut report)?,
        (QuantizeType::Static, ..) => bail!(
            InvalidArgument,
            "static quantization needs calibration data: a text for a text model, otherwise tensors for its inputs"
        ),
        (QuantizeType::Dynamic, runtime, data) => weights_of(WeightForm::Int8, run, runtime, data, &mut report)?,
        (QuantizeType::WeightOnly, runtime, data) => weights_of(WeightForm::Blocks, run, runtime, data, &mut report)?,
    };
    outcome::count(&mut report, &nodes, options, model)?;
    let (before, after) = (model.bytes(), result.bytes());
    outcome::smaller_than_gguf(model, after, options)?;
    report.warnings.extend(floats.and_then(|floats| notes::coded_twice(&floats.bits, options.bits)));
    report.warnings.extend(notes::gone(model, &result));
    report.warnings.extend(notes::not_fitted(&nodes, options, given.is_some()));
    if options.quantize_type == QuantizeType::Static {
        report.warnings.extend(notes::calibrated_with_defaults(model, &result));
    }
    report.sizes(before, after);
    report.nodes = nodes;
    report.finish(start);
    Ok((result, report))
}

/// Quantizes the weights of a model within the requested limits and returns the new graph and the reports on its nodes.
fn weights_of(
    form: WeightForm,
    run: Run<'_>,
    runtime: Option<&'static Runtime>,
    data: Option<Vec<Batch>>,
    report: &mut Report,
) -> Result<Made> {
    let prepared = match runtime {
        Some(runtime) => prepare::prepare(run.model, run.options, runtime, data.as_deref(), run.call)?,
        None => None,
    };
    let run = Run { model: prepared.as_ref().unwrap_or(run.model), ..run };
    let view = &View::new(run.model.proto());
    let plan = planner::plan(view, run.model, run.options)?;
    let pool = crate::threads::pool(run.options.threads)?;
    let mut work = Work { run, form, view, plan, pool, fit: None };
    match runtime {
        Some(runtime) => choose::run(&mut work, runtime, data, report),
        None => work.make(&work.plan),
    }
}

/// Returns the model of a GGUF file with its weights as floats, if it will be quantized to fewer than 8 bits; otherwise
/// `None`. The blocks of the file have other sizes than requested, and ONNX operators need more bytes for them than the
/// file.
fn recoded(model: &Model, options: &QuantizeOptions) -> Result<Option<gguf::Floats>> {
    let fewer = options.quantize_type == QuantizeType::WeightOnly && options.bits < 8;
    if fewer { crate::threads::pool(options.threads)?.install(|| gguf::as_floats(model)) } else { Ok(None) }
}

impl Work<'_> {
    /// Returns the result of a plan. If there is calibration data, weights are fitted to it.
    fn make(&self, plan: &Plan<'_>) -> Result<Made> {
        let Some(Fit { runtime, batches }) = &self.fit else { return self.make_plainly(plan) };
        let (stop, model, options) = (Stop::new()?, self.run.model, self.run.options);
        let data = Data { runtime, batches };
        let fitted = |plan: &Plan<'_>, ticket: &Ticket| {
            calibrated::all(&data.run(options.threads, ticket, &stop), model, plan, options)
        };
        let made = self.drive(plan, fitted)?;
        self.written(plan, made, |plan, made| weight_only::rewrite(model.proto(), plan, &made, options, None))
    }

    /// Returns the result of a plan, with weights that are not fitted to data.
    fn make_plainly(&self, plan: &Plan<'_>) -> Result<Made> {
        let (options, original) = (self.run.options, self.run.model.proto());
        match self.form {
            WeightForm::Int8 => {
                let made = self.drive(plan, |plan, ticket| weights::all(plan, options, ticket))?;
                self.written(plan, made, |plan, made| dynamic::rewrite(original, plan, made, None))
            }
            WeightForm::Blocks => {
                let made = self.drive(plan, |plan, ticket| weight_only::all(plan, options, ticket))?;
                self.written(plan, made, |plan, made| weight_only::rewrite(original, plan, &made, options, None))
            }
        }
    }

    /// Returns the new weights of a plan: the result of `work`, and the outcome of each weight that is stored in few
    /// bits.
    fn drive<T: Send>(
        &self,
        plan: &Plan<'_>,
        work: impl FnOnce(&Plan<'_>, &Ticket) -> Result<T> + Send,
    ) -> Result<(T, Vec<stored::Outcome>)> {
        let (pool, options) = (&self.pool, self.run.options);
        let both = |ticket: &Ticket| Ok((work(plan, ticket)?, stored::all(plan, options, ticket)?));
        self.run.call.drive(Stage::QUANTIZE, plan.weight_bytes(), |ticket| pool.install(|| both(ticket)))
    }

    /// Returns the model with the new weights, and the report on each node.
    fn written<T>(
        &self,
        plan: &Plan<'_>,
        (made, outcomes): (T, Vec<stored::Outcome>),
        rewrite: impl FnOnce(&Plan<'_>, T) -> (ModelProto, Vec<NodeReport>),
    ) -> Result<Made> {
        let plan = &stored::settle(plan, self.view, &outcomes);
        let (mut proto, nodes) = rewrite(plan, made);
        stored::apply(&mut proto, &plan.stored, &outcomes, None);
        Ok((self.run.model.derive(proto), nodes))
    }
}
