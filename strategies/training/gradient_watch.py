"""What the check of the first updates looks at while a forward pass runs: graphs that should not be, and calls."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

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

    def tell(self) -> None:
        """Warn of what the hooks saw: it changes no result, but takes memory for nothing."""
        if self.offenders:
            warnings.warn(
                f"frozen, but its output carries a graph: {first_few(self.offenders)}. Something in it switches "
                "gradients on (enable_input_require_grads?), which takes memory for nothing",
                stacklevel=4,
            )


class CallWatch:
    """Adds to `called` the names of modules that are called: the holders of `parameters`, and what holds those.

    Modules compiled in place are left out, and what is in them: hooks would have them compiled again.
    """

    def __init__(self, model: nn.Module, parameters: Collection[str], called: set[str]) -> None:
        modules, compiled = dict(model.named_modules()), _compiled(model)
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


def _compiled(model: nn.Module) -> tuple[str, ...]:
    return tuple(n for n, part in model.named_modules() if part._compiled_call_impl is not None)  # noqa: SLF001


def _noting(name: str, called: set[str]) -> Callable[..., None]:
    def note(*_: Any) -> None:
        called.add(name)

    return note


class ReadWatch:
    """Adds to `read` the names of adapted layers whose base weight is asked for, as code that passes them by does.

    What is compiled in place is left out, as above.
    """

    def __init__(self, model: nn.Module, parameters: Collection[str], read: set[str]) -> None:
        compiled = _compiled(model)
        bases = {n: vars(base) for n, base in adapted_layers(model, parameters).items() if not is_within(n, compiled)}
        self._held = [(own, own["_parameters"]) for own in bases.values()]
        for name, own in bases.items():
            own["_parameters"] = _Recording(own["_parameters"], name, read)

    def close(self) -> None:
        """Take the records away."""
        for own, parameters in self._held:
            own["_parameters"] = parameters


class _Recording(dict[str, Any]):
    """The parameters of a layer, which note when its weight is asked for by name."""

    def __init__(self, parameters: dict[str, Any], name: str, read: set[str]) -> None:
        super().__init__(parameters)
        self._name, self._read = name, read

    def __getitem__(self, key: str) -> Any:
        if key == "weight":
            self._read.add(self._name)
        return super().__getitem__(key)


def _holders(parameter: str) -> Iterator[str]:
    """Give the modules that a parameter lies in, inside out."""
    name = parameter
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def adapted_layers(model: nn.Module, parameters: Collection[str]) -> dict[str, nn.Module]:
    """Give adapted layer → the layer below its adapter, where adapters hold some of `parameters`."""
    modules = dict(model.named_modules())
    holders = {name for parameter in parameters for name in _holders(parameter)}
    children = {name: vars(modules[name])["_modules"] for name in holders if name in modules}
    return {name: own["base_layer"] for name, own in children.items() if "base_layer" in own}


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
