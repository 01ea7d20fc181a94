//! [`compile()`]: a package from a model.

use super::manifest::{FILE, HASH, Manifest, Package, VERSION, Variant, entries, shown};
use super::shapes::{Contract, DynamicShapes, Range};
use crate::benchmark::BenchmarkOptions;
use crate::benchmark::inputs::Source;
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::files;
use crate::model::{Dim, Model};
use crate::onnx::save::{ExternalData, hex};
use crate::report::{Report, peak_rss_bytes};
use crate::source::{SideContent, Task};
use crate::text::Tokenizer;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The only form there is so far.
const PORTABLE: &str = "portable";
/// The oldest ONNX Runtime that the library runs with.
const RUNTIME: &str = "1.24";

/// What a package is made like.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    /// Let inputs keep the sizes that the model leaves open. Else they are those of `example`.
    pub dynamic: bool,
    /// Ranges of dimensions; see [`DynamicShapes`].
    pub dynamic_shapes: DynamicShapes,
    /// The fewest and the most rows of a batch: the first dimension of every input that leaves it open. They need
    /// `dynamic`.
    pub batch: Option<(i64, Option<i64>)>,
    /// Shapes of an example of the inputs, by name: the sizes without `dynamic` and without a range. What is not given
    /// is as in a benchmark (128 tokens, one text).
    pub example: Vec<(String, Vec<i64>)>,
}

/// Writes a package into the folder `path`, which must not be there or be a package, and gives a report.
///
/// The folder appears as a whole: what was there before stays until all is written. Reports the stage `compile`.
/// [`crate::error::Kind::InvalidArgument`] if ranges do not fit the model (the message names input and dimension), if the
/// example lacks an input, or if `path` is something else.
pub fn compile(model: &Model, options: &CompileOptions, path: &Path, call: &Call) -> Result<Report> {
    let start = Instant::now();
    call.report("compile", 0, 0)?;
    let contract = contract(model, options)?;
    if path.exists() && !super::manifest::is_package(path) {
        let empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if !empty {
            bail!(InvalidArgument, "{}: is there already, and is no package", path.display());
        }
    }
    let source = model.identity(call)?;
    let parent = files::parent_of(path);
    std::fs::create_dir_all(parent).at(|| parent.display())?;
    let work = Work::new(path)?;
    let variant = Variant { name: PORTABLE.to_owned(), folder: format!("model/{PORTABLE}") };
    let folder = work.0.join(&variant.folder);
    std::fs::create_dir_all(&folder).at(|| folder.display())?;
    let saved = model.save(&folder.join("model.onnx"), ExternalData::Auto, call)?;
    for file in &model.card().side_files {
        let to = folder.join(&file.name);
        std::fs::create_dir_all(files::parent_of(&to)).at(|| to.display())?;
        files::replace(&to, &file.content.read()?)?;
    }
    carry_card(model, &folder)?;
    let card = model.card();
    let package = Package {
        version: VERSION,
        library_version: env!("CARGO_PKG_VERSION").to_owned(),
        contract,
        outputs: model.outputs().iter().map(shown).collect(),
        task: serde_json::to_value(card.task).ok().and_then(|task| Some(task.as_str()?.to_owned())).unwrap_or_default(),
        architecture: card.architecture.clone(),
        source: serde_json::to_value(&source).unwrap_or_default(),
        runtime: RUNTIME.to_owned(),
        files: entries(&folder, &variant.folder)?,
    };
    let files_written = package.files.len();
    let bytes: u64 = package.files.iter().map(|entry| entry.bytes).sum();
    let contract = serde_json::to_value(&package.contract).unwrap_or_default();
    let manifest = Manifest { variants: vec![variant], package }.to_json();
    files::replace(&work.0.join(FILE), manifest.as_bytes())?;
    let hash = hex(&Sha256::digest(manifest.as_bytes())) + "\n";
    files::replace(&work.0.join(HASH), hash.as_bytes())?;
    work.put(path)?;
    let mut report = Report::new("compile", json!({"dynamic": options.dynamic}));
    report.input = Some(source);
    report.output = Some(saved.identity());
    report.summary.insert("files".to_owned(), json!(files_written));
    report.summary.insert("bytes".to_owned(), json!(bytes));
    report.summary.insert("inputs".to_owned(), contract["inputs"].clone());
    report.seconds = start.elapsed().as_secs_f64();
    report.peak_rss_bytes = peak_rss_bytes();
    Ok(report)
}

/// The shapes that the package takes.
fn contract(model: &Model, options: &CompileOptions) -> Result<Contract> {
    let inputs = model.inputs();
    let mut asked = options.dynamic_shapes.clone();
    if let Some((min, max)) = options.batch {
        if !options.dynamic {
            bail!(InvalidArgument, "the sizes of a batch are for a dynamic package");
        }
        let open = |shape: &Vec<Dim>| matches!(shape.first(), Some(Dim::Symbolic(_)));
        let batched: Vec<&str> =
            inputs.iter().filter(|i| i.shape.as_ref().is_some_and(open)).map(|i| i.name.as_str()).collect();
        if batched.is_empty() {
            bail!(InvalidArgument, "no input leaves its first dimension open, so there is no batch to size");
        }
        for input in batched {
            asked.set(input, 0, Range { name: "batch".to_owned(), min, max });
        }
    }
    let mut contract = Contract::open(&inputs);
    contract.narrow(&asked)?;
    if options.dynamic {
        return Ok(contract);
    }
    if model.card().task == Task::Generate {
        bail!(InvalidArgument, "a model that writes text takes inputs of many lengths: make the package dynamic");
    }
    contract.fix(&example(model, &options.example)?, &asked)?;
    Ok(contract)
}

/// Shapes of all inputs: those given, and else those that a benchmark would take.
fn example(model: &Model, given: &[(String, Vec<i64>)]) -> Result<Vec<(String, Vec<i64>)>> {
    if model.inputs().iter().all(|input| given.iter().any(|(name, _)| *name == input.name)) {
        return Ok(given.to_vec());
    }
    let tokenizer = Tokenizer::of(model)?;
    let options = BenchmarkOptions { shapes: given.to_vec(), ..BenchmarkOptions::default() };
    Ok(Source::new(model, model, tokenizer.as_ref(), &options)?.timing()?.shapes())
}

/// What the model's card knows and no side file says: models out of GGUF files have no configuration beside them.
fn carry_card(model: &Model, folder: &Path) -> Result<()> {
    let card = model.card();
    let has = |name: &str| folder.join(name).exists();
    let write =
        |name: &str, value: &serde_json::Value| files::replace(&folder.join(name), format!("{value:#}\n").as_bytes());
    if !has("config.json") && !card.config.is_empty() {
        write("config.json", &json!(card.config))?;
    }
    if !has("generation_config.json") && !card.generation.eos_token_ids.is_empty() {
        let mut generation = card.generation.sampling.clone();
        generation.insert("eos_token_id".to_owned(), json!(card.generation.eos_token_ids));
        for (key, id) in
            [("bos_token_id", card.generation.bos_token_id), ("pad_token_id", card.generation.pad_token_id)]
        {
            if let Some(id) = id {
                generation.insert(key.to_owned(), json!(id));
            }
        }
        write("generation_config.json", &json!(generation))?;
    }
    if let Some(template) = &card.chat_template
        && !has("chat_template.jinja")
        && card.side_file("tokenizer_config.json").is_none()
    {
        files::replace(&folder.join("chat_template.jinja"), template.as_bytes())?;
    }
    // The content of files that came from memory is written by now; nothing else is referred to.
    debug_assert!(card.side_files.iter().all(|file| matches!(file.content, SideContent::Path(_)) || has(&file.name)));
    Ok(())
}

/// The folder in which a package is written, beside its place; gone if it does not get there.
struct Work(PathBuf);

impl Work {
    fn new(path: &Path) -> Result<Work> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = files::parent_of(path).join(format!(".{name}.{}.tmp", std::process::id()));
        // Left by a process of the same number that was killed.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).at(|| folder.display())?;
        Ok(Work(folder))
    }

    /// Moves the folder into place. A package that was there is moved out of the way first, and then removed.
    fn put(self, path: &Path) -> Result<()> {
        let old = self.0.with_extension("old");
        let replaced = path.exists();
        if replaced {
            let _ = std::fs::remove_dir_all(&old);
            std::fs::rename(path, &old).at(|| path.display())?;
        }
        if let Err(e) = std::fs::rename(&self.0, path) {
            if replaced {
                let _ = std::fs::rename(&old, path);
            }
            return Err(e).at(|| path.display());
        }
        if replaced {
            let _ = std::fs::remove_dir_all(&old);
        }
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
