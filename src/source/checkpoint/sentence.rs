//! Folders of sentence-transformers, with the steps from token vectors to one vector per text.
//!
//! `modules.json` lists the steps: Transformer, then Pooling, Dense, LayerNorm, Normalize and Dropout (which has no
//! effect), each with its own folder. Checkpoints get them as nodes; for exported graphs, which end before them, they
//! are computed in memory.

pub use by_hand::Steps;

use super::activation::Activation;
use super::by_hand;
use super::pooling::{self, Tokens};
use super::safetensors::Safetensors;
use crate::error::{Context, Result, bail, error};
use crate::model::{Card, Pooling, SideFile};
use crate::onnx::dtype::DataType::Float32;
use crate::source::builder::{Attribute, Builder};
use crate::source::weights::{Stored, Weights};
use crate::text::Tokenizer;
use serde_json::{Map, Value};
use std::path::{Component, Path};

/// The name of the file with the settings of the transformer.
const TRANSFORMER: &str = "sentence_bert_config.json";
/// The task of a transformer that classifies texts.
const CLASSIFIES: &str = "sequence-classification";

/// The steps of a model after its transformer, in order.
pub struct Sentence {
    steps: Vec<Step>,
    /// Number of prompt tokens that are not pooled; 0 if all tokens are pooled.
    prompt: usize,
    /// Whether the tokens of the prompt are not pooled.
    excludes_prompt: bool,
}

enum Step {
    Pool(Vec<Pooling>),
    Dense { name: String, inputs: i64, outputs: i64, activation: Activation, residual: bool },
    LayerNorm { name: String },
    Normalize,
}

/// The weights of the transformer, and those of the steps, whose names begin with the name of their folder and a dot.
pub struct WithSteps<'a> {
    main: &'a dyn Weights,
    steps: Vec<(String, Safetensors)>,
}

impl Weights for WithSteps<'_> {
    fn find(&self, name: &str) -> Result<Option<Stored>> {
        for (folder, weights) in &self.steps {
            if let Some(inner) = name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('.')) {
                return weights.find(inner);
            }
        }
        self.main.find(name)
    }

    fn names(&self) -> Vec<String> {
        self.main.names()
    }
}

/// Returns the names of the files that the steps of a `modules.json` may have.
pub fn files_of_modules(modules: &Value) -> Vec<String> {
    let paths = modules.as_array().into_iter().flatten().filter_map(|module| module.get("path")?.as_str());
    let inner = paths.filter(|path| !path.is_empty() && inside(path));
    inner.flat_map(|path| ["config.json", "model.safetensors"].map(|name| format!("{path}/{name}"))).collect()
}

/// Returns whether a path stays in its folder.
fn inside(path: &str) -> bool {
    Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

impl Sentence {
    /// Returns the steps of a model's folder, whose files are `files`; `None` if it has no `modules.json`, or if the
    /// only step is a transformer that classifies texts (the CrossEncoder of sentence-transformers).
    ///
    /// Fails with [`crate::error::Kind::Unsupported`] for an unknown step or setting, and `InvalidModel` for a damaged
    /// file.
    pub fn read(folder: &Path, files: &[SideFile]) -> Result<Option<Sentence>> {
        Sentence::of_files(files).at(|| folder.display())
    }

    /// Returns the steps of a model's card, to be computed in memory; `None` like [`Sentence::read`], and fails like
    /// it.
    pub fn of(card: &Card) -> Result<Option<Sentence>> {
        Sentence::of_files(&card.side_files)
    }

    fn of_files(files: &[SideFile]) -> Result<Option<Sentence>> {
        let Some(modules) = json(files, "modules.json")? else { return Ok(None) };
        let Value::Array(modules) = modules else { bail!(InvalidModel, "modules.json is not a JSON list") };
        if classifies(files, &modules)? {
            return Ok(None);
        }
        let (mut steps, mut include_prompt) = (Vec::new(), true);
        for module in &modules {
            let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or("");
            let (class, path) = (text("type"), text("path"));
            if !inside(path) {
                bail!(InvalidModel, "modules.json: {path:?} is not a folder next to it");
            }
            if !class.starts_with("sentence_transformers.") {
                bail!(Unsupported, "modules.json: the step {class:?} is custom code, which is not run");
            }
            let name = format!("{path}/config.json");
            let config = object(files, &name)?;
            let pooled = || match config.get("module_input_name").and_then(Value::as_str) {
                None | Some("sentence_embedding") => Ok(()),
                Some(other) => bail!(Unsupported, "{name}: a step over {other:?} is not supported"),
            };
            match class.rsplit('.').next().unwrap_or("") {
                "Transformer" => transformer(files, path)?,
                "Pooling" => {
                    include_prompt &= config.get("include_prompt").and_then(Value::as_bool).unwrap_or(true);
                    steps.push(Step::Pool(kinds(&config).at(|| name.clone())?));
                }
                "Dense" => {
                    pooled()?;
                    steps.push(dense(path, &config).at(|| name.clone())?);
                }
                "LayerNorm" => steps.push(Step::LayerNorm { name: path.to_owned() }),
                "Normalize" => {
                    pooled()?;
                    steps.push(Step::Normalize);
                }
                "Dropout" => {}
                other => bail!(Unsupported, "the step {other:?} of modules.json is not supported"),
            }
        }
        let prompt = if include_prompt { 0 } else { Tokenizer::beside(files)?.map_or(Ok(0), |t| t.prompt_tokens())? };
        Ok(Some(Sentence { steps, prompt, excludes_prompt: !include_prompt }))
    }

    /// Returns whether the tokens of the prompt are not pooled.
    pub fn excludes_prompt(&self) -> bool {
        self.excludes_prompt
    }

    /// Returns the steps for texts that `tokenizer` encodes: if prompt tokens are not pooled, their number is that of
    /// the tokenizer's prompt. Fails like [`Tokenizer::encode`].
    pub fn with_prompt_of(self, tokenizer: &Tokenizer) -> Result<Sentence> {
        let prompt = if self.excludes_prompt { tokenizer.prompt_tokens()? } else { 0 };
        Ok(Sentence { prompt, ..self })
    }

    /// Returns the weights of the steps, in their folders within `folder`, together with those of the transformer,
    /// `main`. Fails with `NotFound` if a file is missing, and with `InvalidModel` if it is damaged.
    pub fn weights<'a>(&self, folder: &Path, main: &'a dyn Weights) -> Result<WithSteps<'a>> {
        let mut steps = Vec::new();
        for step in &self.steps {
            if let Step::Dense { name, .. } | Step::LayerNorm { name } = step {
                steps.push((name.clone(), Safetensors::open_folder(&folder.join(name))?));
            }
        }
        Ok(WithSteps { main, steps })
    }

    /// Returns the pooling that the folder sets, or the first of several; `None` if there is none.
    pub fn pooling(&self) -> Option<Pooling> {
        self.steps.iter().find_map(|step| if let Step::Pool(kinds) = step { kinds.first().copied() } else { None })
    }

    /// Returns whether the only steps are poolings of one kind over all tokens and normalization to length 1.
    pub fn only_pools(&self) -> bool {
        let simple = |step: &Step| match step {
            Step::Pool(kinds) => kinds.len() == 1,
            Step::Normalize => true,
            Step::Dense { .. } | Step::LayerNorm { .. } => false,
        };
        self.prompt == 0 && self.steps.iter().all(simple)
    }

    /// Adds the steps and the output `sentence_embedding` `[batch, size]` to a graph. `hidden` are the vectors of the
    /// tokens, with `width` elements each, and `mask` marks the tokens that are not padding. Fails with `InvalidModel`
    /// if the sizes of the steps do not fit each other or a weight is missing, and with `Unsupported` if a weight is
    /// not float.
    pub fn emit(&self, b: &mut Builder<'_>, hidden: &str, mask: &str, width: i64) -> Result<()> {
        let (mut x, mut width) = (hidden.to_owned(), width);
        let tokens = Tokens { mask, prompt: self.prompt };
        for step in &self.steps {
            match step {
                Step::Pool(kinds) => {
                    let parts: Vec<String> = kinds
                        .iter()
                        .map(|kind| b.within("pooling", |b| Ok(pooling::nodes(b, *kind, &x, &tokens))))
                        .collect::<Result<_>>()?;
                    width *= parts.len() as i64;
                    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                    x = match parts.as_slice() {
                        [only] => (*only).to_owned(),
                        many => b.op("Concat", many, &[("axis", Attribute::Int(-1))]),
                    };
                }
                Step::Dense { name, inputs, outputs, activation, residual } => {
                    fits(name, *inputs, width)?;
                    let made = b.linear(&x, &format!("{name}.linear"), *inputs, *outputs)?;
                    let made = activation.build(b, &made)?;
                    x = match (residual, inputs == outputs) {
                        (false, _) => made,
                        (true, true) => b.op("Add", &[&made, &x], &[]),
                        (true, false) => {
                            let past = b.linear(&x, &format!("{name}.residual"), *inputs, *outputs)?;
                            b.op("Add", &[&made, &past], &[])
                        }
                    };
                    width = *outputs;
                }
                Step::LayerNorm { name } => x = b.layer_norm(&x, &format!("{name}.norm"), width, 1e-5)?,
                Step::Normalize => x = b.within("normalize", |b| Ok(normalize(b, &x)))?,
            }
        }
        b.output("sentence_embedding", &x, Float32, &["batch", &width.to_string()]);
        Ok(())
    }

    /// Returns the steps for computation in memory, over the vectors of a text's tokens. `card` has their weights.
    /// Fails with `NotFound` if the weights of a step are missing, with `InvalidModel` if they are damaged or have
    /// another shape, and with `Unsupported` if they are not float.
    pub fn by_hand(&self, card: &Card) -> Result<Steps> {
        let mut steps = Vec::new();
        for step in &self.steps {
            steps.push(match step {
                Step::Pool(kinds) => by_hand::Step::Pool(kinds.clone(), self.prompt),
                Step::Dense { name, inputs, outputs, activation, residual } => {
                    let weights = weights_of(card, name)?;
                    let form = (*inputs, *outputs, *activation, *residual);
                    by_hand::Step::dense(&weights, form).at(|| name.clone())?
                }
                Step::LayerNorm { name } => by_hand::Step::layer_norm(&weights_of(card, name)?).at(|| name.clone())?,
                Step::Normalize => by_hand::Step::Normalize,
            });
        }
        Ok(Steps { steps })
    }
}

/// Returns the weights of a step next to an exported model.
fn weights_of(card: &Card, folder: &str) -> Result<Safetensors> {
    let name = format!("{folder}/model.safetensors");
    let Some(content) = card.side_file(&name) else { bail!(NotFound, "the folder has no {name}") };
    Safetensors::of_bytes(content.read()?).at(|| name)
}

pub(super) fn fits(name: &str, inputs: i64, width: i64) -> Result<()> {
    if inputs != width {
        bail!(InvalidModel, "{name}: the step expects {inputs} values, but receives {width}");
    }
    Ok(())
}

/// Returns the content of a JSON file of the folder; `None` if it does not exist.
fn json(files: &[SideFile], name: &str) -> Result<Option<Value>> {
    let Some(file) = files.iter().find(|file| file.name == name) else { return Ok(None) };
    let content = file.content.read()?;
    serde_json::from_slice(&content)
        .map_err(|e| error!(InvalidModel, "the file is not valid JSON: {e}"))
        .at(|| name.to_owned())
}

/// Returns the object in a JSON file of the folder; empty if the file does not exist.
fn object(files: &[SideFile], name: &str) -> Result<Map<String, Value>> {
    match json(files, name)? {
        Some(Value::Object(map)) => Ok(map),
        Some(_) => bail!(InvalidModel, "{name} is not a JSON object"),
        None => Ok(Map::new()),
    }
}

/// Returns whether the only module is a transformer that classifies texts.
fn classifies(files: &[SideFile], modules: &[Value]) -> Result<bool> {
    let [only] = modules else { return Ok(false) };
    let text = |key: &str| only.get(key).and_then(Value::as_str).unwrap_or("");
    let transformer = text("type").starts_with("sentence_transformers.") && text("type").ends_with(".Transformer");
    let task = |config: Map<String, Value>| config.get("transformer_task").and_then(Value::as_str) == Some(CLASSIFIES);
    Ok(transformer && text("path").is_empty() && object(files, TRANSFORMER).map(task)?)
}

/// Fails with `Unsupported` for settings of the transformer step that are not supported. The tokenizer handles the
/// length and the case of texts.
fn transformer(files: &[SideFile], path: &str) -> Result<()> {
    if !path.is_empty() {
        bail!(Unsupported, "modules.json: the transformer is in {path:?}, not next to it");
    }
    let name = TRANSFORMER;
    match object(files, name)?.get("transformer_task").and_then(Value::as_str) {
        None | Some("feature-extraction") => Ok(()),
        Some(task) => bail!(Unsupported, "{name}: embeddings by the task {task:?} are not supported"),
    }
}

/// Returns the poolings of a configuration: a string or a list (from version 5.4 on), or switches. The default is the
/// mean.
fn kinds(config: &Map<String, Value>) -> Result<Vec<Pooling>> {
    // In the order in which sentence-transformers concatenates the enabled ones.
    const KINDS: [(&str, &str, Pooling); 6] = [
        ("cls", "pooling_mode_cls_token", Pooling::Cls),
        ("max", "pooling_mode_max_tokens", Pooling::Max),
        ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
        ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
        ("weightedmean", "pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
        ("lasttoken", "pooling_mode_lasttoken", Pooling::LastToken),
    ];
    let named = |value: &Value| match KINDS.iter().find(|(name, ..)| Some(*name) == value.as_str()) {
        Some((.., kind)) => Ok(*kind),
        None => bail!(Unsupported, "the pooling {value} is not supported"),
    };
    let chosen: Vec<Pooling> = match config.get("pooling_mode") {
        Some(Value::Array(list)) if list.is_empty() => bail!(InvalidModel, "no pooling is selected"),
        Some(Value::Array(list)) => list.iter().map(named).collect::<Result<_>>()?,
        Some(one) => vec![named(one)?],
        None => {
            let on = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
            KINDS.iter().filter(|(_, key, _)| on(key)).map(|(.., kind)| *kind).collect()
        }
    };
    Ok(if chosen.is_empty() { vec![Pooling::Mean] } else { chosen })
}

fn dense(path: &str, config: &Map<String, Value>) -> Result<Step> {
    let size = |key: &str| match config.get(key).and_then(Value::as_i64) {
        Some(size) if size > 0 => Ok(size),
        _ => bail!(InvalidModel, "{key} is missing"),
    };
    let class = config.get("activation_function").and_then(Value::as_str).unwrap_or("torch.nn.Tanh");
    if !class.starts_with("torch.") {
        bail!(Unsupported, "the activation {class:?} is not supported");
    }
    let activation = Activation::named(&class.rsplit('.').next().unwrap_or("").to_lowercase())?;
    let residual = config.get("use_residual").and_then(Value::as_bool).unwrap_or(false);
    let (inputs, outputs) = (size("in_features")?, size("out_features")?);
    Ok(Step::Dense { name: path.to_owned(), inputs, outputs, activation, residual })
}

/// Adds x / max(|x|₂, 1e-12), like `torch.nn.functional.normalize`, and returns its name.
fn normalize(b: &mut Builder<'_>, x: &str) -> String {
    let last = b.ints(&[-1]);
    let norm = b.op("ReduceL2", &[x, &last], &[("keepdims", Attribute::Int(1))]);
    let least = b.float(1e-12);
    let norm = b.op("Max", &[&norm, &least], &[]);
    b.op("Div", &[x, &norm], &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SideContent;
    use serde_json::json;

    fn read(files: &[(&str, Value)]) -> Result<Option<Sentence>> {
        let file = |(name, value): &(&str, Value)| SideFile {
            name: (*name).to_owned(),
            content: SideContent::Bytes(value.to_string().into()),
        };
        Sentence::of_files(&files.iter().map(file).collect::<Vec<_>>())
    }

    fn pooled(config: Value) -> Result<Vec<Pooling>> {
        kinds(config.as_object().unwrap())
    }

    #[test]
    fn both_spellings_of_pooling_are_read() {
        use Pooling::{Cls, LastToken, Max, Mean, MeanSqrtLen, WeightedMean};
        assert_eq!(pooled(json!({ "pooling_mode": "weightedmean" })).unwrap(), [WeightedMean]);
        assert_eq!(pooled(json!({ "pooling_mode": ["lasttoken", "mean"] })).unwrap(), [LastToken, Mean]);
        // The order of the switches is that of the library, and the string has priority.
        let switches = json!({ "pooling_mode_mean_sqrt_len_tokens": true, "pooling_mode_cls_token": true });
        assert_eq!(pooled(switches).unwrap(), [Cls, MeanSqrtLen]);
        assert_eq!(pooled(json!({ "pooling_mode": "max", "pooling_mode_cls_token": true })).unwrap(), [Max]);
        assert_eq!(pooled(json!({ "pooling_mode_cls_token": false })).unwrap(), [Mean]);
        assert!(pooled(json!({ "pooling_mode": "median" })).is_err() && pooled(json!({ "pooling_mode": [] })).is_err());
    }

    #[test]
    fn steps_that_are_not_known_and_settings_that_matter_are_refused() {
        let modules = |class: &str, path: &str| ("modules.json", json!([{ "type": class, "path": path }]));
        let fault = |files: &[(&str, Value)]| read(files).err().unwrap().to_string();
        assert!(fault(&[modules("custom.Transformer", "")]).contains("custom.Transformer"));
        assert!(fault(&[modules("sentence_transformers.models.CNN", "1")]).contains("CNN"));
        assert!(fault(&[modules("sentence_transformers.models.Pooling", "../1")]).contains("../1"));
        assert!(fault(&[modules("sentence_transformers.models.Transformer", "0_T")]).contains("0_T"));
        let task = ("sentence_bert_config.json", json!({ "transformer_task": "fill-mask" }));
        assert!(fault(&[modules("sentence_transformers.models.Transformer", ""), task]).contains("fill-mask"));
        let task = ("sentence_bert_config.json", json!({ "transformer_task": "sequence-classification" }));
        let pooled = json!([
            { "type": "sentence_transformers.base.modules.transformer.Transformer", "path": "" },
            { "type": "sentence_transformers.base.modules.pooling.Pooling", "path": "1_Pooling" },
        ]);
        assert!(fault(&[("modules.json", pooled), task]).contains("sequence-classification"));
        let over = ("2/config.json", json!({ "module_input_name": "token_embeddings" }));
        assert!(fault(&[modules("sentence_transformers.base.modules.Normalize", "2"), over]).contains("token_emb"));
        assert!(read(&[]).unwrap().is_none());
        let found = read(&[modules("sentence_transformers.models.Pooling", "1")]).unwrap().unwrap();
        assert!(found.only_pools() && found.pooling() == Some(Pooling::Mean));
    }

    #[test]
    fn the_folder_of_a_cross_encoder_has_no_steps() {
        let class = "sentence_transformers.base.modules.transformer.Transformer";
        let modules = ("modules.json", json!([{ "type": class, "path": "", "name": "0", "idx": 0 }]));
        let task = |name: &str| ("sentence_bert_config.json", json!({ "transformer_task": name }));
        assert!(read(&[modules.clone(), task("sequence-classification")]).unwrap().is_none());
        assert!(read(&[modules.clone(), task("feature-extraction")]).unwrap().is_some());
        assert!(read(&[modules, task("text-generation")]).err().unwrap().to_string().contains("text-generation"));
    }
}
