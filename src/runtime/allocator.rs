//! An allocator for sessions whose memory is limited: it charges the blocks that ONNX Runtime allocates to the
//! [`Budget`] of the thread that allocates.
//!
//! ONNX Runtime does not expect NULL from an allocator: its own allocators throw a C++ exception, which becomes the
//! status of the call. This allocator does the same, through the function of the C++ library that ONNX Runtime uses. A
//! foreign exception may unwind frames of Rust if their functions are `C-unwind`.

use super::Runtime;
use crate::error::{Result, bail, error};
use crate::memory::{self, Budget};
use libloading::os::unix::Library;
use ort::AsPointer;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::sys::{OrtAllocator, OrtMemoryInfo};
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

/// Alignment of blocks in bytes, and the size of the header in front of each.
const ALIGNMENT: usize = 64;
/// The C++ library, and its function that throws `std::bad_alloc`.
const LIBRARY: &str = "libstdc++.so.6";
const THROW: &[u8] = b"_ZSt17__throw_bad_allocv\0";

type Throw = unsafe extern "C-unwind" fn() -> !;

/// The allocator that is registered with ONNX Runtime, once per process, and never freed.
#[repr(C)]
struct Limited {
    /// Functions of the allocator. The field is the first one, because ONNX Runtime passes its address.
    vtable: OrtAllocator,
    info: MemoryInfo<'static>,
    throw: Throw,
}

// SAFETY: nothing in it changes after it was made.
unsafe impl Send for Limited {}
// SAFETY: as for `Send`.
unsafe impl Sync for Limited {}

/// The header of a block, in front of the address that ONNX Runtime gets.
struct Header {
    size: usize,
    budget: Option<Arc<Budget>>,
}

/// Makes the session of a builder use this allocator, and returns the builder. Fails with `Unsupported` if this is
/// impossible with the opened ONNX Runtime.
pub(super) fn limit(builder: SessionBuilder, runtime: &Runtime) -> Result<SessionBuilder> {
    static REGISTERED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let registered = REGISTERED.get_or_init(|| register(runtime).map_err(|e| e.message().to_owned()));
    if let Err(reason) = registered {
        bail!(Unsupported, "memory limits of sessions: {reason}");
    }
    Ok(builder.with_env_allocators()?)
}

fn register(runtime: &Runtime) -> Result<()> {
    // SAFETY: NOLOAD only finds what is already loaded, and the symbol has this type in every version of the library.
    let throw = unsafe {
        let library = Library::open(Some(LIBRARY), libc::RTLD_NOLOAD | libc::RTLD_LAZY);
        let library = library.map_err(|_| error!(Unsupported, "{LIBRARY} is not in use"))?;
        let throw = library.get::<Throw>(THROW).map_err(|e| error!(Unsupported, "{e}"))?;
        *throw
    };
    let info = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
    // SAFETY: the type requires that the functions are set.
    let mut vtable = unsafe { OrtAllocator::default() };
    // SAFETY: functions that may unwind have the same calling convention, and only C++ code calls them.
    unsafe {
        vtable.Alloc = Some(std::mem::transmute::<
            unsafe extern "C-unwind" fn(*mut OrtAllocator, usize) -> *mut c_void,
            unsafe extern "system" fn(*mut OrtAllocator, usize) -> *mut c_void,
        >(allocate));
        vtable.Reserve = Some(std::mem::transmute::<
            unsafe extern "C-unwind" fn(*mut OrtAllocator, usize) -> *mut c_void,
            unsafe extern "system" fn(*const OrtAllocator, usize) -> *mut c_void,
        >(allocate));
    }
    vtable.Free = Some(release);
    vtable.Info = Some(info_of);
    let limited: &'static mut Limited = Box::leak(Box::new(Limited { vtable, info, throw }));
    // SAFETY: the allocator lives as long as the process, and the environment as long as the runtime.
    unsafe {
        let environment = runtime.environment().ptr().cast_mut();
        let status = (ort::api().RegisterAllocator)(environment, (&raw mut *limited).cast());
        Ok(ort::error::Error::result_from_status(status)?)
    }
}

/// Allocates `size` bytes and returns their address, or throws `std::bad_alloc`; returns NULL for a size of 0.
unsafe extern "C-unwind" fn allocate(this: *mut OrtAllocator, size: usize) -> *mut c_void {
    if size == 0 {
        return std::ptr::null_mut();
    }
    let block = block(size);
    if block.is_null() {
        // SAFETY: `this` is the registered allocator. Nothing in this frame has to be dropped.
        unsafe { ((*this.cast::<Limited>()).throw)() }
    }
    block
}

/// Returns a block that is charged to the budget of this thread; NULL if the budget or the system refuses it.
fn block(size: usize) -> *mut c_void {
    let Some(layout) = layout(size) else { return std::ptr::null_mut() };
    let budget = memory::current();
    if budget.as_ref().is_some_and(|budget| !budget.add(layout.size() as u64)) {
        return std::ptr::null_mut();
    }
    // SAFETY: the layout has a size above 0, and room for the header in front.
    unsafe {
        let start = alloc(layout);
        if start.is_null() {
            if let Some(budget) = budget {
                budget.subtract(layout.size() as u64);
            }
            return std::ptr::null_mut();
        }
        start.cast::<Header>().write(Header { size, budget });
        start.add(ALIGNMENT).cast()
    }
}

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(ALIGNMENT)?, ALIGNMENT).ok()
}

unsafe extern "system" fn release(_: *mut OrtAllocator, block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: ONNX Runtime frees what `allocate` returned, once.
    unsafe {
        let start = block.cast::<u8>().sub(ALIGNMENT);
        let Header { size, budget } = start.cast::<Header>().read();
        let Some(layout) = layout(size) else { return };
        dealloc(start, layout);
        if let Some(budget) = budget {
            budget.subtract(layout.size() as u64);
        }
    }
}

unsafe extern "system" fn info_of(this: *const OrtAllocator) -> *const OrtMemoryInfo {
    // SAFETY: `this` is the registered allocator.
    unsafe { (*this.cast::<Limited>()).info.ptr() }
}
