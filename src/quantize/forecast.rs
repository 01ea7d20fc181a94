//! Estimates of the size, time and memory of quantization.

use super::allocate::units;
use super::planner::{Change, Form, Plan, QUANTIZED, plan};
use super::rewrite::dead_values;
use super::stored::Stored;
use super::weight_only::{Rows, coding};
use super::{Algorithm, QuantizeOptions, QuantizeType, options::BLOCK_SIZE};
use crate::error::{Result, bail};
use crate::graph::{View, invariants};
use crate::model::{Format, Model};
use crate::onnx::dtype::DataType;
use crate::provider;
use crate::report::{NodeReport, Report, report_of};
use crate::runtime::{Kernels, auto_means_stock};
use std::time::Instant;

/// The approximate size of a node in bytes besides its names.
const NODE_BYTES: u64 = 60;
/// The approximate number of names per node: its own, and those of its inputs and outputs.
const NAMED: u64 = 4;
/// The number of elements that are coded to measure the time.
const SAMPLE: usize = 1 << 18;
/// The memory of the process in bytes that does not depend on the model: code, tables, the graph.
const BASE_BYTES: u64 = 40 << 20;

/// Returns an estimate of the report of [`super::quantize`]: the nodes, the bytes, and approximately the time and the
/// memory (resident, without pages of files). `seconds` in the summary is extrapolated from a part of the largest
/// weight, which is coded. Weights of at most a million elements that would be stored in few bits for nodes that
/// compute in float are coded to learn their bits. `kernels` in the summary names the class of this library's kernels
/// on which sessions run the quantized products on this machine, or is `stock`. Limits of loss, size and speed are
/// ignored, and so is calibration.
///
/// Fails with `InvalidArgument` for static quantization, whose selection of nodes depends on data, and otherwise like
/// [`super::quantize`], except that options that need calibration data or ONNX Runtime are valid.
pub fn forecast(model: &Model, options: &QuantizeOptions) -> Result<Report> {
    let start = Instant::now();
    options.check()?;
    if options.quantize_type == QuantizeType::Static {
        bail!(
            InvalidArgument,
            "static quantization cannot be estimated: which nodes it quantizes depends on the calibration data"
        );
    }
    options.fits_data(matches!(options.algorithm, Algorithm::Gptq | Algorithm::Awq))?;
    let block_size = if options.block_size == 0 { BLOCK_SIZE } else { options.block_size };
    let options = &QuantizeOptions { block_size, ..options.clone() };
    let model = &*invariants::hoisted(model);
    let floats = super::recoded(model, options)?;
    let ready = floats.as_ref().map_or(model, |floats| &floats.model);
    let view = View::new(ready.proto());
    let plan = super::stored::expect(&plan(&view, ready, options)?, &view, options)?;
    let nodes = nodes(&view, &plan, options);
    let mut report = Report::new("plan", serde_json::to_value(options).unwrap_or_default());
    super::outcome::count(&mut report, &nodes, options, model)?;
    let done = vec![true; plan.weights.len()];
    let dead = dead_values(&view, &plan.changes, &done);
    let is_unused = |weight: usize| {
        let of = plan.changes.iter().find(|c| c.weight == weight).map(|c| (c.constant.owner, c.constant.name));
        of.is_some_and(|(owner, name)| dead.get(&owner).is_some_and(|names| names.contains(name)))
    };
    // The ONNX operators need more bytes for the same blocks than a GGUF file.
    let base = if model.card().format == Format::Gguf { ready.onnx_bytes() } else { ready.bytes() };
    let mut bytes = base + plan.changes.iter().map(|change| node_bytes(&view, change)).sum::<u64>();
    for unit in units(&plan, options) {
        bytes += unit.candidates[0].bytes;
        let is_dropped = unit.weights.first().is_none_or(|weight| is_unused(*weight));
        let float = unit.candidates.last().filter(|_| is_dropped).map_or(0, |c| c.bytes);
        bytes = bytes.saturating_sub(float);
    }
    super::outcome::smaller_than_gguf(model, bytes, options)?;
    let threads = if options.threads == 0 { report.machine.threads } else { options.threads };
    report.sizes(model.bytes(), bytes);
    report.summary.insert("memory_bytes".into(), (BASE_BYTES + threads as u64 * worker_bytes(&plan, options)).into());
    report
        .summary
        .insert("seconds".into(), ((seconds(&plan, options) + stored_seconds(&plan)) / threads as f64).into());
    report.summary.insert("kernels".into(), kernels(options).into());
    report.nodes = nodes;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Returns the name of the kernels that run the quantized products on this machine: the class of this library's
/// kernels, or `stock`.
fn kernels(options: &QuantizeOptions) -> &'static str {
    let blocks = options.quantize_type == QuantizeType::WeightOnly;
    // This library's kernels for blocks require activations that are rounded to 8 bits.
    let serves = !blocks || options.accuracy_level == 4;
    let class = provider::class_for_quantized(blocks).filter(|_| serves && !auto_means_stock());
    class.unwrap_or(Kernels::Stock.name())
}

/// Returns the size of a quantized node beyond its weights, in bytes.
fn node_bytes(view: &View<'_>, change: &Change<'_>) -> u64 {
    let node = view.node(change.body, change.node);
    // If the type is not float32, the activations need casts. The bias of a `Gemm` needs one more node.
    let other = u64::from(change.constant.dtype != DataType::Float32.to_onnx());
    let bias = u64::from(node.is("Gemm") && node.input_at(2).is_some());
    let nodes = match change.form {
        Form::MatMul | Form::Gemm => 5 + bias + (2 + bias) * other,
        Form::ContribMatMul => 1,
        Form::Table => 5 + other,
        Form::BlockMatMul | Form::BlockGemm => 5 + bias + other,
        Form::BlockTable => 3 + other,
    };
    nodes * (NODE_BYTES + NAMED * node.label().len() as u64)
}

/// Returns the expected reports on the nodes of the plan, in the order of the model.
fn nodes(view: &View<'_>, plan: &Plan<'_>, options: &QuantizeOptions) -> Vec<NodeReport> {
    let changed = plan.changes.iter().map(|change| {
        let weight = &plan.weights[change.weight];
        let reason = match options.quantize_type {
            QuantizeType::WeightOnly => {
                let coding = coding(plan, change.weight, weight.bits, options);
                format!("{} bits in blocks of {}", coding.bits, coding.block)
            }
            _ => "int8".to_owned(),
        };
        (change.body, change.node, report_of(view.node(change.body, change.node), QUANTIZED, reason))
    });
    let mut all: Vec<_> = changed.chain(plan.left.iter().cloned()).collect();
    all.sort_by_key(|(body, node, _)| (*body, *node));
    all.into_iter().map(|(_, _, node)| node).collect()
}

/// Returns the memory of one thread in bytes: a piece of a weight as floats, its codes, and search buffers.
fn worker_bytes(plan: &Plan<'_>, options: &QuantizeOptions) -> u64 {
    let widest = plan.weights.iter().map(|weight| Rows::of(weight).columns).max().unwrap_or(0);
    match options.quantize_type {
        QuantizeType::WeightOnly => (super::weight_only::ROWS * widest * 6) as u64,
        _ => (super::weights::PIECE * 5) as u64,
    }
}

/// Returns the processor time in seconds for stored weights: three passes, each as fast as rounding.
fn stored_seconds(plan: &Plan<'_>) -> f64 {
    let elements: u64 = plan.stored.iter().map(Stored::elements).sum();
    if elements == 0 {
        return 0.0;
    }
    let (values, start) = (vec![0.5f32; SAMPLE], Instant::now());
    std::hint::black_box(super::weights::sample(&values, 1 << 9));
    3.0 * start.elapsed().as_secs_f64() * elements as f64 / SAMPLE as f64
}

/// Returns the processor time in seconds for all weights, from the time for a part of the largest.
fn seconds(plan: &Plan<'_>, options: &QuantizeOptions) -> f64 {
    let Some(index) = (0..plan.weights.len()).max_by_key(|index| plan.weights[*index].matrix.elements()) else {
        return 0.0;
    };
    let weight = &plan.weights[index];
    let rows = Rows::of(weight);
    let count = (SAMPLE / rows.columns.max(1)).clamp(1, rows.count.max(1));
    let start = Instant::now();
    let values = rows.read(0, count);
    match options.quantize_type {
        QuantizeType::WeightOnly => {
            let coding = coding(plan, index, weight.bits, options);
            for row in values.chunks(rows.columns) {
                std::hint::black_box(super::algorithms::range::code_row(&coding, row, None));
            }
        }
        _ => drop(std::hint::black_box(super::weights::sample(&values, rows.columns))),
    }
    let elements: usize = plan.weights.iter().map(|weight| weight.matrix.elements()).sum();
    start.elapsed().as_secs_f64() * elements as f64 / (count * rows.columns).max(1) as f64
}
