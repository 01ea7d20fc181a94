//! One model from three sources: SmolLM2 from its GGUF file, as a Hugging Face checkpoint in float32, and as an ONNX
//! file with external data. All must match transformers (`fixtures/gguf/make_prompts.py`) and each other.

mod support;

use optimize::call::Call;
use optimize::files;
use optimize::model::{Format, Model};
use optimize::onnx::save::ExternalData;
use optimize::open;
use optimize::runtime::SessionOptions;
use optimize::source::gguf::{Header, dequantize};
use optimize::source::weights::Form;
use optimize::source::{Dialect, LoadOptions};
use optimize::text::{GenerateOptions, Generator, Prompt};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use support::{deps, runtime, scratch};

/// Maximum difference between any two programs.
const TOLERANCE: f32 = 1e-3;

struct Reference {
    prompt: String,
    ids: Vec<i64>,
    greedy: Vec<i64>,
    picked: Vec<i64>,
    logits: Vec<f32>,
}

fn references() -> Vec<Reference> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/smollm2_prompts.json");
    let read: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let integers = |value: &Value| value.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
    let one = |entry: &Value| Reference {
        prompt: entry["prompt"].as_str().unwrap().to_owned(),
        ids: integers(&entry["ids"]),
        greedy: integers(&entry["greedy"]),
        picked: integers(&entry["picked"]),
        logits: entry["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect(),
    };
    read.iter().map(one).collect()
}

/// Returns the name of a tensor in a Hugging Face checkpoint, and the heads whose rows GGUF interleaves.
fn checkpoint_name(name: &str) -> (String, Option<usize>) {
    let layer = |rest: &str| {
        let (number, part) = rest.split_once('.').unwrap();
        let (part, heads) = match part.strip_suffix(".weight").unwrap() {
            "attn_q" => ("self_attn.q_proj", Some(9)),
            "attn_k" => ("self_attn.k_proj", Some(3)),
            "attn_v" => ("self_attn.v_proj", None),
            "attn_output" => ("self_attn.o_proj", None),
            "attn_norm" => ("input_layernorm", None),
            "ffn_norm" => ("post_attention_layernorm", None),
            "ffn_gate" => ("mlp.gate_proj", None),
            "ffn_up" => ("mlp.up_proj", None),
            "ffn_down" => ("mlp.down_proj", None),
            other => panic!("{other}"),
        };
        (format!("model.layers.{number}.{part}.weight"), heads)
    };
    match name {
        "token_embd.weight" => ("model.embed_tokens.weight".to_owned(), None),
        "output_norm.weight" => ("model.norm.weight".to_owned(), None),
        _ => layer(name.strip_prefix("blk.").unwrap()),
    }
}

/// Writes the checkpoint of the GGUF file as transformers would, without the reader that is tested.
fn write_checkpoint(gguf: &Path, folder: &Path) {
    let header = Header::read(&files::map(&files::open(gguf).unwrap(), 1 << 30).unwrap()).unwrap();
    let (mut table, mut offset) = (serde_json::Map::new(), 0);
    for tensor in header.tensors.iter() {
        let bytes = 4 * tensor.dims.iter().product::<i64>() as usize;
        let entry = json!({"dtype": "F32", "shape": tensor.dims, "data_offsets": [offset, offset + bytes]});
        table.insert(checkpoint_name(&tensor.name).0, entry);
        offset += bytes;
    }
    let table = serde_json::to_vec(&table).unwrap();
    let file = std::fs::File::create(folder.join("model.safetensors")).unwrap();
    let mut file = std::io::BufWriter::new(file);
    file.write_all(&(table.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&table).unwrap();
    for tensor in header.tensors.iter() {
        let mut values = vec![0f32; tensor.dims.iter().product::<i64>() as usize];
        match tensor.element.form.unwrap() {
            Form::Blocks(form) => dequantize::to_floats(form, &tensor.bytes, &mut values),
            Form::Plain(_) => {
                let read = tensor.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                values.iter_mut().zip(read).for_each(|(value, read)| *value = read);
            }
        }
        let width = *tensor.dims.last().unwrap() as usize;
        let rows: Vec<&[f32]> = values.chunks_exact(width).collect();
        for row in 0..rows.len() {
            // Row `half * size / 2 + i` of a head in the checkpoint, with `half` 0 or 1, is row `2 i + half` in GGUF.
            let from = checkpoint_name(&tensor.name).1.map_or(row, |heads| {
                let size = rows.len() / heads;
                let (head, within) = (row / size, row % size);
                head * size + 2 * (within % (size / 2)) + within / (size / 2)
            });
            rows[from].iter().for_each(|value| file.write_all(&value.to_le_bytes()).unwrap());
        }
    }
    file.flush().unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 576,
        "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "vocab_size": 49152, "rms_norm_eps": 1e-5, "rope_theta": 1e5, "max_position_embeddings": 8192,
        "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// The result of a source: the logits after each prompt, and the 64 tokens that are generated for it.
struct Answers {
    logits: Vec<Vec<f32>>,
    greedy: Vec<Vec<i64>>,
}

fn answers(model: &Model, references: &[Reference]) -> Answers {
    let options = SessionOptions { threads: 2, ..SessionOptions::default() };
    let mut generator = Generator::new(runtime(), model, &options, &Call::default()).unwrap();
    generator.start(references.len()).unwrap();
    for (row, reference) in references.iter().enumerate() {
        generator.append(row, Prompt::Tokens(&reference.ids)).unwrap();
    }
    generator.advance(&Call::default()).unwrap();
    let logits = (0..references.len()).map(|row| generator.next_logits(row).unwrap().to_vec()).collect();
    let exactly =
        GenerateOptions { max_new_tokens: Some(64), eos_token_ids: Some(vec![]), ..GenerateOptions::default() };
    let written = generator.run(&exactly, None, &Call::default()).unwrap();
    Answers { logits, greedy: written.into_iter().map(|generation| generation.tokens).collect() }
}

#[test]
fn three_roads_to_one_model_say_what_transformers_says() {
    let gguf = deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let references = references();
    assert_eq!(references.len(), 20);
    let checkpoint = scratch("roads-checkpoint");
    write_checkpoint(&gguf, &checkpoint);
    let exported = scratch("roads-onnx");
    let load = |path: &Path, dialect| open::load(path, &LoadOptions { dialect }).unwrap();
    let onnx = exported.join("model.onnx");
    let portable = load(&checkpoint, Dialect::Portable);
    portable.save(&onnx, ExternalData::Always, &Call::default()).unwrap();
    assert!(std::fs::metadata(&onnx).unwrap().len() < 10 << 20, "the weights are not outside");

    let roads = [
        ("GGUF", load(&gguf, Dialect::Runtime), Format::Gguf),
        ("checkpoint", load(&checkpoint, Dialect::Runtime), Format::Checkpoint),
        ("ONNX", Model::load(&onnx).unwrap(), Format::Onnx),
    ];
    let mut first: Option<Answers> = None;
    for (road, model, format) in roads {
        assert_eq!(model.card().format, format);
        let found = answers(&model, &references);
        let (mut reached, mut apart) = (0f32, 0f32);
        for (row, reference) in references.iter().enumerate() {
            let what = format!("{road}, {:?}", reference.prompt);
            for (token, expected) in reference.picked.iter().zip(&reference.logits) {
                let distance = (found.logits[row][*token as usize] - expected).abs();
                assert!(distance < TOLERANCE, "{what}: token {token} is {distance} from transformers");
                reached = reached.max(distance);
            }
            assert_eq!(found.greedy[row], reference.greedy, "{what}");
            if let Some(first) = &first {
                let pairs = first.logits[row].iter().zip(&found.logits[row]);
                let distance = pairs.fold(0f32, |most, (a, b)| most.max((a - b).abs()));
                assert!(distance < TOLERANCE, "{what}: {distance} from the first road");
                apart = apart.max(distance);
            }
        }
        println!("{road}: at most {reached} from transformers, {apart} from the first road");
        first.get_or_insert(found);
    }
}
