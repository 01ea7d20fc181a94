//! Nodes that the provider adds to a compiled model.

use std::ffi::CString;
use std::ptr::null_mut;

use ort::sys::{OrtNode, OrtOpAttr, OrtOpAttrType};

use super::api::{Api, ask};
use super::status::{Error, Result, check};
use crate::provider::graph::FusedNode;

/// An `EPContext` node, which represents a fused node in a compiled model.
#[derive(Debug, Clone)]
pub struct ContextNode {
    /// Name, inputs and outputs of the fused node.
    pub fused: FusedNode,
    /// String attributes of the node, with their names.
    pub texts: Vec<(&'static str, String)>,
    /// Integer attributes of the node, with their names.
    pub numbers: Vec<(&'static str, i64)>,
}

/// Creates `node` in ONNX Runtime. Fails if ONNX Runtime returns an error, and if a name contains NUL.
///
/// # Safety
/// The result is passed to ONNX Runtime, which then owns it.
pub unsafe fn create(api: Api, node: &ContextNode) -> Result<*mut OrtNode> {
    let fused = &node.fused;
    let (inputs, outputs, name) = (words(&fused.inputs)?, words(&fused.outputs)?, word(&fused.name)?);
    let pointers = |words: &[CString]| words.iter().map(|word| word.as_ptr()).collect::<Vec<_>>();
    let (inputs_at, outputs_at) = (pointers(&inputs), pointers(&outputs));
    let mut attributes = Attributes { api, list: Vec::new() };
    for (name, text) in &node.texts {
        attributes.add(name, text.as_bytes(), text.len(), OrtOpAttrType::ORT_OP_ATTR_STRING)?;
    }
    for (name, number) in &node.numbers {
        attributes.add(name, &number.to_ne_bytes(), 1, OrtOpAttrType::ORT_OP_ATTR_INT)?;
    }
    let mut made = null_mut();
    // SAFETY: all pointers live through the call, which copies names and attributes.
    unsafe {
        let editor =
            (api.ort().GetModelEditorApi)().as_ref().ok_or_else(|| Error::new("ONNX Runtime has no model editor"))?;
        let status = (editor.CreateNode)(
            c"EPContext".as_ptr(),
            c"com.microsoft".as_ptr(),
            name.as_ptr(),
            inputs_at.as_ptr(),
            inputs_at.len(),
            outputs_at.as_ptr(),
            outputs_at.len(),
            attributes.list.as_mut_ptr(),
            attributes.list.len(),
            &mut made,
        );
        check(api.ort(), status.0)?;
    }
    Ok(made)
}

/// Attributes, released after the node has copied them.
struct Attributes {
    api: Api,
    list: Vec<*mut OrtOpAttr>,
}

impl Attributes {
    fn add(&mut self, name: &str, bytes: &[u8], count: usize, kind: OrtOpAttrType) -> Result<()> {
        let (name, count) = (word(name)?, i32::try_from(count).map_err(|_| Error::new("an attribute is too long"))?);
        // SAFETY: `bytes` holds `count` values of the kind; they are copied.
        let attribute = unsafe {
            ask!(
                self.api,
                CreateOpAttr(name.as_ptr(), bytes.as_ptr().cast(), count, kind) -> *mut OrtOpAttr = null_mut()
            )
        };
        self.list.push(attribute?);
        Ok(())
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: each was made by `add`, and is released once.
        self.list.iter().for_each(|attribute| unsafe { (self.api.ort().ReleaseOpAttr)(*attribute) });
    }
}

fn word(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::new("a name contains NUL"))
}

fn words(texts: &[String]) -> Result<Vec<CString>> {
    texts.iter().map(|text| word(text)).collect()
}
