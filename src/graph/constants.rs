//! Finding the constant behind a value, and reading it as numbers.

use super::{BodyId, Producer, View};
use crate::error::{Result, bail};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{TensorProto, attribute_kind};
use bytes::Bytes;

/// A constant tensor and how it is reached from the value that was asked about.
#[derive(Clone)]
pub struct Constant<'a> {
    /// The tensor as stored.
    pub tensor: &'a TensorProto,
    /// The body in which it is defined.
    pub owner: BodyId,
    /// Its value name in that body: the initializer's, or the output of its `Constant` node.
    pub name: &'a str,
    /// Whether an odd number of two-dimensional transposes lies between the tensor and the value.
    pub transposed: bool,
    /// Nodes between the tensor and the value (and the `Constant` node itself): unused once the value is.
    pub chain: Vec<(BodyId, usize)>,
    /// Whether the initializer is also an input, so that a caller could override it.
    pub overridable: bool,
    /// Element type of the value: the tensor's own, or what a `Cast` made of it.
    pub dtype: i32,
}

impl<'a> View<'a> {
    /// The constant that `name` is in `body`: an initializer or `Constant` node, possibly of an enclosing
    /// graph, seen through `Identity`, two-dimensional `Transpose` and `Cast` from one float type to another.
    pub fn constant(&self, body: BodyId, name: &str) -> Option<Constant<'a>> {
        let mut chain = Vec::new();
        let mut transposed = false;
        let mut cast: Option<i32> = None;
        let (mut at, mut name) = (body, name);
        // A model has been checked for cycles; the bound only keeps a silly chain cheap.
        for _ in 0..32 {
            let (owner, producer) = self.producer(at, name)?;
            match producer {
                Producer::Initializer(index) => {
                    let graph = self.bodies[owner].graph?;
                    let tensor = &graph.initializer[index];
                    let name = tensor.name.as_deref()?;
                    let overridable = graph.input.iter().any(|i| i.name.as_deref() == Some(name));
                    let dtype = seen_as(tensor, cast)?;
                    return Some(Constant { tensor, owner, name, transposed, chain, overridable, dtype });
                }
                Producer::Node(index) => {
                    let node = self.node(owner, index);
                    chain.push((owner, index));
                    if node.is("Constant") {
                        let value = node.attribute.iter().find(|a| a.kind == Some(attribute_kind::TENSOR))?;
                        let (tensor, name) = (value.t.as_deref()?, node.output.first()?.as_str());
                        let dtype = seen_as(tensor, cast)?;
                        return Some(Constant { tensor, owner, name, transposed, chain, overridable: false, dtype });
                    }
                    if node.is("Transpose") {
                        match node.attribute("perm").map(|a| a.ints.as_slice()) {
                            // Without one the order of all dimensions is turned; a `Matrix` has two.
                            None | Some([1, 0]) => transposed = !transposed,
                            Some([0, 1]) => {}
                            _ => return None,
                        }
                    } else if node.is("Cast") {
                        // The last Cast before the reader says what it reads.
                        cast = cast.or(Some(i32::try_from(node.int("to", 0)).ok()?));
                    } else if !node.is("Identity") {
                        return None;
                    }
                    (at, name) = (owner, node.input_at(0)?);
                }
                Producer::Input | Producer::Sparse(_) => return None,
            }
        }
        None
    }
}

/// The element type of a constant behind a `Cast`; `None` if that does more than widen or narrow floats.
fn seen_as(tensor: &TensorProto, cast: Option<i32>) -> Option<i32> {
    let float = |dtype| matches!(dtype, DataType::Float32 | DataType::Float16 | DataType::Bfloat16);
    let own = tensor.data_type.unwrap_or(0);
    match cast {
        None => Some(own),
        Some(to) if to == own => Some(to),
        Some(to) => {
            (DataType::from_onnx(own).is_some_and(float) && DataType::from_onnx(to).is_some_and(float)).then_some(to)
        }
    }
}

/// The elements of an integer tensor (int64 or int32), however they are stored; `None` for other types.
pub fn whole_numbers(tensor: &TensorProto) -> Option<Vec<i64>> {
    let dtype = DataType::from_onnx(tensor.data_type.unwrap_or(0))?;
    Some(match (&tensor.raw_data, dtype) {
        (Some(raw), DataType::Int64) => raw.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        (Some(raw), DataType::Int32) => {
            raw.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect()
        }
        (None, DataType::Int64) => tensor.int64_data.0.to_vec(),
        (None, DataType::Int32) => tensor.int32_data.0.iter().map(|v| i64::from(*v)).collect(),
        _ => return None,
    })
}

/// A float tensor of two dimensions, read row by row as `f32` wherever and however it is stored.
#[derive(Clone)]
pub struct Matrix {
    /// Rows as stored.
    pub rows: usize,
    /// Columns as stored.
    pub columns: usize,
    dtype: DataType,
    raw: Bytes,
}

impl Matrix {
    /// A matrix over the elements of `tensor`; an error that says why not, if it is none.
    pub fn new(tensor: &TensorProto) -> Result<Matrix> {
        let &[rows, columns] = tensor.dims.as_slice() else {
            bail!(Unsupported, "the weight has {} dimensions, not 2", tensor.dims.len());
        };
        let dtype = DataType::from_onnx(tensor.data_type.unwrap_or(0));
        let dtype = match dtype {
            Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16) => dtype.unwrap_or(DataType::Float32),
            Some(other) => bail!(Unsupported, "the weight is {}, not float", other.name()),
            None => bail!(Unsupported, "the weight has the unknown type {}", tensor.data_type.unwrap_or(0)),
        };
        // Typed fields are rare and small; they are brought into the raw form once.
        let raw = match &tensor.raw_data {
            Some(raw) => raw.clone(),
            None if dtype == DataType::Float32 => tensor.float_data.0.iter().flat_map(|v| v.to_le_bytes()).collect(),
            None => tensor.int32_data.0.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect(),
        };
        let (rows, columns) = (usize::try_from(rows).unwrap_or(0), usize::try_from(columns).unwrap_or(0));
        let matrix = Matrix { rows, columns, dtype, raw };
        if rows.checked_mul(columns).and_then(|n| n.checked_mul(matrix.width())) != Some(matrix.raw.len()) {
            bail!(InvalidModel, "the weight's size does not fit its shape {:?}", tensor.dims);
        }
        Ok(matrix)
    }

    /// The element type as stored: float32, float16 or bfloat16.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// The elements as stored, in little-endian bytes.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.rows * self.columns
    }

    /// Bytes of one element.
    pub fn width(&self) -> usize {
        self.dtype.bits() as usize / 8
    }

    /// Puts `out.len()` elements of row `row`, from column `from` on, into `out`.
    pub fn read(&self, row: usize, from: usize, out: &mut [f32]) {
        let width = self.width();
        let start = (row * self.columns + from) * width;
        let bytes = &self.raw[start..start + out.len() * width];
        // Mapped weights may lie at any address, so they are read as bytes; this compiles to plain loads.
        match self.dtype {
            DataType::Float32 => {
                let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                out.iter_mut().zip(values).for_each(|(o, v)| *o = v);
            }
            DataType::Float16 => {
                let values = bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32());
                out.iter_mut().zip(values).for_each(|(o, v)| *o = v);
            }
            _ => {
                let values = bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32());
                out.iter_mut().zip(values).for_each(|(o, v)| *o = v);
            }
        }
    }

    /// Gives the pages of some rows back to the kernel; see [`crate::files::release`].
    pub fn release(&self, rows: std::ops::Range<usize>) {
        let width = self.width() * self.columns;
        crate::files::release(&self.raw[rows.start * width..rows.end * width]);
    }
}
