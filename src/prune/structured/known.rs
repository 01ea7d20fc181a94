//! Facts about a model that its analysis needs: shapes and integers that ONNX Runtime infers where the rules do not,
//! and the size of open dimensions.
//!
//! If the inputs have sizes, ONNX Runtime folds everything that can be computed from shapes, and infers the shapes of
//! all its operators. For the values of unknown shape it is run twice, with the two sizes that [`super::sizes`] chooses
//! for every open dimension. It receives only the shapes of the weights, not their elements.

use super::analysis::{Analysis, COMPUTED};
use super::axes::{Dim, Int};
use super::rules::TOO_SHORT;
use super::sizes::{INTS, Sizes};
use crate::error::Result;
use crate::graph::constants;
use crate::model::Model;
use crate::onnx::proto::{TensorProto, ValueInfoProto};
use crate::runtime::{Runtime, inferred, resize};
use std::collections::HashMap;

/// Facts about the values of a model that do not come from the rules.
#[derive(Default)]
pub struct Known {
    shapes: HashMap<String, Vec<Dim>>,
    ints: HashMap<String, Vec<Dim>>,
    /// Whether open sizes must be large, because of large windows.
    pub long: bool,
}

impl Known {
    /// Returns the facts that the rules need, as far as ONNX Runtime can infer them. If `runtime` is `None`, ONNX
    /// Runtime is opened only if it is needed; if it is not found, fewer facts are known.
    pub fn of(model: &Model, runtime: Option<&'static Runtime>) -> Known {
        let mut known = Known::default();
        let Ok(first) = Analysis::new(model, &known) else { return known };
        let long = first.verdicts.iter().any(|(_, reason)| reason.text == TOO_SHORT);
        let mut names = missing(&first);
        drop(first);
        if long {
            known.long = true;
            let Ok(second) = Analysis::new(model, &known) else { return known };
            names = missing(&second);
        }
        if names.is_empty() {
            return known;
        }
        if let Some(runtime) = runtime.or_else(|| Runtime::open(None).ok()) {
            // A model that ONNX Runtime cannot run at these sizes is analyzed by the rules alone.
            let values = [0, 1].map(|side| infer(model, runtime, &names, (known.long, side)));
            if let [Ok(a), Ok(b)] = values {
                known.shapes = both(&a.0, &b.0);
                known.ints = both(&a.1, &b.1);
            }
        }
        known
    }

    /// Returns the shape of a value; `None` if it is unknown.
    pub fn shape(&self, name: &str) -> Option<Vec<Dim>> {
        self.shapes.get(name).cloned()
    }

    /// Returns the elements of an integer value; `None` if they are unknown.
    pub fn ints(&self, name: &str) -> Option<Vec<Int>> {
        Some(self.ints.get(name)?.iter().map(|values| Int::constant(*values)).collect())
    }
}

/// Returns the names of the values of unknown shape, and of the first outputs of nodes whose integer parameters are
/// unknown.
fn missing(analysis: &Analysis<'_>) -> Vec<String> {
    let made = |name: &str| analysis.producers_of.contains_key(name);
    let mut names: Vec<String> =
        analysis.lost.keys().filter(|name| made(name)).map(|name| (*name).to_owned()).collect();
    let computed = analysis.verdicts.iter().filter(|(_, reason)| reason.text == COMPUTED);
    names.extend(computed.filter_map(|(node, _)| analysis.graph.node[*node as usize].output.first().cloned()));
    names.sort_unstable();
    names.dedup();
    names
}

/// Returns the lists that are in both maps with equal numbers of elements, element by element as a pair.
fn both(a: &HashMap<String, Vec<i64>>, b: &HashMap<String, Vec<i64>>) -> HashMap<String, Vec<Dim>> {
    let pair = |(name, a): (&String, &Vec<i64>)| {
        let b = b.get(name).filter(|b| b.len() == a.len())?;
        Some((name.clone(), a.iter().zip(b).map(|(a, b)| [*a, *b]).collect()))
    };
    a.iter().filter_map(pair).collect()
}

/// The shapes and the small lists of integers that ONNX Runtime infers, by name of the value.
type Told = (HashMap<String, Vec<i64>>, HashMap<String, Vec<i64>>);

/// Returns the facts that ONNX Runtime infers for a model at one of the two sizes.
fn infer(model: &Model, runtime: &'static Runtime, names: &[String], (long, side): (bool, usize)) -> Result<Told> {
    let mut proto = model.proto().clone();
    let mut sizes = Sizes::new(model, long);
    for info in proto.graph.iter_mut().flat_map(|graph| &mut graph.input) {
        if let Some(dims) = sizes.of(info) {
            resize(info, &dims.iter().map(|dim| dim[side]).collect::<Vec<_>>());
        }
    }
    let optimized = inferred(runtime, proto, names)?;
    let graph = optimized.graph();
    let shapes = graph.output.iter().filter_map(|info| Some((info.name.clone()?, shape_of(info)?))).collect();
    let small = |tensor: &&TensorProto| tensor.dims.iter().product::<i64>() <= INTS as i64;
    let ints = graph.initializer.iter().filter(small);
    let ints = ints.filter_map(|tensor| Some((tensor.name.clone()?, constants::whole_numbers(tensor)?))).collect();
    Ok((shapes, ints))
}

/// Returns the sizes of a declared value; `None` if not all are known.
fn shape_of(info: &ValueInfoProto) -> Option<Vec<i64>> {
    let tensor = info.value_type.as_deref()?.tensor_type.as_deref()?;
    tensor.shape.as_deref()?.dim.iter().map(|dim| dim.dim_value.filter(|size| *size >= 0)).collect()
}
