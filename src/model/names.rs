//! The meaning of the names of dimensions. Dimensions with equal names have equal sizes, but many exporters write names
//! without meaning.

use super::{Dim, ValueInfo};
use crate::onnx::proto::ModelProto;
use std::borrow::Cow;
use std::collections::HashMap;

/// The words in dimension names that only say that the size is not fixed.
const OPEN: [&str; 9] = ["none", "null", "nil", "unk", "unknown", "undefined", "undef", "dynamic", "dynamicdimension"];
/// The words that may accompany those of [`OPEN`]: `p2o.DynamicDimension.3`, `dynamic_dim_0`, `unknown-size`.
const BESIDE: [&str; 9] = ["dim", "dims", "dimension", "axis", "axes", "size", "shape", "p", "o"];
/// The number of dimensions of one input that share a name from which on the name counts as one without meaning: no
/// known input has three equal dimensions.
const PLACES: usize = 3;

/// Returns whether a dimension name has no meaning: `?`, `-1`, `None`, `unk__12`, `DynamicDimension.0`. Two
/// dimensions with such a name need not have equal sizes.
pub fn says_nothing(name: &str) -> bool {
    let lower = name.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect();
    let is = |words: &[&str], word: &&str| words.contains(word);
    let open = words.iter().any(|word| is(&OPEN, word));
    words.is_empty() || (open && words.iter().all(|word| is(&OPEN, word) || is(&BESIDE, word)))
}

/// Returns the inputs or outputs with an empty name for every dimension whose name has no meaning: the names of
/// [`says_nothing`], and those that one input has in three dimensions or more.
pub fn meaningful(infos: &[ValueInfo]) -> Vec<ValueInfo> {
    let mut infos = infos.to_vec();
    let nothing: Vec<String> = infos.iter().flat_map(names_without_meaning).map(Cow::into_owned).collect();
    for dim in infos.iter_mut().filter_map(|info| info.shape.as_mut()).flatten() {
        if let Dim::Symbolic(name) = dim
            && nothing.contains(name)
        {
            name.clear();
        }
    }
    infos
}

/// Removes the dimension names without meaning (see [`meaningful`]) from the inputs, outputs and intermediate values of
/// a model's main graph, for readers that treat equal names as equal sizes.
pub fn clear(model: &mut ModelProto) {
    let Some(graph) = model.graph.as_deref_mut() else { return };
    let infos: Vec<ValueInfo> = graph.input.iter().map(ValueInfo::from).collect();
    let nothing: Vec<String> = infos.iter().flat_map(names_without_meaning).map(Cow::into_owned).collect();
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    let tensors = values.filter_map(|value| value.value_type.as_deref_mut()?.tensor_type.as_deref_mut());
    for dim in tensors.filter_map(|tensor| tensor.shape.as_deref_mut()).flat_map(|shape| &mut shape.dim) {
        let without = |name: &String| says_nothing(name) || nothing.contains(name);
        dim.dim_param.take_if(|name| without(name));
    }
}

fn names_without_meaning(info: &ValueInfo) -> Vec<Cow<'_, str>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    for dim in info.shape.iter().flatten() {
        if let Dim::Symbolic(name) = dim {
            *places.entry(name).or_default() += 1;
        }
    }
    let without = places.into_iter().filter(|(name, count)| *count >= PLACES || says_nothing(name));
    without.map(|(name, _)| Cow::Borrowed(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_nothing_are_known_and_others_are_kept() {
        let nothing = [
            "",
            "?",
            "-1",
            "None",
            "unk__12",
            "DynamicDimension.0",
            "p2o.DynamicDimension.3",
            "dynamic",
            "dynamic_dim_7",
            "Unknown",
            "undefined_2",
            "??",
            "0",
            "<unknown>",
            "null",
        ];
        for name in nothing {
            assert!(says_nothing(name), "{name}");
        }
        let names = ["batch", "N", "n", "x_dynamic_axes_1", "dim", "size", "seq_len", "unk_tokens", "p", "batch_none"];
        for name in names {
            assert!(!says_nothing(name), "{name}");
        }
    }

    #[test]
    fn a_graph_loses_the_names_that_say_nothing_and_keeps_the_others() {
        use crate::runtime::testing::{graph, model, node, value};
        let nodes = vec![node("Relu", &["x"], "y")];
        let (x, y) = (value("x", 1, &["?", "3", "h", "DynamicDimension.2"]), value("y", 1, &["d", "3", "h", "None"]));
        let mut proto = model(graph(nodes, vec![x, value("z", 1, &["d", "d", "d"])], vec![y]));
        clear(&mut proto);
        let graph = proto.graph.unwrap();
        let shown = |value| ValueInfo::from(value).describe();
        assert_eq!(shown(&graph.input[0]), "float32[?, 3, h, ?]");
        assert_eq!(shown(&graph.output[0]), "float32[?, 3, h, ?]");
    }

    #[test]
    fn a_name_in_three_places_of_one_input_is_none() {
        let info = |name: &str, dims: &[&str]| ValueInfo {
            name: name.into(),
            dtype: None,
            shape: Some(dims.iter().map(|d| Dim::Symbolic((*d).to_owned())).collect()),
        };
        let infos = [info("x", &["d", "c", "d", "d"]), info("a", &["n", "n"]), info("y", &["d", "unk__1", "n"])];
        let shapes: Vec<String> = meaningful(&infos).iter().map(ValueInfo::describe).collect();
        assert_eq!(shapes, ["not a tensor[?, c, ?, ?]", "not a tensor[n, n]", "not a tensor[?, ?, n]"]);
    }
}
