//! GPU memory, and copies to and from it, through the NVIDIA driver.

use crate::error::{Result, bail, error};
use crate::runtime::driver::Driver;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

type Address = u64;
/// A function of the driver whose only parameter is a context or a stream.
type OfContext = unsafe extern "C" fn(*mut c_void) -> c_int;
type OfDevice = unsafe extern "C" fn(c_int) -> c_int;
type Alloc = unsafe extern "C" fn(*mut Address, usize) -> c_int;
type Free = unsafe extern "C" fn(Address) -> c_int;
type ToDevice = unsafe extern "C" fn(Address, *const c_void, usize, *mut c_void) -> c_int;
type ToHost = unsafe extern "C" fn(*mut c_void, Address, usize, *mut c_void) -> c_int;

/// An open GPU: its primary CUDA context, which NVIDIA's libraries also use, and a stream.
pub(super) struct Device {
    calls: Calls,
    number: c_int,
    context: *mut c_void,
    stream: *mut c_void,
}
// SAFETY: contexts and streams may be used from any thread, one at a time; `enter` makes the context current on it.
unsafe impl Send for Device {}

/// The functions of `cuda.h` under their names since CUDA 4.
struct Calls {
    set_current: OfContext,
    release: OfDevice,
    stream_destroy: OfContext,
    synchronize: OfContext,
    alloc: Alloc,
    free: Free,
    to_device: ToDevice,
    to_host: ToHost,
}

fn done(status: c_int, what: &str) -> Result<()> {
    match status {
        0 => Ok(()),
        2 => bail!(LimitExceeded, "the device is out of memory: {what} returned 2"),
        status => bail!(Backend, "NVIDIA's driver: {what} returned {status}"),
    }
}

impl Device {
    /// Opens the GPU with the index `number`, makes its context current on this thread, and returns the device. Fails
    /// with [`crate::error::Kind::DeviceMissing`] if there is no driver or no such GPU, with `Unsupported` if the
    /// driver lacks a function, with `LimitExceeded` if the GPU is out of memory, and with `Backend` for other errors
    /// of the driver.
    pub fn open(number: u32) -> Result<Device> {
        let driver = Driver::get()?;
        driver.capability(number)?;
        let number = c_int::try_from(number).map_err(|_| error!(InvalidArgument, "there is no device {number}"))?;
        type Retain = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;
        type Create = unsafe extern "C" fn(*mut *mut c_void, u32) -> c_int;
        let (mut context, mut stream) = (null_mut(), null_mut());
        // SAFETY: these are the declarations of `cuda.h`; each pointer is valid until its call returns.
        unsafe {
            let calls = Calls {
                set_current: driver.function::<OfContext>(c"cuCtxSetCurrent")?,
                release: driver.function::<OfDevice>(c"cuDevicePrimaryCtxRelease_v2")?,
                stream_destroy: driver.function::<OfContext>(c"cuStreamDestroy_v2")?,
                synchronize: driver.function::<OfContext>(c"cuStreamSynchronize")?,
                alloc: driver.function::<Alloc>(c"cuMemAlloc_v2")?,
                free: driver.function::<Free>(c"cuMemFree_v2")?,
                to_device: driver.function::<ToDevice>(c"cuMemcpyHtoDAsync_v2")?,
                to_host: driver.function::<ToHost>(c"cuMemcpyDtoHAsync_v2")?,
            };
            let retain = driver.function::<Retain>(c"cuDevicePrimaryCtxRetain")?;
            let create = driver.function::<Create>(c"cuStreamCreate")?;
            done(retain(&mut context, number), "cuDevicePrimaryCtxRetain")?;
            // From here on, dropping `device` releases everything.
            let mut device = Device { calls, number, context, stream };
            device.enter()?;
            done(create(&mut stream, 0), "cuStreamCreate")?;
            device.stream = stream;
            Ok(device)
        }
    }

    /// Makes the device's context current on this thread. Fails with `Backend` if the driver returns an error.
    pub fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained.
        done(unsafe { (self.calls.set_current)(self.context) }, "cuCtxSetCurrent")
    }

    /// Returns the index of the device.
    pub fn number(&self) -> u32 {
        self.number.unsigned_abs()
    }

    /// Returns the CUDA stream of the device, which is destroyed when the device is dropped.
    pub fn stream(&self) -> *mut c_void {
        self.stream
    }

    /// Waits until all work that was enqueued on the stream is done. Fails with [`crate::error::Kind::Backend`] if the
    /// work failed, or with `LimitExceeded` if it ran out of memory.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the stream is of this device.
        done(unsafe { (self.calls.synchronize)(self.stream) }, "cuStreamSynchronize")
    }

    /// Makes `room` a buffer of at least `size` bytes: if it is smaller, frees it, without copying its content, and
    /// allocates another. Fails with [`crate::error::Kind::LimitExceeded`] if the device is out of memory, and with
    /// `Backend` for other errors of the driver.
    pub fn room(&self, room: &mut Room, size: usize) -> Result<()> {
        if room.size >= size.max(1) {
            return Ok(());
        }
        self.give_back(room);
        // SAFETY: the driver only writes the address.
        done(unsafe { (self.calls.alloc)(&mut room.address, size.max(1)) }, "cuMemAlloc")?;
        room.size = size.max(1);
        Ok(())
    }

    /// Frees the memory of `room`, which is empty afterwards.
    pub fn give_back(&self, room: &mut Room) {
        if room.size > 0 {
            // SAFETY: `Device::room` allocated the memory, which is freed only here. A failure only leaks memory.
            unsafe { (self.calls.free)(room.address) };
        }
        *room = Room::default();
    }

    /// Enqueues a copy to the device. Fails with `Backend` if the driver returns an error. Panics if `room` is smaller
    /// than `from`.
    ///
    /// # Safety
    /// `from` must live until [`Device::wait`] returns.
    pub unsafe fn copy_in(&self, room: &Room, from: &[u8]) -> Result<()> {
        assert!(from.len() <= room.size);
        // SAFETY: the sizes fit; the caller keeps `from`.
        done(
            unsafe { (self.calls.to_device)(room.address, from.as_ptr().cast(), from.len(), self.stream) },
            "cuMemcpyHtoDAsync",
        )
    }

    /// Enqueues a copy to the host. Fails with `Backend` if the driver returns an error. Panics if `room` is smaller
    /// than `to`.
    ///
    /// # Safety
    /// `to` must live until [`Device::wait`] returns.
    pub unsafe fn copy_out(&self, room: &Room, to: &mut [u8]) -> Result<()> {
        assert!(to.len() <= room.size);
        // SAFETY: the sizes fit; the caller keeps `to`.
        done(
            unsafe { (self.calls.to_host)(to.as_mut_ptr().cast(), room.address, to.len(), self.stream) },
            "cuMemcpyDtoHAsync",
        )
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: `open` created the stream and retained the context, once. No work is pending, because every run waits
        // for its end.
        unsafe {
            if !self.stream.is_null() {
                (self.calls.stream_destroy)(self.stream);
            }
            (self.calls.release)(self.number);
        }
    }
}

/// A buffer of device memory, initially empty. [`Device::room`] allocates it and [`Device::give_back`] frees it;
/// dropping it does not.
#[derive(Default)]
pub(super) struct Room {
    address: Address,
    size: usize,
}

impl Room {
    pub fn address(&self) -> *mut c_void {
        self.address as *mut c_void
    }
}
