//! The function that converts the logits of a classifier to scores, according to the options and the model's files.

use super::outputs::{computes_scores, is_scores, names_scores};
use crate::choice::choice;
use crate::error::{Result, bail};
use crate::likelihood::log_sum_exp;
use crate::model::{Card, Dim, Model, Task, ValueInfo};
use serde_json::Value;

choice! {
    /// The function that converts the logits of a classifier to scores.
    pub enum ScoreFunction: optimize_score_function_t = Auto {
        /// The function of the model, by the first rule that applies. If a softmax or sigmoid of the graph computes the
        /// output, or if the output's name contains `prob` or `scores`, its values are scores already, and no function
        /// is applied. A CrossEncoder of sentence-transformers names its function (`activation_fn`, or in older files
        /// `sbert_ce_default_activation_function`). `problem_type` of the configuration selects none for `regression`,
        /// and sigmoid for `multi_label_classification` (classes do not exclude each other). Otherwise sigmoid is
        /// applied if the model has one class, and softmax if it has several.
        Auto = 0, "auto";
        /// Softmax: the scores of a text are at least 0, and their sum is 1.
        Softmax = 1, "softmax";
        /// Sigmoid: each score is between 0 and 1.
        Sigmoid = 2, "sigmoid";
        /// No function: the scores are the values of the model's output.
        None = 3, "none";
    }
}

/// A function of the logits of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Identity,
    Sigmoid,
    Softmax,
    Tanh,
}

/// The functions of PyTorch by the name of their class.
const CLASSES: [(&str, Function); 4] = [
    ("Identity", Function::Identity),
    ("Sigmoid", Function::Sigmoid),
    ("Softmax", Function::Softmax),
    ("Tanh", Function::Tanh),
];

impl Function {
    /// Returns the function for the output `output` of a model; `None` if it depends on the number of classes. Fails
    /// with [`crate::error::Kind::Unsupported`] if the files of the model name an unknown function, and with
    /// `InvalidModel` if a file is damaged.
    pub fn of(model: &Model, output: &str, given: ScoreFunction) -> Result<Option<Function>> {
        Ok(match given {
            ScoreFunction::Softmax => Some(Function::Softmax),
            ScoreFunction::Sigmoid => Some(Function::Sigmoid),
            ScoreFunction::None => Some(Function::Identity),
            ScoreFunction::Auto if is_scores(model, output) => Some(Function::Identity),
            ScoreFunction::Auto => match declared(model.card())? {
                Some(declared) => Some(declared),
                None => by_problem(model.card()),
            },
        })
    }

    /// Returns the function of a model whose files select none.
    pub fn usual(classes: usize) -> Function {
        if classes == 1 { Function::Sigmoid } else { Function::Softmax }
    }

    /// Converts the logits of a text to scores, in place.
    pub fn apply(self, row: &mut [f32]) {
        match self {
            Function::Identity => {}
            Function::Sigmoid => row.iter_mut().for_each(|x| *x = (1.0 / (1.0 + (-f64::from(*x)).exp())) as f32),
            Function::Tanh => row.iter_mut().for_each(|x| *x = f64::from(*x).tanh() as f32),
            Function::Softmax => {
                let norm = log_sum_exp(row);
                row.iter_mut().for_each(|x| *x = (f64::from(*x) - norm).exp() as f32);
            }
        }
    }
}

/// Returns the function that the files of a CrossEncoder of sentence-transformers name, in the order of priority of
/// that library; `None` if they name none.
fn declared(card: &Card) -> Result<Option<Function>> {
    const FILE: &str = "config_sentence_transformers.json";
    let saved = card.object(FILE)?;
    let nested = card.config.get("sentence_transformers").and_then(|own| own.get("activation_fn"));
    // A nested key hides the older one even if it is null.
    let older = card.config.get("sbert_ce_default_activation_function").filter(|_| nested.is_none());
    let places = [
        (saved.get("activation_fn"), FILE, "activation_fn"),
        (nested, "config.json", "sentence_transformers.activation_fn"),
        (older, "config.json", "sbert_ce_default_activation_function"),
    ];
    let Some((value, file, key)) =
        places.into_iter().find_map(|(value, file, key)| Some((value.filter(|v| !v.is_null())?, file, key)))
    else {
        return Ok(None);
    };
    let name = value.as_str().unwrap_or("");
    let class = name.strip_prefix("torch.").and_then(|rest| rest.rsplit('.').next());
    match CLASSES.iter().find(|(known, _)| class == Some(*known)) {
        Some((_, function)) => Ok(Some(*function)),
        None => bail!(
            Unsupported,
            "{file}: {key} is {value}, which is not known as the function of the scores (Identity, Sigmoid, Softmax or \
             Tanh of torch.nn): select another score function"
        ),
    }
}

/// What the logits of a classifier are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogitKind {
    /// Logits of classes, or of tokens, that exclude each other: those of one distribution (softmax).
    #[default]
    Classes,
    /// Logits of labels that do not exclude each other: each label has a probability of its own (sigmoid).
    Labels,
    /// Numbers: those of a regression, the only logit of a model, such as a reranker, or scores of an unknown function.
    Numbers,
}

impl LogitKind {
    /// Returns what the logits of a model are. Models that do not classify have logits of tokens.
    pub fn of(model: &Model) -> LogitKind {
        match model.card().task {
            Task::Generate | Task::FillMask | Task::Embed => LogitKind::Classes,
            _ => LogitKind::of_classifier(model),
        }
    }

    /// Returns what the output of a model that classifies has, and whether it has scores (the probabilities of classes
    /// or labels) instead of their logits.
    pub fn with_scores(model: &Model) -> (LogitKind, bool) {
        let Some(output) = output_of(model) else { return (LogitKind::of_classifier(model), false) };
        let is_named = names_scores(&output.name);
        match computes_scores(model, &output.name) {
            Some(op) if op.ends_with("Sigmoid") => (LogitKind::Labels, true),
            Some(_) => (LogitKind::Classes, true),
            None if is_named && !output.name.to_lowercase().contains("prob") => (LogitKind::Numbers, true),
            None => (LogitKind::of_classifier(model), is_named),
        }
    }

    fn of_classifier(model: &Model) -> LogitKind {
        let card = model.card();
        match by_problem(card).or_else(|| declared(card).ok().flatten()) {
            Some(Function::Sigmoid) if count_of(model) != Some(1) => LogitKind::Labels,
            _ if count_of(model) == Some(1) => LogitKind::Numbers,
            // A CrossEncoder that names Identity may have classes: this is the default of its library for several.
            Some(Function::Identity) if by_problem(card).is_some() => LogitKind::Numbers,
            _ => LogitKind::Classes,
        }
    }

    /// Returns the words for these logits in messages.
    pub fn describe(self) -> &'static str {
        match self {
            LogitKind::Classes => "classes that exclude each other",
            LogitKind::Labels => "labels that do not exclude each other (multi_label_classification)",
            LogitKind::Numbers => "numbers (one logit, a regression, or scores of an unknown function)",
        }
    }
}

/// Returns the output `logits` of a model, or its only output.
fn output_of(model: &Model) -> Option<ValueInfo> {
    let mut outputs = model.outputs();
    match outputs.iter().position(|info| info.name == "logits") {
        Some(index) => Some(outputs.swap_remove(index)),
        None => outputs.pop().filter(|_| outputs.is_empty()),
    }
}

/// Returns the number of logits for a text or token; `None` if neither the graph nor the configuration says it.
fn count_of(model: &Model) -> Option<usize> {
    match output_of(model).and_then(|info| info.shape?.pop()) {
        Some(Dim::Fixed(size)) => usize::try_from(size).ok(),
        _ => Some(model.card().class_names().len()).filter(|count| *count > 0),
    }
}

fn by_problem(card: &Card) -> Option<Function> {
    match card.config.get("problem_type").and_then(Value::as_str) {
        Some("regression") => Some(Function::Identity),
        Some("multi_label_classification") => Some(Function::Sigmoid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SideContent, SideFile};
    use serde_json::json;

    #[test]
    fn scores_are_those_by_hand() {
        let of = |function: Function, logits: &[f32]| {
            let mut row = logits.to_vec();
            function.apply(&mut row);
            row
        };
        assert_eq!(of(Function::Identity, &[2.0, -1.0]), [2.0, -1.0]);
        assert_eq!(of(Function::Sigmoid, &[0.0, f32::NEG_INFINITY]), [0.5, 0.0]);
        assert_eq!(of(Function::Tanh, &[0.0, 1.0]), [0.0, 0.761_594_2]);
        let softmax = of(Function::Softmax, &[1000.0, 1000.0 + 3f32.ln()]);
        assert!((softmax[0] - 0.25).abs() < 1e-4 && (softmax[1] - 0.75).abs() < 1e-4, "{softmax:?}");
        assert_eq!((Function::usual(1), Function::usual(2)), (Function::Sigmoid, Function::Softmax));
    }

    /// Returns the function that a configuration and a `config_sentence_transformers.json` select.
    fn of(config: Value, saved: Option<Value>, given: ScoreFunction) -> Result<Option<Function>> {
        let file = |value: Value| SideFile {
            name: "config_sentence_transformers.json".to_owned(),
            content: SideContent::Bytes(value.to_string().into()),
        };
        let config = config.as_object().cloned().unwrap();
        let card = Card { config, side_files: saved.map(file).into_iter().collect(), ..Card::default() };
        Function::of(&Model::from_memory(Default::default(), card, Vec::new()), "logits", given)
    }

    #[test]
    fn the_function_is_that_of_the_cross_encoder_before_that_of_the_problem() {
        let auto = |config, saved| of(config, saved, ScoreFunction::Auto).unwrap();
        let (identity, sigmoid) = ("torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid");
        let nested = json!({ "sentence_transformers": { "activation_fn": identity, "version": "5.0.0" } });
        assert_eq!(auto(nested.clone(), None), Some(Function::Identity));
        assert_eq!(auto(nested.clone(), Some(json!({ "activation_fn": sigmoid }))), Some(Function::Sigmoid));
        assert_eq!(auto(nested, Some(json!({ "activation_fn": null }))), Some(Function::Identity));
        let older = |more: Value| {
            let mut config = json!({ "sbert_ce_default_activation_function": identity });
            config.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            auto(config, None)
        };
        assert_eq!(older(json!({ "problem_type": "multi_label_classification" })), Some(Function::Identity));
        assert_eq!(
            older(json!({ "sentence_transformers": { "activation_fn": "torch.nn.Tanh" } })),
            Some(Function::Tanh)
        );
        assert_eq!(older(json!({ "sentence_transformers": { "activation_fn": null } })), None);
        assert_eq!(auto(json!({ "problem_type": "regression" }), None), Some(Function::Identity));
        assert_eq!(auto(json!({ "sentence_transformers": { "version": "5.0.0" } }), None), None);
    }

    #[test]
    fn an_unknown_function_is_named_unless_another_is_selected() {
        for name in ["torch.nn.modules.activation.ReLU", "my_code.Sigmoid"] {
            let config = json!({ "sentence_transformers": { "activation_fn": name } });
            let error = of(config.clone(), None, ScoreFunction::Auto).unwrap_err();
            assert!(error.kind() == crate::error::Kind::Unsupported && error.to_string().contains(name), "{error}");
            assert_eq!(of(config, None, ScoreFunction::Sigmoid).unwrap(), Some(Function::Sigmoid));
        }
    }
}
