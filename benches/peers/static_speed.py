"""Compares static int8 by ONNX Runtime's own tool and by `optimize quantize --type static`, and both with dynamic int8.

The models are MiniLM-L6 (calibrated on 128 sentences, tested on 300 others) and a ResNet-18 with random weights (made
here with torch, calibrated on 16 inputs, tested on 32 others). The tool is used with its preprocessing and signed
weights with one scale per channel, with all operators and with only those that have weights. Closeness is the cosine of
the outputs with those of float32; latency is measured with all models in one process, in turn.

Usage: static_speed.py [--models L6,ResNet18] [--threads 1,2] [--seconds 20] [--ours "--smooth-quant 0.5" ...]
"""

import argparse
import logging
import os
import subprocess
import sys

import numpy as np
from tokenizers import Tokenizer

import minilm
from common import (COMMAND, MODELS, RUNTIME, SCRATCH, brown_sentences, clock_for, interleaved, ort_session, ratio, save,
                    shown_ratio, table)

WEIGHTS = ["Conv", "MatMul", "Gemm"]


class MiniLM:
    source = SCRATCH / "minilm-l6/model.onnx"
    shapes = [(1, 128), (8, 128)]

    def __init__(self):
        if not self.source.exists():
            minilm.export(self.source)
        self.tokenizer = Tokenizer.from_file(str(MODELS / "paraphrase-MiniLM-L3-v2/tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        texts = brown_sentences(428, seed=3)
        one = lambda text: self.feed(np.array([self.tokenizer.encode(text).ids], np.int64))
        self.calibration, self.judged = [one(t) for t in texts[:128]], [one(t) for t in texts[128:]]

    @staticmethod
    def feed(ids):
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    def random(self, shape):
        return self.feed(np.random.default_rng(0).integers(1000, 30000, shape))

    def tensors(self):
        """Returns the inputs padded to one length, because a file of tensors requires it."""
        longest = max(feed["input_ids"].shape[1] for feed in self.calibration)
        pad = lambda array: np.pad(array, ((0, 0), (0, longest - array.shape[1])))
        return {name: np.concatenate([pad(feed[name]) for feed in self.calibration]) for name in self.calibration[0]}

    @staticmethod
    def vector(output):
        return output[0].mean(axis=0)


class ResNet18:
    source = SCRATCH / "resnet18.onnx"
    shapes = [(1,), (8,)]

    def __init__(self):
        if not self.source.exists():
            export_resnet(self.source)
        draw = np.random.default_rng(1)
        inputs = [{"x": picture(draw)} for _ in range(48)]
        self.calibration, self.judged = inputs[:16], inputs[16:]

    def random(self, shape):
        return {"x": np.random.default_rng(0).normal(size=shape + (3, 224, 224)).astype(np.float32)}

    def tensors(self):
        return {"x": np.concatenate([feed["x"] for feed in self.calibration])}

    @staticmethod
    def vector(output):
        return output[0]


def picture(draw):
    """Returns an image of coloured patches with noise. Unlike images of white noise, two such images differ clearly."""
    coarse = draw.normal(size=(1, 3, 14, 14)).repeat(16, axis=2).repeat(16, axis=3)
    return (coarse + 0.2 * draw.normal(size=coarse.shape)).astype(np.float32)


def export_resnet(path):
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inside, outside, stride):
            super().__init__()
            conv = lambda i, o, k, s: nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o))
            self.first, self.second = conv(inside, outside, 3, stride), conv(outside, outside, 3, 1)
            self.across = nn.Identity() if stride == 1 and inside == outside else conv(inside, outside, 1, stride)

        def forward(self, x):
            return torch.relu(self.second(torch.relu(self.first(x))) + self.across(x))

    torch.manual_seed(0)
    stages = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = [block for i, o, stride in stages for block in (Block(i, o, stride), Block(o, o, 1))]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    draw = np.random.default_rng(0)
    with torch.no_grad():
        for _ in range(8):  # statistics for the normalizations
            net(torch.from_numpy(np.concatenate([picture(draw) for _ in range(4)])))
    net.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(net, torch.zeros(1, 3, 224, 224), str(path), opset_version=17, dynamo=False, input_names=["x"],
                      output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})


def by_tool(task, target, operators):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter(task.calibration)

        def get_next(self):
            return next(self.left, None)

    logging.getLogger().setLevel(logging.ERROR)
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(task.source), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=operators)
    prepared.unlink()


def by_us(task, target, *arguments):
    from safetensors.numpy import save_file

    data = SCRATCH / "static.safetensors"
    save_file(task.tensors(), str(data))
    arguments = [a if a != "DATA" else data for a in arguments]
    command = [COMMAND, "quantize", "--model", task.source, "--output", target, "--quiet", *arguments]
    subprocess.run(command, check=True, env=dict(os.environ, ORT_DYLIB_PATH=str(RUNTIME)))


def files(name, task, ours):
    """Makes the models to compare, and returns their files."""
    made = {"float32": task.source}
    place = lambda part: SCRATCH / f"{name}-{part}.onnx"
    for part, operators in [("tool, all operators", None), ("tool, weights only", WEIGHTS)]:
        path = place("tool-all" if operators is None else "tool-weights")
        by_tool(task, path, operators)
        made[part] = path
    by_us(task, place("dynamic"), "--type", "dynamic")
    made["optimize dynamic"] = place("dynamic")
    for index, extra in enumerate([""] + ours):
        path = place(f"static-{index}")
        by_us(task, path, "--type", "static", "--calibration", "DATA", *extra.split())
        made["optimize static " + extra] = path
    return made


def cosines(task, sessions):
    vectors = {}
    for name, session in sessions.items():
        names = [value.name for value in session.get_inputs()]
        rows = [task.vector(session.run(None, {n: feed[n] for n in names})[0]) for feed in task.judged]
        vectors[name] = np.stack(rows) / np.linalg.norm(np.stack(rows), axis=1, keepdims=True)
    return {name: float((v * vectors["float32"]).sum(axis=1).mean()) for name, v in vectors.items()}


def measure(name, threads, seconds, ours):
    task = {"L6": MiniLM, "ResNet18": ResNet18}[name]()
    made = files(name, task, ours)
    sessions = {model: ort_session(path, threads) for model, path in made.items()}
    quality = cosines(task, sessions)
    clock, kind = clock_for(threads)
    head = [f"{name}, {threads} thread{'s' if threads > 1 else ''} ({kind})", "bytes", "cosine"]
    rows = [[model, made[model].stat().st_size, f"{quality[model]:.5f}"] for model in made]
    result = {"cosine": quality}
    for shape in task.shapes:
        feed = task.random(shape)
        runs = {}
        for model, session in sessions.items():
            own = {value.name: feed[value.name] for value in session.get_inputs()}
            runs[model] = lambda s=session, f=own: s.run(None, f)
        times = interleaved(runs, seconds, clock)
        label = "x".join(map(str, shape))
        result[label] = {m: dict(ms=float(np.median(t)), ratio=ratio(times["float32"], t)) for m, t in times.items()}
        head += [label + " ms", "against float32"]
        for row in rows:
            row += [f"{result[label][row[0]]['ms']:.2f}", shown_ratio(result[label][row[0]]["ratio"])]
    table([head] + rows)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="L6,ResNet18")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--ours", action="append", default=[], help="more options of `optimize quantize` to try")
    arguments = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    save("static_speed", {f"{name}, {threads}": measure(name, int(threads), arguments.seconds, arguments.ours)
                          for name in arguments.models.split(",") for threads in arguments.threads.split(",")})


if __name__ == "__main__":
    sys.exit(main())
