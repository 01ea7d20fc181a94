//! The groups of nodes that are faster on this library's kernels than in ONNX Runtime, by class of processors.
//!
//! The rules come from measurements: groups of each kind as they are in encoders and decoders (1 to 1024 rows of 384 to
//! 3072 values, one thread) against ONNX Runtime 1.32, with the same processor extensions. The figures are in
//! `docs/provider.md`.

use super::patterns::Kind;
use crate::kernels::Class;

/// Returns whether groups of `kind` are claimed on processors of `class` if the session does not name the kinds to
/// claim.
pub fn is_faster(class: Class, kind: Kind) -> bool {
    match (class, kind) {
        (Class::Scalar, _) => false,
        // Without VNNI, ONNX Runtime adds two products in 16 bits, which may saturate. The exact sums of these kernels
        // take longer.
        (Class::Avx2, Kind::Quantized) => false,
        // An activation alone spends most of its time on reading and writing memory, so that the kernels are not
        // faster.
        (_, Kind::Activation) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_rust_is_never_faster() {
        assert!(Kind::ALL.iter().all(|kind| !is_faster(Class::Scalar, *kind)));
    }

    #[test]
    fn a_better_processor_loses_no_kind() {
        for pair in Class::ALL.windows(2) {
            assert!(Kind::ALL.iter().all(|kind| !is_faster(pair[0], *kind) || is_faster(pair[1], *kind)));
        }
    }
}
