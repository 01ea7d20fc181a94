"""Measures wall time, processor time and memory of `optimize quantize` and of ONNX Runtime's Python tools.

The graphs have random weights in the shapes of a BERT-base (434 MB) and of a Llama of 1.1 billion parameters (4.4 GB,
external data). Each tool runs in its own process, in turn. Memory is the peak resident size (`VmHWM`, polled), and the
peak without the pages of mapped files, which the kernel can drop (`RssAnon`).

Usage: tool_cost.py [--models bert,llama] [--rounds 3] [--clean]      --clean removes the graphs at the end
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import onnx
from onnx import TensorProto, helper

from common import COMMAND, RUNTIME, SCRATCH, save, table

FOLDER = SCRATCH / "tool_cost"
TOOL = """
import sys, logging
logging.getLogger().setLevel(logging.ERROR)
source, target, form, large = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "True"
if form == "dynamic":
    from onnxruntime.quantization import QuantType, quantize_dynamic
    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=large)
else:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    tool = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=False, accuracy_level=4)
    tool.process()
    tool.model.save_model_to_file(target, large)
"""
FORMS = {"dynamic": ["--type", "dynamic"], "4 bits": ["--type", "weight-only", "--bits", "4"]}


class Builder:
    """A graph whose weights are written to a separate file as they are added."""

    def __init__(self, data):
        self.data, self.weights, self.nodes, self.offset = data, [], [], 0
        self.block = np.random.default_rng(0).standard_normal(1 << 22, np.float32) * 0.02

    def weight(self, name, *dims):
        count = int(np.prod(dims))
        for start in range(0, count, self.block.size):
            part = np.roll(self.block, self.offset // 4 % 9973)
            self.data.write(part[: min(part.size, count - start)].tobytes())
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
        for key, value in dict(location="model.onnx.data", offset=self.offset, length=4 * count).items():
            tensor.external_data.add(key=key, value=str(value))
        self.weights.append(tensor)
        self.offset += 4 * count
        return name

    def op(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def product(self, name, x, inputs, outputs):
        return self.op("MatMul", [x, self.weight(name + ".weight", inputs, outputs)], name)


def built(name, inline, vocabulary, width, layers, narrow, inner, gated):
    """Returns the path of a graph whose weights have the shapes of those of a transformer, and whose other nodes are
    simplified. It is made if it does not exist."""
    path = FOLDER / name / "model.onnx"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / "model.onnx.data", "wb") as data:
        b = Builder(data)
        x = b.op("Gather", [b.weight("embed_tokens.weight", vocabulary, width), "input_ids"], "embedded")
        for layer in range(layers):
            of = lambda part, x, inputs, outputs: b.product(f"layers.{layer}.{part}", x, inputs, outputs)
            q, k, v = of("q_proj", x, width, width), of("k_proj", x, width, narrow), of("v_proj", x, width, narrow)
            kv = b.op("ReduceMean", [b.op("Add", [k, v], f"kv{layer}")], f"mean{layer}", axes=[-1])
            attended = of("o_proj", b.op("Mul", [q, kv], f"attended{layer}"), width, width)
            x = b.op("Add", [x, attended], f"x{layer}")
            up = b.op("Sigmoid", [of("up_proj", x, width, inner)], f"up{layer}")
            if gated:
                up = b.op("Mul", [up, of("gate_proj", x, width, inner)], f"gated{layer}")
            x = b.op("Add", [x, of("down_proj", up, inner, width)], f"y{layer}")
        last = b.product("lm_head", x, width, vocabulary) if gated else x
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    output = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["batch", "sequence", None])
    model = helper.make_model(helper.make_graph(b.nodes, name, [ids], [output], b.weights),
                              opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    if inline:
        onnx.save(onnx.load(path), path)
        (path.parent / "model.onnx.data").unlink()
    return path


def bert():
    return built("bert", True, 30522, 768, 12, 768, 3072, False)


def llama():
    return built("llama", False, 32000, 2048, 22, 256, 5632, True)


def watch(pid, found, stop):
    while not stop.is_set():
        try:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            own, peak = (int(status.split(key)[1].split()[0]) * 1024 for key in ("RssAnon:", "VmHWM:"))
            found.append((own, peak))
        except (OSError, IndexError):
            return
        time.sleep(0.02)


def cost(command, target):
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir(parents=True)
    start, stop, anon = time.time(), threading.Event(), [(0, 0)]
    process = subprocess.Popen([str(c) for c in command], env=dict(os.environ, ORT_DYLIB_PATH=str(RUNTIME)),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    threading.Thread(target=watch, args=(process.pid, anon, stop), daemon=True).start()
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    stop.set()
    seconds = time.time() - start
    size = sum(f.stat().st_size for f in target.parent.rglob("*") if f.is_file())
    shutil.rmtree(target.parent, ignore_errors=True)
    last = (error.strip().splitlines() or ["killed"])[-1]
    # ru_maxrss would include the memory of this process, which the child shares before it executes the other program.
    return dict(wall=seconds, cpu=usage.ru_utime + usage.ru_stime, peak=max(p for _, p in anon), anonymous=max(a for a, _ in anon),
                bytes=size, error=last if status else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="bert,llama")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clean", action="store_true", help="remove the models at the end")
    arguments = parser.parse_args()
    result, target = {}, FOLDER / "made/model.onnx"
    rows = [["model", "form", "tool", "wall s", "CPU s", "peak MB", "of it no file pages", "result MB", "theirs/ours wall"]]
    for name in arguments.models.split(","):
        source = dict(bert=bert, llama=llama)[name]()
        source.read_bytes()
        for form, flags in FORMS.items():
            tools = {
                "optimize": [COMMAND, "quantize", "--model", source, "--output", target, "--quiet", *flags],
                "onnxruntime": [sys.executable, "-c", TOOL, source, target, form, name == "llama"],
            }
            rounds = {tool: [cost(command, target) for _ in [0]] for tool, command in tools.items()}
            for _ in range(1, arguments.rounds if name == "bert" else 1):
                for tool, command in tools.items():
                    rounds[tool].append(cost(command, target))
            middle = {tool: sorted(found, key=lambda c: c["wall"])[len(found) // 2] for tool, found in rounds.items()}
            for tool, c in middle.items():
                against = "" if tool == "optimize" else f"{c['wall'] / middle['optimize']['wall']:.1f}x"
                rows.append([name, form, tool, f"{c['wall']:.1f}", f"{c['cpu']:.1f}", f"{c['peak'] / 1e6:.0f}",
                             f"{c['anonymous'] / 1e6:.0f}", f"{c['bytes'] / 1e6:.1f}", c["error"] or against])
            result[f"{name}, {form}"] = rounds
    table(rows)
    save("tool_cost", result)
    if arguments.clean:
        shutil.rmtree(FOLDER)


if __name__ == "__main__":
    sys.exit(main())
