"""Fine-tuning strategies that compose, for any `nn.Module`.

    tuned = compose("lora(r=8)+amp").apply(model, device="cuda")
    loss = tuned.step(loss_fn, batch)      # loss_fn(model, batch) -> mean loss; one call = one update

This package is a leaf: it imports torch, peft, bitsandbytes and torchao, each only when it is used, and nothing of the
suite around it. `import strategies` does not import torch.
"""

from __future__ import annotations

from strategies.errors import PlanError, SelfCheckError, is_out_of_memory
from strategies.execution.feed import volume
from strategies.integrations.peft_export import save_peft
from strategies.language.catalogue import catalogue
from strategies.language.checks import Problem
from strategies.language.plan import Plan
from strategies.language.recipes import recipes
from strategies.protocol import Context, State, Strategy
from strategies.recipe import NamedPlan, Recipe, baseline, compose, load, load_plain, parse_plans
from strategies.training.checkpoints import load_checkpoint, not_resumable, restore_random, save_checkpoint
from strategies.training.tuned import Tuned

__all__ = [
    "Context",
    "NamedPlan",
    "Plan",
    "PlanError",
    "Problem",
    "Recipe",
    "SelfCheckError",
    "State",
    "Strategy",
    "Tuned",
    "baseline",
    "catalogue",
    "compose",
    "is_out_of_memory",
    "load",
    "load_checkpoint",
    "load_plain",
    "not_resumable",
    "parse_plans",
    "recipes",
    "restore_random",
    "save_checkpoint",
    "save_peft",
    "volume",
]
