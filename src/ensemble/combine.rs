//! The combination of the members' logits of one token into one distribution ([`Combiner`]).
//!
//! With `p_m = softmax(l_m / T_m)` of member `m` and weights `w ≥ 0` with the sum 1:
//!
//! | method | the combined distribution |
//! |---|---|
//! | [`Method::Mean`], [`Method::Weighted`] | `Σ w p` |
//! | [`Method::Logits`] | `softmax(Σ w l / T)`: the (weighted) geometric mean |
//! | [`Method::Product`] | `softmax(Σ ln p)`, with weights `softmax(M Σ w ln p)`: a product of experts (Hinton 2002) |
//! | [`Method::Max`], [`Method::Median`] | maximum or median `p` of each token, normalized |
//! | [`Method::Vote`] | weight of the members that rank the token first |
//! | [`Method::Contrastive`] | `softmax(ln p_1 − ln p_2)` where `p_1 ≥ 0.1 max p_1`, otherwise 0 (Li et al. 2023) |
//!
//! All sums are in float64, over logarithms relative to the largest. The result is natural logarithms of probabilities,
//! in float32, which a sampler reads as logits.

use super::Method;
use crate::error::{Result, bail};
use crate::text::Uncertainty;

/// The minimum probability of a token relative to the expert's (first member's) most probable one, with
/// [`Method::Contrastive`].
const PLAUSIBLE: f64 = 0.1;
/// The minimum of an amateur's (second member's) log-probability: a token that it excludes must not get an infinite
/// score.
const LEAST: f64 = -708.0;

/// The combined distribution of one token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Combined {
    /// Log-probability `ln p` of each token; negative infinity where `p` is 0.
    pub log_probabilities: Vec<f32>,
    /// Entropy of the distribution in nats.
    pub entropy: f64,
    /// Mutual information in nats: the entropy of `Σ w p_m` minus the weighted sum of the entropies of the members.
    pub mutual_information: f64,
    /// Most probable token of each member; the lowest id among equals.
    pub tops: Vec<usize>,
}

/// A combiner of distributions, which holds only settings and scratch memory.
#[derive(Debug, Clone)]
pub struct Combiner {
    method: Method,
    gate: bool,
    weights: Vec<f64>,
    members: Vec<Distribution>,
    sums: Vec<f64>,
}

/// The distribution of a member, with its parameters.
#[derive(Debug, Clone, Default)]
struct Distribution {
    probabilities: Vec<f64>,
    /// Reciprocal `1 / T` of the temperature.
    scale: f64,
    /// Normalization of the distribution, `ln Σ exp(l / T)`.
    norm: f64,
    entropy: f64,
    top: usize,
}

impl Combiner {
    /// Returns a combiner for members with these weights, whose sum is 1, and these temperatures. With `gate`, the
    /// first member's distribution is used unchanged if all members rank the same token first.
    pub fn new(method: Method, gate: bool, weights: &[f64], temperatures: &[f64]) -> Combiner {
        let members = temperatures.iter().map(|t| Distribution { scale: 1.0 / t, ..Distribution::default() }).collect();
        Combiner { method, gate, weights: weights.to_vec(), members, sums: Vec::new() }
    }

    /// Returns the combination of one row of logits of each member. Longer rows are truncated to the shortest, because
    /// the rest is padding of a vocabulary. Fails with [`crate::error::Kind::Runtime`] if a member's logits are not a
    /// distribution: one is NaN or positive infinity, or all are negative infinity.
    pub fn combine(&mut self, logits: &[&[f32]]) -> Result<Combined> {
        let size = logits.iter().map(|row| row.len()).min().unwrap_or(0);
        let rows: Vec<&[f32]> = logits.iter().map(|row| &row[..size]).collect();
        for (index, (row, member)) in rows.iter().zip(&mut self.members).enumerate() {
            if !member.read(row) {
                bail!(Runtime, "member {}: the {size} logits do not form a distribution", index + 1);
            }
        }
        let tops: Vec<usize> = self.members.iter().map(|member| member.top).collect();
        self.mean();
        let mean_entropy = entropy(&self.sums);
        let own: f64 = self.weights.iter().zip(&self.members).map(|(w, member)| w * member.entropy).sum();
        // Rounding can result in a tiny negative value.
        let mutual_information = (mean_entropy - own).max(0.0);
        let agreed = self.gate && tops.windows(2).all(|pair| pair[0] == pair[1]);
        let (log_probabilities, entropy) = match self.method {
            _ if agreed => (self.of_member(0, rows[0]), self.members[0].entropy),
            Method::Mean | Method::Weighted => (self.log_of_mean(&rows), mean_entropy),
            _ => self.normalized(&rows),
        };
        Ok(Combined { log_probabilities, entropy, mutual_information, tops })
    }

    /// Computes `Σ w p` of each token into `sums`.
    fn mean(&mut self) {
        self.sums.clear();
        self.sums.resize(self.members.first().map_or(0, |m| m.probabilities.len()), 0.0);
        for (weight, member) in self.weights.iter().zip(&self.members).filter(|(weight, _)| **weight > 0.0) {
            self.sums.iter_mut().zip(&member.probabilities).for_each(|(sum, p)| *sum += weight * p);
        }
    }

    fn of_member(&self, member: usize, row: &[f32]) -> Vec<f32> {
        row.iter().map(|logit| self.members[member].log(*logit) as f32).collect()
    }

    fn log_of_mean(&self, rows: &[&[f32]]) -> Vec<f32> {
        // Below this value float64 loses accuracy; then the logarithms are added instead.
        let exact = |(token, sum): (usize, &f64)| match *sum {
            sum if sum >= 1e-290 => sum.ln() as f32,
            _ => {
                let weighted = |(m, w): (usize, &f64)| w.ln() + self.members[m].log(rows[m][token]);
                let terms: Vec<f64> =
                    self.weights.iter().enumerate().filter(|(_, w)| **w > 0.0).map(weighted).collect();
                log_sum(&terms) as f32
            }
        };
        self.sums.iter().enumerate().map(exact).collect()
    }

    /// Returns the log-probabilities and the entropy, for methods whose scores must be normalized.
    fn normalized(&mut self, rows: &[&[f32]]) -> (Vec<f32>, f64) {
        let mut scores = std::mem::take(&mut self.sums);
        let mut column = vec![0.0; rows.len()];
        for (token, score) in scores.iter_mut().enumerate() {
            for (m, member) in self.members.iter().enumerate() {
                column[m] = match self.method {
                    Method::Logits => f64::from(rows[m][token]) * member.scale,
                    _ => member.log(rows[m][token]),
                };
            }
            *score = self.score(token, &mut column);
        }
        let norm = log_sum(&scores);
        let mut entropy = 0.0;
        let log = |score: &f64| {
            let log = score - norm;
            if log > f64::NEG_INFINITY {
                entropy -= log.exp() * log;
            }
            log as f32
        };
        let logs = scores.iter().map(log).collect();
        self.sums = scores;
        (logs, entropy.max(0.0))
    }

    /// Returns the score of a token from the members' logarithms (logits for [`Method::Logits`]).
    fn score(&self, token: usize, column: &mut [f64]) -> f64 {
        // 0 times negative infinity is NaN: members with weight 0 are skipped.
        let weighted = |column: &[f64]| -> f64 {
            self.weights.iter().zip(column).filter(|(w, _)| **w > 0.0).map(|(w, value)| w * value).sum()
        };
        match self.method {
            Method::Product => self.weights.len() as f64 * weighted(column),
            Method::Max => column.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Method::Median => {
                column.sort_unstable_by(f64::total_cmp);
                let middle = column.len() / 2;
                match column.len() % 2 {
                    1 => column[middle],
                    _ => log_sum(&column[middle - 1..=middle]) - std::f64::consts::LN_2,
                }
            }
            Method::Vote => {
                let voters = self.members.iter().zip(&self.weights).filter(|(member, _)| member.top == token);
                voters.map(|(_, weight)| weight).sum::<f64>().ln()
            }
            Method::Contrastive => match &self.members[0] {
                expert if column[0] < PLAUSIBLE.ln() + expert.probabilities[expert.top].ln() => f64::NEG_INFINITY,
                _ => column[0] - column[1].max(LEAST),
            },
            _ => weighted(column),
        }
    }

    /// Returns the uncertainty of the members about a token. `chose` receives the most probable token of a member, and
    /// returns whether it is that token.
    pub fn uncertainty(&self, combined: &Combined, chose: impl Fn(&usize) -> bool) -> Uncertainty {
        let agreed = combined.tops.iter().zip(&self.weights).filter(|(top, _)| chose(top));
        Uncertainty {
            entropy: combined.entropy,
            mutual_information: combined.mutual_information,
            agreement: agreed.map(|(_, weight)| weight).sum::<f64>().min(1.0),
        }
    }
}

impl Distribution {
    /// Sets the distribution to a row of logits. Returns `false` if the row is not a distribution.
    fn read(&mut self, row: &[f32]) -> bool {
        let (mut top, mut max) = (0, f32::NEG_INFINITY);
        for (token, logit) in row.iter().enumerate() {
            if *logit > max {
                (top, max) = (token, *logit);
            }
        }
        if !max.is_finite() {
            return false;
        }
        let (scale, max) = (self.scale, f64::from(max) * self.scale);
        self.probabilities.clear();
        self.probabilities.extend(row.iter().map(|logit| (f64::from(*logit) * scale - max).exp()));
        let sum: f64 = self.probabilities.iter().sum();
        let mut entropy = 0.0;
        for (p, logit) in self.probabilities.iter_mut().zip(row).filter(|(p, _)| **p > 0.0) {
            *p /= sum;
            entropy -= *p * (f64::from(*logit) * scale - max);
        }
        (self.top, self.norm, self.entropy) = (top, max + sum.ln(), (entropy + sum.ln()).max(0.0));
        // A single NaN makes the sum NaN.
        sum.is_finite()
    }

    /// Returns the log-probability `ln p` of a token with this logit.
    fn log(&self, logit: f32) -> f64 {
        f64::from(logit) * self.scale - self.norm
    }
}

fn entropy(probabilities: &[f64]) -> f64 {
    -probabilities.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>()
}

/// Returns `ln Σ exp` of `values`; negative infinity if all values are negative infinity.
fn log_sum(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match max {
        f64::NEG_INFINITY => max,
        max => max + values.iter().map(|value| (value - max).exp()).sum::<f64>().ln(),
    }
}

#[cfg(test)]
pub(in crate::ensemble) mod tests;
