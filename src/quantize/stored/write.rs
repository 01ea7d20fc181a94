//! Replacement of float constants by constants of few bits and the nodes that convert them to floats.

use super::blocks::Blocks;
use super::code::Coded;
use super::find::MUL_OPSET;
use super::{Outcome, Stored};
use crate::graph::BodyId;
use crate::graph::builder::{Naming, NodeBuilder};
use crate::graph::edit::{self, BodyMut, Names, float_tensor, int_attribute, ints_attribute};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use bytes::Bytes;
use std::collections::HashMap;

const FLOAT: i32 = DataType::Float32 as i32;

/// Switches for trials: each selects whether the readers of a weight get its original or its coded form.
pub struct Switched<'s> {
    /// Name of the input with the switches, one bool each.
    pub input: &'s str,
    /// Index of the switch of each weight.
    pub of: &'s [usize],
}

/// Replaces weights by their coded form. With `switched`, only weights of the main graph are replaced, and a switch
/// selects the coded or the original form.
///
/// The model may have been rewritten since it was analysed, as long as bodies are in the same order.
pub fn apply(model: &mut ModelProto, stored: &[Stored<'_>], outcomes: &[Outcome], switched: Option<&Switched<'_>>) {
    let mut by_body: HashMap<BodyId, Vec<usize>> = HashMap::new();
    for (index, stored) in stored.iter().enumerate() {
        if outcomes[index].is_ok() && (switched.is_none() || stored.owner == 0) {
            by_body.entry(stored.owner).or_default().push(index);
        }
    }
    if by_body.is_empty() {
        return;
    }
    // New values have short names, because there are many of them.
    let w = NodeBuilder::with(Names::of(model), Naming::Short("stored", 0), 0);
    let mut make = Make { w, front: Vec::new() };
    edit::for_each_body(model, &mut |body, mut content| {
        for &index in by_body.get(&body).into_iter().flatten() {
            if let Ok(coded) = &outcomes[index] {
                let switch = switched.map(|s| (s.input, s.of[index]));
                make.replace(&mut content, &stored[index], coded, switch);
            }
        }
        content.nodes.splice(0..0, make.front.drain(..));
        make.w.constants.drain(..).for_each(|tensor| content.add_constant(tensor));
    });
    edit::modernize_ir(model);
}

/// The additions to one graph or function.
struct Make {
    /// Builder of the nodes of one weight at a time, and of the constants of the graph or function.
    w: NodeBuilder,
    /// Nodes that compute the values of replaced initializers, which precede all other nodes.
    front: Vec<NodeProto>,
}

impl Make {
    /// Replaces one weight in a graph or function. `switch` is the input with the switches, and the index of the
    /// weight's switch.
    fn replace(
        &mut self,
        content: &mut BodyMut<'_>,
        stored: &Stored<'_>,
        coded: &Coded,
        switch: Option<(&str, usize)>,
    ) {
        let name = stored.name;
        let initializer = content.initializers.as_ref().and_then(|list| position(list, name));
        let node = content.nodes.iter().position(|n| n.is("Constant") && n.output.first().is_some_and(|o| o == name));
        if initializer.is_none() && node.is_none() {
            return; // No node needed its float form, so it has been removed.
        }
        let target = if switch.is_some() { self.w.names.fresh(&format!("{name}_stored")) } else { name.to_owned() };
        self.value(stored, coded, &target);
        if let Some((input, index)) = switch {
            let original = self.w.names.fresh(&format!("{name}_float"));
            self.either(name, (input, index), &target, &original);
            match (initializer, node) {
                (Some(at), _) => {
                    content.initializers.iter_mut().for_each(|list| list[at].name = Some(original.clone()));
                }
                (None, Some(at)) => content.nodes[at].output[0] = original,
                (None, None) => {}
            }
        } else if let (Some(at), Some(list)) = (initializer, &mut content.initializers) {
            list.remove(at);
        }
        // Before IR version 4, an initializer is also listed as an input, which is removed with it.
        if let Some(inputs) = &mut content.inputs {
            inputs.retain(|input| input.name.as_deref() != Some(name)); // Before IR version 4.
        }
        let made = std::mem::take(&mut self.w.nodes);
        match node.filter(|_| initializer.is_none()) {
            None => self.front.extend(made),
            Some(at) if switch.is_some() => drop(content.nodes.splice(at + 1..at + 1, made)),
            Some(at) => drop(content.nodes.splice(at..=at, made)),
        }
    }

    /// Adds the nodes that compute the floats of a weight, with the output `target`.
    fn value(&mut self, stored: &Stored<'_>, coded: &Coded, target: &str) {
        let dtype = stored.tensor.data_type.unwrap_or(FLOAT);
        let dims = &stored.tensor.dims;
        let value = match coded {
            Coded::Int8 { keep, values, scales, .. } if stored.opset >= MUL_OPSET => {
                let codes = self.constant(stored.name, "int8", DataType::Int8, dims, values.clone());
                let shape: Vec<i64> = dims.iter().zip(keep).map(|(size, keep)| if *keep { *size } else { 1 }).collect();
                let scales = self.floats(stored.name, "scale", &shape, scales);
                let codes = self.w.cast_to(&codes, FLOAT);
                self.w.op("Mul", &[&codes, &scales])
            }
            Coded::Int8 { values, scales, .. } => self.convolved(stored, values, scales),
            Coded::Int4(blocks) => self.blocks(stored, blocks),
        };
        match self.w.nodes.last_mut() {
            Some(last) if dtype == FLOAT && last.output[0] == value => last.output[0] = target.to_owned(),
            _ => self.w.op_to("Cast", &[&value], target, vec![int_attribute("to", i64::from(dtype))]),
        }
    }

    /// Adds the nodes for opsets without a broadcasting `Mul`, and returns the name of their output. The elements that
    /// share a scale are a channel, which a `Conv` with a kernel of one element per channel multiplies by the scale.
    fn convolved(&mut self, stored: &Stored<'_>, values: &Bytes, scales: &[f32]) -> String {
        let (name, count) = (stored.name, scales.len() as i64);
        let shape = [1, count, 1, stored.elements() as i64 / count.max(1)];
        let codes = self.constant(name, "int8", DataType::Int8, &shape, values.clone());
        let scales = self.floats(name, "scale", &[count, 1, 1, 1], scales);
        let codes = self.w.cast_to(&codes, FLOAT);
        let attributes = vec![int_attribute("group", count), ints_attribute("kernel_shape", &[1, 1])];
        let value = self.w.op_with("Conv", &[&codes, &scales], attributes);
        self.w.reshaped(&value, &stored.tensor.dims)
    }

    /// Adds the nodes that compute `scale (code - zero)` of blocks whose codes share bytes, and returns their output.
    fn blocks(&mut self, stored: &Stored<'_>, blocks: &Blocks) -> String {
        let name = stored.name;
        let Blocks { rows, columns, block, transposed, codes, scales, zeros } = blocks;
        let (rows, count, half) = (*rows as i64, (columns / block) as i64, *block as i64 / 2);
        let codes = self.constant(name, "int4", DataType::Uint8, &[rows, count, half], codes.clone());
        let scales = self.constant(name, "scale", DataType::Float16, &[rows, count, 1], scales.clone());
        let (sixteenth, sixteen) = (self.w.scalar(0.0625), self.w.scalar(16.0));
        let zeros = match zeros.is_empty() {
            true => self.w.scalar(8.0),
            false => {
                let zeros = self.constant(name, "zero_point", DataType::Uint8, &[rows, count, 1], zeros.clone());
                self.w.cast_to(&zeros, FLOAT)
            }
        };
        let both = self.w.cast_to(&codes, FLOAT);
        let high = self.w.op("Mul", &[&both, &sixteenth]);
        let high = self.w.op("Floor", &[&high]);
        let above = self.w.op("Mul", &[&high, &sixteen]);
        let low = self.w.op("Sub", &[&both, &above]);
        let codes = self.w.op_with("Concat", &[&low, &high], vec![int_attribute("axis", 2)]);
        let codes = self.w.op("Sub", &[&codes, &zeros]);
        let scales = self.w.cast_to(&scales, FLOAT);
        let value = self.w.op("Mul", &[&codes, &scales]);
        let dims = &stored.tensor.dims;
        if !transposed {
            return self.w.reshaped(&value, dims);
        }
        let rank = dims.len();
        let (mut lying, mut order) = (dims.clone(), (0..rank as i64).collect::<Vec<i64>>());
        lying.swap(rank - 1, rank - 2);
        order.swap(rank - 1, rank - 2);
        let value = self.w.reshaped(&value, &lying);
        self.w.op_with("Transpose", &[&value], vec![ints_attribute("perm", &order)])
    }

    /// Adds an `If` that selects `on` or `off` by a switch.
    fn either(&mut self, name: &str, (input, index): (&str, usize), on: &str, off: &str) {
        let index = self.w.int(index as i64);
        let condition = self.w.op("Gather", &[input, &index]);
        let branches = [("then_branch", on), ("else_branch", off)].map(|(branch, value)| {
            let output = self.w.names.fresh(&format!("{name}_{branch}"));
            let graph = GraphProto {
                name: Some(branch.into()),
                node: vec![edit::node("Identity", &[value], &[&output])],
                output: vec![edit::untyped(&output)],
                ..Default::default()
            };
            edit::graph_attribute(branch, graph)
        });
        self.w.op_to("If", &[&condition], name, branches.into());
    }

    fn constant(&mut self, of: &str, part: &str, dtype: DataType, dims: &[i64], raw: Bytes) -> String {
        let name = self.w.names.fresh(&format!("{of}_{part}"));
        self.w.constants.push(edit::tensor(&name, dtype, dims, raw));
        name
    }

    fn floats(&mut self, of: &str, part: &str, dims: &[i64], values: &[f32]) -> String {
        let name = self.w.names.fresh(&format!("{of}_{part}"));
        self.w.constants.push(float_tensor(&name, dims, values));
        name
    }
}

fn position(list: &[TensorProto], name: &str) -> Option<usize> {
    list.iter().position(|tensor| tensor.name.as_deref() == Some(name))
}
