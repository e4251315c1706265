"""What a block is given when it is computed a second time, in the backward pass: the same as the first time.

Arguments that a block may change (lists, dictionaries, caches and other objects) are copied before, all but the tensors
in them, and Python's and NumPy's random states are put back; torch's are torch's own affair. What cannot be had twice,
a tensor changed in place, is refused. An empty cache of keys and values is left out of both passes, as transformers'
own checkpointing does: nothing could be read from it, and it would keep what recomputing is there to drop.
"""

from __future__ import annotations

import copy
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from strategies.errors import PlanError

if TYPE_CHECKING:
    from torch import Tensor, nn

DEEPEST = 6  # of objects within objects
BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Call(NamedTuple):
    """The arguments of a call."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]


def without_empty_caches(forward: Callable[..., Any]) -> Callable[[Call], Call]:
    """Give what takes transformers' caches out of a call of `forward` as long as nothing is in them."""
    names = [name for name, told in inspect.signature(forward).parameters.items() if told.kind in BY_PLACE]

    def take_out(call: Call) -> Call:
        named = {**dict(zip(names, call.arguments, strict=False)), **call.options}
        changed: dict[str, Any] = {name: None for name, value in named.items() if _is_empty_cache(value)}
        if not changed:
            return call
        changed |= {"use_cache": False} if named.get("use_cache") else {}
        arguments = tuple(changed.get(name, value) for name, value in zip(names, call.arguments, strict=False))
        options = {name: changed.get(name, value) for name, value in call.options.items()}
        return Call(arguments + call.arguments[len(names) :], options)

    return take_out


def _is_empty_cache(value: Any) -> bool:
    """Say whether a value is a cache of transformers without a tensor that has values."""
    caches = sys.modules.get("transformers.cache_utils")
    return caches is not None and isinstance(value, caches.Cache) and not any(t.numel() for t in tensors_in(value))


class FirstPass:
    """What is needed to repeat a call as it was, noted before it is made."""

    def __init__(self, call: Call) -> None:
        copies = [(key, value, snapshot(value)) for key, value in _numbered(call)]
        self._copies = {key: copied for key, value, copied in copies if copied is not value}
        self._random = _random_states()

    def again(self, function: Callable[..., Any], call: Call) -> Any:
        """Call `function` with the same arguments once more; `call` has the tensors among them."""
        given = {key: snapshot(self._copies.get(key, value)) for key, value in _numbered(call)}
        arguments = [given[place] for place in range(len(call.arguments))]
        with _put_back(self._random):
            return function(*arguments, **{name: given[name] for name in call.options})


def _numbered(call: Call) -> list[tuple[int | str, Any]]:
    """Give place or name, and value, of each argument."""
    return [*enumerate(call.arguments), *call.options.items()]


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
        return value
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
def _put_back(states: tuple[Any, Any]) -> Iterator[None]:
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
