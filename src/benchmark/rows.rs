//! The arithmetic of one row of an output, which is the vector along its last dimension.

/// The sums over the elements of `a` (original) and `b` (result).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    /// Sum Σab of the products.
    pub dot: f64,
    /// Sum Σa² of the squares of `a`.
    pub aa: f64,
    /// Sum Σb² of the squares of `b`.
    pub bb: f64,
    /// Sum Σ(a - b)² of the squared differences.
    pub squares: f64,
    /// Largest difference |a - b|.
    pub largest: f64,
    /// Number of elements of `b` that are not finite where `a` is not the same.
    pub non_finite: u64,
}

impl Sums {
    /// Returns the sums of a row. A pair of elements of which one is not finite is omitted from all but `non_finite`.
    pub fn of(a: &[f32], b: &[f32]) -> Sums {
        let mut sums = Sums::default();
        for (a, b) in a.iter().zip(b) {
            if !a.is_finite() || !b.is_finite() {
                let same = a == b || (a.is_nan() && b.is_nan());
                sums.non_finite += u64::from(!same && !b.is_finite());
                continue;
            }
            let (a, b) = (f64::from(*a), f64::from(*b));
            sums.dot += a * b;
            sums.aa += a * a;
            sums.bb += b * b;
            sums.squares += (a - b) * (a - b);
            sums.largest = sums.largest.max((a - b).abs());
        }
        sums
    }

    /// Adds the sums of another row.
    pub fn add(&mut self, other: &Sums) {
        self.dot += other.dot;
        self.aa += other.aa;
        self.bb += other.bb;
        self.squares += other.squares;
        self.largest = self.largest.max(other.largest);
        self.non_finite += other.non_finite;
    }

    /// Returns `a·b / (|a| |b|)`: 1 if both vectors are zero, 0 if only one is or if `non_finite` is not 0.
    pub fn cosine(&self) -> f64 {
        if self.non_finite > 0 {
            return 0.0;
        }
        match (self.aa > 0.0, self.bb > 0.0) {
            // Equal rows have a cosine of exactly 1, despite rounding.
            (true, true) if self.squares == 0.0 => 1.0,
            // The roots are taken separately because their product can overflow; rounding must not give more than 1.
            (true, true) => (self.dot / self.aa.sqrt() / self.bb.sqrt()).clamp(-1.0, 1.0),
            (false, false) => 1.0,
            _ => 0.0,
        }
    }

    /// Returns `sqrt(Σ(a - b)² / Σa²)`; 0 if there is no difference, and `None` if only the divisor is 0.
    pub fn relative_rms(&self) -> Option<f64> {
        match (self.squares, self.aa) {
            (0.0, _) => Some(0.0),
            (_, 0.0) => None,
            (squares, aa) => Some((squares / aa).sqrt()),
        }
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
    fn sums_are_those_by_hand() {
        let sums = Sums::of(&[3.0, 4.0], &[4.0, 3.0]);
        assert_eq!((sums.dot, sums.aa, sums.bb, sums.squares, sums.largest), (24.0, 25.0, 25.0, 2.0, 1.0));
        assert!(near(sums.cosine(), 0.96));
        assert!(near(sums.relative_rms().unwrap(), (2.0f64 / 25.0).sqrt()));
        assert!(near(Sums::of(&[1.0, 0.0], &[-2.0, 0.0]).cosine(), -1.0));
        assert!(near(Sums::of(&[1e30; 3], &[1e30; 3]).cosine(), 1.0));
        let mut both = sums;
        both.add(&Sums::of(&[1.0], &[3.0]));
        assert_eq!((both.dot, both.largest), (27.0, 2.0));
    }

    #[test]
    fn zeros_and_what_is_not_finite_have_a_cosine() {
        assert_eq!(Sums::of(&[0.0, 0.0], &[0.0, 0.0]).cosine(), 1.0);
        assert_eq!(Sums::of(&[0.0, 0.0], &[1.0, 0.0]).cosine(), 0.0);
        assert_eq!(Sums::of(&[0.0], &[1.0]).relative_rms(), None);
        let broken = Sums::of(&[1.0, 1.0, 1.0], &[1.0, NAN, INF]);
        assert_eq!((broken.cosine(), broken.non_finite, broken.largest), (0.0, 2, 0.0));
        // Minus infinity (a mask) in both outputs is not a difference.
        let masked = Sums::of(&[1.0, -INF, NAN], &[1.0, -INF, NAN]);
        assert_eq!((masked.cosine(), masked.non_finite), (1.0, 0));
        assert_eq!(Sums::of(&[INF], &[-INF]).non_finite, 1);
    }
}
