"""galore — Adam's moments in the few directions that hold most of a matrix's gradient.

What: the gradient of a matrix is projected on its `r` strongest directions (along its shorter side of n), found anew
every `update_proj_gap` updates; Adam's moments live there, and its direction, projected back, is the update. `scale`
multiplies that; by default it is √(n/r), which makes the update as large as AdamW's. What is no matrix of more than
`r` rows and columns gets AdamW.
Why it helps: every weight trains, with 2·m·r + n·r values of optimizer state for a matrix of m × n (m ≥ n) instead of
2·m·n; saved files and models are those of full fine-tuning.
What it costs: an eigendecomposition per matrix every `update_proj_gap` updates; each update moves a matrix in `r`
directions only. Above two thirds of n, `r` takes more memory than AdamW. Gradients stay whole. When not to use it: few
weights train (adapters), or runs so short that the first directions are the only ones.
Paper: Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection, 2024,
https://arxiv.org/abs/2403.03507
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.methods.update.optimizer_pair import is_matrix, pair_optimizers, split_groups
from strategies.methods.update.update_rule import moments, optimizer_by_rule
from strategies.options import Count, Rate
from strategies.protocol import OPTIMIZER, Context, Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn


def strongest_directions(tall: Tensor, r: int) -> Tensor:
    """Give the `r` right singular vectors of the largest singular values of an (m, n) matrix, as columns (n, r).

    They are eigenvectors of the n × n Gram matrix, which is much cheaper than a decomposition of the whole. Where a
    gradient is not finite, any directions do: the loss tells.
    """
    import torch

    gram = (tall.T @ tall).float().nan_to_num_(0.0, 0.0, 0.0)
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors[:, -r:].to(tall.dtype).contiguous()


def projected_adam(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Give Adam's direction inside the strongest directions of a gradient."""
    wide = gradient.shape[0] < gradient.shape[1]
    tall = gradient.T if wide else gradient
    if (state["step"] - 1) % group["gap"] == 0:
        state["basis"] = strongest_directions(tall, group["r"])
    basis: Tensor = state["basis"]
    inner = moments(tall @ basis, state, (0.9, 0.999), 1e-8)
    outer = (inner @ basis.T).mul_(group["scale"] or (tall.shape[1] / group["r"]) ** 0.5)
    return outer.T if wide else outer


@final
@dataclass(frozen=True, kw_only=True)
class GaLore(Strategy):
    """AdamW, for matrices in the `r` strongest directions of their gradients."""

    name: ClassVar[str] = "galore"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({OPTIMIZER})
    trial: ClassVar[Mapping[str, Any]] = {"r": 4}

    r: Count = 32
    update_proj_gap: Count = 200
    scale: Rate | None = None
    lr_scale: Rate = 1.0

    def param_groups(self, groups: list[dict[str, Any]], model: nn.Module, context: Context) -> list[dict[str, Any]]:
        """Split the matrices off."""
        del model, context
        why = f"galore: no matrix of more than r={self.r} rows and columns trains; lower r or leave it out"
        return split_groups(groups, lambda parameter: is_matrix(parameter, self.r + 1), why)

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Take both."""
        options = {"r": self.r, "gap": self.update_proj_gap, "scale": self.scale}
        return lambda groups: pair_optimizers(
            groups, lambda own: optimizer_by_rule(own, projected_adam, **options), make
        )
