//! Storage for the weights that a technique produces, in unnamed files on disk.

use super::{MAPPINGS, Mapping, with_temporary_name};
use crate::error::{Context, Result, bail};
use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The storage for the weights that a technique produces: a file without a name, so that the weights use disk instead
/// of memory. The file is freed when the storage and the last slice of its weights are dropped.
///
/// Tensors of at most [`Scratch::SMALL`] bytes stay on the heap. Several threads may use the storage at once.
pub struct Scratch {
    folder: PathBuf,
    file: Mutex<Option<(std::sync::Arc<File>, u64)>>,
}

impl Scratch {
    /// The maximum size of a tensor that is kept on the heap, in bytes.
    pub const SMALL: usize = 1 << 20;

    /// Returns scratch storage in the existing folder `folder`. Its file is created when a tensor first needs it.
    pub fn new(folder: &Path) -> Scratch {
        Scratch { folder: folder.to_owned(), file: Mutex::new(None) }
    }

    /// Reserves `length` bytes, which are zero until they are written, and returns a writer for them. Fails with
    /// `NotFound` or `Io` if the file cannot be created or enlarged.
    pub fn reserve(&self, length: usize) -> Result<ScratchSlot> {
        if length <= Self::SMALL {
            return Ok(ScratchSlot { length, heap: Mutex::new(vec![0; length]), file: None });
        }
        let mut state = self.file.lock().unwrap_or_else(|e| e.into_inner());
        if state.is_none() {
            *state = Some((std::sync::Arc::new(self.create()?), 0));
        }
        let Some((file, end)) = state.as_mut() else { bail!(Internal, "there is no scratch file") };
        let start = *end;
        // Mappings begin on a page; 64 KiB is a multiple of every existing page size.
        *end = (start + length as u64).next_multiple_of(64 << 10);
        file.set_len(*end).at(|| self.folder.display())?;
        Ok(ScratchSlot { length, heap: Mutex::default(), file: Some((file.clone(), start)) })
    }

    fn create(&self) -> Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::open(&self.folder, flags, Mode::from_raw_mode(0o600)) {
            return Ok(fd.into());
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open = |name: &Path| rustix::fs::open(name, flags, Mode::from_raw_mode(0o600));
        let (fd, name) = with_temporary_name(&self.folder.join("scratch"), open).at(|| self.folder.display())?;
        rustix::fs::unlink(&name).at(|| name.display())?;
        Ok(fd.into())
    }
}

/// A private folder for temporary files, such as those that ONNX Runtime writes. Its name is unique, also among threads
/// and among processes with one id in several containers. It is removed with its content when it is dropped.
pub struct ScratchFolder(PathBuf);

impl ScratchFolder {
    /// Returns an empty folder in the system's temporary folder that only this user may read, with `name` in its name.
    /// Fails with `NotFound` or `Io` if it cannot be created.
    pub fn new(name: &str) -> Result<ScratchFolder> {
        ScratchFolder::in_folder(&std::env::temp_dir(), name)
    }

    /// Returns an empty folder in the existing folder `folder`, otherwise like [`ScratchFolder::new`].
    pub fn in_folder(folder: &Path, name: &str) -> Result<ScratchFolder> {
        ScratchFolder::made(&folder.join(format!("optimize-{name}")), 0o700)
    }

    /// Returns an empty folder next to `target`, with the permissions of folders that the user creates: it becomes
    /// `target` when it is finished. Fails like [`ScratchFolder::new`].
    pub fn beside(target: &Path) -> Result<ScratchFolder> {
        ScratchFolder::made(target, 0o777)
    }

    fn made(target: &Path, mode: rustix::fs::RawMode) -> Result<ScratchFolder> {
        let make = |path: &Path| rustix::fs::mkdir(path, Mode::from_raw_mode(mode));
        let ((), path) = with_temporary_name(target, make).at(|| target.display())?;
        Ok(ScratchFolder(path))
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The reserved bytes of a tensor in a [`Scratch`], which are written in pieces and then become shared bytes.
pub struct ScratchSlot {
    length: usize,
    heap: Mutex<Vec<u8>>,
    file: Option<(std::sync::Arc<File>, u64)>,
}

impl ScratchSlot {
    /// Writes `bytes` at `offset` within the slot. Several threads may write at once. Fails with `Io` if the disk is
    /// full, and with `Internal` beyond the end of the slot.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.length) {
            bail!(Internal, "a scratch write of {} bytes at {offset} exceeds its slot of {}", bytes.len(), self.length);
        }
        match &self.file {
            Some((file, start)) => Ok(std::os::unix::fs::FileExt::write_all_at(&**file, bytes, start + offset as u64)?),
            None => {
                let mut heap = self.heap.lock().unwrap_or_else(|e| e.into_inner());
                heap[offset..offset + bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Returns the bytes of the slot. Those in the file are mapped, not read. Fails with `Io` if the file cannot be
    /// mapped.
    pub fn finish(self) -> Result<Bytes> {
        let Some((file, start)) = self.file else {
            return Ok(Bytes::from(self.heap.into_inner().unwrap_or_else(|e| e.into_inner())));
        };
        // SAFETY: the scratch file has no name, so no other process can truncate it, and a finished slot is never
        // written again.
        let mapping = unsafe { memmap2::MmapOptions::new().offset(start).len(self.length).map(&*file)? };
        let at = mapping.as_ptr() as usize;
        MAPPINGS.write().unwrap_or_else(|e| e.into_inner()).insert(at, at + mapping.len());
        Ok(Bytes::from_owner(Mapping(mapping)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("optimize-files-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn scratch_keeps_what_was_written() {
        let scratch = Scratch::new(&folder("scratch"));
        let parts: Vec<Bytes> = [10, Scratch::SMALL + 5, Scratch::SMALL * 2]
            .into_iter()
            .map(|length| {
                let slot = scratch.reserve(length).unwrap();
                slot.write_at(0, &vec![length as u8; length]).unwrap();
                assert!(slot.write_at(length, b"x").is_err());
                slot.finish().unwrap()
            })
            .collect();
        assert!(parts.iter().all(|p| p.iter().all(|b| *b == p.len() as u8)));
        assert_eq!(std::fs::read_dir(&scratch.folder).unwrap().count(), 0);
    }
}
