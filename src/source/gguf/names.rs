//! The tensor names of GGUF files, and their counterparts in Hugging Face checkpoints.

use crate::error::{Result, bail};
use crate::limits;

/// A supported architecture of GGUF files.
#[derive(Debug)]
pub struct Architecture {
    /// Name of the architecture in `general.architecture`, which is also the prefix of its keys.
    pub name: &'static str,
    /// Name of the `model_type` in a `config.json`.
    pub model_type: &'static str,
    /// Name of the class in a `config.json`.
    pub class: &'static str,
    /// Prefix of the layer index in the names of a checkpoint.
    layers: &'static str,
    /// Names of the modules of a layer, in the file and in the checkpoint.
    in_layer: &'static [(&'static str, &'static str)],
    /// Names of the modules outside of layers, in the file and in the checkpoint.
    outside: &'static [(&'static str, &'static str)],
    /// Whether the rows of the query and key weights are permuted so that rotary embeddings rotate adjacent elements
    /// instead of elements of the two halves.
    pub interleaved: bool,
    /// Whether the weights of norms are stored as `1 + w`.
    pub norms_plus_one: bool,
}

const OUTSIDE: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

const LLAMA: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

const QWEN3: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The names of Gemma 2 and 3; only Gemma 3 has norms of query and key.
const GEMMA: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

const PHI3: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_up", "mlp.gate_up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

const GPT2: &[(&str, &str)] = &[
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
];

const GPT2_OUTSIDE: &[(&str, &str)] = &[
    ("token_embd", "transformer.wte"),
    ("position_embd", "transformer.wpe"),
    ("output_norm", "transformer.ln_f"),
    ("output", "lm_head"),
];

const fn llama_like(
    name: &'static str,
    model_type: &'static str,
    class: &'static str,
    in_layer: &'static [(&'static str, &'static str)],
) -> Architecture {
    let (layers, outside) = ("model.layers", OUTSIDE);
    Architecture { name, model_type, class, layers, in_layer, outside, interleaved: false, norms_plus_one: false }
}

const fn gemma(
    name: &'static str,
    model_type: &'static str,
    class: &'static str,
    in_layer: &'static [(&'static str, &'static str)],
) -> Architecture {
    Architecture { norms_plus_one: true, ..llama_like(name, model_type, class, in_layer) }
}

/// The supported architectures. Mistral and SmolLM are "llama" in these files.
const ARCHITECTURES: &[Architecture] = &[
    Architecture { interleaved: true, ..llama_like("llama", "llama", "LlamaForCausalLM", LLAMA) },
    Architecture { interleaved: true, ..llama_like("smollm3", "smollm3", "SmolLM3ForCausalLM", LLAMA) },
    llama_like("qwen2", "qwen2", "Qwen2ForCausalLM", LLAMA),
    llama_like("qwen3", "qwen3", "Qwen3ForCausalLM", QWEN3),
    llama_like("phi3", "phi3", "Phi3ForCausalLM", PHI3),
    gemma("gemma", "gemma", "GemmaForCausalLM", LLAMA),
    gemma("gemma2", "gemma2", "Gemma2ForCausalLM", GEMMA),
    gemma("gemma3", "gemma3_text", "Gemma3ForCausalLM", GEMMA),
    Architecture {
        layers: "transformer.h",
        outside: GPT2_OUTSIDE,
        ..llama_like("gpt2", "gpt2", "GPT2LMHeadModel", GPT2)
    },
];

impl Architecture {
    /// Returns the architecture with the name `name`. Fails with `Unsupported` for other names; the error lists the
    /// supported ones.
    pub fn named(name: &str) -> Result<&'static Architecture> {
        match ARCHITECTURES.iter().find(|architecture| architecture.name == name) {
            Some(found) => Ok(found),
            None => {
                let known: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
                bail!(Unsupported, "the architecture {name:?} is not supported; supported: {}", known.join(", "))
            }
        }
    }

    /// Returns the name in a checkpoint of a tensor of the file. Fails with `Unsupported` if the architecture has no
    /// such tensor, because omitting one would build a wrong model.
    pub fn checkpoint_name(&self, name: &str) -> Result<String> {
        let translated = match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((number, rest)) => layer_number(number).zip(translate(self.in_layer, rest)).map(|(number, rest)| {
                let layers = self.layers;
                format!("{layers}.{number}.{rest}")
            }),
            None => translate(self.outside, name),
        };
        match translated {
            Some(translated) => Ok(translated),
            None => bail!(Unsupported, "the architecture {:?} has no tensor {name:?}", self.name),
        }
    }
}

/// Returns the number of a layer that a text represents; `None` if the text is not its canonical decimal form, or if
/// the number is beyond the limit.
fn layer_number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (i64::from(number) < limits::LAYERS && number.to_string() == text).then_some(number)
}

fn translate(table: &[(&str, &str)], name: &str) -> Option<String> {
    let (module, part) = name.rsplit_once('.').filter(|(_, part)| matches!(*part, "weight" | "bias"))?;
    let (_, translated) = table.iter().find(|(from, _)| *from == module)?;
    Some(format!("{translated}.{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated_for_each_architecture() {
        let name = |architecture: &str, name: &str| Architecture::named(architecture).unwrap().checkpoint_name(name);
        let cases = [
            ("llama", "token_embd.weight", "model.embed_tokens.weight"),
            ("llama", "output_norm.weight", "model.norm.weight"),
            ("llama", "output.weight", "lm_head.weight"),
            ("llama", "blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
            ("llama", "blk.31.ffn_norm.weight", "model.layers.31.post_attention_layernorm.weight"),
            ("qwen2", "blk.2.attn_k.bias", "model.layers.2.self_attn.k_proj.bias"),
            ("qwen3", "blk.2.attn_q_norm.weight", "model.layers.2.self_attn.q_norm.weight"),
            ("gemma", "blk.2.ffn_norm.weight", "model.layers.2.post_attention_layernorm.weight"),
            ("gemma2", "blk.2.ffn_norm.weight", "model.layers.2.pre_feedforward_layernorm.weight"),
            ("gemma3", "blk.2.post_ffw_norm.weight", "model.layers.2.post_feedforward_layernorm.weight"),
            ("phi3", "blk.2.ffn_up.weight", "model.layers.2.mlp.gate_up_proj.weight"),
            ("gpt2", "blk.2.attn_qkv.bias", "transformer.h.2.attn.c_attn.bias"),
            ("gpt2", "position_embd.weight", "transformer.wpe.weight"),
        ];
        for (architecture, from, to) in cases {
            assert_eq!(name(architecture, from).unwrap(), to);
        }
        let wrong =
            ["blk.0.attn_qkv.weight", "blk.00.attn_q.weight", "blk.+1.attn_q.weight", "blk.99999.attn_q.weight"];
        for wrong in wrong.into_iter().chain(["blk.0", "blk.0.attn_q", "attn_q.weight", "token_embd.scale", ""]) {
            let e = name("llama", wrong).unwrap_err();
            assert!(e.message().contains(&format!("{wrong:?}")), "{e}");
        }
    }

    #[test]
    fn an_unknown_architecture_is_named_with_those_known() {
        let e = Architecture::named("mamba").unwrap_err();
        assert!(e.message().contains("\"mamba\"") && e.message().contains("gemma3"), "{e}");
    }
}
