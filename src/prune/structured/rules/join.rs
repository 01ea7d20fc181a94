//! Rules for concatenating and splitting values.

use super::super::analysis::{Analysis, Follow, Judged, Value, axis_at};
use super::super::axes::{Axis, AxisId, Dim, Int, Reason, UNKNOWN, is_fixed};
use super::elementwise::meet;
use super::numbers;
use crate::onnx::proto::NodeProto;

/// Rule for `Concat`: elements along its axis are those of the inputs one after another; all other axes are linked.
pub fn concat<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let mut inputs = Vec::with_capacity(node.input.len());
    for index in 0..node.input.len() {
        inputs.push(cx.input(node, index)?.clone());
    }
    let first = inputs.first().ok_or("it lacks an input")?.clone();
    let at = axis_at(node.int("axis", 1), first.rank())?;
    if inputs.iter().any(|v| v.rank() != first.rank()) {
        return Err("the shapes of its inputs do not match");
    }
    let (mut dims, mut axes) = (first.dims.clone(), first.axes.clone());
    for value in &inputs[1..] {
        for place in (0..first.rank()).filter(|place| *place != at) {
            (dims[place], axes[place]) = meet(cx, (dims[place], axes[place]), (value.dims[place], value.axes[place]))?;
        }
    }
    dims[at] = inputs.iter().fold([0, 0], |sum, v| [sum[0] + v.dims[at][0], sum[1] + v.dims[at][1]]);
    axes[at] = cx.axes.add(dims[at], Some(cx.at));
    join(cx, axes[at], &inputs, at);
    cx.set(node, 0, dims, axes);
    cx.set_ints(node, numbers::joined(&inputs, at));
    Ok(())
}

/// Joins the elements of an axis with those of its parts along dimension `at`.
fn join(cx: &mut Analysis<'_>, whole: Axis, parts: &[Value<'_>], at: usize) {
    let mut start = 0;
    for part in parts {
        let size = part.dims[at][0] as usize;
        match (whole, part.axes[at]) {
            (Axis::Units(whole), Axis::Units(id)) => (0..size).for_each(|i| cx.axes.join((whole, start + i), (id, i))),
            (Axis::Units(whole), Axis::Fixed(why)) => {
                (0..size).for_each(|i| cx.axes.block_element(whole, start + i, why));
            }
            (Axis::Fixed(why), axis) => cx.axes.block(axis, why),
        }
        start += size;
    }
}

/// Returns a new axis for the range of an axis that begins at `start`, joined with its elements.
fn part_of(cx: &mut Analysis<'_>, whole: Axis, start: usize, dim: Dim) -> Axis {
    let Axis::Units(id) = whole else { return whole };
    let part = cx.axes.add(dim, Some(cx.at));
    match part {
        Axis::Units(part) => (0..dim[0] as usize).for_each(|i| cx.axes.join((id, start + i), (part, i))),
        Axis::Fixed(why) => (0..dim[0] as usize).for_each(|i| cx.axes.block_element(id, start + i, why)),
    }
    part
}

/// Rule for `Split`, which divides one axis.
pub fn split<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    let x = cx.input(node, 0)?.clone();
    let at = axis_at(node.int("axis", 0), x.rank())?;
    let count = node.output.len();
    let given = cx.list(node, "split", 1)?;
    let sizes: Vec<Dim> = match &given {
        Some(list) if list.len() == count => list.iter().map(|i| i.values).collect(),
        Some(_) => return Err("its sizes do not match"),
        None => equal(x.dims[at], count as i64),
    };
    let whole = if sizes.iter().all(|d| is_fixed(*d)) && is_fixed(x.dims[at]) {
        let sum: i64 = sizes.iter().map(|d| d[0].max(0)).sum();
        if sum != x.dims[at][0] || sizes.iter().any(|d| d[0] < 0) {
            return Err("its sizes do not match");
        }
        x.axes[at]
    } else {
        cx.block(x.axes[at], "it splits this axis at variable positions");
        cx.fixed("it splits this axis at variable positions")
    };
    let mut start = 0;
    let mut parts = Vec::with_capacity(count);
    for (index, dim) in sizes.iter().enumerate() {
        let (mut dims, mut axes) = (x.dims.clone(), x.axes.clone());
        dims[at] = *dim;
        axes[at] = part_of(cx, whole, start, *dim);
        parts.push(axes[at]);
        start += dim[0].max(0) as usize;
        cx.set(node, index, dims, axes);
    }
    follow_split(cx, node, whole, &parts, given);
    Ok(())
}

/// Returns the sizes of `count` equal parts, of which the last may be smaller.
fn equal(dim: Dim, count: i64) -> Vec<Dim> {
    let each = dim.map(|size| size.div_euclid(count) + i64::from(size.rem_euclid(count) != 0));
    let of = |i: i64| [0, 1].map(|side| each[side].min(dim[side] - each[side] * i).max(0));
    (0..count).map(of).collect()
}

fn follow_split<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, whole: Axis, parts: &[Axis], given: Option<Vec<Int>>) {
    if matches!(whole, Axis::Fixed(_)) {
        return;
    }
    let ids: Vec<Option<AxisId>> =
        parts.iter().map(|axis| if let Axis::Units(id) = axis { Some(*id) } else { None }).collect();
    match given {
        Some(_) if node.attribute("split").is_some() => {
            cx.follows.push(Follow::List { node: cx.at, name: "split", axes: ids });
        }
        Some(ints) => cx.follows.push(Follow::Sizes { node: cx.at, input: 1, ints, axes: ids }),
        None => match ids.into_iter().collect::<Option<Vec<_>>>() {
            Some(axes) => cx.follows.push(Follow::EqualSplit { node: cx.at, axes }),
            None => cx.block(whole, "it splits this axis into single elements"),
        },
    }
}

/// The starts, ends, axes and steps of a `Slice`.
struct Ranges {
    starts: Vec<Int>,
    ends: Vec<Int>,
    axes: Vec<usize>,
    steps: Vec<i64>,
}

impl Ranges {
    fn of<'m>(cx: &Analysis<'m>, node: &'m NodeProto, rank: usize) -> Judged<Ranges> {
        let starts = cx.list(node, "starts", 1)?.ok_or("its range is not known")?;
        let ends = cx.list(node, "ends", 2)?.ok_or("its range is not known")?;
        let axes: Vec<usize> = match cx.fixed_list(node, "axes", 3)? {
            Some(axes) => axes.iter().map(|axis| axis_at(*axis, rank)).collect::<Judged<_>>()?,
            None => (0..starts.len()).collect(),
        };
        let steps = cx.fixed_list(node, "steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()].iter().any(|n| *n != starts.len()) || axes.iter().any(|a| *a >= rank) {
            return Err("its range is not valid");
        }
        Ok(Ranges { starts, ends, axes, steps })
    }
}

/// Rule for `Slice`, which selects ranges of axes.
pub fn slice<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto) -> Judged<()> {
    const TEXT: &str = "it takes a variable range of this axis, or every n-th element";
    let x = cx.input(node, 0)?.clone();
    let ranges = match Ranges::of(cx, node, x.rank()) {
        Ok(ranges) => ranges,
        Err(text) => return vague(cx, node, &x, text),
    };
    let (mut dims, mut axes) = (x.dims.clone(), x.axes.clone());
    let mut picked = x.ints.clone();
    let mut sorted = ranges.axes.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != ranges.axes.len() {
        return Err("its range is not valid");
    }
    for (place, &at) in ranges.axes.iter().enumerate() {
        let step = ranges.steps[place];
        let (starts, ends) = (ranges.starts[place].values, ranges.ends[place].values);
        let bounds = [0, 1].map(|side| bounds(x.dims[at][side], starts[side], ends[side], step));
        dims[at] = bounds.map(|(start, end)| count(start, end, step));
        // `picked` has already been sliced along the earlier axes.
        let mut left = dims.clone();
        left[at] = x.dims[at];
        picked = picked
            .filter(|_| bounds[0] == bounds[1])
            .and_then(|list| numbers::sliced(&left, at, &list, bounds[0], step));
        if dims[at] == x.dims[at] && step == 1 {
            // The slice takes the whole axis, and still does after a cut: an end that is too large has no effect.
            continue;
        }
        if !is_fixed(x.dims[at]) || bounds[0] != bounds[1] || step != 1 {
            cx.block(x.axes[at], TEXT);
            axes[at] = cx.fixed(TEXT);
            continue;
        }
        let (start, end) = (bounds[0].0 as usize, bounds[0].1 as usize);
        axes[at] = part_of(cx, x.axes[at], start, dims[at]);
        if let Axis::Units(axis) = x.axes[at] {
            cx.follows.push(Follow::Range { node: cx.at, at: place, axis, range: (start, end) });
        }
    }
    cx.set(node, 0, dims, axes);
    cx.set_ints(node, picked);
    Ok(())
}

/// Handles a slice whose ranges are unknown: the sizes of the sliced dimensions are unknown and their axes are blocked,
/// and the other axes are those of the input.
fn vague<'m>(cx: &mut Analysis<'m>, node: &'m NodeProto, x: &Value<'m>, text: &'static str) -> Judged<()> {
    let chosen = cx.fixed_list(node, "axes", 3)?.ok_or(text)?;
    let chosen: Vec<usize> = chosen.iter().map(|axis| axis_at(*axis, x.rank())).collect::<Judged<_>>()?;
    let (mut dims, mut axes) = (x.dims.clone(), x.axes.clone());
    for at in chosen {
        let reason: Reason = cx.reason(text);
        cx.axes.block(axes[at], reason);
        axes[at] = Axis::Fixed(reason);
        dims[at] = UNKNOWN;
    }
    cx.set(node, 0, dims, axes);
    Ok(())
}

fn bounds(size: i64, start: i64, end: i64, step: i64) -> (i64, i64) {
    let from_end = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    if step > 0 {
        (from_end(start).clamp(0, size), from_end(end).clamp(0, size))
    } else {
        (from_end(start).clamp(0, (size - 1).max(0)), from_end(end).clamp(-1, size - 1))
    }
}

fn count(start: i64, end: i64, step: i64) -> i64 {
    let room = end - start;
    match room.checked_div(step) {
        Some(whole) => (whole + i64::from(room % step != 0)).max(0),
        None => 0,
    }
}
