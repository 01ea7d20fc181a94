//! The roles of inputs, which follow from their names and shapes.

use crate::model::ValueInfo;
use crate::onnx::dtype::DataType;

/// The role of an input of a text model. All inputs with a role have the shape `[batch, length]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Token ids.
    Ids,
    /// Attention mask: 1 for tokens, 0 for padding.
    Mask,
    /// Token type ids, which distinguish the texts of a pair.
    Types,
    /// Position ids.
    Positions,
}

impl Role {
    /// Returns the role of an input by its name, without prefixes such as `model/` or `encoder.`. `None` if the name is
    /// not one of the usual names, if the input is known not to have two dimensions, or if its type is neither int64
    /// nor int32; a mask may have any type.
    pub fn of(info: &ValueInfo) -> Option<Role> {
        if info.shape.as_ref().is_some_and(|shape| shape.len() != 2) {
            return None;
        }
        let name = info.name.to_lowercase();
        let role = match plain_name(&name).rsplit('.').next().unwrap_or("") {
            "input_ids" | "input_word_ids" | "input_tokens" | "token_ids" | "tokens" | "ids" => Role::Ids,
            "attention_mask" | "input_mask" | "padding_mask" | "mask" => Role::Mask,
            "token_type_ids" | "segment_ids" | "input_type_ids" | "type_ids" => Role::Types,
            "position_ids" | "input_positions" | "positions" => Role::Positions,
            _ => return None,
        };
        let integer = matches!(info.dtype, Some(DataType::Int64 | DataType::Int32));
        (integer || role == Role::Mask).then_some(role)
    }

    /// Returns the index of the first input of token ids; `None` if there is none.
    pub fn ids(inputs: &[ValueInfo]) -> Option<usize> {
        inputs.iter().position(|info| Role::of(info) == Some(Role::Ids))
    }
}

/// Returns whether an input has a [`Role`]: token ids, a mask, token type ids or position ids, of the shape
/// `[batch, length]`.
pub fn is_of_tokens(info: &ValueInfo) -> bool {
    Role::of(info).is_some()
}

/// Returns whether the name of an input contains `ids` or `mask`. The shape of the input is not considered.
pub fn is_named_as_tokens(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("ids") || name.contains("mask")
}

/// Returns whether the name of an input says that it holds the state of earlier runs, such as cached keys and values of
/// attention: it begins with `past`, has it as a word, or contains a word such as `kv_cache`.
pub fn is_past(name: &str) -> bool {
    let name = name.to_lowercase();
    let marks = ["past_key", "past_value", "key_cache", "value_cache", "kv_cache", "cache_k", "cache_v"];
    name.split(|c: char| !c.is_ascii_alphabetic()).any(|word| word == "past")
        || name.starts_with("past")
        || marks.iter().any(|mark| name.contains(mark))
}

/// Returns the name of an input without the prefixes and suffixes of exporters: `input_ids` for `input_ids:0`
/// (TensorFlow) and `model/input_ids`.
pub fn plain_name(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or("");
    name.split(':').next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_inputs_are_for() {
        let info = |name: &str, rank: usize, dtype| ValueInfo {
            name: name.into(),
            dtype: Some(dtype),
            shape: Some(vec![crate::model::Dim::Fixed(1); rank]),
        };
        let of = |name, dtype| Role::of(&info(name, 2, dtype));
        assert_eq!(of("input_ids", DataType::Int64), Some(Role::Ids));
        assert_eq!(of("model/input_ids:0", DataType::Int32), Some(Role::Ids));
        assert_eq!(of("encoder.attention_mask", DataType::Float32), Some(Role::Mask));
        assert_eq!(of("token_type_ids", DataType::Int64), Some(Role::Types));
        assert_eq!((of("input_ids", DataType::Float32), of("pixels", DataType::Int64)), (None, None));
        assert_eq!(Role::of(&info("input_ids", 3, DataType::Int64)), None);
    }

    #[test]
    fn caches_are_told_by_whole_words() {
        for past in ["past_key_values.0.key", "past", "past_0", "model/past_3.value", "pastKeyValues", "kv_cache.1"] {
            assert!(is_past(past), "{past}");
        }
        for other in ["paste", "input_ids", "elapsed", "cache_position"] {
            assert!(is_past(other) == other.starts_with("past"), "{other}");
        }
    }
}
