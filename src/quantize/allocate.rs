//! Allocation of bytes to weights: selects the form of each weight (float, or a number of bits and a block size) under
//! a limit on the total bytes or on the loss.
//!
//! The loss of several weights is taken as the sum of the losses that each alone causes. Then the best choices lie on
//! the lower convex hull of the points (bytes, loss) of each weight, and the steps along all hulls are taken in the
//! order of loss saved per byte: Shoham, Gersho, "Efficient bit allocation for an arbitrary set of quantizers", 1988.

use super::algorithms::Coding;
use super::planner::{Plan, Weight};
use super::stored::Stored;
use super::weight_only::{self, Rows};
use super::{QuantizeOptions, QuantizeType};
use std::collections::HashMap;

/// A possible form of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The unchanged float weight.
    Float,
    /// A quantized weight, with these bits and this block size. The block size is 0 for int8 weights, whose scales
    /// belong to channels.
    Coded(u32, usize),
}

/// A possible form of a unit, with its size and loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Form of the weights of the unit.
    pub choice: Choice,
    /// Size of the unit in bytes.
    pub bytes: u64,
    /// Squared error of the weights or a number in proportion to it, which only compares the candidates of one unit;
    /// [`Unit::measured`] converts it to a loss.
    pub loss: f64,
}

/// The weights that can only change together because they share a tensor, such as an embedding table that is also the
/// output layer.
pub struct Unit {
    /// Indices of the weights in [`Plan::weights`].
    pub weights: Vec<usize>,
    /// Index of a stored weight in [`Plan::stored`], which is then the only weight of the unit.
    pub stored: Option<usize>,
    /// Candidates of the unit, from the smallest to the unchanged tensor.
    pub candidates: Vec<Candidate>,
}

/// The limit on the size or the loss of the result.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// Maximum size of all units in bytes.
    Bytes(u64),
    /// Maximum sum of the losses.
    Loss(f64),
}

/// Returns the units of a plan, each with its candidates.
pub fn units(plan: &Plan<'_>, options: &QuantizeOptions) -> Vec<Unit> {
    let mut by_tensor: HashMap<*const u8, usize> = HashMap::new();
    let mut units: Vec<Unit> = Vec::new();
    for (index, weight) in plan.weights.iter().enumerate() {
        let at = *by_tensor.entry(std::ptr::from_ref(weight.tensor).cast()).or_insert(units.len());
        if at == units.len() {
            units.push(Unit { weights: Vec::new(), stored: None, candidates: Vec::new() });
        }
        units[at].weights.push(index);
    }
    for unit in &mut units {
        unit.candidates = candidates(plan, unit, options);
    }
    let stored = plan.stored.iter().enumerate();
    units.extend(stored.map(|(index, stored)| Unit {
        weights: Vec::new(),
        stored: Some(index),
        candidates: stored_candidates(stored),
    }));
    units
}

/// Returns the candidates of a unit of weights in [`Plan::weights`].
fn candidates(plan: &Plan<'_>, unit: &Unit, options: &QuantizeOptions) -> Vec<Candidate> {
    let first = &plan.weights[unit.weights[0]];
    let elements = first.matrix.elements() as u64;
    let float = Candidate { choice: Choice::Float, bytes: elements * first.matrix.width() as u64, loss: 0.0 };
    if options.quantize_type != QuantizeType::WeightOnly {
        // If a tensor has two products, one of them transposed, each product has its own int8 form.
        let bytes = unit.weights.len() as u64 * (elements + 4 * Rows::of(first).count as u64);
        return vec![Candidate { choice: Choice::Coded(8, 0), bytes, loss: 1.0 }, float];
    }
    let (bits, block) = (first.bits.0, first.bits.1.max(16));
    let given = first.bits != (options.bits, options.block_size);
    let mut forms = vec![(bits, block)];
    if !given {
        let larger = [(2, 64), (2, 32), (4, 32), (4, 16), (8, 64)];
        forms.extend(larger.into_iter().filter(|form| form.0 > bits && bits < 8 || form.0 == bits && form.1 < block));
    }
    let coded = |(bits, block)| {
        let coding = weight_only::coding(plan, unit.weights[0], (bits, block), options);
        let rows = Rows::of(first);
        let bytes = (coding.bits_per_weight(rows.columns) / 8.0 * elements as f64).ceil() as u64;
        Candidate { choice: Choice::Coded(bits, block), bytes, loss: error(first, &coding) }
    };
    let mut candidates: Vec<Candidate> = forms.into_iter().map(coded).collect();
    candidates.push(float);
    candidates
}

/// Returns the candidates of a stored weight. The squared error of 4 bits in blocks is about 100 times that of 8
/// bits.
fn stored_candidates(stored: &Stored<'_>) -> Vec<Candidate> {
    let of = |bits, block, loss| Candidate {
        choice: Choice::Coded(bits, block),
        bytes: stored.stored_bytes(bits).min(stored.bytes()),
        loss,
    };
    let float = Candidate { choice: Choice::Float, bytes: stored.bytes(), loss: 0.0 };
    match stored.bits {
        (8, _) => vec![of(8, 0, 1.0), float],
        (_, block) => vec![of(4, block, 1.0), of(8, 0, 0.01), float],
    }
}

/// Returns the mean squared error of a coding, on rows that are sampled over the weight. Rows with a value that the
/// coding cannot represent are omitted; 0 if no row remains.
fn error(weight: &Weight<'_>, coding: &Coding) -> f64 {
    const PLACES: usize = 16;
    let rows = Rows::of(weight);
    let step = (rows.count / PLACES).max(1);
    let (mut sum, mut count) = (0f64, 0usize);
    for first in (0..rows.count).step_by(step).take(PLACES) {
        let values = rows.read(first, 1);
        if values.iter().all(|v| v.abs() <= coding.largest()) {
            let row = super::algorithms::range::code_row(coding, &values, None);
            let difference = |(k, v): (usize, &f32)| f64::from(v - row.value(k / coding.block, row.codes[k])).powi(2);
            sum += values.iter().enumerate().map(difference).sum::<f64>();
            count += values.len();
        }
    }
    sum / count.max(1) as f64
}

impl Unit {
    /// Converts the squared errors of the candidates to losses, given the measured loss of the first candidate.
    pub fn measured(&mut self, loss: f64) {
        let error = self.candidates[0].loss;
        for candidate in &mut self.candidates {
            candidate.loss = if error > 0.0 { loss * candidate.loss / error } else { 0.0 };
        }
    }
}

/// Returns the index of the selected candidate of each unit; `None` if the limit cannot be met. Starting with the
/// smallest forms, steps to larger forms are taken in descending order of the loss saved per byte. Under a limit on
/// bytes, steps that would exceed it are skipped; under a limit on the loss, steps are taken until the loss is within
/// it.
pub fn allocate(units: &[Unit], limit: Limit) -> Option<Vec<usize>> {
    let mut pick = vec![0; units.len()];
    let mut bytes: u64 = units.iter().map(|u| u.candidates[0].bytes).sum();
    let mut loss: f64 = units.iter().map(|u| u.candidates[0].loss).sum();
    let mut steps: Vec<(f64, usize, usize)> = Vec::new();
    for (index, unit) in units.iter().enumerate() {
        let mut at = 0;
        while let Some((next, slope)) = next_on_hull(&unit.candidates, at) {
            steps.push((slope, index, next));
            at = next;
        }
    }
    // The sort is stable, so the steps of one unit stay in order.
    steps.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (_, index, next) in steps {
        if matches!(limit, Limit::Loss(most) if loss <= most) {
            break;
        }
        let candidates = &units[index].candidates;
        let (from, to) = (candidates[pick[index]], candidates[next]);
        let grown = bytes + to.bytes - from.bytes;
        if matches!(limit, Limit::Bytes(most) if grown > most) {
            continue;
        }
        (bytes, loss) = (grown, loss + to.loss - from.loss);
        pick[index] = next;
    }
    match limit {
        Limit::Bytes(most) => (bytes <= most).then_some(pick),
        // The loss is a running sum of differences, so rounding leaves a remainder.
        Limit::Loss(most) => (loss <= most + 1e-12).then_some(pick),
    }
}

/// Returns the index of the larger candidate that saves most loss per additional byte, and that ratio; `None` if none
/// of the larger candidates has less loss.
fn next_on_hull(candidates: &[Candidate], at: usize) -> Option<(usize, f64)> {
    let from = candidates[at];
    let larger = candidates.iter().enumerate().filter(|(_, to)| to.bytes > from.bytes && to.loss < from.loss);
    let slope = |to: &Candidate| (from.loss - to.loss) / (to.bytes - from.bytes) as f64;
    larger.map(|(index, to)| (index, slope(to))).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Returns the sum of the bytes and of the losses of all units with these candidates.
pub fn total(units: &[Unit], pick: &[usize]) -> (u64, f64) {
    let picked = units.iter().zip(pick).map(|(unit, at)| unit.candidates[*at]);
    picked.fold((0, 0.0), |(bytes, loss), c| (bytes + c.bytes, loss + c.loss))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(forms: &[(u64, f64)]) -> Unit {
        let of = |(at, (bytes, loss)): (usize, &(u64, f64))| {
            let choice = if at + 1 == forms.len() { Choice::Float } else { Choice::Coded(4, at) };
            Candidate { choice, bytes: *bytes, loss: *loss }
        };
        Unit { weights: vec![], stored: None, candidates: forms.iter().enumerate().map(of).collect() }
    }

    #[test]
    fn bytes_go_where_they_save_most() {
        let units = [unit(&[(10, 1.0), (20, 0.1), (80, 0.0)]), unit(&[(10, 0.3), (20, 0.05), (80, 0.0)])];
        assert_eq!(allocate(&units, Limit::Bytes(19)), None);
        assert_eq!(allocate(&units, Limit::Bytes(20)), Some(vec![0, 0]));
        assert_eq!(allocate(&units, Limit::Bytes(30)), Some(vec![1, 0]));
        assert_eq!(allocate(&units, Limit::Bytes(99)), Some(vec![1, 1]));
        assert_eq!(allocate(&units, Limit::Bytes(100)), Some(vec![2, 1]));
        assert_eq!(total(&units, &[2, 1]), (100, 0.05));
    }

    #[test]
    fn loss_is_brought_down_to_the_limit_and_no_further() {
        let units = [unit(&[(10, 1.0), (20, 0.1), (80, 0.0)]), unit(&[(10, 0.3), (20, 0.05), (80, 0.0)])];
        assert_eq!(allocate(&units, Limit::Loss(1.3)), Some(vec![0, 0]));
        assert_eq!(allocate(&units, Limit::Loss(0.5)), Some(vec![1, 0]));
        assert_eq!(allocate(&units, Limit::Loss(0.0)), Some(vec![2, 2]));
    }

    #[test]
    fn forms_above_the_hull_are_passed_over() {
        let units = [unit(&[(10, 1.0), (20, 0.9), (30, 0.0), (90, 0.0)])];
        assert_eq!(allocate(&units, Limit::Bytes(25)), Some(vec![0]));
        assert_eq!(allocate(&units, Limit::Bytes(30)), Some(vec![2]));
    }

    /// Compares with an exhaustive search: no choice of as many bytes loses less than one on the hull.
    #[test]
    fn what_is_found_is_the_best_of_its_size() {
        let mut random = crate::statistics::Random::new(7);
        for _ in 0..50 {
            let forms = |random: &mut crate::statistics::Random| {
                let mut list = vec![(10u64, 1.0 + random.index(100) as f64)];
                for _ in 0..3 {
                    let (bytes, loss) = list[list.len() - 1];
                    list.push((bytes + 1 + random.index(20) as u64, loss * random.index(100) as f64 / 100.0));
                }
                list
            };
            let units: Vec<Unit> = (0..4).map(|_| unit(&forms(&mut random))).collect();
            let most = 40 + random.index(100) as u64;
            let pick = allocate(&units, Limit::Bytes(most)).unwrap();
            let (bytes, loss) = total(&units, &pick);
            let mut best = f64::INFINITY;
            for code in 0..256usize {
                let other: Vec<usize> = (0..4).map(|u| code >> (2 * u) & 3).collect();
                let (size, cost) = total(&units, &other);
                if size <= bytes {
                    best = best.min(cost);
                }
            }
            // Steps that do not fit are skipped and smaller ones taken, so the result is optimal up to one step.
            let largest = units.iter().map(|u| u.candidates[0].loss).fold(0.0, f64::max);
            assert!(bytes <= most && loss <= best + largest, "{bytes} {loss} {best}");
        }
    }
}
