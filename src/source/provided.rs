//! Files that a program provides itself: decrypted, downloaded, or packed in a file of its own.

use crate::call::{Call, Stage, Units};
use crate::error::{Context, Result, bail, error};
use crate::files::Memory;
use crate::limits;
use bytes::Bytes;
use std::path::{Component, Path, PathBuf};

/// The files of a model, by name, which a program provides. [`Provided`] calls the functions of this trait on the
/// thread of its own caller, and returns their errors.
pub trait FileSource {
    /// Returns the size of a file in bytes; `None` if there is no such file.
    fn size(&self, name: &str) -> Result<Option<u64>>;

    /// Fills `buffer` with the bytes of a file from `offset` on. These bytes lie within the size that
    /// [`FileSource::size`] returned.
    fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<()>;
}

/// The maximum number of bytes that are read at a time.
const CHUNK: usize = 4 << 20;

/// A file of a source, and the files beside it. Contents are read into memory on the caller's thread. The `call` given
/// to [`Provided::new`] receives the stage `load`, in bytes of one file, and can cancel.
pub struct Provided<'a> {
    source: &'a dyn FileSource,
    name: &'a str,
    call: &'a Call<'a>,
}

impl<'a> Provided<'a> {
    /// Returns the file `name` of a source, which is not read yet. Fails with `InvalidArgument` if `name` does not name
    /// a file.
    pub fn new(source: &'a dyn FileSource, name: &'a str, call: &'a Call<'a>) -> Result<Provided<'a>> {
        if Path::new(name).file_name().is_none() || name.ends_with('/') || name.contains('\0') {
            bail!(InvalidArgument, "{name:?} does not name a file");
        }
        Ok(Provided { source, name, call })
    }

    /// Returns the name of the file.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Returns the content of the file. Fails with [`crate::error::Kind::NotFound`] if there is no such file, with
    /// `LimitExceeded` above `limit` bytes, with `Cancelled` or `Timeout`, and with the errors of the source.
    pub fn content(&self, limit: u64) -> Result<Bytes> {
        self.required(self.name, limit)
    }

    /// Returns the content of the file `name` in the same folder. Fails like [`Provided::content`].
    pub fn beside(&self, name: &str, limit: u64) -> Result<Bytes> {
        self.required(&self.path(name), limit)
    }

    /// Returns the content of the file `name` in the same folder; `None` if there is no such file. Fails with
    /// `LimitExceeded` above [`limits::SIDE_FILE_BYTES`], and otherwise like [`Provided::content`].
    pub fn found_beside(&self, name: &str) -> Result<Option<Bytes>> {
        self.optional(&self.path(name), limits::SIDE_FILE_BYTES)
    }

    /// Returns the content of the file `name` in the folder of the model; `None` if there is no such file. That is the
    /// folder of this file or, if that folder is named `onnx` and has neither `config.json` nor `tokenizer.json`, its
    /// parent. Fails like [`Provided::found_beside`].
    pub fn home(&self, name: &str) -> Result<Option<Bytes>> {
        self.optional(&self.home_path(name)?, limits::SIDE_FILE_BYTES)
    }

    fn home_path(&self, name: &str) -> Result<String> {
        let folder = Path::new(self.name).parent().unwrap_or(Path::new(""));
        if folder.components().next_back() == Some(Component::Normal("onnx".as_ref()))
            && self.source.size(&self.path("config.json"))?.is_none()
            && self.source.size(&self.path("tokenizer.json"))?.is_none()
        {
            return Ok(text(folder.with_file_name(name)));
        }
        Ok(self.path(name))
    }

    fn path(&self, name: &str) -> String {
        text(Path::new(self.name).with_file_name(name))
    }

    fn required(&self, name: &str, limit: u64) -> Result<Bytes> {
        self.optional(name, limit)?.ok_or_else(|| error!(NotFound, "there is no such file").at(name))
    }

    fn optional(&self, name: &str, limit: u64) -> Result<Option<Bytes>> {
        self.call.check()?;
        let Some(size) = self.source.size(name).at(|| name)? else { return Ok(None) };
        self.read(name, size, limit).at(|| name).map(Some)
    }

    fn read(&self, name: &str, size: u64, limit: u64) -> Result<Bytes> {
        if size > limit {
            bail!(LimitExceeded, "the file has {size} bytes; the limit is {limit}");
        }
        let mut memory = Memory::zeroed(size)?;
        let mut units = Units::new(self.call, Stage::LOAD, size as usize);
        let mut offset = 0;
        for chunk in memory.bytes_mut().chunks_mut(CHUNK) {
            self.source.read(name, offset, chunk)?;
            offset += chunk.len() as u64;
            units.add(chunk.len())?;
        }
        memory.finish()
    }
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::collections::BTreeMap;

    struct Map(BTreeMap<&'static str, Vec<u8>>);

    impl FileSource for Map {
        fn size(&self, name: &str) -> Result<Option<u64>> {
            Ok(self.0.get(name).map(|content| content.len() as u64))
        }
        fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
            buffer.copy_from_slice(&self.0[name][offset as usize..offset as usize + buffer.len()]);
            Ok(())
        }
    }

    #[test]
    fn files_are_read_in_pieces_and_found_where_a_folder_would_have_them() {
        let large: Vec<u8> = (0..CHUNK * 2 + 5).map(|i| (i % 251) as u8).collect();
        let files = [("a/onnx/model.onnx", large.clone()), ("a/config.json", b"{}".to_vec()), ("b", Vec::new())];
        let source = Map(BTreeMap::from(files));
        let reports = std::cell::RefCell::new(Vec::new());
        let progress = |p: crate::call::Progress<'_>| {
            reports.borrow_mut().push((p.stage.to_owned(), p.done, p.total));
            std::ops::ControlFlow::Continue(())
        };
        let call = Call { progress: Some(&progress), ..Call::default() };
        let file = Provided::new(&source, "a/onnx/model.onnx", &call).unwrap();
        assert_eq!(file.content(1 << 30).unwrap(), large);
        let total = large.len() as u64;
        assert_eq!(reports.borrow().last(), Some(&("load".to_owned(), total, total)));
        assert_eq!(file.content(total - 1).unwrap_err().kind(), Kind::LimitExceeded);
        assert_eq!(file.home("config.json").unwrap().unwrap(), "{}");
        assert_eq!(file.home("tokenizer.json").unwrap(), None);
        let missing = file.beside("data", 1 << 30).unwrap_err();
        assert_eq!((missing.kind(), missing.place()), (Kind::NotFound, "a/onnx/data"));
        assert_eq!(Provided::new(&source, "b", &call).unwrap().content(0).unwrap().len(), 0);
        for bad in ["", "a/", "..", "a\0b"] {
            assert_eq!(Provided::new(&source, bad, &call).err().unwrap().kind(), Kind::InvalidArgument, "{bad:?}");
        }
        let cancel = crate::call::Cancel::new();
        cancel.fire();
        let call = Call { cancel: Some(&cancel), ..Call::default() };
        let file = Provided::new(&source, "b", &call).unwrap();
        assert_eq!(file.content(1).unwrap_err().kind(), Kind::Cancelled);
    }
}
