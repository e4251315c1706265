"""ia3 — freeze the weights and train one multiplier per key, value and feed-forward channel.

What: the outputs of the key and value layers and the inputs of the feed-forward's second layer (role `down`) are
multiplied by trained vectors that start at one. On layers of other roles the outputs are scaled; a fused projection
such as GPT-2's `c_attn` is scaled whole, queries too.
Why it helps: hardly any trained values (three vectors per block), so optimizer state and file vanish.
What it costs: forward and backward pass are those of the full model plus one product per layer, and the multipliers
need a rate well above LoRA's (the paper trains with 3e-3). When not to use it: the task needs new features rather
than other weights for those there are.
Paper: Liu et al., Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning, 2022,
https://arxiv.org/abs/2205.05638
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.options import Names, Rate
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import AdaptedLayer, adapt
from strategies.structure.choice.choosing import known_roles
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

IA3_ROLES = ("key", "value", "down")


@final
@dataclass(frozen=True, kw_only=True)
class Ia3(Strategy):
    """Learned multipliers on the layers of `scope` with the given `roles` (default: key, value and down)."""

    name: ClassVar[str] = "ia3"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 1.5e-2
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and scale its layers; those with the role `down` at their input."""
        import peft

        config = peft.IA3Config(feedforward_modules=[])
        groups = context.layout.groups(model, self.scope).values()
        roles = {name: own for roots in groups for name, own in known_roles(model, roots).items()}
        adjust = partial(_scale_inputs_of_down, roles)
        adapt(self, model, context, config, default=IA3_ROLES, convolutions=True, adjust=adjust)


def _scale_inputs_of_down(roles: Mapping[str, Sequence[str]], config: Any, layers: list[AdaptedLayer]) -> None:
    """Tell PEFT which of the layers are a feed-forward's second."""
    down = [re.escape(target.path) for target in layers if "down" in roles[target.name]]
    config.feedforward_modules = "|".join(down) or "(?!)"  # `(?!)` matches nothing
