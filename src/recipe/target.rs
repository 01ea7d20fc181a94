//! The place where the result of a technique is written, which follows from an output path.

use crate::error::{Context, Result, bail};
use crate::files;
use crate::model::{Model, SideContent};
use std::path::{Path, PathBuf};

/// The place where the result of a technique is written: a `.onnx` file, or a folder for the whole model.
pub struct Target {
    /// Path of the `.onnx` file to write.
    pub file: PathBuf,
    /// Path of the folder, if the output is a folder; `None` if it is a file.
    pub folder: Option<PathBuf>,
    /// Folders that were created for the output.
    _created: Created,
}

/// Folders that are removed when they are no longer needed, unless they contain something. The innermost is first.
#[derive(Default)]
struct Created(Vec<PathBuf>);

impl Drop for Created {
    fn drop(&mut self) {
        // Only an empty folder can be removed: an output that was written keeps its folder.
        self.0.iter().for_each(|folder| drop(std::fs::remove_dir(folder)));
    }
}

impl Target {
    /// Returns the place that an output path names: the file itself if the path ends in `.onnx`, otherwise `model.onnx`
    /// in this folder, which is created if necessary, and removed with the returned value if it is still empty. Fails
    /// with `InvalidArgument` for an empty path, and for an existing file whose name does not end in `.onnx`, and with
    /// `NotFound` or `Io` if the folder cannot be created.
    pub fn prepare(output: &Path) -> Result<Target> {
        Target::prepare_as(output, false)
    }

    /// Returns the place like [`Target::prepare`]. With `packed`, the file is named `X.onnx.packed`, also if `X.onnx`
    /// is given, and `model.onnx.packed` in a folder. Fails like [`Target::prepare`].
    pub fn prepare_as(output: &Path, packed: bool) -> Result<Target> {
        if output.as_os_str().is_empty() {
            bail!(InvalidArgument, "--output is empty");
        }
        let ends = |end: &str| output.extension().is_some_and(|e| e.eq_ignore_ascii_case(end)) && !output.is_dir();
        let mut with_end = output.as_os_str().to_owned();
        with_end.push(".packed");
        match packed {
            true if ends("packed") => return Ok(Target::of_file(output.to_owned())),
            true if ends("onnx") => return Ok(Target::of_file(with_end.into())),
            false if ends("onnx") => return Ok(Target::of_file(output.to_owned())),
            _ => {}
        }
        if output.is_file() {
            bail!(InvalidArgument, "{}: the output is a file whose name does not end in .onnx", output.display());
        }
        let missing = output.ancestors().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let created = Created(missing.map(Path::to_owned).collect());
        std::fs::create_dir_all(output).at(|| output.display())?;
        let name = if packed { "model.onnx.packed" } else { "model.onnx" };
        Ok(Target { file: output.join(name), folder: Some(output.to_owned()), _created: created })
    }

    /// Returns the place of a file, which is not checked.
    pub fn of_file(file: PathBuf) -> Target {
        Target { file, folder: None, _created: Created::default() }
    }

    /// Returns the folder for temporary files: the folder of the result, so that no other folder is written to.
    pub fn scratch(&self) -> PathBuf {
        files::parent_of(&self.file).to_owned()
    }

    /// Copies the files next to `model` that belong to it, such as its tokenizer and configuration, into the folder of
    /// the result. Does nothing if the output is a file. Fails with `NotFound` or `Io` if a file cannot be read or
    /// written, and with `LimitExceeded` for a file that is too large.
    pub fn carry_along(&self, model: &Model) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        for file in &model.card().side_files {
            let to = folder.join(&file.name);
            if let SideContent::Path(from) = &file.content
                && same_file(from, &to)
            {
                continue;
            }
            std::fs::create_dir_all(files::parent_of(&to)).at(|| to.display())?;
            files::replace(&to, &file.content.read()?)?;
        }
        Ok(())
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_result_is_removed() {
        let home = std::env::temp_dir().join(format!("optimize-target-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let inner = home.join("a/b");
        drop(Target::prepare(&inner).unwrap());
        assert!(home.is_dir() && !home.join("a").exists());
        let target = Target::prepare(&inner).unwrap();
        std::fs::write(&target.file, "x").unwrap();
        drop(target);
        assert!(inner.join("model.onnx").is_file());
        // An empty folder of the caller stays.
        let theirs = home.join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        drop(Target::prepare(&theirs).unwrap());
        assert!(theirs.is_dir());
        std::fs::remove_dir_all(&home).unwrap();
    }
}
