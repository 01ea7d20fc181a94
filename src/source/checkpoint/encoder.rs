//! The graphs of encoders: BERT and MiniLM, RoBERTa, XLM-RoBERTa and CamemBERT, DistilBERT, MPNet.
//!
//! One description ([`Names`]) has the weight names of each family and its differences; the layers are built by the
//! same code. Attention is post-norm as in "Attention is all you need". Except for an activation, the graph uses
//! standard operators only, in both dialects: ONNX Runtime's fused attention is not faster here.

use super::activation::Activation;
use super::config::Config;
use super::heads::{self, Head};
use super::sentence::Sentence;
use super::weights::WithTable;
use crate::error::{Result, bail};
use crate::model::Task;
use crate::onnx::dtype::DataType::{Float32, Int64};
use crate::onnx::proto::ModelProto;
use crate::source::Dialect;
use crate::source::builder::{Attribute, Builder};
use crate::source::weights::Weights;

/// The names of the modules of a family. `{}` in `layer` is the layer index.
struct Names {
    /// Prefix of names in a checkpoint saved with a head (`bert.`); bare models have none.
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
const MPNET: Names = Names {
    prefix: "mpnet.",
    query: "attention.attn.q",
    key: "attention.attn.k",
    value: "attention.attn.v",
    attention_out: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    ..BERT
};
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

/// The name of the embedding table, without the prefix of the checkpoint.
pub(super) const WORDS: &str = "embeddings.word_embeddings.weight";

/// The families of encoders, by `model_type`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bert,
    Roberta,
    DistilBert,
    Mpnet,
}

fn kind_of(model_type: &str) -> Option<Kind> {
    match model_type {
        "bert" => Some(Kind::Bert),
        "roberta" | "xlm-roberta" | "camembert" => Some(Kind::Roberta),
        "distilbert" => Some(Kind::DistilBert),
        "mpnet" => Some(Kind::Mpnet),
        _ => None,
    }
}

/// Builds an encoder: with the head that the configuration names or, with `sentence`, without a head but with an output
/// of text vectors. Returns the model and its task.
pub(super) fn build(
    config: &Config<'_>,
    weights: &dyn Weights,
    dialect: Dialect,
    sentence: Option<&Sentence>,
) -> Result<(ModelProto, Task)> {
    let Some(kind) = kind_of(config.text("model_type")?.unwrap_or("")) else {
        bail!(Internal, "the model is not an encoder");
    };
    let head = match sentence {
        Some(_) => Head::Body,
        None => Head::of(config, kind)?,
    };
    let encoder = Encoder::new(kind, config, weights)?;
    let tied = head.has_words() && config.flag("tie_word_embeddings", true)?;
    let output = format!("{}.weight", heads::output_layer(kind));
    let weights = WithTable::new(weights, encoder.name(WORDS), &output, tied)?;
    let mut b = Builder::new("main_graph", &weights, dialect);
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
        None => heads::build(&mut b, &encoder, config, head, &hidden)?,
    };
    Ok((b.finish(), task))
}

/// The description of an encoder.
pub(super) struct Encoder {
    pub kind: Kind,
    names: &'static Names,
    /// Prefix of the names in this checkpoint.
    prefix: &'static str,
    /// Width of the hidden states.
    pub hidden: i64,
    heads: i64,
    layers: i64,
    intermediate: i64,
    /// Number of rows of the token table.
    pub vocabulary: i64,
    positions: i64,
    types: i64,
    /// Epsilon of the normalizations.
    pub epsilon: f32,
    /// Activation of the feed-forward part.
    pub activation: Activation,
    padding: i64,
    /// Whether attention is causal.
    causal: bool,
    /// Number of rows of the table of relative position biases (MPNet).
    buckets: i64,
}

impl Encoder {
    fn new(kind: Kind, config: &Config<'_>, weights: &dyn Weights) -> Result<Encoder> {
        let names = match kind {
            Kind::Bert => &BERT,
            Kind::Roberta => &ROBERTA,
            Kind::DistilBert => &DISTILBERT,
            Kind::Mpnet => &MPNET,
        };
        let mut prefix = "";
        // A tied model may have its words only in the output layer.
        for table in [WORDS, "embeddings.position_embeddings.weight"] {
            if weights.find(&format!("{}{table}", names.prefix))?.is_some() {
                prefix = names.prefix;
            }
        }
        let hidden = config.size_of(&["hidden_size", "dim"])?;
        let heads = config.size_of(&["num_attention_heads", "n_heads"])?;
        if hidden % heads != 0 {
            bail!(InvalidModel, "hidden_size {hidden} is not a multiple of num_attention_heads {heads}");
        }
        let padding = match kind {
            // The code of MPNet uses 1 and ignores the configuration.
            Kind::Mpnet => 1,
            Kind::Roberta => config.needed("pad_token_id")? as i64,
            _ => 0,
        };
        let word = |key: &str| config.word(key).and_then(Activation::named);
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
            types: match kind {
                Kind::Bert | Kind::Roberta => config.size_of(&["type_vocab_size"])?,
                _ => 0,
            },
            epsilon: if kind == Kind::DistilBert { 1e-12 } else { config.needed("layer_norm_eps")? as f32 },
            activation: if kind == Kind::DistilBert { word("activation")? } else { word("hidden_act")? },
            padding,
            causal: matches!(kind, Kind::Bert | Kind::Roberta) && config.flag("is_decoder", false)?,
            buckets: if kind == Kind::Mpnet { config.size_of(&["relative_attention_num_buckets"])? } else { 0 },
        })
    }

    /// Returns the name of a module of the body in the checkpoint.
    pub fn name(&self, module: &str) -> String {
        format!("{}{module}", self.prefix)
    }

    fn hidden_states(&self, b: &mut Builder<'_>, ids: &str, mask: &str) -> Result<String> {
        let mut x = b.within("embeddings", |b| self.embeddings(b, ids))?;
        let mut bias = b.within("attention_mask", |b| Ok(additive_mask(b, mask, self.causal.then_some(ids))))?;
        if self.kind == Kind::Mpnet {
            let by_distance = b.within("encoder.relative_attention_bias", |b| self.distance_bias(b, ids))?;
            bias = b.op("Add", &[&by_distance, &bias], &[]);
        }
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
            // RoBERTa has the table but uses only its first row; callers pass no token types.
            let types = match self.kind {
                Kind::Bert => b.input("token_type_ids", Int64, &["batch", "sequence"]),
                _ => b.int(0),
            };
            let types = b.embedding(&types, &table("token_type_embeddings"), self.types, self.hidden)?;
            sum = b.op("Add", &[&sum, &types], &[]);
        }
        b.layer_norm(&sum, &self.name(self.names.embeddings_norm), self.hidden, self.epsilon)
    }

    /// Adds position ids, and returns their name. BERT counts from 0; RoBERTa and MPNet count the tokens that are not
    /// padding, starting at the padding id + 1.
    fn position_ids(&self, b: &mut Builder<'_>, ids: &str) -> String {
        if !matches!(self.kind, Kind::Roberta | Kind::Mpnet) {
            return columns(b, ids);
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

    /// Adds a projection split into heads, `[batch, sequence, heads, size]`, transposed by `perm`, and returns its
    /// name.
    fn heads_of(&self, b: &mut Builder<'_>, x: &str, module: &str, perm: &[i64]) -> Result<String> {
        let projected = b.linear(x, module, self.hidden, self.hidden)?;
        let shape = b.ints(&[0, 0, self.heads, self.hidden / self.heads]);
        let cut = b.op("Reshape", &[&projected, &shape], &[]);
        Ok(b.op("Transpose", &[&cut], &[("perm", Attribute::Ints(perm))]))
    }

    /// Adds MPNet's relative position bias, `[1, heads, sequence, sequence]`, with a row of the table for each bucket
    /// of distances, and returns its name.
    fn distance_bias(&self, b: &mut Builder<'_>, ids: &str) -> Result<String> {
        const BUCKETS: i64 = 32;
        if self.buckets < BUCKETS {
            bail!(InvalidModel, "relative_attention_num_buckets is {}; MPNet uses {BUCKETS}", self.buckets);
        }
        let far = self.positions - 1;
        let buckets: Vec<i64> = (-far..=far).map(bucket).collect();
        let buckets = b.ints(&buckets);
        let table = self.name("encoder.relative_attention_bias.weight");
        let by_distance = b.embedding(&buckets, &table, self.buckets, self.heads)?;
        let columns = columns(b, ids);
        let (axis, far) = (b.ints(&[1]), b.int(far));
        let rows = b.op("Unsqueeze", &[&columns, &axis], &[]);
        let distance = b.op("Sub", &[&columns, &rows], &[]);
        let index = b.op("Add", &[&distance, &far], &[]);
        let bias = b.op("Gather", &[&by_distance, &index], &[]);
        let bias = b.op("Transpose", &[&bias], &[("perm", Attribute::Ints(&[2, 0, 1]))]);
        let first = b.ints(&[0]);
        Ok(b.op("Unsqueeze", &[&bias, &first], &[]))
    }
}

/// Adds the indices 0, 1 … of the columns of `ids`, and returns their name: int64 `[sequence]`.
fn columns(b: &mut Builder<'_>, ids: &str) -> String {
    let (zero, one) = (b.int(0), b.int(1));
    let shape = b.op("Shape", &[ids], &[]);
    let length = b.op("Gather", &[&shape, &one], &[]);
    b.op("Range", &[&zero, &length, &one], &[])
}

/// Returns the bucket (of 32) of a token at relative position `distance`: 16 for each direction, of which the first 8
/// hold one distance each and the rest grow logarithmically up to 128 (T5, arXiv 1910.10683). It is computed in
/// float32, as in training.
fn bucket(distance: i64) -> i64 {
    let (side, size) = (if distance > 0 { 16 } else { 0 }, distance.abs());
    if size < 8 {
        return side + size;
    }
    let grown = (size as f32 / 8.0).ln() / 16f32.ln() * 8.0;
    side + (8 + grown as i64).min(15)
}

/// Adds the additive mask, and returns its name: 0 for tokens, a large negative number for padding, `[batch, 1, 1,
/// sequence]`; with `ids` also for later tokens, `[batch, 1, sequence, sequence]`.
fn additive_mask(b: &mut Builder<'_>, mask: &str, ids: Option<&str>) -> String {
    let axes = b.ints(&[1, 2]);
    let mask = b.op("Unsqueeze", &[mask, &axes], &[]);
    let mask = b.op("Cast", &[&mask], &[("to", Attribute::Int(i64::from(Float32.to_onnx())))]);
    let (zero, one, least) = (b.float(0.0), b.float(1.0), b.float(-1e9));
    let padding = b.op("Sub", &[&one, &mask], &[]);
    let padding = b.op("Mul", &[&padding, &least], &[]);
    let Some(ids) = ids else { return padding };
    let columns = columns(b, ids);
    let axis = b.ints(&[1]);
    let rows = b.op("Unsqueeze", &[&columns, &axis], &[]);
    let seen = b.op("LessOrEqual", &[&columns, &rows], &[]);
    let later = b.op("Where", &[&seen, &zero, &least], &[]);
    b.op("Add", &[&padding, &later], &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_fall_into_the_buckets_of_mpnet() {
        // The first distance of each bucket from 8 on, from `relative_position_bucket` of transformers.
        let firsts = [8, 12, 16, 23, 32, 46, 64, 91];
        for (index, first) in firsts.into_iter().enumerate() {
            let wanted = 8 + index as i64;
            assert_eq!((bucket(-first), bucket(1 - first)), (wanted, wanted - 1), "{first}");
            assert_eq!((bucket(first), bucket(first - 1)), (16 + wanted, 15 + wanted), "{first}");
        }
        assert_eq!([bucket(0), bucket(-500), bucket(500)], [0, 15, 31]);
    }
}
