//! Folders exported by other tools from checkpoints with known logits: optimum (with past, merged), transformers.js,
//! onnxruntime-genai. See `fixtures/exported/make.py`.

mod support;

use optimize::call::Call;
use optimize::model::{Format, Model, Task};
use optimize::runtime::SessionOptions;
use optimize::source::checkpoint::safetensors::Safetensors;
use optimize::source::weights::Weights;
use optimize::text::decoder::CacheKind;
use optimize::text::{GenerateOptions, Generator, Prompt};
use std::path::PathBuf;

const TOLERANCE: f32 = 2e-5;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Returns prompts and the logits of each of their tokens, computed by transformers.
fn references(family: &str) -> Vec<(Vec<i64>, Vec<Vec<f32>>)> {
    let file = Safetensors::open_file(&fixture("checkpoints").join(family).join("reference.safetensors")).unwrap();
    let read = |index: usize| {
        let (ids, logits) = (file.get(&format!("ids.{index}")).unwrap(), file.get(&format!("logits.{index}")).unwrap());
        let ids: Vec<i64> = ids.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        let logits: Vec<f32> = logits.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let rows = logits.chunks(logits.len() / ids.len()).map(<[f32]>::to_vec).collect();
        (ids, rows)
    };
    (0..2).map(read).collect()
}

fn generator(model: &Model) -> Generator {
    Generator::new(support::runtime(), model, &SessionOptions::default(), &Call::default()).unwrap()
}

fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).fold(0f32, |most, (a, b)| most.max((a - b).abs()))
}

#[test]
fn exported_folders_give_the_logits_of_their_checkpoints() {
    for (name, family, format, kind) in [
        ("optimum-gpt2", "gpt2", Format::OnnxFolder, CacheKind::Concatenated),
        ("optimum-llama", "llama", Format::OnnxFolder, CacheKind::Concatenated),
        ("merged-gpt2", "gpt2", Format::OnnxFolder, CacheKind::Concatenated),
        ("transformers-js-gpt2", "gpt2", Format::TransformersJs, CacheKind::Concatenated),
        ("genai-llama", "llama", Format::GenaiFolder, CacheKind::Shared),
    ] {
        let model = Model::load(&fixture("exported").join(name)).unwrap();
        assert_eq!((model.card().format, model.card().task), (format, Task::Generate), "{name}");
        assert_eq!(model.card().generation.eos_token_ids, [2], "{name}");
        let references = references(family);
        let mut generator = generator(&model);
        assert_eq!(generator.decoder().kind, kind, "{name}");
        // Both prompts are read at once, except for their ends, which are read token by token through the cache.
        generator.start(2).unwrap();
        for (row, (ids, _)) in references.iter().enumerate() {
            generator.append(row, Prompt::Tokens(&ids[..2])).unwrap();
        }
        let longest = references.iter().map(|(ids, _)| ids.len()).max().unwrap();
        for at in 2..=longest {
            generator.advance(&Call::default()).unwrap();
            for (row, (ids, logits)) in references.iter().enumerate().filter(|(_, (ids, _))| at <= ids.len()) {
                let found = distance(generator.next_logits(row).unwrap(), &logits[at - 1]);
                assert!(found < TOLERANCE, "{name}, prompt {row}, token {at}: {found}");
                if at < ids.len() {
                    generator.push(row, ids[at]).unwrap();
                }
            }
        }
        // The whole prompts are also read at once, in another order of rows.
        generator.start(1).unwrap();
        let (ids, logits) = &references[1];
        generator.append(0, Prompt::Tokens(ids)).unwrap();
        generator.advance(&Call::default()).unwrap();
        let found = distance(generator.next_logits(0).unwrap(), &logits[ids.len() - 1]);
        assert!(found < TOLERANCE, "{name}: {found}");
    }
}

#[test]
fn a_genai_folder_of_4_bits_writes_the_same_with_and_without_its_cache() {
    let model = Model::load(&fixture("exported/genai-llama-int4")).unwrap();
    let mut generator = generator(&model);
    let ids = &references("llama")[0].0;
    let options =
        GenerateOptions { max_new_tokens: Some(8), eos_token_ids: Some(vec![]), ..GenerateOptions::default() };
    let written = generator.generate(&[Prompt::Tokens(ids)], &options, None, &Call::default()).unwrap();
    let mut read = ids.clone();
    for token in &written[0].tokens {
        generator.start(1).unwrap();
        generator.append(0, Prompt::Tokens(&read)).unwrap();
        generator.advance(&Call::default()).unwrap();
        let logits = generator.next_logits(0).unwrap();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        assert_eq!(best as i64, *token);
        read.push(*token);
    }
}
