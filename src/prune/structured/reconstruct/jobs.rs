//! The weights that reconstruction can change, and the rows of their inputs.

use super::patches::Window;
use crate::calibrate::Batch;
use crate::error::Result;
use crate::graph::constants::Matrix;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::TensorProto;
use crate::prune::structured::analysis::{Analysis, Consumer};
use crate::prune::structured::axes::{Axis, Kept};
use crate::runtime::Tensor;

/// A weight that is changed to compensate removed units.
pub struct Job {
    /// Name of the weight.
    pub weight: String,
    /// Tensor of the weight as stored.
    pub tensor: TensorProto,
    /// Dimension of the matrix that is summed over.
    pub at: usize,
    /// Kept elements of that dimension; for a convolution, each tap of each channel is an element.
    pub kept: Vec<u32>,
    /// Name of the value that is multiplied with the weight.
    pub input: String,
    /// Name and tensor of the bias that is added to the product.
    pub bias: Option<(String, TensorProto)>,
    /// Window, if the weight belongs to a convolution.
    pub window: Option<Window>,
}

impl Job {
    /// Returns the weight as a matrix. Fails like [`Matrix::shaped`].
    pub fn matrix(&self) -> Result<Matrix> {
        let rows = self.tensor.dims.first().copied().unwrap_or(0);
        Matrix::shaped(&self.tensor, rows, self.tensor.dims.iter().skip(1).product())
    }

    /// Returns the number of inputs that each output of the weight sums over.
    pub fn size(&self) -> usize {
        let size = match self.at {
            0 => self.tensor.dims.first().copied().unwrap_or(0),
            _ => self.tensor.dims.iter().skip(1).product(),
        };
        usize::try_from(size).unwrap_or(0)
    }

    /// Returns `value`, the input of the weight for `batch`, as a matrix `[rows, size]`. For a convolution, `count` is
    /// the number of batches, which share the number of rows. Fails with `InvalidModel` if the value does not fit the
    /// weight.
    pub fn rows(&self, batch: &Batch, value: &Tensor, count: usize) -> Result<Tensor> {
        match &self.window {
            None => batch.rows(value, self.size()),
            Some(window) => window.rows(value, self.size(), count),
        }
    }
}

/// Returns the weights that can be changed, in the order in which they run. Reasons against others are added to
/// `notes`.
pub fn jobs(analysis: &Analysis<'_>, kept: &Kept, notes: &mut Vec<String>) -> Vec<Job> {
    let place = analysis.places();
    let mut list: Vec<&Consumer<'_>> = analysis.consumers.iter().collect();
    list.sort_by_key(|consumer| place[consumer.node as usize]);
    let mut jobs = Vec::new();
    for consumer in list.into_iter().filter(|c| kept.of(Axis::Units(c.axis)).is_some()) {
        match job(analysis, kept, consumer) {
            Ok(job) => jobs.push(job),
            Err(why) => {
                let note = format!("the weight {:?} is not reconstructed: {why}", consumer.constant);
                // A weight that several nodes read has several consumers.
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
    }
    jobs
}

fn job(analysis: &Analysis<'_>, kept: &Kept, consumer: &Consumer<'_>) -> std::result::Result<Job, &'static str> {
    let node = &analysis.graph.node[consumer.node as usize];
    let (tensor, value) = (analysis.constants[consumer.constant], &analysis.values[consumer.constant]);
    let holds = |axis: &Axis| matches!(axis, Axis::Units(id) if *id == consumer.axis);
    let at = value.axes.iter().position(holds).ok_or("it is not used in the form in which it is stored")?;
    let input = analysis.values.get(consumer.input).ok_or("its input is not known")?;
    let window = if node.is("Conv") { Some(Window::of(node, tensor).filter(|_| at == 1)) } else { None };
    let window = match window {
        Some(None) => return Err("it is a grouped convolution, or its padding is not explicit"),
        Some(window) => window,
        None if !(node.is("MatMul") || node.is("Gemm")) || value.rank() != 2 => {
            return Err("it is not a matrix on the right-hand side");
        }
        None if consumer.dimension + 1 != input.rank() => return Err("it is not a matrix on the right-hand side"),
        None => None,
    };
    if uses(analysis, consumer.constant) != 1 {
        return Err("it is used more than once");
    }
    if node.float("alpha", 1.0) != 1.0 || node.float("beta", 1.0) != 1.0 {
        return Err("its product is scaled");
    }
    let taps = window.as_ref().map_or(1, Window::taps) as u32;
    let list = kept.of(Axis::Units(consumer.axis)).unwrap_or_default();
    Ok(Job {
        weight: consumer.constant.to_owned(),
        tensor: tensor.clone(),
        at,
        kept: list.iter().flat_map(|channel| channel * taps..(channel + 1) * taps).collect(),
        input: consumer.input.to_owned(),
        bias: bias(analysis, consumer),
        window,
    })
}

/// Returns the number of nodes that read a value.
fn uses(analysis: &Analysis<'_>, name: &str) -> usize {
    analysis.consumers_of.get(name).map_or(0, Vec::len)
}

/// Returns the vector that is added to the product and used nowhere else, with its name; `None` if there is none.
fn bias(analysis: &Analysis<'_>, consumer: &Consumer<'_>) -> Option<(String, TensorProto)> {
    let node = &analysis.graph.node[consumer.node as usize];
    let output = node.output.first()?;
    let name = match node.input_at(2).filter(|_| node.is("Gemm") || node.is("Conv")) {
        Some(name) => name,
        None if node.is("Conv") => return None,
        None => {
            let readers = analysis.consumers_of.get(output.as_str())?;
            let add = readers.first().map(|first| &analysis.graph.node[*first]).filter(|n| n.is("Add"))?;
            if readers.iter().any(|reader| *reader != readers[0])
                || analysis.graph.output.iter().any(|o| o.name.as_ref() == Some(output))
            {
                return None;
            }
            add.input.iter().map(String::as_str).find(|name| *name != output)?
        }
    };
    let tensor = analysis.constants.get(name)?;
    let float = matches!(tensor.dtype(), Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16));
    (tensor.dims.len() == 1 && float && uses(analysis, name) == 1).then(|| (name.to_owned(), (*tensor).clone()))
}
