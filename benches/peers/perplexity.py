"""Compares the perplexity by transformers (float32) with that by `optimize evaluate`, on the same windows of two texts.

The model is SmolLM2-135M. The reference uses no code of this library: its weights are those of the GGUF file,
dequantized by the gguf package. The goal is a difference below 0.5 %. The texts are written to target/peers, where
other scripts read them.

Usage: perplexity.py [--max-tokens 2000] [--context-length 512] [--stride 256] [--model FILE.gguf] [--command optimize]
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import torch

import smollm2
from common import COMMAND, DEPS, RUNTIME, SCRATCH, brown_file, save, table

# News articles, and a novel.
TEXTS = {"brown-news": ["ca01", "ca02", "ca03", "ca04", "ca05"], "brown-romance": ["cp01", "cp02", "cp03", "cp04"]}


def write_texts():
    SCRATCH.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, files in TEXTS.items():
        sentences = [s for file in files for s in brown_file(DEPS / "corpus/brown" / file)]
        paths[name] = SCRATCH / f"{name}.txt"
        paths[name].write_text("\n".join(sentences) + "\n", encoding="utf-8")
    return paths


def windows(count, length, stride):
    """Yields the sliding windows of the perplexity guide of transformers: (begin, end, number of scored tokens)."""
    done = 0
    for begin in range(0, count, stride):
        end = min(begin + length, count)
        yield begin, end, min(end - done, end - begin - 1)
        done = end
        if end == count:
            return


def reference(model, tokenizer, text, arguments):
    """Returns the mean negative log-likelihood per token in nats, the number of scored tokens, and the seconds."""
    ids = tokenizer(text, return_tensors="pt").input_ids[:, :arguments.max_tokens]
    total, count, start = 0.0, 0, time.time()
    for begin, end, scored in windows(ids.shape[1], arguments.context_length, arguments.stride):
        part = ids[:, begin:end]
        with torch.no_grad():
            logits = model(part).logits[0].double()
        logs = torch.log_softmax(logits[-scored - 1:-1], dim=-1)
        total -= logs.gather(1, part[0, -scored:, None]).sum().item()
        count += scored
    return total / count, count, time.time() - start


def ours(path, arguments):
    command = [arguments.command, "evaluate", "--model", arguments.model, "--data", path, "--task", "perplexity",
               "--context-length", arguments.context_length, "--stride", arguments.stride, "--max-tokens",
               arguments.max_tokens, "--bos", "first-window", "--json"]
    environment = dict(os.environ, ORT_DYLIB_PATH=str(RUNTIME))
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, env=environment)
    return json.loads(done.stdout)["quality"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=smollm2.GGUF)
    parser.add_argument("--command", default=COMMAND)
    parser.add_argument("--max-tokens", type=int, default=2000)
    parser.add_argument("--context-length", type=int, default=512)
    parser.add_argument("--stride", type=int, default=256)
    arguments = parser.parse_args()
    tokenizer, model = smollm2.tokenizer(arguments.model), smollm2.load(arguments.model)
    rows, result = [["text", "tokens", "transformers", "optimize", "difference", "seconds"]], {}
    for name, path in write_texts().items():
        nll, count, seconds = reference(model, tokenizer, path.read_text(encoding="utf-8"), arguments)
        found = ours(path, arguments)
        if found["tokens"] != count:
            sys.exit(f"{name}: transformers scored {count} tokens, optimize {found['tokens']}")
        difference = found["perplexity"] / math.exp(nll) - 1
        rows.append([name, count, f"{math.exp(nll):.4f}", f"{found['perplexity']:.4f}", f"{difference:+.4%}",
                     f"{seconds:.1f} / {found['seconds']:.1f}"])
        result[name] = dict(transformers=dict(nll=nll, perplexity=math.exp(nll), seconds=seconds), optimize=found,
                            difference=difference)
    table(rows)
    save("perplexity", result)


if __name__ == "__main__":
    main()
