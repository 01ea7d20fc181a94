//! The sizes of the inputs of a model. A size is open if the model does not fix it; a run needs a number for each.
//!
//! Each place (an axis of an input) has a fixed size, an open size, or a size that is an expression of open ones.
//! Places with one meaningful name have one size; the name may be that of the model, of another model with the same
//! inputs, or of a range of a package's contract, which also bounds the size. Sizes that nothing determines are guessed
//! (`guess`).

mod guess;

use super::hints;
use crate::error::{Context, Error, Kind, Result, bail};
use crate::graph::View;
use crate::limits;
use crate::model::contract::{Contract, Range, Size};
use crate::model::expression::Expression;
use crate::model::names::meaningful;
use crate::model::{Dim, Model, ValueInfo};
use crate::onnx::dtype::element_count;
use std::collections::HashMap;

pub use guess::{TRIALS, Wanted};

/// The open sizes of a model's inputs.
#[derive(Debug, Clone, Default)]
pub struct Sizes {
    infos: Vec<ValueInfo>,
    /// Places (axes) of each input; `None` for inputs whose rank is not declared.
    places: Vec<Option<Vec<Place>>>,
    open: Vec<Open>,
    names: HashMap<String, usize>,
    /// Expressions whose value is given.
    given: Vec<(Expression, i64)>,
    /// Shapes of whole inputs that are given, by the index of the input.
    shapes: HashMap<usize, Vec<i64>>,
}

#[derive(Debug, Clone)]
enum Place {
    Fixed(i64),
    /// An open size, as its index in `Sizes::open`.
    Open(usize),
    Sum(Expression),
}

/// A size that the model leaves open.
#[derive(Debug, Clone)]
struct Open {
    /// Name of the size in the model; may be empty.
    name: String,
    /// Inputs and axes that have the size.
    at: Vec<(usize, usize)>,
    min: i64,
    max: Option<i64>,
    /// Name of the range in the contract that bounds the size.
    range: Option<String>,
    size: Option<i64>,
    /// Size that a constant of the graph requires.
    hint: Option<i64>,
}

impl Sizes {
    /// Returns the open sizes of a model, within the contract of its package, if any. The first guess
    /// of a size is the one that constants of the graph require.
    pub fn new(model: &Model) -> Sizes {
        let inputs = model.inputs();
        let mut sizes = Sizes::of(&inputs);
        let view = View::new(model.proto());
        for (input, info) in inputs.iter().enumerate() {
            let rank = info.shape.as_ref().map_or(0, Vec::len);
            for (axis, size) in hints::sizes_wanted(&view, &info.name, rank) {
                if let Some(Place::Open(open)) = sizes.place(input, axis) {
                    let open = *open;
                    sizes.open[open].hint.get_or_insert(size);
                }
            }
        }
        if let Some(contract) = &model.card().contract {
            sizes.within(contract);
        }
        sizes
    }

    /// Returns the open sizes of a signature alone, without a graph or a contract.
    pub fn of(infos: &[ValueInfo]) -> Sizes {
        let mut sizes = Sizes::default();
        for (input, info) in meaningful(infos).into_iter().enumerate() {
            let places = info.shape.as_ref().map(|dims| {
                let place = |(axis, dim): (usize, &Dim)| match dim {
                    Dim::Fixed(size) => Place::Fixed(*size),
                    Dim::Symbolic(name) => match Expression::parse(name) {
                        Some(sum) => {
                            for name in sum.names() {
                                sizes.named(name);
                            }
                            Place::Sum(sum)
                        }
                        None => Place::Open(sizes.occurrence(name, (input, axis))),
                    },
                };
                dims.iter().enumerate().map(place).collect()
            });
            sizes.places.push(places);
            sizes.infos.push(info);
        }
        sizes
    }

    /// Adds the requirements of another model with the same inputs: its fixed sizes, the bounds of its contract, and
    /// its equal names. Inputs are matched by name. A size that is known already is kept.
    pub fn and(&mut self, model: &Model) {
        for info in meaningful(&model.inputs()) {
            let Some(input) = self.infos.iter().position(|own| own.name == info.name) else { continue };
            for (axis, dim) in info.shape.iter().flatten().enumerate() {
                match (dim, self.place(input, axis)) {
                    (Dim::Fixed(size), Some(Place::Open(open))) => {
                        let open = *open;
                        self.open[open].size.get_or_insert(*size);
                    }
                    (Dim::Symbolic(name), Some(Place::Open(open))) if !name.is_empty() => {
                        let (open, other) = (*open, format!("\u{1}{name}"));
                        self.join(other, open);
                    }
                    _ => {}
                }
            }
        }
        if let Some(contract) = &model.card().contract {
            self.within(contract);
        }
    }

    /// Applies a contract: its fixed sizes are set unless they are known already, its ranges are bounds, and dimensions
    /// of one range have one size.
    pub fn within(&mut self, contract: &Contract) {
        for shape in &contract.inputs {
            let Some(input) = self.infos.iter().position(|info| info.name == shape.name) else { continue };
            for (axis, size) in shape.dims.iter().flatten().enumerate() {
                match size {
                    Size::Range(range) => self.limit(input, axis, range),
                    Size::Fixed(size) => match self.place(input, axis) {
                        Some(Place::Open(open)) => {
                            let open = *open;
                            self.open[open].size.get_or_insert(*size);
                        }
                        Some(Place::Sum(sum)) => {
                            let given = (sum.clone(), *size);
                            self.given.push(given);
                        }
                        _ => {}
                    },
                }
            }
        }
    }

    /// Limits the size of an axis of an input to a range, and gives it the same size as other axes of that range. An
    /// axis without an open size is unchanged.
    pub fn limit(&mut self, input: usize, axis: usize, range: &Range) {
        let Some(Place::Open(open)) = self.place(input, axis) else { return };
        let open = self.join(format!("\u{2}{}", range.name), *open);
        let open = &mut self.open[open];
        open.min = open.min.max(range.min);
        open.max = match (open.max, range.max) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        open.range = Some(range.name.clone());
    }

    /// Sets the size of all open dimensions of the contract's range `name`, for a run at one end of the range.
    pub fn set_range(&mut self, name: &str, size: i64) {
        let of = |open: &&mut Open| open.range.as_deref() == Some(name);
        self.open.iter_mut().filter(of).for_each(|open| open.size = Some(size));
    }

    /// Returns the size of the contract's range `name`, after [`Sizes::choose`]; `None` if no open dimension belongs to
    /// it.
    pub fn range_size(&self, name: &str) -> Option<i64> {
        self.open.iter().find(|open| open.range.as_deref() == Some(name) && !open.at.is_empty())?.size
    }

    fn place(&self, input: usize, axis: usize) -> Option<&Place> {
        self.places.get(input)?.as_ref()?.get(axis)
    }

    /// Returns the index of the open size `name`. Adds one if there is none of that name, or if the name is empty.
    fn named(&mut self, name: &str) -> usize {
        if let Some(open) = self.names.get(name).filter(|_| !name.is_empty()) {
            return *open;
        }
        let (size, hint, range, max) = (None, None, None, None);
        self.open.push(Open { name: name.to_owned(), at: Vec::new(), min: 0, max, range, size, hint });
        if !name.is_empty() {
            self.names.insert(name.to_owned(), self.open.len() - 1);
        }
        self.open.len() - 1
    }

    fn occurrence(&mut self, name: &str, at: (usize, usize)) -> usize {
        let open = self.named(name);
        self.open[open].at.push(at);
        open
    }

    /// Merges the open size with the index `open` into the one with the name `name`, if there is one, and returns the
    /// index of the result.
    fn join(&mut self, name: String, open: usize) -> usize {
        let kept = *self.names.entry(name).or_insert(open);
        if kept == open {
            return kept;
        }
        let gone = self.open[open].clone();
        for place in self.places.iter_mut().flatten().flatten() {
            if matches!(place, Place::Open(other) if *other == open) {
                *place = Place::Open(kept);
            }
        }
        self.names.values_mut().filter(|other| **other == open).for_each(|other| *other = kept);
        self.open[open].at.clear();
        let into = &mut self.open[kept];
        into.at.extend(gone.at);
        into.min = into.min.max(gone.min);
        into.max = match (into.max, gone.max) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        into.size = into.size.or(gone.size);
        into.hint = into.hint.or(gone.hint);
        into.range = into.range.take().or(gone.range);
        if into.name.is_empty() {
            into.name = gone.name;
        }
        kept
    }

    /// Returns the signature, in which dimensions with a known size are fixed.
    pub fn infos(&self) -> Vec<ValueInfo> {
        let one = |(input, info): (usize, &ValueInfo)| {
            let mut info = info.clone();
            for (axis, dim) in info.shape.iter_mut().flatten().enumerate() {
                if let (size, Some(most)) = self.bounds(input, axis)
                    && size == most
                {
                    *dim = Dim::Fixed(size);
                }
            }
            info
        };
        self.infos.iter().enumerate().map(one).collect()
    }

    /// Returns the minimum and the maximum size of an axis; the maximum is `None` if there is no limit. Expressions and
    /// unknown axes have the minimum 0 and no maximum.
    pub fn bounds(&self, input: usize, axis: usize) -> (i64, Option<i64>) {
        match self.place(input, axis) {
            Some(Place::Fixed(size)) => (*size, Some(*size)),
            Some(Place::Open(open)) => match &self.open[*open] {
                Open { size: Some(size), .. } => (*size, Some(*size)),
                Open { min, max, .. } => (*min, *max),
            },
            _ => (0, None),
        }
    }

    /// Sets the shape of an input, and the open sizes that follow from it. Fails with `InvalidArgument` if the shape
    /// does not match the signature or sizes that are known already, `LimitExceeded` if it has too many elements.
    pub fn bind(&mut self, input: usize, shape: &[i64]) -> Result<()> {
        let place = format!("input {:?}", self.infos[input].name);
        self.bind_inner(input, shape).at(|| place)
    }

    fn bind_inner(&mut self, input: usize, shape: &[i64]) -> Result<()> {
        checked(shape)?;
        self.shapes.insert(input, shape.to_vec());
        let info = self.infos[input].describe();
        let Some(places) = self.places[input].clone() else { return Ok(()) };
        if places.len() != shape.len() {
            bail!(InvalidArgument, "the shape {shape:?} does not fit {info}");
        }
        for (place, &size) in places.into_iter().zip(shape) {
            match place {
                Place::Fixed(fixed) if fixed != size => {
                    bail!(InvalidArgument, "the shape {shape:?} does not fit {info}")
                }
                Place::Fixed(_) => {}
                Place::Sum(sum) => self.given.push((sum, size)),
                Place::Open(open) => self.open[open].bind(size, shape)?,
            }
        }
        Ok(())
    }

    /// Determines every open size. Given sizes come first, then those that follow from given values of expressions.
    /// Every other size is the one that the graph requires, or else a guess, in both cases limited to its bounds.
    pub fn choose(&mut self, wanted: &Wanted<'_>) {
        let guesses: Vec<guess::Guess> = self.open.iter().map(|open| guess::of(open, &self.infos, wanted)).collect();
        let mut order: Vec<usize> = (0..self.open.len()).collect();
        // If a sum of sizes is given, the size that is set last is the rest of it. That should be a length: the others
        // are smaller and set first.
        order.sort_by_key(|index| match guesses[*index] {
            guess::Guess::Past => 0,
            guess::Guess::Batch => 1,
            guess::Guess::Hint(_) => 2,
            _ => 3,
        });
        self.solve();
        for index in order {
            if self.open[index].size.is_none() {
                let size = wanted.size(guesses[index]).min(self.room(index));
                self.open[index].size = Some(self.open[index].bounded(size));
                self.solve();
            }
        }
    }

    /// Returns the largest value of an open size that leaves a share for the other unknown names of every expression
    /// whose value is given.
    fn room(&self, index: usize) -> i64 {
        let unknown = |name: &&str| self.names.get(*name).is_some_and(|open| self.open[*open].size.is_none());
        let shares = self.given.iter().filter_map(|(sum, size)| {
            let names: Vec<&str> = sum.names().into_iter().filter(unknown).collect();
            let is_one = names.iter().any(|name| self.names.get(*name) == Some(&index));
            (is_one && names.len() > 1).then(|| size / names.len() as i64)
        });
        shares.min().unwrap_or(i64::MAX)
    }

    /// Determines the open sizes that follow from expressions whose value is given.
    fn solve(&mut self) {
        for alone in [true, false] {
            for (sum, size) in self.given.clone() {
                let known = |name: &str| self.open[*self.names.get(name)?].size;
                let missing: Vec<&str> = sum.names().into_iter().filter(|name| known(name).is_none()).collect();
                if let [name] = missing[..]
                    && let Some(found) = sum.solve(size, name, &known)
                    && (!alone || sum.is_only(size, name, found, &known))
                    && let Some(open) = self.names.get(name).map(|open| &mut self.open[*open])
                    && open.bounded(found) == found
                {
                    open.size = Some(found);
                }
            }
        }
    }

    /// Returns the shape of an input, after [`Sizes::choose`]. Fails with `InvalidArgument` if its rank is unknown,
    /// `Unsupported` if the input is not a tensor, and `LimitExceeded` if it has too many elements.
    pub fn shape(&self, input: usize) -> Result<Vec<i64>> {
        let info = &self.infos[input];
        if let Some(shape) = self.shapes.get(&input) {
            return Ok(shape.clone());
        }
        let Some(places) = &self.places[input] else {
            if info.dtype.is_none() {
                bail!(
                    Unsupported,
                    "the input {:?} is not a tensor but a sequence, a map or an optional value, which is not \
                     supported here",
                    info.name
                );
            }
            bail!(
                InvalidArgument,
                "the model does not declare the shape of the input {:?}: set it with the option `shapes`",
                info.name
            );
        };
        let of = |name: &str| self.open[*self.names.get(name)?].size;
        let size = |place: &Place| match place {
            Place::Fixed(size) => *size,
            Place::Open(open) => self.open[*open].size.unwrap_or(1),
            Place::Sum(sum) => sum.size(&of).unwrap_or(1),
        };
        let shape: Vec<i64> = places.iter().map(size).collect();
        checked(&shape).at(|| format!("input {:?}", info.name))?;
        Ok(shape)
    }

    /// Returns the names and the shapes of all inputs, after [`Sizes::choose`]. Fails like [`Sizes::shape`].
    pub fn all(&self) -> Result<Vec<(String, Vec<i64>)>> {
        let one = |(input, info): (usize, &ValueInfo)| Ok((info.name.clone(), self.shape(input)?));
        self.infos.iter().enumerate().map(one).collect()
    }

    /// Returns whether [`Sizes::choose`] has to guess a size: another guess may work if a model rejects the first one.
    pub fn is_open(&self) -> bool {
        self.open.iter().any(|open| open.size.is_none() && open.hint.is_none())
    }
}

impl Open {
    fn bounded(&self, size: i64) -> i64 {
        size.min(self.max.unwrap_or(i64::MAX)).max(self.min)
    }

    fn bind(&mut self, size: i64, shape: &[i64]) -> Result<()> {
        let name = &self.name;
        if let Some(known) = self.size.filter(|known| *known != size) {
            if name.is_empty() {
                bail!(InvalidArgument, "the shape {shape:?} has a dimension of {size} that must be {known}");
            }
            bail!(InvalidArgument, "the shape {shape:?} sets {name:?} to {size}; elsewhere it is {known}");
        }
        if size < self.min || self.max.is_some_and(|max| size > max) {
            let range = self.range.as_deref().unwrap_or(name);
            let most = self.max.map_or(" or more".to_owned(), |max| format!(" to {max}"));
            bail!(
                InvalidArgument,
                "the shape {shape:?} sets {range:?} to {size}; the package accepts {}{most}",
                self.min
            );
        }
        self.size = Some(size);
        Ok(())
    }
}

fn checked(shape: &[i64]) -> Result<()> {
    // `element_count` reports `InvalidModel`, because it also checks model files. This shape comes from the caller or
    // was guessed.
    let count = element_count(shape).map_err(|e| Error::new(Kind::InvalidArgument, e.message()))?;
    if count > limits::GENERATED_ELEMENTS {
        bail!(
            LimitExceeded,
            "the shape {shape:?} has {count} elements; the limit for generated inputs is {}",
            limits::GENERATED_ELEMENTS
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
