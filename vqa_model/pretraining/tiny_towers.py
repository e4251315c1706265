"""Pretrains the two tiny towers: a ViT on generated pictures, a BERT on generated questions.

Each is pretrained on its own kind of data alone, as ViT and BERT are: the ViT names colour and shape of what stands in
each region of a picture; the BERT fills in masked words. They never meet before fine-tuning, and their pictures come
from another seed than the task's.
"""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from vqa_model.modeling.towers import preset_config
from vqa_model.picture_world.questions import candidates, wording
from vqa_model.picture_world.scenes import COLORS, GRID, SHAPES, Settings, draw, scene_pairs
from vqa_model.picture_world.tokenizer import SPECIAL, make_tokenizer
from vqa_model.quiet import quiet_imports

with quiet_imports():
    from transformers import BertForMaskedLM, PreTrainedTokenizerFast, ViTModel

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray
    from torch import Tensor

PRETRAINING_SEED = 77
_SELECTED_SHARE, _MASKED_SHARE = 0.2, 0.85  # the rest of the asked words stay, so that a state keeps its own word
# BERT's 0.02 suits 768 wide models; at 96 it leaves weights so small that fine-tuning's first steps erase them.
_TINY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1}


def labelled_pictures(num_pairs: int) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, 48, 48) as bytes and, per cell, colour and shape (n, 9, 2), 0 for nothing."""
    settings, rng = Settings(), random.Random(PRETRAINING_SEED)
    pictures: list[NDArray[np.uint8]] = []
    labels = np.zeros((2 * num_pairs, GRID * GRID, 2), dtype=np.int64)
    for pair in scene_pairs(settings, PRETRAINING_SEED, num_pairs):
        for scene in pair:
            for thing in scene:
                looks = (list(COLORS).index(thing.color) + 1, SHAPES.index(thing.shape) + 1)
                labels[len(pictures), thing.cell] = looks
            pictures.append(np.asarray(draw(scene, settings, rng)).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(labels)


def _optimizer(
    model: nn.Module, lr: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)


class _Progress:
    """Prints the mean loss every so many steps."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.start, self.losses = name, steps, time.perf_counter(), list[float]()

    def step(self, loss: Tensor) -> None:
        """Take note of one step's loss."""
        self.losses.append(loss.item())
        if len(self.losses) % 200 == 0 or len(self.losses) == self.steps:
            seconds = time.perf_counter() - self.start
            recent = sum(self.losses[-100:]) / len(self.losses[-100:])
            print(f"{self.name}: step {len(self.losses)}/{self.steps}, loss {recent:.3f}, {seconds:.0f} s", flush=True)


def pretrain_vision(steps: int, *, batch_size: int = 64, num_pairs: int = 6000) -> ViTModel:
    """Teach a ViT to name colour and shape in every region, from pictures alone."""
    torch.manual_seed(PRETRAINING_SEED)
    vit = ViTModel(preset_config("vision", "tiny", **_TINY), add_pooling_layer=False)
    width, patches_per_side = vit.config.hidden_size, vit.config.image_size // vit.config.patch_size
    heads = nn.ModuleList([nn.Linear(width, len(COLORS) + 1), nn.Linear(width, len(SHAPES) + 1)])
    optimizer, schedule = _optimizer(nn.ModuleList([vit, heads]), 1.2e-3, steps)
    pictures, labels = labelled_pictures(num_pairs)
    progress = _Progress("vision", steps)
    for _ in range(steps):
        rows = torch.randint(len(pictures), (batch_size,))
        tokens = vit(pixel_values=pictures[rows] / 127.5 - 1).last_hidden_state[:, 1:]
        regions = (
            tokens.view(batch_size, GRID, patches_per_side // GRID, GRID, patches_per_side // GRID, width)
            .mean((2, 4))
            .flatten(1, 2)
        )
        named = zip(heads, labels[rows].unbind(-1), strict=True)
        loss = torch.stack([cross_entropy(head(regions).flatten(0, 1), label.flatten()) for head, label in named]).sum()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.step(loss.detach())
    return vit


def pretrain_text(
    steps: int, *, batch_size: int = 64, length: int = 16
) -> tuple[BertForMaskedLM, PreTrainedTokenizerFast]:
    """Teach a BERT to fill in masked words of questions, from text alone."""
    torch.manual_seed(PRETRAINING_SEED)
    texts = sorted({wording(question) for question in candidates()})
    tokenizer = make_tokenizer(texts)
    tokenizer.enable_padding(length=length)
    ids = torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(texts)])
    tokenizer.no_padding()
    shape = {"num_hidden_layers": 2, "max_position_embeddings": 64, "vocab_size": tokenizer.get_vocab_size()}
    bert = BertForMaskedLM(preset_config("text", "tiny", **shape, **_TINY))
    optimizer, schedule = _optimizer(bert, 1e-3, steps)
    progress = _Progress("text", steps)
    for _ in range(steps):
        clean = ids[torch.randint(len(ids), (batch_size,))]
        selected = (torch.rand(clean.shape) < _SELECTED_SHARE) & (clean >= len(SPECIAL))
        masked = clean.masked_fill(selected & (torch.rand(clean.shape) < _MASKED_SHARE), SPECIAL.index("[MASK]"))
        labels = clean.masked_fill(~selected, -100)
        loss = bert(input_ids=masked, attention_mask=(clean > 0).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.step(loss.detach())
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return bert, PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)


def pretrain(options: argparse.Namespace) -> None:
    """Pretrain both towers and save them in Hugging Face format."""
    torch.set_flush_denormal(True)
    bert, tokenizer = pretrain_text(options.text_steps)
    bert.bert.save_pretrained(options.out / "text")
    tokenizer.save_pretrained(options.out / "text")
    vit = pretrain_vision(options.vision_steps)
    vit.save_pretrained(options.out / "vision")
    size = vit.config.image_size
    fields = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": size, "width": size}, "resample": 2}
    (options.out / "vision" / "preprocessor_config.json").write_text(json.dumps(fields, indent=2) + "\n")
    total = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"saved under {options.out}: {total / 1e6:.1f} MB")
