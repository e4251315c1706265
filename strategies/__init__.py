"""Fine-tuning strategies that compose, for any `nn.Module`.

    tuned = compose("lora(r=8)+amp").apply(model, device="cuda")
    loss = tuned.step(loss_fn, batch)      # loss_fn(model, batch) -> mean loss; one call = one update

This package is a leaf: it imports torch, peft, bitsandbytes and torchao, each only when it is used, and nothing of the
suite around it. `import strategies` does not import torch.
"""

from __future__ import annotations

# Write a recipe.
from strategies.language.catalogue import catalogue
from strategies.language.checks import Problem
from strategies.language.plan import Plan
from strategies.language.recipes import recipes
from strategies.recipe import NamedPlan, baseline, compose, parse_plans

__all__ = ["NamedPlan", "Plan", "Problem", "baseline", "catalogue", "compose", "parse_plans", "recipes"]

# Apply it.
from strategies.recipe import Recipe

__all__ += ["Recipe"]

# Train with it.
from strategies.execution.feed import volume
from strategies.training.tuned import Tuned

__all__ += ["Tuned", "volume"]

# Save and load.
from strategies.integrations.peft_export import save_peft
from strategies.recipe import load, load_plain

__all__ += ["load", "load_plain", "save_peft"]

# Checkpoint.
from strategies.execution.random_state import restore_random
from strategies.training.checkpoints import load_checkpoint, not_resumable, save_checkpoint

__all__ += ["load_checkpoint", "not_resumable", "restore_random", "save_checkpoint"]

# Write a strategy of one's own.
from strategies.protocol import Context, State, Strategy

__all__ += ["Context", "State", "Strategy"]

# Errors.
from strategies.errors import PlanError, SelfCheckError, is_out_of_memory

__all__ += ["PlanError", "SelfCheckError", "is_out_of_memory"]
