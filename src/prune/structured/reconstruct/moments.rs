//! The moments of the inputs of a weight, from which its change is computed.

use super::jobs::Job;
use crate::calibrate::{Batch, ColumnOrder, Factor, Products};
use crate::error::{Result, bail};
use crate::files::Scratch;
use crate::graph::constants::Matrix;
use crate::graph::edit;
use crate::graph::floats::{floats, store};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::TensorProto;
use crate::runtime::{Stop, Tensor};

/// The shares of the mean diagonal of `X_kᵀ X_k` that are tried as `d`.
const RIDGES: [f64; 3] = [0.01, 0.1, 1.0];

/// The moments of the inputs of a weight, and the change that follows from them.
pub struct Moments {
    /// Matrix of the change `[kept, gone]`: `(X_kᵀ X_k + d)⁻¹ X_kᵀ X_g`; `None` if no `d` improved held-out data.
    change: Option<Tensor>,
    /// Indices of the removed elements, in order.
    gone: Vec<usize>,
    /// Number of rows of `X`.
    pub rows: usize,
    /// Means of `X`, if there is a bias.
    means: Option<Vec<f64>>,
}

impl Moments {
    /// Returns whether the kept rows are changed, and not only the bias.
    pub fn helps(&self) -> bool {
        self.change.is_some()
    }
}

/// The sum `Σ xᵀx` over half of the data.
struct Half {
    gram: Vec<f32>,
    rows: usize,
}

/// The kept and the removed inputs of a weight.
struct Parts {
    size: usize,
    stays: Vec<usize>,
    gone: Vec<usize>,
}

impl Parts {
    fn of(job: &Job) -> Parts {
        let stays: Vec<usize> = job.kept.iter().map(|k| *k as usize).collect();
        let gone = (0..job.size()).filter(|i| stays.binary_search(i).is_err()).collect();
        Parts { size: job.size(), stays, gone }
    }

    /// Returns the given columns of the kept rows of `gram`.
    fn of_gram(&self, gram: &[f32], columns: &[usize]) -> Vec<f32> {
        let row = |i: &usize| columns.iter().map(move |j| gram[i * self.size + j]).collect::<Vec<f32>>();
        self.stays.iter().flat_map(row).collect()
    }

    fn square(&self) -> [i64; 2] {
        [self.stays.len() as i64; 2]
    }

    fn cross(&self) -> [i64; 2] {
        [self.stays.len() as i64, self.gone.len() as i64]
    }
}

/// A solver that computes [`Moments`], and the new weights from them.
pub struct Solver<'s> {
    /// Sessions that compute products of matrices.
    pub products: Products,
    /// Storage for the changed weights.
    pub scratch: Scratch,
    /// Switch that ends the products.
    pub stop: &'s Stop,
}

impl Solver<'_> {
    /// Returns the moments of the inputs of a weight. Each `d` is tried with half of the data; the one that most
    /// improves this weight on the other half is used (a text is entirely in one half, because its tokens are
    /// correlated). Fails if a product of matrices cannot be computed, also because the call ended.
    pub fn moments(&mut self, job: &Job, batches: &[Batch], x: &[Tensor]) -> Result<Moments> {
        let parts = Parts::of(job);
        let shares = self.shares(job, batches, x)?;
        let means = match job.bias {
            None => None,
            Some(_) => Some(means(job, batches, x, &shares)?),
        };
        let [mut all, other] = self.halves(job, batches, x, &shares, means.as_deref())?;
        let mut ridge = Some(RIDGES[0]);
        if other.rows > 0 {
            ridge = self.best(job, &parts, &all, &other)?;
            all.gram.iter_mut().zip(&other.gram).for_each(|(sum, value)| *sum += value);
            all.rows += other.rows;
        }
        let change = match ridge {
            Some(ridge) => Some(self.change(&parts, &all, ridge)?),
            None => None,
        };
        Ok(Moments { change, gone: parts.gone, rows: all.rows, means })
    }

    /// Returns the factor of each row in the least-squares fit, for each batch: `2 / (1 + ‖x W‖² / m)`, where `m` is
    /// the median of `‖x W‖²` over all rows; 1 if `m` is 0. In transformers, the outputs of a few tokens (the first
    /// one, punctuation) are a hundred times as large as those of others and are normalized afterwards. Without the
    /// factor, these tokens would determine the fit.
    fn shares(&mut self, job: &Job, batches: &[Batch], x: &[Tensor]) -> Result<Vec<Vec<f32>>> {
        let weight = read(&job.matrix()?, job.at);
        let outputs = weight.len() / job.size().max(1);
        let weight = Tensor::from_f32(&[job.size() as i64, outputs as i64], weight)?;
        let mut squares: Vec<Vec<f32>> = Vec::with_capacity(x.len());
        for (x, batch) in x.iter().zip(batches) {
            let y = self.products.product(&job.rows(batch, x, batches.len())?, &weight, self.stop)?;
            squares.push(y.chunks_exact(outputs.max(1)).map(|row| row.iter().map(|v| v * v).sum()).collect());
        }
        let mut all: Vec<f32> = squares.iter().flatten().copied().collect();
        let middle = all.len() / 2;
        let median = match all.is_empty() {
            true => 0.0,
            false => *all.select_nth_unstable_by(middle, f32::total_cmp).1,
        };
        let share = |square: &mut f32| *square = if median > 0.0 { 2.0 * median / (median + *square) } else { 1.0 };
        squares.iter_mut().flatten().for_each(share);
        Ok(squares)
    }

    fn halves(
        &mut self,
        job: &Job,
        batches: &[Batch],
        x: &[Tensor],
        shares: &[Vec<f32>],
        means: Option<&[f64]>,
    ) -> Result<[Half; 2]> {
        let size = job.size();
        let mut halves = [0, 1].map(|_| Half { gram: vec![0f32; size * size], rows: 0 });
        for (index, ((x, batch), shares)) in x.iter().zip(batches).zip(shares).enumerate() {
            let rows = job.rows(batch, x, batches.len())?;
            if rows.elements() == 0 {
                continue;
            }
            let mut values = rows.to_f32_vec()?;
            for (row, share) in values.chunks_exact_mut(size.max(1)).zip(shares) {
                // The means are subtracted before squaring. If they were subtracted afterwards, the result would be the
                // difference of two large sums, with a large rounding error.
                means.iter().for_each(|means| row.iter_mut().zip(*means).for_each(|(v, mean)| *v -= *mean as f32));
                row.iter_mut().for_each(|v| *v *= share.sqrt());
            }
            let x = Tensor::from_f32(rows.shape(), values)?;
            let half = &mut halves[index % 2];
            add(&mut half.gram, &self.products.transposed(&x, &x, self.stop)?);
            half.rows += rows.elements() / size.max(1);
        }
        Ok(halves)
    }

    /// Returns the `d` with the smallest error on the data `tried`; `None` if none has a smaller error than changing
    /// only the bias.
    fn best(&mut self, job: &Job, parts: &Parts, made: &Half, tried: &Half) -> Result<Option<f64>> {
        let weight = read(&job.matrix()?, job.at);
        let lost = lost(&weight, parts.size, &parts.gone)?;
        let cross = Tensor::from_f32(&parts.cross(), parts.of_gram(&tried.gram, &parts.gone))?;
        let wanted = self.products.product(&cross, &lost, self.stop)?;
        let square = Tensor::from_f32(&parts.square(), parts.of_gram(&tried.gram, &parts.stays))?;
        let (mut best, mut least) = (None, 0f64);
        for ridge in RIDGES {
            let change = self.change(parts, made, ridge)?;
            let change = self.products.product(&change, &lost, self.stop)?;
            let shape = [parts.stays.len() as i64, lost.shape()[1]];
            let change = Tensor::from_f32(&shape, change)?;
            let squares = self.products.product(&square, &change, self.stop)?;
            // The difference from the error if only the bias is changed.
            let terms = change.as_slice::<f32>()?.iter().zip(squares.iter().zip(&wanted));
            let error: f64 = terms.map(|(d, (s, w))| f64::from(*d) * (f64::from(*s) - 2.0 * f64::from(*w))).sum();
            if error < least {
                (best, least) = (Some(ridge), error);
            }
        }
        Ok(best)
    }

    fn change(&mut self, parts: &Parts, half: &Half, ridge: f64) -> Result<Tensor> {
        let gram = parts.of_gram(&half.gram, &parts.stays);
        let factor = Factor::damped(&gram, parts.stays.len(), half.rows, ColumnOrder::Importance, ridge)?;
        let upper = Tensor::from_f32(&parts.square(), factor.upper_as_inputs())?;
        let inverse = Tensor::from_f32(&parts.square(), self.products.transposed(&upper, &upper, self.stop)?)?;
        let count = half.rows.max(1) as f64;
        let cross = parts.of_gram(&half.gram, &parts.gone);
        let cross = cross.into_iter().map(|v| (f64::from(v) / count) as f32).collect();
        let cross = Tensor::from_f32(&parts.cross(), cross)?;
        Tensor::from_f32(&parts.cross(), self.products.product(&inverse, &cross, self.stop)?)
    }

    /// Returns the changed weight, and the changed bias if the weight has one. Fails with `InvalidModel` if a new value
    /// is not finite, with `Unsupported` if the bias is not float, and if a product of matrices cannot be computed.
    pub fn solve(&mut self, job: &Job, moments: &Moments) -> Result<Vec<TensorProto>> {
        let matrix = job.matrix()?;
        let (size, outputs) = if job.at == 0 { (matrix.rows, matrix.columns) } else { (matrix.columns, matrix.rows) };
        let weight = read(&matrix, job.at);
        let change = match &moments.change {
            Some(change) => self.products.product(change, &lost(&weight, size, &moments.gone)?, self.stop)?,
            None => vec![0f32; job.kept.len() * outputs],
        };
        let mut new = vec![0f32; size * outputs];
        for (k, index) in job.kept.iter().enumerate() {
            let row = *index as usize * outputs..(*index as usize + 1) * outputs;
            let change = &change[k * outputs..(k + 1) * outputs];
            let values = weight[row.clone()].iter().zip(change).map(|(w, c)| w + c);
            new[row].iter_mut().zip(values).for_each(|(new, value)| *new = value);
        }
        if !new.iter().all(|v| v.is_finite()) {
            bail!(InvalidModel, "least squares produced values that are not finite");
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
        let new = if job.at == 0 { new } else { transposed(&new, size, outputs) };
        changed.push(self.store(&job.weight, &job.tensor, &new)?);
        Ok(changed)
    }

    /// Returns a tensor with the name `name`, the type of `like` and other values, in scratch storage.
    fn store(&self, name: &str, like: &TensorProto, values: &[f32]) -> Result<TensorProto> {
        let dtype = like.dtype().unwrap_or(DataType::Float32);
        Ok(edit::tensor(name, dtype, &like.dims, store(values, dtype, &self.scratch)?))
    }
}

/// Returns the removed rows of a weight `[inputs, outputs]`.
fn lost(weight: &[f32], inputs: usize, gone: &[usize]) -> Result<Tensor> {
    let outputs = weight.len() / inputs.max(1);
    let rows = gone.iter().flat_map(|i| &weight[i * outputs..(i + 1) * outputs]).copied().collect();
    Tensor::from_f32(&[gone.len() as i64, outputs as i64], rows)
}

fn means(job: &Job, batches: &[Batch], x: &[Tensor], shares: &[Vec<f32>]) -> Result<Vec<f64>> {
    let (mut sums, mut count) = (vec![0f64; job.size()], 0f64);
    for ((x, batch), shares) in x.iter().zip(batches).zip(shares) {
        let rows = job.rows(batch, x, batches.len())?;
        for (row, share) in rows.as_slice::<f32>()?.chunks_exact(sums.len().max(1)).zip(shares) {
            let share = f64::from(*share);
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += share * f64::from(*value));
            count += share;
        }
    }
    sums.iter_mut().for_each(|sum| *sum /= count.max(f64::MIN_POSITIVE));
    Ok(sums)
}

/// Returns the elements of a matrix as `[inputs, outputs]`.
fn read(matrix: &Matrix, at: usize) -> Vec<f32> {
    let values = matrix.values();
    if at == 0 { values } else { transposed(&values, matrix.rows, matrix.columns) }
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0f32; values.len()];
    for r in 0..rows {
        for c in 0..columns {
            out[c * rows + r] = values[r * columns + c];
        }
    }
    out
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}
