//! Tests of untrusted files: each is rejected with its own message, without a panic or a large allocation.

use super::writer::*;
use bytes::Bytes;
use optimize::error::{Error, Kind, Result};
use optimize::source::gguf::Gguf;
use optimize::source::{Dialect, checkpoint};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// An allocator that records the largest single allocation of the current thread.
struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: forwards everything to the system's allocator.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: forwards the caller's guarantee.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: forwards the caller's guarantee.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Runs all steps of loading except opening the file.
fn build(file: &Bytes, dialect: Dialect) -> Result<()> {
    let gguf = Gguf::read(file)?;
    let weights = gguf.weights()?;
    checkpoint::build(&gguf.config, &weights, dialect).map(drop)
}

fn refused(change: impl FnOnce(&mut File)) -> Error {
    let mut file = small();
    change(&mut file);
    let (bytes, _) = file.write();
    LARGEST.set(0);
    let error = build(&bytes, Dialect::Runtime).expect_err("it was taken");
    assert!(LARGEST.get() < 4 << 20, "{} bytes were taken for {error}", LARGEST.get());
    error
}

#[test]
fn the_small_model_is_whole() {
    build(&small().write().0, Dialect::Runtime).unwrap();
    build(&small().write().0, Dialect::Portable).unwrap();
}

#[test]
fn switches_that_say_what_the_graph_does_anyway_are_taken() {
    let mut file = small();
    file.set("llama.attention.causal", flag(1)).set("llama.attention.clamp_kqv", f32(0.0));
    file.set("llama.attention.scale", f32(0.25))
        .set("llama.logit_scale", f32(1.0))
        .set("llama.residual_scale", f32(0.0));
    build(&file.write().0, Dialect::Runtime).unwrap();
}

type Case = (&'static str, Kind, fn(&mut File));

const HEADERS: &[Case] = &[
    ("does not begin with \"GGUF\"", Kind::InvalidModel, |f| f.magic = *b"GGML"),
    ("GGUF version 1", Kind::Unsupported, |f| f.version = 1),
    ("GGUF version 9", Kind::Unsupported, |f| f.version = 9),
    ("big-endian", Kind::Unsupported, |f| f.version = 3 << 24),
    ("18446744073709551615 keys", Kind::LimitExceeded, |f| f.counts = Some((0, u64::MAX))),
    ("18446744073709551615 tensors", Kind::LimitExceeded, |f| f.counts = Some((u64::MAX, f.keys.len() as u64))),
    ("too short for their names", Kind::InvalidModel, |f| f.counts = Some((900_000, f.keys.len() as u64))),
    ("exceeds the file", Kind::InvalidModel, |f| {
        f.set("x", (8, u64::MAX.to_le_bytes().to_vec()));
    }),
    ("key \"x\": a string of 1099511627776 bytes", Kind::InvalidModel, |f| {
        f.set("x", (8, (1u64 << 40).to_le_bytes().to_vec()));
    }),
    ("the key occurs twice", Kind::InvalidModel, |f| f.keys.push(f.keys[3].clone())),
    ("value type 99", Kind::InvalidModel, |f| {
        f.set("x", (99, vec![0; 8]));
    }),
    ("array of 2305843009213693952 values", Kind::InvalidModel, |f| {
        f.set("x", array(10, 1 << 61, &[]));
    }),
    ("array of 9000000 values", Kind::InvalidModel, |f| {
        f.set("x", array(8, 9_000_000, &[]));
    }),
    ("nested more than 4 deep", Kind::LimitExceeded, |f| {
        let nested = (0..50_000).fold(Vec::new(), |mut content, _| {
            content.extend(array(9, 1, &[]).1);
            content
        });
        f.set("x", (9, nested));
    }),
    ("neither 0 nor 1", Kind::InvalidModel, |f| {
        f.set("x", flag(2));
    }),
    ("is 0, not a power of two", Kind::InvalidModel, |f| {
        f.set("general.alignment", u32(0));
    }),
    ("is 48, not a power of two", Kind::InvalidModel, |f| {
        f.set("general.alignment", u32(48));
    }),
    ("is 2147483648, not a power of two", Kind::InvalidModel, |f| {
        f.set("general.alignment", u32(1 << 31));
    }),
    ("a name is not UTF-8", Kind::InvalidModel, |f| f.keys.push((vec![0xC3, 0x28], u32(1)))),
    ("a name is empty", Kind::InvalidModel, |f| f.keys.push((vec![], u32(1)))),
    ("a name has 100000 bytes", Kind::LimitExceeded, |f| f.keys.push((vec![b'x'; 100_000], u32(1)))),
];

const TENSORS: &[Case] = &[
    ("it has 9 dimensions", Kind::InvalidModel, |f| f.find("output_norm.weight").dims = vec![1; 9]),
    ("tensor \"output_norm.weight\": its dimensions [0] are not sizes", Kind::InvalidModel, |f| {
        f.find("output_norm.weight").dims = vec![0];
    }),
    ("are not sizes", Kind::InvalidModel, |f| f.find("output_norm.weight").dims = vec![u64::MAX]),
    ("exceeds 64 bits", Kind::InvalidModel, |f| {
        f.find("blk.0.ffn_up.weight").dims = vec![1 << 33, 1 << 33, 1 << 33];
    }),
    // 2^62 elements of 4 bytes overflow to 0.
    ("exceeds 64 bits", Kind::InvalidModel, |f| {
        f.find("output_norm.weight").dims = vec![1 << 31, 1 << 31];
    }),
    ("a multiple of the block size 32 (Q4_1)", Kind::InvalidModel, |f| {
        f.find("blk.0.attn_q.weight").dims = vec![16, 64]
    }),
    ("exceed the file", Kind::InvalidModel, |f| f.find("output_norm.weight").offset = Some(1 << 40)),
    ("exceed the file", Kind::InvalidModel, |f| {
        f.find("output_norm.weight").offset = Some(u64::MAX - 31);
    }),
    ("exceed the file", Kind::InvalidModel, |f| f.find("blk.0.ffn_down.weight").dims = vec![64, 1 << 30]),
    ("not a multiple of the alignment", Kind::InvalidModel, |f| f.find("output_norm.weight").offset = Some(1)),
    ("two tensors have that name", Kind::InvalidModel, |f| {
        let again = f.tensors[1].clone();
        f.tensors.push(again);
    }),
    ("\"blk.0.attn_norm.weight\" overlap", Kind::InvalidModel, |f| {
        let data = f.find("token_embd.weight").data.len().next_multiple_of(32) as u64;
        f.find("blk.0.attn_norm.weight").offset = Some(data);
    }),
    ("element type 77", Kind::InvalidModel, |f| f.find("output_norm.weight").kind = 77),
    ("is Q8_1, which is not supported", Kind::Unsupported, |f| {
        let tensor = f.find("blk.0.attn_v.weight");
        (tensor.kind, tensor.data) = (9, vec![0; 16 * 40]);
    }),
    ("has no tensor \"blk.0.attn_sinks.weight\"", Kind::Unsupported, |f| {
        f.tensor("blk.0.attn_sinks.weight", &[32], 0);
    }),
    ("no tensor \"model.layers.0.mlp.up_proj.weight\"", Kind::InvalidModel, |f| {
        f.tensors.retain(|tensor| tensor.name != b"blk.0.ffn_up.weight");
    }),
    ("the file has no tensor \"token_embd.weight\"", Kind::InvalidModel, |f| {
        f.tensors.remove(0);
    }),
    ("\"model.layers.0.self_attn.v_proj.weight\" has shape [32, 32]", Kind::InvalidModel, |f| {
        let other = f.find("blk.0.attn_output.weight").clone();
        let v = f.find("blk.0.attn_v.weight");
        (v.dims, v.data) = (other.dims, other.data);
    }),
    ("its 3 rows are not 2 heads", Kind::InvalidModel, |f| {
        let q = f.find("blk.0.attn_q.weight");
        (q.dims, q.data) = (vec![32, 3], q.data[..60].to_vec());
    }),
];

const CONFIGURATIONS: &[Case] = &[
    ("no \"general.architecture\"", Kind::InvalidModel, |f| {
        f.unset("general.architecture");
    }),
    ("the architecture \"mamba\" is not supported; supported: llama,", Kind::Unsupported, |f| {
        f.set("general.architecture", text("mamba"));
    }),
    ("one of 3 files", Kind::Unsupported, |f| {
        f.set("split.count", u32(3));
    }),
    ("mixture-of-experts models", Kind::Unsupported, |f| {
        f.set("llama.expert_count", u32(8));
    }),
    ("\"llama.attention.causal\" is false", Kind::Unsupported, |f| {
        f.set("llama.attention.causal", flag(0));
    }),
    ("\"llama.attention.clamp_kqv\" is 8", Kind::Unsupported, |f| {
        f.set("llama.attention.clamp_kqv", f32(8.0));
    }),
    ("\"llama.attention.scale\" is 0.5", Kind::Unsupported, |f| {
        f.set("llama.attention.scale", f32(0.5));
    }),
    ("\"llama.logit_scale\" is 0.0625", Kind::Unsupported, |f| {
        f.set("llama.logit_scale", f32(0.0625));
    }),
    ("\"llama.residual_scale\" is 0.22", Kind::Unsupported, |f| {
        f.set("llama.residual_scale", f32(0.22));
    }),
    ("\"llama.embedding_scale\" is 12", Kind::Unsupported, |f| {
        f.set("llama.embedding_scale", f32(12.0));
    }),
    ("\"llama.attn_logit_softcapping\" is 50", Kind::Unsupported, |f| {
        f.set("llama.attn_logit_softcapping", f32(50.0));
    }),
    ("\"llama.final_logit_softcapping\" is 30", Kind::Unsupported, |f| {
        f.set("llama.final_logit_softcapping", f32(30.0));
    }),
    ("\"llama.embedding_length\" is 64", Kind::InvalidModel, |f| {
        f.set("llama.embedding_length", u32(64));
    }),
    ("\"llama.vocab_size\" is 9", Kind::InvalidModel, |f| {
        f.set("llama.vocab_size", u32(9));
    }),
    ("\"llama.block_count\" is 4000000000", Kind::InvalidModel, |f| {
        f.set("llama.block_count", u32(4_000_000_000));
    }),
    ("\"model.layers.1.input_layernorm.weight\"", Kind::InvalidModel, |f| {
        f.set("llama.block_count", u32(4096));
    }),
    ("\"llama.attention.head_count\" is 0", Kind::InvalidModel, |f| {
        f.set("llama.attention.head_count", u32(0));
    }),
    ("not a multiple of 5 heads", Kind::InvalidModel, |f| {
        f.set("llama.attention.head_count", u32(5));
    }),
    ("\"llama.attention.key_length\" is 2000000000", Kind::InvalidModel, |f| {
        f.set("llama.attention.key_length", u32(2_000_000_000));
    }),
    ("2 heads of 8 elements do not make the 32", Kind::InvalidModel, |f| {
        f.set("llama.attention.key_length", u32(8));
    }),
    ("keys of 16 elements with values of 8", Kind::Unsupported, |f| {
        f.set("llama.attention.value_length", u32(8));
    }),
    ("the file has no \"llama.attention.layer_norm_rms_epsilon\"", Kind::InvalidModel, |f| {
        f.unset("llama.attention.layer_norm_rms_epsilon");
    }),
    ("the value is not a finite number", Kind::InvalidModel, |f| {
        f.set("llama.attention.layer_norm_rms_epsilon", f32(f32::NAN));
    }),
    ("the value is not an integer", Kind::InvalidModel, |f| {
        f.set("llama.context_length", text("many"));
    }),
    ("the value differs between layers", Kind::Unsupported, |f| {
        f.set("llama.attention.head_count_kv", integers(&[1, 2]));
    }),
    ("\"llama.rope.freq_base\" is -1", Kind::InvalidModel, |f| {
        f.set("llama.rope.freq_base", f32(-1.0));
    }),
    ("\"llama.rope.dimension_count\" is 99 of 16", Kind::InvalidModel, |f| {
        f.set("llama.rope.dimension_count", u32(99));
    }),
    ("scaled by \"longrope\"", Kind::Unsupported, |f| {
        f.set("llama.rope.scaling.type", text("longrope"));
    }),
    ("not a list of 8 floats", Kind::InvalidModel, |f| {
        f.tensor("rope_freqs.weight", &[7], 0);
    }),
    ("not those of Llama 3.1's scaling", Kind::Unsupported, |f| {
        f.tensor("rope_freqs.weight", &[8], 0);
    }),
];

const TOKENIZERS: &[Case] = &[
    ("tokenizer type is \"bert\"", Kind::Unsupported, |f| {
        f.set("tokenizer.ggml.model", text("bert"));
    }),
    ("the pre-tokenizer \"other\" is not supported; supported: default", Kind::Unsupported, |f| {
        f.set("tokenizer.ggml.pre", text("other"));
    }),
    ("no \"tokenizer.ggml.tokens\"", Kind::InvalidModel, |f| {
        f.unset("tokenizer.ggml.tokens");
    }),
    ("key \"tokenizer.ggml.tokens\": the value is not an array of strings", Kind::InvalidModel, |f| {
        f.set("tokenizer.ggml.tokens", integers(&[1]));
    }),
    ("element 0 is not a UTF-8 string", Kind::InvalidModel, |f| {
        f.set("tokenizer.ggml.tokens", array(8, 1, &string(&[0xff])));
    }),
    ("the tokens 1 and 2 have the same text \"a\"", Kind::InvalidModel, |f| {
        f.set("tokenizer.ggml.tokens", texts(&["<end>", "a", "a"]));
    }),
    ("the tokenizer has 9 tokens, but the embedding table has 8 rows", Kind::InvalidModel, |f| {
        f.set("tokenizer.ggml.tokens", texts(&["a", "b", "c", "ab", "bc", "abc", "d", "e", "f"]));
        f.set("tokenizer.ggml.token_type", integers(&[1; 9]));
    }),
    ("has 2 entries for 8 tokens", Kind::InvalidModel, |f| {
        f.set("tokenizer.ggml.token_type", integers(&[1, 1]));
    }),
    ("token 1: 77 is not a token type", Kind::InvalidModel, |f| {
        f.set("tokenizer.ggml.token_type", integers(&[3, 77, 1, 1, 1, 1, 1, 1]));
    }),
    ("merge 0, \"ab\", is not a pair", Kind::InvalidModel, |f| {
        f.set("tokenizer.ggml.merges", texts(&["ab"]));
    }),
    ("needs \"ca\", which is not a token", Kind::InvalidModel, |f| {
        f.set("tokenizer.ggml.merges", texts(&["c a"]));
    }),
    ("no \"tokenizer.ggml.scores\"", Kind::InvalidModel, |f| {
        f.set("tokenizer.ggml.model", text("llama"));
    }),
    ("has 1 entries for 8 tokens", Kind::InvalidModel, |f| {
        f.set("tokenizer.ggml.model", text("llama"));
        f.set("tokenizer.ggml.scores", floats(&[0.0]));
    }),
    ("key \"tokenizer.chat_template\": the value is not a UTF-8 string", Kind::InvalidModel, |f| {
        f.set("tokenizer.chat_template", u32(1));
    }),
];

#[test]
fn every_damage_has_its_message() {
    for (fragment, kind, change) in [HEADERS, TENSORS, CONFIGURATIONS, TOKENIZERS].concat() {
        let error = refused(change);
        assert!(error.to_string().contains(fragment), "{fragment:?} is not in {error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (file, header) = small().write();
    for end in (0..header).chain([header + 1, file.len() - 40]) {
        let error = build(&file.slice(..end), Dialect::Runtime).expect_err("it was taken");
        assert_eq!(error.kind(), Kind::InvalidModel, "cut at {end}: {error}");
    }
}
