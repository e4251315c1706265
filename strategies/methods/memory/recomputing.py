"""What a block is given when it is computed a second time, in the backward pass: the same as the first time.

Arguments that a block may change (lists, dictionaries, caches and other objects) are copied before, all but the tensors
in them; attributes of its modules and Python's and NumPy's random states are put back; torch's random states are
torch's own affair. What cannot be had twice, a tensor changed in place, is refused.

An empty cache of keys and values, which decoders fill in training, too, unless told not to, is a copy of its own in
each pass, thrown away after it: it would keep what recomputing is there to drop. The model gives back an empty one.
"""

from __future__ import annotations

import copy
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from strategies.errors import PlanError

if TYPE_CHECKING:
    from torch import Tensor, nn

Attributes = tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]
DEEPEST = 6  # of objects within objects


class Recomputed(NamedTuple):
    """The names of the blocks that are computed a second time, as a plan's context keeps them."""

    names: tuple[str, ...]


class Call(NamedTuple):
    """The arguments of a call."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def changed(self, change: Callable[[int | str, Any], Any]) -> Call:
        """Give a call with each argument, by place or name, changed."""
        arguments = tuple(change(place, value) for place, value in enumerate(self.arguments))
        return Call(arguments, {name: change(name, value) for name, value in self.options.items()})


def without_caches(call: Call) -> Call:
    """Give a call without transformers' caches, for compilers, which follow no copies."""
    left = call.changed(lambda _, value: None if _is_cache(value) else value)
    if left.options.get("use_cache") and any(_is_cache(value) for value in (*call.arguments, *call.options.values())):
        left.options["use_cache"] = False
    return left


def _is_cache(value: Any) -> bool:
    caches = sys.modules.get("transformers.cache_utils")
    return caches is not None and isinstance(value, caches.Cache)


class Passes:
    """Calls a block's `forward` with the arguments of one call, the first time and again.

    `PlanError` the second time where a tensor among them was changed since, as models do that write states back.
    """

    def __init__(self, block: nn.Module, name: str, forward: Callable[..., Any], call: Call) -> None:
        self._name, self._forward = name, forward
        self._versions = [(tensor, tensor._version) for tensor in tensors_in(call)]  # noqa: SLF001
        self._copies: dict[int | str, Any] = {}
        self._own: set[int | str] = set()  # what gets a copy in the first pass, too
        self._attributes = _attributes(vars(part) for part in block.modules())
        self._random = _random_states()
        self._computed = False
        call.changed(self._note)

    def _note(self, key: int | str, value: Any) -> None:
        copied = snapshot(value)
        if copied is not value:
            self._copies[key] = copied
            if _is_cache(value) and not any(tensor.numel() for tensor in tensors_in(value)):
                self._own.add(key)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Compute; `arguments` and `options` are those of the call, as torch kept them."""
        again, self._computed = self._computed, True
        copies = self._copies if again else {key: self._copies[key] for key in self._own}
        call = Call(arguments, options).changed(lambda key, value: snapshot(copies[key]) if key in copies else value)
        if not again:
            return self._forward(*call.arguments, **call.options)
        if any(tensor._version != version for tensor, version in self._versions):  # noqa: SLF001
            raise PlanError(
                f"checkpointing: the model changes a tensor that it gave {self._name!r} in place afterwards, so "
                "computing that a second time would give something else; if it is a state or a cache, turn it off "
                "(use_cache=False), else choose other blocks with scope=… or every_n=…, or leave checkpointing out"
            )
        with _random_states_put_back(self._random), self._attributes_put_back():
            return self._forward(*call.arguments, **call.options)

    @contextmanager
    def _attributes_put_back(self) -> Iterator[None]:
        """Give the modules what they had before the first pass, for a while."""
        now = _attributes(own for own, _, _ in self._attributes)
        _set_attributes(self._attributes)
        try:
            yield
        finally:
            _set_attributes(now)


def _attributes(modules: Iterable[dict[str, Any]]) -> list[Attributes]:
    """Give each module's attributes, a copy of them, and one of its tensors, which `functional_call` replaces."""
    return [(own, dict(own), {kind: dict(own[kind]) for kind in ("_buffers", "_parameters")}) for own in modules]


def _set_attributes(states: list[Attributes]) -> None:
    for own, attributes, tensors in states:
        for name in own.keys() - attributes.keys():
            del own[name]
        own.update(attributes)
        for kind, named in tensors.items():
            own[kind].update(named)


def snapshot(value: Any, depth: int = 0) -> Any:
    """Copy containers and changeable objects, all but the tensors in them; gives what needs no copy as it is."""
    if depth >= DEEPEST:
        return value
    if type(value) is tuple:
        parts = tuple(snapshot(part, depth + 1) for part in value)
        return parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
    if type(value) in {list, set}:
        return type(value)(snapshot(part, depth + 1) for part in value)
    if type(value) is dict:
        return {key: snapshot(part, depth + 1) for key, part in value.items()}
    if not _may_change(value):
        return copy.copy(value) if isinstance(value, dict | list | set | deque) else value
    copied = copy.copy(value)
    vars(copied).update({key: snapshot(part, depth + 1) for key, part in vars(value).items()})
    return copied


def _may_change(value: Any) -> bool:
    """Say whether a value is an object with attributes of its own, and no module, function or object of torch."""
    import torch

    fixed = isinstance(value, type | ModuleType | torch.Tensor | torch.nn.Module) or callable(value)
    return hasattr(value, "__dict__") and not fixed and not type(value).__module__.startswith("torch.")


def tensors_in(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """Give the tensors in containers and changeable objects."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif depth < DEEPEST:
        parts = list(vars(value).values()) if _may_change(value) else []
        if isinstance(value, Mapping | list | tuple | set):
            parts += value.values() if isinstance(value, Mapping) else value
        for part in parts:
            yield from tensors_in(part, depth + 1)


def _random_states() -> tuple[Any, Any]:
    """Give the random states of Python and, where it is loaded, of NumPy."""
    numpy = sys.modules.get("numpy")
    return random.getstate(), numpy.random.get_state() if numpy else None


@contextmanager
def _random_states_put_back(states: tuple[Any, Any]) -> Iterator[None]:
    """Put random states in place; what is there now comes back at the end."""
    now = _random_states()
    _set_random_states(states)
    try:
        yield
    finally:
        _set_random_states(now)


def _set_random_states(states: tuple[Any, Any]) -> None:
    random.setstate(states[0])
    if states[1] is not None:
        sys.modules["numpy"].random.set_state(states[1])


class InPlaceWatch:
    """Finds tensors that one call of a block changes in place: its inputs and its buffers."""

    def __init__(self, block: nn.Module, call: Call) -> None:
        inputs = [("its input", tensor) for tensor in tensors_in(call)]
        buffers = [(f"its buffer {name!r}", buffer) for name, buffer in block.named_buffers()]
        self._before = [(what, tensor, tensor._version) for what, tensor in (*inputs, *buffers)]  # noqa: SLF001

    def refuse_changes(self, name: str) -> None:
        """Refuse what was changed since, with a `PlanError` that names the block."""
        changed = [what for what, tensor, version in self._before if tensor._version != version]  # noqa: SLF001
        if changed:
            raise PlanError(
                f"checkpointing: {name!r} changes {changed[0]} in place, so computing it a second time would give "
                "something else; choose other blocks with scope=… or every_n=…, or leave checkpointing out"
            )
