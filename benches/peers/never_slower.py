"""Tests `--never-slower` on graphs of several kinds: no result may be slower than its original.

MiniLM-L3 and -L6 and silero-vad are real; the others are made here with torch and random weights: small and wide
multilayer perceptrons, LSTM, GRU, a CNN, a depthwise CNN, a transformer encoder of width 96. MiniLM-L6 and ResNet-18
are omitted if `encoder_speed.py` or `static_speed.py` has not made their files yet. Each graph is quantized in dynamic
int8 and to 4 bits, with and without the option, and original and result run in turn in stock ONNX Runtime. The script
lists the cases in which the speed-up with `--never-slower` has a 95 % interval that begins below 1. If `optimize
quantize` fails, for example because no node can be quantized, the table says "left as it is".

Usage: never_slower.py [--threads 1] [--seconds 6] [--only NAME ...]
"""

import argparse
import os
import subprocess
import sys

import numpy as np

from common import COMMAND, MODELS, RUNTIME, SCRATCH, clock_for, interleaved, ort_session, ratio, save, shown_ratio, table

FOLDER = SCRATCH / "never_slower"
FORMS = {"dynamic": ["--type", "dynamic"], "4 bits": ["--type", "weight-only", "--bits", "4"]}


def made(name, module, inputs, names, axes=None):
    import torch

    path = FOLDER / f"{name}.onnx"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        torch.onnx.export(module.eval(), inputs, str(path), input_names=names, dynamo=False, opset_version=17,
                          dynamic_axes=axes)
    return path


def graphs():
    import torch
    from torch import nn

    torch.manual_seed(0)
    mlp = lambda sizes: nn.Sequential(*[m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.ReLU())])
    depthwise = []
    for c in (32, 64, 128, 256):
        depthwise += [nn.Conv2d(c, c, 3, 2, 1, groups=c), nn.BatchNorm2d(c), nn.ReLU6(), nn.Conv2d(c, 2 * c, 1),
                      nn.BatchNorm2d(2 * c), nn.ReLU6()]
    mobile = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), *depthwise, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                           nn.Linear(512, 1000))
    cnn = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 128, 3, 1, 1), nn.ReLU(),
                        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128 * 56 * 56 // 4, 64))
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(96, 4, 384, batch_first=True), 2,
                                    enable_nested_tensor=False)
    found = {
        "MiniLM-L3": MODELS / "paraphrase-MiniLM-L3-v2/model.onnx",
        "MiniLM-L6": SCRATCH / "minilm-l6/model.onnx",
        "silero-vad": MODELS / "silero-vad/silero_vad.onnx",
        "tiny MLP": made("tiny_mlp", mlp([16, 32, 8]), (torch.randn(1, 16),), ["x"]),
        "wide MLP": made("wide_mlp", mlp([1024, 4096, 1024]), (torch.randn(4, 1024),), ["x"]),
        "LSTM": made("lstm", nn.LSTM(128, 256, batch_first=True), (torch.randn(1, 50, 128),), ["x"]),
        "GRU": made("gru", nn.GRU(128, 256, batch_first=True), (torch.randn(1, 50, 128),), ["x"]),
        "CNN": made("cnn", cnn, (torch.randn(1, 3, 112, 112),), ["x"]),
        "depthwise CNN": made("mobile", mobile, (torch.randn(1, 3, 224, 224),), ["x"]),
        "small encoder": made("encoder", encoder, (torch.randn(1, 32, 96),), ["x"]),
    }
    if (SCRATCH / "resnet18.onnx").exists():
        found["ResNet-18"] = SCRATCH / "resnet18.onnx"
    return {name: path for name, path in found.items() if path.exists()}


def inputs_of(session):
    generator = np.random.default_rng(0)
    feed = {}
    for info in session.get_inputs():
        sizes = [d if isinstance(d, int) and d > 0 else (1 if i == 0 else 128) for i, d in enumerate(info.shape)]
        if info.name == "sr":
            feed[info.name] = np.array(16000, np.int64)
        elif info.name == "input" and session.get_inputs()[-1].name == "sr":
            feed[info.name] = generator.standard_normal((1, 512), np.float32)
        elif "int64" in info.type:
            whole = info.name.endswith("mask")
            feed[info.name] = np.ones(sizes, np.int64) if whole else generator.integers(0, 2 if "type" in info.name else 20000, sizes)
        elif info.name == "state":
            feed[info.name] = np.zeros((2, 1, 128), np.float32)
        else:
            feed[info.name] = generator.standard_normal(sizes, np.float32)
    return feed


def quantized(source, target, form, threads, never_slower):
    command = [COMMAND, "quantize", "--model", source, *FORMS[form], "--output", target, "--quiet", "--threads", str(threads)]
    command += ["--never-slower"] if never_slower else []
    done = subprocess.run(command, env=dict(os.environ, ORT_DYLIB_PATH=str(RUNTIME)), capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    clock, kind = clock_for(arguments.threads)
    result, slower = {}, []
    rows = [[f"{arguments.threads} thread ({kind})", "form", "quantized plainly", "with --never-slower"]]
    for name, source in graphs().items():
        if arguments.only and name not in arguments.only:
            continue
        for form in FORMS:
            shown, found = [], {}
            for never in (False, True):
                target = FOLDER / f"{name}-{form}-{never}.onnx".replace(" ", "_")
                refused = quantized(source, target, form, arguments.threads, never)
                if refused:
                    shown.append("left as it is")
                    found["never_slower" if never else "plain"] = refused
                    continue
                sessions = {"original": ort_session(source, arguments.threads), "result": ort_session(target, arguments.threads)}
                feed = inputs_of(sessions["original"])
                runs = {key: (lambda s=s: s.run(None, feed)) for key, s in sessions.items()}
                times = interleaved(runs, arguments.seconds, clock)
                speed = ratio(times["original"], times["result"])
                shown.append(shown_ratio(speed))
                found["never_slower" if never else "plain"] = speed
                if never and speed[2] < 1:
                    slower.append(f"{name}, {form}")
            rows.append([name, form, *shown])
            result[f"{name}, {form}"] = found
    table(rows)
    print("slower:", ", ".join(slower) or "none")
    save("never_slower", result)


if __name__ == "__main__":
    sys.exit(main())
