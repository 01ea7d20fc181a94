//! Students that consist of some of the layers of their teacher.

use crate::call::Call;
use crate::error::{Error, Kind, Result, bail};
use crate::model::Model;
use crate::prune::{PruneMethod, PruneOptions, layer_numbers, prune};
use std::str::FromStr;

/// The layers of the teacher that the student starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StudentLayers {
    /// The first layer, the third, the fifth … (Sanh et al. 2019, arXiv 1910.01108).
    EveryOther,
    /// This number of layers, evenly spread, including the first.
    Count(usize),
}

/// The prefix of a text that selects layers of the teacher in place of a student: `layers:6`.
pub const PREFIX: &str = "layers:";

impl FromStr for StudentLayers {
    type Err = Error;

    /// Returns the layers that `layers:every-other` or a text like `layers:6` selects. Fails with `InvalidArgument` for
    /// other texts.
    fn from_str(text: &str) -> Result<StudentLayers> {
        match text.strip_prefix(PREFIX) {
            Some("every-other") => Ok(StudentLayers::EveryOther),
            Some(count) if count.parse::<usize>().is_ok_and(|count| count > 0) => {
                Ok(StudentLayers::Count(count.parse().unwrap_or(1)))
            }
            _ => Err(Error::new(
                Kind::InvalidArgument,
                format!("{text:?} is not a student: use {PREFIX}every-other, or {PREFIX} and the number of layers"),
            )),
        }
    }
}

/// Returns the teacher with only the selected layers, with unchanged weights. Fails with `Unsupported` if the layers of
/// the teacher cannot be distinguished or removed, and with `InvalidArgument` if no layers, or more than the teacher
/// has, are selected.
pub fn student_of(teacher: &Model, layers: StudentLayers, call: &Call) -> Result<Model> {
    let numbers = layer_numbers(teacher)?;
    let count = match layers {
        StudentLayers::EveryOther => numbers.len().div_ceil(2),
        StudentLayers::Count(count) => count,
    };
    if count == 0 || count > numbers.len() {
        bail!(InvalidArgument, "a student of {count} layers cannot be cut from a teacher of {}", numbers.len());
    }
    if count == numbers.len() {
        return Ok(teacher.clone());
    }
    let kept: Vec<usize> = (0..count).map(|index| index * numbers.len() / count).collect();
    let gone = numbers.iter().enumerate().filter(|(index, _)| !kept.contains(index)).map(|(_, number)| *number);
    let options = PruneOptions {
        method: PruneMethod::Structured,
        sparsity: 0.0,
        layers: gone.collect(),
        ..PruneOptions::default()
    };
    Ok(prune(teacher, &options, call)?.0)
}
