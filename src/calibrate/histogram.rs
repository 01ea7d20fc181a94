//! The histogram of an activation, and the choice of its quantization range.
//!
//! All three methods use the histogram of the values other than zero, because zero has an exact code; only the
//! percentile counts the zeros too. `p` are the counts, `c` the centers of the bins, `q(c)` the quantized centers.
//!
//! - Percentile: (100 - P) / 2 per cent of the values are cut off at each end.
//! - MSE: the range with the least `sum p (c - q(c))^2`. The square is taken as `step^2 / 12` for values inside (a step
//!   is a 255th of the range), and as the squared distance to the range for values outside. Both ends are searched.
//! - Entropy (Migacz, "8-bit Inference with TensorRT", 2017, here also for asymmetric ranges): both ends are clipped to
//!   the same bound, such that the quantized distribution has the least Kullback-Leibler divergence from the clipped
//!   one.

/// A range of values. Ranges for quantization contain zero; those that the methods of `Histogram` return need not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Lower bound of the range.
    pub low: f32,
    /// Upper bound of the range.
    pub high: f32,
}

impl Range {
    /// The range that contains only zero.
    pub const ZERO: Range = Range { low: 0.0, high: 0.0 };

    /// Returns the smallest range that contains both ranges.
    pub fn with(self, other: Range) -> Range {
        Range { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

/// The number of bins of a histogram.
pub const BINS: usize = 2048;
/// The number of codes that values are rounded to.
const LEVELS: usize = 255;
/// The number of ends that are tried on each side for the smallest squared error.
const STEPS: usize = 64;

/// The counts of values in bins between two bounds.
pub struct Histogram {
    range: Range,
    counts: Vec<u64>,
    zeros: u64,
}

impl Histogram {
    /// Returns an empty histogram for values within `range`.
    pub fn new(range: Range) -> Histogram {
        Histogram { range, counts: vec![0; BINS], zeros: 0 }
    }

    /// Counts values, except those that are not finite or out of range. Zeros are counted separately.
    pub fn add(&mut self, values: &[f32]) {
        let Range { low, high } = self.range;
        let factor = BINS as f32 / (high - low).max(f32::MIN_POSITIVE);
        for &value in values {
            if value == 0.0 {
                self.zeros += 1;
            } else if value >= low && value <= high {
                let bin = ((value - low) * factor) as usize;
                self.counts[bin.min(BINS - 1)] += 1;
            }
        }
    }

    fn width(&self) -> f64 {
        (f64::from(self.range.high) - f64::from(self.range.low)) / BINS as f64
    }

    /// Returns the lower bound of the bin `index`.
    fn edge(&self, index: usize) -> f64 {
        f64::from(self.range.low) + index as f64 * self.width()
    }

    /// Returns the smallest range of whole bins that contains `percent` per cent of the values (including zeros) if
    /// equal shares are cut off at both ends.
    pub fn percentile(&self, percent: f64) -> Range {
        let total: u64 = self.counts.iter().sum::<u64>() + self.zeros;
        let cut = total as f64 * (100.0 - percent) / 200.0;
        let zero = self.bin_of_zero();
        let count = |bin: usize| self.counts[bin] as f64 + if Some(bin) == zero { self.zeros as f64 } else { 0.0 };
        let (mut first, mut last) = (0, BINS);
        let mut sum = count(first);
        while cut > 0.0 && first + 1 < BINS && sum <= cut {
            first += 1;
            sum += count(first);
        }
        let mut sum = count(last - 1);
        while cut > 0.0 && last > first + 1 && sum <= cut {
            last -= 1;
            sum += count(last - 1);
        }
        self.between(first, last)
    }

    /// Returns the range of the bins from `first` up to `last`, which is excluded.
    fn between(&self, first: usize, last: usize) -> Range {
        let low = if first == 0 { self.range.low } else { self.edge(first) as f32 };
        let high = if last == BINS { self.range.high } else { self.edge(last) as f32 };
        Range { low, high }
    }

    /// Returns the bin that contains zero; `None` if the range does not contain zero or is a single value.
    fn bin_of_zero(&self) -> Option<usize> {
        let Range { low, high } = self.range;
        (low <= 0.0 && high >= 0.0 && high > low).then(|| ((f64::from(-low) / self.width()) as usize).min(BINS - 1))
    }

    /// Returns the range with the smallest squared error among the tried ranges.
    pub fn least_squares(&self) -> Range {
        // Sums of 1, c and c^2 below each edge give the clipping error without reading the bins again.
        let mut sums = vec![[0f64; 3]; BINS + 1];
        for bin in 0..BINS {
            let (p, c) = (self.counts[bin] as f64, self.edge(bin) + self.width() / 2.0);
            sums[bin + 1] = [sums[bin][0] + p, sums[bin][1] + p * c, sums[bin][2] + p * c * c];
        }
        let beyond = |from: usize, to: usize, edge: f64| {
            let [n, c, cc] = [0, 1, 2].map(|k| sums[to][k] - sums[from][k]);
            (cc - 2.0 * edge * c + edge * edge * n).max(0.0)
        };
        let zero = self.bin_of_zero().unwrap_or(if self.range.low >= 0.0 { 0 } else { BINS });
        let (mut best, mut least) = (self.range, f64::INFINITY);
        for low in 0..STEPS {
            let first = zero * low / STEPS;
            for high in 0..STEPS {
                let last = BINS - (BINS - zero.min(BINS - 1) - 1) * high / STEPS;
                let (below, above) = (self.edge(first).min(0.0), self.edge(last).max(0.0));
                let step = (above - below) / LEVELS as f64;
                let error = step * step / 12.0 * (sums[last][0] - sums[first][0])
                    + beyond(0, first, below)
                    + beyond(last, BINS, above);
                if error < least {
                    (best, least) = (self.between(first, last), error);
                }
            }
        }
        best
    }

    /// Returns the range with the smallest KL divergence among the tried ranges; the whole range if none is wide
    /// enough.
    pub fn entropy(&self) -> Range {
        let most = f64::from(self.range.high.max(-self.range.low));
        let (mut best, mut least) = (self.range, f64::INFINITY);
        let steps = 128;
        for step in steps / 8..=steps {
            let bound = most * step as f64 / steps as f64;
            let inside = |edge: f64| ((edge - f64::from(self.range.low)) / self.width()).round();
            let first = inside(-bound).clamp(0.0, BINS as f64) as usize;
            let last = inside(bound).clamp(0.0, BINS as f64) as usize;
            if last < first + LEVELS {
                continue;
            }
            let divergence = self.divergence(first, last);
            if divergence < least {
                (best, least) = (self.between(first, last), divergence);
            }
        }
        best
    }

    /// Returns the divergence of the bins from `first` up to `last` (excluded), to whose outermost bins the counts
    /// beyond them are added, from the same bins quantized to [`LEVELS`] levels. Infinite if the bins are empty.
    fn divergence(&self, first: usize, last: usize) -> f64 {
        let own = &self.counts[first..last];
        let mut clipped: Vec<f64> = own.iter().map(|count| *count as f64).collect();
        clipped[0] += self.counts[..first].iter().sum::<u64>() as f64;
        clipped[last - first - 1] += self.counts[last..].iter().sum::<u64>() as f64;
        let total: f64 = clipped.iter().sum();
        let inside: f64 = own.iter().sum::<u64>() as f64;
        if inside == 0.0 {
            return f64::INFINITY;
        }
        let mut divergence = 0.0;
        for level in 0..LEVELS {
            let bins = own.len() * level / LEVELS..own.len() * (level + 1) / LEVELS;
            let sum: u64 = own[bins.clone()].iter().sum();
            let filled = clipped[bins.clone()].iter().filter(|p| **p > 0.0).count();
            for p in clipped[bins].iter().filter(|p| **p > 0.0) {
                // All values of a level may have been moved to the outermost bin; the level still has a code.
                let q = (sum as f64 / filled as f64 / inside).max(1e-12);
                divergence += p / total * (p / total / q).ln();
            }
        }
        divergence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a histogram of 100 000 bell-shaped values within 1, and a few outliers.
    fn bell(outliers: usize) -> Histogram {
        let mut values: Vec<f32> = (0..100_000)
            .map(|i| (0..12).map(|k| ((i * 7919 + k * 104_729) % 10_007) as f32 / 10_007.0).sum::<f32>() / 6.0 - 1.0)
            .collect();
        values.extend(std::iter::repeat_n(40.0, outliers));
        let low = values.iter().copied().fold(0.0, f32::min);
        let high = values.iter().copied().fold(0.0, f32::max);
        let mut histogram = Histogram::new(Range { low, high });
        histogram.add(&values);
        histogram
    }

    #[test]
    fn outliers_are_cut_off_and_a_bell_is_kept() {
        for range in [bell(3).percentile(99.9), bell(3).entropy()] {
            assert!(range.high < 10.0 && range.high > 0.2, "{range:?}");
        }
        let whole = bell(0);
        let kept = whole.least_squares();
        assert!(kept.high > 0.5 * whole.range.high && kept.low < 0.5 * whole.range.low, "{kept:?} {:?}", whole.range);
    }

    /// Returns the squared error of rounding the middle of each bin.
    fn squares(histogram: &Histogram, range: Range) -> f64 {
        let step = f64::from(range.high - range.low) / 255.0;
        let lost = |bin: usize| {
            let value = histogram.edge(bin) + histogram.width() / 2.0;
            let code = ((value - f64::from(range.low)) / step).round().clamp(0.0, 255.0);
            (value - f64::from(range.low) - code * step).powi(2) * histogram.counts[bin] as f64
        };
        (0..BINS).map(lost).sum()
    }

    #[test]
    fn least_squares_cuts_off_few_and_far_values_only() {
        // Finer steps are worth more than one outlier if there are four million values, but not if there are a
        // thousand.
        for (count, cut) in [(4_000_000, true), (1000, false)] {
            let mut values: Vec<f32> = (0..count).map(|i| (i as f32 + 0.5) / count as f32).collect();
            values.push(20.0);
            let mut histogram = Histogram::new(Range { low: 0.0, high: 20.0 });
            histogram.add(&values);
            let range = histogram.least_squares();
            assert_eq!(range.high < 4.0, cut, "{count}: {range:?}");
            for high in [1.5, 5.0, 10.0, 20.0] {
                let other = squares(&histogram, Range { low: 0.0, high });
                assert!(squares(&histogram, Range { low: 0.0, ..range }) < 1.1 * other, "{count}: {range:?} {high}");
            }
        }
    }

    #[test]
    fn a_hundred_per_cent_is_all_and_zeros_count_for_percentiles_only() {
        let mut histogram = Histogram::new(Range { low: 0.0, high: 10.0 });
        histogram.add(&[10.0, 1.0, f32::NAN, f32::INFINITY]);
        assert_eq!(histogram.percentile(100.0), Range { low: 0.0, high: 10.0 });
        histogram.add(&vec![0.0; 10_000]);
        assert!(histogram.percentile(99.0).high < 0.1);
        assert_eq!(histogram.least_squares().high, 10.0);
    }

    #[test]
    fn least_squares_is_the_least_of_all_that_could_be_tried() {
        // Clipping does not help uniform values.
        let values: Vec<f32> = (0..100_000).map(|i| (i as f32 + 0.5) / 50_000.0 - 1.0).collect();
        let mut histogram = Histogram::new(Range { low: -1.0, high: 1.0 });
        histogram.add(&values);
        let range = histogram.least_squares();
        assert!(range.low < -0.97 && range.high > 0.97, "{range:?}");
    }
}
