"""Prints size and perplexity of SmolLM2-135M: results of `optimize quantize`, of llama.cpp and of ONNX Runtime.

The model is a copy in float32 whose weights are not on the 4-bit grid of the GGUF file: on that grid, 4 bits lose
nothing. No script here makes the default, target/peers/smollm2-off; perplexity.py writes the default texts. The figures
of the peers are those of an earlier run with the same machine, texts and windows (PEERS below); those of `optimize
quantize` with the options in FORMS are measured here. Calibration and evaluation should use different texts. Results
that are already in target/peers/size_curve.json are not measured again.

Usage: size_curve.py --calibration FILE [--model DIR] [--texts FILE FILE]
The rows belong into the table of docs/size-and-quality.md, from which a test draws the picture beside it
(OPTIMIZE_PICTURES=write cargo nextest run --release --test docs).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys

from common import COMMAND, RUNTIME, SCRATCH, table

FLOAT_BYTES = 538_090_408
WEIGHT_ONLY = ["--type", "weight-only"]
DATA = ["--calibration", "{calibration}"]
FORMS = {
    "dynamic int8": ["--type", "dynamic"],
    "dynamic int8, smooth 0.5": ["--type", "dynamic", "--smooth-quant", "0.5"],
    "8 bits": [*WEIGHT_ONLY, "--bits", "8"],
    "4 bits, blocks of 128": [*WEIGHT_ONLY, "--block-size", "128"],
    "4 bits, blocks of 32": WEIGHT_ONLY,
    "4 bits, blocks of 16": [*WEIGHT_ONLY, "--block-size", "16"],
    "4 bits, blocks of 32, AWQ": [*WEIGHT_ONLY, "--algorithm", "awq", *DATA],
    "4 bits, blocks of 16, AWQ": [*WEIGHT_ONLY, "--block-size", "16", "--algorithm", "awq", *DATA],
    "4 bits, blocks of 16, GPTQ": [*WEIGHT_ONLY, "--block-size", "16", *DATA],
    "target 12 %": [*WEIGHT_ONLY, "--bits", "2", "--target-size", "12%", *DATA],
    "target 17 %": [*WEIGHT_ONLY, "--target-size", "17%", *DATA],
    "target 19.5 %": [*WEIGHT_ONLY, "--target-size", "19.5%", *DATA],
    "target 22 %": [*WEIGHT_ONLY, "--target-size", "22%", *DATA],
}
# The size in megabytes, and the change of the perplexity on each of the two texts in per cent.
PEERS = {
    "llama.cpp Q4_K_M": (105.5, 6.8, 7.7),
    "llama.cpp Q4_0": (91.7, 22.9, 25.0),
    "llama.cpp Q8_0": (144.8, 0.1, 0.0),
    "llama.cpp Q5_K_M": (112.1, 5.3, 3.8),
    "llama.cpp Q3_K_M": (93.5, 21.2, 17.8),
    "llama.cpp Q6_K": (138.4, 1.1, 0.2),
    "llama.cpp Q4_1": (98.4, 36.8, 30.0),
    "ORT HQQ b32 (float head)": (194, 15.7, 17.7),
}


def call(*arguments):
    done = subprocess.run([str(a) for a in (COMMAND, *arguments, "--json")], capture_output=True, text=True,
                          env=dict(os.environ, ORT_DYLIB_PATH=str(RUNTIME)))
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


def change(model, against, text):
    quality = call("evaluate", "--model", against, "--against", model, "--data", text, "--max-tokens", "2050",
                   "--stride", "512")["quality"]
    return 100 * (quality["result"]["perplexity"] / quality["original"]["perplexity"] - 1)


def measure(arguments, found, keep):
    for name, flags in FORMS.items():
        if name in found:
            continue
        target = SCRATCH / "size_curve"
        shutil.rmtree(target, ignore_errors=True)
        flags = [flag.format(calibration=arguments.calibration) for flag in flags]
        try:
            report = call("quantize", "--model", arguments.model, "--output", target, *flags)
            changes = [change(target, arguments.model, text) for text in arguments.texts]
        except RuntimeError as e:
            print(f"{name}: {e}")
            continue
        found[name] = dict(bytes=report["summary"]["bytes_after"], changes=changes, seconds=report["seconds"])
        keep(found)
        shutil.rmtree(target, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(SCRATCH / "smollm2-off"))
    parser.add_argument("--calibration")
    parser.add_argument("--texts", nargs=2, default=[str(SCRATCH / f"brown-{t}.txt") for t in ("news", "romance")])
    arguments = parser.parse_args()
    file = SCRATCH / "size_curve.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    keep = lambda found: file.write_text(json.dumps(found, indent=1))
    measure(arguments, found, keep)
    rows = [["quantization", "MB", "share of float32", "news", "romance"]]
    for name, one in sorted(found.items(), key=lambda item: item[1]["bytes"]):
        size = 100 * one["bytes"] / FLOAT_BYTES
        rows.append([name, f"{one['bytes'] / 1e6:.1f}", f"{size:.1f} %", *[f"{c:+.1f} %" for c in one["changes"]]])
    for name, (megabytes, a, b) in PEERS.items():
        size = 1e8 * megabytes / FLOAT_BYTES
        rows.append([name, megabytes, f"{size:.1f} %", f"+{a} %", f"+{b} %"])
    table(rows)


if __name__ == "__main__":
    sys.exit(main())
