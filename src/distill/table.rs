//! A weight that is read row by row ([`Table`]), like an embedding table, of which a step reads few rows.
//!
//! Only the rows that were read get gradients. A gradient for all rows would be zero almost everywhere; computing it
//! and running the optimizer over the whole table would cost more than the layers of some students. Rows that were not
//! read change nevertheless (their moments fade, weights decay): they are updated before they are read next, by the
//! same numbers in the same order. So the result equals that of a whole gradient, except for the order of sums if a
//! step consists of several runs.

use super::optimizer::{self, Moments, Step};
use crate::autodiff::Tape;
use crate::error::{Result, bail};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{NodeProto, ValueInfoProto};
use crate::runtime::Tensor;
use rayon::prelude::*;

/// The names of the values from which the gradient of a table follows in a training graph.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Name of the input with the row ids.
    pub ids: String,
    /// Name of the value with a gradient for each of these ids.
    pub rows: String,
}

/// Returns the parts of the value `gradient`, if it is a sum of rows at the ids of one of `inputs`; otherwise `None`.
pub fn lookup(tape: &Tape, inputs: &[ValueInfoProto], gradient: &str) -> Option<Lookup> {
    let maker = |name: &str, op: &str| tape.nodes.iter().find(|n| n.is(op) && n.output.iter().any(|o| o == name));
    let sum = maker(gradient, "ScatterND").filter(|node| adds(node))?;
    maker(sum.input_at(0)?, "ConstantOfShape")?;
    let places = maker(sum.input_at(1)?, "Unsqueeze")?;
    let (ids, axes) = (places.input_at(0)?, places.input_at(1)?);
    let last = (-1i64).to_le_bytes();
    let constant = tape.constants.iter().find(|t| t.name.as_deref() == Some(axes))?;
    let is_last = constant.raw_data.as_deref() == Some(&last[..]);
    let is_input = inputs.iter().any(|input| input.name.as_deref() == Some(ids));
    (is_last && is_input).then(|| Lookup { ids: ids.to_owned(), rows: sum.input_at(2).unwrap_or("").to_owned() })
}

fn adds(node: &NodeProto) -> bool {
    node.attribute("reduction").and_then(|a| a.s.as_deref()) == Some(b"add")
}

/// The state of a table between steps.
pub struct Table {
    /// Index of the parameter that the table is.
    pub parameter: usize,
    ids: String,
    columns: usize,
    /// Number of the steps `taken` (see [`Table::prepare`]) that have been applied, for each row.
    through: Vec<u32>,
    /// Position of the gradient of each row in `sums`, plus 1; 0 for rows without one.
    place: Vec<u32>,
    /// Indices of the rows with a gradient, in the order of their gradients.
    read: Vec<usize>,
    sums: Vec<f32>,
}

impl Table {
    /// Returns the state of the parameter with the index `parameter` and the dimensions `dims`.
    pub fn new(parameter: usize, lookup: &Lookup, dims: &[i64]) -> Table {
        let rows = dims.first().map_or(0, |rows| *rows as usize);
        let columns = dims.iter().skip(1).product::<i64>() as usize;
        let (read, sums) = (Vec::new(), Vec::new());
        Table { parameter, ids: lookup.ids.clone(), columns, through: vec![0; rows], place: vec![0; rows], read, sums }
    }

    /// Returns the indices of the rows that a run reads, one for each element of the input with the ids. Fails with
    /// `InvalidArgument` if an id is outside of the table, and with `Internal` if the input is missing.
    pub fn rows(&self, feed: &[(&str, &Tensor)]) -> Result<Vec<usize>> {
        let Some((_, ids)) = feed.iter().find(|(name, _)| *name == self.ids) else {
            bail!(Internal, "nothing was given to {:?}", self.ids);
        };
        let count = self.through.len();
        let row = |id: i64| match usize::try_from(if id < 0 { id + count as i64 } else { id }) {
            Ok(row) if row < count => Ok(row),
            _ => bail!(InvalidArgument, "{:?}: id {id} is outside a table of {count} rows", self.ids),
        };
        match ids.dtype() {
            DataType::Int32 => ids.as_slice::<i32>()?.iter().map(|id| row(i64::from(*id))).collect(),
            _ => ids.as_slice::<i64>()?.iter().map(|id| row(*id)).collect(),
        }
    }

    /// Clears the gradients of the previous step.
    pub fn clear(&mut self) {
        for row in self.read.drain(..) {
            self.place[row] = 0;
        }
        self.sums.clear();
    }

    /// Brings the rows that will be read up to date with the steps `taken`, and reserves space for their gradients.
    pub fn prepare(&mut self, rows: &[usize], taken: &[Step], weights: &mut [f32], moments: &mut Moments) {
        for row in rows {
            if self.place[*row] == 0 {
                self.read.push(*row);
                self.place[*row] = self.read.len() as u32;
            }
        }
        self.sums.resize(self.read.len() * self.columns, 0.0);
        let Table { through, place, columns, .. } = self;
        catch_up(through, *columns, taken, weights, moments, |row| place[row] != 0);
    }

    /// Adds the gradients of one run to those of the step. Fails with `Internal` if the number of gradients does not
    /// match the rows.
    pub fn add(&mut self, rows: &[usize], gradients: &[f32]) -> Result<()> {
        if gradients.len() != rows.len() * self.columns {
            bail!(Internal, "{} gradients for {} rows of {}", gradients.len(), rows.len(), self.columns);
        }
        for (row, gradient) in rows.iter().zip(gradients.chunks(self.columns.max(1))) {
            let at = (self.place[*row] as usize - 1) * self.columns;
            self.sums[at..at + self.columns].iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
        Ok(())
    }

    /// Returns the sum of the squares of the gradients of all rows.
    pub fn square_sum(&self) -> f64 {
        optimizer::square_sum(&self.sums)
    }

    /// Updates the rows with a gradient by the latest step.
    pub fn update(&mut self, taken: &[Step], weights: &mut [f32], moments: &mut Moments) {
        let Some(step) = taken.last() else { return };
        let keep = step.keep(moments.decays);
        let Table { through, place, sums, columns, .. } = self;
        each_row(through, *columns, weights, moments, |index, row| {
            if let Some(at) = place[index].checked_sub(1) {
                let gradient = &sums[at as usize * *columns..][..*columns];
                step.change(keep, row.weights, gradient, row.first, row.second);
                *row.through = taken.len() as u32;
            }
        });
    }

    /// Applies all remaining steps to all rows, after which the caller can drop these steps.
    pub fn settle(&mut self, taken: &[Step], weights: &mut [f32], moments: &mut Moments) {
        catch_up(&mut self.through, self.columns, taken, weights, moments, |_| true);
        self.through.fill(0);
    }

    /// Resets the state after the weights were replaced.
    pub fn restart(&mut self) {
        self.clear();
        self.through.fill(0);
    }
}

/// The minimum number of rows per thread.
const MANY: usize = 256;

/// A row with its moments, and the number of steps that have been applied to it.
struct Row<'t> {
    weights: &'t mut [f32],
    first: &'t mut [f32],
    second: &'t mut [f32],
    through: &'t mut u32,
}

/// Calls a function for each row, on all threads.
fn each_row(
    through: &mut [u32],
    columns: usize,
    weights: &mut [f32],
    moments: &mut Moments,
    work: impl Fn(usize, Row<'_>) + Sync,
) {
    let columns = columns.max(1);
    let parts = weights.par_chunks_mut(columns).zip(moments.first.par_chunks_mut(columns));
    let parts = parts.zip(moments.second.par_chunks_mut(columns)).zip(through).enumerate();
    parts.with_min_len(MANY).for_each(|(index, (((weights, first), second), through))| {
        work(index, Row { weights, first, second, through });
    });
}

fn catch_up(
    through: &mut [u32],
    columns: usize,
    taken: &[Step],
    weights: &mut [f32],
    moments: &mut Moments,
    wanted: impl Fn(usize) -> bool + Sync,
) {
    let decays = moments.decays;
    each_row(through, columns, weights, moments, |index, row| {
        let steps = &taken[*row.through as usize..];
        if wanted(index) && !steps.is_empty() {
            optimizer::without_gradient(steps, decays, row.weights, row.first, row.second);
            *row.through = taken.len() as u32;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::DistillOptions;
    use super::*;

    const ROWS: usize = 7;
    const COLUMNS: usize = 19;

    fn number(seed: usize) -> f32 {
        ((seed * 7919 + 13) % 1009) as f32 / 500.0 - 1.0
    }

    fn ids(ids: &[i64]) -> Tensor {
        Tensor::from_i64(&[ids.len() as i64], ids.to_vec()).unwrap()
    }

    /// Compares training with whole gradients and row by row. Some rows are read in several steps, one is read once,
    /// one never.
    #[test]
    fn rows_end_where_whole_gradients_lead() {
        let options = DistillOptions { weight_decay: 0.1, max_grad_norm: 0.0, ..DistillOptions::default() };
        let start: Vec<f32> = (0..ROWS * COLUMNS).map(number).collect();
        let (mut whole, mut whole_moments) = (start.clone(), Moments::new(start.len(), true));
        let (mut parts, mut moments) = (start.clone(), Moments::new(start.len(), true));
        let lookup = Lookup { ids: "ids".into(), rows: "rows".into() };
        let mut table = Table::new(0, &lookup, &[ROWS as i64, COLUMNS as i64]);
        let mut taken = Vec::new();
        for count in 1..=40u64 {
            // Each step has two runs. Row -1 is the last one; row 4 is read only in the third step, and row 5 never.
            let once = if count == 3 { 4 } else { 0 };
            let runs = [vec![(count % 4) as i64, once, -1], vec![(count % 4) as i64]];
            let mut gradient = vec![0f32; start.len()];
            table.clear();
            for (run, names) in runs.iter().enumerate() {
                let tensor = ids(names);
                let rows = table.rows(&[("ids", &tensor)]).unwrap();
                table.prepare(&rows, &taken, &mut parts, &mut moments);
                for row in &rows {
                    assert_eq!(parts[row * COLUMNS..][..COLUMNS], whole[row * COLUMNS..][..COLUMNS], "step {count}");
                }
                let values: Vec<f32> =
                    (0..rows.len() * COLUMNS).map(|i| number(i + run + count as usize * 31)).collect();
                for (row, values) in rows.iter().zip(values.chunks(COLUMNS)) {
                    gradient[row * COLUMNS..][..COLUMNS].iter_mut().zip(values).for_each(|(sum, g)| *sum += g);
                }
                table.add(&rows, &values).unwrap();
            }
            let (a, b) = (optimizer::square_sum(&gradient), table.square_sum());
            assert!((a - b).abs() < 1e-9 * a, "{a} {b}");
            let step = Step::new(&options, count, 1e-2, 1.0);
            step.apply(&mut whole, &gradient, &mut whole_moments);
            taken.push(step);
            table.update(&taken, &mut parts, &mut moments);
            if count == 20 {
                table.settle(&taken, &mut parts, &mut moments);
                taken.clear();
                assert_eq!(parts, whole);
            }
        }
        assert_ne!(parts, whole, "rows that were not read lag behind");
        table.settle(&taken, &mut parts, &mut moments);
        assert_eq!((parts, moments.first, moments.second), (whole, whole_moments.first, whole_moments.second));
    }

    #[test]
    fn rows_that_are_not_there_are_named() {
        let lookup = Lookup { ids: "ids".into(), rows: "rows".into() };
        let table = Table::new(0, &lookup, &[3, 2]);
        let e = table.rows(&[("ids", &ids(&[1, 3]))]).unwrap_err();
        assert!(e.message().contains("\"ids\": id 3 is outside a table of 3 rows"), "{e}");
        assert!(table.rows(&[("ids", &ids(&[-4]))]).is_err());
        assert!(table.rows(&[]).is_err());
    }

    #[test]
    fn moments_fade_to_nothing() {
        let options = DistillOptions { max_grad_norm: 0.0, ..DistillOptions::default() };
        let steps: Vec<Step> = (1..=1000).map(|count| Step::new(&options, count, 1e-3, 1.0)).collect();
        let (mut w, mut m, mut v) = ([1f32; 3], [1e-3f32; 3], [1e-6f32; 3]);
        optimizer::without_gradient(&steps, false, &mut w, &mut m, &mut v);
        assert_eq!(m, [0.0; 3], "no subnormal number stays");
        assert!(w[0] < 1.0 && v[0] > 0.0);
    }
}
