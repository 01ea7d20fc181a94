"""Draws size against perplexity of SmolLM2-135M: results of `optimize quantize`, of llama.cpp and of ONNX Runtime.

The model is a copy in float32 whose weights are not on the 4-bit grid of the GGUF file: on that grid, 4 bits lose
nothing. No script here makes the default, target/peers/smollm2-off; perplexity.py writes the default texts. The figures
of the peers are those of an earlier run with the same machine, texts and windows (PEERS below); those of `optimize
quantize` with the options in FORMS are measured here. Calibration and evaluation should use different texts. Results
that are already in target/peers/size_curve.json are not measured again.

Usage: size_curve.py --calibration FILE [--model DIR] [--texts FILE FILE]
       size_curve.py --draw-only
Writes docs/size-and-quality.svg; --draw-only draws the table of docs/size-and-quality.md and measures nothing.
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


LEFT, TOP, WIDTH, HEIGHT = 70, 20, 680, 440
SIZES, LOSSES = (10, 38), (0.05, 100)
PAGE = pathlib.Path(__file__).parents[2] / "docs/size-and-quality.md"
SERIES = {
    "rounded": ("#4477aa", "optimize, without data, and AWQ"),
    "calibrated": ("#117733", "optimize, GPTQ on a text"),
    "peers": ("#cc6677", "others"),
}
# The width of a letter and the height of a line of a label, and the distance of a label from its point, in pixels.
LETTER, LINE, GAP = 5.9, 12, 6


def place(size, loss):
    x = LEFT + WIDTH * (size - SIZES[0]) / (SIZES[1] - SIZES[0])
    part = math.log(max(loss, LOSSES[0]) / LOSSES[0]) / math.log(LOSSES[1] / LOSSES[0])
    return x, TOP + HEIGHT * (1 - part)


def from_page():
    """Returns the points in the table of docs/size-and-quality.md."""
    points = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 5 or not cells[3].startswith("+"):
            continue
        name, size, *changes = cells[0], *(float(cell.strip("+ %")) for cell in cells[2:])
        own = FORMS.keys() | {"target 12 %, with 2 bits"}
        series = "peers" if name not in own else "calibrated" if "GPTQ" in name or "target" in name else "rounded"
        points.append((series, name.replace(", output layer in float32", ""), size, sum(changes) / 2))
    return points


def overlaps(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def labels(points):
    """Returns the box of each label: near its point, inside the plot, and over no point and no other label."""
    spots = [place(size, loss) for _, _, size, loss in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    found = []
    for (x, y), (_, name, _, _) in zip(spots, points):
        width = LETTER * len(name)
        steps = sorted(((away, row) for away in range(6) for row in range(-6, 7)), key=lambda s: (s[0] + abs(s[1]), s))
        tries = [(left, y + LINE * row - LINE / 2) for away, row in steps
                 for left in (x + GAP * (1 + 3 * away), x - GAP * (1 + 3 * away) - width)]
        boxes = [(left, top, left + width, top + LINE) for left, top in tries]
        inside = [box for box in boxes if box[0] > LEFT and box[2] < LEFT + WIDTH + 15 and TOP < box[1]
                  and box[3] < TOP + HEIGHT]
        free = [box for box in inside if not any(overlaps(box, other) for other in taken)]
        if not free:
            raise RuntimeError(f"there is no place for the label {name!r}")
        taken.append(free[0])
        found.append(free[0])
    return found


def draw(points):
    """Draws `points`: series, name, size in per cent, mean change in per cent."""
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {TOP + HEIGHT + 70}" '
           'font-family="sans-serif" font-size="11">',
           f'<rect width="100%" height="100%" fill="white"/>']
    for size in range(10, 39, 4):
        x, y = place(size, LOSSES[0])
        out.append(f'<path d="M{x:.1f} {TOP}V{y:.1f}" stroke="#ddd"/><text x="{x:.1f}" y="{y + 16:.1f}" '
                   f'text-anchor="middle">{size} %</text>')
    for loss in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
        x, y = place(SIZES[0], loss)
        out.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + WIDTH}" stroke="#ddd"/><text x="{LEFT - 6}" y="{y + 4:.1f}" '
                   f'text-anchor="end">+{loss:g} %</text>')
    out.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle">'
               'size, relative to float32</text>')
    out.append(f'<text x="14" y="{TOP + HEIGHT / 2}" transform="rotate(-90 14 {TOP + HEIGHT / 2})" '
               'text-anchor="middle">increase of the perplexity, mean of two texts</text>')
    line = " L".join("{:.1f} {:.1f}".format(*place(s, l)) for series, _, s, l in sorted(points, key=lambda p: p[2])
                     if series == "calibrated")
    out.append(f'<path d="M{line}" fill="none" stroke="{SERIES["calibrated"][0]}"/>')
    for (series, name, size, loss), (left, top, right, bottom) in zip(points, labels(points)):
        (x, y), colour = place(size, loss), SERIES[series][0]
        near = (min(max(x, left - 2), right + 2), min(max(y, top + 2), bottom - 2))
        if math.dist((x, y), near) > 2 * GAP:  # the label is far from its point
            out.append(f'<path d="M{x:.1f} {y:.1f}L{near[0]:.1f} {near[1]:.1f}" stroke="{colour}" stroke-width="0.6"/>')
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
                   f'<text x="{left:.1f}" y="{bottom - 3:.1f}" fill="{colour}">{name}</text>')
    x = LEFT
    for colour, text in SERIES.values():
        y = TOP + HEIGHT + 58
        out.append(f'<circle cx="{x + 4}" cy="{y - 4}" r="4" fill="{colour}"/>'
                   f'<text x="{x + 14}" y="{y}" fill="{colour}">{text}</text>')
        x += 40 + round(LETTER * len(text))
    return "\n".join(out + ["</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(SCRATCH / "smollm2-off"))
    parser.add_argument("--calibration")
    parser.add_argument("--texts", nargs=2, default=[str(SCRATCH / f"brown-{t}.txt") for t in ("news", "romance")])
    parser.add_argument("--draw-only", action="store_true")
    arguments = parser.parse_args()
    target = PAGE.with_suffix(".svg")
    if arguments.draw_only:
        target.write_text(draw(from_page()))
        return print(f"written to {target}")
    file = SCRATCH / "size_curve.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    keep = lambda found: file.write_text(json.dumps(found, indent=1))
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
    target.write_text(draw(points))
    print(f"written to {target}")


if __name__ == "__main__":
    sys.exit(main())
