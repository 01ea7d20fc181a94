"""Compares dynamic int8 quantization by ONNX Runtime's own tool, with its best settings, and by `optimize quantize`.

The models are MiniLM-L3 and MiniLM-L6. For each, the float model and both int8 models are compared: size, closeness to
the float model on 500 sentences, and latency on 1 and 2 threads, with all three in one process, in turn.

Usage: quantize_dynamic.py [NAME[=OURS.onnx] ...]
       NAME                L3 or L6 [default: both]
       OURS.onnx           the model quantized by liboptimize [default: made by `optimize quantize`]
       --float-l6 FILE     the float L6 [default: target/peers/minilm-l6/model.onnx, made by minilm.py]
       --seconds S         the time for each pair of shape and threads [default: 20]
       --quality-only      does not measure latency
"""

import argparse
import logging
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
from tokenizers import Tokenizer

import minilm
from common import (COMMAND, MODELS, RUNTIME, SCRATCH, brown_sentences, clock_for, interleaved, ort_session, ratio,
                    save, shown_ratio, table)

SENTENCES = 500
SHAPES = [(1, 128), (8, 128)]
FLOAT = {"L3": MODELS / "paraphrase-MiniLM-L3-v2/model.onnx", "L6": SCRATCH / "minilm-l6/model.onnx"}
# Signed weights with one scale per channel are the tool's best settings, by quality and by speed, on a processor with
# VNNI. The others that were tried (per tensor, unsigned, reduced range, graph fused before) are worse.
BEST = dict(per_channel=True, reduce_range=False)


def ort_int8(source, target):
    """Runs the tool and returns its processor seconds."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The tool recommends preprocessing, but with it, results for these models have the same nodes and the same speed.
    logging.getLogger().setLevel(logging.ERROR)
    start = time.process_time()
    quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, **BEST)
    return time.process_time() - start


def our_int8(source, target):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [COMMAND, "quantize", "--model", source, "--type", "dynamic", "--bits", "8", "--output", target, "--quiet"]
    subprocess.run(command, check=True, env=dict(os.environ, ORT_DYLIB_PATH=str(RUNTIME)))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def feed(session, ids):
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {value.name: values[value.name] for value in session.get_inputs()}


def output_of(session):
    """Returns the name of the output with one vector per text, or else of the one with a vector per token."""
    vectors = [o for o in session.get_outputs() if "float" in o.type and isinstance(o.shape[-1], int)]
    return min(vectors, key=lambda output: len(output.shape)).name


def embedding_of(session, tokenizer):
    """Returns a function from a text to its vector, or to the mean of its token vectors, scaled to length 1."""
    output = output_of(session)

    def embed(text):
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        vector = session.run([output], feed(session, ids))[0][0]
        vector = vector if vector.ndim == 1 else vector.mean(axis=0)
        return vector / np.linalg.norm(vector)

    return embed


def quality(models, tokenizer):
    texts = brown_sentences(SENTENCES)
    vectors = {}
    for name, path in models.items():
        embed = embedding_of(ort_session(path, 1), tokenizer)
        vectors[name] = np.stack([embed(text) for text in texts])
    nearest = {name: np.argmax(v @ v.T - 2 * np.eye(len(v)), axis=1) for name, v in vectors.items()}
    found = {}
    for name in models:
        cosine = (vectors["float"] * vectors[name]).sum(axis=1)
        found[name] = dict(cosine=float(cosine.mean()), cosine_p1=float(np.quantile(cosine, 0.01)),
                           cosine_min=float(cosine.min()),
                           nearest_kept=float((nearest[name] == nearest["float"]).mean()))
    return found


def speed(models, threads, shape, seconds):
    sessions = {name: ort_session(path, threads) for name, path in models.items()}
    ids = np.random.default_rng(0).integers(1000, 30000, shape)

    def run(session):
        inputs = feed(session, ids)
        outputs = [output_of(session)]
        return lambda: session.run(outputs, inputs)

    clock, kind = clock_for(threads)
    times = interleaved({name: run(s) for name, s in sessions.items()}, seconds, clock)
    pairs = [("float", "ort"), ("float", "ours"), ("ort", "ours")]
    return dict(threads=threads, shape=list(shape), clock=kind, rounds=len(times["float"]),
                median_ms={name: float(np.median(t)) for name, t in times.items()},
                ratios={f"{a}/{b}": ratio(times[a], times[b]) for a, b in pairs})


def compare(name, source, ours, tokenizer, arguments):
    models = {"float": source, "ort": SCRATCH / f"{name}-ort-int8.onnx", "ours": ours}
    result = {"tool_cpu_seconds": {"ort": ort_int8(source, models["ort"])}}
    if ours is None:
        models["ours"] = SCRATCH / f"{name}-ours-int8.onnx"
        result["tool_cpu_seconds"]["ours"] = our_int8(source, models["ours"])
    result["bytes"] = {which: pathlib.Path(path).stat().st_size for which, path in models.items()}
    result["quality"] = quality(models, tokenizer)
    head = ["MiniLM-" + name, "size", "cosine", "1 %", "least", "nearest kept", "tool CPU"]
    rows = [head]
    for which, found in result["quality"].items():
        cost = result["tool_cpu_seconds"].get(which)
        size = result["bytes"][which]
        rows.append([which, f"{size / 1e6:.2f} MB ({result['bytes']['float'] / size:.2f}x)", f"{found['cosine']:.5f}",
                     f"{found['cosine_p1']:.4f}", f"{found['cosine_min']:.4f}", f"{found['nearest_kept']:.3f}",
                     "" if cost is None else f"{cost:.2f} s"])
    table(rows)
    if not arguments.quality_only:
        result["speed"] = [speed(models, t, s, arguments.seconds) for t in (1, 2) for s in SHAPES]
        rows = [["MiniLM-" + name, "float ms", "ort ms", "ours ms", "float/ort", "float/ours", "ort/ours", "rounds"]]
        for s in result["speed"]:
            label = f"{s['threads']} thread{'s' if s['threads'] > 1 else ''} ({s['clock']}), {s['shape'][0]}x{s['shape'][1]}"
            rows.append([label] + [f"{ms:.2f}" for ms in s["median_ms"].values()]
                        + [shown_ratio(r) for r in s["ratios"].values()] + [s["rounds"]])
        table(rows)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME=OURS.onnx")
    parser.add_argument("--float-l6", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--quality-only", action="store_true")
    arguments = parser.parse_args()
    chosen = dict((m.split("=", 1) + [None])[:2] for m in arguments.models) or {"L3": None, "L6": None}
    SCRATCH.mkdir(parents=True, exist_ok=True)
    sources = FLOAT | ({"L6": arguments.float_l6} if arguments.float_l6 else {})
    if "L6" in chosen and not sources["L6"].exists():
        minilm.export(sources["L6"])
    tokenizer = Tokenizer.from_file(str(MODELS / "paraphrase-MiniLM-L3-v2/tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    result = {name: compare(name, sources[name], ours, tokenizer, arguments) for name, ours in chosen.items()}
    save("quantize_dynamic", result)


if __name__ == "__main__":
    sys.exit(main())
