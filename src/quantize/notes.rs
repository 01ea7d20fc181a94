//! Notes on unexpected properties of a result.

use crate::graph::View;
use crate::model::Model;

/// Returns a note on optional inputs of the original that were removed with their default values.
pub fn gone(model: &Model, result: &Model) -> Option<String> {
    let (view, graph) = (View::new(model.proto()), model.graph());
    let kept = |name: &str| result.graph().input.iter().any(|input| input.name.as_deref() == Some(name));
    let defaults = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref());
    let names: Vec<&str> = defaults.filter(|name| view.is_optional_input(0, name) && !kept(name)).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("the optional input {one:?} was removed: its default value is part of the result")),
        [first, ..] => Some(format!(
            "{} optional inputs were removed, {first:?} the first: their default values are part of the result",
            names.len()
        )),
    }
}
