//! The JSON schema of recipes, generated from the option structs of the techniques.

use super::step::{OfCalibration, OfDistill, OfModels};
use crate::distill::DistillOptions;
use crate::ensemble::{EnsembleOptions, MergeOptions};
use crate::package::CompileOptions;
use crate::prune::PruneOptions;
use crate::quantize::QuantizeOptions;
use crate::tensorrt::TensorRtOptions;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// Returns the schema of a recipe (JSON Schema, draft 2020-12).
pub fn schema() -> Value {
    let mut generator = SchemaGenerator::default();
    let steps = [
        step::<QuantizeOptions>("quantize", &[part::<OfCalibration>], &mut generator),
        step::<PruneOptions>("prune", &[part::<OfCalibration>], &mut generator),
        step::<DistillOptions>("distill", &[part::<OfDistill>], &mut generator),
        step::<EnsembleOptions>("ensemble", &[part::<OfModels>], &mut generator),
        step::<MergeOptions>("merge", &[part::<OfModels>], &mut generator),
        step::<CompileOptions>("compile", &[], &mut generator),
        step::<TensorRtOptions>("tensorrt", &[], &mut generator),
    ];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Recipe of liboptimize",
        "description": "Techniques that `optimize apply` applies in order. A step that writes files is the last one.",
        "type": "array",
        "minItems": 1,
        "maxItems": crate::limits::RECIPE_STEPS,
        "items": { "oneOf": steps },
        "$defs": generator.take_definitions(true),
    })
}

/// A function that returns the properties of a struct.
type Part = fn(&mut SchemaGenerator) -> Map<String, Value>;

fn part<T: JsonSchema>(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let schema = T::json_schema(generator).to_value();
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn step<T: JsonSchema>(operation: &str, more: &[Part], generator: &mut SchemaGenerator) -> Value {
    let mut properties = Map::from_iter([("operation".to_owned(), json!({ "const": operation }))]);
    properties.extend(part::<T>(generator));
    more.iter().for_each(|part| properties.extend(part(generator)));
    json!({
        "title": operation,
        "type": "object",
        "properties": properties,
        "required": ["operation"],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::step::OPERATIONS;

    #[test]
    fn every_operation_is_in_it_with_documented_options() {
        let schema = schema();
        let steps = schema["items"]["oneOf"].as_array().unwrap();
        let names: Vec<&str> = steps.iter().filter_map(|step| step["title"].as_str()).collect();
        assert_eq!(names, OPERATIONS);
        let quantize = &steps[0]["properties"];
        assert_eq!(quantize["type"]["oneOf"][1]["const"], "weight-only", "{quantize}");
        assert_eq!(quantize["bits"]["default"], 8);
        assert!(quantize["bits"]["description"].as_str().unwrap().starts_with("Number of bits per weight"));
        assert!(quantize.get("scratch_folder").is_none() && quantize.get("calibration").is_some());
        assert!(steps[2]["properties"]["student"]["description"].as_str().unwrap().contains("layers:N"));
        // Everything that the schema refers to is defined.
        let text = schema.to_string();
        for reference in text.split("\"#/$defs/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(schema["$defs"].get(reference).is_some(), "{reference} is not defined");
        }
    }
}
