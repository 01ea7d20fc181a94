//! The tensors of a checkpoint under the names by which families request them, and a check for unused tensors.

use crate::error::Result;
use crate::onnx::proto::ModelProto;
use crate::source::weights::{Stored, Weights};
use std::collections::HashSet;

/// The maximum number of names in a message.
const SHOWN: usize = 4;

/// A checkpoint whose normalizations may have TensorFlow's names: `gamma` for `weight`, `beta` for `bias`.
pub(super) struct Renamed<'a>(pub &'a dyn Weights);

const RENAMED: [(&str, &str); 2] = [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];

impl Weights for Renamed<'_> {
    fn find(&self, name: &str) -> Result<Option<Stored>> {
        if let Some(found) = self.0.find(name)? {
            return Ok(Some(found));
        }
        let old = RENAMED.iter().find_map(|(new, old)| Some(format!("{}{old}", name.strip_suffix(new)?)));
        old.map_or(Ok(None), |old| self.0.find(&old))
    }

    fn names(&self) -> Vec<String> {
        let new = |name: String| {
            let renamed = RENAMED.iter().find_map(|(new, old)| Some(format!("{}{new}", name.strip_suffix(old)?)));
            renamed.unwrap_or(name)
        };
        self.0.names().into_iter().map(new).collect()
    }

    fn shaped(&self, name: &str, dims: &[i64]) -> Result<Stored> {
        match self.0.find(name)? {
            None => crate::source::weights::of_shape(self.get(name)?, name, dims),
            Some(_) => self.0.shaped(name, dims),
        }
    }
}

/// A checkpoint of a tied model, in which the embedding table may exist only under the name of the output layer.
/// `save_model` of safetensors writes such files, because it keeps one of several names of a tensor.
pub(super) struct WithTable<'a> {
    weights: &'a dyn Weights,
    /// Name of the table.
    table: String,
    /// Name of the output layer, if it is the table.
    head: Option<String>,
}

impl<'a> WithTable<'a> {
    /// Returns the tensors of `weights`, with the output layer `head` as the embedding table `table` if the model is
    /// `tied` and has no table.
    pub fn new(weights: &'a dyn Weights, table: String, head: &str, tied: bool) -> Result<WithTable<'a>> {
        let alone = tied && weights.find(&table)?.is_none() && weights.find(head)?.is_some();
        Ok(WithTable { weights, table, head: alone.then(|| head.to_owned()) })
    }

    /// Returns the name under which the checkpoint has a tensor.
    fn stored<'n>(&'n self, name: &'n str) -> &'n str {
        self.head.as_deref().filter(|_| name == self.table).unwrap_or(name)
    }
}

impl Weights for WithTable<'_> {
    fn find(&self, name: &str) -> Result<Option<Stored>> {
        self.weights.find(self.stored(name))
    }

    fn names(&self) -> Vec<String> {
        self.weights.names()
    }

    fn shaped(&self, name: &str, dims: &[i64]) -> Result<Stored> {
        self.weights.shaped(self.stored(name), dims)
    }
}

/// Returns the name of the output layer: `own` if the checkpoint has it and it differs from `table`, the embedding
/// table; otherwise `table`.
pub(super) fn head_or_table<'n>(weights: &dyn Weights, own: &'n str, table: &'n str) -> Result<&'n str> {
    let Some(head) = weights.find(own)? else { return Ok(table) };
    let same = weights.find(table)?.is_some_and(|table| table.dims == head.dims && table.bytes == head.bytes);
    Ok(if same { table } else { own })
}

/// Returns a warning about the tensors of `weights` that are not in `proto`; `None` if there are none that matter. `by`
/// names the model or class that does not use them.
pub(super) fn unused(weights: &dyn Weights, proto: &ModelProto, by: &str) -> Option<String> {
    let initializers = proto.graph.iter().flat_map(|graph| &graph.initializer);
    let used: HashSet<&str> = initializers.filter_map(|tensor| tensor.name.as_deref()).collect();
    let names = Renamed(weights).names();
    let left: Vec<&String> =
        names.iter().filter(|name| !used.contains(name.as_str()) && !harmless(name, &used)).collect();
    let more = left.len().saturating_sub(SHOWN);
    let shown = left.iter().take(SHOWN).map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let count = match left.len() {
        0 => return None,
        1 => "a tensor of the checkpoint is".to_owned(),
        many => format!("{many} tensors of the checkpoint are"),
    };
    Some(format!("{count} not used by {by}: {shown}{rest}"))
}

/// Returns whether an unused tensor contains nothing new: position indices, masks and angles saved by old versions,
/// the pooler of models that output hidden states, and output layers that are the embedding table or another name of
/// a bias.
fn harmless(name: &str, used: &HashSet<&str>) -> bool {
    const BUFFERS: [&str; 7] = [
        "position_ids",
        "token_type_ids",
        "inv_freq",
        "masked_bias",
        "cos_cached",
        "sin_cached",
        "pooler.dense.weight",
    ];
    let (module, last) = name.rsplit_once('.').unwrap_or(("", name));
    // The mask of GPT-2 is `h.0.attn.bias`; the names of biases are longer.
    let mask = last == "bias" && module.rsplit('.').next() == Some("attn");
    let ends = |end: &str| name == end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'));
    let with = |head: &str| used.contains(head);
    // An output layer that differed from the embedding table would be in use; the biases are other names of one that is
    // in use.
    let tied = match name {
        "cls.predictions.decoder.weight" | "cls.predictions.bias" | "cls.predictions.decoder.bias" => {
            with("cls.predictions.transform.dense.weight")
        }
        "lm_head.decoder.weight" | "lm_head.bias" | "lm_head.decoder.bias" => with("lm_head.dense.weight"),
        "vocab_projector.weight" => with("vocab_transform.weight"),
        _ => name.ends_with("lm_head.weight"),
    };
    mask || tied || ends("pooler.dense.bias") || BUFFERS.iter().any(|end| ends(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit;
    use crate::onnx::dtype::DataType;
    use crate::onnx::proto::GraphProto;
    use crate::source::weights::Form;
    use std::collections::BTreeMap;

    struct Few(BTreeMap<&'static str, u8>);

    impl Weights for Few {
        fn find(&self, name: &str) -> Result<Option<Stored>> {
            let stored =
                |byte: &u8| Stored { dims: vec![1], form: Form::Plain(DataType::Uint8), bytes: vec![*byte].into() };
            Ok(self.0.get(name).map(stored))
        }

        fn names(&self) -> Vec<String> {
            self.0.keys().map(|name| (*name).to_owned()).collect()
        }
    }

    #[test]
    fn old_names_of_normalizations_are_found_under_the_new_ones() {
        let few = Few(BTreeMap::from([("a.LayerNorm.gamma", 1), ("a.LayerNorm.beta", 2), ("gamma", 3)]));
        let renamed = Renamed(&few);
        assert_eq!(renamed.get("a.LayerNorm.weight").unwrap().bytes[..], [1]);
        assert_eq!(renamed.shaped("a.LayerNorm.bias", &[1]).unwrap().bytes[..], [2]);
        assert!(renamed.shaped("a.LayerNorm.bias", &[2]).unwrap_err().to_string().contains("a.LayerNorm.bias"));
        assert!(renamed.find("weight").unwrap().is_none());
        assert_eq!(renamed.names(), ["a.LayerNorm.bias", "a.LayerNorm.weight", "gamma"]);
    }

    #[test]
    fn a_head_is_used_where_it_is_another_matrix() {
        let few = Few(BTreeMap::from([("table", 1), ("same", 1), ("other", 2)]));
        let head = |own| head_or_table(&few, own, "table").unwrap().to_owned();
        assert_eq!([head("same"), head("other"), head("none")], ["table", "other", "table"]);
    }

    #[test]
    fn the_head_of_a_tied_model_is_its_table_if_there_is_no_other() {
        let few = |names: &[&'static str]| Few((1..).zip(names).map(|(byte, name)| (*name, byte)).collect());
        let table = |few: &Few, tied| {
            let with = WithTable::new(few, "table".to_owned(), "head", tied).unwrap();
            assert_eq!(with.shaped("table", &[1]).is_ok(), with.find("table").unwrap().is_some());
            with.find("table").unwrap().map(|stored| stored.bytes[0])
        };
        let (both, head) = (few(&["head", "table"]), few(&["head"]));
        assert_eq!((table(&both, true), table(&head, true)), (Some(2), Some(1)));
        assert_eq!((table(&head, false), table(&few(&["other"]), true)), (None, None));
    }

    #[test]
    fn tensors_that_nothing_uses_are_named_but_for_those_that_say_nothing() {
        let harmless = ["bert.embeddings.position_ids", "h.3.attn.bias", "h.3.attn.masked_bias", "pooler.dense.bias"];
        let few = |names: &[&'static str]| Few(names.iter().map(|name| (*name, 0)).collect::<BTreeMap<_, _>>());
        let graph = GraphProto {
            initializer: vec![edit::tensor("used", DataType::Uint8, &[1], vec![0u8].into())],
            ..Default::default()
        };
        let proto = ModelProto { graph: Some(Box::new(graph)), ..Default::default() };
        assert_eq!(unused(&few(&[&harmless[..], &["used", "lm_head.weight"]].concat()), &proto, "it"), None);
        let said = unused(&few(&["h.3.attn.c_attn.bias", "used"]), &proto, "Body").unwrap();
        assert_eq!(said, "a tensor of the checkpoint is not used by Body: h.3.attn.c_attn.bias");
        let said = unused(&few(&["a", "b", "c", "cls.predictions.bias", "e"]), &proto, "Body").unwrap();
        assert_eq!(said, "5 tensors of the checkpoint are not used by Body: a, b, c, cls.predictions.bias and 1 more");
    }
}
