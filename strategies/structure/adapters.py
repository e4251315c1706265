"""How adapters get into a model: `inject` for one module, `adapt` for the scope of a strategy, tower by tower.

The layers are PEFT's, put in by PEFT's tuner classes: its plain injection function refuses methods with shared
state (VeRA) and drops AdaLoRA's tuner. Each scope's own sub-module is injected, since over a whole model PEFT would
freeze the head too. A quantised base is in place before, still holding its float weights, so that PEFT picks its own
4-bit and 8-bit layers and initialisations that read the weights (PiSSA) read the true ones.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from strategies.layout import is_within
from strategies.structure.beside.layer_patterns import layer_values
from strategies.structure.beside.token_rows import token_rows, train_rows
from strategies.structure.beside.trained_whole import train_whole, trained_whole, without
from strategies.structure.choice.choosing import Tower
from strategies.structure.choice.requests import Request, check_request
from strategies.structure.freezing import freeze_batch_norms, freeze_parameters
from strategies.structure.layers.computed_weights import refusing_adapters_that_lose_them
from strategies.structure.layers.half_precision import adapters_in_float32, compute_in_float32, is_half
from strategies.structure.layers.tied_weights import refuse_tied_layers
from strategies.structure.linear_layers import conv1d_to_linear
from strategies.structure.peft_config import note_config
from strategies.structure.roles import QUERY_AND_VALUE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import peft
    import torch
    from peft.tuners.tuners_utils import BaseTuner
    from torch import Tensor, nn

    from strategies.protocol import Context, Strategy


class AdapterOptions(Protocol):
    """The options of a strategy that say where its adapters go."""

    @property
    def name(self) -> str: ...
    @property
    def scope(self) -> str | None: ...
    @property
    def roles(self) -> tuple[str, ...] | None: ...
    @property
    def target_modules(self) -> tuple[str, ...] | None: ...


class AdaptedLayer(NamedTuple):
    """A layer that gets an adapter: its path as PEFT sees it, its full name in the model, and itself."""

    path: str
    name: str
    layer: nn.Module


def inject(module: nn.Module, config: peft.PeftConfig, layers: Sequence[str]) -> BaseTuner:
    """Put PEFT layers into the named `layers` of `module`, in place; everything else in it is frozen.

    `layers` are names below `module`. On a model on `meta` the adapters are made there, too. The tuner that is given
    back holds what the method shares between layers or needs during training.
    """
    import bitsandbytes as bnb
    import peft

    config = copy.deepcopy(config)
    config.target_modules = "|".join(re.escape(name) for name in layers)
    bases = [module.get_submodule(name) for name in layers]
    # PEFT picks its quantised layers by these flags on the module it is given.
    flags = {
        "is_loaded_in_4bit": any(isinstance(base, bnb.nn.Linear4bit) for base in bases),
        "is_loaded_in_8bit": any(isinstance(base, bnb.nn.Linear8bitLt) for base in bases),
    }
    vars(module).update(flags)
    weights = {name: cast("Tensor", base.weight) for name, base in zip(layers, bases, strict=True)}
    halves = {name: weight.dtype for name, weight in weights.items() if is_half(weight)}
    tuner_class = peft.PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    tuner: BaseTuner = tuner_class(module, config, "default", low_cpu_mem_usage=on_meta(module))
    adapters_in_float32(tuner)
    if config.peft_type != peft.PeftType.LORA:
        for name, half in halves.items():
            _give_half(module.get_submodule(name), half)
    note_config(module, config)
    return tuner


def _give_half(layer: Any, half: torch.dtype) -> None:
    """Let one of PEFT's layers over few bits give 16-bit numbers: most methods' give 32, and want them over 8 bits."""
    import bitsandbytes as bnb

    base = layer.get_base_layer()
    in_8bit = isinstance(base, bnb.nn.Linear8bitLt)
    if in_8bit or isinstance(base, bnb.nn.Linear4bit):
        compute_in_float32(layer, half, inputs=in_8bit)
    if in_8bit and base.bias is not None:
        base.bias.data = base.bias.data.float()


def refuse_quantised(strategy: Strategy, layers: list[AdaptedLayer]) -> None:
    """Refuse layers with 8-bit or 4-bit weights, for methods whose PEFT layers cannot have them.

    Those that compute with the weight itself fail at the first step, or worse, take the stored codes for weights.
    """
    import bitsandbytes as bnb

    for _, name, layer in layers:
        strategy.require(
            not isinstance(layer, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt),
            f"{name!r} is quantised ({type(layer).__name__}), where PEFT's layers for this method fail or "
            "train wrongly; leave the quantising out or use lora",
        )


def refuse_adapted(strategy: Strategy, model: nn.Module, names: Sequence[str]) -> None:
    """Refuse layers within others' adapters, which PEFT would not find, or would put its own into."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = tuple(name for name, part in model.named_modules() if isinstance(part, BaseTunerLayer))
    inside = next((name for name in names if is_within(name, adapted)), None)
    strategy.require(
        inside is None,
        f"{inside!r} has one of PEFT's adapters already: pass a model without (model.merge_and_unload()), or name "
        "other layers with target_modules",
    )


def on_meta(model: nn.Module) -> bool:
    """Say whether a model has no weights yet, so that nothing may be computed from them."""
    return any(parameter.is_meta for parameter in model.parameters())


def chosen_layers(
    strategy: AdapterOptions, model: nn.Module, context: Context, default: tuple[str, ...], *, convolutions: bool
) -> dict[str, list[str]]:
    """Choose the layers to adapt: root module → full names; roots without any are left out.

    Without a choice by the user, they are those with the `default` roles (`ALL_LINEAR`: all linear layers in repeated
    blocks), and where roles mean nothing all linear layers in repeated blocks, all linear layers, or (if the method
    can) all convolutions. What that leaves out is noted in the context. `PlanError` for an entry that matches nothing
    in the scope, for a layer that cannot have an adapter, and for a tower without any.
    """
    request = Request.of(strategy)
    groups = context.layout.groups(model, strategy.scope)
    towers = {label: Tower(model, label, roots, convolutions=convolutions) for label, roots in groups.items()}
    check_request(request, model, list(towers.values()))
    chosen: dict[str, list[str]] = {}
    owned = context.layout.module_names(model, strategy.scope)  # a tower's blocks may hold new parts
    for label, roots in groups.items():
        names = [name for name in towers[label].choose(request, default) if name in owned]
        context.notes.setdefault(request.name, {}).update(towers[label].notes)
        chosen |= {root: [name for name in names if is_within(name, (root,))] for root in roots}
    return {root: names for root, names in chosen.items() if names}


def freeze_scope(model: nn.Module, context: Context, scope: str | None) -> None:
    """Freeze the parameters of a scope and keep its batch norms in evaluation mode."""
    freeze_parameters(model, context.layout.parameter_names(model, scope))
    freeze_batch_norms(map(model.get_submodule, context.layout.module_names(model, scope)))


def adapt(
    strategy: AdapterOptions, model: nn.Module, context: Context, config: peft.PeftConfig, *,
    default: tuple[str, ...] = QUERY_AND_VALUE, convolutions: bool = False,
    adjust: Callable[[Any, list[AdaptedLayer]], None] | None = None,
) -> list[BaseTuner]:  # fmt: skip
    """Freeze the strategy's scope and inject adapters into each of its towers, from the plan's seed.

    `adjust` may change a tower's copy of `config` after its layers, or refuse them with a `PlanError`. What the
    strategy trains beside adapters (`modules_to_save`, `trainable_token_indices`) is let train.
    """
    import torch
    from torch import nn

    member = cast("Strategy", strategy)
    whole, rows = trained_whole(member, model, context.layout), token_rows(member, model, context.layout)
    chosen = without(chosen_layers(strategy, model, context, default, convolutions=convolutions), whole, member)
    names_of_all = [name for names in chosen.values() for name in names]
    refuse_adapted(member, model, names_of_all)
    refuse_tied_layers(model, context.layout, strategy.scope, names_of_all)
    patterns = layer_values(member, names_of_all)
    outside = _requires_grad(model, context.layout.parameter_names(model, strategy.scope))
    freeze_scope(model, context, strategy.scope)
    torch.manual_seed(context.seed)
    tuners = []
    for root, names in chosen.items():
        for name in names:
            conv1d_to_linear(model, name)
        # A holder lets a root that is itself a linear layer be replaced, and hides HF configs PEFT would rename by.
        holder = nn.ModuleDict({"root": model.get_submodule(root)})
        paths = [f"root.{name[len(root) :].lstrip('.')}".rstrip(".") for name in names]
        adjusted = copy.deepcopy(config)
        for option, values in patterns.items():
            towers = {path: values.get(name) for path, name in zip(paths, names, strict=True)}
            vars(adjusted)[option] = {path: value for path, value in towers.items() if value is not None}
        if adjust is not None:
            adjust(
                adjusted,
                [AdaptedLayer(path, name, model.get_submodule(name)) for path, name in zip(paths, names, strict=True)],
            )
        with refusing_adapters_that_lose_them(model, names):
            tuners.append(inject(holder, adjusted, paths))
            if holder["root"] is not model.get_submodule(root):
                model.set_submodule(root, holder["root"])
    for name, trains in outside.items():  # PEFT freezes all of a root: what is new in it, and what others share with it
        model.get_parameter(name).requires_grad_(trains)
    train_whole(model, whole)
    train_rows(model, rows)
    said = dict.fromkeys(whole, "trains whole beside the adapters")
    said |= {name: f"{len(numbers)} of its rows train beside the adapters" for name, numbers in rows.items()}
    context.notes.setdefault(strategy.name, {}).update(said)
    return tuners


def _requires_grad(model: nn.Module, owned: frozenset[str]) -> dict[str, Any]:
    """Give name → trains for everything outside `owned`."""
    return {name: p.requires_grad for name, p in model.named_parameters() if name not in owned}
