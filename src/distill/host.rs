//! Training on the CPU. Weights and gradients are memory that the training graph reads and writes in place, and the
//! optimizer is Rust code. Of tables, only the rows that a `Gather` reads are updated ([`super::table`]).

use super::graph::Graphs;
use super::learner::{Feeding, Learner, Update, Updated, Weights};
use super::optimizer::{self, Moments, Step};
use super::table::Table;
use crate::error::{Context, Result, bail};
use crate::model::{Dim, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::runtime::{InPlace, Place, Session, Stop, Tensor};
use std::borrow::Cow;

/// The training state in the memory of the CPU.
pub struct Host {
    // The binding is dropped before the sessions it is bound to.
    memory: InPlace,
    train: Session,
    measure: Session,
    moments: Vec<Moments>,
    /// Indices of the parameters with a gradient of all elements. In `memory`, these gradients follow the weights, in
    /// this order.
    whole: Vec<usize>,
    /// Sums of whole gradients, for steps of several runs.
    sums: Vec<Vec<f32>>,
    /// States of the other parameters: tables, of which only the rows that were read have a gradient.
    tables: Vec<Table>,
    /// Steps that have not yet been applied to all rows of the tables.
    taken: Vec<Step>,
    /// Names of the weights.
    names: Vec<String>,
    /// Names of the losses.
    parts: Vec<String>,
    pool: rayon::ThreadPool,
}

impl Host {
    /// Returns the state with the initial weights of the student. `threads` is the number of threads of the optimizer.
    /// Fails like [`Session::in_place`], and with `Internal` if threads cannot be started.
    pub fn new(train: Session, measure: Session, graphs: &Graphs, threads: usize) -> Result<Host> {
        let place = |input: Option<&String>, output: Option<&String>, shape: &[i64]| Place {
            input: input.cloned(),
            output: output.cloned(),
            dtype: DataType::Float32,
            shape: shape.to_vec(),
        };
        let weights = graphs.parameters.iter().map(|p| place(Some(&p.name), None, &p.dims));
        let whole: Vec<usize> = (0..graphs.parameters.len()).filter(|i| graphs.lookups[*i].is_none()).collect();
        let gradients = whole.iter().map(|i| place(None, Some(&graphs.gradients[*i]), &graphs.parameters[*i].dims));
        let places: Vec<Place> = weights.chain(gradients).collect();
        let lookups = graphs.lookups.iter().enumerate().filter_map(|(i, lookup)| Some((i, lookup.as_ref()?)));
        let tables = lookups.clone().map(|(i, lookup)| Table::new(i, lookup, &graphs.parameters[i].dims)).collect();
        let losses = graphs.parts.iter().map(|part| part.output.as_str());
        let given: Vec<&str> = losses.chain(lookups.map(|(_, lookup)| lookup.rows.as_str())).collect();
        let mut memory = train.in_place(&places, &given)?;
        for (index, values) in graphs.initial.iter().enumerate() {
            memory.elements_mut::<f32>(index).copy_from_slice(values);
        }
        Ok(Host {
            memory,
            train,
            measure,
            moments: graphs.parameters.iter().map(|p| Moments::new(p.elements(), p.dims.len() > 1)).collect(),
            whole,
            sums: Vec::new(),
            tables,
            taken: Vec::new(),
            names: graphs.parameters.iter().map(|p| p.name.clone()).collect(),
            parts: graphs.parts.iter().map(|part| part.output.clone()).collect(),
            pool: crate::evaluate::pool(threads)?,
        })
    }

    /// Adds the previous gradients to those of a run.
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

    /// Copies the gradients of the previous run to the sums, because those of another run will be added.
    fn keep(&mut self) {
        let count = self.moments.len();
        if self.sums.is_empty() {
            self.sums = self.whole.iter().map(|index| vec![0.0; self.moments[*index].first.len()]).collect();
        }
        for (index, sum) in self.sums.iter_mut().enumerate() {
            sum.copy_from_slice(self.memory.elements::<f32>(count + index));
        }
    }

    /// Applies postponed updates to the rows of tables that a run will read, and returns the indices of these rows for
    /// each table.
    fn prepare(&mut self, feed: &[(&str, &Tensor)], first: bool) -> Result<Vec<Vec<usize>>> {
        let Host { memory, moments, tables, taken, pool, .. } = self;
        let mut weights = memory.all_mut::<f32>();
        let mut all = Vec::with_capacity(tables.len());
        for table in tables {
            if first {
                table.clear();
            }
            let rows = table.rows(feed)?;
            let index = table.parameter;
            pool.install(|| table.prepare(&rows, taken, weights[index], &mut moments[index]));
            all.push(rows);
        }
        Ok(all)
    }

    fn settled(&self) -> Result<()> {
        if !self.taken.is_empty() {
            bail!(Internal, "some rows of the student's tables lack updates");
        }
        Ok(())
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
            self.keep();
        }
        let rows = self.prepare(feed, first)?;
        let mut losses = self.train.run_in_place(&mut self.memory, feed, stop).at(|| "the student")?;
        let gradients = losses.split_off(self.parts.len());
        for ((table, rows), gradients) in self.tables.iter_mut().zip(rows).zip(gradients) {
            table.add(&rows, gradients.as_slice::<f32>()?)?;
        }
        if !first {
            self.add_up();
        }
        Ok(losses)
    }

    fn update(&mut self, update: &Update<'_>, _: &Stop) -> Result<Updated> {
        let Host { memory, moments, whole, tables, taken, pool, .. } = self;
        let mut weights = memory.all_mut::<f32>();
        let gradients = weights.split_off(moments.len());
        let of_gradients = |gradients: &&mut [f32]| optimizer::square_sum(gradients);
        let squares = pool.install(|| {
            gradients.iter().map(of_gradients).sum::<f64>() + tables.iter().map(Table::square_sum).sum::<f64>()
        });
        let norm = squares.sqrt();
        let skipped = !(norm.is_finite() && update.loss_is_finite);
        if !skipped {
            let step = Step::new(update.options, update.count, update.learning_rate, norm);
            pool.install(|| {
                for (index, gradients) in whole.iter().zip(gradients) {
                    step.apply(weights[*index], gradients, &mut moments[*index]);
                }
                if !tables.is_empty() {
                    taken.push(step);
                }
                for table in tables {
                    let index = table.parameter;
                    table.update(taken, weights[index], &mut moments[index]);
                }
            });
        }
        Ok(Updated { norm, skipped })
    }

    fn settle(&mut self) {
        let Host { memory, moments, tables, taken, pool, .. } = self;
        let mut weights = memory.all_mut::<f32>();
        pool.install(|| {
            for table in tables {
                let index = table.parameter;
                table.settle(taken, weights[index], &mut moments[index]);
            }
        });
        taken.clear();
    }

    fn losses(&mut self, feeds: &mut dyn Iterator<Item = Result<Feeding>>, stop: &Stop) -> Result<Vec<Vec<Tensor>>> {
        self.settle();
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

    fn weights(&self) -> Result<Weights<'_>> {
        self.settled()?;
        Ok((0..self.moments.len()).map(|index| Cow::Borrowed(self.memory.elements(index))).collect())
    }

    fn moments(&self) -> Result<Cow<'_, [Moments]>> {
        self.settled()?;
        Ok(Cow::Borrowed(&self.moments))
    }

    fn restore(&mut self, weights: &[Vec<f32>], moments: Vec<Moments>) -> Result<()> {
        if weights.len() != self.moments.len() || moments.len() != self.moments.len() {
            bail!(Internal, "the state belongs to other parameters");
        }
        for (index, values) in weights.iter().enumerate() {
            self.memory.elements_mut::<f32>(index).copy_from_slice(values);
        }
        self.moments = moments;
        self.taken.clear();
        self.tables.iter_mut().for_each(Table::restart);
        Ok(())
    }
}
