//! The state of a run in one safetensors file, from which it continues as if it had not been stopped.
//!
//! `weight.N`, `first.N` and `second.N` are parameter N and its moments, `best.N` its value when the student was best
//! on the validation text (absent before the first validation). The rest is JSON in the file's metadata, under `state`.

use super::graph::Graphs;
use super::optimizer::Moments;
use crate::calibrate::read_tensors;
use crate::error::{Context, Result, bail, error};
use crate::files::AtomicFile;
use crate::graph::floats::to_bytes;
use crate::limits;
use crate::onnx::dtype::DataType;
use crate::runtime::Tensor;
use crate::source::checkpoint::safetensors;
use ::safetensors::tensor::TensorInfo;
use ::safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// The state of a run, without the weights.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
pub struct State {
    /// Hash of models, text and options, by which the checkpoint of another run is recognized.
    pub fingerprint: String,
    /// Number of steps done.
    pub step: u64,
    /// Index of the epoch of the next step.
    pub epoch: u32,
    /// Number of batches of that epoch that have been read.
    pub batch: usize,
    /// Number of trained tokens.
    pub tokens: u64,
    /// Number of steps that were skipped because a gradient was not finite.
    pub skipped: u64,
    /// Duration of training in seconds.
    pub seconds: f64,
    /// Smallest validation loss, and the step at which it was reached; `None` before the first validation with a finite
    /// loss.
    pub best: Option<(f64, u64)>,
    /// Results of the validations so far: the JSON objects of `history` in the report.
    pub history: Vec<Value>,
}

/// The weights of a checkpoint, with their moments.
pub struct Weights {
    /// Values of each parameter.
    pub weights: Vec<Vec<f32>>,
    /// Moments of each parameter.
    pub moments: Vec<Moments>,
    /// Values of each parameter at the smallest validation loss; `None` if there was no validation with a finite loss.
    pub best: Option<Vec<Vec<f32>>>,
}

/// The version of the file format. In version 1, the hash did not cover the teacher and the weights that stay
/// unchanged.
const VERSION: u32 = 2;

/// Writes a checkpoint; an existing one is replaced when the new one is complete. Fails with `NotFound` or `Io` if the
/// file cannot be written.
pub fn write(
    path: &Path,
    state: &State,
    weights: &[&[f32]],
    moments: &[Moments],
    best: Option<&[Vec<f32>]>,
) -> Result<()> {
    let mut pieces: Vec<(String, &[f32])> = Vec::new();
    for (index, (values, moments)) in weights.iter().zip(moments).enumerate() {
        pieces.push((format!("weight.{index}"), values));
        pieces.push((format!("first.{index}"), &moments.first));
        pieces.push((format!("second.{index}"), &moments.second));
    }
    for (index, values) in best.iter().flat_map(|best| best.iter()).enumerate() {
        pieces.push((format!("best.{index}"), values));
    }
    let text = serde_json::to_string(state).map_err(|e| error!(Internal, "the state: {e}"))?;
    let metadata = json!({ "liboptimize.distillation": VERSION.to_string(), "state": text });
    let mut end = 0;
    let info = |(name, values): &(String, &[f32])| {
        let offsets = (end, end + 4 * values.len());
        end = offsets.1;
        (name.clone(), TensorInfo { dtype: Dtype::F32, shape: vec![values.len()], data_offsets: offsets })
    };
    let head = safetensors::header(Some(metadata), pieces.iter().map(info).collect(), 64)?;
    let write = || -> Result<()> {
        let mut file = AtomicFile::create(path)?;
        file.write_all(&head)?;
        for (_, values) in &pieces {
            for part in values.chunks(1 << 18) {
                file.write_all(&to_bytes(part, DataType::Float32))?;
            }
        }
        file.commit()
    };
    write().at(|| format!("checkpoint {}", path.display()))
}

/// Returns the state and the weights in a checkpoint for these graphs. Fails with `InvalidArgument` if it belongs to
/// another run, with `Unsupported` if it has another version, with `InvalidModel` if it is damaged, and with `NotFound`
/// or `Io` if it cannot be read.
pub fn read(path: &Path, graphs: &Graphs, fingerprint: &str) -> Result<(State, Weights)> {
    let place = || format!("checkpoint {}", path.display());
    let inner = || {
        let text = metadata(path)?;
        let state: State =
            serde_json::from_str(&text).map_err(|e| error!(InvalidModel, "the state is damaged: {e}"))?;
        if state.fingerprint != fingerprint {
            bail!(
                InvalidArgument,
                "the checkpoint belongs to a run with other models, another text or other options: remove it, or \
                 continue with those"
            );
        }
        let tensors: HashMap<String, Tensor> = read_tensors(path)?.into_iter().collect();
        let get = |name: String, count: usize| -> Result<Vec<f32>> {
            let values = match tensors.get(&name) {
                Some(tensor) => tensor.as_slice::<f32>()?.to_vec(),
                None => bail!(InvalidModel, "the checkpoint has no {name}"),
            };
            match values.len() == count {
                true => Ok(values),
                false => bail!(InvalidModel, "{name} has {} elements, not {count}", values.len()),
            }
        };
        let mut weights = Weights { weights: Vec::new(), moments: Vec::new(), best: None };
        let mut best = Vec::new();
        for (index, parameter) in graphs.parameters.iter().enumerate() {
            let count = parameter.elements();
            weights.weights.push(get(format!("weight.{index}"), count)?);
            let (first, second) = (get(format!("first.{index}"), count)?, get(format!("second.{index}"), count)?);
            weights.moments.push(Moments { first, second, decays: parameter.dims.len() > 1 });
            if state.best.is_some() {
                best.push(get(format!("best.{index}"), count)?);
            }
        }
        weights.best = state.best.map(|_| best);
        Ok((state, weights))
    };
    inner().at(place)
}

/// Returns the state in the metadata of a checkpoint as JSON.
fn metadata(path: &Path) -> Result<String> {
    let file = crate::files::open(path)?;
    let bytes = crate::files::map(&file, limits::DATA_FILE_BYTES)?;
    let damaged = || error!(InvalidModel, "the file is not a distillation checkpoint");
    // The crate `safetensors` limits the size of the header, as `limits` does.
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|_| damaged())?;
    let metadata = header.metadata().as_ref().ok_or_else(damaged)?;
    let version = metadata.get("liboptimize.distillation");
    match version {
        Some(version) if *version == VERSION.to_string() => {}
        Some(version) => bail!(
            Unsupported,
            "the checkpoint has version {version}, but this library reads version {VERSION}: remove it, and start anew"
        ),
        None => return Err(damaged()),
    }
    metadata.get("state").cloned().ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::super::{Corpus, DistillOptions, Moment, distill};
    use super::*;
    use crate::call::Call;
    use crate::error::Kind;
    use crate::graph::edit::float_tensor;
    use crate::graph::floats::floats;
    use crate::model::Model;
    use crate::onnx::proto::TensorProto;
    use crate::runtime::test_runtime;
    use std::ops::ControlFlow;

    /// Returns whether a tensor is the table of the 36 tokens.
    fn is_table(tensor: &TensorProto) -> bool {
        tensor.dims == [36, 8]
    }

    /// Returns a model with another first vector in its table of tokens.
    fn changed(model: &Model) -> Model {
        let mut proto = model.proto().clone();
        let table = proto.graph.as_deref_mut().unwrap().initializer.iter_mut().find(|t| is_table(t)).unwrap();
        let mut values = floats(table).unwrap();
        values[0] += 0.5;
        *table = float_tensor(table.name.as_deref().unwrap(), &table.dims, &values);
        model.derive(proto)
    }

    #[test]
    fn a_checkpoint_of_another_teacher_or_of_other_frozen_weights_is_refused() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentences/model");
        let model = Model::load(&fixtures).unwrap();
        let folder = std::env::temp_dir().join(format!("optimize-resumed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("checkpoint");
        let table = model.graph().initializer.iter().find(|t| is_table(t)).and_then(|t| t.name.clone()).unwrap();
        let corpus = Corpus::from_text(&"hello world\nab ruty hello\n".repeat(30)).unwrap();
        // Runs until a step has been done, and returns the error.
        let until = |step: u64, resume: bool, teacher: &Model, student: &Model| {
            let options = DistillOptions {
                checkpoint: Some(path.clone()),
                resume,
                freeze: vec![table.clone()],
                threads: 1,
                ..DistillOptions::default()
            };
            let watch = |moment: &Moment| match moment.step >= step {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            distill(test_runtime(), teacher, student, &corpus, &options, &watch, &Call::default()).err().unwrap()
        };
        let e = until(2, false, &model, &model);
        assert!(e.kind() == Kind::Cancelled && path.exists(), "{e}");
        let other = changed(&model);
        for (teacher, student) in [(&other, &model), (&model, &other)] {
            let e = until(3, true, teacher, student);
            let says = e.to_string().contains("a run with other models");
            assert!(e.kind() == Kind::InvalidArgument && says, "{e}");
        }
        assert_eq!(until(3, true, &model, &model).kind(), Kind::Cancelled);
        // A checkpoint of the version before.
        let mut bytes = std::fs::read(&path).unwrap();
        let key: &[u8] = br#""liboptimize.distillation":"2""#;
        let at = bytes.windows(key.len()).position(|part| part == key).unwrap() + key.len() - 2;
        bytes[at] = b'1';
        std::fs::write(&path, bytes).unwrap();
        let e = until(3, true, &model, &model);
        assert!(e.kind() == Kind::Unsupported && e.to_string().contains("has version 1, but"), "{e}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
