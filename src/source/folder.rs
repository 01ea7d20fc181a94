//! ONNX files, alone or in an exported folder.

use super::card::{Card, Format, SideContent, SideFile};
use crate::error::{Context, Result, bail};
use crate::files;
use crate::model::Model;
use crate::onnx::load;
use std::path::{Path, PathBuf};

/// Files beside a model that travel with it.
const SIDE_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "LICENSE",
];

/// Loads one `.onnx` file, with what lies beside it.
pub fn load_file(path: &Path) -> Result<Model> {
    let loaded = load::from_file(path)?;
    let card = Card { format: Format::Onnx, side_files: side_files(path), ..Card::default() };
    Ok(Model::assemble(loaded.proto, card, path, loaded.files))
}

/// Loads the model of an exported folder.
pub fn load(folder: &Path) -> Result<Model> {
    let Some(file) = find_onnx(folder)? else { bail!(NotFound, "{}", nothing_found(folder)) };
    let loaded = load::from_file(&file)?;
    let card = Card { format: Format::OnnxFolder, side_files: side_files(&file), ..Card::default() };
    Ok(Model::assemble(loaded.proto, card, folder, loaded.files))
}

/// The `.onnx` file of a folder: `model.onnx`, `onnx/model.onnx`, or the only one there is.
pub fn find_onnx(folder: &Path) -> Result<Option<PathBuf>> {
    for name in ["model.onnx", "onnx/model.onnx"] {
        let file = folder.join(name);
        if file.is_file() {
            return Ok(Some(file));
        }
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .at(|| folder.display())?
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    found.sort();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        many => bail!(InvalidArgument, "{}: the folder holds {many} .onnx files: name one", folder.display()),
    }
}

/// What was looked for in a folder, for the error when none of it is there.
pub fn nothing_found(folder: &Path) -> String {
    let looked_for = "model.onnx, onnx/model.onnx, another .onnx file, or config.json with model.safetensors";
    format!("{}: the folder holds no model: looked for {looked_for}", folder.display())
}

/// Files that belong to the model in `file`: beside it, or one level up from an `onnx` folder.
fn side_files(file: &Path) -> Vec<SideFile> {
    let beside = files::parent_of(file).to_owned();
    let above = beside.file_name().is_some_and(|n| n == "onnx").then(|| files::parent_of(&beside).to_owned());
    let folders: Vec<PathBuf> = std::iter::once(beside).chain(above).collect();
    let find = |name: &&str| {
        let path = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())?;
        Some(SideFile { name: (*name).to_owned(), content: SideContent::Path(path) })
    };
    SIDE_FILES.iter().filter_map(find).collect()
}
