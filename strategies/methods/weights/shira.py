"""shira — train a small random share of each weight matrix directly.

What: of each layer's weights r·(in + out), as many as LoRA would add, change by trained values that start at zero;
which ones is drawn from the plan's seed. The rest is frozen.
Why it helps: the change is sparse but of high rank, and several such adapters hardly collide when added to one model.
What it costs: the change is scattered into a full matrix per layer and step, so steps and activations are those of
full fine-tuning; only gradients and optimizer state shrink; compile breaks its graph at each adapted layer. r=8 here:
PEFT's 32 is for larger layers and does not fit ones below 64 × 64. When not to use it: on small batches of wide
layers, where building the matrix dominates.
Paper: Bhardwaj et al., Sparse High Rank Adapters, 2024, https://arxiv.org/abs/2406.13175
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.options import Count, Names, Rate
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import AdaptedLayer, adapt, on_meta
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Shira(Strategy):
    """Trained values at random places of the layers with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "shira"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    r: Count = 8
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 1e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject sparse changes; a rank that needs more places than there are is refused."""
        import peft
        import torch

        torch.sparse.check_sparse_tensor_invariants.disable()  # torch's default, said aloud: else it warns
        config = peft.ShiraConfig(r=self.r, random_seed=context.seed)
        if on_meta(model):
            config.mask_fn = None  # a mask's places are values; the shapes do not depend on them
        adapt(self, model, context, config, adjust=self._check_sizes)

    def simulate_move(self, model: nn.Module, context: Context) -> None:
        """Give the layers places without values."""
        import torch
        from peft.tuners.shira.layer import ShiraLayer

        for module in model.modules():
            if isinstance(module, ShiraLayer):
                for name, weight in module.shira_weight.items():
                    indices = torch.empty((2, len(weight)), dtype=torch.int, device=context.device)
                    module.shira_indices.setdefault(name, indices)

    def _check_sizes(self, config: Any, layers: list[AdaptedLayer]) -> None:
        """Refuse layers with fewer weights than r·(in + out)."""
        del config
        for _, name, layer in layers:
            inputs, outputs = int(vars(layer)["in_features"]), int(vars(layer)["out_features"])
            most = inputs * outputs // (inputs + outputs)
            self.require(
                self.r <= most,
                f"r={self.r} is too much for {name!r}, which has {inputs} × {outputs} weights: r can be {most} at most",
            )
