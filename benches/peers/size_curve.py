"""Draws size against perplexity of SmolLM2-135M: every form of `optimize quantize`, llama.cpp and ONNX Runtime.

The model is a copy whose weights are not on the 4-bit grid of the packaged file: on that grid, 4 bits lose nothing.
The figures of the peers are those of an earlier run with the same machine, texts and windows (PEERS below); those of
`optimize quantize` are measured here. Calibration and evaluation use different texts of the Brown corpus. Forms that
are already in target/peers/size_curve.json are not measured again.

Usage: size_curve.py --model DIR --calibration FILE --texts FILE FILE [--draw-only]
Writes docs/size-and-quality.svg.
"""

import argparse
import json
import math
import os
import pathlib
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
CALIBRATED = [name for name in FORMS if "GPTQ" in name or "target" in name]
# Size in megabytes, and the change of the perplexity on each of the two texts in per cent.
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


LEFT, TOP, WIDTH, HEIGHT = 70, 20, 640, 400
SIZES, LOSSES = (10, 38), (0.2, 100)


def place(size, loss):
    x = LEFT + WIDTH * (size - SIZES[0]) / (SIZES[1] - SIZES[0])
    part = math.log(max(loss, LOSSES[0]) / LOSSES[0]) / math.log(LOSSES[1] / LOSSES[0])
    return x, TOP + HEIGHT * (1 - part)


def draw(points):
    """Draws `points`: series, name, size in per cent, mean change in per cent."""
    colours = {"rounded": "#4477aa", "calibrated": "#117733", "peers": "#cc6677"}
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {TOP + HEIGHT + 60}" '
           'font-family="sans-serif" font-size="11">',
           f'<rect width="100%" height="100%" fill="white"/>']
    for size in range(10, 39, 4):
        x, y = place(size, LOSSES[0])
        out.append(f'<path d="M{x:.1f} {TOP}V{y:.1f}" stroke="#ddd"/><text x="{x:.1f}" y="{y + 16:.1f}" '
                   f'text-anchor="middle">{size} %</text>')
    for loss in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
        x, y = place(SIZES[0], loss)
        out.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + WIDTH}" stroke="#ddd"/><text x="{LEFT - 6}" y="{y + 4:.1f}" '
                   f'text-anchor="end">+{loss:g} %</text>')
    out.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle">size, of float32</text>')
    out.append(f'<text x="14" y="{TOP + HEIGHT / 2}" transform="rotate(-90 14 {TOP + HEIGHT / 2})" '
               'text-anchor="middle">perplexity</text>')
    line = " L".join("{:.1f} {:.1f}".format(*place(s, l)) for series, _, s, l in sorted(points, key=lambda p: p[2])
                     if series == "calibrated")
    out.append(f'<path d="M{line}" fill="none" stroke="{colours["calibrated"]}"/>')
    for series, name, size, loss in points:
        x, y = place(size, loss)
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colours[series]}"/>'
                   f'<text x="{x + 6:.1f}" y="{y - 5:.1f}" fill="{colours[series]}">{name}</text>')
    for index, (series, text) in enumerate([("rounded", "optimize, without data, and AWQ"),
                                            ("calibrated", "optimize, GPTQ on a text"), ("peers", "others")]):
        out.append(f'<text x="{LEFT + WIDTH - 190}" y="{TOP + 16 + 15 * index}" fill="{colours[series]}">{text}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(SCRATCH / "smollm2-off"))
    parser.add_argument("--calibration")
    parser.add_argument("--texts", nargs=2, default=[str(SCRATCH / f"brown-{t}.txt") for t in ("news", "romance")])
    parser.add_argument("--draw-only", action="store_true")
    arguments = parser.parse_args()
    file = SCRATCH / "size_curve.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    keep = lambda found: file.write_text(json.dumps(found, indent=1))
    if not arguments.draw_only:
        measure(arguments, found, keep)
    rows, points = [["", "MB", "of float32", "news", "romance"]], []
    for name, one in sorted(found.items(), key=lambda item: item[1]["bytes"]):
        size = 100 * one["bytes"] / FLOAT_BYTES
        rows.append([name, f"{one['bytes'] / 1e6:.1f}", f"{size:.1f} %", *[f"{c:+.1f} %" for c in one["changes"]]])
        points.append(("calibrated" if name in CALIBRATED else "rounded", name, size, sum(one["changes"]) / 2))
    for name, (megabytes, a, b) in PEERS.items():
        size = 1e8 * megabytes / FLOAT_BYTES
        rows.append([name, megabytes, f"{size:.1f} %", f"+{a} %", f"+{b} %"])
        points.append(("peers", name, size, (a + b) / 2))
    table(rows)
    target = pathlib.Path(__file__).parents[2] / "docs/size-and-quality.svg"
    target.write_text(draw(points))
    print(f"written to {target}")


if __name__ == "__main__":
    sys.exit(main())
