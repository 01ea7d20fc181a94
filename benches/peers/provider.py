"""Code that the scripts about the execution provider share: arguments, sessions, inputs, interleaved timing."""

import argparse
import os
import statistics
import time

import numpy as np
import onnxruntime as ort

EP = "OptimizeExecutionProvider"


def arguments(doc, rounds, models):
    """Returns the parsed arguments of a script, whose positional ones are `models`, and the provider's devices."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--cells", default="1x16,1x128,8x128")
    parser.add_argument("models", nargs="+", metavar=models)
    given = parser.parse_args()
    ort.register_execution_provider_library("optimize", os.path.abspath(given.library))
    print(f"onnxruntime {ort.__version__}, {given.threads} thread(s), {given.rounds} rounds")
    return given, [device for device in ort.get_ep_devices() if device.ep_name == EP]


def session(model, threads, devices=None, **settings):
    """Returns a session on `devices` with the provider's `settings`; without devices, a session of stock ONNX
    Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if devices:
        options.add_provider_for_devices(devices, {"threads": str(threads), **settings})
        opened = ort.InferenceSession(model, options)
    else:
        opened = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    opened.disable_fallback()
    return opened


def groups(opened):
    """Returns the number of nodes of a session that the execution provider runs, each fused from a group of nodes."""
    return sum(1 for part in opened.get_provider_graph_assignment_info() if part.ep_name == EP)


def cell_sizes(given):
    """Returns batch size and length of each cell."""
    return [tuple(map(int, cell.split("x"))) for cell in given.cells.split(",")]


def feed(inputs, batch, length, rng):
    """Returns values for `inputs`: random token ids for a name with "ids", masks (the last quarter of the second
    sequence is 0) and token types for names with "mask" and "type", and random images for all others."""
    made = {}
    for value in inputs:
        name = value.name.lower()
        if "mask" in name:
            made[value.name] = np.ones((batch, length), np.int64)
            if batch > 1:
                made[value.name][1, length * 3 // 4:] = 0
        elif "type" in name:
            made[value.name] = np.zeros((batch, length), np.int64)
        elif "ids" in name:
            made[value.name] = rng.integers(1000, 20000, (batch, length)).astype(np.int64)
        else:
            made[value.name] = rng.standard_normal((batch, 3, 224, 224)).astype(np.float32)
    return made


def cosine(a, b):
    """Returns the mean cosine similarity of the rows (along the last dimension) of two arrays."""
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (a, b))
    return float(np.mean((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1) + 1e-30)))


def measure(runs, inputs, given):
    """Runs `runs` in turn, and yields for each the minimum milliseconds, the median over the rounds of the first run's
    time divided by its time, and the cosine between its output and that of the first.

    One thread is timed by process CPU time, more by wall time. Before each timed run, there is an untimed one.
    """
    clock = time.process_time if given.threads == 1 else time.perf_counter
    outputs = [np.array(run(inputs)) for run in runs]
    times = [[] for _ in runs]
    for turn in range(given.rounds):
        order = range(len(runs)) if turn % 2 == 0 else reversed(range(len(runs)))
        for at in order:
            runs[at](inputs)
            start = clock()
            runs[at](inputs)
            times[at].append(clock() - start)
    for output, spent in zip(outputs, times):
        ratios = [base / own for base, own in zip(times[0], spent)]
        yield 1e3 * min(spent), statistics.median(ratios), cosine(output, outputs[0])
