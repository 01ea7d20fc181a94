//! Tests of GGUF files: forms, families, a real model, damage. References are in `fixtures/gguf`, made by other
//! programs.

#[path = "gguf/hostile.rs"]
mod hostile;
#[path = "gguf/packed.rs"]
mod packed;
mod support;
#[path = "gguf/writer.rs"]
mod writer;

use optimize::call::Call;
use optimize::files;
use optimize::inspect::inspect;
use optimize::model::{Dim, Format, Model, Task};
use optimize::onnx::save::ExternalData;
use optimize::prune::{PruneOptions, prune};
use optimize::quantize::{QuantizeOptions, QuantizeType, forecast, quantize};
use optimize::runtime::{Session, SessionOptions, Tensor};
use optimize::source::gguf::{Gguf, Header, dequantize};
use optimize::source::weights::{BlockForm, Form, Weights};
use optimize::source::{Dialect, LoadOptions};
use optimize::text::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{deps, runtime, scratch};

const SMOLLM2: &str = "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(name)
}

fn header(name: &str) -> Header {
    Header::read(&files::map(&files::open(&fixture(name)).unwrap(), 1 << 30).unwrap()).unwrap()
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

fn floats(header: &Header, name: &str) -> Vec<f32> {
    let bytes = &header.tensor(name).unwrap_or_else(|| panic!("no {name}")).bytes;
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

fn load(path: &Path, dialect: Dialect) -> Model {
    let options = LoadOptions { dialect };
    optimize::open::load(path, &options).unwrap()
}

/// A session of a decoder with its present cache.
struct Decoder {
    session: Session,
    cache: Vec<(String, Tensor)>,
    length: i64,
}

impl Decoder {
    fn new(model: &Model) -> Decoder {
        Decoder::with(model, false)
    }

    fn with(model: &Model, round_activations: bool) -> Decoder {
        let options = SessionOptions { threads: 2, round_activations, ..SessionOptions::default() };
        let session = Session::new(runtime(), model, &options, &Call::default()).unwrap();
        let cache = session.inputs().iter().filter(|input| input.name.starts_with("past")).map(|input| {
            let size = |axis: usize| match input.shape.as_ref().map(|shape| &shape[axis]) {
                Some(Dim::Fixed(size)) => *size,
                _ => panic!("{} {}", input.name, input.describe()),
            };
            (input.name.clone(), Tensor::from_f32(&[1, size(1), 0, size(3)], vec![]).unwrap())
        });
        let cache = cache.collect();
        Decoder { session, cache, length: 0 }
    }

    /// Returns the logits of each of the tokens, row by row.
    fn step(&mut self, ids: &[i64]) -> Vec<f32> {
        let (count, start) = (ids.len() as i64, self.length);
        self.length += count;
        let given = [
            ("input_ids", Tensor::from_i64(&[1, count], ids.to_vec()).unwrap()),
            ("attention_mask", Tensor::from_i64(&[1, self.length], vec![1; self.length as usize]).unwrap()),
            ("position_ids", Tensor::from_i64(&[1, count], (start..self.length).collect()).unwrap()),
            ("num_logits_to_keep", Tensor::from_i64(&[], vec![0]).unwrap()),
        ];
        let known: Vec<String> = self.session.inputs().iter().map(|input| input.name.clone()).collect();
        let given = given.iter().filter(|(name, _)| known.iter().any(|k| k == name)).map(|(name, t)| (*name, t));
        let inputs: Vec<(&str, &Tensor)> = given.chain(self.cache.iter().map(|(n, t)| (n.as_str(), t))).collect();
        let outputs = self.session.run(&inputs, &[], &Call::default()).unwrap();
        let mut logits = Vec::new();
        self.cache.clear();
        for (name, tensor) in outputs {
            match name.strip_prefix("present") {
                Some(rest) => self.cache.push((format!("past_key_values{rest}"), tensor)),
                None => logits = tensor.to_f32_vec().unwrap(),
            }
        }
        logits
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0f32, |most, (a, b)| most.max((a - b).abs()))
}

fn argmax(row: &[f32]) -> i64 {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as i64
}

#[test]
fn every_form_dequantizes_to_what_the_gguf_package_makes_of_it() {
    let seen: usize = ["forms.gguf", "forms_more.gguf"].into_iter().map(forms_of).sum();
    assert_eq!(seen, 15);
    // Additional forms made with `tests/fixtures/gguf/make_forms.py`.
    if let Ok(file) = std::env::var("OPTIMIZE_GGUF_FORMS") {
        println!("{file}: {} forms", forms_of(&file));
    }
}

/// Compares each tensor `stored.NAME` of a file, as floats, with `expected.NAME`; returns how many are stored in
/// blocks.
fn forms_of(file: &str) -> usize {
    let header = header(file);
    let mut seen = 0;
    for tensor in header.tensors.iter() {
        let Some(name) = tensor.name.strip_prefix("stored.") else { continue };
        let expected = floats(&header, &format!("expected.{name}"));
        match tensor.element.form.unwrap() {
            Form::Blocks(form) => {
                let mut values = vec![0f32; expected.len()];
                dequantize::to_floats(form, &tensor.bytes, &mut values);
                assert_eq!(values, expected, "{name}");
                seen += 1;
            }
            Form::Plain(dtype) => {
                let plain = Tensor::new(dtype, &tensor.dims, tensor.bytes.clone()).unwrap();
                assert_eq!(plain.to_f32_vec().unwrap(), expected, "{name}");
            }
        }
    }
    seen
}

#[test]
fn parameters_are_weights_and_not_what_says_how_they_are_stored() {
    let file = deps(SMOLLM2);
    let header = Header::read(&files::map(&files::open(&file).unwrap(), 1 << 30).unwrap()).unwrap();
    let weights: i64 = header.tensors.iter().map(|tensor| tensor.dims.iter().product::<i64>()).sum();
    let found = inspect(&load(&file, Dialect::Runtime)).parameters as i64;
    // Some numbers of the graph are constants, too.
    assert!((weights..weights + 1000).contains(&found), "{found}, there are {weights}");
    let model = Model::load(&deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
    let whole = inspect(&model).parameters as f64;
    for (quantize_type, bits) in
        [(QuantizeType::Dynamic, 8), (QuantizeType::WeightOnly, 4), (QuantizeType::WeightOnly, 8)]
    {
        let options = QuantizeOptions { quantize_type, bits, ..QuantizeOptions::default() };
        let (small, _) = quantize(&model, &options, &Call::default()).unwrap();
        let found = inspect(&small).parameters as f64;
        assert!((found / whole - 1.0).abs() < 0.005, "{quantize_type:?} {bits}: {found} of {whole}");
    }
}

#[test]
fn every_family_gives_the_logits_that_transformers_gives() {
    let reference = header("logits.gguf");
    let families = ["llama", "llama-yarn", "smollm3", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3", "gpt2"];
    for family in families {
        for dialect in [Dialect::Runtime, Dialect::Portable] {
            let model = load(&fixture(&format!("{family}.gguf")), dialect);
            assert_eq!((model.card().format, model.card().task), (Format::Gguf, Task::Generate));
            // Fused attention does not support heads of size 8, which most of these families have.
            let fused = model.graph().node.iter().any(|node| node.op() == "GroupQueryAttention");
            assert_eq!(fused, dialect == Dialect::Runtime && matches!(family, "llama" | "gpt2"), "{family}");
            for prompt in 0..2 {
                let ids = floats(&reference, &format!("{family}.ids.{prompt}"));
                let ids: Vec<i64> = ids.iter().map(|id| *id as i64).collect();
                let expected = floats(&reference, &format!("{family}.logits.{prompt}"));
                let found = largest_difference(&Decoder::new(&model).step(&ids), &expected);
                assert!(found < 1e-4, "{family}, {dialect:?}, prompt {prompt}: {found}");
            }
        }
    }
}

#[test]
fn smollm2_has_the_configuration_and_side_files_of_its_checkpoint() {
    let model = load(&deps(SMOLLM2), Dialect::Runtime);
    let card = model.card();
    let expected = [
        ("hidden_size", 576),
        ("num_hidden_layers", 30),
        ("num_attention_heads", 9),
        ("num_key_value_heads", 3),
        ("head_dim", 64),
        ("intermediate_size", 1536),
        ("vocab_size", 49152),
        ("max_position_embeddings", 8192),
        ("bos_token_id", 1),
        ("pad_token_id", 2),
    ];
    for (key, value) in expected {
        assert_eq!(card.integer(key), Some(value), "{key}");
    }
    assert_eq!(card.config["rms_norm_eps"], 1e-5);
    assert_eq!(card.config["rope_theta"], 1e5);
    assert_eq!(card.config["tie_word_embeddings"], true);
    assert_eq!(card.config["model_type"], "llama");
    assert_eq!((card.format, card.task, card.architecture.as_deref()), (Format::Gguf, Task::Generate, Some("llama")));
    assert_eq!(card.generation.eos_token_ids, [2, 0]);
    assert_eq!((card.generation.bos_token_id, card.generation.pad_token_id), (Some(1), Some(2)));
    assert!(card.chat_template.as_ref().unwrap().contains("<|im_start|>"));
    for name in ["config.json", "generation_config.json", "tokenizer_config.json"] {
        let content: Value = serde_json::from_slice(&card.side_file(name).unwrap().read().unwrap()).unwrap();
        assert!(content.is_object());
    }
    assert_eq!(model.bytes(), std::fs::metadata(deps(SMOLLM2)).unwrap().len());
}

#[test]
fn smollm2_cuts_text_as_its_makers_and_llama_cpp_do() {
    let tokenizer = Tokenizer::of(&load(&deps(SMOLLM2), Dialect::Runtime)).unwrap().unwrap();
    assert_eq!(tokenizer.vocabulary_size(), 49152);
    let pairs = json("smollm2_tokens.json");
    assert!(pairs.as_array().unwrap().len() >= 200);
    for pair in pairs.as_array().unwrap() {
        let (text, ids) = (pair[0].as_str().unwrap(), integers(&pair[1]));
        assert_eq!(tokenizer.encode(text, true).unwrap().ids, ids, "{text:?}");
        if !text.contains("<|") {
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        }
    }
}

/// Checks the most likely tokens, their logits and a greedy continuation against transformers.
fn check_smollm2(model: &Model, tolerance: f32) {
    for entry in json("smollm2.json").as_array().unwrap() {
        let (ids, top, greedy) = (integers(&entry["ids"]), integers(&entry["top"]), integers(&entry["greedy"]));
        let mut decoder = Decoder::new(model);
        let logits = decoder.step(&ids);
        let mut last = logits[logits.len() - 49152..].to_vec();
        for (token, expected) in top.iter().zip(entry["logits"].as_array().unwrap()) {
            let found = (last[*token as usize] - expected.as_f64().unwrap() as f32).abs();
            assert!(found < tolerance, "token {token}: {found}");
        }
        for token in greedy {
            assert_eq!(argmax(&last), token);
            last = decoder.step(&[token]);
        }
    }
}

#[test]
fn smollm2_in_blocks_writes_what_transformers_writes() {
    let model = load(&deps(SMOLLM2), Dialect::Runtime);
    let bytes: usize = model.graph().initializer.iter().filter_map(|t| t.raw_data.as_ref()).map(|raw| raw.len()).sum();
    assert!(bytes < 120 << 20, "{bytes} bytes: the table is there twice, or in float");
    check_smollm2(&model, 1e-3);
}

#[test]
fn smollm2_in_standard_operators_writes_the_same_and_can_be_saved() {
    let model = load(&deps(SMOLLM2), Dialect::Portable);
    assert!(model.graph().node.iter().all(|node| node.domain.as_deref().unwrap_or("").is_empty()));
    check_smollm2(&model, 1e-3);
    let folder = scratch("gguf-saved");
    model.save(&folder.join("model.onnx"), ExternalData::Auto, &Call::default()).unwrap();
    let again = Model::load(&folder.join("model.onnx")).unwrap();
    assert_eq!(again.graph().node.len(), model.graph().node.len());
}

#[test]
fn a_second_quantization_is_said_to_be_one() {
    let model = load(&deps(SMOLLM2), Dialect::Runtime);
    let options =
        |bits| QuantizeOptions { quantize_type: QuantizeType::WeightOnly, bits, ..QuantizeOptions::default() };
    let (small, report) = quantize(&model, &options(4), &Call::default()).unwrap();
    assert!(small.bytes() < model.bytes());
    let warned = report.warnings.iter().find(|warning| warning.contains("a second time")).unwrap();
    assert!(warned.starts_with("210 of 211 quantized tensors of the GGUF file have 4 bits or fewer"), "{warned}");
    let planned = forecast(&model, &options(4)).unwrap().summary["bytes_after"].as_u64().unwrap() as f64;
    assert!((0.98..1.02).contains(&(planned / small.bytes() as f64)), "{planned} planned, {} made", small.bytes());
    let refused = quantize(&model, &options(8), &Call::default()).err().unwrap().to_string();
    assert!(refused.contains("211 MatMulNBits (is already quantized)"), "{refused}");
    let forecast = forecast(&model, &options(8)).err().unwrap().to_string();
    assert!(forecast.contains("is already quantized"), "{forecast}");
}

#[test]
fn offsets_of_blocks_are_no_weights() {
    let model = load(&deps(SMOLLM2), Dialect::Runtime);
    let error = prune(&model, &PruneOptions::default(), &Call::default()).err().unwrap();
    assert!(error.to_string().contains("is already quantized"), "{error}");
    let error = forecast(&model, &QuantizeOptions::default()).err().unwrap();
    assert!(error.to_string().contains("already"), "{error}");
}

#[test]
fn rounded_activations_stay_near() {
    let model = load(&deps(SMOLLM2), Dialect::Runtime);
    let entry = &json("smollm2.json")[0];
    let ids = integers(&entry["ids"]);
    let (exact, near) = (Decoder::new(&model).step(&ids), Decoder::with(&model, true).step(&ids));
    let found = largest_difference(&exact, &near);
    assert!((0.1..5.0).contains(&found), "{found}");
}

#[test]
fn sentencepiece_vocabularies_merge_by_score_and_fall_back_to_bytes() {
    use writer::{flag, floats, small, text, texts, u32};
    let mut names: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    names.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let pieces = [("▁", -1.0), ("a", -2.0), ("b", -3.0), ("ab", -9.0), ("ba", -4.0), ("▁a", -5.0), ("aba", -20.0)];
    names.extend(pieces.map(|(piece, _)| piece.to_owned()));
    let scores: Vec<f32> = vec![0.0; 259].into_iter().chain(pieces.map(|(_, score)| score)).collect();
    let kinds: Vec<i32> = [2, 3, 3].into_iter().chain([6; 256]).chain([1; 7]).collect();
    let mut file = small();
    file.set("tokenizer.ggml.model", text("llama"))
        .set("tokenizer.ggml.tokens", texts(&names.iter().map(String::as_str).collect::<Vec<_>>()))
        .set("tokenizer.ggml.scores", floats(&scores))
        .set("tokenizer.ggml.token_type", writer::integers(&kinds))
        .set("tokenizer.ggml.bos_token_id", u32(1))
        .set("tokenizer.ggml.eos_token_id", u32(2));
    let encode = |file: &writer::File, text: &str| {
        let tokenizer = optimize::source::gguf::tokenizer(&file.write().0).unwrap().unwrap();
        let ids = tokenizer.encode(text, true).unwrap().ids;
        // The space at the beginning of a piece after a special token is kept.
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text.replace("</s>", " "));
        ids
    };
    let id = |piece: &str| names.iter().position(|name| name == piece).unwrap() as i64;
    // "ba" scores above "▁a" and "ab", so it is merged first.
    assert_eq!(encode(&file, "aba"), [1, id("▁a"), id("ba")]);
    assert_eq!(encode(&file, "bab"), [1, id("▁"), id("ba"), id("b")]);
    assert_eq!(encode(&file, "a</s>b"), [1, id("▁a"), 2, id("▁"), id("b")]);
    assert_eq!(encode(&file, "é"), [1, id("▁"), id("<0xC3>"), id("<0xA9>")]);
    file.set("tokenizer.ggml.add_space_prefix", flag(0)).set("tokenizer.ggml.add_bos_token", flag(0));
    file.set("tokenizer.ggml.add_eos_token", flag(1));
    assert_eq!(encode(&file, "a b"), [id("a"), id("▁"), id("b"), 2]);
}

/// Compares the tokens with those of sentencepiece (fixtures/tokenizers/make.py) for three vocabularies: equal scores,
/// few different ones, and all different.
#[test]
fn pieces_of_equal_scores_are_joined_from_the_left() {
    use writer::{flag, floats, small, text, texts, u32};
    let folder = std::env::var_os("OPTIMIZE_TOKENIZER_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers"), PathBuf::from);
    let cases: Value = serde_json::from_slice(&std::fs::read(folder.join("pieces.json")).unwrap()).unwrap();
    let mut count = 0;
    for case in cases.as_array().unwrap() {
        let pieces = case["pieces"].as_array().unwrap();
        let mut names: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
        names.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        names.extend(pieces.iter().map(|piece| piece[0].as_str().unwrap().to_owned()));
        let scores = pieces.iter().map(|piece| piece[1].as_f64().unwrap() as f32);
        let scores: Vec<f32> = vec![0.0; 259].into_iter().chain(scores).collect();
        let kinds: Vec<i32> = [2, 3, 3].into_iter().chain([6; 256]).chain(vec![1; pieces.len()]).collect();
        let mut file = small();
        file.set("tokenizer.ggml.model", text("llama"))
            .set("tokenizer.ggml.tokens", texts(&names.iter().map(String::as_str).collect::<Vec<_>>()))
            .set("tokenizer.ggml.scores", floats(&scores))
            .set("tokenizer.ggml.token_type", writer::integers(&kinds))
            .set("tokenizer.ggml.bos_token_id", u32(1))
            .set("tokenizer.ggml.eos_token_id", u32(2))
            .set("tokenizer.ggml.add_space_prefix", flag(0))
            .set("tokenizer.ggml.add_bos_token", flag(0));
        let tokenizer = optimize::source::gguf::tokenizer(&file.write().0).unwrap().unwrap();
        for (sample, ids) in case["texts"].as_array().unwrap().iter().zip(case["ids"].as_array().unwrap()) {
            let found = tokenizer.encode(sample.as_str().unwrap(), true).unwrap().ids;
            assert_eq!(found, integers(ids), "{sample} with {pieces:?}");
            count += 1;
        }
    }
    println!("{count} texts");
}

/// Other programs read only the merges: their order expresses "from the left" as far as an order can do so.
#[test]
fn merges_of_equal_scores_are_listed_so_that_the_left_one_wins() {
    use writer::{flag, floats, small, text, texts};
    for pieces in [["ab", "bc"], ["bc", "ab"]] {
        let names = ["<unk>", "<s>", "</s>", "a", "b", "c", pieces[0], pieces[1]];
        let mut file = small();
        file.set("tokenizer.ggml.model", text("llama"))
            .set("tokenizer.ggml.tokens", texts(&names))
            .set("tokenizer.ggml.scores", floats(&[0.0, 0.0, 0.0, -1e3, -1e3, -1e3, -1e3, -1e3]))
            .set("tokenizer.ggml.token_type", writer::integers(&[2, 3, 3, 1, 1, 1, 1, 1]))
            .set("tokenizer.ggml.add_space_prefix", flag(0));
        let content = optimize::source::gguf::tokenizer_json(&file.write().0).unwrap().unwrap();
        let ids = Tokenizer::from_bytes(&content).unwrap().encode("abc", false).unwrap().ids;
        let ab = 6 + pieces.iter().position(|piece| *piece == "ab").unwrap() as i64;
        assert_eq!(ids, [ab, 5], "{pieces:?}");
    }
}

#[test]
fn weights_have_the_names_and_shapes_of_a_checkpoint() {
    let file = files::map(&files::open(&deps(SMOLLM2)).unwrap(), 1 << 30).unwrap();
    let gguf = Gguf::read(&file).unwrap();
    let weights = gguf.weights().unwrap();
    assert_eq!(weights.names().len(), 272);
    let q = weights.get("model.layers.29.self_attn.q_proj.weight").unwrap();
    assert_eq!((q.dims, q.form), (vec![576, 576], Form::Blocks(BlockForm::Q4_1)));
    let down = weights.get("model.layers.0.mlp.down_proj.weight").unwrap();
    assert_eq!(down.dims, [576, 1536]);
    assert!(file.as_ptr_range().contains(&down.bytes.as_ptr()), "it was copied");
    assert!(weights.find("lm_head.weight").unwrap().is_none());
}
