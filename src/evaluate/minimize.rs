//! The minimization of a smooth function with L-BFGS.

use crate::error::Result;
use crate::statistics::dot;
use std::collections::VecDeque;

/// The number of steps from which the curvature is estimated.
const MEMORY: usize = 10;
/// The fraction of the predicted decrease that a step must reach (Armijo).
const DESCENT: f64 = 1e-4;
/// The maximum number of times that a step is halved.
const HALVINGS: usize = 40;

/// The result of a minimization.
#[derive(Debug)]
pub struct Minimum {
    /// Point at which the search ended.
    pub x: Vec<f64>,
    /// Number of steps of the search.
    pub iterations: usize,
    /// Whether the gradient reached the tolerance.
    pub converged: bool,
}

/// Minimizes `function` from the point `x`, and returns the result. The search ends when no element of the gradient is
/// larger in magnitude than `tolerance`, after `most` steps, or when no smaller value is found.
///
/// `function` returns the value at a point and writes the gradient; an error of it ends the search. Source: Nocedal,
/// Wright, "Numerical Optimization", 2006, algorithm 7.4 (the direction) and 3.1 (the step length, by halving).
pub fn minimize(
    mut x: Vec<f64>,
    most: usize,
    tolerance: f64,
    mut function: impl FnMut(&[f64], &mut [f64]) -> Result<f64>,
) -> Result<Minimum> {
    let mut gradient = vec![0.0; x.len()];
    let mut value = function(&x, &mut gradient)?;
    let mut pairs: VecDeque<Pair> = VecDeque::new();
    for iterations in 0..most {
        if gradient.iter().all(|g| g.abs() <= tolerance) {
            return Ok(Minimum { x, iterations, converged: true });
        }
        let direction = direction(&gradient, &pairs);
        let slope = dot(&direction, &gradient);
        // As long as the curvature is unknown, steps have at most the length 1.
        let mut length = if pairs.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt().max(1.0) } else { 1.0 };
        let mut next_gradient = vec![0.0; x.len()];
        let mut found = None;
        for _ in 0..HALVINGS {
            let next: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + length * d).collect();
            let next_value = function(&next, &mut next_gradient)?;
            if next_value <= value + DESCENT * length * slope {
                found = Some((next, next_value));
                break;
            }
            length /= 2.0;
        }
        // If no step length gives a smaller value, any further decrease is lost to rounding.
        let Some((next, next_value)) = found else { return Ok(Minimum { x, iterations, converged: false }) };
        let step: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&step, &change);
        if curvature > 1e-12 * dot(&change, &change) {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back(Pair { step, change, curvature });
        }
        (x, value, gradient) = (next, next_value, next_gradient);
    }
    Ok(Minimum { x, iterations: most, converged: false })
}

/// A step and the change of the gradient over it.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// Dot product of the step and the change of the gradient.
    curvature: f64,
}

/// Returns the descent direction by the two-loop recursion.
fn direction(gradient: &[f64], pairs: &VecDeque<Pair>) -> Vec<f64> {
    let mut q = gradient.to_vec();
    let mut shares = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let share = dot(&pair.step, &q) / pair.curvature;
        q.iter_mut().zip(&pair.change).for_each(|(q, y)| *q -= share * y);
        shares.push(share);
    }
    if let Some(last) = pairs.back() {
        let scale = last.curvature / dot(&last.change, &last.change);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (pair, share) in pairs.iter().zip(shares.iter().rev()) {
        let back = dot(&pair.change, &q) / pair.curvature;
        q.iter_mut().zip(&pair.step).for_each(|(q, s)| *q += (share - back) * s);
    }
    q.iter_mut().for_each(|q| *q = -*q);
    q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bowl_and_rosenbrocks_valley_have_their_known_minima() {
        let bowl = minimize(vec![5.0, -3.0, 8.0], 50, 1e-9, |x, g| {
            let weights = [1.0, 100.0, 0.01];
            (0..3).for_each(|i| g[i] = 2.0 * weights[i] * (x[i] - i as f64));
            Ok((0..3).map(|i| weights[i] * (x[i] - i as f64).powi(2)).sum())
        });
        let bowl = bowl.unwrap();
        assert!(bowl.converged && bowl.x.iter().zip(0..).all(|(x, i)| (x - f64::from(i)).abs() < 1e-6), "{bowl:?}");
        let valley = minimize(vec![-1.2, 1.0], 200, 1e-8, |x, g| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            (g[0], g[1]) = (-2.0 * a - 400.0 * x[0] * b, 200.0 * b);
            Ok(a * a + 100.0 * b * b)
        });
        let valley = valley.unwrap();
        assert!(valley.converged && valley.iterations < 100, "{valley:?}");
        assert!((valley.x[0] - 1.0).abs() < 1e-6 && (valley.x[1] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn it_ends_where_there_is_nothing_to_gain_and_hands_errors_on() {
        let flat = minimize(vec![1.0], 10, 0.0, |_, g| {
            g[0] = 0.0;
            Ok(7.0)
        });
        assert_eq!(flat.unwrap().iterations, 0);
        let limited = minimize(vec![1e6], 1, 1e-9, |x, g| {
            g[0] = 2.0 * x[0];
            Ok(x[0] * x[0])
        });
        assert!(!limited.unwrap().converged);
        assert!(minimize(vec![1.0], 10, 0.0, |_, _| Err(crate::call::cancelled())).is_err());
    }
}
