//! Attention in standard operators. Rows are padded on the left, and the cache is concatenated.
//!
//! Query heads that share a key head are concatenated along the sequence, so that each product has two four-dimensional
//! inputs for any number of heads: no key or value is repeated.

use super::super::decoder::{Decoder, Inputs, soft_cap};
use crate::error::{Result, error};
use crate::onnx::dtype::DataType;
use crate::source::builder::{Attribute, Builder};

/// The names of values that all layers use.
pub struct Shared {
    /// Cosines and sines for the new tokens, one pair for each rotary embedding.
    waves: Vec<[String; 2]>,
    /// Attention masks, `[batch, 1, sequence, total_sequence]`, one per window size: 0, or the lowest float for masked
    /// positions.
    masks: Vec<(Option<i64>, String)>,
    /// Shape `[batch, heads, sequence, total_sequence]`.
    by_head: String,
    /// Shape `[batch, kv_heads, heads / kv_heads * sequence, total_sequence]`.
    by_group: String,
}

impl Shared {
    /// Adds the values that all layers use, computed from token ids, mask and positions, and returns them. Fails with
    /// `Internal` without `position_ids`.
    pub fn new(b: &mut Builder<'_>, d: &Decoder, inputs: &Inputs) -> Result<Shared> {
        let positions = inputs.positions.as_deref().ok_or_else(|| error!(Internal, "no position_ids"))?;
        let waves = d.ropes.iter().map(|rope| rope.of_positions(b, positions)).collect();
        let (ids_shape, mask_shape) = (b.op("Shape", &[&inputs.ids], &[]), b.op("Shape", &[&inputs.mask], &[]));
        let (first, second) = (b.ints(&[0]), b.ints(&[1]));
        let rows = b.op("Gather", &[&ids_shape, &first], &[]);
        let new = b.op("Gather", &[&ids_shape, &second], &[]);
        let total = b.op("Gather", &[&mask_shape, &second], &[]);
        let (queries, keys, rest) = (b.ints(&[d.heads.query]), b.ints(&[d.heads.key_value]), b.ints(&[-1]));
        let join = [("axis", Attribute::Int(0))];
        let by_head = b.op("Concat", &[&rows, &queries, &new, &total], &join);
        let by_group = b.op("Concat", &[&rows, &keys, &rest, &total], &join);
        let mut masks: Vec<(Option<i64>, String)> = Vec::new();
        for layer in &d.layers {
            if !masks.iter().any(|(window, _)| *window == layer.window) {
                let mask = mask(b, inputs, layer.window);
                masks.push((layer.window, mask));
            }
        }
        Ok(Shared { waves, masks, by_head, by_group })
    }

    fn mask(&self, window: Option<i64>) -> &str {
        self.masks.iter().find(|(of, _)| *of == window).map_or("", |(_, mask)| mask)
    }
}

/// Adds the mask and returns its name: new token `i` (column `past + i`) attends to column `j` if that is not later,
/// not padding, and inside the window.
fn mask(b: &mut Builder<'_>, inputs: &Inputs, window: Option<i64>) -> String {
    let (zero, one) = (b.int(0), b.int(1));
    let size = |b: &mut Builder<'_>, of: &str| {
        let shape = b.op("Shape", &[of], &[]);
        b.op("Gather", &[&shape, &one], &[])
    };
    let (new, total) = (size(b, &inputs.ids), size(b, &inputs.mask));
    let past = b.op("Sub", &[&total, &new], &[]);
    let columns = b.op("Range", &[&zero, &total, &one], &[]);
    let own = b.op("Range", &[&past, &total, &one], &[]);
    let (second, middle) = (b.ints(&[1]), b.ints(&[1, 2]));
    let own = b.op("Unsqueeze", &[&own, &second], &[]);
    let mut seen = b.op("LessOrEqual", &[&columns, &own], &[]);
    if let Some(window) = window {
        let window = b.int(window);
        let before = b.op("Sub", &[&own, &window], &[]);
        let near = b.op("Greater", &[&columns, &before], &[]);
        seen = b.op("And", &[&seen, &near], &[]);
    }
    let boolean = [("to", Attribute::Int(i64::from(DataType::Bool.to_onnx())))];
    let tokens = b.op("Cast", &[&inputs.mask], &boolean);
    let tokens = b.op("Unsqueeze", &[&tokens, &middle], &[]);
    let seen = b.op("And", &[&seen, &tokens], &[]);
    // The mask is the lowest number instead of minus infinity, because padding that attends to nothing must not be NaN.
    let (open, shut) = (b.float(0.0), b.float(f32::MIN));
    b.op("Where", &[&seen, &open, &shut], &[])
}

/// Adds the attention of layer `index` with its `present` outputs and returns the name of the result.
pub fn attend(b: &mut Builder<'_>, d: &Decoder, shared: &Shared, index: usize, [q, k, v]: &[String; 3]) -> String {
    let (layer, heads) = (&d.layers[index], d.heads);
    let (mut q, mut k) = (split(b, q, heads.query, heads.size), split(b, k, heads.key_value, heads.size));
    let v = split(b, v, heads.key_value, heads.size);
    if let Some((rope, waves)) = layer.rope.and_then(|rope| d.ropes.get(rope).zip(shared.waves.get(rope))) {
        q = rope.rotate(b, &q, heads.size, waves);
        k = rope.rotate(b, &k, heads.size, waves);
    }
    let k = append(b, index, "key", &k);
    let v = append(b, index, "value", &v);
    let scale = b.float(layer.scale);
    q = b.op("Mul", &[&q, &scale], &[]);
    let grouped = heads.query != heads.key_value;
    if grouped {
        let groups = b.ints(&[0, heads.key_value, -1, heads.size]);
        q = b.op("Reshape", &[&q, &groups], &[]);
    }
    let k = b.op("Transpose", &[&k], &[("perm", Attribute::Ints(&[0, 1, 3, 2]))]);
    let mut scores = b.op("MatMul", &[&q, &k], &[]);
    if grouped {
        scores = b.op("Reshape", &[&scores, &shared.by_head], &[]);
    }
    if let Some(cap) = d.score_cap {
        scores = soft_cap(b, &scores, cap);
    }
    scores = b.op("Add", &[&scores, shared.mask(layer.window)], &[]);
    let mut shares = b.op("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
    if grouped {
        shares = b.op("Reshape", &[&shares, &shared.by_group], &[]);
    }
    let mut seen = b.op("MatMul", &[&shares, &v], &[]);
    if grouped {
        let apart = b.ints(&[0, heads.query, -1, heads.size]);
        seen = b.op("Reshape", &[&seen, &apart], &[]);
    }
    let seen = b.op("Transpose", &[&seen], &[("perm", Attribute::Ints(&[0, 2, 1, 3]))]);
    let together = b.ints(&[0, 0, heads.query * heads.size]);
    b.op("Reshape", &[&seen, &together], &[])
}

/// Adds nodes that change `[batch, sequence, heads * size]` to `[batch, heads, sequence, size]`, and returns the name
/// of the result.
fn split(b: &mut Builder<'_>, x: &str, heads: i64, size: i64) -> String {
    let shape = b.ints(&[0, 0, heads, size]);
    let x = b.op("Reshape", &[x, &shape], &[]);
    b.op("Transpose", &[&x], &[("perm", Attribute::Ints(&[0, 2, 1, 3]))])
}

/// Appends `x` to a part (`key` or `value`) of a layer's cache, and returns the name of the result, which is an output
/// of the graph.
fn append(b: &mut Builder<'_>, index: usize, part: &str, x: &str) -> String {
    let (past, present) = (format!("past_key_values.{index}.{part}"), format!("present.{index}.{part}"));
    b.node_to("", "Concat", &[&past, x], &[&present], &[("axis", Attribute::Int(2))]);
    present
}
