"""One PEFT configuration for a model whose towers were each injected with their own.

What is the same everywhere stays; what differs goes into PEFT's patterns (`rank_pattern` and its like) where it has
one; and what names layers is written again, since a tower knew them by other names than the whole model does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from strategies.errors import PlanError

if TYPE_CHECKING:
    from torch import nn

INJECTION_ATTRIBUTE: Final = "_made_by_peft"  # on every injected layer
REMEDY: Final = "strategies.load puts such weights back, load_plain merges them"
# Field → the values that can be written, and what is wrong with any other.
WRITABLE: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {
    "init_lora_weights": (
        (True, False, "gaussian", "orthogonal", "mica"),
        "changed the base weights, which PEFT's file lacks",
    ),
    "boft_n_butterfly_factor": ((1,), "is read as 1 by PEFT alone where no CUDA compiler is installed"),
}
# Field → the field for layers in which it differs.
PATTERNS: Final = {
    "r": "rank_pattern", "lora_alpha": "alpha_pattern", "alpha": "alpha_pattern", "delora_lambda": "lambda_pattern",
    "n_frequency": "n_frequency_pattern",
}  # fmt: skip
LAYER_PATTERNS: Final = ("target_modules", "feedforward_modules")  # expressions that choose layers


class Injection(NamedTuple):
    """How a layer was made: its tower's configuration, and its name there."""

    config: Any
    path: str


def note_config(module: nn.Module, config: Any) -> None:
    """Leave on every injected layer of a module how it was made."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, part in module.named_modules():
        if isinstance(part, BaseTunerLayer):
            vars(part)[INJECTION_ATTRIBUTE] = Injection(config, path)


def joint_config(layers: Mapping[str, Any]) -> Any:
    """Give one configuration for all layers, by name; `PlanError` for what no configuration of PEFT says."""
    injections: dict[str, Injection] = {name: vars(layer)[INJECTION_ATTRIBUTE] for name, layer in layers.items()}
    first, *others = injections
    config = deepcopy(injections[first].config)
    for name in others:
        if (kind := injections[name].config.peft_type) != config.peft_type:
            raise PlanError(
                f"{first!r} has an adapter of PEFT's type {config.peft_type.value}, {name!r} of {kind.value}: no one "
                f"PEFT file holds both; {REMEDY}"
            )
    for field, (values, why) in WRITABLE.items():
        if vars(config).get(field, values[0]) not in values:
            raise PlanError(f"{field}={vars(config)[field]!r} {why}; {REMEDY}")
    patterns = {field: _pattern(field, injections) for field in PATTERNS.values() if field in vars(config)}
    for field in vars(config):
        each = {name: vars(one.config)[field] for name, one in injections.items()}
        if field in LAYER_PATTERNS:
            vars(config)[field] = _layer_pattern(field, injections)
        elif field in patterns or all(value == each[first] for value in each.values()):
            continue
        elif PATTERNS.get(field) not in patterns:
            raise PlanError(f"adapters differ in {field}, for which PEFT's file has one place; {REMEDY}")
        else:
            patterns[PATTERNS[field]] = each | patterns[PATTERNS[field]]
    vars(config).update(patterns)
    return config


def _pattern(field: str, injections: Mapping[str, Injection]) -> dict[str, Any]:
    """Give a pattern's values under the layers' full names."""
    known = {name: (vars(one.config)[field] or {}, one.path) for name, one in injections.items()}
    return {name: values[path] for name, (values, path) in known.items() if path in values}


def _layer_pattern(field: str, injections: Mapping[str, Injection]) -> str:
    """Give an expression that fits the full names of the layers which the towers' expressions chose."""
    names = [name for name, one in injections.items() if re.fullmatch(vars(one.config)[field], one.path)]
    return "|".join(re.escape(name) for name in names) or "(?!)"  # which fits nothing
