"""muon — updates of hidden layers' matrices with all singular values near one.

What: torch.optim.Muon for the weights of linear layers outside the head: the momentum of the gradient is made nearly
orthogonal by `ns_steps` Newton-Schulz iterations, so that every direction of a matrix moves as far as the strongest,
and scaled to the size of AdamW's updates, so that the plan's rates carry over. AdamW for the head, embeddings,
convolutions, biases and norms.
Why it helps: fewer steps to the same loss when training from scratch, as its authors report; one moment per matrix
instead of two, so 4 bytes of optimizer state per weight there instead of 8.
What it costs: some products of matrices of the weight's size per update, in bf16, whatever the batch: large batches
hide them, small ones do not. When not to use it: few weights train (adapters), where its authors say nothing, or
batches are small and steps short (on a CPU a step of the suite's own model took 1.9 times AdamW's).
Paper: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024,
https://kellerjordan.github.io/posts/muon/; Liu et al., Muon is Scalable for LLM Training, 2025,
https://arxiv.org/abs/2502.16982 (the scale)
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.methods.update.optimizer_pair import is_matrix, pair_optimizers, split_groups
from strategies.options import Count, Rate, Share
from strategies.protocol import OPTIMIZER, Context, Kind, Strategy
from strategies.structure.head import output_embeddings
from strategies.structure.linear_layers import is_conv1d

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

FIRST_TORCH = (2, 9)
THIN = 1  # rows or columns of what is a vector in truth


def hidden_matrices(model: nn.Module, context: Context) -> set[int]:
    """Give the ids of the weights of linear layers that belong neither to the head nor to an embedding."""
    from torch import nn

    head = context.layout.owned("head", [name for name, _ in model.named_modules()]) | output_embeddings(model)
    hidden: set[int] = set()
    others: set[int] = set()
    for name, module in model.named_modules():
        own = {id(p) for p in module.parameters(recurse=False) if is_matrix(p, THIN + 1)}
        linear = isinstance(module, nn.Linear | nn.MultiheadAttention) or is_conv1d(module)
        (hidden if linear and name not in head else others).update(own)
    return hidden - others


@final
@dataclass(frozen=True, kw_only=True)
class Muon(Strategy):
    """Muon for the matrices of hidden layers, AdamW for the rest."""

    name: ClassVar[str] = "muon"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({OPTIMIZER})

    momentum: Share = 0.95
    ns_steps: Count = 5
    lr_scale: Rate = 1.0

    def unavailable(self, device: torch.device | str) -> str | None:
        """Need torch's Muon."""
        del device
        found = version("torch")
        older = tuple(int(part) for part in found.split(".")[:2]) < FIRST_TORCH
        return f"torch.optim.Muon came with torch 2.9, and this is {found}; take another optimizer" if older else None

    def param_groups(self, groups: list[dict[str, Any]], model: nn.Module, context: Context) -> list[dict[str, Any]]:
        """Split the matrices of hidden layers off."""
        hidden = hidden_matrices(model, context)
        why = "muon: no linear layer outside the head holds a matrix that trains; leave it out"
        return split_groups(groups, lambda parameter: id(parameter) in hidden, why)

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Take both."""

        def muon(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            import torch

            return torch.optim.Muon(
                groups, momentum=self.momentum, ns_steps=self.ns_steps, adjust_lr_fn="match_rms_adamw"
            )

        return lambda groups: pair_optimizers(groups, muon, make)
