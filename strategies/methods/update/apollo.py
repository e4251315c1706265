"""apollo — gradient descent whose step sizes are those of Adam, as seen in a few random directions.

What: the gradient of a matrix is projected on `r` random directions (along its shorter side of n), where Adam's
moments live. How much Adam's direction is longer than the projected gradient, for each row of the longer side
(`scaling="channel"`) or for the whole matrix (`"tensor"`), scales the gradient itself; that is the update. Its norm
grows by 1 % per update at most. `scale` multiplies it; by default it is √(n/r), which by the paper's theory makes the
factor Adam's own. The rates are `lr_scale` times the plan's: three times was better than once on the suite's own model
and on a small network, also for APOLLO-Mini. What is no matrix of more than `r` rows and columns gets AdamW.
APOLLO-Mini is r=1, scaling='tensor'.
Why it helps: 2·m·r values of optimizer state for a matrix of m × n (m ≥ n) instead of 2·m·n; the random directions are
drawn from a seed whenever they are needed and take no memory. Saved files and models are those of full fine-tuning.
What it costs: weights of one row share a step size; drawing the directions takes time in each update. When not to use
it: few weights train (adapters), or memory is no problem.
Paper: Zhu et al., APOLLO: SGD-like Memory, AdamW-level Performance, 2024, https://arxiv.org/abs/2412.05270
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from strategies.methods.update.optimizer_pair import is_matrix, pair_optimizers, split_groups
from strategies.methods.update.update_rule import moments, optimizer_by_rule
from strategies.options import Count, Rate
from strategies.protocol import OPTIMIZER, Context, Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn

MAX_NORM_GROWTH = 1.01  # of an update's norm over the one before, at most


def random_directions(n: int, r: int, seed: int, like: Tensor) -> Tensor:
    """Give an (n, r) matrix of normal values with variance 1/r, always the same for a seed and a device."""
    import torch

    generator = torch.Generator(like.device).manual_seed(seed % 2**63)
    return torch.randn(n, r, generator=generator, device=like.device, dtype=like.dtype).mul_(r**-0.5)


def limit_norm_growth(update: Tensor, state: dict[str, Any]) -> Tensor:
    """Scale an update in place so that its norm grows by 1 % at most; what was zero may grow freely."""
    import torch

    norm = update.norm()
    last = state.get("norm", torch.zeros_like(norm))
    allowed = torch.where(last > 0, torch.minimum(norm, MAX_NORM_GROWTH * last), norm)
    state["norm"] = allowed
    return update.mul_(torch.where(norm > 0, allowed / norm, torch.ones_like(norm)))


def scaled_gradient(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Give the gradient times Adam's factors."""
    wide = gradient.shape[0] < gradient.shape[1]
    tall = gradient.T if wide else gradient
    n, r = tall.shape[1], group["r"]
    draw = (state["step"] - 1) // group["gap"]
    seed = (group["seed"] * 1_000_003 + draw) * 100_003 + state["number"]
    inner = tall @ random_directions(n, r, seed, tall)
    direction = moments(inner, state, (0.9, 0.999), 1e-8)
    sides = {"dim": 1, "keepdim": True} if group["scaling"] == "channel" else {}
    factors = direction.norm(**sides) / (inner.norm(**sides) + 1e-8)
    update = limit_norm_growth(tall * factors.mul_(group["scale"] or (n / r) ** 0.5), state)
    return update.T if wide else update


@final
@dataclass(frozen=True, kw_only=True)
class Apollo(Strategy):
    """Gradients of matrices scaled as Adam would in `r` random directions; AdamW for the rest."""

    name: ClassVar[str] = "apollo"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({OPTIMIZER})
    trial: ClassVar[Mapping[str, Any]] = {"r": 4}

    r: Count = 32
    scaling: Literal["channel", "tensor"] = "channel"
    update_proj_gap: Count = 200
    scale: Rate | None = None
    lr_scale: Rate = 3.0

    def param_groups(self, groups: list[dict[str, Any]], model: nn.Module, context: Context) -> list[dict[str, Any]]:
        """Split the matrices off; their directions come from the plan's seed."""
        del model
        why = f"apollo: no matrix of more than r={self.r} rows and columns trains; lower r or leave it out"
        return split_groups(groups, lambda parameter: is_matrix(parameter, self.r + 1), why, seed=context.seed)

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Take both."""
        options = {"r": self.r, "gap": self.update_proj_gap, "scale": self.scale, "scaling": self.scaling}
        return lambda groups: pair_optimizers(
            groups, lambda own: optimizer_by_rule(own, scaled_gradient, **options), make
        )
