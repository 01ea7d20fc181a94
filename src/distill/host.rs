//! Learning on the processor: weights and gradients are memory that the training graph reads and writes in place, and the
//! optimizer is ours.

use super::graph::Graphs;
use super::learner::{Feeding, Learner, Update, Updated};
use super::optimizer::{self, Moments};
use crate::error::{Context, Result, bail};
use crate::model::{Dim, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::runtime::{InPlace, Place, Session, Stop, Tensor};
use std::borrow::Cow;

/// The state, on the processor.
pub struct Host {
    // Dropped before the sessions it is bound to.
    memory: InPlace,
    train: Session,
    measure: Session,
    moments: Vec<Moments>,
    /// Sums of gradients, where a step is made of several runs.
    sums: Vec<Vec<f32>>,
    /// Of the weights.
    names: Vec<String>,
    /// Of the losses.
    parts: Vec<String>,
    pool: rayon::ThreadPool,
}

impl Host {
    /// Weights begin as the student's.
    pub fn new(train: Session, measure: Session, graphs: &Graphs, threads: usize) -> Result<Host> {
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
        Ok(Host {
            memory,
            train,
            measure,
            moments: graphs.parameters.iter().map(|p| Moments::new(p.elements(), p.dims.len() > 1)).collect(),
            sums: Vec::new(),
            names: graphs.parameters.iter().map(|p| p.name.clone()).collect(),
            parts: graphs.parts.iter().map(|part| part.output.clone()).collect(),
            pool: crate::evaluate::pool(threads)?,
        })
    }

    /// Adds the gradients of a run to those before, and puts the sums in their place.
    fn add_up(&mut self) {
        let count = self.moments.len();
        for (index, sum) in self.sums.iter_mut().enumerate() {
            let gradients = self.memory.elements_mut::<f32>(count + index);
            sum.iter_mut().zip(&mut *gradients).for_each(|(sum, g)| {
                *sum += *g;
                *g = *sum;
            });
        }
    }

    fn weight_tensors(&self) -> Result<Feeding> {
        let shape = |name: &str| self.measure.inputs().iter().find(|info| info.name == name).cloned();
        let mut tensors = Vec::with_capacity(self.names.len());
        for (index, name) in self.names.iter().enumerate() {
            let Some(info) = shape(name) else { continue };
            let dims = info.shape.unwrap_or_default().into_iter().map(|dim| match dim {
                Dim::Fixed(size) => size,
                Dim::Symbolic(_) => -1,
            });
            let values = self.memory.elements::<f32>(index).to_vec();
            tensors.push((name.clone(), Tensor::from_f32(&dims.collect::<Vec<i64>>(), values)?));
        }
        Ok(tensors)
    }
}

impl Learner for Host {
    fn inputs(&self) -> &[ValueInfo] {
        self.train.inputs()
    }

    fn gradients(&mut self, feed: &[(&str, &Tensor)], first: bool, stop: &Stop) -> Result<Vec<Tensor>> {
        if !first {
            // What the first run gave is known to be the beginning of a sum only now.
            if self.sums.is_empty() {
                self.sums = self.moments.iter().map(|moments| vec![0.0; moments.first.len()]).collect();
            }
            let count = self.moments.len();
            for (index, sum) in self.sums.iter_mut().enumerate() {
                sum.copy_from_slice(self.memory.elements::<f32>(count + index));
            }
        }
        let losses = self.train.run_in_place(&mut self.memory, feed, stop).at(|| "the student")?;
        if !first {
            self.add_up();
        }
        Ok(losses)
    }

    fn update(&mut self, update: &Update<'_>, _: &Stop) -> Result<Updated> {
        let mut weights = self.memory.all_mut::<f32>();
        let gradients = weights.split_off(self.moments.len());
        let squares: Vec<f64> =
            self.pool.install(|| gradients.iter().map(|gradients| optimizer::square_sum(gradients)).collect());
        let norm = squares.iter().sum::<f64>().sqrt();
        let skipped = !(norm.is_finite() && update.loss_is_finite);
        if !skipped {
            let step = optimizer::Step::new(update.options, update.count, update.learning_rate, norm);
            let moments = &mut self.moments;
            let all = weights.into_iter().zip(gradients).zip(moments);
            self.pool
                .install(|| all.for_each(|((weights, gradients), moments)| step.apply(weights, gradients, moments)));
        }
        Ok(Updated { norm, skipped })
    }

    fn losses(&mut self, feeds: &mut dyn Iterator<Item = Result<Feeding>>, stop: &Stop) -> Result<Vec<Vec<Tensor>>> {
        let weights = self.weight_tensors()?;
        let mut all = Vec::new();
        for feed in feeds {
            let feed = feed?;
            let there = self.measure.inputs();
            let inputs = feed.iter().chain(&weights).filter(|(name, _)| there.iter().any(|info| info.name == *name));
            let inputs: Vec<(&str, &Tensor)> = inputs.map(|(name, tensor)| (name.as_str(), tensor)).collect();
            let asked: Vec<&str> = self.parts.iter().map(String::as_str).collect();
            let made = self.measure.run_until(&inputs, &asked, stop).at(|| "the student")?;
            all.push(made.into_iter().map(|(_, tensor)| tensor).collect());
        }
        Ok(all)
    }

    fn weights(&self) -> Result<Vec<Cow<'_, [f32]>>> {
        Ok((0..self.moments.len()).map(|index| Cow::Borrowed(self.memory.elements(index))).collect())
    }

    fn moments(&self) -> Result<Cow<'_, [Moments]>> {
        Ok(Cow::Borrowed(&self.moments))
    }

    fn restore(&mut self, weights: &[Vec<f32>], moments: Vec<Moments>) -> Result<()> {
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
