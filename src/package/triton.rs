//! A model repository for Triton Inference Server with the portable graph of a package. Its `config.pbtxt` describes
//! the inputs and outputs; it fixes the sizes that the contract fixes, but has no bounds for other sizes.

use super::open::Package;
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::files;
use crate::model::contract::Size;
use crate::model::{Dim, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::onnx::save::ExternalData;
use std::fmt::Write;
use std::path::Path;

/// Writes `FOLDER/NAME/config.pbtxt` and `FOLDER/NAME/1/model.onnx`, creates their folders if necessary, and replaces
/// existing files.
///
/// Fails with [`crate::error::Kind::InvalidArgument`] if `name` is empty, begins with `.`, or contains other characters
/// than ASCII letters, digits, `-`, `_` and `.`; and with `Unsupported` for an input or output without a rank or of a
/// type that Triton lacks.
pub fn export(package: &Package, folder: &Path, name: &str, call: &Call) -> Result<()> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) || name.starts_with('.')
    {
        bail!(InvalidArgument, "{name:?} is not a valid model name for a repository");
    }
    let model = package.model()?;
    let home = folder.join(name);
    let version = home.join("1");
    let text = config(package, name, &model.inputs(), &model.outputs())?;
    std::fs::create_dir_all(&version).at(|| version.display())?;
    model.save(&version.join("model.onnx"), ExternalData::Auto, call)?;
    files::replace(&home.join("config.pbtxt"), text.as_bytes())
}

/// Returns the text of `config.pbtxt`. The first dimensions become the server's batch, with dynamic batching, on two
/// conditions: those of all inputs have one range in the contract, whose minimum is at most 1 and which has a maximum;
/// and those of all outputs are open in the model.
fn config(package: &Package, name: &str, inputs: &[ValueInfo], outputs: &[ValueInfo]) -> Result<String> {
    let contract = &package.manifest().shapes;
    let first = |input: &crate::model::contract::InputShape| match input.dims.as_ref().and_then(|d| d.first()) {
        Some(Size::Range(range)) if range.min <= 1 => range.max.map(|max| (range.name.clone(), max)),
        _ => None,
    };
    let firsts: Vec<_> = contract.inputs.iter().map(first).collect();
    let open = |v: &ValueInfo| matches!(v.shape.as_ref().and_then(|s| s.first()), Some(Dim::Symbolic(_)));
    let batch = match firsts.first() {
        Some(Some((dim, max))) if firsts.iter().all(|f| f.as_ref().is_some_and(|f| f.0 == *dim)) => {
            Some(*max).filter(|_| outputs.iter().all(open))
        }
        _ => None,
    };
    let mut text = format!("name: {name:?}\nbackend: \"onnxruntime\"\nmax_batch_size: {}\n", batch.unwrap_or(0));
    let skip = usize::from(batch.is_some());
    for (kind, values) in [("input", inputs), ("output", outputs)] {
        for value in values {
            let Some(dtype) = value.dtype.and_then(triton_name) else {
                bail!(
                    Unsupported,
                    "{kind} {:?} has the type {}, which Triton does not support",
                    value.name,
                    value.describe()
                );
            };
            let fixed = contract.inputs.iter().find(|i| kind == "input" && i.name == value.name);
            let dims: Vec<String> = match (fixed.and_then(|i| i.dims.as_ref()), &value.shape) {
                (Some(sizes), _) => {
                    sizes.iter().map(|s| if let Size::Fixed(n) = s { *n } else { -1 }.to_string()).collect()
                }
                (None, Some(shape)) => {
                    shape.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { -1 }.to_string()).collect()
                }
                (None, None) => bail!(Unsupported, "{kind} {:?} has no rank, which Triton needs", value.name),
            };
            let dims = dims.get(skip..).unwrap_or(&[]).join(", ");
            let _ = writeln!(text, "{kind} {{ name: {:?} data_type: {dtype} dims: [ {dims} ] }}", value.name);
        }
    }
    if batch.is_some() {
        text.push_str("dynamic_batching { }\n");
    }
    Ok(text + "version_policy { latest { num_versions: 1 } }\n")
}

fn triton_name(dtype: DataType) -> Option<&'static str> {
    Some(match dtype {
        DataType::Bool => "TYPE_BOOL",
        DataType::Uint8 => "TYPE_UINT8",
        DataType::Uint16 => "TYPE_UINT16",
        DataType::Uint32 => "TYPE_UINT32",
        DataType::Uint64 => "TYPE_UINT64",
        DataType::Int8 => "TYPE_INT8",
        DataType::Int16 => "TYPE_INT16",
        DataType::Int32 => "TYPE_INT32",
        DataType::Int64 => "TYPE_INT64",
        DataType::Float16 => "TYPE_FP16",
        DataType::Float32 => "TYPE_FP32",
        DataType::Float64 => "TYPE_FP64",
        DataType::String => "TYPE_STRING",
        DataType::Bfloat16 => "TYPE_BF16",
        _ => return None,
    })
}
