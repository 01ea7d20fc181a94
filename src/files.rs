//! The access to the file system: opening beneath a folder, mapping, atomic replacement.
//!
//! The rules for untrusted files are in this module only. No link and no `..` leads out of the model's folder (the
//! module `beneath` has the exceptions), and the size of a file is checked against the caller's limit before the file
//! is mapped or read. A file that is written with [`AtomicFile`] is either completely replaced or untouched.

mod beneath;
mod clock;
pub mod digest;
mod memory;
mod scratch;

pub use beneath::{check_inside, open_beneath, open_beside};
pub use clock::{LocalTime, local_time};
pub use memory::Memory;
pub use scratch::{Scratch, ScratchFolder, ScratchSlot};

use crate::error::{Context, Error, Kind, Result, bail};
use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, RwLock};

/// The address ranges (start -> end) of the live read-only file mappings, whose pages [`release`] may drop.
static MAPPINGS: RwLock<BTreeMap<usize, usize>> = RwLock::new(BTreeMap::new());

/// A mapped file that removes itself from [`MAPPINGS`] when the last slice of it is dropped.
struct Mapping(memmap2::Mmap);

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let start = self.0.as_ptr() as usize;
        MAPPINGS.write().unwrap_or_else(|e| e.into_inner()).remove(&start);
    }
}

/// Opens a regular file for reading and returns it. Symbolic links are followed, because the path is the caller's own.
/// Fails with `NotFound` or `Io` if the file cannot be opened, with `InvalidArgument` if it is not a regular file.
pub fn open(path: &Path) -> Result<File> {
    // With NONBLOCK, a fifo or a device that is named as a model cannot block the caller; regular files ignore the
    // flag.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: File = rustix::fs::open(path, flags, Mode::empty()).at(|| path.display())?.into();
    if !file.metadata().at(|| path.display())?.is_file() {
        return Err(Error::new(Kind::InvalidArgument, "the path is not a regular file").at(path.display()));
    }
    Ok(file)
}

/// Maps a whole file read-only and returns its bytes. Slices of them keep the mapping alive; nothing is read yet. Fails
/// with `LimitExceeded` if the file has more than `limit` bytes.
///
/// The file must not be truncated or rewritten in place while it is mapped (after truncation, the kernel would kill the
/// process on access). A program that replaces the file should do so by renaming, as [`AtomicFile`] does.
pub fn map(file: &File, limit: u64) -> Result<Bytes> {
    let length = file.metadata()?.len();
    if length > limit {
        bail!(LimitExceeded, "the file has {length} bytes; the limit is {limit}");
    }
    if length == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is read-only. That the file is neither truncated nor rewritten in place meanwhile
    // is the documented duty of the caller, as with every reader of mapped files.
    let mapping = unsafe { memmap2::Mmap::map(file)? };
    let start = mapping.as_ptr() as usize;
    MAPPINGS.write().unwrap_or_else(|e| e.into_inner()).insert(start, start + mapping.len());
    Ok(Bytes::from_owner(Mapping(mapping)))
}

/// Tells the kernel that these bytes will not be needed soon, if they belong to a file that this module has mapped.
///
/// This keeps the resident memory of a pass over a large model small. The bytes stay valid: a later access reads them
/// from the file again. Pages that are only partly in `bytes` are kept. For other bytes, nothing happens.
pub fn release(bytes: &[u8]) {
    let page = page_size();
    let (start, end) = (bytes.as_ptr() as usize, bytes.as_ptr() as usize + bytes.len());
    let (first, last) = (start.div_ceil(page) * page, end / page * page);
    let mappings = MAPPINGS.read().unwrap_or_else(|e| e.into_inner());
    let inside = mappings.range(..=start).next_back().is_some_and(|(_, &mapped_end)| end <= mapped_end);
    if inside && first < last {
        // SAFETY: the range is in a read-only file mapping that cannot be unmapped while the lock is held; DONTNEED
        // only drops pages that can be read again from the file.
        let _ = unsafe { rustix::mm::madvise(first as *mut _, last - first, rustix::mm::Advice::LinuxDontNeed) };
    }
}

fn page_size() -> usize {
    static SIZE: LazyLock<usize> = LazyLock::new(|| {
        // SAFETY: reads a constant of the system.
        usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(1)
    });
    *SIZE
}

/// Returns the folder and the name of a file that always exists and is always empty. ONNX Runtime requires the file of
/// external weights to exist before it takes them from memory instead.
pub fn always_empty() -> (&'static str, &'static str) {
    ("/dev", "null")
}

/// The number of bytes that are released at a time while streaming.
const STREAM_BYTES: usize = 1 << 20;

/// Writes bytes to `out` in chunks of 1 MiB, and releases their mapped pages. `step` is called with each chunk after it
/// has been written, and ends the function if it fails.
pub fn stream(bytes: &[u8], out: &mut impl Write, mut step: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut done = 0usize;
    for piece in bytes.chunks(STREAM_BYTES) {
        out.write_all(piece)?;
        step(piece)?;
        // Starts one page earlier, because a page that two pieces share can be released only after the second one.
        let start = done.saturating_sub(page_size());
        done += piece.len();
        release(&bytes[start..done]);
    }
    Ok(())
}

/// A file that appears under its name only when it is complete. Until [`AtomicFile::commit`], it has no name, or a
/// hidden one if the file system has no unnamed files or `/proc` is missing. Dropping it before then removes it. If the
/// target path is a symbolic link, the link is replaced, and the file that it leads to is unchanged.
pub struct AtomicFile {
    /// File that is written; `None` after the commit.
    file: Option<File>,
    target: PathBuf,
    /// Temporary name of the file, if it has one.
    named: Option<PathBuf>,
    /// Number of bytes that were written.
    written: u64,
    /// Number of bytes that the kernel was asked to flush.
    started: u64,
    /// Number of bytes whose flush was waited for.
    waited: u64,
}

/// The number of bytes after which the kernel is asked to flush.
const WRITE_BACK: u64 = 4 << 20;

impl AtomicFile {
    /// Returns a new file that will replace `target` or appear there. The folder of `target` must exist. Fails with
    /// `InvalidArgument` if `target` has no file name, or exists and is not a regular file, and with `NotFound` or `Io`
    /// if the file cannot be created.
    pub fn create(target: &Path) -> Result<AtomicFile> {
        if target.file_name().is_none() {
            bail!(InvalidArgument, "{:?} does not name a file", target);
        }
        // Renaming over a device would replace it with a file: `--output /dev/null` as root.
        if std::fs::metadata(target).is_ok_and(|there| !there.is_file()) {
            return Err(
                Error::new(Kind::InvalidArgument, "the path exists and is not a regular file").at(target.display())
            );
        }
        let (file, named) = Self::open(target).at(|| target.display())?;
        Ok(AtomicFile { file: Some(file), target: target.to_owned(), named, written: 0, started: 0, waited: 0 })
    }

    fn open(target: &Path) -> Result<(File, Option<PathBuf>)> {
        let mode = Mode::from_raw_mode(0o666);
        let unnamed = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::open(parent_of(target), unnamed, mode) {
            let file = File::from(fd);
            // Without /proc (in a chroot), the file could not be given its name at the end.
            if in_proc(&file).exists() {
                return Ok((file, None));
            }
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let (fd, name) = with_temporary_name(target, |name| rustix::fs::open(name, flags, mode))?;
        Ok((fd.into(), Some(name)))
    }

    /// Flushes the content to disk and renames the file to its target, which atomically replaces an existing file.
    /// Fails with `Io` if the disk is full or the file cannot be renamed; after a failure before the rename, the target
    /// is unchanged.
    pub fn commit(mut self) -> Result<()> {
        let place = self.target.clone();
        self.finish().at(|| place.display())
    }

    /// Commits the file like [`AtomicFile::commit`], but under `name` in the folder of the target. It is meant for
    /// names that are derived from the content. Fails like [`AtomicFile::commit`].
    pub fn commit_as(mut self, name: &str) -> Result<()> {
        self.target.set_file_name(name);
        self.commit()
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Tells the kernel to flush the bytes written since the last call, and waits for the flush that the last call
    /// began. The final sync, which no cancel can interrupt, then has only the last few megabytes to wait for.
    fn write_back(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(file) = &self.file {
            use std::os::fd::AsRawFd;
            let (fd, start) = (file.as_raw_fd(), libc::SYNC_FILE_RANGE_WRITE);
            let wait = libc::SYNC_FILE_RANGE_WAIT_BEFORE | start | libc::SYNC_FILE_RANGE_WAIT_AFTER;
            // SAFETY: plain system calls on our own descriptor; a failure only means a longer final sync.
            unsafe {
                libc::sync_file_range(fd, self.started as i64, (self.written - self.started) as i64, start);
                libc::sync_file_range(fd, self.waited as i64, (self.started - self.waited) as i64, wait);
            }
        }
        self.waited = self.started;
        self.started = self.written;
    }

    fn finish(&mut self) -> Result<()> {
        let file = self.file()?;
        file.sync_all()?;
        if self.named.is_none() {
            let this = in_proc(file);
            let link = |name: &Path| {
                rustix::fs::linkat(rustix::fs::CWD, &this, rustix::fs::CWD, name, AtFlags::SYMLINK_FOLLOW)
            };
            self.named = Some(with_temporary_name(&self.target, link)?.1);
        }
        let name = self.named.as_ref().map_or(Path::new(""), PathBuf::as_path);
        std::fs::rename(name, &self.target)?;
        (self.named, self.file) = (None, None);
        sync_folder(parent_of(&self.target))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file()?.write(bytes)?;
        self.written += count as u64;
        if self.written - self.started >= WRITE_BACK {
            self.write_back();
        }
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(name) = &self.named {
            let _ = std::fs::remove_file(name);
        }
        // Freeing gigabytes takes the kernel some time, and a caller who cancelled should not wait for it.
        if let Some(file) = self.file.take().filter(|_| self.written > 32 << 20) {
            let _ = std::thread::Builder::new().spawn(move || drop(file));
        }
    }
}

/// Writes a small file with this content, which atomically replaces an existing one. Fails like [`AtomicFile::create`],
/// and with `Io` if the content cannot be written.
pub fn replace(target: &Path, content: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write_all(content).at(|| target.display())?;
    file.commit()
}

/// Renames the folder `finished` to `target`, and removes the folder that was there, if there was one. Both must be in
/// one file system. The exchange is atomic, except on file systems that cannot exchange two folders. Fails with
/// `NotFound` or `Io` if a folder cannot be renamed or removed.
pub fn replace_folder(finished: &Path, target: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, finished, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => std::fs::remove_dir_all(finished).at(|| finished.display())?,
        Err(Errno::NOENT) => std::fs::rename(finished, target).at(|| target.display())?,
        // Some network file systems and overlays cannot exchange folders.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => replace_in_two_steps(finished, target)?,
        Err(e) => return Err(Error::from(e).at(target.display())),
    }
    sync_folder(parent_of(target))
}

/// Replaces a folder on file systems that cannot exchange two folders. The old folder is first renamed to a hidden name
/// next to `target`, so for a moment `target` does not exist. If `finished` cannot be renamed, the
/// old folder is renamed back. If the process ends between the two steps, the old folder keeps the hidden name.
fn replace_in_two_steps(finished: &Path, target: &Path) -> Result<()> {
    if !target.exists() {
        return std::fs::rename(finished, target).at(|| target.display());
    }
    // A rename replaces an empty folder.
    let make = |path: &Path| rustix::fs::mkdir(path, rustix::fs::Mode::from_raw_mode(0o700));
    let ((), aside) = with_temporary_name(target, make).at(|| target.display())?;
    std::fs::rename(target, &aside).at(|| target.display())?;
    if let Err(e) = std::fs::rename(finished, target) {
        std::fs::rename(&aside, target).at(|| aside.display())?;
        return Err(Error::from(e).at(target.display()));
    }
    std::fs::remove_dir_all(&aside).at(|| aside.display())
}

/// Returns the content of a small file. Fails with `LimitExceeded` above `limit` bytes, and like [`open`].
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata().at(|| path.display())?.len();
    if length > limit {
        return Err(Error::new(Kind::LimitExceeded, format!("the file has {length} bytes; the limit is {limit}"))
            .at(path.display()));
    }
    let mut content = Vec::with_capacity(length as usize);
    io::Read::read_to_end(&mut io::Read::take(file, limit), &mut content).at(|| path.display())?;
    Ok(content)
}

/// Returns the content of a small file of UTF-8 text, without a byte order mark at its beginning. Fails with
/// `LimitExceeded` above [`TEXT_BYTES`](crate::limits::TEXT_BYTES), with `Io` if the content is not UTF-8, with
/// `InvalidArgument` for a file of NumPy arrays, and like [`open`].
pub fn read_text(path: &Path) -> Result<String> {
    if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("npz") || end.eq_ignore_ascii_case("npy")) {
        let why = "the file contains NumPy arrays; tensors are read from .safetensors files";
        return Err(crate::error::error!(InvalidArgument, "{why}").at(path.display()));
    }
    text_of(read(path, crate::limits::TEXT_BYTES as u64)?).at(|| path.display())
}

/// Returns the text of the content of a file, without a byte order mark at its beginning. Fails with `Io` if the
/// content is not UTF-8.
pub fn text_of(mut content: Vec<u8>) -> Result<String> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    if content.starts_with(MARK) {
        content.drain(..MARK.len());
    }
    Ok(String::from_utf8(content).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?)
}

/// Returns the folder of a path; `.` for a path that is only a name, or that has no parent.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// Flushes the rename of a file in `folder` to disk. If the folder may not be read, or its file system does not sync
/// folders, the function succeeds without a flush: the file has its name already, and the kernel flushes the folder
/// later.
fn sync_folder(folder: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::empty()).and_then(rustix::fs::fsync) {
        Err(Errno::ACCESS | Errno::PERM | Errno::INVAL | Errno::NOTSUP) => Ok(()),
        other => Ok(other?),
    }
}

/// Returns the path under which the kernel shows an open file, named or not.
fn in_proc(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))
}

/// Calls `make` with hidden names next to `target` until one is free, and returns the result and the name. Fails with
/// the error of `make`; after 10,000 names that are not free, with `EXIST`.
fn with_temporary_name<T>(
    target: &Path,
    make: impl Fn(&Path) -> rustix::io::Result<T>,
) -> rustix::io::Result<(T, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // The name helps people who find the file; file systems limit names to 255 bytes.
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().take(48).collect();
    // An existing file is left over from a killed process with the same process id, which is common in containers.
    for _ in 0..10_000 {
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = target.with_file_name(format!(".{name}.{}.{unique}.tmp", std::process::id()));
        match make(&path) {
            Err(Errno::EXIST) => {}
            other => return other.map(|made| (made, path)),
        }
    }
    Err(Errno::EXIST)
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
    fn a_byte_order_mark_is_not_text() {
        let of = |content: &str| text_of(content.as_bytes().to_vec()).unwrap();
        assert_eq!((of("\u{feff}Grüße\n"), of("a\u{feff}"), of("")), ("Grüße\n".into(), "a\u{feff}".into(), "".into()));
        assert_eq!(text_of(b"\xef\xbb".to_vec()).unwrap_err().kind(), Kind::Io);
        let path = folder("mark").join("a.txt");
        std::fs::write(&path, "\u{feff}text").unwrap();
        assert_eq!(read_text(&path).unwrap(), "text");
    }

    #[test]
    fn a_folder_is_replaced_where_none_can_be_exchanged_and_comes_back_if_it_cannot_be() {
        let dir = folder("two-steps");
        let (finished, target) = (dir.join("finished"), dir.join("target"));
        let make = |text: &str| {
            std::fs::create_dir(&finished).unwrap();
            std::fs::write(finished.join("file"), text).unwrap();
        };
        let there = || std::fs::read_to_string(target.join("file")).unwrap();
        make("first");
        replace_in_two_steps(&finished, &target).unwrap();
        assert_eq!(there(), "first");
        make("second");
        replace_in_two_steps(&finished, &target).unwrap();
        assert_eq!(there(), "second");
        assert!(replace_in_two_steps(&finished, &target).is_err(), "nothing is finished");
        assert_eq!(there(), "second");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn released_bytes_read_the_same_again() {
        let dir = folder("release");
        let content: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        std::fs::write(dir.join("f"), &content).unwrap();
        let bytes = map(&open(&dir.join("f")).unwrap(), 1 << 20).unwrap();
        release(&bytes[1..]);
        assert_eq!(bytes, content);
        let heap = [7u8; 100_000];
        release(&heap);
        assert_eq!(heap, [7; 100_000]);
    }
}
