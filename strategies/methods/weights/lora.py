"""lora — freeze the weights and train low-rank additions to some linear layers.

What: y = Wx + (alpha/r)·B·A·x with W frozen, A random and B zero, so training starts at the pretrained model. `alpha`
is 2·r unless given, so that the scale is 2 whatever the rank.
Why it helps: gradients and optimizer state only for 0.1–2 % of the weights; a file of a few MB per task.
What it costs: most activations are still kept (a frozen layer without an adapter no longer needs its input; with all
linear layers adapted nothing is saved there), and each adapted layer runs two small extra products: small models do
not get faster. Dropout on every adapted layer keeps one more activation each. When not to use it: the towers need to
change a lot, or memory is dominated by activations (use checkpointing).
Paper: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, https://arxiv.org/abs/2106.09685

Options under PEFT's names mean what they mean there, here and in `lora`'s family. `rank_pattern` and `alpha_pattern`
give layers another r or alpha (a name's ending or a regular expression → number; where only r is given, alpha stays).
`exclude_modules` and `layers_to_transform` (numbers of blocks) leave layers out. `modules_to_save` names modules that
train whole beside the adapters, at `full`'s rate: embeddings or an output layer, say; weights that they share with
others stay shared. `trainable_token_indices` trains single rows of the embedding, of tokens that were added, at `lr`; a
dictionary names the embedding. Adapters on a base in 16 bits or fewer are kept in 32. A scope within a tower freezes
the rest of that tower, too.

`variant` is one of PEFT's: velora (A's inputs are kept as one number per group: fewer activations, and a gradient that
is an estimate), kasa (drops the r smallest singular values of each weight and learns r values between A and B), bdlora
(block-diagonal A or B, for serving). `init` says how A and B start: gaussian, orthogonal (both random, their product
zero), mica (B from the smallest singular values, frozen), loftq (makes up for the rounding of nf4 or int8), or from
the first pass of training: eva (A reads the directions in which a layer's inputs vary most), corda (the weight is split
by their covariance), lora_ga (A and B follow the weight's gradient, in place of their first update); with the last two
the adapted weights are saved, too. `pissa` and `olora` are words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast, final

from strategies.errors import PlanError
from strategies.methods.weights.lora_starts import start_adapters
from strategies.methods.weights.lora_variants import (
    changed_weights,
    check_choice,
    check_layers,
    forget_weights,
    peft_refusals,
    takes_convolutions,
    variant_fields,
    variant_loss,
)
from strategies.options import Count, Counts, Names, Numbers, Options, Rate, Rows, Share, added
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, State, Strategy
from strategies.structure.adapters import AdaptedLayer, AdapterOptions, adapt, chosen_layers, on_meta
from strategies.structure.beside.layer_patterns import layer_values
from strategies.structure.layers.read_elsewhere import warn_of_reads
from strategies.structure.roles import QUERY_AND_VALUE, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peft.tuners.tuners_utils import BaseTuner
    from torch import Tensor, nn


class LowRank(AdapterOptions, Protocol):
    """The options of LoRA and its variants."""

    @property
    def name(self) -> str: ...
    @property
    def r(self) -> int: ...
    @property
    def alpha(self) -> int | None: ...
    @property
    def dropout(self) -> float: ...


def adapt_low_rank(
    strategy: LowRank, model: nn.Module, context: Context, *, convolutions: bool = True,
    adjust: Callable[[Any, list[AdaptedLayer]], None] | None = None, **variant: Any,
) -> list[BaseTuner]:  # fmt: skip
    """Freeze the scope and inject PEFT's LoRA tower by tower; `variant` are more fields of its `LoraConfig`."""
    import peft

    config = peft.LoraConfig(r=strategy.r, lora_alpha=strategy.alpha, lora_dropout=strategy.dropout, **variant)
    return adapt(strategy, model, context, config, convolutions=convolutions, adjust=adjust)


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
    import torch

    uses = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    chosen = chosen_layers(strategy, model, context, QUERY_AND_VALUE, convolutions=False)
    names = [name for names in chosen.values() for name in names]
    ranks = layer_values(cast("Strategy", strategy), names).get("rank_pattern", {})
    for name in names:
        weight, r = cast("Tensor", model.get_submodule(name).weight), ranks.get(name, strategy.r)
        if r > min(weight.shape):
            raise PlanError(f"{strategy.name}: {name!r} has only {min(weight.shape)} directions, r={r}: lower r")
        if weight.dtype == torch.float64:
            raise PlanError(f"{strategy.name}: {name!r} is in float64, which PEFT does not split: call model.float()")
        if uses[id(weight)] > 1:
            raise PlanError(f"{strategy.name}: {name!r} shares its weight, which it would change: take lora there")
    warn_of_reads(model, names, strategy.name, f"take lora there, or exclude_modules={names[:1]}")


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
    follows: ClassVar[Mapping[str, tuple[str, int]]] = {"alpha": ("r", 2)}

    r: Count = 8
    alpha: Count | None = None
    dropout: Share = 0.0
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    rank_pattern: Counts | None = added(None)
    alpha_pattern: Counts | None = added(None)
    exclude_modules: Names | None = added(None)
    layers_to_transform: Numbers | None = added(None)
    modules_to_save: Names | None = added(None)
    trainable_token_indices: Numbers | Rows | None = added(None)
    variant: str | None = added(None)
    variant_options: Options | None = added(None)
    init: str | None = added(None)
    init_options: Options | None = added(None)
    scope: str | None = None
    lr: Rate = 1e-3
    head_lr: Rate = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self)

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters tower by tower."""
        scaled = self.init == "lora_ga" and context.facts.get("precision") == "fp16"
        self.require(
            not scaled, "init='lora_ga' reads gradients, which fp16's loss scaler changes: take bf16, or corda"
        )
        check = partial(check_layers, self)
        with peft_refusals():
            tuners = adapt_low_rank(
                self, model, context, convolutions=takes_convolutions(self), adjust=check, **variant_fields(self)
            )
        context.member_state[self] = tuners
        context.changed_weights.update(changed_weights(self, context.layout.parameter_names(model, self.scope)))
        if on_meta(model):
            forget_weights(tuners)
        else:
            start_adapters(self, tuners, model, context)

    def extra_loss(self, state: State) -> Any:
        """Give what the variant adds to the loss."""
        return variant_loss(self, state.member_state.get(self, ()))
