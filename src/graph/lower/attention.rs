//! Lowering of attention operators of the ONNX standard and of ONNX Runtime.

use super::{Lowering, input};
use crate::error::{Result, bail};
use crate::graph::edit::int_attribute;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::NodeProto;

/// The queries, keys and values as `[batch, heads, sequence, size]`, and the settings of the attention.
struct Heads {
    q: String,
    k: String,
    v: String,
    /// Number of query heads, and number of key and value heads.
    counts: (i64, i64),
    /// Factor of the scores; 0 for `1 / √size`.
    scale: f32,
    /// Limit of the magnitude of the scores (`softcap`); 0 for none.
    cap: f32,
    causal: bool,
    /// Name of the number of tokens before the first query, a tensor with one element; `None` if there is no past.
    before: Option<String>,
    /// Names of values that are added to the scores.
    masks: Vec<String>,
}

impl Lowering {
    /// Lowers `Attention` of opset 23 and later.
    pub(super) fn attention(&mut self, node: &NodeProto) -> Result<()> {
        let [q, k, v] = [input(node, 0)?, input(node, 1)?, input(node, 2)?];
        if node.input_at(6).is_some() || node.output.get(3).is_some_and(|o| !o.is_empty()) {
            bail!(Unsupported, "an Attention that has key lengths or returns its scores is not supported");
        }
        let rank = self.rank(q)?;
        let counts = match rank {
            4 => (self.size(q, 1)?, self.size(k, 1)?),
            _ => (node.int("q_num_heads", 0), node.int("kv_num_heads", 0)),
        };
        let mut heads = self.heads([q, k, v], counts, node.float("scale", 0.0))?;
        heads.cap = node.float("softcap", 0.0);
        heads.causal = node.int("is_causal", 0) != 0;
        if let Some(mask) = node.input_at(3) {
            let is_bool = self.types.get(mask).and_then(|t| t.dtype) == Some(DataType::Bool);
            heads.masks.push(if is_bool { self.shut(mask, f32::MIN) } else { mask.to_owned() });
        }
        self.with_past(node, &mut heads, [4, 5])?;
        self.attend(&heads, &node.output[0], rank != 4)
    }

    /// Lowers `MultiHeadAttention` of ONNX Runtime.
    pub(super) fn many_heads(&mut self, node: &NodeProto) -> Result<()> {
        let (Some(k), Some(v)) = (node.input_at(1), node.input_at(2)) else {
            bail!(Unsupported, "a MultiHeadAttention with packed queries, keys and values is not supported");
        };
        if [8, 9].iter().any(|i| node.input_at(*i).is_some()) || node.output.get(3).is_some_and(|o| !o.is_empty()) {
            bail!(Unsupported, "a MultiHeadAttention that has its own buffers or returns its scores is not supported");
        }
        let mut parts = [input(node, 0)?.to_owned(), k.to_owned(), v.to_owned()];
        if let Some(bias) = node.input_at(3) {
            let widths = [self.size(&parts[0], -1)?, self.size(&parts[1], -1)?];
            let ends = [0, widths[0], widths[0] + widths[1], i64::MAX];
            for (at, part) in parts.iter_mut().enumerate() {
                if self.rank(part)? != 3 {
                    bail!(
                        Unsupported,
                        "a MultiHeadAttention with biases of its inputs is supported only with 3 dimensions"
                    );
                }
                let own = self.w.slice(bias, ends[at], ends[at + 1], 0);
                let sum = self.w.op("Add", &[part, &own]);
                let known = self.types.get(part.as_str()).cloned().unwrap_or_default();
                self.types.insert(sum.clone(), known);
                *part = sum;
            }
        }
        let count = node.int("num_heads", 0);
        let mut heads = self.heads([&parts[0], &parts[1], &parts[2]], (count, count), node.float("scale", 0.0))?;
        heads.causal = node.int("unidirectional", 0) != 0;
        self.masked(node, &mut heads, 4)?;
        heads.masks.extend(node.input_at(5).map(str::to_owned));
        self.with_past(node, &mut heads, [6, 7])?;
        self.attend(&heads, &node.output[0], true)
    }

    /// Lowers `Attention` of ONNX Runtime, which also computes queries, keys and values from its input.
    pub(super) fn packed(&mut self, node: &NodeProto) -> Result<()> {
        let [x, matrix] = [input(node, 0)?, input(node, 1)?];
        if [4, 6].iter().any(|i| node.input_at(*i).is_some())
            || node.output.get(1).is_some_and(|o| !o.is_empty())
            || node.int("do_rotary", 0) != 0
        {
            bail!(Unsupported, "an Attention with a past or with positions is not supported");
        }
        let width = self.size(matrix, 1)?;
        let sizes = match node.attribute("qkv_hidden_sizes").map(|a| a.ints.clone()) {
            Some(sizes) if sizes.len() == 3 => sizes,
            _ => vec![width / 3; 3],
        };
        let mut all = self.w.op("MatMul", &[x, matrix]);
        if let Some(bias) = node.input_at(2) {
            all = self.w.op("Add", &[&all, bias]);
        }
        let known = self.types.get(x).cloned().unwrap_or_default();
        let (q_end, k_end) = (sizes[0], sizes[0] + sizes[1]);
        let parts =
            [self.w.slice(&all, 0, q_end, 2), self.w.slice(&all, q_end, k_end, 2), self.w.slice(&all, k_end, width, 2)];
        parts.iter().for_each(|part| {
            self.types.insert(part.clone(), known.clone());
        });
        let count = node.int("num_heads", 0);
        let mut heads = self.heads([&parts[0], &parts[1], &parts[2]], (count, count), node.float("scale", 0.0))?;
        heads.causal = node.int("unidirectional", 0) != 0;
        self.masked(node, &mut heads, 3)?;
        heads.masks.extend(node.input_at(5).map(str::to_owned));
        self.attend(&heads, &node.output[0], true)
    }

    /// Returns queries, keys and values, with heads as a separate dimension, and the settings of the attention.
    fn heads(&mut self, parts: [&str; 3], counts: (i64, i64), scale: f32) -> Result<Heads> {
        if counts.0 < 1 || counts.1 < 1 || counts.0 % counts.1 != 0 {
            bail!(InvalidModel, "{} query heads cannot share {} key and value heads", counts.0, counts.1);
        }
        let mut made = Vec::new();
        for (part, count) in parts.iter().zip([counts.0, counts.1, counts.1]) {
            made.push(match self.rank(part)? {
                4 => (*part).to_owned(),
                3 => {
                    let apart = self.w.reshaped(part, &[0, 0, count, -1]);
                    self.w.permuted(&apart, &[0, 2, 1, 3])
                }
                rank => bail!(Unsupported, "attention with inputs of {rank} dimensions is not supported"),
            });
        }
        let Ok([q, k, v]) = <[String; 3]>::try_from(made) else { bail!(Internal, "three parts") };
        Ok(Heads { q, k, v, counts, scale, cap: 0.0, causal: false, before: None, masks: Vec::new() })
    }

    /// Adds the keys and values of the past, if the node has any, in front of the new ones, and names the outputs of
    /// the cache. `past` has the indices of the inputs.
    fn with_past(&mut self, node: &NodeProto, heads: &mut Heads, past: [usize; 2]) -> Result<()> {
        if let (Some(keys), Some(values)) = (node.input_at(past[0]), node.input_at(past[1])) {
            let shape = self.w.op("Shape", &[keys]);
            heads.before = Some(self.w.slice(&shape, 2, 3, 0));
            heads.k = self.w.concat(&[keys, &heads.k], 2);
            heads.v = self.w.concat(&[values, &heads.v], 2);
        }
        for (index, value) in [(1, &heads.k), (2, &heads.v)] {
            if let Some(present) = node.output.get(index).filter(|o| !o.is_empty()) {
                self.w.op_to("Identity", &[value], present, Vec::new());
            }
        }
        Ok(())
    }

    /// Adds the key mask of an ONNX Runtime operator to the masks of the scores. The input `index` is `[batch, keys]`,
    /// and 1 for each visible key.
    fn masked(&mut self, node: &NodeProto, heads: &mut Heads, index: usize) -> Result<()> {
        let Some(mask) = node.input_at(index) else { return Ok(()) };
        if self.rank(mask)? != 2 {
            bail!(Unsupported, "a mask of this shape is not supported; only key masks are");
        }
        let (open, axes) = (self.w.cast(mask, DataType::Bool), self.w.ints(&[1, 2]));
        let open = self.w.op("Unsqueeze", &[&open, &axes]);
        let filter = self.shut(&open, node.float("mask_filter_value", -10_000.0));
        heads.masks.push(filter);
        Ok(())
    }

    /// Adds a value that is 0 where `open` is true, otherwise `low`, and returns its name.
    fn shut(&mut self, open: &str, low: f32) -> String {
        let (zero, low) = (self.w.scalar(0.0), self.w.scalar(low));
        self.w.op("Where", &[open, &zero, &low])
    }

    /// Adds the products and the softmax of the attention. The value `output` is the result, `[batch, sequence, width]`
    /// if `flat` is set, otherwise `[batch, heads, sequence, size]`.
    fn attend(&mut self, heads: &Heads, output: &str, flat: bool) -> Result<()> {
        let (many, few) = heads.counts;
        let (mut q, mut k, mut v) = (heads.q.clone(), heads.k.clone(), heads.v.clone());
        let shape = self.w.op("Shape", &[&q]);
        let scale = match heads.scale {
            0.0 => {
                let (size, one) = (self.w.slice(&shape, 3, 4, 0), self.w.scalar(1.0));
                let size = self.w.cast(&size, DataType::Float32);
                let root = self.w.op("Sqrt", &[&size]);
                self.w.op("Div", &[&one, &root])
            }
            scale => self.w.scalar(scale),
        };
        q = self.w.op("Mul", &[&q, &scale]);
        let mut order = vec![0, 1, 3, 2];
        if many != few {
            // `many / few` query heads share a key head: queries [batch, few, many / few, sequence, size] are multiplied
            // by keys that broadcast, [batch, few, 1, ...].
            let (batch, rest, groups) =
                (self.w.slice(&shape, 0, 1, 0), self.w.slice(&shape, 2, 4, 0), self.w.ints(&[few, many / few]));
            let grouped = self.w.concat(&[&batch, &groups, &rest], 0);
            q = self.w.op("Reshape", &[&q, &grouped]);
            let axis = self.w.ints(&[2]);
            (k, v) = (self.w.op("Unsqueeze", &[&k, &axis]), self.w.op("Unsqueeze", &[&v, &axis]));
            order = vec![0, 1, 2, 4, 3];
        }
        let transposed = self.w.permuted(&k, &order);
        let mut scores = self.w.op("MatMul", &[&q, &transposed]);
        let grouped = self.w.op("Shape", &[&scores]);
        if many != few {
            let (batch, heads, rest) =
                (self.w.slice(&grouped, 0, 1, 0), self.w.ints(&[many]), self.w.slice(&grouped, 3, 5, 0));
            let whole = self.w.concat(&[&batch, &heads, &rest], 0);
            scores = self.w.op("Reshape", &[&scores, &whole]);
        }
        if heads.cap > 0.0 {
            scores = self.w.capped(&scores, heads.cap);
        }
        let causal = if heads.causal { Some(self.behind(&scores, heads.before.as_deref())) } else { None };
        for mask in heads.masks.iter().chain(&causal) {
            scores = self.w.op("Add", &[&scores, mask]);
        }
        let mut shares = self.w.op_with("Softmax", &[&scores], vec![int_attribute("axis", -1)]);
        if many != few {
            shares = self.w.op("Reshape", &[&shares, &grouped]);
        }
        let mut seen = self.w.op("MatMul", &[&shares, &v]);
        if many != few {
            let whole = self.w.op("Shape", &[&seen]);
            let (batch, heads, rest) =
                (self.w.slice(&whole, 0, 1, 0), self.w.ints(&[many]), self.w.slice(&whole, 3, 5, 0));
            let whole = self.w.concat(&[&batch, &heads, &rest], 0);
            seen = self.w.op("Reshape", &[&seen, &whole]);
        }
        match flat {
            true => self.together(&seen, output),
            false => self.w.op_to("Identity", &[&seen], output, Vec::new()),
        }
        Ok(())
    }

    /// Adds the causal mask `[queries, keys]`, and returns its name: 0 for the token itself and earlier ones, otherwise
    /// the lowest float.
    fn behind(&mut self, scores: &str, before: Option<&str>) -> String {
        let shape = self.w.op("Shape", &[scores]);
        let (rows, columns) = (self.w.slice(&shape, 2, 3, 0), self.w.slice(&shape, 3, 4, 0));
        let (mut rows, columns) = (self.w.count_to(&rows), self.w.count_to(&columns));
        if let Some(before) = before {
            rows = self.w.op("Add", &[&rows, before]);
        }
        let rows = self.w.reshaped(&rows, &[-1, 1]);
        let open = self.w.op("LessOrEqual", &[&columns, &rows]);
        self.shut(&open, f32::MIN)
    }
}
