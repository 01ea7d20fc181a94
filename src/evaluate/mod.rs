//! Evaluation of models on data: perplexity, similarity of embeddings, accuracy of classifiers, linear probes.
//!
//! [`evaluate()`] is the entry point for a task by its name. Each task also has its own functions: for a single model
//! (for embeddings, [`embed`] only returns the vectors), and for the comparison of two models on the same data, so that
//! difficult data affect both alike.
//!
//! - `perplexity`: one language model on a text; `paired`: two of them. `text_plan` divides the tokens of the text into
//!   the windows of `windows`, and `reader` runs the model on a window.
//! - `embedding`: the similarity of the vectors of two models.
//! - `classification`: classifiers on labelled texts (`labelled` reads them, `scores` counts).
//! - `probe`: a linear classifier on embeddings (`minimize` trains it).
//!
//! `crate::likelihood` turns logits into probabilities; `crate::statistics` computes confidence intervals.

mod classification;
mod embedding;
pub mod labelled;
mod minimize;
mod options;
mod paired;
mod perplexity;
mod probe;
pub(crate) mod reader;
mod scores;
mod task;
pub(crate) mod text_plan;
pub mod windows;

pub use crate::encoder::{Embeddings, TextOptions};
pub use classification::{PairedClassification, class_agreement, classify, compare_classification};
pub use embedding::{EmbeddingSimilarity, compare_embeddings, embed};
pub use labelled::Labelled;
pub use options::{Bos, PerplexityOptions};
pub use paired::{Interval, PairedPerplexity, compare_perplexity};
pub(crate) use perplexity::pool;
pub use perplexity::{PerplexityReport, perplexity};
pub use probe::{PairedProbe, ProbeOptions, ProbeReport, compare_probes, probe_accuracy};
pub use scores::{ClassScore, ClassScores};
pub use task::{EvaluateOptions, EvaluateTask, evaluate};
