//! AWQ: inputs of layers are scaled by the magnitude of activations, so that important weights lose less (Lin et al.,
//! "AWQ: Activation-aware Weight Quantization", 2023).
//!
//! `s_j = mean|x_j|^a`, normalized so that the largest and the smallest are equally far from 1. Of the exponents `a` =
//! 0, 0.1 ... 1, the one with the smallest output error is used. With the original inputs `X` and `D = Q(s W)/s - W`
//! (one row per output), the error is the sum of the diagonal of `D (XᵀX) Dᵀ`, over at most 512 outputs of a weight.
//! With `a` = 0 weights are rounded unscaled, so the measured error never increases.

use super::{Group, apply, groups};
use crate::calibrate::{self, Data, Products};
use crate::call::{Call, Stage, Ticket};
use crate::error::{Result, bail};
use crate::files::Scratch;
use crate::graph::View;
use crate::model::Model;
use crate::quantize::QuantizeOptions;
use crate::quantize::algorithms::{Coding, range};
use crate::quantize::planner::{Form, Plan};
use crate::quantize::weight_only::{self, Rows};
use crate::runtime::{Stop, Tensor};
use crate::threads;
use rayon::prelude::*;

/// The number of exponents to try besides 0: tenths up to 1.
const STEPS: usize = 10;
/// The maximum number of outputs of a weight on which the error is measured. They are evenly spaced; more give the same
/// exponent.
const OUTPUTS: usize = 512;

/// Returns the model with scaled inputs of the products in the main graph. Reports the stages `calibrate` and `scale`.
/// Fails with `InvalidModel` if a product receives an input of another size, with `Io` if scratch storage cannot be
/// written, with `Cancelled` or `Timeout`, and if the model cannot be run on the data.
pub fn scale(
    model: &Model,
    view: &View<'_>,
    plan: &Plan<'_>,
    options: &QuantizeOptions,
    data: Data<'_>,
    call: &Call,
) -> Result<Model> {
    let changes = || plan.changes.iter().filter(|c| c.body == 0 && c.form != Form::BlockTable);
    let nodes: Vec<usize> = changes().map(|change| change.node).collect();
    let found = groups(view, &nodes);
    let values: Vec<String> = found.iter().map(|group| group.value.clone()).collect();
    let total = calibrate::runs(model, &values, data.batches.len(), calibrate::Method::MinMax);
    let inputs = call.drive(Stage::CALIBRATE, total, |ticket| {
        let stop = Stop::new()?;
        let mut inputs: Vec<Inputs> = found.iter().map(|group| Inputs::new(group.size)).collect();
        let mut products = Products::new(data.runtime, options.threads)?;
        let take = |index: usize, tensor: &Tensor| inputs[index].add(tensor, &mut products, &stop);
        calibrate::each_value(&data.run(options.threads, ticket, &stop), model, &values, take)?;
        Ok(inputs)
    })?;
    let weight_of = |node: usize| changes().find(|change| change.node == node).map(|change| change.weight);
    let chosen = call.drive(Stage::SCALE, found.len() as u64, |ticket| {
        let stop = Stop::new()?;
        let (products, pool) = (Products::new(data.runtime, options.threads)?, threads::pool(options.threads)?);
        let mut search = Search { plan, options, products, pool, stop: &stop };
        let mut chosen = Vec::with_capacity(found.len());
        for (group, inputs) in found.into_iter().zip(&inputs) {
            let weights: Vec<usize> = group.products.iter().filter_map(|product| weight_of(product.node)).collect();
            let factors = search.best(&group, inputs, &weights, ticket)?;
            ticket.add(1);
            chosen.extend(factors.map(|factors| (group, factors)));
        }
        Ok(chosen)
    })?;
    let folder = options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    apply(model, &chosen, &Scratch::new(&folder))
}

/// The statistics of the inputs of a group.
struct Inputs {
    /// Sum of the magnitudes of each channel.
    magnitudes: Vec<f64>,
    /// Matrix `XᵀX` of the inputs.
    gram: Vec<f32>,
}

impl Inputs {
    fn new(size: usize) -> Inputs {
        Inputs { magnitudes: vec![0.0; size], gram: vec![0.0; size * size] }
    }

    fn add(&mut self, tensor: &Tensor, products: &mut Products, stop: &Stop) -> Result<()> {
        let (size, values) = (self.magnitudes.len(), tensor.to_f32_vec()?);
        if size == 0 || !values.len().is_multiple_of(size) {
            bail!(InvalidModel, "a matrix product with {size} inputs receives {:?}", tensor.shape());
        }
        for row in values.chunks(size) {
            self.magnitudes.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(v.abs()));
        }
        let x = Tensor::from_f32(&[(values.len() / size) as i64, size as i64], values)?;
        let more = products.transposed(&x, &x, stop)?;
        self.gram.iter_mut().zip(more).for_each(|(sum, v)| *sum += v);
        Ok(())
    }

    /// Returns the factors for an exponent; `None` if no channel has a magnitude that is finite and above 0.
    fn factors(&self, exponent: f64) -> Option<Vec<f32>> {
        let powers: Vec<f64> = self.magnitudes.iter().map(|m| m.powf(exponent)).collect();
        let above = powers.iter().copied().filter(|p| *p > 0.0 && p.is_finite());
        let (low, high) = above.fold((f64::INFINITY, 0f64), |(low, high), p| (low.min(p), high.max(p)));
        let middle = (low * high).sqrt();
        let one = |p: &f64| if *p > 0.0 { (p / middle).clamp(1e-4, 1e4) as f32 } else { 1.0 };
        (middle.is_finite() && middle > 0.0).then(|| powers.iter().map(one).collect())
    }
}

/// The arguments of the search for factors.
struct Search<'s> {
    plan: &'s Plan<'s>,
    options: &'s QuantizeOptions,
    products: Products,
    pool: rayon::ThreadPool,
    stop: &'s Stop,
}

impl Search<'_> {
    /// Returns the factors of a group with the smallest error of its `weights` (indices in the plan); `None` if the
    /// error is smallest without scaling.
    fn best(
        &mut self,
        group: &Group<'_>,
        inputs: &Inputs,
        weights: &[usize],
        ticket: &Ticket,
    ) -> Result<Option<Vec<f32>>> {
        let size = group.size as i64;
        let gram = Tensor::from_f32(&[size, size], inputs.gram.clone())?;
        let (mut found, mut least) = (None, f64::INFINITY);
        for step in 0..=STEPS {
            ticket.check()?;
            let Some(factors) = inputs.factors(step as f64 / STEPS as f64) else { return Ok(None) };
            let mut error = 0.0;
            for weight in weights {
                error += self.error(*weight, &factors, &gram)?;
            }
            if error < least {
                (found, least) = ((step > 0).then_some(factors), error);
            }
        }
        Ok(found)
    }

    /// Returns the squared error of the outputs of a weight, on at most [`OUTPUTS`] of them.
    fn error(&mut self, weight: usize, factors: &[f32], gram: &Tensor) -> Result<f64> {
        let rows = Rows::of(&self.plan.weights[weight]);
        let coding: Coding = weight_only::coding(self.plan, weight, self.plan.weights[weight].bits, self.options);
        let step = rows.count.div_ceil(OUTPUTS).max(1);
        let chosen: Vec<usize> = (0..rows.count).step_by(step).collect();
        let lost = |row: &usize| -> Vec<f32> {
            let own = rows.read(*row, 1);
            let scaled: Vec<f32> = own.iter().zip(factors).map(|(v, s)| v * s).collect();
            let coded = range::code_row(&coding, &scaled, None);
            let lost = |k: usize| coded.value(k / coding.block, coded.codes[k]) / factors[k] - own[k];
            (0..own.len()).map(lost).collect()
        };
        let lost: Vec<Vec<f32>> = self.pool.install(|| chosen.par_iter().map(lost).collect());
        let lost: Vec<f32> = lost.concat();
        let tensor = Tensor::from_f32(&[chosen.len() as i64, rows.columns as i64], lost.clone())?;
        let through = self.products.product(&tensor, gram, self.stop)?;
        Ok(lost.iter().zip(&through).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum())
    }
}
