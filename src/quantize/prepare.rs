//! What is done to the float model before it is quantized, and which algorithm does the rest.

use super::planner::{self, Form};
use super::scaling::{awq, smooth};
use super::{Algorithm, QuantizeOptions, QuantizeType};
use crate::calibrate::{self, Batch};
use crate::call::Call;
use crate::error::{Result, bail};
use crate::graph::View;
use crate::model::Model;
use crate::runtime::Runtime;
use crate::text::Tokenizer;

/// Whether calibration data makes weights one layer after the other, by GPTQ.
pub fn is_sequential(options: &QuantizeOptions) -> bool {
    options.quantize_type == QuantizeType::WeightOnly && matches!(options.algorithm, Algorithm::Auto | Algorithm::Gptq)
}

/// The model to quantize dynamically or in blocks, if it is not the one that was given. Static quantization does its
/// own. An error if the options ask for data that there is none of.
pub fn prepare(
    model: &Model,
    options: &QuantizeOptions,
    runtime: &'static Runtime,
    data: Option<&[Batch]>,
    call: &Call,
) -> Result<Option<Model>> {
    let view = View::new(model.proto());
    match (options.quantize_type, data) {
        (QuantizeType::WeightOnly, Some(batches)) if options.algorithm == Algorithm::Awq => {
            let plan = planner::plan(&view, model, options)?;
            awq::scale(model, &view, &plan, options, (runtime, batches), call).map(Some)
        }
        (QuantizeType::Dynamic, data) if options.smooth_quant > 0.0 => {
            let plan = planner::plan(&view, model, options)?;
            let products = plan.changes.iter().filter(|change| change.body == 0 && change.form != Form::Table);
            let nodes: Vec<usize> = products.map(|change| change.node).collect();
            let built_in;
            let batches = match data {
                Some(batches) => batches,
                None => {
                    built_in = sentences(model)?;
                    &built_in
                }
            };
            smooth::smooth(model, &nodes, options, (runtime, batches), call).map(Some)
        }
        _ => Ok(None),
    }
}

/// Activations of noise say nothing; those of any sentences do.
fn sentences(model: &Model) -> Result<Vec<Batch>> {
    if Tokenizer::of(model)?.is_none() {
        bail!(InvalidArgument, "smooth_quant needs calibration data where the model has no tokenizer");
    }
    calibrate::without_data(model)
}
