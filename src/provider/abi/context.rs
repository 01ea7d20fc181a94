//! A run of a fused node: its inputs, its outputs and the threads of the session.

use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::sync::Mutex;

use ort::sys::{OrtKernelContext, OrtValue};

use super::api::{Api, ask};
use super::status::{Error, Result, check, panic_text};
use super::tensor::{Plain, Tensor, describe};
use crate::kernels::Parallel;
use crate::provider::graph::Element;

/// The inputs, outputs and threads of a run of a fused node. `'a` is the lifetime of the run.
pub struct Context<'a> {
    pool: Pool<'a>,
    /// Mask with one bit per output that was returned: returning it again would create a second `&mut` to the same
    /// values.
    taken: Cell<u64>,
}

impl<'a> Context<'a> {
    /// Returns the context of a run in a session with `threads` threads.
    ///
    /// # Safety
    /// `raw` is what ONNX Runtime gave to `Compute`, and lives for `'a`.
    pub unsafe fn new(api: Api, raw: *mut OrtKernelContext, threads: usize) -> Self {
        let pool = Pool { api, raw, threads, failure: Failure::default(), run: std::marker::PhantomData };
        Self { pool, taken: Cell::new(0) }
    }

    /// Returns the threads of the session.
    pub fn pool(&self) -> &Pool<'a> {
        &self.pool
    }

    /// Returns the input `index` of the fused node. Fails if it is missing or its element type is not supported.
    pub fn input(&self, index: usize) -> Result<Tensor<'a>> {
        let Pool { api, raw, .. } = self.pool;
        // SAFETY: `raw` lives (see `new`), and inputs are not written to during a run.
        unsafe {
            let value = ask!(api, KernelContext_GetInput(raw, index) -> *const OrtValue = null())?;
            if value.is_null() {
                return Err(format!("input {index} is missing").into());
            }
            Tensor::read(api, value)
        }
    }

    /// Returns the input `input`, and the writable elements of the output `output`. The input is `None` if `input` is
    /// `None`, or if it is the same memory as the output: a program may bind a cache to both, which is then extended in
    /// place. Fails if the input is missing, if the two share only a part of their memory, or if the output has other
    /// elements than `element`, whose size must be that of `T`.
    pub fn extended<T: Plain>(
        &self,
        input: Option<usize>,
        (output, element): (usize, Element),
        shape: &[i64],
    ) -> Result<(Option<Tensor<'a>>, &'a mut [T])> {
        if element.bytes(1) != Some(size_of::<T>()) {
            return Err(Error(format!("elements of {element:?} are not of {} bytes", size_of::<T>())));
        }
        // SAFETY: the size of the elements was just checked, and their type is checked before they are accessed.
        let out = unsafe { self.output_of::<T>(output, shape, Some(element))? };
        let Some(input) = input else { return Ok((None, out)) };
        let Pool { api, raw, .. } = self.pool;
        // SAFETY: `raw` lives (see `new`); a tensor is read only if it does not overlap the output.
        unsafe {
            let value = ask!(api, KernelContext_GetInput(raw, input) -> *const OrtValue = null())?;
            if value.is_null() {
                return Err(format!("input {input} is missing").into());
            }
            let data = ask!(api, GetTensorData(value) -> *const c_void = null())?;
            if data == out.as_ptr().cast() {
                return Ok((None, out));
            }
            let tensor = Tensor::read(api, value)?;
            let (from, to) = (tensor.bytes.as_ptr_range(), out.as_ptr_range());
            if from.start < to.end.cast() && to.start.cast() < from.end {
                return Err(Error::new("an input and an output share a part of their memory"));
            }
            Ok((Some(tensor), out))
        }
    }

    /// Returns the writable elements of the output `index`, a float32 tensor of the shape `shape`. Fails if the output
    /// was already returned in this run, if `index` is 64 or more, or if ONNX Runtime cannot provide the output.
    pub fn output(&self, index: usize, shape: &[i64]) -> Result<&'a mut [f32]> {
        // SAFETY: patterns claim only nodes whose outputs are float32, except for caches.
        unsafe { self.output_of(index, shape, None) }
    }

    /// Returns the writable elements of the output `index`, like [`Self::output`]. Fails if they are not of the type
    /// `element`, if it is given.
    ///
    /// # Safety
    /// The output has elements of the size of `T`, if their type is `element`.
    unsafe fn output_of<T: Plain>(&self, index: usize, shape: &[i64], element: Option<Element>) -> Result<&'a mut [T]> {
        let bit = 1u64.checked_shl(index as u32).ok_or_else(|| Error::new("the node has too many outputs"))?;
        if self.taken.replace(self.taken.get() | bit) & bit != 0 {
            return Err(Error::new("an output was requested twice"));
        }
        let Pool { api, raw, .. } = self.pool;
        let count: usize = shape.iter().map(|size| *size as usize).product();
        let mut value = null_mut();
        // SAFETY: `raw` lives; ONNX Runtime allocates the requested size; no other reference to this output exists.
        unsafe {
            let status = (api.ort().KernelContext_GetOutput)(raw, index, shape.as_ptr(), shape.len(), &mut value);
            check(api.ort(), status.0)?;
            if let Some(element) = element {
                let (found, _) = describe(api, value)?;
                if found != element {
                    return Err(Error(format!("an output has elements of {found:?} instead of {element:?}")));
                }
            }
            let data = ask!(api, GetTensorMutableData(value) -> *mut c_void = null_mut())?;
            Ok(if count == 0 { &mut [] } else { std::slice::from_raw_parts_mut(data.cast::<T>(), count) })
        }
    }
}

/// The threads of the session to which a run belongs.
pub struct Pool<'a> {
    api: Api,
    raw: *mut OrtKernelContext,
    threads: usize,
    failure: Failure,
    run: std::marker::PhantomData<&'a ()>,
}

// SAFETY: other threads can only call `Parallel::run`, which hands `raw` to ParallelFor: ONNX Runtime lets any thread
// call that.
unsafe impl Sync for Pool<'_> {}

impl Pool<'_> {
    /// Returns an error if a task has panicked, or ONNX Runtime has not run the tasks, since the run began.
    pub fn finish(&self) -> Result<()> {
        self.failure.check()
    }
}

/// The message of the first task that failed in a run.
#[derive(Default)]
struct Failure(Mutex<Option<String>>);

impl Failure {
    fn check(&self) -> Result<()> {
        match self.0.lock() {
            Ok(message) if message.is_none() => Ok(()),
            Ok(message) => Err(format!("liboptimize: internal error: {}", message.as_deref().unwrap_or("")).into()),
            Err(_) => Err(Error::new("liboptimize: internal error")),
        }
    }

    fn note(&self, text: &str) {
        if let Ok(mut message) = self.0.lock() {
            message.get_or_insert_with(|| text.to_owned());
        }
    }
}

/// The tasks of one call of `run`.
struct Job<'j> {
    failure: &'j Failure,
    work: &'j (dyn Fn(usize) + Sync),
}

impl Job<'_> {
    /// Runs a task and catches its panic, which would end the process in a worker thread of ONNX Runtime.
    fn task(&self, index: usize) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(index))) {
            self.failure.note(panic_text(&*panic));
        }
    }
}

unsafe extern "C" fn task(job: *mut c_void, index: usize) {
    // SAFETY: `job` is the one of `run`, which outlives all of its tasks.
    unsafe { &*job.cast::<Job>() }.task(index);
}

impl Parallel for Pool<'_> {
    fn threads(&self) -> usize {
        self.threads
    }

    /// Runs the tasks on the threads of the session. If one of them panics, [`Pool::finish`] fails.
    fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        let job = Job { failure: &self.failure, work };
        if tasks < 2 || self.threads < 2 {
            return (0..tasks).for_each(|index| job.task(index));
        }
        let data = (&raw const job).cast_mut().cast();
        // SAFETY: `raw` lives (see `Context::new`); ParallelFor returns when all of the tasks have.
        let status = unsafe { (self.api.ort().KernelContext_ParallelFor)(self.raw, task, tasks, tasks, data) };
        if let Err(error) = check(self.api.ort(), status.0) {
            self.failure.note(&error.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_thread_of_onnx_runtime_is_an_error_of_the_run() {
        let (failure, done) = (Failure::default(), Mutex::new(Vec::new()));
        let work = |index: usize| match index {
            1 => panic!("task {index} is broken"),
            2 => std::panic::panic_any(7),
            _ => done.lock().unwrap().push(index),
        };
        let job = Job { failure: &failure, work: &work };
        let place = (&raw const job) as usize;
        assert!(failure.check().is_ok());
        // Like ONNX Runtime, this calls the task from a C function, where a panic would end the process.
        extern "C" fn call(place: usize, index: usize) {
            // SAFETY: the job lives until all threads have ended.
            unsafe { task(place as *mut c_void, index) }
        }
        for index in 0..4 {
            std::thread::scope(|scope| scope.spawn(move || call(place, index)).join().unwrap());
        }
        assert_eq!(*done.lock().unwrap(), [0, 3]);
        assert!(failure.check().unwrap_err().0.contains("task 1 is broken"));
    }
}
