//! Constants: the constant tensor from which a value follows ([`Constant`]), and its elements as numbers ([`Matrix`]).

use super::{BodyId, Producer, View, floats};
use crate::error::{Result, bail};
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{TensorProto, attribute_kind};
use bytes::Bytes;

/// A constant tensor and the path to it from a value.
#[derive(Clone)]
pub struct Constant<'a> {
    /// Stored tensor: an initializer or the attribute of a `Constant` node.
    pub tensor: &'a TensorProto,
    /// Graph or function that defines the constant.
    pub owner: BodyId,
    /// Name of the value in that graph or function: the initializer's name, or the output of the `Constant` node.
    pub name: &'a str,
    /// Whether there is an odd number of two-dimensional transposes between the tensor and the value.
    pub transposed: bool,
    /// Nodes between the value and the tensor, with the `Constant` node if there is one, as graph or function and node
    /// index. The node next to the value is first.
    pub chain: Vec<(BodyId, usize)>,
    /// Whether a caller may override the constant: it is an initializer that is also an input
    /// ([`View::is_optional_input`]). Only [`View::constant_or_default`] returns such constants.
    pub overridable: bool,
    /// Element type of the value as an ONNX number: that of the tensor, or of the last `Cast`.
    pub dtype: i32,
}

impl<'a> View<'a> {
    /// Returns the constant from which the value `name` of `body` follows: an initializer or the tensor of a `Constant`
    /// node, also of an enclosing graph, through at most 31 nodes `Identity`, two-dimensional `Transpose` and `Cast`
    /// between float types. Returns `None` if there is no such constant, or if a caller may override it
    /// ([`Constant::overridable`]).
    pub fn constant(&self, body: BodyId, name: &str) -> Option<Constant<'a>> {
        self.constant_or_default(body, name).filter(|constant| !constant.overridable)
    }

    /// Returns the constant of the value `name` of `body` like [`View::constant`], or the default value of an optional
    /// input; [`Constant::overridable`] distinguishes the two.
    ///
    /// This is meant for callers that need only a name or a shape, or that make sure that an overriding value is either
    /// used or refused: a result that uses the default while the input still exists is wrong.
    pub fn constant_or_default(&self, body: BodyId, name: &str) -> Option<Constant<'a>> {
        let mut chain = Vec::new();
        let mut transposed = false;
        let mut cast: Option<i32> = None;
        let (mut at, mut name) = (body, name);
        // The model has no cycles; the limit keeps long chains cheap.
        for _ in 0..32 {
            let (owner, producer) = self.producer(at, name)?;
            match producer {
                Producer::Initializer(index) => {
                    let graph = self.bodies[owner].graph?;
                    let tensor = &graph.initializer[index];
                    let name = tensor.name.as_deref()?;
                    let overridable = self.is_optional_input(owner, name);
                    let dtype = seen_as(tensor, cast)?;
                    return Some(Constant { tensor, owner, name, transposed, chain, overridable, dtype });
                }
                Producer::Node(index) => {
                    let node = self.node(owner, index);
                    chain.push((owner, index));
                    // The perm, type or value depends on the call of the function.
                    if node.refers() {
                        return None;
                    }
                    if node.is("Constant") {
                        let value = node.attribute.iter().find(|a| a.kind == Some(attribute_kind::TENSOR))?;
                        let (tensor, name) = (value.t.as_deref()?, node.output.first()?.as_str());
                        let dtype = seen_as(tensor, cast)?;
                        return Some(Constant { tensor, owner, name, transposed, chain, overridable: false, dtype });
                    }
                    if node.is("Transpose") {
                        match node.attribute("perm").map(|a| a.ints.as_slice()) {
                            // Without perm, all dimensions are reversed; a `Matrix` has two.
                            None | Some([1, 0]) => transposed = !transposed,
                            Some([0, 1]) => {}
                            _ => return None,
                        }
                    } else if node.is("Cast") {
                        // The last Cast before the reader determines the type.
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

/// Returns the element type of a constant after a `Cast` to `cast`; `None` if the cast changes the type, and one of the
/// types is not float32, float16 or bfloat16.
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

impl Constant<'_> {
    /// Returns the elements as float32 in storage order (not transposed), rounded to the type of the value; `None` if
    /// they are not float32, float16 or bfloat16.
    pub fn floats(&self) -> Option<Vec<f32>> {
        let mut values = Matrix::flat(self.tensor).ok()?.values();
        // The reader sees the values after a Cast to a narrower type.
        floats::round(&mut values, DataType::from_onnx(self.dtype)?);
        Some(values)
    }

    /// Returns whether all elements are finite floats after rounding to the type of the value.
    pub fn is_finite(&self) -> bool {
        self.floats().is_some_and(|values| values.iter().all(|v| v.is_finite()))
    }
}

/// Returns the elements of an integer tensor (int64 or int32), however they are stored; `None` for other types.
pub fn whole_numbers(tensor: &TensorProto) -> Option<Vec<i64>> {
    let dtype = tensor.dtype()?;
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

/// A two-dimensional float32, float16 or bfloat16 tensor, whose elements are read as `f32`.
#[derive(Clone)]
pub struct Matrix {
    /// Number of stored rows.
    pub rows: usize,
    /// Number of stored columns.
    pub columns: usize,
    dtype: DataType,
    raw: Bytes,
}

impl Matrix {
    /// Returns a matrix over the elements of `tensor`. Fails with [`crate::error::Kind::Unsupported`] if the tensor
    /// does not have two dimensions or is not float32, float16 or bfloat16, and with
    /// [`crate::error::Kind::InvalidModel`] if its size does not match its shape.
    pub fn new(tensor: &TensorProto) -> Result<Matrix> {
        let &[rows, columns] = tensor.dims.as_slice() else {
            bail!(Unsupported, "the weight has {} dimensions, not 2", tensor.dims.len());
        };
        Matrix::shaped(tensor, rows, columns)
    }

    /// Returns the elements of a tensor of any shape as one row. Fails like [`Matrix::new`], except that the tensor may
    /// have any number of dimensions.
    pub fn flat(tensor: &TensorProto) -> Result<Matrix> {
        Matrix::shaped(tensor, 1, tensor.dims.iter().product())
    }

    /// Returns the elements of a tensor of any shape as `rows` × `columns`. Fails like [`Matrix::flat`], and with
    /// [`crate::error::Kind::InvalidModel`] if the number of elements differs.
    pub fn shaped(tensor: &TensorProto, rows: i64, columns: i64) -> Result<Matrix> {
        let dtype = tensor.dtype();
        let dtype = match dtype {
            Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16) => dtype.unwrap_or(DataType::Float32),
            Some(other) => bail!(Unsupported, "the weight is {}, not float", other.name()),
            None => bail!(Unsupported, "the weight has the unknown type {}", tensor.data_type.unwrap_or(0)),
        };
        // Typed fields are rare and small; they are converted to raw bytes once.
        let raw = floats::raw(tensor)?;
        let (rows, columns) = (usize::try_from(rows).unwrap_or(0), usize::try_from(columns).unwrap_or(0));
        let matrix = Matrix { rows, columns, dtype, raw };
        if rows.checked_mul(columns).and_then(|n| n.checked_mul(matrix.width())) != Some(matrix.raw.len()) {
            bail!(InvalidModel, "the size of the weight does not match its shape {:?}", tensor.dims);
        }
        Ok(matrix)
    }

    /// Returns all elements, row after row.
    pub fn values(&self) -> Vec<f32> {
        let mut values = vec![0f32; self.elements()];
        // The rows are contiguous.
        let row = Matrix { rows: 1, columns: values.len(), ..self.clone() };
        row.read(0, 0, &mut values);
        values
    }

    /// Returns the stored element type: float32, float16 or bfloat16.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Returns the stored elements as little-endian bytes.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Returns the number of elements of the matrix.
    pub fn elements(&self) -> usize {
        self.rows * self.columns
    }

    /// Returns the size of one element in bytes.
    pub fn width(&self) -> usize {
        self.dtype.bits() as usize / 8
    }

    /// Reads `out.len()` elements of the row `row`, from the column `from` on, into `out`. Panics if the matrix ends
    /// before them.
    pub fn read(&self, row: usize, from: usize, out: &mut [f32]) {
        let width = self.width();
        let start = (row * self.columns + from) * width;
        let bytes = &self.raw[start..start + out.len() * width];
        // Mapped weights may be unaligned, so they are read as bytes; this compiles to plain loads.
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

    /// Releases the memory pages of the rows in a range; see [`crate::files::release`].
    pub fn release(&self, rows: std::ops::Range<usize>) {
        let width = self.width() * self.columns;
        crate::files::release(&self.raw[rows.start * width..rows.end * width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::edit::{self, float_tensor};
    use crate::onnx::proto::*;

    fn of(ir: i64, inputs: &[&str], nodes: Vec<NodeProto>) -> ModelProto {
        let graph = GraphProto {
            node: nodes,
            initializer: vec![float_tensor("w", &[2, 2], &[1.0, 2.0, f32::INFINITY, 7e4])],
            input: inputs.iter().map(|name| edit::untyped(name)).collect(),
            ..Default::default()
        };
        ModelProto { ir_version: Some(ir), graph: Some(Box::new(graph)), ..Default::default() }
    }

    #[test]
    fn what_a_caller_may_give_is_no_constant_from_ir_version_4_on() {
        for (ir, inputs, constant) in [(8, &["x"][..], true), (8, &["x", "w"], false), (3, &["x", "w"], true)] {
            let model = of(ir, inputs, vec![edit::node("Identity", &["w"], &["v"])]);
            let view = View::new(&model);
            for name in ["w", "v"] {
                assert_eq!(view.constant(0, name).is_some(), constant, "{ir} {name}");
                assert_eq!(view.constant_or_default(0, name).map(|c| c.overridable), Some(!constant), "{ir} {name}");
            }
        }
    }

    #[test]
    fn an_attribute_that_the_call_gives_is_not_its_default() {
        let mut turn = edit::node("Transpose", &["w"], &["v"]);
        let plain = of(8, &["x"], vec![turn.clone()]);
        assert!(View::new(&plain).constant(0, "v").is_some_and(|c| c.transposed));
        let reference = Some("order".to_owned());
        turn.attribute =
            vec![AttributeProto { name: Some("perm".into()), ref_attr_name: reference, ..Default::default() }];
        assert!(turn.refers() && !turn.is("Transpose"));
        let given = of(8, &["x"], vec![turn]);
        assert!(View::new(&given).constant(0, "v").is_none());
    }

    #[test]
    fn elements_are_what_the_reader_sees() {
        let mut cast = edit::node("Cast", &["w"], &["v"]);
        cast.attribute = vec![edit::int_attribute("to", i64::from(DataType::Float16.to_onnx()))];
        let model = of(8, &["x"], vec![cast]);
        let view = View::new(&model);
        let (w, v) = (view.constant(0, "w").unwrap(), view.constant(0, "v").unwrap());
        assert_eq!(w.floats().unwrap(), [1.0, 2.0, f32::INFINITY, 7e4]);
        assert_eq!(v.floats().unwrap(), [1.0, 2.0, f32::INFINITY, f32::INFINITY]);
        assert!(!w.is_finite());
    }
}
