//! The optimizer AdamW, which updates all parameters in one pass.
//!
//! Loshchilov, Hutter 2019, arXiv 1711.05101; gradients are clipped as in Pascanu et al. 2013, arXiv 1211.5063. Sums
//! are over chunks of a fixed size in a fixed order, so that results do not depend on the number of threads.

use super::DistillOptions;
use rayon::prelude::*;

/// The number of elements that one thread processes at a time.
const PIECE: usize = 1 << 15;

/// The magnitude below which a first moment is set to 0. Such a moment has no effect on weights, but it would become
/// subnormal before it reached 0, which is a hundred times as slow to compute. Moments of rarely read rows become so
/// small.
const TINY: f32 = 1e-30;

/// The moments of the gradients of one parameter.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Running mean of gradients.
    pub first: Vec<f32>,
    /// Running mean of squared gradients.
    pub second: Vec<f32>,
    /// Whether weight decay applies to the parameter.
    pub decays: bool,
}

impl Moments {
    /// Returns moments of `elements` zeros.
    pub fn new(elements: usize, decays: bool) -> Moments {
        Moments { first: vec![0.0; elements], second: vec![0.0; elements], decays }
    }
}

/// The numbers of one step that are the same for all parameters.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// Factor of gradients, below 1 if they are clipped.
    scale: f32,
    /// Learning rate divided by the bias correction of the first moment.
    rate: f32,
    /// Reciprocal square root of the bias correction of the second moment.
    root: f32,
    /// Factor of parameters to which weight decay applies.
    keep: f32,
}

impl Step {
    /// Returns the numbers of step `count`, which counts from 1, for gradients with the norm `norm`.
    pub fn new(options: &DistillOptions, count: u64, learning_rate: f32, norm: f64) -> Step {
        let limit = f64::from(options.max_grad_norm);
        // 1e-6 is the epsilon of PyTorch's `clip_grad_norm_`.
        let scale = if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let short = |beta: f32| 1.0 - f64::from(beta).powf(count as f64);
        Step {
            beta1: options.beta1,
            beta2: options.beta2,
            epsilon: options.epsilon,
            scale: scale as f32,
            rate: (f64::from(learning_rate) / short(options.beta1)) as f32,
            root: (1.0 / short(options.beta2).sqrt()) as f32,
            keep: 1.0 - learning_rate * options.weight_decay,
        }
    }

    /// Updates the weights and moments of a parameter by its gradient.
    pub fn apply(&self, weights: &mut [f32], gradients: &[f32], moments: &mut Moments) {
        let keep = self.keep(moments.decays);
        let parts = weights
            .par_chunks_mut(PIECE)
            .zip(gradients.par_chunks(PIECE))
            .zip(moments.first.par_chunks_mut(PIECE).zip(moments.second.par_chunks_mut(PIECE)));
        parts.for_each(|((weights, gradients), (first, second))| {
            self.change(keep, weights, gradients, first, second);
        });
    }

    /// Updates a part of the weights and moments of a parameter by a part of its gradient. `keep` is the decay factor
    /// of the parameter ([`Step::keep`]).
    pub fn change(&self, keep: f32, weights: &mut [f32], gradients: &[f32], first: &mut [f32], second: &mut [f32]) {
        for (((w, g), m), v) in weights.iter_mut().zip(gradients).zip(first).zip(second) {
            let g = g * self.scale;
            *m = without_tiny(self.beta1 * *m + (1.0 - self.beta1) * g);
            *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
            *w = *w * keep - self.rate * *m / (v.sqrt() * self.root + self.epsilon);
        }
    }

    /// Returns the decay factor of a parameter; 1 if weight decay does not apply to it.
    pub fn keep(&self, decays: bool) -> f32 {
        if decays { self.keep } else { 1.0 }
    }
}

fn without_tiny(m: f32) -> f32 {
    if m.abs() < TINY { 0.0 } else { m }
}

/// Updates a part of a parameter as [`Step::change`] does in several steps without a gradient, with the same bits. A
/// few numbers at a time stay in registers for all steps, so memory is read and written once.
pub fn without_gradient(steps: &[Step], decays: bool, weights: &mut [f32], first: &mut [f32], second: &mut [f32]) {
    if first.iter().chain(&*second).all(|moment| *moment == 0.0) {
        for step in steps.iter().filter(|step| step.keep(decays) != 1.0) {
            weights.iter_mut().for_each(|w| *w *= step.keep(decays));
        }
        return;
    }
    const FEW: usize = 16;
    for ((w, m), v) in weights.chunks_mut(FEW).zip(first.chunks_mut(FEW)).zip(second.chunks_mut(FEW)) {
        let mut few = [[0f32; FEW]; 3];
        let count = w.len();
        few.iter_mut().zip([&*w, &*m, &*v]).for_each(|(few, all)| few[..count].copy_from_slice(all));
        let [ws, ms, vs] = &mut few;
        for step in steps {
            let keep = step.keep(decays);
            for ((w, m), v) in ws.iter_mut().zip(&mut *ms).zip(&mut *vs) {
                *m = without_tiny(step.beta1 * *m);
                *v *= step.beta2;
                *w = *w * keep - step.rate * *m / (v.sqrt() * step.root + step.epsilon);
            }
        }
        few.iter().zip([w, m, v]).for_each(|(few, all)| all.copy_from_slice(&few[..count]));
    }
}

/// Returns the sum of the squares of `gradients`, which is not finite if any element is not.
pub fn square_sum(gradients: &[f32]) -> f64 {
    let piece = |part: &[f32]| {
        // There are eight independent sums, so that the compiler can vectorize the loop.
        let mut sums = [0f64; 8];
        let chunks = part.chunks_exact(8);
        let rest: f64 = chunks.remainder().iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        for chunk in chunks {
            sums.iter_mut().zip(chunk).for_each(|(sum, v)| *sum += f64::from(*v) * f64::from(*v));
        }
        sums.iter().sum::<f64>() + rest
    };
    let parts: Vec<f64> = gradients.par_chunks(PIECE).map(piece).collect();
    parts.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are from PyTorch 2.15: `AdamW([w], lr=.1, weight_decay=.1)`, gradients (.5, -1), three
    /// times.
    #[test]
    fn three_steps_are_those_of_pytorch() {
        let options = DistillOptions { weight_decay: 0.1, max_grad_norm: 0.0, ..DistillOptions::default() };
        let (mut weights, mut moments) = (vec![1.0f32, -2.0], Moments::new(2, true));
        for count in 1..=3 {
            Step::new(&options, count, 0.1, 1.0).apply(&mut weights, &[0.5, -1.0], &mut moments);
        }
        for (w, expected) in weights.iter().zip([0.673_289_1_f32, -1.643_588]) {
            assert!((w - expected).abs() < 2e-6, "{weights:?}");
        }
        assert!((moments.first[0] - 0.5 * (1.0 - 0.9f32.powi(3))).abs() < 1e-6);
    }

    #[test]
    fn the_norm_is_limited_and_what_is_not_finite_is_seen() {
        let gradients: Vec<f32> = (0..100_003).map(|i| (i as f32 * 0.1).sin()).collect();
        let exact: f64 = gradients.iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!((square_sum(&gradients) - exact).abs() < 1e-6 * exact);
        assert!(square_sum(&[1.0, f32::NAN]).is_nan() && !square_sum(&[f32::INFINITY]).is_finite());
        let options = DistillOptions { max_grad_norm: 1.0, ..DistillOptions::default() };
        let step = Step::new(&options, 1, 0.1, 10.0);
        assert!((step.scale - 0.1).abs() < 1e-6);
        assert_eq!(Step::new(&options, 1, 0.1, 0.5).scale, 1.0);
    }
}
