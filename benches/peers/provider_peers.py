#!/usr/bin/env python3
"""Times encoders on liboptimize's execution provider, ONNX Runtime and OpenVINO, interleaved in one process.

provider_peers.py --library target/release/liboptimize.so [--threads 1] [--rounds 7] [--cells 1x16,1x128,8x128]
                  NAME=MODEL.onnx[,int8=MODEL.onnx][,int4=MODEL.onnx] ...

Each model runs on ONNX Runtime in float32 and from the file that ONNX Runtime's tool quantized (int8=); on OpenVINO in
float32, bf16 and int8 by NNCF (64 random samples for calibration); and on the provider with precision fp32, bf16 and
int8, and from the file with blocks of 4 bits (int4=). One thread is timed by process CPU time, more by wall time.
"ratio" is the median over the rounds of the time of ONNX Runtime in float32 divided by the time of the row; "cosine" is
that between its output rows and those of ONNX Runtime in float32. Models without an input of token ids get images of
224 x 224, one for each sequence of the cell, and skip the cell 1x128. The script only prints tables; it needs openvino
and nncf.
"""
import numpy as np
from provider import arguments, cell_sizes, feed, measure, session


def onnxruntime(model, threads, devices=None, **settings):
    opened = session(model, threads, devices, **settings)
    return opened, lambda inputs: opened.run(None, inputs)[0]


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
        except Exception as error:  # A failure of another tool is written into the table.
            print(f"{label}: {str(error).splitlines()[0]}")
    for precision in ["fp32", "bf16", "int8"]:
        sides.append((f"provider {precision}", onnxruntime(model, threads, devices, precision=precision)[1]))
    if "int8" in files:
        sides.append(("provider on its int8 file", onnxruntime(files["int8"], threads, devices)[1]))
    if "int4" in files:
        sides.append(("ONNX Runtime 4 bits", onnxruntime(files["int4"], threads)[1]))
        sides.append(("provider 4 bits", onnxruntime(files["int4"], threads, devices)[1]))
    return inputs, sides


def main():
    given, devices = arguments(__doc__, rounds=7, models="NAME=MODEL")
    for pair in given.models:
        name, spec = pair.split("=", 1)
        inputs, sides = sides_of(spec, given, devices)
        tokens = any("ids" in value.name for value in inputs)
        for batch, length in cell_sizes(given):
            if not tokens and (batch, length) == (1, 128):
                continue
            print(f"\n| {name} {batch}x{length} | ms | ratio | cosine |\n|---|---|---|---|")
            made = feed(inputs, batch, length, np.random.default_rng(1))
            for (label, _), row in zip(sides, measure([run for _, run in sides], made, given)):
                print("| {} | {:.2f} | {:.2f} | {:.5f} |".format(label, *row), flush=True)


main()
