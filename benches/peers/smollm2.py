"""Converts SmolLM2-135M from its GGUF file to a float32 Hugging Face checkpoint with only the gguf package and
transformers. Other scripts use the checkpoint as reference, and as input of the converters of other tools.

Usage: smollm2.py [FOLDER]      default target/peers/smollm2
"""

import pathlib
import sys

import numpy as np

from common import MODELS, SCRATCH

GGUF = MODELS / "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = SCRATCH / "smollm2"
PLAIN_ONNX = SCRATCH / "smollm2-onnx/model.onnx"  # made by smollm2_onnx.py
NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def name_of(name):
    """Returns the name of a tensor in a Hugging Face checkpoint."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.weight"


def rotated_back(weight, heads):
    """Returns a weight with its rows in the order of transformers: GGUF interleaves the two halves of each head that
    are rotated together."""
    return weight.reshape(heads, weight.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def config(reader):
    from transformers import LlamaConfig

    value = lambda key: reader.fields["llama." + key].contents()
    return LlamaConfig(
        vocab_size=next(t for t in reader.tensors if t.name == "token_embd.weight").shape.tolist()[1],
        hidden_size=value("embedding_length"), intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"), num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"), rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=value("context_length"), tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        rope_parameters=dict(rope_type="default", rope_theta=value("rope.freq_base")))


def load(path=GGUF):
    """Returns the model in float32."""
    # Imported only here, because measured engines import this file for its paths.
    import gguf
    import torch
    from transformers import LlamaForCausalLM

    reader = gguf.GGUFReader(str(path))
    settings = config(reader)
    state = {}
    for tensor in reader.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape.tolist()[::-1])
        if ".attn_q." in tensor.name:
            weight = rotated_back(weight, settings.num_attention_heads)
        if ".attn_k." in tensor.name:
            weight = rotated_back(weight, settings.num_key_value_heads)
        state[name_of(tensor.name)] = torch.from_numpy(np.array(weight, np.float32, order="C"))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(settings)
    model.load_state_dict(state)
    return model.eval()


def tokenizer(path=GGUF):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pathlib.Path(path).parent, gguf_file=pathlib.Path(path).name)


def folder(where=FOLDER, path=GGUF):
    """Returns the checkpoint folder, which is made if it does not exist."""
    if not (where / "model.safetensors").exists():
        where.mkdir(parents=True, exist_ok=True)
        tokenizer(path).save_pretrained(where)
        load(path).save_pretrained(where, max_shard_size="20GB")
    return where


if __name__ == "__main__":
    print(folder(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
