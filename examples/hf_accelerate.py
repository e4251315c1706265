"""Train under plans in an Accelerate loop, in one process or several: same losses as our own loop.

    python examples/hf_accelerate.py --strategies "lora(lr=1e-2), adalora, full(lr=1e-3)"
    torchrun --nproc_per_node 2 examples/hf_accelerate.py

Each plan trains a tiny BERT for 60 updates in the usual loop and saves its state half-way; then the same batches train
it by `tuned.step`. It takes some seconds for each plan. One learns to make a plan ready for Accelerate,
`ready = plan.for_accelerate(accelerator, model)`, which lines the loop has, that `accelerator.save_state` writes what
was tuned and not the base, and how to save a folder for `strategies.load`.
"""

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from bert_text_classifier import build, collate, make_sentences
from torch import nn

from strategies import PlanError, Recipe, load, parse_plans
from strategies.integrations.accelerate import PreparedLoop

BATCH, STEPS = 16, 60


def padded(items: list[dict]) -> dict[str, torch.Tensor]:
    """Collate to one length, so that processes can put their batches together."""
    longest = {"ids": [0] * 6, "label": 0}
    return {key: tensor[:-1] for key, tensor in collate([*items, longest]).items()}


def by_accelerate(
    plan: Recipe, accelerator: Accelerator, model: nn.Module, folder: Path
) -> tuple[PreparedLoop, list, list]:
    ready = plan.for_accelerate(accelerator, model, total_steps=STEPS)
    generator = torch.Generator().manual_seed(0)
    sentences = make_sentences(["i think", "everyone says"])
    loader = ready.loader(sentences, batch_size=BATCH, collate=padded, generator=generator)
    losses, batches = [], []
    while len(losses) < STEPS:
        for batch in loader:
            with accelerator.accumulate(ready.model):
                loss = ready.model(**batch).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients and ready.max_norm:
                    accelerator.clip_grad_norm_(ready.model.parameters(), ready.max_norm)
                ready.optimizer.step()
                ready.scheduler.step()
                ready.optimizer.zero_grad()
            losses.append(accelerator.gather(loss.detach()).mean().item())
            batches.append({key: accelerator.gather(tensor) for key, tensor in batch.items()})
            if len(losses) == STEPS // 2:
                accelerator.save_state(str(folder / "state"))
            if len(losses) == STEPS:
                break
    return ready, losses, batches


def by_our_loop(plan: Recipe, model: nn.Module, batches: list[dict]) -> list[float]:
    tuned = plan.apply(model, device=batches[0]["labels"].device, total_steps=STEPS)
    return [tuned.step(lambda model, batch: model(**batch).loss, batch).item() for batch in batches]


def main(strategies: str, mixed_precision: str) -> None:
    base = build()
    rows = [f"{'plan':<24} first 9 losses, last 9  apart from ours  saved state  whole model  processes  same loaded"]
    for name, plan in [(named.text, named.plan) for named in parse_plans(strategies)]:
        accelerator = Accelerator(mixed_precision=mixed_precision, cpu=not torch.cuda.is_available())
        with tempfile.TemporaryDirectory() as own_folder:
            (shared,) = broadcast_object_list([own_folder])
            folder = Path(shared)
            try:
                ready, theirs, batches = by_accelerate(plan, accelerator, copy.deepcopy(base), folder)
            except PlanError as refusal:
                rows.append(f"{name:<24} refused: {refusal}")
                continue
            ready.save(folder / "own")
            accelerator.wait_for_everyone()
            size = (folder / "state" / "model.safetensors").stat().st_size
            loaded = load(folder / "own", copy.deepcopy(base), device=accelerator.device)
            accelerator.wait_for_everyone()
        state, other = ready.tuned.full_state(), loaded.full_state()
        same = all(torch.equal(state[key], other[key]) for key in state)
        own = by_our_loop(plan, copy.deepcopy(base), batches)
        apart = max(abs(one - two) for one, two in zip(theirs, own, strict=True))
        whole = sum(p.numel() * p.element_size() for p in base.parameters())
        sizes = f"{size:>11,}  {whole:>11,}  {accelerator.num_processes:>9}"
        losses = f"{sum(theirs[:9]) / 9:>14.4f}  {sum(theirs[-9:]) / 9:>6.4f}"
        rows.append(f"{name:<24} {losses}  {apart:>15.1e}  {sizes}  {same}")
    accelerator.print(*rows, sep="\n")
    accelerator.end_training()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default="lora(lr=1e-2), adalora, full(lr=1e-3)", help="plans to compare")
    parser.add_argument("--mixed-precision", default="no", help="no, bf16 or fp16, as the plans have it (amp)")
    main(**vars(parser.parse_args()))
