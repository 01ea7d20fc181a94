//! The weights of all variants of a package in one safetensors file, each stored once.

use super::manifest::LOCATION;
use crate::error::Result;
use crate::files::digest::hex;
use crate::graph::floats;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{EXTERNAL, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto};
use crate::onnx::tensors::for_each_initializer;
use crate::source::checkpoint::safetensors::{self, dtype_of};
use ::safetensors::Dtype;
use ::safetensors::tensor::TensorInfo;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};

/// The size in bytes below which tensors stay in the graph; most of these are shapes, axes and scalars.
const SHARED_FROM: usize = 1024;
/// The alignment in bytes of the beginning of the data, and of weights of 64 KiB or more.
const PAGE: u64 = 4096;

/// The weights that have been collected for a package.
#[derive(Default)]
pub struct Pool {
    tensors: Vec<Pooled>,
    by_hash: HashMap<[u8; 32], usize>,
    end: u64,
}

struct Pooled {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Offset of the weight from the beginning of the data, in bytes.
    offset: u64,
    bytes: Bytes,
}

impl Pool {
    /// Moves the large weights of a graph into the pool and records their location in the graph. Their `offset` counts
    /// from the beginning of the data; [`place`] adds the size of the header. Before IR version 4, weights in
    /// `Constant` nodes stay in the graph.
    pub fn take(&mut self, proto: &mut ModelProto) {
        // Before IR version 4, an initializer is also an input.
        let apart = proto.ir_version.unwrap_or(0) >= 4;
        let Some(graph) = proto.graph.as_deref_mut() else { return };
        if apart {
            initializers_of_constants(graph);
        }
        for_each_initializer(graph, &mut |tensor| {
            as_raw(tensor);
            if let Some(bytes) = tensor.raw_data.take_if(|raw| raw.len() >= SHARED_FROM) {
                let (offset, length) = (self.add(tensor, &bytes), bytes.len());
                tensor.data_location = Some(EXTERNAL);
                tensor.external_data = vec![
                    entry("location", LOCATION.to_owned()),
                    entry("offset", offset.to_string()),
                    entry("length", length.to_string()),
                ];
            }
        });
    }

    fn add(&mut self, tensor: &TensorProto, bytes: &Bytes) -> u64 {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(index) = self.by_hash.get(&hash) {
            return self.tensors[*index].offset;
        }
        let offset = self.end.next_multiple_of(if bytes.len() >= 64 << 10 { PAGE } else { 64 });
        self.end = offset + bytes.len() as u64;
        let (dtype, shape) = match tensor.data_type.and_then(DataType::from_onnx).and_then(dtype_of) {
            Some(dtype) => (dtype, tensor.dims.iter().map(|size| *size as usize).collect()),
            None => (Dtype::U8, vec![bytes.len()]),
        };
        self.by_hash.insert(hash, self.tensors.len());
        self.tensors.push(Pooled { name: hex(&hash[..16]), dtype, shape, offset, bytes: bytes.clone() });
        offset
    }

    /// Returns the size of the file's header in bytes, and the pieces of the file: the header, followed by the weights
    /// with padding between them. The format allows no gaps, so the padding consists of byte tensors. Fails with
    /// `Internal` if the header cannot be written as JSON.
    pub fn pieces(&self) -> Result<(u64, Vec<Bytes>)> {
        let mut tensors = Vec::new();
        let (mut pieces, mut end) = (Vec::new(), 0);
        for tensor in &self.tensors {
            let (from, to) = (tensor.offset, tensor.offset + tensor.bytes.len() as u64);
            if from > end {
                let (fill, offsets) = ((from - end) as usize, (end as usize, from as usize));
                let info = TensorInfo { dtype: Dtype::U8, shape: vec![fill], data_offsets: offsets };
                tensors.push((format!("fill.{end}"), info));
                pieces.push(Bytes::from(vec![0; fill]));
            }
            let (dtype, shape, data_offsets) = (tensor.dtype, tensor.shape.clone(), (from as usize, to as usize));
            tensors.push((tensor.name.clone(), TensorInfo { dtype, shape, data_offsets }));
            pieces.push(tensor.bytes.clone());
            end = to;
        }
        let header = safetensors::header(None, tensors, PAGE as usize)?;
        let begin = header.len() as u64;
        pieces.insert(0, header.into());
        Ok((begin, pieces))
    }
}

/// Stores the elements of a large float tensor as raw data, which can be stored externally, if they are in a typed
/// field, as older converters write them.
fn as_raw(tensor: &mut TensorProto) {
    if tensor.raw_data.is_some() || tensor.data_location == Some(EXTERNAL) || !has_large_field(tensor) {
        return;
    }
    if let Ok(bytes) = floats::raw(tensor) {
        tensor.raw_data = Some(bytes);
        tensor.float_data.0.clear();
        tensor.double_data.0.clear();
        tensor.int32_data.0.clear();
    }
}

/// Returns whether a typed field of a tensor has so many elements that the tensor is a weight.
fn has_large_field(tensor: &TensorProto) -> bool {
    let typed = [tensor.float_data.0.len(), tensor.double_data.0.len(), tensor.int32_data.0.len()];
    typed.iter().any(|count| *count >= SHARED_FROM / size_of::<f32>())
}

/// Converts large tensors in `Constant` nodes to initializers, because only initializers can be stored externally.
fn initializers_of_constants(graph: &mut GraphProto) {
    let given: HashSet<&str> = graph.output.iter().filter_map(|output| output.name.as_deref()).collect();
    let is_weight = |node: &NodeProto| {
        let large = |tensor: &TensorProto| match &tensor.raw_data {
            Some(raw) => raw.len() >= SHARED_FROM,
            None => has_large_field(tensor),
        };
        let [value] = &node.attribute[..] else { return false };
        let [output] = &node.output[..] else { return false };
        node.is("Constant") && !given.contains(output.as_str()) && value.t.as_deref().is_some_and(large)
    };
    let (weights, others): (Vec<NodeProto>, Vec<NodeProto>) =
        std::mem::take(&mut graph.node).into_iter().partition(|node| is_weight(node));
    graph.node = others;
    for mut node in weights {
        let tensor = node.attribute.pop().and_then(|attribute| attribute.t);
        graph.initializer.extend(tensor.map(|tensor| TensorProto { name: node.output.pop(), ..*tensor }));
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.g.iter_mut().map(|g| &mut **g).chain(&mut attribute.graphs).for_each(initializers_of_constants);
    }
}

/// Changes the offsets that [`Pool::take`] has set to count from the beginning of the file, whose header has `begin`
/// bytes.
pub fn place(proto: &mut ModelProto, begin: u64) {
    let Some(graph) = proto.graph.as_deref_mut() else { return };
    for_each_initializer(graph, &mut |tensor| {
        let Some(offset) = tensor.external_data.get_mut(1) else { return };
        let number = offset.value.as_deref().and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
        offset.value = Some((number.unwrap_or(0) + begin).to_string().into());
    });
}

fn entry(key: &str, value: String) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.into()), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::AttributeProto;
    use crate::runtime::testing::{graph, model, node};

    #[test]
    fn weights_in_typed_fields_and_in_branches_are_shared_like_raw_ones() {
        let values: Vec<f32> = (0..300u16).map(f32::from).collect();
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = |name: &str| TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(DataType::Float32.to_onnx()),
            dims: vec![300],
            ..TensorProto::default()
        };
        let typed = || {
            let mut typed = tensor("typed");
            typed.float_data.0.clone_from(&values);
            typed
        };
        let constant = |tensor: TensorProto| NodeProto {
            attribute: vec![AttributeProto { t: Some(Box::new(tensor)), ..AttributeProto::default() }],
            ..node("Constant", &[], "constant")
        };
        let mut branch = graph(vec![constant(typed())], vec![], vec![]);
        branch.initializer.push(TensorProto { raw_data: Some(raw.into()), ..tensor("raw") });
        let outer = NodeProto {
            attribute: vec![AttributeProto { g: Some(Box::new(branch)), ..AttributeProto::default() }],
            ..node("If", &["condition"], "y")
        };
        let mut body = graph(vec![outer], vec![], vec![]);
        body.initializer.push(typed());
        let mut proto = model(body);
        let mut pool = Pool::default();
        pool.take(&mut proto);
        assert_eq!(pool.tensors.len(), 1, "equal weights are stored once");
        let mut external = 0;
        for_each_initializer(proto.graph.as_deref_mut().unwrap(), &mut |tensor| {
            assert!(tensor.raw_data.is_none() && tensor.float_data.0.is_empty());
            external += usize::from(tensor.data_location == Some(EXTERNAL));
        });
        assert_eq!(external, 3);
    }
}
