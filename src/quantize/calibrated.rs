//! Coding of weights in blocks that preserves the *outputs* of each layer on calibration data.
//!
//! Layers are processed in the order in which they run. Two copies of the model run side by side: one with the original
//! weights, one with the weights coded so far. Let `Y` be the input of a layer in the first and `X` in the second. Its
//! weights are first moved towards compensating the difference, `W' = W (1 + t (Yᵀ X - Xᵀ X) (Xᵀ X + damping)⁻¹)` with
//! `t` = 1/2 (least squares for `W' X ≈ W Y`; the full step, `t` = 1, overfits), and then coded by GPTQ. A table that
//! is both the embedding and the output layer is coded first, on the original inputs of the output layer.

use super::QuantizeOptions;
use super::algorithms::gptq;
use super::algorithms::{CodedRow, Coding};
use super::plan::Channel;
use super::plan::is_table;
use super::planner::{Form, Plan, Weight};
use super::weight_only::{self, BlockMatrix, Rows, Slots};
use crate::calibrate::{ColumnOrder, Factor, Products, Run, Walk};
use crate::error::{Context, Result, bail};
use crate::files::Scratch;
use crate::graph::edit;
use crate::graph::floats::to_bytes;
use crate::graph::order::depths;
use crate::model::Model;
use crate::onnx::proto::TensorProto;
use crate::runtime::Tensor;
use bytes::Bytes;

/// The factor by which weights are moved towards compensating the loss of earlier layers.
const TOWARDS: f32 = 0.5;
/// The maximum number of values that are coded at a time: 64 MiB of float32.
const TILE: usize = 16 << 20;

/// Returns the coded form of every weight of the plan; `None` for a weight with a value that is not finite or larger
/// than [`Coding::largest`]. Weights in subgraphs and functions are coded without calibration data. Fails with
/// `InvalidModel` if a weight receives inputs of another size, with `Io` if scratch storage cannot be written, and if
/// the model cannot be run on the calibration data or the call ends (`Cancelled`, `Timeout`).
pub fn all(
    run: &Run<'_>,
    model: &Model,
    plan: &Plan<'_>,
    options: &QuantizeOptions,
) -> Result<Vec<Option<BlockMatrix>>> {
    let Run { runtime, ticket, stop, .. } = *run;
    let folder = options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    let products = Products::new(runtime, options.threads)?;
    let mut work = Work { plan, options, run, scratch: Scratch::new(&folder), products };
    let stages = stages(model, plan)?;
    let mut coded: Vec<Option<Option<BlockMatrix>>> = plan.weights.iter().map(|_| None).collect();
    let asked: Vec<&str> = stages.iter().map(|stage| stage.input.as_str()).collect();
    let mut changed = Walk::new(run, model, &asked)?;

    let tables: Vec<&Stage> = stages.iter().filter(|s| s.weights.iter().any(|w| is_table(plan, *w))).collect();
    let of_tables: Vec<&str> = tables.iter().map(|stage| stage.input.as_str()).collect();
    let mut before = Walk::new(run, model, &of_tables)?;
    for stage in tables {
        let inputs = before.value(&stage.input, stop)?;
        let Some(layer) = work.layer(&inputs, None)? else { continue };
        for index in stage.weights.iter().copied().filter(|w| is_table(plan, *w)) {
            coded[index] = Some(work.code(index, &layer, &mut changed)?);
        }
    }
    drop(before);
    let mut as_it_was = Walk::new(run, model, &asked)?;
    for stage in &stages {
        ticket.check()?;
        let open: Vec<usize> = stage.weights.iter().copied().filter(|w| coded[*w].is_none()).collect();
        if open.is_empty() {
            continue; // The model need not be run up to this stage.
        }
        let inputs = changed.value(&stage.input, stop)?;
        let wanted = as_it_was.value(&stage.input, stop)?;
        let Some(layer) = work.layer(&inputs, Some(&wanted))? else { continue };
        for index in open {
            let name = &plan.weights[index].name;
            coded[index] = Some(work.code(index, &layer, &mut changed).at(|| format!("weight {name:?}"))?);
        }
    }
    let rest = |(index, coded): (usize, Option<Option<BlockMatrix>>)| match coded {
        Some(coded) => Ok(coded),
        None => weight_only::one(plan, index, options, &work.scratch, ticket),
    };
    coded.into_iter().enumerate().map(rest).collect()
}

/// The weights of the products that read the same value.
struct Stage {
    input: String,
    weights: Vec<usize>,
}

/// Returns the stages in the order in which they run. Weights in subgraphs and functions belong to no stage.
fn stages(model: &Model, plan: &Plan<'_>) -> Result<Vec<Stage>> {
    let depth = depths(&model.graph().node)?;
    let mut stages: Vec<(usize, Stage)> = Vec::new();
    let mut taken = vec![false; plan.weights.len()];
    for change in plan.changes.iter().filter(|c| c.body == 0 && c.form != Form::BlockTable) {
        let Some(node) = model.graph().node.get(change.node) else { continue };
        let Some(input) = node.input.first().filter(|_| !std::mem::replace(&mut taken[change.weight], true)) else {
            continue;
        };
        match stages.iter_mut().find(|(_, stage)| stage.input == *input) {
            Some((_, stage)) => stage.weights.push(change.weight),
            None => stages.push((depth[change.node], Stage { input: input.clone(), weights: vec![change.weight] })),
        }
    }
    stages.sort_by_key(|(depth, _)| *depth);
    Ok(stages.into_iter().map(|(_, stage)| stage).collect())
}

/// The matrices that the inputs of a layer determine for its weights.
struct Layer {
    factor: Factor,
    size: usize,
    /// Matrix `[size, size]` that weights are multiplied with before they are coded, to compensate earlier layers.
    towards: Option<Tensor>,
}

/// The arguments of the coding of weights.
struct Work<'w> {
    plan: &'w Plan<'w>,
    options: &'w QuantizeOptions,
    run: &'w Run<'w>,
    scratch: Scratch,
    products: Products,
}

impl Work<'_> {
    /// Returns the matrices that these inputs determine; `None` if there are no rows, or the rows have no elements.
    /// `wanted` are the inputs of the layer in the original model; without them, weights are not moved.
    fn layer(&mut self, inputs: &[Tensor], wanted: Option<&[Tensor]>) -> Result<Option<Layer>> {
        let Some(&size) = inputs.first().and_then(|tensor| tensor.shape().last()) else { return Ok(None) };
        let size = usize::try_from(size).unwrap_or(0);
        if size == 0 {
            return Ok(None);
        }
        let (mut gram, mut cross) = (vec![0f32; size * size], wanted.map(|_| vec![0f32; size * size]));
        let mut rows = 0;
        for (index, (tensor, batch)) in inputs.iter().zip(self.run.batches).enumerate() {
            let x = batch.rows(tensor, size)?;
            rows += x.shape()[0] as usize;
            add(&mut gram, &self.products.transposed(&x, &x, self.run.stop)?);
            if let (Some(cross), Some(wanted)) = (&mut cross, wanted) {
                add(cross, &self.products.transposed(&batch.rows(&wanted[index], size)?, &x, self.run.stop)?);
            }
        }
        if rows == 0 {
            return Ok(None);
        }
        let factor = Factor::new(&gram, size, rows, ColumnOrder::Importance)?;
        let square = |values: Vec<f32>| Tensor::from_f32(&[size as i64, size as i64], values);
        let towards = match cross {
            None => None,
            Some(mut cross) => {
                let upper = square(factor.upper_as_inputs())?;
                let inverse = square(self.products.transposed(&upper, &upper, self.run.stop)?)?;
                let scale = 1.0 / rows as f32;
                cross.iter_mut().zip(&gram).for_each(|(c, g)| *c = (*c - g) * scale);
                let mut towards = self.products.product(&square(cross)?, &inverse, self.run.stop)?;
                for (index, value) in towards.iter_mut().enumerate() {
                    *value = *value * TOWARDS + f32::from(u8::from(index / size == index % size));
                }
                Some(square(towards)?)
            }
        };
        Ok(Some(Layer { factor, size, towards }))
    }

    /// Codes a weight, puts its new value into the running model, and returns the coded form; `None` if a value is not
    /// finite, or larger than [`Coding::largest`].
    fn code(&mut self, index: usize, layer: &Layer, walk: &mut Walk<'_>) -> Result<Option<BlockMatrix>> {
        let weight = &self.plan.weights[index];
        let rows = Rows::of(weight);
        let coding = weight_only::coding(self.plan, index, weight.bits, self.options);
        if rows.columns != layer.size {
            bail!(InvalidModel, "the weight has {} inputs, but receives {}", rows.columns, layer.size);
        }
        let slots = Slots::new(coding, rows.count, rows.columns, &self.scratch)?;
        let mut becomes = Becomes::new(weight);
        let tile = (TILE / rows.columns.max(1)).clamp(1, rows.count.max(1));
        for first in (0..rows.count).step_by(tile) {
            self.run.ticket.check()?;
            let count = tile.min(rows.count - first);
            let mut values = rows.read(first, count);
            if !values.iter().all(|v| v.abs() <= coding.largest()) {
                return Ok(None);
            }
            if let Some(towards) = &layer.towards {
                let tensor = Tensor::from_f32(&[count as i64, rows.columns as i64], values)?;
                values = self.products.product(&tensor, towards, self.run.stop)?;
            }
            let coded = gptq::code_rows(&coding, &mut values, &layer.factor);
            slots.write(first, &coded)?;
            becomes.put(&coding, first, &coded);
            self.run.ticket.add((count * rows.columns * weight.matrix.width()) as u64);
        }
        walk.replace(becomes.finish());
        slots.finish().map(Some)
    }
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// The float weight that the codes represent, in the type of the original.
struct Becomes<'w> {
    weight: &'w Weight<'w>,
    values: Vec<f32>,
}

impl<'w> Becomes<'w> {
    fn new(weight: &'w Weight<'w>) -> Becomes<'w> {
        Becomes { weight, values: vec![0f32; weight.matrix.elements()] }
    }

    fn put(&mut self, coding: &Coding, first: usize, rows: &[CodedRow]) {
        let width = self.weight.matrix.columns;
        let by_row = self.weight.channel == Channel::Row;
        for (r, row) in rows.iter().enumerate() {
            let columns = if by_row { width } else { self.weight.matrix.rows };
            for k in 0..columns {
                let at = if by_row { (first + r) * width + k } else { k * width + first + r };
                self.values[at] = row.value(k / coding.block, row.codes[k]);
            }
        }
    }

    fn finish(self) -> TensorProto {
        let tensor = self.weight.tensor;
        let dtype = self.weight.matrix.dtype();
        let raw = to_bytes(&self.values, dtype);
        edit::tensor(&self.weight.name, dtype, &tensor.dims, Bytes::from(raw))
    }
}
