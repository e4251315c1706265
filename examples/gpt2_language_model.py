"""Tune a GPT-2 language model, letter by letter: perplexity before and after, and a continued prompt.

    python examples/gpt2_language_model.py --strategies "full(lr=3e-3), lora(lr=2e-2), freeze(last_n=1, lr=3e-3)"

The base has learnt to count up and is tuned to count down. One learns that `lora` finds GPT-2's transposed `Conv1D`
layers by their role (`c_attn` is query, key and value in one), that `merge` leaves them as they were made, and that a
language model has no new head: `lm_head` shares its weight with the embedding, so it belongs to the body and is
frozen when the body is. Adapters or the last block learn everything; plain `freeze` is refused, as nothing would train.
"""

import argparse
import copy
import math
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from strategies import PlanError, Tuned, compose, load, parse_plans

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve "
LETTERS = sorted(set(NUMBERS))
LENGTH, BATCH, STEPS = 48, 16, 120


def encode(text: str) -> torch.Tensor:
    return torch.tensor([LETTERS.index(letter) for letter in text])


def make_texts(direction: int, count: int, seed: int) -> list[torch.Tensor]:
    """Pieces of a count that goes round, upwards (1) or downwards (-1)."""
    text = " ".join(NUMBERS.split()[::direction] * 4)
    starts = torch.randint(len(text) - LENGTH, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [encode(text[start : start + LENGTH]) for start in starts]


def build() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": len(LETTERS)}
    still = {"bos_token_id": None, "eos_token_id": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **still, initializer_range=0.1))


def loss_fn(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(input_ids=ids[:, :-1]).logits.flatten(0, 1).float(), ids[:, 1:].flatten())


def train(tuned: Tuned, texts: list[torch.Tensor]) -> None:
    for batch in tuned.loader(texts, batch_size=BATCH, collate=torch.stack, generator=torch.Generator().manual_seed(0)):
        tuned.step(loss_fn, batch)


def perplexity(tuned: Tuned, texts: list[torch.Tensor]) -> float:
    with tuned.evaluating():
        return math.exp(loss_fn(tuned.model, torch.stack(texts).to(tuned.device)))


def continued(tuned: Tuned, prompt: str) -> str:
    ids = encode(prompt).unsqueeze(0).to(tuned.device)
    with tuned.evaluating():
        for _ in range(20):
            ids = torch.cat([ids, tuned.model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return "".join(LETTERS[index] for index in ids[0].tolist())


def main(strategies: str) -> None:
    base, device = build(), "cuda" if torch.cuda.is_available() else "cpu"
    train(compose("full(lr=3e-3)").apply(base, total_steps=STEPS), make_texts(1, STEPS * BATCH, seed=0))
    training, held_out = make_texts(-1, STEPS * BATCH, seed=1), make_texts(-1, 64, seed=2)
    rows = [f"{'plan':<28} {'before':>7} {'after':>6} {'trainable':>10} {'seconds':>8}  same after loading  continued"]
    for name, plan in [(named.text, named.plan) for named in parse_plans(strategies)]:
        try:
            tuned = plan.apply(copy.deepcopy(base), device=device, total_steps=STEPS)
            print(tuned.describe())
            before, start = perplexity(tuned, held_out), time.perf_counter()
            train(tuned, training)
            seconds, after = time.perf_counter() - start, perplexity(tuned, held_out)
            figures = f"{before:>7.2f} {after:>6.2f} {tuned.counts()['trainable_parameters']:>10,} {seconds:>8.1f}"
            with tempfile.TemporaryDirectory() as folder:
                tuned.save(Path(folder))
                same = math.isclose(perplexity(load(Path(folder), copy.deepcopy(base), device=device), held_out), after)
            rows.append(f"{name:<28} {figures}  {same!s:<18}  {continued(tuned, 'nine eight ')}")
            print(f"  merge      {tuned.merge()}")
        except PlanError as refusal:
            rows.append(f"{name:<28} refused: {refusal}")
    print(*rows, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "full(lr=3e-3), lora(lr=2e-2), freeze(last_n=1, lr=3e-3)"
    parser.add_argument("--strategies", default=default, help="plans to compare, separated by commas")
    main(**vars(parser.parse_args()))
