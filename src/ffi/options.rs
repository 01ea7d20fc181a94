//! The reading and writing of C structs that can grow: they begin with `struct_size`, and all zero selects the
//! defaults.

use crate::error::{Result, bail};

/// An append-only struct that C programs pass, or that they let the library fill.
///
/// # Safety
/// The type is `#[repr(C)]`, begins with `struct_size: u32`, has no padding, and is valid if all its bytes are zero.
pub unsafe trait Options: Copy {}

/// Maximum size in bytes of such a struct in all versions.
pub const LARGEST: usize = 4096;

/// Returns the options as this version knows them: NULL is a struct of zeros, a shorter (older) struct is extended with
/// zeros, and a longer (newer) one is accepted if its unknown part is zero. Fails with `InvalidArgument` if that part
/// is not zero, if the struct is not aligned, or if its size is below 4 or above [`LARGEST`].
///
/// # Safety
/// `options` is NULL or points to a struct of the size it announces.
pub unsafe fn read<T: Options>(options: *const T) -> Result<T> {
    // SAFETY: the trait promises that zeros are valid.
    let mut known: T = unsafe { std::mem::zeroed() };
    if options.is_null() {
        return Ok(known);
    }
    if !options.is_aligned() {
        bail!(InvalidArgument, "the options are not aligned");
    }
    // SAFETY: every option struct begins with its size.
    let size = unsafe { options.cast::<u32>().read() } as usize;
    if !(size_of::<u32>()..=LARGEST).contains(&size) {
        bail!(InvalidArgument, "struct_size of the options is {size}; it must be the sizeof of the struct");
    }
    // SAFETY: the caller's struct has `size` bytes, ours has `size_of::<T>()`.
    unsafe {
        let common = size.min(size_of::<T>());
        std::ptr::copy_nonoverlapping(options.cast::<u8>(), (&raw mut known).cast::<u8>(), common);
        let tail = std::slice::from_raw_parts(options.cast::<u8>().add(common), size - common);
        if tail.iter().any(|&byte| byte != 0) {
            bail!(
                InvalidArgument,
                "the options set a field that this version ({}) does not have",
                env!("CARGO_PKG_VERSION")
            );
        }
    }
    Ok(known)
}

/// Writes a struct to that of the caller, who has set `struct_size`: a shorter (older) one gets the fields that fit,
/// and the additional fields of a longer (newer) one are unchanged. Fails with `InvalidArgument` if `place` is NULL or
/// not aligned, or if its size is below 4 or above [`LARGEST`]; `name` is the name of the struct in the message.
///
/// # Safety
/// `place` is NULL or points to a struct of the size it announces.
pub unsafe fn write<T: Options>(value: &T, place: *mut T, name: &str) -> Result<()> {
    if place.is_null() {
        bail!(InvalidArgument, "{name} is NULL; an output pointer is required");
    }
    if !place.is_aligned() {
        bail!(InvalidArgument, "{name} is not aligned");
    }
    // SAFETY: the caller's struct begins with its size; the rest is only written.
    let size = unsafe { place.cast::<u32>().read() } as usize;
    if !(size_of::<u32>()..=LARGEST).contains(&size) {
        bail!(InvalidArgument, "struct_size of {name} is {size}; it must be the sizeof of the struct");
    }
    let (start, room) = (size_of::<u32>(), size.min(size_of::<T>()));
    // SAFETY: both structs have at least `room` bytes; the size in front stays.
    unsafe {
        let from = (&raw const *value).cast::<u8>().add(start);
        std::ptr::copy_nonoverlapping(from, place.cast::<u8>().add(start), room - start);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Now {
        struct_size: u32,
        a: u32,
    }
    // SAFETY: two integers.
    unsafe impl Options for Now {}

    #[repr(C)]
    struct Later {
        struct_size: u32,
        a: u32,
        b: u64,
    }

    #[test]
    fn older_structs_get_the_fields_that_fit() {
        // SAFETY: all structs have the size they announce.
        unsafe {
            let mut older = Now { struct_size: 4, a: 9 };
            write(&Now { struct_size: 0, a: 3 }, &mut older, "older").unwrap();
            assert_eq!((older.struct_size, older.a), (4, 9));
            let mut newer = Later { struct_size: 16, a: 9, b: 7 };
            write(&Now { struct_size: 0, a: 3 }, (&raw mut newer).cast::<Now>(), "newer").unwrap();
            assert_eq!((newer.struct_size, newer.a, newer.b), (16, 3, 7));
            assert!(write(&Now::default(), &mut Now::default(), "unset").is_err());
            assert!(write(&Now::default(), std::ptr::null_mut(), "missing").is_err());
        }
    }

    #[test]
    fn older_and_newer_structs_are_understood() {
        // SAFETY: all structs have the size they announce.
        unsafe {
            assert_eq!(read::<Now>(std::ptr::null()).unwrap().a, 0);
            let older = Now { struct_size: 4, a: 9 };
            assert_eq!(read(&older).unwrap().a, 0);
            let newer = Later { struct_size: 16, a: 3, b: 0 };
            assert_eq!(read((&raw const newer).cast::<Now>()).unwrap().a, 3);
            let unknown = Later { struct_size: 16, a: 3, b: 1 };
            assert!(read((&raw const unknown).cast::<Now>()).is_err());
            assert!(read(&Now { struct_size: 0, a: 0 }).is_err());
            assert!(read(&Now { struct_size: u32::MAX, a: 0 }).is_err());
        }
    }
}
