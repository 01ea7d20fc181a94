//! Axes and their elements: which of them can only be removed together.
//!
//! A *dimension* is known as it would be for two different assignments of sizes to the model's open dimensions: it
//! is fixed in the graph if both agree. An *axis* of fixed size has elements; elements that must stay or go together
//! are in one class (disjoint sets), and a class one of whose elements must stay is blocked, with the first reason.

use crate::limits;
use std::collections::HashMap;
use std::sync::Arc;

/// A size under two assignments of the open sizes.
pub type Dim = [i64; 2];

/// A size that nothing says; no open size is chosen like this.
pub const UNKNOWN: Dim = [1009, 1013];

/// Number of an axis in [`Axes`].
pub type AxisId = u32;

/// Whether a size is the same whatever is fed.
pub fn is_fixed(dim: Dim) -> bool {
    dim[0] == dim[1]
}

/// Why something must stay: what the node with that index does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason {
    /// The node concerned; `None` for the model's own inputs and outputs.
    pub node: Option<u32>,
    /// In words.
    pub text: &'static str,
    /// The node did not do it itself: what it makes, or what is made of that, has a shape that is not known.
    pub lost: bool,
}

impl Reason {
    /// What the node with that index does; `None` for the model's own inputs and outputs.
    pub fn new(node: Option<u32>, text: &'static str) -> Reason {
        Reason { node, text, lost: false }
    }
}

/// An axis of a value.
#[derive(Debug, Clone, Copy)]
pub enum Axis {
    /// Nothing of it can be removed.
    Fixed(Reason),
    /// Its elements are followed.
    Units(AxisId),
}

const NONE: u32 = u32::MAX;

/// All axes with the classes of their elements.
#[derive(Default)]
pub struct Axes {
    /// First element and number of elements.
    spans: Vec<(u32, u32)>,
    parent: Vec<u32>,
    /// For the root of a class the index of the reason why it must stay.
    blocked: Vec<u32>,
    reasons: Vec<Reason>,
    known: HashMap<Reason, u32>,
}

impl Axes {
    /// A new axis, each element in a class of its own. Of sizes that are open, below 2 or beyond all reason nothing
    /// can be removed.
    pub fn add(&mut self, dim: Dim, node: Option<u32>) -> Axis {
        let fixed = |text| Axis::Fixed(Reason::new(node, text));
        if !is_fixed(dim) {
            return fixed("its size is not fixed");
        }
        if dim[0] < 2 {
            return fixed("its size is 1");
        }
        let first = self.parent.len();
        let Some(end) = usize::try_from(dim[0]).ok().and_then(|size| first.checked_add(size)) else {
            return fixed("it is too large");
        };
        if end > limits::PRUNED_ELEMENTS {
            return fixed("it is too large");
        }
        self.parent.extend(first as u32..end as u32);
        self.blocked.resize(end, NONE);
        self.spans.push((first as u32, dim[0] as u32));
        Axis::Units(self.spans.len() as AxisId - 1)
    }

    /// Number of axes.
    pub fn count(&self) -> usize {
        self.spans.len()
    }

    /// Number of elements of an axis.
    pub fn size(&self, axis: AxisId) -> usize {
        self.spans[axis as usize].1 as usize
    }

    /// The class of an element.
    pub fn class(&mut self, axis: AxisId, index: usize) -> u32 {
        let mut at = self.spans[axis as usize].0 + index as u32;
        while self.parent[at as usize] != at {
            let above = self.parent[self.parent[at as usize] as usize];
            self.parent[at as usize] = above;
            at = above;
        }
        at
    }

    /// Puts two elements into one class.
    pub fn join(&mut self, a: (AxisId, usize), b: (AxisId, usize)) {
        let (a, b) = (self.class(a.0, a.1), self.class(b.0, b.1));
        if a != b {
            // The smaller number is the root, so that classes do not depend on the order of joining.
            let (root, child) = (a.min(b), a.max(b));
            self.parent[child as usize] = root;
            if self.blocked[root as usize] == NONE {
                self.blocked[root as usize] = self.blocked[child as usize];
            }
        }
    }

    /// Says that an element must stay.
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

    /// Says that all of an axis must stay.
    pub fn block(&mut self, axis: Axis, reason: Reason) {
        if let Axis::Units(id) = axis {
            (0..self.size(id)).for_each(|index| self.block_element(id, index, reason));
        }
    }

    /// Why a class must stay; `None` if it may go.
    pub fn reason(&self, class: u32) -> Option<Reason> {
        self.reasons.get(self.blocked[class as usize] as usize).copied()
    }

    /// Two axes of one size whose elements go together one by one. Gives the one to go on with.
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

/// Which elements of each axis stay.
pub struct Kept {
    /// By axis; `None` if all of it stays.
    by_axis: Vec<Option<Vec<u32>>>,
}

impl Kept {
    /// What stays if the classes for which `gone` holds are removed.
    pub fn new(axes: &mut Axes, gone: impl Fn(u32) -> bool) -> Kept {
        let mut by_axis = Vec::with_capacity(axes.count());
        for axis in 0..axes.count() as AxisId {
            let size = axes.size(axis);
            let kept: Vec<u32> = (0..size).filter(|i| !gone(axes.class(axis, *i))).map(|i| i as u32).collect();
            by_axis.push((kept.len() < size).then_some(kept));
        }
        Kept { by_axis }
    }

    /// The elements of an axis that stay; `None` if all do.
    pub fn of(&self, axis: Axis) -> Option<&[u32]> {
        match axis {
            Axis::Units(id) => self.by_axis[id as usize].as_deref(),
            Axis::Fixed(_) => None,
        }
    }

    /// How many elements of an axis stay, if not all do.
    pub fn size(&self, axis: AxisId) -> Option<i64> {
        self.by_axis[axis as usize].as_ref().map(|kept| kept.len() as i64)
    }
}

/// A whole number that a graph computes with, mostly a size.
#[derive(Clone)]
pub struct Int {
    /// Its value under both assignments.
    pub lanes: Dim,
    from: From,
    /// Steps to compute it again.
    steps: u32,
}

/// Steps after which a number is given up: a chain of `x + x` takes 2^n of them.
const STEPS: u32 = 1000;

#[derive(Clone)]
enum From {
    /// Nothing that could change.
    Constant,
    /// The size of an axis.
    Size(AxisId),
    /// A function of two others.
    Of(fn(i64, i64) -> i64, Arc<(Int, Int)>),
    /// The product of two others.
    Product(Arc<(Int, Int)>),
}

impl Int {
    /// A constant, or a size that is open.
    pub fn constant(lanes: Dim) -> Int {
        Int { lanes, from: From::Constant, steps: 1 }
    }

    /// The size of a dimension.
    pub fn size(dim: Dim, axis: Axis) -> Int {
        match axis {
            Axis::Units(id) => Int { lanes: dim, from: From::Size(id), steps: 1 },
            Axis::Fixed(_) => Int::constant(dim),
        }
    }

    /// A function of two numbers; `None` if it takes too many steps.
    pub fn of(function: fn(i64, i64) -> i64, a: &Int, b: &Int) -> Option<Int> {
        let lanes = [function(a.lanes[0], b.lanes[0]), function(a.lanes[1], b.lanes[1])];
        let steps = a.steps.saturating_add(b.steps).saturating_add(1);
        match (&a.from, &b.from) {
            (From::Constant, From::Constant) => Some(Int::constant(lanes)),
            _ if steps > STEPS => None,
            _ => Some(Int { lanes, from: From::Of(function, Arc::new((a.clone(), b.clone()))), steps }),
        }
    }

    /// The product of two numbers; `None` if it takes too many steps.
    pub fn product(a: &Int, b: &Int) -> Option<Int> {
        let product = Int::of(|a, b| a.wrapping_mul(b), a, b)?;
        Some(match product.from {
            From::Of(_, parts) => Int { from: From::Product(parts), ..product },
            _ => product,
        })
    }

    /// Of a product: those of its factors that follow axes, as they are and with other sizes. `None` if it is no product.
    pub fn factors(&self, size: &dyn Fn(AxisId) -> Option<i64>) -> Option<(i64, i64)> {
        match &self.from {
            From::Constant => Some((1, 1)),
            From::Size(axis) => Some((self.lanes[0], size(*axis).unwrap_or(self.lanes[0]))),
            From::Of(..) => None,
            From::Product(parts) => {
                let (a, b) = (parts.0.factors(size)?, parts.1.factors(size)?);
                Some((a.0.checked_mul(b.0)?, a.1.checked_mul(b.1)?))
            }
        }
    }

    /// Whether it depends on the size of an axis that might be cut.
    pub fn follows(&self) -> bool {
        !matches!(self.from, From::Constant)
    }

    /// Its value once the model has been cut.
    pub fn after(&self, kept: &Kept) -> Dim {
        self.with(&|axis| kept.size(axis))
    }

    /// Its value where axes have other sizes; `None` leaves one as it is.
    fn with(&self, size: &dyn Fn(AxisId) -> Option<i64>) -> Dim {
        match &self.from {
            From::Constant => self.lanes,
            From::Size(axis) => size(*axis).map_or(self.lanes, |size| [size, size]),
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

    /// The axes without some of whose elements it would be another number, as far as a few trials show.
    pub fn hangs_on(&self, axes: &Axes) -> Vec<AxisId> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found.sort_unstable();
        found.dedup();
        let other = |axis: AxisId, size: i64| self.with(&|at| (at == axis).then_some(size)) != self.lanes;
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
