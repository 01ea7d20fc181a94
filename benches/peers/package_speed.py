"""Measures the speed of an open package against the original .onnx in stock ONNX Runtime, torch eager and AOTInductor,
and its int8 variant against the same int8 model in stock ONNX Runtime. Stock ONNX Runtime and the package are called
through their C interfaces, and use the same library. MiniLM-L3 and -L6, batch 1 and 8, 128 tokens, one thread.

Each engine runs in its own process, and its times are processor times of that process. The engines take turns, round
after round, with an untimed run before each timed one. The addresses of a process's memory make a difference of 3 %
even between two processes with the same file, so all processes are restarted a few times. The ratio is the median of
the paired ratios of stock ONNX Runtime's time to that of the engine: above 1, the engine is faster. `apart` is the
largest difference between the hidden states (every 16th of the first 4,096 elements) and those of stock ONNX Runtime.

Usage: package_speed.py [--models L3,L6] [--rounds 8] [--starts 5] [--no-torch]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np

from common import COMMAND, ratio, save, shown_ratio, table
from package_engines import ENGINES, FOLDER, HIDDEN, L3, L6, inductor_file, package, tokens

SOURCES = {"L3": L3, "L6": L6}
BATCHES = [1, 8]


def work(engine, path, output):
    """Runs in the process of an engine: reads one batch size per line, and writes the seconds of a run and a sample of
    the output."""
    made = ENGINES[engine](path)
    made.open()
    feeds = {rows: tokens(rows, 128) for rows in BATCHES}
    print("ready", flush=True)
    ways = {rows: loop(made, feeds[rows], output) for rows in BATCHES}
    for line in sys.stdin:
        run, found = ways[int(line)]
        run()
        begin = time.process_time()
        run()
        taken = time.process_time() - begin
        values = found()
        print(json.dumps([taken, [float(v) for v in values[:4096:16]]]), flush=True)


def loop(made, feed, output):
    """Returns a function that runs the engine, and one that returns the output of the latest run. An engine with a
    method `repeat` has its own such functions."""
    if hasattr(made, "repeat"):
        return made.repeat(feed, output)
    latest = []

    def run():
        latest[:] = [made.run(feed, output)]

    return run, lambda: latest[0]


class Worker:
    def __init__(self, *arguments):
        command = [sys.executable, __file__, "--work", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait(self):
        for line in self.process.stdout:
            # Engines that compile also print messages.
            if line.strip() == "ready":
                return
        raise SystemExit("an engine ended before it was ready")

    def ask(self, rows):
        self.process.stdin.write(f"{rows}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ways(name, torch):
    """Returns the rows of the table by name: the class of the engine, its file, and the row it is compared with."""
    source = SOURCES[name]
    int8 = FOLDER / f"{name}-int8.onnx"
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run([COMMAND, "quantize", "--model", source, "--output", int8, "--type", "dynamic", "-q"], check=True)
    made = package(source, f"{name}.package", "--variants", "fp32,int8")
    found = {
        "stock ONNX Runtime": ("OnnxRuntimeC", str(source), "stock ONNX Runtime"),
        "package": ("Optimize", made, "stock ONNX Runtime"),
        "stock, from Python": ("OnnxRuntime", str(source), "stock ONNX Runtime"),
        "stock, int8": ("OnnxRuntimeC", str(int8), "stock, int8"),
        "package, int8": ("OptimizeInt8", made, "stock, int8"),
    }
    if torch:
        found["torch eager"] = ("Eager", str(source), "stock ONNX Runtime")
        found["AOTInductor"] = ("Inductor", inductor_file(source, f"{name}.pt2"), "stock ONNX Runtime")
    return found


def measure(name, rounds, starts, torch):
    found = ways(name, torch)
    times = {rows: {way: [] for way in found} for rows in BATCHES}
    for _ in range(starts):
        values = race(name, found, rounds, times)
    return report(name, found, times, values)


def race(name, found, rounds, times):
    workers = {way: Worker(engine, path, HIDDEN[name]) for way, (engine, path, _) in found.items()}
    for worker in workers.values():
        worker.wait()
    values, order = {}, list(found)
    for number in range(-2, rounds):  # two rounds to warm up
        for rows in BATCHES:
            for way in order[number % len(order):] + order[:number % len(order)]:
                taken, values[way] = workers[way].ask(rows)
                if number >= 0:
                    times[rows][way].append(1e3 * taken)
    for worker in workers.values():
        worker.close()
    return values


def report(name, found, times, values):
    head = [f"MiniLM-{name}, 1 thread (cpu)", "apart"]
    table_rows, result = [], {}
    for way, (_, _, base) in found.items():
        apart = float(np.abs(np.subtract(values[way], values[base])).max())
        row, result[way] = [way, f"{apart:.0e}"], {"apart": apart}
        for rows in BATCHES:
            against = ratio(times[rows][base], times[rows][way])
            ms = statistics.median(times[rows][way])
            result[way][f"batch {rows}"] = dict(ms=ms, ratio=against)
            row += [f"{ms:.2f}", shown_ratio(against)]
        table_rows.append(row)
    for rows in BATCHES:
        head += [f"batch {rows} ms", "stock / this"]
    table([head] + table_rows)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="L3,L6")
    parser.add_argument("--rounds", type=int, default=8, help="in each process")
    parser.add_argument("--starts", type=int, default=5, help="processes of each engine")
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="without torch eager and AOTInductor")
    parser.add_argument("--work", nargs=3)
    arguments = parser.parse_args()
    if arguments.work:
        return work(*arguments.work)
    how = (arguments.rounds, arguments.starts, arguments.torch)
    save("package_speed", {name: measure(name, *how) for name in arguments.models.split(",")})


if __name__ == "__main__":
    main()
