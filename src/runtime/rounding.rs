//! Quantization of activations in products with block-quantized weights.

use crate::graph::edit;
use crate::onnx::proto::ModelProto;

/// Sets `accuracy_level` of every `MatMulNBits` of a model to 4, so that it quantizes its activations to 8 bits, block
/// by block.
pub fn round_activations(model: &mut ModelProto) {
    const NAME: &str = "accuracy_level";
    edit::for_each_body(model, &mut |_, body| {
        for node in body.nodes.iter_mut().filter(|node| node.op_type.as_deref() == Some("MatMulNBits")) {
            node.attribute.retain(|attribute| attribute.name.as_deref() != Some(NAME));
            node.attribute.push(edit::int_attribute(NAME, 4));
        }
    });
}
