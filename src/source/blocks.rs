//! Quantized blocks of GGUF files as `com.microsoft.MatMulNBits`, without loss.
//!
//! ONNX Runtime has one fast kernel for block-quantized weights with float activations: 4-bit integers with a float
//! scale per group of a row and integer zero points. All forms of blocks ([`BlockForm`]) are converted to it.
//!
//! - Integers of more than 4 bits are two planes of nibbles, `q = 16 h + l`. A row of the weight becomes the row of `h`
//!   with scales `16 s`, followed by the row of `l` with scales `s`, and `x` is passed twice. (The 8-bit kernel of ONNX
//!   Runtime 1.32 unpacks the whole weight in each run: 5 to 30 times slower.)
//! - If the offset of a group is not an integer multiple of the scale (Q4_1, the K forms), a second term `c` is added
//!   to `s (q - z)`, with the middle of the range as `z`. It has one value per group, so its part of the product is the
//!   product of `c` and the sums of `x` over the groups. (Float zero points would be equivalent and are 10 to 12 times
//!   slower.)
//!
//! | weight 1536 x 576, one thread, µs per run | one row of `x` | 128 rows |
//! |---|---|---|
//! | float32 `MatMul` | 130 to 270 | 1,650 |
//! | 4 bits, symmetric | 104 | 1,750 |
//! | 4 bits with offsets (here) · as float zero points | 149 · 1,564 | 2,150 · 3,359 |
//! | 8 bits as two planes (here) · 8-bit kernel | 168 · 1,087 | 3,616 · 4,276 |
//!
//! In this measurement, 4 bits take at most a third longer than float for 128 rows, and about the same time or less for
//! one row. More bits pay off if memory is the limit (an output layer of 49152 rows: 7.6 ms, float 7.7, at a quarter of
//! the size), and take about twice as long for 128 rows. The result is that of the float weight up to the rounding of
//! float32 sums: SmolLM2 (Q4_1, Q8_0 output layer) gives logits within 3e-4 of those of the float weights, and
//! generates 1.6 to 1.8 times as fast as with float weights.
//!
//! [`SessionOptions::round_activations`] gives up this accuracy for speed: with `accuracy_level` 4 the kernel quantizes
//! `x` to 8 bits per group. One row then takes half to two thirds of the time (SmolLM2 generates 1.4 times as fast),
//! but many rows take a third longer. A product is off by 0.5 % of its root mean square, 3 % at worst. Logits of
//! SmolLM2, which reach 40, are off by up to 2.4; 7 % of its most likely tokens change, and the KL divergence is
//! 0.0075. That is about the error of quantizing its weights to 8 bits. This option is only used on request.
//!
//! These products need the weight rearrangement that ONNX Runtime does when it creates a session: without it a step
//! takes 35 times as long, so `disable_prepacking` has no effect for models that have them.
//!
//! [`SessionOptions::round_activations`]: crate::runtime::SessionOptions::round_activations
//!
//! `MatMulNBits` has B as `[N, groups, bytes]` with the even element of a pair in the low nibble, scales as
//! `[N, groups]`, zero points as `[N, groups / 2]` nibbles.

use super::builder::{Attribute, Builder, Dialect};
use super::gguf::dequantize::{self, Codes, Layout};
use super::weights::{BlockForm, Stored};
use crate::error::{Result, bail};
use crate::files::{self, Scratch, ScratchSlot};
use crate::graph::edit;
use crate::graph::quantized::BlockPart;
use crate::onnx::dtype::DataType;
use bytes::Bytes;
use rayon::prelude::*;

/// The number of bytes of packed or float weights that one thread makes before it writes them.
const PIECE: usize = 1 << 20;
/// The nibble that `MatMulNBits` takes as zero if it has no zero points.
const DEFAULT_ZERO: u8 = 8;

/// Adds `x Wᵀ` with a block-quantized weight `[N, K]`, and returns the name of the product; `x` is
/// `[batch, sequence, K]`. In the portable dialect, the weight is converted to float32.
pub(super) fn product(b: &mut Builder<'_>, x: &str, name: &str, stored: &Stored, form: BlockForm) -> Result<String> {
    if b.dialect == Dialect::Portable {
        let table = floats(b, name, stored, form)?;
        let transposed = b.op("Transpose", &[&table], &[("perm", Attribute::Ints(&[1, 0]))]);
        return Ok(b.op("MatMul", &[x, &transposed], &[]));
    }
    let packed = packed(b, name, stored, form)?;
    let Packed { shape, layout, .. } = &packed;
    let twice = match shape.planes {
        1 => x.to_owned(),
        _ => b.op("Concat", &[x, x], &[("axis", Attribute::Int(-1))]),
    };
    let mut inputs = vec![twice.as_str(), &packed.values, &packed.scales];
    inputs.extend(packed.zero_points.as_deref());
    let attributes = [
        ("K", Attribute::Int((shape.planes * shape.columns) as i64)),
        ("N", Attribute::Int(shape.rows as i64)),
        ("bits", Attribute::Int(4)),
        ("block_size", Attribute::Int(layout.group as i64)),
    ];
    let product = b.contrib("MatMulNBits", &inputs, 1, &attributes).swap_remove(0);
    let Some(offsets) = &packed.offsets else { return Ok(product) };
    // Every reader of `x` adds the same two nodes; ONNX Runtime merges them.
    let groups = b.ints(&[0, 0, shape.groups() as i64, layout.group as i64]);
    let grouped = b.op("Reshape", &[x, &groups], &[]);
    let last = b.ints(&[-1]);
    let sums = b.op("ReduceSum", &[&grouped, &last], &[("keepdims", Attribute::Int(0))]);
    let transposed = b.op("Transpose", &[offsets], &[("perm", Attribute::Ints(&[1, 0]))]);
    let correction = b.op("MatMul", &[&sums, &transposed], &[]);
    Ok(b.op("Add", &[&product, &correction], &[]))
}

/// Adds the selection of rows of a block-quantized table, and returns the name of the result; `ids` is
/// `[batch, sequence]`.
///
/// The rows are unpacked in the graph, from the same constants that [`product`] reads: a table that is also the output
/// layer is stored once. Symmetric forms are exact; others differ by one rounding of float32. In the portable dialect,
/// the table is converted to float32.
pub(super) fn embedding(
    b: &mut Builder<'_>,
    ids: &str,
    name: &str,
    stored: &Stored,
    form: BlockForm,
) -> Result<String> {
    if b.dialect == Dialect::Portable {
        let table = floats(b, name, stored, form)?;
        return Ok(b.op("Gather", &[&table, ids], &[]));
    }
    let packed = packed(b, name, stored, form)?;
    let Packed { shape, layout, .. } = &packed;
    let last = b.ints(&[-1]);
    let pairs = b.op("Gather", &[&packed.values, ids], &[]);
    let (mask, four) = (byte(b, name, 15), byte(b, name, 4));
    let low = b.op("BitwiseAnd", &[&pairs, &mask], &[]);
    let high = b.op("BitShift", &[&pairs, &four], &[("direction", Attribute::Text("RIGHT"))]);
    let (low, high) = (b.op("Unsqueeze", &[&low, &last], &[]), b.op("Unsqueeze", &[&high, &last], &[]));
    let nibbles = b.op("Concat", &[&low, &high], &[("axis", Attribute::Int(-1))]);
    let groups = (shape.planes * shape.groups()) as i64;
    let dims = b.ints(&[0, 0, groups, layout.group as i64]);
    let nibbles = b.op("Reshape", &[&nibbles, &dims], &[]);
    let float = Attribute::Int(i64::from(DataType::Float32.to_onnx()));
    let codes = b.op("Cast", &[&nibbles], &[("to", float)]);
    let zeros: Vec<f32> = shape.zeros(layout).map(f32::from).collect();
    let zeros = b.floats(&[groups, 1], &zeros);
    let centred = b.op("Sub", &[&codes, &zeros], &[]);
    let scales = b.op("Gather", &[&packed.scales, ids], &[]);
    let scales = b.op("Unsqueeze", &[&scales, &last], &[]);
    let mut values = b.op("Mul", &[&centred, &scales], &[]);
    if shape.planes > 1 {
        let dims = b.ints(&[0, 0, shape.planes as i64, shape.groups() as i64, layout.group as i64]);
        let planes = b.op("Reshape", &[&values, &dims], &[]);
        let axis = b.ints(&[2]);
        values = b.op("ReduceSum", &[&planes, &axis], &[("keepdims", Attribute::Int(0))]);
    }
    if let Some(offsets) = &packed.offsets {
        let offsets = b.op("Gather", &[offsets, ids], &[]);
        let offsets = b.op("Unsqueeze", &[&offsets, &last], &[]);
        values = b.op("Add", &[&values, &offsets], &[]);
    }
    let dims = b.ints(&[0, 0, shape.columns as i64]);
    Ok(b.op("Reshape", &[&values, &dims], &[]))
}

fn byte(b: &mut Builder<'_>, name: &str, value: u8) -> String {
    let bytes = Bytes::from(vec![value]);
    b.initializer(edit::tensor(&format!("{name}.constant_{value}"), DataType::Uint8, &[], bytes))
}

/// The sizes of a packed matrix: `columns` weights per row, in `planes` planes of nibbles with a scale per `group`
/// weights.
#[derive(Debug, Clone, Copy)]
struct Shape {
    rows: usize,
    columns: usize,
    planes: usize,
    group: usize,
}

impl Shape {
    fn of(stored: &Stored, layout: &Layout) -> Result<Shape> {
        let [rows, columns] = stored.dims[..] else {
            bail!(Unsupported, "a quantized tensor of shape {:?} is not a matrix", stored.dims);
        };
        let (rows, columns) = (rows as usize, columns as usize);
        let blocks = columns / layout.elements;
        if columns % layout.elements != 0 || stored.bytes.len() != rows * blocks * layout.bytes {
            bail!(Internal, "{} bytes are not {rows} rows of {columns} weights in blocks", stored.bytes.len());
        }
        Ok(Shape { rows, columns, planes: if layout.bits > 4 { 2 } else { 1 }, group: layout.group })
    }

    /// Returns the number of groups of a row in one plane.
    fn groups(&self) -> usize {
        self.columns / self.group
    }

    /// Returns the size of a row of nibbles in bytes.
    fn row_bytes(&self) -> usize {
        self.planes * self.columns / 2
    }

    /// Returns the zero point of each group of a row, those of the high plane first.
    fn zeros(&self, layout: &Layout) -> impl Iterator<Item = u8> {
        let groups = self.groups();
        let of_plane = if self.planes == 1 { [DEFAULT_ZERO, 0] } else { [layout.middle >> 4, 0] };
        (0..self.planes * groups).map(move |group| of_plane[group / groups])
    }
}

/// The names of the constants of a packed weight.
struct Packed {
    values: String,
    scales: String,
    zero_points: Option<String>,
    offsets: Option<String>,
    shape: Shape,
    layout: Layout,
}

/// Returns the names of the packed constants of a weight, which are created on first use.
fn packed(b: &mut Builder<'_>, name: &str, stored: &Stored, form: BlockForm) -> Result<Packed> {
    let layout = form.layout();
    let shape = Shape::of(stored, &layout)?;
    let packed = Packed {
        values: BlockPart::Codes.of(name),
        scales: BlockPart::Scales.of(name),
        // With one plane, the operator's default is the zero point.
        zero_points: (shape.planes > 1).then(|| BlockPart::ZeroPoints.of(name)),
        offsets: (!layout.symmetric).then(|| BlockPart::Offsets.of(name)),
        shape,
        layout,
    };
    if b.has(&packed.values) {
        return Ok(packed);
    }
    let parts = pack(&b.scratch, stored, form, &shape)?;
    let (rows, groups) = (shape.rows as i64, (shape.planes * shape.groups()) as i64);
    let width = (shape.group / 2) as i64;
    b.initializer(edit::tensor(&packed.values, DataType::Uint8, &[rows, groups, width], parts.values));
    b.initializer(edit::tensor(&packed.scales, DataType::Float32, &[rows, groups], parts.scales));
    if let Some(zero_points) = &packed.zero_points {
        let zeros: Vec<u8> = shape.zeros(&layout).collect();
        let row: Vec<u8> = zeros.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&DEFAULT_ZERO) << 4).collect();
        let dims = [rows, row.len() as i64];
        b.initializer(edit::tensor(zero_points, DataType::Uint8, &dims, row.repeat(shape.rows).into()));
    }
    if let (Some(offsets), Some(bytes)) = (&packed.offsets, parts.offsets) {
        b.initializer(edit::tensor(offsets, DataType::Float32, &[rows, shape.groups() as i64], bytes));
    }
    Ok(packed)
}

/// The content of the packed constants of a weight.
struct Parts {
    values: Bytes,
    scales: Bytes,
    offsets: Option<Bytes>,
}

fn pack(scratch: &Scratch, stored: &Stored, form: BlockForm, shape: &Shape) -> Result<Parts> {
    let layout = form.layout();
    let (width, groups) = (shape.row_bytes(), shape.groups());
    let (scale_width, offset_width) = (shape.planes * groups * 4, groups * 4);
    let values = scratch.reserve(shape.rows * width)?;
    let scales = scratch.reserve(shape.rows * scale_width)?;
    let offsets = (!layout.symmetric).then(|| scratch.reserve(shape.rows * offset_width)).transpose()?;
    for_each_piece(stored, shape, width, |first, rows| {
        let count = rows.len() / shape.stored_row(&layout);
        let mut room = Rows::new(shape, count);
        for (index, row) in rows.chunks_exact(shape.stored_row(&layout)).enumerate() {
            room.pack(index, row, form, &layout);
        }
        values.write_at(first * width, &room.values)?;
        scales.write_at(first * scale_width, &room.scales)?;
        offsets.as_ref().map_or(Ok(()), |slot| slot.write_at(first * offset_width, &room.offsets))
    })?;
    let offsets = offsets.map(ScratchSlot::finish).transpose()?;
    Ok(Parts { values: values.finish()?, scales: scales.finish()?, offsets })
}

impl Shape {
    /// Returns the size of a row as it is stored, in bytes.
    fn stored_row(&self, layout: &Layout) -> usize {
        self.columns / layout.elements * layout.bytes
    }
}

/// Calls `work` with runs of whole rows and the index of the first row of each, on all threads of the pool. `width` is
/// the size of a converted row in bytes; a run has as many rows as make about [`PIECE`] bytes. Pages of the file are
/// released after use.
fn for_each_piece(
    stored: &Stored,
    shape: &Shape,
    width: usize,
    work: impl Fn(usize, &[u8]) -> Result<()> + Sync,
) -> Result<()> {
    let stored_row = stored.bytes.len() / shape.rows.max(1);
    let rows = (PIECE / width.max(1)).max(1);
    stored.bytes.par_chunks((rows * stored_row).max(1)).enumerate().try_for_each(|(index, piece)| {
        work(index * rows, piece)?;
        files::release(piece);
        Ok(())
    })
}

/// Rows of a weight that are being packed, before they are written.
struct Rows {
    shape: Shape,
    values: Vec<u8>,
    scales: Vec<u8>,
    offsets: Vec<u8>,
}

impl Rows {
    fn new(shape: &Shape, count: usize) -> Rows {
        let groups = shape.groups();
        let room = |bytes: usize| vec![0; count * bytes];
        let (scales, offsets) = (room(shape.planes * groups * 4), room(groups * 4));
        Rows { shape: *shape, values: room(shape.row_bytes()), scales, offsets }
    }

    fn pack(&mut self, row: usize, blocks: &[u8], form: BlockForm, layout: &Layout) {
        let (planes, columns, groups) = (self.shape.planes, self.shape.columns, self.shape.groups());
        let values = &mut self.values[row * self.shape.row_bytes()..][..self.shape.row_bytes()];
        let scales = &mut self.scales[row * planes * groups * 4..][..planes * groups * 4];
        let offsets = &mut self.offsets[row * groups * 4..][..groups * 4];
        let (of_block, bytes_of_block) = (layout.elements / layout.group, layout.elements / 2);
        let mut codes = Codes::default();
        for (index, block) in blocks.chunks_exact(layout.bytes).enumerate() {
            codes.unpack(form, block);
            let q = &codes.q[..layout.elements];
            if planes == 1 {
                // With fewer than four bits, the middle of the range is below the zero point, so the codes are shifted.
                let shift = DEFAULT_ZERO - layout.middle;
                join(q, |q| (q + shift) & 15, &mut values[index * bytes_of_block..]);
            } else {
                let (high, low) = values.split_at_mut(columns / 2);
                join(q, |q| q >> 4, &mut high[index * bytes_of_block..]);
                join(q, |q| q & 15, &mut low[index * bytes_of_block..]);
            }
            for g in 0..of_block {
                let (scale, at) = (codes.scale[g], index * of_block + g);
                if planes > 1 {
                    put(scales, at, 16.0 * scale);
                }
                put(scales, (planes - 1) * groups + at, scale);
                put(offsets, at, codes.offset[g] + f32::from(layout.middle) * scale);
            }
        }
    }
}

/// Packs pairs of nibbles, the even one in the low bits.
fn join(q: &[u8], nibble: impl Fn(u8) -> u8, out: &mut [u8]) {
    q.chunks_exact(2).zip(out).for_each(|(pair, out)| *out = nibble(pair[0]) | nibble(pair[1]) << 4);
}

fn put(out: &mut [u8], index: usize, value: f32) {
    out[index * 4..index * 4 + 4].copy_from_slice(&value.to_le_bytes());
}

/// Adds the weight as a float32 constant, and returns its name.
pub(super) fn floats(b: &mut Builder<'_>, name: &str, stored: &Stored, form: BlockForm) -> Result<String> {
    if b.has(name) {
        return Ok(name.to_owned());
    }
    let bytes = dequantized(&b.scratch, stored, form)?;
    Ok(b.initializer(edit::tensor(name, DataType::Float32, &stored.dims, bytes)))
}

/// Returns the elements of a block-quantized tensor as float32 bytes, in a file of `scratch`.
pub(super) fn dequantized(scratch: &Scratch, stored: &Stored, form: BlockForm) -> Result<Bytes> {
    let layout = form.layout();
    let width = stored.dims.last().map_or(0, |columns| *columns as usize);
    let blocks = stored.bytes.len() / layout.bytes;
    let shape = Shape { rows: blocks * layout.elements / width.max(1), columns: width, planes: 1, group: layout.group };
    let slot = scratch.reserve(blocks * layout.elements * 4)?;
    for_each_piece(stored, &shape, width * 4, |first, rows| {
        let mut values = vec![0f32; rows.len() / layout.bytes * layout.elements];
        dequantize::to_floats(form, rows, &mut values);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        slot.write_at(first * width * 4, &bytes)
    })?;
    slot.finish()
}
