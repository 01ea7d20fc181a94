//! The search for ONNX Runtime, which is opened once per process.
//!
//! If the caller gives a path, or else if the environment variable `ORT_DYLIB_PATH` does, only that file is opened.
//! Otherwise the library is searched for next to liboptimize, then next to the program (in the folder of the file, in
//! `../lib` and in `../lib/liboptimize`), and last by its names with the dynamic linker.
//!
//! ONNX Runtime allows only one environment per process, so the first success is permanent. After a failure, opening
//! can be tried again.

use crate::error::{Error, Kind, Result, bail, error};
use crate::log;
use libloading::os::unix::Library;
use ort::logging::LogLevel;
use std::error::Error as _;
use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// The names of the library in folders and for the dynamic linker.
const NAMES: [&str; 2] = ["libonnxruntime.so.1", "libonnxruntime.so"];
/// The environment variable with the file to open, which is used if the caller names none.
const PATH_VARIABLE: &str = "ORT_DYLIB_PATH";
/// The environment variable that disables telemetry if it is 1; otherwise ONNX Runtime from 1.29 on writes telemetry
/// files below the user's home folder.
const TELEMETRY_VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The opened ONNX Runtime. There is one per process, which all threads can share.
pub struct Runtime {
    environment: ort::environment::Environment,
    version: String,
    path: PathBuf,
}

impl Runtime {
    /// Opens ONNX Runtime, or returns the one that is already open.
    ///
    /// If `explicit` is given, only that file is opened; the error is [`Kind::InvalidArgument`] if another one is open.
    /// Otherwise the places that the module describes are searched. Fails with [`Kind::RuntimeMissing`] if no file can
    /// be opened; the message lists each file with the reason. Any thread may call this function. While it opens a
    /// file, it sets `ORT_DISABLE_TELEMETRY` in the process's environment, and restores the variable afterwards, so no
    /// other thread should read or change the environment at the same time.
    pub fn open(explicit: Option<&Path>) -> Result<&'static Runtime> {
        static OPENING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = OPENING.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(runtime) = RUNTIME.get() {
            return runtime.same_as(explicit);
        }
        let mut tried = Vec::new();
        for candidate in candidates(explicit) {
            match open_one(&candidate) {
                Ok(runtime) => return Ok(RUNTIME.get_or_init(|| runtime)),
                Err(reason) => tried.push(format!("  {}: {reason}", candidate.display())),
            }
        }
        bail!(
            RuntimeMissing,
            "ONNX Runtime 1.{} or later was not found; tried\n{}\n\
             set {PATH_VARIABLE} to the path of libonnxruntime.so.1, or put the file next to liboptimize",
            ort::MINOR_VERSION,
            tried.join("\n")
        )
    }

    /// Returns the version that the library reports, for example `1.32.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the minor version, for example 32 for `1.32.0`; 0 if the version has another form.
    pub(super) fn minor_version(&self) -> u32 {
        self.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
    }

    /// Returns the path of the open file, with symbolic links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn environment(&self) -> &ort::environment::Environment {
        &self.environment
    }

    fn same_as(&'static self, explicit: Option<&Path>) -> Result<&'static Runtime> {
        match explicit {
            Some(asked) if resolved(asked) != self.path => bail!(
                InvalidArgument,
                "ONNX Runtime is already open from {}; a process cannot also open {}",
                self.path.display(),
                asked.display()
            ),
            _ => Ok(self),
        }
    }
}

/// If ONNX Runtime is open, sets the lowest severity of its messages to the level that the sinks of [`log`] receive.
pub(crate) fn follow_log_level() {
    if let Some(runtime) = RUNTIME.get() {
        runtime.environment.set_log_level(severity());
    }
}

/// Returns the lowest severity of the messages that ONNX Runtime passes on. Messages of its level `info` have the level
/// `debug` in this library.
pub(super) fn severity() -> LogLevel {
    match log::level() {
        None => LogLevel::Fatal,
        Some(log::LogLevel::Error) => LogLevel::Error,
        Some(log::LogLevel::Warning | log::LogLevel::Info) => LogLevel::Warning,
        Some(log::LogLevel::Debug) => LogLevel::Info,
    }
}

fn level_of(severity: LogLevel) -> log::LogLevel {
    match severity {
        LogLevel::Fatal | LogLevel::Error => log::LogLevel::Error,
        LogLevel::Warning => log::LogLevel::Warning,
        LogLevel::Info | LogLevel::Verbose => log::LogLevel::Debug,
    }
}

impl<R> From<ort::Error<R>> for Error {
    fn from(e: ort::Error<R>) -> Self {
        let kind = match e.code() {
            ort::ErrorCode::NotImplemented => Kind::Unsupported,
            ort::ErrorCode::InvalidProtobuf | ort::ErrorCode::InvalidGraph => Kind::InvalidModel,
            ort::ErrorCode::ModelLoadCanceled => Kind::Cancelled,
            _ => Kind::Runtime,
        };
        Error::new(kind, format!("ONNX Runtime: {}", e.message().trim_end()))
    }
}

/// Runs `work`, which calls code of `ort`, and returns its result. A panic becomes an error of the kind `Internal`; for
/// example, `ort` panics on an element type of a later version of ONNX Runtime. `doing` describes the work in the
/// message.
pub(super) fn guarded<T>(doing: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(error!(Internal, "{doing}: {}", text_of(&*panic))))
}

/// Returns the message of a panic, or `panicked` if it has no text.
fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked")
}

/// Returns the paths of files and the names for the dynamic linker that are tried, in this order.
fn candidates(explicit: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = explicit {
        return vec![std::path::absolute(path).unwrap_or_else(|_| path.to_owned())];
    }
    if let Some(path) = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty()) {
        return vec![std::path::absolute(&path).unwrap_or_else(|_| path.into())];
    }
    let folders = folders();
    let mut all = Vec::new();
    for path in folders.iter().flat_map(|folder| NAMES.map(|name| folder.join(name))) {
        if !all.contains(&path) {
            all.push(path);
        }
    }
    all.extend(NAMES.map(PathBuf::from));
    all
}

/// Returns the folders in which libraries are searched for: for the file of this library and for that of the program,
/// its folder, `../lib` and `../lib/liboptimize`. In the last one, packages of this library install their own ONNX
/// Runtime, separate from the operating system's.
pub(crate) fn folders() -> Vec<PathBuf> {
    let ours = file_of(folders as *const c_void);
    let program = std::env::current_exe().ok();
    let mut folders = Vec::new();
    for file in [ours, program].into_iter().flatten().map(|file| resolved(&file)) {
        let Some(folder) = file.parent() else { continue };
        let lib = folder.parent().unwrap_or(folder).join("lib");
        folders.extend([folder.to_owned(), lib.clone(), lib.join("liboptimize")]);
    }
    folders
}

/// Opens ONNX Runtime from one candidate and returns it. The error is the reason why it cannot be opened, without the
/// name of the candidate.
fn open_one(candidate: &Path) -> std::result::Result<Runtime, String> {
    // The loader's message for a missing file is long and adds nothing to this.
    if candidate.is_absolute() && !candidate.is_file() {
        return Err(if candidate.is_dir() { "is a folder" } else { "no such file" }.to_owned());
    }
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let _quiet = Telemetry::off();
        let builder = ort::init_from(candidate).map_err(|e| match &e {
            // The loader's message is one level below the error of `ort`.
            ort::LoadDynamicError::Dlopen { error, .. } => {
                error.source().map_or_else(|| error.to_string(), |source| source.to_string())
            }
            other => other.to_string(),
        })?;
        // The library never prints: failures are returned as errors, and messages go to the program's function.
        let pass_on = Arc::new(|level: LogLevel, _: &str, _: &str, location: &str, text: &str| {
            log::log(level_of(level), "onnxruntime", || format!("{text} ({location})"));
        });
        let environment = builder.with_name("optimize").with_telemetry(false).with_logger(pass_on).build();
        let environment = environment.map_err(|e| e.to_string())?;
        environment.set_log_level(severity());
        let (version, path) = identity(candidate)?;
        Ok(Runtime { environment, version, path })
    }));
    opened.unwrap_or_else(|panic| Err(text_of(&*panic).to_owned()))
}

fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Returns the version and the file of the library that `candidate` opened; `candidate` may be a name only known to the
/// dynamic linker.
fn identity(candidate: &Path) -> std::result::Result<(String, PathBuf), String> {
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: NOLOAD only finds what is already loaded (and stays loaded: `ort` never closes it). The symbol is the
    // one function whose signature ONNX Runtime promises never to change; `ort` has just called it.
    let (version, at) = unsafe {
        let library = Library::open(Some(candidate.as_os_str()), libc::RTLD_NOLOAD | libc::RTLD_LAZY);
        let library = library.map_err(|_| "the library disappeared after it was opened")?;
        let get_base =
            *library.get::<GetApiBase>(c"OrtGetApiBase").map_err(|_| "the library does not export OrtGetApiBase")?;
        let version = CStr::from_ptr(((*get_base()).GetVersionString)());
        (version.to_string_lossy().into_owned(), get_base as *const c_void)
    };
    Ok((version, resolved(&file_of(at).unwrap_or_else(|| candidate.to_owned()))))
}

/// Returns the path of the program or library that contains the address `at`; `None` if no file does.
pub(super) fn file_of(at: *const c_void) -> Option<PathBuf> {
    // SAFETY: dladdr accepts any address and fills the structure if it knows it; the returned name belongs to the
    // loader and lives as long as the library, which is longer than the copy made here.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(at, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        Some(PathBuf::from(OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes())))
    }
}

/// A guard that disables telemetry in the environment; dropping it restores the previous value.
struct Telemetry(Option<std::ffi::OsString>);

impl Telemetry {
    fn off() -> Telemetry {
        let before = std::env::var_os(TELEMETRY_VARIABLE);
        // SAFETY: changing the environment races with C code that reads it in other threads. ONNX Runtime offers no
        // other way to prevent it from writing files; `Runtime::open` documents this.
        unsafe { std::env::set_var(TELEMETRY_VARIABLE, "1") };
        Telemetry(before)
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // SAFETY: as in `off`.
        unsafe {
            match &self.0 {
                Some(value) => std::env::set_var(TELEMETRY_VARIABLE, value),
                None => std::env::remove_var(TELEMETRY_VARIABLE),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{test_deps, test_runtime};

    #[test]
    fn the_runtime_says_what_it_is() {
        let runtime = test_runtime();
        assert!(runtime.version().starts_with("1."), "{}", runtime.version());
        assert!(runtime.minor_version() >= ort::MINOR_VERSION);
        assert!(runtime.path().is_absolute() && runtime.path().is_file());
        assert!(std::ptr::eq(Runtime::open(None).unwrap(), runtime));
        assert!(std::ptr::eq(Runtime::open(Some(runtime.path())).unwrap(), runtime));
    }

    #[test]
    fn another_file_after_the_first_is_refused_by_name() {
        let path = test_runtime().path();
        let e = Runtime::open(Some(Path::new("/nowhere/libonnxruntime.so"))).err().unwrap();
        assert_eq!(e.kind(), Kind::InvalidArgument);
        assert!(e.message().contains("/nowhere/") && e.message().contains(path.to_str().unwrap()), "{e}");
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        assert_eq!(open_one(Path::new("/nowhere/x.so")).err().unwrap(), "no such file");
        assert_eq!(open_one(Path::new("/")).err().unwrap(), "is a folder");
        test_runtime();
        let text = std::env::temp_dir().join(format!("optimize-library-{}", std::process::id()));
        std::fs::write(&text, "not a library").unwrap();
        // `ort` opens nothing once a library is loaded, so a separate process queries the loader.
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "runtime::library::tests::in_a_fresh_process"])
            .env(PATH_VARIABLE, &text)
            .output()
            .unwrap();
        std::fs::remove_file(&text).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    /// A test that the test above runs in a new process.
    #[test]
    #[ignore = "needs a process in which nothing is open yet"]
    fn in_a_fresh_process() {
        let e = Runtime::open(None).err().unwrap();
        assert_eq!(e.kind(), Kind::RuntimeMissing);
        assert!(e.message().contains("invalid ELF header") || e.message().contains("file too short"), "{e}");
        assert!(e.message().contains(PATH_VARIABLE), "{e}");
        let good = test_deps("onnxruntime/libonnxruntime.so.1");
        let before = std::env::var_os(TELEMETRY_VARIABLE);
        assert!(Runtime::open(Some(&good)).is_ok(), "a failure must leave nothing behind");
        assert_eq!(std::env::var_os(TELEMETRY_VARIABLE), before);
    }

    #[test]
    fn the_order_is_beside_us_then_beside_the_program_then_the_system() {
        if std::env::var_os(PATH_VARIABLE).is_some() {
            assert_eq!(candidates(None).len(), 1);
        } else {
            let all = candidates(None);
            assert!(all.len() >= 6 && all[0].is_absolute());
            assert_eq!(all[all.len() - 2..], NAMES.map(PathBuf::from));
        }
        assert_eq!(candidates(Some(Path::new("/a/b"))), [PathBuf::from("/a/b")]);
    }
}
