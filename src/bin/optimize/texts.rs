//! The texts that `embed`, `classify` and `tag` read.

use crate::common::{self, Machine, On};
use crate::read;
use clap::Args;
use optimize::encoder::TextOptions;
use optimize::error::{Context, Result, bail};
use optimize::model::Model;
use optimize::text::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments for texts and how they are read.
#[derive(Args)]
pub struct Texts {
    /// A text; repeat for several
    #[arg(short, long, value_name = "TEXT", conflicts_with = "data")]
    pub text: Vec<String>,
    /// A file with one text per line, or a .jsonl file with a "text" (`classify`: also a "second_text") per line; -
    /// reads standard input. Blank lines have no result, but count in the "index" of the others
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// A tokenizer.json, or a folder that contains one [default: that of the model]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Number of tokens after which a text is truncated, or for `tag` divided into windows [default: the limit for
    /// texts in the model's files; if they have none, its positions, up to 512]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub max_length: usize,
    /// Number of texts per run; texts of similar length are run together
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
}

/// The texts, and the second texts of pairs.
pub struct Given {
    /// Texts in the order in which they are given; without blank lines.
    pub first: Vec<String>,
    /// Index of each text: that of its line among all lines of the file, or of its flag `--text`.
    pub indices: Vec<usize>,
    /// Second text of each pair; empty if the texts are not pairs.
    pub second: Vec<String>,
}

impl Texts {
    /// Returns the options for passing the texts to a session.
    pub fn options(&self, machine: &Machine, on: &On) -> Result<TextOptions> {
        let (max_length, batch_size, threads) = (self.max_length, self.batch_size, machine.threads);
        Ok(TextOptions { max_length, batch_size, threads, execution: on.execution()? })
    }

    /// Returns the tokenizer that `--tokenizer` names, or otherwise that of `model`; `None` if there is none.
    pub fn tokenizer(&self, model: &Model) -> Result<Option<Arc<Tokenizer>>> {
        Ok(common::tokenizer(self.tokenizer.as_deref(), model)?.map(Arc::new))
    }

    /// Returns the texts that the flags name. Fails if there is neither `--text` nor `--data`, or if a line of JSON has
    /// no `text`.
    pub fn read(&self) -> Result<Given> {
        match &self.data {
            None if self.text.is_empty() => bail!(InvalidArgument, "there is no text: pass --text or --data"),
            None => {
                let indices = (0..self.text.len()).collect();
                Ok(Given { first: self.text.clone(), indices, second: Vec::new() })
            }
            Some(file) => lines(file).at(|| file.display()),
        }
    }
}

fn lines(file: &Path) -> Result<Given> {
    let content = read::text(file)?;
    let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    if !read::is_json_lines(file, &content) {
        let (indices, first) = lines.map(|(index, line)| (index, line.to_owned())).unzip();
        return Ok(Given { first, indices, second: Vec::new() });
    }
    let mut given = Given { first: Vec::new(), indices: Vec::new(), second: Vec::new() };
    for (index, line) in lines {
        let (first, second) = parse(line).at(|| format!("line {}", index + 1))?;
        if second.is_some() != (given.second.len() == given.first.len()) && !given.first.is_empty() {
            bail!(InvalidArgument, "line {}: some lines have a second_text, and some have none", index + 1);
        }
        given.first.push(first);
        given.indices.push(index);
        given.second.extend(second);
    }
    Ok(given)
}

fn parse(line: &str) -> Result<(String, Option<String>)> {
    let Ok(Value::Object(line)) = serde_json::from_str(line) else {
        bail!(InvalidArgument, "is not a JSON object");
    };
    let text = |key: &str| match line.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => bail!(InvalidArgument, "{key:?} is not a string"),
    };
    match text("text")? {
        Some(first) => Ok((first, text("second_text")?)),
        None => bail!(InvalidArgument, "has no \"text\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_json_lines_are_read() {
        let folder = std::env::temp_dir().join(format!("optimize-texts-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let of = |name: &str, content: &str| {
            std::fs::write(folder.join(name), content).unwrap();
            lines(&folder.join(name)).map(|given| {
                assert_eq!(given.first.len(), given.indices.len());
                (given.first, given.second)
            })
        };
        let indices = |name: &str, content: &str| {
            std::fs::write(folder.join(name), content).unwrap();
            lines(&folder.join(name)).unwrap().indices
        };
        assert_eq!(indices("i.txt", "\none\n\n \r\ntwo\n\n"), [1, 4]);
        assert_eq!(indices("i.jsonl", "\u{feff}{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n"), [0, 2]);
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(of("a.txt", "one\n\n{\"text\": 1}\n").unwrap(), (texts(&["one", "{\"text\": 1}"]), texts(&[])));
        let pairs = "{\"text\": \"a\", \"second_text\": \"b\"}\n{\"text\": \"c\", \"second_text\": \"d\"}\n";
        assert_eq!(of("a.jsonl", pairs).unwrap(), (texts(&["a", "c"]), texts(&["b", "d"])));
        assert_eq!(of("b.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}").unwrap(), (texts(&["a", "b"]), texts(&[])));
        for (content, message) in [
            ("{\"text\": \"a\"}\n{\"text\": \"b\", \"second_text\": \"c\"}", "line 2: some lines"),
            ("{\"text\": \"b\", \"second_text\": \"c\"}\n{\"text\": \"a\"}", "line 2: some lines"),
            ("{\"text\": 3}", "line 1: \"text\" is not a string"),
            ("\n{}", "line 2: has no \"text\""),
            ("[]", "line 1: is not a JSON object"),
        ] {
            let error = of("c.jsonl", content).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
