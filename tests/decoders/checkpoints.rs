//! Configurations of checkpoints: older formats, names and shapes, and unsupported ones.

use super::*;

fn config(family: &str) -> Map<String, Value> {
    serde_json::from_slice(&std::fs::read(folder(family).join("config.json")).unwrap()).unwrap()
}

fn weights(family: &str) -> Safetensors {
    Safetensors::open_folder(&folder(family)).unwrap()
}

fn build(config: &Map<String, Value>, weights: &dyn Weights, dialect: Dialect) -> Result<Vec<u8>, Error> {
    Ok(save::encode(&checkpoint::build(config, weights, dialect)?.proto).concat())
}

/// Returns the configuration in the format of transformers 4, with rotary positions spread over several keys and
/// without a list of layers.
fn older(mut config: Map<String, Value>) -> Map<String, Value> {
    let Some(Value::Object(mut rope)) = config.remove("rope_parameters") else { return config };
    if let Some(local) = rope.remove("sliding_attention") {
        config.insert("rope_local_base_freq".into(), local["rope_theta"].clone());
        config.insert("sliding_window_pattern".into(), json!(2));
        rope = rope["full_attention"].as_object().unwrap().clone();
    }
    config.insert("rope_theta".into(), rope.remove("rope_theta").unwrap());
    if rope["rope_type"] != "default" {
        let kind = rope.remove("rope_type").unwrap();
        rope.insert("type".into(), kind);
        config.insert("rope_scaling".into(), Value::Object(rope));
    }
    config.remove("layer_types");
    if config.remove("no_rope_layers").is_some() {
        config.insert("no_rope_layer_interval".into(), json!(2));
    }
    config
}

#[test]
fn older_configurations_mean_the_same() {
    for family in FAMILIES {
        for dialect in BOTH {
            let (new, old) = (config(family), older(config(family)));
            assert!(*family == "gpt2" || new != old);
            let weights = weights(family);
            assert_eq!(build(&new, &weights, dialect).unwrap(), build(&old, &weights, dialect).unwrap(), "{family}");
        }
    }
}

#[test]
fn null_in_a_key_that_the_family_does_not_read_changes_nothing() {
    let cases: [(&str, &[&str]); 5] = [
        ("mistral", &["attention_bias", "mlp_bias", "hidden_activation"]),
        ("qwen2", &["attention_bias", "mlp_bias"]),
        ("phi3", &["attention_bias", "mlp_bias"]),
        ("gemma2", &["mlp_bias", "hidden_act"]),
        ("gemma3", &["mlp_bias", "hidden_act"]),
    ];
    for (family, keys) in cases {
        let (mut config, weights) = (config(family), weights(family));
        let usual = checkpoint::build(&config, &weights, Dialect::Portable).unwrap();
        for key in keys {
            config.insert((*key).into(), Value::Null);
        }
        let built = checkpoint::build(&config, &weights, Dialect::Portable).unwrap();
        assert_eq!(built.warnings, usual.warnings, "{family}");
        assert!(save::encode(&built.proto).concat() == save::encode(&usual.proto).concat(), "{family}");
    }
    let mut config = config("llama");
    config.insert("attention_bias".into(), Value::Null);
    assert!(build(&config, &weights("llama"), Dialect::Portable).is_err());
}

#[test]
fn a_head_in_the_file_counts_although_the_configuration_ties_it() {
    for family in ["llama", "qwen2"] {
        for dialect in BOTH {
            let mut config = config(family);
            config.insert("tie_word_embeddings".into(), json!(true));
            let weights = weights(family);
            let built = checkpoint::build(&config, &weights, dialect).unwrap();
            let model = Model::from_proto(built.proto);
            for reference in references(family) {
                let found = Decoder::new(&model, dialect, 1).feed(&[&reference.ids]);
                assert!(difference(&found[0], &reference.logits) < TOLERANCE, "{family}");
            }
        }
    }
}

#[test]
fn keys_and_tensors_that_are_not_used_are_named_when_a_checkpoint_is_loaded() {
    let folder = support::scratch("unused");
    for name in ["model.safetensors", "config.json"] {
        std::fs::copy(self::folder("llama").join(name), folder.join(name)).unwrap();
    }
    assert!(Model::load(&folder).unwrap().card().warnings.is_empty());
    let mut config = config("llama");
    config.insert("num_hidden_layers".into(), json!(1));
    config.insert("attention_multiplier".into(), json!(0.25));
    config.insert("architectures".into(), json!(["OtherForCausalLM"]));
    config.insert("auto_map".into(), json!({"AutoModelForCausalLM": "modeling_other.OtherForCausalLM"}));
    std::fs::write(folder.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    std::fs::write(folder.join("generation_config.json"), r#"{"num_beams": 4, "top_k": 5}"#).unwrap();
    std::fs::write(folder.join("adapter_config.json"), r#"{"peft_type": "LORA"}"#).unwrap();
    let tokenizer = json!({"added_tokens": [{"id": 150, "content": "<new>"}], "model": {"vocab": {"a": 149}}});
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let model = Model::load(&folder).unwrap();
    let inspected = optimize::inspect::inspect(&model).to_json();
    for said in [
        "attention_multiplier = 0.25",
        "the class OtherForCausalLM is not known",
        "modeling_other.OtherForCausalLM",
        "9 tensors of the checkpoint are not used by OtherForCausalLM: model.layers.1.input_layernorm.weight",
        "generation_config.json: keys that are ignored: num_beams = 4",
        "<new>",
        "adapter_config.json: the adapter in the folder is not applied",
    ] {
        assert!(model.card().warnings.iter().any(|warning| warning.contains(said)), "{said}: {inspected}");
    }
    assert!(inspected.contains("attention_multiplier"));
}

#[test]
fn a_context_that_yarn_stretches_is_written_beyond_the_length_of_the_training() {
    // This follows the instructions of Qwen2.5's authors: max_position_embeddings stays unchanged.
    let mut config = config("llama");
    config.insert("max_position_embeddings".into(), json!(8));
    let yarn = json!({"rope_type": "yarn", "factor": 3.0, "rope_theta": 100.0, "original_max_position_embeddings": 8});
    config.insert("rope_parameters".into(), yarn);
    let ids: Vec<i64> = (3..23).collect();
    let of = |dialect| {
        let built = checkpoint::build(&config, &weights("llama"), dialect).unwrap();
        Decoder::new(&Model::from_proto(built.proto), dialect, 1).feed(&[&ids]).remove(0)
    };
    // Fused attention reads the rotary cosines and sines from tables that have a row for each position.
    assert!(difference(&of(Dialect::Runtime), &of(Dialect::Portable)) < TOLERANCE);
}

/// Weights under other names, in which a prefix is replaced.
struct Renamed<'a>(&'a Safetensors, &'static str, &'static str);

impl Weights for Renamed<'_> {
    fn find(&self, name: &str) -> optimize::error::Result<Option<Stored>> {
        match name.strip_prefix(self.1) {
            Some(rest) => self.0.find(&format!("{}{rest}", self.2)),
            None => Ok(None),
        }
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The weights of a tied model with the table under the name of the output layer only, or without it. `save_model` of
/// safetensors writes the former.
struct HeadOnly<'a>(&'a Safetensors, &'a str, bool);

impl Weights for HeadOnly<'_> {
    fn find(&self, name: &str) -> optimize::error::Result<Option<Stored>> {
        match name {
            _ if name == self.1 => Ok(None),
            "lm_head.weight" if self.2 => self.0.find(self.1),
            _ => self.0.find(name),
        }
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn the_table_of_a_tied_model_may_have_the_name_of_the_output_layer() {
    for family in ["llama-tied", "gemma", "gemma2", "gemma3", "smollm3", "gpt2"] {
        let weights = weights(family);
        let table = if family == "gpt2" { "transformer.wte.weight" } else { "model.embed_tokens.weight" };
        let mut config = config(family);
        let of = |config: &Map<String, Value>, head| build(config, &HeadOnly(&weights, table, head), Dialect::Portable);
        assert!(of(&config, true).unwrap() == build(&config, &weights, Dialect::Portable).unwrap(), "{family}");
        assert!(of(&config, false).unwrap_err().to_string().contains(table), "{family}");
        config.insert("tie_word_embeddings".into(), json!(false));
        assert!(of(&config, true).unwrap_err().to_string().contains(table), "{family}");
    }
    let weights = weights("llama");
    let body = build(&config("llama"), &HeadOnly(&weights, "lm_head.weight", false), Dialect::Portable);
    let error = body.unwrap_err().to_string();
    assert!(error.contains("\"lm_head.weight\": a decoder without an output layer cannot generate text"), "{error}");
}

#[test]
fn the_body_alone_and_the_text_model_inside_a_larger_one_are_found() {
    let cases = [("gpt2", "", "transformer."), ("gemma2", "", "model."), ("gemma3", "language_model.model.", "model.")];
    for (family, there, here) in cases {
        let weights = weights(family);
        let built = build(&config(family), &Renamed(&weights, there, here), Dialect::Portable);
        assert!(!built.unwrap().is_empty(), "{family}");
    }
    let folder = support::scratch("nested");
    std::fs::copy(self::folder("gemma3").join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let nested = json!({"model_type": "gemma3", "eos_token_id": [1, 106], "text_config": config("gemma3")});
    let mut nested = nested.as_object().unwrap().clone();
    nested["text_config"].as_object_mut().unwrap().remove("eos_token_id");
    std::fs::write(folder.join("config.json"), serde_json::to_vec(&nested).unwrap()).unwrap();
    let model = Model::load(&folder).unwrap();
    assert_eq!(model.card().architecture.as_deref(), Some("gemma3_text"));
    assert_eq!(model.card().generation.eos_token_ids, [1, 106]);
    assert_eq!(model.card().integer("max_position_embeddings"), Some(64));
}

#[test]
fn heads_the_fused_kernel_does_not_take_are_built_of_standard_operators() {
    let mut config = config("llama");
    for (key, value) in [("num_attention_heads", 8), ("num_key_value_heads", 4), ("head_dim", 8)] {
        config.insert(key.into(), json!(value));
    }
    let built = checkpoint::build(&config, &weights("llama"), Dialect::Runtime).unwrap();
    let model = Model::from_proto(built.proto);
    assert!(model.inputs().iter().any(|input| input.name == "position_ids"));
    let found = Decoder::new(&model, Dialect::Portable, 1).feed(&[&[5, 6, 7]]);
    assert!(found[0].iter().all(|logit| logit.is_finite()));
}

#[test]
fn what_cannot_be_built_says_why() {
    let fault = |changes: Value, kind: Kind, reason: &str| {
        let mut config = config("llama");
        for (key, value) in changes.as_object().unwrap() {
            config.insert(key.clone(), value.clone());
        }
        for dialect in BOTH {
            let error = build(&config, &weights("llama"), dialect).unwrap_err();
            assert!(error.kind() == kind && error.to_string().contains(reason), "{changes}: {error}");
        }
    };
    fault(json!({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}), Kind::Unsupported, "MambaForCausalLM");
    fault(json!({"model_type": "mamba"}), Kind::Unsupported, "gemma3_text, gpt2");
    fault(json!({"model_type": 7}), Kind::InvalidModel, "model_type");
    fault(json!({"architectures": ["LlamaForSequenceClassification"]}), Kind::Unsupported, "text generation");
    fault(json!({"quantization_config": {"quant_method": "gptq"}}), Kind::Unsupported, "gptq");
    fault(json!({"num_hidden_layers": 1_000_000_000}), Kind::LimitExceeded, "layers");
    fault(json!({"num_hidden_layers": 3}), Kind::InvalidModel, "model.layers.2.input_layernorm.weight");
    fault(json!({"head_dim": 1 << 30}), Kind::LimitExceeded, "heads");
    fault(json!({"hidden_size": u64::MAX}), Kind::InvalidModel, "hidden_size");
    fault(json!({"hidden_size": -40}), Kind::InvalidModel, "hidden_size");
    fault(json!({"hidden_size": "40"}), Kind::InvalidModel, "hidden_size");
    fault(json!({"hidden_size": null}), Kind::InvalidModel, "hidden_size");
    fault(json!({"hidden_size": 41}), Kind::InvalidModel, "embed_tokens.weight");
    fault(json!({"intermediate_size": 55}), Kind::InvalidModel, "gate_proj.weight");
    fault(json!({"num_key_value_heads": 3}), Kind::InvalidModel, "share 3");
    fault(
        json!({"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": null}),
        Kind::InvalidModel,
        "multiple",
    );
    fault(json!({"hidden_act": "telepathy"}), Kind::Unsupported, "telepathy");
    fault(json!({"attention_bias": true}), Kind::InvalidModel, "q_proj.bias");
    fault(json!({"rope_parameters": {"rope_type": "longrope"}}), Kind::Unsupported, "longrope");
    fault(json!({"rope_parameters": {"rope_type": "linear"}}), Kind::InvalidModel, "factor");
    fault(json!({"rope_parameters": {"rope_type": "linear", "factor": 0}}), Kind::InvalidModel, "factor");
    fault(json!({"rope_parameters": {"rope_theta": -1.0}}), Kind::InvalidModel, "base -1");
    let partial = json!({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5});
    fault(json!({ "rope_parameters": partial }), Kind::Unsupported, "a part of each head");
    fault(json!({"is_causal": false}), Kind::Unsupported, "both directions");
    fault(json!({"layer_types": ["full_attention", "chunked_attention"]}), Kind::Unsupported, "layer_types");
    fault(json!({"layer_types": ["full_attention"]}), Kind::InvalidModel, "1 entries for 2 layers");
    fault(json!({"add_cross_attention": true}), Kind::Unsupported, "add_cross_attention");
    fault(json!({"rms_norm_eps": null}), Kind::InvalidModel, "rms_norm_eps");
    fault(json!({"rope_parameters": 3}), Kind::InvalidModel, "rope_parameters");
}

#[test]
fn a_folder_without_what_it_needs_says_so() {
    let folder = support::scratch("incomplete");
    let fault = |reason: &str| {
        let error = Model::load(&folder).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    };
    std::fs::copy(self::folder("llama").join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    fault("no model");
    std::fs::write(folder.join("config.json"), "{").unwrap();
    fault("config.json: the file is damaged");
    std::fs::copy(self::folder("llama").join("config.json"), folder.join("config.json")).unwrap();
    std::fs::write(folder.join("generation_config.json"), r#"{"eos_token_id": "end"}"#).unwrap();
    fault("eos_token_id");
    std::fs::write(folder.join("generation_config.json"), r#"{"eos_token_id": [7, 8], "top_p": 0.9}"#).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), r#"{"chat_template": 3}"#).unwrap();
    fault("chat_template");
    let named = r#"{"chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]}"#;
    std::fs::write(folder.join("tokenizer_config.json"), named).unwrap();
    let model = Model::load(&folder).unwrap();
    assert_eq!(model.card().chat_template.as_deref(), Some("D"));
    assert_eq!(model.card().generation.eos_token_ids, [7, 8]);
    assert_eq!(model.card().generation.sampling["top_p"], 0.9);
}

/// Which template transformers 5.24 takes without and with tools, from a list or an object in `tokenizer_config.json`
/// or from files.
#[test]
fn templates_are_those_that_transformers_chooses() {
    let folder = support::scratch("templates");
    for name in ["model.safetensors", "config.json"] {
        std::fs::copy(self::folder("llama").join(name), folder.join(name)).unwrap();
    }
    let rendered = |tools: Option<Vec<serde_json::Value>>| -> optimize::error::Result<String> {
        let template = optimize::text::ChatTemplate::of(&Model::load(&folder)?, None)?.expect("there is a template");
        template.render(&[], &optimize::text::ChatOptions { tools, ..Default::default() })
    };
    let chosen = || [rendered(None).ok(), rendered(Some(Vec::new())).ok()];
    let list = |entries: &[(&str, &str)]| {
        let entries: Vec<_> = entries.iter().map(|(name, text)| json!({ "name": name, "template": text })).collect();
        let config = json!({ "chat_template": entries }).to_string();
        std::fs::write(folder.join("tokenizer_config.json"), config).unwrap();
    };
    let both = |a: Option<&str>, b: Option<&str>| [a.map(str::to_owned), b.map(str::to_owned)];
    // Of several templates without a default none can be chosen; the message names them.
    list(&[("rag", "R"), ("other", "O")]);
    let e = rendered(None).err().unwrap();
    assert!(e.kind() == Kind::InvalidModel && e.to_string().contains("rag, other"), "{e}");
    list(&[("default", "D"), ("tool_use", "T")]);
    assert_eq!(chosen(), both(Some("D"), Some("T")));
    list(&[("default", "D"), ("default", "E")]);
    assert_eq!(chosen(), both(Some("E"), Some("E")));
    list(&[("rag", "R"), ("tool_use", "T")]);
    assert_eq!(chosen(), both(None, Some("T")));
    assert!(rendered(None).err().unwrap().to_string().contains("only for conversations with tools"));
    // An object of templates by name is read like a list of them.
    let object = json!({ "chat_template": { "tool_use": "T", "default": "D", "rag": "R" } });
    std::fs::write(folder.join("tokenizer_config.json"), object.to_string()).unwrap();
    assert_eq!(chosen(), both(Some("D"), Some("T")));
    // Files take the place of the list.
    list(&[("default", "D"), ("tool_use", "T")]);
    let more = folder.join("additional_chat_templates");
    std::fs::create_dir(&more).unwrap();
    std::fs::write(more.join("tool_use.jinja"), "U").unwrap();
    assert_eq!(chosen(), both(None, Some("U")));
    std::fs::write(more.join("default.jinja"), "X").unwrap();
    assert_eq!(chosen(), both(Some("X"), Some("U")));
    std::fs::write(folder.join("chat_template.jinja"), "J").unwrap();
    assert_eq!(chosen(), both(Some("J"), Some("U")));
    std::fs::remove_dir_all(&more).unwrap();
    assert_eq!(chosen(), both(Some("J"), Some("J")));
}
