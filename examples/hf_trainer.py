"""Train under plans in Hugging Face's Trainer: same losses as our own loop, checkpoints without the base.

    python examples/hf_trainer.py --strategies "lora(lr=1e-2), lora(lr=1e-2)+checkpointing, full(lr=1e-3)"

Each plan trains a tiny BERT twice on the same batches, for 60 updates by Trainer and by `tuned.step`; then a fresh
model goes on from Trainer's checkpoint half-way. It takes some seconds for each plan. One learns to hand a plan to
Trainer, `Trainer(**plan.for_trainer(model, args), …)`, that its losses are those of our own loop, that its checkpoints
hold what was tuned and not the base, and how to save a folder for `strategies.load`.
"""

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from bert_text_classifier import build, collate, make_sentences
from torch import nn
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from strategies import Recipe, load, parse_plans

OPENINGS, BATCH, STEPS, TRAINING = ["i think", "everyone says"], 16, 60, 320


class Batches:
    """Collates, and keeps the items of each batch."""

    def __init__(self) -> None:
        self.items: list[list[dict]] = []

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        self.items.append(items)
        return collate(items)


def by_trainer(plan: Recipe, model: nn.Module, folder: str, batches: Batches, resume: str | None = None) -> Trainer:
    args = TrainingArguments(
        output_dir=folder, max_steps=STEPS, per_device_train_batch_size=BATCH, save_steps=STEPS // 2, logging_steps=1,
        report_to="none", disable_tqdm=True, remove_unused_columns=False, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    sentences = make_sentences(OPENINGS)[:TRAINING]
    trainer = Trainer(**plan.for_trainer(model, args, collate=batches), train_dataset=sentences)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def losses_of(trainer: Trainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def by_our_loop(plan: Recipe, model: nn.Module, trainer: Trainer, batches: Batches) -> list[float]:
    parts = trainer.args.gradient_accumulation_steps
    tuned = plan.apply(model, device=trainer.args.device, seed=trainer.args.seed, total_steps=STEPS)
    losses = []
    for start in range(0, STEPS * parts, parts):
        items = [item for batch in batches.items[start : start + parts] for item in batch]
        losses.append(tuned.step(lambda model, batch: model(**batch).loss, collate(items)).item())
    return losses


def main(strategies: str) -> None:
    disable_progress_bar()  # one for each checkpoint
    base = build()
    rows = [f"{'plan':<32} first 9 losses, last 9  apart from ours  checkpoint  whole model  same resumed, loaded"]
    for name, plan in [(named.text, named.plan) for named in parse_plans(strategies)]:
        with tempfile.TemporaryDirectory() as folder:
            batches, fresh = Batches(), copy.deepcopy(base)
            trainer = by_trainer(plan, fresh, folder, batches)
            theirs, own = losses_of(trainer), by_our_loop(plan, copy.deepcopy(base), trainer, batches)
            checkpoint = Path(folder) / f"checkpoint-{STEPS // 2}"
            size = (checkpoint / "model.safetensors").stat().st_size
            again = by_trainer(plan, copy.deepcopy(base), folder, Batches(), resume=str(checkpoint))
            callback = next(call for call in trainer.callback_handler.callbacks if hasattr(call, "tuned"))
            callback.save(Path(folder) / "own")
            loaded = load(Path(folder) / "own", copy.deepcopy(base), device=trainer.args.device)
        state, other = callback.tuned.full_state(), loaded.full_state()
        same = f"{losses_of(again)[-1] == theirs[-1]} {all(torch.equal(state[key], other[key]) for key in state)}"
        apart = max(abs(one - two) for one, two in zip(theirs, own, strict=True))
        whole = sum(p.numel() * p.element_size() for p in base.parameters())
        sizes = f"{size:>10,}  {whole:>11,}"
        losses = f"{sum(theirs[:9]) / 9:>14.4f}  {sum(theirs[-9:]) / 9:>6.4f}"
        rows.append(f"{name:<32} {losses}  {apart:>15.1e}  {sizes}  {same}")
    print(*rows, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--strategies", default="lora(lr=1e-2), lora(lr=1e-2)+checkpointing, full(lr=1e-3)", help="plans to compare"
    )
    main(**vars(parser.parse_args()))
