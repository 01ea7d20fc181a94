"""Measures the speed of MiniLM-L3 and -L6 with ONNX Runtime and OpenVINO, float32 and int8, in one process and in turn.

ONNX Runtime runs the float32 model and two int8 models, one quantized by ONNX Runtime's own tool and one by `optimize
quantize`. OpenVINO runs the float32 model and the second int8 model; it computes in bf16 by default if the processor
supports it, `openvino f32` computes in float32. The cosine is the mean over 100 sentences between a vector and that of
ONNX Runtime with the float32 model.

Usage: encoder_speed.py [--models L3,L6] [--seconds 20] [--threads 1,2]
"""

import argparse
import sys

import numpy as np
from tokenizers import Tokenizer

import minilm
from common import MODELS, SCRATCH, brown_sentences, clock_for, interleaved, ort_session, ratio, save, shown_ratio, table
from quantize_dynamic import FLOAT, feed, ort_int8, our_int8, output_of

SHAPES = [(1, 16), (1, 128), (8, 128)]
SENTENCES = 100


class OnnxRuntime:
    def __init__(self, path, threads):
        self.session = ort_session(path, threads)
        self.output = output_of(self.session)

    def run(self, ids):
        return self.session.run([self.output], feed(self.session, ids))[0]


class OpenVino:
    def __init__(self, path, threads, precision=None):
        import openvino

        core = openvino.Core()
        model = core.read_model(str(path))
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if precision:
            options["INFERENCE_PRECISION_HINT"] = precision
        self.inputs = [value.any_name for value in model.inputs]
        self.request = core.compile_model(model, "CPU", options).create_infer_request()
        self.output = OnnxRuntime(path, 1).output

    def run(self, ids):
        values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        self.request.infer({name: values[name] for name in self.inputs}, share_inputs=True)
        # Copied, because the next run writes to the same memory.
        return self.request.get_tensor(self.output).data.copy()


def files(name):
    source = FLOAT[name]
    if name == "L6" and not source.exists():
        minilm.export(source)
    made = {"ort": SCRATCH / f"{name}-ort-int8.onnx", "ours": SCRATCH / f"{name}-ours-int8.onnx"}
    if not made["ort"].exists():
        ort_int8(source, made["ort"])
    if not made["ours"].exists():
        our_int8(source, made["ours"])
    return source, made


def engines(name, threads):
    source, int8 = files(name)
    return {
        "ort f32": OnnxRuntime(source, threads),
        "ort, int8 by its tool": OnnxRuntime(int8["ort"], threads),
        "ort, int8 by optimize": OnnxRuntime(int8["ours"], threads),
        "openvino (default)": OpenVino(source, threads),
        "openvino f32": OpenVino(source, threads, "f32"),
        "openvino, int8 by optimize": OpenVino(int8["ours"], threads),
    }


def cosines(found, tokenizer):
    texts = brown_sentences(SENTENCES, seed=2)
    vectors = {}
    for name, engine in found.items():
        rows = [engine.run(np.array([tokenizer.encode(text).ids], np.int64))[0] for text in texts]
        rows = np.stack([np.array(row if row.ndim == 1 else row.mean(axis=0)) for row in rows])
        vectors[name] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return {name: float((v * vectors["ort f32"]).sum(axis=1).mean()) for name, v in vectors.items()}


def measure(name, threads, tokenizer, seconds):
    found = engines(name, threads)
    quality = cosines(found, tokenizer)
    clock, kind = clock_for(threads)
    head = [f"MiniLM-{name}, {threads} thread{'s' if threads > 1 else ''} ({kind})", "cosine"]
    rows, result = [[engine, f"{cosine:.5f}"] for engine, cosine in quality.items()], {"cosine": quality}
    for shape in SHAPES:
        ids = np.random.default_rng(0).integers(1000, 30000, shape)
        runs = {engine: (lambda e=e: e.run(ids)) for engine, e in found.items()}
        times = interleaved(runs, seconds, clock)
        label = f"{shape[0]}x{shape[1]}"
        result[label] = {e: dict(ms=float(np.median(t)), ratio=ratio(times["ort f32"], t)) for e, t in times.items()}
        head += [label + " ms", "against ort f32"]
        for row in rows:
            row += [f"{result[label][row[0]]['ms']:.2f}", shown_ratio(result[label][row[0]]["ratio"])]
    table([head] + rows)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="L3,L6")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(MODELS / "paraphrase-MiniLM-L3-v2/tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    save("encoder_speed", {f"{name}, {threads}": measure(name, int(threads), tokenizer, arguments.seconds)
                           for name in arguments.models.split(",") for threads in arguments.threads.split(",")})


if __name__ == "__main__":
    sys.exit(main())
