//! Looking at a model as a graph: who makes a value, who uses it, across subgraphs and functions.
//!
//! The messages of `onnx::proto` *are* the representation; a [`View`] adds the indexes. Analysis works on
//! the view of an unchanging model and notes what to do by [`BodyId`] and node index; then `edit` visits
//! the bodies of a copy in the same order and does it.

pub mod blocks;
pub mod constants;
pub mod dead;
pub mod edit;
pub mod formula;
pub mod modules;
pub mod opset;
pub(crate) mod order;
pub mod origin;
mod rotary;
mod view;
pub mod writer;

pub use view::{Body, BodyId, Producer, Use, View};

use crate::onnx::proto::{AttributeProto, NodeProto};

impl NodeProto {
    /// The operator, e.g. `MatMul`.
    pub fn op(&self) -> &str {
        self.op_type.as_deref().unwrap_or("")
    }

    /// Whether the node is `op` of the default operator set, and says itself what its attributes are.
    ///
    /// A node inside a function may take an attribute from the call ([`NodeProto::refers`]); then nobody knows what it
    /// does who has not seen every call, so it is not the operator that any rule is about.
    pub fn is(&self, op: &str) -> bool {
        self.op() == op && matches!(self.domain.as_deref(), None | Some("" | "ai.onnx")) && !self.refers()
    }

    /// Whether a call of the function around the node gives it an attribute: [`NodeProto::int`] and the like then have no
    /// value to return, but that does not make the operator's default right.
    pub fn refers(&self) -> bool {
        self.attribute.iter().any(|a| a.ref_attr_name.as_deref().is_some_and(|name| !name.is_empty()))
    }

    /// The attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|a| a.name.as_deref() == Some(name))
    }

    /// An integer attribute, or the operator's default for it. Of a node that [`NodeProto::is`] some operator, or else does
    /// not refer: see [`NodeProto::refers`].
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    /// A float attribute, or the operator's default for it; as for [`NodeProto::int`].
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|a| a.f).unwrap_or(default)
    }

    /// The input at `index`; `None` if it is absent or left out (an empty name).
    pub fn input_at(&self, index: usize) -> Option<&str> {
        self.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The node's name; nodes without one go by their first output, which is unique.
    pub fn label(&self) -> &str {
        let output = || self.output.iter().map(String::as_str).find(|o| !o.is_empty());
        self.name.as_deref().filter(|n| !n.is_empty()).or_else(output).unwrap_or("")
    }
}
