//! Pruning by activations: Wanda and SparseGPT.
//!
//! Weights are pruned in the order in which their products run, each on the outputs of the pruned weights before it.
//!
//! Wanda (Sun et al. 2023, arXiv 2306.11695): the score of `w_ok` is `|w_ok| ‖x_k‖₂`, over all rows `x` of the
//! calibration data, and each output `o` loses the same share of its weights. The inputs of a convolution are its
//! channels, and each tap (position in the window) of an output channel counts as an output. SparseGPT: see
//! [`super::sparsegpt`].
//!
//! Some weights are pruned by magnitude instead, and the report says so. These are weights in branches and functions,
//! of recurrent layers, of grouped and transposed convolutions, and of more than two dimensions outside of
//! convolutions; left operands; tables; and with SparseGPT the weights of all convolutions.

use super::options::{Pattern, PruneMethod, PruneOptions};
use super::targets::{Data, Target};
use super::{Outcome, rewrite, scores, sparsegpt, weights};
use crate::calibrate::{ColumnOrder, Factor, Products, Run, Walk};
use crate::call::Ticket;
use crate::error::{Context, Result, bail};
use crate::files::Scratch;
use crate::graph::order::depths;
use crate::model::Model;
use crate::runtime::Tensor;
use rayon::prelude::*;

/// Prunes the weight of every target, and returns the outcome of each. Fails if the model cannot be run on the
/// calibration data, with `InvalidModel` or `Unsupported` if the data are not finite or do not fit a weight, with `Io`
/// if scratch storage cannot be written, and with `Cancelled` or `Timeout`.
pub fn all(run: &Run<'_>, model: &Model, targets: &[Target<'_>], options: &PruneOptions) -> Result<Vec<Outcome>> {
    let Run { runtime, ticket, stop, .. } = *run;
    let folder = options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&folder);
    let stages = stages(model, targets, options)?;
    let asked: Vec<&str> = stages.iter().map(|stage| stage.data.value.as_str()).collect();
    let mut walk = Walk::new(run, model, &asked)?;
    let mut products = Products::new(runtime, options.threads)?;
    let mut outcomes: Vec<Option<Outcome>> = targets.iter().map(|_| None).collect();
    // Weights that belong to no stage are pruned by magnitude. They come first, because later stages must see the
    // result.
    let by_magnitude = PruneOptions { method: PruneMethod::Magnitude, ..options.clone() };
    let in_stage: Vec<usize> = stages.iter().flat_map(|stage| stage.targets.iter().copied()).collect();
    for index in (0..targets.len()).filter(|index| !in_stage.contains(index)) {
        let mut outcome = scores::one(&targets[index], &by_magnitude, &scratch, ticket)?;
        if let Ok(pruned) = &mut outcome {
            pruned.how = format!("{}, because {} does not use its input", pruned.how, options.method.name());
        }
        replace(&mut walk, &targets[index], &outcome);
        outcomes[index] = Some(outcome);
    }
    for stage in &stages {
        ticket.check()?;
        let inputs = walk.value(&stage.data.value, stop)?;
        let seen =
            Seen::new(&inputs, run, stage, options, &mut products).at(|| format!("value {:?}", stage.data.value))?;
        for &index in &stage.targets {
            let target = &targets[index];
            let outcome = prune(target, &seen, options, &scratch, ticket).at(|| format!("weight {:?}", target.name))?;
            replace(&mut walk, target, &outcome);
            outcomes[index] = Some(outcome);
        }
    }
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err("was not reached".to_owned()))).collect())
}

fn replace(walk: &mut Walk<'_>, target: &Target<'_>, outcome: &Outcome) {
    // Only constants of the main graph are replaced; its subgraphs read them there.
    if let (Ok(pruned), 0) = (outcome, target.owner) {
        let mut tensor = rewrite::tensor(target, pruned.raw.clone());
        tensor.name = Some(target.name.clone());
        walk.replace(tensor);
    }
}

/// The weights of the products that read the same value.
struct Stage<'t> {
    data: &'t Data,
    targets: Vec<usize>,
}

/// Returns the stages of `targets` in the order in which they run. Targets whose input cannot be used belong to none.
fn stages<'t>(model: &Model, targets: &'t [Target<'_>], options: &PruneOptions) -> Result<Vec<Stage<'t>>> {
    let depth = depths(&model.graph().node)?;
    let mut stages: Vec<(usize, Stage<'t>)> = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        // SparseGPT needs the sums over all inputs of a product; a convolution provides only those over the channels of
        // one tap.
        let seen = |data: &&Data| options.method == PruneMethod::Wanda || !data.channels;
        let (Some(data), Some(&(0, node))) = (target.data.as_ref().filter(seen), target.readers.first()) else {
            continue;
        };
        let same = |stage: &Stage<'_>| stage.data.value == data.value && stage.data.channels == data.channels;
        match stages.iter_mut().find(|(_, stage)| same(stage)) {
            Some((_, stage)) => stage.targets.push(index),
            None => stages.push((depth[node], Stage { data, targets: vec![index] })),
        }
    }
    stages.sort_by_key(|(depth, _)| *depth);
    Ok(stages.into_iter().map(|(_, stage)| stage).collect())
}

/// The statistics of the inputs of a stage on the calibration data.
struct Seen {
    /// Norm of each input over all rows, for Wanda.
    norms: Vec<f32>,
    /// Factor of the inverse of `XᵀX`, with `X` the rows of inputs; `None` for Wanda.
    factor: Option<Factor>,
}

impl Seen {
    fn new(
        inputs: &[Tensor],
        run: &Run<'_>,
        stage: &Stage<'_>,
        options: &PruneOptions,
        products: &mut Products,
    ) -> Result<Seen> {
        let of =
            |tensor: &Tensor| if stage.data.channels { tensor.shape().get(1) } else { tensor.shape().last() }.copied();
        let size = inputs.first().and_then(of).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        if size == 0 || inputs.iter().any(|tensor| of(tensor) != Some(size as i64)) {
            bail!(Unsupported, "the calibration data has no rows of equal size");
        }
        let (mut squares, mut gram, mut rows) = (vec![0f64; size], Vec::new(), 0);
        for (tensor, batch) in inputs.iter().zip(run.batches) {
            // The channels are the dimension after that of the batch; the other dimensions follow.
            let inner = if stage.data.channels { tensor.shape()[2..].iter().product::<i64>() as usize } else { 1 };
            let x = if stage.data.channels { tensor.clone() } else { batch.rows(tensor, size)? };
            rows += x.elements() / size;
            if options.method == PruneMethod::SparseGpt {
                let product = products.transposed(&x, &x, run.stop)?;
                gram.resize(size * size, 0f32);
                gram.iter_mut().zip(product).for_each(|(sum, value)| *sum += value);
            } else {
                for (index, line) in x.to_f32_vec()?.chunks(inner.max(1)).enumerate() {
                    squares[index % size] += line.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
                }
            }
        }
        if rows == 0 || !squares.iter().all(|v| v.is_finite()) {
            bail!(InvalidModel, "the calibration data leads to no values, or to some that are not finite");
        }
        let factor = match options.method {
            PruneMethod::SparseGpt => Some(Factor::new(&gram, size, rows, ColumnOrder::Natural)?),
            _ => None,
        };
        Ok(Seen { norms: squares.iter().map(|v| v.sqrt() as f32).collect(), factor })
    }
}

fn prune(
    target: &Target<'_>,
    seen: &Seen,
    options: &PruneOptions,
    scratch: &Scratch,
    ticket: &Ticket,
) -> Result<Outcome> {
    let inputs = target.layout.inputs;
    if inputs != seen.norms.len() {
        bail!(InvalidModel, "the weight has {inputs} inputs, but receives {}", seen.norms.len());
    }
    let mut values = weights::by_output(target);
    if !values.par_iter().all(|v| v.is_finite()) {
        return Ok(Err("the weight has values that are not finite".to_owned()));
    }
    let zeros = values.par_iter().filter(|v| **v == 0.0).count();
    if options.pattern.is_none() && zeros >= target.zeros(values.len()) {
        return Ok(Err(scores::ENOUGH.to_owned()));
    }
    match &seen.factor {
        Some(factor) => sparsegpt::prune(&mut values, factor, target.sparsity, options.pattern, ticket)?,
        None => wanda(&mut values, &seen.norms, target, options.pattern, ticket)?,
    }
    let how = match options.pattern {
        Some(pattern) => format!("{}, at most {pattern} are kept", options.method.name()),
        None => options.method.name().to_owned(),
    };
    let pruned = weights::store(target, &values, scratch, how, ticket)?;
    ticket.add((target.elements() * target.matrix.width()) as u64);
    Ok(if pruned.zeros_after == pruned.zeros_before { Err(scores::ENOUGH.to_owned()) } else { Ok(pruned) })
}

/// Sets the weights with the smallest scores of each output to zero, as the method Wanda does; among equal scores the
/// first become zero.
fn wanda(
    values: &mut [f32],
    norms: &[f32],
    target: &Target<'_>,
    pattern: Option<Pattern>,
    ticket: &Ticket,
) -> Result<()> {
    let inputs = norms.len();
    values.par_chunks_mut(inputs).with_min_len(16).try_for_each(|row| {
        ticket.check()?;
        let mut order: Vec<(f32, usize)> = Vec::with_capacity(inputs);
        let group = pattern.map_or(inputs, |pattern| pattern.of);
        for (nth, weights) in row.chunks_mut(group).enumerate() {
            let zeros = match pattern {
                Some(pattern) => weights.len().saturating_sub(pattern.keep),
                None => target.zeros(inputs),
            };
            order.clear();
            let score = |(k, w): (usize, &f32)| (w.abs() * norms[nth * group + k], k);
            order.extend(weights.iter().enumerate().map(score));
            if zeros > 0 && zeros < order.len() {
                order.select_nth_unstable_by(zeros - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            }
            order.iter().take(zeros).for_each(|(_, k)| weights[*k] = 0.0);
        }
        Ok(())
    })
}
