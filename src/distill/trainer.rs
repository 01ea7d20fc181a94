//! [`Trainer`]: weights, gradients and moments in memory, and what one step does to them.

use super::DistillOptions;
use super::data::{Batch, Dataset};
use super::feed::Feed;
use super::graph::Graphs;
use super::objective::input;
use super::optimizer::{self, Moments};
use super::teacher::Teacher;
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::model::{Dim, Model};
use crate::onnx::dtype::DataType;
use crate::runtime::{InPlace, Place, Runtime, Session, SessionOptions, Stop, Tensor};
use rayon::prelude::*;

/// Student and teacher on the way through the text.
pub struct Trainer {
    train: Session,
    measure: Session,
    memory: InPlace,
    teacher: Teacher,
    feed: Feed,
    /// Inputs of the training graph that the weights of tokens go to.
    counted: Vec<String>,
    /// Whether labels are classes of rows, not the tokens that follow.
    classifies: bool,
    moments: Vec<Moments>,
    /// Sums of gradients, where a step is made of several runs.
    sums: Vec<Vec<f32>>,
    parts: Vec<(String, f32)>,
    names: Vec<String>,
    pool: rayon::ThreadPool,
}

/// What a step was.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// The loss before the step.
    pub loss: f64,
    /// The norm of the gradients, before it was limited.
    pub norm: f64,
    /// Whether the weights were left as they were, since a gradient was not finite.
    pub skipped: bool,
    /// Tokens learned from.
    pub tokens: u64,
}

impl Trainer {
    /// Makes the sessions and the memory; weights begin as the student's.
    pub fn new(
        runtime: &'static Runtime,
        graphs: &Graphs,
        student: &Model,
        teacher: Teacher,
        options: &DistillOptions,
        call: &Call,
    ) -> Result<Trainer> {
        // Patterns of memory cost a sixth more of it at the peak and gain nothing.
        let session = SessionOptions {
            threads: options.threads,
            varying_sizes: true,
            disable_prepacking: true,
            ..SessionOptions::default()
        };
        let make = |proto| Session::new(runtime, &Model::from_proto(proto), &session, call);
        let train = make(graphs.train.clone()).at(|| "the training graph")?;
        let measure = make(graphs.measure.clone()).at(|| "the training graph")?;
        let place = |input: Option<&String>, output: Option<&String>, shape: &[i64]| Place {
            input: input.cloned(),
            output: output.cloned(),
            dtype: DataType::Float32,
            shape: shape.to_vec(),
        };
        let weights = graphs.parameters.iter().map(|p| place(Some(&p.name), None, &p.dims));
        let gradients = graphs.parameters.iter().zip(&graphs.gradients).map(|(p, g)| place(None, Some(g), &p.dims));
        let places: Vec<Place> = weights.chain(gradients).collect();
        let losses: Vec<&str> = graphs.parts.iter().map(|part| part.output.as_str()).collect();
        let mut memory = train.in_place(&places, &losses)?;
        for (index, values) in graphs.initial.iter().enumerate() {
            memory.elements_mut::<f32>(index).copy_from_slice(values);
        }
        let there: Vec<&str> = train.inputs().iter().map(|info| info.name.as_str()).collect();
        let counted = [input::WEIGHTS, input::ROWS, input::LABELS, input::LABEL_WEIGHTS, input::KEEP];
        let counted = counted.into_iter().filter(|name| there.contains(name)).map(str::to_owned).collect();
        let of_labels = train.inputs().iter().find(|info| info.name == input::LABELS);
        let classifies = of_labels.is_some_and(|info| info.shape.as_ref().is_some_and(|shape| shape.len() == 1));
        let pool = crate::evaluate::pool(options.threads)?;
        Ok(Trainer {
            feed: Feed::new(student)?.only(&there),
            moments: graphs.parameters.iter().map(|p| Moments::new(p.elements(), p.dims.len() > 1)).collect(),
            sums: Vec::new(),
            parts: graphs.parts.iter().map(|part| (part.output.clone(), part.weight)).collect(),
            names: graphs.parameters.iter().map(|p| p.name.clone()).collect(),
            train,
            measure,
            memory,
            teacher,
            counted,
            classifies,
            pool,
        })
    }

    /// One step from the gradients of `batches`.
    pub fn step(
        &mut self,
        batches: &[Batch],
        options: &DistillOptions,
        count: u64,
        learning_rate: f32,
        stop: &Stop,
    ) -> Result<Done> {
        let totals = Totals::of(batches, self.classifies);
        let mut done = Done { tokens: totals.tokens as u64, ..Done::default() };
        for (index, batch) in batches.iter().enumerate() {
            let inputs = self.inputs(batch, &totals, stop)?;
            let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            let losses = self.train.run_in_place(&mut self.memory, &feed, stop).at(|| "the student")?;
            done.loss += weighted(&losses, &self.parts)?.0;
            if batches.len() > 1 {
                self.add_up(index == 0, index + 1 == batches.len());
            }
        }
        let mut weights = self.memory.all_mut::<f32>();
        let gradients = weights.split_off(self.moments.len());
        let squares: Vec<f64> =
            self.pool.install(|| gradients.iter().map(|gradients| optimizer::square_sum(gradients)).collect());
        done.norm = squares.iter().sum::<f64>().sqrt();
        done.skipped = !(done.norm.is_finite() && done.loss.is_finite());
        if !done.skipped {
            let step = optimizer::Step::new(options, count, learning_rate, done.norm);
            let moments = &mut self.moments;
            let all = weights.into_iter().zip(gradients).zip(moments);
            self.pool
                .install(|| all.for_each(|((weights, gradients), moments)| step.apply(weights, gradients, moments)));
        }
        Ok(done)
    }

    /// Adds the gradients of a run to those before; puts the sum in their place after the last.
    fn add_up(&mut self, first: bool, last: bool) {
        let count = self.moments.len();
        if self.sums.is_empty() {
            self.sums = self.moments.iter().map(|moments| vec![0.0; moments.first.len()]).collect();
        }
        let (sums, memory) = (&mut self.sums, &mut self.memory);
        for (index, sum) in sums.iter_mut().enumerate() {
            let gradients = memory.elements_mut::<f32>(count + index);
            match first {
                true => sum.copy_from_slice(gradients),
                false => sum.iter_mut().zip(&*gradients).for_each(|(sum, g)| *sum += g),
            }
            if last {
                gradients.copy_from_slice(sum);
            }
        }
    }

    /// All inputs of the training graph but the weights.
    fn inputs(&mut self, batch: &Batch, totals: &Totals, stop: &Stop) -> Result<Vec<(String, Tensor)>> {
        let mut inputs = self.feed.tensors(batch)?;
        inputs.extend(self.teacher.say(batch, stop)?);
        let both = [batch.rows as i64, batch.columns as i64];
        for name in &self.counted {
            let of_tokens = |value: f64| batch.keep.iter().map(|k| if *k { value as f32 } else { 0.0 }).collect();
            let tensor = match name.as_str() {
                input::WEIGHTS => Tensor::from_f32(&both, of_tokens(1.0 / totals.tokens as f64))?,
                input::KEEP => Tensor::from_f32(&both, of_tokens(1.0))?,
                input::ROWS => Tensor::from_f32(&both[..1], vec![(1.0 / totals.rows as f64) as f32; batch.rows])?,
                input::LABELS => {
                    let labels: Vec<i64> = labels(batch, self.classifies).map(|label| label.unwrap_or(0)).collect();
                    Tensor::from_i64(&both[..2 - usize::from(self.classifies)], labels)?
                }
                _ => {
                    let value = (1.0 / totals.labelled.max(1) as f64) as f32;
                    let counts = labels(batch, self.classifies).map(|label| if label.is_some() { value } else { 0.0 });
                    Tensor::from_f32(&both[..2 - usize::from(self.classifies)], counts.collect())?
                }
            };
            inputs.push((name.clone(), tensor));
        }
        Ok(inputs)
    }

    /// The loss on the text kept for measuring, and each part of it.
    pub fn measure(&mut self, batches: &[Batch], stop: &Stop) -> Result<(f64, Vec<f64>)> {
        let weights: Vec<(String, Tensor)> = self.weight_tensors()?;
        let totals = Totals::of(batches, self.classifies);
        let (mut sum, mut parts) = (0.0, vec![0.0; self.parts.len()]);
        for batch in batches {
            let mut inputs = self.inputs(batch, &totals, stop)?;
            let there = self.measure.inputs();
            inputs.extend(weights.iter().cloned());
            inputs.retain(|(name, _)| there.iter().any(|info| info.name == *name));
            let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            let asked: Vec<&str> = self.parts.iter().map(|(name, _)| name.as_str()).collect();
            let made = self.measure.run_until(&feed, &asked, stop).at(|| "the student")?;
            let losses: Vec<Tensor> = made.into_iter().map(|(_, tensor)| tensor).collect();
            let (total, each) = weighted(&losses, &self.parts)?;
            sum += total;
            parts.iter_mut().zip(each).for_each(|(part, more)| *part += more);
        }
        Ok((sum, parts))
    }

    fn weight_tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let shape = |name: &str| self.measure.inputs().iter().find(|info| info.name == name).cloned();
        let mut tensors = Vec::with_capacity(self.names.len());
        for (index, name) in self.names.iter().enumerate() {
            let Some(info) = shape(name) else { continue };
            let shape = info.shape.unwrap_or_default();
            let dims = shape.iter().map(|dim| match dim {
                Dim::Fixed(size) => *size,
                Dim::Symbolic(_) => -1,
            });
            let values = self.memory.elements::<f32>(index).to_vec();
            tensors.push((name.clone(), Tensor::from_f32(&dims.collect::<Vec<i64>>(), values)?));
        }
        Ok(tensors)
    }

    /// The weights as they are.
    pub fn weights(&self) -> Vec<&[f32]> {
        (0..self.moments.len()).map(|index| self.memory.elements(index)).collect()
    }

    /// A copy of the weights.
    pub fn snapshot(&self) -> Vec<Vec<f32>> {
        self.weights().par_iter().map(|values| values.to_vec()).collect()
    }

    /// The moments as they are.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// Goes back to a state.
    pub fn restore(&mut self, weights: &[Vec<f32>], moments: Vec<Moments>) -> Result<()> {
        if weights.len() != self.moments.len() || moments.len() != self.moments.len() {
            bail!(Internal, "a state of other parameters");
        }
        for (index, values) in weights.iter().enumerate() {
            self.memory.elements_mut::<f32>(index).copy_from_slice(values);
        }
        self.moments = moments;
        Ok(())
    }
}

/// The sum of the parts, each times what it counts, and each alone.
fn weighted(losses: &[Tensor], parts: &[(String, f32)]) -> Result<(f64, Vec<f64>)> {
    let mut each = Vec::with_capacity(parts.len());
    for loss in losses {
        each.push(f64::from(loss.as_slice::<f32>()?.first().copied().unwrap_or(f32::NAN)));
    }
    let sum = each.iter().zip(parts).map(|(loss, (_, weight))| loss * f64::from(*weight)).sum();
    Ok((sum, each))
}

/// What losses are divided by.
struct Totals {
    tokens: usize,
    rows: usize,
    /// Tokens that another follows, or rows of a known class.
    labelled: usize,
}

/// What is right for each token, or for each row: the token that follows, or the class.
fn labels(batch: &Batch, classifies: bool) -> Box<dyn Iterator<Item = Option<i64>> + '_> {
    match classifies {
        true => Box::new(batch.classes.iter().copied()),
        false => Box::new(batch.next()),
    }
}

impl Totals {
    fn of(batches: &[Batch], classifies: bool) -> Totals {
        Totals {
            tokens: batches.iter().map(Batch::tokens).sum::<usize>().max(1),
            rows: batches.iter().map(|batch| batch.rows).sum::<usize>().max(1),
            labelled: batches.iter().map(|batch| labels(batch, classifies).flatten().count()).sum(),
        }
    }
}

/// What is kept for measuring, in batches like those that are learned from.
pub fn held_out(data: &Dataset, batch_size: usize) -> Vec<Batch> {
    data.held(batch_size, MEASURED)
}

/// Tokens that a measurement during training reads, about.
const MEASURED: usize = 4096;
