"""Converts the models that the `onnx` wheel contains for tests to opset 17, and quantizes them in four ways (FORMS).

The opsets of the originals have no integer operators, so nothing in them could be quantized. The converter is that of
the onnx package; models on which it or ONNX Runtime fails are skipped. Each result (with weights of any size quantized)
must pass onnx's checker, load in stock ONNX Runtime, and return outputs of the same types and shapes as the original.
Static quantization is calibrated on the test's inputs.

Usage: wheel_forms.py
"""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper, version_converter

from common import COMMAND, MODELS, RUNTIME, SCRATCH, ort_session, save, table

FORMS = {
    "dynamic": ["--type", "dynamic"],
    "8 bits": ["--type", "weight-only", "--bits", "8"],
    "4 bits": ["--type", "weight-only", "--bits", "4", "--block-size", "16"],
    "static": ["--type", "static"],
}
FOLDER = SCRATCH / "wheel_forms"


def tests():
    for group in ("pytorch-converted", "pytorch-operator", "simple"):
        yield from sorted(f for f in (MODELS.parent / "onnx-tests" / group).iterdir() if (f / "model.onnx").exists())


def lifted(folder):
    """Returns the path of the model at opset 17, the inputs of its test, and the outputs for them; `None` if the
    converter or ONNX Runtime fails."""
    try:
        model = version_converter.convert_version(onnx.load(folder / "model.onnx"), 17)
        model.ir_version = 8
        # Weights that are also inputs can have other values in each run, so they are not constants.
        weights = {t.name for t in model.graph.initializer}
        kept = [i for i in model.graph.input if i.name not in weights]
        names = [i.name for i in model.graph.input]
        values = {}
        for index, name in enumerate(names):
            file = folder / f"test_data_set_0/input_{index}.pb"
            if name not in weights and file.exists():
                values[name] = numpy_helper.to_array(onnx.load_tensor(str(file)))
        del model.graph.input[:]
        model.graph.input.extend(kept)
        path = FOLDER / "lifted.onnx"
        onnx.save(model, str(path))
        return path, values, ort_session(path, 1).run(None, values)
    except Exception:
        return None


def quantize(source, target, flags, values):
    from safetensors.numpy import save_file

    if flags[1] == "static":
        data = FOLDER / "data.safetensors"
        save_file({n: np.ascontiguousarray(v) for n, v in values.items() if v.ndim and v.dtype != object}, str(data))
        flags = [*flags, "--calibration", data]
    command = [COMMAND, "quantize", "--model", source, "--output", target, "--quiet", "--min-elements", "1", *flags]
    return subprocess.run([str(c) for c in command], env=dict(os.environ, ORT_DYLIB_PATH=str(RUNTIME)),
                          capture_output=True, text=True)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    counts, bad, total = {form: Counter() for form in FORMS}, [], 0
    for folder in tests():
        found = lifted(folder)
        if found is None:
            continue
        total += 1
        source, values, expected = found
        for form, flags in FORMS.items():
            target = FOLDER / "made.onnx"
            done = quantize(source, target, flags, values)
            if done.returncode != 0:
                plain = "no node could be quantized" in done.stderr or "calibration data" in done.stderr
                counts[form]["nothing to quantize" if plain else "failed"] += 1
                if not plain:
                    bad.append(f"{folder.name}, {form}: {done.stderr.strip()}")
                continue
            try:
                onnx.checker.check_model(str(target))
                outputs = ort_session(target, 1).run(None, values)
                same = all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(expected, outputs))
                counts[form]["quantized" if same else "failed"] += 1
                bad += [] if same else [f"{folder.name}, {form}: other types or shapes"]
            except Exception as e:
                counts[form]["failed"] += 1
                bad.append(f"{folder.name}, {form}: {e}")
    kinds = ["quantized", "nothing to quantize", "failed"]
    table([[f"{total} models", *kinds]] + [[form, *[count[k] for k in kinds]] for form, count in counts.items()])
    print("\n".join(bad))
    save("wheel_forms", {"models": total, "forms": counts, "failed": bad})


if __name__ == "__main__":
    sys.exit(main())
