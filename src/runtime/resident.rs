//! Memory on the device of a session (the GPU, or the CPU) that is kept across runs and sessions ([`Resident`]). Memory
//! on a GPU is copied to the CPU only on request.

use super::library::guarded;
use super::mapped::Lent;
use super::session::{lend, place_of, take};
use super::{Session, Stop, Tensor};
use crate::counters;
use crate::error::{Context, Result, bail};
use ort::memory::{Allocator, MemoryInfo};
use ort::session::IoBinding;
use ort::value::Tensor as Value;

/// Float32 values that stay on the device of a session.
///
/// All sessions that the values are bound to must run on the same device. The values must be dropped before the session
/// that created them.
pub struct Resident {
    values: Vec<Value<f32>>,
    shapes: Vec<Vec<i64>>,
}

/// A session with resident memory as inputs and outputs, bound once.
pub struct Bound {
    binding: IoBinding,
    /// Inputs of the latest run, to which the binding still refers.
    inputs: Vec<(String, Lent)>,
    /// Names of the outputs that runs return in addition.
    given: Vec<String>,
    session: usize,
}

impl Resident {
    /// Writes the elements of the value `index`, a position in the shapes of [`Session::resident`]. Fails with
    /// `Runtime` if their number is not that of the shape, or if ONNX Runtime cannot copy them. Panics if there is no
    /// value with this index.
    pub fn put(&mut self, index: usize, elements: &[f32]) -> Result<()> {
        let shape = self.shapes[index].clone();
        guarded("copying to a device", || {
            let host = Value::from_array((shape, elements.to_vec()))?;
            Ok(host.copy_into(&mut self.values[index])?)
        })
    }

    /// Returns a copy of the elements of the value `index`. Fails with `Runtime` if ONNX Runtime cannot copy them.
    /// Panics if there is no value with this index.
    pub fn get(&self, index: usize) -> Result<Vec<f32>> {
        guarded("copying from a device", || {
            let mut host = Value::<f32>::new(&Allocator::default(), self.shapes[index].clone())?;
            self.values[index].copy_into(&mut host)?;
            Ok(host.try_extract_tensor::<f32>()?.1.to_vec())
        })
    }
}

impl Session {
    /// Returns zeroed memory for float32 values of these shapes, on the device of this session. Fails with `Runtime` if
    /// ONNX Runtime cannot allocate it.
    pub fn resident(&self, shapes: &[Vec<i64>]) -> Result<Resident> {
        let make = || {
            let allocator = match self.device_memory()? {
                Some(info) => Allocator::new(&self.inner, info)?,
                None => Allocator::default(),
            };
            let mut values = Vec::with_capacity(shapes.len());
            for shape in shapes {
                values.push(Value::<f32>::new(&allocator, shape.clone())?);
            }
            Ok(Resident { values, shapes: shapes.to_vec() })
        };
        let mut made = guarded("taking memory of a device", make)?;
        for (index, shape) in shapes.iter().enumerate() {
            made.put(index, &vec![0.0; shape.iter().product::<i64>() as usize])?;
        }
        Ok(made)
    }

    /// Binds resident memory to inputs and outputs of this session, and returns the binding. `inputs` and `outputs` are
    /// names with the index of a value. A value may be both input and output if each node that writes it runs after all
    /// nodes that read it, or reads it element by element itself. `given` are the names of outputs that runs return in
    /// addition. Fails with `Runtime` if ONNX Runtime refuses a name or a value. Panics if there is no value with a
    /// given index.
    pub fn bind(
        &self,
        memory: &mut Resident,
        inputs: &[(&str, usize)],
        outputs: &[(&str, usize)],
        given: &[&str],
    ) -> Result<Bound> {
        guarded("binding memory to a model", || {
            let mut binding = self.inner.create_binding()?;
            for (name, index) in inputs {
                binding.bind_input(*name, &memory.values[*index])?;
            }
            for (name, index) in outputs {
                binding.bind_output(*name, &mut memory.values[*index])?;
            }
            let given = given.iter().map(|name| (*name).to_owned()).collect();
            Ok(Bound { binding, inputs: Vec::new(), given, session: self.id() })
        })
    }

    /// Runs the model on its bound memory. `inputs` are the inputs that are not bound. Returns the outputs `given` of
    /// [`Session::bind`]. `stop` can end the run.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] for a binding of another session or inputs outside the shape
    /// contract of a package, with `NotFound` for an input that the contract does not have, and with `Runtime` if ONNX
    /// Runtime fails, also because `stop` ended the run. After an error, the memory may be partly written.
    pub fn run_bound(&mut self, bound: &mut Bound, inputs: &[(&str, &Tensor)], stop: &Stop) -> Result<Vec<Tensor>> {
        if bound.session != self.id() {
            bail!(InvalidArgument, "the memory was bound to another session");
        }
        self.keep(inputs)?;
        let mut run = || {
            for (name, tensor) in inputs {
                let lent = lend(tensor).at(|| place_of(name))?;
                bound.binding.bind_input(*name, &lent.value)?;
                bound.inputs.retain(|(known, _)| known != name);
                bound.inputs.push(((*name).to_owned(), lent));
            }
            bound.binding.synchronize_inputs()?;
            // The outputs are bound again for every run; otherwise a run would overwrite those of the previous one.
            let host = MemoryInfo::default();
            for name in &bound.given {
                bound.binding.bind_output_to_device(name.as_str(), &host)?;
            }
            let made = self.inner.run_binding_with_options(&bound.binding, &stop.options)?;
            bound.binding.synchronize_outputs()?;
            let mut values: Vec<_> = made.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            values.retain(|(name, _)| bound.given.contains(name));
            Ok(values)
        };
        let values = counters::run(|| guarded("running a model", &mut run))?;
        let give = |(name, value)| -> Result<Tensor> {
            take(value, bound.inputs.iter().map(|(_, lent)| lent)).at(|| format!("output {name:?}"))
        };
        values.into_iter().map(give).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;
    use crate::model::Model;
    use crate::runtime::testing::*;
    use crate::runtime::{SessionOptions, test_runtime};

    #[test]
    fn two_sessions_work_on_the_same_memory() {
        let session = |op: &str| {
            let inputs = vec![value("x", 1, &["n"]), value("by", 1, &["n"])];
            let graph = graph(
                vec![node(op, &["x", "by"], "y"), node("Neg", &["by"], "z")],
                inputs,
                vec![value("y", 1, &["n"]), value("z", 1, &["n"])],
            );
            Session::new(test_runtime(), &Model::from_proto(model(graph)), &SessionOptions::default(), &Call::default())
                .unwrap()
        };
        let (mut add, mut multiply) = (session("Add"), session("Mul"));
        let mut memory = add.resident(&[vec![3], vec![2]]).unwrap();
        memory.put(0, &[1.0, 2.0, 3.0]).unwrap();
        let mut first = add.bind(&mut memory, &[("x", 0)], &[("y", 0)], &["z"]).unwrap();
        let mut second = multiply.bind(&mut memory, &[("x", 0)], &[("y", 0)], &["z"]).unwrap();
        let stop = Stop::new().unwrap();
        for by in [1.0, 2.0] {
            let by = Tensor::from_f32(&[3], vec![by; 3]).unwrap();
            let given = add.run_bound(&mut first, &[("by", &by)], &stop).unwrap();
            assert_eq!(given[0].as_slice::<f32>().unwrap()[2], -by.as_slice::<f32>().unwrap()[2]);
            multiply.run_bound(&mut second, &[("by", &by)], &stop).unwrap();
        }
        // ((x + 1) 1 + 2) 2
        assert_eq!(memory.get(0).unwrap(), [8.0, 10.0, 12.0]);
        assert_eq!(memory.get(1).unwrap(), [0.0, 0.0]);
        assert!(memory.put(0, &[1.0]).is_err());
        assert!(add.run_bound(&mut second, &[], &stop).is_err());
    }
}
