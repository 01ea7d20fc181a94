"""Compares Wanda and SparseGPT as in their papers (Sun et al. 2023, arXiv 2306.11695; Frantar & Alistarh 2023, arXiv
2301.00774), in torch, with `optimize prune`: the same model, the same windows of the same calibration text, every
linear layer, and the perplexity of both by `optimize evaluate` on two other texts. The goal is a difference below 3 %.

The default model is target/peers/smollm2-off, which no script here makes: a checkpoint in the format of Hugging Face.
The texts are target/peers/brown-news.txt and brown-romance.txt, which perplexity.py writes. Pruned models that exist
already in the scratch folder are not made again.

The reference processes layer by layer, like the authors: the inputs of all linear modules of a layer are taken from the
unchanged layer, after the pruned layers before it.

Usage: prune_reference.py --calibration TEXT [--model FOLDER] [--sparsity 0.3 0.5] [--method wanda sparsegpt]
                          [--windows 64] [--length 512] [--scratch target/peers/pruned] [--command optimize]
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import time

import torch

from common import COMMAND, RUNTIME, SCRATCH, save, table

BLOCK, DAMPING = 128, 0.01


def windows(ids, count, length):
    """Returns the windows that `optimize prune` uses: evenly spaced over the whole text."""
    count = min(count, len(ids) // length)
    between = (len(ids) - length) // max(count - 1, 1)
    starts = [min(i * between, len(ids) - length) for i in range(count)]
    return [torch.tensor(ids[s:s + length])[None] for s in starts]


def wanda(weight, inputs, sparsity):
    """Prunes with Wanda: for each output, the weights with the smallest |w| ||x|| become zero."""
    norms = inputs.double().pow(2).sum(0).sqrt().float()
    order = (weight.abs() * norms).argsort(dim=1, stable=True)
    gone = order[:, :round(sparsity * weight.shape[1])]
    return weight.scatter(1, gone, 0.0)


def sparsegpt(weight, inputs, sparsity):
    """Prunes with SparseGPT: selects weights block by block, and propagates each column's error to later columns."""
    weight = weight.clone()
    hessian = (2.0 / len(inputs)) * (inputs.T @ inputs)
    dead = hessian.diagonal() == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian.double()))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    columns = weight.shape[1]
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        block, factor = weight[:, start:end].clone(), upper[start:end, start:end]
        cost = (block / factor.diagonal()).pow(2)
        threshold = cost.flatten().kthvalue(max(round(sparsity * cost.numel()), 1)).values
        gone, errors = cost <= threshold, torch.zeros_like(block)
        for i in range(end - start):
            kept = torch.where(gone[:, i], torch.zeros(()), block[:, i])
            errors[:, i] = (block[:, i] - kept) / factor[i, i]
            block[:, i + 1:] -= errors[:, i:i + 1] * factor[i, i + 1:]
            block[:, i] = kept
        weight[:, start:end] = block
        weight[:, end:] -= errors @ upper[start:end, end:]
    return weight


METHODS = {"wanda": wanda, "sparsegpt": sparsegpt}


@torch.no_grad()
def prune(model, batches, method, sparsity):
    captured = []

    class Stop(Exception):
        pass

    def catch(_, args, kwargs):
        captured.append((args, kwargs))
        raise Stop

    hook = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    for batch in batches:
        try:
            model(batch, use_cache=False)
        except Stop:
            pass
    hook.remove()
    hidden = [args[0] if args else kwargs["hidden_states"] for args, kwargs in captured]
    extra = captured[0][1]  # Positions and mask are the same for all windows.

    def forward(layer, value):
        given = {k: v for k, v in extra.items() if k != "hidden_states"}
        out = layer(value, **given)
        return out[0] if isinstance(out, tuple) else out

    for layer in model.model.layers:
        linears = {name: m for name, m in layer.named_modules() if isinstance(m, torch.nn.Linear)}
        inputs = {name: [] for name in linears}
        hooks = [m.register_forward_hook(lambda _, x, __, name=name: inputs[name].append(x[0].flatten(0, -2)))
                 for name, m in linears.items()]
        for value in hidden:
            forward(layer, value)
        for hook in hooks:
            hook.remove()
        for name, m in linears.items():
            m.weight.copy_(METHODS[method](m.weight, torch.cat(inputs.pop(name)), sparsity))
        hidden = [forward(layer, value) for value in hidden]
    return model


def make_reference(source, batches, method, sparsity, target):
    """Writes a checkpoint pruned by `method` to `target`, and returns the seconds that it took."""
    from transformers import AutoModelForCausalLM

    start = time.time()
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    prune(model, batches, method, sparsity).save_pretrained(target, max_shard_size="20GB")
    for side in source.iterdir():
        if side.name.startswith("tokenizer"):
            shutil.copy(side, target)
    return time.time() - start


def run(command):
    environment = dict(os.environ, ORT_DYLIB_PATH=str(RUNTIME))
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, env=environment).stdout


def perplexity(command, original, result, text):
    out = run([command, "evaluate", "--model", original, "--against", result, "--data", text, "--max-tokens", 2050,
               "--stride", 512, "--json"])
    quality = json.loads(out)["quality"]
    return quality["original"]["perplexity"], quality["result"]["perplexity"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, default=SCRATCH / "smollm2-off")
    parser.add_argument("--command", default=COMMAND)
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.3, 0.5])
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--scratch", type=pathlib.Path, default=SCRATCH / "pruned", help="what is there already is taken")
    arguments = parser.parse_args()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    ids = tokenizer(arguments.calibration.read_text(encoding="utf-8"), add_special_tokens=False).input_ids
    batches = windows(ids, arguments.windows, arguments.length)
    texts = {name: SCRATCH / f"{name}.txt" for name in ["brown-news", "brown-romance"]}
    rows, result = [["method", "sparsity", "text", "reference", "optimize", "ratio", "seconds"]], {}
    for method in arguments.method:
        for sparsity in arguments.sparsity:
            theirs, ours = (arguments.scratch / f"{who}-{method}-{sparsity}" for who in ["reference", "optimize"])
            seconds = [0, 0]
            if not theirs.exists():
                seconds[0] = make_reference(arguments.model, batches, method, sparsity, theirs)
            if not ours.exists():
                start = time.time()
                run([arguments.command, "prune", "--model", arguments.model, "--output", ours, "--method", method,
                     "--sparsity", sparsity, "--calibration", arguments.calibration, "--calibration-windows",
                     arguments.windows, "--calibration-length", arguments.length, "-q"])
                seconds[1] = time.time() - start
            for name, text in texts.items():
                dense, reference = perplexity(arguments.command, arguments.model, theirs, text)
                _, own = perplexity(arguments.command, arguments.model, ours, text)
                rows.append([method, sparsity, name, f"{reference / dense - 1:+.2%}", f"{own / dense - 1:+.2%}",
                             f"{own / reference:.4f}", f"{seconds[0]:.0f} / {seconds[1]:.0f}"])
                result[f"{method} {sparsity} {name}"] = dict(dense=dense, reference=reference, optimize=own,
                                                              ratio=own / reference, seconds=seconds)
                print("  ".join(map(str, rows[-1])), flush=True)
    table(rows)
    save("prune_reference", result)


if __name__ == "__main__":
    main()
