//! ONNX Runtime's `GroupQueryAttention` with its cache, in standard operators, for rows of any lengths.
//!
//! It follows the CPU kernel (`group_query_attention_helper.h`, `gqa_attention_base.h`): in row `b` the cache holds
//! `max(seqlens_k[b] + 1 - sequence, 0)` tokens from the first column on, and the new tokens follow directly; the
//! updated cache has `max(past, total_sequence_length)` columns. The content after the tokens of a row is undefined,
//! as it is there.

use super::form::Form;
use crate::error::{Kind, Result};
use crate::graph::edit::int_attribute;
use crate::graph::writer::Writer;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{ModelProto, NodeProto};
use std::collections::HashMap;

/// Lowers these nodes and returns their count; `reasons` receives why others stay, by node name.
pub(super) fn lower(proto: &mut ModelProto, opset: i64, reasons: &mut HashMap<String, String>) -> Result<usize> {
    let mut lowering = Grouped { w: Writer::new(proto, "attention"), rows: HashMap::new(), tables: HashMap::new() };
    let Some(graph) = proto.graph.as_deref_mut() else { return Ok(0) };
    let mut count = 0;
    for node in std::mem::take(&mut graph.node) {
        if node.domain.as_deref() != Some("com.microsoft") || node.op() != "GroupQueryAttention" {
            lowering.w.nodes.push(node);
            continue;
        }
        match Form::of(graph, &node, opset) {
            Ok(form) => {
                lowering.apart(&node, &form)?;
                count += 1;
            }
            Err(e) if e.kind() == Kind::Unsupported => {
                reasons.insert(node.label().to_owned(), e.message().to_owned());
                lowering.w.nodes.push(node);
            }
            Err(e) => return Err(e),
        }
    }
    graph.node = lowering.w.nodes;
    graph.initializer.append(&mut lowering.w.constants);
    Ok(count)
}

/// Values shared by all layers with the same lengths and window.
#[derive(Clone)]
struct Rows {
    /// Positions of the new tokens, `[batch, sequence]`.
    own: String,
    /// For each column of the updated cache, its index into the concatenated past and new tokens, `[batch, few,
    /// columns, 1]`.
    picks: String,
    /// Attention mask, `[batch, 1, sequence, columns]`: 0, or the lowest float for masked positions.
    mask: String,
    /// Number of new tokens, a list with one element.
    new: String,
}

struct Grouped {
    w: Writer,
    rows: HashMap<String, Rows>,
    /// Cosines or sines of positions, `[batch, 1, sequence, width / 2]`.
    tables: HashMap<(String, String), String>,
}

impl Grouped {
    fn apart(&mut self, node: &NodeProto, form: &Form) -> Result<()> {
        let rows = self.rows(node, form);
        let [mut q, mut k, v] = self.projected(node, form);
        if form.width > 0 {
            let tables = [7, 8].map(|index| self.table(node.input_at(index).unwrap_or_default(), &rows.own));
            let interleaved = node.int("rotary_interleaved", 0) != 0;
            q = self.w.turn(&q, &tables, (form.size, form.width), interleaved);
            k = self.w.turn(&k, &tables, (form.size, form.width), interleaved);
        }
        let k = self.grown(node, (3, 1), &k, &rows);
        let v = self.grown(node, (4, 2), &v, &rows);
        self.attend(node, form, &rows, [&q, &k, &v]);
        Ok(())
    }

    /// Returns queries, keys and values as `[batch, heads, sequence, size]`.
    fn projected(&mut self, node: &NodeProto, form: &Form) -> [String; 3] {
        let q = node.input_at(0).unwrap_or_default();
        let parts = match (node.input_at(1), node.input_at(2)) {
            (Some(k), Some(v)) => [q.to_owned(), k.to_owned(), v.to_owned()],
            _ => {
                let ends =
                    [0, form.many, form.many + form.few, form.many + 2 * form.few].map(|heads| heads * form.size);
                [0, 1, 2].map(|part| self.w.slice(q, ends[part], ends[part + 1], 2))
            }
        };
        let counts = [form.many, form.few, form.few];
        [0, 1, 2].map(|part| {
            let apart = self.w.reshaped(&parts[part], &[0, 0, counts[part], form.size]);
            self.w.permuted(&apart, &[0, 2, 1, 3])
        })
    }

    fn table(&mut self, table: &str, own: &str) -> String {
        let key = (table.to_owned(), own.to_owned());
        if let Some(known) = self.tables.get(&key) {
            return known.clone();
        }
        let rows = self.w.op("Gather", &[table, own]);
        let axis = self.w.ints(&[1]);
        let rows = self.w.op("Unsqueeze", &[&rows, &axis]);
        self.tables.insert(key, rows.clone());
        rows
    }

    fn rows(&mut self, node: &NodeProto, form: &Form) -> Rows {
        let [x, past, lengths, total] = [0, 3, 5, 6].map(|index| node.input_at(index).unwrap_or_default());
        let tokens = form.tokens.as_ref().map_or_else(|| format!("of {past}"), |name| format!("named {name}"));
        let key = format!("{lengths} {total} {} {} {tokens}", form.window, form.few);
        if let Some(rows) = self.rows.get(&key) {
            return rows.clone();
        }
        let w = &mut self.w;
        let (shape, room) = (w.op("Shape", &[x]), w.op("Shape", &[past]));
        let (new, room) = (w.slice(&shape, 1, 2, 0), w.slice(&room, 2, 3, 0));
        let (zero, one) = (w.ints(&[0]), w.ints(&[1]));
        let total = w.cast(total, DataType::Int64);
        let total = w.reshaped(&total, &[-1]);
        let columns = w.op("Max", &[&room, &total]);
        let columns = w.count_to(&columns);
        // Tokens of each row before the new ones, `[batch, 1]`.
        let lengths = w.cast(lengths, DataType::Int64);
        let lengths = w.reshaped(&lengths, &[-1, 1]);
        let lengths = w.op("Add", &[&lengths, &one]);
        let before = w.op("Sub", &[&lengths, &new]);
        let before = w.op("Max", &[&before, &zero]);
        let steps = w.count_to(&new);
        let own = w.op("Add", &[&before, &steps]);
        let picks = picks(w, [&columns, &before, &room, &new], form.few);
        let mask = mask(w, &columns, &own, form.window);
        let rows = Rows { own, picks, mask, new };
        self.rows.insert(key, rows.clone());
        rows
    }

    /// Returns the cache with the new tokens after those of each row.
    fn grown(&mut self, node: &NodeProto, (past, present): (usize, usize), new: &str, rows: &Rows) -> String {
        let all = self.w.concat(&[node.input_at(past).unwrap_or_default(), new], 2);
        let output = match node.output.get(present).filter(|name| !name.is_empty()) {
            Some(name) => name.clone(),
            None => self.w.fresh("present"),
        };
        self.w.op_to("GatherND", &[&all, &rows.picks], &output, vec![int_attribute("batch_dims", 2)]);
        output
    }

    fn attend(&mut self, node: &NodeProto, form: &Form, rows: &Rows, [q, k, v]: [&str; 3]) {
        let w = &mut self.w;
        let grouped = form.many != form.few;
        let scale = w.scalar(form.scale);
        let mut q = w.op("Mul", &[q, &scale]);
        if grouped {
            // Queries that share a head are laid one after another: no key or value is repeated.
            q = w.reshaped(&q, &[0, form.few, -1, form.size]);
        }
        let turned = w.permuted(k, &[0, 1, 3, 2]);
        let mut scores = w.op("MatMul", &[&q, &turned]);
        let by_group = w.op("Shape", &[&scores]);
        if grouped {
            let (batch, last) = (w.slice(&by_group, 0, 1, 0), w.slice(&by_group, 3, 4, 0));
            let heads = w.ints(&[form.many]);
            let by_head = w.concat(&[&batch, &heads, &rows.new, &last], 0);
            scores = w.op("Reshape", &[&scores, &by_head]);
        }
        if form.cap > 0.0 {
            let cap = w.scalar(form.cap);
            let part = w.op("Div", &[&scores, &cap]);
            let bent = w.op("Tanh", &[&part]);
            scores = w.op("Mul", &[&bent, &cap]);
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
}

/// Returns the source of each column: before `before` it is the past's own column; from there on it is a new token,
/// which follows the `room` columns of the past.
fn picks(w: &mut Writer, [columns, before, room, new]: [&str; 4], few: i64) -> String {
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

/// Returns the causal mask: a token attends to itself and all tokens before it, with a window to the `window - 1`
/// tokens before it.
fn mask(w: &mut Writer, columns: &str, own: &str, window: i64) -> String {
    let axis = w.ints(&[2]);
    let own = w.op("Unsqueeze", &[own, &axis]);
    let mut seen = w.op("LessOrEqual", &[columns, &own]);
    if window > 0 {
        let window = w.int(window);
        let before = w.op("Sub", &[&own, &window]);
        let near = w.op("Greater", &[columns, &before]);
        seen = w.op("And", &[&seen, &near]);
    }
    let axis = w.ints(&[1]);
    let seen = w.op("Unsqueeze", &[&seen, &axis]);
    // The lowest number and not minus infinity: padding that sees nothing must not become NaN.
    let (open, shut) = (w.scalar(0.0), w.scalar(f32::MIN));
    w.op("Where", &[&seen, &open, &shut])
}
