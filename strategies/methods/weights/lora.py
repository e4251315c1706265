"""lora — freeze the weights and train low-rank additions to some linear layers.

What: y = Wx + (alpha/r)·B·A·x with W frozen, A random and B zero, so training starts at the pretrained model.
Why it helps: gradients and optimizer state only for 0.1–2 % of the weights; a file of a few MB per task.
What it costs: most activations are still kept (a frozen layer without an adapter no longer needs its input; with all
linear layers adapted nothing is saved there), and each adapted layer runs two small extra products: small models do
not get faster. Dropout on every adapted layer keeps one more activation each. When not to use it: the towers need to
change a lot, or memory is dominated by activations (use checkpointing).
Paper: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, https://arxiv.org/abs/2106.09685
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast, final

from strategies.errors import PlanError
from strategies.options import Count, Names, Rate, Share
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import AdapterOptions, adapt, chosen_layers
from strategies.structure.roles import QUERY_AND_VALUE, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft.tuners.tuners_utils import BaseTuner
    from torch import Tensor, nn


class LowRank(AdapterOptions, Protocol):
    """The options of LoRA and its variants."""

    @property
    def name(self) -> str: ...
    @property
    def r(self) -> int: ...
    @property
    def alpha(self) -> int: ...
    @property
    def dropout(self) -> float: ...


def adapt_low_rank(
    strategy: LowRank, model: nn.Module, context: Context, *, convolutions: bool = True, **variant: Any
) -> list[BaseTuner]:
    """Freeze the scope and inject PEFT's LoRA tower by tower; `variant` are more fields of its `LoraConfig`."""
    import peft

    config = peft.LoraConfig(r=strategy.r, lora_alpha=strategy.alpha, lora_dropout=strategy.dropout, **variant)
    return adapt(strategy, model, context, config, convolutions=convolutions)


@contextmanager
def float_weights(model: nn.Module) -> Iterator[None]:
    """Let PEFT read the weights of layers that will be quantised as what they still are: floats.

    Going by the parameter's class, it would try to unpack them.
    """
    import bitsandbytes as bnb
    from torch import nn

    kinds_of_bnb = bnb.nn.Params4bit | bnb.nn.Int8Params
    packing = [p for p in model.parameters() if isinstance(p, kinds_of_bnb) and p.is_floating_point()]
    kinds = [type(parameter) for parameter in packing]
    for parameter in packing:
        parameter.__class__ = nn.Parameter
    try:
        yield
    finally:
        for parameter, kind in zip(packing, kinds, strict=True):
            parameter.__class__ = kind


def check_splits(strategy: LowRank, model: nn.Module, context: Context) -> None:
    """Refuse what cannot be split into a frozen rest and r trained directions: narrow layers, shared weights."""
    uses = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    chosen = chosen_layers(strategy, model, context, QUERY_AND_VALUE, convolutions=False)
    for name in (name for names in chosen.values() for name in names):
        weight = cast("Tensor", model.get_submodule(name).weight)
        if strategy.r > min(weight.shape):
            raise PlanError(
                f"{strategy.name}: {name!r} has only {min(weight.shape)} directions, r={strategy.r}: lower r"
            )
        if uses[id(weight)] > 1:
            raise PlanError(f"{strategy.name}: {name!r} shares its weight, which it would change: take lora there")


@final
@dataclass(frozen=True, kw_only=True)
class Lora(Strategy):
    """Low-rank adapters on the layers of `scope` with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "lora"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    r: Count = 8
    alpha: Count = 16
    dropout: Share = 0.0
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 1e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters tower by tower."""
        adapt_low_rank(self, model, context)
