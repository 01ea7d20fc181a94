//! SmoothQuant: factors that divide the spread of activations between activations and weights.
//!
//! `s_j = max|x_j|^a / max|w_j|^(1 - a)` for channel `j` of the inputs, over all weights that read them (Xiao et al.,
//! "SmoothQuant", 2023, equation 4).

use super::{Group, Product, apply, groups};
use crate::calibrate::{self, Data};
use crate::call::{Call, Stage};
use crate::error::Result;
use crate::files::Scratch;
use crate::graph::View;
use crate::model::Model;
use crate::quantize::QuantizeOptions;
use crate::runtime::{Stop, Tensor};

/// Returns the model in which the inputs of the products among `nodes` of the main graph are scaled. Reports the stage
/// `calibrate` in runs. Fails with `Cancelled` or `Timeout`, with `Io` if scratch storage cannot be written, and if the
/// model cannot be run on the data.
pub fn smooth(model: &Model, nodes: &[usize], options: &QuantizeOptions, data: Data<'_>, call: &Call) -> Result<Model> {
    let view = View::new(model.proto());
    let found = groups(&view, nodes);
    let values: Vec<String> = found.iter().map(|group| group.value.clone()).collect();
    let mut largest: Vec<Vec<f32>> = found.iter().map(|group| vec![0f32; group.size]).collect();
    let total = calibrate::runs(model, &values, data.batches.len(), calibrate::Method::MinMax);
    call.drive(Stage::CALIBRATE, total, |ticket| {
        let stop = Stop::new()?;
        let take = |index: usize, tensor: &Tensor| add(&mut largest[index], tensor);
        calibrate::each_value(&data.run(options.threads, ticket, &stop), model, &values, take)
    })?;
    let alpha = options.smooth_quant as f32;
    let groups: Vec<_> = found.into_iter().zip(largest).map(|(group, x)| factors(group, &x, alpha)).collect();
    let folder = options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    apply(model, &groups, &Scratch::new(&folder))
}

fn factors<'a>(group: Group<'a>, x: &[f32], alpha: f32) -> (Group<'a>, Vec<f32>) {
    let w = of_weights(&group);
    let one = |(x, w): (&f32, &f32)| {
        let s = x.powf(alpha) / w.powf(1.0 - alpha);
        // Channels that are always zero, or that have no weight, stay unchanged.
        if *x > 0.0 && *w > 0.0 && s.is_normal() { s.clamp(1e-5, 1e5) } else { 1.0 }
    };
    let factors = x.iter().zip(&w).map(one).collect();
    (group, factors)
}

fn add(largest: &mut [f32], tensor: &Tensor) -> Result<()> {
    for row in tensor.to_f32_vec()?.chunks(largest.len().max(1)) {
        for (most, value) in largest.iter_mut().zip(row).filter(|(_, value)| value.is_finite()) {
            *most = most.max(value.abs());
        }
    }
    Ok(())
}

/// Returns the largest magnitude of the weights of each input channel, over all products of a group.
fn of_weights(group: &Group<'_>) -> Vec<f32> {
    let mut largest = vec![0f32; group.size];
    for Product { matrix, inputs_are_rows, .. } in &group.products {
        let mut line = vec![0f32; matrix.columns];
        for row in 0..matrix.rows {
            matrix.read(row, 0, &mut line);
            if *inputs_are_rows {
                largest[row] = line.iter().fold(largest[row], |most, v| most.max(v.abs()));
            } else {
                largest.iter_mut().zip(&line).for_each(|(most, v)| *most = most.max(v.abs()));
            }
        }
    }
    largest
}
