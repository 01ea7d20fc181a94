//! Lowering of ONNX Runtime's `GroupQueryAttention` to standard operators.
//!
//! With a past ([`Past::Cache`]), rows may have different lengths, as in ONNX Runtime's CPU kernel
//! (`group_query_attention_helper.h`, `gqa_attention_base.h`): in row `b` the cache holds `max(seqlens_k[b] + 1 -
//! sequence, 0)` tokens from the first column on, and the new tokens follow directly; the updated cache has `max(past,
//! total_sequence_length)` columns. As in that kernel, the content after the tokens of a row is undefined.
//!
//! Without a past ([`Past::Nothing`]), for training, tokens have the positions 0, 1, 2 and so on. Padding follows the
//! tokens of a row, so that the causal mask hides it from them.

use super::form::Form;
use crate::error::{Kind, Result};
use crate::graph::builder::NodeBuilder;
use crate::graph::edit::int_attribute;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto};
use std::collections::HashMap;

/// The past, which is the tokens before the new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// No past; the inputs of the past and the lengths are not read.
    Nothing,
    /// The cache of earlier tokens.
    Cache,
}

/// Lowers the `GroupQueryAttention` nodes of the main graph with their cache, and returns the number of lowered nodes.
/// `opset` is the version of the default domain. `reasons` receives the reasons why other such nodes stay unchanged, by
/// node name ([`NodeProto::label`]). Fails with [`crate::error::Kind::InvalidModel`] if such a node is invalid.
pub fn lower_grouped(proto: &mut ModelProto, opset: i64, reasons: &mut HashMap<String, String>) -> Result<usize> {
    let (mut w, mut grouped) = (NodeBuilder::new(proto, "attention"), Grouped::new(Past::Cache));
    let Some(graph) = proto.graph.as_deref_mut() else { return Ok(0) };
    let mut count = 0;
    for node in std::mem::take(&mut graph.node) {
        if node.domain.as_deref() != Some("com.microsoft") || node.op() != "GroupQueryAttention" {
            w.nodes.push(node);
            continue;
        }
        match Form::of(graph, &node, opset, Past::Cache) {
            Ok(form) => {
                grouped.lower(&mut w, &node, &form);
                count += 1;
            }
            Err(e) if e.kind() == Kind::Unsupported => {
                reasons.insert(node.label().to_owned(), e.message().to_owned());
                w.nodes.push(node);
            }
            Err(e) => return Err(e),
        }
    }
    graph.node = w.nodes;
    graph.initializer.append(&mut w.constants);
    Ok(count)
}

/// The names of values that all layers with the same lengths and window share.
#[derive(Clone)]
struct Rows {
    /// Positions of the new tokens, `[batch, sequence]`; `None` without a past.
    own: Option<String>,
    /// Indices of the columns of the updated cache in the concatenated past and new tokens, as `[batch, key and value
    /// heads, columns, 1]`; `None` without a past.
    picks: Option<String>,
    /// Attention mask, `[batch, 1, sequence, columns]`, without a past `[sequence, sequence]`: 0, or the lowest float
    /// for masked positions.
    mask: String,
    /// Number of new tokens, a tensor with one element.
    new: String,
}

/// The state of lowering the nodes of one graph.
pub(super) struct Grouped {
    past: Past,
    rows: HashMap<String, Rows>,
    /// Cosines or sines of the new tokens, by table and positions: `[batch, 1, sequence, width / 2]`, without a past
    /// `[sequence, width / 2]`.
    tables: HashMap<(String, Option<String>), String>,
}

impl Grouped {
    pub fn new(past: Past) -> Grouped {
        Grouped { past, rows: HashMap::new(), tables: HashMap::new() }
    }

    pub fn lower(&mut self, w: &mut NodeBuilder, node: &NodeProto, form: &Form) {
        let rows = self.rows(w, node, form);
        let [mut q, mut k, v] = projected(w, node, form);
        if form.width > 0 {
            let tables = [7, 8].map(|index| self.table(w, node.input_at(index).unwrap_or_default(), &rows));
            let interleaved = node.int("rotary_interleaved", 0) != 0;
            q = w.rotate(&q, &tables, (form.size, form.width), interleaved);
            k = w.rotate(&k, &tables, (form.size, form.width), interleaved);
        }
        let k = grown(w, node, (3, 1), &k, &rows);
        let v = grown(w, node, (4, 2), &v, &rows);
        attend(w, node, form, &rows, [&q, &k, &v]);
    }

    fn table(&mut self, w: &mut NodeBuilder, table: &str, rows: &Rows) -> String {
        let key = (table.to_owned(), rows.own.clone());
        if let Some(known) = self.tables.get(&key) {
            return known.clone();
        }
        let found = match &rows.own {
            Some(own) => {
                let found = w.op("Gather", &[table, own]);
                let axis = w.ints(&[1]);
                w.op("Unsqueeze", &[&found, &axis])
            }
            None => {
                let (zero, axis) = (w.ints(&[0]), w.ints(&[0]));
                w.op("Slice", &[table, &zero, &rows.new, &axis])
            }
        };
        self.tables.insert(key, found.clone());
        found
    }

    fn rows(&mut self, w: &mut NodeBuilder, node: &NodeProto, form: &Form) -> Rows {
        let key = match self.past {
            // All layers of one window share the values of the tokens.
            Past::Nothing => form.window.to_string(),
            Past::Cache => {
                let [past, lengths, total] = [3, 5, 6].map(|index| node.input_at(index).unwrap_or_default());
                let tokens = form.tokens.as_ref().map_or_else(|| format!("of {past}"), |name| format!("named {name}"));
                format!("{lengths} {total} {} {} {tokens}", form.window, form.few)
            }
        };
        if let Some(rows) = self.rows.get(&key) {
            return rows.clone();
        }
        let rows = match self.past {
            Past::Nothing => first_rows(w, node, form),
            Past::Cache => rows_behind(w, node, form),
        };
        self.rows.insert(key, rows.clone());
        rows
    }
}

/// Adds queries, keys and values as `[batch, heads, sequence, size]`, and returns their names.
fn projected(w: &mut NodeBuilder, node: &NodeProto, form: &Form) -> [String; 3] {
    let q = node.input_at(0).unwrap_or_default();
    let parts = match (node.input_at(1), node.input_at(2)) {
        (Some(k), Some(v)) => [q.to_owned(), k.to_owned(), v.to_owned()],
        _ => {
            let ends = [0, form.many, form.many + form.few, form.many + 2 * form.few].map(|heads| heads * form.size);
            [0, 1, 2].map(|part| w.slice(q, ends[part], ends[part + 1], 2))
        }
    };
    let counts = [form.many, form.few, form.few];
    [0, 1, 2].map(|part| {
        let apart = w.reshaped(&parts[part], &[0, 0, counts[part], form.size]);
        w.permuted(&apart, &[0, 2, 1, 3])
    })
}

fn first_rows(w: &mut NodeBuilder, node: &NodeProto, form: &Form) -> Rows {
    let shape = w.op("Shape", &[node.input_at(0).unwrap_or_default()]);
    let new = w.slice(&shape, 1, 2, 0);
    let columns = w.count_to(&new);
    let axis = w.ints(&[1]);
    let own = w.op("Unsqueeze", &[&columns, &axis]);
    let seen = seen(w, &columns, &own, form.window);
    Rows { own: None, picks: None, mask: mask(w, &seen), new }
}

fn rows_behind(w: &mut NodeBuilder, node: &NodeProto, form: &Form) -> Rows {
    let [x, past, lengths, total] = [0, 3, 5, 6].map(|index| node.input_at(index).unwrap_or_default());
    let (shape, room) = (w.op("Shape", &[x]), w.op("Shape", &[past]));
    let (new, room) = (w.slice(&shape, 1, 2, 0), w.slice(&room, 2, 3, 0));
    let (zero, one) = (w.ints(&[0]), w.ints(&[1]));
    let total = w.cast(total, DataType::Int64);
    let total = w.reshaped(&total, &[-1]);
    let columns = w.op("Max", &[&room, &total]);
    let columns = w.count_to(&columns);
    // Number of tokens of each row before the new ones, `[batch, 1]`.
    let lengths = w.cast(lengths, DataType::Int64);
    let lengths = w.reshaped(&lengths, &[-1, 1]);
    let lengths = w.op("Add", &[&lengths, &one]);
    let before = w.op("Sub", &[&lengths, &new]);
    let before = w.op("Max", &[&before, &zero]);
    let steps = w.count_to(&new);
    let own = w.op("Add", &[&before, &steps]);
    let picks = picks(w, [&columns, &before, &room, &new], form.few);
    let axis = w.ints(&[2]);
    let places = w.op("Unsqueeze", &[&own, &axis]);
    let seen = seen(w, &columns, &places, form.window);
    let axis = w.ints(&[1]);
    let seen = w.op("Unsqueeze", &[&seen, &axis]);
    Rows { own: Some(own), picks: Some(picks), mask: mask(w, &seen), new }
}

/// Adds the index of each column of the updated cache in the concatenation of the past (`room` columns) and the new
/// tokens, and returns its name. A column before `before` is that of the past; from `before` on, columns are new
/// tokens.
fn picks(w: &mut NodeBuilder, [columns, before, room, new]: [&str; 4], few: i64) -> String {
    let one = w.ints(&[1]);
    let is_old = w.op("Less", &[columns, before]);
    let moved = w.op("Sub", &[columns, before]);
    let moved = w.op("Add", &[&moved, room]);
    let all = w.op("Add", &[room, new]);
    let last = w.op("Sub", &[&all, &one]);
    let moved = w.op("Min", &[&moved, &last]);
    let picks = w.op("Where", &[&is_old, columns, &moved]);
    let axes = w.ints(&[1, 3]);
    let picks = w.op("Unsqueeze", &[&picks, &axes]);
    let heads = w.ints(&[1, few, 1, 1]);
    w.op("Expand", &[&picks, &heads])
}

/// Adds a bool tensor and returns its name: whether each new token attends to each column of the cache. A token attends
/// to itself and to all tokens before it; with a window, to itself and to the `window - 1` tokens before it. `own` has
/// the column of each new token, and a last dimension of size 1.
fn seen(w: &mut NodeBuilder, columns: &str, own: &str, window: i64) -> String {
    let seen = w.op("LessOrEqual", &[columns, own]);
    if window <= 0 {
        return seen;
    }
    let window = w.int(window);
    let before = w.op("Sub", &[own, &window]);
    let near = w.op("Greater", &[columns, &before]);
    w.op("And", &[&seen, &near])
}

/// Adds a mask and returns its name: 0 for visible columns, otherwise the lowest float (not minus infinity: padding
/// that attends to nothing must not become NaN).
fn mask(w: &mut NodeBuilder, seen: &str) -> String {
    let (open, shut) = (w.scalar(0.0), w.scalar(f32::MIN));
    w.op("Where", &[seen, &open, &shut])
}

/// Adds the cache with the new tokens after those of each row, and returns its name.
fn grown(w: &mut NodeBuilder, node: &NodeProto, (past, present): (usize, usize), new: &str, rows: &Rows) -> String {
    let output = node.output.get(present).filter(|name| !name.is_empty()).cloned();
    let Some(picks) = &rows.picks else {
        output.iter().for_each(|output| w.op_to("Identity", &[new], output, Vec::new()));
        return new.to_owned();
    };
    let all = w.concat(&[node.input_at(past).unwrap_or_default(), new], 2);
    let output = output.unwrap_or_else(|| w.fresh("present"));
    w.op_to("GatherND", &[&all, picks], &output, vec![int_attribute("batch_dims", 2)]);
    output
}

fn attend(w: &mut NodeBuilder, node: &NodeProto, form: &Form, rows: &Rows, [q, k, v]: [&str; 3]) {
    let grouped = form.many != form.few;
    let scale = w.scalar(form.scale);
    let mut q = w.op("Mul", &[q, &scale]);
    if grouped {
        // Queries that share a head are concatenated: no key or value is repeated.
        q = w.reshaped(&q, &[0, form.few, -1, form.size]);
    }
    let transposed = w.permuted(k, &[0, 1, 3, 2]);
    let mut scores = w.op("MatMul", &[&q, &transposed]);
    let by_group = w.op("Shape", &[&scores]);
    if grouped {
        let (batch, last) = (w.slice(&by_group, 0, 1, 0), w.slice(&by_group, 3, 4, 0));
        let heads = w.ints(&[form.many]);
        let by_head = w.concat(&[&batch, &heads, &rows.new, &last], 0);
        scores = w.op("Reshape", &[&scores, &by_head]);
    }
    if form.cap > 0.0 {
        scores = w.capped(&scores, form.cap);
    }
    let scores = w.op("Add", &[&scores, &rows.mask]);
    let mut shares = w.op_with("Softmax", &[&scores], vec![int_attribute("axis", -1)]);
    if grouped {
        shares = w.op("Reshape", &[&shares, &by_group]);
    }
    let mut seen = w.op("MatMul", &[&shares, v]);
    if grouped {
        seen = w.reshaped(&seen, &[0, form.many, -1, form.size]);
    }
    let seen = w.permuted(&seen, &[0, 2, 1, 3]);
    let together = w.ints(&[0, 0, form.many * form.size]);
    w.op_to("Reshape", &[&seen, &together], node.output.first().map_or("", String::as_str), Vec::new());
}
