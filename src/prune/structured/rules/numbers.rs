//! Operations on small lists of integers that are the elements of a tensor, in row-major order.

use super::super::analysis::Value;
use super::super::axes::{Dim, Int, is_fixed};
use super::super::sizes::INTS;

/// Returns the number of elements of a tensor with dimensions `dims`, if it does not depend on the inputs of a run and
/// is small.
pub fn count(dims: &[Dim]) -> Option<usize> {
    let mut count = 1usize;
    for dim in dims {
        let size = usize::try_from(dim[0]).ok().filter(|_| is_fixed(*dim))?;
        count = count.checked_mul(size).filter(|count| *count <= INTS)?;
    }
    Some(count)
}

/// Returns the concatenation of the lists of `parts` along dimension `at`; `None` if one is unknown, or the result is
/// not small.
pub fn joined(parts: &[Value<'_>], at: usize) -> Option<Vec<Int>> {
    let lists: Vec<&Vec<Int>> = parts.iter().map(|part| part.ints.as_ref()).collect::<Option<_>>()?;
    let inner: Vec<usize> = parts.iter().map(|part| count(&part.dims[at..])).collect::<Option<_>>()?;
    let mut all = Vec::new();
    for block in 0..count(&parts.first()?.dims[..at])? {
        for (list, inner) in lists.iter().zip(&inner) {
            all.extend_from_slice(list.get(block * inner..(block + 1) * inner)?);
        }
    }
    (all.len() <= INTS).then_some(all)
}

/// Returns every `step`-th element from `start` to before `end` along dimension `at`; `None` if a size is not fixed.
pub fn sliced(dims: &[Dim], at: usize, list: &[Int], (start, end): (i64, i64), step: i64) -> Option<Vec<Int>> {
    let (size, inner) = (count(&dims[at..=at])?, count(&dims[at + 1..])?);
    let mut picked = Vec::new();
    for block in 0..count(&dims[..at])? {
        let mut place = start;
        while step != 0 && if step > 0 { place < end } else { place > end } {
            let from = (block * size + usize::try_from(place).ok()?) * inner;
            picked.extend_from_slice(list.get(from..from + inner)?);
            place = place.checked_add(step)?;
        }
    }
    Some(picked)
}

/// Returns the list of a tensor after its dimensions are permuted; `None` if a size is not fixed.
pub fn transposed(dims: &[Dim], order: &[usize], list: &[Int]) -> Option<Vec<Int>> {
    let total = count(dims).filter(|total| *total == list.len())?;
    let sizes: Vec<usize> = dims.iter().map(|dim| dim[0] as usize).collect();
    let stride = |at: usize| sizes[at + 1..].iter().product::<usize>();
    let strides: Vec<usize> = (0..sizes.len()).map(stride).collect();
    let place = |index: usize| {
        let (mut rest, mut from) = (index, 0);
        for at in order.iter().rev() {
            from += rest % sizes[*at] * strides[*at];
            rest /= sizes[*at];
        }
        from
    };
    (0..total).map(|index| list.get(place(index)).cloned()).collect()
}
