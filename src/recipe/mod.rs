//! Recipes: techniques that are applied one after another, as a short JSON list that can be kept, repeated and shared.
//!
//! ```json
//! [
//! {"operation": "prune", "method": "structured", "sparsity": 0.3, "calibration": "text.txt", "reconstruct": true},
//! {"operation": "distill", "data": "text.txt", "epochs": 1},
//! {"operation": "quantize", "type": "dynamic"},
//! {"operation": "compile", "dynamic": true}
//! ]
//! ```
//!
//! A step has the name of its operation, as in reports, and those options that differ from their defaults. The options
//! have the names of the fields of the techniques' option structs; `step` has the operations, and the fields that name
//! data and other models. [`Recipe::parse`] reads a recipe, [`apply`] runs it on a model and writes the result. The
//! reports of the steps become the lineage of the resulting model, which its package contains.
//! [`Report::recipe`](crate::report::Report::recipe) has the recipe that repeats an operation.

mod apply;
mod data;
#[cfg(feature = "cli")]
mod schema;
mod step;
mod target;

pub use apply::{ApplyOptions, apply};
pub use data::{calibrated, calibrated_on};
#[cfg(feature = "cli")]
pub use schema::schema;
pub use step::{Data, Step, Work};
pub use target::Target;

use crate::error::{Context, Result, bail, error};
use crate::limits;
use crate::source::Dialect;
use serde_json::Value;

/// A recipe whose steps were checked.
#[derive(Debug, Clone)]
pub struct Recipe {
    steps: Vec<Step>,
    json: Vec<Value>,
}

impl Recipe {
    /// Returns the recipe that a JSON text contains. The text is a list of steps, a report with the field `recipe`, or
    /// the manifest of a package with the lineage of its model.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] for any other text, for an unknown operation or option (the
    /// message names the step), for no steps or more than [`limits::RECIPE_STEPS`], and if a step that writes files
    /// (`compile`, `tensorrt`) is not the last one; with [`crate::error::Kind::LimitExceeded`] for a text of more than
    /// [`limits::CONFIG_BYTES`] bytes.
    pub fn parse(json: &str) -> Result<Recipe> {
        if json.len() as u64 > limits::CONFIG_BYTES {
            bail!(LimitExceeded, "the recipe has {} bytes; the limit is {}", json.len(), limits::CONFIG_BYTES);
        }
        let value: Value =
            serde_json::from_str(json).map_err(|e| error!(InvalidArgument, "the recipe is not JSON: {e}"))?;
        Recipe::of(value)
    }

    /// Returns the recipe that a JSON value describes. Fails like [`Recipe::parse`], which describes the value.
    pub fn of(value: Value) -> Result<Recipe> {
        let list = match value {
            Value::Array(list) => list,
            Value::Object(object) => match (object.get("recipe"), object.get("lineage")) {
                (Some(Value::Array(list)), _) => list.clone(),
                (_, Some(Value::Array(steps))) => {
                    steps.iter().filter_map(|step| step["recipe"].as_array()).flatten().cloned().collect()
                }
                _ => bail!(InvalidArgument, "the recipe is an object without a list \"recipe\" or \"lineage\""),
            },
            _ => bail!(InvalidArgument, "the recipe is not a list of steps"),
        };
        if list.is_empty() || list.len() > limits::RECIPE_STEPS {
            bail!(InvalidArgument, "the recipe has {} steps; it must have 1 to {}", list.len(), limits::RECIPE_STEPS);
        }
        let steps: Vec<Step> = list
            .iter()
            .enumerate()
            .map(|(index, step)| Step::of(step).at(|| format!("step {}", index + 1)))
            .collect::<Result<_>>()?;
        let early = steps[..steps.len() - 1].iter().position(Step::writes);
        if let Some(index) = early {
            let name = steps[index].name();
            bail!(InvalidArgument, "step {} ({name}) writes the result and must be the last one", index + 1);
        }
        Ok(Recipe { steps, json: list })
    }

    /// Returns the steps of the recipe.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns the steps of the recipe as JSON, as they were given.
    pub fn json(&self) -> &[Value] {
        &self.json
    }

    /// Returns whether a step needs [`ApplyOptions::data`]: it has `true` in place of a file, or is a `distill` step
    /// without the field `data`.
    pub fn needs_data(&self) -> bool {
        self.steps.iter().any(Step::needs_data)
    }

    /// Returns the dialect with which a checkpoint or GGUF file must be loaded for this recipe: that of TensorRT,
    /// [`Dialect::Portable`], if the last step is `tensorrt`, otherwise the default.
    pub fn dialect(&self) -> Dialect {
        match self.steps.last().map(|step| &step.work) {
            Some(Work::TensorRt(_)) => Dialect::Portable,
            _ => Dialect::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::PruneOptions;
    use crate::quantize::{QuantizeOptions, QuantizeType};
    use crate::report::Report;

    fn refused(json: &str) -> String {
        Recipe::parse(json).unwrap_err().to_string()
    }

    #[test]
    fn steps_have_the_names_of_options_and_their_defaults() {
        let recipe = Recipe::parse(
            r#"[{"operation": "prune", "pattern": "2:4"},
                {"operation": "quantize", "type": "weight-only", "overrides": [{"pattern": "a*", "bits": 8}],
                 "calibration": "text.txt", "calibration_windows": 3}]"#,
        )
        .unwrap();
        let [prune, quantize] = recipe.steps() else { panic!("{recipe:?}") };
        let Work::Prune(options) = &prune.work else { panic!("{prune:?}") };
        assert_eq!((options.sparsity, options.pattern.unwrap().of, options.min_elements), (0.5, 4, 1024));
        let Work::Quantize(options) = &quantize.work else { panic!("{quantize:?}") };
        assert_eq!((options.bits, options.quantize_type, options.min_elements), (4, QuantizeType::WeightOnly, 1024));
        assert_eq!((options.overrides[0].bits, options.overrides[0].block_size), (8, 0));
        assert!(options.race && !recipe.needs_data());
    }

    #[test]
    fn mistakes_are_named_with_their_step() {
        assert!(refused("[{\"operation\": \"quantize\"}, {\"operation\": \"shrink\"}]").starts_with("step 2"));
        let unknown = refused("[{\"operation\": \"quantize\", \"bit\": 4}]");
        assert!(unknown.contains("step 1") && unknown.contains("`bit`"), "{unknown}");
        assert!(refused("[{\"bits\": 4}]").contains("operation"));
        assert!(refused("[]").contains("0 steps") && refused("7").contains("not a list"));
        assert!(refused("{\"a\": 1}").contains("\"recipe\"") && refused("[").contains("not JSON"));
        let early = refused("[{\"operation\": \"compile\"}, {\"operation\": \"quantize\"}]");
        assert!(early.contains("step 1 (compile)"), "{early}");
        assert!(refused("[{\"operation\": \"quantize\", \"calibration\": false}]").contains("calibration"));
    }

    #[test]
    fn reports_of_techniques_are_recipes() {
        let options = QuantizeOptions { bits: 4, quantize_type: QuantizeType::WeightOnly, ..Default::default() };
        let mut report = Report::of_technique("quantize", &options, &["type", "bits"]);
        assert_eq!(
            serde_json::to_string(&report.recipe).unwrap(),
            r#"[{"operation":"quantize","type":"weight-only","bits":4}]"#
        );
        report.note_in_recipe("calibration", true);
        assert!(Recipe::parse(&report.to_json()).unwrap().needs_data());
        let report = Report::of_technique("prune", &PruneOptions::structured(), &["method", "sparsity"]);
        assert_eq!(
            serde_json::to_string(&report.recipe).unwrap(),
            r#"[{"operation":"prune","method":"structured","sparsity":0.3}]"#
        );
    }
}
