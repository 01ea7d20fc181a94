//! The two functions that ONNX Runtime looks up in the library, and the factory that they create and release.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

use ort::sys::{
    OrtAllocator, OrtApi, OrtApiBase, OrtCompiledModelCompatibility, OrtEpDevice, OrtErrorCode, OrtHardwareDevice,
    OrtHardwareDeviceType, OrtKeyValuePairs, OrtLogger, OrtMemoryInfo, OrtSessionOptions,
};

use super::api::{Api, version};
use super::ep::EpObject;
use super::options::entries;
use super::status::{Error, check, guard, text};
use super::tables::{Ep, EpFactory, Status, VERSION};
use crate::provider::{self, compiled, options::Options};
use crate::runtime::REGISTRATION;

/// The function table of a factory, and the ONNX Runtime that it was created for. The table is the first field, because
/// ONNX Runtime reads only that.
#[repr(C)]
struct FactoryObject {
    table: EpFactory,
    api: Api,
    /// Whether this library registered itself, for its own sessions.
    own: bool,
}

/// Creates the factory of the execution provider. ONNX Runtime calls this function when the library is registered under
/// the name `registered_name` (may be NULL), and frees the factory with [`ReleaseEpFactory`].
///
/// Returns NULL, or a status with the error, which the caller releases, if ONNX Runtime is older than 1.24 or `max` is
/// 0.
///
/// # Safety
/// Only ONNX Runtime may call this function. `registered_name` is NULL or a C string, `base` is the ONNX Runtime's own,
/// `factories` has capacity for `max` pointers, and `count` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn CreateEpFactories(
    registered_name: *const c_char,
    base: *const OrtApiBase,
    _logger: *const OrtLogger,
    factories: *mut *mut EpFactory,
    max: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: the contract of this function.
    unsafe {
        *count = 0;
        let Some(api) = Api::open(base) else { return too_old(base) };
        guard(api, || {
            if max < 1 {
                return Err(Error::new("the array of factories has no capacity"));
            }
            let own =
                !registered_name.is_null() && CStr::from_ptr(registered_name).to_bytes() == REGISTRATION.as_bytes();
            *factories = Box::into_raw(Box::new(FactoryObject { table: TABLE, api, own })).cast();
            *count = 1;
            Ok(())
        })
    }
}

/// Releases a factory, which may be NULL. Returns NULL, because it cannot fail.
///
/// # Safety
/// Only ONNX Runtime may call this function. `factory` is NULL or was created by `CreateEpFactories`, and is not used
/// again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ReleaseEpFactory(factory: *mut EpFactory) -> Status {
    if !factory.is_null() {
        // SAFETY: the contract of this function; `CreateEpFactories` made it of a box.
        drop(unsafe { Box::from_raw(factory.cast::<FactoryObject>()) });
    }
    null_mut()
}

/// Returns the error for an ONNX Runtime that lacks required functions.
///
/// # Safety
/// `base` is ONNX Runtime's own.
unsafe fn too_old(base: *const OrtApiBase) -> Status {
    // SAFETY: the contract of this function. Version 1 of the table is the beginning of every later one.
    unsafe {
        let found = version(base);
        let text =
            format!("liboptimize's execution provider needs ONNX Runtime 1.{VERSION} or later; this is {found}\0");
        match ((*base).GetApi)(1).cast::<OrtApi>().as_ref() {
            Some(api) => (api.CreateStatus)(OrtErrorCode::ORT_NOT_IMPLEMENTED, text.as_ptr().cast()).0,
            None => null_mut(),
        }
    }
}

const TABLE: EpFactory = EpFactory {
    ort_version_supported: VERSION,
    GetName: name,
    GetVendor: vendor,
    GetSupportedDevices: supported_devices,
    CreateEp: create_ep,
    ReleaseEp: release_ep,
    GetVendorId: vendor_id,
    GetVersion: provider_version,
    ValidateCompiledModelCompatibilityInfo: Some(validate),
    CreateAllocator: create_allocator,
    ReleaseAllocator: release_allocator,
    CreateDataTransfer: create_data_transfer,
    IsStreamAware: is_stream_aware,
    CreateSyncStreamForDevice: 0,
    GetHardwareDeviceIncompatibilityDetails: 0,
    CreateExternalResourceImporterForDevice: 0,
    GetNumCustomOpDomains: 0,
    GetCustomOpDomains: 0,
    later: [0; 8],
};

/// Returns the function tables of the ONNX Runtime that `factory` was created for.
///
/// # Safety
///
/// `factory` was created by `CreateEpFactories`.
unsafe fn api_of(factory: *const EpFactory) -> Api {
    // SAFETY: the contract of this function.
    unsafe { (*factory.cast::<FactoryObject>()).api }
}

unsafe extern "system" fn name(_: *const EpFactory) -> *const c_char {
    provider::NAME.as_ptr()
}

unsafe extern "system" fn vendor(_: *const EpFactory) -> *const c_char {
    c"liboptimize".as_ptr()
}

unsafe extern "system" fn provider_version(_: *const EpFactory) -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Returns 0, because the kernels run on the CPU, which has no PCI vendor id.
unsafe extern "system" fn vendor_id(_: *const EpFactory) -> u32 {
    0
}

unsafe extern "system" fn is_stream_aware(_: *const EpFactory) -> bool {
    false
}

/// Returns the CPU as the device of the provider, if there are kernels for it.
unsafe extern "system" fn supported_devices(
    factory: *mut EpFactory,
    devices: *const *const OrtHardwareDevice,
    device_count: usize,
    offers: *mut *mut OrtEpDevice,
    max: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: ONNX Runtime passes arrays of the given lengths, and a factory that this library created.
    unsafe {
        let api = api_of(factory);
        guard(api, || {
            *count = 0;
            if !provider::serves() {
                return Ok(());
            }
            let processor = (0..device_count).map(|index| *devices.add(index)).find(|device| {
                (api.ort().HardwareDevice_Type)(*device) == OrtHardwareDeviceType::OrtHardwareDeviceType_CPU
            });
            if let Some(device) = processor.filter(|_| max > 0) {
                check(api.ort(), (api.ep().CreateEpDevice)(factory, device, null(), null(), offers))?;
                *count = 1;
            }
            Ok(())
        })
    }
}

unsafe extern "system" fn create_ep(
    factory: *mut EpFactory,
    _devices: *const *const OrtHardwareDevice,
    _metadata: *const *const OrtKeyValuePairs,
    _count: usize,
    options: *const OrtSessionOptions,
    _logger: *const OrtLogger,
    ep: *mut *mut Ep,
) -> Status {
    // SAFETY: ONNX Runtime passes a factory that this library created, and valid pointers.
    unsafe {
        let api = api_of(factory);
        guard(api, || {
            let mut options = Options::parse(&entries(api, options)?)?;
            // In a session with a selection policy that names no provider, ONNX Runtime itself selects the registered
            // ones. If this library has registered itself for its own sessions, the other sessions of the program must
            // remain as they were: here it claims no nodes.
            if (*factory.cast::<FactoryObject>()).own && !options.given {
                options.claim = Some(Vec::new());
            }
            *ep = EpObject::create(api, options)?;
            Ok(())
        })
    }
}

unsafe extern "system" fn release_ep(_: *mut EpFactory, ep: *mut Ep) {
    // SAFETY: ONNX Runtime passes a provider that `create_ep` created, and does not use it again.
    unsafe { EpObject::release(ep) }
}

/// Writes to `answer` whether a compiled model is for this version and this processor.
unsafe extern "system" fn validate(
    factory: *mut EpFactory,
    _devices: *const *const OrtHardwareDevice,
    _count: usize,
    information: *const c_char,
    answer: *mut OrtCompiledModelCompatibility,
) -> Status {
    // SAFETY: ONNX Runtime passes a factory that this library created, and valid pointers.
    unsafe {
        guard(api_of(factory), || {
            *answer = match compiled::is_ours(&text(information)) {
                true => OrtCompiledModelCompatibility::EP_SUPPORTED_OPTIMAL,
                false => OrtCompiledModelCompatibility::EP_UNSUPPORTED,
            };
            Ok(())
        })
    }
}

/// Returns no allocator, so that ONNX Runtime's own for the CPU is used.
unsafe extern "system" fn create_allocator(
    _: *mut EpFactory,
    _: *const OrtMemoryInfo,
    _: *const OrtKeyValuePairs,
    allocator: *mut *mut OrtAllocator,
) -> Status {
    // SAFETY: ONNX Runtime passes a pointer that can be written.
    unsafe { *allocator = null_mut() };
    null_mut()
}

unsafe extern "system" fn release_allocator(_: *mut EpFactory, _: *mut OrtAllocator) {}

/// Returns no data transfer, because nothing is copied between devices.
unsafe extern "system" fn create_data_transfer(_: *mut EpFactory, transfer: *mut *mut c_void) -> Status {
    // SAFETY: ONNX Runtime passes a pointer that can be written.
    unsafe { *transfer = null_mut() };
    null_mut()
}
