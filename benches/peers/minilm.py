"""Converts all-MiniLM-L6-v2 from its safetensors to a plain float32 ONNX file, so that quantizers can be compared on a
graph that none of them wrote: opset 17, each product with a weight as MatMul and Add, attention in standard operators.

Usage: minilm.py OUTPUT.onnx
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from common import MODELS

LAYERS, HEADS, WIDTH = 6, 12, 384
HEAD = WIDTH // HEADS


class Graph:
    def __init__(self, weights):
        self.weights, self.nodes, self.initializers = weights, [], []

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def number(self, value, dtype):
        return self.constant(f"constant_{len(self.initializers)}", np.array(value, dtype))

    def node(self, op, inputs, **attributes):
        output = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def linear(self, x, name):
        weight = self.constant(name + ".weight", self.weights[name + ".weight"].T)
        return self.node("Add", [self.node("MatMul", [x, weight]), self.weight(name + ".bias")])

    def weight(self, name):
        return self.constant(name, self.weights[name])

    def norm(self, x, name):
        inputs = [x, self.weight(name + ".weight"), self.weight(name + ".bias")]
        return self.node("LayerNormalization", inputs, axis=-1, epsilon=1e-12)


def embeddings(g):
    zero = g.number([0], np.int64)
    length = g.node("Gather", [g.node("Shape", ["input_ids"]), g.number([1], np.int64)], axis=0)
    positions = g.node("Slice", [g.weight("embeddings.position_embeddings.weight"), zero, length, zero])
    words = g.node("Gather", [g.weight("embeddings.word_embeddings.weight"), "input_ids"])
    types = g.node("Gather", [g.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"])
    return g.norm(g.node("Add", [g.node("Add", [words, types]), positions]), "embeddings.LayerNorm")


def mask(g):
    keep = g.node("Unsqueeze", [g.node("Cast", ["attention_mask"], to=TensorProto.FLOAT), g.number([1, 2], np.int64)])
    return g.node("Mul", [g.node("Sub", [g.number(1, np.float32), keep]), g.number(-1e4, np.float32)])


def attention(g, x, bias, name):
    heads, whole = g.number([0, 0, HEADS, HEAD], np.int64), g.number([0, 0, WIDTH], np.int64)
    part = lambda which, order: g.node(
        "Transpose", [g.node("Reshape", [g.linear(x, f"{name}.self.{which}"), heads])], perm=order)
    query, key, value = part("query", [0, 2, 1, 3]), part("key", [0, 2, 3, 1]), part("value", [0, 2, 1, 3])
    scores = g.node("Mul", [g.node("MatMul", [query, key]), g.number(HEAD ** -0.5, np.float32)])
    shares = g.node("Softmax", [g.node("Add", [scores, bias])], axis=-1)
    mixed = g.node("Transpose", [g.node("MatMul", [shares, value])], perm=[0, 2, 1, 3])
    out = g.linear(g.node("Reshape", [mixed, whole]), name + ".output.dense")
    return g.norm(g.node("Add", [x, out]), name + ".output.LayerNorm")


def feed_forward(g, x, name):
    wide = g.linear(x, name + ".intermediate.dense")
    erf = g.node("Erf", [g.node("Div", [wide, g.number(2 ** 0.5, np.float32)])])
    gate = g.node("Add", [erf, g.number(1, np.float32)])
    gelu = g.node("Mul", [g.node("Mul", [wide, g.number(0.5, np.float32)]), gate])
    return g.norm(g.node("Add", [x, g.linear(gelu, name + ".output.dense")]), name + ".output.LayerNorm")


def export(path):
    g = Graph(load_file(MODELS / "all-MiniLM-L6-v2/model.safetensors"))
    x, bias = embeddings(g), mask(g)
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        x = feed_forward(g, attention(g, x, bias, name + ".attention"), name)
    g.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    tokens = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
              for name in ("input_ids", "attention_mask", "token_type_ids")]
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", WIDTH])
    graph = helper.make_graph(g.nodes, "minilm", tokens, [out], g.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


if __name__ == "__main__":
    export(sys.argv[1])
