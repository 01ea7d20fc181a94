//! The function tables of the ONNX Runtime that loaded this library.
//!
//! A process may contain two ONNX Runtimes (for example that of a Python wheel and that of this library's own
//! sessions), and both use the same copy of this library. So nothing here is global: each factory keeps the tables of
//! its own ONNX Runtime.

use ort::sys::{OrtApi, OrtApiBase};

use super::tables::{EpApi, VERSION};

/// The function tables of an ONNX Runtime. They are valid as long as its library is loaded, and so longer than any
/// object of the provider.
#[derive(Clone, Copy)]
pub struct Api {
    ort: &'static OrtApi,
    ep: &'static EpApi,
}

impl Api {
    /// Returns the tables of `base`; `None` if that ONNX Runtime is older than [`VERSION`].
    ///
    /// # Safety
    /// `base` is what ONNX Runtime gave to `CreateEpFactories`.
    pub unsafe fn open(base: *const OrtApiBase) -> Option<Self> {
        // SAFETY: the contract of this function; GetApi returns null for a version that it does not have, and the
        // tables of the version that it has are static.
        unsafe {
            let ort = ((*base).GetApi)(VERSION).as_ref()?;
            let ep = (ort.GetEpApi)().cast::<EpApi>().as_ref()?;
            Some(Self { ort, ep })
        }
    }

    /// Returns the general functions.
    pub fn ort(self) -> &'static OrtApi {
        self.ort
    }

    /// Returns the functions for execution providers.
    pub fn ep(self) -> &'static EpApi {
        self.ep
    }
}

/// Returns the version of an ONNX Runtime as text, such as `1.23.2`.
///
/// # Safety
/// `base` is what ONNX Runtime gave to `CreateEpFactories`.
pub unsafe fn version(base: *const OrtApiBase) -> String {
    // SAFETY: the contract of this function; the text is static.
    unsafe { super::status::text(((*base).GetVersionString)()) }
}

/// Calls a function of the table that writes its result through its last argument, and returns the result.
macro_rules! ask {
    ($api:expr, $function:ident($($argument:expr),* $(,)?) -> $type:ty = $initial:expr) => {{
        let mut answer: $type = $initial;
        let ort::sys::OrtStatusPtr(status) = ($api.ort().$function)($($argument,)* &mut answer);
        $crate::provider::abi::status::check($api.ort(), status).map(|()| answer)
    }};
}
pub(super) use ask;
