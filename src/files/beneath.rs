//! The opening of files that a model names, which is restricted to the model's folder and its repository.
//!
//! A name comes from an untrusted file, and the folder of the model may be untrusted as well. Links are followed by
//! ONNX Runtime's own rule: the target of a symbolic link must be in the folder of the model or, if the model file is
//! itself a link, in the folder of its target. In the cache of the Hugging Face hub, model and data are links from
//! `snapshots/REVISION/` into the `blobs/` of the same repository, so they are followed; links to other folders are
//! refused. Hard links cannot be distinguished from the original file: a file with several names is accepted if all of
//! them are in the model's folder or, in the cache of the hub, in the repository. (CVE-2022-25882, CVE-2024-27318,
//! CVE-2026-27489, CVE-2026-34446 and -34447.)

use super::parent_of;
use crate::error::{Context, Result, bail};
use crate::limits;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens `name` (a path from an untrusted file) inside `folder`, and returns the file.
///
/// Fails with [`crate::error::Kind::InvalidModel`] for absolute paths, `..`, a symbolic link, hard links to files
/// elsewhere (see the module), and anything that is not a regular file; with `NotFound` or `Io` if the file cannot be
/// opened, also because a folder in `name` is a symbolic link.
pub fn open_beneath(folder: &Path, name: &str) -> Result<File> {
    opened(folder, name, None)
}

/// Opens the data file `name` of the model file `model` and returns it. `name` is relative to the folder of `model`. A
/// symbolic link is followed if its target is in that folder, or in the folder of the file that `model` links to.
/// Otherwise this fails like [`open_beneath`].
pub fn open_beside(model: &Path, name: &str) -> Result<File> {
    opened(parent_of(model), name, Some(model))
}

/// Checks that a name from an untrusted file is a relative path inside its folder. Fails with
/// [`crate::error::Kind::InvalidModel`] for an empty name, an absolute path, and a path with `..`, a backslash or a NUL
/// character.
pub fn check_inside(name: &str) -> Result<()> {
    let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if name.is_empty() || !plain || name.contains('\\') || name.contains('\0') {
        bail!(InvalidModel, "the external data file {name:?} is not a relative path inside the model's folder");
    }
    Ok(())
}

fn opened(folder: &Path, name: &str, model: Option<&Path>) -> Result<File> {
    check_inside(name)?;
    let path = Path::new(name);
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let directory = rustix::fs::open(folder, FOLDER, Mode::empty()).at(|| folder.display())?;
    let place = || folder.join(path).display().to_string();
    let file = match (open_resolved(&directory, path), model) {
        (Err(Errno::LOOP | Errno::NOTDIR), Some(model)) => followed(folder, path, model)?,
        (Err(Errno::LOOP), None) => bail!(InvalidModel, "the external data file {name:?} is a symbolic link"),
        (Err(Errno::XDEV), _) => bail!(InvalidModel, "the external data file {name:?} leaves the model's folder"),
        (other, _) => other.at(place)?,
    };
    let stat = file.metadata().at(place)?;
    if !stat.is_file() {
        bail!(InvalidModel, "the external data file {name:?} is not a regular file");
    }
    if stat.nlink() > 1 && !all_names_inside(folder, &stat) {
        bail!(InvalidModel, "the external data file {name:?} is a hard link to a file elsewhere; replace it by a copy");
    }
    Ok(file)
}

/// Opens the file to which the symbolic links in `path` lead, if the rule of this module allows it, and returns it.
///
/// The resolved path is opened from its folder without following links: a change since the check is refused, not
/// followed.
fn followed(folder: &Path, path: &Path, model: &Path) -> Result<File> {
    let place = || folder.join(path).display().to_string();
    let target = match std::fs::canonicalize(folder.join(path)) {
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::LOOP | Errno::NOENT)) => {
            bail!(InvalidModel, "the external data file {:?} is a dangling symbolic link", path.display().to_string())
        }
        other => other.at(place)?,
    };
    let real_model = std::fs::canonicalize(model).at(|| model.display())?;
    let folders = [std::fs::canonicalize(folder).at(|| folder.display())?, parent_of(&real_model).to_owned()];
    for home in &folders {
        let Ok(rest) = target.strip_prefix(home) else { continue };
        let home = open_folder(home).at(|| home.display())?;
        return open_resolved(&home, rest).at(place);
    }
    bail!(
        InvalidModel,
        "the external data file {:?} is a symbolic link to {:?}, which is neither in the model's folder nor in that \
         of the file that the model links to",
        path.display().to_string(),
        target.display().to_string()
    )
}

/// Opens a folder by a path without symbolic links.
fn open_folder(path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(CWD, path, FOLDER, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::open(path, FOLDER | OFlags::NOFOLLOW, Mode::empty()),
        other => other,
    }
}

fn open_resolved(directory: &impl AsFd, path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve) {
        // Kernels before 5.6 and some sandboxes have no openat2: open the components one by one, following no link.
        Err(Errno::NOSYS | Errno::PERM) => open_walking(directory, path, flags),
        other => other.map(File::from),
    }
}

fn open_walking(directory: &impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<File> {
    let names: Vec<_> = path.components().filter(|c| *c != Component::CurDir).collect();
    let Some((last, parents)) = names.split_last() else { return Err(Errno::INVAL) };
    let step = FOLDER | OFlags::NOFOLLOW;
    let mut at = rustix::io::fcntl_dupfd_cloexec(directory, 0)?;
    for parent in parents {
        at = rustix::fs::openat(&at, parent.as_os_str(), step, Mode::empty())?;
    }
    rustix::fs::openat(&at, last.as_os_str(), flags, Mode::empty()).map(File::from)
}

/// Returns whether all names of a file are in the model's folder, or in the repository of the Hugging Face hub's cache
/// around it. Returns `false` if the search would exceed [`limits::LINKS_LOOKED_FOR`] entries or
/// [`limits::LINKS_DEPTH`] levels.
fn all_names_inside(folder: &Path, file: &Metadata) -> bool {
    let Ok(folder) = std::fs::canonicalize(folder) else { return false };
    let home = repository_of(&folder).unwrap_or(folder);
    let (mut found, mut looked_at) = (0u64, 0usize);
    let mut folders = vec![(home, 0usize)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            looked_at += 1;
            // This is the metadata of a link itself, not of its target.
            let Ok(stat) = entry.metadata() else { continue };
            if looked_at > limits::LINKS_LOOKED_FOR {
                return false;
            }
            if stat.is_dir() && depth < limits::LINKS_DEPTH {
                folders.push((entry.path(), depth + 1));
            }
            found += u64::from((stat.dev(), stat.ino()) == (file.dev(), file.ino()));
        }
    }
    found >= file.nlink()
}

/// Returns the folder that contains `snapshots` and `blobs`, if `folder` is in its `snapshots`; `None` otherwise.
fn repository_of(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.ancestors().find(|above| above.file_name().is_some_and(|name| name == "snapshots"))?;
    let repository = snapshots.parent()?;
    repository.join("blobs").is_dir().then(|| repository.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("optimize-beneath-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn content(file: Result<File>) -> String {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file.unwrap(), &mut text).unwrap();
        text
    }

    #[test]
    fn links_and_escapes_are_refused() {
        let dir = folder("links");
        std::fs::write(dir.join("data"), b"x").unwrap();
        std::fs::create_dir(dir.join("in")).unwrap();
        std::fs::write(dir.join("in/data"), b"x").unwrap();
        symlink("data", dir.join("symlink")).unwrap();
        symlink("in", dir.join("symdir")).unwrap();
        assert!(open_beneath(&dir, "in/data").is_ok() && open_beneath(&dir, "./data").is_ok());
        for bad in ["", "/etc/passwd", "../x", "in/../data", "symlink", "symdir/data", "in", "a\\b"] {
            assert!(open_beneath(&dir, bad).is_err(), "{bad}");
        }
        let walked = |name: &str| {
            let d = rustix::fs::open(&dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            open_walking(&d, Path::new(name), OFlags::RDONLY | OFlags::NOFOLLOW).is_ok()
        };
        assert!(walked("in/data") && !walked("symlink") && !walked("symdir/data"));
    }

    #[test]
    fn the_hub_s_cache_is_read_and_nothing_around_it() {
        let dir = folder("hub");
        let (snapshot, blobs) = (dir.join("models--a--b/snapshots/rev/onnx"), dir.join("models--a--b/blobs"));
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(&blobs).unwrap();
        for (name, text) in
            [("models--a--b/blobs/aaa", "model"), ("models--a--b/blobs/bbb", "data"), ("secret", "secret")]
        {
            std::fs::write(dir.join(name), text).unwrap();
        }
        symlink("../../../blobs/aaa", snapshot.join("model.onnx")).unwrap();
        symlink("../../../blobs/bbb", snapshot.join("model.onnx_data")).unwrap();
        let model = snapshot.join("model.onnx");
        assert_eq!(content(open_beside(&model, "model.onnx_data")), "data");
        // A link to another link is followed, and so is a link to the folder in which the model's own link ends.
        symlink("model.onnx_data", snapshot.join("again")).unwrap();
        symlink("../../../blobs", snapshot.join("folder")).unwrap();
        assert_eq!(content(open_beside(&model, "again")), "data");
        assert_eq!(content(open_beside(&model, "folder/bbb")), "data");
        // Links to any other place are rejected.
        symlink("../../../../secret", snapshot.join("out")).unwrap();
        symlink(dir.join("secret"), snapshot.join("absolute")).unwrap();
        symlink("../../../..", snapshot.join("up")).unwrap();
        symlink("loop", snapshot.join("loop")).unwrap();
        symlink("nowhere", snapshot.join("dangling")).unwrap();
        for bad in ["out", "absolute", "up/secret", "loop", "dangling", "../../../blobs/bbb", "folder/../secret"] {
            assert!(open_beside(&model, bad).is_err(), "{bad}");
        }
        // For a model that is not a link, links to other folders are rejected.
        let plain = snapshot.join("plain.onnx");
        std::fs::write(&plain, "model").unwrap();
        let e = open_beside(&plain, "model.onnx_data").unwrap_err();
        assert!(e.message().contains("symbolic link to") && e.message().contains("blobs/bbb"), "{e}");
        assert_eq!(content(open_beside(&plain, "plain.onnx")), "model");
    }

    #[test]
    fn hard_links_are_taken_where_all_names_lie_in_the_model_s_folder() {
        let dir = folder("hard");
        let (snapshot, blobs) = (dir.join("repo/snapshots/rev"), dir.join("repo/blobs"));
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join("bbb"), "data").unwrap();
        std::fs::hard_link(blobs.join("bbb"), snapshot.join("data")).unwrap();
        assert_eq!(content(open_beneath(&snapshot, "data")), "data");
        std::fs::hard_link(blobs.join("bbb"), dir.join("elsewhere")).unwrap();
        assert!(open_beneath(&snapshot, "data").unwrap_err().message().contains("hard link"));
        std::fs::write(dir.join("one"), "x").unwrap();
        std::fs::create_dir(dir.join("sub")).unwrap();
        std::fs::hard_link(dir.join("one"), dir.join("sub/two")).unwrap();
        assert_eq!(content(open_beneath(&dir, "one")), "x");
        assert!(open_beneath(&dir.join("sub"), "two").is_err());
    }
}
