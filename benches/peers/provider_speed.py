#!/usr/bin/env python3
"""Times models on liboptimize's execution provider against stock ONNX Runtime, interleaved in one process.

provider_speed.py --library target/release/liboptimize.so [--threads 1] [--rounds 15] NAME=MODEL.onnx ...

The first model is the float32 reference. Each model runs on stock ONNX Runtime and on the provider; the reference also
with precision=bf16 and precision=int8. One thread is timed by process CPU time, more by wall time. A ratio is the
median over the rounds of reference time / time, so a larger one is faster. The cosine is that of the first output (rows
of the last dimension, mean) to the reference on stock ONNX Runtime. "groups" counts the fused nodes of the provider.
"""
import argparse, os, statistics, time
import numpy as np
import onnxruntime as ort

EP = "OptimizeExecutionProvider"


def options(threads):
    made = ort.SessionOptions()
    made.intra_op_num_threads, made.inter_op_num_threads, made.log_severity_level = threads, 1, 3
    made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return made


def session(model, threads, devices=None, settings=None):
    made = options(threads)
    if devices:
        made.add_provider_for_devices(devices, {"threads": str(threads), **(settings or {})})
        opened = ort.InferenceSession(model, made)
    else:
        opened = ort.InferenceSession(model, made, providers=["CPUExecutionProvider"])
    opened.disable_fallback()
    return opened


def groups(opened):
    parts = opened.get_provider_graph_assignment_info()
    return sum(1 for part in parts if part.ep_name == EP)


def feed(opened, batch, length, rng):
    made = {}
    for value in opened.get_inputs():
        name = value.name.lower()
        if "mask" in name:
            made[value.name] = np.ones((batch, length), np.int64)
            if batch > 1:
                made[value.name][1, length * 3 // 4:] = 0
        elif "type" in name:
            made[value.name] = np.zeros((batch, length), np.int64)
        else:
            made[value.name] = rng.integers(1000, 20000, (batch, length)).astype(np.int64)
    return made


def cosine(a, b):
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (a, b))
    return float(np.mean((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1) + 1e-30)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cells", default="1x16,1x128,8x128")
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    given = parser.parse_args()
    ort.register_execution_provider_library("optimize", os.path.abspath(given.library))
    devices = [device for device in ort.get_ep_devices() if device.ep_name == EP]
    models = [pair.split("=", 1) for pair in given.models]
    sides = []
    for index, (name, model) in enumerate(models):
        sides.append((f"{name} stock", session(model, given.threads), 0))
        for precision in ["fp32", "bf16", "int8"] if index == 0 else ["fp32"]:
            opened = session(model, given.threads, devices, {"precision": precision})
            label = f"{name} provider" + (f" {precision}" if index == 0 else "")
            sides.append((label, opened, groups(opened)))
    clock = time.process_time if given.threads == 1 else time.perf_counter
    print(f"onnxruntime {ort.__version__}, {given.threads} thread(s), {given.rounds} rounds")
    for cell in given.cells.split(","):
        batch, length = map(int, cell.split("x"))
        inputs = feed(sides[0][1], batch, length, np.random.default_rng(1))
        outputs = [opened.run(None, inputs)[0] for _, opened, _ in sides]
        times = [[] for _ in sides]
        for turn in range(given.rounds):
            order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))
            for at in order:
                start = clock()
                sides[at][1].run(None, inputs)
                times[at].append(clock() - start)
        print(f"\n{cell}\n{'':28} {'groups':>6} {'ms':>8} {'ratio':>6} {'cosine':>8}")
        for (label, _, claimed), output, spent in zip(sides, outputs, times):
            ratio = statistics.median(base / own for base, own in zip(times[0], spent))
            print(f"{label:28} {claimed:6} {1e3 * min(spent):8.2f} {ratio:6.2f} {cosine(output, outputs[0]):8.5f}")


main()
