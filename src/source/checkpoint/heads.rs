//! The heads of encoders, by the class that a configuration names.

use super::activation::Activation;
use super::config::Config;
use super::encoder::{Encoder, Kind, WORDS};
use super::weights::head_or_table;
use crate::error::{Result, bail};
use crate::model::Task;
use crate::onnx::dtype::DataType::Float32;
use crate::source::builder::{Attribute, Builder};

/// The head of an encoder, which computes the outputs from its hidden states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// No head: the outputs are hidden states.
    Body,
    Sequence,
    Tokens,
    Masked,
    /// A head that finds the start and the end of an answer.
    Question,
    /// A head that decides whether a text follows another.
    Next,
    /// The heads [`Head::Masked`] and [`Head::Next`] together.
    Pretraining,
    /// A head that predicts the next token.
    Causal,
}

/// The suffixes of class names with their heads, and whether only BERT has the head.
const CLASSES: [(&str, Head, bool); 8] = [
    ("ForSequenceClassification", Head::Sequence, false),
    ("ForTokenClassification", Head::Tokens, false),
    ("ForMaskedLM", Head::Masked, false),
    ("ForQuestionAnswering", Head::Question, false),
    ("ForNextSentencePrediction", Head::Next, true),
    ("ForPreTraining", Head::Pretraining, true),
    ("ForCausalLM", Head::Causal, false),
    ("LMHeadModel", Head::Causal, false),
];

impl Head {
    /// Returns the head of the first class in `architectures`. Fails with [`crate::error::Kind::Unsupported`] for an
    /// unsupported head: the model without it would be a different one.
    pub fn of(config: &Config<'_>, kind: Kind) -> Result<Head> {
        let class = config.architectures().first().copied().unwrap_or("");
        let fits = |head: Head, bert: bool| match head {
            Head::Causal => matches!(kind, Kind::Bert | Kind::Roberta),
            _ => !bert || kind == Kind::Bert,
        };
        let found = CLASSES.iter().find(|(end, head, bert)| class.ends_with(end) && fits(*head, *bert));
        match found {
            Some((_, head, _)) => Ok(*head),
            None if class.contains("For") || class.ends_with("HeadModel") => {
                let known: Vec<&str> =
                    CLASSES.iter().filter(|(_, head, bert)| fits(*head, *bert)).map(|(end, ..)| *end).collect();
                bail!(Unsupported, "the head of {class} is not supported; supported: {}", known.join(", "))
            }
            None => Ok(Head::Body),
        }
    }

    /// Returns whether the head has logits over the vocabulary.
    pub fn has_words(self) -> bool {
        matches!(self, Head::Masked | Head::Causal | Head::Pretraining)
    }
}

/// Returns the name of the output layer over the vocabulary in the checkpoints of a family.
pub(super) fn output_layer(kind: Kind) -> &'static str {
    match kind {
        Kind::Bert => "cls.predictions.decoder",
        Kind::Roberta | Kind::Mpnet => "lm_head.decoder",
        Kind::DistilBert => "vocab_projector",
    }
}

/// Adds a head and its outputs, and returns the task of the model.
pub(super) fn build(b: &mut Builder<'_>, e: &Encoder, config: &Config<'_>, head: Head, hidden: &str) -> Result<Task> {
    let (batch, sequence) = ("batch", "sequence");
    let vocabulary = e.vocabulary.to_string();
    let of_tokens = [batch, sequence, &vocabulary];
    Ok(match head {
        Head::Body => {
            b.output("last_hidden_state", hidden, Float32, &[batch, sequence, &e.hidden.to_string()]);
            Task::Embed
        }
        Head::Sequence => {
            let labels = labels(config)?;
            let logits = classify(b, e, hidden, labels)?;
            b.output("logits", &logits, Float32, &[batch, &labels.to_string()]);
            Task::Classify
        }
        Head::Tokens => {
            let labels = labels(config)?;
            let logits = b.linear(hidden, "classifier", e.hidden, labels)?;
            b.output("logits", &logits, Float32, &[batch, sequence, &labels.to_string()]);
            Task::Classify
        }
        Head::Masked | Head::Causal => {
            let logits = words(b, e, config, hidden)?;
            b.output("logits", &logits, Float32, &of_tokens);
            match head {
                Head::Masked => Task::FillMask,
                // Models that need token types do not generate text.
                _ if e.kind == Kind::Bert => Task::Unknown,
                _ => Task::Generate,
            }
        }
        Head::Question => {
            question(b, e, config, hidden)?;
            Task::Unknown
        }
        Head::Next => {
            let logits = next(b, e, hidden)?;
            b.output("logits", &logits, Float32, &[batch, "2"]);
            Task::Classify
        }
        Head::Pretraining => {
            let (predictions, next) = (words(b, e, config, hidden)?, next(b, e, hidden)?);
            b.output("prediction_logits", &predictions, Float32, &of_tokens);
            b.output("seq_relationship_logits", &next, Float32, &[batch, "2"]);
            Task::Unknown
        }
    })
}

/// Returns the number of classes: that of their names (`id2label`), otherwise `num_labels`, otherwise 2.
fn labels(config: &Config<'_>) -> Result<i64> {
    match config.value("id2label").and_then(|v| v.as_object()) {
        Some(map) if !map.is_empty() => Ok(map.len() as i64),
        _ => Ok(config.size("num_labels")?.unwrap_or(2)),
    }
}

/// Adds a layer that is applied to the first token, and returns the name of its output.
fn first(b: &mut Builder<'_>, e: &Encoder, hidden: &str, module: &str, activation: &str) -> Result<String> {
    let zero = b.int(0);
    let first = b.op("Gather", &[hidden, &zero], &[("axis", Attribute::Int(1))]);
    let pooled = b.linear(&first, module, e.hidden, e.hidden)?;
    Activation::named(activation)?.build(b, &pooled)
}

fn classify(b: &mut Builder<'_>, e: &Encoder, hidden: &str, labels: i64) -> Result<String> {
    let (inner, outer, activation) = match e.kind {
        Kind::Bert => (e.name("pooler.dense"), "classifier", "tanh"),
        Kind::Roberta | Kind::Mpnet => ("classifier.dense".to_owned(), "classifier.out_proj", "tanh"),
        Kind::DistilBert => ("pre_classifier".to_owned(), "classifier", "relu"),
    };
    let pooled = first(b, e, hidden, &inner, activation)?;
    b.linear(&pooled, outer, e.hidden, labels)
}

fn next(b: &mut Builder<'_>, e: &Encoder, hidden: &str) -> Result<String> {
    let pooled = first(b, e, hidden, &e.name("pooler.dense"), "tanh")?;
    b.linear(&pooled, "cls.seq_relationship", e.hidden, 2)
}

fn question(b: &mut Builder<'_>, e: &Encoder, config: &Config<'_>, hidden: &str) -> Result<()> {
    let labels = labels(config)?;
    if labels != 2 {
        bail!(
            InvalidModel,
            "the configuration has {labels} labels, but a model for question answering has 2: start and end"
        );
    }
    let logits = b.linear(hidden, "qa_outputs", e.hidden, 2)?;
    for (index, name) in ["start_logits", "end_logits"].into_iter().enumerate() {
        let index = b.int(index as i64);
        let part = b.op("Gather", &[&logits, &index], &[("axis", Attribute::Int(-1))]);
        b.output(name, &part, Float32, &["batch", "sequence"]);
    }
    Ok(())
}

/// Adds the logits over the vocabulary for each token, and returns their name.
fn words(b: &mut Builder<'_>, e: &Encoder, config: &Config<'_>, hidden: &str) -> Result<String> {
    // The names of the dense layer and its norm, and that of the output layer's bias in an older format.
    let (dense, norm, beside) = match e.kind {
        Kind::Bert => {
            ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias")
        }
        Kind::Roberta | Kind::Mpnet => ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
        Kind::DistilBert => ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
    };
    let head = output_layer(e.kind);
    let activation = match e.kind {
        Kind::Roberta | Kind::Mpnet => Activation::named("gelu")?,
        _ => e.activation,
    };
    let x = b.linear(hidden, dense, e.hidden, e.hidden)?;
    let x = activation.build(b, &x)?;
    let x = b.layer_norm(&x, norm, e.hidden, e.epsilon)?;
    let (own, table) = (format!("{head}.weight"), e.name(WORDS));
    let weight = match config.flag("tie_word_embeddings", true)? {
        true => head_or_table(b.weights, &own, &table)?.to_owned(),
        false => own,
    };
    let logits = b.within("head", |b| b.product(&x, &weight, e.hidden, e.vocabulary))?;
    let own = format!("{head}.bias");
    let bias = if b.weights.find(&own)?.is_some() { &own } else { beside };
    b.add_bias(&logits, bias, e.vocabulary)
}
