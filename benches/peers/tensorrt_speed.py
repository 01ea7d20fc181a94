"""Measures the speed of MiniLM-L6 on an NVIDIA GPU: TensorRT engines of liboptimize, ONNX Runtime's CUDA and TensorRT
providers, and PyTorch eager and compiled, all in one run on one GPU. Times are from inputs in host memory to outputs in
host memory.

`optimize benchmark` times the engines of liboptimize in separate processes, against ONNX Runtime's CUDA provider if
ORT_DYLIB_PATH names a library that has it. The others are timed in this process, in turn. Rounds of both alternate.

Needs a GPU, torch with CUDA, transformers and onnxruntime-gpu. It has not been run yet, because no GPU was available.

Usage: tensorrt_speed.py [--rounds 3] [--seconds 10] [--shapes 1x16,1x128,8x128]
"""

import argparse
import json
import os
import statistics
import subprocess
import time

import numpy as np

import minilm
from common import COMMAND, DEPS, MODELS, SCRATCH, interleaved, save, table

PRECISIONS = ["fp32", "fp16", "bf16", "int8"]


def engines(model, batch, length):
    """Returns the paths of the engines of liboptimize for one shape by precision; those that cannot be built are
    skipped with a message."""
    made = {}
    for precision in PRECISIONS:
        path = SCRATCH / f"L6-{precision}-{batch}x{length}.engine"
        command = [COMMAND, "tensorrt", "--model", model, "--precision", precision, "--batch-size", str(batch),
                   "--sequence-length", str(length), "--output", path, "--quiet"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode == 0:
            made[precision] = path
        else:
            print(f"no engine in {precision}: {done.stderr.strip()}")
    return made


def ours(model, engine, batch, length):
    provider = ["--provider", "cuda"] if os.environ.get("ORT_DYLIB_PATH") else []
    command = [COMMAND, "benchmark", "--model", model, "--against", engine, "--trust-engines", "--json", "--runs", "200",
               "--batch-size", str(batch), "--sequence-length", str(length), *provider]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    return report["benchmark"]["latency_ms"]["result"]["median"], report["quality"]["cosine"]


def feed(session, ids):
    known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {value.name: known[value.name] for value in session.get_inputs()}


def peers(model, ids):
    import onnxruntime
    import torch
    from transformers import AutoModel

    runs = {}
    for name, providers in {
        "onnxruntime cuda": ["CUDAExecutionProvider"],
        "onnxruntime tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
    }.items():
        session = onnxruntime.InferenceSession(str(model), providers=providers)
        if session.get_providers()[0] != providers[0]:
            print(f"{name} cannot be had: it runs on {session.get_providers()[0]}")
            continue
        values = feed(session, ids)
        runs[name] = lambda session=session, values=values: session.run(None, values)
    plain = AutoModel.from_pretrained(MODELS / "all-MiniLM-L6-v2").eval().cuda()

    def torch_run(model, dtype):
        def run():
            given = torch.from_numpy(ids).cuda()
            with torch.inference_mode(), torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
                return model(input_ids=given, attention_mask=torch.ones_like(given)).last_hidden_state.float().cpu()
        return run

    compiled = torch.compile(plain, mode="max-autotune")
    for name, dtype in {"fp32": torch.float32, "fp16": torch.float16}.items():
        runs[f"torch eager {name}"] = torch_run(plain, dtype)
        runs[f"torch compile {name}"] = torch_run(compiled, dtype)
    return runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--shapes", default="1x16,1x128,8x128")
    arguments = parser.parse_args()
    os.environ.setdefault("OPTIMIZE_TENSORRT_PATH", str(DEPS / "tensorrt-rtx"))
    SCRATCH.mkdir(parents=True, exist_ok=True)
    model = SCRATCH / "minilm-l6.onnx"
    if not model.exists():
        minilm.export(model)
    rows, results = [], {}
    for shape in arguments.shapes.split(","):
        batch, length = map(int, shape.split("x"))
        ids = np.random.default_rng(1).integers(1000, 20000, (batch, length))
        made, runs = engines(model, batch, length), peers(model, ids)
        times = {}
        for _ in range(arguments.rounds):
            for precision, path in made.items():
                median, cosine = ours(model, path, batch, length)
                times.setdefault(f"ours {precision} (cosine {cosine:.5f})", []).append(median)
            for name, found in interleaved(runs, arguments.seconds, time.perf_counter).items():
                times.setdefault(name, []).append(statistics.median(found))
        results[shape] = {name: statistics.median(found) for name, found in times.items()}
        rows += [[shape, name, f"{value:.3f}"] for name, value in sorted(results[shape].items(), key=lambda x: x[1])]
    table([["shape", "what", "ms"], *rows])
    save("tensorrt_speed", results)


if __name__ == "__main__":
    main()
