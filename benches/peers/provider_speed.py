#!/usr/bin/env python3
"""Times models on liboptimize's execution provider against stock ONNX Runtime, interleaved in one process.

provider_speed.py --library target/release/liboptimize.so [--threads 1] [--rounds 15] [--cells 1x16,1x128,8x128]
                  NAME=MODEL.onnx ...

The first model is the float32 reference. Each model runs on stock ONNX Runtime and on the provider; the reference also
runs with precision=bf16 and precision=int8. One thread is timed by process CPU time, more by wall time. A ratio is the
median over the rounds of the reference's time divided by the model's time, so larger is faster. The cosine is the mean
over the rows of the first output, compared with the reference on stock ONNX Runtime. "groups" is the number of fused
nodes that the provider runs. The script only prints tables.
"""
import numpy as np
from provider import arguments, cell_sizes, feed, groups, measure, session


def main():
    given, devices = arguments(__doc__, rounds=15, models="NAME=MODEL")
    sides = []
    for index, pair in enumerate(given.models):
        name, model = pair.split("=", 1)
        sides.append((f"{name} stock", session(model, given.threads)))
        for precision in ["fp32", "bf16", "int8"] if index == 0 else ["fp32"]:
            label = f"{name} provider" + (f" {precision}" if index == 0 else "")
            sides.append((label, session(model, given.threads, devices, precision=precision)))
    runs = [lambda inputs, opened=opened: opened.run(None, inputs)[0] for _, opened in sides]
    for batch, length in cell_sizes(given):
        inputs = feed(sides[0][1].get_inputs(), batch, length, np.random.default_rng(1))
        print(f"\n{batch}x{length}\n{'':28} {'groups':>6} {'ms':>8} {'ratio':>6} {'cosine':>8}")
        for (label, opened), (least, ratio, near) in zip(sides, measure(runs, inputs, given)):
            print(f"{label:28} {groups(opened):6} {least:8.2f} {ratio:6.2f} {near:8.5f}", flush=True)


main()
