//! ONNX Runtime with the shared library registered as an execution provider.

use std::path::{Path, PathBuf};
use std::ptr::null;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use ort::AsPointer;
use ort::environment::Environment;
use ort::session::{Session as OrtSession, SessionInputValue, builder::SessionBuilder};
use ort::value::{DynValue, Tensor};

use super::common::Folder;
use super::support;
use optimize::model::Model;
use optimize::onnx::save::ExternalData;

pub const NAME: &str = "OptimizeExecutionProvider";

/// An input of a run: shape and elements.
#[derive(Clone)]
pub enum Input {
    Floats(Vec<usize>, Vec<f32>),
    Flags(Vec<usize>, Vec<bool>),
    Integers(Vec<usize>, Vec<i32>),
}

impl Input {
    fn value(&self) -> DynValue {
        match self {
            Self::Floats(shape, values) => Tensor::from_array((shape.clone(), values.clone())).unwrap().into_dyn(),
            Self::Flags(shape, values) => Tensor::from_array((shape.clone(), values.clone())).unwrap().into_dyn(),
            Self::Integers(shape, values) => Tensor::from_array((shape.clone(), values.clone())).unwrap().into_dyn(),
        }
    }
}

/// ONNX Runtime with the library registered, and a folder for models.
pub struct Host {
    environment: &'static Environment,
    folder: Folder,
    next: AtomicUsize,
}

/// A session, with or without the provider.
pub struct Session(OrtSession);

impl Host {
    pub fn open() -> Self {
        static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
        let environment = ENVIRONMENT.get_or_init(|| {
            let path = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
            let path = path.unwrap_or_else(|| support::deps("onnxruntime/libonnxruntime.so.1"));
            let environment = ort::init_from(path).unwrap().build().unwrap();
            environment.register_ep_library("optimize", library()).unwrap();
            environment
        });
        Self { environment, folder: Folder::new("provider"), next: AtomicUsize::new(0) }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&format!("{}.onnx", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Writes a model to a file, and returns its path.
    pub fn save(&self, model: &Model) -> PathBuf {
        let path = self.path();
        model.save(&path, ExternalData::Auto, &Default::default()).unwrap();
        path
    }

    fn builder(&self) -> SessionBuilder {
        let builder = OrtSession::builder(self.environment).unwrap().with_intra_threads(2).unwrap();
        builder.with_config_entry("session.record_ep_graph_assignment_info", "1").unwrap()
    }

    /// Returns a session of the model without the provider.
    pub fn stock(&self, model: &Path) -> Session {
        Session(self.builder().commit_from_file(model).unwrap())
    }

    /// Adds this library's provider to a session. Every kind of group is claimed, even if it is not faster on this
    /// processor, unless the options have `claim`; with `claim` = `default`, the provider decides.
    fn ours(&self, builder: SessionBuilder, options: &[(&str, &str)]) -> Result<SessionBuilder, String> {
        let said = options.iter().any(|(key, _)| *key == "claim");
        let every = ("claim", "linear,quantized,blocks,attention,norm,activation");
        let options = options.iter().copied().chain((!said).then_some(every)).filter(|option| option.1 != "default");
        let options: Vec<_> = options.map(|(key, value)| (format!("{NAME}.{key}"), value.to_string())).collect();
        let devices = self.environment.devices().filter(|device| device.ep().is_ok_and(|ep| ep == NAME));
        builder.with_devices(devices, Some(&options)).map_err(|error| error.to_string())
    }

    /// Returns a session of the model with the provider.
    pub fn session(&self, model: &Path, options: &[(&str, &str)]) -> Session {
        self.try_session(model, options).unwrap()
    }

    pub fn try_session(&self, model: &Path, options: &[(&str, &str)]) -> Result<Session, String> {
        let mut builder = self.ours(self.builder(), options)?;
        builder.commit_from_file(model).map(Session).map_err(|error| error.to_string())
    }

    /// Compiles a model and returns the path of the compiled model; `None` if no node is claimed.
    pub fn compile(&self, model: &Path, options: &[(&str, &str)]) -> Option<PathBuf> {
        let target = self.path();
        let builder = self.builder().with_config_entry("ep.context_enable", "1").unwrap();
        let builder = builder.with_config_entry("ep.context_file_path", target.to_str().unwrap()).unwrap();
        let mut builder = self.ours(builder, options).unwrap();
        builder.commit_from_file(model).unwrap();
        target.exists().then_some(target)
    }
}

impl Session {
    /// Returns the operators of the nodes that the provider claimed.
    pub fn claims(&self) -> Vec<String> {
        let api = ort::api();
        let text = |pointer: *const std::ffi::c_char| {
            // SAFETY: the pointer is to a NUL-terminated string of ONNX Runtime, which lives as long as the session.
            unsafe { std::ffi::CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
        };
        let mut claims = Vec::new();
        // SAFETY: the session lives, and with it the objects that it returns; the arrays have the stated lengths.
        unsafe {
            let (mut graphs, mut count) = (null(), 0);
            let status = (api.Session_GetEpGraphAssignmentInfo)(self.0.ptr(), &mut graphs, &mut count);
            assert!(status.0.is_null());
            for graph in 0..count {
                let graph = *graphs.add(graph);
                let mut name = null();
                assert!((api.EpAssignedSubgraph_GetEpName)(graph, &mut name).0.is_null());
                if text(name) != NAME {
                    continue;
                }
                let (mut nodes, mut count) = (null(), 0);
                assert!((api.EpAssignedSubgraph_GetNodes)(graph, &mut nodes, &mut count).0.is_null());
                for node in 0..count {
                    let mut op = null();
                    assert!((api.EpAssignedNode_GetOperatorType)(*nodes.add(node), &mut op).0.is_null());
                    claims.push(text(op));
                }
            }
        }
        claims
    }

    /// Returns the outputs of a run, and panics if it fails.
    pub fn run(&mut self, inputs: &[(&str, Input)]) -> Vec<Vec<f32>> {
        self.try_run(inputs).unwrap()
    }

    /// Returns the outputs of a run, or ONNX Runtime's message.
    pub fn try_run(&mut self, inputs: &[(&str, Input)]) -> Result<Vec<Vec<f32>>, String> {
        let values: Vec<(String, SessionInputValue<'_>)> =
            inputs.iter().map(|(name, input)| (name.to_string(), input.value().into())).collect();
        let outputs = self.0.run(values).map_err(|error| error.to_string())?;
        Ok(outputs.iter().map(|(_, value)| value.try_extract_tensor::<f32>().unwrap().1.to_vec()).collect())
    }

    /// Returns the first output of a run that may be concurrent with others. `ort` needs a `&mut` session for a run,
    /// but ONNX Runtime does not.
    pub fn run_shared(&self, inputs: &[(&str, Input)]) -> Vec<f32> {
        let api = ort::api();
        let values: Vec<DynValue> = inputs.iter().map(|(_, input)| input.value()).collect();
        let pointers: Vec<_> = values.iter().map(|value| value.ptr()).collect();
        let names: Vec<_> = inputs.iter().map(|(name, _)| std::ffi::CString::new(*name).unwrap()).collect();
        let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let mut output = std::ptr::null_mut();
        // SAFETY: Run may be called by any number of threads; all pointers are valid during the call; the output is
        // released.
        unsafe {
            let session = self.0.ptr().cast_mut();
            let y = c"y".as_ptr();
            let status = (api.Run)(session, null(), names.as_ptr(), pointers.as_ptr(), names.len(), &y, 1, &mut output);
            assert!(status.0.is_null());
            let mut data = std::ptr::null_mut();
            assert!((api.GetTensorMutableData)(output, &mut data).0.is_null());
            let mut info = std::ptr::null_mut();
            assert!((api.GetTensorTypeAndShape)(output, &mut info).0.is_null());
            let mut count = 0;
            assert!((api.GetTensorShapeElementCount)(info, &mut count).0.is_null());
            let values = std::slice::from_raw_parts(data.cast::<f32>(), count).to_vec();
            (api.ReleaseTensorTypeAndShapeInfo)(info);
            (api.ReleaseValue)(output);
            values
        }
    }
}

/// Returns the path of the shared library of this build, which Cargo writes next to the folder of the tests.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap();
    let found = [folder.join("liboptimize.so"), folder.parent().unwrap().join("liboptimize.so")];
    found.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("none of {found:?} is there")).clone()
}
