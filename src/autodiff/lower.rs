//! Fused operators taken apart into the standard ones that have rules.
//!
//! For training only: attention starts without a past, so what is cached plays no part, and rows that are padded are
//! padded behind their tokens, which under a causal mask nothing before them sees.

use super::Writer;
use crate::error::{Context, Result, bail};
use crate::graph::edit::{self, int_attribute, ints_attribute};
use crate::model::Dim;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, attribute_kind};
use std::collections::BTreeSet;

/// What a model was before and is now.
pub struct Lowered {
    /// Values that attention looks positions up in. No weights, though they may be constants.
    pub tables: BTreeSet<String>,
}

/// Replaces fused operators of the main graph. Values keep their names.
///
/// [`crate::error::Kind::Unsupported`] for a form of them that is not known, with the node's name.
pub fn lower(model: &mut ModelProto) -> Result<Lowered> {
    let w = Writer::new(model, "lowered");
    let mut lowered = Lowered { tables: BTreeSet::new() };
    let Some(graph) = model.graph.as_deref_mut() else { return Ok(lowered) };
    let nodes = std::mem::take(&mut graph.node);
    let mut lowering = Lowering { w, masks: Vec::new() };
    for node in nodes {
        let place = format!("node {:?}", node.label());
        let fused = match (node.domain.as_deref(), node.output.first()) {
            (Some("com.microsoft"), Some(_)) => node.op().to_owned(),
            _ => String::new(),
        };
        match fused.as_str() {
            "GroupQueryAttention" => {
                lowered.tables.extend([7, 8].iter().filter_map(|i| node.input_at(*i)).map(str::to_owned));
                lowering.attention(graph, &node).at(|| place)?;
            }
            "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => lowering.skip(&node).at(|| place)?,
            "BiasGelu" => lowering.bias_gelu(&node),
            "FusedMatMul" => lowering.fused_product(&node).at(|| place)?,
            _ => {
                if fused == "RotaryEmbedding" {
                    lowered.tables.extend([2, 3].iter().filter_map(|i| node.input_at(*i)).map(str::to_owned));
                }
                lowering.w.nodes.push(node);
            }
        }
    }
    graph.node = lowering.w.nodes;
    graph.initializer.append(&mut lowering.w.constants);
    Ok(lowered)
}

/// Takes nodes apart.
struct Lowering {
    w: Writer,
    /// What is added to scores, for each window.
    masks: Vec<(i64, String)>,
}

impl Lowering {
    /// `x + skip + bias`, and its normalization.
    fn skip(&mut self, node: &NodeProto) -> Result<()> {
        let simple = node.op() == "SkipSimplifiedLayerNormalization";
        let (Some(x), Some(skip), Some(scale)) = (node.input_at(0), node.input_at(1), node.input_at(2)) else {
            bail!(InvalidModel, "{} has not all its inputs", node.op());
        };
        let (shift, bias) = match simple {
            true => (None, node.input_at(3)),
            false => (node.input_at(3), node.input_at(4)),
        };
        if [1, 2].iter().any(|i| node.output.get(*i).is_some_and(|o| !o.is_empty())) {
            bail!(Unsupported, "{} that gives its mean away", node.op());
        }
        let sum = node.output.get(3).filter(|o| !o.is_empty()).cloned();
        let sum = sum.unwrap_or_else(|| self.w.fresh("sum"));
        match bias {
            Some(bias) => {
                let first = self.w.op("Add", &[x, bias]);
                self.w.op_to("Add", &[&first, skip], &sum, Vec::new());
            }
            None => self.w.op_to("Add", &[x, skip], &sum, Vec::new()),
        }
        let mut inputs = vec![sum.as_str(), scale];
        inputs.extend(shift);
        let epsilon = AttributeProto {
            name: Some("epsilon".to_owned()),
            kind: Some(attribute_kind::FLOAT),
            f: Some(node.float("epsilon", 1e-5)),
            ..Default::default()
        };
        let op = if simple { "SimplifiedLayerNormalization" } else { "LayerNormalization" };
        let Some(output) = node.output.first() else { return Ok(()) };
        self.w.op_to(op, &inputs, output, vec![int_attribute("axis", -1), epsilon]);
        Ok(())
    }

    fn bias_gelu(&mut self, node: &NodeProto) {
        let (x, bias) = (node.input_at(0).unwrap_or(""), node.input_at(1).unwrap_or(""));
        let sum = self.w.op("Add", &[x, bias]);
        let mut gelu = edit::node("Gelu", &[&sum], &[node.output.first().map_or("", String::as_str)]);
        gelu.domain = Some("com.microsoft".to_owned());
        gelu.name = node.name.clone();
        self.w.nodes.push(gelu);
    }

    fn fused_product(&mut self, node: &NodeProto) -> Result<()> {
        let turned = ["transA", "transB", "transBatchA", "transBatchB"].iter().any(|name| node.int(name, 0) != 0);
        let (Some(a), Some(b), false) = (node.input_at(0), node.input_at(1), turned) else {
            bail!(Unsupported, "a FusedMatMul that transposes; export the model without ONNX Runtime's optimizations");
        };
        let alpha = self.w.float(node.float("alpha", 1.0));
        let product = self.w.op("MatMul", &[a, b]);
        self.w.op_to("Mul", &[&product, &alpha], &node.output[0], Vec::new());
        Ok(())
    }

    /// Attention of `h` query heads over `k` heads of keys and values, from the first token on.
    fn attention(&mut self, graph: &GraphProto, node: &NodeProto) -> Result<()> {
        let (heads, shared) = (node.int("num_heads", 0), node.int("kv_num_heads", 0));
        let Some(size) = head_size(graph, node) else {
            bail!(Unsupported, "the size of the heads of a GroupQueryAttention is not known: its past has no shape");
        };
        if heads < 1 || shared < 1 || heads % shared != 0 {
            bail!(InvalidModel, "{heads} heads over {shared}");
        }
        if [9, 10, 11].iter().any(|i| node.input_at(*i).is_some()) || node.int("smooth_softmax", 0) > 0 {
            bail!(Unsupported, "a GroupQueryAttention with positions, a bias or a sink of its own");
        }
        let [q, k, v] = self.projected(node, heads, shared, size)?;
        let (mut q, mut k) = (q, k);
        if node.int("do_rotary", 0) != 0 {
            let (Some(cos), Some(sin)) = (node.input_at(7), node.input_at(8)) else {
                bail!(InvalidModel, "do_rotary without tables");
            };
            let width = match node.int("rotary_embedding_dim", 0) {
                0 => size,
                part => part,
            };
            let interleaved = node.int("rotary_interleaved", 0) != 0;
            let tables = [self.first_rows(cos, &q), self.first_rows(sin, &q)];
            q = self.turn(&q, &tables, (size, width), interleaved);
            k = self.turn(&k, &tables, (size, width), interleaved);
        }
        let scale = self.w.float(match node.float("scale", 0.0) {
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
            let cap = self.w.float(cap);
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

    /// Queries, keys and values as `[batch, heads, sequence, size]`.
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

    /// As many rows of a table as `x` has tokens.
    fn first_rows(&mut self, table: &str, x: &str) -> String {
        let shape = self.w.op("Shape", &[x]);
        let count = self.w.slice(&shape, 2, 3, 0);
        let (zero, axis) = (self.w.ints(&[0]), self.w.ints(&[0]));
        self.w.op("Slice", &[table, &zero, &count, &axis])
    }

    /// Pairs of elements turned by their position's angle: Su et al. 2021, arXiv 2104.09864.
    fn turn(&mut self, x: &str, [cos, sin]: &[String; 2], (size, width): (i64, i64), interleaved: bool) -> String {
        let turned = if width < size { self.w.slice(x, 0, width, 3) } else { x.to_owned() };
        let (first, second) = if interleaved {
            let (from, to, axis, step) =
                (self.w.ints(&[0]), self.w.ints(&[width]), self.w.ints(&[3]), self.w.ints(&[2]));
            let one = self.w.ints(&[1]);
            (
                self.w.op("Slice", &[&turned, &from, &to, &axis, &step]),
                self.w.op("Slice", &[&turned, &one, &to, &axis, &step]),
            )
        } else {
            (self.w.slice(&turned, 0, width / 2, 3), self.w.slice(&turned, width / 2, width, 3))
        };
        let mut product = |a: &str, b: &str| self.w.op("Mul", &[a, b]);
        let (ac, bs, bc, as_) =
            (product(&first, cos), product(&second, sin), product(&second, cos), product(&first, sin));
        let left = self.w.op("Sub", &[&ac, &bs]);
        let right = self.w.op("Add", &[&bc, &as_]);
        let mut whole = if interleaved {
            let axis = self.w.ints(&[4]);
            let (left, right) = (self.w.op("Unsqueeze", &[&left, &axis]), self.w.op("Unsqueeze", &[&right, &axis]));
            let pairs = self.w.op_with("Concat", &[&left, &right], vec![int_attribute("axis", -1)]);
            let shape = self.w.ints(&[0, 0, 0, width]);
            self.w.op("Reshape", &[&pairs, &shape])
        } else {
            self.w.op_with("Concat", &[&left, &right], vec![int_attribute("axis", -1)])
        };
        if width < size {
            let rest = self.w.slice(x, width, size, 3);
            whole = self.w.op_with("Concat", &[&whole, &rest], vec![int_attribute("axis", -1)]);
        }
        whole
    }

    /// `[sequence, sequence]`: 0 where a token (row) sees another (column), else the lowest float. A token sees itself
    /// and the `window - 1` before it; all before it without a window.
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
        let (open, shut) = (self.w.float(0.0), self.w.float(f32::MIN));
        let mask = self.w.op("Where", &[&seen, &open, &shut]);
        self.masks.push((window, mask.clone()));
        mask
    }
}

/// The last dimension of the past, if it says.
fn head_size(graph: &GraphProto, node: &NodeProto) -> Option<i64> {
    let past = node.input_at(3)?;
    let info = graph.input.iter().find(|i| i.name.as_deref() == Some(past))?;
    let info = crate::model::ValueInfo::from(info);
    match info.shape?.last()? {
        Dim::Fixed(size) => Some(*size),
        Dim::Symbolic(_) => None,
    }
}
