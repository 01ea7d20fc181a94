"""From a file to the first result in a fresh process: a package of liboptimize against the original .onnx in ONNX Runtime, its
offline-optimized form, and its .ort form. MiniLM-L3, one text of 128 tokens, one thread.

Each measurement is a process of its own, in which the libraries are loaded already when the clock starts; page cache warm; all
forms in turn, round after round. Also shown: the memory that is the process's own (`RssAnon`) after the first result, and the
proportional set size of two processes that have the same form open at once, each.

Usage: package_start.py [--rounds 15]
"""

import argparse
import ctypes
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

from common import DEPS, LIBRARY, RUNTIME, SCRATCH, table

MODEL = DEPS / "models/paraphrase-MiniLM-L3-v2/model.onnx"
IDS = (1000 + np.arange(128)).reshape(1, 128).astype(np.int64)


def onnxruntime(path):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if path.endswith((".ahead.onnx", ".ort")):
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    feed = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
    begin = time.perf_counter()
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    result = session.run(["461"], feed)[0]
    return time.perf_counter() - begin, float(result[0, 0]), session


def optimize(path):
    library = ctypes.CDLL(str(LIBRARY))
    library.optimize_error_message.restype = ctypes.c_char_p
    library.optimize_tensor_data.restype = ctypes.POINTER(ctypes.c_float)

    def call(name, *arguments):
        error = ctypes.c_void_p()
        if getattr(library, "optimize_" + name)(*arguments, ctypes.byref(error)) != 0:
            raise SystemExit(f"optimize_{name}: {library.optimize_error_message(error).decode()}")

    class Options(ctypes.Structure):
        _fields_ = [("struct_size", ctypes.c_uint32), ("threads", ctypes.c_uint32), ("library", ctypes.c_char_p)]

    context, package, session = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    given = Options(ctypes.sizeof(Options), 1, str(RUNTIME).encode())
    call("context_new", ctypes.byref(given), ctypes.byref(context))
    # Opens ONNX Runtime, which the others have done by importing it.
    providers = ctypes.c_void_p()
    if hasattr(library, "optimize_context_providers"):
        library.optimize_context_providers(context, ctypes.byref(providers), None)
    dims = (ctypes.c_int64 * 2)(1, 128)
    tensors = (ctypes.c_void_p * 2)()
    mask = np.ones_like(IDS)
    for index, values in enumerate([IDS, mask]):
        made = ctypes.c_void_p()
        call("tensor_new", 7, dims, ctypes.c_size_t(2), values.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(1024),
             ctypes.byref(made))
        tensors[index] = made
    names, wanted = (ctypes.c_char_p * 2)(b"input_ids", b"attention_mask"), (ctypes.c_char_p * 1)(b"461")
    outputs = (ctypes.c_void_p * 1)()
    begin = time.perf_counter()
    call("package_open", path.encode(), None, ctypes.byref(package))
    call("package_session", context, package, None, None, ctypes.byref(session))
    call("session_run", session, names, tensors, ctypes.c_size_t(2), wanted, ctypes.c_size_t(1), None, outputs)
    seconds = time.perf_counter() - begin
    return seconds, float(library.optimize_tensor_data(ctypes.c_void_p(outputs[0]))[0]), session


def memory(key, file="status"):
    with open(f"/proc/self/{file}") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def child(engine, path, wait):
    seconds, value, kept = (optimize if engine == "optimize" else onnxruntime)(path)
    print(json.dumps({"ms": 1000 * seconds, "value": value, "anonymous": memory("RssAnon:")}), flush=True)
    if wait:
        sys.stdin.readline()
        print(memory("Pss:", "smaps_rollup"), flush=True)
        sys.stdin.readline()
    os._exit(0 if kept is not None else 1)


def start(engine, path, wait=False):
    command = [sys.executable, __file__, "--child", engine, path] + (["--wait"] if wait else [])
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def shared(engine, path):
    """Proportional set size of each of two processes that have it open."""
    processes = [start(engine, path, wait=True) for _ in range(2)]
    for process in processes:
        process.stdout.readline()
    sizes = []
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
        sizes.append(float(process.stdout.readline()))
    for process in processes:
        process.stdin.write("\n")
        process.stdin.close()
        process.wait()
    return statistics.mean(sizes)


def forms(folder):
    import onnxruntime as ort

    folder.mkdir(parents=True, exist_ok=True)
    command = pathlib.Path(LIBRARY).parent / "optimize"
    for name, more in [("package", []), ("package.one", ["--single-file"])]:
        subprocess.run([command, "compile", "--model", MODEL.parent, "--output", folder / name, "--dynamic", "-q", *more],
                       check=True)
    for end in ["ahead.onnx", "ort"]:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(folder / f"model.{end}")
        if end == "ort":
            options.add_session_config_entry("session.save_model_format", "ORT")
        ort.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
    return {
        "package, folder": ("optimize", str(folder / "package")),
        "package, one file": ("optimize", str(folder / "package.one")),
        "onnx": ("onnxruntime", str(MODEL)),
        "onnx, optimized offline": ("onnxruntime", str(folder / "model.ahead.onnx")),
        "ort": ("onnxruntime", str(folder / "model.ort")),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--child", nargs=2)
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    if options.child:
        return child(*options.child, options.wait)
    ways = forms(SCRATCH / "package-start")
    found = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, way in ways.items():
            process = start(*way)
            found[name].append(json.loads(process.communicate()[0]))
    rows = [["to the first result", "median ms", "least ms", "own MB", "PSS MB of two, each", "value"]]
    for name, way in ways.items():
        # The first round warms the page cache.
        times = [one["ms"] for one in found[name][1:]]
        rows.append([name, f"{statistics.median(times):.1f}", f"{min(times):.1f}",
                     f"{statistics.median(one['anonymous'] for one in found[name][1:]):.0f}", f"{shared(*way):.0f}",
                     f"{found[name][0]['value']:.5f}"])
    table(rows)


if __name__ == "__main__":
    main()
