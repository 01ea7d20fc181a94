//! Units (sets of elements that can only be removed together), and groups of units with elements in the same axes.

use super::analysis::Analysis;
use super::axes::{AxisId, Reason};
use std::collections::{BTreeMap, HashMap};

/// The elements of axes that are kept or removed together.
pub struct Unit {
    /// Id of the class of the elements.
    pub class: u32,
    /// Elements of the unit as axis and index, sorted.
    pub elements: Vec<(AxisId, u32)>,
}

/// The units with the same numbers of elements in the same axes, for example the neurons of a layer, the heads of an
/// attention or the channels of a stage.
pub struct Group {
    /// Units of the group, in the order of their elements.
    pub units: Vec<Unit>,
    /// Axes of the elements of the units.
    pub axes: Vec<AxisId>,
    /// Indices of the weights that produce the units, in [`Analysis::producers`].
    pub producers: Vec<usize>,
    /// Indices of the weights that sum over the units, in [`Analysis::consumers`].
    pub consumers: Vec<usize>,
}

/// The units that can be removed, and for each producer the reason why its other outputs cannot.
pub struct Groups {
    pub groups: Vec<Group>,
    /// First reason and number of the blocked elements, for each producer; `None` if no element is blocked.
    pub held: Vec<Option<(Reason, usize)>>,
}

/// Returns the units of a model, in groups.
pub fn find(analysis: &mut Analysis<'_>) -> Groups {
    let mut classes: BTreeMap<u32, Vec<(AxisId, u32)>> = BTreeMap::new();
    let mut held = Vec::with_capacity(analysis.producers.len());
    for producer in &analysis.producers {
        let (mut first, mut count) = (None, 0);
        for index in 0..analysis.axes.size(producer.axis) {
            let class = analysis.axes.class(producer.axis, index);
            match analysis.axes.reason(class) {
                Some(reason) => {
                    first = first.or(Some(reason));
                    count += 1;
                }
                None => {
                    classes.entry(class).or_default();
                }
            }
        }
        held.push(first.map(|reason| (reason, count)));
    }
    for axis in 0..analysis.axes.count() as AxisId {
        for index in 0..analysis.axes.size(axis) {
            if let Some(elements) = classes.get_mut(&analysis.axes.class(axis, index)) {
                elements.push((axis, index as u32));
            }
        }
    }
    let mut by_axes: HashMap<Vec<(AxisId, u32)>, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for (class, elements) in classes {
        let mut counts: Vec<(AxisId, u32)> = Vec::new();
        for (axis, _) in &elements {
            match counts.last_mut() {
                Some((last, count)) if last == axis => *count += 1,
                _ => counts.push((*axis, 1)),
            }
        }
        let next = groups.len();
        let axes = counts.iter().map(|(axis, _)| *axis).collect();
        let at = *by_axes.entry(counts).or_insert(next);
        if at == next {
            groups.push(Group { units: Vec::new(), axes, producers: Vec::new(), consumers: Vec::new() });
        }
        groups[at].units.push(Unit { class, elements });
    }
    for group in &mut groups {
        let touches = |axis: &AxisId| group.axes.binary_search(axis).is_ok();
        let producers = analysis.producers.iter().enumerate();
        group.producers = producers.filter(|(_, p)| touches(&p.axis)).map(|(i, _)| i).collect();
        let consumers = analysis.consumers.iter().enumerate();
        group.consumers = consumers.filter(|(_, c)| touches(&c.axis)).map(|(i, _)| i).collect();
    }
    Groups { groups, held }
}
