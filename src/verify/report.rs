//! The results of verification in a report.

use super::{Examiner, Facts, Kept};
use crate::benchmark::{self, BenchmarkOptions, Pair, QualityReport, Speedup, Subject};
use crate::call::Call;
use crate::error::{Context, Kind, Result, bail};
use crate::inputs::{Batch, InputOptions, Source};
use crate::limits;
use crate::model::Model;
use crate::report::{LEFT, NodeReport, Report, count_reasons};
use crate::runtime::{OptimizationLevel, Runtime, Session, SessionOptions, Tensor};
use crate::text::Tokenizer;
use serde_json::json;

/// The share of the original's size above which a result counts as not smaller.
const AS_LARGE: f64 = 0.95;
/// The relative difference up to which outputs count as near those of the original.
const NEAR: f64 = 0.2;
/// The size in bytes up to which the size of an original leads to no warning.
const SMALL: u64 = 64 << 10;
/// The additional loss of cosine on ONNX Runtime's own kernels above which a warning is added.
const STOCK_LOSS: f64 = 5e-3;
/// The relative difference from the original's outputs above which a warning is added.
const FAR: f64 = 0.5;

/// Checks the result of a technique and records the findings in its report: the result is opened and run (see
/// [`Examiner::examine`]) on the first texts or tensors of `inputs`. Without these, it is run on built-in texts if the
/// original has a tokenizer, and otherwise on generated inputs. If one of the models is larger than
/// [`limits::EXAMINED_BYTES`], nothing is checked; if the original does not run on these inputs, the result is only
/// opened. In both cases, the report gives the reason.
///
/// Fails with [`Kind::Unsupported`] if the result cannot be opened or run although the original can, or if an output
/// has values that are not finite where the original's are. Also fails with `Unsupported` if the outputs with and
/// without ONNX Runtime's optimizers differ by more than rounding explains. If, in the last case, the output at the
/// default level is near that of the original (a relative difference of at most 0.2), the report gets a warning
/// instead. Also fails if the caller ended the call.
pub fn examine(
    runtime: &'static Runtime,
    (original, result): (&Model, &Model),
    threads: usize,
    kept: Kept,
    inputs: &InputOptions,
    report: &mut Report,
    call: &Call,
) -> Result<()> {
    let skip = |report: &mut Report, reason: String| drop(report.summary.insert("not_verified".into(), reason.into()));
    if original.bytes().max(result.bytes()) > limits::EXAMINED_BYTES {
        skip(report, format!("models of more than {} MiB are not run", limits::EXAMINED_BYTES >> 20));
        return Ok(());
    }
    let call = &Call { progress: None, ..*call };
    let (made, on) = sample(original, inputs);
    let made = made.and_then(|batch| {
        let examiner = Examiner::new(runtime, original, &batch, threads, kept, call)?;
        examiner.examine(result, call)
    });
    match made {
        Ok(Ok(facts)) => {
            note(report, facts, on);
            warn_of_size(report, original.bytes(), result.bytes());
            Ok(())
        }
        // At the default optimization level, the outputs are near those of the original, so a warning is enough.
        Ok(Err(fault)) if fault.usual_differs.is_some_and(|differs| differs <= NEAR) => {
            report.warnings.push(fault.text + on);
            Ok(())
        }
        Ok(Err(fault)) => bail!(Unsupported, "{fault}{on}"),
        Err(e) if e.kind().ends_a_call() || e.kind() == Kind::Internal => Err(e),
        Err(e) => {
            skip(report, format!("the original does not run{on}: {e}"));
            opens(runtime, (original, result), threads, call)
        }
    }
}

/// Checks a model that combines the outputs of `members`, and records the findings in its report, like [`examine`] with
/// the model as its own original: no member has its inputs and outputs. If `alike` is true, all members must return
/// outputs of the same shapes.
///
/// Also fails with [`Kind::Unsupported`] if the members run on generated inputs, but the model does not, and with
/// [`Kind::InvalidArgument`] if shapes differ; the message names the member.
pub fn examine_fused(
    runtime: &'static Runtime,
    (members, fused): (&[&Model], &Model),
    threads: usize,
    alike: bool,
    report: &mut Report,
    call: &Call,
) -> Result<()> {
    let inputs = InputOptions::default();
    examine(runtime, (fused, fused), threads, Kept::Exactly, &inputs, report, call)?;
    if fused.bytes() > limits::EXAMINED_BYTES {
        return Ok(());
    }
    let options = SessionOptions { threads, varying_sizes: true, ..SessionOptions::stock() };
    let call = &Call { progress: None, ..*call };
    let run = |member: &Model| {
        let batch = sample(member, &inputs).0?;
        Subject::new(runtime, member, &options, call)?.run(&batch.feed(), call)
    };
    let mut found: Vec<Vec<(String, Tensor)>> = Vec::with_capacity(members.len());
    for member in members {
        match run(member) {
            Ok(outputs) => found.push(outputs),
            Err(e) if e.kind().ends_a_call() => return Err(e),
            Err(_) => return Ok(()),
        }
    }
    if alike && let Some((first, others)) = found.split_first() {
        for (index, outputs) in others.iter().enumerate() {
            same_shapes(first, outputs).at(|| format!("member {}", index + 2))?;
        }
    }
    match report.summary.get("not_verified").and_then(|reason| reason.as_str()) {
        Some(reason) => bail!(Unsupported, "the members run, but not the model that combines them: {reason}"),
        None => Ok(()),
    }
}

/// Checks that outputs of one name, or the only outputs of both models, have equal shapes. Fails with `InvalidArgument`
/// if they do not.
fn same_shapes(first: &[(String, Tensor)], other: &[(String, Tensor)]) -> Result<()> {
    for (name, before) in first {
        let found = match (first, other) {
            ([_], [(name, only)]) => Some((name, only)),
            _ => other.iter().find(|(other, _)| other == name).map(|(name, tensor)| (name, tensor)),
        };
        if let Some((name, after)) = found.filter(|(_, after)| after.shape() != before.shape()) {
            let (is, first) = (after.describe(), before.describe());
            bail!(InvalidArgument, "output {name:?} is {is}, but that of member 1 is {first}");
        }
    }
    Ok(())
}

/// Checks that ONNX Runtime opens the result. Fails with `Unsupported` if the original can be opened, but the result
/// cannot.
fn opens(runtime: &'static Runtime, (original, result): (&Model, &Model), threads: usize, call: &Call) -> Result<()> {
    for optimization_level in [OptimizationLevel::All, OptimizationLevel::Disabled] {
        let options = SessionOptions { threads, optimization_level, ..SessionOptions::stock() };
        match Session::new(runtime, result, &options, call) {
            Err(e) if e.kind().ends_a_call() => return Err(e),
            Err(e) if Session::new(runtime, original, &options, call).is_ok() => {
                bail!(Unsupported, "ONNX Runtime cannot open the result: {}", e.message())
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the inputs on which a result is run, and the end of a sentence that describes them.
fn sample(model: &Model, inputs: &InputOptions) -> (Result<Batch>, &'static str) {
    let tokenizer = match Tokenizer::of(model) {
        Ok(tokenizer) => tokenizer,
        Err(e) => return (Err(e), ""),
    };
    let on = match (inputs.tensors.is_empty(), tokenizer.is_some()) {
        (false, _) => " on the given inputs",
        (true, true) => "",
        (true, false) => " on generated inputs",
    };
    let mut inputs = inputs.clone();
    if tokenizer.is_none() {
        inputs.texts.clear();
    }
    (Source::new(model, tokenizer.as_ref(), &inputs).and_then(|source| source.timing()), on)
}

/// Records facts in a report, and adds a warning if the outputs of a quantized model differ from the original's by more
/// than 50 %. `on` is the end of a sentence that describes the inputs, or empty.
pub fn note(report: &mut Report, facts: Facts, on: &str) {
    report.summary.insert("verified".into(), json!(facts));
    if let Some(differs) = facts.original_differs.filter(|differs| *differs > FAR && report.operation == "quantize") {
        let far = format!("the outputs differ from the original's by {:.0} % (root mean squares){on}", 100.0 * differs);
        report.warnings.push(format!("{far}; max_quality_loss keeps the most sensitive nodes float"));
    }
}

/// Records the closeness of the outputs on ONNX Runtime's own kernels in `quality.stock` of the report, and adds a
/// warning if the loss of cosine there exceeds twice the loss on this library's kernels by more than 0.005.
pub fn note_stock(report: &mut Report, ours: &QualityReport, stock: &QualityReport) {
    let figures = json!({
        "output": stock.output,
        "cosine": stock.cosine,
        "max_abs_error": stock.max_abs_error,
        "top1_agreement": stock.top1_agreement,
        "kl": stock.kl,
        "samples": stock.samples,
    });
    if let Some(quality) = report.quality.as_mut().and_then(|quality| quality.as_object_mut()) {
        quality.insert("stock".to_owned(), figures);
    }
    let non_finite = |quality: &QualityReport| quality.outputs.iter().map(|output| output.non_finite).sum::<u64>();
    if non_finite(stock) > non_finite(ours) {
        report.warnings.push(format!(
            "on ONNX Runtime's own kernels, which use one scale for all rows of an activation, {} values of the outputs \
             are not finite, but {} on this library's kernels; the type weight-only has no such scale",
            non_finite(stock),
            non_finite(ours)
        ));
    } else if let (Some(here), Some(there)) = (ours.cosine, stock.cosine)
        && 1.0 - there > 2.0 * (1.0 - here) + STOCK_LOSS
    {
        report.warnings.push(format!(
            "on ONNX Runtime's own kernels, which use one scale for all rows of an activation, the cosine is {there:.5} \
             instead of {here:.5}; smooth_quant or the type weight-only lose less there"
        ));
    }
}

/// Adds a warning if a quantized result is slower than the original: if the whole interval of its speed-up is below 1.
pub fn warn_of_speed(report: &mut Report, speedup: &Speedup) {
    if report.operation == "quantize" && speedup.high < 1.0 {
        let is_given = report.options.get("never_slower").is_some_and(|given| *given == true);
        let advice = if is_given { "" } else { "; never_slower keeps slower nodes float" };
        let median = speedup.median;
        report.warnings.push(format!("the result is {median:.2} times as fast as the original here{advice}"));
    }
}

/// Adds a warning if a quantized result has more than 95 % of the size of the original, or if a pruned result is larger
/// than the original. Nothing is added for an original of at most 64 KiB.
pub fn warn_of_size(report: &mut Report, before: u64, after: u64) {
    let percent = 100.0 * after as f64 / before.max(1) as f64;
    // Pruning stores a GGUF file as ONNX, whose blocks take more space. Zeros in a file that is not packed take as much
    // space as other weights.
    if report.operation == "prune" && before > SMALL && after > before {
        report.warnings.push(format!("the result has {percent:.0} % of the size of the original"));
    }
    if report.operation == "quantize" && before > SMALL && after as f64 > AS_LARGE * before as f64 {
        let static_type = report.options.get("type").is_some_and(|name| name == "static");
        let why = why_left(&report.nodes, static_type);
        report.warnings.push(format!("the result has {percent:.0} % of the size of the original{why}"));
    }
}

/// Returns the reasons why nodes stay unchanged, as the continuation of a sentence on why the result is not smaller;
/// empty if there are no such nodes.
fn why_left(nodes: &[NodeReport], static_type: bool) -> String {
    let left = || nodes.iter().filter(|node| node.action == LEFT);
    if left().next().is_none() {
        return String::new();
    }
    let convolutions = !static_type && left().any(|node| node.op == "Conv");
    let more = if convolutions { "; static quantization supports Conv too" } else { "" };
    format!("; left are {}{more}", count_reasons(left()))
}

/// Returns the speed-up of the result over the original on `batch`: up to 15 rounds in half a second, but at least
/// five. Fails if a session cannot be created or a run fails.
pub fn race(
    runtime: &'static Runtime,
    (original, result): (&Model, &Model),
    batch: &Batch,
    threads: usize,
    call: &Call,
) -> Result<Speedup> {
    let options = BenchmarkOptions { runs: 15, warmup: 3, max_seconds: 0.5, ..BenchmarkOptions::default() };
    let session = SessionOptions { threads, ..SessionOptions::default() };
    let subject = |model: &Model| Subject::new(runtime, model, &session, call);
    let mut pair = Pair::new(subject(original)?, subject(result)?);
    benchmark::race(&mut pair, batch, &options, &session, call)
}
