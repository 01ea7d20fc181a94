//! The texts that options name: a file, a pipe, or `-` for standard input.

use optimize::calibrate::Calibration;
use optimize::error::{Context, Result, bail};
use optimize::model::Model;
use optimize::{files, limits, recipe};
use serde_json::Value;
use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether standard input was read.
static STDIN_READ: AtomicBool = AtomicBool::new(false);

/// Returns whether the content at `file` can be read only once: `-`, or a pipe such as `/dev/stdin`.
pub fn is_stream(file: &Path) -> bool {
    file == Path::new("-") || std::fs::metadata(file).is_ok_and(|there| !there.is_file() && !there.is_dir())
}

/// Returns the text at `file`. Standard input can be read by one option only.
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

/// Reads a stream to its end.
fn whole(stream: impl Read) -> Result<String> {
    let most = limits::TEXT_BYTES as u64;
    let mut content = Vec::new();
    stream.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        bail!(LimitExceeded, "the text has more than {most} bytes, which is the limit");
    }
    Ok(String::from_utf8(content).map_err(|e| Error::new(ErrorKind::InvalidData, e))?)
}

/// Returns whether each line of a text is a JSON object: the file is named X.jsonl, or it has no name of its own and
/// the text begins with an object.
pub fn is_json_lines(file: &Path, text: &str) -> bool {
    let named = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
    named || (is_stream(file) && text.trim_start().starts_with('{'))
}

/// Returns the value of a recipe's option for data at `file`: its path, or `true` for data that only this call had.
pub fn noted(file: &Path) -> Value {
    if is_stream(file) { true.into() } else { file.display().to_string().into() }
}

/// Returns whether a data file holds tensors instead of text.
pub fn is_tensors(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "safetensors")
}

/// Returns the lines of a text that are not blank.
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
    /// The option.
    pub file: PathBuf,
    /// The text; `None` if the file has tensors.
    text: Option<String>,
}

impl CalibrationData {
    /// Reads the text at `file`; tensors are read when they are used.
    pub fn open(file: &Path) -> Result<CalibrationData> {
        let text = if is_tensors(file) { None } else { Some(text(file)?) };
        Ok(CalibrationData { file: file.to_owned(), text })
    }

    /// Returns the result of `technique` on the data: `windows` windows of `length` tokens of a text, 0 for the
    /// defaults of the technique.
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

    /// Returns the lines of the text; `None` if the file has tensors.
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
