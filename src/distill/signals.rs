//! The pairs of values of teacher and student that the loss compares.

use super::options::{LossWeights, Weights};
use super::relations::{self, Attention};
use crate::encoder::LogitKind;
use crate::error::{Result, bail};
use crate::model::{Dim, Model, Task, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::prune::layers_of;

/// A value of the teacher and the corresponding value of the student.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Name of the value in the teacher.
    pub teacher: String,
    /// Name of the value in the student.
    pub student: String,
}

/// The values that are compared.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// Logits of the distributions over tokens or classes.
    pub logits: Option<Pair>,
    /// What these logits are.
    pub kind: LogitKind,
    /// Hidden states: `[batch, token, width]`, or `[batch, width]` for vectors of whole texts.
    pub hidden: Vec<Pair>,
    /// Number of pairs of `hidden` that are model outputs; these come first, the others are outputs of layers. Outputs
    /// and layers have equal weight in the loss, however many there are.
    pub outputs: usize,
    /// Last attention of the teacher and last attention of the student.
    pub relations: Option<(Attention, Attention)>,
    /// Weights of the parts of the loss.
    pub weights: Weights,
}

/// The names of outputs that hold a vector for each token.
const TOKENS: [&str; 2] = ["last_hidden_state", "token_embeddings"];

impl Signals {
    /// Returns the values that are compared, as far as the weights of the loss need them. `labelled` tells whether the
    /// text has classes. Fails with `Unsupported` or `InvalidArgument` if the models do not have the values that a
    /// requested part of the loss compares, or if all weights are 0.
    pub fn find(teacher: &Model, student: &Model, asked: LossWeights, labelled: bool) -> Result<Signals> {
        let logits = match (logits_of(teacher), logits_of(student)) {
            (Some(teacher), Some(student)) => Some(Pair { teacher, student }),
            _ => None,
        };
        let usual = match &logits {
            Some(_) => Weights { logits: 1.0, ..Weights::default() },
            None => Weights { hidden: 1.0, cosine: 1.0, ..Weights::default() },
        };
        let mut weights = asked.or(usual);
        let kind = LogitKind::of(student);
        let mut signals = Signals { logits, kind, weights, ..Signals::default() };
        signals.check_logits(LogitKind::of(teacher), student.card().task, labelled)?;
        if weights.hidden > 0.0 || weights.cosine > 0.0 {
            (signals.hidden, signals.outputs) = hidden(teacher, student);
            if signals.hidden.is_empty() {
                let asked = asked.hidden.is_some() || asked.cosine.is_some();
                match asked || weights.logits + weights.labels + weights.relations == 0.0 {
                    true => bail!(
                        Unsupported,
                        "hidden_weight: the models have neither outputs with hidden states nor layers that can be \
                         compared"
                    ),
                    false => (weights.hidden, weights.cosine) = (0.0, 0.0),
                }
            }
        }
        if weights.relations > 0.0 {
            let (of_teacher, of_student) = (relations::last(teacher), relations::last(student));
            let (Some(of_teacher), Some(of_student)) = (of_teacher, of_student) else {
                bail!(Unsupported, "relations_weight: no attention was found in one of the models");
            };
            signals.relations = Some((of_teacher, of_student));
        }
        if weights.logits + weights.labels + weights.hidden + weights.cosine + weights.relations == 0.0 {
            bail!(InvalidArgument, "all weights of the loss are 0");
        }
        signals.weights = weights;
        Ok(signals)
    }

    /// Fails with `Unsupported` or `InvalidArgument` if the loss needs logits or labels that the models or the text do
    /// not have. `of_teacher` is what the logits of the teacher are, and `task` that of the student.
    fn check_logits(&self, of_teacher: LogitKind, task: Task, labelled: bool) -> Result<()> {
        if self.weights.logits > 0.0 && self.logits.is_none() {
            bail!(Unsupported, "logits_weight: one of the models has no output \"logits\"");
        }
        if self.weights.logits > 0.0 && of_teacher != self.kind {
            bail!(
                InvalidArgument,
                "logits_weight: the logits of the teacher are {}, but those of the student are {}",
                of_teacher.describe(),
                self.kind.describe()
            );
        }
        if self.weights.labels > 0.0 {
            match task {
                Task::Generate | Task::Classify if self.logits.is_none() => {
                    bail!(Unsupported, "labels_weight: one of the models has no output \"logits\"")
                }
                Task::Generate => {}
                Task::Classify if self.kind != LogitKind::Classes => bail!(
                    Unsupported,
                    "labels_weight: a label of the text is one class, but the logits of the student are {}: train on \
                     those of a teacher (logits_weight)",
                    self.kind.describe()
                ),
                Task::Classify if labelled => {}
                Task::Classify => {
                    bail!(InvalidArgument, "labels_weight: the text has no classes (\"label\" in .jsonl)")
                }
                _ => bail!(Unsupported, "labels_weight applies only to text generation and classification"),
            }
        }
        Ok(())
    }
}

/// Returns the name of the output with the logits of tokens or classes, `logits`; `None` if there is none in float32 or
/// float16.
pub fn logits_of(model: &Model) -> Option<String> {
    let float = |info: &&ValueInfo| matches!(info.dtype, Some(DataType::Float32 | DataType::Float16));
    model.outputs().iter().filter(float).find(|info| info.name == "logits").map(|info| info.name.clone())
}

/// Returns the pairs of model outputs followed by the pairs of layer outputs, and the number of pairs of model outputs.
fn hidden(teacher: &Model, student: &Model) -> (Vec<Pair>, usize) {
    let both = |rank: usize| Some(Pair { teacher: vectors(teacher, rank)?, student: vectors(student, rank)? });
    let mut pairs: Vec<Pair> = [3, 2].into_iter().filter_map(both).collect();
    let outputs = pairs.len();
    if let (Some(of_teacher), Some(of_student)) = (layers_of(teacher), layers_of(student)) {
        let (many, few) = (of_teacher.len(), of_student.len());
        // The last layer is omitted if the models' outputs are compared, because its output is that of the model or
        // leads directly to it.
        let matched = few - usize::from(outputs > 0 && few > 0);
        for (index, student) in of_student.into_iter().enumerate().take(matched) {
            let matching = ((index + 1) * many / few.max(1)).max(1) - 1;
            if let Some(teacher) = of_teacher.get(matching) {
                pairs.push(Pair { teacher: teacher.clone(), student });
            }
        }
    }
    (pairs, outputs)
}

/// Returns the name of the output with a vector for each token (3 dimensions) or for each text (2); `None` if there is
/// none of known width.
fn vectors(model: &Model, rank: usize) -> Option<String> {
    let outputs = model.outputs();
    let fits = |info: &&ValueInfo| {
        let shape = info.shape.as_deref().unwrap_or_default();
        info.name != "logits"
            && info.dtype == Some(DataType::Float32)
            && shape.len() == rank
            && matches!(shape.last(), Some(Dim::Fixed(_)))
    };
    let named = TOKENS.iter().find_map(|name| outputs.iter().filter(fits).find(|info| info.name == *name));
    named.or_else(|| outputs.iter().find(fits)).map(|info| info.name.clone())
}
