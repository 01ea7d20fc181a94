//! What models are worth on data: perplexity, closeness of embeddings, accuracy of classifiers, linear probes.
//!
//! [`evaluate()`] is the way in for a task by its name; each task has a function of its own, and one that compares
//! two models on the same data, pair by pair, so that what is hard in the data cancels.
//!
//! - `perplexity`: a language model on a text; `paired`: two of them. `windows` cuts the text, `text_plan` says what
//!   the model reads, `reader` reads it.
//! - `embedding`: texts as vectors, and two models' compared; `batches` gives texts to encoders.
//! - `classification`: classifiers on labelled texts (`labelled` reads them, `scores` counts).
//! - `probe`: a linear classifier on embeddings (`minimize` trains it).
//!
//! Logits become probabilities in `crate::likelihood`; how sure the figures are says `crate::statistics`.

mod batches;
mod classification;
pub(crate) mod embedding;
pub mod labelled;
mod minimize;
mod paired;
mod perplexity;
mod probe;
mod progress;
pub(crate) mod reader;
mod scores;
mod task;
pub(crate) mod text_plan;
pub mod windows;

pub use batches::TextOptions;
pub use classification::{PairedClassification, class_agreement, classify, compare_classification};
pub use embedding::{EmbeddingSimilarity, Embeddings, compare_embeddings, embed};
pub use labelled::Labelled;
pub use paired::{Interval, PairedPerplexity, compare_perplexity};
pub(crate) use perplexity::pool;
pub use perplexity::{Bos, PerplexityOptions, PerplexityReport, perplexity};
pub use probe::{PairedProbe, ProbeOptions, ProbeReport, compare_probes, probe_accuracy};
pub use scores::{ClassScore, ClassScores};
pub use task::{EvaluateOptions, EvaluateTask, evaluate};
