//! Search for the constants that are weights of operators that compute in float.

use super::Stored;
use super::roles::{Role, already, role};
use crate::graph::quantized::belongs_to_blocks;
use crate::graph::select::Selector;
use crate::graph::{BodyId, Use, View};
use crate::onnx::dtype::element_count;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto};
use crate::quantize::QuantizeOptions;
use crate::quantize::planner::{Change, is_float};
use std::collections::{HashMap, HashSet};

/// The parameters of the search.
pub struct Asked<'p, 'a> {
    /// Graphs and functions of the model.
    pub view: &'p View<'a>,
    /// Model that is quantized.
    pub model: &'p ModelProto,
    /// Options of the quantization.
    pub options: &'p QuantizeOptions,
    /// Names to which the quantization is restricted.
    pub include: &'p Selector,
    /// Names that are excluded.
    pub exclude: &'p Selector,
    /// Nodes that read weights in another form, and no longer need the float weight.
    pub changes: &'p [Change<'a>],
    /// Opset version of the model, followed by those of the functions.
    pub opsets: &'p [i64],
    /// Function that returns the bits and the block size for the names of a node and its weight.
    pub bits: &'p mut BitsOf<'p>,
}

/// A function that returns bits and block size for the names of a node and its weight, and whether an override matches
/// them.
pub type BitsOf<'f> = dyn FnMut(&str, &str) -> ((u32, usize), bool) + 'f;

/// The result of the search: weights to store, and nodes whose weights stay unchanged.
pub struct Found<'a> {
    /// Weights that can be stored in few bits.
    pub stored: Vec<Stored<'a>>,
    /// Number of nodes that match the caller's globs.
    pub included: usize,
    /// Nodes whose weight stays unchanged, with the reason.
    pub left: Vec<(BodyId, usize, String)>,
}

/// The opset from which on `Mul` broadcasts and ONNX Runtime has a kernel for it. Before, a `Conv` with one input
/// channel per group multiplies instead.
pub const MUL_OPSET: i64 = 7;

/// The maximum depth to which weights are followed through nodes and calls.
const DEPTH: usize = 16;

/// Returns the weights of nodes that compute in float, in the graphs and functions of the model.
pub fn find<'a>(asked: &mut Asked<'_, 'a>) -> Found<'a> {
    let view = asked.view;
    let functions = functions(asked.model, view);
    let changed = asked.changes.iter().map(|c| (c.body, c.node, c.input)).collect();
    let mut found = Found { stored: Vec::new(), included: 0, left: Vec::new() };
    for (owner, body) in view.bodies.iter().enumerate() {
        let tensors = body.graph.iter().flat_map(|graph| graph.initializers());
        for (name, tensor) in tensors.chain(body.nodes.iter().filter_map(NodeProto::constant)) {
            let mut walk = Walk {
                view,
                functions: &functions,
                changed: &changed,
                embeddings: asked.options.embeddings,
                readers: Vec::new(),
                keep: None,
                agreed: true,
                table: false,
                refusal: None,
                names: Vec::new(),
            };
            let elements = element_count(&tensor.dims).unwrap_or(0);
            let large = is_float(tensor) && tensor.dims.len() > 1 && elements >= asked.options.min_elements.max(1);
            if large && !belongs_to_blocks(view, owner, name) {
                walk.follow(owner, name, Some((0..tensor.dims.len()).collect()), 0);
                weigh(asked, &mut found, walk, (owner, name, tensor));
            }
        }
        for (index, node) in body.nodes.iter().enumerate() {
            let stored = |(input, name): (usize, &String)| {
                matches!(role(view, owner, node, input, None), Role::Weight(_)) && already(view, owner, name)
            };
            if node.input.iter().enumerate().any(stored) {
                found.left.push((owner, index, super::ALREADY.to_owned()));
            }
        }
    }
    found
}

type Functions<'p> = HashMap<(&'p str, &'p str, &'p str), (BodyId, &'p [String])>;

/// Returns the body and the names of the inputs of each function, by its domain, name and overload.
fn functions<'p>(model: &'p ModelProto, view: &View<'_>) -> Functions<'p> {
    let bodies = view.bodies.iter().enumerate().filter(|(_, body)| body.graph.is_none());
    let of = |(id, body): (BodyId, &crate::graph::Body<'_>)| {
        let function = model.functions.get(body.function?)?;
        let part = |text: &'p Option<String>| text.as_deref().unwrap_or("");
        let key = (part(&function.domain), part(&function.name), part(&function.overload));
        Some((key, (id, function.input.as_slice())))
    };
    bodies.filter_map(of).collect()
}

/// Adds a constant, whose readers are all known now, to the result of the search: the constant to the weights to store,
/// or its readers to the nodes that stay unchanged. A constant without readers is ignored.
fn weigh<'a>(
    asked: &mut Asked<'_, 'a>,
    found: &mut Found<'a>,
    walk: Walk<'_, 'a>,
    (owner, name, tensor): (BodyId, &'a str, &'a TensorProto),
) {
    if walk.readers.is_empty() {
        return;
    }
    let matches = |selector: &Selector, label: &str| selector.matches(&[label, name]);
    let include = &asked.options.include;
    let included = walk.names.iter().filter(|label| include.is_empty() || matches(asked.include, label)).count();
    found.included += if include.is_empty() { 0 } else { included };
    let refusal = if included < walk.names.len() {
        Some("not included".to_owned())
    } else if walk.names.iter().any(|label| matches(asked.exclude, label)) {
        Some("excluded".to_owned())
    } else if overridable(asked, owner, name) {
        Some("the weight is an optional input".to_owned())
    } else {
        walk.refusal.map(|why| if walk.table { why.replace("the weight", "the table") } else { why })
    };
    let function = asked.view.bodies[owner].function;
    let keep = match (asked.options.per_channel, walk.agreed) {
        (false, _) => Some(vec![false; tensor.dims.len()]),
        (true, true) => walk.keep,
        (true, false) => None,
    };
    let mut stored = Stored {
        owner,
        name,
        tensor,
        keep,
        readers: walk.readers,
        bits: (8, 0),
        cautious: false,
        opset: asked.opsets[function.map_or(0, |f| f + 1)],
    };
    match refusal {
        Some(reason) => found.leave(&stored, &reason),
        None if stored.stored_bytes(8) < stored.bytes() => {
            let (bits, named) = (asked.bits)(walk.names.first().map_or("", String::as_str), name);
            let convolves = |(body, node): &(BodyId, usize)| {
                let node = asked.view.node(*body, *node);
                node.is("Conv") || node.is("ConvTranspose")
            };
            stored.bits = bits;
            // 4 bits need many inputs per channel ([`Stored::cautious`]), unless the loss is measured or an override
            // names the weight.
            let measured = asked.options.max_quality_loss > 0.0 || asked.options.target_size > 0;
            stored.cautious = !named && !measured && stored.readers.iter().all(convolves);
            found.stored.push(stored);
        }
        None => {
            let count = stored.elements();
            let reason = format!("with its scales, the weight of {count} elements would not become smaller in 8 bits");
            found.leave(&stored, &reason);
        }
    }
}

impl Found<'_> {
    /// Adds the readers of a weight to the nodes that stay unchanged.
    fn leave(&mut self, weight: &Stored<'_>, reason: &str) {
        self.left.extend(weight.readers.iter().map(|(body, node)| (*body, *node, reason.to_owned())));
    }
}

/// Returns whether the caller of a session can override the constant. Before IR version 4 every initializer is also
/// listed as an input, and cannot be overridden.
fn overridable(asked: &Asked<'_, '_>, owner: BodyId, name: &str) -> bool {
    let graph = asked.view.bodies[owner].graph;
    asked.model.ir_version.unwrap_or(0) >= 4
        && graph.is_some_and(|g| g.input.iter().any(|input| input.name.as_deref() == Some(name)))
}

/// The state of a search that follows a constant to the nodes that use it as a weight.
struct Walk<'p, 'a> {
    view: &'p View<'a>,
    functions: &'p Functions<'p>,
    changed: &'p HashSet<(BodyId, usize, usize)>,
    /// Whether tables are stored.
    embeddings: bool,
    readers: Vec<(BodyId, usize)>,
    /// Axes of the constant with their own scales, as required by the readers so far.
    keep: Option<Vec<bool>>,
    /// Whether all readers so far require the same axes.
    agreed: bool,
    /// Whether a `Gather` reads rows of the constant.
    table: bool,
    /// Reason why the constant must stay unchanged.
    refusal: Option<String>,
    /// Names of the readers, and of calls of functions through which they read the constant.
    names: Vec<String>,
}

impl Walk<'_, '_> {
    /// Follows a value to the nodes that read it. `axes` maps the axes of the value to those of the constant, if known.
    fn follow(&mut self, owner: BodyId, name: &str, axes: Option<Vec<usize>>, depth: usize) {
        if depth > DEPTH {
            self.refuse("its use is too complex to analyze");
            return;
        }
        for place in self.view.uses(owner, name) {
            match *place {
                Use::Output { .. } => self.refuse("its weight is also an output"),
                Use::Node { body, node, input } if self.changed.contains(&(body, node, input)) => {}
                Use::Node { body, node, input } => self.step((body, node, input), axes.as_deref(), depth),
            }
        }
    }

    /// Records a node that reads the value as its input `input`, or follows the value through it.
    fn step(&mut self, (body, index, input): (BodyId, usize, usize), axes: Option<&[usize]>, depth: usize) {
        let node = self.view.node(body, index);
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let (domain, overload) = (part(&node.domain), part(&node.overload));
        if let Some(&(inside, inputs)) = self.functions.get(&(domain.as_str(), node.op(), overload.as_str())) {
            let Some(name) = inputs.get(input) else { return };
            let before = self.readers.len();
            self.follow(inside, name, axes.map(<[usize]>::to_vec), depth + 1);
            if self.readers.len() > before {
                self.names.push(node.label().to_owned());
            }
            return;
        }
        let role = role(self.view, body, node, input, axes.map(<[usize]>::len));
        self.table |= matches!(role, Role::Table(_));
        match role {
            Role::Shape => {}
            Role::Table(_) if !self.embeddings => self.refuse("embedding tables are kept float by the options"),
            Role::Weight(keep) | Role::Table(keep) => {
                let keep = keep.zip(axes).map(|(keep, axes)| {
                    let mut own = vec![false; keep.len()];
                    keep.iter().zip(axes).for_each(|(keep, axis)| own[*axis] = *keep);
                    own
                });
                self.agreed &= self.readers.is_empty() || self.keep == keep;
                self.keep = keep;
                if !self.readers.contains(&(body, index)) {
                    self.readers.push((body, index));
                    self.names.push(node.label().to_owned());
                }
            }
            Role::Passes(order) => {
                let axes = order.zip(axes).map(|(order, axes)| order.iter().map(|axis| axes[*axis]).collect());
                for output in node.output.iter().filter(|name| !name.is_empty()) {
                    self.follow(body, output, Option::clone(&axes), depth + 1);
                }
            }
            Role::Other => self.refuse(&format!("{} needs the weight as float", node.label())),
        }
    }

    fn refuse(&mut self, reason: &str) {
        self.refusal.get_or_insert_with(|| reason.to_owned());
    }
}
