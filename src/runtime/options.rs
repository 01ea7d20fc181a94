//! Options of the sessions that run models.

use super::kernels::Kernels;
use super::providers::{Execution, Provider, ProviderChoice};
use super::{Runtime, allocator, library, register};
use crate::choice::choice;
use crate::error::{Result, bail};
use crate::model::Model;
use crate::onnx::proto::NodeProto;
use crate::onnx::validate::model_nodes;
use crate::platform::processor;
use crate::{limits, memory};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use std::path::PathBuf;

choice! {
    /// The optimizations of the graph that ONNX Runtime applies before running it. They change results only by
    /// rounding.
    pub enum OptimizationLevel: optimize_optimization_level_t = All {
        /// All optimizations, including changes of tensor layout for this processor.
        All = 0, "all";
        /// No optimization.
        Disabled = 1, "disabled";
        /// Constant folding and removal of redundant nodes. The optimized graph is portable.
        Basic = 2, "basic";
        /// The optimizations of `Basic`, and fusion into ONNX Runtime's own operators.
        Extended = 3, "extended";
    }
}

/// Options of a session. The defaults are meant for the fastest runs on the CPU without a lower precision.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Number of threads that share the work of one node, at most [`limits::THREADS`]; 0 for one per physical core.
    pub threads: usize,
    /// Level of the graph optimizations.
    pub optimization_level: OptimizationLevel,
    /// Whether to use only kernels whose results do not differ between runs.
    pub deterministic: bool,
    /// Whether to keep weights in their original layout instead of rearranging them for this processor: loading is
    /// several times as fast, but matrix products with few rows take up to twice as long. The option has no effect for
    /// a model with block-quantized weights, whose products would take 35 times as long.
    pub disable_prepacking: bool,
    /// Whether products with block-quantized weights (`MatMulNBits`, from GGUF files and weight-only quantization)
    /// quantize their activations to 8 bits, block by block, as other engines do by default. In measurements,
    /// generation was 1.2 to 1.5 times as fast, and about one in 14 most likely tokens differed.
    pub round_activations: bool,
    /// Whether input sizes change with every run, as for a growing text. ONNX Runtime then does not plan memory for
    /// each combination of sizes.
    pub varying_sizes: bool,
    /// Path of the file to which the optimized graph for this processor is written; `None` writes no file.
    pub optimized_model: Option<PathBuf>,
    /// Execution provider and device. Default: the CPU.
    pub execution: Execution,
}

/// The name of a graph optimization that is disabled on the CPU, because its result is slower. The fused
/// SkipLayerNormalization takes several times as long as the Add and the LayerNormalization that it replaces; MiniLM as
/// a whole takes 8-11 % longer with it (ONNX Runtime 1.32, one thread, CPU time).
const SLOW_ON_CPU: &str = "SkipLayerNormFusion";

/// Session option with the time in microseconds for which a thread spins for more work of a run before it sleeps.
///
/// ONNX Runtime's default, some milliseconds, takes the CPU from other programs: on a busy machine two threads are then
/// slower than one. Sleeping at once costs a wake-up per node. Measured with two threads on MiniLM, relative to
/// sleeping at once: the default takes 0.75-0.86 of the time on an idle machine but 1.2-1.3 on a busy one, this value
/// 0.69-0.94 on a busy one.
const SPIN: (&str, &str) = ("session.intra_op.spin_duration_us", "20");
/// The first minor version of ONNX Runtime that supports [`SPIN`]. With older versions, threads do not spin.
const SPIN_SINCE: u32 = 28;

impl SessionOptions {
    /// Returns the default options with ONNX Runtime's own kernels, which other programs use. They are for sessions
    /// whose results serve for calibration, training or verification.
    pub fn stock() -> SessionOptions {
        let execution = Execution { kernels: Kernels::Stock, ..Execution::default() };
        SessionOptions { execution, ..SessionOptions::default() }
    }

    /// Returns the number of threads of a session with these options.
    pub fn thread_count(&self) -> usize {
        if self.threads == 0 { processor::cpu_threads() } else { self.threads }
    }

    /// Returns whether the options refer to the graph of the model as it is: they request another level than all
    /// optimizations, or the file of the optimized graph. A graph that was optimized ahead of time, and this library's
    /// kernels, then do not take its place.
    pub(super) fn refers_to_original_graph(&self) -> bool {
        self.optimization_level != OptimizationLevel::All || self.optimized_model.is_some()
    }

    /// Returns these options, adjusted to a model: `disable_prepacking` is reset if the model has block-quantized
    /// weights.
    pub(super) fn for_model(&self, model: &Model) -> SessionOptions {
        let disable_prepacking = self.disable_prepacking && !has_blocks(model);
        SessionOptions { disable_prepacking, ..self.clone() }
    }

    /// Returns a session builder with these options set, without an execution provider. Fails with `InvalidArgument`
    /// above [`limits::THREADS`] threads, with `Unsupported` if the thread has a memory limit that cannot be applied to
    /// sessions, and with `Runtime` if ONNX Runtime rejects an option.
    pub(super) fn builder(&self, runtime: &Runtime, provider: Provider) -> Result<SessionBuilder> {
        if self.threads > limits::THREADS {
            bail!(InvalidArgument, "{} threads were requested; the limit is {}", self.threads, limits::THREADS);
        }
        let level = match self.optimization_level {
            OptimizationLevel::Disabled => GraphOptimizationLevel::Disable,
            OptimizationLevel::Basic => GraphOptimizationLevel::Level1,
            OptimizationLevel::Extended => GraphOptimizationLevel::Level2,
            OptimizationLevel::All => GraphOptimizationLevel::All,
        };
        let mut builder = SessionBuilder::new(runtime.environment())?
            .with_no_environment_execution_providers()?
            .with_intra_threads(self.thread_count())?
            .with_inter_threads(1)?
            .with_intra_op_spinning(runtime.minor_version() >= SPIN_SINCE)?
            .with_config_entry(SPIN.0, SPIN.1)?
            .with_optimization_level(level)?
            .with_deterministic_compute(self.deterministic)?
            .with_prepacking(!self.disable_prepacking)?
            .with_memory_pattern(!self.varying_sizes)?
            .with_log_level(library::severity())?;
        if provider == Provider::Cpu {
            builder = builder.with_disabled_optimizers(SLOW_ON_CPU)?;
        }
        if memory::current().is_some() {
            builder = allocator::limit(builder, runtime)?;
        }
        if self.execution.provider != ProviderChoice::Cpu {
            builder = builder.with_config_entry(register::RECORD.0, register::RECORD.1)?;
        }
        for (name, value) in &self.execution.session_config {
            builder = builder.with_config_entry(name, value)?;
        }
        if let Some(path) = &self.optimized_model {
            builder = builder.with_optimized_model_path(path)?;
        }
        Ok(builder)
    }
}

/// Returns whether any node of a model takes block-quantized weights: `MatMulNBits`, or the `DequantizeLinear` that
/// ONNX Runtime converts to one.
pub(crate) fn has_blocks(model: &Model) -> bool {
    let in_blocks = |node: &NodeProto| node.attribute.iter().any(|a| a.name.as_deref() == Some("block_size"));
    model_nodes(model.proto()).any(|node| match node.op_type.as_deref() {
        Some("MatMulNBits") => true,
        Some("DequantizeLinear") => in_blocks(node),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::onnx::proto::AttributeProto;
    use crate::runtime::test_runtime;
    use crate::runtime::testing::{graph, model, node};

    #[test]
    fn every_option_is_taken_and_absurd_ones_are_not() {
        let runtime = test_runtime();
        for optimization_level in [OptimizationLevel::Disabled, OptimizationLevel::Basic, OptimizationLevel::Extended] {
            let options = SessionOptions {
                threads: 3,
                optimization_level,
                deterministic: true,
                disable_prepacking: true,
                round_activations: false,
                varying_sizes: true,
                optimized_model: Some("nowhere.onnx".into()),
                execution: Execution::default(),
            };
            assert_eq!(options.thread_count(), 3);
            options.builder(runtime, Provider::Cpu).unwrap();
        }
        assert!(SessionOptions::default().thread_count() >= 1);
        let many = SessionOptions { threads: limits::THREADS + 1, ..SessionOptions::default() };
        assert_eq!(many.builder(runtime, Provider::Cpu).err().unwrap().kind(), Kind::InvalidArgument);
    }
    #[test]
    fn weights_in_blocks_are_rearranged_whatever_is_asked_for() {
        let options = SessionOptions { disable_prepacking: true, threads: 2, ..SessionOptions::default() };
        let after = |nodes| {
            let model = Model::from_proto(model(graph(nodes, Vec::new(), Vec::new())));
            let given = options.for_model(&model);
            assert_eq!((given.threads, SessionOptions::default().for_model(&model).disable_prepacking), (2, false));
            given.disable_prepacking
        };
        let inside = |inner: NodeProto| {
            let graph = graph(vec![inner], Vec::new(), Vec::new());
            let attribute = AttributeProto { g: Some(Box::new(graph)), ..Default::default() };
            NodeProto { attribute: vec![attribute], ..node("If", &["c"], "y") }
        };
        assert!(after(vec![node("MatMul", &["x", "w"], "y"), node("DequantizeLinear", &["w", "s"], "z")]));
        assert!(!after(vec![node("Neg", &["x"], "z"), node("MatMulNBits", &["x", "w", "s"], "y")]));
        assert!(!after(vec![inside(node("MatMulNBits", &["x", "w", "s"], "y"))]));
        let block_size = AttributeProto { name: Some("block_size".into()), i: Some(32), ..Default::default() };
        let dequantize = NodeProto { attribute: vec![block_size], ..node("DequantizeLinear", &["w", "s"], "z") };
        assert!(!after(vec![dequantize]));
    }
}
