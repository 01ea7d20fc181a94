//! The place where the result of a technique is written, which follows from an output path.

use crate::error::{Context, Result, bail};
use crate::files;
use crate::model::{Model, SideContent};
use std::path::{Path, PathBuf};

/// The place where the result of a technique is written: a `.onnx` file, or a folder for the whole model.
pub struct Target {
    /// Path of the `.onnx` file to write.
    pub file: PathBuf,
    /// Path of the folder, if the output is a folder.
    pub folder: Option<PathBuf>,
}

impl Target {
    /// Returns the place that an output path names: the file itself if the path ends in `.onnx`, otherwise `model.onnx`
    /// in this folder, which is created if necessary. Fails with `InvalidArgument` for an empty path, and for an
    /// existing file whose name does not end in `.onnx`.
    pub fn prepare(output: &Path) -> Result<Target> {
        Target::prepare_as(output, false)
    }

    /// Returns the place like [`Target::prepare`]. With `packed`, the file is named `X.onnx.packed`, also if `X.onnx`
    /// is given, and `model.onnx.packed` in a folder.
    pub fn prepare_as(output: &Path, packed: bool) -> Result<Target> {
        if output.as_os_str().is_empty() {
            bail!(InvalidArgument, "--output is empty");
        }
        let ends = |end: &str| output.extension().is_some_and(|e| e.eq_ignore_ascii_case(end)) && !output.is_dir();
        let mut with_end = output.as_os_str().to_owned();
        with_end.push(".packed");
        match packed {
            true if ends("packed") => return Ok(Target { file: output.to_owned(), folder: None }),
            true if ends("onnx") => return Ok(Target { file: with_end.into(), folder: None }),
            false if ends("onnx") => return Ok(Target { file: output.to_owned(), folder: None }),
            _ => {}
        }
        if output.is_file() {
            bail!(InvalidArgument, "{}: the output is a file whose name does not end in .onnx", output.display());
        }
        std::fs::create_dir_all(output).at(|| output.display())?;
        let name = if packed { "model.onnx.packed" } else { "model.onnx" };
        Ok(Target { file: output.join(name), folder: Some(output.to_owned()) })
    }

    /// Returns the folder for temporary files: the folder of the result, so that no other folder is written to.
    pub fn scratch(&self) -> PathBuf {
        files::parent_of(&self.file).to_owned()
    }

    /// Copies the files next to `model` that belong to it, such as its tokenizer and configuration, into the folder of
    /// the result. Does nothing if the output is a file.
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
