//! The names of data files next to a model, and the removal of unused ones.

use super::proto::ModelProto;
use super::tensors::for_each_tensor;
use super::wire::Reader;
use crate::error::Result;
use crate::{files, limits};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;

/// The number of digits of the content hash in the name of a data file.
pub(super) const HASH_DIGITS: usize = 16;

/// Returns the name of the data file with the content hash `hash` for the model at `path`: `model.onnx.<hash>.data`. It
/// begins with the file name of the model, so that the data files of different models in a folder are distinct. Names
/// that are too long, not UTF-8 or contain a backslash are changed, but stay unique.
pub(super) fn of(path: &Path, hash: &str) -> String {
    let (before, after) = around(path);
    format!("{before}{hash}{after}")
}

/// Returns the parts of the name of a data file before and after the hash.
fn around(path: &Path) -> (String, &'static str) {
    // File systems limit names to 255 bytes, and a location in a model is UTF-8 without backslashes. A name that has to
    // be changed therefore gets a few digits of a hash, so that it stays unique.
    const LONGEST: usize = 200;
    let whole = path.file_name().unwrap_or_default();
    let mut name = whole.to_string_lossy().replace('\\', "_");
    name.truncate((0..=LONGEST).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0));
    if *name != *whole {
        let digest = Sha256::digest(whole.as_encoded_bytes());
        name = format!("{name}-{}", crate::files::digest::hex(&digest[..4]));
    }
    (format!("{name}."), ".data")
}

/// Removes the data files in the folder of `path` that are named as those of earlier saves of `path`, except `current`,
/// unless another model in the folder uses them. Interrupted saves leave such files, too.
///
/// Models may have been copied or renamed since, so all other `.onnx` files in the folder are checked; if one cannot be
/// read, nothing is removed. Errors of the removal are ignored.
pub(super) fn remove_stale(path: &Path, current: Option<&Path>) {
    let (before, after) = around(path);
    let Ok(entries) = std::fs::read_dir(files::parent_of(path)) else { return };
    let names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    let is_hash = |hash: &str| hash.len() == HASH_DIGITS && hash.bytes().all(|b| b.is_ascii_hexdigit());
    let ours = |name: &str| name.strip_prefix(&before).and_then(|n| n.strip_suffix(after)).is_some_and(is_hash);
    let kept = current.and_then(Path::file_name);
    let mut stale: Vec<&str> =
        names.iter().filter(|n| Some(n.as_os_str()) != kept).filter_map(|n| n.to_str()).collect();
    stale.retain(|name| ours(name));
    for name in &names {
        let model = path.with_file_name(name);
        if stale.is_empty() {
            return;
        }
        if model.extension().is_some_and(|e| e == "onnx") && Some(name.as_os_str()) != path.file_name() {
            let Ok(used) = locations(&model) else { return };
            stale.retain(|name| !used.contains(*name));
        }
    }
    for name in stale {
        let _ = std::fs::remove_file(path.with_file_name(name));
    }
}

/// Returns the values of all external-data entries of a model, which include the names of its data files. The content
/// of these files is not read.
fn locations(model: &Path) -> Result<HashSet<String>> {
    let bytes = files::map(&files::open(model)?, limits::MODEL_PROTO_BYTES)?;
    let mut proto: ModelProto = Reader::new(bytes).read_message()?;
    let mut names = HashSet::new();
    for_each_tensor(&mut proto, &mut |tensor| {
        let values = tensor.external_data.iter().filter_map(|entry| entry.value.as_deref());
        names.extend(values.filter_map(|value| std::str::from_utf8(value).ok()).map(plain));
        Ok(())
    })?;
    Ok(names)
}

/// Returns a file name without `.` components: `data` for `./data`.
pub(super) fn plain(name: &str) -> String {
    let parts = Path::new(name).components().filter(|part| *part != std::path::Component::CurDir);
    parts.collect::<std::path::PathBuf>().to_string_lossy().into_owned()
}
