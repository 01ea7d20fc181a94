//! The error type of the library.
//!
//! An [`Error`] has a kind ([`Kind`], which becomes the status code at the C boundary), a message (one sentence that
//! says what is wrong), and a place: the file, node, tensor or argument concerned. Inner functions write the message;
//! outer ones add the place with [`Error::at`].

use std::fmt;

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The kind of a failure. The values are the status codes of the C interface, to which new ones are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Kind {
    /// An argument is invalid: a null pointer, an unknown option, a value out of range.
    InvalidArgument = 1,
    /// A handle has another type than the function expects, or was freed.
    InvalidHandle = 2,
    /// A file, a tensor, an input or a name does not exist.
    NotFound = 3,
    /// The operating system failed to read or write.
    Io = 4,
    /// The model file is damaged, hostile or not a model.
    InvalidModel = 5,
    /// The model is valid but uses a feature that this version does not support.
    Unsupported = 6,
    /// A limit is exceeded: one of `limits.rs`, the memory limit of a context, or the memory that the system provides.
    LimitExceeded = 7,
    /// ONNX Runtime was not found, or is too old.
    RuntimeMissing = 8,
    /// ONNX Runtime refused the model or failed to run it.
    Runtime = 9,
    /// The caller cancelled, by token or from the progress callback.
    Cancelled = 10,
    /// The deadline of the call passed.
    Timeout = 11,
    /// The handle accepts one call at a time and is in use by another one.
    Busy = 12,
    /// A requested quality or speed limit was not met.
    GateNotMet = 13,
    /// A defect of this library (a caught panic). The process is intact; the operation failed.
    Internal = 14,
    /// TensorRT, an execution provider or this library's kernels were not found, are too old or cannot be used, or this
    /// library was built without TensorRT's headers.
    BackendMissing = 15,
    /// No NVIDIA driver was found, or it does not report the requested device.
    DeviceMissing = 16,
    /// TensorRT refused the model, or failed to build or run an engine.
    Backend = 17,
    /// A file belongs to another model, library or device.
    Mismatch = 18,
    /// The file contains executable code (an engine) and the caller did not mark its source as trusted.
    Untrusted = 19,
}

impl Kind {
    /// Returns whether the caller ended the operation, by a cancel or a deadline. After such an error, the library
    /// tries no alternative, such as another execution provider.
    pub(crate) fn ends_a_call(self) -> bool {
        matches!(self, Kind::Cancelled | Kind::Timeout)
    }

    /// Returns the name of the kind in lower case, which `optimize_status_name` and the JSON reports also use. Names do
    /// not change between versions.
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

/// An error with its kind, message and place. `Display` prints `place: message`, or the message alone if the place is
/// empty.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{place}{}{message}", if place.is_empty() { "" } else { ": " })]
pub struct Error {
    kind: Kind,
    message: String,
    place: String,
}

impl Error {
    /// Returns an error of the given kind; `message` is one sentence without a full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), place: String::new() }
    }

    /// Returns the error with `place` in front of its current place: a function adds the part of the place that it
    /// knows, for example the file, to the part that the function it called has added, for example the node. A folder
    /// is not added in front of a file in it, whose path names the folder already.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        let place = place.to_string();
        let file = self.place.strip_prefix(place.trim_end_matches('/')).filter(|_| !place.is_empty());
        if !file.is_some_and(|file| file.starts_with('/')) {
            self.place = if self.place.is_empty() { place } else { format!("{place}: {}", self.place) };
        }
        self
    }

    /// Returns the kind of the failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the message of the error, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the place of the failure, outermost part first (`model.onnx: graph.node[3]`); empty if no place was
    /// added.
    pub fn place(&self) -> &str {
        &self.place
    }
}

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

/// A trait that adds a place to the error of a result.
pub trait Context<T> {
    /// Returns the result; an error is converted to [`Error`] and gets a place as with [`Error::at`]. `place` is only
    /// called if there is an error.
    fn at<P: fmt::Display>(self, place: impl FnOnce() -> P) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn at<P: fmt::Display>(self, place: impl FnOnce() -> P) -> Result<T> {
        self.map_err(|e| e.into().at(place()))
    }
}

/// A macro that returns an error from the current function: `bail!(InvalidModel, "node {} has no inputs", name)`. It is
/// for the library and its command.
#[doc(hidden)]
#[macro_export]
macro_rules! bail {
    ($kind:ident, $($arg:tt)*) => {
        return Err($crate::error::Error::new($crate::error::Kind::$kind, format!($($arg)*)))
    };
}
pub use crate::bail;

/// A macro that creates an error: `error!(NotFound, "no input {name:?}")`.
macro_rules! error {
    ($kind:ident, $($arg:tt)*) => {
        $crate::error::Error::new($crate::error::Kind::$kind, format!($($arg)*))
    };
}
pub(crate) use error;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_not_named_before_a_file_in_it() {
        let placed = |places: &[&str]| {
            places.iter().fold(Error::new(Kind::InvalidModel, "wrong"), |e, place| e.at(place)).to_string()
        };
        assert_eq!(placed(&["models/llama/config.json", "models/llama"]), "models/llama/config.json: wrong");
        assert_eq!(placed(&["models/llama/config.json: key", "models/llama/"]), "models/llama/config.json: key: wrong");
        assert_eq!(placed(&["models/llama2", "models/llama"]), "models/llama: models/llama2: wrong");
        assert_eq!(placed(&["node 3", "a.onnx"]), "a.onnx: node 3: wrong");
    }
}
