//! Compares the kernels, in every class that this processor supports, with computations in float64 for random shapes
//! and values. The environment variable `OPTIMIZE_PROPERTY_CASES` sets the number of cases of each test, and
//! `OPTIMIZE_PROPERTY_SEED` the seed of the first case.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod blocks;
mod dense;
mod grouped;
mod int8;
mod linear;
mod norm;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Class, Parallel};

/// Calls `case` with different random numbers each time: `default` times, unless the environment sets another number.
pub fn property(default: u64, case: impl Fn(&mut Random)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("OPTIMIZE_PROPERTY_SEED").unwrap_or(1);
    for seed in first..first + number("OPTIMIZE_PROPERTY_CASES").unwrap_or(default) {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&mut Random::new(seed))));
        if let Err(panic) = caught {
            eprintln!("again with OPTIMIZE_PROPERTY_SEED={seed} OPTIMIZE_PROPERTY_CASES=1");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Returns the classes that this processor supports.
pub fn classes() -> Vec<Class> {
    Class::ALL.into_iter().filter(|class| class.supported()).collect()
}

/// Random numbers (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Returns true once in `often`.
    pub fn once_in(&mut self, often: usize) -> bool {
        self.below(often) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Returns a size: mostly small, often at an edge of a vector or block.
    pub fn size(&mut self, most: usize) -> usize {
        let size = match self.below(4) {
            0 => self.below(4),
            1 => self.pick(&[8, 16, 24, 32, 48, 64, 96, 128, 192, 256]) + self.pick(&[0, 0, 1, 2]) - self.below(2),
            _ => self.below(most + 1),
        };
        size.min(most)
    }

    /// Returns a random number with mean 0 and standard deviation 1, approximately.
    pub fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.next() as u32 as f32 / u32::MAX as f32 - 0.5).sum::<f32>() * 1.7
    }

    /// Returns values of a random kind: ordinary, with outliers, all 0, tiny, huge.
    pub fn values(&mut self, count: usize) -> Vec<f32> {
        let scale = self.pick(&[1.0, 1.0, 1.0, 1.0, 0.0, 1e-3, 1e-20, 1e-39, 1e10]);
        let outliers = self.once_in(3);
        (0..count)
            .map(|_| {
                let value = self.normal() * scale;
                if outliers && self.once_in(20) { value * 50.0 } else { value }
            })
            .collect()
    }

    /// Replaces a few values by NaN or an infinity.
    pub fn spoil(&mut self, values: &mut [f32]) {
        for _ in 0..1 + self.below(3) {
            let index = self.below(values.len());
            let value = self.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            values.iter_mut().skip(index).take(1).for_each(|to| *to = value);
        }
    }
}

/// A pool of simulated threads: mostly, tasks run one after another in reverse order, occasionally on threads.
pub struct Threads(pub usize);

impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        if !CALLS.fetch_add(1, Ordering::Relaxed).is_multiple_of(32) {
            return (0..tasks).rev().for_each(work);
        }
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|| {
                    loop {
                        let task = next.fetch_add(1, Ordering::Relaxed);
                        if task >= tasks {
                            break;
                        }
                        work(task);
                    }
                });
            }
        });
    }
}

/// Returns the bits of the values of a slice, with the same bits for all NaN, and for 0 and -0.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { 0x7fc0_0000 } else { (value + 0.0).to_bits() }).collect()
}
