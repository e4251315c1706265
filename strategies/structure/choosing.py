"""Which layers of a scope a strategy adapts: those asked for, else its default, else all that a fallback finds.

Every entry of what was asked for must match, so that a slip of the keyboard is no smaller adapter. What a default or a
fallback leaves out is noted with its reason, for `describe()`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from strategies.errors import PlanError, closest_first
from strategies.layout import is_within
from strategies.structure.blocks import all_blocks, chains
from strategies.structure.roles import ALL_LINEAR, convolution_layers, linear_layers, roles_in
from strategies.structure.unfit_layers import unfit_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import nn

EXPRESSION = "re:"  # in front of a regular expression that must fit a whole name
MATRIX = 2  # dimensions
WEIGHT_NAMES = re.compile(r".*weight.*|.*_proj|[qkvor]")  # of matrices, other than tables and states, without a layer


class Request(NamedTuple):
    """What a strategy's options ask for; `None` = not asked."""

    name: str
    roles: tuple[str, ...] | None
    target_modules: tuple[str, ...] | None
    exclude_modules: tuple[str, ...] | None
    layers_to_transform: tuple[int, ...] | None

    @classmethod
    def of(cls, strategy: Any) -> Request:
        """Read a strategy's options, of which it may lack some."""
        options = vars(strategy)
        return cls(strategy.name, *(options.get(field) for field in cls._fields[1:]))


class Tower:
    """The layers below some roots that an adapter could be put around, and what is known of each."""

    def __init__(self, model: nn.Module, label: str, roots: tuple[str, ...], *, convolutions: bool) -> None:
        self.model, self.label = model, label
        self.kinds = "linear or convolution layers" if convolutions else "linear layers"
        self.linear = linear_layers(model, roots)
        self.layers = self.linear | (convolution_layers(model, roots) if convolutions else {})
        self.modules = {name: part for name, part in model.named_modules() if is_within(name, roots)}
        self.blocks = blocks_of(model, roots)
        self.numbers = {name: number for chain in chains(model, roots) for number, name in enumerate(chain)}
        self.roles = known_roles(model, roots)
        self.unfit, self.fused = unfit_layers(model, self.layers)

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

    def choose(self, request: Request, default: tuple[str, ...], left: dict[str, str]) -> list[str]:
        """Name the layers to adapt, and note in `left` what else could have been meant; `PlanError` without any."""
        allowed = self.allowed(request)
        asked = request.target_modules
        if asked is not None and asked != ALL_LINEAR:
            chosen = self._named(request, asked, allowed)
        elif request.roles is not None:
            chosen = self._with_roles(request.roles, allowed, left, self.unfit)
        else:
            roles = ALL_LINEAR if asked == ALL_LINEAR else default
            chosen = [] if roles == ALL_LINEAR else self._with_roles(roles, allowed, left, self.unfit | self.fused)
            chosen = chosen or self._all(allowed, left)
        if not chosen:
            raise PlanError(self._nothing(request, default, left))
        left |= self._loose_weights()
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

    def _with_roles(
        self, wanted: Sequence[str], allowed: list[str], left: dict[str, str], unfit: Mapping[str, str]
    ) -> list[str]:
        """Name the layers with one of the roles; note blocks and roles without any."""
        meant = [name for name in allowed if set(wanted) & set(self.roles[name])]
        left |= {name: unfit[name] for name in meant if name in unfit}
        chosen = [name for name in meant if name not in unfit]
        if chosen:
            found = {role for name in chosen for role in self.roles[name]}
            missing = [role for role in wanted if role not in found]
            if missing:
                left[self.label] = f"no layer is known as its {' or '.join(missing)}"
            without = tuple(block for block in self.blocks if not any(is_within(name, (block,)) for name in meant))
            why = f"no layer of its block is known as {' or '.join(wanted)}"
            left |= {name: why for name in allowed if name in self.linear and is_within(name, without)}
        return chosen

    def _all(self, allowed: list[str], left: dict[str, str]) -> list[str]:
        """Name all linear layers in blocks, else all linear layers, else all convolutions."""
        unfit = self.unfit | self.fused
        for kind in ([name for name in allowed if name in self.linear], allowed):
            left |= {name: unfit[name] for name in kind if name in unfit}
            fit = [name for name in kind if name not in unfit]
            in_blocks = [name for name in fit if is_within(name, self.blocks)]
            if in_blocks:
                left |= {name: "it lies outside the repeated blocks" for name in fit if name not in in_blocks}
            if fit:
                return in_blocks or fit
        return []

    def _loose_weights(self) -> dict[str, str]:
        """Give name → reason for the matrices in the blocks that belong to no layer, such as fused experts."""
        from torch import nn

        layers = nn.Linear | nn.Embedding | nn.modules.conv._ConvNd  # noqa: SLF001
        found = {}
        for name, part in self.modules.items():
            if name in self.layers or isinstance(part, layers) or not is_within(name, self.blocks):
                continue
            for own, weight in part.named_parameters(recurse=False):
                size = weight.squeeze().ndim
                if size > MATRIX or (size == MATRIX and WEIGHT_NAMES.fullmatch(own)):
                    found[f"{name}.{own}"] = f"it is a parameter of {type(part).__name__}, no layer"
        return found

    def _nothing(self, request: Request, default: tuple[str, ...], left: Mapping[str, str]) -> str:
        """Say why there is nothing to adapt."""
        if request.target_modules is not None:
            what, first = f"target_modules={list(request.target_modules)}", request.target_modules[0]
        else:
            what, first = f"roles={list(request.roles or default)}", (request.roles or default)[0]
        limits = [field for field in ("exclude_modules", "layers_to_transform") if getattr(request, field) is not None]
        what += "".join(f" with {field}={list(getattr(request, field))}" for field in limits)
        text = f"{request.name}: no layer to adapt in {self.label!r}: {what} matches none of its {self.kinds}"
        unfit = next((f"; not {name!r}: {why}" for name, why in left.items()), "")
        return f"{text}{unfit}; it has: {closest_first(first, {_last(name) for name in self.layers}) or '–'}"


def blocks_of(model: nn.Module, roots: tuple[str, ...]) -> tuple[str, ...]:
    """Name the blocks below or around some roots; a list of one module is a block, too."""
    from torch import nn

    found = tuple(all_blocks(model, roots))
    if not found:
        around = tuple(all_blocks(model, ("",)))
        found = tuple(root for root in roots if is_within(root, around))
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == 1]
    lone = [f"{name}.0" for name, part in lists if is_within(name, roots) and any(True for _ in part[0].children())]
    return found or tuple(name for name in lone if not is_within(name.rpartition(".")[0], tuple(lone)))


def known_roles(model: nn.Module, roots: tuple[str, ...]) -> dict[str, list[str]]:
    """Give name → roles of the linear layers and convolutions below some roots."""
    return roles_in(linear_layers(model, roots) | convolution_layers(model, roots), blocks_of(model, roots))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def matcher(word: str, option: str, entry: str) -> Callable[[str], bool]:
    """Give the test that an entry stands for: an ending of names, or with `re:` an expression for whole names."""
    if not entry.startswith(EXPRESSION):
        return lambda name: name == entry or name.endswith("." + entry)
    try:
        pattern = re.compile(entry.removeprefix(EXPRESSION))
    except re.error as problem:
        raise PlanError(f"{word}: {option} has {entry!r}, which is no regular expression: {problem}") from None
    return lambda name: pattern.fullmatch(name) is not None


def check_request(request: Request, model: nn.Module, towers: Sequence[Tower]) -> None:
    """Refuse an entry that matches nothing in the whole scope; `PlanError` names the closest ones."""
    layers = [name for tower in towers for name in tower.layers]
    for entry in request.target_modules or ():
        if (entry,) != ALL_LINEAR and not any(map(matcher(request.name, "target_modules", entry), layers)):
            raise PlanError(f"{request.name}: target_modules has {entry!r}, {_instead(entry, model, towers)}")
    modules = [name for tower in towers for name in tower.modules if name]
    for entry in request.exclude_modules or ():
        if not any(map(matcher(request.name, "exclude_modules", entry), modules)):
            there = _closest(entry, modules)
            raise PlanError(f"{request.name}: exclude_modules has {entry!r}, which matches nothing; there is: {there}")
    known = {role for tower in towers for roles in tower.roles.values() for role in roles}
    for role in request.roles or ():
        if role not in known:
            raise PlanError(
                f"{request.name}: no layer to adapt as {role!r}: roles found are {sorted(known) or 'none'}; name "
                f"layers with target_modules: {_closest(role, layers)}"
            )
    numbers = {number for tower in towers for number in tower.numbers.values()}
    for number in request.layers_to_transform or ():
        if number not in numbers:
            there = f"blocks 0 to {max(numbers)}" if numbers else "no repeated blocks"
            raise PlanError(f"{request.name}: layers_to_transform has {number}; there are {there}")


def _instead(entry: str, model: nn.Module, towers: Sequence[Tower]) -> str:
    """Say what a target that matches no layer matches, and what could be meant."""
    match = matcher("", "", entry)
    layers = [name for tower in towers for name in tower.layers]
    for tower in towers:
        for name, part in tower.modules.items():
            if name and match(name):
                inner = [layer for layer in layers if is_within(layer, (name,))]
                more = f"; name the layers in it: {_closest(entry, inner)}" if inner else ""
                return f"but {name!r} is a {type(part).__name__}, none of the {tower.kinds}{more}"
    for name, parameter in model.named_parameters():
        if match(name):
            return f"but {name!r} is a parameter of shape {tuple(parameter.shape)} and no layer of its own"
    outside = next((name for name in linear_layers(model, ("",)) if match(name)), None)
    if outside is not None:
        return f"but {outside!r} lies outside the scope"
    return f"which matches none of the {towers[0].kinds}; there is: {_closest(entry, layers)}"


def _closest(entry: str, names: Iterable[str]) -> str:
    """List the endings most like an entry, as long as the entry is."""
    depth = 1 if entry.startswith(EXPRESSION) else entry.count(".") + 1
    return closest_first(entry, {".".join(name.split(".")[-depth:]) for name in names})


def left_by_reason(left: Mapping[str, str]) -> dict[str, list[str]]:
    """Give reason → names, in the order in which reasons first occur."""
    found: dict[str, list[str]] = {}
    for name, why in left.items():
        found.setdefault(why, []).append(name)
    return found
