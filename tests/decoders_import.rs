//! Tests that a checkpoint of 14 GB is imported without reading its weights, in a separate process whose memory is
//! measured.

mod support;

use optimize::model::Model;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const LAYERS: usize = 32;
const WIDTH: u64 = 4096;
const INNER: u64 = 11008;
const VOCABULARY: u64 = 32000;

/// Returns the names and shapes of the tensors of a Llama with 7 billion parameters.
fn tensors() -> Vec<(String, Vec<u64>)> {
    let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, WIDTH])];
    for layer in 0..LAYERS {
        let mut add =
            |name: &str, dims: &[u64]| all.push((format!("model.layers.{layer}.{name}.weight"), dims.to_vec()));
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{name}"), &[WIDTH, WIDTH]);
        }
        add("mlp.gate_proj", &[INNER, WIDTH]);
        add("mlp.up_proj", &[INNER, WIDTH]);
        add("mlp.down_proj", &[WIDTH, INNER]);
        add("input_layernorm", &[WIDTH]);
        add("post_attention_layernorm", &[WIDTH]);
    }
    all.push(("model.norm.weight".to_owned(), vec![WIDTH]));
    all.push(("lm_head.weight".to_owned(), vec![VOCABULARY, WIDTH]));
    all
}

/// Writes a file of bf16 tensors, whose data is a hole that takes no disk space.
fn write_shard(path: &Path, tensors: &[(String, Vec<u64>)]) -> u64 {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        header.insert(name.clone(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
    end
}

/// Returns the peak memory of this process in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_large_checkpoint_is_imported_in_no_time_and_no_memory() {
    let folder = support::scratch("large");
    let tensors = tensors();
    let (mut places, mut bytes) = (serde_json::Map::new(), 0);
    for (index, shard) in tensors.chunks(tensors.len().div_ceil(3)).enumerate() {
        let name = format!("model-{:05}-of-00003.safetensors", index + 1);
        bytes += write_shard(&folder.join(&name), shard);
        places.extend(shard.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
    }
    let index = json!({"metadata": {"total_size": bytes}, "weight_map": places});
    std::fs::write(folder.join("model.safetensors.index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": VOCABULARY, "hidden_size": WIDTH,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 32,
        "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5,
    });
    std::fs::write(folder.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();

    let start = Instant::now();
    let model = Model::load(&folder).unwrap();
    let (time, peak) = (start.elapsed(), peak());
    let (gigabytes, megabytes) = (model.bytes() as f64 / 1e9, peak as f64 / 1e6);
    println!("{gigabytes:.1} GB of bf16 in 3 files: imported in {time:.0?}, {megabytes:.0} MB of memory at most");
    assert!(model.bytes() > 13_000_000_000);
    assert!(time < Duration::from_secs(2) && peak < 200_000_000, "{time:?}, {peak} bytes");
}
