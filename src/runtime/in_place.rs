//! Memory that a model reads as input and writes as output at the same time ([`InPlace`]), and a way to end several
//! runs together ([`Stop`]).

use super::library::guarded;
use super::mapped::{Lent, Room};
use super::providers::Provider;
use super::session::{lend, place_of, take};
use super::tensor::aligned_copy;
use super::watch::watched;
use super::{Element, Session, Tensor};
use crate::call::Call;
use crate::counters;
use crate::error::{Context, Result, bail, error};
use crate::onnx::dtype::{DataType, element_count};
use ort::memory::MemoryInfo;
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions};
use ort::value::DynValue;

/// A switch that ends all runs that it was passed to if the call of [`Stop::during`] is cancelled or its deadline
/// passes.
pub struct Stop {
    /// Options of the runs, through which ONNX Runtime is told to end them.
    pub(super) options: RunOptions<NoSelectedOutputs>,
}

impl Stop {
    /// Returns a stop that has not been triggered. Fails with `Runtime` if ONNX Runtime cannot create the options of a
    /// run.
    pub fn new() -> Result<Stop> {
        Ok(Stop { options: RunOptions::new()? })
    }

    /// Runs `work` on this thread and returns its result. If `call` is cancelled or its deadline passes, runs with this
    /// stop end at their next node, and if `work` then fails, the error is `Cancelled` or `Timeout`. A triggered stop
    /// stays triggered.
    pub fn during<T>(&self, call: &Call, work: impl FnOnce() -> Result<T>) -> Result<T> {
        watched(call, || drop(self.options.terminate()), work)
    }
}

/// The description of memory that a model reads as an input, writes as an output, or both.
#[derive(Debug, Clone)]
pub struct Place {
    /// Name of the input; `None` if the memory is only written.
    pub input: Option<String>,
    /// Name of the output; `None` if the memory is only read.
    pub output: Option<String>,
    /// Element type of the value; strings are not possible.
    pub dtype: DataType,
    /// Shape of the value.
    pub shape: Vec<i64>,
}

/// Memory that a session reads as inputs and writes as outputs, and that is bound once for many runs. Examples are the
/// cache of a decoder, to which each run appends a token without a copy, and weights that change between runs, with
/// their gradients. It consists of one block of memory for each [`Place`]; the functions below take the index of a
/// place and panic if it does not exist.
///
/// Memory may be input and output at the same time only for models whose kernels support it, such as
/// GroupQueryAttention: other kernels would overwrite values that they still read.
pub struct InPlace {
    // The binding is dropped before the memory that it refers to, because fields are dropped in this order.
    binding: IoBinding,
    /// Inputs of the latest run, to which the binding still refers.
    inputs: Vec<(String, Lent)>,
    rooms: Vec<Room>,
    /// Description of each of `rooms`. A session on a GPU works on a copy of the memory, which is bound again with
    /// these names before every run.
    places: Vec<Place>,
    outputs: Vec<String>,
    session: usize,
}

impl InPlace {
    /// Returns the memory of the place `index` as bytes, in row-major order and native byte order.
    pub fn bytes(&self, index: usize) -> &[u8] {
        self.rooms[index].bytes()
    }

    /// Returns the memory of the place `index` as elements of type `T`. If the place has another type, its bytes are
    /// reinterpreted.
    pub fn elements<T: Element>(&self, index: usize) -> &[T] {
        self.rooms[index].elements()
    }

    /// Returns the memory of the place `index` as mutable elements of type `T`, like [`InPlace::elements`].
    pub fn elements_mut<T: Element>(&mut self, index: usize) -> &mut [T] {
        self.rooms[index].elements_mut()
    }

    /// Returns the memory of each place as mutable elements of type `T`, in the order of the places.
    pub fn all_mut<T: Element>(&mut self) -> Vec<&mut [T]> {
        self.rooms.iter_mut().map(Room::elements_mut).collect()
    }

    /// Returns the memory of the place `index` as mutable bytes.
    pub fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        self.rooms[index].bytes_mut()
    }

    /// Returns an output as a tensor that does not share memory with the places.
    fn give(&self, value: DynValue) -> Result<Tensor> {
        let tensor = take(value, self.inputs.iter().map(|(_, lent)| lent))?;
        // An output that passes one of the places through would change with the next run.
        let start = tensor.bytes().as_ptr();
        if self.rooms.iter().any(|room| room.bytes().as_ptr_range().contains(&start)) {
            return Tensor::new(tensor.dtype(), tensor.shape(), aligned_copy(tensor.bytes()));
        }
        Ok(tensor)
    }

    /// Binds the inputs again for a session on a GPU, which copies the content of the memory when it is bound.
    fn bind_rooms(&mut self) -> Result<()> {
        for (place, room) in self.places.iter().zip(&mut self.rooms) {
            if let Some(input) = &place.input {
                self.binding.bind_input(input.as_str(), &room.value(place.dtype, &place.shape)?)?;
            }
        }
        Ok(())
    }

    fn bind(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let lent = lend(tensor).at(|| place_of(name))?;
        self.binding.bind_input(name, &lent.value)?;
        match self.inputs.iter_mut().find(|(known, _)| known == name) {
            Some((_, before)) => *before = lent,
            None => self.inputs.push((name.to_owned(), lent)),
        }
        Ok(())
    }
}

impl Session {
    /// Allocates zeroed memory for `places`, binds it as inputs and outputs of this session, and returns it. `outputs`
    /// are the names of outputs that runs return in addition.
    ///
    /// Fails with [`crate::error::Kind::LimitExceeded`] if the memory is not available, with `InvalidModel` if a shape
    /// has a negative dimension or is too large, and with `Runtime` if ONNX Runtime rejects a name, a type or a shape.
    pub fn in_place(&self, places: &[Place], outputs: &[&str]) -> Result<InPlace> {
        let make = || {
            let mut binding = self.inner.create_binding()?;
            let mut rooms = Vec::with_capacity(places.len());
            for place in places {
                let size = usize::try_from(place.dtype.bytes_of(element_count(&place.shape)?)?);
                let size = size.map_err(|_| error!(LimitExceeded, "{:?} is too large", place.shape))?;
                let room = Room::zeroed(size)?;
                let mut value = room.value(place.dtype, &place.shape)?;
                if let Some(input) = &place.input {
                    binding.bind_input(input.as_str(), &value)?;
                }
                if let Some(output) = &place.output {
                    binding.bind_output(output.as_str(), &mut value)?;
                }
                rooms.push(room);
            }
            let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
            let places = places.to_vec();
            Ok(InPlace { binding, inputs: Vec::new(), rooms, places, outputs, session: self.id() })
        };
        self.limited(|| guarded("binding memory to a model", make))
    }

    /// Runs the model on memory from [`Session::in_place`] of the same session. `inputs` are the inputs that are not
    /// bound to the memory. Returns the outputs that [`Session::in_place`] named in addition to the places.
    ///
    /// The inputs are checked against the shape contract of a package, otherwise only by ONNX Runtime. Fails with
    /// [`crate::error::Kind::InvalidArgument`] for memory of another session or inputs outside the contract, with
    /// `NotFound` for an input that the contract does not have, and with `Runtime` if ONNX Runtime fails, also because
    /// `stop` ended the run. After an error, the memory may be partly written.
    pub fn run_in_place(
        &mut self,
        memory: &mut InPlace,
        inputs: &[(&str, &Tensor)],
        stop: &Stop,
    ) -> Result<Vec<Tensor>> {
        if memory.session != self.id() {
            bail!(InvalidArgument, "the memory was bound to another session");
        }
        self.keep(inputs)?;
        let elsewhere = self.provider() != Provider::Cpu;
        let mut run = || {
            if elsewhere {
                memory.bind_rooms()?;
            }
            for (name, tensor) in inputs {
                memory.bind(name, tensor)?;
            }
            if elsewhere {
                memory.binding.synchronize_inputs()?;
            }
            // The outputs are bound again for every run; otherwise a run would overwrite those of the previous one.
            let host = MemoryInfo::default();
            for name in &memory.outputs {
                memory.binding.bind_output_to_device(name.as_str(), &host)?;
            }
            let made = self.inner.run_binding_with_options(&memory.binding, &stop.options)?;
            if elsewhere {
                memory.binding.synchronize_outputs()?;
            }
            let mut values = Vec::with_capacity(memory.outputs.len());
            for (name, value) in made {
                if memory.outputs.iter().any(|output| output == name) {
                    values.push((name.to_owned(), value));
                }
            }
            Ok(values)
        };
        let budget = self.memory.clone();
        let values = counters::run(|| crate::memory::within(budget.as_ref(), || guarded("running a model", &mut run)))?;
        let give = |(name, value)| memory.give(value).at(|| format!("output {name:?}"));
        values.into_iter().map(give).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Cancel;
    use crate::error::Kind;
    use crate::model::Model;
    use crate::runtime::testing::*;
    use crate::runtime::{SessionOptions, test_runtime};

    /// Returns a session of `y = x + step`, `z = y + y`, and `x` unchanged.
    fn session() -> Session {
        let graph = graph(
            vec![node("Add", &["x", "step"], "y"), node("Add", &["y", "y"], "z"), node("Identity", &["x"], "w")],
            vec![value("x", 1, &["n"]), value("step", 1, &["n"])],
            vec![value("z", 1, &["n"]), value("y", 1, &["n"]), value("w", 1, &["n"])],
        );
        let model = Model::from_proto(model(graph));
        Session::new(test_runtime(), &model, &SessionOptions::default(), &Call::default()).unwrap()
    }

    fn place(size: i64) -> Place {
        Place { input: Some("x".into()), output: Some("y".into()), dtype: DataType::Float32, shape: vec![size] }
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect()
    }

    #[test]
    fn what_a_run_writes_is_what_the_next_one_reads() {
        let mut session = session();
        let mut memory = session.in_place(&[place(100)], &["z"]).unwrap();
        memory.bytes_mut(0)[..4].copy_from_slice(&10f32.to_ne_bytes());
        let stop = Stop::new().unwrap();
        let mut kept = Vec::new();
        for _ in 0..3 {
            let step = Tensor::from_f32(&[100], (0..100).map(|i| i as f32).collect()).unwrap();
            kept.extend(session.run_in_place(&mut memory, &[("step", &step)], &stop).unwrap());
        }
        assert_eq!(floats(memory.bytes(0))[..4], [10.0, 3.0, 6.0, 9.0]);
        drop(memory);
        let second: Vec<f32> = kept.iter().map(|z| z.as_slice::<f32>().unwrap()[2]).collect();
        assert_eq!(second, [4.0, 8.0, 12.0], "outputs of earlier runs must stay as they are");
    }

    #[test]
    fn an_output_that_is_the_memory_passed_through_is_a_copy() {
        let mut session = session();
        let mut memory = session.in_place(&[place(1)], &["w", "z"]).unwrap();
        let step = Tensor::from_f32(&[1], vec![1.0]).unwrap();
        let stop = Stop::new().unwrap();
        let first = session.run_in_place(&mut memory, &[("step", &step)], &stop).unwrap();
        let second = session.run_in_place(&mut memory, &[("step", &step)], &stop).unwrap();
        drop((memory, session));
        // Whether the output has the value before or after its run depends on the model; it must not change later.
        let before = first[0].as_slice::<f32>().unwrap()[0];
        assert!(before <= 1.0 && second[0].as_slice::<f32>().unwrap()[0] <= 2.0);
        assert_eq!(second[1].as_slice::<f32>().unwrap(), [4.0]);
    }

    #[test]
    fn wrong_uses_are_errors() {
        let (mut one, other) = (session(), session());
        let mut memory = other.in_place(&[place(1)], &["z"]).unwrap();
        let stop = Stop::new().unwrap();
        let e = one.run_in_place(&mut memory, &[], &stop).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
        let mut memory = one.in_place(&[place(2)], &["z"]).unwrap();
        assert!(one.run_in_place(&mut memory, &[], &stop).is_err(), "an input is missing");
        let long = Tensor::from_f32(&[3], vec![0.0; 3]).unwrap();
        assert!(one.run_in_place(&mut memory, &[("step", &long)], &stop).is_err());
        assert!(one.in_place(&[Place { input: Some("nothing".into()), ..place(1) }], &["z"]).is_err());
        let e = one.in_place(&[place(1 << 45)], &["z"]).err().unwrap();
        assert_eq!(e.kind(), Kind::LimitExceeded, "{e}");
    }

    #[test]
    fn a_pulled_stop_ends_every_run() {
        let mut session = session();
        let mut memory = session.in_place(&[place(1)], &["z"]).unwrap();
        let (stop, cancel) = (Stop::new().unwrap(), Cancel::new());
        let call = Call { cancel: Some(&cancel), ..Call::default() };
        let step = Tensor::from_f32(&[1], vec![1.0]).unwrap();
        let e = stop.during(&call, || {
            session.run_in_place(&mut memory, &[("step", &step)], &stop)?;
            cancel.fire();
            loop {
                session.run_in_place(&mut memory, &[("step", &step)], &stop)?;
            }
            #[allow(unreachable_code)]
            Ok(())
        });
        assert_eq!(e.unwrap_err().kind(), Kind::Cancelled);
        session.run_in_place(&mut memory, &[("step", &step)], &Stop::new().unwrap()).unwrap();
    }
}
