"""Trains a small GPT-2 with its own byte-level BPE on the Brown corpus, in minutes on a CPU. It is a second decoder
with another vocabulary than SmolLM2, for ensembles (`--allow-different-vocabularies`). The genres news and romance are
left for evaluation.

Usage: small_gpt2.py [--minutes 8] [--threads 1] [--output target/peers/small-gpt2]
"""

import argparse
import pathlib
import time

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from common import DEPS, SCRATCH, brown_file

VOCABULARY = 4096
LENGTH = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=pathlib.Path, default=SCRATCH / "small-gpt2")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)

    files = sorted((DEPS / "corpus/brown").glob("c[a-z][0-9][0-9]"))
    texts = [" ".join(brown_file(f)) for f in files if f.name[1] not in "ap"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    ids = torch.tensor([token for text in texts for token in [0] + tokenizer.encode(text).ids])
    print(len(texts), "texts,", len(ids), "tokens")

    config = GPT2Config(vocab_size=tokenizer.get_vocab_size(), n_positions=512, n_embd=256, n_layer=4, n_head=4,
                        bos_token_id=0, eos_token_id=0, attn_pdrop=0.0, embd_pdrop=0.1, resid_pdrop=0.1)
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    begin, step, shown = time.time(), 0, 0.0
    while (share := (time.time() - begin) / (60 * options.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 50) * (1 - share)
        starts = torch.randint(len(ids) - LENGTH, (8,))
        batch = torch.stack([ids[s:s + LENGTH] for s in starts])
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if time.time() - shown > 30:
            shown = time.time()
            print(f"step {step}, loss {loss.item():.3f}", flush=True)

    options.output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.output)
    tokenizer.save(str(options.output / "tokenizer.json"))
    print(f"{options.output}: {step} steps, last loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
