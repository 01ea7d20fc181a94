//! Random numbers, percentiles, and how sure a mean is.

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;

/// SplitMix64; the same seed gives the same numbers everywhere.
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Uniform among `0 .. n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Multiply and shift: the bias is below n / 2^64 (Lemire, "Fast random integer generation", 2019).
        ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
    }

    /// Puts the elements in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, elements: &mut [T]) {
        for last in (1..elements.len()).rev() {
            elements.swap(last, self.below(last + 1));
        }
    }
}

/// The value below which the share `p` of the values lies, interpolated linearly between neighbours (type 7 of
/// Hyndman and Fan, NumPy's default); not a number if there are none.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = p.clamp(0.0, 1.0) * last as f64;
    let (low, share) = (position.floor() as usize, position.fract());
    // Between two infinities there is no number, but there is no need for one either.
    let (low, high) = (sorted[low], sorted[(low + 1).min(last)]);
    if share == 0.0 { low } else { low + (high - low) * share }
}

/// The mean of the values; not a number if there are none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The 95 % percentile-bootstrap interval of the mean of values that came one after another, `block` neighbours
/// being drawn together: what is near in a text is alike, and single draws would make the interval too narrow.
///
/// Not numbers if there are fewer than two blocks.
/// Source: Künsch, "The jackknife and the bootstrap for general stationary observations", 1989 (here with blocks
/// that do not overlap, Carlstein 1986).
pub fn mean_interval(values: &[f64], block: usize, seed: u64) -> (f64, f64) {
    let blocks: Vec<(f64, usize)> = values.chunks(block.max(1)).map(|b| (b.iter().sum(), b.len())).collect();
    if blocks.len() < 2 {
        return (f64::NAN, f64::NAN);
    }
    // 20 million draws take about a second; with that many blocks the interval is narrow anyway.
    let resamples = (20_000_000 / blocks.len()).clamp(200, RESAMPLES);
    let mut random = Random(seed);
    let mut draw = || {
        let (mut sum, mut count) = (0.0, 0);
        for _ in 0..blocks.len() {
            let (part, length) = blocks[random.below(blocks.len())];
            sum += part;
            count += length;
        }
        sum / count as f64
    };
    let means: Vec<f64> = (0..resamples).map(|_| draw()).collect();
    (percentile(&means, 0.025), percentile(&means, 0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_and_shuffles_lose_nothing() {
        let mut random = Random(1);
        let mut seen = [0; 5];
        (0..5000).for_each(|_| seen[random.below(5)] += 1);
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        assert_eq!(random.below(0), 0);
        let mut order: Vec<usize> = (0..100).collect();
        random.shuffle(&mut order);
        assert_ne!(order[..5], [0, 1, 2, 3, 4]);
        order.sort();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn percentiles_are_those_of_numpy() {
        let values = [3.0, 1.0, 2.0, 10.0];
        assert_eq!(percentile(&values, 0.5), 2.5);
        assert!((percentile(&values, 0.9) - 7.9).abs() < 1e-12);
        assert_eq!((percentile(&values, 0.0), percentile(&values, 1.0)), (1.0, 10.0));
        assert_eq!(percentile(&[1.0, f64::INFINITY], 0.0), 1.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn the_interval_covers_the_mean_and_blocks_widen_it_where_neighbours_are_alike() {
        let mut random = Random(9);
        let mut noise = || (random.below(2001) as f64 - 1000.0) / 1000.0;
        let covered = (0..100).filter(|seed| {
            let values: Vec<f64> = (0..200).map(|_| 3.0 + noise()).collect();
            let (low, high) = mean_interval(&values, 1, *seed);
            low <= 3.0 && 3.0 <= high
        });
        assert!((85..=100).contains(&covered.count()));
        let steps: Vec<f64> = (0..400).map(|i| f64::from(i / 20 % 2)).collect();
        let width = |block| mean_interval(&steps, block, 0).1 - mean_interval(&steps, block, 0).0;
        assert!(width(20) > 2.0 * width(1), "{} {}", width(20), width(1));
        assert_eq!(mean_interval(&[2.0; 10], 3, 0), (2.0, 2.0));
        assert!(mean_interval(&[2.0; 10], 10, 0).0.is_nan() && mean_interval(&[], 1, 0).0.is_nan());
    }
}
