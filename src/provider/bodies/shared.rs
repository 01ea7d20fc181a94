//! Packed weights that several bodies of a session use ([`SharedWeights`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::sync::{Arc, Weak};

use crate::kernels::PackedLinear;

/// The number of pieces of packed weights that are hashed, and their size in bytes.
const PIECES: usize = 64;
const PIECE: usize = 64;

/// The packed weights of a session. Equal weights, such as those of an unrolled recurrent layer, of shared layers or of
/// tied embeddings, are stored once. The weights live as long as a body uses them.
#[derive(Default)]
pub struct SharedWeights {
    known: RefCell<HashMap<u64, Vec<Weak<PackedLinear>>>>,
    bytes: Cell<usize>,
}

impl SharedWeights {
    /// Returns weights that equal `packed`: those that were added before, if a body still uses them, otherwise
    /// `packed`.
    pub fn add(&self, packed: PackedLinear) -> Arc<PackedLinear> {
        let mut known = self.known.borrow_mut();
        let alike = known.entry(hash(&packed)).or_default();
        alike.retain(|weights| weights.strong_count() > 0);
        let is_equal =
            |weights: &Arc<PackedLinear>| weights.header() == packed.header() && weights.bytes() == packed.bytes();
        if let Some(same) = alike.iter().filter_map(Weak::upgrade).find(is_equal) {
            return same;
        }
        self.bytes.set(self.bytes.get() + packed.bytes().len());
        let weights = Arc::new(packed);
        alike.push(Arc::downgrade(&weights));
        weights
    }

    /// Returns the size in bytes of all weights that were added and had no equal.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

/// Returns a hash of the header, of the size and of some pieces of the weights.
fn hash(packed: &PackedLinear) -> u64 {
    let bytes = packed.bytes();
    let mut hasher = DefaultHasher::new();
    hasher.write(&packed.header().to_bytes());
    hasher.write_usize(bytes.len());
    for piece in bytes.chunks(bytes.len().div_ceil(PIECES).max(PIECE)) {
        hasher.write(&piece[..piece.len().min(PIECE)]);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Class, Layout, Precision, Serial};

    fn packed(values: &[f32], n: usize) -> PackedLinear {
        let sizes = (values.len() / n, n);
        PackedLinear::from_f32(values, Layout::KxN, sizes, Precision::Int8, Class::Scalar, &Serial).unwrap()
    }

    #[test]
    fn equal_weights_are_stored_once() {
        let shared = SharedWeights::default();
        let mut values: Vec<f32> = (0..64 * 96).map(|i| (i as f32 * 0.37).sin()).collect();
        let first = shared.add(packed(&values, 96));
        let size = shared.bytes();
        assert!(size >= values.len() && Arc::ptr_eq(&first, &shared.add(packed(&values, 96))));
        assert_eq!(shared.bytes(), size);
        // Weights with other sizes, or with another value of one element, are not shared.
        assert!(!Arc::ptr_eq(&first, &shared.add(packed(&values, 64))));
        for index in [0, 1234, values.len() - 1] {
            values[index] += 0.5;
            assert!(!Arc::ptr_eq(&first, &shared.add(packed(&values, 96))), "{index}");
        }
        // Weights that no body uses are not kept.
        drop(first);
        assert!(shared.bytes() > size);
        assert!(shared.known.borrow().values().flatten().all(|weights| weights.strong_count() == 0));
    }
}
