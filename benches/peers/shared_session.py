"""Measures one session of all-MiniLM-L6-v2 that many threads use at the same time, through the C interface.

16 threads run it 1,000 times each, on inputs of 5 to 60 tokens, and each result is compared, bit for bit, with that of
a thread that runs alone. Then 1 and 2 threads take turns, with 96 runs in each turn; the ratio of their rates is a
median with a 95 % bootstrap interval. The same is measured for a session of liboptimize with ONNX Runtime's own kernels
and for one of ONNX Runtime. All sessions have one thread: each calling thread computes its runs by itself. Rates are
those of the wall clock, so the script should run on an idle machine. On a busy one, the ratio of the fastest rounds is
the best estimate; the processor time of 2 threads, divided by that of 1 thread for the same runs, shows how much they
slow each other.

Usage: shared_session.py [--engines optimize,optimize stock,ort] [--threads 16] [--runs 1000] [--rounds 40]
"""

import argparse
import ctypes
import statistics
import threading
import time

import numpy as np

from common import MODELS, SCRATCH, Library, ort_session, ratio, save, shown_ratio, table

RUNS = 96  # in a round
LENGTHS = [5, 8, 12, 16, 24, 32, 48, 60]
NAMES = ["input_ids", "attention_mask", "token_type_ids"]


def feeds():
    """Returns one input of each length, with random token ids."""
    draw = np.random.default_rng(1)
    every = [draw.integers(1000, 30000, (1, length)) for length in LENGTHS]
    return [dict(zip(NAMES, [ids, np.ones_like(ids), np.zeros_like(ids)])) for ids in every]


class Optimize(Library):
    """A session of liboptimize with its own kernels. ctypes lets other threads of Python run during a call."""

    kernels = 0  # OPTIMIZE_KERNELS_AUTO

    class Options(ctypes.Structure):
        _fields_ = [("struct_size", ctypes.c_uint32), ("threads", ctypes.c_uint32),
                    ("optimization_level", ctypes.c_int32)]
        _fields_ += [(n, ctypes.c_uint32) for n in ("disable_prepacking", "round_activations", "trust_engines")]
        _fields_ += [("provider", ctypes.c_int32), ("device_id", ctypes.c_uint32), ("engine_cache", ctypes.c_char_p),
                     ("kernels", ctypes.c_int32), ("precision", ctypes.c_int32)]

    def __init__(self):
        super().__init__(1)
        self.library.optimize_tensor_data.restype = ctypes.c_void_p
        self.library.optimize_tensor_size.restype = ctypes.c_size_t
        model = self.made("model_load", self.context, str(MODELS / "all-MiniLM-L6-v2").encode(), None)
        options = self.Options(ctypes.sizeof(self.Options), 1, kernels=self.kernels)
        self.session = self.made("session_new", self.context, model, ctypes.byref(options), None)
        self.library.optimize_model_free(model)
        self.names = (ctypes.c_char_p * 3)(*[name.encode() for name in NAMES])
        self.output = (ctypes.c_char_p * 1)(b"last_hidden_state")

    def tensor(self, values):
        dims = (ctypes.c_int64 * values.ndim)(*values.shape)
        return self.made("tensor_new", 7, dims, ctypes.c_size_t(values.ndim),  # OPTIMIZE_DTYPE_INT64
                         values.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(values.nbytes))

    def prepared(self, feed):
        return (ctypes.c_void_p * 3)(*[self.tensor(feed[name]).value for name in NAMES])

    def run(self, inputs):
        """Returns the bytes of the output."""
        result = self.made("session_run", self.session, self.names, inputs, ctypes.c_size_t(3), self.output,
                           ctypes.c_size_t(1), None)
        data = ctypes.string_at(self.library.optimize_tensor_data(result), self.library.optimize_tensor_size(result))
        self.library.optimize_tensor_free(result)
        return data


class OptimizeStock(Optimize):
    """A session of liboptimize with ONNX Runtime's own kernels."""

    kernels = 1


class OnnxRuntime:
    """A session of ONNX Runtime."""

    def __init__(self):
        import minilm

        path = SCRATCH / "minilm-l6/model.onnx"
        if not path.exists():
            minilm.export(path)
        self.session = ort_session(path, 1)

    def prepared(self, feed):
        return feed

    def run(self, feed):
        return self.session.run(None, feed)[0].tobytes()


ENGINES = {"optimize": Optimize, "optimize stock": OptimizeStock, "ort": OnnxRuntime}


def memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def together(engine, inputs, alone, threads, runs):
    """Runs `runs` times on each thread. Returns the seconds of the wall clock and of the processor, and the number of
    results that differ from `alone`."""
    begin, wrong = threading.Barrier(threads + 1), [0] * threads

    def work(number):
        begin.wait()
        for run in range(runs):
            at = (number + run) % len(inputs)
            wrong[number] += engine.run(inputs[at]) != alone[at]

    all_threads = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for one in all_threads:
        one.start()
    begin.wait()
    start, busy = time.perf_counter(), time.process_time()
    for one in all_threads:
        one.join()
    return time.perf_counter() - start, time.process_time() - busy, sum(wrong)


def checked(name, arguments):
    """Returns an engine with its inputs and their results on one thread, and measurements while many threads ran it:
    the number of runs and of different results, and the memory that was added by one thread and by all in megabytes."""
    before = memory()
    engine = ENGINES[name]()
    inputs = [engine.prepared(feed) for feed in feeds()]
    alone = [engine.run(given) for given in inputs]
    together(engine, inputs, alone, 1, 100)
    found = dict(runs=arguments.threads * arguments.runs, megabytes_of_one=memory() - before)
    found["wrong"] = together(engine, inputs, alone, arguments.threads, arguments.runs)[2]
    found["megabytes_of_all"] = memory() - before
    return (engine, inputs, alone), found


def measure(engines, rounds):
    """Returns the times of RUNS runs on 1 thread and on 2 threads, for each engine."""
    times = {(name, threads): [] for name in engines for threads in (1, 2)}
    order = list(times)
    for number in range(rounds):
        for name, threads in order[number % len(order):] + order[:number % len(order)]:
            times[name, threads].append(together(*engines[name], threads, RUNS // threads)[:2])
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    names = arguments.engines.split(",")
    found = {name: checked(name, arguments) for name in names}
    times = measure({name: engine for name, (engine, _) in found.items()}, arguments.rounds)
    rows = [["a session of", "results that differ", "MB after 1 thread", f"after {arguments.threads}",
             "runs/s of 1 thread", "of 2", "ratio", "of the fastest", "processor time", f"as fast as {names[0]}"]]
    result = {}
    for name in names:
        result[name] = of = found[name][1]
        (one, busy_one), (two, busy_two) = (zip(*times[name, threads]) for threads in (1, 2))
        of["one"], of["two"] = RUNS / statistics.median(one), RUNS / statistics.median(two)
        of["ratio"], of["ratio_of_fastest"] = ratio(one, two), min(one) / min(two)
        of["processor_time"] = ratio(busy_two, busy_one)
        of["against_first"] = ratio([busy for _, busy in times[names[0], 1]], busy_one)
        rows.append([name, f"{of['wrong']} of {of['runs']}", f"{of['megabytes_of_one']:.0f}",
                     f"{of['megabytes_of_all']:.0f}", f"{of['one']:.0f}", f"{of['two']:.0f}", shown_ratio(of["ratio"]),
                     f"{of['ratio_of_fastest']:.2f}x", shown_ratio(of["processor_time"]),
                     shown_ratio(of["against_first"])])
    table(rows)
    save("shared_session", result)


if __name__ == "__main__":
    main()
