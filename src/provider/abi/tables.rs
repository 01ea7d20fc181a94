//! The structs of `onnxruntime_ep_c_api.h` that are opaque in `ort-sys`, as ONNX Runtime 1.24 declares them.
//!
//! Every struct of that header only grows at its end, and ONNX Runtime reads a struct of a provider up to the version
//! in `ort_version_supported`. So a prefix is enough of structs whose functions are called here, and structs that are
//! filled in here end where those of 1.24 end.
#![allow(non_snake_case)]

use std::ffi::{c_char, c_void};

use ort::sys::{
    OrtAllocator, OrtCompiledModelCompatibility, OrtEpDevice, OrtGraph, OrtHardwareDevice, OrtKernelContext,
    OrtKeyValuePairs, OrtLogger, OrtMemoryInfo, OrtNode, OrtSessionOptions, OrtStatus,
};

/// The API version of ONNX Runtime (24 for 1.24) whose structs are declared here, and the oldest that can load this
/// provider.
pub const VERSION: u32 = 24;

/// The result of a function of the interface: null, or an error that the caller releases.
pub type Status = *mut OrtStatus;

/// A function that is not implemented (null), or a function of ONNX Runtime that is never called here.
pub type Unused = usize;

/// The object in which ONNX Runtime collects the claimed groups.
#[repr(C)]
pub struct OrtEpGraphSupportInfo {
    _opaque: [u8; 0],
}

/// The description of a node that ONNX Runtime passes to `CreateState`.
#[repr(C)]
pub struct OrtNodeComputeContext {
    _opaque: [u8; 0],
}

/// The struct `OrtEpApi`, up to the last function that is called here.
#[repr(C)]
pub struct EpApi {
    pub CreateEpDevice: unsafe extern "system" fn(
        *mut EpFactory,
        *const OrtHardwareDevice,
        *const OrtKeyValuePairs,
        *const OrtKeyValuePairs,
        *mut *mut OrtEpDevice,
    ) -> Status,
    pub ReleaseEpDevice: Unused,
    pub EpGraphSupportInfo_AddNodesToFuse: unsafe extern "system" fn(
        *mut OrtEpGraphSupportInfo,
        *const *const OrtNode,
        usize,
        *const NodeFusionOptions,
    ) -> Status,
}

/// The struct `OrtNodeFusionOptions`.
#[repr(C)]
pub struct NodeFusionOptions {
    pub ort_version_supported: u32,
    pub drop_constant_initializers: bool,
}

/// The struct `OrtNodeComputeInfo`: the functions of one fused node.
#[repr(C)]
pub struct NodeComputeInfo {
    pub ort_version_supported: u32,
    pub CreateState:
        unsafe extern "system" fn(*mut NodeComputeInfo, *mut OrtNodeComputeContext, *mut *mut c_void) -> Status,
    pub Compute: unsafe extern "system" fn(*mut NodeComputeInfo, *mut c_void, *mut OrtKernelContext) -> Status,
    pub ReleaseState: unsafe extern "system" fn(*mut NodeComputeInfo, *mut c_void),
}

/// The struct `OrtEp`: the functions of the provider in one session.
#[repr(C)]
pub struct Ep {
    pub ort_version_supported: u32,
    pub GetName: unsafe extern "system" fn(*const Ep) -> *const c_char,
    pub GetCapability: unsafe extern "system" fn(*mut Ep, *const OrtGraph, *mut OrtEpGraphSupportInfo) -> Status,
    pub Compile: unsafe extern "system" fn(
        *mut Ep,
        *const *const OrtGraph,
        *const *const OrtNode,
        usize,
        *mut *mut NodeComputeInfo,
        *mut *mut OrtNode,
    ) -> Status,
    pub ReleaseNodeComputeInfos: unsafe extern "system" fn(*mut Ep, *mut *mut NodeComputeInfo, usize),
    pub GetPreferredDataLayout: Unused,
    pub ShouldConvertDataLayoutForOp: Unused,
    pub SetDynamicOptions: Unused,
    pub OnRunStart: Unused,
    pub OnRunEnd: Unused,
    pub CreateAllocator: Unused,
    pub CreateSyncStreamForDevice: Unused,
    pub GetCompiledModelCompatibilityInfo: Option<unsafe extern "system" fn(*mut Ep, *const OrtGraph) -> *const c_char>,
    pub GetKernelRegistry: Unused,
    pub IsConcurrentRunSupported: Unused,
    /// Fields that later versions append, all null.
    pub later: [Unused; 16],
}

/// The struct `OrtEpFactory`: the functions of the provider before there is a session.
#[repr(C)]
pub struct EpFactory {
    pub ort_version_supported: u32,
    pub GetName: unsafe extern "system" fn(*const EpFactory) -> *const c_char,
    pub GetVendor: unsafe extern "system" fn(*const EpFactory) -> *const c_char,
    pub GetSupportedDevices: unsafe extern "system" fn(
        *mut EpFactory,
        *const *const OrtHardwareDevice,
        usize,
        *mut *mut OrtEpDevice,
        usize,
        *mut usize,
    ) -> Status,
    pub CreateEp: unsafe extern "system" fn(
        *mut EpFactory,
        *const *const OrtHardwareDevice,
        *const *const OrtKeyValuePairs,
        usize,
        *const OrtSessionOptions,
        *const OrtLogger,
        *mut *mut Ep,
    ) -> Status,
    pub ReleaseEp: unsafe extern "system" fn(*mut EpFactory, *mut Ep),
    pub GetVendorId: unsafe extern "system" fn(*const EpFactory) -> u32,
    pub GetVersion: unsafe extern "system" fn(*const EpFactory) -> *const c_char,
    pub ValidateCompiledModelCompatibilityInfo: Option<
        unsafe extern "system" fn(
            *mut EpFactory,
            *const *const OrtHardwareDevice,
            usize,
            *const c_char,
            *mut OrtCompiledModelCompatibility,
        ) -> Status,
    >,
    pub CreateAllocator: unsafe extern "system" fn(
        *mut EpFactory,
        *const OrtMemoryInfo,
        *const OrtKeyValuePairs,
        *mut *mut OrtAllocator,
    ) -> Status,
    pub ReleaseAllocator: unsafe extern "system" fn(*mut EpFactory, *mut OrtAllocator),
    pub CreateDataTransfer: unsafe extern "system" fn(*mut EpFactory, *mut *mut c_void) -> Status,
    pub IsStreamAware: unsafe extern "system" fn(*const EpFactory) -> bool,
    pub CreateSyncStreamForDevice: Unused,
    pub GetHardwareDeviceIncompatibilityDetails: Unused,
    pub CreateExternalResourceImporterForDevice: Unused,
    pub GetNumCustomOpDomains: Unused,
    pub GetCustomOpDomains: Unused,
    /// Fields that later versions append, all null.
    pub later: [Unused; 8],
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    /// Compares offsets with those of a C compiler for the header of ONNX Runtime 1.24.4 on a 64-bit machine.
    #[test]
    fn the_tables_lie_as_in_the_header() {
        assert_eq!(offset_of!(EpApi, CreateEpDevice), 0);
        assert_eq!(offset_of!(EpApi, EpGraphSupportInfo_AddNodesToFuse), 16);
        assert_eq!((size_of::<NodeFusionOptions>(), offset_of!(NodeFusionOptions, drop_constant_initializers)), (8, 4));
        assert_eq!(size_of::<NodeComputeInfo>(), 32);
        assert_eq!(offset_of!(NodeComputeInfo, Compute), 16);
        assert_eq!(offset_of!(Ep, GetName), 8);
        assert_eq!(offset_of!(Ep, GetCapability), 16);
        assert_eq!(offset_of!(Ep, Compile), 24);
        assert_eq!(offset_of!(Ep, ReleaseNodeComputeInfos), 32);
        assert_eq!(offset_of!(Ep, GetPreferredDataLayout), 40);
        assert_eq!(offset_of!(Ep, CreateAllocator), 80);
        assert_eq!(offset_of!(Ep, GetCompiledModelCompatibilityInfo), 96);
        assert_eq!(offset_of!(Ep, GetKernelRegistry), 104);
        assert_eq!(offset_of!(Ep, IsConcurrentRunSupported), 112);
        assert_eq!(offset_of!(Ep, later), 120);
        assert_eq!(offset_of!(EpFactory, GetSupportedDevices), 24);
        assert_eq!(offset_of!(EpFactory, CreateEp), 32);
        assert_eq!(offset_of!(EpFactory, ReleaseEp), 40);
        assert_eq!(offset_of!(EpFactory, GetVendorId), 48);
        assert_eq!(offset_of!(EpFactory, GetVersion), 56);
        assert_eq!(offset_of!(EpFactory, ValidateCompiledModelCompatibilityInfo), 64);
        assert_eq!(offset_of!(EpFactory, CreateAllocator), 72);
        assert_eq!(offset_of!(EpFactory, IsStreamAware), 96);
        assert_eq!(offset_of!(EpFactory, GetNumCustomOpDomains), 128);
        assert_eq!(offset_of!(EpFactory, later), 144);
    }
}
