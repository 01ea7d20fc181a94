//! Runs of a session that write the outputs to memory of the caller.

use super::library::guarded;
use super::mapped;
use super::providers::Provider;
use super::session::{lend, place_of};
use super::tensor::is_aligned;
use super::{Session, Stop, Tensor, inputs};
use crate::call::Call;
use crate::counters;
use crate::error::{Context, Error, Kind, Result, bail};
use crate::model::Dim;
use crate::onnx::dtype::{DataType, element_count};

/// Parts of ONNX Runtime's messages for an output that gets another shape than its memory has.
const OTHER_SHAPE: [&str; 2] = ["The output OrtValue provided", "shape verification failed"];

/// Memory of the caller for one output of a run.
pub struct Destination<'a> {
    /// Name of the output.
    pub name: &'a str,
    /// Element type; strings are not possible.
    pub dtype: DataType,
    /// Shape of the output in this run.
    pub shape: &'a [i64],
    /// The memory, of the size that type and shape need, and aligned for the type.
    pub memory: &'a mut [u8],
}

impl Destination<'_> {
    /// Copies the elements of a tensor into the memory. Fails with [`Kind::InvalidArgument`] if the tensor has another
    /// type or shape.
    pub fn fill(&mut self, tensor: &Tensor) -> Result<()> {
        if (tensor.dtype(), tensor.shape()) != (self.dtype, self.shape) {
            let (made, wanted) = ((tensor.dtype().name(), tensor.shape()), (self.dtype.name(), self.shape));
            bail!(
                InvalidArgument,
                "output {:?} is {} of shape {:?}, not {} of shape {:?}",
                self.name,
                made.0,
                made.1,
                wanted.0,
                wanted.1
            );
        }
        self.memory.copy_from_slice(tensor.bytes());
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.dtype == DataType::String {
            bail!(Unsupported, "strings cannot be written to memory of the caller");
        }
        if self.dtype.bytes_of(element_count(self.shape)?)? != self.memory.len() as u64 {
            bail!(InvalidArgument, "{} bytes do not fit the shape {:?}", self.memory.len(), self.shape);
        }
        if !is_aligned(self.memory, self.dtype) {
            bail!(InvalidArgument, "the memory is not aligned for {}", self.dtype.name());
        }
        Ok(())
    }
}

impl Session {
    /// Runs the model like [`Session::run`], and writes the outputs to `outputs`. They are written without a copy,
    /// except on a GPU, or if one of them is empty or has the name of an input: then all are copied.
    ///
    /// Fails with the errors of [`Session::run`], with [`Kind::Unsupported`] for strings, and with
    /// [`Kind::InvalidArgument`] if an output has another type or shape than its [`Destination`]. The latter is also
    /// the error if the memory does not have the size that type and shape need, or is not aligned for the type. After
    /// an error in the run, the content of the memory is undefined.
    pub fn run_into(&self, inputs: &[(&str, &Tensor)], outputs: &mut [Destination<'_>], call: &Call) -> Result<()> {
        let names: Vec<&str> = outputs.iter().map(|output| output.name).collect();
        self.wanted(&names)?;
        for output in outputs.iter() {
            output.check().and_then(|()| self.fits(output)).at(|| format!("output {:?}", output.name))?;
        }
        // Outputs on a device are copied to the host in any case.
        let copies = self.provider() != Provider::Cpu || outputs.iter().any(|output| output.memory.is_empty());
        if copies || self.passes_through(outputs) {
            let made = self.run(inputs, &names, call)?;
            return outputs.iter_mut().zip(&made).try_for_each(|(output, (_, tensor))| output.fill(tensor));
        }
        let stop = Stop::new()?;
        stop.during(call, || self.write(inputs, outputs, &stop))
    }

    fn write(&self, inputs: &[(&str, &Tensor)], outputs: &mut [Destination<'_>], stop: &Stop) -> Result<()> {
        self.check_inputs(inputs)?;
        let lent: Result<Vec<_>> = inputs.iter().map(|(name, tensor)| lend(tensor).at(|| place_of(name))).collect();
        let lent = lent?;
        let fed: Vec<_> = inputs.iter().zip(&lent).map(|((name, _), lent)| (*name, &lent.value)).collect();
        let values: Result<Vec<_>> = outputs
            .iter_mut()
            .map(|output| Ok((output.name, mapped::value_into(output.dtype, output.shape, output.memory)?)))
            .collect();
        let values = values?;
        let run = || guarded("running a model", || mapped::run_into(&self.inner, &fed, &values, &stop.options));
        // `OTHER_SHAPE` has the messages of ONNX Runtime 1.32 and of older versions.
        let other_shape = |e: &Error| OTHER_SHAPE.iter().any(|text| e.message().contains(text));
        counters::run(|| self.limited(run)).map_err(|e| match other_shape(&e) {
            true => Error::new(Kind::InvalidArgument, format!("an output gets another shape: {e}")),
            false => e,
        })
    }

    /// Fails if the inputs do not match the signature of the model or the contract of its package.
    pub(super) fn check_inputs(&self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        inputs::check(self.signature(), inputs)?;
        self.keep(inputs)
    }

    /// Fails if the output of the model has another type, rank or fixed size than its memory.
    fn fits(&self, output: &Destination<'_>) -> Result<()> {
        let Some(info) = self.outputs().iter().find(|info| info.name == output.name) else { return Ok(()) };
        if let Some(dtype) = info.dtype.filter(|dtype| *dtype != output.dtype) {
            bail!(InvalidArgument, "the type is {}, not {}", dtype.name(), output.dtype.name());
        }
        let Some(shape) = &info.shape else { return Ok(()) };
        let fits = |(dim, size): (&Dim, &i64)| !matches!(dim, Dim::Fixed(fixed) if fixed != size);
        if shape.len() != output.shape.len() || !shape.iter().zip(output.shape).all(fits) {
            bail!(InvalidArgument, "the shape {:?} does not fit that of the model", output.shape);
        }
        Ok(())
    }

    /// Returns whether an output has the name of an input: ONNX Runtime would then not write it.
    fn passes_through(&self, outputs: &[Destination<'_>]) -> bool {
        outputs.iter().any(|output| self.inputs().iter().any(|input| input.name == output.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::runtime::testing::*;
    use crate::runtime::{SessionOptions, test_runtime};

    fn session() -> Session {
        let nodes =
            vec![node("Add", &["x", "w"], "sum"), node("Identity", &["x"], "same"), node("Neg", &["w"], "fixed")];
        let outputs = ["sum", "same", "fixed"].map(|name| value(name, 1, &["n", "2"]));
        let mut graph = graph(nodes, vec![value("x", 1, &["n", "2"])], outputs.to_vec());
        graph.initializer = vec![weight("w", &[1, 2], &[10.0, 20.0])];
        let model = Model::from_proto(model(graph));
        Session::new(test_runtime(), &model, &SessionOptions::default(), &Call::default()).unwrap()
    }

    fn run(session: &Session, outputs: &mut [(&str, &[i64], &mut [f32])]) -> Result<()> {
        let x = Tensor::from_f32(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let mut bytes: Vec<Vec<u8>> = Vec::new();
        let mut places = Vec::new();
        for (_, _, memory) in outputs.iter() {
            bytes.push(vec![0; memory.len() * 4 + 64]);
        }
        for ((name, shape, memory), bytes) in outputs.iter().zip(&mut bytes) {
            let skip = bytes.as_ptr().align_offset(16);
            let memory = &mut bytes[skip..skip + memory.len() * 4];
            places.push(Destination { name, dtype: DataType::Float32, shape, memory });
        }
        session.run_into(&[("x", &x)], &mut places, &Call::default())?;
        let read = |place: &Destination<'_>| -> Vec<f32> {
            place.memory.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let written: Vec<Vec<f32>> = places.iter().map(read).collect();
        outputs.iter_mut().zip(written).for_each(|((_, _, memory), written)| memory.copy_from_slice(&written));
        Ok(())
    }

    #[test]
    fn outputs_are_written_to_the_memory_of_the_caller() {
        let session = session();
        let (mut sum, mut same, mut fixed) = ([0.0; 4], [0.0; 4], [0.0; 2]);
        run(&session, &mut [("same", &[2, 2], &mut same), ("fixed", &[1, 2], &mut fixed), ("sum", &[2, 2], &mut sum)])
            .unwrap();
        assert_eq!((sum, same, fixed), ([11.0, 22.0, 13.0, 24.0], [1.0, 2.0, 3.0, 4.0], [-10.0, -20.0]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let session = session();
        let mut memory = [0.0; 8];
        let mut refused = |name: &str, shape: &[i64], count: usize| {
            let failed = run(&session, &mut [(name, shape, &mut memory[..count])]).unwrap_err();
            failed.kind()
        };
        assert_eq!(refused("none", &[2, 2], 4), Kind::NotFound);
        assert_eq!(refused("sum", &[2, 2], 3), Kind::InvalidArgument);
        assert_eq!(refused("sum", &[4], 4), Kind::InvalidArgument);
        assert_eq!(refused("sum", &[2, 3], 6), Kind::InvalidArgument);
        // Only the run shows that there are two rows.
        assert_eq!(refused("sum", &[3, 2], 6), Kind::InvalidArgument);
        assert_eq!(refused("sum", &[0, 2], 0), Kind::InvalidArgument);
        let mut sum = [0.0; 4];
        run(&session, &mut [("sum", &[2, 2], &mut sum)]).unwrap();
        assert_eq!(sum, [11.0, 22.0, 13.0, 24.0]);
    }
}
