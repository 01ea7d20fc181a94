//! Selection of the weights to prune, by the names of their modules.

use super::options::PruneOptions;
use super::{LEFT, PRUNED};
use crate::error::{Result, bail};
use crate::graph::constants::{Constant, Matrix};
use crate::graph::quantized::{belongs_to_blocks, has_quantized_weights};
use crate::graph::select::{Fit, Pattern, Selector, names_of};
use crate::graph::{BodyId, View, modules};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::report::{NodeReport, count_reasons, report_of};
use std::collections::{BTreeMap, HashMap};

/// The layout of a weight as `[outer, inputs, inner]`, in row-major order. A product sums over the middle dimension:
/// the output with the indices `o` and `i` reads the elements `(o * inputs + k) * inner + i`, for `k` from 0 to `inputs
/// - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Size of the dimension before the summed one.
    pub outer: usize,
    /// Number of values that a product sums over; for a table the elements of a row, for a convolution the channels.
    pub inputs: usize,
    /// Size of the dimension after the summed one.
    pub inner: usize,
}

impl Layout {
    /// Returns the number of sums that the weight computes.
    pub fn outputs(&self) -> usize {
        self.outer * self.inner
    }
}

/// The operand that a weight is multiplied with, in the main graph.
pub struct Data {
    /// Name of the value.
    pub value: String,
    /// Whether the inputs of the product are the second dimension (channels) of this operand, not the last.
    pub channels: bool,
}

/// A weight to prune; several nodes may share it.
pub struct Target<'a> {
    /// Tensor of the weight as stored.
    pub tensor: &'a TensorProto,
    /// Elements of the weight, as one row.
    pub matrix: Matrix,
    /// Graph or function that defines the weight.
    pub owner: BodyId,
    /// Name of the weight.
    pub name: String,
    /// Short name of the module of the weight.
    pub module: String,
    /// Layout of the elements.
    pub layout: Layout,
    /// Share of the elements to set to zero.
    pub sparsity: f64,
    /// Whether the sparsity comes from an override.
    pub overridden: bool,
    /// Other operand of the product; `None` if it cannot be used for calibration.
    pub data: Option<Data>,
    /// Nodes that read the weight, as graph or function and node index.
    pub readers: Vec<(BodyId, usize)>,
    /// Whether a caller of the model may give the weight another value ([`Constant::overridable`]).
    pub overridable: bool,
}

impl Target<'_> {
    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.matrix.columns
    }

    /// Returns the number of zeros that `of` elements should have.
    pub fn zeros(&self, of: usize) -> usize {
        (self.sparsity * of as f64).round() as usize
    }
}

/// The weights to prune, and the nodes whose weights are unchanged.
pub struct Plan<'a> {
    /// Weights to prune.
    pub targets: Vec<Target<'a>>,
    /// Nodes whose weight is unchanged, with the reason.
    pub left: Vec<(BodyId, usize, NodeReport)>,
}

impl Plan<'_> {
    /// Returns the size of the elements of all targets in bytes.
    pub fn bytes(&self) -> u64 {
        self.targets.iter().map(|t| (t.elements() * t.matrix.width()) as u64).sum()
    }
}

/// A weight with all nodes that use it.
struct Found<'a> {
    constant: Constant<'a>,
    layout: Layout,
    data: Option<Data>,
    readers: Vec<(BodyId, usize)>,
    /// Whether a `Gather` reads the weight (an embedding table).
    table: bool,
    /// Whether the weight is pruned only if a target names it (recurrent weights).
    only_if_named: bool,
    /// Whether the call of the enclosing function sets an attribute of a node that uses the weight.
    refers: bool,
    /// All names by which options can select the weight.
    names: Vec<String>,
    module: String,
}

/// Returns the weights to prune, and the reasons why all other weights of the model stay unchanged. Fails with
/// `InvalidArgument` if a target or override matches no weight.
pub fn plan<'a>(view: &View<'a>, options: &PruneOptions) -> Result<Plan<'a>> {
    let mut globs = Globs {
        targets: Selector::new(&options.target_modules, Fit::Parts)?.0,
        exclude: Selector::new(&options.exclude, Fit::Parts)?.0,
        overrides: options
            .overrides
            .iter()
            .map(|o| Ok((Pattern::new(&o.pattern, Fit::Parts)?, o.sparsity)))
            .collect::<Result<_>>()?,
    };
    let (found, mut left) = find(view);
    for (.., names, _) in &left {
        globs.targets.iter_mut().for_each(|glob| _ = glob.matches(names));
    }
    let mut plan = Plan { targets: Vec::new(), left: Vec::new() };
    for weight in &found {
        match judge(weight, &mut globs, options) {
            Ok(target) => plan.targets.push(target),
            Err(reason) => {
                left.extend(weight.readers.iter().map(|&(b, n)| (b, n, weight.names.clone(), reason.clone())))
            }
        }
    }
    let unused = globs.targets.iter().chain(globs.overrides.iter().map(|(glob, _)| glob)).find(|glob| !glob.used);
    if let Some(glob) = unused {
        bail!(InvalidArgument, "no weight matches {:?}; {}", glob.text, list(&found));
    }
    plan.left = left.into_iter().map(|(b, n, _, reason)| (b, n, report_of(view.node(b, n), LEFT, reason))).collect();
    Ok(plan)
}

/// A node whose weight is unchanged because of its kind: its place, its names and the reason.
type Left = (BodyId, usize, Vec<String>, String);

/// Returns the weights of a model in the order of their first nodes, and the nodes without a usable weight.
fn find<'a>(view: &View<'a>) -> (Vec<Found<'a>>, Vec<Left>) {
    let mut found: Vec<Found<'a>> = Vec::new();
    let mut by_place: HashMap<(BodyId, &str), usize> = HashMap::new();
    let mut left = Vec::new();
    for (body, content) in view.bodies.iter().enumerate() {
        for (index, node) in content.nodes.iter().enumerate() {
            if has_quantized_weights(node) {
                let constant = node.input.iter().find_map(|name| modules::weight(view, body, name));
                let names = names_of(view, body, index, constant.map_or("", |c| c.name));
                left.push((body, index, names, "is already quantized".to_owned()));
            }
            let slots = slots(node);
            let constant = |slot: &usize| node.input_at(*slot).and_then(|name| view.constant_or_default(body, name));
            // Users do not expect a report entry for a `Gather` of values that are not a weight.
            if node.op() != "Gather"
                && slots.iter().all(|slot| constant(slot).is_none())
                && let Some(name) = slots.first().and_then(|slot| node.input_at(*slot))
                && let Some(reason) = view.origin(body, name).why_left()
            {
                left.push((body, index, names_of(view, body, index, ""), reason));
            }
            for slot in slots {
                // Scales, zero points and offsets are parts of a block-quantized weight, which is left as a whole.
                let weight = constant(slot).filter(|found| !belongs_to_blocks(view, found.owner, found.name));
                let Some(constant) = weight else { continue };
                let Some((layout, data)) = layout(node, *slot, &constant, body) else { continue };
                let names = names_of(view, body, index, constant.name);
                let module = modules::module(view, body, index, constant.name);
                let table = node.op() == "Gather";
                let place = *by_place.entry((constant.owner, constant.name)).or_insert_with(|| {
                    let only_if_named = matches!(node.op(), "LSTM" | "GRU" | "RNN");
                    let module = module.unwrap_or_else(|| node.label().to_owned());
                    found.push(Found {
                        constant,
                        layout,
                        data: None,
                        readers: Vec::new(),
                        table,
                        only_if_named,
                        refers: false,
                        names: vec![],
                        module,
                    });
                    found.len() - 1
                });
                let weight = &mut found[place];
                if weight.data.is_none() && !table {
                    // If several products read the weight, the first determines the layout; tables have only one
                    // layout.
                    (weight.layout, weight.data) = (layout, data);
                }
                weight.table |= table;
                weight.refers |= node.refers();
                weight.readers.push((body, index));
                weight.names.extend(names);
            }
        }
    }
    (found, left)
}

/// Returns the inputs of a node that can be weights. For a product of two constants it is the right operand.
fn slots(node: &NodeProto) -> &'static [usize] {
    match (node.op(), node.domain.as_deref()) {
        ("MatMul" | "Gemm" | "FusedMatMul", _) => &[1, 0],
        ("Conv" | "ConvTranspose", _) | ("Attention", Some("com.microsoft")) => &[1],
        ("LSTM" | "GRU" | "RNN", _) => &[1, 2],
        ("Gather", _) => &[0],
        _ => &[],
    }
}

/// Returns the layout of a weight and the other operand; `None` if the input is not a weight.
fn layout(node: &NodeProto, slot: usize, constant: &Constant<'_>, body: BodyId) -> Option<(Layout, Option<Data>)> {
    let dims: Vec<usize> = constant.tensor.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
    let (&last, front) = dims.split_last()?;
    let (&before, batch) = front.split_last()?;
    let batch: usize = batch.iter().product();
    let by_row = Layout { outer: batch * before, inputs: last, inner: 1 };
    let by_column = Layout { outer: batch, inputs: before, inner: last };
    let data = |channels: bool| {
        let value = node.input_at(0).filter(|_| slot == 1 && body == 0)?.to_owned();
        Some(Data { value, channels })
    };
    let matrix = dims.len() == 2;
    Some(match node.op() {
        "Conv" => {
            let layout = Layout { outer: dims[0], inputs: dims[1], inner: dims[2..].iter().product() };
            (layout, data(true).filter(|_| node.int("group", 1) == 1))
        }
        "ConvTranspose" => (Layout { outer: 1, inputs: dims[0], inner: dims[1..].iter().product() }, None),
        "LSTM" | "GRU" | "RNN" => (by_row, None),
        "Gather" if !matrix || constant.transposed || !is_float(constant.tensor) => return None,
        "Gather" => (by_row, None),
        _ => {
            let attribute = if slot == 0 { "transA" } else { "transB" };
            // The inputs of a right operand are its rows, those of a left operand its columns, unless the operand is
            // transposed.
            let transposed = constant.transposed != (node.int(attribute, 0) != 0);
            let known = matrix && node.int("transA", 0) == 0;
            (if transposed == (slot == 1) { by_row } else { by_column }, data(false).filter(|_| known))
        }
    })
}

fn is_float(tensor: &TensorProto) -> bool {
    tensor.dtype().is_some_and(DataType::is_float)
}

/// Returns the weight as a target with its sparsity, or the reason why it is unchanged.
fn judge<'a>(found: &Found<'a>, globs: &mut Globs, options: &PruneOptions) -> std::result::Result<Target<'a>, String> {
    let mut named = None;
    for glob in globs.targets.iter_mut() {
        if glob.matches(&found.names) {
            named = Some(named.unwrap_or(false) | glob.is_plain());
        }
    }
    let sparsity = globs.overrides.iter_mut().fold(None, |chosen, (glob, sparsity)| {
        let matches = glob.matches(&found.names);
        chosen.or(matches.then_some(*sparsity))
    });
    if named.is_none() && !options.target_modules.is_empty() {
        return Err("is not a target".to_owned());
    }
    if globs.exclude.iter_mut().any(|glob| glob.matches(&found.names)) {
        return Err("excluded".to_owned());
    }
    // A table that is named without a wildcard is meant to be pruned.
    if found.table && !options.embeddings && named != Some(true) {
        return Err("embedding tables are pruned only with `embeddings`".to_owned());
    }
    if found.only_if_named && named.is_none() {
        return Err("recurrent weights are pruned only if they are named".to_owned());
    }
    if found.refers && options.pattern.is_some() {
        return Err("its layout depends on the call of the enclosing function".to_owned());
    }
    let elements = found.layout.outputs() * found.layout.inputs;
    if (elements as u64) < options.min_elements.max(1) {
        return Err(format!("the weight has only {elements} elements"));
    }
    let matrix = Matrix::shaped(found.constant.tensor, 1, elements as i64).map_err(|e| e.message().to_owned())?;
    let usual = options.pattern.map_or(options.sparsity, |pattern| pattern.sparsity());
    let target = Target {
        tensor: found.constant.tensor,
        matrix,
        owner: found.constant.owner,
        name: found.constant.name.to_owned(),
        module: found.module.clone(),
        layout: found.layout,
        sparsity: sparsity.unwrap_or(usual),
        overridden: sparsity.is_some(),
        data: found.data.as_ref().map(|d| Data { value: d.value.clone(), channels: d.channels }),
        readers: found.readers.clone(),
        overridable: found.constant.overridable,
    };
    let to_prune = if options.pattern.is_some() { target.sparsity > 0.0 } else { target.zeros(elements) > 0 };
    match to_prune {
        true => Ok(target),
        false if target.sparsity == 0.0 => Err("its requested sparsity is 0".to_owned()),
        false => Err(format!("sparsity {} of {elements} weights rounds to none", target.sparsity)),
    }
}

struct Globs {
    targets: Vec<Pattern>,
    exclude: Vec<Pattern>,
    overrides: Vec<(Pattern, f64)>,
}

/// Returns the names of the modules, at most 24, for the message about a name that matches nothing.
fn list(found: &[Found<'_>]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    found.iter().for_each(|weight| *counts.entry(&weight.module).or_default() += 1);
    if counts.is_empty() {
        return "the model has no weights to prune".to_owned();
    }
    let rest = counts.len().saturating_sub(24);
    let shown: Vec<String> = counts.iter().take(24).map(|(name, count)| format!("{name} ({count})")).collect();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("there are {}{more}", shown.join(", "))
}

/// Returns the reasons why weights are unchanged, with their counts, most frequent first.
pub fn reasons(nodes: &[NodeReport]) -> String {
    match count_reasons(nodes.iter().filter(|node| node.action != PRUNED)) {
        none if none.is_empty() => "the model has no MatMul, Gemm or Conv with a constant weight".to_owned(),
        reasons => reasons,
    }
}
