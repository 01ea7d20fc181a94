//! The JSON texts of safetensors: headers of files, and indexes. Reading them fails before a list in them exceeds its
//! limit.

use crate::error::{Result, error};
use crate::limits;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

/// The header entry of one tensor.
#[derive(Deserialize)]
pub(super) struct Entry {
    /// Name of the element type in the format.
    pub dtype: String,
    /// Shape of the tensor, outermost dimension first.
    #[serde(deserialize_with = "shape")]
    pub shape: Vec<i64>,
    /// Offsets of the first byte and of the byte after the last, from the end of the header.
    #[serde(rename = "data_offsets")]
    pub offsets: [u64; 2],
}

/// Returns the names and entries of the tensors in a header. Fails with `InvalidModel` if the header is damaged.
pub(super) fn entries(header: &[u8]) -> Result<Vec<(String, Entry)>> {
    // Another kind of text may begin with spaces; the format requires the brace first.
    if header.first() != Some(&b'{') {
        return Err(error!(InvalidModel, "the header does not begin with a brace: this is not a safetensors file"));
    }
    let pairs: Pairs<Entry> =
        serde_json::from_slice(header).map_err(|e| error!(InvalidModel, "the header is damaged: {e}"))?;
    Ok(pairs.0)
}

/// Returns the names of the tensors in an index, each with the name of its file. Fails with `InvalidModel` if the index
/// is damaged.
pub(super) fn weight_map(index: &[u8]) -> Result<Vec<(String, String)>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Pairs<String>,
    }
    let index: Index = serde_json::from_slice(index).map_err(|e| error!(InvalidModel, "the index is damaged: {e}"))?;
    Ok(index.weight_map.0)
}

/// A JSON object as a list. The key `__metadata__` is omitted, and no other key may occur twice.
struct Pairs<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Read<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Read<V> {
            type Value = Vec<(String, V)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one entry for each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let (mut pairs, mut names) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if names.len() >= limits::CHECKPOINT_TENSORS || name.len() > limits::NAME_BYTES {
                        return Err(A::Error::custom("more or longer names than the limit"));
                    }
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("the name {name:?} occurs twice")));
                    }
                    pairs.push((name, map.next_value()?));
                }
                Ok(pairs)
            }
        }
        from.deserialize_map(Read(PhantomData)).map(Pairs)
    }
}

/// Returns a list of dimensions. Fails if it is longer than [`limits::TENSOR_RANK`].
fn shape<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<i64>, D::Error> {
    struct Read;
    impl<'de> Visitor<'de> for Read {
        type Value = Vec<i64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of dimensions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Self::Value, A::Error> {
            let mut dims = Vec::new();
            while let Some(dim) = list.next_element()? {
                if dims.len() >= limits::TENSOR_RANK {
                    return Err(A::Error::custom(format!("more than {} dimensions", limits::TENSOR_RANK)));
                }
                dims.push(dim);
            }
            Ok(dims)
        }
    }
    from.deserialize_seq(Read)
}
