//! The NVIDIA driver (`libcuda.so.1`) and its devices, and the permanent opening of this and other shared libraries.

use crate::error::{Error, Kind, Result, bail, error};
use libloading::os::unix;
use std::error::Error as _;
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::OnceLock;

/// File name of the driver.
const FILE: &str = "libcuda.so.1";

/// A shared library that is never closed: its functions are kept as plain pointers.
#[derive(Debug)]
pub(crate) struct Library(ManuallyDrop<unix::Library>);

/// Opens a shared library permanently and returns it. The error is the message of the dynamic linker.
pub(crate) fn open(path: &Path) -> std::result::Result<Library, String> {
    if path.is_absolute() && !path.is_file() {
        return Err("no such file".to_owned());
    }
    // A missing symbol must be an error now, not at the first call.
    // SAFETY: opening a library runs its initializers; the caller or the system's loader chose it.
    let opened = unsafe { unix::Library::open(Some(path), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    opened.map(|library| Library(ManuallyDrop::new(library))).map_err(|e| reason(&e))
}

/// Returns the message of the dynamic linker, which is one level below the error of `libloading`.
fn reason(e: &libloading::Error) -> String {
    e.source().map_or_else(|| e.to_string(), ToString::to_string)
}

/// Returns the address of a function or variable of a library opened with [`open`]. Fails with `Unsupported` if the
/// library has no symbol of this name; `path` is the library's name in the message.
///
/// # Safety
/// `T` must be a pointer type. For a function, it must be the pointer type with the signature of that function.
pub(crate) unsafe fn function<T: Copy>(library: &Library, name: &CStr, path: &Path) -> Result<T> {
    // SAFETY: the contract of this function; the library is never closed.
    let found = unsafe { library.0.get::<T>(name) };
    found.map(|function| *function).map_err(|_| {
        let (path, name) = (path.display(), name.to_string_lossy());
        Error::new(Kind::Unsupported, format!("{path}: the library has no function {name}"))
    })
}

/// The initialized driver and its devices.
pub(crate) struct Driver {
    library: Library,
    /// Compute capability of each device, for example 89 for 8.9.
    pub capabilities: Vec<i32>,
}

impl Driver {
    /// Returns the driver. It is opened and queried by the first call, whose result, also a failure, is kept for the
    /// process. Fails with [`crate::error::Kind::DeviceMissing`] if there is no driver or no device, and with
    /// `Unsupported` if the driver lacks a function.
    pub fn get() -> Result<&'static Driver> {
        static FOUND: OnceLock<Result<Driver>> = OnceLock::new();
        FOUND.get_or_init(probe).as_ref().map_err(Clone::clone)
    }

    /// Returns the compute capability of a device, for example 89 for 8.9. Fails with `DeviceMissing` if the device
    /// does not exist.
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

    /// Returns the address of a function of the driver. Fails with `Unsupported` if the driver has no such function.
    ///
    /// # Safety
    /// The contract is that of [`function`].
    pub unsafe fn function<T: Copy>(&self, name: &CStr) -> Result<T> {
        // SAFETY: the contract of this function.
        unsafe { function(&self.library, name, Path::new(FILE)) }
    }
}

fn probe() -> Result<Driver> {
    let none = |why: String| error!(DeviceMissing, "there is no NVIDIA device to use: {why}");
    let library = open(Path::new(FILE)).map_err(|why| none(format!("the driver is missing: {why}")))?;
    let mut driver = Driver { library, capabilities: Vec::new() };
    type Init = unsafe extern "C" fn(u32) -> i32;
    type Count = unsafe extern "C" fn(*mut i32) -> i32;
    type Attribute = unsafe extern "C" fn(*mut i32, i32, i32) -> i32;
    // SAFETY: these are the declarations of `cuda.h`, unchanged since CUDA 2.
    let (init, count, attribute) = unsafe {
        (
            driver.function::<Init>(c"cuInit")?,
            driver.function::<Count>(c"cuDeviceGetCount")?,
            driver.function::<Attribute>(c"cuDeviceGetAttribute")?,
        )
    };
    let mut devices = 0;
    // SAFETY: each writes one integer to the given address; 75 and 76 are the parts of the compute capability.
    unsafe {
        let status = init(0);
        if status != 0 {
            return Err(none(format!("cuInit returned {status}")));
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
        type Cosine = unsafe extern "C" fn(f64) -> f64;
        // SAFETY: this is its declaration in `math.h`, and it accepts any number.
        assert_eq!(unsafe { function::<Cosine>(&math, c"cos", Path::new("libm.so.6")).unwrap()(0.0) }, 1.0);
        // SAFETY: the library has no such function, so none is called.
        let e = unsafe { function::<Cosine>(&math, c"cuInit", Path::new("libm.so.6")) }.unwrap_err();
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
