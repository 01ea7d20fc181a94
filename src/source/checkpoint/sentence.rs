//! sentence-transformers folders: what turns token vectors into one vector for a text.
//!
//! `modules.json` lists the steps: Transformer, then Pooling, Dense and Normalize, each with a folder of its own.

use super::activation::Activation;
use super::safetensors::Safetensors;
use crate::error::{Context, Error, Kind, Result, bail, error};
use crate::onnx::dtype::DataType::Float32;
use crate::source::Pooling;
use crate::source::builder::{Attribute, Builder};
use crate::source::weights::{Stored, Weights};
use crate::{files, limits};
use serde_json::{Map, Value};
use std::path::{Component, Path};

/// The steps after the transformer, in order.
pub struct Sentence {
    steps: Vec<Step>,
}

enum Step {
    Pool(Vec<Pooling>),
    Dense { name: String, inputs: i64, outputs: i64, activation: Activation },
    Normalize,
}

/// The transformer's weights, and those of the Dense steps under `{folder}.`.
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

impl Sentence {
    /// Reads the steps of a folder; `None` if it has no `modules.json`.
    pub fn read<'a>(folder: &Path, main: &'a dyn Weights) -> Result<Option<(Sentence, WithSteps<'a>)>> {
        let file = folder.join("modules.json");
        if !file.is_file() {
            return Ok(None);
        }
        let Value::Array(modules) = parse(&file)? else {
            return Err(Error::new(Kind::InvalidModel, "is not a list").at(file.display()));
        };
        let mut weights = WithSteps { main, steps: Vec::new() };
        let mut steps = Vec::new();
        for module in &modules {
            let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or("");
            let (class, path) = (text("type").rsplit('.').next().unwrap_or(""), text("path"));
            if !Path::new(path).components().all(|c| matches!(c, Component::Normal(_))) {
                bail!(InvalidModel, "modules.json: {path:?} is not a folder beside it");
            }
            match class {
                "Transformer" => {}
                "Pooling" => steps.push(Step::Pool(pooling(&folder.join(path).join("config.json"))?)),
                "Dense" => steps.push(dense(folder, path, &mut weights)?),
                "Normalize" => steps.push(Step::Normalize),
                "Dropout" => {}
                other => bail!(Unsupported, "the step {other:?} of modules.json cannot be built"),
            }
        }
        Ok(Some((Sentence { steps }, weights)))
    }

    /// How token vectors are pooled, if the folder says so.
    pub fn pooling(&self) -> Option<Pooling> {
        self.steps.iter().find_map(|step| if let Step::Pool(kinds) = step { kinds.first().copied() } else { None })
    }

    /// Adds the steps and the output `sentence_embedding` `[batch, size]`.
    pub fn emit(&self, b: &mut Builder<'_>, hidden: &str, mask: &str, width: i64) -> Result<()> {
        let (mut x, mut width) = (hidden.to_owned(), width);
        for step in &self.steps {
            match step {
                Step::Pool(kinds) => {
                    let parts: Vec<String> = kinds
                        .iter()
                        .map(|kind| b.within("pooling", |b| Ok(pool(b, *kind, &x, mask))))
                        .collect::<Result<_>>()?;
                    width *= parts.len() as i64;
                    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                    x = match parts.as_slice() {
                        [only] => (*only).to_owned(),
                        many => b.op("Concat", many, &[("axis", Attribute::Int(-1))]),
                    };
                }
                Step::Dense { name, inputs, outputs, activation } => {
                    if *inputs != width {
                        bail!(InvalidModel, "{name}: takes {inputs} values, but is given {width}");
                    }
                    x = b.linear(&x, &format!("{name}.linear"), *inputs, *outputs)?;
                    x = activation.build(b, &x)?;
                    width = *outputs;
                }
                Step::Normalize => x = b.within("normalize", |b| Ok(normalize(b, &x)))?,
            }
        }
        b.output("sentence_embedding", &x, Float32, &["batch", &width.to_string()]);
        Ok(())
    }
}

fn parse(file: &Path) -> Result<Value> {
    let content = files::read(file, limits::SIDE_FILE_BYTES)?;
    serde_json::from_slice(&content).map_err(|e| error!(InvalidModel, "is not valid JSON: {e}")).at(|| file.display())
}

fn pooling(file: &Path) -> Result<Vec<Pooling>> {
    let config = parse(file)?;
    let on = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    if on("pooling_mode_mean_sqrt_len_tokens") || on("pooling_mode_weightedmean_tokens") {
        bail!(Unsupported, "{}: this kind of pooling cannot be built", file.display());
    }
    // In the order in which sentence-transformers concatenates them.
    let kinds = [
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_lasttoken", Pooling::LastToken),
    ];
    let chosen: Vec<Pooling> = kinds.iter().filter(|(key, _)| on(key)).map(|(_, kind)| *kind).collect();
    if chosen.is_empty() {
        bail!(InvalidModel, "{}: no pooling is chosen", file.display());
    }
    Ok(chosen)
}

fn dense(folder: &Path, path: &str, weights: &mut WithSteps<'_>) -> Result<Step> {
    let file = folder.join(path).join("config.json");
    let config: Map<String, Value> = match parse(&file)? {
        Value::Object(map) => map,
        _ => bail!(InvalidModel, "{}: is not an object", file.display()),
    };
    let size = |key: &str| match config.get(key).and_then(Value::as_i64) {
        Some(size) if size > 0 => Ok(size),
        _ => bail!(InvalidModel, "{}: {key} is missing", file.display()),
    };
    let (inputs, outputs) = (size("in_features")?, size("out_features")?);
    let class = config.get("activation_function").and_then(Value::as_str).unwrap_or("");
    let activation = class.rsplit('.').next().unwrap_or("").to_lowercase();
    weights.steps.push((path.to_owned(), Safetensors::open_folder(&folder.join(path))?));
    let activation = if activation.is_empty() { "tanh" } else { &activation };
    let activation = Activation::named(activation).at(|| file.display())?;
    Ok(Step::Dense { name: path.to_owned(), inputs, outputs, activation })
}

/// `[batch, sequence, width]` to `[batch, width]`.
fn pool(b: &mut Builder<'_>, kind: Pooling, hidden: &str, mask: &str) -> String {
    let (last, one) = (b.ints(&[-1]), b.ints(&[1]));
    let keep = [("keepdims", Attribute::Int(0))];
    let float = [("to", Attribute::Int(i64::from(Float32.to_onnx())))];
    match kind {
        Pooling::Cls => {
            let zero = b.int(0);
            b.op("Gather", &[hidden, &zero], &[("axis", Attribute::Int(1))])
        }
        Pooling::Mean => {
            let mask = b.op("Cast", &[mask], &float);
            let mask = b.op("Unsqueeze", &[&mask, &last], &[]);
            let masked = b.op("Mul", &[hidden, &mask], &[]);
            let sum = b.op("ReduceSum", &[&masked, &one], &keep);
            let count = b.op("ReduceSum", &[&mask, &one], &keep);
            let least = b.float(1e-9);
            let count = b.op("Max", &[&count, &least], &[]);
            b.op("Div", &[&sum, &count], &[])
        }
        Pooling::Max => {
            let mask = b.op(
                "Cast",
                &[mask],
                &[("to", Attribute::Int(i64::from(crate::onnx::dtype::DataType::Bool.to_onnx())))],
            );
            let mask = b.op("Unsqueeze", &[&mask, &last], &[]);
            let least = b.float(-1e9);
            let masked = b.op("Where", &[&mask, hidden, &least], &[]);
            b.op("ReduceMax", &[&masked, &one], &keep)
        }
        Pooling::LastToken => {
            let count = b.op("ReduceSum", &[mask, &one], &[("keepdims", Attribute::Int(1))]);
            let one = b.int(1);
            let index = b.op("Sub", &[&count, &one], &[]);
            b.op("GatherND", &[hidden, &index], &[("batch_dims", Attribute::Int(1))])
        }
    }
}

/// x / max(|x|₂, 1e-12), as `torch.nn.functional.normalize`.
fn normalize(b: &mut Builder<'_>, x: &str) -> String {
    let last = b.ints(&[-1]);
    let norm = b.op("ReduceL2", &[x, &last], &[("keepdims", Attribute::Int(1))]);
    let least = b.float(1e-12);
    let norm = b.op("Max", &[&norm, &least], &[]);
    b.op("Div", &[x, &norm], &[])
}
