"""Which layers of a scope a strategy adapts: those asked for, else its default, else all that a fallback finds.

What a default or a fallback leaves out is noted with its reason, for `describe()`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from strategies.errors import PlanError, closest_first
from strategies.layout import is_within
from strategies.structure.blocks import all_blocks, chains
from strategies.structure.choice.requests import Request, matcher
from strategies.structure.choice.unfit_layers import unfit_layers
from strategies.structure.roles import ALL_LINEAR, convolution_layers, linear_layers, roles_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

LEFT = "not adapted: "  # in front of a reason
OUTSIDE = "it lies outside the repeated blocks"
CONVOLUTION = "it is a convolution"
MATRIX = 2  # dimensions
WEIGHT_NAMES = re.compile(r".*weight.*|.*_proj|[qkvor]")  # of matrices, other than tables and states, without a layer


class Tower:
    """The layers below some roots that an adapter could be put around, and what is known of each."""

    def __init__(self, model: nn.Module, label: str, roots: tuple[str, ...], *, convolutions: bool) -> None:
        self.model, self.label = model, label
        self.kinds = "linear layers or two-dimensional convolutions" if convolutions else "linear layers"
        self.linear = linear_layers(model, roots)
        self.layers = self.linear | (convolution_layers(model, roots) if convolutions else {})
        self.modules = {name: part for name, part in model.named_modules() if is_within(name, roots)}
        self.blocks = blocks_of(model, roots)
        self.body = self.blocks or ("",)  # where weights that are left are named
        self.numbers = {name: number for chain in chains(model, roots) for number, name in enumerate(chain)}
        self.roles = known_roles(model, roots)
        self.unfit, self.fused, self.read = unfit_layers(model, self.layers)
        self.left: dict[str, str] = {}  # name → why it is not adapted
        self.said: dict[str, str] = {}  # name → what else there is to say

    @property
    def notes(self) -> dict[str, str]:
        """Give name → what is to be said of it, after a choice."""
        return self.said | {name: LEFT + why for name, why in self.left.items()}

    def allowed(self, request: Request) -> list[str]:
        """Name the layers that are neither excluded nor in other blocks than those asked for."""
        names = list(self.layers)
        if request.exclude_modules:
            matches = [matcher(request.name, "exclude_modules", entry) for entry in request.exclude_modules]
            out = {name for name in self.modules if name and any(match(name) for match in matches)}
            names = [name for name in names if not is_within(name, tuple(out))] if out else names
        if request.layers_to_transform is not None:
            wanted = tuple(name for name, number in self.numbers.items() if number in request.layers_to_transform)
            names = [name for name in names if is_within(name, wanted)]
        return names

    def choose(self, request: Request, default: tuple[str, ...]) -> list[str]:
        """Name the layers to adapt, and take notes of others; `PlanError` without any."""
        allowed = self.allowed(request)
        asked = request.target_modules
        if asked is not None and asked != ALL_LINEAR:
            chosen = self._named(request, asked, allowed)
        elif request.roles is not None:
            chosen = self._with_roles(request.roles, allowed, self.unfit)
        else:
            roles = ALL_LINEAR if asked == ALL_LINEAR else default
            chosen = [] if roles == ALL_LINEAR else self._with_roles(roles, allowed, self.unfit | self.fused)
            if not chosen:
                chosen = self._all(allowed)
                if roles != ALL_LINEAR:
                    self.said[self.label] = f"no layer to adapt is known as {' or '.join(roles)}, so all are chosen"
        if not chosen:
            raise PlanError(self._nothing(request, default))
        self.left |= self._loose_weights()
        self.said |= {name: self.read[name] for name in chosen if name in self.read}
        return chosen

    def _named(self, request: Request, entries: tuple[str, ...], allowed: list[str]) -> list[str]:
        """Name the layers asked for by name; those around which an adapter cannot be are refused."""
        matches = [matcher(request.name, "target_modules", entry) for entry in entries]
        chosen = [name for name in allowed if any(match(name) for match in matches)]
        lost = next((name for name in chosen if name in self.unfit), None)
        if lost is not None:
            raise PlanError(
                f"{request.name}: {lost!r} in {self.label!r} cannot have an adapter: {self.unfit[lost]}; choose other "
                "layers with target_modules"
            )
        return chosen

    def _with_roles(self, wanted: Sequence[str], allowed: list[str], unfit: Mapping[str, str]) -> list[str]:
        """Name the layers with one of the roles; note blocks and roles without any."""
        meant = [name for name in allowed if set(wanted) & set(self.roles[name])]
        self.left |= {name: unfit[name] for name in meant if name in unfit}
        chosen = [name for name in meant if name not in unfit]
        if chosen:
            found = {role for name in chosen for role in self.roles[name]}
            missing = [role for role in wanted if role not in found]
            if missing:
                self.said[self.label] = f"no layer is known as {' or '.join(missing)}"
            without = tuple(block for block in self.blocks if not any(is_within(name, (block,)) for name in meant))
            why = f"no layer of its block is known as {' or '.join(wanted)}, and neither is it"
            unknown = [name for name in allowed if name in self.linear and not self.roles[name]]
            self.left |= {name: why for name in unknown if is_within(name, without)}
        return chosen

    def _all(self, allowed: list[str]) -> list[str]:
        """Name all linear layers in blocks, and those beside whose role is known, as of a lone attention.

        Without any: all convolutions in blocks, else all layers outside.
        """
        unfit = self.unfit | self.fused
        self.left |= {name: unfit[name] for name in allowed if name in unfit and name in self.linear}
        fit = [name for name in allowed if name not in unfit]
        in_blocks = [name for name in fit if is_within(name, self.blocks)]
        kinds = [[name for name in names if name in self.linear] for names in (in_blocks, fit)]
        chosen = kinds[0] or in_blocks or kinds[1] or fit
        if kinds[0]:
            chosen = [name for name in kinds[1] if is_within(name, self.blocks) or self.roles[name]]
        rest = [name for name in fit if name not in chosen and (name in self.linear or not kinds[0])]
        self.left |= dict.fromkeys(rest, OUTSIDE)
        self.left |= dict.fromkeys((name for name in self._convolutions() if name not in chosen), CONVOLUTION)
        return chosen

    def _convolutions(self) -> list[str]:
        """Name the convolutions of every kind in the blocks, or in a tower without any."""
        from torch import nn

        kind = nn.modules.conv._ConvNd  # noqa: SLF001
        return [name for name, part in self.modules.items() if isinstance(part, kind) and is_within(name, self.body)]

    def _loose_weights(self) -> dict[str, str]:
        """Give name → reason for the matrices there that belong to no layer, such as fused experts."""
        from torch import nn

        layers = nn.Linear | nn.Embedding | nn.modules.conv._ConvNd  # noqa: SLF001
        found = {}
        for name, part in self.modules.items():
            if name in self.layers or isinstance(part, layers) or not is_within(name, self.body):
                continue
            for own, weight in part.named_parameters(recurse=False):
                size = weight.squeeze().ndim
                if size > MATRIX or (size == MATRIX and WEIGHT_NAMES.fullmatch(own)):
                    found[f"{name}.{own}"] = f"it is a parameter of {type(part).__name__}, no layer"
        return found

    def _nothing(self, request: Request, default: tuple[str, ...]) -> str:
        """Say why there is nothing to adapt."""
        text = f"{request.name}: no layer to adapt in {self.label!r}: "
        if not self.layers:
            return f"{text}it has no {self.kinds}; take full or bitfit there"
        if request.target_modules is not None:
            what, first = f"target_modules={list(request.target_modules)}", request.target_modules[0]
        else:
            what, first = f"roles={list(request.roles or default)}", (request.roles or default)[0]
        limits = [field for field in ("exclude_modules", "layers_to_transform") if getattr(request, field) is not None]
        what += "".join(f" with {field}={list(getattr(request, field))}" for field in limits)
        unfit = next((f"; {name!r} is not adapted: {why}" for name, why in self.left.items()), "")
        there = closest_first(first, {_last(name) for name in self.layers})
        return f"{text}{what} matches none of its {self.kinds}{unfit}; it has: {there}"


def blocks_of(model: nn.Module, roots: tuple[str, ...]) -> tuple[str, ...]:
    """Name the blocks below or around some roots: repeated ones, others of their class, else single ones in a list."""
    from torch import nn

    blocks = all_blocks(model, roots)
    kinds = {type(block) for block in blocks.values()} - {nn.Sequential}
    parts = {name: part for name, part in model.named_modules() if is_within(name, roots)}
    alone = [name for name, part in parts.items() if type(part) in kinds and not is_within(name, tuple(blocks))]
    if blocks:
        return (*blocks, *alone)
    around = tuple(all_blocks(model, ("",)))
    lists = {name: part for name, part in parts.items() if isinstance(part, nn.ModuleList) and len(part) == 1}
    lone = [f"{name}.0" for name, part in lists.items() if any(True for _ in part[0].children())]
    inner = [name for name in lone if any(is_within(other, (name,)) for other in lone if other != name)]
    return tuple(root for root in roots if is_within(root, around)) or tuple(n for n in lone if n not in inner)


def known_roles(model: nn.Module, roots: tuple[str, ...]) -> dict[str, list[str]]:
    """Give name → roles of the linear layers and convolutions below some roots."""
    return roles_in(linear_layers(model, roots) | convolution_layers(model, roots), blocks_of(model, roots))


def _last(name: str) -> str:
    return name.rpartition(".")[2]
