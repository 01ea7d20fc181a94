"""Checks whether the `sensitivity` in the report ranks nodes like separate measurements do.

The model is MiniLM-L3, in dynamic int8 and in weight-only 4 bits. The report is that of `--max-quality-loss` with a
limit that no result reaches. It is compared with measurements of two models per node: in one, only that node is
quantized (`--include`), in the other, only that node is not (`--exclude`). Stock ONNX Runtime runs them on sentences of
the Brown corpus that the command has not read; the loss is 1 - the mean cosine of token vectors. The result is
Spearman's rank correlation of the reported and the measured values.

Usage: sensitivity.py [--model DIR] [--sentences 64]
"""

import argparse
import json
import os
import re
import subprocess
import sys

import numpy as np
from tokenizers import Tokenizer

from common import COMMAND, MODELS, RUNTIME, SCRATCH, brown_sentences, ort_session, save, table

FORMS = {"dynamic": ["--type", "dynamic"], "4 bits": ["--type", "weight-only", "--bits", "4"]}


def quantize(source, target, more):
    command = [COMMAND, "quantize", "--model", source, "--output", target, "--json", *more]
    done = subprocess.run([str(c) for c in command], env=dict(os.environ, ORT_DYLIB_PATH=str(RUNTIME)),
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def vectors(path, texts):
    session = ort_session(path, 1)
    names = [i.name for i in session.get_inputs()]
    output = next(o.name for o in session.get_outputs() if "float" in o.type and len(o.shape) == 3)
    found = []
    for ids in texts:
        values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        found.append(session.run([output], {n: values[n] for n in names})[0][0])
    return np.concatenate(found)


def loss(path, texts, reference):
    found = vectors(path, texts)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    return float(1 - ((found * reference).sum(1) / norms).mean())


def spearman(a, b):
    rank = lambda v: np.argsort(np.argsort(v))
    return float(np.corrcoef(rank(a), rank(b))[0, 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(MODELS / "paraphrase-MiniLM-L3-v2"))
    parser.add_argument("--sentences", type=int, default=64)
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(f"{arguments.model}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = [np.array([tokenizer.encode(t).ids[:256]], np.int64) for t in brown_sentences(arguments.sentences, seed=3)]
    reference = vectors(f"{arguments.model}/model.onnx", texts)
    folder = SCRATCH / "sensitivity"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "one.onnx"
    rows, result = [["", "nodes", "against alone quantized", "against alone left"]], {}
    for form, flags in FORMS.items():
        report = quantize(arguments.model, target, [*flags, "--max-quality-loss", "1"])
        said = {n["name"]: n["sensitivity"] for n in report["nodes"] if n.get("sensitivity") is not None}
        quantize(arguments.model, target, flags)
        everything = loss(target, texts, reference)
        alone, left = [], []
        for name in said:
            glob = re.sub(r"([\[\]*?{}\\])", r"\\\1", name)
            quantize(arguments.model, target, [*flags, "--include", glob])
            alone.append(loss(target, texts, reference))
            quantize(arguments.model, target, [*flags, "--exclude", glob])
            left.append(everything - loss(target, texts, reference))
        said_list = list(said.values())
        found = dict(alone=spearman(said_list, alone), left=spearman(said_list, left))
        result[form] = dict(found, nodes=[dict(name=n, said=s, alone=a, left=l)
                                          for n, s, a, l in zip(said, said_list, alone, left)])
        rows.append([form, len(said), f"{found['alone']:.3f}", f"{found['left']:.3f}"])
    table(rows)
    save("sensitivity", result)


if __name__ == "__main__":
    sys.exit(main())
