"""Measures the speed of prefill and decoding of SmolLM2-135M with liboptimize (through its C interface), llama.cpp,
onnxruntime-genai, OpenVINO and plain ONNX Runtime, on the same weights.

Each engine runs in its own process, in which nothing else is loaded. The engines take turns, round after round, and
sleep while another one runs. They read a prompt of 512 (or 8) tokens and then generate greedily. Prefill is the number
of prompt tokens divided by the time to the first new token; decode is the rate of the tokens after it. With one thread,
times are processor times of the process, with more threads those of the wall clock. The table has the medians over the
rounds, the peak memory of each process, and the share of generated tokens that are those of the first engine. An engine
that is not installed is skipped with a message.

Usage: decode_speed.py [--engines optimize,llama.cpp,...] [--threads 1,2] [--rounds 7] [--new-tokens 32]
       [--model MODEL]    the model of liboptimize [default: the GGUF file]; NAME=MODEL,NAME=MODEL for several;
                          with MODEL+rounded, products with block-quantized weights round their activations;
                          with MANIFEST+ensemble, the members decode in step, instead of as one fused graph
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time

import numpy as np

import smollm2
from common import DEPS, SCRATCH, Library, Worker, brown_file, ratio, save, shown_ratio, started, table

PROMPTS = [8, 512]


class Text:
    """Prompts with an exact number of tokens, as text and as ids."""

    def __init__(self):
        from transformers import PreTrainedTokenizerFast

        folder = smollm2.folder()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        words = " ".join(" ".join(brown_file(DEPS / "corpus/brown/ca01")).split())
        self.ids = self.tokenizer(words, add_special_tokens=False).input_ids

    def prompt(self, count):
        # A text that is cut out between two tokens may be tokenized differently: search for one that is not.
        for begin in range(200):
            ids = self.ids[begin:begin + count]
            text = self.tokenizer.decode(ids)
            if self.tokenizer(text, add_special_tokens=False).input_ids == ids:
                return dict(ids=ids, text=text)
        raise SystemExit(f"no text of {count} tokens was found")


# -------------------------------------------------------------------------------------------------- engines
# An engine is created with a number of threads. `write(prompt, count, tick)` generates `count` tokens greedily, calls
# tick() after each of them, and returns their ids.

class Optimize(Library):
    """liboptimize, through its C interface."""

    class Written(ctypes.Structure):
        _fields_ = [("struct_size", ctypes.c_uint32), ("row", ctypes.c_uint32), ("token", ctypes.c_int64)]

    ON_TOKEN = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.POINTER(Written))

    class Generate(ctypes.Structure):
        _fields_ = [(n, ctypes.c_uint32) for n in ("struct_size", "max_new_tokens", "max_length", "top_k")]
        _fields_ += [(n, ctypes.c_float) for n in ("temperature", "top_p", "min_p", "repetition", "presence", "frequency")]
        _fields_ += [("ngram", ctypes.c_uint32), ("logprobs", ctypes.c_uint32), ("seed", ctypes.c_uint64),
                     ("stop", ctypes.c_void_p), ("stop_count", ctypes.c_uint64), ("on_token", ctypes.c_void_p),
                     ("user_data", ctypes.c_void_p), ("rendered", ctypes.c_uint32), ("ignore_eos", ctypes.c_uint32)]

    def __init__(self, threads, model=None):
        super().__init__(threads)
        model, rounded, _ = str(model or smollm2.GGUF).partition("+rounded")
        model, together, _ = model.partition("+ensemble")
        if together:
            loaded = self.made("ensemble_load", model.encode())
        else:
            loaded = self.made("model_load", self.context, model.encode(), None)
        options = (ctypes.c_uint32 * 4)(16, 0, 1 if rounded else 0, 0)  # optimize_generator_options_t
        make = "ensemble_generator" if together else "generator_new"
        self.generator = self.made(make, self.context, loaded, options, None)

    def write(self, prompt, count, tick):
        tokens = []

        def on_token(_, written):
            tokens.append(written[0].token)
            tick()
            return 0

        callback = self.ON_TOKEN(on_token)
        options = self.Generate(ctypes.sizeof(self.Generate), count, rendered=1, ignore_eos=1,
                                on_token=ctypes.cast(callback, ctypes.c_void_p))
        text = prompt["text"].encode()
        texts, sizes = (ctypes.c_char_p * 1)(text), (ctypes.c_size_t * 1)(len(text))
        report = self.made("generator_generate", self.generator, texts, sizes, ctypes.c_size_t(1), ctypes.byref(options),
                           None)
        self.library.optimize_buffer_free(report)
        return tokens


class Llama:
    """llama.cpp on the GGUF file, through llama-cpp-python, without flash attention: long decoding is faster then."""

    def __init__(self, threads):
        from llama_cpp import Llama as Model

        self.model = Model(str(smollm2.GGUF), n_ctx=1024, n_batch=512, n_threads=threads, n_threads_batch=threads,
                           flash_attn=False, verbose=False)

    def write(self, prompt, count, tick):
        self.model.reset()
        tokens = []
        for token in self.model.generate(prompt["ids"], temp=0.0, repeat_penalty=1.0, reset=True):
            tokens.append(token)
            tick()
            if len(tokens) == count:
                return tokens


class Genai:
    """onnxruntime-genai, with an int4 model from its own builder (a 4-bit head and accuracy level 4, its defaults)."""

    precision = "int4"

    def __init__(self, threads):
        import onnxruntime_genai as genai

        self.genai = genai
        config = genai.Config(str(self.folder()))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self.model = genai.Model(config)

    @classmethod
    def folder(cls):
        out = SCRATCH / f"smollm2-genai-{cls.precision}"
        if not (out / "genai_config.json").exists():
            command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", smollm2.folder(), "-o", out,
                       "-p", cls.precision, "-e", "cpu", "-c", SCRATCH / "cache"]
            subprocess.run([str(c) for c in command], check=True, stdout=sys.stderr)
        return out

    def write(self, prompt, count, tick):
        options = self.genai.GeneratorParams(self.model)
        options.set_search_options(max_length=len(prompt["ids"]) + count, min_length=len(prompt["ids"]) + count,
                                   do_sample=False)
        generator = self.genai.Generator(self.model, options)
        generator.append_tokens(np.array(prompt["ids"], np.int32))
        tokens = []
        while len(tokens) < count:
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
            tick()
        return tokens


class GenaiFloat(Genai):
    """onnxruntime-genai, float32."""

    precision = "fp32"


class Plain:
    """A loop over a plain ONNX file, whose cache outputs become the next inputs. Subclasses define `caches`, the names
    and shapes of the empty caches, and `step`, which returns the logits and the new caches for one set of inputs."""

    def write(self, prompt, count, tick):
        ids, position, tokens = prompt["ids"], 0, []
        past = {name: np.zeros((1, *shape), np.float32) for name, shape in self.caches()}
        while len(tokens) < count:
            feed = dict(past, input_ids=np.array([ids], np.int64),
                        position_ids=np.arange(position, position + len(ids), dtype=np.int64)[None])
            logits, past = self.step(feed)
            position += len(ids)
            ids = [int(logits[0, -1].argmax())]
            tokens += ids
            tick()
        return tokens


class OnnxRuntime(Plain):
    """ONNX Runtime on the plain float32 file."""

    def __init__(self, threads):
        from common import ort_session

        self.session = ort_session(self.file(), threads)

    @classmethod
    def file(cls):
        return smollm2.PLAIN_ONNX

    def caches(self):
        return [(i.name, (i.shape[1], 0, i.shape[3])) for i in self.session.get_inputs() if i.name.startswith("past")]

    def step(self, feed):
        names = [output.name for output in self.session.get_outputs()]
        values = dict(zip(names, self.session.run(names, feed)))
        return values.pop("logits"), {n.replace("present", "past_key_values"): v for n, v in values.items()}


class OnnxRuntimeInt8(OnnxRuntime):
    """ONNX Runtime on the plain file after ONNX Runtime's `quantize_dynamic`."""

    @classmethod
    def file(cls):
        path = SCRATCH / "smollm2-int8.onnx"
        if not path.exists():
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(str(smollm2.PLAIN_ONNX), str(path), weight_type=QuantType.QInt8, per_channel=True)
        return path


class OpenVino(Plain):
    """OpenVINO on the plain float32 file with its default precision (bf16 if the processor supports it)."""

    precision = None

    def __init__(self, threads):
        import openvino

        core = openvino.Core()
        model = core.read_model(str(smollm2.PLAIN_ONNX))
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if self.precision:
            options["INFERENCE_PRECISION_HINT"] = self.precision
        self.inputs = [(i.any_name, i.partial_shape) for i in model.inputs]
        self.compiled = core.compile_model(model, "CPU", options)
        self.request = self.compiled.create_infer_request()

    def caches(self):
        size = lambda shape, at: shape[at].get_length()
        return [(n, (size(s, 1), 0, size(s, 3))) for n, s in self.inputs if n.startswith("past")]

    def step(self, feed):
        values = {k.any_name: v for k, v in self.request.infer(feed, share_inputs=True).items()}
        return values.pop("logits"), {n.replace("present", "past_key_values"): v for n, v in values.items()}


class OpenVinoFloat(OpenVino):
    """OpenVINO in float32."""

    precision = "f32"


ENGINES = {"optimize": Optimize, "llama.cpp": Llama, "genai int4": Genai, "genai fp32": GenaiFloat,
           "ort fp32": OnnxRuntime,
           "ort int8": OnnxRuntimeInt8, "openvino": OpenVino, "openvino f32": OpenVinoFloat}
DEFAULT = ["optimize", "llama.cpp", "genai int4", "openvino", "openvino f32", "ort fp32"]


# -------------------------------------------------------------------------------------------------- workers

def work(name, threads, model):
    """Runs in the process of an engine: reads one request per line (a prompt and a number of tokens), and writes the
    seconds to the first token and per later token, and the tokens."""
    engine = ENGINES[name](threads, model) if model else ENGINES[name](threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        ticks = [clock()]
        tokens = engine.write(request["prompt"], request["count"], lambda: ticks.append(clock()))
        answer = dict(first=ticks[1] - ticks[0], each=(ticks[-1] - ticks[1]) / (len(ticks) - 2), tokens=tokens)
        print(json.dumps(answer), flush=True)


def worker(label, name, threads, model):
    command = [sys.executable, __file__, "--work", name, "--threads", str(threads)]
    command += ["--model", model] if model else []
    return Worker(label, command, SCRATCH / f"decode-{label.replace('/', '_')}.log")


def measure(jobs, threads, prompts, arguments):
    workers = started([worker(label, name, threads, model) for label, name, model in jobs])
    times = {w.label: {f"{kind}{count}": [] for count in prompts for kind in ("prefill", "decode")} for w in workers}
    written = {}
    for number in range(-1, arguments.rounds):  # a round to warm up
        for one in workers[number % len(workers):] + workers[:number % len(workers)]:
            for count, prompt in prompts.items():
                found = one.ask(prompt=prompt, count=arguments.new_tokens)
                written[one.label, count] = found["tokens"]
                if number >= 0:
                    times[one.label][f"prefill{count}"].append(found["first"])
                    times[one.label][f"decode{count}"].append(found["each"])
    memory = {one.label: one.memory() for one in workers}
    for one in workers:
        one.close()
    return times, memory, written


def report(threads, times, memory, written, prompts):
    first = next(iter(times))
    kind = "processor time" if threads == 1 else "wall clock"
    rows = [[f"{threads} thread{'s' if threads > 1 else ''} ({kind}), tokens/s", "prefill 512", "decode 8", "decode 512",
             "peak MB", "same tokens"]]
    result = {}
    for label, of in times.items():
        rate = lambda key, tokens=1: tokens / statistics.median(of[key])
        found = dict(prefill512=rate("prefill512", 512), decode8=rate("decode8"), decode512=rate("decode512"),
                     peak_bytes=memory[label], tokens=written[label, 512])
        same = sum(a == b for count in prompts for a, b in zip(written[label, count], written[first, count]))
        found["same_tokens"] = same / sum(len(written[first, count]) for count in prompts)
        rows.append([label, f"{found['prefill512']:.0f}", f"{found['decode8']:.1f}", f"{found['decode512']:.1f}",
                     f"{memory[label] / 1e6:.0f}", f"{found['same_tokens']:.2f}"])
        result[label] = found
    table(rows)
    rows = [[f"how many times as fast {first} is", "prefill 512", "decode 8", "decode 512"]]
    for label, of in times.items():
        if label != first:
            ratios = {key: ratio(of[key], times[first][key]) for key in ("prefill512", "decode8", "decode512")}
            rows.append(["as " + label] + [shown_ratio(value) for value in ratios.values()])
            result[label]["ratios"] = ratios
    table(rows)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default=",".join(DEFAULT))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--model")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments.work, int(arguments.threads), arguments.model)
    import smollm2_onnx

    SCRATCH.mkdir(parents=True, exist_ok=True)
    text = Text()
    prompts = {count: text.prompt(count) for count in PROMPTS}
    jobs = []
    for name in arguments.engines.split(","):
        models = (arguments.model or "").split(",") if name == "optimize" else [""]
        for model in models:
            label, _, path = model.rpartition("=")
            jobs.append((f"{name} {label}".strip(), name, path or None))
    smollm2_onnx.export()
    result = {}
    for threads in map(int, arguments.threads.split(",")):
        result[f"threads{threads}"] = report(threads, *measure(jobs, threads, prompts, arguments), prompts)
    save("decode_speed", result)


if __name__ == "__main__":
    main()
