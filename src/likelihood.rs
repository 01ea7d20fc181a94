//! Log-likelihoods of tokens or classes from logits: natural logarithms, in float64.

/// Returns `ln Σ exp(x)`, computed relative to the largest element so that `exp` does not overflow. Returns -infinity
/// for an empty row; NaN if the row contains NaN or +infinity, or if all elements are -infinity.
pub fn log_sum_exp<T: Copy + Into<f64>>(row: &[T]) -> f64 {
    let numbers = || row.iter().map(|x| -> f64 { (*x).into() });
    let largest = numbers().fold(f64::NEG_INFINITY, f64::max);
    largest + numbers().map(|x| (x - largest).exp()).sum::<f64>().ln()
}

/// Returns `-ln softmax(row)[token]` in nats; NaN if [`log_sum_exp`] of the row is. `token` must be an index of `row`.
pub fn surprise(row: &[f32], token: usize) -> f64 {
    log_sum_exp(row) - f64::from(row[token])
}

/// Returns the index of the largest element that is not NaN, the first of equal ones; `None` if there is none.
pub fn argmax(row: &[f32]) -> Option<usize> {
    let numbers = row.iter().enumerate().filter(|(_, x)| !x.is_nan());
    numbers
        .fold(None, |best: Option<(usize, f32)>, (i, &x)| match best {
            Some((_, largest)) if x <= largest => best,
            _ => Some((i, x)),
        })
        .map(|best| best.0)
}

/// Returns `KL(p ‖ q) = Σ p ln(p / q)` in nats for `p = softmax(a)`, `q = softmax(b)`, which must have one length.
/// Returns infinity if `q` is 0 where `p` is not, and NaN if [`log_sum_exp`] of a row is NaN. Source: Kullback,
/// Leibler, "On information and sufficiency", 1951.
pub fn kl_divergence(a: &[f32], b: &[f32]) -> f64 {
    divergence((a, log_sum_exp(a)), (b, log_sum_exp(b)))
}

/// Returns the [`kl_divergence`] of two rows whose [`log_sum_exp`] is known (the second element of each pair).
pub fn divergence((a, a_norm): (&[f32], f64), (b, b_norm): (&[f32], f64)) -> f64 {
    let term = |(a, b): (&f32, &f32)| {
        let log_p = f64::from(*a) - a_norm;
        // A token with probability 0 in the original adds nothing.
        if log_p == f64::NEG_INFINITY { 0.0 } else { log_p.exp() * (log_p - (f64::from(*b) - b_norm)) }
    };
    let sum: f64 = a.iter().zip(b).map(term).sum();
    // Rounding can result in a tiny negative value for equal rows; NaN must stay NaN, hence no `max`.
    if sum < 0.0 { 0.0 } else { sum }
}

/// The comparison of two models at one token.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Judgement {
    /// Negative log-likelihood ([`surprise`]) of the token in the first model.
    pub original: f64,
    /// Negative log-likelihood ([`surprise`]) of the token in the second model.
    pub result: f64,
    /// Divergence ([`kl_divergence`]) of the second model's distribution from that of the first, in nats.
    pub kl: f64,
    /// Whether both models give the same token the highest logit.
    pub same_top: bool,
}

/// Returns a comparison of the predictions of two models for the next token, whose id is `token`, by their rows of
/// logits of equal length.
pub fn judge(original: &[f32], result: &[f32], token: usize) -> Judgement {
    let (a_norm, b_norm) = (log_sum_exp(original), log_sum_exp(result));
    Judgement {
        original: a_norm - f64::from(original[token]),
        result: b_norm - f64::from(result[token]),
        kl: divergence((original, a_norm), (result, b_norm)),
        same_top: argmax(original) == argmax(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn logarithms_are_those_by_hand() {
        assert!(near(log_sum_exp(&[0f32; 4]), 4f64.ln()));
        assert!(near(log_sum_exp(&[1e300, 1e300]), 1e300) && near(log_sum_exp(&[-2f64; 3]), 3f64.ln() - 2.0));
        assert!(near(surprise(&[0.0; 4], 3), 4f64.ln()));
        // softmax of (0, 1, 2): e² / (1 + e + e²).
        let e = std::f64::consts::E;
        assert!(near(surprise(&[0.0, 1.0, 2.0], 2), ((1.0 + e + e * e) / (e * e)).ln()));
        assert!(near(surprise(&[0.0, 1.0, 2.0], 0), (1.0 + e + e * e).ln()));
    }

    #[test]
    fn large_and_small_logits_neither_overflow_nor_vanish() {
        assert!(near(surprise(&[1e30, 0.0], 0), 0.0));
        assert!(near(surprise(&[-1e4, -1e4], 1), 2f64.ln()));
        assert!(near(surprise(&[88.0, 100.0, 90.0], 0), 12.0 + (1.0 + (-10f64).exp() + (-12f64).exp()).ln()));
        // In float32 the second term is lost: 1 + 2^-30 is 1.
        let small = (-30.0 * 2f64.ln()) as f32;
        assert!(surprise(&[0.0, small], 0) > 9e-10);
        assert_eq!(surprise(&[0.0, -INF], 1), f64::INFINITY);
        assert!(surprise(&[0.0, NAN], 0).is_nan());
    }

    #[test]
    fn the_first_of_the_largest_counts() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax(&[NAN, -5.0, -6.0]), Some(1));
        assert_eq!(argmax(&[-INF, -INF]), Some(0));
        assert_eq!((argmax(&[NAN]), argmax(&[])), (None, None));
    }

    #[test]
    fn divergence_is_that_by_hand() {
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln 2 - ln(3) / 2.
        let kl = kl_divergence(&[0.0, 0.0], &[0.0, 3f32.ln()]);
        assert!((kl - (2f64.ln() - 3f64.ln() / 2.0)).abs() < 1e-7, "{kl}");
        assert_eq!(kl_divergence(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0]), 0.0);
        assert!(kl_divergence(&[1e4, 0.0], &[1e4, 0.0]) < 1e-12);
        assert_eq!(kl_divergence(&[0.0, -INF], &[0.0, -INF]), 0.0);
        assert_eq!(kl_divergence(&[0.0, -INF], &[0.0, 0.0]), 2f64.ln());
        assert_eq!(kl_divergence(&[0.0, 0.0], &[0.0, -INF]), f64::INFINITY);
        assert!(kl_divergence(&[0.0, 0.0], &[NAN, 0.0]).is_nan());
    }

    #[test]
    fn two_rows_are_compared_in_one_go() {
        let rows = ([0.0, 0.0], [0.0, 3f32.ln()]);
        let judged = judge(&rows.0, &rows.1, 1);
        assert!(near(judged.original, surprise(&rows.0, 1)) && near(judged.result, surprise(&rows.1, 1)));
        assert_eq!(judged.kl, kl_divergence(&rows.0, &rows.1));
        assert!(!judged.same_top && judge(&rows.1, &rows.1, 0).same_top);
    }
}
