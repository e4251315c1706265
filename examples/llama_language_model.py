"""Tune a language model of today as one does: weights in bf16, padded batches, LoRA on every linear layer.

    python examples/llama_language_model.py --strategies "lora(target_modules=['all-linear'])"

A small Llama has learnt to count up and is tuned to count down. Its weights are bf16 and frozen, its adapters are fp32,
blocks are checkpointed, and texts of different lengths are padded on the left, their padding left out of the loss. The
adapters are saved, put back in a new process onto the base it loads itself, merged, and asked to go on with a prompt.
One learns what the numbers should be: the same outputs after loading, and a drift of bf16's rounding after merging.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from strategies import PlanError, compose, load, parse_plans

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve "
LETTERS = ["<pad>", *sorted(set(NUMBERS))]
BATCH, BASE_STEPS, STEPS, IGNORED = 16, 200, 120, -100
PROMPT = "nine eight "


def make_batch(direction: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Pieces of a count that goes round, upwards (1) or downwards (-1), of 24 to 48 letters, padded on the left."""
    text = " ".join(NUMBERS.split()[::direction] * 4)
    lengths = torch.randint(24, 49, (BATCH,), generator=generator).tolist()
    starts = torch.randint(len(text) - 48, (BATCH,), generator=generator).tolist()
    pieces = [text[start : start + length].rjust(48, "_") for start, length in zip(starts, lengths, strict=True)]
    ids = torch.tensor([[0 if letter == "_" else LETTERS.index(letter) for letter in piece] for piece in pieces])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": ids.where(ids > 0, IGNORED)}


def loss_fn(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch).loss


def make_base(folder: Path) -> None:
    """Train a small Llama to count up, and save it in bf16."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"vocab_size": len(LETTERS), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    tuned = compose("full(lr=3e-3)").apply(LlamaForCausalLM(LlamaConfig(**sizes, **ids)), total_steps=BASE_STEPS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(BASE_STEPS):
        tuned.step(loss_fn, make_batch(1, generator))
    tuned.model.to(torch.bfloat16).save_pretrained(folder)


def outputs(model: nn.Module) -> torch.Tensor:
    """Logits of a padded batch, where there are letters."""
    batch = make_batch(-1, torch.Generator().manual_seed(9))
    device = next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    with torch.no_grad():
        return model(**batch).logits[batch["attention_mask"] > 0].float().cpu()


def continued(model: nn.Module) -> str:
    ids = torch.tensor([[LETTERS.index(letter) for letter in PROMPT]], device=next(model.parameters()).device)
    found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
    return "".join(LETTERS[index] for index in found[0].tolist())


def train(plan: str, base: Path, out: Path, device: str) -> None:
    """Tune the base, save what was trained, and its outputs to compare with."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    tuned = compose(f"{plan}+checkpointing").apply(model, device=device, total_steps=STEPS)
    print(tuned.describe())
    generator = torch.Generator().manual_seed(1)
    losses = [tuned.step(loss_fn, make_batch(-1, generator)) for _ in range(STEPS)]
    print(f"  loss       {losses[0]:.3f} → {losses[-1]:.3f}")
    tuned.save(out)
    with tuned.evaluating():
        torch.save(outputs(tuned.model), out / "outputs.pt")


def answer(base: Path, out: Path, device: str) -> None:
    """What a new process does with it: the base, the adapters, the same outputs; merged, it generates."""
    tuned = load(out, AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), device=device)
    with tuned.evaluating():
        same = torch.equal(outputs(tuned.model), torch.load(out / "outputs.pt"))
    print(f"  loaded     same outputs: {same}")
    print(f"  merge      {tuned.merge(outputs)}")
    print(f"  continued  {continued(tuned.model)}")


def main(strategies: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base")
        make_base(base)
        for number, named in enumerate(parse_plans(strategies)):
            out = Path(folder, str(number))
            try:
                train(named.text, base, out, device)
            except PlanError as refusal:
                print(f"{named.text}: refused: {refusal}")
                continue
            code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from llama_language_model import *"
            call = f"answer(Path({str(base)!r}), Path({str(out)!r}), {device!r})"
            subprocess.run([sys.executable, "-c", f"{code}; {call}"], check=True, env=dict(os.environ))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "lora(target_modules=['all-linear'], lr=1e-2)"
    parser.add_argument("--strategies", default=default, help="plans to compare, separated by commas")
    main(**vars(parser.parse_args()))
