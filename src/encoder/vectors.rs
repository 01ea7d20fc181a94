//! The vectors of texts: an output of the model, or pooled from an output with token vectors.

use super::batches::Batches;
use super::outputs::{is_classifier, is_scores};
use crate::call::Units;
use crate::error::{Context, Result, bail};
use crate::inputs::plain_name;
use crate::model::{Card, Dim, Format, Model, Pooling, Task, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::runtime::{Session, Tensor};
use crate::source::checkpoint::pooling::by_hand;
use crate::source::checkpoint::sentence::{Sentence, Steps};
use crate::statistics::dot;
use crate::text::Tokenizer;

/// The names of outputs with token vectors.
const TOKENS: &[&str] = &["token_embeddings", "last_hidden_state"];

/// The vectors of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Elements of the vectors row by row, `texts × width`; normalized only if the model does so, or the options of an
    /// [`Embedder`](super::Embedder) request it.
    pub values: Vec<f32>,
    /// Number of elements of a vector.
    pub width: usize,
    /// Name of the model's output from which the vectors were computed.
    pub output: String,
    /// Pooling of the token vectors; `None` if the model outputs one vector per text.
    pub pooling: Option<Pooling>,
}

/// The output of a model from which vectors are computed, and the steps of the computation.
pub struct Vectors {
    output: String,
    /// Pooling of the output; `None` if it has one vector per text.
    pooling: Option<Pooling>,
    /// Steps that the model's folder declares for its token vectors (pooling, dense layers, normalization); `None` if
    /// it declares none, or if the output has one vector per text.
    steps: Option<Steps>,
    /// Number of elements to keep of each vector, by the model's `config_sentence_transformers.json` (`truncate_dim`);
    /// `None` if it keeps all, or if the caller says how many to keep.
    usual: Option<usize>,
    /// Number of elements to keep that the caller requests; 0 for the usual number.
    dimensions: usize,
}

impl Vectors {
    /// Returns the output of a session's model from which vectors are computed, and the steps. See [`output_of`] for
    /// the selection of the output.
    ///
    /// If the graph excludes the tokens of the default prompt and `tokenizer` has another prompt, the vectors are
    /// computed from the output with token vectors, in memory. Fails with [`crate::error::Kind::Unsupported`] if the
    /// model outputs no vectors, or no token vectors in that case. Fails with `InvalidModel` if a file of
    /// sentence-transformers is damaged.
    pub fn of(session: &Session, model: &Model, tokenizer: &Tokenizer) -> Result<Vectors> {
        let card = model.card();
        // The session's outputs are used, because ONNX Runtime infers shapes that the model does not declare.
        let (mut output, mut pooling) = output_of(session.outputs(), model)?;
        let sentence = Sentence::of(card)?;
        let excluded = sentence.as_ref().is_some_and(Sentence::excludes_prompt);
        if excluded && pooling.is_none() && tokenizer.has_own_prompt() {
            let Some(info) = named(session.outputs(), TOKENS) else {
                bail!(
                    Unsupported,
                    "the prompt cannot be chosen: the graph leaves the tokens of the default prompt out when it pools, \
                     and has no output with token vectors (`last_hidden_state`)"
                );
            };
            (output, pooling) = (info.name.clone(), Some(card.pooling.unwrap_or_default()));
        }
        let steps = match (pooling, sentence) {
            (Some(_), Some(sentence)) => Some(sentence.with_prompt_of(tokenizer)?.by_hand(card)?),
            _ => None,
        };
        Ok(Vectors { output, pooling, steps, usual: usual_dimensions(card)?, dimensions: 0 })
    }

    /// Returns the computation of vectors of which the first `dimensions` elements are kept; 0 keeps as many as the
    /// model's files say (`truncate_dim`), otherwise all.
    pub fn with_dimensions(self, dimensions: usize) -> Vectors {
        Vectors { dimensions, ..self }
    }

    /// Returns the vectors of the texts of `batches`, and counts the texts in `units`. Fails with `Unsupported` if the
    /// output does not have the shape of vectors, `InvalidArgument` if the vectors have fewer elements than the caller
    /// requests, `Runtime` if an element is not finite, and otherwise like [`Batches::rows`].
    pub fn run(&self, batches: &Batches<'_>, session: &Session, units: &mut Units<'_>) -> Result<Embeddings> {
        let Vectors { output, pooling, steps, .. } = self;
        let join = pooling.map(|pooling| (pooling, steps.as_ref()));
        let (values, width) = batches.rows(session, output, units, |tensor, keep, texts| {
            vectors(tensor, join, keep, texts).at(|| format!("output {output:?}"))
        })?;
        if let Some(broken) = values.iter().position(|value| !value.is_finite()) {
            bail!(Runtime, "the vector of text {} has an element that is not finite", broken / width + 1);
        }
        let mut found = Embeddings { values, width, output: output.clone(), pooling: *pooling };
        match (self.dimensions, self.usual) {
            (0, Some(usual)) => found.shorten(usual.min(width))?,
            (asked, _) => found.shorten(asked)?,
        }
        Ok(found)
    }
}

/// Returns the number of elements of a vector that `config_sentence_transformers.json` keeps (`truncate_dim`); `None`
/// if it keeps all. Fails with `InvalidModel` if it is not a positive integer.
pub(crate) fn usual_dimensions(card: &Card) -> Result<Option<usize>> {
    let name = "config_sentence_transformers.json";
    let config = card.object(name)?;
    let Some(value) = config.get("truncate_dim").filter(|value| !value.is_null()) else { return Ok(None) };
    match value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0) {
        Some(size) => Ok(Some(size)),
        None => bail!(InvalidModel, "{name}: truncate_dim is {value}, not a number of elements"),
    }
}

impl Embeddings {
    /// Keeps only the first `dimensions` elements of each vector; 0 keeps all. Fails with `InvalidArgument` if a vector
    /// has fewer.
    fn shorten(&mut self, dimensions: usize) -> Result<()> {
        if dimensions > self.width {
            bail!(InvalidArgument, "dimensions is {dimensions}, but the vectors have {} elements", self.width);
        }
        if dimensions != 0 {
            self.values = self.values.chunks_exact(self.width).flat_map(|row| &row[..dimensions]).copied().collect();
            self.width = dimensions;
        }
        Ok(())
    }

    /// Returns the elements of the vectors normalized to length 1, row by row; a zero vector stays zero.
    pub fn unit(&self) -> Vec<f64> {
        let row = |row: &[f32]| {
            let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let norm = dot(&row, &row).sqrt();
            row.into_iter().map(|x| if norm > 0.0 { x / norm } else { 0.0 }).collect::<Vec<f64>>()
        };
        self.values.chunks_exact(self.width).flat_map(row).collect()
    }
}

/// Returns the name of the output from which vectors are computed, and how its token vectors are pooled: as the card
/// says (default: mean), or `None` if the output has one vector per text.
///
/// The output is `sentence_embedding`; otherwise `token_embeddings` or `last_hidden_state`; otherwise the first output
/// with two dimensions; otherwise the first with three. An output that is selected by its dimensions has a fixed last
/// dimension above 1 and no scores, and its name contains neither `logits` nor `pooler`. If the configuration names a
/// class for classification, the name must contain `embed`; if the model's task is classification, no output with two
/// dimensions is selected. Only outputs of float32, float16 or bfloat16 count. Fails with `Unsupported` if there is
/// none.
pub(crate) fn output_of(outputs: &[ValueInfo], model: &Model) -> Result<(String, Option<Pooling>)> {
    let card = model.card();
    let classifier = is_classifier(card);
    let rank = |info: &ValueInfo| info.shape.as_ref().map_or(0, Vec::len);
    // Vectors have a fixed last dimension above 1, unlike lengths of texts or one score per text; scores of classes are
    // excluded below.
    let wide =
        |info: &ValueInfo| info.shape.as_ref().is_some_and(|s| matches!(s.last(), Some(Dim::Fixed(n)) if *n > 1));
    let shaped = |wanted: usize| {
        let other = |info: &&ValueInfo| !info.name.contains("logits") && !info.name.contains("pooler");
        let vectors = |info: &&ValueInfo| !classifier || info.name.contains("embed");
        let mut found = outputs.iter().filter(is_float).filter(other).filter(vectors);
        found.find(|info| rank(info) == wanted && wide(info) && !is_scores(model, &info.name))
    };
    let pooling = Some(card.pooling.unwrap_or_default());
    if let Some(info) = named(outputs, &["sentence_embedding"]) {
        return Ok((info.name.clone(), None));
    }
    if let Some(info) = named(outputs, TOKENS) {
        return Ok((info.name.clone(), pooling));
    }
    if let Some(info) = shaped(2).filter(|_| card.task != Task::Classify) {
        return Ok((info.name.clone(), None));
    }
    if let Some(info) = shaped(3) {
        return Ok((info.name.clone(), pooling));
    }
    let names: Vec<&str> = outputs.iter().map(|info| info.name.as_str()).take(8).collect();
    bail!(
        Unsupported,
        "the model has no output with vectors of texts (`sentence_embedding`, `last_hidden_state`); its outputs are \
         {}{}",
        names.join(", "),
        without_head(card)
    )
}

/// Returns the advice to load an encoder without its head, as the end of a message; empty if the model is not a
/// checkpoint of an encoder with a head.
fn without_head(card: &Card) -> String {
    let class = card.config.get("architectures").and_then(|classes| classes.get(0)).and_then(|class| class.as_str());
    let encodes = card.format == Format::Checkpoint && card.task != Task::Generate;
    let bare = class.filter(|_| encodes).and_then(|class| class.split_once("For"));
    bare.map_or_else(String::new, |(family, head)| {
        format!(
            ". To embed texts with the encoder without its head (For{head}), set \"architectures\" in config.json to \
             [\"{family}Model\"]"
        )
    })
}

fn is_float(info: &&ValueInfo) -> bool {
    matches!(info.dtype, Some(DataType::Float32 | DataType::Float16 | DataType::Bfloat16))
}

/// Returns the first float output with one of these names.
fn named<'a>(outputs: &'a [ValueInfo], names: &[&str]) -> Option<&'a ValueInfo> {
    outputs.iter().filter(is_float).find(|info| names.contains(&plain_name(&info.name)))
}

/// Returns the vectors of the first `texts` rows of an output: unchanged without `join`, otherwise computed from the
/// tokens that `keep` marks, by the steps of the model's folder, or by pooling if there are no steps.
fn vectors(tensor: &Tensor, join: Option<(Pooling, Option<&Steps>)>, keep: &[bool], texts: usize) -> Result<Vec<f32>> {
    let values = tensor.to_f32_vec()?;
    let Some((pooling, steps)) = join else {
        let &[rows, width] = tensor.shape() else {
            bail!(Unsupported, "the output has shape {:?}, not [texts, width]", tensor.shape());
        };
        if (rows as usize) < texts {
            bail!(Unsupported, "the output has {rows} rows for {texts} texts");
        }
        return Ok(values[..texts * width as usize].to_vec());
    };
    let &[rows, tokens, width] = tensor.shape() else {
        bail!(Unsupported, "the output has shape {:?}, not [texts, tokens, width]", tensor.shape());
    };
    let (rows, tokens, width) = (rows as usize, tokens as usize, width as usize);
    if rows < texts || keep.len() != rows * tokens || width == 0 {
        bail!(
            Unsupported,
            "the output has shape {:?} for {texts} texts of {} tokens in all",
            tensor.shape(),
            keep.len()
        );
    }
    let row = |text: usize| {
        let kept: Vec<&[f32]> = (text * tokens..(text + 1) * tokens)
            .filter(|token| keep[*token])
            .map(|token| &values[token * width..(token + 1) * width])
            .collect();
        match steps {
            Some(steps) => steps.run(&kept, width),
            None => Ok(by_hand(pooling, &kept, 0, width)),
        }
    };
    Ok((0..texts).map(row).collect::<Result<Vec<_>>>()?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_pooled_without_padding() {
        let tensor = Tensor::from_f32(&[2, 2, 2], vec![1.0, 2.0, 3.0, 6.0, 5.0, 4.0, 9.0, 9.0]).unwrap();
        let keep = [true, true, true, false];
        let of = |pooling| vectors(&tensor, Some((pooling, None)), &keep, 2).unwrap();
        assert_eq!(of(Pooling::Mean), [2.0, 4.0, 5.0, 4.0]);
        assert_eq!(of(Pooling::Cls), [1.0, 2.0, 5.0, 4.0]);
        assert_eq!(of(Pooling::LastToken), [3.0, 6.0, 5.0, 4.0]);
        assert_eq!(of(Pooling::Max), [3.0, 6.0, 5.0, 4.0]);
        assert!(
            vectors(&tensor, None, &keep, 2).is_err()
                && vectors(&tensor, Some((Pooling::Mean, None)), &keep[..3], 2).is_err()
        );
        let flat = Tensor::from_f32(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(vectors(&flat, None, &[], 1).unwrap(), [1.0, 2.0]);
    }

    /// Returns the output with vectors of a model with an output of two dimensions, and a configuration with this
    /// class.
    fn selected(op: &str, output: &str, class: &str) -> Result<(String, Option<Pooling>)> {
        use crate::graph::edit::{node, value};
        use crate::onnx::proto::{GraphProto, ModelProto};
        let node = vec![node(op, &["x"], &[output])];
        let graph = GraphProto { node, output: vec![value(output, DataType::Float32, 2)], ..GraphProto::default() };
        let config = serde_json::json!({ "architectures": [class] }).as_object().cloned().unwrap();
        let card = Card { config, ..Card::default() };
        let proto = ModelProto { graph: Some(Box::new(graph)), ..ModelProto::default() };
        let shape = Some(vec![Dim::Symbolic("batch".to_owned()), Dim::Fixed(3)]);
        let info = ValueInfo { name: output.to_owned(), dtype: Some(DataType::Float32), shape };
        output_of(&[info], &Model::from_memory(proto, card, Vec::new()))
    }

    #[test]
    fn scores_and_outputs_of_classifiers_are_not_vectors() {
        assert_eq!(selected("Tanh", "output_0", "BertModel").unwrap(), ("output_0".to_owned(), None));
        let advice = without_head(&Card {
            config: serde_json::json!({ "architectures": ["BertForMaskedLM"] }).as_object().cloned().unwrap(),
            format: Format::Checkpoint,
            task: Task::FillMask,
            ..Card::default()
        });
        assert!(advice.contains("(ForMaskedLM)") && advice.ends_with("to [\"BertModel\"]"), "{advice}");
        for (op, output, class) in [
            ("Softmax", "output_0", "BertModel"),
            ("Tanh", "probabilities", "BertModel"),
            ("Tanh", "output_0", "BertForSequenceClassification"),
        ] {
            let error = selected(op, output, class).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Unsupported, "{op} {output} {class}");
        }
        assert!(selected("Tanh", "embeddings", "BertForSequenceClassification").is_ok());
    }

    #[test]
    fn the_number_of_elements_is_that_of_the_file() {
        use crate::model::{SideContent, SideFile};
        let of = |content: &'static str| {
            let name = "config_sentence_transformers.json".to_owned();
            let file = SideFile { name, content: SideContent::Bytes(content.as_bytes().into()) };
            usual_dimensions(&Card { side_files: vec![file], ..Card::default() })
        };
        assert_eq!(of(r#"{"truncate_dim": 8}"#).unwrap(), Some(8));
        assert_eq!((of(r#"{"truncate_dim": null}"#).unwrap(), of("{}").unwrap()), (None, None));
        assert!(of(r#"{"truncate_dim": 0}"#).is_err() && of(r#"{"truncate_dim": "8"}"#).is_err());
    }
}
