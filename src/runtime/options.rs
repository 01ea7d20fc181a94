//! How a session is to run its model.

use super::providers;
use crate::error::{Result, bail};
use crate::limits;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use std::path::PathBuf;

/// How much ONNX Runtime rewrites the graph before it runs it. Never changes what the model means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OptimizationLevel {
    /// Run the graph as it is.
    Disabled,
    /// Fold constants, drop nodes that do nothing. The result is portable.
    Basic,
    /// Fuse nodes into ONNX Runtime's own operators.
    Extended,
    /// Change the layout of tensors for this processor as well.
    #[default]
    All,
}

/// Options of a session. `Default` is the fastest way to run on the processor.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Threads that share the work of one node; 0 is one for each physical core.
    pub threads: usize,
    /// See [`OptimizationLevel`].
    pub optimization_level: OptimizationLevel,
    /// Refuse kernels whose results may differ from run to run.
    pub deterministic: bool,
    /// Leave weights as they are instead of rearranging them for this processor: no private copy of them in
    /// memory and a faster load, for slower matrix products.
    pub disable_prepacking: bool,
    /// Write the graph, as optimized for this processor, to this file.
    pub optimized_model: Option<PathBuf>,
}

/// Rewrites that lose on the processor. The fused SkipLayerNormalization takes several times as long as the
/// Add and the LayerNormalization it stands for (`facts/kernels.md`; measured again for ONNX Runtime 1.32).
const SLOW_ON_CPU: &str = "SkipLayerNormFusion";

impl SessionOptions {
    /// Threads a session with these options uses.
    pub fn thread_count(&self) -> usize {
        if self.threads == 0 { providers::cpu_threads() } else { self.threads }
    }

    pub(super) fn apply(&self, builder: SessionBuilder) -> Result<SessionBuilder> {
        if self.threads > limits::THREADS {
            bail!(InvalidArgument, "{} threads were asked for; the limit is {}", self.threads, limits::THREADS);
        }
        let level = match self.optimization_level {
            OptimizationLevel::Disabled => GraphOptimizationLevel::Disable,
            OptimizationLevel::Basic => GraphOptimizationLevel::Level1,
            OptimizationLevel::Extended => GraphOptimizationLevel::Level2,
            OptimizationLevel::All => GraphOptimizationLevel::All,
        };
        let mut builder = builder
            .with_no_environment_execution_providers()?
            .with_intra_threads(self.thread_count())?
            .with_inter_threads(1)?
            // Waiting threads sleep: spinning ones take the processor from whoever else needs it.
            .with_intra_op_spinning(false)?
            .with_optimization_level(level)?
            .with_disabled_optimizers(SLOW_ON_CPU)?
            .with_deterministic_compute(self.deterministic)?
            .with_prepacking(!self.disable_prepacking)?
            .with_log_level(ort::logging::LogLevel::Fatal)?;
        if let Some(path) = &self.optimized_model {
            builder = builder.with_optimized_model_path(path)?;
        }
        Ok(builder)
    }
}
