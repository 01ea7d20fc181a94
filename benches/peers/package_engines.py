"""The engines that packages are compared with, and the files that they open. The files are kept in
target/peers/packages; packages are made again in each run, the others are made once.

`CLASS(path)` creates an engine and loads its libraries, `open()` opens its file, and `run(feed, output)` returns the
values of the output that is compared. All engines use one thread.
"""

import ctypes
import json
import pathlib
import subprocess
import sys

import numpy as np

from common import COMMAND, LIBRARY, MODELS, RUNTIME, SCRATCH

FOLDER = SCRATCH / "packages"
L3, L6 = MODELS / "paraphrase-MiniLM-L3-v2/model.onnx", SCRATCH / "minilm-l6/model.onnx"
DECODER = SCRATCH / "smollm2-off"
PROMPT = "The capital of France is the city in which most of the people"
# Names of the output with the hidden states of the last layer, which the engines for encoders return.
HIDDEN = {"L3": "onnx::Shape_422", "L6": "last_hidden_state"}


def tokens(rows, length):
    ids = (1000 + np.arange(rows * length)).reshape(rows, length).astype(np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


# ------------------------------------------------------------------------------------------------- engines

class Optimize:
    """liboptimize, through its C interface."""

    def __init__(self, path):
        self.path = path
        self.library = library = ctypes.CDLL(str(LIBRARY))
        library.optimize_error_message.restype = ctypes.c_char_p
        library.optimize_tensor_data.restype = ctypes.c_void_p
        library.optimize_tensor_size.restype = ctypes.c_size_t
        library.optimize_session_input_count.restype = ctypes.c_size_t

        class Options(ctypes.Structure):
            _fields_ = [("struct_size", ctypes.c_uint32), ("threads", ctypes.c_uint32), ("library", ctypes.c_char_p)]

        given = Options(ctypes.sizeof(Options), 1, str(RUNTIME).encode())
        self.context = self.made("context_new", ctypes.byref(given))
        # The first call that needs ONNX Runtime opens it: here, because the other engines open theirs when imported.
        self.made("context_runtime_version", self.context)

    def made(self, name, *arguments):
        out = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(out))
        return out

    def call(self, name, *arguments):
        error = ctypes.c_void_p()
        if getattr(self.library, "optimize_" + name)(*arguments, ctypes.byref(error)) != 0:
            raise SystemExit(f"optimize_{name}: {self.library.optimize_error_message(error).decode()}")

    def open(self, variant=None):
        class Options(ctypes.Structure):
            _fields_ = [("struct_size", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("variant", ctypes.c_char_p),
                        ("public_key", ctypes.c_char_p)]

        given = Options(ctypes.sizeof(Options), 0, variant and variant.encode(), None)
        self.package = self.made("package_open", str(self.path).encode(), ctypes.byref(given))
        self.session = self.made("package_session", self.context, self.package, None, None)
        count = self.library.optimize_session_input_count(self.session)
        self.names = (ctypes.c_char_p * count)(*[self.name_of(index) for index in range(count)])

    def name_of(self, index):
        class Info(ctypes.Structure):
            _fields_ = [("struct_size", ctypes.c_uint32), ("dtype", ctypes.c_int32), ("name", ctypes.c_char_p),
                        ("rank", ctypes.c_int64), ("dims", ctypes.c_void_p), ("dim_names", ctypes.c_void_p)]

        info = Info(ctypes.sizeof(Info))
        self.call("session_input", self.session, ctypes.c_size_t(index), ctypes.byref(info))
        return info.name

    def repeat(self, feed, output):
        """Returns a function that makes the calls that a C program repeats, and one that returns `output`."""
        count, types = len(self.names), {np.dtype(np.int64): 7, np.dtype(np.float32): 1}
        inputs = (ctypes.c_void_p * count)()
        for index, name in enumerate(self.names):
            values = feed[name.decode()]
            dims = (ctypes.c_int64 * values.ndim)(*values.shape)
            inputs[index] = self.made("tensor_new", types[values.dtype], dims, ctypes.c_size_t(values.ndim),
                                      values.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(values.nbytes))
        wanted, outputs = (ctypes.c_char_p * 1)(output.encode()), (ctypes.c_void_p * 1)()

        def run():
            self.library.optimize_tensor_free(ctypes.c_void_p(outputs[0]))
            self.call("session_run", self.session, self.names, inputs, ctypes.c_size_t(count), wanted, ctypes.c_size_t(1),
                      None, outputs)

        def values():
            tensor = ctypes.c_void_p(outputs[0])
            size = self.library.optimize_tensor_size(tensor) // 4
            return np.frombuffer((ctypes.c_float * size).from_address(self.library.optimize_tensor_data(tensor)), np.float32)

        return run, values

    def run(self, feed, output):
        run, values = self.repeat(feed, output)
        run()
        return values()


class OptimizeInt8(Optimize):
    """The int8 variant of a package."""

    def open(self):
        super().open("int8")


class OptimizeInt4(Optimize):
    """The int4 variant of a package."""

    def open(self):
        super().open("int4")


class OptimizeBf16(Optimize):
    """The bf16 variant of a package."""

    def open(self):
        super().open("bf16")


class OptimizeText(Optimize):
    """A package that generates text: from the text of a prompt to the first token. `run` returns the token's id."""

    def open(self):
        class Options(ctypes.Structure):
            _fields_ = [("struct_size", ctypes.c_uint32), ("max_new_tokens", ctypes.c_uint32), ("zero", ctypes.c_char * 104)]

        self.options = Options(ctypes.sizeof(Options), 1)
        self.package = self.made("package_open", str(self.path).encode(), None)
        self.generator = self.made("package_generator", self.context, self.package, None, None)

    def run(self, feed, output):
        prompts = (ctypes.c_char_p * 1)(PROMPT.encode())
        report = ctypes.c_void_p()
        self.call("generator_generate", self.generator, prompts, None, ctypes.c_size_t(1), ctypes.byref(self.options), None,
                  ctypes.byref(report))
        self.library.optimize_buffer_data.restype = ctypes.c_char_p
        found = json.loads(self.library.optimize_buffer_data(report))
        return np.array([found["generations"][0]["tokens"][0]])


class OnnxRuntime:
    """Stock ONNX Runtime with its defaults."""

    def __init__(self, path):
        import onnxruntime

        self.path, self.module = str(path), onnxruntime

    def open(self):
        options = self.module.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if self.path.endswith((".ahead.onnx", ".ort")):
            options.graph_optimization_level = self.module.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = self.module.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        self.names = [i.name for i in self.session.get_inputs()]

    def run(self, feed, output):
        return self.session.run([output], {name: feed[name] for name in self.names})[0].ravel()


class OnnxRuntimeC:
    """Stock ONNX Runtime with its defaults, through its C interface, from the same library that packages use. The
    Python module contains another build, and a call takes a tenth of a millisecond longer."""

    # Indices of functions in the struct `OrtApi`, which only grows at its end.
    PLACES = dict(GetErrorMessage=2, CreateEnv=3, CreateSession=7, Run=9, CreateSessionOptions=10, SetIntraOpNumThreads=24,
                  CreateTensorWithDataAsOrtValue=49, GetTensorMutableData=51, CreateCpuMemoryInfo=69, ReleaseValue=96)

    def __init__(self, path):
        import onnxruntime

        self.path = str(path)
        # Only used for the names of the inputs.
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.names = [i.name for i in onnxruntime.InferenceSession(self.path, options).get_inputs()]
        library = ctypes.CDLL(str(RUNTIME))
        library.OrtGetApiBase.restype = ctypes.c_void_p
        get = ctypes.c_void_p.from_address(library.OrtGetApiBase()).value
        self.api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(get)(24)
        kinds = {"GetErrorMessage": ctypes.c_char_p, "ReleaseValue": None}
        self.functions = {name: ctypes.CFUNCTYPE(kinds.get(name, ctypes.c_void_p))(
            ctypes.c_void_p.from_address(self.api + 8 * place).value) for name, place in self.PLACES.items()}
        self.environment = ctypes.c_void_p()
        self.call("CreateEnv", ctypes.c_int(4), b"peer", ctypes.byref(self.environment))

    def call(self, name, *arguments):
        status = self.functions[name](*arguments)
        if status:
            message = self.functions["GetErrorMessage"](ctypes.c_void_p(status))
            raise SystemExit(f"{name}: {message.decode()}")

    def open(self):
        options, self.session = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("CreateSessionOptions", ctypes.byref(options))
        self.call("SetIntraOpNumThreads", options, ctypes.c_int(1))
        self.call("CreateSession", self.environment, self.path.encode(), options, ctypes.byref(self.session))

    def repeat(self, feed, output):
        memory, count = ctypes.c_void_p(), len(self.names)
        self.call("CreateCpuMemoryInfo", ctypes.c_int(1), ctypes.c_int(0), ctypes.byref(memory))
        inputs, outputs = (ctypes.c_void_p * count)(), (ctypes.c_void_p * 1)()
        for index, name in enumerate(self.names):
            values, made = feed[name], ctypes.c_void_p()
            dims = (ctypes.c_int64 * values.ndim)(*values.shape)
            self.call("CreateTensorWithDataAsOrtValue", memory, values.ctypes.data_as(ctypes.c_void_p),
                      ctypes.c_size_t(values.nbytes), dims, ctypes.c_size_t(values.ndim), ctypes.c_int(7), ctypes.byref(made))
            inputs[index] = made
        names = (ctypes.c_char_p * count)(*[name.encode() for name in self.names])
        wanted = (ctypes.c_char_p * 1)(output.encode())

        def run():
            self.functions["ReleaseValue"](ctypes.c_void_p(outputs[0]))
            outputs[0] = None
            self.call("Run", self.session, None, names, inputs, ctypes.c_size_t(count), wanted, ctypes.c_size_t(1), outputs)

        def values():
            data = ctypes.c_void_p()
            self.call("GetTensorMutableData", ctypes.c_void_p(outputs[0]), ctypes.byref(data))
            # Hidden states have 384 numbers per token.
            size = feed["input_ids"].size * 384
            return np.frombuffer((ctypes.c_float * size).from_address(data.value), np.float32)

        return run, values


class OnnxRuntimeText(OnnxRuntime):
    """Stock ONNX Runtime with a tokenizer: from the text of a prompt to the id of the first token."""

    def __init__(self, path):
        import tokenizers

        super().__init__(path)
        self.tokenizers = tokenizers

    def open(self):
        super().open()
        self.tokenizer = self.tokenizers.Tokenizer.from_file(str(DECODER / "tokenizer.json"))

    def run(self, feed, output):
        ids = np.array([self.tokenizer.encode(PROMPT).ids], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "num_logits_to_keep": np.array(1)}
        for value in self.session.get_inputs():
            if value.name.startswith("past"):
                feed[value.name] = np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
        # The cache is returned as well, because a program needs it for the next token.
        return self.session.run(None, feed)[0][0, -1].argmax().reshape(1)


class OpenVino:
    """OpenVINO in float32, like the others. `openvino bf16` is its default on processors that support bf16."""

    precision, cache = "f32", None

    def __init__(self, path):
        import openvino

        self.path, self.core = str(path), openvino.Core()

    def open(self):
        options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
        if self.precision:
            options["INFERENCE_PRECISION_HINT"] = self.precision
        if self.cache:
            options["CACHE_DIR"] = str(self.cache)
        # Given a file name and a cache, OpenVINO does not read the model if the cache contains it.
        self.compiled = self.core.compile_model(self.path, "CPU", options)
        self.names = [value.any_name for value in self.compiled.inputs]
        self.request = self.compiled.create_infer_request()

    def run(self, feed, output):
        self.request.infer({name: feed[name] for name in self.names}, share_inputs=True)
        return self.request.get_tensor(output).data.ravel().copy()


class OpenVinoCache(OpenVino):
    """OpenVINO with a model cache that already contains the model."""

    cache = FOLDER / "openvino-cache"


class OpenVinoDefault(OpenVino):
    """OpenVINO with its default precision: bf16 if the processor supports it."""

    precision = None


class Eager:
    """The model of transformers in torch (eager)."""

    def __init__(self, path):
        import torch
        import transformers  # noqa: F401

        torch.set_num_threads(1)
        self.path, self.torch = pathlib.Path(path), torch

    def open(self):
        self.model = bert(self.path)

    def run(self, feed, output):
        with self.torch.inference_mode():
            given = {name: self.torch.from_numpy(values) for name, values in feed.items()}
            return self.model(**given).last_hidden_state.numpy().ravel()


class Inductor:
    """The model of transformers compiled by torch.export and AOTInductor: code and weights in one .pt2 file."""

    def __init__(self, path):
        import torch
        import torch._inductor.package  # noqa: F401

        torch.set_num_threads(1)
        self.path, self.torch = str(path), torch

    def open(self):
        self.model = self.torch._inductor.aoti_load_package(self.path)

    def run(self, feed, output):
        names = ["input_ids", "attention_mask", "token_type_ids"]
        with self.torch.inference_mode():
            found = self.model(*[self.torch.from_numpy(feed[name]) for name in names])
            return (found[0] if isinstance(found, (tuple, list)) else found).numpy().ravel()


ENGINES = {c.__name__: c for c in
           [Optimize, OptimizeInt8, OptimizeInt4, OptimizeBf16, OptimizeText, OnnxRuntime, OnnxRuntimeC, OnnxRuntimeText, OpenVino, OpenVinoCache, OpenVinoDefault, Eager, Inductor]}


# --------------------------------------------------------------------------------------------- torch models

def bert(path):
    """Returns transformers' BERT with the weights of an ONNX file. A weight of a MatMul without a name of its own gets
    that of the bias that is added after it."""
    import onnx
    import torch
    from onnx import numpy_helper
    from transformers import BertConfig, BertModel

    graph = onnx.load(str(path)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    takers = {name: node for node in graph.node for name in node.input}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            bias = next(name for name in takers[node.output[0]].input if name.endswith(".bias"))
            arrays[bias.removesuffix("bias") + "weight"] = arrays[node.input[1]].T
    state = {name.removeprefix("model.0.auto_model."): torch.from_numpy(np.array(array, order="C"))
             for name, array in arrays.items()}
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layer."))
    model = BertModel(BertConfig(vocab_size=30522, hidden_size=384, num_hidden_layers=layers, num_attention_heads=12,
                                 intermediate_size=1536), add_pooling_layer=False)
    missing = model.load_state_dict({k: v for k, v in state.items() if k in model.state_dict()}, strict=False)
    if set(missing.missing_keys) - {"embeddings.position_ids", "embeddings.token_type_ids"}:
        raise SystemExit(f"{path}: lacks {missing.missing_keys}")
    return model.eval()


def inductor(source, target):
    """Writes the AOTInductor package of a model to `target`, with a dynamic batch size and for one thread. It runs in a
    separate process."""
    import torch

    torch.set_num_threads(1)
    model = bert(source)

    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids, mask, types):
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    example = tuple(torch.from_numpy(values) for values in tokens(2, 128).values())
    batch = torch.export.Dim("batch", min=1, max=64)
    with torch.inference_mode():
        program = torch.export.export(Hidden(), example, dynamic_shapes=({0: batch},) * 3)
        torch._inductor.aoti_compile_and_package(program, package_path=str(target))


# --------------------------------------------------------------------------------------------------- files

def package(source, name, *more):
    """Returns the path of the package of a model. It is made in each call, because it is what is measured. `more` are
    options of `optimize compile`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run([COMMAND, "compile", "--model", source, "--output", FOLDER / name, "--dynamic", "-q", *more], check=True)
    return str(FOLDER / name)


def kept(name, make):
    """Returns the path of the file `name` in FOLDER, which `make(path)` writes if it does not exist."""
    path = FOLDER / name
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        make(path)
    return str(path)


def inductor_file(source, name):
    def make(path):
        print(f"making {path.name}: a minute", file=sys.stderr)
        subprocess.run([sys.executable, __file__, "inductor", str(source), str(path)], check=True, stdout=sys.stderr)

    return kept(name, make)


def optimized(source, path):
    """Writes `source`, optimized by ONNX Runtime, to `path`, in the format of its suffix: `.ort` or `.onnx`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    if path.suffix == ".ort":
        options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def exported(path):
    """Writes the decoder to `path` as an ONNX file: the portable graph of `optimize compile --triton`."""
    made = FOLDER / "exported"
    subprocess.run([COMMAND, "compile", "--model", DECODER, "--output", FOLDER / "decoder.package", "-q", "--triton", made],
                   check=True)
    (made / "decoder/1/model.onnx").rename(path)


def ir(source, path):
    import openvino

    openvino.save_model(openvino.Core().read_model(str(source)), str(path), compress_to_fp16=False)


if __name__ == "__main__":
    inductor(*sys.argv[2:])
