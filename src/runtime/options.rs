//! How a session is to run its model.

use super::providers::{self, Execution, Provider, ProviderChoice};
use super::{Runtime, register};
use crate::error::{Result, bail};
use crate::limits;
use crate::model::Model;
use crate::onnx::proto::NodeProto;
use crate::onnx::validate::subgraphs;
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
    /// Leave weights as they are instead of rearranging them for this processor: a load several times as fast,
    /// for matrix products that take up to twice as long where there are few rows. Models with weights in blocks
    /// of a few bits have them rearranged all the same: they would take 35 times as long.
    pub disable_prepacking: bool,
    /// Let products of weights in blocks (`MatMulNBits`: GGUF files, weight-only quantization) round their
    /// activations to 8 bits, block by block, as other engines do unasked: writes 1.2 to 1.5 times as fast, and about
    /// one likeliest token in 14 is another one.
    pub round_activations: bool,
    /// Sizes of inputs change with every run (a text that grows): memory is not planned for each of them.
    pub varying_sizes: bool,
    /// Write the graph, as optimized for this processor, to this file.
    pub optimized_model: Option<PathBuf>,
    /// What it runs on: the processor, unless something else is asked for.
    pub execution: Execution,
}

/// Rewrites that lose on the processor. The fused SkipLayerNormalization takes several times as long as the
/// Add and the LayerNormalization it stands for; MiniLM as a whole takes 8-11 % longer with it (ONNX Runtime
/// 1.32, one thread, processor time).
const SLOW_ON_CPU: &str = "SkipLayerNormFusion";

/// How long a thread waits awake for more work of a run, before it sleeps.
///
/// The default, milliseconds, takes the processor from whoever else needs it: on a busy machine two threads
/// are then slower than one. Sleeping at once costs a wake-up for every node. Measured with two threads on
/// MiniLM, against sleeping at once: the default 0.75-0.86 of the time on an idle machine but 1.2-1.3 on a
/// busy one, this 0.69-0.94 on a busy one.
const SPIN: (&str, &str) = ("session.intra_op.spin_duration_us", "20");
/// The first minor version of ONNX Runtime that is sure to know [`SPIN`]; others would wait their default.
const SPIN_SINCE: u32 = 28;

impl SessionOptions {
    /// Threads a session with these options uses.
    pub fn thread_count(&self) -> usize {
        if self.threads == 0 { providers::cpu_threads() } else { self.threads }
    }

    /// These options as far as they make sense for a model.
    pub(super) fn for_model(&self, model: &Model) -> SessionOptions {
        let disable_prepacking = self.disable_prepacking && !has_blocks(model);
        SessionOptions { disable_prepacking, ..self.clone() }
    }

    /// A session in the making, with these options set.
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
            .with_log_level(ort::logging::LogLevel::Fatal)?;
        if provider == Provider::Cpu {
            builder = builder.with_disabled_optimizers(SLOW_ON_CPU)?;
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

/// Whether any node of a model takes weights in blocks of a few bits: `MatMulNBits`, or the `DequantizeLinear` that ONNX
/// Runtime makes one of.
pub(crate) fn has_blocks(model: &Model) -> bool {
    let proto = model.proto();
    let mut bodies = proto.graph.iter().map(|graph| &graph.node).chain(proto.functions.iter().map(|f| &f.node));
    bodies.any(|nodes| take_blocks(nodes))
}

/// Whether one of the nodes does, or of those in the graphs inside them.
fn take_blocks(nodes: &[NodeProto]) -> bool {
    let in_blocks = |node: &NodeProto| node.attribute.iter().any(|a| a.name.as_deref() == Some("block_size"));
    nodes.iter().any(|node| match node.op_type.as_deref() {
        Some("MatMulNBits") => true,
        Some("DequantizeLinear") if in_blocks(node) => true,
        _ => subgraphs(node).any(|graph| take_blocks(&graph.node)),
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
