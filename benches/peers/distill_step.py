"""Measures the processor time of a training step: `optimize distill` against PyTorch, on one thread, in turn.

    python benches/peers/distill_step.py [--rounds 3] [--only GPT-2] [--optimize target/release/optimize]

A step consists of a run of the teacher, the forward and backward pass of the student, gradient clipping, and AdamW.
The time of `optimize distill` is the difference between runs of MANY (15) and of FEW (3) steps, divided by 12, so that
loading and the measurements before and after cancel out. The time of PyTorch (with fused AdamW) is the mean of 12 steps
after 3 untimed ones, in float32 and separately with bfloat16 autocast. All figures are medians over the rounds; ratios
are `optimize distill` divided by PyTorch. Peak memory is that of the whole process, for PyTorch that in float32. The
script only prints a table; it needs torch and transformers.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FEW, MANY = 3, 15
CASES = {
    "MiniLM 6 -> 3, 4 x 128": dict(model="minilm", batch=4, length=128),
    "MiniLM 6 -> 3, 16 x 64": dict(model="minilm", batch=16, length=64),
    "GPT-2 6 -> 3, 4 x 128": dict(model="gpt2", batch=4, length=128),
}


def models(kind, folder):
    """Returns the folders of teacher and student checkpoints, which are made if they do not exist. The teacher has 6
    layers and the student 3; GPT-2 has random weights."""
    import torch
    import transformers as tf
    teacher, student = folder / f"{kind}-teacher", folder / f"{kind}-student"
    if teacher.exists():
        return teacher, student
    minilm = ROOT / "target/deps/models/all-MiniLM-L6-v2"
    torch.manual_seed(0)
    if kind == "minilm":
        big = tf.AutoModel.from_pretrained(minilm, dtype=torch.float32)
        small = tf.AutoModel.from_pretrained(minilm, num_hidden_layers=3, dtype=torch.float32)
    else:
        shape = dict(n_embd=384, n_head=12, n_positions=512, vocab_size=30522, bos_token_id=101, eos_token_id=102)
        big = tf.GPT2LMHeadModel(tf.GPT2Config(n_layer=6, **shape))
        small = tf.GPT2LMHeadModel(tf.GPT2Config(n_layer=3, **shape))
    for model, path in ((big, teacher), (small, student)):
        model.save_pretrained(path)
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
            if (minilm / name).exists():
                (path / name).write_bytes((minilm / name).read_bytes())
    return teacher, student


def usage(command):
    """Runs a command, and returns its processor seconds, its peak memory in bytes and its output."""
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, stdout=out, env=environment)
        _, status, used = os.wait4(child.pid, 0)
        if status != 0:
            sys.exit(f"{command[0]} failed")
        out.seek(0)
        return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, out.read()


def ours(optimize, case, teacher, student, text, folder):
    times = []
    for steps in (FEW, MANY):
        command = [optimize, "distill", "--teacher", teacher, "--student", student, "--data", text, "--output", folder / "out.onnx",
                   "--max-steps", steps, "--batch-size", case["batch"], "--sequence-length", case["length"], "--threads", 1,
                   "--evaluate-every", 1000, "--validation-ratio", 0.02, "--quiet"]
        if case["model"] == "gpt2":
            command += ["--labels-weight", 0.5]
        seconds, peak, _ = usage([str(part) for part in command])
        times.append(seconds)
    return (times[1] - times[0]) / (MANY - FEW), peak


def torch_step(case, teacher, student, half):
    import torch
    import torch.nn.functional as F
    import transformers as tf
    torch.set_num_threads(1)
    of = tf.AutoModel if case["model"] == "minilm" else tf.AutoModelForCausalLM
    big, small = of.from_pretrained(teacher).eval(), of.from_pretrained(student).train()
    for module in small.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.AdamW(small.parameters(), lr=5e-5, fused=True)
    generator = torch.Generator().manual_seed(0)

    def step():
        ids = torch.randint(1000, 30000, (case["batch"], case["length"]), generator=generator)
        keep = torch.ones_like(ids)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            with torch.no_grad():
                t = big(input_ids=ids, attention_mask=keep, output_hidden_states=case["model"] == "minilm")
            s = small(input_ids=ids, attention_mask=keep, output_hidden_states=case["model"] == "minilm")
        if case["model"] == "minilm":
            pairs = [(2, 1), (4, 2), (6, 3)]
            loss = 0
            for a, b in pairs:
                x, y = s.hidden_states[b].float(), t.hidden_states[a].float()
                loss = loss + ((x - y) ** 2).mean() / 3 + (1 - F.cosine_similarity(x, y, dim=-1)).mean() / 3
        else:
            z, q = s.logits.float(), t.logits.float()
            loss = F.kl_div(F.log_softmax(z / 2, -1).flatten(0, 1), F.log_softmax(q / 2, -1).flatten(0, 1), log_target=True,
                            reduction="batchmean") * 4
            loss = loss + 0.5 * F.cross_entropy(z[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(small.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(FEW):
        step()
    start = time.process_time()
    for _ in range(MANY - FEW):
        step()
    seconds = (time.process_time() - start) / (MANY - FEW)
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))


def corpus(folder):
    """Returns a text file with lines of 150 words, which are longer than the sequences of all CASES."""
    words = []
    for file in sorted((ROOT / "target/deps/corpus/brown").glob("ca*")):
        words += [pair.rsplit("/", 1)[0] for pair in file.read_text(errors="replace").split()]
    lines = [" ".join(words[at:at + 150]) for at in range(0, len(words) - 150, 150)]
    path = folder / "text.txt"
    path.write_text("\n".join(lines))
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose names have this in them")
    parser.add_argument("--optimize", default=str(ROOT / "target/release/optimize"))
    parser.add_argument("--torch", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.torch:
        name, teacher, student, half = given.torch
        return torch_step(CASES[name], teacher, student, half == "half")
    print(f"{'processor ms a step':<26}{'ours':>8}{'torch':>8}{'bf16':>8}{'ratio':>8}{'to bf16':>9}{'MB':>7}{'torch':>7}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text = corpus(folder)
        for name, case in CASES.items():
            if given.only not in name:
                continue
            teacher, student = models(case["model"], folder)
            rounds = []
            for _ in range(given.rounds):
                own = ours(given.optimize, case, teacher, student, text, folder)
                peers = []
                for half in ("float", "half"):
                    command = [sys.executable, __file__, "--torch", name, str(teacher), str(student), half]
                    peers.append(json.loads(usage(command)[2]))
                rounds.append((own[0], peers[0][0], peers[1][0], own[1], peers[0][1]))
            own, single, half, peak, peak_torch = (statistics.median(column) for column in zip(*rounds))
            print(f"{name:<26}{own * 1e3:8.0f}{single * 1e3:8.0f}{half * 1e3:8.0f}{own / single:8.2f}{own / half:9.2f}"
                  f"{peak / 1e6:7.0f}{peak_torch / 1e6:7.0f}{peak / peak_torch:7.2f}", flush=True)


if __name__ == "__main__":
    main()
