//! Axes and their elements, and the sets of elements that can only be removed together.
//!
//! An *open* size is dynamic: it depends on the inputs of a run. A *dimension* is computed for two different
//! assignments of sizes to the model's open dimensions: if both give the same size, it is fixed in the graph. An *axis*
//! of fixed size has elements. Elements that can only be removed together are in one class (disjoint sets). To *cut* an
//! axis is to remove elements of it. A class with an element that must be kept is blocked, with the reason why.

use crate::limits;
use std::collections::HashMap;
use std::sync::Arc;

/// The size of a dimension under two assignments of the open sizes.
pub type Dim = [i64; 2];

/// The size of a dimension that is unknown; no open dimension is assigned these sizes.
pub const UNKNOWN: Dim = [1009, 1013];

/// The id of an axis in [`Axes`].
pub type AxisId = u32;

/// Returns whether a size does not depend on the inputs of a run.
pub fn is_fixed(dim: Dim) -> bool {
    dim[0] == dim[1]
}

/// The reason why an axis or some of its elements cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason {
    /// Index of the node that is the reason; `None` for the model's own inputs and outputs.
    pub node: Option<u32>,
    /// Description of the reason.
    pub text: &'static str,
    /// Whether another node is the real cause, because the shape of its output, or of a value computed from it, is
    /// unknown.
    pub lost: bool,
}

impl Reason {
    /// Returns a reason with the index of a node, or with `None` for the model's own inputs and outputs.
    pub fn new(node: Option<u32>, text: &'static str) -> Reason {
        Reason { node, text, lost: false }
    }
}

/// An axis of a value, with its elements if they can be removed.
#[derive(Debug, Clone, Copy)]
pub enum Axis {
    /// An axis of which no element can be removed, with the reason.
    Fixed(Reason),
    /// An axis whose elements can be removed, with the id that identifies them.
    Units(AxisId),
}

const NONE: u32 = u32::MAX;

/// All axes with the classes of their elements.
#[derive(Default)]
pub struct Axes {
    /// First element and number of elements of each axis.
    spans: Vec<(u32, u32)>,
    parent: Vec<u32>,
    /// Index of the reason why a class must be kept, for the root of each class.
    blocked: Vec<u32>,
    reasons: Vec<Reason>,
    known: HashMap<Reason, u32>,
}

impl Axes {
    /// Adds an axis, with each element in a class of its own, and returns it. An axis whose size is open, below 2 or
    /// too large is fixed.
    pub fn add(&mut self, dim: Dim, node: Option<u32>) -> Axis {
        let fixed = |text| Axis::Fixed(Reason::new(node, text));
        if !is_fixed(dim) {
            return fixed("the size of the axis is not fixed");
        }
        if dim[0] < 2 {
            return fixed("the size of the axis is 1");
        }
        let first = self.parent.len();
        let Some(end) = usize::try_from(dim[0]).ok().and_then(|size| first.checked_add(size)) else {
            return fixed("the axis is too large");
        };
        if end > limits::PRUNED_ELEMENTS {
            return fixed("the axis is too large");
        }
        self.parent.extend(first as u32..end as u32);
        self.blocked.resize(end, NONE);
        self.spans.push((first as u32, dim[0] as u32));
        Axis::Units(self.spans.len() as AxisId - 1)
    }

    /// Returns the number of axes that have been added.
    pub fn count(&self) -> usize {
        self.spans.len()
    }

    /// Returns the number of elements of an axis.
    pub fn size(&self, axis: AxisId) -> usize {
        self.spans[axis as usize].1 as usize
    }

    /// Returns the class of an element. A class is identified by the smallest of its elements, which are numbered over
    /// all axes.
    pub fn class(&mut self, axis: AxisId, index: usize) -> u32 {
        let mut at = self.spans[axis as usize].0 + index as u32;
        while self.parent[at as usize] != at {
            let above = self.parent[self.parent[at as usize] as usize];
            self.parent[at as usize] = above;
            at = above;
        }
        at
    }

    /// Merges the classes of two elements.
    pub fn join(&mut self, a: (AxisId, usize), b: (AxisId, usize)) {
        let (a, b) = (self.class(a.0, a.1), self.class(b.0, b.1));
        if a != b {
            // The smaller index is the root, so that classes do not depend on the order of merging.
            let (root, child) = (a.min(b), a.max(b));
            self.parent[child as usize] = root;
            if self.blocked[root as usize] == NONE {
                self.blocked[root as usize] = self.blocked[child as usize];
            }
        }
    }

    /// Blocks an element, with its class, for a reason.
    pub fn block_element(&mut self, axis: AxisId, index: usize, reason: Reason) {
        let root = self.class(axis, index) as usize;
        if self.blocked[root] == NONE {
            let next = self.reasons.len() as u32;
            let number = *self.known.entry(reason).or_insert(next);
            if number == next {
                self.reasons.push(reason);
            }
            self.blocked[root] = number;
        }
    }

    /// Blocks all elements of an axis for a reason.
    pub fn block(&mut self, axis: Axis, reason: Reason) {
        if let Axis::Units(id) = axis {
            (0..self.size(id)).for_each(|index| self.block_element(id, index, reason));
        }
    }

    /// Returns the reason why a class must be kept; `None` if it may be removed.
    pub fn reason(&self, class: u32) -> Option<Reason> {
        self.reasons.get(self.blocked[class as usize] as usize).copied()
    }

    /// Links two axes, so that their elements are removed together, one by one, and returns the axis that represents
    /// both. If one is fixed, the other is blocked; axes of different sizes are both blocked for `reason`.
    pub fn link(&mut self, a: Axis, b: Axis, reason: Reason) -> Axis {
        match (a, b) {
            (Axis::Units(x), Axis::Units(y)) if x == y => a,
            (Axis::Units(x), Axis::Units(y)) if self.size(x) == self.size(y) => {
                (0..self.size(x)).for_each(|index| self.join((x, index), (y, index)));
                a
            }
            (Axis::Units(_), Axis::Units(_)) => {
                self.block(a, reason);
                self.block(b, reason);
                Axis::Fixed(reason)
            }
            (Axis::Units(_), Axis::Fixed(why)) => {
                self.block(a, why);
                b
            }
            (Axis::Fixed(why), Axis::Units(_)) => {
                self.block(b, why);
                a
            }
            (Axis::Fixed(_), Axis::Fixed(_)) => a,
        }
    }
}

/// The kept elements of each axis.
pub struct Kept {
    /// Kept elements of each axis; `None` for an axis of which all are kept.
    by_axis: Vec<Option<Vec<u32>>>,
}

impl Kept {
    /// Returns the elements that are kept of each axis if the classes for which `gone` is true are removed.
    pub fn new(axes: &mut Axes, gone: impl Fn(u32) -> bool) -> Kept {
        let mut by_axis = Vec::with_capacity(axes.count());
        for axis in 0..axes.count() as AxisId {
            let size = axes.size(axis);
            let kept: Vec<u32> = (0..size).filter(|i| !gone(axes.class(axis, *i))).map(|i| i as u32).collect();
            by_axis.push((kept.len() < size).then_some(kept));
        }
        Kept { by_axis }
    }

    /// Returns the kept elements of an axis; `None` if all are kept.
    pub fn of(&self, axis: Axis) -> Option<&[u32]> {
        match axis {
            Axis::Units(id) => self.by_axis[id as usize].as_deref(),
            Axis::Fixed(_) => None,
        }
    }

    /// Returns the number of kept elements of an axis; `None` if all are kept.
    pub fn size(&self, axis: AxisId) -> Option<i64> {
        self.by_axis[axis as usize].as_ref().map(|kept| kept.len() as i64)
    }
}

/// An integer that the graph computes, usually the size of a dimension, and how it depends on the sizes of axes.
#[derive(Clone)]
pub struct Int {
    /// The value under both assignments of the open sizes.
    pub values: Dim,
    from: From,
    /// Number of operations that compute the integer.
    steps: u32,
}

/// The maximum number of operations that compute an integer. Without a limit, n nodes that each compute `x + x` would
/// lead to 2^n operations.
const STEPS: u32 = 1000;

#[derive(Clone)]
enum From {
    /// A value that no cut changes.
    Constant,
    /// The size of an axis.
    Size(AxisId),
    /// A function of two other integers.
    Of(fn(i64, i64) -> i64, Arc<(Int, Int)>),
    /// The product of two other integers.
    Product(Arc<(Int, Int)>),
}

impl Int {
    /// Returns an integer that no cut changes: a constant, or the size of an open dimension.
    pub fn constant(values: Dim) -> Int {
        Int { values, from: From::Constant, steps: 1 }
    }

    /// Returns the size of a dimension as an integer.
    pub fn size(dim: Dim, axis: Axis) -> Int {
        match axis {
            Axis::Units(id) => Int { values: dim, from: From::Size(id), steps: 1 },
            Axis::Fixed(_) => Int::constant(dim),
        }
    }

    /// Returns a function of two integers; `None` if it takes more than [`STEPS`] operations.
    pub fn of(function: fn(i64, i64) -> i64, a: &Int, b: &Int) -> Option<Int> {
        let values = [function(a.values[0], b.values[0]), function(a.values[1], b.values[1])];
        let steps = a.steps.saturating_add(b.steps).saturating_add(1);
        match (&a.from, &b.from) {
            (From::Constant, From::Constant) => Some(Int::constant(values)),
            _ if steps > STEPS => None,
            _ => Some(Int { values, from: From::Of(function, Arc::new((a.clone(), b.clone()))), steps }),
        }
    }

    /// Returns the product of two integers; `None` if it takes more than [`STEPS`] operations.
    pub fn product(a: &Int, b: &Int) -> Option<Int> {
        let product = Int::of(|a, b| a.wrapping_mul(b), a, b)?;
        Some(match product.from {
            From::Of(_, parts) => Int { from: From::Product(parts), ..product },
            _ => product,
        })
    }

    /// Returns the product of those factors that depend on axes, first with the current sizes, then with those that
    /// `size` returns. Returns `None` if the integer is neither a product nor a size nor a constant, or if a product
    /// overflows.
    pub fn factors(&self, size: &dyn Fn(AxisId) -> Option<i64>) -> Option<(i64, i64)> {
        match &self.from {
            From::Constant => Some((1, 1)),
            From::Size(axis) => Some((self.values[0], size(*axis).unwrap_or(self.values[0]))),
            From::Of(..) => None,
            From::Product(parts) => {
                let (a, b) = (parts.0.factors(size)?, parts.1.factors(size)?);
                Some((a.0.checked_mul(b.0)?, a.1.checked_mul(b.1)?))
            }
        }
    }

    /// Returns whether the integer depends on the size of an axis that might be cut.
    pub fn follows(&self) -> bool {
        !matches!(self.from, From::Constant)
    }

    /// Returns the value of the integer after the cut that `kept` describes, under both assignments.
    pub fn after(&self, kept: &Kept) -> Dim {
        self.with(&|axis| kept.size(axis))
    }

    /// Returns the value of the integer for other sizes of axes; where `size` returns `None`, the size is unchanged.
    fn with(&self, size: &dyn Fn(AxisId) -> Option<i64>) -> Dim {
        match &self.from {
            From::Constant => self.values,
            From::Size(axis) => size(*axis).map_or(self.values, |size| [size, size]),
            From::Of(function, parts) => {
                let (a, b) = (parts.0.with(size), parts.1.with(size));
                [function(a[0], b[0]), function(a[1], b[1])]
            }
            From::Product(parts) => {
                let (a, b) = (parts.0.with(size), parts.1.with(size));
                [a[0].wrapping_mul(b[0]), a[1].wrapping_mul(b[1])]
            }
        }
    }

    /// Returns the axes whose cut would change the integer. Four other sizes of each axis are tried, so an axis on
    /// which the integer depends may be missing.
    pub fn depends_on(&self, axes: &Axes) -> Vec<AxisId> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found.sort_unstable();
        found.dedup();
        let other = |axis: AxisId, size: i64| self.with(&|at| (at == axis).then_some(size)) != self.values;
        found.retain(|axis| {
            let size = axes.size(*axis) as i64;
            [size - 1, size / 2, size / 2 + 1, 1].iter().any(|size| other(*axis, *size))
        });
        found
    }

    fn collect(&self, found: &mut Vec<AxisId>) {
        match &self.from {
            From::Constant => {}
            From::Size(axis) => found.push(*axis),
            From::Of(_, parts) | From::Product(parts) => {
                parts.0.collect(found);
                parts.1.collect(found);
            }
        }
    }
}
