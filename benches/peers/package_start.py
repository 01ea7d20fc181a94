"""Measures the time from a file to the first result in a new process: packages of liboptimize against the original
.onnx in ONNX Runtime, its offline-optimized form, its .ort form, OpenVINO (with and without its model cache, and its
own IR) and AOTInductor. The models are MiniLM-L3 with one text of 128 tokens, and SmolLM2-135M from the text of a
prompt to the first token; all with one thread. `--what compiled` measures MiniLM-L6 with a text of 16
tokens and one of 128, with the variants of a package that are compiled for this library's kernels.

Each measurement is a new process with a warm page cache; the forms take turns, round after round. `libraries` is the
time to load the engine's libraries in that process (numpy is already loaded); for engines with Python packages this is
mostly the time of Python itself, which a C++ program with AOTInductor or OpenVINO does not need. `to result` is the
time after that, by the wall clock and of the processor (`CPU ms`). The table also has the anonymous memory of the
process (`RssAnon`) after the first result, the pages that were written since the libraries were loaded (`private`), and
the proportional set size, including libraries, of each of two processes that have the same form open.

The decoder is read from target/peers/smollm2-off, a checkpoint folder that no script makes.

Usage: package_start.py [--rounds 15] [--what encoder,decoder]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import package_engines as engines
from common import save, table
from package_engines import DECODER, ENGINES, FOLDER, HIDDEN, L3, L6, kept, optimized, package, tokens


def memory(key, file="status"):
    with open(f"/proc/self/{file}") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def private():
    """Returns the megabytes of private pages that this process has written. Mapped pages that are only read are not
    included."""
    return memory("Private_Dirty:", "smaps_rollup")


def child(engine, path, length, hidden, wait):
    feed = tokens(1, length)
    begin = time.perf_counter()
    made = ENGINES[engine](path)
    before = private()
    loaded, processor = time.perf_counter(), time.process_time()
    made.open()
    opened = time.perf_counter()
    values = made.run(feed, hidden)
    done, processor = time.perf_counter(), time.process_time() - processor
    print(json.dumps({"libraries": 1e3 * (loaded - begin), "open": 1e3 * (opened - loaded), "run": 1e3 * (done - opened),
                      "cpu": 1e3 * processor, "value": float(values[0]), "anonymous": memory("RssAnon:"),
                      "private": private() - before}), flush=True)
    if wait:
        sys.stdin.readline()
        print(memory("Pss:", "smaps_rollup"), flush=True)
        sys.stdin.readline()
    os._exit(0)


def start(engine, path, length, hidden, wait=False):
    command = [sys.executable, __file__, "--child", engine, path, str(length), hidden] + (["--wait"] if wait else [])
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def shared(*way):
    """Returns the mean proportional set size, in megabytes, of two processes that have the same file open."""
    processes = [start(*way, wait=True) for _ in range(2)]
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


def encoder():
    return {
        "package, folder": ("Optimize", package(L3, "L3.package")),
        "package, one file": ("Optimize", package(L3, "L3.one", "--single-file")),
        "onnx": ("OnnxRuntime", str(L3)),
        "onnx, optimized offline": ("OnnxRuntime", kept("L3.ahead.onnx", lambda path: optimized(L3, path))),
        "ort": ("OnnxRuntime", kept("L3.ort", lambda path: optimized(L3, path))),
        "OpenVINO, onnx": ("OpenVino", str(L3)),
        "OpenVINO, its cache": ("OpenVinoCache", str(L3)),
        "OpenVINO, its IR": ("OpenVino", kept("L3.xml", lambda path: engines.ir(L3, path))),
        "AOTInductor": ("Inductor", engines.inductor_file(L3, "L3.pt2")),
    }


def decoder():
    onnx = kept("smollm2.onnx", engines.exported)
    return {
        "package, folder": ("OptimizeText", package(DECODER, "smollm2.package")),
        "package, one file": ("OptimizeText", package(DECODER, "smollm2.one", "--single-file")),
        "onnx": ("OnnxRuntimeText", onnx),
        "onnx, optimized offline": ("OnnxRuntimeText", kept("smollm2.ahead.onnx", lambda path: optimized(onnx, path))),
        "ort": ("OnnxRuntimeText", kept("smollm2.ort", lambda path: optimized(onnx, path))),
    }


def compiled():
    made = package(L6, "L6.package", "--variants", "fp32,bf16,int8,int4")
    return {
        "package, int8": ("OptimizeInt8", made),
        "package, int4": ("OptimizeInt4", made),
        "package, bf16": ("OptimizeBf16", made),
        "package, fp32": ("Optimize", made),
        "onnx": ("OnnxRuntime", str(L6)),
        "onnx, optimized offline": ("OnnxRuntime", kept("L6.ahead.onnx", lambda path: optimized(L6, path))),
        "ort": ("OnnxRuntime", kept("L6.ort", lambda path: optimized(L6, path))),
        "OpenVINO, its cache": ("OpenVinoCache", str(L6)),
    }


# For each kind: the function that returns the forms, the title of the table, the lengths of the text in tokens, and the
# name of the output.
KINDS = {"encoder": (encoder, "MiniLM-L3, {} tokens, first result", [128], HIDDEN["L3"]),
         "decoder": (decoder, "SmolLM2-135M, first token", [128], HIDDEN["L3"]),
         "compiled": (compiled, "MiniLM-L6, {} tokens, first result", [16, 128], HIDDEN["L6"])}


def measure(what, rounds):
    make, name, lengths, hidden = KINDS[what]
    ways = make()
    return {length: of_length(name.format(length), {form: (*way, length, hidden) for form, way in ways.items()}, rounds)
            for length in lengths}


def of_length(title, ways, rounds):
    found = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            answer = start(*way).communicate()[0]
            # The first round warms the page cache.
            found[name] += [json.loads(answer)] * (number > 0)
    rows = [[title, "to result ms", "least", "of which opening", "CPU ms", "libraries ms", "own MB", "private MB",
             "PSS MB of two, each", "value"]]
    result = {}
    for name, way in ways.items():
        middle = lambda key: statistics.median(one[key] for one in found[name])
        both = [one["open"] + one["run"] for one in found[name]]
        pss = shared(*way)
        result[name] = dict(ms=statistics.median(both), open=middle("open"), libraries=middle("libraries"),
                            cpu=middle("cpu"), anonymous=middle("anonymous"), private=middle("private"), pss=pss,
                            value=middle("value"))
        rows.append([name, f"{statistics.median(both):.1f}", f"{min(both):.1f}", f"{middle('open'):.1f}",
                     f"{middle('cpu'):.1f}", f"{middle('libraries'):.0f}", f"{middle('anonymous'):.0f}",
                     f"{middle('private'):.1f}", f"{pss:.0f}", f"{middle('value'):.5g}"])
    table(rows)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--what", default="encoder,decoder")
    parser.add_argument("--child", nargs=4)
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    if options.child:
        engine, path, length, hidden = options.child
        return child(engine, path, int(length), hidden, options.wait)
    FOLDER.mkdir(parents=True, exist_ok=True)
    save("package_start", {what: measure(what, options.rounds) for what in options.what.split(",")})


if __name__ == "__main__":
    main()
