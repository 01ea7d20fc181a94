//! Graphs in int8 and fp8. The activations of products with weights pass through `QuantizeLinear` and
//! `DequantizeLinear`, and the weights are stored quantized, before a `DequantizeLinear`. Quantization is symmetric, as
//! TensorRT requires. A weight has one scale for each output channel, or before opset 13 a single scale. A tensor of
//! activations has a single scale, which is found on calibration data.

use super::casts::{Form, Rewritten};
use super::options::{Precision, TensorRtOptions};
use crate::calibrate::{self, Batch, Calibration, Data, Method, Range};
use crate::call::{Call, Stage};
use crate::error::{Context, Result, bail};
use crate::files::{self, Scratch};
use crate::graph::builder::{Naming, NodeBuilder};
use crate::graph::dead::{Policy, eliminate};
use crate::graph::edit::{Names, float_tensor, int_attribute, tensor};
use crate::graph::floats::floats;
use crate::graph::opset;
use crate::limits;
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto};
use crate::runtime::{Runtime, Stop};
use crate::text::Tokenizer;
use std::collections::HashMap;
use std::path::Path;

/// The largest int8 value that scales map to.
const INT8: f32 = 127.0;
/// The largest float8 (E4M3) value.
const E4M3: f32 = 448.0;

/// The weight of a product, with the axis of its output channels.
pub(super) struct Weighted<'w> {
    /// Weight as stored.
    pub weight: &'w TensorProto,
    /// Axis of the output channels.
    pub axis: usize,
}

/// Returns the weight of a product (`MatMul`, `Gemm` or `Conv`), which is its second operand, or as the inner error the
/// reason why this operand is no weight that can be quantized; `None` for other nodes. `constants` are the float32
/// initializers by name.
pub(super) fn weight_of<'w>(
    node: &NodeProto,
    constants: &HashMap<&'w str, &'w TensorProto>,
) -> Option<std::result::Result<Weighted<'w>, &'static str>> {
    if !matches!(node.op(), "MatMul" | "Gemm" | "Conv") {
        return None;
    }
    let Some(weight) = node.input_at(1).and_then(|name| constants.get(name)) else {
        return Some(Err("its second operand is not a constant float32 weight"));
    };
    let rank = weight.dims.len();
    let axis = match node.op() {
        "Conv" => 0,
        "Gemm" if node.int("transB", 0) != 0 => 0,
        _ if rank == 2 => 1,
        _ => return Some(Err("its weight is not a matrix")),
    };
    Some(Ok(Weighted { weight, axis }))
}

/// Raises the opset of a graph to 19 for fp8. Fails with [`crate::error::Kind::Unsupported`] if the graph cannot be
/// raised, or for int8 if its opset is below 10.
pub(super) fn raise(proto: &mut ModelProto, precision: Precision) -> Result<()> {
    match precision {
        Precision::Fp8 => opset::raise(proto, 19).at(|| "fp8 needs opset 19"),
        _ if opset::version(proto) < 10 => bail!(Unsupported, "int8 needs opset 10; export the model again"),
        _ => Ok(()),
    }
}

/// Returns the methods for finding scales, of which the one with the smallest error is used. Float8 can represent
/// outliers; in int8, a scale for outliers leaves few steps for all other values, so a smaller scale is tried too.
pub(super) fn methods(precision: Precision) -> &'static [Method] {
    if precision == Precision::Fp8 { &[Method::MinMax] } else { &[Method::MinMax, Method::LeastSquares] }
}

/// Returns the magnitudes from which the scales of activations follow, by the name of the activation, and the number of
/// batches. The activations are the inputs of products with weights. The data are those of the options, or built-in
/// sentences or generated numbers. Progress stage: `calibrate`, in runs.
///
/// Fails with [`crate::error::Kind::NotFound`] for a text if the model has no tokenizer, with `InvalidArgument` for a
/// text file that is not UTF-8, and if the data cannot be read or do not fit the model.
pub(super) fn ranges(
    runtime: &'static Runtime,
    model: &Model,
    constants: &HashMap<&str, &TensorProto>,
    options: &TensorRtOptions,
    method: Method,
    call: &Call,
) -> Result<(HashMap<String, f32>, usize)> {
    let mut names: Vec<String> = Vec::new();
    for node in &model.graph().node {
        let Some(name) = node.input_at(0).filter(|_| matches!(weight_of(node, constants), Some(Ok(_)))) else {
            continue;
        };
        if !names.iter().any(|known| known == name) && !constants.contains_key(name) {
            names.push(name.to_owned());
        }
    }
    let batches = match (&options.calibration, &options.calibration_text) {
        (_, Some(text)) => of_text(model, text)?,
        (Some(file), None) => data(model, file).at(|| file.display())?,
        (None, None) => calibrate::without_data(model)?,
    };
    let total = calibrate::runs(model, &names, batches.len(), method);
    let threads = options.threads;
    let found = call.drive(Stage::CALIBRATE, total, |ticket| {
        let stop = Stop::new()?;
        let data = Data { runtime, batches: &batches };
        calibrate::ranges(&data.run(threads, ticket, &stop), model, &names, method)
    })?;
    let most = |range: &Range| range.high.max(-range.low);
    Ok((found.iter().map(|(name, range)| (name.clone(), most(range))).collect(), batches.len()))
}

fn data(model: &Model, file: &Path) -> Result<Vec<Batch>> {
    if file.extension().is_some_and(|extension| extension == "safetensors") {
        return calibrate::batches(model, &Calibration::Tensors(&calibrate::read_tensors(file)?));
    }
    let Ok(text) = String::from_utf8(files::read(file, limits::TEXT_BYTES as u64)?) else {
        bail!(InvalidArgument, "the file is not UTF-8 text; tensors must be in a file X.safetensors");
    };
    of_text(model, &text)
}

fn of_text(model: &Model, text: &str) -> Result<Vec<Batch>> {
    let Some(tokenizer) = Tokenizer::of(model)? else {
        bail!(NotFound, "the model has no tokenizer for the calibration text; tensors must be in a file X.safetensors");
    };
    calibrate::batches(model, &Calibration::Text { text, tokenizer: &tokenizer, windows: 0, length: 0 })
}

/// Returns `original` with quantized inputs and weights of the nodes with [`Form::Short`]. `largest` are the magnitudes
/// of [`ranges`]. Fails if a weight cannot be read, or if its quantized values cannot be written to `scratch`.
pub(super) fn rewrite(
    original: &ModelProto,
    forms: &[Form],
    precision: Precision,
    largest: &HashMap<String, f32>,
    scratch: &Scratch,
) -> Result<Rewritten> {
    let mut proto = original.clone();
    let (names, opset) = (Names::of(original), opset::version(original));
    let per_channel = opset >= 13;
    let Some(graph) = proto.graph.as_deref_mut() else { return Ok(Rewritten { proto, short: HashMap::new() }) };
    let constants = original.graph.iter().flat_map(|graph| graph.initializers()).collect();
    let made = HashMap::new();
    let builder = NodeBuilder::with(names, Naming::Prefix("quantized"), opset);
    let mut writer = Quantizer { precision, per_channel, builder, made, scratch };
    let mut short = HashMap::new();
    for (mut node, form) in std::mem::take(&mut graph.node).into_iter().zip(forms) {
        if let (Form::Short, Some(Ok(Weighted { weight, axis }))) = (form, weight_of(&node, &constants)) {
            let x = node.input[0].clone();
            node.input[0] = writer.activation(&x, largest.get(&x).copied().unwrap_or(0.0));
            node.input[1] = writer.weight(weight, axis)?;
            short.extend(node.output.iter().map(|name| (name.clone(), name.clone())));
        }
        writer.builder.nodes.push(node);
    }
    graph.node = writer.builder.nodes;
    graph.initializer.extend(writer.builder.constants);
    // Float32 weights that no node reads any more are removed.
    eliminate(graph, Policy::Initializers);
    Ok(Rewritten { proto, short })
}

struct Quantizer<'s> {
    precision: Precision,
    per_channel: bool,
    builder: NodeBuilder,
    /// Names of the dequantized values, by original name and channel axis (`None` for activations).
    made: HashMap<(String, Option<usize>), String>,
    scratch: &'s Scratch,
}

impl Quantizer<'_> {
    fn dtype(&self) -> DataType {
        if self.precision == Precision::Fp8 { DataType::Float8E4m3fn } else { DataType::Int8 }
    }

    fn scale_of(&self, most: f32) -> f32 {
        let top = if self.precision == Precision::Fp8 { E4M3 } else { INT8 };
        // A tensor of zeros is the same with any scale.
        if most > 0.0 { most / top } else { 1.0 }
    }

    /// Adds the quantization and dequantization of an activation, and returns the name of the result.
    fn activation(&mut self, name: &str, most: f32) -> String {
        if let Some(known) = self.made.get(&(name.to_owned(), None)) {
            return known.clone();
        }
        let (scale, zero) =
            (self.builder.names.fresh(&format!("{name}/scale")), self.builder.names.fresh(&format!("{name}/zero")));
        self.builder.constants.push(float_tensor(&scale, &[], &[self.scale_of(most)]));
        self.builder.constants.push(tensor(&zero, self.dtype(), &[], vec![0u8].into()));
        let (short, back) =
            (self.builder.names.fresh(&format!("{name}/short")), self.builder.names.fresh(&format!("{name}/back")));
        self.add("QuantizeLinear", &[name, &scale, &zero], &short, None);
        self.add("DequantizeLinear", &[&short, &scale, &zero], &back, None);
        self.made.insert((name.to_owned(), None), back.clone());
        back
    }

    fn weight(&mut self, weight: &TensorProto, axis: usize) -> Result<String> {
        let name = weight.name.clone().unwrap_or_default();
        if let Some(known) = self.made.get(&(name.clone(), Some(axis))) {
            return Ok(known.clone());
        }
        let values = floats(weight)?;
        let channels = if self.per_channel { weight.dims[axis].max(1) as usize } else { 1 };
        let inner: usize = weight.dims[axis + 1..].iter().product::<i64>().max(1) as usize;
        let channel = |index: usize| if channels == 1 { 0 } else { index / inner % channels };
        let mut most = vec![0.0f32; channels];
        for (index, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            let of = &mut most[channel(index)];
            *of = of.max(value.abs());
        }
        let scales: Vec<f32> = most.into_iter().map(|most| self.scale_of(most)).collect();
        let one = |(index, value): (usize, &f32)| {
            let scaled = value / scales[channel(index)];
            if self.precision == Precision::Fp8 {
                e4m3(scaled)
            } else {
                scaled.round_ties_even().clamp(-INT8, INT8) as i8 as u8
            }
        };
        let bytes: Vec<u8> = values.iter().enumerate().map(one).collect();
        let slot = self.scratch.reserve(bytes.len())?;
        slot.write_at(0, &bytes)?;
        let (short, scale) =
            (self.builder.names.fresh(&format!("{name}/short")), self.builder.names.fresh(&format!("{name}/scale")));
        let (zero, back) =
            (self.builder.names.fresh(&format!("{name}/zero")), self.builder.names.fresh(&format!("{name}/back")));
        self.builder.constants.push(tensor(&short, self.dtype(), &weight.dims, slot.finish()?));
        let dims: &[i64] = if self.per_channel { &[channels as i64] } else { &[] };
        self.builder.constants.push(float_tensor(&scale, dims, &scales));
        self.builder.constants.push(tensor(&zero, self.dtype(), dims, vec![0u8; scales.len()].into()));
        self.add("DequantizeLinear", &[&short, &scale, &zero], &back, self.per_channel.then_some(axis as i64));
        self.made.insert((name, Some(axis)), back.clone());
        Ok(back)
    }

    fn add(&mut self, op: &str, inputs: &[&str], output: &str, axis: Option<i64>) {
        let attributes = axis.map(|axis| int_attribute("axis", axis)).into_iter().collect();
        self.builder.op_to(op, inputs, output, attributes);
    }
}

/// Returns the bits of the nearest float8 with 4 exponent and 3 mantissa bits, ties to even; values beyond ±448
/// saturate, and NaN stays NaN. Source: table 1 of "FP8 Formats for Deep Learning" (arXiv 2209.05433).
fn e4m3(value: f32) -> u8 {
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    if value.is_nan() {
        return sign | 0x7f;
    }
    let size = value.abs().min(E4M3);
    // Below 2^-6, the step size stays that of 2^-6.
    let exponent = if size < 2f32.powi(-6) { -6 } else { (size.to_bits() >> 23) as i32 - 127 };
    let steps = (size / 2f32.powi(exponent - 3)).round_ties_even() as u8;
    // Rounding may give 16 steps, which is the first value with the next exponent: the addition increments the
    // exponent.
    let bits = if exponent == -6 && steps < 8 { steps } else { (((exponent + 7) as u8) << 3) + (steps - 8) };
    sign | bits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the value of a float8 by its definition.
    fn value(bits: u8) -> f32 {
        let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
        let size = if exponent == 0 {
            mantissa / 8.0 * 2f32.powi(-6)
        } else {
            (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7)
        };
        if bits & 0x80 != 0 { -size } else { size }
    }

    #[test]
    fn float8_is_the_nearest_there_is() {
        for bits in (0..=0x7e).chain(0x80..=0xfe) {
            assert_eq!(e4m3(value(bits)), bits, "{}", value(bits));
        }
        for bits in 0..0x7e {
            let (low, high) = (value(bits), value(bits + 1));
            let middle = (low + high) / 2.0;
            assert_eq!(e4m3(middle), bits + bits % 2, "between {low} and {high} the even one");
            assert_eq!((e4m3(middle * 0.999), e4m3(middle * 1.001)), (bits, bits + 1));
        }
        assert_eq!((e4m3(1e9), e4m3(f32::NEG_INFINITY), e4m3(f32::NAN) & 0x7f), (0x7e, 0xfe, 0x7f));
    }
}
