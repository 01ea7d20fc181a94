//! The texts that options name: a file, a pipe, or `-` for standard input.

use optimize::calibrate::Calibration;
use optimize::error::{Context, Result, bail};
use optimize::model::Model;
use optimize::{files, limits, recipe};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether standard input was read.
static STDIN_READ: AtomicBool = AtomicBool::new(false);

/// Returns whether `file` is a stream, whose content can be read only once: `-`, or a pipe such as `/dev/stdin`.
pub fn is_stream(file: &Path) -> bool {
    file == Path::new("-") || std::fs::metadata(file).is_ok_and(|there| !there.is_file() && !there.is_dir())
}

/// Returns the text at `file`, which may be `-` for standard input, without a byte order mark at its beginning. Fails
/// with `LimitExceeded` if the text has more than [`limits::TEXT_BYTES`] bytes, with `InvalidArgument` if two options
/// are `-`, and with `Io` or `NotFound` if the text is not UTF-8 or cannot be read.
pub fn text(file: &Path) -> Result<String> {
    if !is_stream(file) {
        return files::read_text(file);
    }
    if file != Path::new("-") {
        let text = File::open(file).map_err(Into::into).and_then(whole);
        return text.at(|| file.display());
    }
    if STDIN_READ.swap(true, Ordering::SeqCst) {
        bail!(InvalidArgument, "two options are -, but standard input can be read only once");
    }
    whole(std::io::stdin().lock()).at(|| "standard input")
}

/// Returns the text of a stream, which is read to its end.
fn whole(stream: impl Read) -> Result<String> {
    let most = limits::TEXT_BYTES as u64;
    let mut content = Vec::new();
    stream.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        bail!(LimitExceeded, "the text has more than {most} bytes, which is the limit");
    }
    files::text_of(content)
}

/// Returns whether a text is to be read as JSON lines, with an object per line: the file is named X.jsonl, or it is a
/// stream and the text begins with `{`.
pub fn is_json_lines(file: &Path, text: &str) -> bool {
    let named = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
    named || (is_stream(file) && text.trim_start().starts_with('{'))
}

/// Returns the value by which a recipe refers to the data at `file`: the path, or `true` for a stream, which a later
/// call cannot read again.
pub fn noted(file: &Path) -> Value {
    if is_stream(file) { true.into() } else { file.display().to_string().into() }
}

/// Returns whether a data file holds tensors instead of text.
pub fn is_tensors(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "safetensors")
}

/// Returns the lines of the text at `file` that are not blank. Fails with `InvalidArgument` if there are none.
pub fn lines(file: &Path) -> Result<Vec<String>> {
    filled(&text(file)?).at(|| file.display())
}

fn filled(text: &str) -> Result<Vec<String>> {
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        bail!(InvalidArgument, "the file contains no text");
    }
    Ok(lines)
}

/// Calibration data that an option names.
pub struct CalibrationData {
    /// The value of the option: the path of a file, or `-`.
    pub file: PathBuf,
    /// The text; `None` if the file has tensors.
    text: Option<String>,
}

impl CalibrationData {
    /// Returns the calibration data at `file`. A text is read now, and tensors when they are used. Fails like [`text`].
    pub fn open(file: &Path) -> Result<CalibrationData> {
        let text = if is_tensors(file) { None } else { Some(text(file)?) };
        Ok(CalibrationData { file: file.to_owned(), text })
    }

    /// Calls `technique` with the data, and returns its result. A text is read in `windows` windows of `length` tokens,
    /// where 0 stands for the default.
    pub fn with<T>(
        &self,
        (windows, length): (usize, usize),
        model: &Model,
        technique: impl FnOnce(&Calibration<'_>) -> Result<T>,
    ) -> Result<T> {
        match &self.text {
            Some(text) => recipe::calibrated_on(text, (windows, length), model, technique),
            None => recipe::calibrated(&self.file, (windows, length), model, technique),
        }
    }

    /// Returns the lines of the text that are not blank; `None` if the file has tensors.
    pub fn lines(&self) -> Result<Option<Vec<String>>> {
        self.text.as_deref().map(filled).transpose().at(|| self.file.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use optimize::error::Kind;

    #[test]
    fn a_stream_is_bounded_and_is_utf8() {
        assert_eq!(whole("Grüße".as_bytes()).unwrap(), "Grüße");
        assert_eq!(whole("\u{feff}{}".as_bytes()).unwrap(), "{}");
        assert_eq!(whole(&b"\xff"[..]).unwrap_err().kind(), Kind::Io);
        assert_eq!(whole(std::io::repeat(b'a')).unwrap_err().kind(), Kind::LimitExceeded);
    }

    #[test]
    fn json_lines_are_known_by_name_or_by_their_beginning() {
        let is = |file: &str, text| is_json_lines(Path::new(file), text);
        assert!(is("a.jsonl", "") && is("a.JSONL", "") && is("-", "\n{\"text\": \"\"}"));
        assert!(!is("a.txt", "{\"text\": \"\"}") && !is("-", "text"));
    }
}
