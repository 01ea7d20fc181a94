//! Notes on unexpected properties of a result.

use super::stored::{STORED_INT4, STORED_INT8};
use super::{Algorithm, QuantizeOptions, prepare};
use crate::graph::View;
use crate::model::Model;
use crate::report::NodeReport;
use std::collections::BTreeMap;

/// Returns a note on optional inputs of the original that were removed with their default values; `None` if there are
/// none.
pub fn gone(model: &Model, result: &Model) -> Option<String> {
    note(&optional(model, |name| !takes(result, name)), |names, plural| match plural {
        false => format!("the optional input {names} was removed: its default value is part of the result"),
        true => format!("{names} were removed: their default values are part of the result"),
    })
}

/// Returns a note on optional inputs that a result of static quantization kept, because the ranges of its activations
/// were observed with the default values of these inputs; `None` if there are none.
pub fn calibrated_with_defaults(model: &Model, result: &Model) -> Option<String> {
    note(&optional(model, |name| takes(result, name)), |names, plural| {
        let (input, value) = match plural {
            false => (format!("the optional input {names}"), "value"),
            true => (names.to_owned(), "values"),
        };
        format!(
            "ranges were calibrated with the default {value} of {input}: with other values, activations that leave \
             these ranges are clipped to them"
        )
    })
}

/// Returns a warning on tensors of a GGUF file that already had at most `requested` bits; `None` if there are none.
/// `bits` has the number of bits of each tensor.
pub fn coded_twice(bits: &[u32], requested: u32) -> Option<String> {
    let few = bits.iter().filter(|bits| **bits <= requested).count();
    (few > 0).then(|| {
        format!(
            "{few} of {} quantized tensors of the GGUF file have {requested} bits or fewer already and were quantized \
             a second time: quantizing the original checkpoint loses less",
            bits.len()
        )
    })
}

/// Returns a warning on weights that GPTQ or AWQ did not fit to the calibration data, because they are not read by a
/// matrix product that is quantized; `None` for other algorithms. Without an algorithm, a model that is `calibrated` is
/// quantized by GPTQ.
pub fn not_fitted(nodes: &[NodeReport], options: &QuantizeOptions, calibrated: bool) -> Option<String> {
    let name = match options.algorithm {
        Algorithm::Awq => options.algorithm.name(),
        _ if calibrated && prepare::is_sequential(options) => Algorithm::Gptq.name(),
        _ => return None,
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in nodes.iter().filter(|node| [STORED_INT8, STORED_INT4].contains(&node.action)) {
        *counts.entry(&node.op).or_default() += 1;
    }
    let text = counts.iter().map(|(op, count)| format!("{count} {op}")).collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then(|| {
        format!(
            "{name} fits only matrix products to the calibration data; other weights are rounded without it: {text}"
        )
    })
}

fn takes(model: &Model, name: &str) -> bool {
    model.graph().input.iter().any(|input| input.name.as_deref() == Some(name))
}

/// Returns the names of the optional inputs of a model for which `counts` is true.
fn optional(model: &Model, counts: impl Fn(&str) -> bool) -> Vec<&str> {
    let view = View::new(model.proto());
    let defaults = model.graph().initializer.iter().filter_map(|tensor| tensor.name.as_deref());
    defaults.filter(|name| view.is_optional_input(0, name) && counts(name)).collect()
}

/// Returns the note that `text` makes of a list of names; `None` if there are no names. The second argument of `text`
/// is whether there are several.
fn note(names: &[&str], text: impl Fn(&str, bool) -> String) -> Option<String> {
    match names {
        [] => None,
        [one] => Some(text(&format!("{one:?}"), false)),
        [first, ..] => Some(text(&format!("{} optional inputs, {first:?} the first,", names.len()), true)),
    }
}
