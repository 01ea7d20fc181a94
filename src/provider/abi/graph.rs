//! Conversion of graphs of ONNX Runtime to [`Graph`]s.

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::ptr::{null, null_mut};

use ort::sys::{
    OrtGraph, OrtNode, OrtOpAttr, OrtOpAttrType, OrtTensorTypeAndShapeInfo, OrtTypeInfo, OrtValue, OrtValueInfo,
};

use super::api::{Api, ask};
use super::status::{Error, Result, check, text};
use super::tensor::Tensor;
use crate::provider::graph::{Attribute, Element, FusedNode, Graph, Node, NodeId, Source, Value, ValueId};

/// The handles of the nodes and values of a graph of ONNX Runtime, which [`Graph`] does not contain. They are valid
/// during one call from ONNX Runtime.
pub struct Handles {
    api: Api,
    graph: *const OrtGraph,
    nodes: Vec<*const OrtNode>,
    values: Vec<*const OrtValueInfo>,
}

impl Handles {
    /// Returns the handles of `graph`, still empty: [`Self::read`] fills them.
    ///
    /// # Safety
    /// `graph` was passed by ONNX Runtime, and lives as long as the result.
    pub unsafe fn new(api: Api, graph: *const OrtGraph) -> Self {
        Self { api, graph, nodes: Vec::new(), values: Vec::new() }
    }

    /// Returns the handles of `nodes`, in the order of the graph.
    pub fn of(&self, nodes: &[NodeId]) -> Vec<*const OrtNode> {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.into_iter().map(|node| self.nodes[node.0]).collect()
    }

    /// Returns the path of the model file; empty if the model was loaded from memory. Fails if ONNX Runtime returns an
    /// error.
    pub fn model_path(&self) -> Result<String> {
        // SAFETY: the graph lives (see `new`); the text is copied.
        unsafe { Ok(text(ask!(self.api, Graph_GetModelPath(self.graph) -> *const c_char = null())?)) }
    }

    /// Returns the graph with all of its nodes and values. Fails if ONNX Runtime returns an error.
    pub fn read(&mut self) -> Result<Graph<'_>> {
        let api = self.api;
        // SAFETY: the graph lives (see `new`), and with it all objects that it returns.
        let (nodes, values, captured, nested) = unsafe {
            let count = ask!(api, Graph_GetNumNodes(self.graph) -> usize = 0)?;
            self.nodes = vec![null(); count];
            check(api.ort(), (api.ort().Graph_GetNodes)(self.graph, self.nodes.as_mut_ptr(), count).0)?;
            let parent = ask!(api, Graph_GetParentNode(self.graph) -> *const OrtNode = null())?;
            let mut table = Table { api, by_name: HashMap::new(), values: Vec::new(), handles: Vec::new() };
            let mut captured = Vec::new();
            let mut nodes = Vec::with_capacity(count);
            for (index, node) in self.nodes.iter().enumerate() {
                nodes.push(table.node(*node)?);
                captured.extend(table.captured(*node)?.into_iter().map(|value| (NodeId(index), value)));
            }
            self.values = table.handles;
            (nodes, table.values, captured, !parent.is_null())
        };
        Ok(Graph::new(nodes, values, &captured, nested, self))
    }
}

impl Source for Handles {
    fn constant(&self, value: ValueId) -> Result<Tensor<'_>> {
        // SAFETY: the graph lives, and with it its initializers.
        unsafe {
            let tensor =
                ask!(self.api, ValueInfo_GetInitializerValue(self.values[value.0]) -> *const OrtValue = null())?;
            if tensor.is_null() {
                return Err(Error::new("a constant has no value"));
            }
            Tensor::read(self.api, tensor)
        }
    }

    fn attribute(&self, node: NodeId, name: &str) -> Option<Attribute> {
        let name = CString::new(name).ok()?;
        // SAFETY: the graph lives, and with it its nodes and their attributes.
        unsafe {
            let found = ask!(
                self.api,
                Node_GetAttributeByName(self.nodes[node.0], name.as_ptr()) -> *const OrtOpAttr = null()
            );
            let attribute = found.ok().filter(|attribute| !attribute.is_null())?;
            read_attribute(self.api, attribute)
        }
    }
}

/// Returns an attribute; `None` if no pattern uses its type.
///
/// # Safety
/// `attribute` is ONNX Runtime's and lives.
unsafe fn read_attribute(api: Api, attribute: *const OrtOpAttr) -> Option<Attribute> {
    // SAFETY: the contract of this function; each buffer has the stated length.
    unsafe {
        let kind = ask!(
            api,
            OpAttr_GetType(attribute) -> OrtOpAttrType = OrtOpAttrType::ORT_OP_ATTR_UNDEFINED
        )
        .ok()?;
        let read = |to: *mut u8, bytes: usize| -> std::result::Result<(), usize> {
            let mut needed = 0;
            let status = (api.ort().ReadOpAttr)(attribute, kind, to.cast(), bytes, &mut needed);
            check(api.ort(), status.0).map_err(|_| needed)
        };
        match kind {
            OrtOpAttrType::ORT_OP_ATTR_INT => {
                let mut value = 0i64;
                read((&raw mut value).cast(), 8).ok().map(|()| Attribute::Int(value))
            }
            OrtOpAttrType::ORT_OP_ATTR_FLOAT => {
                let mut value = 0f32;
                read((&raw mut value).cast(), 4).ok().map(|()| Attribute::Float(value))
            }
            OrtOpAttrType::ORT_OP_ATTR_INTS => {
                let bytes = read(null_mut(), 0).err().unwrap_or(0);
                let mut values = vec![0i64; bytes / 8];
                read(values.as_mut_ptr().cast(), bytes).ok().map(|()| Attribute::Ints(values))
            }
            OrtOpAttrType::ORT_OP_ATTR_STRING => {
                let bytes = read(null_mut(), 0).err().unwrap_or(0);
                let mut values = vec![0u8; bytes];
                read(values.as_mut_ptr(), bytes).ok()?;
                values.truncate(values.iter().position(|byte| *byte == 0).unwrap_or(bytes));
                Some(Attribute::Text(values))
            }
            _ => None,
        }
    }
}

/// The values found so far, with their indices by name.
struct Table {
    api: Api,
    by_name: HashMap<String, ValueId>,
    values: Vec<Value>,
    handles: Vec<*const OrtValueInfo>,
}

impl Table {
    /// Adds the values of a node to the table, and returns the node. Fails if ONNX Runtime returns an error.
    ///
    /// # Safety
    /// `node` is one of a graph that lives.
    unsafe fn node(&mut self, node: *const OrtNode) -> Result<Node> {
        let api = self.api;
        // SAFETY: the contract of this function; each array has the stated length.
        unsafe {
            let words = |pointer: Result<*const c_char>| pointer.map(|pointer| text(pointer));
            let op = words(ask!(api, Node_GetOperatorType(node) -> *const c_char = null()))?;
            let domain = words(ask!(api, Node_GetDomain(node) -> *const c_char = null()))?;
            let name = words(ask!(api, Node_GetName(node) -> *const c_char = null()))?;
            let count = ask!(api, Node_GetNumInputs(node) -> usize = 0)?;
            let mut inputs = vec![null(); count];
            check(api.ort(), (api.ort().Node_GetInputs)(node, inputs.as_mut_ptr(), count).0)?;
            let count = ask!(api, Node_GetNumOutputs(node) -> usize = 0)?;
            let mut outputs = vec![null(); count];
            check(api.ort(), (api.ort().Node_GetOutputs)(node, outputs.as_mut_ptr(), count).0)?;
            let inputs = inputs.into_iter().map(|value| self.value(value)).collect::<Result<_>>()?;
            let outputs = outputs.into_iter().map(|value| self.value(value)).collect::<Result<_>>()?;
            Ok(Node { op, domain, name, inputs, outputs })
        }
    }

    /// Returns the values of the outer graph that the subgraphs of a node read. Fails if ONNX Runtime returns an error.
    ///
    /// # Safety
    /// The contract is that of [`Self::node`].
    unsafe fn captured(&mut self, node: *const OrtNode) -> Result<Vec<ValueId>> {
        let api = self.api;
        // SAFETY: the contract of this function; the array has the stated length.
        unsafe {
            let count = ask!(api, Node_GetNumImplicitInputs(node) -> usize = 0)?;
            let mut values = vec![null(); count];
            if count > 0 {
                check(api.ort(), (api.ort().Node_GetImplicitInputs)(node, values.as_mut_ptr(), count).0)?;
            }
            Ok(values
                .into_iter()
                .map(|value| self.value(value))
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .flatten()
                .collect())
        }
    }

    /// Returns the index of a value, which is added to the table if it is new; `None` for an omitted value. Fails if
    /// ONNX Runtime returns an error.
    ///
    /// # Safety
    /// `handle` is null, or a value of a graph that lives.
    unsafe fn value(&mut self, handle: *const OrtValueInfo) -> Result<Option<ValueId>> {
        if handle.is_null() {
            return Ok(None);
        }
        let api = self.api;
        // SAFETY: the contract of this function.
        let name = unsafe { text(ask!(api, GetValueInfoName(handle) -> *const c_char = null())?) };
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.by_name.get(&name) {
            return Ok(Some(*known));
        }
        // SAFETY: as above.
        let (element, shape, is_output, is_constant) = unsafe {
            let (element, shape) = tensor_type(api, handle)?;
            let is_output = ask!(api, ValueInfo_IsGraphOutput(handle) -> bool = false)?;
            (element, shape, is_output, ask!(api, ValueInfo_IsConstantInitializer(handle) -> bool = false)?)
        };
        let id = ValueId(self.values.len());
        self.by_name.insert(name.clone(), id);
        let consumers = Vec::new();
        self.values.push(Value { name, element, shape, producer: None, consumers, is_output, is_constant });
        self.handles.push(handle);
        Ok(Some(id))
    }
}

/// Returns the element type and the shape of a value, each `None` if ONNX Runtime does not know it or the value is not
/// a tensor. Fails if ONNX Runtime returns an error.
///
/// # Safety
/// `value` is a value of a graph that lives.
unsafe fn tensor_type(api: Api, value: *const OrtValueInfo) -> Result<(Option<Element>, Option<Vec<i64>>)> {
    // SAFETY: the contract of this function; what is asked for belongs to the value.
    unsafe {
        let kind = ask!(api, GetValueInfoTypeInfo(value) -> *const OrtTypeInfo = null())?;
        if kind.is_null() {
            return Ok((None, None));
        }
        let tensor = ask!(api, CastTypeInfoToTensorInfo(kind) -> *const OrtTensorTypeAndShapeInfo = null())?;
        if tensor.is_null() {
            return Ok((None, None));
        }
        // The type is read as an integer, because later versions may have element types that are not in the enum.
        let mut element = 0i32;
        check(api.ort(), (api.ort().GetTensorElementType)(tensor, (&raw mut element).cast()).0)?;
        let element = (element != 0).then(|| Element::from_onnx(element));
        if !(api.ort().TensorTypeAndShape_HasShape)(tensor) {
            return Ok((element, None));
        }
        let rank = ask!(api, GetDimensionsCount(tensor) -> usize = 0)?;
        let mut sizes = vec![0i64; rank];
        check(api.ort(), (api.ort().GetDimensions)(tensor, sizes.as_mut_ptr(), rank).0)?;
        Ok((element, Some(sizes)))
    }
}

/// Returns the names of a fused node and of its inputs and outputs. Fails if ONNX Runtime returns an error.
///
/// # Safety
/// `node` is one that ONNX Runtime handed over, and lives.
pub unsafe fn fused_node(api: Api, node: *const OrtNode) -> Result<FusedNode> {
    let mut table = Table { api, by_name: HashMap::new(), values: Vec::new(), handles: Vec::new() };
    // SAFETY: the contract of this function.
    let Node { name, inputs, outputs, .. } = unsafe { table.node(node)? };
    let names = |values: Vec<Option<ValueId>>| {
        let name = |value: Option<ValueId>| value.map_or(String::new(), |value| table.values[value.0].name.clone());
        values.into_iter().map(name).collect()
    };
    Ok(FusedNode { name, inputs: names(inputs), outputs: names(outputs) })
}
