//! Every key of a configuration is used, named in a warning, or rejected: checked for every family against the effect
//! in transformers (`fixtures/configurations`), alone and in random combinations.
//!
//! OPTIMIZE_PROPERTY_CASES is the number of random configurations (300).

mod common;

use common::Random;
use optimize::error::{Error, Kind, Result};
use optimize::onnx::dtype::DataType;
use optimize::onnx::save;
use optimize::source::weights::{Form, Stored, Weights};
use optimize::source::{Dialect, checkpoint};
use serde_json::{Map, Value};
use std::collections::HashSet;

struct Table {
    trials: Vec<(String, Value)>,
    families: Vec<Family>,
}

struct Family {
    name: String,
    config: Map<String, Value>,
    tensors: HashSet<String>,
    defaults: Map<String, Value>,
    effects: Vec<char>,
}

fn table() -> Table {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/configurations/families.json");
    let read: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let family = |(name, family): (&String, &Value)| Family {
        name: name.clone(),
        config: family["config"].as_object().unwrap().clone(),
        tensors: serde_json::from_value(family["tensors"].clone()).unwrap(),
        defaults: family["defaults"].as_object().unwrap().clone(),
        effects: family["effects"].as_str().unwrap().chars().collect(),
    };
    Table {
        trials: serde_json::from_value(read["trials"].clone()).unwrap(),
        families: read["families"].as_object().unwrap().iter().map(family).collect(),
    }
}

/// Tensors of any requested shape, under the names of the tensors of a family; every layer has the tensors of a layer.
struct Any<'a>(&'a HashSet<String>);

impl Any<'_> {
    fn has(&self, name: &str) -> bool {
        let digits = |part: &&str| part.chars().all(|c| c.is_ascii_digit());
        let parts: Vec<&str> = name.split('.').map(|part| if digits(&part) { "0" } else { part }).collect();
        self.0.contains(&parts.join("."))
    }
}

impl Weights for Any<'_> {
    fn find(&self, name: &str) -> Result<Option<Stored>> {
        // Different bytes for different names: no two tensors are the same.
        let bytes = name.as_bytes().to_vec().into();
        Ok(self.has(name).then_some(Stored { dims: vec![], form: Form::Plain(DataType::Float32), bytes }))
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }

    fn shaped(&self, name: &str, dims: &[i64]) -> Result<Stored> {
        if !self.has(name) {
            return Err(Error::new(Kind::InvalidModel, format!("the checkpoint has no tensor {name:?}")));
        }
        // The elements are not read, so a few bytes stand for all of them.
        let bytes = vec![0; 4].into();
        Ok(Stored { dims: dims.to_vec(), form: Form::Plain(DataType::Float32), bytes })
    }
}

/// Returns the result for a configuration: the bytes of its graph and the warnings, or the error.
fn outcome(family: &Family, config: &Map<String, Value>) -> std::result::Result<(Vec<u8>, String), String> {
    let built = checkpoint::build(config, &Any(&family.tensors), Dialect::Portable).map_err(|e| e.to_string())?;
    Ok((save::encode(&built.proto).concat(), built.warnings.join("\n")))
}

fn with(config: &Map<String, Value>, key: &str, value: &Value) -> Map<String, Value> {
    let mut config = config.clone();
    config.insert(key.to_owned(), value.clone());
    config
}

#[test]
fn every_key_does_what_it_does_in_transformers_or_is_named_or_refused() {
    let table = table();
    let (mut tried, mut named, mut refused, mut heard) = (0, 0, 0, 0);
    for family in &table.families {
        let (base, said) = outcome(family, &family.config).unwrap_or_else(|e| panic!("{}: {e}", family.name));
        assert_eq!(said, "", "{}", family.name);
        for ((key, value), effect) in table.trials.iter().zip(&family.effects) {
            tried += 1;
            match outcome(family, &with(&family.config, key, value)) {
                Err(_) => refused += 1,
                Ok((_, warnings)) if warnings.contains(key.as_str()) => named += 1,
                Ok((graph, _)) => {
                    let same = graph == base;
                    heard += usize::from(!same);
                    assert_eq!(same, *effect == 's', "{}: {key} = {value} is {effect} in transformers", family.name);
                }
            }
        }
    }
    println!(
        "{tried} keys and values: {refused} refused, {named} named, {heard} in the graph, the rest changes nothing"
    );
    // Almost all keys that change the results are supported.
    assert!(tried > 2000 && heard > 150 && named + refused < tried, "{tried} {heard}");
}

#[test]
fn what_is_absent_has_the_default_of_the_family() {
    let mut compared = 0;
    for family in &table().families {
        for (key, default) in family.defaults.iter().filter(|(_, default)| !default.is_null()) {
            let mut absent = family.config.clone();
            absent.remove(key);
            let said = outcome(family, &with(&family.config, key, default)).map(|(graph, _)| graph);
            let silent = outcome(family, &absent).map(|(graph, _)| graph);
            compared += usize::from(said.is_ok());
            assert_eq!(said.is_ok(), silent.is_ok(), "{}: {key}: {said:?} {silent:?}", family.name);
            assert!(said.is_err() || said == silent, "{}: {key} is not {default} where it is absent", family.name);
        }
    }
    println!("{compared} defaults");
    assert!(compared > 150, "{compared}");
}

#[test]
fn random_configurations_are_built_alike_with_or_without_defaults_and_name_what_they_ignore() {
    let cases = std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let (table, mut random, mut built) = (table(), Random(7), 0);
    for _ in 0..cases {
        let family = &table.families[random.below(table.families.len())];
        let mut config = family.config.clone();
        let mut unheard = Vec::new();
        for _ in 0..random.below(6) {
            let (key, value) = &table.trials[random.below(table.trials.len())];
            // Does the key cause a warning on its own?
            let alone = outcome(family, &with(&family.config, key, value));
            if alone.is_ok_and(|(_, warnings)| warnings.contains(key.as_str())) {
                unheard.push(key);
            }
            config.insert(key.clone(), value.clone());
        }
        // Add an unknown key.
        let odd = format!("x{}", random.next());
        config.insert(odd.clone(), [Value::Null, Value::from(false), Value::from(0.5)][random.below(3)].clone());
        let known = !config[&odd].is_null();
        let first = outcome(family, &config);
        // Insert the default where a key is missing, and null where the default is null.
        for (key, default) in &family.defaults {
            if !config.contains_key(key) && random.below(2) == 0 && !(key == "layer_types" && family.name == "mistral")
            {
                config.insert(key.clone(), default.clone());
            }
        }
        // A default that is null may not be a valid value in a file.
        let second = outcome(family, &config);
        if let (Ok((graph, warnings)), Ok((again, _))) = (&first, &second) {
            built += 1;
            assert!(graph == again, "{}: {config:?}", family.name);
            assert_eq!(warnings.contains(&odd), known, "{}: {warnings}", family.name);
            for key in unheard.iter().filter(|key| !config[**key].is_null()) {
                assert!(
                    warnings.contains(key.as_str()) || table.trials.iter().filter(|(k, _)| k == *key).count() > 1,
                    "{key}: {warnings}"
                );
            }
        } else {
            assert!(first.is_err() || second.is_err());
        }
    }
    println!("{cases} random configurations, {built} of them built");
    assert!(built * 5 > cases, "{built} of {cases}");
}
