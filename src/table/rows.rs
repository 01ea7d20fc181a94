//! The rows of the table: each technique as a recipe for one kind of model, and its common promise.

use super::report::Promise;
use crate::choice::choice;
use crate::model::Task;
use serde_json::{Value, json};

choice! {
    /// The name of a row of the table.
    pub(super) enum Name {
        /// The unchanged model, compiled ahead of time.
        Compile = 0, "compile";
        /// The model with products in bfloat16, compiled ahead of time.
        Bf16 = 1, "bf16";
        /// 8-bit weights: dynamic for encoders, in blocks for decoders.
        Int8 = 2, "int8";
        /// 8-bit weights and activations with calibrated scales.
        Static = 3, "static";
        /// 4-bit weights in blocks.
        Int4 = 4, "int4";
        /// 4-bit weights in blocks of 16, fitted to data.
        Gptq = 5, "gptq";
        /// Pruning of 30 % of the weights, by magnitude.
        Prune30 = 6, "prune-30";
        /// Pruning of 50 % of the weights, by magnitude.
        Prune50 = 7, "prune-50";
        /// Removal of 30 % of neurons, channels and heads.
        Structured = 8, "structured-30";
        /// A student with half of the layers.
        Distill = 9, "distill";
        /// The model combined with another one.
        Ensemble = 10, "ensemble";
        /// Structured pruning, training to recover quality, and 8-bit weights.
        Chain = 11, "chain";
        /// A TensorRT engine in fp16.
        TensorRt = 12, "tensorrt";
    }
}

/// Returns the names of all rows, in the order of the table.
pub fn names() -> Vec<&'static str> {
    Name::ALL.iter().map(|name| name.name()).collect()
}

/// The properties of the model and of the options that recipes depend on.
pub(super) struct Given<'a> {
    /// Task of the model.
    pub task: Task,
    /// Whether the caller passes data.
    pub data: bool,
    /// Maximum time in seconds of a training.
    pub training_seconds: f64,
    /// Path of another model for the ensemble; `None` if there is none.
    pub member: Option<&'a str>,
}

/// A row that is planned, with its recipe.
pub(super) struct Plan {
    /// Name of the row.
    pub name: Name,
    /// Title of the row in the table.
    pub title: &'static str,
    /// Steps of the recipe that makes the package.
    pub recipe: Vec<Value>,
    /// Size, speed and quality that are promised.
    pub promise: Promise,
    /// Description of what is missing; `None` if the row can be measured.
    pub lacks: Option<&'static str>,
    /// Reasons why a promise may not be met, by size, speed and quality; empty if no reason is known.
    pub because: [&'static str; 3],
}

const NO_DATA: &str = "needs a text: --data";

/// Returns the plan of a row.
pub(super) fn plan(name: Name, given: &Given<'_>) -> Plan {
    let maker = Maker { name, given, decoder: given.task == Task::Generate };
    match name {
        Name::Compile | Name::Bf16 => maker.compiled(),
        Name::Int8 | Name::Static => maker.eight_bits(),
        Name::Int4 | Name::Gptq => maker.four_bits(),
        Name::Prune30 | Name::Prune50 | Name::Structured => maker.pruned(),
        Name::Distill | Name::Chain => maker.trained(),
        Name::Ensemble => maker.combined(),
        Name::TensorRt => maker.engine(),
    }
}

/// A maker of plans of rows.
struct Maker<'a> {
    name: Name,
    given: &'a Given<'a>,
    decoder: bool,
}

/// Returns the last step of most rows, which writes a package with a portable graph.
fn ship() -> Value {
    json!({ "operation": "compile", "dynamic": true, "portable_only": true })
}

/// Returns the promise of a row. For `smaller` and for the speed-up, 0 stands for no promise.
fn promise(smaller: f64, [from, to]: [f64; 2], loss: &str) -> Promise {
    Promise {
        smaller: (smaller != 0.0).then_some(smaller),
        speedup: (from > 0.0).then_some([from, to]),
        loss: loss.to_owned(),
    }
}

/// Returns a step of weight-only quantization.
fn blocks(bits: u32) -> Value {
    json!({ "operation": "quantize", "type": "weight-only", "bits": bits })
}

impl Maker<'_> {
    fn plan(&self, title: &'static str, recipe: Vec<Value>, promise: Promise, because: [&'static str; 3]) -> Plan {
        Plan { name: self.name, title, recipe, promise, lacks: None, because }
    }

    /// Returns a description of what is missing if the caller passes no data; otherwise `None`.
    fn lacks_data(&self) -> Option<&'static str> {
        if self.given.data { None } else { Some(NO_DATA) }
    }

    /// Returns the step of 8-bit weights.
    fn to_8_bits(&self) -> Value {
        match self.decoder {
            true => blocks(8),
            false => json!({ "operation": "quantize", "type": "dynamic", "bits": 8 }),
        }
    }

    fn compiled(&self) -> Plan {
        let compile = |variant: &str| vec![json!({ "operation": "compile", "dynamic": true, "variants": [variant] })];
        if self.name == Name::Compile {
            let why = "ONNX Runtime optimizes the original in the same way when it loads it; float32 products are \
                       bound by the processor, and the promise is one over frameworks that interpret the model";
            return self.plan("AOT compilation", compile("fp32"), promise(0.0, [1.5, 3.0], "none"), ["", why, ""]);
        }
        let why = "the processor has no instructions for products in bfloat16";
        let lacks = "for encoders: a token of a decoder is bound by memory, which int8 and int4 reduce";
        Plan {
            lacks: self.decoder.then_some(lacks),
            ..self.plan(
                "bfloat16 products, compiled",
                compile("bf16"),
                promise(0.0, [1.5, 3.0], "minimal"),
                ["", why, ""],
            )
        }
    }

    fn eight_bits(&self) -> Plan {
        let promised = promise(0.75, [1.5, 2.0], "minimal");
        let slow = "the processor's int8 products are no faster here";
        if self.name == Name::Int8 {
            let size = "tokenizer, biases and scales are not in 8 bits";
            let quality = "activations have outliers that 8 bits do not hold";
            return self.plan("8-bit quantization", vec![self.to_8_bits(), ship()], promised, [size, slow, quality]);
        }
        let step = json!({ "operation": "quantize", "type": "static", "calibration": true });
        let size =
            "biases, scales and files such as a tokenizer are not in 8 bits, and embedding tables stay as they are";
        let quality = "one range per activation does not hold the outliers of a transformer";
        let for_encoders = self.decoder.then_some("for encoders: activations of decoders have outliers");
        Plan {
            lacks: for_encoders.or(self.lacks_data()),
            ..self.plan("8-bit, static", vec![step, ship()], promised, [size, slow, quality])
        }
    }

    fn four_bits(&self) -> Plan {
        if self.name == Name::Int4 {
            let because = [
                "blocks of 32 weights take 4.5 bits per weight with their scales, and other files keep their size",
                "4-bit weights save memory traffic, which bounds single tokens; many tokens are bound by the processor",
                "rounding to 16 values costs a small model more than a large one; the row gptq fits them to data",
            ];
            let promised = promise(0.87, [2.0, 3.0], "moderate");
            return self.plan("4-bit quantization", vec![blocks(4), ship()], promised, because);
        }
        let mut step = blocks(4);
        for (key, value) in [("block_size", json!(16)), ("algorithm", "gptq".into()), ("calibration", true.into())] {
            step[key] = value;
        }
        let because = [
            "blocks of 16 weights take 5 bits per weight, and other files keep their size",
            "products of many tokens are bound by the processor, not by the size of the weights",
            "the model is small, and so has little redundancy",
        ];
        let promised = promise(0.85, [2.0, 3.0], "minimal");
        Plan { lacks: self.lacks_data(), ..self.plan("4-bit, GPTQ", vec![step, ship()], promised, because) }
    }

    /// Returns the step of structured pruning.
    fn narrow(&self) -> Value {
        let mut step = json!({ "operation": "prune", "method": "structured", "sparsity": 0.3 });
        if self.given.data {
            for (key, value) in [
                ("importance", json!("activation")),
                ("reconstruct", true.into()),
                ("calibration", true.into()),
                ("calibration_windows", 16.into()),
            ] {
                step[key] = value;
            }
        }
        step
    }

    fn pruned(&self) -> Plan {
        if self.name == Name::Structured {
            let because = [
                "embedding tables, inputs and outputs keep their width, so less than 30 % of the file is removed",
                "only the products shrink; softmax, normalization and activations of what is left do not",
                "the row is not trained after pruning; the row chain is",
            ];
            let promised = promise(0.3, [1.3, 1.8], "moderate");
            return self.plan("Structured pruning, 30 %", vec![self.narrow(), ship()], promised, because);
        }
        let (sparsity, speedup, title) = match self.name {
            Name::Prune30 => (0.3, [1.2, 1.5], "Magnitude pruning, 30 %"),
            _ => (0.5, [1.5, 2.0], "Magnitude pruning, 50 %"),
        };
        let prune = json!({ "operation": "prune", "method": "magnitude", "sparsity": sparsity });
        let packed = json!({ "operation": "compile", "dynamic": true, "packed": true });
        let because = [
            "some weights, such as embedding tables, are not pruned, and each zero takes one bit",
            "a zero is multiplied like any other number: no processor skips zeros that are scattered, so the speed is \
             that of the original",
            "the row is not trained after pruning",
        ];
        self.plan(title, vec![prune, packed], promise(sparsity, speedup, "moderate"), because)
    }

    /// Returns a step that trains on the data of the caller.
    fn train(&self, learning_rate: f64) -> Value {
        json!({ "operation": "distill", "data": true, "epochs": 20, "time_limit": self.given.training_seconds,
                "sequence_length": 64, "batch_size": 8, "learning_rate": learning_rate })
    }

    fn trained(&self) -> Plan {
        if self.name == Name::Distill {
            let mut step = self.train(2e-4);
            step["student"] = "layers:every-other".into();
            let promised = promise(0.0, [1.5, 2.0], "varies");
            let because = ["", "embedding and output layer are not halved", "the training was limited in time"];
            let plan = self.plan("Distillation, half the layers", vec![step, ship()], promised, because);
            return Plan { lacks: self.lacks_data(), ..plan };
        }
        let recipe = vec![self.narrow(), self.train(1e-4), self.to_8_bits(), ship()];
        let because = [
            "embedding tables, inputs and outputs keep their width",
            "the processor's int8 products are no faster here",
            "the training was limited in time",
        ];
        let promised = promise(0.8, [2.0, 3.0], "moderate");
        Plan { lacks: self.lacks_data(), ..self.plan("Prune 30 %, train, 8 bits, compile", recipe, promised, because) }
    }

    fn combined(&self) -> Plan {
        let member = self.given.member.unwrap_or("");
        let step = json!({ "operation": "ensemble", "models": [member], "method": "mean" });
        let because = ["", "", "a second model that is weaker than the first does not improve it"];
        let plan = self.plan("Ensemble of two", vec![step, ship()], promise(0.0, [0.0, 0.0], "better"), because);
        let lacks = "needs a second model: --with, or the row distill";
        Plan { lacks: self.given.member.is_none().then_some(lacks), ..plan }
    }

    fn engine(&self) -> Plan {
        let step = json!({ "operation": "tensorrt", "precision": "fp16", "sequence_length": 128, "batch_size": 1 });
        self.plan("TensorRT, fp16", vec![step], promise(0.5, [2.0, 5.0], "none"), ["", "", ""])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn every_row_has_a_recipe_that_is_valid() {
        for task in [Task::Embed, Task::Generate, Task::Classify, Task::Unknown] {
            for (data, member) in [(true, Some("a")), (false, None)] {
                for name in Name::ALL {
                    let plan = plan(*name, &Given { task, data, training_seconds: 9.0, member });
                    let recipe = Recipe::of(Value::Array(plan.recipe.clone())).unwrap();
                    assert!(data || plan.lacks.is_some() || !recipe.needs_data(), "{}", name.name());
                    assert!(recipe.steps().last().unwrap().writes(), "{} ships no package", name.name());
                }
            }
        }
    }
}
