"""Adapters in PEFT's own files, for people who load them without this package.

    save_peft(tuned, fresh_base_model, "adapter/")
    PeftModel.from_pretrained(fresh_base_model, "adapter/")         # anywhere, with PEFT alone

Adapters are injected tower by tower here and over the whole model there, but the layers are the same, so their tensors
are copied by name. Fusion and head, which train whole, are PEFT's `modules_to_save`. An adapter that was trained over a
quantised base loads on the float one, where its outputs are close and not equal.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, Final

from strategies.errors import PlanError
from strategies.layout import inside

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from strategies.tuned import Tuned

CONFIG: Final = "_peft_config"  # on every injected layer
KIND: Final = "LORA"  # whose layers share nothing, with each other or with the configuration
UNCHANGED: Final = (True, False, "gaussian", "orthogonal")  # initialisations that leave the base weights alone
INSTEAD: Final = "strategies.load puts such weights back, load_plain merges them"


def save_peft(tuned: Tuned, base: nn.Module, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` for a model like `base`, which is changed.

    base: a freshly built model, as `tuned` began with. `PlanError` for plans whose result PEFT's files cannot hold.
    """
    import peft
    import torch

    layers = _adapted(tuned.model)
    config = _joint_config(layers)
    new = tuned.context.layout.new
    state = tuned.full_state()
    whole = [name for name in state if not inside(name, tuple(layers))]
    if stray := [name for name in whole if not inside(name, new) and name in tuned.trained]:
        raise PlanError(
            f"{stray[0]!r} trains beside adapters, within a tower: PEFT's files have no place for it; {INSTEAD}"
        )
    config.target_modules = "|".join(re.escape(name) for name in layers)
    config.modules_to_save = [name for name in new if any(inside(key, (name,)) for key in whole)]
    model: Any = peft.get_peft_model(base, config)
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    given = {_peft_name(name, config.modules_to_save): tensor for name, tensor in state.items()}
    if missing := sorted(set(wanted) - set(given)):
        raise PlanError(f"PEFT's model has {missing[0]!r}, which this plan did not train; {INSTEAD}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(given[name])
    model.save_pretrained(str(folder))


def _adapted(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {name: part for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)}
    if not layers:
        raise PlanError(f"no PEFT adapter in this plan; {INSTEAD}")
    return layers


def _joint_config(layers: dict[str, Any]) -> Any:
    """Give one configuration for all layers; towers with different ones have no common file."""
    configs = {name: vars(layer)[CONFIG] for name, layer in layers.items()}
    (first, config), *others = configs.items()
    for name, other in configs.items():
        if other.peft_type.value != KIND:
            kind = other.peft_type.value
            raise PlanError(f"{name!r} has an adapter of PEFT's type {kind}, only {KIND} is written; {INSTEAD}")
    for name, other in others:
        fields = vars(config).items()
        differing = [key for key, value in fields if key != "target_modules" and vars(other).get(key) != value]
        if differing:
            raise PlanError(f"adapters of {first!r} and {name!r} differ in {differing[0]}: no one PEFT file holds both")
    if vars(config).get("init_lora_weights", True) not in UNCHANGED:
        raise PlanError(f"{config.init_lora_weights!r} changed the base weights, which PEFT's file lacks; {INSTEAD}")
    return copy.deepcopy(config)


def _peft_name(name: str, saved: list[str]) -> str:
    """Give a parameter's name inside a `PeftModel`."""
    for module in saved:
        if inside(name, (module,)):
            return f"base_model.model.{module}.modules_to_save.default{name[len(module) :]}"
    return f"base_model.model.{name}"


def note_config(module: nn.Module, config: Any) -> None:
    """Leave on every injected layer of a module how it was made."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for part in module.modules():
        if isinstance(part, BaseTunerLayer):
            vars(part)[CONFIG] = config
