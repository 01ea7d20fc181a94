"""Code that the scripts of this folder share: paths, texts, the C interface of liboptimize, engines in separate
processes, interleaved timing, tables and result files."""

import ctypes
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPS = pathlib.Path(os.environ.get("OPTIMIZE_TEST_DEPS", ROOT / "target/deps"))
SCRATCH = ROOT / "target/peers"
MODELS = DEPS / "models"
COMMAND = ROOT / "target/release/optimize"
LIBRARY = ROOT / "target/release/liboptimize.so"
RUNTIME = DEPS / "onnxruntime/libonnxruntime.so.1"


# ---------------------------------------------------------------------------------------------------- texts

# Files of the Brown corpus contain `word/tag word/tag`, with these forms of quotation marks and brackets.
QUOTES = {"``": '"', "''": '"', "-LRB-": "(", "-RRB-": ")"}
NO_SPACE_BEFORE = {".", ",", ";", ":", "?", "!", ")", "'"}


def brown_sentences(count, seed=1):
    """Returns `count` random sentences of 5 to 60 words from the Brown corpus; equal arguments give equal sentences."""
    files = sorted(p for p in (DEPS / "corpus/brown").iterdir() if len(p.name) == 4 and p.name[0] == "c")
    sentences = [s for path in files for s in brown_file(path) if 5 <= len(s.split()) <= 60]
    return random.Random(seed).sample(sentences, count)


def brown_file(path):
    """Yields the sentences of one file of the Brown corpus as plain text, without tags."""
    for line in path.read_text(encoding="utf-8").splitlines():
        words = [token.rsplit("/", 1)[0] for token in line.split()]
        if words:
            yield joined([QUOTES.get(word, word) for word in words])


def joined(words):
    text = ""
    for word in words:
        text += word if not text or word in NO_SPACE_BEFORE else " " + word
    return text


# -------------------------------------------------------------------------------------------------- engines

class Library:
    """The C interface of liboptimize, with a context for `threads` threads."""

    class Context(ctypes.Structure):
        _fields_ = [("struct_size", ctypes.c_uint32), ("threads", ctypes.c_uint32), ("library", ctypes.c_char_p)]

    def __init__(self, threads):
        self.library = ctypes.CDLL(str(LIBRARY))
        self.library.optimize_error_message.restype = ctypes.c_char_p
        options = self.Context(ctypes.sizeof(self.Context), threads, str(RUNTIME).encode())
        self.context = self.made("context_new", ctypes.byref(options))

    def call(self, name, *arguments):
        error = ctypes.c_void_p()
        if getattr(self.library, "optimize_" + name)(*arguments, ctypes.byref(error)) != 0:
            raise SystemExit(f"optimize_{name}: {self.library.optimize_error_message(error).decode()}")

    def made(self, name, *arguments):
        """Returns the handle that a C function writes to the argument before its last one, the error."""
        out = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(out))
        return out


class Worker:
    """A process that reads one line of JSON per request and writes one line of JSON per answer, after a line "ready".

    `errors` is the file that receives its standard error; `environment` is added to the variables of this process.
    """

    def __init__(self, label, command, errors, **environment):
        self.label, self.errors = label, errors
        with open(errors, "w") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True,
                                            env=dict(os.environ, ORT_DYLIB_PATH=str(RUNTIME), **environment))
        self.ready = self.answer() == "ready"

    def answer(self):
        for line in self.process.stdout:
            # Some engines print messages; the lines of the scripts are JSON.
            if line.startswith(("{", '"')):
                return json.loads(line)
        return None

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def started(workers):
    """Returns the workers that are ready; prints the label and the last message of each of the others."""
    for worker in workers:
        if not worker.ready:
            last = (worker.errors.read_text().strip().splitlines() or ["it said nothing"])[-1]
            print(f"left out: {worker.label} ({last})", file=sys.stderr)
    return [worker for worker in workers if worker.ready]


# --------------------------------------------------------------------------------------------------- timing

def interleaved(runs, seconds, clock, fewest=7, most=400):
    """Returns the times in milliseconds of the functions `runs` ({name: function}) as {name: one time per round}.

    All functions run in each round, in a rotating order, and each runs once untimed before its timed run. So neither
    the content of the caches nor a machine that becomes slower favours one of them. After two untimed rounds, rounds
    are repeated for `seconds`, but at least `fewest` and at most `most` times.
    """
    times = {name: [] for name in runs}
    names = list(runs)
    begin = time.monotonic()
    number = -2  # two rounds to warm up
    while number < fewest or (number < most and time.monotonic() - begin < seconds):
        for name in names[number % len(names):] + names[:number % len(names)]:
            runs[name]()
            start = clock()
            runs[name]()
            taken = (clock() - start) * 1e3
            if number >= 0:
                times[name].append(taken)
        number += 1
    return times


def clock_for(threads):
    """Returns the clock and its name: process CPU time for one thread (other programs hardly affect it), else the wall
    clock."""
    return (time.process_time, "cpu") if threads == 1 else (time.perf_counter, "wall")


def ratio(slow, quick, seed=0, resamples=2000):
    """Returns the median of the paired ratios slow/quick, and the ends of its 95 % bootstrap interval."""
    ratios = [a / b for a, b in zip(slow, quick)]
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(resamples))
    return statistics.median(ratios), medians[int(0.025 * resamples)], medians[int(0.975 * resamples) - 1]


def shown_ratio(value):
    return "{:.2f}x [{:.2f}, {:.2f}]".format(*value)


def ort_session(model, threads):
    """Returns an ONNX Runtime session, with the same options for every model that is compared.

    Waiting threads sleep after 20 us, as in the sessions of liboptimize: with the default (they spin), times on a
    shared machine depend on other programs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


# --------------------------------------------------------------------------------------------------- report

def table(rows):
    """Prints rows of cells, the first row as a header."""
    widths = [max(len(str(row[i])) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    for index, row in enumerate(rows):
        cells = [str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())
        if index == 0:
            print("-" * (sum(widths) + 2 * (len(widths) - 1)))
    print(flush=True)


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    return {"processor": names[0] if names else "", "threads": os.cpu_count(), "load": os.getloadavg()[0]}


def save(name, result):
    """Writes the figures `result` and a description of the machine to target/peers/NAME.json."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    path = SCRATCH / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    print(f"written to {path.relative_to(ROOT)}")
