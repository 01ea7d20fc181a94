//! Attention as one `com.microsoft.GroupQueryAttention` per layer, which rotates queries and keys, appends to the
//! cache (in place, if past and present are one buffer) and supports windows and caps. Rows are padded on the right.
//!
//! The requirements of this operator, found with ONNX Runtime 1.32: head sizes are a multiple of 8, or of 16 if they
//! are rotated; tables have at least `total_sequence` rows; a window counts the token itself, as in Hugging Face
//! configurations.

use super::super::decoder::{Decoder, Inputs};
use super::Projected;
use crate::onnx::dtype::DataType;
use crate::source::builder::{Attribute, Builder};

/// Returns whether ONNX Runtime's kernel supports heads of the sizes of a decoder.
pub fn fits(d: &Decoder) -> bool {
    let rotations_fit = d.ropes.iter().all(|rope| rope.size() % 16 == 0 && d.heads.size % 16 == 0);
    d.heads.size % 8 == 0 && rotations_fit
}

/// The names of values that all layers use.
pub struct Shared {
    /// Number of tokens of each row, minus one: int32 `[batch]`.
    lengths: String,
    /// Number of columns of the mask: int32.
    total: String,
    /// Cosines and sines of each rotary embedding.
    tables: Vec<[String; 2]>,
}

impl Shared {
    /// Adds the values that all layers use, computed from the mask, and returns them.
    pub fn new(b: &mut Builder<'_>, d: &Decoder, inputs: &Inputs) -> Shared {
        let int32 = [("to", Attribute::Int(i64::from(DataType::Int32.to_onnx())))];
        let (axis, one) = (b.ints(&[1]), b.int(1));
        let counts = b.op("ReduceSum", &[&inputs.mask, &axis], &[("keepdims", Attribute::Int(0))]);
        let lengths = b.op("Sub", &[&counts, &one], &[]);
        let lengths = b.op("Cast", &[&lengths], &int32);
        let shape = b.op("Shape", &[&inputs.mask], &[]);
        let total = b.op("Gather", &[&shape, &one], &[]);
        let total = b.op("Cast", &[&total], &int32);
        let tables = d.ropes.iter().map(|rope| rope.tables(b, d.positions)).collect();
        Shared { lengths, total, tables }
    }
}

/// Adds the attention of layer `index` with its `present` outputs and returns the name of the result.
pub fn attend(b: &mut Builder<'_>, d: &Decoder, shared: &Shared, index: usize, projected: Projected) -> String {
    let layer = &d.layers[index];
    let [q, k, v] = match projected {
        Projected::Separate(parts) => parts,
        Projected::Packed(packed) => [packed, String::new(), String::new()],
    };
    let past = ["key", "value"].map(|part| format!("past_key_values.{index}.{part}"));
    let mut inputs = vec![&*q, &k, &v, &past[0], &past[1], &shared.lengths, &shared.total];
    let mut attributes = vec![
        ("num_heads", Attribute::Int(d.heads.query)),
        ("kv_num_heads", Attribute::Int(d.heads.key_value)),
        ("scale", Attribute::Float(layer.scale)),
    ];
    if let Some([cos, sin]) = layer.rope.and_then(|rope| shared.tables.get(rope)) {
        inputs.extend([cos.as_str(), sin]);
        attributes.push(("do_rotary", Attribute::Int(1)));
    }
    attributes.extend(layer.window.map(|window| ("local_window_size", Attribute::Int(window))));
    attributes.extend(d.score_cap.map(|cap| ("softcap", Attribute::Float(cap))));
    let seen = b.fresh(&format!("layers.{index}.attention"));
    let [key, value] = ["key", "value"].map(|part| format!("present.{index}.{part}"));
    b.node_to("com.microsoft", "GroupQueryAttention", &inputs, &[&seen, &key, &value], &attributes);
    seen
}

/// Adds the positions of the new tokens, which follow the earlier tokens of a row, and returns their name. The mask
/// counts the tokens.
///
/// In a prompt, a row has no earlier tokens, but a padded row has fewer tokens than the sequence: hence the maximum
/// with 0.
pub fn positions(b: &mut Builder<'_>, inputs: &Inputs) -> String {
    let (axis, zero, one) = (b.ints(&[1]), b.int(0), b.int(1));
    let shape = b.op("Shape", &[&inputs.ids], &[]);
    let length = b.op("Gather", &[&shape, &one], &[]);
    let counts = b.op("ReduceSum", &[&inputs.mask, &axis], &[("keepdims", Attribute::Int(1))]);
    let earlier = b.op("Sub", &[&counts, &length], &[]);
    let earlier = b.op("Max", &[&earlier, &zero], &[]);
    let columns = b.op("Range", &[&zero, &length, &one], &[]);
    b.op("Add", &[&earlier, &columns], &[])
}
