//! The option `--codegen`, which writes a small program and its build files. The program opens a package and runs it
//! once on inputs of ones.

mod c;
mod cpp;
mod csharp;
mod go;

use super::open::Package;
use crate::choice::choice;
use crate::error::{Context, Result, bail};
use crate::files;
use crate::model::contract::Size;
use crate::onnx::dtype::{DataType, element_count};
use std::path::Path;

choice! {
    /// The language of the program.
    pub enum Language {
        /// C11.
        C = 0, "c";
        /// C++17.
        Cpp = 1, "cpp";
        /// Go, with the package of `bindings/go`.
        Go = 2, "go";
        /// C#, with the NuGet package `LibOptimize` or, for Mono, the library of `bindings/csharp`.
        Csharp = 3, "csharp";
    }
}

/// An input of the program.
struct Input {
    name: String,
    dtype: DataType,
    dims: Vec<i64>,
    bytes: u64,
    elements: i64,
}

/// Writes a program for `package` into `folder`, which is created if necessary: a source file, and one or two build
/// files. Existing files are replaced. The program prints the name, the shape and the first values of each output. Its
/// inputs have the minimum sizes of the contract, but at least 1 where the contract allows it, and all their elements
/// are 1 (true). An input without a known rank is a scalar.
///
/// Fails with [`crate::error::Kind::Unsupported`] for inputs of types other than float32, int64, int32 and bool, and if
/// the path of the package is not UTF-8.
pub fn write(package: &Package, language: Language, folder: &Path) -> Result<()> {
    let inputs = inputs(package)?;
    let outputs = package.manifest().outputs.len();
    let path = std::fs::canonicalize(package.path()).at(|| package.path().display())?;
    let Some(path) = path.to_str() else { bail!(Unsupported, "the path of the package is not UTF-8") };
    let made = match language {
        Language::C => c::program(path, &inputs, outputs),
        Language::Cpp => cpp::program(path, &inputs),
        Language::Go => go::program(path, &inputs),
        Language::Csharp => csharp::program(path, &inputs),
    };
    std::fs::create_dir_all(folder).at(|| folder.display())?;
    made.into_iter().try_for_each(|(name, text)| files::replace(&folder.join(name), text.as_bytes()))
}

fn inputs(package: &Package) -> Result<Vec<Input>> {
    let infos = package.model()?.inputs();
    let one = |info: &crate::model::ValueInfo| {
        let place = || format!("input {:?}", info.name);
        let dtype =
            info.dtype.filter(|d| matches!(d, DataType::Float32 | DataType::Int64 | DataType::Int32 | DataType::Bool));
        let Some(dtype) = dtype else {
            return Err(crate::error::error!(
                Unsupported,
                "programs for the type {} are not supported",
                info.describe()
            )
            .at(place()));
        };
        let sizes = package.manifest().shapes.inputs.iter().find(|i| i.name == info.name).and_then(|i| i.dims.as_ref());
        let size = |size: &Size| match size {
            Size::Fixed(size) => *size,
            Size::Range(range) => range.min.max(i64::from(range.max != Some(0))),
        };
        let dims: Vec<i64> = sizes.iter().flat_map(|s| s.iter()).map(size).collect();
        let elements = element_count(&dims).at(place)?;
        Ok(Input { name: info.name.clone(), dtype, bytes: dtype.bytes_of(elements)?, dims, elements: elements as i64 })
    };
    infos.iter().map(one).collect()
}

/// Returns a text as a string literal of C, C++ and Go, with the double quotes.
///
/// C forbids universal character names (`\u`) of control characters, and hexadecimal escapes have no end: the next
/// characters could belong to them. An octal escape has at most three digits in C, and exactly three in Go.
fn quoted(text: &str) -> String {
    literal(text, |c| c.to_string().bytes().map(|byte| format!("\\{byte:03o}")).collect())
}

/// Returns a text as a string literal of C#, which has no octal escapes, with the double quotes.
fn quoted_in_csharp(text: &str) -> String {
    literal(text, |c| format!("\\u{:04x}", c as u32))
}

/// Returns a text in double quotes, with `escape` for the control characters, and for separators of lines and byte
/// order marks, which not every language allows.
fn literal(text: &str, escape: impl Fn(char) -> String) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => escape(c),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// Returns the text for dimensions, for example `1, 128`.
fn list(dims: &[i64]) -> String {
    dims.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the name of a type in C and the suffix of its `OPTIMIZE_DTYPE_` constant.
fn c_type(dtype: DataType) -> (&'static str, &'static str) {
    match dtype {
        DataType::Float32 => ("float", "FLOAT32"),
        DataType::Int64 => ("int64_t", "INT64"),
        DataType::Int32 => ("int32_t", "INT32"),
        _ => ("uint8_t", "BOOL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_as_each_language_allows() {
        for (text, octal, of_csharp) in [
            ("a \"b\" \\ é", r#""a \"b\" \\ é""#, r#""a \"b\" \\ é""#),
            // The digit after the tab is a character of its own.
            ("a\n\t1\u{0}\u{1b}", r#""a\012\0111\000\033""#, r#""a\u000a\u00091\u0000\u001b""#),
            ("\u{7f}\u{85}\u{2028}", r#""\177\302\205\342\200\250""#, r#""\u007f\u0085\u2028""#),
        ] {
            assert_eq!((quoted(text).as_str(), quoted_in_csharp(text).as_str()), (octal, of_csharp), "{text:?}");
        }
    }
}
