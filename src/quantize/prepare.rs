//! Preparation of the float model before quantization, and the choice of the algorithm.

use super::planner::{self, Form};
use super::scaling::{awq, smooth};
use super::{Algorithm, QuantizeOptions, QuantizeType};
use crate::calibrate::{self, Batch, Data};
use crate::call::Call;
use crate::error::{Result, bail};
use crate::graph::View;
use crate::model::Model;
use crate::runtime::Runtime;
use crate::text::Tokenizer;

/// Returns whether the options select GPTQ, layer by layer, if there is calibration data.
pub fn is_sequential(options: &QuantizeOptions) -> bool {
    options.quantize_type == QuantizeType::WeightOnly && matches!(options.algorithm, Algorithm::Auto | Algorithm::Gptq)
}

/// Returns the model prepared by AWQ or SmoothQuant for weight-only or dynamic quantization; `None` if the options
/// request neither. Static quantization prepares its model itself. Fails with `InvalidArgument` if SmoothQuant has
/// neither data nor a tokenizer.
pub fn prepare(
    model: &Model,
    options: &QuantizeOptions,
    runtime: &'static Runtime,
    batches: Option<&[Batch]>,
    call: &Call,
) -> Result<Option<Model>> {
    let view = View::new(model.proto());
    match (options.quantize_type, batches) {
        (QuantizeType::WeightOnly, Some(batches)) if options.algorithm == Algorithm::Awq => {
            let plan = planner::plan(&view, model, options)?;
            awq::scale(model, &view, &plan, options, Data { runtime, batches }, call).map(Some)
        }
        (QuantizeType::Dynamic, given) if options.smooth_quant > 0.0 => {
            let plan = planner::plan(&view, model, options)?;
            let products = plan.changes.iter().filter(|change| change.body == 0 && change.form != Form::Table);
            let nodes: Vec<usize> = products.map(|change| change.node).collect();
            let built_in;
            let batches = match given {
                Some(batches) => batches,
                None => {
                    built_in = sentences(model)?;
                    &built_in
                }
            };
            smooth::smooth(model, &nodes, options, Data { runtime, batches }, call).map(Some)
        }
        _ => Ok(None),
    }
}

/// Returns batches of built-in sentences. Activations of noise are not representative, those of any sentences are.
fn sentences(model: &Model) -> Result<Vec<Batch>> {
    if Tokenizer::of(model)?.is_none() {
        bail!(InvalidArgument, "smooth_quant needs calibration data, because the model has no tokenizer");
    }
    calibrate::without_data(model)
}
