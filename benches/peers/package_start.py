"""From a file to the first result in a fresh process: packages of liboptimize against the original .onnx in ONNX Runtime, its
offline-optimized form, its .ort form, OpenVINO (with and without its model cache, and its own IR) and AOTInductor. MiniLM-L3,
one text of 128 tokens; and SmolLM2-135M, from the text of a prompt to the first token's. One thread.

Each measurement is a process of its own, page cache warm; all forms in turn, round after round. `libraries` is the time to
load the engine's libraries in that process (numpy is there already): for engines with Python packages mostly Python's own
time. AOTInductor and OpenVINO can be used from C++ without it; `to result` is what remains there. Also shown: the memory that is
the process's own (`RssAnon`) after the first result, and the proportional set size of two processes that have the same form
open at once, each: the libraries are in that, too.

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
from package_engines import DECODER, ENGINES, FOLDER, HIDDEN, L3, kept, optimized, package, tokens


def memory(key, file="status"):
    with open(f"/proc/self/{file}") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def child(engine, path, wait):
    feed = tokens(1, 128)
    begin = time.perf_counter()
    made = ENGINES[engine](path)
    loaded = time.perf_counter()
    made.open()
    opened = time.perf_counter()
    values = made.run(feed, HIDDEN["L3"])
    done = time.perf_counter()
    print(json.dumps({"libraries": 1e3 * (loaded - begin), "open": 1e3 * (opened - loaded), "run": 1e3 * (done - opened),
                      "value": float(values[0]), "anonymous": memory("RssAnon:")}), flush=True)
    if wait:
        sys.stdin.readline()
        print(memory("Pss:", "smaps_rollup"), flush=True)
        sys.stdin.readline()
    os._exit(0)


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


def measure(what, rounds):
    ways = {"encoder": encoder, "decoder": decoder}[what]()
    found = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            answer = start(*way).communicate()[0]
            # The first round warms the page cache.
            found[name] += [json.loads(answer)] * (number > 0)
    name = {"encoder": "MiniLM-L3, first result", "decoder": "SmolLM2-135M, first token"}[what]
    rows = [[name, "to result ms", "least", "of which opening", "libraries ms", "own MB", "PSS MB of two, each", "value"]]
    result = {}
    for name, way in ways.items():
        middle = lambda key: statistics.median(one[key] for one in found[name])
        both = [one["open"] + one["run"] for one in found[name]]
        pss = shared(*way)
        result[name] = dict(ms=statistics.median(both), open=middle("open"), libraries=middle("libraries"),
                            anonymous=middle("anonymous"), pss=pss, value=middle("value"))
        rows.append([name, f"{statistics.median(both):.1f}", f"{min(both):.1f}", f"{middle('open'):.1f}",
                     f"{middle('libraries'):.0f}", f"{middle('anonymous'):.0f}", f"{pss:.0f}", f"{middle('value'):.5g}"])
    table(rows)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--what", default="encoder,decoder")
    parser.add_argument("--child", nargs=2)
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    if options.child:
        return child(*options.child, options.wait)
    FOLDER.mkdir(parents=True, exist_ok=True)
    save("package_start", {what: measure(what, options.rounds) for what in options.what.split(",")})


if __name__ == "__main__":
    main()
