//! How likely a model holds a token, from its logits: natural logarithms, in float64.

/// `ln Σ exp(x)`, with the largest element taken out first so that nothing overflows.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
    largest + sum.ln()
}

/// `-ln softmax(row)[token]` in nats; not a number if the row has one that is none.
pub fn surprise(row: &[f32], token: usize) -> f64 {
    log_sum_exp(row) - f64::from(row[token])
}

/// What two models think of one token.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Judgement {
    /// [`surprise`] of the first.
    pub original: f64,
    /// [`surprise`] of the second.
    pub result: f64,
    /// `KL(softmax(original) ‖ softmax(result))` in nats.
    pub kl: f64,
    /// Whether both have their largest logit at the same token.
    pub same_top: bool,
}

/// Compares two rows of logits of one length, at the token that came.
pub fn judge(original: &[f32], result: &[f32], token: usize) -> Judgement {
    let (a_norm, b_norm) = (log_sum_exp(original), log_sum_exp(result));
    let term = |(a, b): (&f32, &f32)| {
        let log_p = f64::from(*a) - a_norm;
        // What the original rules out adds nothing, whatever the result says.
        if log_p == f64::NEG_INFINITY { 0.0 } else { log_p.exp() * (log_p - (f64::from(*b) - b_norm)) }
    };
    let kl: f64 = original.iter().zip(result).map(term).sum();
    Judgement {
        original: a_norm - f64::from(original[token]),
        result: b_norm - f64::from(result[token]),
        // Rounding can leave a hair below zero; not-a-number must stay so, hence no `max`.
        kl: if kl < 0.0 { 0.0 } else { kl },
        same_top: top(original) == top(result),
    }
}

/// The place of the largest element, the first of equals; 0 if none is a number.
pub fn top(row: &[f32]) -> usize {
    let better = |best: (usize, f32), (i, &x): (usize, &f32)| if x > best.1 { (i, x) } else { best };
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), better).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn logarithms_are_those_by_hand() {
        assert!(near(log_sum_exp(&[0.0; 4]), 4f64.ln()));
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
        assert_eq!(surprise(&[0.0, f32::NEG_INFINITY], 1), f64::INFINITY);
        assert!(surprise(&[0.0, f32::NAN], 0).is_nan());
    }

    #[test]
    fn two_rows_are_compared_in_one_go() {
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln 2 - ln(3) / 2.
        let rows = ([0.0, 0.0], [0.0, 3f32.ln()]);
        let judged = judge(&rows.0, &rows.1, 1);
        assert!((judged.kl - (2f64.ln() - 3f64.ln() / 2.0)).abs() < 1e-7, "{judged:?}");
        assert!(near(judged.original, 2f64.ln()) && (judged.result - (4f64 / 3.0).ln()).abs() < 1e-7);
        assert!(!judged.same_top && judge(&rows.1, &rows.1, 0).same_top);
        assert_eq!(judge(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0], 0).kl, 0.0);
        assert_eq!(judge(&[0.0, f32::NEG_INFINITY], &[0.0, 0.0], 0).kl, 2f64.ln());
        assert_eq!(judge(&[0.0, 0.0], &[0.0, f32::NEG_INFINITY], 0).kl, f64::INFINITY);
        assert!(judge(&[0.0, 0.0], &[0.0, f32::NAN], 0).kl.is_nan());
        assert_eq!((top(&[1.0, 3.0, 3.0]), top(&[f32::NAN, -5.0]), top(&[f32::NAN])), (1, 1, 0));
    }
}
