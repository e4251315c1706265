"""What the check of the first updates looks at while a forward pass runs: graphs that should not be, and calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strategies.errors import SelfCheckError
from strategies.layout import is_within

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from strategies.layout import Layout

MAX_SHOWN = 5


class GraphWatch:
    """Finds frozen modules whose output carries a graph although their input does not."""

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        self.offenders: list[str] = []
        self._handles = [self._watch(name, part) for name, part in _frozen_roots(model, layout)]

    def _watch(self, name: str, part: nn.Module) -> RemovableHandle:
        def look(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
            if _carries_graph(output) and not _carries_graph((arguments, options)):
                self.offenders.append(name)

        return part.register_forward_hook(look, with_kwargs=True)

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def refuse(self) -> None:
        """Refuse what the hooks saw."""
        if self.offenders:
            raise SelfCheckError(
                f"frozen, but its output carries a graph: {first_few(self.offenders)}. Something in it "
                "switches gradients on (enable_input_require_grads?) and wastes memory"
            )


class CallWatch:
    """Adds to `called` the names of modules that are called: the holders of `parameters`, and what holds those.

    Modules compiled in place are left out, and what is in them: hooks would have them compiled again.
    """

    def __init__(self, model: nn.Module, parameters: Collection[str], called: set[str]) -> None:
        modules = dict(model.named_modules())
        compiled = tuple(n for n, part in modules.items() if part._compiled_call_impl is not None)  # noqa: SLF001
        names = {holder for name in parameters for holder in _holders(name)} - called
        self._handles = [
            modules[name].register_forward_pre_hook(_noting(name, called))
            for name in names
            if name in modules and not is_within(name, compiled)
        ]

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()


def _noting(name: str, called: set[str]) -> Callable[..., None]:
    def note(*_: Any) -> None:
        called.add(name)

    return note


def _holders(parameter: str) -> Iterator[str]:
    """Give the modules that a parameter lies in, inside out."""
    name = parameter
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def adapted_layers(model: nn.Module, parameters: Collection[str]) -> dict[str, str]:
    """Give adapted layer → the module that holds it, for layers whose adapters hold some of `parameters`."""
    modules = dict(model.named_modules())
    holders = {name for parameter in parameters for name in _holders(parameter)}
    layers = [name for name in modules if name in holders and "base_layer" in vars(modules[name])["_modules"]]
    return {name: name.rpartition(".")[0] for name in layers}


def whole_modules(silent: Sequence[str], asked: Collection[str]) -> list[str]:
    """Give the outermost modules all of whose parameters among `asked` are `silent`."""
    named = set(silent)
    others = {holder for name in asked if name not in named for holder in _holders(name)}
    found = [[holder for holder in _holders(name) if holder not in others] for name in silent]
    return list(dict.fromkeys(holders[-1] for holders in found if holders))


def first_few(names: Sequence[str]) -> str:
    """Give the first of the names, and whether there are more."""
    return ", ".join(names[:MAX_SHOWN]) + (" …" if len(names) > MAX_SHOWN else "")


def _frozen_roots(model: nn.Module, layout: Layout) -> Iterator[tuple[str, nn.Module]]:
    """Give the towers without anything that trains, leaving out modules compiled in place (hooks recompile)."""
    for prefixes in layout.towers.values():
        for name in prefixes:
            part = model.get_submodule(name)
            if not any(p.requires_grad for p in part.parameters()) and part._compiled_call_impl is None:  # noqa: SLF001
                yield name, part


def _carries_graph(value: Any) -> bool:
    import torch

    if isinstance(value, torch.Tensor):
        return value.requires_grad
    if isinstance(value, dict):
        return any(_carries_graph(part) for part in value.values())
    return isinstance(value, list | tuple) and any(_carries_graph(part) for part in value)
