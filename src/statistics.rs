//! Random numbers, percentiles, and the confidence intervals of medians and means.

/// The maximum number of resamples of the bootstrap. Above 10,000 values it is lower, at least 200, to limit the time.
const RESAMPLES: usize = 2000;

/// Returns the dot product of two vectors of equal length, computed in float64.
pub fn dot<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    let product = |(a, b): (&T, &T)| {
        let (a, b): (f64, f64) = ((*a).into(), (*b).into());
        a * b
    };
    a.iter().zip(b).map(product).sum()
}

/// The generator SplitMix64, which is small, fast, and good enough for inputs and resampling. The same seed gives the
/// same numbers everywhere. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// Returns 64 bits that depend on every bit of `number`: the first number of the generator with the seed `number`.
pub fn mixed(number: u64) -> u64 {
    Random(number).next()
}

impl Random {
    /// Returns a generator with this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Returns a generator for part `index` of the work with this seed. The sequences of two parts are so far apart
    /// that an overlap is very unlikely.
    pub fn part(seed: u64, index: u64) -> Random {
        Random(Random(seed ^ Random(index).next()).next())
    }

    /// Returns 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a uniformly distributed number in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns a uniformly distributed integer in `0 .. n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // Multiply and shift: the bias is below n / 2^64 (Lemire, "Fast random integer generation", 2019).
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Returns a random index below `n`; 0 if `n` is 0.
    pub fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// Shuffles the elements by the algorithm of Fisher and Yates.
    pub fn shuffle<T>(&mut self, elements: &mut [T]) {
        for last in (1..elements.len()).rev() {
            elements.swap(last, self.index(last + 1));
        }
    }

    /// Returns a normally distributed number with mean 0 and variance 1, by the transform of Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Returns the quantile `p` (0 to 1) of values in ascending order, interpolated linearly between neighbours (type 7 of
/// Hyndman and Fan, NumPy's default); NaN if there are no values.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = p.clamp(0.0, 1.0) * last as f64;
    let (low, share) = (position.floor() as usize, position.fract());
    let (low, high) = (sorted[low], sorted[(low + 1).min(last)]);
    // Without this case, two infinite neighbours would give NaN.
    if share == 0.0 { low } else { low + (high - low) * share }
}

/// Returns the values in ascending order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Returns the ends of the 95 % percentile-bootstrap interval of the median of values in ascending order; NaN if there
/// are no values. Samples of the size of the data are drawn with replacement, at most [`RESAMPLES`] times; 2.5 % of
/// their medians lie below the interval, and 2.5 % above. Source: Efron, Tibshirani, "An Introduction to the
/// Bootstrap", 1993, chapter 13.
pub fn median_interval(sorted: &[f64], seed: u64) -> (f64, f64) {
    let n = sorted.len();
    if n == 0 {
        return (f64::NAN, f64::NAN);
    }
    // For more than 10,000 values, fewer samples are drawn: 20 million draws take about a second, and the interval of
    // so many values is narrow anyway.
    let resamples = (20_000_000 / n).clamp(200, RESAMPLES);
    let mut random = Random::new(seed);
    let mut ranks = vec![0usize; n];
    let mut medians = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        ranks.fill_with(|| random.index(n));
        let (below, &mut upper, _) = ranks.select_nth_unstable(n / 2);
        let lower = if n % 2 == 1 { upper } else { below.iter().max().copied().unwrap_or(upper) };
        medians.push((sorted[lower] + sorted[upper]) / 2.0);
    }
    medians.sort_by(f64::total_cmp);
    (percentile(&medians, 0.025), percentile(&medians, 0.975))
}

/// Returns the median; NaN if there are no values.
pub fn median(values: &[f64]) -> f64 {
    percentile(&sorted(values), 0.5)
}

/// Quantiles 0.975 of Student's t distribution for 1 to 9 degrees of freedom.
const STUDENT: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
/// Quantile 0.975 of the standard normal distribution.
const NORMAL: f64 = 1.96;

/// Returns the ends of the 95 % bootstrap interval of the median of positive values in groups; NaN if there are fewer
/// than two groups, or if one is empty. Groups are drawn with replacement, and then values of each drawn group. Values
/// of one group have something in common (the session in which they were measured), so drawing single values would make
/// the interval too narrow.
///
/// The percentiles of few groups are too narrow, too. Therefore the logarithmic distance of each end from the median is
/// multiplied by `t √(n / (n - 1)) / 1.96`, where `t` is the quantile 0.975 of Student's t distribution with `n - 1`
/// degrees of freedom. With this factor, the interval of a mean of `n` groups would be exact. Sources: Davison,
/// Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; Hesterberg, "What Teachers Should Know About
/// the Bootstrap", 2015 (expanded percentile intervals).
pub fn grouped_interval(groups: &[Vec<f64>], seed: u64) -> (f64, f64) {
    let count: usize = groups.iter().map(Vec::len).sum();
    if groups.iter().any(Vec::is_empty) || groups.len() < 2 {
        return (f64::NAN, f64::NAN);
    }
    let resamples = (20_000_000 / count).clamp(200, RESAMPLES);
    let mut random = Random::new(seed);
    let mut drawn = Vec::with_capacity(count);
    let mut medians = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        drawn.clear();
        for _ in 0..groups.len() {
            let group = &groups[random.index(groups.len())];
            drawn.extend((0..group.len()).map(|_| group[random.index(group.len())]));
        }
        medians.push(median(&drawn));
    }
    medians.sort_by(f64::total_cmp);
    let n = groups.len() as f64;
    let student = STUDENT.get(groups.len() - 2).copied().unwrap_or(NORMAL);
    let factor = student * (n / (n - 1.0)).sqrt() / NORMAL;
    let middle = median(&groups.concat());
    let end = |at: f64| middle * (percentile(&medians, at) / middle).powf(factor);
    (end(0.025), end(0.975))
}

/// Returns the mean of the values; NaN if there are none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Returns the ends of the 95 % percentile-bootstrap interval of the mean of consecutive values, resampled in blocks of
/// `block` neighbours: neighbours in a text are correlated, and single draws would make the interval too narrow.
///
/// Returns NaN if there are fewer than two blocks. Source: Künsch, "The jackknife and the bootstrap for general
/// stationary observations", 1989 (here with blocks that do not overlap, Carlstein 1986).
pub fn mean_interval(values: &[f64], block: usize, seed: u64) -> (f64, f64) {
    let blocks: Vec<(f64, usize)> = values.chunks(block.max(1)).map(|b| (b.iter().sum(), b.len())).collect();
    if blocks.len() < 2 {
        return (f64::NAN, f64::NAN);
    }
    // 20 million draws take about a second; with that many blocks the interval is narrow anyway.
    let resamples = (20_000_000 / blocks.len()).clamp(200, RESAMPLES);
    let mut random = Random::new(seed);
    let mut draw = || {
        let (mut sum, mut count) = (0.0, 0);
        for _ in 0..blocks.len() {
            let (part, length) = blocks[random.index(blocks.len())];
            sum += part;
            count += length;
        }
        sum / count as f64
    };
    let means = sorted(&(0..resamples).map(|_| draw()).collect::<Vec<f64>>());
    (percentile(&means, 0.025), percentile(&means, 0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_differ_make_the_interval_wide() {
        let alike = [vec![1.0, 1.1, 1.2], vec![1.0, 1.1, 1.2], vec![1.0, 1.1, 1.2]];
        let apart = [vec![1.0, 1.1, 1.2], vec![2.0, 2.1, 2.2], vec![3.0, 3.1, 3.2]];
        let (low, high) = grouped_interval(&alike, 0);
        assert!((0.8..1.1).contains(&low) && (1.1..1.5).contains(&high), "{low} {high}");
        let (low, high) = grouped_interval(&apart, 0);
        assert!(low < 0.7 && high > 5.0, "{low} {high}");
        assert_eq!(grouped_interval(&apart, 0), (low, high));
        assert!(grouped_interval(&alike[..1], 0).0.is_nan());
        assert_eq!(median(&[3.0, 1.0, 2.0, 9.0]), 2.5);
    }

    #[test]
    fn intervals_of_few_groups_contain_the_true_median() {
        let (mut random, mut hits) = (Random::new(3), 0);
        for trial in 0..400 {
            let mut group = || {
                let own = 0.05 * random.normal();
                (0..5).map(|_| (own + 0.02 * random.normal()).exp()).collect::<Vec<f64>>()
            };
            let (low, high) = grouped_interval(&[group(), group(), group()], trial);
            hits += u32::from(low <= 1.0 && 1.0 <= high);
        }
        // The expected coverage is 95 %; without the correction, it is about 77 %.
        assert!((368..=396).contains(&hits), "{hits} of 400");
    }

    #[test]
    fn the_generator_gives_the_published_numbers() {
        // First outputs for seed 1234567 of the reference code (https://prng.di.unimi.it/splitmix64.c).
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert_ne!(Random::part(1, 0).next(), Random::part(1, 1).next());
    }

    #[test]
    fn numbers_have_the_promised_distribution() {
        let mut random = Random::new(1);
        let normal: Vec<f64> = (0..20_000).map(|_| random.normal()).collect();
        let mean = normal.iter().sum::<f64>() / normal.len() as f64;
        let variance = normal.iter().map(|x| x * x).sum::<f64>() / normal.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        let mut seen = [0; 5];
        (0..5000).for_each(|_| seen[random.index(5)] += 1);
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn percentiles_are_those_of_numpy() {
        let values = sorted(&[3.0, 1.0, 2.0, 10.0]);
        assert_eq!(percentile(&values, 0.5), 2.5);
        assert!((percentile(&values, 0.9) - 7.9).abs() < 1e-12);
        assert_eq!((percentile(&values, 0.0), percentile(&values, 1.0)), (1.0, 10.0));
        assert_eq!(percentile(&[7.0], 0.9), 7.0);
        assert_eq!(percentile(&[1.0, f64::INFINITY], 0.0), 1.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn the_interval_covers_the_median_about_nineteen_times_of_twenty() {
        let mut random = Random::new(7);
        let trials = 200;
        let covered = (0..trials).filter(|trial| {
            let values: Vec<f64> = (0..41).map(|_| 1.5 + random.normal()).collect();
            let (low, high) = median_interval(&sorted(&values), *trial);
            low <= 1.5 && 1.5 <= high
        });
        let covered = covered.count();
        assert!((180..=198).contains(&covered), "{covered} of {trials}");
    }

    #[test]
    fn the_interval_of_equal_values_is_that_value() {
        assert_eq!(median_interval(&[2.0; 10], 0), (2.0, 2.0));
        assert_eq!(median_interval(&[2.0], 0), (2.0, 2.0));
        assert!(median_interval(&[], 0).0.is_nan());
        assert_eq!(median_interval(&[1.0, 2.0, 3.0], 5), median_interval(&[1.0, 2.0, 3.0], 5));
    }
    #[test]
    fn shuffles_lose_nothing() {
        let mut order: Vec<usize> = (0..100).collect();
        Random::new(1).shuffle(&mut order);
        assert_ne!(order[..5], [0, 1, 2, 3, 4]);
        order.sort();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn the_interval_covers_the_mean_and_blocks_widen_it_where_neighbours_are_alike() {
        let mut random = Random::new(9);
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
