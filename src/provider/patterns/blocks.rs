//! Products with block-quantized weights: `MatMulNBits`, and the offsets of blocks as this library writes them for GGUF
//! files.

use super::epilogue;
use super::linear::{Product, Weight, fits, whole};
use super::{Kind, Rules};
use crate::provider::graph::{Element, Graph, NodeId, ValueId};
use crate::provider::options::Precision;

/// Returns the product of a `MatMulNBits` node, with the nodes after it that add offsets, if there are any; `None` if
/// it cannot be claimed.
///
/// With `accuracy_level` 4, or if the session requests int8, the input of the product is quantized to int8; otherwise
/// the model requires float32.
pub fn find(graph: &Graph<'_>, rules: &Rules<'_>, node: NodeId) -> Option<Product> {
    if !rules.claims(Kind::Blocks) || graph.int(node, "weight_prepacked", 0) != 0 {
        return None;
    }
    let (k, n) = (graph.int(node, "K", 0), graph.int(node, "N", 0));
    let (bits, block) = (graph.int(node, "bits", 4), graph.int(node, "block_size", 0));
    let (x, codes, scales) = (graph.input(node, 0)?, graph.input(node, 1)?, graph.input(node, 2)?);
    let zero_points = graph.input(node, 3);
    let known_block = [16, 32, 64, 128, 256].contains(&block) && [4, 8].contains(&bits);
    let constant = |value: ValueId, element: Element| {
        graph.value(value).is_constant && graph.value(value).element == Some(element)
    };
    let constants = constant(codes, Element::Uint8)
        && constant(scales, Element::Float32)
        && zero_points.is_none_or(|zero_points| constant(zero_points, Element::Uint8));
    if !known_block || !constants || graph.input(node, 4).is_some() || !fits(graph, x, k, n) {
        return None;
    }
    let n = n as usize;
    let bias = match graph.input(node, 5) {
        Some(bias) => Some(epilogue::row(graph, bias, n)?),
        None => None,
    };
    let exact = graph.int(node, "accuracy_level", 0) != 4 && rules.precision != Precision::Int8;
    let (bits, block, sizes) = (bits as usize, block as usize, (k as usize, n));
    let weight = |offsets| Weight::Blocks { codes, scales, zero_points, offsets, bits, block, exact };
    let y = graph.output(node)?;
    let product = whole(node, x, weight(None), sizes, epilogue::follow(graph, y, n, bias));
    let Some(found) = Offsets::find(graph, x, y, (sizes, block)).filter(|_| bits == 4 && product.part.bias.is_none())
    else {
        return Some(product);
    };
    let mut fused = whole(node, x, weight(Some(found.offsets)), sizes, epilogue::follow(graph, found.y, n, None));
    fused.nodes.extend(found.nodes);
    fused.inside = found.inside;
    fused.without = Some(Box::new(product));
    Some(fused)
}

/// The nodes that add the offsets of blocks to a product: sums of the input over blocks, multiplied by a matrix of
/// offsets.
struct Offsets {
    nodes: Vec<NodeId>,
    /// Matrix of the offsets: blocks × N.
    offsets: ValueId,
    /// Sums of the input and the values that they are computed from; products with the same input share them.
    inside: Vec<ValueId>,
    y: ValueId,
}

impl Offsets {
    /// Returns the nodes that add offsets to `product`, whose input is `x` and whose weights have the sizes K and N and
    /// blocks of `block` values; `None` if there are none.
    fn find(graph: &Graph<'_>, x: ValueId, product: ValueId, ((k, n), block): ((usize, usize), usize)) -> Option<Self> {
        let add = graph.only_use_by(product, "Add")?;
        let correction = graph.other(add, product)?;
        let multiply = graph.made_by(correction, "MatMul").filter(|_| graph.only_use(correction) == Some(add))?;
        let (sums, offsets) = (graph.input(multiply, 0)?, graph.input(multiply, 1)?);
        let blocks = k / block;
        let shape = graph.shape_of(offsets, Element::Float32)?;
        if !k.is_multiple_of(block) || shape != [blocks as i64, n as i64] || !graph.value(offsets).is_constant {
            return None;
        }
        let reduce = graph.made_by(sums, "ReduceSum")?;
        let last = graph.constant(graph.input(reduce, 1)?)?.longs().ok()?;
        let grouped = graph.input(reduce, 0)?;
        let reshape = graph.made_by(grouped, "Reshape").filter(|reshape| graph.input(*reshape, 0) == Some(x))?;
        let sizes = graph.constant(graph.input(reshape, 1)?)?.longs().ok()?;
        let [0, 0, count, size] = sizes[..] else { return None };
        let of_last = graph.int(reduce, "keepdims", 1) == 0 && (*last == [-1] || *last == [3]);
        let rows = graph.value(x).shape.as_ref().is_some_and(|shape| shape.len() == 3);
        let plain = graph.int(reshape, "allowzero", 0) == 0 && (count, size) == (blocks as i64, block as i64);
        if !of_last || !rows || !plain {
            return None;
        }
        let nodes = vec![reshape, reduce, multiply, add];
        Some(Self { nodes, offsets, inside: vec![grouped, sums], y: graph.output(add)? })
    }
}
