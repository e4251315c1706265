"""lora — freeze the weights and train low-rank additions to some linear layers.

What: y = Wx + (alpha/r)·B·A·x with W frozen, A random and B zero, so training starts at the pretrained model.
Why it helps: gradients and optimizer state only for 0.1–2 % of the weights; a file of a few MB per task.
What it costs: activations are kept as in full fine-tuning, and each adapted layer runs two small extra products:
small models do not get faster. Dropout on every adapted layer keeps one more activation each. When not to use
it: the towers need to change a lot, or memory is dominated by activations (use checkpointing).
Paper: Hu et al., 2021, https://arxiv.org/abs/2106.09685

The layers are PEFT's. They are injected into each scope's own sub-module: over a whole model PEFT would freeze
the head too. A quantised base must be in place before, so that PEFT picks its own 4-bit and 8-bit LoRA layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.freeze import freeze_parameters, rest_batch_norms
from strategies.layout import inside
from strategies.protocol import FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.roles import NAMES, targets

if TYPE_CHECKING:
    from torch import nn


def add_lora(model: nn.Module, root: str, layers: list[str], *, r: int, alpha: int, dropout: float) -> None:
    """Inject PEFT's LoRA into the named `layers`, all at or below the sub-module `root` of `model` ("" = itself)."""
    import bitsandbytes as bnb
    import peft
    from torch import nn

    assert all(inside(name, (root,)) for name in layers)
    # A holder lets a root that is itself a linear layer be replaced, and hides HF configs PEFT would rename by.
    holder = nn.ModuleDict({"root": model.get_submodule(root)})
    paths = [f"root.{name[len(root) :].lstrip('.')}".rstrip(".") for name in layers]
    bases = [holder.get_submodule(path) for path in paths]
    holder.is_loaded_in_4bit = any(isinstance(base, bnb.nn.Linear4bit) for base in bases)  # type: ignore[assignment]
    holder.is_loaded_in_8bit = any(isinstance(base, bnb.nn.Linear8bitLt) for base in bases)  # type: ignore[assignment]
    config = peft.LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="|".join(re.escape(path) for path in paths),
        fan_in_fan_out=all(type(base).__name__ == "Conv1D" for base in bases),
    )
    peft.inject_adapter_in_model(config, holder)
    if holder["root"] is not model.get_submodule(root):
        model.set_submodule(root, holder["root"])


@final
@dataclass(frozen=True, kw_only=True)
class Lora(Strategy):
    """Low-rank adapters on the layers of `scope` with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "lora"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ("peft", "bitsandbytes")

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    roles: tuple[str, ...] | None = None
    target_modules: tuple[str, ...] | None = None
    scope: str | None = None
    lr: float = 1e-3
    head_lr: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.r > 0 and self.alpha > 0, "r and alpha must be positive")
        self.require(0 <= self.dropout < 1, f"dropout={self.dropout} must lie in [0, 1)")
        self.require(self.lr > 0 and self.head_lr > 0, "learning rates must be positive")
        unknown = set(self.roles or ()) - set(NAMES)
        self.require(not unknown, f"roles={sorted(unknown)} unknown; there are: {', '.join(NAMES)}")
        self.require(self.roles is None or self.target_modules is None, "give roles or target_modules, not both")
        self.require(self.roles != () and self.target_modules != (), "an empty list of layers adapts nothing")

    def where(self) -> str | None:
        """Act on `scope`."""
        return self.scope

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters tower by tower, from the plan's seed."""
        import torch

        layout = context.layout
        owned = layout.owned(model, self.scope)
        outside = {name: p.requires_grad for name, p in model.named_parameters() if name not in owned}
        groups = layout.groups(model, self.scope)
        chosen = {
            label: targets(model, label, roots, self.roles, self.target_modules) for label, roots in groups.items()
        }
        freeze_parameters(model, owned)
        rest_batch_norms(map(model.get_submodule, layout.modules(model, self.scope)))
        torch.manual_seed(context.seed)
        for label, roots in groups.items():
            for root in roots:
                layers = [name for name in chosen[label] if inside(name, (root,))]
                if layers:
                    add_lora(model, root, layers, r=self.r, alpha=self.alpha, dropout=self.dropout)
        assert all(model.get_parameter(name).requires_grad == was for name, was in outside.items())
