//! `GroupQueryAttention` of ONNX Runtime.

use super::Lowering;
use crate::error::{Result, bail};
use crate::graph::edit::{int_attribute, ints_attribute};
use crate::model::Dim;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, NodeProto};

impl Lowering {
    /// Lowers attention of `h` query heads over `k` heads of keys and values, from the first token on.
    pub(super) fn grouped(&mut self, graph: &GraphProto, node: &NodeProto) -> Result<()> {
        let (heads, shared) = (node.int("num_heads", 0), node.int("kv_num_heads", 0));
        let Some(size) = head_size(graph, node) else {
            bail!(Unsupported, "the head size of a GroupQueryAttention is not known: its past has no shape");
        };
        if heads < 1 || shared < 1 || heads % shared != 0 {
            bail!(InvalidModel, "{heads} heads over {shared}");
        }
        if [9, 10, 11].iter().any(|i| node.input_at(*i).is_some()) || node.int("smooth_softmax", 0) > 0 {
            bail!(Unsupported, "a GroupQueryAttention with position ids, attention bias or sinks");
        }
        let [q, k, v] = self.projected(node, heads, shared, size)?;
        let (mut q, mut k) = (q, k);
        if node.int("do_rotary", 0) != 0 {
            let (Some(cos), Some(sin)) = (node.input_at(7), node.input_at(8)) else {
                bail!(InvalidModel, "do_rotary without cos and sin caches");
            };
            let width = match node.int("rotary_embedding_dim", 0) {
                0 => size,
                part => part,
            };
            let interleaved = node.int("rotary_interleaved", 0) != 0;
            let tables = [self.first_rows(cos, &q), self.first_rows(sin, &q)];
            q = self.w.turn(&q, &tables, (size, width), interleaved);
            k = self.w.turn(&k, &tables, (size, width), interleaved);
        }
        let scale = self.w.scalar(match node.float("scale", 0.0) {
            0.0 => 1.0 / (size as f32).sqrt(),
            scale => scale,
        });
        let mut q = self.w.op("Mul", &[&q, &scale]);
        let window = node.int("local_window_size", -1);
        let mask = self.mask(&k, window);
        let grouped = heads != shared;
        if grouped {
            let groups = self.w.ints(&[0, shared, -1, size]);
            q = self.w.op("Reshape", &[&q, &groups]);
        }
        let turned = self.w.op_with("Transpose", &[&k], vec![ints_attribute("perm", &[0, 1, 3, 2])]);
        let mut scores = self.w.op("MatMul", &[&q, &turned]);
        let grouped_shape = self.w.op("Shape", &[&scores]);
        if grouped {
            // [batch, k, h / k * sequence, sequence] to [batch, h, sequence, sequence]: the last two are equal.
            let (zero, heads, last) = (self.w.ints(&[0]), self.w.ints(&[heads]), self.w.slice(&grouped_shape, 3, 4, 0));
            let by_head = self.w.op_with("Concat", &[&zero, &heads, &last, &last], vec![int_attribute("axis", 0)]);
            scores = self.w.op("Reshape", &[&scores, &by_head]);
        }
        let cap = node.float("softcap", 0.0);
        if cap > 0.0 {
            let cap = self.w.scalar(cap);
            let part = self.w.op("Div", &[&scores, &cap]);
            let bent = self.w.op("Tanh", &[&part]);
            scores = self.w.op("Mul", &[&bent, &cap]);
        }
        let scores = self.w.op("Add", &[&scores, &mask]);
        let mut shares = self.w.op_with("Softmax", &[&scores], vec![int_attribute("axis", -1)]);
        if grouped {
            shares = self.w.op("Reshape", &[&shares, &grouped_shape]);
        }
        let mut seen = self.w.op("MatMul", &[&shares, &v]);
        if grouped {
            let apart = self.w.ints(&[0, heads, -1, size]);
            seen = self.w.op("Reshape", &[&seen, &apart]);
        }
        let seen = self.w.op_with("Transpose", &[&seen], vec![ints_attribute("perm", &[0, 2, 1, 3])]);
        let together = self.w.ints(&[0, 0, heads * size]);
        self.w.op_to("Reshape", &[&seen, &together], &node.output[0], Vec::new());
        for (index, value) in [(1, &k), (2, &v)] {
            if let Some(present) = node.output.get(index).filter(|o| !o.is_empty()) {
                self.w.op_to("Identity", &[value], present, Vec::new());
            }
        }
        Ok(())
    }

    /// Returns queries, keys and values as `[batch, heads, sequence, size]`.
    fn projected(&mut self, node: &NodeProto, heads: i64, shared: i64, size: i64) -> Result<[String; 3]> {
        let Some(q) = node.input_at(0) else { bail!(InvalidModel, "no query") };
        let parts = match (node.input_at(1), node.input_at(2)) {
            (Some(k), Some(v)) => [q.to_owned(), k.to_owned(), v.to_owned()],
            (None, None) => {
                let (q_end, k_end) = (heads * size, (heads + shared) * size);
                let all = (heads + 2 * shared) * size;
                [self.w.slice(q, 0, q_end, 2), self.w.slice(q, q_end, k_end, 2), self.w.slice(q, k_end, all, 2)]
            }
            _ => bail!(InvalidModel, "keys without values"),
        };
        let counts = [heads, shared, shared];
        let mut made = Vec::new();
        for (part, count) in parts.iter().zip(counts) {
            let shape = self.w.ints(&[0, 0, count, size]);
            let apart = self.w.op("Reshape", &[part, &shape]);
            made.push(self.w.op_with("Transpose", &[&apart], vec![ints_attribute("perm", &[0, 2, 1, 3])]));
        }
        <[String; 3]>::try_from(made).or_else(|_| bail!(Internal, "three parts"))
    }

    /// Returns as many rows of a table as `x` has tokens.
    fn first_rows(&mut self, table: &str, x: &str) -> String {
        let shape = self.w.op("Shape", &[x]);
        let count = self.w.slice(&shape, 2, 3, 0);
        let (zero, axis) = (self.w.ints(&[0]), self.w.ints(&[0]));
        self.w.op("Slice", &[table, &zero, &count, &axis])
    }

    /// Returns the mask `[sequence, sequence]`: 0 where a token (row) attends to another (column), else the lowest
    /// float. A token attends to itself and the `window - 1` before it; without a window, to all before it.
    fn mask(&mut self, k: &str, window: i64) -> String {
        // Every layer has the same tokens.
        if let Some((_, mask)) = self.masks.iter().find(|(of, _)| *of == window) {
            return mask.clone();
        }
        let (zero, one, scalar) = (self.w.int(0), self.w.int(1), self.w.constant(DataType::Int64, &[0], Vec::new()));
        let shape = self.w.op("Shape", &[k]);
        let count = self.w.slice(&shape, 2, 3, 0);
        let count = self.w.op("Reshape", &[&count, &scalar]);
        let columns = self.w.op("Range", &[&zero, &count, &one]);
        let axis = self.w.ints(&[1]);
        let rows = self.w.op("Unsqueeze", &[&columns, &axis]);
        let mut seen = self.w.op("LessOrEqual", &[&columns, &rows]);
        if window > 0 {
            let window = self.w.int(window);
            let before = self.w.op("Sub", &[&rows, &window]);
            let near = self.w.op("Greater", &[&columns, &before]);
            seen = self.w.op("And", &[&seen, &near]);
        }
        let (open, shut) = (self.w.scalar(0.0), self.w.scalar(f32::MIN));
        let mask = self.w.op("Where", &[&seen, &open, &shut]);
        self.masks.push((window, mask.clone()));
        mask
    }
}

/// Returns the last dimension of the past, if it is known.
fn head_size(graph: &GraphProto, node: &NodeProto) -> Option<i64> {
    let past = node.input_at(3)?;
    let info = graph.input.iter().find(|i| i.name.as_deref() == Some(past))?;
    let info = crate::model::ValueInfo::from(info);
    match info.shape?.last()? {
        Dim::Fixed(size) => Some(*size),
        Dim::Symbolic(_) => None,
    }
}
