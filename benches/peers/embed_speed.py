"""Measures how fast 1,000 texts become vectors: all-MiniLM-L6-v2 with liboptimize (through its C interface) and with
sentence-transformers, on the same folder.

Each engine runs in its own process and takes its turn, round after round, while the others sleep. The model is loaded
and warm; tokenization, sorting by length, padding and pooling are part of the time. The texts are `sentences` of 5 to
60 words, or `passages` of 1 to 12 such sentences, of which those above 256 tokens are truncated. With one thread, times
are processor times of the process, with more threads those of the wall clock. Batches have the size that each library
has by default (8 for liboptimize, 32 for sentence-transformers), or the one after `/` in the engine's name.
`difference` is the largest difference of an element from the vectors of sentence-transformers on PyTorch, which are
normalized.

Usage: embed_speed.py [--engines optimize,optimize stock/32,torch,...] [--texts sentences,passages] [--threads 1,2]
       [--rounds 7]

`onnx` is the ONNX backend of sentence-transformers. It needs the package optimum-onnx. An engine that cannot be started
is skipped with a message.
"""

import argparse
import ctypes
import json
import random
import statistics
import sys
import time

import numpy as np

from common import MODELS, SCRATCH, Library, Worker, brown_sentences, ratio, save, shown_ratio, started, table

MODEL = MODELS / "all-MiniLM-L6-v2"
REFERENCE = "torch"


def sentences():
    return brown_sentences(1000)


def passages():
    pool, draw = brown_sentences(12000), random.Random(1)
    return [" ".join(draw.sample(pool, draw.randint(1, 12))) for _ in range(1000)]


TEXTS = {"sentences": sentences, "passages": passages}


# -------------------------------------------------------------------------------------------------- engines
# An engine is created with a number of threads and a batch size, 0 for its default. `embed(texts)` returns an array.

class Optimize(Library):
    """liboptimize, through its C interface."""

    kernels, precision = 0, 0  # OPTIMIZE_KERNELS_AUTO, OPTIMIZE_SESSION_PRECISION_FP32

    class Options(ctypes.Structure):
        _fields_ = [(n, ctypes.c_uint32) for n in ("struct_size", "threads", "batch_size", "max_length", "dimensions",
                                                   "normalize")]
        _fields_ += [("prompt", ctypes.c_char_p), ("prompt_name", ctypes.c_char_p), ("provider", ctypes.c_int32),
                     ("device_id", ctypes.c_uint32), ("engine_cache", ctypes.c_char_p), ("kernels", ctypes.c_int32),
                     ("precision", ctypes.c_int32)]

    def __init__(self, threads, batch):
        super().__init__(threads)
        self.library.optimize_tensor_data.restype = ctypes.c_void_p
        self.library.optimize_tensor_size.restype = ctypes.c_size_t
        model = self.made("model_load", self.context, str(MODEL).encode(), None)
        options = self.Options(ctypes.sizeof(self.Options), threads, batch, kernels=self.kernels,
                               precision=self.precision)
        self.embedder = self.made("embedder_new", self.context, model, None, ctypes.byref(options), None)

    def embed(self, texts):
        given = (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts])
        vectors = self.made("embedder_embed", self.embedder, given, ctypes.c_size_t(len(texts)), None)
        data = ctypes.string_at(self.library.optimize_tensor_data(vectors), self.library.optimize_tensor_size(vectors))
        self.library.optimize_tensor_free(vectors)
        return np.frombuffer(data, np.float32).reshape(len(texts), -1)


class OptimizeStock(Optimize):
    """liboptimize with ONNX Runtime's own kernels."""

    kernels = 1


class OptimizeBf16(Optimize):
    """liboptimize in bfloat16."""

    precision = 1


class OptimizeInt8(Optimize):
    """liboptimize in int8."""

    precision = 2


class Torch:
    """sentence-transformers on PyTorch."""

    def __init__(self, threads, batch):
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.batch = batch or 32
        self.model = SentenceTransformer(str(self.folder()), device="cpu", **self.options(threads))

    def folder(self):
        return MODEL

    def options(self, threads):
        return {}

    def embed(self, texts):
        return self.model.encode(texts, batch_size=self.batch, show_progress_bar=False)


class Onnx(Torch):
    """sentence-transformers on ONNX Runtime."""

    def folder(self):
        from sentence_transformers import SentenceTransformer

        out = SCRATCH / "minilm-sentence-transformers-onnx"
        if not (out / "onnx/model.onnx").exists():
            SentenceTransformer(str(MODEL), device="cpu", backend="onnx").save_pretrained(str(out))
        return out

    def options(self, threads):
        import onnxruntime

        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        session.inter_op_num_threads = 1
        return dict(backend="onnx", model_kwargs=dict(provider="CPUExecutionProvider", session_options=session,
                                                      file_name="onnx/model.onnx"))


ENGINES = {"optimize": Optimize, "optimize stock": OptimizeStock, "optimize bf16": OptimizeBf16,
           "optimize int8": OptimizeInt8, "torch": Torch, "onnx": Onnx}
DEFAULT = ["optimize", "optimize stock", "optimize stock/32", "optimize int8", "torch", "torch/8", "onnx", "onnx/8"]


# -------------------------------------------------------------------------------------------------- measuring

def work(label, threads):
    """Runs in the process of an engine: reads one request per line (the name of a set of texts, and a file for the
    vectors or null), embeds the texts, and writes the seconds."""
    name, _, batch = label.partition("/")
    engine = ENGINES[name](threads, int(batch or 0))
    clock = time.process_time if threads == 1 else time.perf_counter
    texts = {name: make() for name, make in TEXTS.items()}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = clock()
        vectors = engine.embed(texts[request["texts"]])
        seconds = clock() - start
        if request["file"]:
            np.save(request["file"], vectors)
        print(json.dumps(dict(seconds=seconds)), flush=True)


def file_of(label):
    return SCRATCH / f"embed-{label.replace('/', '_').replace(' ', '_')}"


def measure(labels, threads, name, rounds):
    """Returns the times and the vectors of each engine that could be started, each as {label: value}."""
    # The Python package tokenizers has its own thread pool.
    workers = started([Worker(label, [sys.executable, __file__, "--work", label, "--threads", str(threads)],
                              file_of(label).with_suffix(".log"), RAYON_NUM_THREADS=str(threads)) for label in labels])
    times = {one.label: [] for one in workers}
    for number in range(-1, rounds):  # a round to warm up
        for one in workers[number % len(workers):] + workers[:number % len(workers)]:
            file = str(file_of(one.label).with_suffix(".npy")) if number < 0 else None
            seconds = one.ask(texts=name, file=file)["seconds"]
            if number >= 0:
                times[one.label].append(seconds)
    for one in workers:
        one.close()
    return times, {label: np.load(file_of(label).with_suffix(".npy")) for label in times}


def report(threads, name, times, vectors):
    kind = "processor time" if threads == 1 else "wall clock"
    head = [f"1,000 {name}, {threads} thread{'s' if threads > 1 else ''} ({kind})", "seconds", "texts/s"]
    peers = [label for label in times if not label.startswith("optimize")]
    rows, result = [head + [f"against {peer}" for peer in peers] + ["difference", "smallest cosine"]], {}
    for label, of in times.items():
        found = dict(seconds=statistics.median(of), ratios={peer: ratio(times[peer], of) for peer in peers})
        cells = [label, f"{found['seconds']:.2f}", f"{len(vectors[label]) / found['seconds']:.0f}"]
        cells += [shown_ratio(value) if peer != label else "" for peer, value in found["ratios"].items()]
        if REFERENCE in vectors:
            found["difference"] = float(np.abs(vectors[label] - vectors[REFERENCE]).max())
            found["cosine"] = float((vectors[label] * vectors[REFERENCE]).sum(axis=1).min())
            cells += [f"{found['difference']:.1e}", f"{found['cosine']:.6f}"]
        rows.append(cells)
        result[label] = found
    table(rows)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default=",".join(DEFAULT))
    parser.add_argument("--texts", default=",".join(TEXTS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments.work, int(arguments.threads))
    SCRATCH.mkdir(parents=True, exist_ok=True)
    result = {}
    for threads in map(int, arguments.threads.split(",")):
        for name in arguments.texts.split(","):
            times, vectors = measure(arguments.engines.split(","), threads, name, arguments.rounds)
            result[f"{name}, {threads}"] = report(threads, name, times, vectors)
    save("embed_speed", result)


if __name__ == "__main__":
    main()
