//! The one error type of the library.
//!
//! An [`Error`] says three things: what sort of failure it is ([`Kind`], which becomes the status code at
//! the C boundary), what is wrong in a sentence a person can act on, and where: the file, node, tensor or
//! argument concerned. Inner functions say what is wrong; outer ones add the place with [`Error::at`].

use std::fmt;

/// The result of everything that can fail in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The sort of a failure. The numbers are the status codes of the C interface: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Kind {
    /// An argument is outside what the function takes: a null pointer, an unknown option, a bad range.
    InvalidArgument = 1,
    /// A handle is of another kind than the function takes, or was freed.
    InvalidHandle = 2,
    /// A file, a tensor, an input or a name does not exist.
    NotFound = 3,
    /// The operating system refused to read or write.
    Io = 4,
    /// The model file is damaged, hostile or not a model at all.
    InvalidModel = 5,
    /// The model is valid but uses something this version cannot handle.
    Unsupported = 6,
    /// Something is larger than the limits in `limits.rs` allow.
    LimitExceeded = 7,
    /// ONNX Runtime was not found, or is too old.
    RuntimeMissing = 8,
    /// ONNX Runtime refused the model or failed to run it.
    Runtime = 9,
    /// The caller cancelled, by token or from the progress callback.
    Cancelled = 10,
    /// The deadline of the call passed.
    Timeout = 11,
    /// The handle is in use by another thread and takes one call at a time.
    Busy = 12,
    /// A quality or speed gate the caller asked for was not met.
    GateNotMet = 13,
    /// A defect of this library (a caught panic). The process is intact; the operation is not done.
    Internal = 14,
    /// TensorRT was not found, is too old, or this library was built without its headers.
    BackendMissing = 15,
    /// There is no NVIDIA driver or no device of its.
    DeviceMissing = 16,
    /// TensorRT refused the model or failed to build.
    Backend = 17,
    /// A file was made of another model, or for another library or device.
    Mismatch = 18,
    /// A file that is code, from somebody who was not said to be trusted.
    Untrusted = 19,
}

impl Kind {
    /// Whether the caller ended the work: then nothing else is tried.
    pub(crate) fn ends_a_call(self) -> bool {
        matches!(self, Kind::Cancelled | Kind::Timeout)
    }

    /// The stable lower-case name, as `optimize_status_name` and the JSON reports give it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::InvalidArgument => "invalid_argument",
            Kind::InvalidHandle => "invalid_handle",
            Kind::NotFound => "not_found",
            Kind::Io => "io",
            Kind::InvalidModel => "invalid_model",
            Kind::Unsupported => "unsupported",
            Kind::LimitExceeded => "limit_exceeded",
            Kind::RuntimeMissing => "runtime_missing",
            Kind::Runtime => "runtime",
            Kind::Cancelled => "cancelled",
            Kind::Timeout => "timeout",
            Kind::Busy => "busy",
            Kind::GateNotMet => "gate_not_met",
            Kind::Internal => "internal",
            Kind::BackendMissing => "backend_missing",
            Kind::DeviceMissing => "device_missing",
            Kind::Backend => "backend",
            Kind::Mismatch => "mismatch",
            Kind::Untrusted => "untrusted",
        }
    }
}

/// What went wrong, of which sort, and where. `Display` prints `place: message`.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    place: String,
}

impl Error {
    /// A failure of the given sort; `message` is one sentence without a full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), place: String::new() }
    }

    /// Puts `place` in front of the place already known: the innermost call names the innermost place.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.place = if self.place.is_empty() { place.to_string() } else { format!("{place}: {}", self.place) };
        self
    }

    /// The sort of failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where, outermost first (`model.onnx: graph.node[3]`); empty if the message says it all.
    pub fn place(&self) -> &str {
        &self.place
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.place, self.message) }
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let kind = if e.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Io };
        Error::new(kind, e.to_string())
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(e: rustix::io::Errno) -> Self {
        std::io::Error::from(e).into()
    }
}

/// Adds a place to the error of any result.
pub trait Context<T> {
    /// See [`Error::at`]; `place` is only built when there is an error.
    fn at<P: fmt::Display>(self, place: impl FnOnce() -> P) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn at<P: fmt::Display>(self, place: impl FnOnce() -> P) -> Result<T> {
        self.map_err(|e| e.into().at(place()))
    }
}

/// For the library and its command: `bail!(InvalidModel, "node {} has no inputs", name)` returns that error from the function.
#[doc(hidden)]
#[macro_export]
macro_rules! bail {
    ($kind:ident, $($arg:tt)*) => {
        return Err($crate::error::Error::new($crate::error::Kind::$kind, format!($($arg)*)))
    };
}
pub use crate::bail;

/// `error!(NotFound, "no input {name:?}")` makes that error.
macro_rules! error {
    ($kind:ident, $($arg:tt)*) => {
        $crate::error::Error::new($crate::error::Kind::$kind, format!($($arg)*))
    };
}
pub(crate) use error;
