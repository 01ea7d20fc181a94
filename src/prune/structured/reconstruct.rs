//! Least squares: the weights that read what is left take over what they can of what is gone.
//!
//! Weights are taken in the order in which they run, each for what the changed weights before it give. With `X` what a
//! weight `W` is given and `X_k` those columns of `X` that stay, the rows that stay become
//! `W' = W_k + (X_kᵀ X_k + d)⁻¹ X_kᵀ X_g W_g` with what goes in `X_g W_g`: `X_k W'` is as near to `X W` as can be. Where
//! a bias is added, means are taken off first, and the bias takes the difference. (To aim at what the model gave before
//! it was cut, instead of `X W`, overfits: it cost 1 to 25 % in perplexity on other text.)

use super::Plan;
use super::analysis::{Analysis, Consumer, sorted};
use super::axes::{Axis, Kept};
use super::{cut, tensors};
use crate::calibrate::{Batch, ColumnOrder, Factor, Products, Walk};
use crate::call::{Call, Ticket};
use crate::error::{Context, Result, bail, error};
use crate::files::Scratch;
use crate::graph::constants::Matrix;
use crate::graph::edit;
use crate::onnx::dtype::DataType;
use crate::onnx::order::reads;
use crate::onnx::proto::TensorProto;
use crate::runtime::{Runtime, Stop, Tensor};
use std::collections::HashMap;

/// What was changed.
#[derive(Default)]
pub struct Done {
    /// Whole weights, zero where units go, by name.
    pub weights: HashMap<String, TensorProto>,
    /// What was not, and why.
    pub notes: Vec<String>,
}

/// Changes every weight that reads units that go, where there is a way.
pub fn all(
    plan: &Plan,
    analysis: &Analysis<'_>,
    kept: &Kept,
    (runtime, batches): (&'static Runtime, &[Batch]),
    call: &Call,
) -> Result<Done> {
    let mut done = Done::default();
    let jobs = jobs(analysis, kept, &mut done.notes);
    if jobs.is_empty() {
        return Ok(done);
    }
    let (model, threads) = (&plan.model, plan.options.threads);
    let masks: Vec<TensorProto> = cut::consumed(analysis, kept)
        .into_iter()
        .filter(|(name, _, _)| !jobs.iter().any(|job| job.weight == *name))
        .map(|(name, at, list)| Ok(named(tensors::zeroed(analysis.constants[name], at, list)?, name)))
        .collect::<Result<_>>()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| error!(Internal, "the worker threads could not be started: {e}"))?;
    let folder = plan.options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    let stop = Stop::new()?;
    let work = |ticket: &Ticket| {
        pool.install(|| {
            let asked: Vec<&str> = jobs.iter().map(|job| job.input.as_str()).collect();
            let mut changed = Walk::new(runtime, model, threads, batches, &asked)?;
            masks.into_iter().for_each(|mask| changed.replace(mask));
            let mut solver =
                Solver { products: Products::new(runtime, threads)?, scratch: Scratch::new(&folder), stop: &stop };
            let mut known: Option<(Key<'_>, Moments)> = None;
            let (mut weights, mut scarce) = (HashMap::new(), 0);
            for job in &jobs {
                ticket.check()?;
                let key = (job.input.as_str(), job.kept.as_slice(), job.bias.is_some());
                if known.as_ref().is_none_or(|(of, _)| *of != key) {
                    let x = changed.value(&job.input, &stop)?;
                    known = Some((key, solver.moments(job, &x).at(|| format!("value {:?}", job.input))?));
                }
                let Some((_, moments)) = &known else { continue };
                let inputs = job.kept.len() + moments.gone.len();
                scarce += usize::from(moments.rows < 2 * inputs);
                if moments.rows < inputs {
                    continue; // Least squares would fit the few rows there are and ruin all others.
                }
                for tensor in solver.solve(job, moments).at(|| format!("tensor {:?}", job.weight))? {
                    changed.replace(tensor.clone());
                    weights.insert(tensor.name.clone().unwrap_or_default(), tensor);
                }
                ticket.add(1);
            }
            Ok((weights, scarce))
        })
    };
    let (weights, scarce) = call.drive("reconstruct", jobs.len() as u64, work)?;
    if scarce > 0 {
        done.notes.push(format!(
            "{scarce} weights have fewer rows of calibration data than twice their inputs (with fewer than their inputs \
             they are not reconstructed): more data would serve them better"
        ));
    }
    done.weights = weights;
    Ok(done)
}

/// What moments depend on: the value, what stays of it, whether means are taken off.
type Key<'k> = (&'k str, &'k [u32], bool);

/// A weight to change.
struct Job {
    weight: String,
    tensor: TensorProto,
    /// The dimension of the weight that is summed over.
    at: usize,
    /// What stays of it.
    kept: Vec<u32>,
    input: String,
    /// The bias that is added to the product.
    bias: Option<(String, TensorProto)>,
}

/// The weights that can be changed, in the order in which they run.
fn jobs(analysis: &Analysis<'_>, kept: &Kept, notes: &mut Vec<String>) -> Vec<Job> {
    let mut place = vec![0usize; analysis.graph.node.len()];
    sorted(analysis.graph).into_iter().enumerate().for_each(|(at, node)| place[node] = at);
    let mut list: Vec<&Consumer<'_>> = analysis.consumers.iter().collect();
    list.sort_by_key(|consumer| place[consumer.node as usize]);
    let mut jobs = Vec::new();
    for consumer in list.into_iter().filter(|c| kept.of(Axis::Units(c.axis)).is_some()) {
        match job(analysis, kept, consumer) {
            Ok(job) => jobs.push(job),
            Err(why) => notes.push(format!("the weight {:?} is not reconstructed: {why}", consumer.constant)),
        }
    }
    jobs
}

fn job(analysis: &Analysis<'_>, kept: &Kept, consumer: &Consumer<'_>) -> std::result::Result<Job, &'static str> {
    let node = &analysis.graph.node[consumer.node as usize];
    let (tensor, value) = (analysis.constants[consumer.constant], &analysis.values[consumer.constant]);
    let holds = |axis: &Axis| matches!(axis, Axis::Units(id) if *id == consumer.axis);
    let at = value.axes.iter().position(holds).ok_or("it is not stored as it is used")?;
    let input = analysis.values.get(consumer.input).ok_or("what it is given is not known")?;
    if !(node.is("MatMul") || node.is("Gemm")) || value.rank() != 2 || consumer.dimension + 1 != input.rank() {
        return Err("it is no matrix that rows are multiplied with");
    }
    if uses(analysis, consumer.constant) != 1 {
        return Err("it is used more than once");
    }
    if node.float("alpha", 1.0) != 1.0 || node.float("beta", 1.0) != 1.0 {
        return Err("its product is scaled");
    }
    let list = kept.of(Axis::Units(consumer.axis)).unwrap_or_default();
    Ok(Job {
        weight: consumer.constant.to_owned(),
        tensor: tensor.clone(),
        at,
        kept: list.to_vec(),
        input: consumer.input.to_owned(),
        bias: bias(analysis, consumer),
    })
}

/// How many nodes read a value.
fn uses(analysis: &Analysis<'_>, name: &str) -> usize {
    analysis.graph.node.iter().flat_map(reads).filter(|read| *read == name).count()
}

/// A vector that is added to nothing but the product.
fn bias(analysis: &Analysis<'_>, consumer: &Consumer<'_>) -> Option<(String, TensorProto)> {
    let node = &analysis.graph.node[consumer.node as usize];
    let output = node.output.first()?;
    let name = match node.input_at(2).filter(|_| node.is("Gemm")) {
        Some(name) => name,
        None => {
            let mut readers = analysis.graph.node.iter().filter(|n| reads(n).contains(&output.as_str()));
            let add = readers.next().filter(|n| n.is("Add"))?;
            if readers.next().is_some() || analysis.graph.output.iter().any(|o| o.name.as_ref() == Some(output)) {
                return None;
            }
            add.input.iter().map(String::as_str).find(|name| *name != output)?
        }
    };
    let tensor = analysis.constants.get(name)?;
    let float = matches!(
        DataType::from_onnx(tensor.data_type.unwrap_or(0)),
        Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16)
    );
    (tensor.dims.len() == 1 && float && uses(analysis, name) == 1).then(|| (name.to_owned(), (*tensor).clone()))
}

/// What flowed into a weight.
struct Moments {
    /// `[kept, gone]`: `(X_kᵀ X_k + d)⁻¹ X_kᵀ X_g`.
    change: Tensor,
    /// What goes, in order.
    gone: Vec<usize>,
    /// Rows of `X`.
    rows: usize,
    /// Means of `X`, if there is a bias.
    means: Option<Vec<f64>>,
}

struct Solver<'s> {
    products: Products,
    scratch: Scratch,
    stop: &'s Stop,
}

impl Solver<'_> {
    fn moments(&mut self, job: &Job, x: &[Tensor]) -> Result<Moments> {
        let size = usize::try_from(job.tensor.dims[job.at]).unwrap_or(0);
        let Moment { sum: mut gram, rows } = Moment::of(x, size, &mut self.products, self.stop)?;
        let count = rows.max(1) as f64;
        let means = match job.bias {
            None => None,
            Some(_) => {
                let mut means = vec![0f64; size];
                x.iter().try_for_each(|x| add_rows(&mut means, &rows_of(x, size)?))?;
                means.iter_mut().for_each(|sum| *sum /= count);
                for (i, row) in gram.chunks_exact_mut(size).enumerate() {
                    row.iter_mut().zip(&means).for_each(|(g, mean)| *g -= (count * means[i] * mean) as f32);
                }
                Some(means)
            }
        };
        let stays: Vec<usize> = job.kept.iter().map(|k| *k as usize).collect();
        let gone: Vec<usize> = (0..size).filter(|i| stays.binary_search(i).is_err()).collect();
        let part = |columns: &[usize]| -> Vec<f32> {
            stays.iter().flat_map(|i| columns.iter().map(move |j| i * size + j)).map(|at| gram[at]).collect()
        };
        let factor = Factor::new(&part(&stays), stays.len(), rows, ColumnOrder::Importance)?;
        let square = [stays.len() as i64; 2];
        let upper = Tensor::from_f32(&square, factor.upper_as_inputs())?;
        let inverse = Tensor::from_f32(&square, self.products.turned(&upper, &upper, self.stop)?)?;
        let shape = [stays.len() as i64, gone.len() as i64];
        let cross = part(&gone).into_iter().map(|v| (f64::from(v) / count) as f32).collect();
        let change = self.products.product(&inverse, &Tensor::from_f32(&shape, cross)?, self.stop)?;
        Ok(Moments { change: Tensor::from_f32(&shape, change)?, gone, rows, means })
    }

    /// The changed weight, and bias if it has one.
    fn solve(&mut self, job: &Job, moments: &Moments) -> Result<Vec<TensorProto>> {
        let matrix = Matrix::new(&job.tensor)?;
        let (size, outputs) = if job.at == 0 { (matrix.rows, matrix.columns) } else { (matrix.columns, matrix.rows) };
        let weight = read(&matrix, job.at);
        let lost = moments.gone.iter().flat_map(|i| weight[i * outputs..(i + 1) * outputs].to_vec()).collect();
        let lost = Tensor::from_f32(&[moments.gone.len() as i64, outputs as i64], lost)?;
        let change = self.products.product(&moments.change, &lost, self.stop)?;
        let mut new = vec![0f32; size * outputs];
        for (k, index) in job.kept.iter().enumerate() {
            let row = *index as usize * outputs..(*index as usize + 1) * outputs;
            let change = &change[k * outputs..(k + 1) * outputs];
            let values = weight[row.clone()].iter().zip(change).map(|(w, c)| w + c);
            new[row].iter_mut().zip(values).for_each(|(new, value)| *new = value);
        }
        if !new.iter().all(|v| v.is_finite()) {
            bail!(InvalidModel, "least squares gives values that are not finite");
        }
        let mut changed = Vec::new();
        if let (Some((name, bias)), Some(means)) = (&job.bias, &moments.means) {
            let mut shift = vec![0f64; outputs];
            for (i, mean) in means.iter().enumerate() {
                let (old, now) = (&weight[i * outputs..][..outputs], &new[i * outputs..][..outputs]);
                let differences = old.iter().zip(now).map(|(old, now)| f64::from(*old) - f64::from(*now));
                shift.iter_mut().zip(differences).for_each(|(shift, difference)| *shift += mean * difference);
            }
            let before = floats(bias)?;
            let values: Vec<f32> = before.iter().zip(&shift).map(|(b, s)| b + *s as f32).collect();
            if values.len() == outputs {
                changed.push(self.store(name, bias, &values)?);
            }
        }
        let new = if job.at == 0 { new } else { turned(&new, size, outputs) };
        changed.push(self.store(&job.weight, &job.tensor, &new)?);
        Ok(changed)
    }

    /// A tensor like another with other values, in scratch room.
    fn store(&self, name: &str, like: &TensorProto, values: &[f32]) -> Result<TensorProto> {
        let dtype = DataType::from_onnx(like.data_type.unwrap_or(0)).unwrap_or(DataType::Float32);
        let bytes: Vec<u8> = match dtype {
            DataType::Float16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
            DataType::Bfloat16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        let slot = self.scratch.reserve(bytes.len())?;
        slot.write_at(0, &bytes)?;
        Ok(edit::tensor(name, dtype, &like.dims, slot.finish()?))
    }
}

/// `Σ xᵀx` over all rows of a value.
struct Moment {
    /// `[size, size]`.
    sum: Vec<f32>,
    /// Rows that were summed.
    rows: usize,
}

impl Moment {
    /// Of rows of `size`.
    fn of(x: &[Tensor], size: usize, products: &mut Products, stop: &Stop) -> Result<Moment> {
        let mut moment = Moment { sum: vec![0f32; size * size], rows: 0 };
        for x in x {
            let x = rows_of(x, size)?;
            add(&mut moment.sum, &products.turned(&x, &x, stop)?);
            moment.rows += x.shape()[0] as usize;
        }
        Ok(moment)
    }
}

/// A matrix as `[inputs, outputs]`.
fn read(matrix: &Matrix, at: usize) -> Vec<f32> {
    let mut values = vec![0f32; matrix.elements()];
    for (row, out) in values.chunks_exact_mut(matrix.columns.max(1)).enumerate() {
        matrix.read(row, 0, out);
    }
    if at == 0 { values } else { turned(&values, matrix.rows, matrix.columns) }
}

fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0f32; values.len()];
    for r in 0..rows {
        for c in 0..columns {
            out[c * rows + r] = values[r * columns + c];
        }
    }
    out
}

/// The values of a vector.
fn floats(tensor: &TensorProto) -> Result<Vec<f32>> {
    let row = TensorProto { dims: vec![1, tensor.dims.iter().product()], ..tensor.clone() };
    Ok(read(&Matrix::new(&row)?, 0))
}

fn named(tensor: TensorProto, name: &str) -> TensorProto {
    TensorProto { name: Some(name.to_owned()), ..tensor }
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

fn add_rows(sums: &mut [f64], rows: &Tensor) -> Result<()> {
    for row in rows.as_slice::<f32>()?.chunks_exact(sums.len().max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    Ok(())
}

/// `[rows, size]` in float32.
fn rows_of(tensor: &Tensor, size: usize) -> Result<Tensor> {
    if tensor.shape().last().copied() != Some(size as i64) || size == 0 {
        bail!(InvalidModel, "is {}, not rows of {size}", tensor.describe());
    }
    let values = tensor.to_f32_vec()?;
    Tensor::from_f32(&[(values.len() / size) as i64, size as i64], values)
}
