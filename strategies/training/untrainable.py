"""Parameters that an optimizer would train wrongly, or not at all: in 16 bits, complex, with sparse gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.protocol import OPTIMIZER, ROUNDING
from strategies.structure.layers.half_precision import is_half

if TYPE_CHECKING:
    from torch import nn

    from strategies.language.plan import Plan


def refuse_untrainable(plan: Plan, model: nn.Module, groups: list[dict[str, Any]]) -> None:
    """Refuse a plan whose optimizer does not go with what it is to train, with a `PlanError`."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    _refuse_half_precision(plan, parameters)
    _refuse_complex(plan, parameters)
    _refuse_sparse(plan, model)


def _refuse_half_precision(plan: Plan, parameters: list[nn.Parameter]) -> None:
    """Refuse to train pretrained 16-bit weights with an optimizer that rounds small updates to nothing."""
    halves = [p.dtype for p in parameters if is_half(p)]
    if halves and not any(ROUNDING in member.capabilities() for member in plan.members):
        raise PlanError(
            f"{plan}: {len(halves)} pretrained tensors would train in {halves[0]}, where small updates round to "
            "nothing: add pure_bf16, load the model in 32 bits (model.float()), or take adapters (lora), which have 32"
        )


def _refuse_complex(plan: Plan, parameters: list[nn.Parameter]) -> None:
    """Refuse complex numbers where the optimizer is not torch's AdamW: others keep their real parts only, or fail."""
    number = sum(p.is_complex() for p in parameters)
    others = [member.name for member in plan.members if OPTIMIZER in member.slots]
    if number and others:
        raise PlanError(
            f"{plan}: {number} tensors that train are complex, which {others[0]} is not made for: leave it out (AdamW "
            "takes them), freeze them, or hold them as real ones (torch.view_as_real)"
        )


def _refuse_sparse(plan: Plan, model: nn.Module) -> None:
    """Refuse embeddings that give sparse gradients, which neither clipping nor the optimizers take."""
    from torch import nn

    for name, part in model.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse and part.weight.requires_grad:
            raise PlanError(
                f"{plan}: {name!r} gives sparse gradients, which no optimizer here takes: write "
                f"model.get_submodule({name!r}).sparse = False before, or freeze it"
            )
