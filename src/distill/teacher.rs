//! The teacher, which computes its outputs for batches.

use super::DistillOptions;
use super::answers::{Answers, Kept};
use super::data::{Batch, Dataset};
use super::graph::Known;
use super::objective::{self, input};
use super::signals::Signals;
use crate::autodiff::Type;
use crate::call::Call;
use crate::encoder::LogitKind;
use crate::error::{Context, Result, bail};
use crate::graph::edit;
use crate::inputs::feed::Feed;
use crate::model::{Dim, Model};
use crate::onnx::dtype::DataType;
use crate::runtime::{Runtime, Session, SessionOptions, Stop, Tensor};

/// A teacher that is loaded for running, with its cache.
pub struct Teacher {
    session: Session,
    feed: Feed,
    /// Names of the outputs to compute, each with the input of the training graph that it becomes.
    outputs: Vec<(String, String)>,
    /// What the logits are.
    kind: LogitKind,
    /// Cache of the outputs, if there is one.
    answers: Option<Answers>,
}

impl Teacher {
    /// Returns a teacher that computes the outputs that `signals` name, and the types of these outputs. Fails with
    /// `InvalidModel` if the model has no graph, and if a session of it cannot be created.
    pub fn new(
        runtime: &'static Runtime,
        model: &Model,
        signals: &Signals,
        options: &DistillOptions,
        call: &Call,
    ) -> Result<(Teacher, Known)> {
        let mut outputs: Vec<(String, String)> = Vec::new();
        if let Some(pair) = signals.logits.as_ref().filter(|_| signals.weights.logits + signals.weights.labels > 0.0) {
            outputs.push((pair.teacher.clone(), input::LOGITS.to_owned()));
        }
        for (index, pair) in signals.hidden.iter().enumerate() {
            outputs.push((pair.teacher.clone(), objective::hidden_input(index)));
        }
        if let Some((attention, _)) = &signals.relations {
            let parts = [&attention.query, &attention.key, &attention.value];
            outputs.extend(parts.into_iter().cloned().zip(objective::RELATIONS.map(str::to_owned)));
        }
        let mut proto = model.proto().clone();
        let Some(graph) = proto.graph.as_deref_mut() else { bail!(InvalidModel, "the model has no graph") };
        for (name, _) in &outputs {
            if !graph.output.iter().any(|o| o.name.as_ref() == Some(name)) {
                graph.output.push(edit::untyped(name));
            }
        }
        let wanted = |o: &crate::onnx::proto::ValueInfoProto| outputs.iter().any(|(n, _)| o.name.as_ref() == Some(n));
        // Outputs that nothing uses, such as a cache, are not computed.
        let feed = Feed::new(model)?;
        graph.output.retain(wanted);
        let (threads, execution) = (options.threads, options.execution.clone());
        let options = SessionOptions { threads, execution, ..SessionOptions::stock() };
        let session = Session::new(runtime, &model.derive(proto), &options, call)?;
        let known = session
            .outputs()
            .iter()
            .map(|info| (info.name.clone(), Type { dtype: info.dtype, dims: info.shape.clone() }));
        let known = known.collect();
        // If only labels are used, the size of the logits is known now, and their values are not needed.
        outputs.retain(|(_, name)| name != input::LOGITS || signals.weights.logits > 0.0);
        let there: Vec<&str> = session.inputs().iter().map(|info| info.name.as_str()).collect();
        let feed = feed.only(&there);
        Ok((Teacher { session, feed, outputs, kind: signals.kind, answers: None }, known))
    }

    /// Opens the teacher cache, if the options name one. Fails with `Unsupported` if the width of an output is not
    /// known, and like [`Answers::open`].
    pub fn remember(
        &mut self,
        model: &Model,
        known: &Known,
        data: &Dataset,
        options: &DistillOptions,
        call: &Call,
    ) -> Result<()> {
        let Some(path) = options.teacher_cache.as_ref().filter(|_| !self.outputs.is_empty()) else { return Ok(()) };
        let kept = self.outputs.iter().map(|(output, name)| {
            let dims = known.get(output).and_then(|t| t.dims.as_deref());
            let (of_tokens, width) = match dims {
                Some([_, _, Dim::Fixed(width)]) => (true, usize::try_from(*width).unwrap_or(0)),
                Some([_, Dim::Fixed(width)]) => (false, usize::try_from(*width).unwrap_or(0)),
                _ => bail!(
                    Unsupported,
                    "teacher_cache: {output:?} of the teacher cannot be cached, because its width is not known"
                ),
            };
            // The most probable entries describe a distribution only, not labels or numbers.
            Ok(match name == input::LOGITS && self.kind == LogitKind::Classes {
                true => Kept::Distribution { of_tokens, size: width, likeliest: options.teacher_top_k.min(width) },
                false => Kept::Vectors { of_tokens, width },
            })
        });
        let kept = kept.collect::<Result<Vec<Kept>>>()?;
        let quiet = Call { progress: None, ..*call };
        self.answers = Some(Answers::open(path, &model.identity(&quiet)?.sha256, data, kept)?);
        Ok(())
    }

    /// Returns the teacher's outputs for a batch, as inputs of the training graph. The teacher is not run if no output
    /// is needed, or if they are cached. Fails if the run fails or the cache cannot be read or written.
    pub fn say(&mut self, batch: &Batch, stop: &Stop) -> Result<Vec<(String, Tensor)>> {
        if self.outputs.is_empty() {
            return Ok(Vec::new());
        }
        let Some(mut answers) = self.answers.take() else { return self.ask(batch, stop) };
        let given = self.recall(&mut answers, batch, stop);
        self.answers = Some(answers);
        given
    }

    /// Returns the teacher's outputs from the cache. Missing ones are computed, stored, and read back, so that they are
    /// rounded in the first epoch as in later ones.
    fn recall(&mut self, answers: &mut Answers, batch: &Batch, stop: &Stop) -> Result<Vec<(String, Tensor)>> {
        let mut found = answers.get(&batch.numbers, batch.columns)?;
        if found.is_none() {
            let said: Vec<Tensor> = self.ask(batch, stop)?.into_iter().map(|(_, tensor)| tensor).collect();
            answers.put(&batch.numbers, batch.columns, &said)?;
            found = answers.get(&batch.numbers, batch.columns)?;
        }
        let Some(found) = found else { bail!(Io, "a record of the teacher cache is missing") };
        Ok(self.outputs.iter().map(|(_, name)| name.clone()).zip(found).collect())
    }

    fn ask(&mut self, batch: &Batch, stop: &Stop) -> Result<Vec<(String, Tensor)>> {
        let inputs = self.feed.tensors([batch.rows, batch.columns], &batch.ids, &batch.keep)?;
        let feed: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        // One output may serve as several inputs.
        let mut asked: Vec<&str> = self.outputs.iter().map(|(output, _)| output.as_str()).collect();
        asked.sort_unstable();
        asked.dedup();
        let made = self.session.run_until(&feed, &asked, stop).at(|| "the teacher")?;
        let mut given = Vec::with_capacity(self.outputs.len());
        for (output, name) in &self.outputs {
            let Some((_, tensor)) = made.iter().find(|(n, _)| n == output) else {
                bail!(Internal, "the teacher has no output {output:?}");
            };
            given.push((name.clone(), in_float32(tensor)?));
        }
        Ok(given)
    }
}

fn in_float32(tensor: &Tensor) -> Result<Tensor> {
    match tensor.dtype() {
        DataType::Float32 => Ok(tensor.clone()),
        _ => Tensor::from_f32(tensor.shape(), tensor.to_f32_vec()?),
    }
}
