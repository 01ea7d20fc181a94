//! Analysis of the graph of a model: the node that produces a value and the nodes that read it, across subgraphs and
//! functions.
//!
//! A graph is represented by the protobuf messages of `onnx::proto`; a [`View`] adds indices. Analysis works on the
//! view of an immutable model and records changes by [`BodyId`] and node index. Then `edit` iterates over the bodies
//! (graphs and functions) of a copy with the same ids and applies the changes.

pub mod blocks;
pub mod builder;
pub mod constants;
pub mod dead;
pub mod edit;
pub mod floats;
pub mod formula;
pub mod invariants;
pub mod lower;
pub mod modules;
pub mod opset;
pub(crate) mod order;
pub mod origin;
pub mod quantized;
mod rotary;
pub mod select;
mod view;

pub use view::{Body, BodyId, Producer, Use, View};

use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

impl GraphProto {
    /// Returns the initializers that have a name, with their names.
    pub fn initializers(&self) -> impl Iterator<Item = (&str, &TensorProto)> {
        self.initializer.iter().filter_map(|tensor| Some((tensor.name.as_deref()?, tensor)))
    }
}

impl NodeProto {
    /// Returns the name of the operator, for example `MatMul`; an empty text if the node has none.
    pub fn op(&self) -> &str {
        self.op_type.as_deref().unwrap_or("")
    }

    /// Returns the operator as messages show it: with its domain, unless that is the default one.
    pub fn operator(&self) -> String {
        match self.domain.as_deref() {
            None | Some("" | "ai.onnx") => self.op().to_owned(),
            Some(domain) => format!("{domain}.{}", self.op()),
        }
    }

    /// Returns whether the operator of the node is `op` of the default domain, and all attributes are its own.
    ///
    /// A node inside a function may take an attribute from the call ([`NodeProto::refers`]); its meaning then depends
    /// on every call, so no rule applies to it.
    pub fn is(&self, op: &str) -> bool {
        self.op() == op && matches!(self.domain.as_deref(), None | Some("" | "ai.onnx")) && !self.refers()
    }

    /// Returns whether a call of the enclosing function sets an attribute of the node: [`NodeProto::int`] and similar
    /// then have no value to return, and the default of the operator is not right either.
    pub fn refers(&self) -> bool {
        self.attribute.iter().any(|a| a.ref_attr_name.as_deref().is_some_and(|name| !name.is_empty()))
    }

    /// Returns the tensor of a `Constant` node with the name of its value; `None` for other nodes, and for a `Constant`
    /// without the attribute `value`.
    pub fn constant(&self) -> Option<(&str, &TensorProto)> {
        let tensor = self.attribute("value").filter(|_| self.is("Constant"))?.t.as_deref()?;
        Some((self.output.first()?.as_str(), tensor))
    }

    /// Returns the attribute with the name `name`; `None` if there is none.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|a| a.name.as_deref() == Some(name))
    }

    /// Returns the integer attribute `name`, or `default` if the node does not have it. The result is meaningful only
    /// if [`NodeProto::refers`] is false.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    /// Returns the float attribute `name`, or `default` if the node does not have it. The result is meaningful only if
    /// [`NodeProto::refers`] is false.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|a| a.f).unwrap_or(default)
    }

    /// Returns the input at `index`; `None` if it is absent or omitted (an empty name).
    pub fn input_at(&self, index: usize) -> Option<&str> {
        self.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Returns the name of the node; if it has none, the name of its first output, which is unique in its graph; an
    /// empty text if it has neither.
    pub fn label(&self) -> &str {
        let output = || self.output.iter().map(String::as_str).find(|o| !o.is_empty());
        self.name.as_deref().filter(|n| !n.is_empty()).or_else(output).unwrap_or("")
    }
}
