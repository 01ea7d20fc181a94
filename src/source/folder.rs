//! A reader of ONNX files, alone or in a folder that a tool exported: optimum, onnxruntime-genai, transformers.js,
//! sentence-transformers, or this library's command (`--output DIR`).
//!
//! The task of a model is derived from its graph; configuration files next to it add the rest of its card.

use super::checkpoint::sentence::Sentence;
use super::checkpoint::{side, tokens_without_rows};
use super::provided::Provided;
use crate::error::{Context, Result, bail};
use crate::model::{Card, Dim, Format, Model, SideContent, SideFile, Task, ValueInfo};
use crate::onnx::load;
use crate::{files, limits};
use bytes::Bytes;
use serde_json::Value;
use std::path::{Component, Path, PathBuf};

/// The names of the file with the model in exported folders, best first. Merged decoders read both prompts and single
/// tokens.
const NAMES: &[&str] = &[
    "model.onnx",
    "onnx/model.onnx",
    "decoder_model_merged.onnx",
    "onnx/decoder_model_merged.onnx",
    "decoder_with_past_model.onnx",
    "decoder_model.onnx",
    "onnx/model_fp16.onnx",
    "onnx/model_int8.onnx",
    "onnx/model_quantized.onnx",
    "onnx/model_q4.onnx",
    "model.onnx.packed",
];

/// Loads one `.onnx` file, or a packed file, with the files next to it, and returns the model. Fails like
/// [`load::from_file`].
pub fn load_file(path: &Path) -> Result<Model> {
    let loaded = load::from_file(path)?;
    let model = Model::assemble(loaded.proto, Card::default(), path, loaded.files);
    Ok(with_files(model, side::files_of(&home_of(path))))
}

/// Returns the model of one `.onnx` file with the card that follows from the files next to it. The user named only the
/// model, so a damaged file next to it is no error: the card then has only the format and the task.
fn with_files(model: Model, files: Vec<SideFile>) -> Model {
    let task = task(&model.inputs(), &model.outputs());
    let bare = |_| Card { format: Format::Onnx, task, ..Card::default() };
    let card = card(Format::Onnx, files, &model).unwrap_or_else(bare);
    model.with_card(card)
}

/// Loads the `.onnx` file with the content `bytes` that a program provides, with its external data and the files next
/// to it, and returns the model. Fails like [`load::from_reader`], and with the error of the program.
pub fn load_provided(bytes: Bytes, file: &Provided<'_>) -> Result<Model> {
    let place = || file.name().to_owned();
    let loaded = load::from_reader(bytes.clone(), &|name| file.beside(name, limits::DATA_FILE_BYTES)).at(place)?;
    let mut files = vec![(PathBuf::from(file.name()), bytes)];
    files.extend(loaded.files);
    let model = Model::from_memory(loaded.proto, Card::default(), files);
    let side = side::files_found(&|name| Ok(file.home(name)?.map(SideContent::Bytes)))?;
    Ok(with_files(model, side))
}

/// Loads the model of an exported folder and returns it. Fails with `NotFound` if there is no `.onnx` file, with
/// `InvalidModel` if a file of the folder is damaged, and otherwise like [`find_onnx`] and [`load::from_file`].
pub fn load(folder: &Path) -> Result<Model> {
    let Some((file, format)) = find_onnx(folder)? else { bail!(NotFound, "{}", nothing_found(folder)) };
    let loaded = load::from_file(&file)?;
    let model = Model::assemble(loaded.proto, Card::default(), folder, loaded.files);
    let home = home(folder);
    let mut card = card(format, side::files_of(&home), &model)?;
    if format == Format::GenaiFolder {
        genai_defaults(&home, &mut card)?;
    }
    Ok(model.with_card(card))
}

/// Returns the `.onnx` file of a folder and the kind of folder; `None` if there is none. Fails with `InvalidArgument`
/// if there are several, none of which has a usual name, with `InvalidModel` if `genai_config.json` is damaged or names
/// no file of the folder, and with `NotFound` or `Io` if the folder cannot be read.
pub fn find_onnx(folder: &Path) -> Result<Option<(PathBuf, Format)>> {
    if let Some(file) = genai_file(folder)? {
        return Ok(Some((file, Format::GenaiFolder)));
    }
    for name in NAMES {
        let file = folder.join(name);
        if file.is_file() {
            let format = if name.starts_with("onnx/") { Format::TransformersJs } else { Format::OnnxFolder };
            return Ok(Some((file, format)));
        }
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .at(|| folder.display())?
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.to_string_lossy().ends_with(".onnx") || p.to_string_lossy().ends_with(".onnx.packed"))
        .collect();
    found.sort();
    match found.len() {
        0 | 1 => Ok(found.pop().map(|file| (file, Format::OnnxFolder))),
        many => bail!(InvalidArgument, "{}: the folder contains {many} .onnx files: name one", folder.display()),
    }
}

/// Returns the path of the decoder that `genai_config.json` names; `None` if there is no such file. Fails with
/// `InvalidModel` if it names none, or one outside of the folder.
fn genai_file(folder: &Path) -> Result<Option<PathBuf>> {
    let path = folder.join("genai_config.json");
    let Some(config) = side::read_object(&path)? else { return Ok(None) };
    let name = config.get("model").and_then(|m| m.pointer("/decoder/filename")).and_then(Value::as_str);
    let Some(name) = name else {
        bail!(InvalidModel, "{}: the configuration has no model.decoder.filename", path.display())
    };
    if !Path::new(name).components().all(|c| matches!(c, Component::Normal(_))) {
        bail!(InvalidModel, "{}: {name:?} is not a file of the folder", path.display());
    }
    Ok(Some(folder.join(name)))
}

/// Returns the message for a folder without a model: the file names that were searched for, and those that were found.
pub fn nothing_found(folder: &Path) -> String {
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    found.sort();
    let rest = found.len().saturating_sub(8);
    found.truncate(8);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") + &more };
    let looked_for = "genai_config.json, model.onnx, onnx/model.onnx, decoder_model_merged.onnx, another .onnx file, \
                      or config.json with model.safetensors";
    format!("{}: the folder contains no model: searched for {looked_for}; found {found}", folder.display())
}

/// Returns the folder with the configuration and the tokenizer of a model in `file`.
fn home_of(file: &Path) -> PathBuf {
    home(files::parent_of(file))
}

/// Returns the folder with the configuration and the tokenizer of a model in `folder`: `folder` itself, or the parent
/// of a folder `onnx` that has neither `config.json` nor `tokenizer.json`.
fn home(folder: &Path) -> PathBuf {
    let has = |name: &str| folder.join(name).is_file();
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let inside = whole.file_name().is_some_and(|name| name == "onnx");
    match whole.parent().filter(|_| inside && !has("config.json") && !has("tokenizer.json")) {
        // The path is the user's own if possible, because it appears in messages.
        Some(_) if folder.ends_with("onnx") => files::parent_of(folder).to_owned(),
        Some(around) => around.to_owned(),
        None => folder.to_owned(),
    }
}

fn card(format: Format, files: Vec<SideFile>, model: &Model) -> Result<Card> {
    let config = side::object_in(&files, "config.json")?.unwrap_or_default();
    let generation = side::object_in(&files, "generation_config.json")?;
    let task = task(&model.inputs(), &model.outputs());
    let mut card = Card {
        contract: None,
        format,
        architecture: config.get("model_type").and_then(Value::as_str).map(str::to_owned),
        task,
        generation: side::generation_defaults(&config, generation.as_ref())?,
        chat_template: side::chat_template(&files)?,
        side_files: files,
        config,
        ..Card::default()
    };
    match Sentence::of(&card) {
        Ok(sentence) => card.pooling = sentence.and_then(|sentence| sentence.pooling()),
        // The graph may be used for something other than vectors; an error is reported when vectors are computed.
        Err(why) => card.warnings.push(format!("text embeddings are not supported: {why}")),
    }
    card.warnings.extend(tokens_without_rows(&card.side_files, model.proto())?);
    if task == Task::Generate {
        card.warnings.extend(generation.as_ref().and_then(side::unread));
    }
    Ok(card)
}

/// Adds the special tokens, the architecture and the context length of `genai_config.json` to a card that lacks them,
/// and the file itself.
fn genai_defaults(folder: &Path, card: &mut Card) -> Result<()> {
    let path = folder.join("genai_config.json");
    let config = side::read_object(&path)?.unwrap_or_default();
    // For generation, the names and sizes of the cache are read from this file.
    card.side_files.push(SideFile { name: "genai_config.json".to_owned(), content: SideContent::Path(path) });
    let Some(model) = config.get("model").and_then(Value::as_object) else { return Ok(()) };
    if card.generation.eos_token_ids.is_empty() {
        card.generation = side::generation_defaults(model, None)?;
    }
    if card.architecture.is_none() {
        card.architecture = model.get("type").and_then(Value::as_str).map(str::to_owned);
    }
    if let (false, Some(length)) = (card.config.contains_key("max_position_embeddings"), model.get("context_length")) {
        card.config.insert("max_position_embeddings".to_owned(), length.clone());
    }
    Ok(())
}

/// Returns the task of a model with these inputs and outputs.
fn task(inputs: &[ValueInfo], outputs: &[ValueInfo]) -> Task {
    let takes = |part: &str| inputs.iter().any(|i| i.name.contains(part));
    let gives = |part: &str| outputs.iter().any(|o| o.name.contains(part));
    if !takes("input_ids") {
        return Task::Unknown;
    }
    let logits = outputs.iter().find(|o| o.name == "logits");
    let rank = logits.and_then(|o| o.shape.as_ref()).map(Vec::len);
    let classes = logits.and_then(|o| o.shape.as_ref()?.last().cloned());
    match (rank, classes) {
        _ if takes("past_key") || gives("present") => Task::Generate,
        (Some(2), _) => Task::Classify,
        (Some(3), Some(Dim::Fixed(size))) if size < 1000 => Task::Classify,
        (Some(3), _) if takes("token_type_ids") => Task::FillMask,
        (Some(3), _) => Task::Generate,
        _ if gives("embedding") || gives("hidden_state") || gives("pooler") => Task::Embed,
        _ => Task::Unknown,
    }
}
