"""Writes SmolLM2-135M as a plain float32 ONNX file with a concatenated KV cache, in standard operators of opset 17, as
exporters do. Other scripts run the file in runtimes that read ONNX.

Usage: smollm2_onnx.py [FILE]      default target/peers/smollm2-onnx/model.onnx
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import smollm2


class Graph:
    def __init__(self, state, config):
        self.state, self.config = state, config
        self.nodes, self.initializers, self.inputs, self.outputs = [], [], [], []
        self.known = {}

    def node(self, op, inputs, count=1, **attributes):
        names = [f"{op}_{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names[0] if count == 1 else names

    def constant(self, array, name=None):
        key = name or (array.dtype.str, array.shape, array.tobytes())
        if key not in self.known:
            self.known[key] = name or f"constant_{len(self.known)}"
            self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), self.known[key]))
        return self.known[key]

    def ints(self, *values):
        return self.constant(np.array(values, np.int64))

    def number(self, value):
        return self.constant(np.array(value, np.float32))

    def weight(self, name, transposed=False):
        array = self.state[name + ".weight"].numpy()
        return self.constant(array.T if transposed else array, name)

    def norm(self, x, name):
        mean = self.node("ReduceMean", [self.node("Mul", [x, x])], axes=[-1], keepdims=1)
        root = self.node("Sqrt", [self.node("Add", [mean, self.number(self.config.rms_norm_eps)])])
        return self.node("Mul", [self.node("Div", [x, root]), self.weight(name)])

    def linear(self, x, name):
        return self.node("MatMul", [x, self.weight(name, transposed=True)])


def rotation(g, size):
    """Returns cosines and sines of the positions, `[batch, 1, tokens, size]`."""
    theta, positions = g.config.rope_parameters["rope_theta"], g.config.max_position_embeddings
    angles = np.outer(np.arange(positions), theta ** (-np.arange(0, size, 2) / size))
    angles = np.concatenate([angles, angles], axis=1)
    table = lambda values, name: g.constant(values.astype(np.float32), name)
    pick = lambda name: g.node("Unsqueeze", [g.node("Gather", [name, "position_ids"]), g.ints(1)])
    return pick(table(np.cos(angles), "cosines")), pick(table(np.sin(angles), "sines"))


def rotated(g, x, turn, size):
    first, second = g.node("Split", [x, g.ints(size // 2, size // 2)], 2, axis=-1)
    turned = g.node("Concat", [g.node("Neg", [second]), first], axis=-1)
    return g.node("Add", [g.node("Mul", [x, turn[0]]), g.node("Mul", [turned, turn[1]])])


def mask(g):
    """Returns the mask `[batch, 1, 1, tokens, total]`: 0 for keys up to the query, else the lowest float."""
    total = g.node("Gather", [g.node("Shape", ["present.0.key"]), g.constant(np.array(2, np.int64))], axis=0)
    scalar = lambda value: g.constant(np.array(value, np.int64))
    keys = g.node("Unsqueeze", [g.node("Range", [scalar(0), total, scalar(1)]), g.ints(0, 1)])
    seen = g.node("LessOrEqual", [keys, g.node("Unsqueeze", ["position_ids", g.ints(2)])])
    return g.node("Unsqueeze", [g.node("Where", [seen, g.number(0), g.number(-1e9)]), g.ints(1, 2)])


def attention(g, x, layer, turn, bias):
    heads, groups = g.config.num_attention_heads, g.config.num_key_value_heads
    size = g.config.hidden_size // heads
    name = f"model.layers.{layer}.self_attn."

    def part(which, count):
        split = g.node("Reshape", [g.linear(x, name + which), g.ints(0, 0, count, size)])
        return g.node("Transpose", [split], perm=[0, 2, 1, 3])

    new = dict(key=rotated(g, part("k_proj", groups), turn, size), value=part("v_proj", groups))
    for kind, value in new.items():
        past, present = f"past_key_values.{layer}.{kind}", f"present.{layer}.{kind}"
        shape = lambda tokens: ["batch", groups, tokens, size]
        g.inputs.append(helper.make_tensor_value_info(past, TensorProto.FLOAT, shape("past")))
        g.outputs.append(helper.make_tensor_value_info(present, TensorProto.FLOAT, shape("total")))
        g.nodes.append(helper.make_node("Concat", [past, value], [present], axis=2))
    bias = bias or mask(g)
    query = rotated(g, part("q_proj", heads), turn, size)
    query = g.node("Reshape", [query, g.ints(0, groups, heads // groups, -1, size)])
    wide = lambda kind: g.node("Unsqueeze", [f"present.{layer}.{kind}", g.ints(2)])
    scores = g.node("MatMul", [query, g.node("Transpose", [wide("key")], perm=[0, 1, 2, 4, 3])])
    scores = g.node("Add", [g.node("Mul", [scores, g.number(size ** -0.5)]), bias])
    mixed = g.node("MatMul", [g.node("Softmax", [scores], axis=-1), wide("value")])
    mixed = g.node("Transpose", [g.node("Reshape", [mixed, g.ints(0, heads, -1, size)])], perm=[0, 2, 1, 3])
    return g.linear(g.node("Reshape", [mixed, g.ints(0, 0, heads * size)]), name + "o_proj"), bias


def feed_forward(g, x, layer):
    name = f"model.layers.{layer}.mlp."
    gate = g.linear(x, name + "gate_proj")
    gate = g.node("Mul", [gate, g.node("Sigmoid", [gate])])
    return g.linear(g.node("Mul", [gate, g.linear(x, name + "up_proj")]), name + "down_proj")


def export(path=smollm2.PLAIN_ONNX):
    """Returns the file, which is made if it does not exist."""
    if path.exists():
        return path
    model = smollm2.load()
    g = Graph(model.state_dict(), model.config)
    g.inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
                for name in ("input_ids", "position_ids")]
    table = g.weight("model.embed_tokens")
    x, bias = g.node("Gather", [table, "input_ids"]), None
    turn = rotation(g, g.config.hidden_size // g.config.num_attention_heads)
    for layer in range(g.config.num_hidden_layers):
        name = f"model.layers.{layer}."
        out, bias = attention(g, g.norm(x, name + "input_layernorm"), layer, turn, bias)
        x = g.node("Add", [x, out])
        x = g.node("Add", [x, feed_forward(g, g.norm(x, name + "post_attention_layernorm"), layer)])
    g.nodes.append(helper.make_node("MatMul", [g.norm(x, "model.norm"), g.node("Transpose", [table], perm=[1, 0])],
                                    ["logits"]))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", g.config.vocab_size])
    graph = helper.make_graph(g.nodes, "smollm2", g.inputs, [logits] + g.outputs, g.initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, str(path), save_as_external_data=True, location="model.onnx.data")
    return path


if __name__ == "__main__":
    print(export(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else smollm2.PLAIN_ONNX))
