//! The element types of GGUF tensors, by their values in the format.

use crate::error::{Result, bail};
use crate::onnx::dtype::DataType;
use crate::source::weights::{BlockForm, Form};

/// An element type of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementType {
    /// Name of the type.
    pub name: &'static str,
    /// Number of elements in a block; 1 for plain types.
    pub elements: u64,
    /// Size of a block in bytes.
    pub bytes: u64,
    /// Form of the elements in this library; `None` for a type that it cannot read.
    pub form: Option<Form>,
}

const fn plain(name: &'static str, bytes: u64, dtype: Option<DataType>) -> ElementType {
    let form = match dtype {
        Some(dtype) => Some(Form::Plain(dtype)),
        None => None,
    };
    ElementType { name, elements: 1, bytes, form }
}

const fn blocks(name: &'static str, form: BlockForm) -> ElementType {
    let layout = form.layout();
    ElementType { name, elements: layout.elements as u64, bytes: layout.bytes as u64, form: Some(Form::Blocks(form)) }
}

/// Returns a type of which only the name and the size are known.
const fn unread(name: &'static str, elements: u64, bytes: u64) -> ElementType {
    ElementType { name, elements, bytes, form: None }
}

/// The values in the file and their types. Values 4, 5, 31 to 33 and 36 to 38 are no longer used.
const TYPES: &[(u32, ElementType)] = &[
    (0, plain("F32", 4, Some(DataType::Float32))),
    (1, plain("F16", 2, Some(DataType::Float16))),
    (2, blocks("Q4_0", BlockForm::Q4_0)),
    (3, blocks("Q4_1", BlockForm::Q4_1)),
    (6, blocks("Q5_0", BlockForm::Q5_0)),
    (7, blocks("Q5_1", BlockForm::Q5_1)),
    (8, blocks("Q8_0", BlockForm::Q8_0)),
    (9, unread("Q8_1", 32, 40)),
    (10, blocks("Q2_K", BlockForm::Q2_K)),
    (11, blocks("Q3_K", BlockForm::Q3_K)),
    (12, blocks("Q4_K", BlockForm::Q4_K)),
    (13, blocks("Q5_K", BlockForm::Q5_K)),
    (14, blocks("Q6_K", BlockForm::Q6_K)),
    (15, unread("Q8_K", 256, 292)),
    (16, unread("IQ2_XXS", 256, 66)),
    (17, unread("IQ2_XS", 256, 74)),
    (18, unread("IQ3_XXS", 256, 98)),
    (19, unread("IQ1_S", 256, 50)),
    (20, blocks("IQ4_NL", BlockForm::IQ4_NL)),
    (21, unread("IQ3_S", 256, 110)),
    (22, unread("IQ2_S", 256, 82)),
    (23, blocks("IQ4_XS", BlockForm::IQ4_XS)),
    (24, plain("I8", 1, None)),
    (25, plain("I16", 2, None)),
    (26, plain("I32", 4, None)),
    (27, plain("I64", 8, None)),
    (28, plain("F64", 8, None)),
    (29, unread("IQ1_M", 256, 56)),
    (30, plain("BF16", 2, Some(DataType::Bfloat16))),
    (34, blocks("TQ1_0", BlockForm::TQ1_0)),
    (35, blocks("TQ2_0", BlockForm::TQ2_0)),
    (39, blocks("MXFP4", BlockForm::MXFP4)),
    (40, unread("NVFP4", 64, 36)),
    (41, unread("Q1_0", 128, 18)),
];

impl ElementType {
    /// Returns the type with the value `number` in the file. Fails with `InvalidModel` for other numbers.
    pub fn of(number: u32) -> Result<ElementType> {
        match TYPES.iter().find(|(n, _)| *n == number) {
            Some((_, found)) => Ok(*found),
            None => bail!(InvalidModel, "its element type {number} is not defined by the format"),
        }
    }

    /// Returns the names of all types that this library reads, for messages.
    pub fn readable() -> String {
        let names: Vec<&str> = TYPES.iter().filter(|(_, t)| t.form.is_some()).map(|(_, t)| t.name).collect();
        names.join(", ")
    }

    /// Returns the size in bytes of a tensor with the dimensions `dims`, the length of a row first. Fails with
    /// `InvalidModel` if a row does not consist of whole blocks, or on overflow.
    ///
    /// Every product is checked: an overflowing size has been used to cause writes out of bounds (CVE-2025-53630).
    pub fn bytes_of(&self, dims: &[u64]) -> Result<u64> {
        let row = dims.first().copied().unwrap_or(1);
        if !row.is_multiple_of(self.elements) {
            bail!(
                InvalidModel,
                "its rows of {row} elements are not a multiple of the block size {} ({})",
                self.elements,
                self.name
            );
        }
        let elements = dims.iter().try_fold(1u64, |count, &dim| count.checked_mul(dim));
        match elements.and_then(|count| (count / self.elements).checked_mul(self.bytes)) {
            Some(bytes) => Ok(bytes),
            None => bail!(InvalidModel, "the size of its dimensions {dims:?} exceeds 64 bits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_format() {
        assert_eq!(ElementType::of(12).unwrap().bytes_of(&[512, 3]).unwrap(), 6 * 144);
        assert_eq!(ElementType::of(14).unwrap().bytes_of(&[256]).unwrap(), 210);
        assert_eq!(ElementType::of(13).unwrap().bytes, 176);
        assert_eq!(ElementType::of(0).unwrap().bytes_of(&[]).unwrap(), 4);
        let q8 = ElementType::of(8).unwrap();
        assert_eq!((q8.elements, q8.bytes), (32, 34));
        assert!(q8.bytes_of(&[33, 32]).unwrap_err().message().contains("multiple of the block size"));
        assert!(q8.bytes_of(&[1 << 40, 1 << 40]).unwrap_err().message().contains("64 bits"));
        assert!(ElementType::of(4).unwrap_err().message().contains("element type 4"));
        assert!(ElementType::of(31).is_err());
    }
}
