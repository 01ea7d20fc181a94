//! The libraries that build engines. The module finds and opens one, and checks its version and, for TensorRT, that
//! there is a GPU.

use super::shim::{self, Compiled};
use crate::choice::choice;
use crate::error::{Error, Result, bail};
use crate::runtime::driver::{self, Driver, function, open as open_library};
use serde::{Deserialize, Serialize};
use std::ffi::c_void;
use std::path::{Path, PathBuf};

/// A library that builds engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// TensorRT 11 (`libnvinfer.so.11`), which builds for the GPU of this machine.
    #[serde(rename = "tensorrt")]
    TensorRt,
    /// TensorRT-RTX 1 (`libtensorrt_rtx.so.1`), which also builds without a GPU, for named compute capabilities.
    #[serde(rename = "tensorrt-rtx")]
    TensorRtRtx,
    /// ONNX Runtime's TensorRT provider, which builds a model with embedded engines for the GPU of this machine.
    #[serde(rename = "onnxruntime")]
    OnnxRuntime,
}

choice! {
    /// The library that is requested to build engines.
    pub enum Choice: optimize_tensorrt_backend_t = Auto {
        /// TensorRT if it and a device are available, otherwise TensorRT-RTX, otherwise ONNX Runtime's provider.
        Auto = 0, "auto";
        /// TensorRT; the build fails if it is not available.
        TensorRt = 1, "tensorrt";
        /// TensorRT-RTX; the build fails if it is not available.
        TensorRtRtx = 2, "tensorrt-rtx";
        /// ONNX Runtime's provider, which writes a model that contains engines (X_ctx.onnx).
        OnnxRuntime = 3, "onnxruntime";
    }
}

impl From<Backend> for Choice {
    fn from(backend: Backend) -> Choice {
        match backend {
            Backend::TensorRt => Choice::TensorRt,
            Backend::TensorRtRtx => Choice::TensorRtRtx,
            Backend::OnnxRuntime => Choice::OnnxRuntime,
        }
    }
}

/// The name of the environment variable with the folder of the libraries, which is used if the options name none.
pub const PATH_VARIABLE: &str = "OPTIMIZE_TENSORRT_PATH";

impl Backend {
    /// Returns the name of the backend: `tensorrt`, `tensorrt-rtx` or `onnxruntime`.
    pub fn name(self) -> &'static str {
        match self {
            Backend::TensorRt => "tensorrt",
            Backend::TensorRtRtx => "tensorrt-rtx",
            Backend::OnnxRuntime => "onnxruntime",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Backend::TensorRt => "TensorRT",
            Backend::TensorRtRtx => "TensorRT-RTX",
            Backend::OnnxRuntime => "ONNX Runtime's TensorRT provider",
        }
    }

    /// Returns the file names of the library and of its ONNX parser.
    fn files(self) -> [&'static str; 2] {
        match self {
            Backend::TensorRt => ["libnvinfer.so.11", "libnvonnxparser.so.11"],
            Backend::TensorRtRtx => ["libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"],
            Backend::OnnxRuntime => ["libonnxruntime_providers_tensorrt.so", "libonnxruntime.so.1"],
        }
    }

    /// Returns the text for the version number of a library: `1.7.1` for 10701, `11.4.0` for 110400.
    fn version(number: i32) -> String {
        format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
    }
}

/// An open library that builds engines. It stays open until the process ends.
pub struct Library {
    backend: Backend,
    version: String,
    path: PathBuf,
    /// Reason for choosing this library.
    reason: String,
    pub(super) compiled: Compiled,
    pub(super) create_builder: *mut c_void,
    pub(super) create_runtime: *mut c_void,
    pub(super) create_parser: *mut c_void,
}
// SAFETY: the pointers are functions of a library that is never closed; they may be called from any thread.
unsafe impl Send for Library {}
// SAFETY: the functions may be called from several threads at the same time.
unsafe impl Sync for Library {}

impl Library {
    /// Opens the library that `choice` requests, and returns it. For [`Choice::Auto`], this is TensorRT, or if TensorRT
    /// cannot be opened, TensorRT-RTX. The library is searched for only in `folder` if that is given, otherwise only in
    /// the folder [`PATH_VARIABLE`] if that is set, otherwise next to this library and on the search path of the
    /// dynamic linker.
    ///
    /// Fails with `BackendMissing` if no library is found (the message lists each place) or if this library was built
    /// without the headers. Fails with `Unsupported` if the library has another major version than the headers, an
    /// older minor version, or lacks a function. Fails with `DeviceMissing` if TensorRT is requested without a GPU,
    /// which it requires, and with `InvalidArgument` for [`Choice::OnnxRuntime`], which is not such a library. For
    /// [`Choice::Auto`], the kind is that of the error of TensorRT-RTX.
    pub fn open(choice: Choice, folder: Option<&Path>) -> Result<Library> {
        match choice {
            Choice::TensorRt => open(Backend::TensorRt, folder, "it was requested".to_owned()),
            Choice::TensorRtRtx => open(Backend::TensorRtRtx, folder, "it was requested".to_owned()),
            Choice::OnnxRuntime => bail!(
                InvalidArgument,
                "the backend onnxruntime is not a TensorRT library: run the model that it builds in a session with \
                 the provider tensorrt"
            ),
            Choice::Auto => match open(Backend::TensorRt, folder, "TensorRT and a device are available".to_owned()) {
                Ok(library) => Ok(library),
                Err(first) => {
                    open(
                        Backend::TensorRtRtx,
                        folder,
                        format!(
                            "TensorRT cannot be used: {}",
                            first.message().lines().next().unwrap_or("").trim_end_matches("; tried")
                        ),
                    )
                    // The kind is that of TensorRT-RTX's error, because TensorRT-RTX needs neither a driver nor a
                    // device.
                    .map_err(|second| Error::new(second.kind(), format!("{first}\n{second}")))
                }
            },
        }
    }

    /// Returns which backend the library is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Returns the version that the library reports.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the path with which the library was opened: its file name only, if the dynamic linker searched for it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the reason why this library was chosen.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the name and the version of the library, for example `TensorRT-RTX 1.7.1`.
    pub fn name(&self) -> String {
        format!("{} {}", self.backend.title(), self.version)
    }
}

fn open(backend: Backend, folder: Option<&Path>, reason: String) -> Result<Library> {
    let title = backend.title();
    let Some(compiled) = shim::compiled(backend) else {
        bail!(
            BackendMissing,
            "this liboptimize was built without the headers of {title}: run `tools/deps.sh tensorrt` (or set \
             OPTIMIZE_TENSORRT_INCLUDE) and build it again"
        );
    };
    let [main, parser] = backend.files();
    let mut tried = Vec::new();
    for place in places(folder) {
        // The library searches for its own parts in the folder of its path. A link to it is therefore resolved first.
        let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
        let at = |name: &str| place.as_ref().map_or_else(|| PathBuf::from(name), |folder| real(folder.join(name)));
        let opened = open_library(&at(main)).and_then(|first| Ok((first, open_library(&at(parser))?)));
        let (first, second) = match opened {
            Ok(both) => both,
            Err(reason) => {
                tried.push(format!("  {}: {reason}", at(main).display()));
                continue;
            }
        };
        let version = version_of(&first, &at(main))?;
        let (ours, wanted) = (compiled.version, Backend::version(compiled.version));
        // Within a major version, newer ones have everything that older ones have, but not vice versa.
        if version / 10_000 != ours / 10_000 || version < ours / 100 * 100 {
            let found = Backend::version(version);
            bail!(
                Unsupported,
                "{}: the library is {title} {found}; this liboptimize was built for {wanted} or later of its major \
                 version",
                at(main).display()
            );
        }
        if backend == Backend::TensorRt {
            // Without a driver, TensorRT has returned invalid pointers and ended the process.
            device()?;
        }
        // SAFETY: the functions are stored as addresses and called by the shim, which has their declarations.
        let [create_builder, create_runtime, create_parser] = unsafe {
            [
                function(&first, c"createInferBuilder_INTERNAL", &at(main))?,
                function(&first, c"createInferRuntime_INTERNAL", &at(main))?,
                function(&second, c"createNvOnnxParser_INTERNAL", &at(parser))?,
            ]
        };
        let (version, path) = (Backend::version(version), at(main));
        return Ok(Library { backend, version, path, reason, compiled, create_builder, create_runtime, create_parser });
    }
    bail!(
        BackendMissing,
        "{title} was not found: no {main}; tried\n{}\nset {PATH_VARIABLE} to the folder of {main} and {parser}{}",
        tried.join("\n"),
        if backend == Backend::TensorRtRtx { "; in a source tree `tools/deps.sh tensorrt` fetches both" } else { "" }
    )
}

/// Returns the folders to search; `None` stands for the search path of the dynamic linker.
fn places(folder: Option<&Path>) -> Vec<Option<PathBuf>> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = folder {
        return vec![Some(absolute(folder))];
    }
    if let Some(folder) = std::env::var_os(PATH_VARIABLE).filter(|folder| !folder.is_empty()) {
        return vec![Some(absolute(Path::new(&folder)))];
    }
    let beside = crate::runtime::library::folders();
    beside.into_iter().map(Some).chain([None]).collect()
}

fn version_of(library: &driver::Library, path: &Path) -> Result<i32> {
    // SAFETY: this is its declaration in every version of `NvInferRuntimeBase.h`.
    Ok(unsafe { function::<unsafe extern "C" fn() -> i32>(library, c"getInferLibVersion", path)?() })
}

/// Returns the compute capability of the first NVIDIA GPU, for example 89 for 8.9. Fails with `DeviceMissing` if there
/// is no driver or no GPU (the message names which is missing), and with `Unsupported` if the driver lacks a function.
pub fn device() -> Result<i32> {
    Driver::get()?.capability(0)
}
