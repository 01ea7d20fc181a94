//! Block-quantized weights of 2, 4 or 8 bits. Activations are float in the graph; kernels may round them to 8 bits if
//! `accuracy_level` is 4.
//!
//! ```text
//! y = MatMul(x, W)   ->  y = com.microsoft MatMulNBits(x, codes, scales, zero points)
//! y = Gather(T, ids) ->  y = com.microsoft GatherBlockQuantized(codes, ids, scales, zero points)
//! ```
//!
//! A table that is also the output layer is stored once: the product reads the codes as `[N, blocks, bytes]`, the
//! `Gather` the same bytes as `[N, blocks * bytes]`. Scales are stored in the given [`ScaleType`] and converted to
//! float by nodes over constants, which ONNX Runtime computes when it creates a session.
//!
//! If constant folding is disabled, these scales are not constants when the session is created. ONNX Runtime's kernel
//! for 8-bit activations rearranges constant codes beforehand, together with their scales; without constant scales it
//! returns zeros (1.32). So if scales are computed, the codes are computed as well, by a `Reshape`. A runtime that
//! folds one also folds the other; one that folds neither uses the kernel without rearrangement, which is slow and
//! correct.

use super::algorithms::{CodedRow, Coding, ScaleType, hqq, range};
use super::plan::{Change, Form, Plan, Weight, is_table};
use super::rewrite::{self, Rewriter, Switches};
pub use super::rows::Rows;
use super::{Algorithm, BLOCK_SIZE, QuantizeOptions};
use crate::call::Ticket;
use crate::error::Result;
use crate::files::{Scratch, ScratchSlot};
use crate::graph::builder::NodeBuilder;
use crate::graph::edit::{self, Names, int_attribute};
use crate::graph::{BodyId, View};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto};
use crate::report::NodeReport;
use bytes::Bytes;
use rayon::prelude::*;
use std::collections::HashMap;

/// The number of rows that one task reads, codes and writes.
pub const ROWS: usize = 64;

/// A weight in blocks of few bits.
pub struct BlockMatrix {
    coding: Coding,
    rows: usize,
    columns: usize,
    /// Codes of the weight, `[rows, blocks, bytes of a block]`.
    codes: Bytes,
    /// Scales of the blocks, `[rows, blocks]`, in the type of the coding.
    scales: Bytes,
    /// Factors of the rows, `[rows, 1]` float32; empty unless scales are bytes.
    factors: Bytes,
    /// Zero points of the blocks, `[rows, bytes]`; empty for symmetric codings.
    zeros: Bytes,
}

/// Returns the coding of a weight: the requested one, with at least 4 bits for a table. The blocks are smaller than
/// requested if they would not divide the rows of a table, or if half of the last block of a product or more would be
/// padding.
pub fn coding(plan: &Plan<'_>, index: usize, (bits, block): (u32, usize), options: &QuantizeOptions) -> Coding {
    let table = is_table(plan, index);
    let columns = Rows::of(&plan.weights[index]).columns;
    // There are no tables of 2 bits, and no fast products of 2 bits in blocks of 16.
    let bits = if table { bits.max(4) } else { bits };
    let least = if bits == 2 { 32 } else { 16 };
    let mut block = if block == 0 { BLOCK_SIZE } else { block.max(least) };
    // A `Gather` returns whole blocks, so the blocks of a table must divide its rows. Padding is waste: blocks shrink
    // as long as half of the last one would be padding.
    while block > least && !columns.is_multiple_of(block) && (table || columns % block <= block / 2) {
        block /= 2;
    }
    let symmetric = options.symmetric || bits == 8;
    let hqq = options.algorithm == Algorithm::Hqq && !symmetric;
    Coding { bits, block, symmetric, scale: options.scale_type, hqq }
}

/// Codes every weight of the plan, and returns the coded weights; `None` where a weight has a value that is not finite,
/// or too large. Fails with `NotFound` or `Io` if scratch storage cannot be created or written, and with `Cancelled` or
/// `Timeout`.
pub fn all(plan: &Plan<'_>, options: &QuantizeOptions, ticket: &Ticket) -> Result<Vec<Option<BlockMatrix>>> {
    let folder = options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&folder);
    (0..plan.weights.len()).map(|index| one(plan, index, options, &scratch, ticket)).collect()
}

/// Returns one weight of the plan in blocks; `None` if it has a value that is not finite, or larger than
/// [`Coding::largest`]. Fails like [`all`].
pub fn one(
    plan: &Plan<'_>,
    index: usize,
    options: &QuantizeOptions,
    scratch: &Scratch,
    ticket: &Ticket,
) -> Result<Option<BlockMatrix>> {
    code(&plan.weights[index], coding(plan, index, plan.weights[index].bits, options), scratch, ticket)
}

fn code(weight: &Weight<'_>, coding: Coding, scratch: &Scratch, ticket: &Ticket) -> Result<Option<BlockMatrix>> {
    let rows = Rows::of(weight);
    let slots = Slots::new(coding, rows.count, rows.columns, scratch)?;
    let tasks = (0..rows.count.div_ceil(ROWS)).into_par_iter().map(|task| -> Result<bool> {
        ticket.check()?;
        let (first, count) = (task * ROWS, ROWS.min(rows.count - task * ROWS));
        let values = rows.read(first, count);
        if !values.iter().all(|v| v.abs() <= coding.largest()) {
            return Ok(false);
        }
        let code = |row| if coding.hqq { hqq::code_row(&coding, row) } else { range::code_row(&coding, row, None) };
        let coded: Vec<CodedRow> = values.chunks(rows.columns).map(code).collect();
        slots.write(first, &coded)?;
        ticket.add((count * rows.columns * weight.matrix.width()) as u64);
        Ok(true)
    });
    let finite = tasks.try_reduce(|| true, |a, b| Ok(a && b))?;
    weight.matrix.release(0..weight.matrix.rows);
    if finite { slots.finish().map(Some) } else { Ok(None) }
}

/// Storage for a weight that is being coded.
pub struct Slots {
    coding: Coding,
    rows: usize,
    columns: usize,
    codes: ScratchSlot,
    scales: ScratchSlot,
    factors: ScratchSlot,
    zeros: ScratchSlot,
}

impl Slots {
    /// Returns storage for `rows` rows of `columns` elements. Fails like [`Scratch::reserve`].
    pub fn new(coding: Coding, rows: usize, columns: usize, scratch: &Scratch) -> Result<Slots> {
        let blocks = coding.blocks(columns);
        let factors = if coding.scale == ScaleType::Uint8 { rows * 4 } else { 0 };
        Ok(Slots {
            coding,
            rows,
            columns,
            codes: scratch.reserve(rows * blocks * coding.block_bytes())?,
            scales: scratch.reserve(rows * blocks * scale_width(coding.scale))?,
            factors: scratch.reserve(factors)?,
            zeros: scratch.reserve(rows * coding.zero_bytes(columns))?,
        })
    }

    /// Writes coded rows from index `first` on. Fails like [`ScratchSlot::write_at`].
    pub fn write(&self, first: usize, rows: &[CodedRow]) -> Result<()> {
        let coding = &self.coding;
        let blocks = coding.blocks(self.columns);
        let (mut codes, mut scales, mut factors, mut zeros) = (vec![], vec![], vec![], vec![]);
        for row in rows {
            pack(&row.codes, coding.bits, 0, &mut codes);
            for scale in &row.scales {
                match coding.scale {
                    ScaleType::Uint8 => scales.push((scale / row.factor).round() as u8),
                    ScaleType::Float16 => scales.extend(half::f16::from_f32(*scale).to_le_bytes()),
                    ScaleType::Float32 => scales.extend(scale.to_le_bytes()),
                }
            }
            if coding.scale == ScaleType::Uint8 {
                factors.extend(row.factor.to_le_bytes());
            }
            if !coding.symmetric {
                pack(&row.zeros, coding.bits, coding.middle(), &mut zeros);
            }
        }
        self.codes.write_at(first * blocks * coding.block_bytes(), &codes)?;
        self.scales.write_at(first * blocks * scale_width(coding.scale), &scales)?;
        self.factors.write_at(if factors.is_empty() { 0 } else { first * 4 }, &factors)?;
        self.zeros.write_at(first * coding.zero_bytes(self.columns), &zeros)
    }

    /// Returns the weight when all its rows are written. Fails like [`ScratchSlot::finish`].
    pub fn finish(self) -> Result<BlockMatrix> {
        Ok(BlockMatrix {
            coding: self.coding,
            rows: self.rows,
            columns: self.columns,
            codes: self.codes.finish()?,
            scales: self.scales.finish()?,
            factors: self.factors.finish()?,
            zeros: self.zeros.finish()?,
        })
    }
}

fn scale_width(scale: ScaleType) -> usize {
    scale.dtype().bits() as usize / 8
}

/// Appends packed codes to `out`, the first one in the low bits; missing ones are `padding`.
fn pack(codes: &[u8], bits: u32, padding: u8, out: &mut Vec<u8>) {
    match bits {
        2 => {
            let of = |four: &[u8], at: usize| four.get(at).unwrap_or(&padding) << (2 * at);
            out.extend(codes.chunks(4).map(|four| of(four, 0) | of(four, 1) | of(four, 2) | of(four, 3)));
        }
        4 => out.extend(codes.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&padding) << 4)),
        _ => out.extend_from_slice(codes),
    }
}

/// The names of the constants that replace a weight.
struct Constants {
    codes: String,
    /// Whether the codes are stored as a table reads them, `[N, blocks * bytes]`, and products reshape them.
    flat: bool,
    scales: String,
    factors: Option<String>,
    zeros: Option<String>,
}

/// Returns the rewritten model and the report on each node of the plan, in the order of the model. `weights` are the
/// coded weights of the plan; nodes whose weight is `None` stay unchanged. For `switches` see [`rewrite::apply`].
pub fn rewrite(
    original: &ModelProto,
    plan: &Plan<'_>,
    weights: &[Option<BlockMatrix>],
    options: &QuantizeOptions,
    switches: Option<&Switches<'_>>,
) -> (ModelProto, Vec<NodeReport>) {
    let mut names = Names::of(original);
    let done: Vec<bool> = weights.iter().map(Option::is_some).collect();
    let mut tensors: HashMap<BodyId, Vec<TensorProto>> = HashMap::new();
    let constants: Vec<Option<(Constants, &BlockMatrix)>> = weights
        .iter()
        .enumerate()
        .map(|(index, matrix)| {
            let change = plan.changes.iter().find(|c| c.weight == index)?;
            let matrix = matrix.as_ref()?;
            let mut readers = plan.changes.iter().filter(|c| c.weight == index);
            let flat = readers.all(|c| computes_scales(matrix, c));
            let (constants, made) = constants_of(change.constant.name, matrix, flat, &mut names);
            tensors.entry(change.constant.owner).or_default().extend(made);
            Some((constants, matrix))
        })
        .collect();
    let mut write = Write { weights: &constants, floats: HashMap::new(), shaped: HashMap::new(), options };
    let model = rewrite::apply(original, plan, &done, tensors, &mut names, &mut write, switches);
    let reason = |change: &Change<'_>| weights[change.weight].as_ref().map_or(String::new(), describe);
    (model, rewrite::reports(&View::new(original), plan, &done, &reason))
}

/// Returns whether the scales that a node reads are computed from the stored ones.
fn computes_scales(matrix: &BlockMatrix, change: &Change<'_>) -> bool {
    matrix.coding.scale.dtype().to_onnx() != change.constant.dtype
}

fn describe(matrix: &BlockMatrix) -> String {
    let Coding { bits, block, symmetric, .. } = matrix.coding;
    let kind = if symmetric { "symmetric" } else { "with zero points" };
    format!(
        "{bits} bits in blocks of {block}, {kind}, {:.2} bits per weight",
        matrix.coding.bits_per_weight(matrix.columns)
    )
}

fn constants_of(name: &str, matrix: &BlockMatrix, flat: bool, names: &mut Names) -> (Constants, Vec<TensorProto>) {
    let BlockMatrix { coding, rows, columns, .. } = matrix;
    let (rows, blocks) = (*rows as i64, coding.blocks(*columns) as i64);
    let mut of = |part: &str| names.fresh(&format!("{name}_{part}"));
    let constants = Constants {
        codes: of(&format!("int{}", coding.bits)),
        flat,
        scales: of("scale"),
        factors: (coding.scale == ScaleType::Uint8).then(|| of("scale_factor")),
        zeros: (!coding.symmetric).then(|| of("zero_point")),
    };
    let bytes = coding.block_bytes() as i64;
    let dims: &[i64] = if flat { &[rows, blocks * bytes] } else { &[rows, blocks, bytes] };
    let mut made = vec![
        edit::tensor(&constants.codes, DataType::Uint8, dims, matrix.codes.clone()),
        edit::tensor(&constants.scales, coding.scale.dtype(), &[rows, blocks], matrix.scales.clone()),
    ];
    if let Some(factors) = &constants.factors {
        made.push(edit::tensor(factors, DataType::Float32, &[rows, 1], matrix.factors.clone()));
    }
    if let Some(zeros) = &constants.zeros {
        let width = coding.zero_bytes(*columns) as i64;
        made.push(edit::tensor(zeros, DataType::Uint8, &[rows, width], matrix.zeros.clone()));
    }
    (constants, made)
}

/// A writer of the nodes of one graph or function.
struct Write<'a> {
    weights: &'a [Option<(Constants, &'a BlockMatrix)>],
    /// Names of the scales converted to an element type, by the name of the stored scales and that type.
    floats: HashMap<(String, i32), String>,
    /// Names of stored codes in the shape that products read.
    shaped: HashMap<String, String>,
    options: &'a QuantizeOptions,
}

impl Rewriter for Write<'_> {
    fn write(&mut self, emit: &mut NodeBuilder, node: NodeProto, change: &Change<'_>) {
        let weights = self.weights;
        match &weights[change.weight] {
            Some((constants, matrix)) => self.change(emit, &node, change, constants, matrix),
            None => emit.nodes.push(node),
        }
    }

    fn forget(&mut self) {
        self.floats.clear();
        self.shaped.clear();
    }
}

impl Write<'_> {
    fn change(
        &mut self,
        emit: &mut NodeBuilder,
        node: &NodeProto,
        change: &Change<'_>,
        constants: &Constants,
        matrix: &BlockMatrix,
    ) {
        let dtype = change.constant.dtype;
        let scales = self.scales(emit, node, constants, matrix, dtype);
        if change.form == Form::BlockTable {
            return table(emit, node, constants, &scales, matrix);
        }
        let codes = if computes_scales(matrix, change) {
            self.shaped(emit, node, constants, matrix)
        } else {
            constants.codes.clone()
        };
        let mut inputs = vec![node.input[0].as_str(), &codes, &scales];
        inputs.extend(constants.zeros.as_deref());
        let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
        // With a beta of 0, the bias is not read and may contain anything.
        let bias = if change.form == Form::BlockGemm && beta != 0.0 { node.input_at(2) } else { None };
        let plain = change.form != Form::BlockGemm || (alpha == 1.0 && bias.is_none());
        let output = if plain { node.output[0].clone() } else { emit.at(node).fresh("MatMulNBits") };
        let coding = &matrix.coding;
        let product = emit.at(node).push("MatMulNBits", &inputs, &[&output]);
        product.domain = Some("com.microsoft".into());
        product.attribute = vec![
            int_attribute("K", matrix.columns as i64),
            int_attribute("N", matrix.rows as i64),
            int_attribute("bits", i64::from(coding.bits)),
            int_attribute("block_size", coding.block as i64),
            int_attribute("accuracy_level", i64::from(self.options.accuracy_level)),
        ];
        if plain {
            return;
        }
        let Some(bias) = bias else { return emit.times_to(node, &output, alpha, dtype) };
        let product = if alpha == 1.0 { output } else { emit.at(node).times(&output, alpha, dtype) };
        let bias = if beta == 1.0 { bias.to_owned() } else { emit.at(node).times(bias, beta, dtype) };
        emit.at(node).push("Add", &[&product, &bias], &[&node.output[0]]);
    }

    /// Adds a `Reshape` of the codes to the shape that products read, if there is none yet, and returns the name of its
    /// output.
    fn shaped(
        &mut self,
        emit: &mut NodeBuilder,
        of: &NodeProto,
        constants: &Constants,
        matrix: &BlockMatrix,
    ) -> String {
        if let Some(known) = self.shaped.get(&constants.codes) {
            return known.clone();
        }
        let coding = &matrix.coding;
        let dims = [matrix.rows, coding.blocks(matrix.columns), coding.block_bytes()].map(|d| d as i64);
        let shape = emit.at(of).ints(&dims);
        let codes = emit.at(of).op("Reshape", &[&constants.codes, &shape]);
        self.shaped.insert(constants.codes.clone(), codes.clone());
        codes
    }

    /// Returns the name of the scales as the operators read them, in the type of the activations.
    fn scales(
        &mut self,
        emit: &mut NodeBuilder,
        of: &NodeProto,
        constants: &Constants,
        matrix: &BlockMatrix,
        dtype: i32,
    ) -> String {
        let stored = matrix.coding.scale.dtype();
        if stored.to_onnx() == dtype {
            return constants.scales.clone();
        }
        let key = (constants.scales.clone(), dtype);
        if let Some(known) = self.floats.get(&key) {
            return known.clone();
        }
        let float = DataType::Float32.to_onnx();
        let mut scales = constants.scales.clone();
        if stored != DataType::Float32 {
            scales = emit.at(of).cast_to(&scales, if constants.factors.is_some() { float } else { dtype });
        }
        if let Some(factors) = &constants.factors {
            scales = emit.at(of).op("Mul", &[&scales, factors]);
        }
        if dtype != float && (constants.factors.is_some() || stored == DataType::Float32) {
            scales = emit.at(of).cast_to(&scales, dtype);
        }
        self.floats.insert(key, scales.clone());
        scales
    }
}

fn table(emit: &mut NodeBuilder, node: &NodeProto, constants: &Constants, scales: &str, matrix: &BlockMatrix) {
    let coding = &matrix.coding;
    let codes = if constants.flat {
        constants.codes.clone()
    } else {
        let width = (coding.blocks(matrix.columns) * coding.block_bytes()) as i64;
        let shape = emit.at(node).ints(&[matrix.rows as i64, width]);
        emit.at(node).op("Reshape", &[&constants.codes, &shape])
    };
    let ids = node.input.get(1).map_or("", String::as_str);
    let mut inputs = vec![codes.as_str(), ids, scales];
    inputs.extend(constants.zeros.as_deref());
    let rows = emit.at(node).push("GatherBlockQuantized", &inputs, &[&node.output[0]]);
    rows.domain = Some("com.microsoft".into());
    rows.attribute = vec![
        int_attribute("gather_axis", 0),
        int_attribute("quantize_axis", 1),
        int_attribute("block_size", coding.block as i64),
        int_attribute("bits", i64::from(coding.bits)),
    ];
}
