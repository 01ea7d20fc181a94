//! The NVIDIA driver (`libcuda.so.1`), opened on first use, and its devices. Also the two calls of the system's
//! loader that open this and other libraries permanently.

use crate::error::{Result, bail, error};
use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

/// File name of the driver.
const FILE: &str = "libcuda.so.1";

/// Opens a library permanently; the error is the loader's message.
pub(crate) fn open(path: &Path) -> std::result::Result<*mut c_void, String> {
    if path.is_absolute() && !path.is_file() {
        return Err("no such file".to_owned());
    }
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| "its name contains a NUL byte".to_owned())?;
    // SAFETY: opening a library runs its initializers; the caller named it, or the system's loader knows it. Errors of
    // the loader are texts that live until its next call in this thread.
    unsafe {
        let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        if !handle.is_null() {
            return Ok(handle);
        }
        let text = libc::dlerror();
        let unknown = || "the loader gives no reason".to_owned();
        Err(if text.is_null() { unknown() } else { CStr::from_ptr(text).to_string_lossy().into_owned() })
    }
}

/// Returns a function of a library opened with [`open`].
pub(crate) fn symbol(handle: *mut c_void, name: &CStr, path: &Path) -> Result<*mut c_void> {
    // SAFETY: the handle is of `dlopen`, the name a C string.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if found.is_null() {
        bail!(Unsupported, "{}: the library has no function {}", path.display(), name.to_string_lossy());
    }
    Ok(found)
}

/// The initialized driver and its devices.
pub(crate) struct Driver {
    handle: *mut c_void,
    /// Compute capability of each device, 89 for 8.9.
    pub capabilities: Vec<i32>,
}
// SAFETY: the handle is of a library that is never closed; its functions may be called from any thread.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

impl Driver {
    /// Returns the driver, which is queried only once. Fails with [`crate::error::Kind::DeviceMissing`], whose
    /// message names what is missing.
    pub fn get() -> Result<&'static Driver> {
        static FOUND: OnceLock<Result<Driver>> = OnceLock::new();
        FOUND.get_or_init(probe).as_ref().map_err(Clone::clone)
    }

    /// Returns the compute capability of a device. Fails with `DeviceMissing` if it does not exist.
    pub fn capability(&self, device_id: u32) -> Result<i32> {
        match self.capabilities.get(device_id as usize) {
            Some(capability) => Ok(*capability),
            None => bail!(
                DeviceMissing,
                "there is no NVIDIA device {device_id}: the driver reports {}, numbered from 0",
                self.capabilities.len()
            ),
        }
    }

    /// Returns a function of the driver.
    pub fn function(&self, name: &CStr) -> Result<*mut c_void> {
        symbol(self.handle, name, Path::new(FILE))
    }
}

fn probe() -> Result<Driver> {
    let none = |why: String| error!(DeviceMissing, "there is no NVIDIA device to use: {why}");
    let handle = open(Path::new(FILE)).map_err(|why| none(format!("the driver is missing: {why}")))?;
    let mut driver = Driver { handle, capabilities: Vec::new() };
    type Init = unsafe extern "C" fn(u32) -> i32;
    type Count = unsafe extern "C" fn(*mut i32) -> i32;
    type Attribute = unsafe extern "C" fn(*mut i32, i32, i32) -> i32;
    // SAFETY: these are the declarations of `cuda.h`, unchanged since CUDA 2.
    let (init, count, attribute) = unsafe {
        (
            std::mem::transmute::<*mut c_void, Init>(driver.function(c"cuInit")?),
            std::mem::transmute::<*mut c_void, Count>(driver.function(c"cuDeviceGetCount")?),
            std::mem::transmute::<*mut c_void, Attribute>(driver.function(c"cuDeviceGetAttribute")?),
        )
    };
    let mut devices = 0;
    // SAFETY: each writes one integer to where it is told; 75 and 76 are the parts of the compute capability.
    unsafe {
        let status = init(0);
        if status != 0 {
            return Err(none(format!("cuInit gives {status}")));
        }
        if count(&mut devices) != 0 || devices <= 0 {
            return Err(none("the driver reports no device".to_owned()));
        }
        for device in 0..devices {
            let (mut major, mut minor) = (0, 0);
            if attribute(&mut major, 75, device) != 0 || attribute(&mut minor, 76, device) != 0 {
                return Err(none(format!("the driver does not report the capability of device {device}")));
            }
            driver.capabilities.push(major * 10 + minor);
        }
    }
    Ok(driver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_the_loader_refuses_is_told_in_its_words() {
        assert_eq!(open(Path::new("/nowhere/libcuda.so.1")).unwrap_err(), "no such file");
        assert!(open(Path::new("libnobody-has-this.so.7")).unwrap_err().contains("libnobody-has-this.so.7"));
        let math = open(Path::new("libm.so.6")).unwrap();
        assert!(symbol(math, c"cos", Path::new("libm.so.6")).is_ok());
        let e = symbol(math, c"cuInit", Path::new("libm.so.6")).unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(e.message().contains("cuInit") && e.message().contains("libm.so.6"), "{e}");
    }

    #[test]
    fn a_device_is_there_or_it_is_said_what_is_not() {
        match Driver::get() {
            Ok(driver) => {
                assert!(driver.capability(0).unwrap() >= 10);
                assert_eq!(driver.capability(4096).unwrap_err().kind(), Kind::DeviceMissing);
            }
            Err(e) => {
                assert_eq!(e.kind(), Kind::DeviceMissing);
                assert!(e.message().starts_with("there is no NVIDIA device to use: "), "{e}");
            }
        }
    }
}
