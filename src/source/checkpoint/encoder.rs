//! Encoders: BERT and MiniLM, RoBERTa and XLM-RoBERTa, DistilBERT, with their heads.
//!
//! One description ([`Names`]) says where the families keep their weights and how they differ; the layers are
//! built once. Attention is post-norm as in "Attention is all you need"; but for an activation the graph uses
//! standard operators only, in both dialects: ONNX Runtime's fused attention is no faster here.

use super::activation::Activation;
use super::sentence::Sentence;
use super::{Built, Config};
use crate::error::{Result, bail};
use crate::onnx::dtype::DataType::{Float32, Int64};
use crate::onnx::proto::ModelProto;
use crate::source::builder::{Attribute, Builder};
use crate::source::weights::Weights;
use crate::source::{Dialect, Task};

/// Names of the modules of a family. `{}` in `layer` is the layer's number.
struct Names {
    /// Prefix of a checkpoint saved with a head (`bert.`); bare models have none.
    prefix: &'static str,
    embeddings_norm: &'static str,
    layer: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    attention_out: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    output_norm: &'static str,
}

const BERT: Names = Names {
    prefix: "bert.",
    embeddings_norm: "embeddings.LayerNorm",
    layer: "encoder.layer.{}",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
};
const ROBERTA: Names = Names { prefix: "roberta.", ..BERT };
const DISTILBERT: Names = Names {
    prefix: "distilbert.",
    embeddings_norm: "embeddings.LayerNorm",
    layer: "transformer.layer.{}",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_out: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    output_norm: "output_layer_norm",
};

/// Families by `model_type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bert,
    Roberta,
    DistilBert,
}

fn kind_of(model_type: &str) -> Option<Kind> {
    match model_type {
        "bert" => Some(Kind::Bert),
        "roberta" | "xlm-roberta" | "camembert" => Some(Kind::Roberta),
        "distilbert" => Some(Kind::DistilBert),
        _ => None,
    }
}

/// Builds an encoder as a [`super::Family`].
pub fn build(config: &Config<'_>, weights: &dyn Weights, dialect: Dialect) -> Result<(ModelProto, Task)> {
    build_with(config, weights, dialect, None)
}

/// Builds an encoder of a sentence-transformers folder: text vectors come out of it as well.
pub fn build_sentence(
    config: &Config<'_>,
    weights: &dyn Weights,
    dialect: Dialect,
    sentence: &Sentence,
) -> Result<Built> {
    let (proto, task) = build_with(config, weights, dialect, Some(sentence))?;
    let architecture = config.text("model_type")?.unwrap_or("").to_owned();
    Ok(Built { proto, task, architecture })
}

fn build_with(
    config: &Config<'_>,
    weights: &dyn Weights,
    dialect: Dialect,
    sentence: Option<&Sentence>,
) -> Result<(ModelProto, Task)> {
    let Some(kind) = kind_of(config.text("model_type")?.unwrap_or("")) else {
        bail!(Unsupported, "is no encoder that can be built");
    };
    let encoder = Encoder::new(kind, config, weights)?;
    let mut b = Builder::new("main_graph", weights, dialect);
    let ids = b.input("input_ids", Int64, &["batch", "sequence"]);
    let mask = b.input("attention_mask", Int64, &["batch", "sequence"]);
    let hidden = encoder.hidden_states(&mut b, &ids, &mask)?;
    let task = match sentence {
        Some(sentence) => {
            let dims = ["batch", "sequence", &encoder.hidden.to_string()];
            b.output("last_hidden_state", &hidden, Float32, &dims);
            sentence.emit(&mut b, &hidden, &mask, encoder.hidden)?;
            Task::Embed
        }
        None => encoder.head(&mut b, config, &hidden)?,
    };
    Ok((b.finish(), task))
}

struct Encoder {
    kind: Kind,
    names: &'static Names,
    /// The prefix that this checkpoint really has.
    prefix: &'static str,
    hidden: i64,
    heads: i64,
    layers: i64,
    intermediate: i64,
    vocabulary: i64,
    positions: i64,
    types: i64,
    epsilon: f32,
    activation: Activation,
    padding: i64,
}

impl Encoder {
    fn new(kind: Kind, config: &Config<'_>, weights: &dyn Weights) -> Result<Encoder> {
        let names = match kind {
            Kind::Bert => &BERT,
            Kind::Roberta => &ROBERTA,
            Kind::DistilBert => &DISTILBERT,
        };
        let table = "embeddings.word_embeddings.weight";
        let prefix = if weights.find(&format!("{}{table}", names.prefix))?.is_some() { names.prefix } else { "" };
        if !matches!(config.text("position_embedding_type")?, None | Some("absolute")) {
            bail!(Unsupported, "relative position embeddings cannot be built");
        }
        let hidden = config.size_of(&["hidden_size", "dim"])?;
        let heads = config.size_of(&["num_attention_heads", "n_heads"])?;
        if hidden % heads != 0 {
            bail!(InvalidModel, "hidden_size {hidden} is no multiple of num_attention_heads {heads}");
        }
        Ok(Encoder {
            kind,
            names,
            prefix,
            hidden,
            heads,
            layers: config.size_of(&["num_hidden_layers", "n_layers"])?,
            intermediate: config.size_of(&["intermediate_size", "hidden_dim"])?,
            vocabulary: config.size_of(&["vocab_size"])?,
            positions: config.size_of(&["max_position_embeddings"])?,
            types: if kind == Kind::DistilBert { 0 } else { config.size("type_vocab_size")?.unwrap_or(2) },
            epsilon: config.number("layer_norm_eps")?.unwrap_or(1e-12) as f32,
            activation: Activation::named(config.text("hidden_act")?.or(config.text("activation")?).unwrap_or("gelu"))?,
            padding: config.integer("pad_token_id")?.unwrap_or(if kind == Kind::Roberta { 1 } else { 0 }),
        })
    }

    fn name(&self, module: &str) -> String {
        format!("{}{module}", self.prefix)
    }

    fn hidden_states(&self, b: &mut Builder<'_>, ids: &str, mask: &str) -> Result<String> {
        let mut x = b.within("embeddings", |b| self.embeddings(b, ids))?;
        let bias = b.within("attention_mask", |b| Ok(additive_mask(b, mask)))?;
        for layer in 0..self.layers {
            let module = self.names.layer.replace("{}", &layer.to_string());
            x = b.within(&module, |b| self.layer(b, &self.name(&module), &x, &bias))?;
        }
        Ok(x)
    }

    fn embeddings(&self, b: &mut Builder<'_>, ids: &str) -> Result<String> {
        let table = |name: &str| self.name(&format!("embeddings.{name}.weight"));
        let words = b.embedding(ids, &table("word_embeddings"), self.vocabulary, self.hidden)?;
        let positions = self.position_ids(b, ids);
        let positions = b.embedding(&positions, &table("position_embeddings"), self.positions, self.hidden)?;
        let mut sum = b.op("Add", &[&words, &positions], &[]);
        if self.types > 0 {
            // RoBERTa has the table but only ever uses its first row; callers do not give types.
            let types = match self.kind {
                Kind::Bert => b.input("token_type_ids", Int64, &["batch", "sequence"]),
                _ => b.int(0),
            };
            let types = b.embedding(&types, &table("token_type_embeddings"), self.types, self.hidden)?;
            sum = b.op("Add", &[&sum, &types], &[]);
        }
        b.layer_norm(&sum, &self.name(self.names.embeddings_norm), self.hidden, self.epsilon)
    }

    /// BERT counts from 0. RoBERTa counts the tokens that are no padding, from the padding id + 1 on.
    fn position_ids(&self, b: &mut Builder<'_>, ids: &str) -> String {
        if self.kind != Kind::Roberta {
            let shape = b.op("Shape", &[ids], &[]);
            let one = b.int(1);
            let length = b.op("Gather", &[&shape, &one], &[]);
            let zero = b.int(0);
            return b.op("Range", &[&zero, &length, &one], &[]);
        }
        let (padding, one) = (b.int(self.padding), b.int(1));
        let is_padding = b.op("Equal", &[ids, &padding], &[]);
        let is_token = b.op("Not", &[&is_padding], &[]);
        let is_token = b.op("Cast", &[&is_token], &[("to", Attribute::Int(i64::from(Int64.to_onnx())))]);
        let counted = b.op("CumSum", &[&is_token, &one], &[]);
        let counted = b.op("Mul", &[&counted, &is_token], &[]);
        b.op("Add", &[&counted, &padding], &[])
    }

    fn layer(&self, b: &mut Builder<'_>, module: &str, x: &str, bias: &str) -> Result<String> {
        let names = self.names;
        let at = |part: &str| format!("{module}.{part}");
        let attended = b.within("attention", |b| {
            let query = self.heads_of(b, x, &at(names.query), &[0, 2, 1, 3])?;
            let key = self.heads_of(b, x, &at(names.key), &[0, 2, 3, 1])?;
            let value = self.heads_of(b, x, &at(names.value), &[0, 2, 1, 3])?;
            let scale = b.float(((self.hidden / self.heads) as f32).sqrt().recip());
            let scores = b.op("MatMul", &[&query, &key], &[]);
            let scores = b.op("Mul", &[&scores, &scale], &[]);
            let scores = b.op("Add", &[&scores, bias], &[]);
            let shares = b.op("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
            let mixed = b.op("MatMul", &[&shares, &value], &[]);
            let mixed = b.op("Transpose", &[&mixed], &[("perm", Attribute::Ints(&[0, 2, 1, 3]))]);
            let shape = b.ints(&[0, 0, self.hidden]);
            let mixed = b.op("Reshape", &[&mixed, &shape], &[]);
            b.linear(&mixed, &at(names.attention_out), self.hidden, self.hidden)
        })?;
        let sum = b.op("Add", &[&attended, x], &[]);
        let x = b.layer_norm(&sum, &at(names.attention_norm), self.hidden, self.epsilon)?;
        let up = b.linear(&x, &at(names.up), self.hidden, self.intermediate)?;
        let up = self.activation.build(b, &up)?;
        let down = b.linear(&up, &at(names.down), self.intermediate, self.hidden)?;
        let sum = b.op("Add", &[&down, &x], &[]);
        b.layer_norm(&sum, &at(names.output_norm), self.hidden, self.epsilon)
    }

    /// A projection cut into heads: `[batch, sequence, heads, size]`, turned by `perm`.
    fn heads_of(&self, b: &mut Builder<'_>, x: &str, module: &str, perm: &[i64]) -> Result<String> {
        let projected = b.linear(x, module, self.hidden, self.hidden)?;
        let shape = b.ints(&[0, 0, self.heads, self.hidden / self.heads]);
        let cut = b.op("Reshape", &[&projected, &shape], &[]);
        Ok(b.op("Transpose", &[&cut], &[("perm", Attribute::Ints(perm))]))
    }

    /// What the class name in `architectures` asks for on top of the hidden states.
    fn head(&self, b: &mut Builder<'_>, config: &Config<'_>, hidden: &str) -> Result<Task> {
        let class = config.architectures().first().copied().unwrap_or("");
        let labels = match config.value("id2label").and_then(|v| v.as_object()) {
            Some(map) if !map.is_empty() => map.len() as i64,
            _ => config.size("num_labels")?.unwrap_or(2),
        };
        let (batch, sequence) = ("batch", "sequence");
        if class.ends_with("ForSequenceClassification") {
            let logits = self.classify(b, hidden, labels)?;
            b.output("logits", &logits, Float32, &[batch, &labels.to_string()]);
            return Ok(Task::Classify);
        }
        if class.ends_with("ForTokenClassification") {
            let logits = b.linear(hidden, "classifier", self.hidden, labels)?;
            b.output("logits", &logits, Float32, &[batch, sequence, &labels.to_string()]);
            return Ok(Task::Classify);
        }
        if class.ends_with("ForMaskedLM") {
            let logits = self.masked(b, hidden)?;
            b.output("logits", &logits, Float32, &[batch, sequence, &self.vocabulary.to_string()]);
            return Ok(Task::FillMask);
        }
        b.output("last_hidden_state", hidden, Float32, &[batch, sequence, &self.hidden.to_string()]);
        Ok(Task::Embed)
    }

    fn classify(&self, b: &mut Builder<'_>, hidden: &str, labels: i64) -> Result<String> {
        let (zero, size) = (b.int(0), self.hidden);
        let first = b.op("Gather", &[hidden, &zero], &[("axis", Attribute::Int(1))]);
        let (inner, outer, kind) = match self.kind {
            Kind::Bert => (self.name("pooler.dense"), "classifier", "tanh"),
            Kind::Roberta => ("classifier.dense".to_owned(), "classifier.out_proj", "tanh"),
            Kind::DistilBert => ("pre_classifier".to_owned(), "classifier", "relu"),
        };
        let pooled = b.linear(&first, &inner, size, size)?;
        let pooled = Activation::named(kind)?.build(b, &pooled)?;
        b.linear(&pooled, outer, size, labels)
    }

    fn masked(&self, b: &mut Builder<'_>, hidden: &str) -> Result<String> {
        let (dense, norm, bias, own) = match self.kind {
            Kind::Bert => (
                "cls.predictions.transform.dense",
                "cls.predictions.transform.LayerNorm",
                "cls.predictions.bias",
                "cls.predictions.decoder.weight",
            ),
            Kind::Roberta => ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.weight"),
            Kind::DistilBert => {
                ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector.weight")
            }
        };
        let activation = if self.kind == Kind::Roberta { Activation::named("gelu")? } else { self.activation };
        let x = b.linear(hidden, dense, self.hidden, self.hidden)?;
        let x = activation.build(b, &x)?;
        let x = b.layer_norm(&x, norm, self.hidden, self.epsilon)?;
        // The head is the embedding table unless the checkpoint has one of its own.
        let tied = self.name("embeddings.word_embeddings.weight");
        let weight = if b.weights.find(own)?.is_some() { own } else { &tied };
        let logits = b.within("head", |b| b.product(&x, weight, self.hidden, self.vocabulary))?;
        b.add_bias(&logits, bias, self.vocabulary)
    }
}

/// 0 where a token is, a number that softmax makes nothing of where padding is: `[batch, 1, 1, sequence]`.
fn additive_mask(b: &mut Builder<'_>, mask: &str) -> String {
    let axes = b.ints(&[1, 2]);
    let mask = b.op("Unsqueeze", &[mask, &axes], &[]);
    let mask = b.op("Cast", &[&mask], &[("to", Attribute::Int(i64::from(Float32.to_onnx())))]);
    let (one, least) = (b.float(1.0), b.float(-1e9));
    let padding = b.op("Sub", &[&one, &mask], &[]);
    b.op("Mul", &[&padding, &least], &[])
}
