"""What a strategy's options ask to adapt, and that every entry of it matches: a slip of the keyboard is an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from strategies.errors import PlanError, closest_first
from strategies.layout import is_within
from strategies.structure.roles import ALL_LINEAR, EVERY_ROLE, linear_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import nn

EXPRESSION = "re:"  # in front of a regular expression that must fit a whole name


class Request(NamedTuple):
    """What a strategy's options ask for; `None` = not asked. Every role there is means all linear layers."""

    name: str
    roles: tuple[str, ...] | None
    target_modules: tuple[str, ...] | None
    exclude_modules: tuple[str, ...] | None
    layers_to_transform: tuple[int, ...] | None

    @classmethod
    def of(cls, strategy: Any) -> Request:
        """Read a strategy's options, of which it may lack some."""
        options = vars(strategy)
        asked = cls(strategy.name, *(options.get(field) for field in cls._fields[1:]))
        every = set(asked.roles or ()) == set(EVERY_ROLE) and asked.target_modules is None
        return asked._replace(roles=None, target_modules=ALL_LINEAR) if every else asked


class Candidates(Protocol):
    """What a tower offers: layers of some kinds (in words) among its modules, roles of layers, numbers of blocks."""

    @property
    def kinds(self) -> str: ...
    @property
    def layers(self) -> Mapping[str, nn.Module]: ...
    @property
    def modules(self) -> Mapping[str, nn.Module]: ...
    @property
    def roles(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def numbers(self) -> Mapping[str, int]: ...


def matcher(word: str, option: str, entry: str) -> Callable[[str], bool]:
    """Give the test that an entry stands for: an ending of names, or with `re:` an expression for whole names."""
    if not entry.startswith(EXPRESSION):
        return lambda name: name == entry or name.endswith("." + entry)
    try:
        pattern = re.compile(entry.removeprefix(EXPRESSION))
    except re.error as problem:
        raise PlanError(f"{word}: {option} has {entry!r}, which is no regular expression: {problem}") from None
    return lambda name: pattern.fullmatch(name) is not None


def check_request(request: Request, model: nn.Module, towers: Sequence[Candidates]) -> None:
    """Refuse an entry that matches nothing in the whole scope; `PlanError` names the closest ones."""
    _check_names(request, model, towers)
    known = {role for tower in towers for roles in tower.roles.values() for role in roles}
    strange = next((role for role in request.roles or () if role not in known), None)
    if strange is not None:
        raise PlanError(
            f"{request.name}: no layer to adapt as {strange!r}: roles found are {sorted(known) or 'none'}; name layers "
            f"with target_modules: {_closest(strange, (name for tower in towers for name in tower.layers))}"
        )
    numbers = {number for tower in towers for number in tower.numbers.values()}
    beyond = next((number for number in request.layers_to_transform or () if number not in numbers), None)
    if beyond is not None:
        there = f"blocks 0 to {max(numbers)}" if numbers else "no repeated blocks"
        raise PlanError(f"{request.name}: layers_to_transform has {beyond}; there are {there}")


def _check_names(request: Request, model: nn.Module, towers: Sequence[Candidates]) -> None:
    """Refuse a name that matches nothing."""
    targets = request.target_modules or ()
    if targets and request.roles:
        raise PlanError(f"{request.name}: roles and target_modules both choose the layers; give one of them")
    if ALL_LINEAR[0] in targets and targets != ALL_LINEAR:
        raise PlanError(f"{request.name}: target_modules has {ALL_LINEAR[0]!r} beside others; it stands alone")
    layers = [name for tower in towers for name in tower.layers]
    for entry in targets if targets != ALL_LINEAR else ():
        if not any(map(matcher(request.name, "target_modules", entry), layers)):
            raise PlanError(f"{request.name}: target_modules has {entry!r}, {_instead(entry, model, towers)}")
    modules = [name for tower in towers for name in tower.modules if name]
    for entry in request.exclude_modules or ():
        if not any(map(matcher(request.name, "exclude_modules", entry), modules)):
            there = _closest(entry, modules)
            raise PlanError(f"{request.name}: exclude_modules has {entry!r}, which matches nothing; there is: {there}")


def _instead(entry: str, model: nn.Module, towers: Sequence[Candidates]) -> str:
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
            shape = tuple(parameter.shape)
            return f"but {name!r} is a parameter of shape {shape}, no layer; there is: {_closest(entry, layers)}"
    outside = next((name for name in linear_layers(model, ("",)) if match(name)), None)
    if outside is not None:
        return f"but {outside!r} lies outside the scope; there is: {_closest(entry, layers)}"
    return f"which matches none of the {towers[0].kinds}; there is: {_closest(entry, layers)}"


def _closest(entry: str, names: Iterable[str]) -> str:
    """List the endings most like an entry, as long as the entry is."""
    depth = 1 if entry.startswith(EXPRESSION) else entry.count(".") + 1
    return closest_first(entry, {".".join(name.split(".")[-depth:]) for name in names})
