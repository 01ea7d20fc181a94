#!/usr/bin/env python3
"""Times encoders on liboptimize's execution provider, ONNX Runtime and OpenVINO, interleaved in one process.

provider_peers.py --library target/release/liboptimize.so [--threads 1] [--rounds 7] [--cells 1x16,1x128,8x128]
                  NAME=MODEL.onnx[,int8=MODEL.onnx][,int4=MODEL.onnx] ...

For each model: ONNX Runtime in float32 and on the file quantized by its own tool (int8=), OpenVINO in float32, bf16 and
int8 of NNCF (64 random samples for calibration), the provider with precision fp32, bf16, int8 and on the file with
blocks of 4 bits (int4=). One thread is timed by process CPU time, more by wall time. "ratio" is the median over the
rounds of ONNX Runtime float32 / own; "cosine" that of the output rows to ONNX Runtime float32. Models without names of
tokens among their inputs get images: 224 x 224, as many as the cell has sequences. Needs openvino and nncf.
"""
import argparse, os, statistics, time
import numpy as np
import onnxruntime as ort

EP = "OptimizeExecutionProvider"


def feed(inputs, batch, length, rng):
    made = {}
    for value in inputs:
        if "mask" in value.name:
            made[value.name] = np.ones((batch, length), np.int64)
        elif "type" in value.name:
            made[value.name] = np.zeros((batch, length), np.int64)
        elif "ids" in value.name:
            made[value.name] = rng.integers(1000, 20000, (batch, length)).astype(np.int64)
        else:
            made[value.name] = rng.standard_normal((batch, 3, 224, 224)).astype(np.float32)
    return made


def onnxruntime(model, threads, devices=None, **settings):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if devices:
        options.add_provider_for_devices(devices, {"threads": str(threads), **settings})
        session = ort.InferenceSession(model, options)
        session.disable_fallback()
    else:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session, lambda inputs: session.run(None, inputs)[0]


def openvino(model, threads, precision, samples=None):
    import openvino as ov

    core = ov.Core()
    read = core.read_model(model)
    if samples:
        import logging, nncf

        logging.getLogger("nncf").setLevel(logging.ERROR)
        read = nncf.quantize(read, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1}
    request = core.compile_model(read, "CPU", settings).create_infer_request()

    def run(inputs):
        request.infer(inputs, share_inputs=True)
        return np.array(request.get_output_tensor(0).data, copy=False)

    return run


def cosine(a, b):
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (a, b))
    return float(np.mean((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1) + 1e-30)))


def sides_of(spec, given, devices):
    files = dict(part.split("=", 1) if "=" in part else ("fp32", part) for part in spec.split(","))
    model, threads, rng = files["fp32"], given.threads, np.random.default_rng(3)
    reference, run = onnxruntime(model, threads)
    sides = [("ONNX Runtime float32", run)]
    if "int8" in files:
        sides.append(("ONNX Runtime int8, its tool", onnxruntime(files["int8"], threads)[1]))
    inputs = reference.get_inputs()
    lengths = [16, 32, 64, 128]
    samples = [feed(inputs, 1, lengths[index % 4], rng) for index in range(64)]
    makers = [("OpenVINO float32", "f32", None), ("OpenVINO bf16", "bf16", None), ("OpenVINO NNCF int8", "f32", samples)]
    for label, precision, calibration in makers:
        try:
            sides.append((label, openvino(model, threads, precision, calibration)))
        except Exception as error:  # another tool's failure is a line in the table
            print(f"{label}: {str(error).splitlines()[0]}")
    for precision in ["fp32", "bf16", "int8"]:
        sides.append((f"provider {precision}", onnxruntime(model, threads, devices, precision=precision)[1]))
    if "int8" in files:
        sides.append(("provider on its int8 file", onnxruntime(files["int8"], threads, devices)[1]))
    if "int4" in files:
        sides.append(("ONNX Runtime 4 bits", onnxruntime(files["int4"], threads)[1]))
        sides.append(("provider 4 bits", onnxruntime(files["int4"], threads, devices)[1]))
    return inputs, sides


def measure(sides, inputs, given):
    clock = time.process_time if given.threads == 1 else time.perf_counter
    outputs = [np.array(run(inputs)) for _, run in sides]
    times = [[] for _ in sides]
    for turn in range(given.rounds):
        order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))
        for at in order:
            sides[at][1](inputs)
            start = clock()
            sides[at][1](inputs)
            times[at].append(clock() - start)
    for (label, _), output, spent in zip(sides, outputs, times):
        ratios = [base / own for base, own in zip(times[0], spent)]
        yield label, 1e3 * min(spent), statistics.median(ratios), cosine(output, outputs[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cells", default="1x16,1x128,8x128")
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    given = parser.parse_args()
    ort.register_execution_provider_library("optimize", os.path.abspath(given.library))
    devices = [device for device in ort.get_ep_devices() if device.ep_name == EP]
    print(f"onnxruntime {ort.__version__}, {given.threads} thread(s), {given.rounds} rounds")
    for pair in given.models:
        name, spec = pair.split("=", 1)
        inputs, sides = sides_of(spec, given, devices)
        for cell in given.cells.split(","):
            batch, length = map(int, cell.split("x"))
            if not any("ids" in value.name for value in inputs) and (batch, length) == (1, 128):
                continue
            print(f"\n| {name} {cell} | ms | ratio | cosine |\n|---|---|---|---|")
            for row in measure(sides, feed(inputs, batch, length, np.random.default_rng(1)), given):
                print("| {} | {:.2f} | {:.2f} | {:.5f} |".format(*row), flush=True)


main()
